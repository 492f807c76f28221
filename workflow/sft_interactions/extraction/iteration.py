"""The program by a primal-dual interior point that ends in an exact vertex.

Early, the Newton systems of large problems are solved by conjugate gradients, and late on few rows
(`newton`, `state`). Near the end support and active rows are read off the iterate, and the vertex
and its dual follow from one small linear system (`basis`). Problems of a batch iterate together.
"""

from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from sft_interactions.extraction.basis import find_vertex
from sft_interactions.extraction.certificate import Solution, certify, effect_mask
from sft_interactions.extraction.state import State, update_rows
from sft_interactions.extraction.step import advance
from sft_interactions.extraction.transforms import n_players

# From this number of rows on, conjugate gradients are used and rows are dropped.
_LARGE = 1 << 10
# Relative gap down to which conjugate gradients are worth their iterations.
_COLUMNS_GAP = 1e-3
# Relative gap from which on a vertex is looked for.
_VERTEX_GAP = 1e-4
# At a gap of rounding without a vertex the optimum is degenerate, and more steps do not help.
_LAST_GAP = 1e-14
# The same holds once a gap below the first has grown by the second: rounding has taken over.
_BEST_GAP, _GROWTH = 1e-8, 10.0
# Where an interior point is asked for, not a vertex, it is good enough from this gap on.
_INTERIOR_GAP = 1e-10
# An effect of an iterate below this is below its precision, and no effect (v has range 1).
_NO_EFFECT = 1e-7


def solve(
    v: NDArray[np.float64],
    bound: NDArray[np.float64],
    weights: NDArray[np.float64],
    *,
    max_iterations: int = 80,
    shortcuts: bool = True,
    correctors: int = 2,
    vertex: bool = True,
) -> tuple[list[Solution | None], NDArray[np.int64]]:
    """Solve a batch of problems.

    Args:
        v: (B, 2^n) log-odds, each of range 1 and about centred.
        bound: (B,) noise bound, in the units of v; 0 asks for equality.
        weights: (2, 2^n), positive.
        max_iterations: where to give up.
        shortcuts: from n = 10 on, use the preconditioner of few columns and drop rows.
        correctors: centrality corrections a step; another number is another path to the optimum.
        vertex: end in a vertex. If not, the last iterate is about the middle of the set of all optima:
            its dual is 0 or at its limit only where that of every optimum is.

    Returns:
        For each problem an exact vertex (gap ≤ 1e-9), or else the last iterate, or None if the
        iteration broke down; and the number of iterations, int64 (B,).
    """
    # A degenerate problem may overflow near its end, which ends its iteration without harm.
    with np.errstate(all="ignore"):
        with suppress(np.linalg.LinAlgError):
            return _solve_batch(v, bound, weights, max_iterations, shortcuts, correctors, vertex)
        solutions: list[Solution | None] = [None] * len(v)
        iterations = np.zeros(len(v), dtype=np.int64)
        if len(v) == 1:
            return solutions, iterations
        # One broken problem must not cost the others of the batch their solution.
        for i in range(len(v)):
            with suppress(np.linalg.LinAlgError):
                alone, steps = _solve_batch(
                    v[[i]], bound[[i]], weights, max_iterations, shortcuts, correctors, vertex
                )
                solutions[i], iterations[i] = alone[0], steps[0]
        return solutions, iterations


def _solve_batch(
    v: NDArray[np.float64],
    bound: NDArray[np.float64],
    weights: NDArray[np.float64],
    max_iterations: int,
    shortcuts: bool,
    correctors: int,
    vertex: bool,
) -> tuple[list[Solution | None], NDArray[np.int64]]:
    """`solve`, which raises LinAlgError when one problem breaks down."""
    n_problems, size = v.shape
    mask = effect_mask(n_players(size))
    weights = np.where(mask, weights, 1.0)
    large = shortcuts and size >= _LARGE
    solutions: list[Solution | None] = [None] * n_problems
    iterations = np.zeros(n_problems, dtype=np.int64)
    state = State.start(v, bound, weights, mask)
    last_gap = _LAST_GAP if vertex else _INTERIOR_GAP
    unsolved = []
    best = np.full(n_problems, np.inf)
    for _ in range(max_iterations):
        by_columns = _by_columns(state, weights, large)
        advance(state, weights, mask, by_columns, 0 if by_columns.all() else correctors)
        iterations[state.index] += 1
        gap = state.relative_gap(weights)
        back = np.zeros(len(gap), dtype=bool)
        if large:
            back = update_rows(state, gap, mask)
        done = np.zeros(len(gap), dtype=bool)
        for i in np.flatnonzero((gap < _VERTEX_GAP) & ~back & vertex).tolist():
            found = find_vertex(state, i, weights, mask, gap[i])
            solutions[state.index[i]] = found
            done[i] = found is not None
        best[state.index] = np.fmin(best[state.index], gap)
        least = best[state.index]
        wanders = (least < _BEST_GAP) & (gap > _GROWTH * least)
        keep = ~done & np.isfinite(gap) & (gap > last_gap) & ~wanders
        unsolved.append(state.take(~done & ~keep))
        state = state.take(keep)
        if not keep.any():
            break
    for rest in (*unsolved, state):
        for i, index in enumerate(rest.index.tolist()):
            if np.isfinite(rest.x[i]).all() and np.isfinite(rest.y[i]).all():
                solutions[index] = _rounded(rest, i, weights, mask)
    return solutions, iterations


def _by_columns(state: State, weights: NDArray[np.float64], large: bool) -> NDArray[np.bool_]:
    """bool (B,): problems to solve by conjugate gradients in the next step."""
    early = state.relative_gap(weights) > _COLUMNS_GAP
    # The preconditioner is one of all rows, and has no inverse without a bound.
    return large & state.bounded[:, 0] & state.rows.all(axis=1) & early


def _rounded(
    state: State, i: int, weights: NDArray[np.float64], mask: NDArray[np.bool_]
) -> Solution:
    """The iterate of a problem as a solution."""
    effects = np.where(mask, state.x[i, 0] - state.x[i, 1], 0.0)
    effects[np.abs(effects) < _NO_EFFECT] = 0.0
    return certify(
        state.v[i], float(state.bound[i]), weights, effects, float(state.c[i]), state.y[i]
    )
