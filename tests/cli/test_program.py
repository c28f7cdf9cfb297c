"""The command line without torch: exact texts, documents, exit statuses and streams."""

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
from kernelpkg.packs import find

ROOT = Path(__file__).parents[2]


def run(*arguments: object) -> int:
    try:
        return cli.main([str(argument) for argument in arguments])
    except SystemExit as error:  # argparse ends the program for --help and for wrong usage
        return int(error.code or 0)


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

HELP = "'kernelpkg --help' says what there is"
USAGE = {
    "no-command": ([], f"the following arguments are required: COMMAND; {HELP}"),
    "unknown-command": (["lod"], f"'lod' is no command; did you mean 'load'?; {HELP}"),
    "far-command": (
        ["xyz"],
        (
            "'xyz' is no command; known are load, list, new, schema, explain, import, export, "
            "vendor, autotune, check, lock, coverage, doctor; " + HELP
        ),
    ),
    "unknown-option": (
        ["list", "--jsn"],
        (
            "'--jsn' is no argument of 'list'; did you mean '--json'?; 'kernelpkg list --help' "
            "says what there is"
        ),
    ),
    "shortened-option": (
        ["autotune", "--case=3"],
        (
            "'--case=3' is no argument of 'autotune'; did you mean '--case-timeout'?; 'kernelpkg "
            "autotune --help' says what there is"
        ),
    ),
    "stray-argument": (
        ["list", "x"],
        "'x' is no argument of 'list'; 'kernelpkg list --help' says what there is",
    ),
    "unknown-choice": (
        ["load", "--device", "gpu"],
        (
            "'gpu' is no value of --device; did you mean 'cpu'?; 'kernelpkg load --help' says "
            "what there is"
        ),
    ),
    "empty-directory": (
        ["vendor", "--into", ""],
        (
            "argument --into: the name of a directory is empty; 'kernelpkg vendor --help' says "
            "what there is"
        ),
    ),
    "option-without-value": (
        ["list", "--root"],
        "argument --root: expected one argument; 'kernelpkg list --help' says what there is",
    ),
    "new-without-name": (
        ["new"],
        "the following arguments are required: NAME; 'kernelpkg new --help' says what there is",
    ),
    "explain-without-platform": (
        ["explain", "x"],
        (
            "the following arguments are required: --platform; "
            "'kernelpkg explain --help' says what there is"
        ),
    ),
    "axis-without-value": (
        ["explain", "x", "--platform", "cpu", "num_tokens"],
        "'num_tokens' is not of the form AXIS=VALUE",
    ),
    "axis-with-empty-value": (
        ["explain", "x", "--platform", "cpu", "num_tokens="],
        "'num_tokens=' is not of the form AXIS=VALUE",
    ),
    "axis-twice": (
        ["explain", "x", "a=1", "--platform", "cpu", "a=2"],
        "axis 'a' is given twice",
    ),
    "unknown-schema": (
        ["schema", "pak"],
        ("'pak' is no choice; did you mean 'pack'?; 'kernelpkg schema --help' says what there is"),
    ),
    "unknown-pack": (
        ["list", "--pack", "kernelpgk"],
        "pack 'kernelpgk' is not there; did you mean 'kernelpkg'?",
    ),
}


@pytest.mark.parametrize(("arguments", "line"), USAGE.values(), ids=USAGE)
def test_wrong_usage_is_one_line_on_stderr_and_status_2(capsys, arguments, line):
    assert run(*arguments) == 2
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"kernelpkg: {line}\n")


@pytest.mark.parametrize(("arguments", "line"), USAGE.values(), ids=USAGE)
def test_with_json_wrong_usage_is_a_document_too(capsys, arguments, line):
    """Who reads stdout finds one document, whatever happens."""
    assert run(*arguments, "--json") == 2
    out, err = capsys.readouterr()
    assert err.startswith("kernelpkg: ")
    assert json.loads(out) == {"errors": err.splitlines()}


def test_with_json_a_pack_that_cannot_be_read_is_a_document_too(demo, capsys):
    demo.edit("manifests/demo.toml", "edition = 1", "edition = 2")
    for command in ("coverage", "lock", "autotune"):
        assert run(command, "--root", demo.root, "--json") == 1
        out, err = capsys.readouterr()
        assert err.startswith("manifests/demo.toml:1: KP")
        assert json.loads(out) == {"errors": err.splitlines()}


