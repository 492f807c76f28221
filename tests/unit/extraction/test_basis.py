"""The vertex that an iterate points to."""

import numpy as np
import pytest

from sft_interactions.extraction import iteration
from sft_interactions.extraction.basis import find_vertex
from sft_interactions.extraction.certificate import analysis, effect_mask, synthesis
from sft_interactions.extraction.state import SIGNS, State

N = 5
MASK = effect_mask(N)
# A gap at which a failing vertex does not mean a degenerate optimum yet, and one at which it does.
EARLY, LATE = 1e-5, 1e-9


def near(v, bound, weights, solution, distance=1e-9):
    """An iterate at a small distance from a solution of one problem."""
    state = State.start(v, bound, weights, MASK)
    state.c = np.array([solution.constant])
    state.y = solution.y[None]
    parts = np.maximum(SIGNS[:, None, None] * solution.effects, 0)
    state.x = (parts + distance)[None] * MASK
    slack = weights - SIGNS[:, None, None] * analysis(solution.y)
    state.s = np.where(MASK, np.maximum(slack, 0) + distance, 1.0)[None]
    if bound[0] > 0:
        q = np.clip(synthesis(solution.effects) + solution.constant - v[0], -bound, bound)
        state.q = q[None]
        state.t = (bound - SIGNS[:, None] * q + distance)[None]
        state.u = (np.maximum(-SIGNS[:, None] * solution.y, 0) + distance)[None]
    return state


@pytest.fixture(params=[0.0, 0.04])
def solved(scaled_problems, request):
    v, bound, weights = scaled_problems(2, N, noise_ratio=request.param)
    weights = np.where(MASK, weights, 1.0)
    (best,), _ = iteration.solve(v, bound, weights)
    return near(v, bound, weights, best), weights, best


def test_an_iterate_near_the_optimum_points_to_it(solved):
    state, weights, best = solved
    vertex = find_vertex(state, 0, weights, MASK, EARLY)
    assert vertex.exact
    np.testing.assert_array_equal(vertex.effects, best.effects)
    np.testing.assert_array_equal(vertex.y, best.y)


def test_the_start_points_nowhere(scaled_problems):
    v, bound, weights = scaled_problems(2, N)
    weights = np.where(MASK, weights, 1.0)
    state = State.start(v, bound, weights, MASK)
    assert find_vertex(state, 0, weights, MASK, EARLY) is None


def test_a_problem_of_a_batch(scaled_problems):
    v, bound, weights = scaled_problems(3, N, batch=2)
    weights = np.where(MASK, weights, 1.0)
    best, _ = iteration.solve(v, bound, weights)
    states = [near(v[[i]], bound[[i]], weights, best[i]) for i in range(2)]
    both = State.start(v, bound, weights, MASK)
    for name in ("c", "y", "q", "x", "s", "t", "u"):
        setattr(both, name, np.concatenate([getattr(state, name) for state in states]))
    for i in range(2):
        vertex = find_vertex(both, i, weights, MASK, EARLY)
        np.testing.assert_array_equal(vertex.effects, best[i].effects)


def test_near_the_end_a_misleading_iterate_is_mended_by_pivots(scaled_problems):
    # Without a bound every vertex is feasible, so pivots lead from each to the optimum.
    v, bound, weights = scaled_problems(2, N, noise_ratio=0.0)
    weights = np.where(MASK, weights, 1.0)
    (best,), _ = iteration.solve(v, bound, weights)
    state = near(v, bound, weights, best)
    kind, pattern = np.unravel_index(np.abs(best.effects).argmax(), best.effects.shape)
    # As if the largest effect were the least likely of all.
    state.x[0, :, kind, pattern] = 1e-30
    assert find_vertex(state, 0, weights, MASK, EARLY) is None
    vertex = find_vertex(state, 0, weights, MASK, LATE)
    np.testing.assert_allclose(vertex.effects, best.effects, atol=1e-9)
