"""The reference of int4_matmul."""

import torch


def reference(x: torch.Tensor, packed: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Return the product with the unpacked weights, computed in float32."""
    codes = packed.to(torch.int32)
    lower, upper = (codes & 15 ^ 8) - 8, codes >> 4
    return (x.float() @ torch.cat((lower, upper)).float() * scale).to(x.dtype)
