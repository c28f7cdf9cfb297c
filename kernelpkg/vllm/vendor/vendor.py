"""A pack into a tree of vLLM's sources: all is worked out and checked first, and then written.

Each file is replaced at once. Before the first of them the record says what is about to be
written, so that the next run finishes one that was killed.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Final

from attrs import evolve, frozen

from kernelpkg import __version__
from kernelpkg.errors import PackError, Problem, collecting, counted, pack_error
from kernelpkg.files import Files, digest_bytes, read_plain, replace_text
from kernelpkg.manifest.spec import KernelSpec, PackSpec
from kernelpkg.packs.lock import has_lock
from kernelpkg.packs.read import read_kernel
from kernelpkg.packs.verify import make_verifier
from kernelpkg.vllm.config_format import key_axes
from kernelpkg.vllm.tree import CONFIGS, OPS, VllmTree, read_tree
from kernelpkg.vllm.vendor.files import (
    Drift,
    Record,
    TreeStep,
    read_record,
    record_path,
    shared_path,
    steps_for,
    wrong_place,
)
from kernelpkg.vllm.vendor.op_configs import write_configs
from kernelpkg.vllm.vendor.op_file import write_op
from kernelpkg.vllm.vendor.op_picker import write_shared
from kernelpkg.vllm.vendor.op_sources import references

_LEFT_OVER: Final = re.compile(r"\.(.+)\.[0-9a-f]{16}\.tmp")
"""A file that a killed run was about to put into the place of another."""


@frozen(kw_only=True)
class Vendoring:
    """What a run does to a tree: a step for each file of the pack there, and the record.

    `remarks` say what of the pack is not carried over.
    """

    pack: PackSpec
    tree: VllmTree
    steps: tuple[TreeStep, ...]
    old: Record | None
    record: Record
    record_step: TreeStep
    remarks: tuple[str, ...] = ()

    def conflicts(self) -> tuple[Problem, ...]:
        """Return what stands in the way of a run that may not replace what is not its own."""
        found = [(step.path, step.conflict) for step in self.steps]
        return tuple(Problem(path=p, code=c[0], message=c[1]) for p, c in found if c is not None)

    def drift(self) -> tuple[tuple[str, Drift], ...]:
        """Return the files that differ from what a run would leave."""
        found = [(step.path, step.drift) for step in self.steps]
        drifted = [(path, drift) for path, drift in found if drift is not None]
        record = self.record_step
        if self.old is not None and self.old.pending:
            drifted.append((record.path, "unfinished"))
        elif record.drift is not None and (record.drift == "missing" or not drifted):
            drifted.append((record.path, record.drift))
        return tuple(drifted)

    def diff(self, paths: Iterable[str] = ()) -> Iterator[str]:
        """Yield the lines of a unified diff of all changes, without those of some paths."""
        left_out = {*paths}
        for step in (*self.steps, self.record_step):
            if step.path not in left_out:
                yield from step.diff()

    def carry_out(self, *, replace: bool = False) -> None:
        """Write and remove; raises PackError where something is in the way or not writable."""
        problems = [*self._blocked(), *(() if replace else self.conflicts())]
        if problems:
            raise PackError(problems=tuple(problems))
        steps = [step for step in self.steps if step.action != "kept"]
        if not steps and self.record_step.action == "kept":
            return
        if steps:
            self._put(self.record_step.path, self._begun().text().encode())
        for step in steps:
            self._put(step.path, step.after)
        self._put(self.record_step.path, self.record_step.after)
        self._tidy(steps)

    def _begun(self) -> Record:
        """Return the record of a run that has not written anything yet."""
        now = {s.path: s.before for s in self.steps if s.ours or s.action == "kept"}
        soon = {s.path: s.after for s in self.steps if s.action == "wrote"}
        return evolve(
            self.record,
            files={path: digest_bytes(found) for path, found in now.items() if found is not None},
            pending={path: digest_bytes(text) for path, text in soon.items() if text is not None},
        )

    def _put(self, path: str, content: bytes | None) -> None:
        place = self.tree.path / path
        try:
            if content is None:
                place.unlink(missing_ok=True)
            else:
                replace_text(place, content.decode())
        except OSError as error:
            reason = f"cannot be written: {error.strerror}; nothing is half written, so run again"
            raise pack_error(path, "KP803", reason) from None

    def _blocked(self) -> Iterator[Problem]:
        """Yield the directories in which nothing can be written."""
        steps = (*self.steps, self.record_step)
        changed = [step.path for step in steps if step.action != "kept"]
        for directory in sorted({str(PurePosixPath(path).parent) for path in changed}):
            place = self.tree.path / directory
            while not place.exists():
                place = place.parent
            if not os.access(place, os.W_OK | os.X_OK):
                shown = place.relative_to(self.tree.path).as_posix()
                message = "cannot be written to; correct its permissions"
                yield Problem(path=shown, code="KP803", message=message)

    def _tidy(self, steps: Iterable[TreeStep]) -> None:
        """Remove directories that are empty now, and what killed runs left beside our files."""
        for step in steps:
            place = self.tree.path / step.path
            if step.after is None and place.parent.is_dir() and not os.listdir(place.parent):
                place.parent.rmdir()
        for path in (*self.record.files, self.record_step.path):
            place = self.tree.path / path
            for other in place.parent.glob(f".{place.name}.*.tmp"):
                if _LEFT_OVER.fullmatch(other.name):
                    other.unlink(missing_ok=True)

    def lines(self) -> Iterator[str]:
        """Yield what was done, for people."""
        steps = (*self.steps, self.record_step)
        count = Counter(step.action for step in steps)
        what = f"pack {self.pack.name} {self.pack.version}"
        into = f"{self.tree.path} (vLLM {self.tree.version or 'of unknown version'})"
        yield from (f"{step.action:7} {step.path}" for step in steps)
        yield from self.remarks
        if count["wrote"] == count["removed"] == 0:
            yield f"nothing to do: {what} is in {into}"
            return
        told = f"{count['wrote']} written, {count['removed']} removed, {count['kept']} kept"
        yield f"vendored {what} into {into}: {told}"

    def drift_lines(self) -> Iterator[str]:
        """Yield what has drifted, for people."""
        drifted = self.drift()
        yield from (f"{drift:10} {path}" for path, drift in drifted)
        what = f"pack {self.pack.name} {self.pack.version} in {self.tree.path}"
        told = f"{counted(len(drifted), 'file')} drifted" if drifted else "nothing has drifted"
        yield f"{what}: {told}"

    def to_json(self, *, check: bool = False) -> dict[str, Any]:
        """Return the document of `vendor --json`: the files, with what was done or has drifted."""
        files = [{"path": s.path, "action": s.action} for s in (*self.steps, self.record_step)]
        return {
            "into": str(self.tree.path),
            "vllm": self.tree.version,
            "pack": self.pack.name,
            "version": self.pack.version,
            "files": [{"path": p, "drift": d} for p, d in self.drift()] if check else files,
            "remarks": list(self.remarks),
        }


def plan_vendoring(pack: PackSpec, into: Path) -> Vendoring:
    """Work out what goes into a tree, and what is there; writes nothing.

    A pack that has a lock is vendored as it was locked, or not at all. Raises PackError with all
    problems of the tree, of the kernels and of their configs.
    """
    problems: list[Problem] = []
    tree: VllmTree | None = None
    with collecting(problems):
        tree = read_tree(into, pack.vllm_requires)
    root = Path(pack.root)
    verifier = make_verifier(root, pack.name, demanded=has_lock(root), installed=False)
    verifier.check_manifest(pack.path, pack.digest)
    problems += verifier.gone(pack).values()
    kernels: dict[str, Mapping[str, Any]] = {}
    wanted: dict[str, str] = {}
    remarks: list[str] = []
    for name in pack.kernels:
        with collecting(problems):
            files = Files()
            verifier.check_kernel(pack, name, files)
            spec = read_kernel(root, name, files)
            wanted |= _files(pack, spec, tree, files)
            kernels[name] = _described(spec, files)
            if spec.backward is not None:
                what = "[op.backward] is not carried over, for vLLM's ops have no gradients"
                remarks.append(f"{spec.path}: {what}")
            if verifier.required:  # a file may have come in beside the locked ones
                problems += verifier.differences(pack, name, files)
    shown = record_path(pack.name)
    old: Record | None = None
    if tree is not None:
        with collecting(problems):
            wrong = wrong_place(into, shown)
            if wrong is not None:
                raise pack_error(shown, "KP808", wrong)
            old = read_record(into, pack.name)
    if problems or tree is None:
        raise PackError(problems=tuple(problems))
    wanted[shared_path(pack.name)] = write_shared(
        f"Copied by kernelpkg {__version__} from its own modules, for the ops of pack "
        f"'{pack.name}'. To change this file, change kernelpkg and vendor the pack again."
    )
    record = Record(
        pack=pack.name,
        version=pack.version,
        kernelpkg=__version__,
        kernels=kernels,
        files={path: digest_bytes(text.encode()) for path, text in wanted.items()},
    )
    before, after = None if old is None else read_plain(into / shown), record.text().encode()
    return Vendoring(
        pack=pack,
        tree=tree,
        steps=steps_for(into, pack.kernels, wanted, old),
        old=old,
        record=record,
        record_step=TreeStep(path=shown, before=before, after=after, recorded=True, ours=True),
        remarks=tuple(remarks),
    )


def _files(pack: PackSpec, spec: KernelSpec, tree: VllmTree | None, files: Files) -> dict[str, str]:
    """Return the files of one kernel, by path below the tree; `files` has what was verified."""
    origin = (
        f"Generated by kernelpkg {__version__} from version {spec.version} of kernel "
        f"'{spec.name}', pack '{pack.name}' {pack.version}. To change this file, change the pack "
        "and vendor it again."
    )
    shared = shared_path(pack.name).removesuffix(".py").replace("/", ".")
    theirs = key_axes(spec, pack).theirs
    op = write_op(spec, origin, pack.license, shared, files, theirs)
    found = {f"{OPS}/{spec.name}.py": op.text}
    if tree is not None:
        texts = write_configs(pack, spec, op.axes, op.free, tree, files, theirs)
        found |= {f"{CONFIGS}/{spec.name}/{name}.json": text for name, text in texts.items()}
    return found


def _described(spec: KernelSpec, files: Files) -> dict[str, Any]:
    """Return what the record says of a kernel: its version, and digests of all that it is."""
    named = sorted({reference.file for reference in references(spec)})
    return {
        "version": spec.version,
        "kernel.toml": spec.digest,
        **{file: files.digest(Path(spec.directory, file)) for file in named},
    }
