"""`kernelpkg lock`: streams, documents and exit statuses; nothing here imports torch or Helion."""

from __future__ import annotations

import errno
import json
import os
import sys
from pathlib import Path

from kernelpkg import cli
from kernelpkg.packs.lock import FILE

ROOT = Path(__file__).parents[2]
REMARK = "no structural fingerprints of all kernels: --no-fingerprints was given\n"


def run(demo, *arguments):
    return cli.main(["lock", "--root", str(demo.root), "--no-fingerprints", *arguments])


def test_a_lock_is_written_and_said_to_be_unchanged(demo, capsys):
    path = demo.root / FILE
    told = "(pack demo: 1 kernel, 3 files, 0 config files, 0 fingerprints)"
    assert run(demo) == 0
    assert capsys.readouterr() == (f"wrote {path} {told}\n", REMARK)
    assert run(demo) == 0
    assert capsys.readouterr() == (f"unchanged: {path} {told}\n", REMARK)


def test_the_document_of_a_lock(demo, capsys):
    assert run(demo, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert list(document) == [
        *("format", "path", "action", "pack", "version", "kernels", "files", "configs"),
        *("fingerprints", "builds", "remarks"),
    ]


def test_a_check_is_status_0_where_nothing_drifted_and_1_where_something_did(demo, capsys):
    run(demo)
    capsys.readouterr()
    remark = "structural fingerprints are not in the lock, and not compared\n"
    assert run(demo, "--check") == 0
    assert capsys.readouterr() == ("pack demo 0.1.0: nothing has drifted\n", remark)
    demo.edit("kernels/twice/kernel.py", "* 2", "* 3")
    assert run(demo, "--check") == 1
    assert capsys.readouterr() == (
        (
            "kernels/twice/kernel.py: KP312 the behaviour of the source changed\n"
            "pack demo 0.1.0: 1 change since it was locked\n"
        ),
        remark,
    )
    assert run(demo, "--check", "--json") == 1
    assert json.loads(capsys.readouterr().out)["drift"][0]["change"] == "source"


def test_a_kernel_that_is_broken_is_status_1(demo, capsys):
    run(demo)
    demo.edit("kernels/twice/kernel.toml", "version = 1", "version = 0")
    capsys.readouterr()
    assert run(demo, "--check") == 1
    out, err = capsys.readouterr()
    assert out.startswith("kernels/twice/kernel.toml: KP304 differs from the lock")
    assert "kernels/twice/kernel.toml:4: KP012" in err


def test_a_directory_that_cannot_be_written_is_one_line(demo, capsys, monkeypatch):
    """Injected, for root may write anywhere."""
    opened = Path.open

    def refuse(path, mode="r", *rest, **options):
        if "x" in mode:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return opened(path, mode, *rest, **options)

    monkeypatch.setattr(Path, "open", refuse)
    assert run(demo) == 1
    assert capsys.readouterr().err == (
        "kernelpkg.lock: KP302 cannot be written: Permission denied; nothing was changed\n"
    )


def test_a_check_without_a_lock_is_one_line(demo, capsys):
    assert run(demo, "--check") == 1
    assert capsys.readouterr() == (
        "",
        "kernelpkg.lock: KP303 is not there; run 'kernelpkg lock' to write it\n",
    )


def test_a_helion_that_does_not_import_is_a_remark(demo, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "kernelpkg.compile.variants", None)
    assert cli.main(["lock", "--root", str(demo.root)]) == 0
    assert capsys.readouterr().err == (
        "no structural fingerprints of all kernels: Helion cannot be imported (import of "
        "kernelpkg.compile.variants halted; None in sys.modules)\n"
    )


def test_the_first_pack_is_as_its_lock_says(capsys):
    """After a change of kernels, configs or manifests: `make lock`, and commit the lock too."""
    cli.main(["lock", "--root", str(ROOT), "--check", "--no-fingerprints", "--json"])
    document = json.loads(capsys.readouterr().out)
    tools = ("torch", "helion", "triton")  # those of this machine may be others
    drift = [entry for entry in document["drift"] if entry["change"] not in tools]
    assert drift == [], "run 'make lock'"
