"""The fields of configs: those of Helion, and those that a kernel registers."""

from __future__ import annotations

import pytest

from kernelpkg.errors import PackError
from kernelpkg.manifest.helion_config import function_tunables, tunables_in
from kernelpkg.packs.read import read_kernel

SOURCE = """
import helion.language as hl
from helion.language import register_tunable

NAME = "depth"
NUMBER = 3


def helper(hint):
    return register_tunable("width", hint)


def f(x, name):
    split = hl.register_tunable("split_k", PowerOfTwoFragment(1, 256))
    others = [hl.register_tunable(NAME, ...), hl.register_tunable(NUMBER, ...)]
    return hl.register_tunable(name, ...), hl.register_block_size("block")
"""


def test_registered_fields_are_those_that_the_source_names(tmp_path):
    """By a text or a constant of the file, in any of its functions; a name that is given is not."""
    path = tmp_path / "kernel.py"
    path.write_text(SOURCE)
    assert set(tunables_in(path)) == {"width", "split_k", "depth"}


@pytest.mark.parametrize("content", [b"def f(:", b"\xff", b"\0", b"(" * 500])
def test_a_file_that_is_no_python_registers_nothing(tmp_path, content):
    """What is wrong with it is said by the checks of the file."""
    path = tmp_path / "kernel.py"
    path.write_bytes(content)
    assert tunables_in(path) == ()
    assert tunables_in(tmp_path / "none.py") == ()


def test_a_function_registers_what_its_own_source_names():
    def outer(hl):
        return hl.register_tunable("depth", 4)

    assert function_tunables(outer) == ("depth",)
    assert function_tunables(len) == ()


def test_they_are_fields_of_the_default_config(demo):
    """No other is, and one that is meant is proposed."""
    default = "default = { split_k = 4 }"
    demo.edit("kernels/twice/kernel.toml", 'requires = ">=1.4"', default)
    with pytest.raises(PackError, match="KP152 default config has no field 'split_k'"):
        read_kernel(demo.root, "twice")
    head = "    out = torch.empty_like(input)\n"
    line = "    n = hl.register_tunable('split_k', PowerOfTwoFragment(1, 4))\n"
    demo.edit("kernels/twice/kernel.py", head, head + line)
    assert read_kernel(demo.root, "twice").default == {"split_k": 4}
    demo.edit("kernels/twice/kernel.toml", default, "default = { splitk = 4 }")
    with pytest.raises(PackError, match="no field 'splitk'; did you mean 'split_k'"):
        read_kernel(demo.root, "twice")


def test_a_default_may_have_lists_where_no_tensor_is_optional(demo):
    """They are as in a config file: of entries, or of lists of these."""
    lists = "{ loop_orders = [[1, 0]], indexing = ['pointer', 'block_ptr'] }"
    demo.edit("kernels/twice/kernel.toml", 'requires = ">=1.4"', f"default = {lists}")
    assert read_kernel(demo.root, "twice").default == {
        "loop_orders": ((1, 0),),
        "indexing": ("pointer", "block_ptr"),
    }
