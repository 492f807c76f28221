"""Pivots from a vertex to the optimal one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sft_interactions.extraction import iteration, pivots
from sft_interactions.extraction.pivots import improve_vertex

seeds = st.integers(0, 2**32 - 1)
few = settings(derandomize=True, max_examples=25, deadline=None)


def other_vertex(v, bound, weights, seed):
    """The optimum of other weights: a feasible vertex."""
    other = np.random.default_rng(seed).uniform(0.2, 1.0, weights.shape)
    (start,), _ = iteration.solve(v, bound, other)
    return start


@pytest.mark.slow
@few
@given(seeds, st.integers(2, 6), st.sampled_from([0.0, 0.04]))
def test_pivots_lead_from_any_vertex_to_the_optimum(scaled_problems, seed, n, noise_ratio):
    v, bound, weights = scaled_problems(seed, n, noise_ratio=noise_ratio)
    start = other_vertex(v, bound, weights, seed)
    (best,), _ = iteration.solve(v, bound, weights)
    found = improve_vertex(v[0], bound[0], weights, start, max_pivots=2000)
    assert max(found.gap, found.excess) < 1e-9
    np.testing.assert_allclose(found.effects, best.effects, atol=1e-9)


def test_the_optimum_needs_no_pivot(scaled_problems):
    v, bound, weights = scaled_problems(0, 5)
    (best,), _ = iteration.solve(v, bound, weights)
    found = improve_vertex(v[0], bound[0], weights, best, max_pivots=1)
    np.testing.assert_array_equal(found.effects, best.effects)


def test_a_way_that_is_too_long_is_given_up(scaled_problems):
    v, bound, weights = scaled_problems(0, 5)
    start = other_vertex(v, bound, weights, seed=0)
    assert improve_vertex(v[0], bound[0], weights, start, max_pivots=0) is None
    assert improve_vertex(v[0], bound[0], weights, start, max_pivots=1) is None


def test_pivots_lower_the_objective(scaled_problems):
    v, bound, weights = scaled_problems(0, 5)
    start = other_vertex(v, bound, weights, seed=0)
    found = improve_vertex(v[0], bound[0], weights, start)
    assert (weights * np.abs(found.effects)).sum() < (weights * np.abs(start.effects)).sum()
    assert found.excess < 1e-9
    assert found.exact


def test_a_walk_that_stands_still_is_given_up(scaled_problems, monkeypatch):
    v, bound, weights = scaled_problems(0, 5)
    start = other_vertex(v, bound, weights, seed=0)
    leaving = pivots._leaving
    monkeypatch.setattr(pivots, "_leaving", lambda *basis: (leaving(*basis)[0], 0.0))
    monkeypatch.setattr(pivots, "_MAX_STANDSTILL", 1)
    assert improve_vertex(v[0], bound[0], weights, start) is None
    monkeypatch.setattr(pivots, "_MAX_STANDSTILL", 100)
    assert improve_vertex(v[0], bound[0], weights, start) is not None
