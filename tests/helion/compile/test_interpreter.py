"""The interpreter: products of matrices on a CPU, and what it lacks told from a kernel's faults."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import helion
import helion.language as hl
import pytest
import torch
from helion.autotuner import PowerOfTwoFragment
from helion.runtime import get_num_sm

from kernelpkg.compile import interpreter
from kernelpkg.compile.helion import HELION_VERSION, ConfiguredHelionKernel, check_settings
from kernelpkg.errors import NotInterpreted

HALVES = (torch.float16, torch.bfloat16, torch.float32)
NARROW = (*HALVES, torch.float8_e4m3fn, torch.float8_e5m2)


def dot(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    m, k = a.size()
    n = b.size(1)
    out = torch.empty([m, n], dtype=torch.float32, device=a.device)
    for tile_m, tile_n in hl.tile([m, n]):
        acc = hl.zeros([tile_m, tile_n], dtype=torch.float32)
        for tile_k in hl.tile(k):
            acc = hl.dot(a[tile_m, tile_k], b[tile_k, tile_n], acc=acc)
        out[tile_m, tile_n] = acc
    return out


def dot_of_batches(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    batch, m, k = a.size()
    n = b.size(2)
    out = torch.empty([batch, m, n], dtype=torch.float32, device=a.device)
    for tile_b, tile_m, tile_n in hl.tile([batch, m, n]):
        acc = hl.zeros([tile_b, tile_m, tile_n], dtype=torch.float32)
        for tile_k in hl.tile(k):
            acc = hl.dot(a[tile_b, tile_m, tile_k], b[tile_b, tile_k, tile_n], acc=acc)
        out[tile_b, tile_m, tile_n] = acc
    return out


def dot_of_integers(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    out = torch.empty([a.size(0), b.size(1)], dtype=torch.int32, device=a.device)
    for tile_m, tile_n in hl.tile([a.size(0), b.size(1)]):
        out[tile_m, tile_n] = hl.dot(a[tile_m, :], b[:, tile_n])
    return out


def addmm(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    out = torch.empty([a.size(0), b.size(1)], dtype=torch.float32, device=a.device)
    for tile_m, tile_n in hl.tile([a.size(0), b.size(1)]):
        acc = hl.zeros([tile_m, tile_n], dtype=torch.float32)
        for tile_k in hl.tile(a.size(1)):
            acc = torch.addmm(acc, a[tile_m, tile_k], b[tile_k, tile_n])
        out[tile_m, tile_n] = acc
    return out


def addmm_of_a_tensor(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    out = torch.empty([a.size(0), b.size(1)], dtype=torch.float32, device=a.device)
    for tile_m, tile_n in hl.tile([a.size(0), b.size(1)]):
        acc = hl.full([tile_m, tile_n], 1.0, dtype=torch.float32)
        out[tile_m, tile_n] = acc.addmm(a[tile_m, :], b[:, tile_n], beta=2, alpha=3)
    return out


def baddbmm(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    out = torch.empty([a.size(0), a.size(1), b.size(2)], dtype=torch.float32, device=a.device)
    for tile_b, tile_m, tile_n in hl.tile([a.size(0), a.size(1), b.size(2)]):
        acc = hl.zeros([tile_b, tile_m, tile_n], dtype=torch.float32)
        out[tile_b, tile_m, tile_n] = torch.baddbmm(acc, a[tile_b, tile_m, :], b[tile_b, :, tile_n])
    return out


def mm(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    out = torch.empty([a.size(0), b.size(1)], dtype=torch.float32, device=a.device)
    for tile_m, tile_n in hl.tile([a.size(0), b.size(1)]):
        half = torch.mm(a[tile_m, :], b[:, tile_n], out_dtype=torch.float32)
        out[tile_m, tile_n] = half + torch.mm(a[tile_m, :], b[:, tile_n], torch.float32)
    return out


def bmm(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    out = torch.empty([a.size(0), a.size(1), b.size(2)], dtype=torch.float32, device=a.device)
    for tile_b, tile_m, tile_n in hl.tile([a.size(0), a.size(1), b.size(2)]):
        left, right = a[tile_b, tile_m, :], b[tile_b, :, tile_n]
        out[tile_b, tile_m, tile_n] = torch.bmm(left, right, out_dtype=torch.float32)
    return out


def tuned(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    scale = hl.register_tunable("scale", PowerOfTwoFragment(1, 8, 4))
    out = torch.empty_like(a)
    for tile in hl.tile(a.size(0)):
        out[tile] = a[tile] * scale + b[tile]
    return out


def interpreted(function: Callable[..., Any], *args: Any) -> Any:
    """Return what a function returns in the interpreter."""
    kernel = ConfiguredHelionKernel(
        op_name=function.__name__,
        raw_kernel_func=function,
        select=lambda _: pytest.fail("no config is asked for"),
        settings=check_settings({}, function.__name__),
    )
    return kernel.interpret(*args)


def matrices(dtype: torch.dtype, *batch: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    left = torch.randn(*batch, 5, 33, generator=generator)
    right = torch.randn(*batch, 33, 6, generator=generator)
    return left.to(dtype), right.to(dtype)


@pytest.mark.filterwarnings("ignore:The use of `x.T`:UserWarning")  # Helion's own, of batches
@pytest.mark.parametrize("dtype", NARROW, ids=str)
@pytest.mark.parametrize("function", [dot, dot_of_batches])
def test_hl_dot(function, dtype):
    """Sums are in float32, as a GPU's are."""
    a, b = matrices(dtype, *([2] if function is dot_of_batches else []))
    torch.testing.assert_close(interpreted(function, a, b), a.float() @ b.float())


