"""What runs again after a change, and what is taken from where it is kept."""

import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time

import polars as pl
import pytest
from tiny_study import CONFIG, ROOT, ROWS, STEPS, snakemake

PAGE = (ROOT / "docs" / "reruns.md").read_text()
# By the first cell of the table in docs/reruns.md: what is laid over the config.
CHANGES = {
    "a label of a run, `figures`": {"runs": {"gemma3-tiny": {"label": "Gemma"}}},
    "`bootstrap.resamples`": {"bootstrap": {"resamples": 60}},
    "`bootstrap.level`": {"bootstrap": {"level": 0.8}},
    "`stages`": {"stages": {"removed_share": 0.7}},
    "`stability`": {"stability": {"draws": 3}},
    "`salience`": {"salience": {"threshold": 0.2}},
    "`optima`": {"optima": {"l1_tolerance": 1e-5}},
    "`extraction`": {"extraction": {"noise_ratio": 0.02}},
    "one more choice of `sensitivity`": {"sensitivity": {"tie_breaks": ["hash-1", "hash-2"]}},
    "one more of `sensitivity.mask_embeddings`": {
        "sensitivity": {"mask_embeddings": ["token", "zero", "mean"]}
    },
    "`inference.shards`, `inference.checkpoints_per_job`": {"inference": {"shards": 2}},
    "`inference.max_error`": {"inference": {"max_error": 0.5}},
    "`inference.dtype`, `inference.method`": {"inference": {"method": "full_length"}},
    "`inference.target_tokens`, `inference.mask_embedding`": {
        "inference": {"target_tokens": "all"}
    },
    "`players`": {"players": {"n": 2}},
    "`datasets`": {"datasets": {"lines": {"instruction": "Which?\n{prompt}"}}},
    "`finetune.checkpoints`, fewer": {
        "runs": {"llama-tiny": {"finetune": {"checkpoints": [0, 3]}}}
    },
    "`finetune.checkpoints`, more": {
        "runs": {"llama-tiny": {"finetune": {"checkpoints": [0, 1, 2, 3]}}}
    },
    "`finetune`, any other key": {"finetune": {"learning_rate": 0.01}},
    "`compute`": {"compute": {"threads": 2}},
    "`seed`": {"seed": 2},
    "a model or a data set that no run names": {
        "datasets": {"more": {**CONFIG["datasets"]["lines"], "train": 5}}
    },
}


def other_content(days):
    def change(folder):
        path = folder / "lines.jsonl"
        path.write_text(path.read_text().replace("truly sad", "really sad"))
        date = time.time() + days * 86_400
        os.utime(path, (date, date))

    return change


def odd_dates(folder):
    """As those of a copy, of a backup that was restored, or of another clock."""
    draw = random.Random(0)
    for path in sorted((folder / "results").rglob("*")):
        date = time.time() - draw.uniform(0, 400) * 86_400
        os.utime(path, (date, date), follow_symlinks=False)
    (folder / "lines.jsonl").touch()


def without_dates(folder):
    """As after ``cp -r``."""
    copied = shutil.copytree(
        folder, folder.with_name("copied"), symlinks=True, copy_function=shutil.copyfile
    )
    shutil.rmtree(folder)
    copied.rename(folder)


FILES = {
    "a file of data, with any date": [other_content(-4000), other_content(0), other_content(4000)],
    "the dates of files and folders": [odd_dates, without_dates],
}


def rows_of_the_page():
    """First cell of a row of the table to: rules where it begins, fine-tuning, masked inference."""
    table = PAGE.partition("| what you change |")[2].partition("\n\n")[0]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines()[2:]]
    return {what: (set(re.findall(r"`(\w+)`", begins)), *rest) for what, begins, *rest in rows}


ROWS_OF_THE_PAGE = rows_of_the_page()


def lay_over(config, change):
    return {
        **config,
        **{
            key: lay_over(config.get(key, {}), value) if isinstance(value, dict) else value
            for key, value in change.items()
        },
    }


def plan(folder, config, *arguments):
    """Rules that run by themselves, and all rules that run, in a dry run."""
    done = snakemake(folder, config, *arguments, "--dry-run")
    assert done.returncode == 0, done.stdout[-3000:]
    planned = set(re.findall(r"^(\w+) +\d+$", done.stdout, re.M)) - {"total"}
    # Inference has temporary outputs, which are always missing.
    of_others = ("input files updated by another job", "output files have to be generated")
    reasons = re.findall(r"^    (\S.*):\n        (.+)$", done.stdout, re.M)
    begins = {
        rule for reason, rules in reasons if reason not in of_others for rule in rules.split(", ")
    }
    return begins, planned


def check(what, begins, planned):
    expected, training, inference = ROWS_OF_THE_PAGE[what]
    assert begins == expected
    assert ("finetune" in planned) == (training != "–")
    assert bool(planned & {"inference", "inference_of_mask_embedding"}) == (inference != "–")
    assert bool(planned) == bool(expected)


def test_every_row_of_the_page_is_tried():
    assert set(ROWS_OF_THE_PAGE) == {*CHANGES, *FILES}


@pytest.mark.parametrize("what", CHANGES)
def test_a_change_of_the_config_begins_where_the_page_says(study, what):
    folder, config = study
    check(what, *plan(folder, lay_over(config, CHANGES[what])))


@pytest.mark.parametrize(
    ("what", "change"), [(what, change) for what in FILES for change in FILES[what]]
)
def test_files_are_judged_by_their_content(own_study, what, change):
    folder, config = own_study
    change(folder)
    check(what, *plan(folder, config))


