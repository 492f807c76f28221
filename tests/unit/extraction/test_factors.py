"""Factors of the normal matrix against dense linear algebra."""

import numpy as np
import pytest

from sft_interactions.extraction import factors
from sft_interactions.extraction.certificate import effect_mask, synthesis


@pytest.mark.parametrize("size", [1, 2, 63, 64, 65, 128, 200])
def test_tiled_cholesky_factor(size):
    rng = np.random.default_rng(size)
    root = rng.normal(size=(size, size))
    matrix, added, rhs = root @ root.T, rng.uniform(1, 2, size), rng.normal(size=size)

    def factorise(factor):
        return factors.TiledCholesky(
            np.arange(size), lambda a, b: matrix[a, b], added, factor, tile=64
        )

    solution = factorise(1.5).solve(rhs)
    whole = matrix.copy()
    whole[np.diag_indices(size)] = 1.5 * (np.diag(matrix) + added)
    np.testing.assert_allclose(whole @ solution, rhs, atol=1e-10)
    with pytest.raises(np.linalg.LinAlgError, match="not positive definite"):
        factorise(-1.0)


def columns(n):
    """A, (2^n, 2·2^n), column by column."""
    return np.stack([synthesis(unit.reshape(2, -1)) for unit in np.eye(2 << n)], axis=1)


def weights(n, seed):
    """D and E like those of an iterate: of very different sizes."""
    rng = np.random.default_rng(seed)
    d = np.exp(rng.normal(-2, 2, size=(2, 1 << n))) * effect_mask(n)
    return d, np.exp(rng.normal(size=1 << n))


@pytest.mark.parametrize("n", [1, 3, 6])
def test_row_factor_solves_on_the_working_rows(n):
    d, e = weights(n, n)
    rows = np.random.default_rng(n).random(1 << n) < 0.7
    rows[0] = True
    a = columns(n)
    dense = (a * d.ravel()) @ a.T + np.diag(e) + d.max()
    rhs = np.random.default_rng(1).normal(size=1 << n)
    solution = factors.RowFactor(d, e, rows).solve(rhs)
    expected = np.linalg.solve(dense[np.ix_(rows, rows)], rhs[rows])
    np.testing.assert_allclose(solution[rows], expected, rtol=1e-7, atol=1e-10)
    assert not solution[~rows].any()


def test_row_factor_takes_a_jitter_where_rounding_needs_it():
    # Without E the matrix of two players has rank 2 of 4.
    d = np.array([[0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    rows = np.ones(4, dtype=bool)
    solution = factors.RowFactor(d, np.zeros(4), rows).solve(np.array([1.0, 2.0, 1.0, 2.0]))
    a = columns(2)
    dense = (a * d.ravel()) @ a.T + 1.0
    np.testing.assert_allclose(dense @ solution, [1, 2, 1, 2], rtol=1e-3)


def test_row_factor_refuses_what_is_not_positive_definite():
    rows = np.ones(4, dtype=bool)
    with pytest.raises(np.linalg.LinAlgError, match="not positive definite"):
        factors.RowFactor(np.zeros((2, 4)), -np.ones(4), rows)


@pytest.mark.parametrize("n", [3, 6, 9])
def test_column_factor_is_exact_where_few_columns_have_weight(n):
    rng = np.random.default_rng(n)
    d = np.zeros((2, 1 << n))
    variables = np.flatnonzero(effect_mask(n))
    few = rng.choice(variables, (1 << n) // 4 - 1, replace=False)
    d.ravel()[few] = rng.uniform(1e3, 1e5, len(few))
    e = rng.uniform(1, 2, size=1 << n)
    a = columns(n)
    dense = (a * d.ravel()) @ a.T + np.diag(e) + d.max()
    rhs = rng.normal(size=1 << n)
    solution = factors.ColumnFactor(d, e).solve(rhs)
    np.testing.assert_allclose(solution, np.linalg.solve(dense, rhs), atol=1e-6)


def test_column_factor_does_not_depend_on_what_the_memory_held(monkeypatch):
    d, e = weights(6, 0)
    rhs = np.random.default_rng(1).normal(size=64)
    expected = factors.ColumnFactor(d, e).solve(rhs)
    monkeypatch.setattr(np, "empty", lambda *args, **kwargs: np.full(args[0], 1e308))
    np.testing.assert_array_equal(factors.ColumnFactor(d, e).solve(rhs), expected)


def test_column_factor_is_close_where_many_columns_have_weight():
    n = 6
    d, e = weights(n, 0)
    a = columns(n)
    dense = (a * d.ravel()) @ a.T + np.diag(e) + d.max()
    factor = factors.ColumnFactor(d, e)
    inverse = np.stack([factor.solve(unit) for unit in np.eye(1 << n)], axis=1)
    np.testing.assert_allclose(inverse, inverse.T, atol=1e-10)
    # Positive definite, and far better conditioned than the matrix itself.
    values = np.linalg.eigvals(inverse @ dense).real
    assert values.min() > 0
    assert values.max() / values.min() < np.linalg.cond(dense) / 10


def test_column_factor_refuses_what_is_not_positive_definite():
    d = np.zeros((2, 16))
    d[0, 15] = 0.5
    with pytest.raises(np.linalg.LinAlgError, match="singular"):
        factors.ColumnFactor(d, -np.ones(16))
