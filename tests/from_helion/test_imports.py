"""What Helion's autotuner wrote, as config files of a pack: trees, caches, and what is refused."""

from __future__ import annotations

import json
import random

import pytest
from attrs import evolve

from kernelpkg.cli.new import new_kernel
from kernelpkg.configs import directories
from kernelpkg.configs.picker import compile_picker
from kernelpkg.errors import PackError, UsageError
from kernelpkg.expr.language import parse_expr
from kernelpkg.from_helion.caches import KeptConfig, key_of
from kernelpkg.from_helion.imports import plan_import
from kernelpkg.manifest.opschema import parse_schema
from kernelpkg.manifest.spec import Axis, Rule
from kernelpkg.packs.read import read_kernel, read_pack

TREE = '''\
"""Auto-generated heuristic for kernel: {name}"""

import torch


def key_{name}(*args) -> int:
    """Select config index for the given arguments (also serves as cache key)."""
{facts}
{tree}


def autotune_{name}(*args) -> dict:
    """Select the optimal config for the given arguments."""
    _C = [
        {{'block_sizes': [1, 64], 'num_warps': 4}},
        {{'block_sizes': [2, 64], 'num_warps': 4}},
        {{'block_sizes': [4, 64], 'num_warps': 8}},
    ]
    return _C[key_{name}(*args)]
'''
DIM = (
    "int(args[0].shape[{0}]) if len(args) > 0 and isinstance(args[0], torch.Tensor) "
    "and args[0].ndim > {0} else 0"
)
FACTS = [f"_arg0_dim{place} = {DIM.format(place)}" for place in (0, 1)]
NESTED = """\
if _arg0_dim1 <= 4096.0:
    if _arg0_dim0 <= 16.0:
        return 0
    else:
        if _arg0_dim1 <= 100.0:
            return 2
        else:
            return 1
else:
    return 2
"""
BOUNDED = 'match = "ranges"\nbounds = [{}]\n'
WIDTH = '[[key]]\naxis = "hidden_size"\nmatch = "nearest"\n'
TOKENS = '[[key]]\naxis = "num_tokens"\nmatch = "ceil"\n'
RULES = {
    "nearest-and-ceil": (WIDTH, TOKENS),
    "by-logarithm": (WIDTH + 'distance = "log"\n', TOKENS),
    "floor": (WIDTH, TOKENS.replace("ceil", "floor")),
    "inexact": (WIDTH, TOKENS + 'inexact = "floor"\n'),
    "ranges": (
        WIDTH.replace('match = "nearest"\n', BOUNDED.format("50, 100, 4096")),
        TOKENS.replace('match = "ceil"\n', BOUNDED.format("16")),
    ),
}


def indented(text):
    return "\n".join(f"    {line}" for line in text.rstrip().split("\n"))


def heuristic(path, tree=NESTED, facts=FACTS, name="scale"):
    text = TREE.format(name=name, facts=indented("\n".join(facts)), tree=indented(tree))
    path.write_text(text)
    return path


@pytest.fixture
def made(demo, tmp_path):
    """Import files into the pack, with other rules for its kernel if any are given."""
    new_kernel(demo.root, "scale", make_pack=False)
    manifest = demo.root / "kernels/scale/kernel.toml"

    def made(*paths, rules=None, platform="nvidia_h100", **options):
        if rules is not None:
            text = manifest.read_text()
            first, last = text.index("[[key]]"), text.index("[inputs]")
            manifest.write_text(f"{text[:first]}{rules}\n{text[last:]}")
        plan = plan_import(read_pack(demo.root, "demo"), paths, platform=platform, **options)
        plan.carry_out()
        return plan

    return made


def picked(demo, platform="nvidia_h100"):
    """Return a function from the axes of a call to the config that it gets."""
    spec = read_kernel(demo.root, "scale")
    file = directories.read_configs(read_pack(demo.root, "demo"), spec, platform).content()
    picker = compile_picker(spec.rules, [case.key for case in file.cases], spec.defaults)

    def config_for(call):
        pick = picker.pick(tuple(call[axis] for axis in spec.key_axes))
        return file.configs[file.cases[pick.index].config]

    return config_for


def said(caught, tmp_path):
    return [str(problem).replace(f"{tmp_path}/", "") for problem in caught.value.problems]


EXACT = '[[key]]\naxis = "dtype"\nmatch = "exact"\n'


