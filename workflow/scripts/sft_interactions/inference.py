"""Masked-input inference: log-odds of the target tokens for all 2^n maskings of a prompt.

Imports torch and transformers only. Equations of arXiv 2605.17967.
"""

import copy
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM, DynamicCache, PreTrainedModel

from sft_interactions.gpus import claim_gpu


def pick_device(setting: str) -> torch.device:
    """Device of the config value; ``auto`` is the GPU where there is one.

    Of several GPUs it is one that no other job of this machine has (see :mod:`sft_interactions.gpus`).

    Raises:
        ValueError: the named device is not there, or every GPU is taken.
    """
    if setting in ("auto", "cuda"):
        claim_gpu()
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if setting == "auto":
        return torch.device("cuda" if available["cuda"] else "cpu")
    if not available[setting]:
        raise ValueError(
            f"compute.device is {setting}, but torch finds none; set it to auto or cpu"
        )
    return torch.device(setting)


def use_reproducible_float32(threads: int) -> None:
    """Fix what the last digits depend on: the number of CPU threads and the matrix product's format."""
    torch.set_num_threads(threads)
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


def multiply_head_once(model: PreTrainedModel) -> None:
    """Make the output head see contiguous hidden states.

    The slice of positions that ``logits_to_keep`` leaves is not contiguous, and torch multiplies it row
    by row, reading the vocabulary's matrix anew each time: ten times slower on CPU for Gemma-3-270M.
    """
    model.get_output_embeddings().register_forward_pre_hook(
        lambda _, inputs: (inputs[0].contiguous(),)
    )


def load_checkpoint(
    model_dir: str | Path, checkpoint_dir: str | Path | None, device: torch.device
) -> PreTrainedModel:
    """Load a model in float32 with the weights of a checkpoint, ready for inference.

    Args:
        checkpoint_dir: folder of a PEFT adapter, which is merged, or of full weights; None for the
            model itself.

    Raises:
        ValueError: the folder holds neither.
    """
    if checkpoint_dir is None or (Path(checkpoint_dir) / "adapter_config.json").is_file():
        weights = model_dir
    elif (Path(checkpoint_dir) / "config.json").is_file():
        weights = checkpoint_dir
    else:
        raise ValueError(
            f"{checkpoint_dir}: neither adapter_config.json (PEFT adapter) nor config.json (full "
            "weights) is there; name a checkpoint folder"
        )
    model = AutoModelForCausalLM.from_pretrained(weights, dtype=torch.float32)
    if weights is model_dir and checkpoint_dir is not None:
        from peft import PeftModel  # its import takes seconds and base models do without it

        model = PeftModel.from_pretrained(model, checkpoint_dir).merge_and_unload()
    multiply_head_once(model)
    return model.to(device).eval()


def log_odds(logits: torch.Tensor, token_ids: torch.Tensor) -> torch.Tensor:
    """Log-odds of tokens, log(p / (1 - p)), as in Eq. 1.

    Computed as the token's logit less the log-sum-exp of all other logits. Through p it would lose
    every digit where 1 - p is below the resolution of float32.

    Args:
        logits: (..., vocabulary), any floating dtype; the result is float32 or better.
        token_ids: (...), int64.

    Returns:
        (...) float32 (float64 for float64 logits), natural logarithm.
    """
    logits = logits if logits.dtype == torch.float64 else logits.float()
    index = token_ids.unsqueeze(-1)
    own = logits.gather(-1, index).squeeze(-1)
    others = logits.scatter(-1, index, float("-inf"))
    return own - torch.logsumexp(others, dim=-1)


def masking_baseline(
    model: PreTrainedModel, kind: str, token_id: int | None = None
) -> torch.Tensor:
    """Embedding (hidden,) that replaces the embedding of every token of a masked word.

    It comes out of the embedding layer itself, so that a model that scales its embeddings there
    (Gemma) scales this one too.

    Args:
        kind: ``token`` (of ``token_id``), ``mean`` (over the vocabulary) or ``zero``.
    """
    layer = model.get_input_embeddings()
    with torch.inference_mode():
        if kind == "token":
            return layer(torch.tensor([token_id], device=model.device))[0]
        if kind == "zero":
            return torch.zeros_like(layer(torch.tensor([0], device=model.device))[0])
        ids = torch.arange(layer.num_embeddings, device=model.device)
        return torch.stack([layer(part).mean(0) * len(part) for part in ids.split(8192)]).sum(
            0
        ) / len(ids)


