"""A product of matrices whose sums are split over blocks."""

import helion.language as hl
import torch


def split_k_matmul(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Return x [m, k] times y [k, n] in float32; blocks add their parts atomically."""
    m, k = x.size()
    n = y.size(1)
    out = torch.zeros([m, n], dtype=torch.float32, device=x.device)
    span = hl.register_block_size(k)
    for tile_m, tile_n, part in hl.tile([m, n, k], block_size=[None, None, span]):
        total = hl.zeros([tile_m, tile_n], dtype=torch.float32)
        for tile_k in hl.tile(part.begin, part.end):
            total = torch.addmm(total, x[tile_m, tile_k], y[tile_k, tile_n])
        hl.atomic_add(out, [tile_m, tile_n], total)
    return out
