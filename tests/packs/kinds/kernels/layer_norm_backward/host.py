"""Reference and inputs of layer_norm_backward."""

from typing import Any

import torch


def reference(
    grad: torch.Tensor,
    input: torch.Tensor,
    weight: torch.Tensor,
    mean: torch.Tensor,
    rstd: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the gradients that PyTorch computes in float32."""
    x, w = input.float(), weight.float()
    found = torch.ops.aten.native_layer_norm_backward(
        grad.float(), x, x.shape[1:], mean[:, None], rstd[:, None], w, w, [True, True, True]
    )
    return found[0].to(input.dtype), found[1], found[2]


def mean(axes: dict[str, Any], args: dict[str, Any], generator: torch.Generator) -> torch.Tensor:
    """Return the means of the input."""
    return args["input"].float().mean(dim=-1)


def rstd(axes: dict[str, Any], args: dict[str, Any], generator: torch.Generator) -> torch.Tensor:
    """Return the reciprocals of the deviations of the input."""
    return torch.rsqrt(args["input"].float().var(dim=-1, correction=0) + 1e-5)
