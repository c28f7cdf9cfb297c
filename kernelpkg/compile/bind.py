"""A kernel bound on the CPU as for a GPU: what its configs must be, and the code that they make.

Arguments are fake tensors, which have shapes and strides and no storage, so that a case may be of
any size. Where Helion asks what the GPU can do, its own switches answer for the GPU that is
meant: those are functions of `helion._compat` which its tests replace too, in 1.4 and in 1.5.
"""

from __future__ import annotations

import inspect
import mmap
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import helion
import torch
from attrs import field, frozen
from torch._inductor import lowering
from torch._inductor.codecache import PyCodeCache
from torch._subclasses.fake_tensor import FakeTensorMode

from kernelpkg.bench.reference import make_inputs
from kernelpkg.compile import helion as helion_backend
from kernelpkg.compile.code import exact_of
from kernelpkg.configs.platforms import Platform
from kernelpkg.errors import KernelpkgError, RegistrationError
from kernelpkg.launch.classes import Exact
from kernelpkg.manifest.cases import Case
from kernelpkg.manifest.helion_config import Config
from kernelpkg.manifest.spec import KernelSpec
from kernelpkg.packs.sources import load_function

# Fields with an entry per tile, loop or reduction; the config spec calls all but one the same.
_LOOPS: Final = (
    *("block_sizes", "num_threads", "flatten_loops", "l2_groupings", "loop_orders"),
    *("reduction_loops", "range_unroll_factors", "range_warp_specializes", "range_num_stages"),
    *("range_multi_buffers", "range_flattens", "static_ranges"),
)
_OTHERWISE: Final = {"range_warp_specializes": "range_warp_specialize"}

# Fields with an entry per load, store or atomic.
_ACCESSES: Final = (
    "indexing",
    "atomic_indexing",
    "load_eviction_policies",
    "load_cache_modifiers",
    "store_cache_modifiers",
)

# What an entry may be though no search tries it for this GPU: Triton lowers all three anywhere.
_INDEXING: Final = ("pointer", "block_ptr", "tensor_descriptor")

_REGISTERS: Final = 65536
"""32-bit registers of a block and of an SM on every NVIDIA GPU since Volta: CUDA C++ Programming
Guide, "Technical Specifications per Compute Capability"."""

_SMS: Final = 132
"""Programs per wave of a persistent kernel, which is a constant of its code; an H200 has 132 SMs.
Other GPUs have more or fewer, which changes the constant and nothing else."""

_MOST: Final = 2**22
"""Product of the sizes up to which inputs that need data are made."""


class Unbound(KernelpkgError):
    """A kernel that does not bind for a case; the text is Helion's, on one line."""


class NoInputs(KernelpkgError):
    """A case whose inputs cannot be made here, so nothing can be said of it."""


class Refused(KernelpkgError):
    """A config that Helion refuses; the text is Helion's, on one line."""


# The functions by which Helion asks what the GPU can do, in both releases; its tests replace them.
_SWITCHES: Final = (
    ("helion._compat", "_supports_tensor_descriptor"),
    ("helion._compat", "_supports_maxnreg"),
    ("helion._compat", "_is_hip"),
    ("helion.autotuner.config_spec", "_regs_per_block"),
    ("helion._compiler.compile_environment", "target_device_capability"),
    ("helion.language.loops", "_supports_warp_specialize"),
)


@frozen(kw_only=True)
class Target:
    """What a GPU is to Helion: its compute capability; None where that cannot be stood in for."""

    capability: tuple[int, int] | None

    @classmethod
    def of(cls, platform: Platform) -> Target:
        """The target of a platform; Helion asks AMD's GPUs for more than a name says."""
        arch = platform.arch or ""
        known = all(hasattr(import_module(module), name) for module, name in _SWITCHES)
        if not (known and arch.startswith("sm_")):
            return cls(capability=None)
        return cls(capability=divmod(int(arch.removeprefix("sm_")), 10))


@contextmanager
def standing_in(target: Target) -> Iterator[None]:
    """Let Helion see a GPU where there is none."""
    if target.capability is None:
        yield
        return
    capability = target.capability
    specialised = capability[0] >= 10  # if settings allow it, as by default
    answers = (capability >= (9, 0), True, False, _REGISTERS, capability, specialised)
    with ExitStack() as stack:
        for (module, name), answer in zip(_SWITCHES, answers, strict=True):
            stack.enter_context(_answering(import_module(module), name, answer))
        stack.enter_context(_dividing_as_on_a_gpu())
        yield


@contextmanager
def _answering(owner: Any, name: str, answer: Any) -> Iterator[None]:
    """Let a function of a module return one value, whatever it is asked."""
    before = getattr(owner, name)
    setattr(owner, name, lambda *_, **__: answer)
    try:
        yield
    finally:
        setattr(owner, name, before)


