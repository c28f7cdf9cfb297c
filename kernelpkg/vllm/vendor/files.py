"""The files of a pack in a vLLM tree: the record of them, and what a run does to each.

By the record edits are told; what is done follows from what is there and what shall be there.
"""

from __future__ import annotations

import difflib
import io
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, Final, Literal

from attrs import asdict, field, fields, frozen

from kernelpkg.errors import PackError, Problem, pack_error, parameter
from kernelpkg.files import digest_bytes, plain
from kernelpkg.manifest.decode import Anything, Key, MapOf, Number, Table, Text
from kernelpkg.vllm.tree import CONFIGS, HELION, OPS

EDITION: Final = 1
"""The edition of records that this version reads and writes."""

_PLACE: Final = (
    rf"(?a:{OPS}/[A-Za-z]\w*\.py"
    rf"|{CONFIGS}/[A-Za-z]\w*/[^/\\\x00-\x1f.][^/\\\x00-\x1f]*\.json|{{}})"
)
"""Where vendored files may be; a record that names others is not believed."""


def record_path(pack: str) -> str:
    """Return where the record of a pack is, below the directory that holds `vllm/`."""
    return f"{HELION}/{pack}.vendored.json"


def shared_path(pack: str) -> str:
    """Return where a pack's ops have what they share; a pack has its own, to leave others alone."""
    return f"{HELION}/{pack}_rules.py"


def _by_name(values: Mapping[str, Any]) -> dict[str, Any]:
    return dict(sorted(values.items()))


@frozen(kw_only=True)
class Record:
    """A pack's files in a tree, by path, with their digests.

    `pending` is what an unfinished run was about to write: a file with either digest is ours.
    """

    pack: str
    version: str
    kernelpkg: str
    kernels: Mapping[str, Mapping[str, Any]] = field(converter=_by_name)
    files: Mapping[str, str] = field(converter=_by_name)
    pending: Mapping[str, str] = field(factory=dict, converter=_by_name)

    def ours(self, path: str, digest: str) -> bool:
        """Whether a file is as a run of ours left it."""
        return digest in (self.files.get(path), self.pending.get(path))

    def text(self) -> str:
        """Return the text of the record, which follows from the value alone."""
        document = {"edition": EDITION, **asdict(self)}
        if not self.pending:
            del document["pending"]
        return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def read_record(into: Path, pack: str) -> Record | None:
    """Return the record of a pack, or None without one; raises PackError for a wrong one."""
    shown = record_path(pack)
    try:
        text = (into / shown).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise _wrong(shown, f"the record cannot be read: {reason}") from None
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise _wrong(shown, "the record is not JSON") from None
    edition = document.get("edition") if isinstance(document, dict) else None
    if type(edition) is int and edition > EDITION:
        message = f"the record is of edition {edition}, and this kernelpkg reads {EDITION}"
        raise pack_error(shown, "KP805", f"{message}; upgrade kernelpkg")
    problems: list[str] = []
    found = _kind(pack).decode(document, (), lambda *problem: problems.append(problem[-1]))
    if problems:
        raise _wrong(shown, f"the record is not one of pack '{pack}'")
    return Record(**{item.name: found[item.name] for item in fields(Record)})


def _kind(pack: str) -> Table:
    """Return what a record of a pack holds; keys that are not known do no harm."""
    place = Text("a place for vendored files", _PLACE.format(re.escape(shared_path(pack))))
    digests = MapOf(item=Text("a digest", "sha256-[0-9a-f]{64}"), key=place)
    needed = partial(Key, doc="", required=True)
    return Table(
        keys={
            "edition": needed(kind=Number(whole=True, least=EDITION, most=EDITION)),
            "pack": needed(kind=Text(pattern=re.escape(pack))),
            "version": needed(kind=Text()),
            "kernelpkg": needed(kind=Text()),
            "kernels": needed(kind=MapOf(item=MapOf(item=Anything()))),
            "files": needed(kind=digests),
            "pending": Key(kind=digests, doc="", default={}),
        },
        rest=MapOf(item=Anything()),
    )


def _wrong(shown: str, what: str) -> PackError:
    return pack_error(shown, "KP805", f"{what}; remove it, and give {parameter('replace', 'True')}")


FileAction = Literal["wrote", "removed", "kept"]

Drift = Literal["missing", "edited", "outdated", "foreign", "orphaned", "unfinished"]
"""How a file differs from what a run would leave: it is not there; it was changed by hand; it is
of an older state of the pack; it is not the pack's; the pack has its kernel or platform no more;
it is of a run that was killed."""


