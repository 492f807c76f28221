import copy
import os
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from imported_names import imported_modules
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from tiny_prompts import OWNERS, ROUNDING, UNKNOWN, evaluate, make_ids

from sft_interactions import files, tables
from sft_interactions.masking import job as job_module
from sft_interactions.masking.checkpoint import ERROR_MASKINGS, PrecisionError
from sft_interactions.masking.job import MODULES, InferenceJob, read_prompts
from sft_interactions.masking.log_odds import MaskedPrompt
from sft_interactions.masking.parts import Parts

PROVENANCE = {"created_by": "inference", "inputs_digest": "c0ffee"}
PACKAGE = Path(tables.__file__).parent
# By sample: places of its players. Numbers of maskings: 8, 2, 8, 8.
SAMPLES = {
    name: OWNERS[case]
    for name, case in (
        ("a", "long tail"),
        ("b", "one player"),
        ("c", "neighbouring players"),
        ("d", "not in reading order"),
    )
}
SETTINGS = {
    "shards": 1,
    "checkpoints_per_job": 2,
    "dtype": "float32",
    "method": "prefix_tree",
    "max_error": 0.01,
    "batch_tokens": None,
    "memory_gb": None,
}


@pytest.fixture
def prompts(tmp_path):
    path = tmp_path / "prompts.parquet"
    rows = [
        {
            "sample_id": name,
            "rendered": "",
            "token_ids": make_ids(owners),
            "player_of_token": owners,
            "target_token_ids": [17],
            "target_text": "",
        }
        for name, owners in SAMPLES.items()
    ]
    tables.write(pl.DataFrame(rows), path, tables.PROMPTS, **PROVENANCE)
    return read_prompts(path)


@pytest.fixture(scope="module")
def checkpoints(tiny_models, tmp_path_factory):
    """Two adapters of the tiny Llama, by step."""
    folder = tmp_path_factory.mktemp("checkpoints")
    lora = LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False)
    for step in (0, 5):
        torch.manual_seed(step)
        adapted = get_peft_model(copy.deepcopy(tiny_models["llama"]), lora)
        adapted.save_pretrained(folder / f"step-{step}")
    return {step: folder / f"step-{step}" for step in (0, 5)}


@pytest.fixture
def make_job(model_folders, checkpoints, prompts, tmp_path):
    """A job whose kept samples lie in one folder, whatever is changed."""

    def make(*, settings=None, **changes):
        arguments = {
            "model_dir": model_folders["llama"],
            "checkpoints": checkpoints,
            "prompts": prompts,
            "shard": 0,
            "settings": {**SETTINGS, **(settings or {})},
            "mask_embedding": {"name": "token", "token_id": UNKNOWN},
            "device": torch.device("cpu"),
            "threads": 1,
            "parts": Parts(tmp_path / "parts", **PROVENANCE),
        }
        return InferenceJob(**{**arguments, **changes})

    return make


@pytest.fixture
def loads(monkeypatch):
    """Folders that are loaded, in order."""
    loaded = []

    def watch(name):
        original = getattr(job_module, name)

        def load(folder, *arguments, **options):
            loaded.append((name, Path(arguments[0] if arguments else folder).name))
            return original(folder, *arguments, **options)

        monkeypatch.setattr(job_module, name, load)

    watch("load_base")
    watch("load_checkpoint")
    return loaded


class Evaluated:
    """Samples that are evaluated, not taken from where they were kept; a kill after some of them."""

    def __init__(self, monkeypatch, dies_after=None):
        self.n_maskings = []
        original = job_module.Checkpoint.log_odds

        def log_odds(checkpoint, prompt, progress):
            if len(self.n_maskings) == dies_after:
                raise KeyboardInterrupt
            self.n_maskings.append(2**prompt.n)
            return original(checkpoint, prompt, progress)

        monkeypatch.setattr(job_module.Checkpoint, "log_odds", log_odds)


def run(job, report=lambda _: None):
    return {step: (rows, about) for step, rows, about in job.evaluate(report)}


