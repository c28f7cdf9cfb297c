"""The arguments of one case: tensors with the shapes, dtypes, strides and values of [args]."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch
from attrs import frozen

from kernelpkg.errors import CallError
from kernelpkg.expr.language import evaluate
from kernelpkg.files import Files
from kernelpkg.manifest.cases import Case, CaseProblem, Evaluator, cases_of, show, strides_of
from kernelpkg.manifest.guards import CallCheck
from kernelpkg.manifest.inits import numbers_of
from kernelpkg.manifest.opschema import OpArg
from kernelpkg.manifest.spec import ArgSpec, KernelSpec, Reference, Scalar
from kernelpkg.packs.sources import load_function

SENTINEL: Final = 96.0
"""What a written argument holds before a call: exact in every dtype from float8 to int8."""


@frozen(kw_only=True)
class Unusual:
    """In what inputs differ from those that a manifest describes, as calls may too.

    Strides that may be anything leave a `gap` of elements, as parts of a wider tensor do; and with
    `zeros`, what would be random normal is 0, as are rows that pad a batch.
    """

    gap: int = 0
    zeros: bool = False


USUAL: Final = Unusual()


def make_inputs(
    spec: KernelSpec,
    case: Case,
    *,
    device: str | torch.device = "cpu",
    sentinel: float = SENTINEL,
    variation: int = 0,
    unusual: Unusual = USUAL,
    files: Files | None = None,
) -> tuple[Any, ...]:
    """Return the arguments of one call, in order, for a case.

    Random values derive from the case, so that two calls give equal tensors; another `variation`
    gives others. `files` have what is run of the kernel. Raises CaseProblem where the arguments
    cannot be made, or where a call with them has other axes than the case.
    """
    generator = torch.Generator(device).manual_seed(seed(spec, case) + variation)
    if spec.generator is not None:
        make = load_function(Path(spec.directory), spec.generator, files)
        args = tuple(make(dict(case.values), generator, torch.device(device)))
    else:
        made: dict[str, Any] = {}
        for arg in spec.args:
            made[arg.name] = _argument(spec, arg, case, made, generator, sentinel, unusual, files)
        args = tuple(made.values())
    check_axes(spec, case, args)
    return args


class CaseInputs(Mapping[tuple[tuple[str, Scalar], ...], tuple[Any, ...]]):
    """The arguments of every case for tuning, by case; made when they are read."""

    def __init__(self, spec: KernelSpec, device: str) -> None:
        self._spec = spec
        self._device = device
        self._cases = {tuple(case.values.items()): case for case in cases_of(spec, "tune")}

    def __getitem__(self, key: tuple[tuple[str, Scalar], ...]) -> tuple[Any, ...]:
        return make_inputs(self._spec, self._cases[key], device=self._device)

    def __iter__(self) -> Iterator[tuple[tuple[str, Scalar], ...]]:
        return iter(self._cases)

    def __len__(self) -> int:
        return len(self._cases)


def seed(spec: KernelSpec, case: Case) -> int:
    """Return the seed of a case's random values: 63 bits of a digest of its name and values."""
    text = f"{spec.name}({case})"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def check_axes(spec: KernelSpec, case: Case, args: Sequence[Any]) -> None:
    """Raise CaseProblem unless a call with the arguments is accepted and has the case's axes.

    An axis of an argument that is absent has no value, which a case cannot say.
    """
    acceptance = CallCheck(spec, spec.name)
    try:
        axes = dict(zip(acceptance.axis_names, acceptance.axes_of(args), strict=True))
    except CallError as error:
        raise CaseProblem("KP142", f"case {case}: {error}") from None
    for name, value in case.values.items():
        if axes[name] not in (None, value):
            raise CaseProblem("KP145", f"case {case}: its inputs have {name}={show(axes[name])}")


