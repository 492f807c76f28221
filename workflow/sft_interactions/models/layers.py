"""The two ends of a model: its embedding and its output head.

Imports torch and transformers only.
"""

from typing import TYPE_CHECKING

from torch import nn
from transformers import PreTrainedModel

if TYPE_CHECKING:  # its import takes seconds
    from peft import PeftModel


def output_head(model: "PreTrainedModel | PeftModel") -> nn.Module:
    """The layer that makes logits out of hidden states."""
    head: nn.Module = model.get_output_embeddings()
    return head


def input_embeddings(model: "PreTrainedModel | PeftModel") -> nn.Embedding:
    """The layer that makes hidden states out of token ids."""
    embeddings: nn.Embedding = model.get_input_embeddings()  # type: ignore[assignment]  # transformers' is wider
    return embeddings
