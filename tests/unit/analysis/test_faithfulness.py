import numpy as np
import polars as pl
import pytest

from sft_interactions import tables
from sft_interactions.analysis.faithfulness import (
    logical_log_odds,
    read_log_odds,
    relative_errors,
    summarize_errors,
)
from sft_interactions.extraction.interactions import from_extraction
from sft_interactions.extraction.program import extract

SAMPLES = ["a", "b", "c"]
NOISE_RATIO = 0.05


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


def test_read_log_odds_rebuild_the_outputs_of_the_tables(tmp_path, values):
    interactions, solve = from_extraction(SAMPLES, values, extract(values, noise_ratio=NOISE_RATIO))
    log_odds = pl.DataFrame(
        {
            "sample_id": np.repeat(SAMPLES, 16),
            "mask": np.tile(np.arange(16), 3),
            "log_odds": values.ravel(),
        }
    )
    provenance = {"created_by": "test", "config_hash": "0"}
    stem = tmp_path / "interactions" / "step-5"
    tables.write(interactions, stem.with_suffix(".parquet"), tables.INTERACTIONS, **provenance)
    tables.write(solve, stem.with_suffix(".solve.parquet"), tables.SOLVE, **provenance)
    path = tmp_path / "log_odds" / "step-5.parquet"
    tables.write(log_odds, path, tables.LOG_ODDS, **provenance)

    every = {"rule": "absolute", "threshold": 1e-300}
    found = read_log_odds(tmp_path, 5, every)
    np.testing.assert_array_equal(found.llm, values)
    np.testing.assert_allclose(found.salient, found.logical)
    errors = relative_errors(found.logical, found.llm)
    assert 0.9 * NOISE_RATIO < np.abs(errors).max() <= NOISE_RATIO * (1 + 1e-9)

    none = read_log_odds(tmp_path, 5, {"rule": "absolute", "threshold": 1e9})
    assert np.ptp(none.salient, axis=1) == pytest.approx(0)


def test_errors_are_relative_to_the_range_and_undefined_without_one():
    values = np.array([[0.0, 1.0, 2.0, 4.0], [3.0, 1.0, 2.0, 3.0]])
    errors = relative_errors(values + 1, values)
    np.testing.assert_allclose(errors[0], 0.25)
    assert np.isnan(errors[1]).all()
    found = summarize_errors(errors, resamples=20, level=0.95, seed=0)
    assert found == {
        "mean_error": 0.25,
        "ci_low": 0.25,
        "ci_high": 0.25,
        "largest_error": 0.25,
        "n_samples": 1,
    }
