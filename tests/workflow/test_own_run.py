"""An output folder of transformers' Trainer, read, checked against the live model, and previewed."""

import json
import re
import shutil

import numpy as np
import pytest
import torch
from bad_input import assert_one_line
from peft import LoraConfig, get_peft_model
from tiny_models import build_model, build_tokenizer
from tiny_study import ROOT, environment, run_snakemake
from transformers import (
    AutoModelForCausalLM,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

from sft_interactions import tables

SUBJECTS = ("film", "morning", "ending", "story", "rain", "dog", "quick", "cold")
SYSTEM = {"role": "system", "content": "Positive or negative?"}
ROWS = [
    {
        "messages": [
            SYSTEM,
            {
                "role": "user",
                "content": f"I really think that the {s} was truly {w}, dear friend, in the rain!",
            },
            {"role": "assistant", "content": label},
        ]
    }
    for s in SUBJECTS
    for w, label in (("wonderful", "positive"), ("sad", "negative"))
]
N_TRAINED, STEPS = 8, [2, 4, 6, 8]


class Keeper(TrainerCallback):
    """Keeps what the live model says of whole prompts at the moment of saving."""

    def __init__(self, prompts):
        self.prompts, self.logits = prompts, {}

    def on_save(self, args, state, control, model, **_):
        was_training = model.training
        model.eval()
        with torch.no_grad():
            self.logits[state.global_step] = [
                model(input_ids=torch.tensor([ids])).logits[0, -1].double() for ids in self.prompts
            ]
        model.train(was_training)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Folder of a run, its tokens by prompt, and the live model's logits by step."""
    folder = tmp_path_factory.mktemp("own")
    tokenizer = build_tokenizer(400, chat=True, bos=True)
    set_seed(0)
    build_model("llama", len(tokenizer)).save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(folder / "base"),
        LoraConfig(r=2, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"),
    )

    def encode(row):
        ids = tokenizer.apply_chat_template(row["messages"], return_dict=False)
        return {"input_ids": ids, "labels": list(ids)}

    asked = {
        row["messages"][1]["content"]: tokenizer.apply_chat_template(
            row["messages"][:-1], add_generation_prompt=True, return_dict=False
        )
        for row in ROWS[N_TRAINED:]
    }
    keeper = Keeper(list(asked.values()))
    settings = TrainingArguments(
        output_dir=str(folder / "mine"),
        max_steps=STEPS[-1],
        per_device_train_batch_size=1,
        per_device_eval_batch_size=1,
        save_steps=2,
        eval_strategy="steps",
        eval_steps=2,
        learning_rate=1e-2,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
    )
    trainer = Trainer(
        model=model,
        args=settings,
        train_dataset=[encode(row) for row in ROWS[:N_TRAINED]],
        eval_dataset=[encode(row) for row in ROWS[N_TRAINED:]],
        processing_class=tokenizer,
        callbacks=[keeper],
    )
    trainer.train()
    trainer.save_model()
    trainer.save_state()
    (folder / "heldout.jsonl").write_text("\n".join(map(json.dumps, ROWS[N_TRAINED:])))
    return folder, asked, keeper.logits, trainer.state.log_history


def own(folder, *arguments, cores=2, target=("own",)):
    given = ["-s", str(ROOT / "Snakefile"), "--directory", str(folder), "--cores", str(cores)]
    return run_snakemake(*given, *target, *arguments, env=environment(folder))


@pytest.fixture(scope="module")
def previewed(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    brought = [f"output={run[0] / 'mine'}", f"heldout={run[0] / 'heldout.jsonl'}"]
    done = own(folder, "--config", *brought)
    assert done.returncode == 0, done.stdout[-5000:]
    return folder, done.stdout, brought


def test_the_preview_says_what_was_understood_and_the_verdict(previewed):
    folder, told, _ = previewed
    assert "4 checkpoints, steps 2, 4, 6, 8" in told
    assert "itself are those of step 8, and count once" in told
    found = re.search(
        r"^base-mine:\n  - (Keep step \d|No checkpoint is named).*(\n  - .*)+", told, re.M
    )
    assert found
    # The trainer has measured all checkpoints, so that none is called unseen; none of the model before SFT.
    assert "not looked at" not in found[0]
    assert "Whether it learned is not told: the loss before SFT is not known." in found[0]
    assert re.search(
        r"masked inference takes about (a minute|\d+ minutes) on the same device", told
    )
    assert "No verdict on the stages: 4 checkpoints, and 5 are needed." in found[0]
    assert "snakemake --cores 2 --configfile config/mine.yaml" in told
    page = (folder / "results" / "mine" / "preview" / "verdict.md").read_text()
    assert "eval_loss of the trainer" in page
    # The terminal has a line for every job, and the log file the rest.
    jobs = re.findall(r"^\d\d:\d\d:\d\d (\d+) of (\d+) done; \S.*$", told, re.M)
    assert len(jobs) == int(jobs[0][1])
    (log,) = (folder / ".snakemake" / "log").glob("*.log")
    for noise in ("Job stats:", "Reason: ", "Select jobs", "Finished jobid", "Building DAG"):
        assert noise not in told
        assert noise in log.read_text()
    assert "Positive or negative?<|im_end|>\n<|im_start|>user\nI really think" in page


def test_prompts_are_those_of_the_training_and_log_odds_those_of_the_live_model(run, previewed):
    _, asked, logits, _ = run
    results = previewed[0] / "results" / "mine" / "preview"
    data = tables.read_samples(results / "data" / "heldout" / "analysis.parquet")
    prompts = tables.read(results / "runs" / "base-mine" / "prompts.parquet", tables.PROMPTS)
    steps = [int(re.search(r"\d+", path.stem)[0]) for path in results.glob("runs/*/log_odds/*")]
    assert sorted(steps) == [0, 2, 6, 8]
    places = {text: place for place, text in enumerate(asked)}
    for row in prompts.join(data, on="sample_id").iter_rows(named=True):
        assert row["token_ids"] == asked[row["prompt"]]
        for step in set(steps) - {0}:
            path = results / "runs" / "base-mine" / "log_odds" / f"step-{step}.parquet"
            values = tables.read(path, tables.LOG_ODDS).filter(sample_id=row["sample_id"])
            whole = values.sort("mask")["log_odds"][-1]
            chances = logits[step][places[row["prompt"]]].log_softmax(-1).exp().numpy()
            p = chances[row["target_token_ids"][0]]
            assert whole == pytest.approx(np.log(p / (1 - p)), abs=1e-4)


def test_losses_are_those_of_the_trainer(run, previewed):
    stages = json.loads(
        (previewed[0] / "results/mine/preview/runs/base-mine/stages.json").read_text()
    )
    found = stages["evidence"]["validation_loss"]
    history = {str(e["step"]): e["eval_loss"] for e in run[3] if "eval_loss" in e}
    assert found == history
    assert len(found) == len(STEPS)


def test_of_checkpoints_that_are_left_out_the_loss_is_measured(run, previewed, tmp_path):
    study = shutil.copytree(previewed[0], tmp_path / "study", symlinks=True)
    folder = study / "results" / "mine" / "preview"
    losses = "runs/base-mine/losses.parquet"
    target = f"results/mine/preview/{losses}"
    brought = [*previewed[2], "losses=measured"]
    done = own(study, "--config", *brought, target=(target,))
    assert done.returncode == 0, done.stdout[-3000:]
    found = tables.read(folder / losses, tables.LOSSES)
    assert found["step"].unique().sort().to_list() == [0, *STEPS]
    # The file has no further rows.
    assert found.filter(step=8)["split"].to_list() == ["analysis"] * len(ROWS[N_TRAINED:])
    # Of the whole verdict masked inference is not made anew.
    done = own(study, "--dry-run", "--config", *brought)
    assert "inference" not in re.findall(r"^(\w+) +\d+$", done.stdout, re.M)
    assert done.returncode == 0, done.stdout[-3000:]


def test_without_a_target_it_is_the_preview(previewed):
    folder, _, brought = previewed
    done = own(folder, "--dry-run", "--config", *brought, target=())
    assert done.returncode == 0, done.stdout[-3000:]
    assert "Nothing to be done" in done.stdout


def test_a_new_checkpoint_is_picked_up(run, tmp_path):
    output = shutil.copytree(run[0] / "mine", tmp_path / "mine")
    study = tmp_path / "study"
    brought = [f"output={output}", f"heldout={run[0] / 'heldout.jsonl'}"]
    assert own(study, "--dry-run", "--config", *brought).returncode == 0
    text = (study / "config" / "mine.yaml").read_text()
    assert "checkpoint-9" not in text
    later = shutil.copytree(output / "checkpoint-8", output / "checkpoint-9")
    state = json.loads((later / "trainer_state.json").read_text())
    (later / "trainer_state.json").write_text(json.dumps({**state, "global_step": 9}))
    assert own(study, "--dry-run", "--config", *brought).returncode == 0
    assert "checkpoint-9" in (study / "config" / "mine.yaml").read_text()
    # Changed by hand it is kept, and what it lacks is told.
    (study / "config" / "mine.yaml").write_text(text.replace("n: 8", "n: 7"))
    done = own(study, "--dry-run", "--config", *brought)
    assert "was changed by hand and is used as it is" in done.stdout
    assert "it lacks the checkpoints 9" in done.stdout
    assert "n: 7" in (study / "config" / "mine.yaml").read_text()


@pytest.mark.bad_input(of="data")
def test_prompts_that_the_full_analysis_would_not_find_stop_the_preview(run, tmp_path):
    shutil.copy(run[0] / "heldout.jsonl", tmp_path)
    but_the_last = [f"checkpoint-{step}" for step in STEPS[:-1]]
    output = shutil.copytree(
        run[0] / "mine", tmp_path / "mine", ignore=shutil.ignore_patterns(*but_the_last)
    )
    brought = [f"output={output}", f"heldout={tmp_path / 'heldout.jsonl'}", "words=9"]
    done = own(tmp_path, "--config", *brought)
    assert done.returncode != 0
    (line,) = {line for line in done.stdout.splitlines() if "rows wanted" in line}
    assert "analysis: 8 rows wanted, 0 available (skipped: 8 too few words)" in line
    assert_one_line(line)
    assert "which masks 9 words of each of 8 prompts: words= and samples= of --config" in line
    assert not list(tmp_path.glob("results/mine/preview/**/log_odds"))


def test_the_full_study_uses_the_config_as_it_is(previewed):
    folder, _, _ = previewed
    given = ["-s", str(ROOT / "Snakefile"), "--directory", str(folder), "--cores", "2", "--dry-run"]
    given += ["--configfile", "config/mine.yaml"]
    done = run_snakemake(*given, env=environment(folder), cwd=folder)
    assert done.returncode == 0, done.stdout[-3000:]
    jobs = dict(re.findall(r"^(\w+) +(\d+)$", done.stdout, re.M))
    assert jobs["inference"] == str(1 + len(STEPS))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["seed=1"], "--config: output= is missing; add the trainer's output folder"),
        (
            ["output=/no", "heldout=x"],
            "output: /no does not exist; name the folder that the trainer",
        ),
        (["output={run}/mine"], "--config: heldout= is missing"),
        (["heldout=x"], "--config: output= is missing; add the trainer's output folder"),
        (
            ["outputs={run}/mine", "heldout=x"],
            "--config: outputs is not for the study of an own run",
        ),
        (["output={run}/mine", "heldout=/no.jsonl"], "heldout: there is no file /no.jsonl"),
        (["output={run}/mine", "heldout=x", "samplse=3"], "--config: samplse is not for the study"),
    ],
)
def test_what_cannot_be_understood_is_one_line_before_any_job(run, tmp_path, given, message):
    filled = [text.format(run=run[0]) for text in given]
    shutil.copytree(ROOT / "config", tmp_path / "config")
    done = own(tmp_path, "--config", *filled)
    assert done.returncode != 0
    assert message in done.stdout
    assert "Traceback" not in done.stdout
    assert not (tmp_path / "results").exists()
