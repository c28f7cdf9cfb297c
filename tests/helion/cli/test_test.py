"""The command `test`: a smoke check and levels 0 and 1, in one run."""

from __future__ import annotations

import json
from functools import partial

import pytest


@pytest.fixture
def tested(on_demo):
    """Runs the command on `demo`; returns status, stdout and stderr."""
    return partial(on_demo, "test")


def test_a_sound_kernel_is_run_and_bound(tested):
    status, out, err = tested()
    assert (status, err) == (0, "")
    assert "1 of 1 checks ok" in out
    assert "levels 0 and 1: 0 errors, 0 unverified; 1 kernel, " in out
    assert "1 binding" in out


def test_what_both_find_is_said_once(demo, tested):
    demo.kernel("thrice")
    demo.edit("kernels/twice/kernel.toml", "version = 1", "version = 0")
    status, out, err = tested()
    assert status == 1
    assert len(err.splitlines()) == 1
    assert "KP012" in err
    assert "1 failed" in out


def test_a_function_that_does_not_bind_and_does_not_run_is_said_twice(demo, tested):
    demo.edit("kernels/twice/kernel.py", "hl.tile", "hl.tyle")
    status, _, err = tested()
    assert status == 1
    assert [code for code in ("KP240", "KP701") if code in err] == ["KP240", "KP701"]


def test_only_the_ops_that_are_named_are_tested(demo, tested):
    demo.kernel("thrice")
    demo.edit("kernels/thrice/kernel.toml", "version = 1", "version = 0")
    status, out, _ = tested("twice", "--json")
    document = json.loads(out)
    assert status == 0
    assert [kernel["name"] for kernel in document["load"]["kernels"]] == ["twice"]
    assert document["check"]["findings"] == []


def test_watch_tests_what_changes_until_ctrl_c(demo, tested, monkeypatch):
    """A kernel that breaks, and is mended; the one that did not change is left alone."""
    demo.kernel("thrice")
    rest = [
        lambda: demo.edit("kernels/twice/host.py", "* 2", "* 3"),
        lambda: demo.edit("kernels/twice/kernel.toml", "version = 1", "version = 0"),
        lambda: demo.edit("kernels/twice/host.py", "* 3", "* 2"),
        lambda: demo.edit("kernels/twice/kernel.toml", "version = 0", "version = 1"),
    ]

    def pause():
        if not rest:
            raise KeyboardInterrupt
        rest.pop(0)()

    monkeypatch.setattr("kernelpkg.cli.watch.pause", pause)
    status, out, err = tested("--watch")
    assert status == 130
    assert err.count("KP701") == 1
    assert err.count("KP012") == 2
    assert err.count("waiting for changes; Ctrl-C ends it") == 5
    assert err.endswith("kernelpkg: interrupted\n")
    first, *others = out.split("\n\n")
    assert "2 of 2 checks ok" in first
    assert "levels 0 and 1: " in first
    assert [text.split("\n")[0] for text in others] == ["twice:"] * 4
    assert "0 of 1 checks ok" in others[0]
    assert "1 of 1 checks ok" in others[-1]
    assert "\nlevel 0: 0 errors" in others[-1]


def test_watch_has_no_document(tested):
    assert tested("--watch", "--json")[0] == 2


@pytest.mark.parametrize("command", ["test", "load", "check"])
def test_quiet_prints_findings_alone(demo, on_demo, command):
    assert on_demo(command, "-q") == (0, "", "")
    demo.kernel("thrice")
    demo.edit("kernels/thrice/kernel.toml", "version = 1", "version = 0")
    status, out, err = on_demo(command, "--quiet")
    assert status == 1
    assert (out + err).count("\n") == (out + err).count("KP012") == 1
