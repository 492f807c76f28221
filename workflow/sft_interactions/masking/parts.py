"""The table of log-odds: kept sample by sample while a job runs, merged and checked at its end."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from sft_interactions import tables


def fingerprint(**parts: object) -> str:
    """Digest of everything that a sample's log-odds depend on; parts must be what JSON can hold."""
    text = json.dumps({**parts, "code_version": tables.code_version()}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def folder_state(folder: str | Path) -> list[tuple[str, int, int]]:
    """Names, sizes and modification times of a folder's files: whether it is the same as before."""
    files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    return [
        (path.relative_to(folder).as_posix(), path.stat().st_size, path.stat().st_mtime_ns)
        for path in files
    ]


class Parts:
    """Log-odds of single samples, in files named after their fingerprint.

    A part is found again by any later job that would compute the same numbers, however samples and
    checkpoints are divided into jobs.
    """

    def __init__(self, folder: str | Path, **provenance: str) -> None:
        self.folder, self.provenance = Path(folder), provenance

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.parquet"

    def read(self, key: str) -> tuple[pl.DataFrame, dict[str, str]] | None:
        """Rows of a sample and the metadata given with them; None where there is no such part."""
        path = self._path(key)
        if not path.is_file():
            return None
        kept = json.loads(tables.read_metadata(path)["about"])
        return tables.read(path, tables.LOG_ODDS), kept

    def write(
        self, key: str, sample_id: str, values: NDArray[np.float32], about: Mapping[str, str]
    ) -> None:
        """Keep the log-odds of a sample, (2^n,) by mask."""
        frame = pl.DataFrame(
            {"mask": np.arange(len(values), dtype=np.uint32), "log_odds": values}
        ).with_columns(sample_id=pl.lit(sample_id))
        tables.write(
            frame,
            self._path(key),
            tables.LOG_ODDS,
            metadata={"about": json.dumps(about)},
            **self.provenance,
        )

    def remove(self, keys: Sequence[str]) -> None:
        """Delete parts, and their folder with the last."""
        for key in keys:
            self._path(key).unlink(missing_ok=True)
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()


def evaluate(
    parts: Parts,
    keys: Mapping[str, str],
    log_odds: Callable[[str], tuple[NDArray[np.float32], dict[str, str]]],
    done: Callable[[str, bool], None],
) -> tuple[pl.DataFrame, dict[str, str]]:
    """Log-odds of some samples, of which those that are kept are not evaluated again.

    Args:
        keys: sample id to fingerprint.
        log_odds: gives a sample's (2^n,) log-odds, and metadata to keep with them.
        done: told after each sample, and whether it was kept.

    Returns:
        Rows of the table of log-odds, and the metadata of all samples.
    """
    frames, about = [pl.DataFrame(schema=tables.LOG_ODDS.columns)], {}
    for sample_id, key in keys.items():
        is_kept = (kept := parts.read(key)) is not None
        if not is_kept:
            parts.write(key, sample_id, *log_odds(sample_id))
            kept = parts.read(key)
        frames.append(kept[0])
        about |= kept[1]
        done(sample_id, is_kept)
    return pl.concat(frames), about


def merge(shards: Sequence[pl.DataFrame], prompts: pl.DataFrame, name: str) -> pl.DataFrame:
    """All log-odds of a checkpoint: every sample of ``prompts`` with every mask, once.

    Args:
        shards: tables of log-odds of some samples each.
        prompts: table of prompts.
        name: what the log-odds are of, for messages.

    Raises:
        ValueError: a sample or mask is missing, occurs twice, or does not belong there.
    """
    rows = pl.concat(shards)
    n_players = pl.col("player_of_token").list.max().cast(pl.UInt32) + 1
    expected = prompts.select("sample_id", n_masks=pl.lit(2, pl.UInt32).pow(n_players))
    found = rows.group_by("sample_id").agg(
        pl.len(), pl.col("mask").n_unique().alias("distinct"), pl.col("mask").max().alias("last")
    )
    both = expected.join(found, on="sample_id", how="full", coalesce=True).sort("sample_id")
    for sample_id, n_masks, n_rows, distinct, last in both.iter_rows():
        if n_masks is None:
            problem = "is not among the prompts"
        elif n_rows is None:
            problem = "is missing"
        elif n_rows != distinct:
            problem = "has a mask twice"
        elif n_rows != n_masks or last != n_masks - 1:
            problem = f"has {n_rows} of {n_masks} masks"
        else:
            continue
        raise ValueError(f"{name}: sample {sample_id} {problem}; rebuild its log-odds")
    return rows
