"""Level 2 apart from compilers: what is compiled and judged, and what is said where it is not."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
from attrs import evolve

from kernelpkg import __version__, cli
from kernelpkg.check import level2
from kernelpkg.check.level2 import check_compiling
from kernelpkg.cli.document_schemas import document_schema
from kernelpkg.compile.bind import Binder, Binding, NoInputs, NoPlace, Refused, Unbound
from kernelpkg.compile.helion import HELION_VERSION
from kernelpkg.configs import directories
from kernelpkg.packs.builds import INDEX, read_build, write_build
from kernelpkg.packs.read import read_kernel, read_pack

ROOT = Path(__file__).parents[3]
PLACE = "configs/twice/nvidia_h200.json"
MANIFEST = "kernels/twice/kernel.toml"
START = f"{PLACE}:6: {{}}config 0 (case num_tokens=1, and 1 more): "

DTYPES = [
    ('num_tokens = "input.shape[0]"', 'num_tokens = "input.shape[0]"\ndtype = "input.dtype"'),
    (
        '[[key]]\naxis = "num_tokens"',
        '[[key]]\naxis = "dtype"\nmatch = "exact"\n[[key]]\naxis = "num_tokens"',
    ),
    ("[inputs]\n", '[inputs]\ndefault = { dtype = "float32" }\n'),
    ('dtype = "float32" }\n[acc', 'dtype = "dtype" }\n[acc'),
]
"""Edits by which `twice` is tuned for each dtype; its grid has one."""


@pytest.fixture(autouse=True)
def stubs(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1]))


@pytest.fixture
def tuned(demo):
    """The pack "demo", tuned for an H200."""
    demo.configs("twice")
    return demo


def check(demo, perform="fragile", overlays=(), **options):
    pack = directories.with_overlays(read_pack(demo.root, "demo"), overlays, {})
    specs = [read_kernel(demo.root, name) for name in pack.kernels]
    return check_compiling(pack, specs, jobs=1, perform=f"stub_compilers:{perform}", **options)


def lines(checked):
    return [str(finding) for finding in checked.findings]


def rows(checked):
    """Where the configs of all rows stand, and the values of their cases."""
    return [
        (row["path"], row["config"], *row["case"].values()) for row in checked.counts["resources"]
    ]


def raising(error):
    def raises(*_, **__):
        raise error

    return raises


def configs_of(*configs, kernel="twice", platform="nvidia_h200"):
    """The text of a config file: of each config, the key and its fields beside the blocks."""
    return json.dumps(
        {
            "edition": 1,
            "kernel": kernel,
            "platform": platform,
            "tuned_with": {},
            "configs": [{"block_sizes": [16], **more} for _, more in configs],
            "cases": [{"key": key, "config": n} for n, (key, _) in enumerate(configs)],
        }
    )


FOUR, TWO = {"num_warps": 4}, {"num_warps": 2}


def test_what_is_compiled_is_what_is_built(tuned, stub_build):
    """The same sources, and a row for each config and class of a build."""
    checked = check(tuned)
    assert checked.findings == ()
    made = stub_build(tuned.root)
    assert checked.counts["sources"] == made.compiled == 3
    assert len(checked.counts["resources"]) == len(made.build.kernels["twice"].parts) == 2
    assert rows(checked) == [(PLACE, 0, 1), (PLACE, 0, 2)]
    assert checked.counts["resources"][0] == {
        "kernel": "twice",
        "platform": "nvidia_h200",
        "path": PLACE,
        "config": 0,
        "case": {"num_tokens": 1},
        "registers": 32,
        "shared": 0,
        "spills": 0,
        "warps": 4,
    }
    defined = document_schema("check")["$defs"]
    rows_of = jsonschema.Draft202012Validator({"$defs": defined, "$ref": "#/$defs/Resources"})
    assert all(map(rows_of.is_valid, checked.counts["resources"]))
    assert {*checked.counts} <= {*defined["Counts"]["properties"]}


def test_equal_sources_are_compiled_once(tuned):
    """Two platforms of one architecture with one config: its sources once, and rows for each."""
    text = (tuned.root / PLACE).read_text().replace("twice", "NAME")
    tuned.configs("twice", text.replace("nvidia_h200", "nvidia_h100"), "nvidia_h100")
    steps = []
    checked = check(tuned, progress=lambda *step: steps.append(step))
    assert checked.findings == ()
    assert checked.counts["sources"] == 3
    platforms = [row["platform"] for row in checked.counts["resources"]]
    assert platforms == ["nvidia_h100"] * 2 + ["nvidia_h200"] * 2
    assert steps[-1] == ("compiled", 3, 3)


def test_nothing_to_compile_starts_nothing(demo):
    """An op without configs takes no time."""
    assert check(demo, "no_such").counts == {"sources": 0, "prebuilt": 0, "resources": []}


def test_a_platform_that_is_named_is_compiled_for_as_build_does(demo):
    """Nothing is tuned for it, so the place of what calls get is the manifest."""
    checked = check(demo, "confused", platforms=["nvidia_h200"])
    assert lines(checked) == [
        (
            f"{MANIFEST}:9: KP250 Helion's default config (case num_tokens=1, and 1 more): it does "
            "not compile for sm_90: LookupError: no such pass"
        )
    ]
    assert rows(check(demo, "hungry", platforms=["nvidia_h200"])) == [
        (MANIFEST, None, 1),
        (MANIFEST, None, 2),
    ]


def test_the_default_config_of_the_manifest_stands_there(demo):
    demo.edit(MANIFEST, "[axes]", "default = { block_sizes = [16], num_warps = 8 }\n[axes]")
    (line,) = lines(check(demo, platforms=["nvidia_h200"]))
    start = f"{MANIFEST}:11: KP253 [helion] default (case num_tokens=1, and 1 more): the compiler "
    assert line.startswith(start)


def test_a_config_that_is_borrowed_stands_where_it_was_tuned(tuned):
    """The other op is tuned for the GPU, so that `build` builds this one for it too."""
    tuned.kernel("thrice")
    text = configs_of(({"num_tokens": 4}, FOUR), kernel="thrice", platform="nvidia_h100")
    tuned.configs("thrice", text, "nvidia_h100")
    tuned.edit(PLACE, '"num_warps": 4', '"num_warps": 8')
    found = lines(check(tuned, platforms=["nvidia_h100"]))
    assert [line.split("the compiler")[0] for line in found] == [START.format("KP253 ")]


def test_a_config_without_its_lists_stands_where_it_has_them(demo):
    """A variant of the grid that was never tuned gets the nearest one's, without what may shift."""
    for old, new in DTYPES:
        demo.edit(MANIFEST, old, new)
    demo.edit(MANIFEST, "num_tokens = [1, 4]", 'num_tokens = [4]\ndtype = ["float16", "float32"]')
    eight = {"num_warps": 8, "indexing": ["pointer", "pointer"]}
    demo.configs("twice", configs_of(({"dtype": "float16", "num_tokens": 4}, eight)))
    (own, less) = lines(check(demo))
    assert own.startswith(f"{PLACE}:1: KP253 config 0 (case num_tokens=1, dtype=float16, and 1 ")
    assert less.startswith(
        f"{PLACE}:1: KP253 config 0 without its positional lists (case num_tokens=1, "
        "dtype=float32, and 1 more): the compiler crashed"
    )


