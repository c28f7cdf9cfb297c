"""Config files of vLLM's, made from the store: keys, default entries, and what is refused."""

from __future__ import annotations

import json

import pytest

from kernelpkg.errors import PackError
from kernelpkg.packs.read import read_kernel, read_pack
from kernelpkg.vllm.tree import read_tree
from kernelpkg.vllm.vendor.op_configs import write_configs
from kernelpkg.vllm.vendor.op_file import write_op

DEFAULT = 'requires = ">=1.4"\ndefault = { block_sizes = [32], num_warps = 2 }'
H200 = "configs/twice/nvidia_h200.json"


@pytest.fixture
def pack(demo):
    """A pack with a tuned kernel, and a default config."""
    demo.configs("twice")
    demo.edit("kernels/twice/kernel.toml", 'requires = ">=1.4"', DEFAULT)
    return demo


def written(pack, vllm):
    """Return the entries of each file that is written."""
    spec = read_kernel(pack.root, "twice")
    op = write_op(spec, "x", "MIT", "shared")
    texts = write_configs(read_pack(pack.root, "demo"), spec, op.axes, op.free, read_tree(vllm, ""))
    for text in texts.values():
        assert text == json.dumps(json.loads(text), indent=2) + "\n"
    return {
        platform: [(entry["key"], entry["config"]) for entry in json.loads(text)]
        for platform, text in texts.items()
    }


def problems(pack, vllm):
    with pytest.raises(PackError) as caught:
        written(pack, vllm)
    return [str(problem) for problem in caught.value.problems]


TUNED = {"block_sizes": [16], "num_warps": 4}
PLAIN = {"block_sizes": [32], "num_warps": 2}


REGISTERS = "    split = hl.register_tunable('split', PowerOfTwoFragment(1, 4))\n"


def test_vllm_has_no_default_of_what_a_kernel_registers(pack, vllm):
    """Each config has to give it, that of calls that reach no case too."""
    head = "    out = torch.empty_like(input)\n"
    pack.edit("kernels/twice/kernel.py", head, head + REGISTERS)
    named = "import torch\nfrom helion.autotuner import PowerOfTwoFragment\n"
    pack.edit("kernels/twice/kernel.py", "import torch\n", named)
    start = f"{H200}: KP815 kernel 'twice' on nvidia_h200: "
    end = "has no 'split', which the kernel registers and vLLM has no default of; give one"
    assert problems(pack, vllm) == [f"{start}a config ({TUNED}) {end}"]
    pack.edit(H200, '"num_warps": 4', '"num_warps": 4, "split": 2')
    assert problems(pack, vllm) == [f"{start}[helion] default {end}"]
    pack.edit("kernels/twice/kernel.toml", "num_warps = 2", "num_warps = 2, split = 1")
    configs = [config for _, config in written(pack, vllm)["nvidia_h200"]]
    assert [config["split"] for config in configs] == [1, 1, 2, 2]


def test_every_file_has_an_entry_for_each_class_of_default_calls(pack, vllm):
    """Then come the tuned cases; fields of a config are in Helion's order."""
    assert written(pack, vllm) == {
        "nvidia_h200": [
            ({}, PLAIN),
            ({"default": True, "num_tokens": 1}, PLAIN),
            ({"num_tokens": 1}, TUNED),
            ({"num_tokens": 4}, TUNED),
        ]
    }


def test_a_kernel_that_is_not_tuned_has_no_file(demo, vllm):
    assert written(demo, vllm) == {}


def test_the_default_case_of_the_store_comes_before_that_of_the_manifest(pack, vllm):
    pack.edit(H200, '"num_warps": 4}]', '"num_warps": 4}, {"block_sizes": [64]}]')
    pack.edit(H200, '"cases": [', '"cases": [{"key": {}, "config": 1}, ')
    assert written(pack, vllm)["nvidia_h200"][:3] == [
        ({}, {"block_sizes": [64]}),
        ({"default": True, "num_tokens": 1}, {"block_sizes": [64]}),
        ({"num_tokens": 1}, TUNED),
    ]


def test_where_a_miss_is_an_error_there_is_no_default(pack, vllm):
    pack.edit("kernels/twice/kernel.toml", "[inputs]", '[miss]\naction = "error"\n[inputs]')
    keys = [key for key, _ in written(pack, vllm)["nvidia_h200"]]
    assert keys == [{"num_tokens": 1}, {"num_tokens": 4}]


def test_axes_that_a_key_lacks_are_filled(pack, vllm):
    """In the order of the rules, from [inputs] default."""
    path = "kernels/twice/kernel.toml"
    pack.edit(path, 'num_tokens = "input', 'dtype = "input.dtype"\nnum_tokens = "input')
    pack.edit(
        path, 'axis = "num_tokens"', 'axis = "dtype"\nmatch = "exact"\n[[key]]\naxis = "num_tokens"'
    )
    pack.edit(path, "[inputs]", '[inputs]\ndefault = { dtype = "float32" }')
    found = [list(key.items()) for key, _ in written(pack, vllm)["nvidia_h200"]]
    assert found == [
        [],
        [("default", True), ("num_tokens", 1)],
        [("dtype", "float32"), ("num_tokens", 1)],
        [("dtype", "float32"), ("num_tokens", 4)],
    ]


