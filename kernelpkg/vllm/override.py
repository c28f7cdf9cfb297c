"""One native op in PyTorch's dispatcher: overridden by an op of a pack, counted, given back.

`routes` keeps these, one for each route of the process. In the native op's place stands a look-up
by signature, as for ops of a pack; who answers the calls of a signature is found out at the first.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from logging import Logger
from typing import Any, Final, Protocol

import torch
from torch.library import Library

from kernelpkg.configs.samples import free_axes
from kernelpkg.configs.selection import ConfigSelection
from kernelpkg.errors import CallError, KernelpkgError, Problem, error_line
from kernelpkg.expr.language import Expr
from kernelpkg.locks import make_lock
from kernelpkg.manifest.cases import Case
from kernelpkg.manifest.guards import CallCheck
from kernelpkg.manifest.opschema import OpSchema
from kernelpkg.manifest.spec import Scalar
from kernelpkg.packs.routes import Routing, route_problem, schema_problem
from kernelpkg.runtime.dispatch import Launch, NotReady, make_calls
from kernelpkg.runtime.torch_ops import overriding
from kernelpkg.runtime.warm import WarmKernel, warm_classes
from kernelpkg.vllm.native_ops import NativeOp, RouteProblem, find_native, keyset_of
from kernelpkg.vllm.route_conditions import unmet
from kernelpkg.vllm.route_counts import (
    CAPTURE,
    GRAD,
    LATE,
    OURS,
    UNSEEN,
    RouteCounts,
    RouteReport,
    RouteStatus,
)

_MADE: Final[list[Any]] = []
"""All that native ops were ever overridden with, for a call that has begun must find it.

