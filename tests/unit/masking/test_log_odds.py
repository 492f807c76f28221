import copy
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import MambaConfig, MambaForCausalLM

from sft_interactions.masking.checkpoint import ERROR_MASKINGS, Checkpoint, PrecisionError
from sft_interactions.masking.devices import pick_device
from sft_interactions.masking.log_odds import MaskedPrompt, log_odds, masked_log_odds
from sft_interactions.masking.mask_embedding import make_mask_embedding
from sft_interactions.masking.memory import BatchSize
from sft_interactions.masking.prefix_tree import NotBranchableError
from sft_interactions.models.loading import in_dtype, multiply_head_once
from sft_interactions.models.packed_linear import PackedLinear, pack_linear_layers

UNKNOWN = 0
OWNERS = {
    "first token is a player": [0, -1, -1, 1, -1, -1, -1, 2, -1],
    "last token is a player": [-1, -1, 0, -1, -1, -1, 1, -1, 2],
    "neighbouring players": [-1, -1, 0, 1, 2, -1, -1, -1],
    "words of several tokens": [-1, 0, 0, 0, -1, 1, 1, 2, 2, -1],
    "one player": [-1, -1, -1, -1, -1, -1, -1, 0, -1],
    "nothing but players": [0, 1, 1, 2, 3],
    "long tail": [-1, 0, 1, -1, 2] + [-1] * 12,
    "long head": [-1] * 12 + [0, -1, 1, 2],
    "not in reading order": [-1, 2, -1, 0, -1, 1, -1, -1],
}
TARGETS = {"one target token": [17], "three target tokens": [17, 90, 4]}


def make_ids(owners):
    return np.random.default_rng(0).integers(6, 300, len(owners)).tolist()


def embedding(model, token_id):
    scale = math.sqrt(model.config.hidden_size) if "gemma" in model.config.model_type else 1
    return model.model.embed_tokens.weight[token_id] * scale


@torch.no_grad()
def by_hand(model, ids, owners, targets):
    """v(S), one masked prompt at a time, through p in float64."""
    n = max(owners) + 1
    owners = owners + [-1] * (len(targets) - 1)
    values = []
    for mask in range(2**n):
        rows = [
            embedding(model, UNKNOWN if player >= 0 and not mask >> player & 1 else token)
            for token, player in zip(ids + targets[:-1], owners, strict=True)
        ]
        logits = model(inputs_embeds=torch.stack(rows)[None]).logits[0].double()
        p = [
            torch.softmax(logits[len(ids) - 1 + i], -1)[token].item()
            for i, token in enumerate(targets)
        ]
        values.append(sum(math.log(x / (1 - x)) for x in p))
    return np.array(values)


def make_prompt(owners, targets):
    return MaskedPrompt(make_ids(owners), owners, targets)


def batch(tokens):
    return BatchSize(tokens, 2**40)


class Seen:
    """Input embeddings of every forward pass of a model."""

    def __init__(self, model):
        self.inputs = []
        self.handle = model.base_model.register_forward_pre_hook(self.keep, with_kwargs=True)

    def keep(self, model, args, kwargs):
        self.inputs.append(kwargs["inputs_embeds"])

    def __enter__(self):
        return self.inputs

    def __exit__(self, *_):
        self.handle.remove()


def evaluate(model, owners, targets, **options):
    mask_embedding = make_mask_embedding(model, "token", UNKNOWN)
    return masked_log_odds(model, make_prompt(owners, targets), mask_embedding, **options)


@pytest.mark.parametrize("targets", TARGETS.values(), ids=TARGETS)
@pytest.mark.parametrize("owners", OWNERS.values(), ids=OWNERS)
def test_prefix_tree_is_the_full_forward(model, owners, targets):
    whole = evaluate(model, owners, targets, method="full_length")
    assert whole.shape == (2 ** (max(owners) + 1),)
    assert whole.dtype == np.float32
    assert np.ptp(whole) > 0.02
    for tokens in (8, 40, 1024):
        tree = evaluate(model, owners, targets, method="prefix_tree", batch=batch(tokens))
        np.testing.assert_allclose(tree, whole, atol=1e-4)


