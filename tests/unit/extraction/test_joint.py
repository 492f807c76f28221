from dataclasses import fields
from itertools import pairwise, product

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.optimize import linprog

from sft_interactions.extraction import extract, highs, joint
from sft_interactions.extraction.certificate import effect_mask
from sft_interactions.extraction.highs import design_matrix
from sft_interactions.extraction.joint import extract_joint
from sft_interactions.extraction.optima import optimal_sets
from sft_interactions.extraction.program import Extraction


def chain_of_tables(n, n_steps, n_samples, seed, whole=False):
    """Tables that move from one to another; differently far for every sample."""
    rng = np.random.default_rng([n, seed])
    shape = (2, n_samples, 1 << n)
    ends = rng.integers(-3, 4, shape) if whole else rng.normal(size=shape).cumsum(axis=-1)
    path = np.linspace(0, 1, n_steps)[:, None, None]
    tables = ends[0] + path * ends[1] * np.arange(1, n_samples + 1)[:, None]
    return list(np.round(tables) if whole else tables)


def effects_of(checkpoints):
    return np.stack([np.stack([c.and_effects, c.or_effects], axis=1) for c in checkpoints])


def changes(effects):
    return np.abs(np.stack([[b - a, b - effects[0]] for a, b in pairwise(effects)])).sum(
        axis=(0, 1, 3, 4)
    )


def least_change(tables, bounds, norms):
    """Σ_t |x_t − x_{t−1}|₁ + |x_t − x_0|₁ at its least, from all variables of all checkpoints at once."""
    design = design_matrix(int(np.log2(len(tables[0]))))
    n_effects = design.shape[1] - 1
    both = sp.hstack([design[:, :-1], -design[:, :-1], design[:, [-1]]])
    norm = np.append(np.ones(2 * n_effects), 0.0)
    one = sp.vstack([both, -both, sp.csr_array(norm[None])])
    eye = sp.eye_array(n_effects)
    x = sp.hstack([eye, -eye, sp.csr_array((n_effects, 1))])
    n_steps = len(tables)
    of_steps = sp.block_diag([one] * n_steps)
    later = sp.block_diag([x] * n_steps).tocsr()
    first = sp.vstack([later[:n_effects]] * (n_steps - 1))
    steps = sp.vstack([later[n_effects:] - later[:-n_effects], later[n_effects:] - first])
    sizes = sp.eye_array(steps.shape[0])
    matrix = sp.block_array([[of_steps, None], [steps, -sizes], [-steps, -sizes]]).tocsr()
    limits = np.concatenate(
        [
            part
            for v, bound, largest in zip(tables, bounds, norms, strict=True)
            for part in (v + bound, bound - v, [largest])
        ]
        + [np.zeros(2 * steps.shape[0])]
    )
    cost = np.concatenate([np.zeros(of_steps.shape[1]), np.ones(steps.shape[0])])
    variables = ([(0, None)] * (2 * n_effects) + [(None, None)]) * n_steps
    solved = linprog(cost, matrix, limits, bounds=variables + [(0, None)] * steps.shape[0])
    assert solved.status == 0
    return solved.fun


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("n", [2, 3, 4])
def test_the_change_is_the_least_of_an_independent_solver(n, whole):
    tables = chain_of_tables(n, 4, 3, 0, whole)
    solved = [extract(v) for v in tables]
    joint = extract_joint(tables, solved)
    for i in range(3):
        expected = least_change(
            [v[i] for v in tables],
            [s.noise_bound[i] for s in solved],
            [s.l1_plain[i] * (1 + 1e-6) for s in solved],
        )
        # What is left out as negligible may be so much.
        limit = 1e-4 * sum(s.l1_plain[i] for s in solved)
        assert joint.change[i] == pytest.approx(expected, abs=limit)
        assert joint.change_lower_bound[i] == pytest.approx(expected, abs=limit)


@pytest.mark.parametrize(
    "n", [3, 4, pytest.param(6, marks=pytest.mark.slow), pytest.param(7, marks=pytest.mark.slow)]
)
def test_every_checkpoint_keeps_its_norm_and_its_noise_bound(n):
    tables = chain_of_tables(n, 5, 3, 1)
    solved = [extract(v) for v in tables]
    joint = extract_joint(tables, solved)
    assert (joint.change <= joint.given_change * (1 + 1e-9)).all()
    assert (joint.change_lower_bound <= joint.change * (1 + 1e-9)).all()
    assert (joint.change_lower_bound >= joint.change * (1 - 1e-5)).all()
    np.testing.assert_allclose(joint.given_change, changes(effects_of(solved)))
    np.testing.assert_allclose(joint.change, changes(effects_of(joint.checkpoints)))
    for before, after in zip(solved, joint.checkpoints, strict=True):
        assert (after.l1_plain <= before.l1_plain * (1 + 2e-6)).all()
        assert (after.max_residual <= before.noise_bound + 1e-7 * before.l1_plain).all()
        assert not after.or_effects[:, ~effect_mask(n)[1]].any()


