"""GPU names -> platforms: which configs are a GPU's own, and whose it may borrow."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final, Literal

from attrs import frozen

from kernelpkg.errors import UsageError, suggestion
from kernelpkg.manifest.spec import PackSpec

CPU: Final = "cpu"
"""The platform of interpreted runs; it borrows from nobody."""


@frozen(kw_only=True)
class Platform:
    """A GPU as configs see it: `name` is the platform of its own configs, `gpu` its full name.

    `base` is the platform that its variants have in common, `shared_memory` the most that one block
    may use, in bytes, and `sms` how many streaming multiprocessors it has. What is not known of a
    GPU is None.
    """

    name: str
    gpu: str
    base: str
    family: str | None = None
    arch: str | None = None
    shared_memory: int | None = None
    sms: int | None = None


UNNAMED: Final = "unknown_gpu"
"""The platform of a GPU whose driver gives it no name, as ROCm's may, and no architecture."""

# Of each architecture its family, the most shared memory that a block may opt in to (KiB), and the
# base platforms in the order in which others borrow from them: the most often tuned first.
# NVIDIA: CUDA C++ Programming Guide, "Technical Specifications per Compute Capability"; AMD: LDS
# per work group in the CDNA2, CDNA3 and CDNA4 instruction set references.
_ARCHITECTURES: dict[str, tuple[str, int, tuple[str, ...]]] = {
    "sm_70": ("volta", 96, ("tesla_v100",)),
    "sm_75": ("turing", 64, ("tesla_t4",)),
    "sm_80": ("ampere", 163, ("nvidia_a100", "nvidia_a800", "nvidia_a30", "nvidia_a100x")),
    "sm_86": ("ampere", 99, ("nvidia_a10", "nvidia_a10g", "nvidia_a40", "nvidia_a16", "nvidia_a2")),
    "sm_87": ("ampere", 163, ("orin",)),
    "sm_89": ("ada", 99, ("nvidia_l40s", "nvidia_l4", "nvidia_rtx_6000_ada_generation",
                          "nvidia_geforce_rtx_4090", "nvidia_l40", "nvidia_l20", "nvidia_l2")),
    "sm_90": ("hopper", 227, ("nvidia_h100", "nvidia_h200", "nvidia_gh200", "nvidia_h20",
                              "nvidia_h800")),
    "sm_100": ("blackwell", 227, ("nvidia_b200", "nvidia_gb200", "nvidia_b100")),
    "sm_103": ("blackwell", 227, ("nvidia_b300", "nvidia_gb300")),
    "sm_110": ("blackwell", 227, ("nvidia_thor",)),
    "sm_120": ("blackwell", 99, ("nvidia_rtx_pro_6000_blackwell", "nvidia_geforce_rtx_5090")),
    "sm_121": ("blackwell", 99, ("nvidia_gb10",)),
    "gfx90a": ("cdna2", 64, ("amd_instinct_mi250x", "amd_instinct_mi210")),
    "gfx942": ("cdna3", 64, ("amd_instinct_mi300x", "amd_instinct_mi325x", "amd_instinct_mi308x",
                             "amd_instinct_mi300a")),
    "gfx950": ("cdna4", 160, ("amd_instinct_mi355x", "amd_instinct_mi350x")),
}  # fmt: skip
_BASES = {base: arch for arch, (*_, bases) in _ARCHITECTURES.items() for base in bases}
_ORDER = {base: place for place, base in enumerate(_BASES)}

# Product lines whose names tell the architecture of each of their GPUs.
_LINES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(line), arch)
    for line, arch in (
        (r"nvidia_geforce_(gtx_16|rtx_20)\d\d(_.*)?|(nvidia_)?quadro_rtx_.*", "sm_75"),
        (r"nvidia_geforce_rtx_30\d\d(_.*)?|nvidia_rtx_a\d+(_.*)?", "sm_86"),
        (r"nvidia_geforce_rtx_40\d\d(_.*)?|nvidia_rtx_\d+_(sff_)?ada_generation(_.*)?", "sm_89"),
        (r"nvidia_geforce_rtx_50\d\d(_.*)?|nvidia_rtx_pro_\d+_blackwell(_.*)?", "sm_120"),
    )
)

# Families of one vendor by age: configs are borrowed from the nearest first.
_VENDORS: tuple[tuple[str, ...], ...] = (
    ("volta", "turing", "ampere", "ada", "hopper", "blackwell"),
    ("cdna2", "cdna3", "cdna4"),
)

# Words behind the name of a base that make variants of it: form factor, memory, cooling, and the
# share of the memory that a virtual GPU has. It has the whole GPU by turns.
_VARIANT: Final = re.compile(
    r"sxm\d?|pcie|nvl|oam|hf|vf|ac|\d+gb?|hbm\d\w?|3e|d|\d+[abcq]"
    r"|nvgpu|max|q|workstation|server|edition"
)

# An instance of a divided GPU, by itself or of a virtual one: a part of the multiprocessors.
_INSTANCE: Final = re.compile(r"_(mig_\d+[cg]_.+|\d_\d+c(me)?)$")

# Names that AMD's tools have for the same GPU: without the X, or of both that it may be.
_SAME: dict[str, str] = {
    "amd_instinct_mi250": "amd_instinct_mi250x",
    "amd_instinct_mi250x_mi250": "amd_instinct_mi250x",
    "amd_instinct_mi308": "amd_instinct_mi308x",
    "amd_instinct_mi325": "amd_instinct_mi325x",
    "amd_instinct_mi350": "amd_instinct_mi350x",
    "amd_instinct_mi355": "amd_instinct_mi355x",
}

