"""Jobs on the hosts of a real Ray cluster, of two nodes on this machine."""

from __future__ import annotations

import gc
import json
import os
import runpy
import signal
import subprocess
import sys
import threading
import tomllib
import warnings
from collections.abc import Iterator
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import pytest

from kernelpkg.errors import UsageError
from kernelpkg.jobs import ray_pool
from kernelpkg.jobs.pool import Job, JobOutcome
from kernelpkg.jobs.ray_pool import run_jobs

pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own are not ours to mend

PROCESSES = runpy.run_path(str(Path(__file__).with_name("processes.py")))
is_there, noted, until = (PROCESSES[name] for name in ("is_there", "noted", "until"))

STUB = '''
import json, os, pathlib, signal, sys, time

import kernelpkg


def facts():
    return {"gpu": os.environ.get("STUB_RAY_GPU", "H" + os.environ["CUDA_VISIBLE_DEVICES"])}


def work(payload):
    return globals()[payload["do"]](payload)


def where(payload):
    root = pathlib.Path(payload["root"])
    files = {str(path.relative_to(root)): path.read_text() for path in root.rglob("*.*")}
    return [os.environ["CUDA_VISIBLE_DEVICES"], kernelpkg.__file__, str(root), files]


def meet(payload):
    """Wait until so many jobs are here at once, on nodes of their own."""
    pathlib.Path(payload["place"], str(os.getpid())).touch()
    while len(os.listdir(payload["place"])) < 2:
        time.sleep(0.01)


def fail(payload):
    raise ValueError("two\\nlines")


def die(payload):
    os.kill(os.getpid(), signal.SIGSEGV)


def note(payload):
    found = [os.getpid(), os.getppid()]
    path = pathlib.Path(payload["place"], f"{os.getpid()}.new")
    path.write_text(json.dumps(found))
    path.rename(path.with_suffix(".json"))


def hang(payload):
    note(payload)
    time.sleep(600)


def kill_the_actor(payload):
    """The first time that it is called."""
    marker = pathlib.Path(payload["place"], "killed.json")
    if not marker.exists():
        note(payload)
        marker.write_text("[]")
        process = os.getpid()
        for _ in range(3):  # above the worker are two reapers
            text = pathlib.Path(f"/proc/{process}/stat").read_text()
            process = int(text.rpartition(")")[2].split()[1])
        os.kill(process, signal.SIGKILL)
        time.sleep(600)


def wait(payload):
    """Wait until all are told to go."""
    note(payload)
    while not os.path.exists(payload["place"] + "/go"):
        time.sleep(0.01)
'''

SCRIPT = """
import sys
from kernelpkg.jobs.ray_pool import run_jobs
from kernelpkg.jobs.pool import Job

if __name__ == "__main__":
    sys.path.insert(0, sys.argv[1])
    jobs = [
        Job(id=str(number), payload={"do": "hang", "place": sys.argv[2]}, timeout=None)
        for number in range(2)
    ]
    print(list(run_jobs(jobs, "stub_ray:work", ["cpu"], address=sys.argv[3])))
"""


@pytest.fixture(scope="module")
def head() -> Iterator[Any]:
    """The first node of a cluster: one core, and two GPUs by its own account."""
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        from ray.cluster_utils import Cluster

        has = {"num_cpus": 1, "num_gpus": 2, "include_dashboard": False}
        handler = signal.getsignal(signal.SIGTERM)
        made = Cluster(initialize_head=True, head_node_args=has)
        signal.signal(signal.SIGTERM, handler)  # the cluster's own ends this process
        yield made
        made.shutdown()
        signal.signal(signal.SIGTERM, handler)
        del made
        gc.collect()


@pytest.fixture
def cluster(head: Any) -> Any:
    """Two nodes; the second has one core and a GPU, which says that it is another than the first's
    two. It is started only where a test has removed it, for each start takes three seconds.
    """
    if not head.worker_nodes:
        head.add_node(num_cpus=1, num_gpus=1, env_vars={"STUB_RAY_GPU": "other"})
    return head


@pytest.fixture(autouse=True)
def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / "stub_ray.py").write_text(STUB)
    monkeypatch.syspath_prepend(folder)
    return folder


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "place").mkdir()
    return tmp_path / "place"


def job(name: str, do: str, timeout: float | None = None, **given: object) -> Job:
    return Job(id=name, payload={"do": do, **given}, timeout=timeout)


def run(cluster: Any, *jobs: Job, kind: str = "cpu", **options: Any) -> list[JobOutcome]:
    return list(run_jobs(jobs, "stub_ray:work", [kind], address=cluster.address, **options))


