"""Kernels bound without data, as for a GPU that is not there."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch._inductor import lowering

import kernelpkg
from kernelpkg import cli
from kernelpkg.compile.bind import Binder, NoInputs, Target, Unbound, known_fields
from kernelpkg.compile.units import kernel_name
from kernelpkg.compile.variants import known_cases, variants_of
from kernelpkg.configs import platforms
from kernelpkg.launch.host import host_text, make_host, record
from kernelpkg.manifest.cases import Case, cases_of
from kernelpkg.packs.read import read_kernel

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
        with HOPPER.standing_in():
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
        "in_dtype=bfloat16, has_scale_ub=false",
        "in_dtype=bfloat16, has_scale_ub=true",
        "in_dtype=float16, has_scale_ub=false",
        "in_dtype=float32, has_scale_ub=false",
    ]
    assert found[0].largest.values["num_tokens"] == 16384
    assert found[0].smallest.values == {**found[0].largest.values, "num_tokens": 4} | {
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


PRODUCT = """\
import helion
import helion.language as hl
import torch
from helion.runtime import get_num_sm


def twice(input: torch.Tensor) -> torch.Tensor:
    workers = WORKERS
    out = torch.empty([input.size(0), input.size(0)], dtype=input.dtype, device=input.device)
    for tile_m, tile_n in hl.tile([input.size(0), input.size(0)]):
        acc = hl.zeros([tile_m, tile_n], dtype=torch.float32)
        for tile_k in hl.tile(input.size(1)):
            acc = hl.dot(input[tile_m, tile_k], input[tile_n, tile_k].T, acc=acc)
        out[tile_m, tile_n] = (acc + workers).to(out.dtype)
    return out
"""


@pytest.fixture
def product(demo):
    """Reads a kernel that multiplies matrices, and adds a number that its host part works out."""

    def read(workers: str, dtype: str = "float16"):
        (demo.root / "kernels/twice/kernel.py").write_text(PRODUCT.replace("WORKERS", workers))
        demo.edit("kernels/twice/kernel.toml", '["num_tokens"]', '["num_tokens", "64"]')
        demo.edit("kernels/twice/kernel.toml", '"float32"', f'"{dtype}"')
        return read_kernel(demo.root, "twice")

    return read


CASE = Case(values={"num_tokens": 64}, use=("tune",), grid=0)


@pytest.mark.parametrize(
    ("dtype", "least"), [("float16", [1, 8, 16]), ("float8_e4m3fn", [1, 8, 32])]
)
def test_blocks_of_products_are_as_small_as_on_a_gpu(product, dtype, least):
    """NVIDIA's compilers take what a CPU's minimum of 16 would change."""
    spec = product("0", dtype)
    for config in ({"block_sizes": least}, {"block_sizes": [16, 16, 16]}):
        made = Binder(spec).bind(CASE, HOPPER).normalised(config)
        assert made["block_sizes"] == [*config["block_sizes"][:2], least[2]]


@pytest.mark.parametrize("asked", ["helion.runtime.get_num_sm", "get_num_sm"])
def test_a_host_part_may_ask_how_many_multiprocessors_there_are(product, asked):
    """Each platform has its own; where it is not known, nothing can be told."""
    spec = product(f"{asked}(input.device, reserved_sms=1)")
    for target, sms in ((HOPPER, 132), (Target(capability=(9, 0), sms=78), 78)):
        launch = Binder(spec).bind(CASE, target).launch({"block_sizes": [16, 16, 16]})
        assert f"tl.full([], {sms - 1}.0, tl.float32)" in launch.text
    for capability in ((9, 0), None):
        with pytest.raises(NoInputs, match="depends on the number of SMs, which is not known"):
            Binder(spec).bind(CASE, Target(capability=capability, sms=None))


def test_fields_that_helion_has_on_a_gpu_alone(binding):
    """What a config of a GPU has is not told to be unknown."""
    new = {"host_tensor_descriptors", "cross_loop_pipeline"} & known_fields()
    assert new <= binding.fields


def test_loops_that_depend_on_one_another(demo):
    """From 1.5 on, Helion takes them on a GPU, and refuses them on a CPU."""
    loop = "    for tile in hl.tile(input.size(0)):\n        out[tile] = out[tile] + 1\n"
    demo.edit("kernels/twice/kernel.py", "    return out", f"{loop}    return out")
    binder = Binder(read_kernel(demo.root, "twice"))
    unknown = "cross_loop_pipeline" in known_fields()
    with pytest.raises(NoInputs if unknown else Unbound, match="LoopDependencyError: "):
        binder.bind(Case(values={"num_tokens": 4}, use=("tune",), grid=0), HOPPER)


def test_an_edited_function_is_bound_as_it_is_now(demo):
    """An op that was loaded before keeps the lines of its function; what is bound has its own."""
    kernelpkg.load(root=demo.root, device="cpu")
    demo.edit("kernels/twice/kernel.py", "input[tile] * 2", "torch.exp(input[tile])")
    spec = read_kernel(demo.root, "twice")
    found = Binder(spec).bind(known_cases(spec)[0], HOPPER)
    assert "exp(" in found.code({"block_sizes": [16]})


def test_what_a_kernel_registers_has_its_own_default():
    """A config without it makes the code of that value, as Helion's own fields do."""
    root = Path(__file__).parents[2] / "packs" / "kinds"
    case = Case(values={"m": 64, "n": 128, "k": 4096}, use=("tune",), grid=0)
    found = Binder(read_kernel(root, "sliced_matmul")).bind(case, HOPPER)
    blocks = {"block_sizes": [64, 64, 64]}
    plain, one, four = ({**blocks, **more} for more in ({}, {"split_k": 1}, {"split_k": 4}))
    assert found.code(plain) == found.code(one)
    assert "split_k = 4" in found.code(four)
    assert found.structure()["tunables"] == ["split_k"]


FLOATS = {
    "handed on": ("", {1}),
    "a branch": ("    if factor > 1.0:\n        factor = factor - 1.0\n", set()),
    "arithmetic": ("    factor = 1.0 / factor\n", set()),
}


@pytest.mark.parametrize(("lines", "free"), FLOATS.values(), ids=FLOATS)
def test_a_float_decides_no_code(tmp_path, lines, free):
    """What the function asks of it stays in the host part, which is seen to look at it there.

    Else a signature without its value would launch code that was made for another one.
    """
    cli.main(["new", "scaled", "--root", str(tmp_path)])
    source = tmp_path / "kernels" / "scaled" / "kernel.py"
    head = "    out = torch.empty_like(input)\n"
    source.write_text(source.read_text().replace(head, head + lines))
    spec = read_kernel(tmp_path, "scaled")
    bound = Binder(spec).bind(cases_of(spec, "tune")[3], HOPPER)
    assert bound.facts == frozenset()
    text = bound.code(bound.default())
    kernel = kernel_name(text, "scaled")
    host = make_host(host_text(text, "scaled"), "scaled", kernel, 132)
    call = record(host, (torch.empty(16, 64, dtype=torch.bfloat16), 2.5), torch.device("cuda", 0))
    assert call.any == free


def test_a_float_cannot_be_made_a_constant(tmp_path):
    cli.main(["new", "scaled", "--root", str(tmp_path)])
    source = tmp_path / "kernels" / "scaled" / "kernel.py"
    source.write_text(
        source.read_text().replace("    out =", "    hl.specialize(factor)\n    out =", 1)
    )
    spec = read_kernel(tmp_path, "scaled")
    with pytest.raises(Unbound, match="must be called on a size or stride from an input tensor"):
        Binder(spec).bind(cases_of(spec, "tune")[3], HOPPER)
