"""The gradients of an op held against those that PyTorch computes through its reference."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from kernelpkg.bench.inputs import make_inputs, seed
from kernelpkg.bench.reference import bounds_of, compare, rounded
from kernelpkg.manifest.backward import bind
from kernelpkg.manifest.cases import Case
from kernelpkg.manifest.spec import KernelSpec
from kernelpkg.packs.sources import load_function


class NotDifferentiable(Exception):
    """A reference that PyTorch computes no gradients of; says why."""


def gradient_disagreement(
    spec: KernelSpec,
    answers: KernelSpec,
    kernel: Callable[..., Any],
    case: Case,
    *,
    device: str,
) -> str | None:
    """Return where gradients of an op are too far from those through its reference, or None.

    `answers` is the kernel that its backward names, by whose [accuracy] they are held. Raises
    NotDifferentiable where there are none to be held against.
    """
    assert spec.backward is not None
    if spec.reference is None:
        raise NotDifferentiable("there is no reference")
    reference = load_function(Path(spec.directory), spec.reference)
    results = sorted(bind(spec.schema, spec.backward, answers.schema)[0].differentiable)
    got = _gradients(spec, kernel, case, results, device)
    try:
        want = _gradients(spec, reference, case, results, device)
    except (NotImplementedError, RuntimeError) as error:
        raise NotDifferentiable(" ".join(str(error).split())) from error
    wrong = []
    for name, gradient in got.items():
        output = spec.backward.grads[name]
        if answers.properties_of(output) is None:
            bounds = bounds_of(answers.accuracy, output)
            if bounds.rounding is not None:
                bounds = rounded(bounds, gradient.dtype, gradient.dtype)
            wrong.append(compare(f"the gradient of {name}", gradient, want[name], bounds).problem)
    return "; ".join(filter(None, wrong)) or None


def require_gradients(spec: KernelSpec, args: tuple[Any, ...]) -> dict[str, torch.Tensor]:
    """Let the arguments that have gradients require them; returns those, by name."""
    assert spec.backward is not None
    given = dict(zip(spec.schema.arg_names, args, strict=True))
    found = {name: given[name] for name in spec.backward.grads}
    return {
        name: value.requires_grad_()
        for name, value in found.items()
        if value is not None and value.is_floating_point()
    }


def _gradients(
    spec: KernelSpec, call: Callable[..., Any], case: Case, results: list[int], device: str
) -> dict[str, torch.Tensor]:
    """Return the gradients of a call's arguments, for random ones of its results."""
    args = make_inputs(spec, case, device=device)
    wanted = require_gradients(spec, args)
    generator = torch.Generator(device).manual_seed(seed(spec, case) ^ 1)
    with torch.enable_grad():
        found = call(*args)
        outputs = found if isinstance(found, tuple | list) else (found,)
        outputs = [outputs[place] for place in results]
        above = [
            torch.randn(output.shape, generator=generator, device=device).to(output.dtype)
            for output in outputs
        ]
        gradients = torch.autograd.grad(
            outputs, tuple(wanted.values()), above, allow_unused=True, materialize_grads=True
        )
    return dict(zip(wanted, gradients, strict=True))
