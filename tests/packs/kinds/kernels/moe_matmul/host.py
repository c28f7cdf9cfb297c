"""The reference of moe_matmul."""

import torch


def reference(
    x: torch.Tensor,
    weights: torch.Tensor,
    order: torch.Tensor,
    offsets: torch.Tensor,
    top_k: int,
) -> torch.Tensor:
    """Return the products, computed in float32."""
    out = x.new_empty(order.numel(), weights.size(1))
    runs = order.long().split(offsets.diff().tolist())
    for places, weight in zip(runs, weights, strict=True):
        out[places] = (x[places // top_k].float() @ weight.float().T).to(x.dtype)
    return out
