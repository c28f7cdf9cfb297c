"""Vendored pickers, as the text that stands in vLLM's tree, with vLLM's own case keys.

They are held against the rules over dense grids of calls: with our configs as they were vendored,
and with the configs that vLLM 0.33.0 ships for its ops of the same names.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise, product
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from attrs import field, frozen

from kernelpkg.configs.picker import compile_picker
from kernelpkg.manifest.cases import Case, Evaluator
from kernelpkg.manifest.spec import KernelSpec
from kernelpkg.packs.read import read_kernel, read_pack

pytestmark = pytest.mark.vllm

ROOT = Path(__file__).parents[3]
FOLDER = Path("vllm", "kernels", "helion")
PACK = read_pack(ROOT, "kernelpkg")

Pick = Callable[[tuple[Any, ...], Sequence[Mapping[str, Any]]], Mapping[str, Any] | None]


class Shape(tuple):
    """A shape, as far as pickers look at one."""

    def __getitem__(self, index: Any) -> Any:
        found = super().__getitem__(index)
        return Shape(found) if isinstance(index, slice) else found

    def numel(self) -> int:
        product = 1
        for size in self:
            product *= size
        return product


@frozen
class Tensor:
    """Stands in for a tensor, as far as pickers look at one."""

    sizes: tuple[int, ...]
    dtype: str
    shape: Shape = field(init=False)

    @shape.default
    def _shape(self) -> Shape:
        return Shape(self.sizes)

    def numel(self) -> int:
        return self.shape.numel()


def arguments(spec: KernelSpec, values: Mapping[str, Any], evaluate: Evaluator) -> tuple[Any, ...]:
    """Return the arguments of a call with given axis values, made as [args] says."""
    case = Case(values=values, use=(), grid=0)
    found: list[Any] = []
    for arg in spec.args:
        variant = evaluate.variant(arg, case)
        if variant is None:
            found.append(None)
        elif variant.value is not None:
            found.append(evaluate(variant.value, values))
        else:
            sizes = tuple(evaluate(dim.expr, values) for dim in variant.shape or ())
            found.append(Tensor(sizes, f"torch.{evaluate(variant.dtype, values)}"))
    return tuple(found)


def case_key(wheel: Path) -> Any:
    """Return vLLM's class of case keys; its file imports nothing of vLLM's."""
    path = wheel / FOLDER / "case_key.py"
    spec = importlib.util.spec_from_file_location("vllms_case_key", path)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)  # type: ignore[union-attr]
    return module.CaseKey


@pytest.fixture(scope="module")
def shared(vendored: tuple[Path, list[str]]) -> Iterator[ModuleType]:
    """What the ops of the tree share; its file imports nothing of vLLM's."""
    spec = importlib.util.spec_from_file_location(
        "vllms_rules", vendored[0] / FOLDER / "kernelpkg_rules.py"
    )
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module
    spec.loader.exec_module(module)  # type: ignore[union-attr]
    yield module
    del sys.modules[module.__name__]


def vendored_picker(tree: Path, shared: ModuleType, kernel: str) -> Pick:
    """Run what a vendored file says of its picker, and nothing else of the file."""
    module = ast.parse((tree / FOLDER / "ops" / f"{kernel}.py").read_text())
    wanted = {"RULES", "axes", "_pick_cache", "pick_config"}
    kept = []
    for node in module.body:
        targets = getattr(node, "targets", [getattr(node, "target", node)])
        if {getattr(part, "id", getattr(part, "name", "")) for part in targets} & wanted:
            kept.append(node)
    space: dict[str, Any] = {"Any": Any, **vars(shared)}
    exec(compile(ast.Module(body=kept, type_ignores=[]), f"{kernel}.py", "exec"), space)
    pick: Pick = space["pick_config"]
    return pick


