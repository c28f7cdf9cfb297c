"""What `check` says of the configs that vLLM 0.33.0 ships, as a pack with the grids of its ops."""

from __future__ import annotations

import ast
import builtins
import datetime
import itertools
import json
import re
import shutil
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from kernelpkg.check import level0
from kernelpkg.errors import Problem
from kernelpkg.manifest.cases import show
from kernelpkg.manifest.spec import PackSpec
from kernelpkg.packs.read import read_pack
from kernelpkg.vllm.exchange import plan_import

pytestmark = pytest.mark.vllm

ROOT = Path(__file__).parents[3]
FOLDER = Path("vllm", "kernels", "helion")
TODAY = datetime.date(2026, 11, 30)


class Anything:
    """Stands in for PyTorch, its tensors, and what a generator asks of the platform."""

    def __getattr__(self, name: str) -> Anything:
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __call__(self, *_: object, **__: object) -> Anything:
        return self

    def __iter__(self) -> Iterator[Anything]:
        return iter((self, self))  # the two ends of a range

    __add__ = __mul__ = __rmul__ = __truediv__ = __call__


def function_of(wheel: Path, kernel: str, argument: str | None) -> Any:
    """Return a function of vLLM's op, and nothing else of its module: all that it reads is made up.

    It is the generator, which takes no argument, or the picker, which takes `config_keys`.
    """
    space: dict[str, Any] = {}
    exec(compile((wheel / FOLDER / "case_key.py").read_text(), "case_key.py", "exec"), space)
    space |= {"Any": Any, "product": itertools.product, "_pick_cache": {}}
    module = ast.parse((wheel / FOLDER / "ops" / f"{kernel}.py").read_text())
    (function,) = (
        node
        for node in module.body
        if isinstance(node, ast.FunctionDef)
        and (node.name.startswith("generate") if argument is None else argument in names(node))
    )
    read = {node.id for node in ast.walk(function) if isinstance(node, ast.Name)}
    space |= dict.fromkeys(read - space.keys() - vars(builtins).keys(), Anything())
    exec(compile(ast.Module(body=[function], type_ignores=[]), kernel, "exec"), space)
    return space[function.name], space["CaseKey"]


def names(function: ast.FunctionDef) -> list[str]:
    return [argument.arg for argument in function.args.args]


def generated(wheel: Path, kernel: str) -> list[Mapping[str, Any]]:
    """Return the keys that vLLM's own input generator of a kernel makes inputs for."""
    generate, _ = function_of(wheel, kernel, None)
    return list(generate())


def with_grid(text: str, rows: list[dict[str, Any]]) -> str:
    """Return a manifest whose cases for tuning are the given ones, and no others."""
    listed = ",\n".join(
        "  { " + ", ".join(f"{axis} = {show(value)}" for axis, value in row.items()) + " }"
        for row in rows
    )
    grid = f'[[inputs.grid]]\nuse = ["tune"]\nrows = [\n{listed},\n]\n'
    starts = [match.start() for match in re.finditer(re.escape("[[inputs.grid]]"), text)]
    assert 'use = ["test"]' in text[starts[-1] :]
    return text[: starts[0]] + grid + text[starts[-1] :]


