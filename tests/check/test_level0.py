"""Check level 0: every line of its own codes word for word, and that nothing hides another."""

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
from kernelpkg.configs import search_path
from kernelpkg.errors import Checked, Problem, UsageError
from kernelpkg.files import Files
from kernelpkg.packs import find
from kernelpkg.packs.read import read_pack
from kernelpkg.packs.sources import source_digest

TODAY = datetime.date(2026, 11, 30)
ROOT = Path(__file__).parents[2]
PLANTED = runpy.run_path(str(Path(__file__).parents[1] / "planted.py"))["PLANTED"]
CONFIGS = "configs/silu_mul_fp8/nvidia_h200.json"

# The lines of planted faults, one for each code of level 0.
LINES = {
    "configs: misspelt directory": (
        "configs/silu_mull_fp8: KP201 is of no kernel of pack 'kernelpkg', so nothing reads it; "
        "did you mean 'silu_mul_fp8'?"
    ),
    "configs: a file that is no JSON": (
        f"{CONFIGS}.bak: KP201 is no <platform>.json, so nothing reads it; rename or remove it"
    ),
    "configs: a file beside the directories": (
        "configs/nvidia_h200.json: KP201 belongs into the directory of its kernel, and nothing "
        "reads it here; move it to configs/<kernel>/"
    ),
    "configs: a platform that is spelled otherwise": (
        "configs/silu_mul_fp8/NVIDIA-H200.json: KP202 'NVIDIA-H200' is no name of a platform, so "
        "no GPU looks for it; rename it to 'nvidia_h200.json'"
    ),
    "configs: a platform that no GPU has": (
        "configs/silu_mul_fp8/nvidia_h2000.json: KP202 unverified: 'nvidia_h2000' is no GPU that "
        "kernelpkg knows, so it may be looked up for none; did you mean 'nvidia_h200'?"
    ),
    "configs: a variant that looks for its base": (
        "configs/silu_mul_fp8/nvidia_h200_nvl.json: KP202 unverified: GPUs of this name look for "
        "'nvidia_h200', by [platforms] of the pack"
    ),
    "configs: a directory that leads nowhere": (
        "configs/silu_mul_fp8: KP203 is a link to '../not_there', which is not there; correct or "
        "remove it"
    ),
    "kernel: manifest of a misspelt name": (
        "kernels/silu_mul_fp8: KP204 has no kernel.toml, so it is no kernel; write one, or remove "
        "it"
    ),
    "file: no cases": (
        f"{CONFIGS}:58: KP205 the file has no cases, so calls get what they would get without it; "
        "tune again, or remove it"
    ),
    "file: a config of no case": f"{CONFIGS}:57: KP206 config 6 is of no case; remove it",
    "file: a case of the grid lacks": (
        f"{CONFIGS}: KP207 unverified: the file lacks 1 of 84 cases of the grid for 'tune' "
        "(intermediate_size=2048, num_tokens=32), whose calls take the config of another case, or "
        "a default; tune them"
    ),
    "configs: an op without a platform that others have": (
        f"{CONFIGS}: KP208 unverified: is not there, and 6 other ops of the pack have a file for "
        "nvidia_h200; calls on it take [helion] default; tune the op for it"
    ),
    "copy: names changed": (
        "configs/fused_qk_norm_rope/nvidia_h100.json: KP208 unverified: is not there, and 1 other "
        "op of the pack has a file for nvidia_h100; calls on it borrow from nvidia_h200, then take "
        "[helion] default; tune the op for it"
    ),
    "key: a size as a text": (
        f"{CONFIGS}:63: KP210 case 0, key: axis 'num_tokens' has value '1', which is a text, and "
        "must be a whole number; correct it, or tune again"
    ),
    "key: a negative size": (
        f"{CONFIGS}:59: KP211 case intermediate_size=2048, num_tokens=-1: 'num_tokens' of argument "
        "'input' is -1, and cannot be below zero; no call is like it, so remove it"
    ),
    "key: a dtype that a guard refuses": (
        f"{CONFIGS}:59: KP211 case in_dtype=int8, intermediate_size=2048, num_tokens=1: guard "
        "'in_dtype in [bfloat16, float16, float32]' refuses it; no call is like it, so remove it"
    ),
    "key: a case that no call reaches": (
        f"{CONFIGS}:815: KP212 no call gets case intermediate_size=2048, num_tokens=24: by the "
        "rules, one equal to it gets case intermediate_size=2048, num_tokens=32; remove it, or "
        "change the rules"
    ),
    "key: a stray case that takes a range": (
        f"{CONFIGS}:815: KP214 case intermediate_size=7688, num_tokens=256 takes every call with "
        "in_dtype=bfloat16 and intermediate_size from 5893 to 7940, with 1 value of num_tokens, "
        "where 4096 has 14 and 8192 has 14; tune intermediate_size=7688 for as many as they, or "
        "remove it"
    ),
    "key: a case of no grid": (
        f"{CONFIGS}:815: KP215 case intermediate_size=2048, num_tokens=16384 is of no grid of "
        "[inputs] that is for 'tune'; add it to the grid, or remove it"
    ),
    "copy: names and GPU changed": (
        "configs/silu_mul_fp8/nvidia_h100.json: KP220 the file is a copy of that of nvidia_h200, "
        "or that one of this: 84 of 84 cases have the same config (6 distinct configs, and 84 "
        f"measured times) in {CONFIGS}; tune on each GPU, or remove the copy, whose calls then "
        "borrow"
    ),
    "run: of another source": (
        f"{CONFIGS}:819: KP225 1 case was tuned for another source: kernel.py has changed since "
        "(sha256-00000000… then, sha256-dcaa9abe… now); tune again"
    ),
    "facts: no source": (
        f"{CONFIGS}:5: KP226 unverified: tuned_with does not say which source 84 cases were tuned "
        "for, so whether it has changed since cannot be told; tune again"
    ),
    "facts: a source that is no digest": (
        f"{CONFIGS}:10: KP227 tuned_with: source is 'v1', and must be sha256- and 64 hex digits; "
        "tune again"
    ),
    "facts: a version that is none": (
        f"{CONFIGS}:12: KP227 tuned_with: triton is 'three', which is no version; correct it, or "
        "tune again"
    ),
    "facts: another GPU": (
        f"{CONFIGS}:8: KP228 tuned_with: gpu is 'NVIDIA B200', whose platform is nvidia_b200, and "
        "the file is of nvidia_h200; move it where it belongs, or tune again"
    ),
    "facts: a date that is none": (
        f"{CONFIGS}:6: KP229 unverified: tuned_with: date is '22.11.2026', which is no ISO date; "
        "correct it"
    ),
    "facts: a date to come": (
        f"{CONFIGS}:6: KP229 unverified: tuned_with: date is '2126-11-22', which is after today "
        "(2026-11-30); correct it"
    ),
    "times: none at all": (
        f"{CONFIGS}:66: KP230 case intermediate_size=2048, num_tokens=1: ms is 0, and must be "
        "above 0; tune again"
    ),
    "times: slower than the default": (
        f"{CONFIGS}:67: KP231 case intermediate_size=2048, num_tokens=1: its config takes 0.009 ms "
        "and the default config 0.004 ms, so it should not have been taken; tune again"
    ),
}


