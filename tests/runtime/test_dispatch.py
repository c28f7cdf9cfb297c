"""From a call to a launch: signatures, what is remembered of them, and what is done once."""

from __future__ import annotations

import gc
import threading
import time
from functools import partial

import pytest
import torch
from attrs import evolve
from torch.autograd import forward_ad

from kernelpkg.configs.selection import Chosen
from kernelpkg.errors import CallError, ConfigError
from kernelpkg.launch import native
from kernelpkg.manifest.guards import check_devices
from kernelpkg.manifest.opschema import NO_DEFAULT, parse_schema
from kernelpkg.runtime import dispatch
from kernelpkg.runtime.dispatch import Dispatcher, NotReady, make_calls

SCHEMA = parse_schema(
    "(Tensor(a!) out, Tensor x, Tensor? bias, int n, float eps=1e-6, bool fast=False) -> ()"
)


@pytest.fixture(autouse=True, params=["python", "c"])
def launcher(request, monkeypatch):
    """Both launchers, of which the one in C may not have been compiled here."""
    if request.param == "c":
        extension, problem = native.load_extension()
        if extension is None:
            pytest.skip(problem)
    monkeypatch.setenv(native.VARIABLE, request.param)


def tensor(*shape, strides=None, dtype=torch.float32, grad=False, offset=0):
    """A tensor whose address is so many elements beyond a multiple of 64 bytes."""
    strides = strides or torch.empty(shape, device="meta").stride()
    steps = zip(shape, strides, strict=True)
    whole = torch.zeros(offset + 1 + sum((size - 1) * stride for size, stride in steps))
    found = whole.to(dtype).as_strided(shape, strides, offset)
    return found.requires_grad_(grad)


class Acceptance:
    axis_names = ("n", "eps")
    unread = frozenset()

    def __init__(self):
        self.calls = 0

    def axes_of(self, args):
        self.calls += 1
        if args[3] < 0:
            raise CallError("op: n is negative")
        return (args[3], args[4])


def _chosen(config_id, mode="tuned", outcome="exact"):
    return Chosen(config_id=config_id, config={}, outcome=outcome, mode=mode, reason=config_id)


BEST = (_chosen("best"),)


class Unfit(Exception):
    """Stands in for Triton's OutOfResources."""


class Bench:
    """A dispatcher whose parts count what they are asked for."""

    def __init__(self, options=BEST, fails=(), **changes):
        self.launched, self.compiled, self.picked = [], [], 0
        self.acceptance = Acceptance()
        self.recording = False
        self.fails = dict.fromkeys(fails, Unfit("out of\nshared memory"))
        self.options_given = options
        self.platform = "nvidia_h200"
        self.interpret = lambda *args: self.launched.append(("interpreted", args))
        self.empty = lambda args: None
        self.ready = lambda args, chosen, exact: None
        self.is_compiled = lambda launch: True
        self.interprets = lambda args: False
        self.has_tangent = native.has_tangent
        vars(self).update(changes)
        self.dispatcher = Dispatcher(
            op="ns::op", schema=SCHEMA, acceptance=lambda: self.acceptance, plan=self, backend=self
        )
        self.call = self.dispatcher.implementation()

    def records_gradients(self):
        return self.recording

    def unfit(self):
        return (Unfit,)

    def options(self, axes, args=None):
        self.picked += 1
        yield from self.options_given

    def compile(self, args, chosen):
        self.compiled.append(chosen.config_id)

        def launch(*args):
            if chosen.config_id in self.fails:
                raise self.fails[chosen.config_id]
            self.launched.append((chosen.config_id, args))
            return chosen.config_id

        return launch


def _args(**changes):
    args = {"out": tensor(4, 8), "x": tensor(4, 8), "bias": None, "n": 3, "eps": 1e-6}
    return tuple({**args, "fast": False, **changes}.values())


