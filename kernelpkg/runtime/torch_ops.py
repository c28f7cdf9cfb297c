"""Ops of PyTorch: defined, implemented and taken back with `torch.library`."""

from __future__ import annotations

import inspect
import os
import re
import sys
import threading
import time
import types
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Final, Literal

import torch
from attrs import frozen
from torch._ops import OpOverload, OpOverloadPacket
from torch.library import Library

from kernelpkg.bench.gpu import first_gpu
from kernelpkg.configs import platforms
from kernelpkg.configs.platforms import Platform
from kernelpkg.errors import RegistrationError, UsageError, shown
from kernelpkg.launch import native
from kernelpkg.manifest.opschema import OpSchema, parse_schema
from kernelpkg.runtime import gradients, graphs
from kernelpkg.runtime.gradients import Gradient

LONGEST_CALL: Final = 10.0
"""How many seconds an op that is taken back waits for calls that other threads are making."""

DEVICES: Final = ("CPU", "CUDA")
"""The dispatch keys that every op has an implementation for."""

_TRANSFORMS: Final = "FuncTorchDynamicLayerBackMode"
"""The one that PyTorch comes by below a transform of torch.func, and never without one."""

RESERVED: Final = frozenset({"aten", "prim", "prims", "c10", "inductor", "higher_order", "_C"})
"""Namespaces of PyTorch and, for the last, of vLLM; ops of a pack go into one of their own."""


def name_problem(namespace: str, name: str) -> str | None:
    """Say why an op cannot have a name, or return None; asks the dispatcher, changes nothing."""
    if namespace in RESERVED:
        return f"namespace '{namespace}' is in use by PyTorch or vLLM; give the pack its own"
    if torch._C._dispatch_has_kernel(f"{namespace}::{name}") or _defined(f"{namespace}::{name}"):
        return f"op '{namespace}::{name}' is registered already, by another library"
    return None


def _defined(qualified: str) -> bool:
    try:
        operation, _ = torch._C._jit_get_operation(qualified)
    except RuntimeError:
        return False
    return operation is not None


def know_this_module() -> None:
    """Let `inspect` find this module, as it must for each fake implementation that is registered.

    The first time it would go through all modules, at 40 us each: 0.1 s of any load.
    """
    frame = inspect.currentframe()
    assert frame is not None, "this is CPython"
    # Its table is not documented. Where there is none, the search is made now, before kernels are
    # among the modules.
    known: dict[str, str] = getattr(inspect, "modulesbyfile", {})
    known[inspect.getabsfile(frame)] = __name__
    inspect.getmodule(frame)


