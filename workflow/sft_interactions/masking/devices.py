"""The device of a model job, and what the last digits of its results depend on."""

import torch

from sft_interactions.masking.gpus import claim_gpu


def pick_device(setting: str) -> torch.device:
    """Device of the config value; ``auto`` is the GPU where there is one.

    Of several GPUs it is one that no other job of this machine has; see
    :func:`~sft_interactions.masking.gpus.claim_gpu`.

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
