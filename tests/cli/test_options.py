"""What commands are declared with: the values that their options take."""

from __future__ import annotations

import click
import pytest

from kernelpkg import cli
from kernelpkg.cli import options


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("30s", 30), ("10m", 600), ("1h", 3600), ("007", 7)]
)
def test_a_time_has_a_unit_or_is_seconds(text, seconds):
    assert options.duration(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "0s", "h", "1d", "-1", "1.5h", "1 h", "1m30s", "9" * 99])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(click.BadParameter, match="is not a time such as 30s, 10m or 1h"):
        options.duration(text)


@pytest.mark.parametrize(
    ("text", "share"), [("2", 0.02), ("2%", 0.02), ("0", 0.0), ("99.5%", 0.995)]
)
def test_a_percentage_is_taken_as_a_share(text, share):
    assert options.percent(text) == pytest.approx(share)


@pytest.mark.parametrize("text", ["", "%", "x", "-1", "100", "nan", "2%%"])
def test_what_is_no_percentage_is_refused(text):
    with pytest.raises(click.BadParameter, match="is not a percentage of at least 0 and below 100"):
        options.percent(text)


def test_names_have_commas_or_options_of_their_own():
    """Spaces beside the commas are no part of them."""
    assert options.listed("nvidia_h200, nvidia_h100,") == ["nvidia_h200", "nvidia_h100"]


ONE = ["show twice", "explain twice", "autotune --dry-run", "bench", "import helion x"]
MANY = ["check", "coverage", "build --check"]


@pytest.mark.parametrize("words", ONE)
def test_commands_that_take_one_platform_refuse_several(words, demo, capsys):
    several = ["--platform", "cpu", "--platform", "nvidia_h200"]
    assert cli.main([*words.split(), "--root", str(demo.root), *several]) == 2
    line = "kernelpkg: this command takes one --platform, not cpu, nvidia_h200\n"
    assert capsys.readouterr() == ("", line)


@pytest.mark.parametrize("words", [*ONE, *MANY])
def test_a_platform_that_is_not_known_is_wrong_usage_in_every_command(words, demo, capsys):
    asked = ["--root", str(demo.root), "--platform", "nvidia_h20O"]
    assert cli.main([*words.split(), *asked]) == 2
    line = "'nvidia_h20O' is not a platform that is known here; did you mean 'nvidia_h20'?"
    assert capsys.readouterr() == ("", f"kernelpkg: {line}\n")


def test_a_platform_of_the_manifest_is_known(demo, capsys):
    """A GPU of which nothing else is known, and that has no files yet."""
    demo.edit(
        "manifests/demo.toml", "[pack]", '[platforms]\nnames = {my_gpu_80gb = "my_gpu"}\n[pack]'
    )
    for name in ("My GPU 80GB", "my_gpu"):
        asked = ["--root", str(demo.root), "--platform", name]
        assert cli.main(["check", *asked]) == 0
