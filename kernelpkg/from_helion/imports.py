"""What Helion's autotuner wrote, into the config files of a pack: planned, nothing written yet."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from attrs import define, evolve, field, frozen

from kernelpkg.configs import directories, store
from kernelpkg.configs.platforms import canonical
from kernelpkg.configs.store import (
    ConfigFile,
    TunedCase,
    config_id,
    config_problems,
    identity_of,
    shown_key,
)
from kernelpkg.configs.transfer import FIT, Transfer, is_looked_up
from kernelpkg.errors import PackError, Problem, UsageError, collecting, parameter, suggestion
from kernelpkg.from_helion.caches import (
    KeptConfig,
    key_of,
    read_best_config,
    read_tuned_configs,
)
from kernelpkg.from_helion.heuristics import Heuristic, read_heuristics
from kernelpkg.from_helion.manifest import toml
from kernelpkg.from_helion.trees import tree_cases
from kernelpkg.manifest.cases import cases_of
from kernelpkg.manifest.helion_config import tunables_of
from kernelpkg.manifest.spec import KernelSpec, PackSpec
from kernelpkg.packs.lock import FILE, has_lock
from kernelpkg.packs.read import read_kernel


@frozen(kw_only=True)
class _Found:
    """A case from one of the files, and where it is from."""

    path: str
    case: TunedCase
    config: Mapping[str, Any]
    origin: str
    filled: tuple[str, ...] = ()


def plan_import(
    pack: PackSpec,
    paths: Sequence[Path],
    *,
    op: str | None = None,
    platform: str | None = None,
    replace: bool = False,
) -> Transfer:
    """Plan how files of Helion's autotuner get into the store of a pack; nothing is written yet.

    They are AOT heuristics (`.py`), entries of its cache (`.best_config`) and the tuned configs of
    AOT runs (`.json`). `op` names the kernel and `platform` the GPU, where a file does not. A file
    of the store is replaced as a whole, with `replace` only. Raises UsageError where there is
    nothing to import, and PackError with every problem of every file.
    """
    plan = Transfer(replace=replace)
    importer = _Import(pack=pack, plan=plan, op=op, platform=platform)
    for path in paths:
        with collecting(plan.problems):
            importer.file(path)
    for (kernel, name), found in sorted(importer.found.items()):
        importer.add(kernel, name, found)
    plan.check_made(f"nothing of these files is for pack '{pack.name}'")
    stale = f"{FILE} does not have them yet; 'kernelpkg lock' records what the pack is now"
    locked = [stale] if has_lock(Path(pack.root)) else []
    return plan.made(
        *importer.remarks, f"these configs come from Helion's autotuner: {FIT}", *locked
    )


@define(kw_only=True)
class _Import:
    """Files that are read, and the cases that are found in them, by kernel and platform."""

    pack: PackSpec
    plan: Transfer
    op: str | None
    platform: str | None
    found: dict[tuple[str, str], list[_Found]] = field(factory=lambda: defaultdict(list))
    remarks: dict[str, None] = field(factory=dict)
    specs: dict[str, KernelSpec] = field(init=False)

    @specs.default
    def _specs(self) -> dict[str, KernelSpec]:
        if self.op is not None and self.op not in self.pack.kernels:
            hint = suggestion(self.op, self.pack.kernels)
            raise UsageError(f"pack '{self.pack.name}' has no kernel '{self.op}'{hint}")
        names = self.pack.kernels if self.op is None else (self.op,)
        return {name: read_kernel(Path(self.pack.root), name) for name in names}

    def file(self, path: Path) -> None:
        """Read a file; raises PackError."""
        if path.suffix == ".py":
            for heuristic in read_heuristics(path, self.plan.problems):
                with collecting(self.plan.problems):
                    self.heuristic(path, heuristic)
        elif path.suffix == ".best_config":
            self.kept(path, read_best_config(path))
        elif path.suffix == ".json":
            for kept in _fastest(read_tuned_configs(path)):
                with collecting(self.plan.problems):
                    self.kept(path, kept)
        else:
            wanted = (
                "a heuristic (.py), an entry of a cache (.best_config) or tuned configs (.json)"
            )
            self.plan.refuse(
                str(path), "KP830", f"is not a file of Helion's autotuner; give {wanted}"
            )

    def kernel(self, path: Path, function: str) -> KernelSpec | None:
        """Return the kernel of the pack that a function's name is of, if there is one."""
        if self.op is not None:
            return self.specs[self.op]
        for spec in self.specs.values():
            if function in (spec.name, spec.source.name):
                return spec
        if not function:
            remedy = f"give {parameter('op')}"
            self.plan.refuse(str(path), "KP834", f"does not say of which kernel it is; {remedy}")
            return None
        hint = suggestion(function, self.pack.kernels) or f"; {parameter('op')} says which it is"
        reason = f"pack '{self.pack.name}' has no kernel '{function}'{hint}"
        self.plan.skipped.append((str(path), reason))
        return None

    def on(self, path: Path, hardware: str) -> str | None:
        """Return the platform of a file, if the pack uses it."""
        name = self.platform or hardware
        if not name:
            remedy = f"give one, as in {parameter('platform', 'nvidia_h100')}"
            self.plan.refuse(str(path), "KP834", f"does not say of which GPU it is; {remedy}")
            return None
        name = canonical(name)
        return name if is_looked_up(self.plan, self.pack, name, str(path)) else None

    def heuristic(self, path: Path, heuristic: Heuristic) -> None:
        """Take the decision tree of a kernel; raises PackError where rules cannot say it."""
        spec = self.kernel(path, heuristic.kernel)
        platform = None if spec is None else self.on(path, "")
        if spec is None or platform is None:
            return
        for config, line in zip(heuristic.configs, heuristic.config_lines, strict=True):
            for _, code, problem in config_problems(config, partial(tunables_of, spec)):
                self.plan.problems.append(
                    Problem(path=str(path), line=line, code=code, message=problem)
                )
        made = tree_cases(spec, heuristic, str(path))
        for case in made.cases:
            self.found[spec.name, platform].append(
                _Found(
                    path=str(path),
                    case=case,
                    config=heuristic.configs[case.config],
                    origin=f"Helion's AOT heuristic {path.name}",
                    filled=made.filled,
                )
            )
        if made.filled:
            what = f"{path}: the tree of '{spec.name}' does not look at {', '.join(made.filled)}"
            self.remarks[f"{what}, for which its configs are"] = None

    def kept(self, path: Path, kept: KeptConfig) -> None:
        """Take a config of one call; raises PackError where its case cannot be told."""
        spec = self.kernel(path, kept.kernel)
        platform = None if spec is None else self.on(path, kept.hardware)
        if spec is None or platform is None:
            return
        for _, code, problem in config_problems(kept.config, partial(tunables_of, spec)):
            self.plan.refuse(str(path), code, problem)
        case = TunedCase(key=key_of(spec, kept), config=0, ms=kept.ms)
        origin = f"Helion's autotune cache {path.name}"
        self.found[spec.name, platform].append(
            _Found(path=str(path), case=case, config=kept.config, origin=origin)
        )

    def add(self, kernel: str, platform: str, found: Sequence[_Found]) -> None:
        """Add the config file of a kernel and a platform to the plan."""
        spec = self.specs[kernel]
        first: dict[tuple[object, ...], _Found] = {}
        for one in found:
            other = first.setdefault(identity_of(spec, one.case.key), one)
            if config_id(other.config) != config_id(one.config):
                what = f"has another config for {shown_key(one.case.key)} than {other.path}"
                self.plan.refuse(one.path, "KP835", f"{what}; leave one of them out")
        file = _config_file(spec, platform, [*first.values()])
        self.remarks |= dict.fromkeys(_grid(spec, file))
        place = directories.place_of(self.pack, kernel, platform)
        same = False
        with contextlib.suppress(PackError):  # one that is missing or broken is another
            same = _rows(spec, directories.read_configs(self.pack, spec, platform).content()) == (
                _rows(spec, file)
            )
        root = Path(self.pack.root)
        self.plan.add(
            root / place.shown, place.shown, store.dumps(file), file, same=same,
            inside=root / "configs",
        )  # fmt: skip


