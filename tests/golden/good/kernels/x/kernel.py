"""A Helion function for the tests of manifests; none of them runs it."""

import helion.language as hl
import torch


def x(
    out: torch.Tensor,
    input: torch.Tensor,
    residual: torch.Tensor | None,
    factor: float = 2.0,
    group: int = 4,
) -> None:
    for tile_t, tile_h in hl.tile([input.size(0), input.size(1)]):
        out[tile_t, tile_h] = input[tile_t, tile_h] * factor