# Streaming multiprocessors of NVIDIA's GPUs, and of variants that have others, by a word of theirs.
# NVIDIA's whitepapers on Volta, Turing, Ampere, Hopper, Ada and Blackwell; for GB200, B300, GB300,
# H20 and A10G what `torch.cuda.get_device_properties` reports as multi_processor_count.
_SMS: dict[str, int] = {
    "tesla_v100": 80, "tesla_t4": 40,
    "nvidia_a100": 108, "nvidia_a800": 108, "nvidia_a30": 56, "nvidia_a10": 72, "nvidia_a10g": 80,
    "nvidia_a40": 84, "nvidia_l40s": 142, "nvidia_l40": 142, "nvidia_l20": 92, "nvidia_l4": 58,
    "nvidia_rtx_6000_ada_generation": 142, "nvidia_geforce_rtx_4090": 128,
    "nvidia_h100": 132, "nvidia_h200": 132, "nvidia_gh200": 132, "nvidia_h800": 132,
    "nvidia_h20": 78,
    "nvidia_b200": 148, "nvidia_gb200": 152, "nvidia_b300": 148, "nvidia_gb300": 152,
    "nvidia_rtx_pro_6000_blackwell": 188, "nvidia_geforce_rtx_5090": 170,
}  # fmt: skip
_OTHER_SMS = {("nvidia_h100", "pcie"): 114, ("nvidia_h800", "pcie"): 114,
              ("nvidia_geforce_rtx_4090", "d"): 114}  # fmt: skip


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
    """Return the names of the GPUs that others are variants of, or near."""
    return tuple(_BASES)


def resolve(
    name: str,
    *,
    extra: Mapping[str, str] = {},
    variants: Literal["together", "apart"] = "together",
    arch: str | None = None,
) -> Platform:
    """Return the platform of a GPU by its name, or of a platform by its own.

    `extra` names the platforms of further GPUs. With `variants` apart, a variant has configs of
    its own and shares none with its base, unless `extra` names its platform. An instance of a GPU
    always has, and borrows from the whole one first. `arch` is the architecture of this machine's
    GPU, and counts where the name tells none.
    """
    gpu = canonical(name)
    further = {canonical(key): canonical(platform) for key, platform in extra.items()}
    own = further.get(gpu, gpu)
    instance = _INSTANCE.search(own)
    base = _base(own[: instance.start()] if instance else own)
    arch = _arch(base) or arch
    family, shared, _ = _ARCHITECTURES.get(arch or "", (None, None, ()))
    shared_name = base + (instance[0] if instance else "")
    return Platform(
        name=shared_name if variants == "together" else own,
        gpu=gpu,
        base=base,
        family=family,
        arch=arch,
        shared_memory=None if shared is None else shared * 1024,
        sms=None if instance else _sms(base, own),
    )


def _base(name: str) -> str:
    """Return the platform that a GPU is a variant of, or the name itself."""
    words = re.sub("^grid_", "nvidia_", name).split("_")
    while True:
        found = "_".join(words)
        found = _SAME.get(found, found)
        if found in _BASES:
            return found
        if not words or not _VARIANT.fullmatch(words.pop()):
            return name


def _sms(base: str, name: str) -> int | None:
    """Return how many multiprocessors a GPU has, by its base and the words of its own name."""
    others = (_OTHER_SMS.get((base, word)) for word in name.removeprefix(base).split("_"))
    return next(filter(None, others), _SMS.get(base))


def _arch(base: str) -> str | None:
    """Return the architecture that a name tells, which may be its own."""
    if base in _ARCHITECTURES:
        return base
    lines = (arch for line, arch in _LINES if line.fullmatch(base))
    return _BASES.get(base) or next(lines, None)


def platform_of(pack: PackSpec, name: str) -> Platform:
    """Return the platform of a GPU, or of a platform by its own name, as a pack's manifest has it.

    Raises UsageError for a name without a letter or digit.
    """
    try:
        return resolve(name, extra=pack.platforms, variants=pack.variants)
    except ValueError:
        message = f"platform '{name}' is not a name such as nvidia_h200 or cpu"
        raise UsageError(message) from None


def chosen_platforms(
    pack: PackSpec, names: Iterable[str], there: Collection[str]
) -> tuple[str, ...]:
    """Return platforms that a user named, or GPUs, by name; `there` are those with config files.

    Raises UsageError for a name that is neither known, nor `there`, nor of the pack's manifest.
    """
    found: dict[str, None] = {}
    for name in names:
        platform = platform_of(pack, name)
        if (spelled := canonical(name)) in there:
            found[spelled] = None
            continue
        declared = map(canonical, pack.platforms.values())
        if platform.arch is None and platform.name not in (*there, *declared, CPU):
            tail = next((gpu for gpu in _BASES if gpu.endswith(f"_{spelled}")), platform.name)
            hint = suggestion(tail, [*there, *known()])
            hint = hint or f"; the pack has files for {', '.join(sorted(there)) or 'none'}"
            raise UsageError(f"'{name}' is not a platform that is known here{hint}")
        found[platform.name] = None
    return tuple(found)


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
        _ORDER.get(there.base, len(_ORDER)),
    )
