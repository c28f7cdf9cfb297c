"""Level 3: what becomes of runs in processes, and what one run does.

The processes of the first half run a stub; the second half is one run in this process.
`test_planted_runs` has real kernels in real processes.
"""

from __future__ import annotations

import json
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from kernelpkg.check import level3, run_plan
from kernelpkg.check.level3 import check_runs
from kernelpkg.configs.platforms import resolve
from kernelpkg.errors import Checked, ConfigError, UsageError
from kernelpkg.packs.read import read_kernel, read_pack
from kernelpkg.runtime.register import unload

STUB = """\
import json, os, sys, time

def facts():
    if os.path.exists(os.environ["STUB_LOG"] + ".refuse"):
        raise ImportError("no module named 'helion'")
    return {"free": "1000000"}

def perform(job):
    tokens = [case["num_tokens"] for case in job["cases"]]
    gpu = os.environ["CUDA_VISIBLE_DEVICES"]
    note([os.getpid(), job["device"], job["kind"], tokens, gpu])
    while len({line[0] for line in noted()}) < int(os.environ.get("STUB_MEET", 1)):
        time.sleep(0.01)
    try:
        return run(job)
    finally:
        note([os.getpid(), "end"])

def note(line):
    with open(os.environ["STUB_LOG"], "a") as log:
        print(json.dumps(line), file=log)

def noted():
    with open(os.environ["STUB_LOG"]) as log:
        return [json.loads(line) for line in log if line.endswith("\\n")]

def run(job):
    print("{}")
    does = job["kernel"].split("_")[0]
    if does == "slow":
        time.sleep(0.01)
    if job["kind"] == "tuned":
        if does == "hangs":
            time.sleep(600)
        if does == "dies":
            print("last words", file=sys.stderr, flush=True)
            os.abort()
        if does == "memory":
            return {"status": "memory"}
        if does == "unfit":
            return {"status": "unfit", "problem": "case: no such size"}
        if does == "poisons":
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        if does == "refused":
            return {"status": "refused", "problem": "the system refuses a file: no room"}
        if does == "gone":
            raise RuntimeError("No CUDA-capable device is detected")
    return {"status": "ok"}
"""
CASES = """\
{
  "edition": 1,
  "kernel": "NAME",
  "platform": "nvidia_h200",
  "tuned_with": {},
  "configs": [{"block_sizes": [16], "num_warps": 4}],
  "cases": [
CASES
  ]
}
"""


@pytest.fixture
def checks(
    demo: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[Checked, list[Any]]]:
    """Checks a kernel, named for what its processes do, and returns what they were asked too."""
    (tmp_path / "stub_perform.py").write_text(STUB)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(level3, "_PERFORM", "stub_perform:perform")
    monkeypatch.setenv("STUB_LOG", str(tmp_path / "log"))

    def check(name: str, *tokens: int, **members: Any) -> tuple[Checked, list[Any]]:
        demo.kernel(name)
        cases = [f'    {{"key": {{"num_tokens": {count}}}, "config": 0}}' for count in tokens]
        demo.configs(name, CASES.replace("CASES", ",\n".join(cases)))
        pack = read_pack(demo.root, "demo")
        members = {"jobs": 1, "device": "cpu", **members}
        found = check_runs(pack, [read_kernel(demo.root, name)], **members)
        return found, [line for line in noted(tmp_path) if line[1] != "end"]

    return check


def noted(place: Path) -> list[Any]:
    """Return when runs began, as [process, device, kind, tokens, GPU], and ended."""
    log = place / "log"
    return list(map(json.loads, log.read_text().splitlines())) if log.exists() else []


ACCESS = (
    "an illegal memory access was encountered; correct the kernel, its reference or what the "
    "manifest says of them"
)


def told(found: Checked, *, but: tuple[str, ...] = ("KP267",)) -> list[str]:
    return [str(finding) for finding in found.findings if finding.code not in but]


def test_every_tuned_case_is_run_and_others_beside(checks):
    """Each run is asked for once, in one process, and what a kernel prints harms nothing."""
    found, asked = checks("fine", 16, 64)
    assert [line[3] for line in asked if line[2] == "tuned"] == [[16], [64]]
    assert {line[2] for line in asked} == {"tuned", "call", "zeros", "orders", "opcheck"}
    assert len({line[0] for line in asked}) == 1
    (finding,) = found.findings
    assert str(finding) == (
        "configs/fine/nvidia_h200.json: KP267 unverified: the interpreter does not run its 1 "
        "config, only the calls of its 2 cases; run 'check --level 3' on nvidia_h200"
    )
    assert found.counts == {"runs": len(asked), "tuned_runs": 2, "runs_left_out": 0}