@pytest.mark.parametrize("targets", TARGETS.values(), ids=TARGETS)
@pytest.mark.parametrize("case", ["first token is a player", "words of several tokens"])
def test_full_forward_is_the_definition(model, case, targets):
    owners = OWNERS[case]
    expected = by_hand(model, make_ids(owners), owners, targets)
    for tokens in (40, 1024):
        whole = evaluate(model, owners, targets, method="full_length", batch=batch(tokens))
        np.testing.assert_allclose(whole, expected, atol=1e-4)
    np.testing.assert_allclose(evaluate(model, owners, targets), expected, atol=1e-4)


def test_more_players_than_rows_fit(model):
    owners = [-1, 0, 1, -1, 2, 3, 3, 4, 5, -1]
    whole = evaluate(model, owners, [17], method="full_length")
    with Seen(model) as inputs:
        tree = evaluate(model, owners, [17], batch=batch(32))
    np.testing.assert_allclose(tree, whole, atol=1e-4)
    assert max(len(rows) for rows in inputs) == 8
    assert sum(rows.shape[0] * rows.shape[1] for rows in inputs) < 0.5 * 64 * len(owners)


def test_masking_touches_exactly_the_tokens_of_masked_words(model):
    owners = OWNERS["words of several tokens"]
    ids = make_ids(owners)
    with Seen(model) as inputs:
        evaluate(model, owners, [17, 90], method="full_length")
    (rows,) = inputs
    for mask, row in enumerate(rows):
        for place, player in enumerate([*owners, -1]):
            masked = player >= 0 and not mask >> player & 1
            token = UNKNOWN if masked else [*ids, 17][place]
            torch.testing.assert_close(row[place], embedding(model, token))


def test_the_model_is_given_the_same_prompt_length_for_every_mask(model):
    owners = OWNERS["long tail"]
    with Seen(model) as inputs:
        evaluate(model, owners, [17], method="full_length", batch=batch(3 * len(owners)))
    assert {rows.shape[1] for rows in inputs} == {len(owners)}
    assert [len(rows) for rows in inputs] == [3, 3, 2]


@pytest.mark.parametrize("merged", [True, False], ids=["merged", "loaded"])
def test_adapters(model, merged):
    torch.manual_seed(1)
    lora = LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False)
    adapted = get_peft_model(copy.deepcopy(model), lora, autocast_adapter_dtype=False).eval()
    adapted = adapted.merge_and_unload() if merged else adapted
    owners, targets = OWNERS["long tail"], TARGETS["three target tokens"]
    whole = evaluate(adapted, owners, targets, method="full_length")
    tree = evaluate(adapted, owners, targets)
    np.testing.assert_allclose(tree, whole, atol=1e-4)
    assert np.abs(whole - evaluate(model, owners, targets)).max() > 0.05


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision(model, dtype):
    half = in_dtype(model, dtype)
    assert half.get_input_embeddings().weight.dtype == getattr(torch, dtype)
    assert half.get_output_embeddings().weight.dtype == torch.float32
    multiply_head_once(half)
    owners = OWNERS["long tail"]
    exact = evaluate(model, owners, [17])
    errors = []
    for method in ("prefix_tree", "full_length"):
        rounded = evaluate(half, owners, [17], method=method)
        assert rounded.dtype == np.float32
        errors.append(np.abs(rounded - exact).max())
    assert max(errors) < 0.5
    assert min(errors) > 1e-4
    assert in_dtype(model, "float32") is model


def test_the_model_is_left_as_it_was(model):
    usual = model.config._attn_implementation
    before = evaluate(model, OWNERS["long head"], [17], method="full_length")
    evaluate(model, OWNERS["long head"], [17])
    assert model.config._attn_implementation == usual
    again = evaluate(model, OWNERS["long head"], [17], method="full_length")
    np.testing.assert_array_equal(before, again)


def test_some_maskings_only(model):
    owners = OWNERS["words of several tokens"]
    whole = evaluate(model, owners, [17], method="full_length")
    some = evaluate(model, owners, [17], method="full_length", masks=[6, 0, 5])
    np.testing.assert_allclose(some, whole[[6, 0, 5]], atol=1e-5)
    with pytest.raises(ValueError, match="takes no masks"):
        evaluate(model, owners, [17], masks=[1])


