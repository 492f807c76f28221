"""From a vertex that is all but optimal to the optimal one, by the primal simplex method.

Every pivot factorises anew, so this is for a few pivots. See `vertex` for `sign` and `side`.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sft_interactions.extraction.certificate import Solution, analysis, effect_mask, synthesis
from sft_interactions.extraction.transforms import n_players
from sft_interactions.extraction.vertex import Basis, active_set, factorise, solve_vertex, spread

# Gains and changes below this are rounding (v has range 1, weights are about 1).
_ROUNDING = 1e-12
# So many pivots in a row that move nothing mean a degenerate problem, on which the walk may go in a circle.
_MAX_STANDSTILL = 10


@dataclass(frozen=True)
class _Effect:
    """The effect at a flat index of (2, 2^n) takes a sign: ±1 when it enters, 0 when it leaves."""

    index: int
    sign: float


@dataclass(frozen=True)
class _Row:
    """A row takes a side: 0 when it becomes inactive, ±1 when it becomes active."""

    index: int
    side: float


_Change = _Effect | _Row


def improve_vertex(
    v: NDArray[np.float64],
    bound: float,
    weights: NDArray[np.float64],
    vertex: Solution,
    max_pivots: int = 100,
) -> Solution | None:
    """Walk from a feasible vertex to the optimal one.

    Args:
        v: (2^n,) log-odds, of range 1.
        bound: noise bound, in the units of v.
        weights: (2, 2^n), positive.
        vertex: where to start, exact.
        max_pivots: where to give up.

    Returns:
        None if the way ends in a singular system, is longer than `max_pivots`, or stands still.
    """
    sign, side = active_set(v, bound, vertex.effects, vertex.constant)
    standstill = 0
    for _ in range(max_pivots):
        basis = factorise(sign, side)
        if basis is None:
            return None
        entering = _entering(basis, bound, weights)
        if entering is None:
            return solve_vertex(v, bound, weights, sign, side)
        leaving, step = _leaving(basis, v, bound, entering)
        standstill = 0 if step > _ROUNDING else standstill + 1
        if leaving is None or standstill > _MAX_STANDSTILL:
            return None
        sign, side = _exchanged(basis, (entering, leaving))
    return None


def _entering(basis: Basis, bound: float, weights: NDArray[np.float64]) -> _Change | None:
    """The change of the largest gain, or None at the optimum.

    An effect may enter that is worth more than its weight, and a row may become inactive that is
    held at its bound by a dual of the wrong sign.
    """
    y = basis.dual(weights)
    worth = analysis(y)
    off = effect_mask(n_players(len(y))) & (basis.sign == 0)
    gain_of_effect = np.where(off, np.abs(worth) - weights, 0.0)
    gain_of_row = np.where(bound > 0, y * basis.side, 0.0)
    effect, row = int(gain_of_effect.argmax()), int(gain_of_row.argmax())
    if max(gain_of_effect.flat[effect], gain_of_row[row]) < _ROUNDING:
        return None
    if gain_of_effect.flat[effect] >= gain_of_row[row]:
        return _Effect(effect, float(np.sign(worth.flat[effect])))
    return _Row(row, 0.0)


def _leaving(
    basis: Basis, v: NDArray[np.float64], bound: float, entering: _Change
) -> tuple[_Change | None, float]:
    """What first stands in the way of what enters, None if nothing does, and how far it is.

    That is an effect that shrinks to 0, or an inactive row that meets its bound.
    """
    sign, side = basis.sign, basis.side
    direction, direction_of_constant = _direction(basis, entering)
    x = basis.primal(v, bound)
    effects = spread(sign, x[:-1])
    residual = synthesis(effects) + x[-1] - v
    change = synthesis(direction) + direction_of_constant
    free = side == 0
    if isinstance(entering, _Row):
        free[entering.index] = True
    shrink = np.where(sign != 0, -direction * sign, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        to_zero = np.where(shrink > _ROUNDING, np.abs(effects) / shrink, np.inf)
        to_bound = np.where(
            free & (np.abs(change) > _ROUNDING),
            np.maximum(bound - np.sign(change) * residual, 0.0) / np.abs(change),
            np.inf,
        )
    effect, row = int(to_zero.argmin()), int(to_bound.argmin())
    if not np.isfinite(min(to_zero.flat[effect], to_bound[row])):
        return None, np.inf
    if to_zero.flat[effect] <= to_bound[row]:
        return _Effect(effect, 0.0), float(to_zero.flat[effect])
    return _Row(row, float(np.sign(change[row]))), float(to_bound[row])


def _direction(basis: Basis, entering: _Change) -> tuple[NDArray[np.float64], float]:
    """How effects (2, 2^n) and the constant change with what enters, the other rows kept."""
    direction = np.zeros(basis.sign.shape)
    right = np.zeros(len(basis.rows))
    if isinstance(entering, _Effect):
        direction.flat[entering.index] = entering.sign
        right -= synthesis(direction)[basis.rows]
    else:
        right[basis.rows == entering.index] = -basis.side[entering.index]
    x = basis.solve(right)
    direction[basis.sign != 0] = x[:-1]
    return direction, float(x[-1])


def _exchanged(
    basis: Basis, changes: tuple[_Change, _Change]
) -> tuple[NDArray[np.int8], NDArray[np.int8]]:
    """Support and active rows after the changes."""
    sign, side = basis.sign.copy(), basis.side.copy()
    for change in changes:
        if isinstance(change, _Effect):
            sign.flat[change.index] = change.sign
        else:
            side[change.index] = change.side
    return sign, side
