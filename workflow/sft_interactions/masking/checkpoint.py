"""A checkpoint that evaluates masked prompts in a chosen precision, and the error it makes."""

import logging
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from sft_interactions.masking.devices import allow_tf32
from sft_interactions.masking.log_odds import MaskedPrompt, masked_log_odds
from sft_interactions.masking.mask_embedding import make_mask_embedding
from sft_interactions.masking.memory import BatchSize
from sft_interactions.masking.prefix_tree import NotBranchableError, can_branch
from sft_interactions.models.loading import in_dtype, to_device
from sft_interactions.models.packed_linear import pack_linear_layers

# Maskings of one prompt whose error is measured, evenly spread, the empty and the full one included.
ERROR_MASKINGS = 8


class PrecisionError(ValueError):
    """The log-odds of a checkpoint are further from the float32 reference than allowed."""


@torch.inference_mode()
def check_mask_embedding(model: PreTrainedModel, vector: torch.Tensor, name: str) -> None:
    """Check that a model reads a mask embedding.

    Args:
        vector: (hidden,) the mask embedding.
        name: its name in the config.

    Raises:
        ValueError: the model cannot evaluate it, as one that looks up the token of every embedding.
    """
    try:
        model(inputs_embeds=vector.expand(1, 2, -1), use_cache=False)
    except Exception as error:  # what fails depends on the architecture
        first = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"inference.mask_embedding: {type(model).__name__} cannot read the embedding {name} "
            f"({first}); set it to token"
        ) from error


class Checkpoint:
    """A checkpoint ready to evaluate masked prompts, in the precision that the config asks for.

    Args:
        model: model of :func:`~sft_interactions.models.loading.load_checkpoint` on the CPU; it is used up.
        device: where to evaluate.
        settings: ``inference`` of the config.
        mask_embedding: arguments of :func:`~sft_interactions.masking.mask_embedding.make_mask_embedding`
            beside the model.

    Attributes:
        method: ``prefix_tree`` or ``full_length``, as ``inference.method`` asks for or falls back to.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        device: torch.device,
        settings: Mapping[str, Any],
        mask_embedding: Mapping[str, Any],
    ) -> None:
        self.settings = settings
        self.method = "full_length" if settings["method"] == "full_length" else "prefix_tree"
        # The reference of a half-precision model stays on the CPU: both may not fit on a GPU.
        self.reference = model
        self.model = to_device(in_dtype(model, settings["dtype"]), device)
        if can_branch(self.reference):
            # Models with other layers than attention may read the weights of a layer directly.
            pack_linear_layers(self.reference)
        self.mask_embedding = make_mask_embedding(self.model, **mask_embedding)
        self.reference_mask_embedding = make_mask_embedding(self.reference, **mask_embedding)
        check_mask_embedding(self.model, self.mask_embedding, mask_embedding["name"])
        self.batch = BatchSize.of_device(device, settings["batch_tokens"], settings["memory_gb"])

    def log_odds(
        self, prompt: MaskedPrompt, progress: Callable[[int], None] = lambda _: None
    ) -> NDArray[np.float32]:
        """Log-odds of all maskings of a prompt.

        Returns:
            (2^n,) float32 by mask, natural logarithm.

        Raises:
            NotBranchableError: the model cannot be evaluated as a prefix tree, and the config does not
                allow whole prompts instead.
        """
        allow_tf32(self.settings["dtype"] == "tf32")
        try:
            return masked_log_odds(
                self.model,
                prompt,
                self.mask_embedding,
                batch=self.batch,
                method=self.method,
                progress=progress,
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
            values: (2^n,) float32, log-odds of the prompt by mask.

        Returns:
            For the metadata of the table of log-odds: ``log_odds_error_max`` and ``log_odds_error_rms``, in
            log-odds, over ``error_maskings`` maskings.

        Raises:
            PrecisionError: the largest error exceeds ``inference.max_error``.
        """
        masks = np.unique(np.linspace(0, len(values) - 1, ERROR_MASKINGS).astype(int))
        reference = masked_log_odds(
            self.reference,
            prompt,
            self.reference_mask_embedding,
            batch=self.batch,
            method="full_length",
            masks=masks.tolist(),
        )
        errors = np.abs(values[masks].astype(np.float64) - reference)
        if not errors.max() <= self.settings["max_error"]:
            if self.settings["dtype"] == "float32":
                fix = "set inference.method to full_length, since this model's attention does not branch"
            else:
                fix = "set inference.dtype to float32, or raise max_error and read the churn floor"
            raise PrecisionError(
                f"log-odds in {self.settings['dtype']} ({self.method}) differ by up to "
                f"{errors.max():.3g} from whole prompts in float32, more than inference.max_error = "
                f"{self.settings['max_error']:g}; {fix}"
            )
        return {
            "log_odds_error_max": f"{errors.max():.6g}",
            "log_odds_error_rms": f"{np.sqrt(np.mean(errors**2)):.6g}",
            "error_maskings": str(len(masks)),
        }