def test_progress(checks):
    """Every run is a step, and what is run is named."""
    steps: list[tuple[str, int, int]] = []
    _, asked = checks("fine", 16, progress=lambda *step: steps.append(step))
    assert steps[0] == ("starting processes", 0, len(asked))
    assert steps[-1] == ("running fine", len(asked), len(asked))


def test_processes_share_the_runs(checks, monkeypatch):
    """Several processes do each run once; none ends its first run before all have begun one."""
    monkeypatch.setenv("STUB_MEET", "3")
    found, asked = checks("fine", *range(16, 1600, 16), jobs=3)
    runs = [(kind, tuple(tokens)) for _, _, kind, tokens, _ in asked]
    assert len(runs) == len(set(runs)) == found.counts["runs"]
    assert len({line[0] for line in asked}) == 3


def test_a_kernel_that_hangs(checks):
    """It is ended, and after three such runs the tuned cases that are left are counted."""
    found, asked = checks("hangs", 16, 32, 48, 64, 80, seconds=1)
    first, last = told(found)
    assert first == (
        "configs/hangs/nvidia_h200.json:8: KP264 case num_tokens=16, interpreted and 2 more: takes "
        "longer than 1 s; it hangs, and was stopped; correct the kernel"
    )
    assert len({line[0] for line in asked}) == 3 + ({"call"} <= {line[2] for line in asked[-1:]})
    assert last.startswith("kernels/hangs/kernel.toml: KP268 unverified: ")
    assert last.endswith(
        " calls are not run: 3 other calls of the op hung or killed their process; correct that "
        "and check again"
    )


def test_a_kernel_that_ends_its_process(checks):
    """The end of the process is told with its last words, and a fresh one goes on."""
    found, asked = checks("dies", 16)
    (line,) = told(found)
    assert line == (
        "configs/dies/nvidia_h200.json:8: KP264 case num_tokens=16, interpreted: its process was "
        "ended by SIGABRT: last words; correct the kernel"
    )
    assert len({line[0] for line in asked}) == 2


def test_a_poisoned_process(checks):
    """What is said of the GPU belongs to the run; the next one gets a fresh process."""
    found, asked = checks("poisons", 16)
    (line,) = told(found)
    assert line == (
        "configs/poisons/nvidia_h200.json:8: KP260 case num_tokens=16, interpreted: RuntimeError: "
        f"CUDA error: {ACCESS}"
    )
    assert len({line[0] for line in asked}) == 2
    assert found.counts["runs"] == len(asked)


def test_a_device_that_disappears(checks):
    """What was not run is counted, with what is said of the device."""
    found, asked = checks("gone", 16)
    assert len({line[0] for line in asked}) == 1
    assert found.counts["runs_left_out"] > 0
    assert "RuntimeError: No CUDA-capable device is detected" in told(found)[-1]
    assert told(found)[-1].startswith("kernels/gone/kernel.toml: KP268 unverified: ")


def test_processes_that_do_not_start(checks, tmp_path):
    """Nothing is run, and why is said once."""
    (tmp_path / "log.refuse").touch()
    found, asked = checks("fine", 16)
    assert asked == []
    (line,) = told(found)
    assert line.startswith("kernels/fine/kernel.toml: KP268 unverified: ")
    assert line.endswith(
        " calls are not run: no device is left: cpu: its worker does not start: ImportError: no "
        "module named 'helion'; correct that and check again"
    )
    assert found.counts["runs"] == 0


def test_a_device_without_room(checks):
    """A case that the process found too large is told with what it takes."""
    found, _ = checks("memory", 16)
    assert told(found) == [
        (
            "configs/memory/nvidia_h200.json:8: KP265 unverified: case num_tokens=16, interpreted: "
            "it takes about 1.2 KiB of memory to check, more than is free here; run it on a device "
            "that has more"
        )
    ]


