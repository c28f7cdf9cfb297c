"""Runs that are kept, and one held against an earlier one."""

# ruff: noqa: E501  # messages have whole lines

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from kernelpkg.bench.history import (
    BenchHistory,
    compare_runs,
    earlier_run,
    read_history,
    with_id,
)
from kernelpkg.errors import UsageError

H200 = "NVIDIA H200"


def times(middle: float, half: float = 0.01) -> dict[str, float]:
    """An interval of a document, so wide as a share of its median."""
    return {"low": middle * (1 - half), "median": middle, "high": middle * (1 + half)}


def row(op: str = "twice", /, *, tokens: int = 1, **sides: Any) -> dict[str, Any]:
    """A case; each side is a pair of the GPU's time or ratio, and the host's, as intervals."""
    shown = {}
    for name, (gpu, host) in sides.items():
        kind = "us" if name == "ours" else "ratio"
        shown[name] = {"gpu_us": None, "host_us": None, "gpu_ratio": None, "host_ratio": None}
        shown[name] |= {f"gpu_{kind}": gpu, f"host_{kind}": host, "agrees": True, "reason": ""}
    return {"op": op, "axes": {"num_tokens": tokens}, "bytes": None, "sides": shown, "failed": None}


def run(*rows: Any, second: int = 0, machine: str = H200, **facts: Any) -> dict[str, Any]:
    date = f"2026-11-30T12:00:{second:02}Z"
    about = {"date": date, "pack": "demo", "machine": machine, "versions": {}, **facts}
    return with_id({**about, "rows": list(rows)})


def gpu(ratio: float, half: float = 0.01) -> dict[str, Any]:
    """A run of one case that takes so many times what a copy takes."""
    return run(row(ours=(times(5.0), None), copy=(times(ratio, half), None)))


@pytest.fixture
def file(tmp_path):
    return tmp_path / "kept" / "demo.jsonl"


def test_runs_come_back_as_they_were_kept_the_oldest_first(file):
    runs = [run(row(ours=(times(5.0), times(9.0))), second=at) for at in range(3)]
    for one in runs:
        read_history(file).append(one)
    found = read_history(file)
    assert list(found.runs) == runs
    assert found.remarks == ()
    assert len(file.read_text().splitlines()) == 3


def test_an_id_is_when_it_was_and_a_digest(file):
    one, other = gpu(1.0), gpu(2.0)
    assert one["run"].startswith("20261130T120000Z-")
    assert one["run"] != other["run"]
    assert with_id({key: one[key] for key in one if key not in ("edition", "run")}) == one


def test_a_line_that_was_cut_off_is_told_and_costs_itself_alone(file):
    history = BenchHistory(path=file, runs=(), remarks=())
    history.append(gpu(1.0))
    text = json.dumps(gpu(2.0))
    file.write_text(file.read_text() + text[: len(text) // 2])
    found = read_history(file)
    assert len(found.runs) == 1
    assert found.remarks == (f"{file}:2: is cut off, or is not a run; it is skipped",)
    found.append(gpu(3.0))
    again = read_history(file)
    assert [run["rows"][0]["sides"]["copy"]["gpu_ratio"]["median"] for run in again.runs] == [1, 3]
    assert again.remarks == found.remarks


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"edition": 2}, "has edition 2; a newer kernelpkg reads it"),
        ({"edition": "1"}, "is not a run"),
        ({"machine": None}, "is not a run"),
        ({"rows": [{"op": "twice"}]}, "is not a run"),
        ({"rows": [row(ours=({"low": 2, "median": 1, "high": 3}, None))]}, "is not a run"),
        ({"rows": [row(ours=({"low": "x", "median": 1, "high": 3}, None))]}, "is not a run"),
        ({"rows": 4}, "is not a run"),
    ],
    ids=["newer", "no_edition", "machine", "row", "interval", "number", "rows"],
)
def test_what_cannot_be_read_is_left_out(file, change, told):
    file.parent.mkdir()
    file.write_text(json.dumps({**gpu(1.0), **change}) + "\n")
    found = read_history(file)
    assert (found.runs, found.remarks) == ((), (f"{file}:1: {told}; it is skipped",))


def test_a_document_of_json_is_a_history_of_one_run(file):
    file.parent.mkdir()
    file.write_text(json.dumps({**gpu(1.0), "against": None}, indent=2))
    assert len(read_history(file).runs) == 1


def test_several_writers_lose_nothing(file):
    """Each line is one write to the end of the file, whoever else writes."""
    children = []
    for number in range(4):
        child = os.fork()
        if child == 0:
            for at in range(5):
                read_history(file).append(run(second=at, number=number))
            os._exit(0)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
    assert len(read_history(file).runs) == 20


def kept(file: Any, *runs: dict[str, Any]) -> BenchHistory:
    for one in runs:
        read_history(file).append(one)
    return read_history(file)


CASES = [("twice", {"num_tokens": 1})]


def test_the_last_run_is_that_of_the_machine(file):
    case = row(ours=(times(5.0), None))
    runs = [run(case, second=0), run(case, second=1), run(case, second=2, machine="NVIDIA H100")]
    history = kept(file, *runs)
    assert earlier_run("last", history, H200, CASES) == (runs[1], ())
    assert earlier_run(runs[0]["run"], history, H200, CASES) == (runs[0], ())
    assert earlier_run("20261130T120001", history, H200, CASES) == (runs[1], ())


