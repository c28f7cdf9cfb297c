"""One kernel to one file of vLLM's: what its maintainers would write by hand.

Functions of the kernel's files are taken over as they stand; the rules, the input generator, the
tolerances and the registration are written from the manifest.
"""

from __future__ import annotations

import ast
import builtins
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, Final

from attrs import frozen

from kernelpkg.compile.host_code import host_lines
from kernelpkg.compile.needed import NotInferred
from kernelpkg.errors import pack_error, shown
from kernelpkg.files import Files
from kernelpkg.manifest.cases import cases_of
from kernelpkg.manifest.spec import Accuracy, KernelSpec, Reference
from kernelpkg.packs.signature import hint, is_constant
from kernelpkg.vllm.vendor.op_code import (
    STEP,
    WIDTH,
    AxisCode,
    Doc,
    Unsayable,
    assign,
    axis_codes,
    call,
    collection,
    comment,
    heading,
    lay,
    literal,
)
from kernelpkg.vllm.vendor.op_guards import write_guards
from kernelpkg.vllm.vendor.op_inputs import write_inputs
from kernelpkg.vllm.vendor.op_picker import SHARED, local_names, write_picker
from kernelpkg.vllm.vendor.op_sizes import Unclassed, free_sizes
from kernelpkg.vllm.vendor.op_sources import Import, PyFile, import_lines, in_helion, reads, take

_REGISTER: Final = Import(
    module="vllm.kernels.helion.register", member="register_kernel", name="register_kernel"
)
_IMPORTS: Final = (
    Import(module="typing", member="Any", name="Any"),
    Import(module="torch", member=None, name="torch"),
    Import(module="helion", member=None, name="helion"),
    Import(module="vllm.kernels.helion.case_key", member="CaseKey", name="CaseKey"),
    Import(module="vllm.utils.import_utils", member="has_helion", name="has_helion"),
    _REGISTER,
)
_PRODUCT: Final = Import(module="itertools", member="product", name="product")


@frozen(kw_only=True)
class OpFile:
    """The text of one op, how its axes are read, and those by which a size may be 1 or larger."""

    text: str
    axes: Mapping[str, AxisCode]
    free: tuple[str, ...]


def write_op(
    spec: KernelSpec,
    origin: str,
    license: str,
    shared: str,
    files: Files | None = None,
    theirs: Mapping[str, str] = {},
) -> OpFile:
    """Write the file of one kernel; `origin` says in words what it is made from.

    `shared` is the module of what all ops share. `files` has what was read of the kernel before,
    `theirs` vLLM's names of axes by ours. Raises PackError with everything that stands in the way.
    """
    if spec.properties:
        what = "what has [properties] would be compared with a baseline by vLLM's autotuner"
        message = f"kernel '{spec.name}': {what}; leave it out of the pack that is vendored"
        raise pack_error(spec.path, "KP813", message)
    numbers = next((arg.name for arg in spec.schema.args if arg.type == "int[]"), None)
    if numbers is not None:
        what = f"argument '{numbers}' is a list, whose elements no key of vLLM's keeps apart"
        message = f"kernel '{spec.name}': {what}; leave it out of the pack that is vendored"
        raise pack_error(spec.path, "KP813", message)
    taken = take(spec, files)
    function = taken.file.function(spec.source.name)
    try:
        sizes = free_sizes(spec, function)
        axes = axis_codes(spec, local_names(spec))
        picker = write_picker(spec, axes, sizes.axes, theirs)
        inputs = write_inputs(spec, axes, taken.names, theirs)
        fake = _fake_impl(spec, taken.file, function) if spec.fake_impl == "infer" else []
        tolerances, near = _accuracy(spec, "\n".join(taken.kernel))
        settings = (f"autotune_baseline_fn={taken.baseline_name}", *near)
        guards = write_guards(spec, sizes.spread, taken.imports)
        kernel = [*_registration(spec, settings, inferred=bool(fake))]
        kernel += _guarded(*_plain(spec, taken.kernel, guards))
    except (Unclassed, Unsayable, NotInferred) as error:
        code = "KP814" if isinstance(error, Unclassed) else "KP813"
        raise pack_error(spec.path, code, f"kernel '{spec.name}': {error}") from None
    aliases = _aliases(spec, taken.baseline_name)
    parts = [*taken.helpers, inputs, picker, fake, taken.baseline, aliases, tolerances, kernel]
    read = reads("\n".join(chain.from_iterable(parts)))
    known = [_PRODUCT, *(Import(module=shared, member=name, name=name) for name in SHARED)]
    imports = {item for item in known if item.name in read}
    lines = [
        *heading(license, origin, spec.summary.strip() or spec.name),
        "",
        *_imports({*_IMPORTS, *taken.imports, *imports}),
        *(line for part in parts if part for line in ("", "", *part)),
    ]
    long = next((line.strip() for line in lines if len(line) > WIDTH), None)
    if long is not None:
        what = f"a line of its file would be too long for vLLM's {WIDTH} columns"
        message = f"kernel '{spec.name}': {what}; shorten what is in it: {long}"
        raise pack_error(spec.path, "KP813", message)
    return OpFile(text="\n".join(lines) + "\n", axes=axes, free=sizes.axes)


