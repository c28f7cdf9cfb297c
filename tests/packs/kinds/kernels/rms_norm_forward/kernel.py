"""RMS norm of each row, as a result, so that it has a gradient."""

import helion.language as hl
import torch


def rms_norm_forward(
    input: torch.Tensor, weight: torch.Tensor, epsilon: float = 1e-6
) -> torch.Tensor:
    """Return the norm of input [t, h] times weight [h], in the dtype of input."""
    num_tokens, hidden_size = input.size()
    out = torch.empty_like(input)
    for tile in hl.tile(num_tokens):
        x = input[tile, :].to(torch.float32)
        square = torch.sum(x * x, dim=-1) / hidden_size
        y = x * torch.rsqrt(square + epsilon)[:, None]
        out[tile, :] = (y * weight[:].to(torch.float32)).to(out.dtype)
    return out
