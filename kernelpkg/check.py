"""An op held against its reference, over a case of its manifest."""

from __future__ import annotations

from pathlib import Path

from kernelpkg.accuracy import compare_all, untouched
from kernelpkg.cases import Case, CaseProblem, smallest_case
from kernelpkg.errors import KernelpkgError
from kernelpkg.inputs import SENTINEL, make_inputs
from kernelpkg.register import HelionKernelWrapper
from kernelpkg.source import load_function
from kernelpkg.spec import KernelSpec


def smoke_check(spec: KernelSpec, kernel: HelionKernelWrapper, *, device: str) -> str:
    """Run the smallest case of a registered op; returns "ok" or what is wrong, on one line."""
    try:
        return check_case(spec, kernel, smallest_case(spec), device=device) or "ok"
    except (KernelpkgError, CaseProblem) as error:
        return " ".join(str(error).split())
    except (Exception, SystemExit) as error:  # one kernel must not stop the others
        return f"{type(error).__name__}: {' '.join(str(error).split())}"


def check_case(
    spec: KernelSpec, kernel: HelionKernelWrapper, case: Case, *, device: str
) -> str | None:
    """Run one case of an op against its reference; returns what disagrees, or None.

    Outputs hold different values before the two runs, so that an element that neither writes
    disagrees too.
    """
    reference = load_function(Path(spec.directory), spec.reference)
    got_args = make_inputs(spec, case, device=device, sentinel=SENTINEL)
    want_args = make_inputs(spec, case, device=device, sentinel=-SENTINEL)
    got = kernel(*got_args)
    want = reference(*want_args)
    found = compare_all(spec.schema, (got_args, got), (want_args, want), spec.accuracy)
    wrong = [agreement.problem for agreement in found if agreement.problem is not None]
    wrong += untouched(spec.schema, got_args, want_args)
    return f"case {case}: {'; '.join(wrong)}" if wrong else None