@pytest.mark.parametrize("rules", RULES.values(), ids=RULES)
def test_every_call_gets_what_the_tree_says(demo, tmp_path, made, rules):
    """At each border of the tree and beside it, and for 120 calls at random."""
    path = heuristic(tmp_path / "_helion_aot_scale_cuda_sm90.py")
    made(path, rules=EXACT + "".join(rules))
    space = {"torch": FakeTorch}
    exec(path.read_text().replace("import torch\n", ""), space)
    generator = random.Random(0)
    edges = [1, 15, 16, 17, 99, 100, 101, 4095, 4096, 4097]
    calls = [(rows, width) for rows in edges for width in edges]
    calls += [(generator.randint(1, 9000), generator.randint(1, 9000)) for _ in range(120)]
    config_for = picked(demo)
    for rows, width in calls:
        call = {"num_tokens": rows, "hidden_size": width, "dtype": "bfloat16"}
        assert config_for(call) == space["autotune_scale"](FakeTensor((rows, width))), call


class FakeTensor:
    def __init__(self, shape):
        self.shape, self.ndim = shape, len(shape)


class FakeTorch:
    Tensor = FakeTensor


def test_what_the_tree_does_not_look_at_is_said(demo, tmp_path, made):
    plan = made(heuristic(tmp_path / "h.py"), rules=EXACT + WIDTH + TOKENS)
    assert [line.replace(f"{tmp_path}/", "") for line in plan.remarks[:2]] == [
        "h.py: the tree of 'scale' does not look at dtype=bfloat16, for which its configs are",
        (
            "kernels/scale/kernel.toml: these cases are of no grid; add [[inputs.grid]] with "
            'dtype = ["bfloat16"], hidden_size = [100, 101, 4096, 4097], num_tokens = [16, 17]'
        ),
    ]
    file = json.loads((demo.root / "configs/scale/nvidia_h100.json").read_text())
    assert file["tuned_with"] == {
        "filled": "dtype=bfloat16", "origin": "Helion's AOT heuristic h.py",
    }  # fmt: skip


LARGEST = "which match = 'ceil' with its misses cannot say"
OTHER = "only trees as Helion's autotuner writes them can be said by rules"
NEITHER = f"is neither a comparison with a number nor a config; {OTHER}"
UNSAYABLE = {
    "an-exact-size": (
        NESTED,
        EXACT + WIDTH.replace("nearest", "exact") + TOKENS,
        (
            "6: KP832 kernel 'scale': axis 'hidden_size' is compared with 100, 4096, which match = "
            "'exact' cannot say; write match = \"ranges\" with bounds = [100, 4096]"
        ),
    ),
    "powers-of-two": (
        NESTED,
        EXACT + WIDTH + TOKENS.replace("ceil", "pow2"),
        (
            "6: KP832 kernel 'scale': axis 'num_tokens' is compared with 16, which match = 'pow2' "
            'cannot say; write match = "ranges" with bounds = [16]'
        ),
    ),
    "a-miss": (
        NESTED,
        EXACT + WIDTH + TOKENS + 'over = "miss"\n',
        (
            f"6: KP832 kernel 'scale': axis 'num_tokens' is compared with 16, {LARGEST}; write "
            'match = "ranges" with bounds = [16]'
        ),
    ),
    "below": (
        NESTED,
        EXACT + WIDTH + TOKENS + 'inexact = "below"\n',
        (
            "6: KP832 kernel 'scale': axis 'num_tokens' is compared with 16, which match = 'ceil' "
            "with inexact = 'below' cannot say; write match = \"ranges\" with bounds = [16]"
        ),
    ),
    "other-bounds": (
        NESTED,
        EXACT + WIDTH + TOKENS.replace('match = "ceil"\n', BOUNDED.format(9)),
        "6: KP832 kernel 'scale': axis 'num_tokens' is compared with 16; write bounds = [9, 16]",
    ),
    "no-rule": (
        NESTED,
        EXACT + WIDTH,
        (
            "11: KP832 kernel 'scale': axis 'num_tokens' is compared and has no rule; give it one "
            "in [[key]]"
        ),
    ),
    "an-operator": (
        NESTED.replace("<= 16.0", "< 16.0"),
        EXACT + WIDTH + TOKENS,
        f"11: KP831 kernel 'scale': 'if _arg0_dim0 < 16.0:' {NEITHER}",
    ),
    "a-call": (
        "return pick(args)\n",
        EXACT + WIDTH + TOKENS,
        f"10: KP831 kernel 'scale': 'return pick(args)' {NEITHER}",
    ),
    "no-such-config": (
        "return 3\n",
        EXACT + WIDTH + TOKENS,
        f"10: KP831 kernel 'scale': 'return 3' {NEITHER}",
    ),
}


