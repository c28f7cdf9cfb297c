"""The rules of a kernel manifest that no single key can break: what must agree with what."""

from __future__ import annotations

import keyword
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, Final

from attrs import evolve

from kernelpkg.errors import counted, shown, suggestion
from kernelpkg.expr.language import DTYPES
from kernelpkg.expr.types import ValueType, wants
from kernelpkg.manifest import inits
from kernelpkg.manifest.cases import needed_axes, uses_function
from kernelpkg.manifest.decode import TomlPath
from kernelpkg.manifest.document import Document
from kernelpkg.manifest.helion_config import FIELDS, Tunables, wanted_instead
from kernelpkg.manifest.keys import REFUSED_SETTINGS
from kernelpkg.manifest.opschema import OpArg, OpSchema
from kernelpkg.manifest.spec import ANY_SIZES, ArgVariant, KernelSpec, Properties, Rule

_GRID_KEYS: Final = ("use", "rows")
_OPTIONS: Final = {
    "distance": ("nearest",),
    "max": ("nearest",),
    "over": ("ceil", "pow2"),
    "under": ("floor",),
    "bounds": ("ranges",),
    "inexact": ("nearest", "ceil", "floor", "pow2", "ranges"),
}


def axis_problems(
    axis: str, axes: Iterable[str], before: Sequence[Rule]
) -> Iterator[tuple[str, str, str]]:
    """Yield (key, code, message) for what is wrong with one axis of a table of [[key]]."""
    if axis not in axes:
        hint = suggestion(axis, axes) or "; define it, or remove it here"
        yield "axis", "KP104", f"key axis '{axis}' is not defined in [axes]{hint}"
    if any(rule.axis == axis for rule in before):
        yield "axis", "KP108", f"key axis '{axis}' has two rules; keep one of them"


def option_problems(
    table: Mapping[str, Any], before: Sequence[Rule]
) -> Iterator[tuple[str, str, str]]:
    """Yield (key, code, message) for what is wrong with the options of a table of [[key]]."""
    match = table["match"]
    for option, matches in _OPTIONS.items():
        of_inexact = option == "under" and table["inexact"] is not None
        if table[option] is not None and match not in matches and not of_inexact:
            *others, last = map(repr, matches)
            with_ = f"{', '.join(others)}{' and ' * bool(others)}{last}"
            message = f"'{option}' has no effect with match '{match}'; it goes with {with_}"
            yield option, "KP105", message
    if table["inexact"] is not None and all(rule.match == "ignore" for rule in before):
        what = "'inexact' has no effect in the first rule"
        yield (
            "inexact",
            "KP105",
            f"{what}; put the axes that it depends on before it, or remove it",
        )
    bounds = table["bounds"]
    if match == "ranges" and bounds is None:
        yield "match", "KP105", "match 'ranges' needs 'bounds', the last value of each range"
    if bounds is not None and any(a >= b for a, b in pairwise(bounds)):
        yield "bounds", "KP105", f"'bounds' must rise, and is {shown(list(bounds))}"


def specialize_problem(
    name: str, axes: Mapping[str, ValueType | None], before: Sequence[str]
) -> str | None:
    """Say why an axis cannot stand in `specialize`, or return None."""
    if name not in axes:
        hint = suggestion(name, axes) or "; define it, or remove it here"
        return f"specialize names axis '{name}', which is not defined in [axes]{hint}"
    wrong = wants(axes[name], "whole")
    if wrong is not None:
        return f"specialize names axis '{name}', which {wrong}; name sizes and numbers"
    return f"specialize names axis '{name}' twice; remove one" if name in before else None


def variant_problems(
    name: str, table: Mapping[str, Any], *, tensor: bool
) -> Iterator[tuple[str, str, str]]:
    """Yield (key, code, message) for what is wrong with one table of [args]."""
    given = {key for key, value in table.items() if value is not None}
    if not tensor:
        if "value" not in given:
            yield "", "KP132", f"argument '{name}' is a scalar and needs a 'value'"
        for key in sorted(given - {"when", "value"}):
            yield key, "KP132", f"argument '{name}' is a scalar and takes no '{key}'"
        return
    for key in ("shape", "dtype"):
        if key not in given and "like" not in given:
            yield "", "KP132", f"argument '{name}' is a tensor and needs a '{key}'"
    if "value" in given:
        message = f"argument '{name}' is a tensor and takes no 'value'; 'init' says what it holds"
        yield "value" if len(given) > 1 else "", "KP132", message
    if "like" not in given:
        yield from _size_problems(name, table.get("shape"), table.get("strides"))
    for key, message in inits.key_problems(name, table):
        yield key, "KP132", message


