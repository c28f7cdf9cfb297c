"""The table of routes of this process: installed, waiting, off or revoked, and reported.

A route says that an op of a pack answers for a native op; `override` is what is done to one.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from logging import Logger
from pathlib import Path
from typing import Final

from attrs import evolve
from packaging.specifiers import SpecifierSet

from kernelpkg.errors import (
    PackError,
    Problem,
    UsageError,
    aligned,
    counted,
    error_line,
    suggestion,
)
from kernelpkg.locks import make_lock
from kernelpkg.manifest.spec import PackSpec, Route
from kernelpkg.packs.find import DISABLE_VARIABLE, disabled_ops, find_pack
from kernelpkg.packs.lock import has_lock
from kernelpkg.packs.read import pack_problem, read_pack
from kernelpkg.packs.routes import read_routing
from kernelpkg.runtime.torch_ops import DEVICES
from kernelpkg.vllm.native_ops import NativeOp, RouteProblem, find_native, import_ops, is_defined
from kernelpkg.vllm.override import Kernel, NativeOverride, RouteOff
from kernelpkg.vllm.plugin import LOGGER
from kernelpkg.vllm.route_counts import RouteReport

ALL: Final = "all"
REVOKED: Final = "revoked"

_WARNING: Final = "native ops of vLLM that cannot be routed answer their calls themselves:"
_COLUMNS: Final = ("native op", "op", "status", "ours", "native", "why")

Environment = Mapping[str, str]
LoadPack = Callable[[PackSpec, Environment], Mapping[str, str]]
"""Registers the ops of a pack; returns why ops are not there, by name."""


def load_pack(pack: PackSpec, environment: Environment) -> dict[str, str]:
    """Register the ops of a pack; imports Helion, which takes seconds.

    A pack of an installed package has to be as the lock that it came with says.
    """
    from kernelpkg.runtime.load import load

    locked = pack.installed and has_lock(Path(pack.root))
    found = load(pack.name, root=pack.root, locked=locked, environment=environment, strict=False)
    for note in found.notes:
        logging.getLogger(LOGGER).warning("%s", note)
    return {kernel.op: kernel.reason for kernel in found.kernels if kernel.status != "registered"}


def registered(op: str) -> Kernel | None:
    """Return a registered kernel; where nothing could be loaded there is none, and no Helion."""
    register = sys.modules.get("kernelpkg.runtime.register")
    return None if register is None else register.get_kernel_by_name(op)


def read_manifest(name: str | None, root: Path | None, environment: Environment) -> PackSpec:
    """Find a pack as `kernelpkg.load` does, and read its manifest; raises PackError, UsageError."""
    place, name = find_pack(name, root, environment)
    return evolve(read_pack(place.path, name), installed=place.installed)


def native_name(word: str) -> str:
    """Return the name of a native op with its namespace, which is `_C` unless given."""
    return word if "::" in word else f"_C::{word}"


class RouteTable:
    """All routes of a process, one for each native op.

    `release` is the installed one of vLLM, None for no vLLM; `keys` are the dispatch keys that
    `register` routes. The entries of routes that can never be are their reports.
    """

    def __init__(
        self,
        *,
        release: str | None,
        logger: Logger,
        load: LoadPack = load_pack,
        keys: tuple[str, ...] = ("CUDA",),
    ) -> None:
        self.release = release
        self._logger = logger
        self._load = load
        self._keys = keys
        self._routes: dict[str, NativeOverride | RouteReport] = {}
        self._loaded: list[PackSpec] = []
        self._said: set[str] = set()
        self._lock = make_lock()
        self._loading = make_lock()  # taken before the other one, and held for seconds

    def register(self, words: Iterable[str], place: str, environment: Environment) -> None:
        """Install routes as the entry point does: never raises, and warns once for each problem.

        `place` is where the words are from. A route that this process has already is left as it
        is, revoked ones too; one that waits for its native op is tried again.
        """
        problems: list[str] = []
        try:
            with self._lock:
                pack = read_manifest(None, None, environment)
                chosen, unknown = _chosen([word.strip() for word in words], pack)
                problems += [
                    str(Problem(path=place, code="KP844", message=message)) for message in unknown
                ]
                fresh = [route for route in chosen if route.target not in self._routes]
                problems += self._install(fresh, pack, self._keys, environment)
        except Exception as error:
            problems += _lines_of(error)
        self._say(problems)

    def install(
        self,
        words: Iterable[str],
        *,
        pack: str | None,
        root: Path | None,
        keys: Sequence[str],
        environment: Environment,
    ) -> tuple[RouteReport, ...]:
        """Install routes and return what became of them; those there already are made anew.

        Raises UsageError for a route or a dispatch key that is not known, and PackError for a
        pack that is broken; then nothing has changed.
        """
        for key in keys:
            if key not in DEVICES:
                raise UsageError(f"device key '{key}' is none of {', '.join(DEVICES)}")
        with self._lock:
            found = read_manifest(pack, root, environment)
            chosen, unknown = _chosen(words, found)
            if unknown:
                raise UsageError("; ".join(unknown))
            self._said.update(self._install(chosen, found, tuple(keys), environment))
            return tuple(_report(self._routes[route.target]) for route in chosen)

    def revoke(self, words: Iterable[str]) -> tuple[str, ...]:
        """Give native ops back, all without words; returns those that had not been before.

        Raises UsageError for a native op that has no route here; then nothing has changed.
        """
        with self._lock:
            targets = [native_name(word) for word in words] or list(self._routes)
            for target in targets:
                if target not in self._routes:
                    hint = suggestion(target, self._routes)
                    raise UsageError(f"native op '{target}' is not routed here{hint}")
            ended = []
            for target in targets:
                found = self._routes[target]
                if _report(found).reason != REVOKED:
                    ended.append(target)
                    if isinstance(found, NativeOverride):
                        found.close(REVOKED)
                    else:
                        self._routes[target] = evolve(found, reason=REVOKED)
        return tuple(ended)

    def reports(self) -> tuple[RouteReport, ...]:
        """Return what became of each route and of its calls, by the names of the native ops."""
        with self._lock:
            return tuple(_report(self._routes[target]) for target in sorted(self._routes))

    def original(self, word: str) -> NativeOp:
        """Return a native op as it is without any route; raises UsageError where it is not there.

        What it returns stays good, whatever is routed later.
        """
        target = native_name(word)
        with self._lock:
            found = self._routes.get(target)
            if isinstance(found, NativeOverride) and found.native is not None:
                return found.native
            try:
                native = find_native(target)
            except RouteProblem as error:
                raise UsageError(f"native op '{target}' {error}") from None
        if native is None:
            raise UsageError(f"native op '{target}' is not there; import what defines it first")
        return native

    def _install(
        self,
        routes: Iterable[Route],
        pack: PackSpec,
        keys: tuple[str, ...],
        environment: Environment,
    ) -> list[str]:
        """Put routes into the table, and override the native ops; returns what is wrong."""
        problems: list[str] = []
        unfit = _release_problem(pack, self.release)
        problems += [] if unfit is None else [str(unfit)]
        disabled = disabled_ops(environment)
        for route in routes:
            op = f"{pack.namespace}::{route.op}"
            made: NativeOverride | RouteReport
            reason = ""
            if route.op in disabled or op in disabled:
                reason = f"its op is switched off by {DISABLE_VARIABLE}"
            elif unfit is not None:
                reason = unfit.message
            else:
                try:
                    made = NativeOverride(
                        routing=read_routing(pack, route),
                        keys=keys,
                        open_kernel=partial(self._open_kernel, op, pack, environment),
                        logger=self._logger,
                    )
                except Exception as error:  # one kernel leaves the others alone
                    lines = _lines_of(error)
                    problems += lines
                    reason = lines[0] + (f" (and {len(lines) - 1} more)" if lines[1:] else "")
            if reason:
                made = RouteReport(target=route.target, op=op, status="off", reason=reason)
            before = self._routes.get(route.target)
            if isinstance(before, NativeOverride):
                if isinstance(made, NativeOverride) and self._is_same(before, made):
                    continue
                before.close(REVOKED)
            self._routes[route.target] = made
        return problems + self._connect()

    def _is_same(self, one: NativeOverride, other: NativeOverride) -> bool:
        """Whether a route that stands does just what another one would."""
        lost = any(pack is one.routing.pack for pack in self._loaded) and registered(one.op) is None
        return one.status == "routed" and not lost and one.identity == other.identity

    def _overrides(self) -> Iterator[NativeOverride]:
        for found in self._routes.values():
            if isinstance(found, NativeOverride):
                yield found

    def _connect(self) -> list[str]:
        """Override the native ops that were waited for; returns what is wrong.

        What defines those that are not there is imported. An op that some later import brings is
        overridden when routes are asked for again.
        """
        waiting = [found for found in self._overrides() if found.status == "waiting"]
        lacking = {found.target.split("::")[0] for found in waiting if not is_defined(found.target)}
        modules = {namespace: import_ops(namespace) for namespace in lacking}
        wrong = [found.connect(modules.get(found.target.split("::")[0])) for found in waiting]
        return [str(problem) for problem in wrong if problem is not None]

    def _open_kernel(self, op: str, pack: PackSpec, environment: Environment) -> Kernel:
        """Return the kernel of an op, loading its pack before; raises RouteOff for none."""
        with self._loading:
            if not any(other is pack for other in self._loaded):
                self._load_ops(pack, environment)
                with self._lock:
                    used = {id(found.routing.pack) for found in self._overrides()}
                    self._loaded = [other for other in self._loaded if id(other) in used] + [pack]
        kernel = registered(op)
        if kernel is None:
            raise RouteOff(f"op '{op}' was unloaded; install the route again")
        return kernel

    def _load_ops(self, pack: PackSpec, environment: Environment) -> None:
        """Load a pack; routes to ops that it should have and has not go off, and that is said."""
        try:
            missing = dict(self._load(pack, environment))
        except Exception as error:  # whatever it is, vLLM goes on with its own ops
            reason = f"pack '{pack.name}' cannot be loaded: {error_line(error)}"
            missing = {f"{pack.namespace}::{kernel}": reason for kernel in pack.kernels}
        reasons: dict[str, None] = {}
        with self._lock:
            for found in self._overrides():
                why = missing.get(found.op) if found.routing.pack is pack else None
                if why is not None and registered(found.op) is None:
                    found.turn_off(why)
                    reasons[why] = None
        if reasons:
            self._say(list(reasons))

    def _say(self, problems: Sequence[str]) -> None:
        """Warn of problems that were not said before, all in one, and say what is routed now."""
        fresh = [problem for problem in dict.fromkeys(problems) if problem not in self._said]
        self._said.update(fresh)
        if fresh:
            self._logger.warning("%s", "\n".join([_WARNING, *fresh]))
        summary = _summary(self.reports())
        if summary not in self._said:
            self._said.add(summary)
            self._logger.info("%s", summary)


def _report(found: NativeOverride | RouteReport) -> RouteReport:
    return found.report() if isinstance(found, NativeOverride) else found


def _lines_of(error: Exception) -> list[str]:
    """Return what an error says: all problems of a pack, and one line for any other error."""
    return [*map(str, error.problems)] if isinstance(error, PackError) else [error_line(error)]


def _chosen(words: Iterable[str], pack: PackSpec) -> tuple[list[Route], list[str]]:
    """Return the routes of a pack that words stand for, and what is wrong with other words."""
    routes = {route.target: route for route in pack.routes}
    named = [word for word in words if word]
    if not routes:
        return [], [f"pack '{pack.name}' has no routes, so nothing is routed"]
    wanted = [*routes] if ALL in named else [native_name(word) for word in named]
    unknown = []
    for word in named:
        if word != ALL and native_name(word) not in routes:
            remedy = suggestion(native_name(word), routes) or f"; it has {', '.join(routes)}"
            what = f"'{word}' is not a route of pack '{pack.name}'"
            unknown.append(f"{what}{remedy}; '{ALL}' stands for all of them")
    return [routes[name] for name in dict.fromkeys(wanted) if name in routes], unknown


def _release_problem(pack: PackSpec, release: str | None) -> Problem | None:
    """Say that a pack is not for a release of vLLM; one that is not installed is not asked for."""
    if release is None or SpecifierSet(pack.vllm_requires).contains(release, prereleases=True):
        return None
    message = f"pack '{pack.name}' is for vLLM {pack.vllm_requires}, and {release} is installed"
    return pack_problem(pack, "KP845", message, "vllm", "requires")


def _summary(reports: Sequence[RouteReport]) -> str:
    by_status = {"routed": "routed", "waiting": "waiting for", "off": "off"}
    parts = [
        f"{word} {', '.join(report.target for report in reports if report.status == status)}"
        for status, word in by_status.items()
        if any(report.status == status for report in reports)
    ]
    return f"native ops of vLLM: {'; '.join(parts) or 'none routed'}"


def report_table(reports: Iterable[RouteReport]) -> str:
    """Return reports as aligned lines below a head, each reason with its count on its own line."""
    rows = [_COLUMNS]
    for report in reports:
        why = [report.reason] if report.reason else []
        why += [f"{count} {reason}" for reason, count in report.native.items()]
        for reason, count in report.longer.items():
            why.append(f"{counted(count, 'signature')} of ours on a slower path: {reason}")
        cells = (report.target, report.op, report.status, str(report.ours), str(report.passed))
        rows.append((*cells, why[0] if why else ""))
        rows += [("", "", "", "", "", line) for line in why[1:]]
    return "\n".join(aligned(rows))