class RegisteredOp:
    """One op in PyTorch's dispatcher, for as long as this object is not closed.

    `check_grad` raises for arguments that a gradient is wanted of, and not to be had from
    `gradient`. `interface` is the digest of what graphs take from the op. It may take the place of
    another one of its name, `instead_of`, which is closed by that; where it cannot, that one stays.
    """

    def __init__(
        self,
        *,
        namespace: str,
        name: str,
        schema: str,
        implementation: Callable[..., Any],
        fake: Callable[..., Any],
        check_grad: Callable[[Sequence[Any]], None] = lambda _: None,
        gradient: Gradient | None = None,
        interface: str = "",
        instead_of: RegisteredOp | None = None,
    ) -> None:
        self.namespace = namespace
        self.name = name
        self._schema = schema
        self._implementation = implementation
        self._interface = interface
        # What PyTorch calls looks these up here, whoever has the library by then.
        self._functions = {"fake": fake, "check_grad": check_grad, "gradient": gradient}
        self._library: Library | None = None
        if instead_of is not None and instead_of._is_like(self):
            self._take_over(instead_of)
            return
        if instead_of is not None:
            instead_of.close()
        try:
            self._open()
        except RegistrationError:
            if instead_of is not None:
                instead_of._open()
            raise

    def _is_like(self, other: RegisteredOp) -> bool:
        """Whether another op can be registered by changing what this one has registered."""
        kinds = [op._functions["gradient"] is None for op in (self, other)]
        return self._schema == other._schema and kinds[0] is kinds[1]

    def _open(self) -> None:
        self._library = Library(self.namespace, "FRAGMENT")  # closed below
        defined = False
        try:
            self._library.define(f"{self.name}{self._schema}", tags=(torch.Tag.pt2_compliant_tag,))
            defined = True
            self._implement()
            fake = partial(_fake, self._functions)
            torch.library.register_fake(self.qualified, fake, lib=self._library)
            transformed = partial(_transformed, self.call.default, self._functions)
            self._library.impl(self.name, transformed, _TRANSFORMS)
            native.enable_quick_dispatch(self.call)
        except Exception as error:
            if defined:
                self.close()
            else:
                self._library._destroy()
            text = " ".join(str(error).split())
            raise RegistrationError(f"op '{self.qualified}' cannot be registered: {text}") from None
        graphs.put(self.qualified, self._interface)

    def _implement(self, *, again: bool = False) -> None:
        assert self._library is not None
        for key in DEVICES:
            self._library.impl(self.name, self._implementation, key, allow_override=again)
        if self._functions["gradient"] is not None:
            called = gradients.implementation(
                self.call.default, self._functions, self._implementation
            )
            self._library.impl(
                self.name, called, gradients.AUTOGRAD, with_keyset=True, allow_override=again
            )

    def _take_over(self, before: RegisteredOp) -> None:
        """Answer the calls of an op of this schema from now on, without a gap.

        What is registered is not freed: a call that is on its way in another thread has pointers to
        the schema and the implementation, and the process would end with a segmentation fault.
        """
        before._functions.update(self._functions)
        self._functions = before._functions
        self._library, before._library = before._library, None
        with overriding():
            self._implement(again=True)
        native.enable_quick_dispatch(self.call)
        graphs.put(self.qualified, self._interface)

    @property
    def qualified(self) -> str:
        """The name with its namespace, as in "kernelpkg::silu_mul_fp8"."""
        return f"{self.namespace}::{self.name}"

    @property
    def call(self) -> Any:
        """The op as it is called: `torch.ops.<namespace>.<name>`."""
        return getattr(getattr(torch.ops, self.namespace), self.name)

    def close(self) -> None:
        """Give the name back; calls through objects taken earlier raise from then on.

        Raises RegistrationError where another thread is still calling the op after some seconds.
        """
        if self._library is None:
            return
        ended = self._end_objects()
        if not _wait_for_calls(self.qualified):
            for call, kind in ended:
                call.__class__ = kind
            raise RegistrationError(
                f"op '{self.qualified}' is being called, and cannot be unloaded; wait for the "
                "call to end"
            )
        graphs.take(self.qualified)
        self._library._destroy()
        self._library = None
        namespace = getattr(torch.ops, self.namespace)
        vars(namespace).pop(self.name, None)
        if self.name in getattr(namespace, "_dir", ()):
            namespace._dir.remove(self.name)

    def _end_objects(self) -> list[tuple[Any, type]]:
        """Let the objects of PyTorch that call the op raise; returns them, as they were.

        Who holds `torch.ops.ns.op` still calls through it: PyTorch (2.11 to 2.14) then follows a
        pointer to a schema that is gone, and the process ends with a segmentation fault.
        """
        packet = self.call
        overloads = [value for value in vars(packet).values() if isinstance(value, OpOverload)]
        ended = [(call, call.__class__) for call in (packet, *overloads)]
        for overload in overloads:
            overload.__class__ = _ClosedOverload
        packet.__class__ = _ClosedPacket
        return ended


def _fake(functions: Mapping[str, Any], *args: Any) -> Any:
    return functions["fake"](*args)


def _transformed(op: Any, functions: Mapping[str, Any], *args: Any, **named: Any) -> Any:
    """Answer a call below a transform of torch.func, as PyTorch would, or raise for a gradient.

    The tensors that an implementation gets no longer say that a transform wants a gradient of them;
    those that come here do.
    """
    from torch._functorch.pyfunctorch import retrieve_current_functorch_interpreter

    functions["check_grad"](args)
    interpreter = retrieve_current_functorch_interpreter()
    functorch = torch._C._functorch
    kinds = (functorch.TransformType.Grad, functorch.TransformType.Jvp)
    level = interpreter.level() if interpreter.key() in kinds else None

    def each(function: Callable[[Any, int], Any], values: Any) -> Any:
        def one(value: Any) -> Any:
            if level is None or not isinstance(value, torch.Tensor):
                return value
            return function(value, level)

        return tuple(map(one, values)) if isinstance(values, tuple) else one(values)

    lowered = each(functorch._unwrap_for_grad, args)
    with interpreter.lower():
        results = op(*lowered, **named)
    return each(functorch._wrap_for_grad, results)