def _size_problems(
    name: str, shape: Sequence[str | int] | None, strides: Sequence[str | int] | None
) -> Iterator[tuple[str, str, str]]:
    """Yield (key, code, message) for a shape and strides that do not fit each other."""
    spread = [size for size in shape or () if str(size).startswith("*")]
    if "*" in spread:
        message = "a size that is spread needs its product, as in '*num_tokens', or a 'like'"
        yield "shape", "KP132", f"argument '{name}': {message}"
    if len(spread) > 1:
        yield "shape", "KP132", f"argument '{name}': one size of a shape can be spread with '*'"
    if strides is None or shape is None:
        return
    if len(strides) != len(shape):
        has = f"{counted(len(shape), 'size')} and {counted(len(strides), 'stride')}"
        yield "strides", "KP132", f"argument '{name}' has {has}; give one for each size"
    if spread:
        yield "strides", "KP132", f"argument '{name}': a spread shape takes no 'strides'"
    if any(str(stride).startswith("*") and stride != "*" for stride in strides):
        message = "a stride is a number, an expression, or '*' for any"
        yield "strides", "KP132", f"argument '{name}': {message}"


def like_problem(
    name: str, like: str, given: Mapping[str, Any], schema: OpSchema, *, alone: bool
) -> str | None:
    """Say why an argument cannot be like another one, or return None.

    `given` is [args]; `alone` says that the argument has one table, without a condition.
    """
    tensors = [arg.name for arg in schema.args if arg.is_tensor and arg.name != name]
    if like not in tensors:
        remedy = suggestion(like, tensors) or f"; there are {', '.join(tensors) or 'none'}"
        return f"argument '{name}' is like '{like}', which is not another tensor{remedy}"
    entry = given.get(like)
    tables = entry if isinstance(entry, tuple) else (entry,)
    further = next((t["like"] for t in tables if isinstance(t, dict) and t.get("like")), None)
    if further is not None:
        what = f"argument '{name}' is like '{like}', which is itself like '{further}'"
        return f"{what}; say what it is of one that has a shape"
    if len(tables) > 1 and not alone:
        return f"argument '{name}' is like '{like}', which has variants; give its shape and dtype"
    return None


def likened(own: ArgVariant, like: str, other: ArgVariant) -> ArgVariant:
    """Return a variant of a tensor with what it takes over from one of the tensor `like`."""
    lent = next((dim for dim in other.shape or () if dim.spread), None)
    shape = other.shape if own.shape is None else own.shape
    if lent is not None:
        same = evolve(lent, like=like)
        shape = tuple(same if dim in (lent, ANY_SIZES) else dim for dim in shape or ())
    return evolve(
        own,
        when=own.when or other.when,
        shape=shape,
        dtype=own.dtype or other.dtype,
        strides=other.strides if own.shape is None and own.strides is None else own.strides,
    )


def like_problems(name: str, like: str, found: ArgVariant) -> Iterator[tuple[str, str, str]]:
    """Yield (key, code, message) for what is wrong with a variant that took something over."""
    shape = found.shape or ()
    if ANY_SIZES in shape:
        what = f"argument '{name}' is like '{like}', of which no size is spread"
        yield "shape", "KP132", f"{what}; '*' stands for the spread sizes"
    sizes = [f"{'*' if dim.spread else ''}{dim.expr.text}" for dim in shape]
    strides = ["*" if stride is None else stride.text for stride in found.strides or ()]
    yield from _size_problems(name, sizes, None if found.strides is None else strides)


def check_kernel(
    spec: KernelSpec,
    document: Document,
    constants: Collection[str] = (),
    tunables: Tunables = tuple,
) -> None:
    """Report everything in which the parts of a spec do not agree.

    `constants` are the arguments that the function takes as hl.constexpr, `tunables` says which
    fields of its configs it registers.
    """
    for checks in (
        (_name_problems, _op_problems, partial(_helion_problems, tunables=tunables)),
        (
            partial(_use_problems, constants=constants),
            _presence_problems,
            partial(_constant_problems, constants=constants),
            _accuracy_problems,
            _property_problems,
        ),
    ):
        for at, code, message in (found for check in checks for found in check(spec)):
            document.report(at, code, message)
        if document.incomplete:
            return  # what is missing would be missed again; _op_problems may have found it


_Problems = Iterator[tuple[TomlPath, str, str]]
"""Paths, codes and messages."""


