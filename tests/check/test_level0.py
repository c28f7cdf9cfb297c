"""Check level 0: that nothing hides another; its lines are held in `tests/test_planted.py`."""

from __future__ import annotations

import datetime
import json
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kernelpkg.check import level0
from kernelpkg.check.level0 import Checkup
from kernelpkg.configs import directories
from kernelpkg.errors import Checked, Problem, UsageError
from kernelpkg.files import Files
from kernelpkg.packs import find
from kernelpkg.packs.read import read_pack
from kernelpkg.packs.sources import source_digest

TODAY = datetime.date(2026, 11, 30)
ROOT = Path(__file__).parents[2]
OP = "fused_qk_norm_rope"
CONFIGS = f"configs/{OP}/nvidia_h200.json"
first_pack = runpy.run_path(str(ROOT / "tests" / "planted.py"))["first_pack"]


def lines(root: Path, *kernels: str, pack: str = "demo", configs=(), platforms=()) -> list[str]:
    """Return what level 0 finds, as lines."""
    spec = directories.with_overlays(level0.open_for_check(root, pack)[0], configs, {})
    names = kernels or spec.kernels
    checked, _ = level0.check_static(spec, names, platforms, TODAY, lambda *_: None)
    return [str(finding) for finding in checked.findings]


def test_neither_torch_nor_helion_is_imported(tmp_path):
    """Level 0 of the first pack, with its cases, in a process of its own."""
    code = (
        "import sys; from kernelpkg.cli import main; status = main(['check'])\n"
        "assert status == 0 and not {'torch', 'helion', 'triton', 'numpy'} & {*sys.modules}"
    )
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def tuned_with(root: Path, **facts: str) -> None:
    """Give the file of `demo` a source, so that nothing is said of it."""
    path = root / "kernels/twice/kernel.py"
    digest = source_digest(Files().tree(path, "kernel.py"))
    for file in (root / "configs").glob("*/*.json"):
        document = json.loads(file.read_text())
        document["tuned_with"] = {"source": digest, **facts}
        file.write_text(json.dumps(document, indent=1))


def test_wrong_configs_do_not_hide_wrong_cases(demo):
    """A config that no GPU runs, and a case of no grid, in one run."""
    demo.configs("twice")
    demo.edit("configs/twice/nvidia_h200.json", '"num_warps": 4', '"num_warps": 3')
    demo.edit("configs/twice/nvidia_h200.json", '"num_tokens": 4}', '"num_tokens": 5}')
    tuned_with(demo.root)
    assert [line.split()[1] for line in lines(demo.root)] == ["KP207", "KP508", "KP215"]


def test_a_broken_manifest_does_not_hide_broken_configs(demo):
    """Nor do unknown axes cause alarm: what the axes are is not known."""
    demo.configs("twice")
    demo.edit("kernels/twice/kernel.toml", "version = 1", "version = 0")
    demo.edit("configs/twice/nvidia_h200.json", '"num_warps": 4', '"num_warps": 3')
    assert [line.split(" ", 2)[:2] for line in lines(demo.root)] == [
        ["configs/twice/nvidia_h200.json:6:", "KP508"],
        ["kernels/twice/kernel.toml:4:", "KP012"],
    ]


def test_a_backward_that_the_pack_leaves_out(copied):
    """It is in kernels/, and no call that wants a gradient would find it."""
    pack = copied("gradients")
    assert lines(pack.root, pack="gradients") == []
    pack.edit("manifests/gradients.toml", '"*"', '["weigh"]')
    (line,) = [line for line in lines(pack.root, pack="gradients") if "KP160" in line]
    assert line == (
        "kernels/weigh/kernel.toml:10: KP160 'weigh_backward' answers the gradients, and is not in "
        "pack 'gradients'; add it to its kernels"
    )