@frozen(kw_only=True)
class TreeStep:
    """One file: what it holds and shall hold, None for nothing.

    `recorded` says that the record names it, `ours` that it is as a run of ours left it.
    """

    path: str
    before: bytes | None
    after: bytes | None
    recorded: bool
    ours: bool

    @property
    def action(self) -> FileAction:
        if self.before == self.after:
            return "kept"
        return "removed" if self.after is None else "wrote"

    @property
    def conflict(self) -> tuple[str, str] | None:
        """Return (code, message) where a run leaves the file alone unless it may replace it."""
        if self.before is None or self.ours or self.action == "kept":
            return None
        does = "removes it" if self.after is None else "overwrites it"
        if self.recorded:
            what = "was edited since it was vendored; move the edit into the pack"
        elif self.after is None:
            what = "holds configs of another source for an op of this pack, whose lists and keys "
            what += "would not fit it"
        else:
            what = "already exists, and is not of this pack"
        what += f"; {parameter('replace', 'True')} {does}"
        return "KP807" if self.recorded else "KP806", what

    @property
    def drift(self) -> Drift | None:
        if self.action == "kept":
            return None
        if self.before is None:
            return "missing"
        if self.recorded:
            return "orphaned" if self.after is None else "outdated" if self.ours else "edited"
        return "foreign"

    def diff(self) -> Iterator[str]:
        """Yield the lines of a unified diff of this file, as `patch -p1` reads it."""
        if self.action == "kept":
            return
        before, after = f"a/{self.path}", f"b/{self.path}"
        try:
            old, new = _lines(self.before), _lines(self.after)
        except UnicodeDecodeError:
            yield f"Binary files {before} and {after} differ"
            return
        first = "/dev/null" if self.before is None else before
        second = "/dev/null" if self.after is None else after
        for line in difflib.unified_diff(old, new, first, second):
            yield line.removesuffix("\n")
            if not line.endswith("\n"):
                yield "\\ No newline at end of file"


def _lines(content: bytes | None) -> list[str]:
    return io.StringIO((content or b"").decode(), newline="\n").readlines()


def steps_for(
    into: Path, kernels: Sequence[str], wanted: Mapping[str, str], old: Record | None
) -> tuple[TreeStep, ...]:
    """Return a step for each file that is wanted, recorded, or in the way, in order of paths.

    Raises PackError for places where a file can neither be read nor written.
    """
    recorded = {} if old is None else old.files
    pending = {} if old is None else old.pending
    places = [(f"{CONFIGS}/{kernel}", into / CONFIGS / kernel) for kernel in kernels]
    beside = [f"{shown}/{file.name}" for shown, path in places for file in path.glob("*.json")]
    steps, problems = [], []
    for path in sorted({*wanted, *recorded, *pending, *beside}):
        wrong = wrong_place(into, path)
        if wrong is not None:
            problems.append(Problem(path=path, code="KP808", message=wrong))
            continue
        before: bytes | None = None
        try:
            before = plain((into / path).read_bytes())
        except FileNotFoundError:
            pass
        except OSError as error:
            message = f"cannot be read: {error.strerror}; correct its permissions"
            problems.append(Problem(path=path, code="KP803", message=message))
            continue
        after = wanted[path].encode() if path in wanted else None
        ours = old is not None and before is not None and old.ours(path, digest_bytes(before))
        named = path in recorded or ours  # what a killed run did not come to is not ours yet
        if after is not None or (before is not None and (named or path in beside)):
            steps.append(TreeStep(path=path, before=before, after=after, recorded=named, ours=ours))
    if problems:
        raise PackError(problems=tuple(problems))
    return tuple(steps)


def wrong_place(into: Path, path: str) -> str | None:
    """Say why no file may be written at a place: for links, and for what is there instead."""
    place, root = into, os.path.realpath(into)
    *directories, last = PurePosixPath(path).parts
    for name in directories:
        place = place / name
        shown = place.relative_to(into).as_posix()
        if place.is_symlink() and not Path(os.path.realpath(place)).is_relative_to(root):
            return f"{shown} is a link out of the tree, to {os.readlink(place)}; name that tree"
        if os.path.lexists(place) and not place.is_dir():
            return f"{shown} is not a directory; remove it"
    place = place / last
    if place.is_symlink():
        return f"is a link to {os.readlink(place)}, which would be written through; remove it"
    if place.is_dir():
        return "is a directory; remove it"
    if place.exists() and not place.is_file():
        return "is not a regular file; remove it"
    if place.suffix == ".py" and place.with_suffix("").is_dir():
        return f"would be hidden by the package {place.stem}/ beside it; remove that"
    return None
