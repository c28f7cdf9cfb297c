"""Whole files of vendored ops: their parts in order, linted, and the same on every machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path, PurePosixPath

import pytest
from attrs import evolve

from kernelpkg.errors import PackError
from kernelpkg.manifest.spec import Accuracy
from kernelpkg.packs.read import read_kernel, read_pack
from kernelpkg.vllm.tree import HELION
from kernelpkg.vllm.vendor.op_file import write_op
from kernelpkg.vllm.vendor.vendor import plan_vendoring

ROOT = Path(__file__).parents[3]

GOLDEN = ROOT / "tests" / "golden" / "vendored"
"""A pack whose two kernels have everything, and what is vendored of it."""


def text_of(pack, name="twice"):
    return write_op(read_kernel(pack.root, name), "Where it is from.", "MIT", "shared").text


def vendored(vllm, root, name):
    """Vendor a pack; returns its files below vLLM's Helion folder, without the record."""
    found = plan_vendoring(read_pack(root, name), vllm)
    found.carry_out(replace=True)
    return {str(PurePosixPath(path).relative_to(HELION)) for path in found.record.files}


def test_the_golden_tree(vllm):
    """The files as maintainers of vLLM review them; KERNELPKG_WRITE_GOLDEN=1 writes them anew."""
    paths = vendored(vllm, GOLDEN / "pack", "golden") - {"golden_rules.py"}  # it is a copy
    texts = {path: (vllm / HELION / path).read_text() for path in paths}
    if os.environ.get("KERNELPKG_WRITE_GOLDEN"):
        shutil.rmtree(GOLDEN / "tree", ignore_errors=True)
        for path, text in texts.items():
            (GOLDEN / "tree" / path).parent.mkdir(parents=True, exist_ok=True)
            (GOLDEN / "tree" / path).write_text(text)
    golden = {path for path in (GOLDEN / "tree").rglob("*") if path.is_file()}
    want = {path.relative_to(GOLDEN / "tree").as_posix(): path.read_text() for path in golden}
    assert texts.keys() == want.keys()
    for path, text in want.items():
        assert texts[path] == text


