"""Config fit: one config against what its variants bind to, and against Helion's own rules.

Helion takes positional lists of any length, and entries that mean nothing to it; what it changes
in a config, it changes in silence.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Final

from attrs import define, field
from helion.autotuner.config_fragment import (
    BaseIntegerFragment,
    BooleanFragment,
    EnumFragment,
    PowerOfTwoFragment,
)

from kernelpkg.check.causes import Occurrence
from kernelpkg.compile import helion as helion_backend
from kernelpkg.compile.bind import Binding, Refused, known_fields
from kernelpkg.compile.variants import FiledConfig, Variant
from kernelpkg.configs.platforms import Platform
from kernelpkg.configs.store import shown_json
from kernelpkg.errors import Problem, Severity, counted, suggestion
from kernelpkg.manifest.helion_config import FIELDS, Config, wanted_instead

_STAGES: Final = 8
"""The most stages that Helion tunes for NVIDIA's GPUs; more is not refused anywhere."""

_AMD_WARPS: Final = 16
"""1024 threads of a block over 64 threads of a wave: AMD's CDNA instruction set references."""

_SILENT: Final[Mapping[str, object]] = {"num_sm_multiplier": 1}
"""Values that say the same as no value, beside None, False, "" and empty lists."""


def fit(
    filed: FiledConfig, platform: Platform, pairs: Sequence[tuple[Variant, Binding]]
) -> tuple[Occurrence, ...]:
    """Return what is wrong with a config for the variants that it serves, each bound."""
    config = _ConfigFit(filed=filed, platform=platform, pairs=pairs)
    config.run()
    return tuple(dict.fromkeys(config.found))


def overfull(config: Config, binding: Binding) -> list[tuple[int, int, int]]:
    """Return (place, block, largest block of use) where code knows the size of a dimension."""
    sizes = config.get("block_sizes")
    pairs = zip(sizes, binding.limits, strict=False) if isinstance(sizes, list) else ()
    return [
        (place, size, most)
        for place, (size, most) in enumerate(pairs)
        if most is not None and type(size) is int and size > most
    ]


