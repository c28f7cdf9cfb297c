"""The files of one kernel, each read once and parsed once, while it is checked and registered."""

from __future__ import annotations

import ast
import errno
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from kernelpkg.digest import digest_bytes


def read_file(path: Path) -> bytes:
    """Return the content of a file; raises OSError where it cannot be read.

    What is no file, as a pipe or a device, would be waited for, or never end.
    """
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # reading a directory says what it is
        raise OSError(errno.EINVAL, "Not a regular file")
    return path.read_bytes()


class Files:
    """What was read for one kernel, so that what is checked, run, kept and digested is the same.

    It lives no longer than the loading of its kernel; an edit on disk is seen by the next one.
    """

    def __init__(self) -> None:
        self._content: dict[Path, bytes] = {}
        self._trees: dict[Path, ast.Module] = {}
        self._real: dict[Path, Path] = {}
        self._digests: dict[Path, str] = {}

    def read(self, path: Path) -> bytes:
        """Return the content of a file; raises OSError where it cannot be read."""
        found = self._content.get(path)
        if found is None:
            found = self._content[path] = read_file(path)
        return found

    def digest(self, path: Path) -> str:
        """Return the digest of a file; raises OSError where it cannot be read."""
        found = self._digests.get(path)
        if found is None:
            found = self._digests[path] = digest_bytes(self.read(path))
        return found

    def tree(self, path: Path, shown: str) -> ast.Module:
        """Return a Python file as a tree; raises OSError, and what `ast.parse` raises.

        `shown` is the path in the messages of a SyntaxError.
        """
        found = self._trees.get(path)
        if found is None:
            found = self._trees[path] = ast.parse(self.read(path), shown)
        return found

    def resolve(self, path: Path) -> Path:
        """Return a path without symbolic links; raises OSError or RuntimeError for a circle.

        A file that is no link itself is where its directory is, which is looked up once.
        """
        found = self._real.get(path)
        if found is None:
            if path.is_symlink():
                found = path.resolve()
            else:
                if path.parent not in self._real:
                    self._real[path.parent] = path.parent.resolve()
                found = self._real[path.parent] / path.name
            self._real[path] = found
        return found

    def digests(self, root: Path) -> dict[str, str]:
        """Return the digests of all files that were read, by their paths below a root.

        Files of other places, as configs of an operator, keep their whole paths.
        """
        above = os.path.join(root, "")
        return {str(path).removeprefix(above): self.digest(path) for path in self._content}

    def digests_below(self, root: Path, folders: Sequence[str]) -> dict[str, str]:
        """Return the digests of those files alone that are in folders below a root."""
        above = os.path.join(root, "")
        inside = tuple(os.path.join(above, folder, "") for folder in folders)
        found = ((path, str(path)) for path in self._content)
        return {
            text[len(above) :]: self.digest(path) for path, text in found if text.startswith(inside)
        }
