"""Prompts that are easily changed on their way to the model, by what is odd about them."""

TEXTS = {
    "line ends": "a\r\nb\rc\n\nd",
    "tabs": "a\tb\t\tc",
    "NUL": "a\x00b film",
    "a mark first": "\u0301film dog",
    "direction marks": "\u200ffilm\u200f dog",
    "punctuation": "?!...",
    "digits": "1234567890",
    "decimals": "3.50 and 1,000,000",
    "a URL": "see https://a.b/c?d=e&f",
    "hyphens": "well-known co-op",
    "a tag": "#film @dog",
    "a leading blank": " film",
    "joined emoji": "👨‍👩‍👧 film",
    "braces": "{{ 7 * 7 }} {% if x %} {prompt} {0}",
    "placeholders": "RESPONSEGOESHERE PROMPTGOESHERE",
    "Hindi": "फ़िल्म अच्छी है",
}
