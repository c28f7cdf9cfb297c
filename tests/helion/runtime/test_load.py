"""The loader: two phases, every problem of every kernel in one run, and loads that repeat."""

# ruff: noqa: E501  # tables of cases and messages have whole lines

from __future__ import annotations

import inspect
import json
import os
import shutil
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import pytest
import torch
from attrs import evolve

import kernelpkg
from kernelpkg import cli
from kernelpkg.compile import helion
from kernelpkg.errors import LoadWarning, NotInterpreted, PackError, UsageError
from kernelpkg.packs.read import kernel_names

REMEDY = "correct the kernel, its reference or what the manifest says of them"


def load(pack, **options):
    return kernelpkg.load(root=pack.root, device="cpu", environment={}, **options)


def said(report):
    return [str(problem) for problem in report.problems]


def refused(pack, **options):
    """Load a pack that cannot be loaded at all; returns why."""
    with pytest.raises(PackError) as caught:
        load(pack, **options)
    return str(caught.value).splitlines()


def registered(report):
    return [kernel.name for kernel in report.kernels if kernel.status == "registered"]


def test_a_pack_loads_and_its_op_runs(demo):
    report = load(demo, smoke=True)
    assert report.ok
    assert [kernel.check for kernel in report.kernels] == ["ok"]
    assert torch.ops.demo.twice(torch.ones(3)).tolist() == [2.0, 2.0, 2.0]


def test_the_json_document_has_the_keys_of_the_design_and_no_more(demo):
    document = load(demo, smoke=True).to_json()
    assert json.loads(json.dumps(document)) == document
    assert document["kernels"][0].pop("check") == "ok"
    seconds = document.pop("seconds")
    assert isinstance(seconds, float)
    assert document == {
        "pack": "demo",
        "device": "cpu",
        "platform": "cpu",
        "kernels": [
            {
                "name": "twice",
                "op": "demo::twice",
                "status": "registered",
                "mode": "interpret",
                "platform": "cpu",
                "cases": 0,
                "configs": 0,
                "file": None,
                "lock": "unlocked",
                "reason": "no GPU",
            }
        ],
    }


def test_cases_and_configs_of_the_platform_are_counted(demo):
    demo.configs("twice")
    demo.edit("configs/twice/nvidia_h200.json", '"nvidia_h200"', '"cpu"')
    (demo.root / "configs/twice/nvidia_h200.json").rename(demo.root / "configs/twice/cpu.json")
    (kernel,) = load(demo).kernels
    assert (kernel.cases, kernel.configs) == (2, 1)


# What is broken, and what is said of it. Each time "twice" must load all the same.
BROKEN = {
    "toml-does-not-parse": (("kernel.toml", "edition = 1", "edition = 1\nedition = 1"),
        ["kernels/bad/kernel.toml:2: KP003 does not parse as TOML: a key or table is given twice, keep one of them (Cannot overwrite a value)"]),
    "edition-from-the-future": (("kernel.toml", "edition = 1", "edition = 2"),
        ["kernels/bad/kernel.toml:1: KP002 edition 2 is newer than this version of kernelpkg reads (1); upgrade kernelpkg"]),
    "kernel-raises-at-import": (
        ("kernel.py", "import torch\n", "import torch\nraise ValueError('no\\nluck')\n"),
        ["kernels/bad/kernel.py:3: KP114 fails to import: ValueError: no luck"]),
    "kernel-imports-what-is-not-there": (
        ("kernel.py", "import torch\n", "import torch\nfrom torch import nosuch\n"),
        [f"kernels/bad/kernel.py:3: KP114 fails to import: ImportError: cannot import name 'nosuch' from 'torch' ({torch.__file__})"]),
    "kernel-does-not-parse": (("kernel.py", "import torch\n", "import torch\ndef (\n"),
        ["kernels/bad/kernel.py:3: KP114 does not parse: invalid syntax"]),
    "kernel-ends-the-program": (("kernel.py", "import torch\n", "import sys\n\nimport torch\n\nsys.exit(0)\n"),
        ["kernels/bad/kernel.py:6: KP114 fails to import: SystemExit: 0"]),
    "kernel-function-is-gone-after-the-import": (
        ("kernel.py", "    return out\n", "    return out\n\n\ndel bad\n"),
        ["kernels/bad/kernel.py: KP112 has no function 'bad' once it has run"]),
    "reference-raises-at-import": (("host.py", "import torch\n", "import torch\n\n1 / 0\n"),
        ["kernels/bad/host.py:3: KP114 fails to import: ZeroDivisionError: division by zero"]),
    "helion-is-too-old": (("kernel.toml", '">=1.4"', '">=99"'),
        [f"kernels/bad/kernel.toml:10: KP151 requires Helion >=99, and {helion.HELION_VERSION} is installed"]),
    "helion-version-is-no-specifier": (("kernel.toml", '">=1.4"', '"1.4"'),
        ["kernels/bad/kernel.toml:10: KP151 requires '1.4' is not a version specifier such as '>=1.4'"]),
    "helion-setting-is-unknown": (("kernel.toml", '">=1.4"', '">=1.4"\nsettings = { autotune_efort = "none" }'),
        [f"kernels/bad/kernel.toml:11: KP153 kernel 'bad': Helion {helion.HELION_VERSION} has no setting 'autotune_efort'; did you mean 'autotune_effort'?"]),
    "fake-implementation-cannot-be-inferred": (
        ("kernel.py", "    return out", "    return hl.zeros([8])"),
        ["kernels/bad/kernel.toml:8: KP153 kernel 'bad': its results depend on hl.zeros, so its fake implementation cannot be inferred; give one"]),
}  # fmt: skip