@contextmanager
def overriding() -> Iterator[None]:
    """Keep PyTorch from warning of a kernel that takes another one's place."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "(?s).*Overriding a previously registered kernel")
        yield


def _wait_for_calls(qualified: str) -> bool:
    """Wait until no other thread is calling an op through Python; returns whether that came.

    A call is on its way as long as a function of PyTorch that calls ops is on a thread's stack.
    """
    end = time.monotonic() + LONGEST_CALL
    while _being_called(qualified):
        if time.monotonic() > end:
            return False
        time.sleep(0.001)
    return True


def _being_called(qualified: str) -> bool:
    calling = (OpOverload.__call__, OpOverloadPacket.__call__)
    codes = [getattr(function, "__code__", None) for function in calling]
    frames = sys._current_frames()
    frames.pop(threading.get_ident(), None)
    for top in frames.values():
        frame: types.FrameType | None = top
        while frame is not None:
            if frame.f_code in codes and _name_of(frame.f_locals["self"]) == qualified:
                return True
            frame = frame.f_back
    return False


def _name_of(op: OpOverload | OpOverloadPacket) -> str:
    """Return the name of the op that an object of PyTorch calls, without its overload."""
    packet = op.overloadpacket if isinstance(op, OpOverload) else op
    name: str = packet._qualified_op_name
    return name


class _ClosedOverload(OpOverload):
    """What an op that was taken back becomes for those who still hold it."""

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        raise RegistrationError(f"op '{self.name()}' was unloaded; load its pack again")


class _ClosedPacket(OpOverloadPacket):
    """The same, of all overloads of an op together."""

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        name = self._qualified_op_name
        raise RegistrationError(f"op '{name}' was unloaded; load its pack again")


def infer_schema(function: Callable[..., Any], mutates_args: tuple[str, ...]) -> str:
    """Return the schema of a function with annotations, as torch.library infers it.

    Aliases are of letters alone, as people write them; torch.library counts them as a0, a1, ….
    """
    schema: str = torch.library.infer_schema(function, mutates_args=mutates_args)
    return re.sub(r"(?<=Tensor\()a([0-9]+)(?=!\))", _letters, schema)


def schema_of(
    function: Callable[..., Any], op_name: str, mutates_args: Sequence[str] | None
) -> OpSchema:
    """Return the schema of an op by the annotations of its function, or raise RegistrationError."""
    wrong = ""
    if not inspect.isfunction(function):
        wrong = f"{shown(function)} is not a function; give one without a decorator"
    elif isinstance(mutates_args, str):
        wrong = f"mutates_args is {shown(mutates_args)}; give a list of names"
    if wrong:
        raise RegistrationError(f"kernel '{op_name}': {wrong}")
    try:
        return parse_schema(infer_schema(function, tuple(mutates_args or ())))
    except ValueError as error:
        text = " ".join(str(error).split())
        raise RegistrationError(
            f"kernel '{op_name}': no schema for its signature: {text}"
        ) from None


def _letters(found: re.Match[str]) -> str:
    first, second = divmod(int(found[1]), 26)
    return chr(ord("a") + first) + chr(ord("a") + second)


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

    CUDA is not started, so that processes that are forked later can. HELION_INTERPRET=1 lets
    everything run in Helion's interpreter, on a GPU too. Raises UsageError where "cuda" is asked
    for and PyTorch sees no GPU.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise UsageError(f"device '{device}' must be auto, cpu or cuda")
    has_gpu = device != "cpu" and torch.cuda.device_count() > 0  # `is_available` starts CUDA
    if device == "cuda" and not has_gpu:
        raise UsageError("device 'cuda' was asked for, but PyTorch sees no GPU")
    if not has_gpu:
        return Machine(
            device="cpu", gpu=None, platform=platforms.resolve(platforms.CPU), interpret=True
        )
    gpu = first_gpu(os.environ)
    return Machine(
        device="cuda",
        gpu=gpu.called,
        platform=platforms.resolve(gpu.called, extra=extra, variants=variants, arch=gpu.arch),
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
