"""[accuracy] to what Helion's autotuner holds the results of a config against the baseline with."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

from attrs import frozen

from kernelpkg.manifest.cases import cases_of
from kernelpkg.manifest.spec import Accuracy, KernelSpec
from kernelpkg.vllm.vendor.op_code import STEP, Doc, assign, call, collection, docstring, lay

_CODES: Final[Mapping[str, tuple[float, str]]] = {
    "float8_e4m3fn": (0.125, "2**-9"),
    "float8_e4m3fnuz": (0.125, "2**-10"),
    "float8_e5m2": (0.25, "2**-16"),
    "float8_e5m2fnuz": (0.25, "2**-17"),
    "int8": (0.0, "1.0"),
    "uint8": (0.0, "1.0"),
}
"""One step between codes, relative, and absolute where codes are densest.

Source: the OCP 8-bit floating point specification; the fnuz formats have one exponent more.
"""

_EPSILON: Final = 2**-7
"""That of bfloat16, the coarsest dtype that an op may round to on its way."""

_GIVEN: Final = (
    "autotune_baseline_atol",
    "autotune_baseline_rtol",
    "autotune_baseline_accuracy_check_fn",
)


@frozen(kw_only=True)
class AccuracyCode:
    """The lines of `check_accuracy`, if there has to be one, and the settings of Helion."""

    lines: tuple[str, ...]
    settings: tuple[Doc, ...]


def write_accuracy(spec: KernelSpec, source: str) -> AccuracyCode:
    """Say how near a config's results must be to the baseline's, unless the manifest does.

    Helion compares FP8 bit by bit, by which 0 and -0 are 128 apart, so codes get a function.
    `source` is the Helion function, which names the dtypes of what it returns.
    """
    if not spec.settings.keys().isdisjoint(_GIVEN):
        return AccuracyCode(lines=(), settings=())
    coded = {name: found for name, found in spec.accuracy.items() if found.steps is not None}
    plain = [found for name, found in spec.accuracy.items() if name not in coded]
    rtol = max([0.0, *map(_relative, plain)])
    atol = max([0.0, *(found.atol for found in plain)])
    if not coded:
        return AccuracyCode(
            lines=(),
            settings=(f"autotune_baseline_atol={atol}", f"autotune_baseline_rtol={rtol}"),
        )
    tolerances = {
        dtype: _tolerance(dtype, found.steps or 0)
        for name, found in coded.items()
        for dtype in _dtypes(spec, name, source)
    }
    most = max(found.steps or 0 for found in coded.values())
    return AccuracyCode(
        lines=tuple(_function(tolerances, most, f"({rtol}, {atol})")),
        settings=("autotune_baseline_accuracy_check_fn=check_accuracy",),
    )


def _relative(found: Accuracy) -> float:
    """A value may fall to the other side of two roundings, where one is allowed."""
    return max(found.rtol, 2 * _EPSILON if found.rounding is not None else 0.0)


def _dtypes(spec: KernelSpec, name: str, source: str) -> list[str]:
    """Return the dtypes that an argument has in the cases, or that are named for a result."""
    arg = next((arg for arg in spec.args if arg.name == name), None)
    exprs = [v.dtype for v in arg.variants if v.dtype is not None] if arg is not None else []
    cases = [case for use in ("tune", "test") for case in cases_of(spec, use)]
    found = {str(case.values.get(expr.text, expr.text)) for expr in exprs for case in cases}
    named = [dtype for dtype in _CODES if re.search(rf"\b{dtype}\b", source)]
    return [dtype for dtype in _CODES if dtype in found] if exprs else named or [*_CODES]


def _tolerance(dtype: str, steps: int) -> str:
    relative, absolute = _CODES[dtype]
    return f"({relative * steps}, {absolute if steps == 1 else f'{steps} * {absolute}'})"


def _function(tolerances: Mapping[str, str], steps: int, otherwise: str) -> Iterator[str]:
    yield from lay(call("def check_accuracy", "actual: Any", "expected: Any"), after=" -> None:")
    compared = (
        f"Codes are compared as numbers, {'a step' if steps == 1 else f'{steps} steps'} apart at "
        "most; bit by bit, as Helion does it, 0 and -0 are far apart."
    )
    first = "Raise AssertionError where a config's results are too far from the baseline's."
    yield from docstring([first, compared], STEP)
    items = [f"torch.{dtype}: {pair}" for dtype, pair in tolerances.items()]
    yield from assign("tolerances", collection("{}", items))
    yield "    if isinstance(actual, torch.Tensor):"
    yield "        actual, expected = [actual], [expected]"
    yield "    for got, want in zip(actual or (), expected or (), strict=True):"
    yield "        if isinstance(got, torch.Tensor):"
    yield f"            rtol, atol = tolerances.get(got.dtype, {otherwise})"
    both = ("got.float()", "want.float()", "rtol=rtol", "atol=atol", "equal_nan=True")
    yield from lay(call("torch.testing.assert_close", *both), 3 * STEP)
