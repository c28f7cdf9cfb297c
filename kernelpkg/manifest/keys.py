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
    Key,
    ListOf,
    MapOf,
    Number,
    Table,
    Text,
)

EDITION: Final = 1
"""The edition of manifests that this version reads and writes."""

USES: Final = ("tune", "test", "bench")
INITS: Final = ("empty", "zeros", "ones", "randn", "uniform", "arange", "randint")
REFUSED_SETTINGS: Final = ("key", "autotuner_fn", "config", "configs", "static_shapes")
"""Helion settings that kernelpkg sets itself, from the picker."""

NAME: Final = r"[A-Za-z_][A-Za-z0-9_]*"
REFERENCE: Final = r"[A-Za-z0-9_./ -]+\.py:" + NAME

_name = Text("an identifier (letters, digits and underscores)", NAME)
_reference = Text("a reference of the form 'file.py:function'", REFERENCE)
_expression = Text("an expression")
_value = Either((Flag(), Number(), Text()), "a number, true, false or the name of a dtype")
_axis_values = MapOf(item=_value, key=_name)
_size = Either((Number(whole=True, least=0), _expression), "a whole number or an expression")
_positive = Number(whole=True, least=1)

_KERNEL: Final = Table(
    keys={
        "name": Key(kind=_name, required=True, doc="The name of the kernel, its directory, its op"),
        "version": Key(
            kind=_positive, required=True, doc="Raised when the schema or the results change"
        ),
        "summary": Key(kind=Text(), required=True, doc="One sentence on what the op computes"),
        "source": Key(kind=_reference, doc="The Helion function; 'kernel.py:<name>' unless given"),
        "reference": Key(
            kind=_reference,
            default="host.py:reference",
            doc="The same in eager PyTorch, computed in float32; 'host.py:reference' unless given",
        ),
        "picker": Key(
            kind=_reference,
            doc="Way out of [[key]]: `f(args, keys)` returns one of the tuned keys, or None",
        ),
    }
)

_OP: Final = Table(
    keys={
        "schema": Key(
            kind=Text(),
            required=True,
            doc="The schema of the op without its name; checked against the function",
        ),
        "fake_impl": Key(
            kind=Text(f"'none', 'infer' or {_reference.what}", rf"none|infer|{REFERENCE}"),
            required=True,
            doc="'none' for an op that returns nothing, 'infer' for the host part of the Helion "
            "function run on fake tensors, or a function of the same arguments",
        ),
    }
)

_HELION: Final = Table(
    keys={
        "requires": Key(
            kind=Text(), default=">=1.4", doc="The versions of Helion that the kernel works with"
        ),
        "settings": Key(
            kind=MapOf(item=Anything(), key=_name),
            default={},
            doc="Helion settings; " + ", ".join(REFUSED_SETTINGS) + " are kernelpkg's",
        ),
        "default": Key(
            kind=MapOf(
                item=Either(
                    (Flag(), Number(), Text(), ListOf(item=_positive)),
                    "a scalar, or block sizes",
                ),
                key=_name,
            ),
            doc="The config where none is tuned: scalars and block_sizes only; without it Helion's",
        ),
        "specialize": Key(
            kind=ListOf(item=_name),
            default=(),
            doc="The axes that the host part makes constants of the code with hl.specialize in "
            "every call; none unless given",
        ),
    }
)

_RULE: Final = Table(
    keys={
        "axis": Key(
            kind=Either((_name, ListOf(item=_name, least=1)), "the name of an axis, or several"),
            required=True,
            doc="The axis that this rule narrows by, or several, each in turn",
        ),
        "match": Key(
            kind=Choice(("exact", "nearest", "ceil", "floor", "pow2", "ranges", "ignore")),
            required=True,
            doc="How the call's value finds a tuned value",
        ),
        "distance": Key(
            kind=Choice(("abs", "log")), doc="For nearest: what is near; 'abs' unless given"
        ),
        "max": Key(
            kind=Number(least=0), doc="For nearest: the largest relative deviation; else a miss"
        ),
        "over": Key(
            kind=Choice(("largest", "miss")),
            doc="For ceil and pow2: what a call above all tuned values gets; else 'largest'",
        ),
        "under": Key(
            kind=Choice(("smallest", "miss")),
            doc="For floor: what a call below all tuned values gets; 'smallest' unless given",
        ),
        "bounds": Key(
            kind=ListOf(item=Number(whole=True), least=1),
            doc="For ranges: the last value of each range, rising; the one above is open",
        ),
    }
)