def test_some_changes_are_of_the_choice_alone():
    # The second table has one more than the first where both players are present. It can be read as the
    # first with another AND; the norms, 1.5 and 2.5, do not allow less.
    tables = [np.array([[0.0, 1.0, 1.0, 1.5]]), np.array([[0.0, 1.0, 1.0, 2.5]])]
    solved = [extract(v, noise_ratio=0.0) for v in tables]
    joint = extract_joint(tables, solved)
    # The two are neighbours, and the first one of them is the first of the run.
    assert joint.change[0] == pytest.approx(2 * 1.0, abs=1e-4)
    assert joint.given_change[0] >= joint.change[0]


def test_checkpoints_that_are_equal_do_not_change():
    table = chain_of_tables(4, 1, 2, 2)[0]
    joint = extract_joint([table] * 3, [extract(table)] * 3)
    np.testing.assert_allclose(joint.change, 0.0, atol=1e-9)


@pytest.mark.parametrize("n", [3, 5, pytest.param(7, marks=pytest.mark.slow)])
def test_a_copy_of_the_first_checkpoint_between_others_has_its_interactions(n):
    start, *others = chain_of_tables(n, 4, 3, 7)
    tables = [start, *others, start, others[1]]
    found = extract_joint(tables, [extract(v) for v in tables]).checkpoints
    assert np.abs(found[1].effects - found[0].effects).max() > 0.01
    np.testing.assert_allclose(found[4].effects, found[0].effects, atol=1e-7)


def least_change_with_equal(tables, solved, pair):
    """The least sum of changes if two checkpoints have the same interactions."""
    both = extract_joint(
        tables, solved, compared=lambda n: [*joint.neighbours_and_first(n), *[pair] * 100]
    )
    effects = effects_of(both.checkpoints)
    np.testing.assert_allclose(effects[pair[1]], effects[pair[0]], atol=1e-6)
    return changes(effects)


@pytest.mark.parametrize("pair", [(0, 1), (2, 3), (4, 5), (0, 5)])
@pytest.mark.parametrize("seed", range(4))
def test_a_copy_right_after_a_checkpoint_or_of_the_first_at_the_end_costs_no_change(pair, seed):
    # Whole numbers, so that there are many optima to choose from.
    tables = chain_of_tables(3, 5, 6, 20 + seed, whole=True)
    tables.insert(pair[1], tables[pair[0]])
    solved = [extract(v, noise_ratio=0) for v in tables]
    least = extract_joint(tables, solved).change
    np.testing.assert_allclose(least_change_with_equal(tables, solved, pair), least, rtol=1e-4)


def test_a_copy_between_two_others_may_differ_from_the_first():
    def table(ands, ors=()):
        kept = np.arange(8)
        present = [(kept & mask) == mask for mask in ands] + [(kept & mask) > 0 for mask in ors]
        return np.sum(present, axis=0, dtype=float)[None]

    # Both {1, 2, 3, 123} as AND and {12, 13, 23} as AND with {123} as OR are optima of the first.
    start, rest, aside = table([1, 2, 4, 7]), table([1, 7]), table([3], [7])
    tables = [start, rest, rest, rest, aside, start, aside, rest, rest]
    solved = [extract(v, noise_ratio=0) for v in tables]
    found = extract_joint(tables, solved)
    effects = effects_of(found.checkpoints)
    np.testing.assert_allclose(found.change_lower_bound, found.change, rtol=1e-4)
    assert np.abs(effects[5] - effects[0]).sum() > 1
    assert least_change_with_equal(tables, solved, (0, 5)) > found.change + 1


@pytest.mark.parametrize("whole", [False, True])
def test_what_changes_as_little_is_chosen_by_the_tie_break_and_not_by_rounding(whole):
    tables = chain_of_tables(5, 4, 3, 8, whole)
    rng = np.random.default_rng(9)
    other = [v + 1e-9 * rng.normal(size=v.shape) for v in tables]
    found = {
        name: [
            effects_of(extract_joint(of, [extract(v) for v in of], tie_break=name).checkpoints)
            for of in (tables, other)
        ]
        for name in ("canonical", "high_order")
    }
    for own, rounded in found.values():
        np.testing.assert_allclose(own, rounded, atol=1e-4)
    low, high = (pair[0] for pair in found.values())
    np.testing.assert_allclose(changes(low), changes(high), rtol=1e-5)
    assert np.abs(low - high).max() > 0.01


def test_one_checkpoint_alone_has_nothing_to_change():
    table = chain_of_tables(4, 1, 2, 10)[0]
    solved = extract(table)
    joint = extract_joint([table], [solved])
    assert joint.change.tolist() == joint.change_lower_bound.tolist() == [0.0, 0.0]
    np.testing.assert_allclose(joint.checkpoints[0].l1_plain, solved.l1_plain, rtol=2e-6)