@pytest.mark.parametrize(("edit", "lines"), BROKEN.values(), ids=BROKEN)
def test_a_broken_kernel_is_reported_and_the_rest_loads(demo, edit, lines):
    demo.kernel("bad")
    file, old, new = edit
    demo.edit(f"kernels/bad/{file}", old, new)
    report = load(demo)
    assert said(report) == lines
    assert registered(report) == ["twice"]
    assert report.kernels[0].reason == lines[0]
    assert torch.ops.demo.twice(torch.ones(1)).item() == 2.0
    assert not hasattr(torch.ops.demo, "bad")


CONFIGS = {
    "another-kernel": (('"kernel": "bad"', '"kernel": "good"'),
        "configs/bad/cpu.json:3: KP505 the file is of kernel 'good', but stands in the place of 'bad'"),
    "case-twice": (('{"num_tokens": 4}', '{"num_tokens": 1}'),
        "configs/bad/cpu.json:7: KP504 case 1, key: is the key of case 0 too; keep one of them"),
    "unknown-field": (('"num_warps"', '"num_warp"'),
        "configs/bad/cpu.json:6: KP502 config 0: field 'num_warp' is not known; did you mean 'num_warps'?"),
}  # fmt: skip


@pytest.mark.parametrize(("edit", "line"), CONFIGS.values(), ids=CONFIGS)
def test_a_broken_config_file_is_reported_and_the_rest_loads(demo, edit, line):
    demo.kernel("bad")
    demo.configs("bad", platform="cpu")
    demo.edit("configs/bad/cpu.json", '"nvidia_h200"', '"cpu"')
    demo.edit("configs/bad/cpu.json", *edit)
    report = load(demo)
    assert said(report) == [line]
    assert registered(report) == ["twice"]


def test_a_truncated_config_file_is_reported_and_the_rest_loads(demo):
    demo.kernel("bad")
    demo.configs("bad", platform="cpu")
    path = demo.root / "configs/bad/cpu.json"
    path.write_text(path.read_text()[:60])
    report = load(demo)
    (line,) = said(report)
    assert line == (
        "configs/bad/cpu.json:4: KP501 the file ends in the middle of its JSON "
        "(Unterminated string starting at); restore it or tune again"
    )
    assert registered(report) == ["twice"]


def test_all_problems_of_a_kernel_and_of_its_configs_come_in_one_run(demo):
    demo.kernel("bad")
    demo.edit(
        "kernels/bad/kernel.toml", '">=1.4"', '">=99"\nsettings = { autotune_efort = "none" }'
    )
    demo.edit("kernels/bad/host.py", "import torch\n", "import torch\n\n1 / 0\n")
    demo.configs("bad", "{", platform="cpu")
    report = load(demo)
    assert [line.split(" ")[1] for line in said(report)] == ["KP501", "KP114", "KP151", "KP153"]
    assert report.kernels[0].reason == f"{said(report)[0]} (and 3 more)"


def test_what_nobody_foresaw_fails_one_kernel_only(demo, monkeypatch):
    demo.kernel("bad")

    def broken(spec):
        if spec.name == "bad":
            raise RuntimeError("out of luck")

    monkeypatch.setattr("kernelpkg.runtime.prepare._check_requires", broken)
    report = load(demo)
    assert said(report) == [
        "kernels/bad/kernel.toml: KP700 cannot be loaded: RuntimeError: out of luck; kernelpkg did not foresee this, please report it"
    ]
    assert registered(report) == ["twice"]


