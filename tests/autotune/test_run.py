"""Tuning runs with a stub tuner: what is saved, resumed, replaced, and lost."""

from __future__ import annotations

import datetime
import json
import runpy
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from attrs import evolve

from kernelpkg.autotune.results import TuningResults
from kernelpkg.autotune.run import autotune, edited, open_op, outdated
from kernelpkg.autotune.saved_results import TuningRecord
from kernelpkg.autotune.tune_op import TuningRequest
from kernelpkg.check import level0
from kernelpkg.configs import platforms, store
from kernelpkg.configs.directories import ConfigDirectory
from kernelpkg.configs.store import ConfigFile, TunedCase
from kernelpkg.errors import PackError, UsageError
from kernelpkg.jobs.pool import JobOutcome
from kernelpkg.packs.read import read_kernel, read_pack

HERE = Path(__file__).parents[1]
STUB = SimpleNamespace(**runpy.run_path(str(HERE / "tuning_stub.py")))
KILLS = SimpleNamespace(**runpy.run_path(str(HERE.parent / "benchmarks" / "kill_tuning.py")))

FILE = "configs/twice/nvidia_h200.json"
TOKENS = [1, 4, 16, 64, 256, 1024]


@pytest.fixture
def pack(demo):
    """The pack "demo" with six cases to tune."""
    demo.edit("kernels/twice/kernel.toml", "num_tokens = [1, 4]", f"num_tokens = {TOKENS}")
    return demo


def tuned(
    pack: Any,
    *,
    run_jobs: Any = None,
    into: Path | None = None,
    wanted: dict[str, list[str]] | None = None,
    machine: dict[str, str] | None = None,
    saved: Callable[[str], None] = lambda _: None,
    progress: Callable[[str, int, int], None] = lambda *_: None,
    **request: Any,
) -> TuningResults:
    target = ConfigDirectory(
        path=into or pack.root / "configs", shown="configs", overlay=into is not None
    )
    return autotune(
        read_pack(pack.root, "demo"),
        [read_kernel(pack.root, "twice")],
        wanted or {},
        TuningRequest(case_timeout=60, **request),
        target=target,
        here=platforms.resolve("nvidia_h200"),
        machine=STUB.MACHINE | (machine or {}),
        date="2026-11-22",
        run_jobs=run_jobs or STUB.run_here(),
        saved=saved,
        progress=progress,
    )


def in_file(path: Path) -> dict[int, Any]:
    """The config of each case of a file."""
    file = store.read(path, str(path), "twice", "nvidia_h200", ["num_tokens"], {})
    return {case.key["num_tokens"]: file.configs[case.config] for case in file.cases}


def found(tokens: int) -> dict[str, Any]:
    return STUB.found_for({"num_tokens": tokens})


def noting(seen: list[Any], stop: int | None = None) -> Any:
    """A tuner that notes the payload of each job that it does."""

    def perform(payload: Any) -> Any:
        seen.append(payload)
        return STUB.perform(payload)

    return STUB.run_here(perform, stop=stop)


def test_every_case_gets_what_its_search_found_with_times_and_provenance(pack):
    results = tuned(pack)
    assert results.ok
    assert in_file(pack.root / FILE) == {tokens: found(tokens) for tokens in TOKENS}
    document = json.loads((pack.root / FILE).read_text())
    facts = {"driver", "gpu", "helion", "torch", "triton", "source", "effort", "date"}
    assert document["tuned_with"].keys() == facts
    assert document["tuned_with"]["effort"] == "quick"
    assert document["cases"][0] == {
        "key": {"num_tokens": 1},
        "config": 0,
        "ms": 0.004,
        "default_ms": round(STUB.ms_of({"num_tokens": 1}, STUB.DEFAULT), 6),
    }


def test_what_was_tuned_passes_level_0_of_check(pack):
    tuned(pack)
    checked, _ = level0.check_static(
        read_pack(pack.root, "demo"), ("twice",), (), datetime.date(2026, 11, 22), lambda *_: None
    )
    assert [str(finding) for finding in checked.findings] == []


def test_ctrl_c_keeps_what_is_finished_and_a_second_run_goes_on(pack):
    first = tuned(pack, run_jobs=STUB.run_here(stop=2))
    assert first.interrupted
    assert (first.ops[0].left, first.ops[0].count("tuned")) == (4, 2)
    assert sorted(in_file(pack.root / FILE)) == [1, 1024]
    jobs: list[Any] = []
    second = tuned(pack, run_jobs=noting(jobs))
    assert second.ok
    assert (len(jobs), second.ops[0].before, second.ops[0].left) == (4, 2, 0)


