"""A tree of vLLM's sources, read without importing it: its release, its ops, its config files."""

from __future__ import annotations

import ast
import contextlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Final

from attrs import frozen
from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version

from kernelpkg.errors import PackError, Problem, UsageError, pack_error

HELION: Final = PurePosixPath("vllm/kernels/helion")
"""Where vLLM keeps its Helion kernels, below the directory that holds `vllm/`."""

OPS: Final = HELION / "ops"
CONFIGS: Final = HELION / "configs"

_REGISTER: Final = f"{HELION}/register.py"
_UTILS: Final = f"{HELION}/utils.py"
_WANTED: Final[Mapping[str, Mapping[str, tuple[str, ...]]]] = {
    _REGISTER: {
        "register_kernel": (
            "op_name",
            "config_picker",
            "fake_impl",
            "mutates_args",
            "helion_settings",
            "input_generator",
        )
    },
    f"{HELION}/case_key.py": {"CaseKey": ("default", "is_default")},
    f"{HELION}/config_manager.py": {"ConfigManager": ("get_platform_configs",)},
    _UTILS: {"canonicalize_gpu_name": ("name",)},
    "vllm/utils/import_utils.py": {"has_helion": ()},
}
"""What vendored files rely on: functions with their parameters, and classes with their methods."""


@frozen(kw_only=True)
class VllmTree:
    """A directory that holds `vllm/`, with its version and the GPU names it maps to others."""

    path: Path
    version: str | None
    aliases: Mapping[str, str]

    def spelled(self, platform: str) -> str:
        """Return the name under which vLLM looks for the configs of a platform."""
        plain = re.sub(r"[\s/-]+", "_", platform.lower())
        return self.aliases.get(plain, plain)


def read_tree(path: Path, requires: str) -> VllmTree:
    """Read the tree in a directory; raises PackError with all that keeps ops from going into it.

    `requires` are the releases of vLLM that the pack is for. Where the tree does not tell its own,
    its version is None.
    """
    shown = str(path)
    if not path.is_dir():
        what = "is not a directory" if os.path.lexists(path) else "does not exist"
        raise pack_error(shown, "KP801", f"{what}; name a source tree of vLLM or an unpacked wheel")
    lacking = [file for file in _WANTED if not (path / file).is_file()]
    lacking += [f"{OPS}/"] if not (path / OPS).is_dir() else []
    if _REGISTER in lacking:
        what = f"is not a tree of vLLM: {_REGISTER} is not there"
        raise pack_error(shown, "KP801", f"{what}{_meant(path)}")
    problems = [_problem(shown, "KP802", f"{file} is not there{_OTHER}") for file in lacking]
    trees: dict[str, ast.Module] = {}
    for file in _WANTED:
        if file not in lacking:
            try:
                trees[file] = ast.parse((path / file).read_bytes())
            except OSError as error:
                message = f"cannot be read: {error.strerror}; correct its permissions"
                problems.append(_problem(str(path / file), "KP803", message))
            except (SyntaxError, ValueError, RecursionError, MemoryError):
                problems.append(_problem(shown, "KP802", f"{file} does not parse{_OTHER}"))
    for file, tree in trees.items():
        problems += [_problem(shown, "KP802", text) for text in _differences(file, tree)]
    aliases = _aliases(trees.get(_UTILS))
    if aliases is None and _UTILS in trees:
        text = f"{_UTILS} has no table _GPU_NAME_ALIASES of names{_OTHER}"
        problems.append(_problem(shown, "KP802", text))
    version = _version(path)
    if version is not None and not _fits(version, requires):
        message = f"holds vLLM {version}, and the pack is for {requires}; see [vllm] requires"
        problems.append(_problem(shown, "KP804", message))
    if problems:
        raise PackError(problems=tuple(problems))
    return VllmTree(path=path, version=version, aliases=aliases or {})


_OTHER: Final = "; this version of kernelpkg writes for vLLM 0.33"


def _problem(path: str, code: str, message: str) -> Problem:
    return Problem(path=path, code=code, message=message)


def _meant(path: Path) -> str:
    """Say which directory was meant, where one around or below the given one is a tree."""
    for other in (*path.absolute().parents[:4], path / "src"):
        if (other / _REGISTER).is_file():
            return f"; did you mean {other}?"
    return "; name the directory that holds vllm/"


def _differences(file: str, tree: ast.Module) -> Iterator[str]:
    """Say what a file does not have of what vendored files rely on."""
    for name, wanted in _WANTED[file].items():
        found = next((node for node in tree.body if getattr(node, "name", None) == name), None)
        if isinstance(found, ast.ClassDef):
            has = {getattr(node, "name", "") for node in found.body}
            kind = "method"
        elif isinstance(found, ast.FunctionDef):
            args = found.args
            has = {arg.arg for arg in (*args.posonlyargs, *args.args, *args.kwonlyargs)}
            kind = "parameter"
        else:
            yield f"{file} has no '{name}'{_OTHER}"
            continue
        for part in wanted:
            if part not in has:
                yield f"{file}: '{name}' has no {kind} '{part}'{_OTHER}"
        if name == "register_kernel" and isinstance(found, ast.FunctionDef):
            yield from _more(found, wanted)


