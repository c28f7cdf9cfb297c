"""The pages on platforms and on environment variables have all of them, as the source does."""

from __future__ import annotations

import re
from pathlib import Path

from kernelpkg.cli.doctor import _OF_TESTS, _VARIABLES
from kernelpkg.compile.build import _CHANGING
from kernelpkg.configs.platforms import known, resolve

ROOT = Path(__file__).parents[1]
REFERENCE = ROOT / "docs" / "reference"


def test_the_page_has_every_platform():
    """With its family, its architecture and its shared memory, in the order of borrowing."""
    text = (REFERENCE / "platforms.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\w+) \| `(\w+)` \| (\d+) KiB \| (.+) \|$", text, re.MULTILINE)
    told = {
        name: (family, arch, int(kib) * 1024)
        for family, arch, kib, names in rows
        for name in re.findall(r"`(\w+)`", names)
    }
    platforms = [resolve(name) for name in known()]
    found = {gpu.name: (gpu.family, gpu.arch, gpu.shared_memory) for gpu in platforms}
    assert list(told.items()) == list(found.items())


def test_the_page_has_every_variable():
    """Those that `doctor` knows, those that the package and its tests name, and no others."""
    text = (REFERENCE / "environment.md").read_text(encoding="utf-8")
    told = re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)
    assert len(told) == len(set(told))
    assert {*_VARIABLES, *_OF_TESTS} <= set(told)
    named = {
        name
        for room in ("kernelpkg", "benchmarks", "tests/vllm", "tests/gpu")
        for path in (ROOT / room).rglob("*.py")
        for name in re.findall(r'"(KERNELPKG_[A-Z_]+)"', path.read_text(encoding="utf-8"))
    }
    ours = {name for name in told if name.startswith("KERNELPKG_")}
    assert named - ours == {"KERNELPKG_OPS"}  # which vLLM gets, and nobody sets
    assert all(f"`{name}`" in text for name in _CHANGING)
