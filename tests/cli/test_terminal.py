"""What commands print on a terminal, in a pipe, and while one waits."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from kernelpkg import cli
from kernelpkg.cli import console, terminal
from kernelpkg.errors import Problem

ROOT = Path(__file__).parents[2]
ERROR = Problem(path="a.toml", line=3, code="KP101", message="is so; do this")
DOUBT = Problem(path="b.json", code="KP225", message="is so", severity="unverified")
CODES = re.compile(r"\x1b\[[?\d;]*[A-Za-z]")
PLAIN = {"TERM": "xterm-256color", "NO_COLOR": "", "FORCE_COLOR": "", "PYTHONPATH": str(ROOT)}


def on_terminal(columns, *arguments, code=None, **variables):
    """Run kernelpkg, or other code, on a terminal of so many columns; returns what it shows."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    program = ["-m", "kernelpkg", *arguments] if code is None else ["-c", code]
    environment = {**os.environ, **PLAIN, **variables}
    with subprocess.Popen(
        [sys.executable, *program], stdin=theirs, stdout=theirs, stderr=theirs, env=environment
    ):
        os.close(theirs)
        parts = []
        try:
            while part := os.read(ours, 65536):
                parts.append(part)
        except OSError:  # Linux says so that nobody writes any more
            pass
    os.close(ours)
    return b"".join(parts).decode()


def shown_lines(text):
    """The lines of a terminal without codes; what is written over others is a line of its own."""
    return re.split(r"[\r\n]+", CODES.sub("", text))


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize("color", ["always", "never"])
@pytest.mark.parametrize("command", ["list", "check silu_mul_fp8", "coverage", "coverage --help"])
def test_no_line_is_wider_than_the_terminal(command, color, columns):
    text = on_terminal(columns, *command.split(), "--root", str(ROOT), "--color", color)
    lines = shown_lines(text)
    assert len(lines) > 3
    assert [line for line in lines if len(line) > columns] == []


def test_names_of_ops_are_whole_in_pipes_and_lines_fit(capsys):
    assert cli.main(["list", "--root", str(ROOT)]) == 0
    lines = capsys.readouterr().out.split("\n")
    assert max(map(len, lines)) <= 80
    place = lines.index("kernelpkg::dynamic_per_token_scaled_fp8_quant  104")
    assert lines[place + 1] == "    Dynamic quantisation to FP8 with one scale per token."
    assert "all: version 1, tuned for nvidia_h200" in lines


@pytest.mark.parametrize(
    ("color", "variables", "coloured"),
    [
        pytest.param("auto", {}, False, id="no-terminal"),
        pytest.param("auto", {"FORCE_COLOR": "1"}, True, id="FORCE_COLOR"),
        pytest.param("auto", {"FORCE_COLOR": "1", "NO_COLOR": "1"}, False, id="NO_COLOR"),
        pytest.param("always", {"NO_COLOR": "1"}, True, id="always"),
        pytest.param("never", {"FORCE_COLOR": "1"}, False, id="never"),
    ],
)
def test_colours_are_as_options_and_variables_say(monkeypatch, color, variables, coloured):
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.setenv(name, variables.get(name, ""))
    monkeypatch.setattr(terminal, "COLOUR", terminal.ContextVar("COLOUR", default=color))
    plain = "a.toml:3: KP101 is so; do this"
    bright = "a.toml:3: \x1b[31m\x1b[1merror[KP101]:\x1b[0m is so; do this"
    assert terminal.shown(ERROR, io.StringIO()) == (bright if coloured else plain)


@pytest.mark.parametrize("where", ["before", "behind"])
def test_the_option_is_of_all_commands(demo, capsys, where):
    demo.edit("kernels/twice/kernel.toml", 'axis = "num_tokens"', 'axis = "num_token"')
    command = ["check", "--root", str(demo.root)]
    color = ["--color", "always"]
    assert cli.main([*color, *command] if where == "before" else [*command, *color]) == 1
    assert "\x1b[31m\x1b[1merror[KP104]:\x1b[0m" in capsys.readouterr().out


def test_a_terminal_shows_the_severity_before_the_code(demo):
    """Without colours too, where NO_COLOR is set."""
    demo.edit("kernels/twice/kernel.toml", 'axis = "num_tokens"', 'axis = "num_token"')
    text = on_terminal(200, "check", "--root", str(demo.root), NO_COLOR="1")
    assert "kernels/twice/kernel.toml:" in text
    assert ": error[KP104]: " in text
    assert "\x1b" not in text


