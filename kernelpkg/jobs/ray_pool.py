"""Ray pool: jobs spread over the GPUs of a Ray cluster, one actor for each device of its hosts.

An actor only starts and watches a worker process of its host, the same as without Ray. What jobs
read travels with them: this package's own code, and the files of the pack.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import signal
import socket
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Final

from kernelpkg.errors import UsageError
from kernelpkg.jobs.pool import Job, JobOutcome, Notice, check, schedule
from kernelpkg.jobs.worker import Message, loads, one_line

GPU: Final = "gpu"
CPU: Final = "cpu"

_PACK: Final = ("manifests", "kernels", "configs")
_ANSWERING: Final = 10.0
"""Seconds for the first connection to a cluster."""

_LEAVING: Final = 20.0
"""Seconds until an actor that does not answer is ended without its last words."""


def run_jobs(
    jobs: Iterable[Job],
    perform: str,
    devices: Sequence[str] = (GPU,),
    *,
    address: str | None = "auto",
    root: str | None = None,
    facts: Mapping[str, str] = {},
    notice: Notice | None = None,
) -> Iterator[JobOutcome]:
    """Call `perform` for each job, on every GPU of a Ray cluster; else as `pool.run_jobs`.

    `devices` says what a worker has to itself: ("gpu",), or ("cpu",) for one core and no GPU.
    `address` is a cluster's "host:port", "auto" for that of RAY_ADDRESS or of this host, None or
    "local" for one that is started here, which other hosts cannot reach. The manifests, kernels and
    configs below `root` are copied to each host, and where a payload has `root`, it gets the place
    of the copy. A host that dies is a device that is gone. Raises UsageError without Ray, and where
    no cluster answers.
    """
    check(perform, devices)
    kind = devices[0]
    if kind not in {GPU, CPU} or len(devices) > 1:
        raise UsageError(f"Ray's devices are ('{GPU}',) or ('{CPU}',), not {tuple(devices)!r}")
    ray = _ray()
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS") or address
    address = address or "local"
    if address not in {"auto", "local"} and not ray.is_initialized():
        _reach(address)

    def spread() -> Iterator[JobOutcome]:
        """Join the cluster, put an actor on each of its devices, and hand out the jobs."""
        with _joined(ray, address):
            files = ray.put(_files(root))
            paths = [os.path.abspath(path) for path in sys.path]
            workers = [
                _Actor(ray, device, node, kind, (files, paths, perform, root))
                for device, node in _devices(ray.nodes(), kind)
            ]
            if not workers:
                raise UsageError(f"the Ray cluster has no {kind.upper()}")
            yield from schedule(jobs, workers, _wait, facts=facts, notice=notice)

    return spread()  # what is wrong so far was raised by the call, not by its first step


def _ray() -> Any:
    """Return Ray's module; it takes half a second, and only this command needs it."""
    try:
        return importlib.import_module("ray")
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise UsageError("several hosts need Ray; pip install 'ray>=2.60'") from None


def _reach(address: str) -> None:
    """Raise UsageError where nothing answers; Ray itself tries for minutes, and prints that."""
    host, _, port = address.rpartition(":")
    if not (host and port.isdecimal() and int(port) < 1 << 16) or "/" in host:
        raise UsageError(f"'{address}' is not an address of a Ray cluster; write it as host:port")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWERING).close()
    except OSError as error:
        raise UsageError(f"no Ray cluster answers at '{address}': {error}") from None


@contextmanager
def _joined(ray: Any, address: str) -> Iterator[None]:
    """Be part of a cluster, without a word of Ray's: stdout may be JSON, and stderr is a bar's."""
    if ray.is_initialized():
        yield
        return
    # What hosts say of their ends is printed whatever the options are; losses come as reasons.
    inner: Any = importlib.import_module("ray._private.worker")
    printed = getattr(inner, "print_to_stdstream", None)
    inner.print_to_stdstream = lambda *_, **__: None
    before = signal.getsignal(signal.SIGTERM)
    try:
        with warnings.catch_warnings(), _out_of_reach() if address == "local" else nullcontext():
            warnings.simplefilter("ignore")  # of what Ray's next release will do
            ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL)
        _handle_sigterm(before)
        yield
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        if ray.is_initialized():
            raise
        where = "on this host" if address == "auto" else f"at '{address}'"
        raise UsageError(one_line(f"no Ray cluster answers {where}: {error}")) from None
    finally:
        ray.shutdown()
        _handle_sigterm(before)
        inner.print_to_stdstream = printed


@contextmanager
def _out_of_reach() -> Iterator[None]:
    """Let a cluster that Ray starts listen to this host alone, as it does by itself on macOS.

    On Linux it listens on every interface, and runs what it is sent; no option of `ray.init` says
    otherwise, for an address of this host alone is replaced (2.60, 2026-11-30).
    """
    constants: Any = importlib.import_module("ray._private.ray_constants")
    before = constants.ENABLE_RAY_CLUSTER
    constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        constants.ENABLE_RAY_CLUSTER = before


def _handle_sigterm(handler: Any) -> None:
    """Give SIGTERM the handler that it had before Ray took it.

    `ray.init` sets one that ends the process with status 15. `ray.shutdown` (2.60) resets the
    signal below Python, which goes on naming a handler that is never called (2026-11-29).
    """
    if handler is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)


