"""The interior point: exact vertices, and what happens to broken problems."""

import numpy as np
import pytest

from sft_interactions.extraction import highs, iteration
from sft_interactions.extraction.certificate import effect_mask


@pytest.mark.parametrize("noise_ratio", [0.0, 0.04, 0.2])
def test_solutions_are_exact_and_those_of_highs(scaled_problems, noise_ratio):
    v, bound, weights = scaled_problems(4, 5, batch=4, noise_ratio=noise_ratio)
    mask = effect_mask(5)
    solutions, iterations = iteration.solve(v, bound, weights)
    assert iterations.shape == (4,)
    assert (iterations > 0).all()
    for i, found in enumerate(solutions):
        assert found.exact
        assert found.gap < 1e-9
        assert found.excess < 1e-9
        x, _, _ = highs.solve(v[i], bound[i], weights[mask])
        np.testing.assert_allclose(found.effects[mask], x[:-1], atol=1e-8)
        assert found.constant == pytest.approx(x[-1], abs=1e-8)


@pytest.mark.parametrize("options", [{"correctors": 0}, {"correctors": 1}, {"shortcuts": False}])
def test_another_path_leads_to_the_same_optimum(scaled_problems, options):
    v, bound, weights = scaled_problems(4, 6, batch=3)
    straight, _ = iteration.solve(v, bound, weights)
    other, _ = iteration.solve(v, bound, weights, **options)
    for a, b in zip(straight, other, strict=True):
        np.testing.assert_allclose(a.effects, b.effects, atol=1e-9)


@pytest.mark.slow
def test_shortcuts_of_large_problems_lead_to_the_same_optimum(real_v):
    v = real_v[10][:1]
    v = (v - v.mean()) / np.ptp(v)
    bound = 0.04 * np.abs(v[:, -1] - v[:, 0])
    weights = np.ones((2, 1 << 10)) + 1e-3 * np.random.default_rng(0).random((2, 1 << 10))
    (short,), _ = iteration.solve(v, bound, weights)
    (long,), _ = iteration.solve(v, bound, weights, shortcuts=False)
    assert short.exact
    assert long.exact
    np.testing.assert_allclose(short.effects, long.effects, atol=1e-9)


def test_the_last_iterate_where_the_iteration_is_cut_short(scaled_problems):
    v, bound, weights = scaled_problems(4, 5, batch=2)
    solutions, iterations = iteration.solve(v, bound, weights, max_iterations=4)
    assert iterations.tolist() == [4, 4]
    for found in solutions:
        assert not found.exact
        assert found.gap > 1e-9
        assert (found.effects[~effect_mask(5)] == 0).all()


def break_on(monkeypatch, broken):
    """Let a step fail whose batch holds the table `broken`."""
    advance = iteration.advance

    def failing(state, *arguments):
        if (state.v == broken).all(axis=1).any():
            raise np.linalg.LinAlgError("as if singular")
        advance(state, *arguments)

    monkeypatch.setattr(iteration, "advance", failing)


def test_a_broken_problem_does_not_cost_the_others_their_solution(scaled_problems, monkeypatch):
    v, bound, weights = scaled_problems(4, 4, batch=3)
    whole, _ = iteration.solve(v, bound, weights)
    break_on(monkeypatch, v[1])
    solutions, iterations = iteration.solve(v, bound, weights)
    assert solutions[1] is None
    assert iterations[1] == 0
    for i in (0, 2):
        np.testing.assert_allclose(solutions[i].effects, whole[i].effects, atol=1e-9)
        assert iterations[i] > 0


def test_a_broken_problem_alone(scaled_problems, monkeypatch):
    v, bound, weights = scaled_problems(4, 4)
    break_on(monkeypatch, v[0])
    solutions, iterations = iteration.solve(v, bound, weights)
    assert solutions == [None]
    assert iterations.tolist() == [0]
