"""The reference of histogram."""

import torch


def reference(codes: torch.Tensor, num_bins: int) -> torch.Tensor:
    """Return the counts."""
    return torch.bincount(codes, minlength=num_bins).to(torch.int32)
