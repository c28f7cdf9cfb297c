"""Faults that level 3 of `check` alone can find, one planted in each kernel of a pack.

All run in one check: each process that a fault ends has to import Helion again.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kernelpkg.check.level0 import check_static
from kernelpkg.check.level3 import check_runs
from kernelpkg.errors import Checked
from kernelpkg.manifest.spec import KernelSpec, PackSpec
from kernelpkg.packs.read import read_kernel, read_pack

CONFIGS = """\
{
  "edition": 1,
  "kernel": "NAME",
  "platform": "nvidia_h200",
  "tuned_with": {},
  "configs": [{"block_sizes": [16], "num_warps": 4}],
  "cases": [
    {"key": {"num_tokens": 16}, "config": 0},
    {"key": {"num_tokens": 64}, "config": 0}
  ]
}
"""

LOOP = "    for tile in hl.tile(input.size(0)):\n"
FLAT = "    flat = input.reshape(-1)\n"  # a view, as level 0 cannot know
HEAD = "    out = torch.empty_like(input)\n"
TIMES_TWO = "input[tile] * 2"
OTHER = "correct the kernel, its reference or what the manifest says of them"
AFTER_ONE = (
    "    SEEN.append(input.size(0))\n    wrong = SEEN[-1] > 1 and 1 in SEEN[-2:]\n"
    f"{HEAD}    input = input + 1 if wrong else input\n"
)
RAISES = f"    if input.size(0) == 64:\n        raise ValueError('not\\n64')\n{HEAD}"

FAKE = """

def fake(input: torch.Tensor) -> torch.Tensor:
    return input.new_empty(input.shape[0] + 1)
"""
VARIANTS = (
    ('shape[0]"\n', 'shape[0]"\ndtype = "input.dtype"\n'),
    ("[[key]]\n", '[[key]]\naxis = "dtype"\nmatch = "exact"\n[[key]]\n'),
    ("num_tokens = [1, 4]\n", 'num_tokens = [1, 4]\ndtype = ["float32", "bfloat16"]\n'),
    ('dtype = "float32" }', 'dtype = "dtype" }'),
)

Fault = tuple[tuple[str, str, str], tuple[str, ...]]


def fault(file: str, old: str, new: str, *lines: str) -> Fault:
    """Return what stands in a kernel's file instead of a text, and patterns of what is found."""
    return (file, old, new), lines


FAULTS: dict[str, Fault] = {
    "clean": fault("kernel.py", HEAD, HEAD),
    "gap": fault("kernel.py", LOOP, f"{LOOP}        hl.jagged_tile(input)\n"),
    "prints": fault("kernel.py", HEAD, f"    print('{{}}')\n{HEAD}"),
    "off_grid": fault(
        *("kernel.py", TIMES_TWO, "input[tile] * (2 if input.size(0) % 16 == 0 else 3)"),
        r"kernels/off_grid/kernel.toml:2: KP261 call num_tokens=8, interpreted and 2 "
        r"more: return\[0\] .*",
    ),
    "after_one": fault(
        *("kernel.py", HEAD, AFTER_ONE),
        r"kernels/after_one/kernel.toml:2: KP262 calls num_tokens=1 and then 4, interpreted: the "
        r"second call: return\[0\] is .*; 4 of 4 are off.*",
    ),
    "reference": fault(
        *("host.py", "input * 2", "input * 2.5"),
        r"configs/reference/nvidia_h200.json:8: KP260 case num_tokens=16, interpreted and 1 more: "
        rf"return\[0\] is .*, the reference's .* \(rtol 1e-06, atol 0\); 16 of 16 are off; {OTHER}",
    ),
    "writes": fault(
        *("kernel.py", LOOP, f"{FLAT}{LOOP}        flat[tile] = input[tile] + 1\n"),
        r"configs/writes/nvidia_h200.json:8: KP260 case num_tokens=16, .*input\[0\] is .*; 16 of "
        rf"16 are off; the schema does not allow the op to write it; {OTHER}",
        r"kernels/writes/kernel.toml:2: KP263 call num_tokens=\d+, interpreted.*: opcheck "
        rf"test_schema: .*; {OTHER}",
    ),
    "fake": fault(
        *("kernel.toml", 'fake_impl = "infer"', 'fake_impl = "host.py:fake"'),
        r"kernels/fake/kernel.toml:2: KP263 call num_tokens=1, interpreted and 2 more: opcheck "
        rf"test_faketensor: .*Size\(\[1\]\) and torch.Size\(\[2\]\) are not equal!; {OTHER}",
    ),
    "hangs": fault(
        *("kernel.py", HEAD, f"    while input.size(0) == 64:\n        pass\n{HEAD}"),
        r"configs/hangs/nvidia_h200.json:9: KP264 case num_tokens=64, interpreted: takes longer "
        r"than 12 s; it hangs, and was stopped; correct the kernel",
    ),
    "dies": fault(
        *("kernel.py", HEAD, f"    if input.size(0) == 64:\n        os.abort()\n{HEAD}"),
        r"configs/dies/nvidia_h200.json:9: KP264 case num_tokens=64, interpreted: its process was "
        r"ended by SIGABRT.*; correct the kernel",
    ),
    "raises": fault(
        *("kernel.py", HEAD, RAISES),
        r"configs/raises/nvidia_h200.json:9: KP260 case num_tokens=64, interpreted: ValueError: "
        rf"not 64 \(kernel.py:11\); {OTHER}",
    ),
    "imports": fault(
        *("kernel.py", "import torch\n", "import torch\n\nraise OSError('no library')\n"),
        r"kernels/imports/kernel.py:6: KP114 fails to import: OSError: no library",
    ),
    "variant": fault(
        *("kernel.py", TIMES_TWO, "input[tile] * (2 if input.dtype == torch.float32 else 3)"),
        r"kernels/variant/kernel.toml:\d+: KP261 call num_tokens=4, dtype=bfloat16, interpreted: "
        r"return\[0\] .*",
    ),
}


