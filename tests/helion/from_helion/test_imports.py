"""Files that the installed Helion writes are those that are read: its heuristics, its keys."""

from __future__ import annotations

import importlib.util
import json
import random

import helion
import numpy as np
import pytest
import torch
from helion.autotuner.aot_kernel import extract_shape_features
from helion.autotuner.decision_tree_backend import DecisionTreeBackend
from helion.autotuner.heuristic_generator import ShapeConfigData

from kernelpkg.cli.new import new_kernel
from kernelpkg.configs import directories
from kernelpkg.configs.picker import compile_picker
from kernelpkg.from_helion.imports import plan_import
from kernelpkg.manifest.guards import CallCheck
from kernelpkg.packs.read import read_kernel, read_pack
from kernelpkg.packs.sources import load_function

CONFIGS = [
    helion.Config(block_sizes=[1 << place, 64], num_warps=4, indexing=["pointer"] * 2)
    for place in range(4)
]


def a_call(generator):
    shape = [int(2 ** generator.uniform(0, 14)) for _ in range(2)]
    return torch.empty(shape, dtype=torch.bfloat16, device="meta"), 2.0


@pytest.fixture
def spec(demo):
    """A kernel with rules of several kinds: exact, nearest and ceil."""
    new_kernel(demo.root, "scale", make_pack=False)
    return read_kernel(demo.root, "scale")


@pytest.mark.parametrize("seed", range(3))
def test_calls_at_random_get_the_config_of_the_heuristic(demo, spec, tmp_path, seed):
    """120 of 120, of a tree that Helion's own generator makes of times."""
    generator = random.Random(seed)
    facts = [extract_shape_features(a_call(generator)) for _ in range(24)]
    data = ShapeConfigData(
        kernel_name="scale",
        shape_features=facts,
        timings=np.random.default_rng(seed).uniform(size=(len(facts), len(CONFIGS))),
        configs=CONFIGS,
        shape_hashes=[str(place) for place in range(len(facts))],
        config_hashes=[str(place) for place in range(len(CONFIGS))],
        selected_config_indices=[*range(len(CONFIGS))],
    )
    names = ["arg0_dim0", "arg0_dim1"]
    made = DecisionTreeBackend().generate_heuristic("scale", data, CONFIGS, names)
    path = tmp_path / "_helion_aot_scale_cuda_sm90.py"
    path.write_text(made.generated_code)
    pack = read_pack(demo.root, "demo")
    plan_import(pack, [path], platform="nvidia_h100").carry_out()
    found = importlib.util.spec_from_file_location("heuristic", path)
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    file = directories.read_configs(pack, spec, "nvidia_h100").content()
    picker = compile_picker(spec.rules, [case.key for case in file.cases], spec.defaults)
    check = CallCheck(spec, "scale")
    for _ in range(120):
        call = a_call(generator)
        axes = dict(zip(check.axis_names, check.axes_of(call), strict=True))
        pick = picker.pick(tuple(axes[axis] for axis in spec.key_axes))
        assert file.configs[file.cases[pick.index].config] == module.autotune_scale(*call)


def test_a_key_of_helions_says_which_case_it_is(demo, spec, tmp_path):
    function = load_function(demo.root / "kernels/scale", spec.source)
    kernel = helion.kernel(static_shapes=True)(function)
    args = torch.empty(16, 4096, dtype=torch.bfloat16), 2.0
    fields = {
        "specialization_key": str(kernel._base_specialization_key(args)),
        "hardware": "NVIDIA H200",
    }
    entry = {"config": CONFIGS[0].to_json(), "key": {"fields": fields}}
    path = tmp_path / "0a.best_config"
    path.write_text(json.dumps(entry))
    pack = read_pack(demo.root, "demo")
    plan_import(pack, [path], op="scale").carry_out()
    file = directories.read_configs(pack, spec, "nvidia_h200").content()
    assert [dict(case.key) for case in file.cases] == [
        {"dtype": "bfloat16", "hidden_size": 4096, "num_tokens": 16}
    ]
    assert file.configs == (dict(CONFIGS[0]),)