def test_a_config_of_a_case_that_no_grid_has_is_compiled_for_all_its_calls(demo, stub_build):
    """And `build` has it, so that the build lacks nothing."""
    for old, new in DTYPES:
        demo.edit(MANIFEST, old, new)
    keys = [{"dtype": dtype, "num_tokens": 4} for dtype in ("float16", "float32")]
    demo.configs("twice", configs_of((keys[0], TWO), (keys[1], FOUR)))
    assert rows(check(demo)) == [
        (PLACE, 0, 1, "float16"),
        (PLACE, 0, 2, "float16"),
        (PLACE, 1, 1, "float32"),
        (PLACE, 1, 2, "float32"),
    ]
    stub_build(demo.root)
    arguments = ["build", "--check", "--root", str(demo.root), "--platform", "nvidia_h200"]
    assert cli.main(arguments) == 0


def test_a_config_that_no_call_gets_is_judged_and_built(demo, stub_build):
    """Each call finds a case of its own before the one for all others."""
    demo.configs("twice", configs_of(({"num_tokens": 4}, FOUR), ({}, {"num_warps": 8})))
    (line,) = lines(check(demo))
    assert line.startswith(f"{PLACE}:1: KP253 config 1 (case num_tokens=4): the compiler crashed")
    made = stub_build(demo.root)
    assert len({part.config for part in made.build.kernels["twice"].parts}) == 2


