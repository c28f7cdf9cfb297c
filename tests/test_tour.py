"""Read this first: a kernel on its way from TOML to a launch, a step for each of eight files.

The pack is `tests/fixtures/demo`; `docs/inside/architecture.md` has the way as a table.
"""

from __future__ import annotations

from pathlib import Path

import pytest

import kernelpkg
from kernelpkg.configs import store
from kernelpkg.configs.platforms import resolve
from kernelpkg.configs.selection import read_selection
from kernelpkg.packs.find import find_pack
from kernelpkg.packs.read import read_kernel, read_pack

ROOT = Path(__file__).parent / "fixtures" / "demo"


def test_from_toml_to_a_config():
    """Found, read, held against the Python files; then a call on an H200 gets a tuned config."""
    # packs/find: a pack is a directory with manifests/<pack>.toml, kernels/ and configs/.
    root, name = find_pack("demo", ROOT, {})
    assert (root.path, name) == (ROOT, "demo")

    # packs/read: what a pack says, as frozen values; its kernels are named, and read one by one.
    pack = read_pack(root.path, name)
    assert (pack.namespace, pack.kernels) == ("demo", ("twice",))
    kernel = read_kernel(root.path, "twice")

    # manifest/kernel: the spec of one kernel, with its expressions parsed.
    assert kernel.schema.text == "(Tensor input) -> Tensor"
    assert [(axis.name, axis.expr.text) for axis in kernel.axes] == [
        ("num_tokens", "input.shape[0]")
    ]

    # configs/store: what was tuned, as case keys and configs.
    path = ROOT / "configs" / "twice" / "nvidia_h200.json"
    tuned = store.read(path, str(path), "twice", "nvidia_h200", kernel.key_axes, kernel.defaults)
    assert [case.key for case in tuned.cases] == [{"num_tokens": 1}, {"num_tokens": 4}]

    # configs/selection: what a call may run with, best first. Three tokens go up to four ("ceil").
    selection = read_selection(pack, kernel, resolve("NVIDIA H200"))
    best, *_, last = selection.options((3,))
    assert (best.outcome, best.key) == ("bucketed", {"num_tokens": 4})
    assert best.config == {"block_sizes": [16], "num_warps": 4}
    assert last.reason.endswith("Helion's own default")


@pytest.mark.helion
def test_from_a_pack_to_a_launch():
    """Loaded, registered, called; on a CPU the launch is a run in Helion's interpreter."""
    import torch

    # runtime/load: does all of the above for every kernel, and registers what is sound.
    report = kernelpkg.load("demo", root=ROOT, device="cpu", smoke=True)
    assert [(k.op, k.mode, k.check) for k in report.kernels] == [("demo::twice", "interpret", "ok")]

    # runtime/register: the op is in PyTorch, and its kernel in the registry.
    kernel = kernelpkg.get_kernel_by_name("demo::twice")
    kernel.start_anew()
    assert torch.ops.demo.twice(torch.ones(3)).tolist() == [2.0, 2.0, 2.0]

    # runtime/dispatch: a signature that was seen is one look-up; a call not accepted is refused.
    torch.ops.demo.twice(torch.zeros(3))
    assert len(kernel.dispatcher.calls) == 1
    with pytest.raises(kernelpkg.CallError, match="dtype"):
        torch.ops.demo.twice(torch.ones(3, dtype=torch.float64))


def test_a_mistake_is_told_with_its_place(demo):
    """All that is wrong comes in one error, a line for each, with what to do about it."""
    demo.edit("kernels/twice/kernel.toml", 'axis = "num_tokens"', 'axis = "num_token"')
    demo.edit("kernels/twice/host.py", "(input: torch.Tensor)", "(input, factor)")
    with pytest.raises(kernelpkg.PackError) as caught:
        read_kernel(demo.root, "twice")
    first, second = str(caught.value).split("\n")
    assert first == (
        "kernels/twice/kernel.toml:2: KP103 'host.py:reference' takes (input, factor), but is "
        "called with (input) (kernels/twice/host.py:4)"
    )
    assert second == (
        "kernels/twice/kernel.toml:14: KP104 key axis 'num_token' is not defined in [axes]; did "
        "you mean 'num_tokens'?"
    )
