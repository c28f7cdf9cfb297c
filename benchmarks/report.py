"""What every benchmark prints and writes: a table for people, one JSON document for tools."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kernelpkg.errors import aligned

PACKAGES = ("torch", "helion", "triton")


def options(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with the options that all benchmarks have."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results as JSON too")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it runs")
    return parser


def machine() -> dict[str, Any]:
    """Return the versions and the number of cores that a run was made with."""
    found: dict[str, Any] = {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "cores": len(os.sched_getaffinity(0)),
        "load": [round(value, 2) for value in os.getloadavg()],
    }
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    return found


def finish(
    name: str,
    rows: Sequence[Mapping[str, Any]],
    targets: Sequence[Mapping[str, Any]],
    to: Path | None,
) -> None:
    """Print the rows and the targets as tables, and write them to a file where one is given."""
    about = machine()
    told = ", ".join(f"{key} {value}" for key, value in about.items())
    print(f"{name} ({told})\n")
    print("\n".join(table(rows)))
    if targets:
        print()
        print("\n".join(table(targets)))
    if to is not None:
        document = {
            "benchmark": name,
            "machine": about,
            "results": list(rows),
            "targets": list(targets),
        }
        to.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    sys.stdout.flush()


def target(what: str, got: float, most: float, unit: str) -> dict[str, Any]:
    """Return one target: what was reached, and the most that it may be."""
    return {"target": what, "got": got, "most": most, "unit": unit, "met": got <= most}


def table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return rows of equal keys as aligned lines below their heads; numbers to the right."""
    heads = list(rows[0])
    numbers = [
        place for place, value in enumerate(rows[0].values()) if isinstance(value, int | float)
    ]
    return aligned([heads, *([_shown(row[head]) for head in heads] for row in rows)], numbers)


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.3g}" if isinstance(value, float) and value < 1000 else str(value)
