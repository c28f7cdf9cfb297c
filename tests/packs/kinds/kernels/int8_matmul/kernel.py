"""A product of INT8 matrices, summed in INT32, times one scale."""

import helion.language as hl
import torch


def int8_matmul(x: torch.Tensor, weight: torch.Tensor, scale: float) -> torch.Tensor:
    """Return x [m, k] times weight [k, n] times scale in float16."""
    m, k = x.size()
    n = weight.size(1)
    out = torch.empty([m, n], dtype=torch.float16, device=x.device)
    for tile_m, tile_n in hl.tile([m, n]):
        total = hl.zeros([tile_m, tile_n], dtype=torch.int32)
        for tile_k in hl.tile(k):
            total = hl.dot(x[tile_m, tile_k], weight[tile_k, tile_n], acc=total)
        out[tile_m, tile_n] = (total.to(torch.float32) * scale).to(out.dtype)
    return out
