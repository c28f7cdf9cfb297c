"""Jobs on the devices of a host, in processes: every job has an outcome, and nothing is left."""

from __future__ import annotations

import contextlib
import json
import os
import runpy
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from kernelpkg.errors import UsageError
from kernelpkg.jobs import pool
from kernelpkg.jobs.pool import Job, JobOutcome, run_jobs, schedule
from kernelpkg.jobs.worker import Message

PROCESSES = runpy.run_path(str(Path(__file__).with_name("processes.py")))
is_there, noted, until = (PROCESSES[name] for name in ("is_there", "noted", "until"))

STUB = '''
import json, multiprocessing, os, pathlib, signal, subprocess, sys, time

FACTS = {"gpu": "H" + os.environ["CUDA_VISIBLE_DEVICES"]}
if os.environ.get("BROKEN") == os.environ["CUDA_VISIBLE_DEVICES"]:
    raise RuntimeError("no driver")


def facts():
    return FACTS


def work(payload):
    return globals()[payload["do"]](**payload.get("with", {}))


def where():
    return [os.environ["CUDA_VISIBLE_DEVICES"], os.environ["HIP_VISIBLE_DEVICES"], os.getpid()]


def double(number):
    return {"twice": 2 * number, "not": float("inf")}


def fail(text, behind=""):
    try:
        raise KeyError(behind)
    except KeyError as error:
        raise ValueError(text) from error


def leave():
    sys.exit("the job wants out")


def no_json():
    return {1, 2}


def noise():
    print("on one side")
    print("on the other", file=sys.stderr)
    os.write(1, b"\\xff\\n" * 100000)
    return sys.stdin.read()


def die(number=signal.SIGSEGV):
    print("the last words", flush=True)
    print(flush=True)
    os.kill(os.getpid(), number)


def family(method):
    with multiprocessing.get_context(method).Pool(1) as pool:
        return pool.apply(abs, (-3,))


def quit():
    os._exit(3)


def die_on(device):
    if os.environ["CUDA_VISIBLE_DEVICES"] == device:
        die(signal.SIGKILL)
    return double(1)


def gone_on(device):
    if os.environ["CUDA_VISIBLE_DEVICES"] == device:
        raise RuntimeError("CUDA error: no CUDA-capable device is detected")
    return double(1)


def meet(place, count):
    """Wait until so many jobs are here at once."""
    pathlib.Path(place, str(os.getpid())).touch()
    while len(os.listdir(place)) < count:
        time.sleep(0.01)
    return os.environ["CUDA_VISIBLE_DEVICES"]


def hang(place):
    """Start what an autotuner may start, note all processes, and deafen this one."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    found = [os.getpid(), os.getppid()]
    for session in (False, True):
        found.append(subprocess.Popen(["sleep", "600"], start_new_session=session).pid)
    orphan = "import subprocess; print(subprocess.Popen(['sleep', '600'], stdout=-3).pid)"
    text = subprocess.check_output([sys.executable, "-c", orphan], start_new_session=True)
    found.append(int(text))
    path = pathlib.Path(place, f"{os.getpid()}.new")
    path.write_text(json.dumps(found))
    path.rename(path.with_suffix(".json"))
    time.sleep(600)
'''

SCRIPT = """
import sys
from kernelpkg.jobs.pool import Job, run_jobs

if __name__ == "__main__":
    sys.path.insert(0, sys.argv[1])
    place = {"do": "hang", "with": {"place": sys.argv[2]}}
    jobs = [Job(id=str(number), payload=place, timeout=None) for number in range(2)]
    try:
        for outcome in run_jobs(jobs, "stub_work:work", ["cpu:0", "cpu:1"]):
            print(outcome)
    except KeyboardInterrupt:
        print("interrupted")
"""