def test_nothing_is_registered_before_all_kernels_were_read(demo, monkeypatch):
    demo.kernel("zwei")
    seen = []

    def progress(what, done, steps):
        seen.append((what, done, steps, hasattr(torch.ops.demo, "twice")))

    load(demo, smoke=True, progress=progress)
    assert seen == [
        ("reading twice", 0, 4, False),
        ("reading zwei", 1, 4, False),
        ("checking twice", 2, 4, True),
        ("checking zwei", 3, 4, True),
        ("done", 4, 4, True),
    ]


def test_loading_twice_keeps_the_very_same_ops(demo):
    load(demo)
    op, kernel = torch.ops.demo.twice, kernelpkg.get_kernel_by_name("demo::twice")
    again = load(demo)
    assert again.ok
    assert torch.ops.demo.twice is op
    assert kernelpkg.get_kernel_by_name("demo::twice") is kernel


def test_loading_twice_through_another_spelling_of_the_root_is_no_clash(demo):
    load(demo)
    op = torch.ops.demo.twice
    link = demo.root.parent / "link"
    link.symlink_to(demo.root)
    assert kernelpkg.load(root=link, device="cpu", environment={}).ok
    assert torch.ops.demo.twice is op


def test_an_edited_kernel_is_picked_up_and_the_others_stay(demo):
    demo.kernel("still")
    load(demo)
    op = torch.ops.demo.still
    demo.edit("kernels/twice/kernel.py", "* 2", "* 3")
    load(demo)
    assert torch.ops.demo.twice(torch.ones(1)).item() == 3.0
    assert torch.ops.demo.still is op


def test_a_new_config_file_is_picked_up(demo):
    load(demo)
    demo.configs("twice", platform="cpu")
    demo.edit("configs/twice/cpu.json", '"nvidia_h200"', '"cpu"')
    assert load(demo).kernels[0].cases == 2
    kernel = kernelpkg.get_kernel_by_name("demo::twice")
    assert kernel is not None
    assert len(kernel.plan.tables) == 1


def test_files_beside_a_kernel_that_it_does_not_use_change_nothing(demo):
    load(demo)
    op = torch.ops.demo.twice
    (demo.root / "kernels/twice/.kernel.py.swp").write_text("an editor's")
    load(demo)
    assert torch.ops.demo.twice is op


def test_after_a_failing_edit_the_op_stays_as_it_was_loaded(demo):
    load(demo)
    op = torch.ops.demo.twice
    demo.edit("kernels/twice/kernel.py", "    return out\n", "    return nothing +\n")
    report = load(demo)
    assert torch.ops.demo.twice is op
    assert op(torch.ones(1)).item() == 2.0
    assert report.kernels[0].status == "failed"
    assert report.kernels[0].reason == (
        "kernels/twice/kernel.py:9: KP114 does not parse: invalid syntax; "
        "the op as it was loaded before stays"
    )


@pytest.mark.parametrize("loaded_again", [False, True])
def test_an_op_is_compiled_from_the_source_that_was_loaded(demo, loaded_again):
    load(demo)
    path = demo.root / "kernels/twice/kernel.py"
    text = path.read_text()
    path.write_text("# a line more\nraise ValueError\n" + text)
    if loaded_again:
        assert not load(demo).ok
    kernel = kernelpkg.get_kernel_by_name("demo::twice")
    assert kernel is not None
    assert inspect.getsource(kernel.raw_kernel_func) == text.partition("\n\n\n")[2]


def test_where_torch_refuses_the_edited_op_the_old_one_comes_back(demo, monkeypatch):
    load(demo)
    demo.edit("kernels/twice/kernel.py", "* 2", "* 3")

    def refuse(self, instead_of):
        monkeypatch.undo()
        raise kernelpkg.RegistrationError("op 'demo::twice' cannot be registered: no")

    monkeypatch.setattr(kernelpkg.HelionKernelWrapper, "register", refuse)
    report = load(demo)
    assert said(report) == [
        "kernels/twice/kernel.toml:7: KP605 op 'demo::twice' cannot be registered: no"
    ]
    assert torch.ops.demo.twice(torch.ones(1)).item() == 2.0


def test_the_same_op_from_another_root_is_a_clash(demo, other):
    load(demo)
    op = torch.ops.demo.twice
    other.kernel("second")
    other.edit("kernels/twice/kernel.py", "* 2", "* 3")
    report = load(other)
    assert said(report) == [
        f"kernels/twice/kernel.toml:3: KP605 op 'demo::twice' is registered already, by the pack in {demo.root}; rename one, or unload the other"
    ]
    assert report.kernels[1].reason == said(report)[0]
    assert registered(report) == ["second"]
    assert torch.ops.demo.twice is op


