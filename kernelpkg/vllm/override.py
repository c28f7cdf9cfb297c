"""The torch seam of routes: native ops overridden in the dispatcher, and given back."""

from __future__ import annotations

import re
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

import torch
from attrs import frozen
from torch.library import Library

from kernelpkg.errors import CallError, KernelpkgError
from kernelpkg.manifest.guards import CallCheck
from kernelpkg.manifest.opschema import NO_DEFAULT, OpArg, OpSchema
from kernelpkg.packs.routes import NativeSchema, Routing
from kernelpkg.runtime.dispatch import TABLE_LIMIT, Dispatcher, Launch
from kernelpkg.runtime.torch_ops import DEVICES
from kernelpkg.vllm.override_code import conditions, routed_code
from kernelpkg.vllm.tally import RouteReport, Tally

REASON_LIMIT: Final = 50
"""How many sentences of refused calls a route tells apart; they name sizes, and have no end."""

GRAD: Final = "an argument requires grad"
CAPTURE: Final = "no CUDA graph is being captured"
UNSEEN: Final = "first seen while a CUDA graph was being captured"
OTHERS: Final = "not accepted, for other reasons"

_Entry = tuple[Launch | None, Callable[[], int]]
"""Who answers the calls of a signature: a launcher, or None for the native op; and their count."""

_MADE: Final[list[Any]] = []
"""All that native ops were ever overridden with, for a call that has begun must find it.

PyTorch frees an implementation that is taken back though another thread may be on its way to it;
with four threads calling, every one soon failed an assertion of PyTorch (2.13, 2026-11-22).
"""


class RouteOff(KernelpkgError):
    """The op of a route cannot be had; its text is the reason that is reported."""


class RouteProblem(KernelpkgError):
    """A native op cannot be routed; its text is the end of a problem's line."""


class Kernel(Protocol):
    """What a route needs of a registered kernel; `register.HelionKernelWrapper` is one."""

    schema: OpSchema
    dispatcher: Dispatcher

    def tell(self, follower: RoutedOp) -> None:
        """Let `follower.forget` be called when the op is given back."""


