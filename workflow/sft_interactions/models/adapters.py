"""Adapters of PEFT: added to a model tensor by tensor, none left out.

Imports torch, transformers and peft only.
"""

import json
import logging
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from peft import (
    PEFT_TYPE_TO_CONFIG_MAPPING,
    PeftConfig,
    PeftModel,
    get_base_model_state_dict,
    get_peft_model,
    get_peft_model_state_dict,
    load_peft_weights,
    set_peft_model_state_dict,
)
from peft.tuners.tuners_utils import check_target_module_exists
from peft.utils.other import get_pattern_key
from peft.utils.warning import PeftWarning
from torch import nn
from transformers import PreTrainedModel

from sft_interactions.models.bin_files import check_bin_files
from sft_interactions.models.checkpoint_files import refuse_differences
from sft_interactions.models.layers import input_embeddings, output_head

Tensors = dict[str, torch.Tensor]

START = "base_model.model."
# What wrappers, and models for images and text, put into the names of weights.
FOREIGN_PARTS = re.compile(
    r"(?<![^.])(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|language_model)\."
)
# Parts of models for images, sound and text that no text goes through.
BESIDE_TEXT = re.compile(
    r"(?<![^.])(vision_tower|vision_model|visual|multi_modal_projector|audio_tower)\."
)
# The base's own weights of a layer that was trained whole.
_ORIGINAL = ".original_module"
# The name of the adapter, which PEFT leaves out of its files.
ADAPTER_NAME = re.compile(r"(?<=\.)(lora_\w+)\.(?!weight$|bias$)[^.]+(?=\.|$)")


def add_adapter(model: PreTrainedModel, folder: str | Path) -> PeftModel:
    """Add the adapter of a folder to a model, every tensor of it.

    Args:
        model: in float32, or on the device ``meta`` to compare names and shapes alone; it is changed.
        folder: as :func:`~sft_interactions.models.checkpoint_files.check_checkpoint` has found it right.

    Raises:
        ValueError: the adapter has a tensor too many or too few, one of another shape or not finite, or
            would change the model that it is added to.
    """
    config = _read_config(folder)
    _name_modules(config, model, folder)
    weights = _of_text(_once(_read_weights(folder), folder), model, folder)
    _resize_as(weights, model, folder)
    size, largest = (
        input_embeddings(model).num_embeddings,
        max(_indices_of_tokens(config), default=-1),
    )
    if largest >= size:
        raise ValueError(
            f"{folder}: this adapter has trained the embedding of token {largest}, and neither the model, "
            f"which has {size}, nor the adapter's files hold it; save the adapter with its embeddings "
            "(save_embedding_layers=True), or name the model with the tokens that the training added"
        )
    untie_if(model, not _ties(config) and any(_is_of_ends(name, model) for name in weights))
    before = _fingerprints(model.state_dict())
    on_meta = model.device.type == "meta"
    try:
        with experts_are_not_missed():
            adapted = get_peft_model(model, config, low_cpu_mem_usage=on_meta)
    except (ValueError, TypeError, LookupError, AttributeError, RuntimeError) as error:
        first = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"{folder}: PEFT cannot add this adapter to the model ({first}); name an adapter of this model"
        ) from error
    adapted.eval()
    if _fingerprints(get_base_model_state_dict(adapted)) != before:
        raise ValueError(
            f"{folder}: adding this adapter changes the model's own weights; save the merged model as full "
            "weights"
        )
    weights = _renamed(weights, _tensors_of(adapted, embeddings=True), folder)
    _compare(weights, adapted, folder)
    if not on_meta:
        _set(weights, adapted, folder)
    return adapted


@contextmanager
def experts_are_not_missed() -> Iterator[None]:
    """Leave out a warning of PEFT, which looks for the patterns of experts, parameters, among modules."""
    with warnings.catch_warnings():
        message = r".*_pattern keys did not match .*: \['[^,]*(gate_up|up|down)_proj'\]"
        warnings.filterwarnings("ignore", message=message, category=RuntimeWarning)
        yield


def _once(weights: Tensors, folder: str | Path) -> Tensors:
    """Weights without a second copy of layers that were trained whole.

    PEFT writes one where the embeddings were resized in training and are trained too.
    """
    kept = dict(weights)
    for name in weights:
        plain = name.replace(".modules_to_save.", ".")
        if plain == name or plain not in weights:
            continue
        if not torch.equal(weights[plain], weights[name]):
            raise ValueError(f"{folder}: {plain} and {name} differ; save the adapter again")
        del kept[name]
    return kept


def _of_text(weights: Tensors, model: PreTrainedModel, folder: str | Path) -> Tensors:
    """Weights without those of parts beside the language model, which is all that the model has."""
    if any(BESIDE_TEXT.search(f"{name}.") for name, _ in model.named_modules()):
        return weights
    kept = {name: tensor for name, tensor in weights.items() if not BESIDE_TEXT.search(name)}
    if len(kept) < len(weights) and any("language_model." in name for name in kept):
        logging.getLogger(__name__).warning(
            "%s: %d tensors of parts that no text goes through are left out",
            *(folder, len(weights) - len(kept)),
        )
        return kept
    return weights


