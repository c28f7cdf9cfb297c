"""Our rules give what vLLM 0.33.0's hand-written pickers give, on the keys that vLLM ships."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Mapping
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen

from kernelpkg.configs.picker import Picker, compile_picker
from kernelpkg.manifest.spec import Rule, Scalar
from kernelpkg.packs.read import read_kernel, read_pack

pytestmark = pytest.mark.vllm

FOLDER = Path("vllm", "kernels", "helion")

ROOT = Path(__file__).parents[3]
KERNELS = read_pack(ROOT, "kernelpkg").kernels

RENAMED = {
    "silu_mul_fp8": {"intermediate": "intermediate_size", "numtokens": "num_tokens"},
    "fused_qk_norm_rope": {"q_heads": "num_heads_q", "kv_heads": "num_heads_k"},
}

# Values of the call that are as far from one tuned value as from another: what vLLM takes, which
# goes by the text of its keys, and what we take, the smaller. All other ties come out the same.
TIES = {
    "silu_mul_fp8/nvidia_h100": {("intermediate_size", 9600): (11008, 8192)},
    "silu_mul_fp8/nvidia_h200": {("intermediate_size", 9600): (11008, 8192)},
    "dynamic_per_token_scaled_fp8_quant/nvidia_h100": {
        ("hidden_size", 1280): (2048, 512),
        ("hidden_size", 10240): (12288, 8192),
    },
    "rms_norm_per_block_quant/nvidia_h100": {("group_size", 96): (128, 64)},
    "silu_and_mul_per_block_quant/nvidia_h100": {("intermediate_size", 9216): (12288, 6144)},
    "silu_and_mul_per_block_quant/nvidia_b200": {("intermediate_size", 9216): (12288, 6144)},
}


def rules_of(kernel: str) -> tuple[tuple[Rule, ...], Mapping[str, Scalar]]:
    """Return the rules of a kernel, and the values of axes that vLLM's keys do not name."""
    spec = read_kernel(ROOT, kernel)
    return spec.rules, spec.defaults


@frozen
class Tensor:
    """Stands in for a tensor of two dimensions, as far as the pickers look at one."""

    shape: tuple[int, int]

    def view(self, first: int, last: int) -> Tensor:
        assert (first, last) == (-1, self.shape[1])
        return self


