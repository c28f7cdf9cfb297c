"""What is looked at before an op is tuned, and what earlier runs left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from kernelpkg.autotune.session import TuningRequest
from kernelpkg.autotune.store import TuningRecord
from kernelpkg.autotune.tuningstart import edited, open_op, outdated
from kernelpkg.configs import platforms, store
from kernelpkg.configs.search_path import ConfigDirectory
from kernelpkg.configs.store import ConfigFile, TunedCase
from kernelpkg.errors import PackError, UsageError
from kernelpkg.packs.read import read_kernel, read_pack

NOW = {"helion": "1.4.0", "source": "sha256-" + "1" * 64}
FACTS = {"date": "2026-11-22"}
RECORD = TuningRecord(
    key={"num_tokens": 4}, outcome="tuned", config={"block_sizes": [16]}, ms=0.004, facts=FACTS
)


def opened(demo: Any, conditions: Any = NOW, wanted: Any = None, **request: Any) -> Any:
    return open_op(
        read_pack(demo.root, "demo"),
        read_kernel(demo.root, "twice"),
        wanted or {},
        TuningRequest(case_timeout=60, **request),
        target=ConfigDirectory(path=demo.root / "configs", shown="configs", overlay=False),
        here=platforms.resolve("nvidia_h200"),
        conditions=conditions,
        facts=FACTS,
    )


def test_what_an_earlier_run_could_not_write_is_written_at_the_start(demo):
    with opened(demo) as run:
        run.store.save(NOW, [RECORD])
    with opened(demo) as run:
        assert run.before == 1
        file = store.read(run.path, "x", "twice", "nvidia_h200", ["num_tokens"], {})
    assert [file.configs[case.config] for case in file.cases] == [RECORD.config]


def test_old_configs_are_those_from_before_the_first_run(demo):
    """What is tuned meanwhile is lent to no case that had another config then."""
    with opened(demo) as run:
        assert {case.key["num_tokens"]: case.old for case in run.plan.cases} == {1: None, 4: None}
        run.store.save(NOW, [RECORD])
    with opened(demo) as run:
        (one,) = [case for case in run.plan.cases if case.key["num_tokens"] == 1]
        (four,) = [case for case in run.plan.cases if case.key["num_tokens"] == 4]
        assert (one.old, four.old, four.exact) == (None, RECORD.config, True)


def test_again_forgets_the_cases_that_are_asked_for_alone(demo):
    with opened(demo) as run:
        run.store.save(NOW, [RECORD, evolve(RECORD, key={"num_tokens": 1})])
    with opened(demo, wanted={"num_tokens": ["4"]}, again=True) as run:
        assert (run.before, len(run.store.records(NOW))) == (0, 1)


def test_facts_that_changed_are_told_and_digests_by_their_name_alone(demo):
    with opened(demo) as run:
        run.store.save(NOW, [RECORD])
    newer = {"helion": "1.5.1", "source": "sha256-" + "2" * 64}
    with opened(demo, newer) as run:
        assert outdated(run) == (
            "twice: results of earlier runs do not count, changed: helion was 1.4.0, is 1.5.1; "
            "source"
        )
    with opened(demo) as run:
        assert outdated(run) is None


def test_cases_that_were_edited_are_named_up_to_five(demo):
    sizes = range(1, 8)
    demo.edit("kernels/twice/kernel.toml", "[1, 4]", str(list(sizes)))
    records = [evolve(RECORD, key={"num_tokens": size}) for size in sizes]
    with opened(demo) as run:
        run.store.save(NOW, records)
    with opened(demo) as run:
        assert edited(run) is None
        path = run.path
    cases = tuple(TunedCase(key=dict(record.key), config=0) for record in records)
    file = ConfigFile(
        kernel="twice", platform="nvidia_h200", configs=({"num_warps": 8},), cases=cases
    )
    store.write(path, file)
    with opened(demo) as run:
        assert edited(run) == (
            "configs/twice/nvidia_h200.json: edited since it was tuned, and left so: num_tokens=1; "
            "num_tokens=2; num_tokens=3; num_tokens=4; num_tokens=5 and 2 more; --again tunes "
            "these cases anew"
        )


def test_a_value_that_no_case_has_is_told_before_a_store_is_made(demo):
    with (
        pytest.raises(UsageError, match="no case for tuning"),
        opened(demo, wanted={"num_tokens": ["5"]}),
    ):
        pass
    assert not (demo.root / "configs").exists()


def test_a_directory_that_cannot_be_written_is_told(demo, monkeypatch):
    def refuse(path: Path, *_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "touch", refuse)
    with pytest.raises(PackError) as caught, opened(demo):
        pass
    assert str(caught.value) == (
        "configs/twice/nvidia_h200.json: KP405 cannot be written (Permission denied); correct that "
        "and repeat the command: results are in the store, or choose another directory with --into"
    )
