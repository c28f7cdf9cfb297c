"""Builds: directories of compiled kernels, beside a pack or apart from it; read, held to the pack.

A build is made for one GPU architecture, ahead of time, by `kernelpkg build`. It is a directory
with an index and a file for each binary, named by the digest of its content. The index says which
sources and manifests it was made from and with which tools, and holds the digest of its own text.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Final

from attrs import evolve, field, frozen

from kernelpkg import __version__
from kernelpkg.configs import directories
from kernelpkg.configs.store import config_id
from kernelpkg.errors import PackError, Problem, counted, pack_error, parameter
from kernelpkg.expr.language import parse_expr
from kernelpkg.files import (
    digest_bytes,
    digest_value,
    listed_paths,
    locked,
    read_file,
    read_plain,
    replace_all,
)
from kernelpkg.manifest.spec import KernelSpec, PackSpec

EDITION: Final = 2
_ARGUMENT: Final = re.compile(r"a\d{1,3}")
"""An argument as facts read it, by its place."""

_BINARY: Final = re.compile("sha256-[0-9a-f]{64}")
INDEX: Final = "index.json"
LOCK: Final = ".lock"
"""Who builds into the directory; there as long as somebody does."""

FOLDER: Final = "builds"
"""Where the builds of all packs of a root are: `builds/<pack>/<platform>/`."""

VARIABLE: Final = "KERNELPKG_BUILDS"
"""Directories of builds that go before those of the pack."""

REMEDY: Final = "run 'kernelpkg build' again, or restore it"


@frozen(kw_only=True)
class BuiltPart:
    """The code of one config for one class of calls.

    `host` is the text of the host part, which launches `kernel`. `codes` are what it was compiled
    to, as JSON, one for each set of facts of the arguments; `launch.code.Code` is made of one.
    """

    config: str
    call_class: str
    host: str
    kernel: str
    codes: tuple[Mapping[str, Any], ...]


@frozen(kw_only=True)
class BuiltKernel:
    """One kernel of a build: the digests of the files it was made from, and its parts.

    `exact` and `facts` tell calls apart, as those of `launch.classes.ClassRule` do; `absent` says
    why some calls have no code here, in words.
    """

    files: Mapping[str, str]
    exact: Mapping[int, tuple[bool, ...] | None]
    facts: Mapping[str, tuple[str, ...]] = field(factory=dict)
    parts: tuple[BuiltPart, ...]
    absent: tuple[str, ...] = ()


@frozen(kw_only=True)
class Build:
    """A build that was read: where it is, what it is of, and what it was made with."""

    directory: Path = field(factory=Path)
    pack: str
    platform: str
    arch: str
    tools: Mapping[str, str]
    pinned: Mapping[str, Any]
    kernels: Mapping[str, BuiltKernel]
    digest: str = ""

    @property
    def shown(self) -> str:
        """Where it is, for messages."""
        return str(self.directory)

    def is_own(self, pack: PackSpec) -> bool:
        """Whether it is the one beside a pack, and not an operator's."""
        return self.directory == own_directory(pack, self.platform)

    def problem(self, arch: str | None, name: str, files: Mapping[str, str]) -> str | None:
        """Say why it does not fit a kernel here, or return None.

        `files` are the digests of the kernel's files as they are now.
        """
        if self.arch != arch:
            return f"is for {self.arch}, and this GPU is {arch or 'unknown'}"
        if self.tools.get("kernelpkg") != __version__:
            return f"is by kernelpkg {self.tools.get('kernelpkg')}, and this is {__version__}"
        kernel = self.kernels.get(name)
        if kernel is None:
            return f"has no kernel '{name}'"
        for file in sorted({*kernel.files, *files}):
            if files.get(file) != kernel.files.get(file):
                return f"is of another {file}"
        return None

    def cubin(self, digest: str) -> bytes:
        """Return a binary; raises PackError where it is not there, or not what its name says."""
        shown = f"{self.directory}/{digest}"
        try:
            data = read_file(self.directory / digest)
        except OSError as error:
            raise pack_error(
                shown, "KP320", f"cannot be read: {error.strerror}; {REMEDY}"
            ) from None
        if digest_bytes(data) != digest:
            raise pack_error(shown, "KP321", f"is damaged; {REMEDY}")
        return data

    def binaries(self) -> set[str]:
        """The digests of all binaries, which are the names of their files."""
        return {
            code["cubin"]
            for kernel in self.kernels.values()
            for part in kernel.parts
            for code in part.codes
        }

    def check_binaries(self) -> None:
        """Raise PackError where one is not there, or not what its name says."""
        for digest in sorted(self.binaries()):
            self.cubin(digest)