def test_a_case_that_does_not_fit(checks, monkeypatch):
    """What a case takes is known before anything is allocated; the others are run."""
    monkeypatch.setattr(run_plan, "INTERPRETED", 1 << 60)
    found, asked = checks("fine", 16, 1 << 42)
    assert told(found)[0] == (
        "configs/fine/nvidia_h200.json:9: KP265 unverified: case num_tokens=4398046511104, "
        "interpreted: it takes about 320.0 TiB of memory to check, more than is free here; "
        "run it on a device that has more"
    )
    assert {line.split(" ")[1] for line in told(found)} == {"KP265"}
    mores = [re.findall(r" and (\d+) more:", line) for line in told(found)]
    more = sum(int(count) for counts in mores for count in counts)
    assert found.counts["runs_left_out"] == len(told(found)) + more
    assert found.counts["runs"] == len(asked)
    assert max(max(line[3]) for line in asked) < 1 << 42


def test_a_file_that_the_system_refuses(checks):
    """It is said once, and of no case."""
    found, _ = checks("refused", 16, 32)
    assert told(found) == [
        (
            "manifests/demo.toml: KP268 unverified: 2 calls are not run: the system refuses a "
            "file: no room"
        )
    ]
    assert found.counts["runs_left_out"] == 2


def test_inputs_that_cannot_be_made(checks):
    """A tuned case without inputs is told of; a call that we thought of is not."""
    found, _ = checks("unfit", 16)
    (line,) = told(found)
    assert line == (
        "configs/unfit/nvidia_h200.json:8: KP268 unverified: case num_tokens=16, interpreted: its "
        "inputs cannot be made: case: no such size"
    )


def test_runs_that_fit_only_alone_wait_for_each_other(checks, tmp_path):
    """Two processes never have runs at once that together take more than is free."""
    found, _ = checks("slow", *range(7000, 9000, 100), jobs=2)
    large: set[int] = set()
    alone = 0
    for process, *line in noted(tmp_path):
        large.discard(process)
        if len(line) > 1 and max(line[2]) > 5000:
            assert not large
            large.add(process)
            alone += 1
    assert alone > 20
    assert told(found) == []


def test_interruption_leaves_no_process(checks, tmp_path):
    """Ctrl-C ends the processes and what they run."""
    log = tmp_path / "log"

    def interrupt() -> None:
        while not log.exists():
            threading.Event().wait(0.02)
        signal.raise_signal(signal.SIGINT)

    # Where the tests are run in the background, the signal is ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        threading.Thread(target=interrupt).start()
        with pytest.raises(KeyboardInterrupt):
            checks("hangs", 16, seconds=600)
    finally:
        signal.signal(signal.SIGINT, before)
    (asked,) = map(json.loads, log.read_text().splitlines()[-1:])
    with pytest.raises(ProcessLookupError):
        os.kill(asked[0], 0)


def on_two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    place = level3.Place(
        device="cuda", here=resolve("nvidia_h200"), interpret=False, gpus=("0", "1")
    )
    monkeypatch.setattr(level3, "_place", lambda *_: place)


def test_two_gpus(checks, monkeypatch):
    """Each process sees one GPU, and what fails is told with its config."""
    on_two_gpus(monkeypatch)
    monkeypatch.setenv("STUB_MEET", "2")
    found, asked = checks("poisons", 16, 32, jobs=2)
    assert {(line[1], line[4]) for line in asked} == {("cuda", "0"), ("cuda", "1")}
    (line,) = told(found)
    assert line == (
        "configs/poisons/nvidia_h200.json:8: KP260 case num_tokens=16 with config "
        f'{{"block_sizes": [16], "num_warps": 4}} and 1 more: RuntimeError: CUDA error: {ACCESS}'
    )


@pytest.mark.parametrize(
    ("visible", "count", "names"),
    [
        (None, 2, ("0", "1")),
        ("3,5", 2, ("3", "5")),
        ("GPU-1,GPU-2,GPU-3", 3, ("GPU-1", "GPU-3")),
    ],
    ids=["all", "some", "unlike"],
)
def test_processes_spread_over_gpus(demo, visible, count, names, monkeypatch, play_gpu):
    """Each GPU like the first is named as CUDA_VISIBLE_DEVICES has it."""
    kinds = ["NVIDIA H200", "NVIDIA A100" if count == 3 else "NVIDIA H200", "NVIDIA H200"]
    play_gpu(kinds[0])
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda at=0: kinds[at])
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    place = level3._place(read_pack(demo.root, "demo"), "auto")
    assert (place.gpus, place.device, place.here.name) == (names, "cuda", "nvidia_h200")
    assert place.interpret is False


