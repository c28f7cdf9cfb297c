"""Jobs on the GPUs of this host, one process for each: real errors, kills and contexts.

A machine of one GPU runs all but what needs two.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from kernelpkg.jobs.pool import Job, JobOutcome, run_jobs, visible_devices

DEVICES = visible_devices(os.environ)
TWO = pytest.mark.skipif(len(DEVICES) < 2, reason="needs two GPUs")
pytestmark = pytest.mark.skipif(not DEVICES, reason="needs a GPU")  # in a dry run there is none

STUB = '''
import os, pathlib, time

import torch


def facts():
    return {"gpu": torch.cuda.get_device_name()}


def work(payload):
    return globals()[payload["do"]](payload)


def add(payload):
    """A sum, and on which GPU of how many it was made."""
    x = torch.arange(payload["number"], device="cuda")
    uuid = str(torch.cuda.get_device_properties(0).uuid)
    count = torch.cuda.device_count()
    return {"sum": int(x.sum()), "gpu": uuid, "count": count, "pid": os.getpid()}


def meet(payload):
    """Wait until both GPUs are at work at once."""
    found = add(payload)
    pathlib.Path(payload["place"], str(os.getpid())).touch()
    while len(os.listdir(payload["place"])) < 2:
        time.sleep(0.01)
    return found


def out_of_bounds(payload):
    """Read where nothing is, which breaks the context."""
    x = torch.zeros(4, device="cuda")
    index = torch.tensor([1 << 40], device="cuda")
    x[index].sum().item()


def too_large(payload):
    torch.empty(1 << 50, device="cuda")


def spin(payload):
    """Keep the GPU busy for minutes, with 1 GiB of its memory."""
    x = torch.zeros(1 << 28, device="cuda")
    torch.cuda._sleep(10**12)
    torch.cuda.synchronize()
'''


@pytest.fixture(autouse=True)
def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / "stub_gpu.py").write_text(STUB)
    monkeypatch.syspath_prepend(folder)


def job(name: str, do: str, timeout: float | None = 120.0, **given: object) -> Job:
    return Job(id=name, payload={"do": do, "number": 10, **given}, timeout=timeout)


def run(*jobs: Job, devices: tuple[str, ...] = DEVICES[:1]) -> list[JobOutcome]:
    facts = {"gpu": torch.cuda.get_device_name()}
    return list(run_jobs(jobs, "stub_gpu:work", devices, facts=facts))


def test_all_gpus_are_found():
    """As many as PyTorch sees, without asking it."""
    assert len(DEVICES) == torch.cuda.device_count()
    assert len(set(DEVICES)) == len(DEVICES)


@TWO
def test_two_gpus_share_the_work(tmp_path):
    """Neither job ends before both are there; each process sees another GPU, and no second one."""
    place = tmp_path / "met"
    place.mkdir()
    found = run(*(job(name, "meet", place=str(place)) for name in "ab"), devices=DEVICES[:2])
    assert {outcome.status for outcome in found} == {"done"}
    assert {outcome.device for outcome in found} == set(DEVICES[:2])
    assert {outcome.value["count"] for outcome in found} == {1}
    assert len({outcome.value["gpu"] for outcome in found}) == 2


@TWO
def test_results_do_not_depend_on_the_number_of_gpus():
    """The sums are those of one GPU."""
    jobs = [job(str(number), "add", number=number) for number in range(10)]
    one = {outcome.job.id: outcome.value["sum"] for outcome in run(*jobs)}
    two = {outcome.job.id: outcome.value["sum"] for outcome in run(*jobs, devices=DEVICES[:2])}
    assert one == two == {str(number): number * (number - 1) // 2 for number in range(10)}


def test_a_broken_context_ends_with_its_job():
    """The jobs before and after it are right; those after it have a new process."""
    before, broken, after = run(job("a", "add"), job("b", "out_of_bounds"), job("c", "add"))
    assert (before.status, after.status) == ("done", "done")
    assert before.value["sum"] == after.value["sum"] == 45
    assert broken.status == "failed", broken.reason
    assert "CUDA error" in broken.reason
    assert before.value["pid"] != after.value["pid"]


def test_memory_that_runs_out_costs_no_process():
    """Tuning goes on in the same one."""
    before, failed, after = run(job("a", "add"), job("b", "too_large"), job("c", "add"))
    assert failed.status == "failed"
    assert "out of memory" in failed.reason
    assert before.value["pid"] == after.value["pid"]


def test_a_kernel_that_hangs_is_killed_and_its_memory_is_free():
    """The next job has the GPU to itself."""
    free, _ = torch.cuda.mem_get_info()
    hung, after = run(job("a", "spin", timeout=10.0), job("b", "add"))
    assert (hung.status, hung.reason) == ("timeout", "killed after 10 s")
    assert (after.status, after.value["sum"]) == ("done", 45)
    assert torch.cuda.mem_get_info()[0] > free - (1 << 29)


def test_a_gpu_that_is_not_there_is_given_up():
    """Its jobs go to the one that is; it says so itself."""
    lines: list[str] = []
    jobs = [job(str(number), "add") for number in range(3)]
    outcomes = run_jobs(jobs, "stub_gpu:work", [DEVICES[0], "63"], notice=lines.append)
    assert [outcome.device for outcome in outcomes] == [DEVICES[0]] * 3
    (outcome,) = run_jobs(jobs[:1], "stub_gpu:work", ["63"], notice=lines.append)
    assert outcome.status == "lost"
    assert "device 63 is given up: its worker does not start: " in lines[-1]


def test_another_model_gets_no_jobs():
    """What the tuned platform is not is told."""
    (outcome,) = run_jobs([job("a", "add")], "stub_gpu:work", DEVICES[:1], facts={"gpu": "T4"})
    assert outcome.status == "lost"
    assert f"its gpu is '{torch.cuda.get_device_name()}', not 'T4'" in outcome.reason