def told(outcome: JobOutcome) -> tuple[str, str, str]:
    return outcome.job.id, outcome.status, outcome.reason


def number_of(outcome: JobOutcome) -> str:
    return outcome.device.partition("/")[2]


def test_both_nodes_share_the_work_and_the_pack_travels(cluster, tmp_path, place):
    """Two jobs that wait for each other end; code and pack are copies, at a place of their own."""
    root = tmp_path / "root"
    names = ("manifests/demo.toml", "kernels/scale/kernel.py", "configs/scale/cpu.json")
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True)
        path.write_text(name)
    (root / "large.bin").write_text("is left behind")
    first = [job(name, "meet", place=str(place)) for name in "ab"]
    where = job("where", "where", root=str(root))
    handlers = [signal.getsignal(signal.SIGTERM)]
    found = {}
    for outcome in run_jobs(
        [*first, where], "stub_ray:work", ["cpu"], address=cluster.address, root=str(root)
    ):
        found[outcome.job.id] = outcome
        handlers.append(signal.getsignal(signal.SIGTERM))
    assert len(set(handlers)) == 1  # Ray's own would end a run without its summary
    assert {outcome.status for outcome in found.values()} == {"done"}
    assert {number_of(found["a"]), number_of(found["b"])} == {"cpu0", "cpu1"}
    visible, package, copy, files = found["where"].value
    assert visible == ""
    assert Path(package).parents[2] == Path(copy).parent
    assert not Path(package).is_relative_to(Path(ray_pool.__file__).parents[1])
    assert files == {name: name for name in names}
    assert not Path(copy).exists()  # tidied up


def test_each_gpu_has_one_worker_that_sees_it_alone(cluster, tmp_path, place):
    """Only those of the wanted model get jobs."""
    jobs = [job(name, "where", root=str(tmp_path / "code")) for name in "abc"]
    lines: list[str] = []
    found = run(cluster, *jobs, kind="gpu", facts={"gpu": "H1"}, notice=lines.append)
    assert [outcome.value[0] for outcome in found] == ["1"] * 3
    assert len({outcome.device for outcome in found}) == 1
    whys = {line.partition("its gpu is ")[2] for line in lines}
    assert whys <= {"'H0', not 'H1'", "'other', not 'H1'"}


def test_failures_and_timeouts_are_those_of_one_host(cluster, place):
    """What a job does to its process is told in the same words, and the device goes on."""
    hangs = job("hangs", "hang", timeout=1.0, place=str(place))
    jobs = [job("fails", "fail"), hangs, job("dies", "die")]
    found = {outcome.job.id: outcome for outcome in run(cluster, *jobs)}
    assert told(found["fails"])[1:] == ("failed", "ValueError: two lines")
    assert told(found["hangs"])[1:] == ("timeout", "killed after 1 s")
    assert found["dies"].status == "lost"
    assert found["dies"].reason.count("its process was ended by SIGSEGV") == 2
    assert [process for process in noted(place) if is_there(process)] == []


def test_a_job_whose_actor_dies_is_handed_on(cluster, place):
    """The worker process that the actor had started is gone by then."""
    (outcome,) = run(cluster, job("a", "kill_the_actor", place=str(place)))
    assert outcome.status == "done"
    assert outcome.reason.startswith("lost before on ")
    assert ": its host: " in outcome.reason
    until(lambda: not any(map(is_there, noted(place))))


def test_nothing_outlives_a_driver_that_is_killed(cluster, tmp_path, stub, place):
    """Ray ends its actors, and each takes its worker along."""
    (tmp_path / "driver.py").write_text(SCRIPT)
    before = set(Path(gettempdir()).glob("kernelpkg-*"))
    process = subprocess.Popen(
        [sys.executable, str(tmp_path / "driver.py"), str(stub), str(place), cluster.address],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "PYTHONPATH": str(Path(ray_pool.__file__).parents[1])},
    )
    until(lambda: len(noted(place)) == 4)
    os.kill(process.pid, signal.SIGKILL)
    assert process.communicate(timeout=600)[0] == b""
    until(lambda: not any(map(is_there, noted(place))))
    until(lambda: set(Path(gettempdir()).glob("kernelpkg-*")) <= before)


