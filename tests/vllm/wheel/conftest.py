"""The real vLLM wheel, unpacked, trees like it into which tests may write, and vLLM's own tests."""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

VERSION = "0.33.0"
FOLDER = Path("vllm", "kernels", "helion")
TESTS = Path("tests", "kernels", "helion")
BESIDE = (
    "tests/__init__.py",
    "tests/kernels/__init__.py",
    "tests/kernels/quant_utils.py",
    "tools/",
)
ROOT = Path(__file__).parents[3]

SOURCES = "f7/25/aa5684e9c59d6fc75f78926b7f15e8d9adc7de2d9e6e7575b80776ad8169"
"""Where PyPI has the sources of this version, which have the tests too: by their BLAKE2b digest."""


def unpacked_wheel(work: Path) -> Path:
    """Have pip download the wheel from where it is set up to look; unpack what is read of it.

    These are the Python files, and all of the Helion kernels.
    """
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--disable-pip-version-check", "--quiet", "--dest", str(work), f"vllm=={VERSION}"]
    subprocess.run(command, check=True)
    (wheel,) = work.glob("vllm-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if name.startswith("vllm/") and (
                name.endswith(".py") or name.startswith(f"{FOLDER.as_posix()}/")
            ):
                archive.extract(name, work / "unpacked")
    return work / "unpacked"


def unpacked_tests(work: Path) -> Path:
    """Download the sources, and unpack the tests of the Helion kernels with what they import."""
    place = f"https://files.pythonhosted.org/packages/{SOURCES}/vllm-{VERSION}.tar.gz"
    with urllib.request.urlopen(place, timeout=60) as answer:
        data = answer.read()
    assert hashlib.blake2b(data, digest_size=32).hexdigest() == SOURCES.replace("/", "")
    top = f"vllm-{VERSION}"
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for member in archive:
            if member.name.startswith(tuple(f"{top}/{path}" for path in (f"{TESTS}/", *BESIDE))):
                archive.extract(member, work, filter="data")
    return work / top


@contextmanager
def held(lock: Path) -> Iterator[None]:
    """Keep other processes out; the lock of a process that was killed is free."""
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def cached(name: str, make: Callable[[Path], Path]) -> Path:
    """Return a directory of the cache, which is made unless it is there.

    One process makes it, and others wait. The directory gets its name when everything is in it, so
    that half a download is never taken for a whole one.
    """
    cache = Path.home() / ".cache" / "kernelpkg"
    cache.mkdir(parents=True, exist_ok=True)
    found = cache / name
    with held(cache / f"{name}.lock"):
        if not found.is_dir():
            work = cache / f"{name}.part"
            shutil.rmtree(work, ignore_errors=True)  # of a process that was killed
            work.mkdir()
            make(work).rename(found)
            shutil.rmtree(work)
    return found


@pytest.fixture(scope="session")
def vllm_wheel() -> Path:
    """The directory that holds `vllm/`: KERNELPKG_VLLM_DIR, the cache, or a download of 320 MB."""
    given = os.environ.get("KERNELPKG_VLLM_DIR")
    found = Path(given) if given else cached(f"vllm-{VERSION}", unpacked_wheel)
    assert (found / FOLDER).is_dir(), f"{found} holds no unpacked wheel of vLLM"
    return found


@pytest.fixture(scope="session")
def vllm_tests() -> Path:
    """vLLM's tests of its Helion kernels: from a checkout in KERNELPKG_VLLM_DIR, the cache, or a
    download of 47 MB."""
    given = Path(os.environ.get("KERNELPKG_VLLM_DIR") or "", TESTS)
    if os.environ.get("KERNELPKG_VLLM_DIR") and given.is_dir():
        return given
    return cached(f"vllm-{VERSION}-sources", unpacked_tests) / TESTS


def link_tree(wheel: Path, into: Path) -> Path:
    """Make a tree like an unpacked wheel whose Helion kernels may be changed; returns it.

    All else are links. Python imports a module below a link under the name of the link, so that
    everything is imported from the new tree, and nothing from the old one.
    """

    def link(directory: Path) -> None:
        (into / directory).mkdir(parents=True)
        for entry in (wheel / directory).iterdir():
            if entry.name not in ("__pycache__", "kernels", "helion"):
                (into / directory / entry.name).symlink_to(entry.resolve())

    link(FOLDER.parents[1])
    link(FOLDER.parent)
    shutil.copytree(wheel / FOLDER, into / FOLDER, ignore=shutil.ignore_patterns("__pycache__"))
    return into


@pytest.fixture(scope="session")
def plant(vllm_wheel: Path) -> Callable[[Path], Path]:
    """Makes a tree of vLLM's sources whose Helion kernels a test may change."""
    return partial(link_tree, vllm_wheel)


@pytest.fixture
def vllm_tree(plant: Callable[[Path], Path], tmp_path: Path) -> Path:
    """A tree of vLLM's sources that the test may change."""
    return plant(tmp_path / "vllm-tree")


@pytest.fixture(scope="session")
def vendored(
    plant: Callable[[Path], Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[str]]:
    """A tree that holds the pack in place of vLLM's own ops, and what the command line said."""
    tree = plant(tmp_path_factory.mktemp("vendored") / "vllm")
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-m", "kernelpkg", "vendor", "--into", str(tree), "--replace"],
        cwd=tree.parent,
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return tree, done.stdout.splitlines()
