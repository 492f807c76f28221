"""Newton systems against dense linear algebra."""

import numpy as np
import pytest

from sft_interactions.extraction.certificate import analysis, effect_mask, synthesis
from sft_interactions.extraction.newton import NewtonSystem

N = 5
SIZE = 1 << N


@pytest.fixture(scope="module")
def problems():
    """d, e, rows, rhs and total of three problems; the third works on all its rows."""
    rng = np.random.default_rng(0)
    d = np.exp(rng.normal(-2, 2, size=(3, 2, SIZE))) * effect_mask(N)
    e = np.exp(rng.normal(size=(3, SIZE)))
    rows = rng.random((3, SIZE)) < 0.8
    rows[2] = True
    return d, e, rows, rng.normal(size=(3, SIZE)) * rows, rng.normal(size=3)


def dense_solution(d, e, rows, rhs, total):
    """Δy and Δc of one problem from the whole system with its border."""
    a = np.stack([synthesis(unit.reshape(2, -1)) for unit in np.eye(2 * SIZE)], axis=1)
    matrix = ((a * d.ravel()) @ a.T + np.diag(e))[np.ix_(rows, rows)]
    ones = np.ones((len(matrix), 1))
    whole = np.block([[matrix, ones], [ones.T, np.zeros((1, 1))]])
    solution = np.linalg.solve(whole, np.append(rhs[rows], total))
    y = np.zeros(SIZE)
    y[rows] = solution[:-1]
    return y, solution[-1]


def test_exact_factors_solve_to_rounding(problems):
    d, e, rows, rhs, total = problems
    y, c = NewtonSystem(d, e, rows, np.zeros(3, dtype=bool)).solve(rhs, total)
    for i in range(3):
        expected_y, expected_c = dense_solution(d[i], e[i], rows[i], rhs[i], total[i])
        np.testing.assert_allclose(y[i], expected_y, rtol=1e-6, atol=1e-8)
        assert c[i] == pytest.approx(expected_c, rel=1e-6)
    assert not y[~rows].any()


def test_conjugate_gradients_reduce_the_residual(problems):
    d, e, rows, rhs, total = problems
    by_columns = np.array([False, False, True])
    y, c = NewtonSystem(d, e, rows, by_columns).solve(rhs, total)
    residual = rhs - (synthesis(d * analysis(y)) + e * y + c[:, None]) * rows
    assert np.abs(residual[:2]).max() < 1e-8
    assert np.linalg.norm(residual[2]) < 0.5 * np.linalg.norm(rhs[2])
    np.testing.assert_allclose(y.sum(axis=1), total, atol=1e-9)


def test_a_problem_does_not_depend_on_the_others_of_its_batch(problems):
    d, e, rows, rhs, total = problems
    by_columns = np.array([False, False, True])
    together, _ = NewtonSystem(d, e, rows, by_columns).solve(rhs, total)
    for i in range(3):
        one = slice(i, i + 1)
        alone, _ = NewtonSystem(d[one], e[one], rows[one], by_columns[one]).solve(
            rhs[one], total[one]
        )
        np.testing.assert_allclose(alone[0], together[i], atol=1e-9)


def test_a_matrix_that_is_not_positive_definite_is_refused(problems):
    d, e, rows, *_ = problems
    with pytest.raises(np.linalg.LinAlgError):
        NewtonSystem(0 * d, -e, rows, np.zeros(3, dtype=bool))
