"""Whole files of vendored ops: their parts in order, linted, and the same on every machine."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from kernelpkg.errors import PackError
from kernelpkg.packs.read import read_kernel, read_pack
from kernelpkg.vllm.vendor.op_file import write_op

ROOT = Path(__file__).parents[3]

TWICE = '''\
# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: Copyright contributors to the vLLM project
# Where it is from.
"""Twice the input."""

from typing import Any

import torch

from vllm.kernels.helion.case_key import CaseKey
from vllm.utils.import_utils import has_helion

if not has_helion():
    raise ImportError("Helion is not installed: pip install helion")

import helion
import helion.language as hl

from vllm.kernels.helion.register import register_kernel


def make_case_inputs(device: str, *, num_tokens: int) -> tuple[Any, ...]:
    """Return the arguments of a call with these facts, in order."""
    input = torch.randn(num_tokens, dtype=torch.float32, device=device)
    return (input,)


def generate_inputs() -> dict[CaseKey, tuple[Any, ...]]:
    """Return the arguments of every case that is tuned, by its key."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    inputs: dict[CaseKey, tuple[Any, ...]] = {}
    for num_tokens in [1, 4]:
        key = CaseKey({"num_tokens": num_tokens})
        inputs[key] = make_case_inputs(device, num_tokens=num_tokens)
    return inputs


PICKER


def fake_impl(input: torch.Tensor) -> torch.Tensor:
    """Return what the op does, with nothing in it: its host code without its loops."""
    out = torch.empty_like(input)
    return out


def baseline(input: torch.Tensor) -> torch.Tensor:
    return input * 2


