import pytest
import torch
from bad_input import refused

from sft_interactions.masking import devices
from sft_interactions.masking.devices import (
    allow_tf32,
    pick_device,
    use_reproducible_float32,
)

TF32 = (torch.backends.cuda.matmul, torch.backends.cudnn)


@pytest.mark.parametrize(("has_gpu", "chosen"), [(True, "cuda"), (False, "cpu")])
def test_device(monkeypatch, has_gpu, chosen):
    claims = []
    monkeypatch.setattr(devices, "claim_gpu", lambda: claims.append("gpu"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert pick_device("cpu").type == "cpu"
    assert claims == []
    assert pick_device("auto").type == chosen
    assert claims == ["gpu"]


@pytest.mark.bad_input(of="config")
@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_a_device_that_is_not_there_is_refused(monkeypatch, device):
    monkeypatch.setattr(devices, "claim_gpu", lambda: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with refused(rf"^compute\.device is {device}, but .*; set it to auto or cpu"):
        pick_device(device)


@pytest.fixture
def settings_are_put_back():
    threads = torch.get_num_threads()
    allowed = [backend.allow_tf32 for backend in TF32]
    yield
    torch.set_num_threads(threads)
    for backend, before in zip(TF32, allowed, strict=True):
        backend.allow_tf32 = before


@pytest.mark.usefixtures("settings_are_put_back")
def test_what_the_last_digits_depend_on_is_fixed():
    allow_tf32(True)
    assert [backend.allow_tf32 for backend in TF32] == [True, True]
    use_reproducible_float32(3)
    assert torch.get_num_threads() == 3
    assert [backend.allow_tf32 for backend in TF32] == [False, False]
