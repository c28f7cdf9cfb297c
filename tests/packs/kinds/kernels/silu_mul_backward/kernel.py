"""The gradient of silu_mul, written over its input."""

import helion.language as hl
import torch


def silu_mul_backward(grad: torch.Tensor, input: torch.Tensor) -> None:
    """Replace input [..., 2w] by the gradient that grad [..., w] of silu_mul gives it."""
    width = grad.size(-1)
    above_all = grad.view(-1, width)
    rows = input.view(-1, 2 * width)
    left = rows[:, :width]
    right = rows[:, width:]
    for tile_t, tile_w in hl.tile([rows.size(0), width]):
        above = above_all[tile_t, tile_w].to(torch.float32)
        gate = left[tile_t, tile_w].to(torch.float32)
        up = right[tile_t, tile_w].to(torch.float32)
        share = torch.sigmoid(gate)
        silu = gate * share
        slope = share * (1.0 + gate - silu)
        left[tile_t, tile_w] = (above * up * slope).to(input.dtype)
        right[tile_t, tile_w] = (above * silu).to(input.dtype)