def test_memory_that_suffices_changes_nothing(tiny_models):
    owners = OWNERS["long tail"]
    values = [
        evaluate(tiny_models["gemma3"], owners, [17], batch=BatchSize(64, memory))
        for memory in (2**20, 2**40)
    ]
    np.testing.assert_array_equal(*values)


class Exhausted:
    """Lets a model's forward passes of more than ``tokens`` positions run out of memory."""

    def __init__(self, model, tokens, error):
        self.passed = []
        self.tokens, self.error = tokens, error
        self.handle = model.base_model.register_forward_pre_hook(self.check, with_kwargs=True)

    def check(self, model, args, kwargs):
        rows, length = kwargs["inputs_embeds"].shape[:2]
        # The first pass of the last segment goes through, so that something has been done before.
        if rows * length > self.tokens and self.passed.count(length) > 0:
            raise self.error
        self.passed.append(length)

    def __enter__(self):
        return self.passed

    def __exit__(self, *_):
        self.handle.remove()


@pytest.mark.parametrize("method", ["prefix_tree", "full_length"])
@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
    ],
    ids=["gpu", "cpu"],
)
def test_out_of_memory_halves_the_batch_and_goes_on(model, method, error, caplog):
    owners = [-1, 0, 1, -1, 2, 3, 3, 4, 5, *[-1] * 6]
    whole = evaluate(model, owners, [17], method="full_length")
    size, done = batch(128), []
    with Exhausted(model, 70, error):
        values = evaluate(model, owners, [17], method=method, batch=size, progress=done.append)
    np.testing.assert_allclose(values, whole, atol=1e-4)
    assert sum(done) == 2 ** (max(owners) + 1)
    assert size.tokens == 64
    assert "memory ran out; going on with 64 token positions" in caplog.text


def test_out_of_memory_with_the_smallest_batch(tiny_models):
    model = tiny_models["llama"]
    with (
        Exhausted(model, 0, torch.OutOfMemoryError("out of memory")),
        pytest.raises(ValueError, match="memory runs out with the smallest batch"),
    ):
        evaluate(model, OWNERS["long tail"], [17], batch=batch(16))


def test_other_errors_are_not_swallowed(tiny_models):
    model = tiny_models["llama"]
    with (
        Exhausted(model, 0, RuntimeError("shapes differ")),
        pytest.raises(RuntimeError, match="sh"),
    ):
        evaluate(model, OWNERS["long tail"], [17])


