"""RMS norms of queries and keys in place, by two loops of one kernel."""

import helion.language as hl
import torch


def query_key_norm(query: torch.Tensor, key: torch.Tensor, epsilon: float = 1e-6) -> None:
    """Replace the rows of query [q, d] and key [k, d] by their norms."""
    head_dim = hl.specialize(query.size(1))
    for tile in hl.tile(query.size(0)):
        x = query[tile, :].to(torch.float32)
        scale = torch.rsqrt(torch.sum(x * x, dim=-1) / head_dim + epsilon)
        query[tile, :] = (x * scale[:, None]).to(query.dtype)
    for tile in hl.tile(key.size(0)):
        x = key[tile, :].to(torch.float32)
        scale = torch.rsqrt(torch.sum(x * x, dim=-1) / head_dim + epsilon)
        key[tile, :] = (x * scale[:, None]).to(key.dtype)
