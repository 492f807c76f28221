import json
import os
import re
import shutil

import pytest
import torch
from bad_input import refused
from safetensors.torch import save_file
from trainer_folders import give_tokenizer, write_checkpoint

from sft_interactions.own_run.trainer_output import (
    find_base,
    read_output,
    without_router_loss,
)


@pytest.fixture
def output(tmp_path):
    for step in (10, 20, 100):
        write_checkpoint(tmp_path / "mine", step)
    return tmp_path / "mine"


def test_steps_base_and_losses_are_read(output):
    found = read_output(output)
    assert list(found.checkpoints) == [10, 20, 100]
    assert found.kind == "adapter"
    named = str(output / "checkpoint-10" / "adapter_config.json")
    assert find_base(found) == ("hub:org/base@main", named)
    assert found.losses == {10: 1.9, 20: 1.4}
    assert found.losses_from == output / "checkpoint-100" / "trainer_state.json"
    assert (found.tokenizer, found.has_template, found.notes) == (None, False, [])


def test_the_tokenizer_is_that_of_the_oldest_checkpoint_so_that_a_new_one_changes_nothing(output):
    for step in (20, 100):
        give_tokenizer(output / f"checkpoint-{step}")
    found = read_output(output)
    assert found.tokenizer == output / "checkpoint-20"
    assert found.has_template


def test_the_last_weights_at_the_root_count_once(output):
    for file in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copy(output / "checkpoint-100" / file, output / file)
    found = read_output(output)
    assert list(found.checkpoints) == [10, 20, 100]
    assert found.notes == [f"the weights in {output} itself are those of step 100, and count once"]


def test_later_weights_at_the_root_are_a_checkpoint_if_their_step_is_known(output, tmp_path):
    last = write_checkpoint(tmp_path / "last", 120)
    for file in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copy(last / file, output / file)
    found = read_output(output)
    assert 120 not in found.checkpoints
    assert "of no known step; they are left out" in found.notes[0]
    shutil.copy(last / "trainer_state.json", output)
    found = read_output(output)
    assert found.checkpoints[120] == output
    state = {"global_step": 120, "log_history": [{"step": 120, "eval_loss": True}]}
    (output / "trainer_state.json").write_text(json.dumps(state))
    with pytest.raises(ValueError, match="eval_loss is True in entry 1 of log_history"):
        read_output(output)


def test_the_best_weights_at_the_root_are_not_taken_for_the_last_step(output, tmp_path):
    """A training that ends by loading its best checkpoint saves that one, beside notes of its last step."""
    state = {"global_step": 120, "best_model_checkpoint": "mine/checkpoint-20", "log_history": []}
    (output / "trainer_state.json").write_text(json.dumps(state))
    for file in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copy(output / "checkpoint-20" / file, output / file)
    found = read_output(output)
    assert list(found.checkpoints) == [10, 20, 100]
    assert found.notes == [f"the weights in {output} itself are those of step 20, and count once"]
    # So it is if the trainer has left no notes there.
    (output / "trainer_state.json").unlink()
    assert "are those of step 20, and count once" in read_output(output).notes[0]
    (output / "trainer_state.json").write_text(json.dumps(state))
    # The folder of the best one was removed.
    shutil.move(output / "checkpoint-20", tmp_path)
    found = read_output(output)
    assert list(found.checkpoints) == [10, 100]
    assert "may be those of the best checkpoint (mine/checkpoint-20, by" in found.notes[0]
    # The last one was the best, or none was.
    for best in ("mine/checkpoint-120", r"C:\mine\checkpoint-120", None):
        state["best_model_checkpoint"] = best
        (output / "trainer_state.json").write_text(json.dumps(state))
        assert read_output(output).checkpoints[120] == output


def test_a_step_that_was_measured_twice_alike_has_one_loss(output):
    for step in (20, 100):
        path = output / f"checkpoint-{step}" / "trainer_state.json"
        state = json.loads(path.read_text())
        state["log_history"].append({"step": 20, "eval_loss": 1.4002})
        path.write_text(json.dumps(state))
    assert read_output(output).losses == {10: 1.9, 20: 1.4002}


