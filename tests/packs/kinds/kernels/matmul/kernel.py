"""The product of two matrices."""

import helion.language as hl
import torch


def matmul(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Return x [m, k] times y [k, n], summed in float32, in the dtype of x."""
    m, k = x.size()
    n = y.size(1)
    out = torch.empty([m, n], dtype=x.dtype, device=x.device)
    for rows, columns in hl.tile([m, n]):
        total = hl.zeros([rows, columns], dtype=torch.float32)
        for inner in hl.tile(k):
            total = torch.addmm(total, x[rows, inner], y[inner, columns])
        out[rows, columns] = total.to(out.dtype)
    return out
