"""Config files from vLLM's folder into the store of a pack, and from the store into that folder.

What is to be written is planned first, and then carried out as a whole.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

from attrs import evolve, frozen

from kernelpkg.configs import directories, store
from kernelpkg.configs.store import ConfigFile, config_id, identity_of
from kernelpkg.configs.transfer import FIT, Transfer, is_looked_up
from kernelpkg.errors import PackError, UsageError, collecting, pack_error, suggestion
from kernelpkg.files import read_plain
from kernelpkg.manifest.document import parse_json, unreadable_json
from kernelpkg.manifest.spec import KernelSpec, PackSpec
from kernelpkg.packs.lock import FILE, has_lock
from kernelpkg.packs.read import read_kernel
from kernelpkg.vllm import config_format
from kernelpkg.vllm.config_format import MARK, OLD_LAYOUT, KeyAxes, key_axes
from kernelpkg.vllm.tree import VllmFolder, find_folder


def plan_import(pack: PackSpec, directory: Path, *, replace: bool = False) -> Transfer:
    """Plan how vLLM's config files get into the store of a pack; nothing is written yet.

    A file that is there already is overwritten with `replace` only; one that holds the same cases
    stays as it is, with what is known of its making. Raises UsageError where there is nothing to
    import, and PackError with every problem of every file.
    """
    plan = Transfer(replace=replace)
    folder, there = _folder(pack, directory, plan)
    if not there and not plan.problems:
        raise UsageError(
            f"{folder.path} has no configs; give a vLLM tree, or its folder of configs"
        )
    for name in there.keys() - {*pack.kernels}:
        first = there[name][0]
        place = first if first.parent == folder.path else first.parent
        hint = suggestion(name, pack.kernels)
        plan.skipped.append((str(place), f"pack '{pack.name}' has no kernel '{name}'{hint}"))
    for name in [name for name in pack.kernels if name in there]:
        with collecting(plan.problems):
            kernel = _kernel(pack, name)
            for path in there[name]:
                with collecting(plan.problems):
                    _import_file(plan, kernel, folder, path)
    plan.check_made(f"nothing of {folder.path} is for pack '{pack.name}'")
    stale = f"{FILE} does not have them yet; 'kernelpkg lock' records what the pack is now"
    locked = [stale] if has_lock(Path(pack.root)) else []
    return plan.made(f"these configs come from {folder.origin}: {FIT}", *locked)


def _import_file(plan: Transfer, kernel: _Kernel, folder: VllmFolder, path: Path) -> None:
    """Plan the import of one file; raises PackError where something is wrong with it."""
    shown = str(path)
    if path.parent == folder.path:
        plan.refuse(shown, "KP822", f"the layout, one file for all platforms, {OLD_LAYOUT}")
        return
    if not is_looked_up(plan, kernel.pack, path.stem, shown):
        return
    try:
        text = read_plain(path).decode()
    except (OSError, ValueError) as error:
        _, what = unreadable_json(error, "")
        raise pack_error(shown, "KP820", f"{what}; restore it") from None
    file = config_format.loads(text, shown, kernel.axes, origin=folder.origin, platform=path.stem)
    same = False
    with contextlib.suppress(PackError):  # one that is missing or broken is another
        same = kernel.same(kernel.stored(file.platform), file)
    stored = kernel.path(file.platform)
    root = Path(kernel.pack.root)
    plan.add(root / stored, stored, store.dumps(file), file, same=same, inside=root / "configs")


def plan_export(pack: PackSpec, directory: Path, *, replace: bool = False) -> Transfer:
    """Plan how the store of a pack gets into vLLM's folder of config files, as the way back.

    A file of the same content stays as it is. One whose keys name other axes than those of the
    kernel there is left out: the picker of vLLM's op would find none of its cases. Raises
    UsageError where there is nothing to export, and PackError with every problem of the store.
    """
    plan = Transfer(replace=replace)
    folder, there = _folder(pack, directory, plan)
    own: list[bool] = []
    for name in pack.kernels:
        with collecting(plan.problems):
            tuned = directories.platforms_of(pack, name)
            if not tuned:
                plan.skipped.append((f"configs/{name}", "nothing is tuned"))
                continue
            kernel = _kernel(pack, name)
            found = {path.name: _document(path) for path in there.get(name, ())}
            gone = {f"{platform}.json" for platform in tuned} if replace else set()
            kept = {file: document for file, document in found.items() if file not in gone}
            for platform in tuned:
                with collecting(plan.problems):
                    file = kernel.stored(platform)
                    text = kernel.vllm_text(file)
                    document = json.loads(text)
                    path = folder.path / name / f"{platform}.json"
                    sides = (found.get(path.name), document)
                    same = len({json.dumps(side, sort_keys=True) for side in sides}) == 1
                    reason = _unread(folder, platform) or _other_axes(document, kept)
                    if reason is not None and not same:
                        plan.skipped.append((kernel.path(platform), reason))
                        continue
                    plan.add(path, str(path), text, file, same=same, inside=directory)
                    own.append(not same and "origin" not in file.tuned_with)
    plan.check_made(f"pack '{pack.name}' has nothing for {folder.path}")
    remark = f"these configs come from pack '{pack.name}': {FIT}"
    both = "'kernelpkg vendor' writes ops and configs together"
    return plan.made(*([f"{remark}; {both}"] if any(own) else []))


def _folder(
    pack: PackSpec, directory: Path, plan: Transfer
) -> tuple[VllmFolder, dict[str, list[Path]]]:
    """Return vLLM's folder and its files by kernel; what cannot be listed is a problem of the plan.

    Raises UsageError where it is the store of the pack.
    """
    folder = find_folder(directory)
    with contextlib.suppress(OSError):
        if os.path.samefile(folder.path, Path(pack.root, "configs")):
            raise UsageError(f"{directory} is where pack '{pack.name}' has its own config files")
    there, problems = folder.files()
    plan.problems.extend(problems)
    return folder, there


def _document(path: Path) -> object:
    """Return the document of a file of vLLM's, or None where it has none."""
    try:
        return parse_json(read_plain(path).decode())[0]
    except (OSError, ValueError, RecursionError):
        return None


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
        return directories.place_of(self.pack, self.spec.name, platform).shown

    def stored(self, platform: str) -> ConfigFile:
        """Read a file of the store; raises PackError."""
        return directories.read_configs(self.pack, self.spec, platform).content()

    def vllm_text(self, file: ConfigFile) -> str:
        """Return what vLLM's folder has for a file of the store; raises PackError."""
        theirs = config_format.with_vllm_keys(file, self.spec.defaults)
        try:
            return config_format.dumps(theirs, self.spec.key_axes, self.axes.theirs)
        except RecursionError:
            message = "a config is nested too deeply; correct it, or tune again"
            raise pack_error(self.path(file.platform), "KP502", message) from None

    def same(self, stored: ConfigFile, other: ConfigFile) -> bool:
        """Whether two files hold the same cases in one order, and are one text for vLLM.

        The default config of the manifest, which vendoring writes for the key {}, adds nothing.
        """
        rows = self._rows(other)
        default = (config_id(self.spec.default or {}),)
        if all(case.key for case in stored.cases) and default in rows:
            cases = tuple(case for case in other.cases if case.key)
            return self.same(stored, evolve(other, cases=cases))
        return self._rows(stored) == rows and self.vllm_text(stored) == self.vllm_text(other)

    def _rows(self, file: ConfigFile) -> list[tuple[object, ...]]:
        return [
            (config_id(file.configs[case.config]), *identity_of(self.spec, case.key))
            for case in file.cases
        ]


def _kernel(pack: PackSpec, name: str) -> _Kernel:
    """Read a kernel, and vLLM's names of its axes; raises PackError with the problems of either."""
    spec = read_kernel(Path(pack.root), name)
    return _Kernel(pack=pack, spec=spec, axes=key_axes(spec, pack))
