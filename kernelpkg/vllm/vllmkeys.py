"""The keys of vLLM's config files: what vLLM calls the axes of a kernel, and their values.

Keys are objects of axes and values. Releases before `CaseKey` wrote them as texts, made of the
same names and values: "intermediate_4096_numtokens_256".
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Final

from attrs import field, frozen

from kernelpkg.configs.store import shown_json
from kernelpkg.errors import quoted, suggestion
from kernelpkg.expr.language import DTYPES
from kernelpkg.expr.types import WORDS, ValueType, infer, value_problem
from kernelpkg.manifest.opschema import scope_of
from kernelpkg.manifest.spec import KernelSpec, Scalar

MARK: Final = "default"
"""What some keys of vendored files name, beside the sizes that are 1.

Their entries are copies of the default case: Helion compiles calls with such sizes apart.
"""

_VALUES: Final[Mapping[ValueType, str]] = {
    "whole": r"-?\d{1,18}",
    "number": r"-?\d{1,18}(?:\.\d{1,18})?(?:e[+-]?\d{1,2})?",
    "flag": "True|False|true|false",
    "dtype": "|".join(sorted(DTYPES, key=len, reverse=True)),
}
"""How values stand in keys that are texts."""


@frozen(kw_only=True, slots=False)
class KeyAxes:
    """The axes that keys of one kernel name, with their types, in the order of the rules.

    `names` has our names by vLLM's, where they differ; of several for one axis, those of older
    releases come first, and the last is the one that is written. Axes of `nullable` have no value
    where an optional argument is absent.
    """

    kernel: str
    types: Mapping[str, ValueType | None]
    nullable: frozenset[str] = frozenset()
    defaults: Mapping[str, Scalar] = field(factory=dict)
    names: Mapping[str, str] = field(factory=dict)

    @cached_property
    def theirs(self) -> Mapping[str, str]:
        """vLLM's names by ours, where they differ."""
        return {ours: name for name, ours in self.names.items()}

    @cached_property
    def known(self) -> tuple[str, ...]:
        """All names that an axis can have in a key, in alphabetical order."""
        return tuple(sorted({*self.types, *self.names}))

    @cached_property
    def _written(self) -> Mapping[str, re.Pattern[str]]:
        """What a name and its value look like in a text."""
        return {
            name: re.compile(rf"{re.escape(name)}_({_VALUES[kind]})(?:_(?=.)|\Z)", re.ASCII)
            for name in self.known
            if (kind := self.types.get(self.ours(name))) is not None
        }

    def is_marked(self, key: Mapping[str, object]) -> bool:
        """Whether a key is one of the copies that vendored files have of the default case."""
        return key.get(MARK) is True and MARK not in self.known

    def ours(self, name: str) -> str:
        """Return our name of an axis, which is vLLM's unless `names` has another."""
        return self.names.get(name, name)

    def name_problems(self) -> Iterator[tuple[str, str]]:
        """Yield (vLLM's name, message) for what is wrong with `names`."""
        for name, ours in self.names.items():
            if ours not in self.types:
                remedy = suggestion(ours, self.types) or f"; it has {_listed(self.types)}"
                yield name, f"kernel '{self.kernel}' has no rule for axis '{ours}'{remedy}"
            elif name != ours and name in self.types and name not in self.theirs:
                clash = f"'{name}' stands for axis '{ours}', and axis '{name}' has no other name"
                yield name, f"{clash}; give that one a name too"

    def value_problem(self, axis: str, value: object) -> str | None:
        """Say why an axis of ours cannot have a value, or return None."""
        if isinstance(value, dict | list):
            return f"must be a number, text, true, false or null, not {shown_json(value)}"
        if value is None and axis not in self.nullable:
            return "cannot be null, for it has a value in every call"
        wanted = self.types[axis]
        if isinstance(value, str) and wanted not in ("dtype", None):
            return f"has value {quoted(value)}, which is a text, and must be {WORDS[wanted]}"
        return None if value is None else value_problem(value, wanted)

    def split(self, text: str) -> list[tuple[str, Scalar]] | str:
        """Split a key that is a text into names and values, or say why it cannot be.

        Nothing is guessed: all of it must be names that are known and values of their types, and
        in one way only.
        """
        ends = [text]
        found = list(itertools.islice(self._splits(text, frozenset(), ends), 2)) if text else []
        if len(found) == 1:
            return found[0]
        if found:
            return "can be split into axes and values in several ways"
        rest = min(ends, key=len)
        where = f" at {quoted(rest)}" if rest != text else ""
        return f"cannot be split into axes and values{where}"

    def _splits(
        self, text: str, taken: frozenset[str], ends: list[str]
    ) -> Iterator[list[tuple[str, Scalar]]]:
        """Yield all ways to split a text without the axes that are taken; `ends` has the rests."""
        ends.append(text)
        if not text:
            yield []
        for name, pattern in self._written.items():
            match = pattern.match(text) if self.ours(name) not in taken else None
            if match is not None:
                further = taken | {self.ours(name)}
                for others in self._splits(text[match.end() :], further, ends):
                    yield [(name, _value(match[1])), *others]


def key_axes(spec: KernelSpec, names: Mapping[str, str]) -> KeyAxes:
    """Return what keys of a kernel may say, given our names of its axes by vLLM's."""
    scope = scope_of(spec.schema, {})
    exprs = {axis.name: axis.expr for axis in spec.axes}
    return KeyAxes(
        kernel=spec.name,
        types={axis: infer(exprs[axis], scope)[0] for axis in spec.key_axes},
        nullable=frozenset(
            axis
            for axis in spec.key_axes
            if exprs[axis].tested is None and not scope.optional.isdisjoint(exprs[axis].names())
        ),
        defaults=spec.defaults,
        names=names,
    )


def _value(text: str) -> Scalar:
    """Read a value that looks like one of the types of axes."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    if text in DTYPES:
        return text
    return int(text) if text.lstrip("-").isdigit() else float(text)


def _listed(names: Mapping[str, object]) -> str:
    return ", ".join(names) or "none"
