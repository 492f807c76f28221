"""The program's matrix and its transpose, and what a certificate says."""

import numpy as np
import pytest

from sft_interactions.extraction import highs
from sft_interactions.extraction.certificate import (
    Solution,
    analysis,
    certify,
    effect_mask,
    synthesis,
)


def test_synthesis_is_the_logical_model_without_its_constant():
    effects = np.random.default_rng(0).normal(size=(3, 2, 16))
    # Σ J(T) over T that meet S is ΣJ − Σ J(T) over T outside S.
    expected = [
        [
            sum(ands[t] for t in range(16) if t & s == t)
            + sum(ors[t] for t in range(16) if t & s)
            - ors.sum()
            for s in range(16)
        ]
        for ands, ors in effects
    ]
    np.testing.assert_allclose(synthesis(effects), expected, atol=1e-12)


def test_analysis_is_the_transpose_of_synthesis():
    rng = np.random.default_rng(1)
    effects, y = rng.normal(size=(2, 2, 32)), rng.normal(size=(2, 32))
    forth = (synthesis(effects) * y).sum(axis=1)
    back = (effects * analysis(y)).sum(axis=(1, 2))
    np.testing.assert_allclose(forth, back, atol=1e-12)


def test_variables_are_and_from_order_1_and_or_from_order_2():
    mask = effect_mask(3)
    assert np.flatnonzero(mask[0]).tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert np.flatnonzero(mask[1]).tolist() == [3, 5, 6, 7]
    with pytest.raises(ValueError, match="read-only"):
        mask[0, 0] = True


@pytest.mark.parametrize("size", [0.1, 1.0, 10.0])
def test_any_dual_point_gives_a_lower_bound(scaled_problems, size):
    v, bound, weights = scaled_problems(3, 4)
    mask = effect_mask(4)
    x, _, _ = highs.solve(v[0], bound[0], weights[mask])
    effects = np.zeros((2, 16))
    effects[mask] = x[:-1]
    optimum = (weights * np.abs(effects)).sum()
    for seed in range(20):
        y = size * np.random.default_rng(seed).normal(size=16)
        found = certify(v[0], bound[0], weights, effects, x[-1], y)
        assert found.y.sum() == pytest.approx(0, abs=1e-12)
        assert (np.abs(analysis(found.y)) <= weights * (1 + 1e-12))[mask].all()
        lower = v[0] @ found.y - bound[0] * np.abs(found.y).sum()
        assert lower <= optimum * (1 + 1e-9)
        assert found.gap == pytest.approx((optimum - lower) / optimum)


def test_the_optimal_dual_closes_the_gap(scaled_problems):
    v, bound, weights = scaled_problems(3, 4)
    mask = effect_mask(4)
    x, y, _ = highs.solve(v[0], bound[0], weights[mask])
    effects = np.zeros((2, 16))
    effects[mask] = x[:-1]
    found = certify(v[0], bound[0], weights, effects, x[-1], y)
    assert found.gap < 1e-9
    assert abs(found.excess) < 1e-9
    assert not found.exact


def test_excess_is_how_far_a_row_is_beyond_its_bound():
    v = np.array([0.0, 0.0, 0.0, 1.0])
    found = certify(v, 0.25, np.ones((2, 4)), np.zeros((2, 4)), 0.5, np.zeros(4))
    assert found.excess == 0.25


def solution(gap, excess, exact):
    return Solution(np.zeros((2, 4)), 0.0, np.zeros(4), gap, excess, exact)


def test_rank_prefers_exact_solutions_then_small_errors():
    exact, close, far = (
        solution(1e-3, 0.0, True),
        solution(1e-9, 1e-6, False),
        solution(0.0, 1e-5, False),
    )
    assert sorted([far, exact, close], key=lambda s: s.rank) == [exact, close, far]
