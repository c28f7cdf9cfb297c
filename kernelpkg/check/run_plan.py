"""Run plan: what level 3 of a check runs, and what it cannot; nothing is run, nor torch needed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

from attrs import field, frozen

from kernelpkg.check.off_grid import Around
from kernelpkg.configs.directories import place_of, platforms_of, read_configs
from kernelpkg.configs.platforms import Platform
from kernelpkg.configs.selection import Chosen, ConfigSelection, make_selection, read_selection
from kernelpkg.configs.store import ConfigFile, config_id, shown_key
from kernelpkg.errors import PackError, Problem, counted
from kernelpkg.manifest.cases import Case, case_elements, check_bytes, is_empty, show, weight
from kernelpkg.manifest.spec import CaseKey, KernelSpec, PackSpec

RunKind = Literal["tuned", "call", "empty", "strided", "zeros", "orders", "opcheck", "gradients"]
"""Calls, but for tuned ones, orders of two, `opcheck` and `gradients`: ordinary ones, of no
elements, with rows that lie apart, and of zeros."""

INTERPRETED: Final = 6_000_000
"""The most elements of a case that the interpreter gets: 0.3 s at 70 ns each.

The tuned cases of the first pack have up to 1.4 billion. Of 602 that it had, 404 were within the
bound, and took 45 s with all that is run beside them (two cores, CPython 3.11, 2026-11-22).
"""


@frozen(kw_only=True)
class Run:
    """Calls that one process makes in a row, and what is said where they fail.

    `file` and `case` are the config file and the place of a tuned case in it; without them, the
    run stands where `at` says in the manifest. `bytes` is about what it takes of memory; `needed`
    says that the inputs of its calls must be possible, as those of a tuned case.
    """

    spec: KernelSpec = field(repr=False)
    kind: RunKind
    cases: tuple[Case, ...]
    bytes: int
    text: str
    file: str | None = None
    case: int | None = None
    at: tuple[str | int, ...] = ("kernel", "source")
    needed: bool = False

    @property
    def group(self) -> tuple[object, ...]:
        """What is equal for runs that share compiled code, as far as one can tell.

        Orders of sizes share none: they begin with a kernel that has not been called.
        """
        values = [self.cases[0].values.get(axis) for axis in self.spec.key_axes[:-1]]
        return (self.spec.name, self.kind == "orders", *map(repr, values))


@frozen(kw_only=True)
class Planned:
    """The runs of one op, and what is known beforehand to stay unverified; `left` counts it."""

    runs: tuple[Run, ...] = ()
    findings: tuple[Problem, ...] = ()
    left: int = 0


def plan_runs(
    pack: PackSpec,
    spec: KernelSpec,
    here: Platform,
    *,
    interpret: bool,
    platforms: Sequence[str] | None = None,
) -> Planned:
    """Choose the runs of one op on a platform; `interpret` says that configs are not used.

    `platforms` are those whose configs are wanted; None for all that there are.
    """
    try:
        available = platforms_of(pack, spec.name)
        wanted = [name for name in available if platforms is None or name in platforms]
        ours = wanted if interpret else [name for name in wanted if name == here.name]
        files = {name: read_configs(pack, spec, name).content() for name in ours}
        selection = (
            make_selection(spec, here.name, ()) if interpret else read_selection(pack, spec, here)
        )
    except PackError as error:
        return Planned(findings=error.problems)
    except (TypeError, ValueError) as error:  # keys that no picker can be made of
        return Planned(findings=(_unverified(spec.path, "KP268", f"no call is made: {error}"),))
    planning = _Planning(pack=pack, spec=spec, here=here, selection=selection, interpret=interpret)
    for name in wanted:
        if name not in files:
            planning.other(name)
    if interpret or platforms is None or here.name in platforms:
        planning.tuned(files)
        planning.around([case.key for file in files.values() for case in file.cases])
    return Planned(
        runs=tuple(sorted(planning.runs, key=lambda r: (r.group, weight(r.spec, r.cases[0])))),
        findings=tuple(planning.findings),
        left=sum(planning.large.values()),
    )


@frozen(kw_only=True)
class _Planning:
    """The planning of one op: runs and findings are collected."""

    pack: PackSpec
    spec: KernelSpec
    here: Platform
    selection: ConfigSelection
    interpret: bool
    runs: list[Run] = field(factory=list)
    findings: list[Problem] = field(factory=list)
    large: dict[str, int] = field(factory=dict)

    def other(self, platform: str) -> None:
        """Say that the configs of another platform cannot be run here."""
        gpu = f"on {self.here.name}" if self.here.gpu else "here"
        message = f"its configs are not run {gpu}; check them on a GPU of this platform"
        self.findings.append(_unverified(self._shown(platform), "KP267", message))

    def tuned(self, files: Mapping[str, ConfigFile]) -> None:
        """Plan a run of every tuned case; equal ones of several platforms are one."""
        seen: set[object] = set()
        for platform, file in files.items():
            shown = self._shown(platform)
            keys = tuple(case.key for case in file.cases)
            around = Around(spec=self.spec, keys=keys, interpret=self.interpret)
            large = 0
            for place, tuned in enumerate(file.cases):
                if not tuned.key or around.interpreted:
                    continue  # what reaches it is not a key; calls that do are among the others
                case = around.case_of(tuned.key)
                named = f"case {shown_key(tuned.key)}"
                if not around.can_be_made(case):
                    message = f"{named}: [args] and [guard] allow no inputs for it; tune it again"
                    self.findings.append(_unverified(shown, "KP268", message))
                elif self._too_large(case):
                    large += 1
                elif (mark := tuple(map(repr, case.values.values()))) not in seen:
                    seen.add(mark)
                    self._add("tuned", (case,), named, file=shown, case=place, needed=True)
            if self.interpret and file.cases:
                self._not_run(shown, file, large, others=bool(around.interpreted))

    def _not_run(self, shown: str, file: ConfigFile, large: int, *, others: bool) -> None:
        cases, distinct = file.counts()
        calls = f"{'nor' if others else 'only'} the calls of its {counted(cases, 'case')}"
        message = (
            f"the interpreter does not run its {counted(distinct, 'config')}, {calls}; run "
            f"'check --level 3' on {file.platform}"
        )
        self.findings.append(_unverified(shown, "KP267", message))
        if large:
            self.large[shown] = large
            self.findings.append(
                _unverified(shown, "KP266", _too_many(large, counted(cases, "case")))
            )

    def around(self, keys: Sequence[CaseKey]) -> None:
        """Plan the calls beside the tuned cases."""
        distinct = {tuple(map(repr, key.items())): key for key in keys}
        keys = tuple(distinct.values())
        around = Around(spec=self.spec, keys=keys, interpret=self.interpret)
        others = (*around.off_grid(), *around.untuned(), *around.guarded())
        planned: list[tuple[RunKind, tuple[Case, ...], str, int]]
        planned = [("call", (case,), f"call {case}", case.grid) for case in around.grid_cases()]
        planned += [("call", (case,), f"call {case}", -1) for case in others]
        strided, usual = around.strided(), around.one_of_each()
        planned += [("strided", (case,), f"call {case}, rows apart", -1) for case in strided]
        planned += [("zeros", (case,), f"call {case}, of zeros", -1) for case in usual[:1]]
        ends, made = around.ends(), set(map(str, others))
        planned += [
            ("empty", (case,), f"call {case}", -1)
            for case in ends
            if is_empty(self.spec, case) and str(case) not in made
        ]
        for axis, one, many in around.orders(self._config_of):
            for pair in ((one, many), (many, one)):
                sizes = " and then ".join(show(case.values[axis]) for case in pair)
                rest = shown_key({n: v for n, v in one.values.items() if n != axis})
                text = f"calls {axis}={sizes}{f' ({rest})' if rest else ''}"
                planned.append(("orders", pair, text, -1))
        checked = (*usual, *ends)
        planned += [("opcheck", (case,), f"call {case}", -1) for case in checked]
        differentiated = () if self.spec.backward is None else usual
        planned += [("gradients", (case,), f"gradients of {case}", -1) for case in differentiated]
        large = refused = 0
        for kind, cases, text, grid in planned:
            if any(map(self._too_large, cases)):
                large += 1
            elif not all(map(self._has_config, cases)):
                refused += grid >= 0
            else:
                at = ("kernel", "source") if grid < 0 else ("inputs", "grid", grid)
                self._add(kind, cases, text, at=at, needed=grid >= 0)
        if refused:
            told = counted(refused, "case of the grids is", "cases of the grids are")
            them = "it" if refused == 1 else "them"
            message = (
                f"{told} not run: {self.here.name} has no config for {them}, and [miss] action is "
                f"'error'; tune {them}"
            )
            self.findings.append(_unverified(self.spec.path, "KP268", message))
        if large:
            self.large[self.spec.path] = large
            beside = counted(len(planned), "call beside them", "calls beside them")
            self.findings.append(_unverified(self.spec.path, "KP266", _too_many(large, beside)))

    def _add(self, kind: RunKind, cases: tuple[Case, ...], text: str, **members: Any) -> None:
        run = Run(
            spec=self.spec,
            kind=kind,
            cases=cases,
            bytes=max(check_bytes(self.spec, case) for case in cases),
            text=f"{text}{self._with_config(kind, cases)}",
            **members,
        )
        self.runs.append(run)

    def _with_config(self, kind: RunKind, cases: tuple[Case, ...]) -> str:
        """Say with which config calls are made, where that is told by more than their arguments."""
        if self.interpret:
            return ", interpreted"
        if self.spec.picker is not None or kind in ("opcheck", "gradients"):
            return ""
        told = []
        for case in cases:
            chosen = self._chosen(case)
            if chosen is not None:
                config = "Helion's default"
                if chosen.config is not None:
                    config = json.dumps(chosen.config, sort_keys=True, ensure_ascii=False)
                told.append(config if kind == "tuned" else f"{config} ({chosen.reason})")
        return f" with config {' and then '.join(dict.fromkeys(told))}"

    def _chosen(self, case: Case) -> Chosen | None:
        """Return the first choice for a call; a picker of the kernel's own is not asked."""
        axes = [case.values.get(axis.name) for axis in self.spec.axes]
        return next(self.selection.options(axes), None)

    def _has_config(self, case: Case) -> bool:
        known = self.interpret or self.spec.picker is not None
        return known or self._chosen(case) is not None

    def _config_of(self, case: Case) -> str | None:
        chosen = None if self.interpret else self._chosen(case)
        return None if chosen is None or chosen.config is None else config_id(chosen.config)

    def _too_large(self, case: Case) -> bool:
        return self.interpret and case_elements(self.spec, case) > INTERPRETED

    def _shown(self, platform: str) -> str:
        return place_of(self.pack, self.spec.name, platform).shown


def _unverified(path: str, code: str, message: str) -> Problem:
    return Problem(path=path, code=code, severity="unverified", message=message, level=3)


def _too_many(large: int, calls: str) -> str:
    return (
        f"{counted(large, f'of {calls} is', f'of {calls} are')} not run: more than "
        f"{INTERPRETED // 10**6} million elements are too many for the interpreter; run "
        "'check --level 3' on a GPU"
    )
