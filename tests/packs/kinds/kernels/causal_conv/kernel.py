"""A convolution of each channel with the positions before."""

import helion.language as hl
import torch


def causal_conv(input: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return the sums over j of input[l - j, c] * weight[c, -1 - j], in the dtype of input.

    input is [l, c], weight [c, taps]; before the first position are zeros.
    """
    length, channels = input.size()
    taps = hl.specialize(weight.size(1))
    out = torch.empty_like(input)
    for tile_l, tile_c in hl.tile([length, channels]):
        total = hl.zeros([tile_l, tile_c], dtype=torch.float32)
        for back in hl.static_range(taps):
            place = tile_l.index - back
            x = hl.load(input, [place, tile_c], extra_mask=(place >= 0)[:, None])
            factor = weight[tile_c, taps - 1 - back].to(torch.float32)
            total = total + x.to(torch.float32) * factor[None, :]
        out[tile_l, tile_c] = total.to(out.dtype)
    return out
