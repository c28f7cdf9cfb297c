"""What a host part launches with, for one signature: found on stand-ins, without a GPU.

The host part of a generated module allocates results, makes views of the arguments, and calls a
launcher with a grid. All that it does follows from the signature of a call, so it is run once for
each, on tensors without storage, and what it did is written down: which argument each pointer is
of and how far into it, the grid, the numbers, and what is allocated.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from types import CodeType, FunctionType, SimpleNamespace
from typing import Any, Final, NoReturn

import torch
from attrs import evolve, field, frozen
from torch.utils._python_dispatch import TorchDispatchMode

from kernelpkg.errors import KernelpkgError
from kernelpkg.launch.classes import is_far

HostFunction = Callable[..., Any]
"""The host part: takes the arguments of the op and `_launcher`, and returns the op's results."""

_ALLOCATIONS: Final = frozenset(
    {"aten::empty", "aten::empty_strided", "aten::empty_like", "aten::new_empty",
     "aten::new_empty_strided"}
)  # fmt: skip
_OF_DTYPES: Final = frozenset({"aten::can_cast", "aten::promote_types", "aten::result_type"})
"""What answers by dtypes and shapes, which a signature has: of tensors it makes none."""

_LOOKS: Final = frozenset(
    {"data_ptr", "get_device", "is_cpu", "is_cuda", "is_meta", "item", "numpy", "requires_grad",
     "storage", "storage_offset", "tolist", "type", "untyped_storage"}
)  # fmt: skip
"""What a host part may ask of a tensor that its signature does not tell, or a stand-in has not."""


class NotRecorded(KernelpkgError):
    """A host part that does more than allocate, view and launch once; the text says what."""


@frozen(kw_only=True)
class Pointer:
    """A tensor as a kernel gets it: bytes from the start of an argument, or of an allocation.

    `source` counts the arguments of the op from 0; allocations are -1, -2, …
    """

    source: int
    delta: int
    dtype: torch.dtype


@frozen(kw_only=True)
class HostCall:
    """What the host part does with calls of one signature.

    `args` are those of the kernel in order; `options` are num_warps and the like. `allocations`
    are sizes, strides, dtype and device; `results` says which of them are returned, None for an op
    that returns nothing. `any` are the places of floats of the op that the host part does not look
    at; `passed` says which arguments of the kernel they are, by place.
    """

    kernel: Any
    grid: tuple[int, int, int]
    args: tuple[Any, ...]
    options: Mapping[str, Any]
    allocations: tuple[tuple[tuple[int, ...], tuple[int, ...], torch.dtype, torch.device], ...]
    results: int | tuple[int, ...] | None
    any: frozenset[int] = frozenset()
    passed: Mapping[int, int] = field(factory=dict)

    @property
    def far(self) -> bool:
        """Whether what is allocated needs indices of 64 bits."""
        return any(is_far(sizes, strides) for sizes, strides, *_ in self.allocations)


def stand_in(arg: Any) -> Any:
    """Return a tensor of the same sizes, strides and dtype that has no storage."""
    if not isinstance(arg, torch.Tensor):
        return arg
    return torch.empty_strided(arg.shape, arg.stride(), dtype=arg.dtype, device="meta")


def device_of(args: Sequence[Any]) -> torch.device:
    """Return where the tensors of a call are."""
    return next(arg for arg in args if isinstance(arg, torch.Tensor)).device


def arch_of(device: torch.device) -> str:
    """Return the architecture of an NVIDIA GPU, as "sm_90", or "" for another device."""
    if device.type != "cuda" or torch.version.cuda is None:
        return ""
    major, minor = torch.cuda.get_device_capability(device)
    return f"sm_{major}{minor}"


def record(host: HostFunction, args: Sequence[Any], device: torch.device) -> HostCall:
    """Run a host part on stand-ins of its arguments, and return what it did.

    `device` is where the arguments of the call are. Raises NotRecorded where what it does cannot
    be done again from the signature alone.
    """
    looks = sorted(_LOOKS.intersection(_names(host)))
    if looks:
        raise NotRecorded(f"its host part uses {looks[0]}")
    floats = {place: _Float(place) for place, arg in enumerate(args) if arg.__class__ is float}
    if floats:
        with suppress(NotRecorded, _LookedAt):
            call = _record(host, args, device, floats)
            return evolve(
                call,
                args=tuple(args[a.place] if type(a) is _Float else a for a in call.args),
                any=frozenset(floats),
                passed={at: a.place for at, a in enumerate(call.args) if type(a) is _Float},
            )
    return _record(host, args, device, {})


class _LookedAt(Exception):
    """A host part looks at the value of a float."""


