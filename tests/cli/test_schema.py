"""The command `schema`: what it prints, and what it writes where."""

from __future__ import annotations

import json

import pytest

from kernelpkg import cli


def run(*arguments: object) -> int:
    return cli.main([str(argument) for argument in arguments])


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


def test_schema_write_finds_the_pack_that_the_current_directory_lies_in(demo, capsys, monkeypatch):
    monkeypatch.chdir(demo.root / "kernels/twice")
    assert run("schema", "--write") == 0
    assert capsys.readouterr().out == (
        "wrote ../../kernels/kernel.schema.json\nwrote ../../manifests/pack.schema.json\n"
    )
    assert (demo.root / "kernels/kernel.schema.json").is_file()


def test_schema_write_json_names_the_files(demo, capsys):
    assert run("schema", "--write", "--json", "--root", demo.root) == 0
    assert json.loads(capsys.readouterr().out) == {
        "format": 1,
        "files": [
            f"{demo.root}/kernels/kernel.schema.json",
            f"{demo.root}/manifests/pack.schema.json",
        ],
    }


def test_schema_write_without_a_pack_writes_nothing(tmp_path, capsys):
    (tmp_path / "kernels").mkdir()
    assert run("schema", "--write", "--root", tmp_path) == 2
    assert capsys.readouterr().err == (
        f"kernelpkg: {tmp_path}/manifests is not a directory; go to a pack, or give --root DIR\n"
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