@frozen(kw_only=True, eq=False)
class NativeOp:
    """A native op as it is before it is routed: its schema, and its kernels by dispatch key."""

    target: str
    schema: NativeSchema
    kernels: Mapping[str, Any]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the native kernel for the device of the first tensor, whatever is routed."""
        values = (*args, *kwargs.values())
        tensor = next((value for value in values if isinstance(value, torch.Tensor)), None)
        key = "CPU" if tensor is None else tensor.device.type.upper()
        if key not in self.kernels:
            raise CallError(f"native op '{self.target}' has no kernel for {key}")
        return self.kernels[key].call_boxed(_keyset(key), *args, **kwargs)


def _keyset(key: str) -> Any:
    return torch._C.DispatchKeySet(torch._C.DispatchKey.__members__[key])


def find_native(target: str) -> NativeOp | None:
    """Return a native op as it is at present, with its kernels, or None where it is not there.

    Raises RouteProblem for one that has several overloads.
    """
    namespace, name = target.split("::")
    packet = getattr(getattr(torch.ops, namespace), name, None)
    if packet is None:
        return None
    overloads = packet.overloads()
    if overloads != ["default"]:
        raise RouteProblem(f"has overloads {', '.join(overloads)}, and a route is to one op")
    kernels = {
        key: torch.library.get_kernel(packet.default, key)
        for key in DEVICES
        if torch._C._dispatch_has_computed_kernel_for_dispatch_key(target, key)
    }
    return NativeOp(target=target, schema=_schema(packet.default._schema), kernels=kernels)


def _schema(schema: Any) -> NativeSchema:
    return NativeSchema(
        args=tuple(map(_arg, schema.arguments)),
        keyword_only=tuple(arg.name for arg in schema.arguments if arg.kwarg_only),
        returns=tuple(
            f"{arg.type}{'' if arg.alias_info is None else ' that is an argument'}"
            for arg in schema.returns
        ),
    )


def _arg(arg: Any) -> OpArg:
    text = str(arg.type)
    optional = re.fullmatch(r"Optional\[(.*)\]", text)
    kind = text if optional is None else optional[1]
    written = arg.alias_info is not None and arg.alias_info.is_write
    return OpArg(
        name=arg.name,
        type="int" if kind == "SymInt" else kind,
        optional=optional is not None,
        alias="a" if written else "",
        default=arg.default_value if arg.has_default_value() else NO_DEFAULT,
    )


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


class RoutedOp:
    """One native op that an op of a pack answers, for as long as this object is not closed.

    A call goes to the native op unless the route's conditions hold, no gradient is recorded, and
    its signature is one that the op accepts. The first call of a signature finds that out, but
    never while a CUDA graph is being captured, for nothing may be compiled then. Conditions on
    eager calls, and `capture_only`, do not keep our op from answering the first call of its size
    and scalars: that is how its code comes to be compiled before a capture needs it.

    `open_kernel` returns the kernel of the op, loading its pack if need be, or raises RouteOff;
    `warn` gets a line for people.
    """

    def __init__(
        self,
        *,
        routing: Routing,
        native: NativeOp,
        keys: Sequence[str],
        open_kernel: Callable[[], Kernel],
        capturing: Callable[[str], Callable[[], bool]],
        warn: Callable[[str], None],
    ) -> None:
        self.routing = routing
        self.native = native
        self.off = ""
        self.closed = False
        self._open_kernel = open_kernel
        self._warn = warn
        self._warned = False
        self._kernel: Kernel | None = None
        self._acceptance = CallCheck(routing.spec, routing.op)
        self._table: dict[Any, _Entry] = {}
        self._seen: set[Any] = set()
        self._ours = Tally()
        self._reasons: dict[str, Tally] = {}
        self._answering = threading.RLock()  # held while the pack is loaded and code compiled
        self._keeping = threading.Lock()  # held while something is put down, and never longer
        target = routing.route.target
        self._library = Library(target.split("::")[0], "IMPL")  # closed below
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "(?s).*Overriding a previously registered kernel")
                for key in keys:
                    call = self._call(key, capturing(key))
                    name = target.split("::")[1]
                    self._library.impl(name, call, key, allow_override=True)
                    _MADE.append(torch.library.get_kernel(target, key))
        except Exception:
            self._library._destroy()
            raise

    def report(self) -> RouteReport:
        """Return what became of the route and of its calls up to now."""
        with self._keeping:
            counts = {reason: tally.value for reason, tally in self._reasons.items()}
        return RouteReport(
            target=self.routing.route.target,
            op=self.routing.op,
            status="off" if self.off else "routed",
            reason=self.off,
            ours=self._ours.value,
            native={reason: count for reason, count in counts.items() if count},
        )

    def turn_off(self, reason: str) -> None:
        """Let the native op answer every call from now on, from where our function stands.

        The dispatcher keeps it until the route is closed: it may be in the middle of a call.
        """
        with self._keeping:
            self.off = self.off or reason
        self.forget()

    def close(self, reason: str) -> None:
        """Give the native op back as it was; calls that are being made end as they began."""
        self.off, self.closed = reason, True
        self.turn_off(reason)
        self._library._destroy()

    def forget(self) -> None:
        """Drop the launchers of a kernel that was given back; the next call asks for it anew."""
        with self._keeping:
            self._kernel = None
            self._table.clear()
            self._seen.clear()

    def _call(self, key: str, capturing: Callable[[], bool]) -> Launch:
        """Return the function that is called in place of the native kernel of a dispatch key."""
        native, keyset = self.native.kernels[key].call_boxed, _keyset(key)
        code, space = routed_code(self.routing, self.native.schema.args)
        for kind, found in zip(("when", "eager"), conditions(self.routing), strict=True):
            for place, condition in enumerate(found):
                reason = f"'{condition.text}' does not hold"
                reason += f", and {CAPTURE}" if kind == "eager" else ""
                space[f"by_{kind}{place}"] = self._tally(reason).add
        space |= {
            "native": native,
            "keyset": keyset,
            "resolve": lambda key, args: self._resolve(space, key, args),
            "find": self._table.get,
            "seen": self._seen,
            "see": self._see,
            "grad_enabled": torch.is_grad_enabled,
            "capturing": capturing,
            "by_grad": self._tally(GRAD).add,
            "by_capture": self._tally(CAPTURE).add,
        }
        exec(compile(code, f"<route {self.routing.route.target}>", "exec"), space)
        return _untraced(space["call"])

    def _tally(self, reason: str) -> Tally:
        with self._keeping:
            if reason not in self._reasons and len(self._reasons) >= REASON_LIMIT:
                reason = OTHERS
            return self._reasons.setdefault(reason, Tally())

    def _resolve(self, space: Mapping[str, Any], key: Any, args: Sequence[Any]) -> Any:
        """Answer a call whose signature is new, and remember who answers such calls."""
        native, keyset = space["native"], space["keyset"]
        if self.off or space["capturing"]():
            self._tally(self.off or UNSEEN).add()
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
            self._acceptance.axes_of(args)
            kernel = self._opened()
            launch, result = kernel.dispatcher.first_call(key, args)
        except CallError as error:
            reason = str(error).removeprefix(f"{self.routing.op}: ")
            return self._remember(key, (None, self._tally(reason).add)), None
        except RouteOff as error:
            self.turn_off(str(error))
            return (None, self._tally(self.off).add), None
        except Exception as error:
            text = " ".join(f"{type(error).__name__}: {error}".split())
            entry = self._remember(key, (None, self._tally(f"failed: {text}").add))
            if kernel is not None and self._half_written(kernel, args):
                raise
            if not self._warned:
                self._warned = True
                self._warn(
                    f"op '{self.routing.op}' failed, and native op '{self.routing.route.target}' "
                    f"answers calls of this signature from now on: {text}"
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
