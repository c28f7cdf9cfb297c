"""Where packs are found, in which order, and what is said of roots that are none."""

# ruff: noqa: E501  # tables of cases and messages have whole lines

from __future__ import annotations

import os
import shutil
import sys
import zipfile
from pathlib import Path

import pytest

from kernelpkg.errors import PackError, UsageError
from kernelpkg.packs import find as find_module
from kernelpkg.packs.find import open_pack


def find(name=None, *, given=None, path="", here=None):
    root, pack = find_module.find_pack(name, given, {"KERNELPKG_PATH": path}, here)
    return root.path, root.origin, pack


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Install a distribution whose entry point names a module."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))

    def install(entry, module):
        info = site / f"{entry}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {entry}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[kernelpkg.packs]\n{entry} = {module}\n")
        return site

    return install


def test_a_given_root_is_the_only_one(demo, other):
    assert find(given=demo.root, path=str(other.root)) == (demo.root, "root=", "demo")


def test_the_path_goes_before_our_own_pack(demo, other):
    path = os.pathsep.join(["", str(demo.root), str(other.root)])
    assert find(path=path) == (demo.root, "KERNELPKG_PATH", "demo")
    assert find("demo", path=path) == (demo.root, "KERNELPKG_PATH", "demo")


def test_without_anything_it_is_our_own_pack():
    """Also in its own directory."""
    ours = (find_module.own_root(), "kernelpkg", "kernelpkg")
    assert find() == find(here=find_module.own_root() / "kernels") == ours


@pytest.mark.parametrize("folder", [".", "kernels", "kernels/twice", "gone"])
def test_the_pack_around_a_directory_goes_before_our_own(demo, folder):
    around = (demo.root, find_module.HERE, "demo")
    assert find(here=demo.root / folder) == find("demo", here=demo.root / folder) == around


def test_what_is_named_goes_before_what_is_around(demo, other):
    """And our own pack is there by its name."""
    assert find(here=demo.root, given=other.root)[0] == other.root
    assert find(here=demo.root, path=str(other.root))[0] == other.root
    assert find("kernelpkg", here=demo.root)[1] == "kernelpkg"


def test_a_pack_is_not_sought_beyond_a_repository(demo):
    """The pack may be what the repository is of."""
    (demo.root / "inner/deep").mkdir(parents=True)
    (demo.root / ".git").mkdir()
    assert find(here=demo.root / "inner/deep")[1] == find_module.HERE
    (demo.root / "inner/.git").touch()
    assert find(here=demo.root / "inner/deep")[1] == "kernelpkg"


def test_a_closed_directory_around_is_passed_over(demo, monkeypatch):
    listdir = os.listdir
    closed = demo.root / "kernels/manifests"

    def refuse(path):
        if path == closed:
            raise PermissionError(13, "Permission denied", str(path))
        return listdir(path)

    monkeypatch.setattr(os, "listdir", refuse)
    assert find(here=demo.root / "kernels")[0] == demo.root


def test_our_own_pack_can_be_asked_for_beside_others(demo):
    assert find("kernelpkg", path=str(demo.root))[1] == "kernelpkg"


def test_a_relative_root_does_not_depend_on_where_we_go_later(demo, monkeypatch):
    monkeypatch.chdir(demo.root.parent)
    found, _, _ = find(given=Path("demo"))
    assert found == demo.root


def test_an_installed_pack_is_found_and_its_module_is_not_run(install, other):
    site = install("others", "others_kernels.data")
    (site / "others_kernels").mkdir()
    (site / "others_kernels/__init__.py").write_text("raise SystemExit('was run')")
    other.root.rename(site / "others_kernels/data")
    place = site / "others_kernels/data"
    assert find("demo") == (place, "entry point 'others'", "demo")
    assert "others_kernels" not in sys.modules
    assert find_module.find_pack("demo", None, {})[0].installed
    assert not find_module.find_pack("demo", place, {})[0].installed


def test_an_installed_pack_may_lie_beside_a_single_module(install, other):
    site = install("others", "single")
    (site / "single.py").write_text("raise SystemExit('was run')")
    for directory in ("manifests", "kernels"):
        (other.root / directory).rename(site / directory)
    assert find("demo") == (site, "entry point 'others'", "demo")


def test_an_installed_pack_is_not_one_of_the_current_directory(install, other, monkeypatch):
    """Without `__init__.py`, Python takes whatever directory of the name comes first."""
    site = install("norms", "norms")
    here = site.parent / "here"
    shutil.copytree(other.root, here / "norms")
    other.root.rename(site / "norms")
    monkeypatch.chdir(here)
    monkeypatch.syspath_prepend("")
    assert find("demo") == (site / "norms", "entry point 'norms'", "demo")


