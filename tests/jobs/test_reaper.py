"""The process around a worker; what it prevents is tested with the pool."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from kernelpkg.jobs import reaper


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (None, "its process ended with status 0"),
        (3 << 8, "its process ended with status 3"),
        (signal.SIGKILL, "its process was ended by SIGKILL"),
        (signal.SIGRTMIN + 3, f"its process was ended by signal {signal.SIGRTMIN + 3}"),
    ],
    ids=["asked", "exit", "kill", "nameless"],
)
def test_an_end_is_told_in_words(status, text):
    """Signals by their names, where they have one."""
    assert reaper._ending(status) == text


def test_all_descendants_are_found():
    """Children of children too, in sessions of their own."""
    code = (
        "import subprocess, sys; child = subprocess.Popen(['sleep', '60'], start_new_session=True);"
        "print(child.pid, flush=True); sys.stdin.read(); child.kill()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    child = int(process.stdout.readline())
    found = reaper._below(os.getpid())
    process.communicate()
    assert {process.pid, child} <= set(found)
    assert child not in reaper._below(os.getpid())
