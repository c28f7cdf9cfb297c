"""Which calls of a kernel need code of their own: its variants, and what stands for each.

A variant is given by the facts that choose code: axes that are matched exactly, and values that
are not sizes (dtypes, flags, absent arguments). Sizes change the numbers in code, not its parts,
with exceptions that level 1 of `check` looks for between a variant's smallest and largest case.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Final

from attrs import frozen

from kernelpkg.compile.bind import Binder, Target
from kernelpkg.configs import directories
from kernelpkg.configs.match import identity
from kernelpkg.configs.store import config_id
from kernelpkg.errors import PackError
from kernelpkg.files import digest_bytes
from kernelpkg.manifest.cases import Case, cases_of, is_empty, show
from kernelpkg.manifest.document import json_lines
from kernelpkg.manifest.helion_config import Config
from kernelpkg.manifest.spec import CaseKey, KernelSpec, PackSpec, Scalar

Facts = tuple[tuple[str, Scalar], ...]
"""The axis values that choose code, in the order of the axes; two that are equal say the same."""


@frozen(kw_only=True, eq=False)
class Variant:
    """Calls that share everything but sizes; `cases` are known ones, none of them empty."""

    facts: Facts
    cases: tuple[Case, ...]

    def __str__(self) -> str:
        return ", ".join(f"{name}={show(value)}" for name, value in self.facts)

    @cached_property
    def largest(self) -> Case:
        """The case with the largest sizes, of those with the fewest sizes of one."""
        return min(self.cases, key=lambda case: (case.ones(), -case.size()))

    @cached_property
    def smallest(self) -> Case:
        """The case with the smallest sizes, of those with the fewest sizes of one."""
        return min(self.cases, key=lambda case: (case.ones(), case.size()))


@frozen(kw_only=True, eq=False)
class FiledConfig:
    """A distinct config of a platform's file; `variants` are those that its cases belong to.

    Their cases are the ones that the config serves. `lines` gives the line of each field, and
    under "" that of the config.
    """

    path: str
    place: int
    lines: Mapping[str, int]
    platform: str
    config: Config
    variants: tuple[Variant, ...]

    def line(self, field: str = "") -> int:
        """The line of a field, or of the config where it does not give the field."""
        return self.lines.get(field, self.lines[""])


def facts_of(spec: KernelSpec, case: Case) -> Facts:
    """Return the values of a case that choose code."""
    exact = {rule.axis for rule in spec.rules if rule.match == "exact"}
    return tuple(
        (name, value)
        for name, value in case.values.items()
        if name in exact or type(value) not in (int, float)
    )


def variants_of(spec: KernelSpec, cases: Iterable[Case]) -> tuple[Variant, ...]:
    """Group cases by their variants, in the order in which these come first."""
    found: dict[object, list[Case]] = {}
    for case in cases:
        if not is_empty(spec, case):
            key = tuple((name, identity(value)) for name, value in facts_of(spec, case))
            found.setdefault(key, []).append(case)
    return tuple(
        Variant(facts=facts_of(spec, group[0]), cases=tuple(group)) for group in found.values()
    )


def known_cases(spec: KernelSpec) -> tuple[Case, ...]:
    """The cases of the manifest for tuning, and then those for tests."""
    return cases_of(spec, "tune") + cases_of(spec, "test")


def case_of_key(spec: KernelSpec, key: CaseKey, cases: Sequence[Case]) -> Case:
    """Return a case with the axis values of a case key.

    It is the first of the known ones if there is one; otherwise axes that the key does not name
    are as in the defaults, and as in the first known case.
    """
    for case in cases:
        if all(identity(case.values[axis]) == identity(value) for axis, value in key.items()):
            return case
    first = cases[0].values if cases else {}
    values = {**first, **spec.defaults, **key}
    ordered = {axis.name: values[axis.name] for axis in spec.axes if axis.name in values}
    return Case(values=ordered, use=("tune",), grid=0)


def filed_configs(pack: PackSpec, spec: KernelSpec, platform: str) -> tuple[FiledConfig, ...]:
    """Return the distinct configs of a platform's file in its order, with the cases of each.

    The case {} stands for every case for tuning. Empty for a file that cannot be read: level 0
    tells what is wrong with it.
    """
    place = directories.locate(pack, spec.name, platform)
    if place is None:
        return ()
    try:
        file = directories.read_configs(pack, spec, platform).content()
        lines, _ = json_lines(place.path.read_text(encoding="utf-8"))
    except (PackError, OSError):
        return ()
    known = known_cases(spec)
    tuned = [case for case in known if "tune" in case.use] or list(known)
    first: dict[str, int] = {}
    served: dict[int, list[Case]] = {}
    for case in file.cases:
        index = first.setdefault(config_id(file.configs[case.config]), case.config)
        cases = [case_of_key(spec, case.key, known)] if case.key else tuned
        served.setdefault(index, []).extend(cases)
    return tuple(
        FiledConfig(
            path=place.shown,
            place=index,
            lines={
                str(at[2]) if len(at) == 3 else "": line
                for at, line in lines.items()
                if at[:2] == ("configs", index) and len(at) < 4
            },
            platform=platform,
            config=file.configs[index],
            variants=variants_of(spec, served[index]),
        )
        for index in sorted(served)
    )


_TARGET: Final = Target(capability=(9, 0))
"""One GPU for all machines, so that what is taken on one of them is found again on another."""


def fingerprints(spec: KernelSpec) -> Mapping[str, str]:
    """Return a digest per variant; binds each of them on the CPU.

    Raises Unbound or NoInputs for a variant that does not bind.
    """
    binder = Binder(spec)
    return {
        str(variant): digest_bytes(binder.bind(variant.largest, _TARGET).fingerprint.encode())
        for variant in variants_of(spec, known_cases(spec))
    }
