"""One worker of this host, from its start to its end."""

from __future__ import annotations

import json
import math
import os
import sys
from pathlib import Path

import pytest

from kernelpkg.jobs.worker import (
    Call,
    Message,
    WorkerProcess,
    environment_of,
    loads,
    one_line,
    start,
    wait,
)

STUB = """
import atexit, os, pathlib, sys, time


def work(payload):
    if "exit" in payload:
        atexit.register(pathlib.Path(payload["exit"]).touch)
    if "print" in payload:
        os.write(2, payload["print"].encode() * payload["times"])
        os._exit(0)
    time.sleep(payload.get("sleep", 0))
    return len(payload.get("large", ""))
"""


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WorkerProcess:
    (tmp_path / "stub_process.py").write_text(STUB)
    monkeypatch.syspath_prepend(tmp_path)
    made = WorkerProcess("cpu", "stub_process:work")
    made.start()
    assert listen(made).kind == "ready"
    return made


def listen(worker: WorkerProcess) -> Message:
    while True:
        for _, message in wait([worker], 1.0):
            return message


def test_a_worker_that_may_leave_tidies_up(worker, tmp_path):
    """It ends as Python programs end, and is forgotten."""
    worker.send(json.dumps({"exit": str(tmp_path / "left")}))
    assert listen(worker).kind == "done"
    worker.leave()
    assert worker.finish()
    assert (tmp_path / "left").exists()
    assert worker.fileno() == -1
    assert worker.receive() == []
    assert worker.finish()


def test_nothing_of_the_current_directory_is_imported(worker, tmp_path, monkeypatch):
    """What lies there may have the name of a module that the process needs."""
    here = tmp_path / "here"
    here.mkdir()
    for name in ("json", "selectors", "torch"):
        (here / f"{name}.py").write_text(f"open({str(tmp_path / 'was_run')!r}, 'w')")
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.setattr("sys.path", [os.path.abspath(path) for path in sys.path if path])
    monkeypatch.chdir(here)
    other = WorkerProcess("cpu", "stub_process:work")
    other.start()
    assert listen(other).kind == "ready"
    for each in (worker, other):
        each.end()
        each.finish()
    assert not (tmp_path / "was_run").exists()


def test_what_belongs_to_a_worker_is_removed_with_it(worker, tmp_path):
    """However it ends; here in the midst of a job."""
    folder = tmp_path / "belongings"
    (folder / "deep").mkdir(parents=True)
    other = WorkerProcess("cpu", "stub_process:work", str(folder))
    other.start()
    listen(other)
    other.send(json.dumps({"sleep": 600}))
    assert folder.exists()
    for each in (worker, other):
        each.end()
        each.finish()
    assert not folder.exists()


def test_payloads_and_messages_may_be_larger_than_pipes(worker):
    """Five million letters there, and an answer."""
    worker.send(json.dumps({"large": "x" * 5_000_000}))
    assert listen(worker).value == 5_000_000
    worker.end()
    assert worker.finish()


def test_output_does_not_fill_a_disk(worker, monkeypatch):
    """A job that prints without end starts its file anew; the last line is told."""
    monkeypatch.setattr("kernelpkg.jobs.worker._MOST", 1000)
    worker.send(json.dumps({"print": "0123456789\n", "times": 10_000}))
    message = listen(worker)
    text = "its process ended with status 0"
    assert message.kind == "died"
    assert message.text in (text, f"{text}: 0123456789")


def test_a_worker_that_is_told_to_leave_but_works_is_killed(worker, monkeypatch):
    """After two seconds; shorter here."""
    monkeypatch.setattr("kernelpkg.jobs.worker._LEAVING", 0.1)
    worker.send(json.dumps({"sleep": 600}))
    worker.leave()
    assert worker.finish()
    assert worker.fileno() == -1


def test_no_descriptor_is_left(worker, tmp_path):
    """Neither of a worker that ran nor of one that could not be started."""
    worker.end()
    worker.finish()
    before = sorted(os.listdir("/proc/self/fd"))
    worker.start()
    worker.end()
    worker.finish()
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_a_worker_that_cannot_be_started_leaves_nothing(monkeypatch):
    """The error of the system comes out."""
    monkeypatch.setattr("sys.executable", "/no/such/python")
    before = sorted(os.listdir("/proc/self/fd"))
    with pytest.raises(FileNotFoundError):
        WorkerProcess("cpu", "a:b").start()
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_waiting_for_nobody_takes_no_longer_than_asked():
    """A worker without a process says nothing."""
    assert wait([WorkerProcess("cpu", "a:b")], 0.0) == []


