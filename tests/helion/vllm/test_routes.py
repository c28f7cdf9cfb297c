"""The table of routes: installed, waiting, off, revoked, and what is said of each."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch.library import Library

from kernelpkg.errors import PackError, UsageError
from kernelpkg.runtime.register import get_kernel_by_name
from kernelpkg.vllm.route_counts import RouteReport
from kernelpkg.vllm.routes import report_table

PLACE = "KERNELPKG_VLLM_ROUTES"
HEAD = "native ops of vLLM that cannot be routed answer their calls themselves:"
TWICE = "(Tensor input) -> Tensor"


@pytest.fixture
def define_native() -> Iterator[Callable[..., None]]:
    """Defines native ops in `_C`, which double their input; all are taken back afterwards."""
    libraries: list[Library] = []

    def define(name: str, schema: str = TWICE, key: str = "CPU") -> None:
        library = Library("_C", "FRAGMENT")
        libraries.append(library)
        library.define(f"{name}{schema}")
        if key:
            library.impl(name, lambda x, *rest: x * 2, key)

    yield define
    for library in libraries:
        library._destroy()


@pytest.fixture
def routed(demo) -> Callable[..., Path]:
    """Writes routes from `_C::<name>` to the op "twice" of the pack "demo"; returns its root."""

    def write(*names: str, rest: str = "", op: str = "twice") -> Path:
        path = demo.root / "manifests" / "demo.toml"
        routes = "".join(f'[vllm.routes."_C::{name}"]\nop = "{op}"\n{rest}' for name in names)
        path.write_text(path.read_text().partition("[vllm.")[0] + routes)
        return demo.root

    return write


@pytest.fixture
def extension() -> Iterator[Callable[[str], None]]:
    """Lets a module of vLLM's appear as imported, which is not there."""
    made: list[str] = []

    def appear(name: str) -> None:
        assert name not in sys.modules
        sys.modules[name] = ModuleType(name)
        made.append(name)

    yield appear
    for name in made:
        del sys.modules[name]


def twice(name: str = "twice") -> None:
    assert torch.equal(getattr(torch.ops._C, name)(torch.ones(3)), torch.full((3,), 2.0))


@pytest.mark.parametrize(
    ("words", "chosen"),
    [
        pytest.param(["all"], ["_C::one", "_C::two"], id="all"),
        pytest.param(["two"], ["_C::two"], id="short"),
        pytest.param(["_C::two", "one", "two"], ["_C::two", "_C::one"], id="both, one twice"),
        pytest.param(["two", "all"], ["_C::one", "_C::two"], id="one and all"),
        pytest.param([], [], id="none"),
    ],
)
def test_words(bench, define_native, routed, words, chosen):
    """Routes are named with or without their namespace, or all together."""
    for name in ("one", "two"):
        define_native(name)
    root = routed("one", "two")
    found = bench.table.install(words, pack=None, root=root, keys=("CPU",), environment={})
    assert [report.target for report in found] == chosen
    assert {report.status for report in found} <= {"routed"}
    for name in ("one", "two"):
        twice(name)
    assert [found.target for found in bench.table.reports() if found.ours] == sorted(chosen)


EVERY = "; 'all' stands for all of them"
TOO = f"'too' is not a route of pack 'demo'; did you mean '_C::two'?{EVERY}"
SEVERAL = (
    f"'x::y' is not a route of pack 'demo'; it has _C::one, _C::two{EVERY}; 'none' is not a route "
    f"of pack 'demo'; did you mean '_C::one'?{EVERY}"
)


@pytest.mark.parametrize(
    ("words", "said"), [(["one", "too"], TOO), (["x::y", "none"], SEVERAL)], ids=["one", "several"]
)
def test_words_that_are_not_known(bench, define_native, routed, words, said):
    """Python gets an error, and nothing is installed; an entry point's other words go on."""
    define_native("one")
    root = routed("one", "two")
    with pytest.raises(UsageError) as caught:
        bench.install(*words, root=root)
    assert str(caught.value) == said
    assert bench.table.reports() == ()
    bench.register(",".join(words), root)
    lines = [f"{PLACE}: KP844 {part}{EVERY}" for part in re.split(f"{EVERY}(?:; |$)", said) if part]
    assert bench.warned == ["\n".join([HEAD, *lines])]


