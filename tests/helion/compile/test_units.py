"""What is compiled of a kernel: the classes of its calls, and the facts that Triton tells apart."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from kernelpkg.compile.units import KernelBuilder, kernel_name, launch_of
from kernelpkg.configs.platforms import resolve
from kernelpkg.launch.host import HostCall, NotRecorded, Pointer
from kernelpkg.packs.read import read_kernel, read_pack

H200 = resolve("NVIDIA H200")
ONE, MORE = '[["float32", [1, 1]]]', '[["float32", [2, 1]]]'


def builder_of(demo) -> KernelBuilder:
    pack, spec = read_pack(demo.root, "demo"), read_kernel(demo.root, "twice")
    return KernelBuilder(pack, spec, H200)


def test_each_class_and_each_set_of_facts_is_compiled_once(demo):
    """One token, which is a constant; more, as a multiple of 16 and not."""
    demo.configs("twice")
    builder = builder_of(demo)
    units = [*builder.units()]
    assert {unit.chosen.config_id for unit in units} == {'{"block_sizes":[16],"num_warps":4}'}
    found = [(unit.call_class, unit.payload["args"]) for unit in units]
    pointers = [["float32", 0], ["float32", 0]]
    assert found[0] == (ONE, [*pointers, 1, 1, 1])
    assert {key for key, _ in found[1:]} == {MORE}
    sizes = [args[2] for _, args in found[1:]]
    assert [size % 16 == 0 for size in sizes] in ([False, True], [True, False])
    assert builder.rule.exact == {0: (False, False)}
    assert builder.absent == ()


def test_classes_are_those_of_the_units(demo):
    """They can be told without Helion where it is known which sizes are exact."""
    demo.configs("twice")
    builder = builder_of(demo)
    units = [*builder.units()]
    classes = [*builder.classes(builder.rule)]
    assert [use.key for use in classes] == [*dict.fromkeys(unit.key for unit in units)]
    assert [use.case.values["num_tokens"] for use in classes] == [1, 2]


@pytest.mark.parametrize(
    ("name", "constants"),
    [
        ("activation_mul", [["silu"], ["gelu_tanh"]]),
        ("moving_sum", [[{"int": 3}, True], [{"int": 5}, False]]),
    ],
)
def test_each_value_of_a_constant_has_classes_of_its_own(name, constants):
    """A text is one always, a number or a flag where the function says `hl.constexpr`."""
    root = Path(__file__).parents[2] / "packs" / "kinds"
    builder = KernelBuilder(read_pack(root, "kinds"), read_kernel(root, name), resolve("H100"))
    codes: dict[str, set[str]] = {json.dumps(value): set() for value in constants}
    for unit in builder.units():
        constant = json.loads(unit.call_class)[-len(constants[0]) :]
        codes[json.dumps(constant)].add(str(unit.payload["text"]))
    assert all(codes.values())
    assert set.intersection(*codes.values()) == set()


def test_elements_of_a_list_are_arguments_of_the_code():
    """They are in the class as a number is: one that is 0 or 1, and how many there are."""
    root = Path(__file__).parents[2] / "packs" / "kinds"
    builder = KernelBuilder(read_pack(root, "kinds"), read_kernel(root, "roll"), resolve("H100"))
    units = [*builder.units()]
    assert builder.rule.exact[1] == (False, False)
    assert {str(json.loads(unit.call_class)[1]) for unit in units} == {"[0, 2]"}
    assert units[0].payload["args"][-2:] == [0, 3]


def test_calls_that_get_no_config_of_the_pack_get_helions_default(demo):
    assert {unit.chosen.config for unit in builder_of(demo).units()} == {None}


def test_results_that_need_indices_of_64_bits(demo):
    """Their code is compiled, and no build has it: its arguments are as those of other calls."""
    demo.edit(
        "kernels/twice/kernel.py",
        """    out = torch.empty_like(input)
    for tile in hl.tile(input.size(0)):
        out[tile] = input[tile] * 2
""",
        """    size = input.size(0)
    out = torch.empty([size, size], dtype=input.dtype, device=input.device)
    for one, other in hl.tile([size, size]):
        out[one, other] = input[one][:, None] * input[other][None, :]
""",
    )
    demo.edit("kernels/twice/kernel.toml", "num_tokens = [1, 4]", "num_tokens = [4, 65536]")
    builder = builder_of(demo)
    near = [*builder.units()]
    ((use, reason),) = builder.lacks.values()
    assert (use.case.values, str(reason)) == (
        {"num_tokens": 65536},
        "its results need indices of 64 bits, and a build has none",
    )
    assert [unit.case.values["num_tokens"] for unit in near] == [1, 2, 16]
    assert "tl.int64" in builder.unrecorded(use).payload["text"]
    assert "tl.int64" not in near[0].payload["text"]


GENERATOR = """
def make(axes, generator, device):
    {}
    return (torch.randn(axes["num_tokens"], device=device),)
"""


def with_generator(demo, line):
    host = demo.root / "kernels/twice/host.py"
    host.write_text(host.read_text() + GENERATOR.format(line))
    before, after = "[inputs]\n", '[inputs]\ngenerator = "host.py:make"\n'
    demo.edit("kernels/twice/kernel.toml", before, after)
    return builder_of(demo)


def test_inputs_of_a_function_are_made_without_data(demo):
    builder = with_generator(demo, "assert type(torch.empty(1)).__name__ == 'FakeTensor'")
    assert {unit.call_class for unit in builder.units()} == {ONE, MORE}


def test_inputs_that_cannot_be_made_are_told(demo):
    builder = with_generator(demo, "raise OSError('no file')")
    assert [*builder.units()] == []
    assert [str(problem) for problem in builder.problems()] == [
        (
            "kernels/twice/kernel.toml: KP326 unverified: calls have no code in the build: "
            "its inputs cannot be made: OSError: no file (case num_tokens=1, and 3 more)"
        )
    ]


MODULE = """
_BLOCK = tl.constexpr(4)

@triton.jit
def _add(a, b):
    return a + b

@triton.jit
def _helion_scale(x, n, BLOCK: tl.constexpr):
    tl.reduce(x, 0, _add)

def scale(x, *, _launcher):
    _launcher(_helion_scale, (1,), x, x.size(0), _BLOCK, num_warps=4)
"""


def test_the_kernel_is_the_one_that_is_launched():
    """Functions of Triton stand before it, with the same decorator."""
    assert kernel_name(MODULE, "scale") == "_helion_scale"
    with pytest.raises(NotRecorded) as caught:
        kernel_name(MODULE.replace("_launcher(_helion_scale", "_launcher(None"), "scale")
    assert str(caught.value) == "its host part launches 0 kernels"


def test_a_launch_is_json():
    call = HostCall(
        kernel="_helion_scale",
        grid=(1, 1, 1),
        args=(Pointer(source=0, delta=12, dtype=torch.bfloat16), 3, None, 0.5, True, "sum"),
        options={"num_warps": 4},
        allocations=(),
        results=None,
    )
    payload = launch_of(call, MODULE).payload("sm_90")
    assert json.loads(json.dumps(payload)) == payload
    assert payload["args"] == [["bfloat16", 12], 3, None, 0.5, True, "sum"]
