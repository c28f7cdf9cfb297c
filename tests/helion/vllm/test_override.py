"""Native ops answered by ops of a pack: who answers which call, and that the answer is the same.

The native ops are stand-ins with vLLM's schemas; ours run in Helion's interpreter.
"""

from __future__ import annotations

import runpy
import threading
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.library import Library
from torch.utils._python_dispatch import TorchDispatchMode

import kernelpkg
from kernelpkg.bench.inputs import make_inputs
from kernelpkg.bench.reference import compare_all
from kernelpkg.errors import ConfigError
from kernelpkg.manifest.cases import cases_of
from kernelpkg.packs.read import kernel_names, read_pack
from kernelpkg.runtime.dispatch import make_calls
from kernelpkg.runtime.register import get_kernel_by_name
from kernelpkg.vllm.override import capturing_on
from kernelpkg.vllm.route_counts import (
    CAPTURE,
    GRAD,
    LATE,
    OTHERS,
    REASON_LIMIT,
    UNSEEN,
    RouteReport,
)

ROOT = Path(__file__).parents[3]
STAND_INS = runpy.run_path(str(ROOT / "benchmarks" / "native_ops.py"))
NATIVE = tuple(STAND_INS["SCHEMAS"])
NOT_FLOAT = "argument 'input' has dtype float64, and must have float32"


@pytest.fixture
def native() -> Iterator[Any]:
    """The six native ops, which answer with the references of the first pack."""
    found = STAND_INS["NativeOps"](partial(STAND_INS["reference"], ROOT))
    yield found
    found.close()


@pytest.fixture
def twice() -> Iterator[list[tuple[int, ...]]]:
    """A native op `_C::twice(Tensor input) -> Tensor`; notes the shapes that it was called with."""
    calls: list[tuple[int, ...]] = []

    def answer(x: torch.Tensor) -> torch.Tensor:
        calls.append(tuple(x.shape))
        return x * 2

    library = Library("_C", "FRAGMENT")
    library.define("twice(Tensor input) -> Tensor")
    library.impl("twice", answer, "CPU")
    torch.library.register_fake("_C::twice", torch.empty_like, lib=library)
    yield calls
    library._destroy()


@pytest.fixture
def routed(demo) -> Callable[..., Path]:
    """Writes a route from `_C::twice` to the op of the pack "demo"; returns its root."""

    def write(text: str = "") -> Path:
        path = demo.root / "manifests" / "demo.toml"
        head = path.read_text().partition("[vllm.routes")[0]
        path.write_text(f'{head}[vllm.routes."_C::twice"]\nop = "twice"\n{text}\n')
        return demo.root

    return write


def call(size: int = 3, **options: Any) -> None:
    """Call the native op, and hold its answer against what it must be."""
    x = torch.arange(size, **{"dtype": torch.float32, **options})
    assert torch.equal(torch.ops._C.twice(x), x * 2)


def copies(args: Any) -> tuple[Any, ...]:
    return tuple(a.clone() if isinstance(a, torch.Tensor) else a for a in args)


def test_who_answers(bench, twice, routed):
    """Calls that the condition and the op accept are ours, all others the native op's."""
    bench.install(root=routed('when = ["num_tokens <= 4"]'))
    for _ in range(3):
        call(4)
    call(5)
    call(3, dtype=torch.float64)
    call(3, dtype=torch.float64)
    assert bench.report == RouteReport(
        target="_C::twice",
        op="demo::twice",
        status="routed",
        ours=3,
        native={
            "'num_tokens <= 4' does not hold": 1,
            NOT_FLOAT: 2,
        },
    )
    assert twice == [(5,), (3,), (3,)]
    assert bench.warned == []


def test_which_of_our_calls_take_a_longer_way(bench, twice, routed, monkeypatch):
    """The kernel counts them; a route that no call has come to has none."""
    bench.install(root=routed())
    assert bench.report.longer == {}
    call(3)
    kernel = get_kernel_by_name("demo::twice")
    assert kernel is not None
    kernel.backend.fallbacks["the build has none"] = 2
    assert bench.report.longer == {"the build has none": 2}


def test_nothing_is_loaded_before_a_call_is_accepted(bench, twice, routed):
    """The pack is loaded once, by the first call that our op will answer."""
    bench.install(root=routed('when = ["num_tokens <= 4"]'))
    call(5)
    call(3, dtype=torch.float64)
    assert (bench.loads, get_kernel_by_name("demo::twice")) == (0, None)
    call(4)
    call(3)
    assert bench.loads == 1


