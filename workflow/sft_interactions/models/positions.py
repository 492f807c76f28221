"""How many tokens a model can read, and which.

Imports transformers only.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from transformers import AutoConfig, PreTrainedConfig

# What configurations call the number of positions; transformers renames most others to the first.
_POSITIONS = ("max_position_embeddings", "max_seq_len")
# Kinds of rotary positions whose factors change with the length of the text, beyond the original limit.
# Two texts that share their beginning do not share its states there.
_CHANGING = ("dynamic", "longrope", "su")


def position_limit(config: PreTrainedConfig) -> int | None:
    """Largest number of tokens that a model reads as it was made to; None where it has no limit.

    Where the factors of rotary positions change with the length (``dynamic``, ``longrope``), it is the
    length up to which they do not.
    """
    text = config.get_text_config()
    limits = [getattr(text, name, None) for name in _POSITIONS]
    for rope in _rope_parameters(text):
        kind = str(rope.get("rope_type") or rope.get("type") or "default")
        if any(name in kind for name in _CHANGING):
            limits.append(rope.get("original_max_position_embeddings"))
            limits.append(getattr(text, "original_max_position_embeddings", None))
    return min((int(limit) for limit in limits if limit), default=None)


def read_position_limit(model_dir: str) -> int | None:
    """:func:`position_limit` of the model in a folder."""
    return position_limit(AutoConfig.from_pretrained(model_dir))


def check_vocabulary(
    token_ids: Iterable[int], size: int, sample_id: str, folder: str | Path
) -> None:
    """Check that a model has an embedding for every token of a sample.

    Args:
        token_ids: of the sample.
        size: number of embeddings.
        folder: of the model or checkpoint, for the message.

    Raises:
        ValueError: it lacks one.
    """
    largest = max(token_ids)
    if largest >= size:
        raise ValueError(
            f"{folder}: sample {sample_id} has the token id {largest}, the model knows {size}; put "
            "the tokenizer of the model beside its weights, or, where the training added tokens, "
            "give the model before SFT as many (resize_token_embeddings)"
        )


def check_length(n_tokens: int, limit: int | None, where: str) -> None:
    """Check that a model can read so many tokens.

    Args:
        where: what has so many, for the message.

    Raises:
        ValueError: they are more than ``limit``.
    """
    if limit is not None and n_tokens > limit:
        raise ValueError(
            f"{where}: {n_tokens} tokens with template and response, but the model reads "
            f"{limit} as it was made to; drop long samples by filter.max_words or "
            "filter.exclude_pattern"
        )


def _rope_parameters(config: PreTrainedConfig) -> list[Mapping[str, Any]]:
    """Settings of rotary positions: one for all layers, or one for each kind of layer."""
    found = getattr(config, "rope_parameters", None) or {}
    inner = [value for value in found.values() if isinstance(value, Mapping)]
    return [found, *inner]
