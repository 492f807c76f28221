"""The order of words on a line that holds a script written from right to left.

Imports the standard library only.
"""

import unicodedata
from collections.abc import Mapping, Sequence
from itertools import accumulate, groupby

LEFT_TO_RIGHT, RIGHT_TO_LEFT = "L", "R"
_NUMBER = "number"
# By the names of Unicode; all else has no direction of its own.
_LETTERS = {"L": LEFT_TO_RIGHT, "R": RIGHT_TO_LEFT, "AL": RIGHT_TO_LEFT}
_LETTERS_AND_DIGITS = {**_LETTERS, "EN": _NUMBER, "AN": _NUMBER}


def base_direction(text: str) -> str:
    """Direction of a text: that of its first letter."""
    return _first(text, _LETTERS) or LEFT_TO_RIGHT


def is_one_way(text: str) -> bool:
    """Whether a text holds nothing that is written from right to left."""
    return not any(unicodedata.bidirectional(character) in ("R", "AL") for character in text)


def visual_order(pieces: Sequence[str], base: str) -> list[int]:
    """Places of the pieces of a line, in the order in which they stand from left to right.

    The bidirectional algorithm of Unicode (UAX 9), for whole words and for blanks as pieces of their own.
    Within a piece the order is that of who draws it.

    Args:
        base: direction of the text that the line belongs to.
    """
    directions = _resolve([_first(piece, _LETTERS_AND_DIGITS) for piece in pieces], base)
    runs = [
        (direction, list(places))
        for direction, places in groupby(range(len(pieces)), key=directions.__getitem__)
    ]
    if base == RIGHT_TO_LEFT:
        runs.reverse()
    return [
        place
        for direction, places in runs
        for place in (reversed(places) if direction == RIGHT_TO_LEFT else places)
    ]


def _first(text: str, known: Mapping[str, str]) -> str | None:
    """What ``known`` says of the first character that it knows."""
    found = (known.get(unicodedata.bidirectional(character)) for character in text)
    return next((direction for direction in found if direction), None)


def _resolve(given: Sequence[str | None], base: str) -> list[str]:
    """Directions of all pieces: a number is as the word before it, a blank as the words around it."""
    last, strong = base, list[str | None]()
    for direction in given:
        own = last if direction == _NUMBER else direction
        last = own or last
        strong.append(own)
    before = accumulate(strong, _later, initial=base)
    after = list(accumulate(reversed(strong), _later, initial=base))[-2::-1]
    return [
        own or (one if one == other else base)
        for own, one, other in zip(strong, before, after, strict=False)
    ]


def _later(last: str, own: str | None) -> str:
    return own or last
