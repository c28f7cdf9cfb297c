"""vLLM's entry point: what it does in a process, in either order, any number of times."""

from __future__ import annotations

import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

import kernelpkg
from kernelpkg.errors import PackError, UsageError
from kernelpkg.vllm import plugin

ROOT = Path(__file__).parents[3]
STAND_INS = runpy.run_path(str(ROOT / "benchmarks" / "native_ops.py"))
NATIVE = sorted(f"_C::{name}" for name in STAND_INS["SCHEMAS"])

PRELUDE = """\
import json, logging, os, sys
from importlib.metadata import entry_points

records = []

class Notes(logging.Handler):
    def emit(self, record):
        records.append((record.name, record.levelname, record.getMessage()))

logger = logging.getLogger("vllm")
logger.setLevel("INFO")
logger.addHandler(Notes())
logger.propagate = False
found = entry_points(group="vllm.general_plugins")
(point,) = [one for one in found if one.name == "kernelpkg"]
register = point.load()
out = {}
"""

OPS = """\
import runpy
stand_ins = runpy.run_path(os.environ["STAND_INS"])
ops = stand_ins["NativeOps"](lambda name: stand_ins["nothing"], key="CUDA")
"""


@pytest.fixture
def site(site: Path) -> Path:
    """Packages as pip would install them: kernelpkg's metadata, and a vllm with an extension."""
    (site / "vllm").mkdir()
    (site / "vllm" / "__init__.py").touch()
    (site / "vllm" / "_C_stable_libtorch.py").write_text(f"import os\n{OPS}")
    return site


def start(site: Path, code: str, **environment: str) -> tuple[str, str]:
    """Run code behind the prelude in a process of its own; returns what it wrote.

    `environment` takes the place of the variables of kernelpkg.
    """
    kept = {name: os.environ[name] for name in os.environ if not name.startswith("KERNELPKG")}
    paths = os.pathsep.join([str(site), str(ROOT), os.environ.get("PYTHONPATH", "")])
    stand_ins = str(ROOT / "benchmarks" / "native_ops.py")
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + code],
        env={**kept, "PYTHONPATH": paths, "STAND_INS": stand_ins, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


@pytest.fixture
def run(site: Path) -> Callable[..., dict[str, Any]]:
    """Runs code behind the prelude in a process of its own; returns what it put into `out`."""

    def started(code: str, **environment: str) -> dict[str, Any]:
        end = "\nout['records'] = records\nprint(json.dumps(out))\n"
        written, _ = start(site, code + end, **environment)
        found: dict[str, Any] = json.loads(written.splitlines()[-1])
        return found

    return started


REPORTS = """\
from kernelpkg import plugin
out["reports"] = [(found.target, found.status, found.reason) for found in plugin.report()]
out["helion"] = "helion" in sys.modules
out["cuda"] = sys.modules["torch"].cuda.is_initialized()
"""


def test_without_routes_nothing_is_imported(run):
    """Unset, empty and `none` are the same; the plugin itself is all that there is of it."""
    code = """
before = set(sys.modules)
for words in (None, "", " ", "none", " none,", ",,"):
    if words is not None:
        os.environ["KERNELPKG_VLLM_ROUTES"] = words
    for _ in range(3):
        out["returned"] = register()
out["imported"] = sorted(set(sys.modules) - before)
out["ours"] = sorted(name for name in sys.modules if name.split(".")[0] == "kernelpkg")
"""
    assert run(code) == {
        "returned": None,
        "imported": [],
        "ours": ["kernelpkg", "kernelpkg.plugin", "kernelpkg.vllm", "kernelpkg.vllm.plugin"],
        "records": [],
    }


def test_vllm_keeps_compiled_graphs_by_what_is_loaded(demo, monkeypatch):
    """By a variable that it reads each time; other variables stay as they are."""
    envs = types.ModuleType("vllm.envs")
    monkeypatch.setitem(sys.modules, "vllm.envs", envs)
    plugin.register()  # of a release that has no such table
    envs.environment_variables = {"VLLM_PORT": lambda: 1}
    plugin.register()
    assert [*envs.environment_variables] == ["VLLM_PORT", "KERNELPKG_OPS"]
    read = envs.environment_variables["KERNELPKG_OPS"]
    before = read()
    kernelpkg.load(root=demo.root, device="cpu", environment={})
    assert before != read()
    kernelpkg.unload("demo::twice")
    assert before == read()


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param(["register"] * 20 + ["import"], id="before"),
        pytest.param(["import"] + ["register"] * 20, id="after"),
        pytest.param(["register", "import", "register"], id="around"),
    ],
)
def test_registered_in_either_order(run, steps):
    """All routes stand once vLLM's ops are there; no Helion, no GPU context, no warning."""
    words = {
        "register": "register()",
        "import": "assert importlib.import_module('vllm._C_stable_libtorch').ops",
    }
    code = "\n".join(["import importlib", *(words[step] for step in steps)])
    found = run(f"{code}\n{REPORTS}", KERNELPKG_VLLM_ROUTES="all")
    assert found["reports"] == [[name, "routed", ""] for name in NATIVE]
    assert (found["helion"], found["cuda"]) == (False, False)
    routed = f"native ops of vLLM: routed {', '.join(NATIVE)}"
    assert found["records"] == [["vllm.kernelpkg", "INFO", routed]]