class _Float:
    """What stands for a float that a host part may hand to its kernel, and do nothing else with."""

    __slots__ = ("place",)
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, place: int) -> None:
        self.place = place

    def _look(self, *_: object) -> NoReturn:
        raise _LookedAt

    # Other operators, and conversions to numbers, are missing, and fail.
    __bool__ = __eq__ = __ne__ = __repr__ = __str__ = __format__ = _look
    __class__ = property(_look)


def _record(
    host: HostFunction, args: Sequence[Any], device: torch.device, hidden: Mapping[int, _Float]
) -> HostCall:
    """Record a host part that gets what is hidden in place of some arguments."""
    taken: list[tuple[Any, tuple[int, ...], tuple[Any, ...], dict[str, Any]]] = []

    def launcher(kernel: Any, grid: Sequence[int], *given: Any, **options: Any) -> None:
        taken.append((kernel, tuple(grid), given, options))

    with torch.inference_mode(False), torch.no_grad():
        inputs = tuple(map(stand_in, args))
        watch = _Watch(inputs)
        try:
            with watch:
                shown = (hidden.get(place, value) for place, value in enumerate(inputs))
                result = host(*shown, _launcher=launcher)
        except (NotRecorded, _LookedAt):
            raise
        except Exception as error:  # a call that is wrong fails again where it is launched
            said = " ".join(f"{type(error).__name__}: {error}".split())
            raise NotRecorded(f"its host part fails without data: {said}") from None
    if len(taken) != 1:
        raise NotRecorded(f"its host part launches {len(taken)} kernels")
    kernel, grid, given, options = taken[0]
    if any(type(value) is _Float for value in options.values()):
        raise _LookedAt
    if not 1 <= len(grid) <= 3:
        raise NotRecorded(f"its grid has {len(grid)} dimensions")
    x, y, z, *_ = (*map(int, grid), 1, 1)
    results, views = watch.results(result)
    return HostCall(
        kernel=kernel,
        grid=(x, y, z),
        args=tuple(watch.argument(value) for value in given),
        options=options,
        allocations=tuple(
            (*views.get(place, (tuple(made.shape), made.stride())), made.dtype, device)
            for place, made in enumerate(watch.allocated)
        ),
        results=results,
    )


