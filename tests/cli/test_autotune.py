"""The command `autotune`, on a machine that is made up."""

# ruff: noqa: E501  # tables of cases and messages have whole lines

from __future__ import annotations

import io
import json
import re
import runpy
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kernelpkg import cli
from kernelpkg.cli import autotune

STUB = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "tuning_stub.py")))


def timeless(line: str) -> str:
    """A summary without the time that the run took."""
    return re.sub(r" in (\d+ s|\d+ min|\d+ h \d+ min)(?=;|$)", " in TIME", line)


@pytest.fixture
def tune(demo, monkeypatch):
    """Run the command on the pack "demo" with the stub tuner; returns its status."""

    def run(*arguments: str, stop: int | None = None, gpu: str = "NVIDIA H200") -> int:
        machine = (STUB.MACHINE | {"gpu": gpu}, STUB.run_here(stop=stop), 1)
        monkeypatch.setattr(autotune, "_on_gpus", lambda *_: machine)
        return cli.main(["autotune", "--root", str(demo.root), *arguments])

    return run


def test_a_run_prints_its_table_and_a_line_for_each_saved_case(tune, capsys):
    assert tune() == 0
    output = capsys.readouterr()
    lines = output.out.splitlines()
    head = "op cases tuned kept over old over default time"
    assert lines[0].split() == head.split()
    assert lines[1].split()[:4] == ["twice", "2", "2", "0"]
    assert lines[2] == "all: wrong 0, failed 0, timeout 0, left 0, before 0"
    assert timeless(lines[3]) == "done: 2 cases on nvidia_h200 in TIME"
    saved = output.err.splitlines()
    assert [line.partition(": tuned")[0] for line in saved] == [
        "twice: case num_tokens=4",
        "twice: case num_tokens=1",
    ]


def test_ctrl_c_prints_what_was_saved_and_exits_130(tune, capsys):
    assert tune(stop=1) == 130
    last = capsys.readouterr().out.splitlines()[-1]
    assert timeless(last) == (
        "interrupted: 1 case on nvidia_h200 in TIME; 1 left, repeat the command to go on"
    )


def test_the_json_document_has_stable_keys(tune, capsys):
    assert tune("twice", "--axis", "num_tokens=4", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert list(document) == [
        *("format", "platform", "interrupted", "seconds", "ops", "problems", "remarks")
    ]
    (op,) = document["ops"]
    assert list(op) == [
        *("op", "path", "cases", "tuned", "kept", "wrong", "failed", "timeout", "before", "left"),
        *("speedup_over_old", "speedup_over_default", "seconds", "results"),
    ]
    (result,) = op["results"]
    assert (result["key"], result["outcome"], result["ms"]) == ({"num_tokens": 4}, "tuned", 0.004)


def test_a_dry_run_needs_no_gpu_and_writes_nothing(demo, capsys):
    arguments = ["autotune", "--dry-run", "--platform", "nvidia_h200", "--root", str(demo.root)]
    assert cli.main(arguments) == 0
    table = [
        "op     cases  searches",
        "twice  2      2",
        "all: variants 1, tuned 0, of another case 0, default 2",
    ]
    last = "2 cases would be tuned on nvidia_h200"
    assert capsys.readouterr().out.splitlines() == [*table, last]
    assert cli.main([*arguments, "--verbose"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "twice: case num_tokens=4: default",
        "twice: case num_tokens=1: default",
        *table,
        last,
    ]
    assert not (demo.root / "configs").exists()
    assert cli.main([*arguments, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["cases"][0] == {
        "op": "twice",
        "key": {"num_tokens": 4},
        "old": None,
        "tuned": False,
    }


@pytest.mark.parametrize(
    ("options", "searches", "told"),
    [
        (["--budget", "10m"], "2", "; 2 searches, 20 min at most on one GPU"),
        (["--budget", "30s", "--portfolio", "1"], "1", "; 1 search, 30 s at most on one GPU"),
        (["--budget", "10m", "--effort", "none"], "0", ""),
    ],
    ids=["budget", "portfolio", "no-search"],
)
def test_a_dry_run_says_how_long_searches_may_take(demo, capsys, options, searches, told):
    arguments = ["autotune", "--dry-run", "--platform", "nvidia_h200", "--root", str(demo.root)]
    assert cli.main([*arguments, *options]) == 0
    _, row, *_, last = capsys.readouterr().out.splitlines()
    assert row.split() == ["twice", "2", searches]
    assert last == f"2 cases would be tuned on nvidia_h200{told}"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--axis", "num_tokens"], "'num_tokens' is not of the form AXIS=VALUE[,VALUE]"),
        (["--axis", "num_tokens=1,"], "'num_tokens=1,' is not of the form AXIS=VALUE[,VALUE]"),
        (["--axis", "num_tokens=3"], "no case for tuning 'twice' has num_tokens=3; there are 1, 4"),
        (["--axis", "tokens=3"], "'twice' has no axis 'tokens'; did you mean 'num_tokens'?"),
        (["--platform", "nvidia_h200,nvidia_b200"], "this command takes one --platform, not nvidia_h200, nvidia_b200"),
        (["--within", "2"], "--within needs a portfolio; give --portfolio N too"),
        (["--platform", "nvidia_b200"],
            "the GPU is NVIDIA H200, of platform nvidia_h200; configs of nvidia_b200 are tuned on one of its own"),
        (["twicce"], "pack 'demo' has no op 'twicce'; did you mean 'twice'?"),
    ],
    ids=["no_value", "empty_value", "value", "axis", "platforms", "within", "platform", "op"],
)  # fmt: skip
def test_wrong_usage_is_one_line(tune, capsys, arguments, message):
    assert tune(*arguments) == 2
    assert capsys.readouterr().err == f"kernelpkg: {message}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--budget", "0"], "invalid value for '--budget': '0' is not a time such as 30s, 10m or"),
        (["--case-timeout", "1.5h"], "'1.5h' is not a time such as 30s, 10m or 1h"),
        (
            ["--margin", "100"],
            "invalid value for '--margin': '100' is not a percentage of at least 0 and below 100",
        ),
        (
            ["--portfolio", "0"],
            "invalid value for '--portfolio': '0' is not a whole number, 1 or more",
        ),
        (["--into", ""], "invalid value for '--into': the name of a directory is empty"),
        (
            ["--devices", "0", "--ray", "auto"],
            "--devices names GPUs of this host, --ray a cluster; give one of them",
        ),
    ],
    ids=["budget", "timeout", "margin", "portfolio", "into", "devices_and_ray"],
)
def test_wrong_options_are_refused(tune, capsys, arguments, message):
    assert tune(*arguments) == 2
    assert message in capsys.readouterr().err


