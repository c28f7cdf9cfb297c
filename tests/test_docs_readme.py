"""The README answers a visitor's five questions on its first screen, and says what is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kernelpkg.configs.platforms import resolve
from kernelpkg.configs.selection import read_selection
from kernelpkg.manifest.cases import cases_of
from kernelpkg.packs.read import read_kernel, read_pack

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PLATFORMS = ROOT / "docs" / "reference" / "platforms.md"
FIRST_SCREEN = README.partition("\n## ")[0]
QUESTIONS = (
    "What is it?",
    "What do I gain?",
    "Does it run on my GPU?",
    "How do I switch it on in vLLM?",
    "How do I write a kernel?",
)


def headings(page):
    """Return the anchors that GitHub makes of the headings of a page."""
    found = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_question_is_a_link_to_its_answer(question):
    """To a heading of this page or of another, which is there."""
    (link,) = re.findall(rf"\[{re.escape(question)}\]\(([^)\s]+)\)", FIRST_SCREEN)
    file, _, anchor = link.partition("#")
    page = ROOT / (file or "README.md")
    assert page.is_file(), link
    assert anchor in headings(page), link


def test_the_first_screen():
    """A promise in one sentence, for whom, and the bars; no output of a machine without a GPU."""
    _, promise, whom, *_ = FIRST_SCREEN.split("\n\n")
    assert re.findall(r"[.?!](?=\s|$)", promise) == ["."]
    assert len(promise.split()) < 45
    pages = re.findall(r"^- .+\]\((\S+)\)\.$", whom, re.M)
    assert pages == ["docs/tutorial/adding.md", "docs/guide/vllm.md", "docs/guide/operate.md"]
    assert "docs/faster-light.svg" in FIRST_SCREEN
    assert "no GPU" not in FIRST_SCREEN
    assert "```" not in FIRST_SCREEN


def row(start):
    """Return the cells of the one row of a table that begins so."""
    (found,) = re.findall(rf"^\| {re.escape(start)}.*$", README, re.M)
    return [cell.strip() for cell in found.strip("|").split(" | ")]


@pytest.mark.parametrize(
    ("gpus", "gets", "outcome", "reason"),
    [
        ("H200", "tuned, compiled ahead", "exact", ""),
        (
            "H100, H20, H800, GH200, B200, GB200, B300",
            "configs of the H200",
            "default",
            "from nvidia_h200",
        ),
        ("L4, L40S, RTX 4090, RTX 5090, RTX PRO 6000", "default configs", "default", "[helion]"),
        ("A100, A30, A10, A40", "default configs", "default", "[helion]"),
        ("AMD MI210, MI250X, MI300X, MI325X, MI355X", "default configs", "default", "[helion]"),
    ],
    ids=["tuned", "borrowed", "ada", "ampere", "amd"],
)
def test_gpus_get_what_their_row_says(gpus, gets, outcome, reason):
    """The first call of each op's grid for tuning, on each GPU that the row names."""
    assert row(gpus)[2].startswith(gets)
    pack = read_pack(ROOT, "kernelpkg")
    table = "".join(re.findall(r"^\| .*\n", PLATFORMS.read_text(encoding="utf-8"), re.M))
    known = re.findall(r"`((?:nvidia|amd)_\w+)`", table)
    for name in gpus.removeprefix("AMD ").lower().replace(" ", "_").split(",_"):
        (platform,) = (found for found in known if f"_{name}_" in f"{found}_")
        for kernel in pack.kernels:
            spec = read_kernel(ROOT, kernel)
            call = cases_of(spec, "tune")[0]
            values = tuple(call.values.get(axis.name) for axis in spec.axes)
            best, *_ = read_selection(pack, spec, resolve(platform)).options(values)
            assert best.outcome == outcome, (platform, best)
            assert reason in best.reason, (platform, best)


def test_what_is_compiled_ahead_is_for_the_gpu_of_its_row():
    assert [path.name for path in (ROOT / "builds" / "kernelpkg").iterdir()] == ["nvidia_h200"]


def test_the_lines_are_those_of_the_comparison():
    """tests/helion/test_docs_adding.py counts them there."""
    page = (ROOT / "docs" / "explanation" / "before_after.md").read_text(encoding="utf-8")
    counts = re.findall(r"^\| (?:by hand|here), of .* \| (\d+) \|$", page, re.M)
    assert re.findall(r"\d+", " ".join(row("one kernel, beside")[1:])) == counts


def test_the_commands_of_make_are_there():
    """What CI runs, `.ci/run`, is one of them."""
    targets = re.findall(r"^make (\w+)", README, re.M)
    known = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    assert {"demo", "test"} <= set(targets) <= set(known)
    assert "\nmake test\n" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
