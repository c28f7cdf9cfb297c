"""The charts of a report, as specifications of Vega-Lite, and the code that draws them.

Source of the format: https://vega.github.io/vega-lite/docs/
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any, Final

from kernelpkg.errors import KernelpkgError
from kernelpkg.report.measured import BASELINES, Figure, Plane

_CELL: Final = {"step": 46}
_ROW: Final = {"step": 26}

_SPEED: Final = {
    "type": "threshold",
    "domain": [0.9, 1.0, 1.25, 1.5, 2, 3],
    "range": ["#b2182b", "#f4a582", "#e4eef8", "#b5d4e9", "#6aaed6", "#2b7bba", "#084a91"],
}
_SHARE: Final = {
    "type": "threshold",
    "domain": [0.25, 0.5, 0.75, 0.9],
    "range": ["#eff3e5", "#c9e4b6", "#86c67c", "#2f7d43", "#0b5226"],
}
_FIT: Final = {"type": "fit-x", "contains": "padding"}
_BELOW: Final = {"orient": "bottom", "columns": 1, "title": None}
_ABOVE: Final = {"titleAngle": 0, "titleAlign": "right", "titleX": -6, "titleY": -10}
_TITLES: Final = {"native": "the native op", "compile": "torch.compile", "eager": "eager PyTorch"}


@contextlib.contextmanager
def installed() -> Iterator[None]:
    """Raise KernelpkgError for a package of the extra `report` that is not there."""
    try:
        yield
    except ImportError as error:
        raise KernelpkgError(
            f"kernelpkg: a report needs '{error.name}', which is not installed; "
            "pip install 'jinja2>=3.1' 'vl-convert-python>=1.8'"
        ) from None


@cache
def drawing_code() -> str:
    """Return the JavaScript that draws specifications: Vega, Vega-Lite and Vega-Embed, 0.9 MB.

    Raises KernelpkgError where what brings it is not installed.
    """
    with installed():
        import vl_convert
    code: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    return code.replace("</script", r"<\/script")


def speed_chart(plane: Plane) -> dict[str, Any] | None:
    """Return a heat map of how many times faster ours is, with a choice of the baseline."""
    rows = [
        {**_place(figure, plane, part), **{n: _short(value) for n, value in figure.faster.items()}}
        for part, figures in plane.parts.items()
        for figure in figures
    ]
    there = [name for name in BASELINES if any(name in row for row in rows)]
    if not there:
        return None
    spec = _heat_map(rows, plane, _SPEED, "times as fast", ".2f", light=(0.9, 2.0))
    spec["params"] = [_choice(there)]
    spec["transform"] = [{"calculate": "datum[base]", "as": "v"}, {"filter": "isValid(datum.v)"}]
    return spec


def _choice(there: Sequence[str]) -> dict[str, Any]:
    """Return the choice of a baseline."""
    labels = [_TITLES[name] for name in there]
    bind = {"input": "radio", "options": [*there], "labels": labels, "name": "against "}
    return {"name": "base", "value": there[0], "bind": bind}


def _short(value: float) -> float:
    return float(f"{value:.3g}")


def share_chart(plane: Plane) -> dict[str, Any] | None:
    """Return a heat map of the part of the speed of a copy of the same bytes."""
    rows = [
        {**_place(figure, plane, part), "v": _short(figure.share)}
        for part, figures in plane.parts.items()
        for figure in figures
        if figure.share is not None
    ]
    return _heat_map(rows, plane, _SHARE, "of a copy", ".0%", light=(0.0, 0.75)) if rows else None


def _place(figure: Figure, plane: Plane, part: str) -> dict[str, Any]:
    time = f"{figure.us:.4g} ± {figure.half:.2g} µs"
    place = {"x": figure.axes.get(plane.across, ""), "y": figure.axes.get(plane.down, "")}
    return {**place, "part": part, "time": time}


def _heat_map(
    rows: Sequence[Mapping[str, Any]],
    plane: Plane,
    scale: Mapping[str, Any],
    title: str,
    form: str,
    *,
    light: tuple[float, float],
) -> dict[str, Any]:
    """Return a heat map; values from `light` on to its end have dark text, others white."""
    position = {
        "x": {"field": "x", "type": "ordinal", "title": plane.across, "axis": {"labelAngle": 0}},
        "y": {"field": "y", "type": "ordinal", "title": plane.down or None, "axis": _ABOVE},
    }
    tooltip = [
        *([{"field": "x", "title": plane.across}] if plane.across else []),
        *([{"field": "y", "title": plane.down}] if plane.down else []),
        *([{"field": "part", "title": "case"}] if any(plane.parts) else []),
        {"field": "v", "title": title, "format": form},
        {"field": "time", "title": "ours"},
    ]
    least, most = light
    dark = f"datum.v >= {least} && datum.v < {most}"
    layers = [
        {
            "mark": {"type": "rect", "cornerRadius": 3},
            "encoding": {
                "color": {"field": "v", "type": "quantitative", "scale": scale, "legend": None},
                "tooltip": tooltip,
            },
        },
        {
            "mark": {"type": "text", "fontSize": 11},
            "encoding": {
                "text": {"field": "v", "format": form},
                "color": {"condition": {"test": dark, "value": "#111"}, "value": "#fff"},
                "tooltip": tooltip,
            },
        },
    ]
    inner = {"width": _CELL, "height": _ROW, "encoding": position, "layer": layers}
    data = {"data": {"values": [*rows]}}
    if not any(plane.parts):
        return {**data, **inner}
    header = {"labelAnchor": "start", "labelOrient": "top", "title": None, "labelLimit": 600}
    facet = {"field": "part", "type": "nominal", "header": header, "title": None}
    return {**data, "facet": facet, "columns": 1, "spec": inner}


def history_chart(points: Sequence[tuple[str, str, str, float]]) -> dict[str, Any] | None:
    """Return lines of how many times faster ours is, a line for each op, over the runs."""
    there = [name for name in BASELINES if any(base == name for _, _, base, _ in points)]
    if not there or len({date for date, *_ in points}) < 2:
        return None
    rows = [
        {"date": date, "op": op, "base": base, "v": _short(value)}
        for date, op, base, value in points
    ]
    return {
        "data": {"values": rows},
        "params": [_choice(there)],
        "transform": [{"filter": "datum.base == base"}],
        "width": "container",
        "height": 220,
        "autosize": _FIT,
        "mark": {"type": "line", "point": True},
        "encoding": {
            "x": {"field": "date", "type": "temporal", "title": None},
            "y": {"field": "v", "type": "quantitative", "title": "times as fast"},
            "color": {"field": "op", "type": "nominal", "legend": _BELOW},
            "tooltip": [
                {"field": "op"},
                {"field": "date", "type": "temporal", "format": "%Y-%m-%d %H:%M"},
                {"field": "v", "title": "times as fast", "format": ".2f"},
            ],
        },
    }


def means_chart(means: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return bars of geometric means, a group for each op and a bar for each baseline.

    `means` have "op", "base" and "v".
    """
    if not means:
        return None
    order = [*_TITLES.values()]
    base = {"field": "base", "type": "nominal", "title": "against", "sort": order}
    position = {
        "y": {"field": "op", "type": "nominal", "title": None, "axis": {"labelLimit": 240}},
        "x": {"field": "v", "type": "quantitative", "title": "times as fast"},
        "yOffset": {"field": "base", "sort": order},
    }
    tooltip = [{"field": "op"}, {"field": "base"}, {"field": "v", "format": ".2f"}]
    rule = {"mark": {"type": "rule", "strokeDash": [4, 3]}, "encoding": {"x": {"datum": 1}}}
    color = {**base, "legend": {"orient": "top", "direction": "vertical"}}
    bars = {"mark": "bar", "encoding": {**position, "color": color, "tooltip": tooltip}}
    rows = [{**row, "base": _TITLES.get(row["base"], row["base"])} for row in means]
    return {
        "data": {"values": rows},
        "width": "container",
        "height": 16 * len(rows),  # in steps, Vega-Lite warns that it cannot fit them
        "autosize": _FIT,
        "layer": [bars, rule],
    }