def test_errors_are_the_last_of_the_findings(capsys):
    console.complain([ERROR, "a note", DOUBT])
    assert capsys.readouterr().err.split("\n") == [
        "a note",
        "b.json: KP225 unverified: is so",
        "a.toml:3: KP101 is so; do this",
        "",
    ]


@pytest.mark.parametrize("command", ["check", "list", "coverage --platform nvidia_h200"])
def test_on_a_terminal_errors_stand_below_the_results(demo, command):
    """Both streams are one there; in a pipe, results have a stream of their own."""
    demo.kernel("thrice")
    demo.edit("kernels/thrice/kernel.toml", "version = 1", "version = 0")
    text = on_terminal(300, *command.split(), "--root", str(demo.root), NO_COLOR="1")
    *others, last, end = text.split("\r\n")
    assert ": error[KP012]: " in last
    assert len(others) > 1
    assert "KP012" not in "".join(others)
    assert end == ""


EARLY = """
from kernelpkg.cli.console import complain, print_held, say
from kernelpkg.errors import Problem
complain([Problem(path="a.toml", line=3, code="KP101", message="is so")], early=True)
complain(["a note"])
{between}
print_held()
"""


@pytest.mark.parametrize(
    ("between", "lines"),
    [
        pytest.param("", ["ERROR", "a note"], id="nothing"),
        pytest.param("say('rows')", ["ERROR", "rows", "a note", "ERROR"], id="results"),
    ],
)
def test_what_was_told_early_is_told_again_below_results(between, lines):
    text = on_terminal(80, code=EARLY.format(between=between), NO_COLOR="1")
    shown = text.replace("a.toml:3: error[KP101]: is so", "ERROR").split("\r\n")
    assert shown == [*lines, ""]


def test_no_word_is_cut_where_lines_are_wrapped():
    assert terminal._wrapped(f"  say: {'x' * 30} and more", 20).split("\n") == [
        "  say:",
        f"    {'x' * 30}",
        "    and more",
    ]


@pytest.mark.parametrize(
    ("line", "wrapped"),
    [
        pytest.param("axes:   a b c", ["axes:   a b", "        c"], id="label"),
        pytest.param("kernelpkg: a b", ["kernelpkg: a", "  b"], id="error"),
        pytest.param("#  a word more", ["#  a word", "     more"], id="verbose"),
    ],
)
def test_what_is_wrapped_stands_below_its_text_or_behind_an_indent(line, wrapped):
    assert terminal._wrapped(line, 12).split("\n") == wrapped


BAR = """
import sys
from kernelpkg.cli.console import ProgressBar
with ProgressBar('reading') as progress:
    for done in range(3):
        progress.step("reading [b]" + "x" * 300, done, 4)
        print(f"line {done}", file=sys.stderr)
print("end")
"""


@pytest.mark.parametrize("columns", [80, 120])
def test_a_bar_fits_and_lines_stand_above_it(columns):
    """It has percent and times, and is gone at the end."""
    text = on_terminal(columns, code=BAR)
    lines = shown_lines(text)
    assert [line for line in lines if len(line) > columns] == []
    assert {"line 0", "line 1", "line 2", "end"} <= {line.strip() for line in lines}
    assert re.search(r"50% 0:00:0\d \S+ reading \[b\]x+…", CODES.sub("", text))
    assert text.rindex("\x1b[2K") < text.index("end")


IMPORT = """
import os
from kernelpkg.cli.console import importing
with importing():
    print("loud")
print("end")
"""


def test_a_terminal_that_can_draw_nothing_gets_plain_lines():
    text = on_terminal(80, code=BAR, TERM="dumb")
    assert text.replace("\r", "") == "line 0\nline 1\nline 2\nend\n"


def test_what_is_imported_is_said_at_once_and_removed():
    text = on_terminal(80, code=IMPORT)
    assert text.index("importing PyTorch and Helion") < text.index("loud") < text.rindex("\x1b[2K")
    assert "importing" not in on_terminal(80, code=IMPORT, KERNELPKG_NO_PROGRESS="1")


def test_a_pipe_imports_no_rich():
    code = f"import sys; from kernelpkg.cli import main; main(['check', '--root', {str(ROOT)!r}])"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; print('rich' in sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "False"
