"""The end of the denoising stage, and the checkpoint from which overfitting speeds up.

The paper (arXiv 2605.17967, section 4) reads the first off its figures by eye. Here both are change
points of what happens from checkpoint to checkpoint, over all signals that the figures show.
"""

from collections.abc import Mapping, Sequence
from math import ceil
from typing import NamedTuple, TypedDict

import numpy as np
import polars as pl
from numpy.typing import NDArray

from sft_interactions.analysis.dynamics import CLASSES, REMOVED
from sft_interactions.analysis.intervals import FEWEST_SAMPLES
from sft_interactions.analysis.metrics import Cells, ratios
from sft_interactions.analysis.turnover import observed

DETECTOR = "change_point"
LEAST_ERROR = 0.01
# Of the precision of signals, where no interval is asked for.
RESAMPLES_OF_PRECISION = 1000
# Metrics whose course is looked at; the first two are divided by their largest value, the others are
# ratios, so that all signals are in [0, 1] and one that only wobbles does not count like one that moves.
SCALED, RATIOS = ("count", "strength_total"), ("gamma", "rho")
_STAGES_NULLABLE = {
    "removed_share_step": pl.Int64,
    "best_checkpoint_epoch": pl.Float64,
    "lowest_validation_loss_step": pl.Int64,
    "validation_loss_at_best": pl.Float64,
    "lowest_validation_loss": pl.Float64,
}


class SignalEvidence(TypedDict):
    """What the detector would say of one signal alone."""

    boundary_step: int
    explained: float


class Evidence(TypedDict):
    """What the stages of a run rest on; docs/tables.md and docs/method.md say what each entry is."""

    resamples_at_boundary: float | None
    best_ci_low_step: int | None
    best_ci_high_step: int | None
    largest_change_step: int
    explained: float
    signals: dict[str, SignalEvidence]
    removed_share: float
    removed_share_step: int | None
    removed_count: dict[str, float]
    lowest_validation_loss_step: int | None
    validation_loss: dict[str, float]


class Boundary(TypedDict):
    """The checkpoint that ends the denoising stage, and its interval, in optimizer steps.

    There is none without a bootstrap.
    """

    boundary_step: int
    ci_low_step: int | None
    ci_high_step: int | None


class Stages(Boundary):
    """Content of ``stages.json`` without ``run``."""

    best_checkpoint_step: int
    detector: str
    evidence: Evidence


class StagesOfRun(Stages):
    """Content of ``stages.json``."""

    run: str


class Training(NamedTuple):
    """How many samples the steps of a training see.

    Attributes:
        n_samples: training samples.
        batch_size: sequences of a forward pass.
        gradient_accumulation: forward passes of a step.
    """

    n_samples: int
    batch_size: int
    gradient_accumulation: int

    def epochs(self, step: int) -> float:
        """How often the training samples have been seen after a number of steps.

        The last step of an epoch takes what is left, and the next one begins anew.
        """
        per_epoch = ceil(ceil(self.n_samples / self.batch_size) / self.gradient_accumulation)
        whole, rest = divmod(step, per_epoch)
        return whole + rest * self.batch_size * self.gradient_accumulation / self.n_samples


def find_boundary(signals: NDArray[np.float64]) -> tuple[int, float]:
    """Index of the checkpoint that ends the denoising stage, and how clearly it does.

    The increments of the signals between neighbouring checkpoints, which are taken as evenly spaced, are
    cut into two stretches with the least sum of squared deviations from the means of each (one change
    point, L2 cost, found exactly by dynamic programming; ``ruptures``). So the signals are
    approximated by two straight lines with different slopes, and the boundary lies where one gives way
    to the other.

    Args:
        signals: (checkpoints, signals), at least two checkpoints, the first before SFT.

    Returns:
        The index, between 1 and the last but one (with two checkpoints it is 1), and the share of the
        squared deviations that the cut removes (0 where the increments do not differ).
    """
    increments = np.diff(signals, axis=0)
    if len(increments) < 2:
        return 1, 0.0
    from ruptures import Dynp  # takes longer to import than all else that most jobs do with a stage

    index = Dynp(model="l2", min_size=1, jump=1).fit_predict(increments, n_bkps=1)[0]
    parts = increments[:index], increments[index:]
    within = sum(((part - part.mean(0)) ** 2).sum() for part in parts)
    whole = ((increments - increments.mean(0)) ** 2).sum()
    return int(index), float(1 - within / whole) if whole > 0 else 0.0


def find_stages(
    signals: NDArray[np.float64], removed: NDArray[np.float64], share: float
) -> tuple[int, int]:
    """Indices of the checkpoint that ends the denoising stage and of the best checkpoint.

    The denoising stage is the one in which most removals happen, so its end is looked for up to the
    checkpoint by which ``share`` of them have: it is the boundary (:func:`find_boundary`) of the course up
    to the checkpoint after that one. Without removals there is no such stage, and it ends at the first.
    The best checkpoint is the boundary of the course from there to the end: until then interactions
    emerge at one pace, afterwards at another. Where there is no such change it is the same.

    Args:
        signals: as for :func:`find_boundary`.
        removed: (checkpoints,) mean count of removed interactions.
        share: share of the largest count of removed interactions, above 0 and at most 1.
    """
    end = 0
    if removed.any():
        done = int(np.argmax(removed >= share * removed.max()))
        end = find_boundary(signals[: done + 2])[0]
    best, explained = find_boundary(signals[end:])
    return end, end + best if explained > 0 else end


