"""What the ``.bin`` files of a model or of an adapter hold, without reading their numbers.

Imports torch only.
"""

from collections.abc import Mapping
from pathlib import Path

import torch

from sft_interactions.models.checkpoint_files import check_tensor, weight_files_of

# As safetensors files call them; any other one is a quantised format.
_NAMES = {
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.int16: "I16",
    torch.int32: "I32",
    torch.int64: "I64",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float32: "F32",
    torch.float64: "F64",
}


def check_bin_files(folder: str | Path) -> None:
    """Check that the ``.bin`` files of a folder hold weights by name, none of them empty or quantised.

    Raises:
        ValueError: one does not.
    """
    for file in weight_files_of(folder):
        if file.suffix == ".bin":
            _check_bin_file(file)


def _check_bin_file(file: Path) -> None:
    try:
        found = torch.load(file, map_location="meta", weights_only=True, mmap=True)
    except Exception as error:  # what a broken or foreign file raises depends on what is in it
        raise ValueError(
            f"{file}: holds other things than tensors, or is damaged; save the weights alone, by "
            "save_pretrained"
        ) from error
    if not isinstance(found, Mapping):
        raise ValueError(f"{file}: holds no weights by name; save them alone, by save_pretrained")
    for name, tensor in found.items():
        if not isinstance(tensor, torch.Tensor):
            raise ValueError(
                f"{file}: {name} is no tensor; save the weights alone, by save_pretrained"
            )
        dtype = _NAMES.get(tensor.dtype, str(tensor.dtype))
        check_tensor(f"{file}: {name}", dtype, tuple(tensor.shape))
