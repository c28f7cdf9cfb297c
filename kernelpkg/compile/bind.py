"""A kernel bound on the CPU as for a GPU: what its configs must be, and the code that they make.

Arguments are fake tensors, which have shapes and strides and no storage, so that a case may be of
any size. Where Helion asks what the GPU can do, `absent_gpu` answers for the one that is meant.
"""

from __future__ import annotations

import inspect
import math
import mmap
import re
import sys
import warnings
from collections.abc import Mapping
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import helion
import torch
from attrs import field, frozen
from helion import exc
from torch._inductor.codecache import PyCodeCache
from torch._subclasses.fake_tensor import FakeTensorMode

from kernelpkg.bench.inputs import check_axes, make_inputs
from kernelpkg.bench.stand_ins import make_stand_ins
from kernelpkg.compile import helion as helion_backend
from kernelpkg.compile.absent_gpu import SMS, UnknownSms, can_stand_in, counting_sms, standing_in
from kernelpkg.compile.granted import exact_of, facts_of
from kernelpkg.configs.platforms import Platform
from kernelpkg.errors import (
    KernelpkgError,
    RegistrationError,
    error_line,
    led_to,
    no_place,
    quoted,
)
from kernelpkg.launch.classes import Exact
from kernelpkg.manifest.cases import Case
from kernelpkg.manifest.helion_config import Config
from kernelpkg.manifest.spec import KernelSpec
from kernelpkg.packs.sources import load_function, read_anew

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

MOST: Final = 2**22
"""Product of the sizes up to which inputs that need data are made."""


class Unbound(KernelpkgError):
    """A kernel that does not bind for a case; the text is Helion's, on one line.

    `line` is the one of the kernel's file that Helion names, or 0.
    """

    def __init__(self, message: str, line: int = 0) -> None:
        super().__init__(message)
        self.line = line


class NoInputs(KernelpkgError):
    """A case of which nothing can be said here, as one whose inputs cannot be made."""


class NoPlace(KernelpkgError):
    """Nothing can be compiled here, for the system refuses a file."""


class Refused(KernelpkgError):
    """A config that Helion refuses; the text is Helion's, on one line."""


