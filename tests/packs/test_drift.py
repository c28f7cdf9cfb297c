"""What `lock` writes, and what `lock --check` says, with fingerprints that a test gives."""

# ruff: noqa: E501  # tables of cases and messages have whole lines

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from attrs import evolve

from kernelpkg.errors import ConfigError, PackError, Problem
from kernelpkg.files import Files, digest_bytes
from kernelpkg.packs.builds import Build, BuiltKernel, BuiltPart, read_build, write_build
from kernelpkg.packs.drift import (
    LockPlan,
    change_of,
    check_lock,
    compare,
    needs_fingerprints,
    plan_lock,
    take_inventory,
)
from kernelpkg.packs.lock import FILE, LockedConfigs, LockedKernel, LockedPack, dumps, read_lock
from kernelpkg.packs.read import read_pack
from kernelpkg.packs.verify import make_verifier

TOOLS = {"python": "3.11", "helion": "1.4.0"}
A, B = f"sha256-{'a' * 64}", f"sha256-{'b' * 64}"


class Taken:
    """Takes fingerprints, and keeps whose."""

    def __init__(self, digest: str = A) -> None:
        self.names: list[str] = []
        self.digest = digest

    def __call__(self, spec):
        self.names.append(spec.name)
        return {"dtype=bfloat16": self.digest}


def plan(demo, take="no Helion", *, tools=TOOLS, packs=("demo",)) -> LockPlan:
    found = plan_lock(read_pack(demo.root, "demo"), packs, tools, take)
    found.carry_out()
    return found


def check(demo, take="no Helion", *, tools=TOOLS, packs=("demo",)):
    return check_lock(read_pack(demo.root, "demo"), packs, tools, take)


def lines(found) -> list[str]:
    return [str(entry) for entry in found.drift]


def test_a_lock_is_written_once_and_then_left_alone(demo):
    demo.configs("twice")
    first = plan(demo)
    before = (demo.root / FILE).stat()
    again = plan(demo)
    assert (first.action, again.action) == ("write", "unchanged")
    assert (demo.root / FILE).stat() == before
    path = demo.root / FILE
    told = "(pack demo: 1 kernel, 3 files, 1 config file, 0 fingerprints)"
    assert first.lines() == (f"wrote {path} {told}",)
    assert again.lines() == (f"unchanged: {path} {told}",)
    assert first.remarks == ("no structural fingerprints of all kernels: no Helion",)


WINDOWS = {
    "byte-order-mark": lambda data: b"\xef\xbb\xbf" + data,
    "line-ends": lambda data: data.replace(b"\n", b"\r\n"),
    "both": lambda data: b"\xef\xbb\xbf" + data.replace(b"\n", b"\r\n"),
}


@pytest.mark.parametrize("saved", WINDOWS.values(), ids=WINDOWS)
def test_what_windows_adds_to_files_is_no_change(demo, saved):
    """As an editor there saves them, or git checks them out; the lock is a text too."""
    demo.configs("twice")
    before = take_inventory(read_pack(demo.root, "demo"), TOOLS).pack
    plan(demo)
    for path in [path for path in demo.root.rglob("*") if path.is_file()]:
        path.write_bytes(saved(path.read_bytes()))
    assert check(demo).ok and plan(demo).action == "unchanged"
    assert take_inventory(read_pack(demo.root, "demo"), TOOLS).pack == before
    verifier = make_verifier(demo.root, "demo", demanded=True, installed=False)
    assert verifier.verify(read_pack(demo.root, "demo"), "twice", Files()) == ()


def test_the_document_says_what_is_locked(demo):
    found = plan(demo, Taken())
    assert found.to_json() == {
        "path": str(demo.root / FILE),
        "action": "write",
        "pack": "demo",
        "version": "0.1.0",
        "kernels": 1,
        "files": 3,
        "configs": 0,
        "fingerprints": 1,
        "builds": 0,
        "remarks": [],
    }


def test_fingerprints_are_taken_anew_only_for_kernels_that_changed(demo):
    demo.kernel("second")
    first, second, third = Taken(), Taken(), Taken()
    plan(demo, first)
    demo.edit("kernels/second/kernel.py", "* 2", "* 3")
    plan(demo, second)
    plan(demo, third, tools={**TOOLS, "helion": "1.5.1"})
    assert (first.names, second.names) == (["second", "twice"], ["second"])
    assert third.names == ["second", "twice"]


