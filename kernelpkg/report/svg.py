"""Drawings as SVG texts: elements, and a page with its colours for light and dark."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping
from typing import Final

from attrs import field, frozen

from kernelpkg.errors import escaped

FONT: Final = "system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif"
LETTER: Final = 0.6
"""The width of a letter over its size, rounded up; what a font takes is not known here."""


@frozen(kw_only=True)
class Colours:
    """The colours of one thing on a page: its filling, and of the text on it."""

    fill: str
    text: str


@frozen(kw_only=True)
class Palette:
    """The colours of a page: behind all, of texts, of what matters less, of edges, of things."""

    page: str
    text: str
    muted: str
    edge: str
    hatch: str
    things: Mapping[str, Colours]

    def rules(self) -> str:
        """Return the rules of a style sheet."""
        rules = [
            f".page{{fill:{self.page}}}",
            f"text{{fill:{self.text}}}",
            f".muted{{fill:{self.muted}}}",
            f".edge{{stroke:{self.edge}}}",
            f".hatch{{stroke:{self.hatch}}}",
        ]
        for name, colours in self.things.items():
            rules += [f".{name}{{fill:{colours.fill}}}", f".on-{name}{{fill:{colours.text}}}"]
        return "".join(rules)


def _escaped(words: str) -> str:
    """Return a text as an element holds it; all that is written between two tags goes through here.

    Names of models, conditions and values of configs are not ours. Control characters and lone
    surrogates, which TOML and JSON can have, would make a file that no viewer opens: XML 1.0
    (section 2.2) has no reference for them.
    """
    return html.escape(escaped(words), quote=False)


def width(text: str, size: int) -> int:
    """Return how wide a text may become, in pixels."""
    return int(len(text) * size * LETTER) + 1


def text(x: int, y: int, words: str, *, style: str = "", size: int = 11, anchor: str = "") -> str:
    """Return a text whose base line begins at a place, or ends or has its middle there."""
    attributes = f' class="{style}"' if style else ""
    attributes += f' text-anchor="{anchor}"' if anchor else ""
    attributes += f' font-size="{size}"' if size != 11 else ""
    return f'<text x="{x}" y="{y}"{attributes}>{_escaped(words)}</text>'


def rect(x: int, y: int, wide: int, high: int, style: str) -> str:
    return f'<rect x="{x}" y="{y}" width="{wide}" height="{high}" class="{style}"/>'


def group(parts: Iterable[str], tip: str) -> str:
    """Return elements that belong together, and what is shown when one points at them."""
    return f"<g><title>{_escaped(tip)}</title>{''.join(parts)}</g>"


@frozen(kw_only=True)
class Shapes:
    """Shapes that a page draws again and again: each is written once, and used by its name."""

    names: dict[str, str] = field(factory=dict)

    def use(self, shape: str, x: int, y: int) -> str:
        """Return a shape, given at 0, 0, at a place."""
        name = self.names.setdefault(shape, f"s{len(self.names)}")
        return use(name, x, y)

    def definitions(self) -> str:
        return "".join(f'<g id="{name}">{shape}</g>' for shape, name in self.names.items())


def use(name: str, x: int, y: int) -> str:
    """Return what is drawn under a name elsewhere, moved by x and y."""
    moved = "".join(f' {axis}="{by}"' for axis, by in (("x", x), ("y", y)) if by)
    return f'<use href="#{name}"{moved}/>'


def page(
    parts: Iterable[str],
    *,
    shapes: Shapes,
    wide: int,
    high: int,
    title: str,
    described: str,
    light: Palette,
    dark: Palette,
) -> str:
    """Return the text of a file; which of the palettes is taken is up to who looks at it."""
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{wide}" height="{high}" '
        f'viewBox="0 0 {wide} {high}" role="img" aria-labelledby="title description" '
        f'font-family="{FONT}" font-size="11">'
    )
    style = (
        f"{light.rules()}.strong{{font-weight:600}}.inside{{font-size:10px;text-anchor:middle}}"
        f"@media (prefers-color-scheme:dark){{{dark.rules()}}}"
    )
    hatch = (
        '<pattern id="hatching" width="6" height="6" patternUnits="userSpaceOnUse">'
        '<path d="M-1,1 l2,-2 M0,6 l6,-6 M5,7 l2,-2" class="hatch" stroke-width="1"/></pattern>'
    )
    return "\n".join(
        [
            head,
            f'<title id="title">{_escaped(title)}</title>',
            f'<desc id="description">{_escaped(described)}</desc>',
            f"<style>{style}</style>",
            f"<defs>{hatch}{shapes.definitions()}</defs>",
            rect(0, 0, wide, high, "page"),
            *parts,
            "</svg>",
            "",
        ]
    )
