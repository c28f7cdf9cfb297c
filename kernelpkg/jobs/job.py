"""Job: something to do on a device, what became of it, and series of jobs that belong together."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

from attrs import define, field, frozen

JobStatus = Literal["done", "failed", "timeout", "lost", "large"]


@frozen(kw_only=True)
class Job:
    """Something to do on a device: `payload` is plain JSON, `timeout` is in seconds.

    `memory` is about how many bytes of the device it takes, for a pool that has a `share`.
    """

    id: str
    payload: Mapping[str, Any]
    timeout: float | None
    memory: int = 0


@frozen(kw_only=True)
class JobOutcome:
    """What became of a job, on which device, and in how many seconds.

    `done` has a value, and a reason only where the job was lost elsewhere before; `failed` raised
    an error; `timeout` ran for too long and was killed; `lost` ended its worker as often as it was
    tried, or found no device; `large` takes more memory than its device has free. `ended` says
    that the job cost its worker: another process does the jobs after it.
    """

    job: Job
    status: JobStatus
    value: Any = None
    reason: str = ""
    device: str = ""
    seconds: float = 0.0
    ended: bool = False


@define(eq=False, kw_only=True)
class Task:
    """A job that has no outcome yet, and on which devices it was lost."""

    job: Job
    payload: str
    losses: list[str] = field(factory=list)
    lost_on: object = None


class Series:
    """Jobs that one worker does in a row, each asked for when it is the next."""

    def __init__(self, jobs: Iterable[Job] = (), first: Task | None = None) -> None:
        self.first = first
        self._rest: Iterator[Job] = iter(jobs)

    def next(self) -> Task | None:
        """Return the job that is next, or None at the end; it is the next until it is taken."""
        if self.first is None:
            job = next(self._rest, None)
            if job is not None:
                self.first = Task(job=job, payload=json.dumps(job.payload))
        return self.first

    def take(self) -> Task:
        """Return the job that is next, and go on to the one after it."""
        task, self.first = self.first, None
        assert task is not None
        return task
