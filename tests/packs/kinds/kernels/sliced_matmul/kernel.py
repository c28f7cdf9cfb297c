"""A product of matrices whose sums are split into as many parts as a config says."""

import helion
import helion.language as hl
import torch
from helion.autotuner import PowerOfTwoFragment


def sliced_matmul(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Return x [m, k] times y [k, n] in float32; each of split_k parts adds its sums atomically."""
    m, k = x.size()
    n = y.size(1)
    out = torch.zeros([m, n], dtype=torch.float32, device=x.device)
    split_k = hl.register_tunable("split_k", PowerOfTwoFragment(1, 256))
    span = helion.next_power_of_2(helion.cdiv(k, split_k))
    for tile_m, tile_n, part in hl.tile([m, n, k], block_size=[None, None, span]):
        total = hl.zeros([tile_m, tile_n], dtype=torch.float32)
        for tile_k in hl.tile(part.begin, part.end):
            total = torch.addmm(total, x[tile_m, tile_k], y[tile_k, tile_n])
        hl.atomic_add(out, [tile_m, tile_n], total)
    return out