@pytest.mark.parametrize("page", ["README.md", "docs/guide/vllm.md"])
def test_the_variable_that_pages_show_routes_all(run, page):
    """They start `vllm serve` with it, which no test can."""
    shown = (ROOT / page).read_text(encoding="utf-8")
    (setting,) = re.findall(r"^(?:\$ )?(\w+=\w+) vllm serve MODEL$", shown, re.M)
    found = run(f"register()\n{REPORTS}", **dict([setting.split("=")]))
    assert found["reports"] == [[name, "routed", ""] for name in NATIVE]


def test_the_report_at_the_end_of_a_process(site):
    """It is logged at exit, where there are routes."""
    code = """
class Late(logging.Handler):
    def emit(self, record):
        os.write(2, record.getMessage().encode() + b"\\n")

logger.addHandler(Late())
register()
"""
    words = "fused_qk_norm_rope"
    lines = start(site, code, KERNELPKG_VLLM_ROUTES=words)[1].splitlines()
    assert lines[-3] == "who answered the native ops of vLLM:"
    assert lines[-2].split() == ["native", "op", "op", "status", "ours", "native", "why"]
    assert lines[-1].split()[:5] == [
        "_C::fused_qk_norm_rope", "kernelpkg::fused_qk_norm_rope", "routed", "0", "0",
    ]  # fmt: skip
    assert start(site, code, KERNELPKG_VLLM_ROUTES="none")[1] == ""
    assert "who answered" not in start(site, code, KERNELPKG_VLLM_ROUTES="never")[1]


def test_a_list_of_routes(run):
    """Names may have their namespace; one that is not known is told in the one warning."""
    words = "rms_norm_per_block_quant, _C::fused_qk_norm_rope ,_C::rms_norm_per_blok_quant"
    code = f"import vllm._C_stable_libtorch\n{'register();' * 20}\n{REPORTS}"
    found = run(code, KERNELPKG_VLLM_ROUTES=words)
    assert found["reports"] == [
        ["_C::fused_qk_norm_rope", "routed", ""],
        ["_C::rms_norm_per_block_quant", "routed", ""],
    ]
    assert found["records"] == [
        [
            "vllm.kernelpkg",
            "WARNING",
            (
                "native ops of vLLM that cannot be routed answer their calls themselves:\n"
                "KERNELPKG_VLLM_ROUTES: KP844 '_C::rms_norm_per_blok_quant' is not a route of pack "
                "'kernelpkg'; did you mean '_C::rms_norm_per_block_quant'?; 'all' stands for all "
                "of them"
            ),
        ],
        [
            "vllm.kernelpkg",
            "INFO",
            "native ops of vLLM: routed _C::fused_qk_norm_rope, _C::rms_norm_per_block_quant",
        ],
    ]


