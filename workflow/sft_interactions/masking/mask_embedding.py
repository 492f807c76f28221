"""Mask embeddings: what replaces the embedding of every token of a masked word.

Imports torch and transformers only.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import PreTrainedModel

from sft_interactions.masking.log_odds import MaskedInputs, MaskedPrompt, log_odds
from sft_interactions.models.layers import input_embeddings


def make_mask_embedding(
    model: PreTrainedModel,
    name: str,
    token_id: int | None = None,
    vector: Sequence[float] | None = None,
) -> torch.Tensor:
    """Embedding (hidden,) that replaces the embedding of every token of a masked word.

    It comes out of the embedding layer itself, so that a model that scales its embeddings there
    (Gemma) scales this one too.

    Args:
        name: ``token``, ``mean`` (over the vocabulary), ``zero`` or ``learned``.
        token_id: for ``token``, the token whose embedding is taken.
        vector: for ``learned``, (hidden,) numbers as :func:`learn_mask_embedding` gives them.

    Returns:
        (hidden,) in the dtype and on the device of the model's weights.

    Raises:
        ValueError: the name is another, or what it needs is not given, or the token has no embedding.
    """
    rows = input_embeddings(model).weight.shape[0]
    if token_id is not None and token_id >= rows:
        raise ValueError(
            f"the mask token has the id {token_id}, but the model has {rows} embeddings; set the model's "
            "mask_token to another one"
        )
    if name == "learned" and vector is not None:
        return torch.tensor(vector, device=model.device, dtype=model.dtype)
    with torch.inference_mode():
        if name == "token" and token_id is not None:
            return _embed(model, torch.tensor([token_id]))[0]
        if name == "zero":
            return torch.zeros_like(_embed(model, torch.tensor([0]))[0])
        if name == "mean":
            # In parts: a vocabulary's embeddings at once would take as much memory again as their layer.
            layer: Any = model.get_input_embeddings()
            ids = torch.arange(layer.num_embeddings)
            parts = torch.split(ids, 8192)
            sums = torch.stack([_embed(model, part).mean(0) * len(part) for part in parts])
            return sums.sum(0) / len(ids)
    raise ValueError(
        f"mask embedding {name!r} is none of token (with a token id), mean, zero, learned (with a "
        "vector)"
    )


def _embed(model: PreTrainedModel, token_ids: torch.Tensor) -> torch.Tensor:
    embeddings: torch.Tensor = model.get_input_embeddings()(token_ids.to(model.device))
    return embeddings


def learn_mask_embedding(
    model: PreTrainedModel,
    prompts: Sequence[MaskedPrompt],
    initial: torch.Tensor,
    *,
    steps: int,
    learning_rate: float,
    batch_size: int,
    seed: int,
    progress: Callable[[float], None] = lambda _: None,
) -> torch.Tensor:
    """Minimise the mean of |v(S1 ∪ S2 ∪ S3) - v(S1 ∪ S3) - v(S2 ∪ S3) + v(S3)| over the mask embedding.

    S1, S2 and S3 are disjoint random sets of players, the first two not empty: with a mask embedding that
    stands for nothing, what two sets of words do together is least.

    Args:
        initial: (hidden,) embedding to start from.
        steps: steps of Adam.
        learning_rate: relative to the root mean square of ``initial``.
        batch_size: prompts of one step, drawn at random, each with sets of its own.
        progress: called with the mean of each step, in log-odds.

    Returns:
        (hidden,) float32.
    """
    model.requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    mask_embedding = initial.detach().clone().requires_grad_()
    scale = float(initial.square().mean().sqrt()) or 1.0
    optimizer = torch.optim.Adam([mask_embedding], lr=learning_rate * scale)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        chosen = torch.randint(len(prompts), (batch_size,), generator=generator).tolist()
        total = 0.0
        optimizer.zero_grad()
        for number in chosen:
            masks = random_masks(prompts[number].n, generator)
            loss = joint_effect(model, prompts[number], mask_embedding, masks) / batch_size
            torch.autograd.backward(loss)
            total += loss.item()
        optimizer.step()
        schedule.step()
        progress(total)
    return mask_embedding.detach()


def random_masks(n: int, generator: torch.Generator) -> torch.Tensor:
    """Bit masks of S1 ∪ S2 ∪ S3, S1 ∪ S3, S2 ∪ S3 and S3, as (4,) int64, for n >= 2 players."""
    order = torch.randperm(n, generator=generator).tolist()
    group = torch.randint(4, (n,), generator=generator).tolist()
    group[order[0]], group[order[1]] = 0, 1
    first, second, third = (
        sum(1 << player for player in range(n) if group[player] == number) for number in range(3)
    )
    return torch.tensor([first | second | third, first | third, second | third, third])


def joint_effect(
    model: PreTrainedModel, prompt: MaskedPrompt, mask_embedding: torch.Tensor, masks: torch.Tensor
) -> torch.Tensor:
    """|v(a) - v(b) - v(c) + v(d)| of bit masks a, b, c, d, differentiable in the mask embedding.

    Args:
        mask_embedding: (hidden,).
        masks: (4,) int64.

    Returns:
        () float32, natural logarithm.
    """
    inputs = MaskedInputs(model, prompt, mask_embedding)
    output = model(
        inputs_embeds=inputs.masked(masks.to(model.device), 0, len(inputs.owners)),
        use_cache=False,
        logits_to_keep=len(inputs.targets),
    )
    scores = log_odds(output.logits, inputs.targets.expand(len(masks), -1)).sum(-1)
    return (scores[0] - scores[1] - scores[2] + scores[3]).abs()
