"""Files: read once while a kernel is registered, written at once or not at all; their digests."""

from __future__ import annotations

import ast
import codecs
import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
import socket
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

_T = TypeVar("_T")

_BESIDE: Final = re.compile(r"\..+\.[0-9a-f]{16}\.tmp")
_LEFT: Final = 3600.0
"""Seconds after which what lies beside a file is of a writer that was killed; most take one."""


def listed_paths(environment: Mapping[str, str], name: str) -> list[str]:
    """Return the paths that a variable lists, separated as those of PATH; none is empty."""
    return list(filter(None, environment.get(name, "").split(os.pathsep)))


def read_file(path: Path) -> bytes:
    """Return the content of a file; raises OSError where it cannot be read.

    What is not a file, as a pipe or a device, would be waited for, or never end.
    """
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # reading a directory says what it is
        raise OSError(errno.EINVAL, "Not a regular file")
    return path.read_bytes()


def read_plain(path: Path) -> bytes:
    """Return the content of a text file as `plain` has it; raises OSError as `read_file` does."""
    return plain(read_file(path))


def plain(text: bytes) -> bytes:
    """Return a text without what Windows adds: a byte order mark, and CR at the ends of lines.

    Neither means anything in TOML, Python and JSON, so the digest is that of the same text without.
    """
    return text.removeprefix(codecs.BOM_UTF8).replace(b"\r\n", b"\n")


class Files:
    """What was read for one kernel, so that what is checked, run, kept and digested is the same.

    It lives no longer than the loading of its kernel; an edit on disk is seen by the next one.
    """

    def __init__(self) -> None:
        self._content: dict[Path, bytes] = {}
        self._trees: dict[Path, ast.Module] = {}
        self._real: dict[Path, Path] = {}
        self._digests: dict[Path, str] = {}
        self._names: dict[Path, list[str]] = {}

    def only(self, path: Path) -> Files:
        """Return what was read of one file, for whoever outlives the loading."""
        found = Files()
        found._content = {name: self._content[name] for name in (path,) if name in self._content}
        return found

    def names(self, directory: Path) -> list[str]:
        """Return the names in a directory, sorted; raises OSError where it cannot be listed."""
        return _once(self._names, directory, lambda: sorted(os.listdir(directory)))

    def read(self, path: Path) -> bytes:
        """Return the content of a text file, as `plain` has it; raises OSError without one."""
        return _once(self._content, path, lambda: read_plain(path))

    def digest(self, path: Path) -> str:
        """Return the digest of a file; raises OSError where it cannot be read."""
        return _once(self._digests, path, lambda: digest_bytes(self.read(path)))

    def tree(self, path: Path, shown: str) -> ast.Module:
        """Return a Python file as a tree; raises OSError, and what `ast.parse` raises.

        `shown` is the path in the messages of a SyntaxError.
        """
        return _once(self._trees, path, lambda: ast.parse(self.read(path), shown))

    def parsed(self, path: Path) -> ast.Module | bytes:
        """Return what to compile of a Python file: its tree if there is one, else its content."""
        return self._trees.get(path) or self.read(path)

    def resolve(self, path: Path) -> Path:
        """Return a path without symbolic links; raises OSError or RuntimeError for a circle.

        A file that is not a link itself is where its directory is, which is looked up once.
        """
        if path.is_symlink():
            return _once(self._real, path, path.resolve)
        return _once(self._real, path.parent, path.parent.resolve) / path.name

    def digests(self, root: Path, folders: Sequence[str] = ()) -> dict[str, str]:
        """Return the digests of the files that were read, by their paths below a root.

        Those in `folders` below it alone, if any are given; of all, files of other places, as
        configs of an operator, keep their whole paths.
        """
        above = os.path.join(root, "")
        inside = tuple(os.path.join(above, folder, "") for folder in folders) or ""
        found = ((path, str(path)) for path in self._content)
        return {
            text.removeprefix(above): self.digest(path)
            for path, text in found
            if text.startswith(inside)
        }


