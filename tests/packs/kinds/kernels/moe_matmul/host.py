"""Reference and inputs of moe_matmul."""

from typing import Any

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


def order(axes: dict[str, Any], args: dict[str, Any], generator: torch.Generator) -> torch.Tensor:
    """Return the places in any order: those of one token may have any experts."""
    places = axes["num_tokens"] * axes["top_k"]
    drawn = torch.randperm(places, generator=generator, device=generator.device)
    return drawn.to(torch.int32)


def offsets(axes: dict[str, Any], args: dict[str, Any], generator: torch.Generator) -> torch.Tensor:
    """Return where the places of experts begin and end; some experts have none."""
    places, device = args["order"].numel(), generator.device
    shape = (axes["num_experts"] - 1,)
    inner = torch.randint(places + 1, shape, generator=generator, device=device)
    ends = inner.new_tensor([0, places])
    return torch.cat((inner, ends)).sort().values.to(torch.int32)
