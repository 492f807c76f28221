"""What is lost, new and kept, and where the denoising stage ends."""

import numpy as np
import polars as pl
import pytest
from sample_tables import dynamics_of
from scipy import stats

from sft_interactions import tables
from sft_interactions.analysis import turnover
from sft_interactions.analysis.intervals import bounds, interval, leave_one_out
from sft_interactions.analysis.turnover import (
    KEPT,
    LAST,
    LOST,
    NEW,
    NONE,
    UNKNOWN,
    Stage,
    detect,
    find_changes,
    gone_for_good,
    kept_by_chance,
    omega,
    preserved_with_sign,
    seen_once,
    tabulate,
)


def test_an_interaction_that_changes_its_sign_is_lost_and_new():
    dynamics = dynamics_of({"a": {1: 1.0, 2: 1.0, 3: 0.5}}, {"a": {1: 2.0, 2: -1.0, 4: 1.0}})
    changes = find_changes(dynamics, [0, 10])
    found = {
        label: sorted(changes.filter(pl.col("class") == label).select("pattern", "effect").rows())
        for label in (LOST, NEW, KEPT)
    }
    assert found == {LOST: [(2, 1.0), (3, 0.5)], NEW: [(2, -1.0), (4, 1.0)], KEPT: [(1, 2.0)]}
    assert changes["step"].unique().to_list() == [1]


def test_weak_effects_have_a_sign_too():
    changes = find_changes(
        dynamics_of({"a": {1: 0.5, 2: -0.5}}, {"a": {1: -0.5, 2: -0.5}}), [0, 10]
    )
    found = sorted(changes.select("class", "pattern").rows())
    assert found == [(KEPT, 2), (LOST, 1), (NEW, 1)]


def test_every_interval_is_held_against_its_own_start():
    dynamics = dynamics_of({"a": {1: 1.0}}, {"a": {2: 1.0}}, {"a": {1: 1.0, 2: 1.0}})
    counts = find_changes(dynamics, [0, 10, 20]).group_by("step", "class").len()
    assert {row[:2]: row[2] for row in counts.rows()} == {
        (1, LOST): 1,
        (1, NEW): 1,
        (2, NEW): 1,
        (2, KEPT): 1,
    }


def test_preserved_keep_their_sign_all_along():
    dynamics = dynamics_of(
        {"a": {1: 1.0, 2: 1.0, 3: 1.0}},
        {"a": {1: 1.0, 2: -1.0, 3: 1.0}},
        {"a": {1: 1.0, 2: 1.0}},
    )
    chain = preserved_with_sign(dynamics, [0, 10, 20])
    assert [sorted(rows["pattern"]) for rows in chain] == [[1, 2, 3], [1, 3], [1]]


def test_what_is_gone_for_good_goes_after_it_was_last_seen_with_its_sign():
    dynamics = dynamics_of(
        {"a": {1: 1.0, 2: 1.0, 3: 1.0, 4: -1.0, 5: 1.0}, "b": {1: 1.0}},
        {"a": {1: 1.0, 3: 1.0, 4: 1.0, 6: 1.0}},
        {"a": {1: 1.0, 2: 1.0, 7: 1.0, 8: 1.0}, "b": {2: 1.0}},
        {"a": {1: 1.0, 4: 1.0, 7: 1.0, 9: 1.0}, "b": {1: -1.0}},
    )
    steps = [30, 0, 20, 10]
    # 2 was back at step 20, and 1 stays; 4 and b's 1 are there at the end, of the other sign.
    gone = gone_for_good(dynamics, steps).select("sample_id", "pattern", "effect", "step")
    assert sorted(gone.rows()) == [
        ("a", 2, 1.0, 3),
        ("a", 3, 1.0, 2),
        ("a", 4, -1.0, 1),
        ("a", 5, 1.0, 1),
        ("b", 1, 1.0, 1),
    ]
    # Not 5 and 9, of the first and the last checkpoint, nor what was there twice.
    once = seen_once(dynamics, steps).select("sample_id", "pattern", "step")
    assert sorted(once.rows()) == [("a", 6, 10), ("a", 8, 20), ("b", 2, 20)]