def test_prompts_are_read_in_the_order_of_their_table(prompts):
    assert list(prompts) == list(SAMPLES)
    assert list(prompts["c"].player_of_token) == SAMPLES["c"]
    assert prompts["c"].token_ids == make_ids(SAMPLES["c"])


def test_log_odds_are_those_of_the_checkpoints(make_job, checkpoints, tiny_models, model_folders):
    found = run(make_job())
    assert list(found) == [0, 5]
    for step, (rows, _) in found.items():
        assert rows.schema == tables.LOG_ODDS.columns
        model = job_module.load_checkpoint(
            model_folders["llama"], checkpoints[step], torch.device("cpu")
        )
        for name, owners in SAMPLES.items():
            values = rows.filter(sample_id=name).sort("mask")["log_odds"]
            np.testing.assert_allclose(values, evaluate(model, owners, [17]), atol=ROUNDING)
    assert not found[0][0].equals(found[5][0])


def test_a_killed_job_goes_on_where_it_stopped(make_job, monkeypatch, tmp_path):
    with monkeypatch.context() as patched:
        Evaluated(patched, dies_after=5)
        with pytest.raises(KeyboardInterrupt):
            run(make_job())
    assert len(list((tmp_path / "parts").iterdir())) == 5

    with monkeypatch.context() as patched:
        evaluated = Evaluated(patched)
        again = make_job()
        found = run(again)
    assert evaluated.n_maskings == [2, 8, 8]
    fresh = run(make_job(parts=Parts(tmp_path / "fresh", **PROVENANCE)))
    assert found.keys() == fresh.keys()
    for step, (rows, about) in found.items():
        assert rows.equals(fresh[step][0])
        assert about == fresh[step][1]
    assert len(list((tmp_path / "parts").iterdir())) == 8  # for whoever needs them again


@pytest.mark.parametrize("kept", [0, 3, 8])
def test_progress_counts_maskings_and_samples(make_job, monkeypatch, kept):
    per_sample = [8, 2, 8, 8] * 2
    with monkeypatch.context() as patched:
        Evaluated(patched, dies_after=kept)
        try:
            run(make_job())
        except KeyboardInterrupt:
            assert kept < 8
    job, told = make_job(), []
    assert job.n_samples == 8
    assert job.n_maskings == sum(per_sample)
    run(job, lambda progress: told.append(copy.copy(progress)))
    assert [progress.samples for progress in told] == sorted(p.samples for p in told)
    assert [progress.maskings for progress in told] == sorted(p.maskings for p in told)
    # Told at the end of every sample, and of a forward pass before that where it is evaluated.
    last_of = {progress.samples: progress for progress in told}
    for number in range(1, 9):
        assert last_of[number].maskings >= sum(per_sample[:number])
        assert last_of[number].kept_maskings == sum(per_sample[: min(number, kept)])
    assert told[-1].maskings == job.n_maskings
    assert (last_of.keys() - {0}) == set(range(1, 9))


def test_a_checkpoint_is_loaded_once_and_the_base_once(make_job, checkpoints, loads):
    run(make_job())
    base = ("load_base", "llama")
    assert loads == [("load_checkpoint", "step-0"), base, ("load_checkpoint", "step-5")]

    loads.clear()
    run(make_job())
    assert loads == []  # all samples are kept

    run(make_job(threads=2, checkpoints={5: checkpoints[5]}))
    assert loads == [("load_checkpoint", "step-5")]  # nothing to share


@pytest.fixture
def measured(monkeypatch):
    """Prompts whose error is measured, in order."""
    found = []
    original = job_module.Checkpoint.error

    def error(checkpoint, prompt, values):
        found.append(prompt)
        return original(checkpoint, prompt, values)

    monkeypatch.setattr(job_module.Checkpoint, "error", error)
    return found


def longest_last(prompts):
    """The prompts, and one more that is the longest by its scored tokens, in the second of two shards."""
    owners = SAMPLES["a"]
    longest = MaskedPrompt(make_ids(owners), owners, [17, 90])
    return {**{name: prompts[name] for name in "abc"}, "e": longest}