def test_without_helion_fingerprints_that_stand_are_kept(demo):
    demo.kernel("second")
    plan(demo, Taken())
    demo.edit("kernels/second/kernel.py", "* 2", "* 3")
    found = plan(demo)
    kernels = read_lock(demo.root).packs["demo"].kernels
    assert kernels["twice"].fingerprints == {"dtype=bfloat16": A}
    assert kernels["second"].fingerprints == {}
    assert found.remarks == ("no structural fingerprints of second: no Helion",)


def test_a_kernel_that_does_not_bind_is_told(demo):
    def fails(spec):
        raise ConfigError("does not bind")

    assert plan(demo, fails).remarks == (
        "no structural fingerprints of all kernels: does not bind",
    )


def test_a_broken_pack_is_not_locked(demo):
    demo.edit("kernels/twice/kernel.toml", "version = 1", "version = 0")
    with pytest.raises(PackError, match="KP012"):
        plan(demo)
    assert not (demo.root / FILE).exists()


def test_a_lock_that_was_edited_is_written_anew(demo):
    plan(demo)
    text = (demo.root / FILE).read_text()
    demo.edit(FILE, "version = 1", "version = 2")
    found = plan(demo)
    assert (demo.root / FILE).read_text() == text
    assert found.remarks[0] == (
        "kernelpkg.lock: KP301 was edited by hand, or damaged; restore it, or run 'kernelpkg lock' "
        "(it is written anew)"
    )


def test_a_lock_of_a_newer_edition_is_never_overwritten(demo):
    plan(demo)
    demo.edit(FILE, "edition = 1", "edition = 2")
    text = (demo.root / FILE).read_text()
    with pytest.raises(PackError) as caught:
        plan(demo)
    assert str(caught.value) == (
        "kernelpkg.lock:2: KP002 edition 2 is newer than this version of kernelpkg reads (1); "
        "upgrade kernelpkg"
    )
    assert (demo.root / FILE).read_text() == text


def second_pack(demo) -> None:
    text = (demo.root / "manifests/demo.toml").read_text()
    (demo.root / "manifests/extra.toml").write_text(text.replace('"demo"', '"extra"'))


def test_other_packs_of_the_root_keep_their_parts(demo):
    second_pack(demo)
    both = ("demo", "extra")
    plan(demo, packs=both)
    before = read_lock(demo.root).packs["demo"]
    found = plan_lock(read_pack(demo.root, "extra"), both, TOOLS, "no Helion")
    assert set(found.lock.packs) == {"demo", "extra"}
    assert found.lock.packs["demo"] == before


def test_the_part_of_a_pack_that_is_gone_is_removed_and_told(demo):
    second_pack(demo)
    plan_lock(read_pack(demo.root, "extra"), ("demo", "extra"), TOOLS, "").carry_out()
    plan(demo, packs=("demo", "extra"))
    (demo.root / "manifests/extra.toml").unlink()
    assert lines(check(demo)) == [
        "kernelpkg.lock: KP307 has pack 'extra', which no longer exists; run 'kernelpkg lock'"
    ]
    found = plan(demo)
    assert set(found.lock.packs) == {"demo"}
    assert found.remarks[0] == ("pack 'extra' no longer exists; its part of the lock is removed")


def test_a_damaged_lock_of_several_packs_says_what_to_lock_again(demo):
    second_pack(demo)
    plan(demo, packs=("demo", "extra"))
    demo.edit(FILE, "version = 1", "version = 2")
    found = plan(demo, packs=("demo", "extra"))
    assert found.remarks[0].endswith("(it is written anew; lock extra again too)")


def test_nothing_drifted(demo):
    plan(demo, Taken())
    take = Taken()
    found = check(demo, take)
    assert found.ok
    assert found.lines()[-1] == "pack demo 0.1.0: nothing has drifted"
    assert take.names == []
    assert found.remarks == ()