@contextmanager
def _dividing_as_on_a_gpu() -> Iterator[None]:
    """Let PyTorch turn quotients by constants into products, as it does for all but CPUs.

    The rule is that of `div_prim` of torch 2.11 to 2.13.
    """
    before = lowering.div_prim

    def divide(numerator: Any, denominator: Any) -> Any:
        integers = all(map(lowering.is_integer_type, (numerator, denominator)))
        constant = None if integers else lowering.get_constant_value(denominator)
        if constant is None or constant.value == 0:
            return before(numerator, denominator)
        return lowering.mul(numerator, 1.0 / constant.value)

    lowering.div_prim = divide  # type: ignore[assignment]  # names of its arguments differ
    try:
        yield
    finally:
        lowering.div_prim = before


@frozen(kw_only=True)
class CapturedLaunch:
    """What the host part of a kernel gives Triton: the generated module's text and a call.

    Tensors are in `args` as `pointer` writes them; `options` are keywords such as num_warps.
    """

    text: str
    name: str
    args: tuple[Any, ...]
    options: Mapping[str, Any]

    def payload(self, arch: str) -> dict[str, Any]:
        """Return it as `cubin.perform` takes it, as JSON, for an architecture."""
        return {
            "text": self.text,
            "name": self.name,
            "args": [*self.args],
            "options": dict(self.options),
            "arch": arch,
        }


def pointer(dtype: torch.dtype, offset: int) -> list[Any]:
    """Return a tensor as code sees it, as JSON: its dtype, and its bytes from an aligned start."""
    return [str(dtype).removeprefix("torch."), offset]


@frozen(kw_only=True, eq=False)
class Binding:
    """A kernel bound for one case and one target."""

    case: Case
    target: Target
    _bound: Any = field(repr=False)
    _args: tuple[Any, ...] = field(repr=False)
    _mode: Any = field(repr=False)

    @property
    def _spec(self) -> Any:
        return self._bound.config_spec

    @cached_property
    def lengths(self) -> Mapping[str, tuple[int, ...]]:
        """How many entries each positional list may have, best first.

        A second number is that of configs from before Helion gave a list further entries, which
        it fills in.
        """
        found = {}
        for name in _LOOPS:
            items = list(getattr(self._spec, _OTHERWISE.get(name, name)))
            old = [item for item in items if not _newer(item)]
            found[name] = tuple(dict.fromkeys((len(items), len(old))))
        return {**found, **{name: (getattr(self._spec, name).length,) for name in _ACCESSES}}

    @cached_property
    def choices(self) -> Mapping[str, tuple[Any, ...]]:
        """What entries of lists, and the kind of program ids, may be."""
        found = {name: tuple(getattr(self._spec, name).inner.choices) for name in _ACCESSES}
        known = {"indexing": _INDEXING, "pid_type": tuple(self._spec.allowed_pid_types)}
        return {**found, **known}

    @cached_property
    def limits(self) -> tuple[int | None, ...]:
        """The largest block of each tiled dimension whose size the code knows; None elsewhere."""
        dims = {info.block_id: info for info in self._bound.env.block_sizes}
        return tuple(
            item.max_size if _fixed(dims[item.block_id].size) else None
            for item in self._spec.block_sizes
        )

    @cached_property
    def exact(self) -> Exact:
        """Which sizes of arguments are numbers in the code, by the places of the arguments."""
        return exact_of(self._bound)

    @cached_property
    def specialised(self) -> Mapping[str, tuple[bool, ...]]:
        """Per tensor, which of its sizes Helion has code of its own for; per number, whether."""
        names = list(self._bound.kernel.signature.parameters)
        args = self._bound.fake_args
        return {
            names[place]: (marks or ())[: args[place].ndim if hasattr(args[place], "ndim") else 1]
            for place, marks in self.exact.items()
        }

    @cached_property
    def fields(self) -> frozenset[str]:
        """The fields that this Helion takes for this kernel."""
        spec = self._spec
        return frozenset({*spec.supported_config_keys(), *spec.user_defined_tunables})

    @cached_property
    def fingerprint(self) -> str:
        """The parts of a config that the kernel has, as Helion writes them."""
        return repr(self._spec.structural_fingerprint())

    def normalised(self, config: Config) -> dict[str, Any]:
        """Return what Helion makes of a config; raises Refused."""
        made = helion_backend.to_config(config)
        with standing_in(self.target):
            try:
                self._spec.normalize(made)
            except Exception as error:  # InvalidConfig, and what odd values run into
                raise Refused(_line(error)) from None
        return dict(made.config)

    def default(self) -> dict[str, Any]:
        """Return Helion's own default config."""
        with standing_in(self.target):
            return dict(self._bound.config_spec.default_config().config)

    def code(self, config: Config) -> str:
        """Return the module that Helion makes of a config; raises Refused."""
        with standing_in(self.target):
            try:
                text: str = self._bound.to_triton_code(helion_backend.to_config(config))
            except Exception as error:
                raise Refused(_line(error)) from None
        return text

    @property
    def function(self) -> str:
        """The name of the host part in that module."""
        name: str = self._bound.kernel.name
        return name

    def launch(self, config: Config) -> CapturedLaunch:
        """Return the launch of this case's call with a config; raises Refused, NoInputs."""
        calls: list[CapturedLaunch] = []

        def launcher(kernel: Any, grid: Any, *args: Any, **options: Any) -> None:
            passed = tuple(_passed(arg) for arg in args)
            name = kernel.fn.__name__
            calls.append(CapturedLaunch(text=text, name=name, args=passed, options=options))

        text = self.code(config)
        with standing_in(self.target):
            try:
                host = getattr(PyCodeCache.load(text), self._bound.kernel.name)
                with self._mode, _answering(helion.runtime, "get_num_sm", _SMS):
                    host(*self._args, _launcher=launcher)
            except Exception as error:
                raise Refused(_line(error)) from None
        if len(calls) != 1:
            raise NoInputs(f"its host part launches {len(calls)} kernels, and one is looked at")
        return calls[0]