def test_garbage(run):
    """Whatever the variable holds, vLLM goes on, with one warning at most."""
    code = """
import vllm._C_stable_libtorch
from kernelpkg import plugin
for words in (";;;", "ALL", "*", "é,_C::", "all\\n", " all "):
    os.environ["KERNELPKG_VLLM_ROUTES"] = words
    register()
    register()
    out[words] = [level for _, level, _ in records], len(plugin.report())
    records.clear()
    plugin.revoke()
    plugin._TABLES.clear()
"""
    found = run(code)
    refused = [["WARNING", "INFO"], 0]
    assert found == {
        **dict.fromkeys((";;;", "ALL", "*", "é,_C::"), refused),
        "all\n": [["INFO"], 6],
        " all ": [["INFO"], 6],
        "records": [],
    }


def test_a_broken_pack(run, demo):
    """The native ops stay as they are, and one warning has every problem."""
    demo.edit("manifests/demo.toml", 'license = "Apache-2.0"', "licence = 3")
    code = f"import vllm._C_stable_libtorch\nregister(); register()\n{REPORTS}"
    found = run(code, KERNELPKG_VLLM_ROUTES="all", KERNELPKG_PATH=str(demo.root))
    assert found["reports"] == []
    assert [(level, text.splitlines()[1:]) for _, level, text in found["records"]] == [
        (
            "WARNING",
            [
                (
                    "manifests/demo.toml:2: KP011 key 'license' is missing in [pack]; it must be a "
                    "text"
                ),
                (
                    "manifests/demo.toml:6: KP010 key 'licence' is not known in [pack]; did you "
                    "mean 'license'?"
                ),
            ],
        ),
        ("INFO", []),
    ]


def test_a_release_of_vllm_that_the_pack_is_not_for(run, site):
    """The installed release is read from its metadata."""
    info = site / "vllm-0.40.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 0.40.0\n")
    found = run(
        f"import vllm._C_stable_libtorch\nregister()\n{REPORTS}", KERNELPKG_VLLM_ROUTES="all"
    )
    said = "pack 'kernelpkg' is for vLLM >=0.33,<0.34, and 0.40.0 is installed"
    assert found["reports"] == [[name, "off", said] for name in NATIVE]
    assert found["records"][0][2].splitlines()[1:] == [f"manifests/kernelpkg.toml:21: KP845 {said}"]


def test_an_extension_without_an_op(run, site):
    """A route to an op that vLLM turns out not to have is told of once; the others are routed."""
    path = site / "vllm" / "_C_stable_libtorch.py"
    keep = 'stand_ins["SCHEMAS"].pop("fused_qk_norm_rope")\nops ='
    path.write_text(path.read_text().replace("ops =", keep))
    code = f"register()\nregister()\n{REPORTS}"
    found = run(code, KERNELPKG_VLLM_ROUTES="all")
    statuses = {target: status for target, status, _ in found["reports"]}
    assert statuses.pop("_C::fused_qk_norm_rope") == "waiting"
    assert set(statuses.values()) == {"routed"}
    (warning,) = [text for _, level, text in found["records"] if level == "WARNING"]
    place, _, said = warning.splitlines()[1].partition(": ")
    assert place.startswith("manifests/kernelpkg.toml:")
    assert said == (
        "KP842 native op '_C::fused_qk_norm_rope' is not there, though vllm._C_stable_libtorch is "
        "imported; correct its name"
    )


