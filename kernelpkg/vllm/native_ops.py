"""Native ops of vLLM as PyTorch has them: imported, found, and called past any override."""

from __future__ import annotations

import ctypes
import os
import re
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from attrs import frozen

from kernelpkg.errors import CallError, KernelpkgError, UsageError, parameter
from kernelpkg.manifest.opschema import NO_DEFAULT, OpArg
from kernelpkg.manifest.spec import KernelSpec, PackSpec
from kernelpkg.packs.routes import NativeSchema, schema_problem
from kernelpkg.runtime.torch_ops import DEVICES


class RouteProblem(KernelpkgError):
    """A native op cannot be routed; its text is the end of a problem's line."""


def import_ops(namespace: str) -> str | None:
    """Import the module of vLLM 0.33 that defines the CUDA ops of a namespace.

    Returns the name of a module that should have defined them, if one is imported. Where the import
    fails, vLLM is not there, or this machine cannot have the ops; vLLM says so where it needs them.
    """
    # vllm/platforms/cuda.py imports the same on its first line, so it makes no CUDA context (which
    # a process that vLLM forks later could not use) and does nothing when it is repeated.
    names = (f"vllm.{namespace}_stable_libtorch", f"vllm.{namespace}")
    with suppress(Exception):
        import_module(names[0])
    # The second is another platform's. On a CPU it must not be imported here: vLLM takes one of
    # three libraries by what the processor has, and all define the same ops (0.33.0).
    return next((name for name in names if name in sys.modules), None)


def load_library(path: Path) -> None:
    """Load a shared library that defines native ops, as an extension module of vLLM does.

    What it needs of other libraries is looked for when it is called. Raises UsageError.
    """
    try:
        ctypes.CDLL(os.path.abspath(path), mode=os.RTLD_LAZY | os.RTLD_GLOBAL)
    except OSError as error:
        raise UsageError(f"library {path} cannot be loaded: {error}") from None


def native_of(pack: PackSpec, spec: KernelSpec) -> Callable[..., Any] | str:
    """Return the native op that a route of a pack names for a kernel, or say why there is none.

    It is called as the op of the kernel is, for a route needs one of the same schema.
    """
    target = next((route.target for route in pack.routes if route.op == spec.name), None)
    if target is None:
        return f"pack '{pack.name}' has no route that names one"
    namespace, name = target.split("::")
    if not is_defined(target):
        import_ops(namespace)
    try:
        native = find_native(target)
    except RouteProblem as error:
        return f"native op '{target}' {error}"
    if native is None:
        remedy = f"{parameter('library')} names a file that defines it"
        return f"native op '{target}' is not there; {remedy}"
    wrong = schema_problem(native.schema, spec.schema)
    if wrong is not None:
        return f"native op '{target}' has another schema than the op: {wrong}"
    found: Callable[..., Any] = getattr(getattr(torch.ops, namespace), name)
    return found


def is_defined(target: str) -> bool:
    """Whether there is an op of a name, as "_C::rms_norm_per_block_quant"."""
    namespace, name = target.split("::")
    return hasattr(getattr(torch.ops, namespace), name)


@frozen(kw_only=True, eq=False)
class NativeOp:
    """A native op as it is before it is routed: its schema, and its kernels by dispatch key."""

    target: str
    schema: NativeSchema
    kernels: Mapping[str, Any]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the native kernel for the device of the first tensor, whatever is routed."""
        values = (*args, *kwargs.values())
        tensor = next((value for value in values if isinstance(value, torch.Tensor)), None)
        key = "CPU" if tensor is None else tensor.device.type.upper()
        if key not in self.kernels:
            raise CallError(f"native op '{self.target}' has no kernel for {key}")
        return self.kernels[key].call_boxed(keyset_of(key), *args, **kwargs)


def keyset_of(key: str) -> Any:
    """Return the set of one dispatch key, with which a kernel is called past the dispatcher."""
    return torch._C.DispatchKeySet(torch._C.DispatchKey.__members__[key])


def find_native(target: str) -> NativeOp | None:
    """Return a native op as it is at present, with its kernels, or None where it is not there.

    Raises RouteProblem for one that has several overloads.
    """
    namespace, name = target.split("::")
    packet = getattr(getattr(torch.ops, namespace), name, None)
    if packet is None:
        return None
    overloads = packet.overloads()
    if overloads != ["default"]:
        raise RouteProblem(f"has overloads {', '.join(overloads)}, and a route is to one op")
    kernels = {
        key: torch.library.get_kernel(packet.default, key)
        for key in DEVICES
        if torch._C._dispatch_has_computed_kernel_for_dispatch_key(target, key)
    }
    return NativeOp(target=target, schema=_schema(packet.default._schema), kernels=kernels)


def _schema(schema: Any) -> NativeSchema:
    return NativeSchema(
        args=tuple(map(_arg, schema.arguments)),
        keyword_only=tuple(arg.name for arg in schema.arguments if arg.kwarg_only),
        returns=tuple(
            f"{arg.type}{'' if arg.alias_info is None else ' that is an argument'}"
            for arg in schema.returns
        ),
    )


def _arg(arg: Any) -> OpArg:
    text = str(arg.type)
    optional = re.fullmatch(r"Optional\[(.*)\]", text)
    kind = text if optional is None else optional[1]
    written = arg.alias_info is not None and arg.alias_info.is_write
    return OpArg(
        name=arg.name,
        type={"SymInt": "int", "List[int]": "int[]", "List[SymInt]": "int[]"}.get(kind, kind),
        optional=optional is not None,
        alias="a" if written else "",
        default=arg.default_value if arg.has_default_value() else NO_DEFAULT,
    )
