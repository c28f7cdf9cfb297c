"""The catalogue of planted faults: each breaks a copy of the first pack in one way.

`tests/test_planted.py` holds that the lowest level that can tell each of them does, and that it
tells nothing else. Faults that need Helion or a GPU to be told are in `tests/helion/`.
"""

# ruff: noqa: E501  # tables of cases and messages have whole lines

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from attrs import frozen

KERNEL = "silu_mul_fp8"
MANIFEST = f"kernels/{KERNEL}/kernel.toml"
SOURCE = f"kernels/{KERNEL}/kernel.py"
HOST = f"kernels/{KERNEL}/host.py"
PACK = "manifests/kernelpkg.toml"
CONFIGS = f"configs/{KERNEL}/nvidia_h200.json"
OTHERS = (
    "dynamic_per_token_scaled_fp8_quant",
    "fused_qk_norm_rope",
    "per_token_group_fp8_quant",
    "rms_norm_dynamic_per_token_quant",
    "rms_norm_per_block_quant",
    "silu_and_mul_per_block_quant",
)

Plant = Callable[[Path], None]


@frozen(kw_only=True)
class Planted:
    """One fault: what breaks the pack below a root, and the `PATH CODE` of all that is found.

    `level` is the lowest one that can tell it; findings that are unverified end in "?".
    """

    plant: Plant
    found: frozenset[str]
    level: int = 0


def edit(file: str, old: str, new: str) -> Plant:
    """Replace a text of a file, which has it."""

    def plant(root: Path) -> None:
        path = root / file
        text = path.read_text()
        assert old in text, f"{file} has no {old!r}"
        path.write_text(text.replace(old, new, 1))

    return plant


def change(edited: Callable[[Any], object], file: str = CONFIGS) -> Plant:
    """Change the document of a config file in place."""

    def plant(root: Path) -> None:
        path = root / file
        document = json.loads(path.read_text())
        edited(document)
        path.write_text(json.dumps(document, indent=1))

    return plant


def case(tokens: object, size: object = 2048, **more: object) -> dict[str, Any]:
    """Return a case of the kernel's config file, of its first config."""
    key = {"in_dtype": "bfloat16", "intermediate_size": size, "num_tokens": tokens, **more}
    return {"key": key, "config": 0}


def add_case(*args: Any, **more: Any) -> Plant:
    return change(lambda document: document["cases"].append(case(*args, **more)))


def key(axis: str, value: object, place: int = 0) -> Plant:
    """Give the key of a case another value."""
    return change(lambda document: document["cases"][place]["key"].update({axis: value}))


def fact(name: str, value: str | None) -> Plant:
    """Give the file another fact of how it was tuned, or take one away."""
    return change(
        lambda d: d["tuned_with"].update({name: value}) if value else d["tuned_with"].pop(name)
    )


def times(**ms: float) -> Plant:
    """Give the first case other times."""
    return change(lambda document: document["cases"][0].update(ms))


def config(**fields: object) -> Plant:
    """Give the first config other fields."""
    return change(lambda document: document["configs"][0].update(fields))


def move(old: str, new: str) -> Plant:
    def plant(root: Path) -> None:
        (root / new).parent.mkdir(parents=True, exist_ok=True)
        (root / old).rename(root / new)

    return plant


def write(file: str, text: str) -> Plant:
    def plant(root: Path) -> None:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_text(text)

    return plant


def delete(file: str) -> Plant:
    return lambda root: (root / file).unlink()


def link(file: str, target: str) -> Plant:
    return lambda root: (root / file).symlink_to(target)


def all_of(*plants: Plant) -> Plant:
    def plant(root: Path) -> None:
        for one in plants:
            one(root)

    return plant


def copied(platform: str, gpu: str | None) -> Plant:
    """Copy the config file for another platform, as one does who changes names alone."""

    def plant(root: Path) -> None:
        document = json.loads((root / CONFIGS).read_text())
        document["platform"] = platform
        document["tuned_with"]["gpu"] = gpu or document["tuned_with"]["gpu"]
        (root / f"configs/{KERNEL}/{platform}.json").write_text(json.dumps(document))

    return plant


