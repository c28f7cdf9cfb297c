"""The command `list`: its table, its document, and what it says of what is broken."""

from __future__ import annotations

import json
import os

from kernelpkg import cli
from kernelpkg.packs import find


def run(*arguments: object) -> int:
    return cli.main([str(argument) for argument in arguments])


def test_list_shows_each_pack_as_a_table(demo, capsys):
    demo.kernel("second")
    demo.configs("twice")
    assert run("list", "--root", demo.root) == 0
    assert capsys.readouterr() == (
        (
            "pack demo 0.1.0 (from --root)\n"
            "op            cases  tuned for    summary\n"
            "demo::second  2      -            Twice the input.\n"
            "demo::twice   2      nvidia_h200  Twice the input.\n"
            "all: version 1\n"
        ),
        "",
    )


def test_list_json_has_every_pack(demo, capsys):
    demo.configs("twice")
    assert run("list", "--root", demo.root, "--json") == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert json.loads(out) == {
        "format": 1,
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
        ],
    }


def test_list_shows_the_rest_where_something_is_broken(demo, capsys):
    demo.kernel("bad")
    (demo.root / "kernels/bad/kernel.toml").write_text("edition = 2\n")
    (demo.root / "manifests/other.toml").write_text("edition = 3\n")
    assert run("list", "--root", demo.root) == 1
    out, err = capsys.readouterr()
    assert out == (
        "pack demo 0.1.0 (from --root)\n"
        "op           cases  summary\n"
        "demo::twice  2      Twice the input.\n"
        "all: version 1\n"
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


def test_list_of_a_root_without_packs_is_wrong_usage(tmp_path, capsys):
    assert run("list", "--root", tmp_path) == 2
    assert capsys.readouterr() == (
        "",
        f"kernelpkg: {tmp_path} has no packs; 'kernelpkg new NAME --root DIR' makes one\n",
    )


def test_the_own_pack_is_found_without_any_option(capsys):
    assert run("list", "--pack", "kernelpkg", "--json") == 0
    (pack,) = json.loads(capsys.readouterr().out)["packs"]
    assert pack["root"] == str(find.own_root())
    assert len(pack["kernels"]) == 7


def test_the_pack_around_the_current_directory_is_listed_before_others(demo, capsys, monkeypatch):
    monkeypatch.chdir(demo.root / "kernels/twice")
    assert run("list") == 0
    out = capsys.readouterr().out
    assert out.startswith("pack demo 0.1.0 (from the current directory)\n")
    assert "pack kernelpkg " in out
    assert run("show", "twice") == 0
    assert run("check", "--json") == 0


def test_a_directory_that_is_gone_holds_no_pack(tmp_path, capsys, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert run("list", "--pack", "kernelpkg") == 0
    assert "pack kernelpkg " in capsys.readouterr().out
