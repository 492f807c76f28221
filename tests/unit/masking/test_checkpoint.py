import copy
import math

import numpy as np
import pytest
import torch
from tiny_prompts import OWNERS, ROUNDING, UNKNOWN, evaluate, make_prompt
from transformers import MambaConfig, MambaForCausalLM

from sft_interactions.masking.checkpoint import ERROR_MASKINGS, Checkpoint, PrecisionError
from sft_interactions.masking.prefix_tree import NotBranchableError
from sft_interactions.models.loading import multiply_head_once
from sft_interactions.models.packed_linear import PackedLinear

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
    mask_embedding = {"name": "token", "token_id": UNKNOWN}
    return Checkpoint(model, torch.device("cpu"), {**SETTINGS, **changes}, mask_embedding)


def test_error_of_a_checkpoint(model):
    prompt = make_prompt(OWNERS["long tail"], [17])
    exact = open_checkpoint(model)
    values = exact.log_odds(prompt)
    small = exact.error(prompt, values)
    assert small["error_maskings"] == str(ERROR_MASKINGS) == str(len(values))
    assert float(small["log_odds_error_max"]) < ROUNDING
    assert float(small["log_odds_error_rms"]) < ROUNDING
    # Rounding may be nothing at all on some CPUs, so an error is put in.
    known = exact.error(prompt, values + np.array([0.008, *[0] * 7], np.float32))
    assert float(known["log_odds_error_max"]) == pytest.approx(0.008, abs=ROUNDING)
    assert float(known["log_odds_error_rms"]) == pytest.approx(0.008 / math.sqrt(8), abs=ROUNDING)
    with pytest.raises(PrecisionError, match=r"max_error = 0\.01; set inference\.method to full_l"):
        exact.error(prompt, values + 1)
    with pytest.raises(PrecisionError):
        exact.error(prompt, values * np.nan)


def test_error_of_half_precision_is_that_to_whole_prompts_in_float32(model):
    prompt = make_prompt(OWNERS["long tail"], [17])
    half = open_checkpoint(model, dtype="bfloat16", max_error=1.0)
    rounded = half.log_odds(prompt)
    exact = evaluate(model, prompt.player_of_token, [17])
    found = float(half.error(prompt, rounded)["log_odds_error_max"])
    assert found == pytest.approx(np.abs(rounded - exact).max(), abs=ROUNDING)
    with pytest.raises(PrecisionError, match=r"max_error = 1; set inference\.dtype to float32"):
        half.error(prompt, rounded + 2)


@pytest.mark.parametrize("method", ["prefix_tree", "full_length"])
def test_a_checkpoint_is_packed_and_gives_the_same(model, method):
    prompt = make_prompt(OWNERS["words of several tokens"], [17, 40])
    checkpoint = open_checkpoint(model, method=method)
    kinds = {type(m) for m in checkpoint.model.modules()}
    assert PackedLinear in kinds
    assert torch.nn.Linear not in kinds
    plain = evaluate(model, prompt.player_of_token, [17, 40], method="full_length")
    np.testing.assert_allclose(checkpoint.log_odds(prompt), plain, rtol=0, atol=ROUNDING)


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
    assert float(allowed.error(prompt, values)["log_odds_error_max"]) < ROUNDING