def first_pack(into: Path) -> Path:
    for name in ("manifests", "kernels", "configs"):
        shutil.copytree(ROOT / name, into / name, ignore=shutil.ignore_patterns("__pycache__"))
    return into


def lines(root: Path, *kernels: str, pack: str = "demo", configs=(), platforms=()) -> list[str]:
    """Return what level 0 finds, as lines."""
    spec = search_path.with_overlays(level0.open_for_check(root, pack)[0], configs, {})
    names = kernels or spec.kernels
    checked, _ = level0.check_static(spec, names, platforms, TODAY, lambda *_: None)
    return [str(finding) for finding in checked.findings]


@pytest.mark.parametrize("name", list(LINES))
def test_the_line_of_a_planted_fault(name, tmp_path):
    PLANTED[name].plant(first_pack(tmp_path))
    found = lines(tmp_path, pack="kernelpkg")
    assert LINES[name] in found


def test_every_code_of_level_0_has_a_line():
    """The codes that the documentation lists as level 0's are those whose lines are held here."""
    page = (ROOT / "docs" / "reference" / "errors.md").read_text()
    documented = {f"KP2{number:02}" for number in range(40) if f"`KP2{number:02}`" in page}
    assert {word for line in LINES.values() for word in line.split() if word[:3] == "KP2"} == (
        documented
    )


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


