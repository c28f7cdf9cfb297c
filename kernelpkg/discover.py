"""Where packs are: roots given, named by the environment, installed, and our own. Imports none."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from attrs import frozen

from kernelpkg.errors import PackError, Problem, UsageError, suggestion

GROUP: Final = "kernelpkg.packs"
"""The entry-point group by which an installed package says that it holds packs."""

PATH_VARIABLE: Final = "KERNELPKG_PATH"
"""Directories that hold packs, separated as in PATH."""


@frozen(kw_only=True)
class Root:
    """A directory with manifests/, kernels/ and configs/, and how it was found."""

    path: Path
    origin: str

    def packs(self) -> tuple[str, ...]:
        """The names of its packs, in alphabetical order."""
        return tuple(sorted(path.stem for path in self.path.glob("manifests/*.toml")))


def own_root() -> Path:
    """The root of the first pack: inside the installed package, or the source tree around it."""
    package = Path(__file__).parent
    installed = package / "pack"
    return installed if installed.is_dir() else package.parent


def roots(given: Path | None, environment: Mapping[str, str]) -> Iterator[Root]:
    """Yield the roots to look into, in order of precedence; a given root is the only one.

    Raises PackError where a named root is no directory.
    """
    if given is not None:
        yield _root(given, "--root")
        return
    for part in environment.get(PATH_VARIABLE, "").split(os.pathsep):
        if part:
            yield _root(Path(part), PATH_VARIABLE)
    for entry in sorted(importlib.metadata.entry_points(group=GROUP), key=lambda e: e.name):
        place = _located(entry.value)
        if place is None:
            raise _missing(entry.value, f"entry point '{entry.name}'", "a module that is installed")
        yield Root(path=place, origin=f"entry point '{entry.name}'")
    yield Root(path=own_root(), origin="kernelpkg")


def find_pack(
    name: str | None, given: Path | None, environment: Mapping[str, str]
) -> tuple[Root, str]:
    """Return the root and the name of the pack to load.

    Without a name it is the only pack of the given root, of the first root of KERNELPKG_PATH, or
    our own; installed packs are asked for by name. Raises PackError where a root does not exist
    or has no packs, and UsageError where the name is not known, or which pack is not clear.
    """
    if name is not None:
        known: list[str] = []
        for root in roots(given, environment):
            if name in root.packs():
                return root, name
            known += root.packs()
        raise UsageError(
            f"pack '{name}' is not there{suggestion(name, known)}"
            f"{'; known are ' + ', '.join(known) if known else ''}"
        )
    root = next(r for r in roots(given, environment) if not r.origin.startswith("entry point"))
    packs = root.packs()
    if not packs:
        message = "has no packs; a pack is a file manifests/<pack>.toml"
        raise PackError(problems=(Problem(path=str(root.path), code="KP606", message=message),))
    if len(packs) > 1:
        raise UsageError(f"{root.path} has packs {', '.join(packs)}; choose one with --pack")
    return root, packs[0]


def _root(path: Path, origin: str) -> Root:
    if not path.is_dir():
        raise _missing(str(path), origin, "a directory")
    return Root(path=path.absolute(), origin=origin)


def _missing(path: str, origin: str, wanted: str) -> PackError:
    message = f"root of {origin} is not {wanted}"
    return PackError(problems=(Problem(path=path, code="KP604", message=message),))


def _located(module: str) -> Path | None:
    """Return the directory of a module without running any of its code."""
    top, *rest = module.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    locations: Sequence[str] = (spec.submodule_search_locations or ()) if spec else ()
    if spec is not None and not locations and spec.origin is not None and not rest:
        return Path(spec.origin).parent
    for location in locations:
        place = Path(location, *rest)
        if place.is_dir():
            return place
    return None