def test_a_broken_file_of_another_platform_hides_no_config(tuned):
    """Nothing is borrowed from it; what is wrong with it, level 0 tells."""
    tuned.configs("twice", "{", "nvidia_h100")
    checked = check(tuned, platforms=["nvidia_h200"])
    assert (checked.findings, checked.counts["sources"]) == ((), 3)


def test_code_that_helion_cannot_make(tuned, monkeypatch):
    """It is an error of the config, once for all its cases, for Helion has accepted it before."""
    monkeypatch.setattr(Binding, "code", raising(Refused("BackendUnsupported: no such op")))
    checked = check(tuned)
    text = f"Helion {HELION_VERSION} makes no code of it: BackendUnsupported: no such op"
    assert lines(checked) == [START.format("KP251 ") + text]
    assert checked.counts == {"sources": 0, "prebuilt": 0, "resources": []}


def test_code_that_helion_cannot_make_for_what_it_does_not_know(demo, monkeypatch):
    """For AMD's GPUs that may be for lack of one, so it is unverified."""
    monkeypatch.setattr(Binding, "code", raising(Refused("KeyError: x")))
    amd = "amd_instinct_mi300x"
    demo.configs("twice", configs_of(({"num_tokens": 4}, FOUR), platform=amd), amd)
    assert [(f.code, f.severity) for f in check(demo).findings] == [("KP251", "unverified")]


def test_amds_gpus_are_compiled_for_where_configs_are_tuned(demo):
    """No build exists for them."""
    demo.kernel("thrice")
    amd = "amd_instinct_mi300x"
    demo.configs("twice", configs_of(({"num_tokens": 4}, FOUR), platform=amd), amd)
    checked = check(demo)
    assert checked.findings == ()
    found = {(row["kernel"], row["platform"]) for row in checked.counts["resources"]}
    assert found == {("twice", amd)}


def test_what_level_1_tells_is_not_told_again(tuned, monkeypatch):
    """A config that Helion refuses, and a function that it cannot bind."""
    tuned.edit(PLACE, "[16]", "[16, 16]")
    assert lines(check(tuned)) == []
    monkeypatch.setattr(Binder, "_bind", raising(Unbound("TypeError: no")))
    assert lines(check(tuned)) == []


def test_a_class_that_does_not_bind_and_level_1_does_not_look_at(tuned, monkeypatch):
    """Level 1 binds the largest case alone."""
    bind = Binder._bind

    def for_more(self, case, target, **how):
        if case.values["num_tokens"] == 1:
            raise Unbound("TypeError: one is too few")
        return bind(self, case, target, **how)

    monkeypatch.setattr(Binder, "_bind", for_more)
    checked = check(tuned)
    assert lines(checked) == [
        (
            f"{PLACE}:6: KP251 config 0 (case num_tokens=1): Helion {HELION_VERSION} makes no "
            "code of it: TypeError: one is too few"
        )
    ]
    assert rows(checked) == [(PLACE, 0, 2)]


def test_a_host_part_that_no_build_can_have_is_compiled_all_the_same(tuned, stub_build):
    """Its calls are launched by Triton: the config is judged, and `build` says what it lacks."""
    tuned.edit("kernels/twice/kernel.py", "empty_like(input)", "zeros_like(input)")
    assert rows(check(tuned)) == [(PLACE, 0, 1), (PLACE, 0, 4)]  # the largest of each class
    tuned.edit(PLACE, '"num_warps": 4', '"num_warps": 8')
    (line,) = lines(check(tuned))
    assert line.startswith(START.format("KP253 ") + "the compiler crashed for sm_90")
    made = stub_build(tuned.root)
    assert (made.compiled, made.sound) == (0, True)
    assert [str(problem) for problem in made.problems] == [
        (
            f"{MANIFEST}: KP326 unverified: calls have no code in the build: its host part calls "
            "zeros_like (case num_tokens=1, and 4 more)"
        )
    ]


def test_calls_that_cannot_be_looked_at_here(tuned, monkeypatch):
    """A host part that launches two kernels is compiled by a GPU's machine alone."""
    tuned.edit("kernels/twice/kernel.py", "empty_like(input)", "zeros_like(input)")
    error = NoInputs("its host part launches 2 kernels, and one is looked at")
    monkeypatch.setattr(Binding, "launch", raising(error))
    text = f"it cannot be compiled here: {error}"
    assert lines(check(tuned)) == [START.format("KP255 unverified: ") + text]


