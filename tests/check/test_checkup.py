"""The levels in a row: what they find is merged, and what that comes to."""

from __future__ import annotations

import pytest

from kernelpkg.check import checkup
from kernelpkg.check.checkup import Checkup
from kernelpkg.errors import Checked, Problem, UsageError
from kernelpkg.packs import find
from kernelpkg.packs.read import read_pack


def finding(code: str, level: int = 0, **more) -> Problem:
    return Problem(
        **{"path": "a.json", "line": 3, "code": code, "message": "is so", **more}, level=level
    )


def test_what_several_levels_find_is_told_once_by_the_lowest():
    levels = {
        2: lambda *_: Checked(findings=(finding("KP250", 2), finding("KP240", 2)), counts={"b": 2}),
        1: lambda *_: Checked(findings=(finding("KP240", 1),), counts={"a": 1}),
    }
    found = checkup.check(None, (Checked(findings=(finding("KP201"),), counts={}), ()), levels, ())
    assert [(f.code, f.level) for f in found.findings] == [("KP201", 0), ("KP240", 1), ("KP250", 2)]
    assert found.to_json()["checked"] == {"level": 2, "a": 1, "b": 2}


def test_levels_get_what_level_0_could_read(demo):
    """In their order, and None where no platform was asked for."""
    told = []

    def level(number):
        return lambda *what: told.append((number, *what)) or Checked()

    pack = read_pack(demo.root, "demo")
    checkup.check(pack, (Checked(), ("spec",)), {2: level(2), 1: level(1)}, ())
    checkup.check(pack, (Checked(), ()), {1: level(1)}, ("nvidia_h200",))
    assert told == [
        (1, pack, ("spec",), None),
        (2, pack, ("spec",), None),
        (1, pack, (), ("nvidia_h200",)),
    ]


def test_lines_end_with_a_summary():
    findings = (
        finding("KP201"),
        finding("KP207", severity="unverified"),
        finding("KP240", 1),
        finding("KP241", 1),
    )
    counts = {"kernels": 1, "files": 2, "platforms": ["nvidia_h200"], "calls_not_run": 3}
    found = Checkup(level=1, checked=Checked(findings=findings, counts=counts))
    assert list(found.lines()) == [
        "a.json:3: KP201 is so",
        "a.json:3: KP207 unverified: is so",
        "a.json:3: KP240 is so",
        "a.json:3: KP241 is so",
        "level 0: 1 error, 1 unverified",
        "level 1: 2 errors, 0 unverified",
        "checked: 1 kernel, 2 files, 3 calls not run",
        "not checked: level 2 compiles every distinct config for its GPU, without one",
    ]
    assert not found.ok


def test_the_last_level_leaves_nothing_unchecked():
    assert "not checked" not in "\n".join(Checkup(level=3, checked=Checked()).lines())


def test_what_is_unverified_does_not_fail():
    findings = (finding("KP207", severity="unverified"),)
    assert Checkup(level=0, checked=Checked(findings=findings)).ok


def test_a_pack_manifest_that_is_broken_hides_no_kernel(demo):
    """All kernels below the root stand for its own."""
    demo.kernel("thrice")
    demo.edit("manifests/demo.toml", 'version = "0.1.0"', "version = 1")
    pack, found = checkup.open_for_check(demo.root, "demo")
    assert [f.code for f in found] == ["KP012"]
    assert pack.kernels == ("thrice", "twice")


@pytest.mark.parametrize(
    ("ops", "kernels"),
    [
        ([], ("thrice", "twice")),
        (["twice"], ("twice",)),
        (["demo::thrice"], ("thrice",)),
        (["twice", "thrice", "twice"], ("thrice", "twice")),
    ],
    ids=["all", "name", "qualified", "several"],
)
def test_ops_are_named_with_or_without_namespace(demo, ops, kernels):
    demo.kernel("thrice")
    assert find.chosen_kernels(read_pack(demo.root, "demo"), ops) == kernels


@pytest.mark.parametrize(
    ("op", "message"),
    [
        ("twise", "pack 'demo' has no op 'twise'; did you mean 'twice'?"),
        ("x::twice", "pack 'demo' has no op 'x::twice'; did you mean 'demo::twice'?"),
        ("zzz", "pack 'demo' has no op 'zzz'; it has twice"),
    ],
    ids=["misspelt", "namespace", "unknown"],
)
def test_an_op_that_is_not_there_is_wrong_usage(demo, op, message):
    with pytest.raises(UsageError) as error:
        find.chosen_kernels(read_pack(demo.root, "demo"), [op])
    assert str(error.value) == message


def test_platforms_are_named_by_gpu_or_as_their_files(demo):
    pack = read_pack(demo.root, "demo")
    names = ["NVIDIA H100 80GB HBM3", "nvidia_h200", "my_gpu", "nvidia_h200", "nvidia_h200_nvl"]
    there = ["my_gpu", "nvidia_h200_nvl"]
    assert checkup.chosen_platforms(pack, names, there) == (
        "nvidia_h100",
        "nvidia_h200",
        "my_gpu",
        "nvidia_h200_nvl",
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nvidia_h300", "'nvidia_h300' is no platform that is known here; did you mean"),
        ("zzz", "'zzz' is no platform that is known here; the pack has files for nvidia_h200"),
        ("!", "GPU name '!' has no letter or digit"),
    ],
    ids=["misspelt", "unknown", "no-name"],
)
def test_a_platform_that_nothing_knows_is_wrong_usage(demo, name, message):
    with pytest.raises(UsageError) as error:
        checkup.chosen_platforms(read_pack(demo.root, "demo"), [name], ["nvidia_h200"])
    assert str(error.value).startswith(message)