@frozen(kw_only=True)
class Target:
    """What a GPU is to Helion: its compute capability; None where that cannot be stood in for.

    `sms` is how many multiprocessors it has, None where that is not known.
    """

    capability: tuple[int, int] | None
    sms: int | None = SMS

    @classmethod
    def of(cls, platform: Platform) -> Target:
        """The target of a platform; Helion asks AMD's GPUs for more than a name says."""
        arch = platform.arch or ""
        if not (can_stand_in() and arch.startswith("sm_")):
            return cls(capability=None, sms=platform.sms)
        capability = divmod(int(arch.removeprefix("sm_")), 10)
        return cls(capability=capability, sms=platform.sms)

    def standing_in(self) -> AbstractContextManager[None]:
        """Let Helion see such a GPU."""
        return standing_in(self.capability, self.sms)

    def known(self) -> tuple[bool, bool]:
        """Which of its facts are known; what is known of a GPU is more than of an unknown one."""
        return self.capability is not None, self.sms is not None


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
        """Return it as `cubin.perform` takes it, as JSON, for an architecture.

        The file of the kernel is not imported: only its host part may name it.
        """
        return {
            "text": _SOURCE.sub("", self.text),
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

    @property
    def facts(self) -> frozenset[str]:
        """What it takes for granted, either way; more, maybe, once code was made of it."""
        return frozenset(facts_of(self._bound))

    @cached_property
    def specialised(self) -> Mapping[str, tuple[bool, ...]]:
        """Per tensor, which of its sizes Helion has code of its own for; per number, whether.

        Per list, for which of its elements.
        """
        names = list(self._bound.kernel.signature.parameters)
        args = self._bound.fake_args
        return {
            names[place]: (marks or ())[: getattr(args[place], "ndim", None)]
            for place, marks in self.exact.items()
        }

    @cached_property
    def fields(self) -> frozenset[str]:
        """The fields that this Helion takes for this kernel."""
        spec = self._spec
        return frozenset({*spec.supported_config_keys(), *self.tunables})

    @property
    def tunables(self) -> Mapping[str, Any]:
        """What the function registers as tunable, by name: Helion's fragments of values."""
        found: Mapping[str, Any] = self._spec.user_defined_tunables
        return found

    def structure(self) -> dict[str, Any]:
        """Return what the code is made of: counts, lists of configs, tunables, and constants."""
        lists = {name: lengths[0] for name, lengths in self.lengths.items() if lengths[0]}
        loads = lists.get("load_eviction_policies", 0)
        names = self._bound.kernel.signature.parameters
        given = [*zip(names, self._bound.fake_args, strict=False)]
        parts = {n: ".shape" for n, arg in given if hasattr(arg, "ndim")}
        parts |= {n: "" for n, arg in given if isinstance(arg, list | tuple)}
        return {
            "blocks": lists.get("block_sizes", 0),
            "reductions": lists.get("reduction_loops", 0),
            "loops": lists.get("range_unroll_factors", 0),
            "loads": loads,
            "stores": lists.get("indexing", 0) - loads,
            "atomics": lists.get("atomic_indexing", 0),
            "tunables": sorted(self.tunables),
            "lists": lists,
            "constants": [
                f"{name}{parts[name]}[{place}]" if name in parts else name
                for name, marks in self.specialised.items()
                for place, mark in enumerate(marks)
                if mark
            ],
        }

    @cached_property
    def fingerprint(self) -> str:
        """The parts of a config that the kernel has, as Helion writes them."""
        return repr(self._spec.structural_fingerprint())

    def normalised(self, config: Config) -> dict[str, Any]:
        """Return what Helion makes of a config; raises Refused."""
        made = helion_backend.complete(self._bound, config)
        with self.target.standing_in():
            try:
                self._spec.normalize(made)
            except Exception as error:  # InvalidConfig, and what odd values run into
                raise Refused(_line(error)) from None
        return dict(made.config)

    def default(self) -> dict[str, Any]:
        """Return Helion's own default config."""
        with self.target.standing_in():
            return dict(self._bound.config_spec.default_config().config)

    def code(self, config: Config) -> str:
        """Return the module that Helion makes of a config; raises Refused.

        Numbers and texts of the kernel's file stand in it themselves: a build has no such file.
        """
        with self.target.standing_in():
            try:
                text: str = self._bound.to_triton_code(helion_backend.complete(self._bound, config))
            except Exception as error:
                raise Refused(_line(error)) from None
        return _with_values(text)

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
        with self.target.standing_in():
            try:
                host = getattr(PyCodeCache.load(text), self._bound.kernel.name)
                with self._mode, counting_sms(self.target.sms or SMS):
                    host(*self._args, _launcher=launcher)
            except OSError as error:
                raise NoPlace(no_place(error)) from None
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

    def bind(
        self, case: Case, target: Target, *, far: bool = False, dense: bool = False
    ) -> Binding:
        """Bind a case, once; raises Unbound, NoInputs, and PackError for a broken file.

        With `far`, indices have 64 bits, as results may need that arguments do not.
        """
        key = (target, far, dense, *case.values.items())
        if key not in self._found:
            try:
                self._found[key] = self._bind(case, target, far=far, dense=dense)
            except (Unbound, NoInputs) as error:
                self._found[key] = error
        found = self._found[key]
        if isinstance(found, KernelpkgError):
            raise found
        return found

    def count(self) -> int:
        """How many cases were bound."""
        return sum(isinstance(found, Binding) for found in self._found.values())

    def _bind(self, case: Case, target: Target, *, far: bool, dense: bool) -> Binding:
        kernel = self._kernel(target)
        mode, args = arguments_of(self._spec, case, dense=dense)
        try:
            untouched = [_untouched(arg) if isinstance(arg, torch.Tensor) else arg for arg in args]
        except (OSError, OverflowError, RuntimeError) as error:  # no address space is that large
            raise NoInputs(_line(error)) from None
        try:
            with target.standing_in(), read_anew(Path(self._spec.directory)):
                bound = kernel.bind(untouched, far=far)
        except Exception as error:
            unknown = next((e for e in led_to(error) if isinstance(e, UnknownSms)), None)
            if unknown is not None:
                raise NoInputs(str(unknown)) from None
            if _is_of_a_cpu(error):
                raise NoInputs(f"{_line(error)}; a GPU may take it") from None
            file = str(Path(self._spec.directory, self._spec.source.file))
            raise Unbound(_line(error), _named_line(error, file)) from None
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


def arguments_of(
    spec: KernelSpec, case: Case, *, dense: bool = False
) -> tuple[Any, tuple[Any, ...]]:
    """Make the arguments of a call without data, or with it where a generator needs some."""
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    try:
        with mode:
            if spec.generator is not None:
                return mode, make_inputs(spec, case)
            args = make_stand_ins(spec, case, device="cpu", dense=dense)
            check_axes(spec, case, args)
            return mode, args
    except Exception as error:
        if spec.generator is None or case.size() > MOST:
            why = f"its inputs cannot be made without their data: {error_line(error)}"
            raise NoInputs(why) from None
    try:
        args = make_inputs(spec, case)
    except Exception as error:
        raise NoInputs(f"its inputs cannot be made: {error_line(error)}") from None
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


def _is_of_a_cpu(error: Exception) -> bool:
    """Whether Helion refuses on a CPU alone: from 1.5 on, loops may depend on one another."""
    return isinstance(error, exc.LoopDependencyError) and "cross_loop_pipeline" in known_fields()


_SOURCE: Final = re.compile(r"^import (\w+) as _source_module\n", re.MULTILINE)
"""How a module that Helion makes imports the file of its kernel."""


def _with_values(text: str) -> str:
    """Return a module without the names of what is a number or a text in its kernel's file."""
    file = _SOURCE.search(text)
    if file is None:
        return text
    values = {
        name: repr(value)
        for name, value in vars(sys.modules[file[1]]).items()
        if isinstance(value, int | str) or (isinstance(value, float) and math.isfinite(value))
    }
    name = r"\b_source_module\.(\w+)"
    text = re.sub(name, lambda found: values.get(found[1], found[0]), text)
    return text if re.search(name, text) else _SOURCE.sub("", text)


_PLACE: Final = re.compile(
    r'While processing:\s*File "(?P<file>.+)", line (?P<line>\d+).*\n'
    r"(?P<code>.*)\n?(?P<before> *)(?P<marks>\^*)"
)
"""How Helion says where it was; below the line of the source are marks."""


def _line(error: Exception) -> str:
    """Return what an error says, of which Helion's go on for pages, and of which code it is."""
    text = str(error)
    place = _PLACE.search(text)
    if place is None:
        return error_line(error)
    start = len(place["before"])
    code = place["code"][start : start + len(place["marks"])] or place["code"].strip()
    return f"{error_line(error, text[: place.start()])} (at {quoted(code)})"


def _named_line(error: Exception, file: str) -> int:
    """Return the line of a file that Helion names in an error, or 0."""
    place = _PLACE.search(str(error))
    return int(place["line"]) if place is not None and place["file"] == file else 0
