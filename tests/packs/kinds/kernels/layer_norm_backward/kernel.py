"""The gradients of a layer norm."""

import helion.language as hl
import torch


def layer_norm_backward(
    grad: torch.Tensor,
    input: torch.Tensor,
    weight: torch.Tensor,
    mean: torch.Tensor,
    rstd: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the gradients of input [t, h], of weight and of bias, both float32 [h]."""
    num_tokens, hidden_size = input.size()
    grad_input = torch.empty_like(input)
    grad_weight = torch.zeros([hidden_size], dtype=torch.float32, device=input.device)
    grad_bias = torch.zeros_like(grad_weight)
    for tile in hl.tile(num_tokens):
        above = grad[tile, :].to(torch.float32)
        normed = (input[tile, :].to(torch.float32) - mean[tile][:, None]) * rstd[tile][:, None]
        hl.atomic_add(grad_weight, [slice(None)], torch.sum(above * normed, dim=0))
        hl.atomic_add(grad_bias, [slice(None)], torch.sum(above, dim=0))
        weighted = above * weight[:].to(torch.float32)
        shift = torch.sum(weighted, dim=-1) / hidden_size
        slope = torch.sum(weighted * normed, dim=-1) / hidden_size
        x = weighted - shift[:, None] - normed * slope[:, None]
        grad_input[tile, :] = (x * rstd[tile][:, None]).to(grad_input.dtype)
    return grad_input, grad_weight, grad_bias