def fault(plant: Plant, *found: str, level: int = 0) -> Planted:
    return Planted(plant=plant, found=frozenset(found), level=level)


def configs(edited: Callable[[Any], object], *codes: str) -> Planted:
    """Change the config file, where all is found."""
    return fault(change(edited), *(f"{CONFIGS} {code}" for code in codes))


def edits(where: str, file: str, table: dict[str, tuple[str, str, str]]) -> dict[str, Planted]:
    """Edit one file in the ways of a table."""
    return {
        f"{where}: {name}": fault(edit(file, old, new), f"{file} {code}")
        for name, (code, old, new) in table.items()
    }


def alone(*kernels: str, platform: str) -> tuple[str, ...]:
    """What is found of kernels that have no file for a platform, where others have."""
    return tuple(f"configs/{kernel}/{platform}.json KP208?" for kernel in kernels)


H100 = f"configs/{KERNEL}/nvidia_h100.json"
GAP = f"{CONFIGS} KP207?"

OF_MANIFEST = {
    "not TOML": ("KP003", "version = 1", "version = = 1"),
    "newer edition": ("KP002", "edition = 1", "edition = 2"),
    "unknown key": ("KP010", "version = 1", "verzion = 1\nversion = 1"),
    "missing key": ("KP011", "version = 1\n", ""),
    "mistyped value": ("KP012", "version = 1", 'version = "1"'),
    "another name": ("KP101", f'name = "{KERNEL}"', 'name = "silu"'),
    "no schema": ("KP102", "(Tensor input, Tensor scale) -> Tensor", "(Tensor input"),
    "rule of no axis": ("KP104", 'axis = "intermediate_size"', 'axis = "intermediate"'),
    "option of another match kind": ("KP105", '"nearest"', '"nearest"\nover = "miss"'),
    "unused axis": ("KP106", "[guard]", 'columns = "input.shape[-1]"\n[guard]'),
    "accuracy of nothing": ("KP109", "[accuracy]\n", "[accuracy]\nscale = { rtol = 1e-3 }\n"),
    "outer reference": ("KP110", "version = 1", 'version = 1\nreference = "../host.py:reference"'),
    "no expression": ("KP120", '"input.shape[-1] // 2"', '"input.shape[-1] /"'),
    "unknown name in an expression": ("KP121", '"input.dtype"', '"inputs.dtype"'),
    "argument without a spec": ("KP130", 'scale = { shape = ["*1"], dtype = "float32", init = 0.02 }\n', ""),
    "argument that the op has not": ("KP131", "[args]\n", "[args]\nbias = 1.0\n"),
    "grid of no axis": ("KP140", "num_tokens = [1, 2,", "tokens = [1]\nnum_tokens = [1, 2,"),
    "grid without an axis": ("KP141", "intermediate_size = [64, 200]\n", ""),
    "guard that refuses a case": ("KP142", "input.shape[-1] % 2 ==", "intermediate_size % 64 =="),
    "cases that no call reaches": ("KP143", 'match = "ceil"', 'match = "ignore"'),
    "setting of ours": ("KP150", "[helion]\n", "[helion]\nsettings = { static_shapes = true }\n"),
    "default with a positional list": ("KP152", "= 4 }", "= 4, range_unroll_factors = [4] }"),
}  # fmt: skip
"""Edits of the manifest of the kernel, and the code that is found there."""

OF_PACK = {
    "unknown key": ("KP010", "[pack]\n", "[pack]\nfoo = 1\n"),
    "not TOML": ("KP003", "[pack]\n", "[pack\n"),
    "no version specifier": ("KP608", '">=0.33,<0.34"', '"0.33-"'),
    "route to no op": ("KP603", 'op = "per_token_group_fp8_quant"', 'op = "per_token"'),
    "condition of a route that reads no argument": ("KP840", '"column_major or ', '"major or '),
    "name of no axis": ("KP828", 'intermediate = "intermediate_size"', 'intermediate = "inter"'),
}
"""Edits of the manifest of the pack, and the code that is found there."""