def test_a_signature_is_looked_at_once(bench, twice, routed):
    """A call that repeats a signature goes straight to its launcher, or to the native op."""
    bench.install(root=routed())
    call()
    call(dtype=torch.float64)
    bench.override._check = None  # whoever asked it would fail
    kernel = get_kernel_by_name("demo::twice")
    assert kernel is not None
    kernel.dispatcher.calls.clear()
    call()
    call(dtype=torch.float64)
    assert (bench.report.ours, bench.report.passed) == (2, 2)


def remembered(bench: Any) -> Any:
    """What the only route remembers of calls of the only dispatch key."""
    (calls,) = bench.override._calls
    return calls


def test_what_is_remembered_is_bounded(bench, twice, routed, monkeypatch):
    """A route that is full forgets one signature for each new one, and no count."""
    monkeypatch.setattr("kernelpkg.vllm.override.make_calls", partial(make_calls, limit=4))
    bench.install(root=routed('when = ["num_tokens <= 6"]'))
    for _ in range(2):
        for size in range(1, 9):
            call(size)
            assert len(remembered(bench)) <= 4
    call(8)
    assert len(remembered(bench)) == 4
    assert bench.counts == (12, {"'num_tokens <= 6' does not hold": 5})
    assert len(twice) == 5


def test_reasons_are_bounded(bench, twice, routed):
    """Sentences about sizes have no end; past some of them they are counted together."""
    bench.install(root=routed())
    calls = REASON_LIMIT + 20
    for size in range(calls):
        x = torch.ones(2, size)
        assert torch.equal(torch.ops._C.twice(x), x * 2)
    found = bench.counts[1]
    assert len(found) <= REASON_LIMIT + 1
    assert found[OTHERS] > 1
    assert sum(found.values()) == calls


def test_conditions_are_told_apart_from_any_number_of_sentences(bench, twice, routed):
    """What a route itself says has a count of its own, also when it comes late."""
    bench.install(root=routed('when = ["num_tokens < 90"]\neager = ["num_tokens != 2"]'))
    for size in range(REASON_LIMIT + 20):
        torch.ops._C.twice(torch.ones(2, size))
    with torch.no_grad():
        call(90)
    for _ in range(2):
        call(2)
    torch.ops._C.twice(torch.ones(3, requires_grad=True))
    bench.capturing = True
    call(4)
    found = bench.counts[1]
    for reason in ("'num_tokens < 90' does not hold", GRAD, UNSEEN):
        assert found[reason] == 1
    assert found[f"'num_tokens != 2' does not hold, and {CAPTURE}"] == 1


@pytest.mark.parametrize("name", NATIVE)
def test_the_routes_of_the_first_pack(bench, native, name, specs):
    """Each installs; over all test cases the answer is that of the reference, whoever answers."""
    bench.install(name, root=ROOT)
    spec, op = specs[name], getattr(torch.ops._C, name)
    reference = STAND_INS["reference"](ROOT, name)
    wrong, count = [], 0
    for case in cases_of(spec, "test"):
        if "tune" in case.use:
            continue  # sizes of models: too many for an interpreter
        made = make_inputs(spec, case)
        for _ in range(2):
            args, want = copies(made), copies(made)
            op(*args)
            reference(*want)
            count += 1
            found = compare_all(spec.schema, (args, None), (want, None), spec.accuracy)
            wrong += [agreement.problem for agreement in found if agreement.problem is not None]
    assert wrong == []
    ours, reasons = bench.counts
    assert ours + sum(reasons.values()) == count
    assert len(native.calls) == sum(reasons.values())
    assert bench.warned == []


def test_every_route_of_the_first_pack_is_tried_here():
    """A route that is added to the pack needs a stand-in."""
    pack = read_pack(ROOT, "kernelpkg")
    assert {route.target for route in pack.routes} == {f"_C::{name}" for name in NATIVE}
    assert set(kernel_names(ROOT)) - set(NATIVE) == {"silu_mul_fp8"}


