import pytest
import torch

from sft_interactions.models.packed_linear import PackedLinear, pack_linear_layers

# Of sums of 33 or 65 products of float32, in another order.
ROUNDING = {"rtol": 1e-4, "atol": 1e-4}


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch without oneDNN")
def test_the_private_operators_of_torch_are_as_they_were():
    which = f"torch {torch.__version__}: torch.ops.mkldnn."
    for name in ("_reorder_linear_weight", "_linear_pointwise"):
        assert hasattr(torch.ops.mkldnn, name), f"{which}{name} is gone; see packed_linear.py"
    which += "_reorder_linear_weight or _linear_pointwise"
    torch.manual_seed(0)
    layer, inputs = torch.nn.Linear(3, 5), torch.randn(7, 3)
    try:
        product = PackedLinear(layer)(inputs)
    except (RuntimeError, TypeError) as error:
        pytest.fail(f"{which} takes other arguments; see packed_linear.py: {error}")
    error = (product - layer(inputs)).abs().max()
    assert error < 1e-4, f"{which} computes something else; see packed_linear.py"


@pytest.mark.parametrize("rows", [0, 1, 7, 300])
@pytest.mark.parametrize("bias", [True, False])
def test_packed_linear_layer(rows, bias):
    torch.manual_seed(0)
    layer = torch.nn.Linear(33, 65, bias=bias)
    inputs = torch.randn(rows, 2, 33)
    with torch.inference_mode():
        torch.testing.assert_close(PackedLinear(layer)(inputs), layer(inputs), **ROUNDING)
        every_other = inputs.repeat(1, 2, 1)[:, ::2]
        torch.testing.assert_close(PackedLinear(layer)(every_other), layer(every_other), **ROUNDING)


@pytest.mark.parametrize("bias", [True, False])
def test_gradients_of_a_packed_linear_layer(bias):
    torch.manual_seed(0)
    layer = torch.nn.Linear(33, 65, bias=bias)
    inputs = torch.randn(3, 5, 33, requires_grad=True)
    gradients = [
        torch.autograd.grad(f(inputs).square().sum(), inputs)[0]
        for f in (layer, PackedLinear(layer, backward=True))
    ]
    torch.testing.assert_close(*gradients, **ROUNDING)


def test_only_plain_float32_layers_are_packed():
    class Other(torch.nn.Linear):
        pass

    model = torch.nn.ModuleDict(
        {"a": torch.nn.Linear(2, 3), "b": torch.nn.Linear(2, 3).half(), "c": Other(2, 3)}
    )
    pack_linear_layers(model)
    assert [type(m) for m in model.values()] == [PackedLinear, torch.nn.Linear, Other]