def test_the_same_bytes_may_be_loaded_from_another_root(demo, other):
    """As a copy of an installed pack is; the op stays as it is."""
    load(demo)
    op = torch.ops.demo.twice
    other.kernel("second")
    report = load(other)
    assert report.ok
    assert registered(report) == ["second", "twice"]
    assert torch.ops.demo.twice is op
    demo.edit("kernels/twice/kernel.py", "* 2", "* 3")
    assert load(demo).ok
    assert torch.ops.demo.twice(torch.ones(1)).item() == 3.0
    assert not load(other).ok


EDITS = {
    "body": [("kernel.py", "* 2", "* 2.0")],
    "schema": [
        ("kernel.toml", "input) ->", "input, int n=1) ->"),
        ("kernel.py", "Tensor) ->", "Tensor, n: int = 1) ->"),
    ],
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_kernel_is_loaded_while_other_threads_call_its_op(demo, edit):
    """No call ends the process; one of an edited body never fails, for its op is never gone."""
    demo.edit("kernels/twice/host.py", "Tensor)", "Tensor, *rest)")
    load(demo)
    done, failed, made = threading.Event(), [], []

    def call():
        x = torch.empty(0)
        while not done.is_set():
            try:
                made.append(torch.ops.demo.twice(x))
            except (AttributeError, NotImplementedError, kernelpkg.RegistrationError) as error:
                failed.append(str(error))

    threads = [threading.Thread(target=call) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for turn in range(8):
            for file, old, new in EDITS[edit]:
                demo.edit(f"kernels/twice/{file}", *((new, old) if turn % 2 else (old, new)))
            assert load(demo).ok
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert made
    assert failed == [] or edit == "schema"


FORKED = """
import os, sys, threading
import torch, kernelpkg
from kernelpkg.runtime.backend import HelionBackend
from kernelpkg.runtime.prepare import Preparation

inside, leave = threading.Event(), threading.Event()
x = torch.ones(2)
assert (x * 2).tolist() == [2.0, 2.0]  # in a thread and a fork at once, PyTorch's first call hangs

def slow(function):
    def called(*args):
        if not inside.is_set():
            inside.set()
            leave.wait(0.5)
        return function(*args)
    return called

if sys.argv[2] == "load":
    Preparation.prepare = slow(Preparation.prepare)
else:
    kernelpkg.load(root=sys.argv[1], device="cpu")
    HelionBackend.interpret = slow(HelionBackend.interpret)

def use():
    kernelpkg.load(root=sys.argv[1], device="cpu")
    assert torch.ops.demo.twice(x).tolist() == [2.0, 2.0]

thread = threading.Thread(target=use)
thread.start()
inside.wait()
child = os.fork()
use()
if not child:
    os._exit(0)
thread.join()
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.parametrize("during", ["load", "call"])
def test_a_fork_while_another_thread_loads_or_makes_a_first_call(demo, during):
    """The child loads and calls too."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKED, str(demo.root), during],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    assert done.stdout.split() == ["0"]


def test_only_the_ops_that_are_named_are_loaded(demo):
    demo.kernel("thrice")
    first = kernelpkg.load(root=demo.root, device="cpu", ops=["demo::twice"])
    assert [kernel.name for kernel in first.kernels] == ["twice"]
    second = kernelpkg.load(root=demo.root, device="cpu", ops=["thrice"])
    assert [kernel.name for kernel in second.kernels] == ["thrice"]
    assert torch.ops.demo.twice(torch.ones(2)).tolist() == [2.0, 2.0]  # it stays
    with pytest.raises(kernelpkg.UsageError, match="has no op 'fourfold'"):
        kernelpkg.load(root=demo.root, device="cpu", ops=["fourfold"])


def test_an_op_that_is_named_and_switched_off_is_off(demo):
    environment = {"KERNELPKG_DISABLE": "twice"}
    (report,) = kernelpkg.load(
        root=demo.root, device="cpu", ops=["twice"], environment=environment
    ).kernels
    assert report.status == "disabled"


def test_a_kernel_of_register_kernel_is_not_replaced(demo):
    load(demo)
    kernelpkg.unload("demo::twice")
    function = load_function(demo)
    mine = kernelpkg.register_kernel("twice", namespace="demo")(function)
    report = load(demo)
    assert said(report) == [
        "kernels/twice/kernel.toml:3: KP605 op 'demo::twice' is registered already, with register_kernel; rename one, or unload the other"
    ]
    assert kernelpkg.get_kernel_by_name("demo::twice") is mine


def load_function(pack):
    from kernelpkg.packs.sources import load_module

    return load_module(pack.root / "kernels" / "twice", "kernel.py").twice


def test_an_op_of_another_library_is_a_clash(demo):
    library = torch.library.Library("demo", "FRAGMENT")
    library.define("twice(Tensor x) -> Tensor")
    try:
        report = load(demo)
    finally:
        library._destroy()
    assert said(report) == [
        "kernels/twice/kernel.toml:3: KP605 op 'demo::twice' is registered already, by another library"
    ]


def test_a_namespace_of_pytorch_is_refused_once_for_the_pack(demo):
    demo.kernel("second")
    demo.edit("manifests/demo.toml", 'namespace = "demo"', 'namespace = "aten"')
    assert refused(demo) == [
        "manifests/demo.toml:5: KP605 namespace 'aten' is in use by PyTorch or vLLM; choose another"
    ]


def test_unload_gives_the_names_back(demo, other):
    load(demo)
    assert kernelpkg.unload("demo::twice") == ("demo::twice",)
    assert not hasattr(torch.ops.demo, "twice")
    assert kernelpkg.unload("demo::twice") == ()
    assert load(other).ok
    kernelpkg.unload("demo::twice")
    assert load(demo).ok
    assert torch.ops.demo.twice(torch.ones(1)).item() == 2.0


@pytest.mark.parametrize("word", ["twice", "demo::twice", " twice , other::op"])
def test_a_disabled_op_is_not_registered(demo, word):
    demo.kernel("second")
    environment = {"KERNELPKG_DISABLE": word}
    report = kernelpkg.load(root=demo.root, device="cpu", environment=environment)
    assert report.ok
    assert report.notes == ()
    assert [(k.name, k.status, k.mode, k.reason) for k in report.kernels] == [
        ("second", "registered", "interpret", "no GPU"),
        ("twice", "disabled", None, "switched off by KERNELPKG_DISABLE"),
    ]
    assert not hasattr(torch.ops.demo, "twice")


def test_an_op_that_is_disabled_later_is_given_back(demo):
    load(demo)
    kernelpkg.load(root=demo.root, device="cpu", environment={"KERNELPKG_DISABLE": "twice"})
    assert not hasattr(torch.ops.demo, "twice")


def test_a_disabled_op_of_another_pack_stays(demo, other):
    load(demo)
    kernelpkg.load(root=other.root, device="cpu", environment={"KERNELPKG_DISABLE": "twice"})
    assert torch.ops.demo.twice(torch.ones(1)).item() == 2.0


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("twise",
            "KERNELPKG_DISABLE: KP607 'twise' is not an op of pack 'demo', so nothing is switched off; did you mean 'twice'?"),
        ("demo::twise",
            "KERNELPKG_DISABLE: KP607 'demo::twise' is not an op of pack 'demo', so nothing is switched off; did you mean 'demo::twice'?"),
    ],
    ids=["bare", "qualified"],
)  # fmt: skip
def test_a_name_to_disable_that_is_in_no_loaded_pack_is_pointed_out(demo, word, line):
    environment = {"KERNELPKG_DISABLE": word}
    report = kernelpkg.load(root=demo.root, device="cpu", environment=environment)
    assert [str(note) for note in report.notes] == [line]
    assert report.ok


