"""A line of the switchboard: one route of this process, its pack, and what has become of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

from attrs import define, evolve, field, frozen

from kernelpkg.errors import KernelpkgError, PackError, Problem
from kernelpkg.manifest.spec import PackSpec, Route
from kernelpkg.packs.routes import Routing, route_problem, schema_problem
from kernelpkg.vllm.override import (
    Kernel,
    RoutedOp,
    RouteOff,
    RouteProblem,
    capturing_on,
    find_native,
)
from kernelpkg.vllm.tally import RouteReport

Environment = Mapping[str, str]
LoadPack = Callable[[PackSpec, Environment], Mapping[str, str]]
"""Registers the ops of a pack; returns why ops are not there, by name."""


@frozen(kw_only=True)
class Facts:
    """What is done outside: how packs are loaded, and who is told.

    `find` returns a registered kernel by the name of its op; `vllm` the installed release of
    vLLM; `capturing`, by dispatch key, what tells whether a CUDA graph is being captured; `keys`
    are the dispatch keys that an entry point routes.
    """

    load: LoadPack
    find: Callable[[str], Kernel | None]
    vllm: Callable[[], str | None]
    warn: Callable[[str], None]
    info: Callable[[str], None]
    capturing: Callable[[str], Callable[[], bool]] = capturing_on
    keys: tuple[str, ...] = ("CUDA",)


class LazyPack:
    """A pack that is loaded when the first of its routes has a call to answer.

    `failed` is told, once, why ops are not there.
    """

    def __init__(
        self,
        spec: PackSpec,
        facts: Facts,
        environment: Environment,
        failed: Callable[[LazyPack, Mapping[str, str]], None],
    ) -> None:
        self.spec = spec
        self.facts = facts
        self._environment = environment
        self._failed = failed
        self._loaded = False
        self._lock = threading.Lock()

    def open(self, op: str) -> Kernel:
        """Return the kernel of an op; raises RouteOff where it cannot be had."""
        with self._lock:
            if not self._loaded:
                self._load()
                self._loaded = True
        kernel = self.facts.find(op)
        if kernel is None:
            raise RouteOff(f"op '{op}' was unloaded; install the route again")
        return kernel

    def lost(self, op: str) -> bool:
        """Whether an op is not there though the pack was loaded."""
        return self._loaded and self.facts.find(op) is None

    def _load(self) -> None:
        try:
            missing = dict(self.facts.load(self.spec, self._environment))
        except Exception as error:  # whatever it is, vLLM goes on with its own ops
            reason = f"pack '{self.spec.name}' cannot be loaded: {line_of(error)}"
            missing = {f"{self.spec.namespace}::{kernel}": reason for kernel in self.spec.kernels}
        missing = {op: why for op, why in missing.items() if self.facts.find(op) is None}
        if missing:
            self._failed(self, missing)


@define(kw_only=True, eq=False)
class Line:
    """One route of this process, and what has become of it."""

    pack: LazyPack
    route: Route
    keys: tuple[str, ...]
    routing: Routing | None = None
    state: RoutedOp | RouteReport = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.wait("the native op is not there yet")

    @property
    def op(self) -> str:
        """The name of the op that answers."""
        return f"{self.pack.spec.namespace}::{self.route.op}"

    @property
    def extensions(self) -> tuple[str, ...]:
        """The modules of vLLM that define ops of the native op's namespace when imported."""
        namespace = self.route.target.split("::")[0]
        return (f"vllm.{namespace}_stable_libtorch", f"vllm.{namespace}")

    @property
    def waits(self) -> bool:
        """Whether the native op is not there yet."""
        return isinstance(self.state, RouteReport) and self.state.status == "waiting"

    def wait(self, reason: str) -> None:
        """Have no native op to answer for, for a reason."""
        target = self.route.target
        self.state = RouteReport(target=target, op=self.op, status="waiting", reason=reason)

    def report(self) -> RouteReport:
        """Return what became of the route and of its calls up to now."""
        return self.state if isinstance(self.state, RouteReport) else self.state.report()

    def end(self, reason: str) -> None:
        """Give the native op back, or wait for it no longer."""
        if isinstance(self.state, RoutedOp):
            self.state.close(reason)
        else:
            self.turn_off(reason)

    def turn_off(self, reason: str) -> None:
        """Let the native op answer from now on."""
        if isinstance(self.state, RoutedOp):
            self.state.turn_off(reason)
        else:
            self.state = evolve(self.state, status="off", reason=reason)

    def same(self, other: Line) -> bool:
        """Whether another line would do just what this one does."""
        return (
            isinstance(self.state, RoutedOp)
            and not self.state.off
            and not self.pack.lost(self.op)
            and self.routing is not None
            and other.routing is not None
            and self.keys == other.keys
            and (self.pack.spec.root, self.pack.spec.digest, self.routing.spec.digest)
            == (other.pack.spec.root, other.pack.spec.digest, other.routing.spec.digest)
        )

    def connect(self, is_imported: Callable[[str], bool]) -> Problem | None:
        """Override the native op, if it is there; returns what is wrong, if anything."""
        try:
            wrong = self._override(is_imported)
        except Exception as error:  # one route leaves the others alone
            wrong = "KP846", f"cannot be overridden: {line_of(error)}"
        if wrong is None:
            return None
        code, text = wrong
        message = f"native op '{self.route.target}' {text}"
        if code == "KP842":
            self.wait(message)
        else:
            self.turn_off(message)
        return route_problem(self.pack.spec, self.route, code, message)

    def _override(self, is_imported: Callable[[str], bool]) -> tuple[str, str] | None:
        assert self.routing is not None
        try:
            native = find_native(self.route.target)
        except RouteProblem as error:
            return "KP843", str(error)
        if native is None:
            there = next(filter(is_imported, self.extensions), None)
            absent = f"is not there, though {there} is imported; correct its name"
            return None if there is None else ("KP842", absent)
        wrong = schema_problem(native.schema, self.routing.spec.schema)
        if wrong is not None:
            return "KP843", f"has another schema than '{self.op}': {wrong}"
        keys = [key for key in self.keys if key in native.kernels]
        if not keys:
            return "KP843", f"has no kernel for {' or '.join(self.keys)}"
        self.state = RoutedOp(
            routing=self.routing,
            native=native,
            keys=keys,
            open_kernel=lambda: self.pack.open(self.op),
            capturing=self.pack.facts.capturing,
            warn=self.pack.facts.warn,
        )
        return None


def line_of(error: Exception) -> str:
    """Return what an error says, on one line."""
    text = " ".join(str(error).split())
    return text if isinstance(error, KernelpkgError) else f"{type(error).__name__}: {text}"


def lines_of(error: Exception) -> list[str]:
    """Return what an error says: all problems of a pack, and one line for any other error."""
    return [*map(str, error.problems)] if isinstance(error, PackError) else [line_of(error)]