def test_a_device_key_that_ops_have_not(bench, routed):
    with pytest.raises(UsageError) as caught:
        bench.install(root=routed("one"), keys=("CUDA", "Meta"))
    assert str(caught.value) == "device key 'Meta' is none of CPU, CUDA"


def test_a_pack_without_routes(bench, demo):
    """Who asks for all routes of it is told that there are none."""
    with pytest.raises(UsageError, match=r"^pack 'demo' has no routes, so nothing is routed$"):
        bench.install(root=demo.root)
    bench.register("all", demo.root)
    told = f"{PLACE}: KP844 pack 'demo' has no routes, so nothing is routed"
    assert bench.warned == [f"{HEAD}\n{told}"]
    assert bench.told == ["native ops of vLLM: none routed"]


def test_a_broken_manifest_of_a_pack(bench, routed):
    """Python gets the error; an entry point warns of every problem, and never raises."""
    root = routed("one", op="thrice")
    line = (
        "manifests/demo.toml:9: KP603 route '_C::one' names op 'thrice', which the pack does not "
        "have; did you mean 'twice'?"
    )
    with pytest.raises(PackError) as caught:
        bench.install(root=root)
    assert str(caught.value) == line
    for _ in range(3):
        bench.register("all", root)
    assert bench.warned == [f"{HEAD}\n{line}"]


def test_no_pack_where_the_environment_says(bench, tmp_path):
    """A root that does not exist is told of, once."""
    for _ in range(2):
        bench.register("all", tmp_path / "nowhere")
    problem = "KP604 does not exist; KERNELPKG_PATH takes a directory that holds manifests/"
    assert bench.warned == [f"{HEAD}\n{tmp_path}/nowhere: {problem}"]


SCHEMAS = {
    "name": ("(Tensor x) -> Tensor", "its arguments are (x), and of the op (input)"),
    "one more": (
        "(Tensor input, int n=2) -> Tensor", "its arguments are (input, n), and of the op (input)",
    ),
    "mutation": (
        "(Tensor(a!) input) -> Tensor(a!)",
        ("its 'input' is Tensor, which it writes, and of the op Tensor; it returns (Tensor that is "
        "an argument), and the op (Tensor)"),
    ),
    "optional": (
        "(Tensor? input) -> (Tensor, Tensor)",
        ("its 'input' is Tensor?, and of the op Tensor; it returns (Tensor, Tensor), and the op "
        "(Tensor)"),
    ),
    "type": (
        "(int[] input) -> ()",
        "its 'input' is int[], and of the op Tensor; it returns nothing, and the op (Tensor)",
    ),
    "keyword only": (
        "(*, Tensor input) -> Tensor", "it takes input by keyword only, as no op of a pack can",
    ),
    "overload": (".out(Tensor input) -> Tensor", "has overloads out, and a route is to one op"),
}  # fmt: skip


@pytest.mark.parametrize(("schema", "said"), SCHEMAS.values(), ids=SCHEMAS)
def test_native_ops_of_another_schema(bench, new_bench, define_native, routed, schema, said):
    """Such a route is off, with one line of its own, and the others go on."""
    define_native("one", schema, key="")
    define_native("two")
    root = routed("one", "two")
    if not said.startswith("has "):
        said = f"has another schema than 'demo::twice': {said}"
    assert bench.install(root=root) == [("off", f"native op '_C::one' {said}"), ("routed", "")]
    other = new_bench()
    other.register("all", root)
    line = f"manifests/demo.toml:8: KP843 native op '_C::one' {said}"
    assert other.warned == [f"{HEAD}\n{line}"]
    other.table.revoke([])


