"""What is compiled ahead: of each config, every class of calls and all that Triton tells apart."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from kernelpkg import __version__
from kernelpkg.compile import build as module
from kernelpkg.compile.bind import Binding, NoPlace
from kernelpkg.compile.cubin import described, parameters, perform
from kernelpkg.compile.units import KernelBuilder
from kernelpkg.configs.platforms import resolve
from kernelpkg.errors import PackError, UsageError
from kernelpkg.launch.code import Code
from kernelpkg.launch.host import NotRecorded
from kernelpkg.packs.builds import INDEX, claimed, read_build
from kernelpkg.packs.read import read_kernel, read_pack

H200 = resolve("NVIDIA H200")
ONE, MORE = '[["float32", [1, 1]]]', '[["float32", [2, 1]]]'


def said(made) -> list[str]:
    return [str(problem) for problem in made.problems]


def content(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.fixture
def tuned(demo):
    """The pack "demo", tuned for an H200."""
    demo.configs("twice")
    return demo


def test_the_index_says_what_was_compiled(built_pack):
    build = read_build(built_pack / "builds/demo/nvidia_h200")
    assert (build.pack, build.platform, build.arch) == ("demo", "nvidia_h200", "sm_90")
    assert build.pinned == {"enable_fp_fusion": True}
    assert build.tools["kernelpkg"] == __version__
    assert sorted(build.tools) == ["helion", "kernelpkg", "torch", "triton"]
    kernel = build.kernels["twice"]
    assert [part.call_class for part in kernel.parts] == [ONE, MORE]
    assert [len(part.codes) for part in kernel.parts] == [1, 2]
    assert "_launcher(_helion_twice, " in kernel.parts[0].host
    assert "import" not in kernel.parts[0].host


def test_what_triton_compiles_is_what_the_tests_stand_in_says(tuned, built_pack, tmp_path):
    """The real compiler, in this process: facts, parameters and threads of a binary of an H200."""
    stub = read_build(built_pack / "builds/demo/nvidia_h200").kernels["twice"]
    wanted = [Code.of(code) for part in stub.parts for code in part.codes]
    found = []
    pack, spec = read_pack(tuned.root, "demo"), read_kernel(tuned.root, "twice")
    for unit in KernelBuilder(pack, spec, H200).units():
        answer = perform({**unit.payload, "keep": str(tmp_path)})
        found.append(Code.of(answer["code"]))
        binary = (tmp_path / found[-1].cubin).read_bytes()
        assert binary.startswith(b"\x7fELF")
        assert parameters(binary) == list(found[-1].parameters)
        assert tuned.root.name.encode() not in binary
    facts = ("types", "constants", "divisible", "entry", "parameters", "shared", "threads")
    told = [{name: getattr(code, name) for name in facts} for code in found]
    assert all({name: getattr(code, name) for name in facts} in told for code in wanted)
    assert len(told) == len(wanted)


def test_the_same_bytes_on_every_run(tuned, tmp_path):
    """Whatever the process, the caches, the directory and the seed of hashes."""
    environment = {
        **os.environ,
        "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "inductor"),
        "TRITON_CACHE_DIR": str(tmp_path / "triton"),
        "TMPDIR": str(tmp_path),
        "PYTHONHASHSEED": "7",
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    command = [sys.executable, "-m", "kernelpkg", "build", "--platform", "nvidia_h200"]
    command += ["--root", str(tuned.root), "--out", "out", "--jobs", "1"]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    made = content(tmp_path / "out/nvidia_h200")
    here = tmp_path / "here"
    pack, specs = read_pack(tuned.root, "demo"), [read_kernel(tuned.root, "twice")]
    assert module.make_build(pack, specs, H200, here, jobs=1).sound
    assert made == content(here)
    assert len(made) > 1


def test_a_second_build_changes_nothing(tuned, stub_build):
    directory = tuned.root / "builds/demo/nvidia_h200"
    first = stub_build(tuned.root)
    before = {path.name: path.stat().st_ino for path in directory.iterdir() if path.name != INDEX}
    text = (directory / INDEX).read_bytes()
    second = stub_build(tuned.root)
    assert (first.sound, first.compiled, first.bytes) == (True, 3, second.bytes)
    after = {path.name: path.stat().st_ino for path in directory.iterdir() if path.name != INDEX}
    assert (before, text) == (after, (directory / INDEX).read_bytes())


def test_progress_is_told(tuned, stub_build):
    steps = []
    stub_build(tuned.root, progress=lambda *step: steps.append(step))
    assert steps[0] == ("making code of twice", 0, 1)
    assert steps[-1] == ("compiled twice", 3, 3)


def test_kernels_that_are_not_named_stay_as_they_were_built(tuned, stub_build):
    tuned.kernel("thrice")
    tuned.configs("thrice")
    stub_build(tuned.root)
    directory = tuned.root / "builds/demo/nvidia_h200"
    before = read_build(directory).kernels
    tuned.edit("kernels/twice/kernel.py", "* 2", "* 3")
    stub_build(tuned.root, "made", "twice")
    after = read_build(directory)
    assert after.kernels["thrice"] == before["thrice"]
    assert after.kernels["twice"] != before["twice"]
    assert {path.name for path in directory.iterdir()} == {INDEX, *after.binaries()}


PROGRAM = """
import signal, sys
from kernelpkg import cli
from kernelpkg.compile import build
sys.path.insert(0, sys.argv[1])
build.PERFORM = "stub_compilers:hanging"
signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background it may be ignored
signal.signal(signal.SIGTERM, signal.SIG_DFL)
sys.exit(cli.main(["build", "--root", sys.argv[2], "--jobs", "1", "--json"]))
"""


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["term", "ctrl-c"]
)
def test_a_build_that_is_ended_leaves_nothing_but_what_was_there(
    tuned, stub_build, tmp_path, number, status
):
    """In the midst of a compilation: its process is ended, and its directory removed."""
    stub_build(tuned.root)
    directory = tuned.root / "builds/demo/nvidia_h200"
    before, place = content(directory), tmp_path / "temporary"
    place.mkdir()
    path = [str(Path(__file__).parents[1]), *filter(None, sys.path)]
    environment = {**os.environ, "TMPDIR": str(place), "PYTHONPATH": os.pathsep.join(path)}
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, path[0], str(tuned.root)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        text=True,
    ) as process:
        while not (worker := "".join(p.read_text() for p in place.glob("*/started"))):
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
        process.send_signal(number)
        out, err = process.communicate()
    assert (process.returncode, err) == (status, "kernelpkg: interrupted\n")
    assert json.loads(out) == {"format": 1, "errors": ["kernelpkg: interrupted"]}
    assert [*place.glob("kernelpkg-*")] == []
    assert not Path("/proc", worker).exists()
    assert content(directory) == before


CONFIGS = """{{
  "edition": 1, "kernel": "NAME", "platform": "nvidia_h200", "tuned_with": {{}},
  "configs": [{{"block_sizes": [16], "num_warps": 4}}, {}],
  "cases": [
    {{"key": {{"num_tokens": 1}}, "config": 0}},
    {{"key": {{"num_tokens": 4}}, "config": 1}}
  ]
}}"""


def test_a_source_that_does_not_compile_is_told_and_the_rest_is_built(demo, stub_build):
    demo.configs("twice", CONFIGS.format('{"block_sizes": [16], "num_warps": 8}'))
    made = stub_build(demo.root, "choosy")
    assert said(made) == [
        "kernels/twice/kernel.toml: KP327 config of case num_tokens="
        f"{size} has no code for sm_90: PTXAS: no"
        for size in (2, 16)
    ]
    assert not made.sound
    assert [part.call_class for part in made.build.kernels["twice"].parts] == [ONE]


def test_a_config_that_helion_refuses_is_told_and_the_rest_is_built(demo, stub_build):
    demo.configs("twice", CONFIGS.format('{"block_sizes": [16, 16], "num_warps": 8}'))
    made = stub_build(demo.root)
    (problem,) = said(made)
    start = "kernels/twice/kernel.toml: KP326 calls have no code in the build: "
    assert problem.startswith(start)
    assert problem.endswith("(case num_tokens=2, and 3 more)")
    (absent,) = made.build.kernels["twice"].absent
    assert problem == start + absent


def test_a_binary_that_wants_more_of_its_launch_is_no_error(demo, stub_build):
    """Triton launches it, so its calls run; the build says what it lacks."""
    demo.configs("twice", CONFIGS.format('{"block_sizes": [16], "num_warps": 8}'))
    made = stub_build(demo.root, "scratchy")
    reason = "its code asks for global_scratch_size=8 (case num_tokens=2, and 1 more)"
    assert said(made) == [
        "kernels/twice/kernel.toml: KP326 unverified: calls have no code in the build: " + reason
    ]
    assert (made.sound, made.compiled) == (True, 1)
    kernel = read_build(demo.root / "builds/demo/nvidia_h200").kernels["twice"]
    assert kernel.absent == (reason,)
    assert [part.call_class for part in kernel.parts] == [ONE]


def test_a_build_in_which_nothing_compiles_leaves_what_was_there(tuned, stub_build):
    stub_build(tuned.root)
    directory = tuned.root / "builds/demo/nvidia_h200"
    before = content(directory)
    made = stub_build(tuned.root, "hopeless")
    assert (made.sound, made.compiled, made.bytes) == (False, 0, 0)
    assert content(directory) == before


def test_where_the_system_refuses_a_file_it_is_said_once(tuned, stub_build, monkeypatch):
    stub_build(tuned.root)
    (directory,) = tuned.root.glob("builds/*/*")
    before = content(directory)
    line = "manifests/demo.toml: KP327 configs have no code for sm_90: {}"
    made = stub_build(tuned.root, "refused")
    assert said(made) == [line.format("the system refuses a file: OSError: no room")]

    def refuse(*_):
        raise NoPlace("nothing can be written")

    monkeypatch.setattr(Binding, "code", refuse)
    assert said(stub_build(tuned.root)) == [line.format("nothing can be written")]
    assert content(directory) == before


def test_where_the_system_refuses_a_part_what_was_there_stays(demo, stub_build):
    """As a full directory of temporary files does: a part of a build would pass for all of it."""
    demo.configs("twice", CONFIGS.format('{"block_sizes": [16], "num_warps": 8}'))
    stub_build(demo.root)
    (directory,) = demo.root.glob("builds/*/*")
    before = content(directory)
    made = stub_build(demo.root, "crowded")
    assert made.compiled > 0
    assert (made.sound, made.written, made.bytes) == (False, False, 0)
    assert content(directory) == before


@pytest.mark.parametrize("name", ["DISABLE_PTXAS_OPT", "HELION_INDEX_DTYPE"])
def test_an_environment_that_changes_code_is_refused(tuned, stub_build, monkeypatch, name):
    monkeypatch.setenv(name, "1")
    with pytest.raises(UsageError) as caught:
        stub_build(tuned.root)
    told = f"{name} would change the code of a build, which others load; unset it"
    assert str(caught.value) == told
    assert not (tuned.root / "builds").exists()


def test_kernels_of_other_tools_that_a_build_leaves_out_are_told(tuned, stub_build, monkeypatch):
    tuned.kernel("thrice")
    tuned.configs("thrice")
    stub_build(tuned.root)
    monkeypatch.setattr(module, "tools", lambda: {"kernelpkg": __version__, "triton": "0"})
    (line,) = said(stub_build(tuned.root, "made", "twice"))
    assert line.endswith(
        "KP320 unverified: had thrice, of other tools or not whole, and has not now; build the "
        "whole pack"
    )


def test_a_kernel_that_cannot_be_built_keeps_no_other_from_it(tuned, stub_build):
    tuned.kernel("thrice")
    tuned.edit(
        "kernels/thrice/kernel.toml",
        '[helion]\nrequires = ">=1.4"\n',
        '[helion]\nrequires = ">=1.4"\nsettings = { no_such = 1 }\n',
    )
    made = stub_build(tuned.root)
    (problem,) = said(made)
    start = "kernels/thrice/kernel.toml: KP325 it cannot be built: "
    assert problem.startswith(start)
    assert "no_such" in problem
    assert [*made.build.kernels] == ["twice"]


def test_a_directory_that_cannot_be_written_is_told_before_anything_is_compiled(
    tuned, stub_build, tmp_path, monkeypatch
):
    monkeypatch.setattr(module, "KernelBuilder", None)
    (tmp_path / "file").write_text("")
    with pytest.raises(PackError) as caught:
        stub_build(tuned.root, directory=tmp_path / "file" / "build")
    assert str(caught.value) == (
        f"{tmp_path / 'file' / 'build'}: KP324 cannot be written: Not a directory; correct that, "
        "or name another directory with out=; nothing was changed"
    )


def test_a_build_into_a_directory_that_another_one_has_is_refused_at_once(
    tuned, stub_build, monkeypatch
):
    directory = tuned.root / "builds/demo/nvidia_h200"
    with claimed(directory, "demo"), monkeypatch.context() as patch:
        patch.setattr(module, "KernelBuilder", None)
        with pytest.raises(PackError) as caught:
            stub_build(tuned.root)
    assert str(caught.value).startswith(f"{directory}: KP329 is being written by process ")
    made = stub_build(tuned.root)
    assert {path.name for path in directory.iterdir()} == {INDEX, *made.build.binaries()}


def compiled(constants=(), **metadata):
    """What Triton returns of a compilation, as far as it is looked at."""
    return SimpleNamespace(
        metadata=SimpleNamespace(name="k", shared=0, num_warps=4, **metadata),
        src=SimpleNamespace(signature={}, attrs={}, constants=dict(constants)),
        asm={"cubin": b""},
    )


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (compiled(global_scratch_size=8), "its code asks for global_scratch_size=8"),
        (compiled(profile_scratch_size=8), "its code asks for profile_scratch_size=8"),
        (compiled(launch_cooperative_grid=True), "its code asks for launch_cooperative_grid=True"),
        (compiled(launch_pdl=True), "its code asks for launch_pdl=True"),
        (compiled(num_ctas=2), "its code asks for num_ctas=2"),
        (compiled({(0,): (1, 2)}.items()), "its code has a constant that is a tuple"),
        (compiled({(0,): torch.float32}.items()), "its code has a constant that is a dtype"),
    ],
    ids=["scratch", "profile", "cooperative", "pdl", "clusters", "tuple", "dtype"],
)
def test_a_binary_that_needs_more_of_its_launch_is_refused(code, reason):
    with pytest.raises(NotRecorded) as caught:
        described(code)
    assert str(caught.value) == reason
