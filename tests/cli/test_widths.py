"""Every command on terminals of 80 and 120 columns: no line is wider, and colours only where asked.

The commands that import PyTorch are in tests/helion/cli/test_widths.py.
"""

from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.cells import cell_len

TERMINAL = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("test_terminal.py"))))
ROOT = TERMINAL.ROOT

RUN = """
from kernelpkg.cli import main
for words in {commands!r}:
    print("$", words[0])
    main(words)
"""

OWN = (
    "list -v",
    "show rms_norm_dynamic_per_token_quant",
    "explain silu_mul_fp8 num_tokens=3 intermediate_size=4097 --platform nvidia_h100",
    "explain silu_mul_fp8 --platform nvidia_h200",
    "coverage",
    "coverage rms_norm_per_block_quant --platform nvidia_h100",
    "check --platform nvidia_b200",
    "check -v",
    "lock --check --no-fingerprints",
    "autotune fused_qk_norm_rope --dry-run --platform nvidia_h200",
    "autotune --platform nvidia_h20O",
    "build --check --platform nvidia_h200",
    "vendor --into {work}",
    "export vllm {work} --dry-run",
    "import vllm {work}",
)
"""On the first pack, whose names are long."""

BROKEN = (
    "list",
    "check",
    "check -q",
    "test thrice",
    "coverage --platform nvidia_h200",
    "lock --no-fingerprints",
    "report --out {work}/none/report.html",
    "build --check --platform nvidia_h200",
    "new scale",
    "new scale",
)
"""On a pack with a kernel that is broken, and texts that are not ours."""

ALONE = (
    *("--help", "help autotune", "help bench", "lod", "list --jsn", "explain KP107", "explain kp9"),
    *("doctor --help", "test --help", "schema kernl", "import helion nothing.json"),
)


@pytest.fixture
def commands(demo, tmp_path):
    """Words of commands, on the first pack and on one that is broken in many places."""
    (work := tmp_path / "work").mkdir()
    demo.kernel("thrice")
    demo.edit("kernels/thrice/kernel.toml", "version = 1", "version = 0")
    summary = f'summary = "{"量化到 半精度 " * 15}"  # '
    demo.edit("kernels/twice/kernel.toml", "summary = ", summary)
    demo.configs("twice", "{}", platform="nvidia_h100")
    on = [(OWN, ["--root", str(ROOT)]), (BROKEN, ["--root", str(demo.root)]), (ALONE, [])]
    return [
        [*(word.format(work=work) for word in words.split()), *root]
        for several, root in on
        for words in several
    ]


def too_wide(text, columns):
    """Lines of a terminal that are wider than it, where they have several words.

    One alone is a name or a path, which is never cut.
    """
    lines = [line.strip() for line in TERMINAL.shown_lines(text)]
    return [line for line in lines if cell_len(line) > columns and " " in line]


@pytest.mark.parametrize(("columns", "color"), [(80, "always"), (120, "never")])
def test_nothing_is_wider_than_the_terminal(columns, color, commands):
    given = [[*words, "--color", color] for words in commands]
    text = TERMINAL.on_terminal(columns, code=RUN.format(commands=given))
    assert text.count("$ ") >= len(given)
    assert "Traceback" not in text
    assert too_wide(text, columns) == []
    assert ("\x1b[31m\x1b[1merror[" in text) is (color == "always")


@pytest.mark.parametrize(
    "variables", [{"NO_COLOR": "1"}, {"TERM": "dumb"}], ids=["NO_COLOR", "dumb"]
)
def test_no_code_is_printed_where_none_is_wanted(variables, commands):
    """Bars are drawn with codes too, and no command here takes long enough for one."""
    code = RUN.format(commands=[words for words in commands if words[0] not in ("lock", "check")])
    text = TERMINAL.on_terminal(80, code=code, KERNELPKG_NO_PROGRESS="1", **variables)
    assert text.count("$ ") >= 20
    assert "\x1b" not in text