def scale_signals(
    means: Mapping[tuple[str, str], NDArray[np.float64]],
) -> dict[str, NDArray[np.float64]]:
    """Bring the courses of the metrics to one scale and fill what is not defined.

    A value that is not defined (a ratio of an empty class) is the one before it, at the start the one
    after it: no change. A metric that is nowhere defined is left out.

    Args:
        means: (metric, class) to (checkpoints,) means over samples, NaN where not defined.

    Returns:
        Signal, such as ``gamma_preserved``, to (checkpoints,) values in [0, 1].
    """
    largest = {
        metric: max(np.nan_to_num(means[metric, label]).max() for label in CLASSES)
        for metric in SCALED
    }
    signals = {}
    for (metric, label), course in means.items():
        known = np.flatnonzero(np.isfinite(course))
        if known.size:
            before = np.searchsorted(known, np.arange(len(course)), side="right") - 1
            filled = course[known[before.clip(min=0)]]
            if metric in SCALED and largest[metric] > 0:
                filled = filled / largest[metric]
            signals[f"{metric}_{label}"] = filled
    return signals


class Bootstrap(TypedDict):
    """Settings of the bootstrap, as the block ``bootstrap`` of a config has them."""

    resamples: int
    level: float


def bootstrap_weights(n_samples: int, resamples: int, seed: int) -> NDArray[np.float64]:
    """How often each resample draws each sample, (resamples, n_samples)."""
    generator = np.random.Generator(np.random.PCG64(seed))
    drawn = generator.integers(0, n_samples, (resamples, n_samples))
    counts = [np.bincount(row, minlength=n_samples) for row in drawn]
    return np.array(counts, dtype=np.float64).reshape(resamples, n_samples)


def detect_stages(
    dynamics: pl.DataFrame,
    losses: Mapping[int, float],
    samples: Sequence[str],
    steps: Sequence[int],
    n_players: int,
    *,
    share: float,
    resamples: int,
    level: float,
    seed: int,
) -> Stages:
    """Stage boundary of a run with a bootstrap interval over samples.

    Every signal is divided by the bootstrap standard error of its increments (at least
    ``LEAST_ERROR``), so that it counts as much as the samples agree on it; then :func:`find_stages`.

    Args:
        dynamics: rows of a ``dynamics`` table.
        losses: validation loss by step; none for a run of which it is not known.
        samples: all analysed samples, also those without a salient interaction.
        steps: analysed checkpoints, sorted, the first before SFT.
        n_players: number of players of a prompt.
        share: the share of the largest count of removed interactions that is removed by the
            checkpoint where the search for the boundary ends.
        resamples: bootstrap resamples; without any there is no interval, nor of fewer samples with
            interactions than ``FEWEST_SAMPLES``.
        level: confidence level of the interval, between 0 and 1.
        seed: seed of the bootstrap.
    """
    sums = _sums(dynamics, samples, steps, n_players)
    means = _means(sums, np.ones(len(samples)))
    signals = scale_signals(means)
    # Of the precision of signals too if no interval is asked for: the best checkpoint hangs on it.
    weights = bootstrap_weights(len(samples), resamples or RESAMPLES_OF_PRECISION, seed)
    drawn = [_means(sums, weight) for weight in weights]
    courses = [_stack(scale_signals(draw), list(signals)) for draw in drawn]
    precision = _precision(np.array(courses))

    course, removed = _stack(signals, list(signals)) * precision, means["count", REMOVED]
    end, best = find_stages(course, removed, share)
    at_boundary = low = best_low = high = best_high = None
    if resamples and observed(dynamics, samples).sum() >= FEWEST_SAMPLES:
        found = [
            find_stages(drawn_course * precision, draw["count", REMOVED], share)
            for drawn_course, draw in zip(courses, drawn, strict=True)
        ]
        places = np.quantile(
            found, [(1 - level) / 2, (1 + level) / 2], axis=0, method="inverted_cdf"
        )
        low, best_low, high, best_high = (steps[int(place)] for place in places.ravel())
        at_boundary = float(np.mean([draw[0] == end for draw in found]))
    largest, explained = find_boundary(course)
    return {
        "boundary_step": steps[end],
        "ci_low_step": low,
        "ci_high_step": high,
        "best_checkpoint_step": steps[best],
        "detector": DETECTOR,
        "evidence": {
            "resamples_at_boundary": at_boundary,
            "best_ci_low_step": best_low,
            "best_ci_high_step": best_high,
            "largest_change_step": steps[largest],
            "explained": explained,
            "signals": _signal_evidence(signals, steps),
            "removed_share": share,
            "removed_share_step": steps[int(np.argmax(removed >= share * removed.max()))]
            if removed.max() > 0
            else None,
            "removed_count": dict(zip(map(str, steps), removed.tolist(), strict=True)),
            "lowest_validation_loss_step": min(losses, key=lambda step: losses[step], default=None),
            "validation_loss": {str(step): loss for step, loss in losses.items()},
        },
    }


