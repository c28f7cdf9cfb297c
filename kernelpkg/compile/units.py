"""What is compiled of a kernel for a platform: every config, for every class of calls that get it.

The calls are those of the manifest's grids, of the cases of config files and of the pack's models,
with every size of the axes that code does not know: `configs/samples` says which of them are
enough. `build` compiles them, and `check` at level 2 judges what comes of it.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from attrs import asdict, evolve, frozen

from kernelpkg.bench.stand_ins import layouts_of, make_stand_ins
from kernelpkg.compile.absent_gpu import SMS
from kernelpkg.compile.bind import (
    Binder,
    Binding,
    CapturedLaunch,
    NoInputs,
    Refused,
    Target,
    Unbound,
    arguments_of,
    pointer,
)
from kernelpkg.compile.host_code import unread_arguments
from kernelpkg.compile.variants import FiledConfig, facts_of, filed_configs, variants_of
from kernelpkg.configs.platforms import Platform
from kernelpkg.configs.samples import FACTOR, spread
from kernelpkg.configs.selection import Chosen, ConfigSelection, read_selection
from kernelpkg.configs.store import config_id
from kernelpkg.errors import KernelpkgError, Problem, Severity
from kernelpkg.files import read_file
from kernelpkg.launch.classes import ClassRule
from kernelpkg.launch.host import (
    HostCall,
    HostFunction,
    NotRecorded,
    Pointer,
    host_text,
    make_host,
    record,
    stand_in,
)
from kernelpkg.manifest.cases import Case, CaseProblem, Evaluator, cases_of
from kernelpkg.manifest.spec import KernelSpec, PackSpec, Scalar
from kernelpkg.packs.builds import digests_of
from kernelpkg.packs.sources import load_function

USES: Final = ("tune", "bench")
"""The grids whose calls are compiled for."""

_DEVICE: Final = torch.device("cuda", 0)
_FAR: Final = "its results need indices of 64 bits, and a build has none"


@frozen(kw_only=True, eq=False)
class ConfigUse:
    """Calls of one class that get one config on a platform; `case` is the first of them."""

    spec: KernelSpec
    platform: Platform
    case: Case
    chosen: Chosen
    call_class: str

    @property
    def key(self) -> tuple[str, str]:
        """The config and the class, by which the parts of a build are found."""
        return self.chosen.config_id, self.call_class


@frozen(kw_only=True, eq=False)
class Unit(ConfigUse):
    """One compilation: the code of a config for a class of calls, and the facts of some of them.

    `host` is empty where the host part cannot be recorded, so that no build can have the code.
    """

    host: str
    payload: Mapping[str, Any]


@frozen(kw_only=True, eq=False)
class _Module:
    """What Helion makes of a config: its code, its host part, and the constants of its kernel."""

    text: str
    host: str
    function: HostFunction
    constants: tuple[bool, ...]


_Made = tuple[Case, tuple[Any, ...], Chosen]
"""A case, the arguments of its call, and the config that it gets."""


def build_cases(
    pack: PackSpec, selection: ConfigSelection, uses: Collection[str], filed: Iterable[Case] = ()
) -> Iterator[Case]:
    """Yield the cases that stand for all calls that are built for: of grids, files and [models].

    `filed` are those of the platform's config file. A model's sizes take the place of those of a
    grid, where it says any of them. Flags that no config depends on have both values, for code may
    depend on them. The largest of each variant stands for itself, for its results may need indices
    of 64 bits.
    """
    spec = selection.spec
    cases = [*(case for use in uses for case in cases_of(spec, use)), *filed]
    for axis in spec.axes:
        if axis.name not in spec.key_axes and spec.axis_types[axis.name].kind == "flag":
            cases = [
                evolve(case, values={**case.values, axis.name: value})
                for case in cases
                for value in (False, True)
                if case.values.get(axis.name) is not None
            ]
    for sizes in pack.models.values():
        known = {name: size for name, size in sizes.items() if name in spec.key_axes}
        tuned = [case for case in cases if "tune" in case.use] if known else []
        cases += [evolve(case, values={**case.values, **known}) for case in tuned]
    yield from spread(selection, cases)
    yield from (variant.largest for variant in variants_of(spec, cases))


def _unread(spec: KernelSpec) -> list[int]:
    """Return the places of the arguments that a kernel's function never reads."""
    tree = ast.parse(read_file(Path(spec.directory, spec.source.file)))
    return unread_arguments(tree, spec.source.name, spec.schema.arg_names)


