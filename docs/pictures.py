"""The bars that the README shows, light and dark, from the table of docs/inside/performance.md.

    python docs/pictures.py

writes docs/faster-light.svg and docs/faster-dark.svg.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

DOCS: Final = Path(__file__).parent
PAGE: Final = DOCS / "inside" / "performance.md"
_COLOURS: Final = {
    "light": {"bar": "#0969da", "text": "#1b1f24", "line": "#d0d7de"},
    "dark": {"bar": "#6cb6ff", "text": "#e6edf3", "line": "#30363d"},
}


def rows() -> list[tuple[str, float]]:
    """Return each op, and how many times as fast it is from 256 tokens on."""
    table = PAGE.read_text(encoding="utf-8").partition("| op | cases | times as fast, 256")[2]
    found = re.findall(r"^\| (\w+) \| \d+ \| ([0-9.]+) \|", table, re.MULTILINE)[:7]
    return [(op, float(value)) for op, value in found]


def chart(colours: dict[str, str]) -> dict[str, Any]:
    """Return the bars as a specification of Vega-Lite."""
    values = [{"op": op, "v": value, "told": f"{value:.2f}×"} for op, value in rows()]
    y = {"field": "op", "type": "nominal", "sort": None, "title": None, "axis": {"labelLimit": 300}}
    x = {"field": "v", "type": "quantitative", "title": "times as fast as vLLM's CUDA op"}
    text = {"type": "text", "align": "left", "dx": 5, "color": colours["text"]}
    return {
        "data": {"values": values},
        "width": 420,
        "height": {"step": 24},
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
            "view": {"stroke": None},
            "axis": {
                "labelColor": colours["text"],
                "titleColor": colours["text"],
                "gridColor": colours["line"],
                "domainColor": colours["line"],
                "tickColor": colours["line"],
                "titleFontWeight": "normal",
                "labelFontSize": 12,
            },
        },
    }


def main() -> None:
    """Write both pictures."""
    import vl_convert

    for name, colours in _COLOURS.items():
        picture = vl_convert.vegalite_to_svg(chart(colours))
        (DOCS / f"faster-{name}.svg").write_text(picture + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
