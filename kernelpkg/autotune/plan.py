"""What is to be tuned: the cases, the order they are searched in, and the seeds of each search."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Final

from attrs import frozen

from kernelpkg.configs.match import identity
from kernelpkg.configs.picker import Picker, compile_picker
from kernelpkg.configs.selection import ConfigSelection
from kernelpkg.configs.store import config_id, identity_of
from kernelpkg.manifest.cases import Case, cases_of, guard_problem
from kernelpkg.manifest.helion_config import Config, without_positional
from kernelpkg.manifest.spec import CaseKey, KernelSpec, Scalar
from kernelpkg.manifest.wanted import wanted_cases

MOST_SEEDS: Final = 8
"""How many configs a search starts from at most: each costs a compilation before it begins."""

_NEAREST: Final = 3
"""How many of the seeds are of tuned cases nearby."""


@frozen(kw_only=True)
class PlannedCase:
    """One case to tune.

    `old` is the config that the rules pick for it now, unless that is a default, and `exact` says
    that it was tuned for this case; `beside` is a call off the tuned grid that will run with this
    case's config, once the whole grid is tuned.
    """

    case: Case
    key: CaseKey
    old: Config | None
    exact: bool
    beside: Case | None


@frozen(kw_only=True)
class Tuned:
    """A case that has a config: the nearest ones are seeds of others."""

    key: CaseKey
    config: Config


@frozen(kw_only=True, eq=False)
class TuningPlan:
    """The cases of one kernel to tune on one platform, in the order of their searches."""

    spec: KernelSpec
    picks: ConfigSelection
    cases: tuple[PlannedCase, ...]

    @property
    def variants(self) -> int:
        """How many sets of values the cases have of the axes that are matched exactly."""
        exact = [rule.axis for rule in self.spec.rules if rule.match == "exact"]
        return len({tuple(identity(one.key.get(axis)) for axis in exact) for one in self.cases})

    def seeds(self, planned: PlannedCase, tuned: Iterable[Tuned]) -> tuple[Config, ...]:
        """Return the configs that the search of a case starts from, the most promising first.

        What the rules pick now; the configs of the nearest tuned cases; what else a call could get,
        from other platforms and as a default. A config of another variant loses its positional
        lists.
        """
        axes = [planned.case.values.get(axis.name) for axis in self.spec.axes]
        options = [] if self.spec.picker else list(self.picks.options(axes))
        home = identity_of(self.spec, planned.key)
        others = [other for other in tuned if identity_of(self.spec, other.key) not in (home, ())]
        near = [(distance(self.spec, planned.key, other.key), other.config) for other in others]
        near.sort(key=lambda pair: (pair[0], config_id(pair[1])))
        found: dict[str, Config] = {}
        if planned.old is not None:
            found[config_id(planned.old)] = planned.old
        nearby = 0
        for (differing, *_), tuned_there in near:
            config = without_positional(tuned_there) if differing else tuned_there
            if nearby < _NEAREST and config_id(config) not in found:
                found[config_id(config)] = config
                nearby += 1
        for chosen in options:
            if chosen.config is not None:
                found.setdefault(config_id(chosen.config), chosen.config)
        if self.spec.default is not None:
            found.setdefault(config_id(self.spec.default), self.spec.default)
        return tuple(found.values())[:MOST_SEEDS]

    def single(self, planned: PlannedCase, among: Sequence[PlannedCase]) -> Case | None:
        """Return a call of size 1 that gets the config of a case where only those are tuned.

        Size 1 has compiled code of its own, and an interrupted run leaves few cases for all calls.
        """
        buckets = _Buckets(spec=self.spec, grid=tuple(other.case for other in among))
        single = buckets.single(planned.case)
        beside = planned.beside
        return None if beside is not None and single == beside else single


def plan_tuning(
    spec: KernelSpec, picks: ConfigSelection, wanted: Mapping[str, Sequence[str]]
) -> TuningPlan:
    """Choose the cases of a kernel's grid that have the wanted axis values, and order them.

    Raises UsageError for an axis that the kernel does not have, and where no case has one of its
    values.
    """
    grid = cases_of(spec, "tune")
    chosen = wanted_cases(spec, grid, wanted, "tuning")
    distinct = {identity_of(spec, case.values): case for case in reversed(chosen)}
    ordered = [case for case in chosen if distinct[identity_of(spec, case.values)] is case]
    buckets = _Buckets(spec=spec, grid=grid)
    planned = []
    for case in ordered:
        old, exact = _picked(spec, picks, case)
        key, beside = _key(spec, case), buckets.beside(case)
        planned.append(PlannedCase(case=case, key=key, old=old, exact=exact, beside=beside))
    return TuningPlan(
        spec=spec, picks=picks, cases=tuple(planned[at] for at in spread(len(planned)))
    )


def spread(count: int) -> Iterator[int]:
    """Yield 0 to count - 1: the last, the first, and then the middle of each gap, the widest first.

    So that a run that is interrupted has tuned cases all over the range, and a later search finds
    a finished one near by on both sides.
    """
    if count:
        yield count - 1
    if count > 1:
        yield 0
    gaps = deque([(0, count - 1)])
    while gaps:
        low, high = gaps.popleft()
        if high - low > 1:
            middle = (low + high) // 2
            yield middle
            gaps += [(low, middle), (middle, high)]


def distance(spec: KernelSpec, one: CaseKey, other: CaseKey) -> tuple[float, ...]:
    """Return how far two keys are apart: variants first, then sizes by ratio, by rule in order."""
    differing = 0
    apart: list[float] = []
    for rule in spec.rules:
        left, right = (key.get(rule.axis, spec.defaults.get(rule.axis)) for key in (one, other))
        if identity(left) == identity(right):
            apart.append(0.0)
        elif rule.match == "exact" or not (_positive(left) and _positive(right)):
            differing += 1
        else:
            apart.append(abs(math.log2(left / right)))  # type: ignore[operator]  # both are numbers
    return (differing, *apart)


def _positive(value: Scalar) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0


def _key(spec: KernelSpec, case: Case) -> dict[str, Scalar]:
    return {axis: case.values[axis] for axis in spec.key_axes}


def _picked(spec: KernelSpec, picks: ConfigSelection, case: Case) -> tuple[Config | None, bool]:
    """Return what a call gets now, and whether it was tuned for this case.

    A picker of the kernel's own is asked with tensors, which there are none of here.
    """
    own = picks.own()
    key = identity_of(spec, case.values)
    cases = () if own is None else zip(own.compiled.keys, own.compiled.configs, strict=True)
    exact = next((config for tuned, config in cases if identity_of(spec, tuned) == key), None)
    if exact is not None or spec.picker is not None:
        return exact, exact is not None
    axes = [case.values.get(axis.name) for axis in spec.axes]
    chosen = next(picks.options(axes), None)
    return None if chosen is None or chosen.key is None else chosen.config, False


@frozen(kw_only=True)
class _Buckets:
    """The calls off the grid that share the config of a case, once the whole grid is tuned."""

    spec: KernelSpec
    grid: tuple[Case, ...]

    @cached_property
    def picker(self) -> Picker:
        keys = {case.key(self.spec): _key(self.spec, case) for case in self.grid}
        return compile_picker(self.spec.rules, tuple(keys.values()), {})

    def beside(self, case: Case) -> Case | None:
        """Return a call one off the case, in the last axis in which there is one."""
        return self._moved(case, self._sizes(case), lambda value: (value - 1, value + 1))

    def single(self, case: Case) -> Case | None:
        """Return a call that is 1 in the last axis that is a size, and more in the case."""
        return self._moved(case, self._sizes(case)[:1], lambda value: (1,) if value > 1 else ())

    def _sizes(self, case: Case) -> list[str]:
        """Return the axes in which calls share configs, the last first."""
        return [
            rule.axis
            for rule in reversed(self.spec.rules)
            if type(case.values[rule.axis]) is int and rule.match not in ("exact", "ignore")
        ]

    def _moved(
        self, case: Case, axes: Iterable[str], places: Callable[[int], tuple[int, ...]]
    ) -> Case | None:
        if self.spec.picker is not None or self.spec.generator is not None:
            return None
        home = self.picker.pick(case.key(self.spec)).index
        for axis in axes:
            for near in places(case.values[axis]):  # type: ignore[arg-type]  # it is a size
                moved = Case(values={**case.values, axis: near}, use=case.use, grid=case.grid)
                if (
                    near > 0
                    and self.picker.pick(moved.key(self.spec)).index == home
                    and guard_problem(self.spec, moved) is None
                ):
                    return moved
        return None
