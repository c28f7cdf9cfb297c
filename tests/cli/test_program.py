"""The command line without torch: exact texts, documents, exit statuses and streams."""

# ruff: noqa: E501  # tables of cases and messages have whole lines

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest

from kernelpkg import cli
from kernelpkg.cli.program import COMMANDS

ROOT = Path(__file__).parents[2]


def run(*arguments: object) -> int:
    return cli.main([str(argument) for argument in arguments])


def whole(
    *arguments: str, code: str = "", stdout: IO[str] | int = subprocess.PIPE
) -> subprocess.CompletedProcess[str]:
    """Run a command as a whole process, from another directory."""
    program = code or "from kernelpkg.cli import main; raise SystemExit(main())"
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd="/",
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=600,
    )


# --- usage

HELP = "see 'kernelpkg --help'"
KINDS = ", ".join(f"'{kind}'" for kind in ("kernel", "pack", *COMMANDS))
USAGE = {
    "no-command": (["--pack", "x"], f"missing command; {HELP}"),
    "unknown-command": (["lod"], f"'lod' is not a command; did you mean 'load'?; {HELP}"),
    "help-of-no-command": (["help", "lod"],
        f"'lod' is not a command; did you mean 'load'?; {HELP}"),
    "far-command": (["xyz"],
        "'xyz' is not a command; known are load, test, show, list, new, schema, explain, import, export, vendor, autotune, check, bench, build, warm, lock, coverage, report, doctor; " + HELP),
    "unknown-option": (["list", "--jsn"],
        "'--jsn' is not an option of 'list'; did you mean '--json'?; see 'kernelpkg list --help'"),
    "shortened-option": (["autotune", "--case=3"],
        "'--case' is not an option of 'autotune'; did you mean '--case-timeout'?; see 'kernelpkg autotune --help'"),
    "stray-argument": (["list", "x"],
        "got unexpected extra argument (x); see 'kernelpkg list --help'"),
    "unknown-choice": (["load", "--device", "gpu"],
        "invalid value for '--device': 'gpu' is not one of 'auto', 'cpu', 'cuda'; did you mean 'cpu'?; see 'kernelpkg load --help'"),
    "empty-directory": (["vendor", "--into", ""],
        "invalid value for '--into': the name of a directory is empty; see 'kernelpkg vendor --help'"),
    "option-without-value": (["list", "--root"],
        "option '--root' requires an argument; see 'kernelpkg list --help'"),
    "option-that-the-command-lacks": (["--pack", "x", "new", "y"],
        "'--pack' is not an option of 'new'; see 'kernelpkg new --help'"),
    "new-without-name": (["new"],
        "a kernel needs a name; give NAME, or --from FILE.py:FUNCTION"),
    "import-of-vllm-for-a-gpu": (["import", "vllm", "x", "--platform", "nvidia_h100"],
        "--op and --platform go with 'import helion'"),
    "explain-without-platform": (["explain", "x"],
        "which config a call gets depends on the GPU; name one with --platform"),
    "axis-without-value": (["explain", "x", "--platform", "cpu", "num_tokens"],
        "'num_tokens' is not of the form AXIS=VALUE"),
    "axis-with-empty-value": (["explain", "x", "--platform", "cpu", "num_tokens="],
        "'num_tokens=' is not of the form AXIS=VALUE"),
    "axis-twice": (["explain", "x", "a=1", "--platform", "cpu", "a=2"], "axis 'a' is given twice"),
    "unknown-schema": (["schema", "pak"],
        f"invalid value for '[kernel|pack|COMMAND]': 'pak' is not one of {KINDS}; did you mean 'pack'?; see 'kernelpkg schema --help'"),
    "unknown-pack": (["list", "--pack", "kernelpgk"],
        "pack 'kernelpgk' is not there; did you mean 'kernelpkg'?"),
}  # fmt: skip


@pytest.mark.parametrize(("arguments", "line"), USAGE.values(), ids=USAGE)
def test_wrong_usage_is_one_line_on_stderr_and_status_2(capsys, arguments, line):
    assert run(*arguments) == 2
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"kernelpkg: {line}\n")


@pytest.mark.parametrize(("arguments", "line"), USAGE.values(), ids=USAGE)
def test_with_json_wrong_usage_is_a_document_too(capsys, arguments, line):
    """Who reads stdout finds one document, whatever happens."""
    assert run("--json", *arguments) == 2
    out, err = capsys.readouterr()
    assert err.startswith("kernelpkg: ")
    assert json.loads(out) == {"format": 1, "errors": err.splitlines()}


