"""Packs for tests: small, written where a test wants them, and unloaded behind it."""

from __future__ import annotations

import contextlib
import re
import runpy
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from attrs import frozen
from hypothesis import HealthCheck, settings

from kernelpkg import cli
from kernelpkg.manifest.spec import PackSpec
from kernelpkg.packs.read import read_pack
from kernelpkg.packs.routes import Routing, read_routing

# No example may fail for the time that it takes: machines are shared and slow.
settings.register_profile("kernelpkg", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("kernelpkg")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests of a Ray cluster first: they go to one process then, which starts one."""
    items.sort(key=lambda item: item.path.name != "test_rayworkers.py")


MANIFEST = """\
edition = 1
[kernel]
name = "NAME"
version = 1
summary = "Twice the input."
[op]
schema = "(Tensor input) -> Tensor"
fake_impl = "infer"
[helion]
requires = ">=1.4"
[axes]
num_tokens = "input.shape[0]"
[[key]]
axis = "num_tokens"
match = "ceil"
[inputs]
[[inputs.grid]]
num_tokens = [1, 4]
[args]
input = { shape = ["num_tokens"], dtype = "float32" }
[accuracy]
return = { rtol = 1e-6 }
"""

KERNEL = """\
import helion.language as hl
import torch


def NAME(input: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(input)
    for tile in hl.tile(input.size(0)):
        out[tile] = input[tile] * 2
    return out
"""

HOST = """\
import torch


def reference(input: torch.Tensor) -> torch.Tensor:
    return input * 2
"""

PACK = """\
edition = 1
[pack]
name = "demo"
version = "0.1.0"
namespace = "demo"
license = "Apache-2.0"
kernels = "*"
"""

CONFIGS = """\
{
  "edition": 1,
  "kernel": "NAME",
  "platform": "nvidia_h200",
  "tuned_with": {},
  "configs": [{"block_sizes": [16], "num_warps": 4}],
  "cases": [{"key": {"num_tokens": 1}, "config": 0}, {"key": {"num_tokens": 4}, "config": 0}]
}
"""


@frozen
class PackDirectory:
    """A pack on disk that a test writes and changes."""

    root: Path

    def kernel(self, name: str) -> Path:
        """Write a kernel that doubles its input; returns its directory."""
        directory = self.root / "kernels" / name
        directory.mkdir(parents=True)
        texts = {"kernel.toml": MANIFEST, "kernel.py": KERNEL, "host.py": HOST}
        for file, text in texts.items():
            (directory / file).write_text(text.replace("NAME", name))
        return directory

    def edit(self, file: str, old: str, new: str) -> None:
        """Replace a text that a file of the pack has."""
        path = self.root / file
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    def configs(self, name: str, text: str = CONFIGS, platform: str = "nvidia_h200") -> None:
        """Write a config file of a kernel."""
        path = self.root / "configs" / name / f"{platform}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace("NAME", name))


def write_pack(root: Path) -> PackDirectory:
    """Write a pack "demo" with one good kernel, "twice"."""
    (root / "manifests").mkdir(parents=True)
    (root / "manifests" / "demo.toml").write_text(PACK)
    pack = PackDirectory(root)
    pack.kernel("twice")
    return pack


@pytest.fixture(scope="session")
def new_pack() -> Callable[[Path], PackDirectory]:
    """Writes a pack like `demo`, for tests that share one."""
    return write_pack


@pytest.fixture
def demo(tmp_path: Path) -> PackDirectory:
    """A pack "demo" with one good kernel, "twice", which doubles its input."""
    return write_pack(tmp_path / "demo")


@pytest.fixture
def other(tmp_path: Path) -> PackDirectory:
    """A second pack like `demo`, with the same namespace, below another root."""
    return write_pack(tmp_path / "other")


@pytest.fixture(autouse=True)
def no_leftovers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let no test see the environment of who runs it, or ops that another left in "demo"."""
    names = ("CONFIGS", "DISABLE", "NO_PROGRESS", "PATH")
    for name in (f"KERNELPKG_{word}" for word in names):
        monkeypatch.delenv(name, raising=False)
    yield
    forget("demo")


def forget(namespace: str) -> None:
    """Unload the ops of a namespace, where anything was loaded at all."""
    register = sys.modules.get("kernelpkg.runtime.register")
    if register is not None:
        names = [n for n in register.get_registered_kernels() if n.startswith(f"{namespace}::")]
        if names:
            register.unload(*names)


VLLM = {
    "vllm/__init__.py": "",
    "vllm/_version.py": '__version__ = version = "0.33.0"\n',
    "vllm/utils/import_utils.py": "def has_helion() -> bool:\n    return True\n",
    "vllm/kernels/helion/__init__.py": "",
    "vllm/kernels/helion/ops/__init__.py": "",
    "vllm/kernels/helion/register.py": """\
def register_kernel(
    op_name=None,
    *,
    config_picker,
    fake_impl=None,
    mutates_args=None,
    helion_settings=None,
    input_generator=None,
):
    return lambda function: function
""",
    "vllm/kernels/helion/case_key.py": """\
class CaseKey(dict):
    @classmethod
    def default(cls): ...
    def is_default(self): ...
""",
    "vllm/kernels/helion/config_manager.py": """\
class ConfigManager:
    def get_platform_configs(self, kernel_name, platform): ...
""",
    "vllm/kernels/helion/utils.py": """\
_GPU_NAME_ALIASES: dict[str, str] = {"nvidia_h100_pcie": "nvidia_h100"}
def canonicalize_gpu_name(name): ...
""",
}


@pytest.fixture
def vllm(tmp_path: Path) -> Path:
    """A directory with as much of vLLM's sources as vendoring looks at; none of it can run."""
    for file, text in VLLM.items():
        path = tmp_path / "sources" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "sources"


_BLOCK = re.compile(r"(?:^`([^`\n]+)`\n\n)?^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_SECONDS = re.compile(r"\d+\.\d s\)")


@pytest.fixture
def run_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[[Path], int]]:
    """Do what a page of the documentation shows, in an empty directory.

    A block below the name of a file is written there; one of Python is run; and of a console, each
    command must print what is shown below it, stderr first, where `...` stands for any text.
    """

    def run(page: Path) -> int:
        monkeypatch.chdir(tmp_path)
        count = 0
        for file, kind, text in _BLOCK.findall(page.read_text()):
            if file:
                path = tmp_path / file
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
            elif kind == "python":
                path = tmp_path / f"example_{len(text)}.py"  # Helion reads the source of kernels
                path.write_text(text)
                runpy.run_path(str(path))
            elif kind == "console":
                for command in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
                    line, _, shown = command.partition("\n")
                    assert _printed(line, capsys, shown), line
                    count += 1
        return count

    yield run
    forget("my_kernels")


def _printed(line: str, capsys: pytest.CaptureFixture[str], shown: str) -> bool:
    words = shlex.split(line)
    assert words[:3] == ["python", "-m", "kernelpkg"]
    with contextlib.suppress(SystemExit):
        cli.main(words[3:])
    out, err = capsys.readouterr()
    pattern = re.escape(_SECONDS.sub("0.0 s)", shown)).replace(re.escape("..."), ".*")
    if re.fullmatch(pattern, _SECONDS.sub("0.0 s)", err + out), re.DOTALL) is None:
        print(f"{line}\n{err}{out}")
        return False
    return True


ROUTED_SCHEMA = (
    "(Tensor(a!) out, Tensor x, Tensor? bias, int group, float eps, bool flag=False) -> ()"
)

ROUTED_MANIFEST = f"""\
edition = 1
[kernel]
name = "scale"
version = 1
summary = "Something with all kinds of arguments."
[op]
schema = "{ROUTED_SCHEMA}"
fake_impl = "none"
[axes]
num_tokens = "x.shape[0]"
groups = "x.shape[1] // group"
group = "group"
dtype = "x.dtype"
has_bias = "bias is not None"
bias_size = "bias.shape[0]"
[guard]
when = ["flag or groups >= 0", "bias_size is None or bias_size > 0"]
[[key]]
axis = ["dtype", "has_bias"]
match = "exact"
[[key]]
axis = ["group", "num_tokens"]
match = "ceil"
[inputs]
default = {{ has_bias = false, bias_size = 4 }}
[[inputs.grid]]
num_tokens = [1]
groups = [2]
group = [2]
dtype = ["float32"]
[args]
out = {{ shape = ["num_tokens"], dtype = "dtype" }}
x = {{ shape = ["num_tokens", "groups * group"], dtype = "dtype" }}
bias = {{ when = "has_bias", shape = ["bias_size"], dtype = "dtype" }}
eps = 1e-6
flag = false
[accuracy]
out = {{ rtol = 1e-6 }}
"""

ROUTED_SIGNATURE = """\
    out: torch.Tensor,
    x: torch.Tensor,
    bias: torch.Tensor | None,
    group: int,
    eps: float,
    flag: bool = False,
"""


@frozen
class RoutedPack:
    """The pack "demo" with the kernel "scale", whose routes a test writes."""

    demo: PackDirectory

    def read(self, text: str, target: str = "_C::scale") -> PackSpec:
        """Add one route to the manifest, and read the pack."""
        path = self.demo.root / "manifests" / "demo.toml"
        path.write_text(f'{path.read_text()}[vllm.routes."{target}"]\nop = "scale"\n{text}\n')
        return read_pack(self.demo.root, "demo")

    def routing(self, text: str) -> Routing:
        """Add one route, and hold it against its kernel."""
        spec = self.read(text)
        return read_routing(spec, spec.routes[0])


@pytest.fixture
def routed_pack(demo: PackDirectory) -> RoutedPack:
    """A kernel with all kinds of arguments, for routes."""
    directory = demo.kernel("scale")
    (directory / "kernel.toml").write_text(ROUTED_MANIFEST)
    for file, head in (("kernel.py", "def scale("), ("host.py", "def reference(")):
        text = f"import torch\n\n\n{head}\n{ROUTED_SIGNATURE}) -> None:\n    pass\n"
        (directory / file).write_text(text)
    return RoutedPack(demo)
