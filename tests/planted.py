"""The catalogue of planted faults: each breaks a copy of the first pack in one way.

`tests/test_planted.py` holds that level 0 tells each of them, and nothing else. Faults that need
Helion or a GPU to be told are in `tests/helion/`.
"""

from __future__ import annotations

import ast
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from attrs import frozen

from kernelpkg.packs.sources import source_digest

ROOT = Path(__file__).parents[1]
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

    Findings that are unverified end in "?". `lines` are whole ones among them.
    """

    plant: Plant
    found: frozenset[str]
    lines: tuple[str, ...]


def first_pack(into: Path) -> Path:
    """Copy what makes up the first pack, and let its configs be of the sources that it has now.

    The kernel that faults are planted in has a grid and configs that stay as they are when the pack
    is tuned again, for faults stand in lines of them.
    """
    for name in ("manifests", "kernels", "configs"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, into / name, ignore=ignored, symlinks=True)
    for file in (MANIFEST, CONFIGS):
        shutil.copyfile(ROOT / "tests" / "fixtures" / "planted" / Path(file).name, into / file)
    for path in into.glob("configs/*/*.json"):
        source = (into / "kernels" / path.parent.name / "kernel.py").read_text()
        digest = source_digest(ast.parse(source))
        path.write_text(re.sub(r'"source": "[^"]*"', f'"source": "{digest}"', path.read_text()))
    return into


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


def run_of_one(document: Any, facts: dict[str, str]) -> None:
    """Give one case a run of its own."""
    document.update(runs=[facts])
    document["cases"][3].update(run=0)


def times(**ms: float) -> Plant:
    """Give the first case other times."""
    return change(lambda document: document["cases"][0].update(ms))


def without_times() -> Plant:
    """Take the times from all cases, so that another file is not a copy for them."""
    return change(lambda document: [one.pop("ms") for one in document["cases"]])


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


_LINE = re.compile(r"(.+?)(?::\d+)?: (KP\d+)( unverified)?")


def fault(plant: Plant, *found: str) -> Planted:
    """Return a fault, with all that is found of it.

    Each is a whole line; or `PATH CODE`, with "?" where it is unverified; or, of the config file,
    the code alone.
    """
    lines = [one for one in found if _LINE.match(one)]
    short = {one if " " in one else f"{CONFIGS} {one}" for one in found if one not in lines}
    for path, code, doubt in (_LINE.match(line).groups() for line in lines):
        short.add(f"{path} {code}{'?' if doubt else ''}")
    return Planted(plant=plant, found=frozenset(short), lines=tuple(lines))


def manifest(old: str, new: str, code: str) -> Planted:
    """Return a fault of the kernel's manifest that is found there."""
    return fault(edit(MANIFEST, old, new), f"{MANIFEST} {code}")


def alone(*kernels: str, platform: str) -> tuple[str, ...]:
    """What is found of kernels that have no file for a platform, where others have."""
    return tuple(f"configs/{kernel}/{platform}.json KP208?" for kernel in kernels)


H100 = f"configs/{KERNEL}/nvidia_h100.json"
GAP = "KP207?"

