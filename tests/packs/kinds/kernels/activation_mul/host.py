"""The reference of activation_mul."""

import torch


def reference(gate: torch.Tensor, up: torch.Tensor, activation: str = "silu") -> torch.Tensor:
    """Return the product, computed in float32."""
    x = gate.float()
    if activation == "silu":
        y = torch.nn.functional.silu(x)
    elif activation == "gelu_tanh":
        y = torch.nn.functional.gelu(x, approximate="tanh")
    else:
        y = torch.relu(x)
    return (y * up.float()).to(gate.dtype)
