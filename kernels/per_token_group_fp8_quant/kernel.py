"""FP8 quantisation with one scale per token and group: the Helion function."""

import helion.language as hl
import torch


def per_token_group_fp8_quant(
    input: torch.Tensor,
    output_q: torch.Tensor,
    output_s: torch.Tensor,
    group_size: int,
    eps: float,
    fp8_min: float,
    fp8_max: float,
    scale_ue8m0: bool,
    dummy_is_scale_transposed: bool = False,
    dummy_is_tma_aligned: bool = False,
) -> None:
    """Quantise input [T, H] to output_q f8 [T, H]; scales to output_s fp32 [T, H / g].

    input is bf16, fp16 or fp32; output_s may have any strides.
    """
    num_tokens, hidden_size = input.shape
    size = hl.specialize(group_size)
    num_groups = hl.specialize(hidden_size) // size
    groups = input.view(num_tokens, num_groups, size)
    codes = output_q.view(num_tokens, num_groups, size)
    for tile_g, tile_m in hl.tile([num_groups, num_tokens]):
        x = groups[tile_m, tile_g, :].to(torch.float32)
        # A comparison, not maximum: NaN leaves the scale alone, as with CUDA's fmaxf.
        # No `eps` is below the bound.
        magnitude = torch.abs(x)
        absmax = torch.where(magnitude > 1e-30, magnitude, 1e-30).amax(dim=-1)
        absmax = torch.clamp(absmax, min=eps)
        # A GPU's fast division may be two units off. One step with what it leaves over
        # makes it exact, so that values halfway between codes go where they should;
        # over an infinite scale nothing is to be made exact.
        scale = absmax / fp8_max
        rest = absmax - scale * fp8_max
        scale = torch.where(rest == rest, scale + rest / fp8_max, scale)
        if scale_ue8m0:
            # The smallest 2**k >= max(absmax / fp8_max, 1e-10), exactly (1e-10 is
            # vLLM's): the difference of two floats' bits is that of their exponents in
            # the upper 9 bits, plus a fraction that 0x7FFFFF rounds up; 0x3F800000 is
            # 1.0, 0x7F800000 infinity.
            dividend = torch.clamp(absmax, min=1e-10 * fp8_max).view(torch.int32)
            divisor = torch.full_like(absmax, fp8_max).view(torch.int32)
            power = ((dividend - divisor + 0x7FFFFF) & -0x800000) + 0x3F800000
            scale = torch.where(dividend < 0x7F800000, power, dividend).view(
                torch.float32
            )
        # Also for NaN, which becomes fp8_min. No upper clamp: the scale is no less than
        # absmax / fp8_max, but for a rounding error far below half a step.
        inverse = 1.0 / scale[:, :, None]
        y = x * inverse
        finite = torch.where(scale < float("inf"), scale, 0.0)[:, :, None]
        y = y + (x - y * finite) * inverse
        y = torch.where(y > fp8_min, y, fp8_min)
        output_s[tile_m, tile_g] = scale
        codes[tile_m, tile_g, :] = y.to(output_q.dtype)
