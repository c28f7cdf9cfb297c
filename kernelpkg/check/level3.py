"""Level 3 of `check`: every tuned case, and calls around them, run against the reference."""

from __future__ import annotations

import json
import os
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Final

from attrs import define, field, frozen

from kernelpkg.check.run_plan import Kind, Run, plan_runs
from kernelpkg.configs.platforms import Platform
from kernelpkg.configs.search_path import search_path
from kernelpkg.errors import Checked, Problem, Progress
from kernelpkg.jobs.process import Message, WorkerProcess, wait
from kernelpkg.manifest.cases import shown_bytes
from kernelpkg.manifest.document import json_lines
from kernelpkg.manifest.spec import KernelSpec, PackSpec
from kernelpkg.packs.read import problem_at

RUN_SECONDS: Final = 120.0
"""How long one run may take; the slowest compilations of Helion's are a quarter of it."""

_START_SECONDS: Final = 300.0
"""How long a process may take to import Helion; 8 s, and more from a cold network disk."""

_TOGETHER: Final = 16
"""How many runs in a row one process gets, so that it can use again what it compiled."""

_LOST: Final = 3
"""After so many runs that hung or cost their process, the others of an op are not made."""

_SHARE: Final = 0.8
"""How much of the free memory of a device the runs on it may be thought to take."""

_CODES: Final[Mapping[Kind, str]] = {
    "tuned": "KP260",
    "call": "KP261",
    "orders": "KP262",
    "opcheck": "KP263",
}
_PERFORM: Final = "kernelpkg.check.caserun:perform"


@frozen(kw_only=True)
class Place:
    """What runs are made on: "cpu" or "cuda", its platform, and the GPUs, as CUDA names them."""

    device: str
    here: Platform
    interpret: bool
    gpus: tuple[str, ...]


def check_runs(
    pack: PackSpec,
    specs: Sequence[KernelSpec],
    platforms: Sequence[str] | None = None,
    device: str = "auto",
    progress: Progress = lambda *_: None,
    jobs: int | None = None,
    *,
    seconds: float = RUN_SECONDS,
) -> Checked:
    """Run the ops of a pack on this machine and hold them against their references.

    `platforms` restricts it to the configs of some. `jobs` is the number of processes; None for
    three for every four cores on a GPU, and one for each in the interpreter. `seconds` is how long
    one run may take. Raises UsageError where there is no such device.
    """
    place = _place(pack, device)
    planned = [
        plan_runs(pack, spec, place.here, interpret=place.interpret, platforms=platforms)
        for spec in specs
    ]
    runs = [run for found in planned for run in found.runs]
    conductor = _Conductor(pack=pack, place=place, seconds=seconds, progress=progress)
    for _, group in groupby(runs, key=lambda run: run.group):
        alike = list(group)
        chunks = (alike[at : at + _TOGETHER] for at in range(0, len(alike), _TOGETHER))
        conductor.waiting.extend(map(deque, chunks))
    conductor.conduct(len(runs), jobs or _jobs(place))
    findings = [finding for found in planned for finding in found.findings]
    findings += _Telling(pack).findings(conductor.results)
    made = [run for run, status, _ in conductor.results if status in ("ok", "error", "lost")]
    counts = {
        "runs": len(made),
        "tuned_runs": sum(run.kind == "tuned" for run in made),
        "runs_left_out": sum(found.left for found in planned)
        + sum(status in ("memory", "left", "broken") for _, status, _ in conductor.results),
    }
    return Checked(findings=tuple(dict.fromkeys(findings)), counts=counts)


def _place(pack: PackSpec, device: str) -> Place:
    import torch

    from kernelpkg.runtime.torch_ops import detect  # they say what this machine has

    machine = detect(device, extra=pack.platforms, variants=pack.variants)  # type: ignore[arg-type]  # it refuses any other word
    gpus: list[str] = []
    if machine.device == "cuda":
        given = os.environ.get("CUDA_VISIBLE_DEVICES")
        names = given.split(",") if given else list(map(str, range(torch.cuda.device_count())))
        first = torch.cuda.get_device_name(0)
        alike = [torch.cuda.get_device_name(at) == first for at in range(torch.cuda.device_count())]
        gpus = [name for name, same in zip(names, alike, strict=False) if same]
    return Place(
        device=machine.device,
        here=machine.platform,
        interpret=machine.interpret,
        gpus=tuple(gpus),
    )


