"""The versions of tools."""

from __future__ import annotations

from importlib import metadata

import pytest

from kernelpkg import __version__
from kernelpkg.packs import toolchain


@pytest.fixture
def versions(monkeypatch):
    """What is installed, as a test says."""
    found = {"torch": "2.13.0+cpu", "helion": "1.5.1", "triton": "3.9.0"}

    def version(name):
        if name not in found:
            raise metadata.PackageNotFoundError(name)
        return found[name]

    monkeypatch.setattr(toolchain.importlib.metadata, "version", version)
    monkeypatch.setattr(toolchain.platform, "python_version_tuple", lambda: ("3", "12", "7"))
    return found


def test_builds_and_patch_releases_of_python_are_left_out(versions):
    assert toolchain.toolchain() == {
        "kernelpkg": __version__,
        "python": "3.12",
        "torch": "2.13.0",
        "helion": "1.5.1",
        "triton": "3.9.0",
    }


def test_what_is_not_installed_has_no_version(versions):
    del versions["helion"], versions["torch"]
    assert set(toolchain.toolchain()) == {"kernelpkg", "python", "triton"}
