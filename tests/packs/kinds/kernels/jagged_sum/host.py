"""Reference and inputs of jagged_sum."""

from typing import Any

import torch


def reference(values: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    """Return the sums, computed in float32."""
    runs = zip(offsets.tolist(), offsets[1:].tolist(), strict=False)
    sums = [values[start:end].float().sum(dim=0) for start, end in runs]
    return torch.stack(sums).to(values.dtype)


def offsets(axes: dict[str, Any], args: dict[str, Any], generator: torch.Generator) -> torch.Tensor:
    """Return where runs begin and end: they take all rows, and some are empty."""
    inner = torch.randint(
        axes["total"] + 1,
        (axes["num_runs"] - 1,),
        generator=generator,
        device=generator.device,
    )
    ends = inner.new_tensor([0, axes["total"]])
    return torch.cat((inner, ends)).sort().values
