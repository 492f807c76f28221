import itertools
import math
import re
import tracemalloc

import numpy as np
import polars as pl
import pytest
import scipy.stats

from sft_interactions import tables
from sft_interactions.analysis.metrics import (
    Cells,
    Support,
    _signs,
    compute_metrics,
    ratios,
    summarize,
    support,
)

N = 3
STEPS = [0, 10]
ANYTHING = Support(-np.inf)


def dynamics(*rows):
    """Rows (sample_id, step, class, kind, pattern, effect, generalizable, chance)."""
    return pl.DataFrame(
        [(*row[:5], row[4].bit_count(), *row[5:]) for row in rows],
        schema=tables.DYNAMICS.columns,
        orient="row",
    )


HAND_MADE = dynamics(
    ("a", 0, "preserved", "and", 1, 2.0, True, 0.5),
    ("a", 0, "preserved", "and", 3, -1.0, False, 0.25),
    ("a", 0, "preserved", "or", 3, -0.5, True, 0.0),
    ("a", 0, "preserved", "or", 7, 0.5, False, 1.0),
    ("b", 0, "preserved", "and", 6, 1.0, False, 0.0),
    ("a", 10, "preserved", "and", 1, 3.0, True, 0.5),
    ("a", 10, "emerged", "or", 5, -1.0, False, 0.0),
    ("b", 10, "removed", "and", 6, 1.0, False, 0.0),
)


class Metrics:
    def __init__(self, rows, samples=("a", "b"), **options):
        settings = {"level": 0.95, **options}
        self.table = compute_metrics(rows, samples, STEPS, N, **settings)

    def row(self, step, label, metric, kind="both", order=None):
        found = self.table.filter(
            pl.col("order").eq_missing(pl.lit(order, pl.UInt8)),
            step=step,
            metric=metric,
            kind=kind,
            **{"class": label},
        )
        return found.row(0, named=True) if len(found) == 1 else None

    def __call__(self, *cell, **more):
        return self.row(*cell, **more)["value"]


@pytest.fixture(scope="module")
def metrics():
    return Metrics(HAND_MADE)


def test_table_fits_its_schema(metrics):
    tables.check(metrics.table, tables.METRICS, "metrics")


def test_cells_are_the_rows_of_a_class_at_a_checkpoint():
    cells = Cells(HAND_MADE, ["b", "a"])
    assert cells.rows(10, "removed").select("sample_id", "pattern", "row").rows() == [("b", 6, 0)]
    assert cells.rows(0, "preserved")["row"].to_list() == [1, 1, 1, 1, 0]
    empty = cells.rows(0, "removed")
    assert empty.is_empty()
    assert empty.schema == cells.rows(0, "preserved").schema


def test_counts_are_means_over_samples(metrics):
    assert metrics(0, "preserved", "count") == 5 / 2
    assert metrics(0, "preserved", "count", "and") == 3 / 2
    assert metrics(0, "preserved", "count", "or") == 2 / 2
    assert [metrics(0, "preserved", "count", order=k) for k in (1, 2, 3)] == [0.5, 1.5, 0.5]
    assert metrics(0, "preserved", "count", "or", 2) == 0.5
    assert metrics(10, "preserved", "count") == 1 / 2  # b has none and counts
    assert metrics(10, "removed", "count") == 1 / 2


def test_strengths_by_sign_and_order(metrics):
    assert metrics(0, "preserved", "strength_positive") == (2.5 + 1) / 2
    assert metrics(0, "preserved", "strength_negative") == -1.5 / 2
    assert metrics(0, "preserved", "strength_total") == 5 / 2
    assert metrics(0, "preserved", "strength_positive", order=2) == 1 / 2
    assert metrics(0, "preserved", "strength_negative", order=2) == -1.5 / 2
    assert metrics(0, "preserved", "strength_negative", "or", 2) == -0.5 / 2
    assert metrics(0, "preserved", "strength_total", order=3) == 0.5 / 2
    assert metrics(0, "preserved", "strength_total", order=1) == 2 / 2
    assert metrics(10, "emerged", "strength_negative") == -1 / 2


