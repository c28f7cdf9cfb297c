"""SiLU of the first half of each row times the second half."""

import helion.language as hl
import torch


def silu_mul(input: torch.Tensor) -> torch.Tensor:
    """Return silu(input[..., :w]) * input[..., w:] of input [..., 2w], in its dtype."""
    width = input.size(-1) // 2
    rows = input.view(-1, 2, width)
    out = torch.empty([rows.size(0), width], dtype=input.dtype, device=input.device)
    for tile_t, tile_w in hl.tile([rows.size(0), width]):
        gate = rows[tile_t, 0, tile_w].to(torch.float32)
        up = rows[tile_t, 1, tile_w].to(torch.float32)
        out[tile_t, tile_w] = (gate * torch.sigmoid(gate) * up).to(out.dtype)
    return out.view(*input.shape[:-1], width)
