"""The lock as a value, its bytes, and what is said of one that is not as `lock` wrote it."""

# ruff: noqa: E501  # tables of cases and messages have whole lines

from __future__ import annotations

import errno
import os
from importlib import metadata

import pytest
from attrs import evolve

from kernelpkg import __version__, files
from kernelpkg.configs.directories import read_configs
from kernelpkg.errors import PackError
from kernelpkg.files import Files
from kernelpkg.packs import lock
from kernelpkg.packs.drift import take_inventory
from kernelpkg.packs.lock import (
    FILE,
    Lock,
    LockedConfigs,
    LockedKernel,
    LockedPack,
    dumps,
    has_lock,
    read_lock,
    toolchain,
    write_lock,
)
from kernelpkg.packs.read import read_kernel, read_pack
from kernelpkg.packs.verify import Verifier, make_verifier

DIGEST = "4dfd75ba6701bbfb754b7d9ffaf7601bb1cda1a86f08138e72af1992f70679d1"
A, B = f"sha256-{'a' * 64}", f"sha256-{'b' * 64}"

KERNEL = LockedKernel(
    version=1,
    schema="(Tensor input) -> Tensor",
    files={"kernel.toml": A, "kernel.py": B},
    sources={"kernel.py": A},
    configs={"nvidia_h200": LockedConfigs(file=A, cases=2, configs=1, source=B)},
    fingerprints={"dtype=bfloat16": B},
)
PACK = LockedPack(version="0.1.0", manifest=A, tools={"python": "3.11"}, kernels={"twice": KERNEL})
LOCK = Lock(packs={"demo": PACK})


def problems(root) -> list[str]:
    with pytest.raises(PackError) as caught:
        read_lock(root)
    return [str(problem) for problem in caught.value.problems]


def test_the_text_is_written_out_in_full():
    assert (
        dumps(LOCK)
        == f"""\
# What the packs beside this file were when `kernelpkg lock` was run. Lock again instead of editing.
edition = 1
digest = "sha256-{DIGEST}"

[packs.demo]
version = "0.1.0"
manifest = "{A}"

[packs.demo.tools]
python = "3.11"

[packs.demo.kernels.twice]
version = 1
schema = "(Tensor input) -> Tensor"

[packs.demo.kernels.twice.files]
"kernel.py" = "{B}"
"kernel.toml" = "{A}"

[packs.demo.kernels.twice.sources]
"kernel.py" = "{A}"

[packs.demo.kernels.twice.fingerprints]
"dtype=bfloat16" = "{B}"

[packs.demo.kernels.twice.configs.nvidia_h200]
file = "{A}"
cases = 2
configs = 1
source = "{B}"
"""
    )


def test_what_is_written_is_read_again(tmp_path):
    write_lock(tmp_path, LOCK)
    assert read_lock(tmp_path) == LOCK


def test_the_bytes_do_not_depend_on_the_order_of_names():
    turned = evolve(KERNEL, files=dict(reversed([*KERNEL.files.items()])))
    packs = {"other": PACK, "demo": evolve(PACK, kernels={"twice": turned})}
    assert dumps(Lock(packs=packs)) == dumps(Lock(packs={"demo": PACK, "other": PACK}))


def test_optional_parts_may_be_absent(tmp_path):
    bare = evolve(KERNEL, configs={}, fingerprints={})
    lock = Lock(packs={"demo": evolve(PACK, tools={}, kernels={"twice": bare})})
    write_lock(tmp_path, lock)
    assert read_lock(tmp_path) == lock


def test_no_lock_is_none(tmp_path):
    assert not has_lock(tmp_path)
    assert read_lock(tmp_path) is None


def test_a_kernel_knows_the_digests_of_its_files_by_path():
    assert KERNEL.digests("twice") == {
        "kernels/twice/kernel.toml": A,
        "kernels/twice/kernel.py": B,
        "configs/twice/nvidia_h200.json": A,
    }


REMEDY = "; restore it, or run 'kernelpkg lock'"
EDITED = f"kernelpkg.lock: KP301 was edited by hand, or damaged{REMEDY}"


