"""Manifests to specs: every key arrives where it belongs, with its default."""

from __future__ import annotations

import gc
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernelpkg.configs.picker import compile_picker
from kernelpkg.errors import PackError
from kernelpkg.manifest.opschema import parse_schema
from kernelpkg.manifest.spec import Accuracy, Grid, Reference, Rule
from kernelpkg.packs.read import (
    _finds_itself,
    collector_at_rest,
    kernel_names,
    read_kernel,
    read_pack,
)

ROOT = Path(__file__).parents[2]
GOOD = Path(__file__).parents[1] / "golden" / "good"
SEVEN = kernel_names(ROOT)


@pytest.fixture
def root(tmp_path):
    """A copy of the good pack."""
    shutil.copytree(GOOD, tmp_path / "good")
    return tmp_path / "good"


def edit(root, file, *pairs):
    path = root / file
    text = path.read_text()
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new, 1)
    path.write_text(text)


def test_every_key_of_a_kernel_arrives():
    """The spec says what the manifest says."""
    spec = read_kernel(GOOD, "x")
    assert (spec.name, spec.version, spec.path) == ("x", 1, "kernels/x/kernel.toml")
    assert spec.directory == str(GOOD / "kernels" / "x")
    assert spec.source == Reference(file="kernel.py", name="x")
    assert spec.reference == Reference(file="host.py", name="reference")
    assert spec.schema == parse_schema(spec.schema.text)
    assert (spec.fake_impl, spec.requires, spec.miss) == ("none", ">=1.4", "default")
    assert spec.settings == {"ignore_warnings": ["TensorOperationInWrapper"]}
    assert spec.default == {"block_sizes": (1, 16), "num_warps": 4}
    assert [(axis.name, axis.expr.text) for axis in spec.axes] == [
        ("num_tokens", "input.shape[0]"),
        ("hidden_size", "input.shape[1]"),
        ("group", "group"),
        ("dtype", "input.dtype"),
        ("has_residual", "residual is not None"),
    ]
    assert [guard.text for guard in spec.guards] == [
        "hidden_size % group == 0",
        "dtype in [bfloat16, float32]",
    ]
    assert spec.rules == (
        Rule(axis="has_residual", match="exact"),
        Rule(axis="dtype", match="exact"),
        Rule(axis="hidden_size", match="nearest", max=0.5),
        Rule(axis="num_tokens", match="ceil"),
    )
    assert spec.defaults == {"group": 4, "dtype": "bfloat16", "has_residual": False}
    assert spec.grids[1] == Grid(
        use=("test",), axes={"hidden_size": (8,), "num_tokens": (0, 3), "dtype": ("float32",)}
    )
    assert spec.accuracy == {"out": Accuracy(rtol=1e-2, atol=1e-3)}
    assert (spec.picker, spec.generator) == (None, None)


def test_arguments_arrive_as_variants():
    """Tables, numbers, axes and schema defaults are all variants of an argument."""
    out, tokens, residual, factor, group = read_kernel(GOOD, "x").args
    assert [dim.expr.text for dim in out.variants[0].shape] == ["num_tokens", "hidden_size"]
    assert tokens.variants[0].strides[0] is None
    assert tokens.variants[0].strides[1].text == "1"
    assert residual.variants[0].when.text == "has_residual"
    assert residual.variants[0].init == "randn"
    assert factor.variants[0].value.text == "2.0"
    assert group.variants[0].value.text == "group"


def test_what_is_not_given_has_its_default(root):
    """The shortest manifest of a kernel says the same."""
    edit(
        root,
        "kernels/x/kernel.toml",
        ('source = "kernel.py:x"\nreference = "host.py:reference"\n', ""),
        ('requires = ">=1.4"\nsettings = { ignore_warnings = ["TensorOperationInWrapper"] }\n', ""),
        ('[miss]\naction = "default"\n', ""),
        ("factor = 2.0\n", ""),
    )
    short, long = read_kernel(root, "x"), read_kernel(GOOD, "x")
    for name in ("source", "reference", "requires", "miss", "axes", "rules", "args", "accuracy"):
        assert getattr(short, name) == getattr(long, name)
    assert short.settings == {}


