"""GPU names, the platforms they mean, and the order in which configs are borrowed."""

# ruff: noqa: E501  # tables of cases and messages have whole lines

from __future__ import annotations

import pytest
from attrs import evolve

from kernelpkg.configs.platforms import (
    Platform,
    canonical,
    chain,
    chosen_platforms,
    fits,
    platform_of,
    resolve,
)
from kernelpkg.errors import UsageError
from kernelpkg.packs.read import read_pack

KIB = 1024


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        pytest.param("NVIDIA H100 80GB HBM3", "nvidia_h100_80gb_hbm3", id="spaces"),
        pytest.param("NVIDIA A100-SXM4-80GB", "nvidia_a100_sxm4_80gb", id="dashes"),
        pytest.param("AMD Instinct MI300X", "amd_instinct_mi300x", id="amd"),
        pytest.param("AMD Instinct MI250X / MI250", "amd_instinct_mi250x_mi250", id="slash"),
        pytest.param(" NVIDIA  H20-3e ", "nvidia_h20_3e", id="outer-spaces"),
        pytest.param("NVIDIA A100 MIG 1g.5gb", "nvidia_a100_mig_1g_5gb", id="dot"),
        pytest.param("nvidia_h200", "nvidia_h200", id="canonical-already"),
    ],
)
def test_canonical(name, expected):
    """A GPU's name becomes a word that can name a file."""
    assert canonical(name) == expected


@pytest.mark.parametrize("name", ["", "  ", "/-"])
def test_canonical_refuses_names_without_letters(name):
    """An empty name raises instead of naming a platform ''."""
    with pytest.raises(ValueError, match="GPU name") as caught:
        canonical(name)
    assert str(caught.value) == f"GPU name {name!r} has no letter or digit"


GPUS = {
    "v100": ("Tesla V100-SXM2-32GB", "tesla_v100", "volta", "sm_70", 96),
    "a100": ("NVIDIA A100 80GB PCIe", "nvidia_a100", "ampere", "sm_80", 163),
    "a10": ("NVIDIA A10", "nvidia_a10", "ampere", "sm_86", 99),
    "l4": ("NVIDIA L4", "nvidia_l4", "ada", "sm_89", 99),
    "l40s": ("NVIDIA L40S", "nvidia_l40s", "ada", "sm_89", 99),
    "h20": ("NVIDIA H20", "nvidia_h20", "hopper", "sm_90", 227),
    "h100": ("NVIDIA H100 NVL", "nvidia_h100", "hopper", "sm_90", 227),
    "h200": ("NVIDIA H200", "nvidia_h200", "hopper", "sm_90", 227),
    "gh200": ("NVIDIA GH200 480GB", "nvidia_gh200", "hopper", "sm_90", 227),
    "b100": ("NVIDIA B100", "nvidia_b100", "blackwell", "sm_100", 227),
    "b200": ("NVIDIA B200", "nvidia_b200", "blackwell", "sm_100", 227),
    "gb200": ("NVIDIA GB200", "nvidia_gb200", "blackwell", "sm_100", 227),
    "b300": ("NVIDIA B300 SXM6 AC", "nvidia_b300", "blackwell", "sm_103", 227),
    "4090": ("NVIDIA GeForce RTX 4090", "nvidia_geforce_rtx_4090", "ada", "sm_89", 99),
    "5090": ("NVIDIA GeForce RTX 5090", "nvidia_geforce_rtx_5090", "blackwell", "sm_120", 99),
    "6000-ada": ("NVIDIA RTX 6000 Ada Generation", "nvidia_rtx_6000_ada_generation", "ada", "sm_89", 99),
    "pro-6000": ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "nvidia_rtx_pro_6000_blackwell", "blackwell",
        "sm_120", 99),
    "mi250x": ("AMD Instinct MI250X/MI250", "amd_instinct_mi250x", "cdna2", "gfx90a", 64),
    "mi300x": ("AMD_Instinct_MI300X_HF", "amd_instinct_mi300x", "cdna3", "gfx942", 64),
    "300a": ("AMD Instinct MI300A", "amd_instinct_mi300a", "cdna3", "gfx942", 64),
    "325x": ("AMD Instinct MI325X", "amd_instinct_mi325x", "cdna3", "gfx942", 64),
    "350x": ("AMD Instinct MI350X", "amd_instinct_mi350x", "cdna4", "gfx950", 160),
    "355x": ("AMD Instinct MI355X", "amd_instinct_mi355x", "cdna4", "gfx950", 160),
}  # fmt: skip


