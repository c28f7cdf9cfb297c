"""The config files of a pack into vLLM's folder of them, and those of vLLM into the store."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from attrs import evolve, field, frozen

from kernelpkg.configs import platforms, search_path, store
from kernelpkg.configs.match import identity
from kernelpkg.configs.store import ConfigFile, config_id
from kernelpkg.errors import PackError, Problem, UsageError, suggestion
from kernelpkg.manifest.document import Document, parse_json, unreadable_json
from kernelpkg.manifest.keys import PACK_MANIFEST
from kernelpkg.manifest.spec import KernelSpec, PackSpec
from kernelpkg.packs.lock import FILE, has_lock
from kernelpkg.packs.read import read_kernel
from kernelpkg.vllm import config_format
from kernelpkg.vllm.transfer import Plan, Transfer
from kernelpkg.vllm.vllmfolder import VllmFile, VllmFolder, find_folder
from kernelpkg.vllm.vllmkeys import MARK, KeyAxes, key_axes

_FIT: Final = (
    "block sizes, and lists with an entry per load or store, fit only the source that they were "
    "tuned for"
)


def plan_import(pack: PackSpec, directory: Path, *, replace: bool = False) -> Transfer:
    """Plan how vLLM's config files get into the store of a pack; nothing is written yet.

    A file that is there already is overwritten with `replace` only; one that holds the same cases
    stays as it is, with what is known of its making. Raises UsageError where there is nothing to
    import, and PackError with every problem of every file.
    """
    plan = Plan(replace=replace)
    folder = _folder(pack, directory)
    there = _by_kernel(folder, plan)
    common = [name for name in pack.kernels if name in there]
    for name in sorted(there.keys() - {*common}):
        first = there[name][0]
        place = first.path if first.platform is None else first.path.parent
        hint = suggestion(name, pack.kernels)
        plan.skip(str(place), f"pack '{pack.name}' has no kernel '{name}'{hint}")
    if not there and not plan.problems:
        raise UsageError(
            f"{folder.path} has no configs; give a vLLM tree, or its folder of configs"
        )
    for name in common:
        with plan.collecting():
            incoming = _Incoming(plan=plan, pack=pack, folder=folder, kernel=_kernel(pack, name))
            for source in there[name]:
                with plan.collecting():
                    incoming.read(source)
    _check_made(plan, f"nothing of {folder.path} is for pack '{pack.name}'")
    return plan.made(f"these configs come from {folder.origin}: {_FIT}", *_stale_lock(pack))


def _stale_lock(pack: PackSpec) -> tuple[str, ...]:
    """Say that a pack with a lock is not as it was locked any more, once configs were imported."""
    if not has_lock(Path(pack.root)):
        return ()
    return (f"{FILE} does not have them yet; 'kernelpkg lock' records what the pack is now",)


@frozen(kw_only=True)
class _Incoming:
    """The files of one kernel on their way into the store; `seen` has the platforms so far."""

    plan: Plan
    pack: PackSpec
    folder: VllmFolder
    kernel: _Kernel
    seen: dict[str, Path] = field(factory=dict)

    def read(self, source: VllmFile) -> None:
        """Plan the import of one file; raises PackError where something is wrong with it."""
        shown = str(source.path)
        if source.platform is not None and not self.looked_up(source.platform, shown):
            return
        try:
            text = source.path.read_bytes().decode()
        except (OSError, ValueError) as error:
            _, what = unreadable_json(error, "")
            problem = Problem(path=shown, code="KP820", message=f"{what}; restore it")
            raise PackError(problems=(problem,)) from None
        files = config_format.loads(
            text, shown, self.kernel.axes, origin=self.folder.origin, platform=source.platform
        )
        for file in files:
            if source.platform is not None or self.looked_up(file.platform, shown):
                self.add(source, file)

    def looked_up(self, platform: str, shown: str) -> bool:
        """Whether the pack uses the configs of a platform; if not, they are left out or refused."""
        pack = self.pack
        try:
            spelled = platforms.canonical(platform)
        except ValueError:
            spelled = ""
        if spelled != platform:
            remedy = f"rename it to '{spelled}'" if spelled else "use one such as nvidia_h200"
            problem = f"'{platform}' is no name of a platform; {remedy}"
            self.plan.refuse(shown, "KP826", problem)
            return False
        used = platforms.resolve(platform, extra=pack.platforms, variants=pack.variants).name
        if used != platform:
            reason = f"GPUs of platform '{platform}' use '{used}' in pack '{pack.name}'"
            self.plan.skip(shown, f"{reason}, by its [platforms]")
        return used == platform

    def add(self, source: VllmFile, file: ConfigFile) -> None:
        """Add a file that was read to the plan, unless another one is of its platform."""
        other = self.seen.setdefault(file.platform, source.path)
        if other is not source.path:
            message = f"platform '{file.platform}' is in {other} too; keep one of them"
            self.plan.refuse(str(source.path), "KP826", message)
            return
        same = False
        with contextlib.suppress(PackError):  # one that is missing or broken is another
            same = self.kernel.same(self.kernel.stored(file.platform), file)
        path = self.kernel.path(file.platform)
        self.plan.add(Path(self.pack.root, path), path, store.dumps(file), file, same=same)


def plan_export(pack: PackSpec, directory: Path, *, replace: bool = False) -> Transfer:
    """Plan how the store of a pack gets into vLLM's folder of config files, as the way back.

    A file of the same content stays as it is. One whose keys name other axes than those of the
    kernel there is left out: the picker of vLLM's op would find none of its cases. Raises
    UsageError where there is nothing to export, and PackError with every problem of the store.
    """
    plan = Plan(replace=replace)
    folder = _folder(pack, directory)
    there = _by_kernel(folder, plan)
    own: list[bool] = []
    for name in pack.kernels:
        with plan.collecting():
            tuned = search_path.platforms_of(pack, name)
            if not tuned:
                plan.skip(f"configs/{name}", "nothing is tuned")
                continue
            kernel = _kernel(pack, name)
            found = {file.path.name: _document(file.path) for file in there.get(name, ())}
            gone = {f"{platform}.json" for platform in tuned} if replace else set()
            kept = {file: document for file, document in found.items() if file not in gone}
            for platform in tuned:
                with plan.collecting():
                    file = kernel.stored(platform)
                    text = kernel.vllm_text(file)
                    document = json.loads(text)
                    path = folder.path / name / f"{platform}.json"
                    same = _canonical(found.get(path.name)) == _canonical(document)
                    reason = _unread(folder, platform) or _other_axes(document, kept)
                    if reason is not None and not same:
                        plan.skip(kernel.path(platform), reason)
                        continue
                    plan.add(path, str(path), text, file, same=same)
                    own.append(not same and "origin" not in file.tuned_with)
    _check_made(plan, f"pack '{pack.name}' has nothing for {folder.path}")
    remark = f"these configs come from pack '{pack.name}': {_FIT}"
    both = "'kernelpkg vendor' writes ops and configs together"
    return plan.made(*([f"{remark}; {both}"] if any(own) else []))


def _check_made(plan: Plan, nothing: str) -> None:
    """Raise UsageError where all was left out, with the reason of the first."""
    if not plan.files and not plan.problems:
        path, reason = min(plan.skipped)
        more = f" (and {len(plan.skipped) - 1} more)" if plan.skipped[1:] else ""
        raise UsageError(f"{nothing}: {path}: {reason}{more}")


def _folder(pack: PackSpec, directory: Path) -> VllmFolder:
    """Return vLLM's folder; raises UsageError where it is the store of the pack."""
    folder = find_folder(directory)
    with contextlib.suppress(OSError):
        if os.path.samefile(folder.path, Path(pack.root, "configs")):
            raise UsageError(f"{directory} is where pack '{pack.name}' has its own config files")
    return folder


