"""Sums of each position and those around it."""

import helion.language as hl
import torch


def moving_sum(
    input: torch.Tensor, window: hl.constexpr, causal: hl.constexpr = True
) -> torch.Tensor:
    """Return for each position of input [r, l] the sum of `window` of them, in its dtype.

    They end with the position itself, or lie around it where it is not causal; what lies outside
    counts as zero.
    """
    rows, length = input.size()
    out = torch.empty_like(input)
    for tile_r, tile_l in hl.tile([rows, length]):
        total = hl.zeros([tile_r, tile_l], dtype=torch.float32)
        for step in hl.static_range(window):
            place = tile_l.index - step
            if not causal:
                place = place + window // 2
            inside = (place >= 0) & (place < length)
            x = hl.load(input, [tile_r, place], extra_mask=inside[None, :])
            total = total + x.to(torch.float32)
        out[tile_r, tile_l] = total.to(out.dtype)
    return out
