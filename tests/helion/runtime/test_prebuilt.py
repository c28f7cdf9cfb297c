"""Ops that launch code of a build, on a machine that plays an H200: a driver that only records."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import subprocess
import sys
from functools import partial
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from attrs import evolve

import kernelpkg
from kernelpkg import cli
from kernelpkg.bench.inputs import make_inputs
from kernelpkg.bench.stand_ins import make_stand_ins
from kernelpkg.compile import bind
from kernelpkg.configs import platforms
from kernelpkg.configs.samples import spread
from kernelpkg.configs.selection import read_selection
from kernelpkg.errors import ConfigError, PackError, UsageError
from kernelpkg.launch import driver, native, recorded
from kernelpkg.launch.classes import ClassRule
from kernelpkg.manifest.cases import Case, cases_of
from kernelpkg.packs.builds import INDEX, read_build, write_build
from kernelpkg.packs.drift import plan_lock
from kernelpkg.packs.lock import toolchain
from kernelpkg.packs.read import read_kernel, read_pack
from kernelpkg.runtime import load as module
from kernelpkg.runtime import prebuilt
from kernelpkg.runtime.backend import HelionBackend
from kernelpkg.runtime.torch_ops import Machine

LAUNCH = Path(__file__).parents[2] / "launch"
DRIVER = SimpleNamespace(**runpy.run_path(str(LAUNCH / "conftest.py")))
H200 = Machine(
    device="cuda", gpu="NVIDIA H200", platform=platforms.resolve("NVIDIA H200"), interpret=False
)


@pytest.fixture(scope="module")
def driver_path(tmp_path_factory):
    return DRIVER.compile_c(LAUNCH / "stub_driver.c", tmp_path_factory.mktemp("driver") / "stub.so")


@pytest.fixture
def gpu(driver_path, monkeypatch):
    """An H200 in place of this machine, whose tensors are on the CPU; returns its driver."""
    stub = DRIVER.open_stub(driver_path)
    monkeypatch.setattr(driver, "_opened", [])
    driver.open_driver(str(driver_path))
    monkeypatch.setattr(recorded, "current_stream", lambda device: 0x57)
    monkeypatch.setattr(module, "detect", lambda *_, **__: H200)
    monkeypatch.setattr(HelionBackend, "interprets", lambda *_: False)
    monkeypatch.setenv(native.VARIABLE, "python")
    return stub


class Compiled:
    """What stands for Helion's compiler: the calls that came to it."""

    def __init__(self, configured=None):
        self.calls = []

    def launcher(self, args, selection):
        self.calls.append((args, selection))
        return lambda *args: "compiled"

    def known(self, *_):
        return None


@pytest.fixture
def compiler(monkeypatch):
    made = Compiled()
    monkeypatch.setattr(HelionBackend, "code", lambda _: made)
    return made


@pytest.fixture
def built(built_pack, demo):
    """A copy of the pack that was built, which a test may change."""
    shutil.copytree(built_pack, demo.root, dirs_exist_ok=True)
    return demo


def own(pack) -> Path:
    return pack.root / "builds/demo/nvidia_h200"


def load(pack, environment=None, **options):
    return kernelpkg.load(root=pack.root, environment=environment or {}, **options)


def row(report):
    (kernel,) = report.kernels
    return kernel.status, kernel.mode, kernel.reason


def test_the_report_says_that_ops_are_prebuilt_and_by_which_build(built, gpu):
    report = load(built, prebuilt=True)
    assert row(report) == ("registered", "prebuilt", f"build {own(built)}")
    assert report.best
    assert report.notes == ()
    (kernel,) = report.to_json()["kernels"]
    assert (kernel["mode"], kernel["cases"], kernel["configs"]) == ("prebuilt", 2, 1)


def test_configs_of_an_operator_are_told_too(built, gpu, tmp_path):
    place = tmp_path / "configs/twice/nvidia_h200.json"
    place.parent.mkdir(parents=True)
    shutil.copy(built.root / "configs/twice/nvidia_h200.json", place)
    report = load(built, configs=[tmp_path / "configs"])
    assert row(report)[2] == f"build {own(built)}; configs of {place}"


