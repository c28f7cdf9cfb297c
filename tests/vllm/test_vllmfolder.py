"""vLLM's folder of config files: where it is, what it holds, and which release is around it."""

from __future__ import annotations

import os

import pytest

from kernelpkg.errors import PackError, UsageError
from kernelpkg.vllm.vllmfolder import find_folder

VERSION = "__version__ = version = '0.33.0'\n__version_tuple__ = (0, 33, 0)\n"


@pytest.fixture
def tree(tmp_path):
    """A tree of vLLM with one config file."""
    package = tmp_path / "tree" / "vllm"
    configs = package / "kernels" / "helion" / "configs"
    (configs / "silu").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "_version.py").write_text(VERSION)
    (configs / "silu" / "nvidia_h100.json").write_text("[]")
    return tmp_path / "tree"


def found(folder):
    return [(file.kernel, file.platform, file.path) for file in folder.files()]


@pytest.mark.parametrize("below", [".", "vllm", "vllm/kernels/helion/configs"])
def test_a_tree_a_package_and_the_folder_are_all_found(tree, below):
    """All three lead to the same files, and to the release that the package says it is."""
    folder = find_folder(tree / below)
    (file,) = folder.files()
    assert (file.kernel, file.platform) == ("silu", "nvidia_h100")
    assert file.path.samefile(tree / "vllm/kernels/helion/configs/silu/nvidia_h100.json")
    assert folder.around.version == "0.33.0"
    assert folder.origin == "vLLM 0.33.0"


def test_a_folder_alone_has_no_release(tmp_path):
    folder = find_folder(tmp_path)
    assert (folder.path, folder.around.version, folder.origin) == (tmp_path, None, "vLLM")
    assert found(folder) == []


def test_a_tree_without_configs_has_no_files(tree):
    """The folder is where it would be, for an export makes it."""
    configs = tree / "vllm/kernels/helion/configs"
    configs.rename(tree / "elsewhere")
    assert find_folder(tree).path == configs
    assert found(find_folder(tree)) == []


VERSIONS = {
    "missing": None,
    "no-python": "__version__ = = 1",
    "null-byte": "\0",
    "empty": "",
    "number": "__version__ = 33",
    "computed": "__version__ = str(33)",
    "no-version": "__version__ = 'dev'",
    "line-break": "__version__ = '0.33\\n0'",
    "thousands-of-digits": f"__version__ = '{'1' * 5000}'",
    "nested": "__version__ = " + "(" * 5000,
}


@pytest.mark.parametrize("text", VERSIONS.values(), ids=VERSIONS)
def test_a_release_that_is_not_said_is_not_known(tree, text):
    (tree / "vllm/_version.py").unlink()
    if text is not None:
        (tree / "vllm/_version.py").write_text(text)
    assert find_folder(tree).origin == "vLLM"


def test_the_version_is_read_and_nothing_is_run(tree):
    text = "raise SystemExit\n__version__ = '0.34.0rc1.dev5+g1234'\n"
    (tree / "vllm/_version.py").write_text(text)
    assert find_folder(tree).origin == "vLLM 0.34.0rc1.dev5+g1234"


def test_files_of_all_layouts_are_listed_in_order(tmp_path):
    """Old files hold all platforms of a kernel; what is hidden or no JSON is left alone."""
    for name in (
        "b/nvidia_h200.json",
        "b/nvidia_h100.json",
        "b/notes.txt",
        "b/.x.json",
        ".c/x.json",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "a.json").touch()
    (tmp_path / "b" / "deeper.json").mkdir()
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "empty").mkdir()
    assert found(find_folder(tmp_path)) == [
        ("a", None, tmp_path / "a.json"),
        ("b", "nvidia_h100", tmp_path / "b/nvidia_h100.json"),
        ("b", "nvidia_h200", tmp_path / "b/nvidia_h200.json"),
    ]


def test_a_directory_that_cannot_be_read_is_told_and_hides_no_other(tree, monkeypatch):
    configs = tree / "vllm/kernels/helion/configs"
    (configs / "other").mkdir()
    listed = os.listdir

    def refuse(path):
        if str(path).endswith("other"):
            raise PermissionError(13, "Permission denied")
        return listed(path)

    monkeypatch.setattr(os, "listdir", refuse)
    error, file = find_folder(tree).files()
    assert isinstance(error, PackError)
    assert str(error) == (
        f"{configs}/other: KP820 directory cannot be read: Permission denied; "
        "correct its permissions"
    )
    assert file.kernel == "silu"


def test_a_directory_that_is_none_is_refused(tmp_path):
    (tmp_path / "file").touch()
    remedy = "give a vLLM tree, or its folder of configs"
    for name, what in (("nothing", "does not exist"), ("file", "is no directory")):
        with pytest.raises(UsageError) as caught:
            find_folder(tmp_path / name)
        assert str(caught.value) == f"{tmp_path / name} {what}; {remedy}"


@pytest.mark.parametrize("below", [".", "vllm"])
def test_a_vllm_without_helion_kernels_is_refused(tree, below):
    """An export into such a tree would write where no release of vLLM looks."""
    (tree / "vllm/kernels").rename(tree / "elsewhere")
    with pytest.raises(UsageError) as caught:
        find_folder(tree / below)
    message = "is a vLLM without kernels/helion; later releases have it"
    assert str(caught.value) == f"{tree / below} {message}"
