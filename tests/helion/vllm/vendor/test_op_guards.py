"""What vendored ops assert of a call, run: it is what the pack itself refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from kernelpkg.bench.inputs import make_inputs
from kernelpkg.errors import CallError
from kernelpkg.manifest.cases import cases_of
from kernelpkg.manifest.guards import CallCheck
from kernelpkg.packs.read import read_kernel, read_pack
from kernelpkg.vllm.vendor.op_guards import write_guards

ROOT = Path(__file__).parents[4]
SPECS = {name: read_kernel(ROOT, name) for name in read_pack(ROOT, "kernelpkg").kernels}


def asserting(spec):
    """Return a function of the op's arguments that does nothing but assert."""
    lines = [f"def op({', '.join(spec.schema.arg_names)}):", *write_guards(spec, (), ())]
    space = {"torch": torch}
    exec("\n".join(lines), space)
    return space["op"]


def refused(check, args):
    """Return why a call is refused, or None."""
    try:
        check(args)
    except (AssertionError, CallError, IndexError) as error:
        return str(error)
    return None


def others(value):
    """Yield other values of an argument: of another dtype, shape or layout, or another number."""
    if isinstance(value, torch.Tensor):
        yield from (value.double(), value.unsqueeze(0), value.flatten()[:0], value.flatten()[0])
        yield torch.cat([value, value])
        yield torch.stack([value, value], -1)[..., 0]
        if value.ndim > 1:
            yield from (value.t(), value.t().contiguous().t(), value[:2], value.flatten())
            yield torch.cat([value, value], 1)
            yield torch.cat([value, value], 1)[:, : value.shape[1]]
    elif isinstance(value, bool):
        yield not value
    elif value is None:
        yield from (torch.ones(1), torch.ones(2), torch.ones(1).double())
    else:
        yield from (0, value + 1, 2 * value, -value)


@pytest.mark.parametrize("name", SPECS)
def test_a_vendored_op_refuses_what_the_pack_refuses(name):
    """Cases with every argument changed in turn; strides that decide what a call is go unasked.

    What no axis can be read of does not come so far: the picker raises, as its function of axes.
    """
    spec = SPECS[name]
    op, check = asserting(spec), CallCheck(spec, name)
    told = set()
    for case in [case for case in cases_of(spec, "test") if 0 < case.values["num_tokens"] < 9]:
        args = make_inputs(spec, case)
        assert refused(lambda call: op(*call), args) is None
        for place, value in enumerate(args):
            for other in others(value):
                call = [*args[:place], other, *args[place + 1 :]]
                got = refused(lambda call: op(*call), call)
                want = refused(check.axes_of, call)
                if "divides by zero" in (want or ""):
                    continue
                if name == "per_token_group_fp8_quant" and "'output_s' has strides" in (want or ""):
                    want = None
                assert (got is None) == (want is None), (case, place, got, want)
                told.add(got)
    assert len(told) >= 7


def test_a_scale_of_fewer_rows_is_refused():
    """In the words of the manifest, as vLLM's own ops refuse it."""
    result, x = torch.empty(4, 8, dtype=torch.float8_e4m3fn), torch.ones(4, 8)
    op = asserting(SPECS["dynamic_per_token_scaled_fp8_quant"])
    op(result, x, torch.empty(4, 1), None)
    with pytest.raises(AssertionError, match=r"^scale must be \[num_tokens, 1\]$"):
        op(result, x, torch.empty(2, 1), None)
