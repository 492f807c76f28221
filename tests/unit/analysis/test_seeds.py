"""Metrics of one fine-tuning that was repeated with several seeds."""

import numpy as np
import polars as pl
import pytest
from sample_tables import dynamics_of

from sft_interactions.analysis.intervals import interval_over_seeds, leave_one_out
from sft_interactions.analysis.metrics import compute_metrics
from sft_interactions.analysis.seeds import compute_metrics_over_seeds

SAMPLES = list("abcdef")
STEPS = [0, 10]
N = 5


def run_of(counts):
    """A run with so many interactions before SFT, sample by sample, and one fewer after."""

    def checkpoint(less):
        return {
            sample: dict.fromkeys((1, 2, 3, 4, 5, 6)[: max(n - less, 0)], 1.0)
            for sample, n in zip(SAMPLES, counts, strict=True)
        }

    return dynamics_of(checkpoint(0), checkpoint(1))


def over_seeds(*runs):
    return compute_metrics_over_seeds(runs, SAMPLES, STEPS, N, level=0.95)


def row(table, step, label, metric):
    return table.filter(pl.col("class") == label, step=step, metric=metric).row(0, named=True)


def test_the_value_is_the_mean_over_seeds_and_the_interval_that_of_the_protocol():
    counts = np.array([[1, 2, 3, 4, 5, 6], [2, 2, 4, 4, 6, 6], [1, 1, 1, 2, 2, 5]])
    found = row(over_seeds(*map(run_of, counts)), 0, "preserved", "count")
    sums = np.stack([leave_one_out(one.astype(float)) for one in counts])
    sizes = leave_one_out(np.ones(len(SAMPLES)))
    expected = interval_over_seeds(sums / sizes, 0.95)
    assert (found["value"], found["ci_low"], found["ci_high"]) == pytest.approx(expected)
    assert found["value"] == pytest.approx(counts.mean())
    assert found["n_pairs"] == 18


def test_metrics_are_those_of_single_runs():
    runs = [run_of([1, 2, 3, 4, 5, 6]), run_of([2, 2, 4, 4, 6, 6]), run_of([3, 3, 3, 3, 3, 3])]
    singles = [
        compute_metrics(one, SAMPLES, STEPS, N, level=0.95).filter(
            pl.col("order").is_null(), kind="both"
        )
        for one in runs
    ]
    table = over_seeds(*runs)
    assert {"mean_order", "rho", "cross_entropy"} <= set(table["metric"])
    for found in table.iter_rows(named=True):
        values = [
            row(one, found["step"], found["class"], found["metric"])["value"] for one in singles
        ]
        if None in values:
            assert found["value"] is None
        else:
            assert found["value"] == pytest.approx(np.mean(values)), found
    # Nothing can have emerged or gone before SFT.
    assert set(table.filter(step=0)["class"]) == {"preserved"}


def test_two_seeds_have_no_interval():
    table = over_seeds(*[run_of([1, 2, 3, 4, 5, 6])] * 2)
    assert table["ci_low"].is_null().all()
    assert table["ci_high"].is_null().all()
    assert row(table, 0, "preserved", "count")["value"] == 3.5


def test_samples_without_an_interaction_do_not_count_for_a_mean_over_interactions():
    few = row(over_seeds(*[run_of([3, 3, 3, 3, 0, 0])] * 3), 0, "preserved", "mean_order")
    assert (few["value"], few["ci_low"], few["n_pairs"]) == (pytest.approx(4 / 3), None, 12)


@pytest.mark.slow
def test_the_interval_of_three_seeds_holds_the_true_value():
    """Seeds that differ more than samples, as in docs/protocol.md: it is rather too wide."""
    rng = np.random.default_rng(0)
    hits = []
    for _ in range(300):
        of_seeds = rng.normal(0, 2, (3, 1)) + rng.normal(0, 1, 16)
        values = np.stack([leave_one_out(one) for one in of_seeds]) / leave_one_out(np.ones(16))
        _, low, high = interval_over_seeds(values, 0.95)
        hits.append(low <= 0 <= high)
    assert np.mean(hits) >= 0.92
