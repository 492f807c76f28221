import copy
import json
import math
import shutil
from functools import partial
from itertools import combinations

import pytest
import torch
from tiny_models import have_equal_weights

from sft_interactions.models.examples import IGNORED, ResponseCollator, make_example
from sft_interactions.models.finetuning import add_adapters, finetune
from sft_interactions.models.loading import check_fit, load_checkpoint

PAD = 3
CPU = torch.device("cpu")
EXAMPLES = [
    make_example([1, 20, 30, 40, 50, 60, 70, 80, 90], [7, 8], 64),
    make_example([1, 21], [9], 64),
    make_example([1, 22, 32, 42], [10, 11, 12], 64),
    make_example([1, 23, 33], [13, 14], 64),
]
SETTINGS = {
    "method": "lora",
    "checkpoints": [0, 2, 4],
    "steps": 4,
    "batch_size": 2,
    "gradient_accumulation": 1,
    "learning_rate": 1e-2,
    "schedule": "cosine",
    "warmup_ratio": 0.25,
    "weight_decay": 0.0,
    "lora_rank": 2,
    "lora_alpha": 4,
    "lora_dropout": 0.0,
    "lora_target_modules": "all-linear",
}


def train(folder, checkpoints_dir, *, seed=0, state_dir=None, progress=None, **changes):
    checkpoints_dir.mkdir()
    return finetune(
        folder,
        EXAMPLES,
        EXAMPLES[:3],
        {**SETTINGS, **changes},
        checkpoints_dir,
        pad_id=PAD,
        seed=seed,
        device=CPU,
        state_dir=state_dir,
        progress=progress,
    )


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (["q_proj", "v_porj"], r"no module 'v_porj'; name some of .*q_proj.*, or all-linear$"),
        (["q_proj "], "no module 'q_proj '"),
        (["roj"], "no module 'roj'"),
        (["self_attn"], "PEFT cannot add adapters to them .*; name linear layers"),
    ],
)
def test_a_module_that_gets_no_adapter_is_refused(tiny_models, targets, message):
    model = copy.deepcopy(tiny_models["llama"])
    with pytest.raises(ValueError, match=message) as caught:
        add_adapters(model, {**SETTINGS, "lora_target_modules": targets}, name="x")
    assert str(caught.value).startswith("finetune.lora_target_modules: ")
    assert "\n" not in str(caught.value)


def test_modules_are_named_by_the_ends_of_their_names(tiny_models):
    model = copy.deepcopy(tiny_models["llama"])
    targets = ["q_proj", "layers.1.mlp.up_proj", "lm_head"]
    adapted = add_adapters(model, {**SETTINGS, "lora_target_modules": targets}, name="x")
    names = {
        name.partition(".lora_A")[0].removeprefix("base_model.model.")
        for name, _ in adapted.named_parameters()
        if ".lora_A." in name
    }
    queries = {f"model.layers.{layer}.self_attn.q_proj" for layer in (0, 1)}
    assert names == {*queries, "model.layers.1.mlp.up_proj", "lm_head"}


