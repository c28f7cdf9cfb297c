"""The compiled code of one kernel, by config and class of calls; what launches a call with it.

Helion makes a module for a config and a class of calls, and Triton code of it for the facts of the
arguments. What is launched then is a recorded launch, which needs neither; where the host part
cannot be recorded, it is run at each call, as Helion runs it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from contextvars import copy_context
from typing import Any

import helion
import torch
import triton
from attrs import define, field

from kernelpkg.compile.cubin import Address, described
from kernelpkg.compile.granted import exact_of, facts_of
from kernelpkg.compile.helion import PINNED, WORKING, ConfiguredHelionKernel, Selection
from kernelpkg.launch.classes import ClassRule, untrue
from kernelpkg.launch.code import (
    ALIGNMENT,
    Code,
    Handles,
    choose,
    count_reason,
    pointer_offsets,
    recorded,
)
from kernelpkg.launch.host import HostCall, NotRecorded, Pointer, arch_of, device_of, record
from kernelpkg.locks import make_lock


@define(kw_only=True)
class _Generated:
    """What Helion made: the host part, and the code that Triton made so far."""

    host: Callable[..., Any]
    codes: list[Code] = field(factory=list)


class CompiledCode:
    """The code of a kernel as it is compiled in this process.

    Args:
        configured: The kernel as Helion has it.
    """

    def __init__(self, configured: ConfiguredHelionKernel) -> None:
        self._configured = configured
        self._rule = ClassRule()
        self._bound: dict[str, Any] = {}
        self._generated: dict[tuple[object, str], _Generated] = {}
        self._binaries: dict[str, bytes] = {}
        self._handles = Handles(self._binaries.__getitem__)
        self._lock = make_lock()
        self.unrecorded: dict[str, int] = {}

    def launcher(self, args: Sequence[Any], selection: Selection) -> Callable[..., Any]:
        """Compile a call with a selection and return what launches it; raises ConfigError.

        What is returned is for calls with the signature of `args`, alignment included.
        """
        with self._lock:
            device = device_of(args)
            try:
                generated, call = self._generate(args, selection, device)
                return self._recorded(generated, call, args, device)
            except NotRecorded as error:
                count_reason(self.unrecorded, str(error))
        return _on_device_of(device, self._configured.launcher(args, selection))

    def begin(self, args: Sequence[Any], selection: Selection) -> None:
        """Have the code of a call compiled; within `compiling_in_threads` that is only begun.

        Raises ConfigError. What Triton says of the code is what `launcher` raises later.
        """
        with self._lock, suppress(NotRecorded):
            device, offsets = device_of(args), pointer_offsets(args)
            generated, call = self._generate(args, selection, device)
            if _found(generated.codes, call, offsets) is None:
                _begin(call, offsets, device)

    def known(
        self,
        args: Sequence[Any],
        selection: Selection,
        device: torch.device | None = None,
        *,
        exact: bool,
    ) -> Callable[..., Any] | None:
        """Return what launches a call with code that is there, or None where there is none.

        `args` may be stand-ins without storage of tensors on a `device`. `exact` is for code that
        Triton would compile for just this call; other code that is right for it may be slower.
        """
        with self._lock:
            device = device or device_of(args)
            place = self._place(args, device)
            generated = self._generated.get((selection.config_id, place))
            if generated is None:
                return None
            try:
                call = _recorded_call(generated.host, args, device)
            except NotRecorded:
                return None
            if call.far:
                return None
            find = _found if exact else choose
            code = find(generated.codes, call, pointer_offsets(args))
            if code is None:
                return None
            return recorded(code, call, device.index or 0, self._handles.load)

    def compiled_count(self) -> int:
        """How many modules Helion made."""
        return len(self._generated)

    def code_count(self) -> int:
        """How many kernels Triton made of them."""
        return sum(len(generated.codes) for generated in self._generated.values())

    def _generate(
        self, args: Sequence[Any], selection: Selection, device: torch.device
    ) -> tuple[_Generated, HostCall]:
        """Return what Helion makes of a call, and what its host part launches with."""
        generated = self._find(args, selection, device)
        call = _recorded_call(generated.host, args, device)
        if call.far:
            generated = self._find(args, selection, device, far=True)
            call = _recorded_call(generated.host, args, device)
        return generated, call

    def _place(self, args: Sequence[Any], device: torch.device, *, far: bool = False) -> str:
        """What calls have in common that share code, whatever their config."""
        return f"{arch_of(device)} {self._rule.class_of(args, far=far)}"

    def _find(
        self,
        args: Sequence[Any],
        selection: Selection,
        device: torch.device,
        *,
        far: bool = False,
    ) -> _Generated:
        """Return what Helion makes of a config for the class of a call, which it binds once."""
        place = self._place(args, device, far=far)
        found = self._generated.get((selection.config_id, place))
        if found is None:
            # Helion 1.5 tells calls apart by whatever any config could make a difference of, as
            # long as it does not know the config; so what it binds is kept by classes of our own.
            before = self._bound.get(place)
            bound = before or self._configured.bind(args, far=far)
            host = self._configured.host_part(bound, selection)
            if before is None and untrue(facts_of(bound), args):  # it was bound to other sizes
                return self._find(args, selection, device, far=far)
            rule = self._rule.learned(args, exact_of(bound), facts_of(bound))
            if rule != self._rule:  # classes are told apart by more than before
                # Facts alone rename classes of one kind; nothing else is looked for elsewhere then.
                of = rule.kind_of(args) if rule.exact == self._rule.exact else ""
                self._rule = rule
                made, bindings = self._generated.items(), self._bound.items()
                self._generated = {at: one for at, one in made if not _is_of(of, at[1])}
                self._bound = {at: one for at, one in bindings if not _is_of(of, at)}
                if before is not None:  # it may have been bound to other sizes than these
                    return self._find(args, selection, device, far=far)
                place = self._place(args, device, far=far)
            self._bound[place] = bound
            found = self._generated[selection.config_id, place] = _Generated(host=host)
        return found

    def _recorded(
        self, generated: _Generated, call: HostCall, args: Sequence[Any], device: torch.device
    ) -> Callable[..., Any]:
        offsets = pointer_offsets(args)
        made = _found(generated.codes, call, offsets)
        if made is None:
            compiled = _compile(call, offsets, device)
            made = Code.of(described(compiled))
            self._binaries[made.cubin] = compiled.asm["cubin"]
            if made not in generated.codes:
                generated.codes.append(made)
        return recorded(made, call, device.index or 0, self._handles.load)


def _is_of(kind: str, place: str) -> bool:
    return place.partition(" ")[2].startswith(kind)


@contextmanager
def _answering_for(device: torch.device) -> Iterator[None]:
    """Let host parts that run on stand-ins hear how many multiprocessors a GPU has."""
    before = helion.runtime.get_num_sm

    def get_num_sm(asked: torch.device, **options: Any) -> int:
        found: int = before(device if asked.type == "meta" else asked, **options)
        return found

    helion.runtime.get_num_sm = get_num_sm
    try:
        yield
    finally:
        helion.runtime.get_num_sm = before


def _recorded_call(host: Callable[..., Any], args: Sequence[Any], device: torch.device) -> HostCall:
    """Record what Helion's host part does; raises NotRecorded."""
    with WORKING, _answering_for(device):
        return record(host, args, device)


