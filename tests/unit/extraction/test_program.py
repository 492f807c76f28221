"""Extraction: optimality, uniqueness, invariances, and errors."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from sft_interactions.extraction import highs, interior_point
from sft_interactions.extraction import program as extraction

REAL_V = Path(__file__).parents[3] / "benchmarks" / "extraction_v.npz"


@pytest.fixture(scope="module")
def real_v():
    """Log-odds of SmolLM2 on masked tweets, {n: (problems, 2^n)}."""
    with np.load(REAL_V) as archive:
        return {int(name[1:]): archive[name].astype(np.float64) for name in archive}


def random_v(seed, n, batch=1):
    """Something like a model: low orders dominate, and there is noise on every mask."""
    rng = np.random.default_rng(seed)
    size = 1 << n
    decay = 0.5 ** np.array([mask.bit_count() for mask in range(size)])
    effects = rng.normal(size=(2, batch, size)) * decay
    effects[:, :, 0] = 0
    phi = extraction.reconstruct(rng.normal(size=batch), effects[0], effects[1])
    return phi + 0.01 * rng.normal(size=phi.shape)


def naive_phi(bias, and_effects, or_effects):
    """The logical model, arXiv 2605.17967 Eq. 2-3, as it is written."""
    size = len(and_effects)
    return np.array(
        [
            bias
            + sum(and_effects[t] for t in range(1, size) if t & s == t)
            + sum(or_effects[t] for t in range(1, size) if t & s)
            for s in range(size)
        ]
    )


def dense_optimum(v, bound, and_weights, or_weights):
    """The objective by another solver call and another, direct form of the program."""
    size = len(v)
    masks = np.arange(1, size)
    rows = np.arange(size)[:, None]
    a = np.hstack([(rows & masks) == masks, (rows & masks) != 0]).astype(float)
    full = np.hstack([a, -a, np.ones((size, 1)), -np.ones((size, 1))])
    weights = np.concatenate([and_weights[1:], or_weights[1:]])
    result = linprog(
        np.concatenate([weights, weights, [0, 0]]),
        A_ub=np.vstack([full, -full]),
        b_ub=np.concatenate([v + bound, bound - v]),
    )
    assert result.status == 0
    return result.fun


def assert_same(a, b, atol=1e-9):
    np.testing.assert_array_equal(a.and_effects != 0, b.and_effects != 0)
    np.testing.assert_array_equal(a.or_effects != 0, b.or_effects != 0)
    np.testing.assert_allclose(a.and_effects, b.and_effects, atol=atol)
    np.testing.assert_allclose(a.or_effects, b.or_effects, atol=atol)
    np.testing.assert_allclose(a.bias, b.bias, atol=atol)


def relative_gap(result):
    return (result.l1 - result.l1_lower_bound) / result.l1


def test_reconstruct_is_the_logical_model():
    rng = np.random.default_rng(0)
    and_effects, or_effects = rng.normal(size=(2, 3, 16))
    and_effects[:, 0] = or_effects[:, 0] = 0
    bias = rng.normal(size=3)
    expected = [naive_phi(*problem) for problem in zip(bias, and_effects, or_effects, strict=True)]
    np.testing.assert_allclose(
        extraction.reconstruct(bias, and_effects, or_effects), expected, atol=1e-12
    )


@pytest.mark.parametrize("noise_ratio", [0.0, 0.04, 0.3])
@pytest.mark.parametrize("n", [2, 3, 4])
def test_optimum_of_a_direct_formulation(n, noise_ratio):
    v = np.concatenate([random_v(n, n, 3), np.random.default_rng(n).normal(size=(3, 1 << n))])
    result = extraction.extract(v, noise_ratio=noise_ratio)
    for row, (problem, bound) in enumerate(zip(v, result.noise_bound, strict=True)):
        # OR singletons cost more than AND ones here, so leaving them in changes nothing.
        expected = dense_optimum(problem, bound, *extraction.tie_break_weights(n, "canonical"))
        assert result.l1[row] == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("n", [8, 10])
def test_certificate_and_bound_on_real_v(real_v, n):
    result = extraction.extract(real_v[n])
    assert (relative_gap(result) < 1e-9).all()
    assert (relative_gap(result) >= 0).all()
    phi = extraction.reconstruct(result.bias, result.and_effects, result.or_effects)
    residual = np.abs(phi - real_v[n]).max(axis=1)
    assert (residual <= result.noise_bound * (1 + 1e-9)).all()
    np.testing.assert_allclose(result.max_residual, residual)
    spread = np.abs(real_v[n][:, -1] - real_v[n][:, 0])
    np.testing.assert_allclose(result.noise_bound, 0.04 * spread)
    np.testing.assert_allclose(
        result.l1_plain, np.abs(result.and_effects).sum(1) + np.abs(result.or_effects).sum(1)
    )


def test_tie_break_costs_less_than_1e5(real_v):
    v = real_v[8]
    plain = extraction.extract(v, tie_break="plain", solver="simplex")
    canonical = extraction.extract(v)
    assert (canonical.l1_plain <= plain.l1_lower_bound * (1 + 1e-5)).all()


def test_alternative_tie_breaks_are_other_optima(real_v):
    v = real_v[8]
    results = {name: extraction.extract(v, tie_break=name) for name in extraction.TIE_BREAKS}
    canonical = results["canonical"]
    for name, result in results.items():
        np.testing.assert_allclose(result.l1_plain, canonical.l1_plain, rtol=1e-5)
        if name not in ("canonical", "plain"):
            assert not np.allclose(result.and_effects, canonical.and_effects, atol=1e-6)


@pytest.mark.parametrize("solver", ["simplex", "ipm"])
def test_same_answer_of_every_solver(real_v, solver):
    ours = extraction.extract(real_v[8])
    assert_same(ours, extraction.extract(real_v[8], solver=solver))


def test_same_answer_of_highs_on_ten_players(real_v):
    v = real_v[10][:1]
    assert_same(extraction.extract(v), extraction.extract(v, solver="ipm"))


def test_same_answer_of_any_column_order(real_v):
    v = real_v[8][1]
    v = (v - v.mean()) / np.ptp(v)
    bound = 0.04 * abs(v[-1] - v[0])
    mask = interior_point.effect_mask(8)
    weights = np.stack(extraction.tie_break_weights(8, "canonical"))[mask]
    straight = highs.solve(v, bound, weights)[0]
    for seed in range(2):
        order = np.random.default_rng(seed).permutation(len(weights))
        permuted = highs.solve(v, bound, weights, column_order=order)[0]
        np.testing.assert_allclose(permuted, straight, atol=1e-9)


@pytest.mark.parametrize("n", [8, 10])
def test_same_answer_in_any_batch(real_v, n):
    v = real_v[n][:4]
    together = extraction.extract(v)
    alone = [extraction.extract(row[None]) for row in v]
    repeated = extraction.extract(np.concatenate([v[::-1]] * 5))
    for name in ("and_effects", "or_effects", "bias"):
        one_by_one = np.concatenate([getattr(result, name) for result in alone])
        np.testing.assert_allclose(getattr(together, name), one_by_one, atol=1e-9)
        np.testing.assert_array_equal(getattr(together, name) != 0, one_by_one != 0)
        back = getattr(repeated, name)[-4:][::-1]
        np.testing.assert_allclose(getattr(together, name), back, atol=1e-9)


def test_same_answer_with_any_number_of_threads(real_v, tmp_path):
    np.save(tmp_path / "v.npy", real_v[10][:2])
    code = (
        "import sys, numpy as np; from sft_interactions.extraction import program;"
        "r = program.extract(np.load(sys.argv[1]));"
        "np.save(sys.argv[2], np.stack([r.and_effects, r.or_effects]))"
    )
    answers = []
    for threads in ("1", "2"):
        out = tmp_path / f"{threads}.npy"
        environment = {**os.environ, "OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
        environment["PYTHONPATH"] = str(Path(extraction.__file__).parents[2])
        subprocess.run(
            [sys.executable, "-c", code, tmp_path / "v.npy", out], check=True, env=environment
        )
        answers.append(np.load(out))
    np.testing.assert_array_equal(answers[0] != 0, answers[1] != 0)
    np.testing.assert_allclose(answers[0], answers[1], atol=1e-9)


seeds = st.integers(0, 2**32 - 1)
few = settings(derandomize=True, max_examples=25, deadline=None)


@few
@given(seeds, st.integers(2, 6), st.floats(1e-3, 1e3), st.floats(-100, 100))
def test_homogeneous_and_blind_to_constants(seed, n, factor, constant):
    v = random_v(seed, n)
    result = extraction.extract(v)
    other = extraction.extract(factor * v + constant)
    atol = 1e-9 * factor * np.ptp(v)
    np.testing.assert_allclose(other.and_effects, factor * result.and_effects, atol=atol)
    np.testing.assert_allclose(other.or_effects, factor * result.or_effects, atol=atol)
    np.testing.assert_allclose(
        other.bias, factor * result.bias + constant, atol=1e-9 * factor + 1e-9 * abs(constant)
    )


@few
@given(seeds, st.integers(2, 6), st.randoms(use_true_random=False))
def test_objective_does_not_depend_on_the_names_of_the_players(seed, n, random):
    v = random_v(seed, n)
    order = list(range(n))
    random.shuffle(order)
    renamed = [sum((mask >> k & 1) << order[k] for k in range(n)) for mask in range(1 << n)]
    w = np.empty_like(v)
    w[:, renamed] = v
    # The canonical answer is plainly optimal to 1e-5; only its tie-break knows names.
    np.testing.assert_allclose(
        extraction.extract(v).l1_plain, extraction.extract(w).l1_plain, rtol=1e-5
    )


@few
@given(seeds, st.integers(2, 6), st.sampled_from([0.0, 0.01, 0.04, 0.2]))
def test_solutions_are_certified(seed, n, noise_ratio):
    v = random_v(seed, n)
    result = extraction.extract(v, noise_ratio=noise_ratio)
    assert result.l1[0] - result.l1_lower_bound[0] <= 1e-9 * max(result.l1[0], np.ptp(v))
    assert result.max_residual[0] <= result.noise_bound[0] + 1e-9 * np.ptp(v)
    assert (result.or_effects[:, [0, *(1 << k for k in range(n))]] == 0).all()
    assert result.and_effects[0, 0] == 0


def planted(seed, n, n_effects):
    rng = np.random.default_rng(seed)
    and_effects, or_effects = np.zeros((2, 1, 1 << n))
    candidates = np.array([mask for mask in range(1, 1 << n) if mask.bit_count() in (1, 2)])
    and_effects[0, rng.choice(candidates, n_effects, replace=False)] = rng.normal(size=n_effects)
    pairs = candidates[[mask.bit_count() > 1 for mask in candidates]]
    or_effects[0, rng.choice(pairs, 1)] = 2 + rng.random()
    return and_effects, or_effects, rng.normal(size=1)


@few
@given(seeds, st.integers(2, 6), st.sampled_from([0.0, 0.04]))
def test_pivots_lead_from_any_vertex_to_the_optimum(seed, n, noise_ratio):
    v = random_v(seed, n)[0]
    v = (v - v.mean()) / np.ptp(v)
    bound = noise_ratio * abs(v[-1] - v[0])
    weights = np.stack(extraction.tie_break_weights(n, "canonical"))
    other = np.random.default_rng(seed).uniform(0.2, 1.0, weights.shape)
    (start,), _ = interior_point.solve(v[None], np.array([bound]), other)
    (best,), _ = interior_point.solve(v[None], np.array([bound]), weights)
    found = interior_point.improve_vertex(v, bound, weights, start, max_pivots=2000)
    assert max(found.gap, found.excess) < 1e-9
    np.testing.assert_allclose(found.effects, best.effects, atol=1e-9)


@pytest.mark.parametrize("size", [1, 2, 63, 64, 65, 128, 200])
def test_tiled_cholesky_factor(size):
    rng = np.random.default_rng(size)
    root = rng.normal(size=(size, size))
    matrix, added, rhs = root @ root.T, rng.uniform(1, 2, size), rng.normal(size=size)

    def factorise(factor):
        return interior_point.TiledCholesky(
            np.arange(size), lambda a, b: matrix[a, b], added, factor, tile=64
        )

    solution = factorise(1.5).solve(rhs)
    whole = matrix.copy()
    whole[np.diag_indices(size)] = 1.5 * (np.diag(matrix) + added)
    np.testing.assert_allclose(whole @ solution, rhs, atol=1e-10)
    with pytest.raises(np.linalg.LinAlgError, match="not positive definite"):
        factorise(-1.0)


def test_a_nearly_degenerate_problem_needs_no_second_try(real_v):
    v = real_v[12][2]
    noise = np.random.default_rng(0).normal(size=(8, 1 << 12))[5]
    v = v + 1e-3 * abs(v[-1] - v[0]) * noise
    solved = extraction.extract(v[None])
    assert solved.iterations[0] < 60
    assert relative_gap(solved)[0] < 1e-9


@few
@given(seeds, st.integers(3, 6), st.sampled_from([0.0, 0.04]))
def test_never_above_a_planted_model(seed, n, noise_ratio):
    and_effects, or_effects, bias = planted(seed, n, 3)
    v = extraction.reconstruct(bias, and_effects, or_effects)
    result = extraction.extract(v, noise_ratio=noise_ratio)
    l1 = np.abs(and_effects).sum() + np.abs(or_effects).sum()
    assert result.l1_plain[0] <= l1 * (1 + 1e-5)


def test_recovers_a_planted_model():
    # φ determines these five effects: its one conjunction and one disjunction share no player.
    and_effects, or_effects = np.zeros((2, 1, 32))
    and_effects[0, [1, 2, 8]], and_effects[0, 3] = [0.7, -0.4, 0.5], 1.3
    or_effects[0, 12] = 2.1
    v = extraction.reconstruct([-3.0], and_effects, or_effects)
    result = extraction.extract(v, noise_ratio=0.0)
    np.testing.assert_allclose(result.and_effects, and_effects, atol=1e-9)
    np.testing.assert_allclose(result.or_effects, or_effects, atol=1e-9)
    np.testing.assert_allclose(result.bias, -3.0, atol=1e-9)
    np.testing.assert_array_equal(result.and_effects != 0, and_effects != 0)


def test_order_one_is_kept_in_and():
    size = 16
    v = np.array([[0.5 * (mask & 1) - 2.0 * (mask >> 2 & 1) + 1.0 for mask in range(size)]])
    result = extraction.extract(v, noise_ratio=0.0)
    np.testing.assert_allclose(result.and_effects[0, [1, 4]], [0.5, -2.0], atol=1e-12)
    assert np.count_nonzero(result.and_effects) == 2
    assert not result.or_effects.any()
    assert result.bias[0] == pytest.approx(1.0)


def test_constant_v_has_only_a_bias():
    result = extraction.extract(np.full((2, 16), [[-3.25], [0.0]]))
    assert not result.and_effects.any()
    assert not result.or_effects.any()
    np.testing.assert_array_equal(result.bias, [-3.25, 0.0])
    for name in ("l1", "l1_lower_bound", "l1_plain", "noise_bound", "max_residual"):
        np.testing.assert_array_equal(getattr(result, name), [0.0, 0.0])


def test_equal_ends_ask_for_an_exact_fit():
    v = random_v(0, 5)
    v[0, -1] = v[0, 0]
    result = extraction.extract(v)
    assert result.noise_bound[0] == 0
    assert result.max_residual[0] < 1e-12
    assert relative_gap(result)[0] < 1e-9


def test_wide_bound_leaves_nothing_to_explain():
    v = random_v(1, 4)
    v[0, -1] = v.max()
    v[0, 0] = v.min()
    result = extraction.extract(v, noise_ratio=0.5)
    assert result.l1[0] == 0
    assert result.max_residual[0] <= result.noise_bound[0] + 1e-12


def test_errors_name_what_is_wrong():
    v = random_v(0, 4, batch=3)
    for bad in (np.nan, np.inf):
        broken = v.copy()
        broken[1, 5] = bad
        with pytest.raises(ValueError, match=r"v\[1\] is (nan|inf) at mask 5"):
            extraction.extract(broken)
    with pytest.raises(ValueError, match="power of two"):
        extraction.extract(v[:, :-1])
    with pytest.raises(ValueError, match="1 players"):
        extraction.extract(np.zeros((1, 2)))
    with pytest.raises(ValueError, match="17 players"):
        extraction.extract(np.zeros((1, 1 << 17)))
    with pytest.raises(ValueError, match="shape"):
        extraction.extract(v[0])
    with pytest.raises(ValueError, match="tie-break"):
        extraction.extract(v, tie_break="alphabetical")
    with pytest.raises(ValueError, match="solver"):
        extraction.extract(v, solver="sgd")
    for ratio in (-0.1, np.nan):
        with pytest.raises(ValueError, match="noise_ratio"):
            extraction.extract(v, noise_ratio=ratio)


def test_highs_names_a_rejected_option():
    with pytest.raises(RuntimeError, match="solver='gradient descent'"):
        highs.solve(np.arange(4.0), 0.1, np.ones(4), method="gradient descent")