def test_a_device_is_all_that_a_process_sees():
    """Everything else of the environment stays."""
    environment = {"A": "b", "CUDA_VISIBLE_DEVICES": "0,1"}
    seen = {"CUDA_VISIBLE_DEVICES": "1", "HIP_VISIBLE_DEVICES": "1"}
    assert environment_of("1", environment) == {"A": "b", **seen}
    assert environment_of("cpu:3", environment) == {"A": "b", **dict.fromkeys(seen, "")}


CALL_STUB = """
from kernelpkg.errors import error_line


def facts():
    return {"gpu": "x"}


def work(payload):
    if isinstance(payload, str):
        raise RuntimeError(payload)
    if isinstance(payload, int):
        for number in range(payload):
            error_line(ValueError(f"config {number}"))
    return payload
"""


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    (tmp_path / "stub_call.py").write_text(CALL_STUB)
    monkeypatch.syspath_prepend(tmp_path)
    return Call("stub_call:work")


def test_a_worker_says_what_its_module_knows_of_the_device(call):
    """Without `facts` it knows nothing."""
    assert call.ready == Message(kind="ready", value={"gpu": "x"})
    assert Call("json:dumps").ready == Message(kind="ready", value={})


def test_a_result_comes_back_as_it_is(call):
    """Numbers that JSON does not know, too."""
    message = loads(call.answer({"ms": [1.5, math.inf], "deep": {"a": None}}))
    assert (message.kind, message.value) == ("done", {"ms": [1.5, math.inf], "deep": {"a": None}})


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("wrong result", "failed"),
        ("CUDA out of memory. Tried to allocate 20 GiB", "failed"),
        ("CUDA error: out of memory", "failed"),
        ("CUDA error: device-side assert triggered", "poisoned"),
        ("HIP error: invalid argument", "poisoned"),
        ("Triton Error [CUDA]: an illegal memory access was encountered", "poisoned"),
        ("CUDA error: no CUDA-capable device is detected", "gone"),
        ("CUDA error: uncorrectable ECC error encountered", "gone"),
        ("No CUDA GPUs are available", "gone"),
        ("CUDA-capable device(s) is/are busy or unavailable", "gone"),
    ],
    ids=lambda value: value.replace(" ", "-")[-24:],
)
def test_an_error_says_what_is_left(call, text, kind):
    """A context that is broken, a device that is gone, or nothing of the sort."""
    message = loads(call.answer(text))
    assert (message.kind, message.text) == (kind, f"RuntimeError: {text}")


@pytest.mark.parametrize(
    ("perform", "text"),
    [
        ("no_such_module:f", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("json:nothing", "AttributeError: module 'json' has no attribute 'nothing'"),
    ],
    ids=["module", "function"],
)
def test_a_worker_that_cannot_start_says_why(perform, text):
    """The message is the last one."""
    call, said = start(perform)
    assert call is None
    message = loads(said)
    assert (message.kind, message.text) == ("refused", text)
    (traceback,) = message.tracebacks
    assert traceback.startswith("Traceback (most recent call last):\n")
    assert traceback.endswith(text)


def test_the_traceback_of_an_error_comes_with_it(call):
    """Its text in the message is one line."""
    message = loads(call.answer("wrong\nresult"))
    assert message.text == "RuntimeError: wrong result"
    (traceback,) = message.tracebacks
    assert "    raise RuntimeError(payload)\n" in traceback
    assert traceback.endswith("\nRuntimeError: wrong\nresult")


def test_a_job_that_is_done_may_have_met_errors(call):
    """Their tracebacks come along, the first few of many."""
    assert loads(call.answer([])).tracebacks == ()
    message = loads(call.answer(2))
    assert (message.kind, message.value) == ("done", 2)
    assert list(message.tracebacks) == ["ValueError: config 0", "ValueError: config 1"]
    assert len(loads(call.answer(100)).tracebacks) == 8


def test_of_a_long_traceback_the_end_comes_along(call):
    """What was raised last stands there; the middle is left out."""
    (traceback,) = loads(call.answer("long " * 10_000 + "end")).tracebacks
    assert traceback.startswith("Traceback (most recent call last):\n")
    assert "\n…\n" in traceback
    assert traceback.endswith("long end")
    assert len(traceback) == 20_003


def test_a_message_is_one_line():
    """Whatever its text holds, and short."""
    assert one_line(" a\n\tb\x1b[0m\x00 ") == "a b [0m"
    assert len(one_line("word " * 200)) == 300
    said = Message(kind="failed", text="a\nb").dumps()
    assert "\n" not in said
    assert loads(said) == Message(kind="failed", text="a\nb")
    assert json.loads(said)["seconds"] == 0.0
