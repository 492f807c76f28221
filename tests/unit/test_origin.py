"""A table lies where it was written, and the tables of a run come of the same prompts."""

import shutil

import polars as pl
import pytest

from sft_interactions import tables
from sft_interactions.origin import check_inputs, digest_prompts

PROMPTS = pl.DataFrame(
    {
        "sample_id": ["a", "b"],
        "rendered": ["x", "y"],
        "token_ids": [[1, 2], [3]],
        "player_of_token": [[0, -1], [0]],
        "target_token_ids": [[5], [6]],
        "target_text": ["t", "u"],
    }
)
LOG_ODDS = pl.DataFrame({"sample_id": ["a"], "mask": [0], "log_odds": [0.5]})
BY = {"created_by": "test", "config_hash": "0"}


@pytest.fixture
def results(tmp_path):
    """Two runs with two checkpoints each, and tables of another study."""
    for study, digest in (("results", "of this one"), ("other", "of another")):
        for run in ("first", "second"):
            for step in (0, 5):
                tables.write(
                    LOG_ODDS,
                    tmp_path / study / f"runs/{run}/log_odds/step-{step}.parquet",
                    tables.LOG_ODDS,
                    results=tmp_path / study,
                    prompts={run: f"{digest} {run}"},
                    **BY,
                )
    return tmp_path / "results"


def files_of(results, run="first"):
    return [results / f"runs/{run}/log_odds/step-{step}.parquet" for step in (0, 5)]


def test_the_prompts_are_handed_on(results):
    found = check_inputs([*files_of(results), *files_of(results, "second")], results)
    assert found == {"first": "of this one first", "second": "of this one second"}
    assert check_inputs([results / "runs" / "first" / "log_odds"], results) == {
        "first": "of this one first"
    }
    path = results / "runs" / "first" / "dynamics.parquet"
    tables.write(LOG_ODDS, path, tables.LOG_ODDS, results=results, prompts=found, **BY)
    metadata = tables.read_metadata(path)
    assert metadata["place"] == "runs/first/dynamics.parquet"
    assert metadata["prompts_digest"] == "of this one first"


def test_a_table_of_several_runs_has_the_prompts_of_none(results):
    path = results / "findings.parquet"
    tables.write(LOG_ODDS, path, tables.LOG_ODDS, results=results, prompts={"first": "x"}, **BY)
    assert "prompts_digest" not in tables.read_metadata(path)
    assert check_inputs([path], results) == {}


def test_a_table_of_another_checkpoint_or_run_is_refused(results):
    first, second = files_of(results)
    shutil.copy(first, second)
    with pytest.raises(
        ValueError, match=r"step-5\.parquet: this table was written as runs/first/log_odds/"
    ):
        check_inputs([first, second], results)
    shutil.copy(files_of(results, "second")[1], second)
    with pytest.raises(ValueError, match=r"was written as runs/second/log_odds/step-5\.parquet of"):
        check_inputs([first, second], results)


def test_a_table_of_another_study_is_refused(results):
    first, second = files_of(results)
    shutil.copy(files_of(results.parent / "other")[1], second)
    with pytest.raises(ValueError, match="comes of other prompts than") as error:
        check_inputs([first, second], results)
    assert str(error.value).startswith(f"{second}: ")
    assert str(first) in str(error.value)


def test_a_folder_of_results_may_get_another_name(results):
    moved = results.rename(results.with_name("moved"))
    assert check_inputs(files_of(moved), moved) == {"first": "of this one first"}


def test_files_of_users_are_not_looked_at(results, tmp_path):
    own = tmp_path / "own.parquet"
    own.write_bytes(b"PAR1 and whatever a user has")
    assert check_inputs([own, tmp_path / "notes.txt", tmp_path], results) == {}


def test_tables_of_older_versions_are_read(results):
    path = results / "runs" / "first" / "log_odds" / "step-5.parquet"
    frame = tables.read(path, tables.LOG_ODDS)
    frame.write_parquet(path, metadata={"schema_version": tables.WITHOUT_DIGEST})
    assert check_inputs([path], results) == {}


def test_the_digest_is_of_what_is_masked():
    rows = tables.check(PROMPTS, tables.PROMPTS, "prompts")
    assert digest_prompts(rows) == digest_prompts(rows.sort("sample_id", descending=True))
    assert digest_prompts(rows) == digest_prompts(rows.with_columns(rendered=pl.lit("z")))
    others = {
        "sample_id": ["a", "c"],
        "token_ids": [[1, 2], [4]],
        "player_of_token": [[-1, 0], [0]],
        "target_token_ids": [[5], [7]],
    }
    for column, values in others.items():
        other = tables.check(
            PROMPTS.with_columns(pl.Series(column, values)), tables.PROMPTS, "prompts"
        )
        assert digest_prompts(other) != digest_prompts(rows), column
