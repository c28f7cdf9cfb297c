"""What --verbose says beside what a command prints."""

from __future__ import annotations

import contextlib
import re
import time

import pytest

from kernelpkg import cli
from kernelpkg.cli import verbose
from kernelpkg.errors import UsageError, error_line
from kernelpkg.jobs.pool import Job, run_jobs


@pytest.mark.parametrize("words", [["-v", "list"], ["list", "--verbose"]], ids=["before", "behind"])
def test_which_pack_is_read_and_why_and_which_configs(words, demo, tmp_path, capsys):
    demo.configs("twice")
    (tmp_path / "ours").mkdir()
    where = ["--root", str(demo.root), "--configs", str(tmp_path / "ours")]
    assert cli.main([*words, *where]) == 0
    out, err = capsys.readouterr()
    versions, *lines, times = err.splitlines()
    assert re.fullmatch(r"# kernelpkg \S+, python 3\S+(, \w+ \S+)*", versions)
    assert lines == [
        f"# pack demo in {demo.root}: named by --root",
        "# manifest manifests/demo.toml: version 0.1.0, ops twice",
        f"# configs in {tmp_path}/ours (--configs): none",
        f"# configs in {demo.root}/configs (of the pack): nvidia_h200",
    ]
    assert re.match(r"# time: \d+\.\d s", times)
    cli.main(["list", *where])
    assert capsys.readouterr() == (out, "")


def test_a_pack_of_the_current_directory_and_a_platform_that_is_named(demo, monkeypatch, capsys):
    monkeypatch.chdir(demo.root / "kernels")
    cli.main(["check", "-v", "--platform", "nvidia_h200,cpu"])
    lines = capsys.readouterr().err.splitlines()
    assert f"# pack demo in {demo.root}: the current directory is in it" in lines
    assert "# platform nvidia_h200, cpu: named by --platform" in lines


def test_a_pack_that_is_not_there_is_one_error(tmp_path, capsys):
    assert cli.main(["list", "-v", "--root", str(tmp_path / "none")]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line[:2] != "# "]
    assert [line.partition(": KP604 ")[0] for line in lines] == [str(tmp_path / "none")]


def test_quiet_and_verbose_exclude_each_other(demo, capsys):
    assert cli.main(["-q", "check", "-v", "--root", str(demo.root)]) == 2
    line = "kernelpkg: --quiet says less, and --verbose more; give one of them\n"
    assert capsys.readouterr() == ("", line)


def test_every_command_takes_it(capsys):
    cli.main(["xyz"])
    for command in capsys.readouterr().err.partition("known are ")[2].partition(";")[0].split(", "):
        assert cli.main([command, "--help"]) == 0
        assert "  -v, --verbose " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("phases", "end", "text"),
    [
        pytest.param([(5.0, "starting")], 5.0, "time: 0.0 s", id="none"),
        pytest.param(
            [(5.0, "starting"), (5.26, "the rest"), (5.51, "loading"), (6.0, "the rest")],
            6.04,
            "time: 1.0 s = starting 0.3 s + loading 0.5 s + the rest 0.2 s",
            id="rounded",
        ),
        pytest.param(
            [(0.0, "a"), (1.0, "b"), (3.0, "a")], 4.0, "time: 4.0 s = a 2.0 s + b 2.0 s", id="again"
        ),
    ],
)
def test_the_parts_of_the_time_add_up(phases, end, text):
    assert verbose._times(phases, end) == text
    whole, *parts = (float(number) for number in re.findall(r"\d+\.\d", text))
    assert sum(parts) == pytest.approx(whole)


def test_steps_that_take_long_are_told_with_their_seconds(monkeypatch, capsys):
    now = iter([10.0, 10.0, 10.0, 10.04, 12.54, 12.6])
    monkeypatch.setattr(verbose.time, "perf_counter", lambda: next(now))
    with verbose.told(9.0), verbose.phase("reading"):
        verbose.begin_step("reading a")
        verbose.begin_step("reading b")
    step, times = capsys.readouterr().err.splitlines()
    assert step == "# reading b: 2.5 s"
    assert times == "# time: 3.6 s = starting 1.0 s + reading 2.5 s + the rest 0.1 s"


def _fail():
    raise ValueError("x" * 400)


def test_an_error_that_was_not_foreseen_has_its_traceback_once(capsys):
    """Its line in a message is cut; nothing is said of errors that kernelpkg raises on purpose."""
    try:
        _fail()
    except ValueError as error:
        assert len(error_line(error)) == 300
        assert capsys.readouterr().err == ""
        with verbose.told(time.perf_counter()):
            error_line(error)
            error_line(error)
            error_line(UsageError("foreseen"))
    first, *lines, last, _ = capsys.readouterr().err.splitlines()
    assert first == "# Traceback (most recent call last):"
    assert last == f"# ValueError: {'x' * 400}"
    assert '#     raise ValueError("x" * 400)' in lines


@pytest.mark.parametrize("asked", [True, False], ids=["verbose", "without"])
def test_an_error_in_a_worker_process_has_its_traceback_too(capsys, asked):
    """As of a kernel that fails to compile, or to run, in a process of `check` or `autotune`."""
    jobs = [Job(id=name, payload={}, timeout=60) for name in "ab"]
    with verbose.told(time.perf_counter()) if asked else contextlib.nullcontext():
        outcomes = list(run_jobs(jobs, "json:loads", ["cpu"]))
    assert {(outcome.status, outcome.reason.partition(":")[0]) for outcome in outcomes} == {
        ("failed", "TypeError")
    }
    lines = capsys.readouterr().err.splitlines()
    assert lines.count("# Traceback (most recent call last):") == asked
    assert (
        any(line.startswith("# TypeError: the JSON object must be str") for line in lines) == asked
    )
