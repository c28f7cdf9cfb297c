"""The pictures of the README and of docs/explanation/concepts.md, each for light and dark pages.

    python docs/pictures.py

writes docs/faster-*.svg, the bars of the table in docs/inside/performance.md, and
docs/pipeline-*.svg, the way from a manifest to a launch. Text is large enough for a phone, which
shows a picture at a bit more than half its width.
"""

from __future__ import annotations

import re
from html import escape
from pathlib import Path
from typing import Any, Final

DOCS: Final = Path(__file__).parent
PAGE: Final = DOCS / "inside" / "performance.md"
COLOURS: Final = {
    "light": {
        "bar": "#0969da",
        "on_bar": "#ffffff",
        "text": "#1b1f24",
        "faint": "#57606a",
        "panel": "#f6f8fa",
        "line": "#d0d7de",
        "page": "#ffffff",
    },
    "dark": {
        "bar": "#6cb6ff",
        "on_bar": "#0d1117",
        "text": "#e6edf3",
        "faint": "#9da7b3",
        "panel": "#161b22",
        "line": "#30363d",
        "page": "#0d1117",
    },
}
FONT: Final = "-apple-system, 'Segoe UI', Roboto, Helvetica, Arial, sans-serif"

STAGES: Final = {
    "once, when the pack is loaded": {
        "manifest": "kernel.toml: the op's schema, its\naxes, guards, rules and test inputs",
        "pickers": "one for each op, made from its rules:\nexact, nearest, ceil and others",
        "op": "torch.ops.<pack>.<kernel>, with a\nfake implementation",
    },
    "once for each new shape": {
        "config": "block sizes, warps, stages: tuned for\nthis GPU or a relative, or a default",
    },
    "at every call": {
        "launch": "one look-up, then recorded code, from\na build or, without one, from Helion",
    },
}
"""The boxes of the pipeline by when they happen, with two lines on each."""

_WIDTH: Final = 560
_ROW, _GAP, _HEAD, _FOOT = 56, 24, 38, 14


def rows() -> list[tuple[str, float]]:
    """Return each op, and how many times as fast it is from 256 tokens on."""
    table = PAGE.read_text(encoding="utf-8").partition("| op | cases | times as fast, 256")[2]
    found = re.findall(r"^\| (\w+) \| \d+ \| ([0-9.]+) \|", table, re.MULTILINE)[:7]
    return [(op, float(value)) for op, value in found]


def chart(colours: dict[str, str]) -> dict[str, Any]:
    """Return the bars as a specification of Vega-Lite."""
    values = [{"op": op, "v": value, "told": f"{value:.2f}×"} for op, value in rows()]
    y = {"field": "op", "type": "nominal", "sort": None, "title": None, "axis": {"labelLimit": 400}}
    x = {
        "field": "v",
        "type": "quantitative",
        "title": "times as fast as vLLM's CUDA op",
        "scale": {"domain": [0, 4]},
        "axis": {"tickCount": 4},
    }
    text = {"type": "text", "align": "left", "dx": 5, "color": colours["text"], "fontSize": 16}
    return {
        "data": {"values": values},
        "width": 210,
        "height": {"step": 28},
        "background": None,
        "encoding": {"y": y},
        "layer": [
            {"mark": {"type": "bar", "color": colours["bar"]}, "encoding": {"x": x}},
            {"mark": text, "encoding": {"x": x, "text": {"field": "told"}}},
            {
                "mark": {"type": "rule", "strokeDash": [4, 3], "color": colours["text"]},
                "encoding": {"x": {"datum": 1}, "y": None},
            },
        ],
        "config": {
            "font": FONT,
            "view": {"stroke": None},
            "axis": {
                "labelColor": colours["text"],
                "titleColor": colours["text"],
                "gridColor": colours["line"],
                "domainColor": colours["line"],
                "tickColor": colours["line"],
                "titleFontWeight": "normal",
                "titleFontSize": 15,
                "labelFontSize": 16,
            },
        },
    }


def pipeline(colours: dict[str, str]) -> str:
    """Return the boxes of STAGES, one below the other, as SVG. All text lies on a filled box."""
    top, arrow, drawn = 1, None, []
    for when, boxes in STAGES.items():
        height = _HEAD + len(boxes) * (_ROW + _GAP) - _GAP + _FOOT
        drawn.append(
            f'<rect x="1" y="{top}" width="{_WIDTH - 2}" height="{height}" rx="10" '
            f'fill="{colours["panel"]}" stroke="{colours["line"]}"/>'
        )
        drawn.append(_text(166, top + 26, when, colours["faint"], 18))
        y = top + _HEAD
        for name, about in boxes.items():
            if arrow is not None:
                drawn.append(_arrow(arrow, y, colours["bar"]))
            drawn.append(
                f'<rect x="16" y="{y}" width="132" height="{_ROW}" rx="8" fill="{colours["bar"]}"/>'
            )
            drawn.append(_text(82, y + 35, name, colours["on_bar"], 22, "middle"))
            for at, line in zip((23, 46), about.splitlines(), strict=True):
                drawn.append(_text(166, y + at, line, colours["text"], 19))
            arrow = y + _ROW
            y = arrow + _GAP
        top += height + _GAP
    bottom = top - _GAP + 1
    body = "\n".join(drawn)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{bottom}" '
        f'viewBox="0 0 {_WIDTH} {bottom}" role="img" font-family="{FONT}">\n'
        f"<title>From a manifest to a launch</title>\n{body}\n</svg>\n"
    )


def _text(x: int, y: int, text: str, colour: str, size: int, anchor: str = "start") -> str:
    weight = ' font-weight="600"' if anchor == "middle" else ""
    return (
        f'<text x="{x}" y="{y}" font-size="{size}" fill="{colour}" '
        f'text-anchor="{anchor}"{weight}>{escape(text, quote=False)}</text>'
    )


def _arrow(start: int, end: int, colour: str) -> str:
    """An arrow down, from below one box to above the next."""
    return (
        f'<path d="M82 {start + 3}V{end - 10}" stroke="{colour}" stroke-width="3"/>'
        f'<path d="M74 {end - 12}h16l-8 10z" fill="{colour}"/>'
    )


def main() -> None:
    """Write all pictures."""
    import vl_convert

    for name, colours in COLOURS.items():
        bars = vl_convert.vegalite_to_svg(chart(colours))
        (DOCS / f"faster-{name}.svg").write_text(bars + "\n", encoding="utf-8")
        (DOCS / f"pipeline-{name}.svg").write_text(pipeline(colours), encoding="utf-8")


if __name__ == "__main__":
    main()
