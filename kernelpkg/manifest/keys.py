"""The keys of kernel and pack manifests, edition 1: the one place that spells them.

The decoder, the JSON Schema and the reference in docs/reference/manifest.md are all made from these
tables.
"""

from __future__ import annotations

import json
from typing import Any, Final

from kernelpkg.manifest.decode import (
    Anything,
    Choice,
    Either,
    Flag,
    ListOf,
    MapOf,
    Number,
    Table,
    Text,
    optional,
    required,
    table,
)

EDITION: Final = 1
"""The edition of manifests that this version reads and writes."""

USES: Final = ("tune", "test", "bench")
"""What the cases of a grid are for that does not say it."""

INTERPRET: Final = "interpret"
"""The use of a grid that stands for that of tests where calls are interpreted."""

INITS: Final = (
    *("empty", "zeros", "ones", "randn", "uniform", "arange"),
    *("randint", "sorted", "permutation", "offsets", "packed"),
)
REFUSED_SETTINGS: Final = ("key", "autotuner_fn", "config", "configs", "static_shapes")
"""Helion settings that kernelpkg sets itself, from the picker."""

NAME: Final = r"[A-Za-z_][A-Za-z0-9_]*"
OUTPUT: Final = rf"{NAME}|return\[[0-9]+\]"
REFERENCE: Final = r"[A-Za-z0-9_./ -]+\.py:" + NAME

_name = Text("an identifier (letters, digits and underscores)", NAME)
_reference = Text("a reference of the form 'file.py:function'", REFERENCE)
_expression = Text("an expression")
_value = Either((Flag(), Number(), Text()), "a number, true, false or a text")
_output = Text("an argument, 'return', or 'return[0]' for one of several results", OUTPUT)
_axis_values = MapOf(_value, key=_name)
_size = Either((Number(whole=True, least=0), _expression), "a whole number or an expression")
_whole = Either((Number(whole=True), _expression), "a whole number or an expression")
_plain = (Flag(), Number(), Text())
_entry = Either((*_plain, ListOf(Either(_plain))), "a number, a text, true, false or a list")
_positive = Number(whole=True, least=1)

_KERNEL: Final = table(
    name=required(_name, "The name of the kernel, its directory, its op"),
    version=required(_positive, "Raised when the schema or the results change"),
    summary=required(Text(), "One sentence on what the op computes"),
    source=optional(_reference, "The Helion function; 'kernel.py:<name>' unless given"),
    reference=optional(
        Text(f"'none' or {_reference.what}", f"none|{REFERENCE}"),
        "The same in eager PyTorch, computed in float32; 'host.py:reference' unless given, 'none' "
        "where [properties] alone say what holds",
        "host.py:reference",
    ),
    picker=optional(
        _reference, "Way out of [[key]]: `f(args, keys)` returns one of the tuned keys, or None"
    ),
)

_BACKWARD: Final = table(
    op=required(_name, "The op of this pack that answers the gradients"),
    args=optional(
        MapOf(
            Text(
                "an argument, a result as 'return' or 'return[1]', or its gradient, 'return.grad'",
                rf"(?:{OUTPUT})(?:\.grad)?",
            ),
            key=_name,
        ),
        "What its arguments are, where the op has no argument of the same name",
        {},
    ),
    grads=required(
        MapOf(_output, key=_name),
        "Per argument of the op, which output of the backward is its gradient",
    ),
)

_OP: Final = table(
    schema=required(Text(), "The schema of the op without its name; checked against the function"),
    fake_impl=required(
        Text(f"'none', 'infer' or {_reference.what}", rf"none|infer|{REFERENCE}"),
        "'none' for an op that returns nothing, 'infer' for the host part of the Helion "
        "function run on fake tensors, or a function of the same arguments",
    ),
    backward=optional(_BACKWARD, "What answers the gradients of the op; none unless given"),
)

_HELION: Final = table(
    requires=optional(Text(), "The versions of Helion that the kernel works with", ">=1.4"),
    settings=optional(
        MapOf(Anything(), key=_name),
        "Helion settings; " + ", ".join(REFUSED_SETTINGS) + " are kernelpkg's",
        {},
    ),
    default=optional(
        MapOf(
            Either((Flag(), Number(), Text(), ListOf(_entry)), "a scalar, or a list"),
            key=_name,
        ),
        "The config where none is tuned: scalars and block_sizes, and other lists where no tensor "
        "is optional; without it Helion's",
    ),
    specialize=optional(
        ListOf(_name),
        "The axes that the host part makes constants of the code with hl.specialize in "
        "every call; none unless given",
        (),
    ),
)

