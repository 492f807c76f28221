"""Reading a user's text files, each mistake with the line that it is in.

Imports the standard library only.
"""

import codecs
import csv
import io
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

# A byte order mark is no text; a file of UTF-8 may begin with one.
_UTF_8 = "utf-8-sig"
_LONGEST_FIELD = 2**31 - 1
# A field between quotation marks, which are doubled inside.
_DOUBLED = re.compile(r'"(?:[^"]|"")*"', re.DOTALL)
# One that has a backslash before those inside.
_ESCAPED = re.compile(r'"(?:[^"]|(?<=\\)")*"', re.DOTALL)
# What programs that quote text leave as it is: numbers, and what R writes for a missing value.
_UNQUOTED = re.compile(r"NA|[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
_BLANK_BEFORE_MARK = re.compile(r'\s+".*"\s*', re.DOTALL)
_QUOTED_FIX = (
    "in tsv files they are text, unless the data set has quoted: true: set it, or save the file "
    "as csv"
)

# First bytes of files that hold others.
_UNPACK = "unpack it, and name the file that comes of it"
_PACKED = {
    b"\x1f\x8b": ("compressed by gzip", _UNPACK),
    b"\x28\xb5\x2f\xfd": ("compressed by zstd", _UNPACK),
    b"\xfd7zXZ\0": ("compressed by xz", _UNPACK),
    b"BZh": ("compressed by bzip2", _UNPACK),
    b"PK\x03\x04": ("a zip archive or an Excel workbook", "unpack it, or save the sheet as csv"),
    b"\xd0\xcf\x11\xe0": ("a workbook of an old Excel", "save the sheet as csv"),
}

Row = tuple[str, dict[str, Any]]


def refuse_packed(path: Path) -> None:
    """Refuse a file that is compressed, an archive or a workbook, whatever its name says.

    Raises:
        ValueError: it is one.
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        begin = file.read(8)
    for signature, (kind, fix) in _PACKED.items():
        if begin.startswith(signature):
            raise ValueError(f"{path} is {kind}; {fix}")


def read_text(path: Path, encoding: str = "utf-8") -> str:
    """Text of a file, line ends as they are, without a byte order mark.

    Raises:
        ValueError: the file is not in that encoding (the message names the line), or there is no such
            encoding.
        OSError: the file cannot be read.
    """
    raw = path.read_bytes()
    try:
        codec = codecs.lookup(encoding).name
    except LookupError as error:
        raise ValueError(f"{path}: there is no encoding {encoding}; correct encoding") from error
    if not codec.startswith("utf-16"):
        _refuse_utf_16(raw, path, encoding)
    # UTF-8 read as another encoding often gives no error but rubbish; other text is hardly ever UTF-8.
    if not codec.startswith("utf") and not raw.isascii() and _is_utf_8(raw):
        raise ValueError(f"{path} is in UTF-8, not in {encoding}; correct encoding")
    return _decode(raw, path, _UTF_8 if codec == "utf-8" else codec, encoding, first_line=1)


def _refuse_utf_16(raw: bytes, path: Path, encoding: str) -> None:
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise ValueError(f"{path} is in UTF-16, not in {encoding}; save it as UTF-8")


def _decode(raw: bytes, path: Path, codec: str, encoding: str, *, first_line: int) -> str:
    try:
        return raw.decode(codec)
    except LookupError as error:  # a codec of other things, such as rot13
        raise ValueError(f"{path}: {encoding} is no encoding of text; correct encoding") from error
    except UnicodeError as error:
        line = first_line + raw.count(b"\n", 0, getattr(error, "start", 0))
        raise ValueError(
            f"{path}, line {line} is not in {encoding}: {error}; correct encoding, or save the file as "
            "UTF-8"
        ) from error


def _is_utf_8(raw: bytes) -> bool:
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def read_separated(
    path: Path, delimiter: str, *, quoted: bool, encoding: str = "utf-8", header: bool = True
) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """Rows of a file of separated values.

    Args:
        quoted: whether fields may stand between quotation marks, which otherwise are text; a file of which
            the program that wrote it has quoted fields all the same is refused.
        header: whether the first line holds the names of the columns.

    Returns:
        The names (none without a header), and for each row where it ends (``line 3``) and its fields.
        Empty lines are left out.

    Raises:
        ValueError: a row has another number of fields than the first one, or a quotation mark is out of
            place, after a blank, or written by a program that quotes; the message names the line.
    """
    csv.field_size_limit(_LONGEST_FIELD)
    text = io.StringIO(read_text(path, encoding), newline="").readlines()
    lines = csv.reader(
        text,
        delimiter=delimiter,
        quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE,
        strict=True,
    )
    rows: list[tuple[str, list[str]]] = []
    before = 0
    try:
        for fields in lines:
            if fields:
                rows.append((f"line {lines.line_num}", fields))
            if quoted and any(map(_BLANK_BEFORE_MARK.fullmatch, fields)):
                row = "".join(text[before : lines.line_num])
                _refuse_blank_before_mark(f"{path}, line {lines.line_num}", row, delimiter)
            before = lines.line_num
    except csv.Error as error:
        raise ValueError(
            f"{path}, line {lines.line_num} cannot be read: {error}; correct its quotation marks"
            + (", or drop quoted if they are text" if quoted and delimiter == "\t" else "")
        ) from error
    if not rows:
        raise ValueError(f"{path} is empty; name another file")
    if not quoted:
        _refuse_marks_inside(path, rows)
    width = len(rows[0][1])
    for place, fields in rows:
        if len(fields) != width:
            raise ValueError(
                f"{path}, {place} has {len(fields)} fields, the first line {width}; correct that line or "
                "its quotation marks"
            )
    if not quoted:
        _refuse_quoted_columns(path, rows, header=header)
    return (rows[0][1], rows[1:]) if header else ([], rows)


def _refuse_blank_before_mark(where: str, row: str, delimiter: str) -> None:
    """Refuse a field that would be read with its quotation marks, since a blank stands before them.

    One that is quoted as a whole, and has such text inside, is read right.

    Args:
        row: as the file has it.
    """
    for field in re.findall(rf'(?:^|{delimiter})("(?:[^"]|"")*"|[^{delimiter}]*)', row):
        if _BLANK_BEFORE_MARK.fullmatch(field):
            raise ValueError(
                f"{where}: a blank stands before the quotation mark of {field.strip()[:60]!r}; drop the "
                "blank, or, if the marks are text, put the whole field between marks and double these"
            )


def _refuse_marks_inside(path: Path, rows: Sequence[tuple[str, list[str]]]) -> None:
    """Refuse fields between quotation marks with marks inside as programs for tables write them.

    Where quotation marks are text, some field has them otherwise.
    """
    marked = [(place, field) for place, fields in rows for field in fields if '"' in field]
    if all(_DOUBLED.fullmatch(field) for _, field in marked):
        for place, field in marked:
            if '""' in field[1:-1]:
                raise ValueError(
                    f"{path}, {place}: {field[:60]!r} stands between quotation marks and has them doubled "
                    f"inside, as pandas and Excel write a field; {_QUOTED_FIX}"
                )
    if all(_ESCAPED.fullmatch(field) for _, field in marked):
        for place, field in marked:
            if r"\"" in field[1:-1]:
                raise ValueError(
                    f"{path}, {place}: {field[:60]!r} stands between quotation marks and has them after "
                    "backslashes inside, as R writes a field; save the file as csv, or with marks doubled "
                    '(in R: qmethod = "double") and quoted: true in the data set'
                )


def _refuse_quoted_columns(
    path: Path, rows: Sequence[tuple[str, list[str]]], *, header: bool
) -> None:
    """Refuse a column of which every field stands between quotation marks; its name need not."""
    for column, name in enumerate(rows[0][1]):
        cells = rows[1:] if header and not _is_quoted(name) else rows
        filled = [(place, fields[column]) for place, fields in cells if fields[column]]
        texts = [(place, field) for place, field in filled if not _UNQUOTED.fullmatch(field)]
        if len(texts) > 1 and all(_is_quoted(field) for _, field in texts):
            place, field = texts[0]
            raise ValueError(
                f"{path}, {place}: {field[:60]!r} stands between quotation marks, as do all fields of its "
                f"column, as R and pandas can write them; {_QUOTED_FIX}"
            )


def _is_quoted(field: str) -> bool:
    return len(field) > 1 and field[0] == field[-1] == '"'


def find_column(path: Path, names: list[str], column: str) -> int:
    """Place of a column among the names of a file.

    Raises:
        ValueError: several columns have that name.
    """
    if names.count(column) > 1:
        raise ValueError(
            f"{path} has {names.count(column)} columns named {column!r}; rename all but one"
        )
    return names.index(column)


def read_json_lines(path: Path) -> Iterator[Row]:
    """Objects of a file with one JSON object a line, each with its place (``line 3``).

    Raises:
        ValueError: a line is not a JSON object in UTF-8.
    """
    raw = path.read_bytes()
    _refuse_utf_16(raw, path, "utf-8")
    for number, line in enumerate(raw.split(b"\n"), 1):
        if line.strip():
            text = _decode(line, path, _UTF_8, "utf-8", first_line=number)
            yield f"line {number}", _parse_object(text, f"{path}, line {number}")


def _parse_object(text: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(text, object_pairs_hook=_no_repeats)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where} is not a JSON object: {error}; correct that line") from error
    if not isinstance(row, dict):
        raise ValueError(
            f"{where} is not a JSON object; correct it, or set format to json for an array"
        )
    return row


def read_json_array(path: Path) -> Iterator[Row]:
    """Objects of a file that is one JSON array, each with its place (``entry 3``).

    Raises:
        ValueError: the file is not an array of JSON objects in UTF-8.
    """
    text = read_text(path)
    try:
        rows = json.loads(text, object_pairs_hook=_no_repeats)
    except (ValueError, RecursionError) as error:
        if _is_object(text.strip().partition("\n")[0]):
            raise ValueError(
                f"{path} has an object a line, not one array; set format to jsonl"
            ) from error
        raise ValueError(f"{path} is not JSON: {error}; correct it, or set format") from error
    if not isinstance(rows, list):
        raise ValueError(f"{path} is not an array of objects; {_array_fix(rows)}")
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise ValueError(f"{path}, entry {number} is not a JSON object; correct it")
        yield f"entry {number}", row


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def _array_fix(content: object) -> str:
    """What to do about a file of JSON that is not the array of its rows."""
    parts = content if isinstance(content, dict) else {}
    for name, part in parts.items():
        if isinstance(part, list) and part and all(isinstance(row, dict) for row in part):
            return f"write the array that stands under {name!r} into a file of its own"
    if parts and all(isinstance(part, dict | list) for part in parts.values()):
        return (
            "it holds column by column; write it row by row (in pandas: to_json(orient='records'))"
        )
    return "name another file, or set format"


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    repeated = [name for name in names if names.count(name) > 1]
    if repeated:
        raise ValueError(f"the key {repeated[0]!r} is there more than once")
    return dict(pairs)
