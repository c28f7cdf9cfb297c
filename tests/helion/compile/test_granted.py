"""What code takes for granted of its calls, beside sizes of 0, 1 and more."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import helion.language as hl
import pytest
import sympy
import torch
from torch._dynamo.source import ConstantSource
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv

from kernelpkg.compile.bind import Target
from kernelpkg.compile.code import CompiledCode
from kernelpkg.compile.granted import facts_of
from kernelpkg.compile.helion import ConfiguredHelionKernel, Selection
from kernelpkg.compile.units import KernelBuilder, Unit
from kernelpkg.configs.platforms import resolve
from kernelpkg.launch.classes import ClassRule
from kernelpkg.manifest.cases import Case
from kernelpkg.packs.read import read_kernel, read_pack

KINDS = Path(__file__).parents[2] / "packs" / "kinds"
H100 = resolve("nvidia_h100")


def builder_of(name: str) -> KernelBuilder:
    """The builder of a kernel of the pack of kinds."""
    return KernelBuilder(read_pack(KINDS, "kinds"), read_kernel(KINDS, name), H100)


def test_a_view_of_one_column_has_code_of_its_own():
    """What Helion 1.5.1 binds to a width of 1 computes one column only, and the argument, of two
    columns, is of the class of all others: wrong columns on an H200 (2026-11-30)."""
    units = [*builder_of("silu_mul").units()]
    narrow, wide = (
        [unit for unit in units if (unit.case.values["width"] == 1) == one] for one in (True, False)
    )
    assert not any("tl.arange" in unit.payload["text"] for unit in narrow)
    assert all("tl.arange" in unit.payload["text"] for unit in wide)
    classes = [{unit.call_class for unit in some} for some in (narrow, wide)]
    assert [len(some) for some in classes] == [2, 2]  # of one token, and of more
    assert classes[0].isdisjoint(classes[1])


def bound(case: dict[str, object]) -> tuple[ClassRule, tuple[torch.Tensor, ...]]:
    """What is learned of one call of silu_mul."""
    builder = builder_of("silu_mul")
    binding = builder.bind(Case(values={"dtype": "bfloat16", **case}, use=(), grid=0))
    args = (torch.empty(case["num_tokens"], 2 * case["width"], dtype=torch.bfloat16),)
    return ClassRule().learned(args, binding.exact, binding.facts), args


@pytest.mark.parametrize(("first", "others"), [(1, (2, 24, 2048)), (24, (1,)), (2, (1,))])
def test_one_call_is_enough_to_tell_others_apart(first, others):
    """Whichever comes first; and all that are wider share their code."""
    rule, args = bound({"num_tokens": 4, "width": first})
    own = rule.class_of(args)
    for width in others:
        assert rule.class_of([torch.empty(4, 2 * width, dtype=torch.bfloat16)]) != own
    assert rule.class_of([torch.empty(9, 2 * first, dtype=torch.bfloat16)]) == own
    if first > 1:
        assert rule.class_of([torch.empty(9, 4096, dtype=torch.bfloat16)]) == own


def test_sizes_that_classes_tell_are_no_facts():
    """Of kernels whose sizes are those of their arguments nothing is left."""
    for name in ("gelu", "matmul", "softmax_lse"):
        builder = builder_of(name)
        assert len([*builder.units()]) > 1
        assert builder.rule.facts == {}


def stand_in(guards: list[object], shape: tuple[object, ...]) -> SimpleNamespace:
    """Stands for a bound kernel with one argument, of symbols, and what Helion looked at."""
    node = SimpleNamespace
    env = node(
        specialized_vars=set(),
        specialized_strides=(),
        shape_env=node(guards=[node(expr=guard) for guard in guards]),
    )
    kernel = node(signature=node(parameters={"n": None, "m": None}))
    return node(env=env, kernel=kernel, fake_args=shape)


def symint(name: str, hint: int) -> tuple[sympy.Symbol, torch.SymInt]:
    """A symbol, and a whole number that is one."""
    env = ShapeEnv(specialize_zero_one=False, duck_shape=False)
    size = env.create_unspecified_symint_and_symbol(hint, ConstantSource(name), DimDynamic.DYNAMIC)
    return size.node._expr, size


def test_which_guards_are_facts():
    """Comparisons that no class decides, either way; and of what cannot be written, the value."""
    (n, first), (m, second) = symint("n", 24), symint("m", 6)
    rows = sympy.Symbol("u0", integer=True)
    guards = [
        sympy.Ne(n, 1),
        sympy.Ge(n * m, 2),
        sympy.Eq(n, 4 * m),
        sympy.Ne(m, 7),
        sympy.Gt(n, m),
        sympy.Eq(sympy.Max(3, m), m),
        sympy.Eq(rows, n),
    ]
    assert facts_of(stand_in(guards, (first, second))) == {
        "a0 == (4*a1)": True,
        "a1 == 7": False,
        "a0 <= a1": False,
        "a1 == 6": True,
    }


def test_the_hooks_of_helion_tell_such_calls_apart_too(monkeypatch):
    """Whose host part cannot be recorded is launched by Helion, by the key of these hooks."""

    def double(x: torch.Tensor) -> torch.Tensor:
        return x

    kernel = ConfiguredHelionKernel(
        op_name="double",
        raw_kernel_func=double,
        select=lambda _: Selection(config_id="one", config=None),
    )
    made = []

    def bind(args):
        key = kernel.key(*args)
        found = next((old for old, of in made if of == key), None)
        if found is None:
            found = SimpleNamespace(narrow=args[0].size(1) == 2)
            made.append((found, key))
        return found

    facts = "kernelpkg.compile.helion.facts_of"
    monkeypatch.setattr(facts, lambda bound: {"a0.shape[1] == 2": bound.narrow})
    calls = [torch.empty(3, columns) for columns in (8, 2, 6, 2, 8)]
    stub = SimpleNamespace(bind=bind)
    found = [kernel._bound_for(stub, (call,)).narrow for call in calls]
    assert found == [False, True, False, True, False]
    assert len(made) == 3  # one more than there are: the first was bound before it was known


VIEWS = Path(__file__).parents[2] / "fixtures" / "views"


def units_of(name: str) -> list[Unit]:
    """What is compiled of a kernel of the pack of views, all of it."""
    builder = KernelBuilder(read_pack(VIEWS, "views"), read_kernel(VIEWS, name), H100)
    found = [*builder.units()]
    assert builder.absent == ()
    return found


def test_what_only_making_code_shows_is_part_of_the_class_for_every_config():
    """A view that is read beside another tensor is looked at once a config makes code of it."""
    units = units_of("every_second")
    configs = {unit.chosen.config_id for unit in units}
    narrow = {u.call_class for u in units if u.case.values["half"] == 1}
    wide = {u.call_class for u in units if u.case.values["half"] > 1}
    assert len(configs) == 2
    assert narrow and wide and narrow.isdisjoint(wide)


def test_each_layout_is_bound_as_it_is():
    """The distance of rows is a number in the code: 24 where rows are padded, else 21."""
    found = {unit.call_class: unit.payload["text"] for unit in units_of("times_stride")}
    for rows in (21, 24):
        (text,) = (text for place, text in found.items() if f"[2, 21, {rows}, 1]" in place or
                   f"[2, 2, {rows}, 1]" in place)  # fmt: skip
        assert f"{rows}.0" in text


def test_what_is_contiguous_is_looked_at_without_a_guard():
    units = units_of("by_layout")
    texts = {
        unit.call_class: unit.payload["text"]
        for unit in units
        if unit.case.values["num_tokens"] > 1
    }
    assert sorted("3.0" in text for text in texts.values()) == [False, True]


# Functions of Helion, two calls of each, and which of them may not share code.


def longest(x: torch.Tensor, n: int) -> torch.Tensor:
    """Return as many ones as x has elements, or n."""
    count = max(x.size(0), n)
    out = torch.empty([count], dtype=x.dtype, device=x.device)
    for tile in hl.tile(count):
        out[tile] = 1.0
    return out


def times_stride(x: torch.Tensor) -> torch.Tensor:
    """Return x times its first stride."""
    step = hl.specialize(x.stride(0))
    out = torch.empty([x.size(0), x.size(1)], dtype=x.dtype, device=x.device)
    for tile_t, tile_w in hl.tile([x.size(0), x.size(1)]):
        out[tile_t, tile_w] = x[tile_t, tile_w] * step
    return out


def by_layout(x: torch.Tensor) -> torch.Tensor:
    """Return x times two, or three where rows lie apart."""
    factor = 2 if x.is_contiguous() else 3
    out = torch.empty([x.size(0), x.size(1)], dtype=x.dtype, device=x.device)
    for tile_t, tile_w in hl.tile([x.size(0), x.size(1)]):
        out[tile_t, tile_w] = x[tile_t, tile_w] * factor
    return out


def of_stride(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Return as many ones as the first stride of x says, or as y has elements."""
    count = max(x.stride(0), y.size(0))
    out = torch.empty([count], dtype=x.dtype, device=x.device)
    for tile in hl.tile(count):
        out[tile] = 1.0
    return out