@pytest.fixture(autouse=True)
def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The module whose functions the jobs call; workers find it on the path of this process."""
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / "stub_work.py").write_text(STUB)
    monkeypatch.syspath_prepend(folder)
    return folder


def job(name: str, do: str, timeout: float | None = None, **given: object) -> Job:
    return Job(id=name, payload={"do": do, "with": given}, timeout=timeout)


def run(jobs: Sequence[Job], *devices: str) -> list[JobOutcome]:
    return list(run_jobs(jobs, "stub_work:work", devices or ["cpu"]))


def told(outcome: JobOutcome) -> tuple[str, str, str]:
    return outcome.job.id, outcome.status, outcome.reason


def test_a_job_gets_its_payload_and_returns_json():
    """Values come back as they went, infinite numbers among them."""
    (outcome,) = run([job("one", "double", number=21)])
    assert told(outcome) == ("one", "done", "")
    assert outcome.value == {"twice": 42, "not": float("inf")}
    assert outcome.device == "cpu"
    assert outcome.seconds >= 0


def test_each_device_has_a_process_that_sees_it_alone(tmp_path):
    """Two devices share the work: neither job ends before both are there."""
    devices = ["GPU-0a", "3"]
    place = tmp_path / "met"
    place.mkdir()
    found = run([job(name, "meet", place=str(place), count=2) for name in "ab"], *devices)
    assert {outcome.device for outcome in found} == set(devices)
    assert all(outcome.value == outcome.device for outcome in found)


@pytest.mark.parametrize(
    ("device", "visible"), [("MIG-7/1/0", "MIG-7/1/0"), ("cpu", ""), ("cpu:1", "")]
)
def test_a_worker_sees_its_device_by_any_name(device, visible):
    """Both of CUDA's and of HIP's variable say it; a CPU sees no GPU."""
    (seen,) = run([job("where", "where")], device)
    assert seen.value[:2] == [visible, visible]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_results_do_not_depend_on_the_number_of_devices(count):
    """Every job has one outcome, which only its payload decides."""
    jobs = [job(str(number), "double", number=number) for number in range(12)]
    jobs.insert(5, job("bad", "fail", text="never"))
    found = run(jobs, *(f"cpu:{number}" for number in range(count)))
    values = {outcome.job.id: (outcome.status, outcome.value) for outcome in found}
    assert len(found) == len(jobs)
    assert values.pop("bad") == ("failed", None)
    assert values == {
        str(number): ("done", {"twice": 2 * number, "not": float("inf")}) for number in range(12)
    }


def test_jobs_are_asked_for_when_a_device_is_free():
    """The second job of a device is made from what the first one returned."""
    asked = []

    def jobs() -> Iterator[Job]:
        for number in range(3):
            asked.append(list(seen))
            yield job(str(number), "double", number=number)

    seen: list[str] = []
    for outcome in run_jobs(jobs(), "stub_work:work", ["cpu"]):
        seen.append(outcome.job.id)
    assert asked == [[], ["0"], ["0", "1"]]


def test_no_job_starts_no_process(monkeypatch):
    """A run that is complete costs nothing."""
    monkeypatch.setattr(subprocess, "Popen", None)
    assert run([]) == []


def test_a_worker_goes_on_after_a_job_that_failed():
    """Reasons are one line; an exit and a result that is not JSON are failures too."""
    found = run(
        [
            job("one", "where"),
            job("fails", "fail", text="two\nlines"),
            job("exits", "leave"),
            job("set", "no_json"),
            job("none", "missing"),
            job("noise", "noise"),
            job("two", "where"),
        ]
    )
    assert [told(outcome) for outcome in found] == [
        ("one", "done", ""),
        ("fails", "failed", "ValueError: two lines"),
        ("exits", "failed", "SystemExit: the job wants out"),
        ("set", "failed", "TypeError: Object of type set is not JSON serializable"),
        ("none", "failed", "KeyError: 'missing'"),
        ("noise", "done", ""),
        ("two", "done", ""),
    ]
    assert found[0].value == found[-1].value


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_job_may_start_processes(method):
    """As Helion's autotuner does, in both ways."""
    (outcome,) = run([job("family", "family", method=method)])
    assert (outcome.status, outcome.value) == ("done", 3), outcome.reason


