"""What lies in the directories of configs and kernels, and what nothing reads."""

from __future__ import annotations

import os

import pytest

from kernelpkg.check import config_files
from kernelpkg.configs.search_path import with_overlays
from kernelpkg.packs.read import read_pack


def pack(demo, *overlays):
    return with_overlays(read_pack(demo.root, "demo"), overlays, {})


def told(demo, *overlays) -> list[str]:
    return [str(finding) for finding in config_files.survey(pack(demo, *overlays)).findings]


def test_a_pack_without_configs_has_none(demo):
    tree = config_files.survey(pack(demo))
    assert (tree.files, tree.findings) == ((), ())


def test_the_files_of_overlays_come_first(demo, tmp_path):
    """And are the ones that calls use."""
    demo.configs("twice")
    demo.configs("twice", platform="nvidia_b200")
    mine = tmp_path / "mine/twice"
    mine.mkdir(parents=True)
    (mine / "nvidia_h200.json").write_text("{}")
    tree = config_files.survey(pack(demo, tmp_path / "mine"))
    assert [(file.shown, file.overlay) for file in tree.files] == [
        (f"{tmp_path}/mine/twice/nvidia_h200.json", True),
        ("configs/twice/nvidia_b200.json", False),
        ("configs/twice/nvidia_h200.json", False),
    ]
    assert {key: file.overlay for key, file in tree.first().items()} == {
        ("twice", "nvidia_h200"): True,
        ("twice", "nvidia_b200"): False,
    }


def test_what_is_no_one_elses_business(demo):
    """Hidden files, a page for readers, and the configs of another pack of the same root."""
    demo.kernel("thrice")
    demo.edit("manifests/demo.toml", 'kernels = "*"', 'kernels = ["twice"]')
    demo.configs("thrice")
    (demo.root / "configs/README.md").write_text("hello")
    (demo.root / "configs/.hidden").mkdir()
    demo.configs("twice")
    (demo.root / "configs/twice/.nvidia_h200.json.0.tmp").write_text("{")
    assert told(demo) == []


@pytest.mark.parametrize(
    ("file", "line"),
    [
        (
            "configs/twise/nvidia_h200.json",
            (
                "configs/twise: KP201 is of no kernel of pack 'demo', so nothing reads it; did you "
                "mean 'twice'?"
            ),
        ),
        (
            "configs/other/nvidia_h200.json",
            (
                "configs/other: KP201 is of no kernel of pack 'demo', so nothing reads it; rename "
                "or remove it"
            ),
        ),
        (
            "configs/twice/deeper/nvidia_h200.json",
            (
                "configs/twice/deeper: KP201 is no <platform>.json, so nothing reads it; rename or "
                "remove it"
            ),
        ),
        (
            "configs/twice/__.json",
            (
                "configs/twice/__.json: KP202 '__' is no name of a platform, so no GPU looks for "
                "it; remove it"
            ),
        ),
        (
            "configs/twice/my_gpu.json",
            (
                "configs/twice/my_gpu.json: KP202 unverified: 'my_gpu' is no GPU that kernelpkg "
                "knows, so it may be looked up for none; name it in [platforms] of the pack"
            ),
        ),
    ],
    ids=["misspelt", "other", "deeper", "no-name", "unknown"],
)
def test_what_nothing_reads(demo, file, line):
    path = demo.root / file
    path.parent.mkdir(parents=True)
    path.write_text("{}")
    assert told(demo) == [line]


def test_platforms_that_the_pack_names_are_known(demo):
    """Also of variants that it keeps apart."""
    with (demo.root / "manifests/demo.toml").open("a") as manifest:
        manifest.write('[platforms]\nvariants = "apart"\nnames = { my_gpu_80gb = "my_gpu" }\n')
    for name in ("my_gpu", "nvidia_h200_nvl", "cpu"):
        demo.configs("twice", platform=name)
    assert told(demo) == []


def test_configs_that_are_a_file(demo):
    (demo.root / "configs").write_text("")
    assert told(demo) == ["configs: KP201 is no directory; remove it"]


def test_links_that_lead_nowhere(demo):
    """One to itself is one of them."""
    (demo.root / "configs").symlink_to("gone")
    (demo.root / "kernels/loop").symlink_to("loop")
    half = demo.root / "kernels/half"
    half.mkdir()
    (half / "kernel.toml").symlink_to("../x")
    assert told(demo) == [
        "configs: KP203 is a link to 'gone', which is not there; correct or remove it"
    ]
    assert [str(finding) for finding in config_files.kernel_findings(pack(demo))] == [
        (
            "kernels/half/kernel.toml: KP203 is a link to '../x', which is not there; correct or "
            "remove it"
        ),
        "kernels/loop: KP203 is a link to 'loop', which is not there; correct or remove it",
    ]


def test_directories_of_kernels_without_a_manifest(demo):
    """Those of Python's, empty ones and single files are none."""
    for name in ("__pycache__", "empty", "half"):
        (demo.root / "kernels" / name).mkdir()
    (demo.root / "kernels/half/kernel.py").write_text("")
    (demo.root / "kernels/__pycache__/x.pyc").write_text("")
    (demo.root / "kernels/notes.md").write_text("")
    assert [str(finding) for finding in config_files.kernel_findings(pack(demo))] == [
        "kernels/half: KP204 has no kernel.toml, so it is no kernel; write one, or remove it"
    ]


def test_a_directory_that_cannot_be_read(demo, monkeypatch):
    """The others are listed all the same."""
    demo.kernel("thrice")
    demo.configs("twice")
    demo.configs("thrice")
    real = os.listdir

    def listdir(path):
        if str(path).endswith("configs/thrice"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(config_files.os, "listdir", listdir)
    tree = config_files.survey(pack(demo))
    assert [file.kernel for file in tree.files] == ["twice"]
    assert [str(finding) for finding in tree.findings] == [
        "configs/thrice: KP501 directory cannot be read: Permission denied; correct its permissions"
    ]
