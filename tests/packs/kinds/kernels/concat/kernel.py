"""Two matrices side by side."""

import helion.language as hl
import torch


def concat(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Return left [r, a] and right [r, b] as one matrix [r, a + b]."""
    num_rows, split = left.size()
    width = split + right.size(1)
    out = torch.empty([num_rows, width], dtype=left.dtype, device=left.device)
    for tile_r, tile_w in hl.tile([num_rows, width]):
        place = tile_w.index
        in_left = (place < split)[None, :]
        x = hl.load(left, [tile_r, place], extra_mask=in_left)
        y = hl.load(right, [tile_r, place - split], extra_mask=~in_left)
        out[tile_r, tile_w] = torch.where(in_left, x, y)
    return out