def test_what_workers_print_is_not_seen(capfd):
    """A progress bar of the pool stays whole."""
    run([job("noise", "noise")])
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("text", "behind", "again"),
    [
        ("CUDA error: an illegal memory access was encountered", "", True),
        ("Triton Error [CUDA]: misaligned address", "", True),
        ("compilation failed", "CUDA error: unspecified launch failure", True),
        ("CUDA out of memory. Tried to allocate 2.00 GiB", "", False),
        ("CUDA error: out of memory", "", False),
        ("Triton Error [CUDA]: out of resource: shared memory", "", False),
    ],
    ids=["access", "triton", "behind", "memory", "error-memory", "resource"],
)
def test_an_error_that_breaks_the_context_takes_a_new_process(text, behind, again):
    """The next job after it runs in a fresh process; errors that break nothing cost none."""
    jobs = [job("a", "where"), job("b", "fail", text=text, behind=behind), job("c", "where")]
    first, failed, last = run(jobs)
    assert told(failed) == ("b", "failed", f"ValueError: {text}")
    assert (first.value[2] != last.value[2]) is again


def test_a_job_that_takes_too_long_is_killed_with_all_it_started(tmp_path):
    """Children in sessions of their own, and orphans, end with their job; the device goes on."""
    jobs = [job("slow", "hang", timeout=3.0, place=str(tmp_path)), job("next", "double", number=1)]
    slow, following = run(jobs)
    assert told(slow) == ("slow", "timeout", "killed after 3 s")
    assert told(following) == ("next", "done", "")
    assert len(noted(tmp_path)) == 5
    assert [process for process in noted(tmp_path) if is_there(process)] == []


def test_a_job_whose_process_dies_is_handed_to_another_device():
    """It is done there, and its outcome says where it was lost."""
    jobs = [job("a", "die_on", device="0"), job("b", "where"), job("c", "where")]
    found = {outcome.job.id: outcome for outcome in run(jobs, "0", "1")}
    assert {name: outcome.status for name, outcome in found.items()} == dict.fromkeys("abc", "done")
    assert found["a"].device == "1"
    if found["a"].reason:  # device 0 took it first
        reason = "lost before on 0: its process was ended by SIGKILL: the last words"
        assert found["a"].reason == reason


def test_a_job_that_ends_two_processes_is_lost():
    """With one device as well; the jobs after it are done."""
    found = run([job("poison", "die"), job("quit", "quit"), job("next", "double", number=1)])
    death = "on cpu: its process was ended by SIGSEGV: the last words"
    end = "on cpu: its process ended with status 3"
    assert sorted(map(told, found)) == [
        ("next", "done", ""),
        ("poison", "lost", f"lost twice, {death}; {death}"),
        ("quit", "lost", f"lost twice, {end}; {end}"),
    ]


def test_a_device_that_is_gone_is_given_up():
    """After two jobs found it gone the other device does all of them."""
    lines: list[str] = []
    jobs = [job(str(number), "gone_on", device="0") for number in range(6)]
    found = list(run_jobs(jobs, "stub_work:work", ["0", "1"], notice=lines.append))
    assert {(outcome.status, outcome.device) for outcome in found} == {("done", "1")}
    assert len(found) == 6
    gone = "RuntimeError: CUDA error: no CUDA-capable device is detected"
    assert lines in ([], [f"device 0 is given up: {gone}"])


def test_a_device_that_is_gone_for_two_jobs_has_no_third():
    """The jobs that found it gone, and those after them, go to the other one."""
    first, second = Fake("0", READY, GONE, READY, GONE), Fake("1", *[READY], *[DONE] * 4)
    lines: list[str] = []
    jobs = [job(name, "x") for name in "abcd"]
    found = list(schedule(jobs, [first, second], listen, notice=lines.append))
    assert sorted((outcome.job.id, outcome.device) for outcome in found) == [
        (name, "1") for name in "abcd"
    ]
    assert lines == ["device 0 is given up: lost"]


