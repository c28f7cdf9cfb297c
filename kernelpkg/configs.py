"""The store: configs/<kernel>/<platform>.json <-> tuned cases and their configs."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from attrs import field, frozen

from kernelpkg import jsontext
from kernelpkg.errors import PackError, Problem, suggestion
from kernelpkg.fields import FIELDS, LIMITED, Config, wanted_instead
from kernelpkg.jsontext import JsonPath
from kernelpkg.matching import identity
from kernelpkg.spec import CaseKey, Scalar

EDITION: Final = 1
"""The edition of config files that this version reads and writes."""

TUNED_WITH: Final = (
    *("helion", "triton", "torch", "driver", "gpu", "source", "effort", "date"),
    *("origin", "filled"),
)
"""What a config file may say of how it was made; all of it is text.

A file that was imported has its `origin`, and in `filled` the axes that its keys lacked there.
"""


@frozen(kw_only=True)
class TunedCase:
    """A case key, the position of its config in the file, and the milliseconds it was measured."""

    key: CaseKey
    config: int
    ms: float | None = None


@frozen(kw_only=True)
class ConfigFile:
    """The tuned cases of one kernel on one platform; `tuned_with` says what made them."""

    kernel: str
    platform: str
    tuned_with: Mapping[str, str] = field(factory=dict)
    configs: tuple[Config, ...] = ()
    cases: tuple[TunedCase, ...] = ()

    def counts(self) -> tuple[int, int]:
        """How many cases are tuned, and how many distinct configs they have."""
        used = {case.config for case in self.cases}
        return len(self.cases), _distinct([self.configs[place] for place in used])


_CANONICAL: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode

_FILE: dict[str, type] = {
    "edition": int,
    "kernel": str,
    "platform": str,
    "tuned_with": dict,
    "configs": list,
    "cases": list,
}
_CASE: dict[str, type] = {"key": dict, "config": int, "ms": float}
_TYPES: dict[type, str] = {
    int: "a whole number",
    float: "a number",
    str: "a text",
    dict: "an object",
    list: "an array",
}


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
            configs=tuple(document["configs"]),
            cases=tuple(TunedCase(**case) for case in document["cases"]),
        )


def platforms_of(root: Path, kernel: str) -> tuple[str, ...]:
    """Return the platforms that a kernel has config files for, by name.

    Raises PackError where their directory cannot be read.
    """
    try:
        names = os.listdir(root / "configs" / kernel)
    except (FileNotFoundError, NotADirectoryError):
        return ()
    except OSError as error:
        message = f"directory cannot be read: {error.strerror}; correct its permissions"
        raise _failed(f"configs/{kernel}", 0, "KP501", message) from None
    return tuple(sorted(name.removesuffix(".json") for name in names if name.endswith(".json")))


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
        + ("}" if case.ms is None else f', "ms": {_dumps(case.ms)}}}')
        for case in file.cases
    ]
    head = {"edition": EDITION, "kernel": file.kernel, "platform": file.platform}
    lines = [f"  {_dumps(name)}: {_dumps(value)}," for name, value in head.items()]
    lines += [f'  "tuned_with": {_dumps(dict(file.tuned_with))},']
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
) -> ConfigFile:
    """Return the content of a config file, checked against the key axes of its kernel.

    `shown` is the path in messages. Raises PackError with every problem of the file.
    """
    return store(path, shown, kernel, platform, axes, defaults).content()


def store(
    path: Path,
    shown: str,
    kernel: str,
    platform: str,
    axes: Sequence[str],
    defaults: Mapping[str, Scalar],
    *,
    read_bytes: Callable[[Path], bytes] = Path.read_bytes,
) -> StoredFile:
    """Read and check a config file as `read` does, and keep its text."""
    text = ""
    try:
        text = read_bytes(path).decode()
        document, repeated = jsontext.parse(text)
    except (OSError, ValueError, RecursionError) as error:
        line, what = jsontext.unreadable(error, text)
        message = f"{what}; restore it or tune again"
        raise _failed(shown, line, "KP501", message) from error
    reading = _Reading(axes=tuple(axes), defaults=defaults)
    reading.file(document, kernel, platform)
    if not (repeated or reading.found):
        return StoredFile(kernel=kernel, platform=platform, counts=_counts(document), text=text)
    lines, again = jsontext.lines(text)
    problems = [
        Problem(path=shown, line=lines.get(at, 0), code=code, message=message)
        for at, code, message in reading.found
    ]
    for at, line in again:
        message = f"{_place(at[:-1])}field '{at[-1]}' is given twice; keep one of them"
        problems.append(Problem(path=shown, line=line, code="KP502", message=message))
    raise PackError(problems=tuple(problems))


def _counts(document: Mapping[str, Any]) -> tuple[int, int]:
    """Count the cases of a document, and the distinct configs that they have."""
    used = {case["config"] for case in document["cases"]}
    return len(document["cases"]), _distinct([document["configs"][place] for place in used])


def _distinct(found: Iterable[Config]) -> int:
    """Count configs that differ; those whose usual fields differ need no id, which takes 6 us."""
    alike: dict[str, list[Config]] = {}
    for config in found:
        usual = [config.get(name) for name in ("block_sizes", "num_warps", "num_stages")]
        alike.setdefault(repr(usual), []).append(config)
    return sum(len(set(map(config_id, group))) if group[1:] else 1 for group in alike.values())


def config_problems(config: object) -> Iterator[tuple[tuple[str, ...], str, str]]:
    """Yield (place in the config, code, message) for what is wrong with a config of a file."""
    if not isinstance(config, dict):
        yield (), "KP502", f"an object is expected, not {shown_json(config)}"
        return
    for name in config.keys() - FIELDS:
        yield (name,), "KP502", f"field '{name}' is not known{suggestion(name, sorted(FIELDS))}"
    for name in LIMITED & config.keys():
        wanted = wanted_instead(name, config[name])
        if wanted is not None:
            yield (name,), "KP508", f"{name} is {shown_json(config[name])}; it must be {wanted}"


def _failed(shown: str, line: int, code: str, message: str) -> PackError:
    return PackError(problems=(Problem(path=shown, line=line, code=code, message=message),))


def _dumps(value: object) -> str:
    return json.dumps(value, sort_keys=True, allow_nan=False, ensure_ascii=False)


def _block(lines: Sequence[str]) -> str:
    """Return a JSON array with an entry per line."""
    return "[\n    " + ",\n    ".join(lines) + "\n  ]" if lines else "[]"


def replace_text(path: Path, text: str) -> None:
    """Put a text in a file's place at once, through a file beside it that a failure removes."""
    replace_texts({path: text})


