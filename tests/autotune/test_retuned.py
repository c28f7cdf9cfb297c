"""Results of tuning, put into a config file."""

from __future__ import annotations

from attrs import evolve

from kernelpkg.autotune.retuned import merged
from kernelpkg.autotune.store import TuningRecord
from kernelpkg.configs.store import ConfigFile, TunedCase, dumps
from kernelpkg.packs.read import read_kernel

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
