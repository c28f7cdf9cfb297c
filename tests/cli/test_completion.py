"""What shells complete: commands, options, choices, and names of ops and platforms."""

from __future__ import annotations

import sys

import pytest

from kernelpkg import cli


@pytest.fixture
def completed(demo, monkeypatch, capsys):
    """Completes the last word of a line for the pack `demo`; returns what may stand there."""
    demo.kernel("thrice")
    demo.configs("twice", platform="nvidia_h100_nvl")

    def complete(line: str) -> list[str]:
        words = line.replace("DEMO", str(demo.root)).split(" ")
        monkeypatch.setenv("_KERNELPKG_COMPLETE", "bash_complete")
        monkeypatch.setenv("COMP_WORDS", " ".join(["kernelpkg", *words]))
        monkeypatch.setenv("COMP_CWORD", str(len(words)))
        assert cli.main([]) == 0
        out, err = capsys.readouterr()
        assert err == ""
        return [row.partition(",")[2] for row in out.split()]

    return complete


LINES = {
    "command": ("ch", ["check"]),
    "option": ("autotune --case", ["--case-timeout"]),
    "choice": ("load --device c", ["cpu", "cuda"]),
    "ops": ("check --root DEMO t", ["thrice", "twice"]),
    "second-op": ("check --root DEMO thrice tw", ["twice"]),
    "op-to-time": ("bench --quick --root DEMO th", ["thrice"]),
    "op": ("explain --root DEMO thr", ["thrice"]),
    "op-behind-the-root-before": ("--root DEMO explain thr", ["thrice"]),
    "namespace": ("show --root DEMO demo::tw", ["demo::twice"]),
    "platform": (
        "check --root DEMO --platform nvidia_h100",
        ["nvidia_h100_nvl", "nvidia_h100"],
    ),
    "platform-behind-a-comma": ("build --platform cpu,nvidia_gb3", ["cpu,nvidia_gb300"]),
    "no-pack": ("check --root /no/where t", []),
    "no-command": ("lod --conf", ["--configs"]),
}


@pytest.mark.parametrize(("line", "words"), LINES.values(), ids=LINES)
def test_a_shell_completes(completed, line, words):
    assert completed(line) == words


def test_commands_are_completed_without_their_modules(completed, monkeypatch):
    monkeypatch.setitem(sys.modules, "kernelpkg.cli.autotune", None)
    assert {"autotune", "explain", "list"} < {*completed("")}


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_shells_get_what_tells_them_to_ask(shell, monkeypatch, capsys):
    monkeypatch.setenv("_KERNELPKG_COMPLETE", f"{shell}_source")
    assert cli.main([]) == 0
    assert f"_KERNELPKG_COMPLETE={shell}_complete" in capsys.readouterr().out