@register_kernel(
    config_picker=pick_config,
    input_generator=generate_inputs,
    fake_impl=fake_impl,
    helion_settings=helion.Settings(
        autotune_baseline_fn=baseline,
        autotune_baseline_atol=0.0,
        autotune_baseline_rtol=1e-06,
        ignore_warnings=[helion.exc.TensorOperationInWrapper],
        static_shapes=False,
    ),
)
def twice(input: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(input)
    for tile in hl.tile(input.size(0)):
        out[tile] = input[tile] * 2
    return out
'''


def text_of(pack, name="twice"):
    return write_op(read_kernel(pack.root, name), "Where it is from.", "MIT").text


def test_a_whole_file(demo):
    """All parts of a small kernel; its picker is told of elsewhere."""
    text = text_of(demo)
    start, end = text.index("# What pick_config"), text.index("def fake_impl")
    assert text[:start] + "PICKER\n\n\n" + text[end:] == TWICE


def lint(folder, text, name):
    """Return what ruff says of a file in a tree of vLLM's sources."""
    for module in ("kernels/helion/case_key", "kernels/helion/register", "utils/import_utils"):
        path = folder / "vllm" / f"{module}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    file = folder / "vllm/kernels/helion/ops" / f"{name}.py"
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    rules = "E,F,UP,B,ISC,SIM,I,G,ANN001,ANN201,ANN202"
    found = ""
    for words in (["check", "--select", rules], ["format", "--check"]):
        ruff = [sys.executable, "-m", "ruff", *words, "--isolated", "--line-length", "88"]
        done = subprocess.run(
            [*ruff, str(file)], cwd=folder, capture_output=True, text=True, check=False
        )
        found += "" if done.returncode == 0 else done.stdout + done.stderr
    return found


@pytest.mark.parametrize("name", read_pack(ROOT, "kernelpkg").kernels)
def test_the_first_pack_passes_the_linters(tmp_path, name):
    """Those that vLLM runs: ruff with most of its rules, and its formatter."""
    op = write_op(read_kernel(ROOT, name), "From the first pack.", "Apache-2.0")
    assert lint(tmp_path, op.text, name) == ""
    assert op.free == ("num_tokens",)
    assert "kernelpkg" not in op.text


def test_a_kernel_with_everything_passes_the_linters(tmp_path, demo):
    """Settings, helpers, a schema with defaults, axes that may be absent, all ways out at once."""
    directory = demo.root / "kernels" / "twice"
    (directory / "kernel.toml").write_text(MANY["kernel.toml"])
    (directory / "kernel.py").write_text(MANY["kernel.py"])
    (directory / "host.py").write_text(MANY["host.py"])
    text = text_of(demo)
    assert lint(tmp_path, text, "twice") == ""
    assert text[text.index("@register_kernel") :].startswith(REGISTRATION)
    compile(text, "twice.py", "exec")


MANY = {
    "kernel.toml": """\
edition = 1
[kernel]
name = "twice"
version = 3
summary = "Twice the \\\\ input."
source = "kernel.py:double"
picker = "host.py:choose"
[op]
schema = "(Tensor(a!) out, Tensor input, Tensor? bias=None, int axis=1, float eps=1e-6) -> Tensor"
fake_impl = "host.py:fake"
[helion]
specialize = ["axis"]
[helion.settings]
ignore_warnings = ["TensorOperationInWrapper", "WrongDevice"]
print_repro = true
autotune_ignore_errors = false
autotune_seed_configs = [{ num_warps = 4 }]
[axes]
num_tokens = "input.shape[0]"
axis = "axis"
has_bias = "bias is not None"
bias_size = "bias.shape[0]"
[[key]]
axis = ["has_bias", "bias_size"]
match = "exact"
[[key]]
axis = ["axis", "num_tokens"]
match = "ceil"
[inputs]
generator = "host.py:make"
default = { bias_size = 4, axis = 1 }
[[inputs.grid]]
num_tokens = [1, 4]
has_bias = [true]
[args]
out = { shape = ["num_tokens"], dtype = "float32" }
input = { shape = ["num_tokens"], dtype = "float32" }
bias = { when = "has_bias", shape = ["bias_size"], dtype = "float32" }
eps = 1e-6
[accuracy]
out = { rtol = 1e-6 }
return = { rtol = 1e-6 }
""",
    "kernel.py": """\
import helion
import helion.language as hl
import torch

BLOCK = helion.next_power_of_2(3)


def double(
    out: torch.Tensor,
    input: torch.Tensor,
    bias: torch.Tensor | None = None,
    axis: int = 1,
    eps: float = 1e-6,
) -> torch.Tensor:
    result = torch.empty_like(input)
    hl.specialize(axis)
    for tile in hl.tile(input.size(0), block_size=BLOCK):
        out[tile] = input[tile] * 2 + eps
        result[tile] = out[tile]
    return result
""",
    "host.py": """\
from collections.abc import Mapping, Sequence
from typing import Any

import torch


def reference(
    out: torch.Tensor,
    input: torch.Tensor,
    bias: torch.Tensor | None = None,
    axis: int = 1,
    eps: float = 1e-6,
) -> torch.Tensor:
    return out.copy_(input * 2)


def fake(
    out: torch.Tensor,
    input: torch.Tensor,
    bias: torch.Tensor | None = None,
    axis: int = 1,
    eps: float = 1e-6,
) -> torch.Tensor:
    return torch.empty_like(input)


def choose(
    args: Sequence[Any], keys: Sequence[Mapping[str, Any]]
) -> Mapping[str, Any] | None:
    return keys[0]


def make(
    axes: Mapping[str, Any], generator: torch.Generator, device: torch.device
) -> tuple[Any, ...]:
    x = torch.ones(axes["num_tokens"], device=device)
    return x, x, x, 1, 1e-6
""",
}  # fmt: skip

REGISTRATION = """\
@register_kernel(
    "twice",
    mutates_args=["out"],
    config_picker=pick_config,
    input_generator=generate_inputs,
    fake_impl=fake,
    helion_settings=helion.Settings(
        autotune_baseline_fn=baseline,
        autotune_baseline_atol=0.0,
        autotune_baseline_rtol=1e-06,
        print_repro=True,
        autotune_ignore_errors=False,
        autotune_seed_configs=[{"num_warps": 4}],
        ignore_warnings=[helion.exc.TensorOperationInWrapper, helion.exc.WrongDevice],
        static_shapes=False,
    ),
)
def double(
"""


def test_the_text_is_the_same_on_every_run(tmp_path):
    """Whatever order sets have in a process."""
    code = (
        "import sys; from pathlib import Path; from kernelpkg.packs.read import read_kernel;"
        "from kernelpkg.vllm.vendor.op_file import write_op;"
        "print(write_op(read_kernel(Path(sys.argv[1]), 'fused_qk_norm_rope'), 'x', 'MIT').text)"
    )
    texts = {
        subprocess.run(
            [sys.executable, "-c", code, str(ROOT)],
            cwd=ROOT,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(texts) == 1


HOST_CODE = """\
    out = torch.empty(
        [hl.specialize(input.size(0))],
        dtype=input.dtype,
        device="cpu",
        pin_memory=False,
        layout=torch.strided,
    )
    if hl.specialize(input.size(0)) > 4:
        out = input.new_empty(1)
    out = out.contiguous(  # as it was
        memory_format=torch.contiguous_format
    )
    hl.specialize(input.size(0))
    for size in out.shape:
        out = out.view(hl.specialize(size), -1)
"""
FAKE = """\
def fake_impl(input: torch.Tensor) -> torch.Tensor:
    \"\"\"Return what the op does, with nothing in it: its host code without its loops.\"\"\"
    out = torch.empty(
        [input.size(0)],
        dtype=input.dtype,
        device="cpu",
        pin_memory=False,
        layout=torch.strided,
    )
    if input.size(0) > 4:
        out = input.new_empty(1)
    out = out.contiguous(  # as it was
        memory_format=torch.contiguous_format
    )
    for size in out.shape:
        out = out.view(size, -1)
    return out
"""


def test_changed_statements_of_a_fake_implementation_are_laid_out(tmp_path, demo):
    """Those that lose a `hl.specialize` are written anew, as ruff has it; others stay."""
    demo.edit("kernels/twice/kernel.py", "    out = torch.empty_like(input)\n", HOST_CODE)
    text = text_of(demo)
    start = text.index("def fake_impl")
    assert text[start : text.index("\n\n\n", start)] + "\n" == FAKE
    assert lint(tmp_path, text, "twice") == ""


PROBLEMS = {
    "a rule": (
        "kernels/twice/kernel.toml", 'num_tokens = "input.shape[0]"', 'default = "input.shape[0]"',
        "KP813 kernel 'twice': axis 'default' has the name that marks default entries; rename it",
    ),
    "a fake implementation": (
        "kernels/twice/kernel.py", "torch.empty_like(input)", "hl.zeros([4])",
        (
            "KP813 kernel 'twice': its host part calls hl.zeros (line 6), so its fake "
            "implementation cannot be inferred; give one in [op] fake_impl"
        ),
    ),
    "a result that a tile loop makes": (
        "kernels/twice/kernel.py", "    return out", "    return tile",
        (
            "KP813 kernel 'twice': its result needs 'tile', which a tile loop makes, so its fake "
            "implementation cannot be inferred; give one in [op] fake_impl"
        ),
    ),
    "a name that is too long": (
        "kernels/twice/kernel.toml",
        'num_tokens = "input.shape[0]"',
        f'{"t" * 80} = "input.shape[0]"',
        (
            "KP813 kernel 'twice': a line of its file would be too long for vLLM's 88 columns; "
            f'shorten what is in it: {"t" * 80}: int,'
        ),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("file", "old", "new", "want"), PROBLEMS.values(), ids=PROBLEMS)
def test_what_cannot_be_written(demo, file, old, new, want):
    """A line with the kernel, the reason and the remedy."""
    demo.edit(file, old, new)
    name = new.partition(" ")[0]
    if file.endswith(".toml"):
        path = demo.root / file
        text = path.read_text().replace('axis = "num_tokens"', f'axis = "{name}"')
        text = text.replace("num_tokens = [1, 4]", f"{name} = [1, 4]")
        path.write_text(text.replace('["num_tokens"]', f'["{name}"]'))
    with pytest.raises(PackError) as caught:
        text_of(demo)
    assert str(caught.value) == f"kernels/twice/kernel.toml: {want}"


SETTINGS = {
    "a date": (
        "{ x = 2026-11-22 }", "setting x has datetime.date(2026, 11, 22); give a plain value",
    ),
    "infinity": ("{ x = { y = [inf] } }", "setting x has inf; give a plain value"),
    "no names": ('{ ignore_warnings = "A" }', None),
    "code": (
        '{ ignore_warnings = ["A, B"] }',
        "setting ignore_warnings is ['A, B']; give names of warnings",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("settings", "want"), SETTINGS.values(), ids=SETTINGS)
def test_settings_are_plain_values(demo, settings, want):
    """What JSON does not know has no spelling in a call, and a name is no code."""
    demo.edit("kernels/twice/kernel.toml", "[axes]", f"settings = {settings}\n[axes]")
    if want is None:
        assert "helion.exc.A]" in text_of(demo)
        return
    with pytest.raises(PackError) as caught:
        text_of(demo)
    assert str(caught.value) == f"kernels/twice/kernel.toml: KP813 kernel 'twice': {want}"


@pytest.mark.parametrize(
    ("summary", "line"),
    [
        pytest.param('"""\nTwo\nlines."""', '"""Two lines."""', id="lines"),
        pytest.param('""', '"""twice"""', id="empty"),
        pytest.param('\'"""; import os; """\'', "\"\"\"'''; import os; '''\"\"\"", id="quotes"),
    ],
)
def test_a_summary_is_a_docstring_whatever_it_says(demo, summary, line):
    demo.edit("kernels/twice/kernel.toml", '"Twice the input."', summary)
    assert text_of(demo).split("\n")[3] == line


def test_a_license_is_a_comment_whatever_it_says(demo):
    spec = read_kernel(demo.root, "twice")
    text = write_op(spec, "x\nimport os", "MIT\nimport os").text
    assert text.split("\n")[:3] == [
        "# SPDX-License-Identifier: MIT import os",
        "# SPDX-FileCopyrightText: Copyright contributors to the vLLM project",
        "# x import os",
    ]


def test_sizes_that_no_case_keeps_apart(demo):
    demo.edit("kernels/twice/kernel.toml", '["num_tokens"]', '["num_tokens // 2"]')
    demo.edit("kernels/twice/kernel.toml", '"input.shape[0]"', '"input.shape[0] * 2"')
    demo.edit("kernels/twice/kernel.toml", "[1, 4]", "[2, 4]")
    with pytest.raises(PackError) as caught:
        text_of(demo)
    assert str(caught.value) == (
        "kernels/twice/kernel.toml: KP814 kernel 'twice': size 0 of 'input', num_tokens // 2, may "
        "be 1 or larger, and whether it is does not follow from num_tokens being 1 (for instance "
        "with num_tokens=4); fix it with hl.specialize in the kernel, and name what it fixes in "
        "[helion] specialize"
    )
