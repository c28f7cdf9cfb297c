"""Where packs are: roots given, named by the environment, installed, and our own. Imports none.

Before: the command line, or `kernelpkg.load`. After: `packs/read`.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from attrs import frozen

from kernelpkg.configs.directories import with_overlays
from kernelpkg.errors import PackError, UsageError, pack_error, parameter, suggestion
from kernelpkg.files import listed_paths
from kernelpkg.manifest.spec import KernelName, PackSpec
from kernelpkg.packs.read import read_pack

if TYPE_CHECKING:
    from importlib.metadata import Distribution, EntryPoint

GROUP: Final = "kernelpkg.packs"
"""The entry-point group by which an installed package says that it holds packs."""

PATH_VARIABLE: Final = "KERNELPKG_PATH"
"""Directories that hold packs, separated as in PATH."""

HERE: Final = "the current directory"
"""The origin of a pack in or above the directory that a command is run in."""

DISABLE_VARIABLE: Final = "KERNELPKG_DISABLE"
"""Ops that are not to be registered, by name, with or without namespace, separated by commas."""


@frozen(kw_only=True)
class Root:
    """A directory with manifests/, kernels/ and configs/, and how it was found.

    `installed` says that a package which is installed brought it, and nobody works on it.
    """

    path: Path
    origin: str
    installed: bool = False

    @property
    def of_package(self) -> bool:
        """Whether its files are those of an installed package, which are not to be changed."""
        return self.installed or bool({"site-packages", "dist-packages"} & {*self.path.parts})

    def packs(self) -> tuple[str, ...]:
        """The names of its packs, in alphabetical order; raises PackError where it is unreadable.

        They are its manifests/<pack>.toml; files that begin with a dot are none.
        """
        try:
            names = os.listdir(self.path / "manifests")
        except (FileNotFoundError, NotADirectoryError):
            return ()
        except OSError as error:
            path = str(self.path / "manifests")
            message = f"directory cannot be read: {error.strerror}"
            raise pack_error(path, "KP604", message) from None
        return tuple(
            sorted(n.removesuffix(".toml") for n in names if n.endswith(".toml") and n[0] != ".")
        )


def disabled_ops(environment: Mapping[str, str]) -> list[str]:
    """Return the ops that are not to be registered, as KERNELPKG_DISABLE spells them."""
    words = environment.get(DISABLE_VARIABLE, "").split(",")
    return [word.strip() for word in words if word.strip()]


def own_root() -> Path:
    """The root of the first pack: inside the installed package, or the source tree around it."""
    package = Path(__file__).absolute().parents[1]
    installed = package / "_data"
    return installed if installed.is_dir() else package.parent


def roots(
    given: Path | None, environment: Mapping[str, str], here: Path | None = None
) -> Iterator[Root | PackError]:
    """Yield the roots to look into, in order of precedence; a given root is the only one.

    Where none is named, the nearest one that `here` lies in goes before those that are installed.
    What is named and is not a root is yielded as the error that says so.
    """
    if given is not None:
        yield _root(given, parameter("root"))
        return
    yield from _named(environment, here)
    yield from _installed()
    yield Root(path=own_root(), origin="kernelpkg")


def find_pack(
    name: str | None,
    given: Path | None,
    environment: Mapping[str, str],
    here: Path | None = None,
) -> tuple[Root, str]:
    """Return the root and the name of the pack to load.

    Without a name it is the only pack of the given root, of the first root of KERNELPKG_PATH, of
    the nearest one that `here` lies in, or our own; installed packs are asked for by name. Raises
    PackError where a root does not exist or has no packs, and UsageError where the name is not
    known, or which pack is not clear. An installed package that is broken stands in the way of no
    pack that is found elsewhere.
    """
    if name is None:
        return _only_pack(given, environment, here)
    known: list[str] = []
    errors: list[PackError] = []
    found: dict[Path, Root] = {}
    for root in roots(given, environment, here):
        if isinstance(root, PackError):
            errors.append(root)
            if given is not None or not root.problems[0].path.startswith(f"{GROUP}:"):
                raise root
            continue
        if name in root.packs():
            found.setdefault(root.path, root)
            if given is not None or root.origin in (PATH_VARIABLE, HERE):
                break
        known += root.packs()
    if len(found) > 1:
        places = " and ".join(f"{root.path} ({root.origin})" for root in found.values())
        remedy = f"uninstall one, or name one with {parameter('root')}"
        raise UsageError(f"pack '{name}' is in {places}; {remedy}")
    if found:
        return next(iter(found.values())), name
    if errors:
        raise PackError(problems=tuple(p for error in errors for p in error.problems))
    remedy = suggestion(name, known) or f"; known are {', '.join(dict.fromkeys(known)) or 'none'}"
    raise UsageError(f"pack '{name}' is not there{remedy}")


def _only_pack(
    given: Path | None, environment: Mapping[str, str], here: Path | None
) -> tuple[Root, str]:
    named = roots(given, environment) if given is not None else _named(environment, here)
    root = next(iter(named), Root(path=own_root(), origin="kernelpkg"))
    if isinstance(root, PackError):
        raise root
    packs = root.packs()
    if not packs:
        message = "has no packs; a pack is a file manifests/<pack>.toml, which "
        message += f"'kernelpkg new NAME --root {root.path}' writes with a first kernel"
        raise pack_error(str(root.path), "KP606", message)
    if len(packs) > 1:
        remedy = f"choose one with {parameter('pack')}"
        raise UsageError(f"{root.path} has packs {', '.join(packs)}; {remedy}")
    return root, packs[0]


def root_to_write(given: Path | None, here: Path | None) -> Path:
    """Return the root that a command writes into, as seen from `here`.

    It is the one that is given, the nearest with packs that `here` lies in, or `here` itself.
    """
    around = None if given is not None or here is None else _around(here)
    return given or Path() if around is None else Path(os.path.relpath(around.path, here))


def _named(environment: Mapping[str, str], here: Path | None) -> Iterator[Root | PackError]:
    """Yield the roots of KERNELPKG_PATH, or the nearest one that `here` lies in."""
    parts = listed_paths(environment, PATH_VARIABLE)
    yield from (_root(Path(part), PATH_VARIABLE) for part in parts)
    around = _around(here) if here is not None and not parts else None
    if around is not None and around.path != own_root():
        yield around


def _around(here: Path) -> Root | None:
    """Return the nearest root that a directory lies in; it is not sought beyond a repository."""
    for path in (here, *here.parents):
        root = Root(path=path, origin=HERE)
        with contextlib.suppress(PackError):  # of a directory that others keep closed
            if root.packs():
                return root
        if (path / ".git").exists():
            return None
    return None


def _installed() -> Iterator[Root | PackError]:
    # 30 ms, which a root that is given does without.
    from importlib.metadata import distribution, distributions

    names = {package.name for package in distributions() if _has_packs(package)}
    found: list[tuple[tuple[str, str], Root | PackError]] = []
    for name in filter(None, names):
        package = distribution(name)  # of several of a name, the one that Python takes
        try:
            entries = package.entry_points.select(group=GROUP)
        except (TypeError, ValueError):  # a line that is none, also of another group
            message = f"entry points of package '{name}' cannot be read; reinstall it"
            found.append(((name, ""), pack_error(f"{GROUP}:{name}", "KP604", message)))
        else:
            found += [((entry.name, entry.value), _entered(package, entry)) for entry in entries]
    yield from (root for _, root in sorted(found, key=itemgetter(0)))


def _has_packs(package: Distribution) -> bool:
    """Whether an installed package says that it holds packs; nothing else of it is read."""
    try:
        return GROUP in (package.read_text("entry_points.txt") or "")
    except (OSError, ValueError):
        return False


def _entered(package: Distribution, entry: EntryPoint) -> Root | PackError:
    """Return the root that an entry point of a package names."""
    module = re.split(r"[:\[]", entry.value)[0].strip()
    if not all(map(str.isidentifier, module.split("."))):
        what = f"'{entry.value}' is not the name of a module"
    elif (place := _located(package, module)) is None:
        what = f"module '{module}' is not there"
    elif not isinstance(place, Path):
        what = f"module '{module}' is in an archive, {place}, and has to be in a directory"
    else:
        return Root(path=place, origin=f"entry point '{entry.name}'", installed=True)
    return pack_error(f"{GROUP}:{entry.name}", "KP604", f"{what}; reinstall its package")


def _root(path: Path, origin: str) -> Root | PackError:
    try:
        if stat.S_ISDIR(path.stat().st_mode):
            return Root(path=path.absolute(), origin=origin)
        what = "is not a directory"
    except (FileNotFoundError, NotADirectoryError):
        what = "does not exist"
    except OSError as error:
        what = f"cannot be read: {error.strerror}"
    message = f"{what}; {origin} takes a directory that holds manifests/"
    return pack_error(str(path), "KP604", message)


def _located(package: Distribution, module: str) -> Any:
    """Return the directory of a module, or of its file, without running any of its code.

    It is the package's own, whatever else has its name: without an `__init__.py`, Python takes a
    directory of the current one. Sources that are installed as a link are where Python finds them.
    """
    top, *rest = module.split(".")
    for start in (package.locate_file(top), *_importable(top)):
        place: Any = start.joinpath(*rest)
        if place.is_dir():
            return place
        if place.parent.joinpath(f"{place.name}.py").is_file():
            return place.parent
    return None


def _importable(top: str) -> Iterator[Path]:
    """Yield where Python finds a module that is in no other, without the suffix of its file."""
    with contextlib.suppress(ImportError, ValueError):
        spec = importlib.util.find_spec(top)
        if spec is not None:
            files = [] if spec.origin is None else [Path(spec.origin).with_suffix("")]
            yield from map(Path, spec.submodule_search_locations or files)


def open_pack(
    name: str | None,
    root: Path | None,
    overlays: Sequence[str | os.PathLike[str]],
    environment: Mapping[str, str],
    here: Path | None = None,
) -> PackSpec:
    """Find a pack and read its manifest; `overlays` go before its own configs.

    Raises UsageError for a pack that is not there, and PackError for what is wrong with it.
    """
    place, found = find_pack(name, root, environment, here)
    return with_overlays(read_pack(place.path, found), overlays, environment)


def chosen_kernels(pack: PackSpec, ops: Sequence[str]) -> tuple[KernelName, ...]:
    """Return the kernels of ops, given with or without namespace; without any, all.

    Raises UsageError for an op that the pack does not have.
    """
    for op in ops:
        namespace, _, kernel = op.rpartition("::")
        if kernel not in pack.kernels or namespace not in ("", pack.namespace):
            names = [f"{pack.namespace}::{k}" for k in pack.kernels] if namespace else pack.kernels
            hint = suggestion(op, names) or f"; it has {', '.join(names)}"
            raise UsageError(f"pack '{pack.name}' has no op '{op}'{hint}")
    named = {op.rpartition("::")[2] for op in ops}
    return tuple(kernel for kernel in pack.kernels if not named or kernel in named)