def test_ops_without_a_wanted_value_are_left_out_and_named(demo, capsys):
    demo.kernel("plain")
    demo.edit("kernels/plain/kernel.toml", "num_tokens = [1, 4]", "num_tokens = [1, 64]")
    arguments = ["autotune", "--dry-run", "--platform", "nvidia_h200", "--root", str(demo.root)]
    assert cli.main([*arguments, "--axis", "num_tokens=64"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[-1] == "1 case would be tuned on nvidia_h200"
    assert err == "left out: no case for tuning 'twice' has num_tokens=64; there are 1, 4\n"


def test_without_a_gpu_one_line_says_so(demo, capsys, monkeypatch):
    from kernelpkg.jobs import pool

    monkeypatch.setattr(pool, "visible_devices", lambda environment: ())
    assert cli.main(["autotune", "--root", str(demo.root)]) == 2
    assert capsys.readouterr().err == (
        "kernelpkg: no GPU is visible, and tuning needs one; --dry-run --platform P needs none\n"
    )


def test_a_gpu_that_is_not_there_is_named(demo, capsys, monkeypatch):
    from kernelpkg.jobs import pool

    monkeypatch.setattr(pool, "visible_devices", lambda environment: ("0", "1"))
    assert cli.main(["autotune", "--devices", "0,2", "--root", str(demo.root)]) == 2
    assert capsys.readouterr().err == "kernelpkg: there is no GPU '2'; visible are 0, 1\n"


def test_jobs_go_to_the_gpus_that_are_like_the_first(demo, capsys, monkeypatch):
    from kernelpkg.jobs import pool

    asked: list[Any] = []

    def run_jobs(jobs: Any, perform: str, devices: Any, *, facts: Any = None, notice: Any) -> Any:
        asked.append((perform, tuple(devices), dict(facts or {})))
        if perform == "kernelpkg.bench.timing:perform":
            (job,) = jobs
            yield pool.JobOutcome(
                job=job, status="done", value=STUB.MACHINE, device="0", seconds=1.0
            )
        else:
            yield from STUB.run_here()(jobs)

    monkeypatch.setattr(pool, "visible_devices", lambda environment: ("0", "1"))
    monkeypatch.setattr(pool, "run_jobs", run_jobs)
    assert cli.main(["autotune", "--root", str(demo.root)]) == 0
    facts = {name: text for name, text in STUB.MACHINE.items() if name != "driver"}
    assert asked == [
        ("kernelpkg.bench.timing:perform", ("0",), {}),
        ("kernelpkg.autotune.worker:perform", ("0", "1"), facts),
    ]


def test_a_gpu_that_cannot_be_used_is_one_line(demo, capsys, monkeypatch):
    from kernelpkg.jobs import pool

    def run_jobs(jobs: Any, *_: Any, **__: Any) -> Any:
        (job,) = jobs
        yield pool.JobOutcome(job=job, status="lost", reason="no GPU", device="0", seconds=1.0)

    monkeypatch.setattr(pool, "visible_devices", lambda environment: ("0",))
    monkeypatch.setattr(pool, "run_jobs", run_jobs)
    assert cli.main(["autotune", "--root", str(demo.root)]) == 1
    assert capsys.readouterr().err == "kernelpkg: GPU 0 cannot be used: no GPU\n"


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)], ids=["term", "hangup"]
)
def test_a_signal_that_ends_a_process_ends_a_run_like_ctrl_c(demo, number, status):
    """In a process of its own, for whatever ran in this one before may handle the signal."""
    code = f"""
import itertools, os, runpy, signal, sys
from kernelpkg import cli
from kernelpkg.cli import autotune
stub = runpy.run_path({str(Path(__file__).parents[1] / "tuning_stub.py")!r})

def ended(jobs):
    yield from stub["run_here"]()(itertools.islice(jobs, 1))
    os.kill(os.getpid(), {number})

signal.signal({number}, signal.SIG_DFL)  # in the background it may be ignored
autotune._on_gpus = lambda *_: (stub["MACHINE"], ended, 1)
status = cli.main(["autotune", "--root", {str(demo.root)!r}])
assert signal.getsignal({number}) is signal.SIG_DFL
sys.exit(status)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == status
    assert timeless(done.stdout.splitlines()[-1]) == (
        "interrupted: 1 case on nvidia_h200 in TIME; 1 left, repeat the command to go on"
    )


def test_a_pack_that_was_installed_is_tuned_into_another_directory_alone(
    demo, tmp_path, monkeypatch, capsys
):
    place = tmp_path / "site-packages" / "pack"
    shutil.copytree(demo.root, place)
    machine = (STUB.MACHINE, STUB.run_here(), 1)
    monkeypatch.setattr(autotune, "_on_gpus", lambda *_: machine)
    assert cli.main(["autotune", "--root", str(place)]) == 2
    assert capsys.readouterr().err == (
        "kernelpkg: pack 'demo' is an installed package, whose files must not change; "
        "choose a directory of your own with --into\n"
    )
    assert not (place / "configs").exists()
    assert cli.main(["autotune", "--root", str(place), "--into", str(tmp_path / "mine")]) == 0
    assert not (place / "configs").exists()


def test_a_lock_that_is_of_other_configs_by_then_is_told(demo, tune, tmp_path, capsys):
    from kernelpkg.files import digest_bytes
    from kernelpkg.packs.lock import Lock, LockedPack, write_lock

    line = "kernelpkg.lock does not have the configs as they are now; run 'kernelpkg lock'"
    assert tune("--into", str(tmp_path / "mine")) == 0
    write_lock(
        demo.root,
        Lock(
            packs={
                "demo": LockedPack(version="1", manifest=digest_bytes(b""), tools={}, kernels={})
            }
        ),
    )
    assert tune("--into", str(tmp_path / "mine"), "--again") == 0
    assert line not in capsys.readouterr().err
    assert tune() == 0
    assert capsys.readouterr().err.splitlines()[-1] == line


def test_a_terminal_that_goes_away_ends_no_run(tune, monkeypatch, capsys):
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            if "case" in text:
                raise OSError(5, "Input/output error")
            return super().write(text)

    monkeypatch.setattr(sys, "stderr", Gone())
    assert tune() == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert timeless(last) == "done: 2 cases on nvidia_h200 in TIME"
    monkeypatch.setattr(sys, "stderr", None)
    assert tune("--again") == 0
    assert capsys.readouterr().out.startswith("op ")


def test_a_failed_case_exits_1_and_is_told(tune, demo, monkeypatch, capsys):
    failing = STUB.run_here(lambda payload: {"failed": "no memory"})
    monkeypatch.setattr(autotune, "_on_gpus", lambda *_: (STUB.MACHINE, failing, 1))
    assert cli.main(["autotune", "--root", str(demo.root)]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        "twice: case num_tokens=1: failed: no memory"
    )


def test_a_dry_run_for_a_gpu_that_nobody_knows_is_refused(demo, capsys):
    command = ["autotune", "--dry-run", "--root", str(demo.root), "--platform"]
    assert cli.main([*command, "nvidia_h20O"]) == 2
    assert capsys.readouterr().err == (
        "kernelpkg: 'nvidia_h20O' is not a platform that is known here; did you mean 'nvidia_h20'?\n"
    )
    assert cli.main([*command, "nvidia_h200"]) == 0
