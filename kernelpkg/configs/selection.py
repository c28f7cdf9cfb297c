"""Which config a call gets: the tuned ones by the rules, and what stands in where none is.

Before: `configs/store`. After: `runtime/load`, which reads one selection for each kernel.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Final, Literal, get_args

from attrs import frozen

from kernelpkg.configs import directories, platforms
from kernelpkg.configs.match import identity
from kernelpkg.configs.picker import Picker, Step, compile_picker
from kernelpkg.configs.platforms import Platform
from kernelpkg.configs.store import ConfigFile, StoredFile, config_id, shown_key
from kernelpkg.configs.tuned_key import ConfigPicker, KeyPicker, TunedKey
from kernelpkg.errors import PackError, Problem, collecting
from kernelpkg.files import Files
from kernelpkg.manifest.cases import Case, Evaluator, guard_problems
from kernelpkg.manifest.helion_config import without_positional
from kernelpkg.manifest.spec import CaseKey, KernelSpec, PackSpec, Scalar

ConfigOutcome = Literal["exact", "bucketed", "extrapolated", "default", "miss"]
CallOutcome = Literal["exact", "bucketed", "extrapolated", "default", "missing", "refused"]
OUTCOMES: Final[tuple[CallOutcome, ...]] = get_args(CallOutcome)
"""What may become of a call, the best first."""

HELION_DEFAULT: Final = "helion"
"""The id of Helion's own default config, which no config file holds."""


@frozen(kw_only=True)
class Chosen:
    """The config of a call, and why it is that one.

    `config_id` is equal for equal configs; `config` is None for Helion's own default. `platform`
    is where the config was tuned, and `key` its case key; both are None for a default config.
    """

    config_id: str
    config: Mapping[str, Any] | None
    outcome: ConfigOutcome
    mode: Literal["tuned", "default"]
    platform: str | None = None
    key: CaseKey | None = None
    reason: str


@frozen(kw_only=True)
class Move:
    """An axis whose value in a call is not that of the case it gets.

    `ratio` is the larger of the two over the smaller, and infinite where that is not positive.
    """

    axis: str
    value: Scalar
    to: Scalar
    extrapolated: bool

    @property
    def ratio(self) -> float:
        if isinstance(self.value, bool | str | None) or isinstance(self.to, bool | str | None):
            return 1.0
        low, high = sorted((self.value, self.to))
        return high / low if low > 0 else math.inf

    @property
    def sized(self) -> bool:
        """Whether both are numbers, so that one is how many times the other."""
        return self.ratio != 1.0


@frozen(kw_only=True)
class Answer:
    """What a call gets: the outcome, the config, and how far it is from what was tuned.

    `chosen` is None where nothing runs. `guard` says which guard refuses the call.
    """

    outcome: CallOutcome
    chosen: Chosen | None = None
    moves: tuple[Move, ...] = ()
    guard: str | None = None

    @property
    def reason(self) -> str:
        """Why the call gets it, in words."""
        if self.guard is not None:
            return f"the kernel does not take the call: {self.guard}"
        if self.chosen is None:
            return "no config is tuned, and [miss] action is 'error'"
        return self.chosen.reason

    @property
    def origin(self) -> str:
        """Where the config comes from, in a word."""
        chosen = self.chosen
        if chosen is None:
            return "none"
        if chosen.platform is None:
            return "helion" if chosen.config is None else "manifest"
        if chosen.mode == "default":
            return "borrowed"
        if chosen.outcome != "default":
            return "tuned"
        return "variant" if chosen.key else "empty"

    def kind(self, axis: str | None) -> tuple[object, ...]:
        """Return what two calls have in common that get the same and differ in one axis alone."""
        far = any(move.axis == axis and move.extrapolated for move in self.moves)
        chosen = self.chosen
        if chosen is None:
            return self.outcome, self.guard
        key = None if chosen.key is None else tuple(chosen.key.items())
        return self.outcome, far, chosen.config_id, chosen.platform, key, chosen.reason


@frozen(kw_only=True)
class _Compiled:
    """Tuned configs with their picker: per case its key, its config and the id of that."""

    picker: Picker
    keys: tuple[CaseKey, ...]
    configs: tuple[Mapping[str, Any], ...]
    ids: tuple[str, ...]