@pytest.mark.bad_input(of="folder")
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("r", 4),
        ("lora_alpha", 64),
        ("use_rslora", True),
        ("target_modules", ["q_proj", "v_proj"]),
        ("modules_to_save", ["lm_head"]),
    ],
)
def test_adapters_of_other_settings_are_of_another_run(tmp_path, key, value):
    """Without the notes of a trainer nothing else tells it."""
    output = tmp_path / "mine"
    for step in (10, 20):
        write_checkpoint(output, step, history=None)
    path = output / "checkpoint-20" / "adapter_config.json"
    settings = json.loads(path.read_text())
    # Another version of PEFT writes keys that another one leaves out.
    path.write_text(json.dumps({**settings, "use_dora": False, "modules_to_save": []}))
    assert list(read_output(output).checkpoints) == [10, 20]
    path.write_text(json.dumps({**settings, key: value}))
    with refused(rf"checkpoint-10 and .*checkpoint-20 are of two runs \({key} is .*; move those"):
        read_output(output)


def test_a_base_may_be_a_folder_a_pinned_commit_or_given(output, tmp_path):
    base = tmp_path / "base"
    base.mkdir()
    assert find_base(read_output(output), str(base))[0] == f"path:{base}"
    assert find_base(read_output(output), "org/other@abc")[0] == "hub:org/other@abc"
    for step in (10, 20, 100):
        path = output / f"checkpoint-{step}" / "adapter_config.json"
        settings = {**json.loads(path.read_text()), "revision": "abc123"}
        path.write_text(json.dumps(settings))
    assert find_base(read_output(output))[0] == "hub:org/base@abc123"


def test_a_relative_base_is_looked_for_from_where_the_training_was_started(tmp_path):
    output = tmp_path / "project" / "runs" / "mine"
    write_checkpoint(output, 10, base="models/base")
    assert find_base(read_output(output))[0] == "hub:models/base@main"
    (tmp_path / "project" / "models" / "base").mkdir(parents=True)
    assert find_base(read_output(output))[0] == f"path:{tmp_path}/project/models/base"
    # A commit is one of the hub alone.
    file = output / "checkpoint-10" / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "revision": "main"}))
    assert find_base(read_output(output))[0] == f"path:{tmp_path}/project/models/base"


def test_a_base_that_is_here_is_quantised_if_its_config_says_so(tmp_path):
    base = tmp_path / "int4" / "base-4bit"
    base.mkdir(parents=True)
    write_checkpoint(tmp_path / "mine", 10, base=str(base))
    with refused("was trained on a quantised model"):
        find_base(read_output(tmp_path / "mine"))
    (base / "config.json").write_text('{"model_type": "llama"}')
    assert find_base(read_output(tmp_path / "mine"))[0] == f"path:{base}"
    settings = {"model_type": "llama", "quantization_config": {"load_in_4bit": True}}
    (base / "config.json").write_text(json.dumps(settings))
    with refused("was trained on a quantised model"):
        find_base(read_output(tmp_path / "mine"))
    # Of one that is not here the name tells, and not the folder that it was in.
    write_checkpoint(tmp_path / "other", 10, base="/mountpoint4/base")
    with refused("is no folder here and no id of the hub"):
        find_base(read_output(tmp_path / "other"))


@pytest.mark.bad_input(of="folder")
@pytest.mark.parametrize("name", [".", "checkpoint-20"])
def test_what_the_run_has_tuned_is_not_its_base(output, tmp_path, name):
    link = tmp_path / "link"
    link.symlink_to(output / name)
    for base in (output / name, link):
        with refused(r"^base: .* is what this run has tuned; add base= with the model before"):
            find_base(read_output(output), str(base))


