"""Whether a table belongs where it lies: to its run and checkpoint, and to the prompts of the run."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

import polars as pl

from sft_interactions import tables

_REBUILD = "delete it and run snakemake again to rebuild it"


def digest_prompts(prompts: pl.DataFrame) -> str:
    """Digest of the samples, tokens and players of a table of prompts, 16 hexadecimal digits."""
    rows = prompts.select("sample_id", "token_ids", "player_of_token", "target_token_ids")
    return hashlib.sha256(rows.sort("sample_id").write_json().encode()).hexdigest()[:16]


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
