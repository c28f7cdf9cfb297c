"""Every config file that vLLM 0.33.0 ships: into the store, used there, and back as it was."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kernelpkg import cli
from kernelpkg.configs import platforms
from kernelpkg.configs.selection import read_selection
from kernelpkg.manifest.spec import PackSpec
from kernelpkg.packs.read import read_kernel, read_pack
from kernelpkg.vllm.exchange import plan_export, plan_import
from kernelpkg.vllm.vendor.vendor import plan_vendoring

pytestmark = pytest.mark.vllm

ROOT = Path(__file__).parents[3]
FOLDER = Path("vllm", "kernels", "helion", "configs")

# Four configs of it have been edited by hand: their last fields are not in Helion's order, which
# is the one that the store gives back.
EDITED = Path("fused_qk_norm_rope", "nvidia_h100.json")

AGAIN = """\
import sys
from pathlib import Path

from vllm.kernels.helion.config_manager import ConfigManager


def manager(folder):
    ConfigManager.reset_instance()  # it is one for a process
    return ConfigManager(folder)


ours, theirs, again = sys.argv[1:]
for kernel in sorted(path.name for path in Path(theirs).iterdir()):
    shipped = manager(theirs).load_config_set(kernel)
    assert manager(ours).load_config_set(kernel).to_config_entries() == shipped.to_config_entries()
    manager(again).save_config_set(shipped)
"""
"""Reads our files as vLLM does, holds them against its own, and writes its own again."""


def shipped(folder: Path) -> dict[Path, bytes]:
    """Return the config files of a folder by their paths in it."""
    return {p.relative_to(folder): p.read_bytes() for p in sorted(folder.glob("*/*.json"))}


def bare_pack(directory: Path) -> PackSpec:
    """Return a copy of the first pack that has no configs."""
    for name in ("manifests", "kernels"):
        shutil.copytree(ROOT / name, directory / name)
    return read_pack(directory, "kernelpkg")


@pytest.fixture(scope="module")
def imported(vllm_wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> PackSpec:
    """A copy of the first pack with vLLM's configs in the place of its own."""
    pack = bare_pack(tmp_path_factory.mktemp("imported"))
    plan_import(pack, vllm_wheel).carry_out()
    return pack


@pytest.fixture(scope="module")
def exported(imported: PackSpec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the pack with vLLM's configs exports."""
    folder = tmp_path_factory.mktemp("exported")
    plan_export(imported, folder).carry_out()
    return folder


def test_all_files_are_imported(vllm_wheel, imported):
    """Fourteen files of seven kernels, none of which is left out.

    An entry is a case for each that is tuned of the axes that its key lacks.
    """
    transfer = plan_import(imported, vllm_wheel)
    assert [step.action for step in transfer.files] == ["unchanged"] * 14
    assert transfer.skipped == []
    assert sum(step.cases for step in transfer.files) == 2731
    for step in transfer.files:
        made = json.loads(step.path.read_text())["tuned_with"]
        assert made["origin"] == "vLLM 0.33.0"
        assert made.keys() == {"origin", "filled"}


def test_all_files_come_back_as_they_were(vllm_wheel, exported):
    """Entries, order, names and values are the same; so are bytes, but for ends of lines."""
    theirs, ours = shipped(vllm_wheel / FOLDER), shipped(exported)
    assert ours.keys() == theirs.keys()
    assert len(ours) == 14
    for path, content in theirs.items():
        assert json.loads(ours[path]) == json.loads(content)
        assert [*map(list, keys_of(ours[path]))] == [*map(list, keys_of(content))]
    same = {path for path in theirs if ours[path] == theirs[path].rstrip(b"\n") + b"\n"}
    assert theirs.keys() - same == {EDITED}


def keys_of(content: bytes) -> list[dict[str, Any]]:
    return [entry["key"] for entry in json.loads(content)]


def test_vllm_reads_the_files_as_its_own_and_would_write_the_same_bytes(
    vllm_wheel, exported, tmp_path
):
    """vLLM's own config manager loads equal configs, and saves the bytes that we export."""
    done = subprocess.run(
        [sys.executable, "-c", AGAIN, exported, vllm_wheel / FOLDER, tmp_path],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(vllm_wheel), str(ROOT)])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert shipped(tmp_path) == shipped(exported)


