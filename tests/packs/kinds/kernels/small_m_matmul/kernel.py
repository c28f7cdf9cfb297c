"""A linear layer for up to 16 tokens, without tensor cores."""

import helion.language as hl
import torch


def small_m_matmul(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return x [m, k] @ weight [n, k].T, in the dtype of x; a block takes some rows at once."""
    m, k = x.size()
    n = weight.size(0)
    out = torch.empty([m, n], dtype=x.dtype, device=x.device)
    for tile_m, tile_n in hl.tile([m, n]):
        total = hl.zeros([tile_m, tile_n], dtype=torch.float32)
        for tile_k in hl.tile(k):
            rows = x[tile_m, tile_k].to(torch.float32)
            part = weight[tile_n, tile_k].to(torch.float32)
            total = total + (rows[:, None, :] * part[None, :, :]).sum(dim=-1)
        out[tile_m, tile_n] = total.to(out.dtype)
    return out