def test_sources_that_are_installed_as_a_link_are_found(install, other, monkeypatch):
    """What pip writes of them holds their entry points, and another directory is on the path."""
    install("others", "others_kernels.data [extra]")
    (other.root.parent / "sources/others_kernels").mkdir(parents=True)
    monkeypatch.syspath_prepend(str(other.root.parent / "sources"))
    place = other.root.parent / "sources/others_kernels/data"
    other.root.rename(place)
    assert find("demo") == (place, "entry point 'others'", "demo")


def test_a_pack_in_an_archive_is_refused(tmp_path, monkeypatch):
    """Helion reads the sources of kernels from files."""
    with zipfile.ZipFile(tmp_path / "site.zip", "w") as archive:
        archive.writestr("zipped/manifests/demo.toml", "")
        archive.writestr("zipped-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: zipped\n")
        entry = "[kernelpkg.packs]\nzipped = zipped\n"
        archive.writestr("zipped-1.dist-info/entry_points.txt", entry)
    monkeypatch.syspath_prepend(str(tmp_path / "site.zip"))
    with pytest.raises(PackError) as caught:
        find("demo")
    assert str(caught.value) == (
        f"kernelpkg.packs:zipped: KP604 module 'zipped' is in an archive, {tmp_path}/site.zip/"
        "zipped/, and has to be in a directory; reinstall its package"
    )


def test_a_pack_of_two_packages_is_not_clear(install, demo):
    """Not by the order of names, and not where one has the name of our own pack."""
    site = install("first", "first")
    install("second", "second")
    shutil.copytree(demo.root, site / "first")
    shutil.copytree(demo.root, site / "second")
    with pytest.raises(UsageError) as caught:
        find("demo")
    assert str(caught.value) == (
        f"pack 'demo' is in {site}/first (entry point 'first') and {site}/second "
        "(entry point 'second'); uninstall one, or name one with root="
    )
    assert find("demo", path=str(demo.root)) == (demo.root, "KERNELPKG_PATH", "demo")
    (site / "second/manifests/demo.toml").rename(site / "second/manifests/kernelpkg.toml")
    assert find("demo")[0] == site / "first"
    with pytest.raises(UsageError, match=r"pack 'kernelpkg' is in .*/second .* and .* \(kernelpkg"):
        find("kernelpkg")


def test_two_entry_points_may_name_one_root(install, demo):
    site = install("others", "others")
    demo.root.rename(site / "others")
    text = "[kernelpkg.packs]\nothers = others\nagain = others\n"
    (site / "others-1.0.dist-info/entry_points.txt").write_text(text)
    assert find("demo") == (site / "others", "entry point 'again'", "demo")


@pytest.mark.parametrize(
    ("entries", "line"),
    [
        (
            b"[kernelpkg.packs]\nbad = not a module\n",
            "kernelpkg.packs:bad: KP604 'not a module' is not the name of a module; reinstall its package",
        ),
        (
            b"[kernelpkg.packs]\nbad = ..\n",
            "kernelpkg.packs:bad: KP604 '..' is not the name of a module; reinstall its package",
        ),
        (
            b"[console_scripts]\nbad\n[kernelpkg.packs]\nbad = bad\n",
            "kernelpkg.packs:bad: KP604 entry points of package 'bad' cannot be read; reinstall it",
        ),
        (b"[console_scripts]\nbad\n", None),
        (b"[kernelpkg.packs]\nbad = \xff\n", None),
    ],
    ids=["value", "dots", "line", "of-others", "not-utf-8"],
)
def test_a_malformed_entry_point_hides_nothing(install, entries, line):
    """Of packages that are of no concern here nothing is said."""
    (install("bad", "bad") / "bad-1.0.dist-info/entry_points.txt").write_bytes(entries)
    assert find("kernelpkg")[1] == "kernelpkg"
    said = [str(root) for root in find_module.roots(None, {}) if isinstance(root, PackError)]
    assert said == ([] if line is None else [line])


def test_without_a_name_installed_packs_are_not_looked_at(install):
    install("others", "not_there")
    assert find()[2] == "kernelpkg"


def test_a_broken_package_hides_no_pack_that_is_elsewhere(install):
    install("others", "not_there")
    assert find("kernelpkg")[1] == "kernelpkg"


def test_a_broken_package_is_told_where_a_pack_is_not_found(install):
    install("others", "not_there")
    with pytest.raises(PackError) as caught:
        find("demo")
    assert str(caught.value) == (
        "kernelpkg.packs:others: KP604 module 'not_there' is not there; reinstall its package"
    )