def test_an_export_to_where_they_came_from_changes_nothing(vllm_tree, vllm_wheel, imported):
    transfer = plan_export(imported, vllm_tree)
    assert {step.action for step in transfer.files} == {"unchanged"}
    transfer.carry_out()
    assert shipped(vllm_tree / FOLDER) == shipped(vllm_wheel / FOLDER)


def test_every_key_gets_its_own_config(vllm_wheel, imported):
    """A call with the values of a shipped key runs with vLLM's config for it, by our rules.

    Also one without a bound of the scale, as vLLM's fusion passes make them: its configs were tuned
    with one.
    """
    count = 0
    for path, content in shipped(vllm_wheel / FOLDER).items():
        spec = read_kernel(Path(imported.root), path.parent.name)
        names = imported.vllm_axes.get(spec.name, {})
        selection = read_selection(imported, spec, platforms.resolve(path.stem))
        for entry in json.loads(content):
            key = {names.get(name, name): value for name, value in entry["key"].items()}
            for bound in {spec.defaults.get("has_scale_ub"), False}:
                values = {**spec.defaults, "has_scale_ub": bound, **key}
                options = list(selection.options([values.get(axis.name) for axis in spec.axes]))
                if key:
                    assert options[0].config == entry["config"], (path, key)
                    assert (options[0].outcome, options[0].platform) == ("exact", path.stem)
                else:
                    assert entry["config"] in [option.config for option in options]
            count += 1
    assert count == 1270


def test_explain_tells_what_was_imported(imported, capsys):
    """The command line answers for a platform that only vLLM has tuned."""
    call = ["silu_mul_fp8", "intermediate_size=4096", "num_tokens=100"]
    where = ["--platform", "nvidia_h100", "--root", imported.root]
    assert cli.main(["explain", *call, *where, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["tuned_on"] == "nvidia_h100"
    assert document["key"] == {
        "in_dtype": "bfloat16",
        "intermediate_size": 4096,
        "num_tokens": 104,
    }


def test_configs_of_the_pack_are_not_exported_to_ops_of_vllms(vllm_tree, vllm_wheel, capsys):
    """Their keys name more axes than vLLM's pickers read, which would find none of the cases."""
    arguments = ["export", "vllm", str(vllm_tree), "--root", str(ROOT), "--replace"]
    assert cli.main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "those of nvidia_b200.json there hidden_size, num_tokens, which the op's picker" in err
    assert shipped(vllm_tree / FOLDER) == shipped(vllm_wheel / FOLDER)


def test_vendored_configs_come_back_into_the_store(vllm_tree, tmp_path):
    """What `vendor` writes imports as what the store has, and gives the same tree again."""
    pack = read_pack(ROOT, "kernelpkg")
    plan_vendoring(pack, vllm_tree).carry_out(replace=True)
    transfer = plan_import(pack, vllm_tree)
    assert {step.action for step in transfer.files} == {"unchanged"}
    assert len(transfer.files) == len(pack.kernels)

    bare = bare_pack(tmp_path / "bare")
    plan_import(bare, vllm_tree).carry_out()
    for name in pack.kernels:
        spec = read_kernel(ROOT, name)
        here = platforms.resolve("nvidia_h200")
        ours, theirs = (read_selection(p, spec, here).own() for p in (pack, bare))
        assert ours is not None
        assert theirs is not None
        rows = [
            {repr(case.key): file.configs[case.config] for case in file.cases if case.key}
            for file in (ours.file.content(), theirs.file.content())
        ]
        assert rows[0] == rows[1]
    before = shipped(vllm_tree / FOLDER)
    plan_vendoring(bare, vllm_tree).carry_out(replace=True)
    assert shipped(vllm_tree / FOLDER) == before
