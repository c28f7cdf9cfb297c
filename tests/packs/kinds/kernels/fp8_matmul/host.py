"""The reference of fp8_matmul."""

import torch


def reference(
    x: torch.Tensor, weight: torch.Tensor, x_scale: torch.Tensor, weight_scale: torch.Tensor
) -> torch.Tensor:
    """Return the product of the scaled matrices, computed in float32."""
    left = x.float() * x_scale[:, None]
    return (left @ (weight.float() * weight_scale[:, None]).T).to(torch.bfloat16)
