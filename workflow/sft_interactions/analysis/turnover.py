"""What is lost, new and kept between neighbouring checkpoints, and where the denoising stage ends.

The classes of `dynamics` hold every checkpoint against the first, so that any churn looks like an early
removal. Here each interval stands for itself (docs/protocol.md, written before any result).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import polars as pl
from numpy.typing import NDArray

from sft_interactions.analysis.dynamics import EMERGED, KEY, PRESERVED
from sft_interactions.analysis.intervals import FEWEST_SAMPLES, bounds, leave_one_out, rate

LOST, NEW, KEPT = CHANGES = ("lost", "new", "kept")
# Answers of the detector other than a checkpoint.
LAST, NONE, UNKNOWN = "last", "none", "cannot be told"
# A loss rate that falls by less than this is one that does not fall.
MARGIN = 0.1
# A rate that differs by less is the same one.
_ROUNDING = 1e-12
# What makes two interactions the same one, sign included.
SIGNED_KEY = [*KEY, "positive"]


@dataclass(frozen=True)
class Stage:
    """Where the denoising stage ends.

    Attributes:
        answer: a checkpoint as text, ``last``, ``none`` or ``cannot be told``.
        step: the checkpoint, or None.
        low: the first checkpoint that could be it, or None.
        high: the last one.
        fall: fall of the loss rate of an interval there, with its bounds (the less favourable ones of both
            rates); NaN where there is no checkpoint.
    """

    answer: str
    step: int | None = None
    low: int | None = None
    high: int | None = None
    fall: tuple[float, float, float] = (float("nan"),) * 3


def omega(dynamics: pl.DataFrame, step: int) -> pl.DataFrame:
    """Salient interactions of a checkpoint, rows of a ``dynamics`` table with the column positive."""
    present = pl.col("class").is_in([PRESERVED, EMERGED])
    return with_sign(dynamics.filter(present, pl.col("step") == step))


def with_sign(dynamics: pl.DataFrame) -> pl.DataFrame:
    """The rows with the column ``positive``, whether the effect is above 0."""
    return dynamics.with_columns(positive=pl.col("effect") > 0)


def observed(dynamics: pl.DataFrame, samples: Sequence[str]) -> NDArray[np.bool_]:
    """Which samples have an interaction at some checkpoint, (samples,).

    The others are no observations: they add nothing to a ratio of sums, and must not count as if they did.
    """
    present = dynamics.filter(pl.col("class").is_in([PRESERVED, EMERGED]))
    return np.isin(np.asarray(samples, dtype=object), present["sample_id"].unique().to_list())


def find_changes(dynamics: pl.DataFrame, steps: Sequence[int]) -> pl.DataFrame:
    """What is lost, new and kept in every interval.

    Args:
        dynamics: rows of a ``dynamics`` table.
        steps: analysed checkpoints.

    Returns:
        Rows of the table with the number of the interval, from 1, as ``step``, and one of
        ``CHANGES`` as ``class``. The effect of what is lost is that at the interval's start.
    """
    steps = sorted(steps)
    sets = [omega(dynamics, step) for step in steps]
    parts = []
    for number, (before, after) in enumerate(pairwise(sets), 1):
        for label, rows in (
            (LOST, before.join(after, on=SIGNED_KEY, how="anti")),
            (NEW, after.join(before, on=SIGNED_KEY, how="anti")),
            (KEPT, after.join(before, on=SIGNED_KEY, how="semi")),
        ):
            parts.append(
                rows.with_columns(
                    pl.lit(number, pl.Int64).alias("step"), pl.lit(label).alias("class")
                )
            )
    return pl.concat(parts)


def preserved_with_sign(dynamics: pl.DataFrame, steps: Sequence[int]) -> list[pl.DataFrame]:
    """Interactions of the first checkpoint that are kept up to each, with their sign."""
    steps = sorted(steps)
    chain = [omega(dynamics, steps[0])]
    for step in steps[1:]:
        chain.append(omega(dynamics, step).join(chain[-1], on=SIGNED_KEY, how="semi"))
    return chain


def gone_for_good(dynamics: pl.DataFrame, steps: Sequence[int]) -> pl.DataFrame:
    """Interactions of the first checkpoint that the last one lacks, each in the interval in which it goes.

    It goes in the interval after the checkpoint at which it was last seen with its sign.

    Args:
        dynamics: rows of a ``dynamics`` table.
        steps: analysed checkpoints.

    Returns:
        Rows of the first checkpoint, with the number of the interval, from 1, as ``step``.
    """
    steps = sorted(steps)
    seen = _when_seen(dynamics, steps).filter(pl.col("last") < len(steps) - 1)
    goes = (pl.col("last") + 1).alias("step")
    return (
        omega(dynamics, steps[0]).drop("step").join(seen.select(*SIGNED_KEY, goes), on=SIGNED_KEY)
    )


def seen_once(dynamics: pl.DataFrame, steps: Sequence[int]) -> pl.DataFrame:
    """Interactions that are salient, with their sign, at one checkpoint only, and not the first or last.

    Args:
        dynamics: rows of a ``dynamics`` table.
        steps: analysed checkpoints.
    """
    steps = sorted(steps)
    inner = pl.col("last").is_between(1, len(steps) - 2)
    once = _when_seen(dynamics, steps).filter(inner, pl.col("times") == 1)
    return pl.concat([omega(dynamics, step) for step in steps]).join(
        once, on=SIGNED_KEY, how="semi"
    )


def _when_seen(dynamics: pl.DataFrame, steps: Sequence[int]) -> pl.DataFrame:
    """The last checkpoint, numbered from 0, and at how many an interaction is salient with its sign."""
    sets = [
        omega(dynamics, step).select(*SIGNED_KEY, pl.lit(number, pl.Int64).alias("last"))
        for number, step in enumerate(steps)
    ]
    return pl.concat(sets).group_by(SIGNED_KEY).agg(pl.col("last").max(), pl.len().alias("times"))


def count(rows: pl.DataFrame, samples: Sequence[str]) -> NDArray[np.float64]:
    """Number of rows of each sample, (samples,)."""
    counted = dict(rows.group_by("sample_id").len().iter_rows())
    return np.array([counted.get(sample, 0) for sample in samples], dtype=np.float64)


def kept_by_chance(before: pl.DataFrame, after: pl.DataFrame, n_samples: int) -> float | None:
    """How many would be kept, a sample, if each sample met the later interactions of another one.

    The mean over all shifts of the samples against each other.

    Args:
        before: rows of :func:`omega`.
        after: those of the next checkpoint.
        n_samples: number of analysed samples; with one there is no other, and the result is None.
    """
    if n_samples < 2:
        return None
    what = ["kind", "pattern", "positive"]
    pairs = (
        before.group_by(what)
        .len("a")
        .join(after.group_by(what).len("b"), on=what)
        .select((pl.col("a").cast(pl.Int64) * pl.col("b").cast(pl.Int64)).sum())
        .item()
    )
    own = len(before.join(after, on=SIGNED_KEY, how="semi"))
    return float((pairs - own) / (n_samples - 1) / n_samples)


def tabulate(
    dynamics: pl.DataFrame, samples: Sequence[str], steps: Sequence[int], level: float
) -> pl.DataFrame:
    """Turnover of every interval.

    Args:
        dynamics: rows of a ``dynamics`` table.
        samples: all analysed samples.
        steps: analysed checkpoints.
        level: confidence level of the intervals, between 0 and 1.

    Returns:
        Rows (step, next_step, salient, kept, lost, new, kept_by_chance, loss_rate, ci_low, ci_high): means
        a sample, and the loss rate with its jackknife interval, null where it is undefined.
    """
    steps = sorted(steps)
    lost, new, before = _counts(dynamics, samples, steps)
    records = []
    for i, (step, following) in enumerate(pairwise(steps)):
        value, low, high = rate(lost[:, i], before[:, i], level)
        chance = kept_by_chance(omega(dynamics, step), omega(dynamics, following), len(samples))
        records.append(
            {
                "step": step,
                "next_step": following,
                "salient": before[:, i].mean(),
                "kept": (before[:, i] - lost[:, i]).mean(),
                "lost": lost[:, i].mean(),
                "new": new[:, i].mean(),
                "kept_by_chance": chance,
                "loss_rate": value,
                "ci_low": low,
                "ci_high": high,
            }
        )
    optional = dict.fromkeys(("kept_by_chance", "loss_rate", "ci_low", "ci_high"), pl.Float64)
    return pl.DataFrame(records, schema_overrides=optional)


def detect(
    dynamics: pl.DataFrame, samples: Sequence[str], steps: Sequence[int], level: float
) -> Stage:
    """Where the denoising stage ends, by docs/protocol.md.

    Trainers leave a short last interval, and a long first one where old checkpoints are deleted. In both
    the loss rate of an interval falls by itself, and that of a step does not. So it has to fall by both.

    Args:
        dynamics: rows of a ``dynamics`` table.
        samples: all analysed samples; those without any interaction do not count.
        steps: analysed checkpoints.
        level: confidence level of the bounds, between 0 and 1.
    """
    steps = sorted(steps)
    n_cuts = len(steps) - 2
    there = observed(dynamics, samples)
    lost, new, before = (counts[there] for counts in _counts(dynamics, samples, steps))
    if n_cuts < 1 or (before > 0).sum(axis=0).min() < FEWEST_SAMPLES:
        return Stage(UNKNOWN)
    with np.errstate(invalid="ignore", divide="ignore"):
        rates = leave_one_out(lost) / leave_one_out(before)
        net = leave_one_out(lost - new) / leave_one_out(before)
    if not np.isfinite(rates).all():
        return Stage(UNKNOWN)
    # With intervals of one length the two are the same to the bit.
    lengths = np.diff(steps)
    falls, falls_a_step = _falls(rates), _falls(rates * (lengths.mean() / lengths))
    both = falls, falls_a_step
    low, high = _less_favourable(*(bounds(one, level, n_cuts) for one in both))
    if (low > _ROUNDING).any():
        smaller = np.minimum(falls[0], falls_a_step[0])
        cut = int(np.argmax(np.where(low > _ROUNDING, smaller, -np.inf)))
        lead, _ = _less_favourable(*(bounds(one[:, [cut]] - one, level, n_cuts) for one in both))
        possible = np.flatnonzero((low > _ROUNDING) & (lead <= _ROUNDING))
        return Stage(
            str(steps[cut + 1]),
            steps[cut + 1],
            steps[min(possible[0], cut) + 1],
            steps[max(possible[-1], cut) + 1],
            (float(falls[0, cut]), float(low[cut]), float(high[cut])),
        )
    if (bounds(net, level, n_cuts + 1)[0] > _ROUNDING).all():
        return Stage(LAST)
    return Stage(NONE if (high < MARGIN).all() else UNKNOWN)


def _less_favourable(
    one: tuple[NDArray[np.float64], NDArray[np.float64]],
    other: tuple[NDArray[np.float64], NDArray[np.float64]],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The smaller lower bounds and the larger upper ones."""
    return np.minimum(one[0], other[0]), np.maximum(one[1], other[1])


def _falls(rates: NDArray[np.float64]) -> NDArray[np.float64]:
    """(…, m) to (…, m − 1): for each cut the mean of the rates up to it less that of the later ones."""
    cuts = range(1, rates.shape[1])
    return np.stack(
        [rates[:, :cut].mean(axis=1) - rates[:, cut:].mean(axis=1) for cut in cuts], axis=1
    )


def _counts(
    dynamics: pl.DataFrame, samples: Sequence[str], steps: Sequence[int]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Lost, new and salient at the start, (samples, intervals) each."""
    changes = find_changes(dynamics, steps).partition_by("step", "class", as_dict=True)
    nothing = dynamics.clear()
    numbers = range(1, len(steps))
    lost, new = (
        np.stack([count(changes.get((i, label), nothing), samples) for i in numbers], axis=1)
        for label in (LOST, NEW)
    )
    before = np.stack([count(omega(dynamics, step), samples) for step in steps[:-1]], axis=1)
    return lost, new, before