def _by_kernel(folder: VllmFolder, plan: Plan) -> dict[str, list[VllmFile]]:
    """Return vLLM's files by kernel; what cannot be listed is a problem of the plan."""
    found: dict[str, list[VllmFile]] = {}
    for file in folder.files():
        if isinstance(file, PackError):
            plan.problems.extend(file.problems)
        else:
            found.setdefault(file.kernel, []).append(file)
    return found


def _document(path: Path) -> object:
    """Return the document of a file of vLLM's, or None where it has none."""
    try:
        return parse_json(path.read_bytes().decode())[0]
    except (OSError, ValueError, RecursionError):
        return None


def _canonical(document: object) -> str:
    return json.dumps(document, sort_keys=True)


def _unread(folder: VllmFolder, platform: str) -> str | None:
    """Say that vLLM never looks for the configs of a platform by this name, or return None."""
    spelled = folder.around.spelled(platform)
    return None if spelled == platform else f"vLLM looks for '{spelled}' on GPUs of that name"


def _other_axes(document: object, kept: Mapping[str, object]) -> str | None:
    """Say that the op of the files that stay reads other keys, or return None."""
    axes = _axes(document)
    for file, other in kept.items():
        if isinstance(other, dict):
            return f"{file} there has the layout of an older release of vLLM, which is not written"
        if any(key.get(MARK) is True for key in _keys(other)):
            return f"the op of {file} there was vendored; 'kernelpkg vendor' writes both"
        if axes and _axes(other) and axes != _axes(other):
            theirs = f"those of {file} there {', '.join(_axes(other))}"
            return f"its keys name {', '.join(axes)}, and {theirs}, which the op's picker reads"
    return None