def test_a_broken_kernel_hides_no_other(demo):
    demo.kernel("thrice")
    for name in ("twice", "thrice"):
        demo.edit(f"kernels/{name}/kernel.toml", "version = 1", "version = 0")
    assert [line.split(":")[0] for line in lines(demo.root)] == [
        "kernels/thrice/kernel.toml",
        "kernels/twice/kernel.toml",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[1]",
        '{"cases": 1}',
        '{"cases": [1], "configs": [2]}',
        "null",
        "\0",
        '{"cases": {"a": 1}}',
    ],
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
            "kernels/gone/kernel.toml: KP602 kernel 'gone' is named by the pack, and is not there; "
            "'kernelpkg new gone' writes one"
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
    assert found == [
        (
            f"{mine}/twice/nvidia_h200.json: KP207 unverified: the file lacks 1 of 2 cases of the "
            "grid for 'tune' (num_tokens=4), whose calls take the config of another case, or a "
            "default; tune them"
        ),
        (
            f"{mine}/twice/nvidia_h200.json:7: KP215 unverified: case num_tokens=9 is of no grid "
            "of [inputs] that is for 'tune', so nothing tunes or tests it again; add it to the "
            "grid to have it checked"
        ),
        (
            f"{mine}/twise: KP201 is of no kernel of pack 'demo', so nothing reads it; did you "
            "mean 'twice'?"
        ),
        (
            "configs/twice/nvidia_h200.json:6: KP508 config 0: num_warps is 3; it must be a power "
            "of two from 1 to 32"
        ),
    ]


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
    root = first_pack(into)
    shutil.copy(ROOT / "kernelpkg.lock", root)
    return root


def test_files_that_are_not_as_they_were_locked_are_unverified(tmp_path):
    """They are named, for an edit may be meant; without one, nothing is said."""
    root = locked_pack(tmp_path)
    assert lines(root, pack="kernelpkg") == []
    with (root / CONFIGS).open("a") as file:
        file.write("\n")
    (found,) = lines(root, pack="kernelpkg")
    assert found.startswith(f"{CONFIGS}: KP304 unverified: is not as it was locked: sha256-")
    assert lines(root, "fused_qk_norm_rope", pack="kernelpkg") == []


def test_a_lock_that_was_edited_is_an_error(tmp_path):
    root = locked_pack(tmp_path)
    path = root / "kernelpkg.lock"
    path.write_text(path.read_text().replace("cases = 84", "cases = 85"))
    (found,) = lines(root, pack="kernelpkg")
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


def test_platforms_are_named_by_gpu_or_as_their_files(demo):
    pack = read_pack(demo.root, "demo")
    names = ["NVIDIA H100 80GB HBM3", "nvidia_h200", "my_gpu", "nvidia_h200", "nvidia_h200_nvl"]
    there = ["my_gpu", "nvidia_h200_nvl"]
    assert level0.chosen_platforms(pack, names, there) == (
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
        level0.chosen_platforms(read_pack(demo.root, "demo"), [name], ["nvidia_h200"])
    assert str(error.value).startswith(message)