def test_compilers_that_do_not_start(tuned):
    """Without any, nothing is told of configs but that."""
    (line,) = lines(check(tuned, "no_such"))
    start = START.format("KP255 unverified: ") + "nothing compiles here: no device is left: cpu:0: "
    assert line.startswith(start)
    assert "no_such" in line


def test_where_the_system_refuses_a_file_nothing_is_said_of_configs(tuned, monkeypatch):
    """One line for the run, whether Triton's compiler is refused one or what Helion makes."""
    line = "manifests/demo.toml: KP255 unverified: configs are not compiled here: {}"
    found = check(tuned, "refused")
    assert lines(found) == [line.format("the system refuses a file: OSError: no room")]
    assert found.counts["resources"] == []
    tuned.edit("kernels/twice/kernel.py", "empty_like(input)", "zeros_like(input)")  # in no build
    monkeypatch.setattr(Binding, "launch", raising(NoPlace("nothing can be written")))
    assert lines(check(tuned)) == [line.format("nothing can be written")]


def test_a_kernel_that_cannot_be_built_is_an_error_here_too(tuned):
    """A picker may raise anything, and keeps no other kernel from being compiled."""
    tuned.kernel("thrice")
    (tuned.root / "kernels/thrice/host.py").write_text(
        "def reference(input):\n    return input * 2\n\n\ndef pick(args, keys):\n    1 / 0\n"
    )
    edit = ("kernels/thrice/kernel.toml", "version = 1", 'version = 1\npicker = "host.py:pick"')
    tuned.edit(*edit)
    text = configs_of(({"num_tokens": 4}, FOUR), kernel="thrice")
    tuned.configs("thrice", text)
    checked = check(tuned)
    assert lines(checked) == [
        (
            "kernels/thrice/kernel.toml: KP325 it cannot be built: ZeroDivisionError('division by "
            "zero')"
        )
    ]
    assert {row["kernel"] for row in checked.counts["resources"]} == {"twice"}


@pytest.fixture
def built(tuned, stub_build, monkeypatch):
    """A pack that is built; its binaries are none, and need what the compiler of tests says."""
    monkeypatch.setattr(level2, "registers", lambda _: {"registers": 32, "spills": 0})
    stub_build(tuned.root)
    return tuned


def own(demo) -> Path:
    return demo.root / "builds/demo/nvidia_h200"


def test_what_a_build_has_is_judged_as_if_it_were_compiled(built):
    """Nothing is compiled, and what is told is the same."""
    checked = check(built, "no_such")
    assert checked.findings == ()
    assert (checked.counts["sources"], checked.counts["prebuilt"]) == (0, 3)
    for path in own(built).iterdir():
        path.unlink()
    again = check(built)
    assert (again.counts["sources"], again.counts["prebuilt"]) == (3, 0)
    assert again.counts["resources"] == checked.counts["resources"]


def test_binaries_of_a_build_that_need_too_much(built, monkeypatch):
    """One finding for all of a config, with the worst of them."""
    spills = iter((4, 8, 6))
    monkeypatch.setattr(level2, "registers", lambda _: {"registers": 8, "spills": next(spills)})
    assert lines(check(built, "no_such")) == [
        (
            f"{PLACE}:6: KP256 unverified: config 0 (case num_tokens=2, and 1 more): 8 bytes of "
            "each thread do not fit into registers on nvidia_h200; only a GPU can tell what that "
            "costs"
        )
    ]


def rewritten(**changes):
    """Returns what puts another index into a build."""

    def rewrite(demo):
        build = read_build(own(demo))
        write_build(evolve(build, **changes), own(demo), lambda _: b"")

    return rewrite


def without_some(demo):
    """A build of which calls have no code."""
    kernels = read_build(own(demo)).kernels
    rewritten(kernels={"twice": evolve(kernels["twice"], absent=("why",))})(demo)


STALE = {
    "source": lambda demo: demo.edit("kernels/twice/kernel.py", "* 2", "* 3"),
    "configs": lambda demo: demo.edit(PLACE, "[16]", "[32]"),
    "absent": without_some,
    "tools": rewritten(tools={"kernelpkg": __version__}),
    "pinned": rewritten(pinned={}),
    "pack": rewritten(pack="other"),
    "platform": rewritten(platform="nvidia_h100"),
    "architecture": rewritten(arch="sm_80"),
}


