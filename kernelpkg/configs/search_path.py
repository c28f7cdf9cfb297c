"""Where config files are looked for: directories of an operator first, then the pack's own."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from attrs import evolve, frozen

from kernelpkg.configs import platforms, store
from kernelpkg.configs.store import StoredFile
from kernelpkg.errors import PackError, Problem, UsageError, suggestion
from kernelpkg.files import Files
from kernelpkg.manifest.spec import KernelSpec, PackSpec

CONFIGS_VARIABLE: Final = "KERNELPKG_CONFIGS"
"""Directories of configs that go before those of packs, separated as in PATH."""

_PLATFORM: Final = re.compile(r"[^.\\][^\\]*(?<=[A-Za-z0-9])[^\\]*")
"""What may name a platform: it has a letter or a digit, and is no hidden file."""


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
    The pack's own directory may be among them, and stays the pack's own. Raises PackError for what
    is no directory.
    """
    if isinstance(given, str | os.PathLike):
        raise UsageError(f"configs are given as a list of directories, not as '{given}'")
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
    if not named:
        return pack
    own = _own(pack)
    same = [own.path.is_dir() and os.path.samefile(name, own.path) for name in named]
    places = [str(own.path) if is_own else n for n, is_own in zip(named, same, strict=True)]
    return evolve(pack, overlays=tuple(dict.fromkeys(places)))


def search_path(pack: PackSpec) -> tuple[ConfigDirectory, ...]:
    """Return the directories in which the pack's configs are looked for, the first choice first."""
    own = _own(pack)
    found = [
        own if name == str(own.path) else ConfigDirectory(path=Path(name), shown=name, overlay=True)
        for name in pack.overlays
    ]
    return tuple(dict.fromkeys((*found, own))) if found else (own,)


def _own(pack: PackSpec) -> ConfigDirectory:
    return ConfigDirectory(path=Path(pack.root, "configs"), shown="configs", overlay=False)


def platforms_of(pack: PackSpec, kernel: str) -> tuple[str, ...]:
    """Return the platforms that a kernel has config files for, by name.

    Files whose names have no letter or digit, or cannot be printed, are of no platform. Raises
    PackError where a directory cannot be read.
    """
    found: set[str] = set()
    for directory in search_path(pack):
        found |= set(_names(directory, kernel))
    return tuple(sorted(found))


def may_name_platform(name: str) -> bool:
    """Whether a config file of that name is read; any other is of no GPU, and no lock holds it."""
    return _PLATFORM.fullmatch(name) is not None and name.isprintable()


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
    return store.store(
        place.path,
        place.shown,
        spec.name,
        platform,
        spec.key_axes,
        spec.defaults,
        read_bytes=(files or Files()).read,
    )


def strangers(pack: PackSpec) -> Iterator[Problem]:
    """Yield a note for all that lies in an overlay and that nothing reads."""
    for directory in search_path(pack):
        if not directory.overlay:
            continue
        try:
            names = sorted(os.listdir(directory.path))
        except OSError as error:
            message = f"cannot be listed: {error.strerror}; correct its permissions"
            yield Problem(path=directory.shown, code="KP510", message=message)
            continue
        for name in names:
            yield from _unread(pack, directory, name) if name[0] != "." else ()


def _unread(pack: PackSpec, directory: ConfigDirectory, name: str) -> Iterator[Problem]:
    """Yield what nothing reads of one entry of an overlay."""
    place, shown = directory.path / name, f"{directory.shown}/{name}"
    found: list[tuple[str, str]] = []
    if name in pack.kernels and place.is_dir():
        with contextlib.suppress(OSError):  # which whoever reads its files says
            found = [
                (f"{shown}/{file}", f"is of no platform, so nothing reads it{_respelled(file)}")
                for file in sorted(os.listdir(place))
                if file.endswith(".json") and file[0] != "." and _respelled(file)
            ]
    elif name in pack.kernels:
        found = [(shown, "is no directory; <platform>.json belong into one of this name")]
    elif place.is_dir():
        hint = suggestion(name, pack.kernels)
        found = [(shown, f"is of no kernel of pack '{pack.name}', so nothing reads it{hint}")]
    elif name.endswith(".json"):
        found = [(shown, f"is in no directory of a kernel; move it to {directory.shown}/<kernel>/")]
    for path, message in found:
        yield Problem(path=path, code="KP511", message=message)


def _respelled(file: str) -> str:
    """Say what a file should be called, or return nothing where calls look for its name."""
    try:
        spelled = platforms.canonical(file.removesuffix(".json"))
    except ValueError:
        return "; rename it to one such as nvidia_h200.json"
    return "" if f"{spelled}.json" == file else f"; rename it to {spelled}.json"


def _names(directory: ConfigDirectory, kernel: str) -> Iterator[str]:
    try:
        names = os.listdir(directory.path / kernel)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        message = f"directory cannot be read: {error.strerror}; correct its permissions"
        path = f"{directory.shown}/{kernel}"
        raise PackError(problems=(Problem(path=path, code="KP501", message=message),)) from None
    found = (name.removesuffix(".json") for name in names if name.endswith(".json"))
    yield from filter(may_name_platform, found)
