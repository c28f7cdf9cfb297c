"""Process of a worker on this host, as the pool sees it: it is started, asked and ended."""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO, Any, Final, Literal

from attrs import asdict, evolve, field, frozen

from kernelpkg.errors import UNFORESEEN, error_line, led_to

# `sys.path` comes along, for it may hold what no environment says. Until `main` has forked, nothing
# is imported but the standard library: torch would start threads (see `reaper`).
_CODE: Final = """\
import json, sys
jobs, answers, perform, belongings, sys.path[:] = json.loads(sys.argv[1])
from kernelpkg.jobs.reaper import main
main(jobs, answers, perform, belongings)
"""
_MOST: Final = 1 << 24
"""Bytes of output that are kept of a job; a file that grew beyond them starts anew."""

_TAIL: Final = 2000
_LEAVING: Final = 2.0
_DYING: Final = 15.0


class WorkerProcess:
    """One device of this host, and the process that does jobs on it while there is one.

    The process is in a session of its own: Ctrl-C does not reach it, and its output goes to a
    nameless file. With the end of the process, however it comes, its directory `belongings` is
    removed.
    """

    def __init__(self, device: str, perform: str, belongings: str | None = None) -> None:
        self.device: Final = device
        self.perform: Final = perform
        self.belongings: Final = belongings
        self._process: subprocess.Popen[bytes] | None = None
        self._jobs = self._answers = -1
        self._buffer = b""
        self._output: IO[bytes] | None = None

    def start(self) -> None:
        """Start the process; its first message says that it is ready, or why it is not.

        Raises OSError where this host has no room for it.
        """
        # A pipe that nobody reads would stop a job that prints; a file takes all, and its last line
        # says why a process died. Appending, so that each writer sees what `truncate` has done.
        output = tempfile.TemporaryFile()  # noqa: SIM115  # it is open for as long as the process
        flags = fcntl.fcntl(output, fcntl.F_GETFL)
        fcntl.fcntl(output, fcntl.F_SETFL, flags | os.O_APPEND)
        inner_jobs, jobs = os.pipe()
        answers, inner_answers = os.pipe()
        os.set_blocking(answers, False)
        told = [inner_jobs, inner_answers, self.perform, self.belongings, sys.path]
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _CODE, json.dumps(told)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=(inner_jobs, inner_answers),
                start_new_session=True,  # Ctrl-C on the terminal is the pool's to answer
                env=environment_of(self.device, os.environ),
            )
        except BaseException:
            os.close(jobs)
            os.close(answers)
            output.close()
            raise
        finally:
            os.close(inner_jobs)
            os.close(inner_answers)
        self._jobs, self._answers, self._output, self._buffer = jobs, answers, output, b""

    def send(self, payload: str) -> None:
        """Give the process, which is ready, a job, as one line of JSON."""
        assert self._output is not None
        self._output.truncate(0)
        self._write(payload)

    def leave(self) -> None:
        """Ask a process that has no job to end, so that it may tidy up."""
        self._write("")

    def end(self) -> None:
        """Tell the process to end with all that it started, in the midst of a job."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)

    def finish(self) -> bool:
        """Wait for the end of a process that was told so; one that does not end is killed.

        False where something is still there, as what hangs in a driver is.
        """
        if self._process is None:
            return True
        for seconds, end in ((_LEAVING, self.end), (_DYING, self._process.kill)):
            try:
                self._process.wait(seconds)
                break
            except subprocess.TimeoutExpired:
                end()
        return all(message.kind != "stuck" for message in self.receive())

    def _write(self, line: str) -> None:
        data = f"{line}\n".encode()
        with contextlib.suppress(BrokenPipeError):  # its last message says that it dies
            while data:
                data = data[os.write(self._jobs, data) :]

    def receive(self) -> list[Message]:
        """Return what the process has said by now; after `died` or `stuck` there is no process."""
        if self._process is None or self._output is None:
            return []
        if os.fstat(self._output.fileno()).st_size > _MOST:
            self._output.truncate(0)
        ended = self._process.poll() is not None  # before reading: what it wrote is there
        ended = self._read() or ended
        *lines, self._buffer = self._buffer.split(b"\n")
        found = [message for line in lines if (message := _message(line)) is not None]
        end = found.pop() if found and found[-1].kind in {"died", "stuck"} else None
        if end is None and not ended:
            return found
        end = end or Message(kind="died", text="its process disappeared")
        if tail := self._tail():
            end = evolve(end, text=one_line(f"{end.text}: {tail}"))
        self._process.wait()
        os.close(self._jobs)
        os.close(self._answers)
        self._output.close()
        self._process = None
        return [*found, end]

    def _read(self) -> bool:
        """Read what is there; True where nothing will ever come again."""
        while True:
            try:
                data = os.read(self._answers, 1 << 16)
            except BlockingIOError:
                return False
            if not data:
                return True
            self._buffer += data

    def _tail(self) -> str:
        """Return the last line of the output of the job."""
        assert self._output is not None
        size = self._output.seek(0, os.SEEK_END)
        self._output.seek(max(0, size - _TAIL))
        lines = self._output.read().decode(errors="replace").splitlines()
        return next((line.strip() for line in reversed(lines) if line.strip()), "")

    def fileno(self) -> int:
        """Return what becomes readable with the next message, or -1 where there is no process."""
        return -1 if self._process is None else self._answers


def wait(workers: Sequence[WorkerProcess], seconds: float) -> list[tuple[WorkerProcess, Message]]:
    """Wait for messages of workers, at most so many seconds, and return them."""
    started = [worker for worker in workers if worker.fileno() >= 0]
    poll = select.poll()
    for worker in started:
        poll.register(worker.fileno(), select.POLLIN)
    poll.poll(1000 * seconds)
    return [(worker, message) for worker in started for message in worker.receive()]


def environment_of(device: str, environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment in which a process sees one GPU; for "cpu", "cpu:1" and so on, none."""
    visible = "" if device.partition(":")[0] == "cpu" else device
    names = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES")
    return {**environment, **dict.fromkeys(names, visible)}


