import numpy as np
import polars as pl
import pytest
from sample_tables import BEST, SALIENCE, SAMPLES, STEPS, N, checkpoint, write_run

from sft_interactions import tables
from sft_interactions.analysis.salience import read_salient
from sft_interactions.analysis.sparsity import (
    n_possible,
    read_sparsity,
    sorted_strengths,
    summarize_counts,
    tabulate,
)


def interactions(effects):
    rows = [
        (sample_id, "and" if number % 2 else "or", number + 1, 1, effect)
        for sample_id, row in effects.items()
        for number, effect in enumerate(row)
    ]
    rows += [(sample_id, "bias", 0, 0, 99.0) for sample_id in effects]
    return pl.DataFrame(rows, schema=tables.INTERACTIONS.columns, orient="row")


def solve(differences, ranges=None):
    """The columns of a ``solve`` table that are read; by default no difference is a small one."""
    return pl.DataFrame(
        {
            "sample_id": list(differences),
            "log_odds_difference": list(differences.values()),
            "log_odds_range": [ranges[s] if ranges else d for s, d in differences.items()],
        }
    )


def test_strengths_are_sorted_and_relative_without_the_bias():
    found = sorted_strengths(interactions({"a": [1.0, -4.0, 2.0]}))
    assert found["a"].tolist() == [1.0, 0.5, 0.25]


@pytest.mark.parametrize("n", [2, 3, 5])
def test_number_of_possible_interactions(n):
    patterns = np.arange(1, 2**n)
    single = (patterns & (patterns - 1)) == 0
    assert n_possible(n) == len(patterns) + (~single).sum()


def test_tables_of_checkpoints_are_read(tmp_path):
    write_run(tmp_path)
    checkpoints = {step: checkpoint(tmp_path, step) for step in STEPS}
    best = checkpoints[BEST]
    read = read_sparsity(best, N, SALIENCE)
    salient = read_salient(best.tables["interactions"], best.tables["solve"], SALIENCE)
    assert (read.label, read.step, read.n_possible) == (best.label, BEST, n_possible(N))
    assert read.n_salient == len(salient) / len(SAMPLES)
    assert [strengths[0] for strengths in read.strengths] == [1.0] * len(SAMPLES)

    table = tabulate([checkpoints], N, SALIENCE, level=0.95)
    assert table["step"].unique(maintain_order=True).to_list() == list(STEPS)
    assert set(table["possible"]) == {n_possible(N)}
    assert table.filter(step=BEST, quantity="salient")["value"].item() == read.n_salient


def test_counts():
    of_sample = {"a": [10.0, -8.0, 1.0, 1.0], "b": [1.0], "c": []}
    rows = interactions({**of_sample, **{2 * name: one for name, one in of_sample.items()}})
    salient = rows.filter(pl.col("kind") != "bias", pl.col("effect").abs() >= 1.5)
    table = solve(dict.fromkeys(["a", "b", "c", "aa", "bb", "cc"], 1.0))
    found = summarize_counts(rows, salient, table, level=0.9)
    values = dict(found.select("quantity", "value").rows())
    assert values["nonzero"] == pytest.approx(5 / 3)
    assert values["salient"] == pytest.approx(2 / 3)
    assert values["for_strength"] == pytest.approx((2 + 1 + 0) / 3)  # 18 of 20 are 90 %
    assert values["salient_strength"] == pytest.approx((18 / 20 + 0) / 2)
    assert values["small_difference"] == values["salient_of_small_difference"] == 0
    assert found["n_samples"].to_list() == [6, 6, 6, 4, 6, 2]
    inside = found.filter(pl.col("value").is_between("ci_low", "ci_high"))
    # Nothing is told of fewer than five, nor where all are alike.
    assert inside["quantity"].to_list() == ["nonzero", "salient", "for_strength"]
    assert found["ci_low"].null_count() == 3


def summarize(rows, salient, samples):
    table = solve(dict.fromkeys(samples, 1.0))
    return summarize_counts(rows, salient, table, level=0.9)


def test_strength_is_that_of_the_salient_rows_under_any_rule():
    rows = interactions({"a": [10.0, -8.0, 1.0, 1.0], "b": [4.0, 2.0]})
    # Neither the strongest nor as many in every sample.
    salient = rows.filter(pl.col("effect").is_in([-8.0, 1.0, 2.0]))
    found = summarize(rows, salient.cast({"kind": tables.KIND}), ["a", "b"])
    values = dict(found.select("quantity", "value").rows())
    assert values["salient"] == pytest.approx((3 + 1) / 2)
    assert values["salient_strength"] == pytest.approx((10 / 20 + 2 / 6) / 2)


def test_strength_of_the_strongest_is_summed_from_the_strongest_on():
    # To the last digit, in which a sum depends on the order of its terms.
    random = np.random.default_rng(0)
    effects = {f"s{i}": random.normal(size=200).tolist() for i in range(5)}
    rows = interactions(effects)
    salient = rows.filter(pl.col("kind") != "bias", pl.col("effect").abs() >= 0.3)
    expected = []
    for strengths in sorted_strengths(rows).values():
        kept = strengths >= 0.3 / max(map(abs, effects[f"s{len(expected)}"]))
        expected.append(strengths[: kept.sum()].sum() / strengths.sum())
    found = summarize(rows, salient.sample(fraction=1, shuffle=True, seed=0), list(effects))
    value = found.filter(quantity="salient_strength")["value"].item()
    assert value == np.array(expected).sum() / 5


def test_what_comes_from_samples_with_a_small_difference():
    rows = interactions({"a": [3.0, 2.0, 1.0], "b": [1.0], "c": [1.0, 0.1]})
    salient = rows.filter(pl.col("kind") != "bias", pl.col("effect") >= 1)
    # On a quarter of the range a difference is not small.
    table = solve({"a": 0.24, "b": 0.25, "c": 1.0}, {"a": 1.0, "b": 1.0, "c": 1.0})
    found = summarize_counts(rows, salient, table, level=0.9)
    values = dict(found.select("quantity", "value").rows())
    assert values["small_difference"] == pytest.approx(1 / 3)
    assert values["salient_of_small_difference"] == pytest.approx(3 / 5)
    none = summarize_counts(rows, salient.clear(), table, level=0.9)
    assert none.filter(quantity="salient_of_small_difference")["value"].to_list() == [None]