def test_gamma_is_weighted_by_strength(metrics):
    # a: (2 + 0.5) / 4, b: 0 / 1
    assert metrics(0, "preserved", "gamma") == pytest.approx((2.5 / 4 + 0) / 2)
    assert metrics(0, "preserved", "gamma", "and") == pytest.approx((2 / 3 + 0) / 2)
    assert metrics(0, "preserved", "gamma_chance") == pytest.approx(((1 + 0.25 + 0.5) / 4 + 0) / 2)


def test_gamma_by_count_gives_every_interaction_weight_one(metrics):
    # a: 2 of 4, b: 0 of 1
    assert metrics(0, "preserved", "gamma_by_count") == pytest.approx((2 / 4 + 0) / 2)
    assert metrics(0, "preserved", "gamma_by_count", "and") == pytest.approx((1 / 2 + 0) / 2)
    chance = ((0.5 + 0.25 + 0 + 1) / 4 + 0) / 2
    assert metrics(0, "preserved", "gamma_by_count_chance") == pytest.approx(chance)
    assert metrics(10, "removed", "gamma_by_count", "or") is None


def test_rho_is_what_is_not_cancelled(metrics):
    assert metrics(0, "preserved", "rho") == pytest.approx((1 / 4 + 1) / 2)
    assert metrics(0, "preserved", "rho", "or") == 0


def test_chance_level_of_rho_is_its_mean_over_all_signs(metrics):
    sizes = [2.0, 1.0, 0.5, 0.5]
    signs = itertools.product([-1, 1], repeat=4)
    drawn = [abs(np.dot(row, sizes)) / sum(sizes) for row in signs]
    of_b = 1.0  # a single interaction cannot cancel
    expected = (np.mean(drawn) + of_b) / 2
    assert metrics(0, "preserved", "rho_chance") == pytest.approx(expected)


def test_chance_level_of_rho_of_ten_is_exact():
    sizes = [2.0**-k for k in range(10)]
    rows = [("a", 0, "preserved", "and", 1, size, None, None) for size in sizes]
    signs = itertools.product([-1, 1], repeat=10)
    expected = np.mean([abs(np.dot(row, sizes)) / sum(sizes) for row in signs])
    found = Metrics(dynamics(*rows), samples=("a",))(0, "preserved", "rho_chance")
    assert found == pytest.approx(expected)


def test_chance_level_of_rho_of_many_falls_with_their_number():
    rows = [("a", 0, "preserved", "and", 1, 1.0, None, None)] * 400
    # Of n equal sizes it is sqrt(2 / (pi n)) for large n.
    found = Metrics(dynamics(*rows), samples=("a",))(0, "preserved", "rho_chance")
    assert found == pytest.approx(math.sqrt(2 / (math.pi * 400)), rel=0.1)


def test_kept_signs_are_bounded_and_in_bytes():
    for n in range(20, 300):
        assert _signs(n).dtype == np.int8
        assert _signs(n).shape == (512, n)
    assert _signs.cache_info().currsize <= 256
    assert _signs(9).shape == (256, 9)  # all of them, up to a common sign


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_sizes_of_a_class():
    first, number = 1000, 600
    rows = pl.DataFrame({"row": range(number), "times": range(first, first + number)}).select(
        pl.col("row").repeat_by("times").explode(),
        order=1,
        effect=1.0,
        generalizable=None,
        chance=None,
    )
    tracemalloc.start()
    list(ratios(rows, "both", number, 12))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # 512 draws of signs for each size, in bytes, would be 400 MB.
    assert peak < 300e6


def test_ratios_are_means_over_the_samples_that_have_a_set(metrics):
    assert metrics.row(0, "preserved", "rho")["n_samples"] == 2
    assert metrics.row(10, "preserved", "rho")["n_samples"] == 1
    assert metrics(10, "preserved", "gamma") == 1
    assert metrics(10, "emerged", "gamma") == 0
    assert metrics.row(10, "preserved", "count")["n_samples"] == 2


def test_order_and_contribution_are_means_over_interactions(metrics):
    assert metrics(0, "preserved", "mean_order") == (1 + 2 + 2 + 3 + 2) / 5
    assert metrics(0, "preserved", "contribution") == (2 - 1 - 0.5 + 0.5 + 1) / 5
    assert metrics(0, "preserved", "contribution", "or") == 0
    assert metrics(10, "emerged", "contribution") == -1


