"""The command `bench` on a CPU, end to end."""

# ruff: noqa: E501  # messages have whole lines

from __future__ import annotations

import json
import os
from functools import partial
from typing import Any

import pytest
import torch
from torch.library import Library

from kernelpkg import cli
from kernelpkg.bench import run


@pytest.fixture
def bench(on_demo):
    """Runs the command on `demo` in few rounds; returns status, stdout and stderr."""
    return partial(on_demo, "bench", "--quick", "--baseline", "native,eager,copy")


def test_a_table_says_that_it_is_of_the_host_alone(demo, bench):
    status, out, err = bench()
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "twice:"
    assert lines[1].split() == ["num_tokens", "host", "us", "/eager", "/copy", "agrees"]
    assert [line.split()[0] for line in lines[2:4]] == ["4", "1"]
    assert "  native: pack 'demo' has no route that names one" in lines
    assert lines[-2] == "ops ran in Helion's interpreter: these are times of the host, not of a GPU"
    assert lines[-1].endswith(f"kept in {demo.root}/.bench/demo.jsonl")
    assert max(map(len, lines[:-1])) <= 80


def test_the_json_document_has_stable_keys(demo, bench):
    status, out, _ = bench("twice", "--axis", "num_tokens=4", "--json", "--no-history")
    document = json.loads(out)
    assert status == 0
    assert list(document) == [
        *("format", "edition", "run", "date", "pack", "digest", "device", "platform"),
        *("machine", "interpreted", "versions", "interrupted", "broken", "rows", "against"),
    ]
    assert (document["machine"], document["interpreted"], document["against"]) == (
        "cpu",
        True,
        None,
    )
    (row,) = document["rows"]
    assert list(row) == ["op", "axes", "bytes", "sides", "failed"]
    assert (row["op"], row["axes"]) == ("twice", {"num_tokens": 4})
    assert row["bytes"] == {"read": 16, "written": 16}
    assert list(row["sides"]) == ["ours", "native", "eager", "copy"]
    ours = row["sides"]["ours"]
    assert list(ours) == ["gpu_us", "host_us", "gpu_ratio", "host_ratio", "agrees", "reason"]
    assert (ours["gpu_us"], ours["agrees"]) == (None, True)
    assert ours["host_us"]["low"] <= ours["host_us"]["median"] <= ours["host_us"]["high"]
    assert not (demo.root / ".bench").exists()


def test_the_pack_that_the_current_directory_lies_in_has_the_history(demo, capsys, monkeypatch):
    monkeypatch.chdir(demo.root / "kernels/twice")
    assert cli.main(["bench", "--quick", "--baseline", "eager"]) == 0
    file = demo.root / ".bench/demo.jsonl"
    assert capsys.readouterr().out.endswith(f", kept in {file}\n")
    assert json.loads(file.read_text())["pack"] == "demo"


def test_runs_are_kept_and_held_against_each_other(demo, bench, tmp_path):
    file = tmp_path / "runs.jsonl"
    given = ("--history", str(file), "--threshold", "99%")
    assert bench(*given)[0] == 0
    status, out, _ = bench(*given, "--against", "last", "--json")
    assert status == 0
    first, second = map(json.loads, file.read_text().splitlines())
    assert "against" not in second
    against = json.loads(out)["against"]
    assert against["run"] == first["run"]
    (change,) = against["changes"]
    assert (change["op"], change["what"], change["base"]) == ("twice", "host", "copy")
    status, out, _ = bench("--no-history", "--against", str(file), "--threshold", "99")
    assert f"against run {second['run']}: 1 op by host time; " in out


def test_what_is_slower_exits_1_and_is_said(demo, bench, tmp_path):
    file = tmp_path / "runs.jsonl"
    assert bench("--history", str(file))[0] == 0
    run = json.loads(file.read_text())
    for row in run["rows"]:
        for side in row["sides"].values():
            for time in (side["host_us"], side["host_ratio"]):
                for name in time or ():
                    time[name] /= 100  # a hundred times as fast then
    file.write_text(json.dumps(run) + "\n")
    status, out, err = bench("--no-history", "--against", str(file))
    assert (status, err) == (1, "")
    assert "twice: all cases: the host takes, relative to copy, " in out
    assert " 1 slower" in out.replace("\n   ", "")


def test_a_wrong_kernel_exits_1_and_is_marked(demo, bench):
    demo.edit("kernels/twice/host.py", "input * 2", "input * 3")
    status, out, _ = bench("--no-history")
    assert status == 1
    assert out.splitlines()[2].split()[-1] == "NO"
    assert "  ours: return[0] is " in out


def test_a_native_op_that_a_route_names_is_a_baseline(demo, bench):
    path = demo.root / "manifests/demo.toml"
    path.write_text(path.read_text() + '[vllm.routes."_C::twice_bench"]\nop = "twice"\n')
    library = Library("_C", "FRAGMENT")  # closed below
    library.define("twice_bench(Tensor input) -> Tensor")
    library.impl("twice_bench", lambda x: x * 2, "CPU")
    try:
        status, out, _ = bench("--no-history", "--json")
    finally:
        library._destroy()
    assert status == 0
    for row in json.loads(out)["rows"]:
        native = row["sides"]["native"]
        assert native["agrees"] is True
        assert native["host_ratio"] is not None
    status, out, _ = bench("--no-history")
    assert "native op '_C::twice_bench' is not there; --library names a file that" in out