def _resize_as(weights: Tensors, model: PreTrainedModel, folder: str | Path) -> None:
    """Give a model as many embeddings as came with its adapter, where the training added tokens.

    Those that are added are the adapter's. The others are compared later. Without a tokenizer beside the
    adapter nothing is changed, since nothing would tell what was added.
    """
    # Of a layer that was trained whole the base's own weights come last.
    brought = {
        module: weights[name]
        for name in sorted(weights, key=lambda name: _ORIGINAL in name)
        for module in _names_of_ends(model)
        if name.endswith(".weight") and _module_of(name) == module
    }
    sizes = {len(tensor) for tensor in brought.values()}
    size = input_embeddings(model).num_embeddings
    if len(sizes) != 1 or max(sizes) <= size or not (Path(folder) / "tokenizer.json").is_file():
        return
    model.resize_token_embeddings(max(sizes), mean_resizing=False)
    if model.device.type == "meta":
        return
    for name, tensor in brought.items():
        weight: Any = model.get_submodule(name).weight
        with torch.no_grad():
            weight[size:] = tensor[size:].to(weight.dtype)


def _module_of(name: str) -> str:
    """The module that a tensor of an adapter's file is the whole weight of."""
    plain = FOREIGN_PARTS.sub("", name.removeprefix(START))
    for wrapper in (".weight", ".base_layer", ".token_adapter", _ORIGINAL):
        plain = plain.removesuffix(wrapper)
    return plain


def adds_nothing(folder: str | Path) -> bool:
    """Whether an adapter is one of LoRA whose every product is zero, which leaves the model as it is."""
    weights = _read_weights(folder)
    last = [tensor for name, tensor in weights.items() if re.search(r"lora_(embedding_)?B", name)]
    others = [name for name in weights if "lora_" not in name]
    return bool(last) and not others and not any(tensor.any() for tensor in last)


def trained_tokens(adapted: PeftModel) -> list[int]:
    """Ids of tokens whose embeddings an adapter has trained one by one."""
    return _indices_of_tokens(next(iter(adapted.peft_config.values())))[:64]


def _indices_of_tokens(config: PeftConfig) -> list[int]:
    given = getattr(config, "trainable_token_indices", None) or getattr(config, "token_indices", [])
    lists = given.values() if isinstance(given, Mapping) else [given]
    return [int(token) for tokens in lists for token in tokens]


def untie_if(model: PreTrainedModel, is_changed: bool) -> None:
    """Give the output head weights of its own if it shares those of the embedding and one alone changes."""
    head, embedding = output_head(model), input_embeddings(model)
    if not is_changed or head.weight is not embedding.weight:
        return
    head.weight = nn.Parameter(embedding.weight.detach().clone(), requires_grad=False)
    model.config.tie_word_embeddings = False


def targets_ends(model: PreTrainedModel, config: PeftConfig) -> bool:
    """Whether an adapter is to be added to the embedding or to the output head."""
    names = _names_of_ends(model)
    targets = getattr(config, "target_modules", None)
    return targets != "all-linear" and any(
        check_target_module_exists(config, name) for name in names
    )


def _ties(config: PeftConfig) -> bool:
    """Whether an adapter changes the output head with the embedding where they share weights."""
    keys = ("trainable_token_indices", "token_indices")
    return any(getattr(config, key, None) for key in keys)


def _names_of_ends(model: PreTrainedModel) -> list[str]:
    ends = (input_embeddings(model), output_head(model))
    return [name for name, module in model.named_modules() if any(module is end for end in ends)]


def _is_of_ends(name: str, model: PreTrainedModel) -> bool:
    last = {end.rpartition(".")[2] for end in _names_of_ends(model)}
    return bool(last & set(name.split(".")))


def _read_config(folder: str | Path) -> PeftConfig:
    path = Path(folder) / "adapter_config.json"
    settings = json.loads(path.read_text("utf-8"))
    kind = PEFT_TYPE_TO_CONFIG_MAPPING[settings["peft_type"]]
    known = {field.name for field in fields(kind)}
    for key, value in settings.items():
        if key not in known and value:
            raise ValueError(
                f"{path}: this version of PEFT does not know {key}; save the merged model as full weights "
                "with the version that made the adapter"
            )
    config = kind(**{key: value for key, value in settings.items() if key in known})
    config.inference_mode = True
    config.base_model_name_or_path = None  # PEFT would compare it with a path of this machine
    return config


