"""One native op in PyTorch's dispatcher: overridden by an op of a pack, counted, given back.

`routes` keeps these, one for each route of the process; `route_conditions` writes the function that
takes the native op's place.
"""

from __future__ import annotations

import itertools
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from logging import Logger
from typing import Any, Final, Literal, Protocol

import torch
from attrs import field, frozen
from torch.library import Library

from kernelpkg.errors import CallError, KernelpkgError, Problem
from kernelpkg.manifest.guards import CallCheck
from kernelpkg.manifest.opschema import OpSchema
from kernelpkg.packs.routes import Routing, route_problem, schema_problem
from kernelpkg.runtime.dispatch import TABLE_LIMIT, Dispatcher, Launch
from kernelpkg.vllm.native_ops import NativeOp, RouteProblem, find_native, keyset_of
from kernelpkg.vllm.route_conditions import conditions, routed_code

REASON_LIMIT: Final = 50
"""How many sentences of refused calls a route tells apart; they name sizes, and have no end."""

GRAD: Final = "an argument requires grad"
CAPTURE: Final = "no CUDA graph is being captured"
UNSEEN: Final = "first seen while a CUDA graph was being captured"
OTHERS: Final = "not accepted, for other reasons"

RouteStatus = Literal["routed", "waiting", "off"]

_Entry = tuple[Launch | None, Callable[[], int]]
"""Who answers the calls of a signature: a launcher, or None for the native op; and their count."""

_MADE: Final[list[Any]] = []
"""All that native ops were ever overridden with, for a call that has begun must find it.

PyTorch frees an implementation that is taken back though another thread may be on its way to it;
with four threads calling, every one soon failed an assertion of PyTorch (2.13, 2026-11-22).
"""


class RouteOff(KernelpkgError):
    """The op of a route cannot be had; its text is the reason that is reported."""


class Kernel(Protocol):
    """What a route needs of a registered kernel; `register.HelionKernelWrapper` is one."""

    schema: OpSchema
    dispatcher: Dispatcher

    def tell(self, follower: NativeOverride) -> None:
        """Let `follower.forget` be called when the op is given back."""


class CallCount:
    """A count of calls that stays exact with any number of threads, and takes no lock.

    One call of `add` is one step of an `itertools.count`, which nothing interrupts; what it has
    come to can be read of its text alone without another step.
    """

    __slots__ = ("_steps", "add")

    def __init__(self) -> None:
        self._steps = itertools.count()
        self.add = self._steps.__next__

    @property
    def value(self) -> int:
        return int(repr(self._steps).removeprefix("count(").removesuffix(")"))


@frozen(kw_only=True)
class RouteReport:
    """What became of one route of a pack, and of the calls of its native op since.

    Attributes:
        target: The native op, as in "_C::per_token_group_fp8_quant".
        op: The op of the pack, with its namespace.
        status: "routed", "waiting" (for the native op to be there) or "off".
        reason: Why it is not routed.
        ours: How many calls the op of the pack answered.
        native: How many went on to the native op while the route stood, by the reason for it.
    """

    target: str
    op: str
    status: RouteStatus
    reason: str = ""
    ours: int = 0
    native: Mapping[str, int] = field(factory=dict)

    @property
    def passed(self) -> int:
        """The calls that went on to the native op, for whatever reason."""
        return sum(self.native.values())


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
    frames.set_code_exec_strategy(function.__code__, frames._FrameExecStrategy(skip, skip))
    return function