def test_whole_numbers_of_symbols(bench, define_native, demo):
    """`int` and `SymInt` are one type to a route, and so are names of aliases."""
    demo.edit("kernels/twice/kernel.toml", '"(Tensor input)', '"(Tensor input, int n)')
    demo.edit("kernels/twice/kernel.toml", "[accuracy]", "n = 2\n[accuracy]")
    for file in ("kernel.py", "host.py"):
        demo.edit(f"kernels/twice/{file}", "torch.Tensor)", "torch.Tensor, n: int)")
    path = demo.root / "manifests" / "demo.toml"
    path.write_text(f'{path.read_text()}[vllm.routes."_C::one"]\nop = "twice"\n')
    define_native("one", "(Tensor input, SymInt n) -> Tensor")
    assert bench.install(root=demo.root) == [("routed", "")]
    assert torch.equal(torch.ops._C.one(torch.ones(3), 5), torch.full((3,), 2.0))
    assert bench.table.reports()[0].ours == 1


def test_a_native_op_without_a_kernel_for_the_device(bench, define_native, routed):
    define_native("one")
    said = "native op '_C::one' has no kernel for CUDA"
    assert bench.install(root=routed("one"), keys=("CUDA",)) == [("off", said)]
    assert bench.install(root=routed("one"), keys=("CUDA", "CPU")) == [("routed", "")]


def test_an_op_that_is_switched_off(bench, new_bench, define_native, routed):
    """KERNELPKG_DISABLE switches off the routes to an op too, which needs no warning."""
    define_native("one")
    root = routed("one")
    for word in ("twice", "demo::twice"):
        found = bench.install(root=root, environment={"KERNELPKG_DISABLE": word})
        assert found == [("off", "its op is switched off by KERNELPKG_DISABLE")]
    bench.table.revoke([])
    other = new_bench()
    other.register("all", root, KERNELPKG_DISABLE="demo::twice")
    assert (other.warned, other.told) == ([], ["native ops of vLLM: off _C::one"])
    twice("one")


@pytest.mark.parametrize(
    ("release", "status"),
    [
        pytest.param(None, "routed", id="not installed"),
        pytest.param("0.33.0", "routed", id="fits"),
        pytest.param("0.33.1.dev7+gabc", "routed", id="development"),
        pytest.param("0.34.0rc1", "off", id="next"),
        pytest.param("0.32.9", "off", id="older"),
    ],
)
def test_releases_of_vllm(bench, define_native, routed, release, status):
    """A pack for other releases routes nothing: an op may mean something else there."""
    define_native("one")
    bench.table.release = release
    root = routed("one", rest='[vllm]\nrequires = ">=0.33,<0.34"\n')
    reason = f"pack 'demo' is for vLLM >=0.33,<0.34, and {release} is installed"
    assert bench.install(root=root) == [(status, reason if status == "off" else "")]
    twice("one")
    assert bench.table.reports()[0].ours == (status == "routed")


def test_the_warning_of_another_release(bench, routed):
    """An operator is told once, with the line that says so."""
    bench.table.release = "0.35.0"
    root = routed("one", rest='[vllm]\nrequires = ">=0.33,<0.34"\n')
    for _ in range(2):
        bench.register("all", root)
    problem = "KP845 pack 'demo' is for vLLM >=0.33,<0.34, and 0.35.0 is installed"
    assert bench.warned == [f"{HEAD}\nmanifests/demo.toml:11: {problem}"]


def test_one_broken_kernel(bench, new_bench, define_native, demo, routed):
    """Its route is off with its problems; the others are installed."""
    for name in ("one", "two"):
        define_native(name)
    demo.kernel("bad")
    demo.edit("kernels/bad/kernel.toml", 'match = "ceil"', 'match = "ceil"\nmax = 1')
    demo.edit("kernels/bad/kernel.toml", "rtol = 1e-6", 'rtol = "x"')
    root = routed("one", rest='[vllm.routes."_C::two"]\nop = "bad"\n')
    lines = [
        (
            "kernels/bad/kernel.toml:16: KP105 'max' has no effect with match 'ceil'; it goes with "
            "'nearest'"
        ),
        "kernels/bad/kernel.toml:23: KP012 'rtol' must be a number at least 0, not a text ('x')",
    ]
    assert bench.install(root=root) == [("routed", ""), ("off", f"{lines[0]} (and 1 more)")]
    other = new_bench()
    other.register("all", root)
    assert other.warned == ["\n".join([HEAD, *lines])]
    other.table.revoke([])