PEAK = """
import sys, torch
from pathlib import Path
from transformers import LlamaConfig, LlamaForCausalLM
from sft_interactions.masking.log_odds import MaskedPrompt, masked_log_odds
from sft_interactions.masking.mask_embedding import make_mask_embedding
from sft_interactions.masking.memory import BatchSize

torch.set_num_threads(1)
shape = dict(num_hidden_layers=4, num_attention_heads=8, num_key_value_heads=8, head_dim=64)
model = LlamaForCausalLM(
    LlamaConfig(vocab_size=320, hidden_size=32, intermediate_size=48, **shape)
).eval()
owners = [-1, *range(14), -1]
prompt = MaskedPrompt(list(range(10, 26)), owners, [17])
mask_embedding = make_mask_embedding(model, "zero")

def megabytes(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if field in line) / 1024

# What libraries set up at their first products is not counted.
warm_up = MaskedPrompt(list(range(10, 20)), [-1, *range(8), -1], [17])
masked_log_odds(model, warm_up, mask_embedding)
before = megabytes("VmRSS")
batch = BatchSize(16384, int(float(sys.argv[1]) * 2**20))
values = masked_log_odds(model, prompt, mask_embedding, batch=batch)
assert len(set(values.tolist())) > 10000
print(megabytes("VmHWM") - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_peak_memory_is_below_the_budget():
    # All states of n = 14 at once would take 2^14 positions of 16 KiB, 256 MiB.
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(sys.path),
        # What is freed goes back at once, so that the peak is that of what is held.
        "OMP_NUM_THREADS": "1",
        "MALLOC_ARENA_MAX": "1",
        "MALLOC_MMAP_THRESHOLD_": "131072",
    }
    command = [sys.executable, "-c", PEAK, "32"]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    assert float(done.stdout) < 32


def test_a_budget_too_small_for_one_masked_prompt(tiny_models):
    with pytest.raises(ValueError, match=r"raise inference\.memory_gb or lower players\.n"):
        evaluate(tiny_models["llama"], OWNERS["long tail"], [17], batch=BatchSize(64, 1000))


def test_a_model_without_states_to_share_is_no_tree():
    config = MambaConfig(vocab_size=320, hidden_size=32, num_hidden_layers=2, state_size=4)
    torch.manual_seed(0)
    mamba = MambaForCausalLM(config).eval()
    owners = OWNERS["long tail"]
    with pytest.raises(NotBranchableError, match="MambaForCausalLM cannot be evaluated as a pre"):
        evaluate(mamba, owners, [17])
    assert evaluate(mamba, owners, [17], method="full_length").shape == (8,)


SETTINGS = {
    "dtype": "float32",
    "method": "prefix_tree",
    "max_error": 0.01,
    "batch_tokens": None,
    "memory_gb": None,
}


def open_checkpoint(model, **changes):
    model = copy.deepcopy(model)
    multiply_head_once(model)
    mask_embedding = {"kind": "token", "token_id": UNKNOWN}
    return Checkpoint(model, torch.device("cpu"), {**SETTINGS, **changes}, mask_embedding)


def test_error_of_a_checkpoint(model):
    prompt = make_prompt(OWNERS["long tail"], [17])
    exact = open_checkpoint(model)
    values = exact.log_odds(prompt)
    small = exact.error(prompt, values)
    assert small["error_maskings"] == str(ERROR_MASKINGS)
    assert 0 < float(small["log_odds_error_rms"]) <= float(small["log_odds_error_max"]) < 1e-4
    half = open_checkpoint(model, dtype="bfloat16", max_error=1.0)
    rounded = half.log_odds(prompt)
    large = half.error(prompt, rounded)
    assert float(large["log_odds_error_max"]) == pytest.approx(
        np.abs(rounded.astype(float) - evaluate(model, prompt.player_of_token, [17])).max(),
        abs=1e-4,
    )
    with pytest.raises(
        PrecisionError, match=r"max_error = 0\.0001; set inference\.dtype to float32"
    ):
        open_checkpoint(model, dtype="bfloat16", max_error=1e-4).error(prompt, rounded)
    with pytest.raises(PrecisionError, match=r"set inference\.method to full_length"):
        exact.error(prompt, values + 1)
    with pytest.raises(PrecisionError):
        exact.error(prompt, values * np.nan)


@pytest.mark.parametrize("method", ["prefix_tree", "full_length"])
def test_a_checkpoint_is_packed_and_gives_the_same(model, method):
    prompt = make_prompt(OWNERS["words of several tokens"], [17, 40])
    checkpoint = open_checkpoint(model, method=method)
    kinds = {type(m) for m in checkpoint.model.modules()}
    assert PackedLinear in kinds
    assert torch.nn.Linear not in kinds
    plain = evaluate(model, prompt.player_of_token, [17, 40], method="full_length")
    np.testing.assert_allclose(checkpoint.log_odds(prompt), plain, rtol=0, atol=2e-5)


@pytest.mark.parametrize("rows", [0, 1, 7, 300])
@pytest.mark.parametrize("bias", [True, False])
def test_packed_linear_layer(rows, bias):
    torch.manual_seed(0)
    layer = torch.nn.Linear(33, 65, bias=bias)
    inputs = torch.randn(rows, 2, 33)
    with torch.inference_mode():
        torch.testing.assert_close(PackedLinear(layer)(inputs), layer(inputs))
        every_other = inputs.repeat(1, 2, 1)[:, ::2]
        torch.testing.assert_close(PackedLinear(layer)(every_other), layer(every_other))


@pytest.mark.parametrize("bias", [True, False])
def test_gradients_of_a_packed_linear_layer(bias):
    torch.manual_seed(0)
    layer = torch.nn.Linear(33, 65, bias=bias)
    inputs = torch.randn(3, 5, 33, requires_grad=True)
    gradients = [
        torch.autograd.grad(f(inputs).square().sum(), inputs)[0]
        for f in (layer, PackedLinear(layer, backward=True))
    ]
    torch.testing.assert_close(*gradients)


def test_only_plain_float32_layers_are_packed():
    class Other(torch.nn.Linear):
        pass

    model = torch.nn.ModuleDict(
        {"a": torch.nn.Linear(2, 3), "b": torch.nn.Linear(2, 3).half(), "c": Other(2, 3)}
    )
    pack_linear_layers(model)
    assert [type(m) for m in model.values()] == [PackedLinear, torch.nn.Linear, Other]


def test_a_model_that_does_not_branch_falls_back_only_if_it_may(caplog):
    config = MambaConfig(vocab_size=320, hidden_size=32, num_hidden_layers=2, state_size=4)
    mamba = MambaForCausalLM(config).eval()
    prompt = make_prompt(OWNERS["long tail"], [17])
    with pytest.raises(NotBranchableError, match=r"set inference\.method to auto"):
        open_checkpoint(mamba).log_odds(prompt)
    allowed = open_checkpoint(mamba, method="auto")
    values = allowed.log_odds(prompt)
    assert allowed.method == "full_length"
    assert "forwarding every masked prompt whole" in caplog.text
    assert float(allowed.error(prompt, values)["log_odds_error_max"]) < 1e-4


def test_log_odds_where_p_is_one_in_float32():
    logits = torch.tensor([[60.0, 0.0, 0.0]])
    assert log_odds(logits, torch.tensor([0])).item() == pytest.approx(60 - math.log(2))


def test_log_odds_where_p_is_zero_in_float32():
    logits = torch.tensor([[-200.0, 0.0, 0.0]])
    assert log_odds(logits, torch.tensor([0])).item() == pytest.approx(-200 - math.log(2))


def test_log_odds_is_the_formula_in_mid_range():
    logits = torch.randn(4, 3, 50, dtype=torch.float64, generator=torch.manual_seed(0))
    tokens = torch.arange(12).reshape(4, 3)
    p = torch.softmax(logits, -1).gather(-1, tokens[..., None])[..., 0]
    torch.testing.assert_close(log_odds(logits, tokens), torch.log(p / (1 - p)))
    single = log_odds(logits.float(), tokens)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), torch.log(p / (1 - p)), atol=1e-5, rtol=0)
    assert log_odds(logits.bfloat16(), tokens).dtype == torch.float32


def test_mask_embedding_of_a_token_is_scaled_as_the_model_scales(model):
    torch.testing.assert_close(make_mask_embedding(model, "token", 7), embedding(model, 7))


def test_mask_embedding_mean_and_zero(model):
    mean = embedding(model, slice(None)).mean(0)
    torch.testing.assert_close(make_mask_embedding(model, "mean"), mean)
    assert torch.equal(make_mask_embedding(model, "zero"), torch.zeros_like(mean))


def test_mask_embedding_changes_all_masks_but_the_full_one(model):
    owners = OWNERS["one player"]
    values = [
        masked_log_odds(model, make_prompt(owners, [17]), make_mask_embedding(model, kind, 0))
        for kind in ("token", "mean", "zero")
    ]
    for other in values[1:]:
        assert other[-1] == pytest.approx(values[0][-1], abs=1e-5)
        assert abs(other[0] - values[0][0]) > 1e-3


@pytest.mark.parametrize(
    ("ids", "owners", "targets", "message"),
    [
        ([7, 8], [-1, -1], [9], "numbered 0..n-1"),
        ([7, 8], [0, 2], [9], "numbered 0..n-1"),
        ([7, 8], [-2, 0], [9], "numbered 0..n-1"),
        ([7, 8, 9], [-1, 0], [9], "of one length"),
        ([7, 8], [-1, 0], [], "target"),
        ([], [], [9], "numbered 0..n-1"),
    ],
)
def test_impossible_prompts_are_refused(ids, owners, targets, message):
    with pytest.raises(ValueError, match=message):
        MaskedPrompt(ids, owners, targets)


def test_device():
    assert pick_device("cpu").type == "cpu"
    assert pick_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    if not torch.backends.mps.is_available():
        with pytest.raises(ValueError, match=r"compute\.device is mps.*set it to auto or cpu"):
            pick_device("mps")