def test_a_call_launches_the_code_of_its_class_and_facts(built, gpu, compiler):
    """One token is a constant of the code; a multiple of 16 has a binary of its own."""
    load(built, prebuilt=True)
    for size, params in ((1, 2), (5, 3), (32, 3), (48, 3), (7, 3)):
        gpu.sizes(*(8, 8, 4)[:params], 8, 8)
        x = torch.ones(size)
        out = torch.ops.demo.twice(x)
        record = gpu.last()
        given = [x.data_ptr(), out.data_ptr(), size][:params]
        assert [*record.params[: params + 2]] == [*given, 0, 0]
        assert [*record.grid] == [-(-size // 16), 1, 1]
        assert (record.block[0], record.shared, record.stream) == (128, 0, 0x57)
        assert (out.shape, out.dtype, out.device) == (x.shape, x.dtype, x.device)
    assert gpu.launches() == 5
    assert gpu.history().count("cuLibraryLoadData") == 3
    assert compiler.calls == []


def test_equal_calls_are_looked_up_once(built, gpu, monkeypatch):
    load(built)
    x = torch.ones(5)
    torch.ops.demo.twice(x)
    monkeypatch.setattr(HelionBackend, "compile", None)
    torch.ops.demo.twice(x)
    torch.ops.demo.twice(torch.ones(5))
    assert gpu.launches() == 3


def test_each_call_launches_with_its_own_epsilon(gpu):
    """Which is in no signature: neither the manifest nor the host part looks at it."""
    root, name = Path(__file__).parents[3], "rms_norm_dynamic_per_token_quant"
    spec = read_kernel(root, name)
    report = kernelpkg.load(root=root, ops=[name], environment={}, prebuilt=True)
    assert row(report)[:2] == ("registered", "prebuilt")
    case = next(case for case in cases_of(spec, "tune") if case.values["num_tokens"] == 64)
    args = [*make_inputs(spec, case, device="cpu")]
    place = spec.schema.arg_names.index("epsilon")
    for epsilon in (1e-6, 1e-5, 0.25, 1.0):
        args[place] = epsilon
        torch.ops.kernelpkg.rms_norm_dynamic_per_token_quant(*args)
    calls = kernelpkg.get_registered_kernels()[f"kernelpkg::{name}"].dispatcher.calls
    assert (gpu.launches(), len(calls)) == (4, 1)
    launch = calls.get(args)
    assert place in launch.any
    assert ("fp32", place) in launch._params


def far() -> torch.Tensor:
    """What 32-bit indices do not reach, in address space that is never read."""
    return bind._untouched(torch.empty(2**31 + 1, device="meta"))


ALIGNMENT = "the build has no code for the types and alignments of its arguments"
CLASS = "the build has no code of its config for calls of its class"
LACKS = {
    "alignment": (lambda: torch.ones(9)[1:], ALIGNMENT),
    "one token": (lambda: torch.ones(1), CLASS),
    "reach": (far, CLASS),
}


@pytest.fixture
def lacking(built):
    """A pack whose build has no code for one token."""
    build = read_build(own(built))
    kernel = build.kernels["twice"]
    kernel = evolve(kernel, parts=kernel.parts[1:])
    write_build(evolve(build, kernels={"twice": kernel}), own(built), lambda name: b"")
    return built


@pytest.mark.parametrize(("make", "reason"), LACKS.values(), ids=LACKS)
def test_a_call_that_the_build_lacks_is_compiled_and_counted(lacking, gpu, compiler, make, reason):
    load(lacking)
    kernel = kernelpkg.get_kernel_by_name("demo::twice")
    x = make()
    assert kernel.dispatcher.first_call((x,))[1] == "compiled"
    ((args, selection),) = compiler.calls
    assert args == (x,)
    assert selection.config == {"block_sizes": [16], "num_warps": 4}
    assert kernel.backend.fallbacks == {reason: 1}
    assert gpu.launches() == 0


@pytest.mark.parametrize(("make", "reason"), LACKS.values(), ids=LACKS)
def test_it_is_refused_where_only_prebuilt_code_may_run(lacking, gpu, compiler, make, reason):
    load(lacking, prebuilt=True)
    with pytest.raises(ConfigError) as caught:
        torch.ops.demo.twice(make())
    assert str(caught.value) == (
        f"op 'twice': {reason}, and only prebuilt code may run; build it for such calls"
    )
    assert compiler.calls == []
    torch.ops.demo.twice(torch.ones(4))
    assert gpu.launches() == 1


def test_a_call_on_a_gpu_of_another_architecture_has_no_code_in_the_build(
    built, gpu, compiler, monkeypatch
):
    """Only the first call of a signature asks which GPU it is on."""
    asked, reason = [], "the build is for sm_90, and cpu is sm_80"

    def arch_of(device):
        asked.append(device)
        return "sm_80"

    monkeypatch.setattr(prebuilt, "arch_of", arch_of)
    load(built)
    kernel = kernelpkg.get_kernel_by_name("demo::twice")
    for _ in range(3):
        assert kernel.dispatcher.implementation()(torch.ones(5)) == "compiled"
    assert (len(asked), len(compiler.calls), gpu.launches()) == (1, 1, 0)
    assert kernel.fallbacks() == {reason: 1}
    load(built, prebuilt=True)
    with pytest.raises(ConfigError) as caught:
        torch.ops.demo.twice(torch.ones(5))
    assert str(caught.value) == (
        f"op 'twice': {reason}, and only prebuilt code may run; build it for such calls"
    )
    monkeypatch.setattr(prebuilt, "arch_of", lambda device: "sm_90")
    torch.ops.demo.twice(torch.ones(5))
    assert gpu.launches() == 1


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda path: path.write_bytes(b"cubin"), "KP321 is damaged"),
        (lambda path: path.unlink(), "KP320 cannot be read: No such file or directory"),
    ],
    ids=["truncated", "missing"],
)
def test_a_binary_that_is_not_whole_is_never_launched(built, gpu, compiler, spoil, problem):
    for path in own(built).glob("sha256-*"):
        spoil(path)
    load(built, prebuilt=True)
    with pytest.raises(ConfigError) as caught:
        torch.ops.demo.twice(torch.ones(4))
    text = str(caught.value)
    assert text.startswith(f"op 'twice': {own(built)}/sha256-")
    assert text.endswith(
        f": {problem}; run 'kernelpkg build' again, or restore it, and only prebuilt code may "
        "run; build it for such calls"
    )
    assert gpu.history().count("cuLibraryLoadData") == gpu.launches() == 0