@pytest.mark.bad_input(of="folder")
def test_a_base_of_another_type_is_told_once(tmp_path):
    base, output = tmp_path / "base", tmp_path / "mine"
    for folder, of_type in (
        (base, "llama"),
        *((output / f"checkpoint-{k}", "qwen2") for k in (5, 6)),
    ):
        folder.mkdir(parents=True)
        settings = {"model_type": of_type, "architectures": ["XForCausalLM"]}
        (folder / "config.json").write_text(json.dumps(settings))
        save_file({"w": torch.ones(1)}, folder / "model.safetensors", {"format": "pt"})
    with refused(
        r"^base: .*base/config.json is of type llama, and .*checkpoint-5/config.json of type qwen2"
    ):
        find_base(read_output(output), str(base))
    (base / "config.json").write_text('{"model_type": "qwen2"}')
    assert find_base(read_output(output), str(base))[0] == f"path:{base}"


@pytest.mark.bad_input(of="folder")
def test_a_base_of_other_sizes_is_told_before_any_job(output, tmp_path):
    base = tmp_path / "base"
    base.mkdir()
    (base / "config.json").write_text('{"model_type": "llama"}')
    name = "model.layers.0.self_attn.q_proj.weight"
    save_file({name: torch.ones(8, 8)}, base / "model.safetensors", {"format": "pt"})
    assert find_base(read_output(output), str(base))[0] == f"path:{base}"
    save_file({name: torch.ones(6, 6)}, base / "model.safetensors", {"format": "pt"})
    with refused(
        "^base: .*checkpoint-10: .*lora_A.weight is 2 x 8, and 6 x 6 are the weights in .*/base that it "
        "belongs to, so the adapter was trained on org/base; name the model .*, by base= in --config"
    ):
        find_base(read_output(output), str(base))


@pytest.mark.bad_input(of="folder")
def test_a_model_card_names_the_base_of_full_weights(tmp_path):
    output = tmp_path / "mine"
    folder = output / "checkpoint-5"
    folder.mkdir(parents=True)
    settings = {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}
    (folder / "config.json").write_text(json.dumps(settings))
    save_file({"w": torch.ones(1)}, folder / "model.safetensors", {"format": "pt"})
    with refused("names the model before SFT; add base=FOLDER"):
        find_base(read_output(output))
    (output / "README.md").write_text(
        "---\nbase_model: org/base\nlibrary_name: transformers\n---\n"
    )
    found = read_output(output)
    assert found.kind == "full"
    assert find_base(found) == ("hub:org/base@main", str(output / "README.md"))
    for named in ('"org/base"', "'org/base'", "org/base # the base"):
        (output / "README.md").write_text(f"---\nbase_model: {named}\n---\nbase_model: org/no\n")
        assert find_base(read_output(output))[0] == "hub:org/base@main"


def other_step(output):
    path = output / "checkpoint-20" / "trainer_state.json"
    path.write_text(path.read_text().replace('"global_step": 20', '"global_step": 30'))


def other_run(output):
    path = output / "checkpoint-10" / "trainer_state.json"
    path.write_text(path.read_text().replace("2.0", "2.5"))


def note(**entry):
    def change(output):
        path = output / "checkpoint-20" / "trainer_state.json"
        state = json.loads(path.read_text())
        state["log_history"] = entry.get("history", [*state["log_history"], entry])
        path.write_text(json.dumps(state))

    return change


def no_checkpoints(output):
    for folder in list(output.iterdir()):
        folder.rename(output / f"old-{folder.name}")


def full_weights(output):
    folder = output / "checkpoint-200"
    folder.mkdir()
    settings = {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}
    (folder / "config.json").write_text(json.dumps(settings))
    save_file({"w": torch.ones(1)}, folder / "model.safetensors", {"format": "pt"})


def half_a_file(output):
    path = output / "checkpoint-100" / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-4])


def name_base(name):
    def change(output):
        for folder in output.iterdir():
            path = folder / "adapter_config.json"
            settings = {**json.loads(path.read_text()), "base_model_name_or_path": name}
            path.write_text(json.dumps(settings))

    return change


def two_bases(output):
    write_checkpoint(output, 200, base="org/another")


def quantised(output):
    (output / "training_args.yaml").write_text("quantization_bit: 4\ntemplate: qwen\n")


