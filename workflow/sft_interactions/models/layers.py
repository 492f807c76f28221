"""The two ends of a model, its embedding and its output head, and the model inside an adapter's wrapper.

Imports torch and transformers only.
"""

from typing import TYPE_CHECKING, Any

from torch import nn
from transformers import PreTrainedModel

if TYPE_CHECKING:  # its import takes seconds
    from peft import PeftModel


def transformers_model(model: nn.Module) -> PreTrainedModel:
    """The model inside a PEFT model, whose adapters are in its layers; else the model itself."""
    inside = getattr(model, "get_base_model", None)
    found: Any = model if inside is None else inside()
    return found  # type: ignore[no-any-return]  # PEFT's and torch's annotations are wider


def output_head(model: "PreTrainedModel | PeftModel") -> nn.Module:
    """The layer that makes logits out of hidden states."""
    head: nn.Module = model.get_output_embeddings()
    return head


def input_embeddings(model: "PreTrainedModel | PeftModel") -> nn.Embedding:
    """The layer that makes hidden states out of token ids."""
    embeddings: nn.Embedding = model.get_input_embeddings()  # type: ignore[assignment]  # transformers' is wider
    return embeddings