def spoil_index(text: str, new: str):
    def spoil(pack):
        path = own(pack) / INDEX
        assert text in path.read_text()
        path.write_text(path.read_text().replace(text, new))

    return spoil


UNFIT = {
    "source": (
        lambda pack: pack.edit("kernels/twice/kernel.py", "* 2", "* 3"),
        "the build {} is of another kernel.py",
    ),
    "manifest": (
        lambda pack: pack.edit("kernels/twice/kernel.toml", "Twice", "Two times"),
        "the build {} is of another kernel.toml",
    ),
    "none": (
        lambda pack: shutil.rmtree(own(pack)),
        "there is no build for nvidia_h200; run 'kernelpkg build'",
    ),
}


@pytest.mark.parametrize(("change", "reason"), UNFIT.values(), ids=UNFIT)
def test_a_build_that_does_not_fit_is_not_used_and_the_report_says_why(built, gpu, change, reason):
    change(built)
    report = load(built)
    told = reason.format(own(built)) if "{}" in reason else ""
    assert row(report) == ("registered", "tuned", told)
    assert kernelpkg.get_kernel_by_name("demo::twice").backend.built is None
    report = load(built, prebuilt=True)
    why = reason.format(own(built)) + ("; run 'kernelpkg build' again" if "{}" in reason else "")
    assert [str(problem) for problem in report.problems] == [
        f"kernels/twice/kernel.toml:2: KP328 cannot run prebuilt: {why}"
    ]
    assert report.kernels[0].status == "failed"


@pytest.mark.parametrize(
    ("gpu_name", "reason"),
    [("NVIDIA L40S", "is for sm_90, and this GPU is sm_89"), ("NVIDIA X1", "")],
)
def test_a_build_for_another_gpu_is_not_used(built, gpu, monkeypatch, gpu_name, reason):
    here = platforms.resolve(gpu_name)
    machine = Machine(device="cuda", gpu=gpu_name, platform=here, interpret=False)
    monkeypatch.setattr(module, "detect", lambda *_, **__: machine)
    directory = own(built)
    (kernel,) = load(built, builds=[directory]).kernels
    unknown = f"is for sm_90, and this GPU is {here.arch or 'unknown'}"
    assert kernel.mode == "default"
    assert kernel.reason.endswith(f"; the build {directory} {reason or unknown}")


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (spoil_index('"sm_90"', '"sm_89"'), "KP321 was edited by hand, or damaged"),
        (spoil_index("{", ""), "KP321 is damaged"),
        (
            spoil_index('"edition": 2', '"edition": 9'),
            "KP322 is of edition 9, and this kernelpkg reads 2",
        ),
    ],
    ids=["edited", "damaged", "newer"],
)
def test_a_damaged_build_is_one_line_and_what_is_needed_is_compiled(built, gpu, spoil, problem):
    """Where one was asked for, nothing else will do."""
    spoil(built)
    line = f"{own(built) / INDEX}: {problem}; run 'kernelpkg build' again, or restore it"
    report = load(built)
    assert [str(note) for note in report.notes] == [line]
    assert row(report) == ("registered", "tuned", "")
    for options in ({"prebuilt": True}, {"builds": [own(built)]}):
        with pytest.raises(PackError) as caught:
            load(built, **options)
        assert str(caught.value) == line