def test_hl_dot_of_integers():
    """Sums are whole numbers."""
    a, b = (torch.full(shape, -100, dtype=torch.int8) for shape in ((2, 64), (64, 3)))
    assert interpreted(dot_of_integers, a, b).tolist() == [[640_000] * 3] * 2


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize(
    ("function", "batch", "times", "plus"),
    [
        (addmm, (), 1, 0),
        (addmm_of_a_tensor, (), 3, 2),
        (baddbmm, (2,), 1, 0),
        (mm, (), 2, 0),
        (bmm, (2,), 1, 0),
    ],
    ids=lambda part: getattr(part, "__name__", None),
)
def test_products_of_pytorch(function, batch, times, plus, dtype):
    a, b = matrices(dtype, *batch)
    want = times * (a.float() @ b.float()) + plus
    torch.testing.assert_close(interpreted(function, a, b), want)


def test_a_number_that_is_tuned_has_its_default():
    a, b = torch.ones(3), torch.ones(3)
    assert interpreted(tuned, a, b).tolist() == [5.0] * 3


CALLS: list[Callable[[], None]] = []


def watched(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    for call in CALLS:
        call()
    out = torch.empty([a.size(0), b.size(1)], dtype=torch.float32, device=a.device)
    for tile_m, tile_n in hl.tile([a.size(0), b.size(1)]):
        out[tile_m, tile_n] = hl.dot(a[tile_m, :], b[:, tile_n], out_dtype=torch.float32)
    return out


def told() -> str:
    """What a user's own product gets of PyTorch."""
    a, b = matrices(torch.float16)
    try:
        return str(torch.mm(a, b, out_dtype=torch.float32).dtype)
    except NotImplementedError as error:
        return type(error).__name__


def test_other_code_goes_without(monkeypatch):
    """Neither a thread beside nor what comes after finds the products."""
    before, found = told(), []
    beside = threading.Thread(target=lambda: found.append(told()))

    def call() -> None:
        beside.start()
        beside.join()

    monkeypatch.setitem(globals(), "CALLS", [call])
    a, b = matrices(torch.float16)
    torch.testing.assert_close(interpreted(watched, a, b), a.float() @ b.float())
    assert [*found, told()] == [before] * 2


def test_one_within_another():
    """The outer one goes on where the inner one ended."""
    with interpreter._Products():
        interpreted(dot, *matrices(torch.bfloat16))
        assert told() == "torch.float32"


def test_what_pytorch_has_is_not_hidden(monkeypatch):
    """It is asked first, so that a release which has a product is not answered for."""
    monkeypatch.setitem(interpreter._PRODUCTS, torch.mm, lambda *_, **__: pytest.fail("hidden"))
    a, b = matrices(torch.float32)
    with interpreter._Products():
        torch.testing.assert_close(torch.mm(a, b), a @ b)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda a, b: torch.mm(a, a, out_dtype=torch.float32),
        lambda a, b: torch.mm(a, b.bfloat16()),
        lambda a, b: a.addmm(a, b.bfloat16()),
    ],
    ids=["shapes", "dtypes", "dtypes of a tensor's"],
)
def test_products_that_are_none_stay_errors(wrong):
    a, b = matrices(torch.float16)
    with interpreter._Products(), pytest.raises(RuntimeError):
        wrong(a, b)


