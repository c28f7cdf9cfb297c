"""The real vLLM wheel, unpacked, for tests against what vLLM ships."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import pytest

VERSION = "0.33.0"


def unpack(wheel: Path, into: Path) -> None:
    """Unpack the Python files of a vLLM wheel, and all of its Helion kernels."""
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if name.startswith("vllm/") and (
                name.endswith(".py") or name.startswith("vllm/kernels/helion/")
            ):
                archive.extract(name, into)


def download(into: Path) -> Path:
    """Return the wheel, downloaded by pip from where pip is set up to look."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--disable-pip-version-check", "--quiet", "--dest", str(into), f"vllm=={VERSION}"]
    subprocess.run(command, check=True)
    (wheel,) = into.glob("vllm-*.whl")
    return wheel


@pytest.fixture(scope="session")
def vllm_wheel() -> Path:
    """The directory that holds `vllm/`: KERNELPKG_VLLM_DIR, the cache, or a fresh download."""
    given = os.environ.get("KERNELPKG_VLLM_DIR")
    if given:
        return Path(given)
    cached = Path.home() / ".cache" / "kernelpkg" / f"vllm-{VERSION}"
    if not cached.is_dir():
        cached.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cached.parent) as work:
            unpacked = Path(work, "unpacked")
            unpack(download(Path(work)), unpacked)
            try:
                unpacked.rename(cached)
            except OSError:  # another process was faster; its copy is the same
                shutil.rmtree(unpacked)
    assert (cached / "vllm" / "kernels" / "helion").is_dir()
    return cached
