"""A table lies where it was written, and the tables of a run come of the same prompts."""

import os
import shutil

import polars as pl
import pytest

from sft_interactions import tables
from sft_interactions.files import write_checksums
from sft_interactions.origin import check_inputs, digest_prompts, inputs_digest

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
BY = {"created_by": "test", "inputs_digest": "0"}


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


@pytest.fixture
def checkpoint(tmp_path):
    folder = tmp_path / "results" / "checkpoints"
    for step in ("step-0", "step-5"):
        (folder / step).mkdir(parents=True)
        (folder / step / "adapter_config.json").write_text("{}")
        (folder / step / "adapter_model.safetensors").write_bytes(step.encode())
    write_checksums(folder / "step-0")
    return folder


def test_a_table_knows_what_it_depends_on(results, checkpoint):
    files = [*files_of(results), checkpoint]

    def digest(files=files, **settings):
        return inputs_digest({"n": 3, **settings}, files, results)

    before = digest()
    assert len(before) == 16
    assert digest() == before
    assert digest(n=4) != before
    assert digest(files=[*files_of(results)[::-1], checkpoint]) != before
    # Whatever lies beside it, whenever it was written, and where; what lies elsewhere is in the settings.
    (checkpoint / "step-0" / "optimizer.pt").write_bytes(b"state")
    (checkpoint / ".snakemake_timestamp").touch()
    os.utime(files_of(results)[0], (1, 1))
    assert digest(files=[*files, results.parent / "mine.csv"]) == before
    moved = results.rename(results.with_name("moved"))
    files = [*files_of(moved), moved / "checkpoints"]
    assert inputs_digest({"n": 3}, files, moved) == before


@pytest.mark.parametrize(
    "change",
    [
        lambda results, _: tables.write(
            LOG_ODDS.with_columns(log_odds=pl.lit(0.25)),
            results / "runs/first/log_odds/step-5.parquet",
            tables.LOG_ODDS,
            **BY,
        ),
        lambda _, folder: (folder / "step-0" / "SHA256SUMS").write_text(f"{'0' * 64}  a.json\n"),
        lambda _, folder: (folder / "step-5" / "adapter_model.safetensors").write_bytes(b"step-6"),
        lambda _, folder: (folder / "step-5").rename(folder / "step-6"),
    ],
    ids=["a table", "checksums", "weights without checksums", "another step"],
)
def test_what_a_table_is_made_of_changes_its_digest(results, checkpoint, change):
    files = [files_of(results)[1], checkpoint]
    before = inputs_digest({}, files, results)
    change(results, checkpoint)
    assert inputs_digest({}, files, results) != before


def test_tables_of_older_versions_are_known_by_their_content(results):
    path = results / "old.parquet"
    LOG_ODDS.write_parquet(path, metadata={"schema_version": tables.WITHOUT_DIGEST})
    before = inputs_digest({}, [path], results)
    LOG_ODDS.with_columns(mask=pl.lit(1)).write_parquet(path)
    assert inputs_digest({}, [path], results) != before