PLANTED: dict[str, Planted] = {
    # Manifests of kernels.
    "manifest: not TOML": manifest("version = 1", "version = = 1", "KP003"),
    "manifest: no file": fault(
        all_of(delete(MANIFEST), write(f"{MANIFEST}/x", "")), f"{MANIFEST} KP001"
    ),
    "manifest: newer edition": manifest("edition = 1", "edition = 2", "KP002"),
    "manifest: unknown key": manifest("version = 1", "verzion = 1\nversion = 1", "KP010"),
    "manifest: missing key": manifest("version = 1\n", "", "KP011"),
    "manifest: mistyped value": manifest("version = 1", 'version = "1"', "KP012"),
    "manifest: another name": manifest(f'name = "{KERNEL}"', 'name = "silu"', "KP101"),
    "manifest: no schema": manifest(
        "(Tensor input, Tensor scale) -> Tensor", "(Tensor input", "KP102"
    ),
    "manifest: rule of no axis": manifest(
        'axis = "intermediate_size"', 'axis = "intermediate"', "KP104"
    ),
    "manifest: option of another match kind": manifest(
        'match = "nearest"', 'match = "nearest"\nover = "miss"', "KP105"
    ),
    "manifest: unused axis": manifest("[guard]", 'columns = "input.shape[-1]"\n[guard]', "KP106"),
    "manifest: accuracy of nothing": manifest(
        "[accuracy]\n", "[accuracy]\nscale = { rtol = 1e-3 }\n", "KP109"
    ),
    "manifest: reference out of the directory": manifest(
        "version = 1", 'version = 1\nreference = "../host.py:reference"', "KP110"
    ),
    "manifest: no expression": manifest('"input.shape[-1] // 2"', '"input.shape[-1] /"', "KP120"),
    "manifest: unknown name in an expression": manifest('"input.dtype"', '"inputs.dtype"', "KP121"),
    "manifest: argument without a spec": manifest(
        'scale = { shape = ["*1"], dtype = "float32", init = 0.02 }\n', "", "KP130"
    ),
    "manifest: argument that the op has not": manifest("[args]\n", "[args]\nbias = 1.0\n", "KP131"),
    "manifest: grid of no axis": manifest(
        "num_tokens = [1, 2,", "tokens = [1]\nnum_tokens = [1, 2,", "KP140"
    ),
    "manifest: grid without an axis": manifest("intermediate_size = [64, 200]\n", "", "KP141"),
    "manifest: guard that refuses a case": manifest(
        '"input.shape[-1] % 2 == 0"', '"intermediate_size % 64 == 0"', "KP142"
    ),
    "manifest: cases that no call reaches": manifest('match = "ceil"', 'match = "ignore"', "KP143"),
    "manifest: setting of kernelpkg's": manifest(
        "[helion]\n", "[helion]\nsettings = { static_shapes = true }\n", "KP150"
    ),
    "manifest: default with a field that is not there": manifest(
        "num_warps = 4 }", "num_warps = 4, range_unroll_factor = 4 }", "KP152"
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
        move(MANIFEST, f"kernels/{KERNEL}/kernel.tml"),
        "kernels/silu_mul_fp8: KP204 has no kernel.toml, so it is not a kernel; write one, or "
        "remove it",
        f"{PACK} KP603",
    ),
    "kernel: a link that leads nowhere": fault(
        link("kernels/gone", "../elsewhere"), "kernels/gone KP203"
    ),
    # The pack manifest.
    "pack: unknown key": fault(edit(PACK, "[pack]\n", "[pack]\nfoo = 1\n"), f"{PACK} KP010"),
    "pack: not TOML": fault(edit(PACK, "[pack]\n", "[pack\n"), f"{PACK} KP003"),
    "pack: a kernel that is not there": fault(
        edit(PACK, 'kernels = "*"', f"kernels = {json.dumps([*OTHERS, KERNEL, 'silu'])}"),
        "kernels/silu/kernel.toml KP602",
        "configs/silu/nvidia_h200.json KP208?",
    ),
    "pack: no version specifier": fault(edit(PACK, '">=0.33,<0.34"', '"0.33-"'), f"{PACK} KP608"),
    "pack: route to no op": fault(
        edit(PACK, 'op = "per_token_group_fp8_quant"', 'op = "per_token"'), f"{PACK} KP603"
    ),
    "pack: condition of a route that reads no argument": fault(
        edit(PACK, '"column_major or ', '"major or '), f"{PACK} KP840"
    ),
    "pack: name of no axis": fault(
        edit(PACK, 'intermediate = "intermediate_size"', 'intermediate = "inter"'), f"{PACK} KP828"
    ),
    # The directories of configs.
    "configs: misspelt directory": fault(
        move(f"configs/{KERNEL}", "configs/silu_mull_fp8"),
        "configs/silu_mull_fp8: KP201 is not for a kernel of pack 'kernelpkg', so nothing reads "
        "it; did you mean 'silu_mul_fp8'?",
        "KP208?",
    ),
    "configs: a file that is not JSON": fault(
        write(f"configs/{KERNEL}/nvidia_h200.json.bak", "{}"),
        f"{CONFIGS}.bak: KP201 is not a <platform>.json, so nothing reads it; rename or remove it",
    ),
    "configs: a file beside the directories": fault(
        write("configs/nvidia_h200.json", "{}"),
        "configs/nvidia_h200.json: KP201 belongs in the directory of its kernel; nothing reads it "
        "here; move it to configs/<kernel>/",
    ),
    "configs: a platform that is spelled otherwise": fault(
        all_of(
            change(lambda document: document.update(platform="NVIDIA-H200")),
            move(CONFIGS, f"configs/{KERNEL}/NVIDIA-H200.json"),
        ),
        "configs/silu_mul_fp8/NVIDIA-H200.json: KP202 'NVIDIA-H200' is not the name of a platform, "
        "so no GPU looks for it; rename it to 'nvidia_h200.json'",
        "KP208?",
    ),
    "configs: a platform that no GPU has": fault(
        all_of(copied("nvidia_h2000", "NVIDIA H2000"), without_times()),
        "configs/silu_mul_fp8/nvidia_h2000.json: KP202 unverified: 'nvidia_h2000' is not a GPU "
        "that kernelpkg knows, so no GPU may look for it; did you mean 'nvidia_h200'?",
    ),
    "configs: a variant that looks for its base": fault(
        all_of(copied("nvidia_h200_nvl", "NVIDIA H200"), without_times()),
        "configs/silu_mul_fp8/nvidia_h200_nvl.json: KP202 unverified: GPUs of this name look for "
        "'nvidia_h200', by [platforms] of the pack",
    ),
    "configs: a directory that leads nowhere": fault(
        all_of(move(f"configs/{KERNEL}", "elsewhere"), link(f"configs/{KERNEL}", "../not_there")),
        "configs/silu_mul_fp8: KP203 is a link to '../not_there', which is not there; correct or "
        "remove it",
        "KP208?",
    ),
    "configs: a file that leads nowhere": fault(
        all_of(delete(CONFIGS), link(CONFIGS, "nowhere.json")), "KP501"
    ),
    "configs: an op without a platform that others have": fault(
        delete(CONFIGS),
        f"{CONFIGS}: KP208 unverified: is not there, and 6 other ops of the pack have a file for "
        "nvidia_h200; calls on it take [helion] default; tune the op for it",
    ),
    # Config files.
    "file: cut off": fault(
        lambda root: (root / CONFIGS).write_text((root / CONFIGS).read_text()[:900]), "KP501"
    ),
    "file: unknown field": fault(change(lambda d: d.update(tunedwith={})), "KP502"),
    "file: no such config": fault(change(lambda d: d["cases"][0].update(config=99)), "KP503"),
    "file: one key twice": fault(change(lambda d: d["cases"].append(d["cases"][0])), "KP504"),
    "file: one key twice, once with a default left out": fault(
        change(lambda d: (d["cases"].append(case(1)), d["cases"][-1]["key"].pop("in_dtype"))),
        "KP504",
    ),
    "file: another kernel's": fault(change(lambda d: d.update(kernel=OTHERS[0])), "KP505"),
    "file: another platform's": fault(change(lambda d: d.update(platform="nvidia_h100")), "KP505"),
    "file: key of no axis": fault(key("tokens", 1), "KP506"),
    "file: newer edition": fault(change(lambda d: d.update(edition=2)), "KP507"),
    "file: no cases": fault(
        change(lambda d: d.update(cases=[])),
        f"{CONFIGS}:58: KP205 the file has no cases, so calls get what they would get without it; "
        "tune again, or remove it",
    ),
    "file: a config of no case": fault(
        change(lambda d: d["configs"].append({"block_sizes": [1], "num_warps": 1})),
        f"{CONFIGS}:57: KP206 config 6 is of no case; remove it",
    ),
    "file: a case of the grid lacks": fault(
        change(lambda d: d["cases"].pop(5)),
        f"{CONFIGS}: KP207 unverified: the file lacks 1 of 84 cases of the grid for 'tune' "
        "(intermediate_size=2048, num_tokens=32), whose calls take the config of another case, or "
        "a default; tune them",
    ),
    "file: only half of the grid": fault(change(lambda d: d.update(cases=d["cases"][::2])), GAP),
    # Configs.
    "config: three warps": fault(config(num_warps=3), "KP508"),
    "config: no stages": fault(config(num_stages=0), "KP508"),
    "config: a block of 48": fault(config(block_sizes=[48, 1]), "KP508"),
    "config: misspelt eviction": fault(config(load_eviction_policies=["frist"]), "KP508"),
    "config: misspelt program ids": fault(config(pid_type="flatt"), "KP508"),
    "config: unknown field": fault(config(num_warp=4), "KP502"),
    # Keys.
    "key: a size as a text": fault(
        key("num_tokens", "1"),
        f"{CONFIGS}:63: KP210 case 0, key: axis 'num_tokens' has value '1', which is a text, and "
        "must be a whole number; correct it, or tune again",
        GAP,
    ),
    "key: a size as true": fault(key("num_tokens", True), "KP210", GAP),
    "key: a size with a fraction": fault(key("num_tokens", 1.5), "KP210", GAP),
    "key: a size as a float": fault(key("num_tokens", 1.0), "KP210"),
    "key: no size": fault(key("num_tokens", None), "KP210", GAP),
    "key: no dtype": fault(key("in_dtype", "bf16"), "KP210", GAP),
    "key: a negative size": fault(
        key("num_tokens", -1),
        f"{CONFIGS}:59: KP211 case intermediate_size=2048, num_tokens=-1: 'num_tokens' of argument "
        "'input' is -1, and cannot be below zero; no call matches it, so remove it",
        GAP,
    ),
    "key: a dtype that a guard refuses": fault(
        key("in_dtype", "int8"),
        f"{CONFIGS}:59: KP211 case in_dtype=int8, intermediate_size=2048, num_tokens=1: guard "
        "'in_dtype in [bfloat16, float16, float32]' refuses it; no call matches it, so remove it",
        GAP,
    ),
    "key: a case of no grid": fault(
        add_case(16384),
        f"{CONFIGS}:815: KP215 case intermediate_size=2048, num_tokens=16384 is in no grid of "
        "[inputs] for 'tune'; add it to the grid, or remove it",
    ),
    "key: a case that no call reaches": fault(
        all_of(edit(MANIFEST, 'match = "ceil"', 'match = "pow2"'), add_case(24)),
        f"{CONFIGS}:815: KP212 no call gets case intermediate_size=2048, num_tokens=24: by the "
        "rules, one equal to it gets case intermediate_size=2048, num_tokens=32; remove it, or "
        "change the rules",
        "KP215",
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
        "KP212",
        "KP215",
    ),
    "key: a stray case that takes a range": fault(
        add_case(256, 7688),
        f"{CONFIGS}:815: KP214 case intermediate_size=7688, num_tokens=256 takes every call with "
        "in_dtype=bfloat16 and intermediate_size from 5893 to 7940, with 1 value of num_tokens, "
        "where 4096 has 14 and 8192 has 14; tune intermediate_size=7688 for as many as they are, "
        "or "
        "remove it",
        "KP215",
    ),
    "key: strays side by side": fault(
        change(lambda d: d["cases"].extend([case(256, 7688), case(16, 7700)])), "KP214", "KP215"
    ),
    "key: a stray case above all others": fault(add_case(1, 65536), "KP214", "KP215"),
    "key: a size of the grid that is hardly tuned": fault(
        change(
            lambda d: d.update(
                cases=[
                    c
                    for c in d["cases"]
                    if c["key"]["intermediate_size"] != 4096 or c["key"]["num_tokens"] == 64
                ]
            )
        ),
        "KP214",
        "KP206",
        GAP,
    ),
    # What files say of their making.
    "copy: names and GPU changed": fault(
        copied("nvidia_h100", "NVIDIA H100"),
        "configs/silu_mul_fp8/nvidia_h100.json: KP220 the file is a copy of that of nvidia_h200, "
        "or that one of this: 84 of 84 cases have the same config (6 distinct configs, and 84 "
        f"measured times) in {CONFIGS}; tune on each GPU, or remove the copy, whose calls then "
        "borrow",
        *alone(*OTHERS, platform="nvidia_h100"),
    ),
    "copy: names changed": fault(
        copied("nvidia_h100", None),
        "configs/fused_qk_norm_rope/nvidia_h100.json: KP208 unverified: is not there, and 1 other "
        "op of the pack has a file for nvidia_h100; calls on it borrow from nvidia_h200, then take "
        "[helion] default; tune the op for it",
        f"{H100} KP220",
        f"{H100} KP228",
        *alone(*OTHERS, platform="nvidia_h100"),
    ),
    "source: changed since it was tuned": fault(
        edit(SOURCE, "def silu_mul_fp8", "LIMIT = 448.0\n\n\ndef silu_mul_fp8"), "KP225?"
    ),
    "facts: no source": fault(
        fact("source", None),
        f"{CONFIGS}:5: KP226 unverified: tuned_with does not say which source 84 cases were tuned "
        "for, so it may have changed since; tune again",
    ),
    "facts: a source that is not a digest": fault(
        fact("source", "v1"),
        f"{CONFIGS}:10: KP227 tuned_with: source is 'v1', and must be sha256- and 64 hex digits; "
        "tune again",
    ),
    "facts: a version that is none": fault(
        fact("triton", "three"),
        f"{CONFIGS}:12: KP227 tuned_with: triton is 'three', which is not a version; correct it, "
        "or tune again",
    ),
    "facts: a version of too many digits": fault(fact("torch", f"2.{'9' * 5000}"), "KP227"),
    "facts: another GPU": fault(
        fact("gpu", "NVIDIA B200"),
        f"{CONFIGS}:8: KP228 tuned_with: gpu is 'NVIDIA B200', whose platform is nvidia_b200, and "
        "the file is of nvidia_h200; move it where it belongs, or tune again",
    ),
    "facts: a date that is none": fault(
        fact("date", "22.11.2026"),
        f"{CONFIGS}:6: KP229 unverified: tuned_with: date is '22.11.2026', which is not an ISO "
        "date; correct it",
    ),
    "facts: a date to come": fault(
        fact("date", "2126-11-22"),
        f"{CONFIGS}:6: KP229 unverified: tuned_with: date is '2126-11-22', which is after today "
        "(2026-11-30); correct it",
    ),
    "run: of another source": fault(
        change(lambda d: run_of_one(d, {"source": f"sha256-{'0' * 64}"})),
        f"{CONFIGS}:819: KP225 unverified: 1 case was tuned for another source: kernel.py has "
        "changed since (sha256-00000000… then, sha256-86f0f03b… now), so other configs may be "
        "faster now; tune again",
    ),
    "run: of another GPU": fault(
        change(lambda d: run_of_one(d, {**d["tuned_with"], "gpu": "NVIDIA A100"})),
        "KP228",
    ),
    "run: not there": fault(change(lambda d: d["cases"][3].update(run=7)), "KP503"),
    "times: none at all": fault(
        times(ms=0),
        f"{CONFIGS}:66: KP230 case intermediate_size=2048, num_tokens=1: ms is 0, and must be "
        "above 0; tune again",
    ),
    "times: below zero": fault(times(default_ms=-0.004), "KP230"),
    "times: slower than the default": fault(
        times(ms=0.009, default_ms=0.004),
        f"{CONFIGS}:67: KP231 case intermediate_size=2048, num_tokens=1: its config takes 0.009 ms "
        "and the default config 0.004 ms, so it should not have been chosen; tune again",
    ),
    "times: slower than before": fault(times(ms=0.009, old_ms=0.004), "KP231"),
}
