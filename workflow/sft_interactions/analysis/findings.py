"""The five findings of arXiv 2605.17967 as tests (docs/findings.md, written before any result)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import log
from typing import Any, Generic, Literal, TypeVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from sft_interactions.analysis.dynamics import EMERGED, PRESERVED, REMOVED
from sft_interactions.analysis.intervals import (
    FEWEST_SAMPLES,
    Shares,
    Statistic,
    bounds,
    interval,
    larger,
    values_of,
)
from sft_interactions.analysis.metrics import Cells, Ratio, ratios
from sft_interactions.analysis.stages import Boundary
from sft_interactions.analysis.turnover import observed

STATEMENTS = {
    1: "In the denoising stage few interactions emerge, of low order, high γ and high ρ",
    2: "In the overfitting stage many interactions emerge, of high order, low γ and low ρ",
    3: "Most removals happen in the denoising stage",
    4: "Removed interactions are of high order and have γ ≈ 0 and ρ ≈ 0",
    5: (
        "Preserved interactions stabilise early, are of low order with the highest γ (over one half) "
        "and ρ, and carry the inference together with the early emerged ones"
    ),
}
# Stages in which a part needs a checkpoint.
DENOISING, OVERFITTING = "denoising", "overfitting"
BOTH_STAGES = (DENOISING, OVERFITTING)
# Index of the checkpoint before SFT.
FIRST = 0
# Shares that differ by no more are the same.
_NO_SPREAD = 1e-12
# At this level a run must lose more than noise for the share of what it loses to have an interval.
_CERTAIN = 0.95


class Quantities:
    """Means over samples of what the parts are made of, over all samples and without each.

    Every method that takes a class and the index of a checkpoint returns float64 (1 + samples,), the
    first entry over all samples; NaN where undefined. Those of γ return it as a share. In names of
    statistics d is ``boundary`` and T is ``last``.

    Args:
        dynamics: rows of a ``dynamics`` table.
        unchanged: draws of a run in which nothing but noise changes, in the form of ``dynamics``.
        samples: all analysed samples, also those without a salient interaction.
        steps: analysed checkpoints.
        stages: where the denoising stage ends.
        n_players: number of players of a prompt.
        unchanged_samples: how many samples, the first of ``samples``, the draws cover.
        gamma: metric that is taken for γ.

    Attributes:
        boundary: index of the checkpoint that ends the denoising stage.
        last: index of the last checkpoint.
    """

    def __init__(
        self,
        dynamics: pl.DataFrame,
        unchanged: Sequence[pl.DataFrame],
        samples: Sequence[str],
        steps: Sequence[int],
        stages: Boundary,
        n_players: int,
        *,
        unchanged_samples: int,
        gamma: str = "gamma",
    ) -> None:
        self.steps = sorted(steps)
        self.boundary, self.last = self.steps.index(stages["boundary_step"]), len(steps) - 1
        self._stages, self._n_players, self._gamma = stages, n_players, gamma
        self._n_samples = self._fewest_samples = len(samples)
        self._cells = Cells(dynamics, samples)
        self._floor = [Cells(rows, samples) for rows in unchanged]
        self._weights = np.concatenate([np.ones((1, len(samples))), 1.0 - np.eye(len(samples))])
        self.observed = observed(dynamics, samples)
        self._covered = (np.arange(len(samples)) < unchanged_samples).astype(float)
        self._ratios: dict[tuple[Cells, str, int], dict[str, Ratio]] = {}
        self._agreeing: list[int] = []

    def has_checkpoint(self, stage: str) -> bool:
        """Whether a stage, ``DENOISING`` or ``OVERFITTING``, has a checkpoint after its start."""
        if stage == DENOISING:
            return self.boundary > FIRST
        return self.boundary < self.last

    def measure(
        self, compute: Callable[["Quantities"], NDArray[np.float64] | Shares]
    ) -> tuple[NDArray[np.float64] | Shares, int, int | None]:
        """A statistic, the fewest samples of one of its quantities, and the fewest that agree in one.

        See :func:`agreeing`.
        """
        self._fewest_samples, self._agreeing = self._n_samples, []
        with np.errstate(invalid="ignore", divide="ignore"):
            values = compute(self)
        return values, self._fewest_samples, min(self._agreeing, default=None)

    def count(self, label: str, step: int) -> NDArray[np.float64]:
        """Number of interactions."""
        return self._mean("count", label, step, self._cells)

    def count_beyond_floor(self, label: str, step: int) -> NDArray[np.float64]:
        """Number of interactions less that of the churn floor, over the samples that it covers."""
        here = self._mean("count", label, step, self._cells, covered_only=True)
        if not self._floor:
            return np.full_like(here, np.nan)
        draws = [self._mean("count", label, step, draw, covered_only=True) for draw in self._floor]
        floor: NDArray[np.float64] = np.mean(draws, axis=0)
        return here - floor

    def order(self, label: str, step: int) -> NDArray[np.float64]:
        """Mean order."""
        return self._mean("mean_order", label, step, self._cells)

    def gamma(self, label: str, step: int) -> Shares:
        """γ (Eq. 9)."""
        return Shares.of(self._mean(self._gamma, label, step, self._cells))

    def gamma_above_chance(self, label: str, step: int) -> Shares:
        """γ less its chance level."""
        gamma, chance = (
            self._mean(metric, label, step, self._cells)
            for metric in (self._gamma, f"{self._gamma}_chance")
        )
        return Shares.of(gamma, chance)

    def rho_above_chance(self, label: str, step: int) -> NDArray[np.float64]:
        """ρ (Eq. 10) less its chance level."""
        chance = self._mean("rho_chance", label, step, self._cells)
        return self._mean("rho", label, step, self._cells) - chance

    def cross_entropy(self, label: str, step: int) -> NDArray[np.float64]:
        """Cross-entropy of the class alone."""
        return self._mean("cross_entropy", label, step, self._cells)

    def share_of_training(self) -> NDArray[np.float64]:
        """The end of the denoising stage as a share of the steps up to the last checkpoint.

        Returns:
            (3,): the share and its interval, that of ``stages.json``; NaN where there is none.
        """
        stages = self._stages
        steps = [stages["boundary_step"], stages["ci_low_step"], stages["ci_high_step"]]
        return np.array(steps, dtype=np.float64) / self.steps[-1]

    def _mean(
        self, metric: str, label: str, step: int, cells: Cells, *, covered_only: bool = False
    ) -> NDArray[np.float64]:
        key = (cells, label, step)
        if key not in self._ratios:
            rows = cells.rows(self.steps[step], label)
            self._ratios[key] = {
                ratio.metric: ratio
                for ratio in ratios(rows, "both", self._n_samples, self._n_players)
                if ratio.order is None
            }
        *_, numerator, denominator = self._ratios[key][metric]
        if covered_only:
            numerator, denominator = numerator * self._covered, denominator * self._covered
        if (n := agreeing(metric, self._ratios[key])) is not None:
            self._agreeing.append(n)
        self._fewest_samples = min(self._fewest_samples, int((denominator > 0).sum()))
        bottom = self._weights @ denominator
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(bottom > 0, (self._weights @ numerator) / bottom, np.nan)


_Quantities = TypeVar("_Quantities")


@dataclass(frozen=True)
class Part(Generic[_Quantities]):
    """One part of a finding.

    Attributes:
        finding: number of the finding.
        number: its number within the finding.
        word: what it says, in a word or two.
        statistic: what is measured, in words.
        side: side of the threshold on which the paper claims the value to lie, ``>`` or ``<``.
        threshold: what it is compared with.
        compute: the statistic from the quantities, float64 (1 + samples,), over all
            samples and without each; of γ the shares that it is the sum of.
        needs: stages that must have a checkpoint for the part to be defined.
        has_own_interval: ``compute`` gives (3,) the value and the ends of its interval instead.
    """

    finding: int
    number: int
    word: str
    statistic: str
    side: Literal[">", "<"]
    threshold: float
    compute: Callable[[_Quantities], NDArray[np.float64] | Shares]
    needs: tuple[str, ...] = ()
    has_own_interval: bool = False

    @property
    def name(self) -> str:
        """Finding, number and word, such as ``1.1 few``."""
        return f"{self.finding}.{self.number} {self.word}"


def _share_by_boundary(q: Quantities) -> NDArray[np.float64]:
    """Of what the preserved lose beyond the churn floor, the share that is lost by the boundary.

    A run that loses no more than noise has no such share, and one of which that is not certain has no
    interval of it.
    """
    by_boundary, by_end = (q.count_beyond_floor(PRESERVED, step) for step in (q.boundary, q.last))
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where(by_end < 0, by_boundary / by_end, np.nan)
    if bounds(by_end[np.append(True, q.observed)], _CERTAIN)[1] >= 0:
        share[1:] = np.nan
    return share


def _above_the_others(quantity: Callable[[str, int], Statistic], step: int) -> Statistic:
    """A quantity of the preserved interactions less the larger one of the other two classes."""
    return quantity(PRESERVED, step) - larger(quantity(EMERGED, step), quantity(REMOVED, step))


PARTS: tuple[Part[Quantities], ...] = (
    Part(1, 1, "few", "count of E_d / count of Ω_0", "<", 0.5,
         lambda q: q.count(EMERGED, q.boundary) / q.count(PRESERVED, FIRST),
         needs=(DENOISING,)),
    Part(1, 2, "low order", "mean order: Ω_0 − E_d", ">", 0,
         lambda q: q.order(PRESERVED, FIRST) - q.order(EMERGED, q.boundary),
         needs=(DENOISING,)),
    Part(1, 3, "high γ", "γ above chance: E_d − R_d", ">", 0,
         lambda q: q.gamma_above_chance(EMERGED, q.boundary)
         - q.gamma_above_chance(REMOVED, q.boundary),
         needs=(DENOISING,)),
    Part(1, 4, "high ρ", "ρ above chance: E_d − R_d", ">", 0,
         lambda q: q.rho_above_chance(EMERGED, q.boundary)
         - q.rho_above_chance(REMOVED, q.boundary),
         needs=(DENOISING,)),
    Part(2, 1, "many", "count beyond the churn floor: E_T − E_d", ">", 0,
         lambda q: q.count_beyond_floor(EMERGED, q.last)
         - q.count_beyond_floor(EMERGED, q.boundary),
         needs=BOTH_STAGES),
    Part(2, 2, "high order", "mean order: E_T − E_d", ">", 0,
         lambda q: q.order(EMERGED, q.last) - q.order(EMERGED, q.boundary),
         needs=BOTH_STAGES),
    Part(2, 3, "low γ", "γ above chance: E_d − E_T", ">", 0,
         lambda q: q.gamma_above_chance(EMERGED, q.boundary)
         - q.gamma_above_chance(EMERGED, q.last),
         needs=BOTH_STAGES),
    Part(2, 4, "low ρ", "ρ above chance: E_d − E_T", ">", 0,
         lambda q: q.rho_above_chance(EMERGED, q.boundary)
         - q.rho_above_chance(EMERGED, q.last),
         needs=BOTH_STAGES),
    Part(3, 1, "beyond noise", "count of R_d beyond the churn floor", ">", 0,
         lambda q: q.count_beyond_floor(REMOVED, q.boundary),
         needs=(DENOISING,)),
    Part(3, 2, "most", "lost from P by d / by T, beyond the churn floor", ">", 0.5,
         _share_by_boundary,
         needs=BOTH_STAGES),
    Part(3, 3, "short", "d / T in training steps", "<", 0.5,
         lambda q: q.share_of_training(), has_own_interval=True,
         needs=BOTH_STAGES),
    Part(4, 1, "high order", "mean order: R_T − P_T", ">", 0,
         lambda q: q.order(REMOVED, q.last) - q.order(PRESERVED, q.last)),
    Part(4, 2, "γ ≈ 0", "γ above chance of R_T", "<", 0.1,
         lambda q: q.gamma_above_chance(REMOVED, q.last)),
    Part(4, 3, "ρ ≈ 0", "ρ above chance of R_T", "<", 0.1,
         lambda q: q.rho_above_chance(REMOVED, q.last)),
    Part(5, 1, "stable", "(count of P_d − count of P_T) / count of Ω_0", "<", 0.1,
         lambda q: (q.count(PRESERVED, q.boundary) - q.count(PRESERVED, q.last))
         / q.count(PRESERVED, FIRST),
         needs=BOTH_STAGES),
    Part(5, 2, "low order", "mean order: Ω_0 − P_T", ">", 0,
         lambda q: q.order(PRESERVED, FIRST) - q.order(PRESERVED, q.last)),
    Part(5, 3, "γ > 1/2", "γ of P_T", ">", 0.5,
         lambda q: q.gamma(PRESERVED, q.last)),
    Part(5, 4, "highest γ", "γ above chance: P_T − larger of E_T, R_T", ">", 0,
         lambda q: _above_the_others(q.gamma_above_chance, q.last)),
    Part(5, 5, "highest ρ", "ρ above chance: P_T − larger of E_T, R_T", ">", 0,
         lambda q: _above_the_others(q.rho_above_chance, q.last)),
    Part(5, 6, "carry", "cross-entropy: smaller of E_T, R_T − larger of P_T, E_d", ">", 0,
         lambda q: np.minimum(q.cross_entropy(EMERGED, q.last), q.cross_entropy(REMOVED, q.last))
         - np.maximum(q.cross_entropy(PRESERVED, q.last), q.cross_entropy(EMERGED, q.boundary)),
         needs=BOTH_STAGES),
    Part(5, 7, "beat chance", "log 2 − cross-entropy of P_T", ">", 0,
         lambda q: log(2) - q.cross_entropy(PRESERVED, q.last)),
)  # fmt: skip


def verdict_of(part: Part[Any], low: float | None, high: float | None, n_samples: int) -> str:
    """Verdict of a part: where its whole interval lies, on enough samples.

    Args:
        part: the part.
        low: lower end of its interval; None where there is no interval.
        high: upper end.
        n_samples: the fewest samples that one of its quantities rests on.
    """
    if low is None or high is None or n_samples < FEWEST_SAMPLES:
        return "inconclusive"
    if low > part.threshold:
        return "supported" if part.side == ">" else "contradicted"
    if high < part.threshold:
        return "supported" if part.side == "<" else "contradicted"
    return "inconclusive"


def agreeing(metric: str, of_class: Mapping[str, Ratio]) -> int | None:
    """Of how many γ or ρ all are the same, or None if they are not, or another metric.

    Of γ they are as many as interactions, of ρ as samples.

    Args:
        metric: a metric of a class at a checkpoint.
        of_class: all metrics of that class by name.
    """
    if metric not in ("gamma", "gamma_by_count", "rho"):
        return None
    *_, numerator, denominator = of_class[metric]
    there = denominator > 0
    if not there.any() or np.ptp(numerator[there] / denominator[there]) > _NO_SPREAD:
        return None
    if metric == "rho":
        return int(there.sum())
    return int(of_class["count"].numerator[there].sum())


def open_where_all_agree(
    value: float | None,
    low: float | None,
    high: float | None,
    n_agreeing: int | None,
    level: float,
) -> tuple[float | None, float | None]:
    """Interval of a part, also where γ or ρ of all samples are the same, so that they show no spread.

    A γ that is 0 in each of a few prompts with one interaction may be one of 0.3. If n of a kind are all
    so, or all not so, the share that is so can be 1 − ((1 − level) / 2)^(1/n) away from 1 or 0 (Clopper
    and Pearson, Biometrika 26, 1934).

    Args:
        value: value over all samples.
        low: lower end of its interval; None where there is none.
        high: upper end.
        n_agreeing: the fewest that agree in one of its quantities (:func:`agreeing`); None if none do.
        level: confidence level of the interval, between 0 and 1.
    """
    if value is None or low is None or high is None or n_agreeing is None:
        return low, high
    reach = 1 - float((1 - level) / 2) ** (1 / n_agreeing)
    return min(low, value - reach), max(high, value + reach)


def row_of(
    part: Part[Any], value: float | None, low: float | None, high: float | None, n_samples: int
) -> dict[str, Any]:
    """Row of the ``finding_parts`` table without ``run``, see :func:`verdict_of`."""
    return {
        "finding": part.finding,
        "part": part.name,
        "statistic": part.statistic,
        "claim": f"{part.side} {part.threshold:g}",
        "threshold": float(part.threshold),
        "value": value,
        "ci_low": low,
        "ci_high": high,
        "n_samples": n_samples,
        "verdict": verdict_of(part, low, high, n_samples),
    }


def measure_parts(
    dynamics: pl.DataFrame,
    unchanged: Sequence[pl.DataFrame],
    samples: Sequence[str],
    steps: Sequence[int],
    stages: Boundary,
    n_players: int,
    *,
    unchanged_samples: int,
    level: float,
    gamma: str = "gamma",
) -> pl.DataFrame:
    """Test every part of every finding on one run.

    Args:
        dynamics: rows of a ``dynamics`` table.
        unchanged: draws of a run in which nothing but noise changes, in the form of ``dynamics``; they
            give the churn floor.
        samples: all analysed samples, also those without a salient interaction.
        steps: analysed checkpoints.
        stages: boundary_step, ci_low_step and ci_high_step of the run's ``stages.json``.
        n_players: number of players of a prompt.
        unchanged_samples: how many samples, the first of ``samples``, those draws cover.
        level: confidence level of the intervals, between 0 and 1.
        gamma: metric that is taken for γ.

    Returns:
        Rows (finding, part, statistic, claim, threshold, value, ci_low, ci_high, n_samples, verdict).
    """
    quantities = Quantities(
        dynamics,
        unchanged,
        samples,
        steps,
        stages,
        n_players,
        unchanged_samples=unchanged_samples,
        gamma=gamma,
    )
    # The others add nothing to a ratio of counts.
    there = np.append(True, quantities.observed)
    n_observed = int(quantities.observed.sum())
    records = []
    for part in PARTS:
        value = low = high = None
        n_samples = 0
        if all(map(quantities.has_checkpoint, part.needs)):
            values, n_samples, n_agreeing = quantities.measure(part.compute)
            n_samples = min(n_samples, n_observed)
            value, low, high = (
                [None if np.isnan(one) else float(one) for one in values_of(values)]
                if part.has_own_interval
                else interval(values_of(values)[there], level, n_samples)
            )
            low, high = open_where_all_agree(value, low, high, n_agreeing, level)
        records.append(row_of(part, value, low, high, n_samples))
    return pl.DataFrame(records)


def conclude(parts: pl.DataFrame) -> pl.DataFrame:
    """Verdict of every finding of every run from its parts, with the part that decides.

    Args:
        parts: rows of :func:`measure_parts` with a column ``run``.

    Returns:
        Rows of the ``findings`` table.
    """
    records = []
    for (run, finding), rows in parts.sort("part").group_by("run", "finding", maintain_order=True):
        verdicts = rows["verdict"].to_list()
        verdict = "inconclusive"
        if "contradicted" in verdicts:
            verdict = "contradicted"
        elif set(verdicts) == {"supported"}:
            verdict = "supported"
        deciding = rows.row(verdicts.index(verdict), named=True)
        records.append(
            {
                **deciding,
                "run": run,
                "statement": STATEMENTS[finding],
                "verdict": verdict,
                "parts_supported": verdicts.count("supported"),
                "parts_contradicted": verdicts.count("contradicted"),
                "parts": len(verdicts),
            }
        )
    return pl.DataFrame(records)
