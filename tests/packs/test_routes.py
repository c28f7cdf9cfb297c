"""What a pack says of vLLM, held against its kernels and the schemas of native ops."""

# ruff: noqa: E501  # tables of cases and messages have whole lines

from __future__ import annotations

from pathlib import Path

import pytest
from attrs import evolve

from kernelpkg.errors import PackError
from kernelpkg.manifest.opschema import OpArg, parse_schema
from kernelpkg.manifest.spec import Route, Rule
from kernelpkg.packs.read import read_kernel, read_pack
from kernelpkg.packs.routes import NativeSchema, Routing, axis_name_problems, schema_problem

ROOT = Path(__file__).parents[2]

SCHEMA = "(Tensor(a!) out, Tensor x, Tensor? bias, int group, float eps, bool flag=False) -> ()"


def problems_of(routed_pack, text: str) -> list[str]:
    with pytest.raises(PackError) as caught:
        routed_pack.routing(text)
    return str(caught.value).splitlines()


CONDITIONS = {
    "unknown name": ('when = [\n  "num_tokens <= 4",\n  "num_token <= 4",\n]',
        ["manifests/demo.toml:12: KP840 condition 'num_token <= 4': name 'num_token' is not known here; did you mean 'num_tokens'?"]),
    "tensor": ('when = ["x <= 4"]',
        ["manifests/demo.toml:10: KP840 condition 'x <= 4': tensor 'x' is not a value; read its shape[i], ndim, dtype, numel(), stride(i) and is_contiguous()"]),
    "number": ('when = ["num_tokens"]',
        ["manifests/demo.toml:10: KP841 condition 'num_tokens': it is a whole number, and must be true or false"]),
    "dtype": ('eager = ["dtype < 2", "dtype == 2"]',
        ["manifests/demo.toml:10: KP841 condition 'dtype < 2': 'dtype < 2' compares a dtype with a number, or by size",
        "manifests/demo.toml:10: KP841 condition 'dtype == 2': 'dtype == 2' compares a dtype with a number, or by size"]),
    "always given": ('when = ["eps is None"]',
        ["manifests/demo.toml:10: KP840 condition 'eps is None': argument 'eps' is always given; remove the test for None"]),
}  # fmt: skip


@pytest.mark.parametrize(("text", "lines"), CONDITIONS.values(), ids=CONDITIONS)
def test_conditions_that_are_wrong(routed_pack, text, lines):
    """Each has its file, its line, and what is wrong; all of a route are told."""
    assert problems_of(routed_pack, text) == lines


def test_a_kernel_that_is_broken(routed_pack):
    """A route to it has the problems of the kernel."""
    routed_pack.demo.edit("kernels/scale/kernel.toml", 'match = "ceil"', 'match = "ceiling"')
    assert problems_of(routed_pack, "") == [
        (
            "kernels/scale/kernel.toml:23: KP012 'match' must be one of 'exact', 'nearest', "
            "'ceil', 'floor', 'pow2', 'ranges', 'ignore', not 'ceiling'; did you mean 'ceil'?"
        )
    ]


OURS = parse_schema(SCHEMA)


def native(**changes: OpArg) -> NativeSchema:
    """The native schema that agrees, with other arguments in place of some."""
    args = tuple(changes.get(arg.name, arg) for arg in OURS.args)
    return NativeSchema(args=args)