def _aliases(spec: KernelSpec, baseline: str) -> list[str]:
    """Return the names by which vLLM's ops have the same parts, where they are called by the op."""
    name = spec.name
    lines = comment("As older ops call them, by the name of the op.")
    lines += assign(f"generate_{name}_inputs", "generate_inputs", 0)
    lines += assign(f"pick_{name}_config", "pick_config", 0)
    return [*lines, *assign(f"{name}_baseline", baseline, 0)]


def _guarded(kernel: Sequence[str], guards: Sequence[str]) -> list[str]:
    """Return the Helion function with lines before all that it does."""
    (function,) = ast.parse("\n".join(kernel)).body
    assert isinstance(function, ast.FunctionDef)
    first = function.body[0]
    if ast.get_docstring(function) is not None:
        place = first.end_lineno or 0
    else:
        place = first.lineno - 1
        while kernel[place - 1].lstrip().startswith("#"):
            place -= 1
    return [*kernel[:place], *guards, *kernel[place:]]


def _plain(
    spec: KernelSpec, kernel: Sequence[str], guards: Sequence[str]
) -> tuple[Sequence[str], Sequence[str]]:
    """Return a Helion function and its guards with `hl.constexpr` said by what an op takes.

    A schema is made of the annotations there, so that a number is made a constant by
    `hl.specialize`; a text is one however it is annotated. Raises Unsayable for a flag.
    """
    text = "\n".join(kernel)
    (function,) = ast.parse(text).body
    assert isinstance(function, ast.FunctionDef)
    constants = [arg for arg in function.args.args if is_constant(arg)]
    if not constants:
        return kernel, guards
    fixed = []
    for arg in constants:
        kind = spec.schema.arg(arg.arg).type
        if kind == "bool":
            what = f"argument '{arg.arg}' is a flag and hl.constexpr, which no op of vLLM can be"
            raise Unsayable(f"{what}; let it be a whole number, or leave the kernel out")
        if kind == "int":
            annotation = ast.get_source_segment(text, arg.annotation or arg) or ""
            module = annotation.strip("'\"").rpartition(".")[0] or "helion.language"
            fixed.append(f"{' ' * STEP}{arg.arg} = {module}.specialize({arg.arg})")
    last = function.returns or function.args.args[-1]
    end = last.end_lineno or 0
    while not _HEAD_ENDS.search(kernel[end - 1]):
        end += 1
    head = _head(function.name, spec, text, function)
    return [*kernel[: function.lineno - 1], *head, *kernel[end:]], [*guards, *fixed]


_HEAD_ENDS: Final = re.compile(r":\s*(#.*)?$")


