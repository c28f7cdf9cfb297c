"""RMS norm of each row, after a residual is added where one is given."""

import helion.language as hl
import torch


def rms_norm(
    out: torch.Tensor,
    input: torch.Tensor,
    weight: torch.Tensor,
    epsilon: float,
    residual: torch.Tensor | None = None,
) -> None:
    """Write the norm of input + residual [t, h] to out, and the sum to residual."""
    num_tokens, hidden_size = input.size()
    for tile in hl.tile(num_tokens):
        x = input[tile, :].to(torch.float32)
        if residual is not None:
            x = x + residual[tile, :].to(torch.float32)
            residual[tile, :] = x.to(residual.dtype)
        square = torch.sum(x * x, dim=-1) / hidden_size
        y = x * torch.rsqrt(square + epsilon)[:, None]
        out[tile, :] = (y * weight[:].to(torch.float32)).to(out.dtype)
