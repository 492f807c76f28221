"""Players: the words of the user text that are masked. The same words for every model and checkpoint."""

import hashlib
import re
from collections.abc import Collection
from dataclasses import dataclass

# English function words. Negations are left out on purpose: they carry meaning in short texts.
ENGLISH_STOP_WORDS = frozenset(
    """
    a about above after again all also am an and any are as at be because been before being below
    between both but by can could did do does doing down during each few for from further had has
    have having he he'd he'll he's her here here's hers herself him himself his how how's i i'd i'll
    i'm i've if in into is it it's its itself just let's me might more most must my myself of off on
    once only or other ought our ours ourselves out over own same shall she she'd she'll she's should
    so some such than that that's the their theirs them themselves then there there's these they
    they'd they'll they're they've this those through to too under until up very was we we'd we'll
    we're we've were what what's when when's where where's which while who who's whom why why's will
    with would you you'd you'll you're you've your yours yourself yourselves
    """.split()
)

_CHUNK = re.compile(r"\S+")


@dataclass(frozen=True)
class Word:
    """A word and its place, in characters of the text it was found in."""

    text: str
    start: int
    end: int


def find_words(text: str) -> list[Word]:
    """Words of ``text`` in reading order: what stands between blanks, less punctuation at its ends."""
    words = []
    for chunk in _CHUNK.finditer(text):
        inner = [i for i, character in enumerate(chunk.group()) if character.isalnum()]
        if inner:
            start, end = chunk.start() + inner[0], chunk.start() + inner[-1] + 1
            words.append(Word(text[start:end], start, end))
    return words


def stop_words(setting: str | Collection[str]) -> frozenset[str]:
    """Stop-words of the config value: ``"english"``, ``"none"`` or the words themselves."""
    if setting == "english":
        return ENGLISH_STOP_WORDS
    if setting == "none":
        return frozenset()
    return frozenset(word.casefold() for word in setting)


def eligible_words(text: str, excluded: Collection[str]) -> list[Word]:
    """Words of ``text`` that may be players: those whose case-folded form is not ``excluded``."""
    straight = str.maketrans({"’": "'"})
    return [
        word
        for word in find_words(text)
        if word.text.casefold().translate(straight) not in excluded
    ]


def choose_players(
    sample_id: str, text: str, n: int, *, seed: int, excluded: Collection[str]
) -> list[Word]:
    """Draw ``n`` players of one sample, in reading order.

    The draw depends on ``seed``, ``sample_id`` and the place of the word only, so every model and
    checkpoint masks the same words (arXiv 2401.16318 draws 8-10 words at random likewise).

    Raises:
        ValueError: the text has fewer than ``n`` eligible words.
    """
    candidates = eligible_words(text, excluded)
    if len(candidates) < n:
        raise ValueError(
            f"sample {sample_id}: {len(candidates)} eligible words, but players.n is {n}; "
            "lower players.n, shorten players.stop_words or raise filter.min_words"
        )

    def rank(word: Word) -> bytes:
        return hashlib.sha256(f"{seed}:{sample_id}:{word.start}".encode()).digest()

    return sorted(sorted(candidates, key=rank)[:n], key=lambda word: word.start)