def test_everything_that_drifted_is_told_at_once(demo):
    demo.kernel("second")
    demo.kernel("third")
    plan(demo, Taken())
    demo.edit("kernels/twice/kernel.py", "* 2", "* 3")
    demo.edit("kernels/second/host.py", "return", "# comment\n    return")
    demo.edit("kernels/second/kernel.toml", "Twice", "Two times")
    demo.configs("third")
    found = check(demo, Taken(B))
    assert not found.ok
    assert lines(found) == [
        "configs/third/nvidia_h200.json: KP315 these configs were added after the pack was locked (2 cases, 1 config)",
        "kernels/second: KP317 variant dtype=bfloat16 has another structure than was locked, by a change of host.py, kernel.toml; lists in its configs may not fit",
        "kernels/second/host.py: KP314 only comments, layout or docstrings of the source changed",
        "kernels/second/kernel.toml: KP311 the kernel's manifest changed; its version is 1 as before",
        "kernels/twice: KP317 variant dtype=bfloat16 has another structure than was locked, by a change of kernel.py; lists in its configs may not fit",
        "kernels/twice/kernel.py: KP312 the behaviour of the source changed",
    ]
    assert found.lines()[-1] == "pack demo 0.1.0: 6 changes since it was locked"


def test_the_document_of_a_check_has_every_change(demo):
    plan(demo)
    demo.edit("kernels/twice/kernel.py", "* 2", "* 3")
    assert check(demo).to_json() == {
        "pack": "demo",
        "version": "0.1.0",
        "drift": [
            {
                "path": "kernels/twice/kernel.py",
                "change": "source",
                "code": "KP312",
                "message": "the behaviour of the source changed",
            }
        ],
        "remarks": ["structural fingerprints are not in the lock, and not compared"],
    }


def put_build(demo, arch: str = "sm_90", binaries: Sequence[bytes] = ()) -> str:
    """Put a build beside the pack, of a kernel with these binaries; return its digest."""
    contents = {digest_bytes(data): data for data in binaries}
    code = {"types": [], "constants": {}, "divisible": [], "parameters": [], "entry": "k"}
    codes = tuple({**code, "cubin": name, "shared": 0, "threads": 32} for name in contents)
    part = BuiltPart(config="{}", call_class="[]", host="", kernel="k", codes=codes)
    build = Build(
        pack="demo",
        platform="nvidia_h200",
        arch=arch,
        tools={},
        pinned={},
        kernels={"twice": BuiltKernel(files={}, exact={}, parts=(part,))} if contents else {},
    )
    directory = demo.root / "builds" / "demo" / "nvidia_h200"
    write_build(build, directory, contents.__getitem__)
    return read_build(directory).digest


def test_builds_are_locked_by_the_digests_of_their_indices(demo):
    plan(demo)
    digest = put_build(demo)
    assert lines(check(demo)) == [
        "builds/demo/nvidia_h200/index.json: KP318 this build was added after the pack was locked"
    ]
    found = plan(demo)
    told = "(pack demo: 1 kernel, 3 files, 0 config files, 0 fingerprints, 1 build)"
    assert found.lines() == (f"wrote {demo.root / FILE} {told}",)
    assert found.to_json()["builds"] == 1
    assert read_lock(demo.root).packs["demo"].builds == {"nvidia_h200": digest}
    assert check(demo).ok
    assert plan(demo).action == "unchanged"
    put_build(demo, "sm_89")
    changed = "builds/demo/nvidia_h200/index.json: KP318 this is not the build that was locked"
    assert lines(check(demo)) == [changed]


def no_file(path: Path) -> None:
    path.unlink()


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (no_file, "KP320 cannot be read: No such file or directory"),
        (cut_off, "KP321 is damaged"),
    ],
    ids=["missing", "damaged"],
)
def test_a_build_whose_binaries_are_not_whole_is_not_locked(demo, spoil, problem):
    """Its index is as it was, and so is the digest in the lock."""
    put_build(demo, binaries=(b"one", b"two"))
    plan(demo)
    assert check(demo).ok
    directory = demo.root / "builds" / "demo" / "nvidia_h200"
    path = directory / digest_bytes(b"two")
    spoil(path)
    said = f"{path}: {problem}; run 'kernelpkg build' again, or restore it"
    found = check(demo)
    assert ([str(told) for told in found.problems], found.drift) == ([said], ())
    assert found.lines() == ("pack demo 0.1.0: it is broken",)
    assert not found.ok
    with pytest.raises(PackError) as caught:
        plan(demo)
    assert str(caught.value) == said