@pytest.mark.parametrize(("tree", "rules", "line"), UNSAYABLE.values(), ids=UNSAYABLE)
def test_what_rules_cannot_say_is_refused(demo, tmp_path, made, tree, rules, line):
    with pytest.raises(PackError) as caught:
        made(heuristic(tmp_path / "h.py", tree), rules=rules)
    assert said(caught, tmp_path) == [f"h.py:{line}"]
    assert not (demo.root / "configs/scale/nvidia_h100.json").exists()


@pytest.mark.parametrize(
    ("fact", "why"),
    [
        ("_key_0 = args[0]", ("'_key_0' comes from a key function of the kernel's own, which no "
         "file of Helion's has")),
        ("_arg0_dim0 = int(args[0].shape[0])", "'_arg0_dim0' is not read as Helion reads it"),
        ("rows = len(args)", "'rows' is not a fact of an argument"),
        ("print(args)", "'print(args)' is not the read of a fact"),
    ],
)  # fmt: skip
def test_facts_that_helion_does_not_write_are_refused(tmp_path, made, fact, why):
    with pytest.raises(PackError) as caught:
        made(heuristic(tmp_path / "h.py", "return 0\n", [fact]))
    assert said(caught, tmp_path) == [f"h.py:8: KP831 kernel 'scale': {why}; {OTHER}"]


OTHER_FACTS = {
    "another-op": (("_arg7_scalar = args[7] if len(args) > 7 and isinstance(args[7], (int, float)) "
        "else 0"), "argument 7 is read, and the op has 2"),
    "elements": (("_arg0_numel = int(args[0].numel()) if len(args) > 0 and isinstance(args[0], "
        "torch.Tensor) else 0"), ("how many elements 'input' has is compared, and is no axis; give "
        'it one that is "input.numel()", with a rule')),
}  # fmt: skip


@pytest.mark.parametrize(("fact", "why"), OTHER_FACTS.values(), ids=OTHER_FACTS)
def test_facts_that_are_no_axis_are_refused(tmp_path, made, fact, why):
    name = fact.partition(" ")[0]
    tree = f"if {name} <= 8.0:\n    return 0\nelse:\n    return 1\n"
    with pytest.raises(PackError) as caught:
        made(heuristic(tmp_path / "h.py", tree, [fact]), rules=EXACT + WIDTH + TOKENS)
    assert said(caught, tmp_path) == [f"h.py:9: KP832 kernel 'scale': {why}"]


def entry(shape="torch.Size([16, 4096])", hardware="NVIDIA H200", warps=8):
    fields = {
        "specialization_key": f"((torch.bfloat16, {shape}, (4096, 1), frozenset()), "
        "<class 'float'>, 'cuda', (9, 0), False)",
        "hardware": hardware,
    }
    config = {"block_sizes": [1, 64], "num_warps": warps}
    return json.dumps({"config": json.dumps(config), "key": {"fields": fields}})


def test_an_entry_of_the_cache_is_a_case(demo, tmp_path, made):
    path = tmp_path / "0a.best_config"
    path.write_text(entry())
    made(path, op="scale", platform=None, rules=EXACT + WIDTH + TOKENS)
    file = json.loads((demo.root / "configs/scale/nvidia_h200.json").read_text())
    assert file["tuned_with"] == {"origin": "Helion's autotune cache 0a.best_config"}
    assert file["cases"] == [
        {"key": {"dtype": "bfloat16", "hidden_size": 4096, "num_tokens": 16}, "config": 0}
    ]


def test_values_of_constants_are_kept_and_those_of_others_are_not(demo):
    """Helion's key has the value of a text and of `hl.constexpr`, and else the type."""
    spec = evolve(
        read_kernel(demo.root, "twice"),
        schema=parse_schema("(Tensor input, str mode, int taps, int eps) -> Tensor"),
        axes=tuple(Axis(name=name, expr=parse_expr(name)) for name in ("mode", "taps", "eps")),
        rules=tuple(Rule(axis=name, match="exact") for name in ("mode", "taps")),
    )
    arguments = (("torch.float32", (4,), (1,)), "str", 4, "int")
    kept = KeptConfig(path="x", kernel="", hardware="", arguments=arguments, config={}, ms=None)
    assert key_of(spec, kept) == {"mode": "str", "taps": 4}
    with pytest.raises(PackError) as caught:
        key_of(evolve(spec, rules=(Rule(axis="eps", match="exact"),)), kept)
    assert "keeps only the type of 'eps', and axis 'eps' is its value" in str(caught.value)