def unconditional(tmp_path: Path, *names: str) -> Path:
    """A pack "demo" with some kernels of the first pack, each routed without conditions."""
    root = tmp_path / "unconditional"
    (root / "manifests").mkdir(parents=True)
    (root / "kernels").mkdir()
    for name in names:
        (root / "kernels" / name).symlink_to(ROOT / "kernels" / name)
    routes = "".join(f'[vllm.routes."_C::{name}"]\nop = "{name}"\n' for name in names)
    (root / "manifests" / "demo.toml").write_text(
        'edition = 1\n[pack]\nname = "demo"\nversion = "0.1.0"\nnamespace = "demo"\n'
        f'license = "Apache-2.0"\nkernels = "*"\n{routes}'
    )
    return root


def test_arguments_left_out_and_by_name(bench, native, tmp_path, make_args, specs):
    """Defaults are the native op's, and arguments given by name are the same call."""
    name = "silu_and_mul_per_block_quant"
    bench.install(root=unconditional(tmp_path, name))
    full = make_args(name, has_scale_ub=False, is_scale_transposed=False, out_dtype="float8_e4m3fn")
    assert full[4:] == (None, False)
    x, group_size = full[1], full[3]
    op = torch.ops._C.silu_and_mul_per_block_quant
    forms: list[Callable[..., Any]] = [
        lambda out, scales: op(out, x, scales, group_size),
        lambda out, scales: op(out, x, scales, group_size, None, False),
        lambda out, scales: op(out, x, scales, group_size, is_scale_transposed=False),
        lambda out, scales: op(scales=scales, group_size=group_size, out=out, input=x),
        lambda out, scales: op.default(out, x, scales, group_size, scale_ub=None),
    ]
    want = copies(full)
    STAND_INS["reference"](ROOT, name)(*want)
    for form in forms:
        got = copies(full)
        form(got[0], got[2])
        found = compare_all(specs[name].schema, (got, None), (want, None), specs[name].accuracy)
        assert [agreement.problem for agreement in found] == [None, None]
    assert bench.counts == (len(forms), {})
    assert len(remembered(bench)) == 1
    assert native.calls == []


def test_a_default_that_only_the_native_op_lacks(bench, native, tmp_path, make_args):
    """Ours may have defaults where the native op has none; its callers give all."""
    name = "per_token_group_fp8_quant"
    bench.install(root=unconditional(tmp_path, name))
    args = make_args(name)
    op = torch.ops._C.per_token_group_fp8_quant
    op(*args)
    with pytest.raises(RuntimeError, match="missing value for argument 'dummy_is"):
        op(*args[:-1])
    op(*args[:-1], dummy_is_tma_aligned=True)
    assert bench.counts == (2, {})


def test_a_captured_call(bench, twice, routed):
    """Nothing is loaded or compiled during a capture; what was seen before is ours then too."""
    bench.install(root=routed())
    bench.capturing = True
    call()
    call()
    assert (bench.loads, bench.counts) == (0, (0, {UNSEEN: 2}))
    bench.capturing = False
    call()
    bench.capturing = True
    call()
    assert bench.counts == (2, {UNSEEN: 2})


def test_a_captured_call_that_our_op_knows(bench, twice, routed):
    """It is ours though the route never saw it, for there is a launcher; others are not."""
    bench.install(root=routed())
    call(3)
    torch.ops.demo.twice(torch.ones(5))
    bench.capturing = True
    for _ in range(2):
        call(5)
        call(4)
    assert (bench.counts, twice) == ((3, {UNSEEN: 2}), [(4,), (4,)])
    bench.capturing = False
    call(5)
    assert (bench.counts, bench.loads) == ((4, {UNSEEN: 2}), 1)


def test_a_captured_call_that_was_made_ready(bench, twice, routed, monkeypatch):
    """A launcher that was made without a launch answers the first call, in a capture."""
    bench.install(root=routed())
    call(3)
    kernel = get_kernel_by_name("demo::twice")
    assert kernel is not None
    with monkeypatch.context() as on_a_gpu:
        on_a_gpu.setattr(kernel.backend, "interprets", lambda args: False)
        on_a_gpu.setattr(kernel.backend, "compile", lambda args, chosen: lambda x: x + x)
        on_a_gpu.setattr(kernel.backend, "is_compiled", lambda launch: True)
        kernel.dispatcher.prepare((torch.ones(7),))
    bench.capturing = True
    call(7)
    assert (bench.counts, twice) == ((2, {}), [])