def digests_of(spec: KernelSpec) -> dict[str, str]:
    """Return the digests of a kernel's files that decide what is compiled, by name."""
    names = {"kernel.toml", spec.source.file}
    return {name: digest_bytes(read_plain(Path(spec.directory, name))) for name in sorted(names)}


def stale(build: Build, pack: PackSpec, spec: KernelSpec, arch: str | None) -> str | None:
    """Say why a build of a pack is not of a kernel and of its configs as they are now, or None.

    Configs of overlays do not count. Raises PackError where a config file is broken.
    """
    problem = build.problem(arch, spec.name, digests_of(spec))
    own = evolve(pack, overlays=())
    if problem is not None or build.platform not in directories.platforms_of(own, spec.name):
        return problem
    kernel = build.kernels[spec.name]
    known = {part.config for part in kernel.parts}
    if not known:
        return f"has no code of kernel '{spec.name}'"
    file = directories.read_configs(own, spec, build.platform).content()
    lacking = {config_id(file.configs[case.config]) for case in file.cases} - known
    if not lacking or kernel.absent:  # of which the build says why
        return None
    return f"lacks {counted(len(lacking), 'config')} of kernel '{spec.name}'"


def dumps(build: Build) -> str:
    """Return the text of an index; it follows from the value alone."""
    kernels = {}
    for name, kernel in sorted(build.kernels.items()):
        hosts = sorted({part.host for part in kernel.parts})
        configs = sorted({part.config for part in kernel.parts})
        kernels[name] = {
            "files": dict(kernel.files),
            "exact": {str(place): marks and list(marks) for place, marks in kernel.exact.items()},
            "facts": {of: list(facts) for of, facts in kernel.facts.items()},
            "hosts": hosts,
            "configs": configs,
            "parts": [
                {
                    "config": configs.index(part.config),
                    "class": part.call_class,
                    "host": hosts.index(part.host),
                    "kernel": part.kernel,
                    "codes": list(part.codes),
                }
                for part in sorted(kernel.parts, key=lambda part: (part.config, part.call_class))
            ],
            "absent": list(kernel.absent),
        }
    content = {
        "edition": EDITION,
        "pack": build.pack,
        "platform": build.platform,
        "arch": build.arch,
        "tools": dict(build.tools),
        "pinned": dict(build.pinned),
        "kernels": kernels,
    }
    found = {**content, "digest": digest_value(content)}
    return json.dumps(found, sort_keys=True, indent=1) + "\n"


def with_others(build: Build, directory: Path, names: Collection[str]) -> Build:
    """Return a build with those kernels of the build in a directory too that have these names.

    None, where that build is not whole, or was made for something else or with other tools.
    """
    try:
        before = read_build(directory)
        same = ("pack", "platform", "arch", "tools", "pinned")
        if any(getattr(before, name) != getattr(build, name) for name in same):
            return build
        others = {name: kernel for name, kernel in before.kernels.items() if name in names}
        evolve(before, kernels=others).check_binaries()
    except PackError:
        return build
    return evolve(build, kernels={**others, **build.kernels})


def kernels_in(directory: Path) -> tuple[str, ...]:
    """Return the kernels that the build in a directory has; none where it cannot be read."""
    try:
        return tuple(read_build(directory).kernels)
    except PackError:
        return ()


def _check_foreign(directory: Path, pack: str) -> None:
    """Raise PackError where a build of another pack is in a directory, which stays as it is."""
    if not os.path.exists(directory / INDEX):
        return
    try:
        before = read_build(directory).pack
    except PackError:
        return  # one that cannot be read is replaced
    if before != pack:
        message = f"is a build of pack '{before}', and '{pack}' is built; name another directory"
        raise pack_error(f"{directory}/{INDEX}", "KP323", message)


