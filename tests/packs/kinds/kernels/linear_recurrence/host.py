"""The reference of linear_recurrence."""

import torch


def reference(decay: torch.Tensor, input: torch.Tensor) -> torch.Tensor:
    """Return the recurrence, step by step."""
    out = torch.empty_like(input)
    state = torch.zeros_like(input[:, 0])
    for place in range(input.size(1)):
        state = decay[:, place] * state + input[:, place]
        out[:, place] = state
    return out