def test_what_is_kept_by_chance_is_the_mean_over_all_pairs_of_samples():
    rng = np.random.default_rng(0)

    def draw():
        return {
            sample: {int(p): float(rng.choice([-1, 1])) for p in rng.choice(16, 7, replace=False)}
            for sample in "abcd"
        }

    one, two = draw(), draw()
    expected = np.mean(
        [
            sum(one[a].get(pattern) == effect for pattern, effect in two[b].items())
            for a in "abcd"
            for b in "abcd"
            if a != b
        ]
    )
    dynamics = dynamics_of(one, two)
    found = kept_by_chance(omega(dynamics, 0), omega(dynamics, 10), 4)
    assert found == pytest.approx(expected)
    assert found > 0
    assert kept_by_chance(omega(dynamics, 0), omega(dynamics, 10), 1) is None


def run_of(rates, n_samples=12, gains=None, seed=0, size=24, steps=None):
    """A run whose interactions are lost at the given rates, and replaced or not."""
    rng = np.random.default_rng(seed)
    gains = rates if gains is None else gains
    fresh = iter(range(10**6))
    now = {f"s{i:02d}": [next(fresh) for _ in range(size)] for i in range(n_samples)}
    checkpoints = [now]
    for rate, gain in zip(rates, gains, strict=True):
        now = {
            sample: [one for one in patterns if rng.random() > rate]
            + [next(fresh) for _ in range(rng.binomial(size, gain))]
            for sample, patterns in now.items()
        }
        checkpoints.append(now)
    effects = [{s: dict.fromkeys(p, 1.0) for s, p in c.items()} for c in checkpoints]
    return dynamics_of(*effects, steps=steps)


def answer(dynamics, n_samples=12, n_intervals=5):
    steps = [10 * number for number in range(n_intervals + 1)]
    return detect(dynamics, [f"s{i:02d}" for i in range(n_samples)], steps, 0.95)


@pytest.mark.parametrize("end", [1, 2, 3, 4])
def test_a_loss_rate_that_falls_ends_the_denoising_stage(end):
    stage = answer(run_of([0.6] * end + [0.1] * (5 - end)))
    assert stage.step == 10 * end
    assert stage.answer == str(stage.step)
    assert stage.low <= stage.step <= stage.high
    value, low, high = stage.fall
    assert 0 < low < value < high
    assert value == pytest.approx(0.5, abs=0.1)


def test_there_is_no_stage_where_the_loss_rate_does_not_fall():
    assert answer(run_of([0.3] * 5, size=200)).answer == NONE
    assert answer(run_of([0.1, 0.1, 0.3, 0.5, 0.5])).answer == NONE


def test_the_run_ends_in_its_denoising_stage_where_more_goes_than_comes_all_along():
    assert answer(run_of([0.3] * 5, gains=[0.02] * 5, size=100)).answer == LAST


def test_it_cannot_be_told_from_few_or_noisy_samples():
    assert answer(run_of([0.6, 0.1, 0.1, 0.1, 0.1], n_samples=4), 4).answer == UNKNOWN
    assert answer(run_of([0.5] * 5, size=4)).answer == UNKNOWN
    two = dynamics_of({"a": {1: 1.0}}, {"a": {1: 1.0}})
    assert answer(two, n_intervals=1).answer == UNKNOWN
    nothing = run_of([1.0, 0.0, 0.0, 0.0, 0.0], gains=[0.0] * 5)
    assert answer(nothing).answer == UNKNOWN


def test_a_checkpoint_without_an_interaction_leaves_no_rate():
    nothing = {f"s{i:02d}": {} for i in range(6)}
    something = {f"s{i:02d}": {1: 1.0} for i in range(6)}
    dynamics = dynamics_of(something, nothing, something, something)
    assert answer(dynamics, 6, 3).answer == UNKNOWN


def test_five_samples_and_one_cut_are_enough():
    five = run_of([0.6, 0.6, 0.1, 0.1, 0.1], n_samples=5, size=200)
    assert answer(five, 5).step == 20
    assert answer(run_of([0.6, 0.1]), n_intervals=2).step == 10


@pytest.mark.slow
def test_a_stage_is_found_where_there_is_none_in_at_most_a_twentieth_of_runs():
    found = [answer(run_of([0.4] * 5, n_samples=8, seed=s), 8).step for s in range(200)]
    assert sum(step is not None for step in found) <= 10


def rates_of(steps, hazards):
    """Loss rates of intervals in which each step loses as much."""
    return 1 - np.exp(-np.diff(steps) * np.asarray(hazards))


UNEVEN = {
    "a short last interval": [0, 100, 200, 300, 400, 404],
    "old checkpoints were deleted": [0, 800, 850, 900, 950, 1000],
    "the end of the last epoch": [0, 500, 1000, 1500, 1545],
    "a long last interval": [0, 50, 100, 150, 200, 800],
    "growing": [0, 6, 18, 36, 72, 144],
}


