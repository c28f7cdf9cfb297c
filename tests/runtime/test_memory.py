"""What results and written arguments of a call may share."""

from __future__ import annotations

import pytest
import torch

from kernelpkg.errors import CallError
from kernelpkg.manifest.opschema import parse_schema
from kernelpkg.runtime.memory import check_results, check_written

WRITES = parse_schema("(Tensor(a!) out, Tensor x, float y) -> ()")
RETURNS = parse_schema("(Tensor x, Tensor? y) -> (Tensor, Tensor)")


def memory() -> torch.Tensor:
    return torch.arange(64.0)


@pytest.mark.parametrize(
    ("out", "x"),
    [
        (memory()[:8], memory()[:8]),
        (memory()[:0].expand(3, 0), memory()),
        (memory().view(8, 8)[:, :4], memory().view(8, 8)[:, 4:]),
        (torch.ones(1, 1).expand(1, 1), memory()),
    ],
    ids=["apart", "empty", "columns", "one"],
)
def test_what_may_be_written(out, x):
    check_written("demo::op", WRITES, (out, x, 1.0))


def test_what_may_be_written_of_one_tensor():
    """The tensor itself, a part that lies beside, and one that is not dense, as PyTorch has it."""
    whole = memory()
    for out, x in [(whole, whole), (whole[:8], whole[8:16]), (whole[:8], whole[::8])]:
        check_written("demo::op", WRITES, (out, x, 1.0))


def test_an_element_that_is_several():
    with pytest.raises(CallError) as caught:
        check_written("demo::op", WRITES, (torch.ones(1, 4).expand(3, 4), memory(), 1.0))
    assert str(caught.value) == (
        "demo::op: argument 'out' is written, and several of its elements share memory (strides "
        "(0, 1)); give one whose elements do not overlap"
    )


def test_an_argument_that_lies_on_a_part_of_another():
    whole = memory()
    for out, x in [(whole[1:9], whole[:8]), (whole[:8], whole), (whole, whole.view(8, 8)[2:3])]:
        with pytest.raises(CallError) as caught:
            check_written("demo::op", WRITES, (out, x, 1.0))
        assert str(caught.value) == (
            "demo::op: argument 'out' is written, and overlaps 'x'; give tensors that do not "
            "overlap"
        )


def test_results_of_their_own():
    x = memory()
    check_results("demo::op", RETURNS, (x, None), (x.clone(), x.clone()))
    check_results("demo::op", WRITES, (x, x, 1.0), None)


def test_a_result_that_is_none():
    """PyTorch lets it through in eager mode."""
    x = memory()
    for results, name in [((x.clone(), None), "return[1]"), ((None, x.clone()), "return[0]")]:
        with pytest.raises(CallError) as caught:
            check_results("demo::op", RETURNS, (x, None), results)
        assert str(caught.value) == (
            f"demo::op: the kernel returns None for {name}; let the op write an optional argument "
            "in place of a result that may be absent, as in 'Tensor(a!)? lse=None'"
        )


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_results_that_share_memory(device):
    """Also without values, as a compiler sees them."""
    x, y = torch.ones(4, device=device), torch.ones(4, device=device)
    for results, shared in [
        ((x, y.clone()), "argument 'x'"),
        ((y.clone(), y[1:]), "argument 'y'"),
        (2 * (x.clone(),), "a tensor twice"),
    ]:
        with pytest.raises(CallError) as caught:
            check_results("demo::op", RETURNS, (x, y), results)
        assert str(caught.value) == (
            f"demo::op: the kernel returns {shared}, or a view of it; let it allocate each result"
        )