@pytest.mark.parametrize(("name", "base", "family", "arch", "shared"), GPUS.values(), ids=GPUS)
def test_known_gpus(name, base, family, arch, shared):
    """The field's GPUs are known by the names that drivers give them."""
    assert evolve(resolve(name), sms=None) == Platform(
        name=base,
        gpu=canonical(name),
        base=base,
        family=family,
        arch=arch,
        shared_memory=shared * KIB,
    )


@pytest.mark.parametrize(
    ("name", "sms"),
    [
        ("NVIDIA H100 80GB HBM3", 132),
        ("NVIDIA H100 PCIe", 114),
        ("nvidia_h100", 132),
        ("NVIDIA GeForce RTX 4090 D", 114),
        ("NVIDIA A100-SXM4-40GB", 108),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", None),
        ("NVIDIA GeForce RTX 3090", None),
        ("AMD Instinct MI300X", None),
        ("cpu", None),
    ],
)
def test_multiprocessors(name, sms):
    """A variant may have others than its base, and an instance has a part of them."""
    assert resolve(name).sms == sms


def test_a_named_platform_holds_for_variants_apart():
    """A name that the pack gives wins over the variant's own."""
    extra = {"nvidia_h200_sxm": "nvidia_h200"}
    assert resolve("NVIDIA H200 SXM", extra=extra, variants="apart").name == "nvidia_h200"


def test_variants_apart_have_their_own_platform():
    """With variants apart, only the name of the configs changes."""
    together = resolve("NVIDIA H100 PCIe")
    apart = resolve("NVIDIA H100 PCIe", variants="apart")
    assert (together.name, apart.name) == ("nvidia_h100", "nvidia_h100_pcie")
    assert (apart.base, apart.arch, apart.shared_memory) == ("nvidia_h100", "sm_90", 227 * KIB)


NAMES = {
    "NVIDIA H100 80GB HBM2e": ("nvidia_h100", "nvidia_h100", "sm_90"),
    "NVIDIA H800": ("nvidia_h800", "nvidia_h800", "sm_90"),
    "NVIDIA A800-SXM4-80GB": ("nvidia_a800", "nvidia_a800", "sm_80"),
    "NVIDIA A100-SXM-64GB": ("nvidia_a100", "nvidia_a100", "sm_80"),
    "NVIDIA A30": ("nvidia_a30", "nvidia_a30", "sm_80"),
    "NVIDIA A40": ("nvidia_a40", "nvidia_a40", "sm_86"),
    "NVIDIA L40": ("nvidia_l40", "nvidia_l40", "sm_89"),
    "NVIDIA L20": ("nvidia_l20", "nvidia_l20", "sm_89"),
    "NVIDIA H20-3e": ("nvidia_h20", "nvidia_h20", "sm_90"),
    "NVIDIA RTX A6000": ("nvidia_rtx_a6000", "nvidia_rtx_a6000", "sm_86"),
    "NVIDIA GeForce RTX 3090": ("nvidia_geforce_rtx_3090", "nvidia_geforce_rtx_3090", "sm_86"),
    "NVIDIA GeForce RTX 4090 D": ("nvidia_geforce_rtx_4090", "nvidia_geforce_rtx_4090", "sm_89"),
    "NVIDIA GeForce RTX 4090 Laptop GPU":
        ("nvidia_geforce_rtx_4090_laptop_gpu", "nvidia_geforce_rtx_4090_laptop_gpu", "sm_89"),
    "NVIDIA GeForce RTX 5070 Ti": ("nvidia_geforce_rtx_5070_ti", "nvidia_geforce_rtx_5070_ti", "sm_120"),
    "NVIDIA RTX 4000 SFF Ada Generation":
        ("nvidia_rtx_4000_sff_ada_generation", "nvidia_rtx_4000_sff_ada_generation", "sm_89"),
    "NVIDIA RTX PRO 4500 Blackwell":
        ("nvidia_rtx_pro_4500_blackwell", "nvidia_rtx_pro_4500_blackwell", "sm_120"),
    "NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition":
        ("nvidia_rtx_pro_6000_blackwell", "nvidia_rtx_pro_6000_blackwell", "sm_120"),
    "NVIDIA GB10": ("nvidia_gb10", "nvidia_gb10", "sm_121"),
    "NVIDIA Thor": ("nvidia_thor", "nvidia_thor", "sm_110"),
    "Orin (nvgpu)": ("orin", "orin", "sm_87"),
    "Tesla T4": ("tesla_t4", "tesla_t4", "sm_75"),
    "AMD Instinct MI300X OAM": ("amd_instinct_mi300x", "amd_instinct_mi300x", "gfx942"),
    "AMD Instinct MI325 OAM": ("amd_instinct_mi325x", "amd_instinct_mi325x", "gfx942"),
    "AMD Instinct MI210": ("amd_instinct_mi210", "amd_instinct_mi210", "gfx90a"),
    "NVIDIA H100 80GB HBM3 MIG 1g.10gb": ("nvidia_h100_mig_1g_10gb", "nvidia_h100", "sm_90"),
    "NVIDIA H200 MIG 1g.18gb+me": ("nvidia_h200_mig_1g_18gb_me", "nvidia_h200", "sm_90"),
    "NVIDIA A100-SXM4-40GB MIG 1c.3g.20gb": ("nvidia_a100_mig_1c_3g_20gb", "nvidia_a100", "sm_80"),
    "NVIDIA A100-40C": ("nvidia_a100", "nvidia_a100", "sm_80"),
    "GRID A100-10C": ("nvidia_a100", "nvidia_a100", "sm_80"),
    "NVIDIA A100-1-5CME": ("nvidia_a100_1_5cme", "nvidia_a100", "sm_80"),
    "gfx942": ("gfx942", "gfx942", "gfx942"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "platform", "base", "arch"), [(k, *v) for k, v in NAMES.items()])
