"""Masked prompts of the tiny models, and what tests ask of them."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from sft_interactions.masking.log_odds import MaskedPrompt, masked_log_odds
from sft_interactions.masking.mask_embedding import make_mask_embedding
from sft_interactions.masking.memory import BatchSize

UNKNOWN = 0  # token whose embedding masks a word
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
# How far log-odds of one masking may be apart that are computed in another order, in float32 on any CPU.
ROUNDING = 1e-4


def make_ids(owners: Sequence[int]) -> list[int]:
    return np.random.default_rng(0).integers(6, 300, len(owners)).tolist()


def make_prompt(owners: Sequence[int], targets: Sequence[int]) -> MaskedPrompt:
    return MaskedPrompt(make_ids(owners), owners, targets)


def batch(tokens: int) -> BatchSize:
    """A batch that no memory limits."""
    return BatchSize(tokens, 2**40)


def embedding(model: PreTrainedModel, token_id: int | slice) -> torch.Tensor:
    """What the model's embedding layer gives."""
    scale = math.sqrt(model.config.hidden_size) if "gemma" in model.config.model_type else 1
    return model.model.embed_tokens.weight[token_id] * scale


def evaluate(
    model: PreTrainedModel, owners: Sequence[int], targets: Sequence[int], **options: Any
) -> np.ndarray:
    """Log-odds of a prompt, masked by the unknown token."""
    mask_embedding = make_mask_embedding(model, "token", UNKNOWN)
    return masked_log_odds(model, make_prompt(owners, targets), mask_embedding, **options)


class Seen:
    """Input embeddings of every forward pass of a model."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.inputs: list[torch.Tensor] = []
        self.handle = model.base_model.register_forward_pre_hook(self.keep, with_kwargs=True)

    def keep(self, model: torch.nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        self.inputs.append(kwargs["inputs_embeds"])

    def __enter__(self) -> list[torch.Tensor]:
        return self.inputs

    def __exit__(self, *_: object) -> None:
        self.handle.remove()
