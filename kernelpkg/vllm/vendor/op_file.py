"""One kernel to one file of vLLM's: what its maintainers would write by hand.

Functions of the kernel's files are taken over as they stand; the picker, the input generator, the
accuracy check and the registration are written from the manifest.
"""

from __future__ import annotations

import ast
import builtins
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from attrs import frozen

from kernelpkg.compile.host_code import NotInferred, host_lines
from kernelpkg.errors import PackError, Problem, shown
from kernelpkg.files import Files
from kernelpkg.manifest.spec import KernelSpec, Reference
from kernelpkg.vllm.vendor import op_picker
from kernelpkg.vllm.vendor.exprcode import AxisCode, Unsayable, axis_codes
from kernelpkg.vllm.vendor.op_code import WIDTH, Doc, call, collection, comment, docstring, lay
from kernelpkg.vllm.vendor.op_inputs import literal, write_inputs
from kernelpkg.vllm.vendor.op_sizes import Unclassed, free_sizes
from kernelpkg.vllm.vendor.op_sources import (
    Import,
    PyFile,
    import_lines,
    in_helion,
    reads,
    take,
    taken_lines,
)
from kernelpkg.vllm.vendor.opaccuracy import write_accuracy

COPYRIGHT: Final = "Copyright contributors to the vLLM project"
"""What vLLM's own check wants to find in the second line of each of its files."""

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
_SECTIONS: Final = {"torch": 1, "helion": 1, "vllm": 2}
"""The section of an import by its first word, as isort has them; 0 is the standard library."""


@frozen(kw_only=True)
class OpFile:
    """The text of one op, how its axes are read, and those by which a size may be 1 or larger."""

    text: str
    axes: Mapping[str, AxisCode]
    free: tuple[str, ...]


def write_op(spec: KernelSpec, origin: str, license: str, files: Files | None = None) -> OpFile:
    """Write the file of one kernel; `origin` says in words what it is made from.

    `files` has what was read of the kernel before. Raises PackError with everything that stands in
    the way.
    """
    taken = take(spec, files)
    function = taken.file.function(spec.source.name)
    try:
        sizes = free_sizes(spec, function)
        axes = axis_codes(spec, op_picker.local_names(spec))
        picker = op_picker.write_picker(spec, axes, sizes)
        inputs = write_inputs(spec, axes, taken.names)
        fake = _fake_impl(taken.file, function) if spec.fake_impl == "infer" else []
        accuracy = write_accuracy(spec, "\n".join(taken.kernel))
        settings = (f"autotune_baseline_fn={taken.baseline_name}", *accuracy.settings)
        kernel = (*_registration(spec, settings, inferred=bool(fake)), *taken.kernel)
    except (Unclassed, Unsayable, NotInferred) as error:
        code = "KP814" if isinstance(error, Unclassed) else "KP813"
        raise _wrong(spec, code, f"kernel '{spec.name}': {error}") from None
    parts = [*taken.helpers, inputs.lines, picker.lines, fake, taken.baseline, accuracy.lines]
    lines = [
        f"# SPDX-License-Identifier: {' '.join(license.split())}",
        f"# SPDX-FileCopyrightText: {COPYRIGHT}",
        *comment(origin),
        *docstring([spec.summary.strip() or spec.name]),
        "",
        *_heading({*_IMPORTS, *taken.imports, *picker.imports, *inputs.imports}),
        *taken_lines((*filter(None, parts), kernel)),
    ]
    long = next((line.strip() for line in lines if len(line) > WIDTH), None)
    if long is not None:
        message = f"a line of its file would be too long for vLLM's {WIDTH} columns; shorten "
        raise _wrong(spec, "KP813", f"kernel '{spec.name}': {message}what is in it: {long}")
    return OpFile(text="\n".join(lines) + "\n", axes=axes, free=sizes.axes)


def _wrong(spec: KernelSpec, code: str, message: str) -> PackError:
    return PackError(problems=(Problem(path=spec.path, code=code, message=message),))


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


def _fake_impl(file: PyFile, function: ast.FunctionDef) -> list[str]:
    """Return the fake implementation of an op: the host code of its Helion function, as text."""
    args = [*function.args.posonlyargs, *function.args.args]
    texts = [file.segment(arg) for arg in args]
    for place, default in enumerate(reversed(function.args.defaults), 1):
        texts[-place] += f" = {file.segment(default)}"
    returns = "" if function.returns is None else f" -> {file.segment(function.returns)}"
    helion = {name for name, item in file.imports.items() if in_helion(item)}
    lines = [
        *lay(call("def fake_impl", *texts), after=f"{returns}:"),
        '    """Return what the op does, with nothing in it: its host code without its loops."""',
        *host_lines(function, "\n".join(file.lines), helion),
    ]
    known = {name for item in file.definitions for name in item.names}
    lacking = sorted(reads("\n".join(lines)) - known - {*file.imports, *dir(builtins)})
    if lacking:
        raise NotInferred(f"its result needs '{lacking[0]}', which a tile loop makes")
    return lines


def _heading(imports: Iterable[Import]) -> Iterator[str]:
    """Yield the imports; what needs Helion comes after the test that it is there."""
    late = [item for item in imports if in_helion(item) or item == _REGISTER]
    early = [item for item in imports if item not in late]
    yield from _sorted_imports(early)
    yield "if not has_helion():"
    yield '    raise ImportError("Helion is not installed: pip install helion")'
    yield ""
    yield from [*_sorted_imports(late)][:-1]


def _sorted_imports(imports: Iterable[Import]) -> Iterator[str]:
    """Yield import statements by section, with an empty line after each."""
    sections: dict[int, list[Import]] = {}
    for item in imports:
        sections.setdefault(_SECTIONS.get(item.module.split(".")[0], 0), []).append(item)
    for section in sorted(sections):
        yield from import_lines(sections[section])
        yield ""