@pytest.mark.parametrize("steps", UNEVEN.values(), ids=UNEVEN)
def test_uneven_checkpoints_are_no_end_of_a_stage(steps):
    samples = [f"s{i:02d}" for i in range(12)]
    for seed in range(10):
        run = run_of(rates_of(steps, 0.002), size=60, seed=seed, steps=steps)
        assert detect(run, samples, steps, 0.95).step is None
        # Nor where every interval loses the same, however long it is.
        run = run_of([0.3] * (len(steps) - 1), size=60, seed=seed, steps=steps)
        assert detect(run, samples, steps, 0.95).step is None


def test_an_end_is_found_on_uneven_checkpoints_too():
    steps = [0, 40, 80, 120, 200, 300]
    hazards = [0.02, 0.02, 0.02, 0.001, 0.001]
    run = run_of(rates_of(steps, hazards), size=60, steps=steps)
    stage = detect(run, [f"s{i:02d}" for i in range(12)], steps, 0.95)
    assert stage.answer == "120"
    value, low, high = stage.fall
    assert 0 < low < value < high


@pytest.mark.parametrize(
    ("steps", "end"),
    [
        ([0, 40, 50, 60, 70, 80, 90, 100], 60),
        ([0, 200, 225, 250, 275, 300, 350, 400], 250),
        ([0, 25, 50, 200, 225, 250], 50),
    ],
)
def test_the_interval_of_the_end_holds_it_on_uneven_checkpoints(steps, end):
    hazards = [0.02 if step <= end else 0.002 for step in steps[1:]]
    rates = rates_of(steps, hazards)
    for seed in range(10):
        run = run_of(rates, size=60, seed=seed, steps=steps)
        stage = detect(run, [f"s{i:02d}" for i in range(12)], steps, 0.95)
        assert stage.step is None or stage.low <= end <= stage.high


def test_rates_that_differ_by_rounding_do_not_fall():
    patterns = iter(range(1000))
    now = {f"s{i}": [next(patterns) for _ in range(10)] for i in range(6)}
    checkpoints = [now]
    for _ in range(4):
        now = {sample: [*own[1:], next(patterns)] for sample, own in now.items()}
        checkpoints.append(now)
    run = dynamics_of(*({s: dict.fromkeys(p, 1.0) for s, p in c.items()} for c in checkpoints))
    assert detect(run, sorted(now), [0, 10, 20, 30, 40], 0.95).answer == NONE


def test_bounds_of_a_mean_are_those_of_students_t():
    values = np.random.default_rng(0).normal(size=9)
    means = leave_one_out(values) / leave_one_out(np.ones(9))
    low, high = bounds(means, 0.95)
    expected = stats.t.interval(0.95, 8, values.mean(), stats.sem(values))
    np.testing.assert_allclose([low, high], expected)
    wide = bounds(means, 0.95, 5)
    expected = stats.t.interval(0.99, 8, values.mean(), stats.sem(values))
    np.testing.assert_allclose(wide, expected)


def test_the_table_of_turnover():
    samples = [f"s{i}" for i in range(6)]
    first = {sample: {1: 1.0, 2: 1.0} for sample in samples}
    second = {sample: {1: 1.0, 4 + i: 1.0} for i, sample in enumerate(samples)}
    table = tabulate(dynamics_of(first, second), samples, [0, 10], 0.95)
    assert table.row(0, named=True) == {
        "step": 0,
        "next_step": 10,
        "salient": 2.0,
        "kept": 1.0,
        "lost": 1.0,
        "new": 1.0,
        "kept_by_chance": 1.0,
        "loss_rate": 0.5,
        "ci_low": 0.5,
        "ci_high": 0.5,
    }
    alone = tabulate(dynamics_of(first, second), samples[:1], [0, 10], 0.95)
    assert alone["ci_low"].to_list() == [None]
    checked = tables.check(table.with_columns(run=pl.lit("r")), tables.TURNOVER, "turnover")
    assert checked.columns == list(tables.TURNOVER.columns)
    assert turnover.MARGIN == 0.1