def test_variants_instances_and_virtual_gpus_are_known(name, platform, base, arch):
    """A whole GPU is its base's; an instance has configs of its own; all of them may borrow."""
    found = resolve(name)
    assert (found.name, found.base, found.arch) == (platform, base, arch)
    assert resolve(platform) == evolve(found, gpu=platform, sms=resolve(platform).sms)
    tuned = ("nvidia_h200", "amd_instinct_mi300x", "nvidia_a100")
    assert found.name in tuned or chain(found, tuned) != ()


def test_an_instance_borrows_from_its_own_gpu_first():
    here = resolve("NVIDIA A100-SXM4-40GB MIG 1g.5gb")
    assert chain(here, ("nvidia_h100", "nvidia_a30", "nvidia_a100"))[:2] == (
        "nvidia_a100",
        "nvidia_a30",
    )
    apart = resolve("NVIDIA A100-SXM4-40GB MIG 1g.5gb", variants="apart")
    assert apart == evolve(here, name="nvidia_a100_sxm4_40gb_mig_1g_5gb")


def test_the_architecture_of_a_gpu_whose_name_says_none_is_that_of_the_machine():
    """The name's own counts before it; one that the table does not have borrows from nobody."""
    found = resolve("NVIDIA H100X Server", arch="sm_90")
    assert (found.name, found.family, found.shared_memory) == (
        "nvidia_h100x_server",
        "hopper",
        227 * KIB,
    )
    assert chain(found, ("nvidia_a100", "nvidia_h200")) == ("nvidia_h200", "nvidia_a100")
    assert resolve("NVIDIA A100", arch="sm_90").arch == "sm_80"
    rubin = resolve("NVIDIA Rubin R100", arch="sm_107")
    assert (rubin.arch, rubin.family, chain(rubin, ALL)) == ("sm_107", None, ())


@pytest.mark.parametrize("name", ["NVIDIA Rubin R100", "cpu", "unknown_gpu"])
def test_unknown_gpus_are_their_own_platform(name):
    """Nothing is guessed about a GPU that the table does not name."""
    own = canonical(name)
    assert resolve(name) == Platform(name=own, gpu=own, base=own)


@pytest.mark.parametrize(
    ("platform", "base"),
    [
        pytest.param("nvidia_h100", "nvidia_h100", id="base"),
        pytest.param("nvidia_h100_pcie", "nvidia_h100", id="variant"),
        pytest.param("acme_one", "acme_one", id="new-platform"),
    ],
)
def test_extra_names(platform, base):
    """A pack's own names are looked up as people write them, and before the table's."""
    found = resolve("ACME One-X", extra={"ACME One X": platform})
    assert (found.name, found.gpu) == (base, "acme_one_x")
    assert resolve("ACME One X", extra={"acme_one_x": platform}, variants="apart").base == base


ALL = (
    "amd_instinct_mi300x",
    "amd_instinct_mi355x",
    "cpu",
    "nvidia_a100",
    "nvidia_b200",
    "nvidia_b300",
    "nvidia_geforce_rtx_4090",
    "nvidia_geforce_rtx_5090",
    "nvidia_gh200",
    "nvidia_h100",
    "nvidia_h100_nvl",
    "nvidia_h100_pcie",
    "nvidia_h20",
    "nvidia_h200",
    "tesla_v100",
    "unheard_of",
)


