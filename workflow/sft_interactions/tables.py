"""The Parquet tables of a study: their columns, sorted, checked, written whole or not at all."""

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import polars as pl

from sft_interactions.orphans import PARTIAL
from sft_interactions.shortage import shortage_behind
from sft_interactions.version import __version__

# Raised when a column or a file gets another name or meaning, so that tables of an older version are
# made anew and not misread. 2: log_odds_difference (was output_range), log_odds (was outputs),
# mask_embedding (was masking_baseline) in the metadata of prompts. 3: with the digest of the file.
SCHEMA_VERSION = "3"
WITHOUT_DIGEST = "2"
# The digest of a file stands in its metadata, where it is this many zeros while it is computed.
DIGEST_KEY, DIGEST_SIZE = "file_digest", 32
# Key and value as the footer of a Parquet file holds them (Thrift's compact protocol).
_DIGEST = re.compile(
    DIGEST_KEY.encode() + b"\x18" + bytes([DIGEST_SIZE]) + b"([0-9a-f]{%d})" % DIGEST_SIZE
)

# Metadata: the path below the results folder that a table was written to, the digest of the prompts that
# it comes of, and that of all settings and inputs that it depends on; and place to digest of the tables and
# the folders of weights that it was made of.
PLACE, PROMPTS_DIGEST, INPUTS_DIGEST = "place", "prompts_digest", "inputs_digest"
MADE_OF = "made_of"
# Of the table of a training: place to digest of its checkpoints, and the digest of its settings.
CHECKPOINTS, TRAINING_DIGEST = "checkpoints", "training_digest"
# As the last line of a picture holds them.
_NOTE = re.compile(rb"<!-- made of ({.*}) -->\n\Z")

DataType = pl.DataType | type[pl.DataType]

KIND = pl.Enum(["and", "or"])
KIND_OR_BIAS = pl.Enum(["and", "or", "bias"])
CLASS = pl.Enum(["preserved", "emerged", "removed"])
VERDICT = pl.Enum(["supported", "contradicted", "inconclusive"])


@dataclass(frozen=True)
class Table:
    """Columns of a table and the columns it is sorted by; docs/tables.md says what they hold.

    Attributes:
        columns: column name to polars type, in the order of the file.
        key: columns that identify a row; rows are sorted by them.
        nullable: columns that may hold null.
    """

    columns: dict[str, DataType]
    key: tuple[str, ...]
    nullable: frozenset[str] = frozenset()