@pytest.fixture(scope="module")
def shipped(vllm_wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> PackSpec:
    """The first pack with the configs of vLLM, and the cases of its generators."""
    root = tmp_path_factory.mktemp("shipped")
    for name in ("manifests", "kernels"):
        shutil.copytree(ROOT / name, root / name)
    pack = read_pack(root, "kernelpkg")
    for kernel in pack.kernels:
        names = pack.vllm_axes.get(kernel, {})
        keys = generated(vllm_wheel, kernel)
        path = root / "kernels" / kernel / "kernel.toml"
        rows = [{names.get(axis, axis): value for axis, value in key.items()} for key in keys]
        path.write_text(with_grid(path.read_text(), rows))
    plan_import(pack, vllm_wheel).carry_out()
    return pack


@pytest.fixture(scope="module")
def findings(shipped: PackSpec) -> tuple[Problem, ...]:
    """What level 0 finds in it."""
    checked, specs = level0.check_static(shipped, shipped.kernels, (), TODAY, lambda *_: None)
    assert len(specs) == 7
    assert checked.counts["cases"] == 1270
    assert checked.counts["files"] == 14
    return checked.findings


def of(findings: tuple[Problem, ...], code: str) -> list[str]:
    return [str(finding) for finding in findings if finding.code == code]


def test_the_stray_size_is_found_with_the_range_that_it_takes(findings):
    """One case of 7688 columns is in both files of silu_mul_fp8, for one number of tokens."""
    assert of(findings, "KP214") == [
        f"configs/silu_mul_fp8/{platform}.json:221: KP214 case intermediate_size=7688, "
        "num_tokens=256 takes every call with in_dtype=bfloat16 and intermediate_size from 5893 to "
        "7940, with 1 value of num_tokens, where 4096 has 51 and 8192 has 51; tune "
        "intermediate_size=7688 for as many as they are, or remove it"
        for platform in ("nvidia_h100", "nvidia_h200")
    ]


@pytest.mark.parametrize(
    ("size", "taken"),
    [(5892, 4096), (5893, 7688), (7939, 7688), (7940, 7688), (7941, 8192)],
    ids=["below", "first", "last-but-one", "last", "above"],
)
def test_vllm_takes_the_stray_size_for_the_same_calls(vllm_wheel, size, taken):
    """Its own picker, over the keys that it ships, at few tokens and at many."""
    pick, case_key = function_of(vllm_wheel, "silu_mul_fp8", "config_keys")
    path = vllm_wheel / FOLDER / "configs" / "silu_mul_fp8" / "nvidia_h100.json"
    entries = json.loads(path.read_text())
    keys = sorted((case_key(entry["key"], _allow_empty=True) for entry in entries), key=str)
    for tokens in (1, 100, 256, 400, 5000):
        flat = types.SimpleNamespace(shape=(tokens, 2 * size))
        call = types.SimpleNamespace(shape=flat.shape, view=lambda *_, flat=flat: flat)
        found = pick((call, None), keys)
        assert found["intermediate"] == taken
        assert (found["numtokens"] == 256) == (taken == 7688 or tokens == 256)


def test_the_copied_file_is_found(findings):
    """307 cases with 205 distinct configs: tuning two GPUs does not end like that."""
    assert of(findings, "KP220") == [
        (
            "configs/silu_mul_fp8/nvidia_h100.json: KP220 the file is a copy of that of "
            "nvidia_h200, or that one of this: 307 of 307 cases have the same config (205 distinct "
            "configs) in configs/silu_mul_fp8/nvidia_h200.json; tune on each GPU, or remove the "
            "copy, whose calls then borrow"
        )
    ]


def test_all_cases_without_generator_are_found(findings):
    """152 of the 1,268 that have a key, each of them named."""
    lines = of(findings, "KP215")
    found: dict[str, int] = {}
    for line in lines:
        file = line.split("/", 1)[1].split(".")[0]
        many = re.search(r"KP215 (\d+) cases", line)
        found[file] = found.get(file, 0) + (int(many[1]) if many else 1)
        assert "…" not in line
    assert found == {
        "dynamic_per_token_scaled_fp8_quant/nvidia_h100": 73,
        "fused_qk_norm_rope/nvidia_h100": 3,
        "rms_norm_dynamic_per_token_quant/nvidia_h100": 17,
        "rms_norm_per_block_quant/nvidia_h100": 54,
        "silu_and_mul_per_block_quant/nvidia_h100": 3,
        "silu_mul_fp8/nvidia_h100": 1,
        "silu_mul_fp8/nvidia_h200": 1,
    }
    assert sum(found.values()) == 152


def test_ops_without_a_file_are_found(findings):
    """Six of seven have none for an H200, and one has none for a B200."""
    assert [line.split(":")[0] for line in of(findings, "KP208")] == [
        "configs/dynamic_per_token_scaled_fp8_quant/nvidia_h200.json",
        "configs/fused_qk_norm_rope/nvidia_h200.json",
        "configs/per_token_group_fp8_quant/nvidia_h200.json",
        "configs/rms_norm_dynamic_per_token_quant/nvidia_h200.json",
        "configs/rms_norm_per_block_quant/nvidia_h200.json",
        "configs/silu_and_mul_per_block_quant/nvidia_h200.json",
        "configs/silu_mul_fp8/nvidia_b200.json",
    ]


def test_nothing_else_is_found(findings):
    """But that vLLM's files do not say which source they were tuned for: each of the 14."""
    others = [finding for finding in findings if finding.code not in ("KP208", "KP214", "KP215")]
    assert sorted(finding.code for finding in others) == ["KP220", *["KP226"] * 14]
