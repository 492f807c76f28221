"""Sizes of forward passes that fit in the memory of a device."""

import gc
import logging
from collections.abc import Callable

import torch

# Fewest token positions of a forward pass that batches are halved to.
SMALLEST_BATCH = 8
# A CPU's memory is shared with other jobs, so what is free at one moment says little.
CPU_MEMORY = 4 * 2**30
GPU_SHARE = 0.8


class BatchSize:
    """Token positions of one forward pass, halved where memory does not suffice.

    Sums of floats depend on the shapes of the products, so v depends on the batch size, by its
    rounding. It starts from a fixed number and is halved only where it must be.

    Args:
        tokens: token positions of one forward pass.
        memory: bytes that an evaluation may take beside the model's weights.
    """

    def __init__(self, tokens: int, memory: int) -> None:
        self.tokens, self.memory = tokens, memory

    @classmethod
    def of_device(
        cls, device: torch.device, tokens: int | None = None, memory_gb: float | None = None
    ) -> "BatchSize":
        """Batch size of a device; what is None is chosen: 1024 tokens, 8192 on a GPU.

        Memory is 4 GiB on a CPU, and on a GPU four fifths of what is free now.
        """
        is_gpu = device.type == "cuda"
        if memory_gb is not None:
            memory = int(memory_gb * 2**30)
        elif is_gpu:
            torch.cuda.empty_cache()
            memory = int(GPU_SHARE * torch.cuda.mem_get_info(device)[0])
        else:
            memory = CPU_MEMORY
        return cls(tokens or (8192 if is_gpu else 1024), memory)

    def fit(self, needed: Callable[[int], int]) -> int:
        """Token positions of which ``needed(tokens)`` bytes fit in the memory, for one prompt.

        The next prompt starts from the whole batch again, so that it does not depend on which prompts
        came before it.

        Raises:
            ValueError: the smallest batch does not fit.
        """
        tokens = self.tokens
        while needed(tokens) > self.memory:
            if tokens // 2 < SMALLEST_BATCH:
                raise ValueError(
                    f"the smallest batch needs about {needed(tokens) / 2**30:.3g} GiB beside the "
                    f"model, but {self.memory / 2**30:.3g} may be used; raise inference.memory_gb or "
                    "lower players.n"
                )
            tokens //= 2
        return tokens

    def halve(self, tokens: int) -> None:
        """Halve the batch for good after memory ran out with one of ``tokens`` positions.

        Raises:
            ValueError: it is the smallest already.
        """
        if tokens // 2 < SMALLEST_BATCH:
            raise ValueError(
                "memory runs out with the smallest batch; use a device with more memory, a smaller "
                "model or inference.dtype"
            )
        self.tokens = tokens // 2
        logging.getLogger(__name__).warning(
            "memory ran out; going on with %d token positions a forward pass", self.tokens
        )
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error is that of an allocation: CUDA's, or the untyped ones of CPU and MPS."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error).lower()
    return "out of memory" in text or "can't allocate memory" in text or "not enough memory" in text
