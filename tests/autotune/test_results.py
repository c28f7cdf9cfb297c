"""What a tuning run reports."""

from __future__ import annotations

import pytest
from attrs import evolve

from kernelpkg.autotune.results import OpTuning, TuningReport, duration
from kernelpkg.autotune.store import TuningRecord

DONE = TuningRecord(
    key={"n": 1}, outcome="tuned", config={}, ms=1.0, old_ms=2.0, default_ms=4.0, facts={}
)
OTHER = evolve(DONE, key={"n": 2}, old_ms=8.0, seconds=90.0)


def report(*records: TuningRecord, cases: int = 2) -> TuningReport:
    op = OpTuning(op="twice", path="x.json", cases=cases, records=records, before=0)
    return TuningReport(
        platform="p", ops=(op,), interrupted=False, problems=(), remarks=(), seconds=1.0
    )


def test_speed_ups_are_geometric_means_over_the_cases():
    (op,) = report(DONE, OTHER).ops
    assert op.speedup("old_ms") == pytest.approx(4.0)
    assert op.speedup("default_ms") == pytest.approx(4.0)
    assert report(DONE, OTHER).rows()[1][-3:] == ("4.00×", "4.00×", "2 min")


def test_without_an_old_config_there_is_no_speed_up_over_it():
    (op,) = report(evolve(DONE, old_ms=None)).ops
    assert op.speedup("old_ms") is None


@pytest.mark.parametrize(
    ("given", "fine"),
    [
        (report(DONE, OTHER), True),
        (report(DONE), False),
        (report(DONE, evolve(OTHER, outcome="kept")), True),
        (report(DONE, evolve(OTHER, outcome="failed", config=None)), False),
        (evolve(report(DONE, OTHER), interrupted=True), False),
    ],
    ids=["all", "one_left", "kept", "failed", "interrupted"],
)
def test_a_run_is_fine_where_every_case_has_a_config(given, fine):
    assert given.ok is fine


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59, "59 s"), (61, "1 min"), (3600, "1 h 00 min"), (7500, "2 h 05 min")],
    ids=str,
)
def test_durations_are_short(seconds, text):
    assert duration(seconds) == text