def test_a_repeated_call_looks_up_once():
    """The first call is checked, picked and compiled; the next ones only launched."""
    bench = Bench()
    for _ in range(5):
        assert bench.call(*_args()) == "best"
    assert (bench.acceptance.calls, bench.picked, len(bench.compiled)) == (1, 1, 1)
    assert len(bench.launched) == 5
    assert len(bench.dispatcher.calls) == 1


def test_a_repeated_call_keeps_nothing():
    """Thousands of calls of one signature leave no more objects than one."""
    bench = Bench(compile=lambda args, chosen: lambda *args: None)
    args = _args()
    bench.call(*args)
    gc.collect()
    before = len(gc.get_objects())
    for _ in range(5000):
        bench.call(*args)
    gc.collect()
    assert len(gc.get_objects()) - before < 50


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"x": tensor(5, 8)}, id="shape"),
        pytest.param({"x": tensor(4, 8, strides=(16, 1))}, id="strides"),
        pytest.param({"x": tensor(4, 8, dtype=torch.int32)}, id="dtype"),
        pytest.param({"x": tensor(4, 8, offset=1)}, id="alignment"),
        pytest.param({"bias": tensor(8)}, id="presence"),
        pytest.param({"n": 4}, id="int"),
        pytest.param({"eps": 1e-5}, id="float"),
        pytest.param({"fast": True}, id="bool"),
    ],
)
def test_all_that_a_launch_depends_on(changes):
    """A call that differs in one fact gets a launcher of its own."""
    bench = Bench()
    bench.call(*_args())
    bench.call(*_args(**changes))
    assert len(bench.compiled) == 2
    bench.call(*_args())
    bench.call(*_args(**changes))
    assert len(bench.compiled) == 2


class OnAnotherDevice:
    """Stands for a tensor of a GPU: equal to one on the CPU in all but its device."""

    requires_grad = False

    def __init__(self, same):
        self.shape, self.dtype = same.shape, same.dtype
        self.stride, self.data_ptr = same.stride, same.data_ptr
        self.device = torch.device("cuda", 1)

    @staticmethod
    def get_device():
        return 1


class Takes:
    """A launcher that does not depend on the values of the floats at some places."""

    def __init__(self, *places):
        self.any = places

    def __call__(self, *args):
        return args[4]


def resolved(bench, *values):
    """Say of each value of `eps` whether a call with it is asked about."""
    asked = []
    for eps in values:
        before = bench.acceptance.calls
        assert bench.call(*_args(eps=eps)) == eps
        asked.append(bench.acceptance.calls > before)
    return asked


@pytest.mark.parametrize(
    ("unread", "launch", "asked"),
    [
        pytest.param({4}, Takes(4), [True, False, False], id="neither looks"),
        pytest.param({0, 3}, Takes(4), [True, True, False], id="the manifest looks"),
        pytest.param({4}, Takes(), [True, True, False], id="the launch looks"),
        pytest.param({4}, lambda *args: args[4], [True, True, False], id="not recorded"),
    ],
)
def test_a_float_that_the_kernel_alone_looks_at(unread, launch, asked):
    """Its value is in no signature, and each call launches with its own."""
    bench = Bench(compile=lambda args, chosen: launch)
    bench.acceptance.unread = frozenset(unread)
    assert resolved(bench, 1e-6, 1e-5, 1e-6) == asked


def test_a_launch_that_looks_at_a_float_puts_it_into_all_signatures():
    """Whatever was known before is asked about again, and what comes later is told apart."""
    launches = [Takes(4), Takes(), Takes(4)]
    bench = Bench(compile=lambda args, chosen: launches[min(args[3], 2)])
    bench.acceptance.unread = frozenset({4})
    calls = [
        (0, 1.0),
        (0, 2.0),
        (1, 1.0),
        (1, 2.0),
        (0, 1.0),
        (0, 2.0),
        (2, 1.0),
        (2, 2.0),
        (0, 2.0),
    ]
    asked = []
    for n, eps in calls:
        before = bench.acceptance.calls
        assert bench.call(*_args(n=n, eps=eps)) == eps
        asked.append(bench.acceptance.calls > before)
    assert asked == [True, False, True, True, True, True, True, True, False]


