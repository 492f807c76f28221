"""Loading a model or a checkpoint for inference.

Imports torch and transformers only.
"""

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from sft_interactions.files import check_checksums
from sft_interactions.models.bin_files import check_bin_files
from sft_interactions.models.checkpoint_files import (
    check_checkpoint,
    check_model,
    is_multimodal,
    refuse_differences,
)
from sft_interactions.models.layers import input_embeddings, output_head, transformers_model

if TYPE_CHECKING:  # its import takes seconds
    from peft import PeftModel

# Of the largest logit. In float32 merging into SmolLM2-135M and Gemma-3-270M loses up to 4e-5; the faults
# that are to be told change logits by more than a hundredth.
ROUNDING = 1e-3


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
    """Load the model of a folder that transformers can load, with its weights in float32.

    Of a model for images and text it is the language model.

    Raises:
        ValueError: a file is not what was written; a weight of the model is not in the folder, or one of
            the folder is not in the model; a weight is not finite; or the model is not a causal LM.
    """
    check_checksums(folder)
    check_model(folder)
    model = load_strictly(folder)
    _check_finite(model.state_dict(), folder)
    if is_multimodal(folder) and hasattr(model.base_model, "language_model"):
        try:
            model = language_model_of(model)
        except Exception as error:  # what fails depends on the architecture
            raise ValueError(
                f"{folder}: cannot take the language model out of this model for images and text "
                f"({_first_line(error)}); save it by itself"
            ) from error
    check_reading(model, str(folder))
    return model


def check_fit(model_dir: str | Path, checkpoint_dir: str | Path | None = None) -> None:
    """Check that a model or checkpoint has just the weights that its model needs, without reading them.

    Args:
        checkpoint_dir: as for :func:`load_checkpoint`.

    Raises:
        ValueError: see :func:`load_checkpoint`; what only the numbers tell is not found here.
    """
    if checkpoint_dir is None:
        check_model(model_dir)
        load_strictly(model_dir, device_map="meta")
    elif check_checkpoint(checkpoint_dir, model_dir) == "full":
        load_strictly(checkpoint_dir, device_map="meta")
    else:
        from sft_interactions.models.adapters import add_adapter

        add_adapter(load_strictly(model_dir, device_map="meta"), checkpoint_dir)


def load_strictly(
    folder: str | Path, *, dtype: torch.dtype | str = torch.float32, **options: str
) -> PreTrainedModel:
    """Load a model that has every weight from its folder, and the folder no further one.

    Args:
        dtype: of the weights; ``"auto"`` for that of the files.
        options: further ones of transformers' ``from_pretrained``.

    Raises:
        ValueError: transformers cannot load it, or weights are missing, surplus, quantised or of another
            shape, or the model has code of its own.
    """
    if "gguf_file" not in options:
        check_bin_files(folder)
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # reported, and refused below with their names
            local_files_only=True,
            return_dict=True,  # whatever a trainer left in config.json
            **options,
        )
    except Exception as error:  # what fails depends on the architecture and on the files
        raise ValueError(
            f"{folder}: transformers cannot load it as a causal LM ({_first_line(error)}); name a causal "
            "LM that this version of transformers knows, saved by save_pretrained"
        ) from error
    model: PreTrainedModel = loaded[0]
    if "gguf_file" not in options:
        _check_class(folder, type(model).__name__)
    report: Mapping[str, Any] = loaded[1]
    refuse_differences(
        folder,
        missing=report["missing_keys"],
        unexpected=report["unexpected_keys"],
        mismatched=[f"{name} {tuple(own)}" for name, own, _ in report["mismatched_keys"]],
        other=report["error_msgs"],
    )
    return model


def language_model_of(model: PreTrainedModel) -> PreTrainedModel:
    """The language model inside of a model for images and text, with the same weights.

    Raises:
        AttributeError, RuntimeError: the model has no part of that name, or with other weights.
    """
    language_model = model.base_model.get_submodule("language_model")
    weights = {f"model.{key}": value for key, value in language_model.state_dict().items()}
    weights["lm_head.weight"] = output_head(model).weight
    plain = without_storage(model.config.get_text_config())
    plain.load_state_dict(weights, strict=True, assign=True)
    # What is in no file, such as the frequencies of rotary positions, has no storage yet.
    for name, buffer in language_model.named_buffers():
        place, _, own = name.rpartition(".")
        module = plain.base_model.get_submodule(place)
        if module.get_buffer(own).is_meta:
            module.register_buffer(own, buffer, persistent=False)
    tie_ends_as(plain, model)
    plain.generation_config = model.generation_config
    plain.train(model.training)
    return plain


def tie_ends_as(plain: PreTrainedModel, model: PreTrainedModel) -> None:
    """Let embedding and head of a model be one if they are in the model that its weights come from.

    ``tie_word_embeddings`` does not tell it: a head that is in the files, and is not the embedding, stays.
    """
    if output_head(model).weight is input_embeddings(model).weight:
        plain.tie_weights()
    else:
        plain.config.tie_word_embeddings = False


def without_storage(config: PreTrainedConfig, **options: torch.dtype) -> PreTrainedModel:
    """A model that takes its weights from another one, which are neither initialised nor copied."""
    with torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]  # transformers'
            config, **options
        )
    return model


