"""The drawing of a map: well-formed, aligned, nothing over another, and every outcome told."""

from __future__ import annotations

import itertools
import re
import xml.etree.ElementTree as ET
from collections import defaultdict
from pathlib import Path

import pytest
from attrs import evolve

from kernelpkg.configs.selection import make_selection
from kernelpkg.configs.store import ConfigFile, TunedCase
from kernelpkg.expr.language import parse_expr
from kernelpkg.manifest.spec import Reference
from kernelpkg.packs.read import read_kernel, read_pack
from kernelpkg.report import svg
from kernelpkg.report.coverage import cover
from kernelpkg.report.coverage_chart import LETTERS, draw
from kernelpkg.report.pack_coverage import PackCoverage, cover_pack

ROOT = Path(__file__).parents[2]
GOLDEN = Path(__file__).parents[1] / "golden" / "coverage.svg"
SVG = "{http://www.w3.org/2000/svg}"
SPEC = read_kernel(ROOT, "silu_mul_fp8")
MODELS = {
    "large": {"intermediate_size": 28672},
    "odd": {"intermediate_size": 4097},
    "nothing": {"hidden_size": 1},
    "wrong": {"intermediate_size": -2},
}


def one(
    spec=SPEC,
    *,
    sizes=(2048, 14336),
    tokens=(1, 16, 300),
    platform="nvidia_h200",
    of=None,
    configs=({"num_warps": 4},),
):
    keys = [
        {"in_dtype": "bfloat16", "intermediate_size": size, "num_tokens": number}
        for size, number in itertools.product(sizes, tokens)
    ]
    file = ConfigFile(
        kernel=spec.name,
        platform=of or platform,
        configs=configs,
        cases=tuple(TunedCase(key=key, config=0) for key in keys),
    )
    return cover(make_selection(spec, platform, [file] if keys else []), MODELS)


def pack(*maps, notes=()):
    platforms = tuple(dict.fromkeys(found.platform for found in maps))
    return PackCoverage(
        pack="demo", namespace="demo", platforms=platforms, maps=maps, problems=(), notes=notes
    )


GUARDED = evolve(
    SPEC, guards=tuple(map(parse_expr, ["intermediate_size % 2 == 0", "num_tokens < 4096"]))
)
ALL = pack(
    one(GUARDED),
    one(evolve(SPEC, miss="error"), sizes=(), platform="nvidia_b200"),
    one(of="nvidia_h100"),
    one(evolve(SPEC, picker=Reference(file="host.py", name="pick"))),
    one(evolve(SPEC, grids=())),
    one(evolve(SPEC, rules=tuple(evolve(rule, match="exact") for rule in SPEC.rules))),
    notes=("a <note> of two & more",),
)
SHORT = pack(one(GUARDED, sizes=(2048,)))


def shapes(text):
    """Yield (x, y, element) of all that is drawn, with what is used again where it is used."""
    root = ET.fromstring(text)
    names = {found.get("id"): found for found in root.iter() if found.get("id")}

    def inside(element, dx, dy):
        for found in element:
            if found.tag == f"{SVG}g":
                moved = [*map(int, re.findall(r"\d+", found.get("transform") or "")), 0, 0]
                yield from inside(found, dx + moved[0], dy + moved[1])
            elif found.tag == f"{SVG}use":
                x, y = (int(found.get(name, 0)) for name in "xy")
                whole = ET.Element(f"{SVG}svg")
                whole.append(names[found.get("href").removeprefix("#")])
                yield from inside(whole, dx + x, dy + y)
            elif found.tag in (f"{SVG}rect", f"{SVG}text"):
                yield dx + int(found.get("x", 0)), dy + int(found.get("y", 0)), found

    yield from inside(root, 0, 0)


def boxes(text):
    """Yield (x, y, width, height, class) of every rectangle, but for the page and hatchings."""
    for x, y, box in shapes(text):
        if box.tag == f"{SVG}rect" and box.get("class") not in (None, "page"):
            yield x, y, int(box.get("width")), int(box.get("height")), box.get("class")


def words(text):
    """Yield (left, right, base line, text) of every text, as wide as it may become."""
    for x, y, found in shapes(text):
        if found.tag == f"{SVG}text":
            inside = "inside" in (found.get("class") or "")
            size = 10 if inside else int(found.get("font-size", 11))
            wide = svg.width(found.text, size)
            left = x - wide // 2 if inside or found.get("text-anchor") == "middle" else x
            yield left, left + wide, y, found.text


def tips(text):
    """Yield what is told where one points at something, with the cells that are there."""
    root = ET.fromstring(text)
    names = {found.get("id"): found for found in root.iter() if found.get("id")}
    for group in root.iter(f"{SVG}g"):
        title = group.find(f"{SVG}title")
        if title is not None:
            yield title.text, [names[u.get("href")[1:]] for u in group.findall(f"{SVG}use")]


