"""The command `list`: every pack that is found, with its kernels and what they are tuned for."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

from attrs import asdict, frozen

from kernelpkg.cli.console import FINE, FOUND, complain, print_json, print_table, say
from kernelpkg.cli.options import Shared, command
from kernelpkg.configs import directories
from kernelpkg.configs.directories import platforms_of
from kernelpkg.errors import PackError, Problem, UsageError, collecting
from kernelpkg.manifest.cases import cases_of
from kernelpkg.manifest.spec import PackSpec
from kernelpkg.packs import find
from kernelpkg.packs.find import Root
from kernelpkg.packs.read import read_kernel, read_pack

Overlay = Callable[[PackSpec], PackSpec]


@command(configs=True)
def run(shared: Shared) -> int:
    """Print what there is; 1 where a part of it is broken."""

    def overlay(pack: PackSpec) -> PackSpec:
        return directories.with_overlays(pack, shared.configs, os.environ)

    roots = find.roots(shared.root, os.environ, shared.here)
    packs, problems = survey(roots, shared.pack, overlay)
    if not packs and {problem.code for problem in problems} == {"KP604"}:
        raise PackError(problems=problems)  # no root is there, which is wrong usage
    if not packs and not problems:
        if shared.pack is not None:
            find.find_pack(shared.pack, shared.root, os.environ, shared.here)
        raise UsageError(f"{shared.root} has no packs; 'kernelpkg new NAME --root DIR' makes one")
    complain(problems)
    if shared.as_json:
        print_json({"packs": [asdict(pack) for pack in packs]})
    else:
        for number, pack in enumerate(packs):
            say(f"{chr(10) * bool(number)}pack {pack.pack} {pack.version} (from {pack.origin})")
            print_table(pack.rows(), fold=("version", "tuned for"))
    return FOUND if problems else FINE


@frozen(kw_only=True)
class KernelEntry:
    """One kernel of a pack; `cases` counts what would be tuned for each platform."""

    name: str
    op: str
    version: int
    cases: int
    platforms: tuple[str, ...]
    summary: str


@frozen(kw_only=True)
class PackEntry:
    """One pack, and how its root was found."""

    pack: str
    version: str
    origin: str
    root: str
    kernels: tuple[KernelEntry, ...]

    def rows(self) -> list[tuple[str, ...]]:
        """Return the table for people, with its head."""
        rows = [
            (k.op, str(k.version), str(k.cases), ", ".join(k.platforms) or "-", k.summary)
            for k in self.kernels
        ]
        return [("op", "version", "cases", "tuned for", "summary"), *rows]


def survey(
    roots: Iterable[Root | PackError], wanted: str | None, overlay: Overlay = lambda pack: pack
) -> tuple[list[PackEntry], list[Problem]]:
    """Read the packs of all roots, or those of one name; returns them with all their problems.

    `overlay` puts the configs of an operator over a pack. What is broken hides nothing else: its
    problems are returned, and the rest is listed.
    """
    packs: list[PackEntry] = []
    problems: list[Problem] = []
    for root in roots:
        with collecting(problems):
            if isinstance(root, PackError):
                raise root
            for name in root.packs():
                if wanted in (None, name):
                    with collecting(problems):
                        packs.append(_entry(root, overlay(read_pack(root.path, name)), problems))
    return packs, problems


def _entry(root: Root, pack: PackSpec, problems: list[Problem]) -> PackEntry:
    kernels = []
    for kernel in pack.kernels:
        with collecting(problems):
            spec = read_kernel(root.path, kernel)
            entry = KernelEntry(
                name=spec.name,
                op=f"{pack.namespace}::{spec.name}",
                version=spec.version,
                cases=len(cases_of(spec, "tune")),
                platforms=platforms_of(pack, spec.name),
                summary=spec.summary,
            )
            kernels.append(entry)
    return PackEntry(
        pack=pack.name,
        version=pack.version,
        origin=root.origin,
        root=str(root.path),
        kernels=tuple(kernels),
    )