def test_a_broken_kernel_hides_no_other(demo):
    demo.kernel("thrice")
    for name in ("twice", "thrice"):
        demo.edit(f"kernels/{name}/kernel.toml", "version = 1", "version = 0")
    assert [line.split(":")[0] for line in lines(demo.root)] == [
        "kernels/thrice/kernel.toml",
        "kernels/twice/kernel.toml",
    ]


TEXTS = ("", "[1]", '{"cases": 1}', '{"cases": [1], "configs": [2]}', "null", "\0")


@pytest.mark.parametrize(
    "text",
    [*TEXTS, '{"cases": {"a": 1}}'],
    ids=["empty", "list", "number", "numbers", "null", "control", "object"],
)
@pytest.mark.parametrize("broken", [False, True], ids=["manifest", "broken-manifest"])
def test_whatever_a_config_file_holds_is_a_finding(demo, text, broken):
    """Never a traceback, and never one that asks to be reported."""
    demo.configs("twice", text)
    if broken:
        demo.edit("kernels/twice/kernel.toml", "version = 1", "version = 0")
    found = lines(demo.root)
    assert any(line.startswith("configs/twice/nvidia_h200.json") for line in found)
    assert not any("KP700" in line for line in found)


def test_what_was_not_foreseen_is_a_finding(demo, monkeypatch):
    """And the other checks go on."""

    def broken(*_: object) -> None:
        message = "some\nthing"
        raise LookupError(message)

    demo.configs("twice")
    monkeypatch.setattr(level0, "case_findings", broken)
    demo.edit("manifests/demo.toml", 'kernels = "*"', 'kernels = ["twice", "gone"]')
    assert [line for line in lines(demo.root) if "KP208" not in line] == [
        (
            "configs/twice/nvidia_h200.json: KP700 cannot be checked: LookupError: some thing; "
            "kernelpkg did not foresee this, please report it"
        ),
        (
            "kernels/gone/kernel.toml: KP602 kernel 'gone' is named by the pack, but does not "
            "exist; 'kernelpkg new gone' writes one"
        ),
    ]


def test_files_of_overlays_are_checked_too(demo, tmp_path):
    """A case of no grid is an operator's business, and the file below is checked as well."""
    demo.configs("twice")
    demo.edit("configs/twice/nvidia_h200.json", '"num_warps": 4', '"num_warps": 3')
    shutil.copytree(demo.root / "configs", tmp_path / "mine")
    path = tmp_path / "mine/twice/nvidia_h200.json"
    path.write_text(
        path.read_text().replace('"num_tokens": 4', '"num_tokens": 9').replace("3}", "2}")
    )
    (tmp_path / "mine/twise").mkdir()
    mine = f"{tmp_path}/mine"
    found = [line for line in lines(demo.root, configs=[mine]) if "KP226" not in line]
    assert [line.split(" ")[:3] for line in found if "KP215" not in line] == [
        [f"{mine}/twice/nvidia_h200.json:", "KP207", "unverified:"],
        [f"{mine}/twise:", "KP201", "is"],
        ["configs/twice/nvidia_h200.json:6:", "KP508", "config"],
    ]
    assert found[1] == (
        f"{mine}/twice/nvidia_h200.json:7: KP215 unverified: case num_tokens=9 is in no grid of "
        "[inputs] for 'tune', so nothing tunes or tests it again; add it to the grid to "
        "have it checked"
    )


def test_a_platform_leaves_out_the_files_of_others(demo):
    """And asks each op for a file of it."""
    demo.kernel("thrice")
    for platform in ("nvidia_h200", "nvidia_b200"):
        demo.configs("twice", platform=platform)  # what it says inside is another's
    found = lines(demo.root, platforms=["nvidia_b200"])
    assert [line.split(" ")[:2] for line in found] == [
        ["configs/thrice/nvidia_b200.json:", "KP208"],
        ["configs/twice/nvidia_b200.json:4:", "KP505"],
    ]


def test_comments_of_a_source_are_no_change(tmp_path):
    root = first_pack(tmp_path)
    path = root / "kernels/silu_mul_fp8/kernel.py"
    path.write_text(f"# A comment.\n{path.read_text()}")
    assert lines(root, pack="kernelpkg") == []


