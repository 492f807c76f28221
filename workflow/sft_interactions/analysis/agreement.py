"""What the seeds of one fine-tuning have in common, checkpoint by checkpoint.

Another seed is a replicate: an interaction that it lacks is not the doing of data and settings alone
(docs/protocol.md, written before it had met the interactions of any LLM).
"""

from collections.abc import Sequence
from itertools import permutations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from sft_interactions.analysis.dynamics import CLASSES, EMERGED, KEY
from sft_interactions.analysis.intervals import rate
from sft_interactions.analysis.turnover import (
    SIGNED_KEY,
    count,
    kept_by_chance,
    omega,
    with_sign,
)

# All salient interactions of a checkpoint, beside the classes of `dynamics`.
SALIENT = "salient"


def tabulate(
    of_seeds: Sequence[pl.DataFrame], samples: Sequence[str], steps: Sequence[int], level: float
) -> pl.DataFrame:
    """How many interactions of a seed another one has in the same set at the same checkpoint.

    It has an interaction if sample, kind, words and sign are the same. Every seed is held against every
    other one, so that the agreement of two seeds is the Dice coefficient of their sets. By chance the other
    seed has the interactions of another sample; of what is preserved or removed, so many of its own before
    SFT, drawn at random.

    Args:
        of_seeds: rows of the ``dynamics`` table of each seed.
        samples: all analysed samples, the same in all seeds.
        steps: analysed checkpoints.
        level: confidence level of the intervals, between 0 and 1.

    Returns:
        Rows (step, class, count, shared, shared_by_chance, agreement, ci_low, ci_high): means a sample and
        seed, and shared / count summed over samples, with its jackknife interval over samples; null where
        it is undefined. At the first checkpoint, where nothing has changed, ``salient`` alone.

    Raises:
        ValueError: there are fewer than two seeds.
    """
    if len(of_seeds) < 2:
        raise ValueError(f"an agreement is one of two seeds or more, not of {len(of_seeds)}")
    steps = sorted(steps)
    before_sft = [omega(dynamics, steps[0]) for dynamics in of_seeds]
    records = []
    for step in steps:
        for label in (SALIENT, *(CLASSES if step > steps[0] else ())):
            sets = [_rows_of(dynamics, step, label) for dynamics in of_seeds]
            pairs = list(permutations(sets, 2))
            sizes = _mean([count(one, samples) for one in sets])
            shared = _mean(
                [count(one.join(other, on=SIGNED_KEY, how="semi"), samples) for one, other in pairs]
            )
            if label in (SALIENT, EMERGED):
                found = [kept_by_chance(one, other, len(samples)) for one, other in pairs]
                by_chance = [chance for chance in found if chance is not None]
            else:
                by_chance = [
                    _drawn_by_chance(one, other, before, samples)
                    for (one, other), (_, before) in zip(
                        pairs, permutations(before_sft, 2), strict=True
                    )
                ]
            value, low, high = rate(shared, sizes, level)
            records.append(
                {
                    "step": step,
                    "class": label,
                    "count": sizes.mean(),
                    "shared": shared.mean(),
                    "shared_by_chance": np.mean(by_chance) if by_chance else None,
                    "agreement": value,
                    "ci_low": low,
                    "ci_high": high,
                }
            )
    optional = ("shared_by_chance", "agreement", "ci_low", "ci_high")
    return pl.DataFrame(records, schema_overrides=dict.fromkeys(optional, pl.Float64))


def _rows_of(dynamics: pl.DataFrame, step: int, label: str) -> pl.DataFrame:
    """Rows of a set at a checkpoint, with the column positive."""
    if label == SALIENT:
        return omega(dynamics, step)
    return with_sign(dynamics.filter(pl.col("class") == label, pl.col("step") == step))


def _drawn_by_chance(
    one: pl.DataFrame, other: pl.DataFrame, before: pl.DataFrame, samples: Sequence[str]
) -> float:
    """How many of ``one`` would be in ``other``, a sample, if those were any of ``before``.

    Signs are left aside, so that it is rather too high.
    """
    among = count(one.join(before, on=list(KEY), how="semi"), samples)
    drawn, of_all = count(other, samples), count(before, samples)
    return float(np.mean(among * drawn / np.maximum(of_all, 1)))


def _mean(counts: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """(samples,): the mean over seeds, or over pairs of them."""
    mean: NDArray[np.float64] = np.mean(counts, axis=0)
    return mean
