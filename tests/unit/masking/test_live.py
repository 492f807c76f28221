"""A model that is in use: what can be measured, and that it is left as it was."""

import random

import numpy as np
import pytest
import torch
from peft import PromptTuningConfig, get_peft_model
from tiny_models import build_model, build_tokenizer
from tiny_prompts import UNKNOWN, make_prompt
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

import sft_interactions as si
from sft_interactions.masking.live import check_live, live_log_odds, plain_log_odds, undisturbed
from sft_interactions.masking.mask_embedding import make_mask_embedding
from sft_interactions.models.loading import check_reading

PROMPTS = [make_prompt([-1, 0, 1, -1, 2, -1], [17]), make_prompt([0, -1, 1, 1, 2, -1, -1], [90])]
TF32 = [torch.backends.cuda.matmul, torch.backends.cudnn.conv, torch.backends.mkldnn.matmul]


def read(model, method="prefix_tree"):
    with undisturbed(model):
        embedding = make_mask_embedding(model, "token", UNKNOWN)
        return live_log_odds(model, PROMPTS, embedding, method=method, where="model")


# --- Left as it was ---------------------------------------------------------------------------------


def random_numbers():
    return torch.rand(2).tolist(), np.random.rand(2).tolist(), random.random()


def test_random_numbers_are_those_that_come_without_it():
    model = build_model("llama")
    found = []
    for draws in (0, 3):
        torch.manual_seed(1)
        np.random.seed(2)
        random.seed(3)
        with undisturbed(model):
            for _ in range(draws):
                random_numbers()
        found.append(random_numbers())
    assert found[0] == found[1]


def test_modes_of_modules_are_as_before_though_an_error_ends_it():
    model = build_model("llama").train()
    model.model.norm.train(False)
    before = {name: module.training for name, module in model.named_modules()}

    def evaluate_and_fail():
        with undisturbed(model):
            assert not any(module.training for module in model.modules())
            raise KeyError

    with pytest.raises(KeyError):
        evaluate_and_fail()
    assert {name: module.training for name, module in model.named_modules()} == before


def test_a_forward_function_of_a_trainer_is_put_aside_and_back():
    model = build_model("llama")
    inside = model.forward

    def other(*args, **kwargs):
        raise AssertionError

    model.forward = other
    with undisturbed(model):
        assert model.forward == inside
    assert model.forward is other


@pytest.mark.parametrize("setting", ["none", "tf32", "ieee"])
def test_precision_switches_are_as_before(setting):
    usual = torch.backends.fp32_precision
    before_all = [switch.fp32_precision for switch in TF32], torch.backends.cudnn.allow_tf32
    torch.backends.fp32_precision = setting  # as transformers does it for tf32=True
    try:
        before = [switch.fp32_precision for switch in TF32]
        with undisturbed(build_model("llama")):
            assert [switch.fp32_precision for switch in TF32] == ["ieee"] * 3
        assert [switch.fp32_precision for switch in TF32] == before
    finally:
        torch.backends.fp32_precision = usual
    # What followed the switch of all follows it still; reading allow_tf32 fails where cuDNN's differ.
    after_all = [switch.fp32_precision for switch in TF32], torch.backends.cudnn.allow_tf32
    assert after_all == before_all


@pytest.mark.parametrize("switch", TF32)
def test_a_precision_switch_of_its_own_is_as_before(switch):
    usual = switch.fp32_precision
    switch.fp32_precision = "tf32"
    try:
        with undisturbed(build_model("llama")):
            assert [one.fp32_precision for one in TF32] == ["ieee"] * 3
        assert switch.fp32_precision == "tf32"
    finally:
        switch.fp32_precision = usual