SCHEMAS = {
    "the same": (native(), None),
    "defaults": (native(flag=OpArg(name="flag", type="bool"), eps=evolve(OURS.arg("eps"), default=1.0)), None),
    "the name of an alias": (native(out=evolve(OURS.arg("out"), alias="z")), None),
    "too few": (NativeSchema(args=OURS.args[:-1]),
        "its arguments are (out, x, bias, group, eps), and of the op (out, x, bias, group, eps, flag)"),
    "order": (NativeSchema(args=(OURS.args[1], OURS.args[0], *OURS.args[2:])),
        "its arguments are (x, out, bias, group, eps, flag), and of the op (out, x, bias, group, eps, flag)"),
    "types": (native(group=OpArg(name="group", type="float"), bias=OpArg(name="bias", type="Tensor")),
        "its 'bias' is Tensor, and of the op Tensor?; its 'group' is float, and of the op int"),
    "mutation": (native(x=evolve(OURS.arg("x"), alias="a"), out=OpArg(name="out", type="Tensor")),
        "its 'out' is Tensor, and of the op Tensor, which it writes; its 'x' is Tensor, which it writes, and of the op Tensor"),
    "returns": (NativeSchema(args=OURS.args, returns=("Tensor",)), "it returns (Tensor), and the op nothing"),
    "keyword only": (NativeSchema(args=OURS.args, keyword_only=("eps", "flag")),
        "it takes eps, flag by keyword only, as no op of a pack can"),
}  # fmt: skip


@pytest.mark.parametrize(("schema", "said"), SCHEMAS.values(), ids=SCHEMAS)
def test_schemas(schema, said):
    """Names, order, types, mutation and returns count; defaults and names of aliases do not."""
    assert schema_problem(schema, OURS) == said


def test_what_the_ops_of_the_first_pack_read_and_write():
    """Only a residual, and queries and keys in place, are lost when a call fails half way."""
    kept = {}
    for name in ("rms_norm_per_block_quant", "fused_qk_norm_rope", "silu_and_mul_per_block_quant"):
        spec = read_kernel(ROOT, name)
        pack = read_pack(ROOT, "kernelpkg")
        routing = Routing(pack=pack, route=Route(target=f"_C::{name}", op=name), spec=spec)
        kept[name] = [spec.schema.arg_names[place] for place in routing.kept]
    assert kept == {
        "rms_norm_per_block_quant": ["residual"],
        "fused_qk_norm_rope": ["qkv"],
        "silu_and_mul_per_block_quant": [],
    }


KEY_AXES = ("dtype", "has_bias", "hidden", "hidden_size", "ratio", "num_tokens")

NAMES = {
    "none": ({}, []),
    "new-names": ({"a": "hidden", "b": "num_tokens"}, []),
    "own-name": ({"hidden": "hidden"}, []),
    "swapped": ({"hidden": "hidden_size", "hidden_size": "hidden"}, []),
    "no-such-axis": ({"tokens": "num_token"},
        ["kernel 'x' has no rule for axis 'num_token'; did you mean 'num_tokens'?"]),
    "far-from-any-axis": ({"tokens": "zzz"},
        ["kernel 'x' has no rule for axis 'zzz'; it has dtype, has_bias, hidden, hidden_size, ratio, num_tokens"]),
    "name-of-another-axis": ({"hidden": "hidden_size"},
        ["'hidden' stands for axis 'hidden_size', and axis 'hidden' has no other name; give that one a name too"]),
}  # fmt: skip


@pytest.mark.parametrize(("names", "problems"), NAMES.values(), ids=NAMES)
def test_names_stand_for_axes_with_rules_and_for_one_each(names, problems):
    rules = tuple(Rule(axis=axis, match="exact") for axis in KEY_AXES)
    spec = evolve(read_kernel(ROOT, "silu_mul_fp8"), name="x", rules=rules)
    pack = evolve(read_pack(ROOT, "kernelpkg"), vllm_axes={"x": names})
    found = axis_name_problems(pack, spec)
    assert [problem.message for problem in found] == problems
    assert {problem.code for problem in found} <= {"KP828"}


def test_the_first_pack_has_names_that_are_right():
    """Every name of [vllm.axes] of the first pack is one that its kernel can have."""
    pack = read_pack(ROOT, "kernelpkg")
    assert "silu_mul_fp8" in pack.vllm_axes
    for kernel in pack.vllm_axes:
        assert axis_name_problems(pack, read_kernel(ROOT, kernel)) == ()
