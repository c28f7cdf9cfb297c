"""Reaper: the process around a worker; nothing the worker starts outlives it, or its pool.

A reaper forks before anything heavy is imported. Its child does the jobs and starts what it
likes, in sessions of their own too (Helion's autotuner does); the reaper adopts every orphan
below it.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import json
import os
import select
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Final

from kernelpkg.jobs.worker import Message, start

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36

_KILLING: Final = 10.0
"""Seconds until a process that SIGKILL does not end, for it hangs in its driver, is left alone.

Linux ends it only once its driver returns, and that of a GPU which is lost may not: waiting for it
would stop all other jobs.
"""


def main(jobs: int, answers: int, perform: str, belongings: str | None) -> None:
    """Take jobs from one file descriptor, a line each, and write answers to the other.

    Ends when the other end of `jobs` is closed, as it is when its process dies, and at SIGTERM.
    The directory `belongings` is removed then. There are two reapers, one around the other, for
    either may be killed: Ray, where it ends an actor, kills the children of its process. Of 440
    kills of one process or another, none lost a job or left a process.
    """
    for outer in (True, False):
        above = os.getpid()
        _guard(jobs, answers, belongings, outer=outer)
    os.setpgid(0, 0)  # what signals its own group does not meet the reapers
    # A worker whose reaper is killed would go on without anybody to end it.
    _control(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() == above:  # else that one died before prctl, whose signal never comes
        _work(jobs, answers, perform)


def _guard(jobs: int, answers: int, belongings: str | None, *, outer: bool) -> None:
    """Fork, and watch over the child to the end; only the child returns.

    This must run before torch is imported: a process that forks with threads, as torch and CUDA
    start, has a child in which their locks stay locked, and a context of CUDA does not survive it.
    """
    # SIGCHLD and SIGTERM become bytes in a pipe, so that one `poll` waits for both of them and for
    # the end of the pool; a handler alone does not end `poll`, which Python resumes (PEP 475).
    wake, waker = os.pipe()
    os.set_blocking(waker, False)
    signal.set_wakeup_fd(waker)
    for number in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    # Orphans below become children of this process, and not of init, where no search would find
    # them: a job's process that forks twice, or starts a session, is still ended with the job.
    _control(_PR_SET_CHILD_SUBREAPER, 1)
    child = os.fork()
    if child:
        status = _watch(child, jobs, wake)
        clean = _end_all()
        if belongings is not None:
            shutil.rmtree(belongings, ignore_errors=True)
        if not (outer and status == 0):  # else the inner one has said it
            _say_end(answers, status, clean)
        os._exit(0)  # nothing is left to tidy up, and the child has the streams
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    os.close(wake)
    os.close(waker)


def _work(jobs: int, answers: int, perform: str) -> None:
    """Do jobs one after the other; an empty line ends the work."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # its last line says why the process died
    call, ready = start(perform)
    _write(answers, ready)
    if call is None:
        return
    with os.fdopen(jobs) as lines:
        for line in lines:
            if not line.strip():
                return
            _write(answers, call.answer(json.loads(line)))


def _watch(child: int, jobs: int, wake: int) -> int | None:
    """Wait for the end of a child, and return its status, or None for that of the pool."""
    poll = select.poll()
    poll.register(jobs, 0)  # never read here; that its other end is closed is always told
    poll.register(wake, select.POLLIN)
    status: int | None = None
    asked = False
    while status is None and not asked:
        for descriptor, _ in poll.poll():
            asked |= descriptor == jobs or signal.SIGTERM in os.read(wake, 512)
        status = _reap(child)
    return status


def _say_end(answers: int, status: int | None, clean: bool) -> None:
    if clean:
        end = Message(kind="died", text=_ending(status))
    else:
        end = Message(kind="stuck", text="its process cannot be killed")
    with contextlib.suppress(OSError):  # of a pool that is there no more
        _write(answers, f"\n{end.dumps()}")


def _reap(child: int) -> int | None:
    """Take the status of all children that have ended, and return that of one if it is there."""
    found = None
    try:
        while True:
            process, status = os.waitpid(-1, os.WNOHANG)
            if not process:
                return found
            if process == child:
                found = status
    except ChildProcessError:
        return found


def _end_all() -> bool:
    """Kill every process below this one; False if some are still there after ten seconds.

    Again and again, for what is killed may have forked since the list was read, and orphans come
    to this process as their parents end. SIGKILL at once, for a job may ignore SIGTERM.
    """
    until = time.monotonic() + _KILLING
    while True:
        _reap(0)
        below = _below(os.getpid())
        if not below:
            return True
        if time.monotonic() > until:
            return False
        for process in below:
            with contextlib.suppress(OSError):  # of one that was quicker
                os.kill(process, signal.SIGKILL)
        time.sleep(0.002)


def _below(root: int) -> list[int]:
    """Return all descendants of a process, from what /proc says of parents.

    A process group would be simpler, and misses those that made a session of their own.
    """
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdecimal():
            try:
                text = Path("/proc", entry, "stat").read_text(errors="replace")
            except OSError:
                continue
            parent = int(text.rpartition(")")[2].split()[1])  # a name may hold ")" and spaces
            children.setdefault(parent, []).append(int(entry))
    found = children.get(root, [])
    for process in found:
        found += children.get(process, [])
    return found


def _ending(status: int | None) -> str:
    """Say how a process ended, from its status; None stands for one that was asked to."""
    code = 0 if status is None else os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"its process ended with status {code}"
    try:
        return f"its process was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"its process was ended by signal {-code}"


def _write(descriptor: int, line: str) -> None:
    data = f"{line}\n".encode()
    while data:
        data = data[os.write(descriptor, data) :]


def _control(option: int, value: int) -> None:
    """Call prctl(2); where it is refused, orphans of a killed reaper are all that is lost."""
    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)
