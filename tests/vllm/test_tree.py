"""Trees of vLLM's sources, their folders of config files, and directories that are neither."""

from __future__ import annotations

import os

import pytest

from kernelpkg.errors import PackError, UsageError
from kernelpkg.vllm.tree import find_folder, read_tree

HELION = "vllm/kernels/helion"


def problems(path, requires=">=0.33,<0.34"):
    with pytest.raises(PackError) as caught:
        read_tree(path, requires)
    return str(caught.value).replace(str(path), "DIR").split("\n")


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_a_tree_tells_its_version_and_its_names(vllm):
    tree = read_tree(vllm, ">=0.33,<0.34")
    assert (tree.path, tree.version) == (vllm, "0.33.0")
    assert tree.aliases == {"nvidia_h100_pcie": "nvidia_h100"}


@pytest.mark.parametrize(
    ("platform", "name"),
    [
        pytest.param("nvidia_h200", "nvidia_h200", id="the-same"),
        pytest.param("nvidia_h100_pcie", "nvidia_h100", id="alias"),
        pytest.param("NVIDIA_H200", "nvidia_h200", id="capitals"),
        pytest.param("nvidia-h100 pcie", "nvidia_h100", id="other-separators"),
    ],
)
def test_platforms_are_spelled_as_vllm_looks_for_them(vllm, platform, name):
    assert read_tree(vllm, "").spelled(platform) == name


def test_the_version_may_be_in_the_metadata_beside_it(vllm):
    """A source tree that was never built has no _version.py, and an installed one has both."""
    (vllm / "vllm/_version.py").unlink()
    assert read_tree(vllm, ">=0.33,<0.34").version is None
    (vllm / "vllm-0.33.1.dist-info").mkdir()
    metadata = vllm / "vllm-0.33.1.dist-info" / "METADATA"
    metadata.write_text("Name: vllm\nVersion: 0.33.1\n\nVersion: 9\n")
    assert read_tree(vllm, ">=0.33,<0.34").version == "0.33.1"


@pytest.mark.parametrize(
    "version", ["0.33.0", "0.33.1.dev7+g1234", "0.33.0rc1"], ids=["release", "dev", "candidate"]
)
def test_builds_of_a_release_that_fits_are_taken(vllm, version):
    (vllm / "vllm/_version.py").write_text(f"version = {version!r}\n")
    assert read_tree(vllm, ">=0.33.0rc1,<0.34").version == version


@pytest.mark.parametrize("version", ["0.32.9", "0.34.0", "unknown"])
def test_other_releases_are_refused(vllm, version):
    (vllm / "vllm/_version.py").write_text(f"__version__ = {version!r}\n")
    assert problems(vllm) == [
        f"DIR: KP804 holds vLLM {version}, and the pack is for >=0.33,<0.34; see [vllm] requires"
    ]


NO_TREE = "is not a tree of vLLM: vllm/kernels/helion/register.py is not there"


def test_directories_that_are_no_tree(vllm, tmp_path):
    """What is there instead is told, and what was meant where that is near."""
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    remedy = "name a source tree of vLLM or an unpacked wheel"
    assert problems(tmp_path / "nothing") == [f"DIR: KP801 does not exist; {remedy}"]
    assert problems(tmp_path / "file") == [f"DIR: KP801 is not a directory; {remedy}"]
    assert problems(tmp_path / "empty") == [
        f"DIR: KP801 {NO_TREE}; name the directory that holds vllm/"
    ]
    for inside in ("vllm", HELION):
        assert problems(vllm / inside) == [f"DIR: KP801 {NO_TREE}; did you mean {vllm}?"]


OTHER = "this version of kernelpkg writes for vLLM 0.33"

DIFFERENCES = {
    "no parameter": (
        "register.py", "    helion_settings=None,\n", "",
        f"{HELION}/register.py: 'register_kernel' has no parameter 'helion_settings'",
    ),
    "a further parameter": (
        "register.py", "    fake_impl=None", "    owner,\n    fake_impl=None",
        f"{HELION}/register.py: 'register_kernel' needs 'owner', which is not known",
    ),
    "no function": (
        "register.py", "def register_kernel", "def register",
        f"{HELION}/register.py has no 'register_kernel'",
    ),
    "no method": (
        "case_key.py", "def default", "def empty",
        f"{HELION}/case_key.py: 'CaseKey' has no method 'default'",
    ),
    "no class": (
        "config_manager.py", "class ConfigManager", "class Configs",
        f"{HELION}/config_manager.py has no 'ConfigManager'",
    ),
    "no names": (
        "utils.py", "_GPU_NAME_ALIASES", "ALIASES",
        f"{HELION}/utils.py has no table _GPU_NAME_ALIASES of names",
    ),
    "names that are computed": (
        "utils.py", '{"nvidia_h100_pcie": "nvidia_h100"}', "dict(names())",
        f"{HELION}/utils.py has no table _GPU_NAME_ALIASES of names",
    ),
    "no python": ("case_key.py", "class", "klass", f"{HELION}/case_key.py does not parse"),
}  # fmt: skip


