"""Where config files are looked for: directories of an operator first, then the pack's own."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from attrs import evolve, frozen

from kernelpkg import configs
from kernelpkg.configs import StoredFile
from kernelpkg.errors import PackError, Problem, suggestion
from kernelpkg.files import Files
from kernelpkg.spec import KernelSpec, PackSpec

CONFIGS_VARIABLE: Final = "KERNELPKG_CONFIGS"
"""Directories of configs that go before those of packs, separated as in PATH."""


@frozen(kw_only=True)
class ConfigDirectory:
    """A directory of <kernel>/<platform>.json; `shown` is its name in messages."""

    path: Path
    shown: str
    overlay: bool


@frozen(kw_only=True)
class ConfigPlace:
    """A config file that is there, and whether it stands in an overlay."""

    path: Path
    shown: str
    overlay: bool


def with_overlays(
    pack: PackSpec, given: Sequence[str | os.PathLike[str]], environment: Mapping[str, str]
) -> PackSpec:
    """Return a pack whose configs are looked for in overlays first.

    `given` are directories in the order of preference; without any, those of KERNELPKG_CONFIGS.
    Raises PackError for what is no directory.
    """
    origin = "--configs" if given else CONFIGS_VARIABLE
    named = [os.fspath(path) for path in given] or [
        part for part in environment.get(CONFIGS_VARIABLE, "").split(os.pathsep) if part
    ]
    problems = [
        Problem(
            path=name,
            code="KP510",
            message=f"of {origin} {'is no directory' if os.path.exists(name) else 'does not exist'}"
            "; name one that holds <kernel>/<platform>.json",
        )
        for name in named
        if not os.path.isdir(name)
    ]
    if problems:
        raise PackError(problems=tuple(problems))
    return evolve(pack, overlays=tuple(dict.fromkeys(named))) if named else pack


def search_path(pack: PackSpec) -> tuple[ConfigDirectory, ...]:
    """Return the directories in which the pack's configs are looked for, the first choice first."""
    return (
        *(ConfigDirectory(path=Path(name), shown=name, overlay=True) for name in pack.overlays),
        ConfigDirectory(path=Path(pack.root, "configs"), shown="configs", overlay=False),
    )


def platforms_of(pack: PackSpec, kernel: str) -> tuple[str, ...]:
    """Return the platforms that a kernel has config files for, by name.

    Raises PackError where a directory cannot be read.
    """
    found: set[str] = set()
    for directory in search_path(pack):
        found |= set(_names(directory, kernel))
    return tuple(sorted(found))


def locate(pack: PackSpec, kernel: str, platform: str) -> ConfigPlace | None:
    """Return the file that a kernel's configs for a platform are taken from, or None.

    It is the first one there is, and the only one that is read: files are not mixed.
    """
    for directory in search_path(pack):
        path = directory.path / kernel / f"{platform}.json"
        if os.path.lexists(path):
            return ConfigPlace(
                path=path,
                shown=f"{directory.shown}/{kernel}/{platform}.json",
                overlay=directory.overlay,
            )
    return None


def read_configs(
    pack: PackSpec, spec: KernelSpec, platform: str, files: Files | None = None
) -> StoredFile:
    """Read the configs of a kernel for a platform; raises PackError with all that is wrong."""
    place = locate(pack, spec.name, platform)
    if place is None:  # it was there a moment ago, or its own message says that it is not
        path = Path(pack.root, "configs", spec.name, f"{platform}.json")
        place = ConfigPlace(path=path, shown=f"configs/{spec.name}/{platform}.json", overlay=False)
    return configs.store(
        place.path,
        place.shown,
        spec.name,
        platform,
        spec.key_axes,
        spec.defaults,
        read_bytes=(files or Files()).read,
    )


def strangers(pack: PackSpec) -> Iterator[Problem]:
    """Yield a note for each directory of an overlay that is of no kernel of the pack."""
    for directory in search_path(pack):
        if not directory.overlay:
            continue
        for name in sorted(os.listdir(directory.path)):
            inside = directory.path / name
            if name not in pack.kernels and name[0] != "." and inside.is_dir():
                message = f"is of no kernel of pack '{pack.name}', so nothing reads it"
                yield Problem(
                    path=f"{directory.shown}/{name}",
                    code="KP511",
                    message=f"{message}{suggestion(name, pack.kernels)}",
                )


def _names(directory: ConfigDirectory, kernel: str) -> Iterator[str]:
    try:
        names = os.listdir(directory.path / kernel)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        message = f"directory cannot be read: {error.strerror}; correct its permissions"
        path = f"{directory.shown}/{kernel}"
        raise PackError(problems=(Problem(path=path, code="KP501", message=message),)) from None
    yield from (
        name.removesuffix(".json") for name in names if name.endswith(".json") and name[0] != "."
    )
