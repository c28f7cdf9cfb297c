"""The reference of transpose."""

import torch


def reference(input: torch.Tensor) -> torch.Tensor:
    """Return the transpose."""
    return input.transpose(1, 2).contiguous()