def test_a_condition_of_a_route_that_is_wrong_is_pointed_out(demo):
    """The ops are there all the same; a route to a kernel that failed has nothing to be read by."""
    demo.kernel("bad")
    (demo.root / "kernels/bad/kernel.toml").write_text("[")
    path = demo.root / "manifests" / "demo.toml"
    routes = "".join(
        f'[vllm.routes."_C::{name}"]\nop = "{name}"\nwhen = ["num_token < 4"]\n'
        for name in ("bad", "twice")
    )
    path.write_text(path.read_text() + routes)
    report = load(demo)
    assert [str(note) for note in report.notes] == [
        "manifests/demo.toml:13: KP840 condition 'num_token < 4': name 'num_token' is not known here; did you mean 'num_tokens'?"
    ]
    assert [kernel.status for kernel in report.kernels] == ["failed", "registered"]


def test_a_broken_kernel_can_be_disabled(demo):
    demo.kernel("bad")
    (demo.root / "kernels/bad/kernel.toml").write_text("[")
    environment = {"KERNELPKG_DISABLE": "bad"}
    assert kernelpkg.load(root=demo.root, device="cpu", environment=environment).ok


def test_a_broken_pack_manifest_loads_nothing_and_says_why(demo):
    demo.edit("manifests/demo.toml", "version = ", "verson = ")
    assert refused(demo) == [
        "manifests/demo.toml:2: KP011 key 'version' is missing in [pack]; it must be a text",
        "manifests/demo.toml:4: KP010 key 'verson' is not known in [pack]; did you mean 'version'?",
    ]