def test_cross_entropy_is_that_of_the_class_alone(metrics):
    def loss(log_odds):
        return -math.log(1 / (1 + math.exp(-log_odds)))

    assert metrics(0, "preserved", "cross_entropy") == pytest.approx((loss(1) + loss(1)) / 2)
    # b has no emerged interaction: log-odds of 0
    assert metrics(10, "emerged", "cross_entropy") == pytest.approx((loss(-1) + math.log(2)) / 2)


def test_cross_entropy_of_large_effects_is_finite():
    rows = dynamics(("a", 0, "preserved", "and", 1, -2000.0, True, 0.0))
    assert Metrics(rows, samples=["a"])(0, "preserved", "cross_entropy") == pytest.approx(2000)


def test_nothing_has_emerged_or_left_before_training(metrics):
    for label in ("emerged", "removed"):
        for metric in ("count", "strength_total", "gamma", "rho", "mean_order", "cross_entropy"):
            row = metrics.row(0, label, metric)
            assert (row["value"], row["ci_low"], row["n_samples"]) == (None, None, 0)
        assert metrics.row(0, label, "count", order=1) is None


def test_an_empty_class_has_a_count_but_no_ratio(metrics):
    assert metrics(10, "removed", "count", "or") == 0
    assert metrics(10, "removed", "strength_total", "or") == 0
    assert metrics(10, "removed", "cross_entropy", "or") == pytest.approx(math.log(2))
    for metric in ("gamma", "gamma_chance", "rho", "mean_order", "contribution"):
        row = metrics.row(10, "removed", metric, "or")
        assert (row["value"], row["ci_low"], row["n_samples"]) == (None, None, 0)


def test_without_any_interaction_nothing_is_nan():
    metrics = Metrics(HAND_MADE.clear())
    assert metrics(0, "preserved", "count") == 0
    assert metrics(0, "preserved", "rho") is None
    assert not metrics.table["value"].is_nan().any()


def test_gamma_is_unknown_without_a_reference():
    rows = HAND_MADE.with_columns(
        generalizable=pl.lit(None, pl.Boolean), chance=pl.lit(None, pl.Float64)
    )
    metrics = Metrics(rows)
    for metric in ("gamma", "gamma_chance"):
        assert metrics(0, "preserved", metric) is None
    assert metrics(0, "preserved", "rho") is not None


def test_samples_without_salient_interactions_count_in_the_means():
    metrics = Metrics(HAND_MADE, samples=["a", "b", "c", "d"])
    assert metrics(0, "preserved", "count") == 5 / 4
    assert metrics.row(0, "preserved", "count")["n_samples"] == 4
    assert metrics(0, "preserved", "rho") == pytest.approx((1 / 4 + 1) / 2)


REFUSED = [
    ({"samples": "b"}, "samples: a, which {} has, is missing; give all samples of the run"),
    ({"samples": "cd"}, "samples: a, which {} has, is missing"),
    ({"steps": [0]}, "steps: 10, which {} has, is missing; give all steps of the run"),
    ({"steps": [10, 20]}, "steps: 0, which {} has, is missing"),
    (
        {"n_players": 2},
        "{}: sample a has an interaction of order 3, n_players is 2; give the number",
    ),
]


@pytest.mark.parametrize(("changed", "message"), REFUSED)
@pytest.mark.parametrize(
    ("place", "rows"),
    [
        ("dynamics", {"dynamics": HAND_MADE}),
        ("unchanged[1]", {"unchanged": [HAND_MADE.clear(), HAND_MADE]}),
        ("readings['joint']", {"readings": {"joint": HAND_MADE}}),
    ],
)
def test_samples_steps_and_players_of_another_run_are_refused(changed, message, place, rows):
    settings = {"samples": "ab", "steps": STEPS, "n_players": N, **changed}
    tables_of_run = {"dynamics": HAND_MADE.clear(), **rows}
    with pytest.raises(ValueError, match=re.escape(message.format(place))):
        compute_metrics(**tables_of_run, **settings, level=0.95)


def test_a_sample_that_is_there_twice_is_refused():
    with pytest.raises(ValueError, match="samples: a is there twice; name every sample once"):
        Metrics(HAND_MADE, samples=("a", "b", "a"))