WRONG = {
    "step": (other_step, "is named after step 20, but global_step is 30"),
    "two runs": (other_run, "are of two runs (loss at step 10 is 2.5 in one, 2.0 in the other)"),
    "two losses": (
        note(step=20, eval_loss=0.3),
        "checkpoint-20/trainer_state.json: step 20 has two eval_loss in log_history, 1.4 and 0.3, as",
    ),
    "no history": (note(history=None), "entry 1 of log_history is no block of keys"),
    "a history of texts": (note(history=["a"]), "entry 1 of log_history is no block of keys"),
    "a loss as text": (note(step=20, eval_loss="1.4"), "eval_loss is '1.4' in entry 5 of log_hist"),
    "a loss as true": (
        note(step=20, eval_loss=True),
        "eval_loss is True in entry 5 of log_history",
    ),
    "no step": (note(step=[20], loss=1.4), "step is [20] in entry 5 of log_history"),
    "half a step": (note(step=2.5, loss=1.4), "step is 2.5 in entry 5 of log_history"),
    "none": (no_checkpoints, "holds no folder checkpoint-STEP (it holds: old-checkpoint-10, "),
    "mixed kinds": (full_weights, "holds an adapter and"),
    "cut off": (half_a_file, "checkpoint-100/adapter_model.safetensors: has "),
    "twice": (
        lambda output: write_checkpoint(output, 20, name="checkpoint-020"),
        "are both of step 20; move one elsewhere",
    ),
    "4 bit name": (
        name_base("unsloth/m-bnb-4bit"),
        "trained on a quantised model (the base unsloth/m",
    ),
    "4 bit setting": (quantised, "trained on a quantised model (quantization_bit in "),
    "moved base": (name_base("/gone/base"), "/gone/base is no folder here and no id of the hub"),
    "two bases": (two_bases, "names org/another, "),
}


@pytest.mark.bad_input(of="folder")
@pytest.mark.parametrize(("change", "message"), WRONG.values(), ids=WRONG)
def test_a_wrong_folder_is_one_line_with_the_mend(output, change, message):
    change(output)
    with refused(r"^(output|base): ") as error:
        find_base(read_output(output))
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert any(
        word in str(error.value)
        for word in ("move", "name ", "give", "add base=", "wait", "copy", "delete")
    )


@pytest.mark.bad_input(of="folder")
def test_one_checkpoint_is_not_the_folder_of_all(output):
    with refused("is one checkpoint; name the folder that holds all"):
        read_output(output / "checkpoint-10")
    with refused("is a file; name the folder"):
        read_output(output / "checkpoint-10" / "adapter_config.json")


@pytest.mark.parametrize(
    ("history", "why"),
    [
        (
            [{"step": 10, "loss": 0.6, "rewards/chosen": 0.1}, {"step": 10, "eval_loss": 0.5}],
            "it has rewards/chosen, so the training was one by preferences or rewards",
        ),
        (
            [{"step": 10, "eval_loss": 0.5, "eval_logps/rejected": -20.0}],
            "it has eval_logps/rejected, so the training was one by preferences or rewards",
        ),
        ([{"step": 10, "reward": 0.4}, {"step": 10, "eval_loss": 0.01}], "it has reward, so the"),
        (
            [{"step": 5, "eval_loss": 2.0}, {"step": 10, "eval_loss": float("nan")}],
            "eval_loss is nan at step 10, as where a training has diverged",
        ),
        ([{"step": 10, "eval_loss": -0.2}], "an eval_loss is -0.2, and a cross-entropy is never"),
        (
            [{"step": 10, "eval_law_loss": 1.0, "eval_code_loss": 2.0}],
            r"by name \(eval_code_loss, eval_law_loss\), and none of them is told to be that of",
        ),
    ],
    ids=["rewards", "evaluated", "GRPO", "diverged", "negative", "several sets"],
)
def test_losses_that_are_none_of_responses_are_not_taken(tmp_path, history, why):
    write_checkpoint(tmp_path / "mine", 10, history=history)
    found = read_output(tmp_path / "mine")
    assert (found.losses, found.losses_from) == ({}, None)
    (note,) = found.notes
    assert re.search(f"trainer_state.json are not taken: .*{why}", note)