def test_calls_of_one_and_of_more_may_not_share_a_case(pack, vllm):
    """On each platform: the case, the calls and the remedies."""
    pack.configs("twice", platform="nvidia_b200")
    pack.edit("configs/twice/nvidia_b200.json", '"nvidia_h200"', '"nvidia_b200"')
    pack.edit(H200, '"num_tokens": 1}', '"num_tokens": 2}')
    assert problems(pack, vllm) == [
        (
            f"{H200}: KP817 kernel 'twice' on nvidia_h200: calls with num_tokens=1 and "
            "num_tokens=2 reach one case, num_tokens=2, and vLLM would run the second with code "
            "for the first; tune num_tokens=1 too, or fix the size with hl.specialize in the "
            "kernel, and name it in [helion] specialize"
        )
    ]
    pack.edit("kernels/twice/kernel.toml", "[helion]", '[helion]\nspecialize = ["num_tokens"]')
    assert [key for key, _ in written(pack, vllm)["nvidia_h200"]] == [
        {}, {"num_tokens": 2}, {"num_tokens": 4},
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("match", "sizes", "remedy"),
    [
        pytest.param("ceil", (16, 32), "tune num_tokens=1 too", id="1-is-not-tuned"),
        pytest.param("nearest", (1, 64), "tune num_tokens=2 too", id="2-is-not-tuned"),
        pytest.param("ignore", (1, 64), "give num_tokens another match", id="ignored"),
    ],
)
def test_the_remedy_is_what_is_lacking(pack, vllm, match, sizes, remedy):
    pack.edit("kernels/twice/kernel.toml", '"ceil"', f'"{match}"')
    pack.edit("kernels/twice/kernel.toml", "[1, 4]", "[1]")
    for old, new in zip((1, 4), sizes, strict=True):
        pack.edit(H200, f'"num_tokens": {old}}}', f'"num_tokens": {new} }}')
    (line,) = problems(pack, vllm)
    assert f"; {remedy}, or fix the size" in line


def test_a_picker_of_the_kernels_own_keeps_the_classes_apart_at_each_call(pack, vllm):
    """What is written around it drops an answer of the other class, where the key tells."""
    pack.edit(H200, '"num_tokens": 1}', '"num_tokens": 2}')
    pack.edit("kernels/twice/kernel.toml", "[op]", 'picker = "host.py:pick"\n[op]')
    path = pack.root / "kernels/twice/host.py"
    path.write_text(path.read_text() + "\n\ndef pick(args, keys):\n    return keys[0]\n")
    assert len(written(pack, vllm)["nvidia_h200"]) == 4
    path = "kernels/twice/kernel.toml"
    pack.edit(path, 'axis = "num_tokens"\nmatch = "ceil"', 'axis = "dtype"\nmatch = "exact"')
    pack.edit(path, 'num_tokens = "input', 'dtype = "input.dtype"\nnum_tokens = "input')
    pack.edit(path, "[inputs]", '[inputs]\ndefault = { dtype = "float32" }')
    pack.edit(H200, '{"num_tokens": 2}', '{"dtype": "float32"}')
    pack.edit(H200, '{"num_tokens": 4}', '{"dtype": "int8"}')
    assert [line.partition(": ")[2][:5] for line in problems(pack, vllm)] == ["KP817"]


def test_platforms_that_vllm_spells_otherwise_are_refused(pack, vllm):
    for platform in ("nvidia_h100_pcie", "NVIDIA_L4"):
        pack.configs("twice", platform=platform)
        pack.edit(f"configs/twice/{platform}.json", '"nvidia_h200"', f'"{platform}"')
    assert problems(pack, vllm) == [
        (
            f"configs/twice/{name}.json: KP816 vLLM calls platform '{name}' '{other}' and would "
            f"never look for this file; tune for '{other}', or rename the platform here and in "
            "the file"
        )
        for name, other in (("NVIDIA_L4", "nvidia_l4"), ("nvidia_h100_pcie", "nvidia_h100"))
    ]


@pytest.mark.parametrize("value", ["true", "4.0", '"4"', "null"])
def test_values_that_no_call_has_are_refused(pack, vllm, value):
    """No rule takes True for 1, so that what they were tuned for would be out of reach."""
    pack.edit(H200, '"num_tokens": 4}', f'"num_tokens": {value}}}')
    told = {"null": "none"}.get(value, value.strip('"'))
    assert problems(pack, vllm) == [
        (
            f"{H200}: KP818 case 1, key: axis 'num_tokens' is {told}, which it is in no call; "
            "correct it, or tune again"
        )
    ]


def test_a_default_without_block_sizes_is_refused(demo, vllm):
    """vLLM gives Helion the config as it is, and Helion wants a size for each tile."""
    demo.configs("twice")
    assert problems(demo, vllm) == [
        (
            f"{H200}: KP815 kernel 'twice' on nvidia_h200: calls that reach no case have no "
            "config, for vLLM does not fall back to Helion's own; give block_sizes in [helion] "
            'default, or say action = "error" in [miss]'
        )
    ]


def test_problems_of_all_files_come_at_once(pack, vllm):
    pack.configs("twice", "{", platform="nvidia_b200")
    pack.edit(H200, '"num_tokens": 1}', '"num_tokens": 2}')
    assert [line.split(": ")[1][:5] for line in problems(pack, vllm)] == ["KP501", "KP817"]
