"""What `lock` writes, and what `lock --check` says, with fingerprints that a test gives."""

from __future__ import annotations

import pytest

from kernelpkg.errors import ConfigError, PackError
from kernelpkg.packs.drift import LockPlan, check_lock, plan_lock
from kernelpkg.packs.lock import FILE, dumps, read_lock
from kernelpkg.packs.read import read_pack

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
        "kernelpkg.lock: KP307 has pack 'extra', which is not there any more; run 'kernelpkg lock'"
    ]
    found = plan(demo)
    assert set(found.lock.packs) == {"demo"}
    assert found.remarks[0] == (
        "pack 'extra' is not there any more, and its part of the lock is removed"
    )


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
        (
            "configs/third/nvidia_h200.json: KP315 these configs came in after the pack was locked "
            "(2 cases, 1 configs)"
        ),
        (
            "kernels/second: KP317 variant dtype=bfloat16 has another structure than was locked, "
            "by a change of host.py, kernel.toml; lists in its configs may not fit"
        ),
        "kernels/second/host.py: KP314 only comments, layout or docstrings of the source changed",
        (
            "kernels/second/kernel.toml: KP311 the kernel's manifest changed; its version is 1 as "
            "before"
        ),
        (
            "kernels/twice: KP317 variant dtype=bfloat16 has another structure than was locked, "
            "by a change of kernel.py; lists in its configs may not fit"
        ),
        "kernels/twice/kernel.py: KP312 what the source does changed",
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
                "message": "what the source does changed",
            }
        ],
        "remarks": ["structural fingerprints are not in the lock, and not compared"],
    }


def test_a_kernel_that_is_broken_by_now_says_which_files_changed(demo):
    plan(demo)
    demo.edit("kernels/twice/kernel.py", "def twice", "def twice(")
    found = check(demo)
    assert [problem.code for problem in found.problems] == ["KP114"]
    (line,) = lines(found)
    assert line.startswith("kernels/twice/kernel.py: KP304 is not as it was locked: sha256-")


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