def test_with_json_a_pack_that_cannot_be_read_is_a_document_too(demo, capsys):
    demo.edit("manifests/demo.toml", "edition = 1", "edition = 2")
    for command in ("coverage", "lock", "autotune"):
        assert run(command, "--root", demo.root, "--json") == 1
        out, err = capsys.readouterr()
        assert err.startswith("manifests/demo.toml:1: KP")
        assert json.loads(out) == {"format": 1, "errors": err.splitlines()}


@pytest.mark.parametrize(
    "words",
    ["list", "show twice", "explain KP101", "coverage", "check", "lock", "doctor", "new x"],
)
def test_a_document_begins_with_its_format(words, demo, capsys):
    """So that who reads it can tell one that it does not know."""
    demo.configs("twice")
    run(*words.split(), "--root", demo.root, "--json")
    document = json.loads(capsys.readouterr().out)
    assert next(iter(document.items())) == ("format", 1)


def test_help_names_every_command_and_the_exit_statuses(capsys):
    """In groups, and each with what it does."""
    assert run("--help") == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert run("xyz") == 2
    listed = capsys.readouterr().err.partition("known are ")[2].partition(";")[0].split(", ")
    told = dict(re.findall(r"^  ([a-z]+)  +(\S.*)$", out, re.MULTILINE))
    assert sorted(told) == sorted(listed)
    for word, text in told.items():
        assert run(word, "--help") == 0
        said = capsys.readouterr().out
        assert f"{text[0].upper()}{text[1:]}." in said
        assert max(map(len, said.splitlines())) <= 80
        assert run("help", word) == 0
        assert capsys.readouterr().out == said
    statuses = re.findall(r"^  (\d+)  +(\S.*)$", out, re.MULTILINE)
    assert [int(status) for status, _ in statuses] == [0, 1, 2, 130]
    assert max(map(len, out.splitlines())) <= 80
    for name in ("PATH", "CONFIGS", "BUILDS", "LAUNCHER", "DISABLE", "NO_PROGRESS", "VLLM_ROUTES"):
        assert f" KERNELPKG_{name} " in out


PAGES = {
    "build": "guide/builds.md",
    "check": "guide/check.md",
    "coverage": "guide/coverage.md",
    "lock": "reference/lock.md",
    "autotune": "guide/tuning.md",
    "bench": "guide/benchmarks.md",
}


def test_the_pages_have_every_option_and_no_other(capsys):
    """The options of a command stand in its section, or on its own page."""
    docs = ROOT / "docs"
    page = (docs / "reference" / "cli.md").read_text()
    common, *sections = page.split("\n## ")
    assert run("xyz") == 2
    commands = capsys.readouterr().err.partition("known are ")[2].partition(";")[0].split(", ")
    for command in commands:
        assert run(command, "--help") == 0
        options = set(re.findall(r"--[a-z][a-z-]+", capsys.readouterr().out)) - {"--help"}
        text = next(text for text in sections if text.startswith(f"{command}\n"))
        text += (docs / PAGES[command]).read_text() if command in PAGES else ""
        if command == "export":  # it has those of import
            text += next(text for text in sections if text.startswith("import\n"))
        told = set(re.findall(r"--[a-z][a-z-]+", common + text))
        assert options <= told, command
        rows = re.findall(r"^\| (`--.*?) \|", text, re.MULTILINE)
        listed = {name for row in rows for name in re.findall(r"--[a-z][a-z-]+", row)}
        assert listed <= options, command


@pytest.mark.parametrize("words", [[], ["help"], ["-h"]], ids=["bare", "help", "short"])
def test_the_help_comes_without_its_option_too(words, capsys):
    assert run("--help") == 0
    told = capsys.readouterr()
    assert run(*words) == 0
    assert capsys.readouterr() == told


def test_the_version_is_printed(capsys):
    import kernelpkg

    assert run("--version") == 0
    assert capsys.readouterr().out == f"kernelpkg {kernelpkg.__version__}\n"


