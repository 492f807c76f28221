"""The whole workflow on two tiny models, from the command line."""

import copy
import json
import os
import re
import shutil
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import polars as pl
import pytest
from report_pages import cells_of, data_of, text_of
from safetensors.torch import load_file, save_file
from tiny_study import CONFIG, HF_TOKEN, ROOT, ROWS, STEPS, N, snakemake

from sft_interactions import tables
from sft_interactions.analysis.dynamics import salient_at
from sft_interactions.analysis.protocol import PARTS
from sft_interactions.analysis.turnover import omega
from sft_interactions.extraction.program import reconstruct
from sft_interactions.figures.catalogue import FIGURES, FORMATS
from sft_interactions.masking.log_odds import MaskedPrompt, masked_log_odds
from sft_interactions.masking.mask_embedding import make_mask_embedding
from sft_interactions.models.loading import load_checkpoint


@pytest.fixture(scope="module")
def results(study):
    return study[0] / "results"


def read(path, table):
    frame = tables.read(path, table)
    assert not frame.is_empty(), path
    assert frame.equals(tables.check(frame, table, str(path))), f"{path} is not sorted"
    return frame


def by_sample(frame, column):
    return {key: part[column].to_numpy() for (key,), part in frame.group_by("sample_id")}


SENSITIVITY_JOBS = {
    "own_extraction": ["own"],
    "reading": ["reading-single", "reading-certain"],
    "extraction": ["extractions"],
}
EXTRACTIONS = ["noise-ratio-0.02", "tie-break-hash-1", "mask-embedding-zero"]
SIZE = pl.col("effect").abs().sum()
EVERY_RUN = pytest.mark.parametrize("run", STEPS)


def test_every_table_has_its_columns_and_metadata(results):
    expected = {
        results / "data" / "lines" / f"{split}.parquet": (tables.DATA, "data")
        for split in ("train", "validation", "analysis")
    }
    expected |= {
        results / "findings.parquet": (tables.FINDINGS, "findings"),
        results / "finding_parts.parquet": (tables.FINDING_PARTS, "findings"),
        results / "protocol.parquet": (tables.PROTOCOL, "protocol"),
        results / "protocol_parts.parquet": (tables.FINDING_PARTS, "protocol"),
        results / "turnover.parquet": (tables.TURNOVER, "protocol"),
    }
    for run, steps in STEPS.items():
        folder = results / "runs" / run
        expected |= {
            folder / "training.parquet": (tables.TRAINING, "finetune"),
            folder / "prompts.parquet": (tables.PROMPTS, "prompts"),
            folder / "players.parquet": (tables.PLAYERS, "prompts"),
            folder / "dynamics.parquet": (tables.DYNAMICS, "dynamics"),
            folder / "unchanged.parquet": (tables.UNCHANGED, "stability"),
            folder / "joint.parquet": (tables.JOINT, "joint"),
            folder / "joint_change.parquet": (tables.JOINT_CHANGE, "joint"),
            folder / "readings.parquet": (tables.READINGS, "readings"),
            folder / "stability.parquet": (tables.STABILITY, "stability"),
            folder / "metrics.parquet": (tables.METRICS, "metrics"),
            folder / "sensitivity.parquet": (tables.SENSITIVITY, "sensitivity"),
            folder / "unchanged_interactions.parquet": (
                tables.UNCHANGED_INTERACTIONS,
                "stability",
            ),
            folder / "unchanged_interactions.solve.parquet": (tables.UNCHANGED_SOLVE, "stability"),
        }
        expected |= {
            folder / "sensitivity" / f"{job}.parquet": (
                tables.SENSITIVITY_JOB,
                f"sensitivity_of_{rule}",
            )
            for rule, jobs in SENSITIVITY_JOBS.items()
            for job in jobs
        }
        for job in EXTRACTIONS:
            stem = folder / "sensitivity" / job
            expected |= {
                stem / "dynamics.parquet": (tables.DYNAMICS, "extraction_of_choice"),
                stem / "unchanged.parquet": (tables.UNCHANGED, "extraction_of_choice"),
            }
        for step in steps:
            stem = folder / "interactions" / f"step-{step}"
            expected |= {
                folder / "log_odds" / f"step-{step}.parquet": (tables.LOG_ODDS, "log_odds"),
                folder / "mask-embedding-zero" / "log_odds" / f"step-{step}.parquet": (
                    tables.LOG_ODDS,
                    "log_odds_of_mask_embedding",
                ),
                stem.with_suffix(".parquet"): (tables.INTERACTIONS, "interactions"),
                stem.with_suffix(".solve.parquet"): (tables.SOLVE, "interactions"),
                folder / "ranges" / f"step-{step}.parquet": (tables.RANGES, "ranges"),
                folder / "joint" / f"step-{step}.parquet": (tables.INTERACTIONS, "joint_of_step"),
            }
    kept = set(results.glob("runs/*/store/log_odds/*.parquet"))
    assert set(results.rglob("*.parquet")) - kept == set(expected)
    for path, (table, rule) in expected.items():
        read(path, table)
        metadata = tables.read_metadata(path)
        assert metadata["schema_version"] == tables.SCHEMA_VERSION
        assert metadata["created_by"] == rule
        assert re.fullmatch(r"[\d.]+\+[0-9a-f]{12}", metadata["code_version"])
        assert re.fullmatch("[0-9a-f]{16}", metadata["inputs_digest"])


def test_nothing_temporary_is_left(results):
    hidden = {path.name for path in results.rglob(".*")}
    assert hidden <= {".snakemake_timestamp"}


def test_nothing_is_written_outside_results_and_caches(study):
    folder, _ = study
    written = {path.name for path in folder.iterdir()}
    given = {"config.yaml", "lines.jsonl", "home", "temporary"}
    assert written - given <= {"results", ".snakemake", "cache"}
    assert list((folder / "home").rglob("*")) == []
    assert [path for path in (folder / "temporary").rglob("*") if path.is_file()] == []


def test_the_token_of_the_hub_is_in_no_file(study):
    files = [path for path in study[0].rglob("*") if path.is_file()]
    assert any(path.suffix == ".log" for path in files)
    assert [path for path in files if HF_TOKEN.encode() in path.read_bytes()] == []