def test_an_interrupted_run_ends_with_the_bytes_of_one_that_was_not(pack, tmp_path):
    other = tmp_path / "again"
    shutil.copytree(pack.root, other)
    tuned(pack)
    whole = (pack.root / FILE).read_text()
    shutil.rmtree(pack.root)
    shutil.copytree(other, pack.root)
    for stop in (1, 2, 1, 3):
        tuned(pack, run_jobs=STUB.run_here(stop=stop))
    assert (pack.root / FILE).read_text() == whole


def test_a_finished_run_does_nothing_the_second_time(pack):
    tuned(pack)
    before = (pack.root / FILE).stat().st_mtime_ns
    results = tuned(pack, run_jobs=STUB.run_here(stop=0))
    assert results.ok and not results.interrupted
    assert (pack.root / FILE).stat().st_mtime_ns == before


def test_again_drops_the_results_of_the_cases_that_are_asked_for(pack):
    tuned(pack)
    results = tuned(pack, again=True, wanted={"num_tokens": ["4"]}, run_jobs=STUB.run_here(stop=1))
    assert (results.ops[0].cases, results.ops[0].before, results.ops[0].left) == (1, 0, 0)
    assert results.ops[0].count("kept") == 1
    assert tuned(pack).ops[0].before == 6


def test_results_of_another_source_do_not_count_and_the_report_says_why(pack):
    tuned(pack)
    pack.edit("kernels/twice/kernel.py", "* 2", "* 2.0")
    results = tuned(pack, machine={"helion": "1.5.1"})
    assert results.ops[0].before == 0
    assert results.remarks == (
        (
            "twice: results of earlier runs are not used, because these changed: "
            "helion was 1.4.0, is 1.5.1; source"
        ),
    )
    document = json.loads((pack.root / FILE).read_text())
    assert "runs" not in document  # all cases are of the later run
    assert document["tuned_with"]["helion"] == "1.5.1"


def test_a_file_of_two_runs_says_of_each_case_which(pack):
    tuned(pack)
    tuned(pack, machine={"helion": "1.5.1"}, wanted={"num_tokens": ["4"]})
    document = json.loads((pack.root / FILE).read_text())
    assert document["tuned_with"]["helion"] == "1.4.0"
    assert [run["helion"] for run in document["runs"]] == ["1.5.1"]
    assert [case.get("run") for case in document["cases"]] == [None, 0, None, None, None, None]


def test_a_comment_in_the_source_changes_nothing(pack):
    tuned(pack)
    pack.edit("kernels/twice/kernel.py", "    out = ", "    # a comment\n    out = ")
    assert tuned(pack, run_jobs=STUB.run_here(stop=0)).ops[0].before == 6


def test_results_of_other_axes_do_not_count_and_never_reach_the_file(pack):
    tuned(pack)
    shutil.rmtree(pack.root / "configs/twice")
    pack.edit("kernels/twice/kernel.toml", "num_tokens", "tokens")
    results = tuned(pack, run_jobs=STUB.run_here(stop=0))
    assert (results.ops[0].before, results.ops[0].left) == (0, 6)
    assert results.remarks == (
        "twice: results of earlier runs are not used, because these changed: inputs",
    )
    assert not (pack.root / FILE).exists()


EDITED = {"block_sizes": [128]}


def edit(pack: Any, tokens: int) -> None:
    """Give a case another config by hand."""
    document = json.loads((pack.root / FILE).read_text())
    document["configs"].append(EDITED)
    (case,) = [case for case in document["cases"] if case["key"]["num_tokens"] == tokens]
    case["config"] = len(document["configs"]) - 1
    (pack.root / FILE).write_text(json.dumps(document))


def test_a_case_that_was_edited_since_it_was_tuned_stays_so_and_is_told(pack):
    tuned(pack, wanted={"num_tokens": ["4", "16"]})
    edit(pack, 4)
    (remark,) = tuned(pack, wanted={"num_tokens": ["64"]}).remarks
    assert remark == (
        f"{FILE}: edited since tuning, and left as it is: num_tokens=4; again=True tunes these "
        "cases again"
    )
    assert in_file(pack.root / FILE) == {4: EDITED, 16: found(16), 64: found(64)}
    assert tuned(pack, again=True, wanted={"num_tokens": ["4"]}).remarks == ()
    assert in_file(pack.root / FILE)[4] == found(4)


def test_a_case_that_was_removed_from_the_file_by_hand_is_put_there_again(pack):
    tuned(pack)
    (pack.root / FILE).unlink()
    tuned(pack, run_jobs=STUB.run_here(stop=0))
    assert sorted(in_file(pack.root / FILE)) == TOKENS


