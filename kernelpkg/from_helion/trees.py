"""A decision tree as tuned cases: what the rules of a kernel have to be told to say the same."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from attrs import define, field, frozen

from kernelpkg.configs.store import TunedCase
from kernelpkg.errors import PackError, Problem, pack_error, shown
from kernelpkg.from_helion.heuristics import Feature, Heuristic, Split
from kernelpkg.manifest.cases import cases_of, element_size, show
from kernelpkg.manifest.spec import KernelSpec, Rule, Scalar

_MOST: Final = 10_000
"""How many cases a tree may become; of that many is a file of what `check` reads in seconds."""


class _Unsayable(Exception):
    """A part of a tree that the rules of a kernel cannot say, with the remedy."""


@frozen(kw_only=True)
class _Fact:
    """What a tree looks at, by the axis that it is of; without one it is the same in each call."""

    axis: str | None
    number: Callable[[Scalar], float]
    """The number that is compared, of the axis' value."""
    is_axis: bool
    """Whether that is the value itself."""


@frozen(kw_only=True)
class TreeCases:
    """The cases of a tree, and the values of axes that it does not look at and that are matched
    exactly: those that are tuned."""

    cases: tuple[TunedCase, ...]
    filled: tuple[str, ...]


def tree_cases(spec: KernelSpec, heuristic: Heuristic, shown_path: str) -> TreeCases:
    """Return cases with which every call gets the config that the tree gives it.

    Raises PackError with a line for each comparison that the rules cannot say.
    """
    if not cases_of(spec, "tune"):
        message = f"kernel '{spec.name}': nothing is tuned; add [[inputs.grid]] for 'tune'"
        raise pack_error(shown_path, "KP832", message, heuristic.line)
    tree = _Tree(spec=spec, facts={}, thresholds={})
    problems = []
    for split in _splits(heuristic.tree):
        try:
            tree.add(split)
        except _Unsayable as error:
            problems.append((split.line, str(error)))
    candidates: dict[str, Sequence[Scalar]] = {}
    for axis in spec.key_axes:
        try:
            candidates[axis] = tree.candidates(axis)
        except _Unsayable as error:
            problems.append((heuristic.line, str(error)))
    if spec.picker is not None:
        problems.append((heuristic.line, "its configs are picked by a function, and not by rules"))
    count = math.prod(map(len, candidates.values())) * len(tree.fillings)
    if count > _MOST and not problems:
        problems.append((heuristic.line, f"the tree is {count} cases, more than {_MOST}"))
    if problems:
        raise PackError(
            problems=[
                Problem(
                    path=shown_path,
                    line=line,
                    code="KP832",
                    message=f"kernel '{spec.name}': {what}",
                )
                for line, what in dict.fromkeys(problems)
            ]
        )
    return TreeCases(cases=tuple(tree.cases(heuristic.tree, candidates)), filled=tree.filled())


def _splits(tree: Split | int) -> Iterator[Split]:
    if isinstance(tree, Split):
        yield tree
        yield from _splits(tree.low)
        yield from _splits(tree.high)