def arguments(kernel: str, call: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return the arguments of vLLM's op for a call, as far as its picker looks at them."""
    tokens = call["num_tokens"]
    if kernel == "silu_mul_fp8":
        return Tensor((tokens, 2 * call["intermediate_size"])), None
    if kernel == "per_token_group_fp8_quant":
        return Tensor((tokens, call["hidden_size"])), None, None, call["group_size"]
    if kernel == "rms_norm_per_block_quant":
        filler = (None,) * 5
        return None, Tensor((tokens, call["hidden_size"])), *filler, call["group_size"]
    if kernel == "silu_and_mul_per_block_quant":
        return Tensor((tokens, call["intermediate_size"])), None, None, call["group_size"]
    if kernel == "fused_qk_norm_rope":
        return Tensor((tokens, 0)), call["num_heads_q"], call["num_heads_k"]
    return None, Tensor((tokens, call["hidden_size"]))


def vllm_picker(wheel: Path, kernel: str, platform: str) -> Callable[[Mapping[str, Any]], Any]:
    """Return vLLM's own picker over its own keys, speaking our names of the axes."""
    case_key: dict[str, Any] = {}
    exec(compile((wheel / FOLDER / "case_key.py").read_text(), "case_key.py", "exec"), case_key)
    module = ast.parse((wheel / FOLDER / "ops" / f"{kernel}.py").read_text())
    (function,) = (
        node
        for node in module.body
        if isinstance(node, ast.FunctionDef)
        and [argument.arg for argument in node.args.args] == ["args", "config_keys"]
    )
    space = {"Any": Any, "CaseKey": case_key["CaseKey"], "_pick_cache": {}}
    exec(compile(ast.Module(body=[function], type_ignores=[]), kernel, "exec"), space)
    entries = json.loads((wheel / FOLDER / "configs" / kernel / f"{platform}.json").read_text())
    # As ConfigSet.get_config_keys does it: pickers break ties by this order.
    keys = sorted((space["CaseKey"](entry["key"], _allow_empty=True) for entry in entries), key=str)

    def pick(call: Mapping[str, Any]) -> dict[str, Any]:
        return renamed(kernel, space[function.name](arguments(kernel, call), keys))

    return pick


def renamed(kernel: str, key: Mapping[str, Any]) -> dict[str, Any]:
    names = RENAMED.get(kernel, {})
    return {names.get(axis, axis): value for axis, value in key.items()}


def shipped_keys(wheel: Path, kernel: str, platform: str) -> list[dict[str, Any]]:
    entries = json.loads((wheel / FOLDER / "configs" / kernel / f"{platform}.json").read_text())
    return [renamed(kernel, entry["key"]) for entry in entries]


def our_picker(keys: list[dict[str, Any]], kernel: str) -> Picker:
    rules, defaults = rules_of(kernel)
    return compile_picker(rules, keys, defaults)


def sizes(tuned: set[int], reach: int, steps: int) -> list[int]:
    """Return calls around each tuned size and each midpoint, and steps over the whole range."""
    values = sorted(tuned)
    centres = values + [(low + high) // 2 for low, high in pairwise(values)]
    near = {centre + shift for centre in centres for shift in range(-reach, reach + 1)}
    far = range(1, 2 * values[-1], max(1, 2 * values[-1] // steps))
    return sorted(value for value in near.union(far) if value > 0)


def tokens(tuned: set[int]) -> list[int]:
    return sorted({1, *(value + shift for value in tuned for shift in (-1, 0, 1))} - {0})


def calls(keys: list[dict[str, Any]]) -> list[dict[str, int]]:
    """Return a dense grid of calls around the tuned values of each axis; densest for the first."""
    named = [key for key in keys if key]
    grid = {}
    for place, axis in enumerate(named[0]):
        tuned = {key[axis] for key in named}
        if axis == "num_tokens":
            grid[axis] = tokens(tuned)
        else:
            grid[axis] = sizes(tuned, 2, 8) if place else sizes(tuned, 4, 80)
    return [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]


SHIPPED = [
    (kernel, platform)
    for kernel in KERNELS
    for platform in ("nvidia_h100", "nvidia_h200" if kernel == "silu_mul_fp8" else "nvidia_b200")
]


def test_every_shipped_file_is_compared(vllm_wheel):
    """The table above names all config files of the wheel."""
    found = (vllm_wheel / FOLDER / "configs").glob("*/*.json")
    assert sorted((path.parent.name, path.stem) for path in found) == sorted(SHIPPED)


@pytest.mark.parametrize(
    ("kernel", "platform"), [pytest.param(*pair, id="/".join(pair)) for pair in SHIPPED]
)
def test_rules_give_what_vllm_gives(vllm_wheel, kernel, platform):
    """Both take the same key for every call, but for ties, which vLLM breaks by text."""
    keys = shipped_keys(vllm_wheel, kernel, platform)
    theirs, ours = vllm_picker(vllm_wheel, kernel, platform), our_picker(keys, kernel)
    rules, defaults = rules_of(kernel)
    ties: dict[tuple[str, int], tuple[int, int]] = {}
    for call in calls(keys):
        values = tuple(
            call[rule.axis] if rule.axis in call else defaults[rule.axis] for rule in rules
        )
        index = ours.pick(values).index
        assert index is not None
        wanted, got = theirs(call), keys[index]
        if wanted != got:
            axis = next(rule.axis for rule in rules if wanted.get(rule.axis) != got.get(rule.axis))
            ties[axis, call[axis]] = wanted[axis], got[axis]
    assert ties == TIES.get(f"{kernel}/{platform}", {})
