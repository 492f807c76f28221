"""Extraction: optimality, uniqueness, invariances, retries, and errors."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from sft_interactions.extraction import extract, highs, iteration, program, reconstruct
from sft_interactions.extraction.program import NOISE_SCALES, noise_bounds
from sft_interactions.extraction.tie_break import TIE_BREAKS, tie_break_weights


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
    np.testing.assert_allclose(reconstruct(bias, and_effects, or_effects), expected, atol=1e-12)


@pytest.mark.parametrize("noise_ratio", [0.0, 0.04, 0.3])
@pytest.mark.parametrize("n", [2, 3, 4])
def test_optimum_of_a_direct_formulation(random_v, n, noise_ratio):
    v = np.concatenate([random_v(n, n, 3), np.random.default_rng(n).normal(size=(3, 1 << n))])
    result = extract(v, noise_ratio=noise_ratio)
    for row, (problem, bound) in enumerate(zip(v, result.noise_bound, strict=True)):
        # OR singletons cost more than AND ones here, so leaving them in changes nothing.
        expected = dense_optimum(problem, bound, *tie_break_weights(n, "canonical"))
        assert result.l1[row] == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("n", [8, 10])
def test_certificate_and_bound_on_real_v(real_v, n):
    result = extract(real_v[n])
    assert (relative_gap(result) < 1e-9).all()
    assert (relative_gap(result) >= 0).all()
    phi = reconstruct(result.bias, result.and_effects, result.or_effects)
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
    plain = extract(v, tie_break="plain", solver="simplex")
    canonical = extract(v)
    assert (canonical.l1_plain <= plain.l1_lower_bound * (1 + 1e-5)).all()


@pytest.mark.slow
def test_alternative_tie_breaks_are_other_optima(real_v):
    v = real_v[8][:3]
    results = {name: extract(v, tie_break=name) for name in TIE_BREAKS}
    canonical = results["canonical"]
    for name, result in results.items():
        np.testing.assert_allclose(result.l1_plain, canonical.l1_plain, rtol=1e-5)
        if name not in ("canonical", "plain"):
            assert not np.allclose(result.and_effects, canonical.and_effects, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("solver", ["simplex", "ipm"])
def test_same_answer_of_every_solver(real_v, solver):
    ours = extract(real_v[8])
    assert_same(ours, extract(real_v[8], solver=solver))


@pytest.mark.slow
def test_same_answer_of_highs_on_ten_players(real_v):
    v = real_v[10][:1]
    assert_same(extract(v), extract(v, solver="ipm"))


# The repeated batches are longer than what is solved together.
@pytest.mark.slow
@pytest.mark.parametrize(("n", "problems", "repeats"), [(8, 4, 9), (10, 2, 5)])
def test_same_answer_in_any_batch(real_v, n, problems, repeats):
    v = real_v[n][:problems]
    together = extract(v)
    alone = [extract(row[None]) for row in v]
    repeated = extract(np.concatenate([v[::-1]] * repeats))
    for name in ("and_effects", "or_effects", "bias"):
        one_by_one = np.concatenate([getattr(result, name) for result in alone])
        np.testing.assert_allclose(getattr(together, name), one_by_one, atol=1e-9)
        np.testing.assert_array_equal(getattr(together, name) != 0, one_by_one != 0)
        back = getattr(repeated, name)[-problems:][::-1]
        np.testing.assert_allclose(getattr(together, name), back, atol=1e-9)


@pytest.mark.slow
def test_same_answer_with_any_number_of_threads(real_v, tmp_path):
    np.save(tmp_path / "v.npy", real_v[10][:2])
    code = (
        "import sys, numpy as np; from sft_interactions.extraction import extract;"
        "r = extract(np.load(sys.argv[1]));"
        "np.save(sys.argv[2], np.stack([r.and_effects, r.or_effects]))"
    )
    answers = []
    for threads in ("1", "2"):
        out = tmp_path / f"{threads}.npy"
        environment = {**os.environ, "OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
        environment["PYTHONPATH"] = str(Path(program.__file__).parents[2])
        subprocess.run(
            [sys.executable, "-c", code, tmp_path / "v.npy", out], check=True, env=environment
        )
        answers.append(np.load(out))
    np.testing.assert_array_equal(answers[0] != 0, answers[1] != 0)
    np.testing.assert_allclose(answers[0], answers[1], atol=1e-9)


seeds = st.integers(0, 2**32 - 1)
few = settings(derandomize=True, max_examples=25, deadline=None)


@pytest.mark.slow
@few
@given(seeds, st.integers(2, 6), st.floats(1e-3, 1e3), st.floats(-100, 100))
def test_homogeneous_and_blind_to_constants(random_v, seed, n, factor, constant):
    v = random_v(seed, n)
    result = extract(v)
    other = extract(factor * v + constant)
    atol = 1e-9 * factor * np.ptp(v)
    np.testing.assert_allclose(other.and_effects, factor * result.and_effects, atol=atol)
    np.testing.assert_allclose(other.or_effects, factor * result.or_effects, atol=atol)
    np.testing.assert_allclose(
        other.bias, factor * result.bias + constant, atol=1e-9 * factor + 1e-9 * abs(constant)
    )


@pytest.mark.slow
@few
@given(seeds, st.integers(2, 6), st.randoms(use_true_random=False))
def test_objective_does_not_depend_on_the_names_of_the_players(random_v, seed, n, random):
    v = random_v(seed, n)
    order = list(range(n))
    random.shuffle(order)
    renamed = [sum((mask >> k & 1) << order[k] for k in range(n)) for mask in range(1 << n)]
    w = np.empty_like(v)
    w[:, renamed] = v
    # The canonical answer is plainly optimal to 1e-5; only its tie-break knows names.
    np.testing.assert_allclose(extract(v).l1_plain, extract(w).l1_plain, rtol=1e-5)


@few
@given(seeds, st.integers(2, 6), st.sampled_from([0.0, 0.01, 0.04, 0.2]))
def test_solutions_are_certified(random_v, seed, n, noise_ratio):
    v = random_v(seed, n)
    result = extract(v, noise_ratio=noise_ratio)
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


@pytest.mark.slow
def test_a_nearly_degenerate_problem_needs_no_second_try(real_v):
    v = real_v[12][2]
    noise = np.random.default_rng(0).normal(size=(8, 1 << 12))[5]
    v = v + 1e-3 * abs(v[-1] - v[0]) * noise
    solved = extract(v[None])
    assert solved.iterations[0] < 60
    assert relative_gap(solved)[0] < 1e-9


@pytest.mark.slow
@few
@given(seeds, st.integers(3, 6), st.sampled_from([0.0, 0.04]))
def test_never_above_a_planted_model(seed, n, noise_ratio):
    and_effects, or_effects, bias = planted(seed, n, 3)
    v = reconstruct(bias, and_effects, or_effects)
    result = extract(v, noise_ratio=noise_ratio)
    l1 = np.abs(and_effects).sum() + np.abs(or_effects).sum()
    assert result.l1_plain[0] <= l1 * (1 + 1e-5)


def test_recovers_a_planted_model():
    # φ determines these five effects: its one conjunction and one disjunction share no player.
    and_effects, or_effects = np.zeros((2, 1, 32))
    and_effects[0, [1, 2, 8]], and_effects[0, 3] = [0.7, -0.4, 0.5], 1.3
    or_effects[0, 12] = 2.1
    v = reconstruct([-3.0], and_effects, or_effects)
    result = extract(v, noise_ratio=0.0)
    np.testing.assert_allclose(result.and_effects, and_effects, atol=1e-9)
    np.testing.assert_allclose(result.or_effects, or_effects, atol=1e-9)
    np.testing.assert_allclose(result.bias, -3.0, atol=1e-9)
    np.testing.assert_array_equal(result.and_effects != 0, and_effects != 0)


def test_order_one_is_kept_in_and():
    size = 16
    v = np.array([[0.5 * (mask & 1) - 2.0 * (mask >> 2 & 1) + 1.0 for mask in range(size)]])
    result = extract(v, noise_ratio=0.0)
    np.testing.assert_allclose(result.and_effects[0, [1, 4]], [0.5, -2.0], atol=1e-12)
    assert np.count_nonzero(result.and_effects) == 2
    assert not result.or_effects.any()
    assert result.bias[0] == pytest.approx(1.0)


def test_constant_v_has_only_a_bias():
    result = extract(np.full((2, 16), [[-3.25], [0.0]]))
    assert not result.and_effects.any()
    assert not result.or_effects.any()
    np.testing.assert_array_equal(result.bias, [-3.25, 0.0])
    for name in ("l1", "l1_lower_bound", "l1_plain", "noise_bound", "max_residual"):
        np.testing.assert_array_equal(getattr(result, name), [0.0, 0.0])


def test_equal_ends_ask_for_an_exact_fit(random_v):
    v = random_v(0, 5)
    v[0, -1] = v[0, 0]
    result = extract(v)
    assert result.noise_bound[0] == 0
    assert result.max_residual[0] < 1e-12
    assert relative_gap(result)[0] < 1e-9


def test_wide_bound_leaves_nothing_to_explain(random_v):
    v = random_v(1, 4)
    v[0, -1] = v.max()
    v[0, 0] = v.min()
    result = extract(v, noise_ratio=0.5)
    assert result.l1[0] == 0
    assert result.max_residual[0] <= result.noise_bound[0] + 1e-12


def test_errors_name_what_is_wrong(random_v):
    v = random_v(0, 4, batch=3)
    for bad in (np.nan, np.inf):
        broken = v.copy()
        broken[1, 5] = bad
        with pytest.raises(ValueError, match=r"v\[1\] is (nan|inf) at mask 5"):
            extract(broken)
    with pytest.raises(ValueError, match="power of two"):
        extract(v[:, :-1])
    with pytest.raises(ValueError, match="1 players"):
        extract(np.zeros((1, 2)))
    with pytest.raises(ValueError, match="17 players"):
        extract(np.zeros((1, 1 << 17)))
    with pytest.raises(ValueError, match="shape"):
        extract(v[0])
    with pytest.raises(ValueError, match="tie-break"):
        extract(v, tie_break="alphabetical")
    with pytest.raises(ValueError, match="solver"):
        extract(v, solver="sgd")
    for ratio in (-0.1, np.nan):
        with pytest.raises(ValueError, match="noise_ratio"):
            extract(v, noise_ratio=ratio)


MASKED = np.ma.masked_array([0, 1, 999, 3], mask=[False, False, True, False])


@pytest.mark.parametrize(
    ("v", "message"),
    [
        (MASKED[None], "v has values that are masked; fill"),
        (np.array([[0, 1, 1 + 5j, 3]]), "v is complex128; give real"),
        ([["0", "1", "1", "3"]], "v is <U1; give real"),
        (np.zeros((1, 4), "timedelta64[s]"), r"v is timedelta64\[s\]; give real"),
        (
            pl.DataFrame({"0": [0.0], "3": [3.0], "1": [1.0], "2": [1.0]}),
            r"v has the columns 0, 3, 1, 2, \.\.\.; put them in the order of the masks, 0 to 3",
        ),
    ],
)
def test_what_is_no_table_of_numbers_is_refused(v, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        extract(v)


def test_masked_bounds_and_effects_are_refused():
    with pytest.raises(ValueError, match=r"^noise_bound has values that are masked"):
        extract(np.tile([0.0, 1, 1, 3], (4, 1)), noise_bound=MASKED)
    with pytest.raises(ValueError, match=r"^or_effects has values that are masked"):
        reconstruct(0.0, np.zeros(4), MASKED)
    with pytest.raises(ValueError, match=r"^and_effects has values that are masked"):
        reconstruct(0.0, MASKED, np.zeros(4))


def test_a_data_frame_is_its_columns_in_order():
    v = [0.0, 1.0, 1.0, 3.0]
    expected = extract([v], noise_ratio=0).and_effects
    for names in ("0123", "abcd"):
        frame = pl.DataFrame({name: [value] for name, value in zip(names, v, strict=True)})
        assert np.array_equal(extract(frame, noise_ratio=0).and_effects, expected)
    for kind in (np.float32, np.int64, object):
        assert np.array_equal(extract(np.array([v], kind), noise_ratio=0).and_effects, expected)


def test_an_exact_fit_of_too_many_players_is_refused():
    v = np.zeros((2, 1 << 15))
    v[1, 5] = 1.0
    with pytest.raises(ValueError, match=r"v\[1\] has a noise bound of 0, which 15 players"):
        extract(v)


def test_progress_counts_every_problem_once(random_v):
    v = np.concatenate([random_v(0, 8, 40), np.zeros((3, 1 << 8))])
    seen = []
    extract(v, progress=seen.append)
    assert sum(seen) == 43
    # Those without effects, and then as many at a time as are solved together.
    assert seen == [3, 32, 8]


class Recorder:
    """Stands for the interior point: notes the options of every call, and may spoil the answers."""

    def __init__(self, solve):
        self.solve = solve
        self.options = []
        self.spoil = None

    def __call__(self, v, bound, weights, **options):
        self.options.append(options)
        solutions, iterations = self.solve(v, bound, weights, **options)
        if self.spoil is not None:
            solutions = [self.spoil(solution) for solution in solutions]
        return solutions, iterations


@pytest.fixture
def calls(monkeypatch):
    recorder = Recorder(iteration.solve)
    monkeypatch.setattr(iteration, "solve", recorder)
    return recorder


def test_an_exact_solution_needs_no_other_try(random_v, calls):
    extract(random_v(0, 4))
    assert calls.options == [{}]


def test_what_the_interior_point_does_not_solve_goes_to_highs(random_v, calls):
    v = random_v(0, 4)
    expected = extract(v)
    calls.options.clear()
    calls.spoil = lambda _: None
    solved = extract(v)
    assert calls.options == [{}]
    assert_same(solved, expected)
    assert solved.iterations[0] > expected.iterations[0]


def test_a_degenerate_optimum_goes_to_highs_at_once(random_v, calls):
    v = random_v(0, 4)
    expected = extract(v)
    calls.options.clear()
    calls.spoil = lambda solution: replace(solution, exact=False)
    assert_same(extract(v), expected)
    assert calls.options == [{}]


@pytest.fixture
def many_players(monkeypatch):
    """Four players are treated as if they were too many for the simplex, which gives up."""
    monkeypatch.setattr(program, "_SIMPLEX_PLAYERS", 3)
    solve, methods = highs.solve, []

    def give_up(*arguments, method, max_iterations=None):
        methods.append(method)
        return None if max_iterations else solve(*arguments, method=method)

    monkeypatch.setattr(highs, "solve", give_up)
    return methods


def test_many_players_take_other_paths_before_the_slow_solver(random_v, calls, many_players):
    v = random_v(0, 4)
    expected = extract(v)
    calls.options.clear()
    calls.spoil = lambda _: None
    assert_same(extract(v), expected)
    assert calls.options == [{}, {"correctors": 1}, {"shortcuts": False}]
    assert many_players == ["simplex", "ipm"]


def test_the_second_try_is_the_last_if_it_ends_in_a_vertex(random_v, calls, many_players):
    v = random_v(0, 4)
    expected = extract(v)
    calls.options.clear()
    calls.spoil = lambda solution: solution if len(calls.options) > 1 else None
    assert_same(extract(v), expected)
    assert calls.options == [{}, {"correctors": 1}]


def test_an_unsolved_problem_is_an_error(random_v, calls, many_players, monkeypatch):
    monkeypatch.setattr(program, "MAX_PLAYERS_DENSE", 3)
    monkeypatch.setattr(program, "MAX_PLAYERS_IPM", 3)
    calls.spoil = lambda _: None
    with pytest.raises(RuntimeError, match="problem 0: the extraction program is not solved"):
        extract(random_v(0, 4))
    assert calls.options == [{}, {"correctors": 1}]


def test_the_better_of_inexact_solutions_is_kept(random_v, calls, many_players, monkeypatch):
    monkeypatch.setattr(program, "MAX_PLAYERS_IPM", 3)
    v = random_v(0, 4)
    gaps = iter([1e-3, 1e-5, 1e-4])
    constants = iter([0.0, 1e-9, 2e-9])
    calls.spoil = lambda solution: replace(
        solution, gap=next(gaps), exact=False, constant=solution.constant + next(constants)
    )
    exact = extract(v, solver="simplex")
    solved = extract(v)
    shift = (solved.bias - exact.bias) / np.ptp(v)
    np.testing.assert_allclose(shift, 1e-9, rtol=1e-3, atol=0)


def test_a_solution_outside_its_noise_bound_is_an_error(random_v, calls, many_players, monkeypatch):
    monkeypatch.setattr(program, "MAX_PLAYERS_DENSE", 3)
    monkeypatch.setattr(program, "MAX_PLAYERS_IPM", 3)
    calls.spoil = lambda solution: replace(
        solution, gap=0.0, exact=False, constant=solution.constant + 0.01
    )
    with pytest.raises(RuntimeError, match=r"problem 0: \|phi - v\| reaches .* above its bound"):
        extract(random_v(0, 4))


def test_the_lower_bound_is_not_cut_to_the_objective(random_v, calls, monkeypatch):
    """A point that is too small shows in its certificate."""
    monkeypatch.setattr(program, "_EXCESS", np.inf)
    calls.spoil = lambda solution: replace(solution, effects=solution.effects / 2)
    solved = extract(random_v(0, 4))
    assert solved.l1_lower_bound[0] > 1.5 * solved.l1[0]


def degenerate(n):
    """Tables with many equal entries, and few interactions."""
    order = np.array([mask.bit_count() for mask in range(1 << n)])
    rng = np.random.default_rng(n)
    few = reconstruct(*(rng.normal(size=1), *planted(n, n, 2)[:2]))[0]
    return {
        "planted": few,
        "saturated": np.clip(few, -1, 1),
        "symmetric": order.astype(float) ** 2,
        "step": (order >= n // 2).astype(float),
        "one mask": np.eye(1 << n)[3],
        "integers": rng.integers(-2, 3, 1 << n).astype(float),
        "halves": np.repeat([0.0, 1.0], 1 << (n - 1)),
    }


@pytest.mark.slow
@pytest.mark.parametrize("noise_ratio", [0.0, 0.04, 0.3])
@pytest.mark.parametrize("name", degenerate(3))
@pytest.mark.parametrize("n", [3, 5, 6])
def test_degenerate_tables_are_solved(n, name, noise_ratio):
    v = degenerate(n)[name][None]
    solved = extract(v, noise_ratio=noise_ratio)
    expected = extract(v, noise_ratio=noise_ratio, solver="simplex")
    scale = np.ptp(v)
    assert solved.l1[0] == pytest.approx(expected.l1[0], rel=1e-7, abs=1e-9)
    assert solved.l1_lower_bound[0] == pytest.approx(solved.l1[0], rel=1e-7, abs=1e-9)
    assert solved.max_residual[0] <= solved.noise_bound[0] + 1e-9 * scale


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda v: v + 1e12, r"v\[1\] spans .* around 1e\+12, which leaves float64 too few digits"),
        (lambda v: v * 1e-300, r"v\[1\] spans .*, which float64 does not resolve; scale v up"),
    ],
    ids=["offset", "tiny"],
)
def test_too_few_digits_are_refused(random_v, spoil, message):
    v = random_v(0, 4, 2)
    v[1] = spoil(v[1])
    with pytest.raises(ValueError, match=message):
        extract(v)


@pytest.mark.parametrize("offset", [0.0, 1e4, 1e6])
@pytest.mark.parametrize("size", [1e-250, 1e-6, 1.0, 1e9])
def test_size_and_offset_change_nothing_but_rounding(random_v, size, offset):
    v = random_v(3, 4, 2)
    solved = extract((v + offset) * size)
    np.testing.assert_allclose(solved.and_effects / size, extract(v).and_effects, atol=1e-6)


@pytest.mark.parametrize("outlier", [1e4, 1e8, 1e11])
def test_an_outlier_is_within_the_noise_bound(random_v, outlier):
    v = random_v(0, 5)
    v[0, 9] = outlier
    solved = extract(v)
    assert solved.max_residual[0] <= solved.noise_bound[0] + 1e-9 * outlier
    assert solved.l1[0] - solved.l1_lower_bound[0] <= 1e-6 * solved.l1[0]


def test_the_last_digits_do_not_depend_on_the_batch(random_v):
    v = np.concatenate([random_v(seed, 6, 4) for seed in range(4)])
    together = extract(v)
    for row in range(len(v)):
        alone = extract(v[[row]])
        for field in ("l1", "l1_lower_bound", "l1_plain", "max_residual", "bias"):
            assert getattr(alone, field)[0] == getattr(together, field)[row], field


def test_no_problem_is_refused():
    with pytest.raises(ValueError, match="v has no row; give at least one problem"):
        extract(np.zeros((0, 8)))


def test_noise_bounds_of_every_scale():
    v = np.array([[1.0, 5.0, -2.0, 1.5], [0.0, 0.0, 1.0, -3.0]])
    np.testing.assert_allclose(noise_bounds(v, 0.1, "sample"), [0.05, 0.3])
    np.testing.assert_allclose(noise_bounds(v, 0.1, "mean"), [0.175, 0.175])
    np.testing.assert_allclose(noise_bounds(v, 0.1, "range"), [0.7, 0.4])
    np.testing.assert_array_equal(noise_bounds(v), noise_bounds(v, 0.04, "sample"))
    assert set(NOISE_SCALES) == {"sample", "mean", "range"}
    with pytest.raises(
        ValueError, match="unknown noise_scale 'largest', choose from sample, mean, r"
    ):
        noise_bounds(v, 0.1, "largest")
    for ratio in (-0.1, np.nan, np.inf):
        with pytest.raises(ValueError, match="noise_ratio must be finite"):
            noise_bounds(v, ratio)
    with pytest.raises(ValueError, match=r"v\[0\] is nan at mask 1"):
        noise_bounds([[0.0, np.nan, 0.0, 0.0]])


@pytest.mark.parametrize("scale", NOISE_SCALES)
def test_optimum_within_the_bounds_of_a_scale(random_v, scale):
    v = random_v(5, 3, batch=3)
    weights = tie_break_weights(3, "canonical")
    v[0, -1] = v[0, 0] + 1e-3  # a difference that is small beside the range
    bounds = {
        "sample": 0.1 * np.abs(v[:, -1] - v[:, 0]),
        "mean": np.full(3, 0.1 * np.abs(v[:, -1] - v[:, 0]).mean()),
        "range": 0.1 * (v.max(axis=1) - v.min(axis=1)),
    }[scale]
    found = extract(v, noise_ratio=0.1, noise_scale=scale)
    np.testing.assert_allclose(found.noise_bound, bounds)
    for row in range(3):
        assert found.l1[row] == pytest.approx(
            dense_optimum(v[row], bounds[row], *weights), rel=1e-8
        )
    assert_same(found, extract(v, noise_bound=bounds))


def test_bounds_of_ones_own_are_one_a_row_and_alone(random_v):
    v = random_v(0, 3, batch=2)
    for other in ({"noise_ratio": 0.04}, {"noise_scale": "sample"}):
        with pytest.raises(
            ValueError, match="noise_bound: noise_ratio or noise_scale is given too"
        ):
            extract(v, noise_bound=[0.1, 0.1], **other)
    for shape in ((), (1,), (3,), (2, 1)):
        with pytest.raises(ValueError, match="v has 2 rows; give one bound a row"):
            extract(v, noise_bound=np.full(shape, 0.1))
    for wrong in (-1e-3, np.nan, np.inf):
        with pytest.raises(ValueError, match=r"noise_bound\[1\] must be finite and not negative"):
            extract(v, noise_bound=[0.1, wrong])
