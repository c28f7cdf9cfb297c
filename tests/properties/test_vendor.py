"""Vendored pickers against the rules: the text that is written, run, picks what `Picker` picks."""

from __future__ import annotations

from itertools import combinations, product
from pathlib import Path
from types import ModuleType
from typing import Any

from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from kernelpkg.configs.picker import compile_picker
from kernelpkg.expr.language import parse_expr
from kernelpkg.manifest.opschema import parse_schema
from kernelpkg.manifest.spec import Axis, KernelSpec, Rule
from kernelpkg.packs.read import read_kernel
from kernelpkg.vllm.vendor.op_code import axis_codes
from kernelpkg.vllm.vendor.op_picker import SHARED, default_key, local_names, write_picker
from kernelpkg.vllm.vendor.op_sizes import shared_case

BASE = read_kernel(Path(__file__).parents[1] / "golden" / "good", "x")
WHOLE = st.one_of(st.integers(-3, 40), st.sampled_from([0, 1, 2, 4, 8, 16, 32, 2**40]))
KINDS = {  # what the axis is in the schema, and the values that calls and keys have of it
    "whole": ("int", WHOLE),
    "nullable": ("int?", st.one_of(WHOLE, st.none())),
    "flag": ("bool", st.booleans()),
    "number": ("float", st.sampled_from([0.0, 0.1, 0.3, 0.5, 1.0, 1, 2.5, 1e300, float("inf")])),
    "dtype": ("Tensor", st.sampled_from(["bfloat16", "float16", "int8"])),
}
ORDERED = ("nearest", "ceil", "floor", "pow2", "ranges")


def valid(rule: Rule) -> Rule:
    """Return a rule as a manifest may have it: what finds equal values alone has no `inexact`."""
    return evolve(rule, inexact=None) if rule.match in ("exact", "ignore") else rule


RULES = st.builds(
    Rule,
    axis=st.just("?"),
    match=st.sampled_from(["exact", "ignore", *ORDERED]),
    distance=st.sampled_from(["abs", "log"]),
    max=st.sampled_from([None, 0.0, 0.25, 0.3, 1.0]),
    over=st.sampled_from(["largest", "miss"]),
    under=st.sampled_from(["smallest", "miss"]),
    bounds=st.sets(st.integers(0, 30), max_size=3).map(lambda ends: tuple(sorted(ends))),
    inexact=st.sampled_from([None, "floor", "below"]),
).map(valid)
NAMES = ("a", "max", "args", "size_of", "n")  # some are names that the picker uses itself


class Typed:
    """Stands for a tensor of which only the dtype is looked at."""

    def __init__(self, dtype: str) -> None:
        self.dtype = f"torch.{dtype}"


@st.composite
def kernels(draw: st.DrawFn) -> tuple[KernelSpec, list[st.SearchStrategy[Any]]]:
    """Draw a kernel of up to four axes of any kind, each with a rule of any kind."""
    rules, axes, args, values = [], [], [], []
    for name in NAMES[: draw(st.integers(1, 4))]:
        kind = draw(st.sampled_from(sorted(KINDS)))
        rule = evolve(draw(RULES), axis=name)
        schema, strategy = KINDS[kind]
        rules.append(rule)
        args.append(f"{schema} {name}")
        expr = f"{name}.dtype" if kind == "dtype" else name
        axes.append(Axis(name=name, expr=parse_expr(expr)))
        values.append(strategy)
    schema = parse_schema(f"(Tensor(z!) out, {', '.join(args)}) -> ()")
    spec = evolve(BASE, schema=schema, axes=tuple(axes), rules=tuple(rules))
    return spec, values


def written(shared: ModuleType, spec: KernelSpec, ones: tuple[str, ...]) -> Any:
    """Return the picker of a kernel, run from its text and that of what all pickers share."""
    code = write_picker(spec, axis_codes(spec, local_names(spec)), ones)
    space = {"Any": Any, **{name: getattr(shared, name) for name in SHARED}}
    exec(compile("\n".join(code), "<picker>", "exec"), space)
    return space["pick_config"]


