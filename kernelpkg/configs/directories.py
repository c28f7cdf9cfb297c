"""Where config files are looked for: directories of an operator first, then the pack's own."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Final

from attrs import evolve, frozen

from kernelpkg.configs import platforms, store
from kernelpkg.configs.store import StoredFile
from kernelpkg.errors import PackError, Problem, UsageError, parameter, suggestion
from kernelpkg.files import Files, listed_paths
from kernelpkg.manifest.helion_config import tunables_of
from kernelpkg.manifest.spec import KernelSpec, PackSpec

CONFIGS_VARIABLE: Final = "KERNELPKG_CONFIGS"
"""Directories of configs that go before those of packs, separated as in PATH."""

_PLATFORM: Final = re.compile(r"[^.\\][^\\]*(?<=[A-Za-z0-9])[^\\]*")
"""What may name a platform: it has a letter or a digit, and is not a hidden file."""


LockedCounts = Mapping[tuple[str, str], tuple[int, int]]
"""Files that a lock vouches for, by platform and digest: how many cases and distinct configs."""


@frozen(kw_only=True)
class ConfigDirectory:
    """A directory of <kernel>/<platform>.json; `shown` is its name in messages."""

    path: Path
    shown: str
    overlay: bool


@frozen(kw_only=True)
class ConfigPlace:
    """Where something lies in a directory of configs, or in that of a kernel there.

    `kernel` is empty for the former. A file of a kernel may be that of a `platform`. `error` says
    why a directory cannot be listed, and `name` is empty then.
    """

    directory: ConfigDirectory
    kernel: str
    name: str
    path: Path
    shown: str
    error: OSError | None = None

    @property
    def platform(self) -> str:
        return self.name.removesuffix(".json")

    @property
    def overlay(self) -> bool:
        return self.directory.overlay


def with_overlays(
    pack: PackSpec, given: Sequence[str | os.PathLike[str]], environment: Mapping[str, str]
) -> PackSpec:
    """Return a pack whose configs are looked for in overlays first.

    `given` are directories in the order of preference; without any, those of KERNELPKG_CONFIGS.
    The pack's own directory may be among them, and stays the pack's own. Raises PackError for what
    is not a directory.
    """
    if isinstance(given, str | os.PathLike):
        raise UsageError(f"configs are given as a list of directories, not as '{given}'")
    origin = parameter("configs") if given else CONFIGS_VARIABLE
    named = [os.fspath(path) for path in given] or listed_paths(environment, CONFIGS_VARIABLE)
    problems = []
    for name in named:
        if not os.path.isdir(name):
            what = "is not a directory" if os.path.exists(name) else "does not exist"
            message = f"{what}; {origin} takes directories that hold <kernel>/<platform>.json"
            problems.append(Problem(path=name, code="KP510", message=message))
    if problems:
        raise PackError(problems=tuple(problems))
    if not named:
        return pack
    own = _own(pack.root)
    same = [own.path.is_dir() and os.path.samefile(name, own.path) for name in named]
    places = [str(own.path) if is_own else n for n, is_own in zip(named, same, strict=True)]
    return evolve(pack, overlays=tuple(dict.fromkeys(places)))


def search_path(pack: PackSpec) -> tuple[ConfigDirectory, ...]:
    """Return the directories in which the pack's configs are looked for, the first choice first."""
    own = _own(pack.root)
    found = [
        own if name == str(own.path) else ConfigDirectory(path=Path(name), shown=name, overlay=True)
        for name in pack.overlays
    ]
    return tuple(dict.fromkeys((*found, own))) if found else (own,)


@lru_cache(maxsize=8)
def _own(root: str) -> ConfigDirectory:
    return ConfigDirectory(path=Path(root, "configs"), shown="configs", overlay=False)


def platforms_of(pack: PackSpec, kernel: str, files: Files | None = None) -> tuple[str, ...]:
    """Return the platforms that a kernel has config files for, by name.

    Files whose names have no letter or digit, or cannot be printed, are of no platform. `files`
    keeps the names that were read. Raises PackError where a directory cannot be read.
    """
    found: set[str] = set()
    for directory in search_path(pack):
        found |= set(_names(directory, kernel, files or Files()))
    return tuple(sorted(found))


def tuned_platforms(pack: PackSpec) -> tuple[str, ...]:
    """Return the platforms that kernels of a pack have config files for, as far as can be read."""
    found: set[str] = set()
    for kernel in pack.kernels:
        with contextlib.suppress(PackError):
            found |= set(platforms_of(pack, kernel))
    return tuple(sorted(found))


def may_name_platform(name: str) -> bool:
    """Whether a config file of that name is read; any other is of no GPU, and no lock holds it."""
    return _PLATFORM.fullmatch(name) is not None and name.isprintable()


def locate(pack: PackSpec, kernel: str, platform: str) -> ConfigPlace | None:
    """Return the file that a kernel's configs for a platform are taken from, or None.

    It is the first one there is, and the only one that is read: files are not mixed.
    """
    for directory in search_path(pack):
        entry = _file(directory, kernel, platform)
        if os.path.lexists(entry.path):
            return entry
    return None


