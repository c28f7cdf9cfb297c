"""The gradients of an RMS norm."""

import helion.language as hl
import torch


def rms_norm_backward(
    grad: torch.Tensor, input: torch.Tensor, weight: torch.Tensor, epsilon: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the gradients of input [t, h] and of weight [h], in their dtypes."""
    num_tokens = input.size(0)
    hidden_size = hl.specialize(input.size(1))
    grad_input = torch.empty_like(input)
    span = hl.register_block_size(num_tokens)
    parts = torch.empty(
        [(num_tokens + span - 1) // span, hidden_size],
        dtype=torch.float32,
        device=input.device,
    )
    for block in hl.tile(num_tokens, block_size=span):
        part = hl.zeros([hidden_size], dtype=torch.float32)
        for tile in hl.tile(block.begin, block.end):
            x = input[tile, :].to(torch.float32)
            above = grad[tile, :].to(torch.float32)
            scale = torch.rsqrt(torch.sum(x * x, dim=-1) / hidden_size + epsilon)
            normed = x * scale[:, None]
            part = part + torch.sum(above * normed, dim=0)
            weighted = above * weight[:].to(torch.float32)
            slope = torch.sum(weighted * normed, dim=-1) / hidden_size
            y = (weighted - normed * slope[:, None]) * scale[:, None]
            grad_input[tile, :] = y.to(grad_input.dtype)
        parts[block.id, :] = part
    return grad_input, parts.sum(dim=0).to(weight.dtype)
