"""The products of two batches of matrices."""

import helion.language as hl
import torch


def batched_matmul(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Return x [b, m, k] times y [b, k, n], summed in float32, in the dtype of x."""
    batch, m, k = x.size()
    n = y.size(2)
    out = torch.empty([batch, m, n], dtype=x.dtype, device=x.device)
    for tile_b, tile_m, tile_n in hl.tile([batch, m, n]):
        total = hl.zeros([tile_b, tile_m, tile_n], dtype=torch.float32)
        for tile_k in hl.tile(k):
            total = torch.baddbmm(total, x[tile_b, tile_m, tile_k], y[tile_b, tile_k, tile_n])
        out[tile_b, tile_m, tile_n] = total.to(out.dtype)
    return out