CHANGED = {
    "value": ("cases = 2", "cases = 3", EDITED),
    "layout": ("cases = 2", "cases  = 2", EDITED),
    "comment": ("configs = 1\n", "configs = 1\n# mine\n", EDITED),
    "head": ("edition = 1\n", "edition = 1\n\n", EDITED),
    "digest": (f'digest = "sha256-{DIGEST}"', f'digest = "{A}"', EDITED),
    "newer": ("edition = 1", "edition = 2",
        "kernelpkg.lock:2: KP002 edition 2 is newer than this version of kernelpkg reads (1); upgrade kernelpkg"),
    "no-toml": ("[packs.demo]", "[packs.demo",
        f"kernelpkg.lock:5: KP003 does not parse as TOML: Expected ']' at the end of a table declaration{REMEDY}"),
    "unknown": ("cases = 2", "case = 2\ncases = 2",
        f"kernelpkg.lock:28: KP010 key 'case' is not known in [packs.demo.kernels.twice.configs.nvidia_h200]; did you mean 'cases'?{REMEDY}"),
    "type": ("cases = 2", 'cases = "2"',
        f"kernelpkg.lock:28: KP012 'cases' must be a whole number at least 0, not a text ('2'){REMEDY}"),
    "path": ('"kernel.py" = "sha256-b', '"../kernel.py" = "sha256-b',
        f"kernelpkg.lock:17: KP013 '../kernel.py' must be a path below its kernel{REMEDY}"),
}  # fmt: skip


@pytest.mark.parametrize(("old", "new", "said"), CHANGED.values(), ids=CHANGED)
def test_a_lock_that_was_changed_is_told(tmp_path, old, new, said):
    text = dumps(LOCK)
    assert old in text
    (tmp_path / FILE).write_text(text.replace(old, new))
    assert problems(tmp_path) == [said]


def test_a_truncated_lock_is_told_at_every_length(tmp_path):
    text = dumps(LOCK)
    for length in range(0, len(text), 7):
        (tmp_path / FILE).write_text(text[:length])
        assert all(line.startswith("kernelpkg.lock") for line in problems(tmp_path))


def test_a_lock_of_no_text_is_told(tmp_path):
    (tmp_path / FILE).write_bytes(b"edition = 1\n\xff")
    assert problems(tmp_path) == [f"kernelpkg.lock:2: KP003 is not UTF-8; TOML files are{REMEDY}"]


def test_a_directory_in_its_place_is_told(tmp_path):
    (tmp_path / FILE).mkdir()
    assert problems(tmp_path) == [f"kernelpkg.lock: KP001 cannot be read: Is a directory{REMEDY}"]


@pytest.mark.parametrize("file", ["a..b.py", "fakes/../host.py", "a b/c.py", "x/…py.py"])
def test_every_path_that_a_manifest_may_name_is_read_again(tmp_path, file):
    named = evolve(KERNEL, files={file: A}, sources={file: B})
    lock = Lock(packs={"demo": evolve(PACK, kernels={"twice": named})})
    write_lock(tmp_path, lock)
    assert read_lock(tmp_path) == lock


def test_a_full_disk_leaves_the_old_lock(tmp_path, monkeypatch):
    write_lock(tmp_path, LOCK)

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(PackError) as caught:
        write_lock(tmp_path, Lock())
    assert str(caught.value) == (
        "kernelpkg.lock: KP302 cannot be written: No space left on device; nothing was changed"
    )
    assert read_lock(tmp_path) == LOCK
    assert os.listdir(tmp_path) == [FILE]


AGAIN = "; restore it, reinstall its package, or run 'kernelpkg lock' if this is meant"


@pytest.fixture
def locked(demo):
    """The pack "demo", with configs, and locked."""
    demo.configs("twice")
    write_lock(demo.root, Lock(packs={"demo": take_inventory(pack_of(demo), {}).pack}))
    return demo


def pack_of(demo):
    return read_pack(demo.root, "demo")


def verifier_of(demo, *, demanded=True, installed=False) -> Verifier:
    return make_verifier(demo.root, "demo", demanded=demanded, installed=installed)


def files_of(demo, pack=None) -> Files:
    """Read a kernel as `load` does."""
    pack, files = pack or pack_of(demo), Files()
    spec = read_kernel(demo.root, "twice", files)
    read_configs(pack, spec, "nvidia_h200", files)
    return files


def state_of(verifier, pack, name, files) -> str:
    return verifier.state(pack, name, differs=bool(verifier.differences(pack, name, files)))


def lines(action) -> list[str]:
    with pytest.raises(PackError) as caught:
        action()
    return str(caught.value).splitlines()


def test_a_pack_that_is_as_it_was_locked_passes(locked):
    verifier, pack, files = verifier_of(locked), pack_of(locked), Files()
    verifier.check_manifest(pack.path, pack.digest)
    verifier.check_kernel(pack, "twice", files)
    assert state_of(verifier, pack, "twice", files_of(locked)) == "locked"
    assert verifier.gone(pack) == {}