def _message(line: bytes) -> Message | None:
    """Read a line; None for one that is empty, or was cut off by the end of its process."""
    try:
        return loads(line.decode())
    except (ValueError, TypeError):
        return None


MessageKind = Literal["ready", "done", "failed", "poisoned", "gone", "refused", "died", "stuck"]

_LONG: Final = 300
"""How much of an error a reason holds."""

_TRACEBACKS: Final = 8
_TRACEBACK: Final = 20_000
"""The most tracebacks of a message, and the most characters of one: a search for configs meets
hundreds of errors, and Helion's texts go on for pages."""

_GONE: Final = (
    "no cuda-capable device",
    "no rocm-capable device",
    "no hip gpus are available",
    "no cuda gpus are available",
    "found no nvidia driver",
    "busy or unavailable",
    "cuda driver initialization failed",
    "cuda unknown error",
    "device lost",
    "gpu is lost",
    "fallen off the bus",
    "uncorrectable ecc",
    "uncorrectable nvlink",
    "hardware stack error",
    "system not yet initialized",
    "cuda_error_no_device",
    "cuda_error_device_unavailable",
    "hiperrornodevice",
)
"""What CUDA, HIP and PyTorch say of a GPU that is not there any more, in lower case."""

_POISONED: Final = (
    "cuda error",
    "hip error",
    "triton error [cuda]",
    "triton error [hip]",
    "illegal memory access",
    "illegal instruction",
    "misaligned address",
    "device-side assert",
    "unspecified launch failure",
    "launch timed out",
    "memory access fault",
)
"""What they say once the context may be broken: each later call in the process fails as well."""

_HARMLESS: Final = ("out of memory", "out of resource")
"""Errors of the same form that leave the context whole.

A process that ran out of memory goes on: to take these for broken would cost an import of torch and
Helion, 8 s, for each config that is too large.
"""


def _texts(found: Sequence[str]) -> tuple[str, ...]:
    return tuple(found)


