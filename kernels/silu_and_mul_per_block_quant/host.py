"""Reference implementation of silu_and_mul_per_block_quant."""

import torch


def reference(
    out: torch.Tensor,
    input: torch.Tensor,
    scales: torch.Tensor,
    group_size: int,
    scale_ub: torch.Tensor | None = None,
    is_scale_transposed: bool = False,
) -> None:
    """Quantise silu(input[:, :I]) * input[:, I:] to out f8 or int8 [T, I], in groups.

    scales is fp32 [T, I / group_size], of any strides. As in vLLM's
    fused_silu_mul_block_quant.cu and quant_conversions.cuh: NaN (also of silu(-inf),
    inf * 0 and inf / inf) leaves the scale alone and becomes 448 in f8 and 0 in int8;
    infinity without scale_ub gives an infinite scale, with which finite values become
    0. 448 is the range of f8; the smallest scales, 1 / (448 * 512) and the epsilon of
    float32, are vLLM's. scale_ub bounds max|y|, as in rms_norm_per_block_quant.
    """
    gate, up = input.to(torch.float32).chunk(2, dim=-1)
    num_tokens, size = out.shape
    y = torch.nn.functional.silu(gate) * up
    y = y.view(num_tokens, size // group_size, group_size)
    absmax = y.abs().nan_to_num(nan=0.0, posinf=torch.inf).amax(dim=-1)
    if scale_ub is not None:
        absmax = torch.fmin(absmax, scale_ub.view(-1))
    # By a tensor, for PyTorch multiplies by the reciprocal of a number on a GPU.
    maximum = absmax.new_full((), 127.0 if out.dtype == torch.int8 else 448.0)
    if out.dtype == torch.int8:
        scale = (absmax / maximum).clamp(min=torch.finfo(torch.float32).eps)
        q = (
            torch.nan_to_num(y / scale.unsqueeze(-1), nan=0.0)
            .round()
            .clamp(-128.0, 127.0)
        )
    else:
        scale = (absmax / maximum).clamp(min=1.0 / (448.0 * 512.0))
        q = torch.nan_to_num(y / scale.unsqueeze(-1), nan=448.0).clamp(-448.0, 448.0)
    scales.copy_(scale)
    out.copy_(q.flatten(-2))
