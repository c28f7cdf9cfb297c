"""vLLM's config files: their JSON text <-> the tuned cases of one kernel on one platform.

The layout is that of vLLM 0.33.0, an array of entries with a key and a config; a key is an object
of axes, by vLLM's names, and their values. Releases before had an object, from keys that are texts
to configs, and the oldest one file for all platforms of a kernel; those are refused.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cached_property, partial
from typing import Any, Final

from attrs import evolve, field, frozen

from kernelpkg.configs.store import ConfigFile, TunedCase, config_id, config_problems, shown_json
from kernelpkg.errors import PackError, Problem, pack_error, quoted, suggestion
from kernelpkg.manifest.cases import cases_of, show
from kernelpkg.manifest.document import JsonPath, json_lines, parse_json, unreadable_json
from kernelpkg.manifest.helion_config import ORDER, Config, Tunables, tunables_of
from kernelpkg.manifest.spec import AxisType, CaseKey, KernelSpec, PackSpec, Scalar
from kernelpkg.packs.routes import axis_name_problems

MARK: Final = "default"
"""What some keys of vendored files name, beside the sizes that are 1.

Their entries are copies of the default case: Helion compiles calls with such sizes apart.
"""

OLD_LAYOUT: Final = "is of a vLLM before 0.33; import the configs of vLLM 0.33 instead"
"""How a problem ends whose file has another layout than the one that is read."""

_LAST: Final = len(ORDER)


@frozen(kw_only=True, slots=False)
class KeyAxes:
    """The axes that keys of one kernel name, with their types, in the order of the rules.

    `names` has our names by vLLM's, where they differ; of several for one axis, those of older
    releases come first, and the last is the one that is written. `fillings` are the values that
    axes with a default have together in the cases that are tuned.
    """

    kernel: str
    types: Mapping[str, AxisType]
    defaults: Mapping[str, Scalar] = field(factory=dict)
    names: Mapping[str, str] = field(factory=dict)
    fillings: Sequence[Mapping[str, Scalar]] = ()
    tunables: Tunables = tuple

    @cached_property
    def theirs(self) -> Mapping[str, str]:
        """vLLM's names by ours, where they differ."""
        return {ours: name for name, ours in self.names.items()}

    @cached_property
    def known(self) -> tuple[str, ...]:
        """All names that an axis can have in a key, in alphabetical order."""
        return tuple(sorted({*self.types, *self.names}))

    def is_marked(self, key: Mapping[str, object]) -> bool:
        """Whether a key is one of the copies that vendored files have of the default case."""
        return key.get(MARK) is True and MARK not in self.known


def key_axes(spec: KernelSpec, pack: PackSpec) -> KeyAxes:
    """Return what keys of a kernel of a pack may say; raises PackError for wrong names of axes."""
    wrong = axis_name_problems(pack, spec)
    if wrong:
        raise PackError(problems=wrong)
    tuned = [case.values for case in cases_of(spec, "tune")]
    return KeyAxes(
        kernel=spec.name,
        types={axis: spec.axis_types[axis] for axis in spec.key_axes},
        defaults=spec.defaults,
        names=pack.vllm_axes.get(spec.name, {}),
        fillings=[{axis: values[axis] for axis in spec.defaults} for values in tuned],
        tunables=partial(tunables_of, spec),
    )


def dumps(file: ConfigFile, axes: Collection[str], names: Mapping[str, str] = {}) -> str:
    """Return a file as vLLM's own config manager writes it, fields in the order of Helion.

    `axes` is the order of the axes in a key, which are the cases' own; `names` has vLLM's names of
    axes by ours, where they differ.
    """
    entries = [
        {
            "key": {names.get(axis, axis): case.key[axis] for axis in axes if axis in case.key},
            "config": dict(
                sorted(
                    file.configs[case.config].items(),
                    key=lambda item: (ORDER.get(item[0], _LAST), item[0]),
                )
            ),
        }
        for case in file.cases
    ]
    return json.dumps(entries, indent=2) + "\n"


def with_vllm_keys(file: ConfigFile, defaults: Mapping[str, Scalar]) -> ConfigFile:
    """Return a file with the keys that vLLM's has: the same axes in all, none that was filled in.

    An axis that was filled in when the file was read, and that tells configs apart by now, stays.
    """
    named = dict.fromkeys(axis for case in file.cases for axis in case.key)
    cases = [
        evolve(case, key={axis: case.key.get(axis, defaults.get(axis)) for axis in named})
        if case.key
        else case
        for case in file.cases
    ]
    filled = {text for text in file.tuned_with.get("filled", "").split(", ") if "=" in text}
    axes = [axis for axis in named if axis in {text.partition("=")[0] for text in filled}]
    for axis in axes if len(axes) < len(named) else ():  # a key without axes is the default's
        known = all(f"{axis}={show(case.key[axis])}" in filled for case in cases if case.key)
        found: dict[object, TunedCase] = {}
        for case in cases:
            rest = {name: value for name, value in case.key.items() if name != axis}
            other = found.setdefault(tuple(rest.values()), evolve(case, key=rest))
            known = known and other.config == case.config
        cases = [*found.values()] if known else cases
    return evolve(file, cases=tuple(cases))


