"""Provenance: what a config file says of its tuning, held against source, GPU, date and times."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator, Mapping
from typing import Final

from packaging.version import Version

from kernelpkg.check.config_files import CheckedFile, platform_named
from kernelpkg.configs.platforms import platform_of
from kernelpkg.configs.store import config_id
from kernelpkg.errors import Problem, counted, quoted
from kernelpkg.manifest.spec import PackSpec

SLOWER: Final = 1.1
"""How much slower than what it replaced a config may be recorded as: noise, and pruning."""

_DIGEST: Final = re.compile(r"sha256-[0-9a-f]{64}")
_VERSIONS: Final = ("helion", "triton", "torch")


def fact_findings(
    pack: PackSpec, tuned: CheckedFile, source: str | None, today: datetime.date
) -> Iterator[Problem]:
    """Yield what is wrong with the facts of a file and of its runs.

    `source` is the digest of the kernel's source as it is now, None where it cannot be read.
    """
    for at, facts in _made(tuned):
        yield from _source(tuned, at, facts.get("source"), source)
        yield from _gpu(pack, tuned, at, facts.get("gpu"))
        yield from _date(tuned, at, facts.get("date"), today)
        for tool in _VERSIONS:
            if tool in facts and not _is_version(facts[tool]):
                message = f"{_called(at)}: {tool} is {quoted(facts[tool])}, which is not a version"
                yield tuned.finding("KP227", f"{message}; correct it, or tune again", *at, tool)


def _made(tuned: CheckedFile) -> Iterator[tuple[tuple[str | int, ...], Mapping[str, str]]]:
    """Yield the facts that cases have, with their places; those of no case are not looked at."""
    used = {case.run for case in tuned.file.cases}
    if None in used:
        yield ("tuned_with",), tuned.file.tuned_with
    for place, run in enumerate(tuned.file.runs):
        if place in used:
            yield ("runs", place), run


def _called(at: tuple[str | int, ...]) -> str:
    return " ".join(map(str, at)).replace("runs", "run")


def _cases(tuned: CheckedFile, at: tuple[str | int, ...]) -> str:
    run = at[1] if len(at) > 1 else None
    count = sum(case.run == run for case in tuned.file.cases)
    return counted(count, "case was", "cases were")


def _source(
    tuned: CheckedFile, at: tuple[str | int, ...], then: str | None, now: str | None
) -> Iterator[Problem]:
    many = _cases(tuned, at)
    if then is None:
        message = (
            f"{_called(at)} does not say which source {many} tuned for, so it may have changed "
            "since; tune again"
        )
        yield tuned.finding("KP226", message, *at, severity="unverified")
    elif not _DIGEST.fullmatch(then):
        message = f"{_called(at)}: source is {quoted(then)}, and must be sha256- and 64 hex digits"
        yield tuned.finding("KP227", f"{message}; tune again", *at, "source")
    elif now is not None and then != now:
        message = (
            f"{many} tuned for another source: {tuned.spec.source.file} has changed since "
            f"({then[:15]}… then, {now[:15]}… now), so other configs may be faster now; "
            "tune again"
        )
        yield tuned.finding("KP225", message, *at, "source", severity="unverified")


def _gpu(
    pack: PackSpec, tuned: CheckedFile, at: tuple[str | int, ...], gpu: str | None
) -> Iterator[Problem]:
    if gpu is None:
        return
    found = platform_named(pack, gpu) or "none"
    if found != platform_of(pack, tuned.platform).name:
        shown = found if gpu == quoted(gpu)[1:-1] else "another"  # as long as the text is
        message = (
            f"{_called(at)}: gpu is {quoted(gpu)}, whose platform is {shown}, and the file is "
            f"of {tuned.platform}; move it where it belongs, or tune again"
        )
        yield tuned.finding("KP228", message, *at, "gpu")


def _date(
    tuned: CheckedFile, at: tuple[str | int, ...], text: str | None, today: datetime.date
) -> Iterator[Problem]:
    if text is None:
        return
    wrong = None
    try:
        if datetime.datetime.fromisoformat(text).date() > today + datetime.timedelta(days=1):
            wrong = f"which is after today ({today})"
    except ValueError:
        wrong = "which is not an ISO date"
    if wrong is not None:
        message = f"{_called(at)}: date is {quoted(text)}, {wrong}; correct it"
        yield tuned.finding("KP229", message, *at, "date", severity="unverified")


def _is_version(text: str) -> bool:
    try:
        Version(text)
    except ValueError:  # InvalidVersion, and that of numbers with too many digits
        return False
    return True


def time_findings(tuned: CheckedFile) -> Iterator[Problem]:
    """Yield times that no run takes, and configs recorded as slower than what they replaced."""
    default = tuned.spec.default
    plain = None if default is None else config_id(default)
    for place, case in enumerate(tuned.file.cases):
        at = ("cases", place)
        times = {name: getattr(case, name) for name in ("ms", "old_ms", "default_ms")}
        for name, value in times.items():
            if value is not None and value <= 0:
                message = f"case {tuned.case(place)}: {name} is {value:g}, and must be above 0"
                yield tuned.finding("KP230", f"{message}; tune again", *at, name)
        if case.ms is None or case.ms <= 0:
            continue
        for name, what in (("old_ms", "config it replaced"), ("default_ms", "default config")):
            other = times[name]
            own = name == "default_ms" and config_id(tuned.config(place)) == plain
            if other is not None and 0 < other * SLOWER < case.ms and not own:
                message = (
                    f"case {tuned.case(place)}: its config takes {case.ms:g} ms and the {what} "
                    f"{other:g} ms, so it should not have been chosen; tune again"
                )
                yield tuned.finding("KP231", message, *at, name)
