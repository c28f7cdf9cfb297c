"""Reference and fake implementation of silu_mul_fp8."""

import torch


def reference(input: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Return silu(input[..., :I]) * input[..., I:] / scale as float8_e4m3fn [..., I].

    Values beyond +-448, the range of float8_e4m3fn, saturate; NaN (also silu(-inf) and
    inf * 0) becomes 448, as fminf does in vLLM's scaled_fp8_conversion
    (quantization/w8a8/fp8/common.cuh).
    """
    gate, up = input.to(torch.float32).chunk(2, dim=-1)
    y = torch.nn.functional.silu(gate) * up / scale.view(-1)
    y = torch.nan_to_num(y, nan=448.0).clamp(-448.0, 448.0)
    return y.to(torch.float8_e4m3fn)