DATA = Table({"sample_id": pl.String, "prompt": pl.String, "target": pl.String}, ("sample_id",))
# Of a data set of conversations, or with a system's text in every row.
DATA_WITH_TURNS = Table({**DATA.columns, "earlier": pl.String}, DATA.key)
TRAINING = Table(
    {
        "step": pl.Int64,
        "train_loss": pl.Float64,
        "validation_loss": pl.Float64,
        "learning_rate": pl.Float64,
    },
    ("step",),
    frozenset({"validation_loss"}),
)
LOSSES = Table(
    {
        "step": pl.Int64,
        "split": pl.String,
        "sample_id": pl.String,
        "loss": pl.Float64,
        "n_tokens": pl.Int64,
    },
    ("step", "split", "sample_id"),
)
PROMPTS = Table(
    {
        "sample_id": pl.String,
        "rendered": pl.String,
        "token_ids": pl.List(pl.UInt32),
        "player_of_token": pl.List(pl.Int8),
        "target_token_ids": pl.List(pl.UInt32),
        "target_text": pl.String,
    },
    ("sample_id",),
)
MASK_EMBEDDING = Table({"dimension": pl.UInt32, "value": pl.Float32}, ("dimension",))
PLAYERS = Table(
    {
        "sample_id": pl.String,
        "player": pl.UInt8,
        "word": pl.String,
        "char_start": pl.UInt32,
        "char_end": pl.UInt32,
        "n_tokens": pl.UInt16,
    },
    ("sample_id", "player"),
)
LOG_ODDS = Table(
    {"sample_id": pl.String, "mask": pl.UInt32, "log_odds": pl.Float32}, ("sample_id", "mask")
)
LOG_ODDS_METADATA = (
    "dtype",
    "method",
    "log_odds_error_max",
    "log_odds_error_rms",
    "error_maskings",
    "longest_sample_error_max",
)
"""File metadata of log-odds: how they were made, and their error on a few maskings of two samples."""
INTERACTIONS = Table(
    {
        "sample_id": pl.String,
        "kind": KIND_OR_BIAS,
        "pattern": pl.UInt32,
        "order": pl.UInt8,
        "effect": pl.Float64,
    },
    ("sample_id", "kind", "pattern"),
)
SELECTION = Table(
    {**INTERACTIONS.columns, "share": pl.Float64}, INTERACTIONS.key, frozenset({"share"})
)
SOLVE = Table(
    {
        "sample_id": pl.String,
        "n_players": pl.UInt8,
        "l1": pl.Float64,
        "l1_lower_bound": pl.Float64,
        "l1_plain": pl.Float64,
        "log_odds_difference": pl.Float64,
        "log_odds_range": pl.Float64,
        "noise_bound": pl.Float64,
        "max_residual": pl.Float64,
        "iterations": pl.UInt32,
    },
    ("sample_id",),
)
RANGES = Table(
    {
        **INTERACTIONS.columns,
        "effect_low": pl.Float64,
        "effect_high": pl.Float64,
        "sign_certain": pl.Boolean,
    },
    INTERACTIONS.key,
    frozenset({"effect_low", "effect_high", "sign_certain"}),
)
JOINT = Table({"step": pl.Int64, **INTERACTIONS.columns}, ("step", *INTERACTIONS.key))
JOINT_CHANGE = Table(
    {
        "sample_id": pl.String,
        "change": pl.Float64,
        "change_lower_bound": pl.Float64,
        "single_change": pl.Float64,
    },
    ("sample_id",),
)
DYNAMICS = Table(
    {
        "sample_id": pl.String,
        "step": pl.Int64,
        "class": CLASS,
        "kind": KIND,
        "pattern": pl.UInt32,
        "order": pl.UInt8,
        "effect": pl.Float64,
        "generalizable": pl.Boolean,
        "chance": pl.Float64,
    },
    ("step", "sample_id", "class", "kind", "pattern"),
    frozenset({"generalizable", "chance"}),
)
UNCHANGED = Table(
    {"draw": pl.UInt32, **DYNAMICS.columns}, ("draw", *DYNAMICS.key), DYNAMICS.nullable
)
UNCHANGED_INTERACTIONS = Table(
    {"draw": pl.UInt32, "step": pl.Int64, **SELECTION.columns},
    ("draw", "step", *SELECTION.key),
    SELECTION.nullable,
)
UNCHANGED_SOLVE = Table(
    {"draw": pl.UInt32, "step": pl.Int64, **SOLVE.columns}, ("draw", "step", *SOLVE.key)
)
READINGS = Table(
    {"reading": pl.String, **DYNAMICS.columns}, ("reading", *DYNAMICS.key), DYNAMICS.nullable
)
STABILITY = Table(
    {
        "sample_id": pl.String,
        "step": pl.Int64,
        "perturbation": pl.String,
        "jaccard": pl.Float64,
        "sign_agreement": pl.Float64,
        "rel_l1_distance": pl.Float64,
    },
    ("step", "perturbation", "sample_id"),
    frozenset({"sign_agreement", "rel_l1_distance"}),
)
METRICS = Table(
    {
        "step": pl.Int64,
        "class": pl.String,
        "kind": pl.String,
        "order": pl.UInt8,
        "metric": pl.String,
        "value": pl.Float64,
        "ci_low": pl.Float64,
        "ci_high": pl.Float64,
        "n_samples": pl.UInt32,
    },
    ("step", "class", "kind", "order", "metric"),
    frozenset({"order", "value", "ci_low", "ci_high"}),
)

