"""Loading a model or a checkpoint for inference.

Imports torch and transformers only.
"""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel

if TYPE_CHECKING:  # its import takes seconds
    from peft import PeftModel


def output_head(model: "PreTrainedModel | PeftModel") -> nn.Module:
    """The layer that makes logits out of hidden states."""
    head: nn.Module = model.get_output_embeddings()
    return head


def to_device(model: PreTrainedModel, device: torch.device) -> PreTrainedModel:
    """Move a model, in place."""
    moved: PreTrainedModel = model.to(device)  # type: ignore[arg-type]  # transformers hides torch's
    return moved


def multiply_head_once(model: "PreTrainedModel | PeftModel") -> None:
    """Make the output head see contiguous float32 hidden states.

    The slice of positions that ``logits_to_keep`` leaves is not contiguous, and torch multiplies it row
    by row, reading the vocabulary's matrix anew each time: ten times slower on CPU for Gemma-3-270M.
    """
    output_head(model).register_forward_pre_hook(
        lambda _, inputs: (inputs[0].contiguous().float(),)
    )


def load_base(folder: str | Path) -> PreTrainedModel:
    """Load the model of a folder that transformers can load, with its weights in float32."""
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model


def load_checkpoint(
    model_dir: str | Path,
    checkpoint_dir: str | Path | None,
    device: torch.device,
    *,
    base: Callable[[], PreTrainedModel] | None = None,
) -> PreTrainedModel:
    """Load a model in float32 with the weights of a checkpoint, ready for inference.

    Args:
        checkpoint_dir: folder of a PEFT adapter, which is merged, or of full weights; None for the
            model itself.
        base: gives the model of ``model_dir``, if it is loaded already; it is copied, not changed.

    Raises:
        ValueError: the folder holds neither.
    """
    adapter = full_weights = None
    if checkpoint_dir is not None:
        if (Path(checkpoint_dir) / "adapter_config.json").is_file():
            adapter = checkpoint_dir
        elif (Path(checkpoint_dir) / "config.json").is_file():
            full_weights = checkpoint_dir
        else:
            raise ValueError(
                f"{checkpoint_dir}: neither adapter_config.json (PEFT adapter) nor config.json (full "
                "weights) is there; name a checkpoint folder"
            )
    if full_weights is not None:
        model = load_base(full_weights)
    elif base is not None:
        # A copy even for the next adapter: what merging adds does not come off without rounding.
        model = copy.deepcopy(base())
    else:
        model = load_base(model_dir)
    if adapter is not None:
        from peft import PeftModel  # base models do without it

        model = PeftModel.from_pretrained(model, adapter).merge_and_unload()
    multiply_head_once(model)
    model.train(False)
    return to_device(model, device)


def in_dtype(model: PreTrainedModel, dtype: str) -> PreTrainedModel:
    """A model of :func:`load_checkpoint` with its weights in ``dtype``, but for the output head.

    The head stays float32, and so do the logits. ``float32`` and ``tf32`` return the model itself.
    """
    if dtype in ("float32", "tf32"):
        return model
    head = copy.deepcopy(output_head(model))
    model = copy.deepcopy(model).to(getattr(torch, dtype))
    model.set_output_embeddings(head)  # type: ignore[no-untyped-call]  # transformers'
    return model