def test_the_error_is_measured_on_the_first_and_the_longest_sample(make_job, prompts, measured):
    prompts = longest_last(prompts)
    jobs = [make_job(shard=shard, settings={"shards": 2}, prompts=prompts) for shard in (0, 1)]
    found = [run(job) for job in jobs]
    assert measured == [prompts["a"]] * 2 + [prompts["e"]] * 2  # at both checkpoints
    made = {"dtype": "float32", "method": "prefix_tree"}
    for step in (0, 5):
        first, longest = found[0][step][1], found[1][step][1]
        assert first.keys() | longest.keys() == set(tables.LOG_ODDS_METADATA)
        assert first["error_maskings"] == str(ERROR_MASKINGS)
        assert "longest_sample_error_max" not in first
        assert longest == {
            **made,
            "longest_sample_error_max": longest["longest_sample_error_max"],
        }


def test_the_first_sample_may_be_the_longest(make_job, measured):
    job = make_job()
    about = run(job)[5][1]
    assert measured == [job.prompts["a"]] * 2
    assert about["longest_sample_error_max"] == about["log_odds_error_max"]


def test_an_error_of_the_longest_sample_alone_stops_the_job(make_job, prompts, monkeypatch):
    prompts = longest_last(prompts)
    original = job_module.Checkpoint.log_odds

    def log_odds(checkpoint, prompt, progress):
        values = original(checkpoint, prompt, progress)
        return values + (1 if prompt is prompts["e"] else 0)

    monkeypatch.setattr(job_module.Checkpoint, "log_odds", log_odds)
    with pytest.raises(PrecisionError):
        run(make_job(prompts=prompts))


def test_shards_divide_the_samples_and_change_nothing(make_job, tmp_path):
    whole = run(make_job())[5][0]
    parts = Parts(tmp_path / "other", **PROVENANCE)
    shards = [
        run(make_job(shard=shard, settings={"shards": 3}, parts=parts))[5][0] for shard in range(3)
    ]
    assert [shard["sample_id"].unique().sort().to_list() for shard in shards] == [
        ["a", "d"],
        ["b"],
        ["c"],
    ]
    order = ["sample_id", "mask"]
    assert pl.concat(shards).sort(order).equals(whole.sort(order))


def test_what_log_odds_depend_on_is_the_same_in_every_shard(make_job, checkpoints):
    whole = make_job()
    expected = {step: whole.inputs_digest(step) for step in checkpoints}
    assert len(set(expected.values())) == 2
    for shard in range(3):
        job = make_job(shard=shard, settings={"shards": 3, "checkpoints_per_job": 1})
        assert {step: job.inputs_digest(step) for step in checkpoints} == expected
    for changes in ({"settings": {"max_error": 0.5}}, {"threads": 2}):
        assert make_job(**changes).inputs_digest(0) != expected[0]


def test_a_shard_without_samples_gives_an_empty_table(make_job, loads):
    job = make_job(shard=4, settings={"shards": 5})
    assert (job.n_samples, job.n_maskings) == (0, 0)
    for rows, about in run(job).values():
        assert rows.schema == tables.LOG_ODDS.columns
        assert rows.is_empty()
        assert about == {}
    assert loads == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "n_evaluated"),
    [
        ({}, 0),
        ({"settings": {"shards": 2, "checkpoints_per_job": 1}}, 0),
        ({"settings": {"max_error": 0.5}}, 1),
        ({"settings": {"batch_tokens": 64}}, 4),
        ({"settings": {"method": "full_length"}}, 4),
        ({"settings": {"memory_gb": 1.0}}, 4),
        ({"threads": 2}, 4),
        ({"mask_embedding": {"name": "zero", "token_id": UNKNOWN}}, 4),
    ],
)
def test_what_is_kept_is_taken_for_the_same_numbers_only(
    make_job, checkpoints, monkeypatch, changes, n_evaluated
):
    only = {"checkpoints": {0: checkpoints[0]}}
    run(make_job(**only))
    evaluated = Evaluated(monkeypatch)
    run(make_job(**only, **changes))
    if changes.get("settings", {}).get("shards"):
        run(make_job(**only, **changes, shard=1))
    assert len(evaluated.n_maskings) == n_evaluated