def call_of(spec: KernelSpec, values: tuple[Any, ...]) -> tuple[Any, ...]:
    tensors = [arg.is_tensor for arg in spec.schema.args[1:]]
    pairs = zip(tensors, values, strict=True)
    return (None, *(Typed(value) if tensor else value for tensor, value in pairs))


def mark(value: Any) -> tuple[bool, Any]:
    return isinstance(value, bool), value


@settings(max_examples=300)
@given(st.data())
def test_the_text_picks_what_the_rules_pick(shared_rules, data):
    """Over random kernels, keys and calls, default entries included, and where a call repeats.

    Of the keys, a call sees those with its own sizes of 1.
    """
    spec, strategies = data.draw(kernels())
    sized = [arg.name for arg in spec.schema.args if arg.type == "int" and not arg.optional]
    free = tuple(data.draw(st.sets(st.sampled_from(sized), max_size=2))) if sized else ()
    free = tuple(axis for axis in spec.key_axes if axis in free)
    rows = data.draw(
        st.lists(st.tuples(*strategies), max_size=8, unique_by=lambda row: tuple(map(mark, row)))
    )
    keys = [dict(zip(spec.key_axes, row, strict=True)) for row in rows]
    classes = [ones for n in range(len(free) + 1) for ones in combinations(free, n)]
    entries = [default_key(ones) for ones in classes] if data.draw(st.booleans()) else []
    listed = data.draw(st.permutations([*entries, *keys]))
    pools = [
        st.one_of(strategy, st.sampled_from([row[place] for row in rows])) if rows else strategy
        for place, strategy in enumerate(strategies)
    ]
    calls = data.draw(st.lists(st.tuples(*pools), min_size=1, max_size=6))
    pick = written(shared_rules, spec, free)
    for values in [*calls, *calls]:
        sized = {**dict(zip(spec.key_axes, values, strict=True))}
        sized |= {axis: 2 for axis in free if sized[axis] == 0}
        ones = [axis for axis in free if sized[axis] == 1]
        seen = [key for key in keys if ones == [axis for axis in free if key[axis] == 1]]
        index = compile_picker(spec.rules, seen, {}).pick(tuple(sized.values())).index
        if index is not None:
            want = seen[index]
        else:
            want = next((key for key in entries if ones and key == default_key(ones)), None)
        assert pick(call_of(spec, values), listed) is want, values


@settings(max_examples=150)
@given(st.data())
def test_a_shared_case_is_found_wherever_there_is_one(data):
    """Over random rules before and behind that of the size; calls are tried one by one.

    `inexact` is left out: where it alone takes both, they have a case each in the vendored picker.
    """
    others = data.draw(st.lists(st.sampled_from(["exact", "ceil", "ignore"]), max_size=2))
    rules = [Rule(axis=f"a{n}", match=match) for n, match in enumerate(others)]
    rules.insert(
        data.draw(st.integers(0, len(rules))), evolve(data.draw(RULES), axis="size", inexact=None)
    )
    axes = [rule.axis for rule in rules]
    values = {axis: st.integers(1, 3) for axis in axes} | {"size": st.integers(1, 70)}
    rows = data.draw(
        st.lists(
            st.fixed_dictionaries(values),
            min_size=1,
            max_size=8,
            unique_by=lambda row: tuple(sorted(row.items())),
        )
    )
    spec = evolve(BASE, rules=tuple(rules), guards=())
    pick = compile_picker(rules, rows, {}).pick

    def reached(size: int) -> set[int | None]:
        calls = product(*([size] if axis == "size" else [1, 2, 3] for axis in axes))
        return {pick(call).index for call in calls} - {None}

    of_one = reached(1)
    shared = [size for size in range(2, 160) if reached(size) & of_one]
    found = shared_case(spec, rows, "size")
    assert (found is None) == (not shared)
    if found is not None:
        assert found[1] == shared[0]
        ignored = rules[axes.index("size")].match == "ignore"
        assert ignored or found[0]["size"] in {rows[index]["size"] for index in of_one}
