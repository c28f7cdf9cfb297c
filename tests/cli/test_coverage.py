"""`coverage` as a command: its page, its options, its statuses, and what it refuses."""

# ruff: noqa: E501  # tables of cases and messages have whole lines

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from kernelpkg import cli

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "guide" / "coverage.md"


def run(*arguments: object) -> int:
    try:
        return cli.main([str(argument) for argument in arguments])
    except SystemExit as error:
        return int(error.code or 0)


@pytest.fixture
def pack(demo):
    """The pack "demo" with configs of "twice"."""
    demo.configs("twice")
    return demo


def test_the_page_shows_what_happens(run_page):
    assert run_page(PAGE) == 5


def test_the_tables_and_the_details_of_the_only_op(pack, capsys):
    assert run("coverage", "--root", pack.root) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out == (
        "calls of the grid on nvidia_h200\n"
        "op     cases  calls  exact  farthest\n"
        "twice  2      2      2      -\n"
        "\n"
        "twice on nvidia_h200: 2 cases, 1 config, configs/twice/nvidia_h200.json\n"
        "grid, by num_tokens (ceil)\n"
        "    exact         1, 4\n"
        "    bucketed      2-3 -> 4\n"
        "    extrapolated  5.. -> 4\n"
    )


def test_details_come_where_ops_are_named(pack, capsys):
    """Of several ops, the tables alone are printed without."""
    pack.kernel("thrice")
    assert run("coverage", "--root", pack.root) == 0
    short = capsys.readouterr().out
    assert run("coverage", "thrice", "--root", pack.root, "twice") == 0
    long = capsys.readouterr().out
    assert long.startswith(short)
    assert "thrice on nvidia_h200: " in long
    assert "twice on nvidia_h200: " in long


def test_platforms_may_be_a_list_or_many_options(pack, capsys):
    names = ["nvidia_a100", "nvidia_b200"]
    for given in ([names[0], "--platform", names[1]], [",".join(names)]):
        assert run("coverage", "--root", pack.root, "--json", "--platform", *given) == 0
        assert json.loads(capsys.readouterr().out)["platforms"] == names


def test_a_pack_without_configs_says_so(demo, capsys):
    """It is not a finding: the map is empty."""
    assert run("coverage", "--root", demo.root) == 0
    assert capsys.readouterr().out == (
        "pack 'demo' has no configs for any platform; name one with --platform\n"
    )


def test_broken_files_are_findings_and_hide_nothing(pack, capsys):
    pack.kernel("thrice")
    pack.configs("thrice", "{")
    assert run("coverage", "--root", pack.root, "--json") == 1
    out, err = capsys.readouterr()
    assert err.startswith("configs/thrice/nvidia_h200.json:1: KP501 ")
    assert [op["kernel"] for op in json.loads(out)["ops"]] == ["twice"]


def test_overlays_are_looked_at_first(pack, tmp_path, capsys):
    (tmp_path / "mine" / "twice").mkdir(parents=True)
    own = pack.root / "configs" / "twice" / "nvidia_h200.json"
    own.rename(tmp_path / "mine" / "twice" / "nvidia_h200.json")
    assert run("coverage", "--root", pack.root, "--configs", tmp_path / "mine") == 0
    assert f"2 cases, 1 config, {tmp_path}/mine/twice/nvidia_h200.json" in capsys.readouterr().out


def test_it_draws_into_a_file_and_over_a_drawing(pack, tmp_path, capsys):
    """A second run replaces what the first wrote, with the same bytes."""
    path = tmp_path / "new" / "map.svg"
    for _ in range(2):
        assert run("coverage", "--root", pack.root, "--svg", path) == 0
        assert capsys.readouterr().out.endswith(f"\nwrote {path}\n")
    assert ET.parse(path).getroot().tag == "{http://www.w3.org/2000/svg}svg"
    assert sorted(found.name for found in path.parent.iterdir()) == ["map.svg"]


def test_the_drawing_that_the_page_shows_is_that_of_the_first_pack(tmp_path):
    """`kernelpkg coverage --svg docs/guide/coverage.svg` draws it again, the overview alone."""
    assert run("coverage", "--pack", "kernelpkg", "--svg", tmp_path / "coverage.svg") == 0
    shown = ROOT / "docs" / "guide" / "coverage.svg"
    assert (tmp_path / "coverage.svg").read_bytes() == shown.read_bytes()
    one, several = tmp_path / "one.svg", ("silu_mul_fp8", "fused_qk_norm_rope")
    assert run("coverage", *several, "--pack", "kernelpkg", "--svg", one) == 0
    assert "Overview" in shown.read_text()
    assert [">silu_mul_fp8 on nvidia_h200<" in f.read_text() for f in (shown, one)] == [False, True]
    assert shown.stat().st_size < 250_000
    assert "](coverage.svg)" in (shown.parent / "coverage.md").read_text()


def test_what_is_not_whole_is_not_drawn(pack, tmp_path, capsys):
    """A drawing without an op whose files are wrong would look as if there were no such op."""
    pack.kernel("thrice")
    pack.configs("thrice", "{")
    path = tmp_path / "map.svg"
    path.write_text("<svg/>")
    assert run("coverage", "--root", pack.root, "--svg", path) == 1
    out, err = capsys.readouterr()
    assert err.splitlines()[-1] == f"{path} is not drawn, because the map is incomplete"
    assert "wrote" not in out
    assert path.read_text() == "<svg/>"


def test_with_json_the_drawing_is_not_told(pack, tmp_path, capsys):
    assert run("coverage", "--root", pack.root, "--json", "--svg", tmp_path / "map.svg") == 0
    assert json.loads(capsys.readouterr().out)["pack"] == "demo"
    assert (tmp_path / "map.svg").is_file()


def test_it_draws_over_nothing_else(pack, tmp_path, capsys):
    """Text stays as it is, whatever its name; a directory is none either."""
    path = tmp_path / "notes.svg"
    path.write_text("my notes")
    (tmp_path / "folder.svg").mkdir()
    lines = {
        path: f"{path} is there, and is not an SVG; choose another name, or remove it",
        tmp_path / "map.py": f"'{tmp_path}/map.py' is drawn as SVG; give it a name that ends "
        "with .svg",
        tmp_path / "folder.svg": f"{tmp_path}/folder.svg cannot be read: Is a directory",
        path / "map.svg": f"{path}/map.svg cannot be read: Not a directory",
    }
    for name, line in lines.items():
        assert run("coverage", "--root", pack.root, "--svg", name) == 2
        assert capsys.readouterr() == ("", f"kernelpkg: {line}\n")
    assert path.read_text() == "my notes"


USAGE = {
    "op": (["twise"], "pack 'demo' has no op 'twise'; did you mean 'twice'?"),
    "model": (["--models", "x"], "pack 'demo' has no model 'x' in [models]; it has none"),
    "option": (["--plattform", "cpu"],
        "'--plattform' is not an option of 'coverage'; did you mean '--platform'?; see 'kernelpkg coverage --help'"),
}  # fmt: skip


@pytest.mark.parametrize(("arguments", "line"), USAGE.values(), ids=USAGE)
def test_wrong_usage_is_one_line_and_status_2(pack, capsys, arguments, line):
    assert run("coverage", "--root", pack.root, *arguments) == 2
    assert capsys.readouterr() == ("", f"kernelpkg: {line}\n")
