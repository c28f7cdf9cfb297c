"""What a tuning run reports."""

from __future__ import annotations

import pytest
from attrs import evolve

from kernelpkg.autotune.results import OpResults, TuningResults, duration, merged
from kernelpkg.autotune.saved_results import TuningRecord
from kernelpkg.configs.store import ConfigFile, TunedCase, dumps
from kernelpkg.packs.read import read_kernel

DONE = TuningRecord(
    key={"n": 1}, outcome="tuned", config={}, ms=1.0, old_ms=2.0, default_ms=4.0, facts={}
)
OTHER = evolve(DONE, key={"n": 2}, old_ms=8.0, seconds=90.0)


def results(*records: TuningRecord, cases: int = 2) -> TuningResults:
    op = OpResults(op="twice", path="x.json", cases=cases, records=records, before=0)
    return TuningResults(
        platform="p", ops=(op,), interrupted=False, problems=(), remarks=(), seconds=1.0
    )


def test_speed_ups_are_geometric_means_over_the_cases():
    (op,) = results(DONE, OTHER).ops
    assert op.speedup("old_ms") == pytest.approx(4.0)
    assert op.speedup("default_ms") == pytest.approx(4.0)
    assert results(DONE, OTHER).rows()[1][-3:] == ("4.00×", "4.00×", "2 min")


def test_without_an_old_config_there_is_no_speed_up_over_it():
    (op,) = results(evolve(DONE, old_ms=None)).ops
    assert op.speedup("old_ms") is None


@pytest.mark.parametrize(
    ("given", "fine"),
    [
        (results(DONE, OTHER), True),
        (results(DONE), False),
        (results(DONE, evolve(OTHER, outcome="kept")), True),
        (results(DONE, evolve(OTHER, outcome="failed", config=None)), False),
        (evolve(results(DONE, OTHER), interrupted=True), False),
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


FIRST, SECOND = {"date": "2026-11-22", "effort": "quick"}, {"date": "2026-11-23", "effort": "full"}
FILE = ConfigFile(
    kernel="twice",
    platform="nvidia_h200",
    tuned_with=FIRST,
    configs=({"num_warps": 1}, {"num_warps": 2}, {"num_warps": 32}),
    cases=(
        TunedCase(key={}, config=1),
        TunedCase(key={"num_tokens": 9}, config=1),
        TunedCase(key={"num_tokens": 1}, config=0, ms=0.1),
    ),
)
RECORD = TuningRecord(
    key={"num_tokens": 4}, outcome="tuned", config={"num_warps": 8}, ms=0.2, facts=SECOND
)


def test_cases_stand_in_the_order_of_the_grid_then_others_then_the_empty_one(demo):
    file = merged(FILE, read_kernel(demo.root, "twice"), [RECORD])
    assert [case.key.get("num_tokens") for case in file.cases] == [1, 4, 9, None]
    assert [file.configs[case.config]["num_warps"] for case in file.cases] == [1, 8, 2, 2]


def test_configs_that_no_case_has_are_left_out(demo):
    file = merged(FILE, read_kernel(demo.root, "twice"), [])
    assert file.configs == ({"num_warps": 1}, {"num_warps": 2})


def test_a_later_run_is_one_of_runs_and_a_run_without_cases_is_none(demo):
    spec = read_kernel(demo.root, "twice")
    file = merged(FILE, spec, [RECORD])
    assert (file.tuned_with, file.runs) == (FIRST, (SECOND,))
    assert [case.run for case in file.cases] == [None, 0, None, None]
    third = evolve(RECORD, facts={"date": "2026-11-24"})
    assert merged(file, spec, [third]).runs == ({"date": "2026-11-24"},)


def test_the_bytes_do_not_depend_on_the_order_of_the_records(demo):
    spec = read_kernel(demo.root, "twice")
    records = [RECORD, evolve(RECORD, key={"num_tokens": 1}, config={"num_warps": 16}, facts=FIRST)]
    one, other = (merged(FILE, spec, given) for given in (records, records[::-1]))
    assert dumps(one) == dumps(other)
    step = merged(merged(FILE, spec, records[:1]), spec, records)
    assert dumps(step) == dumps(one)


def test_a_record_without_a_config_changes_nothing(demo):
    spec = read_kernel(demo.root, "twice")
    failed = evolve(RECORD, config=None, outcome="failed")
    assert dumps(merged(FILE, spec, [failed])) == dumps(merged(FILE, spec, []))
