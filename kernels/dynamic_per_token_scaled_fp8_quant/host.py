"""Reference implementation of dynamic_per_token_scaled_fp8_quant."""

import torch


def reference(
    result: torch.Tensor,
    input: torch.Tensor,
    scale: torch.Tensor,
    scale_ub: torch.Tensor | None,
) -> None:
    """Quantise input [T, H] to result f8 [T, H], its scales to scale fp32 [T, 1].

    As in vLLM's quantization/w8a8/fp8/common.cu: NaN (in the input, or of inf / inf)
    leaves the scale alone and becomes 448, infinity without scale_ub gives an infinite
    scale, with which finite values become 0; a scale is 1 / (448 * 512) at least, where
    448 is the range of f8.
    """
    x = input.to(torch.float32)
    absmax = x.abs().nan_to_num(nan=0.0, posinf=torch.inf).amax(dim=-1, keepdim=True)
    if scale_ub is not None:
        absmax = torch.fmin(absmax, scale_ub.view(-1))
    # By a tensor, for PyTorch multiplies by the reciprocal of a number on a GPU.
    s = (absmax / absmax.new_full((), 448.0)).clamp(min=1.0 / (448.0 * 512.0))
    y = torch.nan_to_num(x / s, nan=448.0).clamp(-448.0, 448.0)
    scale.copy_(s)
    result.copy_(y)
