"""Intervals over samples: the delete-one jackknife with Student's t, for all tables alike."""

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

# Of fewer there is no interval: it would hold its value less often than it says (docs/validity.md).
FEWEST_SAMPLES = 5


def leave_one_out(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sums over samples, (1 + samples, ...): of all, then without each."""
    whole = values.sum(axis=0, keepdims=True)
    return np.concatenate([whole, whole - values])


def jackknife_error(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Standard error of a statistic (1 + samples, ...): of all samples, then without each."""
    without = values[1:]
    n = len(without)
    spread = ((without - without.mean(axis=0)) ** 2).sum(axis=0)
    error: NDArray[np.float64] = np.sqrt((n - 1) / n * spread)
    return error


def bounds(
    values: NDArray[np.float64],
    level: float,
    n_statements: int = 1,
    n_samples: int | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Ends of the jackknife interval of a statistic, for so many statements at once (Bonferroni).

    Args:
        values: as for :func:`jackknife_error`.
        level: confidence level, between 0 and 1.
        n_statements: how many statements the level is to hold for together.
        n_samples: how many of the samples the statistic rests on; None for all.
    """
    tail = (1 - level) / 2 / n_statements
    freedom = (len(values) - 1 if n_samples is None else n_samples) - 1
    reach = stdtrit(freedom, 1 - tail) * jackknife_error(values)
    return values[0] - reach, values[0] + reach


def interval(
    values: NDArray[np.float64], level: float, n_samples: int | None = None
) -> tuple[float | None, ...]:
    """Value and interval of a statistic; None where undefined or on too few samples.

    Args:
        values: (1 + observed samples,), as for :func:`jackknife_error`.
        level: confidence level, between 0 and 1.
        n_samples: how many of the samples the statistic rests on; None for all.
    """
    if not np.isfinite(values[0]):
        return None, None, None
    n = len(values) - 1 if n_samples is None else n_samples
    if n < FEWEST_SAMPLES or not np.isfinite(values).all():
        return float(values[0]), None, None
    low, high = bounds(values, level, n_samples=n)
    return float(values[0]), float(low), float(high)


def interval_of_logarithm(values: NDArray[np.float64], level: float) -> tuple[float | None, ...]:
    """Value and interval of a statistic of one sign with a long tail: that of its logarithm.

    None where undefined, and for the ends on too few samples, or where the statistic is 0 of all samples or
    without one.

    Args:
        values: (1 + observed samples,), as for :func:`jackknife_error`.
        level: confidence level, between 0 and 1.
    """
    if not np.isfinite(values[0]):
        return None, None, None
    value = float(values[0])
    if len(values) - 1 < FEWEST_SAMPLES or not (values * np.sign(value) > 0).all():
        return value, None, None
    low, high = np.exp(bounds(np.log(np.abs(values)), level))
    return (value, float(low), float(high)) if value > 0 else (value, -float(high), -float(low))


def rate(
    numerator: NDArray[np.float64],
    denominator: NDArray[np.float64],
    level: float,
    of_logarithm: bool = False,
) -> tuple[float | None, ...]:
    """Ratio of sums over samples, with its interval; None where undefined or on too few.

    Args:
        numerator: (samples,).
        denominator: (samples,), 0 for a sample that is no observation.
        level: confidence level, between 0 and 1.
        of_logarithm: whether the interval is :func:`interval_of_logarithm`.
    """
    there = denominator > 0
    with np.errstate(invalid="ignore", divide="ignore"):
        values = leave_one_out(numerator[there]) / leave_one_out(denominator[there])
    return interval_of_logarithm(values, level) if of_logarithm else interval(values, level)


def interval_over_seeds(values: NDArray[np.float64], level: float) -> tuple[float | None, ...]:
    """Mean over seeds of a statistic, and its interval; None where undefined or on too little.

    Its variance is that of the mean over samples (jackknife, a sample left out of all seeds at once), and
    that of the values of the seeds over their number; the degrees of freedom are Welch's. The second part
    has some of the first in it, so the interval is rather too wide.

    Args:
        values: (seeds, 1 + samples), see :func:`interval`.
        level: confidence level, between 0 and 1.
    """
    mean = values.mean(axis=0)
    if not np.isfinite(mean[0]):
        return None, None, None
    n_seeds, n_samples = len(values), values.shape[1] - 1
    if n_samples < FEWEST_SAMPLES or n_seeds < 2 or not np.isfinite(values).all():
        return float(mean[0]), None, None
    of_samples = float(jackknife_error(mean)) ** 2
    of_seeds = float(values[:, 0].var(ddof=1)) / n_seeds
    variance = of_samples + of_seeds
    if variance == 0:
        return (float(mean[0]),) * 3
    freedom = variance**2 / (of_samples**2 / (n_samples - 1) + of_seeds**2 / (n_seeds - 1))
    reach = float(stdtrit(freedom, (1 + level) / 2)) * variance**0.5
    return float(mean[0]), float(mean[0]) - reach, float(mean[0]) + reach
