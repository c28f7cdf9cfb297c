"""How well an op agrees with its reference, in the terms of [accuracy]."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch
from attrs import evolve, frozen

from kernelpkg.bench.inputs import SENTINEL, USUAL, Unusual, make_inputs
from kernelpkg.bench.properties import broken_properties
from kernelpkg.errors import NotInterpreted, PackError, Problem, counted, error_line
from kernelpkg.files import Files
from kernelpkg.manifest.cases import Case, smoke_cases
from kernelpkg.manifest.opschema import OpSchema
from kernelpkg.manifest.spec import Accuracy, KernelSpec
from kernelpkg.packs.sources import load_function, raised_in

_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_FAR = 1 << 40
"""More steps than there are codes: what a NaN is away from a number."""


WRONG: Final = "correct the kernel, its reference or what the manifest says of them"
"""What to do where an op and its reference disagree, whichever of them is wrong."""


@frozen(kw_only=True)
class Agreement:
    """One written argument held against the reference.

    `equal` is the share of equal elements; `steps` the most codes that one is off, None for
    values held against tolerances; `error` the largest relative difference, None for codes.
    `problem` is None where the bounds hold.
    """

    name: str
    equal: float
    steps: int | None
    error: float | None
    problem: str | None


def compare(name: str, got: torch.Tensor, want: torch.Tensor, bounds: Accuracy) -> Agreement:
    """Hold a tensor against the reference's; NaN agrees with NaN only.

    Source of the order of codes: OCP 8-bit floating point specification, sign and magnitude.
    """
    if (got.shape, got.dtype) != (want.shape, want.dtype):
        told = (
            f"{name} is {tuple(got.shape)} {got.dtype}, the reference's "
            f"{tuple(want.shape)} {want.dtype}"
        )
        return Agreement(name=name, equal=0.0, steps=None, error=None, problem=told)
    if got.numel() == 0:
        return Agreement(name=name, equal=1.0, steps=0, error=0.0, problem=None)
    if bounds.steps is not None:
        return _compare_codes(name, got, want, bounds)
    left, right = got.double(), want.double()
    same = (left == right) | (left.isnan() & right.isnan())
    equal = same.double().mean().item()
    close = torch.isclose(left, right, rtol=bounds.rtol, atol=bounds.atol, equal_nan=True)
    error = torch.where(same, 0.0, (left - right).abs() / right.abs().clamp(min=1e-30))
    worst = error.nan_to_num(nan=float("inf")).max().item()
    problem: str | None = None
    if not bool(close.all()):
        place = tuple(int(i) for i in torch.nonzero(~close)[0])
        problem = (
            f"{name}{list(place)} is {got[place].item():.6g}, the reference's "
            f"{want[place].item():.6g} (rtol {bounds.rtol:g}, atol {bounds.atol:g}); "
            f"{_off(~close)}"
        )
    elif equal < bounds.equal:
        problem = f"{name}: {equal:.2%} of the elements are equal, less than {bounds.equal:.2%}"
    return Agreement(name=name, equal=equal, steps=None, error=worst, problem=problem)


def _compare_codes(name: str, got: torch.Tensor, want: torch.Tensor, bounds: Accuracy) -> Agreement:
    assert bounds.steps is not None
    apart = (_ordinals(got) - _ordinals(want)).abs()
    steps = int(apart.max().item())
    equal = (apart == 0).double().mean().item()
    problem: str | None = None
    if steps > bounds.steps:
        off = apart > bounds.steps
        place = tuple(int(i) for i in torch.nonzero(off)[0])
        problem = (
            f"{name}{list(place)} is {got[place].float().item():.6g}, the reference's "
            f"{want[place].float().item():.6g}, "
            f"{'a NaN' if apart[place] >= _FAR // 2 else counted(int(apart[place]), 'code')} apart "
            f"(at most {bounds.steps}); {_off(off)}"
        )
    elif equal < bounds.equal:
        problem = f"{name}: {equal:.2%} of the codes are equal, less than {bounds.equal:.2%}"
    return Agreement(name=name, equal=equal, steps=steps, error=None, problem=problem)


def _off(wrong: torch.Tensor) -> str:
    """Return how many elements are off, and of how many."""
    total = wrong.numel()
    return counted(int(wrong.sum()), f"of {total} is off", f"of {total} are off")


def _ordinals(tensor: torch.Tensor) -> torch.Tensor:
    """Number the codes of a dtype in the order of their values; the zeros are one."""
    if not tensor.dtype.is_floating_point:
        return tensor.long()
    integer = _INTEGERS[tensor.dtype.itemsize]
    bits = tensor.contiguous().view(integer).long()
    ordinals = torch.where(bits < 0, torch.iinfo(integer).min - bits, bits)
    return torch.where(tensor.float().isnan(), _FAR, ordinals)


def written(schema: OpSchema, args: Sequence[Any], result: Any) -> dict[str, torch.Tensor]:
    """Return what a call wrote, by name; results have those of `OpSchema.results`.

    Trailing arguments with defaults may be left out.
    """
    found = {
        arg.name: value
        for arg, value in zip(schema.args, args, strict=False)
        if arg.mutated and value is not None
    }
    results = result if isinstance(result, tuple | list) else (result,)
    return found | dict(zip(schema.results, results, strict=False))


def compare_all(
    schema: OpSchema,
    got: tuple[Sequence[Any], Any],
    want: tuple[Sequence[Any], Any],
    bounds: Mapping[str, Accuracy],
) -> tuple[Agreement, ...]:
    """Hold everything that a call wrote against the reference, given as (args, result) pairs."""
    left, right = written(schema, *got), written(schema, *want)
    found = []
    for name, output in left.items():
        allowed = bounds_of(bounds, name)
        if allowed.rounding is not None:
            dtype = got[0][schema.arg_names.index(allowed.rounding)].dtype
            allowed = rounded(allowed, dtype, output.dtype)
        found.append(_compare_one(name, output, right.get(name), allowed))
    return tuple(found)


def rounded(bounds: Accuracy, dtype: torch.dtype, output: torch.dtype) -> Accuracy:
    """Return the bounds of an output whose values are rounded to a dtype on the way.

    A sum in another order can move a value over a rounding boundary: by one machine epsilon there,
    and by up to one more where what is made of it is rounded again.
    """
    epsilon = torch.finfo(dtype).eps
    if bounds.steps is None:
        return evolve(bounds, rtol=max(bounds.rtol, 2 * epsilon))
    if output.is_floating_point:  # codes that lie further apart than any rounding
        return bounds
    return evolve(bounds, steps=bounds.whole_steps(torch.iinfo(output).max, epsilon))


def bounds_of(bounds: Mapping[str, Accuracy], name: str) -> Accuracy:
    """Return the bounds of an output: its own, or those of results without any."""
    return bounds.get(name, bounds.get("return", Accuracy()))


def _compare_one(
    name: str, got: torch.Tensor, want: torch.Tensor | None, bounds: Accuracy
) -> Agreement:
    if not isinstance(want, torch.Tensor):
        told = f"the reference does not give {name}"
        return Agreement(name=name, equal=0.0, steps=None, error=None, problem=told)
    return compare(name, got, want, bounds)


def untouched(schema: OpSchema, got: Sequence[Any], want: Sequence[Any]) -> tuple[str, ...]:
    """Say which arguments differ from the reference's though the op may not write them."""
    inputs = [
        compare(arg.name, left, right, Accuracy())
        for arg, left, right in zip(schema.args, got, want, strict=False)
        if arg.is_tensor and not arg.mutated and left is not None
        if not _same_bytes(left, right)
    ]
    return tuple(
        f"{found.problem}; the schema does not allow the op to write it"
        for found in inputs
        if found.problem is not None
    )