@pytest.mark.parametrize("demanded", [True, False], ids=["demanded", "not-demanded"])
def test_a_lock_vouches_for_what_is_as_it_was_and_was_checked_by_this_version(demo, demanded):
    """Then `load` need not check it again."""
    demo.configs("twice")
    found = take_inventory(pack_of(demo), toolchain()).pack
    write_lock(demo.root, Lock(packs={"demo": found}))
    pack, verifier = pack_of(demo), verifier_of(demo, demanded=demanded)
    kernel = verifier.check_kernel(pack, "twice", Files())
    assert kernel == found.kernels["twice"]
    configs = kernel.configs["nvidia_h200"]
    assert kernel.counts() == {("nvidia_h200", configs.file): (2, 1)}
    others = {**found.tools, "python": "2.7", "torch": "0.1", "helion": "0.1"}
    other = evolve(verifier, locked=evolve(found, tools=others))
    assert other.check_kernel(pack, "twice", Files()) == kernel


@pytest.mark.parametrize(
    "change", ["version", "no-version", "manifest", "kernel", "pack", "configs", "gone"]
)
def test_a_lock_vouches_for_nothing_else(demo, change):
    demo.configs("twice")
    tools = {"version": {"kernelpkg": "0.0.1"}, "no-version": {}}.get(change, toolchain())
    found = take_inventory(pack_of(demo), tools).pack
    write_lock(demo.root, Lock(packs={"demo": found}))
    if change == "manifest":
        demo.edit("kernels/twice/kernel.toml", "[1, 4]", "[1, 5]")
    elif change == "kernel":
        demo.kernel("second")
    elif change == "pack":
        demo.edit("manifests/demo.toml", "0.1.0", "0.1.1")
    elif change == "configs":
        demo.configs("twice", platform="nvidia_b200")
    elif change == "gone":
        (demo.root / "kernels/twice/host.py").unlink()
    name = "second" if change == "kernel" else "twice"
    verifier = verifier_of(demo, demanded=False)
    assert verifier.check_kernel(pack_of(demo), name, Files()) is None


def test_what_was_verified_is_what_is_run_whatever_is_on_disk_by_then(locked):
    files = Files()
    verifier_of(locked).check_kernel(pack_of(locked), "twice", files)
    before = (locked.root / "kernels/twice/kernel.py").read_bytes()
    locked.edit("kernels/twice/kernel.py", "* 2", "* 3")
    assert files.read(locked.root / "kernels/twice/kernel.py") == before


def test_every_file_that_differs_is_named_with_both_digests(locked):
    locked.edit("kernels/twice/kernel.py", "* 2", "* 3")
    locked.edit("configs/twice/nvidia_h200.json", '"num_warps": 4', '"num_warps": 8')
    (locked.root / "kernels/twice/host.py").unlink()
    locked.edit("kernels/twice/kernel.toml", "version = 1", "version = 2")
    found = lines(lambda: verifier_of(locked).check_kernel(pack_of(locked), "twice", Files()))
    assert found[0].startswith(
        "configs/twice/nvidia_h200.json: KP304 differs from the lock: sha256-"
    )
    assert found[0].endswith(f"…{AGAIN}")
    assert found[1] == (
        f"kernels/twice/host.py: KP305 is in the lock, but is missing or cannot be read{AGAIN}"
    )
    assert [line.split(":")[0] for line in found[2:]] == [
        "kernels/twice/kernel.py",
        "kernels/twice/kernel.toml",
    ]


def test_the_digests_of_a_message_are_those_of_the_file(locked):
    path = "kernels/twice/kernel.py"
    before = Files().digest(locked.root / path)
    locked.edit(path, "* 2", "* 3")
    after = Files().digest(locked.root / path)
    assert lines(lambda: verifier_of(locked).check_kernel(pack_of(locked), "twice", Files())) == [
        f"{path}: KP304 differs from the lock: {before[:19]}… was expected, got {after[:19]}…{AGAIN}"
    ]


def test_another_manifest_of_the_pack_is_named(locked):
    locked.edit("manifests/demo.toml", "0.1.0", "0.1.1")
    pack = pack_of(locked)
    (line,) = lines(lambda: verifier_of(locked).check_manifest(pack.path, pack.digest))
    assert line.startswith("manifests/demo.toml: KP304 differs from the lock: sha256-")
    assert state_of(verifier_of(locked), pack, "twice", files_of(locked)) == "modified"


def test_nothing_has_to_be_as_it_was_where_no_lock_is_demanded(locked):
    locked.edit("kernels/twice/kernel.py", "* 2", "* 3")
    verifier, pack = verifier_of(locked, demanded=False), pack_of(locked)
    verifier.check_manifest(pack.path, "sha256-other")
    verifier.check_kernel(pack, "twice", Files())
    assert state_of(verifier, pack, "twice", files_of(locked)) == "modified"


def test_configs_that_came_in_are_a_difference(locked):
    locked.configs("twice", platform="nvidia_b200")
    files, pack = files_of(locked), pack_of(locked)
    files.read(locked.root / "configs/twice/nvidia_b200.json")
    (found,) = verifier_of(locked).differences(pack, "twice", files)
    assert str(found) == (
        "configs/twice/nvidia_b200.json: KP306 is not in the lock; remove it, or run "
        "'kernelpkg lock' if it is meant"
    )


