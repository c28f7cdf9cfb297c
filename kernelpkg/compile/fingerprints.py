"""Structural fingerprints: what configs of a kernel are made of, by variant, as Helion finds it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from kernelpkg.compile.bind import Binder, Target
from kernelpkg.compile.variants import known_cases, variants_of
from kernelpkg.digest import digest_bytes
from kernelpkg.manifest.spec import KernelSpec

_TARGET: Final = Target(capability=(9, 0))
"""One GPU for all machines, so that what is taken on one of them is found again on another."""


def fingerprints(spec: KernelSpec) -> Mapping[str, str]:
    """Return a digest per variant; binds each of them on the CPU.

    Raises Unbound or NoInputs for a variant that does not bind.
    """
    binder = Binder(spec)
    return {
        str(variant): digest_bytes(binder.bind(variant.largest, _TARGET).fingerprint.encode())
        for variant in variants_of(spec, known_cases(spec))
    }