@frozen(kw_only=True)
class _Table:
    """The tuned configs of one platform, compiled at the first call that asks for them.

    With 50 cases, a table that was not asked is a text of 20 KB; one that was has 119 KB more
    (tracemalloc, CPython 3.11, 2026-11-22).
    """

    platform: str
    spec: KernelSpec
    file: ConfigFile | StoredFile

    @cached_property
    def compiled(self) -> _Compiled:
        """What answers calls; made from memory alone, for calls may come while Dynamo traces."""
        file = self.file.content() if isinstance(self.file, StoredFile) else self.file
        keys = tuple(case.key for case in file.cases)
        ids = tuple(map(config_id, file.configs))
        return _Compiled(
            picker=compile_picker(self.spec.rules, keys, self.spec.defaults),
            keys=keys,
            configs=tuple(file.configs[case.config] for case in file.cases),
            ids=tuple(ids[case.config] for case in file.cases),
        )


@frozen(kw_only=True)
class ConfigSelection:
    """All configs that calls of a kernel on one platform can get, in the order of preference.

    The order: the rules over the platform's own cases; the nearest tuned variant, without its
    positional lists; its `{}` case; the same on the platforms it may borrow from; `[helion]
    default`, or Helion's own default. Where a miss is an error, only what the rules find among the
    platform's own cases, and its `{}` case.
    """

    spec: KernelSpec
    platform: str
    tables: tuple[_Table, ...]
    custom: ConfigPicker | None = None

    @cached_property
    def _places(self) -> tuple[int, ...]:
        """Where the key axes are among all axes."""
        names = [axis.name for axis in self.spec.axes]
        return tuple(names.index(axis) for axis in self.spec.key_axes)

    def own(self) -> _Table | None:
        """The table of the platform itself."""
        return next((table for table in self.tables if table.platform == self.platform), None)

    @property
    def configs(self) -> Mapping[TunedKey, Mapping[str, Any]]:
        """The configs that are tuned for the platform itself, by their keys."""
        own = self.own()
        if own is None:
            return {}
        return dict(zip(map(TunedKey.of, own.compiled.keys), own.compiled.configs, strict=True))

    def options(
        self, axes: Sequence[Scalar], args: Sequence[Any] | None = None
    ) -> Iterator[Chosen]:
        """Yield what a call may run with, best first; nothing where a miss is an error.

        `axes` are the values of all axes of the manifest, in order. `args` are the arguments of
        the call, for a kernel whose picker is a function of its own.
        """
        values = tuple(axes[place] for place in self._places)
        strict = self.spec.miss == "error"
        for table in self.tables:
            if table.platform == self.platform or not strict:
                yield from self._from_table(table, values, args)
        if not strict:
            yield self._default()

    def answer(
        self, axes: Mapping[str, Scalar], evaluate: Evaluator | None = None, *, guarded: bool = True
    ) -> Answer:
        """Say what a call with some axis values gets; guards that read others are not asked.

        `evaluate` is for whoever asks about calls of one kernel more than once.
        """
        if guarded:
            case = Case(values=axes, use=(), grid=0)
            for _, _, wrong in guard_problems(self.spec, [case], evaluate):
                return Answer(outcome="refused", guard=wrong)
        values = [axes.get(axis.name) for axis in self.spec.axes]
        chosen = next(self.options(values), None)
        if chosen is None or chosen.outcome == "miss":
            return Answer(outcome="missing", chosen=chosen)
        far: set[str] = set()
        if chosen.outcome == "extrapolated":
            far = {step.axis for step in self.trace(values) if step.outcome == "extrapolated"}
        moves = tuple(self._moves(axes, chosen.key or {}, far))
        return Answer(outcome=chosen.outcome, chosen=chosen, moves=moves)

    def _moves(
        self, axes: Mapping[str, Scalar], key: CaseKey, far: Collection[str]
    ) -> Iterator[Move]:
        """Yield the axes in which a call differs from the case of a key, if it is not empty."""
        for rule in self.spec.rules if key else ():
            to = key.get(rule.axis, self.spec.defaults.get(rule.axis))
            if rule.match != "ignore" and identity(to) != identity(axes[rule.axis]):
                yield Move(
                    axis=rule.axis, value=axes[rule.axis], to=to, extrapolated=rule.axis in far
                )

    def trace(self, axes: Sequence[Scalar]) -> tuple[Step, ...]:
        """What the rules do with a call over the platform's own cases, or the first borrowed."""
        values = tuple(axes[place] for place in self._places)
        return self.tables[0].compiled.picker.explain(values) if self.tables else ()

    def turns(self, axis: str) -> tuple[int, ...]:
        """Return the whole numbers of a key axis at which what calls get may change, rising."""
        place = self.spec.key_axes.index(axis)
        found = {turn for table in self.tables for turn in table.compiled.picker.turns(place)}
        return tuple(sorted(found))

    def _from_table(
        self, table: _Table, values: tuple[Scalar, ...], args: Sequence[Any] | None
    ) -> Iterator[Chosen]:
        own = table.platform == self.platform
        where = "" if own else f"{self.platform} has no config; borrowed from {table.platform}: "
        picker, keys = table.compiled.picker, table.compiled.keys
        index = self._picked(table.compiled, values, args)
        if index is not None:
            outcome = picker.pick(values).outcome if self.custom is None else "exact"
            reason = where + _how(outcome, keys[index])
            yield self._chosen(table, index, outcome if own else "default", reason)
        elif self.custom is None and self.spec.miss == "default":
            near, differing = picker.relax(values)
            if near is not None and differing:
                axes = ", ".join(differing)
                reason = f"{where}variant was never tuned ({axes}); {_how('', keys[near])}, "
                yield self._chosen(
                    table, near, "default", f"{reason}without its positional lists", strip=True
                )
        if picker.default_index is not None:
            yield self._chosen(table, picker.default_index, "default", f"{where}the case {{}}")

    def _picked(
        self, table: _Compiled, values: tuple[Scalar, ...], args: Sequence[Any] | None
    ) -> int | None:
        if self.custom is None:
            return table.picker.pick(values).index
        if args is None:
            return None
        found = KeyPicker(self.custom, self.spec.name, table.keys).pick(args)
        return table.keys.index(found) if found else None

    def _chosen(
        self, table: _Table, index: int, outcome: ConfigOutcome, reason: str, *, strip: bool = False
    ) -> Chosen:
        config = table.compiled.configs[index]
        if strip:
            config = without_positional(config)
        return Chosen(
            config_id=config_id(config) if strip else table.compiled.ids[index],
            config=config,
            outcome=outcome,
            mode="tuned" if table.platform == self.platform else "default",
            platform=table.platform,
            key=table.compiled.keys[index],
            reason=reason,
        )

    def _default(self) -> Chosen:
        config = self.spec.default
        none = f"{self.platform} has no config for this call" if self.own() else "nothing is tuned"
        which = "Helion's own default" if config is None else "[helion] default"
        return Chosen(
            config_id=HELION_DEFAULT if config is None else config_id(config),
            config=config,
            outcome="default",
            mode="default",
            reason=f"{none}; {which}",
        )