def _same_bytes(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two tensors are alike to the bit; most arguments are, and this is told fast."""
    if (one.shape, one.dtype) != (other.shape, other.dtype):
        return False
    left, right = (tensor.contiguous().flatten().view(torch.uint8) for tensor in (one, other))
    return torch.equal(left, right)


@contextmanager
def _filled_memory() -> Iterator[None]:
    """Let PyTorch fill new tensors: with NaN, or the largest whole number.

    It does so in deterministic mode, whose other effects are warnings here. A softmax that wrote
    one row of four passed by chance, in memory that held the rows of a right one (2026-11-29).
    """
    before = torch.get_deterministic_debug_mode()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.set_deterministic_debug_mode("warn")
        try:
            yield
        finally:
            torch.set_deterministic_debug_mode(before)


def smoke_check(
    spec: KernelSpec, kernel: Callable[..., Any], *, device: str, files: Files | None = None
) -> Problem | None:
    """Run the smallest cases of a registered op; returns what is wrong, or cannot be told here.

    `files` have what is run of the kernel beside the op: that which was verified.
    """
    cases = smoke_cases(spec, interpret=torch.device(device).type == "cpu")
    found = (_smoke(spec, kernel, case, device, files) for case in cases)
    return next((problem for problem in found if problem is not None), None)


def _smoke(
    spec: KernelSpec, kernel: Callable[..., Any], case: Case, device: str, files: Files | None
) -> Problem | None:
    try:
        wrong = check_case(spec, kernel, case, device=device, files=files)
    except NotInterpreted as error:
        return not_interpreted(spec, str(error), error.line)
    except PackError as error:  # a file of the kernel, which says where
        return error.problems[0]
    except (Exception, SystemExit) as error:  # one kernel must not stop the others
        file, line = raised_in(error, Path(spec.directory))
        text = f"case {case}: " + error_line(error).removeprefix(f"case {case}: ")
        told = isinstance(error, NotImplementedError)  # as by a reference that is to be written
        return _failed(spec, text if told else f"{text}; {WRONG}", file, line)
    return None if wrong is None else _failed(spec, f"{wrong}; {WRONG}")


def _failed(spec: KernelSpec, wrong: str, file: str = "", line: int = 0) -> Problem:
    path = "/".join(filter(None, ("kernels", spec.name, file)))
    return Problem(path=path, line=line, code="KP701", message=f"check failed: {wrong}")


def not_interpreted(spec: KernelSpec, reason: str, line: int) -> Problem:
    """Return the finding of a kernel that Helion's interpreter cannot run."""
    path = f"kernels/{spec.name}/{spec.source.file}"
    message = f"{reason}; check it on a GPU"
    return Problem(path=path, line=line, code="KP269", severity="unverified", message=message)


def check_case(
    spec: KernelSpec,
    kernel: Callable[..., Any],
    case: Case,
    *,
    device: str,
    files: Files | None = None,
) -> str | None:
    """Run one case of an op against its reference; returns what disagrees, or None."""
    wrong = disagreement(spec, kernel, case, device=device, files=files)
    return None if wrong is None else f"case {case}: {wrong}"


def disagreement(
    spec: KernelSpec,
    kernel: Callable[..., Any],
    case: Case,
    *,
    device: str,
    variation: int = 0,
    unusual: Unusual = USUAL,
    files: Files | None = None,
) -> str | None:
    """Do what `check_case` does, for whoever names the case himself; the others as in inputs.

    Outputs hold different values before the two runs, so that an element that neither writes
    disagrees too; what the kernel allocates is filled, for the memory of an earlier and equal call
    would hold the right values.
    """
    schema, reference = spec.schema, None
    if spec.reference is not None:
        reference = load_function(Path(spec.directory), spec.reference, files)
    more: dict[str, Any] = {"variation": variation, "unusual": unusual, "files": files}
    inputs = partial(make_inputs, spec, case, device=device, **more)

    def again(seed: str, step: int) -> Mapping[str, torch.Tensor]:
        args = list(inputs(sentinel=-SENTINEL))
        args[schema.arg_names.index(seed)] += step
        with _filled_memory():
            return written(schema, args, kernel(*args))

    got_args, want_args = inputs(sentinel=SENTINEL), inputs(sentinel=-SENTINEL)
    with _filled_memory():
        got = kernel(*got_args)
    wrong: list[str] = []
    if reference is not None:
        wrong += differences(spec, (got_args, got), (want_args, reference(*want_args)))
    wrong += untouched(schema, got_args, want_args)
    outputs = written(schema, got_args, got)
    wrong += broken_properties(spec, case, got_args, outputs, again, files)
    return "; ".join(wrong) or None


def differences(
    spec: KernelSpec, got: tuple[Sequence[Any], Any], want: tuple[Sequence[Any], Any]
) -> list[str]:
    """Say where what a call wrote is too far from the reference, given as (args, result) pairs."""
    found = compare_all(spec.schema, got, want, spec.accuracy)
    return [
        agreement.problem
        for agreement in found
        if agreement.problem is not None and spec.properties_of(agreement.name) is None
    ]
