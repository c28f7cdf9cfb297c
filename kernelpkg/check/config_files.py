"""What lies in the directories of configs: the files that are looked up, and all that is not."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from attrs import field, frozen

from kernelpkg.configs import platforms
from kernelpkg.configs.search_path import ConfigDirectory, may_name_platform, search_path
from kernelpkg.errors import Problem, suggestion
from kernelpkg.manifest.spec import PackSpec


@frozen(kw_only=True)
class FoundFile:
    """A config file of a kernel of the pack; `shown` is its path in findings."""

    kernel: str
    platform: str
    path: Path
    shown: str
    overlay: bool


@frozen(kw_only=True)
class ConfigTree:
    """All config files of a pack, those of overlays first, and what lies beside them."""

    files: tuple[FoundFile, ...]
    findings: tuple[Problem, ...]

    def first(self) -> dict[tuple[str, str], FoundFile]:
        """Return the files that calls use, by kernel and platform: the first of each there is."""
        found: dict[tuple[str, str], FoundFile] = {}
        for file in self.files:
            found.setdefault((file.kernel, file.platform), file)
        return found


def survey(pack: PackSpec) -> ConfigTree:
    """List the config files of a pack, and name what nothing reads; hidden files are no one's."""
    walk = _Walk(pack=pack)
    for directory in search_path(pack):
        walk.directory(directory)
    return ConfigTree(files=tuple(walk.files), findings=tuple(sorted(walk.findings)))


def kernel_findings(pack: PackSpec) -> Iterator[Problem]:
    """Yield directories of kernels/ that have no manifest, and links there that lead nowhere."""
    root = Path(pack.root, "kernels")
    for name in _names(root):
        path, shown = root / name, f"kernels/{name}"
        if _leads_nowhere(path):
            yield _broken_link(path, shown)
        elif path.is_dir() and name[0] != "_" and name not in pack.kernels:
            inside = _names(path)
            manifest = path / "kernel.toml"
            if _leads_nowhere(manifest):
                yield _broken_link(manifest, f"{shown}/kernel.toml")
            elif "kernel.toml" not in inside and inside:
                message = "has no kernel.toml, so it is no kernel; write one, or remove it"
                yield Problem(path=shown, code="KP204", message=message)


@frozen(kw_only=True)
class _Walk:
    pack: PackSpec
    files: list[FoundFile] = field(factory=list)
    findings: list[Problem] = field(factory=list)

    def add(self, path: str, code: str, message: str) -> None:
        self.findings.append(Problem(path=path, code=code, message=message))

    def directory(self, directory: ConfigDirectory) -> None:
        """Walk one directory of the search path; the pack's own need not be there."""
        if directory.path.exists() and not directory.path.is_dir():
            self.add(directory.shown, "KP201", "is no directory; remove it")
        elif _leads_nowhere(directory.path):
            self.findings.append(_broken_link(directory.path, directory.shown))
        for name in self.names(directory.path, directory.shown):
            path, shown = directory.path / name, f"{directory.shown}/{name}"
            if _leads_nowhere(path):
                self.findings.append(_broken_link(path, shown))
            elif path.is_dir():
                self.kernel(directory, name)
            elif name.endswith(".json"):
                what = "belongs into the directory of its kernel, and nothing reads it here"
                self.add(shown, "KP201", f"{what}; move it to {directory.shown}/<kernel>/")

    def kernel(self, directory: ConfigDirectory, kernel: str) -> None:
        """Walk what should be the directory of a kernel."""
        above, shown = directory.path / kernel, f"{directory.shown}/{kernel}"
        if kernel not in self.pack.kernels:
            if not Path(self.pack.root, "kernels", kernel).is_dir():  # another pack's
                message = f"is of no kernel of pack '{self.pack.name}', so nothing reads it"
                remedy = suggestion(kernel, self.pack.kernels) or "; rename or remove it"
                self.add(shown, "KP201", message + remedy)
            return
        for name in self.names(above, shown):
            path = above / name
            platform = name.removesuffix(".json")
            if not name.endswith(".json"):
                message = "is no <platform>.json, so nothing reads it; rename or remove it"
                self.add(f"{shown}/{name}", "KP201", message)
                continue
            if may_name_platform(platform):
                self.files.append(
                    FoundFile(
                        kernel=kernel,
                        platform=platform,
                        path=path,
                        shown=f"{shown}/{name}",
                        overlay=directory.overlay,
                    )
                )
            self.platform(f"{shown}/{name}", platform)

    def platform(self, shown: str, name: str) -> None:
        """Note a name that is looked up for no GPU, or for none that is known."""
        pack = self.pack
        try:
            spelled = platforms.canonical(name)
        except ValueError:
            spelled = ""
        if spelled != name:
            remedy = f"rename it to '{spelled}.json'" if spelled else "remove it"
            message = f"'{name}' is no name of a platform, so no GPU looks for it; {remedy}"
            self.add(shown, "KP202", message)
            return
        found = platforms.resolve(name, extra=pack.platforms, variants=pack.variants)
        doubt = None
        if found.name != name:
            doubt = f"GPUs of this name look for '{found.name}', by [platforms] of the pack"
        elif found.arch is None and name != platforms.CPU and name not in _own(pack):
            known = suggestion(name, [*platforms.known(), *_own(pack)])
            doubt = f"'{name}' is no GPU that kernelpkg knows, so it may be looked up for none"
            doubt += known or "; name it in [platforms] of the pack"
        if doubt is not None:
            finding = Problem(path=shown, code="KP202", message=doubt, severity="unverified")
            self.findings.append(finding)

    def names(self, path: Path, shown: str) -> Sequence[str]:
        """Return what a directory holds; one that cannot be read is a finding."""
        try:
            return _names(path)
        except OSError as error:
            message = f"directory cannot be read: {error.strerror}; correct its permissions"
            self.add(shown, "KP501", message)
            return ()


def _own(pack: PackSpec) -> list[str]:
    """The platforms that the pack names itself."""
    return [platforms.canonical(name) for name in pack.platforms.values()]


def _names(path: Path) -> list[str]:
    try:
        return sorted(name for name in os.listdir(path) if name[0] != ".")
    except (FileNotFoundError, NotADirectoryError):
        return []


def _leads_nowhere(path: Path) -> bool:
    return path.is_symlink() and not path.exists()


def _broken_link(path: Path, shown: str) -> Problem:
    message = f"is a link to '{os.readlink(path)}', which is not there; correct or remove it"
    return Problem(path=shown, code="KP203", message=message)
