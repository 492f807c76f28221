"""Players that a user lists in a file: words, phrases, any span of the user text."""

import itertools
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from sft_interactions.data.files import find_column, read_json_lines, read_separated
from sft_interactions.data.looks import BLANKS, look_of
from sft_interactions.data.words import (
    UnsuitableSampleError,
    Word,
    is_between_characters,
    is_inside_word,
    plain_form,
)

_COLUMNS = {"sample_id": str, "word": str, "char_start": int, "char_end": int}
_TYPES = {str: "text", int: "a whole number"}


class OwnPlayers:
    """Players of many samples, read from a csv, jsonl or Parquet file with one row a player.

    Columns: ``sample_id``, and ``word`` (as it stands in the text; a phrase may hold blanks),
    ``char_start`` and ``char_end`` (in characters of the user text), or all three; a word that occurs
    once needs no place, and a part of a word needs both.
    """

    def __init__(self, path: str | Path, n: int) -> None:
        """Read the file.

        Args:
            n: players a sample must have.

        Raises:
            ValueError: the file cannot be read, a column is missing, or a row has neither word nor
                place.
        """
        self.path, self.n = Path(path), n
        self.rows: dict[str, list[tuple[int, Mapping[str, Any]]]] = {}
        for number, row in enumerate(self._read(), 1):
            for column, value in row.items():
                if value is not None and type(value) is not _COLUMNS[column]:
                    raise self._error(
                        number, f"{column} is {value!r}, not {_TYPES[_COLUMNS[column]]}; correct it"
                    )
            if not row["sample_id"]:
                raise self._error(number, "sample_id is empty; fill it in")
            if not row["word"] and None in (row["char_start"], row["char_end"]):
                raise self._error(number, "neither word nor char_start and char_end; give one")
            self.rows.setdefault(row["sample_id"], []).append((number, row))

    def _read(self) -> list[dict[str, Any]]:
        """The rows, each with all columns; None where it says nothing."""
        reader = _READERS.get(self.path.suffix)
        if reader is None:
            raise ValueError(
                f"players.choice: the format of {self.path} is not known; name a "
                f"{', '.join(_READERS)} file"
            )
        try:
            rows = list(reader(self.path))
        except (OSError, pl.exceptions.PolarsError) as error:
            one_line = " ".join(str(error).split())
            raise ValueError(
                f"players.choice: {self.path} cannot be read ({one_line}); name a file that can"
            ) from error
        except ValueError as error:
            raise ValueError(f"players.choice: {error}") from error
        if not rows:
            raise ValueError(f"players.choice: {self.path} has no row; add one for every player")
        found = dict.fromkeys(column for row in rows for column in row)
        if "sample_id" not in found:
            columns = ", ".join(map(repr, found))
            raise ValueError(
                f"players.choice: {self.path} has no column sample_id (found: {columns}); add it, and "
                "separate the columns of a csv file by commas"
            )
        for column in found:
            if column not in _COLUMNS:
                raise ValueError(
                    f"players.choice: {self.path} has a column {column!r}, which says nothing; name it "
                    f"one of {', '.join(_COLUMNS)}, or drop it"
                )
        return [{column: row.get(column) for column in _COLUMNS} for row in rows]

    def choose(self, sample_id: str, text: str) -> list[Word]:
        """Players of one sample, in reading order.

        Raises:
            UnsuitableSampleError: the file has too few players for this sample, or none.
            ValueError: it has too many, or a row does not fit the text or overlaps another; the message
                names the row.
        """
        rows = self.rows.get(sample_id, [])
        if len(rows) < self.n:
            raise UnsuitableSampleError(
                "too few players in the file" if rows else "not in the file of players",
                f"sample {sample_id}: {len(rows)} players in {self.path}, but players.n is {self.n}; "
                "add rows or lower players.n",
            )
        placed = [(self._place(*row, text), row[0]) for row in rows]
        placed.sort(key=lambda item: item[0].start)
        for (before, _), (word, number) in itertools.pairwise(placed):
            if word.start < before.end:
                raise self._error(
                    number, f"{word.text!r} overlaps {before.text!r} of {sample_id}; drop one"
                )
        # Not before, since what is there twice is one too many.
        if len(rows) > self.n:
            number, _ = rows[self.n]
            raise self._error(
                number, f"player {self.n + 1} of {sample_id}, but players.n is {self.n}; drop it"
            )
        return [word for word, _ in placed]

    def _place(self, number: int, row: Mapping[str, Any], text: str) -> Word:
        word, start, end = row["word"], row["char_start"], row["char_end"]
        sample_id = row["sample_id"]
        if word and word != word.strip(BLANKS):
            raise self._error(
                number,
                f"{word!r} has a blank at an end, which may belong to the next word; drop it",
            )
        if start is None:
            found = text.count(word)
            if found != 1:
                fix = "give char_start" if found else _spelling(word, text)
                raise self._error(number, f"{word!r} occurs {found} times in {sample_id}; {fix}")
            start = text.index(word)
            if any(is_inside_word(text, place) for place in (start, start + len(word))):
                raise self._error(
                    number,
                    f"{word!r} is a part of a word of {sample_id}; give char_start, or the whole word",
                )
        if end is None:
            end = start + len(word)
        if not 0 <= start < end <= len(text) or not text[start:end].strip():
            raise self._error(
                number,
                f"characters {start} to {end} of {sample_id} hold no text (it has {len(text)} "
                "characters); correct char_start and char_end",
            )
        if word and text[start:end] != word:
            raise self._error(
                number, f"{sample_id} has {text[start:end]!r} there, not {word!r}; correct either"
            )
        if not all(is_between_characters(text, place) for place in (start, end)):
            raise self._error(
                number,
                f"{text[start:end]!r} of {sample_id} begins or ends inside a character, such as a letter "
                "with its marks; take all of it",
            )
        if not word and any(is_inside_word(text, place) for place in (start, end)):
            raise self._error(
                number,
                f"characters {start} to {end} of {sample_id} are {text[start:end]!r}, a part of a word; "
                "count characters from 0, the end excluded, or give word too if a part is meant",
            )
        if text[start:end] != text[start:end].strip(BLANKS):
            raise self._error(
                number,
                f"characters {start} to {end} of {sample_id} are {text[start:end]!r}, with a blank at an "
                "end, which may belong to the next word; leave it out",
            )
        return Word(text[start:end], start, end)

    def _error(self, number: int, message: str) -> ValueError:
        return ValueError(f"players.choice: {self.path}, row {number}: {message}")


def _spelling(word: str, text: str) -> str:
    """What to do about a word that does not stand in the prompt."""
    if plain_form(look_of(word)) in plain_form(look_of(text)):
        return (
            f"it stands there with another apostrophe, accent, blank or case than in {word!a}; copy it out "
            "of the prompt"
        )
    return "write it as it stands in the prompt"


def _read_csv(path: Path) -> Iterable[dict[str, Any]]:
    names, rows = read_separated(path, ",", quoted=True)
    places = {column: find_column(path, names, column) for column in names}
    return [
        {
            column: _cell(fields[place], _COLUMNS.get(column, str))
            for column, place in places.items()
        }
        for _, fields in rows
    ]


def _cell(text: str, kind: type) -> str | int | None:
    """A cell of a csv, which names no types: a sample_id of digits is text all the same."""
    if not text:
        return None
    return int(text) if kind is int and text.strip().isdecimal() else text


_READERS: Mapping[str, Callable[[Path], Iterable[dict[str, Any]]]] = {
    ".csv": _read_csv,
    ".jsonl": lambda path: [row for _, row in read_json_lines(path)],
    ".parquet": lambda path: pl.read_parquet(path, glob=False).to_dicts(),
}