def test_a_captured_call_before_the_pack_is_loaded(bench, twice, routed):
    """A kernel that the route has not opened is not asked, though the op is there."""
    root = routed()
    bench.install(root=root)
    kernelpkg.load(root=root)
    torch.ops.demo.twice(torch.ones(3))
    bench.capturing = True
    call(3)
    assert (bench.loads, bench.counts) == (0, (0, {UNSEEN: 1}))


def test_conditions_hold_for_captured_calls_too(bench, twice, routed):
    """A signature that fails them is the native op's, though our op knows it."""
    bench.install(root=routed('when = ["num_tokens <= 4"]'))
    call(3)
    torch.ops.demo.twice(torch.ones(5))
    bench.capturing = True
    call(5)
    bench.capturing = False
    call(5)
    reason = "'num_tokens <= 4' does not hold"
    assert (bench.counts, twice) == ((1, {reason: 2}), [(5,), (5,)])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        pytest.param('eager = ["num_tokens > 9"]', "'num_tokens > 9' does not hold, and ", id="1"),
        pytest.param("capture_only = true", "", id="all"),
    ],
)
def test_a_captured_call_that_is_not_worth_it_outside(bench, twice, routed, text, reason):
    """One that our op knew needs no eager call of ours, for nothing is left to compile."""
    bench.install(root=routed(text))
    call(3)
    torch.ops.demo.twice(torch.ones(5))
    bench.capturing = True
    call(5)
    bench.capturing = False
    call(5)
    bench.capturing = True
    call(5)
    assert (bench.counts, twice) == ((3, {f"{reason}{CAPTURE}": 1}), [(5,)])


def test_a_captured_call_of_an_op_that_was_unloaded(bench, twice, routed):
    """Its launchers are gone with it."""
    bench.install(root=routed())
    call(3)
    torch.ops.demo.twice(torch.ones(5))
    kernelpkg.unload("demo::twice")
    bench.capturing = True
    call(5)
    assert (bench.counts, twice) == ((1, {UNSEEN: 1}), [(5,)])


@pytest.mark.parametrize(
    ("text", "capturing", "accepted", "reason"),
    [
        pytest.param("", False, True, None, id="any call"),
        pytest.param("", False, False, NOT_FLOAT, id="declined"),
        pytest.param("capture_only = true", False, True, CAPTURE, id="eager"),
        pytest.param("capture_only = true", True, True, None, id="captured"),
        pytest.param("capture_only = true", True, False, NOT_FLOAT, id="both"),
        pytest.param(
            'eager = ["num_tokens > 4"]',
            *(False, True, f"'num_tokens > 4' does not hold, and {CAPTURE}"),
            id="small and eager",
        ),
        pytest.param('eager = ["num_tokens > 4"]', True, True, None, id="small, captured"),
        pytest.param('eager = ["num_tokens > 2"]', False, True, None, id="large"),
        pytest.param('eager = ["num_tokens > 4"]', True, False, NOT_FLOAT, id="small, declined"),
    ],
)
def test_a_signature_that_was_seen(bench, twice, routed, text, capturing, accepted, reason):
    """Its launcher answers, unless this is an eager call and the route leaves such alone."""
    bench.install(root=routed(text))
    given = {} if accepted else {"dtype": torch.float64}
    call(3, **given)
    before, bench.capturing = bench.report, capturing
    twice.clear()
    for _ in range(2):
        call(3, **given)
    counted = 0 if reason is None else 2
    assert len(twice) == counted
    assert bench.report.ours - before.ours == 2 - counted
    assert dict(bench.report.native).get(reason, 0) - before.native.get(reason, 0) == counted
    assert bench.report.passed - before.passed == counted


def test_each_signature_has_its_own_first_call(bench, twice, routed):
    """Sizes, strides and the alignment of addresses tell the launches of calls apart."""
    bench.install(root=routed("capture_only = true"))
    x = torch.arange(9.0)
    forms = [x[:3], x[:4], x[1:4], x[:6:2]]
    for times in range(1, 4):
        for form in forms:
            assert torch.equal(torch.ops._C.twice(form), form * 2)
        ours, reasons = bench.counts
        assert ours + sum(reasons.values()) == times * len(forms)
        assert reasons.get(CAPTURE, 0) == (times - 1) * ours
    assert ours >= 3


