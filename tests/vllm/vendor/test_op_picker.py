"""The picker of a vendored op, run from its text: what it does beyond the rules, and its copies."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from attrs import evolve, fields

import kernelpkg
from kernelpkg.expr.language import parse_expr
from kernelpkg.manifest.opschema import parse_schema
from kernelpkg.manifest.spec import Axis, Reference, Rule
from kernelpkg.packs.read import read_kernel
from kernelpkg.vllm.vendor.op_code import axis_codes
from kernelpkg.vllm.vendor.op_picker import (
    SHARED,
    local_names,
    write_picker,
    write_shared,
)

ROOT = Path(__file__).parents[3]
BASE = read_kernel(ROOT / "tests" / "golden" / "good", "x")


@pytest.fixture
def run(shared_rules):
    """Runs the picker of a kernel from its text."""

    def picker(spec, *ones, theirs=MappingProxyType({}), **around):
        code = write_picker(spec, axis_codes(spec, local_names(spec)), ones, theirs)
        space = {"Any": Any, **{name: getattr(shared_rules, name) for name in SHARED}, **around}
        exec("\n".join(code), space)
        found.update(space)
        return space["pick_config"]

    found = picker.space = {}
    return picker


def test_what_ops_share_is_copied(shared_rules):
    """Each function and method stands in kernelpkg as it does there, and none is left unused."""
    text = write_shared("Copied.")
    package = Path(kernelpkg.__file__).parent
    sources = ["configs/match.py", "configs/picker.py", "vllm/vendor/op_shared.py"]
    ours = "\n".join((package / file).read_text() for file in sources)
    nodes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)]
    for node in nodes:
        assert ast.get_source_segment(text, node) in ours, node.name
    names = {n.name for n in nodes if not n.name.startswith("__")}
    assert names >= {"find", "pick", "rule_picker"}
    assert not names & {"explain", "relax", "turns", "phrase", "compile_picker"}
    for name in names - {*SHARED}:
        assert text.count(name) > 1, name
    assert [f.name for f in fields(Rule)] == [*shared_rules.Rule.__dataclass_fields__]
    defaults = Rule(axis="a", match="ceil"), shared_rules.Rule(axis="a", match="ceil")
    assert len({tuple(getattr(rule, f.name) for f in fields(Rule)) for rule in defaults}) == 1


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


def test_a_size_of_none_gets_what_larger_ones_get(run):
    """What is compiled for one would write one; an argument that is absent stays so."""
    optional = kernel("(Tensor(a!) out, int? m) -> ()", {"m": "m"}, Rule(axis="m", match="exact"))
    pick = run(optional, "m")
    assert [pick((None, m), [{"m": None}, {"m": 2}]) for m in (None, 0)] == [{"m": None}, {"m": 2}]


def test_answers_are_remembered_for_one_list_of_keys(run):
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


def test_arguments_with_defaults_may_be_left_out(run):
    """PyTorch leaves them out of a call where they have their defaults."""
    spec = kernel(
        "(Tensor(a!) out, int a, Tensor? b=None, bool c=True) -> ()",
        {"has_b": "b is not None", "c": "c", "a": "a"},
        *(Rule(axis=axis, match="exact") for axis in ("has_b", "c", "a")),
    )
    pick = run(spec)
    keys = [{"has_b": b, "c": c, "a": 1} for b in (False, True) for c in (True, False)]
    assert pick((None, 1), keys) is keys[0]
    assert pick((None, 1, object()), keys) is keys[2]
    assert pick((None, 1, None, False), keys) is keys[1]


def test_answers_are_forgotten_where_there_are_too_many(shared_rules, run, monkeypatch):
    """A server that sees ever new sizes does not grow."""
    monkeypatch.setattr(shared_rules, "MEMO_LIMIT", 3)
    pick, keys = run(SIZES), [{"a": 1, "b": 4}]
    assert [pick((None, 1, b), keys) for b in range(8)] == [keys[0]] * 5 + [None] * 3
    assert len(run.space["_pick_cache"]) <= 3


def test_keys_may_say_more_than_the_rules_ask_for(run):
    """As where a config file was edited by hand: the first of those that are equal counts."""
    keys = [{"a": 1, "b": 4, "c": 1}, {"a": 1, "b": 4, "c": 2}]
    assert run(SIZES)((None, 1, 2), keys) is keys[0]


def test_an_axis_that_a_key_does_not_name_matches_any_value(run):
    """As in files that were made by hand; of several keys, those that name more axes come first."""
    some, more = {"b": 4}, {"a": 1, "b": 8}
    pick = run(SIZES)
    for keys, call, want in [
        ([some], (1, 2), some), ([some], (7, 4), some), ([some], (7, 5), None),
        ([some, more], (1, 2), more), ([some, more], (7, 2), some), ([some, more], (7, 5), None),
        ([{"c": 1}], (7, 5), {"c": 1}),
    ]:  # fmt: skip
        assert pick((None, *call), keys) == want, (keys, call)


def test_axes_may_have_names_of_vllms(run):
    """In rules, in keys, and among sizes that may be 1; arguments keep theirs."""
    pick = run(SIZES, "b", theirs={"a": "heads", "b": "rows"})
    keys = [{"heads": 1, "rows": 1}, {"heads": 1, "rows": 4}, {"default": True, "rows": 1}]
    assert [pick((None, *call), keys) for call in [(1, 1), (1, 2), (2, 1), (2, 2)]] == [*keys, None]


def test_a_size_of_1_reaches_no_key_of_larger_ones(run):
    """Which a file made by hand would let it: code for 1 is wrong for more."""
    pick = run(SIZES, "b")
    four, one, default = {"a": 1, "b": 4}, {"a": 2, "b": 1}, {"default": True, "b": 1}
    assert pick((None, 1, 2), [four]) is four
    assert pick((None, 1, 1), [four]) is None
    assert pick((None, 1, 1), [four, {}, default]) is default
    assert pick((None, 2, 1), [four, {}, one]) is one
    assert pick((None, 1, 1), [{"b": 4}, {"b": 1}]) == {"b": 1}
    assert pick((None, 2, 2), [one, {}]) is None
    told = (
        "no config is for calls with b of 1, and code for larger sizes is not theirs; add one with "
        'the key {"default": true, "b": 1}'
    )
    with pytest.raises(ValueError, match=f"^{re.escape(told)}$"):
        pick((None, 1, 1), [four, {}])


def test_a_picker_of_the_kernels_own_is_asked_for_tuned_keys(run):
    """Its answer counts if it is one of them, and of the call's size class."""
    answers = []

    def choose(args, keys):
        assert all(key and "default" not in key for key in keys)
        return answers.pop()

    spec = evolve(SIZES, picker=Reference(file="host.py", name="choose"))
    pick = run(spec, "b", choose=choose)
    one, many, other = {"a": 1, "b": 1}, {"a": 1, "b": 8}, {"default": True, "b": 1}
    keys = [{}, other, one, many]
    for answer, b, want in [
        (many, 2, many), (one, 1, one), (dict(many), 2, many), (None, 2, None), ({}, 2, None),
        (many, 1, other), (one, 2, None), ({"a": 5, "b": 8}, 2, None),
    ]:  # fmt: skip
        answers.append(answer)
        assert pick((None, 1, b), keys) is want
    assert pick((None, 1, 2), [{}]) is None  # nothing is tuned, so that nobody is asked


def test_an_axis_may_hide_an_argument(run):
    """Each is read out of the arguments, whatever the axes before it are called."""
    spec = kernel(
        "(Tensor(a!) out, int a, int len) -> ()",
        {"len": "a * 2", "a": "len + 0"},
        *(Rule(axis=axis, match="exact") for axis in ("len", "a")),
    )
    keys = [{"len": 2, "a": 5}, {"len": 10, "a": 1}]
    assert run(spec)((None, 1, 5), keys) is keys[0]
