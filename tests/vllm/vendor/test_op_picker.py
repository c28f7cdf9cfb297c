"""The picker of a vendored op, as text and as what it does beyond the rules."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from attrs import evolve

from kernelpkg.expr.language import parse_expr
from kernelpkg.manifest.opschema import parse_schema
from kernelpkg.manifest.spec import ArgSpec, ArgVariant, Axis, Dim, Reference, Rule
from kernelpkg.packs.read import read_kernel
from kernelpkg.vllm.vendor.exprcode import Unsayable, axis_codes
from kernelpkg.vllm.vendor.op_picker import default_key, local_names, write_picker
from kernelpkg.vllm.vendor.op_sizes import FreeSizes

ROOT = Path(__file__).parents[3]
BASE = read_kernel(ROOT / "tests" / "golden" / "good", "x")
NOTHING = FreeSizes(axes=(), spread=())

PICKER = '''\
# What pick_config has answered, by the facts of a call, with the list of keys.
_pick_cache: dict[tuple[Any, ...], tuple[list[CaseKey], CaseKey | None]] = {}


def pick_config(args: tuple[Any, ...], config_keys: list[CaseKey]) -> CaseKey | None:
    """Return the key of the config that a call runs with, or None for the default.

    Each rule narrows the tuned keys, by their values of an axis:

    1. in_dtype, has_scale_ub: the same.
    2. hidden_size: the nearest, of two equally near the smaller.
    3. num_tokens: the smallest not below the call's, else the largest.

    What Helion compiles where num_tokens is 1 is wrong for larger sizes, and vLLM tells
    compiled code apart by key alone. So no key serves both, and calls without a tuned
    key have a default of their own where num_tokens is 1. A size of 0 counts as 2: what
    is compiled for larger sizes launches nothing for it.
    """
    _, input, _, scale_ub = args
    in_dtype = str(input.dtype).removeprefix("torch.")
    has_scale_ub = scale_ub is not None
    hidden_size = input.shape[1]
    num_tokens = input.shape[0]
    if num_tokens == 0:
        num_tokens = 2
    facts = (in_dtype, has_scale_ub, hidden_size, num_tokens)
    cached = _pick_cache.get(facts)
    if cached is not None and cached[0] is config_keys:
        return cached[1]

    keys = [
        key
        for key in config_keys
        if key
        and "default" not in key
        and key["in_dtype"] == in_dtype
        and key["has_scale_ub"] == has_scale_ub
    ]
    # hidden_size: the nearest, of two equally near the smaller.
    values = {key["hidden_size"] for key in keys}
    best = min(values, key=lambda n: (abs(n - hidden_size), n), default=None)
    keys = [key for key in keys if key["hidden_size"] == best]
    # num_tokens: the smallest not below the call's, else the largest.
    values = {key["num_tokens"] for key in keys}
    best = min(
        values, key=lambda n: (n < num_tokens, abs(n - num_tokens)), default=None
    )
    keys = [key for key in keys if key["num_tokens"] == best]
    picked = keys[0] if keys else None
    if picked is None and num_tokens == 1:
        default = {"default": True, "num_tokens": 1}
        picked = next((key for key in config_keys if key == default), None)
    _pick_cache[facts] = config_keys, picked
    return picked
'''


def text_of(spec, sizes=NOTHING):
    return "\n".join(write_picker(spec, axis_codes(spec, local_names(spec)), sizes).lines) + "\n"


def run(spec, sizes=NOTHING, **around):
    """Return the picker of a kernel, run from its text."""
    code = write_picker(spec, axis_codes(spec, local_names(spec)), sizes)
    imports = [f"from {item.module} import {item.text()}" for item in code.imports]
    space = {"CaseKey": dict, **around}
    exec("\n".join(["from typing import Any", *imports, *code.lines]), space)
    return space["pick_config"]


def test_a_picker_of_the_first_pack():
    """The whole text, as a maintainer of vLLM would review it."""
    spec = read_kernel(ROOT, "dynamic_per_token_scaled_fp8_quant")
    assert text_of(spec, FreeSizes(axes=("num_tokens",), spread=())) == PICKER


def kernel(schema, axes, *rules, **more):
    """Return a kernel with such axes and rules."""
    return evolve(
        BASE,
        schema=parse_schema(schema),
        axes=tuple(Axis(name=name, expr=parse_expr(text)) for name, text in axes.items()),
        rules=rules,
        **more,
    )


SIZES = kernel(
    "(Tensor(a!) out, int a, int b) -> ()",
    {"a": "a", "b": "b"},
    Rule(axis="a", match="exact"),
    Rule(axis="b", match="ceil", over="miss"),
)


def test_a_miss_of_one_size_class_has_a_default_of_its_own():
    """An entry for each set of sizes that are 1, and None, which is {} to vLLM, for none."""
    pick = run(SIZES, FreeSizes(axes=("a", "b"), spread=()))
    classes = [default_key(ones) for ones in ((), ("a",), ("b",), ("a", "b"))]
    keys = [*classes, {"a": 4, "b": 1}, {"a": 4, "b": 8}]
    assert [pick((None, *call), keys) for call in [(4, 1), (4, 2), (4, 8)]] == [
        keys[4], keys[5], keys[5],
    ]  # fmt: skip
    assert [pick((None, *call), keys) for call in [(4, 9), (1, 2), (2, 1), (1, 1)]] == [
        None, classes[1], classes[2], classes[3],
    ]  # fmt: skip
    assert [pick((None, *call), keys[4:]) for call in [(4, 9), (1, 2), (2, 1), (1, 1)]] == [
        None
    ] * 4


def test_a_size_of_zero_never_runs_what_is_compiled_for_one():
    """That launches for one row, of which an empty tensor has none."""
    pick = run(SIZES, FreeSizes(axes=("b",), spread=()))
    keys = [default_key(()), default_key(("b",)), {"a": 4, "b": 1}, {"a": 4, "b": 8}]
    assert pick((None, 4, 0), keys) == pick((None, 4, 2), keys) == keys[3]
    assert pick((None, 5, 0), keys) is pick((None, 5, 2), keys) is None


def test_a_size_of_none_gets_what_larger_ones_get():
    """What is compiled for one would write one; an argument that is absent stays so."""
    pick = run(SIZES, FreeSizes(axes=("a", "b"), spread=()))
    keys = [{"a": a, "b": b} for a in (1, 2) for b in (1, 4)]
    assert [pick((None, *call), keys) for call in [(0, 0), (1, 0), (0, 1)]] == [
        keys[3], keys[1], keys[2],
    ]  # fmt: skip
    optional = kernel("(Tensor(a!) out, int? m) -> ()", {"m": "m"}, Rule(axis="m", match="exact"))
    pick = run(optional, FreeSizes(axes=("m",), spread=()))
    assert [pick((None, m), [{"m": None}, {"m": 2}]) for m in (None, 0)] == [{"m": None}, {"m": 2}]


def test_keys_of_default_entries():
    assert default_key(()) == {}
    assert default_key(("rows",)) == {"default": True, "rows": 1}


def test_answers_are_remembered_for_one_list_of_keys():
    """Also that there is none; another list of equal keys is asked anew."""
    pick = run(SIZES)
    first, second = [{"a": 1, "b": 4}], [{"a": 1, "b": 4}]
    assert pick((None, 1, 2), first) is first[0]
    assert pick((None, 1, 2), second) is second[0]
    assert pick((None, 1, 2), first) is first[0]
    assert pick((None, 2, 2), first) is None
    first.append({"a": 2, "b": 2})  # vLLM's list never changes, so nothing is looked up again
    assert pick((None, 2, 2), first) is None
    assert pick((None, 2, 2), [*first]) == {"a": 2, "b": 2}


def test_arguments_with_defaults_may_be_left_out():
    """PyTorch leaves them out of a call where they have their defaults."""
    spec = kernel(
        "(Tensor(a!) out, int a, Tensor? b=None, bool c=True) -> ()",
        {"has_b": "b is not None", "c": "c", "a": "a"},
        *(Rule(axis=axis, match="exact") for axis in ("has_b", "c", "a")),
    )
    assert "    b = args[2] if len(args) > 2 else None\n" in text_of(spec)
    pick = run(spec)
    keys = [{"has_b": b, "c": c, "a": 1} for b in (False, True) for c in (True, False)]
    assert pick((None, 1), keys) is keys[0]
    assert pick((None, 1, object()), keys) is keys[2]
    assert pick((None, 1, None, False), keys) is keys[1]


def test_ignored_axes_leave_the_smallest():
    """In their order, numbers before None; `keys` come in any order."""
    spec = kernel(
        "(Tensor(a!) out, int? a, bool b, int c) -> ()",
        {"a": "a", "b": "b", "c": "c"},
        Rule(axis="a", match="ignore"),
        Rule(axis="c", match="exact"),
        Rule(axis="b", match="ignore"),
    )
    pick = run(spec)
    keys = [{"a": a, "b": b, "c": 1} for a in (None, 7, 3) for b in (True, False)]
    assert pick((None, 0, True, 1), keys) == {"a": 3, "b": False, "c": 1}
    assert pick((None, 0, True, 1), keys[:2]) == {"a": None, "b": False, "c": 1}
    assert pick((None, 0, True, 2), keys) is None


def test_leading_sizes_that_no_key_tells_apart_are_refused():
    """A tensor of any rank shows its product alone; (1, 6) and (6, 1) have code of their own."""
    variant = ArgVariant(
        shape=(Dim(expr=parse_expr("n"), spread=True), Dim(expr=parse_expr("8"))),
        dtype=parse_expr("int8"),
    )
    spec = kernel(
        "(Tensor(a!) x) -> ()",
        {"n": "x.numel() // x.shape[-1]"},
        Rule(axis="n", match="ceil"),
        args=(ArgSpec(name="x", variants=(variant,)),),
    )
    pick = run(spec, FreeSizes(axes=("n",), spread=("x",)))

    class Size(tuple):
        def __getitem__(self, index):
            found = super().__getitem__(index)
            return Size(found) if isinstance(index, slice) else found

        def numel(self):
            product = 1
            for size in self:
                product *= size
            return product

    def call(*shape):
        size = Size(shape)
        return (SimpleNamespace(shape=size, numel=size.numel),)

    keys = [{"n": 1}, {"n": 6}]
    assert [pick(call(*s, 8), keys)["n"] for s in [(1,), (1, 1), (6,), (2, 3), (2, 2)]] == [
        1, 1, 6, 6, 6,
    ]  # fmt: skip
    for shape in [(1, 6), (6, 1), (1, 2, 3), (1, 0)]:
        with pytest.raises(ValueError, match=r"^x: flatten x; what is compiled where one of its"):
            pick(call(*shape, 8), keys)


def test_a_picker_of_the_kernels_own_is_asked_for_tuned_keys():
    """Its answer counts if it is one of them, and of the call's size class."""
    answers = []

    def choose(args, keys):
        assert all(key and "default" not in key for key in keys)
        return answers.pop()

    spec = evolve(SIZES, picker=Reference(file="host.py", name="choose"))
    pick = run(spec, FreeSizes(axes=("b",), spread=()), choose=choose)
    one, many, other = {"a": 1, "b": 1}, {"a": 1, "b": 8}, {"default": True, "b": 1}
    keys = [{}, other, one, many]
    for answer, b, want in [
        (many, 2, many), (one, 1, one), (dict(many), 2, many), (None, 2, None), ({}, 2, None),
        (many, 1, other), (one, 2, None), ({"a": 5, "b": 8}, 2, None),
    ]:  # fmt: skip
        answers.append(answer)
        assert pick((None, 1, b), keys) is want
    assert pick((None, 1, 2), [{}]) is None  # nothing is tuned, so that nobody is asked


