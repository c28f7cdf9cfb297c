"""The command `show`: an op whole."""

from __future__ import annotations

import json
from functools import partial

import pytest

from kernelpkg import cli
from kernelpkg.packs import find


@pytest.fixture
def show(on_demo):
    """Runs the command on `demo`; returns status, stdout and stderr."""
    return partial(on_demo, "show")


def test_an_op_is_shown_whole(capsys):
    assert cli.main(["show", "fused_qk_norm_rope", "--root", str(find.own_root())]) == 0
    out = capsys.readouterr().out
    labels = [line.split(":")[0] for line in out.splitlines() if line[:1] != " "]
    assert labels == [
        *("kernelpkg", "schema", "source", "fake_impl", "helion", "axes", "guard", "cases"),
        *("accuracy", "tuned for", "routes"),
    ]
    assert "num_tokens" in out
    assert "_C::fused_qk_norm_rope" in out
    assert " to tune, " in out


def test_rules_name_what_they_add_to_their_kind(demo, show):
    demo.edit("kernels/twice/kernel.toml", 'match = "ceil"', 'match = "ceil"\nover = "miss"')
    status, out, err = show("twice")
    assert (status, err) == (0, "")
    assert "(ceil (over miss))" in out


def test_the_document_has_what_the_text_has(show):
    status, out, _ = show("twice", "--json")
    document = json.loads(out)
    assert status == 0
    assert document["op"] == "demo::twice"
    assert document["cases"]["tune"] > 0
    assert {axis["name"] for axis in document["axes"]} >= {"num_tokens"}
    assert "structure" not in document
    assert document["backward"] is None


def test_a_backward_is_shown(copied, capsys):
    pack = copied("gradients")
    assert cli.main(["show", "weigh", "--root", str(pack.root)]) == 0
    lines = capsys.readouterr().out.splitlines()
    place = lines.index(
        "backward:  weigh_backward (grad return[0].grad, other return[1].grad, factors weight)"
    )
    assert lines[place + 1 : place + 3] == [
        "           gradient of input: its input",
        "           gradient of weight: its return",
    ]


def test_an_op_that_is_not_there_is_one_line(show):
    status, out, err = show("twise")
    assert (status, out) == (2, "")
    assert "twise" in err
    assert len(err.splitlines()) == 1
