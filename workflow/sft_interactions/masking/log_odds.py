"""Masked-input inference: log-odds of the target tokens for all 2^n maskings of a prompt.

Imports torch and transformers only. Equations of arXiv 2605.17967.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from sft_interactions.masking.memory import BatchSize, is_out_of_memory
from sft_interactions.masking.prefix_tree import PrefixTree, peak_bytes


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


@dataclass(frozen=True)
class MaskedPrompt:
    """One prompt with its players, ready to be masked.

    Attributes:
        token_ids: (L,) tokens of the prompt.
        player_of_token: (L,) player of each token, -1 for background; players are 0..n-1.
        target_token_ids: (m,) scored tokens; the score is the sum of their log-odds.

    Raises:
        ValueError: players are not numbered 0..n-1, or there is none, or no target.
    """

    token_ids: Sequence[int]
    player_of_token: Sequence[int]
    target_token_ids: Sequence[int]

    def __post_init__(self) -> None:
        if self.n < 1 or set(self.player_of_token) - {-1} != set(range(self.n)):
            raise ValueError("players must be numbered 0..n-1, each with at least one token")
        if len(self.player_of_token) != len(self.token_ids) or not len(self.target_token_ids):
            raise ValueError(
                "token_ids and player_of_token must be of one length, and a target given"
            )

    @property
    def n(self) -> int:
        """Number of players."""
        return max(self.player_of_token, default=-1) + 1

    @property
    def first_tokens(self) -> list[int]:
        """Place of the first token of each player."""
        owners = list(self.player_of_token)
        return [owners.index(player) for player in range(self.n)]


@torch.inference_mode()
def masked_log_odds(
    model: PreTrainedModel,
    prompt: MaskedPrompt,
    mask_embedding: torch.Tensor,
    *,
    batch: BatchSize | None = None,
    method: str = "prefix_tree",
    masks: Sequence[int] | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> NDArray[np.float32]:
    """Score v(S) of Eq. 1 for the subsets S of the players of one prompt.

    x_S keeps the words of the players in S; the embeddings of all tokens of the other players are
    replaced by ``mask_embedding``. Positions, attention and length do not change. Where memory runs out the
    batches are halved, and the evaluation goes on after the last maskings that were done.

    Args:
        mask_embedding: (hidden,) mask embedding.
        batch: size of the forward passes; by default that of the model's device.
        method: ``prefix_tree`` shares the hidden states of maskings that agree so far;
            ``full_length`` forwards every masked prompt whole and is the reference.
        masks: bit masks of the subsets, bit k for player k; by default all 2^n in order. Only for
            ``full_length``.
        progress: called with the number of maskings that have just been done.

    Returns:
        (number of masks,) float32, natural logarithm.

    Raises:
        NotBranchableError: the model cannot be evaluated as a prefix tree.
        ValueError: not even the smallest batch fits in memory.
    """
    if hasattr(model, "get_base_model"):  # a PEFT model, whose adapters are in the model's layers
        model = model.get_base_model()
    batch = batch or BatchSize.of_device(model.device)
    inputs = MaskedInputs(model, prompt, mask_embedding)
    length = len(inputs.owners)
    places = None if masks is None else torch.tensor(list(masks), device=model.device)
    values = torch.empty(
        2**prompt.n if places is None else len(places), dtype=torch.float32, device=model.device
    )

    def record(rows: torch.Tensor, logits: torch.Tensor) -> None:
        # A few rows at a time: copies of a whole batch of logits would leave every cache.
        for some, part in zip(rows.split(16), logits.split(16), strict=True):
            scores = log_odds(part, inputs.targets.expand(len(some), -1))
            values[some] = scores.double().sum(-1).float()
        progress(len(rows))

    def evaluation() -> PrefixTree | _FullLength:
        if method == "prefix_tree" and places is None:
            cuts = [*sorted(prompt.first_tokens), length]
            n_targets = len(inputs.targets)
            tokens = batch.fit(lambda tokens: peak_bytes(model, cuts, n_targets, tokens))
            return PrefixTree(
                model, inputs.masked, prompt.first_tokens, length, n_targets, tokens, record
            )
        if method == "full_length":
            order = torch.arange(len(values), device=model.device) if places is None else places
            return _FullLength(model, inputs, order, batch.tokens, record)
        raise ValueError(f"method {method!r} is none, or takes no masks")

    done = 0
    while True:
        current = evaluation()
        try:
            current.run(done)
            return values.cpu().numpy()
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
        # Here, since the traceback of the error keeps the tensors of the failed pass alive.
        done = current.done
        batch.halve(current.batch_tokens)


class MaskedInputs:
    """Embeddings of a prompt, and of what is read of its target, under any mask."""

    def __init__(
        self, model: PreTrainedModel, prompt: MaskedPrompt, mask_embedding: torch.Tensor
    ) -> None:
        self.targets = torch.tensor(list(prompt.target_token_ids), device=model.device)
        # The scored tokens but the last are read as input too (teacher forcing).
        ids = [*prompt.token_ids, *prompt.target_token_ids[:-1]]
        self.embeddings = model.get_input_embeddings()(torch.tensor(ids, device=model.device))
        background = [-1] * (len(prompt.target_token_ids) - 1)
        self.owners = torch.tensor([*prompt.player_of_token, *background], device=model.device)
        self.mask_embedding = mask_embedding.to(self.embeddings)

    def masked(self, masks: torch.Tensor, start: int, stop: int) -> torch.Tensor:
        """Embeddings (rows, stop - start, hidden) of the tokens start..stop under each mask."""
        owners = self.owners[start:stop]
        kept = (owners < 0) | ((masks[:, None] >> owners.clamp(min=0)) & 1).bool()
        return torch.where(kept[:, :, None], self.embeddings[None, start:stop], self.mask_embedding)


class _FullLength:
    """Every masked prompt forwarded whole: the reference of the prefix tree."""

    def __init__(self, model, inputs: MaskedInputs, masks, batch_tokens: int, record) -> None:
        self.model, self.inputs, self.masks, self.record = model, inputs, masks, record
        self.batch_tokens = batch_tokens
        self.rows = max(1, batch_tokens // len(inputs.owners))
        self.done = 0

    def run(self, done: int) -> None:
        self.done = done
        for numbers in torch.arange(done, len(self.masks), device=self.masks.device).split(
            self.rows
        ):
            output = self.model(
                inputs_embeds=self.inputs.masked(self.masks[numbers], 0, len(self.inputs.owners)),
                use_cache=False,
                logits_to_keep=len(self.inputs.targets),
            )
            self.record(numbers, output.logits)
            self.done += len(numbers)
