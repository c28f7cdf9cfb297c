"""RMSNorm, optionally after a residual add, quantised with one scale per token."""

import helion.language as hl
import torch


def rms_norm_dynamic_per_token_quant(
    result: torch.Tensor,
    input: torch.Tensor,
    weight: torch.Tensor,
    scale: torch.Tensor,
    epsilon: float,
    scale_ub: torch.Tensor | None,
    residual: torch.Tensor | None,
) -> None:
    """Write codes to result [T, H], scales to scale [T, 1], the sum to residual.

    A program holds whole rows. As in vLLM's CUDA op, a NaN passes for no value in the
    maximum and becomes 448 in f8, 0 in int8.
    """
    num_tokens = input.size(0)
    hidden_size = hl.specialize(input.size(1))
    is_int8 = result.dtype == torch.int8
    quant_max = 127.0 if is_int8 else 448.0
    min_scale = 2.0**-23 if is_int8 else 1.0 / (448.0 * 512.0)
    scale_column = scale[:, 0]
    if scale_ub is not None:
        upper = scale_ub.view(-1)

    for tile_m in hl.tile(num_tokens):
        x = input[tile_m, :].to(torch.float32)
        if residual is not None:
            x = x + residual[tile_m, :].to(torch.float32)
        rms = torch.rsqrt((x * x).sum(-1) / hidden_size + epsilon)
        normed = (x * rms[:, None]).to(input.dtype).to(torch.float32)
        y = (
            (normed * weight[None, :].to(torch.float32))
            .to(input.dtype)
            .to(torch.float32)
        )

        # Of NaN and of what no scale is as small as, the bound: one instruction.
        magnitude = torch.abs(y)
        largest = torch.amax(torch.where(magnitude > 1e-30, magnitude, 1e-30), -1)
        if scale_ub is not None:
            bound = upper[0]
            largest = torch.where(bound < largest, bound, largest)
        # A GPU's fast division may be two units off. One step with what it leaves over
        # makes it exact, so that values halfway between codes go where they should. Of
        # a quotient that is out of range, as only a bound makes one, more is left than
        # one, or NaN, and it stays; over an infinite scale nothing is to be made exact.
        s = largest / quant_max
        rest = largest - s * quant_max
        s = torch.where(torch.abs(rest) < s, s + rest / quant_max, s)
        s = torch.clamp(s, min=min_scale)
        scale_column[tile_m] = s

        inverse = 1.0 / s[:, None]
        q = y * inverse
        if scale_ub is None:
            finite = torch.where(s < float("inf"), s, 0.0)[:, None]
            q = q + (y - q * finite) * inverse
        else:
            left = y - q * s[:, None]
            q = torch.where(torch.abs(left) < s[:, None], q + left * inverse, q)
        # A NaN becomes 448, or 0 in int8. Comparisons, not clamp, which looks for NaN.
        # Only a bound lets quotients out of the range, and int8 takes none.
        if is_int8:
            q = torch.where(q == q, q, 0.0)
            # The lowest byte of the sum is the nearest whole number, ties to even.
            whole = (q + 1.5 * 2.0**23).view(torch.int32)
            result[tile_m, :] = whole.to(torch.int8)
        else:
            q = torch.where(q < 448.0, q, 448.0)
            if scale_ub is not None:
                q = torch.where(q > -448.0, q, -448.0)
            result[tile_m, :] = q.to(result.dtype)
        if residual is not None:
            residual[tile_m, :] = x.to(residual.dtype)