def _jobs(place: Place) -> int:
    cores = len(os.sched_getaffinity(0))
    return cores if place.interpret else max(1, cores * 3 // 4)


@define(eq=False)
class _Post:
    """A process that makes runs, what it is at, and what it has to do after that."""

    worker: WorkerProcess
    ready: bool = False
    tries: int = 0
    until: float = 0.0
    at: Run | None = None
    runs: deque[Run] = field(factory=deque)


@define(kw_only=True, eq=False)
class _Conductor:
    """Hands runs to processes, and takes their results one by one.

    A run that hangs or kills its process is lost alone: the others go on in a fresh one. Runs that
    together take more than a device's free memory wait for each other.
    """

    pack: PackSpec
    place: Place
    seconds: float
    progress: Progress
    waiting: deque[deque[Run]] = field(factory=deque)
    results: list[tuple[Run, str, Any]] = field(factory=list)
    posts: list[_Post] = field(factory=list)
    free: dict[str, float] = field(factory=dict)
    lost: dict[str, int] = field(factory=dict)
    steps: int = 0
    trouble: str = ""

    def conduct(self, steps: int, jobs: int) -> None:
        """Make all runs that wait, with so many processes at most."""
        self.steps = steps
        self.progress("starting processes", 0, steps)
        for number in range(min(jobs, len(self.waiting))):
            device = self.place.gpus[number % len(self.place.gpus)] if self.place.gpus else "cpu"
            self.posts.append(_Post(WorkerProcess(device, _PERFORM)))
        try:
            for post in self.posts:
                self._start(post)
            while self._hand_out():
                self._take()
        finally:
            for post in self.posts:
                post.worker.end()
            for post in self.posts:
                post.worker.finish()
        for run in [run for runs in self.waiting for run in runs]:
            self.results.append((run, "left", self.trouble or "no process could be started"))

    def _start(self, post: _Post) -> None:
        post.ready, post.at = False, None
        post.until = time.monotonic() + _START_SECONDS
        post.worker.start()

    def _hand_out(self) -> bool:
        """Give idle processes their next run; False where nothing is left to wait for."""
        for post in self.posts:
            while post.ready and post.at is None:
                if not post.runs:
                    if not self.waiting:
                        break
                    post.runs = self.waiting.popleft()
                    continue
                run = post.runs[0]
                if self.lost.get(run.spec.name, 0) >= _LOST:
                    post.runs.popleft()
                    told = f"{_LOST} other calls of the op hung or cost their process"
                    self._done(run, "left", told)
                elif run.bytes > self._most(post):
                    post.runs.popleft()
                    self._done(run, "memory", None)
                elif run.bytes + self._taken(post) > self._most(post):
                    break
                else:
                    self._send(post, post.runs.popleft())
        return any(post.at is not None or self._is_starting(post) for post in self.posts)

    def _is_starting(self, post: _Post) -> bool:
        wanted = bool(post.runs or self.waiting)
        return not post.ready and post.worker.fileno() >= 0 and wanted

    def _most(self, post: _Post) -> float:
        return self.free[post.worker.device]

    def _taken(self, post: _Post) -> int:
        alike = (other for other in self.posts if other.worker.device == post.worker.device)
        return sum(other.at.bytes for other in alike if other.at is not None)

    def _send(self, post: _Post, run: Run) -> None:
        self.progress(f"running {run.spec.name}", len(self.results), self.steps)
        post.at, post.until = run, time.monotonic() + self.seconds
        pack = {
            "name": self.pack.name,
            "namespace": self.pack.namespace,
            "root": self.pack.root,
            "overlays": list(self.pack.overlays),
        }
        job = {
            "pack": pack,
            "device": self.place.device,
            "kernel": run.spec.name,
            "kind": run.kind,
            "cases": [dict(case.values) for case in run.cases],
        }
        post.worker.send(json.dumps(job))

    def _take(self) -> None:
        """Wait for what processes say, and for those that take too long."""
        now = time.monotonic()
        waited = [post for post in self.posts if post.worker.fileno() >= 0]
        until = min((post.until for post in waited if post.at or not post.ready), default=now)
        told = wait([post.worker for post in waited], min(1.0, max(0.0, until - now)))
        for worker, message in told:
            self._hear(next(post for post in waited if post.worker is worker), message)
        now = time.monotonic()
        for post in waited:
            if post.worker.fileno() >= 0 and (post.at or not post.ready) and now > post.until:
                _stop(post.worker)
                hung = f"takes longer than {self.seconds:g} s; it hangs, and was ended"
                late = f"a process took more than {_START_SECONDS:g} s to start"
                self._over(post, late if post.at is None else hung)

    def _hear(self, post: _Post, message: Message) -> None:
        run = post.at
        if message.kind == "ready":
            post.ready, post.tries = True, 0
            self.free.setdefault(post.worker.device, _SHARE * float(message.value["free"]))
        elif message.kind in ("died", "stuck"):
            self._over(post, message.text)
        elif message.kind == "refused":
            self.trouble = message.text
        elif run is None:
            return  # a word too late
        elif message.kind == "gone":
            post.runs.appendleft(run)
            _stop(post.worker)
            self._give_up(post, message.text)
        else:
            post.at = None
            if message.kind == "done":
                self._done(run, message.value["status"], message.value)
            else:
                self._done(run, "error", {"problem": message.text})
            if message.kind == "poisoned":
                self._lose(run)
                _stop(post.worker)
                self._start(post)

    def _over(self, post: _Post, text: str) -> None:
        """Take in the end of a process: the run that it was at is lost, and the others go on."""
        run = post.at
        if run is not None:
            self._lose(run)
            self._done(run, "lost", text)
        elif not post.ready:
            post.tries += 1
            self.trouble = self.trouble or text
        if post.tries > 1:
            self._give_up(post, self.trouble)
        else:
            self._start(post)

    def _lose(self, run: Run) -> None:
        self.lost[run.spec.name] = self.lost.get(run.spec.name, 0) + 1

    def _give_up(self, post: _Post, text: str) -> None:
        """Let others make the runs of a process that cannot go on."""
        post.ready, post.at = False, None
        self.trouble = text
        if post.runs:
            self.waiting.appendleft(post.runs)
            post.runs = deque()

    def _done(self, run: Run, status: str, value: Any) -> None:
        self.results.append((run, status, value))
        self.progress(f"running {run.spec.name}", len(self.results), self.steps)


def _stop(worker: WorkerProcess) -> None:
    """End a process in the midst of what it does."""
    worker.end()
    worker.finish()


class _Telling:
    """What is said of results, each in its place."""

    def __init__(self, pack: PackSpec) -> None:
        self._files = {directory.shown: directory.path for directory in search_path(pack)}
        self._lines: dict[str, Mapping[Any, int]] = {}

    def findings(self, results: Sequence[tuple[Run, str, Any]]) -> Iterator[Problem]:
        """Yield the findings of all runs; what was left out is counted per op and reason."""
        left: dict[tuple[str, str, str], int] = {}
        for run, status, value in results:
            if status == "error":
                remedy = "correct the kernel, its reference or what the manifest says of them"
                yield self._of(run, _CODES[run.kind], f"{run.text}: {value['problem']}; {remedy}")
            elif status == "lost":
                yield self._of(run, "KP264", f"{run.text}: {value}; correct the kernel")
            elif status == "memory":
                message = (
                    f"{run.text}: it takes about {shown_bytes(run.bytes)} of memory to check, more "
                    "than is free here; run it on a device that has more"
                )
                yield self._of(run, "KP265", message, doubt=True)
            elif status == "unfit" and run.needed:
                message = f"{run.text}: its inputs cannot be made: {value['problem']}"
                yield self._of(run, "KP268", message, doubt=True)
            elif status == "broken":
                for members in value["problems"]:
                    yield Problem(**{**members, "level": 3})
            elif status == "left":
                key = (run.spec.path, run.spec.name, value)
                left[key] = left.get(key, 0) + 1
        for (path, _, reason), count in left.items():
            message = f"{count} calls are not run: {reason}; correct that and check again"
            yield Problem(path=path, code="KP268", severity="unverified", message=message, level=3)

    def _of(self, run: Run, code: str, message: str, *, doubt: bool = False) -> Problem:
        if run.file is None:
            problem = problem_at(run.spec, code, message, *run.at)
        else:
            line = self._lines_of(run.file).get(("cases", run.case), 0)
            problem = Problem(path=run.file, line=line, code=code, message=message)
        return Problem(
            path=problem.path,
            line=problem.line,
            code=code,
            severity="unverified" if doubt else "error",
            message=message,
            level=3,
        )

    def _lines_of(self, shown: str) -> Mapping[Any, int]:
        """Return where the cases of a config file stand in it."""
        if shown not in self._lines:
            directory, kernel, name = shown.rsplit("/", 2)
            try:
                text = Path(self._files[directory], kernel, name).read_text(encoding="utf-8")
                self._lines[shown] = json_lines(text)[0]
            except (OSError, ValueError):  # it was there a moment ago
                self._lines[shown] = {}
        return self._lines[shown]