def test_a_build_elsewhere_goes_before_the_packs_own(built, gpu, tmp_path):
    shutil.copytree(own(built), tmp_path / "elsewhere")
    assert row(load(built, builds=[tmp_path / "elsewhere"]))[2] == f"build {tmp_path / 'elsewhere'}"
    places = [str(tmp_path / name) for name in ("missing", "elsewhere")]
    environment = {"KERNELPKG_BUILDS": os.pathsep.join(places)}
    assert row(load(built, environment))[2] == f"build {tmp_path / 'elsewhere'}"
    with pytest.raises(PackError) as caught:
        load(built, builds=[tmp_path])
    assert str(caught.value) == (
        f"{tmp_path}: KP320 has no build of pack 'demo' for nvidia_h200; run 'kernelpkg build' "
        "first"
    )


def test_a_build_that_comes_or_goes_is_seen_by_the_next_load(built, gpu):
    """The op is registered anew, for its kernel is the same, and what runs it is not."""
    away = built.root / "away"
    own(built).rename(away)
    for mode in ("tuned", "prebuilt", "tuned"):
        assert row(load(built))[1] == mode
        backend = kernelpkg.get_kernel_by_name("demo::twice").backend
        assert (backend.built is not None) == (mode == "prebuilt")
        source, target = (away, own(built)) if away.exists() else (own(built), away)
        source.rename(target)
    first = kernelpkg.get_kernel_by_name("demo::twice")
    load(built)
    again = kernelpkg.get_kernel_by_name("demo::twice")
    load(built)
    assert kernelpkg.get_kernel_by_name("demo::twice") is again is not first
    load(built, prebuilt=True)
    assert kernelpkg.get_kernel_by_name("demo::twice") is not again


def test_a_locked_pack_takes_no_other_build_of_its_own(built, gpu):
    pack = read_pack(built.root, "demo")
    plan_lock(pack, ("demo",), toolchain(), "").carry_out()
    assert row(load(built, locked=True))[1] == "prebuilt"
    build = evolve(read_build(own(built)), pinned={})
    write_build(build, own(built), lambda name: b"")
    with pytest.raises(PackError) as caught:
        load(built, locked=True)
    assert str(caught.value) == (
        f"{own(built) / INDEX}: KP304 is not the build that was locked; restore it, or run "
        "'kernelpkg lock'"
    )
    assert row(load(built))[1] == "prebuilt"


def test_a_machine_without_a_gpu_looks_at_no_build(built):
    (own(built) / INDEX).write_text("{")
    report = load(built, device="cpu", prebuilt=True)
    assert row(report) == ("registered", "interpret", "no GPU")
    assert torch.ops.demo.twice(torch.ones(3)).tolist() == [2.0, 2.0, 2.0]


PROGRAM = """
import sys

import torch

import kernelpkg
from kernelpkg.configs import platforms
from kernelpkg.launch import driver, recorded
from kernelpkg.runtime import load
from kernelpkg.runtime.backend import HelionBackend
from kernelpkg.runtime.torch_ops import Machine

root, stub = sys.argv[1:]
here = platforms.resolve("NVIDIA H200")
machine = Machine(device="cuda", gpu="NVIDIA H200", platform=here, interpret=False)
load.detect = lambda *_, **__: machine
HelionBackend.interprets = lambda *_: False
recorded.current_stream = lambda device: 0
driver.open_driver(stub)
report = kernelpkg.load(root=root, prebuilt=True, strict=True)
out = torch.ops.demo.twice(torch.ones(5))
kernel = kernelpkg.get_kernel_by_name("demo::twice")
fake = kernel.fake(torch.empty(7, device="meta"))
print([kernel.mode for kernel in report.kernels], tuple(out.shape), tuple(fake.shape))
heavy = ("helion", "triton", "torch._dynamo", "torch._inductor")
print([name for name in heavy if name in sys.modules])
"""


@pytest.mark.parametrize("fake", ["inferred", "by reference"])
def test_loading_and_a_first_call_import_no_helion(built, driver_path, stub_build, fake):
    if fake != "inferred":
        built.edit("kernels/twice/kernel.toml", '"infer"', '"host.py:fake"')
        path = built.root / "kernels/twice/host.py"
        path.write_text(
            path.read_text() + "\n\ndef fake(input: torch.Tensor) -> torch.Tensor:\n"
            "    return torch.empty_like(input)\n"
        )
        stub_build(built.root)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    environment[native.VARIABLE] = "python"
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(built.root), str(driver_path)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["['prebuilt'] (5,) (7,)", "[]"]