@pytest.mark.parametrize("kind", ["default", "dynamic"])
def test_rotary_factors_are_as_before(kind):
    # Of dynamic ones those of a text depend on the longest before, and a short text begins anew.
    rope = {"rope_type": kind, "rope_theta": 10.0, "factor": 4.0}
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "vocab_size": 320}
    config = LlamaConfig(
        **sizes, num_attention_heads=4, max_position_embeddings=16, rope_parameters=rope
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(config)
    longest, long = (torch.arange(n)[None] for n in (60, 40))
    logits = []
    for measure in (False, True):
        model(longest)
        if measure:
            read(model)
        logits.append(model(long).logits)
    assert torch.equal(*logits)


def test_autocast_around_it_changes_nothing():
    model = build_model("llama")
    alone = read(model)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert np.array_equal(read(model), alone)


# --- What is read -----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["prefix_tree", "full_length"])
def test_the_last_masking_is_the_prompt_itself(method):
    model = build_model("gemma3").train()
    values = read(model, method)
    assert values.shape == (2, 8)
    model.eval()
    for prompt, row in zip(PROMPTS, values, strict=True):
        logits = model.double()(torch.tensor([prompt.token_ids])).logits[0, -1]
        expected = torch.logit(logits.softmax(-1)[prompt.target_token_ids[0]]).item()
        assert row[-1] == pytest.approx(expected, abs=1e-4)
        assert plain_log_odds(model, prompt) == pytest.approx(expected, abs=1e-4)


class Doubled(nn.Module):
    """What is around a model and changes its logits."""

    def __init__(self, model):
        super().__init__()
        self.model, self.device = model, model.device

    def get_base_model(self):
        return self.model

    def get_input_embeddings(self):
        return self.model.get_input_embeddings()

    def get_output_embeddings(self):
        return self.model.get_output_embeddings()

    def forward(self, **inputs):
        output = self.model(**inputs)
        output.logits = output.logits * 2
        return output


def test_what_is_around_a_model_and_not_read_is_refused():
    model = Doubled(build_model("llama"))
    with pytest.raises(
        ValueError, match=r"^model, prompts\[0\]: log-odds differ by .* whole prompt"
    ):
        read(model)
    with pytest.raises(
        ValueError, match=r"^model: Doubled adds to its model what is in none of its"
    ):
        check_reading(model, "model")


@pytest.mark.slow
def test_prompt_tuning_is_refused():
    config = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
    model = get_peft_model(build_model("llama"), config)
    tokenizer = build_tokenizer(320, chat=True, bos=True)
    with pytest.raises(
        ValueError, match=r"^model: PeftModelForCausalLM adds to its model what is in"
    ):
        si.explain(model, tokenizer, "I like that wonderful film, friend.", "positive", n_players=2)


def test_attention_that_is_patched_is_refused():
    model = build_model("llama")

    def forward(hidden_states, **_):
        return hidden_states, None

    model.model.layers[1].self_attn.forward = forward
    with pytest.raises(ValueError, match=r"^model: .* 1 go through .*; set method to full_length"):
        read(model)
    assert read(model, "full_length").shape == (2, 8)


def test_log_odds_that_are_not_finite_are_refused():
    model = build_model("llama")
    model.model.norm.weight.data.fill_(float("nan"))
    with pytest.raises(
        ValueError, match=r"^model: log-odds of prompts\[0\] are not finite; the train"
    ):
        read(model)


def test_autocast_inside_a_model_is_refused():
    model = build_model("llama")
    inner = model.model.forward

    def in_autocast(*args, **kwargs):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output = inner(*args, **kwargs)
        output.last_hidden_state = output.last_hidden_state.bfloat16()
        return output

    model.model.forward = in_autocast
    with pytest.raises(
        ValueError, match=r"^model: it computes in half precision \(bfloat16\), which"
    ):
        read(model)


# --- What cannot be measured ------------------------------------------------------------------------


def in_half_precision(model):
    return model.bfloat16()


def in_eight_bits(model):
    weight = model.model.layers[0].mlp.up_proj.weight.data.to(torch.int8)
    model.model.layers[0].mlp.up_proj.weight = nn.Parameter(weight, requires_grad=False)
    return model


def quantised(model):
    model.quantization_method = "bitsandbytes"
    return model


def with_an_empty_weight(model):
    model.model.layers[1].mlp.up_proj.weight = nn.Parameter(torch.empty(0))
    return model


def with_a_mark_of_deepspeed(model):
    model.model.norm.weight.ds_id = 3
    return model


def offloaded(model):
    model.model.norm.weight = nn.Parameter(torch.empty(32, device="meta"))
    return model


def compiled(model):
    model.compile(backend="eager")
    return model


def wrapped_by_compile(model):
    return torch.compile(model, backend="eager")


def with_other_attention(model):
    model.config._attn_implementation = "flash_attention_2"
    return model


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (in_half_precision, "its weights are bfloat16, .*dtype=torch.float32 .*float32_copy=True"),
        (in_eight_bits, "its weights are int8; quantised models cannot be measured"),
        (quantised, "it is quantised, .*; load it without quantization_config"),
        (with_an_empty_weight, r"model\.layers\.1\.mlp\.up_proj\.weight is sharded"),
        (with_a_mark_of_deepspeed, r"model\.norm\.weight is sharded .*train with DDP"),
        (offloaded, r"model\.norm\.weight is offloaded; load the model on one device"),
        (compiled, "LlamaForCausalLM is compiled; train it without torch.compile"),
        (wrapped_by_compile, "OptimizedModule is compiled; train it without torch.compile"),
        (with_other_attention, "its attention is flash_attention_2, .*attn_implementation='sdpa'"),
    ],
)
def test_what_cannot_be_measured_is_refused(change, message):
    model = build_model("llama")
    check_live(model, "model")
    with pytest.raises(ValueError, match=f"^model: {message}"):
        check_live(change(model), "model")


@pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="torch without gloo")
def test_sharded_weights_are_refused(tmp_path):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1
    )
    try:
        model = build_model("llama")
        mesh = init_device_mesh("cpu", (1,))
        layer = model.model.layers[0].mlp.up_proj
        layer.weight = nn.Parameter(distribute_tensor(layer.weight.data, mesh, [Shard(0)]))
        with pytest.raises(
            ValueError, match=r"^model: .*up_proj\.weight is sharded over processes"
        ):
            check_live(model, "model")
    finally:
        torch.distributed.destroy_process_group()


def test_half_precision_may_be_copied():
    check_live(build_model("llama").bfloat16(), "model", may_copy=True)