def test_eager_calls_that_are_not_worth_it(bench, twice, routed):
    """The first is ours, for it compiles; later ones are the native op's until one is captured."""
    bench.install(root=routed('eager = ["num_tokens > 4"]'))
    reason = "'num_tokens > 4' does not hold, and no CUDA graph is being captured"
    for _ in range(3):
        call(4)
        call(5)
    assert bench.counts == (4, {reason: 2})
    bench.capturing = True
    call(4)
    call(5)
    assert bench.counts == (6, {reason: 2})


def test_a_route_of_captures_only(bench, twice, routed):
    """The first eager call of a signature is ours, for it compiles; no other is."""
    bench.install(root=routed("capture_only = true"))
    for _ in range(3):
        call()
    call(dtype=torch.float64)
    assert bench.counts == (1, {CAPTURE: 2, NOT_FLOAT: 1})
    bench.capturing = True
    call()
    assert bench.report.ours == 2


def test_capturing_is_asked_for_on_a_gpu_alone():
    """On a CPU nothing is ever captured, and a PyTorch without CUDA cannot be asked."""
    assert capturing_on("CPU")() is False
    assert capturing_on("CUDA") is torch.cuda.is_current_stream_capturing


def test_gradients(bench, twice, routed):
    """The native op answers where gradients are recorded, which ours cannot; else ours does."""
    bench.install(root=routed())
    x = torch.ones(3, requires_grad=True)
    call()
    for _ in range(2):
        assert torch.equal(torch.ops._C.twice(x), torch.full((3,), 2.0))
    assert bench.counts == (1, {GRAD: 2})
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            assert torch.equal(torch.ops._C.twice(x), torch.full((3,), 2.0))
    assert bench.counts == (3, {GRAD: 2})


def test_inference_mode(bench, native, tmp_path, make_args):
    """Tensors that were made in inference mode, as all of vLLM's are, are written in place."""
    bench.install(root=unconditional(tmp_path, "fused_qk_norm_rope"))
    with torch.inference_mode():
        args = copies(make_args("fused_qk_norm_rope", dtype="float32"))
        want = copies(args)
        for _ in range(2):
            torch.ops._C.fused_qk_norm_rope(*args)
            STAND_INS["reference"](ROOT, "fused_qk_norm_rope")(*want)
    torch.testing.assert_close(args[0], want[0], rtol=1e-4, atol=1e-4)
    assert bench.counts == (2, {})


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiled(bench, native, tmp_path, make_args, backend):
    """The native op stays in the graph; when the graph runs, our op answers, conditions hold."""
    name = "rms_norm_per_block_quant"
    root = unconditional(tmp_path, name)
    manifest = root / "manifests" / "demo.toml"
    manifest.write_text(f'{manifest.read_text()}when = ["num_tokens <= 4"]\n')
    bench.install(root=root)
    graphs = []

    def noted(module: torch.fx.GraphModule, inputs: Any) -> Any:
        graphs.append([str(node.target) for node in module.graph.nodes if "_C" in str(node.target)])
        return torch._dynamo.lookup_backend(backend)(module, inputs)

    torch._dynamo.reset()
    try:

        @partial(torch.compile, fullgraph=True, backend=noted, dynamic=True)
        def compiled(*args: Any) -> torch.Tensor:
            torch.ops._C.rms_norm_per_block_quant(*args)
            return args[3] * 2

        for tokens in (3, 4, 17):
            values = {"num_tokens": tokens, "has_residual": True, "is_scale_transposed": True}
            args = copies(make_args(name, **values))
            want = copies(args)
            got = compiled(*args)
            STAND_INS["reference"](ROOT, name)(*want)
            torch.testing.assert_close(got, want[3] * 2, rtol=1e-2, atol=0)
            torch.testing.assert_close(args[6], want[6])
    finally:
        torch._dynamo.reset()
    assert graphs
    assert all(graph == ["_C.rms_norm_per_block_quant"] for graph in graphs)
    assert bench.counts == (2, {"'num_tokens <= 4' does not hold": 1})


def test_a_graph_that_breaks_at_the_op(bench, routed, caplog):
    """Where Dynamo calls a native op, having no fake one, our function is not traced."""
    library = Library("_C", "FRAGMENT")
    library.define("twice(Tensor input) -> Tensor")
    library.impl("twice", lambda x: x * 2, "CPU")
    bench.install(root=routed('when = ["num_tokens <= 4"]'))
    torch._dynamo.reset()
    try:
        doubled = torch.compile(lambda x: torch.ops._C.twice(x) + 1, backend="eager")
        with caplog.at_level("DEBUG", "torch._dynamo.convert_frame"):
            for size in (3, 3, 5):
                assert torch.equal(doubled(torch.ones(size)), torch.full((size,), 3.0))
    finally:
        torch._dynamo.reset()
        bench.table.revoke([])
        library._destroy()
    assert bench.counts == (2, {"'num_tokens <= 4' does not hold": 1})
    traced = [text.partition(",")[0] for text in caplog.messages if "start compiling" in text]
    assert traced
    assert not any("<calls>" in text or "/kernelpkg/" in text for text in traced)


