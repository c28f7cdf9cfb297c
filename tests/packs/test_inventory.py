"""What a pack is on disk, in the terms of its lock."""

from __future__ import annotations

from attrs import evolve

from kernelpkg.digest import digest_bytes
from kernelpkg.packs.inventory import take_inventory
from kernelpkg.packs.lock import LockedConfigs
from kernelpkg.packs.read import read_pack


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