@EVERY_RUN
def test_checkpoints_are_the_listed_steps(results, run):
    folders = (results / "runs" / run / "checkpoints").glob("step-*")
    assert sorted(path.name for path in folders) == [f"step-{step}" for step in STEPS[run]]


@EVERY_RUN
def test_training_has_every_step_and_validation_at_checkpoints(results, run):
    rows = read(results / "runs" / run / "training.parquet", tables.TRAINING)
    assert rows["step"].to_list() == [0, 1, 2, 3]
    validated = rows.drop_nulls("validation_loss")["step"].to_list()
    assert validated == STEPS[run]


def test_runs_share_samples_and_players(results):
    samples = read(results / "data" / "lines" / "analysis.parquet", tables.DATA)
    words = {}
    for run in STEPS:
        players = read(results / "runs" / run / "players.parquet", tables.PLAYERS)
        assert players["sample_id"].unique().sort().equals(samples["sample_id"])
        assert players.group_by("sample_id").len()["len"].to_list() == [N] * len(samples)
        words[run] = players.select("sample_id", "player", "word").rows()
    assert words["llama-tiny"] == words["gemma3-tiny"]


@EVERY_RUN
def test_players_own_the_tokens_of_their_words(results, run):
    players = read(results / "runs" / run / "players.parquet", tables.PLAYERS)
    prompts = read(results / "runs" / run / "prompts.parquet", tables.PROMPTS)
    for row in players.join(prompts, on="sample_id").iter_rows(named=True):
        assert row["rendered"][row["char_start"] : row["char_end"]] == row["word"]
        assert row["player_of_token"].count(row["player"]) == row["n_tokens"] > 0


@EVERY_RUN
def test_log_odds_have_every_mask_of_every_sample(results, run):
    for step in STEPS[run]:
        path = results / "runs" / run / "log_odds" / f"step-{step}.parquet"
        masks = by_sample(read(path, tables.LOG_ODDS), "mask")
        assert len(masks) == CONFIG["datasets"]["lines"]["analysis"]
        assert all(mask.tolist() == list(range(2**N)) for mask in masks.values())


@EVERY_RUN
def test_the_studys_own_choice_gives_the_findings(results, run):
    found = read(results / "findings.parquet", tables.FINDINGS).filter(run=run).drop("run")
    varied = read(results / "runs" / run / "sensitivity.parquet", tables.SENSITIVITY)
    assert varied.filter(position=0).select(found.columns).equals(found)


@EVERY_RUN
def test_another_mask_embedding_changes_all_but_the_whole_prompt(results, run):
    folder = results / "runs" / run
    for step in STEPS[run]:
        own, other = (
            by_sample(
                read(place / "log_odds" / f"step-{step}.parquet", tables.LOG_ODDS), "log_odds"
            )
            for place in (folder, folder / "mask-embedding-zero")
        )
        assert own.keys() == other.keys()
        for sample_id in own:
            change = np.abs(own[sample_id] - other[sample_id])
            assert change[-1] < 1e-4
            assert (change[:-1] > 1e-5).all()
    assert not (folder / "mask-embedding-zero" / "inference").exists()
    sensitivity = read(folder / "sensitivity.parquet", tables.SENSITIVITY)
    names = sensitivity["choice"].unique().to_list()
    assert [name for name in names if name.startswith("mask embedding")] == ["mask embedding: zero"]


# Jobs that one more extraction takes: it is made once, whoever reads it.
OF_A_RUN_AND_ITS_REFERENCE = {
    "extraction_of_choice": 2,
    "sensitivity_of_extraction": 1,
    "sensitivity": 1,
}


@pytest.mark.parametrize(
    ("key", "value", "jobs"),
    [
        ("noise_ratio", [0.1, 0.02], OF_A_RUN_AND_ITS_REFERENCE),
        ("noise_scales", ["range"], OF_A_RUN_AND_ITS_REFERENCE),
        ("tie_breaks", [], {"sensitivity_of_extraction": 1, "sensitivity": 1}),
        (
            "salience",
            [{"rule": "top_k", "threshold": 2}],
            {"sensitivity_of_own_extraction": 1, "sensitivity": 1},
        ),
    ],
)
def test_another_choice_makes_its_own_job_alone(study, key, value, jobs):
    folder, config = study
    config = {**config, "sensitivity": {**config["sensitivity"], key: value}}
    target = "results/runs/llama-tiny/sensitivity.parquet"
    todo = snakemake(folder, config, target, "--dry-run")
    assert todo.returncode == 0, todo.stdout[-5000:]
    planned = dict(re.findall(r"^(\w+) +(\d+)$", todo.stdout, re.M))
    assert planned == {
        **{rule: str(n) for rule, n in jobs.items()},
        "total": str(sum(jobs.values())),
    }


def test_only_other_mask_embeddings_take_inference(study):
    folder, config = study
    for own, others, planned in (
        ("token", ["token"], set()),
        ("zero", ["zero", "learned"], {"learned"}),
    ):
        config = {
            **config,
            "inference": {"mask_embedding": own},
            "sensitivity": {"mask_embeddings": others},
        }
        todo = snakemake(folder, config, "--dry-run", "--forceall")
        assert todo.returncode == 0, todo.stdout[-5000:]
        assert set(re.findall(r", mask embedding (\w+)", todo.stdout)) == planned
        assert ("Learning the mask embedding" in todo.stdout) == ("learned" in planned)


@EVERY_RUN
def test_log_odds_can_be_recomputed_from_model_checkpoint_and_prompts(results, run):
    folder = results / "runs" / run
    step = STEPS[run][-1]
    rows = read(folder / "log_odds" / f"step-{step}.parquet", tables.LOG_ODDS)
    log_odds = by_sample(rows, "log_odds")
    metadata = tables.read_metadata(folder / "prompts.parquet")
    model = load_checkpoint(
        results / "models" / run.partition("-")[0], folder / "checkpoints" / f"step-{step}", "cpu"
    )
    reference = make_mask_embedding(
        model, metadata["mask_embedding"], int(metadata["mask_token_id"])
    )
    for prompt in read(folder / "prompts.parquet", tables.PROMPTS).iter_rows(named=True):
        masked = MaskedPrompt(
            prompt["token_ids"], prompt["player_of_token"], prompt["target_token_ids"]
        )
        values = masked_log_odds(model, masked, reference, method="full_length")
        np.testing.assert_allclose(log_odds[prompt["sample_id"]], values, atol=1e-4)
        assert np.ptp(values) > 0.01


