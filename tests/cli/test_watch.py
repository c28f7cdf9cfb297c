"""What `test --watch` waits for."""

from __future__ import annotations

from itertools import islice

from kernelpkg.cli.watch import changes, touched

KERNEL = "kernels/twice/kernel.toml"


def watched(root, count, *edits):
    """The first things that are yielded, where each wait makes one edit."""
    rest = iter(edits)

    def wait():
        next(rest)()

    return list(islice(changes(root, wait), count))


def test_all_files_come_first_and_then_what_changes(demo):
    new = demo.root / "kernels/twice/more.py"
    first, *others = watched(
        demo.root,
        4,
        lambda: demo.edit(KERNEL, "version = 1", "version = 12"),
        lambda: new.write_text("x = 1\n"),
        new.unlink,
    )
    assert {KERNEL, "manifests/demo.toml", "kernels/twice/kernel.py"} <= first
    assert others == [{KERNEL}, {"kernels/twice/more.py"}, {"kernels/twice/more.py"}]


def test_what_editors_and_python_write_beside_files_is_no_change(demo):
    def beside():
        for name in (".kernel.toml.swp", "kernel.toml~", "__pycache__/kernel.pyc"):
            path = demo.root / "kernels/twice" / name
            path.parent.mkdir(exist_ok=True)
            path.write_text("x")

    found = watched(demo.root, 2, beside, lambda: demo.edit(KERNEL, "version = 1", "version = 12"))
    assert found[1] == {KERNEL}


def test_files_belong_to_kernels_and_others_to_all_of_them():
    kernels = ("a", "b", "c")
    assert touched(["configs/a/nvidia_h200.json", "kernels/b/host.py"], kernels) == ("a", "b")
    assert touched(["kernels/a/host.py", "manifests/demo.toml"], kernels) == kernels
    assert touched(["kernels/shared.py"], kernels) == kernels