def _found(codes: Sequence[Code], call: HostCall, offsets: Sequence[int]) -> Code | None:
    """Return the code among some that Triton would compile for a launch, or None."""
    code = choose(codes, call, offsets)
    return code if code is not None and _is_exact(code, call, offsets) else None


def _is_exact(code: Code, call: HostCall, offsets: Sequence[int]) -> bool:
    """Whether code is just what Triton would compile for a launch, and not only right for it."""
    for place, (kind, value) in enumerate(zip(code.types, call.args, strict=True)):
        if isinstance(value, Pointer):
            start = 0 if value.source < 0 else offsets[value.source]
            aligned = (start + value.delta) % ALIGNMENT == 0
        elif isinstance(value, int) and not isinstance(value, bool) and kind != "constexpr":
            aligned = value % ALIGNMENT == 0
            if value == 1:
                return False
        else:
            continue
        if aligned != (place in code.divisible):
            return False
    return True


def _compile(call: HostCall, offsets: Sequence[int], device: torch.device) -> Any:
    """Have Triton compile a launch for a device, and wait for it."""
    found = _begin(call, offsets, device)
    return found.result() if hasattr(found, "result") else found


def _begin(call: HostCall, offsets: Sequence[int], device: torch.device) -> Any:
    """Have Triton compile a launch for a device; its hooks are told, as of every kernel."""
    args = [
        Address(arg.dtype, arg.delta + (0 if arg.source < 0 else offsets[arg.source]))
        if isinstance(arg, Pointer)
        else arg
        for arg in call.args
    ]
    options: Mapping[str, Any] = {**PINNED, **call.options}
    with torch.cuda.device(device):
        return call.kernel.warmup(*args, grid=call.grid, **options)


def compiling_in_threads(steps: Iterable[Callable[[], None]], threads: int) -> None:
    """Take steps that begin to compile, and let so many threads compile meanwhile; wait for them.

    Helion works in this thread. Triton compiles each code once, and keeps it for who asks next;
    whatever fails is tried again then, and raises there.
    """

    def take() -> None:
        with triton.AsyncCompileMode(pool, ignore_errors=True):
            for step in steps:
                with suppress(Exception):
                    step()

    pool = ThreadPoolExecutor(threads)
    try:
        # In a context of its own: Triton 3.6 does not leave its mode where a step is interrupted.
        copy_context().run(take)
    finally:
        pool.shutdown(cancel_futures=True)


def _on_device_of(device: torch.device, launch: Callable[..., Any]) -> Callable[..., Any]:
    """Let a launcher of Triton's run on the GPU of its tensors, wherever the current one is."""
    if torch.cuda.device_count() < 2:
        return launch

    def launch_there(*args: Any) -> Any:
        with torch.cuda.device(device):
            return launch(*args)

    return launch_there