PLANTED: dict[str, Planted] = {
    # Manifests.
    **edits("manifest", MANIFEST, OF_MANIFEST),
    **edits("pack", PACK, OF_PACK),
    "manifest: no file": fault(
        all_of(delete(MANIFEST), write(f"{MANIFEST}/x", "")), f"{MANIFEST} KP001"
    ),
    # The Python files of kernels.
    "source: no file": fault(delete(SOURCE), f"{MANIFEST} KP111"),
    "source: no such function": fault(
        edit(SOURCE, f"def {KERNEL}(", "def silu_mul("), f"{MANIFEST} KP112"
    ),
    "source: does not parse": fault(edit(SOURCE, "def ", "deff "), f"{SOURCE} KP114"),
    "source: imports what is not the kernel's": fault(
        edit(SOURCE, "import torch\n", "import numpy\nimport torch\n"), f"{SOURCE} KP113"
    ),
    "source: other arguments": fault(
        edit(SOURCE, "(input: torch.Tensor", "(x: torch.Tensor"), f"{MANIFEST} KP103"
    ),
    "reference: no such function": fault(
        edit(HOST, "def reference(", "def expected("), f"{MANIFEST} KP112"
    ),
    "reference: imports Helion": fault(
        edit(HOST, "import torch\n", "import helion\nimport torch\n"), f"{HOST} KP113"
    ),
    "kernel: manifest of a misspelt name": fault(
        move(MANIFEST, f"kernels/{KERNEL}/kernel.tml"), f"kernels/{KERNEL} KP204", f"{PACK} KP603"
    ),
    "kernel: a link that leads nowhere": fault(
        link("kernels/gone", "../elsewhere"), "kernels/gone KP203"
    ),
    "pack: a kernel that is not there": fault(
        edit(PACK, 'kernels = "*"', f"kernels = {json.dumps([*OTHERS, KERNEL, 'silu'])}"),
        "kernels/silu/kernel.toml KP602",
        "configs/silu/nvidia_h200.json KP208?",
    ),
    # The directories of configs.
    "configs: misspelt directory": fault(
        move(f"configs/{KERNEL}", "configs/silu_mull_fp8"),
        "configs/silu_mull_fp8 KP201",
        f"{CONFIGS} KP208?",
    ),
    "configs: a file that is no JSON": fault(
        write(f"configs/{KERNEL}/nvidia_h200.json.bak", "{}"), f"{CONFIGS}.bak KP201"
    ),
    "configs: a file beside the directories": fault(
        write("configs/nvidia_h200.json", "{}"), "configs/nvidia_h200.json KP201"
    ),
    "configs: a platform that is spelled otherwise": fault(
        all_of(
            change(lambda document: document.update(platform="NVIDIA-H200")),
            move(CONFIGS, f"configs/{KERNEL}/NVIDIA-H200.json"),
        ),
        f"configs/{KERNEL}/NVIDIA-H200.json KP202",
        f"{CONFIGS} KP208?",
    ),
    "configs: a platform that no GPU has": fault(
        all_of(
            copied("nvidia_h2000", "NVIDIA H2000"),
            change(lambda d: [c.pop("ms") for c in d["cases"]]),
        ),
        f"configs/{KERNEL}/nvidia_h2000.json KP202?",
    ),
    "configs: a variant that looks for its base": fault(
        all_of(
            copied("nvidia_h200_nvl", "NVIDIA H200"),
            change(lambda d: [c.pop("ms") for c in d["cases"]]),
        ),
        f"configs/{KERNEL}/nvidia_h200_nvl.json KP202?",
    ),
    "configs: a directory that leads nowhere": fault(
        all_of(move(f"configs/{KERNEL}", "elsewhere"), link(f"configs/{KERNEL}", "../not_there")),
        f"configs/{KERNEL} KP203",
        f"{CONFIGS} KP208?",
    ),
    "configs: a file that leads nowhere": fault(
        all_of(delete(CONFIGS), link(CONFIGS, "nowhere.json")), f"{CONFIGS} KP501"
    ),
    "configs: an op without a platform that others have": fault(
        delete(CONFIGS), f"{CONFIGS} KP208?"
    ),
    # Config files.
    "file: cut off": fault(
        lambda root: (root / CONFIGS).write_text((root / CONFIGS).read_text()[:900]),
        f"{CONFIGS} KP501",
    ),
    "file: unknown field": configs(lambda d: d.update(tunedwith={}), "KP502"),
    "file: no such config": configs(lambda d: d["cases"][0].update(config=99), "KP503"),
    "file: one key twice": configs(lambda d: d["cases"].append(d["cases"][0]), "KP504"),
    "file: one key twice, once with a default left out": configs(
        lambda d: d["cases"].append(
            {"key": {"intermediate_size": 2048, "num_tokens": 1}, "config": 0}
        ),
        "KP504",
    ),
    "file: another kernel's": configs(lambda d: d.update(kernel=OTHERS[0]), "KP505"),
    "file: another platform's": configs(lambda d: d.update(platform="nvidia_h100"), "KP505"),
    "file: key of no axis": fault(key("tokens", 1), f"{CONFIGS} KP506"),
    "file: newer edition": configs(lambda d: d.update(edition=2), "KP507"),
    "file: no cases": configs(lambda d: d.update(cases=[]), "KP205"),
    "file: a config of no case": configs(
        lambda d: d["configs"].append({"block_sizes": [1], "num_warps": 1}), "KP206"
    ),
    "file: a case of the grid lacks": configs(lambda d: d["cases"].pop(5), "KP207?"),
    "file: only half of the grid": configs(lambda d: d.update(cases=d["cases"][::2]), "KP207?"),
    # Configs.
    "config: three warps": fault(config(num_warps=3), f"{CONFIGS} KP508"),
    "config: no stages": fault(config(num_stages=0), f"{CONFIGS} KP508"),
    "config: a block of 48": fault(config(block_sizes=[48, 1]), f"{CONFIGS} KP508"),
    "config: misspelt eviction": fault(
        config(load_eviction_policies=["frist"]), f"{CONFIGS} KP508"
    ),
    "config: misspelt program ids": fault(config(pid_type="flatt"), f"{CONFIGS} KP508"),
    "config: unknown field": fault(config(num_warp=4), f"{CONFIGS} KP502"),
    # Keys.
    "key: a size as a text": fault(key("num_tokens", "1"), f"{CONFIGS} KP210", GAP),
    "key: a size as true": fault(key("num_tokens", True), f"{CONFIGS} KP210", GAP),
    "key: a size with a fraction": fault(key("num_tokens", 1.5), f"{CONFIGS} KP210", GAP),
    "key: a size as a float": fault(key("num_tokens", 1.0), f"{CONFIGS} KP210"),
    "key: no size": fault(key("num_tokens", None), f"{CONFIGS} KP210", GAP),
    "key: no dtype": fault(key("in_dtype", "bf16"), f"{CONFIGS} KP210", GAP),
    "key: a negative size": fault(key("num_tokens", -1), f"{CONFIGS} KP211", GAP),
    "key: a dtype that a guard refuses": fault(key("in_dtype", "int8"), f"{CONFIGS} KP211", GAP),
    "key: a case of no grid": fault(add_case(16384), f"{CONFIGS} KP215"),
    "key: a case that no call reaches": fault(
        all_of(edit(MANIFEST, 'match = "ceil"', 'match = "pow2"'), add_case(24)),
        f"{CONFIGS} KP212",
        f"{CONFIGS} KP215",
    ),
    "key: two cases that are one by the rules": fault(
        all_of(
            edit(
                MANIFEST,
                '[[key]]\naxis = "intermediate_size"',
                '[[key]]\naxis = "scale_dtype"\nmatch = "ignore"\n'
                '[[key]]\naxis = "intermediate_size"',
            ),
            edit(
                MANIFEST,
                'in_dtype = "input.dtype"',
                'in_dtype = "input.dtype"\nscale_dtype = "scale.dtype"',
            ),
            edit(
                MANIFEST,
                '{ in_dtype = "bfloat16" }',
                '{ in_dtype = "bfloat16", scale_dtype = "float32" }',
            ),
            add_case(1, scale_dtype="bfloat16"),
        ),
        f"{CONFIGS} KP212",
        f"{CONFIGS} KP215",
    ),
    "key: a stray case that takes a range": fault(
        add_case(256, 7688), f"{CONFIGS} KP214", f"{CONFIGS} KP215"
    ),
    "key: strays side by side": configs(
        lambda d: d["cases"].extend([case(256, 7688), case(16, 7700)]), "KP214", "KP215"
    ),
    "key: a stray case above all others": fault(
        add_case(1, 65536), f"{CONFIGS} KP214", f"{CONFIGS} KP215"
    ),
    "key: a size of the grid that is hardly tuned": configs(
        lambda d: d.update(
            cases=[
                c
                for c in d["cases"]
                if c["key"]["intermediate_size"] != 4096 or c["key"]["num_tokens"] == 64
            ]
        ),
        "KP214",
        "KP206",
        "KP207?",
    ),
    # What files say of their making.
    "copy: names and GPU changed": fault(
        copied("nvidia_h100", "NVIDIA H100"),
        f"{H100} KP220",
        *alone(*OTHERS, platform="nvidia_h100"),
    ),
    "copy: names changed": fault(
        copied("nvidia_h100", None),
        f"{H100} KP220",
        f"{H100} KP228",
        *alone(*OTHERS, platform="nvidia_h100"),
    ),
    "source: changed since it was tuned": fault(
        edit(SOURCE, "def silu_mul_fp8", "LIMIT = 448.0\n\n\ndef silu_mul_fp8"), f"{CONFIGS} KP225"
    ),
    "facts: no source": fault(fact("source", None), f"{CONFIGS} KP226?"),
    "facts: a source that is no digest": fault(fact("source", "v1"), f"{CONFIGS} KP227"),
    "facts: a version that is none": fault(fact("triton", "three"), f"{CONFIGS} KP227"),
    "facts: a version of too many digits": fault(
        fact("torch", f"2.{'9' * 5000}"), f"{CONFIGS} KP227"
    ),
    "facts: another GPU": fault(fact("gpu", "NVIDIA B200"), f"{CONFIGS} KP228"),
    "facts: a date that is none": fault(fact("date", "22.11.2026"), f"{CONFIGS} KP229?"),
    "facts: a date to come": fault(fact("date", "2126-11-22"), f"{CONFIGS} KP229?"),
    "run: of another source": configs(
        lambda d: (d.update(runs=[{"source": "sha256-" + "0" * 64}]), d["cases"][3].update(run=0)),
        "KP225",
    ),
    "run: of another GPU": configs(
        lambda d: (
            d.update(runs=[{**d["tuned_with"], "gpu": "NVIDIA A100"}]),
            d["cases"][3].update(run=0),
        ),
        "KP228",
    ),
    "run: not there": configs(lambda d: d["cases"][3].update(run=7), "KP503"),
    "times: none at all": fault(times(ms=0), f"{CONFIGS} KP230"),
    "times: below zero": fault(times(default_ms=-0.004), f"{CONFIGS} KP230"),
    "times: slower than the default": fault(times(ms=0.009, default_ms=0.004), f"{CONFIGS} KP231"),
    "times: slower than before": fault(times(ms=0.009, old_ms=0.004), f"{CONFIGS} KP231"),
}
