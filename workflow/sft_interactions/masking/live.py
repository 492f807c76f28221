"""A model that is in use, such as one in training: can it be measured, and how it is left as it was.

Imports torch and transformers only. PEFT models are taken as they stand, their adapters unmerged.
"""

import copy
import random
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import PreTrainedModel

from sft_interactions.masking.log_odds import MaskedPrompt, log_odds, masked_log_odds
from sft_interactions.masking.prefix_tree import NotBranchableError, attention_name
from sft_interactions.models.layers import output_head, transformers_model

# Largest difference in log-odds from whole prompts: the default of the config key inference.max_error.
MAX_ERROR = 0.01
# Maskings that are compared with whole masked prompts, evenly spread.
_COMPARED = 8
# Attention of transformers that computes in float32 what it computes in training.
_ATTENTION = ("eager", "sdpa", None)
_HALF = (torch.bfloat16, torch.float16)


def check_live(model: PreTrainedModel, where: str, *, may_copy: bool = False) -> None:
    """Check that a model can be measured as it stands, by what it is made of.

    Args:
        model: a causal LM, or a PEFT model around one.
        where: what the model is, for messages.
        may_copy: whether weights in half precision are allowed, since a copy in float32 is made of them.

    Raises:
        ValueError: its weights are sharded, offloaded, quantised, on several devices or in half precision;
            it is compiled; or its attention does not compute in float32.
    """
    _check_weights(model, where)
    kinds = {p.dtype for p in model.parameters()} - {torch.float32, torch.float64}
    if kinds & set(_HALF) and not may_copy:
        raise ValueError(
            f"{where}: its weights are {_names(kinds)}, in which log-odds lose too many digits; load it "
            "with dtype=torch.float32 (with bf16=True it still trains in half precision), or set "
            "float32_copy=True, which takes the memory of a second model"
        )
    if others := kinds - set(_HALF):
        raise ValueError(
            f"{where}: its weights are {_names(others)}; quantised models cannot be measured, load it with "
            "dtype=torch.float32"
        )
    for name, module in model.named_modules():
        # torch has no public name for either: a compiled call, and the wrapper of torch.compile.
        if module._compiled_call_impl is not None or type(module).__name__ == "OptimizedModule":
            raise ValueError(
                f"{where}: {name or type(module).__name__} is compiled; train it without torch.compile, or "
                "by torch_compile=True of the training arguments"
            )
    if attention_name(model) not in _ATTENTION:
        raise ValueError(
            f"{where}: its attention is {attention_name(model)}, which does not compute in float32 what it "
            "computes in training; load it with attn_implementation='sdpa'"
        )


def _check_weights(model: nn.Module, where: str) -> None:
    """Check that all weights are here, whole and on one device."""
    sharded = any(_is_sharded_module(module) for module in model.modules())
    for name, weight in model.named_parameters():
        if sharded or _is_sharded(weight):
            raise ValueError(
                f"{where}: {name} is sharded over processes (FSDP, DeepSpeed ZeRO-3, tensor parallelism); "
                "train with DDP or on one device, or analyse the saved checkpoints with the workflow"
            )
        if weight.is_meta:
            raise ValueError(f"{where}: {name} is offloaded; load the model on one device")
    devices = sorted({str(weight.device) for weight in model.parameters()})
    if len(devices) != 1:
        raise ValueError(
            f"{where}: its weights are on {', '.join(devices) or 'no device'}; load it on one device"
        )
    if getattr(transformers_model(model), "quantization_method", None) is not None:
        raise ValueError(
            f"{where}: it is quantised, and cannot be measured in float32; load it without "
            "quantization_config"
        )


def _is_sharded_module(module: nn.Module) -> bool:
    if not torch.distributed.is_available():
        return False
    from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel

    return isinstance(module, FSDPModule | FullyShardedDataParallel)


def _is_sharded(weight: torch.Tensor) -> bool:
    # DeepSpeed leaves an empty tensor with marks of its own.
    if hasattr(weight, "ds_id") or not weight.numel():
        return True
    if not torch.distributed.is_available():
        return False
    from torch.distributed.tensor import DTensor

    return isinstance(weight, DTensor)


