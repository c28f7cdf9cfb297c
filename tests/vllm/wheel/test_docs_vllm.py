"""The pages on vLLM: every command and every program of them, and what it prints, word for word."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

pytestmark = pytest.mark.vllm

ROOT = Path(__file__).parents[3]
COMMANDS = {"vllm": 3, "vendor": 10, "from_vllm": 6}
"""The pages, and how many commands each has."""


def blocks(page: str) -> list[tuple[str, str]]:
    """Return the blocks of a page, each with its language, without their indentation."""
    text = (ROOT / "docs" / "guide" / f"{page}.md").read_text()
    return [
        (kind, re.sub(f"^{indent}", "", block, flags=re.MULTILINE))
        for indent, kind, block in re.findall(
            r"^( *)```(\w+)\n(.*?)^ *```$", text, re.DOTALL | re.MULTILINE
        )
    ]


BLOCKS = [block for page in COMMANDS for block in blocks(page)]
PROGRAMS = [
    (block, shown)
    for (kind, block), (after, shown) in pairwise(BLOCKS)
    if (kind, after) == ("python", "text")
]

# What the page leaves to the machine of a server: the native ops, by their real schemas.
NATIVE = f"""\
import runpy
from functools import partial
from pathlib import Path

ROOT = Path({str(ROOT)!r})
space = runpy.run_path(str(ROOT / "benchmarks" / "native_ops.py"))
"""
ON_CPU = f"{NATIVE}ops = space['NativeOps'](partial(space['reference'], ROOT))\n"

# Stands in for the server: vLLM's own loader of plugins, and its logging, and no model.
SERVER = f"""\
{NATIVE}
import logging.config
import sys

from vllm import logger
from vllm.plugins import load_general_plugins

assert sys.argv[1:] == ["serve", "MODEL"]
ops = space["NativeOps"](lambda name: space["nothing"], key="CUDA")
logging.setLogRecordFactory(logger._VllmLogRecordFactory(logging.getLogRecordFactory()))
logging.config.dictConfig(logger.DEFAULT_LOGGING_CONFIG)
load_general_plugins()
"""

PIP = """\
import sys

assert sys.argv[1:] == ["install", "."]
"""


@pytest.fixture
def shell(site: Path, tmp_path: Path, plant: Callable[[Path], Path]) -> Callable[[str], str]:
    """Runs commands as a reader of the page does; returns what they print."""
    work = tmp_path / "work"
    plant(work / "vllm-src")
    plant(work / "vllm-0.33.0")
    for name in ("manifests", "kernels", "configs"):
        shutil.copytree(ROOT / name, work / "pack" / name)
    programs = tmp_path / "bin"
    programs.mkdir()
    scripts = {
        "python": f'#!/bin/sh\nexec {sys.executable} "$@"\n',
        "vllm": f"#!{sys.executable}\n{SERVER}",
        "pip": f"#!{sys.executable}\n{PIP}",
    }
    for name, text in scripts.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    paths = [site, work / "vllm-src", ROOT, os.environ.get("PYTHONPATH", "")]
    kept = {name: value for name, value in os.environ.items() if "KERNELPKG" not in name}
    environment = {
        **kept,
        "PATH": os.pathsep.join([str(programs), str(Path(sys.executable).parent), kept["PATH"]]),
        "PYTHONPATH": os.pathsep.join(map(str, paths)),
        "CUDA_VISIBLE_DEVICES": "",  # the page shows a laptop
    }

    def run(command: str) -> str:
        return subprocess.run(
            ["bash", "-c", command],
            cwd=work,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        ).stdout

    return run


def assert_shown(printed: str, shown: str) -> None:
    """Fail unless what was printed is what the page shows, where `...` stands for any text."""
    pattern = re.escape(shown).replace(re.escape("..."), ".*")
    assert re.fullmatch(pattern, printed, re.DOTALL), f"{printed}\nis not\n{shown}"


@pytest.mark.parametrize("page", COMMANDS)
def test_the_commands_print_what_the_page_shows(shell, page):
    """From the top of the page to its end, in one directory."""
    consoles = [block for kind, block in blocks(page) if kind == "console"]
    commands = [
        command for block in consoles for command in re.split(r"^\$ ", block, flags=re.M)[1:]
    ]
    for command in commands:
        line, _, shown = command.partition("\n")
        assert_shown(shell(line), shown)
    assert len(commands) == COMMANDS[page]


def test_the_programs_print_what_the_page_shows(shell, tmp_path):
    """Each in a process that has the native ops."""
    for number, (code, shown) in enumerate(PROGRAMS):
        path = tmp_path / f"program_{number}.py"
        path.write_text(ON_CPU + code)
        assert_shown(shell(f"python {path}"), shown)


def test_every_program_has_its_output():
    """No block of the pages is left out by the tests above."""
    kinds = [kind for kind, _ in BLOCKS]
    assert set(kinds) == {"console", "python", "text"}
    assert kinds.count("python") == kinds.count("text") == len(PROGRAMS) == 2