@frozen(kw_only=True)
class Message:
    """What a worker says of itself or of the job it got; `seconds` is the time of the job.

    `ready` has the facts of the worker as value, and `done` the result. After `failed` the worker
    goes on; after `poisoned` the job failed, and the process is of no more use; `gone` says that
    the device is; `refused` that the worker cannot start; `died` that its process ended, and
    `stuck` that it does not. `tracebacks` are those of unforeseen errors, also of a `done` job.
    """

    kind: MessageKind
    value: Any = None
    text: str = ""
    seconds: float = 0.0
    tracebacks: tuple[str, ...] = field(default=(), converter=_texts)

    def dumps(self) -> str:
        """Return the message as one line of JSON; raises TypeError where a value is not JSON."""
        return json.dumps(asdict(self, recurse=False), separators=(",", ":"))


def loads(line: str) -> Message:
    """Read what `Message.dumps` wrote."""
    return Message(**json.loads(line))


def one_line(text: str) -> str:
    """Return a text on one line, shortened to what a reason can hold."""
    words = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return words if len(words) <= _LONG else f"{words[: _LONG - 1]}…"


class Call:
    """A function that is named "module:function", imported here, and what its module says of here.

    A module may have `facts()`, which returns what sets one device apart from another, such as the
    name of the GPU, as texts; it also finds a device that is broken before a job does.
    """

    def __init__(self, perform: str) -> None:
        module, _, name = perform.partition(":")
        found = importlib.import_module(module)
        self.function: Callable[[Any], Any] = getattr(found, name)
        facts: Callable[[], Mapping[str, str]] = getattr(found, "facts", dict)
        self.ready: Final = Message(kind="ready", value=dict(facts()))

    def answer(self, payload: Any) -> str:
        """Perform one job, and return the message of its end, as JSON; whatever it raises."""
        begin = time.perf_counter()
        with _tracebacks() as found:
            try:
                value = self.function(payload)
                seconds = time.perf_counter() - begin
                done = Message(kind="done", value=value, seconds=seconds, tracebacks=found)
                return done.dumps()
            except BaseException as error:  # an exit or an interrupt of the job is its failure too
                seconds = time.perf_counter() - begin
                kind, text = _kind(error), _said(error)
                return Message(kind=kind, text=text, seconds=seconds, tracebacks=found).dumps()


def start(perform: str) -> tuple[Call | None, str]:
    """Import what jobs need; returns the message that says it, or why it cannot be."""
    with _tracebacks() as found:
        try:
            call = Call(perform)
            return call, call.ready.dumps()
        except BaseException as error:
            return None, Message(kind="refused", text=_said(error), tracebacks=found).dumps()


def _shortened(text: str) -> str:
    """Leave out the middle of a long traceback: what was raised last stands at its end."""
    half = _TRACEBACK // 2
    return text if len(text) <= _TRACEBACK else f"{text[:half]}\n…\n{text[-half:]}"


@contextlib.contextmanager
def _tracebacks() -> Iterator[list[str]]:
    """Collect the tracebacks of the errors inside, each once, and the first few of many."""
    found: list[str] = []
    seen: set[str] = set()

    def take(text: str) -> None:
        if len(found) < _TRACEBACKS and text not in seen:
            seen.add(text)
            found.append(_shortened(text))

    before = UNFORESEEN.set(take)
    try:
        yield found
    finally:
        UNFORESEEN.reset(before)


def _said(error: BaseException) -> str:
    """Return what an error says, and behind it its notes, which are not cut off."""
    return " ".join(map(one_line, [error_line(error), *getattr(error, "__notes__", ())]))


def _kind(error: BaseException) -> MessageKind:
    """Tell from an error, and from those behind it, what is left of the process and its device.

    By texts: CUDA, Triton and PyTorch raise RuntimeError for all of it, and an exception of a
    compiler may hide the one of the driver behind it.
    """
    seen = ["".join(traceback.format_exception_only(link)).lower() for link in led_to(error)]
    if any(phrase in text for text in seen for phrase in _GONE):
        return "gone"
    for text in seen:
        harmless = any(phrase in text for phrase in _HARMLESS)
        if not harmless and any(phrase in text for phrase in _POISONED):
            return "poisoned"
    return "failed"