def test_what_is_interpreted_takes_any_float():
    bench = Bench(interprets=lambda args: True, interpret=lambda *args: args[4])
    bench.acceptance.unread = frozenset({4})
    assert resolved(bench, 1.0, 2.0, float("inf")) == [True, False, False]


def test_a_tensor_on_another_device():
    """It is no call that was made before, whatever else is equal."""
    bench, x = Bench(), tensor(4, 8)
    for same, count in ((x, 1), (OnAnotherDevice(x), 2), (x, 2)):
        bench.call(*_args(x=same))
        assert len(bench.compiled) == count


def test_left_out_defaults():
    """PyTorch leaves out trailing arguments that equal their defaults; launchers get them all."""
    bench = Bench()
    bench.call(*_args()[:4])
    bench.call(*_args())
    assert len(bench.compiled) == 1
    assert [args[4:] for _, args in bench.launched] == [(1e-6, False)] * 2


def test_the_defaults_of_a_native_op():
    """Where a look-up stands in a native op's place, what is left out is that op's default."""
    native_args = [evolve(arg, default=NO_DEFAULT) for arg in SCHEMA.args[:4]]
    native_args += [evolve(SCHEMA.args[4], default=1e-3), evolve(SCHEMA.args[5], default=True)]
    asked = []
    calls = make_calls(
        SCHEMA,
        asked.append,
        args=native_args,
        grad_enabled=lambda: False,
        check_grad=asked.append,
    )
    given = _args()[:4]
    calls.call(*given)
    assert asked.pop() == (*given, 1e-3, True)
    calls.put((*given, 1e-3, True), lambda *args: args[4:])
    assert calls.call(*given) == calls.call(*given, 1e-3) == (1e-3, True)
    assert asked == []


def test_a_refused_call_is_not_remembered():
    """It is refused each time, nothing is compiled, and good calls stay good."""
    bench = Bench()
    for _ in range(2):
        with pytest.raises(CallError, match="n is negative"):
            bench.call(*_args(n=-1))
    assert (bench.compiled, len(bench.dispatcher.calls)) == ([], 0)
    assert bench.call(*_args()) == "best"


def test_a_failed_launch_is_not_remembered():
    """An error at the first launch is raised as it is, and the next call tries again."""
    bench = Bench(fails=["best"])
    with pytest.raises(Unfit):
        bench.call(*_args())
    assert len(bench.dispatcher.calls) == 0
    bench.fails.clear()
    assert bench.call(*_args()) == "best"
    assert bench.compiled == ["best", "best"]


def test_a_borrowed_config_that_does_not_fit():
    """OutOfResources of a config that was not tuned for the call goes on to the next option."""
    options = (
        _chosen("stretched", outcome="bucketed"),
        _chosen("borrowed", mode="default", outcome="default"),
        _chosen("helion", mode="default", outcome="default"),
    )
    bench = Bench(options, fails=["stretched", "borrowed"])
    assert bench.call(*_args()) == "helion"
    assert bench.compiled == ["stretched", "borrowed", "helion"]
    assert bench.call(*_args()) == "helion"
    assert bench.compiled == ["stretched", "borrowed", "helion"]


def test_other_errors_of_a_borrowed_config_are_raised():
    """Only what says that a config is too large is a reason to try another."""
    bench = Bench((_chosen("borrowed", mode="default"), _chosen("helion", mode="default")))
    bench.fails["borrowed"] = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        bench.call(*_args())
    assert bench.compiled == ["borrowed"]


