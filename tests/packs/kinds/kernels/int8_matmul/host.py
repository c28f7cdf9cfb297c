"""Reference and inputs of int8_matmul."""

from typing import Any

import torch


def reference(x: torch.Tensor, weight: torch.Tensor, scale: float) -> torch.Tensor:
    """Return the scaled product; float64 holds each sum exactly."""
    return ((x.double() @ weight.double()).float() * scale).to(torch.float16)


def codes(axes: dict[str, Any], args: dict[str, Any], generator: torch.Generator) -> torch.Tensor:
    """Return x, codes of both signs."""
    shape = (axes["m"], axes["k"])
    drawn = torch.randint(-8, 8, shape, generator=generator, device=generator.device)
    return drawn.to(torch.int8)