def test_no_gpu(demo):
    """Asking for one that is not there is wrong usage."""
    pack = read_pack(demo.root, "demo")
    with pytest.raises(UsageError) as caught:
        check_runs(pack, [], device="cuda")
    assert str(caught.value) == "device 'cuda' was asked for, but PyTorch sees no GPU"


def test_nothing_to_check(demo):
    """Without kernels nothing is started."""
    assert check_runs(read_pack(demo.root, "demo"), [], device="cpu").counts["runs"] == 0


@pytest.fixture
def perform(demo: Any) -> Iterator[Callable[..., dict[str, Any]]]:
    """Does one run of the demo kernel, which may have been changed before."""

    def run(kind: str, *tokens: int, kernel: str = "twice") -> dict[str, Any]:
        pack = {"name": "demo", "namespace": "demo", "root": str(demo.root), "overlays": []}
        cases = [{"num_tokens": count} for count in tokens]
        return level3.perform(
            {"pack": pack, "device": "cpu", "kernel": kernel, "kind": kind, "cases": cases}
        )

    threads = torch.get_num_threads()
    yield run
    torch.set_num_threads(threads)
    level3._load.cache_clear()
    level3._spec.cache_clear()
    unload("demo::twice")


HOST, KERNEL = "kernels/twice/host.py", "kernels/twice/kernel.py"
BACKWARD = """
[op.backward]
op = "thrice"
args = { input = "return.grad" }
grads = { input = "return" }
"""


@pytest.fixture
def differentiated(demo: Any) -> Any:
    """The demo kernel with a backward."""
    demo.kernel("thrice")
    demo.edit("kernels/twice/kernel.toml", "[axes]\n", f"{BACKWARD}[axes]\n")
    yield demo
    unload("demo::thrice")


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # of PyTorch 2.14 itself
@pytest.mark.parametrize("kind", ["gradients", "opcheck"])
def test_gradients_that_are_right(perform, differentiated, kind):
    assert perform(kind, 4) == {"status": "ok"}


def test_gradients_that_are_wrong(perform, differentiated):
    """They are held by the accuracy of the op that answers."""
    differentiated.edit("kernels/thrice/kernel.py", "* 2", "* 3")
    found = perform("gradients", 4)
    assert found["status"] == "error"
    assert re.fullmatch(
        r"the gradient of input\[0\] is \S+, the reference's \S+ \(rtol 1e-06, atol 0\); "
        "4 of 4 are off",
        found["problem"],
    )


def test_gradients_within_the_accuracy_of_the_backward(perform, differentiated):
    differentiated.edit("kernels/thrice/kernel.py", "* 2", "* 3")
    differentiated.edit("kernels/thrice/kernel.toml", "rtol = 1e-6", "rtol = 0.6")
    assert perform("gradients", 4) == {"status": "ok"}


def test_gradients_that_nothing_is_known_of(perform, differentiated):
    """PyTorch says why it does not differentiate the reference."""
    differentiated.edit(HOST, "input * 2", "input.detach() * 2")
    assert perform("gradients", 4) == {
        "status": "undone",
        "problem": "element 0 of tensors does not require grad and does not have a grad_fn",
    }


def test_which_gradients_are_compared_and_what_is_said(differentiated):
    """The smallest call of each variant; what is wrong is an error, what is not known is not."""
    pack = read_pack(differentiated.root, "demo")
    for name, count in (("twice", 1), ("thrice", 0)):
        spec = read_kernel(differentiated.root, name)
        runs = run_plan.plan_runs(pack, spec, resolve("cpu"), interpret=True).runs
        runs = [run for run in runs if run.kind == "gradients"]
        assert len(runs) == count
        for run in runs:
            results = [(run, word, {"problem": f"{word}!"}) for word in ("error", "undone")]
            wrong, unknown = map(str, level3._findings(pack, results))
            assert wrong == (
                "kernels/twice/kernel.toml:2: KP270 gradients of num_tokens=4, interpreted: "
                "error!; correct the kernel, its reference or what the manifest says of them"
            )
            assert unknown == (
                "kernels/twice/kernel.toml:2: KP271 unverified: gradients of num_tokens=4, "
                "interpreted: they are not compared: undone!"
            )


