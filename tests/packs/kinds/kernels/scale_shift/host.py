"""The reference of scale_shift."""

import torch


def reference(
    input: torch.Tensor,
    factor: float,
    repeats: int,
    shift: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the result, step by step."""
    x = input
    for _ in range(repeats):
        x = x * factor + (0.0 if shift is None else shift)
    return x
