"""Intervals over samples: the delete-one jackknife with Student's t, for all tables alike."""

from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit, stdtrit

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


class Share(NamedTuple):
    """A share with a sign, alone or less something.

    Attributes:
        sign: 1 or -1.
        values: float64 (1 + samples,) the share, or what it is above something else, such as chance.
        share: float64 (1 + samples,) the share, between 0 and 1.
    """

    sign: float
    values: NDArray[np.float64]
    share: NDArray[np.float64]

    def stretched(self, reach: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The values with their sign, once for the lower end of an interval and once for the upper one.

        They are as far from each other as the share's logit asks for on that side. Where the share is 0 or
        1, of all samples or without one, that is not known, and they are as they were.

        Args:
            reach: of an interval, in standard errors.
        """
        signed = self.sign * self.values
        inside = ((self.share > 0) & (self.share < 1)).all()
        error = jackknife_error(self.share) if inside else 0.0
        if not error:
            return signed, signed
        at = logit(self.share)
        far = reach * jackknife_error(at)
        below, above = (
            np.abs(expit(at[0] + side) - self.share[0]) / (reach * error) for side in (-far, far)
        )
        return (below * signed, above * signed)[:: int(self.sign)]


@dataclass(frozen=True)
class Shares:
    """A sum of shares, each with a sign."""

    terms: tuple[Share, ...]

    @classmethod
    def of(cls, share: NDArray[np.float64], chance: NDArray[np.float64] | float = 0.0) -> "Shares":
        """One share, (1 + samples,), or what it is above chance."""
        return cls((Share(1.0, share - chance, share),))

    @property
    def values(self) -> NDArray[np.float64]:
        """float64 (1 + samples,)."""
        total: NDArray[np.float64] = np.sum([one.sign * one.values for one in self.terms], axis=0)
        return total

    def __sub__(self, other: "Shares") -> "Shares":
        flipped = (Share(-one.sign, one.values, one.share) for one in other.terms)
        return Shares((*self.terms, *flipped))

    def __getitem__(self, chosen: NDArray[np.bool_]) -> "Shares":
        return Shares(
            tuple(Share(one.sign, one.values[chosen], one.share[chosen]) for one in self.terms)
        )

    def errors(self, reach: float) -> tuple[float, float]:
        """Standard error of the sum towards below and above.

        The reach of the sum is made of those of its terms, with their correlation (MOVER: Zou and Donner,
        Statistics in Medicine 27, 2008).
        """
        sides = zip(*(one.stretched(reach) for one in self.terms), strict=True)
        below, above = (float(jackknife_error(np.sum(side, axis=0))) for side in sides)
        return below, above


Statistic = TypeVar("Statistic", NDArray[np.float64], Shares)


def values_of(statistic: NDArray[np.float64] | Shares) -> NDArray[np.float64]:
    """float64 (1 + samples,) of a statistic, whatever its interval."""
    return statistic.values if isinstance(statistic, Shares) else statistic


def larger(one: Statistic, other: Statistic) -> Statistic:
    """The larger one of two statistics, of all samples and without each; NaN where one is undefined.

    Of two shares the one that is larger over all samples stretches the interval.
    """
    if not isinstance(one, Shares):
        return np.maximum(one, other)
    (first,), (second,) = one.terms, other.terms
    share = first.share if first.values[0] >= second.values[0] else second.share
    return Shares((Share(1.0, np.maximum(first.values, second.values), share),))


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
    values: NDArray[np.float64] | Shares, level: float, n_samples: int | None = None
) -> tuple[float | None, ...]:
    """Value and interval of a statistic; None where undefined or on too few samples.

    Args:
        values: (1 + observed samples,), as for :func:`jackknife_error`; or a sum of shares.
        level: confidence level, between 0 and 1.
        n_samples: how many of the samples the statistic rests on; None for all.
    """
    of_all = values_of(values)
    if not np.isfinite(of_all[0]):
        return None, None, None
    value = float(of_all[0])
    n = len(of_all) - 1 if n_samples is None else n_samples
    if n < FEWEST_SAMPLES or not np.isfinite(of_all).all():
        return value, None, None
    if isinstance(values, Shares):
        reach = float(stdtrit(n - 1, (1 + level) / 2))
        below, above = values.errors(reach)
        return value, value - reach * below, value + reach * above
    low, high = bounds(values, level, n_samples=n)
    return value, float(low), float(high)


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