_GRID: Final = Table(
    keys={
        "use": Key(
            kind=ListOf(item=Choice(USES), least=1), default=USES, doc="What the cases are for"
        ),
        "rows": Key(
            kind=ListOf(item=_axis_values, least=1),
            default=({},),
            doc="Axes that go together: each row is one combination",
        ),
    },
    rest=MapOf(item=ListOf(item=_value, least=1), key=_name),
)

_VARIANT: Final = Table(
    keys={
        "when": Key(kind=_expression, doc="For which calls this is the argument"),
        "shape": Key(
            kind=ListOf(item=_size),
            doc="Sizes; one that begins with '*' is any number of sizes with that product",
        ),
        "dtype": Key(kind=_expression, doc="A dtype, or an axis that is one"),
        "strides": Key(
            kind=ListOf(item=_size),
            doc="Strides in elements, '*' for any; without it the tensor must be contiguous",
        ),
        "init": Key(
            kind=Either(
                (
                    Number(),
                    Text(
                        f"one of {', '.join(INITS)}, a number or {_reference.what}",
                        rf"{'|'.join(INITS)}|{REFERENCE}",
                    ),
                ),
                f"one of {', '.join(INITS)}, a number or {_reference.what}",
            ),
            doc="What a test tensor holds: 'empty' for a written argument, 'randn' for any other, "
            "unless given; a function gets (axes, args, generator)",
        ),
        "high": Key(kind=_size, doc="For randint: the values are below this"),
        "value": Key(kind=Either((Flag(), Number(), Text())), doc="The value of a scalar"),
    }
)

_ARG: Final = Either(
    (Flag(), Number(), _expression, _VARIANT, ListOf(item=_VARIANT, least=1)),
    "a table, an array of tables, a number, true, false or an expression",
)

_ACCURACY: Final = Table(
    keys={
        "steps": Key(kind=Number(whole=True, least=0), doc="Adjacent codes at most (FP8, INT8)"),
        "equal": Key(
            kind=Number(least=0, most=1), default=0.0, doc="The least share of equal elements"
        ),
        "rtol": Key(kind=Number(least=0), default=0.0, doc="Relative tolerance"),
        "rounding": Key(
            kind=_name,
            doc="A tensor argument to whose dtype values are rounded on the way; twice its machine "
            "epsilon is allowed",
        ),
        "atol": Key(kind=Number(least=0), default=0.0, doc="Absolute tolerance"),
    }
)

_edition = Key(
    kind=Number(whole=True, least=1, most=EDITION),
    required=True,
    doc="The edition of the manifest: 1",
)

KERNEL_MANIFEST: Final = Table(
    keys={
        "edition": _edition,
        "kernel": Key(kind=_KERNEL, required=True, doc="What the kernel is, and where its code is"),
        "op": Key(kind=_OP, required=True, doc="The identity of the op"),
        "helion": Key(kind=_HELION, default={}, doc="For Helion"),
        "axes": Key(
            kind=MapOf(item=_expression, key=_name),
            required=True,
            doc="Facts of a call, each an expression over the arguments",
        ),
        "guard": Key(
            kind=Table(
                keys={
                    "when": Key(
                        kind=ListOf(item=_expression, least=1),
                        required=True,
                        doc="Expressions over axes and arguments; all must be true",
                    )
                }
            ),
            doc="What the kernel takes, beyond what [args] says",
        ),
        "key": Key(kind=ListOf(item=_RULE), default=(), doc="Rules, in order of precedence"),
        "miss": Key(
            kind=Table(
                keys={
                    "action": Key(
                        kind=Choice(("default", "error")),
                        required=True,
                        doc="What a call gets that no tuned config is for",
                    )
                }
            ),
            doc="What happens where no config is tuned; without it the default config runs",
        ),
        "inputs": Key(
            kind=Table(
                keys={
                    "default": Key(
                        kind=_axis_values, default={}, doc="Values of axes that are not given"
                    ),
                    "grid": Key(
                        kind=ListOf(item=_GRID),
                        default=(),
                        doc="Each a product of axis values; their union is the grid",
                    ),
                    "generator": Key(
                        kind=_reference,
                        doc="Way out of [args]: `f(axes, generator, device)` returns the arguments",
                    ),
                }
            ),
            required=True,
            doc="The cases that inputs are made for",
        ),
        "args": Key(
            kind=MapOf(item=_ARG, key=_name),
            required=True,
            doc="What inputs are made from, and what calls are held against",
        ),
        "accuracy": Key(
            kind=MapOf(item=_ACCURACY, key=_name),
            required=True,
            doc="Per written argument, and 'return' for a result: the agreement with the reference",
        ),
    }
)

