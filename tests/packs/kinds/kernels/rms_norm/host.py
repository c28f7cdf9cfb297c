"""The reference of rms_norm."""

import torch


def reference(
    out: torch.Tensor,
    input: torch.Tensor,
    weight: torch.Tensor,
    epsilon: float,
    residual: torch.Tensor | None = None,
) -> None:
    """Write the norm and the sum, computed in float32."""
    x = input.float()
    if residual is not None:
        x = x + residual.float()
        residual.copy_(x)
    out.copy_(torch.nn.functional.rms_norm(x, x.shape[1:], weight.float(), epsilon))
