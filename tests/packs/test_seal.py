"""The lock of a pack while it is loaded: which kernels are as they were locked."""

from __future__ import annotations

import pytest
from attrs import evolve

from kernelpkg.configs.search_path import read_configs
from kernelpkg.errors import PackError
from kernelpkg.files import Files
from kernelpkg.packs.inventory import take_inventory
from kernelpkg.packs.lock import FILE, Lock, write_lock
from kernelpkg.packs.read import read_kernel, read_pack
from kernelpkg.packs.seal import Seal, open_seal

REMEDY = "; restore it, reinstall its package, or run 'kernelpkg lock' if this is meant"


@pytest.fixture
def locked(demo):
    """The pack "demo", with configs, and locked."""
    demo.configs("twice")
    write_lock(demo.root, Lock(packs={"demo": take_inventory(pack_of(demo), {}).pack}))
    return demo


def pack_of(demo):
    return read_pack(demo.root, "demo")


def seal_of(demo, *, demanded=True, installed=False) -> Seal:
    return open_seal(demo.root, "demo", demanded=demanded, installed=installed)


def files_of(demo, pack=None) -> Files:
    """Read a kernel as `load` does."""
    pack, files = pack or pack_of(demo), Files()
    spec = read_kernel(demo.root, "twice", files)
    read_configs(pack, spec, "nvidia_h200", files)
    return files


def state_of(seal, pack, name, files) -> str:
    return seal.state(pack, name, differs=bool(seal.differences(pack, name, files)))


def lines(action) -> list[str]:
    with pytest.raises(PackError) as caught:
        action()
    return str(caught.value).splitlines()


def test_a_pack_that_is_as_it_was_locked_passes(locked):
    seal, pack, files = seal_of(locked), pack_of(locked), Files()
    seal.check_manifest(pack.path, pack.digest)
    seal.check_kernel(pack, "twice", files)
    assert state_of(seal, pack, "twice", files_of(locked)) == "locked"
    assert seal.gone(pack) == {}


def test_what_was_verified_is_what_is_run_whatever_is_on_disk_by_then(locked):
    files = Files()
    seal_of(locked).check_kernel(pack_of(locked), "twice", files)
    before = (locked.root / "kernels/twice/kernel.py").read_bytes()
    locked.edit("kernels/twice/kernel.py", "* 2", "* 3")
    assert files.read(locked.root / "kernels/twice/kernel.py") == before


