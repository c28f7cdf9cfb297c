"""Which config a call gets: the tuned ones by the rules, and what stands in where none is."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

from attrs import field, frozen

from kernelpkg import configs, platforms
from kernelpkg.cases import show
from kernelpkg.configs import ConfigFile
from kernelpkg.errors import ConfigError
from kernelpkg.fields import without_positional
from kernelpkg.picker import Picker, Step, compile_picker, relax
from kernelpkg.platforms import Platform
from kernelpkg.spec import CaseKey, KernelSpec, PackSpec, Scalar

Outcome = Literal["exact", "bucketed", "extrapolated", "default", "miss"]
CustomPicker = Callable[[Sequence[Any], Sequence[CaseKey]], CaseKey | None]

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
    outcome: Outcome
    mode: Literal["tuned", "default"]
    platform: str | None = None
    key: CaseKey | None = None
    reason: str


@frozen(kw_only=True)
class _Table:
    """The tuned configs of one platform, with their picker."""

    platform: str
    fits: bool | None
    picker: Picker
    keys: tuple[CaseKey, ...]
    configs: tuple[Mapping[str, Any], ...]
    ids: tuple[str, ...]


@frozen(kw_only=True)
class ConfigPlan:
    """All configs that calls of a kernel on one platform can get, in the order of preference.

    The order: the rules over the platform's own cases; the nearest tuned variant, without its
    positional lists; its `{}` case; the same on the platforms it may borrow from; `[helion]
    default`, or Helion's own default.
    """

    spec: KernelSpec
    platform: str
    tables: tuple[_Table, ...]
    custom: CustomPicker | None = None
    _places: tuple[int, ...] = field(repr=False)

    def own(self) -> _Table | None:
        """The table of the platform itself."""
        return next((table for table in self.tables if table.platform == self.platform), None)

    def options(
        self, axes: Sequence[Scalar], args: Sequence[Any] | None = None
    ) -> Iterator[Chosen]:
        """Yield what a call may run with, best first; nothing where a miss is an error.

        `axes` are the values of all axes of the manifest, in order. `args` are the arguments of
        the call, for a kernel whose picker is a function of its own.
        """
        values = tuple(axes[place] for place in self._places)
        for table in self.tables:
            yield from self._from_table(table, values, args)
        if self.spec.miss == "default":
            yield self._default()

    def trace(self, axes: Sequence[Scalar]) -> tuple[Step, ...]:
        """What the rules do with a call over the platform's own cases, or the first borrowed."""
        values = tuple(axes[place] for place in self._places)
        return self.tables[0].picker.explain(values) if self.tables else ()

    def _from_table(
        self, table: _Table, values: tuple[Scalar, ...], args: Sequence[Any] | None
    ) -> Iterator[Chosen]:
        own = table.platform == self.platform
        where = "" if own else f"{self.platform} has no config; borrowed from {table.platform}: "
        index = self._picked(table, values, args)
        if index is not None:
            outcome = table.picker.pick(values).outcome if self.custom is None else "exact"
            reason = where + _how(outcome, table.keys[index])
            yield self._chosen(table, index, outcome if own else "default", reason)
        elif self.custom is None:
            keys = [key for key in table.keys if key]
            near, differing = relax(self.spec.rules, keys, self.spec.defaults, values)
            if near is not None and differing:
                index = table.keys.index(keys[near])
                axes = ", ".join(differing)
                reason = f"{where}variant was never tuned ({axes}); {_how('', keys[near])}, "
                yield self._chosen(
                    table, index, "default", f"{reason}without its positional lists", strip=True
                )
        if table.picker.default_index is not None:
            yield self._chosen(
                table, table.picker.default_index, "default", f"{where}the case {{}}"
            )

    def _picked(
        self, table: _Table, values: tuple[Scalar, ...], args: Sequence[Any] | None
    ) -> int | None:
        if self.custom is None:
            return table.picker.pick(values).index
        keys = [key for key in table.keys if key]
        found = self.custom(args, keys) if keys and args is not None else None
        if found is not None and found not in keys:
            raise ConfigError(
                f"the config picker of '{self.spec.name}' returned {dict(found)}, which is none "
                "of the tuned keys"
            )
        return None if found is None else table.keys.index(found)

    def _chosen(
        self, table: _Table, index: int, outcome: Outcome, reason: str, *, strip: bool = False
    ) -> Chosen:
        config = table.configs[index]
        if strip:
            config = without_positional(config)
        return Chosen(
            config_id=_config_id(config) if strip else table.ids[index],
            config=config,
            outcome=outcome,
            mode="tuned" if table.platform == self.platform else "default",
            platform=table.platform,
            key=table.keys[index],
            reason=reason,
        )

    def _default(self) -> Chosen:
        config = self.spec.default
        none = f"{self.platform} has no config for this call" if self.own() else "nothing is tuned"
        which = "Helion's own default" if config is None else "[helion] default"
        return Chosen(
            config_id=HELION_DEFAULT if config is None else _config_id(config),
            config=config,
            outcome="default",
            mode="default",
            reason=f"{none}; {which}",
        )


def make_plan(
    spec: KernelSpec,
    platform: str,
    files: Sequence[ConfigFile],
    *,
    fits: Mapping[str, bool | None] | None = None,
    custom: CustomPicker | None = None,
) -> ConfigPlan:
    """Compile the rules of a kernel over config files, given in the order of preference.

    `fits` says of a borrowed platform whether its configs fit this GPU's shared memory; those that
    do not are left out.
    """
    known = fits or {}
    tables = [_table(spec, file, known.get(file.platform, True)) for file in files]
    names = [axis.name for axis in spec.axes]
    return ConfigPlan(
        spec=spec,
        platform=platform,
        tables=tuple(table for table in tables if table.fits is not False),
        custom=custom,
        places=tuple(names.index(axis) for axis in spec.key_axes),
    )


def read_plan(
    pack: PackSpec, spec: KernelSpec, here: Platform, *, custom: CustomPicker | None = None
) -> ConfigPlan:
    """Read the config files that calls on a platform may use, and compile the rules over them.

    Raises PackError with every problem of the files.
    """
    root = Path(pack.root)
    available = configs.platforms_of(root, spec.name)
    names = [here.name] if here.name in available else []
    names += platforms.chain(here, available, extra=pack.platforms)
    files = [
        configs.read(
            root / "configs" / spec.name / f"{name}.json",
            f"configs/{spec.name}/{name}.json",
            spec.name,
            name,
            spec.key_axes,
            spec.defaults,
        )
        for name in names
    ]
    fits = {
        name: name == here.name
        or platforms.fits(platforms.resolve(name, extra=pack.platforms), here)
        for name in names
    }
    return make_plan(spec, here.name, files, fits=fits, custom=custom)


def _table(spec: KernelSpec, file: ConfigFile, fits: bool | None) -> _Table:
    keys = tuple(case.key for case in file.cases)
    configs = tuple(file.configs[case.config] for case in file.cases)
    ids = tuple(_config_id(config) for config in file.configs)
    return _Table(
        platform=file.platform,
        fits=fits,
        picker=compile_picker(spec.rules, keys, spec.defaults),
        keys=keys,
        configs=configs,
        ids=tuple(ids[case.config] for case in file.cases),
    )


def _config_id(config: Mapping[str, Any]) -> str:
    return json.dumps(config, sort_keys=True, separators=(",", ":"))


def _how(outcome: str, key: CaseKey) -> str:
    case = ", ".join(f"{axis}={show(value)}" for axis, value in key.items())
    return f"{outcome} case {case}".strip()
