"""The lock of a tuning run: one process at a time writes the results of a kernel for a platform."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from kernelpkg.errors import PackError, Problem


@contextlib.contextmanager
def locked(path: Path, shown: str) -> Iterator[None]:
    """Hold the lock of a file, which says who holds it; the lock dies with the process.

    Raises PackError where another process has it, named by its number and host, and OSError where
    the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _in_use(shown, os.read(descriptor, 200)) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
        yield
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)  # a process that is just being started has it too
        os.close(descriptor)


def _in_use(shown: str, owner: bytes) -> PackError:
    who = owner.decode(errors="replace") or "another process"
    message = f"is being written by {who}; wait for its end, or tune other ops"
    return PackError(problems=(Problem(path=shown, code="KP401", message=message),))