def test_an_optional_scalar_without_value_is_not_given(root):
    """A default of None is an argument that no call of ours gives."""
    edit(root, "kernels/x/kernel.toml", ("int group=4)", "int group=4, float? bound=None)"))
    edit(
        root,
        "kernels/x/kernel.py",
        ("group: int = 4,", "group: int = 4,\n    bound: float | None = None,"),
    )
    edit(root, "kernels/x/host.py", ("factor, group)", "factor, group, bound)"))
    assert read_kernel(root, "x").args[-1].variants == ()


def test_ways_out_arrive(root):
    """Functions may pick, fill and make all arguments; then axes need no other use."""
    edit(
        root,
        "kernels/x/kernel.toml",
        ('reference = "host', 'picker = "host.py:pick"\nreference = "host'),
        ("[inputs]\n", '[inputs]\ngenerator = "host.py:inputs"\n'),
        ('init = "randn"', 'init = "host.py:values"'),
        ("[axes]\n", '[axes]\nrank = "input.ndim"\n'),
    )
    spec = read_kernel(root, "x")
    assert spec.picker == Reference(file="host.py", name="pick")
    assert spec.generator == Reference(file="host.py", name="inputs")
    assert spec.args[2].variants[0].init == Reference(file="host.py", name="values")


def test_several_axes_share_one_table_of_rules(root):
    """Each gets the options of the table, in the order of the names."""
    edit(root, "kernels/x/kernel.toml", ('axis = "hidden_size"', 'axis = ["hidden_size", "group"]'))
    assert [(rule.axis, rule.match, rule.max) for rule in read_kernel(root, "x").rules[2:4]] == [
        ("hidden_size", "nearest", 0.5),
        ("group", "nearest", 0.5),
    ]


def test_every_key_of_a_pack_arrives():
    """The spec says what the manifest says."""
    pack = read_pack(GOOD, "good")
    assert (pack.name, pack.version, pack.namespace) == ("good", "0.1.0", "good")
    assert (pack.license, pack.root) == ("Apache-2.0", str(GOOD))
    assert pack.kernels == ("x",)
    assert pack.platforms == {"nvidia_h200_sxm": "nvidia_h200"}
    assert (pack.variants, pack.models) == ("together", {"llama_3_8b": {"hidden_size": 4096}})
    (route,) = pack.routes
    assert (route.target, route.op, route.capture_only) == ("_C::x", "x", True)
    assert [expr.text for expr in route.when] == ["num_tokens <= 512"]


def test_a_broken_kernel_does_not_hide_in_its_pack(root):
    """A pack is read without its kernels, so that one keeps no other from loading."""
    edit(root, "kernels/x/kernel.toml", ("edition = 1", "edition = 'one'"))
    assert read_pack(root, "good").kernels == ("x",)
    with pytest.raises(PackError):
        read_kernel(root, "x")


@pytest.mark.parametrize("name", SEVEN)
def test_a_manifest_of_ours_is_read_and_short(name):
    """Seventy-five lines at most, without blanks and comments."""
    spec = read_kernel(ROOT, name)
    text = (ROOT / spec.path).read_text()
    lines = [line for line in text.split("\n") if line.strip() and not line.startswith("#")]
    assert len(lines) <= 75
    assert spec.name == name


def test_a_kernel_that_is_not_there_keeps_the_pack(tmp_path):
    """A pack that names a missing kernel is read, and the kernel alone is refused."""
    root = tmp_path / "pack"
    shutil.copytree(GOOD, root)
    path = root / "manifests" / "good.toml"
    path.write_text(path.read_text().replace('kernels = "*"', 'kernels = ["x", "softmax"]'))
    assert read_pack(root, "good").kernels == ("x", "softmax")
    with pytest.raises(PackError) as caught:
        read_kernel(root, "softmax")
    assert str(caught.value) == (
        "kernels/softmax/kernel.toml: KP602 kernel 'softmax' is named by the pack, but does not "
        "exist; 'kernelpkg new softmax' writes one"
    )