@pytest.mark.parametrize(
    ("options", "fails", "why"),
    [
        pytest.param((), (), "", id="none"),
        pytest.param(
            (_chosen("borrowed", mode="default"),),
            ("borrowed",),
            " (borrowed: out of shared memory)",
            id="unfit",
        ),
    ],
)
def test_no_config(options, fails, why):
    """Where no config may run, one line says for which call, and why the last one failed."""
    bench = Bench(options, fails=fails)
    with pytest.raises(ConfigError) as caught:
        bench.call(*_args())
    assert str(caught.value) == (
        f"ns::op: no config for this call on nvidia_h200 (n = 3, eps = 1e-06){why}; "
        "tune one, or let [miss] action be 'default'"
    )
    assert len(bench.dispatcher.calls) == 0


def test_gradients():
    """A tensor that requires grad is refused while gradients are recorded, and only then."""
    bench = Bench()
    args = _args(x=tensor(4, 8, grad=True))
    assert bench.call(*args) == "best"
    bench.recording = True
    for _ in range(2):
        with pytest.raises(CallError) as caught:
            bench.call(*args)
        assert str(caught.value) == (
            "ns::op: argument 'x' requires grad, and the op has no backward; detach it, or call "
            "the op under torch.no_grad()"
        )
    assert bench.call(*_args()) == "best"
    bench.recording = False
    assert bench.call(*args) == "best"


def test_forward_gradients():
    """A tensor that has a tangent is refused, whether gradients are recorded or not."""
    bench = Bench()
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(tensor(4, 8), torch.ones(4, 8))
        for bench.recording in (True, False):
            with pytest.raises(CallError) as caught:
                bench.call(*_args(x=dual))
            assert str(caught.value) == (
                "ns::op: argument 'x' has a tangent, and the op has no forward derivative; detach "
                "it"
            )
        assert bench.call(*_args()) == "best"


def test_devices():
    """Tensors on several devices are named; absent ones and left-out defaults do not count."""
    check_devices("ns::op", SCHEMA, _args())
    check_devices("ns::op", SCHEMA, _args()[:3])
    with pytest.raises(CallError) as caught:
        check_devices("ns::op", SCHEMA, _args(bias=torch.empty(8, device="meta")))
    assert str(caught.value) == (
        "ns::op: argument 'bias' is on meta, and 'out' on cpu; all must be on one device"
    )


def test_empty_and_interpreted_calls_compile_nothing():
    """They are remembered like compiled ones."""
    for changes, expected in (
        ({"empty": lambda args: lambda *args: "nothing"}, "nothing"),
        ({"interprets": lambda args: True}, None),
    ):
        bench = Bench(**changes)
        assert [bench.call(*_args()), bench.call(*_args())] == [expected] * 2
        assert (bench.acceptance.calls, bench.picked, bench.compiled) == (1, 0, [])


def test_what_is_remembered_is_bounded(monkeypatch):
    """When it is full each new signature takes an old one's place, and calls go on being right."""
    monkeypatch.setattr(dispatch, "make_calls", partial(make_calls, limit=10))
    bench = Bench()
    for n in range(35):
        assert bench.call(*_args(n=n)) == "best"
        assert len(bench.dispatcher.calls) == min(n + 1, 10)
    assert bench.call(*_args(n=34)) == "best"
    assert len(bench.compiled) == 35
    for n in range(35):
        assert bench.call(*_args(n=n)) == "best"
    assert len(bench.dispatcher.calls) == 10


def test_a_call_that_has_no_signature_is_answered_each_time():
    """A number that no signature holds goes the long way, and to the same launch."""
    bench = Bench()
    for _ in range(2):
        assert bench.call(*_args(n=2**70)) == "best"
    assert (len(bench.launched), len(bench.dispatcher.calls)) == (2, 0)


def test_the_first_call_returns_its_launcher():
    """Who keeps launchers elsewhere gets them with the results, known ones too."""
    bench = Bench()
    launch, result = bench.dispatcher.first_call(_args())
    assert (result, bench.launched.pop()[0]) == ("best", "best")
    again, result = bench.dispatcher.first_call(_args())
    assert again is launch
    assert (result, len(bench.launched), bench.acceptance.calls) == ("best", 1, 1)


