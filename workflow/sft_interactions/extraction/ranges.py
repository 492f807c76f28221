"""How far the effect of an interaction can move among the optima: what the data determine."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sft_interactions.extraction.optima import OptimalSet, optimal_sets
from sft_interactions.extraction.program import Extraction, part_size
from sft_interactions.parallel import Mapped, in_turn

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
    mapped: Mapped = in_turn,
) -> Ranges:
    """Ranges of effects over all readings of v within the noise bound that are as sparse as the given ones.

    As sparse is: Σ|I| + |J| of at most (1 + tolerance) times that of `solved`.

    Args:
        v: (B, 2^n) log-odds.
        solved: what `extract` gives for them.
        wanted: bool (B, 2, 2^n), the effects to bound, AND then OR.
        tolerance: relative, of the L1 norm; at least 0.
        progress: called with the number of problems that have just been solved.
        mapped: shares the work out, see :class:`~sft_interactions.parallel.Mapped`.

    Raises:
        ValueError: shapes do not agree, or a negative tolerance.
        RuntimeError: HiGHS does not solve a program.
    """
    values = np.asarray(v, dtype=np.float64)
    effects = solved.effects
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
    step = part_size(values.shape[1])
    rows_of = [some[start : start + step] for start in range(0, len(some), step)]
    parts = [_Part(values[rows], solved.take(rows), wanted[rows], tolerance) for rows in rows_of]
    for rows, found in zip(rows_of, mapped(_ranges_of_part, parts), strict=True):
        for row, (asked, least, largest, is_certain) in zip(rows, found, strict=True):
            low[row].flat[asked], high[row].flat[asked] = least, largest
            certain[row].flat[asked] = is_certain
        progress(len(rows))
    return Ranges(low, high, certain)


class _Part(NamedTuple):
    """Problems whose interior points are found together, as of :func:`effect_ranges`."""

    v: NDArray[np.float64]
    solved: Extraction
    wanted: NDArray[np.bool_]
    tolerance: float


class _Found(NamedTuple):
    """Least and largest values of the effects at some flat indices, and whether their sign is certain."""

    asked: NDArray[np.intp]
    least: NDArray[np.float64]
    largest: NDArray[np.float64]
    certain: NDArray[np.bool_]


def _ranges_of_part(part: _Part) -> list[_Found]:
    """One a problem, in the units of v."""
    found = []
    sets = optimal_sets(part.v, part.solved, part.tolerance)
    for wanted, optima in zip(part.wanted, sets, strict=True):
        asked = np.flatnonzero(wanted)
        least, largest = _bounds(optima, asked)
        limit = max(part.tolerance, _ZERO) * optima.l1
        certain = (least > limit) | (largest < -limit)
        found.append(_Found(asked, least * optima.unit, largest * optima.unit, certain))
    return found


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