def _devices(nodes: Sequence[Mapping[str, Any]], kind: str) -> list[tuple[str, str]]:
    """Return the devices of all hosts that are there, and the node of each: "10.0.0.2/gpu0"."""
    found = []
    counts: dict[str, int] = {}
    for node in sorted(nodes, key=lambda node: (node["NodeManagerAddress"], node["NodeID"])):
        if node["Alive"]:
            host = node["NodeManagerAddress"]
            for _ in range(int(node["Resources"].get(kind.upper(), 0))):
                number = counts[host] = counts.get(host, -1) + 1
                found.append((f"{host}/{kind}{number}", node["NodeID"]))
    return found


def _files(root: str | None) -> dict[str, bytes]:
    """Return what hosts need, by its path: this package in `code/`, the pack in `pack/`."""
    package = Path(__file__).parents[1]
    trees = [("code/kernelpkg", package, package)]
    if root is not None:
        trees += [("pack", Path(root), Path(root, folder)) for folder in _PACK]
    return {
        f"{name}/{path.relative_to(top).as_posix()}": path.read_bytes()
        for name, top, folder in trees
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix != ".pyc"
    }


class _Actor:
    """One device of the cluster, and the actor that watches its worker while there is one."""

    def __init__(self, ray: Any, device: str, node: str, kind: str, told: tuple[Any, ...]) -> None:
        self.device: Final = device
        self.ray: Final = ray
        self._told: Final = (kind, *told)
        strategy = importlib.import_module("ray.util.scheduling_strategies")
        self._class: Final = ray.remote(_host()).options(
            num_cpus=int(kind == CPU),
            num_gpus=int(kind == GPU),
            max_concurrency=2,  # `end` comes while `perform` waits
            scheduling_strategy=strategy.NodeAffinitySchedulingStrategy(node, soft=False),
        )
        self._actor: Any = None
        self.answer: Any = None

    def start(self) -> None:
        self._actor = self._class.remote()
        self.answer = self._actor.start.remote(*self._told)

    def send(self, payload: str) -> None:
        self.answer = self._actor.perform.remote(payload)

    def end(self) -> None:
        if self._actor is not None:
            self._actor.end.remote()

    leave = end

    def finish(self) -> bool:
        """Wait for the last words of the worker, and let the actor go; a dead host says none."""
        if self._actor is None:
            return True
        last = self.hear(_LEAVING) if self.answer is not None else None
        self.ray.wait([self._actor.leave.remote()], timeout=_LEAVING)
        self.ray.kill(self._actor)
        self._actor = self.answer = None
        return last is None or last.kind != "stuck"

    def hear(self, seconds: float) -> Message | None:
        """Return the message that is awaited, or None if it does not come in time."""
        errors = self.ray.exceptions
        try:
            said = loads(self.ray.get(self.answer, timeout=seconds))
        except errors.GetTimeoutError:
            return None
        except errors.RayError as error:
            said = Message(kind="died", text=one_line(f"its host: {str(error).splitlines()[0]}"))
        self.answer = None
        return said


def _wait(workers: Sequence[_Actor], seconds: float) -> list[tuple[_Actor, Message]]:
    """Wait for messages of workers, at most so many seconds, and return them."""
    asked = {worker.answer: worker for worker in workers if worker.answer is not None}
    if not asked:
        time.sleep(seconds)
        return []
    ray = workers[0].ray
    answered, _ = ray.wait(list(asked), num_returns=1, timeout=seconds)
    heard = [(asked[answer], asked[answer].hear(_LEAVING)) for answer in answered]
    return [(worker, message) for worker, message in heard if message is not None]


def _host() -> type[Any]:
    """Return the class of actors: made here, so that it travels whole, to hosts without kernelpkg.

    Its methods return messages, as JSON.
    """

    class Host:
        def start(
            self,
            kind: str,
            files: dict[str, bytes],
            paths: list[str],
            perform: str,
            root: str | None,
        ) -> str:
            """Lay out what travelled, and start the worker; returns its first message."""
            self.folder = tempfile.mkdtemp(prefix="kernelpkg-")
            for name, data in files.items():
                path = Path(self.folder, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
            sys.path.insert(0, str(Path(self.folder, "code")))
            sys.path += [path for path in paths if path not in sys.path]
            self.root = root
            self.part = importlib.import_module("kernelpkg.jobs.worker")
            device = kind
            if kind == "gpu":
                context = importlib.import_module("ray").get_runtime_context()
                device = context.get_accelerator_ids()["GPU"][0]
            self.worker = self.part.WorkerProcess(device, perform, self.folder)
            self.worker.start()
            return self.listen()

        def perform(self, payload: str) -> str:
            """Do a job; returns the message of its end."""
            members = json.loads(payload)
            if self.root is not None and members.get("root") == self.root:
                members["root"] = str(Path(self.folder, "pack"))
            self.worker.send(json.dumps(members))
            return self.listen()

        def listen(self) -> str:
            while True:
                for _, message in self.part.wait([self.worker], 1.0):
                    return str(message.dumps())

        def end(self) -> None:
            """Tell the worker to end, from another thread."""
            self.worker.end()

        def leave(self) -> None:
            """Wait until the worker has ended."""
            self.worker.finish()

    return Host
