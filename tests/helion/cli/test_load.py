"""`kernelpkg load`: the table, the document, the streams and the exit statuses."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from pathlib import Path

import kernelpkg
from kernelpkg import cli
from kernelpkg.cli.options import Shared

ROOT = Path(__file__).parents[3]


def run(pack, *arguments):
    return cli.main(["load", "--root", str(pack.root), "--device", "cpu", *arguments])


def outputs(capsys):
    out, err = capsys.readouterr()
    return re.sub(r"\d+\.\d s\)", "0.0 s)", out), err


def test_a_row_per_op_and_a_summary(demo, capsys):
    demo.kernel("second")
    assert run(demo, "--smoke") == 0
    assert outputs(capsys) == (
        (
            "op            cases  configs\n"
            "demo::second  0      0\n"
            "demo::twice   0      0\n"
            "all: mode interpret, lock unlocked, reason no GPU\n"
            "pack demo: 2 registered, 2 of 2 checks ok (cpu, 0.0 s)\n"
        ),
        "",
    )


def test_without_a_smoke_check_there_is_no_column_for_it(demo, capsys):
    assert run(demo) == 0
    assert outputs(capsys) == (
        (
            "op           cases  configs\n"
            "demo::twice  0      0\n"
            "all: mode interpret, lock unlocked, reason no GPU\n"
            "pack demo: 1 registered (cpu, 0.0 s)\n"
        ),
        "",
    )


def test_failed_and_disabled_kernels_are_rows_too(demo, capsys, monkeypatch):
    demo.kernel("bad")
    demo.kernel("off")
    demo.edit("kernels/bad/kernel.toml", "version = 1", "verson = 1")
    monkeypatch.setenv("KERNELPKG_DISABLE", "off,of")
    assert run(demo, "--smoke") == 1
    assert outputs(capsys) == (
        (
            "op           status      mode       cases  configs  lock      check\n"
            "    reason\n"
            "demo::bad    failed      -          0      0        -         -\n"
            "    2 problems listed\n"
            "demo::off    disabled    -          0      0        -         -\n"
            "    switched off by KERNELPKG_DISABLE\n"
            "demo::twice  registered  interpret  0      0        unlocked  ok\n"
            "    no GPU\n"
            "pack demo: 1 registered, 1 failed, 1 disabled, 1 of 1 checks ok (cpu, 0.0 s)\n"
        ),
        (
            "kernels/bad/kernel.toml:2: KP011 key 'version' is missing in [kernel]; "
            "it must be a whole number at least 1\n"
            "kernels/bad/kernel.toml:4: KP010 key 'verson' is not known in [kernel]; "
            "did you mean 'version'?\n"
            "KERNELPKG_DISABLE: KP607 'of' is not an op of pack 'demo', so nothing is switched "
            "off; did you mean 'off'?\n"
        ),
    )


def test_a_pack_without_a_sound_kernel_is_told_before_pytorch_is_imported(demo):
    """By `test` too; each line once, as where the manifest of the pack is broken."""
    demo.edit("kernels/twice/kernel.toml", "version = 1", "version = 0")
    code = "import sys; from kernelpkg.cli import main; main(sys.argv[1:]); print(*sys.modules)"
    for command in ("load", "test"):
        arguments = [sys.executable, "-c", code, command, "--root", str(demo.root)]
        done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=True)
        assert "KP012" in done.stderr
        assert done.stderr.count("\n") == 1
        assert "kernelpkg" in done.stdout.split()
        assert "torch" not in done.stdout.split()


def test_the_seconds_are_those_since_the_command_began(demo, capsys, monkeypatch):
    monkeypatch.setattr(Shared, "seconds", 41.5)
    assert run(demo) == 0
    assert capsys.readouterr().out.endswith("(cpu, 41.5 s)\n")


def test_a_check_that_fails_is_said_on_stderr_and_status_1(demo, capsys):
    demo.edit("kernels/twice/host.py", "* 2", "* 3")
    assert run(demo, "--smoke") == 1
    out, err = outputs(capsys)
    assert out == (
        "op           cases  configs\n"
        "demo::twice  0      0\n"
        "all: mode interpret, lock unlocked, reason 1 problem listed\n"
        "pack demo: 1 registered, 0 of 1 checks ok (cpu, 0.0 s)\n"
    )
    assert err.startswith("kernels/twice: KP701 check failed: case num_tokens=4: ")
    assert err.count("\n") == 1


def test_json_is_the_only_thing_on_stdout_even_where_a_kernel_prints(demo, capsys):
    demo.edit("kernels/twice/kernel.py", "import torch\n", "import torch\n\nprint('hello')\n")
    assert run(demo, "--json", "--smoke") == 0
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert err == "hello\n"
    assert list(document) == ["format", "pack", "device", "platform", "seconds", "kernels"]
    assert [list(kernel) for kernel in document["kernels"]] == [
        [
            *("name", "op", "status", "mode", "platform", "cases", "configs", "file", "lock"),
            *("reason", "check"),
        ]
    ]


def test_json_of_a_pack_that_does_not_load_is_a_document_too(demo, capsys):
    (demo.root / "manifests/demo.toml").write_text("edition = 2\n")
    assert run(demo, "--json") == 1
    out, err = capsys.readouterr()
    document = json.loads(out)
    line = (
        "manifests/demo.toml:1: KP002 edition 2 is newer than this version of kernelpkg reads "
        "(1); upgrade kernelpkg"
    )
    assert (document, err) == ({"format": 1, "errors": [line]}, f"{line}\n")


def test_strict_wants_every_op_tuned(demo, capsys):
    assert run(demo, "--strict") == 1
    assert outputs(capsys)[1] == ""


def test_a_root_that_does_not_exist_is_wrong_usage(tmp_path, capsys):
    assert cli.main(["load", "--root", str(tmp_path / "no")]) == 2
    assert capsys.readouterr() == (
        "",
        f"{tmp_path}/no: KP604 does not exist; --root takes a directory that holds manifests/\n",
    )


def test_an_installation_without_torch_is_sent_to_the_doctor(demo, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "kernelpkg.runtime.load", None)
    assert run(demo) == 1
    assert capsys.readouterr() == (
        "",
        (
            "kernelpkg: 'kernelpkg.runtime.load' cannot be imported (import of "
            "kernelpkg.runtime.load halted; None in sys.modules); 'kernelpkg doctor' says more\n"
        ),
    )


def test_an_interrupted_check_is_one_line_and_status_130(demo, capsys, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("kernelpkg.runtime.load.smoke_check", interrupted)
    assert run(demo, "--smoke") == 130
    assert capsys.readouterr() == ("", "kernelpkg: interrupted\n")


def test_progress_is_shown_on_a_terminal(demo, monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: True)
    monkeypatch.setattr("sys.stderr", stream)
    assert run(demo, "--smoke") == 0
    assert "checking twice" in stream.getvalue()


def test_the_whole_program_loads_the_first_pack():
    done = subprocess.run(
        [sys.executable, "-m", "kernelpkg", "load", "--smoke", "--device", "cpu"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    rows = done.stdout.splitlines()
    assert len(rows) == 1 + 7 + 2
    assert rows[-1].startswith("pack kernelpkg: 7 registered, 7 of 7 checks ok (cpu, ")


def test_python_and_the_command_line_load_the_same(demo, capsys):
    assert run(demo, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    again = kernelpkg.load(root=demo.root, device="cpu").to_json()
    assert document["kernels"] == again["kernels"]
