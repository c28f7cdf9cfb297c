"""What `test --watch` waits for: files of a pack that change."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

_FOLDERS: Final = ("manifests", "kernels", "configs")
_SECONDS: Final = 0.1
"""How long it waits before it looks again; to look at 100 files takes 1 ms."""


def pause() -> None:
    time.sleep(_SECONDS)


def changes(root: Path, wait: Callable[[], None]) -> Iterator[frozenset[str]]:
    """Yield all files of a pack, by their paths below its root, then those that have changed.

    `wait` is called before each look at them. What editors write beside files is left out.
    """
    seen = dict(_files(root))
    yield frozenset(seen)
    while True:
        wait()
        now = dict(_files(root))
        changed = frozenset(path for path, _ in seen.items() ^ now.items())
        seen = now
        if changed:
            yield changed


def _files(root: Path) -> Iterator[tuple[str, tuple[int, int]]]:
    for folder in _FOLDERS:
        for place, folders, files in os.walk(root / folder):
            folders[:] = [name for name in folders if name[0] not in "._"]
            for name in files:
                path = Path(place, name)
                try:
                    facts = path.stat()
                except OSError:  # it went since it was listed
                    continue
                if name[0] != "." and name[-1] != "~":
                    yield str(path.relative_to(root)), (facts.st_mtime_ns, facts.st_size)


def touched(changed: Sequence[str], kernels: Sequence[str]) -> tuple[str, ...]:
    """Return the kernels that files belong to; all of them for one that belongs to none."""
    found = dict.fromkeys(Path(path).parts[1] for path in changed)
    return tuple(found) if {*found} <= {*kernels} else tuple(kernels)
