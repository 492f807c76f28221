"""The table of log-odds: kept sample by sample, merged and checked at its end."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from sft_interactions import tables


def fingerprint(**depends_on: object) -> str:
    """Digest of all that a sample's log-odds depend on, which must be what JSON can hold."""
    text = json.dumps(depends_on, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


class Parts:
    """Log-odds of single samples, in files named after their fingerprint.

    A part is found again by any later job that would compute the same numbers, however samples and
    checkpoints are divided into jobs, and whatever the config was in the meantime.
    """

    def __init__(self, folder: str | Path, **provenance: Any) -> None:
        self.folder, self.provenance = Path(folder), provenance

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.parquet"

    def holds(self, key: str) -> bool:
        """Whether there is a part of this fingerprint."""
        return self._path(key).is_file()

    def read(self, key: str) -> tuple[pl.DataFrame, dict[str, str]]:
        """Rows of a sample, and the metadata given with them.

        Raises:
            OSError: there is no part of this fingerprint.
            ValueError: the part is damaged, or was kept under another fingerprint.
        """
        path = self._path(key)
        metadata = tables.read_metadata(path)
        written = metadata.get(tables.INPUTS_DIGEST)
        if written != key:
            raise ValueError(
                f"{path}: this was kept as {written}.parquet, which is of another sample, checkpoint or "
                "training; delete the file and run snakemake again to rebuild it"
            )
        about: dict[str, str] = json.loads(metadata["about"])
        return tables.read(path, tables.LOG_ODDS), about

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
            **{**self.provenance, tables.INPUTS_DIGEST: key},
        )


def shared_inputs_digest(shards: Sequence[Path]) -> str:
    """What the log-odds of a checkpoint depend on, from the metadata of all of its shards.

    Raises:
        ValueError: two of them depend on something else, or an older version wrote the first.
    """
    return _shared(shards, tables.INPUTS_DIGEST)


def shared_made_of(shards: Sequence[Path]) -> dict[str, str]:
    """What the log-odds of a checkpoint were made of, from the metadata of all of its shards.

    Returns:
        Place below the results folder to digest.

    Raises:
        ValueError: two of them were made of something else, or an older version wrote the first.
    """
    return dict(json.loads(_shared(shards, tables.MADE_OF)))


def _shared(shards: Sequence[Path], key: str) -> str:
    values = [tables.read_metadata(path).get(key) for path in shards]
    first = values[0]
    if first is None:
        raise ValueError(
            f"{shards[0]}: was computed by an older version; delete {shards[0].parent} and run "
            "snakemake again"
        )
    for path, value in zip(shards, values, strict=True):
        if value != first:
            raise ValueError(
                f"{path}: was computed by other code, settings, weights or prompts than {shards[0]}; "
                f"delete {shards[0].parent} and {path.parent} and run snakemake again"
            )
    return first


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