def _fastest(kept: Sequence[KeptConfig]) -> Iterator[KeptConfig]:
    """Yield of each call the config that took least, where all of them were timed."""
    groups: dict[str, list[KeptConfig]] = {}
    for one in kept:
        groups.setdefault(f"{one.kernel}({one.arguments})", []).append(one)
    for group in groups.values():
        timed = [one for one in group if one.ms is not None]
        yield from (
            [min(timed, key=lambda one: one.ms or 0.0)] if len(timed) == len(group) else group
        )


def _config_file(spec: KernelSpec, platform: str, found: Sequence[_Found]) -> ConfigFile:
    """Return the file of cases, each with what is known of its making."""
    configs = {config_id(one.config): dict(one.config) for one in found}
    places = {text: place for place, text in enumerate(configs)}
    made = [_made(one) for one in found]
    runs = [*{tuple(facts.items()): facts for facts in made}.values()]
    several = len(runs) > 1
    return ConfigFile(
        kernel=spec.name,
        platform=platform,
        tuned_with={} if several else runs[0],
        runs=tuple(runs) if several else (),
        configs=tuple(configs.values()),
        cases=tuple(
            evolve(
                one.case,
                config=places[config_id(one.config)],
                run=runs.index(facts) if several else None,
            )
            for one, facts in zip(found, made, strict=True)
        ),
    )


def _made(one: _Found) -> dict[str, str]:
    return {"origin": one.origin} | ({"filled": ", ".join(one.filled)} if one.filled else {})


def _grid(spec: KernelSpec, file: ConfigFile) -> Iterator[str]:
    """Say which grid the manifest lacks for the cases of a file, if it lacks one."""
    known = {identity_of(spec, case.values) for case in cases_of(spec, "tune")}
    off = [case.key for case in file.cases if identity_of(spec, case.key) not in known]
    if off:
        values = {axis: dict.fromkeys(toml(key[axis]) for key in off) for axis in spec.key_axes}
        lines = ", ".join(f"{axis} = [{', '.join(found)}]" for axis, found in values.items())
        what = f"kernels/{spec.name}/kernel.toml: these cases are of no grid"
        yield f"{what}; add [[inputs.grid]] with {lines}"


def _rows(spec: KernelSpec, file: ConfigFile) -> list[tuple[object, ...]]:
    return [
        (config_id(file.configs[case.config]), *identity_of(spec, case.key)) for case in file.cases
    ]
