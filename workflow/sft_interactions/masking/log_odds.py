"""Masked-input inference: log-odds of the target tokens for all 2^n maskings of a prompt.

Imports torch and transformers only. Equations of arXiv 2605.17967.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import PreTrainedModel

from sft_interactions.masking.memory import BatchSize, is_out_of_memory
from sft_interactions.masking.prefix_tree import PrefixTree, peak_bytes
from sft_interactions.models.layers import transformers_model
from sft_interactions.models.positions import check_length, position_limit


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
    def n_tokens(self) -> int:
        """Number of tokens that are read: the last scored one is not."""
        return len(self.token_ids) + len(self.target_token_ids) - 1

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
        ValueError: there is no such method, or it takes no masks; a mask is of other players; the mask
            embedding has another shape; the model is in training mode and has dropout; the prompt is
            longer than the model can read; or not even the smallest batch fits in memory.
    """
    if method not in ("prefix_tree", "full_length"):
        raise ValueError(f"method {method!r} is neither prefix_tree nor full_length")
    if method == "prefix_tree" and masks is not None:
        raise ValueError(
            "method prefix_tree takes no masks; use full_length for some maskings only"
        )
    _check_masks(masks, prompt.n)
    model = transformers_model(model)
    _check_mode(model)
    check_length(prompt.n_tokens, position_limit(model.config), "the prompt")
    batch = batch or BatchSize.of_device(model.device)
    inputs = MaskedInputs(model, prompt, mask_embedding)
    order = torch.arange(2**prompt.n) if masks is None else torch.tensor(list(masks))
    values = torch.full((len(order),), torch.nan, dtype=torch.float32, device=model.device)

    # On a CPU a few rows at a time: copies of a whole batch of logits would leave every cache.
    few = 16 if model.device.type == "cpu" else 256

    def record(places: torch.Tensor, logits: torch.Tensor) -> None:
        for some, part in zip(torch.split(places, few), torch.split(logits, few), strict=True):
            scores = log_odds(part, inputs.targets.expand(len(some), -1))
            values[some] = scores.double().sum(-1).float()
        progress(len(places))

    done = 0
    while True:
        evaluation: PrefixTree | _FullLength
        if method == "full_length":
            evaluation = _FullLength(model, inputs, order.to(model.device), batch.tokens, record)
        else:
            evaluation = _prefix_tree(model, prompt, inputs, batch, record)
        try:
            evaluation.run(done)
            return np.asarray(values.cpu())
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
        # Here, since the traceback of the error keeps the tensors of the failed pass alive.
        done = evaluation.done
        batch.halve(evaluation.batch_tokens)


def _check_masks(masks: Sequence[int] | None, n: int) -> None:
    for mask in masks or ():
        if not 0 <= mask < 2**n:
            raise ValueError(f"masks has {mask}, and the prompt {n} players; give 0 to {2**n - 1}")


def _check_mode(model: nn.Module) -> None:
    """Check that no dropout is at work, which would make v random."""
    for name, module in model.named_modules():
        if module.training and _drops(module):
            raise ValueError(
                f"the model is in training mode, and has dropout ({name or type(module).__name__}); call "
                "model.eval() before"
            )


def _drops(module: nn.Module) -> bool:
    """Whether a module has dropout of its own: that is its `p`, or a number that is named after it."""
    own = vars(module)
    named = [value for name, value in own.items() if "drop" in name]
    if "Dropout" in type(module).__name__:
        named.append(own.get("p"))
    return any(isinstance(value, float) and value > 0 for value in named)


class MaskedInputs:
    """Embeddings of a prompt, and of what is read of its target, under any mask.

    Args:
        mask_embedding: (hidden,).

    Raises:
        ValueError: the mask embedding has another shape.

    Attributes:
        targets: (m,) int64, the scored tokens.
        embeddings: (L + m - 1, hidden), the scored tokens but the last included.
        owners: (L + m - 1,) int64, player of each token, -1 for background.
    """

    def __init__(
        self, model: PreTrainedModel, prompt: MaskedPrompt, mask_embedding: torch.Tensor
    ) -> None:
        self.targets = torch.tensor(list(prompt.target_token_ids), device=model.device)
        # The scored tokens but the last are read as input too (teacher forcing).
        ids = [*prompt.token_ids, *prompt.target_token_ids[:-1]]
        self.embeddings = model.get_input_embeddings()(torch.tensor(ids, device=model.device))
        background = [-1] * (len(prompt.target_token_ids) - 1)
        self.owners = torch.tensor([*prompt.player_of_token, *background], device=model.device)
        if mask_embedding.shape != self.embeddings.shape[1:]:
            raise ValueError(
                f"mask_embedding has the shape {tuple(mask_embedding.shape)}; give "
                f"{tuple(self.embeddings.shape[1:])}, as an embedding of the model has"
            )
        self.mask_embedding = mask_embedding.to(self.embeddings)

    def masked(self, masks: torch.Tensor, start: int, stop: int) -> torch.Tensor:
        """Embeddings (rows, stop - start, hidden) of the tokens start..stop under masks (rows,)."""
        owners = self.owners[start:stop]
        kept = (owners < 0) | ((masks[:, None] >> owners.clamp(min=0)) & 1).bool()
        return torch.where(kept[:, :, None], self.embeddings[None, start:stop], self.mask_embedding)


# Takes places of masks among all that are evaluated, (rows,) int64, and their logits, (rows, number of
# targets, vocabulary).
_Record = Callable[[torch.Tensor, torch.Tensor], None]


def _prefix_tree(
    model: PreTrainedModel,
    prompt: MaskedPrompt,
    inputs: MaskedInputs,
    batch: BatchSize,
    record: _Record,
) -> PrefixTree:
    """The tree of all maskings, with the largest batch that fits in memory."""
    length, n_targets = len(inputs.owners), len(inputs.targets)
    cuts = [*sorted(prompt.first_tokens), length]
    tokens = batch.fit(lambda tokens: peak_bytes(model, cuts, n_targets, tokens))
    return PrefixTree(model, inputs.masked, prompt.first_tokens, length, n_targets, tokens, record)


class _FullLength:
    """Every masked prompt forwarded whole: the reference of the prefix tree.

    Args:
        masks: (number of masks,) int64.
        batch_tokens: largest number of token positions of one forward pass, if a row fits in it.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        inputs: MaskedInputs,
        masks: torch.Tensor,
        batch_tokens: int,
        record: _Record,
    ) -> None:
        self.model, self.inputs, self.masks, self.record = model, inputs, masks, record
        self.batch_tokens = batch_tokens
        self.length = len(inputs.owners)
        self.rows = max(1, batch_tokens // self.length)
        self.done = 0

    def run(self, done: int) -> None:
        """Evaluate the masks from number ``done`` on; ``self.done`` is always up to date."""
        self.done = done
        places = torch.arange(len(self.masks), device=self.masks.device)
        for some in torch.split(places[done:], self.rows):
            output = self.model(
                inputs_embeds=self.inputs.masked(self.masks[some], 0, self.length),
                use_cache=False,
                logits_to_keep=len(self.inputs.targets),
            )
            # Some models give all positions, whatever is asked for.
            self.record(some, output.logits[:, -len(self.inputs.targets) :])
            self.done += len(some)