FINDING_PARTS = Table(
    {
        "run": pl.String,
        "finding": pl.UInt8,
        "part": pl.String,
        "statistic": pl.String,
        "claim": pl.String,
        "threshold": pl.Float64,
        "value": pl.Float64,
        "ci_low": pl.Float64,
        "ci_high": pl.Float64,
        "n_samples": pl.UInt32,
        "verdict": VERDICT,
    },
    ("run", "part"),
    frozenset({"value", "ci_low", "ci_high"}),
)
FINDINGS = Table(
    {
        "run": pl.String,
        "finding": pl.UInt8,
        "statement": pl.String,
        "part": pl.String,
        "statistic": pl.String,
        "claim": pl.String,
        "threshold": pl.Float64,
        "value": pl.Float64,
        "ci_low": pl.Float64,
        "ci_high": pl.Float64,
        "verdict": VERDICT,
        "parts_supported": pl.UInt8,
        "parts_contradicted": pl.UInt8,
        "parts": pl.UInt8,
    },
    ("run", "finding"),
    FINDING_PARTS.nullable,
)
PROTOCOL = Table(
    {
        "run": pl.String,
        "finding": pl.UInt8,
        "statement": pl.String,
        "denoising_ends": pl.String,
        "verdict": VERDICT,
        "parts_supported": pl.UInt8,
        "parts_contradicted": pl.UInt8,
        "parts": pl.UInt8,
        "as_published": VERDICT,
    },
    ("run", "finding"),
)
TURNOVER = Table(
    {
        "run": pl.String,
        "step": pl.Int64,
        "next_step": pl.Int64,
        "salient": pl.Float64,
        "kept": pl.Float64,
        "lost": pl.Float64,
        "new": pl.Float64,
        "kept_by_chance": pl.Float64,
        "loss_rate": pl.Float64,
        "ci_low": pl.Float64,
        "ci_high": pl.Float64,
    },
    ("run", "step"),
    frozenset({"kept_by_chance", "loss_rate", "ci_low", "ci_high"}),
)
SENSITIVITY = Table(
    {
        "position": pl.UInt16,
        "choice": pl.String,
        "boundary_step": pl.Int64,
        **{name: dtype for name, dtype in FINDINGS.columns.items() if name != "run"},
    },
    ("position", "finding"),
    FINDINGS.nullable,
)
SENSITIVITY_JOB = Table(
    {name: dtype for name, dtype in SENSITIVITY.columns.items() if name != "position"},
    ("choice", "finding"),
    SENSITIVITY.nullable,
)


@cache
def code_version() -> str:
    """Version of this library and a digest of its sources, such as ``0.2.0+1a2b3c4d5e6f``."""
    package = Path(__file__).parent
    digest = hashlib.sha256()
    for source in sorted(package.rglob("*.py")):
        digest.update(source.relative_to(package).as_posix().encode())
        digest.update(source.read_bytes())
    return f"{__version__}+{digest.hexdigest()[:12]}"


def check(frame: pl.DataFrame, table: Table, name: str) -> pl.DataFrame:
    """Return ``frame`` cast to the table's types, in its column order, sorted by its key.

    Columns that the table does not have are dropped.

    Args:
        name: what the rows are, for messages.

    Raises:
        ValueError: a column is missing, a value does not fit its type, is null or NaN where that is
            not allowed, or a key occurs twice. The message starts with ``name``.
    """
    missing = [column for column in table.columns if column not in frame.columns]
    if missing:
        raise ValueError(f"{name}: columns missing: {', '.join(missing)}")
    try:
        frame = frame.select(pl.col(c).cast(dtype) for c, dtype in table.columns.items())
    except pl.exceptions.PolarsError as error:
        raise ValueError(f"{name}: a value does not fit its column: {error}") from error
    for column, dtype in table.columns.items():
        if column not in table.nullable and frame[column].null_count():
            raise ValueError(f"{name}: column {column} holds null")
        if dtype in (pl.Float32, pl.Float64) and frame[column].is_nan().any():
            raise ValueError(f"{name}: column {column} holds NaN")
    frame = frame.sort(table.key)
    duplicated = frame.select(table.key).is_duplicated()
    if duplicated.any():
        row = frame.filter(duplicated).select(table.key).row(0, named=True)
        raise ValueError(f"{name}: the row {row} occurs more than once")
    return frame


