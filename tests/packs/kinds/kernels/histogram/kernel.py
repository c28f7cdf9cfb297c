"""How often each code occurs."""

import helion.language as hl
import torch


def histogram(codes: torch.Tensor, num_bins: int) -> torch.Tensor:
    """Return how often each of 0 to num_bins - 1 is in codes [s], int32 [num_bins]."""
    counts = torch.zeros([num_bins], dtype=torch.int32, device=codes.device)
    for tile in hl.tile(codes.size(0)):
        hl.atomic_add(counts, [codes[tile]], 1)
    return counts