def test_a_pack_without_kernels_says_how_to_get_one(demo):
    (demo.root / "kernels/twice/kernel.toml").unlink()
    assert refused(demo) == [
        "manifests/demo.toml:7: KP601 the pack has no kernels; 'kernelpkg new NAME' writes one"
    ]


@pytest.mark.parametrize("name", [None, "demo"])
def test_a_root_that_does_not_exist_raises(tmp_path, name):
    """A report that nobody looks at would say nothing."""
    with pytest.raises(PackError) as caught:
        kernelpkg.load(name, root=tmp_path / "nowhere", device="cpu", environment={})
    assert str(caught.value) == (
        f"{tmp_path}/nowhere: KP604 does not exist; root= takes a directory that holds manifests/"
    )


@pytest.mark.parametrize(
    ("given", "parameter"),
    [
        ({"root": "nowhere"}, "root"),
        ({"root": "two"}, "pack"),
        ({"root": "demo", "configs": ["nowhere"]}, "configs"),
    ],
    ids=["root", "packs", "configs"],
)
def test_an_error_names_parameters_in_python_and_options_on_the_command_line(
    demo, capsys, monkeypatch, given, parameter
):
    monkeypatch.chdir(demo.root.parent)
    shutil.copytree("demo", "two")
    text = Path("two/manifests/demo.toml").read_text().replace('"demo"', '"second"')
    Path("two/manifests/second.toml").write_text(text)
    with pytest.raises(kernelpkg.KernelpkgError) as caught:
        kernelpkg.load(device="cpu", environment={}, **given)
    options = [
        f"--{name}={value}"
        for name, values in given.items()
        for value in (values if isinstance(values, list) else [values])
    ]
    assert cli.main(["load", *options]) == 2 - (parameter == "configs")
    said = capsys.readouterr().err.strip().removeprefix("kernelpkg: ")
    assert f" {parameter}=" in str(caught.value)
    assert str(caught.value).replace(f" {parameter}=", f" --{parameter}") == said


