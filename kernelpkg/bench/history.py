"""Runs of benchmarks, kept in a file that only grows, and one run held against an earlier one."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from attrs import frozen

from kernelpkg.bench.intervals import Interval, interval_of
from kernelpkg.bench.rows import OURS
from kernelpkg.errors import UsageError, counted, suggestion
from kernelpkg.files import digest_value, read_file
from kernelpkg.manifest.cases import show

EDITION: Final = 1
LAST: Final = "last"

_YARDSTICKS: Final = ("copy", "native", "eager", "compile")
"""What times are taken relative to, the first that both runs have: a copy moves with the clock and
the memory of a GPU, and is no code of anyone who might have made it faster."""

_NAMED: Final = 3


def with_id(run: Mapping[str, Any]) -> dict[str, Any]:
    """Return the document of a run with its id: when it was made, and a digest of all of it."""
    when = run["date"].translate({ord(mark): None for mark in "-:"})
    return {"edition": EDITION, "run": f"{when}-{digest_value(run)[7:13]}", **run}


@frozen(kw_only=True)
class BenchHistory:
    """The runs of a file, the oldest first, and a line for each line of it that is none."""

    path: Path
    runs: tuple[Mapping[str, Any], ...]
    remarks: tuple[str, ...]

    def append(self, run: Mapping[str, Any]) -> None:
        """Add a run as one line, in one write, which is on the disk when this returns.

        What a writer that was killed left of a line is ended first, so that it costs itself alone.
        Raises OSError where the file cannot be written.
        """
        line = json.dumps(run, ensure_ascii=False, separators=(",", ":")) + "\n"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            size = os.fstat(descriptor).st_size
            cut = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
            data = ("\n" * cut + line).encode()
            while data:  # a disk that is full takes a part, and then raises
                data = data[os.write(descriptor, data) :]
            os.fsync(descriptor)
        except OSError as error:
            error.filename = str(self.path)
            raise
        finally:
            os.close(descriptor)

    def find(self, word: str, machine: str) -> Mapping[str, Any]:
        """Return a run by its id or the beginning of it, or the last one of a machine.

        Raises UsageError where there is none, where several begin so, and for one of another
        machine.
        """
        if word == LAST:
            found = [run for run in self.runs if run["machine"] == machine][-1:]
            if not found:
                raise UsageError(f"{self.path} has no run on {machine} to compare with")
            return found[0]
        found = [run for run in self.runs if run["run"].startswith(word)]
        names = [run["run"] for run in self.runs]
        if not found:
            known = f"; the last are {', '.join(names[-_NAMED:])}" if names else "; it has none"
            raise UsageError(
                f"there is no run '{word}' in {self.path}{suggestion(word, names) or known}"
            )
        if len(found) > 1:
            several = ", ".join(run["run"] for run in found[:_NAMED])
            raise UsageError(f"several runs begin with '{word}': {several}; give more of the id")
        if found[0]["machine"] != machine:
            raise UsageError(
                f"run {found[0]['run']} was made on {found[0]['machine']}, and this is {machine}; "
                "compare runs of the same GPU"
            )
        return found[0]


def read_history(path: Path) -> BenchHistory:
    """Return the runs of a file, none where it is not there; or of a document of `--json`.

    Raises OSError where it cannot be read.
    """
    try:
        text = read_file(path).decode(errors="replace")
    except FileNotFoundError:
        text = ""
    runs: list[Mapping[str, Any]] = []
    remarks: list[str] = []
    whole = _document(text)
    if whole is not None and not _wrong(whole):
        return BenchHistory(path=path, runs=(whole,), remarks=())
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        run = _document(line)
        wrong = "is cut off, or is not a run" if run is None else _wrong(run)
        if run is None or wrong:
            remarks.append(f"{path}:{number}: {wrong}; it is skipped")
        else:
            runs.append(run)
    if len(remarks) > _NAMED:
        more = len(remarks) - _NAMED
        remarks[_NAMED:] = [f"{path}: {counted(more, 'more line is', 'more lines are')} skipped"]
    return BenchHistory(path=path, runs=tuple(runs), remarks=tuple(remarks))


def _document(text: str) -> Mapping[str, Any] | None:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _wrong(run: Mapping[str, Any]) -> str:
    """Say why a document is not a run that can be read here, or return nothing."""
    if type(run.get("edition")) is int and run["edition"] > EDITION:
        return f"has edition {run['edition']}; a newer kernelpkg reads it"
    try:
        if run["edition"] != EDITION or not all(type(run[key]) is str for key in _TEXTS):
            return "is not a run"
        for row in run["rows"]:
            _times(row)
            place_of(row["op"], row["axes"])
    except (LookupError, TypeError, ValueError, AttributeError):
        return "is not a run"
    return ""


_TEXTS: Final = ("run", "date", "pack", "machine")


def place_of(op: str, axes: Mapping[str, Any]) -> tuple[str, str]:
    """Return what makes two rows the same case, in whichever order their axes are."""
    return op, ", ".join(f"{name}={show(axes[name])}" for name in sorted(axes))


def _times(row: Mapping[str, Any]) -> dict[tuple[str, str], Interval]:
    """Return the ratios of ours to each side, and our time, by what was timed and the side."""
    found = {}
    for name, side in row["sides"].items():
        for what in ("gpu", "host"):
            entry = side[f"{what}_us" if name == OURS else f"{what}_ratio"]
            if entry is not None:
                low, middle, high = (float(entry[key]) for key in ("low", "median", "high"))
                if not 0 < low <= middle <= high:
                    raise ValueError(name)
                found[what, name] = Interval(median=middle, low=low, high=high)
    return found


@frozen(kw_only=True)
class Change:
    """What became of a case since a run, or of the host's time of all cases of an op.

    `base` is what both times are relative to, "ours" for microseconds as they are. `ratio` is the
    time now over that of then; `slower` that it is by more than the threshold and the noise.
    """

    op: str
    case: str
    what: str
    base: str
    ratio: float
    slower: bool

    def to_json(self) -> dict[str, Any]:
        """Return the entry of `against`."""
        return {
            "op": self.op,
            "case": self.case or None,
            "what": self.what,
            "base": self.base,
            "ratio": float(f"{self.ratio:.5g}"),
            "slower": self.slower,
        }


@frozen(kw_only=True)
class BenchComparison:
    """A run held against an earlier one, and which versions differ."""

    run: str
    changes: tuple[Change, ...]
    remarks: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is slower."""
        return not any(change.slower for change in self.changes)

    def to_json(self) -> dict[str, Any]:
        """Return the entry of `bench --json`."""
        changes = [change.to_json() for change in self.changes]
        return {"run": self.run, "changes": changes, "remarks": list(self.remarks)}