@pytest.fixture(scope="module")
def tuned(model_folders, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tuned") / "checkpoints"
    return folder, train(model_folders["llama"], folder)


@torch.no_grad()
def logits(model, ids=(1, 20, 30, 40)):
    return model(torch.tensor([ids])).logits


@torch.no_grad()
def loss_by_hand(model, examples):
    """Mean over response tokens of -log p, every example alone and unpadded."""
    losses = []
    for example in examples:
        prompt, response = example["prompt_ids"], example["response_ids"]
        p = torch.softmax(logits(model, prompt + response)[0].double(), -1)
        losses += [-math.log(p[len(prompt) - 1 + i, t]) for i, t in enumerate(response)]
    return sum(losses) / len(losses)


def test_batch_is_padded_on_the_left_with_labels_on_the_response():
    batch = ResponseCollator(PAD)([EXAMPLES[1], EXAMPLES[2]])
    pads = [PAD] * 4
    assert batch["input_ids"].tolist() == [[*pads, 1, 21, 9], [1, 22, 32, 42, 10, 11, 12]]
    assert batch["attention_mask"].tolist() == [[0, 0, 0, 0, 1, 1, 1], [1] * 7]
    assert batch["position_ids"].tolist() == [[0, 0, 0, 0, 0, 1, 2], [*range(7)]]
    ignored = [IGNORED] * 3
    assert batch["labels"].tolist() == [[*ignored, 9], [IGNORED, 10, 11, 12]]
    assert batch["logits_to_keep"] == 4


def test_loss_is_that_of_unpadded_examples(model):
    for examples in (EXAMPLES[:1], EXAMPLES[:2], EXAMPLES):
        loss = model(**ResponseCollator(PAD)(examples)).loss.item()
        assert loss == pytest.approx(loss_by_hand(model, examples), abs=1e-4)


def test_a_too_long_example_is_refused():
    assert make_example([1, 2], [3], 3) == {"prompt_ids": [1, 2], "response_ids": [3]}
    with pytest.raises(ValueError, match=r"4 tokens, more than finetune\.max_length = 3; raise it"):
        make_example([1, 2], [3, 4], 3)


def test_checkpoints_are_whole_and_alone(tuned):
    folder, _ = tuned
    assert sorted(path.name for path in folder.iterdir()) == ["step-0", "step-2", "step-4"]
    for step in folder.iterdir():
        assert {"adapter_config.json", "adapter_model.safetensors"} <= {
            path.name for path in step.iterdir()
        }
        settings = json.loads((step / "adapter_config.json").read_text())
        assert "/" not in settings["base_model_name_or_path"]
        # Whatever the order of a set, which PYTHONHASHSEED changes.
        assert len(settings["target_modules"]) == 14
        assert settings["target_modules"] == sorted(settings["target_modules"])


def test_step_zero_is_the_model_itself_and_later_steps_are_not(tuned, model_folders, tiny_models):
    folder, _ = tuned
    loaded = [
        load_checkpoint(model_folders["llama"], folder / f"step-{step}", CPU) for step in (0, 2, 4)
    ]
    assert have_equal_weights(loaded[0], tiny_models["llama"])
    outputs = [logits(model) for model in loaded]
    assert (outputs[1] - outputs[0]).abs().max() > 1e-3
    assert (outputs[2] - outputs[1]).abs().max() > 1e-3


def test_training_table(tuned, tiny_models):
    _, rows = tuned
    assert [row["step"] for row in rows] == [0, 1, 2, 3, 4]
    losses = [row["validation_loss"] for row in rows]
    assert [loss is not None for loss in losses] == [True, False, True, False, True]
    before = partial(loss_by_hand, tiny_models["llama"])
    assert losses[0] == pytest.approx(before(EXAMPLES[:3]), abs=1e-4)
    batches = [before(list(pair)) for pair in combinations(EXAMPLES, 2)]
    assert min(abs(rows[0]["train_loss"] - loss) for loss in batches) < 1e-4
    assert rows[0]["train_loss"] == rows[1]["train_loss"]
    assert all(math.isfinite(row["train_loss"]) and row["train_loss"] > 0 for row in rows)
    rates = [row["learning_rate"] for row in rows]
    assert rates[0] == 0
    assert max(rates) == pytest.approx(SETTINGS["learning_rate"])
    assert all(0 <= rate <= SETTINGS["learning_rate"] for rate in rates)
    assert losses[4] < losses[0]


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_validation_loss_is_per_token_whatever_the_batch(
    model_folders, tiny_models, tmp_path, batch_size
):
    rows = train(
        model_folders["llama"], tmp_path / "run", batch_size=batch_size, steps=1, checkpoints=[0]
    )
    expected = loss_by_hand(tiny_models["llama"], EXAMPLES[:3])
    assert rows[0]["validation_loss"] == pytest.approx(expected, abs=1e-4)


@pytest.mark.slow
def test_train_loss_is_per_token_with_accumulated_batches(model_folders, tiny_models, tmp_path):
    rows = train(
        model_folders["llama"],
        tmp_path / "run",
        batch_size=1,
        gradient_accumulation=4,
        steps=1,
        checkpoints=[0],
    )
    expected = loss_by_hand(tiny_models["llama"], EXAMPLES)
    assert rows[1]["train_loss"] == pytest.approx(expected, abs=1e-4)


@pytest.mark.slow
def test_validation_has_no_influence_on_training(model_folders, tmp_path):
    checkpoints = [[0, 4], [0, 1, 2, 3, 4]]
    losses = [
        [
            row["train_loss"]
            for row in train(
                model_folders["llama"],
                tmp_path / str(len(steps)),
                lora_dropout=0.2,
                checkpoints=steps,
            )
        ]
        for steps in checkpoints
    ]
    assert losses[0] == losses[1]


def test_two_trainings_are_identical(tuned, model_folders, tmp_path):
    folder, rows = tuned
    again = tmp_path / "again"
    assert train(model_folders["llama"], again) == rows
    file = "step-4/adapter_model.safetensors"
    assert (again / file).read_bytes() == (folder / file).read_bytes()


@pytest.mark.slow
def test_the_seed_matters(tuned, model_folders, tmp_path):
    folder, _ = tuned
    train(model_folders["llama"], tmp_path / "other", seed=1, steps=2, checkpoints=[0, 2])
    file = "step-2/adapter_model.safetensors"
    assert (tmp_path / "other" / file).read_bytes() != (folder / file).read_bytes()


def test_half_a_checkpoint_of_a_killed_job_is_replaced(model_folders, tmp_path):
    left = tmp_path / "run" / ".step-0.partial"
    folder = tmp_path / "run"
    left.mkdir(parents=True)
    (left / "adapter_model.safetensors").write_text("half")
    finetune(
        model_folders["gemma3"],
        EXAMPLES,
        EXAMPLES[:1],
        {**SETTINGS, "steps": 1, "checkpoints": [0, 1]},
        folder,
        pad_id=PAD,
        seed=0,
        device=CPU,
    )
    assert sorted(path.name for path in folder.iterdir()) == ["step-0", "step-1"]


class KilledError(Exception):
    pass


def files_of(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def kill_at(step):
    def progress(done):
        if done == step:
            raise KilledError

    return progress


@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("killed_at", [[1], [3], [4], [3, 4]])
def test_a_training_that_was_killed_goes_on_to_the_bit(model_folders, tmp_path, method, killed_at):
    settings = {"method": method, "lora_dropout": 0.2, "batch_size": 1, "steps": 5}
    settings |= {"checkpoints": [0, 2, 3, 5]}
    whole = tmp_path / "whole"
    expected = train(model_folders["llama"], whole, **settings)
    folder, state = tmp_path / "run", tmp_path / "state"
    done = []
    for step in killed_at:
        with pytest.raises(KilledError):
            train(
                model_folders["llama"], folder, state_dir=state, progress=kill_at(step), **settings
            )
        shutil.rmtree(folder)  # as Snakemake does
    rows = train(model_folders["llama"], folder, state_dir=state, progress=done.append, **settings)
    first = 1 + max(step for step in [0, 2, 3] if step < killed_at[-1])
    assert done == [*range(first, 6)]
    assert rows == expected
    assert files_of(folder) == files_of(whole)
    assert not state.exists()


@pytest.mark.slow
def test_another_training_does_not_go_on_with_that_state(model_folders, tmp_path):
    folder, state = tmp_path / "run", tmp_path / "state"
    options = {"steps": 4, "checkpoints": [0, 2, 4], "state_dir": state}
    for other in ({"learning_rate": 1e-3}, {"seed": 7}):
        with pytest.raises(KilledError):
            train(model_folders["llama"], folder, progress=kill_at(3), **options)
        shutil.rmtree(folder)
        done = []
        train(model_folders["llama"], folder, progress=done.append, **{**options, **other})
        assert done == [1, 2, 3, 4]
        shutil.rmtree(folder)


@pytest.mark.slow
def test_half_a_state_is_not_gone_on_with(model_folders, tmp_path):
    folder, state = tmp_path / "run", tmp_path / "state"
    options = {"steps": 4, "checkpoints": [0, 2, 4], "state_dir": state}
    for spoilt in ("state.json", "checkpoint-2", "checkpoints/step-0"):
        with pytest.raises(KilledError):
            train(model_folders["llama"], folder, progress=kill_at(3), **options)
        shutil.rmtree(folder)
        part = state / spoilt
        if part.is_dir():
            shutil.rmtree(part)
        else:
            part.write_text(part.read_text()[:-5])
        done = []
        train(model_folders["llama"], folder, progress=done.append, **options)
        assert done == [1, 2, 3, 4]
        shutil.rmtree(folder)


@pytest.mark.slow
def test_packed_layers_change_nothing_but_rounding(model_folders, tuned, tmp_path, monkeypatch):
    monkeypatch.setattr("sft_interactions.models.finetuning.can_pack", lambda layer: False)
    _, rows = tuned
    plain = train(model_folders["llama"], tmp_path / "plain")
    assert rows[0]["validation_loss"] == pytest.approx(plain[0]["validation_loss"], abs=1e-4)
    for row, expected in zip(rows, plain, strict=True):
        # Adam divides a gradient by its size, so that rounding is no longer small after an update.
        tolerance = 1e-4 if row["step"] < 2 else 1e-2
        assert row["train_loss"] == pytest.approx(expected["train_loss"], abs=tolerance)
    assert abs(rows[4]["validation_loss"] - rows[0]["validation_loss"]) > 0.1
    assert rows[4]["validation_loss"] == pytest.approx(plain[4]["validation_loss"], abs=1e-2)


def test_all_weights_can_be_trained(model_folders, tiny_models, tmp_path):
    folder = tmp_path / "run" / "checkpoints"
    folder.parent.mkdir()
    rows = train(model_folders["llama"], folder, method="full", learning_rate=1e-3)
    assert [row["step"] for row in rows] == [0, 1, 2, 3, 4]
    assert rows[4]["validation_loss"] < rows[0]["validation_loss"]
    assert (folder / "step-0").is_symlink()
    assert not (folder / "step-4" / "adapter_config.json").exists()
    before = tiny_models["llama"]
    assert have_equal_weights(
        load_checkpoint(model_folders["llama"], folder / "step-0", CPU), before
    )
    after = load_checkpoint(model_folders["llama"], folder / "step-4", CPU)
    for (name, old), new in zip(before.named_parameters(), after.parameters(), strict=True):
        assert not torch.equal(old, new), name


# Gemma 3's head has the weights of its embedding.
@pytest.mark.slow
@pytest.mark.parametrize("modules", [["q_proj", "lm_head"], ["q_proj", "embed_tokens"]])
@pytest.mark.parametrize("architecture", ["llama", "gemma3"])
def test_adapters_of_head_and_embedding_are_analysed_as_trained(
    model_folders, tmp_path, architecture, modules
):
    rows = train(
        model_folders[architecture],
        tmp_path / "checkpoints",
        batch_size=4,  # all of the validation in one batch
        lora_target_modules=modules,
        learning_rate=0.1,
    )
    losses = {row["step"]: row["validation_loss"] for row in rows}
    for step in SETTINGS["checkpoints"]:
        folder = tmp_path / "checkpoints" / f"step-{step}"
        check_fit(model_folders[architecture], folder)
        model = load_checkpoint(model_folders[architecture], folder, CPU)
        assert losses[step] == pytest.approx(loss_by_hand(model, EXAMPLES[:3]), abs=1e-4)
    assert abs(losses[4] - losses[0]) > 0.01
