"""Rules to `pick_config`: the picker of a vendored op, as plain Python over a call's arguments."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from attrs import frozen

from kernelpkg.manifest.opschema import NO_DEFAULT
from kernelpkg.manifest.spec import KernelSpec, Scalar
from kernelpkg.vllm.config_format import MARK
from kernelpkg.vllm.vendor import oprules
from kernelpkg.vllm.vendor.exprcode import AxisCode, Unsayable
from kernelpkg.vllm.vendor.op_code import (
    STEP,
    WIDTH,
    assign,
    call,
    collection,
    docstring,
    lay,
    unhidden,
)
from kernelpkg.vllm.vendor.op_sizes import FreeSizes
from kernelpkg.vllm.vendor.op_sources import Import

_TUNED: Final = ("key", f'"{MARK}" not in key')
"""What tells a tuned key from that of a default entry; the second only where there is such."""

_TAKEN: Final = oprules.LOCALS | frozenset(
    {"_", "_pick_cache", "args", "axis", "cached", "config_keys", "default", "facts", "leading"}
    | {"ones", "pick_config", "picked", "size"}
    | {"Any", "CaseKey", "Fraction", "False", "None", "True", "ValueError", "abs", "bisect_left"}
    | {"len", "list", "max", "min", "next", "str", "torch", "tuple"}
)
"""Names that the code of a picker uses itself."""


@frozen(kw_only=True)
class PickerCode:
    """The lines of a picker, and what they import."""

    lines: tuple[str, ...]
    imports: frozenset[Import]


def local_names(spec: KernelSpec) -> dict[str, str]:
    """Return what arguments and axes are called in a picker: by their names, or with a `_`."""
    names = [*spec.schema.arg_names, *(axis.name for axis in spec.axes)]
    return unhidden(names, _TAKEN | ({spec.picker.name} if spec.picker is not None else set()))


def default_key(ones: Sequence[str]) -> dict[str, Scalar]:
    """Return the key of the default entry for calls whose sizes in `ones`, and no others, are 1."""
    return {MARK: True, **dict.fromkeys(ones, 1)} if ones else {}


def write_picker(spec: KernelSpec, codes: Mapping[str, AxisCode], sizes: FreeSizes) -> PickerCode:
    """Write the picker of a kernel; `codes` are its axes, `sizes` those that may be 1 or larger.

    Raises Unsayable for a rule that is not written faithfully.
    """
    if MARK in (*spec.key_axes, *sizes.axes):
        raise Unsayable(f"axis '{MARK}' has the name that marks default entries; rename it")
    body = [*_picking(spec, codes, sizes)]
    head = call("def pick_config", "args: tuple[Any, ...]", "config_keys: list[CaseKey]")
    lines = [*lay(head, after=" -> CaseKey | None:"), *docstring(_told(spec, codes, sizes), STEP)]
    if spec.picker is None:
        lines = [
            "# What pick_config has answered, by the facts of a call, with the list of keys.",
            "_pick_cache: dict[tuple[Any, ...], tuple[list[CaseKey], CaseKey | None]] = {}",
            "",
            "",
            *lines,
        ]
    text = "\n".join(body)
    imports = frozenset(item for word, item in oprules.IMPORTS.items() if word in text)
    return PickerCode(lines=(*lines, *body), imports=imports)


def _told(spec: KernelSpec, codes: Mapping[str, AxisCode], sizes: FreeSizes) -> list[str]:
    """Say in words what the picker does."""
    paragraphs = ["Return the key of the config that a call runs with, or None for the default."]
    if spec.picker is None:
        paragraphs.append("Each rule narrows the tuned keys, by their values of an axis:")
        groups: dict[int, tuple[list[str], str]] = {}
        for rule in spec.rules:
            text = oprules.words(rule, codes[rule.axis])
            if groups and groups[len(groups)][1] == text:
                groups[len(groups)][0].append(rule.axis)
            else:
                groups[len(groups) + 1] = ([rule.axis], text)
        paragraphs += [f"{n}. {', '.join(axes)}: {text}." for n, (axes, text) in groups.items()]
    else:
        paragraphs.append(f"The choice among the tuned keys is that of {spec.picker.name}.")
    if sizes.axes:
        one = " or ".join(f"{axis} is 1" for axis in sizes.axes)
        paragraphs.append(
            f"What Helion compiles where {one} is wrong for larger sizes, and vLLM tells compiled "
            "code apart by key alone. So no key serves both, and calls without a tuned key have a "
            f"default of their own where {one}. A size of 0 counts as 2: what is compiled for "
            "larger sizes launches nothing for it."
        )
    return paragraphs


def _picking(spec: KernelSpec, codes: Mapping[str, AxisCode], sizes: FreeSizes) -> Iterator[str]:
    """Yield the body of the picker."""
    names = local_names(spec)
    needed = [*(spec.key_axes if spec.picker is None else ())]
    needed += [axis for axis in sizes.axes if axis not in needed]
    yield from _arguments(spec, names, [codes[axis] for axis in needed])
    for axis in needed:
        if codes[axis].code != names[axis]:
            yield from assign(names[axis], codes[axis].code)
    yield from _flat(spec, names, sizes)
    for axis in sizes.axes:
        yield f"    if {names[axis]} == 0:"
        yield f"        {names[axis]} = 2"
    tuned = _TUNED if sizes.axes else _TUNED[:1]
    if spec.picker is None:
        yield from assign("facts", collection("()", (names[axis] for axis in needed)))
        yield "    cached = _pick_cache.get(facts)"
        yield "    if cached is not None and cached[0] is config_keys:"
        yield "        return cached[1]"
        yield ""
        yield from oprules.narrowing(spec, codes, names, tuned)
        yield from _first(spec, codes)
    else:
        yield from oprules.listed("keys", "[]", "key", "config_keys", tuned)
        yield f"    best = {spec.picker.name}(args, keys) if keys else None"
        same = ["key == best"]  # its answer may not serve both classes of a size either
        same += [f'(key["{axis}"] == 1) == ({names[axis]} == 1)' for axis in sizes.axes]
        yield from oprules.listed("keys", "[]", "key", "keys", same)
        yield "    picked = keys[0] if keys else None"
    yield from _default(names, sizes.axes)
    if spec.picker is None:
        yield "    _pick_cache[facts] = config_keys, picked"
    yield "    return picked"


def _arguments(
    spec: KernelSpec, names: Mapping[str, str], codes: Sequence[AxisCode]
) -> Iterator[str]:
    """Take what the axes read out of the arguments; those with a default may be left out."""
    read = {name for code in codes for name in code.reads}
    args = spec.schema.args
    firm = [
        place for place, arg in enumerate(args) if arg.name in read and arg.default is NO_DEFAULT
    ]
    if firm == [0]:
        yield f"    {names[args[0].name]} = args[0]"
    elif firm:
        taken = [names[a.name] if a.name in read else "_" for a in args[: firm[-1] + 1]]
        taken += ["*_"] if firm[-1] + 1 < len(args) else []
        yield from _unpacked(taken)
    for place, arg in enumerate(args):
        if arg.name in read and arg.default is not NO_DEFAULT:
            value = f"args[{place}] if len(args) > {place} else {arg.default!r}"
            yield from assign(names[arg.name], value)


def _unpacked(taken: Sequence[str]) -> Iterator[str]:
    line = f"    {', '.join(taken)} = args"
    target = collection("()", taken)
    yield from [line] if len(line) <= WIDTH else lay(target, STEP, after=" = args")


def _flat(spec: KernelSpec, names: Mapping[str, str], sizes: FreeSizes) -> Iterator[str]:
    """Yield the refusal of calls whose leading sizes no key tells apart."""
    for arg in spec.args:
        places = {
            (place, len(variant.shape or ()) - place - 1)
            for variant in arg.variants
            for place, dim in enumerate(variant.shape or ())
            if dim.spread and arg.name in sizes.spread
        }
        for before, after in sorted(places):
            value = names[arg.name]
            cut = f"{before or ''}:{-after if after else ''}"
            leading = f"{value}.shape" if cut == ":" else f"{value}.shape[{cut}]"
            if spec.schema.arg(arg.name).optional:
                leading += f" if {value} is not None else torch.Size()"
            yield from assign("leading", leading)
            yield "    if 1 in leading and leading.numel() != 1:"
            yield from _raised(
                f'"{spec.name}: flatten {arg.name}; what is compiled where one of its "',
                '"leading sizes is 1 is wrong for others"',
            )


def _raised(*texts: str) -> Iterator[str]:
    yield "        raise ValueError("
    yield from (f"            {text}" for text in texts)
    yield "        )"


def _first(spec: KernelSpec, codes: Mapping[str, AxisCode]) -> Iterator[str]:
    """Take the key that is left; of several, which differ in ignored axes, the smallest."""
    ignored = [codes[rule.axis] for rule in spec.rules if rule.match == "ignore"]
    if not ignored:
        yield "    picked = keys[0] if keys else None"
        return
    parts = ", ".join(_sortable(code) for code in ignored)
    order = f"key=lambda key: ({parts})" if "," in parts else f"key=lambda key: {parts}"
    yield from assign("picked", call("min", "keys", order, "default=None"))


def _sortable(code: AxisCode) -> str:
    """Return what keys are ordered by: numbers before None, and None before all else."""
    value = f'key["{code.name}"]'
    if not code.nullable:
        return value
    if code.type in ("whole", "number"):
        return f"{value} is None, {value} or 0"
    none = '""' if code.type == "dtype" else "False"
    return f"{value} is not None, {value} or {none}"


def _default(names: Mapping[str, str], free: Sequence[str]) -> Iterator[str]:
    """Yield the look-up of the default entry of calls with a size of 1."""
    if not free:
        return
    tests = [f"{names[axis]} == 1" for axis in free]
    marked, inner = f'"{MARK}": True', 2 * STEP
    any_one = tests[0] if len(free) == 1 else f"({' or '.join(tests)})"
    yield f"    if picked is None and {any_one}:"
    if len(free) == 1:
        yield from assign("default", collection("{}", [marked, f'"{free[0]}": 1']), inner)
    else:
        pairs = ", ".join(f'("{axis}", {names[axis]})' for axis in free)
        yield from oprules.listed(
            "ones", "{}", "axis: 1", f"({pairs})", ["size == 1"], inner, "axis, size"
        )
        yield from assign("default", collection("{}", [marked, "**ones"]), inner)
    found = call("next", "(key for key in config_keys if key == default)", "None")
    yield from assign("picked", found, inner)