class KernelBuilder:
    """Works out what is compiled of one kernel for a platform; Helion runs here, not Triton.

    `binder` may be one that other platforms share. With a list `dropped`, it gets the problems of
    other platforms' config files, from which nothing is borrowed then. Raises PackError where files
    that it reads are broken, and RegistrationError for settings that Helion refuses.
    """

    def __init__(
        self,
        pack: PackSpec,
        spec: KernelSpec,
        platform: Platform,
        uses: Collection[str] = USES,
        *,
        binder: Binder | None = None,
        dropped: list[Problem] | None = None,
    ) -> None:
        self.spec = spec
        self.files = digests_of(spec)
        self.platform = platform
        self._target = Target.of(platform)
        picker = spec.picker
        custom = None if picker is None else load_function(Path(spec.directory), picker)
        self._selection = read_selection(pack, spec, platform, custom=custom, dropped=dropped)
        self._filed = filed_configs(pack, spec, platform.name)
        filed = (case for one in self._filed for variant in one.variants for case in variant.cases)
        self._cases = tuple(build_cases(pack, self._selection, uses, filed))
        self._binder = binder or Binder(spec)
        self._bound: dict[str, Binding | KernelpkgError] = {}
        self.rule = ClassRule(exact=dict.fromkeys(_unread(spec)))
        self.lacks: dict[tuple[str, str], tuple[ConfigUse, KernelpkgError]] = {}
        self._far: set[tuple[str, str]] = set()
        self._causes: dict[tuple[Severity, str], dict[str, None]] = {}

    def units(self) -> Iterator[Unit]:
        """Yield every compilation once, in the order of the cases; `lacks` has the calls without.

        What code takes for granted is part of the class of a call, and known once Helion has made
        it: so all of it is made before the first unit is.
        """
        calls = [*self._calls()]
        modules = self._modules(calls)
        seen: set[tuple[str, str, str]] = set()
        for case, args, chosen in calls:
            use = self._use(case, args, chosen, self.rule)
            module = modules[use.key]
            if isinstance(module, KernelpkgError):
                self.lack(use, module)
                continue
            try:
                made = record(module.function, args, _DEVICE)
            except NotRecorded as error:
                self.lack(use, error)
                continue
            if made.far:
                self._far.add(use.key)
                self.lack(use, NotRecorded(_FAR))
                continue
            facts = json.dumps(_facts(made, module.constants))
            if (*use.key, facts) not in seen:
                seen.add((*use.key, facts))
                yield self._unit(use, launch_of(made, module.text), module.host)

    def classes(self, rule: ClassRule) -> Iterator[ConfigUse]:
        """Yield each config with each class of calls that get it once; `rule` tells them apart."""
        seen: set[tuple[str, str]] = set()
        for case, args, chosen in self._calls():
            use = self._use(case, args, chosen, rule)
            if use.key not in seen:
                seen.add(use.key)
                yield use

    def unrecorded(self, use: ConfigUse) -> Unit:
        """Return the compilation of a call of `lacks` whose host part cannot be recorded.

        Raises Refused and NoInputs where it cannot be compiled either.
        """
        binding = self._bound[use.call_class]
        if use.key in self._far:
            binding = self._binder.bind(use.case, self._target, far=True)
        assert isinstance(binding, Binding)
        return self._unit(use, binding.launch(_config(binding, use)), host="")

    def bind(self, case: Case) -> Binding:
        """Bind a case, once; raises Unbound and NoInputs."""
        return self._binder.bind(case, self._target)

    def _binding(self, case: Case, args: Sequence[Any]) -> Binding:
        """Bind a case to the layout of the arguments of a call; raises Unbound and NoInputs."""
        if self.spec.generator is not None:
            return self.bind(case)
        padded = make_stand_ins(self.spec, case, device="meta")
        tensors = ((a, b) for a, b in zip(padded, args, strict=True) if isinstance(a, torch.Tensor))
        dense = any(one.stride() != other.stride() for one, other in tensors)
        return self._binder.bind(case, self._target, dense=dense)

    def lack(self, use: ConfigUse, error: KernelpkgError) -> None:
        """Note that calls can have no code in a build, and why; of a class the last case stands for
        all, which is the largest."""
        self.lacks[use.key] = use, error
        self._note(use.case, error)

    def release(self) -> None:
        """Give up what Helion holds, which is much; `absent` stays."""
        del self._binder
        self._bound.clear()
        self.lacks.clear()

    @property
    def absent(self) -> tuple[str, ...]:
        """Why calls have no code, each cause once."""
        return tuple(f"{why} ({shown_cases([*cases])})" for (_, why), cases in self._causes.items())

    def problems(self) -> Iterator[Problem]:
        """Yield why calls have no code; what Helion refuses is wrong for sure."""
        for (severity, _), reason in zip(self._causes, self.absent, strict=True):
            message = f"calls have no code in the build: {reason}"
            yield Problem(path=self.spec.path, code="KP326", message=message, severity=severity)

    def _note(self, case: Case, error: Exception) -> None:
        severity: Severity = "error" if isinstance(error, Unbound | Refused) else "unverified"
        cause = severity, " ".join(str(error).split())
        self._causes.setdefault(cause, {})[str(case)] = None

    def _calls(self) -> Iterator[_Made]:
        """Yield the cases with the arguments of a call and the config that it gets.

        Behind them come configs for variants of their cases in which no call gets them, for others
        win, or a guard refuses these.
        """
        evaluate = Evaluator()
        reached: set[tuple[str, str]] = set()
        for case in self._cases:
            axes: list[Scalar] = [case.values.get(axis.name) for axis in self.spec.axes]
            for args in self._arguments(case, evaluate):
                chosen = next(self._selection.options(axes, args), None)
                if chosen is not None:
                    reached.add((chosen.config_id, repr(facts_of(self.spec, case))))
                    yield case, args, chosen
        for one in self._filed:
            name = config_id(one.config)
            for variant in one.variants:
                if (name, repr(variant.facts)) in reached:
                    continue
                for args in self._arguments(variant.largest, evaluate):
                    yield variant.largest, args, _filed_choice(one)

    def _arguments(self, case: Case, evaluate: Evaluator) -> Iterator[tuple[Any, ...]]:
        """Yield the arguments of a case without storage, in each layout; none where it has none."""
        try:
            if self.spec.generator is None:
                for dense in layouts_of(self.spec, case, evaluate):
                    yield make_stand_ins(
                        self.spec, case, device="meta", evaluate=evaluate, dense=dense
                    )
            else:
                yield tuple(map(stand_in, arguments_of(self.spec, case)[1]))
        except CaseProblem:  # flags that no grid has together, and no call can have
            return
        except (NoInputs, ArithmeticError, RuntimeError, TypeError) as error:
            self._note(case, error)

    def _use(self, case: Case, args: Sequence[Any], chosen: Chosen, rule: ClassRule) -> ConfigUse:
        return ConfigUse(
            spec=self.spec,
            platform=self.platform,
            case=case,
            chosen=chosen,
            call_class=rule.class_of(args),
        )

    def _unit(self, use: ConfigUse, launch: CapturedLaunch, host: str) -> Unit:
        payload = launch.payload(str(self.platform.arch))
        return Unit(**asdict(use, recurse=False), host=host, payload=payload)

    def _bindings(self, calls: Sequence[_Made]) -> dict[str, Binding | KernelpkgError]:
        """Return what each class binds to, or why it does not."""
        while True:
            before, found = self.rule, dict[str, Binding | KernelpkgError]()
            for case, args, _ in calls:
                key = self.rule.class_of(args)
                if isinstance(found.get(key), Binding | Unbound):  # other sizes may have inputs
                    continue
                try:
                    binding = self._binding(case, args)
                except (Unbound, NoInputs) as error:
                    found[key] = error
                    continue
                self.rule = self.rule.learned(args, binding.exact, binding.facts)
                found[self.rule.class_of(args)] = binding
            if self.rule == before:
                return found
            if self.rule.exact != before.exact:  # what is known of fewer classes is left behind
                self.rule = ClassRule(exact=self.rule.exact)

    def _modules(self, calls: Sequence[_Made]) -> dict[tuple[str, str], _Module | KernelpkgError]:
        """Return what Helion makes of each config for each class, or why a build cannot have it.

        Making code may tell more of what it takes for granted: then classes are told apart by it.
        """
        made: dict[tuple[int, str], _Module | KernelpkgError] = {}
        self._bound = self._bindings(calls)
        while True:
            before, found = self.rule, dict[tuple[str, str], _Module | KernelpkgError]()
            for case, args, chosen in calls:
                use = self._use(case, args, chosen, before)
                place = id(self._bound[use.call_class]), chosen.config_id
                if place not in made:
                    made[place] = self._module(use)
                found[use.key] = made[place]
            self._bound = self._bindings(calls)
            if self.rule == before:
                return found

    def _module(self, use: ConfigUse) -> _Module | KernelpkgError:
        """Return what Helion makes of a config for a class, or why a build cannot have it."""
        binding = self._bound[use.call_class]
        if not isinstance(binding, Binding):
            return binding
        try:
            text = binding.code(_config(binding, use))
            kernel = kernel_name(text, binding.function)
            host = host_text(text, binding.function)
            return _Module(
                text=text,
                host=host,
                function=make_host(host, binding.function, kernel, self._target.sms or SMS),
                constants=_constants(text, kernel),
            )
        except (Refused, NotRecorded) as error:
            return error


