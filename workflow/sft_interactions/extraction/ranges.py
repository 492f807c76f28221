"""How far the effect of an interaction can move among the optima: what the data determine."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sft_interactions.extraction.optima import OptimalSet, optimal_sets
from sft_interactions.extraction.program import Extraction

# An effect nearer to 0 than this part of the L1 norm is 0.
_ZERO = 1e-9


@dataclass(frozen=True)
class Ranges:
    """Least and largest effects among the near-optimal points of a batch of B problems.

    Attributes:
        low: float64 (B, 2, 2^n) least effect, AND then OR; NaN where it was not asked for.
        high: float64 (B, 2, 2^n) largest effect.
        sign_certain: bool (B, 2, 2^n) all near-optimal points have the effect, with one sign.
    """

    low: NDArray[np.float64]
    high: NDArray[np.float64]
    sign_certain: NDArray[np.bool_]


def effect_ranges(
    v: ArrayLike,
    solved: Extraction,
    wanted: NDArray[np.bool_],
    *,
    tolerance: float = 1e-6,
    progress: Callable[[int], None] = lambda _: None,
) -> Ranges:
    """Ranges of effects over all readings of v within the noise bound that are as sparse as the given ones.

    As sparse is: Σ|I| + |J| of at most (1 + tolerance) times that of `solved`.

    Args:
        v: (B, 2^n) log-odds.
        solved: what `extract` gives for them.
        wanted: bool (B, 2, 2^n), the effects to bound, AND then OR.
        tolerance: relative, of the L1 norm; at least 0.
        progress: called with the number of problems that have just been solved.

    Raises:
        ValueError: shapes do not agree, or a negative tolerance.
        RuntimeError: HiGHS does not solve a program.
    """
    values = np.asarray(v, dtype=np.float64)
    effects = np.stack([solved.and_effects, solved.or_effects], axis=1)
    if wanted.shape != effects.shape or values.shape != solved.and_effects.shape:
        raise ValueError(
            f"v {values.shape}, effects {effects.shape} and wanted {wanted.shape} do not fit together"
        )
    if not (np.isfinite(tolerance) and tolerance >= 0):
        raise ValueError(f"tolerance must be finite and not negative: {tolerance}")
    low, high = (np.where(wanted, 0.0, np.nan) for _ in range(2))
    certain = np.zeros(wanted.shape, dtype=bool)
    # Without an effect the constant is the only optimum.
    some = np.flatnonzero(effects.any(axis=(1, 2)) & wanted.any(axis=(1, 2)))
    progress(len(values) - len(some))
    sets = optimal_sets(values[some], solved.take(some), tolerance)
    for row, optima in zip(some, sets, strict=True):
        asked = np.flatnonzero(wanted[row])
        least, largest = _bounds(optima, asked)
        low[row].flat[asked], high[row].flat[asked] = least * optima.unit, largest * optima.unit
        limit = max(tolerance, _ZERO) * optima.l1
        certain[row].flat[asked] = (least > limit) | (largest < -limit)
        progress(1)
    return Ranges(low, high, certain)


def _bounds(
    optima: OptimalSet, asked: NDArray[np.intp]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Least and largest values, (k,) each in the set's unit, of the effects at the flat indices (k,)."""
    walk = optima.walk()
    seen = optima.start.copy()
    bounds = np.zeros((2, len(asked)))
    # All of one side first: neighbours on the way are then alike.
    for side, direction in enumerate((1.0, -1.0)):
        for i, flat in enumerate(asked.tolist()):
            columns = np.flatnonzero(optima.columns == flat)
            signs = optima.sign[columns]
            if not len(columns):
                continue
            # A point that has been seen where the effect is 0 is the end of its one-sided range.
            if (signs == direction).all() and seen[columns[0]] <= _ZERO * optima.l1:
                continue
            z = walk.minimise(columns, direction * signs)[:-1]
            seen = np.minimum(seen, z)
            bounds[side, i] = signs @ z[columns]
    return bounds[0], bounds[1]