def test_warming_makes_launches_of_calls_ready_and_launches_nothing(built, gpu, compiler):
    load(built)
    (found,) = kernelpkg.warm("twice", sizes={"num_tokens": [2, 3, 24]}, device="cpu").ops
    assert (found.op, found.compiled, found.problems) == ("demo::twice", 0, [])
    calls = kernelpkg.get_kernel_by_name("twice").dispatcher.calls
    assert (found.ready, len(calls), gpu.launches()) == (3, 3, 0)
    torch.ops.demo.twice(torch.ones(24))
    assert (len(calls), gpu.launches(), compiler.calls) == (3, 1, [])


def test_warming_says_what_is_not_ready(built, gpu):
    for path in own(built).glob("sha256-*"):
        path.unlink()
    load(built, prebuilt=True)
    report = kernelpkg.warm("twice", sizes={"num_tokens": 4, "another": 48}, device="cpu")
    (found,) = report.ops
    assert (found.ready, len(found.problems)) == (0, 1)
    assert "case num_tokens=4: op 'twice': " in found.problems[0]
    assert report.to_json()["ops"][0]["problems"] == found.problems
    assert report.summary().startswith("1 op: 0 calls ready, 0 compiled")


def test_the_command_says_which_calls_take_a_longer_way(
    lacking, gpu, compiler, monkeypatch, capsys
):
    """One token, of which the build has no code: it is compiled, once, and counted once."""
    monkeypatch.setattr("kernelpkg.runtime.warm.warm", partial(kernelpkg.warm, device="cpu"))
    monkeypatch.setattr(HelionBackend, "is_compiled", lambda *_: True)
    words = ["warm", "twice", "--root", str(lacking.root)]  # not what other tests have loaded
    arguments = [*words, "--sizes", "num_tokens=1,4", "--jobs", "2"]
    assert cli.main(arguments) == 0
    out, err = capsys.readouterr()
    line = f"demo::twice: 1 signature on a slower path: {CLASS}"
    assert (out.splitlines()[1:], err, len(compiler.calls)) == ([line], "", 1)
    kernelpkg.unload("demo::twice")
    assert cli.main([*arguments, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["fallbacks"] == [{"op": "demo::twice", "reason": CLASS, "signatures": 1}]
    assert document["ops"][0]["ready"] == 2


def test_warming_what_is_not_there(built, gpu):
    load(built)
    with pytest.raises(UsageError, match="'twcie' is not an op that was loaded from a manifest"):
        kernelpkg.warm("twcie")


LAYERS = [
    ("per_token_group_fp8_quant", {"hidden_size": 4096, "column_major": True}),
    ("per_token_group_fp8_quant", {"hidden_size": 12288, "column_major": True}),
    ("rms_norm_per_block_quant", {"hidden_size": 4096, "has_residual": True}),
    ("rms_norm_per_block_quant", {"hidden_size": 4096, "has_residual": False}),
    ("silu_and_mul_per_block_quant", {"intermediate_size": 12288}),
    ("fused_qk_norm_rope", {"num_heads_q": 32}),
]
"""What vLLM 0.33.0's engine calls for a model in the shape of Qwen3-8B-FP8."""


@pytest.mark.parametrize(("name", "axes"), LAYERS, ids=str)
def test_the_build_of_the_first_pack_has_code_for_the_layers_of_an_engine(name, axes):
    """Of every size: a call that lacks some is compiled at the start of a server (2026-11-29)."""
    root = Path(__file__).parents[3]
    pack, spec = read_pack(root, "kernelpkg"), read_kernel(root, name)
    kernel = read_build(root / "builds/kernelpkg/nvidia_h200").kernels[name]
    parts = {(part.config, part.call_class) for part in kernel.parts}
    rule = ClassRule(exact=kernel.exact, facts=kernel.facts)
    engine = {"has_scale_ub": False, "is_scale_transposed": True, **axes}
    first = cases_of(spec, "tune")[0].values
    values = {axis.name: {**first, **spec.defaults, **engine}.get(axis.name) for axis in spec.axes}
    selection = read_selection(pack, spec, H200.platform)
    found = []
    for case in spread(selection, [Case(values=values, use=(), grid=0)]):
        each = [make_stand_ins(spec, case, device="meta", dense=dense) for dense in (False, True)]
        for args in product(*zip(*each, strict=True)):  # as rows of a token beside their scale
            chosen = next(selection.options([*case.values.values()], args))
            found.append((chosen.config_id, rule.class_of(args)))
    assert len(found) > 20
    assert set(found) <= parts
