"""Kernels bound without data, as for a GPU that is not there."""

from __future__ import annotations

import pytest
import torch
from torch._inductor import lowering

from kernelpkg.compile.bind import Binder, NoInputs, Target, standing_in
from kernelpkg.compile.variants import known_cases, variants_of
from kernelpkg.configs import platforms
from kernelpkg.manifest.cases import Case

SILU = "silu_mul_fp8"
HOPPER = Target(capability=(9, 0))
CONFIG = {"block_sizes": [1024, 4], "num_warps": 4}


def silu(specs, tokens, target=HOPPER):
    """Bind silu_mul_fp8 for a call of so many tokens."""
    values = {"num_tokens": tokens, "intermediate_size": 2048, "in_dtype": "bfloat16"}
    return Binder(specs[SILU]).bind(Case(values=values, use=("tune",), grid=0), target)


@pytest.fixture(scope="module")
def binding(specs):
    """A call whose tensors no machine could hold."""
    return silu(specs, 2**30)


@pytest.mark.parametrize(
    ("name", "capability"),
    [
        ("nvidia_h200", (9, 0)),
        ("nvidia_b300", (10, 3)),
        ("nvidia_geforce_rtx_5090", (12, 0)),
        ("amd_instinct_mi300x", None),
        ("some_gpu", None),
    ],
)
def test_targets(name, capability):
    """NVIDIA's architectures are stood in for, and no others."""
    assert Target.of(platforms.resolve(name)).capability == capability


def test_no_data_is_needed_for_any_size(binding):
    """Code has the tokens as an argument, and is that of any other number of them."""
    launch = binding.launch(CONFIG)
    assert 2**30 in launch.args
    assert str(2**30) not in launch.text
    assert "2048" in launch.text


def test_a_launch_has_the_places_of_tensors(binding):
    """The second half of the rows starts 2048 elements of two bytes behind the first."""
    pointers = [arg for arg in binding.launch(CONFIG).args if isinstance(arg, list)]
    assert pointers[:2] == [["bfloat16", offset] for offset in (0, 4096)]


def test_what_no_address_space_holds_has_no_inputs(specs):
    with pytest.raises(NoInputs):
        silu(specs, 2**60)


def test_limits_are_of_sizes_that_code_knows(binding):
    assert binding.limits == (2048, None)


@pytest.mark.parametrize(("capability", "entries"), [((9, 0), 0), ((10, 0), 1), ((12, 0), 1)])
def test_warps_of_loops_are_specialised_from_blackwell_on(specs, capability, entries):
    """A list that a B200's tuner writes is not a fault of its config."""
    found = silu(specs, 16, Target(capability=capability))
    assert found.lengths["range_warp_specializes"] == (entries,)


def test_code_is_that_of_tensors_with_data(specs, make_args):
    """Binding tensors without data gives the text that binding a real call gives."""
    spec = specs[SILU]
    case = next(case for case in known_cases(spec) if case.values["num_tokens"] == 3)
    binder = Binder(spec)
    ours = binder.bind(case, Target(capability=None))
    real = binder._kernel(Target(capability=None)).bind(make_args(SILU, **case.values))
    assert ours.launch(CONFIG).text == real.to_triton_code(dict(CONFIG))


def test_switches_of_helion_are_put_back():
    """After an error too, Helion sees the machine as it is."""
    from helion import _compat

    def fails():
        with standing_in(HOPPER):
            assert _compat.supports_maxnreg()
            assert _compat.supports_tensor_descriptor()
            raise KeyError

    before = _compat.supports_maxnreg()
    with pytest.raises(KeyError):
        fails()
    assert _compat.supports_maxnreg() is before is torch.cuda.is_available()


def test_variants_are_told_apart_by_what_is_no_size(specs):
    """Dtypes and flags make variants; the largest and the smallest case stand for their sizes."""
    spec = specs["dynamic_per_token_scaled_fp8_quant"]
    found = variants_of(spec, known_cases(spec))
    assert [str(variant) for variant in found] == [
        "in_dtype=bfloat16, has_scale_ub=true",
        "in_dtype=bfloat16, has_scale_ub=false",
        "in_dtype=float16, has_scale_ub=false",
        "in_dtype=float32, has_scale_ub=false",
    ]
    assert found[1].largest.values["num_tokens"] == 8192
    assert found[1].smallest.values == {**found[1].largest.values, "num_tokens": 2} | {
        "hidden_size": 2048
    }


def test_a_quotient_by_a_constant_is_a_product_as_in_code_for_gpus(specs):
    """PyTorch makes it one on every device but a CPU, whose tensors stand in here."""
    values = {"num_tokens": 16, "hidden_size": 4096, "in_dtype": "bfloat16", "has_scale_ub": False}
    case = Case(values=values, use=("tune",), grid=0)
    binder = Binder(specs["dynamic_per_token_scaled_fp8_quant"])
    texts = [
        binder.bind(case, target).launch({"block_sizes": [1], "num_warps": 4}).text
        for target in (HOPPER, Target(capability=None))
    ]
    assert [f"{1 / 448}, tl.float32" in text for text in texts] == [True, False]
    assert lowering.div_prim.__module__ == "torch._inductor.lowering"
