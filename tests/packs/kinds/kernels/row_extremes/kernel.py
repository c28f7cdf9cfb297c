"""The least and the largest number of each row, and the place of the largest."""

import helion.language as hl
import torch


def row_extremes(
    input: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the least, the largest and the place of the largest of input [r, w], each [r]."""
    num_rows = input.size(0)
    least = torch.empty([num_rows], dtype=input.dtype, device=input.device)
    largest = torch.empty_like(least)
    place = torch.empty([num_rows], dtype=torch.int64, device=input.device)
    for rows in hl.tile(num_rows):
        x = input[rows, :]
        least[rows] = torch.amin(x, dim=-1)
        largest[rows] = torch.amax(x, dim=-1)
        place[rows] = torch.argmax(x, dim=-1)
    return least, largest, place
