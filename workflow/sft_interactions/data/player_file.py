"""Players that a user lists in a file: words, phrases, any span of the user text."""

import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from sft_interactions.data.words import UnsuitableSampleError, Word

_READERS: dict[str, Callable[..., pl.DataFrame]] = {
    ".csv": pl.read_csv,
    ".jsonl": pl.read_ndjson,
    ".parquet": pl.read_parquet,
}
_COLUMNS = {"sample_id": str, "word": str, "char_start": int, "char_end": int}
_TYPES = {str: "text", int: "a whole number"}


class OwnPlayers:
    """Players of many samples, read from a csv, jsonl or Parquet file with one row a player.

    Columns: ``sample_id``, and ``word`` (as it stands in the text; a phrase may hold blanks),
    ``char_start`` and ``char_end`` (in characters of the user text), or all three; a word that occurs
    once needs no place.
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
        for number, row in enumerate(self._read().iter_rows(named=True), 1):
            for column, value in row.items():
                if value is not None and not isinstance(value, _COLUMNS[column]):
                    raise self._error(
                        number, f"{column} is {value!r}, not {_TYPES[_COLUMNS[column]]}"
                    )
            if not row["sample_id"]:
                raise self._error(number, "sample_id is empty; fill it in")
            if not row["word"] and None in (row["char_start"], row["char_end"]):
                raise self._error(number, "neither word nor char_start and char_end; give one")
            self.rows.setdefault(row["sample_id"], []).append((number, row))

    def _read(self) -> pl.DataFrame:
        reader = _READERS.get(self.path.suffix)
        if reader is None:
            raise ValueError(
                f"players.choice: the format of {self.path} is not known; name a "
                f"{', '.join(_READERS)} file"
            )
        # A csv names no types: a sample_id of digits is text all the same.
        options = {}
        if self.path.suffix == ".csv":
            options["schema_overrides"] = {"sample_id": pl.String, "word": pl.String}
        try:
            frame = reader(self.path, **options)
        except (OSError, pl.exceptions.PolarsError) as error:
            raise ValueError(f"players.choice: {self.path} cannot be read: {error}") from error
        if "sample_id" not in frame.columns:
            raise ValueError(f"players.choice: {self.path} has no column sample_id; add it")
        missing = [column for column in _COLUMNS if column not in frame.columns]
        return frame.with_columns(pl.lit(None).alias(c) for c in missing).select(*_COLUMNS)

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
        if len(rows) > self.n:
            number, _ = rows[self.n]
            raise self._error(
                number, f"player {self.n + 1} of {sample_id}, but players.n is {self.n}; drop it"
            )
        placed = [(self._place(*row, text), row[0]) for row in rows]
        placed.sort(key=lambda item: item[0].start)
        for (before, _), (word, number) in itertools.pairwise(placed):
            if word.start < before.end:
                raise self._error(
                    number, f"{word.text!r} overlaps {before.text!r} of {sample_id}; drop one"
                )
        return [word for word, _ in placed]

    def _place(self, number: int, row: Mapping[str, Any], text: str) -> Word:
        word, start, end = row["word"], row["char_start"], row["char_end"]
        sample_id = row["sample_id"]
        if start is None:
            found = text.count(word)
            if found != 1:
                raise self._error(
                    number,
                    f"{word!r} occurs {found} times in {sample_id}; "
                    + ("give char_start" if found else "write it as it stands in the prompt"),
                )
            start = text.index(word)
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
        return Word(text[start:end], start, end)

    def _error(self, number: int, message: str) -> ValueError:
        return ValueError(f"players.choice: {self.path}, row {number}: {message}")
