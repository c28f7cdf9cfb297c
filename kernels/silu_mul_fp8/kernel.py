"""SiLU-and-multiply, quantised to FP8 with one given scale: the Helion function."""

import helion.language as hl
import torch


def silu_mul_fp8(input: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Return silu(input[..., :I]) * input[..., I:] / scale as float8_e4m3fn [..., I].

    input is bf16, fp16 or fp32 [..., 2I], scale is fp32 [1]; +-448 is the range of
    float8_e4m3fn.
    """
    width = hl.specialize(input.shape[-1])
    size = width // 2
    rows = input.view(-1, width)
    gate = rows[:, :size]
    up = rows[:, size:]
    divisor = scale.view(-1)
    out = torch.empty(
        [rows.shape[0], size], dtype=torch.float8_e4m3fn, device=input.device
    )
    for tile_n, tile_m in hl.tile([size, rows.shape[0]]):
        a = gate[tile_m, tile_n].to(torch.float32)
        b = up[tile_m, tile_n].to(torch.float32)
        # A scale may be too small for a reciprocal; a power of two lifts both sides.
        s = divisor[0]
        lift = torch.where(s < 2.0**-100, 2.0**64, 1.0)
        y = a * torch.sigmoid(a) * b * lift * (1.0 / (s * lift))
        # Comparisons, not clamp: NaN becomes 448, as with CUDA's fminf.
        y = torch.where(y < 448.0, y, 448.0)
        y = torch.where(y > -448.0, y, -448.0)
        out[tile_m, tile_n] = y.to(torch.float8_e4m3fn)
    return out.view((*input.shape[:-1], size))
