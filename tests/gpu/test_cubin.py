"""What level 2 of a check says of a config, against the kernel that this GPU runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from kernelpkg.bench.inputs import make_inputs
from kernelpkg.compile import cubin
from kernelpkg.compile.bind import Binder, Target
from kernelpkg.compile.helion import to_config
from kernelpkg.compile.variants import filed_configs
from kernelpkg.configs import platforms
from kernelpkg.packs.read import read_kernel, read_pack
from kernelpkg.runtime.torch_ops import detect

ROOT = Path(__file__).parents[2]
NAMES = sorted(path.parent.name for path in ROOT.glob("kernels/*/kernel.toml"))

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


@pytest.mark.parametrize("name", NAMES)
def test_code_and_needs_are_those_of_the_gpu(name):
    """The text of the generated module, registers, shared memory and spills are the same."""
    here = detect("cuda").platform
    platform = platforms.resolve(here.name)
    spec = read_kernel(ROOT, name)
    binder = Binder(spec)
    filed = filed_configs(read_pack(ROOT, "kernelpkg"), spec, platform.name)
    if not filed:
        pytest.skip(f"nothing is tuned for {platform.name}")
    for one in filed:
        variant = one.variants[0]
        without = binder.bind(variant.largest, Target.of(platform)).launch(one.config)
        assert platform.arch is not None
        said = cubin.perform(json.loads(json.dumps(without.payload(platform.arch))))
        args = make_inputs(spec, variant.largest, device="cuda")
        bound = binder._kernel(Target(capability=None)).bind(args)
        assert bound.to_triton_code(to_config(one.config)) == without.text, one.config
        found = []

        def launcher(kernel, grid, *args, found=found, **options):
            made = cubin.LAUNCHER(kernel, grid, *args, **options)
            found.append(made)
            return made

        bound.compile_config(to_config(one.config))(*args, _launcher=launcher)
        torch.cuda.synchronize()
        (made,) = found
        assert said == {
            "registers": made.n_regs,
            "spills": made.n_spills * 4,
            "shared": made.metadata.shared,
            "warps": made.metadata.num_warps,
        }, one.config