def place_of(pack: PackSpec, kernel: str, platform: str) -> ConfigPlace:
    """Return the file that `locate` does; where there is none, the place of the pack's own."""
    return locate(pack, kernel, platform) or _file(_own(pack.root), kernel, platform)


def _file(directory: ConfigDirectory, kernel: str, platform: str) -> ConfigPlace:
    name = f"{platform}.json"
    path, shown = directory.path / kernel / name, f"{directory.shown}/{kernel}/{name}"
    return ConfigPlace(directory=directory, kernel=kernel, name=name, path=path, shown=shown)


def read_configs(
    pack: PackSpec,
    spec: KernelSpec,
    platform: str,
    files: Files | None = None,
    *,
    locked: LockedCounts | None = None,
) -> StoredFile:
    """Read the configs of a kernel for a platform; raises PackError with all that is wrong.

    A file that is one of the `locked` ones is not even decoded.
    """
    # Where there is none, it was there a moment ago, or its own message says that it is not.
    place = place_of(pack, spec.name, platform)
    files = files or Files()
    with contextlib.suppress(OSError):  # which is said below
        counts = locked.get((platform, files.digest(place.path))) if locked else None
        if counts is not None:
            text = files.read(place.path).decode()
            return StoredFile(kernel=spec.name, platform=platform, counts=counts, text=text)
    at = (place.path, place.shown, spec.name, platform)
    tunables = partial(tunables_of, spec, files)
    return store.store(*at, spec.key_axes, spec.defaults, tunables, read_bytes=files.read)


def walk(
    pack: PackSpec, directories: Sequence[ConfigDirectory] | None = None
) -> Iterator[ConfigPlace]:
    """Yield what lies where the pack's configs are looked for, by name; hidden files apart.

    Directories of kernels of the pack are entered, and no others.
    """
    for directory in search_path(pack) if directories is None else directories:
        for entry in _listed(directory, "", Files()):
            yield entry
            if entry.error is None and entry.name in pack.kernels and entry.path.is_dir():
                yield from _listed(directory, entry.name, Files())


def _listed(directory: ConfigDirectory, kernel: str, files: Files) -> Iterator[ConfigPlace]:
    """Yield what lies in a directory, or in that of a kernel there."""
    above = directory.path / kernel
    shown = f"{directory.shown}/{kernel}" if kernel else directory.shown
    make = partial(ConfigPlace, directory=directory, kernel=kernel)
    try:
        names = files.names(above)
    except OSError as error:
        yield make(name="", path=above, shown=shown, error=error)
        return
    for name in names:
        if name[0] != ".":
            yield make(name=name, path=above / name, shown=f"{shown}/{name}")


def strangers(pack: PackSpec) -> Iterator[Problem]:
    """Yield a note for all that lies in an overlay and that nothing reads."""
    overlays = [directory for directory in search_path(pack) if directory.overlay]
    for entry in walk(pack, overlays):
        code, message = "KP511", ""
        if entry.error is not None:
            if not entry.kernel:  # of a kernel's directory whoever reads its files says it
                code = "KP510"
                message = f"cannot be listed: {entry.error.strerror}; correct its permissions"
        elif entry.kernel:
            hint = _respelled(entry.name) if entry.name.endswith(".json") else ""
            message = f"is not named after a platform, so nothing reads it{hint}" if hint else ""
        elif entry.path.is_dir():
            if entry.name not in pack.kernels:
                hint = suggestion(entry.name, pack.kernels)
                message = f"is not for a kernel of pack '{pack.name}', so nothing reads it{hint}"
        elif entry.name in pack.kernels:
            message = "is not a directory; put <platform>.json files into one of this name"
        elif entry.name.endswith(".json"):
            place = f"{entry.directory.shown}/<kernel>/"
            message = f"is not in the directory of a kernel; move it to {place}"
        if message:
            yield Problem(path=entry.shown, code=code, message=message)


def _respelled(file: str) -> str:
    """Say what a file should be called, or return nothing where calls look for its name."""
    try:
        spelled = platforms.canonical(file.removesuffix(".json"))
    except ValueError:
        return "; rename it to one such as nvidia_h200.json"
    return "" if f"{spelled}.json" == file else f"; rename it to {spelled}.json"


def unlisted(entry: ConfigPlace) -> tuple[Problem, ...]:
    """Return what is wrong with a directory that cannot be listed: nothing if it is not there."""
    if entry.error is None or isinstance(entry.error, FileNotFoundError | NotADirectoryError):
        return ()
    message = f"directory cannot be read: {entry.error.strerror}; correct its permissions"
    return (Problem(path=entry.shown, code="KP501", message=message),)


def _names(directory: ConfigDirectory, kernel: str, files: Files) -> Iterator[str]:
    for entry in _listed(directory, kernel, files):
        problems = unlisted(entry)
        if problems:
            raise PackError(problems=problems) from entry.error
        if entry.name.endswith(".json") and may_name_platform(entry.platform):
            yield entry.platform
