"""A linear layer with bias and ReLU."""

import helion.language as hl
import torch


def linear_relu(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Return relu(x [t, i] @ weight [o, i].T + bias [o]), in the dtype of x."""
    num_tokens, in_size = x.size()
    out_size = weight.size(0)
    out = torch.empty([num_tokens, out_size], dtype=x.dtype, device=x.device)
    for tile_t, tile_o in hl.tile([num_tokens, out_size]):
        total = hl.zeros([tile_t, tile_o], dtype=torch.float32)
        for tile_i in hl.tile(in_size):
            total = torch.addmm(total, x[tile_t, tile_i], weight[tile_o, tile_i].T)
        total = total + bias[tile_o].to(torch.float32)[None, :]
        out[tile_t, tile_o] = torch.relu(total).to(out.dtype)
    return out