def sizes(tuned: set[int], reach: int) -> list[int]:
    """Return values at, around and between the tuned ones, and beyond."""
    values = sorted(tuned)
    near = [value + shift for value in values for shift in range(-reach, reach + 1)]
    middle = [(low + high) // 2 for low, high in pairwise(values)]
    between = [centre + shift for centre in middle for shift in (-1, 0, 1)]
    return sorted({1, *near, *between, 2 * values[-1]} - {*range(-reach, 1)})


OTHERS: dict[type, Callable[[Any], Any]] = {
    bool: lambda value: not value,
    str: lambda value: "float32" if value == "bfloat16" else "int8",
}
"""Another value of an axis that is not a number."""


def calls(spec: KernelSpec, keys: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield calls around the tuned values; flags and dtypes that differ come one at a time."""
    grid: dict[str, list[Any]] = {}
    for axis in spec.key_axes:
        tuned = {key.get(axis, spec.defaults.get(axis)) for key in keys}
        if all(type(value) is int for value in tuned):
            near = sizes(tuned, 1)
            grid[axis] = near if axis == "num_tokens" else near[:: max(1, len(near) // 14)]
        else:
            grid[axis] = [*sorted(tuned)]
    numbers = [axis for axis in grid if type(grid[axis][0]) is int]
    base = {axis: values[0] for axis, values in grid.items()}
    variants = [
        dict(zip(base, values, strict=True))
        for values in product(*([base[a]] if a in numbers else grid[a] for a in base))
    ]
    variants += [
        {**base, axis: OTHERS[type(base[axis])](base[axis])} for axis in base if axis not in numbers
    ]
    for variant in variants:
        for values in product(*(grid[axis] for axis in numbers)):
            found = {**variant, **dict(zip(numbers, values, strict=True))}
            group = found.get("group_size")
            if group is not None:  # sizes are made of whole groups
                width = "hidden_size" if "hidden_size" in found else "intermediate_size"
                found[width] = max(1, found[width] // group) * group
            yield found


def check(spec: KernelSpec, pick: Pick, keys: list[Any]) -> set[bool]:
    """Hold a picker against the rules over many calls; returns which of hit and miss there were.

    Rules of axes that the keys do not name go unasked; one token reaches keys of one token alone.
    """
    names = PACK.vllm_axes.get(spec.name, {})
    ours = [{names.get(axis, axis): value for axis, value in key.items()} for key in keys]
    one = next((n for n, key in enumerate(ours) if key == {"default": True, "num_tokens": 1}), None)
    tuned = [n for n, key in enumerate(ours) if key and "default" not in key]
    rules = [rule for rule in spec.rules if rule.axis in ours[tuned[0]]]
    groups = {
        alone: [n for n in tuned if (ours[n]["num_tokens"] == 1) == alone]
        for alone in (True, False)
    }
    pickers = {
        alone: compile_picker(rules, [ours[n] for n in group], {})
        for alone, group in groups.items()
    }
    outcomes, evaluate = set(), Evaluator()
    for values in calls(spec, [ours[n] for n in tuned]):
        alone = values["num_tokens"] == 1
        index = pickers[alone].pick(tuple(values[rule.axis] for rule in rules)).index
        place = groups[alone][index] if index is not None else one if alone else None
        args = arguments(spec, {**spec.defaults, **values}, evaluate)
        outcomes.add(index is None)
        if place is None and alone:
            with pytest.raises(ValueError, match=r"^no config is for calls with num_?tokens of 1"):
                pick(args, keys)
        else:
            assert pick(args, keys) is (None if place is None else keys[place]), values
    return outcomes


@pytest.mark.parametrize("kernel", PACK.kernels)
def test_our_configs_are_picked_as_by_the_rules(vendored, shared, vllm_wheel, kernel):
    """Over the file that vLLM would read, in the order in which it lists the keys."""
    spec, make = read_kernel(ROOT, kernel), case_key(vllm_wheel)
    tree, _ = vendored
    entries = json.loads((tree / FOLDER / "configs" / kernel / "nvidia_h200.json").read_text())
    keys = sorted((make(entry["key"], _allow_empty=True) for entry in entries), key=str)
    assert sum(not key or "default" in key for key in keys) == 2
    pick = vendored_picker(tree, shared, kernel)
    assert check(spec, pick, keys) == {True, False}


SHIPPED = [
    (kernel, platform)
    for kernel in PACK.kernels
    for platform in ("nvidia_h100", "nvidia_h200" if kernel == "silu_mul_fp8" else "nvidia_b200")
]


@pytest.mark.parametrize(
    ("kernel", "platform"), [pytest.param(*pair, id="/".join(pair)) for pair in SHIPPED]
)
def test_vllms_configs_are_picked_as_by_the_rules(vendored, shared, vllm_wheel, kernel, platform):
    """Their keys as they are, which name no dtype; an axis that they lack may have any value."""
    spec, make = read_kernel(ROOT, kernel), case_key(vllm_wheel)
    path = vllm_wheel / FOLDER / "configs" / kernel / f"{platform}.json"
    found = [entry["key"] for entry in json.loads(path.read_text()) if entry["key"]]
    pick = vendored_picker(vendored[0], shared, kernel)
    assert False in check(spec, pick, [make.default(), *map(make, found)])