def test_a_step_without_salient_interactions_counts_none():
    metrics = Metrics(HAND_MADE.filter(step=0))
    assert metrics(0, "preserved", "count") == 5 / 2
    assert metrics(10, "preserved", "count") == 0


def test_churn_floor_is_the_mean_over_draws():
    draws = [
        dynamics(
            ("a", 10, "emerged", "and", 3, 1.0, True, 0.0),
            ("a", 10, "emerged", "or", 5, -0.5, False, 0.0),
        ),
        dynamics(("b", 10, "emerged", "and", 3, 1.0, False, 0.0)),
    ]
    floors = Metrics(HAND_MADE, unchanged=draws)
    assert floors(10, "emerged", "churn_floor") == (2 + 1) / 4
    assert floors(10, "removed", "churn_floor") == 0
    assert floors(10, "emerged", "gamma_churn_floor") == pytest.approx((1 / 1.5 + 0) / 2)
    assert floors(10, "emerged", "rho_churn_floor") == pytest.approx((0.5 / 1.5 + 1) / 2)
    assert floors(10, "removed", "rho_churn_floor") is None
    first_only = Metrics(HAND_MADE, unchanged=draws, unchanged_samples=1)
    assert first_only(10, "emerged", "churn_floor") == 2 / 2
    assert first_only.row(10, "emerged", "churn_floor")["n_samples"] == 1
    of_three = Metrics(HAND_MADE, samples="acb", unchanged=draws, unchanged_samples=1)
    assert of_three(10, "emerged", "churn_floor") == 2 / 2


def test_other_readings_have_metrics_of_their_own():
    other = dynamics(
        ("a", 10, "emerged", "and", 3, 1.0, True, 0.0),
        ("a", 10, "emerged", "or", 5, -0.5, False, 0.0),
        ("b", 10, "emerged", "or", 7, 2.0, False, 0.0),
    )
    read = Metrics(HAND_MADE, readings={"joint": other, "certain": other.clear()})
    assert read(10, "emerged", "count_joint") == 3 / 2
    assert read(10, "emerged", "strength_total_joint") == 3.5 / 2
    assert read(10, "emerged", "mean_order_joint") == (2 + 2 + 3) / 3
    assert read(10, "emerged", "rho_joint") == pytest.approx((0.5 / 1.5 + 1) / 2)
    assert read(10, "emerged", "gamma_joint") == pytest.approx((1 / 1.5 + 0) / 2)
    assert read(10, "emerged", "count_certain") == 0
    assert read(10, "emerged", "gamma_certain") is None
    assert read.row(0, "emerged", "count_joint") is None


def test_no_churn_floor_without_draws(metrics):
    assert metrics.row(10, "emerged", "churn_floor") is None


def test_intervals_hold_their_value(metrics):
    assert metrics.table["ci_low"].null_count() == len(metrics.table)
    copies = [
        HAND_MADE.with_columns(pl.col("sample_id") + str(n), pl.col("effect") * (1 + n / 10))
        for n in range(5)
    ]
    samples = [f"{name}{n}" for n in range(5) for name in "ab"]
    table = Metrics(pl.concat(copies), samples).table.drop_nulls("value")
    assert (table["n_samples"] >= 5).all()
    have = table.drop_nulls("ci_low")
    assert {"count", "strength_total", "gamma", "rho", "cross_entropy"} <= set(have["metric"])
    assert (have["ci_low"] <= have["value"] + 1e-12).all()
    assert (have["value"] <= have["ci_high"] + 1e-12).all()
    assert have["ci_high"].null_count() == 0


@pytest.mark.parametrize("of_logarithm", [False, True])
@pytest.mark.parametrize("value", [0.0, 0.1, 1.0, 3.0, 1e6])
def test_samples_that_are_alike_give_no_interval(value, of_logarithm):
    ones = np.ones(8)
    known = Support(of_logarithm=of_logarithm)
    assert summarize(value * ones, ones, 0.95, known) == (pytest.approx(value), None, None, 8)