def _axes(document: object) -> list[str]:
    """Return the axes that the keys of a document name; none where there are no such keys."""
    return next((sorted(key) for key in _keys(document) if key), [])


def _keys(document: object) -> list[dict[str, object]]:
    entries = document if isinstance(document, list) else ()
    keys = [entry.get("key") for entry in entries if isinstance(entry, dict)]
    return [key for key in keys if isinstance(key, dict)]


@frozen(kw_only=True)
class _Kernel:
    """A kernel of the pack, with what its keys say in vLLM's files."""

    pack: PackSpec
    spec: KernelSpec
    axes: KeyAxes

    def path(self, platform: str) -> str:
        """Return the path of a file of the store, as messages name it."""
        place = search_path.locate(self.pack, self.spec.name, platform)
        return f"configs/{self.spec.name}/{platform}.json" if place is None else place.shown

    def stored(self, platform: str) -> ConfigFile:
        """Read a file of the store; raises PackError."""
        return search_path.read_configs(self.pack, self.spec, platform).content()

    def vllm_text(self, file: ConfigFile) -> str:
        """Return what vLLM's folder has for a file of the store; raises PackError."""
        theirs = config_format.with_vllm_keys(file, self.spec.defaults)
        try:
            return config_format.dumps(theirs, self.spec.key_axes, self.axes.theirs)
        except RecursionError:
            message = "a config is nested too deeply; correct it, or tune again"
            problem = Problem(path=self.path(file.platform), code="KP502", message=message)
            raise PackError(problems=(problem,)) from None

    def same(self, stored: ConfigFile, other: ConfigFile) -> bool:
        """Whether two files hold the same cases in one order, and are one text for vLLM.

        The default config of the manifest, which vendoring writes for the key {}, adds nothing.
        """
        rows = self._rows(other)
        if all(case.key for case in stored.cases) and self._default in rows:
            cases = tuple(case for case in other.cases if case.key)
            return self.same(stored, evolve(other, cases=cases))
        return self._rows(stored) == rows and self.vllm_text(stored) == self.vllm_text(other)

    @property
    def _default(self) -> tuple[object, ...]:
        """The row of the default config of the manifest, with lists as JSON has them."""
        config = (self.spec.default or {}).items()
        return (config_id({n: list(v) if isinstance(v, tuple) else v for n, v in config}),)

    def _rows(self, file: ConfigFile) -> list[tuple[object, ...]]:
        axes, defaults = self.spec.key_axes, self.spec.defaults
        return [
            (
                config_id(file.configs[case.config]),
                *(identity(case.key.get(a, defaults.get(a))) for a in axes if case.key),
            )
            for case in file.cases
        ]


def _kernel(pack: PackSpec, name: str) -> _Kernel:
    """Read a kernel, and check what the pack says of vLLM's names of its axes.

    Raises PackError with the problems of either.
    """
    root = Path(pack.root)
    spec = read_kernel(root, name)
    axes = key_axes(spec, pack.vllm_axes.get(spec.name, {}))
    wrong = list(axes.name_problems())
    if wrong:
        document = Document(root / pack.path, pack.path, PACK_MANIFEST)
        lines = [(document.line("vllm", "axes", name, at), message) for at, message in wrong]
        raise PackError(
            problems=[
                Problem(path=pack.path, line=line, code="KP828", message=message)
                for line, message in lines
            ]
        )
    return _Kernel(pack=pack, spec=spec, axes=axes)
