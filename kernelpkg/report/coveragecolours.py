"""How outcomes look in a drawing: a letter, words, and colours for light and dark pages.

No two outcomes are told apart by colour alone. Texts have a contrast of 4.5 at least to what they
stand on, and edges one of 3 (WCAG 2.2, success criteria 1.4.3 and 1.4.11).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from kernelpkg.report.coveragemap import Outcome
from kernelpkg.report.svg import Colours, Palette

LETTERS: Final[Mapping[Outcome, str]] = {
    "exact": "E",
    "bucketed": "B",
    "extrapolated": "X",
    "default": "D",
    "missing": "M",
    "refused": "R",
}
"""What stands for an outcome beside its colour."""

MEANS: Final[Mapping[Outcome, str]] = {
    "exact": "tuned for this very call",
    "bucketed": "takes a case near it, between tuned ones",
    "extrapolated": "takes a case, from beyond all tuned ones",
    "default": "nothing tuned here fits: borrowed, or a default",
    "missing": "no config may be used: an error",
    "refused": "a guard does not take the call",
}

LIGHT: Final = Palette(
    page="#ffffff",
    text="#1f2328",
    muted="#59636e",
    edge="#6e7781",
    hatch="#b8c0c8",
    things={
        "exact": Colours(fill="#1b5fb4", text="#ffffff"),
        "bucketed": Colours(fill="#b9d7f8", text="#1f2328"),
        "extrapolated": Colours(fill="#f5b84a", text="#1f2328"),
        "default": Colours(fill="#d3d8de", text="#1f2328"),
        "missing": Colours(fill="#b3261e", text="#ffffff"),
        "refused": Colours(fill="#ffffff", text="#1f2328"),
    },
)
DARK: Final = Palette(
    page="#0d1117",
    text="#e6edf3",
    muted="#9da7b1",
    edge="#7d8590",
    hatch="#4a525c",
    things={
        "exact": Colours(fill="#6cb0ff", text="#0d1117"),
        "bucketed": Colours(fill="#1c4170", text="#e6edf3"),
        "extrapolated": Colours(fill="#d99a22", text="#0d1117"),
        "default": Colours(fill="#3a4149", text="#e6edf3"),
        "missing": Colours(fill="#ff7b72", text="#0d1117"),
        "refused": Colours(fill="#0d1117", text="#e6edf3"),
    },
)
