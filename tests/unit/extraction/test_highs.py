"""The program by HiGHS."""

from itertools import product

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.optimize import Bounds, LinearConstraint, milp

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


N_GROUPS, WIDTH = 12, 3


def sizes_problem(seed):
    """A random program of `SizesProgram` with a point in it of which one group is not 0, and its cost."""
    rng = np.random.default_rng(seed)
    groups = np.append(np.repeat(np.arange(1, N_GROUPS + 1), WIDTH), 0)
    n_columns, n_rows = len(groups), 7
    free = groups == 0
    x = np.where(groups == 1, rng.exponential(size=n_columns), 0.0)
    x[free] = rng.normal()
    matrix = sp.csc_array(rng.normal(size=(n_rows, n_columns)))
    lower, upper = (matrix @ x + side * rng.random(n_rows) for side in (-1, 1))
    lower[0], upper[1] = -np.inf, np.inf
    # Each column but the last of a group with the next one.
    first = np.flatnonzero(groups[:-1] == groups[1:])
    one = sp.eye_array(n_columns, format="csr")
    links = sp.csc_array(one[first] - one[first + 1])
    # The free column has no cost, and no column a negative one, so that there is a solution.
    cost = np.where(free, 0.0, rng.random(n_columns))
    return (matrix, (lower, upper), free, links, rng.random(len(first))), cost, x, groups


def price_of(program, groups):
    """Of each group the least over the corners."""
    *_, links, size_cost = program
    corners = np.array(list(product((0.0, 1.0), repeat=WIDTH)))

    def price(reduced):
        found = np.zeros(N_GROUPS + 1)
        for group in range(1, N_GROUPS + 1):
            x = np.zeros((len(reduced), len(corners)))
            x[groups == group] = corners.T
            found[group] = (reduced @ x + size_cost @ np.abs(links @ x)).min()
        return found

    return price


def least_by_primal(program, cost):
    """The same from an independent solver and the primal program."""
    matrix, (lower, upper), free, links, size_cost = program
    one = sp.eye_array(links.shape[0])
    found = milp(
        np.concatenate([cost, size_cost, size_cost]),
        constraints=[
            LinearConstraint(
                sp.hstack([matrix, sp.csc_array((len(lower), 2 * len(size_cost)))]), lower, upper
            ),
            LinearConstraint(sp.hstack([links, -one, one]), 0, 0),
        ],
        bounds=Bounds(
            np.append(np.where(free, -np.inf, 0.0), np.zeros(2 * len(size_cost))), np.inf
        ),
    )
    assert found.status == 0
    return found.fun


def sizes_of(program, x, groups, basic, *, has_prices=True):
    point = x, basic, np.zeros(len(program[1][0]), dtype=np.int8)
    price = price_of(program, groups) if has_prices else None
    return highs.SizesProgram(*program, point, groups, np.ones(len(x)), price)


@pytest.mark.parametrize("gives_up", [False, True])
@pytest.mark.parametrize(("all_in", "has_prices"), [(False, True), (True, True), (True, False)])
@pytest.mark.parametrize("seed", range(8))
def test_least_sizes_are_those_of_the_primal_program(
    seed, all_in, has_prices, gives_up, monkeypatch
):
    program, cost, point, groups = sizes_problem(seed)
    matrix, (lower, upper), free, links, size_cost = program
    monkeypatch.setattr(highs, "_STEPS", 0 if gives_up else highs._STEPS)
    monkeypatch.setattr(highs, "_FEWEST_TAKEN", 1)
    # All columns basic and no row at a limit is no basis, so that it starts elsewhere.
    basic = np.full(len(free), all_in and has_prices)
    sizes = sizes_of(program, point, groups, basic, has_prices=has_prices)
    assert sizes._is_in.all() == all_in
    for other in (cost, 2 * cost[::-1] * ~free, cost):
        expected = least_by_primal(program, other)
        x = sizes.minimise(other)
        assert (x[~free] >= -1e-9).all()
        assert (matrix @ x >= lower - 1e-8).all()
        assert (matrix @ x <= upper + 1e-8).all()
        value = other @ x + size_cost @ np.abs(links @ x)
        assert value == pytest.approx(expected, abs=1e-8)
        bound = sizes.lower_bound(other, np.full(len(free), 100.0))
        assert expected - 1e-6 <= bound <= expected + 1e-8


def test_groups_that_cannot_lower_the_objective_stay_out():
    program, cost, point, groups = sizes_problem(0)
    # Dear ones, all but the first two.
    cost = np.where(groups > 2, 1e3, cost)
    sizes = sizes_of(program, point, groups, np.zeros(len(groups), dtype=bool))
    x = sizes.minimise(cost)
    assert sizes._is_in.sum() <= 3
    value = cost @ x + program[-1] @ np.abs(program[3] @ x)
    assert value == pytest.approx(least_by_primal(program, cost), abs=1e-8)


@pytest.mark.parametrize("has_prices", [False, True])
def test_a_wrong_dual_bounds_too(has_prices, monkeypatch):
    program, cost, point, groups = sizes_problem(3)
    nowhere = np.zeros(len(groups), dtype=bool)
    sizes = sizes_of(program, point, groups, nowhere, has_prices=has_prices)
    x = sizes.minimise(cost)
    expected = least_by_primal(program, cost)
    rng = np.random.default_rng(0)
    for _ in range(20):
        for name in ("_duals", "_link_duals"):
            monkeypatch.setattr(sizes, name, rng.normal(size=getattr(sizes, name).shape))
        assert sizes.lower_bound(cost, np.full(len(x), np.abs(x).max() + 1e-9)) <= expected + 1e-8
