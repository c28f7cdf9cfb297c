"""A linear recurrence along the rows, as an associative scan of pairs."""

import helion.language as hl
import torch


def combine(
    left_decay: torch.Tensor,
    left: torch.Tensor,
    right_decay: torch.Tensor,
    right: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return two steps of the recurrence as one."""
    return left_decay * right_decay, left * right_decay + right


def linear_recurrence(decay: torch.Tensor, input: torch.Tensor) -> torch.Tensor:
    """Return y[r, i] = decay[r, i] * y[r, i - 1] + input[r, i], float32."""
    out = torch.empty_like(input)
    for rows in hl.tile(input.size(0)):
        pair = (decay[rows, :], input[rows, :])
        _, y = hl.associative_scan(combine, pair, dim=1)
        out[rows, :] = y
    return out
