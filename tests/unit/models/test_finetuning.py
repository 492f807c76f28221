import copy
import errno
import json
import math
import os
import shutil
from functools import partial
from itertools import combinations
from pathlib import Path

import pytest
import torch
from bad_input import refused
from imported_names import imported_modules
from tiny_models import have_equal_weights
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from sft_interactions.models import finetuning, training_store
from sft_interactions.models.examples import (
    IGNORED,
    ResponseCollator,
    make_example,
    parts_of_batch,
)
from sft_interactions.models.finetuning import add_adapters, finetune
from sft_interactions.models.loading import check_fit, load_base, load_checkpoint

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


def train(folder, checkpoints_dir, *, seed=0, store_dir=None, progress=None, **changes):
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
        store_dir=store_dir,
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


@pytest.mark.parametrize("model_type", ["mixtral", "qwen3_moe", "olmoe"])
def test_experts_are_tuned_and_analysed_as_they_were_tuned(tmp_path, model_type):
    torch.manual_seed(0)
    sizes = {"vocab_size": 320, "hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 48}
    sizes |= {"num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.2}
    sizes |= {"num_experts_per_tok": 2, "num_local_experts": 4}
    sizes |= {"moe_intermediate_size": 24, "head_dim": 8} if model_type == "qwen3_moe" else {}
    model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[model_type](**sizes)).eval()
    model.save_pretrained(tmp_path / "model")
    rows = train(tmp_path / "model", tmp_path / "checkpoints")
    last = tmp_path / f"checkpoints/step-{SETTINGS['steps']}"
    settings = json.loads((last / "adapter_config.json").read_text("utf-8"))
    assert any("gate_up_proj" in name for name in settings["target_parameters"])
    assert settings["target_parameters"] == sorted(settings["target_parameters"])
    found = load_checkpoint(tmp_path / "model", last, CPU)
    assert loss_by_hand(found, EXAMPLES[:3]) == pytest.approx(rows[-1]["validation_loss"], abs=1e-5)
    assert abs(rows[-1]["validation_loss"] - rows[0]["validation_loss"]) > 0.01


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


def test_parts_of_a_batch_have_little_padding_and_all_of_it():
    batch = ResponseCollator(PAD)(EXAMPLES)
    parts = parts_of_batch(batch)
    shapes = [tuple(part["input_ids"].shape) for part in parts]
    assert shapes == [(1, 11), (1, 7), (1, 5), (1, 3)]
    for part, example in zip(parts, [EXAMPLES[row] for row in (0, 2, 3, 1)], strict=True):
        alone = ResponseCollator(PAD)([example])
        assert part.keys() == alone.keys()
        for key, value in alone.items():
            assert torch.equal(torch.as_tensor(part[key]), torch.as_tensor(value)), key


def test_examples_of_similar_length_share_a_part():
    similar = [make_example([1, *range(20, 20 + n)], [7] * m, 64) for n, m in ((8, 3), (9, 1))]
    batch = ResponseCollator(PAD)([*similar, EXAMPLES[1]])
    first, second = parts_of_batch(batch)
    together = ResponseCollator(PAD)(similar)
    for key, value in together.items():
        assert torch.equal(torch.as_tensor(first[key]), torch.as_tensor(value)), key
    assert second["input_ids"].tolist() == [[1, 21, 9]]
    (whole,) = parts_of_batch(together)
    assert whole is together


@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_batch_in_parts_is_trained_on_as_a_whole_one(
    model_folders, tmp_path, monkeypatch, accumulation
):
    changes = {"batch_size": 4 // accumulation, "gradient_accumulation": accumulation}
    sizes = []

    def parts(batch):
        sizes.append(len(found := parts_of_batch(batch)))
        return found

    found = {}
    for way, function in (("parts", parts), ("whole", lambda batch: [batch])):
        monkeypatch.setattr(finetuning, "parts_of_batch", function)
        rows = train(model_folders["llama"], tmp_path / way, **changes)
        found[way] = rows, load_checkpoint(model_folders["llama"], tmp_path / way / "step-4", CPU)
    assert max(sizes) > 1
    for name in ("train_loss", "validation_loss"):
        one, other = (
            [row[name] for row in rows if row[name] is not None] for rows, _ in found.values()
        )
        assert one == pytest.approx(other, rel=1e-4)
    one, other = (logits(model) for _, model in found.values())
    start = logits(load_checkpoint(model_folders["llama"], tmp_path / "whole/step-0", CPU))
    assert (one - start).abs().max() > 1e-2
    torch.testing.assert_close(one, other, rtol=0, atol=1e-4)


def test_a_loss_that_is_no_sum_over_examples_is_that_of_a_whole_batch(
    model_folders, tmp_path, monkeypatch
):
    def never(batch):
        raise AssertionError

    monkeypatch.setattr(finetuning, "parts_of_batch", never)
    config = tmp_path / "model"
    shutil.copytree(model_folders["llama"], config)
    settings = json.loads((config / "config.json").read_text("utf-8"))
    (config / "config.json").write_text(json.dumps({**settings, "output_router_logits": True}))
    assert train(config, tmp_path / "checkpoints")[-1]["train_loss"] > 0


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


@pytest.mark.bad_input(of="config")
@pytest.mark.parametrize(
    ("checkpoints", "which"), [([0, 4], "training"), ([0, 1], "training"), ([0, 2], "validation")]
)
def test_a_training_that_diverges_is_refused(model_folders, tmp_path, checkpoints, which):
    message = rf"the training diverged: the {which} loss at step \d is (nan|inf); lower finetune"
    with refused(message):
        train(model_folders["llama"], tmp_path / "out", checkpoints=checkpoints, learning_rate=1e25)


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
    left = tmp_path / "run" / f".partial-{os.getpid()}-step-0"
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
                model_folders["llama"], folder, store_dir=state, progress=kill_at(step), **settings
            )
        shutil.rmtree(folder)  # as Snakemake does
    rows = train(model_folders["llama"], folder, store_dir=state, progress=done.append, **settings)
    first = 1 + max(step for step in [0, 2, 3] if step < killed_at[-1])
    assert done == [*range(first, 6)]
    assert rows == expected
    assert files_of(folder) == files_of(whole)
    assert [path.name for path in state.glob("*/*")].count("checkpoints") == 1
    assert not list(state.glob("*/checkpoint-*"))  # what the trainer needs to go on


@pytest.mark.slow
def test_another_training_does_not_go_on_with_that_state(model_folders, tmp_path):
    folder, state = tmp_path / "run", tmp_path / "state"
    options = {"steps": 4, "checkpoints": [0, 2, 4], "store_dir": state}
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
    options = {"steps": 4, "checkpoints": [0, 2, 4], "store_dir": state}
    for spoilt in ("state.json", "checkpoint-2", "checkpoint-2/optimizer.pt", "checkpoints/step-0"):
        with pytest.raises(KilledError):
            train(model_folders["llama"], folder, progress=kill_at(3), **options)
        shutil.rmtree(folder)
        (part,) = state.glob(f"*/{spoilt}")
        if part.is_dir():
            shutil.rmtree(part)
        else:
            part.write_bytes(part.read_bytes()[:-5])
        done = []
        train(model_folders["llama"], folder, progress=done.append, **options)
        assert done == [1, 2, 3, 4]
        shutil.rmtree(folder)
        shutil.rmtree(state)


@pytest.fixture
def loads(monkeypatch):
    """Models that are loaded to be trained."""
    found = []

    def load(folder):
        found.append(folder)
        return load_base(folder)

    monkeypatch.setattr(finetuning, "load_base", load)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_training_that_is_done_is_taken_from_there(model_folders, tmp_path, loads, method):
    state, settings = tmp_path / "store", {"method": method, "lora_dropout": 0.2}
    train(model_folders["llama"], tmp_path / "first", store_dir=state, **settings)
    shutil.rmtree(tmp_path / "first")  # as Snakemake does
    for steps in ([0, 2, 4], [0, 4], [2], [4]):
        wanted = {**settings, "checkpoints": steps}
        name = "-".join(map(str, steps))
        expected = train(model_folders["llama"], tmp_path / f"new-{name}", **wanted)
        loads.clear()
        folder, done = tmp_path / f"kept-{name}", []
        rows = train(
            model_folders["llama"], folder, store_dir=state, progress=done.append, **wanted
        )
        assert loads == []
        assert done == [4]
        assert rows == expected
        assert files_of(folder) == files_of(tmp_path / f"new-{name}")
        weights = sorted(folder.glob("step-[24]/*.safetensors"))
        assert weights
        assert all(path.stat().st_nlink > 1 for path in weights)  # no disk is used twice


@pytest.mark.slow
def test_a_change_that_is_turned_back_trains_nothing(model_folders, tmp_path, loads):
    state, folder = tmp_path / "store", tmp_path / "run"
    one, other = {"seed": 1}, {"seed": 2}
    made = {}
    for changes in (one, other, one, other):
        rows = train(model_folders["llama"], folder, store_dir=state, **changes)
        made.setdefault(changes["seed"], []).append((rows, files_of(folder)))
        shutil.rmtree(folder)
    assert len(loads) == 2
    for first, second in made.values():
        assert first == second
    assert made[1][0] != made[2][0]


@pytest.mark.slow
def test_more_checkpoints_are_trained_and_the_others_stay(model_folders, tmp_path, loads):
    state, folder = tmp_path / "store", tmp_path / "run"
    for steps in ([0, 4], [0, 2, 4], [0, 4], [2]):
        train(model_folders["llama"], folder, store_dir=state, checkpoints=steps)
        assert {path.name for path in folder.iterdir()} == {f"step-{step}" for step in steps}
        shutil.rmtree(folder)
    assert len(loads) == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("steps", "first"), [([0, 4], 3), ([4], 3), ([0, 2, 3, 4], 3), ([0, 1, 4], 1)]
)
def test_a_killed_training_goes_on_with_other_checkpoints_if_it_has_them(
    model_folders, tmp_path, steps, first
):
    state, folder, done = tmp_path / "store", tmp_path / "run", []
    with pytest.raises(KilledError):
        train(model_folders["llama"], folder, store_dir=state, progress=kill_at(3))
    shutil.rmtree(folder)
    wanted = {"checkpoints": steps}
    rows = train(model_folders["llama"], folder, store_dir=state, progress=done.append, **wanted)
    assert done == [*range(first, 5)]
    assert rows == train(model_folders["llama"], tmp_path / "whole", **wanted)
    assert files_of(folder) == files_of(tmp_path / "whole")


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "spoil", "message"),
    [
        ("checkpoints/step-2/adapter_model.safetensors", flip, "this is not what was written"),
        ("checkpoints/step-2/adapter_config.json", flip, "this is not what was written"),
        ("checkpoints/step-2/SHA256SUMS", Path.unlink, "is missing; it is computed anew"),
        ("checkpoints/step-2", shutil.rmtree, None),
        ("state.json", flip, None),
    ],
)
def test_what_is_damaged_in_the_store_is_trained_anew(
    model_folders, tmp_path, loads, caplog, name, spoil, message
):
    state, folder = tmp_path / "store", tmp_path / "run"
    expected = train(model_folders["llama"], folder, store_dir=state)
    files = files_of(folder)
    shutil.rmtree(folder)
    (path,) = state.glob(f"*/{name}")
    spoil(path)
    loads.clear()
    assert train(model_folders["llama"], folder, store_dir=state) == expected
    assert files_of(folder) == files
    assert len(loads) == 1
    warnings = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == (message is not None)
    if message:
        assert message in warnings[0]
        assert "\n" not in warnings[0]
    shutil.rmtree(folder)
    train(model_folders["llama"], folder, store_dir=state)
    assert len(loads) == 1