@EVERY_RUN
def test_interactions_give_the_log_odds_within_the_noise_bound(results, run):
    for step in STEPS[run]:
        folder = results / "runs" / run
        log_odds = by_sample(
            read(folder / "log_odds" / f"step-{step}.parquet", tables.LOG_ODDS), "log_odds"
        )
        stem = folder / "interactions" / f"step-{step}"
        interactions = read(stem.with_suffix(".parquet"), tables.INTERACTIONS)
        solve = read(stem.with_suffix(".solve.parquet"), tables.SOLVE)
        assert set(solve["sample_id"]) == set(log_odds)
        scale = np.mean([abs(float(v[-1]) - float(v[0])) for v in log_odds.values()])
        for row in solve.iter_rows(named=True):
            dense = {kind: np.zeros(2**N) for kind in ("and", "or", "bias")}
            rows = interactions.filter(sample_id=row["sample_id"])
            for kind, pattern, effect in rows.select("kind", "pattern", "effect").rows():
                dense[kind][pattern] = effect
            phi = reconstruct(dense["bias"][0], dense["and"], dense["or"])
            v = log_odds[row["sample_id"]].astype(float)
            assert np.abs(phi - v).max() <= row["noise_bound"] + 1e-9
            assert row["noise_bound"] == pytest.approx(0.04 * scale)
            assert row["l1_lower_bound"] <= row["l1"] * (1 + 1e-9)


@EVERY_RUN
def test_other_readings_are_as_sparse_and_change_less(results, run):
    folder = results / "runs" / run
    steps = STEPS[run]
    joint = read(folder / "joint.parquet", tables.JOINT)
    assert joint["step"].unique().sort().to_list() == steps
    norms = joint.filter(pl.col("kind") != "bias").group_by("step", "sample_id").agg(norm=SIZE)
    for step in steps:
        interactions = read(folder / "interactions" / f"step-{step}.parquet", tables.INTERACTIONS)
        ranges = read(folder / "ranges" / f"step-{step}.parquet", tables.RANGES)
        assert ranges.select(interactions.columns).equals(interactions)
        within = ranges.drop_nulls()
        slack = 1e-6 * within["effect"].abs().max()
        assert (within["effect_low"] <= within["effect"] + slack).all()
        assert (within["effect_high"] >= within["effect"] - slack).all()
        own = interactions.filter(pl.col("kind") != "bias").group_by("sample_id").agg(own=SIZE)
        both = norms.filter(step=step).join(own, on="sample_id")
        assert len(both) == len(own)
        assert (both["norm"] <= both["own"] * (1 + 1e-5)).all()
    change = read(folder / "joint_change.parquet", tables.JOINT_CHANGE)
    assert (change["change"] <= change["single_change"] * (1 + 1e-9)).all()
    assert (change["change_lower_bound"] >= change["change"] * (1 - 1e-4)).all()

    readings = read(folder / "readings.parquet", tables.READINGS)
    metrics = read(folder / "metrics.parquet", tables.METRICS)
    n_samples = CONFIG["datasets"]["lines"]["analysis"]
    for name in ("certain", "single"):
        counts = metrics.filter(metric=f"count_{name}")
        assert len(counts) == 3 * len(steps) - 2
        for step, label, value in counts.select("step", "class", "value").rows():
            found = readings.filter(pl.col("class") == label, reading=name, step=step)
            assert value == pytest.approx(len(found) / n_samples)
    # What generalizes is what the reference model has, read in the same way.
    settings = CONFIG["runs"][run]
    other = settings["reference_run"]
    step = STEPS[other][-1 if settings.get("reference_checkpoint") == "last" else 0]
    reference = salient_at(
        read(results / "runs" / other / "readings.parquet", tables.READINGS), step
    )
    for name in ("certain", "single"):
        same = ["sample_id", "kind", "pattern", "positive"]
        rows, of_reference = (
            table.filter(reading=name).with_columns(positive=pl.col("effect") > 0)
            for table in (readings, reference)
        )
        assert len(of_reference) or name == "certain"
        shared = rows.join(of_reference.select(same), on=same, how="semi")
        assert shared["generalizable"].all()
        assert rows["generalizable"].sum() == len(shared)


@EVERY_RUN
def test_dynamics_and_metrics_agree(results, run):
    folder = results / "runs" / run
    dynamics = read(folder / "dynamics.parquet", tables.DYNAMICS)
    metrics = read(folder / "metrics.parquet", tables.METRICS)
    assert dynamics["generalizable"].null_count() == 0
    assert dynamics.filter(step=0)["class"].unique().to_list() == ["preserved"]
    counts = metrics.filter(pl.col("order").is_null(), metric="count", kind="both")
    assert counts["step"].unique().sort().to_list() == STEPS[run]
    n_samples = CONFIG["datasets"]["lines"]["analysis"]
    for step, label, value in counts.select("step", "class", "value").rows():
        found = dynamics.filter(pl.col("class") == label, step=step)
        if step == 0 and label != "preserved":
            assert value is None
        else:
            assert value == pytest.approx(len(found) / n_samples)
    values = metrics["value"].drop_nulls()
    assert values.is_finite().all()


@EVERY_RUN
def test_stages(results, run):
    stages = json.loads((results / "runs" / run / "stages.json").read_text())
    assert stages["run"] == run
    for name in ("boundary", "best_checkpoint"):
        assert stages[f"{name}_step"] in STEPS[run]
    # Of fewer than five prompts there is no interval.
    assert (stages["ci_low_step"], stages["ci_high_step"]) == (None, None)
    assert list(stages["evidence"]["removed_count"]) == [str(step) for step in STEPS[run]]