_RULE: Final = table(
    axis=required(
        Either((_name, ListOf(_name, least=1)), "the name of an axis, or several"),
        "The axis that this rule narrows by, or several, each in turn",
    ),
    match=required(
        Choice(("exact", "nearest", "ceil", "floor", "pow2", "ranges", "ignore")),
        "How the call's value finds a tuned value",
    ),
    distance=optional(Choice(("abs", "log")), "For nearest: what is near; 'abs' unless given"),
    max=optional(Number(least=0), "For nearest: the largest relative deviation; else a miss"),
    over=optional(
        Choice(("largest", "miss")),
        "For ceil and pow2: what a call above all tuned values gets; else 'largest'",
    ),
    under=optional(
        Choice(("smallest", "miss")),
        "For floor and inexact: what a call below all tuned values gets; else 'smallest'",
    ),
    inexact=optional(
        Choice(("floor", "below")),
        "What counts for match where a rule before this one found no equal value",
    ),
    bounds=optional(
        ListOf(Number(whole=True), least=1),
        "For ranges: the last value of each range, rising; the one above is open",
    ),
)

_GRID: Final = Table(
    keys={
        "use": optional(
            ListOf(Choice((*USES, INTERPRET)), least=1),
            "What the cases are for; 'interpret' takes the place of 'test' on a CPU",
            USES,
        ),
        "rows": optional(
            ListOf(_axis_values, least=1),
            "Axes that go together: each row is one combination",
            ({},),
        ),
    },
    rest=MapOf(ListOf(_value, least=1), key=_name),
)

_filling = f"one of {', '.join(INITS)}, a number or {_reference.what}"
_VARIANT: Final = table(
    when=optional(_expression, "For which calls this is the argument"),
    like=optional(
        _name, "Another tensor, whose shape, dtype and strides count for what is not given here"
    ),
    shape=optional(
        ListOf(_size),
        "Sizes; one that begins with '*' is any number of sizes with that product, and '*' those "
        "that the tensor of 'like' has there",
    ),
    dtype=optional(_expression, "A dtype, or an axis that is one"),
    strides=optional(
        ListOf(_size), "Strides in elements, '*' for any; without it the tensor must be contiguous"
    ),
    init=optional(
        Either((Number(), Text(_filling, rf"{'|'.join(INITS)}|{REFERENCE}")), _filling),
        "What a test tensor holds: 'empty' for a written argument, 'randn' for any other, "
        "unless given; a function gets (axes, args, generator)",
    ),
    low=optional(_whole, "For randint, sorted and packed: the least value; 0 unless given"),
    high=optional(
        _whole, "For randint and sorted, and if given for permutation and packed: values are below"
    ),
    total=optional(_whole, "For offsets: the last of them"),
    bits=optional(
        Number(whole=True, least=1, most=32), "For packed: the bits of each code in an element"
    ),
    value=optional(
        Either((Flag(), Number(), Text(), ListOf(_whole))),
        "The value of a scalar; the elements of a list",
    ),
)

_ARG: Final = Either(
    (
        *(Flag(), Number(), _expression, _VARIANT),
        ListOf(
            Either(
                (_VARIANT, *_whole.kinds), "a table, or an element: a whole number, an expression"
            ),
            least=1,
        ),
    ),
    "a table, an array of tables or of elements, a number, true, false or an expression",
)

_ACCURACY: Final = table(
    steps=optional(Number(whole=True, least=0), "Adjacent codes at most (FP8, INT8)"),
    equal=optional(Number(least=0, most=1), "The least share of equal elements", 0.0),
    rtol=optional(Number(least=0), "Relative tolerance", 0.0),
    rounding=optional(
        _name,
        "A tensor argument to whose dtype values are rounded on the way; twice its machine "
        "epsilon is allowed",
    ),
    atol=optional(Number(least=0), "Absolute tolerance", 0.0),
)

_PROPERTIES: Final = table(
    zeros=optional(
        Either((Number(least=0, most=1), _expression), "a number or an expression"),
        "The share of zeros, over the axes, but for what chance does",
    ),
    within=optional(Number(least=0, most=1), "How far the share may be off beside chance", 0.0),
    seed=optional(_name, "The whole number that the values follow: equal for equal seeds"),
    holds=optional(
        _reference, "`f(output, *arguments)` returns for each element whether it can be right"
    ),
)

_edition = required(Number(whole=True, least=1, most=EDITION), "The edition of the manifest: 1")