@pytest.mark.slow
def test_a_checkpoint_that_is_damaged_and_not_asked_for_does_no_harm(
    model_folders, tmp_path, loads
):
    state, folder = tmp_path / "store", tmp_path / "run"
    train(model_folders["llama"], folder, store_dir=state)
    shutil.rmtree(folder)
    (path,) = state.glob("*/checkpoints/step-2/adapter_model.safetensors")
    flip(path)
    train(model_folders["llama"], folder, store_dir=state, checkpoints=[0, 4])
    assert len(loads) == 1


@pytest.mark.slow
def test_a_training_of_other_code_or_libraries_is_not_taken(
    model_folders, tmp_path, loads, monkeypatch
):
    state, folder = tmp_path / "store", tmp_path / "run"

    def n_trained():
        loads.clear()
        train(model_folders["llama"], folder, store_dir=state)
        shutil.rmtree(folder)
        return len(loads)

    assert [n_trained(), n_trained()] == [1, 0]
    with monkeypatch.context() as patched:
        patched.setattr(training_store, "digest_of_modules", lambda _: "another")
        assert n_trained() == 1
    with monkeypatch.context() as patched:
        patched.setattr(training_store, "version", lambda _: "0")
        assert n_trained() == 1
    assert n_trained() == 0


@pytest.mark.slow
def test_a_file_system_without_hard_links_gets_copies(model_folders, tmp_path, loads, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(training_store.os, "link", refuse)
    state, folder = tmp_path / "store", tmp_path / "run"
    train(model_folders["llama"], folder, store_dir=state)
    files = files_of(folder)
    shutil.rmtree(folder)
    train(model_folders["llama"], folder, store_dir=state)
    assert files_of(folder) == files
    assert len(loads) == 1


def test_the_modules_that_a_training_depends_on_are_those_that_are_imported():
    found, waiting = set(), {"models.finetuning"}
    while waiting:
        found |= waiting
        # Examples are compared themselves, whatever they are made by.
        followed = waiting - {"models.examples"}
        waiting = set().union(*map(imported_modules, followed)) - found
    assert found == set(training_store.MODULES)


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
