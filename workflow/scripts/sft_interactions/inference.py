"""Masked-input inference: log-odds of the target tokens for all 2^n maskings of a prompt.

Imports torch and transformers only. Equations of arXiv 2605.17967.
"""

import copy
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM, PreTrainedModel

from sft_interactions.gpus import claim_gpu
from sft_interactions.memory import BatchSize, is_out_of_memory
from sft_interactions.packed_linear import pack_linear_layers
from sft_interactions.prefix_tree import NotBranchableError, PrefixTree, can_branch, peak_bytes

# Maskings of one prompt whose error is measured, evenly spread, the empty and the full one included.
ERROR_MASKINGS = 8


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
    allow_tf32(False)


def allow_tf32(allowed: bool) -> None:
    """Whether a GPU may round the factors of float32 products to 10 bits."""
    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed


def multiply_head_once(model: PreTrainedModel) -> None:
    """Make the output head see contiguous float32 hidden states.

    The slice of positions that ``logits_to_keep`` leaves is not contiguous, and torch multiplies it row
    by row, reading the vocabulary's matrix anew each time: ten times slower on CPU for Gemma-3-270M.
    """
    model.get_output_embeddings().register_forward_pre_hook(
        lambda _, inputs: (inputs[0].contiguous().float(),)
    )


def load_base(folder: str | Path) -> PreTrainedModel:
    """Load the float32 weights of a folder that transformers can load."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def load_checkpoint(
    model_dir: str | Path,
    checkpoint_dir: str | Path | None,
    device: torch.device,
    *,
    base: Callable[[], PreTrainedModel] | None = None,
) -> PreTrainedModel:
    """Load a model in float32 with the weights of a checkpoint, ready for inference.

    Args:
        checkpoint_dir: folder of a PEFT adapter, which is merged, or of full weights; None for the
            model itself.
        base: gives the model of ``model_dir``, if it is loaded already; it is copied, not changed.

    Raises:
        ValueError: the folder holds neither.
    """
    is_adapter = (
        checkpoint_dir is not None and (Path(checkpoint_dir) / "adapter_config.json").is_file()
    )
    if checkpoint_dir is None or is_adapter:
        # A copy even for the next adapter: what merging adds does not come off without rounding.
        model = load_base(model_dir) if base is None else copy.deepcopy(base())
    elif (Path(checkpoint_dir) / "config.json").is_file():
        model = load_base(checkpoint_dir)
    else:
        raise ValueError(
            f"{checkpoint_dir}: neither adapter_config.json (PEFT adapter) nor config.json (full "
            "weights) is there; name a checkpoint folder"
        )
    if is_adapter:
        from peft import PeftModel  # its import takes seconds and base models do without it

        model = PeftModel.from_pretrained(model, checkpoint_dir).merge_and_unload()
    multiply_head_once(model)
    return model.to(device).eval()


def in_dtype(model: PreTrainedModel, dtype: str) -> PreTrainedModel:
    """A model of :func:`load_checkpoint` with its weights in ``dtype``, but for the output head.

    The head stays float32, and so do the logits. ``float32`` and ``tf32`` return the model itself.
    """
    if dtype in ("float32", "tf32"):
        return model
    head = copy.deepcopy(model.get_output_embeddings())
    model = copy.deepcopy(model).to(getattr(torch, dtype))
    model.set_output_embeddings(head)
    return model


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
    model: PreTrainedModel,
    kind: str,
    token_id: int | None = None,
    vector: Sequence[float] | None = None,
) -> torch.Tensor:
    """Embedding (hidden,) that replaces the embedding of every token of a masked word.

    It comes out of the embedding layer itself, so that a model that scales its embeddings there
    (Gemma) scales this one too.

    Args:
        kind: ``token`` (of ``token_id``), ``mean`` (over the vocabulary), ``zero``, or ``learned``
            (``vector``, as :func:`~sft_interactions.baseline.learn_baseline` gives it).
    """
    layer = model.get_input_embeddings()
    if kind == "learned":
        return torch.tensor(vector, device=model.device, dtype=model.dtype)
    with torch.inference_mode():
        if kind == "token":
            return layer(torch.tensor([token_id], device=model.device))[0]
        if kind == "zero":
            return torch.zeros_like(layer(torch.tensor([0], device=model.device))[0])
        ids = torch.arange(layer.num_embeddings, device=model.device)
        return torch.stack([layer(part).mean(0) * len(part) for part in ids.split(8192)]).sum(
            0
        ) / len(ids)


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
    baseline: torch.Tensor,
    *,
    batch: BatchSize | None = None,
    method: str = "prefix_tree",
    masks: Sequence[int] | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> NDArray[np.float32]:
    """Output score v(S) of Eq. 1 for the subsets S of the players of one prompt.

    x_S keeps the words of the players in S; the embeddings of all tokens of the other players are
    replaced by ``baseline``. Positions, attention and length do not change. Where memory runs out the
    batches are halved, and the evaluation goes on after the last maskings that were done.

    Args:
        baseline: (hidden,) masking baseline embedding.
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
    inputs = MaskedInputs(model, prompt, baseline)
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
        self, model: PreTrainedModel, prompt: MaskedPrompt, baseline: torch.Tensor
    ) -> None:
        self.targets = torch.tensor(list(prompt.target_token_ids), device=model.device)
        # The scored tokens but the last are read as input too (teacher forcing).
        ids = [*prompt.token_ids, *prompt.target_token_ids[:-1]]
        self.embeddings = model.get_input_embeddings()(torch.tensor(ids, device=model.device))
        background = [-1] * (len(prompt.target_token_ids) - 1)
        self.owners = torch.tensor([*prompt.player_of_token, *background], device=model.device)
        self.baseline = baseline.to(self.embeddings)

    def masked(self, masks: torch.Tensor, start: int, stop: int) -> torch.Tensor:
        """Embeddings (rows, stop - start, hidden) of the tokens start..stop under each mask."""
        owners = self.owners[start:stop]
        kept = (owners < 0) | ((masks[:, None] >> owners.clamp(min=0)) & 1).bool()
        return torch.where(kept[:, :, None], self.embeddings[None, start:stop], self.baseline)


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


