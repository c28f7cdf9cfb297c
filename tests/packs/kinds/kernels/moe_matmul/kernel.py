"""A mixture of experts: gathered rows times the matrices of their experts."""

import helion.language as hl
import torch


def moe_matmul(
    x: torch.Tensor,
    weights: torch.Tensor,
    order: torch.Tensor,
    offsets: torch.Tensor,
    top_k: int,
) -> torch.Tensor:
    """Return x[i // top_k] @ weights[e].T for each place i, as [t * top_k, o].

    x is [t, h], weights are [e, o, h]; order has the places sorted by expert, those of
    expert e from offsets[e] to offsets[e + 1].
    """
    num_experts, out_size, hidden_size = weights.size()
    out = torch.empty([order.size(0), out_size], dtype=x.dtype, device=x.device)
    for tile_e, tile_o in hl.tile([num_experts, out_size], block_size=[1, None]):
        expert = tile_e.begin
        for tile_r in hl.tile(offsets[expert], offsets[expert + 1]):
            places = order[tile_r]
            tokens = places // top_k
            total = hl.zeros([tile_r, tile_o], dtype=torch.float32)
            for tile_h in hl.tile(hidden_size):
                part = weights[expert, tile_o, tile_h]
                total = torch.addmm(total, x[tokens, tile_h], part.T)
            out[places, tile_o] = total.to(out.dtype)
    return out
