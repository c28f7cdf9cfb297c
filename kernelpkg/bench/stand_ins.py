"""The arguments of a case without values: enough to find, compile and record what it launches."""

from __future__ import annotations

from typing import Any

import torch

from kernelpkg.bench.inputs import argument_value, make_inputs
from kernelpkg.manifest.cases import Case, CaseProblem, Evaluator, strides_of
from kernelpkg.manifest.spec import KernelSpec


def layouts_of(spec: KernelSpec, case: Case, evaluate: Evaluator | None = None) -> tuple[bool, ...]:
    """Return whether strides are dense in each layout that the calls of a case may have.

    Strides that may be anything are padded first, and then as small as they can be: code may tell
    a stride of 1 from larger ones, and the scales of one token have it. Raises CaseProblem.
    """
    if spec.generator is not None:
        return (False,)
    padded, dense = (
        [
            arg.stride()
            for arg in make_stand_ins(spec, case, device="meta", evaluate=evaluate, dense=dense)
            if isinstance(arg, torch.Tensor)
        ]
        for dense in (False, True)
    )
    return (False,) if padded == dense else (False, True)


def make_stand_ins(
    spec: KernelSpec,
    case: Case,
    *,
    device: str | torch.device,
    evaluate: Evaluator | None = None,
    dense: bool = False,
) -> tuple[Any, ...]:
    """Return the arguments of one call, in order; tensors of device "meta" have no storage.

    Strides that may be anything are padded, or `dense`. A kernel whose inputs come from a function
    of its own has them made, on a CPU. Raises CaseProblem where the arguments cannot be made.
    """
    if spec.generator is not None:
        place = "cpu" if torch.device(device).type == "meta" else device
        made = make_inputs(spec, case, device=place)
        return tuple(arg.to(device) if isinstance(arg, torch.Tensor) else arg for arg in made)
    value_of = evaluate or Evaluator()
    found: list[Any] = []
    for arg in spec.args:
        variant = value_of.variant(arg, case)
        if variant is None:
            found.append(None)
        elif variant.value is not None:
            value = value_of(variant.value, case.values)
            found.append(argument_value(spec.schema.arg(arg.name), value))
        else:
            assert variant.shape is not None and variant.dtype is not None
            shape = tuple(value_of(dim.expr, case.values) for dim in variant.shape)
            if any(type(size) is not int or size < 0 for size in shape):
                raise CaseProblem("KP133", f"case {case}: argument '{arg.name}' has no such shape")
            strides = strides_of(shape, variant, case.values, value_of, dense=dense)
            dtype = getattr(torch, value_of(variant.dtype, case.values))
            found.append(torch.empty_strided(shape, strides, dtype=dtype, device=device))
    return tuple(found)