class NativeOverride:
    """One native op that an op of a pack answers, from when it is there until it is given back.

    A call goes to the native op unless the route's conditions hold, no gradient is recorded, and
    its signature is one that the op accepts. The first call of a signature finds that out, but
    never while a CUDA graph is being captured, for nothing may be compiled then. Conditions on
    eager calls, and `capture_only`, do not keep our op from answering the first call of its size
    and scalars: that is how its code comes to be compiled before a capture needs it.

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
        self._table: dict[Any, _Entry] = {}
        self._seen: set[Any] = set()
        self._ours = CallCount()
        self._reasons: dict[str, CallCount] = {}
        self._answering = threading.RLock()  # held while the pack is loaded and code compiled
        self._keeping = threading.Lock()  # held while something is put down, and never longer

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
        with self._keeping:
            counts = {reason: calls.value for reason, calls in self._reasons.items()}
        status = self.status
        return RouteReport(
            target=self.target,
            op=self.op,
            status=status,
            reason=self._absent if status == "waiting" else self.off,
            ours=self._ours.value,
            native={reason: count for reason, count in counts.items() if count},
        )

    def connect(self, module: str | None) -> Problem | None:
        """Override the native op, if it is there; returns what is wrong, if anything.

        `module` is the one that should have defined it, if that is imported.
        """
        try:
            wrong = self._connect(module)
        except Exception as error:  # one route leaves the others alone
            wrong = "KP846", f"cannot be overridden: {line_of(error)}"
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
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "(?s).*Overriding a previously registered kernel")
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
            self._table.clear()
            self._seen.clear()

    def _call(self, native: NativeOp, key: str) -> Launch:
        """Return the function that is called in place of the native kernel of a dispatch key."""
        code, space = routed_code(self.routing, native.schema.args)
        for kind, found in zip(("when", "eager"), conditions(self.routing), strict=True):
            for place, condition in enumerate(found):
                reason = f"'{condition.text}' does not hold"
                reason += f", and {CAPTURE}" if kind == "eager" else ""
                space[f"by_{kind}{place}"] = self._count(reason).add
        space |= {
            "native": native.kernels[key].call_boxed,
            "keyset": keyset_of(key),
            "resolve": lambda key, args: self._resolve(space, key, args),
            "find": self._table.get,
            "seen": self._seen,
            "see": self._see,
            "grad_enabled": torch.is_grad_enabled,
            "capturing": capturing_on(key),
            "by_grad": self._count(GRAD).add,
            "by_capture": self._count(CAPTURE).add,
        }
        exec(compile(code, f"<route {self.target}>", "exec"), space)
        return _untraced(space["call"])

    def _count(self, reason: str) -> CallCount:
        with self._keeping:
            if reason not in self._reasons and len(self._reasons) >= REASON_LIMIT:
                reason = OTHERS
            return self._reasons.setdefault(reason, CallCount())

    def _resolve(self, space: Mapping[str, Any], key: Any, args: Sequence[Any]) -> Any:
        """Answer a call whose signature is new, and remember who answers such calls."""
        native, keyset = space["native"], space["keyset"]
        if self.off or space["capturing"]():
            self._count(self.off or UNSEEN).add()
            return native(keyset, *args)
        with self._answering:
            fresh = key not in self._table
            if fresh:
                (launch, count), result = self._first_call(key, args)
        if not fresh:
            return space["call"](*args)  # another thread was here first
        count()
        return native(keyset, *args) if launch is None else result

    def _first_call(self, key: Any, args: Sequence[Any]) -> tuple[_Entry, Any]:
        """Let our op answer, if it can; returns who answers such calls, and the result if it did.

        Where our op fails, the native op answers, for nothing was launched; but interpreted code
        may have written by then, and what is read and written cannot be had back: it raises.
        """
        kernel: Kernel | None = None
        try:
            self._check.axes_of(args)
            kernel = self._opened()
            launch, result = kernel.dispatcher.first_call(key, args)
        except CallError as error:
            reason = str(error).removeprefix(f"{self.op}: ")
            return self._remember(key, (None, self._count(reason).add)), None
        except RouteOff as error:
            self.turn_off(str(error))
            return (None, self._count(self.off).add), None
        except Exception as error:
            text = " ".join(f"{type(error).__name__}: {error}".split())
            entry = self._remember(key, (None, self._count(f"failed: {text}").add))
            if kernel is not None and self._half_written(kernel, args):
                raise
            if not self._warned:
                self._warned = True
                self._logger.warning(
                    "op '%s' failed, and native op '%s' answers calls of this signature from now "
                    "on: %s",
                    *(self.op, self.target, text),
                )
            return entry, None
        return self._remember(key, (launch, self._ours.add), kernel), result

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

    def _see(self, glance: Any) -> None:
        with self._keeping:
            if len(self._seen) >= TABLE_LIMIT:
                self._seen.clear()
            self._seen.add(glance)

    def _remember(self, key: Any, entry: _Entry, kernel: Kernel | None = None) -> _Entry:
        with self._keeping:
            if not self.off and (kernel is None or kernel is self._kernel):
                if len(self._table) >= TABLE_LIMIT:
                    self._table.clear()
                self._table[key] = entry
        return entry


def line_of(error: Exception) -> str:
    """Return what an error says, on one line."""
    text = " ".join(str(error).split())
    return text if isinstance(error, KernelpkgError) else f"{type(error).__name__}: {text}"