RULES = st.builds(
    Rule,
    axis=st.just("?"),
    match=st.sampled_from(["exact", "nearest", "ceil", "floor", "pow2", "ranges", "ignore"]),
    distance=st.sampled_from(["abs", "log"]),
    max=st.sampled_from([None, 0.0, 0.5]),
    over=st.sampled_from(["largest", "miss"]),
    under=st.sampled_from(["smallest", "miss"]),
    bounds=st.sampled_from([(), (0,), (4, 9)]),
)
NUMBERS = st.one_of(st.integers(-2, 20), st.sampled_from([0.5, 2.5]))


@given(st.lists(RULES.filter(_finds_itself), min_size=1, max_size=3), st.data())
def test_rules_that_are_not_looked_at_lose_no_case(rules, data):
    """Where every rule finds its own tuned values, every case is reached by its own call."""
    rules = [Rule(axis=f"a{n}", match=r.match, max=r.max, over=r.over, under=r.under, bounds=r.bounds) for n, r in enumerate(rules)]  # fmt: skip  # noqa: E501
    rows = data.draw(st.sets(st.tuples(*(NUMBERS for _ in rules)), min_size=1, max_size=8))
    keys = [{rule.axis: value for rule, value in zip(rules, row, strict=True)} for row in rows]
    assert compile_picker(rules, keys, {}).unreachable() == ()


def read_edited(tmp_path, *edits):
    shutil.copytree(GOOD, tmp_path / "good")
    path = tmp_path / "good" / "kernels" / "x" / "kernel.toml"
    text = path.read_text()
    for old, new in edits:
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)
    return read_kernel(tmp_path / "good", "x")


def test_sizes_that_a_ratio_or_a_power_cannot_reach_are_told(tmp_path):
    """Zero has no ratio to anything, so a case with it would be tuned for nobody."""
    grid = "num_tokens = [1, 16]"
    log = 'axis = "num_tokens"\nmatch = "nearest"\ndistance = "log"'
    with pytest.raises(PackError) as caught:
        read_edited(
            tmp_path,
            (grid, "num_tokens = [0, 1, 16]"),
            ('axis = "num_tokens"\nmatch = "ceil"', log),
        )
    assert str(caught.value) == (
        "kernels/x/kernel.toml:46: KP143 case num_tokens=0, hidden_size=64, group=4, "
        "dtype=bfloat16, has_residual=true would be tuned, but no call could reach it "
        "(nor 3 others); change the case or the rules"
    )


def test_cases_for_tests_alone_need_not_be_reachable(tmp_path):
    """What is not tuned has no key."""
    log = 'axis = "num_tokens"\nmatch = "pow2"'
    spec = read_edited(tmp_path, ('axis = "num_tokens"\nmatch = "ceil"', log))
    assert spec.grids[1].axes["num_tokens"] == (0, 3)


def test_a_kernel_with_a_generator_makes_its_own_arguments(tmp_path):
    """[args] is for calls alone then, and its sizes are not computed for cases."""
    edits = [
        ("[inputs]\n", '[inputs]\ngenerator = "host.py:inputs"\n'),
        ('"hidden_size // group", "group"]', '"hidden_size // (num_tokens - 1)"]'),
    ]
    assert read_edited(tmp_path, *edits).generator is not None


@pytest.mark.parametrize("before", [True, False])
def test_the_collector_comes_back_as_it_was(before):
    """Whoever had switched it off keeps it off, and an error changes nothing about it."""
    was = gc.isenabled()
    try:
        (gc.enable if before else gc.disable)()
        with collector_at_rest():
            assert not gc.isenabled()
        assert gc.isenabled() is before
        with pytest.raises(ZeroDivisionError), collector_at_rest():
            raise ZeroDivisionError
        assert gc.isenabled() is before
    finally:
        (gc.enable if was else gc.disable)()
