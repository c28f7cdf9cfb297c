"""Layer norm of each row."""

import helion.language as hl
import torch


def layer_norm(
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    epsilon: float = 1e-5,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the norm of input [t, h], its mean [t] and 1 / deviation [t], both float32."""
    num_tokens, hidden_size = input.size()
    out = torch.empty_like(input)
    mean = torch.empty([num_tokens], dtype=torch.float32, device=input.device)
    rstd = torch.empty_like(mean)
    for tile in hl.tile(num_tokens):
        x = input[tile, :].to(torch.float32)
        middle = torch.sum(x, dim=-1) / hidden_size
        centred = x - middle[:, None]
        variance = torch.sum(centred * centred, dim=-1) / hidden_size
        scale = torch.rsqrt(variance + epsilon)
        y = centred * scale[:, None] * weight[:].to(torch.float32)
        out[tile, :] = (y + bias[:].to(torch.float32)).to(out.dtype)
        mean[tile] = middle
        rstd[tile] = scale
    return out, mean, rstd
