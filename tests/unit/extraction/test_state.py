"""The iterate: where it starts, and which rows it works on."""

import numpy as np
import pytest

from sft_interactions.extraction.certificate import effect_mask, synthesis
from sft_interactions.extraction.state import State, update_rows

N = 4
SIZE = 1 << N
MASK = effect_mask(N)


@pytest.fixture
def state(scaled_problems):
    v, bound, weights = scaled_problems(0, N, batch=3, noise_ratio=0.2)
    return State.start(v, bound, np.where(MASK, weights, 1.0), MASK)


def test_start_is_inside_all_bounds(state):
    assert state.rows.all()
    assert (state.x[:, :, MASK] > 0).all()
    assert not state.x[:, :, ~MASK].any()
    for name in ("s", "t", "u"):
        assert (getattr(state, name) > 0).all()
    assert not state.effects().any()


def test_start_without_a_bound(scaled_problems):
    v, bound, weights = scaled_problems(0, N, noise_ratio=0.0)
    state = State.start(v, bound, weights, MASK)
    assert not state.bounded.any()
    np.testing.assert_array_equal(state.t, np.ones((1, 2, SIZE)))
    np.testing.assert_array_equal(state.u, np.zeros((1, 2, SIZE)))


def test_take_copies_problems(state):
    taken = state.take(np.array([True, False, True]))
    np.testing.assert_array_equal(taken.index, [0, 2])
    np.testing.assert_array_equal(taken.v, state.v[[0, 2]])
    taken.x[:] = -1
    assert (state.x >= 0).all()


def test_relative_gap(state):
    weights = np.ones((2, SIZE))
    state.y[:] = 0
    # The dual objective is 0, so the gap is the whole of the primal one.
    np.testing.assert_allclose(state.relative_gap(weights), 1.0)


def near_optimum(state):
    """Rows 0 to 7 at their bound and pressing, the others far inside it."""
    state.c = state.v.mean(axis=1)
    state.v[:] = state.c[:, None]
    inside = np.arange(SIZE) >= 8
    bound = state.bound[:, None, None]
    state.t = np.where(inside, bound, 1e-6 * bound)
    state.u = np.where(inside, 1e-9, 1.0) * np.ones((3, 2, SIZE))
    state.y = np.where(inside, 0.0, 1.0) * np.ones((3, SIZE))
    state.q = np.zeros((3, SIZE))
    return inside


def test_rows_far_inside_their_bound_are_dropped(state):
    inside = near_optimum(state)
    back = update_rows(state, np.array([1e-2, 1e-2, 0.5]), MASK)
    assert not back.any()
    np.testing.assert_array_equal(state.rows[:2], [~inside] * 2)
    # Far from the optimum nothing is dropped.
    assert state.rows[2].all()
    dropped = ~state.rows
    assert not state.y[dropped].any()
    assert not state.q[dropped].any()
    np.testing.assert_array_equal(state.t[:2][..., inside], 1)
    np.testing.assert_array_equal(state.u[:2][..., inside], 0)


def test_dropped_rows_that_leave_their_bound_come_back_and_stay(state):
    inside = near_optimum(state)
    gap = np.full(3, 1e-2)
    update_rows(state, gap, MASK)
    state.v[1, 12] += 2 * state.bound[1]
    back = update_rows(state, gap, MASK)
    np.testing.assert_array_equal(back, [False, True, False])
    assert state.rows[1, 12]
    assert state.returned[1, 12]
    assert np.abs(state.q[1, 12]) <= state.bound[1]
    assert (state.t[1, :, 12] > 0).all()
    assert (state.u[1, :, 12] > 0).all()
    assert state.y[1, 12] == state.u[1, 1, 12] - state.u[1, 0, 12]
    # Back inside it still stays.
    state.v[1, 12] = state.c[1]
    state.t[1, :, 12], state.u[1, :, 12] = state.bound[1], 1e-9
    update_rows(state, gap, MASK)
    assert state.rows[1, 12]
    np.testing.assert_array_equal(state.rows[0], ~inside)


def test_few_rows_are_not_worth_dropping(state):
    near_optimum(state)
    state.t[:, :, 9:] = 1e-6 * state.bound[:, None, None]
    # One row of sixteen is more than a twentieth, one of thirty-two is not.
    update_rows(state, np.full(3, 1e-2), MASK)
    assert (state.rows.sum(axis=1) == SIZE - 1).all()


def test_rows_without_a_bound_are_never_dropped(scaled_problems):
    v, bound, weights = scaled_problems(0, N, noise_ratio=0.0)
    state = State.start(v, bound, weights, MASK)
    state.y[:] = 1.0
    update_rows(state, np.array([1e-3]), MASK)
    assert state.rows.all()


def test_effects_are_the_difference_of_their_parts(state):
    state.x[:, 0, 0, 1] = 0.75
    state.x[:, 1, 0, 1] = 0.25
    assert (state.effects()[:, 0, 1] == 0.5).all()
    expected = np.where(np.arange(SIZE) & 1, 0.5, 0.0)
    np.testing.assert_allclose(synthesis(state.effects()), [expected] * 3, atol=1e-12)
