import numpy as np
import pytest
import scipy.sparse as sp
from scipy.optimize import linprog

from sft_interactions.extraction import extract, iteration
from sft_interactions.extraction.certificate import effect_mask
from sft_interactions.extraction.highs import design_matrix
from sft_interactions.extraction.ranges import effect_ranges


def stacked(solved):
    return np.stack([solved.and_effects, solved.or_effects], axis=1)


def random_tables(n, n_problems, seed):
    """Half of them like real ones, half sparse and degenerate."""
    rng = np.random.default_rng([n, seed])
    dense = rng.normal(size=(n_problems, 1 << n)).cumsum(axis=1)
    whole = rng.integers(-3, 4, size=(n_problems, 1 << n)).astype(float)
    return np.concatenate([dense, whole])


def by_linprog(v, bound, largest_norm, effect):
    """Least and largest value of an effect, from all variables of the program at once."""
    design = design_matrix(int(np.log2(len(v))))
    n_effects = design.shape[1] - 1
    both = sp.hstack([design[:, :-1], -design[:, :-1], design[:, [-1]]]).tocsr()
    norm = np.append(np.ones(2 * n_effects), 0.0)
    matrix = sp.vstack([both, -both, sp.csr_array(norm[None])])
    limits = np.concatenate([v + bound, bound - v, [largest_norm]])
    cost = np.zeros(2 * n_effects + 1)
    cost[effect], cost[n_effects + effect] = 1.0, -1.0
    free = [(0, None)] * (2 * n_effects) + [(None, None)]
    least, largest = (linprog(s * cost, matrix, limits, bounds=free) for s in (1, -1))
    assert least.status == largest.status == 0
    return least.fun, -largest.fun


@pytest.mark.slow
@pytest.mark.parametrize("tolerance", [1e-6, 1e-3])
@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_ranges_are_those_of_an_independent_solver(n, tolerance):
    v = random_tables(n, 2, 0)
    solved = extract(v)
    mask = effect_mask(n)
    wanted = np.broadcast_to(mask, stacked(solved).shape)
    found = effect_ranges(v, solved, wanted, tolerance=tolerance)
    for i, norm in enumerate(solved.l1_plain):
        for place, flat in enumerate(np.flatnonzero(mask)[::3]):
            least, largest = by_linprog(
                v[i], solved.noise_bound[i], norm * (1 + tolerance), 3 * place
            )
            # What is left out as negligible may be so much.
            assert found.low[i].flat[flat] == pytest.approx(least, abs=1e-4 * norm)
            assert found.high[i].flat[flat] == pytest.approx(largest, abs=1e-4 * norm)
            assert found.sign_certain[i].flat[flat] == (
                max(least, -largest) > tolerance * norm * (1 + tolerance)
            )


@pytest.mark.parametrize("tie_break", ["hash-1", "prefer_or"])
@pytest.mark.parametrize("n", [3, 5])
def test_every_optimum_is_within_the_ranges(n, tie_break):
    v = random_tables(n, 4, 1)
    solved = extract(v)
    wanted = np.broadcast_to(effect_mask(n), stacked(solved).shape)
    found = effect_ranges(v, solved, wanted)
    other = extract(v, tie_break=tie_break)
    equal = other.l1_plain <= solved.l1_plain * (1 + 1e-9)
    assert equal.any()
    slack = 1e-5 * solved.l1_plain[:, None, None]
    for optimum in (stacked(other), stacked(solved)):
        inside = (found.low - slack <= optimum) & (optimum <= found.high + slack)
        assert inside[equal][:, effect_mask(n)].all()


def test_a_certain_sign_is_that_of_every_optimum():
    # The AND of players 0 and 1 alone: nothing as sparse explains it.
    v = np.zeros((1, 8))
    v[0, [3, 7]] = 1.0
    solved = extract(v, noise_ratio=0.0)
    found = effect_ranges(v, solved, stacked(solved) != 0)
    assert found.sign_certain[0, 0, 3]
    assert found.low[0, 0, 3] == pytest.approx(1.0, abs=1e-5)
    assert found.high[0, 0, 3] == pytest.approx(1.0, abs=1e-5)


def test_two_readings_of_one_table_leave_a_sign_open():
    # Half of each player and half of their OR, or half of their AND and all of their OR: both have a
    # norm of 1.5, and nothing has less.
    v = np.array([[0.0, 1.0, 1.0, 1.5]])
    solved = extract(v, noise_ratio=0.0)
    wanted = np.broadcast_to(effect_mask(2), (1, 2, 4))
    found = effect_ranges(v, solved, wanted)
    assert solved.l1_plain[0] == pytest.approx(1.5)
    np.testing.assert_allclose(found.low[0, 0, 1:], [0.0, 0.0, 0.0], atol=1e-5)
    np.testing.assert_allclose(found.high[0, 0, 1:], [0.5, 0.5, 0.5], atol=1e-5)
    assert found.low[0, 1, 3] == pytest.approx(0.5, abs=1e-5)
    assert found.high[0, 1, 3] == pytest.approx(1.0, abs=1e-5)
    assert found.sign_certain.sum() == found.sign_certain[0, 1, 3] == 1


def test_effects_that_are_not_asked_for_are_nan():
    v = random_tables(3, 1, 2)
    solved = extract(v)
    wanted = np.zeros(stacked(solved).shape, dtype=bool)
    wanted[0, 0, 1] = True
    found = effect_ranges(v, solved, wanted)
    assert np.isfinite(found.low).sum() == np.isfinite(found.high).sum() == 1
    assert not found.sign_certain[~wanted].any()


def test_a_constant_table_has_no_effect_in_any_reading():
    v = np.full((1, 8), 2.0)
    solved = extract(v)
    wanted = np.broadcast_to(effect_mask(3), (1, 2, 8))
    counted = []
    found = effect_ranges(v, solved, wanted, progress=counted.append)
    assert not np.nan_to_num(found.low).any()
    assert not np.nan_to_num(found.high).any()
    assert not found.sign_certain.any()
    assert sum(counted) == 1


def test_ranges_do_not_need_the_interior_point(monkeypatch):
    v = random_tables(4, 2, 3)
    solved = extract(v)
    wanted = np.broadcast_to(effect_mask(4), stacked(solved).shape)
    expected = effect_ranges(v, solved, wanted)
    monkeypatch.setattr(iteration, "solve", lambda v, *_, **__: ([None] * len(v), None))
    found = effect_ranges(v, solved, wanted)
    np.testing.assert_allclose(found.low, expected.low, atol=1e-4 * solved.l1_plain.max())
    np.testing.assert_allclose(found.high, expected.high, atol=1e-4 * solved.l1_plain.max())
    np.testing.assert_array_equal(found.sign_certain, expected.sign_certain)


@pytest.mark.parametrize(
    ("shape", "tolerance", "message"),
    [((1, 2, 4), 1e-6, "do not fit together"), ((1, 2, 8), -1.0, "must be finite")],
)
def test_wrong_arguments_of_ranges(shape, tolerance, message):
    v = random_tables(3, 1, 4)[:1]
    with pytest.raises(ValueError, match=message):
        effect_ranges(v, extract(v), np.ones(shape, dtype=bool), tolerance=tolerance)