def test_every_figure_of_the_catalogue_is_there_and_no_other(results):
    files = {path.name: path.stat().st_size for path in (results / "figures").iterdir()}
    assert set(files) == {f"{name}.{form}" for name in FIGURES for form in FORMATS}
    assert min(files.values()) > 1000


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_rebuilt_by_one_job(study, results, name):
    (results / "figures" / f"{name}.svg").rename(results / "moved.svg")
    planned = snakemake(*study, "--dry-run", name)
    (results / "moved.svg").rename(results / "figures" / f"{name}.svg")
    assert re.search(rf"^{name} +1$", planned.stdout, re.MULTILINE), planned.stdout
    assert re.search(r"^total +1$", planned.stdout, re.MULTILINE), planned.stdout


def test_a_study_without_other_runs_has_no_figures_of_them(study):
    folder, config = study
    alone = {**config, "figures": {"main_runs": list(STEPS)}}
    planned = snakemake(folder, alone, "--dry-run", "--forceall", "figures", "report")
    assert planned.returncode == 0, planned.stdout[-3000:]
    rules = set(re.findall(r"^(fig\d|survival) +1$", planned.stdout, re.M))
    assert rules == set(FIGURES) - {"fig7", "fig8"}
    for name in ("fig7", "fig8"):
        asked = snakemake(folder, alone, "--dry-run", name)
        assert asked.returncode != 0
        assert "figures.main_runs: figures 2 and 3 show every run" in asked.stdout
        assert "Traceback" not in asked.stdout


def test_the_report_is_of_the_whole_config_and_the_end_names_the_checkpoints(study):
    folder, config = study
    # Only with what the command line lays over the config file there are results to report.
    done = snakemake(
        folder, {**config, "results": "nowhere"}, "report", "--config", "results=results"
    )
    assert done.returncode == 0, done.stdout[-5000:]
    page = (folder / "results" / "report.html").read_text("utf-8")
    assert all(name in page for name in ('id="fig9"', "tables/findings.csv", "tables/stages.csv"))
    assert not (folder / "nowhere").exists()
    for run in STEPS:
        # Three prompts and three checkpoints are too few for more.
        assert re.search(f"{run}:\n  - (Keep step|No checkpoint is named)", done.stdout)
        assert "No verdict on the stages: " in done.stdout
    verdict = pl.read_csv(folder / "results" / "tables" / "verdict.csv")
    for sentence in [*verdict["interactions"], *verdict["stage"]]:
        assert sentence in text_of(page)
    # Every stage that ran is there with what it took.
    stages = {path.name for path in (folder / "results" / "benchmarks").iterdir()}
    assert {Path(name).stem for name in stages} <= set(cells_of(page))
    for run in data_of(page)["runs"]:
        assert run["steps"] == STEPS[run["name"]]
        assert len(run["samples"]) == 3
    links = set(re.findall(r'href="((?:tables|runs)/[^"]+)"', page))
    assert links
    for link in links:
        assert (folder / "results" / unquote(link)).is_file(), link


def test_the_end_of_a_run_says_nothing_of_tables_of_another_config(own_study):
    """It was made of a part of the study, so that the tables of the rest are as they were."""
    folder, config = own_study
    config["seed"] = 2
    done = snakemake(folder, config, "--until", "data")
    assert done.returncode == 0, done.stdout[-5000:]
    assert "No verdict on the stages" not in done.stdout
    assert "results/tables/verdict.csv, is as it was, and may be of another config" in done.stdout


def test_nothing_is_left_to_do(study):
    again = snakemake(*study, "--dry-run")
    assert again.returncode == 0
    assert "Nothing to be done" in again.stdout


def test_long_jobs_tell_how_far_they_are(study):
    folder, _ = study
    of_sensitivity = [
        "extraction_of_choice",
        *(f"sensitivity_of_{job}" for job in SENSITIVITY_JOBS),
    ]
    for rule in ("finetune", "inference", "interactions", "stability", *of_sensitivity):
        logs = sorted((folder / "results" / "logs" / rule).rglob("*.log"))
        assert logs, rule
        for log in logs:
            ends = re.findall(r"(\d+)%\|.*\| (\S+)/(\S+) \[", log.read_text())
            percent, done, of = ends[-1]
            assert (percent, done) == ("100", of), log


def test_the_same_data_with_a_new_date_is_no_change(study):
    folder, config = study
    source = folder / "lines.jsonl"
    source.touch()
    again = snakemake(folder, config, "--dry-run")
    assert "Nothing to be done" in again.stdout, again.stdout[-3000:]


def test_download_makes_models_and_data_alone(study):
    folder, config = study
    todo = snakemake(folder, config, "download", "--dry-run", "--forceall")
    jobs = re.findall(r"^(\w+) +\d+$", todo.stdout, re.M)
    assert set(jobs) == {"download", "model", "data", "total"}


def test_own_checkpoints_give_the_same_metrics(own_study):
    folder, config = own_study
    results = folder / "results"
    trained = results / "runs" / "gemma3-tiny"
    config["runs"]["gemma3-own"] = {
        "dataset": "lines",
        "reference_run": "llama-tiny",
        "checkpoints": {0: "base", 3: str(trained / "checkpoints" / "step-3")},
    }
    before = {path: path.stat().st_mtime_ns for path in results.rglob("*.parquet")}
    done = snakemake(folder, config, "results/runs/gemma3-own/metrics.parquet")
    assert done.returncode == 0, done.stdout[-5000:]
    assert {path: path.stat().st_mtime_ns for path in before} == before
    own = results / "runs" / "gemma3-own"
    for name in ("log_odds/step-0.parquet", "log_odds/step-3.parquet", "metrics.parquet"):
        assert pl.read_parquet(own / name).equals(pl.read_parquet(trained / name)), name
    assert not (own / "training.parquet").exists()


def spoil(path, change):
    """Change the numbers of a file of weights; its size and time stay."""
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    save_file({name: change(w) for name, w in load_file(path).items()}, path, {"format": "pt"})
    os.utime(path, ns=times)


def jobs_of(done):
    assert done.returncode == 0, done.stdout[-5000:]
    return set(re.findall(r"^(\w+) +\d+$", done.stdout, re.M)) - {"total"}


