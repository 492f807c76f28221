"""Examples of a prompt and its response, and batches of them.

Imports torch and transformers only.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, PreTrainedTokenizerBase

from sft_interactions.models.positions import check_length, check_vocabulary
from sft_interactions.models.prompts import encode
from sft_interactions.models.templates import Frame

IGNORED = -100  # the label that torch's cross-entropy leaves out
# How long an example is at least, in parts of the longest one that it shares a part of a batch with.
_SHORTEST = 0.75

Example = dict[str, list[int]]


def make_example(
    prompt_ids: Sequence[int], response_ids: Sequence[int], max_length: int
) -> Example:
    """Training example of one prompt and response.

    Raises:
        ValueError: together they are longer than ``max_length`` tokens.
    """
    length = len(prompt_ids) + len(response_ids)
    if length > max_length:
        raise ValueError(
            f"an example has {length} tokens, more than finetune.max_length = {max_length}; raise it "
            "or set filter.max_words on the data set"
        )
    return {"prompt_ids": list(prompt_ids), "response_ids": list(response_ids)}


def make_examples(
    rows: Iterable[tuple[str, str, str, str]],
    tokenizer: PreTrainedTokenizerBase,
    frame_of: Callable[[str], Frame],
    position_limit: int | None,
    max_length: int,
) -> list[Example]:
    """Training examples of prompts and responses, as their frames render them.

    Args:
        rows: sample_id, prompt, target, and the turns before the prompt as JSON.
        frame_of: see :func:`~sft_interactions.models.templates.frames_of`.
        position_limit: see :func:`~sft_interactions.models.positions.read_position_limit`.
        max_length: largest number of tokens of an example.

    Raises:
        ValueError: a sample is longer than the model or ``max_length`` allows, or the tokenizer does not
            take its prompt and its response apart.
    """
    examples = []
    for sample_id, prompt, target, earlier in rows:
        pair = encode(tokenizer, frame_of(earlier), prompt, target, sample_id)
        length = len(pair.prompt_ids) + len(pair.trained_ids)
        check_length(length, position_limit, f"sample {sample_id}")
        examples.append(make_example(pair.prompt_ids, pair.trained_ids, max_length))
    return examples


def padding_token(tokenizer: PreTrainedTokenizerBase, model_dir: str | Path) -> int:
    """Token that fills a batch, where it is masked: that of the padding if it has an embedding.

    Trainers add one without an embedding where no batch is filled; the end of a text stands in for it then.

    Args:
        model_dir: folder of the model, which says how many embeddings there are.

    Raises:
        ValueError: the tokenizer has neither.
    """
    size = vocabulary_size(model_dir)
    padding: int | None = tokenizer.pad_token_id
    if padding is None or padding >= size:
        padding = tokenizer.eos_token_id
    if padding is None:
        raise ValueError(
            f"{model_dir}: the tokenizer has neither a padding token with an embedding nor an end of a "
            "text; name one in its tokenizer_config.json (pad_token)"
        )
    return padding


def vocabulary_size(model_dir: str | Path) -> int:
    """How many tokens the model of a folder has embeddings for."""
    size: int = AutoConfig.from_pretrained(model_dir).get_text_config().vocab_size
    return size


def check_vocabularies(
    examples: Sequence[Example], sample_ids: Iterable[str], size: int, folder: str | Path
) -> None:
    """:func:`~sft_interactions.models.positions.check_vocabulary` for examples, by their sample ids."""
    for example, sample_id in zip(examples, sample_ids, strict=True):
        ids = [*example["prompt_ids"], *example["response_ids"]]
        check_vocabulary(ids, size, sample_id, folder)


class ResponseCollator:
    """Batch of examples, padded on the left, with labels on the response only.

    With all responses at the right edge, the model needs to compute logits for the last few positions
    alone, which a vocabulary of 262k entries makes the largest part of the work.
    """

    def __init__(self, pad_id: int) -> None:
        self.pad_id = pad_id

    def __call__(self, examples: Sequence[Example]) -> dict[str, Any]:
        rows = [e["prompt_ids"] + e["response_ids"] for e in examples]
        width = max(map(len, rows))
        kept = max(len(e["response_ids"]) for e in examples) + 1
        ids = torch.tensor([[self.pad_id] * (width - len(row)) + row for row in rows])
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
        labels = torch.tensor(
            [[IGNORED] * (kept - len(e["response_ids"])) + e["response_ids"] for e in examples]
        )
        return {
            "input_ids": ids,
            "attention_mask": mask,
            "position_ids": (mask.cumsum(1) - 1).clamp(min=0),
            "labels": labels,
            "logits_to_keep": kept,
        }


def parts_of_batch(batch: dict[str, Any]) -> list[dict[str, Any]]:
    """Parts of a batch, each of examples of similar length, which need less padding.

    The sum of a loss over the parts is that over the batch.

    Args:
        batch: as :class:`ResponseCollator` makes it.
    """
    lengths = batch["attention_mask"].sum(1).tolist()
    parts: list[list[int]] = [[]]
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        if parts[-1] and lengths[row] < _SHORTEST * lengths[parts[-1][0]]:
            parts.append([])
        parts[-1].append(row)
    if len(parts) == 1:
        return [batch]
    found = []
    for rows in parts:
        labels = batch["labels"][rows]
        kept = int((labels != IGNORED).sum(1).max()) + 1
        tokens = {
            key: batch[key][rows, -lengths[rows[0]] :]
            for key in ("input_ids", "attention_mask", "position_ids")
        }
        found.append({**tokens, "labels": labels[:, -kept:], "logits_to_keep": kept})
    return found
