"""Scaled dot-product attention with an online softmax."""

import helion.language as hl
import torch


def attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scale: float,
    causal: bool = False,
) -> torch.Tensor:
    """Return softmax(query @ key.T * scale) @ value for each head, in the dtype of query.

    query is [h, q, d], key and value are [h, k, d]. With causal, a query sees the keys
    up to its own place.
    """
    num_heads, query_len, _ = query.size()
    key_len = key.size(1)
    head_dim = hl.specialize(query.size(2))
    out = torch.empty_like(query)
    for tile_h, tile_q in hl.tile([num_heads, query_len]):
        largest = hl.full([tile_h, tile_q], float("-inf"), dtype=torch.float32)
        weight = hl.zeros([tile_h, tile_q], dtype=torch.float32)
        total = hl.zeros([tile_h, tile_q, head_dim], dtype=torch.float32)
        rows = query[tile_h, tile_q, :]
        for tile_k in hl.tile(key_len):
            keys = key[tile_h, tile_k, :].transpose(1, 2)
            scores = hl.dot(rows, keys, out_dtype=torch.float32) * scale
            if causal:
                seen = tile_q.index[:, None] >= tile_k.index[None, :]
                scores = torch.where(seen[None, :, :], scores, float("-inf"))
            new = torch.maximum(largest, torch.amax(scores, dim=-1))
            shares = torch.exp(scores - new[:, :, None])
            fade = torch.exp(largest - new)
            weight = weight * fade + torch.sum(shares, dim=-1)
            total = total * fade[:, :, None]
            total = torch.baddbmm(total, shares.to(value.dtype), value[tile_h, tile_k, :])
            largest = new
        out[tile_h, tile_q, :] = (total / weight[:, :, None]).to(out.dtype)
    return out
