"""The command `explain`: its lines, its document and its exit statuses."""

from __future__ import annotations

import json
import re

import pytest

from kernelpkg import cli
from kernelpkg.cli.codes import codes


def run(*arguments: object) -> int:
    return cli.main([str(argument) for argument in arguments])


H200 = ("--platform", "nvidia_h200")


def test_explain_says_which_rule_did_what(demo, capsys):
    demo.configs("twice")
    assert run("explain", "twice", "--root", demo.root, *H200, "num_tokens=3") == 0
    assert capsys.readouterr() == (
        (
            "twice on nvidia_h200\n"
            "call:    num_tokens=3\n"
            "rule:    num_tokens ceil: 3 takes the next larger tuned value: 4\n"
            "outcome: bucketed case num_tokens=4\n"
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
        "format": 1,
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
        ("dema::twice", "pack 'demo' has no op 'dema::twice'; did you mean 'demo::twice'?"),
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


@pytest.mark.parametrize("code", ["KP110", "kp110"])
def test_explain_of_a_code_says_what_it_means(code, capsys):
    """Without a pack or a platform."""
    assert run("explain", code) == 0
    assert capsys.readouterr() == (
        "KP110: A reference leaves the directory of its kernel. Move the file into it.\n",
        "",
    )


def test_explain_of_a_code_is_a_document_too(capsys):
    assert run("explain", "KP110", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {
        "format": 1,
        "code": "KP110",
        "means": "A reference leaves the directory of its kernel.",
        "remedy": "Move the file into it.",
    }


def test_the_text_of_a_code_has_no_markdown_and_fits_a_terminal(capsys):
    for code in codes():
        assert run("explain", code) == 0
        lines = capsys.readouterr().out.splitlines()
        assert max(map(len, lines)) <= 80
        assert not re.search(r"`|\]\(", " ".join(lines))
        assert lines[-1].endswith(".")


@pytest.mark.parametrize(
    ("code", "line"),
    [
        ("KP199", "'KP199' is not a code; did you mean 'KP1"),
        ("kp" + "0" * 9, "'KP000000000' is not a code\n"),
    ],
)
def test_a_code_that_is_not_there_is_wrong_usage(code, line, capsys):
    assert run("explain", code) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith(f"kernelpkg: {line}")