def loads(text: str, shown: str, axes: KeyAxes, *, origin: str, platform: str) -> ConfigFile:
    """Read the file of one platform.

    Axes that the keys lack are filled in as they are tuned, a case for each of their values, which
    `tuned_with` records beside the origin. `shown` is the path in messages. Raises PackError with
    every problem of the text.
    """
    try:
        document, repeated = parse_json(text)
        json.dumps(document, ensure_ascii=False, indent=2).encode()  # what is read can be written
    except (ValueError, RecursionError) as error:
        line, what = unreadable_json(error, text)
        if isinstance(error, UnicodeEncodeError):
            what = "the file has half of a surrogate pair, which is not text"
        raise pack_error(shown, "KP820", f"{what}; restore it", line) from error
    reading = _Reading(axes=axes)
    entries = reading.entries(document)
    file = reading.file(entries, {"origin": origin}, platform)
    if not (repeated or reading.found):
        return file
    lines, again = json_lines(text)
    problems = [
        Problem(path=shown, line=_line(lines, at), code=code, message=message)
        for at, code, message in reading.found
    ]
    for at, line in again:
        message = f"{quoted(str(at[-1]))} is given twice; keep one of them"
        problems.append(Problem(path=shown, line=line, code="KP821", message=message))
    raise PackError(problems=tuple(problems))


@frozen(kw_only=True)
class _Entry:
    """One entry of a file: what messages call it, where its key is, its key and its config."""

    label: str
    at: JsonPath
    key: CaseKey
    config: Config


