"""What holds of outputs that no reference computes, in the terms of [properties].

The same inputs and the same seed give the same output; its share of zeros is what chance allows;
and a function of the kernel says of each element whether it can be right.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch

from kernelpkg.errors import counted
from kernelpkg.expr.language import evaluate
from kernelpkg.files import Files
from kernelpkg.manifest.cases import Case
from kernelpkg.manifest.spec import KernelSpec, Properties, Reference
from kernelpkg.packs.sources import load_function

Outputs = Mapping[str, torch.Tensor]
"""What a call wrote, by the names of the manifest."""

Again = Callable[[str, int], Outputs]
"""Makes a call once more, with so much added to one of its whole numbers."""

_DEVIATIONS: Final = 5
"""Standard deviations that chance may take a share: more, once in two million outputs."""

_MANY: Final = 256
"""From so many elements on, no two seeds give one output by chance."""


def broken_properties(
    spec: KernelSpec,
    case: Case,
    args: Sequence[Any],
    got: Outputs,
    again: Again,
    files: Files | None,
) -> Iterator[str]:
    """Yield what does not hold of the outputs of a call; `files` have what is run of the kernel."""
    for name, output in got.items():
        wanted = spec.properties_of(name)
        if wanted is None or output.numel() == 0:
            continue
        yield from _not_written(name, output, args)
        if wanted.zeros is not None:
            yield from _share(name, output, wanted, float(evaluate(wanted.zeros, case.values)))
        if wanted.seed is not None:
            yield from _seeded(name, output, wanted, again)
        if wanted.holds is not None:
            function = load_function(Path(spec.directory), wanted.holds, files)
            yield from _held(name, output, wanted.holds, function(output, *args))


def _not_written(name: str, output: torch.Tensor, args: Sequence[Any]) -> Iterator[str]:
    """Memory that is left as it is holds NaN here."""
    wrong = output.isnan()
    given = (arg for arg in args if isinstance(arg, torch.Tensor) and arg is not output)
    if bool(wrong.any()) and not any(bool(arg.isnan().any()) for arg in given):
        yield f"{_first(name, output, wrong)}, but no argument has a NaN; write each element"


def _share(name: str, output: torch.Tensor, wanted: Properties, share: float) -> Iterator[str]:
    count = output.numel()
    found = (output == 0).double().mean().item()
    chance = _DEVIATIONS * math.sqrt(max(share * (1 - share), 0.0) / count)
    if abs(found - share) > wanted.within + chance:
        most = f"{share:.2%} ± {wanted.within + chance:.2%}"
        of = counted(count, "element")
        yield f"{name}: {found:.2%} of {of} are zero; {most} should be"


def _seeded(name: str, output: torch.Tensor, wanted: Properties, again: Again) -> Iterator[str]:
    assert wanted.seed is not None
    wrong = _differ(output, again(wanted.seed, 0)[name])
    if bool(wrong.any()):
        yield f"{_first(name, output, wrong)}, and differs in a second, equal call"
    zeros = (output == 0).double().mean().item()
    random = wanted.zeros is None or 0 < zeros < 1
    if random and output.numel() >= _MANY:
        other = again(wanted.seed, 1)[name]
        if not bool(_differ(output, other).any()):
            seed = f"'{wanted.seed}'"
            yield f"{name} is the same for {seed} and {seed} + 1; make it depend on the seed"


def _held(name: str, output: torch.Tensor, by: Reference, right: Any) -> Iterator[str]:
    found = torch.as_tensor(right, device=output.device)
    if found.dtype != torch.bool or found.shape not in ((), output.shape):
        what = f"{found.dtype} {tuple(found.shape)}"
        yield f"{name}: '{by}' returns {what}; return one bool, or one for each element"
    elif not bool(found.all()):
        yield f"{_first(name, output, ~found.expand(output.shape))}, which '{by}' says is wrong"


def _differ(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    return (one != other) & ~(one.isnan() & other.isnan())


def _first(name: str, output: torch.Tensor, wrong: torch.Tensor) -> str:
    """Name the first of some elements, and say how many there are."""
    place = tuple(int(i) for i in torch.nonzero(wrong)[0])
    many = f"{int(wrong.sum())} of {counted(output.numel(), 'element')}"
    return f"{name}{list(place)} is {output[place].float().item():.6g} ({many})"
