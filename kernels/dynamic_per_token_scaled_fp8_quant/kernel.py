"""FP8 quantisation with one scale per token: the Helion function."""

import helion.language as hl
import torch


def dynamic_per_token_scaled_fp8_quant(
    result: torch.Tensor,
    input: torch.Tensor,
    scale: torch.Tensor,
    scale_ub: torch.Tensor | None,
) -> None:
    """Quantise input [T, H] to result f8 [T, H], its scales to scale fp32 [T, 1].

    input is bf16, fp16 or fp32; scale_ub, an upper bound of max|x|, has one fp32
    element; +-448 is the range of float8_e4m3fn, 1 / (448 * 512) vLLM's smallest scale
    for it.
    """
    num_tokens, hidden_size = input.shape
    hl.specialize(hidden_size)
    if scale_ub is not None:
        bound = scale_ub.view(-1)
    for tile_m in hl.tile(num_tokens):
        x = input[tile_m, :].to(torch.float32)
        # Comparisons, not maximum and clamp: NaN is left out and becomes 448. No scale
        # is as small as the bound.
        magnitude = torch.abs(x)
        absmax = torch.where(magnitude > 1e-30, magnitude, 1e-30).amax(dim=-1)
        if scale_ub is not None:
            upper = bound[0]
            absmax = torch.where(upper < absmax, upper, absmax)
        # A GPU's fast division may be two units off. One step with what it leaves over
        # makes it exact, so that values halfway between codes go where they should. Of
        # a quotient that is out of range, as only a bound makes one, more is left than
        # one, or NaN, and it stays; over an infinite scale nothing is to be made exact.
        s = absmax / 448.0
        rest = absmax - s * 448.0
        s = torch.where(torch.abs(rest) < s, s + rest / 448.0, s)
        s = torch.clamp(s, min=1.0 / (448.0 * 512.0))
        scale[tile_m, 0] = s
        inverse = 1.0 / s[:, None]
        y = x * inverse
        if scale_ub is None:
            finite = torch.where(s < float("inf"), s, 0.0)[:, None]
            y = y + (x - y * finite) * inverse
        else:
            left = x - y * s[:, None]
            y = torch.where(torch.abs(left) < s[:, None], y + left * inverse, y)
        y = torch.where(y < 448.0, y, 448.0)
        y = torch.where(y > -448.0, y, -448.0)
        result[tile_m, :] = y.to(result.dtype)
