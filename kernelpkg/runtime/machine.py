"""What this machine has: the device to run on, and the platform whose configs are its own."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final, Literal

import torch
from attrs import frozen

from kernelpkg.configs import platforms
from kernelpkg.configs.platforms import Platform
from kernelpkg.errors import UsageError

Device = Literal["auto", "cpu", "cuda"]

_SET: Final = frozenset({"1", "true", "yes", "on"})
_UNSET: Final = frozenset({"", "0", "false", "no", "off"})


@frozen(kw_only=True)
class Machine:
    """Where ops run: `device` is "cpu" or "cuda"; `interpret` says that nothing is compiled."""

    device: Literal["cpu", "cuda"]
    gpu: str | None
    platform: Platform
    interpret: bool


def detect(
    device: Device = "auto",
    *,
    extra: Mapping[str, str] = {},
    variants: Literal["together", "apart"] = "together",
) -> Machine:
    """Look at this machine; "auto" takes the current GPU where there is one.

    HELION_INTERPRET=1 lets everything run in Helion's interpreter, on a GPU too. Raises UsageError
    where "cuda" is asked for and PyTorch sees no GPU.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise UsageError(f"device '{device}' is none of auto, cpu and cuda")
    has_gpu = device != "cpu" and torch.cuda.is_available()
    if device == "cuda" and not has_gpu:
        raise UsageError("device 'cuda' was asked for, and PyTorch sees no GPU")
    if not has_gpu:
        return Machine(
            device="cpu", gpu=None, platform=platforms.resolve(platforms.CPU), interpret=True
        )
    gpu = torch.cuda.get_device_name()
    return Machine(
        device="cuda",
        gpu=gpu,
        platform=platforms.resolve(gpu, extra=extra, variants=variants),
        interpret=asked_to_interpret(),
    )


def asked_to_interpret(environment: Mapping[str, str] | None = None) -> bool:
    """Whether HELION_INTERPRET is set, in Helion's words; raises UsageError for any other."""
    environment = os.environ if environment is None else environment
    word = environment.get("HELION_INTERPRET", "").strip().lower()
    if word not in _SET | _UNSET:
        raise UsageError(
            f"HELION_INTERPRET is '{word}'; Helion takes {', '.join(sorted(_SET))} and "
            f"{', '.join(sorted(_UNSET - {''}))}"
        )
    return word in _SET