def test_a_run_of_another_file_comes_with_what_is_wrong_with_that_file(file):
    (only,) = kept(file, gpu(1.0)).runs
    file.write_text(file.read_text() + "{\n" * 5)
    found, remarks = earlier_run(str(file), kept(file.with_name("none")), H200, CASES)
    assert found == only
    assert remarks == (
        *(f"{file}:{line}: is cut off, or is not a run; it is skipped" for line in (2, 3, 4)),
        f"{file}: 2 more lines are skipped",
    )


@pytest.mark.parametrize(
    ("word", "machine", "tokens", "told"),
    [
        ("last", "NVIDIA B200", 1, "FILE has no run on NVIDIA B200 to compare with"),
        ("2025", H200, 1, "there is no run '2025' in FILE; the last are FIRST, SECOND"),
        ("2026", H200, 1, "several runs begin with '2026': FIRST, SECOND; give more of the id"),
        ("FIRST", "NVIDIA H100", 1, "run FIRST was made on NVIDIA H200, and this is NVIDIA H100; compare runs of the same GPU"),
        ("FIRST", H200, 7, "run FIRST has none of these cases"),
    ],
    ids=["last", "unknown", "several", "machine", "cases"],
)  # fmt: skip
def test_a_run_that_cannot_be_held_against_is_one_line(file, word, machine, tokens, told):
    history = kept(file, gpu(1.0), run(row(ours=(times(5.0), None)), second=1))
    first, second = (one["run"] for one in history.runs)

    def named(text: str) -> str:
        return text.replace("FILE", str(file)).replace("FIRST", first).replace("SECOND", second)

    with pytest.raises(UsageError) as caught:
        earlier_run(named(word), history, machine, [("twice", {"num_tokens": tokens})])
    assert str(caught.value) == named(told)


@pytest.mark.parametrize(
    ("now", "then", "half", "slower"),
    [
        (1.00, 1.00, 0.01, False),
        (1.04, 1.00, 0.001, False),  # surely, and by less than the threshold
        (1.10, 1.00, 0.01, True),
        (1.10, 1.00, 0.06, False),  # by more, and within the noise
        (0.80, 1.00, 0.01, False),
    ],
    ids=["same", "less", "more", "noise", "faster"],
)
def test_slower_is_by_more_than_the_threshold_and_the_noise(now, then, half, slower):
    found = compare_runs(gpu(now, half), gpu(then, half), 0.05)
    (change,) = found.changes
    assert (change.what, change.base, change.slower) == ("gpu", "copy", slower)
    assert change.ratio == pytest.approx(now / then)
    assert found.ok is not slower


def test_another_days_clock_is_no_difference():
    """Ours and the copy both take twice as long, so that their ratio is as it was."""
    then = run(row(ours=(times(5.0), None), copy=(times(1.5), None)))
    now = run(row(ours=(times(10.0), None), copy=(times(1.5), None)))
    assert compare_runs(now, then, 0.05).changes[0].ratio == 1.0


def test_without_a_copy_in_both_another_baseline_is_the_yardstick_and_at_last_none():
    ours = (times(5.0), None)
    with_native = run(row(ours=ours, copy=(times(1.5), None), native=(times(0.5), None)))
    native = run(row(ours=ours, native=(times(0.6), None)))
    alone = run(row(ours=(times(6.0), None)))
    assert compare_runs(native, with_native, 0.05).changes[0].base == "native"
    (change,) = compare_runs(alone, with_native, 0.05).changes
    assert (change.base, change.ratio) == ("ours", pytest.approx(1.2))


def host(*ratios: float, half: float = 0.01) -> dict[str, Any]:
    rows = [
        row(tokens=at, ours=(None, times(9.0)), eager=(None, times(ratio, half)))
        for at, ratio in enumerate(ratios)
    ]
    return run(*rows)


@pytest.mark.parametrize(
    ("now", "half", "slower"),
    [
        ([1.2] * 8, 0.01, True),
        ([1.2] * 8, 0.3, False),
        ([1.2, 1.2, 1.2, 1.2, 1.2, 1.2, 1.2, 0.9, 0.9], 0.01, False),
        ([1.0] * 7 + [3.0], 0.01, False),
    ],
    ids=["all", "noise", "some", "one"],
)
def test_the_host_is_held_over_all_cases_of_an_op(now, half, slower):
    found = compare_runs(host(*now, half=half), host(*[1.0] * len(now), half=half), 0.05)
    (change,) = found.changes
    assert (change.case, change.what, change.base) == ("", "host", "eager")
    assert change.slower is slower


def test_other_cases_failed_ones_and_other_versions():
    failed = {**row(tokens=2), "failed": "no memory"}
    then = run(row(ours=(times(5.0), None)), failed, versions={"torch": "2.11.0", "helion": "1.4"})
    now = run(row(tokens=9, ours=(times(9.0), None)), failed, versions={"torch": "2.14.1"})
    found = compare_runs(now, then, 0.05)
    assert found.changes == ()
    assert found.remarks == ("helion: 1.4 then, none now", "torch: 2.11.0 then, 2.14.1 now")
    assert found.to_json() == {"run": then["run"], "changes": [], "remarks": list(found.remarks)}
