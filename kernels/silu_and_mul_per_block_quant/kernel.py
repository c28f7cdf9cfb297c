"""SiLU-and-multiply, quantised with one scale per token and group."""

import helion.language as hl
import torch


def silu_and_mul_per_block_quant(
    out: torch.Tensor,
    input: torch.Tensor,
    scales: torch.Tensor,
    group_size: int,
    scale_ub: torch.Tensor | None = None,
    is_scale_transposed: bool = False,
) -> None:
    """Quantise silu(input[:, :I]) * input[:, I:] to out f8 or int8 [T, I].

    input is bf16, fp16 or fp32 [T, 2I]; scales, fp32 [T, I / group_size], may have any
    strides; scale_ub, an upper bound of max|y|, has one fp32 element. +-448 is the
    range of float8_e4m3fn; the smallest scales, 1 / (448 * 512) and the epsilon of
    float32, 2**-23, are vLLM's.
    """
    num_tokens, width = input.shape
    size = hl.specialize(group_size)
    num_groups = hl.specialize(width) // (2 * size)
    halves = input.view(num_tokens, 2, num_groups, size)
    codes = out.view(num_tokens, num_groups, size)
    if scale_ub is not None:
        bound = scale_ub.view(-1)
    for tile_g, tile_m in hl.tile([num_groups, num_tokens]):
        a = halves[tile_m, 0, tile_g, :].to(torch.float32)
        b = halves[tile_m, 1, tile_g, :].to(torch.float32)
        y = a * torch.sigmoid(a) * b
        # Comparisons, not maximum and clamp: NaN is left out and becomes 448, or 0. No
        # scale is as small as the bound.
        magnitude = torch.abs(y)
        absmax = torch.amax(torch.where(magnitude > 1e-30, magnitude, 1e-30), dim=-1)
        if scale_ub is not None:
            upper = bound[0]
            absmax = torch.where(upper < absmax, upper, absmax)
        if out.dtype == torch.int8:
            scale = torch.clamp(absmax / 127.0, min=2.0**-23)
            y = y * (1.0 / scale)[:, :, None]
            y = torch.round(torch.where(y == y, y, 0.0))
            y = torch.where(y < 127.0, y, 127.0)
            y = torch.where(y > -128.0, y, -128.0)
        else:
            scale = torch.clamp(absmax / 448.0, min=1.0 / (448.0 * 512.0))
            y = y * (1.0 / scale)[:, :, None]
            y = torch.where(y < 448.0, y, 448.0)
            y = torch.where(y > -448.0, y, -448.0)
        scales[tile_m, tile_g] = scale
        codes[tile_m, tile_g, :] = y.to(out.dtype)
