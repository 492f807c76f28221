"""Loss of every single response under a model.

Imports torch only.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from sft_interactions.models.examples import IGNORED, Example, ResponseCollator


@torch.no_grad()
def response_losses(
    model: nn.Module,
    examples: Sequence[Example],
    *,
    pad_id: int,
    batch_size: int = 8,
    progress: Callable[[int], None] = lambda _: None,
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Cross-entropy of each response given its prompt, summed over its tokens, in nats.

    A mean over tokens of several responses is the sum of their losses over the sum of their tokens; it
    does not depend on how they are divided into batches.

    Args:
        model: a causal LM that is in evaluation mode.
        examples: prompts and responses; those of similar length share a batch.
        pad_id: token that fills a batch on the left; it is masked.
        progress: called with the number of examples that have just been done.

    Returns:
        (examples,) float64 losses in nats, and (examples,) int64 numbers of response tokens.
    """
    device = next(model.parameters()).device
    collate = ResponseCollator(pad_id)
    lengths = [len(e["prompt_ids"]) + len(e["response_ids"]) for e in examples]
    order = np.argsort(lengths, kind="stable")
    losses = np.zeros(len(examples))
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        batch = collate([examples[i] for i in chosen])
        labels = batch.pop("labels")[:, 1:].to(device)
        inputs = {
            key: value.to(device) if isinstance(value, torch.Tensor) else value
            for key, value in batch.items()
        }
        logits = model(**inputs, use_cache=False).logits[:, :-1].float()
        scored = labels != IGNORED
        tokens = torch.where(scored, labels, 0).unsqueeze(-1)
        log_probabilities = logits.log_softmax(-1).gather(-1, tokens).squeeze(-1).double()
        losses[chosen] = -(log_probabilities * scored).sum(1).cpu().numpy()
        progress(len(chosen))
    return losses, np.array([len(e["response_ids"]) for e in examples], dtype=np.int64)


def mean_response_loss(
    model: nn.Module, examples: Sequence[Example], *, pad_id: int, batch_size: int = 8
) -> float:
    """Cross-entropy per response token over all examples, in nats; dropout is off meanwhile.

    Args:
        model: a causal LM; its mode, training or evaluation, is left as it was.
        examples: prompts and responses.
        pad_id: token that fills a batch on the left.
        batch_size: examples a forward pass; the result does not depend on it, but for rounding.
    """
    training = model.training
    model.train(False)
    losses, n_tokens = response_losses(model, examples, pad_id=pad_id, batch_size=batch_size)
    model.train(training)
    return float(losses.sum() / n_tokens.sum())
