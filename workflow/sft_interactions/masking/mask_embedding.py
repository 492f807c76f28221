"""Mask embeddings: what replaces the embedding of every token of a masked word."""

from collections.abc import Callable, Sequence

import torch
from transformers import PreTrainedModel

from sft_interactions.masking.log_odds import MaskedInputs, MaskedPrompt, log_odds


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
        name: ``token`` (of ``token_id``), ``mean`` (over the vocabulary), ``zero``, or ``learned``
            (``vector``, as :func:`~sft_interactions.masking.mask_embedding.learn_mask_embedding` gives it).
    """
    layer = model.get_input_embeddings()
    if name == "learned":
        return torch.tensor(vector, device=model.device, dtype=model.dtype)
    with torch.inference_mode():
        if name == "token":
            return layer(torch.tensor([token_id], device=model.device))[0]
        if name == "zero":
            return torch.zeros_like(layer(torch.tensor([0], device=model.device))[0])
        ids = torch.arange(layer.num_embeddings, device=model.device)
        return torch.stack([layer(part).mean(0) * len(part) for part in ids.split(8192)]).sum(
            0
        ) / len(ids)


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
    """Minimise the mean of |v(S1 ∪ S2 ∪ S3) - v(S1 ∪ S3) - v(S2 ∪ S3) + v(S3)| over the mask_embedding.

    S1, S2 and S3 are disjoint random sets of players, the first two not empty: with a mask_embedding that
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
            loss = together(model, prompts[number], mask_embedding, masks) / batch_size
            loss.backward()
            total += loss.item()
        optimizer.step()
        schedule.step()
        progress(total)
    return mask_embedding.detach()


def random_masks(n: int, generator: torch.Generator) -> torch.Tensor:
    """Bit masks (4,) of S1 ∪ S2 ∪ S3, S1 ∪ S3, S2 ∪ S3 and S3, for n >= 2 players."""
    order = torch.randperm(n, generator=generator).tolist()
    group = torch.randint(4, (n,), generator=generator).tolist()
    group[order[0]], group[order[1]] = 0, 1
    first, second, third = (
        sum(1 << player for player in range(n) if group[player] == number) for number in range(3)
    )
    return torch.tensor([first | second | third, first | third, second | third, third])


def together(
    model: PreTrainedModel, prompt: MaskedPrompt, mask_embedding: torch.Tensor, masks: torch.Tensor
) -> torch.Tensor:
    """|v(a) - v(b) - v(c) + v(d)| of four bit masks (4,), differentiable in the mask_embedding."""
    inputs = MaskedInputs(model, prompt, mask_embedding)
    output = model(
        inputs_embeds=inputs.masked(masks.to(model.device), 0, len(inputs.owners)),
        use_cache=False,
        logits_to_keep=len(inputs.targets),
    )
    scores = log_odds(output.logits, inputs.targets.expand(len(masks), -1)).sum(-1)
    return (scores[0] - scores[1] - scores[2] + scores[3]).abs()
