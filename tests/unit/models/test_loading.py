import copy

import numpy as np
import pytest
import torch
from bad_input import refused
from peft import LoraConfig, get_peft_model
from tiny_models import have_equal_weights
from tiny_prompts import OWNERS, Seen, evaluate

from sft_interactions.models.loading import in_dtype, load_checkpoint, multiply_head_once

CPU = torch.device("cpu")


def test_checkpoints_of_full_weights(tiny_models, model_folders, tmp_path):
    tuned = copy.deepcopy(tiny_models["llama"])
    tuned.model.norm.weight.data *= 2
    tuned.save_pretrained(tmp_path / "full")
    model = load_checkpoint(model_folders["llama"], tmp_path / "full", CPU)
    assert have_equal_weights(model, tuned)
    assert not have_equal_weights(model, tiny_models["llama"])
    assert not model.training


def test_no_checkpoint_is_the_model_itself(tiny_models, model_folders):
    model = load_checkpoint(model_folders["gemma3"], None, CPU)
    assert have_equal_weights(model, tiny_models["gemma3"])
    assert next(model.parameters()).dtype == torch.float32


def test_an_adapter_is_merged_into_a_copy_of_the_base(tiny_models, model_folders, tmp_path):
    base = tiny_models["llama"]
    torch.manual_seed(1)
    lora = LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    adapted = get_peft_model(copy.deepcopy(base), lora)
    adapted.save_pretrained(tmp_path)
    before = copy.deepcopy(base)
    shared = load_checkpoint(model_folders["llama"], tmp_path, CPU, base=lambda: base)
    assert have_equal_weights(base, before)
    assert have_equal_weights(shared, load_checkpoint(model_folders["llama"], tmp_path, CPU))
    changed = {
        name
        for name, weight in shared.state_dict().items()
        if not torch.equal(weight, base.state_dict()[name])
    }
    assert changed == {f"model.layers.{i}.self_attn.q_proj.weight" for i in range(2)}


@pytest.mark.bad_input(of="folder")
def test_a_folder_without_a_checkpoint_is_refused(model_folders, tmp_path):
    with refused(r"adapter_config\.json.*name a checkpoint folder"):
        load_checkpoint(model_folders["llama"], tmp_path, CPU)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision(model, dtype):
    half = in_dtype(model, dtype)
    assert half.get_input_embeddings().weight.dtype == getattr(torch, dtype)
    assert half.get_output_embeddings().weight.dtype == torch.float32
    multiply_head_once(half)
    owners = OWNERS["long tail"]
    exact = evaluate(model, owners, [17])
    for method in ("prefix_tree", "full_length"):
        with Seen(half) as inputs:
            rounded = evaluate(half, owners, [17], method=method)
        assert {rows.dtype for rows in inputs} == {getattr(torch, dtype)}
        assert rounded.dtype == np.float32
        assert np.abs(rounded - exact).max() < 0.5
    assert in_dtype(model, "float32") is model
