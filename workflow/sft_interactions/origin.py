"""Where a table comes from: its run and checkpoint, the prompts of the run, and all that it depends on."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from sft_interactions import tables
from sft_interactions.files import content_digest
from sft_interactions.models.checkpoint_files import folder_digest

_REBUILD = "delete it and run snakemake again to rebuild it"


def digest_prompts(prompts: pl.DataFrame) -> str:
    """Digest of the samples, tokens and players of a table of prompts, 16 hexadecimal digits."""
    rows = prompts.select("sample_id", "token_ids", "player_of_token", "target_token_ids")
    return hashlib.sha256(rows.sort("sample_id").write_json().encode()).hexdigest()[:16]


def inputs_digest(
    settings: Mapping[str, Any],
    files: Iterable[str | Path],
    root: str | Path,
    cache: str | Path | None = None,
) -> str:
    """Digest of what a table depends on: settings, and the contents of the files that it is made of.

    A table is known by the digest in its metadata; a file of weights by ``SHA256SUMS`` beside it, which is
    compared with the weights when they are loaded, or else by its content.

    Args:
        settings: what the rows depend on beside files, as JSON can hold it.
        files: inputs of the job, in an order that matters; folders are those of a model, or of checkpoints.
            What lies outside of ``root`` is not looked at: its content belongs to the settings.
        root: the results folder.
        cache: see :func:`~sft_interactions.files.content_digest`.

    Returns:
        16 hexadecimal digits.

    Raises:
        ValueError: a file cannot be read.
    """
    inside = [path for path in map(Path, files) if tables.place_below(path, root) is not None]
    text = json.dumps([settings, [_digest_of(path, cache) for path in inside]], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _digest_of(path: Path, cache: str | Path | None) -> str:
    if path.is_dir():
        return folder_digest(path, cache)
    if path.suffix == ".parquet":
        written = tables.written_digest(path)
        if written is not None:  # tables of older versions have none
            return written
    return content_digest([path])


def check_inputs(files: Iterable[str | Path], root: str | Path) -> dict[str, str]:
    """Check the tables that a job is about to read, and tell what prompts they come of.

    Args:
        files: inputs of the job; folders stand for the tables in them. What lies outside of ``root`` is not
            looked at.
        root: the results folder.

    Returns:
        Run to the digest of its prompts, of those runs whose tables tell it.

    Raises:
        ValueError: a table is damaged, was written as another one, or comes of other prompts than another
            table of its run.
    """
    known: dict[str, tuple[str, Path]] = {}
    for path in _tables(files):
        place = tables.place_below(path, root)
        if place is None:
            continue
        metadata = tables.read_metadata(path)
        written = metadata.get(tables.PLACE, place)
        if written != place:
            raise ValueError(
                f"{path}: this table was written as {written} of a results folder; put the right one "
                f"here, or {_REBUILD}"
            )
        run, prompts = tables.run_of(place), metadata.get(tables.PROMPTS_DIGEST)
        if run is None or prompts is None:
            continue
        digest, first = known.setdefault(run, (prompts, path))
        if digest != prompts:
            raise ValueError(
                f"{path}: this table comes of other prompts than {first}, so one of them is of another "
                f"study or of an older config; {_REBUILD}, or that one"
            )
    return {run: digest for run, (digest, _) in known.items()}


def _tables(files: Iterable[str | Path]) -> Iterable[Path]:
    for path in map(Path, files):
        if path.suffix == ".parquet":
            yield path
        elif path.is_dir():
            yield from sorted(path.glob("*.parquet"))
