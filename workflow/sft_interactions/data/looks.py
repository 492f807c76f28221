"""Texts as they look: what cannot be seen in them, or does not tell one from another."""

import re
import unicodedata

# Blanks, and what cannot be seen: zero-width spaces, direction marks, a byte order mark. At the ends of a
# prompt or a response they are no part of it. Joiners are, of emoji and of words.
BLANKS = "".join(
    map(
        chr,
        [
            *range(0x09, 0x0E), *range(0x1C, 0x21), 0x85, 0xA0, 0xAD, 0x061C, 0x1680, 0x180E,
            *range(0x2000, 0x200C), 0x200E, 0x200F, *range(0x2028, 0x2030), 0x205F,
            *range(0x2060, 0x2065), *range(0x2066, 0x2070), 0x3000, 0xFEFF,
        ],
    )
)  # fmt: skip


def look_of(text: str) -> str:
    """A text as it looks: blanks of any kind and number alike, letters and marks composed."""
    words = re.split(f"[{re.escape(BLANKS)}]+", unicodedata.normalize("NFC", text))
    return " ".join(word for word in words if word)
