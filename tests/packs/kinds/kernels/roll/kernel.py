"""A matrix moved around its edges."""

import helion.language as hl
import torch


def roll(input: torch.Tensor, shifts: list[int]) -> torch.Tensor:
    """Return input [r, w] moved down and to the right; what leaves it comes in at the other end."""
    rows, width = input.size()
    down = shifts[0]
    right = shifts[1]
    out = torch.empty_like(input)
    for tile_r, tile_w in hl.tile([rows, width]):
        row = (tile_r.index + (rows - down)) % rows
        column = (tile_w.index + (width - right)) % width
        out[tile_r, tile_w] = hl.load(input, [row, column])
    return out
