"""Cases timed beside their baselines, with a GPU and a clock that are played."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from attrs import evolve

from kernelpkg.bench import timing
from kernelpkg.bench.rows import BenchRow, Traffic, chosen_baselines
from kernelpkg.bench.run import BenchOp, Timers, bench, bench_cases, make_timers
from kernelpkg.errors import UsageError
from kernelpkg.packs.read import read_kernel

ALL = ("native", "compile", "eager", "copy")


def played(took: Sequence[float]) -> Callable[[Sequence[Any]], list[list[float]]]:
    """Times that each round has for its calls, in their order; the calls are made once."""

    def time(calls: Sequence[Any]) -> list[list[float]]:
        for call in calls:
            call()
        return [list(took[: len(calls)])] * 20

    return time


GPU = Timers(
    device="cpu",
    cold=played([0.004, 0.008, 0.016, 0.032, 0.002]),
    host=played([10.0, 20.0, 40.0, 80.0, 5.0]),
    compiled=lambda reference: reference,
)


def double(x: torch.Tensor) -> torch.Tensor:
    return x + x


@pytest.fixture
def twice(demo):
    return read_kernel(demo.root, "twice")


@pytest.fixture
def measure(twice):
    """Times both cases of `twice` on the played GPU; returns the rows."""

    def run(
        call: Any = double, native: Any = double, names: Sequence[str] = ALL, **timers: Any
    ) -> tuple[BenchRow, ...]:
        cases = bench_cases(twice, interpret=False)
        op = BenchOp(spec=twice, cases=cases, call=call, native=native)
        return bench([op], names, evolve(GPU, **timers)).rows

    return run


def test_each_side_has_its_times_the_ratio_of_ours_to_it_and_agrees(measure):
    first, second = measure()
    assert (first.op, dict(first.axes), dict(second.axes)) == (
        "twice",
        {"num_tokens": 1},
        {"num_tokens": 4},
    )
    assert second.traffic == Traffic(read=16, written=16)
    assert {name: side.gpu.median for name, side in first.sides.items()} == {
        "ours": 4.0,
        "native": 8.0,
        "compile": 16.0,
        "eager": 32.0,
        "copy": 2.0,
    }
    ratios = {name: side.gpu_ratio and side.gpu_ratio.median for name, side in first.sides.items()}
    assert ratios == {"ours": None, "native": 0.5, "compile": 0.25, "eager": 0.125, "copy": 2.0}
    assert first.sides["native"].host_ratio.median == 0.5
    agrees = {name: side.agrees for name, side in first.sides.items()}
    assert agrees == {"ours": True, "native": True, "compile": True, "eager": None, "copy": None}
    assert first.ok


def test_ours_that_disagrees_is_measured_and_is_not_ok(measure):
    row, _ = measure(call=lambda x: x * 3)
    assert not row.ok
    assert row.sides["ours"].gpu is not None
    assert row.sides["ours"].reason.startswith("return[0] is ")


def test_a_baseline_that_disagrees_is_marked_and_ours_is_ok(measure):
    row, _ = measure(native=lambda x: x * 3)
    assert row.ok
    assert row.sides["native"].agrees is False
    assert row.sides["native"].gpu is not None


def test_a_baseline_that_is_not_there_or_fails_says_why_and_the_others_are_timed(measure):
    def fails(x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("no kernel image is available")

    row, _ = measure(native="no route names one", compiled=lambda _: fails)
    assert row.sides["native"].reason == "no route names one"
    assert row.sides["compile"].reason == "RuntimeError: no kernel image is available"
    assert [name for name, side in row.sides.items() if side.gpu] == ["ours", "eager", "copy"]


def test_a_baseline_that_cannot_be_captured_is_timed_on_the_host_alone(measure):
    def native(x: torch.Tensor) -> torch.Tensor:
        return x + x

    row, _ = measure(native=native, captures=lambda call: getattr(call, "func", None) is not native)
    side = row.sides["native"]
    assert (side.gpu, side.host.median) == (None, 20.0)
    assert side.reason == "cannot be captured in a CUDA graph"
    assert row.sides["copy"].gpu is not None


def test_without_a_gpu_the_host_alone_is_timed(measure):
    row, _ = measure(cold=None)
    assert all(side.gpu is None and side.host is not None for side in row.sides.values())


def test_a_case_that_fails_keeps_no_other_from_being_timed(measure):
    def call(x: torch.Tensor) -> torch.Tensor:
        if x.numel() == 1:
            raise ValueError("one token")
        return x + x

    failed, fine = measure(call=call)
    assert (failed.failed, failed.ok) == ("ValueError: one token", False)
    assert failed.to_json()["sides"] == {}
    assert fine.ok


def test_a_gpu_that_cannot_be_used_any_more_ends_the_run(twice):
    def wait() -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    def call(x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    cases = bench_cases(twice, interpret=False)
    op = BenchOp(spec=twice, cases=cases, call=call, native="none")
    found = bench([op], ALL, evolve(GPU, wait=wait))
    assert len(found.rows) == 1
    assert found.broken == "RuntimeError: CUDA error: an illegal memory access was encountered"
    assert not found.ok


def test_ctrl_c_keeps_what_was_measured(twice):
    def progress(what: str, done: int, steps: int) -> None:
        if done:
            raise KeyboardInterrupt

    cases = bench_cases(twice, interpret=False)
    op = BenchOp(spec=twice, cases=cases, call=double, native="none")
    found = bench([op], ("copy",), GPU, progress)
    assert (len(found.rows), found.interrupted, found.ok) == (1, True, False)


def test_what_is_too_large_to_be_held_against_the_reference_is_timed(measure, monkeypatch):
    from kernelpkg.bench import run

    def no_memory(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(run, "disagreement", no_memory)
    row, _ = measure()
    assert (row.sides["ours"].agrees, row.ok) == (None, True)
    assert "too little memory" in row.sides["ours"].reason
    assert row.sides["ours"].gpu is not None


def test_inputs_of_a_case_are_given_back_before_the_next(measure):
    import weakref

    seen: list[Any] = []

    def call(x: torch.Tensor) -> torch.Tensor:
        assert x.numel() == 1 or not any(kept() is not None for size, kept in seen if size == 1)
        seen.append((x.numel(), weakref.ref(x)))
        return x + x

    assert all(row.ok for row in measure(call=call))


def test_empty_cases_are_left_out_and_the_interpreter_gets_small_ones(demo):
    demo.edit(
        "kernels/twice/kernel.toml",
        "num_tokens = [1, 4]",
        'use = ["test"]\nnum_tokens = [0, 1, 3, 7]\n'
        '[[inputs.grid]]\nuse = ["bench"]\nnum_tokens = [0, 8]',
    )
    spec = read_kernel(demo.root, "twice")

    def tokens(**how: bool) -> list[Any]:
        return [case.values["num_tokens"] for case in bench_cases(spec, **how)]

    assert tokens(interpret=True) == [3, 1]
    assert tokens(interpret=True, some=True) == [1, 3, 7]
    assert tokens(interpret=False) == [8]


def test_baselines_keep_their_order_and_the_interpreter_compiles_none_unasked():
    assert chosen_baselines(None, interpret=False) == ALL
    assert chosen_baselines(None, interpret=True) == ("native", "eager", "copy")
    assert chosen_baselines(["copy", "compile"], interpret=True) == ("compile", "copy")
    with pytest.raises(UsageError, match="'eagre' is not a baseline; did you mean 'eager'"):
        chosen_baselines(["eagre"], interpret=True)


def test_rounds_that_are_too_few_for_an_interval_are_refused():
    with pytest.raises(UsageError, match="rounds=19 is too few to tell times from noise"):
        make_timers("cuda", interpret=False, rounds=19, quick=False)


def test_the_timers_of_a_cpu_time_the_host_and_compile_for_one_size(twice):
    timers = make_timers("cpu", interpret=True, rounds=None, quick=True)
    assert timers.cold is None
    assert len(timers.host([lambda: None])) == 6


def test_the_timers_of_a_gpu_warm_its_clock_before_each_measurement(monkeypatch):
    made: list[Any] = []
    monkeypatch.setattr(timing, "warm_clock", lambda: made.append("warm"))
    monkeypatch.setattr(timing, "time_cold", lambda calls, rounds: made.append((calls, rounds)))
    for how in ({"quick": False}, {"quick": True}, {"quick": True, "rounds": 30}):
        timers = make_timers("cuda", interpret=False, **{"rounds": None, **how})
        timers.cold([double])
    assert made == [
        *("warm", ([double], 1000)),
        *("warm", ([double], 50)),
        *("warm", ([double], 30)),
    ]
    assert timers.wait is torch.cuda.synchronize
    assert make_timers("cuda", interpret=True, rounds=None, quick=True).cold is None


def test_a_reference_is_compiled_after_others_are_forgotten(monkeypatch, twice):
    """At the ninth size of a function, PyTorch would call it as it is."""
    made: list[Any] = []
    monkeypatch.setattr(torch.compiler, "reset", lambda: made.append("reset"))
    monkeypatch.setattr(torch, "compile", lambda call, *, dynamic: made.append((call, dynamic)))
    timers = make_timers("cpu", interpret=True, rounds=None, quick=True)
    timers.compiled(double)
    assert made == ["reset", (double, False)]