@pytest.mark.parametrize("fails", ["_C_stable_libtorch", "__init__", ""])
def test_an_extension_that_cannot_be_imported(run, site, fails):
    """On a machine without CUDA, or with no vLLM at all: no warning, and the routes wait.

    Where it can be imported after all, the next call of `register` finds the ops.
    """
    kept = site / "vllm"
    if fails:
        shutil.copytree(kept, site / "sound" / "vllm")
        (kept / f"{fails}.py").write_text("raise OSError('libcuda.so.1: cannot open')\n")
    else:
        (site / "sound").mkdir()
        kept.rename(site / "sound" / "vllm")
    code = f"""
register(); register()
{REPORTS}
sys.path.insert(0, {str(site / "sound")!r})
sys.modules.pop("vllm", None)
importlib.invalidate_caches()
register()
out["later"] = [found.status for found in plugin.report()]
"""
    found = run(f"import importlib\n{code}", KERNELPKG_VLLM_ROUTES="all")
    waiting = "the native op is not there yet"
    assert found["reports"] == [[name, "waiting", waiting] for name in NATIVE]
    assert found["later"] == ["routed"] * 6
    listed = ", ".join(NATIVE)
    assert [text for _, _, text in found["records"]] == [
        f"native ops of vLLM: waiting for {listed}",
        f"native ops of vLLM: routed {listed}",
    ]


def test_forked_processes(run, demo):
    """A process that is forked has the routes of its parent, and counts of its own."""
    path = demo.root / "manifests" / "demo.toml"
    path.write_text(f'{path.read_text()}[vllm.routes."_C::twice"]\nop = "twice"\n')
    code = f"""
import torch, warnings
from torch.library import Library
from kernelpkg import plugin
library = Library("_C", "FRAGMENT")
library.define("twice(Tensor input) -> Tensor")
library.impl("twice", lambda input: input * -2, "CPU")
plugin.install("all", root={str(demo.root)!r}, device_keys=("CPU",))
x = torch.ones(3)
assert torch.ops._C.twice(x).tolist() == [2.0] * 3
read, write = os.pipe()
warnings.simplefilter("ignore")
if os.fork() == 0:
    for _ in range(4):
        torch.ops._C.twice(x)
    torch.ops._C.twice(torch.ones(5))
    os.write(write, str(plugin.report()[0].ours).encode())
    os._exit(0)
os.wait()
out["child"] = os.read(read, 9).decode()
out["parent"] = plugin.report()[0].ours
"""
    found = run(code)
    assert (found["child"], found["parent"]) == ("6", 1)


