"""Jobs spread over devices: one worker for each, and every job has an outcome.

How a job is handed out, lost and handed on is written here once, for the processes of this host
and for a Ray cluster.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal, Protocol, TypeVar

from attrs import define, field, frozen

from kernelpkg.errors import UsageError
from kernelpkg.jobs import process
from kernelpkg.jobs.gpus import visible_devices
from kernelpkg.jobs.process import Message, WorkerProcess, one_line

__all__ = ["Job", "Outcome", "check", "conduct", "run_jobs", "visible_devices"]

Status = Literal["done", "failed", "timeout", "lost"]

_STARTING: Final = 300.0
"""Seconds that a worker may take to import what jobs need; torch from a slow disk takes 60."""

_ROUND: Final = 1.0
"""Seconds between two looks at the workers, if none says anything."""


@frozen(kw_only=True)
class Job:
    """Something to do on a device: `payload` is plain JSON, `timeout` is in seconds."""

    id: str
    payload: Mapping[str, Any]
    timeout: float | None


@frozen(kw_only=True)
class Outcome:
    """What became of a job, on which device, and in how many seconds.

    `done` has a value, and a reason only where the job was lost elsewhere before; `failed` raised
    an error; `timeout` ran for too long and was killed; `lost` ended its worker twice, or found no
    device.
    """

    job: Job
    status: Status
    value: Any = None
    reason: str = ""
    device: str
    seconds: float


class Worker(Protocol):
    """What does jobs on one device, one at a time."""

    @property
    def device(self) -> str:
        """The device, as outcomes name it."""

    def start(self) -> None:
        """Start; the first message is `ready`, or why it is not. May raise OSError."""

    def send(self, payload: str) -> None:
        """Do a job, once it is ready."""

    def leave(self) -> None:
        """Tell it to end, without a job."""

    def end(self) -> None:
        """Tell it to end at once, and all that it started."""

    def finish(self) -> bool:
        """Wait until it has ended; False where it does not end."""


W = TypeVar("W", bound=Worker)
Wait = Callable[[Sequence[W], float], list[tuple[W, Message]]]
Notice = Callable[[str], None]


@define(eq=False, kw_only=True)
class _Slot:
    """One device: what its worker does, since when, and how often in a row it was not there."""

    worker: Worker
    state: Literal["empty", "starting", "ready", "busy", "given up"] = "empty"
    since: float = 0.0
    strikes: int = 0
    task: _Task | None = None
    why: str = ""


@define(eq=False, kw_only=True)
class _Task:
    """A job that has no outcome yet, and on which devices it was lost."""

    job: Job
    payload: str
    losses: list[str] = field(factory=list)
    lost_on: _Slot | None = None


def run_jobs(
    jobs: Iterable[Job],
    perform: str,
    devices: Sequence[str],
    *,
    facts: Mapping[str, str] = {},
    notice: Notice | None = None,
) -> Iterator[Outcome]:
    """Call `perform`, "module:function", for each job, in one process for each device of this host.

    Devices are named as CUDA_VISIBLE_DEVICES names them; "cpu", "cpu:1" and so on see no GPU. A job
    is asked for when a device is free, and outcomes come as jobs end. Only devices whose module
    says these `facts` get jobs. `notice` gets a line for each device that is given up. Closing the
    iterator ends all processes, and so does the death of this one. Raises UsageError.
    """
    workers = [WorkerProcess(device, perform) for device in devices]
    check(perform, devices)
    return conduct(jobs, workers, process.wait, facts=facts, notice=notice)


def check(perform: str, devices: Sequence[str]) -> None:
    """Raise UsageError where jobs cannot be spread like this."""
    module, colon, name = perform.partition(":")
    if not (colon and name.isidentifier() and all(map(str.isidentifier, module.split(".")))):
        raise UsageError(f"'{perform}' names no function; write it as module:function")
    if not devices:
        raise UsageError("there is no device to spread jobs over")
    twice = sorted({device for device in devices if list(devices).count(device) > 1})
    if twice:
        raise UsageError(f"device '{twice[0]}' is named twice; one process runs on each")


def conduct(
    jobs: Iterable[Job],
    workers: Sequence[W],
    wait: Wait[W],
    *,
    facts: Mapping[str, str] = {},
    notice: Notice | None = None,
) -> Iterator[Outcome]:
    """Hand jobs to workers and yield the outcomes; ends all workers when it ends, or is closed.

    A job that was lost is handed to another device once. A device whose worker does not start, or
    which says that it is gone, twice in a row is given up.
    """
    conductor = _Conductor(workers, facts, notice or (lambda _: None))
    source = iter(jobs)
    asking = True
    try:
        while True:
            while asking and conductor.hungry():
                job = next(source, None)
                if job is None:
                    asking = False
                else:
                    conductor.take(job)
            if not conductor.living():
                yield from conductor.drain(source if asking else iter(()))
                return
            conductor.hand_out()
            if conductor.idle():
                return
            messages = wait(workers, conductor.patience())
            now = time.monotonic()
            for worker, message in messages:
                outcome = conductor.hear(worker, message, now)
                if outcome is not None:
                    yield outcome
            yield from conductor.overdue(now)
    finally:
        conductor.end()


class _Conductor:
    """The devices and the jobs that wait for one."""

    def __init__(self, workers: Sequence[Worker], facts: Mapping[str, str], notice: Notice) -> None:
        self.slots: Final = [_Slot(worker=worker) for worker in workers]
        self.facts: Final = facts
        self.notice: Final = notice
        self.waiting: Final[deque[_Task]] = deque()

    def living(self) -> list[_Slot]:
        return [slot for slot in self.slots if slot.state != "given up"]

    def hungry(self) -> bool:
        """Whether a device has nothing to do, and no job waits for it."""
        free = sum(slot.state in {"empty", "starting", "ready"} for slot in self.slots)
        return len(self.waiting) < free

    def idle(self) -> bool:
        return not self.waiting and all(slot.state != "busy" for slot in self.slots)

    def take(self, job: Job) -> None:
        self.waiting.append(_Task(job=job, payload=json.dumps(job.payload)))

    def hand_out(self) -> None:
        """Give waiting jobs to the workers that are ready, and start workers for the others."""
        for slot in self.slots:
            task = self._for(slot) if slot.state == "ready" else None
            if task is not None:
                self.waiting.remove(task)
                slot.task, slot.state, slot.since = task, "busy", time.monotonic()
                slot.worker.send(task.payload)
        starting = sum(slot.state == "starting" for slot in self.slots)
        for slot in self.slots:
            if slot.state == "empty" and starting < len(self.waiting) and self._for(slot):
                starting += 1
                slot.state, slot.since = "starting", time.monotonic()
                try:
                    slot.worker.start()
                except OSError as error:
                    self._strike(slot, one_line(f"no process can be started: {error}"))

    def _for(self, slot: _Slot) -> _Task | None:
        """Return the first job for a device: not one that was lost there, if there is another."""
        others = len(self.living()) > 1
        return next((task for task in self.waiting if not (others and task.lost_on is slot)), None)

    def patience(self) -> float:
        """Return the seconds until the first job or worker has taken too long."""
        limits = [limit for slot in self.slots if (limit := _limit(slot)) is not None]
        return max(0.0, min([_ROUND, *(limit - time.monotonic() for limit in limits)]))

    def hear(self, worker: Worker, message: Message, now: float) -> Outcome | None:
        """Take note of what a worker says; returns the outcome of its job if this is its end."""
        slot = next(slot for slot in self.slots if slot.worker is worker)
        if slot.state in {"empty", "given up"}:
            return None  # the last words of a process that was ended
        if message.kind == "ready":
            slot.state = "ready"
            self._compare(slot, message.value)
        elif message.kind == "stuck":
            return self._lose(slot, message.text, now, final=True)
        elif slot.task is None:
            starting = "its worker does not start: " if slot.state == "starting" else ""
            self._strike(slot, starting + message.text)
        elif message.kind == "gone":
            again = slot.task.lost_on is slot
            outcome = self._lose(slot, message.text, now)
            if again:
                self._renew(slot)  # one job that says so, twice, may be what is wrong
            else:
                self._strike(slot, message.text)
            return outcome
        elif message.kind == "died":
            outcome = self._lose(slot, message.text, now)
            self._renew(slot)
            return outcome
        else:
            status: Status = "done" if message.kind == "done" else "failed"
            outcome = self._close(slot, status, message.text, message.seconds, message.value)
            if message.kind == "poisoned":
                self._renew(slot)
            return outcome
        return None

    def overdue(self, now: float) -> Iterator[Outcome]:
        """End the workers that have taken too long, and yield what becomes of their jobs."""
        for slot in self.slots:
            limit = _limit(slot)
            if limit is None or now < limit:
                continue
            if slot.task is None:
                self._strike(slot, f"its worker did not start within {_STARTING:.0f} s")
            else:
                reason = f"killed after {slot.task.job.timeout:g} s"
                outcome = self._close(slot, "timeout", reason, now - slot.since)
                self._renew(slot)
                yield outcome

    def drain(self, source: Iterator[Job]) -> Iterator[Outcome]:
        """Yield every job that is left as lost, for no device is."""
        whys = "; ".join(f"{slot.worker.device}: {slot.why}" for slot in self.slots)
        reason = one_line(f"no device is left: {whys}")
        while self.waiting:
            job = self.waiting.popleft().job
            yield Outcome(job=job, status="lost", reason=reason, device="", seconds=0.0)
        for job in source:
            yield Outcome(job=job, status="lost", reason=reason, device="", seconds=0.0)

    def end(self) -> None:
        """End all workers: those without a job may tidy up, for two seconds."""
        for slot in self.slots:
            if slot.state == "ready":
                slot.worker.leave()
            elif slot.state in {"starting", "busy"}:
                slot.worker.end()
        for slot in self.slots:
            slot.worker.finish()

    def _close(
        self, slot: _Slot, status: Status, reason: str, seconds: float, value: Any = None
    ) -> Outcome:
        """Return the outcome of a device's job, which was there to do it."""
        task, slot.task = slot.task, None
        assert task is not None
        slot.state, slot.strikes = "ready", 0
        if task.losses:
            reason = one_line(f"{reason}; lost before {task.losses[0]}".removeprefix("; "))
        return Outcome(
            job=task.job,
            status=status,
            value=value,
            reason=reason,
            device=slot.worker.device,
            seconds=seconds,
        )

    def _lose(self, slot: _Slot, why: str, now: float, *, final: bool = False) -> Outcome | None:
        """Take the job from a device that did not do it; the second time is its outcome."""
        task, slot.task = slot.task, None
        if final:
            self._give_up(slot, why)
        if task is None:
            return None
        task.losses.append(f"on {slot.worker.device}: {why}")
        if len(task.losses) == 1:
            task.lost_on = slot
            self.waiting.appendleft(task)
            return None
        return Outcome(
            job=task.job,
            status="lost",
            reason=one_line(f"lost twice, {'; '.join(task.losses)}"),
            device=slot.worker.device,
            seconds=now - slot.since,
        )

    def _compare(self, slot: _Slot, facts: Mapping[str, str]) -> None:
        """Give up a device that is not of the kind that jobs are for."""
        for name, wanted in self.facts.items():
            if facts.get(name) != wanted:
                got = f"'{facts[name]}'" if name in facts else "not known"
                self._give_up(slot, f"its {name} is {got}, not '{wanted}'")
                return

    def _strike(self, slot: _Slot, why: str) -> None:
        """Note that a device is not there; the second time in a row it is given up."""
        slot.strikes += 1
        if slot.strikes > 1:
            self._give_up(slot, why)
        else:
            self._renew(slot)

    def _renew(self, slot: _Slot) -> None:
        """End a worker; another one is started when a job waits for it."""
        slot.state = "empty"
        slot.worker.end()
        if not slot.worker.finish():
            self._give_up(slot, "its process cannot be killed")

    def _give_up(self, slot: _Slot, why: str) -> None:
        if slot.state != "empty":
            slot.worker.end()
            slot.worker.finish()
        slot.state, slot.why = "given up", why
        self.notice(f"device {slot.worker.device} is given up: {why}")


def _limit(slot: _Slot) -> float | None:
    """Return the time at which a worker has taken too long, or None where it never has."""
    if slot.state == "starting":
        return slot.since + _STARTING
    if slot.task is None or slot.task.job.timeout is None:
        return None
    return slot.since + slot.task.job.timeout
