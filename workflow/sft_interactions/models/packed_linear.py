"""Linear layers whose weights are laid out once for the CPU's matrix product.

Imports torch only.
"""

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
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight)
        self.transposed = (
            torch.ops.mkldnn._reorder_linear_weight(weight.T.contiguous()) if backward else None
        )
        self.bias = None if linear.bias is None else linear.bias.detach()

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Inputs (..., in) to (..., out), float32."""
        if self.transposed is None:
            return _multiply(inputs, self.weight, self.bias)
        return _Differentiable.apply(inputs, self.weight, self.transposed, self.bias)


class _Differentiable(torch.autograd.Function):
    @staticmethod
    def forward(ctx, inputs, weight, transposed, bias):
        ctx.transposed = transposed
        return _multiply(inputs, weight, bias)

    @staticmethod
    def backward(ctx, gradient):
        return _multiply(gradient, ctx.transposed, None), None, None, None


def _multiply(inputs, weight, bias):
    return torch.ops.mkldnn._linear_pointwise(inputs.contiguous(), weight, bias, "none", [], "")


def pack_linear_layers(model: nn.Module) -> None:
    """Replace the linear layers of a model, its output head included, by packed ones, for good.

    Those that are not float32 on the CPU stay as they are, as all do where torch has no oneDNN.
    """
    for name, layer in list(model.named_modules()):
        if can_pack(layer):
            model.set_submodule(name, PackedLinear(layer))


def can_pack(layer: nn.Module) -> bool:
    """Whether a layer is a linear one that :class:`PackedLinear` can replace here."""
    # Only the class itself: a subclass may compute something else.
    return (
        torch.backends.mkldnn.is_available()
        and type(layer) is nn.Linear
        and layer.weight.device.type == "cpu"
        and layer.weight.dtype == torch.float32
    )
