"""Platforms that some ops of a pack have a config file for, and others have none."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Final

from kernelpkg.configs import platforms
from kernelpkg.configs.platforms import Platform
from kernelpkg.errors import Problem, counted
from kernelpkg.manifest.spec import KernelSpec, PackSpec

_HAVE: Final = {True: "has", False: "have"}


def missing_files(
    pack: PackSpec,
    kernels: Sequence[str],
    specs: Mapping[str, KernelSpec],
    there: Collection[tuple[str, str]],
    wanted: Collection[str],
) -> Iterator[Problem]:
    """Yield a note for each file that kernels lack, with what their calls get instead.

    `there` are the kernels and platforms that have one. Of the platforms in `wanted` each op
    should have one; without any, of all GPUs that some op has one for.
    """
    expected = wanted or {name for _, name in there if _looked_up(pack, name)}
    for kernel in kernels:
        own = sorted(platform for name, platform in there if name == kernel)
        for platform in sorted(expected):
            if platform not in own:
                others = len({name for name, other in there if other == platform})
                have = f"{counted(others, 'other op')} of the pack {_HAVE[others == 1]}"
                message = (
                    f"is not there, and {have if others else 'no other op of the pack has'} a "
                    f"file for {platform}; calls on it "
                    f"{_instead(pack, specs.get(kernel), _resolved(pack, platform), own)}; "
                    "tune the op for it"
                )
                yield Problem(
                    path=f"configs/{kernel}/{platform}.json",
                    code="KP208",
                    severity="unverified",
                    message=message,
                )


def _looked_up(pack: PackSpec, platform: str) -> bool:
    """Whether there are GPUs that look for the configs of a platform under its name."""
    found = _resolved(pack, platform)
    own = map(platforms.canonical, pack.platforms.values())
    return found.name == platform and (found.arch is not None or platform in own)


def _instead(pack: PackSpec, spec: KernelSpec | None, here: Platform, own: Sequence[str]) -> str:
    """Say what calls of an op get on a platform that it has no file for."""
    if spec is not None and spec.miss == "error":
        return "raise, for [miss] action is 'error'"
    last = "Helion's own default" if spec is None or spec.default is None else "[helion] default"
    near = [
        name
        for name in platforms.chain(here, own, extra=pack.platforms)
        if platforms.fits(_resolved(pack, name), here) is not False
    ]
    return f"borrow from {', '.join(near)}, then take {last}" if near else f"take {last}"


def _resolved(pack: PackSpec, platform: str) -> Platform:
    return platforms.resolve(platform, extra=pack.platforms, variants=pack.variants)