def test_a_build_that_is_damaged_is_not_locked(demo):
    put_build(demo)
    plan(demo)
    path = demo.root / "builds" / "demo" / "nvidia_h200" / "index.json"
    path.write_text("{")
    said = f"{path}: KP321 is damaged; run 'kernelpkg build' again, or restore it"
    with pytest.raises(PackError) as caught:
        plan(demo)
    assert str(caught.value) == said
    found = check(demo)
    assert [str(problem) for problem in found.problems] == [said]
    assert not found.ok


def test_a_kernel_that_is_broken_by_now_says_which_files_changed(demo):
    plan(demo)
    demo.edit("kernels/twice/kernel.py", "def twice", "def twice(")
    found = check(demo)
    assert [problem.code for problem in found.problems] == ["KP114"]
    (line,) = lines(found)
    assert line.startswith("kernels/twice/kernel.py: KP304 differs from the lock: sha256-")


def test_a_pack_without_a_lock_has_none_to_check(demo):
    with pytest.raises(PackError) as caught:
        check(demo)
    assert str(caught.value) == (
        "kernelpkg.lock: KP303 is not there; run 'kernelpkg lock' to write it"
    )


def test_a_pack_that_the_lock_lacks_is_told(demo):
    second_pack(demo)
    plan_lock(read_pack(demo.root, "extra"), ("demo", "extra"), TOOLS, "").carry_out()
    with pytest.raises(PackError) as caught:
        check(demo)
    assert str(caught.value) == (
        "kernelpkg.lock: KP303 has no pack 'demo'; run 'kernelpkg lock' to write it"
    )


def test_the_text_follows_from_what_is_locked(demo):
    found = plan(demo, Taken())
    assert (demo.root / FILE).read_text() == dumps(found.lock)


A, B, C = (f"sha256-{letter * 64}" for letter in "abc")
EVERY = {"kernelpkg": "0.1", "python": "3.11", "torch": "2.13", "helion": "1.4", "triton": "3.6"}
CONFIGS = LockedConfigs(file=A, cases=2, configs=1)
KERNEL = LockedKernel(
    version=1,
    schema="(Tensor input) -> Tensor",
    files={"kernel.toml": A, "kernel.py": A, "host.py": A},
    sources={"kernel.py": A, "host.py": A},
    configs={"nvidia_h200": CONFIGS},
    fingerprints={"dtype=bfloat16": A},
)
PACK = LockedPack(version="0.1.0", manifest=A, tools=EVERY, kernels={"twice": KERNEL})


def with_kernel(**changes):
    return evolve(PACK, kernels={"twice": evolve(KERNEL, **changes)})


def drifted(found, locked=PACK, **given):
    return [str(entry) for entry in compare("demo", locked, found, **given)]


def test_what_is_as_it_was_has_not_drifted():
    assert drifted(PACK) == []


FIT = "; lists in its configs may not fit"
TUNED = "; what was tuned with one may be slow or refused with the other"


