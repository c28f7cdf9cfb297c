"""The entry point, found and called by vLLM's own loader of plugins."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PLUGIN = ["kernelpkg", "kernelpkg.plugin", "kernelpkg.vllm", "kernelpkg.vllm.plugin"]

CODE = """\
import json, os, sys
import vllm
vllm.__path__.append(sys.argv[1])
from vllm.logger import _configure_vllm_root_logger
from vllm.plugins import load_general_plugins
_configure_vllm_root_logger()
before = set(sys.modules)
load_general_plugins()
loaded = sorted(name for name in set(sys.modules) - before if name.startswith("kernelpkg"))
from kernelpkg import plugin
statuses = [report.status for report in plugin.report()]
found = {"loaded": loaded, "statuses": statuses, "helion": "helion" in sys.modules}
found["graphs"] = vllm.envs.environment_variables.get("KERNELPKG_OPS", lambda: None)()
print(json.dumps(found))
"""

EXTENSION = """\
import os, runpy
stand_ins = runpy.run_path(os.environ["STAND_INS"])
ops = stand_ins["NativeOps"](lambda name: stand_ins["nothing"], key="CUDA")
"""


@pytest.fixture
def site(site: Path, tmp_path: Path) -> Path:
    """What pip writes of kernelpkg and of vLLM beside their files, and stand-ins for its ops."""
    info = site / "vllm-0.33.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 0.33.0\n")
    (tmp_path / "compiled").mkdir()
    (tmp_path / "compiled" / "_C_stable_libtorch.py").write_text(EXTENSION)
    return site


@pytest.mark.vllm
@pytest.mark.parametrize(
    ("routes", "plugins"),
    [
        pytest.param("all", None, id="all routes"),
        pytest.param("all", "another", id="another plugin alone"),
        pytest.param(None, "kernelpkg", id="no routes"),
    ],
)
def test_vllm_loads_it(vllm_wheel, site, routes, plugins):
    """It is loaded unless VLLM_PLUGINS leaves it out; routes bring the ops that they are to."""
    kept = {n: v for n, v in os.environ.items() if not n.startswith(("KERNELPKG", "VLLM_PLUGINS"))}
    paths = [str(site), str(vllm_wheel), str(ROOT), os.environ.get("PYTHONPATH", "")]
    environment = {
        **kept,
        "PYTHONPATH": os.pathsep.join(paths),
        "STAND_INS": str(ROOT / "benchmarks" / "native_ops.py"),
    }
    if routes is not None:
        environment["KERNELPKG_VLLM_ROUTES"] = routes
    if plugins is not None:
        environment["VLLM_PLUGINS"] = plugins
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(site.parent / "compiled")],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = next(json.loads(line) for line in done.stdout.splitlines() if line[0] == "{")
    used = plugins != "another"
    assert not found["helion"]
    assert found["graphs"] == ("" if used else None)
    assert found["statuses"] == (["routed"] * 6 if used and routes else [])
    if not (used and routes):
        assert found["loaded"] == (PLUGIN if used else [])
        return
    told = [line for line in done.stdout.splitlines() if "native ops of vLLM" in line]
    assert all(" INFO " in line for line in told)
    assert "native ops of vLLM: routed _C::dynamic_per_token_scaled_fp8_quant, " in told[0]
    assert "who answered the native ops of vLLM:" in told[1]
    assert len(told) == 2
