"""`kernelpkg build`: streams, documents and exit statuses; nothing here imports torch or Helion."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
from attrs import evolve, frozen

from kernelpkg import __version__, cli
from kernelpkg.errors import PackError, Problem
from kernelpkg.files import digest_bytes
from kernelpkg.packs.builds import (
    INDEX,
    REMEDY,
    Build,
    BuiltKernel,
    BuiltPart,
    digests_of,
    read_build,
    write_build,
)
from kernelpkg.packs.read import read_kernel

ROOT = Path(__file__).parents[2]
BINARY = digest_bytes(b"binary")
CODE = {
    "types": ["*fp32"],
    "constants": {},
    "divisible": [0],
    "parameters": [8],
    "cubin": BINARY,
    "entry": "k",
    "shared": 0,
    "threads": 128,
}
CONFIG = '{"block_sizes":[16],"num_warps":4}'


def run(demo, *arguments):
    return cli.main(["build", "--root", str(demo.root), *arguments])


def own(demo) -> Path:
    return demo.root / "builds/demo/nvidia_h200"


def build_of(demo, config: str = CONFIG) -> Build:
    """A build as one of the pack would be, with a binary that is none."""
    part = BuiltPart(config=config, call_class="[]", host="", kernel="k", codes=(CODE,))
    kernel = BuiltKernel(files=digests_of(read_kernel(demo.root, "twice")), exact={}, parts=(part,))
    return Build(
        pack="demo",
        platform="nvidia_h200",
        arch="sm_90",
        tools={"kernelpkg": __version__},
        pinned={},
        kernels={"twice": kernel},
    )


def put(demo, build: Build | None = None) -> None:
    write_build(build or build_of(demo), own(demo), lambda name: b"binary")


@frozen
class Made:
    """What `make_build` returns, as far as the command looks at it."""

    build: Build
    problems: tuple[Problem, ...] = ()
    compiled: int = 3
    bytes: int = 2048

    @property
    def written(self) -> bool:
        return self.compiled > 0

    @property
    def sound(self) -> bool:
        return not any(problem.severity == "error" for problem in self.problems)


@pytest.fixture
def maker(monkeypatch):
    """Stands for the module that compiles; keeps what it was asked for."""
    module = ModuleType("kernelpkg.compile.build")
    module.asked = []
    module.problems = ()
    module.compiled = 3

    def make_build(pack, specs, platform, directory, **options):
        print("from a compiler")
        options.pop("progress")
        module.asked.append(([s.name for s in specs], platform.name, directory, options))
        build = Build(
            pack=pack.name, platform=platform.name, arch="sm_90", tools={}, pinned={}, kernels={}
        )
        return Made(build, module.problems, module.compiled)

    module.make_build = make_build
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


def told(text: str) -> str:
    head, _, rest = text.rpartition("(")
    assert rest.endswith(" s)\n")
    return head


def test_a_build_is_one_line(demo, maker, capsys):
    """What compilers print goes to stderr."""
    demo.configs("twice")
    assert run(demo) == 0
    out, err = capsys.readouterr()
    assert told(out) == (
        f"build of pack demo for nvidia_h200 (sm_90) in {own(demo)}: 3 sources compiled, "
        "0 binaries, 2.0 KiB "
    )
    assert err == "from a compiler\n"
    options = {"uses": ("tune", "bench"), "jobs": None}
    assert maker.asked == [(["twice"], "nvidia_h200", own(demo), options)]


def test_the_document_of_a_build(demo, maker, capsys):
    """And its options: ops, several platforms, another place, the grids of tests, processes."""
    demo.kernel("thrice")
    maker.problems = (Problem(path="kernels/twice", code="KP327", message="no"),)
    arguments = ["thrice", "--platform", "nvidia_h200,nvidia_b200", "--tests", "--jobs", "3"]
    assert run(demo, *arguments, "--out", str(demo.root / "out"), "--json") == 1
    out, err = capsys.readouterr()
    assert err.count("kernels/twice: KP327 no\n") == 2
    first, second = json.loads(out)["builds"]
    seconds = first.pop("seconds")
    assert isinstance(seconds, float)
    assert first == {
        "platform": "nvidia_h200",
        "directory": str(demo.root / "out/nvidia_h200"),
        "arch": "sm_90",
        "compiled": 3,
        "binaries": 0,
        "bytes": 2048,
        "problems": [maker.problems[0].to_json()],
    }
    assert second["platform"] == "nvidia_b200"
    options = {"uses": ("tune", "bench", "test"), "jobs": 3}
    assert maker.asked[0] == (["thrice"], "nvidia_h200", demo.root / "out/nvidia_h200", options)


def test_what_a_build_cannot_have_is_told_and_exits_0(demo, maker, capsys):
    """Its calls are compiled when they come."""
    problem = Problem(path="kernels/twice", code="KP326", severity="unverified", message="no")
    maker.problems = (problem,)
    assert run(demo, "--platform", "nvidia_h200") == 0
    assert f"{problem}\n" in capsys.readouterr().err


def test_a_build_of_nothing_is_none(demo, maker, capsys):
    """Nothing was written, and who asked for a build has to know."""
    maker.compiled = 0
    assert run(demo, "--platform", "nvidia_h200") == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.endswith("nothing of pack demo can be built for nvidia_h200; none was written\n")


def test_a_kernel_that_is_broken_keeps_no_other_from_being_built(demo, maker, capsys):
    demo.kernel("thrice")
    demo.edit("kernels/thrice/kernel.toml", "version = 1", "version = 0")
    assert run(demo, "--platform", "nvidia_h200") == 1
    out, err = capsys.readouterr()
    assert err.startswith("kernels/thrice/kernel.toml:4: KP012")
    assert out.startswith("build of pack demo for nvidia_h200 ")
    assert [names for names, *_ in maker.asked] == [["twice"]]
    demo.edit("kernels/twice/kernel.toml", "version = 1", "version = 0")
    assert run(demo, "--platform", "nvidia_h200") == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 2


def test_a_directory_that_cannot_be_written_is_one_line(demo, maker, capsys):
    problem = Problem(path="out", code="KP324", message="cannot be written: No space left")

    def fail(*_, **__):
        raise PackError(problems=(problem,))

    maker.make_build = fail
    assert run(demo, "--platform", "nvidia_h200") == 1
    assert capsys.readouterr() == ("", f"{problem}\n")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "no platform has configs; name one with --platform"),
        (["--platform", "xyz"], "'xyz' is not a platform that is known here"),
        (
            ["--platform", "amd_instinct_mi300x"],
            "amd_instinct_mi300x is not an NVIDIA GPU, and builds are for those alone",
        ),
        (["twise", "--platform", "nvidia_h200"], "'twise'"),
    ],
    ids=["no platform", "unknown platform", "AMD", "unknown op"],
)
def test_wrong_usage_is_one_line(demo, maker, capsys, arguments, line):
    assert run(demo, *arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert line in err
    assert err.count("\n") == 1
    assert maker.asked == []


def test_helion_that_does_not_import_is_one_line(demo, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "kernelpkg.compile.build", None)
    assert run(demo, "--platform", "nvidia_h200") == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("kernelpkg: 'kernelpkg.compile.build' cannot be imported (")
    assert err.count("\n") == 1


def test_a_build_that_is_current_is_said_to_be(demo, capsys):
    demo.configs("twice")
    put(demo)
    assert run(demo, "--check") == 0
    assert capsys.readouterr() == (f"{own(demo)} is current\n", "")
    assert run(demo, "--check", "-q") == 0
    assert capsys.readouterr() == ("", "")
    assert run(demo, "--check", "--json") == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == {
        "format": 1,
        "builds": [{"platform": "nvidia_h200", "directory": str(own(demo)), "current": True}],
    }
    assert err == ""


def test_a_config_that_is_of_no_case_is_not_lacked(demo):
    """`check` says so; no build has it."""
    demo.configs("twice")
    path = "configs/twice/nvidia_h200.json"
    demo.edit(path, '"configs": [', '"configs": [{"block_sizes": [32], "num_warps": 4}, ')
    demo.edit(path, '"config": 0', '"config": 1')
    put(demo)
    assert run(demo, "--check") == 0


def with_other_tools(demo):
    put(demo, evolve(build_of(demo), tools={"kernelpkg": "0.0.9"}))


def without_code(demo):
    """A build of kernels of which none could be compiled."""
    build = build_of(demo)
    kernels = {n: evolve(k, parts=(), absent=("why",)) for n, k in build.kernels.items()}
    put(demo, evolve(build, kernels=kernels))


STALE = {
    "source": (
        lambda demo: demo.edit("kernels/twice/kernel.py", "* 2", "* 3"),
        "{} is of another kernel.py; run 'kernelpkg build'",
    ),
    "manifest": (
        lambda demo: demo.edit("kernels/twice/kernel.toml", "Twice", "Two times"),
        "{} is of another kernel.toml; run 'kernelpkg build'",
    ),
    "kernel": (
        lambda demo: demo.kernel("thrice"),
        "{} has no kernel 'thrice'; run 'kernelpkg build'",
    ),
    "configs": (
        lambda demo: put(demo, build_of(demo, "{}")),
        "{} lacks 1 config of kernel 'twice'; run 'kernelpkg build'",
    ),
    "pack": (
        lambda demo: put(demo, evolve(build_of(demo), pack="other")),
        "{} is a build of pack 'other'; name another directory",
    ),
    "architecture": (
        lambda demo: put(demo, evolve(build_of(demo), arch="sm_80")),
        "{} is for sm_80, and this GPU is sm_90; run 'kernelpkg build'",
    ),
    "platform": (
        lambda demo: put(demo, evolve(build_of(demo), platform="nvidia_h100")),
        "{} is a build for nvidia_h100; run 'kernelpkg build'",
    ),
    "no code": (
        without_code,
        "{} has no code of kernel 'twice'; run 'kernelpkg build'",
    ),
    "kernelpkg": (
        with_other_tools,
        "{} is by kernelpkg 0.0.9, and this is " + __version__ + "; run 'kernelpkg build'",
    ),
    "index": (
        lambda demo: (own(demo) / INDEX).write_text(""),
        "{}/index.json: KP321 is damaged; run 'kernelpkg build' again, or restore it",
    ),
    "no index": (
        lambda demo: (own(demo) / INDEX).unlink(),
        f"{{}}/index.json: KP320 cannot be read: No such file or directory; {REMEDY}",
    ),
    "binary": (
        lambda demo: (own(demo) / BINARY).write_bytes(b"binar"),
        "{}/" + BINARY + ": KP321 is damaged; run 'kernelpkg build' again, or restore it",
    ),
}


@pytest.mark.parametrize(("change", "line"), STALE.values(), ids=STALE)
def test_a_build_that_is_not_current_is_one_line_and_status_1(demo, capsys, change, line):
    demo.configs("twice")
    put(demo)
    change(demo)
    assert run(demo, "--check") == 1
    assert capsys.readouterr() == ("", f"{line.format(own(demo))}\n")
    assert run(demo, "--check", "--json") == 1
    out, err = capsys.readouterr()
    assert json.loads(out)["builds"][0]["current"] is False
    assert err == f"{line.format(own(demo))}\n"


def test_a_check_of_one_op_looks_at_no_other(demo):
    demo.configs("twice")
    put(demo)
    demo.kernel("thrice")
    assert run(demo, "twice", "--check") == 0


def test_the_build_of_the_first_pack_is_current(capsys):
    """After a change of kernels, configs or manifests: `make build`, then `make lock`."""
    cli.main(["build", "--root", str(ROOT), "--check", "--platform", "nvidia_h200", "--json"])
    out, err = capsys.readouterr()
    assert err == "", "run 'make build'"
    (found,) = json.loads(out)["builds"]
    assert found["current"]


def test_the_build_of_the_first_pack_is_whole():
    """Every kernel has code, and nothing that it was built for was left out."""
    build = read_build(ROOT / "builds/kernelpkg/nvidia_h200")
    names = sorted(path.parent.name for path in ROOT.glob("kernels/*/kernel.toml"))
    assert sorted(build.kernels) == names
    assert [name for name, kernel in build.kernels.items() if kernel.absent] == []
    files = {path.name for path in build.directory.iterdir()}
    assert files == {INDEX, *build.binaries()}
