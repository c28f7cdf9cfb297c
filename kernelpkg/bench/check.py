"""An op held against its reference, over a case of its manifest."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from kernelpkg.bench.inputs import SENTINEL, make_inputs
from kernelpkg.bench.reference import compare_all, untouched
from kernelpkg.errors import KernelpkgError
from kernelpkg.manifest.cases import Case, CaseProblem, smallest_case
from kernelpkg.manifest.spec import KernelSpec
from kernelpkg.packs.sources import load_function
from kernelpkg.runtime.register import HelionKernelWrapper


def smoke_check(spec: KernelSpec, kernel: HelionKernelWrapper, *, device: str) -> str:
    """Run the smallest case of a registered op; returns "ok" or what is wrong, on one line."""
    try:
        return check_case(spec, kernel, smallest_case(spec), device=device) or "ok"
    except (KernelpkgError, CaseProblem) as error:
        return " ".join(str(error).split())
    except (Exception, SystemExit) as error:  # one kernel must not stop the others
        return f"{type(error).__name__}: {' '.join(str(error).split())}"


def check_case(
    spec: KernelSpec, kernel: Callable[..., Any], case: Case, *, device: str
) -> str | None:
    """Run one case of an op against its reference; returns what disagrees, or None."""
    wrong = disagreement(spec, kernel, case, device=device)
    return None if wrong is None else f"case {case}: {wrong}"


def disagreement(
    spec: KernelSpec, kernel: Callable[..., Any], case: Case, *, device: str, variation: int = 0
) -> str | None:
    """Do what `check_case` does, for whoever names the case himself; `variation` as in inputs.

    Outputs hold different values before the two runs, so that an element that neither writes
    disagrees too.
    """
    reference = load_function(Path(spec.directory), spec.reference)
    got_args, want_args = (
        make_inputs(spec, case, device=device, sentinel=sentinel, variation=variation)
        for sentinel in (SENTINEL, -SENTINEL)
    )
    got = kernel(*got_args)
    want = reference(*want_args)
    found = compare_all(spec.schema, (got_args, got), (want_args, want), spec.accuracy)
    wrong = [agreement.problem for agreement in found if agreement.problem is not None]
    wrong += untouched(spec.schema, got_args, want_args)
    return "; ".join(wrong) or None
