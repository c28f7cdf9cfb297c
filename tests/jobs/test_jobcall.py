"""A job in its worker: what is said of it, and of what it leaves behind."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from kernelpkg.jobs import jobcall
from kernelpkg.jobs.jobcall import Call, Message, loads, one_line

STUB = """
def facts():
    return {"gpu": "x"}


def work(payload):
    if isinstance(payload, str):
        raise RuntimeError(payload)
    return payload
"""


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    (tmp_path / "stub_call.py").write_text(STUB)
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
    call, said = jobcall.start(perform)
    assert call is None
    assert loads(said) == Message(kind="refused", text=text)


def test_a_message_is_one_line():
    """Whatever its text holds, and short."""
    assert one_line(" a\n\tb\x1b[0m\x00 ") == "a b [0m"
    assert len(one_line("word " * 200)) == 300
    said = Message(kind="failed", text="a\nb").dumps()
    assert "\n" not in said
    assert loads(said) == Message(kind="failed", text="a\nb")
    assert json.loads(said)["seconds"] == 0.0
