"""The command `check`: what it prints, and the status that it exits with."""

# ruff: noqa: E501  # tables of cases and messages have whole lines

from __future__ import annotations

import json
import re
import sys
import types
from functools import partial
from pathlib import Path

import pytest

from kernelpkg import cli
from kernelpkg.errors import Checked, Problem

ROOT = Path(__file__).parents[2]


@pytest.fixture
def check(on_demo):
    """Runs the command on `demo`; returns status, stdout and stderr."""
    return partial(on_demo, "check")


def test_a_clean_pack(check):
    assert check() == (
        0,
        "level 0: 0 errors, 0 unverified\nchecked: 1 kernel, 0 files, 0 cases, 0 configs\nnot checked: level 1 binds every variant with Helion, without a GPU\n",
        "",
    )


def test_errors_exit_1_and_are_sorted_by_place(demo, check):
    demo.configs("twice")
    demo.edit("configs/twice/nvidia_h200.json", '"num_warps": 4', '"num_warps": 3')
    demo.kernel("thrice")
    demo.edit("kernels/thrice/kernel.toml", "version = 1", "version = 0")
    status, out, err = check()
    assert (status, err) == (1, "")
    assert [line.split(" ")[:2] for line in out.splitlines()] == [
        ["configs/thrice/nvidia_h200.json:", "KP208"],
        ["configs/twice/nvidia_h200.json:5:", "KP226"],
        ["configs/twice/nvidia_h200.json:6:", "KP508"],
        ["kernels/thrice/kernel.toml:4:", "KP012"],
        ["level", "0:"],
        ["checked:", "2"],
        ["not", "checked:"],
    ]
    assert "level 0: 2 errors, 2 unverified\n" in out


def test_what_is_unverified_exits_0(demo, check):
    demo.configs("twice")
    status, out, _ = check()
    assert status == 0
    assert "level 0: 0 errors, 1 unverified\n" in out


def test_json_has_findings_and_what_was_checked(demo, check):
    demo.configs("twice")
    demo.edit("configs/twice/nvidia_h200.json", '"num_tokens": 4', '"num_tokens": 4.5')
    status, out, err = check("--json")
    document = json.loads(out)
    assert (status, err) == (1, "")
    assert document["findings"][-1] == {
        "path": "configs/twice/nvidia_h200.json",
        "line": 7,
        "code": "KP210",
        "severity": "error",
        "message": "case 1, key: axis 'num_tokens' has value 4.5, which is a number, and must be a "
        "whole number; correct it, or tune again",
        "level": 0,
    }
    assert document["checked"] == {
        "level": 0,
        "kernels": 1,
        "files": 1,
        "cases": 2,
        "configs": 1,
        "platforms": ["nvidia_h200"],
    }


def test_ops_and_platforms_that_are_not_asked_for_are_left_out(demo, check):
    """Also ops that stand behind an option."""
    demo.kernel("thrice")
    demo.configs("twice", "{")
    demo.configs("twice", "{", platform="nvidia_b200")
    demo.edit("kernels/thrice/kernel.toml", "version = 1", "version = 0")
    status, out, _ = check("--platform", "NVIDIA B200", "twice")
    assert status == 1
    assert [line.split(":")[0] for line in out.splitlines()[:-3]] == [
        "configs/twice/nvidia_b200.json"
    ]


def test_a_broken_pack_manifest_is_a_finding(demo, check):
    """Kernels are checked all the same."""
    demo.edit("manifests/demo.toml", 'version = "0.1.0"', "version = 1")
    demo.edit("kernels/twice/kernel.toml", "version = 1", "version = 0")
    status, out, err = check()
    assert (status, err) == (1, "")
    assert [line.split(" ")[:2] for line in out.splitlines()[:2]] == [
        ["kernels/twice/kernel.toml:4:", "KP012"],
        ["manifests/demo.toml:4:", "KP012"],
    ]