@pytest.mark.parametrize("kind", ["tuned", "call", "opcheck"])
def test_one_that_is_fine(perform, kind):
    assert perform(kind, 4) == {"status": "ok"}


def test_orders_begin_with_a_fresh_kernel(perform):
    """Nothing of an earlier call is left when the first of the two is made."""
    kernel = "demo::twice"
    assert perform("call", 4) == {"status": "ok"}
    wrapper = level3.get_kernel_by_name(kernel)
    before = wrapper.get_configured_op()
    assert perform("orders", 1, 4) == {"status": "ok"}
    assert wrapper.get_configured_op() is not before
    assert len(wrapper.dispatcher.calls) == 2


def test_what_disagrees(perform, demo):
    """The element, both values, and how many are off."""
    demo.edit(HOST, "* 2", "* 3")
    found = perform("call", 4)
    assert found["status"] == "error"
    assert found["problem"].endswith("(rtol 1e-06, atol 0); 4 of 4 are off")
    assert perform("orders", 4, 1)["problem"].startswith("the first call: return[0] is ")


def test_opcheck_says_which_check(perform, demo):
    """What PyTorch says, on one line."""
    demo.edit("kernels/twice/kernel.toml", '"infer"', '"host.py:fake"')
    with (demo.root / HOST).open("a") as host:
        host.write("\n\ndef fake(input):\n    return input.new_empty(9)\n")
    problem = perform("opcheck", 4)["problem"]
    assert problem.startswith("opcheck test_faketensor: ")
    assert "\n" not in problem
    assert "torch.Size([4]) and torch.Size([9]) are not equal!" in problem


def test_a_kernel_that_does_not_load(perform, demo):
    """Its problems are handed on, with their places."""
    demo.edit(KERNEL, "import torch\n", "import torch\n\n1 / 0\n")
    assert perform("call", 4) == {
        "status": "broken",
        "problems": [
            {
                "path": KERNEL,
                "line": 4,
                "code": "KP114",
                "severity": "error",
                "message": "fails to import: ZeroDivisionError: division by zero",
                "level": 0,
            }
        ],
    }


def test_inputs_that_the_kernel_refuses_to_make(perform, demo):
    """What a kernel's own function refuses is not a mistake of the kernel."""
    demo.edit("kernels/twice/kernel.toml", '"float32" }', '"float32", init = "host.py:made" }')
    with (demo.root / HOST).open("a") as host:
        host.write(
            "\n\ndef made(axes, args, generator):\n    if axes['num_tokens'] > 4:\n        raise "
            "ValueError('no\\nmore')\n    return torch.ones(axes['num_tokens'])\n"
        )
    assert perform("call", 4) == {"status": "ok"}
    assert perform("call", 5) == {"status": "unfit", "problem": "ValueError: no more"}


def test_an_error_of_the_kernel_is_its_own(perform, demo):
    """It is raised, for the process around it to tell how bad it is."""
    demo.edit(KERNEL, "    out =", "    raise ValueError('mine')\n    out =")
    with pytest.raises(ValueError, match="mine"):
        perform("call", 4)


@pytest.mark.parametrize("kind", ["call", "opcheck"])
def test_what_the_interpreter_lacks(perform, demo, kind):
    """It is told with its line, also where PyTorch's own checks meet it."""
    demo.edit(KERNEL, "        out[", "        hl.jagged_tile(input)\n        out[")
    found = perform(kind, 4)
    assert (found["status"], found["line"]) == ("gap", 8)
    assert "cannot run 'hl.jagged_tile(input)'" in found["problem"]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried …"), "memory"),
        (RuntimeError("Triton Error [CUDA]: out of memory"), "memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "memory"),
        (MemoryError(), "memory"),
        (PermissionError(13, "Permission denied", "/cache"), "refused"),
        (RuntimeError("something else"), None),
        (ConfigError("no config for this call"), None),
    ],
    ids=["torch", "triton", "cpu", "python", "refused", "other", "ours"],
)
def test_memory_that_does_not_suffice(perform, monkeypatch, error, status):
    """That, and files that the system refuses, are not errors of the kernel; all else is."""

    def raising(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(level3, "disagreement", raising)
    if status is None:
        with pytest.raises(type(error)):
            perform("call", 4)
    else:
        assert perform("call", 4)["status"] == status


def test_facts():
    """What is free is a number of bytes, more than nothing."""
    assert int(level3.facts()["free"]) > 1 << 20