def _head(name: str, spec: KernelSpec, text: str, function: ast.FunctionDef) -> Iterator[str]:
    """Yield the `def` of a function of a text, under a name, without `hl.constexpr`."""
    args = [*function.args.posonlyargs, *function.args.args]
    texts = [
        f"{arg.arg}: {hint(spec.schema.arg(arg.arg))}"
        if is_constant(arg)
        else ast.get_source_segment(text, arg) or ""
        for arg in args
    ]
    for place, default in enumerate(reversed(function.args.defaults), 1):
        texts[-place] += f" = {ast.get_source_segment(text, default)}"
    returns = function.returns
    after = "" if returns is None else f" -> {ast.get_source_segment(text, returns)}"
    return lay(call(f"def {name}", *texts), after=f"{after}:")


def _registration(spec: KernelSpec, accuracy: Sequence[Doc], *, inferred: bool) -> Iterator[str]:
    """Yield the decorator; `accuracy` are settings for what configs are held against."""
    items: list[Doc] = [] if spec.source.name == spec.name else [f'"{spec.name}"']
    if spec.schema.written:
        names = [f'"{name}"' for name in spec.schema.written]
        items.append(collection("[]", names, "mutates_args="))
    items += ["config_picker=pick_config", "input_generator=generate_inputs"]
    if isinstance(spec.fake_impl, Reference):
        items.append(f"fake_impl={spec.fake_impl.name}")
    elif inferred:
        items.append("fake_impl=fake_impl")
    settings: dict[str, Any] = dict(spec.settings)
    ignored = ["TensorOperationInWrapper", *_names(settings.pop("ignore_warnings", ()))]
    warnings = [f"helion.exc.{name}" for name in dict.fromkeys(ignored)]
    given = [*accuracy, *(_setting(name, value, f"{name}=") for name, value in settings.items())]
    given.append(collection("[]", warnings, "ignore_warnings="))
    given.append("static_shapes=False")  # vLLM warns of Helion's own default, and overrides it
    items.append(call("helion_settings=helion.Settings", *given))
    yield from lay(collection("()", items, "@register_kernel"))


def _names(value: Any) -> list[str]:
    """Return the names of warnings; raises Unsayable for anything else."""
    names = [*value] if isinstance(value, list | tuple) else [value]
    if not all(isinstance(name, str) and name.isidentifier() for name in names):
        raise Unsayable(f"setting ignore_warnings is {shown(value)}; give names of warnings")
    return names


def _setting(name: str, value: Any, start: str = "") -> Doc:
    """Return a setting; raises Unsayable for a value that JSON does not know, as a date."""
    if isinstance(value, Mapping):
        items = [_setting(name, item, f"{literal(key)}: ") for key, item in value.items()]
        return collection("{}", items, start)
    if isinstance(value, list | tuple):
        return collection("[]", [_setting(name, item) for item in value], start)
    known = value is None or isinstance(value, bool | int | str)
    if not known and not (isinstance(value, float) and math.isfinite(value)):
        raise Unsayable(f"setting {name} has {shown(value)}; give a plain value")
    return f"{start}{literal(value)}"


def _fake_impl(spec: KernelSpec, file: PyFile, function: ast.FunctionDef) -> list[str]:
    """Return the fake implementation of an op: the host code of its Helion function, as text."""
    helion = {name for name, item in file.imports.items() if in_helion(item)}
    lines = [
        *_head("fake_impl", spec, "\n".join(file.lines), function),
        '    """Return what the op does, with nothing in it: its host code without its loops."""',
        *host_lines(function, "\n".join(file.lines), helion),
    ]
    known = {name for item in file.definitions for name in item.names}
    lacking = sorted(reads("\n".join(lines)) - known - {*file.imports, *dir(builtins)})
    if lacking:
        raise NotInferred(f"its result needs '{lacking[0]}', which a tile loop makes")
    return lines


