"""Rows of a matrix, by index."""

import helion.language as hl
import torch


def gather_rows(input: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Return input[index] of input [r, w] and index [p]."""
    num_picked = index.size(0)
    width = input.size(1)
    out = torch.empty([num_picked, width], dtype=input.dtype, device=input.device)
    for tile_p, tile_w in hl.tile([num_picked, width]):
        out[tile_p, tile_w] = input[index[tile_p], tile_w]
    return out