def in_threads(count: int, work: Callable[[int], None]) -> None:
    """Run some work in threads at once; raises what one of them raised."""
    errors: list[BaseException] = []
    barrier = threading.Barrier(count)

    def run(number: int) -> None:
        barrier.wait()
        try:
            work(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def test_threads(bench, twice, routed):
    """Every call is answered rightly and counted once, and the pack is loaded once."""
    bench.install(root=routed('when = ["num_tokens <= 8"]\neager = ["num_tokens != 2"]'))
    rounds, threads = 20, 6

    def work(number: int) -> None:
        for turn in range(rounds):
            for size in range(1, 11):
                call((size + number + turn) % 10 + 1)

    in_threads(threads, work)
    ours, native = bench.counts
    each = rounds * threads
    assert bench.loads == 1
    assert native["'num_tokens <= 8' does not hold"] == 2 * each
    eager = native["'num_tokens != 2' does not hold, and no CUDA graph is being captured"]
    assert each - threads <= eager < each, "each thread at most is the first to see that size"
    assert ours == 8 * each - eager
    assert len(twice) == 2 * each + eager


def test_installed_and_revoked_while_calls_are_made(bench, twice, routed):
    """A call that has begun ends as it began, whatever happens to the route meanwhile."""
    root, done = routed(), threading.Event()
    bench.install(root=root)
    call()

    def work(number: int) -> None:
        if number:
            while not done.is_set():
                call()
            return
        for _ in range(100):
            bench.table.revoke([])
            bench.install(root=root)
        done.set()

    in_threads(4, work)
    assert bench.report.status == "routed"


def kernel_of(op: object) -> str:
    return str(torch.library.get_kernel(op, "CPU"))


def test_revoking_gives_the_native_op_back(bench, twice, routed):
    """After any number of rounds the dispatcher has the native kernel, also where it was called."""
    overload, root = torch.ops._C.twice.default, routed()
    before = kernel_of(overload)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # PyTorch warns of an implementation that is overridden
        for number in range(4):
            bench.install(root=root)
            if number != 2:
                call()
                assert torch.equal(overload(torch.ones(2)), torch.full((2,), 2.0))
                assert twice == []
            assert kernel_of(overload) != before
            assert bench.table.revoke(["twice"]) == ("_C::twice",)
            assert bench.table.revoke(["_C::twice"]) == ()
            assert kernel_of(overload) == before
            assert torch.equal(overload(torch.ones(2)), torch.full((2,), 2.0))
            call()
            assert twice == [(2,), (3,)]
            twice.clear()
    assert (bench.report.status, bench.report.reason) == ("off", "revoked")
    assert bench.counts == (2, {})


class Through(TorchDispatchMode):
    """A mode that every op goes through in Python, where PyTorch keeps who answers it."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


def test_modes_of_python(bench, twice, routed):
    """What PyTorch keeps of an op for a mode is never an answer that was given back."""
    root = routed()
    for _ in range(3):
        with Through():
            call()
            bench.install(root=root)
            call()
            call()
            bench.table.revoke([])
            call()
        assert twice == [(3,), (3,)]
        assert bench.counts == (2, {})
        twice.clear()


def test_the_original(bench, twice, routed):
    """It is the native op, whether it is routed now, was routed, or will be."""
    x = torch.ones(3)
    early = bench.table.original("twice")
    bench.install(root=routed())
    late = bench.table.original("_C::twice")
    for original in (early, late, early):
        twice.clear()
        assert torch.equal(original(x), x * 2)
        assert torch.equal(original(input=x), x * 2)
        assert twice == [(3,), (3,)]
    bench.table.revoke([])
    assert torch.equal(late(x), x * 2)
    assert bench.counts == (0, {})


def test_the_original_of_an_op_with_defaults(bench, native, make_args):
    """Arguments may be left out and named, as with the op itself."""
    args = make_args("silu_and_mul_per_block_quant", has_scale_ub=False, is_scale_transposed=False)
    original = bench.table.original("silu_and_mul_per_block_quant")
    original(*args[:4])
    original(*args[:4], is_scale_transposed=False)
    assert native.calls == ["silu_and_mul_per_block_quant"] * 2


def breaking(demo, code: str) -> None:
    """Let the kernel of the pack fail when it is called, not when it is loaded."""
    demo.edit("kernels/twice/kernel.py", "    out =", f"    {code}\n    out =")


def test_an_op_that_fails_at_its_first_call(bench, twice, routed, demo):
    """The native op answers such calls from then on, and one warning says so."""
    breaking(demo, "assert input.size(0) > 4, 'too\\n small'")
    bench.install(root=routed())
    for _ in range(3):
        call(3)
    call(4)
    call(5)
    told = "failed: AssertionError: too small"
    assert bench.counts == (1, {told: 4})
    answers = "native op '_C::twice' answers calls of this signature from now on"
    failed = f"op 'demo::twice' failed, and {answers}: AssertionError: too small"
    assert bench.warned == [failed]


def test_a_call_after_the_first_request(bench, twice, routed, monkeypatch):
    """Nothing is compiled then: what has no code is the native op's, what has some is ours."""
    bench.install(root=routed())
    call(3)
    kernel = get_kernel_by_name("demo::twice")
    assert kernel is not None
    monkeypatch.setattr("kernelpkg.vllm.override.engine_serves", lambda: True)
    monkeypatch.setattr(kernel.backend, "interprets", lambda args: False)
    for _ in range(2):
        call(4)
        call(3)
    assert (bench.counts, twice) == ((3, {LATE: 2}), [(4,), (4,)])
    monkeypatch.setattr(kernel.backend, "ready", lambda args, chosen, exact: lambda x: x + x)
    call(5)
    assert (bench.counts, bench.warned) == ((4, {LATE: 2}), [])


def test_code_that_cannot_be_made_ready(bench, twice, routed, monkeypatch):
    """The call that was the occasion has been answered by our op, and by no other; it is said."""
    bench.install(root=routed())
    call(3)
    kernel = get_kernel_by_name("demo::twice")
    assert kernel is not None
    monkeypatch.setattr(kernel.backend, "interprets", lambda args: False)
    monkeypatch.setattr(kernel.backend, "compile", lambda args, chosen: lambda x: x + x)

    def failing(*args: Any) -> None:
        raise RuntimeError("no\n memory")

    monkeypatch.setattr("kernelpkg.vllm.override.warm_classes", failing)
    call(4)
    call(5)
    assert (bench.counts, twice) == ((3, {}), [])
    assert bench.warned == ["op 'demo::twice' is not ready for all sizes: RuntimeError: no memory"]


def test_an_op_that_fails_later(bench, twice, routed, monkeypatch):
    """What a remembered launcher raises is the caller's: it may have written already."""
    bench.install(root=routed())
    call()

    def failing(*args: Any) -> None:
        raise ConfigError("launched, and failed")

    remembered(bench).put((torch.arange(3.0),), failing)
    with pytest.raises(ConfigError, match="launched, and failed"):
        call()
    assert twice == []


@pytest.fixture
def half_way(bench, native, tmp_path, monkeypatch) -> Callable[[str], Any]:
    """Routes a native op to an op that writes and then fails; returns the back end of that."""

    def half_written(*given: Any) -> None:
        given[0].zero_()
        raise ConfigError("half way")

    def install(name: str) -> Any:
        bench.install(root=unconditional(tmp_path, name))
        kernelpkg.load(root=tmp_path / "unconditional")
        kernel = get_kernel_by_name(f"demo::{name}")
        assert kernel is not None
        monkeypatch.setattr(kernel.backend, "interpret", half_written)
        return kernel.backend

    return install


def test_a_first_call_that_may_have_written(bench, native, half_way, make_args):
    """In the interpreter an op that writes what it reads raises; the native op would read that."""
    name = "fused_qk_norm_rope"
    half_way(name)
    args = make_args(name, dtype="float32")
    op = torch.ops._C.fused_qk_norm_rope
    with pytest.raises(ConfigError, match="half way"):
        op(*copies(args))
    assert native.calls == []
    op(*copies(args))
    assert native.calls == [name]
    assert bench.counts == (0, {"failed: ConfigError: half way": 1})


def test_a_first_call_that_only_writes(native, half_way, make_args, monkeypatch):
    """Without a residual nothing that is written is read, so the native op can still answer."""
    name = "rms_norm_per_block_quant"
    backend = half_way(name)
    op = torch.ops._C.rms_norm_per_block_quant
    with pytest.raises(ConfigError, match="half way"):
        op(*make_args(name, has_residual=True))
    args = make_args(name, has_residual=False)
    want = copies(args)
    op(*args)
    STAND_INS["reference"](ROOT, name)(*want)
    assert torch.equal(args[0].view(torch.uint8), want[0].view(torch.uint8))
    assert native.calls == [name]
    monkeypatch.setattr(backend, "interprets", lambda args: False)
    op(*make_args(name, has_residual=True, num_tokens=17))
    assert native.calls == [name, name], "compiled code has written nothing when its launch fails"


def test_an_op_that_is_unloaded(bench, twice, routed):
    """The route goes off, and comes back when it is installed again."""
    root = routed()
    bench.install(root=root)
    call()
    kernelpkg.unload("demo::twice")
    for _ in range(2):
        call()
    reason = "op 'demo::twice' was unloaded; install the route again"
    assert (bench.report.status, bench.report.reason) == ("off", reason)
    assert bench.counts == (1, {reason: 2})
    bench.install(root=root)
    call()
    assert bench.counts == (1, {})


def test_an_op_that_is_unloaded_between_two_installs(bench, twice, routed):
    """The second install loads it again, though no call has found it gone meanwhile."""
    root = routed()
    bench.install(root=root)
    call()
    kernelpkg.unload("demo::twice")
    bench.install(root=root)
    call()
    assert (bench.loads, bench.counts, twice) == (2, (1, {}), [])


def test_a_load_that_is_interrupted(bench, twice, routed):
    """Whoever interrupts it gets the interrupt, and the next call loads the pack after all."""

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    bench.install(root=routed())
    loads, bench.load = bench.load, interrupted
    with pytest.raises(KeyboardInterrupt):
        call()
    bench.load = loads
    call()
    assert (bench.counts, twice) == ((1, {}), [])


def test_an_op_that_is_loaded_anew(bench, twice, routed, demo):
    """A route follows to what an edit has made of its op."""
    root = routed()
    bench.install(root=root)
    call()
    demo.edit("kernels/twice/kernel.py", "* 2", "* 2.0 / 1.0")
    kernelpkg.load(root=root)
    call()
    now = get_kernel_by_name("demo::twice")
    assert bench.override._kernel is now
    assert bench.counts == (2, {})
    assert twice == []


def test_an_op_whose_schema_was_edited(bench, twice, routed, demo):
    """A route never passes arguments on to an op that takes others by now."""
    root = routed()
    bench.install(root=root)
    demo.edit("kernels/twice/kernel.toml", "(Tensor input)", "(Tensor input, int times=2)")
    demo.edit("kernels/twice/kernel.py", "torch.Tensor)", "torch.Tensor, times: int = 2)")
    demo.edit("kernels/twice/host.py", "torch.Tensor)", "torch.Tensor, times: int = 2)")
    call()
    reason = "the schema of its op is another one now; install the route again"
    assert (bench.report.status, bench.report.reason) == ("off", reason)
    assert twice == [(3,)]


def test_reading_counts_does_not_count(bench, twice, routed):
    """What they have come to is read as often as one likes."""
    bench.install(root=routed('when = ["num_tokens <= 4"]'))
    for _ in range(3):
        call(3)
        call(5)
    reports = [bench.report for _ in range(5)]
    assert [(found.ours, found.passed) for found in reports] == [(3, 3)] * 5


def test_no_count_is_lost_between_threads(bench, twice, routed):
    """Threads that call at once are all counted, while others read the counts."""
    bench.install(root=routed('when = ["num_tokens <= 4"]'))
    calls, threads = 2000, 6
    small, large = torch.ones(3), torch.ones(5)

    def work(number: int) -> None:
        for turn in range(calls):
            torch.ops._C.twice(small if turn % 2 else large)
            if turn % 100 == 0:
                assert bench.report.ours <= calls * threads

    call(3)
    remembered(bench).put((small,), lambda x: x)
    in_threads(threads, work)
    half = calls * threads // 2
    assert bench.counts == (1 + half, {"'num_tokens <= 4' does not hold": half})