def test_without_any_device_left_all_jobs_are_lost(monkeypatch):
    """Those that nobody asked for yet as well, each with the reason."""
    monkeypatch.setenv("BROKEN", "7")
    lines: list[str] = []
    jobs = [job(str(number), "where") for number in range(3)]
    found = list(run_jobs(jobs, "stub_work:work", ["7"], notice=lines.append))
    why = "its worker does not start: RuntimeError: no driver"
    assert lines == [f"device 7 is given up: {why}"]
    assert [told(outcome) for outcome in found] == [
        (str(number), "lost", f"no device is left: 7: {why}") for number in range(3)
    ]
    assert {outcome.device for outcome in found} == {""}


def test_only_devices_of_the_wanted_kind_get_jobs():
    """A GPU of another model is given up at once, with what it is."""
    lines: list[str] = []
    jobs = [job(str(number), "where") for number in range(4)]
    found = list(
        run_jobs(jobs, "stub_work:work", ["0", "1"], facts={"gpu": "H1"}, notice=lines.append)
    )
    assert [outcome.device for outcome in found] == ["1"] * 4
    assert set(lines) <= {"device 0 is given up: its gpu is 'H0', not 'H1'"}
    found = list(run_jobs(jobs[:1], "stub_work:work", ["0"], facts={"sort": "x"}))
    reason = "no device is left: 0: its sort is not known, not 'x'"
    assert [told(outcome) for outcome in found] == [("0", "lost", reason)]


@pytest.mark.parametrize(
    ("perform", "devices", "message"),
    [
        ("a.work", ["0"], "'a.work' names no function; write it as module:function"),
        ("a b:c", ["0"], "'a b:c' names no function; write it as module:function"),
        ("a:b", [], "there is no device to spread jobs over"),
        ("a:b", ["1", "0", "1"], "device '1' is named twice; one process runs on each"),
    ],
    ids=["no-colon", "no-name", "no-device", "twice"],
)
def test_wrong_use_is_refused_before_anything_starts(perform, devices, message):
    """The call itself raises, not the first step of the iterator."""
    with pytest.raises(UsageError) as caught:
        run_jobs([], perform, devices)
    assert str(caught.value) == message


def test_closing_the_iterator_ends_all_processes(tmp_path):
    """In the midst of jobs, too."""
    jobs = [job("ready", "where"), *(job(str(n), "hang", place=str(tmp_path)) for n in range(2))]
    outcomes = run_jobs(jobs, "stub_work:work", ["cpu:0", "cpu:1"])
    next(outcomes)
    outcomes.close()
    assert [process for process in noted(tmp_path) if is_there(process)] == []


def test_an_error_of_who_makes_the_jobs_ends_all_processes(tmp_path):
    """The error comes out, and no job goes on."""

    def jobs() -> Iterator[Job]:
        yield job("where", "where")
        raise LookupError("no more")

    with pytest.raises(LookupError, match="no more"):
        list(run_jobs(jobs(), "stub_work:work", ["cpu"]))


