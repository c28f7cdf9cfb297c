"""What a pack has put into a vLLM tree: the record of its files, by which edits are told."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from attrs import field, frozen

from kernelpkg.errors import PackError, Problem
from kernelpkg.vllm.tree import CONFIGS, HELION, OPS

EDITION: Final = 1
"""The edition of records that this version reads and writes."""

_PLACES: Final = re.compile(
    rf"{OPS}/[A-Za-z]\w*\.py|{CONFIGS}/[A-Za-z]\w*/[^/\\\x00-\x1f.][^/\\\x00-\x1f]*\.json", re.ASCII
)
"""Where vendored files may be; a record that names others is not believed."""

_DIGEST: Final = re.compile("sha256-[0-9a-f]{64}")


@frozen(kw_only=True)
class Record:
    """A pack's files in a tree, by path, with their digests.

    `pending` is what an unfinished run was about to write: a file with either digest is ours.
    """

    pack: str
    version: str
    kernelpkg: str
    kernels: Mapping[str, Mapping[str, Any]]
    files: Mapping[str, str]
    pending: Mapping[str, str] = field(factory=dict)

    def ours(self, path: str, digest: str) -> bool:
        """Whether a file is as a run of ours left it."""
        return digest in (self.files.get(path), self.pending.get(path))

    def text(self) -> str:
        """Return the text of the record, which follows from the value alone."""
        document: dict[str, Any] = {
            "edition": EDITION,
            "pack": self.pack,
            "version": self.version,
            "kernelpkg": self.kernelpkg,
            "kernels": {name: dict(self.kernels[name]) for name in sorted(self.kernels)},
            "files": {path: self.files[path] for path in sorted(self.files)},
        }
        if self.pending:
            document["pending"] = {path: self.pending[path] for path in sorted(self.pending)}
        return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def record_path(pack: str) -> str:
    """Return where the record of a pack is, below the directory that holds `vllm/`."""
    return f"{HELION}/{pack}.vendored.json"


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
        raise PackError(
            problems=(Problem(path=shown, code="KP805", message=f"{message}; upgrade kernelpkg"),)
        )
    if edition != EDITION or document.get("pack") != pack or not _sound(document):
        raise _wrong(shown, f"the record is not one of pack '{pack}'")
    return Record(
        pack=pack,
        version=str(document["version"]),
        kernelpkg=str(document["kernelpkg"]),
        kernels=document["kernels"],
        files=document["files"],
        pending=document.get("pending", {}),
    )


def _sound(document: Mapping[str, Any]) -> bool:
    named = [document.get("version"), document.get("kernelpkg")]
    tables = [document.get("files"), document.get("pending", {})]
    return (
        all(isinstance(name, str) for name in named)
        and isinstance(document.get("kernels"), dict)
        and all(isinstance(value, dict) for value in document["kernels"].values())
        and all(isinstance(table, dict) for table in tables)
        and all(
            _PLACES.fullmatch(path) is not None
            and isinstance(digest, str)
            and _DIGEST.fullmatch(digest) is not None
            for table in tables
            if table is not None
            for path, digest in table.items()
        )
    )


def _wrong(shown: str, what: str) -> PackError:
    message = f"{what}; remove it, and run with --replace"
    return PackError(problems=(Problem(path=shown, code="KP805", message=message),))
