"""The real vLLM wheel, unpacked, and trees like it into which tests may write."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

VERSION = "0.33.0"
FOLDER = Path("vllm", "kernels", "helion")
ROOT = Path(__file__).parents[3]


def unpack(wheel: Path, into: Path) -> None:
    """Unpack the Python files of a vLLM wheel, and all of its Helion kernels."""
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if name.startswith("vllm/") and (
                name.endswith(".py") or name.startswith(f"{FOLDER.as_posix()}/")
            ):
                archive.extract(name, into)


def download(into: Path) -> Path:
    """Return the wheel, downloaded by pip from where pip is set up to look."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--disable-pip-version-check", "--quiet", "--dest", str(into), f"vllm=={VERSION}"]
    subprocess.run(command, check=True)
    (wheel,) = into.glob("vllm-*.whl")
    return wheel


@contextmanager
def held(lock: Path) -> Iterator[None]:
    """Keep other processes out; the lock of a process that was killed is free."""
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def cached(directory: Path) -> Path:
    """Return the unpacked wheel in a directory, where it is put unless it is there."""
    found = directory / f"vllm-{VERSION}"
    directory.mkdir(parents=True, exist_ok=True)
    with held(directory / f"{found.name}.lock"):
        if not found.is_dir():
            work = directory / f"{found.name}.part"
            shutil.rmtree(work, ignore_errors=True)  # of a process that was killed
            unpack(download(work), work / "unpacked")
            (work / "unpacked").rename(found)
            shutil.rmtree(work)
    return found


@pytest.fixture(scope="session")
def vllm_wheel() -> Path:
    """The directory that holds `vllm/`: KERNELPKG_VLLM_DIR, the cache, or a fresh download.

    One process downloads the 320 MB, and others wait for it. The directory gets its name when
    everything is in it, so that half a download is never taken for a whole one.
    """
    given = os.environ.get("KERNELPKG_VLLM_DIR")
    found = Path(given) if given else cached(Path.home() / ".cache" / "kernelpkg")
    assert (found / FOLDER).is_dir(), f"{found} holds no unpacked wheel of vLLM"
    return found


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
