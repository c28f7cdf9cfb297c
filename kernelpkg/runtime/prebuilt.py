"""The code of a build for one kernel: what launches a call with it, without Helion and Triton.

Before: `backend`, which asks it before anything is compiled. After: the launch, by `launch`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch

from kernelpkg.errors import KernelpkgError, PackError
from kernelpkg.launch.classes import ClassRule
from kernelpkg.launch.code import Code, Handles, choose, pointer_offsets, recorded
from kernelpkg.launch.host import (
    HostFunction,
    NotRecorded,
    arch_of,
    device_of,
    make_host,
    record,
)
from kernelpkg.locks import make_lock
from kernelpkg.packs.builds import Build, BuiltKernel, BuiltPart
from kernelpkg.runtime.dispatch import Launch


class NotBuilt(KernelpkgError):
    """A call that a build has no code for; the text says what it lacks."""


class _Part:
    """The code of one config for one class, made ready when a call first asks for it."""

    def __init__(self, part: BuiltPart, op_name: str) -> None:
        self._part = part
        self._op_name = op_name

    def host(self, device: int) -> HostFunction:
        """The host part, for a GPU."""
        sms = 0
        if "get_num_sm" in self._part.host:
            sms = torch.cuda.get_device_properties(device).multi_processor_count
        return make_host(self._part.host, self._op_name, self._part.kernel, sms)

    @cached_property
    def codes(self) -> tuple[Code, ...]:
        """What it was compiled to."""
        return tuple(map(Code.of, self._part.codes))


class BuiltCode:
    """The code that a build has for one kernel.

    Args:
        build: The build, which fits the kernel.
        name: The kernel, and its Helion function.
        function: The name of the Helion function, which the host parts have too.
    """

    def __init__(self, build: Build, name: str, function: str) -> None:
        self.build = build
        self._kernel: BuiltKernel = build.kernels[name]
        self._rule = ClassRule(exact=self._kernel.exact, facts=self._kernel.facts)
        self._parts = {
            (part.config, part.call_class): _Part(part, function) for part in self._kernel.parts
        }
        self._hosts: dict[tuple[str, str, int], HostFunction] = {}
        self._handles = Handles(build.cubin)
        self._lock = make_lock()

    def launcher(
        self, args: Sequence[Any], config_id: str, device: torch.device | None = None
    ) -> Launch:
        """Return what launches calls of one signature with a config; raises NotBuilt, LaunchError.

        `args` may be stand-ins without storage of tensors on a `device`. A binary that is damaged
        or not there is NotBuilt: it is never launched.
        """
        with self._lock:
            found = self._rule.class_of(args)
            part = self._parts.get((config_id, found))
            if part is None:
                raise NotBuilt("the build has no code of its config for calls of its class")
            device = device or device_of(args)
            arch = arch_of(device)
            if arch not in ("", self.build.arch):  # one of several GPUs of this host
                raise NotBuilt(f"the build is for {self.build.arch}, and {device} is {arch}")
            index = device.index or 0
            place = (config_id, found, index)
            host = self._hosts.get(place) or self._hosts.setdefault(place, part.host(index))
            try:
                call = record(host, args, device)
                if call.far:
                    raise NotBuilt("its results need indices of 64 bits")
                code = choose(part.codes, call, pointer_offsets(args))
                if code is None:
                    raise NotBuilt(
                        "the build has no code for the types and alignments of its arguments"
                    )
                return recorded(code, call, index, self._handles.load)
            except NotRecorded as error:
                raise NotBuilt(str(error)) from None
            except PackError as error:
                raise NotBuilt(str(error.problems[0])) from None
