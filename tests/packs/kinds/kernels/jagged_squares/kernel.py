"""The sums of the squares of the first numbers of each row, by a jagged loop."""

import helion.language as hl
import torch


def jagged_squares(values: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Return the sums of squares of values[i, : lengths[i]], float32 [r]."""
    num_rows = values.size(0)
    out = torch.empty([num_rows], dtype=torch.float32, device=values.device)
    for rows in hl.tile(num_rows):
        length = lengths[rows]
        total = hl.zeros([rows], dtype=torch.float32)
        for columns in hl.jagged_tile(length):
            x = values[rows, columns]
            total = total + (x * x).sum(dim=1)
        out[rows] = total
    return out
