"""One run in this process: its status, and what is said of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from kernelpkg.check import caserun
from kernelpkg.errors import ConfigError
from kernelpkg.runtime.register import unload

Perform = Callable[..., dict[str, Any]]


@pytest.fixture
def perform(demo: Any) -> Iterator[Perform]:
    """Does one run of the demo kernel, which may have been changed before."""

    def run(kind: str, *tokens: int, kernel: str = "twice") -> dict[str, Any]:
        pack = {"name": "demo", "namespace": "demo", "root": str(demo.root), "overlays": []}
        cases = [{"num_tokens": count} for count in tokens]
        return caserun.perform(
            {"pack": pack, "device": "cpu", "kernel": kernel, "kind": kind, "cases": cases}
        )

    threads = torch.get_num_threads()
    yield run
    torch.set_num_threads(threads)
    caserun._load.cache_clear()
    caserun._spec.cache_clear()
    unload("demo::twice")


HOST, KERNEL = "kernels/twice/host.py", "kernels/twice/kernel.py"


@pytest.mark.parametrize("kind", ["tuned", "call", "opcheck"])
def test_one_that_is_fine(perform, kind):
    assert perform(kind, 4) == {"status": "ok"}


def test_orders_begin_with_a_fresh_kernel(perform):
    """Nothing of an earlier call is left when the first of the two is made."""
    kernel = "demo::twice"
    assert perform("call", 4) == {"status": "ok"}
    wrapper = caserun.get_kernel_by_name(kernel)
    before = wrapper.get_configured_op()
    assert perform("orders", 1, 4) == {"status": "ok"}
    assert wrapper.get_configured_op() is not before
    assert len(wrapper.dispatcher.table) == 2


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
                "message": "fails to import: ZeroDivisionError: division by zero",
            }
        ],
    }


def test_inputs_that_cannot_be_made(perform, demo):
    """What a kernel's own function refuses is no mistake of the kernel."""
    demo.edit("kernels/twice/kernel.toml", '"float32" }', '"float32", init = "host.py:made" }')
    with (demo.root / HOST).open("a") as host:
        host.write(
            "\n\ndef made(axes, args, generator):\n"
            "    if axes['num_tokens'] > 4:\n        raise ValueError('no\\nmore')\n"
            "    return torch.ones(axes['num_tokens'])\n"
        )
    assert perform("call", 4) == {"status": "ok"}
    assert perform("call", 5) == {"status": "unfit", "problem": "ValueError: no more"}


def test_an_error_of_the_kernel_is_its_own(perform, demo):
    """It is raised, for the process around it to tell how bad it is."""
    demo.edit(KERNEL, "    out =", "    raise ValueError('mine')\n    out =")
    with pytest.raises(ValueError, match="mine"):
        perform("call", 4)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        pytest.param(torch.OutOfMemoryError("CUDA out of memory. Tried …"), "memory", id="torch"),
        pytest.param(RuntimeError("Triton Error [CUDA]: out of memory"), "memory", id="triton"),
        pytest.param(
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"),
            "memory",
            id="cpu",
        ),
        pytest.param(MemoryError(), "memory", id="python"),
        pytest.param(RuntimeError("something else"), None, id="other"),
        pytest.param(ConfigError("no config for this call"), None, id="ours"),
    ],
)
def test_memory_that_does_not_suffice(perform, monkeypatch, error, status):
    """It is no error of the kernel; all else is."""

    def raising(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(caserun, "disagreement", raising)
    if status is None:
        with pytest.raises(type(error)):
            perform("call", 4)
    else:
        assert perform("call", 4) == {"status": status}


def test_facts():
    """What is free is a number of bytes, more than nothing."""
    assert int(caserun.facts()["free"]) > 1 << 20