def test_what_a_user_brought_is_known_by_its_content(own_study, model_folders):
    folder, config = own_study
    model = shutil.copytree(model_folders["gemma3"], folder / "model")
    config["models"]["gemma3"]["source"] = f"path:{model}"
    trained = folder / "results" / "runs" / "gemma3-tiny" / "checkpoints" / "step-3"
    own = shutil.copytree(trained, folder / "own")
    older = shutil.copytree(trained, folder / "older")
    spoil(older / "adapter_model.safetensors", lambda weight: weight * 0.5)
    (older / "SHA256SUMS").unlink()
    config["runs"]["gemma3-own"] = {"dataset": "lines", "checkpoints": {0: "base", 3: str(own)}}
    target = "results/runs/gemma3-own/log_odds/step-3.parquet"

    def planned():
        return jobs_of(snakemake(folder, config, target, "--dry-run"))

    done = snakemake(folder, config, target)
    assert done.returncode == 0, done.stdout[-5000:]
    before = pl.read_parquet(folder / target)

    # One more checkpoint costs one more inference; one whose weights are there already is told.
    config["runs"]["gemma3-own"]["checkpoints"][9] = str(own)
    assert planned() == set()
    more = snakemake(folder, config, target.replace("step-3", "step-9"), "--dry-run")
    jobs = set(re.findall(r"^(\w+) +(\d+)$", more.stdout, re.M)) - {("total", "3")}
    assert jobs == {("inference", "1"), ("log_odds", "1"), ("own_checkpoints", "1")}
    more = snakemake(folder, config, "results/runs/gemma3-own/dynamics.parquet", "--dry-run")
    assert "runs.gemma3-own.checkpoints: steps 3 and 9 have the same weights" in more.stdout
    del config["runs"]["gemma3-own"]["checkpoints"][9]

    # A block that was copied, and whose folders were not changed.
    config["runs"]["gemma3-twin"] = copy.deepcopy(config["runs"]["gemma3-own"])
    both = [f"results/runs/gemma3-{name}/dynamics.parquet" for name in ("own", "twin")]
    twins = snakemake(folder, config, *both, "--dry-run")
    told = re.findall(r"runs\.gemma3-(\w+)\.checkpoints\.3 has the same weights as", twins.stdout)
    assert set(told) in ({"own"}, {"twin"})
    config["runs"]["gemma3-twin"]["checkpoints"] = {0: str(own), 6: str(older)}
    assert "has the same weights" not in snakemake(folder, config, *both, "--dry-run").stdout
    del config["runs"]["gemma3-twin"]

    own.rename(folder / "newer")
    older.rename(own)
    assert planned() == {"own_checkpoints", "inference", "log_odds"}
    done = snakemake(folder, config, target)
    assert done.returncode == 0, done.stdout[-5000:]
    assert not pl.read_parquet(folder / target).equals(before)
    assert planned() == set()

    spoil(own / "adapter_model.safetensors", lambda weight: weight * 2)
    assert planned() == {"own_checkpoints", "inference", "log_odds"}
    spoil(model / "model.safetensors", lambda weight: weight * 2)
    assert "model" in planned()


def test_a_checkpoint_that_does_not_fit_stops_before_inference(own_study):
    folder, config = own_study
    trained = folder / "results" / "runs" / "gemma3-tiny" / "checkpoints" / "step-3"
    own = shutil.copytree(trained, folder / "own")
    path = own / "adapter_model.safetensors"
    save_file({f"policy.{name}": w for name, w in load_file(path).items()}, path)
    config["runs"]["gemma3-own"] = {"dataset": "lines", "checkpoints": {0: "base", 3: str(own)}}
    done = snakemake(folder, config, "results/runs/gemma3-own/log_odds/step-3.parquet")
    assert done.returncode != 0
    # Where the job ends, and once more at the end of the run.
    (found,) = {line for line in done.stdout.splitlines() if "own_checkpoints: runs." in line}
    assert re.search(rf"runs\.gemma3-own\.checkpoints\.3: {own}: .*missing, first .*; ", found)
    assert not (folder / "results" / "runs" / "gemma3-own" / "inference").exists()
    path.write_bytes(path.read_bytes()[:-4])
    done = snakemake(folder, config, "--dry-run")
    assert f"runs.gemma3-own.checkpoints.3: {path}: has " in done.stdout
    assert "Traceback" not in done.stdout


def spoilt_log_odds(run):
    path = run / "log_odds" / "step-1.parquet"
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 4
    path.write_bytes(content)
    return path


def log_odds_of_another_checkpoint(run):
    path = run / "log_odds" / "step-1.parquet"
    shutil.copyfile(run / "log_odds" / "step-0.parquet", path)
    return path


def log_odds_of_another_study(run):
    path = run / "log_odds" / "step-1.parquet"
    place = {"results": run.parents[1], "prompts": {run.name: "of another"}}
    frame = tables.read(path, tables.LOG_ODDS)
    by = {"created_by": "log_odds", "inputs_digest": "0"}
    tables.write(frame, path, tables.LOG_ODDS, **place, **by)
    return path


def spoilt_adapter(run):
    path = run / "checkpoints" / "step-1" / "adapter_model.safetensors"
    content = bytearray(path.read_bytes())
    content[-7] ^= 1  # the least of differences
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("change", "forced", "message"),
    [
        (spoilt_log_odds, "interactions", "this is not what was written"),
        (
            log_odds_of_another_checkpoint,
            "interactions",
            "was written as runs/{run}/log_odds/step-0",
        ),
        (log_odds_of_another_study, "stability", "comes of other prompts than"),
        (spoilt_adapter, "inference", "this is not what was written"),
    ],
)
def test_what_is_damaged_or_foreign_stops_the_run(own_study, change, forced, message):
    folder, config = own_study
    run = folder / "results" / "runs" / "llama-tiny"
    target = {
        "interactions": "interactions/step-1.parquet",
        "stability": "stability.parquet",
        "inference": "log_odds/step-1.parquet",
    }[forced]
    target = str((run / target).relative_to(folder))
    path = change(run).relative_to(folder)
    done = snakemake(folder, config, target, "--forcerun", forced)
    assert done.returncode != 0
    lines = {line for line in done.stdout.splitlines() if f"{forced}: {path}: " in line}
    assert len(lines) == 1, done.stdout[-3000:]
    (line,) = lines
    assert message.format(run=run.name) in line
    assert "and run snakemake again to rebuild it" in line


