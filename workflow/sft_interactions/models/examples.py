"""Examples of a prompt and its response, and batches of them.

Imports torch only.
"""

from collections.abc import Sequence
from typing import Any

import torch

IGNORED = -100  # the label that torch's cross-entropy leaves out

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