def _check_writable(directory: Path) -> None:
    """Raise PackError where it is known before a build that it cannot be put in a directory."""
    there = next(place for place in (directory, *directory.parents) if os.path.lexists(place))
    if not there.is_dir():
        raise _not_written(directory, os.strerror(errno.ENOTDIR))
    if not os.access(there, os.W_OK | os.X_OK):
        raise _not_written(directory, os.strerror(errno.EACCES))


@contextlib.contextmanager
def claimed(directory: Path, pack: str) -> Iterator[None]:
    """Have a directory for a build of a pack alone, as long as it is made.

    Raises PackError where it cannot be written, has a build of another pack, or another process
    builds into it.
    """
    _check_writable(directory)
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(locked(directory / LOCK))
        except BlockingIOError as error:
            remedy = f"wait for it to end, or name another one with {parameter('out')}"
            message = f"is being written by {error.strerror}; {remedy}"
            raise pack_error(str(directory), "KP329", message) from None
        except OSError as error:
            raise _not_written(directory, error.strerror) from None
        _check_foreign(directory, pack)
        yield


def write_build(build: Build, directory: Path, made: Callable[[str], bytes]) -> int:
    """Put a build in a directory, in place of the one that is there; return bytes of binaries.

    Binaries that are there and right stay; `made` returns the others. The index comes last, and
    then what it does not name goes. Raises PackError where the build cannot be written, and then
    nothing is changed.
    """
    contents: dict[Path, bytes] = {}
    size = 0
    wanted = build.binaries()
    try:
        for name in sorted(wanted):
            path = directory / name
            data = read_file(path) if path.is_file() else b""
            if digest_bytes(data) != name:
                data = contents[path] = made(name)
            size += len(data)
        replace_all({**contents, directory / INDEX: dumps(build).encode()})
    except OSError as error:
        raise _not_written(directory, error.strerror) from None
    for path in directory.iterdir():
        if path.name.startswith("sha256-") and path.name not in wanted:
            with contextlib.suppress(OSError):  # it does no harm
                path.unlink()
    return size


def _not_written(directory: Path, why: str | None) -> PackError:
    remedy = f"correct that, or name another directory with {parameter('out')}"
    message = f"cannot be written: {why}; {remedy}; nothing was changed"
    return pack_error(str(directory), "KP324", message)


def read_build(directory: Path) -> Build:
    """Return the build in a directory.

    Raises PackError where its index cannot be read, is of another edition, or was edited by hand.
    """
    shown = f"{directory}/{INDEX}"
    try:
        content = json.loads(read_plain(directory / INDEX))
        edition = content.get("edition")
        if edition != EDITION:
            message = f"is of edition {edition}, and this kernelpkg reads {EDITION}; {REMEDY}"
            raise pack_error(shown, "KP322", message)
        digest = content.pop("digest")
        if digest_value(content) != digest:
            raise pack_error(shown, "KP321", f"was edited by hand, or damaged; {REMEDY}")
        return _build(directory, content, digest)
    except OSError as error:
        raise pack_error(shown, "KP320", f"cannot be read: {error.strerror}; {REMEDY}") from None
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
        raise pack_error(shown, "KP321", f"is damaged; {REMEDY}") from None


def _build(directory: Path, content: Mapping[str, Any], digest: str) -> Build:
    kernels = {}
    for name, kernel in content["kernels"].items():
        hosts, configs = kernel["hosts"], kernel["configs"]
        kernels[name] = BuiltKernel(
            files=kernel["files"],
            exact={
                int(place): None if marks is None else tuple(marks)
                for place, marks in kernel["exact"].items()
            },
            facts={of: tuple(facts) for of, facts in kernel["facts"].items()},
            parts=tuple(
                BuiltPart(
                    config=configs[part["config"]],
                    call_class=part["class"],
                    host=hosts[part["host"]],
                    kernel=part["kernel"],
                    codes=tuple(part["codes"]),
                )
                for part in kernel["parts"]
            ),
            absent=tuple(kernel["absent"]),
        )
    found = Build(
        directory=directory,
        pack=content["pack"],
        platform=content["platform"],
        arch=content["arch"],
        tools=content["tools"],
        pinned=content["pinned"],
        kernels=kernels,
        digest=digest,
    )
    _check_types(found)
    return found