def test_every_file_that_differs_is_named_with_both_digests(locked):
    locked.edit("kernels/twice/kernel.py", "* 2", "* 3")
    locked.edit("configs/twice/nvidia_h200.json", '"num_warps": 4', '"num_warps": 8')
    (locked.root / "kernels/twice/host.py").unlink()
    locked.edit("kernels/twice/kernel.toml", "version = 1", "version = 2")
    found = lines(lambda: seal_of(locked).check_kernel(pack_of(locked), "twice", Files()))
    assert found[0].startswith(
        "configs/twice/nvidia_h200.json: KP304 is not as it was locked: sha256-"
    )
    assert found[0].endswith(f"…{REMEDY}")
    assert found[1] == (
        f"kernels/twice/host.py: KP305 is in the lock, and is not there or cannot be read{REMEDY}"
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
    assert lines(lambda: seal_of(locked).check_kernel(pack_of(locked), "twice", Files())) == [
        (
            f"{path}: KP304 is not as it was locked: {before[:19]}… is expected, got {after[:19]}…"
            f"{REMEDY}"
        )
    ]


def test_another_manifest_of_the_pack_is_named(locked):
    locked.edit("manifests/demo.toml", "0.1.0", "0.1.1")
    pack = pack_of(locked)
    (line,) = lines(lambda: seal_of(locked).check_manifest(pack.path, pack.digest))
    assert line.startswith("manifests/demo.toml: KP304 is not as it was locked: sha256-")
    assert state_of(seal_of(locked), pack, "twice", files_of(locked)) == "modified"


def test_nothing_has_to_be_as_it_was_where_no_lock_is_demanded(locked):
    locked.edit("kernels/twice/kernel.py", "* 2", "* 3")
    seal, pack = seal_of(locked, demanded=False), pack_of(locked)
    seal.check_manifest(pack.path, "sha256-other")
    seal.check_kernel(pack, "twice", Files())
    assert state_of(seal, pack, "twice", files_of(locked)) == "modified"


def test_configs_that_came_in_are_a_difference(locked):
    locked.configs("twice", platform="nvidia_b200")
    files, pack = files_of(locked), pack_of(locked)
    files.read(locked.root / "configs/twice/nvidia_b200.json")
    (found,) = seal_of(locked).differences(pack, "twice", files)
    assert str(found) == (
        "configs/twice/nvidia_b200.json: KP306 is not in the lock; remove it, or run "
        "'kernelpkg lock' if it is meant"
    )


def test_a_kernel_that_came_in_is_not_in_the_lock(locked):
    locked.kernel("second")
    pack = pack_of(locked)
    assert lines(lambda: seal_of(locked).check_kernel(pack, "second", Files())) == [
        (
            "kernels/second/kernel.toml: KP306 is not in the lock; remove it, or run "
            "'kernelpkg lock' if it is meant"
        )
    ]
    assert state_of(seal_of(locked, demanded=False), pack, "second", Files()) == "unlocked"


def test_a_kernel_that_is_gone_is_named(locked):
    locked.kernel("second")
    write_lock(locked.root, Lock(packs={"demo": take_inventory(pack_of(locked), {}).pack}))
    pack = evolve(pack_of(locked), kernels=("twice",))
    assert list(map(str, seal_of(locked).gone(pack).values())) == [
        (
            f"kernels/second/kernel.toml: KP305 is in the lock, and is not there or cannot be read"
            f"{REMEDY}"
        )
    ]
    assert seal_of(locked, demanded=False).gone(pack) == {}


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
    seal_of(locked).check_kernel(pack, "twice", Files())
    assert state_of(seal_of(locked), pack, "twice", files_of(locked, pack)) == "overlaid"


def test_without_a_lock_everything_is_unlocked(demo):
    seal, pack = seal_of(demo, demanded=False, installed=True), pack_of(demo)
    seal.check_kernel(pack, "twice", Files())
    assert not seal.required
    assert state_of(seal, pack, "twice", Files()) == "unlocked"
    assert seal.differences(pack, "twice", Files()) == ()


def test_a_lock_that_is_demanded_has_to_be_there(demo):
    assert lines(lambda: seal_of(demo)) == [
        (
            "kernelpkg.lock: KP303 is not there, and the pack must be locked; run "
            "'kernelpkg lock --pack demo' where it is made"
        )
    ]


@pytest.mark.parametrize("who", ["demanded", "installed"])
def test_a_lock_has_to_have_the_pack(demo, who):
    write_lock(demo.root, Lock())
    given = {"demanded": False, "installed": False, who: True}
    assert lines(lambda: seal_of(demo, **given)) == [
        (
            "kernelpkg.lock: KP303 has no pack 'demo', and the pack must be locked; run "
            "'kernelpkg lock --pack demo' where it is made"
        )
    ]


@pytest.mark.parametrize("who", ["demanded", "installed"])
def test_a_broken_lock_stops_those_that_need_it(locked, who):
    locked.edit(FILE, "version = 1", "version = 2")
    given = {"demanded": False, "installed": False, who: True}
    (line,) = lines(lambda: seal_of(locked, **given))
    assert line.startswith("kernelpkg.lock: KP301 was edited by hand")


def test_a_broken_lock_is_a_note_to_others(locked):
    locked.edit(FILE, "version = 1", "version = 2")
    seal = seal_of(locked, demanded=False)
    assert [note.code for note in seal.notes] == ["KP301"]
    assert state_of(seal, pack_of(locked), "twice", files_of(locked)) == "unlocked"
