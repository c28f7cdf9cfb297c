"""The store: configs/<kernel>/<platform>.json <-> tuned cases and their configs.

Before: `manifest/kernel`, which knows the axes. After: `configs/selection`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from attrs import field, frozen

from kernelpkg.configs.match import identity
from kernelpkg.errors import PackError, Problem, counted, pack_error, suggestion
from kernelpkg.files import read_plain, replace_text
from kernelpkg.manifest.cases import show
from kernelpkg.manifest.document import JsonPath, json_lines, parse_json, unreadable_json
from kernelpkg.manifest.helion_config import FIELDS, LIMITED, Config, Tunables, wanted_instead
from kernelpkg.manifest.spec import CaseKey, KernelSpec, Scalar

EDITION: Final = 1
"""The edition of config files that this version reads and writes."""

TUNED_WITH: Final = (
    "helion", "triton", "torch", "driver", "gpu", "source", "effort", "date", "origin", "filled",
)  # fmt: skip
"""What a config file may say of how it was made; all of it is text.

A file that was imported has its `origin`, and in `filled` the axes that its keys lacked there.
"""


@frozen(kw_only=True)
class TunedCase:
    """A case key, and the position of its config in the file.

    Times are in milliseconds, of one run: `ms` of the config, `old_ms` of the one that it replaced
    and `default_ms` of the default config. `run` is the place of that run among those of the file.
    """

    key: CaseKey
    config: int
    ms: float | None = None
    old_ms: float | None = None
    default_ms: float | None = None
    run: int | None = None


@frozen(kw_only=True)
class ConfigFile:
    """The tuned cases of one kernel on one platform.

    `tuned_with` says what made them, and `runs` what made those that name one of them.
    """

    kernel: str
    platform: str
    tuned_with: Mapping[str, str] = field(factory=dict)
    runs: tuple[Mapping[str, str], ...] = ()
    configs: tuple[Config, ...] = ()
    cases: tuple[TunedCase, ...] = ()

    def counts(self) -> tuple[int, int]:
        """How many cases are tuned, and how many distinct configs they have."""
        return _counts([case.config for case in self.cases], self.configs)

    def made_with(self, case: TunedCase) -> Mapping[str, str]:
        """Return what is known of how a case was tuned."""
        return self.tuned_with if case.run is None else self.runs[case.run]


_CANONICAL: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode

_FILE: dict[str, type] = {
    "edition": int, "kernel": str, "platform": str, "tuned_with": dict,
    "runs": list, "configs": list, "cases": list,
}  # fmt: skip
_REQUIRED: Final = tuple(name for name in _FILE if name != "runs")
_TIMES: Final = ("ms", "old_ms", "default_ms")
_CASE: dict[str, type] = {"key": dict, "config": int, "run": int, **dict.fromkeys(_TIMES, float)}
_TYPES: dict[type, str] = {
    int: "a whole number", float: "a number", str: "a text", dict: "an object", list: "an array",
}  # fmt: skip


@frozen(kw_only=True)
class StoredFile:
    """A config file that was read and checked, kept as its text: a fifth of what it decodes to."""

    kernel: str
    platform: str
    _counts: tuple[int, int]
    _text: str = field(repr=False)

    def counts(self) -> tuple[int, int]:
        """How many cases are tuned, and how many distinct configs they have."""
        return self._counts

    def content(self) -> ConfigFile:
        """Decode the text; nothing is read from disk."""
        document = json.loads(self._text)
        return ConfigFile(
            kernel=self.kernel,
            platform=self.platform,
            tuned_with=document["tuned_with"],
            runs=tuple(document.get("runs", ())),
            configs=tuple(document["configs"]),
            cases=tuple(TunedCase(**case) for case in document["cases"]),
        )


def identity_of(spec: KernelSpec, key: CaseKey) -> tuple[object, ...]:
    """Return what is equal for equal keys, with the defaults filled in; of {}, that is nothing."""
    if not key:
        return ()
    return tuple(identity(key.get(axis, spec.defaults.get(axis))) for axis in spec.key_axes)


def shown_key(key: Mapping[str, Scalar]) -> str:
    """Return a case key, or other values of axes, for people."""
    return ", ".join(f"{axis}={show(value)}" for axis, value in key.items())


def config_id(config: Config) -> str:
    """Return a text that is equal for equal configs, whatever the order of their fields."""
    return _CANONICAL(config)


def dumps(file: ConfigFile) -> str:
    """Return the text of a file; equal configs become one.

    It follows from the value alone: one line per config and per case, names sorted.
    """
    texts = [_dumps(config) for config in file.configs]
    distinct = list(dict.fromkeys(texts))
    cases = [
        _dumps({"key": dict(case.key)})[:-1]
        + f', "config": {distinct.index(texts[case.config])}'
        + "".join(
            f', "{name}": {_dumps(value)}'
            for name in (*_TIMES, "run")
            if (value := getattr(case, name)) is not None
        )
        + "}"
        for case in file.cases
    ]
    head = {"edition": EDITION, "kernel": file.kernel, "platform": file.platform}
    lines = [f"  {_dumps(name)}: {_dumps(value)}," for name, value in head.items()]
    lines += [f'  "tuned_with": {_dumps(dict(file.tuned_with))},']
    if file.runs:
        lines += [f'  "runs": {_block([_dumps(dict(run)) for run in file.runs])},']
    lines += [f'  "configs": {_block(distinct)},', f'  "cases": {_block(cases)}']
    return "\n".join(["{", *lines, "}", ""])


def write(path: Path, file: ConfigFile) -> None:
    """Write a file as a whole or not at all."""
    replace_text(path, dumps(file))


def read(
    path: Path,
    shown: str,
    kernel: str,
    platform: str,
    axes: Sequence[str],
    defaults: Mapping[str, Scalar],
    tunables: Tunables = tuple,
) -> ConfigFile:
    """Return the content of a config file, checked against the key axes of its kernel.

    `shown` is the path in messages. `tunables` says which fields the kernel registers. Raises
    PackError with every problem of the file.
    """
    return store(path, shown, kernel, platform, axes, defaults, tunables).content()


def store(
    path: Path,
    shown: str,
    kernel: str,
    platform: str,
    axes: Sequence[str],
    defaults: Mapping[str, Scalar],
    tunables: Tunables = tuple,
    *,
    read_bytes: Callable[[Path], bytes] = read_plain,
) -> StoredFile:
    """Read and check a config file as `read` does, and keep its text."""
    text = ""
    try:
        text = read_bytes(path).decode()
        document, repeated = parse_json(text)
    except (OSError, ValueError, RecursionError) as error:
        line, what = unreadable_json(error, text)
        message = f"{what}; restore it or tune again"
        raise pack_error(shown, "KP501", message, line) from error
    reading = _Reading(axes=tuple(axes), defaults=defaults, tunables=tunables)
    reading.file(document, kernel, platform)
    if not (repeated or reading.found):
        counts = _counts([case["config"] for case in document["cases"]], document["configs"])
        return StoredFile(kernel=kernel, platform=platform, counts=counts, text=text)
    lines, again = json_lines(text)
    problems = [
        Problem(path=shown, line=lines.get(at, 0), code=code, message=message)
        for at, code, message in reading.found
    ]
    for at, line in again:
        message = f"{_place(at[:-1])}field '{at[-1]}' is given twice; keep one of them"
        problems.append(Problem(path=shown, line=line, code="KP502", message=message))
    raise PackError(problems=tuple(problems))


def _counts(places: Sequence[int], configs: Sequence[Config]) -> tuple[int, int]:
    """Count cases, given by the places of their configs, and the distinct configs that they have.

    Those whose usual fields differ need no id, which takes 6 us.
    """
    alike: dict[str, list[Config]] = {}
    for place in set(places):
        usual = [configs[place].get(name) for name in ("block_sizes", "num_warps", "num_stages")]
        alike.setdefault(repr(usual), []).append(configs[place])
    distinct = (len(set(map(config_id, group))) if group[1:] else 1 for group in alike.values())
    return len(places), sum(distinct)


def config_problems(
    config: object, tunables: Tunables = tuple
) -> Iterator[tuple[tuple[str, ...], str, str]]:
    """Yield (place in the config, code, message) for what is wrong with a config of a file.

    `tunables` says which fields its kernel registers beside Helion's own.
    """
    if not isinstance(config, dict):
        yield (), "KP502", f"an object is expected, not {shown_json(config)}"
        return
    others = config.keys() - FIELDS
    known = tunables() if others else ()
    for name in others.difference(known):
        hint = suggestion(name, sorted({*FIELDS, *known}))
        yield (name,), "KP502", f"field '{name}' is not known{hint}"
    for name in LIMITED & config.keys():
        wanted = wanted_instead(name, config[name])
        if wanted is not None:
            yield (name,), "KP508", f"{name} is {shown_json(config[name])}; it must be {wanted}"


def _dumps(value: object) -> str:
    return json.dumps(value, sort_keys=True, allow_nan=False, ensure_ascii=False)


def _block(lines: Sequence[str]) -> str:
    """Return a JSON array with an entry per line."""
    return "[\n    " + ",\n    ".join(lines) + "\n  ]" if lines else "[]"


def _place(at: JsonPath) -> str:
    """Return the start of a message about a part of the file."""
    if len(at) > 1 and at[0] in ("cases", "configs", "runs"):
        key = ", key" if at[2:3] == ("key",) else ""
        return f"{str(at[0])[:-1]} {at[1]}{key}: "
    return "tuned_with: " if at[:1] == ("tuned_with",) else ""


def shown_json(value: object) -> str:
    """Return a value as it stands in the file, shortened."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:37]}..."