def test_seeds_are_runs_and_have_a_table(own_study):
    folder, config = own_study
    results = folder / "results"
    table = folder / "results" / "tables" / "seeds.csv"
    verdicts = table.with_name("seed-verdicts.csv")
    config["runs"] = {"llama-tiny": {"dataset": "lines", "seeds": [1, 2]}}
    agreement = table.with_name("seed-agreement.csv")
    wanted = [str(path.relative_to(folder)) for path in (table, verdicts, agreement)]
    done = snakemake(folder, config, *wanted)
    assert done.returncode == 0, done.stdout[-5000:]
    # Their captions name params of their rules.
    done = snakemake(folder, config, *wanted, "--report", "tables.zip")
    assert done.returncode == 0, done.stdout[-5000:]
    runs = {
        seed: read(
            results / "runs" / f"llama-tiny-seed{seed}" / "dynamics.parquet", tables.DYNAMICS
        )
        for seed in (1, 2)
    }
    own = read(results / "runs" / "llama-tiny" / "dynamics.parquet", tables.DYNAMICS)
    columns = ["sample_id", "step", "class", "kind", "pattern", "order", "effect"]
    assert runs[1].select(columns).equals(own.select(columns))
    assert not runs[1].select(columns).equals(runs[2].select(columns))
    over_seeds = pl.read_csv(verdicts)
    assert over_seeds.select("runs", "n_seeds", "finding_verdict").unique().rows() == [
        ("llama-tiny", 2, "inconclusive")
    ]
    assert over_seeds["statistic"].to_list() == [part.statistic for part in PARTS]
    assert f"| {PARTS[0].statistic} |" in verdicts.with_suffix(".md").read_text(encoding="utf-8")
    counts = pl.read_csv(table).filter(metric="count", step=3)
    assert counts["runs"].unique().to_list() == ["llama-tiny"]
    for name, value, low, high, n in counts.select(
        "class", "value", "ci_low", "ci_high", "n_pairs"
    ).rows():
        rows = [len(run.filter(pl.col("class") == name, step=3)) for run in runs.values()]
        assert value == pytest.approx(sum(rows) / n)
        # Two seeds have no interval.
        assert (low, high, n) == (None, None, 6)
    for step in (0, 3):
        salient = [
            set(omega(run, step).select("sample_id", "kind", "pattern", "positive").rows())
            for run in runs.values()
        ]
        shared = 2 * len(salient[0] & salient[1]) / sum(map(len, salient))
        found = pl.read_csv(agreement).filter(pl.col("class") == "salient", step=step)
        assert found["agreement"].item() == pytest.approx(shared)
    text = agreement.with_suffix(".md").read_text(encoding="utf-8")
    assert "Interval: at the level `bootstrap.level` of the config, over prompts.\n" in text
    text = verdicts.with_suffix(".md").read_text(encoding="utf-8")
    assert (
        "Interval: at the level `bootstrap.level` of the config, over prompts and seeds.\n" in text
    )


def test_snakemakes_own_report_has_every_caption(own_study):
    folder, config = own_study
    done = snakemake(folder, config, "--report", "report.zip")
    assert done.returncode == 0, done.stdout[-5000:]
    captions = {path.stem for path in (ROOT / "workflow" / "report").glob("*.rst")}
    added = set(re.findall(r"Adding ([\w-]+)\.(?:md|png)", done.stdout))
    # Of runs with several seeds alone: the test above.
    assert captions - added <= {"seeds", "seed-verdicts", "seed-agreement"}


def test_a_job_goes_on_where_it_stopped_and_shards_change_nothing(own_study):
    folder, config = own_study
    results = folder / "results"
    trained = results / "runs" / "llama-tiny"
    broken = folder / "broken"
    shutil.copytree(trained / "checkpoints" / "step-1", broken)
    spoil(broken / "adapter_model.safetensors", lambda weight: weight * np.nan)
    steps = STEPS["llama-tiny"]
    checkpoints = {step: str(trained / "checkpoints" / f"step-{step}") for step in steps}
    config["runs"]["llama-again"] = {
        "dataset": "lines",
        "checkpoints": {**checkpoints, 1: str(broken)},
    }
    config["inference"] = {"shards": 2, "checkpoints_per_job": 2}
    targets = [f"results/runs/llama-again/log_odds/step-{step}.parquet" for step in steps]
    stopped = snakemake(folder, config, *targets, "--keep-going")
    assert stopped.returncode != 0
    again = results / "runs" / "llama-again"
    # Both shards have kept their samples of steps 3 and 0, the first checkpoint of the job that broke.
    samples = CONFIG["datasets"]["lines"]["analysis"]
    assert len(list((again / "store" / "log_odds").iterdir())) == 2 * samples
    assert [path.stem for path in (again / "log_odds").iterdir()] == ["step-3"]

    shutil.copy(trained / "checkpoints" / "step-1" / "adapter_model.safetensors", broken)
    done = snakemake(folder, config, *targets)
    assert done.returncode == 0, done.stdout[-5000:]
    for step in steps:
        paths = [run / "log_odds" / f"step-{step}.parquet" for run in (again, trained)]
        assert pl.read_parquet(paths[0]).equals(pl.read_parquet(paths[1]))
        about, expected = map(tables.read_metadata, paths)
        for key in tables.LOG_ODDS_METADATA:
            assert about[key] == expected[key], key
        assert float(about["log_odds_error_max"]) < 1e-4
    assert not (again / "inference").exists()


