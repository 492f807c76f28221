import copy
import json
import shutil

import pytest
import torch
from bad_input import refused
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from sft_interactions.models.own_checkpoints import check_own_checkpoints


@pytest.fixture
def adapter(tiny_models, tmp_path):
    torch.manual_seed(0)
    lora = LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    get_peft_model(copy.deepcopy(tiny_models["llama"]), lora).save_pretrained(tmp_path / "one")
    return tmp_path / "one"


@pytest.fixture
def check(model_folders):
    def run(folders, **changes):
        options = {"where": "runs.r.checkpoints", "model_names": ["org/Tiny"]}
        options = {**options, "compare_template": True, **changes}
        check_own_checkpoints(folders, model_folders["llama"], **options)

    return run


def test_adapters_and_full_weights_of_the_model_are_right(
    check, adapter, tiny_models, tmp_path, caplog
):
    tuned = copy.deepcopy(tiny_models["llama"])
    tuned.model.norm.weight.data *= 2
    tuned.save_pretrained(tmp_path / "full")
    check({5: adapter, 10: tmp_path / "full"})
    assert caplog.text == ""


@pytest.mark.bad_input(of="folder")
def test_a_checkpoint_that_does_not_fit_is_named_with_its_step(check, adapter):
    path = adapter / "adapter_model.safetensors"
    save_file({f"policy.{name}": w for name, w in load_file(path).items()}, path)
    message = (
        rf"^runs\.r\.checkpoints\.5: {adapter}: its weights are not those of the model \(4 miss"
    )
    with refused(message):
        check({5: adapter})


@pytest.mark.bad_input(of="folder")
def test_another_tokenizer_is_named_with_its_step(check, adapter, model_folders):
    shutil.copy(model_folders["gemma3"] / "tokenizer.json", adapter)
    with refused(r"^runs\.r\.checkpoints\.5: .*the vocabulary is not that"):
        check({5: adapter})


@pytest.mark.bad_input(of="folder")
def test_a_tokenizer_that_cuts_words_otherwise_is_refused(check, adapter, model_folders):
    content = json.loads((model_folders["llama"] / "tokenizer.json").read_text())
    path = adapter / "tokenizer.json"
    path.write_text(json.dumps(content))  # the same, written otherwise
    check({5: adapter})
    content["model"]["merges"] = content["model"]["merges"][:5]
    path.write_text(json.dumps(content))
    with refused(r"checkpoints\.5: .*reads .The quick .* otherwise than that"):
        check({5: adapter})
    path.write_text('{"model": ' + json.dumps(content["model"]) + "}")
    with refused(r"checkpoints\.5: "):
        check({5: adapter})


def test_a_base_of_another_name_is_a_warning(check, adapter, caplog):
    path = adapter / "adapter_config.json"
    settings = {**json.loads(path.read_text()), "base_model_name_or_path": "org/Other"}
    path.write_text(json.dumps(settings))
    check({5: adapter})
    assert (
        "checkpoints.5: the adapter was trained on org/Other and is added to org/Tiny"
        in caplog.text
    )
    caplog.clear()
    check({5: adapter}, model_names=["mine/other"])
    assert caplog.text == ""


@pytest.mark.bad_input(of="folder")
def test_other_settings_of_full_weights_are_a_warning(check, tiny_models, tmp_path, caplog):
    tiny_models["llama"].save_pretrained(tmp_path / "full")
    path = tmp_path / "full" / "config.json"
    settings = json.loads(path.read_text())
    harmless = {"use_cache": False, "dtype": "bfloat16", "return_dict": False}
    path.write_text(json.dumps({**settings, **harmless}))
    check({5: tmp_path / "full"})
    assert caplog.text == ""
    path.write_text(json.dumps({**settings, "num_attention_heads": 2, "head_dim": 16}))
    with refused("mismatched"):
        check({5: tmp_path / "full"})
    path.write_text(json.dumps({**settings, "rms_norm_eps": 0.1}))
    check({5: tmp_path / "full"})
    assert "checkpoints.5: rms_norm_eps is 0.1 in" in caplog.text


def test_an_adapter_of_zeros_is_a_warning_after_step_zero(check, adapter, caplog):
    path = adapter / "adapter_model.safetensors"
    save_file({n: w * 0 if "lora_B" in n else w for n, w in load_file(path).items()}, path)
    check({0: adapter})
    assert caplog.text == ""
    check({5: adapter})
    assert "checkpoints.5: the adapter is all zero and changes nothing" in caplog.text


def test_the_step_of_the_trainer_is_compared(check, adapter, caplog):
    (adapter / "trainer_state.json").write_text('{"global_step": 5}')
    check({5: adapter})
    assert caplog.text == ""
    check({10: adapter})
    assert "checkpoints.10: global_step is 5 in" in caplog.text


@pytest.mark.parametrize("name", ["checkpoint-100", "step_100", "global_step100"])
def test_the_step_in_the_name_of_a_folder_is_compared(check, adapter, tmp_path, caplog, name):
    """Where an adapter was copied without what the trainer says of it."""
    folder = adapter.rename(tmp_path / name)
    check({100: folder})
    assert caplog.text == ""
    check({1000: folder})
    assert f"checkpoints.1000: the name of {folder} says step 100; see that" in caplog.text
    caplog.clear()
    (folder / "trainer_state.json").write_text('{"global_step": 1000}')
    check({1000: folder})
    assert caplog.text == ""


def copy_tokenizer(model_folder, folder, name, **settings):
    for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(model_folder / file, folder)
    path = folder / name
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))


@pytest.mark.bad_input(of="folder")
@pytest.mark.parametrize(
    ("compare_template", "name", "settings"),
    [
        (True, "tokenizer_config.json", {"bos_token": "<|im_start|>"}),
        (False, "tokenizer.json", {"post_processor": None}),
    ],
    ids=["chat", "plain"],
)
def test_another_token_of_the_beginning_is_refused(
    check, adapter, model_folders, compare_template, name, settings
):
    """The vocabulary, the cutting of words and the template are the same."""
    copy_tokenizer(model_folders["llama"], adapter, name)
    check({5: adapter}, compare_template=compare_template)
    copy_tokenizer(model_folders["llama"], adapter, name, **settings)
    with refused(
        r"checkpoints\.5: .* the tokenizer puts a prompt into .*, that of the model",
    ) as caught:
        check({5: adapter}, compare_template=compare_template)
    assert "<s>" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_another_end_or_padding_token_changes_no_prompt(check, adapter, model_folders, caplog):
    changes = {"eos_token": "<|im_end|>", "pad_token": "</s>", "padding_side": "left"}
    copy_tokenizer(model_folders["llama"], adapter, "tokenizer_config.json", **changes)
    check({5: adapter})
    assert caplog.text == ""