def test_a_case_that_reached_the_store_and_not_the_file_is_put_there(pack, monkeypatch):
    def fail(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(store, "write", fail)
    assert tuned(pack).interrupted
    assert not (pack.root / FILE).exists()
    monkeypatch.undo()
    tuned(pack, run_jobs=STUB.run_here(stop=0))
    assert in_file(pack.root / FILE) == {1024: found(1024)}


def test_a_full_disk_ends_the_run_with_one_line_and_the_result_is_saved(pack, monkeypatch):
    def full(path: Path, text: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("kernelpkg.configs.store.replace_text", full)
    results = tuned(pack)
    assert not results.ok
    (problem,) = results.problems
    assert str(problem) == (
        f"{FILE}: KP405 cannot be written (No space left on device); correct that and repeat the "
        "command (the results are saved), or choose another directory with into="
    )
    monkeypatch.undo()
    assert tuned(pack).ops[0].before == 1


def test_a_config_file_that_is_broken_is_told_before_anything_is_tuned(pack):
    pack.configs("twice", "{")
    with pytest.raises(PackError, match=r"configs/twice/nvidia_h200\.json:1: KP501"):
        tuned(pack, run_jobs=STUB.run_here(stop=0))


def test_a_directory_in_the_place_of_the_file_is_told_before_anything_is_tuned(pack):
    (pack.root / FILE).mkdir(parents=True)
    with pytest.raises(PackError) as caught:
        tuned(pack, run_jobs=STUB.run_here(stop=0))
    assert "KP" in str(caught.value)


def outcomes(**by_tokens: Any) -> Callable[[Any], Iterator[JobOutcome]]:
    """A tuner with the status of some jobs, by their tokens."""

    def run(jobs: Any) -> Iterator[JobOutcome]:
        for job in jobs:
            tokens = job.payload["case"]["num_tokens"]
            status, reason = by_tokens.get(f"n{tokens}", ("done", ""))
            value = STUB.perform(job.payload) if status == "done" else None
            yield JobOutcome(
                job=job, status=status, value=value, reason=reason, device="0", seconds=1.0
            )

    return run


def test_a_kernel_that_hangs_or_fails_is_recorded_and_the_others_go_on(pack):
    jobs = outcomes(n4=("timeout", "took longer than 60 s"), n16=("failed", "RuntimeError: no"))
    results = tuned(pack, run_jobs=jobs)
    assert not results.ok and not results.interrupted
    assert results.failures() == [
        "twice: case num_tokens=16: failed: RuntimeError: no",
        "twice: case num_tokens=4: timeout: took longer than 60 s",
    ]
    assert sorted(in_file(pack.root / FILE)) == [1, 64, 256, 1024]
    again = tuned(pack, run_jobs=STUB.run_here(stop=0))
    assert (again.ops[0].before, again.ok) == (6, False)
    assert tuned(pack, again=True).ok


def test_a_gpu_that_disappears_leaves_its_cases_for_the_next_run(pack):
    gone = ("lost", "no device is left")
    results = tuned(pack, run_jobs=outcomes(n4=gone, n16=gone))
    assert (results.ok, results.ops[0].left) == (False, 2)
    assert results.remarks == ("2 cases not tuned: no device is left",)
    assert tuned(pack).ok


def test_a_case_that_does_not_fit_is_recorded_with_what_it_needs(pack):
    def small(payload: Any) -> Any:
        if payload["case"]["num_tokens"] == 1024:
            return {"failed": "needs 3.0 GiB, and 1.0 GiB are free"}
        return STUB.perform(payload)

    results = tuned(pack, run_jobs=STUB.run_here(small))
    line = "twice: case num_tokens=1024: failed: needs 3.0 GiB, and 1.0 GiB are free"
    assert results.failures() == [line]


def test_a_faster_old_config_is_kept_and_measured(pack):
    pack.configs("twice")

    def slow(payload: Any) -> Any:
        return STUB.perform(payload) | {"ratios": {"new": 0.99, "old": 1.0, "default": 1.5}}

    results = tuned(pack, run_jobs=STUB.run_here(slow))
    assert results.ops[0].count("kept") == 6
    old = {"block_sizes": [16], "num_warps": 4}
    assert in_file(pack.root / FILE) == dict.fromkeys(TOKENS, old)


def test_a_wrong_config_is_never_stored(pack):
    def wrong(payload: Any) -> Any:
        value = STUB.perform(payload)
        return value | {"ms": {}, "ratios": {}, "wrong": {"new": "y[0] is 1", "default": "no"}}

    (line,) = tuned(pack, run_jobs=STUB.run_here(wrong), wanted={"num_tokens": ["4"]}).failures()
    assert line == (
        "twice: case num_tokens=4: wrong: the new config is wrong: y[0] is 1; the default config "
        "is wrong: no"
    )
    assert not (pack.root / FILE).exists()


def test_seeds_of_later_searches_are_what_earlier_ones_found(pack):
    seen: list[Any] = []
    tuned(pack, run_jobs=noting(seen))
    seeds = {payload["case"]["num_tokens"]: payload["seeds"] for payload in seen}
    assert seeds[1024] == []
    assert seeds[1] == [found(1024)]
    assert found(1) in seeds[4] and found(16) in seeds[4]


def test_a_directory_of_ones_own_begins_with_what_calls_get_without_it(pack, tmp_path):
    pack.configs("twice")
    before = (pack.root / FILE).read_text()
    tuned(pack, into=tmp_path / "mine", wanted={"num_tokens": ["1"]})
    assert (pack.root / FILE).read_text() == before
    mine = in_file(tmp_path / "mine" / "twice" / "nvidia_h200.json")
    assert mine == {1: found(1), 4: {"block_sizes": [16], "num_warps": 4}}


def test_cases_that_no_grid_has_stay_behind_those_of_the_grid(pack):
    pack.configs("twice")
    pack.edit(FILE, '{"num_tokens": 4}', '{"num_tokens": 5}')
    tuned(pack)
    assert list(in_file(pack.root / FILE)) == [*TOKENS, 5]


def test_a_portfolio_searches_few_cases_and_gives_each_the_best(pack):
    seen: list[Any] = []
    assert tuned(pack, run_jobs=noting(seen), portfolio=2, within=0.0).ok
    kinds = [payload["kind"] for payload in seen]
    assert (kinds.count("searched"), kinds.count("timed")) == (2, 6)
    times = in_file(pack.root / FILE)
    candidates = [config for config in map(found, TOKENS) if config in times.values()]
    for tokens, config in times.items():
        others = [*candidates, STUB.DEFAULT]
        assert STUB.ms_of({"num_tokens": tokens}, config) == min(
            STUB.ms_of({"num_tokens": tokens}, other) for other in others
        )


def test_a_portfolio_keeps_few_configs_that_are_within_the_share(pack):
    results = tuned(pack, portfolio=3, within=0.9)
    assert results.ok
    assert len(set(map(str, in_file(pack.root / FILE).values()))) == 1


def test_a_portfolio_that_was_interrupted_measures_nothing_twice(pack):
    seen: list[Any] = []
    for stop in (1, 1, 2, 3, 9):
        tuned(pack, run_jobs=noting(seen, stop), portfolio=2)
    done = [(payload["kind"], str(payload["case"])) for payload in seen]
    assert len(done) == len(set(done)) == 8
    assert sorted(in_file(pack.root / FILE)) == TOKENS


def test_a_portfolio_of_more_cases_searches_those_alone_that_were_not(pack):
    seen: list[Any] = []

    def searched() -> list[int]:
        return [one["case"]["num_tokens"] for one in seen if one["kind"] == "searched"]

    for portfolio in (2, 3):
        tuned(pack, run_jobs=noting(seen), portfolio=portfolio)
    assert len(searched()) == len(set(searched())) == 3
    tuned(pack, run_jobs=noting(seen), portfolio=3, again=True)
    assert len(searched()) == 6


def test_a_portfolio_replaces_no_old_config_that_is_as_fast(pack):
    pack.configs("twice")

    def even(payload: Any) -> Any:
        value = STUB.perform(payload)
        if payload["kind"] == "timed":
            value["ratios"] = dict.fromkeys(value["ratios"], 0.99)
        return value

    results = tuned(pack, run_jobs=STUB.run_here(even), portfolio=2)
    assert results.ops[0].count("kept") == 6


def test_each_saved_case_is_told_after_it_was_saved(pack):
    lines: list[str] = []

    def check(line: str) -> None:
        assert len(in_file(pack.root / FILE)) == len(lines) + 1
        lines.append(line)

    tuned(pack, saved=check)
    default = STUB.ms_of({"num_tokens": 1024}, STUB.DEFAULT) * 1000
    assert lines[0] == f"twice: case num_tokens=1024: tuned: 4.00 µs (the default {default:.2f})"
    assert len(lines) == 6


def test_progress_counts_the_cases_and_names_the_last(pack):
    steps: list[tuple[str, int, int]] = []
    tuned(pack, progress=lambda *step: steps.append(step))
    assert [(done, total) for _, done, total in steps] == [(n, 6) for n in range(7)]
    assert steps[1][0] == "twice num_tokens=1024"
    assert steps[-1][0] == "twice num_tokens=256"


@pytest.mark.parametrize("portfolio", [None, 3], ids=["plain", "portfolio"])
def test_kills_at_random_moments_damage_and_lose_nothing(portfolio):
    """A quick one of benchmarks/kill_tuning.py, which does it 200 times."""
    lost = KILLS.kill_often(10, 0.01, 7, portfolio)
    assert (lost.kills, lost.damages) == (10, ())
    assert lost.between or portfolio  # which saves its cases at the end, all at once


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
        run.saved_results.save(NOW, [RECORD])
    with opened(demo) as run:
        assert run.before == 1
        file = store.read(run.path, "x", "twice", "nvidia_h200", ["num_tokens"], {})
    assert [file.configs[case.config] for case in file.cases] == [RECORD.config]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"num_tokens": 4', '"num_tokens": [4]'),
        ('"num_tokens": 4', '"tokens": 4'),
        ('{"num_tokens": 4}', "4"),
        ('{"block_sizes": [16]}', "[16]"),
        ('{"block_sizes": [16]}', '{"blocks": [16]}'),
        ('"ms": 0.004', '"ms": "fast"'),
        ('"ms": 0.004', '"ms": NaN'),
        ('{"date": "2026-11-22"}', '"today"'),
    ],
    ids=["list", "other axis", "number", "no fields", "other field", "text", "nan", "facts"],
)
def test_a_record_that_is_damaged_leaves_the_config_file_as_it_is(demo, old, new):
    """What would be written is read first."""
    demo.configs("twice")
    with opened(demo) as run:
        run.saved_results.save(NOW, [RECORD])
        database = run.saved_results._database
        (text,) = database.execute("SELECT record FROM records").fetchone()
        assert old in text
        database.execute("UPDATE records SET record = ?", (text.replace(old, new),))
        path, before = run.path, run.path.read_bytes()
    with pytest.raises(PackError) as caught, opened(demo):
        pass
    assert str(caught.value) == (
        "configs/.tuning/twice/nvidia_h200.sqlite3: KP403 is damaged (a record); "
        "move it away: what was tuned is in the config file, and the rest is tuned again"
    )
    assert path.read_bytes() == before