KERNEL_MANIFEST: Final = table(
    edition=_edition,
    kernel=required(_KERNEL, "What the kernel is, and where its code is"),
    op=required(_OP, "The identity of the op"),
    helion=optional(_HELION, "For Helion", {}),
    axes=required(
        MapOf(_expression, key=_name), "Facts of a call, each an expression over the arguments"
    ),
    guard=optional(
        table(
            when=required(
                ListOf(_expression, least=1),
                "Expressions over axes and arguments; all must be true",
            )
        ),
        "What the kernel takes, beyond what [args] says",
    ),
    key=optional(ListOf(_RULE), "Rules, in order of precedence", ()),
    miss=optional(
        table(
            action=required(
                Choice(("default", "error")), "What a call gets that no tuned config is for"
            )
        ),
        "What happens where no config is tuned; without it the default config runs",
    ),
    inputs=required(
        table(
            default=optional(_axis_values, "Values of axes that are not given", {}),
            grid=optional(
                ListOf(_GRID), "Each a product of axis values; their union is the grid", ()
            ),
            generator=optional(
                _reference, "Way out of [args]: `f(axes, generator, device)` returns the arguments"
            ),
        ),
        "The cases that inputs are made for",
    ),
    args=required(
        MapOf(_ARG, key=_name), "What inputs are made from, and what calls are held against"
    ),
    accuracy=optional(
        MapOf(_ACCURACY, key=_output),
        "Per written argument, and 'return' for the results, or 'return[0]' for one of several: "
        "the agreement with the reference",
        {},
    ),
    properties=optional(
        MapOf(_PROPERTIES, key=_output),
        "The same for what no reference computes, as random results: what holds of it",
        {},
    ),
)

_ROUTE: Final = table(
    op=required(_name, "The op of this pack that answers"),
    when=optional(ListOf(_expression), "Which calls, beyond those accepted", ()),
    eager=optional(
        ListOf(_expression),
        "Which of those where no CUDA graph is being captured; all unless given",
        (),
    ),
    capture_only=optional(Flag(), "Only while a CUDA graph is being captured", False),
)

PACK_MANIFEST: Final = table(
    edition=_edition,
    pack=required(
        table(
            name=required(_name, "The name of the pack, and its file's"),
            version=required(Text(), "The version of the pack"),
            namespace=required(_name, "The ops are torch.ops.<namespace>.<kernel>"),
            license=required(Text(), "The license, as an SPDX expression"),
            kernels=required(
                Either((Choice(("*",)), ListOf(_name)), "an array of names, or '*' for all"),
                "The kernels of the pack; '*' for every directory of kernels/",
            ),
        ),
        "What the pack is",
    ),
    platforms=optional(
        table(
            names=optional(
                MapOf(_name, key=_name),
                "Names of GPUs, in lower case with underscores, and their platforms",
                {},
            ),
            variants=optional(
                Choice(("together", "apart")),
                "Whether the variants of one GPU share configs",
                "together",
            ),
        ),
        "GPUs",
        {},
    ),
    models=optional(MapOf(_axis_values), "Sizes of real models, for coverage", {}),
    vllm=optional(
        table(
            requires=optional(
                Text(),
                "The releases of vLLM that the pack is for, as in '>=0.33,<0.34'; all unless given",
                "",
            ),
            axes=optional(
                MapOf(MapOf(_name, key=_name), key=_name),
                "Per kernel, what vLLM's config files call an axis, and its name here",
                {},
            ),
            routes=optional(
                MapOf(_ROUTE, key=Text("a native op, as in '_C::name'", f"{NAME}::{NAME}")),
                "Native ops that ops of the pack can answer",
                {},
            ),
        ),
        "For vLLM",
        {},
    ),
)


FILES: Final = {
    "kernel": ("kernels/kernel.schema.json", KERNEL_MANIFEST),
    "pack": ("manifests/pack.schema.json", PACK_MANIFEST),
}
"""Per kind of manifest: where its schema lies below a root, and its table of keys."""


DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
"""The JSON Schema that our schemas are in."""


def json_schema(kind: str) -> dict[str, Any]:
    """Return the schema of "kernel" or "pack" manifests, in JSON Schema draft 2020-12."""
    table: Table = FILES[kind][1]
    return {
        "$schema": DIALECT,
        "title": f"kernelpkg {kind} manifest, edition 1",
        **table.schema(),
    }


def schema_text(kind: str) -> str:
    """Return the schema as the bytes of its file."""
    return json.dumps(json_schema(kind), indent=2, ensure_ascii=False) + "\n"
