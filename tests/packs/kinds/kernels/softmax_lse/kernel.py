"""Softmax of each row, and the logarithm of its sum where that is asked for."""

import helion.language as hl
import torch


def softmax_lse(input: torch.Tensor, lse: torch.Tensor | None = None) -> torch.Tensor:
    """Return the softmax of each row of input [r, w]; write log(sum(exp(row))) to lse [r]."""
    out = torch.empty_like(input)
    for rows in hl.tile(input.size(0)):
        x = input[rows, :].to(torch.float32)
        largest = torch.amax(x, dim=1)
        shares = torch.exp(x - largest[:, None])
        total = shares.sum(dim=1)
        out[rows, :] = (shares / total[:, None]).to(out.dtype)
        if lse is not None:
            lse[rows] = largest + torch.log(total)
    return out