def test_old_configs_are_those_from_before_the_first_run(demo):
    """What is tuned meanwhile is lent to no case that had another config then."""
    with opened(demo) as run:
        assert {case.key["num_tokens"]: case.old for case in run.plan.cases} == {1: None, 4: None}
        run.saved_results.save(NOW, [RECORD])
    with opened(demo) as run:
        assert {case.key["num_tokens"]: (case.old, case.exact) for case in run.plan.cases} == {
            1: (None, False),
            4: (RECORD.config, True),
        }


def test_again_forgets_the_cases_that_are_asked_for_alone(demo):
    with opened(demo) as run:
        run.saved_results.save(NOW, [RECORD, evolve(RECORD, key={"num_tokens": 1})])
    with opened(demo, wanted={"num_tokens": ["4"]}, again=True) as run:
        assert (run.before, len(run.saved_results.records(NOW))) == (0, 1)


def test_facts_that_changed_are_told_and_digests_by_their_name_alone(demo):
    with opened(demo) as run:
        run.saved_results.save(NOW, [RECORD])
    newer = {"helion": "1.5.1", "source": "sha256-" + "2" * 64}
    with opened(demo, newer) as run:
        assert outdated(run) == (
            "twice: results of earlier runs are not used, because these changed: "
            "helion was 1.4.0, is 1.5.1; source"
        )
    with opened(demo) as run:
        assert outdated(run) is None


def test_cases_that_were_edited_are_named_up_to_five(demo):
    sizes = range(1, 8)
    demo.edit("kernels/twice/kernel.toml", "[1, 4]", str(list(sizes)))
    records = [evolve(RECORD, key={"num_tokens": size}) for size in sizes]
    with opened(demo) as run:
        run.saved_results.save(NOW, records)
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
            "configs/twice/nvidia_h200.json: edited since tuning, and left as it is: num_tokens=1; "
            "num_tokens=2; num_tokens=3; num_tokens=4; num_tokens=5 and 2 more; again=True tunes "
            "these cases again"
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
        "and repeat the command (the results are saved), or choose another directory with into="
    )
