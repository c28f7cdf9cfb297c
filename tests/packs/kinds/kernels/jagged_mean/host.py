"""Reference and inputs of jagged_mean."""

from typing import Any

import torch


def reference(values: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    """Return the means; an empty run has 0."""
    runs = values.split(offsets.diff().tolist())
    return torch.stack([run.sum() / max(1, run.numel()) for run in runs])


def offsets(axes: dict[str, Any], args: dict[str, Any], generator: torch.Generator) -> torch.Tensor:
    """Return where runs begin and end: they take all numbers, and some are empty."""
    shape = (axes["num_runs"] - 1,)
    device = generator.device
    inner = torch.randint(axes["total"] + 1, shape, generator=generator, device=device)
    ends = inner.new_tensor([0, axes["total"]])
    return torch.cat((inner, ends)).sort().values.to(torch.int32)