def test_a_checkpoint_without_effects():
    tables = [np.full((1, 8), 3.0), chain_of_tables(3, 1, 1, 3)[0], np.full((1, 8), -1.0)]
    solved = [extract(v) for v in tables]
    joint = extract_joint(tables, solved)
    assert not effects_of(joint.checkpoints)[[0, 2]].any()
    assert joint.checkpoints[0].bias[0] == pytest.approx(3.0)
    assert joint.change[0] == pytest.approx(3 * solved[1].l1_plain[0], rel=1e-4)
    constant = extract_joint([tables[0]] * 2, [solved[0]] * 2)
    assert constant.change[0] == constant.change_lower_bound[0] == 0.0


def test_the_answer_does_not_depend_on_the_batch():
    tables = chain_of_tables(4, 3, 3, 4)
    together = extract_joint(tables, [extract(v) for v in tables])
    for i in range(3):
        own = [v[[i]] for v in tables]
        alone = extract_joint(own, [extract(v) for v in own])
        for one, of_all in zip(alone.checkpoints, together.checkpoints, strict=True):
            for field in fields(one):
                np.testing.assert_allclose(
                    getattr(one, field.name), getattr(of_all, field.name)[[i]], atol=1e-9
                )


def test_progress_is_reported_by_sample():
    tables = chain_of_tables(3, 2, 3, 5)
    counted = []
    extract_joint(tables, [extract(v) for v in tables], progress=counted.append)
    assert counted == [1, 1, 1]


def test_wrong_arguments_of_joint_extraction():
    tables = chain_of_tables(3, 2, 1, 6)
    solved = [extract(v) for v in tables]
    for values, solutions in ([], []), (tables, solved[:1]), ([tables[0], tables[1][:0]], solved):
        with pytest.raises(ValueError, match="one solution a checkpoint"):
            extract_joint(values, solutions)
    with pytest.raises(ValueError, match="must be finite"):
        extract_joint(tables, solved, tolerance=-1.0)
    with pytest.raises(ValueError, match="unknown tie-break"):
        extract_joint(tables, solved, tie_break="mine")


def run_of(compared, n=4, n_steps=5):
    values = chain_of_tables(n, n_steps, 1, seed=1, whole=True)
    solved = Extraction.join([extract(v) for v in values])
    sets = list(optimal_sets(np.concatenate(values), solved, 1e-6))
    return joint._Run(sets, np.ones((2, 1 << n)), compared(n_steps))


@pytest.mark.parametrize("compared", [joint.neighbours, joint.neighbours_and_first])
def test_prices_step_by_step_are_those_of_all_corners(compared):
    run = run_of(compared)
    assert run._has_prices
    reduced = np.random.default_rng(0).normal(size=run.offsets[-1])
    expected = np.zeros(run._n_groups)
    prices = np.full((5, run._n_groups), joint._NOT_THERE)
    for t, (offset, one) in enumerate(zip(run.offsets, run.sets, strict=False)):
        own = slice(offset, offset + len(one.columns))
        prices[t, run._groups[own]] = reduced[own] * run.unit / one.unit
    for corner in product((0.0, 1.0), repeat=5):
        total = corner @ prices
        for (s, t), cost in run._costs_of.items():
            total += cost * abs(corner[t] - corner[s])
        expected = np.minimum(expected, total)
    np.testing.assert_allclose(run._price(reduced), expected, atol=1e-12)
    assert (expected < 0).any()
    # Links make a difference.
    assert (expected > prices.clip(max=0).sum(axis=0)).any()


def test_pairs_that_are_no_chain_have_no_prices():
    assert not run_of(joint.every_pair)._has_prices


@pytest.mark.parametrize("tolerance", [1e-6, 1e-4, 1e-2])
@pytest.mark.parametrize("whole", [False, True])
def test_the_answer_does_not_depend_on_the_effects_that_it_begins_with(
    tolerance, whole, monkeypatch
):
    """Of a large tolerance an effect may have either sign in near-optimal points."""
    values = chain_of_tables(6, 5, 2, seed=2, whole=whole)
    solved = [extract(v) for v in values]
    found = []
    for share, taken in ((0.0, 1), (1.0, 1), (1.0, 1000)):
        monkeypatch.setattr(highs, "_MOST_OF_GROUPS", share)
        monkeypatch.setattr(highs, "_FEWEST_TAKEN", taken)
        found.append(extract_joint(values, solved, tolerance=tolerance))
    for other in found:
        np.testing.assert_allclose(other.change, found[0].change, rtol=1e-6, atol=1e-8)
        assert (other.change_lower_bound <= other.change * (1 + 1e-9)).all()
        np.testing.assert_allclose(other.change_lower_bound, other.change, rtol=1e-3, atol=1e-6)
        np.testing.assert_allclose(
            effects_of(other.checkpoints), effects_of(found[0].checkpoints), atol=1e-7
        )


def test_of_a_larger_tolerance_no_more_needs_to_change():
    values = chain_of_tables(5, 4, 3, seed=3)
    solved = [extract(v) for v in values]
    changes_of = [
        extract_joint(values, solved, tolerance=tolerance).change
        for tolerance in (0.0, 1e-6, 1e-5, 2e-5, 1e-4, 1e-3, 1e-2)
    ]
    assert (np.diff(changes_of, axis=0) <= 1e-7).all()