def locked_pack(into: Path) -> Path:
    for name in ("manifests", "kernels", "configs"):
        shutil.copytree(ROOT / name, into / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "kernelpkg.lock", into)
    return into


def test_files_that_are_not_as_they_were_locked_are_unverified(tmp_path):
    """They are named, for an edit may be meant; without one, nothing is said."""
    root = locked_pack(tmp_path)
    assert lines(root, OP, pack="kernelpkg") == []
    with (root / CONFIGS).open("a") as file:
        file.write("\n")
    (found,) = lines(root, OP, pack="kernelpkg")
    assert found.startswith(f"{CONFIGS}: KP304 unverified: differs from the lock: sha256-")
    assert lines(root, "silu_and_mul_per_block_quant", pack="kernelpkg") == []


def test_a_lock_that_was_edited_is_an_error(tmp_path):
    root = locked_pack(tmp_path)
    path = root / "kernelpkg.lock"
    path.write_text(path.read_text().replace("cases = 88", "cases = 89"))
    (found,) = lines(root, OP, pack="kernelpkg")
    assert found.startswith("kernelpkg.lock: KP301 was edited by hand")


def finding(code: str, level: int = 0, **more) -> Problem:
    return Problem(
        **{"path": "a.json", "line": 3, "code": code, "message": "is so", **more}, level=level
    )


def test_what_several_levels_find_is_told_once_by_the_lowest():
    levels = {
        2: lambda *_: Checked(findings=(finding("KP250", 2), finding("KP240", 2)), counts={"b": 2}),
        1: lambda *_: Checked(findings=(finding("KP240", 1),), counts={"a": 1}),
    }
    found = level0.check(None, (Checked(findings=(finding("KP201"),), counts={}), ()), levels, ())
    assert [(f.code, f.level) for f in found.findings] == [("KP201", 0), ("KP240", 1), ("KP250", 2)]
    assert found.to_json()["checked"] == {"level": 2, "a": 1, "b": 2}


def test_levels_get_what_level_0_could_read(demo):
    """In their order, and None where no platform was asked for."""
    told = []

    def level(number):
        return lambda *what: told.append((number, *what)) or Checked()

    pack = read_pack(demo.root, "demo")
    level0.check(pack, (Checked(), ("spec",)), {2: level(2), 1: level(1)}, ())
    level0.check(pack, (Checked(), ()), {1: level(1)}, ("nvidia_h200",))
    assert told == [
        (1, pack, ("spec",), None),
        (2, pack, ("spec",), None),
        (1, pack, (), ("nvidia_h200",)),
    ]


def test_the_summary_counts_by_level():
    doubt = finding("KP207", severity="unverified")
    findings = (finding("KP201"), doubt, finding("KP240", 1), finding("KP241", 1))
    counts = {"kernels": 1, "files": 2, "platforms": ["nvidia_h200"], "calls_not_run": 3}
    found = Checkup(level=1, checked=Checked(findings=findings, counts=counts))
    assert list(found.summary()) == [
        "level 0: 1 error, 1 unverified",
        "level 1: 2 errors, 0 unverified",
        "checked: 1 kernel, 2 files, 3 calls not run",
        "not checked: level 2 compiles every distinct config for its GPU, without one",
    ]
    assert not found.ok


def test_the_last_level_leaves_nothing_unchecked():
    assert "not checked" not in "\n".join(Checkup(level=3, checked=Checked()).summary())


def test_what_is_unverified_does_not_fail():
    findings = (finding("KP207", severity="unverified"),)
    assert Checkup(level=0, checked=Checked(findings=findings)).ok


def test_a_pack_manifest_that_is_broken_hides_no_kernel(demo):
    """All kernels below the root stand for its own."""
    demo.kernel("thrice")
    demo.edit("manifests/demo.toml", 'version = "0.1.0"', "version = 1")
    pack, found = level0.open_for_check(demo.root, "demo")
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