@pytest.mark.parametrize("file", ["kernel.toml", "kernel.py", "host.py"])
def test_a_file_without_permission_fails_one_kernel_only(demo, monkeypatch, file):
    demo.kernel("bad")
    read = Path.read_bytes

    def refuse(path):
        if path == demo.root / "kernels/bad" / file:
            raise PermissionError(13, "Permission denied", str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    report = load(demo)
    (line,) = said(report)
    assert "cannot be read: Permission denied" in line
    assert registered(report) == ["twice"]


def test_strict_raises_with_every_problem_after_the_rest_was_registered(demo):
    demo.kernel("bad")
    demo.edit("kernels/bad/kernel.toml", '">=1.4"', '">=99"')
    with pytest.raises(PackError) as caught:
        load(demo, strict=True)
    assert [problem.code for problem in caught.value.problems] == ["KP151"]
    assert torch.ops.demo.twice(torch.ones(1)).item() == 2.0


def test_what_fails_is_warned_of_unless_strict_says_how_to_take_it(demo):
    """At the line that loads; what is fine is not."""
    load(demo, strict=None)
    demo.kernel("bad")
    demo.edit("kernels/bad/kernel.toml", '">=1.4"', '">=99"')
    demo.edit("kernels/twice/host.py", "* 2", "* 3")
    with pytest.warns(LoadWarning) as caught:
        report = load(demo, smoke=True)
    (warning,) = caught
    assert warning.filename == __file__  # of the function above
    summary, _, first = str(warning.message).partition("; ")
    assert summary == report.summary()
    assert first == (f"{report.failures()[0]} (and 1 more; 'failures()' of the report has all)")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not load(demo, strict=False).ok


def test_a_report_prints_as_what_the_command_prints(demo, capsys):
    demo.kernel("bad")
    demo.edit("kernels/bad/kernel.toml", '">=1.4"', '">=99"')
    cli.main(["load", "--root", str(demo.root), "--device", "cpu"])
    printed = capsys.readouterr()
    lines = str(load(demo)).splitlines()
    assert lines[:-1] == [*printed.err.splitlines(), *printed.out.splitlines()[:-1]]
    assert lines[-1].startswith("pack demo: 1 registered, 1 failed (cpu, ")


def test_a_report_is_a_table_in_a_notebook(demo):
    """Nothing of a text is taken for a tag."""
    report = evolve(load(demo), pack="<b>demo</b>")
    html = report._repr_html_()
    assert html.count("<tr>") == 2
    assert "<td>demo::twice</td><td>registered</td><td>interpret</td>" in html
    assert "<p>pack &lt;b&gt;demo&lt;/b&gt;: 1 registered (cpu, " in html
    assert "<b>" not in html


def test_strict_raises_where_a_smoke_check_fails(demo):
    demo.edit("kernels/twice/host.py", "* 2", "* 3")
    with pytest.raises(PackError, match="kernels/twice: KP701 check failed: case num_tokens=4: "):
        load(demo, strict=True, smoke=True)


def test_strict_raises_for_a_broken_pack(demo):
    (demo.root / "manifests/demo.toml").write_text("[")
    with pytest.raises(PackError, match="KP003 does not parse as TOML"):
        load(demo, strict=True)


def test_a_pack_that_is_not_there_is_a_wrong_usage(demo):
    with pytest.raises(UsageError) as caught:
        kernelpkg.load("dema", root=demo.root, device="cpu", environment={})
    assert str(caught.value) == "pack 'dema' is not there; did you mean 'demo'?"


def test_a_launcher_that_is_none_is_a_wrong_usage(demo, monkeypatch):
    """Once, and not as a fault of each kernel that nobody foresaw."""
    monkeypatch.setenv("KERNELPKG_LAUNCHER", "rust")
    with pytest.raises(UsageError) as caught:
        load(demo)
    assert str(caught.value) == "KERNELPKG_LAUNCHER is 'rust'; it takes auto, c, python"


def test_a_gpu_that_is_not_there_is_a_wrong_usage(demo, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(UsageError) as caught:
        kernelpkg.load(root=demo.root, device="cuda", environment={})
    assert str(caught.value) == "device 'cuda' was asked for, but PyTorch sees no GPU"


def test_a_reference_that_raises_fails_the_check_alone(demo):
    demo.edit("kernels/twice/host.py", "    return", "    raise RuntimeError('no')\n    return")
    (kernel,) = load(demo, smoke=True).kernels
    line = "kernels/twice/host.py:5: KP701 check failed: case num_tokens=4: RuntimeError: no"
    told = (kernel.status, kernel.check, kernel.ok)
    assert told == ("registered", f"{line}; {REMEDY}", False)


def test_an_error_without_a_text_has_its_name_and_its_line(demo):
    demo.edit("kernels/twice/kernel.py", "    out =", "    assert input.size(0) == 0\n    out =")
    (kernel,) = load(demo, smoke=True).kernels
    line = "kernels/twice/kernel.py:6: KP701 check failed: case num_tokens=4: AssertionError"
    assert str(kernel.finding) == kernel.check == f"{line}; {REMEDY}"


def test_a_long_text_is_cut(demo):
    demo.edit("kernels/twice/kernel.py", "    out =", "    raise ValueError('n' * 9000)\n    out =")
    (kernel,) = load(demo, smoke=True).kernels
    assert len(kernel.check) < 400 + len(REMEDY)


def test_a_kernel_that_fails_for_one_token_alone_fails_its_check(demo):
    demo.edit("kernels/twice/kernel.py", "* 2", "* (3 if input.size(0) == 1 else 2)")
    (kernel,) = load(demo, smoke=True).kernels
    line = "kernels/twice: KP701 check failed: case num_tokens=1: return[0] is "
    assert kernel.check.startswith(line)


def test_what_the_interpreter_lacks_is_unverified(demo):
    """It is said, with its place, and the kernel has not failed."""
    file = "kernels/twice/kernel.py"
    demo.edit(file, "        out[", "        hl.jagged_tile(input)\n        out[")
    report = load(demo, smoke=True)
    (kernel,) = report.kernels
    assert kernel.check.startswith(
        "kernels/twice/kernel.py:8: KP269 unverified: the interpreter of Helion "
    )
    assert kernel.check.endswith("; check it on a GPU")
    assert report.ok
    assert report.failures() == (kernel.finding,)
    assert ", 0 of 1 checks ok, 1 unverified (" in report.summary()
    with pytest.raises(NotInterpreted, match=r"'hl.jagged_tile\(input\)'"):
        torch.ops.demo.twice(torch.ones(3))


def test_a_gpu_that_is_not_to_be_used_is_not_said_to_be_missing(demo, play_gpu):
    play_gpu("NVIDIA H200")
    (kernel,) = load(demo).kernels
    assert (kernel.mode, kernel.reason) == ("interpret", "device cpu was asked for")


def test_an_interpreter_that_was_asked_for_is_the_reason(demo, monkeypatch, play_gpu):
    play_gpu("NVIDIA H200")
    monkeypatch.setenv("HELION_INTERPRET", "1")
    report = kernelpkg.load(root=demo.root, environment={})
    assert (report.platform, report.device) == ("nvidia_h200", "cuda")
    assert report.kernels[0].reason == "HELION_INTERPRET is set"


@pytest.mark.parametrize(
    ("platform", "reason"),
    [
        (None, "no config for nvidia_h200; Helion's own default"),
        (
            "nvidia_h100",
            "no config for nvidia_h200; borrows from nvidia_h100, then Helion's own default",
        ),
    ],
    ids=["nothing-tuned", "borrowed"],
)
def test_no_config_for_this_gpu_is_the_reason_for_a_default(demo, play_gpu, platform, reason):
    play_gpu("NVIDIA H200")
    if platform is not None:
        demo.configs("twice", platform=platform)
        demo.edit(f"configs/twice/{platform}.json", "nvidia_h200", platform)
    (kernel,) = kernelpkg.load(root=demo.root, environment={}).kernels
    assert (kernel.mode, kernel.reason) == ("default", reason)


def test_a_broken_config_file_of_another_platform_is_told_and_the_op_stays(demo):
    """Files of all platforms are checked on any machine; only its own can take an op off."""
    demo.configs("twice", "{", platform="nvidia_b200")
    report = kernelpkg.load(root=demo.root, device="cpu")
    assert [kernel.status for kernel in report.kernels] == ["registered"]
    (problem,) = report.problems
    assert str(problem) == (
        "configs/twice/nvidia_b200.json:1: KP501 the file ends in the middle of its JSON "
        "(Expecting property name enclosed in double quotes); restore it or tune again"
    )
    assert not report.ok


def test_a_kernel_directory_that_cannot_be_read_is_told(demo, monkeypatch):
    """A directory without permission does not vanish from a pack of all kernels."""
    demo.kernel("thrice")
    stat = os.stat

    def refuse(path, *args, **kwargs):
        if "thrice" in str(path):
            raise PermissionError(13, "Permission denied", str(path))
        return stat(path, *args, **kwargs)

    monkeypatch.setattr("kernelpkg.packs.read.os.stat", refuse)
    assert kernel_names(demo.root) == ("thrice", "twice")


def test_a_device_that_is_none_is_refused(demo):
    """A word that is not a device is not taken for "auto"."""
    with pytest.raises(UsageError, match="device 'tpu' must be auto, cpu or cuda"):
        kernelpkg.load(root=demo.root, device="tpu")


CPU_CONFIGS = """\
{
  "edition": 1,
  "kernel": "twice",
  "platform": "cpu",
  "tuned_with": {},
  "configs": [{"block_sizes": [32]}],
  "cases": [{"key": {"num_tokens": 4}, "config": 0}]
}
"""


def test_configs_of_an_operator_go_before_the_packs_and_the_report_names_the_file(demo, tmp_path):
    """A load with other directories registers the op anew; one with the same keeps it."""
    own = tmp_path / "own"
    (own / "twice").mkdir(parents=True)
    (own / "twice" / "cpu.json").write_text(CPU_CONFIGS)
    (own / "twise").mkdir()
    load(demo)
    before = kernelpkg.get_kernel_by_name("demo::twice")
    report = load(demo, configs=[own])
    (kernel,) = report.kernels
    assert (kernel.cases, kernel.file) == (1, f"{own}/twice/cpu.json")
    assert [note.code for note in report.notes] == ["KP511"]
    wrapper = kernelpkg.get_kernel_by_name("demo::twice")
    assert wrapper is not before
    load(demo, configs=[own])
    assert kernelpkg.get_kernel_by_name("demo::twice") is wrapper
    variable = {"KERNELPKG_CONFIGS": str(own)}
    found = kernelpkg.load(root=demo.root, device="cpu", environment=variable)
    assert found.kernels[0].file == kernel.file


def test_a_directory_of_configs_that_is_not_there_fails_the_load(demo, tmp_path):
    """An operator who named it must not be served other configs in silence."""
    assert refused(demo, configs=[tmp_path / "nowhere"]) == [
        f"{tmp_path}/nowhere: KP510 does not exist; configs= takes directories that hold <kernel>/<platform>.json"
    ]