def jagged(x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    out = torch.zeros([x.size(0)], device=x.device)
    for tile in hl.tile(x.size(0)):
        ends = lengths[tile]
        for inner in hl.jagged_tile(ends):
            out[tile] = x[tile, inner].sum(-1)
    return out


def calls_an_op(x: torch.Tensor) -> torch.Tensor:
    return torch.ops.kernelpkg_test.for_gpus(x)


def asks_tiles_for_more(x: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(x)
    for tile in hl.tile(x.size(0)):
        out[tile] = x[tile] * tile.no_such_thing
    return out


def is_not_finished(x: torch.Tensor) -> torch.Tensor:
    raise NotImplementedError("mine")


def asserts(x: torch.Tensor) -> torch.Tensor:
    assert x.size(0) > 99, "too few"
    return x


def adds_other_sizes(x: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(x)
    for tile in hl.tile(x.size(0)):
        out[tile] = x[tile] + torch.ones([2, 3])
    return out


def test_what_helion_lacks_is_no_error_of_a_kernel():
    """The construct and its line are named."""
    with pytest.raises(NotInterpreted) as caught:
        interpreted(jagged, torch.ones(2, 3), torch.tensor([1, 2]))
    assert str(caught.value) == (
        f"the interpreter of Helion {HELION_VERSION} cannot run 'hl.jagged_tile(ends)': "
        "AssertionError: jagged_tile does not have a ref mode implementation yet"
    )
    assert caught.value.line == jagged.__code__.co_firstlineno + 4
    assert isinstance(caught.value.__cause__, AssertionError)


@pytest.fixture
def for_gpus():
    """An op that PyTorch knows and has no implementation of for a CPU."""
    with torch.library._scoped_library("kernelpkg_test", "FRAGMENT") as library:
        library.define("for_gpus(Tensor x) -> Tensor")
        yield


@pytest.mark.parametrize(
    ("function", "construct"),
    [
        (asks_tiles_for_more, "'tile.no_such_thing'"),
        (calls_an_op, r"'torch.ops.kernelpkg_test.for_gpus\(x\)': NotImplementedError: .*\.$"),
    ],
    ids=["tile", "op"],
)
def test_what_cannot_be_told_of_a_kernel(function, construct, for_gpus):
    with pytest.raises(NotInterpreted, match=construct) as caught:
        interpreted(function, torch.ones(3))
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("function", "error"),
    [
        (is_not_finished, NotImplementedError),
        (asserts, AssertionError),
        (adds_other_sizes, RuntimeError),
    ],
    ids=lambda part: part.__name__,
)
def test_what_a_kernel_does_wrong_is_its_own(function, error):
    with pytest.raises(error) as caught:
        interpreted(function, torch.ones(3))
    assert type(caught.value) is error


def counts(x: torch.Tensor) -> torch.Tensor:
    first, second = helion.runtime.get_num_sm(x.device), get_num_sm(x.device, reserved_sms=1)
    out = torch.empty_like(x)
    for tile in hl.tile(x.size(0)):
        out[tile] = x[tile] * first + second
    return out


def test_a_cpu_has_multiprocessors_for_a_kernel_alone():
    """More than one, for work that is divided; whoever else asks is told what Helion says."""
    assert interpreted(counts, torch.ones(3)).tolist() == [3.0] * 3
    for ask in (helion.runtime.get_num_sm, get_num_sm):
        with pytest.raises(AssertionError):
            ask(torch.device("cpu"))


def sums_of_rows(x: torch.Tensor) -> torch.Tensor:
    m, n = x.size()
    out = torch.zeros([m], dtype=torch.float32, device=x.device)
    for tile_m, tile_n in hl.tile([m, n]):
        hl.atomic_add(out, [tile_m], x[tile_m, tile_n].float().sum(-1))
    return out


def counts_of_rows(x: torch.Tensor) -> torch.Tensor:
    out = torch.zeros([x.size(0)], dtype=torch.float32, device=x.device)
    for tiles in hl.tile([0, 0], [x.size(0), x.size(1)]):
        hl.atomic_add(out, [tiles[0]], torch.ones_like(out[tiles[0]]))
    return out


@pytest.mark.parametrize(("function", "each"), [(sums_of_rows, 2.0), (counts_of_rows, 1.0)])
def test_nothing_runs_where_a_dimension_is_empty(function, each):
    """Helion's interpreter goes on with the other dimensions: too few tiles, or wrong results."""
    assert interpreted(function, torch.ones(3, 2)).tolist() == [each] * 3
    for shape in ((3, 0), (0, 3), (0, 0)):
        assert interpreted(function, torch.ones(shape)).tolist() == [0.0] * shape[0]


def test_helions_own_interpreter_is_left_as_it_is():
    """Kernels that are not ours get what Helion does with an empty dimension."""
    kernel = helion.kernel(
        counts_of_rows, ref_mode=helion.RefMode.EAGER, config=helion.Config(), static_shapes=False
    )
    assert kernel(torch.ones(3, 0)).tolist() == [1.0, 1.0, 1.0]