def test_names_that_the_picker_uses_itself_are_left_to_it():
    spec = kernel(
        "(Tensor(a!) out, int keys, int n) -> ()",
        {"keys": "keys", "n": "n"},
        Rule(axis="keys", match="nearest"),
        Rule(axis="n", match="floor"),
    )
    assert "    _, keys_, n_ = args\n" in text_of(spec)
    found = run(spec)((None, 5, 3), [{"keys": 4, "n": 2}, {"keys": 9, "n": 2}])
    assert found == {"keys": 4, "n": 2}


REFUSED = {
    "fractions in order": (
        kernel("(Tensor(a!) out, float a) -> ()", {"a": "a"}, Rule(axis="a", match="nearest")),
        (
            "rule 'nearest' over axis 'a' puts fractional numbers in order, which plain Python "
            "would round; give the axis match 'exact'"
        ),
    ),
    "the mark of default entries": (
        kernel(
            "(Tensor(a!) out, int a) -> ()", {"default": "a"}, Rule(axis="default", match="exact")
        ),
        "axis 'default' has the name that marks default entries; rename it",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("spec", "want"), REFUSED.values(), ids=REFUSED)
def test_what_a_picker_cannot_say(spec, want):
    with pytest.raises(Unsayable) as caught:
        text_of(spec)
    assert str(caught.value) == want