class PrecisionError(ValueError):
    """The log-odds of a checkpoint are further from the float32 reference than allowed."""


class Checkpoint:
    """A checkpoint ready to evaluate masked prompts, in the precision that the config asks for.

    Args:
        model: model of :func:`load_checkpoint` on the CPU; it is used up.
        device: where to evaluate.
        settings: ``inference`` of the config.
        baseline: arguments of :func:`masking_baseline`.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        device: torch.device,
        settings: Mapping[str, Any],
        baseline: Mapping[str, Any],
    ) -> None:
        self.settings = settings
        self.method = "full_length" if settings["method"] == "full_length" else "prefix_tree"
        self.model = in_dtype(model, settings["dtype"])
        # The reference of a half-precision model stays on the CPU: both may not fit on a GPU.
        self.reference = self.model if self.model is model else model
        self.model = self.model.to(device)
        if can_branch(self.reference):
            # Models with other layers than attention may read the weights of a layer directly.
            pack_linear_layers(self.reference)
        self.baselines = {m: masking_baseline(m, **baseline) for m in (self.model, self.reference)}
        self.batch = BatchSize.of_device(device, settings["batch_tokens"], settings["memory_gb"])

    def log_odds(
        self, prompt: MaskedPrompt, progress: Callable[[int], None] = lambda _: None
    ) -> NDArray[np.float32]:
        """All log-odds of a prompt, as :func:`masked_log_odds` gives them.

        Raises:
            NotBranchableError: the model cannot be evaluated as a prefix tree, and the config does not
                allow whole prompts instead.
        """
        allow_tf32(self.settings["dtype"] == "tf32")
        arguments = {"batch": self.batch, "progress": progress}
        try:
            return masked_log_odds(
                self.model, prompt, self.baselines[self.model], method=self.method, **arguments
            )
        except NotBranchableError as error:
            if self.settings["method"] != "auto":
                raise NotBranchableError(
                    f"{error}; set inference.method to auto to forward every masked prompt whole"
                ) from error
            logging.getLogger(__name__).warning("%s; forwarding every masked prompt whole", error)
            self.method = "full_length"
            return self.log_odds(prompt, progress)
        finally:
            allow_tf32(False)

    def error(self, prompt: MaskedPrompt, values: NDArray[np.float32]) -> dict[str, str]:
        """Compare some log-odds of a prompt with whole prompts in float32.

        Args:
            values: (2^n,) log-odds of the prompt.

        Returns:
            For the metadata of outputs: ``log_odds_error_max`` and ``log_odds_error_rms``, in
            log-odds, over ``error_maskings`` maskings.

        Raises:
            PrecisionError: the largest error exceeds ``inference.max_error``.
        """
        masks = np.unique(np.linspace(0, len(values) - 1, ERROR_MASKINGS).astype(int))
        reference = masked_log_odds(
            self.reference,
            prompt,
            self.baselines[self.reference],
            batch=self.batch,
            method="full_length",
            masks=masks.tolist(),
        )
        errors = np.abs(values[masks].astype(np.float64) - reference)
        if not errors.max() <= self.settings["max_error"]:
            raise PrecisionError(
                f"log-odds in {self.settings['dtype']} ({self.method}) differ by up to "
                f"{errors.max():.3g} from whole prompts in float32, more than inference.max_error = "
                f"{self.settings['max_error']:g}; "
                + (
                    "set inference.method to full_length, since this model's attention does not "
                    "branch"
                    if self.settings["dtype"] == "float32"
                    else "set inference.dtype to float32, or raise max_error and read the churn floor"
                )
            )
        return {
            "log_odds_error_max": f"{errors.max():.6g}",
            "log_odds_error_rms": f"{np.sqrt(np.mean(errors**2)):.6g}",
            "error_maskings": str(len(masks)),
        }
