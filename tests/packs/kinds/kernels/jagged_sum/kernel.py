"""The sums of runs of rows, which offsets delimit."""

import helion.language as hl
import torch


def jagged_sum(values: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    """Return the sums of values [t, w] from offsets[i] to offsets[i + 1] as [r, w]."""
    num_runs = offsets.size(0) - 1
    width = values.size(1)
    out = torch.empty([num_runs, width], dtype=values.dtype, device=values.device)
    for run, columns in hl.tile([num_runs, width]):
        start = offsets[run]
        length = offsets[run.index + 1] - start
        total = hl.zeros([run, columns], dtype=torch.float32)
        for place in hl.tile(0, length.amax()):
            row = start[:, None] + place.index[None, :]
            inside = place.index[None, :] < length[:, None]
            part = hl.load(values, [row, columns], extra_mask=inside[:, :, None])
            total = total + part.to(torch.float32).sum(dim=1)
        out[run, columns] = total.to(out.dtype)
    return out