def _name_modules(config: PeftConfig, model: PreTrainedModel, folder: str | Path) -> None:
    """Let the settings of single modules name those of this model, as the tensors do.

    PEFT leaves out a name that is of no module. A rank that is left out shows in the shapes; a scale shows
    nowhere.
    """
    for setting in ("alpha_pattern", "rank_pattern"):
        given = getattr(config, setting, None)
        if given:
            own = {FOREIGN_PARTS.sub("", name): value for name, value in given.items()}
            setattr(config, setting, own)
    modules = [name for name, _ in model.named_modules()]
    if getattr(config, "target_parameters", None):  # of experts, which are no modules
        modules += [name for name, _ in model.named_parameters()]
    for name in getattr(config, "alpha_pattern", None) or ():
        if not any(get_pattern_key([name], module) == name for module in modules):
            raise ValueError(
                f"{Path(folder) / 'adapter_config.json'}: alpha_pattern names {name}, and the model has no "
                "such module; correct the name, or save the merged model as full weights"
            )


def _read_weights(folder: str | Path) -> Tensors:
    check_bin_files(folder)
    try:
        weights: Tensors = load_peft_weights(str(folder), device="cpu")
    except Exception as error:  # what a damaged file raises depends on where it is damaged
        first = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"{folder}: PEFT cannot read the adapter's weights ({first}); copy or train it again"
        ) from error
    return weights


def _tensors_of(adapted: PeftModel, *, embeddings: bool) -> Tensors:
    """The adapter's tensors by the names they have in files; also the model's embeddings, if asked."""
    with warnings.catch_warnings():
        # It takes the biases of lora_bias for matrices that were cut; shapes are compared below.
        warnings.filterwarnings("ignore", message=".*have invalid shape", category=PeftWarning)
        found: Tensors = get_peft_model_state_dict(adapted, save_embedding_layers=embeddings)
    return found


def _renamed(weights: Tensors, expected: Mapping[str, object], folder: str | Path) -> Tensors:
    """Weights by the names that are expected, where known foreign parts of names alone stand between."""
    renamed, changed = {}, []
    for name, tensor in weights.items():
        new = name if name in expected else _own_name(name, expected)
        if new in renamed:
            raise ValueError(
                f"{folder}: {name} and another tensor both stand for {new}; save it again"
            )
        if new != name:
            changed.append(f"{name} is taken for {new}")
        renamed[new] = tensor
    if changed:
        logging.getLogger(__name__).warning(
            "%s: %d tensors have foreign names; %s", folder, len(changed), changed[0]
        )
    return renamed


def _own_name(name: str, expected: Mapping[str, object]) -> str:
    """The expected name that a foreign one stands for, else the foreign name."""
    plain = FOREIGN_PARTS.sub("", name)
    plain = START + re.sub(r"^(module\.)?(base_model\.model\.)?", "", plain)
    for candidate in (plain, ADAPTER_NAME.sub(r"\1", plain)):
        if candidate in expected:
            return candidate
    return name


def _compare(weights: Tensors, adapted: PeftModel, folder: str | Path) -> None:
    """Check names and shapes; of embeddings that came along also that they are the model's."""
    needed, possible = (_tensors_of(adapted, embeddings=value) for value in (False, True))
    refuse_differences(
        folder,
        missing=needed.keys() - weights.keys(),
        unexpected=weights.keys() - possible.keys(),
        mismatched=[
            f"{name} {tuple(tensor.shape)} instead of {tuple(possible[name].shape)}"
            for name, tensor in weights.items()
            if name in possible and tensor.shape != possible[name].shape
        ],
    )
    for name in weights.keys() - needed.keys():
        own = possible[name]
        if own.device.type != "meta" and not torch.equal(
            own.to(weights[name].dtype), weights[name]
        ):
            raise ValueError(
                f"{folder}: {name} came with the adapter and is not that of the model; name the model that "
                "the adapter was trained on, or save the merged model as full weights"
            )


def _set(weights: Tensors, adapted: PeftModel, folder: str | Path) -> None:
    """Set the adapter's tensors and read them back."""
    needed = _tensors_of(adapted, embeddings=False).keys()
    weights = {name: weights[name] for name in needed}
    for name, tensor in weights.items():
        if not torch.isfinite(tensor).all():
            raise ValueError(
                f"{folder}: {name} holds values that are not finite; the training diverged, name another "
                "checkpoint"
            )
    set_peft_model_state_dict(adapted, weights)
    found = _tensors_of(adapted, embeddings=False)
    refuse_differences(
        folder,
        unapplied=[
            name
            for name, tensor in weights.items()
            if not torch.equal(found[name], tensor.to(found[name].dtype))
        ],
    )


def _fingerprints(weights: Mapping[str, torch.Tensor]) -> dict[str, int]:
    """A digest of every tensor by name."""
    return {
        name: int(torch.hash_tensor(tensor).view(torch.int64))
        if tensor.device.type != "meta"
        else 0
        for name, tensor in weights.items()
    }


def names_of(model_dir: str | Path, others: Iterable[str]) -> list[str]:
    """Names that a base model goes by: those given and the one that its config has."""
    config = json.loads((Path(model_dir) / "config.json").read_text("utf-8"))
    return [*others, *filter(None, [config.get("_name_or_path")])]