@frozen(kw_only=True)
class _Reading:
    """One reading of a file: all that is wrong is collected, with its place in the document."""

    axes: KeyAxes
    found: list[tuple[JsonPath, str, str]] = field(factory=list)
    told: set[str] = field(factory=set)
    copies: list[_Entry] = field(factory=list)

    def add(self, at: JsonPath, code: str, problem: str) -> None:
        self.found.append((at, code, problem))

    def once(self, at: JsonPath, code: str, what: str, problem: str) -> None:
        """Add a problem that many keys of a file can have, at the first of them."""
        if what not in self.told:
            self.told.add(what)
            self.add(at, code, problem)

    def entries(self, document: object) -> list[_Entry]:
        """Return the entries of a document whose keys are sound."""
        if isinstance(document, list) and document:
            found = (self.entry((at,), f"entry {at}", entry) for at, entry in enumerate(document))
            return [entry for entry in found if entry is not None]
        if not isinstance(document, dict | list):
            wanted = "an array of entries is expected"
            self.add((), "KP821", f"{wanted}, not {shown_json(document)}")
        elif not document:
            self.add((), "KP821", "there are no entries; remove what is empty")
        elif isinstance(document, dict) and document.keys() >= {"edition", "kernel", "cases"}:
            self.add((), "KP820", "the file is kernelpkg's own; vLLM's are arrays of entries")
        else:
            self.add((), "KP822", f"the layout, an object from keys that are texts, {OLD_LAYOUT}")
        return []

    def file(self, entries: Sequence[_Entry], made: dict[str, str], platform: str) -> ConfigFile:
        """Make the file of sound entries, which is of use only if nothing is wrong."""
        fillings = self.fillings([entry for entry in entries if entry.key])
        first: dict[tuple[Scalar, ...], _Entry] = {}
        places: dict[str, int] = {}
        configs: list[Config] = []
        cases = []
        for entry in entries:
            row = tuple(entry.key.get(axis) for axis in self.axes.types) if entry.key else ()
            other = first.setdefault(row, entry)
            if other is not entry:
                problem = f"has the key of {other.label} too, and vLLM takes the later one"
                self.add(entry.at, "KP825", f"{entry.label}: {problem}; keep one of them")
            place = places.setdefault(config_id(entry.config), len(configs))
            if place == len(configs):
                configs.append(entry.config)
            for filling in fillings if entry.key else [{}]:
                values = {**filling, **entry.key}
                key = {axis: values.get(axis) for axis in self.axes.types} if values else {}
                cases.append(TunedCase(key=key, config=place))
        self.check_copies(first.get(()))
        filled = [f"{axis}={show(f[axis])}" for axis in fillings[0] for f in fillings]
        if filled:
            made["filled"] = ", ".join(dict.fromkeys(filled))
        return ConfigFile(
            kernel=self.axes.kernel,
            platform=platform,
            tuned_with=made,
            configs=tuple(configs),
            cases=tuple(cases),
        )

    def check_copies(self, default: _Entry | None) -> None:
        """Report entries that vendoring copies from the default case, and that are not copies."""
        for copy in self.copies:
            if default is None or config_id(copy.config) != config_id(default.config):
                problem = f"is marked '{MARK}', and has not the config of the key {{}}"
                self.add(copy.at, "KP823", f"{copy.label}, key: {problem}; vendor the pack again")

    def fillings(self, entries: Sequence[_Entry]) -> list[dict[str, Scalar]]:
        """Return the values of the axes that keys lack; the keys of a file name the same axes.

        vLLM takes a config whatever these are, and so do calls of each of them that is tuned.
        """
        if not entries:
            return [{}]
        first = entries[0]
        for entry in entries:
            if entry.key.keys() != first.key.keys():
                what = _listed(entry.key)
                problem = f"names {what}, and {first.label} {_listed(first.key)}"
                message = f"{entry.label}, key: {problem}; keys of one file name the same axes"
                self.once(entry.at, "KP823", what, message)
        lacking = [axis for axis in self.axes.types if axis not in first.key]
        for axis in lacking:
            if axis not in self.axes.defaults:
                problem = f"axis '{axis}' is missing and has no default"
                message = f"{first.label}, key: {problem}; give it one in [inputs] default"
                self.add(first.at, "KP823", message)
        found = {
            tuple(map(show, filling.values())): filling
            for values in self.axes.fillings or [self.axes.defaults]
            for filling in [{axis: values.get(axis) for axis in lacking}]
        }
        return [*found.values()]

    def entry(self, at: JsonPath, label: str, entry: object) -> _Entry | None:
        """Return an entry of the array, if its parts are what they must be."""
        if not isinstance(entry, dict):
            wanted = "an object with 'key' and 'config' is expected"
            self.add(at, "KP821", f"{label}: {wanted}, not {shown_json(entry)}")
            return None
        for name in entry.keys() - {"key", "config"}:
            hint = suggestion(name, ("key", "config")) or "; entries have 'key' and 'config'"
            self.add((*at, name), "KP821", f"{label}: field {quoted(name)} is not known{hint}")
        for name in ("key", "config"):
            if name not in entry:
                self.add(at, "KP821", f"{label}: field '{name}' is missing; it must be an object")
        key, config = entry.get("key", {}), entry.get("config", {})
        # As those of our own files.
        for place, code, problem in config_problems(config, self.axes.tunables):
            self.add((*at, "config", *place), code, f"{label}: {problem}")
        at = (*at, "key")
        if not isinstance(key, dict):
            wanted = "field 'key' must be an object"
            self.add(at, "KP821", f"{label}: {wanted}, not {shown_json(key)}")
        elif isinstance(config, dict) and self.axes.is_marked(key):
            self.copies.append(_Entry(label=label, at=at, key={}, config=config))
        else:
            found = self.key(at, label, key)
            if found is not None and "key" in entry and isinstance(config, dict):
                return _Entry(label=label, at=at, key=found, config=config)
        return None

    def key(self, at: JsonPath, label: str, key: Mapping[str, Any]) -> dict[str, Scalar] | None:
        """Return a key by our names of its axes, or None where something is wrong with it."""
        found: dict[str, Scalar] = {}
        sound = True
        for name, value in key.items():
            axis = self.axes.names.get(name, name)
            if axis not in self.axes.types:
                hint = suggestion(name, self.axes.known)
                known = hint or f"; known axes are {', '.join(self.axes.known) or 'none'}"
                message = f"{label}, key: axis {quoted(name)} has no rule{known}"
                self.once((*at, name), "KP823", name, message)
                sound = False
                continue
            if isinstance(value, dict | list):
                wanted = "must be a number, text, true, false or null"
                wrong: str | None = f"{wanted}, not {shown_json(value)}"
            else:
                wrong = self.axes.types[axis].problem(value)
            if wrong is not None:
                self.add((*at, name), "KP824", f"{label}, key: axis '{name}' {wrong}")
            elif axis in found:
                problem = f"axis '{axis}' is given twice; keep one of its names"
                self.add((*at, name), "KP825", f"{label}, key: {problem}")
            found[axis] = value
            sound = sound and wrong is None
        return found if sound else None


def _line(lines: Mapping[JsonPath, int], at: JsonPath) -> int:
    """Return the line of a value, or of what it is a part of: parts of texts have none."""
    return next((lines[at[:end]] for end in range(len(at), 0, -1) if at[:end] in lines), 0)


def _listed(axes: Iterable[str]) -> str:
    return ", ".join(sorted(axes))