@frozen(kw_only=True)
class _Reading:
    """One reading of a file: all that is wrong is collected, with its place in the document.

    By hand, and not through `manifest.decode`: that takes 0.38 s for the types in 1,000 files of 50
    cases, and this 0.04 s (CPython 3.11, 2026-11-29).
    """

    axes: tuple[str, ...]
    defaults: Mapping[str, Scalar]
    tunables: Tunables
    known: frozenset[str] = field(init=False)
    found: list[tuple[JsonPath, str, str]] = field(factory=list)

    @known.default
    def _known(self) -> frozenset[str]:
        return frozenset(self.axes)

    def add(self, at: JsonPath, code: str, problem: str) -> None:
        self.found.append((at, code, f"{_place(at)}{problem}"))

    def file(self, document: object, kernel: str, platform: str) -> None:
        """Check the document of a file."""
        edition = document.get("edition") if isinstance(document, dict) else None
        if type(edition) is int and edition != EDITION:
            known = f"this version of kernelpkg reads edition {EDITION}"
            self.add(("edition",), "KP507", f"edition {edition} cannot be read; {known}")
            return
        given = self.fields((), document, _FILE, required=_REQUIRED)
        for name, wanted in (("kernel", kernel), ("platform", platform)):
            found = given.get(name, wanted)
            if found != wanted:
                problem = f"the file is of {name} '{found}', but stands in the place of '{wanted}'"
                self.add((name,), "KP505", problem)
        facts, runs = dict.fromkeys(TUNED_WITH, str), given.get("runs", [])
        self.fields(("tuned_with",), given.get("tuned_with", {}), facts)
        for place, run in enumerate(runs):
            self.fields(("runs", place), run, facts)
        for place, config in enumerate(given.get("configs", [])):
            for at, code, problem in config_problems(config, self.tunables):
                self.add(("configs", place, *at), code, problem)
        first: dict[tuple[object, ...], int] = {}
        for place, case in enumerate(given.get("cases", [])):
            fields = self.fields(("cases", place), case, _CASE, required=("key", "config"))
            self.index(place, "config", fields.get("config"), given.get("configs"))
            self.index(place, "run", fields.get("run"), runs)
            self.key(place, fields.get("key", {}), first)

    def fields(
        self, at: JsonPath, value: object, known: Mapping[str, type], required: Iterable[str] = ()
    ) -> dict[str, Any]:
        """Return the fields of an object that are known and of their types."""
        if not isinstance(value, dict):
            self.add(at, "KP502", f"an object is expected, not {shown_json(value)}")
            return {}
        found = {}
        for name, item in value.items():
            if name not in known:
                problem = f"field '{name}' is not known{suggestion(name, known)}"
            elif type(item) in ((int, float) if known[name] is float else (known[name],)):
                found[name] = item
                continue
            else:
                problem = f"field '{name}' must be {_TYPES[known[name]]}, not {shown_json(item)}"
            self.add((*at, name), "KP502", problem)
        for name in required:
            if name not in value:
                problem = f"field '{name}' is missing; it must be {_TYPES[known[name]]}"
                self.add(at, "KP502", problem)
        return found

    def index(
        self, case: int, what: str, index: int | None, entries: Sequence[object] | None
    ) -> None:
        """Check the position of a case's config or run, where both are known."""
        if index is None or entries is None or 0 <= index < len(entries):
            return
        last = f"0 to {len(entries) - 1}" if len(entries) > 1 else "0"
        has = f"{counted(len(entries), what)} ({last})" if entries else f"no {what}s"
        problem = f"{what} index {index} is out of range; the file has {has}"
        self.add(("cases", case, what), "KP503", problem)

    def key(self, case: int, key: Mapping[str, Scalar], first: dict[Any, int]) -> None:
        """Check the key of a case; `first` holds the cases of the keys so far."""
        at, before = ("cases", case, "key"), len(self.found)
        for axis in key.keys() - self.known:
            problem = f"axis '{axis}' has no rule{suggestion(axis, self.axes)}"
            self.add((*at, axis), "KP506", problem)
        for axis, value in key.items():
            if isinstance(value, dict | list):
                problem = f"axis '{axis}' must be a number, text, true, false or null"
                self.add((*at, axis), "KP502", f"{problem}, not {shown_json(value)}")
        row: list[Scalar] = []
        for axis in self.axes if key else ():
            if axis in key:
                row.append(key[axis])
            elif axis in self.defaults:
                row.append(self.defaults[axis])
            else:
                self.add(at, "KP506", f"axis '{axis}' is missing and has no default")
        if len(self.found) > before:
            return
        place = first.setdefault(tuple(map(identity, row)) if key else None, case)
        if place != case:
            self.add(at, "KP504", f"is the key of case {place} too; keep one of them")