def test_roots_yields_what_is_broken_too(install, demo, tmp_path):
    install("others", "not_there")
    environment = {"KERNELPKG_PATH": f"{tmp_path}/no{os.pathsep}{demo.root}"}
    found = list(find_module.roots(None, environment))
    assert [str(root) if isinstance(root, PackError) else root.origin for root in found] == [
        (
            f"{tmp_path}/no: KP604 does not exist; "
            "KERNELPKG_PATH takes a directory that holds manifests/"
        ),
        "KERNELPKG_PATH",
        "kernelpkg.packs:others: KP604 module 'not_there' is not there; reinstall its package",
        "kernelpkg",
    ]


@pytest.mark.parametrize("name", [None, "kernelpkg"])
def test_a_root_of_the_path_that_does_not_exist_is_an_error(tmp_path, name):
    with pytest.raises(PackError) as caught:
        find(name, path=str(tmp_path / "no"))
    assert str(caught.value) == (
        f"{tmp_path}/no: KP604 does not exist; "
        "KERNELPKG_PATH takes a directory that holds manifests/"
    )


def test_a_root_that_the_system_refuses_hides_no_other(demo, monkeypatch):
    """A name may be too long, and a directory above without permission."""

    def refuse(path, **_):
        if path.name == "locked":
            raise PermissionError(13, "Permission denied", str(path))
        return stat(path)

    stat = Path.stat
    monkeypatch.setattr(Path, "stat", refuse)
    path = os.pathsep.join(["a" * 300, "/locked", str(demo.root / "kernels/twice/host.py/x")])
    found = find_module.roots(None, {"KERNELPKG_PATH": os.pathsep.join([path, str(demo.root)])})
    said = [str(root) if isinstance(root, PackError) else root.origin for root in found]
    where, remedy = "KP604", "KERNELPKG_PATH takes a directory that holds manifests/"
    assert said == [
        f"{'a' * 300}: {where} cannot be read: File name too long; {remedy}",
        f"/locked: {where} cannot be read: Permission denied; {remedy}",
        f"{demo.root}/kernels/twice/host.py/x: {where} does not exist; {remedy}",
        "KERNELPKG_PATH",
        "kernelpkg",
    ]


def test_a_root_that_is_a_file_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(PackError) as caught:
        find(given=tmp_path / "file")
    assert str(caught.value) == (
        f"{tmp_path}/file: KP604 is not a directory; root= takes a directory that holds manifests/"
    )


def test_a_root_without_permission_is_an_error(demo, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("os.listdir", refuse)
    with pytest.raises(PackError) as caught:
        find(given=demo.root)
    assert str(caught.value) == (
        f"{demo.root}/manifests: KP604 directory cannot be read: Permission denied"
    )


def test_a_root_without_packs_is_an_error(tmp_path):
    with pytest.raises(PackError) as caught:
        find(given=tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}: KP606 has no packs; a pack is a file manifests/<pack>.toml, which "
        f"'kernelpkg new NAME --root {tmp_path}' writes with a first kernel"
    )


def test_of_several_packs_one_has_to_be_chosen(demo):
    (demo.root / "manifests/second.toml").touch()
    (demo.root / "manifests/.hidden.toml").touch()
    with pytest.raises(UsageError) as caught:
        find(given=demo.root)
    assert str(caught.value) == f"{demo.root} has packs demo, second; choose one with pack="


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("dem", "pack 'dem' is not there; did you mean 'demo'?"),
        ("xyz", "pack 'xyz' is not there; known are demo"),
    ],
    ids=["near", "far"],
)
def test_a_pack_that_is_not_there_is_wrong_usage(demo, name, line):
    with pytest.raises(UsageError) as caught:
        find(name, given=demo.root)
    assert str(caught.value) == line


def test_a_pack_is_opened_with_the_overlays_that_are_named(demo, tmp_path):
    own = tmp_path / "own"
    own.mkdir()
    assert open_pack(None, demo.root, [own], {}).overlays == (str(own),)
    assert open_pack("demo", demo.root, [], {"KERNELPKG_CONFIGS": str(own)}).overlays == (str(own),)
    assert open_pack("demo", demo.root, [], {}).overlays == ()


def test_a_pack_or_an_overlay_that_is_not_there_is_refused(demo):
    with pytest.raises(UsageError, match="pack 'other' is not there"):
        open_pack("other", demo.root, [], {})
    with pytest.raises(PackError, match="nowhere: KP510 does not exist"):
        open_pack("demo", demo.root, ["nowhere"], {})
