"""Softmax of each row in two passes over blocks of it."""

import helion.language as hl
import torch


def softmax_two_pass(input: torch.Tensor) -> torch.Tensor:
    """Return the softmax of each row of input [r, w], in its dtype."""
    num_rows, width = input.size()
    out = torch.empty_like(input)
    for rows in hl.tile(num_rows):
        largest = hl.full([rows], float("-inf"), dtype=torch.float32)
        total = hl.zeros([rows], dtype=torch.float32)
        for columns in hl.tile(width):
            x = input[rows, columns].to(torch.float32)
            new = torch.maximum(largest, torch.amax(x, dim=1))
            shares = torch.exp(x - new[:, None]).sum(dim=1)
            total = total * torch.exp(largest - new) + shares
            largest = new
        for columns in hl.tile(width):
            x = input[rows, columns].to(torch.float32)
            y = torch.exp(x - largest[:, None]) / total[:, None]
            out[rows, columns] = y.to(out.dtype)
    return out
