"""The five findings of arXiv 2605.17967 as tests (docs/findings.md, written before any result)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import log

import numpy as np
import polars as pl

from sft_interactions.analysis.metrics import bootstrap_weights, by_cell, ratios

FEWEST_SAMPLES = 5
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
P, E, R = "preserved", "emerged", "removed"


class Quantities:
    """Means over samples of what the parts are made of, for all samples and for every resample.

    Every method takes a class and the index of a checkpoint and returns float64 (1 + resamples,), the
    first entry over all samples; NaN where undefined.

    Attributes:
        d: index of the checkpoint that ends the denoising stage.
        last: index of the last checkpoint.
        n_samples: the fewest samples that a quantity asked for rests on; to be reset by the caller.
    """

    def __init__(
        self,
        dynamics: pl.DataFrame,
        unchanged: Sequence[pl.DataFrame],
        samples: Sequence[str],
        steps: Sequence[int],
        boundary_step: int,
        n_players: int,
        *,
        unchanged_samples: int,
        weights: np.ndarray,
        gamma: str = "gamma",
    ) -> None:
        self.steps, self.n_players = sorted(steps), n_players
        self.d, self.last = self.steps.index(boundary_step), len(steps) - 1
        self.n_samples = len(samples)
        self._gamma = gamma
        self._runs = [by_cell(rows, samples) for rows in (dynamics, *unchanged)]
        self._weights = np.concatenate(
            [np.ones((1, len(samples))), weights.reshape(-1, len(samples))]
        )
        self._covered = np.arange(len(samples)) < unchanged_samples
        self._sums: dict[tuple[int, str, int], dict[str, np.ndarray]] = {}

    def count(self, label: str, step: int) -> np.ndarray:
        """Number of interactions."""
        return self._mean("count", label, step)

    def count_beyond_floor(self, label: str, step: int) -> np.ndarray:
        """Number of interactions less that of the churn floor, over the samples that it covers."""
        floors = [self._mean("count", label, step, draw) for draw in range(1, len(self._runs))]
        here = self._mean("count", label, step, covered=True)
        return here - np.mean(floors, axis=0) if floors else np.full_like(here, np.nan)

    def order(self, label: str, step: int) -> np.ndarray:
        """Mean order."""
        return self._mean("mean_order", label, step)

    def gamma(self, label: str, step: int) -> np.ndarray:
        """γ (Eq. 9)."""
        return self._mean(self._gamma, label, step)

    def gamma_above_chance(self, label: str, step: int) -> np.ndarray:
        """γ less its chance level."""
        return self.gamma(label, step) - self._mean(f"{self._gamma}_chance", label, step)

    def rho_above_chance(self, label: str, step: int) -> np.ndarray:
        """ρ (Eq. 10) less its chance level."""
        return self._mean("rho", label, step) - self._mean("rho_chance", label, step)

    def cross_entropy(self, label: str, step: int) -> np.ndarray:
        """Cross-entropy of the class alone."""
        return self._mean("cross_entropy", label, step)

    def _mean(
        self, metric: str, label: str, step: int, run: int = 0, covered: bool = False
    ) -> np.ndarray:
        key = (run, label, step)
        if key not in self._sums:
            cells = self._runs[run]
            rows = cells.get((self.steps[step], label), cells[None])
            self._sums[key] = {
                name: np.stack(ratio)
                for order, name, *ratio in ratios(
                    rows, "both", self._weights.shape[1], self.n_players
                )
                if order is None
            }
        numerator, denominator = self._sums[key][metric] * (
            self._covered if covered or run else 1.0
        )
        self.n_samples = min(self.n_samples, int((denominator > 0).sum()))
        bottom = self._weights @ denominator
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(bottom > 0, (self._weights @ numerator) / bottom, np.nan)


@dataclass(frozen=True)
class Part:
    """One part of a finding.

    Attributes:
        name: finding, number and a word, such as ``1.1 few``.
        statistic: what is measured, in words.
        above: the paper claims a value above the threshold; else below.
        threshold: what it is compared with.
        compute: the statistic from the quantities.
        stages: the part needs a denoising stage (1), and an overfitting stage too (2).
    """

    name: str
    statistic: str
    above: bool
    threshold: float
    compute: Callable[[Quantities], np.ndarray]
    stages: int = 0

    @property
    def finding(self) -> int:
        """Number of the finding."""
        return int(self.name[0])


def _above_the_others(quantity: Callable[[str, int], np.ndarray], last: int) -> np.ndarray:
    return quantity(P, last) - np.maximum(quantity(E, last), quantity(R, last))


PARTS = (
    Part("1.1 few", "count of E_d / count of Ω_0", False, 0.5,
         lambda q: q.count(E, q.d) / q.count(P, 0), 1),
    Part("1.2 low order", "mean order: Ω_0 − E_d", True, 0,
         lambda q: q.order(P, 0) - q.order(E, q.d), 1),
    Part("1.3 high γ", "γ above chance: E_d − R_d", True, 0,
         lambda q: q.gamma_above_chance(E, q.d) - q.gamma_above_chance(R, q.d), 1),
    Part("1.4 high ρ", "ρ above chance: E_d − R_d", True, 0,
         lambda q: q.rho_above_chance(E, q.d) - q.rho_above_chance(R, q.d), 1),
    Part("2.1 many", "count beyond the churn floor: E_T − E_d", True, 0,
         lambda q: q.count_beyond_floor(E, q.last) - q.count_beyond_floor(E, q.d), 2),
    Part("2.2 high order", "mean order: E_T − E_d", True, 0,
         lambda q: q.order(E, q.last) - q.order(E, q.d), 2),
    Part("2.3 low γ", "γ above chance: E_d − E_T", True, 0,
         lambda q: q.gamma_above_chance(E, q.d) - q.gamma_above_chance(E, q.last), 2),
    Part("2.4 low ρ", "ρ above chance: E_d − E_T", True, 0,
         lambda q: q.rho_above_chance(E, q.d) - q.rho_above_chance(E, q.last), 2),
    Part("3.1 beyond noise", "count of R_d beyond the churn floor", True, 0,
         lambda q: q.count_beyond_floor(R, q.d), 1),
    Part("3.2 most", "lost from P by d / by T, beyond the churn floor", True, 0.5,
         lambda q: q.count_beyond_floor(P, q.d) / q.count_beyond_floor(P, q.last), 2),
    Part("4.1 high order", "mean order: R_T − P_T", True, 0,
         lambda q: q.order(R, q.last) - q.order(P, q.last)),
    Part("4.2 γ ≈ 0", "γ above chance of R_T", False, 0.1,
         lambda q: q.gamma_above_chance(R, q.last)),
    Part("4.3 ρ ≈ 0", "ρ above chance of R_T", False, 0.1,
         lambda q: q.rho_above_chance(R, q.last)),
    Part("5.1 stable", "(count of P_d − count of P_T) / count of Ω_0", False, 0.1,
         lambda q: (q.count(P, q.d) - q.count(P, q.last)) / q.count(P, 0), 2),
    Part("5.2 low order", "mean order: Ω_0 − P_T", True, 0,
         lambda q: q.order(P, 0) - q.order(P, q.last)),
    Part("5.3 γ > 1/2", "γ of P_T", True, 0.5, lambda q: q.gamma(P, q.last)),
    Part("5.4 highest γ", "γ above chance: P_T − larger of E_T, R_T", True, 0,
         lambda q: _above_the_others(q.gamma_above_chance, q.last)),
    Part("5.5 highest ρ", "ρ above chance: P_T − larger of E_T, R_T", True, 0,
         lambda q: _above_the_others(q.rho_above_chance, q.last)),
    Part("5.6 carry", "cross-entropy: smaller of E_T, R_T − larger of P_T, E_d", True, 0,
         lambda q: np.minimum(q.cross_entropy(E, q.last), q.cross_entropy(R, q.last))
         - np.maximum(q.cross_entropy(P, q.last), q.cross_entropy(E, q.d)), 2),
    Part("5.7 beat chance", "log 2 − cross-entropy of P_T", True, 0,
         lambda q: log(2) - q.cross_entropy(P, q.last)),
)  # fmt: skip
SHORT = Part("3.3 short", "d / T in training steps", False, 0.5, lambda q: np.empty(0), 2)


def verdict_of(part: Part, low: float | None, high: float | None, n_samples: int) -> str:
    """Verdict of a part: where its whole interval lies, on enough samples."""
    if low is None or n_samples < FEWEST_SAMPLES:
        return "inconclusive"
    if low > part.threshold:
        return "supported" if part.above else "contradicted"
    if high < part.threshold:
        return "contradicted" if part.above else "supported"
    return "inconclusive"


def measure_parts(
    dynamics: pl.DataFrame,
    unchanged: Sequence[pl.DataFrame],
    samples: Sequence[str],
    steps: Sequence[int],
    stages: Mapping[str, object],
    n_players: int,
    *,
    unchanged_samples: int,
    resamples: int,
    level: float,
    seed: int,
    gamma: str = "gamma",
) -> pl.DataFrame:
    """Test every part of every finding on one run.

    Args:
        dynamics: rows of a ``dynamics`` table.
        unchanged: draws of a run in which nothing but noise changes, in the form of ``dynamics``; they
            give the churn floor.
        samples: all analysed samples.
        stages: boundary_step, ci_low_step and ci_high_step of the run's ``stages.json``.
        unchanged_samples: how many samples, the first of ``samples``, those draws cover.
        resamples: bootstrap resamples (percentile intervals at ``level``); 0 leaves all inconclusive.
        gamma: metric that is taken for γ.

    Returns:
        Rows (finding, part, statistic, claim, threshold, value, ci_low, ci_high, n_samples, verdict).
    """
    quantities = Quantities(
        dynamics,
        unchanged,
        samples,
        steps,
        stages["boundary_step"],
        n_players,
        unchanged_samples=unchanged_samples,
        weights=bootstrap_weights(len(samples), resamples, seed),
        gamma=gamma,
    )
    last, d = quantities.last, quantities.d
    records = []
    for part in sorted([*PARTS, SHORT], key=lambda part: part.name):
        quantities.n_samples = len(samples)
        value = low = high = None
        n_samples = 0
        if part.stages <= (d > 0) + (0 < d < last):
            if part is SHORT:
                keys = ("boundary_step", "ci_low_step", "ci_high_step")
                value, low, high = (stages[key] / max(steps) for key in keys)
            else:
                with np.errstate(invalid="ignore", divide="ignore"):
                    value, low, high = _interval(part.compute(quantities), level)
            n_samples = quantities.n_samples
        records.append(
            {
                "finding": part.finding,
                "part": part.name,
                "statistic": part.statistic,
                "claim": f"{'>' if part.above else '<'} {part.threshold:g}",
                "threshold": float(part.threshold),
                "value": value,
                "ci_low": low,
                "ci_high": high,
                "n_samples": n_samples,
                "verdict": verdict_of(part, low, high, n_samples),
            }
        )
    return pl.DataFrame(records)


def _interval(values: np.ndarray, level: float) -> tuple[float | None, float | None, float | None]:
    if not np.isfinite(values[0]):
        return None, None, None
    drawn = values[1:][np.isfinite(values[1:])]
    if not drawn.size:
        return float(values[0]), None, None
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return float(values[0]), float(low), float(high)


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