def _names(host: HostFunction) -> Iterator[str]:
    """Yield the names that a function looks up, its attributes among them."""
    codes = [host.__code__] if isinstance(host, FunctionType) else []
    for code in codes:
        yield from code.co_names
        codes += [found for found in code.co_consts if isinstance(found, CodeType)]


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees every operation of a host part: keeps what it allocates, and refuses the rest."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Keep PyTorch from importing Dynamo, which takes seconds: no frame here is compiled."""
        return False

    def __init__(self, inputs: Sequence[Any]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.allocated: list[torch.Tensor] = []
        self._roots = {
            _storage(value): place
            for place, value in enumerate(inputs)
            if isinstance(value, torch.Tensor)
        }

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        name = func._schema.name
        # A start that is counted from the storage is not where the next call's tensor starts.
        started = name == "aten::as_strided" and len(args) + len(kwargs or ()) > 3
        if started or not (name in _ALLOCATIONS or name in _OF_DTYPES or func.is_view):
            raise NotRecorded(f"its host part calls {name.removeprefix('aten::')}")
        result = func(*args, **(kwargs or {}))
        if name in _ALLOCATIONS:
            if result.device.type != "meta":
                raise NotRecorded("it allocates on another device than that of its arguments")
            self.allocated.append(result)
            self._roots[_storage(result)] = -len(self.allocated)
        return result

    def argument(self, value: Any) -> Any:
        """Return what a kernel is launched with: a pointer, or the value itself."""
        if type(value) is _Float:
            return value
        if not isinstance(value, torch.Tensor):
            if not isinstance(value, int | float | bool | str | None):
                raise NotRecorded(f"its kernel takes a {type(value).__name__}")
            return value
        root = self._roots.get(_storage(value))
        if root is None:
            raise NotRecorded("its kernel takes a tensor that is neither an argument nor made here")
        delta = int(value.storage_offset()) * value.element_size()
        return Pointer(source=root, delta=delta, dtype=value.dtype)

    def results(
        self, result: Any
    ) -> tuple[int | tuple[int, ...] | None, dict[int, tuple[tuple[int, ...], tuple[int, ...]]]]:
        """Return which allocations are returned, and the sizes and strides that they have then."""
        if result is None:
            return None, {}
        several = isinstance(result, tuple | list)
        places = []
        views: dict[int, tuple[tuple[int, ...], tuple[int, ...]]] = {}
        for value in result if several else (result,):
            root = self._roots.get(_storage(value)) if isinstance(value, torch.Tensor) else None
            if root is None or root >= 0:
                raise NotRecorded("it returns something else than what it allocates")
            place = -root - 1
            made = self.allocated[place]
            if place in views:
                raise NotRecorded("it returns one allocation twice")
            same = value.dtype == made.dtype and value.numel() == made.numel()
            if not same or value.storage_offset() or _extent(value) != _extent(made):
                raise NotRecorded("it returns a part of what it allocates, or as another dtype")
            views[place] = (tuple(value.shape), value.stride())
            places.append(place)
        return (tuple(places) if several else places[0]), views


def _storage(tensor: torch.Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _extent(tensor: torch.Tensor) -> int:
    """How many elements lie from the first to the last one of a tensor."""
    if tensor.numel() == 0:
        return 0
    steps = zip(tensor.shape, tensor.stride(), strict=True)
    return 1 + sum((size - 1) * step for size, step in steps)


def host_text(module: str, name: str) -> str:
    """Return the host part of a generated module alone, as code that needs no Helion and no Triton.

    Without annotations and comments, and without what the module imports: `make_host` gives it
    what it may use. Raises NotRecorded where it uses more.
    """
    tree = ast.parse(module)
    found = next((n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == name), None)
    if found is None:
        raise NotRecorded(f"its code has no function '{name}'")
    arguments = found.args
    for arg in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
        arg.annotation = None
    found.returns, found.decorator_list = None, []
    arguments.kw_defaults = [None for _ in arguments.kw_defaults]
    arguments.defaults = []
    if ast.get_docstring(found, clean=False) is not None:
        found.body = found.body[1:]
    bound = {arg.arg for arg in (*arguments.args, *arguments.kwonlyargs)}
    bound |= {
        n.id for n in ast.walk(found) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
    }
    read = {n.id for n in ast.walk(found) if isinstance(n, ast.Name)} - bound
    kernels = read & {n.name for n in tree.body if isinstance(n, ast.FunctionDef)} - {name}
    if len(kernels) > 1:
        raise NotRecorded(f"its host part launches {len(kernels)} kernels")
    constants = [node for node in tree.body if _constant(node) in read]
    read -= {_constant(node) for node in constants}
    unknown = sorted(read - kernels - _SCOPE.keys() - _BUILTINS)
    for node in ast.walk(found):
        if isinstance(node, ast.Attribute) and node.attr in _LOOKS:
            unknown.append(f".{node.attr}")
    if unknown:
        raise NotRecorded(f"its host part uses {unknown[0].lstrip('.')}")
    body: list[ast.stmt] = [*map(_plain_constant, constants), found]
    return ast.unparse(ast.Module(body=body, type_ignores=[])) + "\n"


_BUILTINS: Final = frozenset(
    {"abs", "bool", "divmod", "float", "int", "isinstance", "len", "list", "max", "min", "range",
     "round", "sum", "tuple", "zip", "enumerate"}
)  # fmt: skip


def _constant(node: ast.stmt) -> str:
    """The name that a statement binds to `tl.constexpr(…)` or to a number, or ""."""
    match node:
        case ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant()):
            return name
        case ast.Assign(targets=[ast.Name(id=name)], value=ast.Call(args=[ast.Constant()]) as call):
            return name if ast.unparse(call.func) == "tl.constexpr" else ""
    return ""


def _plain_constant(node: ast.stmt) -> ast.stmt:
    assert isinstance(node, ast.Assign)
    if isinstance(node.value, ast.Call):
        node.value = node.value.args[0]
    return node


def _cdiv(a: int, b: int) -> int:
    return -(a // -b)


def _next_power_of_2(n: int) -> int:
    return 1 if n < 1 else 1 << (n - 1).bit_length()


_SCOPE: Final[Mapping[str, Any]] = {
    "torch": torch,
    "math": math,
    "triton": SimpleNamespace(cdiv=_cdiv, next_power_of_2=_next_power_of_2),
    "helion": None,
}


def make_host(text: str, name: str, kernel: str, sms: int) -> HostFunction:
    """Return the function of a text that `host_text` wrote.

    `kernel` is the name of what it launches, which stands for itself. `sms` is how many streaming
    multiprocessors the GPU has: grids of persistent kernels are made of it.
    """

    def get_num_sm(_: object, *, reserved_sms: int = 0) -> int:
        return max(sms - reserved_sms, 1)

    runtime = SimpleNamespace(get_num_sm=get_num_sm)
    helion = SimpleNamespace(runtime=runtime, cdiv=_cdiv, next_power_of_2=_next_power_of_2)
    space = {**_SCOPE, "helion": helion, kernel: kernel}
    exec(compile(text, f"<host part of {name}>", "exec"), space)
    found: HostFunction = space[name]
    return found
