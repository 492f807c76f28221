"""Linear layers whose weights are laid out once for the CPU's matrix product.

Imports torch only.
"""

from typing import Any, TypeGuard

import torch
from torch import nn


class PackedLinear(nn.Module):
    """A frozen linear layer in float32 on a CPU, its weight in oneDNN's own layout.

    The products of the same numbers in another order: results differ from those of ``nn.Linear`` by
    rounding alone.

    Args:
        linear: a layer with a float32 weight on the CPU; it is not changed.
        backward: whether gradients of the inputs are needed; the weight is then held twice.
    """

    def __init__(self, linear: nn.Linear, *, backward: bool = False) -> None:
        super().__init__()
        self.in_features = linear.in_features
        weight = linear.weight.detach()
        self.weight = _pack(weight)
        self.transposed: torch.Tensor | None = _pack(weight.T.contiguous()) if backward else None
        # Torch's annotation leaves out that a layer may have no bias.
        no_bias = linear.bias is None
        self.bias = None if no_bias else linear.bias.detach()

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Inputs (..., in) to (..., out), float32."""
        if self.transposed is None:
            return _multiply(inputs, self.weight, self.bias)
        product: torch.Tensor = _Differentiable.apply(  # type: ignore[no-untyped-call]  # torch's
            inputs, self.weight, self.transposed, self.bias
        )
        return product


class _Differentiable(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        inputs: torch.Tensor,
        weight: torch.Tensor,
        transposed: torch.Tensor,
        bias: torch.Tensor | None,
    ) -> torch.Tensor:
        ctx.transposed = transposed
        return _multiply(inputs, weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        return _multiply(gradient, ctx.transposed, None), None, None, None


# The two private operators of torch that this module stands on. torch's compiler lays out frozen weights
# with them; its public torch.utils.mkldnn converts the inputs of every layer back and forth instead.
# tests/unit/models/test_packed_linear.py tells when an upgrade changes them.
def _pack(weight: torch.Tensor) -> torch.Tensor:
    """A weight (out, in) in oneDNN's own layout."""
    packed: torch.Tensor = torch.ops.mkldnn._reorder_linear_weight(weight)
    return packed


def _multiply(
    inputs: torch.Tensor, packed: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    """Inputs (..., in) times a packed weight, plus bias, with no activation function after it."""
    product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(
        inputs.contiguous(), packed, bias, "none", [], ""
    )
    return product


def pack_linear_layers(model: nn.Module) -> None:
    """Replace the linear layers of a model, its output head included, by packed ones, for good.

    Those that are not float32 on the CPU stay as they are, as all do where torch has no oneDNN.
    """
    for name, layer in list(model.named_modules()):
        if can_pack(layer):
            model.set_submodule(name, PackedLinear(layer))


def can_pack(layer: nn.Module) -> TypeGuard[nn.Linear]:
    """Whether a layer is a linear one that :class:`PackedLinear` can replace here."""
    # Only the class itself: a subclass may compute something else.
    return (
        torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]  # torch's
        and type(layer) is nn.Linear
        and layer.weight.device.type == "cpu"
        and layer.weight.dtype == torch.float32
    )
