"""The means of runs of numbers, which offsets delimit."""

import helion.language as hl
import torch


def jagged_mean(values: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    """Return the mean of values [t] from offsets[i] to offsets[i + 1], 0 where it is empty."""
    num_runs = offsets.size(0) - 1
    out = torch.empty([num_runs], dtype=torch.float32, device=values.device)
    for run in hl.tile(num_runs):
        start = offsets[run]
        length = offsets[run.index + 1] - start
        total = hl.zeros([run], dtype=torch.float32)
        for place in hl.tile(0, length.amax()):
            index = start[:, None] + place.index[None, :]
            inside = place.index[None, :] < length[:, None]
            total = total + hl.load(values, [index], extra_mask=inside).sum(dim=1)
        count = torch.where(length > 0, length, 1).to(torch.float32)
        out[run] = total / count
    return out
