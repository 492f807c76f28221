"""Linear layers whose weights are laid out once for the CPU's matrix product.

Imports torch only.
"""

import torch
from torch import nn


class PackedLinear(nn.Module):
    """A linear layer for inference in float32 on a CPU, its weight in oneDNN's own layout.

    The products of the same numbers in another order: results differ from those of ``nn.Linear`` by
    rounding alone.

    Args:
        linear: a layer with a float32 weight on the CPU; it is not changed.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach())
        self.bias = None if linear.bias is None else linear.bias.detach()

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Inputs (..., in_features) to (..., out_features), float32."""
        return torch.ops.mkldnn._linear_pointwise(
            inputs.contiguous(), self.weight, self.bias, "none", [], ""
        )


def pack_linear_layers(model: nn.Module) -> None:
    """Replace the linear layers of a model, its output head included, by packed ones, for good.

    Those that are not float32 on the CPU stay as they are, as all do where torch has no oneDNN.
    """
    if not torch.backends.mkldnn.is_available():
        return
    for name, layer in list(model.named_modules()):
        # Only the class itself: a subclass may compute something else.
        if type(layer) is nn.Linear and _is_plain(layer.weight):
            model.set_submodule(name, PackedLinear(layer))


def _is_plain(weight: torch.Tensor) -> bool:
    return weight.device.type == "cpu" and weight.dtype == torch.float32