def write(
    frame: pl.DataFrame,
    path: str | Path,
    table: Table,
    *,
    created_by: str,
    inputs_digest: str,
    results: str | Path | None = None,
    prompts: Mapping[str, str] | None = None,
    made_of: Mapping[str, str] | None = None,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a table as zstd Parquet under a temporary name, then rename it.

    Args:
        created_by: name of the rule, kept in the file's metadata.
        inputs_digest: digest of the settings and inputs that the rows depend on, kept in the file's
            metadata (``inputs_digest`` of ``origin``).
        results: the results folder; the metadata then have the place below it.
        prompts: run to the digest of its prompts; the metadata then have that of the table's run.
        made_of: place to digest of what the table is made of (``made_of`` of ``origin``).
        metadata: further file metadata.

    Raises:
        ValueError: the frame breaks the table's schema (see :func:`check`).
    """
    frame = check(frame, table, str(path))
    place = None if results is None else place_below(path, results)
    origin = {} if place is None else {PLACE: place}
    if place is not None and (digest := (prompts or {}).get(run_of(place) or "")):
        origin[PROMPTS_DIGEST] = digest
    if made_of is not None:
        origin[MADE_OF] = json.dumps(dict(made_of), sort_keys=True)
    with replacing(path) as temporary:
        frame.write_parquet(
            temporary,
            compression="zstd",
            metadata={
                "schema_version": SCHEMA_VERSION,
                DIGEST_KEY: "0" * DIGEST_SIZE,
                INPUTS_DIGEST: inputs_digest,
                "code_version": code_version(),
                "created_by": created_by,
                **origin,
                **(metadata or {}),
            },
        )
        _seal(temporary)


def place_below(path: str | Path, root: str | Path) -> str | None:
    """Path below a results folder, with slashes; None for one elsewhere."""
    path, root = Path(path).absolute(), Path(root).absolute()
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else None


def run_of(place: str) -> str | None:
    """Name of the run that a place below a results folder belongs to; None for one of no single run."""
    folder, _, rest = place.partition("/")
    return rest.partition("/")[0] if folder == "runs" else None


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=DIGEST_SIZE // 2).hexdigest()


def _find_digest(content: bytes) -> re.Match[bytes] | None:
    found = list(_DIGEST.finditer(content))
    return found[0] if len(found) == 1 else None


def _seal(path: Path) -> None:
    """Write the digest of a Parquet file into the place that its metadata keep for it."""
    content = path.read_bytes()
    place = _find_digest(content)
    if place is None:
        raise RuntimeError(f"{path}: its metadata do not hold {DIGEST_KEY} as expected")
    with path.open("r+b") as file:
        file.seek(place.start(1))
        file.write(_digest(content).encode())


def _is_sealed(path: str | Path) -> bool:
    """Whether a Parquet file has the digest of its content.

    Raises:
        ValueError: it is not that of its content.
    """
    content = Path(path).read_bytes()
    place = _find_digest(content)
    if place is None:
        return False
    blank = content[: place.start(1)] + b"0" * DIGEST_SIZE + content[place.end(1) :]
    if _digest(blank) != place.group(1).decode():
        raise _damaged(path)
    return True


def _damaged(path: str | Path) -> ValueError:
    return ValueError(
        f"{path}: this is not what was written (a damaged disk or copy, or a change by another program); "
        "delete the file and run snakemake again to rebuild it"
    )


def write_json(
    content: Mapping[str, Any],
    path: str | Path,
    *,
    results: str | Path | None = None,
    made_of: Mapping[str, str] | None = None,
) -> None:
    """Write a JSON file of a study with its version and digest, under a temporary name first.

    Args:
        results: the results folder; the file then has its place below it.
        made_of: place to digest of what the content is made of.
    """
    versioned = {**content, "schema_version": SCHEMA_VERSION}
    if results is not None:
        versioned[PLACE] = place_below(path, results)
    if made_of is not None:
        versioned[MADE_OF] = dict(made_of)
    sealed = {**versioned, DIGEST_KEY: _digest_of_json(versioned)}
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(sealed, indent=2) + "\n", "utf-8")


def read_json(path: str | Path) -> dict[str, Any]:
    """Content that :func:`write_json` was given.

    Raises:
        ValueError: the file is no JSON object, or not what was written. One of version 2 has no digest.
    """
    content = _read_sealed_json(path)
    for key in (DIGEST_KEY, "schema_version", PLACE, MADE_OF):
        content.pop(key, None)
    return content


def _read_sealed_json(path: str | Path) -> dict[str, Any]:
    """All that a JSON file of a study holds, its digest among it, which is compared."""
    try:
        content = dict(json.loads(Path(path).read_bytes()))
    except (ValueError, TypeError):
        raise _damaged(path) from None
    written = content.pop(DIGEST_KEY, None)
    if written is None and "schema_version" not in content:
        return content
    if written != _digest_of_json(content):
        raise _damaged(path)
    return {**content, DIGEST_KEY: written}


def note_in_picture(path: str | Path, place: str | None, made_of: Mapping[str, str]) -> None:
    """Add to an SVG file, as a comment, its place below the results folder and what it was made of."""
    note = {MADE_OF: json.dumps(dict(made_of), sort_keys=True)}
    if place is not None:
        note[PLACE] = place
    # Two hyphens end a comment, and runs have any name.
    text = json.dumps(note, sort_keys=True).replace("-", "\\u002d")
    with Path(path).open("ab") as file:
        file.write(f"<!-- made of {text} -->\n".encode())


def without_note(picture: bytes) -> bytes:
    """An SVG file without what :func:`note_in_picture` has added."""
    return _NOTE.sub(b"", picture)


def _digest_of_json(content: Mapping[str, Any]) -> str:
    return _digest(json.dumps(content, sort_keys=True).encode())


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Give a temporary path in a ``with`` statement, and rename it to ``path`` on success.

    After an error the temporary file is removed, and ``path`` is what it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(
        prefix=f"{PARTIAL}{path.stem}-", suffix=path.suffix, dir=path.parent
    )
    os.close(handle)
    os.chmod(name, 0o644)
    temporary = Path(name)
    try:
        yield temporary
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    temporary.replace(path)


def read_metadata(path: str | Path) -> dict[str, str]:
    """File metadata of a Parquet table, as strings.

    The content of the file is compared with the digest that it has since version 3.

    Raises:
        ValueError: the file is no whole Parquet file, it is not what was written, or of another version of
            the tables than ``SCHEMA_VERSION``.
    """
    is_sealed = _is_sealed(path)
    try:
        metadata = pl.read_parquet_metadata(path)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        if shortage_behind(error):
            raise
        raise _damaged(path) from None
    version = metadata.get("schema_version", "unknown")
    if version not in (SCHEMA_VERSION, WITHOUT_DIGEST):
        raise ValueError(
            f"{path}: this table has schema version {version}, but version {SCHEMA_VERSION} is needed; "
            "delete the file and run snakemake again to rebuild it"
        )
    if version == SCHEMA_VERSION and not is_sealed:
        raise _damaged(path)
    return metadata


def written_metadata(path: str | Path) -> dict[str, str]:
    """Metadata of a Parquet table, a JSON file or a picture (svg) of a study, as strings.

    Of a table the end of the file alone is read, so that its digest is not compared with its content.

    Raises:
        ValueError: the file is no whole Parquet file; or of JSON, not what was written.
    """
    if Path(path).suffix == ".json":
        content = _read_sealed_json(path)
        of_file = {key: content[key] for key in (PLACE, DIGEST_KEY) if key in content}
        if MADE_OF in content:
            of_file[MADE_OF] = json.dumps(content[MADE_OF])
        return of_file
    if Path(path).suffix == ".svg":
        found = _NOTE.search(Path(path).read_bytes())
        return dict(json.loads(found[1])) if found else {}
    try:
        return pl.read_parquet_metadata(path)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        if shortage_behind(error):
            raise
        raise _damaged(path) from None


def scan(path: str | Path, table: Table) -> pl.LazyFrame:
    """Open a table to read only what a query needs of it, and check that it has the table's schema.

    Raises:
        ValueError: the file is of another version of the tables, or its columns or their types differ
            from the table's.
    """
    rows, schema = _open(path)
    _check_schema(schema, table, path)
    return rows.select(list(table.columns))


def _open(path: str | Path) -> tuple[pl.LazyFrame, pl.Schema]:
    """All columns of a table whose file is what was written, and their types."""
    read_metadata(path)
    # A name with brackets is the name of this file, not a pattern that others match.
    rows = pl.scan_parquet(path, glob=False)
    try:
        return rows, rows.collect_schema()
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        if shortage_behind(error):
            raise
        raise _damaged(path) from None


def _check_schema(schema: pl.Schema, table: Table, path: str | Path) -> None:
    for column, dtype in table.columns.items():
        if column not in schema:
            raise ValueError(f"{path}: column {column} is missing; rebuild this table")
        if schema[column] != dtype:
            raise ValueError(f"{path}: column {column} is {schema[column]}, expected {dtype}")


def read(path: str | Path, table: Table, columns: Sequence[str] | None = None) -> pl.DataFrame:
    """Read a table, or some of its columns, after the check of :func:`scan`.

    Raises:
        ValueError: as :func:`scan`.
    """
    return _collect(scan(path, table).select(columns or list(table.columns)), path)


def _collect(rows: pl.LazyFrame, path: str | Path) -> pl.DataFrame:
    try:
        return rows.collect()
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        if shortage_behind(error):
            raise
        raise _damaged(path) from None


def read_samples(path: str | Path) -> pl.DataFrame:
    """Read a table of samples, with the turns before each prompt, as JSON, in column ``earlier``.

    Raises:
        ValueError: as :func:`scan`.
    """
    rows, schema = _open(path)
    if "earlier" in schema:
        _check_schema(schema, DATA_WITH_TURNS, path)
        return _collect(rows.select(list(DATA_WITH_TURNS.columns)), path)
    _check_schema(schema, DATA, path)
    return _collect(rows.select(*DATA.columns, pl.lit("[]").alias("earlier")), path)
