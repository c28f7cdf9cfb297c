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
    for tile_h, tile_q in hl.tile([num_heads, query_len], block_size=[1, None]):
        head = tile_h.begin
        largest = hl.full([tile_q], float("-inf"), dtype=torch.float32)
        weight = hl.zeros([tile_q], dtype=torch.float32)
        total = hl.zeros([tile_q, head_dim], dtype=torch.float32)
        rows = query[head, tile_q, :]
        for tile_k in hl.tile(key_len):
            keys = key[head, tile_k, :].T
            scores = hl.dot(rows, keys, out_dtype=torch.float32) * scale
            if causal:
                seen = tile_q.index[:, None] >= tile_k.index[None, :]
                scores = torch.where(seen, scores, float("-inf"))
            new = torch.maximum(largest, torch.amax(scores, dim=-1))
            shares = torch.exp(scores - new[:, None])
            fade = torch.exp(largest - new)
            weight = weight * fade + torch.sum(shares, dim=-1)
            total = total * fade[:, None]
            total = torch.addmm(total, shares.to(value.dtype), value[head, tile_k, :])
            largest = new
        out[head, tile_q, :] = (total / weight[:, None]).to(out.dtype)
    return out
