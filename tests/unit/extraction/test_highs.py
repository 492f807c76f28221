"""The program by HiGHS."""

import numpy as np
import pytest

from sft_interactions.extraction import highs
from sft_interactions.extraction.certificate import effect_mask, synthesis
from sft_interactions.extraction.tie_break import tie_break_weights


@pytest.mark.parametrize("n", [2, 3, 5])
def test_design_matrix_is_that_of_the_program(n):
    matrix = highs.design_matrix(n)
    assert matrix.shape == (1 << n, 2 * (1 << n) - n - 1)
    rng = np.random.default_rng(n)
    mask = effect_mask(n)
    effects = rng.normal(size=mask.shape) * mask
    phi = matrix @ np.append(effects[mask], 0.75)
    np.testing.assert_allclose(phi, synthesis(effects) + 0.75, atol=1e-12)


def test_same_answer_of_any_column_order(real_v):
    v = real_v[8][1]
    v = (v - v.mean()) / np.ptp(v)
    bound = 0.04 * abs(v[-1] - v[0])
    mask = effect_mask(8)
    weights = np.stack(tie_break_weights(8, "canonical"))[mask]
    straight = highs.solve(v, bound, weights)[0]
    for seed in range(2):
        order = np.random.default_rng(seed).permutation(len(weights))
        permuted = highs.solve(v, bound, weights, column_order=order)[0]
        np.testing.assert_allclose(permuted, straight, atol=1e-9)


@pytest.mark.parametrize("method", ["simplex", "ipm"])
def test_solution_and_dual(scaled_problems, method):
    v, bound, weights = scaled_problems(0, 4)
    weights = weights[effect_mask(4)]
    x, y, iterations = highs.solve(v[0], bound[0], weights, method=method)
    assert iterations > 0
    objective = weights @ np.abs(x[:-1])
    assert np.abs(highs.design_matrix(4) @ x - v[0]).max() <= bound[0] + 1e-8
    assert y.sum() == pytest.approx(0, abs=1e-8)
    assert v[0] @ y - bound[0] * np.abs(y).sum() == pytest.approx(objective)


def test_an_infeasible_program_is_an_error():
    with pytest.raises(RuntimeError, match=r"HiGHS ends with .*kInfeasible"):
        highs.solve(np.arange(4.0), -0.1, np.ones(4))


def test_highs_names_a_rejected_option():
    with pytest.raises(RuntimeError, match="solver='gradient descent'"):
        highs.solve(np.arange(4.0), 0.1, np.ones(4), method="gradient descent")
