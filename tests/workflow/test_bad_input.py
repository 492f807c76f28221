"""Bad input to the whole workflow: told before any job, in one line, with nothing left over."""

import copy
import json
import re

import pytest
from bad_input import assert_one_line
from tiny_study import CONFIG, ROWS, snakemake

pytestmark = pytest.mark.slow


@pytest.fixture
def unstarted(model_folders, tmp_path):
    """A study of which nothing has been made."""
    (tmp_path / "lines.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    config = copy.deepcopy(CONFIG)
    for name, model in config["models"].items():
        model["source"] = f"path:{model_folders[name]}"
    return tmp_path, config


def test_check_makes_data_models_and_prompts_alone(unstarted):
    done = snakemake(*unstarted, "check", "--dry-run")
    assert done.returncode == 0, done.stdout[-5000:]
    jobs = set(re.findall(r"^(\w+) +\d+$", done.stdout, re.M))
    assert jobs == {"check", "model", "data", "prompts", "total"}


def test_on_one_core_prompts_of_all_runs_come_before_the_first_training(unstarted):
    folder, config = unstarted
    trained = "results/runs/gemma3-tiny/training.parquet"
    prompts = [f"results/runs/{run}/prompts.parquet" for run in config["runs"]]
    done = snakemake(folder, config, trained, *prompts, "--jobs", "1")
    assert done.returncode == 0, done.stdout[-5000:]
    started = re.findall(
        r"^Job \d+: (Preparing|Filtering|Rendering|Fine-tuning)", done.stdout, re.M
    )
    assert started[-1] == "Fine-tuning"
    assert sorted(started[:-1]) == ["Filtering", *["Preparing"] * 2, *["Rendering"] * 2]


OPTIONS = {
    "a value that is none": (["--config", "seed=-1"], "--config: seed: -1 must be at least 0"),
    "an option twice": (
        ["--config", "seed=1", "--config", "results=x"],
        "--config is given 2 times",
    ),
    "an unknown key": (["--config", "sed=1"], "unknown key 'sed'; did you mean seed?"),
    "tables that are touched": (["--touch"], "--touch: "),
    "metadata that are dropped": (["--drop-metadata"], "--drop-metadata: "),
    "no trigger of params": (["--rerun-triggers", "mtime"], "--rerun-triggers: without params"),
}


@pytest.mark.bad_input(of="command_line")
@pytest.mark.parametrize(("options", "message"), OPTIONS.values(), ids=OPTIONS)
def test_a_bad_command_line_starts_nothing(unstarted, options, message):
    folder, _ = unstarted
    done = snakemake(*unstarted, *options)
    assert done.returncode != 0
    (line,) = [line for line in done.stdout.splitlines() if message in line]
    assert_one_line(line)
    assert "Traceback" not in done.stdout
    assert not (folder / "results").exists()


def too_few_rows(config):
    config["datasets"]["lines"]["train"] = 10_000


def another_column(config):
    config["datasets"]["lines"]["prompt"] = "question"


def many_words(config):
    config["datasets"]["lines"]["filter"] = {"min_words": 1000}


IN_JOBS = {
    "rows": (too_few_rows, r"^data: .*10000 rows wanted"),
    "column": (another_column, r"^data: .*there is no column 'question'; name one of"),
    "filter": (many_words, r"^data: .* 3 rows wanted, 0 available; lower analysis, loosen filter"),
}


@pytest.mark.bad_input(of="data")
@pytest.mark.parametrize(("change", "message"), IN_JOBS.values(), ids=IN_JOBS)
def test_data_that_do_not_suffice_stop_before_training(unstarted, change, message):
    folder, config = unstarted
    del config["runs"]["gemma3-tiny"], config["runs"]["llama-tiny"]["reference_run"]
    change(config)
    done = snakemake(folder, config, "check")
    assert done.returncode != 0
    (line,) = {line for line in done.stdout.splitlines() if re.search(message, line)}
    assert_one_line(line)
    # Once more at the end, where it is looked for.
    assert done.stdout.rindex(line) > done.stdout.index("Exiting because a job execution failed")
    assert not list((folder / "results").glob("data/*/*.parquet"))
    assert not (folder / "results" / "runs").exists()


@pytest.mark.parametrize("table", ["seeds", "seed-verdicts", "seed-agreement"])
def test_a_table_over_seeds_of_a_study_without_any_is_refused(unstarted, table):
    folder, _ = unstarted
    done = snakemake(*unstarted, f"results/tables/{table}.csv")
    assert done.returncode != 0
    (line,) = {line for line in done.stdout.splitlines() if "seed alone" in line}
    assert_one_line(line)
    assert not list((folder / "results" / "tables").glob("seed*"))