def plant(demo: Any, name: str) -> None:
    """Write a kernel with its fault and its configs."""
    directory = demo.kernel(name)
    demo.configs(name, CONFIGS)
    demo.edit(f"kernels/{name}/kernel.py", "import torch\n", "import torch\n\nSEEN = []\n")
    demo.edit(f"kernels/{name}/kernel.py", "import helion", "import os\n\nimport helion")
    with (directory / "host.py").open("a") as host:
        host.write(FAKE)
    file, old, new = FAULTS[name][0]
    demo.edit(f"kernels/{name}/{file}", old, new)
    if name == "variant":
        for old, new in VARIANTS:
            demo.edit(f"kernels/{name}/kernel.toml", old, new)
        demo.edit(f"configs/{name}/nvidia_h200.json", '{"num', '{"dtype": "float32", "num')


@pytest.fixture(scope="module")
def planted(
    new_pack: Callable[[Path], Any], tmp_path_factory: pytest.TempPathFactory
) -> tuple[PackSpec, list[KernelSpec]]:
    """A pack with all of the faults, and its kernels."""
    demo = new_pack(tmp_path_factory.mktemp("planted"))
    for name in FAULTS:
        plant(demo, name)
    pack = read_pack(demo.root, "demo")
    return pack, [read_kernel(demo.root, name) for name in pack.kernels]


@pytest.fixture(scope="module")
def found(planted: tuple[PackSpec, list[KernelSpec]]) -> Checked:
    """What level 3 finds in the pack."""
    return check_runs(*planted, device="cpu", jobs=1, seconds=12)


@pytest.mark.parametrize("name", FAULTS)
def test_the_fault_is_found_where_it_is(name: str, found: Checked) -> None:
    """Each line that is wanted is there, and nothing is said of a kernel without a fault."""
    lines = [
        str(finding)
        for finding in found.findings
        if finding.severity == "error" and finding.path.split("/")[1] == name
    ]
    wanted = FAULTS[name][1]
    missing = [line for line in wanted if not any(re.fullmatch(line, got) for got in lines)]
    assert (missing, bool(lines)) == ([], bool(wanted)), lines


def test_what_the_interpreter_lacks_is_one_line(found: Checked) -> None:
    """All calls of the kernel are in it, and none of them is an error."""
    lines = [str(finding) for finding in found.findings if finding.path.startswith("kernels/gap")]
    (line,) = lines
    assert re.fullmatch(
        r"kernels/gap/kernel.py:12: KP269 unverified: 1\d calls are not run: the interpreter of "
        r"Helion [\d.]+ cannot run 'hl.jagged_tile\(input\)': AssertionError: jagged_tile does not "
        r"have a ref mode implementation yet; check it on a GPU",
        line,
    )


def test_other_calls_go_on(found: Checked) -> None:
    """A kernel that hangs or kills its process loses that call alone."""
    ended = [str(finding) for finding in found.findings if finding.code == "KP264"]
    assert len(ended) == 2
    assert not [finding for finding in found.findings if finding.code in ("KP265", "KP268")]


def test_reading_the_files_tells_none_of_them(planted: tuple[PackSpec, list[KernelSpec]]) -> None:
    """Level 0 says of each kernel what it says of the one without a fault: its cases are few."""
    pack, _ = planted
    today = datetime.date(2026, 11, 22)
    checked, _ = check_static(pack, pack.kernels, (), today, lambda *_: None)
    said: dict[str, list[str]] = {name: [] for name in FAULTS}
    for finding in checked.findings:
        name = finding.path.split("/")[1]
        if name in said:
            said[name].append(finding.code)
    assert said == dict.fromkeys(FAULTS, said["clean"])
