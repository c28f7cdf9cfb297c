"""GPU names -> platforms: which configs are a GPU's own, and whose it may borrow."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final, Literal

from attrs import frozen

from kernelpkg.errors import UsageError, suggestion
from kernelpkg.manifest.spec import PackSpec

CPU: Final = "cpu"
"""The platform of interpreted runs; it borrows from nobody."""


@frozen(kw_only=True)
class Platform:
    """A GPU as configs see it: `name` is the platform of its own configs, `gpu` its full name.

    `base` is the platform that its variants have in common, and `shared_memory` the most that one
    block may use, in bytes. What is not known of a GPU is None.
    """

    name: str
    gpu: str
    base: str
    family: str | None = None
    arch: str | None = None
    shared_memory: int | None = None


# Of each architecture its family, the most shared memory that a block may opt in to (KiB), and the
# base platforms in the order in which others borrow from them: the most often tuned first.
# NVIDIA: CUDA C++ Programming Guide, "Technical Specifications per Compute Capability"; AMD: LDS
# per work group in the CDNA2, CDNA3 and CDNA4 instruction set references.
_ARCHITECTURES: dict[str, tuple[str, int, tuple[str, ...]]] = {
    "sm_70": ("volta", 96, ("tesla_v100",)),
    "sm_80": ("ampere", 163, ("nvidia_a100",)),
    "sm_86": ("ampere", 99, ("nvidia_a10", "nvidia_a10g")),
    "sm_89": ("ada", 99, ("nvidia_l40s", "nvidia_l4", "nvidia_rtx_6000_ada_generation",
                          "nvidia_geforce_rtx_4090")),
    "sm_90": ("hopper", 227, ("nvidia_h100", "nvidia_h200", "nvidia_gh200", "nvidia_h20")),
    "sm_100": ("blackwell", 227, ("nvidia_b200", "nvidia_gb200", "nvidia_b100")),
    "sm_103": ("blackwell", 227, ("nvidia_b300", "nvidia_gb300")),
    "sm_120": ("blackwell", 99, ("nvidia_rtx_pro_6000_blackwell", "nvidia_geforce_rtx_5090")),
    "gfx90a": ("cdna2", 64, ("amd_instinct_mi250x",)),
    "gfx942": ("cdna3", 64, ("amd_instinct_mi300x", "amd_instinct_mi325x", "amd_instinct_mi308x",
                             "amd_instinct_mi300a")),
    "gfx950": ("cdna4", 160, ("amd_instinct_mi355x", "amd_instinct_mi350x")),
}  # fmt: skip
_BASES = {base: arch for arch, (*_, bases) in _ARCHITECTURES.items() for base in bases}

# Families of one vendor by age: configs are borrowed from the nearest first.
_VENDORS: tuple[tuple[str, ...], ...] = (
    ("volta", "ampere", "ada", "hopper", "blackwell"),
    ("cdna2", "cdna3", "cdna4"),
)

# Names that say more than the base: form factor, memory, cooling. The H100, A100, V100 and MI300X
# ones are vLLM 0.33.0's (vllm/kernels/helion/utils.py).
_VARIANTS: dict[str, tuple[str, ...]] = {
    "tesla_v100": ("sxm2_16gb", "sxm2_32gb", "pcie_16gb", "pcie_32gb", "sxm3_32gb"),
    "nvidia_a100": ("sxm4_40gb", "sxm4_80gb", "pcie_40gb", "pcie_80gb", "80gb_pcie"),
    "nvidia_h100": ("pcie", "sxm5", "80gb_hbm3", "nvl"),
    "nvidia_h200": ("nvl", "141gb_hbm3e"),
    "nvidia_gh200": ("480gb", "120gb", "144g_hbm3e"),
    "nvidia_h20": ("3e",),
    "nvidia_b300": ("sxm6_ac",),
    "nvidia_rtx_pro_6000_blackwell":
        ("workstation_edition", "max_q_workstation_edition", "server_edition"),
    "nvidia_geforce_rtx_4090": ("d",),
    "nvidia_geforce_rtx_5090": ("d",),
    "amd_instinct_mi250x": ("mi250",),
    "amd_instinct_mi300x": ("hf", "vf"),
    "amd_instinct_mi325x": ("vf",),
}  # fmt: skip

_BASE_OF: dict[str, str] = {
    f"{base}_{suffix}": base for base, suffixes in _VARIANTS.items() for suffix in suffixes
}


def canonical(name: str) -> str:
    """Return a GPU's name in lower case, with one underscore for all that is not a letter or digit.

    Raises ValueError where nothing is left.
    """
    found = "_".join(re.findall(r"[a-z0-9]+", name.lower()))
    if not found:
        message = f"GPU name {name!r} has no letter or digit"
        raise ValueError(message)
    return found


def known() -> tuple[str, ...]:
    """Return the names of all GPUs that have a known architecture."""
    return (*_BASES, *_BASE_OF)


def stranger(name: str) -> str:
    """Return that a GPU is not known, with the one that is probably meant."""
    tail = next((gpu for gpu in _BASES if gpu.endswith(f"_{name}")), name)
    return f"'{name}' is not a GPU that kernelpkg knows{suggestion(tail, known())}"


def resolve(
    name: str, *, extra: Mapping[str, str] = {}, variants: Literal["together", "apart"] = "together"
) -> Platform:
    """Return the platform of a GPU by its name, or of a platform by its own.

    `extra` names the platforms of further GPUs. With `variants` apart, a variant has configs of
    its own and shares none with its base, unless `extra` names its platform.
    """
    gpu = canonical(name)
    further = {canonical(key): canonical(platform) for key, platform in extra.items()}
    base = further.get(gpu, gpu)
    base = _BASE_OF.get(base, base)
    arch = _BASES.get(base)
    family, shared, _ = _ARCHITECTURES[arch] if arch else (None, None, ())
    return Platform(
        name=base if variants == "together" else further.get(gpu, gpu),
        gpu=gpu,
        base=base,
        family=family,
        arch=arch,
        shared_memory=None if shared is None else shared * 1024,
    )


def platform_of(pack: PackSpec, name: str) -> Platform:
    """Return the platform of a GPU, or of a platform by its own name, as a pack's manifest has it.

    Raises UsageError for a name without a letter or digit.
    """
    try:
        return resolve(name, extra=pack.platforms, variants=pack.variants)
    except ValueError:
        message = f"platform '{name}' is not a name such as nvidia_h200 or cpu"
        raise UsageError(message) from None


def chain(
    platform: Platform, available: Sequence[str], *, extra: Mapping[str, str] = {}
) -> tuple[str, ...]:
    """Return the available platforms whose configs may be borrowed, the nearest first.

    First the base and its variants, then the same architecture, the same family, and the other
    families of the vendor by age. Other vendors, unknown GPUs and the CPU are left out.
    """
    others = {name: resolve(name, extra=extra) for name in available if name != platform.name}
    distances = {name: _distance(platform, other, name) for name, other in others.items()}
    near = [(distance, name) for name, distance in distances.items() if distance is not None]
    return tuple(name for _, name in sorted(near))


def fits(there: Platform, here: Platform) -> bool | None:
    """Whether one platform's blocks had no more shared memory than another's; None if unknown."""
    if there.shared_memory is None or here.shared_memory is None:
        return None
    return there.shared_memory <= here.shared_memory


def _distance(here: Platform, there: Platform, name: str) -> tuple[int, ...] | None:
    """Return how far a platform's configs are from a GPU, or None if they are not for it at all."""
    if here.base == there.base != CPU:
        return 0, int(name != there.base)
    if here.family is None or there.family is None:
        return None
    ages = next(families for families in _VENDORS if here.family in families)
    if there.family not in ages:
        return None
    return (
        1 if here.arch == there.arch else 2,
        abs(ages.index(here.family) - ages.index(there.family)),
        ages.index(there.family),
        list(_BASES).index(there.base),
    )