def _name_problems(spec: KernelSpec) -> _Problems:
    """A name must mean one thing: an axis, an argument, a dtype, or a key."""
    remedy = "give the axis another name"
    for axis in spec.axes:
        at = ("axes", axis.name)
        if axis.name in DTYPES or keyword.iskeyword(axis.name) or axis.name in _GRID_KEYS:
            what = "is a dtype, a keyword, or a key of [[inputs.grid]]"
            yield at, "KP108", f"'{axis.name}' {what}; {remedy}"
        elif axis.name in spec.schema.arg_names and axis.expr.name != axis.name:
            what = f"is an argument and an axis that means '{axis.expr.text}'"
            yield at, "KP108", f"'{axis.name}' {what}; {remedy}"
    for name in spec.schema.arg_names:
        if name in DTYPES or keyword.iskeyword(name):
            message = f"argument '{name}' has the name of a dtype or a keyword; give it another"
            yield ("op", "schema"), "KP108", message


def _use_problems(spec: KernelSpec, constants: Collection[str]) -> _Problems:
    if spec.picker is not None or spec.generator is not None or uses_function(spec):
        return  # a function gets all axes
    told = {*_presence(spec).values(), *_constants(spec, constants).values()}  # by KP107
    used = {*spec.key_axes, *told}
    used.update(name for guard in spec.guards for name in guard.names())
    used.update(needed_axes(spec))
    for axis in spec.axes:
        if axis.name not in used:
            message = f"axis '{axis.name}' is used by no rule, guard or argument; remove it"
            yield ("axes", axis.name), "KP106", message


def _optional_tensors(spec: KernelSpec) -> list[OpArg]:
    return [arg for arg in spec.schema.args if arg.is_tensor and arg.optional]


def _presence(spec: KernelSpec) -> dict[str | None, str]:
    """Return the axes that tell whether optional tensors are given, by the names of these."""
    tensors = {arg.name for arg in _optional_tensors(spec)}
    return {axis.expr.tested: axis.name for axis in spec.axes if axis.expr.tested in tensors}


def _presence_problems(spec: KernelSpec) -> _Problems:
    """Lists of a config are positional over loads and stores, which shift with an argument."""
    exact = {rule.axis for rule in spec.rules if rule.match == "exact"}
    presence = _presence(spec)
    shift = "because lists of a config shift without it"
    for arg in _optional_tensors(spec):
        axis = presence.get(arg.name)
        if axis is None:
            what = f"optional tensor '{arg.name}' has no axis for its presence"
            remedy = f'add has_{arg.name} = "{arg.name} is not None"'
            yield ("axes",), "KP107", f"{what}; {remedy}, {shift}"
        elif axis not in exact and spec.picker is None:
            what = f"axis '{axis}' tells whether '{arg.name}' is given"
            yield ("axes", axis), "KP107", f"{what} and needs a rule with match 'exact', {shift}"


def _constants(spec: KernelSpec, constants: Collection[str]) -> dict[str, str | None]:
    """Return the arguments that are constants of the code, and the axes that are these; texts too.

    Helion takes a text for a constant however it is annotated.
    """
    axes = {axis.expr.name: axis.name for axis in spec.axes}
    wanted = [arg.name for arg in spec.schema.args if arg.type == "str" or arg.name in constants]
    return {name: axes.get(name) for name in wanted}


def _constant_problems(spec: KernelSpec, constants: Collection[str]) -> _Problems:
    """Code of a constant is for one value, so configs are too."""
    exact = {rule.axis for rule in spec.rules if rule.match == "exact"}
    why = "for code is made for each value"
    for name, axis in _constants(spec, constants).items():
        if axis is None:
            what = f"argument '{name}' is a constant of the code and has no axis"
            yield ("axes",), "KP107", f'{what}; add {name} = "{name}", {why}'
        elif axis not in exact and spec.picker is None:
            what = f"axis '{axis}' is a constant of the code and needs a rule with match 'exact'"
            yield ("axes", axis), "KP107", f"{what}, {why}"


def _op_problems(spec: KernelSpec) -> _Problems:
    schema, at = spec.schema, ("op", "schema")
    if not schema.written and not schema.returns:
        remedy = "mark what it writes, as in 'Tensor(a!) out'"
        yield at, "KP102", f"schema returns nothing and writes no argument; {remedy}"
    if not any(arg.is_tensor and not arg.optional for arg in schema.args):
        why = "its device would be the call's"
        yield at, "KP102", f"schema has no tensor that is always given; {why}"
    if (spec.fake_impl == "none") != (schema.returns == 0):
        has = "returns nothing" if schema.returns == 0 else "returns a tensor"
        wants = "'none'" if schema.returns == 0 else "'infer' or a function"
        yield ("op", "fake_impl"), "KP102", f"the op {has}, so fake_impl must be {wants}"