DRIFT = {
    "source": (with_kernel(files={**KERNEL.files, "kernel.py": B}, sources={**KERNEL.sources, "kernel.py": B}),
        ["kernels/twice/kernel.py: KP312 the behaviour of the source changed"]),
    "comments": (with_kernel(files={**KERNEL.files, "kernel.py": B}),
        ["kernels/twice/kernel.py: KP314 only comments, layout or docstrings of the source changed"]),
    "files": (with_kernel(files={"kernel.toml": A, "kernel.py": A, "more.py": A}),
        ["kernels/twice/host.py: KP312 is no longer named by the manifest since the kernel was locked",
        "kernels/twice/more.py: KP312 came in since the kernel was locked"]),
    "manifest": (with_kernel(files={**KERNEL.files, "kernel.toml": B}),
        ["kernels/twice/kernel.toml: KP311 the kernel's manifest changed; its version is 1 as before"]),
    "schema": (with_kernel(schema="(Tensor x) -> Tensor", version=2),
        ["kernels/twice/kernel.toml: KP313 the op's schema changed from '(Tensor input) -> Tensor' to '(Tensor x) -> Tensor'; its version was 1 and is 2"]),
    "configs": (with_kernel(configs={"nvidia_h200": evolve(CONFIGS, file=B)}),
        ["configs/twice/nvidia_h200.json: KP315 the configs changed (2 cases, 1 config as before)"]),
    "configs-counts": (with_kernel(configs={"nvidia_h200": evolve(CONFIGS, file=B, cases=3, configs=2)}),
        ["configs/twice/nvidia_h200.json: KP315 the configs changed (locked: 2 cases, 1 config; now: 3 cases, 2 configs)"]),
    "configs-platforms": (with_kernel(configs={"nvidia_b200": CONFIGS}),
        ["configs/twice/nvidia_b200.json: KP315 these configs were added after the pack was locked (2 cases, 1 config)",
        "configs/twice/nvidia_h200.json: KP315 these configs were locked (2 cases, 1 config), and no longer exist"]),
    "pack-manifest": (evolve(PACK, manifest=B, version="0.2.0"),
        ["manifests/demo.toml: KP311 the manifest of the pack changed; its version was 0.1.0 and is 0.2.0"]),
    "kernels": (evolve(PACK, kernels={"second": KERNEL}),
        ["kernels/second/kernel.toml: KP310 kernel 'second' was added after the pack was locked",
        "kernels/twice/kernel.toml: KP310 kernel 'twice' was locked, and no longer exists"]),
    "tools": (evolve(PACK, tools={**EVERY, "helion": "1.5", "torch": "2.14", "triton": "3.7"}),
        [f"helion: KP316 version 1.4 was locked, and 1.5 is installed{TUNED}",
        f"torch: KP316 version 2.13 was locked, and 2.14 is installed{TUNED}",
        f"triton: KP316 version 3.6 was locked, and 3.7 is installed{TUNED}"]),
    "structure": (evolve(with_kernel(fingerprints={"dtype=bfloat16": B}), tools={**EVERY, "helion": "1.5"}),
        [f"helion: KP316 version 1.4 was locked, and 1.5 is installed{TUNED}",
        f"kernels/twice: KP317 variant dtype=bfloat16 has another structure than was locked, by a change of helion{FIT}"]),
    "structure-of-nothing-known": (with_kernel(fingerprints={"dtype=bfloat16": B}),
        [f"kernels/twice: KP317 variant dtype=bfloat16 has another structure than was locked, by a change of an installed package that was edited{FIT}"]),
    "variants": (with_kernel(fingerprints={"dtype=float16": A}),
        ["kernels/twice: KP317 variant dtype=bfloat16 is none any more since the kernel was locked",
        "kernels/twice: KP317 variant dtype=float16 came in since the kernel was locked"]),
}  # fmt: skip


BUILDS = {
    "changed": ({"nvidia_h200": A}, {"nvidia_h200": B}, "this is not the build that was locked"),
    "came in": ({}, {"nvidia_h200": A}, "this build was added after the pack was locked"),
    "gone": ({"nvidia_h200": A}, {}, "this build was locked, and no longer exists"),
}


@pytest.mark.parametrize(("locked", "found", "said"), BUILDS.values(), ids=BUILDS)
def test_a_build_that_changed_is_told_by_its_own_line(locked, found, said):
    (problem,) = compare("demo", evolve(PACK, builds=locked), evolve(PACK, builds=found))
    assert str(problem) == f"builds/demo/nvidia_h200/index.json: KP318 {said}"
    assert change_of(problem) == "builds"
    assert drifted(evolve(PACK, builds=found), locked=evolve(PACK, builds=found)) == []


@pytest.mark.parametrize(("found", "said"), DRIFT.values(), ids=DRIFT)
def test_each_change_is_told_by_its_own_line(found, said):
    assert drifted(found) == said


def test_trees_of_another_python_are_not_compared():
    found = evolve(
        with_kernel(files={**KERNEL.files, "kernel.py": B}), tools={**EVERY, "python": "3.12"}
    )
    assert drifted(found) == [
        "kernels/twice/kernel.py: KP312 the source changed; whether its behaviour did cannot be told, because it was locked with another Python"
    ]


def test_another_python_or_kernelpkg_alone_is_no_drift():
    assert drifted(evolve(PACK, tools={**EVERY, "python": "3.12", "kernelpkg": "0.2"})) == []


def test_a_tool_that_is_not_installed_here_is_no_drift():
    assert drifted(evolve(PACK, tools={"python": "3.11"})) == []


def test_fingerprints_that_one_side_lacks_are_not_compared():
    assert drifted(with_kernel(fingerprints={})) == []
    assert drifted(PACK, locked=with_kernel(fingerprints={})) == []


