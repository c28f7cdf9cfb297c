"""Trees of vLLM's sources, and directories that are none, or of another vLLM."""

from __future__ import annotations

import pytest

from kernelpkg.errors import PackError
from kernelpkg.vllm.tree import read_tree

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


NO_TREE = "is no tree of vLLM: vllm/kernels/helion/register.py is not there"


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
