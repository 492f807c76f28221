"""The iterate of the interior point, and the rows that it works on.

With x = x⁺ − x⁻, the program of `certificate` has the dual slacks s± = w ∓ Aᵀy, the row slacks
t± = bound ∓ q and their multipliers u±, y = u⁻ − u⁺. At the optimum x·s = 0 and u·t = 0.

Late in the iteration few rows are near their bound. Those that are far inside it leave the working
rows, which makes the Newton systems small, and come back if they must. This is ours.
"""

from dataclasses import dataclass, fields
from typing import Self

import numpy as np
from numpy.typing import NDArray

from sft_interactions.extraction.certificate import TINY, synthesis

# The signs of x, s, t and u along their axis 1.
SIGNS = np.array([1.0, -1.0])
# A dropped row whose |φ − v| exceeds this part of its bound comes back, no further than the second.
_RETURN, _RETURN_TO = 0.97, 0.9
# Rows are dropped from this relative gap on, if that drops more than this share of them.
_DROP_GAP, _DROP_SHARE = 0.3, 0.05
# A dropped row presses with less than this part of the usual |y|.
_DROP_PRESSURE = 0.1


@dataclass
class State:
    """Iterate of a batch of B problems with N = 2^n rows. Axis 1 of x, s, t, u is the sign.

    Off the working rows y and q are 0, t is 1 and u is 0.

    Attributes:
        index: int64 (B,) row of the caller.
        v: (B, N) log-odds.
        bound: (B,) noise bound.
        rows: bool (B, N) the working rows.
        returned: bool (B, N) rows that came back, and stay.
        bounded: bool (B, 1) the bound is positive.
        y: (B, N) dual of the rows.
        c: (B,) the constant.
        q: (B, N) φ − v.
        x: (B, 2, 2, N) positive and negative part of the effects.
        s: (B, 2, 2, N) dual slacks.
        t: (B, 2, N) slacks of the rows.
        u: (B, 2, N) multipliers of the rows.
    """

    index: NDArray[np.int64]
    v: NDArray[np.float64]
    bound: NDArray[np.float64]
    rows: NDArray[np.bool_]
    returned: NDArray[np.bool_]
    bounded: NDArray[np.bool_]
    y: NDArray[np.float64]
    c: NDArray[np.float64]
    q: NDArray[np.float64]
    x: NDArray[np.float64]
    s: NDArray[np.float64]
    t: NDArray[np.float64]
    u: NDArray[np.float64]

    @classmethod
    def start(
        cls,
        v: NDArray[np.float64],
        bound: NDArray[np.float64],
        weights: NDArray[np.float64],
        mask: NDArray[np.bool_],
    ) -> Self:
        """Where the iteration starts.

        Args:
            v: (B, N) log-odds, of range 1.
            bound: (B,) noise bound.
            weights: (2, N), positive.
            mask: bool (2, N), which effects are variables.
        """
        n_problems, size = v.shape
        c = np.median(v, axis=1)
        spread = np.maximum(np.median(np.abs(v - c[:, None]), axis=1), 1e-3 * np.ptp(v, axis=1))
        bounded = (bound > 0)[:, None]
        per_effect = np.where(mask, 0.1 * spread[:, None, None], 0.0)
        return cls(
            index=np.arange(n_problems),
            v=v,
            bound=bound,
            rows=np.ones(v.shape, dtype=bool),
            returned=np.zeros(v.shape, dtype=bool),
            bounded=bounded,
            y=np.zeros_like(v),
            c=c,
            q=np.zeros_like(v),
            x=np.repeat(per_effect[:, None], 2, axis=1),
            s=np.repeat(np.broadcast_to(weights, (n_problems, 1, 2, size)), 2, axis=1),
            t=np.where(bounded, bound[:, None], 1.0)[:, None] * np.ones((1, 2, size)),
            u=np.where(bounded, 0.1, 0.0)[:, None] * np.ones((1, 2, size)),
        )

    def take(self, keep: NDArray[np.bool_]) -> Self:
        """A copy of the problems where `keep`, bool (B,), holds."""
        return type(self)(*(getattr(self, field.name)[keep] for field in fields(self)))

    def effects(self) -> NDArray[np.float64]:
        """float64 (B, 2, N), I and J."""
        effects: NDArray[np.float64] = self.x[:, 0] - self.x[:, 1]
        return effects

    def relative_gap(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Relative duality gap, which means little while the residuals are large.

        Args:
            weights: (2, N), positive.

        Returns:
            float64 (B,).
        """
        primal = (weights * self.x).sum(axis=(1, 2, 3))
        dual = (self.v * self.y).sum(axis=1) - self.bound * np.abs(self.y).sum(axis=1)
        gap: NDArray[np.float64] = np.abs(primal - dual) / np.maximum(primal, TINY)
        return gap


def update_rows(
    state: State, gap: NDArray[np.float64], mask: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Drop rows that are far inside their bound, bring back dropped ones that leave it.

    Args:
        state: is changed.
        gap: (B,) its relative gap.
        mask: bool (2, N), which effects are variables.

    Returns:
        bool (B,), whether rows came back.
    """
    bound = state.bound[:, None]
    miss = synthesis(state.effects()) + state.c[:, None] - state.v
    back: NDArray[np.bool_] = ~state.rows & (np.abs(miss) > _RETURN * bound)
    out = _far_inside(state, gap)
    state.returned |= back
    state.rows = (state.rows & ~out) | back
    state.q = np.where(back, np.clip(miss, -_RETURN_TO * bound, _RETURN_TO * bound), state.q)
    room = bound[:, None] - SIGNS[:, None] * state.q[:, None]
    # A row comes back as a centred pair: u·t is the mean of x·s.
    mu = (state.x * state.s).sum(axis=(1, 2, 3)) / (2 * mask.sum())
    u_back = mu[:, None, None] / np.where(back[:, None], room, 1.0)
    working = state.rows[:, None]
    state.t = np.where(back[:, None], room, np.where(working, state.t, 1.0))
    state.u = np.where(back[:, None], u_back, np.where(working, state.u, 0.0))
    state.y = np.where(back, state.u[:, 1] - state.u[:, 0], np.where(state.rows, state.y, 0.0))
    state.q = np.where(state.rows, state.q, 0.0)
    return np.asarray(back.any(axis=1))


def _far_inside(state: State, gap: NDArray[np.float64]) -> NDArray[np.bool_]:
    """bool (B, N): working rows that are far from their bound and hardly press."""
    bound = state.bound[:, None]
    room = state.t.min(axis=1)
    pressure = state.u.max(axis=1) * bound / np.maximum(room, TINY)
    usual = np.abs(state.y).sum(axis=1) / state.rows.sum(axis=1)
    # The closer to the optimum, the nearer to its bound a row may be and still be dropped.
    margin = np.where(gap < 1e-3, 0.1, np.where(gap < 1e-2, 0.25, 0.5))
    out: NDArray[np.bool_] = state.rows & ~state.returned & (room > margin[:, None] * bound)
    out &= (pressure < _DROP_PRESSURE * usual[:, None]) & state.bounded
    out &= (gap < _DROP_GAP)[:, None]
    # Few rows are not worth another working set.
    out &= (out.sum(axis=1) > _DROP_SHARE * state.rows.sum(axis=1))[:, None]
    return out
