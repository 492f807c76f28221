"""A table lies where it was written, comes of the prompts of its run, and was made of what lies there."""

import json
import os
import shutil

import polars as pl
import pytest

from sft_interactions import tables
from sft_interactions.files import write_checksums
from sft_interactions.origin import (
    check_inputs,
    check_page,
    check_sources,
    digest_prompts,
    inputs_digest,
    made_of,
    note_of_page,
    training_digest,
)

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


RUN = {"finetune": {"steps": 3}, "seed": 1}
RUNS = {"first": RUN}


def write(path, root, sources, value=0.5, **metadata):
    """A table of one row, made of some files."""
    tables.write(
        LOG_ODDS.with_columns(log_odds=pl.lit(value)),
        path,
        tables.LOG_ODDS,
        results=root,
        prompts=metadata.pop("prompts", None),
        made_of=made_of(sources, root),
        metadata=metadata,
        **BY,
    )
    return path


def make_chain(root, seed):
    """A run as the rules write it: its training, log-odds, interactions, stages and a figure."""
    run = root / "runs" / "first"
    model = root / "models" / "llama"
    for folder, weights in ((model, "base"), (run / "checkpoints" / "step-3", f"seed {seed}")):
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(weights.encode())
    checkpoint = run / "checkpoints" / "step-3"
    write(
        run / "training.parquet",
        root,
        [model],
        **{
            tables.CHECKPOINTS: json.dumps(made_of([checkpoint], root)),
            tables.TRAINING_DIGEST: training_digest({**RUN, "seed": seed}),
        },
    )
    write(run / "prompts.parquet", root, [model], prompts={"first": "of both"})
    # The same numbers, so that the digest of what they were made of alone differs.
    log_odds = write(
        run / "log_odds" / "step-3.parquet", root, [model, checkpoint], prompts={"first": "of both"}
    )
    interactions = write(run / "interactions" / "step-3.parquet", root, [log_odds])
    tables.write_json(
        {"run": "first"}, run / "stages.json", results=root, made_of=made_of([interactions], root)
    )
    figure = root / "fig--1.svg"
    figure.write_bytes(b"<svg/>\n")
    tables.note_in_picture(figure, "fig--1.svg", made_of([run / "stages.json"], root))
    return root


@pytest.fixture
def chains(tmp_path):
    """Two studies that differ in the seed of the fine-tuning alone."""
    return make_chain(tmp_path / "results", 1), make_chain(tmp_path / "other", 2)


PLACES = [
    "runs/first/training.parquet",
    "runs/first/log_odds/step-3.parquet",
    "runs/first/interactions/step-3.parquet",
    "runs/first/stages.json",
    "fig--1.svg",
]


def test_a_whole_chain_is_taken(chains):
    for root in chains:
        files = [root / "runs" / "first" / "checkpoints", *(root / place for place in PLACES)]
        assert check_sources(files, root) == []
    root, _ = chains
    assert check_sources([root / PLACES[-1]], root, runs=RUNS) == []
    moved = root.rename(root.with_name("moved"))
    assert check_sources([moved / PLACES[-1]], moved, runs=RUNS) == []


@pytest.mark.parametrize("place", PLACES)
def test_a_table_of_another_fine_tuning_is_refused(chains, place):
    root, other = chains
    shutil.copyfile(other / place, root / place)
    # Wherever below it one begins.
    for reader in PLACES[PLACES.index(place) :]:
        with pytest.raises(ValueError, match="so one of them is of another fine-tuning") as error:
            check_sources([root / reader], root)
        said = str(error.value)
        assert "\n" not in said
        assert said.startswith(f"{root / place}: this was ")
        assert f"with snakemake --cores 1 --force {root / place} and the other options" in said


