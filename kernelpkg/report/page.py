"""One page of HTML that shows a pack: what it holds, how fast it is, and whether it is sound."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from attrs import frozen

from kernelpkg.bench.intervals import mean_of
from kernelpkg.configs.selection import OUTCOMES
from kernelpkg.errors import Problem, counted
from kernelpkg.manifest.cases import show
from kernelpkg.manifest.spec import KernelSpec, PackSpec
from kernelpkg.report import charts
from kernelpkg.report.coverage import count_outcomes
from kernelpkg.report.coverage_text import model_answer
from kernelpkg.report.measured import (
    BASELINES,
    Figure,
    Measured,
    measured_by_machine,
    over_time,
    plane_of,
)
from kernelpkg.report.pack_coverage import PackCoverage

MARK: Final = '<meta name="generator" content="kernelpkg report">'
"""What stands at the begin of each page, so that none is written over another file."""

_TEMPLATE: Final = Path(__file__).with_name("page.html")


@frozen(kw_only=True)
class PageFacts:
    """What a page shows.

    `runs` are documents of `bench --json`, the oldest first; `lock` is a line, `tools` are versions
    by name, and `date` is when the page is made.
    """

    pack: PackSpec
    kernels: tuple[KernelSpec, ...]
    coverage: PackCoverage
    runs: tuple[Mapping[str, Any], ...]
    findings: tuple[Problem, ...]
    lock: str
    tools: Mapping[str, str]
    date: str


def make_page(facts: PageFacts) -> str:
    """Return the page, which needs no other file and no network.

    Raises KernelpkgError where a package that it is made with is not installed.
    """
    code = charts.drawing_code()
    with charts.installed():
        from jinja2 import Environment, StrictUndefined
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"shown": show, "counted": counted}
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    measured = measured_by_machine(facts.runs, facts.pack.namespace)
    drawn: dict[str, Any] = {}

    def chart(name: str, spec: dict[str, Any] | None) -> str:
        """Keep a chart to be drawn, and return the name of its place, "" where there is none."""
        if spec is not None:
            drawn[name] = spec
        return name if spec is not None else ""

    return template.render(
        facts=facts,
        mark=MARK,
        machines=[_machine(facts, one, at, chart) for at, one in enumerate(measured)],
        coverage=[*_coverage(facts)],
        outcomes=OUTCOMES,
        findings=facts.findings,
        drawn=drawn,
        code=code,
    )


def _machine(facts: PageFacts, found: Measured, number: int, chart: Any) -> dict[str, Any]:
    """Return what the page shows of one machine."""
    ops = []
    means: list[dict[str, Any]] = []
    for at, spec in enumerate(facts.kernels):
        figures = found.of(spec.name)
        if not figures:
            continue
        plane = plane_of(figures)
        own = [*_means(figures)]
        means += [{"op": spec.name, "base": base, "v": round(v, 3)} for base, v, _ in own]
        ops.append(
            {
                "name": spec.name,
                "summary": spec.summary,
                "shared": plane.shared,
                "means": own,
                "slower": sum(min(f.faster.values(), default=1) < 1 for f in figures),
                "disagreeing": sum(f.agrees is False for f in figures),
                "speed": chart(f"speed-{number}-{at}", charts.speed_chart(plane)),
                "share": chart(f"share-{number}-{at}", charts.share_chart(plane)),
                "head": [*figures[0].axes],
                "sides": [b for b in BASELINES if any(b in f.faster for f in figures)],
                "figures": figures,
            }
        )
    history = [*over_time(found, facts.pack.namespace)]
    return {
        "name": found.machine,
        "on_gpu": found.on_gpu,
        "date": found.date,
        "versions": found.versions,
        "count": len(found.figures),
        "older": found.older,
        "runs": len(found.runs),
        "means": [*_means(found.figures)],
        "bars": chart(f"means-{number}", charts.means_chart(means)),
        "history": chart(f"history-{number}", charts.history_chart(history)),
        "ops": ops,
    }


def _means(figures: Sequence[Figure]) -> Iterator[tuple[str, float, int]]:
    """Yield each baseline, the geometric mean of how many times faster ours is, and of how many."""
    for base in BASELINES:
        ratios = [figure.faster[base] for figure in figures if base in figure.faster]
        if ratios:
            yield base, mean_of(ratios), len(ratios)


def _coverage(facts: PageFacts) -> Iterator[dict[str, Any]]:
    """Yield, for each platform, the outcomes of each op's calls, and of each model."""
    for platform, maps in facts.coverage.by_platform():
        models = list(dict.fromkeys(shape.name for found in maps for shape in found.models))
        rows = []
        for found in maps:
            by_model = {shape.name: shape for shape in found.models}
            rows.append(
                {
                    "op": found.spec.name,
                    "cases": found.counts[0],
                    "configs": found.counts[1],
                    "counts": count_outcomes(found.rows),
                    "models": [
                        model_answer(by_model[name]) if name in by_model else "-" for name in models
                    ],
                }
            )
        yield {"platform": platform, "models": models, "rows": rows}
