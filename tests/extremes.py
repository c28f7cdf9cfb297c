"""Calls of the ops that quantise, with values at the ends of what floats can say.

What is right follows from the scale that the op wrote: a code is that of the exact quotient, or the
next one to it.
"""

from __future__ import annotations

import random
from typing import Any

import torch

F8 = torch.float8_e4m3fn
DTYPES = (torch.bfloat16, torch.float16, torch.float32)
GROUP, WIDTH = 64, 128
NAMES = (
    "dynamic_per_token_scaled_fp8_quant",
    "per_token_group_fp8_quant",
    "rms_norm_dynamic_per_token_quant",
    "rms_norm_per_block_quant",
    "silu_and_mul_per_block_quant",
    "silu_mul_fp8",
)


def rows(rng: random.Random, dtype: torch.dtype, *shape: int) -> torch.Tensor:
    """Return finite values of each magnitude that a dtype has, each row of one or of all."""
    info = torch.finfo(dtype)
    ends = (info.smallest_normal / 2**7, info.smallest_normal, 1e-4, 1.0, 448.0, 1e3, info.max)
    count = torch.Size(shape).numel() // shape[-1]
    found = []
    for _ in range(count):
        size = rng.choice(ends)
        mixed = rng.random() < 0.3
        found.append(
            [
                rng.choice((-1, 0, 1)) * min((rng.choice(ends) if mixed else size), info.max)
                * rng.choice((1.0, rng.random()))
                for _ in range(shape[-1])
            ]
        )  # fmt: skip
    return torch.tensor(found, dtype=torch.float64).clamp(info.min, info.max).to(dtype).view(shape)


def arguments(name: str, seed: int, device: str = "cpu") -> tuple[Any, ...]:
    """Return the arguments of one call of an op."""
    rng = random.Random(f"{name} {seed}")
    dtype = rng.choice(DTYPES)
    eight = torch.int8 if name.startswith("rms") and rng.random() < 0.3 else F8
    bound = None
    if eight == F8 and rng.random() < 0.5:
        bound = torch.tensor([rng.choice((2.0, 1e-30, 1e30))], device=device)
    x = rows(rng, dtype, 4, WIDTH).to(device)
    scales = torch.zeros(4, WIDTH // GROUP, device=device)
    codes = torch.zeros(4, WIDTH, dtype=eight, device=device)
    weight = rows(rng, dtype, 1, WIDTH).view(-1).to(device)
    if name == "dynamic_per_token_scaled_fp8_quant":
        return codes, x, scales[:, :1].contiguous(), bound
    if name == "per_token_group_fp8_quant":
        eps, powers = rng.choice((1e-30, 1e-10)), rng.random() < 0.3
        return x, codes, scales, GROUP, eps, -448.0, 448.0, powers
    if name == "rms_norm_dynamic_per_token_quant":
        return codes, x, weight, scales[:, :1].contiguous(), 1e-6, bound, None
    if name == "rms_norm_per_block_quant":
        return codes, x, weight, scales, 1e-6, bound, None, GROUP, False
    both = rows(rng, dtype, 4, 2 * WIDTH).to(device)
    if name == "silu_and_mul_per_block_quant":
        return codes, both, scales, GROUP, bound
    return both, torch.tensor([rng.choice((1e-40, 1e-3, 1.0, 1e30))], device=device)


def quantised(name: str, args: tuple[Any, ...]) -> torch.Tensor:
    """Return what an op divides by its scales, in float32 as it has it."""
    if name == "dynamic_per_token_scaled_fp8_quant":
        return args[1].float()
    if name == "per_token_group_fp8_quant":
        return args[0].float()
    if name.startswith("rms"):
        x, weight = args[1].float(), args[2].float()
        rms = torch.rsqrt((x * x).sum(-1) / WIDTH + args[4])
        normed = (x * rms[:, None]).to(args[1].dtype).float()
        return (normed * weight).to(args[1].dtype).float()
    x = args[1] if name.startswith("silu_and") else args[0]
    gate, up = x.float().chunk(2, dim=-1)
    return gate * torch.sigmoid(gate) * up


def written(name: str, args: tuple[Any, ...], result: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the codes and the scales of a call."""
    if name == "silu_mul_fp8":
        return result, args[1]
    places = {"per_token_group_fp8_quant": (1, 2), "silu_and_mul_per_block_quant": (0, 2)}
    codes, scales = places.get(name, (0, 3 if name.startswith("rms") else 2))
    return args[codes], args[scales]


def wrong(name: str, args: tuple[Any, ...], result: Any) -> str | None:
    """Say which code is not that of its quotient nor next to it, or return None."""
    values = quantised(name, args).double()
    codes, scales = written(name, args, result)
    each = scales.double().reshape(-1, scales.shape[-1])
    each = each.repeat_interleave(values.shape[-1] // each.shape[-1], -1)
    quotients = values / each
    least, most = (-128, 127) if codes.dtype == torch.int8 else (-448, 448)
    exact = quotients.clamp(least, most)
    got = codes.double()
    # Steps of FP8 are an eighth of a power of two, and 2**-9 below the normal numbers.
    step = 1.0 if codes.dtype == torch.int8 else torch.clamp(exact.abs() / 8, min=2.0**-9)
    off = ((got - exact).abs() > step) & quotients.isfinite() & values.isfinite()
    off |= got.isnan() & values.isfinite() & (each > 0)
    if not off.any():
        return None
    place = tuple(off.nonzero()[0].tolist())
    return (
        f"{name}, {args[0].dtype}: {values[place].item()} of scale {each.expand_as(values)[place]} "
        f"has code {got[place].item()}, and {exact[place].item()} is exact"
    )