def test_help_names_every_command_and_the_exit_statuses(capsys):
    """In groups, and each with what it does."""
    assert run("--help") == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert run("xyz") == 2
    listed = capsys.readouterr().err.partition("known are ")[2].partition(";")[0].split(", ")
    told = dict(re.findall(r"^ {4}(\w+) +(\S.*)$", out, re.MULTILINE))
    assert sorted(told) == sorted(listed)
    for word, text in told.items():
        assert run(word, "--help") == 0
        assert f"{text[0].upper()}{text[1:]}." in capsys.readouterr().out
    assert (
        "exit status: 0 fine, 1 findings or failed kernels, 2 wrong usage, 130 interrupted\n" in out
    )
    for name in ("PATH", "CONFIGS", "DISABLE", "NO_PROGRESS", "VLLM_ROUTES"):
        assert f" KERNELPKG_{name} " in out


PAGES = {
    "check": "guide/check.md",
    "coverage": "guide/coverage.md",
    "lock": "reference/lock.md",
    "autotune": "guide/tuning.md",
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
        "import os, signal, kernelpkg.cli as cli, kernelpkg.packs.find as discover\n"
        # a shell in the background lets its children ignore the signal
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "discover.roots = lambda *_: os.kill(os.getpid(), signal.SIGINT)\n"
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


@pytest.mark.parametrize(
    "arguments",
    [
        ["list"],
        ["list", "--json"],
        ["schema"],
        ["schema", "pack"],
        ["explain", "silu_mul_fp8", "--platform", "nvidia_h200", "num_tokens=1",
         "intermediate_size=4096"],
    ],
    ids=["list", "list-json", "schema", "schema-pack", "explain"],
)  # fmt: skip
def test_what_needs_neither_torch_nor_helion_imports_neither(arguments):
    code = (
        "import sys\nfrom kernelpkg.cli import main\nstatus = main()\n"
        "heavy = sorted({'torch', 'helion', 'triton', 'numpy', 'tqdm'} & set(sys.modules))\n"
        "print(status, heavy, file=sys.stderr)"
    )
    done = whole(*arguments, code=code)
    assert done.stderr == "0 []\n"
    assert done.stdout


# --- list


def test_list_shows_each_pack_as_a_table(demo, capsys):
    demo.kernel("second")
    demo.configs("twice")
    assert run("list", "--root", demo.root) == 0
    assert capsys.readouterr() == (
        (
            "pack demo 0.1.0 (from --root)\n"
            "op            version  cases  tuned for    summary\n"
            "demo::second  1        2      -            Twice the input.\n"
            "demo::twice   1        2      nvidia_h200  Twice the input.\n"
        ),
        "",
    )


def test_list_json_has_every_pack(demo, capsys):
    demo.configs("twice")
    assert run("list", "--root", demo.root, "--json") == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert json.loads(out) == {
        "packs": [
            {
                "pack": "demo",
                "version": "0.1.0",
                "origin": "--root",
                "root": str(demo.root),
                "kernels": [
                    {
                        "name": "twice",
                        "op": "demo::twice",
                        "version": 1,
                        "cases": 2,
                        "platforms": ["nvidia_h200"],
                        "summary": "Twice the input.",
                    }
                ],
            }
        ]
    }


def test_list_shows_the_rest_where_something_is_broken(demo, capsys):
    demo.kernel("bad")
    (demo.root / "kernels/bad/kernel.toml").write_text("edition = 2\n")
    (demo.root / "manifests/other.toml").write_text("edition = 3\n")
    assert run("list", "--root", demo.root) == 1
    out, err = capsys.readouterr()
    assert out == (
        "pack demo 0.1.0 (from --root)\n"
        "op           version  cases  tuned for  summary\n"
        "demo::twice  1        2      -          Twice the input.\n"
    )
    assert err == (
        "kernels/bad/kernel.toml:1: KP002 edition 2 is newer than this version of kernelpkg reads "
        "(1); upgrade kernelpkg\n"
        "manifests/other.toml:1: KP002 edition 3 is newer than this version of kernelpkg reads "
        "(1); upgrade kernelpkg\n"
    )


def test_list_shows_the_packs_of_every_root(demo, other, capsys, monkeypatch):
    monkeypatch.setenv("KERNELPKG_PATH", f"{demo.root}{os.pathsep}{other.root}")
    assert run("list", "--json") == 0
    packs = json.loads(capsys.readouterr().out)["packs"]
    assert [(pack["pack"], pack["origin"]) for pack in packs] == [
        ("demo", "KERNELPKG_PATH"),
        ("demo", "KERNELPKG_PATH"),
        ("kernelpkg", "kernelpkg"),
    ]


def test_list_of_a_pack_in_no_root_is_wrong_usage(demo, capsys):
    assert run("list", "--root", demo.root, "--pack", "dema") == 2
    assert capsys.readouterr() == (
        "",
        "kernelpkg: pack 'dema' is not there; did you mean 'demo'?\n",
    )


def test_list_of_a_root_without_packs_is_wrong_usage(tmp_path, capsys):
    assert run("list", "--root", tmp_path) == 2
    assert capsys.readouterr() == (
        "",
        f"kernelpkg: {tmp_path} has no packs; 'kernelpkg new NAME --root DIR' makes one\n",
    )


# --- schema


@pytest.mark.parametrize("kind", ["kernel", "pack"])
def test_schema_prints_what_lies_beside_the_manifests(kind, capsys):
    assert run("schema", kind) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["title"] == f"kernelpkg {kind} manifest, edition 1"
    assert err == ""


def test_schema_write_puts_both_beside_the_manifests(demo, capsys):
    assert run("schema", "--write", "--root", demo.root) == 0
    assert capsys.readouterr().out == (
        f"wrote {demo.root}/kernels/kernel.schema.json\n"
        f"wrote {demo.root}/manifests/pack.schema.json\n"
    )
    assert run("schema", "pack") == 0
    assert capsys.readouterr().out == (demo.root / "manifests/pack.schema.json").read_text()


def test_schema_write_json_names_the_files(demo, capsys):
    assert run("schema", "--write", "--json", "--root", demo.root) == 0
    assert json.loads(capsys.readouterr().out) == {
        "files": [
            f"{demo.root}/kernels/kernel.schema.json",
            f"{demo.root}/manifests/pack.schema.json",
        ]
    }


def test_schema_write_without_a_pack_writes_nothing(tmp_path, capsys):
    (tmp_path / "kernels").mkdir()
    assert run("schema", "--write", "--root", tmp_path) == 2
    assert capsys.readouterr().err == (
        f"kernelpkg: {tmp_path}/manifests is no directory; go to a pack, or give --root DIR\n"
    )
    assert list(tmp_path.glob("*/*")) == []


def test_schema_write_without_permission_is_one_line(demo, capsys, monkeypatch):
    def refuse(path, text):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("kernelpkg.files.replace_text", refuse)
    assert run("schema", "--write", "--root", demo.root) == 2
    assert capsys.readouterr().err == (
        f"kernelpkg: {demo.root}/kernels/kernel.schema.json cannot be written: Permission denied\n"
    )


# --- explain

H200 = ("--platform", "nvidia_h200")


def test_explain_says_which_rule_did_what(demo, capsys):
    demo.configs("twice")
    assert run("explain", "twice", "--root", demo.root, *H200, "num_tokens=3") == 0
    assert capsys.readouterr() == (
        (
            "twice on nvidia_h200\n"
            "call:    num_tokens=3\n"
            "rule:    num_tokens ceil: 3 takes the next larger tuned value: 4\n"
            "outcome: bucketed; bucketed case num_tokens=4\n"
            "config:  block_sizes=[16], num_warps=4\n"
            "file:    configs/twice/nvidia_h200.json\n"
        ),
        "",
    )


def test_explain_takes_axes_and_options_in_any_order(demo, capsys):
    demo.configs("twice")
    orders = [
        ("explain", "twice", "num_tokens=3", "--root", demo.root, *H200),
        ("explain", *H200, "twice", "--root", demo.root, "num_tokens=3"),
        ("explain", "--root", demo.root, "twice", *H200, "num_tokens=3"),
        ("explain", "demo::twice", "--root", demo.root, *H200, "num_tokens=3", "--pack", "demo"),
    ]
    said = set()
    for order in orders:
        assert run(*order) == 0
        said.add(capsys.readouterr().out)
    assert len(said) == 1


def test_explain_json_has_the_keys_that_are_documented(demo, capsys):
    demo.configs("twice")
    assert run("explain", "twice", "--root", demo.root, *H200, "num_tokens=3", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {
        "kernel": "twice",
        "platform": "nvidia_h200",
        "axes": {"num_tokens": 3},
        "filled": [],
        "key": {"num_tokens": 4},
        "outcome": "bucketed",
        "config": {"block_sizes": [16], "num_warps": 4},
        "tuned_on": "nvidia_h200",
        "file": "configs/twice/nvidia_h200.json",
        "reason": "bucketed case num_tokens=4",
        "trace": [
            {
                "axis": "num_tokens",
                "match": "ceil",
                "value": 3,
                "candidates": [1, 4],
                "chosen": 4,
                "outcome": "bucketed",
                "text": "takes the next larger tuned value",
            }
        ],
    }


def test_explain_of_a_call_that_gets_no_config_has_status_1(demo, capsys):
    demo.edit("kernels/twice/kernel.toml", "[inputs]", '[miss]\naction = "error"\n[inputs]')
    assert run("explain", "twice", "--root", demo.root, *H200, "num_tokens=3") == 1
    assert capsys.readouterr().out == (
        "twice on nvidia_h200\n"
        "call:    num_tokens=3\n"
        "outcome: miss; no config is tuned, and [miss] action is 'error'\n"
    )


@pytest.mark.parametrize(
    ("op", "line"),
    [
        ("twise", "pack 'demo' has no op 'twise'; did you mean 'twice'?"),
        ("xyz", "pack 'demo' has no op 'xyz'; it has twice"),
        (
            "dema::twice",
            "pack 'demo' has no op 'dema::twice'; did you mean 'demo::twice'?",
        ),
    ],
    ids=["near", "far", "namespace"],
)
def test_explain_of_an_op_that_is_not_there_is_wrong_usage(demo, capsys, op, line):
    assert run("explain", op, "--root", demo.root, *H200, "num_tokens=3") == 2
    assert capsys.readouterr() == ("", f"kernelpkg: {line}\n")


def test_explain_of_a_broken_kernel_has_its_problems(demo, capsys):
    (demo.root / "kernels/twice/kernel.toml").write_text("edition = 2\n")
    assert run("explain", "twice", "--root", demo.root, *H200) == 1
    assert capsys.readouterr() == (
        "",
        (
            "kernels/twice/kernel.toml:1: KP002 edition 2 is newer than this version of kernelpkg "
            "reads (1); upgrade kernelpkg\n"
        ),
    )


# --- new


def test_new_says_what_it_wrote_and_how_to_check_it(tmp_path, capsys):
    root = tmp_path / "mine"
    assert run("new", "softmax", "--root", root) == 0
    assert capsys.readouterr() == (
        (
            f"wrote {root}/manifests/mine.toml\n"
            f"wrote {root}/kernels/kernel.schema.json\n"
            f"wrote {root}/manifests/pack.schema.json\n"
            f"wrote {root}/kernels/softmax/kernel.toml\n"
            f"wrote {root}/kernels/softmax/kernel.py\n"
            f"wrote {root}/kernels/softmax/host.py\n"
            f"check it with: python -m kernelpkg load --root {root} --smoke\n"
        ),
        "",
    )


def test_new_in_the_directory_of_a_pack_needs_no_root(demo, capsys, monkeypatch):
    monkeypatch.chdir(demo.root)
    assert run("new", "softmax") == 0
    assert capsys.readouterr().out == (
        "wrote kernels/softmax/kernel.toml\n"
        "wrote kernels/softmax/kernel.py\n"
        "wrote kernels/softmax/host.py\n"
        "check it with: python -m kernelpkg load --root . --smoke\n"
    )


def test_new_json_names_the_files(demo, capsys):
    demo.edit("manifests/demo.toml", '"*"', '["twice"]')
    assert run("new", "softmax", "--json", "--root", demo.root) == 0
    assert json.loads(capsys.readouterr().out) == {
        "root": str(demo.root),
        "files": [
            "kernels/softmax/kernel.toml",
            "kernels/softmax/kernel.py",
            "kernels/softmax/host.py",
        ],
        "remarks": ['add "softmax" to [pack] kernels in manifests/demo.toml, which is not "*"'],
    }


def test_new_outside_of_a_pack_is_wrong_usage(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run("new", "softmax") == 2
    assert capsys.readouterr() == (
        "",
        (
            f"kernelpkg: {tmp_path} holds no pack (manifests/<pack>.toml); go to one, or give "
            "--root DIR to make one there\n"
        ),
    )
    assert list(tmp_path.iterdir()) == []


def test_the_own_pack_is_found_without_any_option(capsys):
    assert run("list", "--pack", "kernelpkg", "--json") == 0
    (pack,) = json.loads(capsys.readouterr().out)["packs"]
    assert pack["root"] == str(find.own_root())
    assert len(pack["kernels"]) == 7


def test_a_closed_stdout_is_no_reason_for_a_traceback():
    done = whole(
        code="import sys; sys.stdout = None; from kernelpkg.cli import main; "
        "raise SystemExit(main(['schema']))"
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a file that is always full")
def test_a_full_disk_is_no_reason_for_a_traceback():
    with Path("/dev/full").open("w") as full:
        done = whole(
            code="from kernelpkg.cli import main; raise SystemExit(main(['schema']))", stdout=full
        )
    assert done.returncode == 1
    assert done.stderr == "kernelpkg: the output: No space left on device\n"
