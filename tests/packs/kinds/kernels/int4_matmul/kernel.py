"""A product with INT4 weights, two of them in a byte."""

import helion.language as hl
import torch


def int4_matmul(x: torch.Tensor, packed: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Return x [m, k] times the weights in packed [k / 2, n] times scale [n].

    The lower four bits are the rows of the first half of the weights, the upper four
    those of the second half; both are signed.
    """
    m = x.size(0)
    half, n = packed.size()
    halves = x.view(m, 2, half)
    out = torch.empty([m, n], dtype=x.dtype, device=x.device)
    for tile_m, tile_n in hl.tile([m, n]):
        total = hl.zeros([tile_m, tile_n], dtype=torch.float32)
        for tile_k in hl.tile(half):
            codes = packed[tile_k, tile_n]
            lower = ((codes << 4) >> 4).to(x.dtype)
            upper = (codes >> 4).to(x.dtype)
            total = torch.addmm(total, halves[tile_m, 0, tile_k], lower)
            total = torch.addmm(total, halves[tile_m, 1, tile_k], upper)
        out[tile_m, tile_n] = (total * scale[tile_n][None, :]).to(out.dtype)
    return out
