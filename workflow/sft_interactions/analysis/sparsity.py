"""How few interactions make up a logical model (sparsity)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from sft_interactions import tables
from sft_interactions.analysis.metrics import Support, summarize
from sft_interactions.analysis.runs import Checkpoint
from sft_interactions.analysis.salience import Salience, read_salient

STRENGTH_SHARE = 0.9
# A sample with a log-odds difference below this share of its log-odds range has a small one.
SMALL_DIFFERENCE = 0.25


def sorted_strengths(interactions: pl.DataFrame) -> dict[str, NDArray[np.float64]]:
    """Sample id to its (interactions,) |I| over AND and OR, divided by the largest, in falling order.

    Args:
        interactions: rows of an ``interactions`` table, which holds the effects that are not zero; the
            bias is left out.
    """
    return {sample_id: sizes / sizes[0] for sample_id, sizes in _sorted_sizes(interactions).items()}


def n_possible(n_players: int) -> int:
    """Number of AND and OR interactions of orders ≥ 1 that n players can have.

    Those of order 1 are one and the same function for AND and OR, and counted once.
    """
    return 2 * ((1 << n_players) - 1) - n_players


def _sorted_sizes(interactions: pl.DataFrame) -> dict[str, NDArray[np.float64]]:
    """Sample id to the |I| of its AND and OR interactions, (interactions,), in falling order."""
    effects = interactions.filter(pl.col("kind").cast(pl.String) != "bias")
    return {
        str(sample_id): np.sort(rows["effect"].abs().to_numpy())[::-1]
        for (sample_id,), rows in effects.group_by("sample_id", maintain_order=True)
    }


def _count(
    sizes: NDArray[np.float64], salient: NDArray[np.float64]
) -> tuple[int, int, int, float, float]:
    """Numbers of interactions of a sample: all, salient ones, the fewest for ``STRENGTH_SHARE``.

    Then Σ|I| of all and of the salient ones, in units of the largest |I|.

    Args:
        sizes: (interactions,) |I|, in falling order.
        salient: (salient interactions,) |I|, in falling order.
    """
    if not sizes.size:
        return 0, 0, 0, 0.0, 0.0
    strengths = sizes / sizes[0]
    total = strengths.sum()
    reached = np.cumsum(strengths) >= STRENGTH_SHARE * total * (1 - 1e-12)
    kept_total = (salient / sizes[0]).sum()
    return len(sizes), len(salient), int(np.argmax(reached)) + 1, float(total), float(kept_total)


def summarize_counts(
    interactions: pl.DataFrame,
    salient: pl.DataFrame,
    solve: pl.DataFrame,
    *,
    level: float,
) -> pl.DataFrame:
    """Counts of interactions a sample and the strength of the salient ones, means over samples.

    ``nonzero`` are those with an effect, ``salient`` the salient ones, ``for_strength`` the fewest
    whose Σ|I| is ``STRENGTH_SHARE`` of all; ``salient_strength`` is the share of Σ|I| in the salient ones.
    ``small_difference`` is the share of samples whose |v(N) − v(∅)| is below ``SMALL_DIFFERENCE`` of
    max v − min v, and ``salient_of_small_difference`` their share of the salient interactions.

    Args:
        interactions: rows of an ``interactions`` table.
        salient: those of them that are salient, under any rule.
        solve: rows of the ``solve`` table of the same checkpoint, one a sample.
        level: confidence level of the intervals, between 0 and 1.

    Returns:
        Rows (quantity, value, ci_low, ci_high, n_samples).
    """
    samples = solve["sample_id"].to_list()
    is_small = solve["log_odds_difference"] < SMALL_DIFFERENCE * solve["log_odds_range"]
    small = is_small.to_numpy().astype(np.float64)
    none = np.zeros(0)
    of_all, of_salient = _sorted_sizes(interactions), _sorted_sizes(salient)
    counted = [_count(of_all.get(s, none), of_salient.get(s, none)) for s in samples]
    nonzero, kept, enough, total, kept_total = (
        np.array(column, dtype=np.float64) for column in zip(*counted, strict=True)
    )
    ones = np.ones(len(samples))
    filled = (total > 0).astype(float)
    ratios = {
        "nonzero": (nonzero, ones, np.inf),
        "salient": (kept, ones, np.inf),
        "for_strength": (enough, ones, np.inf),
        "salient_strength": (kept_total / np.where(filled, total, 1), filled, 1.0),
        "small_difference": (small, ones, 1.0),
        "salient_of_small_difference": (small * kept, kept, 1.0),
    }
    return pl.DataFrame(
        [
            (name, *summarize(numerator, denominator, level, Support(largest=most)))
            for name, (numerator, denominator, most) in ratios.items()
        ],
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


def read_sparsity(checkpoint: Checkpoint, n_players: int, salience: Salience) -> Sparsity:
    """Read the sorted strengths of a checkpoint.

    Args:
        checkpoint: with its ``interactions`` and ``solve`` table.
        n_players: number of players of a prompt.
        salience: see :func:`~sft_interactions.analysis.salience.read_salient`.
    """
    paths = checkpoint.tables
    interactions = tables.read(paths["interactions"], tables.INTERACTIONS)
    solve = tables.read(paths["solve"], tables.SOLVE)
    salient = read_salient(paths["interactions"], paths["solve"], salience)
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
    salience: Salience,
    *,
    level: float,
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
            paths = checkpoint.tables
            interactions = tables.read(paths["interactions"], tables.INTERACTIONS)
            solve = tables.read(paths["solve"], tables.SOLVE)
            summary = summarize_counts(
                interactions,
                read_salient(paths["interactions"], paths["solve"], salience),
                solve,
                level=level,
            )
            run = pl.lit(checkpoint.label).alias("run")
            parts.append(summary.select(run, pl.lit(step).alias("step"), pl.all()))
    return pl.concat(parts).with_columns(pl.lit(n_possible(n_players)).alias("possible"))
