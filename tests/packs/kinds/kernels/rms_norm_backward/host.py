"""Reference and fake implementation of rms_norm_backward."""

import torch


def reference(
    grad: torch.Tensor, input: torch.Tensor, weight: torch.Tensor, epsilon: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the gradients that PyTorch computes in float32."""
    with torch.enable_grad():
        x = input.detach().float().requires_grad_()
        w = weight.detach().float().requires_grad_()
        y = torch.nn.functional.rms_norm(x, x.shape[1:], w, epsilon)
        by_input, by_weight = torch.autograd.grad(y, (x, w), grad.float())
    return by_input.to(input.dtype), by_weight.to(weight.dtype)


def fake(
    grad: torch.Tensor, input: torch.Tensor, weight: torch.Tensor, epsilon: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return empty gradients."""
    return torch.empty_like(input), torch.empty_like(weight)