def rewrite(path, times):
    """Other numbers of the same size, at the same time."""
    weights = {name: weight * 0.5 for name, weight in load_file(path).items()}
    save_file(weights, path, metadata={"format": "pt"})
    os.utime(path, times)


def test_a_token_that_the_model_does_not_have_is_named(make_job, prompts):
    prompt = copy.copy(prompts["a"])
    job = make_job(
        prompts={**prompts, "a": MaskedPrompt(prompt.token_ids, prompt.player_of_token, [320])}
    )
    with pytest.raises(ValueError, match="sample a has the token id 320, the model knows 320; put"):
        run(job)


@pytest.mark.slow
def test_other_weights_prompts_or_code_are_evaluated_anew(
    make_job, checkpoints, model_folders, prompts, monkeypatch, tmp_path
):
    run(make_job())
    evaluated = Evaluated(monkeypatch)

    def n_evaluated(**changes):
        evaluated.n_maskings.clear()
        run(make_job(**changes))
        return len(evaluated.n_maskings)

    # Where a folder lies and when its files were written does not matter, what they hold does.
    model = shutil.copytree(model_folders["llama"], tmp_path / "model")
    checkpoint = shutil.copytree(checkpoints[5], tmp_path / "checkpoint")
    copies = {"model_dir": model, "checkpoints": {**checkpoints, 5: checkpoint}}
    assert n_evaluated(**copies) == 0
    os.utime(checkpoint / "adapter_model.safetensors", (1, 1))
    assert n_evaluated(**copies) == 0
    rewrite(checkpoint / "adapter_model.safetensors", times=(1, 1))
    assert n_evaluated(**copies) == 4
    rewrite(model / "model.safetensors", times=(1, 1))
    assert n_evaluated(**copies) == 8
    assert n_evaluated(prompts={**prompts, "b": prompts["c"]}) == 2
    assert n_evaluated() == 0
    monkeypatch.setattr(job_module, "digest_of_modules", lambda _: "another")
    assert n_evaluated() == 8
    monkeypatch.setattr("sft_interactions.masking.job.version", lambda _: "0")
    assert n_evaluated() == 8


def test_samples_of_the_same_tokens_are_kept_apart(make_job, prompts):
    job = make_job(prompts={**prompts, "b": prompts["c"]})
    for rows, _ in run(job).values():
        values = {name: rows.filter(sample_id=name)["log_odds"] for name in ("b", "c")}
        np.testing.assert_allclose(values["b"], values["c"], atol=ROUNDING)
        assert len(values["b"]) == 8


def test_too_large_an_error_ends_the_job_and_keeps_nothing(make_job, tmp_path):
    with pytest.raises(PrecisionError, match=r"more than inference\.max_error = 0;"):
        # float16 rounds the weights themselves, on any CPU.
        run(make_job(settings={"dtype": "float16", "max_error": 0.0}))
    assert not (tmp_path / "parts").exists()


def test_the_modules_that_log_odds_depend_on_are_those_that_are_imported():
    found, waiting = set(), {"masking.job"}
    while waiting:
        found |= waiting
        waiting = set().union(*map(imported_modules, waiting)) - found
    assert found == set(MODULES)


def test_other_modules_do_not_change_the_digest(monkeypatch, tmp_path):
    copied = shutil.copytree(PACKAGE, tmp_path / "sft_interactions")
    monkeypatch.setattr(files, "__file__", str(copied / "files.py"))
    before = files.digest_of_modules(MODULES)
    assert files.digest_of_modules(reversed(MODULES)) == before
    paths = {name: copied / f"{name.replace('.', '/')}.py" for name in MODULES}
    others = set(copied.rglob("*.py")) - set(paths.values())
    assert copied / "figures" / "style.py" in others
    for path in others:
        path.write_text("changed = True\n")
    assert files.digest_of_modules(MODULES) == before
    for name, path in paths.items():
        text = path.read_text()
        path.write_text(text + "# changed\n")
        assert files.digest_of_modules(MODULES) != before, name
        path.write_text(text)
    assert files.digest_of_modules(MODULES) == before