@pytest.mark.parametrize("drawn", [ALL, SHORT, pack()], ids=["all", "short", "empty"])
def test_everything_is_on_the_page(drawn):
    """Nothing is cut at the right or at the bottom."""
    text = draw(drawn)
    root = ET.fromstring(text)
    wide, high = int(root.get("width")), int(root.get("height"))
    for x, y, w, h, _ in boxes(text):
        assert 0 <= x < x + w <= wide
        assert 0 <= y < y + h <= high
    for left, right, base, what in words(text):
        assert 0 <= left < right <= wide, what
        assert 0 < base <= high, what


def test_nothing_lies_over_another():
    """Cells of one line do not overlap, nor do texts."""
    text = draw(ALL)
    for found in (
        [(y, x, x + wide) for x, y, wide, _, _ in boxes(text)],
        [(base, left, right) for left, right, base, _ in words(text)],
    ):
        lines = defaultdict(list)
        for y, left, right in found:
            lines[y].append((left, right))
        for line in lines.values():
            for one, other in itertools.pairwise(sorted(line)):
                assert one[1] <= other[0] + 1, (one, other)


def test_every_cell_has_a_letter_and_a_tip():
    """No outcome is told by its colour alone."""
    seen = set()
    for tip, cells in tips(draw(ALL)):
        assert tip
        for cell in cells if tip != "as a row above" else ():
            (box,) = (found for found in cell.findall(f"{SVG}rect") if found.get("class"))
            letter = cell.find(f"{SVG}text").text[0]
            assert letter == LETTERS[box.get("class").split()[0]]
            seen.add(letter)
    assert seen == set(LETTERS.values())


def test_rows_that_say_the_same_are_written_once():
    """They are drawn each in its place, and a tip says where to point for more."""
    drawn = draw(pack(one(sizes=(4096,), tokens=(1,))))
    told = [tip for tip, _ in tips(drawn)]
    assert told.count("num_tokens 1: exact; num_warps=4") == 1
    assert told.count("num_tokens 1: extrapolated, takes intermediate_size=4096; num_warps=4") == 1
    assert told.count("as a row above") == 11
    firsts = [box for box in boxes(drawn) if box[2] == 32]
    assert len({y for _, y, *_ in firsts}) == len(firsts) == 13


def test_tips_say_which_calls_and_what_they_get():
    told = [tip for tip, _ in tips(draw(SHORT))]
    assert "num_tokens 17 to 299: bucketed, takes num_tokens=300; num_warps=4" in told
    assert "num_tokens 16: exact; num_warps=4" in told
    assert "num_tokens 4096 up: refused by guard 'num_tokens < 4096'" in told
    assert (
        "88 calls: 2 exact, 3 bucketed, 61 extrapolated, 22 refused; farthest "
        "intermediate_size 28672 -> 2048 (14x above)" in told
    )


def test_tips_say_where_a_default_comes_from_and_leave_lists_out():
    """A config of Helion's search is hundreds of letters long; no one reads them in a tip."""
    lists = {"block_sizes": [16, 1], "indexing": ["pointer"] * 9, "loop_orders": [[0, 1]]}
    borrowed = one(of="nvidia_h100", configs=({**lists, "num_warps": 4},))
    assert (
        "num_tokens 2 to 15: default (borrowed from nvidia_h100), takes num_tokens=16; "
        "block_sizes=[16, 1], num_warps=4, 2 more lists"
        in [tip for tip, _ in tips(draw(pack(borrowed)))]
    )


def test_one_call_and_one_list_are_told_in_the_singular():
    found = one(configs=({"block_sizes": [16], "indexing": ["pointer"], "num_warps": 4},))
    rows = (evolve(found.rows[0], cells=found.rows[0].cells[:1]),)
    told = [tip for tip, _ in tips(draw(pack(evolve(found, rows=rows, models=()))))]
    assert any(tip.endswith("block_sizes=[16], num_warps=4, 1 more list") for tip in told)
    assert "1 call: 1 exact" in told


def test_what_cannot_be_mapped_is_told():
    """Kernels with pickers of their own, ops without cases, models that are wrong."""
    told = {what for _, _, _, what in words(draw(ALL))}
    assert {
        "? unverified: picks with 'host.py:pick', which needs the arguments of a call",
        "no cases to tune",
        "– cannot be mapped",
        "a <note> of two & more",
    } <= told


def test_many_columns_are_drawn_narrower():
    """The page does not grow with the number of tuned values without end."""
    text = draw(pack(one(tokens=tuple(range(1, 400, 2)))))
    assert int(ET.fromstring(text).get("width")) < 3000


def test_the_same_map_is_the_same_drawing():
    """The bytes follow from the map alone, and are those of the golden file."""
    text = draw(SHORT)
    assert text == draw(SHORT)
    assert text == GOLDEN.read_text()


def test_the_first_pack_is_drawn():
    """A panel for each op, with a title for who hears it."""
    text = draw(cover_pack(read_pack(ROOT, "kernelpkg")))
    root = ET.fromstring(text)
    assert root.find(f"{SVG}title").text == "Coverage of pack kernelpkg"
    described = root.find(f"{SVG}desc").text
    assert "silu_mul_fp8 on nvidia_h200: 88 calls: 88 exact." in described
    assert sum(" on nvidia_h200" in what for *_, what in words(text)) == 8
