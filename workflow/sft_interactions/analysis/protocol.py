"""The five findings by tests that say no where nothing happens (docs/protocol.md, before any result)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from sft_interactions.analysis.findings import (
    Part,
    agreeing,
    conclude,
    open_where_all_agree,
    row_of,
)
from sft_interactions.analysis.intervals import (
    Shares,
    Statistic,
    interval,
    interval_over_seeds,
    larger,
    values_of,
)
from sft_interactions.analysis.metrics import Cells, Ratio, ratios
from sft_interactions.analysis.turnover import (
    KEPT,
    LOST,
    NEW,
    NONE,
    Stage,
    detect,
    find_changes,
    gone_for_good,
    observed,
    preserved_with_sign,
    seen_once,
)

# Where a quantity is looked at: before SFT, and in or at the end of one of the two stages.
BEFORE, DENOISING, OVERFITTING = 0, 1, 2
# Sets beside what is lost, new and kept: the salient ones before SFT, those of them that are kept up to the
# end of a stage, and those that are not; those that go and do not come back; those of one checkpoint only.
SALIENT, PRESERVED, GONE = "salient", "preserved", "gone"
GONE_FOR_GOOD, SEEN_ONCE = "gone for good", "seen once"


class Quantities:
    """What the parts are made of, for all samples and without each.

    Every method that takes a set and a stage returns float64 (1 + samples,), the first entry over all
    samples; NaN where undefined. Those of γ return it as a share.

    Args:
        dynamics: rows of a ``dynamics`` table.
        samples: all analysed samples, also those without a salient interaction.
        steps: analysed checkpoints.
        stage: where the denoising stage ends.
        n_players: number of players of a prompt.

    Raises:
        ValueError: it does not end at one of the checkpoints.
    """

    def __init__(
        self,
        dynamics: pl.DataFrame,
        samples: Sequence[str],
        steps: Sequence[int],
        stage: Stage,
        n_players: int,
    ) -> None:
        steps = sorted(steps)
        if stage.step not in steps:
            raise ValueError(f"stage: {stage.answer} is no checkpoint; give one of {steps}")
        end = steps.index(stage.step)
        changes = find_changes(dynamics, steps)
        in_first = pl.when(pl.col("step") <= end).then(DENOISING).otherwise(OVERFITTING)
        of_stage = in_first.cast(pl.Int64).alias("step")
        chain = preserved_with_sign(dynamics, steps)
        gone = chain[0].join(chain[-1], on=["sample_id", "kind", "pattern"], how="anti")
        left = gone_for_good(dynamics, steps).with_columns(pl.lit(GONE_FOR_GOOD).alias("class"))
        pools = [
            changes.with_columns(of_stage),
            left.select(changes.columns).with_columns(of_stage),
        ]
        for label, at, rows in (
            (SALIENT, BEFORE, chain[0]),
            (PRESERVED, DENOISING, chain[end]),
            (PRESERVED, OVERFITTING, chain[-1]),
            (GONE, OVERFITTING, gone),
            (SEEN_ONCE, BEFORE, seen_once(dynamics, steps)),
        ):
            pools.append(
                rows.with_columns(pl.lit(at, pl.Int64).alias("step"), pl.lit(label).alias("class"))
            )
        self.stage, self.steps = stage, steps
        self._samples, self._n_players = len(samples), n_players
        self._cells = Cells(pl.concat(pools), samples)
        self._weights = np.concatenate(
            [np.ones((1, len(samples))), 1.0 - np.eye(len(samples))], dtype=np.float64
        )
        self._ratios: dict[tuple[str, int], dict[str, Ratio]] = {}
        self.fewest_samples = len(samples)
        self.agreeing: list[int] = []

    def count(self, label: str, stage: int) -> NDArray[np.float64]:
        """Number of interactions a sample."""
        return self._mean("count", label, stage)

    def order(self, label: str, stage: int) -> NDArray[np.float64]:
        """Mean order."""
        return self._mean("mean_order", label, stage)

    def gamma(self, label: str, stage: int) -> Shares:
        """γ (Eq. 9)."""
        return Shares.of(self._mean("gamma", label, stage))

    def gamma_above_chance(self, label: str, stage: int) -> Shares:
        """γ less its chance level."""
        return Shares.of(
            self._mean("gamma", label, stage), self._mean("gamma_chance", label, stage)
        )

    def rho_above_chance(self, label: str, stage: int) -> NDArray[np.float64]:
        """ρ (Eq. 10) less its chance level."""
        return self._mean("rho", label, stage) - self._mean("rho_chance", label, stage)

    def by_chance(self) -> NDArray[np.float64]:
        """Number of interactions seen once, a sample and a checkpoint between the first and the last."""
        return self.count(SEEN_ONCE, BEFORE) / (len(self.steps) - 2)

    def share_of_training(self) -> NDArray[np.float64]:
        """End of the denoising stage as a share of the steps, and the ends of its interval, (3,)."""
        found = [self.stage.step, self.stage.low, self.stage.high]
        return np.array(found, dtype=np.float64) / self.steps[-1]

    def _mean(self, metric: str, label: str, stage: int) -> NDArray[np.float64]:
        key = label, stage
        if key not in self._ratios:
            rows = self._cells.rows(stage, label)
            self._ratios[key] = {
                ratio.metric: ratio
                for ratio in ratios(rows, "both", self._samples, self._n_players)
                if ratio.order is None
            }
        ratio = self._ratios[key][metric]
        self.fewest_samples = min(self.fewest_samples, int((ratio.denominator > 0).sum()))
        if (n := agreeing(metric, self._ratios[key])) is not None:
            self.agreeing.append(n)
        bottom = self._weights @ ratio.denominator
        with np.errstate(invalid="ignore", divide="ignore"):
            means = (self._weights @ ratio.numerator) / bottom
        return np.where(bottom > 0, means, np.nan)


def _difference(
    quantity: Callable[[str, int], Statistic], one: str, first: int, other: str, second: int
) -> Statistic:
    return quantity(one, first) - quantity(other, second)


def _growth(q: Quantities, stage: int) -> NDArray[np.float64]:
    return (q.count(NEW, stage) - q.count(LOST, stage)) / q.count(SALIENT, BEFORE)


def _early(q: Quantities) -> NDArray[np.float64]:
    early = q.count(GONE_FOR_GOOD, DENOISING) - q.by_chance()
    ever = early + q.count(GONE_FOR_GOOD, OVERFITTING)
    share: NDArray[np.float64] = np.divide(
        early, ever, out=np.full_like(early, np.nan), where=ever > 0
    )
    return share


D, O = DENOISING, OVERFITTING  # noqa: E741
PARTS: tuple[Part[Quantities], ...] = (
    Part(1, 1, "few", "(N₁ − L₁) / Ω_0", "<", 0, lambda q: _growth(q, D)),
    Part(1, 2, "low order", "mean order: L₁ − N₁", ">", 0,
         lambda q: _difference(q.order, LOST, D, NEW, D)),
    Part(1, 3, "high γ", "γ above chance: N₁ − L₁", ">", 0,
         lambda q: _difference(q.gamma_above_chance, NEW, D, LOST, D)),
    Part(1, 4, "high ρ", "ρ above chance: N₁ − L₁", ">", 0,
         lambda q: _difference(q.rho_above_chance, NEW, D, LOST, D)),
    Part(2, 1, "many", "(N₂ − L₂) / Ω_0", ">", 0, lambda q: _growth(q, O)),
    Part(2, 2, "high order", "mean order: N₂ − N₁", ">", 0,
         lambda q: _difference(q.order, NEW, O, NEW, D)),
    Part(2, 3, "low γ", "γ above chance: N₁ − N₂", ">", 0,
         lambda q: _difference(q.gamma_above_chance, NEW, D, NEW, O)),
    Part(2, 4, "low ρ", "ρ above chance: N₁ − N₂", ">", 0,
         lambda q: _difference(q.rho_above_chance, NEW, D, NEW, O)),
    Part(3, 1, "falls", "fall of the loss rate at d", ">", 0,
         lambda q: np.array(q.stage.fall), has_own_interval=True),
    Part(3, 2, "most", "(G₁ − S) / (G₁ + G₂ − S)", ">", 0.5, _early),
    Part(3, 3, "short", "d / T in training steps", "<", 0.5,
         lambda q: q.share_of_training(), has_own_interval=True),
    Part(4, 1, "high order", "mean order: (L₁ − K₁) − (L₂ − K₂)", ">", 0,
         lambda q: _difference(q.order, LOST, D, KEPT, D) - _difference(q.order, LOST, O, KEPT, O)),
    Part(4, 2, "γ ≈ 0", "γ above chance of L₁", "<", 0.1, lambda q: q.gamma_above_chance(LOST, D)),
    Part(4, 3, "ρ ≈ 0", "ρ above chance of L₁", "<", 0.1, lambda q: q.rho_above_chance(LOST, D)),
    Part(5, 1, "stable", "(preserved to d − preserved to T) / Ω_0", "<", 0.1,
         lambda q: (q.count(PRESERVED, D) - q.count(PRESERVED, O)) / q.count(SALIENT, BEFORE)),
    Part(5, 2, "low order", "mean order: lost from Ω_0 − preserved", ">", 0,
         lambda q: _difference(q.order, GONE, O, PRESERVED, O)),
    Part(5, 3, "γ > 1/2", "γ of the preserved", ">", 0.5, lambda q: q.gamma(PRESERVED, O)),
    Part(5, 4, "highest γ", "γ above chance: preserved − larger of N₂, L₁", ">", 0,
         lambda q: q.gamma_above_chance(PRESERVED, O)
         - larger(q.gamma_above_chance(NEW, O), q.gamma_above_chance(LOST, D))),
)  # fmt: skip
# The part that says that there is a denoising stage.
STAGE_FOUND = "3.1 falls"
# A verdict over seeds needs so many.
FEWEST_SEEDS = 3


@dataclass(frozen=True)
class Tested:
    """A run by the protocol.

    Attributes:
        stage: where its denoising stage ends.
        parts: rows of the ``finding_parts`` table without ``run``, in the order of ``PARTS``.
        observed: (samples,) which samples have an interaction at some checkpoint.
        values: part to what its interval is made of, float64 (1 + samples,), of all samples and without
            each; or shares; or (3,), the value and its interval. Empty without a checkpoint where the stage
            ends.
        agreeing: part to the fewest γ or ρ of a quantity of it that are all the same, where they are.
    """

    stage: Stage
    parts: pl.DataFrame
    observed: NDArray[np.bool_]
    values: Mapping[str, NDArray[np.float64] | Shares] = field(default_factory=dict)
    agreeing: Mapping[str, int] = field(default_factory=dict)


class Measured(NamedTuple):
    """A part of a finding in a run.

    Attributes:
        values: see :class:`Tested`.
        interval: value and ends of the interval, None where there is none.
        n_samples: the fewest of a quantity of it.
        agreeing: see :class:`Tested`; None where they are not the same.
    """

    values: NDArray[np.float64] | Shares
    interval: tuple[float | None, ...]
    n_samples: int
    agreeing: int | None


def measure(
    part: Part[Quantities], quantities: Quantities, there: NDArray[np.bool_], level: float
) -> Measured:
    """Measure a part with its interval.

    Args:
        there: (samples,) which samples have an interaction at some checkpoint.
        level: confidence level of the interval, between 0 and 1.
    """
    quantities.fewest_samples, quantities.agreeing = int(there.sum()), []
    with np.errstate(invalid="ignore", divide="ignore"):
        values = part.compute(quantities)
    n_agreeing = min(quantities.agreeing, default=None)
    value, low, high = (
        values_of(values).tolist()
        if part.has_own_interval
        else interval(values_of(values)[np.append(True, there)], level)
    )
    low, high = open_where_all_agree(value, low, high, n_agreeing, level)
    return Measured(values, (value, low, high), quantities.fewest_samples, n_agreeing)


def examine(
    dynamics: pl.DataFrame,
    samples: Sequence[str],
    steps: Sequence[int],
    n_players: int,
    *,
    level: float,
) -> Tested:
    """Test every part of every finding on one run.

    Args:
        dynamics: rows of a ``dynamics`` table.
        samples: all analysed samples, also those without a salient interaction.
        steps: analysed checkpoints.
        n_players: number of players of a prompt.
        level: confidence level of the intervals, between 0 and 1.
    """
    stage = detect(dynamics, samples, steps, level)
    there = observed(dynamics, samples)
    quantities = None
    if stage.step is not None:
        quantities = Quantities(dynamics, samples, steps, stage, n_players)
    records: list[dict[str, Any]] = []
    computed: dict[str, NDArray[np.float64] | Shares] = {}
    agree: dict[str, int] = {}
    for part in PARTS:
        value = low = high = None
        n_samples = 0
        if quantities is not None:
            found = measure(part, quantities, there, level)
            n_samples, computed[part.name] = found.n_samples, found.values
            if found.agreeing is not None:
                agree[part.name] = found.agreeing
            value, low, high = found.interval
        row = row_of(part, value, low, high, n_samples)
        if stage.answer == NONE and part.name == STAGE_FOUND:
            row["verdict"] = "contradicted"
        records.append(row)
    return Tested(stage, _frame(records), there, computed, agree)


def examine_over_seeds(tested: Sequence[Tested], level: float) -> pl.DataFrame:
    """Test every part of every finding on repeats of one fine-tuning with other seeds.

    A part has a value where it has one in every repeat: the mean. Its interval takes the samples and the
    seeds as drawn (:func:`~sft_interactions.analysis.intervals.interval_over_seeds`); of parts with an
    interval of their own it reaches from the least to the largest end. Of fewer than `FEWEST_SEEDS`
    repeats all is inconclusive.

    Args:
        tested: what :func:`examine` gives for each, on the same samples and checkpoints.
        level: confidence level of the intervals, between 0 and 1.

    Returns:
        Rows of the ``finding_parts`` table without ``run``; ``n_samples`` is the fewest of a repeat.
    """
    has_enough = len(tested) >= FEWEST_SEEDS
    never = all(one.stage.answer == NONE for one in tested)
    n_samples = zip(*(one.parts["n_samples"].to_list() for one in tested), strict=True)
    there = np.any([one.observed for one in tested], axis=0)
    records = []
    for part, of_seeds in zip(PARTS, n_samples, strict=True):
        value = low = high = None
        if all(part.name in one.values for one in tested):
            values = np.stack([values_of(one.values[part.name]) for one in tested])
            if part.has_own_interval:
                value, low, high = values[:, 0].mean(), values[:, 1].min(), values[:, 2].max()
            else:
                value, low, high = interval_over_seeds(values[:, np.append(True, there)], level)
            agree = [one.agreeing.get(part.name) for one in tested]
            n_agreeing = None if None in agree else min(n for n in agree if n is not None)
            low, high = open_where_all_agree(value, low, high, n_agreeing, level)
        if not has_enough:
            low = high = None
        row = row_of(part, value, low, high, min(of_seeds))
        if never and has_enough and part.name == STAGE_FOUND:
            row["verdict"] = "contradicted"
        records.append(row)
    return _frame(records)


def tabulate_over_seeds(tested: Sequence[Tested], level: float) -> pl.DataFrame:
    """Rows of :func:`examine_over_seeds`, with what they come to.

    Returns:
        Rows (denoising_ends, finding, finding_verdict, part, statistic, claim, threshold, value,
        ci_low, ci_high, n_samples, verdict), ordered by part; ``denoising_ends`` has the answer of each
        repeat.
    """
    parts = examine_over_seeds(tested, level)
    verdicts = conclude(parts.with_columns(run=pl.lit("")))
    return parts.join(
        verdicts.select("finding", finding_verdict="verdict"), on="finding", maintain_order="left"
    ).select(
        pl.lit(", ".join(one.stage.answer for one in tested)).alias("denoising_ends"),
        "finding",
        "finding_verdict",
        pl.exclude("finding", "finding_verdict"),
    )


def _frame(records: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
    optional = dict.fromkeys(("value", "ci_low", "ci_high"), pl.Float64)
    return pl.DataFrame(records, schema_overrides=optional)
