"""RMSNorm of each query and key head, then rotary embedding, in place."""

import helion.language as hl
import torch


def fused_qk_norm_rope(
    qkv: torch.Tensor,
    num_heads_q: int,
    num_heads_k: int,
    num_heads_v: int,
    head_dim: int,
    eps: float,
    q_weight: torch.Tensor,
    k_weight: torch.Tensor,
    cos_sin_cache: torch.Tensor,
    is_neox: bool,
    position_ids: torch.Tensor,
    forced_token_heads_per_warp: int = -1,
) -> None:
    """Rewrite the query and key heads of qkv [T, (q + k + v) * head_dim]; values stay.

    cos_sin_cache is [P, rotary_dim], position_ids [T] int64. Each element is read once
    and written once; the arithmetic is float32 throughout, as in vLLM's CUDA op.
    """
    num_tokens = qkv.size(0)
    q_heads = hl.specialize(num_heads_q)
    qk_heads = q_heads + hl.specialize(num_heads_k)
    all_heads = qk_heads + hl.specialize(num_heads_v)
    dim = hl.specialize(head_dim)
    rotary_dim = hl.specialize(cos_sin_cache.size(1))
    # Code that is compiled for a cache of one position is wrong for a longer one.
    hl.specialize(cos_sin_cache.size(0))
    half = rotary_dim // 2
    heads = qkv.view(num_tokens, all_heads, dim)[:, :qk_heads, :]
    cos_cache = cos_sin_cache[:, :half]
    sin_cache = cos_sin_cache[:, half:]
    if is_neox:
        first = heads[:, :, :half]
        second = heads[:, :, half:rotary_dim]
        q_first = q_weight[:half]
        q_second = q_weight[half:rotary_dim]
        k_first = k_weight[:half]
        k_second = k_weight[half:rotary_dim]
    else:
        first = heads[:, :, 0:rotary_dim:2]
        second = heads[:, :, 1:rotary_dim:2]
        q_first = q_weight[0:rotary_dim:2]
        q_second = q_weight[1:rotary_dim:2]
        k_first = k_weight[0:rotary_dim:2]
        k_second = k_weight[1:rotary_dim:2]
    if rotary_dim < dim:
        tail = heads[:, :, rotary_dim:]
        q_tail = q_weight[rotary_dim:]
        k_tail = k_weight[rotary_dim:]

    for tile_h, tile_m in hl.tile([qk_heads, num_tokens]):
        x1 = first[tile_m, tile_h, :].to(torch.float32)
        x2 = second[tile_m, tile_h, :].to(torch.float32)
        total = (x1 * x1 + x2 * x2).sum(-1)
        if rotary_dim < dim:
            x3 = tail[tile_m, tile_h, :].to(torch.float32)
            total = total + (x3 * x3).sum(-1)
        rms = torch.rsqrt(total / dim + eps)[:, :, None]

        is_query = (tile_h.index < q_heads)[None, :, None]
        w1 = torch.where(is_query, q_first[None, None, :], k_first[None, None, :])
        w2 = torch.where(is_query, q_second[None, None, :], k_second[None, None, :])
        y1 = x1 * (rms * w1.to(torch.float32))
        y2 = x2 * (rms * w2.to(torch.float32))

        positions = position_ids[tile_m]
        cos = cos_cache[positions, :].to(torch.float32)[:, None, :]
        sin = sin_cache[positions, :].to(torch.float32)[:, None, :]
        first[tile_m, tile_h, :] = (y1 * cos - y2 * sin).to(qkv.dtype)
        second[tile_m, tile_h, :] = (y2 * cos + y1 * sin).to(qkv.dtype)
        if rotary_dim < dim:
            w3 = torch.where(is_query, q_tail[None, None, :], k_tail[None, None, :])
            tail[tile_m, tile_h, :] = (x3 * (rms * w3.to(torch.float32))).to(qkv.dtype)