def test_checkpoints_of_another_fine_tuning_are_refused(chains):
    root, other = chains
    weights = "runs/first/checkpoints/step-3/model.safetensors"
    shutil.copyfile(other / weights, root / weights)
    folder = root / "runs" / "first" / "checkpoints"
    for given in (folder, folder / "step-3"):
        with pytest.raises(
            ValueError, match=r"training\.parquet: this was written with runs/first/"
        ):
            check_sources([given], root, runs=RUNS)
        # Those that a run brings are not of a training that may have been here before.
        assert check_sources([given], root, runs={"first": {**RUN, "checkpoints": {}}}) == []
        assert check_sources([given], root, runs={}) == []


def test_a_whole_run_of_another_fine_tuning_is_refused(chains):
    root, other = chains
    shutil.rmtree(root / "runs")
    shutil.copytree(other / "runs", root / "runs")
    with pytest.raises(ValueError, match=r"with other settings or another seed .* than run first"):
        check_sources([root / PLACES[2]], root, runs=RUNS)
    assert check_sources([root / PLACES[2]], root, runs={"first": {**RUN, "seed": 2}}) == []


def test_a_chain_of_other_prompts_is_refused(chains):
    root, _ = chains
    run = root / "runs" / "first"
    model = root / "models" / "llama"
    write(run / "prompts.parquet", root, [model], prompts={"first": "of others"})
    with pytest.raises(ValueError, match=r"log_odds/step-3\.parquet: .* comes of other prompts"):
        check_sources([root / "runs/first/interactions/step-3.parquet"], root)


def test_stages_of_another_run_are_refused(chains):
    root, _ = chains
    place = root / "runs" / "second" / "stages.json"
    place.parent.mkdir()
    shutil.copy(root / "runs" / "first" / "stages.json", place)
    with pytest.raises(ValueError, match=r"was written as runs/first/stages\.json of"):
        check_sources([place], root)


def test_what_is_not_there_any_more_is_left_out(chains):
    root, _ = chains
    shutil.rmtree(root / "runs" / "first" / "checkpoints")
    shutil.rmtree(root / "models")
    shutil.rmtree(root / "runs" / "first" / "log_odds")
    assert check_sources([root / PLACES[-1]], root, runs=RUNS) == []


def test_tables_that_do_not_tell_what_they_were_made_of_are_named(chains):
    root, _ = chains
    old = root / "runs" / "first" / "interactions" / "step-3.parquet"
    tables.write(LOG_ODDS, old, tables.LOG_ODDS, results=root, **BY)
    assert check_sources([old, root / PLACES[0]], root) == [old]
    plain = root / "plain.svg"
    plain.write_text("<svg/>")
    tables.write_json({"run": "first"}, root / "runs" / "first" / "stages.json")
    files = [plain, root / "runs" / "first" / "stages.json"]
    assert check_sources(files, root) == files
    LOG_ODDS.write_parquet(old, metadata={"schema_version": tables.WITHOUT_DIGEST})
    assert check_sources([old], root) == [old]


def test_a_damaged_source_is_told_in_one_line(chains):
    root, _ = chains
    path = root / "runs" / "first" / "log_odds" / "step-3.parquet"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(ValueError, match="this is not what was written"):
        check_sources([root / PLACES[2]], root)


def test_a_page_knows_what_it_was_made_of(chains):
    root, other = chains
    page, files = root / "verdict.md", [root / place for place in PLACES[2:4]]
    page.write_text(f"# Verdict\n\n{note_of_page(files, root)}")
    assert check_page(page, files, root)
    assert check_page(page, files[::-1], root)
    foreign = note_of_page([other / place for place in PLACES[2:4]], other)
    page.write_text(f"# Verdict\n\n{foreign}")
    with pytest.raises(
        ValueError, match=r"verdict\.md: this was made of tables \w{32}, .*; make it"
    ):
        check_page(page, files, root)
    page.write_text("# Verdict\n")
    assert not check_page(page, files, root)
    page.write_text("")
    assert not check_page(page, files, root)


def test_a_picture_is_the_same_without_its_note(chains):
    root, _ = chains
    picture = (root / "fig--1.svg").read_bytes()
    assert picture.count(b"--") == 2  # a comment has none inside
    assert tables.without_note(picture) == b"<svg/>\n"
