"""Rows of a table for tokens of any shape."""

import helion.language as hl
import torch


def embedding(tokens: torch.Tensor, weight: torch.Tensor, padding: int = -1) -> torch.Tensor:
    """Return weight[tokens] as [..., w]; tokens that are padding have zeros."""
    width = weight.size(1)
    flat = tokens.reshape(-1)
    out = torch.empty([flat.size(0), width], dtype=weight.dtype, device=weight.device)
    for tile_t, tile_w in hl.tile([flat.size(0), width]):
        places = flat[tile_t]
        rows = weight[places, tile_w]
        out[tile_t, tile_w] = torch.where(places[:, None] == padding, 0.0, rows)
    return out.view(*tokens.size(), width)