def test_an_interrupt_is_one_line_and_status_130(capsys, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("kernelpkg.packs.find.roots", interrupted)
    assert run("list") == 130
    assert capsys.readouterr() == ("", "kernelpkg: interrupted\n")


def test_ctrl_c_leaves_no_traceback():
    code = (
        "import os, signal, kernelpkg.cli as cli, kernelpkg.packs.find as find\n"
        # a shell in the background lets its children ignore the signal
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "find.roots = lambda *_: os.kill(os.getpid(), signal.SIGINT)\n"
        "raise SystemExit(cli.main(['list']))"
    )
    done = whole(code=code)
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == "kernelpkg: interrupted\n"


def test_a_reader_that_stops_early_is_no_error():
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "kernelpkg", "schema"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=600,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")


def test_a_closed_stdout_is_no_reason_for_a_traceback():
    done = whole(
        code="import sys; sys.stdout = None; from kernelpkg.cli import main; "
        "raise SystemExit(main(['schema']))"
    )
    assert (done.returncode, done.stderr) == (0, "")


HOSTILE = "\x1b]0;title\x07\x9b31m\u202e\x7f µ"
SHOWN = r"\x1b]0;title\x07\x9b31m\u202e\x7f"


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
@pytest.mark.parametrize(
    "words",
    [
        "list",
        "list --json",
        "check",
        "explain twice",
        "coverage",
        "new x\x1b[2J",
        "vendor --into x",
    ],
    ids=lambda words: words.split("\x1b")[0].replace(" ", ""),
)
def test_nothing_that_is_not_ours_commands_a_terminal(demo, words, encoding):
    """Not a text of a manifest, and not a name of a file; documents hold it, escaped."""
    demo.edit(
        "kernels/twice/kernel.toml",
        "Twice the input.",
        ascii(HOSTILE)[1:-1].replace(r"\x", r"\u00"),
    )
    (demo.root / f"configs/{HOSTILE}").mkdir(parents=True)
    (demo.root / "configs/twice\x1b[1m").touch()
    arguments = [*words.split(" "), "--root", str(demo.root)]
    done = subprocess.run(
        [sys.executable, "-m", "kernelpkg", *arguments],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": encoding, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    out, err = done.stdout.decode(encoding), done.stderr.decode(encoding)
    assert (out + err).replace("\n", "").isprintable() and "Traceback" not in err
    if words == "list --json":
        assert json.loads(out)["packs"][0]["kernels"][0]["summary"] == HOSTILE
    elif words == "list":
        micro = "µ" if encoding == "utf-8" else r"\xb5"
        assert f"{SHOWN} {micro}\n" in out


def test_what_the_system_refuses_is_a_document_too(monkeypatch, capsys):
    """Whatever was asked of it, with the name that it gives."""

    def refuse(*_):
        raise PermissionError(13, "Permission denied", "/a")

    monkeypatch.setattr("kernelpkg.cli.list.survey", refuse)
    assert cli.main(["list", "--json"]) == 1
    line = "kernelpkg: /a: Permission denied"
    assert capsys.readouterr() == (
        f'{{\n  "format": 1,\n  "errors": [\n    "{line}"\n  ]\n}}\n',
        f"{line}\n",
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a file that is always full")
def test_a_full_disk_is_no_reason_for_a_traceback():
    with Path("/dev/full").open("w") as full:
        done = whole(
            code="from kernelpkg.cli import main; raise SystemExit(main(['schema']))", stdout=full
        )
    assert done.returncode == 1
    assert done.stderr == "kernelpkg: the output: No space left on device\n"


@pytest.mark.parametrize("words", [["--root", "DIR", "list"], ["--root=DIR", "--json", "list"]])
def test_options_of_all_commands_may_stand_before_the_command(words, demo, capsys):
    """As those of git may."""
    assert cli.main([word.replace("DIR", str(demo.root)) for word in words]) == 0
    assert "twice" in capsys.readouterr().out


def test_a_root_that_is_not_there_is_wrong_usage(tmp_path, capsys):
    """Also of `list`, which goes on behind what is broken."""
    for command in ("check", "list", "coverage"):
        assert cli.main([command, "--root", str(tmp_path / "none")]) == 2
        assert "KP604 does not exist; --root takes" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["load", "check", "list", "coverage", "lock"])
def test_a_root_without_packs_is_wrong_usage(command, tmp_path, capsys):
    """Whatever the command; what is wrong with a pack is status 1."""
    assert cli.main([command, "--root", str(tmp_path)]) == 2
    assert "has no packs" in capsys.readouterr().err


ENDING = """
import atexit, sys, threading, types

class Part:
    def __del__(self):
        print("taken apart")

part = Part()
atexit.register(print, "tidied")
{before}
sys.argv = ["kernelpkg", "explain", "KP999"]
from kernelpkg.cli import run
run()
"""
HAS_TORCH = 'sys.modules["torch"] = types.ModuleType("torch")'
WORKS = "; threading.Timer(0.1, print, ['worked']).start()"


@pytest.mark.parametrize(
    ("before", "printed"),
    [
        pytest.param("", ["tidied", "taken apart"], id="without-torch"),
        pytest.param(HAS_TORCH, ["tidied"], id="with-torch"),
        pytest.param(HAS_TORCH + WORKS, ["worked", "tidied"], id="with-a-thread"),
    ],
)
def test_a_program_that_has_pytorch_ends_without_taking_it_apart(before, printed):
    """What is to be tidied is, and threads are waited for."""
    done = whole(code=ENDING.format(before=before))
    assert (done.returncode, done.stdout.split("\n")) == (2, [*printed, ""])
