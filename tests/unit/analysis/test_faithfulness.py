import numpy as np
import polars as pl
import pytest
from sample_tables import checkpoint, write_checkpoint

from sft_interactions.analysis.faithfulness import (
    logical_log_odds,
    read_faithfulness,
    read_log_odds,
    relative_errors,
    summarize_errors,
    tabulate,
)

SAMPLES = ["a", "b", "c"]
NOISE_RATIO = 0.05
EVERY = {"rule": "absolute", "threshold": 1e-300}
NONE = {"rule": "absolute", "threshold": 1e9}


@pytest.fixture
def values():
    return np.random.default_rng(0).normal(size=(3, 16)).astype(np.float32).astype(float)


def test_logical_log_odds_follow_the_definition():
    schema = {"sample_id": pl.String, "kind": pl.String, "pattern": pl.UInt32, "effect": pl.Float64}
    rows = [
        ("a", "bias", 0, 1.0),
        ("a", "and", 0b11, 10.0),
        ("a", "or", 0b11, 100.0),
        ("b", "bias", 0, 2.0),
    ]
    frame = pl.DataFrame(rows, schema=schema, orient="row")
    expected = [[1, 101, 101, 111], [2, 2, 2, 2]]
    np.testing.assert_allclose(logical_log_odds(frame, ["a", "b"], 4), expected)


@pytest.fixture
def best(tmp_path, values):
    write_checkpoint(tmp_path, 5, SAMPLES, values, noise_ratio=NOISE_RATIO)
    return checkpoint(tmp_path, 5)


def test_log_odds_are_rebuilt_from_the_tables(best, values):
    found = read_log_odds(best, EVERY)
    np.testing.assert_array_equal(found.llm, values)
    np.testing.assert_allclose(found.salient, found.logical)
    errors = relative_errors(found.logical, found.llm)
    assert 0.9 * NOISE_RATIO < np.abs(errors).max() <= NOISE_RATIO * (1 + 1e-9)

    found = read_log_odds(best, NONE)
    assert np.ptp(found.salient, axis=1) == pytest.approx(0)


@pytest.mark.parametrize(("chosen", "shown"), [("b", "b"), ("elsewhere", "a"), (None, "a")])
def test_a_sample_of_another_data_set_is_replaced_by_the_first(best, chosen, shown):
    found = read_faithfulness(best, chosen, EVERY)
    assert (found.label, found.step, found.shown) == (best.label, 5, shown)
    assert found.n_samples == len(SAMPLES)


def test_table_has_the_errors_of_all_and_of_the_salient_interactions(best):
    table = tabulate([{5: best}], NONE, level=0.95)
    assert table.select("run", "step", "interactions").rows() == [
        (best.label, 5, "all"),
        (best.label, 5, "salient"),
    ]
    every, salient = table["mean_error"].to_list()
    assert every <= NOISE_RATIO * (1 + 1e-9) < salient
    assert table["n_samples"].to_list() == [len(SAMPLES)] * 2


def test_errors_are_relative_to_the_range_and_undefined_without_one():
    values = np.array([*[[0.0, 1.0, 2.0, 4.0]] * 5, [3.0, 1.0, 2.0, 3.0]])
    errors = relative_errors(values + 1, values)
    np.testing.assert_allclose(errors[:5], 0.25)
    assert np.isnan(errors[5]).all()
    found = summarize_errors(errors, level=0.95)
    assert found == {
        "mean_error": 0.25,
        "ci_low": None,
        "ci_high": None,
        "largest_error": 0.25,
        "n_samples": 5,
    }
    few = summarize_errors(errors[1:], level=0.95)
    assert (few["mean_error"], few["ci_low"], few["n_samples"]) == (0.25, None, 4)
