"""A transfer of config files: what it says, and that it writes all of its files or none."""

from __future__ import annotations

import os

import pytest
from attrs import evolve

from kernelpkg.configs.store import ConfigFile, TunedCase
from kernelpkg.errors import PackError, UsageError
from kernelpkg.vllm.transfer import FileStep, Plan, Transfer

FILE = ConfigFile(
    kernel="x",
    platform="p",
    configs=({"num_warps": 4}, {"num_warps": 8}),
    cases=tuple(TunedCase(key={"n": n}, config=n) for n in (0, 1)),
)
ONE = evolve(FILE, cases=FILE.cases[:1])


def planned(tmp_path, *, replace=False):
    """Return a plan of three files: one that is new, one that differs, one that is the same."""
    (tmp_path / "old.json").write_text("old")
    (tmp_path / "same.json").write_text("same")
    plan = Plan(replace=replace)
    for name, file in (("same", ONE), ("old", FILE), ("new", FILE)):
        path = tmp_path / f"{name}.json"
        plan.add(path, f"x/{name}.json", name.upper(), file, same=name == "same")
    plan.skip("x/b", "because")
    plan.skip("x/a", "of this")
    return plan


def test_a_transfer_says_what_is_done_and_what_would_be(tmp_path):
    transfer = planned(tmp_path, replace=True).made("a remark")
    assert transfer.lines(dry_run=True) == [
        f"would write {tmp_path}/new.json (2 cases, 2 configs)",
        f"would replace {tmp_path}/old.json (2 cases, 2 configs)",
        f"unchanged: {tmp_path}/same.json (1 case, 1 config)",
        "skipped x/a: of this",
        "skipped x/b: because",
        "a remark",
    ]
    assert transfer.lines(dry_run=False)[:2] == [
        f"wrote {tmp_path}/new.json (2 cases, 2 configs)",
        f"replaced {tmp_path}/old.json (2 cases, 2 configs)",
    ]
    assert transfer.to_json() == {
        "files": [
            {"path": f"{tmp_path}/new.json", "action": "write", "cases": 2, "configs": 2},
            {"path": f"{tmp_path}/old.json", "action": "replace", "cases": 2, "configs": 2},
            {"path": f"{tmp_path}/same.json", "action": "unchanged", "cases": 1, "configs": 1},
        ],
        "skipped": [
            {"path": "x/a", "reason": "of this"},
            {"path": "x/b", "reason": "because"},
        ],
        "remarks": ["a remark"],
    }


def test_what_is_the_same_is_not_written(tmp_path):
    planned(tmp_path, replace=True).made().carry_out()
    texts = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert texts == {"new.json": "NEW", "old.json": "OLD", "same.json": "same"}


def test_a_file_that_differs_is_overwritten_only_when_that_is_asked_for(tmp_path):
    with pytest.raises(PackError) as caught:
        planned(tmp_path).made()
    line = "x/old.json: KP827 is there already and differs; --replace overwrites it"
    assert str(caught.value) == line


def test_a_link_that_leads_nowhere_is_a_file_that_differs(tmp_path):
    plan = Plan(replace=False)
    (tmp_path / "link.json").symlink_to("nowhere")
    plan.add(tmp_path / "link.json", "x/link.json", "", FILE, same=False)
    assert [problem.code for problem in plan.problems] == ["KP827"]


def test_a_directory_in_the_place_of_a_file_is_told(tmp_path):
    plan = Plan(replace=True)
    (tmp_path / "x.json").mkdir()
    plan.add(tmp_path / "x.json", "x/x.json", "", FILE, same=False)
    with pytest.raises(PackError) as caught:
        plan.made()
    assert str(caught.value) == "x/x.json: KP827 is a directory; remove it"


def test_problems_are_collected_and_told_together(tmp_path):
    """One file that is wrong hides no other."""
    plan = Plan(replace=False)
    for name in "ba":
        with plan.collecting():
            other = Plan(replace=False)
            other.refuse(f"x/{name}", "KP820", "is wrong")
            other.made()
    with pytest.raises(PackError) as caught:
        plan.made()
    assert str(caught.value).splitlines() == ["x/a: KP820 is wrong", "x/b: KP820 is wrong"]


def test_a_remark_is_made_only_where_something_is_written(tmp_path):
    plan = Plan(replace=False)
    plan.add(tmp_path / "x.json", "x", "", FILE, same=True)
    assert plan.made("a remark").remarks == ()


def steps(*paths):
    files = [FileStep(path=p, text="x", action="write", cases=0, configs=0) for p in paths]
    return Transfer(files=tuple(files), skipped=(), remarks=())


def test_a_file_that_cannot_be_written_leaves_nothing_behind(tmp_path):
    """Neither files nor directories of the others are left where one cannot be made."""
    (tmp_path / "file").write_text("kept")
    transfer = steps(tmp_path / "a" / "b" / "x.json", tmp_path / "file" / "x.json")
    with pytest.raises(UsageError) as caught:
        transfer.carry_out()
    assert str(caught.value) == f"{tmp_path}/file cannot be written: File exists"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_full_disk_is_one_line(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UsageError, match=r"^the files cannot be written: No space left on device$"):
        steps(tmp_path / "a" / "x.json").carry_out()
    assert list(tmp_path.iterdir()) == []
