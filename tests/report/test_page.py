"""The page of a pack: whole, of one file, small, and without an error in a browser."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from html.parser import HTMLParser
from pathlib import Path

import pytest
from attrs import evolve

from kernelpkg.errors import KernelpkgError, Problem
from kernelpkg.packs.read import read_kernel, read_pack
from kernelpkg.report import charts
from kernelpkg.report.pack_coverage import cover_pack
from kernelpkg.report.page import PageFacts, make_page

from .test_measured import row, run

ROOT = Path(__file__).parents[2]
NAMES = ("silu_mul_fp8", "fused_qk_norm_rope")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture(scope="module")
def facts():
    pack = evolve(read_pack(ROOT, "kernelpkg"), namespace="ns", version="1.2.3")
    kernels = tuple(read_kernel(ROOT, name) for name in NAMES)
    rows = [
        row(
            {"intermediate_size": size, "num_tokens": tokens, "in_dtype": "bfloat16"},
            float(tokens),
            op="silu_mul_fp8",
            native=1 / (1 + size / 4096),
            compile=0.5,
            copy=1.25,
        )
        for size in (2048, 4096)
        for tokens in (1, 16, 256)
    ]
    slow = [row({"num_tokens": 1}, op="fused_qk_norm_rope", native=1.25)]
    return PageFacts(
        pack=pack,
        kernels=kernels,
        coverage=cover_pack(pack, ops=NAMES),
        runs=(run(rows + slow, 1), run(rows, 2)),
        findings=(Problem(path="a.toml", line=3, code="KP101", message="<b>wrong</b>"),),
        lock="locked",
        tools={"torch": "2.13.0"},
        date="2026-11-30",
    )


@pytest.fixture(scope="module")
def page(facts):
    return make_page(facts)


class Elements(HTMLParser):
    """The elements of a page; of those with an end, each has one in its place."""

    def __init__(self, text):
        super().__init__()
        self.found, self.open, self.text = [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"script", "style"} & {*self.open}:
            self.text.append(" ".join(data.split()))


def drawn(page):
    return json.loads(re.search(r"const specs = (\{.*\});\n", page)[1])


def test_it_is_one_small_file_that_loads_nothing(page):
    """Its charts have places, and its links lead into it."""
    found = Elements(page)
    assert found.open == []
    ids = [attrs["id"] for _, attrs in found.found if "id" in attrs]
    assert len(ids) == len({*ids})
    for tag, attrs in found.found:
        assert not {"src", "srcset", "data"} & attrs.keys(), tag
        assert tag not in ("link", "img", "iframe")
        assert attrs.get("href", "#ops").removeprefix("#") in ids
    assert {*drawn(page)} <= {*ids}
    assert len(page.encode()) < 1_500_000


def test_what_is_shown_is_what_was_measured(page):
    text = "\n".join(Elements(page).text)
    assert "1.2.3" in text
    assert "1 of 1 case slower than a baseline" in text
    assert "a.toml:3: KP101 <b>wrong</b>" in text
    assert "torch 2.13.0" in text
    specs = drawn(page)
    values = specs["speed-0-0"]["data"]["values"]
    assert [v["native"] for v in values] == [1.5, 1.5, 1.5, 2.0, 2.0, 2.0]
    assert [v["v"] for v in specs["share-0-0"]["data"]["values"]] == [0.8] * 6
    assert specs["speed-0-0"]["params"][0]["bind"]["options"] == ["native", "compile"]
    assert [v["v"] for v in specs["history-0"]["data"]["values"][:2]] == [1.73, 2.0]


def test_nothing_of_a_pack_is_taken_for_code(facts):
    """What ends a script, or begins an element, stands in no text as it is."""
    evil = "</script><script>alert(1)</script>"
    kernels = tuple(evolve(spec, summary=evil) for spec in facts.kernels)
    runs = (run([row({"s": evil, "n": n}, op="silu_mul_fp8", native=0.5) for n in (1, 2)]),)
    found = make_page(evolve(facts, kernels=kernels, runs=runs, lock=evil))
    assert "<script>alert" not in found
    assert evil not in found


def test_a_pack_that_nobody_measured_says_so(facts):
    text = "\n".join(Elements(make_page(evolve(facts, runs=(), findings=()))).text)
    assert "Nothing has been measured yet" in text
    assert "finds nothing wrong" in text


@pytest.mark.parametrize("name", ["vl_convert", "jinja2"])
def test_what_is_not_installed_is_one_line(facts, monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    charts.drawing_code.cache_clear()
    with pytest.raises(KernelpkgError) as caught:
        make_page(facts)
    told = f"kernelpkg: a report needs '{name}', which is not installed; "
    assert str(caught.value) == told + "pip install 'jinja2>=3.1' 'vl-convert-python>=1.8'"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needs = project["optional-dependencies"]["report"]
    assert told + f"pip install {shlex.join(needs)}" == str(caught.value)


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
@pytest.mark.parametrize("width", [375, 1440])
def test_a_browser_draws_it_without_an_error(page, tmp_path, width):
    """No line in the console, every chart on the way drawn, and nothing wider than the screen."""
    told = "document.documentElement.scrollWidth, document.querySelectorAll('.chart svg').length"
    watch = f"<script>setInterval(() => parent.document.title = [{told}].join(' '), 50)</script>"
    (tmp_path / "page.html").write_text(page.removesuffix("</body>\n</html>\n") + watch)
    frame = f'<title></title><iframe src="page.html" width="{width}" height="4000"></iframe>'
    (tmp_path / "frame.html").write_text(frame)  # no window is as narrow as a phone
    done = subprocess.run(
        [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
         "--allow-file-access-from-files", "--virtual-time-budget=20000", "--dump-dom",
         f"--user-data-dir={tmp_path / 'profile'}", (tmp_path / "frame.html").as_uri()],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert [line for line in done.stderr.splitlines() if ":CONSOLE" in line] == []
    wide, seen = re.search(r"<title>(\d+) (\d+)</title>", done.stdout).groups()
    assert int(wide) <= width
    assert int(seen) == len(drawn(page))