PyTorch frees an implementation that is taken back though another thread may be on its way to it;
with four threads calling, every one soon failed an assertion of PyTorch (2.13, 2026-11-22).
"""


def engine_serves() -> bool:
    """Whether the engine of this process is past its start: vLLM watches for compilation then."""
    monitor = sys.modules.get("vllm.utils.jit_monitor")
    return monitor is not None and bool(monitor.is_active())


class RouteOff(KernelpkgError):
    """The op of a route cannot be had; its text is the reason that is reported."""


class Kernel(WarmKernel, Protocol):
    """What a route needs of a registered kernel; `register.HelionKernelWrapper` is one."""

    schema: OpSchema

    def fallbacks(self) -> Mapping[str, int]:
        """Say how many signatures take a longer way than a launch of prebuilt code, and why."""

    def tell(self, follower: NativeOverride) -> None:
        """Let `follower.forget` be called when the op is given back."""


def capturing_on(key: str) -> Callable[[], bool]:
    """Return what tells whether a CUDA graph is being captured by calls of a dispatch key."""
    return torch.cuda.is_current_stream_capturing if key == "CUDA" else lambda: False


def _untraced(function: Callable[..., Any]) -> Callable[..., Any]:
    """Keep torch.compile from compiling a function, and what it calls; returns it.

    Where a graph breaks at a native op, it is called under Dynamo, which would take the function
    that we put there for a part of the model. `torch.compiler.disable` would cost a call more, and
    the import of Dynamo.
    """
    frames = torch._C._dynamo.eval_frame
    skip = frames._FrameAction.SKIP
    code = getattr(function, "__code__", None)  # that of a function in C is not compiled anyway
    if code is not None:
        frames.set_code_exec_strategy(code, frames._FrameExecStrategy(skip, skip))
    return function


class NativeOverride:
    """One native op that an op of a pack answers, from when it is there until it is given back.

    A call goes to the native op unless the route's conditions hold, no gradient is recorded, and
    its signature is one that the op accepts. The first call of a signature finds that out. While a
    CUDA graph is being captured nothing may be compiled, so that our op answers a signature that is
    new to the route only where its kernel has a launcher for it. Conditions on eager calls, and
    `capture_only`, do not keep our op from answering the first call of its signature: that is how
    its code comes to be compiled before a capture needs it. The first call of a layer, told apart
    by all that is not a free size, makes code ready for all its sizes; and once the engine serves
    requests, nothing is compiled: the native op answers what would be.

    `open_kernel` returns the kernel of the op, loading its pack if need be, or raises RouteOff.
    """

    def __init__(
        self,
        *,
        routing: Routing,
        keys: Sequence[str],
        open_kernel: Callable[[], Kernel],
        logger: Logger,
    ) -> None:
        self.routing = routing
        self.keys = tuple(keys)
        self.target = routing.route.target
        self.native: NativeOp | None = None
        self.off = ""
        self._absent = "the native op is not there yet"
        self._open_kernel = open_kernel
        self._logger = logger
        self._warned = False
        self._kernel: Kernel | None = None
        self._library: Library | None = None
        self._check = CallCheck(routing.spec, routing.op)
        self._calls: list[Any] = []  # one look-up for each dispatch key
        self._layers: set[tuple[object, ...]] = set()  # whose code was made ready for all sizes
        self._unmet = unmet(routing, routing.route.when)
        self._unmet_eager = unmet(routing, routing.route.eager)
        says = map(_says, routing.route.when)
        says_eager = map(_says_eager, routing.route.eager)
        self._counts = RouteCounts((GRAD, UNSEEN, CAPTURE, LATE, *says, *says_eager))
        self._answering = make_lock()  # held while the pack is loaded and code compiled
        self._keeping = make_lock()  # held while something is put down, and never longer

    @property
    def op(self) -> str:
        """The name of the op that answers."""
        return self.routing.op

    @property
    def identity(self) -> tuple[object, ...]:
        """What tells two routes to one native op apart: the pack, the kernel, and the devices."""
        pack, spec = self.routing.pack, self.routing.spec
        return (pack.root, pack.digest, spec.digest, self.keys)

    @property
    def status(self) -> RouteStatus:
        """Whether calls come here: "routed", "waiting" for the native op to be there, or "off"."""
        return "off" if self.off else "waiting" if self.native is None else "routed"

    def report(self) -> RouteReport:
        """Return what became of the route and of its calls up to now."""
        status, kernel = self.status, self._kernel
        return RouteReport(
            target=self.target,
            op=self.op,
            status=status,
            reason=self._absent if status == "waiting" else self.off,
            ours=self._counts.ours(),
            native=self._counts.native(),
            longer={} if kernel is None else kernel.fallbacks(),
        )

    def connect(self, module: str | None) -> Problem | None:
        """Override the native op, if it is there; returns what is wrong, if anything.

        `module` is the one that should have defined it, if that is imported.
        """
        try:
            wrong = self._connect(module)
        except Exception as error:  # one route leaves the others alone
            wrong = "KP846", f"cannot be overridden: {error_line(error)}"
        if wrong is None:
            return None
        code, text = wrong
        message = f"native op '{self.target}' {text}"
        if code == "KP842":
            self._absent = message
        else:
            self.turn_off(message)
        return route_problem(self.routing.pack, self.routing.route, code, message)

    def _connect(self, module: str | None) -> tuple[str, str] | None:
        try:
            native = find_native(self.target)
        except RouteProblem as error:
            return "KP843", str(error)
        if native is None:
            absent = f"is not there, though {module} is imported; correct its name"
            return None if module is None else ("KP842", absent)
        wrong = schema_problem(native.schema, self.routing.spec.schema)
        if wrong is not None:
            return "KP843", f"has another schema than '{self.op}': {wrong}"
        keys = [key for key in self.keys if key in native.kernels]
        if not keys:
            return "KP843", f"has no kernel for {' or '.join(self.keys)}"
        namespace, name = self.target.split("::")
        library = Library(namespace, "IMPL")  # closed below, and by `close`
        try:
            with overriding():
                for key in keys:
                    library.impl(name, self._call(native, key), key, allow_override=True)
                    _MADE.append(torch.library.get_kernel(self.target, key))
        except Exception:
            library._destroy()
            raise
        self.native, self._library = native, library
        return None

    def turn_off(self, reason: str) -> None:
        """Let the native op answer every call from now on, from where our function stands.

        The dispatcher keeps it until the route is closed: it may be in the middle of a call.
        """
        with self._keeping:
            self.off = self.off or reason
        self.forget()

    def close(self, reason: str) -> None:
        """Give the native op back as it was; calls that are being made end as they began."""
        self.off, self.native = reason, None
        self.forget()
        if self._library is not None:
            self._library._destroy()
            self._library = None

    def forget(self) -> None:
        """Drop the launchers of a kernel that was given back; the next call asks for it anew."""
        with self._keeping:
            self._kernel = None
            self._layers.clear()
            for calls in self._calls:
                calls.clear()

    def _call(self, native: NativeOp, key: str) -> Launch:
        """Return the function that is called in place of the native kernel of a dispatch key."""
        passed = partial(native.kernels[key].call_boxed, keyset_of(key))
        capturing = _untraced(capturing_on(key))

        def resolve(args: Sequence[Any]) -> Any:
            return self._resolve(calls, passed, capturing, args)

        def with_grad(args: Sequence[Any]) -> Any:
            self._counts.count(GRAD)
            return passed(*args)

        calls = make_calls(
            self.routing.spec.schema,
            _untraced(resolve),
            args=native.schema.args,
            grad_enabled=torch.is_grad_enabled,
            check_grad=_untraced(with_grad),
            capturing=capturing,
        )
        self._calls.append(calls)
        self._counts.include(calls)
        call: Launch = calls.call
        return _untraced(call)

    def _resolve(
        self, calls: Any, passed: Launch, capturing: Callable[[], bool], args: Sequence[Any]
    ) -> Any:
        """Answer a call whose signature is new, and remember who answers such calls."""
        if self.off:
            self._counts.count(self.off)
            return passed(*args)
        if capturing():
            return self._captured_call(calls, passed, args)
        with self._answering:
            known = calls.get(args)
            if known is None:
                return self._first_call(calls, passed, args)
        return calls.call(*args)  # another thread was here first

    def _captured_call(self, calls: Any, passed: Launch, args: Sequence[Any]) -> Any:
        """Answer a call while a graph is captured, when nothing may be loaded or compiled.

        Our op answers what it has a launcher for, be it that the op was called by its own name.
        """
        wrong = self._unmet(*args)
        if wrong is not None:
            return self._pass_on(calls, passed, args, _says(wrong))
        kernel = self._kernel
        launch = None if kernel is None else kernel.dispatcher.calls.get(args)
        if kernel is None or launch is None:
            self._counts.count(UNSEEN)
            return passed(*args)
        result = launch(*args)
        self._counts.count(None)
        self._take(calls, passed, args, kernel, launch)
        return result

    def _first_call(self, calls: Any, passed: Launch, args: Sequence[Any]) -> Any:
        """Let our op answer, if it can, else the native op; remembers who answers such calls.

        Where our op fails, the native op answers, for nothing was launched; but interpreted code
        may have written by then, and what is read and written cannot be had back: it raises.
        """
        kernel: Kernel | None = None
        wrong = self._unmet(*args)
        if wrong is not None:
            return self._pass_on(calls, passed, args, _says(wrong))
        try:
            axes = self._check.axes_of(args)
            kernel = self._opened()
            compiling = not engine_serves()
            launch, result = kernel.dispatcher.first_call(args, compiling=compiling)
        except CallError as error:
            return self._pass_on(calls, passed, args, str(error).removeprefix(f"{self.op}: "))
        except NotReady:
            return self._pass_on(calls, passed, args, LATE)
        except RouteOff as error:
            self.turn_off(str(error))
            self._counts.count(self.off)
            return passed(*args)
        except Exception as error:
            text = " ".join(f"{type(error).__name__}: {error}".split())
            if kernel is not None and self._half_written(kernel, args):
                self._remember(calls, args, passed, self._counts.counter(f"failed: {text}"))
                raise
            if not self._warned:
                self._warned = True
                self._logger.warning(
                    "op '%s' failed, and native op '%s' answers calls of this signature from now "
                    "on: %s",
                    *(self.op, self.target, text),
                )
            return self._pass_on(calls, passed, args, f"failed: {text}")
        self._counts.count(None)
        self._take(calls, passed, args, kernel, launch)
        if compiling:
            self._prepare(kernel, axes, args)
        return result

    def _pass_on(self, calls: Any, passed: Launch, args: Sequence[Any], reason: str) -> Any:
        """Let the native op answer a call, and all others of its signature, for a reason."""
        self._remember(calls, args, passed, self._counts.counter(reason))
        self._counts.count(reason)
        return passed(*args)

    def _take(
        self, calls: Any, passed: Launch, args: Sequence[Any], kernel: Kernel, launch: Launch
    ) -> None:
        """Remember that our op answers the calls of a signature, or only those of captures."""
        eager = self._passes_eager(args)
        if eager is None:
            self._remember(calls, args, launch, OURS, kernel=kernel)
        else:
            counter = self._counts.counter(eager)
            self._remember(calls, args, passed, counter, kernel=kernel, captured=launch)

    def _prepare(self, kernel: Kernel, axes: Sequence[Scalar], args: Sequence[Any]) -> None:
        """Make code ready for all calls of a layer at its first one, as far as that can be done.

        That one has been answered, so that whatever goes wrong here is said and not raised.
        """
        selection, spec = kernel.plan, self.routing.spec
        if not isinstance(selection, ConfigSelection) or kernel.dispatcher.backend.interprets(args):
            return
        values = {axis.name: value for axis, value in zip(spec.axes, axes, strict=True)}
        free = free_axes(selection)
        layer = tuple((name, value) for name, value in values.items() if name not in free)
        with self._keeping:
            if layer in self._layers:
                return
            self._layers.add(layer)
        device = next(arg for arg in args if isinstance(arg, torch.Tensor)).device
        try:
            found = warm_classes(kernel, [Case(values=values, use=(), grid=0)], device)
            problems = found.problems
        except Exception as error:
            problems = [error_line(error)]
        for problem in problems:
            self._logger.warning("op '%s' is not ready for all sizes: %s", self.op, problem)

    def _passes_eager(self, args: Sequence[Any]) -> str | None:
        """Say why calls of a signature are ours only while a graph is captured, or return None."""
        if self.routing.route.capture_only:
            return CAPTURE
        wrong = self._unmet_eager(*args)
        return None if wrong is None else _says_eager(wrong)

    def _remember(
        self,
        calls: Any,
        args: Sequence[Any],
        launch: Launch,
        counter: int,
        *,
        kernel: Kernel | None = None,
        captured: Launch | None = None,
    ) -> None:
        with self._keeping:
            if not self.off and (kernel is None or kernel is self._kernel):
                captured = captured and _untraced(captured)
                calls.put(args, _untraced(launch), counter, captured, OURS)

    def _opened(self) -> Kernel:
        kernel = self._kernel
        if kernel is None:
            kernel = self._open_kernel()
            ours = self.routing.spec.schema
            if (kernel.schema.args, kernel.schema.returns) != (ours.args, ours.returns):
                raise RouteOff("the schema of its op is another one now; install the route again")
            kernel.tell(self)
            self._kernel = kernel
        return kernel

    def _half_written(self, kernel: Kernel, args: Sequence[Any]) -> bool:
        kept = any(args[place] is not None for place in self.routing.kept)
        return kept and kernel.dispatcher.backend.interprets(args)


def _says(condition: Expr) -> str:
    return f"'{condition.text}' does not hold"


def _says_eager(condition: Expr) -> str:
    return f"{_says(condition)}, and {CAPTURE}"
