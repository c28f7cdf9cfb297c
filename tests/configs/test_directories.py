"""Where config files are looked for."""

# ruff: noqa: E501  # tables of cases and messages have whole lines

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from kernelpkg import cli
from kernelpkg.configs.directories import (
    locate,
    platforms_of,
    read_configs,
    strangers,
    with_overlays,
)
from kernelpkg.configs.explain import explain
from kernelpkg.errors import PackError, UsageError
from kernelpkg.files import digest_bytes
from kernelpkg.packs.read import read_kernel, read_pack

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "configs.md"


@pytest.fixture
def overlay(demo, tmp_path):
    """A pack with a kernel that is tuned, and a directory of an operator."""
    demo.configs("twice")
    directory = tmp_path / "own"
    directory.mkdir()
    return directory


def put(directory, warps, platform="nvidia_h200", kernel="twice"):
    """Write an operator's config file, with one case and one number of warps."""
    document = {
        "edition": 1,
        "kernel": kernel,
        "platform": platform,
        "tuned_with": {},
        "configs": [{"block_sizes": [32], "num_warps": warps}],
        "cases": [{"key": {"num_tokens": 4}, "config": 0}],
    }
    (directory / kernel).mkdir(parents=True, exist_ok=True)
    (directory / kernel / f"{platform}.json").write_text(json.dumps(document))


def pack_over(demo, *directories):
    return with_overlays(read_pack(demo.root, "demo"), directories, {})


def test_the_first_directory_that_has_a_file_wins_and_files_are_not_mixed(demo, overlay, tmp_path):
    second = tmp_path / "second"
    second.mkdir()
    put(overlay, 16)
    put(second, 32)
    put(second, 32, platform="nvidia_a100")
    pack = pack_over(demo, overlay, second)
    spec = read_kernel(demo.root, "twice")
    place = locate(pack, "twice", "nvidia_h200")
    assert (place.path, place.overlay) == (overlay / "twice" / "nvidia_h200.json", True)
    assert place.shown == f"{overlay}/twice/nvidia_h200.json"
    found = read_configs(pack, spec, "nvidia_h200").content()
    assert [dict(config) for config in found.configs] == [{"block_sizes": [32], "num_warps": 16}]
    assert platforms_of(pack, "twice") == ("nvidia_a100", "nvidia_h200")
    explained = explain(pack, spec, "nvidia_h200", {"num_tokens": "3"})
    assert explained.chosen.config["num_warps"] == 16


def test_a_file_that_only_the_pack_has_is_the_packs(demo, overlay):
    place = locate(pack_over(demo, overlay), "twice", "nvidia_h200")
    assert (place.shown, place.overlay) == ("configs/twice/nvidia_h200.json", False)
    assert locate(pack_over(demo, overlay), "twice", "nvidia_b200") is None


def test_a_broken_file_of_an_overlay_is_named_by_its_own_path(demo, overlay):
    """It does not fall through to the pack's file: an operator who wrote it wants it."""
    put(overlay, 16)
    path = overlay / "twice" / "nvidia_h200.json"
    path.write_text("{")
    pack = pack_over(demo, overlay)
    with pytest.raises(PackError) as caught:
        read_configs(pack, read_kernel(demo.root, "twice"), "nvidia_h200")
    assert str(caught.value).startswith(f"{path}:1: KP501 ")


def test_a_file_that_a_lock_vouches_for_is_known_by_its_digest_and_not_decoded(demo):
    """Any other bytes, and those of another platform, are checked."""
    demo.configs("twice", "no JSON")
    place = demo.root / "configs/twice/nvidia_h200.json"
    pack, spec = read_pack(demo.root, "demo"), read_kernel(demo.root, "twice")
    digest = digest_bytes(b"no JSON")
    known = read_configs(pack, spec, "nvidia_h200", locked={("nvidia_h200", digest): (7, 5)})
    assert (known.kernel, known.platform, known.counts()) == ("twice", "nvidia_h200", (7, 5))
    for locked in ({("nvidia_h200", digest[:-1]): (7, 5)}, {("nvidia_b200", digest): (7, 5)}):
        with pytest.raises(PackError, match="KP501 the file is not JSON"):
            read_configs(pack, spec, "nvidia_h200", locked=locked)
    place.unlink()
    with pytest.raises(PackError, match=r"KP501 the file cannot be read \(No such file"):
        read_configs(pack, spec, "nvidia_h200", locked={("nvidia_h200", digest): (7, 5)})