def tensor(*shape: int, apart: int = 0) -> torch.Tensor:
    """A tensor whose rows lie apart."""
    return torch.empty(*shape[:-1], shape[-1] + apart)[..., : shape[-1]]


CALLS = {
    "a number": (longest, {"block_sizes": [16]}, (tensor(4), 2), (tensor(4), 8)),
    "a stride along one row": (times_stride, {"block_sizes": [16, 16]}, (tensor(1, 4, apart=4),),
        (tensor(1, 4, apart=12),)),
    "a layout": (by_layout, {"block_sizes": [16, 16]}, (tensor(8, 4),), (tensor(8, 4, apart=5),)),
    "a stride": (of_stride, {"block_sizes": [16]}, (tensor(3, 4), tensor(2)),
        (tensor(3, 4), tensor(9))),
}  # fmt: skip


@pytest.mark.parametrize("backwards", [False, True], ids=["forwards", "backwards"])
@pytest.mark.parametrize(("function", "config", "one", "other"), CALLS.values(), ids=CALLS)
def test_calls_that_may_not_share_code(function, config, one, other, backwards):
    """Whichever of two comes first; and each has what it had, when it comes again."""
    calls = [other, one] if backwards else [one, other]
    selection = Selection(config_id="c", config=config)
    with Target.of(H100).standing_in():
        kernel = ConfiguredHelionKernel(
            op_name="f", raw_kernel_func=function, select=lambda _: selection
        )
        code = CompiledCode(kernel)
        found = [code._find(args, selection, torch.device("cpu")) for args in [*calls, *calls]]
    assert found[0] is not found[1]
    assert found[2:] == found[:2]