def replace_texts(texts: Mapping[Path, str]) -> None:
    """Put texts in their files' places, each at once; none where one of them cannot be written.

    All are written beside their places before the first of them is moved there. A failure leaves
    no file and no directory behind.
    """
    beside = {path: path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp") for path in texts}
    above = {parent for path in texts for parent in path.parents if not parent.exists()}
    try:
        for path, text in texts.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            with beside[path].open("x", encoding="utf-8", newline="\n") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
        for path in texts:
            os.replace(beside[path], path)
    except BaseException:
        for left in beside.values():
            with contextlib.suppress(OSError):
                left.unlink()
        for made in sorted(above, reverse=True):
            with contextlib.suppress(OSError):  # one that is no longer empty, or was not made
                made.rmdir()
        raise


def _place(at: JsonPath) -> str:
    """Return the start of a message about a part of the file."""
    if len(at) > 1 and at[0] in ("cases", "configs"):
        key = ", key" if at[2:3] == ("key",) else ""
        return f"{str(at[0])[:-1]} {at[1]}{key}: "
    return "tuned_with: " if at[:1] == ("tuned_with",) else ""


def shown_json(value: object) -> str:
    """Return a value as it stands in the file, shortened."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:37]}..."


@frozen(kw_only=True)
class _Reading:
    """One reading of a file: all that is wrong is collected, with its place in the document."""

    axes: tuple[str, ...]
    defaults: Mapping[str, Scalar]
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
        given = self.fields((), document, _FILE, required=_FILE)
        for name, wanted in (("kernel", kernel), ("platform", platform)):
            found = given.get(name, wanted)
            if found != wanted:
                problem = f"the file is of {name} '{found}', but stands in the place of '{wanted}'"
                self.add((name,), "KP505", problem)
        tuned_with = given.get("tuned_with", {})
        configs = given.get("configs", [])
        cases = given.get("cases", [])
        self.fields(("tuned_with",), tuned_with, dict.fromkeys(TUNED_WITH, str))
        for place, config in enumerate(configs):
            self.config(("configs", place), config)
        first: dict[tuple[object, ...], int] = {}
        for place, case in enumerate(cases):
            at = ("cases", place)
            fields = self.fields(at, case, _CASE, required=("key", "config"))
            self.index(at, fields.get("config"), given.get("configs"))
            self.key((*at, "key"), fields.get("key", {}), first)

    def fields(
        self,
        at: JsonPath,
        value: object,
        known: Mapping[str, type],
        required: Iterable[str] = (),
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

    def config(self, at: JsonPath, config: object) -> None:
        """Check one config."""
        for place, code, problem in config_problems(config):
            self.add((*at, *place), code, problem)

    def index(self, at: JsonPath, index: int | None, configs: Sequence[object] | None) -> None:
        """Check the position of a case's config, where both are known."""
        if index is None or configs is None or 0 <= index < len(configs):
            return
        count = f"{len(configs)} configs (0 to {len(configs) - 1})"
        has = count if len(configs) > 1 else "1 config (0)" if configs else "no configs"
        problem = f"config index {index} is out of range; the file has {has}"
        self.add((*at, "config"), "KP503", problem)

    def key(self, at: JsonPath, key: Mapping[str, Scalar], first: dict[Any, int]) -> None:
        """Check the key of a case; `first` holds the cases of the keys so far."""
        before = len(self.found)
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
        place = first.setdefault(tuple(map(identity, row)) if key else None, int(at[1]))
        if place != at[1]:
            self.add(at, "KP504", f"is the key of case {place} too; keep one of them")