def compare_runs(
    now: Mapping[str, Any], then: Mapping[str, Any], threshold: float
) -> BenchComparison:
    """Hold the cases that two runs have in common against each other.

    The GPU's time is held case by case. The host's hardly depends on sizes, and differs from one
    process to the next by more than its rounds do, so that the cases of an op are its sample.
    """
    before = {place_of(row["op"], row["axes"]): _times(row) for row in then["rows"]}
    changes: list[Change] = []
    host: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    for row in now["rows"]:
        (op, case), times = place_of(row["op"], row["axes"]), _times(row)
        earlier = before.get((op, case), {})
        if (base := _base("gpu", times, earlier)) is not None:
            new, old = times["gpu", base], earlier["gpu", base]
            ratio = new.median / old.median
            slower = ratio > 1 + threshold and new.low > old.high
            changes.append(
                Change(op=op, case=case, what="gpu", base=base, ratio=ratio, slower=slower)
            )
        if (base := _base("host", times, earlier)) is not None:
            new, old = times["host", base], earlier["host", base]
            host[op, base].append((new.median / old.median, new.low / old.high))
    for (op, base), pairs in host.items():
        found, at_least = map(interval_of, zip(*pairs, strict=True))
        slower = found.median > 1 + threshold and min(found.low, at_least.median) > 1
        changes.append(
            Change(op=op, case="", what="host", base=base, ratio=found.median, slower=slower)
        )
    return BenchComparison(
        run=then["run"], changes=tuple(changes), remarks=tuple(_remarks(now, then))
    )


def _base(what: str, now: Iterable[Any], then: Iterable[Any]) -> str | None:
    """Return what two measurements of a case are relative to, None where they share nothing."""
    both = {*now} & {*then}
    return next((side for side in (*_YARDSTICKS, OURS) if (what, side) in both), None)


def _remarks(now: Mapping[str, Any], then: Mapping[str, Any]) -> Iterator[str]:
    new, old = (dict(run.get("versions") or {}) for run in (now, then))
    for name in sorted({*new, *old}):
        if new.get(name) != old.get(name):
            yield f"{name}: {old.get(name, 'none')} then, {new.get(name, 'none')} now"


def earlier_run(
    word: str,
    history: BenchHistory,
    machine: str,
    cases: Iterable[tuple[str, Mapping[str, Any]]],
) -> tuple[Mapping[str, Any], tuple[str, ...]]:
    """Return the run to hold cases against, each an op and its axes: of the history, or of a file.

    And the remarks of that file. Raises UsageError where there is no run, or none of these cases in
    it.
    """
    remarks: tuple[str, ...] = ()
    if word != LAST and Path(word).is_file():
        history, word = read_history(Path(word)), LAST
        remarks = history.remarks
    found = history.find(word, machine)
    there = {place_of(row["op"], row["axes"]) for row in found["rows"]}
    if not any(place_of(op, axes) in there for op, axes in cases):
        raise UsageError(f"run {found['run']} has none of these cases")
    return found, remarks