def test_nothing_is_said_of_kernels_that_are_broken():
    assert drifted(evolve(PACK, kernels={}), broken=["twice"]) == []


def test_a_tool_is_its_own_change():
    (found,) = compare("demo", PACK, evolve(PACK, tools={**EVERY, "helion": "1.5"}))
    assert (found.code, change_of(found)) == ("KP316", "helion")


@pytest.mark.parametrize(
    ("found", "names"),
    [
        pytest.param(PACK, (), id="nothing"),
        pytest.param(with_kernel(files={**KERNEL.files, "host.py": B}), ("twice",), id="file"),
        pytest.param(evolve(PACK, tools={**EVERY, "triton": "3.7"}), ("twice",), id="tool"),
        pytest.param(evolve(PACK, tools={**EVERY, "python": "3.12"}), (), id="python"),
        pytest.param(with_kernel(configs={}), (), id="configs"),
    ],
)
def test_fingerprints_stand_while_nothing_they_follow_from_changes(found, names):
    assert needs_fingerprints(PACK, found) == names


def test_fingerprints_are_needed_where_there_are_none():
    assert needs_fingerprints(None, PACK) == ("twice",)
    assert needs_fingerprints(with_kernel(fingerprints={}), PACK) == ("twice",)


@pytest.mark.parametrize(
    ("path", "change"),
    [
        pytest.param("kernels/twice/kernel.toml", "manifest", id="manifest"),
        pytest.param("kernels/twice/kernel.py", "source", id="source"),
        pytest.param("configs/twice/nvidia_h200.json", "configs", id="configs"),
    ],
)
def test_a_file_of_a_broken_kernel_says_whose_change_it_is(path, change):
    assert change_of(Problem(path=path, code="KP304", message="")) == change


def take(demo, **changes):
    return take_inventory(evolve(read_pack(demo.root, "demo"), **changes), {"helion": "1.5.1"})


def digest(demo, file: str) -> str:
    return digest_bytes((demo.root / file).read_bytes())


def test_everything_that_load_reads_is_in_it(demo):
    demo.configs("twice")
    demo.edit("configs/twice/nvidia_h200.json", "{},", '{"source": "sha256-1"},')
    found = take(demo)
    kernel = found.pack.kernels["twice"]
    assert found.problems == ()
    assert found.pack.tools == {"helion": "1.5.1"}
    assert found.pack.manifest == digest(demo, "manifests/demo.toml")
    assert kernel.schema == "(Tensor input) -> Tensor"
    assert kernel.files == {
        file: digest(demo, f"kernels/twice/{file}")
        for file in ("kernel.toml", "kernel.py", "host.py")
    }
    assert set(kernel.sources) == {"kernel.py", "host.py"}
    assert kernel.configs == {
        "nvidia_h200": LockedConfigs(
            file=digest(demo, "configs/twice/nvidia_h200.json"),
            cases=2,
            configs=1,
            source="sha256-1",
        )
    }


def test_files_that_nothing_reads_are_not(demo):
    before = take(demo).pack
    for file in ("README.md", "other.py", ".kernel.py.swp", "__pycache__/kernel.pyc"):
        path = demo.root / "kernels/twice" / file
        path.parent.mkdir(exist_ok=True)
        path.write_text("x")
    assert take(demo).pack == before


def test_comments_change_a_file_and_not_what_it_does(demo):
    before = take(demo).pack.kernels["twice"]
    demo.edit("kernels/twice/kernel.py", "    return out", "    # twice\n    return out")
    after = take(demo).pack.kernels["twice"]
    assert after.files["kernel.py"] != before.files["kernel.py"]
    assert after.sources == before.sources


def test_configs_of_an_operator_are_not_the_packs(demo, tmp_path):
    demo.configs("twice")
    before = take(demo).pack
    place = tmp_path / "mine/twice/nvidia_h200.json"
    place.parent.mkdir(parents=True)
    place.write_text("{}")
    assert take(demo, overlays=(str(tmp_path / "mine"),)).pack == before


def test_a_broken_kernel_hides_no_other(demo):
    demo.kernel("second")
    demo.edit("kernels/second/kernel.toml", "version = 1", "version = 0")
    found = take(demo)
    assert list(found.pack.kernels) == list(found.specs) == ["twice"]
    assert [problem.code for problem in found.problems] == ["KP012"]