def make_selection(
    spec: KernelSpec,
    platform: str,
    files: Sequence[ConfigFile | StoredFile],
    *,
    fits: Mapping[str, bool | None] | None = None,
    custom: ConfigPicker | None = None,
) -> ConfigSelection:
    """Put the rules of a kernel over config files, given in the order of preference.

    `fits` says of a borrowed platform whether its configs fit this GPU's shared memory; those that
    do not are left out.
    """
    known = fits or {}
    return ConfigSelection(
        spec=spec,
        platform=platform,
        tables=tuple(
            _Table(platform=file.platform, spec=spec, file=file)
            for file in files
            if known.get(file.platform) is not False
        ),
        custom=custom,
    )


def read_selection(
    pack: PackSpec,
    spec: KernelSpec,
    here: Platform,
    *,
    custom: ConfigPicker | None = None,
    files: Files | None = None,
    dropped: list[Problem] | None = None,
    locked: directories.LockedCounts | None = None,
) -> ConfigSelection:
    """Read the config files that calls on a platform may use, and put the rules over them.

    `files` keeps what was read. Raises PackError with every problem of the files; with a list
    `dropped`, the files of all platforms are read, and only the platform's own may not be broken:
    the problems of others go to the list, and nothing is borrowed from them. `locked` are the
    files that a lock vouches for, which are not checked again.
    """
    available = directories.platforms_of(pack, spec.name, files)
    names = [here.name] if here.name in available else []
    names += platforms.chain(here, available, extra=pack.platforms)
    others = [] if dropped is None else [name for name in available if name not in names]
    problems: list[Problem] = []
    stored = []
    for name in (*names, *others):
        with collecting(problems if dropped is None or name == here.name else dropped):
            found = directories.read_configs(pack, spec, name, files, locked=locked)
            stored += [] if name in others else [found]
    if problems:
        raise PackError(problems=tuple(problems))
    fits = {
        name: name == here.name
        or platforms.fits(platforms.resolve(name, extra=pack.platforms), here)
        for name in names
    }
    return make_selection(spec, here.name, stored, fits=fits, custom=custom)


def _how(outcome: str, key: CaseKey) -> str:
    return f"{outcome} case {shown_key(key)}".strip()