def test_the_variable_names_directories_unless_the_command_line_does(demo, overlay, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    pack = read_pack(demo.root, "demo")
    variable = {"KERNELPKG_CONFIGS": f"{overlay}{os.pathsep}{os.pathsep}{other}"}
    assert with_overlays(pack, [], variable).overlays == (str(overlay), str(other))
    assert with_overlays(pack, [other], variable).overlays == (str(other),)
    assert with_overlays(pack, [], {}) is pack


def test_all_directories_that_are_none_are_told_at_once(demo, tmp_path):
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(PackError) as caught:
        pack_over(demo, file, "nowhere")
    assert str(caught.value).splitlines() == [
        f"{file}: KP510 is not a directory; configs= takes directories that hold <kernel>/<platform>.json",
        "nowhere: KP510 does not exist; configs= takes directories that hold <kernel>/<platform>.json",
    ]


def test_a_directory_of_no_kernel_is_pointed_out(demo, overlay):
    put(overlay, 16, kernel="twise")
    (overlay / ".git").mkdir()
    (found,) = map(str, strangers(pack_over(demo, overlay)))
    assert found == (
        f"{overlay}/twise: KP511 is not for a kernel of pack 'demo', so nothing reads it; "
        "did you mean 'twice'?"
    )


def test_all_that_nothing_reads_is_pointed_out(demo, overlay, tmp_path):
    demo.kernel("second")
    put(overlay, 16)
    for file in ("NVIDIA_H100.json", "-.json", "nvidia_a100.json", ".hidden.json", "notes"):
        (overlay / "twice" / file).write_text("{")
    (overlay / "second").symlink_to(tmp_path / "nowhere")
    (overlay / "nvidia_h200.json").write_text("{}")
    (overlay / "README.md").touch()
    assert list(map(str, strangers(pack_over(demo, overlay)))) == [
        f"{overlay}/nvidia_h200.json: KP511 is not in the directory of a kernel; move it to {overlay}/<kernel>/",
        f"{overlay}/second: KP511 is not a directory; put <platform>.json files into one of this name",
        f"{overlay}/twice/-.json: KP511 is not named after a platform, so nothing reads it; rename it to one such as nvidia_h200.json",
        f"{overlay}/twice/NVIDIA_H100.json: KP511 is not named after a platform, so nothing reads it; rename it to nvidia_h100.json",
    ]


@pytest.mark.parametrize("name", ["-", "_", "a\\b", "a\nb", "\udcff1", ".h200"])
def test_names_that_no_platform_can_have_are_of_none(demo, name, capsys):
    """The lock could not hold them, and no GPU is called so."""
    demo.configs("twice")
    (demo.root / "configs" / "twice" / f"{name}.json").write_text("{")
    assert platforms_of(read_pack(demo.root, "demo"), "twice") == ("nvidia_h200",)
    assert cli.main(["check", "--level", "0", "--root", str(demo.root)]) == (name != ".h200")
    told = [line for line in capsys.readouterr().out.splitlines() if ": KP202 " in line]
    assert len(told) == (name != ".h200")


def test_the_packs_own_directory_stays_the_packs_own(demo, overlay, monkeypatch):
    """Whatever it is called: naming it does not take it out of the lock."""
    monkeypatch.chdir(demo.root)
    put(overlay, 16)
    demo.configs("twice", platform="nvidia_b200")
    pack = pack_over(demo, "configs/../configs", overlay)
    places = [locate(pack, "twice", name) for name in ("nvidia_b200", "nvidia_h200")]
    assert [(place.shown, place.overlay) for place in places] == [
        ("configs/twice/nvidia_b200.json", False),
        ("configs/twice/nvidia_h200.json", False),
    ]
    after = pack_over(demo, overlay, demo.root / "configs")
    assert locate(after, "twice", "nvidia_h200").overlay
    assert list(strangers(pack)) == []


@pytest.mark.parametrize("given", ["own", Path("own")], ids=["text", "path"])
def test_one_directory_is_given_as_a_list_too(demo, given):
    with pytest.raises(UsageError) as caught:
        with_overlays(read_pack(demo.root, "demo"), given, {})
    assert str(caught.value) == "configs are given as a list of directories, not as 'own'"


def test_an_overlay_that_cannot_be_listed_is_pointed_out(demo, overlay, monkeypatch):
    pack = pack_over(demo, overlay)

    def listdir(path: object) -> list[str]:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "listdir", listdir)
    assert list(map(str, strangers(pack))) == [
        f"{overlay}: KP510 cannot be listed: Permission denied; correct its permissions"
    ]


def test_a_directory_that_cannot_be_read_is_no_directory_without_configs(
    demo, overlay, monkeypatch
):
    pack = pack_over(demo, overlay)
    assert platforms_of(pack, "other") == ()

    def listdir(path: object) -> list[str]:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "listdir", listdir)
    with pytest.raises(PackError) as caught:
        platforms_of(pack, "twice")
    assert str(caught.value) == (
        f"{overlay}/twice: KP501 directory cannot be read: Permission denied; "
        "correct its permissions"
    )


def test_explain_and_list_take_configs_of_an_operator(demo, overlay, capsys, monkeypatch):
    put(overlay, 16)
    put(overlay, 16, platform="nvidia_a100")
    command = ["explain", "twice", "num_tokens=4", "--platform", "nvidia_h200"]
    root = ["--root", str(demo.root)]
    assert cli.main([*command, *root, "--configs", str(overlay)]) == 0
    assert f"file:    {overlay}/twice/nvidia_h200.json" in capsys.readouterr().out.splitlines()
    monkeypatch.setenv("KERNELPKG_CONFIGS", str(overlay))
    assert cli.main(["list", *root, "--json"]) == 0
    kernels = json.loads(capsys.readouterr().out)["packs"][0]["kernels"]
    assert kernels[0]["platforms"] == ["nvidia_a100", "nvidia_h200"]
    assert cli.main([*command, *root, "--configs", "nowhere"]) == 1
    assert capsys.readouterr().err == (
        "nowhere: KP510 does not exist; --configs takes directories that hold <kernel>/<platform>.json\n"
    )


def test_the_page_of_configs_shows_what_happens(run_page):
    assert run_page(PAGE) == 1