def test_a_first_call_that_may_compile_nothing():
    """It is answered where its code is there, and refused and forgotten where it is not."""
    bench = Bench()
    for _ in range(2):
        with pytest.raises(NotReady) as caught:
            bench.dispatcher.first_call(_args(), compiling=False)
    assert str(caught.value) == "ns::op: code for this call was not made ahead"
    assert (bench.compiled, len(bench.dispatcher.calls)) == ([], 0)
    bench.ready = lambda args, chosen, exact: lambda *args: "ready"
    assert bench.dispatcher.first_call(_args(), compiling=False)[1] == "ready"
    assert (bench.compiled, bench.call(*_args())) == ([], "ready")


def test_a_known_call_compiles_nothing():
    """What was compiled once answers also where nothing may be compiled."""
    bench = Bench()
    bench.call(*_args())
    assert bench.dispatcher.first_call(_args(), compiling=False)[1] == "best"


def test_a_call_is_made_ready_without_being_made():
    """It is checked, picked and compiled; the call itself is only a launch."""
    bench = Bench()
    for _ in range(2):
        bench.dispatcher.prepare(_args())
    assert (bench.acceptance.calls, bench.picked, bench.compiled) == (1, 1, ["best"])
    assert bench.launched == []
    assert bench.call(*_args()) == "best"
    assert (bench.acceptance.calls, bench.compiled, len(bench.launched)) == (1, ["best"], 1)


def test_a_call_that_cannot_be_made_ready():
    """It is refused in the words of the call."""
    with pytest.raises(CallError, match="n is negative"):
        Bench().dispatcher.prepare(_args(n=-1))
    with pytest.raises(ConfigError, match="no config for this call on nvidia_h200"):
        Bench(()).dispatcher.prepare(_args())


def test_a_launcher_that_compiles_later_makes_nothing_ready():
    """What is known has nothing to compile, so that it may be launched during a capture."""
    bench = Bench(is_compiled=lambda launch: False)
    with pytest.raises(NotReady) as caught:
        bench.dispatcher.prepare(_args())
    assert str(caught.value) == "ns::op: code for this call is compiled when it is first made"
    assert len(bench.dispatcher.calls) == 0
    assert bench.call(*_args()) == "best"
    bench.dispatcher.prepare(_args())
    assert bench.call(*_args()) == "best"


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"interprets": lambda args: True}, id="interpreted"),
        pytest.param({"empty": lambda args: lambda *args: None}, id="empty"),
    ],
)
def test_nothing_to_make_ready(changes):
    """Where nothing is compiled, nothing is picked before the call either."""
    bench = Bench(**changes)
    bench.dispatcher.prepare(_args())
    assert (bench.picked, bench.launched, len(bench.dispatcher.calls)) == (0, [], 0)


def test_threads_compile_a_signature_once():
    """First calls at the same time wait for one compilation, and are all launched."""
    bench = Bench()
    whole = bench.compile

    def slow(args, chosen):
        time.sleep(0.05)
        return whole(args, chosen)

    bench.compile = slow
    ready, results = threading.Barrier(8), []

    def call():
        ready.wait()
        results.append(bench.call(*_args()))

    threads = [threading.Thread(target=call) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == ["best"] * 8
    assert (bench.compiled, bench.acceptance.calls) == (["best"], 1)


def test_an_op_may_call_itself_for_another_signature():
    """The lock lets a first call make another one on the way."""
    bench = Bench()
    whole = bench.compile

    def nested(args, chosen):
        if args[3] > 0:
            bench.call(*_args(n=args[3] - 1))
        return whole(args, chosen)

    bench.compile = nested
    assert bench.call(*_args(n=2)) == "best"
    assert len(bench.dispatcher.calls) == 3