def _names(kinds: set[torch.dtype]) -> str:
    return ", ".join(sorted(str(kind).removeprefix("torch.") for kind in kinds))


def in_float32(model: PreTrainedModel) -> PreTrainedModel:
    """The model itself, or a copy in float32 of one whose weights are in half precision."""
    if not {weight.dtype for weight in model.parameters()} & set(_HALF):
        return model
    copied: Any = copy.deepcopy(model)
    return copied.float()  # type: ignore[no-any-return]  # transformers hides torch's


@contextmanager
def undisturbed(model: PreTrainedModel) -> Iterator[None]:
    """Evaluate a model for a while, in full precision and without dropout, and leave all as it was.

    The modules' modes and buffers, the forward functions that trainers put over the model's own (autocast,
    fused losses), precision switches of torch, and the random numbers of torch, numpy and Python are as
    before when it ends, whether by an error or not.
    """
    with ExitStack() as stack:
        stack.enter_context(_random_numbers_kept(model.device))
        stack.enter_context(_full_precision())
        stack.enter_context(torch.autocast(model.device.type, enabled=False))
        stack.enter_context(_own_forward(model))
        stack.enter_context(_buffers_kept(model))
        stack.enter_context(_evaluation_mode(model))
        yield


@contextmanager
def _random_numbers_kept(device: torch.device) -> Iterator[None]:
    python, legacy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    accelerator: Any = None
    if device.type not in ("cpu", "meta"):
        accelerator = torch.get_device_module(device)
    which = () if device.type == "mps" else (device,)  # of mps there is one only
    state = None if accelerator is None else accelerator.get_rng_state(*which)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)
        torch.set_rng_state(cpu)
        if accelerator is not None:
            accelerator.set_rng_state(state, *which)


@contextmanager
def _full_precision() -> Iterator[None]:
    """No rounding of the factors of float32 products, as TF32 does it."""
    backends: Any = torch.backends
    # From the top down: what follows the one above it is left alone, so that it still does so afterwards.
    # Not by allow_tf32, which raises an error once these have been set, as transformers does for tf32=True.
    switches = (
        backends,
        backends.cudnn,
        backends.cuda.matmul,
        backends.cudnn.conv,
        backends.cudnn.rnn,
        backends.mkldnn,
        backends.mkldnn.matmul,
        backends.mkldnn.conv,
        backends.mkldnn.rnn,
    )
    put_aside = []
    try:
        for switch in switches:
            if switch.fp32_precision != "ieee":
                put_aside.append((switch, switch.fp32_precision))
                switch.fp32_precision = "ieee"
        yield
    finally:
        for switch, value in reversed(put_aside):
            switch.fp32_precision = value


@contextmanager
def _own_forward(model: nn.Module) -> Iterator[None]:
    """Let a model run the forward function of its class.

    Accelerate puts autocast over it, and trainers fused losses, as an attribute of the object.
    """
    put_aside = []
    for module in {id(one): one for one in (model, transformers_model(model))}.values():
        # Hooks that move tensors between devices are put there too; they are needed.
        if "forward" in vars(module) and not hasattr(module, "_hf_hook"):
            put_aside.append((module, vars(module).pop("forward")))
    try:
        yield
    finally:
        for module, forward in put_aside:
            module.forward = forward


@contextmanager
def _buffers_kept(model: nn.Module) -> Iterator[None]:
    """Keep what a forward pass may change in a model: rotary factors that depend on the longest text."""
    kept = [
        (
            module,
            dict(module.named_buffers(recurse=False)),
            {k: v for k, v in vars(module).items() if k.endswith("max_seq_len_cached")},
        )
        for module in model.modules()
    ]
    try:
        yield
    finally:
        for module, buffers, lengths in kept:
            for name, value in {**buffers, **lengths}.items():
                if getattr(module, name) is not value:
                    setattr(module, name, value)