def test_losses_of_held_out_responses(own_study):
    folder, config = own_study
    config["datasets"]["lines"] |= {"test": 1, "train": 5}
    run = "results/runs/gemma3-tiny"
    done = snakemake(folder, config, f"{run}/losses.parquet", f"{run}/training.parquet")
    assert done.returncode == 0, done.stdout[-5000:]
    losses = read(folder / run / "losses.parquet", tables.LOSSES)
    counts = losses.group_by("step", "split").len().sort("step", "split").rows()
    sizes = {"analysis": 3, "test": 1, "validation": 2}
    assert counts == [
        (step, split, n) for step in STEPS["gemma3-tiny"] for split, n in sizes.items()
    ]
    training = read(folder / run / "training.parquet", tables.TRAINING)
    validation = (
        losses.filter(pl.col("split") == "validation")
        .group_by("step")
        .agg(pl.col("loss", "n_tokens").sum())
    )
    for row in validation.iter_rows(named=True):
        (expected,) = training.filter(pl.col("step") == row["step"])["validation_loss"]
        assert row["loss"] / row["n_tokens"] == pytest.approx(expected, abs=1e-4)


def test_stable_interactions_under_another_noise_scale(own_study):
    folder, config = own_study
    results, run = folder / "results", "llama-tiny"
    before = {path: path.stat().st_mtime_ns for path in results.rglob("log_odds/*.parquet")}
    config |= {
        "optima": {"reading": "single"},
        "salience": {"rule": "stable"},
        # Of two of the three samples, whose noise bound is of all three.
        "stability": {"samples": 2, "draws": 1, "selection": {"draws": 4, "noise": 0.3}},
        "sensitivity": {"noise_ratio": [], "noise_scales": [], "tie_breaks": []},
    }
    wanted = ["results/findings.parquet", f"results/runs/{run}/sensitivity.parquet", "fig5"]
    done = snakemake(folder, config, *wanted, "results/tables/sparsity.csv")
    assert done.returncode == 0, done.stdout[-5000:]
    assert before == {path: path.stat().st_mtime_ns for path in before}

    counts = pl.read_csv(results / "tables" / "sparsity.csv").filter(quantity="salient")
    dynamics = read(results / "runs" / run / "dynamics.parquet", tables.DYNAMICS)
    is_unstable = []
    for step in STEPS[run]:
        stem = results / "runs" / run / "interactions" / f"step-{step}"
        solve = read(stem.with_suffix(".solve.parquet"), tables.SOLVE)
        bound = 0.04 * solve["log_odds_difference"].mean()
        assert solve["noise_bound"].to_list() == pytest.approx([bound] * len(solve))
        shared = read(
            results / "runs" / run / "selection" / f"step-{step}.parquet", tables.SELECTION
        )
        assert shared.drop("share").equals(read(stem.with_suffix(".parquet"), tables.INTERACTIONS))
        effects = shared.filter(pl.col("kind") != "bias")
        size = pl.col("effect").abs()
        strong = effects.filter(size >= 0.05 * size.max().over("sample_id"))
        stable = strong.filter(pl.col("share") >= 0.8)
        is_unstable.append(len(stable) < len(strong))
        assert counts.filter(run=run, step=step)["value"].item() == pytest.approx(len(stable) / 3)
        present = dynamics.filter(pl.col("class") != "removed", step=step)
        assert set(present.select("sample_id", "kind", "pattern").rows()) == set(
            stable.select("sample_id", "kind", "pattern").rows()
        )
    assert any(is_unstable)
    test_the_studys_own_choice_gives_the_findings(results, run)
    unchanged = read(results / "runs" / run / "unchanged.parquet", tables.UNCHANGED)
    assert unchanged["sample_id"].n_unique() <= 2


def test_the_number_of_threads_changes_nothing(own_study):
    folder, config = own_study
    run = folder / "results" / "runs" / "llama-tiny"
    made = {
        "interactions": ["interactions/step-0.parquet", "interactions/step-0.solve.parquet"],
        "ranges": ["ranges/step-0.parquet"],
        "joint": ["joint.parquet", "joint_change.parquet"],
        "stability": [
            "stability.parquet",
            "unchanged.parquet",
            "unchanged_interactions.parquet",
            "unchanged_interactions.solve.parquet",
        ],
        "readings": ["readings.parquet"],
        "sensitivity_of_reading": ["sensitivity/reading-certain.parquet"],
        "extraction_of_choice": [
            "sensitivity/tie-break-hash-1/dynamics.parquet",
            "sensitivity/tie-break-hash-1/unchanged.parquet",
        ],
    }
    paths = [run / name for names in made.values() for name in names]
    before = {path: path.read_bytes() for path in paths}
    for path in paths:
        path.unlink()
    wanted = [str(path.relative_to(folder)) for path in paths]
    threads = [f"{rule}=2" for rule in made]
    done = snakemake(folder, config, *wanted, "--set-threads", *threads)
    assert done.returncode == 0, done.stdout[-5000:]
    # The other run, whose readings the sensitivity takes as its reference, needs the joint one too.
    rules = {*made, "joint_of_step"}
    assert set(re.findall(r"^(\w+) +\d+ *$", done.stdout, re.M)) - {"total"} == rules
    for path in paths:
        assert path.read_bytes() == before[path], path


