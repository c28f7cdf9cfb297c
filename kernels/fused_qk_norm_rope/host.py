"""Reference and inputs of fused_qk_norm_rope."""

from collections.abc import Mapping
from typing import Any

import torch


def reference(
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
    """Rewrite the query and key heads of qkv [T, (q + k + v) * head_dim].

    As in vLLM's CUDA op (csrc, fused_qknorm_rope_kernel.cu), all arithmetic is float32
    and the only rounding to the dtype of qkv is the last; cos_sin_cache [P, rotary_dim]
    may have a dtype of its own, position_ids [T] is int64. NaN and infinity spread by
    plain arithmetic.
    """
    rotary_dim = cos_sin_cache.size(1)
    all_heads = num_heads_q + num_heads_k + num_heads_v
    heads = qkv.view(qkv.size(0), all_heads, head_dim)[:, : num_heads_q + num_heads_k]
    weight = torch.cat(
        (q_weight.expand(num_heads_q, -1), k_weight.expand(num_heads_k, -1))
    )
    x = heads.float()
    rms = torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)
    x = x * (rms * weight.float())

    cos, sin = cos_sin_cache[position_ids].float().unsqueeze(1).chunk(2, -1)
    if is_neox:
        first, second = x[..., :rotary_dim].chunk(2, -1)
    else:
        first, second = x[..., 0:rotary_dim:2], x[..., 1:rotary_dim:2]
    rotated = torch.stack(
        (first * cos - second * sin, second * cos + first * sin), -2 if is_neox else -1
    )
    heads.copy_(torch.cat((rotated.flatten(-2), x[..., rotary_dim:]), -1))


def cos_sin_cache(
    axes: Mapping[str, Any], args: Mapping[str, Any], generator: torch.Generator
) -> torch.Tensor:
    """Return RoPE's cosines, then sines: [max_position, rotary_dim], of base 10000."""
    device = generator.device
    even = torch.arange(0, axes["rotary_dim"], 2, dtype=torch.float32, device=device)
    inverse_frequency = 10000.0 ** (-even / axes["rotary_dim"])
    position = torch.arange(axes["max_position"], dtype=torch.float32, device=device)
    angle = torch.outer(position, inverse_frequency)
    dtype: torch.dtype = getattr(torch, axes["cache_dtype"])
    return torch.cat((angle.cos(), angle.sin()), -1).to(dtype)