def shown_cases(cases: Sequence[str]) -> str:
    """Return the first of some cases, and how many more there are."""
    more = f", and {len(cases) - 1} more" if len(cases) > 1 else ""
    return f"case {cases[0]}{more}"


def _config(binding: Binding, use: ConfigUse) -> Mapping[str, Any]:
    return binding.default() if use.chosen.config is None else use.chosen.config


def _filed_choice(one: FiledConfig) -> Chosen:
    """Return a config of the platform's file as calls would get it, if they did."""
    return Chosen(
        config_id=config_id(one.config),
        config=one.config,
        outcome="exact",
        mode="tuned",
        platform=one.platform,
        reason="of the platform's file",
    )


def kernel_name(text: str, host: str) -> str:
    """Return the name of the Triton kernel of a generated module, which its host part launches.

    It is not the only one that has a decorator: a kernel may call functions of Triton.
    """
    functions = _functions(text)
    for node in ast.walk(functions.pop(host)):
        if isinstance(node, ast.Name) and node.id in functions:
            return node.id
    raise NotRecorded("its host part launches 0 kernels")


def _functions(text: str) -> dict[str, ast.FunctionDef]:
    return {node.name: node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)}


def launch_of(call: HostCall, text: str) -> CapturedLaunch:
    """Return a recorded launch of a generated module; addresses count from aligned ones."""
    return CapturedLaunch(
        text=text,
        name=call.kernel,
        args=tuple(
            pointer(arg.dtype, arg.delta) if isinstance(arg, Pointer) else arg for arg in call.args
        ),
        options=call.options,
    )


def _constants(text: str, kernel: str) -> tuple[bool, ...]:
    """Return which arguments of a kernel are constants of its code."""
    return tuple(
        arg.annotation is not None and ast.unparse(arg.annotation) == "tl.constexpr"
        for arg in _functions(text)[kernel].args.args
    )


def _facts(call: HostCall, constants: Sequence[bool]) -> list[Any]:
    """Return what Triton makes a difference of among the arguments of a launch."""
    return [
        str(arg) if constant else _fact(arg)
        for arg, constant in zip(call.args, constants, strict=True)
    ]


def _fact(arg: Any) -> Any:
    if isinstance(arg, Pointer):
        return str(arg.dtype), arg.delta % FACTOR == 0
    if isinstance(arg, int) and not isinstance(arg, bool):
        return 1 if arg == 1 else (arg % FACTOR == 0, arg.bit_length() > 31, arg.bit_length() > 63)
    return type(arg).__name__
