"""Reference and inputs of grouped_matmul."""

from typing import Any

import torch


def reference(x: torch.Tensor, weights: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    """Return the products, computed in float32."""
    runs = x.float().split(offsets.diff().tolist())
    return torch.cat([run @ w.float() for run, w in zip(runs, weights, strict=True)]).to(x.dtype)


def offsets(axes: dict[str, Any], args: dict[str, Any], generator: torch.Generator) -> torch.Tensor:
    """Return where groups begin and end: nearly equal ones, that of the last the smallest."""
    total, groups = axes["total"], axes["num_groups"]
    each = -(-total // groups)
    ends = torch.arange(groups + 1, device=generator.device) * each
    return ends.clamp(max=total).to(torch.int32)
