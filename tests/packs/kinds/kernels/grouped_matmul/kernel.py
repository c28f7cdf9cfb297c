"""Runs of rows, each times a matrix of its own."""

import helion.language as hl
import torch


def grouped_matmul(x: torch.Tensor, weights: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    """Return x[o] @ weights[g] for the rows o from offsets[g] to offsets[g + 1].

    x is [t, k], weights are [g, k, n]; the result has the dtype of x.
    """
    total, k = x.size()
    num_groups, _, n = weights.size()
    out = torch.empty([total, n], dtype=x.dtype, device=x.device)
    for group in hl.grid(num_groups):
        for rows in hl.tile(offsets[group], offsets[group + 1]):
            for columns in hl.tile(n):
                acc = hl.zeros([rows, columns], dtype=torch.float32)
                for inner in hl.tile(k):
                    part = weights[group, inner, columns]
                    acc = torch.addmm(acc, x[rows, inner], part)
                out[rows, columns] = acc.to(out.dtype)
    return out
