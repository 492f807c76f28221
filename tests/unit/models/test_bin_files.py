from pathlib import Path

import pytest
import torch
from bad_input import refused

from sft_interactions.models.bin_files import check_bin_files

NAME = "layer.weight"
REFUSED = {
    "whole numbers": (
        {NAME: torch.ones(2, dtype=torch.int8)},
        "layer.weight is in I8, a quantised",
    ),
    "eight bits": (
        {NAME: torch.ones(2).to(torch.float8_e4m3fn)},
        r"layer\.weight is in torch\.float8_e4m3fn, a quantised format; save it in float32",
    ),
    "true and false": ({NAME: torch.ones(2, dtype=torch.bool)}, "layer.weight is in BOOL, a quant"),
    "an empty tensor": ({NAME: torch.zeros(0)}, "layer.weight is empty, as training with ZeRO-3"),
    "a training state": ({"model": {NAME: torch.ones(2)}}, "model is no tensor; save the weights"),
    "a number": ({NAME: torch.ones(2), "epoch": 3}, "epoch is no tensor"),
    "a list": ([torch.ones(2)], "holds no weights by name"),
    "an object": (ValueError("x"), "holds other things than tensors, or is damaged"),
}


@pytest.mark.bad_input(of="folder")
@pytest.mark.parametrize("file", ["pytorch_model.bin", "adapter_model.bin"])
@pytest.mark.parametrize("case", REFUSED)
def test_files_of_other_things_than_weights_are_refused(tmp_path, file, case):
    content, message = REFUSED[case]
    torch.save(content, tmp_path / file)
    with refused(message) as caught:
        check_bin_files(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / file}: ")
    assert "; " in str(caught.value)
    assert "\n" not in str(caught.value)


class _Code:
    """What runs a command when it is unpickled."""

    def __init__(self, written):
        self.written = written

    def __reduce__(self):
        return Path.touch, (self.written,)


@pytest.mark.bad_input(of="folder")
def test_code_in_a_bin_file_is_refused_and_not_run(tmp_path):
    written = tmp_path / "written"
    torch.save({NAME: _Code(written)}, tmp_path / "pytorch_model.bin")
    torch.load(tmp_path / "pytorch_model.bin", weights_only=False)
    assert written.exists()
    written.unlink()
    with refused("holds other things than tensors, or is damaged"):
        check_bin_files(tmp_path)
    assert not written.exists()


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str
)
def test_weights_and_whole_numbers_beside_them_are_right(tmp_path, dtype):
    weights = {NAME: torch.ones(2, 3, dtype=dtype), "attention.mask": torch.ones(2).bool()}
    torch.save(weights, tmp_path / "pytorch_model.bin")
    (tmp_path / "training_args.bin").write_bytes(b"not read")
    check_bin_files(tmp_path)
