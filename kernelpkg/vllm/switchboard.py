"""The routes of this process: installed, waiting for their native ops, revoked, reported."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from attrs import evolve
from packaging.specifiers import SpecifierSet

from kernelpkg.errors import Problem, UsageError, suggestion
from kernelpkg.manifest.document import Document
from kernelpkg.manifest.keys import PACK_MANIFEST
from kernelpkg.manifest.spec import PackSpec, Route
from kernelpkg.packs.find import DISABLE_VARIABLE, disabled_ops, find_pack
from kernelpkg.packs.read import read_pack
from kernelpkg.packs.routes import read_routing
from kernelpkg.runtime.torch_ops import DEVICES
from kernelpkg.vllm.arrival import Arrival
from kernelpkg.vllm.override import NativeOp, RoutedOp, RouteProblem, find_native
from kernelpkg.vllm.routes import Environment, Facts, LazyPack, Line, lines_of
from kernelpkg.vllm.tally import RouteReport

ALL: Final = "all"
REVOKED: Final = "revoked"


def native_name(word: str) -> str:
    """Return the name of a native op with its namespace, which is `_C` unless given."""
    return word if "::" in word else f"_C::{word}"


class Switchboard:
    """All routes of a process, one for each native op."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._lines: dict[str, Line] = {}
        self._lock = threading.RLock()
        self._arrival = Arrival(self._arrived)
        self._told: set[str] = set()

    def register(self, words: Iterable[str], place: str, environment: Environment) -> None:
        """Install routes as the entry point does: never raises, and warns once for each problem.

        `place` is where the words are from. A route that this process has already is left as it
        is, revoked ones too; one that waits for its native op is tried again.
        """
        problems: list[str] = []
        try:
            with self._lock:
                pack = self._pack(None, None, environment)
                chosen, unknown = _chosen([word.strip() for word in words], pack.spec)
                problems += [
                    str(Problem(path=place, code="KP844", message=message)) for message in unknown
                ]
                fresh = [route for route in chosen if route.target not in self._lines]
                problems += self._install(fresh, pack, self._facts.keys, environment)
                problems += self._settle()
        except Exception as error:
            problems += lines_of(error)
        self._tell(problems)

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
            found = self._pack(pack, root, environment)
            chosen, unknown = _chosen(words, found.spec)
            if unknown:
                raise UsageError("; ".join(unknown))
            problems = self._install(chosen, found, tuple(keys), environment)
            problems += self._settle()
            reports = tuple(self._lines[route.target].report() for route in chosen)
        self._told.update(problems)
        return reports

    def revoke(self, words: Iterable[str]) -> tuple[str, ...]:
        """Give native ops back, all without words; returns those that had not been before.

        Raises UsageError for a native op that has no route here; then nothing has changed.
        """
        with self._lock:
            targets = [native_name(word) for word in words] or list(self._lines)
            for target in targets:
                if target not in self._lines:
                    hint = suggestion(target, self._lines)
                    raise UsageError(f"native op '{target}' is not routed here{hint}")
            ended = []
            for target in targets:
                line = self._lines[target]
                if line.report().reason != REVOKED:
                    line.end(REVOKED)
                    ended.append(target)
            self._watch()
        return tuple(ended)

    def reports(self) -> tuple[RouteReport, ...]:
        """Return what became of each route and of its calls, by the names of the native ops."""
        with self._lock:
            return tuple(self._lines[target].report() for target in sorted(self._lines))

    def original(self, word: str) -> NativeOp:
        """Return a native op as it is without any route; raises UsageError where it is not there.

        What it returns stays good, whatever is routed later.
        """
        target = native_name(word)
        with self._lock:
            line = self._lines.get(target)
            if line is not None and isinstance(line.state, RoutedOp) and not line.state.closed:
                return line.state.native
            try:
                native = find_native(target)
            except RouteProblem as error:
                raise UsageError(f"native op '{target}' {error}") from None
        if native is None:
            raise UsageError(f"native op '{target}' is not there; import what defines it first")
        return native

    def _pack(self, name: str | None, root: Path | None, environment: Environment) -> LazyPack:
        place, name = find_pack(name, root, environment)
        spec = evolve(read_pack(place.path, name), installed=place.installed)
        return LazyPack(spec, self._facts, environment, self._pack_failed)

    def _install(
        self,
        routes: Iterable[Route],
        pack: LazyPack,
        keys: tuple[str, ...],
        environment: Environment,
    ) -> list[str]:
        """Make a line for each route, and return what is wrong; the native ops come later."""
        problems: list[str] = []
        unfit = _release_problem(pack.spec, self._facts.vllm())
        problems += [] if unfit is None else [str(unfit)]
        disabled = disabled_ops(environment)
        for route in routes:
            line = Line(pack=pack, route=route, keys=keys)
            if route.op in disabled or line.op in disabled:
                line.turn_off(f"its op is switched off by {DISABLE_VARIABLE}")
            elif unfit is not None:
                line.turn_off(unfit.message)
            else:
                try:
                    line.routing = read_routing(pack.spec, route)
                except Exception as error:  # one kernel leaves the others alone
                    told = lines_of(error)
                    problems += told
                    more = f" (and {len(told) - 1} more)" if len(told) > 1 else ""
                    line.turn_off(told[0] + more)
            before = self._lines.get(route.target)
            if before is None or not before.same(line):
                if before is not None:
                    before.end(REVOKED)
                self._lines[route.target] = line
        return problems

    def _settle(self) -> list[str]:
        """Override the native ops that are there and were waited for; returns what is wrong."""
        found = [line.connect(self._is_imported) for line in self._lines.values() if line.waits]
        self._watch()
        return [str(problem) for problem in found if problem is not None]

    def _is_imported(self, name: str) -> bool:
        spec: Any = getattr(sys.modules.get(name), "__spec__", None)
        begun = name in sys.modules and getattr(spec, "_initializing", False)
        return name in self._arrival.arrived or (name in sys.modules and not begun)

    def _watch(self) -> None:
        """Wait for the modules that bring the native ops that are not there yet, if any."""
        names = {name for line in self._lines.values() if line.waits for name in line.extensions}
        if names:
            self._arrival.watch(names)
        else:
            self._arrival.stop()

    def _arrived(self) -> None:
        """Do what was waited for; within an import, which must not fail for our sake."""
        try:
            with self._lock:
                problems = self._settle()
        except Exception as error:
            problems = lines_of(error)
        self._tell(problems)

    def _pack_failed(self, pack: LazyPack, missing: Mapping[str, str]) -> None:
        """Turn off the routes to ops that a pack should have and does not, and say so once."""
        with self._lock:
            lines = [line for line in self._lines.values() if line.pack is pack]
            for line in lines:
                if line.op in missing:
                    line.turn_off(missing[line.op])
        reasons = dict.fromkeys(missing[line.op] for line in lines if line.op in missing)
        self._tell(list(reasons))

    def _tell(self, problems: Sequence[str]) -> None:
        """Warn of problems that were not told before, all in one, and say what is routed now."""
        fresh = [problem for problem in dict.fromkeys(problems) if problem not in self._told]
        self._told.update(fresh)
        if fresh:
            self._facts.warn("\n".join([_HEAD, *fresh]))
        told = _summary(self.reports())
        if told not in self._told:
            self._told.add(told)
            self._facts.info(told)


_HEAD: Final = "native ops of vLLM that cannot be routed answer their calls themselves:"


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
            unknown.append(f"'{word}' is no route of pack '{pack.name}'{remedy}")
    return [routes[name] for name in dict.fromkeys(wanted) if name in routes], unknown


def _release_problem(pack: PackSpec, release: str | None) -> Problem | None:
    """Say that a pack is not for a release of vLLM; one that is not installed is not asked for."""
    if release is None or SpecifierSet(pack.vllm_requires).contains(release, prereleases=True):
        return None
    document = Document(Path(pack.root, pack.path), pack.path, PACK_MANIFEST)
    message = f"pack '{pack.name}' is for vLLM {pack.vllm_requires}, and {release} is installed"
    line = document.line("vllm", "requires")
    return Problem(path=pack.path, line=line, code="KP845", message=message)


def _summary(reports: Sequence[RouteReport]) -> str:
    by_status = {"routed": "routed", "waiting": "waiting for", "off": "off"}
    parts = [
        f"{word} {', '.join(report.target for report in reports if report.status == status)}"
        for status, word in by_status.items()
        if any(report.status == status for report in reports)
    ]
    return f"native ops of vLLM: {'; '.join(parts) or 'none routed'}"
