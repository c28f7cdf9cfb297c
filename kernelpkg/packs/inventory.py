"""What a pack is on disk now, in the terms of its lock."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from attrs import evolve, frozen

from kernelpkg.configs import search_path
from kernelpkg.configs.store import StoredFile
from kernelpkg.errors import PackError, Problem
from kernelpkg.files import Files
from kernelpkg.manifest.spec import KernelSpec, PackSpec
from kernelpkg.packs.lock import LockedConfigs, LockedKernel, LockedPack, config_path
from kernelpkg.packs.read import read_kernel
from kernelpkg.packs.sources import source_digest


@frozen(kw_only=True)
class Inventory:
    """A pack as it is, without fingerprints; kernels that are broken have problems instead."""

    pack: LockedPack
    specs: Mapping[str, KernelSpec]
    problems: tuple[Problem, ...]


def take_inventory(pack: PackSpec, tools: Mapping[str, str]) -> Inventory:
    """Read all that belongs to a pack: what `load` reads of it, and nothing of an operator's.

    Those are the manifests, the Python files that they name, and the config files of all
    platforms. What else lies beside them is not read by kernelpkg, and so not locked either.
    """
    own = evolve(pack, overlays=())
    kernels: dict[str, LockedKernel] = {}
    specs: dict[str, KernelSpec] = {}
    problems: list[Problem] = []
    for name in pack.kernels:
        try:
            specs[name], kernels[name] = _kernel(own, name)
        except PackError as error:
            problems += error.problems
    return Inventory(
        pack=LockedPack(
            version=pack.version, manifest=pack.digest, tools=dict(tools), kernels=kernels
        ),
        specs=specs,
        problems=tuple(problems),
    )


def _kernel(pack: PackSpec, name: str) -> tuple[KernelSpec, LockedKernel]:
    files, root = Files(), Path(pack.root)
    spec = read_kernel(root, name, files)
    found = files.digests(Path(spec.directory))
    sources = {
        file: source_digest(files.tree(Path(spec.directory, file), file))
        for file in found
        if file.endswith(".py")
    }
    stored: dict[str, LockedConfigs] = {}
    problems: list[Problem] = []
    for platform in search_path.platforms_of(pack, name):
        try:
            content = search_path.read_configs(pack, spec, platform, files)
        except PackError as error:
            problems += error.problems
        else:
            digest = files.digest(root / config_path(name, platform))
            stored[platform] = _configs(content, digest)
    if problems:
        raise PackError(problems=tuple(problems))
    return spec, LockedKernel(
        version=spec.version,
        schema=spec.schema.text,
        files=found,
        sources=sources,
        configs=stored,
    )


def _configs(stored: StoredFile, digest: str) -> LockedConfigs:
    cases, configs = stored.counts()
    source = stored.content().tuned_with.get("source", "")
    return LockedConfigs(file=digest, cases=cases, configs=configs, source=source)