CHAINS = {
    "architecture-then-families-by-age": ("NVIDIA H200", "together", ("nvidia_h100", "nvidia_h100_nvl",
        "nvidia_h100_pcie", "nvidia_gh200", "nvidia_h20", "nvidia_geforce_rtx_4090", "nvidia_b200",
        "nvidia_b300", "nvidia_geforce_rtx_5090", "nvidia_a100", "tesla_v100")),
    "base-then-siblings": ("NVIDIA H100 PCIe", "apart", ("nvidia_h100", "nvidia_h100_nvl", "nvidia_h200",
        "nvidia_gh200", "nvidia_h20", "nvidia_geforce_rtx_4090", "nvidia_b200", "nvidia_b300",
        "nvidia_geforce_rtx_5090", "nvidia_a100", "tesla_v100")),
    "family-of-several-architectures": ("NVIDIA GeForce RTX 5090", "together", ("nvidia_b200", "nvidia_b300",
        "nvidia_h100", "nvidia_h100_nvl", "nvidia_h100_pcie", "nvidia_h200", "nvidia_gh200", "nvidia_h20",
        "nvidia_geforce_rtx_4090", "nvidia_a100", "tesla_v100")),
    "own-vendor-only": ("AMD Instinct MI325X", "together", ("amd_instinct_mi300x", "amd_instinct_mi355x")),
    "cpu-borrows-from-nobody": ("cpu", "together", ()),
    "unknown-borrows-from-nobody": ("NVIDIA Rubin R100", "together", ()),
}  # fmt: skip


@pytest.mark.parametrize(("name", "variants", "expected"), CHAINS.values(), ids=CHAINS)
def test_chain(name, variants, expected):
    """Configs are borrowed from the nearest platform first, in one order for every run."""
    platform = resolve(name, variants=variants)
    assert chain(platform, ALL) == expected
    assert chain(platform, ALL[::-1]) == expected


def test_chain_of_an_extra_name():
    """A GPU that the pack maps to a known platform borrows like that one."""
    extra = {"ACME H100 clone": "nvidia_h100"}
    clone = resolve("ACME H100 clone", extra=extra, variants="apart")
    assert clone.name == "nvidia_h100"
    assert chain(clone, ("nvidia_h200", "nvidia_h100"), extra=extra) == ("nvidia_h200",)
    own = resolve("NVIDIA H100")
    assert chain(own, ("acme_h100_clone", "cpu"), extra=extra) == ("acme_h100_clone",)


def test_a_pack_says_which_platform_a_name_is(demo):
    """Its further names and its choice about variants count; a name of nothing is refused."""
    manifest = demo.root / "manifests" / "demo.toml"
    manifest.write_text(
        manifest.read_text()
        + '[platforms]\nnames = { acme_h100_clone = "nvidia_h100" }\nvariants = "apart"\n'
    )
    pack = read_pack(demo.root, "demo")
    assert platform_of(pack, "ACME H100 clone").name == "nvidia_h100"
    assert platform_of(pack, "NVIDIA H100 PCIe").name == "nvidia_h100_pcie"
    with pytest.raises(UsageError) as caught:
        platform_of(pack, "--")
    assert str(caught.value) == "platform '--' is not a name such as nvidia_h200 or cpu"


@pytest.mark.parametrize(
    ("there", "here", "expected"),
    [
        pytest.param("nvidia_h100", "nvidia_h200", True, id="same"),
        pytest.param("nvidia_a100", "nvidia_h200", True, id="less-there"),
        pytest.param("nvidia_h200", "nvidia_a100", False, id="more-there"),
        pytest.param("unheard_of", "nvidia_a100", None, id="unknown-there"),
        pytest.param("nvidia_a100", "unheard_of", None, id="unknown-here"),
    ],
)
def test_fits(there, here, expected):
    """A config fits for sure only where it was tuned with no more shared memory."""
    assert fits(resolve(there), resolve(here)) is expected


def test_platforms_are_named_by_gpu_or_as_their_files(demo):
    pack = read_pack(demo.root, "demo")
    names = ["NVIDIA H100 80GB HBM3", "nvidia_h200", "my_gpu", "nvidia_h200", "nvidia_h200_nvl"]
    there = ["my_gpu", "nvidia_h200_nvl"]
    found = ("nvidia_h100", "nvidia_h200", "my_gpu", "nvidia_h200_nvl")
    assert chosen_platforms(pack, names, there) == found


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nvidia_h300", "'nvidia_h300' is not a platform that is known here; did you mean"),
        ("h100", "'h100' is not a platform that is known here; did you mean 'nvidia_h100'?"),
        ("zzz", "'zzz' is not a platform that is known here; the pack has files for nvidia_h200"),
        ("!", "platform '!' is not a name such as nvidia_h200 or cpu"),
    ],
    ids=["misspelt", "without-vendor", "unknown", "no-name"],
)
def test_a_platform_that_nothing_knows_is_wrong_usage(demo, name, message):
    with pytest.raises(UsageError) as error:
        chosen_platforms(read_pack(demo.root, "demo"), [name], ["nvidia_h200"])
    assert str(error.value).startswith(message)