@pytest.mark.parametrize(
    ("number", "said"),
    [(signal.SIGKILL, b""), (signal.SIGINT, b"interrupted\n")],
    ids=["kill", "ctrl-c"],
)
def test_nothing_outlives_its_pool(tmp_path, stub, number, said):
    """Killed at once, or by Ctrl-C on a terminal: no process is left, and none prints anything."""
    (tmp_path / "driver.py").write_text(SCRIPT)
    root = Path(pool.__file__).parents[1]
    process = subprocess.Popen(
        [sys.executable, str(tmp_path / "driver.py"), str(stub), str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    until(lambda: len(noted(tmp_path)) == 10)
    os.killpg(process.pid, number)  # its workers are in sessions of their own
    assert process.communicate(timeout=600)[0] == said
    until(lambda: not any(map(is_there, noted(tmp_path))))


@pytest.mark.parametrize("which", ["outer", "inner", "worker"])
def test_nothing_is_left_whichever_process_is_killed(tmp_path, which):
    """The job is handed on, and what it had started has ended by then."""
    jobs = [job("hang", "hang", place=str(tmp_path)), job("next", "double", number=1)]
    outcomes = run_jobs(jobs, "stub_work:work", ["cpu:0", "cpu:1"])
    assert next(outcomes).job.id == "next"
    until(lambda: len(noted(tmp_path)) == 5)
    left = noted(tmp_path)
    worker, inner = left[:2]
    outer = int(Path(f"/proc/{inner}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill({"worker": worker, "inner": inner, "outer": outer}[which], signal.SIGKILL)
    thread = threading.Thread(target=lambda: next(outcomes, None))
    thread.start()
    until(lambda: not any(map(is_there, left)))
    until(lambda: len(noted(tmp_path)) == 10)
    for process in (each for each in noted(tmp_path) if each not in left):
        with contextlib.suppress(ProcessLookupError):  # its parent's end may have ended it
            os.kill(process, signal.SIGKILL)
    thread.join()
    outcomes.close()


class Fake:
    """A worker that says what its script says, one message for each start or job."""

    def __init__(self, device: str, *script: Message) -> None:
        self.device = device
        self.script = list(script)
        self.said: list[Message] = []
        self.deeds: list[str] = []
        self.clean = True

    def start(self) -> None:
        self.deeds.append("start")
        self.said.append(self.script.pop(0))

    def send(self, payload: str) -> None:
        self.deeds.append(payload)
        self.said.append(self.script.pop(0))

    def leave(self) -> None:
        self.deeds.append("leave")

    def end(self) -> None:
        self.deeds.append("end")

    def finish(self) -> bool:
        return self.clean


def listen(fakes: Sequence[Fake], seconds: float) -> list[tuple[Fake, Message]]:
    found = [(fake, message) for fake in fakes for message in fake.said]
    for fake in fakes:
        fake.said = []
    return found


READY = Message(kind="ready", value={})
DONE = Message(kind="done", value=1)
REFUSED = Message(kind="refused", text="no room")
STUCK = Message(kind="stuck", text="its process cannot be killed")
GONE = Message(kind="gone", text="lost")


def test_a_device_that_comes_back_is_not_given_up():
    """Only what goes wrong twice in a row counts."""
    fake = Fake("0", REFUSED, READY, DONE, GONE, READY, DONE, DONE)
    found = list(schedule([job(name, "x") for name in "abc"], [fake], listen))
    assert [told(outcome)[:2] for outcome in found] == [(name, "done") for name in "abc"]
    assert fake.deeds.count("start") == 3
    assert fake.deeds[-1] == "leave"


def test_a_process_that_cannot_be_killed_ends_its_device():
    """Its job goes to another device, and nothing waits for it."""
    first, second = Fake("0", READY, STUCK), Fake("1", READY, DONE, DONE)
    lines: list[str] = []
    found = list(
        schedule([job(name, "x") for name in "ab"], [first, second], listen, notice=lines.append)
    )
    assert sorted((outcome.job.id, outcome.device) for outcome in found) == [("a", "1"), ("b", "1")]
    assert lines == ["device 0 is given up: its process cannot be killed"]


def test_a_timeout_that_does_not_kill_ends_its_device():
    """The job has its outcome; the device has no further one."""
    fake = Fake("0", READY)
    fake.script.append(Message(kind="done"))
    fake.send = lambda payload: None  # type: ignore[method-assign]
    fake.clean = False
    found = list(schedule([job("a", "x", timeout=0.0), job("b", "x")], [fake], listen))
    assert [told(outcome) for outcome in found] == [
        ("a", "timeout", "killed after 0 s"),
        ("b", "lost", "no device is left: 0: its process cannot be killed"),
    ]


def test_a_host_without_room_for_a_process_is_told():
    """What the system says is the reason."""

    class Full(Fake):
        def start(self) -> None:
            raise OSError(28, "No space left on device")

    (outcome,) = schedule([job("a", "x")], [Full("0")], listen)
    reason = "no process can be started: [Errno 28] No space left on device"
    assert told(outcome) == ("a", "lost", f"no device is left: 0: {reason}")


DIED = Message(kind="died", text="its process was ended by SIGSEGV")
POISONED = Message(kind="poisoned", text="RuntimeError: CUDA error")


def test_a_series_of_jobs_is_done_by_one_worker():
    """In its order, and each job is asked for when the one before it has its outcome."""
    asked: list[tuple[str, int]] = []
    found: list[JobOutcome] = []

    def series(names: str) -> Iterator[Job]:
        for name in names:
            asked.append((name, len([one for one in found if one.job.id in names])))
            yield job(name, "x")

    fakes = [Fake(device, READY, *[DONE] * 4) for device in "01"]
    jobs = [series("abc"), job("d", "x"), series(""), series("ef")]
    for outcome in schedule(jobs, fakes, listen):
        found.append(outcome)
    by_name = {outcome.job.id: outcome.device for outcome in found}
    assert sorted(by_name) == list("abcdef")
    assert {len({by_name[name] for name in names}) for names in ("abc", "ef")} == {1}
    assert asked == [("a", 0), ("b", 1), ("e", 0), ("c", 2), ("f", 1)]


def test_with_one_try_a_job_that_costs_its_worker_is_lost_at_once():
    """The rest of its series goes on in a fresh process of the same device."""
    fake = Fake("0", READY, DIED, READY, POISONED, READY, DONE)
    found = list(schedule([[job(name, "x") for name in "abc"]], [fake], listen, tries=1))
    assert [(*told(outcome), outcome.ended) for outcome in found] == [
        ("a", "lost", "its process was ended by SIGSEGV", True),
        ("b", "failed", "RuntimeError: CUDA error", True),
        ("c", "done", "", False),
    ]


def test_with_one_try_a_device_that_is_gone_is_given_up_at_once():
    """Nobody is to blame: its job, and the series after it, are another's."""
    first, second = Fake("0", READY, GONE), Fake("1", READY, *[DONE] * 3)
    jobs = [[job(name, "x") for name in "ab"], job("c", "x")]
    found = list(schedule(jobs, [first, second], listen, tries=1))
    assert sorted((outcome.job.id, *told(outcome)[1:], outcome.device) for outcome in found) == [
        (name, "done", "", "1") for name in "abc"
    ]
    alone = schedule(jobs[:1], [Fake("0", READY, GONE)], listen, tries=1)
    assert [told(outcome) for outcome in alone] == [
        (name, "lost", "no device is left: 0: lost") for name in "ab"
    ]


def test_jobs_that_fit_only_alone_wait_for_each_other():
    """Of what is free on a device a share is taken; what fits beside others does not wait."""
    ready = Message(kind="ready", value={"free": "100"})
    fakes = [Fake("0", ready, *[DONE] * 8) for _ in range(2)]
    sizes = {"a": 60, "b": 60, "c": 20, "d": 81, "e": 80, "f": 0, "g": 40, "h": 40}
    at_once: list[str] = []

    def heard(workers: Sequence[Fake], seconds: float) -> list[tuple[Fake, Message]]:
        busy = [json.loads(fake.deeds[-1])["do"] for fake in fakes if fake.said[:1] == [DONE]]
        at_once.append("".join(busy))
        return listen(workers, seconds)

    jobs = [
        Job(id=name, payload={"do": name}, timeout=None, memory=size)
        for name, size in sizes.items()
    ]
    found = {one.job.id: one for one in schedule(jobs, fakes, heard, share=0.8)}
    assert {name: one.status for name, one in found.items()} == {
        name: "large" if name == "d" else "done" for name in sizes
    }
    assert max(sum(sizes[name] for name in names) for names in at_once) == 80
    assert max(map(len, at_once)) == 2
    assert sorted("".join(at_once)) == sorted(set(sizes) - {"d"})