_ROUTE: Final = Table(
    keys={
        "op": Key(kind=_name, required=True, doc="The op of this pack that answers"),
        "when": Key(
            kind=ListOf(item=_expression), default=(), doc="Which calls, beyond those accepted"
        ),
        "eager": Key(
            kind=ListOf(item=_expression),
            default=(),
            doc="Which of those where no CUDA graph is being captured; all unless given",
        ),
        "capture_only": Key(
            kind=Flag(), default=False, doc="Only while a CUDA graph is being captured"
        ),
    }
)

PACK_MANIFEST: Final = Table(
    keys={
        "edition": _edition,
        "pack": Key(
            kind=Table(
                keys={
                    "name": Key(
                        kind=_name, required=True, doc="The name of the pack, and its file's"
                    ),
                    "version": Key(kind=Text(), required=True, doc="The version of the pack"),
                    "namespace": Key(
                        kind=_name, required=True, doc="The ops are torch.ops.<namespace>.<kernel>"
                    ),
                    "license": Key(
                        kind=Text(), required=True, doc="The license, as an SPDX expression"
                    ),
                    "kernels": Key(
                        kind=Either(
                            (Choice(("*",)), ListOf(item=_name)),
                            "an array of names, or '*' for all",
                        ),
                        required=True,
                        doc="The kernels of the pack; '*' for every directory of kernels/",
                    ),
                }
            ),
            required=True,
            doc="What the pack is",
        ),
        "platforms": Key(
            kind=Table(
                keys={
                    "names": Key(
                        kind=MapOf(item=_name, key=_name),
                        default={},
                        doc="Names of GPUs, in lower case with underscores, and their platforms",
                    ),
                    "variants": Key(
                        kind=Choice(("together", "apart")),
                        default="together",
                        doc="Whether the variants of one GPU share configs",
                    ),
                }
            ),
            default={},
            doc="GPUs",
        ),
        "models": Key(
            kind=MapOf(item=_axis_values), default={}, doc="Sizes of real models, for coverage"
        ),
        "vllm": Key(
            kind=Table(
                keys={
                    "requires": Key(
                        kind=Text(),
                        default="",
                        doc="The releases of vLLM that the pack is for, as in '>=0.33,<0.34'; "
                        "all unless given",
                    ),
                    "axes": Key(
                        kind=MapOf(item=MapOf(item=_name, key=_name), key=_name),
                        default={},
                        doc="Per kernel, what vLLM's config files call an axis, and its name here",
                    ),
                    "routes": Key(
                        kind=MapOf(
                            item=_ROUTE,
                            key=Text("a native op, as in '_C::name'", f"{NAME}::{NAME}"),
                        ),
                        default={},
                        doc="Native ops that ops of the pack can answer",
                    ),
                }
            ),
            default={},
            doc="For vLLM",
        ),
    }
)


FILES: Final = {
    "kernel": ("kernels/kernel.schema.json", KERNEL_MANIFEST),
    "pack": ("manifests/pack.schema.json", PACK_MANIFEST),
}
"""Per kind of manifest: where its schema lies below a root, and its table of keys."""


def json_schema(kind: str) -> dict[str, Any]:
    """Return the schema of "kernel" or "pack" manifests, in JSON Schema draft 2020-12."""
    table: Table = FILES[kind][1]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"kernelpkg {kind} manifest, edition 1",
        **table.schema(),
    }


def schema_text(kind: str) -> str:
    """Return the schema as the bytes of its file."""
    return json.dumps(json_schema(kind), indent=2, ensure_ascii=False) + "\n"
