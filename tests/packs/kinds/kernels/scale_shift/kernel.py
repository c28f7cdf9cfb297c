"""Each row times a factor, plus a shift where one is given."""

import helion.language as hl
import torch


def scale_shift(
    input: torch.Tensor,
    factor: float,
    repeats: int,
    shift: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return input [r, w], replaced by input * factor + shift [w] as often as repeats says."""
    times = hl.specialize(repeats)
    out = torch.empty_like(input)
    for tile_r, tile_w in hl.tile(input.size()):
        x = input[tile_r, tile_w]
        for _ in hl.static_range(times):
            x = x * factor
            if shift is not None:
                x = x + shift[tile_w]
        out[tile_r, tile_w] = x
    return out
