"""Loading a model or a checkpoint for inference.

Imports torch and transformers only.
"""

import copy
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel


def multiply_head_once(model: PreTrainedModel) -> None:
    """Make the output head see contiguous float32 hidden states.

    The slice of positions that ``logits_to_keep`` leaves is not contiguous, and torch multiplies it row
    by row, reading the vocabulary's matrix anew each time: ten times slower on CPU for Gemma-3-270M.
    """
    model.get_output_embeddings().register_forward_pre_hook(
        lambda _, inputs: (inputs[0].contiguous().float(),)
    )


def load_base(folder: str | Path) -> PreTrainedModel:
    """Load the float32 weights of a folder that transformers can load."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


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
    is_adapter = (
        checkpoint_dir is not None and (Path(checkpoint_dir) / "adapter_config.json").is_file()
    )
    if checkpoint_dir is None or is_adapter:
        # A copy even for the next adapter: what merging adds does not come off without rounding.
        model = load_base(model_dir) if base is None else copy.deepcopy(base())
    elif (Path(checkpoint_dir) / "config.json").is_file():
        model = load_base(checkpoint_dir)
    else:
        raise ValueError(
            f"{checkpoint_dir}: neither adapter_config.json (PEFT adapter) nor config.json (full "
            "weights) is there; name a checkpoint folder"
        )
    if is_adapter:
        from peft import PeftModel  # its import takes seconds and base models do without it

        model = PeftModel.from_pretrained(model, checkpoint_dir).merge_and_unload()
    multiply_head_once(model)
    return model.to(device).eval()


def in_dtype(model: PreTrainedModel, dtype: str) -> PreTrainedModel:
    """A model of :func:`load_checkpoint` with its weights in ``dtype``, but for the output head.

    The head stays float32, and so do the logits. ``float32`` and ``tf32`` return the model itself.
    """
    if dtype in ("float32", "tf32"):
        return model
    head = copy.deepcopy(model.get_output_embeddings())
    model = copy.deepcopy(model).to(getattr(torch, dtype))
    model.set_output_embeddings(head)
    return model