def _check_class(folder: str | Path, loaded: str) -> None:
    """Check that transformers has the class that a config names, and does not take another one for it."""
    config = json.loads((Path(folder) / "config.json").read_text("utf-8"))
    for name in config.get("architectures") or []:
        if name.lower() != loaded.lower() and not hasattr(transformers, name):
            raise ValueError(
                f"{folder}: transformers has no {name}, which config.json names, and would take {loaded} "
                "for it; code of a model's own is not run, so name a model without, or correct "
                "architectures if it is one"
            )


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def _check_finite(weights: Mapping[str, torch.Tensor], folder: str | Path) -> None:
    for name, weight in weights.items():
        if weight.is_floating_point() and not torch.isfinite(weight).all():
            raise ValueError(
                f"{folder}: {name} holds values that are not finite; the training diverged or the file is "
                "damaged, name another checkpoint"
            )


def _probe(model: "PreTrainedModel | PeftModel", extra: Sequence[int] = ()) -> torch.Tensor:
    """Two short rows of token ids that differ in the last one, from all over the vocabulary."""
    last = input_embeddings(model).weight.shape[0] - 1
    ids = torch.linspace(1, last - 1, 8).long()
    ids = torch.cat([torch.tensor(list(extra), dtype=torch.long), ids])
    other = ids.clone()
    other[-1] = last // 2
    return torch.stack([ids, other]).to(model.device)


@torch.inference_mode()
def _logits(model: "PreTrainedModel | PeftModel", ids: torch.Tensor) -> torch.Tensor:
    logits: torch.Tensor = model(input_ids=ids, use_cache=False).logits
    return logits.float()


@torch.inference_mode()
def _logits_of_embeddings(model: PreTrainedModel, ids: torch.Tensor) -> torch.Tensor:
    embeddings = input_embeddings(model)(ids)
    logits: torch.Tensor = model(inputs_embeds=embeddings, use_cache=False).logits
    return logits.float()


def check_reading(model: PreTrainedModel, where: str) -> None:
    """Check that a model is causal, and that it reads nothing of a token but its embedding.

    Of a PEFT model the same is checked of what it puts around the model that it adapts: nothing.

    Args:
        model: a model of transformers, or a PEFT model.
        where: what the model was loaded from, for messages.

    Raises:
        ValueError: it is not so, or the model cannot evaluate a short text.
    """
    ids = _probe(model)
    try:
        logits, by_embeddings = _logits(model, ids), _logits_of_embeddings(model, ids)
    except Exception as error:  # what fails depends on the architecture
        raise ValueError(
            f"{where}: {type(model).__name__} cannot evaluate a short text alone ({_first_line(error)}); "
            "name a causal LM that reads text and nothing else"
        ) from error
    if _differ(logits[0, :-1], logits[1, :-1]):
        raise ValueError(
            f"{where}: {type(model).__name__} is not causal here, since a later token changes the logits "
            "of earlier ones (a masked LM is such a model); name a causal LM"
        )
    if _differ(logits, by_embeddings):
        raise ValueError(
            f"{where}: {type(model).__name__} reads more of a token than its embedding, so that no word "
            "can be masked; name a model of another architecture"
        )
    inside = transformers_model(model)
    if inside is model:
        return
    own = _logits(inside, ids)
    if own.shape != logits.shape or _differ(logits, own):
        raise ValueError(
            f"{where}: {type(model).__name__} adds to its model what is in none of its layers (as prompt "
            "tuning does), which masked inference would leave out; take an adapter of layers, such as LoRA"
        )


def _differ(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether logits differ by more than rounding in float32 can do."""
    return not (one - other).abs().max() <= ROUNDING * one.abs().max()


def load_checkpoint(
    model_dir: str | Path,
    checkpoint_dir: str | Path | None,
    device: torch.device,
    *,
    base: Callable[[], PreTrainedModel] | None = None,
) -> PreTrainedModel:
    """Load a model in float32 with the weights of a checkpoint, ready for inference.

    An adapter is merged, and the merged model is compared with the model that carries it, on a short text.

    Args:
        checkpoint_dir: folder of a PEFT adapter, which is merged, or of full weights; None for the
            model itself.
        base: gives the model of ``model_dir``, if it is loaded already; it is copied, not changed.

    Raises:
        ValueError: the folder holds neither, or both; its weights are not whole, not finite, or not those
            that the model needs; merging changes the model's output.
    """
    kind = None
    if checkpoint_dir is not None:
        kind = check_checkpoint(checkpoint_dir, model_dir)
    if checkpoint_dir is not None and kind == "full":
        model = load_base(checkpoint_dir)
    elif base is not None:
        # A copy even for the next adapter: what merging adds does not come off without rounding.
        model = copy.deepcopy(base())
    else:
        model = load_base(model_dir)
    if checkpoint_dir is not None and kind == "adapter":
        check_checksums(checkpoint_dir)
        model = _merged(model, checkpoint_dir)
    multiply_head_once(model)
    model.train(False)
    return to_device(model, device)


def _merged(model: PreTrainedModel, folder: str | Path) -> PreTrainedModel:
    from sft_interactions.models.adapters import (
        add_adapter,
        trained_tokens,
    )  # base models do without it

    adapted = add_adapter(model, folder)
    ids = _probe(adapted, trained_tokens(adapted))
    expected = _logits(adapted, ids)
    try:
        merged: PreTrainedModel = adapted.merge_and_unload()
    except Exception as error:  # what fails depends on the kind of adapter
        raise ValueError(
            f"{folder}: PEFT cannot merge this adapter ({_first_line(error)}); save the model as full "
            "weights"
        ) from error
    # Attention may give finite logits out of weights that are not.
    _check_finite(merged.state_dict(), folder)
    found = _logits(merged, ids)
    if _differ(expected, found):
        raise ValueError(
            f"{folder}: merging this adapter changes the logits by up to "
            f"{(expected - found).abs().max():.2g}; save the model as full weights, in a form whose output "
            "you have compared"
        )
    return merged


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