@torch.inference_mode()
def masked_log_odds(
    model: PreTrainedModel,
    token_ids: Sequence[int],
    player_of_token: Sequence[int],
    target_token_ids: Sequence[int],
    baseline: torch.Tensor,
    *,
    max_rows: int = 256,
    method: str = "prefix_tree",
) -> NDArray[np.float32]:
    """Output score v(S) of Eq. 1 for every subset S of the players of one prompt.

    x_S keeps the words of the players in S; the embeddings of all tokens of the other players are
    replaced by ``baseline``. Positions, attention and length do not change.

    Args:
        token_ids: (L,) tokens of the prompt.
        player_of_token: (L,) player of each token, -1 for background; players are 0..n-1.
        target_token_ids: (m,) scored tokens; the score is the sum of their log-odds.
        baseline: (hidden,) masking baseline embedding.
        max_rows: largest number of masked prompts in one forward pass.
        method: ``prefix_tree`` shares the hidden states of maskings that agree so far;
            ``full_length`` forwards every masked prompt whole and is the reference.

    Returns:
        (2^n,) float32; index is the bit mask of S, bit k for player k.

    Raises:
        ValueError: players are not numbered 0..n-1, or there is none, or no target.
    """
    owners = torch.tensor(list(player_of_token), device=model.device)
    n = int(owners.max()) + 1 if len(owners) else 0
    if n < 1 or set(owners.tolist()) - {-1} != set(range(n)):
        raise ValueError("players must be numbered 0..n-1, each with at least one token")
    if len(owners) != len(token_ids) or not len(target_token_ids):
        raise ValueError("token_ids and player_of_token must be of one length, and a target given")
    targets = torch.tensor(list(target_token_ids), device=model.device)
    embed = model.get_input_embeddings()
    # The scored tokens but the last are read as input too (teacher forcing).
    ids = torch.cat([torch.tensor(list(token_ids), device=model.device), targets[:-1]])
    prompt = _Prompt(
        embeddings=embed(ids),
        owners=torch.cat([owners, owners.new_full((len(targets) - 1,), -1)]),
        targets=targets,
        baseline=baseline.to(model.device),
        n=n,
    )
    evaluate = {"prefix_tree": _prefix_tree, "full_length": _full_length}[method]
    values = torch.empty(2**n, dtype=torch.float32, device=model.device)

    def record(masks: torch.Tensor, logits: torch.Tensor) -> None:
        # A few rows at a time: copies of a whole batch of logits would leave every cache.
        for rows, part in zip(masks.split(16), logits.split(16), strict=True):
            scores = log_odds(part, prompt.targets.expand(len(rows), -1))
            values[rows] = scores.double().sum(-1).float()

    evaluate(model, prompt, max_rows, record)
    return values.cpu().numpy()


class _Prompt:
    def __init__(self, embeddings, owners, targets, baseline, n) -> None:
        self.embeddings = embeddings
        self.owners = owners
        self.targets = targets
        self.baseline = baseline
        self.n = n

    def masked(self, masks: torch.Tensor, start: int, stop: int) -> torch.Tensor:
        """Embeddings (rows, stop - start, hidden) of the tokens start..stop under each mask."""
        owners = self.owners[start:stop]
        kept = (owners < 0) | ((masks[:, None] >> owners.clamp(min=0)) & 1).bool()
        return torch.where(kept[:, :, None], self.embeddings[None, start:stop], self.baseline)


Record = Callable[[torch.Tensor, torch.Tensor], None]


def _full_length(model, prompt: _Prompt, max_rows: int, record: Record) -> None:
    length = len(prompt.owners)
    for masks in torch.arange(2**prompt.n, device=model.device).split(max_rows):
        output = model(
            inputs_embeds=prompt.masked(masks, 0, length),
            use_cache=False,
            logits_to_keep=len(prompt.targets),
        )
        record(masks, output.logits)


def _prefix_tree(model, prompt: _Prompt, max_rows: int, record: Record) -> None:
    """Evaluate all maskings, forwarding every shared prefix once.

    The prompt is cut at the first token of each player. At a cut the live rows double (player kept
    or masked); where they would exceed ``max_rows``, halves are finished one after the other.
    """
    length = len(prompt.owners)
    first = [int((prompt.owners == k).nonzero()[0]) for k in range(prompt.n)]
    order = sorted(range(prompt.n), key=first.__getitem__)
    cuts = [first[k] for k in order] + [length]

    def forward(masks: torch.Tensor, start: int, stop: int, cache: DynamicCache) -> None:
        inputs = {
            "inputs_embeds": prompt.masked(masks, start, stop),
            "past_key_values": cache,
            "use_cache": True,
        }
        if stop == length:
            record(masks, model(**inputs, logits_to_keep=len(prompt.targets)).logits)
        else:
            # Without the head: logits of a large vocabulary would cost more than the segment.
            model.base_model(**inputs)

    def descend(masks: torch.Tensor, depth: int, cache: DynamicCache) -> None:
        if depth == prompt.n:
            return
        if 2 * len(masks) > max_rows and len(masks) > 1:
            half = len(masks) // 2
            rows = torch.arange(len(masks), device=masks.device)
            other = copy.deepcopy(cache)
            other.batch_select_indices(rows[half:])
            cache.batch_select_indices(rows[:half])
            descend(masks[:half], depth, cache)
            descend(masks[half:], depth, other)
            return
        bit = 1 << order[depth]
        if cache.get_seq_length():
            cache.batch_repeat_interleave(2)
        masks = torch.stack([masks, masks | bit], dim=1).flatten()
        forward(masks, cuts[depth], cuts[depth + 1], cache)
        descend(masks, depth + 1, cache)

    root = torch.zeros(1, dtype=torch.int64, device=model.device)
    cache = DynamicCache(config=model.config)
    if cuts[0] > 0:
        forward(root, 0, cuts[0], cache)
    descend(root, 0, cache)
