"""Packs that must be as they were locked: what is not does not load, and the rest does."""

from __future__ import annotations

import json
import sys

import pytest
from attrs import evolve
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import kernelpkg
from kernelpkg import cli
from kernelpkg.bench.reference import smoke_check
from kernelpkg.files import digest_bytes
from kernelpkg.packs.drift import take_inventory
from kernelpkg.packs.lock import FILE, Lock, LockedPack, toolchain, write_lock
from kernelpkg.packs.read import read_pack
from kernelpkg.vllm.routes import load_pack, read_manifest


def lock(demo) -> LockedPack:
    """Lock a pack, as `lock --no-fingerprints` does."""
    found = take_inventory(read_pack(demo.root, "demo"), toolchain()).pack
    write_lock(demo.root, Lock(packs={"demo": found}))
    return found


@pytest.fixture
def locked(demo):
    """The pack "demo" with two kernels, one of which has all optional parts, locked."""
    demo.kernel("second")
    demo.edit(
        "kernels/second/kernel.toml", 'fake_impl = "infer"', 'fake_impl = "fakes/fake.py:fake"'
    )
    demo.edit(
        "kernels/second/kernel.toml", '"Twice the input."', '"Twice."\npicker = "host.py:pick"'
    )
    fake = demo.root / "kernels/second/fakes/fake.py"
    fake.parent.mkdir()
    fake.write_text("import torch\n\n\ndef fake(input):\n    return torch.empty_like(input)\n")
    host = demo.root / "kernels/second/host.py"
    host.write_text(host.read_text() + "\n\ndef pick(args, keys):\n    return None\n")
    for platform in ("nvidia_h200", "nvidia_b200"):
        text = (CONFIGS % ("second", platform)).encode()
        path = demo.root / f"configs/second/{platform}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text)
    lock(demo)
    return demo


CONFIGS = """\
{
  "edition": 1,
  "kernel": "%s",
  "platform": "%s",
  "tuned_with": {},
  "configs": [{"block_sizes": [16], "num_warps": 4}],
  "cases": [{"key": {"num_tokens": 1}, "config": 0}, {"key": {"num_tokens": 4}, "config": 0}]
}
"""


def load(demo, **given):
    return kernelpkg.load(root=demo.root, device="cpu", environment={}, **given)


def refused(demo, **given):
    """Return why a pack cannot be loaded at all."""
    with pytest.raises(kernelpkg.PackError) as caught:
        load(demo, **given)
    return caught.value.problems


def states(report) -> dict[str, tuple[str, str | None]]:
    return {kernel.name: (kernel.status, kernel.lock) for kernel in report.kernels}


BOTH = {"second": ("registered", "locked"), "twice": ("registered", "locked")}


def test_a_pack_that_is_as_it_was_locked_loads(locked):
    report = load(locked, locked=True)
    assert report.ok, report.problems
    assert states(report) == BOTH
    assert states(load(locked)) == BOTH


def flipped(content: bytes, place: int, bit: int) -> bytes:
    place %= len(content)
    return content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :]


FILES = {
    "manifests/demo.toml": None,
    "kernels/twice/kernel.toml": "twice",
    "kernels/twice/kernel.py": "twice",
    "kernels/twice/host.py": "twice",
    "kernels/second/kernel.toml": "second",
    "kernels/second/kernel.py": "second",
    "kernels/second/host.py": "second",
    "kernels/second/fakes/fake.py": "second",
    "configs/second/nvidia_h200.json": "second",
    "configs/second/nvidia_b200.json": "second",
}