def test_configs_of_an_operator_are_checked(demo, check, tmp_path):
    mine = tmp_path / "mine/twice"
    mine.mkdir(parents=True)
    (mine / "nvidia_h200.json").write_text("{")
    status, out, _ = check("--configs", str(tmp_path / "mine"))
    assert status == 1
    assert out.startswith(f"{mine}/nvidia_h200.json:1: KP501 ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["twise"], "kernelpkg: pack 'demo' has no op 'twise'; did you mean 'twice'?\n"),
        (["--platform", "zzz"],
            "kernelpkg: 'zzz' is not a platform that is known here; the pack has files for none\n"),
        (["--jobs", "0"],
            "kernelpkg: invalid value for '--jobs': '0' is not a whole number, 1 or more; see 'kernelpkg check --help'\n"),
        (["--level", "4"],
            "kernelpkg: invalid value for '--level': '4' is not one of '0', '1', '2', '3'; see 'kernelpkg check --help'\n"),
        (["--levle", "1"],
            "kernelpkg: '--levle' is not an option of 'check'; did you mean '--level'?; see 'kernelpkg check --help'\n"),
    ],
    ids=["op", "platform", "jobs", "level", "option"],
)  # fmt: skip
def test_wrong_usage_exits_2(check, arguments, message):
    assert check(*arguments) == (2, "", message)


def test_levels_are_cumulative_and_get_what_they_take(check, monkeypatch):
    """Each module is asked for its own function, with the processes and the device."""
    told = []

    def level(number):
        def run(_pack, specs, platforms, *, progress, jobs, device=None):
            told.append((number, [spec.name for spec in specs], platforms, jobs, device))
            progress("", 0, 1)
            found = Problem(path="x", code=f"KP2{3 + number}0", message="is so", level=number)
            counts = {"sources": 0, "prebuilt": 3, "resources": []} if number == 2 else {}
            return Checked(findings=(found,), counts={f"level_{number}": number, **counts})

        return run

    for number, (module, name) in enumerate(
        [("level1", "check_bindings"), ("level2", "check_compiling"), ("level3", "check_runs")], 1
    ):
        fake = types.SimpleNamespace(**{name: level(number)})
        monkeypatch.setitem(sys.modules, f"kernelpkg.check.{module}", fake)
    status, out, err = check("--level", "3", "--device", "cpu", "--jobs", "2")
    assert (status, err) == (1, "")
    assert told == [
        (number, ["twice"], None, 2, "cpu" if number == 3 else None) for number in (1, 2, 3)
    ]
    assert out.splitlines() == [
        "x: KP240 is so",
        "x: KP250 is so",
        "x: KP260 is so",
        *[
            f"level {number}: {number > 0:d} error{'' if number else 's'}, 0 unverified"
            for number in range(4)
        ],
        "checked: 1 kernel, 0 files, 0 cases, 0 configs, 1 level 1, 2 level 2, 0 sources, 3 prebuilt, 3 level 3",
    ]


def test_a_level_that_cannot_run_here_is_one_line(check, monkeypatch):
    """Before anything is checked."""
    monkeypatch.setitem(sys.modules, "kernelpkg.check.level1", None)
    status, out, err = check("--level", "1")
    assert (status, out) == (1, "")
    assert err.startswith(
        "kernelpkg: level 1 needs 'kernelpkg.check.level1', which cannot be imported"
    )
    assert err.count("\n") == 1


def test_the_hook_of_pre_commit_checks_the_pack_of_the_repository(demo, capsys, monkeypatch):
    """Where a file of a pack is in the commit; it is run at the top of the repository."""
    text = (ROOT / ".pre-commit-hooks.yaml").read_text()
    hook = dict(re.findall(r"^(?:- |  )(\w+): (.+)$", text, re.M))
    assert (hook["language"], hook["pass_filenames"]) == ("system", "false")
    entry = hook["entry"].split()
    assert entry[0] == "kernelpkg"
    monkeypatch.chdir(demo.root)
    assert cli.main(entry[1:]) == 0
    assert "checked: 1 kernel" in capsys.readouterr().out
    monkeypatch.chdir(demo.root.parent)
    assert cli.main(entry[1:]) == 2  # and does not check another pack in its place
    assert "has no packs" in capsys.readouterr().err
    assert cli.main([*entry[1:], "--root", "demo"]) == 0  # as `args` say
    for path in ("manifests/a.toml", "packs/x/kernels/a/kernel.py", "kernelpkg.lock"):
        assert re.search(hook["files"], path)
    for path in ("docs/a.txt", "src/my_kernels/a.py", "old_kernelpkg.lock"):
        assert not re.search(hook["files"], path)