class Binder:
    """Binds the cases of one kernel; raises RegistrationError for settings that Helion refuses."""

    def __init__(self, spec: KernelSpec) -> None:
        self._spec = spec
        self._found: dict[tuple[object, ...], Binding | KernelpkgError] = {}
        self._kernels: dict[Target, helion_backend.ConfiguredHelionKernel] = {}
        self._settings = helion_backend.check_settings(spec.settings, spec.name)

    def bind(self, case: Case, target: Target) -> Binding:
        """Bind a case, once; raises Unbound, NoInputs, and PackError for a broken file."""
        key = (target, *case.values.items())
        if key not in self._found:
            try:
                self._found[key] = self._bind(case, target)
            except (Unbound, NoInputs) as error:
                self._found[key] = error
        found = self._found[key]
        if isinstance(found, KernelpkgError):
            raise found
        return found

    def count(self) -> int:
        """How many cases were bound."""
        return sum(isinstance(found, Binding) for found in self._found.values())

    def _bind(self, case: Case, target: Target) -> Binding:
        kernel = self._kernel(target)
        mode, args = arguments_of(self._spec, case)
        try:
            untouched = [_untouched(arg) if isinstance(arg, torch.Tensor) else arg for arg in args]
        except (OSError, OverflowError, RuntimeError) as error:  # no address space is that large
            raise NoInputs(_line(error)) from None
        try:
            with standing_in(target):
                bound = kernel.bind(untouched)
        except Exception as error:
            raise Unbound(_line(error)) from None
        return Binding(case=case, target=target, bound=bound, args=args, mode=mode)

    def _kernel(self, target: Target) -> helion_backend.ConfiguredHelionKernel:
        if target not in self._kernels:
            function = load_function(Path(self._spec.directory), self._spec.source)
            try:
                self._kernels[target] = helion_backend.ConfiguredHelionKernel(
                    op_name=self._spec.name,
                    raw_kernel_func=function,
                    select=lambda _: helion_backend.Selection(config_id="", config=None),
                    settings=self._settings,
                )
            except Exception as error:
                message = f"kernel '{self._spec.name}': Helion refuses its settings: {_line(error)}"
                raise RegistrationError(message) from None
        return self._kernels[target]


def known_fields() -> frozenset[str]:
    """The parameters of helion.Config."""
    return frozenset(inspect.signature(helion.Config.__init__).parameters)


def arguments_of(spec: KernelSpec, case: Case) -> tuple[Any, tuple[Any, ...]]:
    """Make the arguments of a call without data, or with it where a function needs some."""
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    try:
        with mode:
            return mode, make_inputs(spec, case)
    except Exception as error:
        if case.size() > _MOST:
            raise NoInputs(_line(error)) from None
    try:
        args = make_inputs(spec, case)
    except Exception as error:
        raise NoInputs(_line(error)) from None
    convert = mode.from_tensor
    return mode, tuple(convert(arg) if isinstance(arg, torch.Tensor) else arg for arg in args)


def _untouched(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor like another in address space that nothing is ever read from.

    Helion takes the sizes of fake tensors for fixed ones, and would compile other code for them.
    """
    size = tensor.untyped_storage().nbytes() or 1
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    space = mmap.mmap(-1, size, flags=flags, prot=mmap.PROT_READ)  # takes no part of memory
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's, that it cannot be written
        everything = torch.frombuffer(space, dtype=torch.uint8).untyped_storage()
    empty = torch.empty(0, dtype=tensor.dtype)
    return empty.set_(everything, tensor.storage_offset(), tensor.shape, tensor.stride())


def _passed(arg: Any) -> Any:
    if not isinstance(arg, torch.Tensor):
        return arg
    return pointer(arg.dtype, int(arg.storage_offset()) * arg.element_size())


def _newer(item: Any) -> bool:
    """Whether Helion lets a config leave out an entry that older releases did not have."""
    left_out = getattr(item, "_omitted_from_legacy_configs", None)  # from 1.5 on
    return left_out is not None and bool(left_out())


def _fixed(size: Any) -> bool:
    """Whether code is compiled for one size of a dimension."""
    symbolic = isinstance(size, torch.SymInt)
    return isinstance(size, int) or (symbolic and not size.node.expr.free_symbols)


def _line(error: Exception) -> str:
    """Return the class of an error and its text, of which Helion's are long, on one line."""
    text = str(error).split("While processing:")[0]
    return " ".join(f"{type(error).__name__}: {text}".split())