@pytest.mark.parametrize("change", STALE.values(), ids=STALE)
def test_a_build_that_is_not_current_is_not_looked_at(built, change):
    change(built)
    checked = check(built)
    assert checked.findings == ()
    assert (checked.counts["sources"], checked.counts["prebuilt"]) == (3, 0)


def test_a_build_that_lacks_a_class_of_a_config_is_not_looked_at(built, stub_build):
    """All its configs are there, and were tuned for each other's cases since."""
    one, four = {"num_tokens": 1}, {"num_tokens": 4}
    built.configs("twice", configs_of((one, TWO), (four, FOUR)))
    stub_build(built.root)
    assert check(built, "no_such").counts["prebuilt"] == 3
    built.configs("twice", configs_of((one, FOUR), (four, TWO)))
    checked = check(built)
    assert (checked.counts["sources"], checked.counts["prebuilt"]) == (3, 0)


def test_a_build_is_not_looked_at_where_an_operator_has_configs(built, tmp_path):
    """Even equal ones."""
    (tmp_path / "mine/twice").mkdir(parents=True)
    (tmp_path / "mine/twice/nvidia_h200.json").write_text((built.root / PLACE).read_text())
    assert check(built, overlays=[str(tmp_path / "mine")]).counts["sources"] == 3


def test_a_binary_that_is_damaged_is_named_once(built):
    binary = sorted(own(built).glob("sha256-*"))[0]
    binary.write_bytes(b"else")
    checked = check(built, "no_such")
    assert lines(checked) == [
        (
            f"builds/demo/nvidia_h200/{binary.name}: KP321 is damaged; run 'kernelpkg build' "
            "again, or restore it"
        )
    ]
    assert checked.findings[0].level == 2


def test_an_index_that_is_damaged_is_named_and_all_is_compiled(built):
    (own(built) / INDEX).write_text("{}")
    checked = check(built)
    assert [line.split(";")[0] for line in lines(checked)] == [
        f"builds/demo/nvidia_h200/{INDEX}: KP322 is of edition None, and this kernelpkg reads 2"
    ]
    assert checked.counts["sources"] == 3


def test_the_first_pack_is_judged_by_its_build(monkeypatch):
    """Its binaries are read as they are; by other tools than those here all would be compiled."""
    build = read_build(ROOT / "builds/kernelpkg/nvidia_h200")
    monkeypatch.setattr(level2, "tools", lambda: build.tools)
    pack = read_pack(ROOT, "kernelpkg")
    specs = [read_kernel(ROOT, name) for name in pack.kernels]
    checked = check_compiling(pack, specs, perform="no:where")
    assert [finding for finding in checked.findings if finding.severity == "error"] == []
    parts = [part for kernel in build.kernels.values() for part in kernel.parts]
    codes = sum(len(part.codes) for part in parts)
    assert (checked.counts["sources"], checked.counts["prebuilt"]) == (0, codes)
    assert len(checked.counts["resources"]) == len(parts)
    assert min(row["registers"] for row in checked.counts["resources"]) >= 8


NAMES = """
HALF = 0.5
SIZES = {"pad": 1}


def scaled(x: torch.Tensor, by: float) -> torch.Tensor:
    return x * by


def rows(x: torch.Tensor) -> int:
    return x.size(0)


def twice("""


@pytest.mark.parametrize("host", ["", "    assert rows(input) >= 0\n"], ids=["constants", "helper"])
def test_names_of_the_kernels_file(tuned, stub_build, host):
    """Each process that compiles does without them, and a build has the numbers themselves."""
    tuned.edit("kernels/twice/kernel.py", "\ndef twice(", NAMES)
    tuned.edit("kernels/twice/kernel.py", "    out =", f"{host}    out =")
    tuned.edit("kernels/twice/kernel.py", "input[tile] * 2", "scaled(input[tile], HALF) * 4")
    pack = read_pack(tuned.root, "demo")
    checked = check_compiling(pack, [read_kernel(tuned.root, "twice")], jobs=1)
    assert lines(checked) == []
    assert len(rows(checked)) == 2
    kernel = stub_build(tuned.root).build.kernels["twice"]
    assert (len(kernel.parts), len(kernel.absent)) == ((0, 1) if host else (2, 0))
