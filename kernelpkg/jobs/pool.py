"""The pool of workers: jobs are spread over devices, and every job has an outcome.

How a job is handed out, lost and handed on is written here once, for the processes of this host
and for a Ray cluster. Options of `schedule` are for jobs that are tests: they run beside others in
the memory of one device, and one that kills its worker has failed, and is not done again.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal, Protocol, TypeVar

from attrs import define, field

from kernelpkg.errors import UNFORESEEN, UsageError
from kernelpkg.jobs import worker
from kernelpkg.jobs.gpus import cores, driver, visible_devices
from kernelpkg.jobs.job import Job, JobOutcome, JobStatus, Series, Task
from kernelpkg.jobs.worker import Message, WorkerProcess, one_line

__all__ = [
    "Job",
    "JobOutcome",
    "check",
    "cores",
    "driver",
    "run_jobs",
    "schedule",
    "visible_devices",
]

_STARTING: Final = 300.0
"""Seconds that a worker may take to import what jobs need; torch from a slow disk takes 60."""

_ROUND: Final = 1.0
"""Seconds between two looks at the workers, if none says anything."""


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
    """One worker: what it does, since when, and how often in a row it was not there."""

    worker: Worker
    state: Literal["empty", "starting", "ready", "busy", "given up"] = "empty"
    since: float = 0.0
    strikes: int = 0
    task: Task | None = None
    series: Series = field(factory=Series)
    why: str = ""


def run_jobs(
    jobs: Iterable[Job],
    perform: str,
    devices: Sequence[str],
    *,
    facts: Mapping[str, str] = {},
    notice: Notice | None = None,
) -> Generator[JobOutcome, None, None]:
    """Call `perform`, "module:function", for each job, in one process for each device of this host.

    Devices are named as CUDA_VISIBLE_DEVICES names them; "cpu", "cpu:1" and so on see no GPU. A job
    is asked for when a device is free, and outcomes come as jobs end. Only devices whose module
    says these `facts` get jobs. `notice` gets a line for each device that is given up. Closing the
    iterator ends all processes, and so does the death of this one. Raises UsageError.
    """
    workers = [WorkerProcess(device, perform) for device in devices]
    check(perform, devices)
    return schedule(jobs, workers, worker.wait, facts=facts, notice=notice)


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


def schedule(
    jobs: Iterable[Job | Iterable[Job]],
    workers: Sequence[W],
    wait: Wait[W],
    *,
    facts: Mapping[str, str] = {},
    notice: Notice | None = None,
    tries: Literal[1, 2] = 2,
    share: float | None = None,
) -> Generator[JobOutcome, None, None]:
    """Hand jobs to workers and yield the outcomes; ends all workers when it ends, or is closed.

    Among `jobs` may be series of jobs, each of which one worker does in a row.

    A job that was lost is handed to another device once. A device whose worker does not start, or
    which says that it is gone, twice in a row is given up. With `tries` 1, a job that costs its
    worker is lost at once; a device that says it is gone is given up at once, and its job, which is
    not to blame, is handed on.

    `share` is how much of the memory that is free on a device, in bytes by the fact `free` of its
    first worker, the jobs there may take at once. One that does not fit waits for the others.
    """
    slots = [_Slot(worker=worker) for worker in workers]
    pool = _Pool(slots, facts, notice or (lambda _: None), tries, share)
    source = iter(jobs)
    asking = True
    try:
        while True:
            while asking and pool.hungry():
                found = next(source, None)
                if found is None:
                    asking = False
                else:
                    pool.take(found)
            if not pool.living():
                yield from pool.drain(source if asking else iter(()))
                return
            yield from pool.hand_out()
            if pool.idle():
                return
            messages = wait(workers, pool.patience())
            now = time.monotonic()
            for worker, message in messages:
                outcome = pool.hear(worker, message, now)
                if outcome is not None:
                    yield outcome
            yield from pool.overdue(now)
    finally:
        pool.end()


@define(eq=False)
class _Pool:
    """The workers, and the series of jobs that wait for one."""

    slots: list[_Slot]
    facts: Mapping[str, str]
    notice: Notice
    tries: int
    share: float | None
    free: dict[str, float] = field(factory=dict)
    waiting: deque[Series] = field(factory=deque)

    def living(self) -> list[_Slot]:
        return [slot for slot in self.slots if slot.state != "given up"]

    def hungry(self) -> bool:
        """Whether a device has nothing to do, and no job waits for it."""
        free = [slot for slot in self.slots if slot.state in {"empty", "starting", "ready"}]
        return len(self.waiting) < sum(slot.series.next() is None for slot in free)

    def idle(self) -> bool:
        return not self.waiting and all(
            slot.state != "busy" and slot.series.next() is None for slot in self.slots
        )

    def take(self, found: Job | Iterable[Job]) -> None:
        """Let a job wait for a device, or a series of them that is not empty."""
        series = Series([found] if isinstance(found, Job) else found)
        if series.next() is not None:
            self.waiting.append(series)

    def hand_out(self) -> Iterator[JobOutcome]:
        """Give waiting jobs to the workers that are ready, and start workers for the others.

        Yields those that are too large.
        """
        for slot in self.slots:
            while slot.state == "ready" and (task := self._next(slot)) is not None:
                # Memory is admitted before a job is sent: a GPU has no swap, and where its memory
                # runs out, the job that asks last fails, whichever took it.
                most = self.free.get(slot.worker.device, math.inf)
                if task.job.memory > most:
                    yield self._outcome(slot, slot.series.take().job, "large")
                elif task.job.memory + self._in_use(slot.worker.device) > most:
                    break
                else:
                    slot.task, slot.state = slot.series.take(), "busy"
                    slot.since = time.monotonic()
                    slot.worker.send(task.payload)
        starting = sum(
            slot.state == "starting" and slot.series.next() is None for slot in self.slots
        )
        for slot in self.slots:
            if slot.state != "empty":
                continue
            if slot.series.next() is None:
                if starting >= len(self.waiting) or self._for(slot) is None:
                    continue
                starting += 1
            slot.state, slot.since = "starting", time.monotonic()
            try:
                slot.worker.start()
            except OSError as error:
                self._strike(slot, one_line(f"no process can be started: {error}"))

    def _next(self, slot: _Slot) -> Task | None:
        """Return the next job for a device: of its series, or else of one that waits."""
        if slot.series.next() is None and (found := self._for(slot)) is not None:
            self.waiting.remove(found)
            slot.series = found
        return slot.series.next()

    def _for(self, slot: _Slot) -> Series | None:
        """Return the first series for a device: no job that was lost there, if there is another."""
        others = len(self.living()) > 1
        for series in self.waiting:
            task = series.next()
            if task is not None and not (others and task.lost_on is slot):
                return series
        return None

    def _in_use(self, device: str) -> int:
        alike = (slot.task for slot in self.slots if slot.worker.device == device)
        return sum(task.job.memory for task in alike if task is not None)

    def patience(self) -> float:
        """Return the seconds until the first job or worker has taken too long."""
        limits = [limit for slot in self.slots if (limit := _limit(slot)) is not None]
        return max(0.0, min([_ROUND, *(limit - time.monotonic() for limit in limits)]))

    def hear(self, worker: Worker, message: Message, now: float) -> JobOutcome | None:
        """Take note of what a worker says; returns the outcome of its job if this is its end."""
        if (told := UNFORESEEN.get()) is not None:
            for text in message.tracebacks:
                told(text)
        slot = next(slot for slot in self.slots if slot.worker is worker)
        if slot.state in {"empty", "given up"}:
            return None  # the last words of a process that was ended
        if message.kind == "ready":
            slot.state = "ready"
            if self.share is not None:  # of the first: later ones see what jobs take meanwhile
                free = self.share * float(message.value["free"])
                self.free.setdefault(slot.worker.device, free)
            self._compare(slot, message.value)
        elif message.kind == "stuck":
            return self._lose(slot, message.text, now, final=True)
        elif slot.task is None:
            starting = "its worker does not start: " if slot.state == "starting" else ""
            self._strike(slot, starting + message.text)
        elif message.kind == "gone" and self.tries == 1:
            slot.series.first, slot.task = slot.task, None
            self._give_up(slot, message.text)
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
            status: JobStatus = "done" if message.kind == "done" else "failed"
            poisoned = message.kind == "poisoned"
            more = {"value": message.value, "ended": poisoned}
            outcome = self._close(slot, status, message.text, message.seconds, **more)
            if poisoned:
                # A failed kernel leaves its CUDA context broken for good: every later call of the
                # process fails with the same error, which would be blamed on jobs without a fault.
                self._renew(slot)
            return outcome
        return None

    def overdue(self, now: float) -> Iterator[JobOutcome]:
        """End the workers that have taken too long, and yield what becomes of their jobs."""
        for slot in self.slots:
            limit = _limit(slot)
            if limit is None or now < limit:
                continue
            if slot.task is None:
                self._strike(slot, f"its worker did not start within {_STARTING:.0f} s")
            else:
                reason = f"killed after {slot.task.job.timeout:g} s"
                outcome = self._close(slot, "timeout", reason, now - slot.since, ended=True)
                self._renew(slot)
                yield outcome

    def drain(self, source: Iterator[Job | Iterable[Job]]) -> Iterator[JobOutcome]:
        """Yield every job that is left as lost, for no device is."""
        whys = dict.fromkeys(f"{slot.worker.device}: {slot.why}" for slot in self.slots)
        reason = one_line(f"no device is left: {'; '.join(whys)}")
        while True:
            for series in self.waiting:
                while series.next() is not None:
                    job = series.take().job
                    yield JobOutcome(job=job, status="lost", reason=reason)
            self.waiting.clear()
            found = next(source, None)
            if found is None:
                return
            self.take(found)

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
        self, slot: _Slot, status: JobStatus, reason: str, seconds: float, **more: Any
    ) -> JobOutcome:
        """Return the outcome of a device's job, which was there to do it."""
        task, slot.task = slot.task, None
        assert task is not None
        slot.state, slot.strikes = "ready", 0
        if task.losses:
            reason = one_line(f"{reason}; lost before {task.losses[0]}".removeprefix("; "))
        return self._outcome(slot, task.job, status, reason=reason, seconds=seconds, **more)

    def _outcome(self, slot: _Slot, job: Job, status: JobStatus, **more: Any) -> JobOutcome:
        return JobOutcome(job=job, status=status, device=slot.worker.device, **more)

    def _lose(self, slot: _Slot, why: str, now: float, *, final: bool = False) -> JobOutcome | None:
        """Take the job from a device that did not do it; the last time is its outcome."""
        task, slot.task = slot.task, None
        if final:
            self._give_up(slot, why)
        if task is None:
            return None
        task.losses.append(f"on {slot.worker.device}: {why}")
        if len(task.losses) < self.tries:
            task.lost_on = slot
            self.waiting.appendleft(Series(first=task))
            return None
        reason = one_line(f"lost twice, {'; '.join(task.losses)}") if self.tries > 1 else why
        seconds = now - slot.since
        return self._outcome(slot, task.job, "lost", reason=reason, seconds=seconds, ended=True)

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
        if slot.series.next() is not None:
            self.waiting.appendleft(slot.series)
            slot.series = Series()
        self.notice(f"device {slot.worker.device} is given up: {why}")


def _limit(slot: _Slot) -> float | None:
    """Return the time at which a worker has taken too long, or None where it never has."""
    if slot.state == "starting":
        return slot.since + _STARTING
    if slot.task is None or slot.task.job.timeout is None:
        return None
    return slot.since + slot.task.job.timeout
