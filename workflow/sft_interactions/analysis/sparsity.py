"""How few interactions make up a logical model (sparsity)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from sft_interactions import tables
from sft_interactions.analysis.metrics import bootstrap_weights, summarize
from sft_interactions.analysis.runs import Checkpoint
from sft_interactions.analysis.salience import select_salient

STRENGTH_SHARE = 0.9


def sorted_strengths(interactions: pl.DataFrame) -> dict[str, NDArray[np.float64]]:
    """Sample id to its |I| over AND and OR, divided by the largest, in falling order.

    Args:
        interactions: rows of an ``interactions`` table, which holds the effects that are not zero; the
            bias is left out.
    """
    effects = interactions.filter(pl.col("kind") != "bias").with_columns(pl.col("effect").abs())
    return {
        sample_id: np.sort(rows["effect"].to_numpy())[::-1] / rows["effect"].max()
        for (sample_id,), rows in effects.group_by("sample_id", maintain_order=True)
    }


def n_possible(n_players: int) -> int:
    """Number of AND and OR interactions of orders ≥ 1 that n players can have.

    Those of order 1 are one and the same function for AND and OR, and counted once.
    """
    return 2 * (2**n_players - 1) - n_players


def summarize_counts(
    interactions: pl.DataFrame,
    salient: pl.DataFrame,
    samples: Sequence[str],
    *,
    resamples: int,
    level: float,
    seed: int,
) -> pl.DataFrame:
    """Counts of interactions a sample and the strength of the salient ones, means over samples.

    ``nonzero`` are those with an effect, ``salient`` the salient ones, ``for_strength`` the fewest
    whose Σ|I| is ``STRENGTH_SHARE`` of all; ``salient_strength`` is the share of Σ|I| in the salient ones.

    Returns:
        Rows (quantity, value, ci_low, ci_high, n_samples).
    """
    sorted_ = sorted_strengths(interactions)
    strengths = [sorted_.get(sample_id, np.zeros(0)) for sample_id in samples]
    kept = dict(salient.group_by("sample_id").len().iter_rows())
    counts = np.array([kept.get(sample_id, 0) for sample_id in samples])
    totals = np.array([s.sum() for s in strengths])
    filled = (totals > 0).astype(float)
    # The salient ones are the strongest ones under every salience rule.
    salient_strength = np.array([s[:k].sum() for s, k in zip(strengths, counts, strict=True)])
    enough = [
        int(np.searchsorted(np.cumsum(s), STRENGTH_SHARE * s.sum() * (1 - 1e-12))) + 1
        if s.size
        else 0
        for s in strengths
    ]
    ones = np.ones(len(samples))
    weights = bootstrap_weights(len(samples), resamples, seed)
    ratios = {
        "nonzero": (np.array([s.size for s in strengths], float), ones),
        "salient": (counts.astype(float), ones),
        "for_strength": (np.array(enough, float), ones),
        "salient_strength": (salient_strength / np.where(filled, totals, 1), filled),
    }
    return pl.DataFrame(
        [(name, *summarize(*ratio, weights, level)) for name, ratio in ratios.items()],
        schema=["quantity", "value", "ci_low", "ci_high", "n_samples"],
        orient="row",
    )


@dataclass(frozen=True)
class Sparsity:
    """Sorted strengths of the interactions at one checkpoint of a run.

    Attributes:
        label: title of the run.
        step: the checkpoint.
        strengths: for each sample float64 |I| / max |I| in falling order, those that are not zero.
        n_salient: mean number of salient interactions a sample.
        n_possible: number of interactions that the players can have.
    """

    label: str
    step: int
    strengths: Sequence[NDArray[np.float64]]
    n_salient: float
    n_possible: int


def read_sparsity(checkpoint: Checkpoint, n_players: int, salience: Mapping[str, Any]) -> Sparsity:
    """Read the sorted strengths of a checkpoint.

    Args:
        checkpoint: with its ``interactions`` and ``solve`` table.
        n_players: number of players of a prompt.
        salience: rule and threshold of :func:`~sft_interactions.analysis.salience.select_salient`.
    """
    interactions = tables.read(checkpoint.tables["interactions"], tables.INTERACTIONS)
    solve = tables.read(checkpoint.tables["solve"], tables.SOLVE)
    salient = select_salient(interactions, solve, **salience)
    return Sparsity(
        checkpoint.label,
        checkpoint.step,
        list(sorted_strengths(interactions).values()),
        len(salient) / len(solve),
        n_possible(n_players),
    )


def tabulate(
    runs: Sequence[Mapping[int, Checkpoint]],
    n_players: int,
    salience: Mapping[str, Any],
    *,
    resamples: int,
    level: float,
    seed: int,
) -> pl.DataFrame:
    """Counts of interactions at all checkpoints of some runs (:func:`summarize_counts`).

    Args:
        runs: for each run step to checkpoint, with its tables as for :func:`read_sparsity`.
        n_players: number of players of a prompt.
        salience: as for :func:`read_sparsity`.

    Returns:
        Rows (run, step, quantity, value, ci_low, ci_high, n_samples, possible).
    """
    parts = []
    for checkpoints in runs:
        for step, checkpoint in checkpoints.items():
            interactions = tables.read(checkpoint.tables["interactions"], tables.INTERACTIONS)
            solve = tables.read(checkpoint.tables["solve"], tables.SOLVE)
            summary = summarize_counts(
                interactions,
                select_salient(interactions, solve, **salience),
                solve["sample_id"].to_list(),
                resamples=resamples,
                level=level,
                seed=seed,
            )
            run = pl.lit(checkpoint.label).alias("run")
            parts.append(summary.select(run, pl.lit(step).alias("step"), pl.all()))
    return pl.concat(parts).with_columns(pl.lit(n_possible(n_players)).alias("possible"))