def tabulate(stages: Sequence[StagesOfRun], trainings: Sequence[Training | None]) -> pl.DataFrame:
    """One row a run: where its stages lie, beside what else could choose a checkpoint.

    Args:
        stages: contents of ``stages.json`` files.
        trainings: of the same runs; None where it is not known.

    Returns:
        The columns of ``stages.json`` but evidence; of the evidence best_ci_low_step,
        best_ci_high_step, removed_share_step and lowest_validation_loss_step; best_checkpoint_epoch;
        and the validation loss at the best checkpoint and the lowest (null for a run that brought its
        own checkpoints).
    """
    rows = []
    for run, training in zip(stages, trainings, strict=True):
        evidence = run["evidence"]
        best, lowest = run["best_checkpoint_step"], evidence["lowest_validation_loss_step"]
        rows.append(
            {
                **{key: value for key, value in run.items() if key != "evidence"},
                "best_ci_low_step": evidence["best_ci_low_step"],
                "best_ci_high_step": evidence["best_ci_high_step"],
                "best_checkpoint_epoch": None if training is None else training.epochs(best),
                "removed_share_step": evidence["removed_share_step"],
                "lowest_validation_loss_step": lowest,
                "validation_loss_at_best": evidence["validation_loss"].get(str(best)),
                "lowest_validation_loss": evidence["validation_loss"].get(str(lowest)),
            }
        )
    return pl.DataFrame(rows, schema_overrides=_STAGES_NULLABLE)


def _sums(
    dynamics: pl.DataFrame, samples: Sequence[str], steps: Sequence[int], n_players: int
) -> dict[tuple[str, str], NDArray[np.float64]]:
    """(metric, class) to numerators and denominators, (2, checkpoints, samples)."""
    cells = Cells(dynamics, samples)
    found: dict[tuple[str, str], list[NDArray[np.float64]]] = {}
    for label in CLASSES:
        for step in steps:
            rows = cells.rows(step, label)
            for order, metric, numerator, denominator in ratios(
                rows, "both", len(samples), n_players
            ):
                if order is None and metric in (*SCALED, *RATIOS):
                    ratio = np.stack([numerator, denominator])
                    found.setdefault((metric, label), []).append(ratio)
    return {key: np.stack(parts, axis=1) for key, parts in found.items()}


def _means(
    sums: Mapping[tuple[str, str], NDArray[np.float64]], weight: NDArray[np.float64]
) -> dict[tuple[str, str], NDArray[np.float64]]:
    """(metric, class) to means over the samples, weighted, (checkpoints,); NaN where undefined.

    Args:
        sums: what :func:`_sums` returns.
        weight: (samples,).
    """
    means = {}
    for key, ratio in sums.items():
        numerator, denominator = ratio @ weight
        defined = denominator > 0
        means[key] = np.where(defined, numerator / np.where(defined, denominator, 1), np.nan)
    return means


def _stack(signals: Mapping[str, NDArray[np.float64]], names: Sequence[str]) -> NDArray[np.float64]:
    """Signals as columns, (checkpoints, names); one that is missing does not change."""
    none = np.zeros(len(next(iter(signals.values()))))
    return np.stack([signals.get(name, none) for name in names], axis=1)


def _precision(courses: NDArray[np.float64]) -> NDArray[np.float64]:
    """One over the standard error of the increments of every signal, (signals,).

    Args:
        courses: (resamples, checkpoints, signals).
    """
    error = np.sqrt(np.diff(courses, axis=1).var(axis=0).mean(axis=0))
    precision: NDArray[np.float64] = 1 / np.maximum(error, LEAST_ERROR)
    return precision


def _signal_evidence(
    signals: Mapping[str, NDArray[np.float64]], steps: Sequence[int]
) -> dict[str, SignalEvidence]:
    evidence: dict[str, SignalEvidence] = {}
    for name, course in signals.items():
        index, explained = find_boundary(course[:, None])
        evidence[name] = {"boundary_step": steps[index], "explained": explained}
    return evidence


def validation_losses(training: pl.DataFrame) -> dict[int, float]:
    """Validation loss by step, of the rows of a ``training`` table that have one."""
    rows = training.drop_nulls("validation_loss").sort("step")
    return dict(rows.select("step", "validation_loss").iter_rows())


def counted_losses(losses: pl.DataFrame) -> pl.DataFrame:
    """Rows of a ``losses`` table that count: those of the validation samples, else all."""
    validation = losses.filter(pl.col("split") == "validation")
    return losses if validation.is_empty() else validation


def mean_losses(losses: pl.DataFrame) -> dict[int, float]:
    """Loss a token by step, of the rows of a ``losses`` table that count."""
    means = (
        counted_losses(losses).group_by("step").agg(pl.col("loss").sum() / pl.col("n_tokens").sum())
    )
    return dict(means.sort("step").iter_rows())