@define
class _Tree:
    """A tree against the rules of a kernel: its facts, and what each axis is compared with."""

    spec: KernelSpec
    facts: dict[Feature, _Fact]
    thresholds: dict[str, set[int]]
    fillings: list[dict[str, Scalar]] = field(init=False)

    @fillings.default
    def _fillings(self) -> list[dict[str, Scalar]]:
        """The values that axes which are matched exactly have together in the tuned cases."""
        exact = [rule.axis for rule in self.spec.rules if rule.match == "exact"]
        found = {
            tuple(map(show, filling.values())): filling
            for case in cases_of(self.spec, "tune")
            for filling in [{axis: case.values[axis] for axis in exact}]
        }
        return [*found.values()]

    def filled(self) -> tuple[str, ...]:
        """Return what was filled in, as `tuned_with` records it."""
        texts = (f"{axis}={show(v)}" for filling in self.fillings for axis, v in filling.items())
        return tuple(dict.fromkeys(texts))

    def rule(self, axis: str) -> Rule:
        """Return the rule of an axis; raises _Unsayable without one."""
        for rule in self.spec.rules:
            if rule.axis == axis:
                return rule
        raise _Unsayable(f"axis '{axis}' is compared and has no rule; give it one in [[key]]")

    def add(self, split: Split) -> None:
        """Take a comparison; raises _Unsayable where no rule can say it."""
        fact = self.facts.setdefault(split.feature, self.fact(split.feature))
        if fact.axis is None:
            return
        rule = self.rule(fact.axis)
        if fact.is_axis:
            self.thresholds.setdefault(fact.axis, set()).add(math.floor(split.threshold))
        elif rule.match != "exact":
            what = f"axis '{fact.axis}' is told apart by what is not its value"
            raise _Unsayable(f'{what}; match = "exact" could say it')

    def fact(self, feature: Feature) -> _Fact:
        """Return which axis a fact is of; raises _Unsayable where it is not one."""
        args = self.spec.schema.args
        if feature.arg >= len(args):
            raise _Unsayable(f"argument {feature.arg} is read, and the op has {len(args)}")
        name, fact = args[feature.arg].name, feature.fact
        if fact == "scalar":
            return self.of_axis(name, f"the value of '{name}'")
        if not args[feature.arg].is_tensor:
            raise _Unsayable(f"argument {feature.arg} is a tensor there, and '{name}' is not")
        variants = next(arg.variants for arg in self.spec.args if arg.name == name)
        if fact in ("dtype_size", "dtype_cat"):
            dtypes = {variant.dtype.text for variant in variants if variant.dtype is not None}
            number = _category if fact == "dtype_cat" else lambda value: element_size(str(value))
            return self.constant_or_axis(dtypes, f"the dtype of '{name}'", number)
        shapes = [variant.shape or () for variant in variants]
        spread = any(dim.spread for shape in shapes for dim in shape)
        if fact == "numel":
            return self.of_axis(f"{name}.numel()", f"how many elements '{name}' has")
        if spread or len({len(shape) for shape in shapes}) != 1:
            what = f"'{name}' has any number of dimensions"
            raise _Unsayable(f"{what}, so that {fact} is not an axis; give it a shape in [args]")
        if fact == "ndim":
            return _constant(len(shapes[0]))
        place = int(fact.removeprefix("dim"))
        if place >= len(shapes[0]):
            return _constant(0)
        texts = {shape[place].expr.text for shape in shapes}
        return self.constant_or_axis(texts, f"size {place} of '{name}'", None)

    def constant_or_axis(
        self, texts: set[str], what: str, number: Callable[[Scalar], float] | None
    ) -> _Fact:
        """Return the fact that an entry of [args] is: a number, a dtype, or an axis."""
        text = min(texts, default="")
        if len(texts) == 1 and (text.isdecimal() or (number is not None and not self.has(text))):
            return _constant(int(text) if number is None else number(text))
        if len(texts) != 1:
            raise _Unsayable(f"{what} is not one axis in [args]")
        return self.of_axis(text, what, number)

    def has(self, axis: str) -> bool:
        return any(found.name == axis for found in self.spec.axes)

    def of_axis(
        self, text: str, what: str, number: Callable[[Scalar], float] | None = None
    ) -> _Fact:
        """Return the fact that is an axis, by its name or its expression."""
        for axis in self.spec.axes:
            if text in (axis.name, axis.expr.text):
                kind = self.spec.axis_types[axis.name].kind
                if number is None and kind != "whole":
                    raise _Unsayable(f"axis '{axis.name}' is compared, and is not a whole number")
                return _Fact(axis=axis.name, number=number or _whole, is_axis=number is None)
        name = f' that is "{text}"' if text else ""
        raise _Unsayable(f"{what} is compared, and is no axis; give it one{name}, with a rule")

    def candidates(self, axis: str) -> Sequence[Scalar]:
        """Return the values of an axis that together stand for all that calls can have.

        Of one that is matched exactly there are none: its values are filled in.
        """
        bounds = sorted(self.thresholds.get(axis, ()))
        rule = self.rule(axis)
        if rule.match == "exact" and not bounds:
            return [None]
        if (
            not bounds
            and rule.match in ("nearest", "ceil", "floor", "ignore")
            and not _misses(rule)
        ):
            return [next(iter(cases_of(self.spec, "tune"))).values[axis]]
        what = f"axis '{axis}' is compared with {', '.join(map(str, bounds))}"
        match rule.match, rule.inexact:
            case ("ranges", None) if {*bounds} <= {*rule.bounds}:
                return [*rule.bounds, rule.bounds[-1] + 1]
            case ("ranges", None):
                raise _Unsayable(f"{what}; write bounds = {sorted({*bounds, *rule.bounds})}")
            case ("ceil", None) if not _misses(rule):
                return [*bounds, bounds[-1] + 1]
            case ("floor", None) if not _misses(rule):
                return [bounds[0], *(bound + 1 for bound in bounds)]
            case ("nearest", None) | ("nearest" | "ceil" | "floor", "floor") if not _misses(rule):
                return sorted({value for bound in bounds for value in (bound, bound + 1)})
        if not bounds:
            raise _Unsayable(f"axis '{axis}' is for any value; write match = \"ignore\"")
        said = f"match = {shown(rule.match)}" + " with its misses" * _misses(rule)
        said += "" if rule.inexact is None else f" with inexact = {shown(rule.inexact)}"
        wanted = f'match = "ranges" with bounds = {bounds}'
        raise _Unsayable(f"{what}, which {said} cannot say; write {wanted}")

    def cases(
        self, tree: Split | int, candidates: Mapping[str, Sequence[Scalar]]
    ) -> Iterator[TunedCase]:
        """Yield a case for each combination of values."""
        for filling in self.fillings:
            for row in itertools.product(*candidates.values()):
                key = {**dict(zip(candidates, row, strict=True)), **filling}
                yield TunedCase(key=key, config=self.leaf(tree, key))

    def leaf(self, tree: Split | int, key: Mapping[str, Scalar]) -> int:
        """Return the config that a tree gives calls with these values."""
        while isinstance(tree, Split):
            fact = self.facts[tree.feature]
            number = fact.number(None if fact.axis is None else key[fact.axis])
            tree = tree.low if number <= tree.threshold else tree.high
        return tree


def _misses(rule: Rule) -> bool:
    """Whether a rule leaves numbers without a config, however many are tuned."""
    return rule.max is not None or "miss" in (rule.over, rule.under)


def _whole(value: Scalar) -> float:
    assert isinstance(value, int)  # what the axis is
    return value


def _constant(value: float) -> _Fact:
    return _Fact(axis=None, number=lambda _: value, is_axis=False)


def _category(value: Scalar) -> float:
    """Return the number that Helion gives a kind of dtypes, in helion/autotuner/aot_kernel.py."""
    name = str(value)
    if name == "bool":
        return 0
    if re.fullmatch(r"u?int\d+", name):
        return 1
    return 2 if name in ("float16", "bfloat16", "float32", "float64") else 4