def test_of_the_configs_of_an_aot_run_the_fastest_is_taken(demo, tmp_path, made):
    tensor = {"__tuple__": [
        {"__dtype__": "torch.float16"}, {"__tuple__": [8, 64]}, {"__tuple__": [64, 1]},
        {"__frozenset__": []}]}  # fmt: skip
    key = {"specialization_key": [tensor, {"__type__": "builtins.float"}, "cuda"]}
    kept = [
        {"config": {"num_warps": warps}, "shape_key": key, "timing_ms": ms}
        for warps, ms in ((4, 0.5), (8, 0.25), (16, 0.75))
    ]
    path = tmp_path / "tuned_configs_x.json"
    path.write_text(json.dumps({"scale": kept, "other": kept}))
    plan = made(path, rules=EXACT + WIDTH + TOKENS)
    file = json.loads((demo.root / "configs/scale/nvidia_h100.json").read_text())
    assert (file["configs"], file["cases"][0]["ms"]) == ([{"num_warps": 8}], 0.25)
    assert {reason for _, reason in plan.skipped} == {
        "pack 'demo' has no kernel 'other'; op= says which it is"
    }


WRONG = {
    "classes-of-sizes": ([entry("(2, 2)").replace("(4096, 1)", "False")], {"op": "scale"}, [
        ("0.best_config: KP833 has only classes of the sizes of 'input', as tuned with "
        "static_shapes=False; leave it out, or tune 'scale' with 'kernelpkg autotune'")]),
    "of-which-kernel": ([entry()], {}, [
        "0.best_config: KP834 does not say of which kernel it is; give op="]),
    "two-configs": ([entry(), entry(warps=4)], {"op": "scale"}, [
        ("1.best_config: KP835 has another config for dtype=bfloat16, hidden_size=4096, "
        "num_tokens=16 than 0.best_config; leave one of them out")]),
    "no-entry": (["[]"], {"op": "scale"}, [
        ("0.best_config: KP830 is not an entry of Helion's autotune cache; give one, or leave it "
        "out")]),
    "no-json": (["{"], {"op": "scale"}, [
        ("0.best_config:1: KP830 the file ends in the middle of its JSON (Expecting "
        "property name enclosed in double quotes); restore it")]),
    "a-field": ([entry().replace("num_warps", "num_wraps")], {"op": "scale"}, [
        "0.best_config: KP502 field 'num_wraps' is not known; did you mean 'num_warps'?"]),
}  # fmt: skip


@pytest.mark.parametrize(("texts", "options", "lines"), WRONG.values(), ids=WRONG)
def test_what_a_cache_does_not_say_is_refused(tmp_path, made, texts, options, lines):
    paths = []
    for place, text in enumerate(texts):
        paths.append(tmp_path / f"{place}.best_config")
        paths[-1].write_text(text)
    with pytest.raises(PackError) as caught:
        made(*paths, rules=EXACT + WIDTH + TOKENS, platform=None, **options)
    assert said(caught, tmp_path) == lines


def test_a_file_that_differs_is_replaced_only_if_asked(demo, tmp_path, made):
    rules = EXACT + WIDTH + TOKENS
    made(heuristic(tmp_path / "h.py"), rules=rules)
    assert [step.action for step in made(heuristic(tmp_path / "h.py")).files] == ["unchanged"]
    other = heuristic(tmp_path / "h.py", "return 1\n", [])
    with pytest.raises(PackError, match="already exists and differs; replace=True overwrites it"):
        made(other)
    assert [step.action for step in made(other, replace=True).files] == ["replace"]


def test_where_nothing_is_tuned_no_case_can_be_made(demo, tmp_path, made):
    manifest = demo.root / "kernels/scale/kernel.toml"
    text = manifest.read_text()
    grid = text.index("[[inputs.grid]]")
    manifest.write_text(text[:grid] + text[text.index("[[inputs.grid]]", grid + 1) :])
    with pytest.raises(PackError) as caught:
        made(heuristic(tmp_path / "h.py"))
    assert said(caught, tmp_path) == [
        "h.py:6: KP832 kernel 'scale': nothing is tuned; add [[inputs.grid]] for 'tune'"
    ]


def test_which_gpu_and_which_op_is_meant(tmp_path, made):
    path = heuristic(tmp_path / "h.py", name="other")
    with pytest.raises(UsageError) as caught:
        made(path)
    assert str(caught.value) == (
        f"nothing of these files is for pack 'demo': {path}: pack 'demo' has no kernel 'other'; "
        "op= says which it is"
    )
    platform = "KP834 does not say of which GPU it is; give one, as in platform=nvidia_h100"
    with pytest.raises(PackError, match=platform):
        made(path, op="scale", platform=None)
    with pytest.raises(UsageError) as caught:
        made(path, op="scael")
    assert str(caught.value) == "pack 'demo' has no kernel 'scael'; did you mean 'scale'?"