def test_a_native_op_of_another_schema_is_not_called(demo, bench):
    path = demo.root / "manifests/demo.toml"
    path.write_text(path.read_text() + '[vllm.routes."_C::thrice_bench"]\nop = "twice"\n')
    library = Library("_C", "FRAGMENT")  # closed below
    library.define("thrice_bench(Tensor x) -> Tensor")
    try:
        status, out, _ = bench("--no-history")
    finally:
        library._destroy()
    assert status == 0
    assert "native: native op '_C::thrice_bench' has another schema than the op:" in out


def test_a_history_that_was_cut_off_is_told_and_goes_on(demo, bench):
    file = demo.root / ".bench/demo.jsonl"
    file.parent.mkdir()
    file.write_text('{"edition": 1, "run"')
    status, _, err = bench()
    assert (status, err) == (0, f"{file}:1: is cut off, or is not a run; it is skipped\n")
    assert json.loads(file.read_text().splitlines()[1])["pack"] == "demo"


def test_a_history_that_is_no_file_is_said_before_anything_is_timed(demo, bench):
    (demo.root / ".bench").write_text("")
    file = f"{demo.root}/.bench/runs"
    status, out, err = bench("--history", file)
    assert (status, out, err) == (1, "", f"kernelpkg: {file}: Not a directory\n")


def test_what_the_system_refuses_to_keep_is_printed_all_the_same(demo, bench, monkeypatch):
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    status, out, err = bench()
    file = demo.root / ".bench/demo.jsonl"
    line = f"{file}: No space left on device; this run is not kept, see --history\n"
    assert (status, err) == (1, line)
    assert out.startswith("twice:\n")
    assert "kept in" not in out


def test_ctrl_c_exits_130_and_keeps_what_was_measured(demo, bench, monkeypatch):
    make, made = run.make_inputs, []

    def interrupted(spec: Any, case: Any, **how: Any) -> Any:
        made.append(case)
        if made[0] is not case:
            raise KeyboardInterrupt
        return make(spec, case, **how)

    monkeypatch.setattr(run, "make_inputs", interrupted)
    status, out, err = bench()
    assert (status, err) == (130, "")
    assert [line.split()[0] for line in out.splitlines()[:2]] == ["twice:", "num_tokens"]
    (kept,) = map(json.loads, (demo.root / ".bench/demo.jsonl").read_text().splitlines())
    assert (kept["interrupted"], len(kept["rows"])) == (True, 1)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["twicce"], "pack 'demo' has no op 'twicce'; did you mean 'twice'?"),
        (["--axis", "tokens=3"], "'twice' has no axis 'tokens'; did you mean 'num_tokens'?"),
        (["--axis", "num_tokens=3"], "no case for timing 'twice' has num_tokens=3; there are 1, 4"),
        (["--axis", "num_tokens"], "'num_tokens' is not of the form AXIS=VALUE[,VALUE]"),
        (["--baseline", "nativ"], "'nativ' is not a baseline; did you mean 'native'?"),
        (["--platform", "nvidia_h200"], "this is cpu; time cases of nvidia_h200 on a GPU of that platform"),
        (["--rounds", "5"], "--rounds 5 is too few to tell times from noise; give 20 or more"),
        (["--history", "x", "--no-history"], "--history keeps this run, and --no-history does not; give one of them"),
        (["--threshold", "x"], "invalid value for '--threshold': 'x' is not a percentage of at least 0 and below 100; see 'kernelpkg bench --help'"),
        (["--against", "last"], "ROOT/.bench/demo.jsonl has no run on cpu to compare with"),
        (["--against", "2026"], "there is no run '2026' in ROOT/.bench/demo.jsonl; it has none"),
        (["--library", "ROOT/none.so"], "library ROOT/none.so cannot be loaded: ROOT/none.so: cannot open shared object file: No such file or directory"),
    ],
    ids=["op", "axis", "value", "no_value", "baseline", "platform", "rounds", "history", "threshold", "last", "run", "library"],
)  # fmt: skip
def test_wrong_usage_is_one_line(demo, on_demo, words, message):
    def whole(text: str) -> str:
        return text.replace("ROOT", str(demo.root))

    status, out, err = on_demo("bench", *map(whole, words))
    assert (status, out, err) == (2, "", f"kernelpkg: {whole(message)}\n")
    assert not (demo.root / ".bench").exists()


def test_a_kernel_that_does_not_load_is_told_and_the_others_are_timed(demo, bench):
    demo.kernel("thrice")
    demo.edit("kernels/thrice/kernel.py", "hl.tile", "hl.tile(")
    status, out, err = bench("--no-history", "--json")
    assert status == 1
    assert "kernels/thrice/kernel.py" in err
    assert {row["op"] for row in json.loads(out)["rows"]} == {"twice"}


def test_the_reference_is_compiled_where_that_is_asked_for(on_demo, monkeypatch):
    """With a back end that compiles nothing, for that takes a minute."""
    compiled: list[Any] = []

    def stub(reference: Any, *, dynamic: bool) -> Any:
        compiled.append(dynamic)
        return reference

    monkeypatch.setattr(torch, "compile", stub)
    status, out, _ = on_demo("bench", "--quick", "--baseline", "compile", "--no-history")
    assert (status, compiled) == (0, [False, False])
    assert "/compile" in out