def _once(kept: dict[Path, _T], path: Path, make: Callable[[], _T]) -> _T:
    """Return what is kept for a path, made at the first time."""
    found = kept.get(path)
    if found is None:
        found = kept[path] = make()
    return found


def replace_text(path: Path, text: str) -> None:
    """Put a text in a file's place at once, through a file beside it that a failure removes."""
    replace_texts({path: text})


def replace_bytes(path: Path, data: bytes) -> None:
    """Put data in a file's place at once, through a file beside it that a failure removes."""
    replace_all({path: data})


def replace_texts(texts: Mapping[Path, str]) -> None:
    """Put texts in their files' places, as `replace_all` does."""
    replace_all({path: text.encode() for path, text in texts.items()})


def replace_all(contents: Mapping[Path, bytes]) -> None:
    """Put data in their files' places, each at once; none where one of them cannot be written.

    All are written beside their places before the first of them is moved there, in the order that
    they are given in. A failure leaves no file and no directory behind, and its OSError names the
    file. What writers that were killed left in these directories is removed.
    """
    beside = {path: place_beside(path) for path in contents}
    above = {parent for path in contents for parent in path.parents if not parent.exists()}
    try:
        for path, content in contents.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            with beside[path].open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        for path in contents:
            os.replace(beside[path], path)
        for directory in {path.parent for path in contents}:
            clear_left_overs(directory)
    except BaseException as error:
        if (
            isinstance(error, OSError)
            and error.errno
            and error.filename in (None, str(beside[path]))
        ):
            error.filename = str(path)  # that of a disk which is full names none
        for left in beside.values():
            with contextlib.suppress(OSError):
                left.unlink()
        for made in sorted(above, reverse=True):
            with contextlib.suppress(OSError):  # one that is no longer empty, or was not made
                made.rmdir()
        raise


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of a file, which says who holds it, and is removed with all made for it.

    The lock dies with the process. Raises BlockingIOError where another process has it, which its
    `strerror` names by number and host, and any other OSError where the file cannot be written.
    """
    above = [parent for parent in path.parents if not parent.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = _lock(path)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                path.unlink()
            fcntl.flock(descriptor, fcntl.LOCK_UN)  # a process that is just being started has it
            os.close(descriptor)
    finally:
        for made in above:
            with contextlib.suppress(OSError):  # one that is no longer empty, or was not made
                made.rmdir()


def _lock(path: Path) -> int:
    """Return the descriptor of a file that is locked; one that its last holder removed is not."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), path.stat()):
                    os.ftruncate(descriptor, 0)
                    who = f"process {os.getpid()} on {socket.gethostname()}"
                    os.pwrite(descriptor, who.encode(), 0)
                    return descriptor
        except BlockingIOError as error:
            who = os.read(descriptor, 200).decode(errors="replace") or "another process"
            os.close(descriptor)
            raise BlockingIOError(error.errno, who) from None
        except OSError:  # of a file system that has no locks, most often
            path.unlink(missing_ok=True)
            os.close(descriptor)
            raise
        os.close(descriptor)


def place_beside(path: Path) -> Path:
    """Return where to write what will be moved to a path."""
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")


def clear_left_overs(directory: Path) -> None:
    """Remove what writers that were killed left beside the places of their files."""
    with contextlib.suppress(OSError):
        for entry in os.scandir(directory):
            with contextlib.suppress(OSError):  # another process may remove it as well
                if _BESIDE.fullmatch(entry.name) and time.time() - entry.stat().st_mtime > _LEFT:
                    shutil.rmtree(entry) if entry.is_dir() else os.unlink(entry)


def digest_bytes(data: bytes) -> str:
    """Return "sha256-" and the 64 hexadecimal digits of the data's SHA-256."""
    return f"sha256-{hashlib.sha256(data).hexdigest()}"


def digest_value(value: Any) -> str:
    """Return the digest of a JSON value, whatever the order of its keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return digest_bytes(text.encode())