def read(folder, *patterns):
    """Bytes of the files of a study, by their path."""
    paths = [path for pattern in patterns for path in folder.glob(pattern)]
    assert paths
    return {path.relative_to(folder): path.read_bytes() for path in paths}


def run(folder, config, *arguments):
    done = snakemake(folder, config, *arguments)
    assert done.returncode == 0, done.stdout[-5000:]


def test_what_is_turned_back_is_neither_trained_nor_evaluated_again(own_study):
    """Players and checkpoints are changed; of the training samples none is another."""
    folder, config = own_study
    tuned = "results/runs/llama-tiny"
    made = [f"{tuned}/training.parquet", f"{tuned}/log_odds/*"]
    weights = f"{tuned}/checkpoints/*/*.safetensors"
    expected, expected_weights = read(folder, *made), read(folder, weights)
    log = folder / "results/logs/finetune/llama-tiny.log"
    change = {
        "players": {"n": 2},
        "runs": {"llama-tiny": {"finetune": {"checkpoints": [0, 3]}}},
    }
    run(folder, lay_over(config, change), f"{tuned}/training.parquet")
    assert "this training is done already" in log.read_text()
    assert read(folder, weights) == {
        path: content for path, content in expected_weights.items() if "step-1" not in path.parts
    }
    log.unlink()
    run(folder, config, *(f"{tuned}/log_odds/step-{step}.parquet" for step in STEPS["llama-tiny"]))
    assert "this training is done already" in log.read_text()
    assert read(folder, *made) == expected
    assert read(folder, weights) == expected_weights
    for log in (folder / "results/logs/inference/llama-tiny").glob("*.log"):
        # All of them at once; the bar then shows no rate.
        assert re.search(r"(\d+)/\1 \[00:\d\d<\?", log.read_text()), log.read_text()


def test_shards_and_a_kill_change_no_byte_and_so_nothing_runs_after_them(own_study):
    """With nothing in the store, and one core at a time until the kill."""
    folder, config = own_study
    tuned = folder / "results/runs/llama-tiny"
    made = [
        f"results/runs/llama-tiny/{pattern}"
        for pattern in ("*.parquet", "log_odds/*", "checkpoints/*/*", "store/training/**/*.json")
    ]
    expected = read(folder, *made)
    for name in ("store", "checkpoints", "log_odds"):
        shutil.rmtree(tuned / name)
    (tuned / "training.parquet").unlink()
    config["inference"] = {"shards": 2, "checkpoints_per_job": 2}
    targets = [f"results/runs/llama-tiny/interactions/step-{step}.parquet" for step in (0, 1, 3)]

    killed = start(folder, config, "--cores", "1", "results/runs/llama-tiny/training.parquet")
    while killed.poll() is None and not list(tuned.glob("store/training/*/state.json")):
        time.sleep(0.05)
    kill_all(killed)
    run(folder, config, *targets, "--until", "log_odds")
    assert read(folder, *made) == expected
    assert plan(folder, config, *targets) == (set(), set())


def start(folder, config, *arguments):
    """Snakemake in a session of its own, at work."""
    snakemake(folder, config, "--version")  # writes the config
    command = [sys.executable, "-m", "snakemake", "-s", str(ROOT / "Snakefile"), *arguments]
    command += ["--configfile", str(folder / "config.yaml"), "--directory", str(folder)]
    return subprocess.Popen(
        command,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def kill_all(process):
    """SIGKILL to a process and all that it started."""
    with contextlib.suppress(ProcessLookupError):  # it has ended
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_the_number_of_cores_changes_no_byte(own_study):
    """Of tables and figures that are drawn from several runs."""
    folder, config = own_study
    made = ["results/runs/*/dynamics.parquet", "results/runs/*/metrics.parquet"]
    made += ["results/runs/*/stages.json", "results/findings.parquet", "results/figures/fig2.*"]
    expected = read(folder, *made)
    for path in expected:
        (folder / path).unlink()
    metrics = [f"results/runs/{tuned}/metrics.parquet" for tuned in STEPS]
    run(folder, config, "--cores", "1", "results/findings.parquet", *metrics, "fig2")
    assert read(folder, *made) == expected


def test_other_names_of_classes_in_a_file_are_seen(model_folders, tmp_path):
    """The config has the name of the file alone."""
    config = {**CONFIG, "models": {}, "runs": {"llama-tiny": {"dataset": "lines"}}}
    config["models"]["llama"] = {"source": f"path:{model_folders['llama']}"}
    config["datasets"] = {
        "lines": {**CONFIG["datasets"]["lines"], "target_names": "path:names.txt"}
    }
    rows = [{"text": f"{row['text']}", "label": number % 2} for number, row in enumerate(ROWS)]
    (tmp_path / "lines.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    table, digests = tmp_path / "results/data/lines/analysis.parquet", set()
    date = time.time() - 86_400
    for names in (["good", "bad"], ["bad", "good"]):
        (tmp_path / "names.txt").write_text("\n".join(names))
        os.utime(tmp_path / "names.txt", (date, date))
        done = snakemake(tmp_path, config, "results/data/lines/analysis.parquet")
        assert done.returncode == 0, done.stdout[-3000:]
        named = {row["text"]: names[row["label"]] for row in rows}
        for prompt, target in pl.read_parquet(table).select("prompt", "target").iter_rows():
            assert target == named[prompt]
        digests.add(pl.read_parquet_metadata(table)["inputs_digest"])
    assert len(digests) == 2