def test_a_condition_that_is_wrong(bench, define_native, routed):
    define_native("one")
    root = routed("one", rest='when = ["num_token < 4"]\n')
    problem = "name 'num_token' is not known here; did you mean 'num_tokens'?"
    line = f"manifests/demo.toml:10: KP840 condition 'num_token < 4': {problem}"
    assert bench.install(root=root) == [("off", line)]
    twice("one")


def test_a_pack_that_cannot_be_loaded(bench, define_native, routed, demo):
    """At the first accepted call all its routes go off, with one warning; the answer is right."""
    for name in ("one", "two"):
        define_native(name)

    def load(*args: Any) -> None:
        raise ImportError("no module\n named 'helion'")

    bench.load = load
    bench.install(root=routed("one", "two"))
    for _ in range(2):
        twice("one")
        twice("two")
    reason = "pack 'demo' cannot be loaded: ImportError: no module named 'helion'"
    assert bench.statuses() == [("_C::one", "off", reason), ("_C::two", "off", reason)]
    assert bench.warned == [f"{HEAD}\n{reason}"]
    assert [dict(found.native) for found in bench.table.reports()] == [{reason: 2}, {reason: 2}]


def test_a_kernel_that_fails_to_load(bench, define_native, demo, routed):
    """Only its own routes go off, with one warning."""
    for name in ("one", "two"):
        define_native(name)
    demo.kernel("bad")
    demo.edit("kernels/bad/kernel.py", "import torch\n", "import torch\n\n1 / 0\n")
    root = routed("one", rest='[vllm.routes."_C::two"]\nop = "bad"\n')
    bench.install(root=root)
    for _ in range(2):
        twice("one")
        twice("two")
    reason = "kernels/bad/kernel.py:4: KP114 fails to import: ZeroDivisionError: division by zero"
    assert bench.statuses() == [("_C::one", "routed", ""), ("_C::two", "off", reason)]
    assert bench.warned == [f"{HEAD}\n{reason}"]


def test_a_native_op_that_comes_later(bench, define_native, routed):
    """It is waited for; whoever asks for routes again finds it, and nothing is said twice."""
    root = routed("one", "two")
    define_native("two")
    waiting = ("waiting", "the native op is not there yet")
    assert bench.install(root=root) == [waiting, ("routed", "")]
    define_native("one")
    bench.register("all", root)
    assert bench.statuses() == [("_C::one", "routed", ""), ("_C::two", "routed", "")]
    twice("one")
    for _ in range(3):
        bench.register("all", root)
    assert bench.warned == []
    assert bench.told == ["native ops of vLLM: routed _C::one, _C::two"]


@pytest.mark.parametrize("name", ["vllm._C_stable_libtorch", "vllm._C"])
def test_a_native_op_that_vllm_does_not_have(
    bench, new_bench, define_native, routed, extension, name
):
    """Where vLLM's extension module is imported, a missing op is told of, and still waited for."""
    extension(name)
    root = routed("one")
    said = f"native op '_C::one' is not there, though {name} is imported; correct its name"
    assert bench.install(root=root) == [("waiting", said)]
    other = new_bench()
    for _ in range(3):
        other.register("all", root)
    assert other.warned == [f"{HEAD}\nmanifests/demo.toml:8: KP842 {said}"]
    assert other.told == ["native ops of vLLM: waiting for _C::one"]
    other.table.revoke([])
    define_native("one")
    assert bench.install(root=root) == [("routed", "")]


def test_a_route_that_is_waited_for_and_revoked(bench, define_native, routed):
    """Nothing is waited for any more, and registering again leaves it alone."""
    root = routed("one")
    bench.install(root=root)
    assert bench.table.revoke([]) == ("_C::one",)
    define_native("one")
    bench.register("all", root)
    assert bench.statuses() == [("_C::one", "off", "revoked")]
    assert bench.install(root=root) == [("routed", "")]


def test_revoking_what_is_not_routed(bench, define_native, routed):
    """It is an error, and nothing is revoked."""
    define_native("one")
    bench.install(root=routed("one"))
    with pytest.raises(UsageError) as caught:
        bench.table.revoke(["one", "won"])
    assert str(caught.value) == "native op '_C::won' is not routed here; did you mean '_C::one'?"
    assert bench.statuses() == [("_C::one", "routed", "")]