def _check_types(build: Build) -> None:
    """Raise TypeError or ValueError where an index holds what a build cannot."""
    texts = [build.pack, build.platform, build.arch, *build.tools.values(), *build.pinned]
    for kernel in build.kernels.values():
        texts += [*kernel.files.values(), *kernel.absent]
        for fact in chain(*kernel.facts.values()):
            names = parse_expr(fact).names()
            if not names or not all(map(_ARGUMENT.fullmatch, names)):
                raise ValueError
        for part in kernel.parts:
            texts += [part.config, part.call_class, part.host.replace("\n", " "), part.kernel]
            for code in part.codes:
                texts += [code["entry"], *code["types"]]
                numbers = [*code["parameters"], *code["divisible"], code["shared"], code["threads"]]
                if not all(type(number) is int and 0 <= number < 2**31 for number in numbers):
                    raise ValueError
                if not _BINARY.fullmatch(code["cubin"]) or not isinstance(code["constants"], dict):
                    raise ValueError
    if not all(isinstance(text, str) and "\n" not in text[:200] for text in texts if text):
        raise TypeError


def find_builds(
    pack: PackSpec,
    platform: str,
    given: Sequence[str | os.PathLike[str]],
    environment: Mapping[str, str],
    *,
    arch: str | None = None,
    locked: Mapping[str, str] | None = None,
) -> tuple[tuple[Build, ...], tuple[Problem, ...]]:
    """Return the builds of a pack for a platform, best first, and what is wrong with others.

    Those in directories that were given go first; without any, those of KERNELPKG_BUILDS, which may
    hold builds of other packs too; then the pack's own, or without one its own for other GPUs of
    the same `arch`, whose configs a GPU may borrow. `locked` are the digests of own ones, by
    platform, where a lock has to be kept to; what an operator names goes over it, as configs do.
    Raises PackError where directories were given and none has a build that is as it should be, and
    for an own one that is not the one that was locked.
    """
    found: list[Build] = []
    problems: list[Problem] = []
    for word in given or listed_paths(environment, VARIABLE):
        directory = _inside(Path(word), pack.name, platform)
        if directory is None:
            if not given and not os.path.isdir(word):
                message = f"is in {VARIABLE}, and is not a directory; correct it"
                problems.append(Problem(path=str(word), code="KP320", message=message))
            continue
        try:
            build = read_build(directory)
            if build.pack == pack.name:
                found.append(build)
            elif given:
                message = f"is a build of pack '{build.pack}', and '{pack.name}' is loaded; "
                message += "name the directory of another one"
                raise pack_error(f"{directory}/{INDEX}", "KP323", message)
        except PackError as error:
            problems += error.problems
    if given and not found:
        message = f"has no build of pack '{pack.name}' for {platform}; run 'kernelpkg build' first"
        none = Problem(path=str(given[0]), code="KP320", message=message)
        raise PackError(problems=tuple(problems) or (none,))
    places = own_directories(pack)
    if locked is not None and platform in locked and platform not in places:
        message = "is locked, and is not there; restore it, or run 'kernelpkg lock'"
        place = f"{own_directory(pack, platform)}/{INDEX}"
        problems.append(Problem(path=place, code="KP320", message=message))
    for name in [platform] if platform in places else places:
        try:
            build = read_build(places[name])
        except PackError as error:
            problems += error.problems if name == platform else ()
            continue
        if name != platform and build.arch != arch:
            continue
        if locked is not None and locked.get(name) != build.digest:
            message = "is not the build that was locked; restore it, or run 'kernelpkg lock'"
            raise pack_error(f"{places[name]}/{INDEX}", "KP304", message)
        found.append(build)
    return tuple(found), tuple(problems)


def own_directory(pack: PackSpec, platform: str) -> Path:
    """Return where a pack's own build for a platform is."""
    return Path(pack.root, FOLDER, pack.name, platform)


def own_directories(pack: PackSpec) -> dict[str, Path]:
    """Return where the builds are that a pack has of its own, by platform."""
    found = sorted(Path(pack.root, FOLDER, pack.name).glob(f"*/{INDEX}"))
    return {path.parent.name: path.parent for path in found}


def _inside(place: Path, pack: str, platform: str) -> Path | None:
    """Return where a build is in a directory: it is one, or holds those of platforms or packs."""
    for directory in (place, place / platform, place / pack / platform):
        if os.path.exists(directory / INDEX):
            return directory
    return None
