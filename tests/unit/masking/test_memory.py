import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_prompts import OWNERS, ROUNDING, Seen, batch, evaluate

from sft_interactions.masking.memory import BatchSize


def test_memory_that_suffices_changes_no_forward_pass(tiny_models):
    shapes = []
    for memory in (2**20, 2**40):
        with Seen(tiny_models["gemma3"]) as inputs:
            evaluate(tiny_models["gemma3"], OWNERS["long tail"], [17], batch=BatchSize(64, memory))
        shapes.append([rows.shape for rows in inputs])
    assert shapes[0] == shapes[1]


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


@pytest.mark.slow
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
    np.testing.assert_allclose(values, whole, atol=ROUNDING)
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
assert values.shape == (2**14,)
print(megabytes("VmHWM") - before)
"""


@pytest.mark.slow
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
    # Libraries' own buffers and large pages, which differ between machines, come on top.
    assert float(done.stdout) < 2 * 32


def test_a_budget_too_small_for_one_masked_prompt(tiny_models):
    with pytest.raises(ValueError, match=r"raise inference\.memory_gb or lower players\.n"):
        evaluate(tiny_models["llama"], OWNERS["long tail"], [17], batch=BatchSize(64, 1000))
