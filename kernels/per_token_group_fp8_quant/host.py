"""Reference implementation of per_token_group_fp8_quant."""

import torch


def reference(
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

    As in vLLM's quantization/w8a8/fp8/per_token_group_quant.cu: NaN leaves the group's
    scale alone and becomes fp8_min (fmaxf comes first), infinity gives an infinite
    scale, with which finite values become 0 and infinities fp8_min; UE8M0 scales are
    made from 1e-10 at least.
    """
    num_tokens, hidden_size = input.shape
    x = input.to(torch.float32).view(num_tokens, hidden_size // group_size, group_size)
    absmax = x.abs().nan_to_num(nan=0.0, posinf=torch.inf).amax(dim=-1).clamp(min=eps)
    # By a tensor, for PyTorch multiplies by the reciprocal of a number on a GPU.
    scale = absmax / absmax.new_full((), fp8_max)
    if scale_ue8m0:
        mantissa, exponent = torch.frexp(scale.clamp(min=1e-10))  # mantissa in [0.5, 1)
        power = torch.ldexp(
            torch.ones_like(scale), exponent - (mantissa == 0.5).to(torch.int32)
        )
        scale = torch.where(scale.isinf(), scale, power)
    y = torch.nan_to_num(x / scale.unsqueeze(-1), nan=fp8_min).clamp(fp8_min, fp8_max)
    output_s.copy_(scale)
    output_q.copy_(y.flatten(-2))