def _more(function: ast.FunctionDef, known: Sequence[str]) -> Iterator[str]:
    """Say which further parameters a registration would have to give."""
    args = function.args
    required = [arg.arg for arg in args.args[: len(args.args) - len(args.defaults)]]
    pairs = zip(args.kwonlyargs, args.kw_defaults, strict=True)
    required += [arg.arg for arg, default in pairs if default is None]
    for name in required:
        if name not in known:
            yield (f"{_REGISTER}: 'register_kernel' needs '{name}', which is not known{_OTHER}")


def _aliases(tree: ast.Module | None) -> Mapping[str, str] | None:
    """Return the GPU names that vLLM's utils.py maps to others; None where it has no such table."""
    for node in () if tree is None else tree.body:
        targets = getattr(node, "targets", [getattr(node, "target", None)])
        if "_GPU_NAME_ALIASES" in [getattr(target, "id", None) for target in targets]:
            try:
                found = ast.literal_eval(node.value)  # type: ignore[attr-defined]  # caught
            except (ValueError, AttributeError):
                return None
            if isinstance(found, dict) and all(
                isinstance(n, str) for p in found.items() for n in p
            ):
                return found
    return None


def _version(path: Path) -> str | None:
    """Return what `vllm/_version.py` assigns, or what the metadata of the wheel beside it says."""
    tree = _parsed(path / "vllm" / "_version.py")
    for node in () if tree is None else tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            names = {target.id for target in node.targets if isinstance(target, ast.Name)}
            if names & {"__version__", "version"} and isinstance(node.value.value, str):
                return node.value.value
    for place in sorted(path.glob("vllm-*.dist-info/METADATA")):
        try:
            head = place.read_text(encoding="utf-8", errors="replace").partition("\n\n")[0]
        except OSError:
            continue
        found = re.search(r"^Version: (\S+)$", head, re.MULTILINE)
        if found is not None:
            return found[1]
    return None


def _fits(version: str, requires: str) -> bool:
    try:
        return SpecifierSet(requires).contains(Version(version), prereleases=True)
    except InvalidVersion:
        return False


_BELOW: Final = HELION.relative_to("vllm")
_VERSION: Final = re.compile(r"[0-9][0-9A-Za-z.+!-]{0,80}")


@frozen(kw_only=True)
class VllmFolder:
    """The folder where vLLM keeps config files, and what is known of the vLLM around it."""

    path: Path
    around: VllmTree

    @property
    def origin(self) -> str:
        """Where its configs come from, as far as it is known."""
        version = self.around.version
        return f"vLLM {version}" if version and _VERSION.fullmatch(version) else "vLLM"

    def files(self) -> tuple[dict[str, list[Path]], list[Problem]]:
        """Return the config files by kernel, and a problem for each directory that is unreadable.

        A file in the folder itself holds all platforms of a kernel, as releases before 0.33 had it.
        """
        found: dict[str, list[Path]] = {}
        problems: list[Problem] = []
        for entry in _listed(self.path, problems):
            inside = entry.is_dir()
            for path in _listed(entry, problems) if inside else [entry]:
                if path.suffix == ".json" and (path.is_file() or path.is_symlink()):
                    found.setdefault(entry.name if inside else entry.stem, []).append(path)
        return found, problems


def _listed(directory: Path, problems: list[Problem]) -> list[Path]:
    try:
        names = sorted(os.listdir(directory))
    except FileNotFoundError:
        return []
    except OSError as error:
        message = f"directory cannot be read: {error.strerror}; correct its permissions"
        problems.append(_problem(str(directory), "KP820", message))
        return []
    return [directory / name for name in names if not name.startswith(".")]


def find_folder(directory: Path) -> VllmFolder:
    """Return the folder of config files that a directory is, or holds.

    The directory is that folder, a vLLM tree or what a wheel of it unpacks to, or the package in
    one of those. Raises UsageError where it does not exist, or is a vLLM without Helion kernels.
    """
    if not directory.is_dir():
        what = "is not a directory" if os.path.lexists(directory) else "does not exist"
        raise UsageError(f"{directory} {what}; give a vLLM tree, or its folder of configs")
    for package in (directory / "vllm", directory):
        if (package / _BELOW).is_dir():
            return VllmFolder(path=package / _BELOW / "configs", around=_around(package))
        if package.name == "vllm" and (package / "__init__.py").is_file():
            raise UsageError(f"{directory} is a vLLM without {_BELOW}; later releases have it")
    full = directory.absolute()
    inside = full.parts[-3:] == (*_BELOW.parts, "configs")
    alone = VllmTree(path=directory, version=None, aliases={})
    return VllmFolder(path=directory, around=_around(full.parents[2]) if inside else alone)


def _around(package: Path) -> VllmTree:
    """Read of vLLM's package what it says of itself, without running any of it."""
    path = package.absolute().parent
    aliases = _aliases(_parsed(package / _BELOW / "utils.py"))
    return VllmTree(path=path, version=_version(path), aliases=aliases or {})


def _parsed(path: Path) -> ast.Module | None:
    """Return a Python file as a tree; None where it cannot be read, or is not Python."""
    with contextlib.suppress(OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return ast.parse(path.read_bytes())
    return None
