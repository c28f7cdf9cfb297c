"""A product of FP8 matrices with a scale per row and per column."""

import helion.language as hl
import torch


def fp8_matmul(
    x: torch.Tensor,
    weight: torch.Tensor,
    x_scale: torch.Tensor,
    weight_scale: torch.Tensor,
) -> torch.Tensor:
    """Return (x [m, k] @ weight [n, k].T) * x_scale [m] * weight_scale [n] in bfloat16."""
    m, k = x.size()
    n = weight.size(0)
    out = torch.empty([m, n], dtype=torch.bfloat16, device=x.device)
    for tile_m, tile_n in hl.tile([m, n]):
        total = hl.zeros([tile_m, tile_n], dtype=torch.float32)
        for tile_k in hl.tile(k):
            total = hl.dot(x[tile_m, tile_k], weight[tile_n, tile_k].T, acc=total)
        total = total * x_scale[tile_m][:, None] * weight_scale[tile_n][None, :]
        out[tile_m, tile_n] = total.to(out.dtype)
    return out