@pytest.mark.parametrize(("file", "old", "new", "want"), DIFFERENCES.values(), ids=DIFFERENCES)
def test_another_interface_is_told(vllm, file, old, new, want):
    """Found in the source, for importing vLLM takes a minute and a GPU."""
    edit(vllm / HELION / file, old, new)
    assert problems(vllm) == [f"DIR: KP802 {want}; {OTHER}"]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("(", id="no python"),
        pytest.param("x = " + "-" * 50_000 + "1", id="nested too deeply"),
    ],
)
def test_a_file_that_does_not_parse_is_one_line(vllm, text):
    """What it lacks besides is not known, and not told."""
    (vllm / HELION / "utils.py").write_text(text)
    assert problems(vllm) == [f"DIR: KP802 {HELION}/utils.py does not parse; {OTHER}"]


def test_all_problems_come_at_once(vllm):
    (vllm / HELION / "case_key.py").unlink()
    edit(vllm / HELION / "register.py", "input_generator", "inputs")
    (vllm / "vllm/_version.py").write_text("version = '0.40.0'\n")
    found = [line.split(" ")[1] for line in problems(vllm)]
    assert found == ["KP802", "KP802", "KP804"]


# --- the folder of config files


@pytest.fixture
def tree(tmp_path):
    """A tree of vLLM with one config file."""
    package = tmp_path / "tree" / "vllm"
    configs = package / "kernels" / "helion" / "configs"
    (configs / "silu").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "_version.py").write_text("__version__ = version = '0.33.0'\n")
    (configs / "silu" / "nvidia_h100.json").write_text("[]")
    return tmp_path / "tree"


def found(folder):
    files, problems = folder.files()
    assert problems == []
    return files


@pytest.mark.parametrize("below", [".", "vllm", "vllm/kernels/helion/configs"])
def test_a_tree_a_package_and_the_folder_are_all_found(tree, below):
    """All three lead to the same files, and to the release that the package says it is."""
    folder = find_folder(tree / below)
    ((kernel, (path,)),) = found(folder).items()
    assert kernel == "silu"
    assert path.samefile(tree / "vllm/kernels/helion/configs/silu/nvidia_h100.json")
    assert folder.around.version == "0.33.0"
    assert folder.origin == "vLLM 0.33.0"


def test_a_folder_alone_has_no_release(tmp_path):
    folder = find_folder(tmp_path)
    assert (folder.path, folder.around.version, folder.origin) == (tmp_path, None, "vLLM")
    assert found(folder) == {}


def test_a_tree_without_configs_has_no_files(tree):
    """The folder is where it would be, for an export makes it."""
    configs = tree / "vllm/kernels/helion/configs"
    configs.rename(tree / "elsewhere")
    assert find_folder(tree).path == configs
    assert found(find_folder(tree)) == {}


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
    assert found(find_folder(tmp_path)) == {
        "a": [tmp_path / "a.json"],
        "b": [tmp_path / "b/nvidia_h100.json", tmp_path / "b/nvidia_h200.json"],
    }


def test_a_directory_that_cannot_be_read_is_told_and_hides_no_other(tree, monkeypatch):
    configs = tree / "vllm/kernels/helion/configs"
    (configs / "other").mkdir()
    listed = os.listdir

    def refuse(path):
        if str(path).endswith("other"):
            raise PermissionError(13, "Permission denied")
        return listed(path)

    monkeypatch.setattr(os, "listdir", refuse)
    files, (problem,) = find_folder(tree).files()
    assert str(problem) == (
        f"{configs}/other: KP820 directory cannot be read: Permission denied; "
        "correct its permissions"
    )
    assert list(files) == ["silu"]


def test_a_directory_that_is_none_is_refused(tmp_path):
    (tmp_path / "file").touch()
    remedy = "give a vLLM tree, or its folder of configs"
    for name, what in (("nothing", "does not exist"), ("file", "is not a directory")):
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