def test_settings_of_the_shell_change_nothing(study, own_study, monkeypatch):
    folder, config = own_study
    launched = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost"}
    precision = {
        "ACCELERATE_MIXED_PRECISION": "bf16",
        "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "3",
    }
    (folder / "of_bash").write_text(f"cd {folder / 'home'}\n")
    shell = {"BASH_ENV": str(folder / "of_bash"), "SOURCE_DATE_EPOCH": ""}
    for name, value in {**launched, **precision, **shell, "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    run = folder / "results" / "runs" / "llama-tiny"
    (run / "training.parquet").unlink()
    shutil.rmtree(run / "store")  # the training would be taken from there
    figure = folder / "results" / "figures" / "fig3.pdf"
    figure.unlink()
    wanted = [str(path.relative_to(folder)) for path in (run / "training.parquet", figure)]
    done = snakemake(folder, config, *wanted)
    assert done.returncode == 0, done.stdout[-5000:]
    assert figure.read_bytes() == (study[0] / "results" / "figures" / "fig3.pdf").read_bytes()
    first = study[0] / "results" / "runs" / "llama-tiny" / "training.parquet"
    assert pl.read_parquet(run / "training.parquet").equals(pl.read_parquet(first))
    log = (folder / "results" / "logs" / "finetune" / "llama-tiny.log").read_text()
    assert "left out: ACCELERATE_GRADIENT_ACCUMULATION_STEPS, ACCELERATE_MIXED_PRECISION" in log


def test_a_bad_config_starts_no_job(tmp_path, model_folders):
    config = copy.deepcopy(CONFIG)
    for name, model in config["models"].items():
        model["source"] = f"path:{model_folders[name]}"
    (tmp_path / "lines.jsonl").write_text("")
    config["finetune"]["checkpoints"] = [0, 9]
    bad = snakemake(tmp_path, config)
    assert bad.returncode != 0
    line = "runs.llama-tiny: finetune.checkpoints [9] lie beyond finetune.steps = 3; raise steps"
    assert line in bad.stdout
    assert "Traceback" not in bad.stdout
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--rerun-triggers", "mtime"],
            "--rerun-triggers: without params and input tables of an old",
        ),
        (["--touch"], "--touch: tables of an older config or of other files would be taken for"),
        (["--drop-metadata"], "--drop-metadata: tables of this config would later be taken for"),
        (["--consider-ancient", "prompts=0"], "--consider-ancient: what is made of older files"),
        (
            ["--cleanup-metadata", "results/data/lines/analysis.parquet"],
            "--cleanup-metadata: tables",
        ),
    ],
    ids=["mtime", "touch", "no metadata", "ancient", "metadata removed"],
)
@pytest.mark.parametrize("are_there", [False, True], ids=["no table yet", "tables are there"])
def test_tables_of_another_config_are_not_taken_for_done(
    tmp_path, model_folders, are_there, options, message
):
    """Nor where they are there: Snakemake forgives an error of an input function then."""
    config = copy.deepcopy(CONFIG)
    for name, model in config["models"].items():
        model["source"] = f"path:{model_folders[name]}"
    (tmp_path / "lines.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    if are_there:
        (tmp_path / "results/models/llama").mkdir(parents=True)
        (tmp_path / "results/data/lines").mkdir(parents=True)
        for split in ("train", "validation", "analysis"):
            (tmp_path / f"results/data/lines/{split}.parquet").touch()
    bad = snakemake(tmp_path, config, "results/runs/llama-tiny/prompts.parquet", *options)
    assert bad.returncode != 0
    assert message in bad.stdout
    assert "Traceback" not in bad.stdout
    assert not (tmp_path / "results/runs").exists()
    assert (tmp_path / "results").exists() == are_there
    assert not list((tmp_path / ".snakemake/locks").glob("*"))


@pytest.mark.skipif(not os.path.exists("/proc/self/mem"), reason="Linux has such a file")
def test_what_cannot_be_read_stops_the_run_though_its_tables_are_there(tmp_path, model_folders):
    """As a file without permission, which the super-user may read."""
    config = copy.deepcopy(CONFIG)
    for name, model in config["models"].items():
        model["source"] = f"path:{model_folders[name]}"
    (tmp_path / "lines.jsonl").symlink_to("/proc/self/mem")
    (tmp_path / "results/models/llama").mkdir(parents=True)
    (tmp_path / "results/data/lines").mkdir(parents=True)
    for split in ("train", "validation", "analysis"):
        (tmp_path / f"results/data/lines/{split}.parquet").touch()
    bad = snakemake(tmp_path, config, "results/runs/llama-tiny/prompts.parquet", "-n")
    assert bad.returncode != 0, bad.stdout
    assert "cannot be read (" in bad.stdout
    assert "Traceback" not in bad.stdout


def test_the_encoding_of_the_terminal_stops_nothing(tmp_path, model_folders, monkeypatch):
    config = copy.deepcopy(CONFIG)
    for name, model in config["models"].items():
        model["source"] = f"path:{model_folders[name]}"
    config["results"] = "L\u00e4ufe \u4e2d"
    config["datasets"]["lines"]["instruction"] = "\u6b63\u9762\uff1f {prompt}"
    (tmp_path / "lines.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    tables_folder = tmp_path / config["results"] / "tables"
    tables_folder.mkdir(parents=True)
    (tables_folder / "verdict.csv").write_text("run\n")  # so that the end has something to say
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    done = snakemake(tmp_path, config, f"{config['results']}/data/lines/train.parquet")
    assert done.returncode == 0, done.stdout
    assert "ufe \\u4e2d/tables/verdict.csv, is as it was" in done.stdout


def test_a_job_of_a_batch_system_stops_where_the_config_was_changed(tmp_path, model_folders):
    """Such a job reads the config anew; it is started here as Snakemake starts it there."""
    config = copy.deepcopy(CONFIG)
    for name, model in config["models"].items():
        model["source"] = f"path:{model_folders[name]}"
    (tmp_path / "lines.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    split = tmp_path / "results/data/lines/train.parquet"
    done = snakemake(tmp_path, config, "results/data/lines/train.parquet", "--config", "seed=3")
    assert done.returncode == 0, done.stdout
    split.unlink()
    job = ["--target-jobs", "data:dataset=lines", "--allowed-rules", "data", "--force"]
    job += ["--mode", "remote", "--nolock", "--config", "seed=3"]
    config["players"]["n"] = N + 1
    changed = snakemake(tmp_path, config, *job)
    assert changed.returncode != 0
    assert "the config is not the one that this run began with (results/made_by" in changed.stdout
    assert "Traceback" not in changed.stdout
    assert not split.exists()
    config["players"]["n"] = N
    config["figures"] = {"main_runs": ["llama-tiny"]}  # no table of a run depends on it
    same = snakemake(tmp_path, config, *job)
    assert same.returncode == 0, same.stdout
    assert split.exists()


def test_jobs_that_wait_are_looked_at_when_another_has_ended(own_study):
    folder, config = own_study
    for path in (folder / "results" / "tables").glob("*.csv"):
        path.unlink()
    done = snakemake(folder, config, "tables", "--cores", "1", "--verbose")
    assert done.returncode == 0, done.stdout[-3000:]
    n_jobs = done.stdout.count("\nFinished jobid: ")
    assert n_jobs > 5
    assert done.stdout.count("\nResources before job selection: ") <= n_jobs