def falls_of(dynamics, samples, n_intervals):
    """Fall of the mean loss rate at every cut, counted from the sets of the salient interactions."""
    present = dynamics.filter(pl.col("class") != "removed", pl.col("sample_id").is_in(samples))
    sets = [
        set(present.filter(step=10 * number).select("sample_id", "pattern").rows())
        for number in range(n_intervals + 1)
    ]
    rates = [len(sets[i] - sets[i + 1]) / len(sets[i]) for i in range(n_intervals)]
    cuts = range(1, n_intervals)
    return np.array([np.mean(rates[:cut]) - np.mean(rates[cut:]) for cut in cuts])


def jackknifed(statistic, samples, n_statements):
    """Value and Student's bounds of a statistic of samples, by Bonferroni."""
    n = len(samples)
    without = [statistic([other for other in samples if other != one]) for one in samples]
    error = np.sqrt((n - 1) * np.var(without, axis=0))
    reach = stats.t.ppf(1 - 0.025 / n_statements, n - 1) * error
    value = statistic(samples)
    return value, value - reach, value + reach


@pytest.mark.parametrize("rates", [[0.6, 0.45, 0.3, 0.2, 0.1], [0.6, 0.3, 0.4, 0.2, 0.1]])
def test_the_end_is_the_largest_fall_and_its_range_what_may_be_as_large(rates):
    dynamics, samples = run_of(rates, seed=1), [f"s{i:02d}" for i in range(12)]
    value, low, high = jackknifed(lambda some: falls_of(dynamics, some, 5), samples, 4)
    certain = np.flatnonzero(low > 0)
    cut = max(certain, key=lambda number: value[number])

    def leads(some):
        falls = falls_of(dynamics, some, 5)
        return falls[cut] - falls

    _, lead, _ = jackknifed(leads, samples, 4)
    possible = [number for number in certain if lead[number] <= 0]
    assert len(possible) > 1
    stage = answer(dynamics)
    assert (stage.step, stage.low, stage.high) == tuple(
        10 * (number + 1) for number in (cut, min(possible), max(possible))
    )
    assert stage.fall == pytest.approx((value[cut], low[cut], high[cut]))


def test_where_nothing_is_found_there_is_no_fall():
    assert np.isnan(Stage(NONE).fall).tolist() == [True] * 3


@pytest.mark.parametrize(("n_samples", "known"), [(4, False), (5, True)])
def test_an_interval_needs_five_samples_and_the_value_is_that_of_all(n_samples, known):
    lost, before = np.arange(1.0, n_samples + 1), np.arange(10.0, 10 + n_samples)
    value, low, high = interval(leave_one_out(lost) / leave_one_out(before), 0.95)
    assert value == pytest.approx(lost.sum() / before.sum())
    assert (low is not None, high is not None) == (known, known)


STEPS = [0, 10, 20, 30, 40]
EMPTY = [f"empty-{number}" for number in range(20)]


def test_samples_without_an_interaction_are_no_observations():
    dynamics, samples = run_of([0.7, 0.2, 0.2, 0.2], n_samples=6), [f"s{i:02d}" for i in range(6)]
    rates = ["loss_rate", "ci_low", "ci_high"]
    alone = tabulate(dynamics, samples, STEPS, 0.95)
    for more in ([*samples, *EMPTY[:1]], [*EMPTY, *samples]):
        assert detect(dynamics, more, STEPS, 0.95) == detect(dynamics, samples, STEPS, 0.95)
        among = tabulate(dynamics, more, STEPS, 0.95)
        assert among.select(rates).equals(alone.select(rates))
        # Means are over all samples.
        expected = alone["lost"] * len(samples) / len(more)
        assert among["lost"].to_list() == pytest.approx(expected.to_list())


def test_four_samples_with_interactions_tell_nothing_however_many_have_none():
    dynamics, samples = run_of([0.9, 0.1, 0.1, 0.1], n_samples=4), [f"s{i:02d}" for i in range(4)]
    assert detect(dynamics, [*samples, *EMPTY], STEPS, 0.95).answer == UNKNOWN
    assert tabulate(dynamics, [*samples, *EMPTY], STEPS, 0.95)["ci_low"].is_null().all()


def test_an_interval_needs_five_samples_that_have_something_to_lose():
    dynamics = run_of([0.9, 0.1, 0.1, 0.1], n_samples=8)
    # Before SFT four of the eight have no interaction.
    late = (pl.col("step") > 0) | (pl.col("sample_id") < "s04")
    samples = [f"s{i:02d}" for i in range(8)]
    assert detect(dynamics.filter(late), samples, STEPS, 0.95).answer == UNKNOWN
    assert tabulate(dynamics.filter(late), samples, STEPS, 0.95)["ci_low"].null_count() == 1
