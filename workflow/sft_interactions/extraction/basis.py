"""The vertex that an iterate of the interior point points to.

A basis holds the constant and as many effects and inactive rows together as there are other rows:
those with the largest ratio of the primal to the dual variable. Where the optimum is nearly
degenerate the ratio of some tells nothing: then, near the end, an independent basis is chosen and
improved by pivots. All of this is ours.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import qr

from sft_interactions.extraction.certificate import Solution
from sft_interactions.extraction.pivots import improve_vertex
from sft_interactions.extraction.state import State
from sft_interactions.extraction.transforms import n_players
from sft_interactions.extraction.vertex import solve_vertex

# What a vertex must reach to be taken as the optimum (v has range 1).
_MAX_GAP, _MAX_EXCESS = 1e-9, 1e-10
# Relative gap below which a failing vertex means a degenerate optimum.
_DEGENERATE_GAP = 1e-7


@dataclass(frozen=True)
class _Candidates:
    """What may be in the basis of one problem: effects, then working rows that may be inactive.

    Attributes:
        ratio: (m,) primal over dual variable of every candidate; large in the basis.
        n_basic: how many of them the basis holds.
        mask: bool (2, N), which effects are candidates: the first of the m, by flat index.
        sign: int64 (2, N), the sign that an effect has if it is in the basis.
        free: bool (N,), which rows are candidates: the last of the m.
        side: int64 (N,), the side of a row that is active.
        rows: int64 (k,), the rows of the system.
    """

    ratio: NDArray[np.float64]
    n_basic: int
    mask: NDArray[np.bool_]
    sign: NDArray[np.int64]
    free: NDArray[np.bool_]
    side: NDArray[np.int64]
    rows: NDArray[np.intp]

    def vertex_system(self, chosen: NDArray[np.intp]) -> tuple[NDArray[np.int8], NDArray[np.int8]]:
        """`sign` and `side`, as of `vertex`, of a basis of the chosen candidates, (n_basic,)."""
        basic = np.zeros(len(self.ratio), dtype=bool)
        basic[chosen] = True
        n_effects = int(self.mask.sum())
        support = np.zeros(self.mask.shape, dtype=bool)
        support[self.mask] = basic[:n_effects]
        active = np.zeros(self.side.shape, dtype=bool)
        active[self.rows] = True
        active[self.free] = ~basic[n_effects:]
        sign = np.where(support, self.sign, 0).astype(np.int8)
        return sign, np.where(active, self.side, 0).astype(np.int8)


def find_vertex(
    state: State,
    i: int,
    weights: NDArray[np.float64],
    mask: NDArray[np.bool_],
    gap: float,
) -> Solution | None:
    """The vertex that the iterate of a problem points to.

    Args:
        state: of a batch.
        i: which of its problems.
        weights: (2, N), positive.
        mask: bool (2, N), which effects are variables.
        gap: relative gap of the iterate.

    Returns:
        The optimum, or None if the vertex is not the optimum.
    """
    v, bound = state.v[i], float(state.bound[i])
    candidates = _candidates(state, i, mask)
    n_basic = candidates.n_basic
    likely = np.argpartition(-candidates.ratio, n_basic - 1)[:n_basic]
    vertex = solve_vertex(v, bound, weights, *candidates.vertex_system(likely))
    if not _is_optimal(vertex) and gap < _DEGENERATE_GAP:
        independent = _independent(candidates)
        vertex = solve_vertex(v, bound, weights, *candidates.vertex_system(independent))
        if vertex is not None and vertex.excess < _MAX_EXCESS:
            vertex = improve_vertex(v, bound, weights, vertex)
    return vertex if _is_optimal(vertex) else None


def _is_optimal(vertex: Solution | None) -> bool:
    return vertex is not None and vertex.gap < _MAX_GAP and vertex.excess < _MAX_EXCESS


def _candidates(state: State, i: int, mask: NDArray[np.bool_]) -> _Candidates:
    """Candidates of a problem. Without a bound every row is active."""
    size = state.v.shape[1]
    x, s, t, u = state.x[i], state.s[i], state.t[i], state.u[i]
    effect_ratio = (x / s).max(axis=0)
    # Of an effect near 0 only the dual slack tells the sign.
    sign = np.where(x[0] / s[0] > x[1] / s[1], 1, -1)
    if state.bounded[i, 0]:
        free = state.rows[i]
        rows = np.flatnonzero(free)
        row_ratio = (t / np.where(free, u, 1.0)).min(axis=0)[free]
        side = np.where(u[0] > u[1], 1, -1)
    else:
        free = np.zeros(size, dtype=bool)
        rows = np.arange(size)
        row_ratio = np.zeros(0)
        side = np.ones(size, dtype=np.int64)
    ratio = np.concatenate([effect_ratio[mask], row_ratio])
    return _Candidates(ratio, len(rows) - 1, mask, sign, free, side, rows)


def _independent(candidates: _Candidates) -> NDArray[np.intp]:
    """Independent candidates, (n_basic,), with the largest ratios.

    A QR factorisation that takes the longest remaining column, each scaled by its ratio.
    """
    n_basic, n_effects = candidates.n_basic, int(candidates.mask.sum())
    ratio = np.clip(np.nan_to_num(candidates.ratio, nan=0.0), 1e-30, 1e30)
    # A quarter more than are needed leaves room to choose.
    best = np.argsort(-ratio, kind="stable")[: n_basic + n_basic // 4]
    effects, rows = best[best < n_effects], best[best >= n_effects]
    order = np.concatenate([effects, rows])
    matrix = _columns(candidates, effects, rows - n_effects)
    scale = np.sqrt(np.clip(ratio[order] / ratio[best[n_basic - 1]], 1e-10, 1e10))
    # The constant, the first column, is always taken.
    matrix *= np.append(1e6, scale)
    chosen = qr(matrix, mode="r", pivoting=True, overwrite_a=True)[1][: n_basic + 1]
    return order[chosen[chosen > 0] - 1]


def _columns(
    candidates: _Candidates, effects: NDArray[np.intp], free: NDArray[np.intp]
) -> NDArray[np.float64]:
    """Columns of the constant, of some effects and of the slacks of some rows, on the rows.

    Args:
        candidates: of the problem.
        effects: which of the effects that are candidates.
        free: which of the rows that are candidates.

    Returns:
        float64 (k, 1 + effects + free).
    """
    rows = candidates.rows[:, None]
    n = n_players(candidates.mask.shape[1])
    flat = np.flatnonzero(candidates.mask)[effects]
    kind, pattern = flat >> n, flat & ((1 << n) - 1)
    of_effects = np.where(
        kind == 0, (rows & pattern) == pattern, -((rows & pattern) == 0).astype(int)
    )
    slacks = np.zeros((len(rows), len(free)))
    slacks[free, np.arange(len(free))] = 1.0
    return np.hstack([np.ones((len(rows), 1)), of_effects, slacks])
