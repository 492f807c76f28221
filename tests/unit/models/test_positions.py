import copy
import re

import numpy as np
import pytest
import torch
from tiny_prompts import ROUNDING, UNKNOWN, make_ids
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    Gemma3Config,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    MptConfig,
    Phi3Config,
)

from sft_interactions.masking.log_odds import MaskedPrompt, masked_log_odds
from sft_interactions.masking.mask_embedding import make_mask_embedding
from sft_interactions.models.positions import check_length, position_limit, read_position_limit

# Of a head with 8 dimensions.
LONGROPE = {
    "rope_type": "longrope",
    "short_factor": [1.0] * 4,
    "long_factor": [4.0] * 4,
    "original_max_position_embeddings": 32,
    "rope_theta": 10000.0,
}
DYNAMIC = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0}
YARN = {
    "rope_type": "yarn",
    "factor": 4.0,
    "original_max_position_embeddings": 64,
    "rope_theta": 10000.0,
}
LLAMA = {
    "vocab_size": 320,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.2,
}
CONFIGS = {
    "llama": (LlamaConfig(max_position_embeddings=77), 77),
    "gpt2": (GPT2Config(n_positions=77), 77),
    "mpt": (MptConfig(max_seq_len=77), 77),
    "none": (BloomConfig(), None),
    "of images and text": (
        Gemma3Config(text_config=Gemma3TextConfig(max_position_embeddings=77).to_dict()),
        77,
    ),
    "dynamic": (LlamaConfig(max_position_embeddings=77, rope_parameters=DYNAMIC), 77),
    "longrope": (LlamaConfig(max_position_embeddings=128, rope_parameters=LONGROPE), 32),
    "longrope, in the old place": (
        Phi3Config(
            hidden_size=32,
            num_attention_heads=4,
            pad_token_id=0,
            max_position_embeddings=128,
            original_max_position_embeddings=32,
            rope_scaling={
                "type": "longrope",
                "short_factor": [1.0] * 4,
                "long_factor": [4.0] * 4,
            },
        ),
        32,
    ),
    "yarn does not change": (LlamaConfig(max_position_embeddings=256, rope_parameters=YARN), 256),
}


@pytest.mark.parametrize(("config", "limit"), CONFIGS.values(), ids=CONFIGS)
def test_limits(config, limit):
    assert position_limit(config) == limit


def test_one_kind_of_layer_can_have_the_limit():
    config = LlamaConfig(max_position_embeddings=128)
    config.rope_parameters = {
        "full_attention": LONGROPE,
        "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
    }
    assert position_limit(config) == 32


def test_the_limit_of_a_folder(model_folders):
    assert read_position_limit(model_folders["llama"]) == 256


def test_a_longer_sample_is_refused():
    check_length(77, 77, "sample s")
    check_length(10**9, None, "sample s")
    message = (
        "sample s: 78 tokens with template and response, but the model reads 77 as it was made"
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        check_length(78, 77, "sample s")


def prompt_of(length):
    owners = [-1] * length
    owners[2], owners[5] = 0, 1
    return MaskedPrompt(make_ids(owners), owners, [17])


@pytest.mark.parametrize("rope", [DYNAMIC, LONGROPE], ids=["dynamic", "longrope"])
@pytest.mark.parametrize("method", ["prefix_tree", "full_length"])
def test_changing_rotary_factors_are_refused_where_they_change(rope, method):
    torch.manual_seed(0)
    limit = 32
    longest = 128 if rope is LONGROPE else limit
    config = LlamaConfig(**LLAMA, max_position_embeddings=longest, rope_parameters=rope)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    mask_embedding = make_mask_embedding(model, "token", UNKNOWN)
    # An independent computation: every masked prompt whole, without our code.
    prompt = prompt_of(limit)
    values = masked_log_odds(model, prompt, mask_embedding, method=method)
    expected = []
    for mask in range(4):
        embedded = model.model.embed_tokens(torch.tensor(prompt.token_ids)).clone()
        for token, player in enumerate(prompt.player_of_token):
            if player >= 0 and not mask >> player & 1:
                embedded[token] = mask_embedding
        with torch.inference_mode():
            p = model(inputs_embeds=embedded[None]).logits[0, -1].double().softmax(-1)[17]
        expected.append(float(torch.log(p / (1 - p))))
    np.testing.assert_allclose(values, expected, rtol=0, atol=ROUNDING)
    with pytest.raises(ValueError, match=r"^the prompt: 33 tokens .* reads 32 as it was made to"):
        masked_log_odds(model, prompt_of(limit + 1), mask_embedding, method=method)


def test_positions_beyond_the_last_are_refused(tiny_models):
    model = copy.deepcopy(tiny_models["llama"])
    mask_embedding = make_mask_embedding(model, "token", UNKNOWN)
    model.config.max_position_embeddings = 16
    masked_log_odds(model, prompt_of(16), mask_embedding)
    with pytest.raises(ValueError, match=r"^the prompt: 17 tokens"):
        masked_log_odds(model, prompt_of(17), mask_embedding)
    three = MaskedPrompt(prompt_of(15).token_ids, prompt_of(15).player_of_token, [17, 4, 5])
    with pytest.raises(ValueError, match=r"^the prompt: 17 tokens"):
        masked_log_odds(model, three, mask_embedding)