@contextmanager
def _evaluation_mode(model: nn.Module) -> Iterator[None]:
    modes = [(module, module.training) for module in model.modules()]
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        # First as a whole, since modules may have a method of their own for it.
        model.train(was_training)
        for module, training in modes:
            module.training = training


def live_log_odds(
    model: PreTrainedModel,
    prompts: Sequence[MaskedPrompt],
    mask_embedding: torch.Tensor,
    *,
    method: str,
    where: str,
) -> NDArray[np.float32]:
    """Log-odds v(S) of all maskings of some prompts with as many players each, held against the model.

    v(N) of every prompt is compared with what the model itself gives for the prompt's tokens, through all
    that is around it (PEFT's wrapper, its own attention). With the prefix tree some maskings of the
    longest prompt are compared with whole masked prompts.

    Args:
        model: a model of :func:`check_live`, within :func:`undisturbed`.
        mask_embedding: (hidden,).
        method: ``prefix_tree`` or ``full_length``, see
            :func:`~sft_interactions.masking.log_odds.masked_log_odds`.
        where: what the model is, for messages.

    Returns:
        (prompts, 2^n) float32 by mask, natural logarithm.

    Raises:
        ValueError: a value is not finite, or differs by more than ``MAX_ERROR``; or the model cannot be
            evaluated so.
    """
    values = []
    with _autocast_refused(model, where):
        for number, prompt in enumerate(prompts):
            try:
                read = masked_log_odds(model, prompt, mask_embedding, method=method)
            except NotBranchableError as error:
                raise ValueError(
                    f"{where}: {error}; set method to full_length, which is slower"
                ) from error
            if not np.isfinite(read).all():
                raise ValueError(
                    f"{where}: log-odds of prompts[{number}] are not finite; the training has diverged"
                )
            _compare(read[-1:], [plain_log_odds(model, prompt)], f"{where}, prompts[{number}]")
            values.append(read)
        if method == "prefix_tree":
            longest = max(range(len(prompts)), key=lambda number: prompts[number].n_tokens)
            prompt, read = prompts[longest], values[longest]
            masks = np.unique(np.linspace(0, len(read) - 1, _COMPARED).astype(int))
            whole = masked_log_odds(
                model, prompt, mask_embedding, method="full_length", masks=masks.tolist()
            )
            _compare(read[masks], whole, f"{where}, prompts[{longest}]")
    return np.stack(values)


def _compare(values: NDArray[np.float32], expected: Any, where: str) -> None:
    error = np.abs(values - np.asarray(expected)).max()
    if not error <= MAX_ERROR:
        raise ValueError(
            f"{where}: log-odds differ by {error:.3g} from those of the whole prompt, more than "
            f"{MAX_ERROR:g}; this model does something around its layers that masked inference does not "
            "know, set method to full_length, or train without what changes its forward pass"
        )


@torch.inference_mode()
def plain_log_odds(model: PreTrainedModel, prompt: MaskedPrompt) -> float:
    """Log-odds v(N) of a prompt by one forward pass over its tokens, natural logarithm."""
    targets = torch.tensor(list(prompt.target_token_ids), device=model.device)
    ids = torch.tensor([*prompt.token_ids, *prompt.target_token_ids[:-1]], device=model.device)
    logits = model(input_ids=ids[None], use_cache=False).logits[0, -len(targets) :]
    return float(log_odds(logits, targets).double().sum())


@contextmanager
def _autocast_refused(model: PreTrainedModel, where: str) -> Iterator[None]:
    """Stop where a forward pass of the model comes to its head in autocast or in half precision."""

    def look(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        hidden = inputs[0]
        if torch.is_autocast_enabled(hidden.device.type) or hidden.dtype in _HALF:
            raise ValueError(
                f"{where}: it computes in half precision ({_names({hidden.dtype})}), which cannot be "
                "undone; train without autocast of your own around the model's forward pass"
            )

    handle = output_head(model).register_forward_pre_hook(look)
    try:
        yield
    finally:
        handle.remove()
