"""Exact solutions of a support and active rows."""

import numpy as np
import pytest

from sft_interactions.extraction import iteration
from sft_interactions.extraction.certificate import synthesis
from sft_interactions.extraction.vertex import (
    active_set,
    factorise,
    solve_active,
    solve_degenerate,
    solve_vertex,
    spread,
)

# Two players: φ = c + I({0})·[0 ∈ S] + I({0,1})·[S = {0,1}] and three rows at their bound.
SIGN = np.array([[0, 1, 0, 1], [0, 0, 0, 0]], dtype=np.int8)
SIDE = np.array([1, -1, 0, 1], dtype=np.int8)
V = np.array([0.0, 1.0, 0.05, 2.0])
WEIGHTS = np.ones((2, 4))


def test_vertex_by_hand():
    found = solve_vertex(V, 0.1, WEIGHTS, SIGN, SIDE)
    # c = 0.1; c + I({0}) = 0.9; the three together = 2.1.
    assert found.constant == pytest.approx(0.1)
    np.testing.assert_allclose(found.effects, [[0, 0.8, 0, 1.2], [0, 0, 0, 0]], atol=1e-12)
    assert found.exact
    assert found.excess == pytest.approx(0, abs=1e-12)


def test_dual_of_a_vertex():
    basis = factorise(SIGN, SIDE)
    # Each effect of the support is worth its weight, the constant nothing.
    y = basis.dual(WEIGHTS)
    assert y.sum() == pytest.approx(0)
    assert y[1] + y[3] == pytest.approx(1)
    assert y[3] == pytest.approx(1)
    assert y[2] == 0


def test_or_columns():
    sign = np.array([[0, 0, 0, 0], [0, 0, 0, 1]], dtype=np.int8)
    side = np.array([1, 0, 0, -1], dtype=np.int8)
    found = solve_vertex(V, 0.1, WEIGHTS, sign, side)
    # φ(∅) = c − J = 0.1 and φ(N) = c = 1.9.
    assert found.constant == pytest.approx(1.9)
    assert found.effects[1, 3] == pytest.approx(1.8)


def test_no_vertex_of_a_system_that_is_not_square_or_singular():
    assert solve_vertex(V, 0.1, WEIGHTS, SIGN, np.abs(SIDE) * 0) is None
    more = np.array([1, -1, 1, 1], dtype=np.int8)
    assert solve_vertex(V, 0.1, WEIGHTS, SIGN, more) is None
    # Neither column distinguishes the rows of ∅ and {1} from each other.
    singular = np.array([1, 1, 1, 0], dtype=np.int8)
    assert solve_vertex(V, 0.1, WEIGHTS, SIGN, singular) is None
    assert factorise(SIGN, singular) is None


def test_rounding_in_a_degenerate_vertex_is_exactly_zero():
    v = np.array([0.0, 0.3, 0.0, 0.3 + 1e-14])
    side = np.array([1, 1, 0, 1], dtype=np.int8)
    found = solve_vertex(v, 0.0, WEIGHTS, SIGN, side)
    assert found.effects[0, 3] == 0
    assert found.effects[0, 1] == pytest.approx(0.3)


def test_more_active_rows_than_needed():
    v = np.array([0.0, 1.0, 0.0, 2.0])
    side = np.ones(4, dtype=np.int8)
    y = np.array([0.5, -0.5, 0.0, 0.0])
    found = solve_degenerate(v, 0.1, WEIGHTS, SIGN, side, y)
    np.testing.assert_allclose(found.effects, [[0, 1, 0, 1], [0, 0, 0, 0]], atol=1e-12)
    assert found.constant == pytest.approx(0.1)
    assert found.exact
    np.testing.assert_array_equal(found.y, y)


def test_active_set_of_a_solution():
    effects = spread(SIGN, np.array([0.8, 1.2]))
    sign, side = active_set(V, 0.1, effects, 0.1)
    np.testing.assert_array_equal(sign, SIGN)
    np.testing.assert_array_equal(side, SIDE)
    assert sign.dtype == side.dtype == np.int8


def test_a_nearly_exact_solution_becomes_exact(scaled_problems):
    v, bound, weights = scaled_problems(5, 5, batch=3)
    solutions, _ = iteration.solve(v, bound, weights)
    for i, best in enumerate(solutions):
        assert best.exact
        noise = 1e-11 * np.random.default_rng(i).normal(size=best.effects.shape)
        near = best.effects + noise * (best.effects != 0)
        found = solve_active(v[i], bound[i], weights, near, best.constant, best.y)
        # The floats follow from support and active rows alone.
        np.testing.assert_array_equal(found.effects, best.effects)
        np.testing.assert_array_equal(found.y, best.y)
        assert found.constant == best.constant


def test_a_solution_with_too_many_active_rows_becomes_exact_by_least_squares():
    v = np.array([0.0, 1.0, 0.0, 2.0])
    effects = spread(SIGN, np.array([1.0, 1.0]))
    found = solve_active(v, 0.0, WEIGHTS, effects, 0.0, np.zeros(4))
    assert found.exact
    np.testing.assert_allclose(synthesis(found.effects) + found.constant, v, atol=1e-12)