@settings(
    max_examples=80,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(file=st.sampled_from(sorted(FILES)), place=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_any_flipped_bit_is_named_and_that_kernel_alone_does_not_load(locked, file, place, bit):
    path = locked.root / file
    before = path.read_bytes()
    modules = set(sys.modules)
    path.write_bytes(flipped(before, place, bit))
    try:
        failed = FILES[file]
        if failed:
            report = load(locked, locked=True)
            found = report.problems
            good = {name: BOTH[name] for name in BOTH if name != failed}
            assert states(report) == good | {failed: ("failed", None)}
            kernelpkg.unload("demo::twice")
        else:
            found = refused(locked, locked=True)
        assert [(problem.path, problem.code) for problem in found] == [(file, "KP304")]
        ran = [name for name in set(sys.modules) - modules if name.startswith("_kernelpkg_kernels")]
        assert not [name for name in ran if failed and f"_{failed}_" in name]
    finally:
        path.write_bytes(before)


@settings(
    max_examples=40,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(place=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_any_flipped_bit_of_the_lock_keeps_the_pack_from_loading(locked, place, bit):
    path = locked.root / FILE
    before = path.read_bytes()
    path.write_bytes(flipped(before, place, bit))
    try:
        assert {problem.path for problem in refused(locked, locked=True)} == {FILE}
    finally:
        path.write_bytes(before)


def test_nothing_of_a_source_that_was_changed_is_run(locked):
    locked.edit("kernels/twice/host.py", "import torch", "import torch\n\nraise SystemExit('ran')")
    (problem,) = load(locked, locked=True).problems
    assert (problem.path, problem.code) == ("kernels/twice/host.py", "KP304")


def without_host(demo) -> None:
    """Write a lock that knows nothing of the file that only tests of a kernel need."""
    found = take_inventory(read_pack(demo.root, "demo"), toolchain()).pack
    kernel = found.kernels["twice"]
    files = {name: digest for name, digest in kernel.files.items() if name != "host.py"}
    kernels = {**found.kernels, "twice": evolve(kernel, files=files)}
    write_lock(demo.root, Lock(packs={"demo": evolve(found, kernels=kernels)}))


def test_a_smoke_check_runs_nothing_that_was_not_locked(locked):
    """Without it, what only tests need is not run at all."""
    without_host(locked)
    locked.edit("kernels/twice/host.py", "import torch", "import torch\n\nraise SystemExit('ran')")
    assert states(load(locked, locked=True)) == BOTH
    kernelpkg.unload("demo::twice")
    (problem,) = load(locked, locked=True, smoke=True).problems
    assert (problem.path, problem.code) == ("kernels/twice/host.py", "KP306")


def test_a_smoke_check_runs_what_was_verified(locked, monkeypatch):
    """An edit after that is not seen."""
    host = locked.root / "kernels/twice/host.py"

    def edited(spec, *args, **options):
        host.write_text("raise SystemExit('ran')")
        return smoke_check(spec, *args, **options)

    monkeypatch.setattr("kernelpkg.runtime.load.smoke_check", edited)
    report = load(locked, locked=True, smoke=True)
    assert {kernel.name: kernel.check for kernel in report.kernels} == {
        "second": "ok",
        "twice": "ok",
    }


def test_by_path_a_changed_kernel_loads_and_its_row_says_modified(locked):
    locked.edit("kernels/twice/host.py", "* 2", "* 2.0")
    report = load(locked)
    assert report.ok
    assert states(report) == BOTH | {"twice": ("registered", "modified")}


@pytest.mark.parametrize("file", ["manifests/demo.toml", "configs/second/nvidia_b200.json"])
def test_by_path_other_changes_are_modifications_too(locked, file):
    (locked.root / file).write_text((locked.root / file).read_text() + "\n")
    modified = {"second": ("registered", "modified")}
    twice = ("registered", "modified" if "manifests" in file else "locked")
    assert states(load(locked)) == modified | {"twice": twice}


def test_a_pack_without_a_lock_is_unlocked(demo):
    assert states(load(demo)) == {"twice": ("registered", "unlocked")}


def test_a_lock_that_is_demanded_and_not_there_is_one_error(demo, capsys):
    assert cli.main(["load", "--locked", "--root", str(demo.root), "--device", "cpu"]) == 1
    assert capsys.readouterr() == (
        "",
        (
            "kernelpkg.lock: KP303 is not there, and the pack must be locked; run "
            "'kernelpkg lock --pack demo' where it is made\n"
        ),
    )


def test_strict_raises_for_what_is_not_as_it_was_locked(locked):
    locked.edit("kernels/twice/host.py", "* 2", "* 2.0")
    with pytest.raises(kernelpkg.PackError, match="KP304"):
        load(locked, locked=True, strict=True)


def test_configs_that_came_in_keep_a_locked_kernel_from_loading(locked):
    locked.configs("twice")
    report = load(locked, locked=True)
    assert [(p.path, p.code) for p in report.problems] == [
        ("configs/twice/nvidia_h200.json", "KP306")
    ]
    assert states(report) == BOTH | {"twice": ("failed", None)}


@pytest.mark.parametrize("gone", ["kernel", "configs"])
def test_what_is_gone_is_named(locked, gone):
    place = {"kernel": "kernels/second/kernel.toml", "configs": "configs/second/nvidia_b200.json"}
    (locked.root / place[gone]).unlink()
    report = load(locked, locked=True)
    assert [(p.path, p.code) for p in report.problems] == [(place[gone], "KP305")]
    assert states(report) == BOTH | {"second": ("failed", None)}


def test_an_op_that_was_loaded_stays_where_its_files_were_changed_since(locked):
    load(locked, locked=True)
    locked.edit("kernels/twice/host.py", "* 2", "* 2.0")
    (row,) = [kernel for kernel in load(locked, locked=True).kernels if kernel.name == "twice"]
    assert row.status == "failed"
    assert row.reason.endswith("; the op as it was loaded before stays")
    assert kernelpkg.get_kernel_by_name("demo::twice") is not None


def test_configs_of_an_operator_do_not_break_a_lock(locked, tmp_path):
    path = tmp_path / "mine/second/nvidia_h200.json"
    path.parent.mkdir(parents=True)
    path.write_text((CONFIGS % ("second", "nvidia_h200")).replace("4}]", "8}]"))
    report = load(locked, locked=True, configs=[tmp_path / "mine"])
    assert report.ok, report.problems
    assert states(report) == BOTH | {"second": ("registered", "overlaid")}


def test_the_packs_own_configs_are_verified_where_an_operator_names_them_too(locked):
    path = "configs/second/nvidia_h200.json"
    assert states(load(locked, locked=True, configs=[locked.root / "configs"])) == BOTH
    locked.edit(path, '"num_warps": 4', '"num_warps": 8')
    report = load(locked, locked=True, configs=[locked.root / "configs"])
    assert [(p.path, p.code) for p in report.problems] == [(path, "KP304")]
    assert states(report) == BOTH | {"second": ("failed", None)}


def test_a_disabled_kernel_is_not_verified(locked):
    locked.edit("kernels/twice/host.py", "* 2", "* 2.0")
    environment = {"KERNELPKG_DISABLE": "twice"}
    report = kernelpkg.load(root=locked.root, device="cpu", locked=True, environment=environment)
    assert report.ok
    assert states(report) == BOTH | {"twice": ("disabled", None)}


REFUSED = "KP142 case num_tokens=4: guard 'num_tokens < 4' refuses it"
STRANGE = "KP502 config 0: field 'stages' is not known"


@pytest.fixture
def forged(demo):
    """A pack that no `lock` would take: its grid and a config are wrong, and its digests agree.

    So whoever says nothing of it has not checked what the lock vouches for.
    """
    demo.configs("twice")
    pack, grid, configs = lock(demo), "kernels/twice/kernel.toml", "configs/twice/nvidia_h200.json"
    demo.edit(grid, "[[key]]", '[guard]\nwhen = ["num_tokens < 4"]\n[[key]]')
    demo.edit(configs, '"num_warps"', '"stages"')
    kernel, tuned = pack.kernels["twice"], pack.kernels["twice"].configs["nvidia_h200"]
    found, file = (digest_bytes((demo.root / path).read_bytes()) for path in (grid, configs))
    kernel = evolve(
        kernel,
        files={**kernel.files, "kernel.toml": found},
        configs={"nvidia_h200": evolve(tuned, file=file)},
    )
    pack = evolve(pack, kernels={"twice": kernel})
    write_lock(demo.root, Lock(packs={"demo": pack}))
    return demo, pack


@pytest.mark.parametrize("required", [True, False])
def test_what_a_lock_vouches_for_is_not_checked_again(forged, required):
    """Whether the pack must be locked, or merely is."""
    demo, _ = forged
    report = load(demo, locked=required)
    assert report.ok, report.problems
    assert states(report) == {"twice": ("registered", "locked")}


@pytest.mark.parametrize("required", [True, False])
def test_a_lock_by_another_kernelpkg_vouches_for_nothing(forged, required):
    """Another version may check more, or other things; the digests are verified as ever."""
    demo, pack = forged
    tools = {**pack.tools, "kernelpkg": "0.0.1"}
    write_lock(demo.root, Lock(packs={"demo": evolve(pack, tools=tools)}))
    found = load(demo, locked=required)
    (demo.root / FILE).unlink()
    assert found.problems == load(demo).problems
    assert REFUSED in str(found.problems[0])


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        pytest.param("kernels/twice/kernel.toml", "[1, 4]", "[1, 4, 8]", id="grid"),
        pytest.param("kernels/twice/host.py", "* 2", "* 2.0", id="source"),
        pytest.param("configs/twice/nvidia_h200.json", '"config": 0}]', '"config": 1}]', id="case"),
        pytest.param("manifests/demo.toml", "0.1.0", "0.1.1", id="pack"),
        pytest.param(FILE, "version = 1", "version = 2", id="lock"),
    ],
)
def test_a_pack_that_was_edited_since_is_checked_again(forged, file, old, new):
    """One other byte of the kernel, its pack or the lock, and all problems are told again."""
    demo, _ = forged
    demo.edit(file, old, new)
    assert REFUSED in str(load(demo).problems[0])


def test_an_edited_grid_of_a_locked_pack_is_checked(locked):
    """An author who edits and loads is told the same as without a lock."""
    locked.edit(
        "kernels/twice/kernel.toml", "[[key]]", '[guard]\nwhen = ["num_tokens < 4"]\n[[key]]'
    )
    report = load(locked)
    assert [str(problem) for problem in report.problems] == [
        f"kernels/twice/kernel.toml:19: {REFUSED}; change the case or the guard"
    ]
    assert states(report) == BOTH | {"twice": ("failed", None)}


def test_a_file_that_only_tests_need_is_not_run_for_a_kernel_that_a_lock_vouches_for(demo):
    """A server calls no reference; a smoke check does, and says what is wrong with it."""
    demo.edit("kernels/twice/host.py", "import torch\n", "import torch\n\n1 / 0\n")
    wrong = "kernels/twice/host.py:3: KP114 fails to import: ZeroDivisionError: division by zero"
    assert list(map(str, load(demo).problems)) == [wrong]
    lock(demo)
    assert states(load(demo, locked=True)) == {"twice": ("registered", "locked")}
    assert [kernel.check for kernel in load(demo, locked=True, smoke=True).kernels] == [wrong]


def test_configs_of_an_operator_are_checked_beside_a_locked_kernel(forged, tmp_path):
    """No lock vouches for them."""
    demo, _ = forged
    path = tmp_path / "mine/twice/nvidia_h200.json"
    path.parent.mkdir(parents=True)
    own = demo.root / "configs/twice/nvidia_h200.json"
    path.write_text(own.read_text().replace("16", "32"))
    (row,) = load(demo, locked=True, configs=[tmp_path / "mine"]).kernels
    assert [STRANGE in str(problem) for problem in row.problems] == [True]


@pytest.mark.parametrize(
    "command",
    [
        "check",
        "lock",
        "lock --check",
        "list",
        "vendor --dry-run --into .",
        "autotune twice --dry-run",
    ],
)
def test_commands_of_an_author_check_what_a_lock_vouches_for(forged, capsys, command):
    """Only `load` takes the word of a lock."""
    demo, _ = forged
    assert cli.main([*command.split(), "--root", str(demo.root)]) == 1
    assert REFUSED in "".join(capsys.readouterr())


@pytest.fixture
def installed(locked, tmp_path, monkeypatch):
    """The locked pack in an installed package, found by its entry point alone."""
    info = tmp_path / "demo_pack-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: demo-pack\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[kernelpkg.packs]\ndemo = demo\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return locked


def by_name():
    return kernelpkg.load("demo", device="cpu", environment={})


def test_an_installed_pack_is_verified(installed):
    assert states(by_name()) == BOTH
    installed.edit("kernels/twice/host.py", "* 2", "* 2.0")
    report = by_name()
    assert [(p.path, p.code) for p in report.problems] == [("kernels/twice/host.py", "KP304")]
    assert states(report) == BOTH | {"twice": ("failed", None)}


def test_an_installed_pack_that_came_without_a_lock_loads(installed):
    (installed.root / FILE).unlink()
    assert set(states(by_name()).values()) == {("registered", "unlocked")}


def test_an_installed_pack_with_a_broken_lock_does_not_load(installed):
    installed.edit(FILE, "version = 1", "version = 2")
    with pytest.raises(kernelpkg.PackError, match="KP301"):
        by_name()


def test_the_plugin_verifies_an_installed_pack(installed):
    """vLLM's processes load the pack at the first call of a route, knowing where it came from."""
    spec = read_manifest("demo", None, {})
    assert load_pack(spec, {}) == {}
    installed.edit("kernels/twice/host.py", "* 2", "* 2.0")
    kernelpkg.unload("demo::twice")
    (reason,) = load_pack(spec, {}).values()
    assert reason.startswith("kernels/twice/host.py: KP304 differs from the lock: sha256-")


def test_vllms_log_has_what_a_load_notes(demo, caplog):
    """As of a build that is not where it is said to be: a server would compile without a word."""
    spec = read_pack(demo.root, "demo")
    with caplog.at_level("WARNING", logger="vllm.kernelpkg"):
        assert load_pack(spec, {"KERNELPKG_DISABLE": "no_such_op"}) == {}
    (record,) = caplog.records
    assert "no_such_op" in record.getMessage()


def test_the_document_has_the_lock_of_each_kernel(locked, capsys):
    assert cli.main(["load", "--root", str(locked.root), "--device", "cpu", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [kernel["lock"] for kernel in document["kernels"]] == ["locked", "locked"]