@define(kw_only=True)
class _ConfigFit:
    """One config, what it must fit, and what is wrong with it so far."""

    filed: FiledConfig
    platform: Platform
    pairs: Sequence[tuple[Variant, Binding]]
    found: list[Occurrence] = field(factory=list)

    @property
    def config(self) -> Config:
        return self.filed.config

    def add(
        self,
        code: str,
        at: str,
        text: str,
        severity: Severity = "error",
        cause: Hashable = None,
    ) -> None:
        """Add what is wrong with a field; the first case tells people whose config it is."""
        case = self.filed.variants[0].cases[0]
        default = self.filed.place < 0
        label = "[helion] default" if default else f"config {self.filed.place} (case {case})"
        problem = Problem(
            path=self.filed.path,
            line=self.filed.line(at),
            code=code,
            severity=severity,
            message=f": {text}",
            level=1,
        )
        one = Occurrence(problem=problem, label=label, size=case.size(), cause=cause)
        self.found.append(one)

    def run(self) -> None:
        """Check lists, values and fields, and then what Helion makes of it all."""
        self.numbers()
        for name in self.config:
            self.lengths(name)
        for _, binding in self.pairs:
            for name, value in self.config.items():
                self.known(name, binding)
                self.values(name, value, binding)
            self.blocks(binding)
        if all(one.problem.severity == "unverified" for one in self.found):
            for variant, binding in self.pairs:
                self.normal(variant, binding)

    def numbers(self) -> None:
        """Check the numbers that every block has."""
        arch, warps = self.platform.arch or "", self.config.get("num_warps", 1)
        if arch.startswith("gfx") and type(warps) is int and warps > _AMD_WARPS:
            text = f"num_warps is {warps}, and a block of {arch} has {_AMD_WARPS} waves at most"
            self.add("KP242", "num_warps", f"{text}; tune it again")
        stages = self.config.get("num_stages", 1)
        if type(stages) is int and stages > _STAGES:
            text = f"num_stages is {stages}, above the {_STAGES} that Helion tunes"
            self.add("KP248", "num_stages", f"{text}; only a GPU can tell", "unverified")

    def lengths(self, name: str) -> None:
        """Check the number of entries of a list, for all variants together."""
        value = self.config[name]
        if not value or isinstance(value, str):  # a text is for all; no entries are Helion's own
            return
        got = len(value) if isinstance(value, list | tuple) else 1
        wanted = [(variant, b.lengths[name]) for variant, b in self.pairs if name in b.lengths]
        wrong = [(variant, sizes) for variant, sizes in wanted if got not in sizes]
        right = [variant for variant, sizes in wanted if got in sizes]
        if not wrong:
            return
        variant, sizes = wrong[0]
        entries = f"{name} has {counted(got, 'entry', 'entries')}"
        if right:
            other = counted(sizes[0], "is", "are")
            text = f"{entries}, as is right for {right[0]}, and {other} for {variant}"
            self.add("KP246", name, f"{text}; give each a config of its own")
        else:
            of = f", for {variant}" if variant.facts else ""
            text = f"{entries}, and the kernel has {sizes[0]}{of}"
            if name == "range_warp_specializes" and self.platform.arch is None:
                text = f"{text} on GPUs that do not specialise warps; only a GPU can tell"
                self.add("KP248", name, text, "unverified")
            else:
                self.add("KP241", name, f"{text}; tune it again", cause=(name, got, sizes))

    def known(self, name: str, binding: Binding) -> None:
        """Check that the installed Helion has a field for the kernel."""
        if name in binding.fields:
            return
        if name not in FIELDS:
            text = f"field '{name}' is not registered by the kernel for {binding.case}"
            self.add("KP244", name, f"{text}; remove it", cause=name)
            return
        helion = f"Helion {helion_backend.HELION_VERSION}"
        if binding.target.capability is None:
            text = f"field '{name}' is nothing that {helion} takes without the GPU"
            self.add("KP248", name, f"{text}; only a GPU can tell", "unverified")
        elif name in known_fields():
            text = f"field '{name}' is not for this kernel on {self.platform.name or 'NVIDIA'}"
            self.add("KP244", name, f"{text}; {helion} ignores or refuses it, remove it")
        else:
            self.add("KP244", name, f"field '{name}' is not known to {helion}; tune it again")

    def values(self, name: str, value: Any, binding: Binding) -> None:
        """Check each entry of a list that has few values, the kind of program ids, and tunables."""
        wanted = _wanted(binding.tunables.get(name), value)
        if wanted is not None:
            text = f"{name} is {shown_json(value)}; as the kernel registers it, it must be {wanted}"
            self.add("KP242", name, text, cause=name)
        choices = binding.choices.get(name)
        if choices is None or wanted_instead(name, value) is not None:  # the latter is level 0's
            return
        entries = value if isinstance(value, list | tuple) else [value]
        for place, entry in enumerate(entries):
            if entry in choices:
                continue
            of = f"{name}[{place}]" if isinstance(value, list | tuple) else name
            wanted = ", ".join(map(repr, choices))
            text = f"{of} is {shown_json(entry)}, and must be one of {wanted}"
            if binding.target.capability is None:
                self.add("KP248", name, f"{text}, as far as can be told here", "unverified")
            else:
                self.add("KP242", name, f"{text}{suggestion(str(entry), choices)}")

    def blocks(self, binding: Binding) -> None:
        """Check that no block is larger than what it divides; a default serves all sizes."""
        for place, size, most in overfull(self.config, binding) if self.filed.place >= 0 else ():
            text = f"block_sizes[{place}] is {size}, and the dimension fills {most} at most"
            self.add("KP242", "block_sizes", f"{text}; tune it again")

    def normal(self, variant: Variant, binding: Binding) -> None:
        """Let Helion normalise the config, and tell what it refuses or changes."""
        try:
            made = binding.normalised(self.config)
        except Refused as error:
            helion = f"Helion {helion_backend.HELION_VERSION}"
            if binding.target.capability is None:
                text = f"{helion} refuses it without the GPU: {error}"
                self.add("KP248", "", text, "unverified")
            else:
                self.add("KP243", "", f"{helion} refuses it for {variant or 'every call'}: {error}")
            return
        for name, given in self.config.items():
            after = made.get(name)
            if _says(name, given) is None or _says(name, given) == _says(name, after):
                continue
            if binding.target.capability is None:
                continue  # without the GPU, Helion drops what is only for it
            became = "is dropped" if after is None else f"becomes {shown_json(after)}"
            text = f"{name} is {shown_json(given)}, and in Helion {became}; write what it does"
            self.add("KP245", name, text, cause=name)


def _wanted(fragment: Any, value: Any) -> str | None:
    """Return what a field must be that a function registers, where it is something else."""
    match fragment:
        case BooleanFragment():
            return None if isinstance(value, bool) else "true or false"
        case EnumFragment(choices=choices):
            return None if value in choices else f"one of {', '.join(map(repr, choices))}"
        case BaseIntegerFragment(low=low, high=high):
            powers = isinstance(fragment, PowerOfTwoFragment)
            fits = type(value) is int and low <= value <= high
            if fits and not (powers and value & (value - 1)):
                return None
            return f"a {'power of two' if powers else 'whole number'} from {low} to {high}"
    return None


def _says(name: str, value: Any) -> object:
    """Return what a value of a field says: None for nothing, and lists as tuples."""
    if value in (None, False, "") or value == _SILENT.get(name, ()):
        return None
    if isinstance(value, list | tuple):
        entries = tuple(_says("", entry) for entry in value)
        return None if all(entry in (None, 0) for entry in entries) else entries
    return value
