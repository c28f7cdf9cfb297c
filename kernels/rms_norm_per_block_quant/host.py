"""Reference of rms_norm_per_block_quant."""

import torch


def reference(
    result: torch.Tensor,
    input: torch.Tensor,
    weight: torch.Tensor,
    scale: torch.Tensor,
    epsilon: float,
    scale_ub: torch.Tensor | None,
    residual: torch.Tensor | None,
    group_size: int,
    is_scale_transposed: bool,
) -> None:
    """Write result [T, H] f8 or int8, scale [T, H / g] f32, residual [T, H] if given.

    Rounding points, constants and the treatment of NaN are those of vLLM's CUDA op
    (csrc, fused_kernels/layernorm_utils.cuh and quant_conversions.cuh): the float32 sum
    is normalised before residual is rounded; the normalised value and its product with
    weight are each rounded to the input dtype; a maximum passes over NaN; a NaN
    quotient gives 448 in f8 and 0 in int8. The least scale is 1 / (448 * 512) for f8
    and 2**-23 for int8.
    """
    is_int8 = result.dtype == torch.int8
    quant_max, min_scale = (
        (127.0, 2.0**-23) if is_int8 else (448.0, 1.0 / (448.0 * 512.0))
    )
    x = input.float()
    if residual is not None:
        x = x + residual.float()
        residual.copy_(x)
    rms = torch.rsqrt(x.square().mean(-1, keepdim=True) + epsilon)
    y = ((x * rms).to(input.dtype) * weight).float()
    y = y.view(input.size(0), input.size(1) // group_size, group_size)

    s = torch.fmax(y.abs(), y.new_zeros(())).amax(-1)
    if scale_ub is not None:
        s = torch.fmin(s, scale_ub.view(-1))
    # By a tensor, for PyTorch multiplies by the reciprocal of a number on a GPU.
    s = (s / s.new_full((), quant_max)).clamp(min=min_scale)
    scale.copy_(s)
    q = (y / s.unsqueeze(-1)).flatten(-2)
    if is_int8:
        q = q.round().clamp(-128.0, 127.0).nan_to_num(0.0)
    else:
        q = q.nan_to_num(quant_max).clamp(-quant_max, quant_max)
    result.copy_(q.to(result.dtype))
