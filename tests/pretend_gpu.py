"""A device that is not there: shows without a GPU that tensors are created where the model is.

Tensors have shapes and devices and no content. What a GPU refuses is refused: products of tensors of two
devices, and reading a tensor into numpy or Python that was not brought to the CPU before.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

import numpy as np
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.nn.functional import embedding
from torch.overrides import TorchFunctionMode

# A CPU build of torch cannot index a pretended CUDA tensor; it can a meta tensor.
GPU = torch.device("meta")


class _Strict(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func in (torch.tensor, torch.as_tensor) and "device" in kwargs:
            # They would make a real meta tensor, which the mode does not follow.
            device = kwargs.pop("device")
            return func(*args, **kwargs).to(device)
        if func is embedding and args[0].device != args[1].device:
            raise RuntimeError(f"ids are on {args[0].device}, embeddings on {args[1].device}")
        return func(*args, **kwargs)


def _numpy(tensor, **_):
    if tensor.device.type != "cpu":
        raise TypeError(f"a tensor on {tensor.device} is read before it was brought to the CPU")
    return np.zeros(tensor.shape, str(tensor.dtype).removeprefix("torch."))


def _array(tensor, dtype=None, **_):
    return _numpy(tensor).astype(dtype or str(tensor.dtype).removeprefix("torch."))


@contextmanager
def pretend_gpu() -> Iterator[torch.device]:
    """Within it the device that it gives can be used like a GPU.

    Its tensors are 0 when they are read as arrays, and 1 when they are read as numbers.
    """
    mode = FakeTensorMode()
    mode.allow_meta = True
    with (
        patch.object(FakeTensor, "numpy", _numpy),
        patch.object(FakeTensor, "__array__", _array),
        patch.object(FakeTensor, "item", lambda tensor: 1.0),
        patch.object(FakeTensor, "tolist", lambda tensor: _numpy(tensor).tolist()),
        patch.object(FakeTensor, "__float__", lambda tensor: 1.0),
        mode,
        _Strict(),
    ):
        yield GPU


def on_pretended_gpu(build):
    """A model that is built on the device, as loading and moving would leave it."""
    with GPU:
        return build()
