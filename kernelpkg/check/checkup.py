"""The levels of `check` in a row: what each of them finds, merged, and what it comes to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from attrs import evolve, frozen

from kernelpkg.configs.platforms import CPU, canonical, known, resolve
from kernelpkg.errors import Checked, PackError, Problem, UsageError, suggestion
from kernelpkg.manifest.spec import KernelName, KernelSpec, PackSpec
from kernelpkg.packs.read import kernel_names, read_pack

LEVELS: Final[Mapping[int, str]] = {
    0: "reads all files, without torch",
    1: "binds every variant with Helion, without a GPU",
    2: "compiles every distinct config for its GPU, without one",
    3: "runs every case against its reference",
}
"""What each level does; each one contains those before it."""

Level = Callable[[PackSpec, Sequence[KernelSpec], Sequence[str] | None], Checked]
"""A level above 0: takes the pack, its readable kernels, and the platforms, None for all."""


@frozen(kw_only=True)
class Checkup:
    """What `check` found up to a level."""

    level: int
    checked: Checked

    @property
    def findings(self) -> tuple[Problem, ...]:
        return self.checked.findings

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong for sure."""
        return not any(finding.severity == "error" for finding in self.findings)

    def lines(self) -> Iterator[str]:
        """Yield a line per finding, and what they come to."""
        yield from map(str, self.findings)
        for level in range(self.level + 1):
            found = [finding for finding in self.findings if finding.level == level]
            errors = sum(finding.severity == "error" for finding in found)
            noun = "error" if errors == 1 else "errors"
            yield f"level {level}: {errors} {noun}, {len(found) - errors} unverified"
        yield f"checked: {self.looked_at()}"
        if self.level < max(LEVELS):
            yield f"not checked: level {self.level + 1} {LEVELS[self.level + 1]}"

    def looked_at(self) -> str:
        """Return in words what was looked at."""
        texts = []
        for name, value in self.checked.counts.items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                noun = name.replace("_", " ")
                singular = value == 1 and noun.endswith("s") and not noun.endswith("ss")
                texts.append(f"{value} {noun[:-1] if singular else noun}")
        return ", ".join(texts)

    def to_json(self) -> dict[str, Any]:
        """Return the document of `check --json`."""
        return {
            "findings": [finding.to_json() for finding in self.findings],
            "checked": {"level": self.level, **self.checked.counts},
        }


def open_for_check(root: Path, name: str) -> tuple[PackSpec, tuple[Problem, ...]]:
    """Read a pack's manifest; where it is broken, all kernels there are stand for its own."""
    try:
        return read_pack(root, name), ()
    except PackError as error:
        found = error.problems
    try:
        kernels = kernel_names(root)
    except PackError:
        kernels = ()
    pack = PackSpec(
        name=name,
        path=f"manifests/{name}.toml",
        root=str(root),
        digest="",
        version="",
        namespace=name,
        license="",
        kernels=tuple(map(KernelName, kernels)),
        platforms={},
        variants="together",
        models={},
        vllm_requires="",
        vllm_axes={},
        routes=(),
    )
    return pack, found


def chosen_platforms(pack: PackSpec, names: Sequence[str], there: Sequence[str]) -> tuple[str, ...]:
    """Return the platforms of GPUs or platforms by name; `there` are those with config files."""
    found: dict[str, None] = {}
    for name in names:
        try:
            if canonical(name) in there:
                found[canonical(name)] = None
                continue
            platform = resolve(name, extra=pack.platforms, variants=pack.variants)
        except ValueError as error:
            raise UsageError(str(error)) from None
        if platform.arch is None and platform.name not in (*there, CPU):
            hint = suggestion(platform.name, [*there, *known()])
            hint = hint or f"; the pack has files for {', '.join(there) or 'none'}"
            raise UsageError(f"'{name}' is no platform that is known here{hint}")
        found[platform.name] = None
    return tuple(found)


def check(
    pack: PackSpec,
    first: tuple[Checked, tuple[KernelSpec, ...]],
    levels: Mapping[int, Level],
    platforms: Sequence[str],
) -> Checkup:
    """Run levels in their order over what level 0 could read; `first` is what that found.

    What several levels find is told once, by the lowest.
    """
    checked, specs = first
    for level in sorted(levels):
        checked = checked.merge(levels[level](pack, specs, platforms or None))
    seen: dict[tuple[object, ...], Problem] = {}
    for finding in sorted(checked.findings, key=lambda finding: finding.level):
        seen.setdefault((finding.path, finding.line, finding.code, finding.message), finding)
    return Checkup(
        level=max(levels, default=0), checked=evolve(checked, findings=tuple(seen.values()))
    )