@pytest.mark.parametrize("sign", [1, -1])
def test_what_has_a_long_tail_has_the_interval_of_its_logarithm(sign):
    """The error of the logarithm, by leaving out each sample in turn."""
    values, ones = np.array([0.1, 0.2, 0.2, 0.9, 1.6, 0.4]), np.ones(6)
    without = np.log([np.delete(values, place).mean() for place in range(6)])
    error = math.sqrt(5 / 6 * ((without - without.mean()) ** 2).sum())
    factor = math.exp(scipy.stats.t.ppf(0.975, 5) * error)
    mean = values.mean()
    for metric in (
        ("strength_positive", "strength_total", "cross_entropy")
        if sign > 0
        else ("strength_negative",)
    ):
        found = summarize(sign * values, ones, 0.95, support(metric))
        ends = sorted([sign * mean / factor, sign * mean * factor])
        assert (found.ci_low, found.ci_high) == pytest.approx(ends)
    if sign > 0:
        found = summarize(values, ones, 0.95, support("gamma"))
        assert (found.ci_low, found.ci_high) == pytest.approx((mean / factor, 1.0))
        assert summarize(values, ones, 0.95, support("count")).ci_low == 0


def test_one_sample_that_alone_is_not_zero_gives_no_interval_of_a_logarithm():
    values, ones = np.array([0.0, 0.0, 0.0, 0.0, 0.0, 2.0]), np.ones(6)
    assert summarize(values, ones, 0.95, support("strength_total"))[1:3] == (None, None)
    assert summarize(values + np.eye(6)[0], ones, 0.95, support("strength_total")).ci_low > 0


def test_of_each_metric_is_known_what_it_can_be():
    read = ("count", "strength_positive", "mean_order", "cross_entropy", "strength_total_single")
    assert {support(metric).least for metric in read} == {0.0}
    assert {support(metric).largest for metric in read} == {math.inf}
    for metric in ("gamma", "rho", "gamma_chance", "rho_churn_floor"):
        assert support(metric)[:2] == (0.0, 1.0)
    assert support("contribution") == (-math.inf, math.inf, False)
    assert support("strength_negative") == (-math.inf, 0.0, True)


@pytest.mark.parametrize("n", [5, 8, 40])
def test_the_interval_of_a_mean_is_that_of_student(n):
    values = np.random.default_rng(n).normal(2.0, size=n)
    found = summarize(values, np.ones(n), 0.9, ANYTHING)
    error = values.std(ddof=1) / math.sqrt(n)
    assert found.value == pytest.approx(values.mean())
    expected = scipy.stats.t.interval(0.9, n - 1, loc=values.mean(), scale=error)
    assert (found.ci_low, found.ci_high) == pytest.approx(expected)


def test_samples_without_a_denominator_are_no_observations():
    values, ones = np.arange(8.0), np.ones(8)
    alone = summarize(values, ones, 0.95)
    with_others = summarize(np.append(values, [5.0, 0.0]), np.append(ones, [0.0, 0.0]), 0.95)
    assert with_others == alone
    assert alone.n_samples == 8


def test_no_interval_reaches_beyond_what_is_possible():
    values, ones = np.array([0.0, 0.0, 0.0, 0.0, 1.0]), np.ones(5)
    assert summarize(values, ones, 0.95, ANYTHING).ci_low < 0
    assert summarize(values, ones, 0.95).ci_low == 0
    assert summarize(1 - values, ones, 0.95, Support(largest=1.0)).ci_high == 1


@pytest.mark.parametrize(("used", "has_interval"), [(0, False), (1, False), (4, False), (5, True)])
def test_few_samples_have_no_interval(used, has_interval):
    denominator = np.append(np.ones(used), np.zeros(8 - used))
    found = summarize(np.arange(8.0) * denominator, denominator, 0.95)
    assert found.value == (np.arange(used).mean() if used else None)
    assert found.n_samples == used
    assert (found.ci_low is not None, found.ci_high is not None) == (has_interval, has_interval)


@pytest.mark.parametrize("n", [5, 8, 16])
def test_intervals_of_few_samples_hold_the_mean_as_often_as_they_say(n):
    ones = np.ones(n)
    found = [
        summarize(values, ones, 0.95, ANYTHING)
        for values in np.random.default_rng(0).poisson(8, size=(2000, n)) - 8.0
    ]
    held = np.mean([one.ci_low <= 0 <= one.ci_high for one in found])
    assert 0.93 <= held <= 0.97