_CODES: Final[Mapping[str, tuple[float, str]]] = {
    "float8_e4m3fn": (0.125, "2**-9"),
    "float8_e4m3fnuz": (0.125, "2**-10"),
    "float8_e5m2": (0.25, "2**-16"),
    "float8_e5m2fnuz": (0.25, "2**-17"),
    "int8": (0.0, "1.0"),
    "uint8": (0.0, "1.0"),
}
"""One step between codes, relative, and absolute where codes are densest.

Source: the OCP 8-bit floating point specification; the fnuz formats have one exponent more.
"""

_EPSILON: Final = 2**-7
"""That of bfloat16, the coarsest dtype that an op may round to on its way."""

_GIVEN: Final = (
    "autotune_baseline_atol",
    "autotune_baseline_rtol",
    "autotune_baseline_accuracy_check_fn",
)


def _accuracy(spec: KernelSpec, source: str) -> tuple[list[str], list[Doc]]:
    """Say how near a config's results must be to the baseline's, unless the manifest does.

    Returns the lines of a table, if there has to be one, and Helion's settings. Helion compares FP8
    bit by bit, by which 0 and -0 are 128 apart, so codes get a check of their own. `source` is
    the Helion function, which names the dtypes of what it returns.
    """
    if not spec.settings.keys().isdisjoint(_GIVEN):
        return [], []
    coded = {name: found for name, found in spec.accuracy.items() if found.steps is not None}
    plain = [found for name, found in spec.accuracy.items() if name not in coded]
    rtol = max([0.0, *map(_relative, plain)])
    atol = max([0.0, *(found.atol for found in plain)])
    if not coded:
        return [], [f"autotune_baseline_atol={atol}", f"autotune_baseline_rtol={rtol}"]
    tolerances = {
        f"torch.{dtype}": _tolerance(dtype, found)
        for name, found in coded.items()
        for dtype in _dtypes(spec, name, source)
    }
    tolerances["None"] = f"({rtol}, {atol})"
    table = collection("{}", [f"{dtype}: {pair}" for dtype, pair in tolerances.items()])
    lines = comment("How far results may be from the baseline's, by dtype: relative, absolute.")
    return (
        [*lines, *assign("TOLERANCES", table, 0)],
        ["autotune_baseline_accuracy_check_fn=AccuracyCheck(TOLERANCES)"],
    )


def _relative(found: Accuracy) -> float:
    """A value may fall to the other side of two roundings, where one is allowed."""
    return max(found.rtol, 2 * _EPSILON if found.rounding is not None else 0.0)


def _dtypes(spec: KernelSpec, name: str, source: str) -> list[str]:
    """Return the dtypes that an argument has in the cases, or that are named for a result."""
    arg = next((arg for arg in spec.args if arg.name == name), None)
    exprs = [v.dtype for v in arg.variants if v.dtype is not None] if arg is not None else []
    cases = [case for use in ("tune", "test") for case in cases_of(spec, use)]
    found = {str(case.values.get(expr.text, expr.text)) for expr in exprs for case in cases}
    named = [dtype for dtype in _CODES if re.search(rf"\b{dtype}\b", source)]
    return [dtype for dtype in _CODES if dtype in found] if exprs else named or [*_CODES]


def _tolerance(dtype: str, found: Accuracy) -> str:
    relative, absolute = _CODES[dtype]
    largest = {"int8": 127, "uint8": 255}.get(dtype)
    steps = found.whole_steps(largest, _EPSILON) if largest is not None else found.steps or 0
    return f"({relative * steps}, {absolute if steps == 1 else f'{steps} * {absolute}'})"


def _imports(imports: Iterable[Import]) -> list[str]:
    """Return the imports; what needs Helion comes after the test that it is there."""
    late = [item for item in imports if in_helion(item) or item == _REGISTER]
    early = [item for item in imports if item not in late]
    return [
        *import_lines(early),
        "",
        "if not has_helion():",
        '    raise ImportError("Helion is not installed: pip install helion")',
        "",
        *import_lines(late),
    ]
