"""A plugin for pytest with which vLLM's own tests of its Helion ops run on a CPU.

test_vllms_tests.py runs them with it. What vLLM imports and these tests never come to is stood in
for; pickers get tensors without data on a GPU that is not there; what needs one is skipped.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, ClassVar

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

MISSING = (
    *("PIL", "aiohttp", "cachetools", "cbor2", "cpuinfo", "fastapi", "huggingface_hub"),
    *("llguidance", "msgspec", "openai", "openai_harmony", "partial_json_parser"),
    *("prometheus_client", "pybase64", "safetensors", "tokenizers", "transformers", "uvloop"),
    "xgrammar",
)
"""Packages that vLLM's layers import, with those of servers and tokenizers behind them."""


class Anything(type):
    """What a package that is not there has by any name: a class, which has the same."""

    def __getattr__(cls, name: str) -> Anything:
        if name.startswith("__"):
            raise AttributeError(name)
        return Anything(name, (Nothing,), {})

    def __or__(cls, other: object) -> Anything:
        return cls

    __ror__ = __getitem__ = __or__


class Nothing(metaclass=Anything):
    """The parent of all that such a package has."""

    def __init__(self, *args: object, **options: object) -> None: ...

    def __init_subclass__(cls, **options: object) -> None: ...

    @classmethod
    def __get_pydantic_core_schema__(cls, *args: object) -> Any:
        return {"type": "any"}


class Absent(ModuleType):
    """A package that is not there, or a part of it."""

    __path__: ClassVar[list[str]] = []
    __version__ = "9999"

    def __getattr__(self, name: str) -> Anything:
        if name.startswith("__"):
            raise AttributeError(name)
        return Anything(name, (Nothing,), {})


class Finder(MetaPathFinder, Loader):
    """Finds the missing packages, after all that looks for real ones."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        missing = name.partition(".")[0] in MISSING
        return ModuleSpec(name, self, is_package=True) if missing else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return Absent(spec.name)

    def exec_module(self, module: ModuleType) -> None: ...


sys.meta_path.append(Finder())

from vllm import platforms  # noqa: E402
from vllm.kernels.helion import utils  # noqa: E402

# vLLM asks the GPU for its name when an op is imported, and a CPU has none.
utils.get_canonical_gpu_name = lambda device_id=None: "nvidia_h200"
platforms.current_platform.device_type = "cuda"


@pytest.fixture(autouse=True)
def _tensors_without_data(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Let tests of pickers make tensors on a GPU; of these, shapes and dtypes are asked for."""
    if "Picker" not in request.node.nodeid:
        yield
        return
    monkeypatch.setattr(torch.nn.Module, "to", lambda self, *args, **options: self)
    with FakeTensorMode():
        yield


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call() -> Iterator[None]:
    """Skip what asks for a GPU, as vLLM's tests of results do themselves."""
    try:
        return (yield)
    except (AssertionError, RuntimeError) as error:
        if "Torch not compiled with CUDA" in str(error) or "NVIDIA driver" in str(error):
            pytest.skip("needs a GPU")
        raise