@pytest.mark.parametrize("tag", ["gkd", "kto"])
def test_losses_of_a_training_of_another_kind_are_not_taken(tmp_path, tag):
    folder = write_checkpoint(tmp_path / "mine", 10)
    assert read_output(tmp_path / "mine").losses == {10: 1.9}
    (folder / "README.md").write_text(f"---\ntags:\n- trl\n- {tag}\n---\n")
    found = read_output(tmp_path / "mine")
    assert found.losses == {}
    assert f"are not taken: the model card has the tag {tag}, so what" in found.notes[0]


def test_the_loss_of_a_router_is_none_of_responses(tmp_path):
    """Of a mixture of experts; the config of an adapter is that of its base."""
    folder = write_checkpoint(tmp_path / "mine", 10)
    (tmp_path / "base").mkdir()
    for place in (folder, tmp_path / "base"):
        for is_in, why in (({}, True), ({"router_aux_loss_coef": 0.0}, False)):
            settings = {"model_type": "mixtral", "output_router_logits": True, **is_in}
            (place / "config.json").write_text(json.dumps(settings))
            found = read_output(tmp_path / "mine")
            found = without_router_loss(found, f"path:{tmp_path}/base")
            assert bool(found.losses) != why
            assert any("a loss of the router is added" in note for note in found.notes) == why
            assert (found.losses_from is None) == why


def test_a_checkpoint_that_a_resumed_training_has_left_is_told(tmp_path):
    for step, length in ((2, 8), (4, 8), (6, 6), (8, 8)):
        folder = write_checkpoint(tmp_path / "mine", step, history=[])
        state = {"global_step": step, "max_steps": length, "log_history": []}
        (folder / "trainer_state.json").write_text(json.dumps(state))
        written = 1e9 + step + (100 if step == 6 else 0)
        os.utime(folder / "trainer_state.json", (written, written))
    (note,) = read_output(tmp_path / "mine").notes
    assert "checkpoint-8 was written before" in note
    assert "if a training that was resumed has left it there, move it elsewhere" in note
    os.utime(tmp_path / "mine" / "checkpoint-8" / "trainer_state.json", (2e9, 2e9))
    assert read_output(tmp_path / "mine").notes == []


@pytest.mark.bad_input(of="folder")
def test_a_checkpoint_of_step_0_and_folders_of_other_names_are_told(tmp_path):
    write_checkpoint(tmp_path / "mine", 10)
    write_checkpoint(tmp_path / "mine", 0)
    with refused("checkpoint-0 is of step 0, for which the model before SFT stands here; move it"):
        read_output(tmp_path / "mine")
    (tmp_path / "other" / "epoch_0").mkdir(parents=True)
    with refused(r"it holds: epoch_0\); name the trainer's output_dir, or call its checkpoints so"):
        read_output(tmp_path / "other")


def test_checkpoints_of_a_training_that_has_diverged_are_of_one_run(tmp_path):
    history = [{"step": 5, "loss": float("nan")}]
    for step in (10, 20):
        write_checkpoint(tmp_path / "mine", step, history=history)
    assert list(read_output(tmp_path / "mine").checkpoints) == [10, 20]


def test_other_notes_of_a_trainer_do_not_hide_its_losses(tmp_path):
    known = {
        "eval_runtime": 1.0,
        "eval_mean_token_accuracy": 0.5,
        "eval_law_loss": 2.0,
        "epoch": 1.0,
    }
    history = [{"step": 10, "eval_loss": 1.5, "eval_num_tokens": 9.0, **known}]
    write_checkpoint(tmp_path / "mine", 10, history=history)
    found = read_output(tmp_path / "mine")
    assert (found.losses, found.notes) == ({10: 1.5}, [])


def test_weights_of_no_known_step_are_told(output):
    for name in ("checkpoint-20-merged", "final"):
        shutil.copytree(output / "checkpoint-20", output / name)
    write_checkpoint(output / "logs", 5)
    (output / "best").symlink_to(output / "checkpoint-20")
    found = read_output(output)
    assert list(found.checkpoints) == [10, 20, 100]
    assert found.notes == [
        f"{output / name} holds weights and is of no known step; it is left out (call it "
        "checkpoint-STEP if it is one)"
        for name in ("checkpoint-20-merged", "final")
    ]
