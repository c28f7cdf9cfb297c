"""An activation of one input, by its name, times the other."""

import helion.language as hl
import torch


def activation_mul(gate: torch.Tensor, up: torch.Tensor, activation: str = "silu") -> torch.Tensor:
    """Return activation(gate) * up of two inputs [t, w], in their dtype."""
    out = torch.empty_like(gate)
    for tile_t, tile_w in hl.tile(gate.size()):
        x = gate[tile_t, tile_w].to(torch.float32)
        if activation == "silu":
            y = x * torch.sigmoid(x)
        elif activation == "gelu_tanh":
            cube = 0.044715 * x * x * x
            y = x * torch.sigmoid(1.5957691216057308 * (x + cube))
        else:
            y = torch.relu(x)
        out[tile_t, tile_w] = (y * up[tile_t, tile_w].to(torch.float32)).to(out.dtype)
    return out