def _argument(
    spec: KernelSpec,
    arg: ArgSpec,
    case: Case,
    made: Mapping[str, Any],
    generator: torch.Generator,
    sentinel: float,
    unusual: Unusual,
    files: Files | None,
) -> Any:
    schema = spec.schema.arg(arg.name)
    variant = Evaluator().variant(arg, case)
    if variant is None:
        return None
    if variant.value is not None:
        return argument_value(schema, evaluate(variant.value, case.values))
    assert variant.shape is not None and variant.dtype is not None
    shape = tuple(int(evaluate(dim.expr, case.values)) for dim in variant.shape)
    dtype = getattr(torch, evaluate(variant.dtype, case.values))
    init = variant.init
    if init is None:
        init = "empty" if schema.mutated else "randn"
    if init == "randn" and unusual.zeros:
        init = "zeros"
    if isinstance(init, Reference):
        make = load_function(Path(spec.directory), init, files)
        return make(dict(case.values), dict(made), generator)
    numbers = numbers_of(variant, partial(evaluate, values=case.values))
    strides = strides_of(shape, variant, case.values, Evaluator(), gap=unusual.gap)
    tensor = torch.empty_strided(shape, strides, dtype=dtype, device=generator.device)
    return fill(tensor, init, generator, numbers=numbers, sentinel=sentinel)


def argument_value(arg: OpArg, value: Any) -> Any:
    """Return the value of an argument that is no tensor as an op takes it."""
    if arg.type == "float":
        return float(value)
    return list(value) if arg.type == "int[]" else value


def fill(
    tensor: torch.Tensor,
    init: str | float,
    generator: torch.Generator,
    *,
    numbers: Mapping[str, int] = {},
    sentinel: float = SENTINEL,
) -> torch.Tensor:
    """Fill a tensor as `init` says, and return it.

    "empty" is the sentinel, "randn" standard normal, "uniform" from 0 to 1, "arange" 0, 1, 2 …; a
    number is that number. The others go by `numbers`: "randint" from `low` to below `high`,
    "sorted" the same in rising order along the last dimension, "permutation" different numbers from
    0 to below `high`, "offsets" from 0 to `total`, "packed" codes of `bits` bits.
    """
    shape, device = tensor.shape, generator.device
    named: dict[str | float, float] = {"empty": sentinel, "zeros": 0.0, "ones": 1.0}
    same = named.get(init, init)
    if isinstance(same, int | float):
        values = torch.full(shape, same, device=device)
    elif init == "randn":
        values = torch.randn(shape, generator=generator, device=device)
    elif init == "uniform":
        values = torch.rand(shape, generator=generator, device=device)
    elif init == "arange":
        values = torch.arange(tensor.numel(), device=device).view(shape)
    elif init == "permutation":
        count = tensor.numel()
        drawn = torch.randperm(numbers.get("high", count), generator=generator, device=device)
        values = drawn[:count].view(shape)
    elif init == "offsets":
        values = _offsets(shape[0] - 1, numbers["total"], generator)
    elif init == "packed":
        values = _packed(tensor, numbers, generator)
    else:
        values = _whole(shape, numbers, generator)
        values = values.sort().values if init == "sorted" else values
    return tensor.copy_(values)


def _whole(
    shape: Sequence[int], numbers: Mapping[str, int], generator: torch.Generator
) -> torch.Tensor:
    low = numbers.get("low", 0)
    high = max(numbers["high"], low + 1)  # of nothing, where that is no range
    return torch.randint(low, high, shape, generator=generator, device=generator.device)


def _offsets(runs: int, total: int, generator: torch.Generator) -> torch.Tensor:
    """Return where runs begin, and the last one ends.

    Of three runs or more, one inside is empty; once in four times, one has everything.
    """
    ends = torch.tensor([0, total], device=generator.device)

    def draw(high: int, *shape: int) -> torch.Tensor:
        return torch.randint(high, shape, generator=generator, device=generator.device)

    if runs < 1:
        return ends[:1]
    if int(draw(4, 1)) == 0:
        begun = int(draw(runs, 1)) + 1
        return ends.repeat_interleave(ends.new_tensor([begun, runs + 1 - begun]))
    starts = draw(total + 1, runs - 1).sort().values
    if runs > 2:
        place = int(draw(runs - 2, 1))
        starts[place] = starts[place + 1]
    return torch.cat((ends[:1], starts, ends[1:]))


def _packed(
    tensor: torch.Tensor, numbers: Mapping[str, int], generator: torch.Generator
) -> torch.Tensor:
    """Return whole numbers of 64 bits, whose lowest ones are codes from the first bit on."""
    bits = numbers["bits"]
    found = torch.zeros(tensor.shape, dtype=torch.int64, device=generator.device)
    for shift in range(0, 8 * tensor.element_size(), bits):
        codes = _whole(tensor.shape, numbers, generator)
        found |= (codes & (1 << bits) - 1) << shift
    return found