def lint(vllm, root, name):
    """Vendor a pack, and hold its files against ruff with most of its rules, and its formatter."""
    paths = [path for path in vendored(vllm, root, name) if path.endswith(".py")]
    files = [str(vllm / HELION / path) for path in paths]
    common = ["--isolated", "--line-length", "88", "--target-version", "py311", *files]
    rules = "E,F,UP,B,ISC,SIM,I,G,ANN001,ANN201,ANN202"
    (vllm / "vllm/kernels/__init__.py").touch()  # or else ruff takes Helion itself for this folder
    for words in (["check", "--select", rules], ["format", "--check"]):
        command = [sys.executable, "-m", "ruff", *words, *common]
        done = subprocess.run(command, cwd=vllm, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    assert len(files) == len(read_pack(root, name).kernels) + 1


@pytest.mark.parametrize(
    ("root", "name"), [(ROOT, "kernelpkg"), (GOLDEN / "pack", "golden")], ids=["first", "golden"]
)
def test_a_vendored_pack_passes_the_linters(vllm, root, name):
    """Those that vLLM runs, over what the ops share too."""
    lint(vllm, root, name)


@pytest.mark.parametrize("name", read_pack(ROOT, "kernelpkg").kernels)
def test_an_op_of_the_first_pack_needs_nothing_of_ours(name):
    """One size of it may be 1 or larger, the number of tokens."""
    op = write_op(read_kernel(ROOT, name), "From the first pack.", "Apache-2.0", "shared")
    assert op.free == ("num_tokens",)
    assert "kernelpkg" not in op.text


def test_the_text_is_the_same_on_every_run(tmp_path):
    """Whatever order sets have in a process."""
    code = (
        "import sys; from pathlib import Path; from kernelpkg.packs.read import read_kernel;"
        "from kernelpkg.vllm.vendor.op_file import write_op;"
        "from kernelpkg.vllm.vendor.op_picker import write_shared;"
        "spec = read_kernel(Path(sys.argv[1]), 'fused_qk_norm_rope');"
        "print(write_op(spec, 'x', 'MIT', 'shared').text, write_shared('x'))"
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


PROBLEMS = {
    "a rule": (
        "kernels/twice/kernel.toml", 'num_tokens = "input.shape[0]"', 'default = "input.shape[0]"',
        "KP813 kernel 'twice': axis 'default' has the name that marks default entries; rename it",
    ),
    "a fake implementation": (
        "kernels/twice/kernel.py", "torch.empty_like(input)", "hl.zeros([4])",
        (
            "KP813 kernel 'twice': its results depend on hl.zeros (line 6), so its fake "
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


def with_constant(demo, kind, value):
    """Give the kernel a constant, by the name of its kind."""
    toml, name = "kernels/twice/kernel.toml", f"{kind}_"
    demo.edit(toml, "(Tensor input", f"(Tensor input, {kind} {name}")
    demo.edit(toml, "[axes]\n", f'[axes]\n{name} = "{name}"\n')
    rule = '[[key]]\naxis = "num_tokens"\n'
    demo.edit(toml, rule, f"[[key]]\naxis = '{name}'\nmatch = 'exact'\n{rule}")
    demo.edit(toml, "num_tokens = [1, 4]\n", f"num_tokens = [1, 4]\n{name} = [{value}]\n")
    for file, hint in (("kernel.py", "hl.constexpr"), ("host.py", kind)):
        old = "(input: torch.Tensor"
        demo.edit(f"kernels/twice/{file}", old, f"{old}, {name}: {hint}")


def test_constants_are_plain_arguments(demo):
    """vLLM makes a schema of annotations: a number is made a constant within, a text is one."""
    with_constant(demo, "str", "'up'")
    with_constant(demo, "int", 3)
    text = text_of(demo)
    assert "def twice(input: torch.Tensor, int_: int, str_: str) -> torch.Tensor:\n" in text
    assert "def fake_impl(input: torch.Tensor, int_: int, str_: str) -> torch.Tensor:\n" in text
    assert text.count("    int_ = hl.specialize(int_)\n    out = torch.empty_like(input)\n") == 1
    assert "constexpr" not in text


def test_a_flag_is_no_constant_in_vllm(demo):
    with_constant(demo, "bool", "true")
    with pytest.raises(PackError) as caught:
        text_of(demo)
    assert str(caught.value) == (
        "kernels/twice/kernel.toml: KP813 kernel 'twice': argument 'bool_' is a flag and "
        "hl.constexpr, which no op of vLLM can be; let it be a whole number, or leave the kernel "
        "out"
    )


def test_a_fake_implementation_of_the_kernels_own_is_registered(demo):
    demo.edit("kernels/twice/kernel.toml", '"infer"', '"host.py:fake"')
    path = demo.root / "kernels/twice/host.py"
    path.write_text(path.read_text() + "\n\ndef fake(input):\n    return input\n")
    assert "    fake_impl=fake,\n" in text_of(demo)


def test_a_reference_that_is_the_fake_implementation_too_has_one_name(demo):
    """Both are named in the registration; vLLM's name would be that of one of them alone."""
    demo.edit("kernels/twice/kernel.toml", '"infer"', '"host.py:reference"')
    text = text_of(demo)
    assert "def reference(" in text
    assert "    fake_impl=reference,\n" in text
    assert "autotune_baseline_fn=reference,\n" in text


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
    """What JSON does not know has no spelling in a call, and a name is not code."""
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
    text = write_op(spec, "x\nimport os", "MIT\nimport os", "shared").text
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
    line = (
        "kernels/twice/kernel.toml: KP814 kernel 'twice': size 0 of 'input', num_tokens // 2, may "
    )
    assert str(caught.value).startswith(line)


def near(name, **changes):
    """Return what an op of the first pack says of its accuracy, with the default dtype's last."""
    text = write_op(evolve(read_kernel(ROOT, name), **changes), "x", "MIT", "shared").text
    _, _, table = text.partition("TOLERANCES = ")
    settings = [line.strip() for line in text.split("\n") if " autotune_baseline_" in line]
    return " ".join(table.partition("}\n")[0].split()).strip("{ ,"), settings[1:]


CHECK = ["autotune_baseline_accuracy_check_fn=AccuracyCheck(TOLERANCES),"]


def test_codes_get_tolerances_by_dtype():
    """Those that the cases have, or that the source names; a scale may be two roundings off."""
    e4m3, int8 = "torch.float8_e4m3fn: (0.125, 2**-9)", "torch.int8: (0.0, 2 * 1.0)"
    found = near("rms_norm_per_block_quant")
    assert found == (f"{e4m3}, {int8}, None: (0.015625, 0.0)", CHECK)
    assert near("silu_mul_fp8") == (f"{e4m3}, None: (0.0, 0.0)", CHECK)
    twice = {"return": Accuracy(steps=2, equal=0.9)}
    wider, _ = near("silu_mul_fp8", accuracy=twice)
    assert wider == "torch.float8_e4m3fn: (0.25, 2 * 2**-9), None: (0.0, 0.0)"


def test_codes_that_nothing_names_have_them_all(demo):
    demo.edit("kernels/twice/kernel.toml", "rtol = 1e-6", "steps = 1")
    text = text_of(demo)
    assert text.count("    torch.float8_") == 4
    assert "    torch.int8: (0.0, 1.0),\n" in text
    assert "(input: torch.Tensor) -> torch.Tensor:\n    assert input.ndim == 1, " in text


def test_other_results_get_settings_of_helion():
    settings = ["autotune_baseline_atol=0.02,", "autotune_baseline_rtol=0.02,"]
    assert near("fused_qk_norm_rope") == ("", settings)


@pytest.mark.parametrize("name", ["autotune_baseline_atol", "autotune_baseline_accuracy_check_fn"])
def test_a_manifest_that_says_how_near_has_the_last_word(name):
    found = near("rms_norm_per_block_quant", settings={name: 1.0})
    assert found == ("", [f"{name}=1.0,"])