def test_the_original_of_nothing(bench, define_native):
    """An op that is not there, or is several, has no original."""
    define_native("one", ".out(Tensor input) -> Tensor")
    for name, said in (
        ("never", "is not there; import what defines it first"),
        ("one", "has overloads out, and a route is to one op"),
    ):
        with pytest.raises(UsageError) as caught:
            bench.table.original(name)
        assert str(caught.value) == f"native op '_C::{name}' {said}"


def test_installing_again(bench, define_native, routed, demo):
    """What has not changed stays as it is, counts too; what has is made anew."""
    define_native("one")
    root = routed("one")
    bench.install(root=root)
    twice("one")
    bench.install(root=root)
    assert bench.table.reports()[0].ours == 1
    bench.install(root=routed("one", rest='when = ["num_tokens > 3"]\n'))
    twice("one")
    (found,) = bench.table.reports()
    assert (found.ours, dict(found.native)) == (0, {"'num_tokens > 3' does not hold": 1})
    demo.edit("kernels/twice/kernel.toml", "Twice the", "Two times the")
    bench.install(root=root)
    assert bench.table.reports()[0].passed == 0


def test_registering_leaves_installed_routes_alone(bench, define_native, routed, other):
    """What Python installed, from whichever pack, is not replaced by an entry point."""
    define_native("one")
    bench.install(root=routed("one"))
    twice("one")
    path = other.root / "manifests" / "demo.toml"
    path.write_text(f'{path.read_text()}[vllm.routes."_C::one"]\nop = "twice"\n')
    bench.register("all", other.root)
    assert [(found.status, found.ours) for found in bench.table.reports()] == [("routed", 1)]


def test_a_name_that_another_pack_has_taken(bench, define_native, routed, other):
    """A route is to an op by its name: it is asked whether it accepts a call, whoever loaded it."""
    import kernelpkg

    define_native("one")
    other.edit("kernels/twice/kernel.toml", 'shape = ["num_tokens"]', 'shape = ["2"]')
    other.edit("kernels/twice/kernel.toml", "num_tokens = [1, 4]", "num_tokens = [2]")
    assert kernelpkg.load(root=other.root).ok
    taken = get_kernel_by_name("demo::twice")
    bench.install(root=routed("one"))
    twice("one")
    assert get_kernel_by_name("demo::twice") is taken
    (found,) = bench.table.reports()
    assert dict(found.native) == {"argument 'input' has shape (3,), and must have (2), from [2]": 1}


def test_something_unforeseen(bench, new_bench, define_native, routed, monkeypatch):
    """A route that fails to install for any other reason is off, and says what it was."""

    def failing(*_: Any, **__: Any) -> None:
        raise RuntimeError("no\n such luck")

    define_native("one")
    before = str(torch.library.get_kernel("_C::one", "CPU"))
    monkeypatch.setattr(Library, "impl", failing)
    said = "native op '_C::one' cannot be overridden: RuntimeError: no such luck"
    assert bench.install(root=routed("one")) == [("off", said)]
    assert str(torch.library.get_kernel("_C::one", "CPU")) == before
    twice("one")
    other = new_bench()
    other.register("all", routed("one"))
    assert other.warned == [f"{HEAD}\nmanifests/demo.toml:8: KP846 {said}"]


def test_the_table_of_reports():
    """Each reason stands on its own line, below that of the status."""
    reports = [
        RouteReport(
            target="_C::a",
            op="demo::a",
            status="routed",
            ours=7,
            longer={"its host part uses item": 2},
        ),
        RouteReport(
            target="_C::bb",
            op="demo::b",
            status="off",
            reason="revoked",
            ours=1,
            native={"'n <= 4' does not hold": 20, "an argument requires grad": 3},
        ),
    ]
    assert report_table(reports) == (
        "native op  op       status  ours  native  why\n"
        "_C::a      demo::a  routed  7     0       "
        "2 signatures of ours on a slower path: its host part uses item\n"
        "_C::bb     demo::b  off     1     23      revoked\n"
        "                                          20 'n <= 4' does not hold\n"
        "                                          3 an argument requires grad"
    )