def test_a_kernel_that_came_in_is_not_in_the_lock(locked):
    locked.kernel("second")
    pack = pack_of(locked)
    assert lines(lambda: verifier_of(locked).check_kernel(pack, "second", Files())) == [
        "kernels/second/kernel.toml: KP306 is not in the lock; remove it, or run 'kernelpkg lock' if it is meant"
    ]
    assert state_of(verifier_of(locked, demanded=False), pack, "second", Files()) == "unlocked"


def test_a_kernel_that_is_gone_is_named(locked):
    locked.kernel("second")
    write_lock(locked.root, Lock(packs={"demo": take_inventory(pack_of(locked), {}).pack}))
    pack = evolve(pack_of(locked), kernels=("twice",))
    assert list(map(str, verifier_of(locked).gone(pack).values())) == [
        f"kernels/second/kernel.toml: KP305 is in the lock, but is missing or cannot be read{AGAIN}"
    ]
    assert verifier_of(locked, demanded=False).gone(pack) == {}


@pytest.mark.parametrize("place", ["elsewhere", "configs", "kernels", "demo/mine"])
def test_configs_of_an_operator_are_not_verified_and_the_row_says_so(
    locked, tmp_path, monkeypatch, place
):
    monkeypatch.chdir(tmp_path)  # relative, of the same name as the pack's own, or inside it
    path = tmp_path / place / "twice/nvidia_h200.json"
    path.parent.mkdir(parents=True)
    own = (locked.root / "configs/twice/nvidia_h200.json").read_text()
    path.write_text(own.replace('"num_warps": 4', '"num_warps": 8'))
    pack = evolve(pack_of(locked), overlays=(str(path.parents[1]) if "/" in place else place,))
    verifier_of(locked).check_kernel(pack, "twice", Files())
    assert state_of(verifier_of(locked), pack, "twice", files_of(locked, pack)) == "overlaid"


def test_without_a_lock_everything_is_unlocked(demo):
    verifier, pack = verifier_of(demo, demanded=False, installed=True), pack_of(demo)
    verifier.check_kernel(pack, "twice", Files())
    assert not verifier.required
    assert state_of(verifier, pack, "twice", Files()) == "unlocked"
    assert verifier.differences(pack, "twice", Files()) == ()


def test_a_lock_that_is_demanded_has_to_be_there(demo):
    assert lines(lambda: verifier_of(demo)) == [
        "kernelpkg.lock: KP303 is not there, and the pack must be locked; run 'kernelpkg lock --pack demo' where it is made"
    ]


@pytest.mark.parametrize("who", ["demanded", "installed"])
def test_a_lock_has_to_have_the_pack(demo, who):
    write_lock(demo.root, Lock())
    given = {"demanded": False, "installed": False, who: True}
    assert lines(lambda: verifier_of(demo, **given)) == [
        "kernelpkg.lock: KP303 has no pack 'demo', and the pack must be locked; run 'kernelpkg lock --pack demo' where it is made"
    ]


@pytest.mark.parametrize("who", ["demanded", "installed"])
def test_a_broken_lock_stops_those_that_need_it(locked, who):
    locked.edit(FILE, "version = 1", "version = 2")
    given = {"demanded": False, "installed": False, who: True}
    (line,) = lines(lambda: verifier_of(locked, **given))
    assert line.startswith("kernelpkg.lock: KP301 was edited by hand")


def test_a_broken_lock_is_a_note_to_others(locked):
    locked.edit(FILE, "version = 1", "version = 2")
    verifier = verifier_of(locked, demanded=False)
    assert [note.code for note in verifier.notes] == ["KP301"]
    assert state_of(verifier, pack_of(locked), "twice", files_of(locked)) == "unlocked"


@pytest.fixture
def versions(monkeypatch):
    """What is installed, as a test says."""
    found = {"torch": "2.13.0+cpu", "helion": "1.5.1", "triton": "3.9.0"}

    def version(name):
        if name not in found:
            raise metadata.PackageNotFoundError(name)
        return found[name]

    monkeypatch.setattr(lock.importlib.metadata, "version", version)
    monkeypatch.setattr(lock.platform, "python_version_tuple", lambda: ("3", "12", "7"))
    return found


def test_builds_and_patch_releases_of_python_are_left_out(versions):
    assert lock.toolchain() == {
        "kernelpkg": __version__,
        "python": "3.12",
        "torch": "2.13.0",
        "helion": "1.5.1",
        "triton": "3.9.0",
    }


def test_what_is_not_installed_has_no_version(versions):
    del versions["helion"], versions["torch"]
    assert set(lock.toolchain()) == {"kernelpkg", "python", "triton"}