@pytest.mark.parametrize(
    ("before", "told"),
    [
        pytest.param("register()", ["worker", "MainProcess"], id="routes of its parent"),
        pytest.param("", ["worker"], id="routes of its own"),
    ],
)
def test_the_report_of_a_forked_worker(site, before, told):
    """One that multiprocessing forks, as vLLM does, logs it too when it ends, and once."""
    code = f"""
import multiprocessing

class Late(logging.Handler):
    def emit(self, record):
        if record.getMessage().startswith("who answered"):
            os.write(2, (multiprocessing.current_process().name + "\\n").encode())

logger.addHandler(Late())
{before}
worker = multiprocessing.get_context("fork").Process(target=register, name="worker")
worker.start()
worker.join()
"""
    said = start(site, code, KERNELPKG_VLLM_ROUTES="all")[1]
    assert said.splitlines() == told


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A process that has no routes yet."""
    monkeypatch.setattr(plugin, "_TABLES", {})
    monkeypatch.setattr(plugin, "_FAILED", [])
    yield
    plugin.revoke()


@pytest.fixture
def native() -> Iterator[Any]:
    """The six native ops, which answer with the references of the first pack."""
    found = STAND_INS["NativeOps"](partial(STAND_INS["reference"], ROOT))
    yield found
    found.close()


@pytest.mark.usefixtures("alone")
def test_from_python(native, make_args):
    """Installed, called, reported, gone past, and revoked."""
    name = "dynamic_per_token_scaled_fp8_quant"
    found = plugin.install([name], root=ROOT, device_keys=("CPU",), environment={})
    assert [(report.target, report.status) for report in found] == [(f"_C::{name}", "routed")]
    args = make_args(name, has_scale_ub=False)
    getattr(torch.ops._C, name)(*args)
    plugin.original(name)(*args)
    assert native.calls == [name]
    (report,) = plugin.report()
    assert (report.ours, report.passed) == (1, 0)
    assert plugin.report_text().splitlines()[1].split() == [
        f"_C::{name}", f"kernelpkg::{name}", "routed", "1", "0",
    ]  # fmt: skip
    assert plugin.revoke(name) == (f"_C::{name}",)
    assert plugin.revoke() == ()
    assert plugin.report()[0].reason == "revoked"
    getattr(torch.ops._C, name)(*args)
    assert native.calls == [name, name]


@pytest.mark.usefixtures("alone")
def test_configs_of_an_operator_that_are_nowhere(native, make_args, caplog):
    """Every native op answers its own calls, and one warning names the directory."""
    name = "dynamic_per_token_scaled_fp8_quant"
    if kernelpkg.get_kernel_by_name(f"kernelpkg::{name}") is not None:
        kernelpkg.unload(f"kernelpkg::{name}")
    environment = {"KERNELPKG_CONFIGS": "nowhere"}
    plugin.install([name], root=ROOT, device_keys=("CPU",), environment=environment)
    for _ in range(2):
        getattr(torch.ops._C, name)(*make_args(name, has_scale_ub=False))
    assert native.calls == [name, name]
    reason = (
        "pack 'kernelpkg' cannot be loaded: nowhere: KP510 does not exist; "
        "KERNELPKG_CONFIGS takes directories that hold <kernel>/<platform>.json"
    )
    (told,) = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert told.splitlines()[1:] == [reason]
    assert plugin.report()[0].reason == reason


@pytest.mark.usefixtures("alone")
def test_one_name_and_all(native):
    """Routes are a name, several, or "all"."""
    assert len(plugin.install("all", root=ROOT, device_keys=("CPU",))) == 6
    assert len(plugin.install("fused_qk_norm_rope", root=str(ROOT), device_keys=("CPU",))) == 1
    assert [report.target for report in plugin.report()] == NATIVE
    assert {report.status for report in plugin.report()} == {"routed"}


@pytest.mark.usefixtures("alone")
def test_errors_from_python(demo):
    """What is asked for and cannot be is an error, and nothing has changed."""
    with pytest.raises(UsageError, match=r"^pack 'demo' has no routes, so nothing is routed$"):
        plugin.install("all", root=demo.root)
    demo.edit("manifests/demo.toml", "edition = 1", "edition = 9")
    with pytest.raises(PackError, match="KP002"):
        plugin.install("all", root=demo.root)
    with pytest.raises(UsageError, match=r"^native op '_C::never' is not routed here$"):
        plugin.revoke("never")
    with pytest.raises(UsageError, match=r"^native op '_C::never' is not there; import what"):
        plugin.original("never")
    assert plugin.report() == ()


@pytest.mark.usefixtures("alone")
def test_nothing_installed():
    assert (plugin.report(), plugin.report_text(), plugin.revoke()) == ((), "no routes", ())


@pytest.mark.usefixtures("alone")
def test_a_plugin_that_cannot_even_start(monkeypatch, caplog):
    """A PyTorch that lacks what routes need, say: one warning, and vLLM goes on."""
    monkeypatch.setenv("KERNELPKG_VLLM_ROUTES", "all")
    monkeypatch.setitem(sys.modules, "kernelpkg.vllm.routes", None)
    for _ in range(20):
        plugin.register()
    assert [(record.name, record.levelname) for record in caplog.records] == [
        ("vllm.kernelpkg", "WARNING")
    ]
    assert caplog.messages[0].startswith("no native op of vLLM is routed: ModuleNotFoundError: ")
