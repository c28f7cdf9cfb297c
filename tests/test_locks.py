"""Locks in processes that are forked: free, and what they guard is whole."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

BUSY = """
import os, sys, threading, time
from kernelpkg import locks

locks.LONGEST_WAIT = float(sys.argv[1])
lock, halves, inside, leave = locks.make_lock(), [], threading.Event(), threading.Event()

def work():
    with lock:
        halves.append(1)
        inside.set()
        leave.wait(60)
        halves.append(2)

thread = threading.Thread(target=work)
thread.start()
inside.wait()
threading.Timer(float(sys.argv[2]), leave.set).start()
child = os.fork()
if not child:
    os._exit(10 + len(halves) if lock.acquire(timeout=30) else 1)
with lock:
    pass
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.parametrize(
    ("longest", "leaves", "found"),
    [pytest.param(60, 0.2, 12, id="waits"), pytest.param(0.1, 3, 11, id="waits no longer")],
)
def test_a_lock_of_another_thread(longest, leaves, found):
    """A fork waits for it, for a while; in the child it is free in any case."""
    command = [sys.executable, "-W", "ignore", "-c", BUSY, str(longest), str(leaves)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(found)]


OWN = """
import os
from kernelpkg import locks

one, other = locks.make_lock(), locks.make_lock()
with one:
    child = os.fork()
    with other:
        pass
if not child:
    os._exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_lock_of_the_thread_that_forks():
    """It is held on both sides until that thread leaves it."""
    done = subprocess.run(
        [sys.executable, "-c", OWN], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["7"]


MANY = """
import os, threading
from kernelpkg import locks

made = [locks.make_lock() for _ in range(20)]
done = threading.Event()

def work(turn):
    while not done.is_set():
        for lock in made[::turn]:
            with lock:
                pass
        locks.make_lock()

threads = [threading.Thread(target=work, args=(turn,)) for turn in (1, -1)]
forking = [threading.Thread(target=lambda: children.append(fork())) for _ in range(4)]
children = []

def fork():
    child = os.fork()
    if not child:
        os._exit(not all(lock.acquire(timeout=30) for lock in made))
    return child

for thread in [*threads, *forking]:
    thread.start()
for thread in forking:
    thread.join()
done.set()
print([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children])
"""


def test_threads_that_take_locks_in_any_order_while_others_fork():
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", MANY],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    assert done.stdout.strip() == "[0, 0, 0, 0]"
    assert done.stderr == ""


def test_every_lock_of_the_package_is_made_there():
    """One of `threading` itself would be held for ever in a forked process."""
    found = [
        path.name
        for path in sorted((ROOT / "kernelpkg").rglob("*.py"))
        if re.search(r"\bthreading\.(R?Lock|Condition|Semaphore)\(", path.read_text())
    ]
    assert found == ["locks.py"]