def _accuracy_problems(spec: KernelSpec) -> _Problems:
    results, given = spec.schema.results, {*spec.accuracy, *spec.properties}
    written = (*spec.schema.written, *results)
    for part, named in (("accuracy", spec.accuracy), ("properties", spec.properties)):
        for name in named:
            if name not in written and not (name == "return" and results):
                hint = suggestion(name, written) or f"; it writes {', '.join(written) or 'nothing'}"
                yield (part, name), "KP109", f"'{name}' is not written by the op{hint}"
            elif name not in written and given.issuperset(results):
                what = "'return' has no effect, because each result has its own entry"
                yield (part, name), "KP109", f"{what}; remove it, or one of those"
    if results and given.isdisjoint(results):
        written = (*spec.schema.written, "return")
    elif "return" in given:
        written = spec.schema.written
    for name in written:
        if name not in given:
            what = f"'{name}' is written by the op and has no [accuracy]"
            yield ("accuracy",), "KP109", f"{what}; say how close it must be"
    for name, bounds in spec.accuracy.items():
        idle = ("rtol", bounds.rtol), ("atol", bounds.atol)
        for key in (key for key, given in idle if given and bounds.steps is not None):
            what = f"'{key}' has no effect beside 'steps', which counts codes"
            yield ("accuracy", name, key), "KP109", f"{what}; keep one of them"
    for name in spec.accuracy if spec.reference is None else ():
        what = f"'{name}' has [accuracy], but there is no reference to compare it with"
        yield ("accuracy", name), "KP109", f"{what}; give one, or use [properties] instead"
    if spec.reference is not None and not spec.accuracy and spec.properties:
        what = "no output has [accuracy], so the reference is never used"
        yield ("kernel", "reference"), "KP109", f'{what}; say reference = "none"'


def _property_problems(spec: KernelSpec) -> _Problems:
    seeds = [arg.name for arg in spec.schema.args if arg.type in ("int", "SymInt")]
    seeds = [name for name in seeds if not spec.schema.arg(name).optional]
    for name, wanted in spec.properties.items():
        at = ("properties", name)
        if name in spec.accuracy:
            what = f"'{name}' has [accuracy] and [properties]"
            yield at, "KP109", f"{what}; keep one; [properties] is for what no reference computes"
        elif wanted == evolve(Properties(), within=wanted.within):
            what = f"[properties] has no condition for '{name}'"
            yield at, "KP109", f"{what}; give 'zeros', 'seed' or 'holds'"
        if wanted.within and wanted.zeros is None:
            yield (*at, "within"), "KP109", "'within' goes with 'zeros'; give it, or remove this"
        if wanted.seed is not None and wanted.seed not in seeds:
            remedy = suggestion(wanted.seed, seeds) or f"; there are {', '.join(seeds) or 'none'}"
            message = (
                f"'seed' names '{wanted.seed}', which is not a whole number that all calls give"
            )
            yield (*at, "seed"), "KP109", message + remedy


def _helion_problems(spec: KernelSpec, tunables: Tunables) -> _Problems:
    for setting in spec.settings:
        if setting in REFUSED_SETTINGS:
            message = f"setting '{setting}' is made from the rules by kernelpkg; remove it"
            yield ("helion", "settings", setting), "KP150", message
    default = spec.default or {}
    fields = FIELDS if default.keys() <= FIELDS else FIELDS.union(tunables())
    for name, value in default.items():
        at = ("helion", "default", name)
        if name not in fields:
            remedy = suggestion(name, sorted(fields)) or "; see helion.Config for those there are"
            yield at, "KP152", f"default config has no field '{name}'{remedy}"
        elif isinstance(value, tuple) and name != "block_sizes" and _optional_tensors(spec):
            what = f"default config has a list in '{name}'"
            why = "use only scalars and block_sizes, as other lists fit one set of given arguments"
            yield at, "KP152", f"{what}; {why}"
        else:
            plain = list(value) if isinstance(value, tuple) else value
            wanted = wanted_instead(name, plain)
            if wanted is not None:
                message = f"default config has {name} = {plain!r}; it must be {wanted}"
                yield at, "KP152", message