def test_sigterm_is_handled_as_before_between_runs_and_after(cluster, tmp_path, stub):
    """Ray takes the signal when it is joined, and resets it below Python when it is left."""
    code = """
import os, signal, sys
from kernelpkg.jobs.ray_pool import run_jobs
from kernelpkg.jobs.pool import Job

if __name__ == "__main__":
    sys.path.insert(0, sys.argv[1])
    heard = []
    signal.signal(signal.SIGTERM, lambda *_: heard.append("heard"))
    job = Job(id="a", payload={"do": "fail"}, timeout=None)
    for _ in range(2):
        for _ in run_jobs([job], "stub_ray:work", ["cpu"], address=sys.argv[2]):
            os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
    print(*heard)
"""
    (tmp_path / "driver.py").write_text(code)
    said = subprocess.check_output(
        [sys.executable, str(tmp_path / "driver.py"), str(stub), cluster.address],
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(ray_pool.__file__).parents[1])},
    )
    assert said == "heard heard heard heard\n"


def test_the_jobs_of_a_node_that_is_removed_go_elsewhere(cluster, place):
    """The node that crashes has a job; another one does it, and no process of it is left."""
    (node,) = cluster.worker_nodes

    def crash() -> None:
        until(lambda: len(noted(place)) == 6)
        cluster.remove_node(node, allow_graceful=False)
        until(lambda: sum(map(is_there, noted(place))) == 4)
        (place / "go").touch()

    thread = threading.Thread(target=crash)
    thread.start()
    found = run(cluster, *(job(name, "wait", place=str(place)) for name in "abc"), kind="gpu")
    thread.join()
    assert sorted(told(outcome)[:2] for outcome in found) == [(name, "done") for name in "abc"]
    (moved,) = [outcome for outcome in found if outcome.reason]
    assert moved.reason.startswith("lost before on ")
    assert {number_of(outcome) for outcome in found} < {"gpu0", "gpu1", "gpu2"}
    until(lambda: not any(map(is_there, noted(place))))


LISTENING = """
import json, sys
import ray, psutil
from kernelpkg.jobs.ray_pool import _joined
with _joined(ray, "local"):
    family = [psutil.Process(), *psutil.Process().children(recursive=True)]
    found = [one.laddr.ip for each in family for one in each.net_connections("inet")
             if one.status == "LISTEN"]
print(json.dumps(found))
"""


def test_a_cluster_that_is_started_here_listens_to_this_host_alone():
    """Ray runs what it is sent, by whomever."""
    done = subprocess.run(
        [sys.executable, "-c", LISTENING], capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout)
    assert len(found) > 2
    assert {address.removeprefix("::ffff:") for address in found} == {"127.0.0.1"}


@pytest.mark.parametrize(
    ("devices", "message"),
    [
        (["gpu", "gpu"], "device 'gpu' is named twice; one process runs on each"),
        (["0"], "Ray's devices are ('gpu',) or ('cpu',), not ('0',)"),
        (["cpu", "gpu"], "Ray's devices are ('gpu',) or ('cpu',), not ('cpu', 'gpu')"),
    ],
    ids=["twice", "index", "both"],
)
def test_wrong_devices_are_refused(devices, message):
    """The kind of device is all that is asked for; Ray says which there are."""
    with pytest.raises(UsageError) as caught:
        run_jobs([], "a:b", devices)
    assert str(caught.value) == message


NO_ADDRESS = "'{}' is not an address of a Ray cluster; write it as host:port"


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("127.0.0.1:1", "no Ray cluster answers at '{}': [Errno 111] Connection refused"),
        ("ray://a:1", NO_ADDRESS),
        ("a:70000", NO_ADDRESS),
        ("nonsense", NO_ADDRESS),
    ],
    ids=["refused", "client", "port", "text"],
)
def test_a_cluster_that_does_not_answer_is_told_at_once(monkeypatch, address, message):
    """By an argument, or by Ray's own variable."""
    with pytest.raises(UsageError) as caught:
        run_jobs([], "a:b", address=address)
    assert str(caught.value) == message.format(address)
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(UsageError) as caught:
        run_jobs([], "a:b")
    assert str(caught.value) == message.format(address)


def test_importing_the_module_imports_neither_ray_nor_torch():
    """Only a run on a cluster needs Ray."""
    code = "import kernelpkg.jobs.ray_pool, sys; print({'ray', 'torch'} & set(sys.modules))"
    root = str(Path(ray_pool.__file__).parents[1])
    text = subprocess.check_output([sys.executable, "-c", code], cwd=root, text=True)
    assert text == "set()\n"


def test_without_ray_what_to_install_is_named(monkeypatch):
    """One line, with what the extra asks for, which an installed wheel can do too."""
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError) as caught:
        run_jobs([], "a:b")
    assert str(caught.value) == "several hosts need Ray; pip install 'ray>=2.60'"
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert project["optional-dependencies"]["ray"] == ["ray>=2.60"]
