"""Import and export of a small pack, from the command line and from Python."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from attrs import evolve

from kernelpkg import cli
from kernelpkg.configs import directories
from kernelpkg.configs.store import ConfigFile, TunedCase
from kernelpkg.configs.transfer import FileStep, Transfer
from kernelpkg.errors import PackError, UsageError
from kernelpkg.packs.read import read_pack
from kernelpkg.vllm.exchange import plan_export, plan_import

NARROW = {"block_sizes": [16], "num_warps": 4}
WIDE = {"block_sizes": [64], "indexing": ["pointer", "tensor_descriptor"], "num_warps": 8}
ENTRIES = [
    {"key": {"numtokens": 1}, "config": NARROW},
    {"key": {"numtokens": 4}, "config": WIDE},
    {"key": {}, "config": NARROW},
]
TUNED = """\
{
  "edition": 1,
  "kernel": "twice",
  "platform": "nvidia_h200",
  "tuned_with": {"gpu": "NVIDIA H200"},
  "configs": [
    {"block_sizes": [16], "num_warps": 4}
  ],
  "cases": [
    {"key": {"dtype": "float32", "num_tokens": 1}, "config": 0, "ms": 0.5}
  ]
}
"""

FIT = (
    "block sizes, and lists with an entry per load or store, fit only the source that they were "
    "tuned for"
)
DIFFERS = "KP827 already exists and differs; replace=True overwrites it"
TOLD = DIFFERS.replace("replace=True", "--replace")
OTHER_AXES = (
    "its keys name dtype, numtokens, and those of nvidia_h100.json there numtokens, which the "
    "op's picker reads"
)


@pytest.fixture
def pack(demo):
    """A pack whose kernel has a dtype in its keys, which vLLM's lack, and a name of vLLM's."""
    demo.edit(
        "kernels/twice/kernel.toml",
        "[[key]]\n",
        'dtype = "input.dtype"\n[[key]]\naxis = "dtype"\nmatch = "exact"\n[[key]]\n',
    )
    demo.edit(
        "kernels/twice/kernel.toml", "[inputs]\n", '[inputs]\ndefault = {dtype = "float32"}\n'
    )
    demo.edit("kernels/twice/kernel.toml", 'dtype = "float32" }', 'dtype = "dtype" }')
    names = '[vllm.axes]\ntwice = {batchsize = "num_tokens", numtokens = "num_tokens"}\n'
    demo.edit("manifests/demo.toml", 'kernels = "*"\n', f'kernels = "*"\n{names}')
    return demo


@pytest.fixture
def vllm(tmp_path):
    """A folder of vLLM's with one file; returns a function that writes further ones."""
    folder = tmp_path / "vllm_configs"

    def write(name=None, content=ENTRIES):
        if name is not None:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content if isinstance(content, str) else json.dumps(content))
        return folder

    write("twice/nvidia_h100.json")
    return write


def run(*arguments):
    try:
        return cli.main([str(argument) for argument in arguments])
    except SystemExit as error:
        return int(error.code or 0)


def imported(pack, folder, **options):
    return plan_import(read_pack(pack.root, "demo"), folder, **options)


def exported(pack, folder, **options):
    folder.mkdir(exist_ok=True)
    return plan_export(read_pack(pack.root, "demo"), folder, **options)


def lines_of(plan, pack, folder, **options):
    """Return the lines that a plan raises, without the directory of the test."""
    with pytest.raises((PackError, UsageError)) as caught:
        plan(pack, folder, **options)
    return str(caught.value).replace(str(pack.root.parent), "TMP").splitlines()


def files_below(directory):
    return sorted(str(p.relative_to(directory)) for p in directory.rglob("*") if p.is_file())


# --- there and back


def test_what_is_imported_is_exported_as_it_was(pack, vllm, tmp_path, capsys):
    """The store gets our names and all axes; the way back gives vLLM's document again."""
    folder = vllm()
    assert run("import", "vllm", folder, "--root", pack.root) == 0
    stored = pack.root / "configs/twice/nvidia_h100.json"
    remark = f"these configs come from vLLM: {FIT}"
    assert capsys.readouterr() == (f"wrote {stored} (3 cases, 2 configs)\n{remark}\n", "")
    assert json.loads(stored.read_text()) == {
        "edition": 1,
        "kernel": "twice",
        "platform": "nvidia_h100",
        "tuned_with": {"origin": "vLLM", "filled": "dtype=float32"},
        "configs": [NARROW, WIDE],
        "cases": [
            {"key": {"dtype": "float32", "num_tokens": 1}, "config": 0},
            {"key": {"dtype": "float32", "num_tokens": 4}, "config": 1},
            {"key": {}, "config": 0},
        ],
    }
    back = tmp_path / "back"
    back.mkdir()
    assert run("export", "vllm", back, "--root", pack.root) == 0
    written = back / "twice/nvidia_h100.json"
    assert capsys.readouterr() == (f"wrote {written} (3 cases, 2 configs)\n", "")
    assert json.loads(written.read_text()) == ENTRIES
    assert files_below(back) == ["twice/nvidia_h100.json"]


def test_a_second_import_and_an_export_to_where_it_came_from_write_nothing(pack, vllm, capsys):
    folder = vllm()
    text = (folder / "twice/nvidia_h100.json").read_text()
    assert run("import", "vllm", folder, "--root", pack.root) == 0
    stored = pack.root / "configs/twice/nvidia_h100.json"
    first = stored.stat()
    for command in ("import", "export"):
        capsys.readouterr()
        assert run(command, "vllm", folder, "--root", pack.root, "--replace") == 0
        out, err = capsys.readouterr()
        assert (out.split(" ")[0], out.count("\n"), err) == ("unchanged:", 1, "")
    now = stored.stat()  # whose time of access changes as it is read
    assert (now.st_ino, now.st_mtime_ns) == (first.st_ino, first.st_mtime_ns)
    assert (folder / "twice/nvidia_h100.json").read_text() == text


def test_an_import_into_a_locked_pack_says_that_the_lock_is_older(pack, vllm, capsys):
    """Without it, the next load of a pack that has to be as it was locked would be a surprise."""
    assert run("lock", "--no-fingerprints", "--root", pack.root) == 0
    capsys.readouterr()
    last = []
    for _ in range(2):
        assert run("import", "vllm", vllm(), "--root", pack.root) == 0
        last.append(capsys.readouterr().out.splitlines()[-1])
    line = "kernelpkg.lock does not have them yet; 'kernelpkg lock' records what the pack is now"
    assert last[0] == line
    assert last[1].startswith("unchanged: ")


def test_a_dry_run_writes_nothing(pack, vllm, tmp_path, capsys):
    folder = vllm()
    before = files_below(tmp_path)
    assert run("import", "vllm", folder, "--root", pack.root, "--dry-run", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    path = f"{pack.root}/configs/twice/nvidia_h100.json"
    assert document["files"] == [{"path": path, "action": "write", "cases": 3, "configs": 2}]
    assert document["skipped"] == []
    assert run("import", "vllm", folder, "--root", pack.root, "--dry-run") == 0
    assert capsys.readouterr().out.startswith("would write ")
    assert files_below(tmp_path) == before


def test_a_tree_says_which_release_the_configs_are_of(pack, vllm, tmp_path):
    package = tmp_path / "tree/vllm"
    (package / "kernels/helion").mkdir(parents=True)
    vllm().rename(package / "kernels/helion/configs")
    (package / "_version.py").write_text("__version__ = '0.33.0'\n")
    imported(pack, tmp_path / "tree").carry_out()
    stored = json.loads((pack.root / "configs/twice/nvidia_h100.json").read_text())
    assert stored["tuned_with"]["origin"] == "vLLM 0.33.0"


def test_a_tree_without_configs_gets_its_folder(pack, tmp_path):
    pack.configs("twice", TUNED)
    (tmp_path / "tree/vllm/kernels/helion").mkdir(parents=True)
    exported(pack, tmp_path / "tree").carry_out()
    assert files_below(tmp_path / "tree") == ["vllm/kernels/helion/configs/twice/nvidia_h200.json"]


def test_older_layouts_are_refused_with_the_remedy(pack, vllm):
    """Keys that are texts, and one file with all platforms; those of other kernels are skipped."""
    old = {"batchsize_1": NARROW, "default": WIDE}
    vllm("twice/nvidia_h200.json", old)
    vllm("twice.json", {"nvidia_h100": old})
    vllm("other.json", {"nvidia_h100": old})
    remedy = "is of a vLLM before 0.33; import the configs of vLLM 0.33 instead"
    assert lines_of(imported, pack, vllm()) == [
        f"TMP/vllm_configs/twice.json: KP822 the layout, one file for all platforms, {remedy}",
        (
            "TMP/vllm_configs/twice/nvidia_h200.json: KP822 the layout, an object from keys that "
            f"are texts, {remedy}"
        ),
    ]
    assert files_below(pack.root / "configs") == []


# --- what is there already


def test_a_file_that_is_there_is_kept_unless_it_is_to_be_replaced(pack, vllm, capsys):
    pack.configs("twice", TUNED, "nvidia_h100")
    path = pack.root / "configs/twice/nvidia_h100.json"
    pack.edit("configs/twice/nvidia_h100.json", "nvidia_h200", "nvidia_h100")
    before = path.read_text()
    assert run("import", "vllm", vllm(), "--root", pack.root) == 1
    assert capsys.readouterr() == ("", f"configs/twice/nvidia_h100.json: {TOLD}\n")
    assert path.read_text() == before
    assert run("import", "vllm", vllm(), "--root", pack.root, "--replace") == 0
    assert capsys.readouterr().out.startswith(f"replaced {path} (3 cases, 2 configs)\n")
    assert json.loads(path.read_text())["tuned_with"]["origin"] == "vLLM"


def test_nothing_is_written_through_a_link_out_of_the_directory(pack, tmp_path, capsys):
    """A link inside it is fine, and so is one that was named."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "named").symlink_to("there")
    (tmp_path / "there").mkdir()
    for name in ("twice", "thrice"):
        pack.configs(name, TUNED)
        (tmp_path / "there" / name).symlink_to("../outside")
    assert run("export", "vllm", tmp_path / "named", "--root", pack.root) == 1
    place = f"{tmp_path}/named/twice/nvidia_h200.json"
    assert capsys.readouterr() == (
        "",
        f"{place}: KP827 a link leads out of {tmp_path}/named; name where it leads to\n",
    )
    assert list((tmp_path / "outside").iterdir()) == []
    os.unlink(tmp_path / "there/twice")
    (tmp_path / "there/real").mkdir()
    (tmp_path / "there/twice").symlink_to("real")
    assert run("export", "vllm", tmp_path / "named", "--root", pack.root) == 0
    assert [path.name for path in (tmp_path / "there/real").iterdir()] == ["nvidia_h200.json"]


def test_what_is_known_of_the_making_of_equal_cases_is_kept(pack, vllm):
    """A tuned file that went to vLLM and comes back keeps its times and what it was tuned with."""
    pack.configs("twice", TUNED)
    there = vllm().parent / "there"
    exported(pack, there).carry_out()
    document = json.loads((there / "twice/nvidia_h200.json").read_text())
    assert document == [{"key": {"dtype": "float32", "numtokens": 1}, "config": NARROW}]
    (step,) = imported(pack, there, replace=True).files
    assert step.action == "unchanged"


def test_equal_cases_of_which_less_is_known_are_other_content(pack, vllm):
    """Keys that name the dtype come back from the store; those that lack it would not."""
    pack.configs("twice", TUNED)
    vllm("twice/nvidia_h200.json", [{"key": {"numtokens": 1}, "config": NARROW}])
    transfer = imported(pack, vllm(), replace=True)
    assert [step.action for step in transfer.files] == ["write", "replace"]


def test_a_broken_file_of_the_store_can_be_replaced(pack, vllm):
    pack.configs("twice", "{", "nvidia_h100")
    folder = vllm()
    assert lines_of(imported, pack, folder) == [f"configs/twice/nvidia_h100.json: {DIFFERS}"]
    imported(pack, folder, replace=True).carry_out()
    assert imported(pack, folder).files[0].action == "unchanged"


def test_an_export_overwrites_only_what_it_is_asked_to(pack, vllm, tmp_path):
    imported(pack, vllm()).carry_out()
    there = tmp_path / "there/twice"
    there.mkdir(parents=True)
    (there / "nvidia_h100.json").write_text("broken")
    line = f"TMP/there/twice/nvidia_h100.json: {DIFFERS}"
    assert lines_of(exported, pack, tmp_path / "there") == [line]
    exported(pack, tmp_path / "there", replace=True).carry_out()
    assert json.loads((there / "nvidia_h100.json").read_text()) == ENTRIES


def test_tuned_keys_that_the_op_there_does_not_read_are_left_out(pack, vllm):
    """vLLM's pickers build keys of fixed axes: of a file that names more they would find none."""
    pack.configs("twice", TUNED)
    imported(pack, vllm()).carry_out()
    transfer = exported(pack, vllm())
    assert [step.path.name for step in transfer.files] == ["nvidia_h100.json"]
    assert transfer.skipped == [("configs/twice/nvidia_h200.json", OTHER_AXES)]


def test_a_second_export_of_files_that_do_not_fit_each_other_finds_them_unchanged(pack, vllm):
    """What an empty folder got in one run is not left out of the next."""
    pack.configs("twice", TUNED)
    imported(pack, vllm()).carry_out()
    there = pack.root.parent / "empty"
    exported(pack, there).carry_out()
    transfer = exported(pack, there)
    assert [step.action for step in transfer.files] == ["unchanged", "unchanged"]
    assert transfer.skipped == []


def test_files_that_are_all_replaced_need_not_fit_each_other(pack, vllm, capsys):
    """With --replace, only files that stay count; a remark says whose source the configs fit."""
    pack.configs("twice", TUNED, "nvidia_h100")
    pack.edit("configs/twice/nvidia_h100.json", "nvidia_h200", "nvidia_h100")
    folder = vllm()
    assert run("export", "vllm", folder, "--root", pack.root) == 2
    message = f"pack 'demo' has nothing for {folder}: configs/twice/nvidia_h100.json: {OTHER_AXES}"
    assert capsys.readouterr() == ("", f"kernelpkg: {message}\n")
    assert run("export", "vllm", folder, "--root", pack.root, "--replace") == 0
    assert capsys.readouterr().out == (
        f"replaced {folder}/twice/nvidia_h100.json (1 case, 1 config)\n"
        f"these configs come from pack 'demo': {FIT}; 'kernelpkg vendor' writes ops and configs "
        "together\n"
    )


def test_a_file_that_stays_counts_even_where_others_are_replaced(pack, vllm):
    pack.configs("twice", TUNED)
    vllm("twice/nvidia_h200.json")
    with pytest.raises(UsageError, match=r"those of nvidia_h100\.json there numtokens"):
        exported(pack, vllm(), replace=True)
    (vllm() / "twice/nvidia_h100.json").unlink()
    (step,) = exported(pack, vllm(), replace=True).files
    assert step.action == "replace"


def test_cases_that_would_be_filled_in_otherwise_today_are_other_content(pack, vllm):
    """What vLLM's keys lack is what [inputs] default says at the import, and stays it."""
    imported(pack, vllm()).carry_out()
    pack.edit("kernels/twice/kernel.toml", '{dtype = "float32"}', '{dtype = "float16"}')
    (step,) = imported(pack, vllm(), replace=True).files
    assert step.action == "replace"
    assert json.loads(step.text)["tuned_with"]["filled"] == "dtype=float16"
    assert exported(pack, vllm()).files[0].action == "unchanged"


@pytest.mark.parametrize("name", ["twice.json", "twice/nvidia_b200.json"])
def test_nothing_is_exported_to_an_older_release(pack, vllm, tmp_path, name):
    """Its config manager cannot read arrays, and would find no configs at all."""
    imported(pack, vllm()).carry_out()
    (tmp_path / "old/twice").mkdir(parents=True)
    (tmp_path / "old" / name).write_text('{"default": {}}')
    (line,) = lines_of(exported, pack, tmp_path / "old", replace=True)
    file = name.rpartition("/")[2]
    reason = f"{file} there has the layout of an older release of vLLM, which is not written"
    assert line.endswith(f"configs/twice/nvidia_h100.json: {reason}")


def test_a_platform_that_vllm_calls_otherwise_is_left_out(pack, tmp_path):
    """Where a pack keeps variants apart, vLLM looks for the file of the name that it maps to."""
    pack.configs("twice", TUNED.replace("h200", "h100_pcie"), "nvidia_h100_pcie")
    pack.configs("twice", TUNED)
    helion = tmp_path / "tree/vllm/kernels/helion"
    helion.mkdir(parents=True)
    table = '_GPU_NAME_ALIASES: dict[str, str] = {"nvidia_h100_pcie": "nvidia_h100"}\n'
    (helion / "utils.py").write_text(table)
    transfer = exported(pack, tmp_path / "tree")
    assert [step.path.name for step in transfer.files] == ["nvidia_h200.json"]
    reason = "vLLM looks for 'nvidia_h100' on GPUs of that name"
    assert transfer.skipped == [("configs/twice/nvidia_h100_pcie.json", reason)]


# --- vendored files

VENDORED = [
    {"key": {}, "config": WIDE},
    {"key": {"default": True, "num_tokens": 1}, "config": WIDE},
    {"key": {"dtype": "float32", "num_tokens": 1}, "config": NARROW},
]


def test_what_vendoring_adds_is_not_imported(pack, vllm, tmp_path):
    """Copies of the default case are for Helion's code of size 1, which rules know without."""
    vllm("twice/nvidia_h100.json", VENDORED)
    imported(pack, vllm()).carry_out()
    stored = json.loads((pack.root / "configs/twice/nvidia_h100.json").read_text())
    assert stored["tuned_with"] == {"origin": "vLLM"}
    assert [case["key"] for case in stored["cases"]] == [
        {},
        {"dtype": "float32", "num_tokens": 1},
    ]


@pytest.mark.parametrize(
    ("table", "default"),
    [
        pytest.param("", {}, id="helions-own"),
        pytest.param(
            "default = { num_warps = 8, block_sizes = [32] }\n",
            {"block_sizes": [32], "num_warps": 8},
            id="manifests",
        ),
    ],
)
def test_the_default_config_that_vendoring_writes_changes_no_file(pack, vllm, table, default):
    """The key {} with the default config of the manifest says what the manifest says anyway."""
    pack.edit("kernels/twice/kernel.toml", "[axes]\n", f"{table}[axes]\n")
    pack.configs("twice", TUNED)
    entries = [{**entry, "config": default} for entry in VENDORED[:2]] + VENDORED[2:]
    vllm("twice/nvidia_h200.json", entries)
    (_, step) = imported(pack, vllm()).files
    assert (step.path.name, step.action) == ("nvidia_h200.json", "unchanged")


def test_another_default_config_is_another_file(pack, vllm):
    pack.configs("twice", TUNED)
    vllm("twice/nvidia_h200.json", VENDORED)
    assert lines_of(imported, pack, vllm()) == [f"configs/twice/nvidia_h200.json: {DIFFERS}"]


def test_copies_of_the_default_case_that_are_none_are_told(pack, vllm):
    """Files that were vendored and then edited by hand say two things of one case."""
    edited = [VENDORED[0], {**VENDORED[1], "config": NARROW}]
    vllm("twice/nvidia_h100.json", edited)
    vllm("twice/nvidia_h200.json", VENDORED[1:])
    at = "TMP/vllm_configs/twice"
    problem = "is marked 'default', and has not the config of the key {}; vendor the pack again"
    assert lines_of(imported, pack, vllm()) == [
        f"{at}/nvidia_h100.json:1: KP823 entry 1, key: {problem}",
        f"{at}/nvidia_h200.json:1: KP823 entry 0, key: {problem}",
    ]


def test_nothing_is_exported_to_an_op_that_was_vendored(pack, vllm):
    """Its picker asks for copies of the default case, which `vendor` writes."""
    pack.configs("twice", TUNED)
    vllm("twice/nvidia_h100.json", VENDORED)
    (line,) = lines_of(exported, pack, vllm())
    reason = "the op of nvidia_h100.json there was vendored; 'kernelpkg vendor' writes both"
    assert line.endswith(f"configs/twice/nvidia_h200.json: {reason}")


# --- what is wrong


def test_kernels_of_others_are_skipped(pack, vllm):
    vllm("twic/nvidia_h100.json")
    vllm("zzz.json")
    transfer = imported(pack, vllm())
    assert [step.path.parent.name for step in transfer.files] == ["twice"]
    folder = vllm()
    assert transfer.skipped == [
        (f"{folder}/twic", "pack 'demo' has no kernel 'twic'; did you mean 'twice'?"),
        (f"{folder}/zzz.json", "pack 'demo' has no kernel 'zzz'"),
    ]


def test_kernels_without_configs_are_skipped(pack, vllm, tmp_path):
    pack.kernel("thrice")
    imported(pack, vllm()).carry_out()
    transfer = exported(pack, tmp_path / "there")
    assert transfer.skipped == [("configs/thrice", "nothing is tuned")]


def test_nothing_in_common_is_wrong_usage(pack, vllm, tmp_path):
    (tmp_path / "there").mkdir()
    there, remedy = tmp_path / "there", "give a vLLM tree, or its folder of configs"
    assert lines_of(imported, pack, there) == [f"TMP/there has no configs; {remedy}"]
    (there / "other.json").touch()
    (there / "more.json").touch()
    nothing = "TMP/there/more.json: pack 'demo' has no kernel 'more' (and 1 more)"
    line = f"nothing of TMP/there is for pack 'demo': {nothing}"
    assert lines_of(imported, pack, there) == [line]
    line = "pack 'demo' has nothing for TMP/there: configs/twice: nothing is tuned"
    assert lines_of(exported, pack, there) == [line]
    assert lines_of(imported, pack, tmp_path / "no") == [f"TMP/no does not exist; {remedy}"]


def test_a_platform_that_the_pack_looks_up_otherwise_is_left_out(pack, vllm):
    """Which platform a GPU has is said in [platforms]; vLLM's names are taken at their word."""
    vllm("twice/nvidia_h100_pcie.json", "not even JSON")
    vllm("twice/my_gpu.json")
    pack.edit(
        "manifests/demo.toml", "[vllm.axes]", '[platforms]\nnames = {my_gpu = "ours"}\n[vllm.axes]'
    )
    transfer = imported(pack, vllm())
    assert [step.path.name for step in transfer.files] == ["nvidia_h100.json"]
    assert transfer.skipped == [
        (
            f"{vllm()}/twice/{name}.json",
            f"GPUs of platform '{name}' use '{used}' in pack 'demo', by its [platforms]",
        )
        for name, used in (("my_gpu", "ours"), ("nvidia_h100_pcie", "nvidia_h100"))
    ]
    pack.edit("manifests/demo.toml", "[platforms]\n", '[platforms]\nvariants = "apart"\n')
    vllm("twice/nvidia_h100_pcie.json")
    transfer = imported(pack, vllm())
    assert [step.path.stem for step in transfer.files] == ["nvidia_h100", "nvidia_h100_pcie"]


def test_all_problems_of_all_files_come_in_one_run_and_nothing_is_written(pack, vllm):
    """Names of platforms, files that do not parse, keys, configs, and files in the way."""
    vllm("twice/NVIDIA H200.json")
    vllm("twice/---.json")
    vllm("twice/nvidia_a100.json", "[")
    vllm("twice/nvidia_b200.json", '[{"key": {"numtoken": 1},\n"config": {"num_warps": 3}}]')
    vllm("twice/nvidia_l4.json").joinpath("twice/nvidia_l4.json").write_bytes(b"\xff")
    vllm("twice.json", "not even JSON")
    pack.configs("twice", TUNED, "nvidia_h100")
    at = "TMP/vllm_configs/twice"
    assert lines_of(imported, pack, vllm()) == [
        (
            f"{at}.json: KP822 the layout, one file for all platforms, is of a vLLM before 0.33; "
            "import the configs of vLLM 0.33 instead"
        ),
        f"{at}/---.json: KP826 '---' is not the name of a platform; use one such as nvidia_h200",
        (
            f"{at}/NVIDIA H200.json: KP826 'NVIDIA H200' is not the name of a platform; rename it "
            "to 'nvidia_h200'"
        ),
        (
            f"{at}/nvidia_a100.json:1: KP820 the file ends in the middle of its JSON (Expecting "
            "value); restore it"
        ),
        (
            f"{at}/nvidia_b200.json:1: KP823 entry 0, key: axis 'numtoken' has no rule; did you "
            "mean 'numtokens'?"
        ),
        (
            f"{at}/nvidia_b200.json:2: KP508 entry 0: num_warps is 3; it must be a power of two "
            "from 1 to 32"
        ),
        (
            f"{at}/nvidia_l4.json: KP820 the file cannot be read ('utf-8' codec can't decode byte "
            "0xff in position 0: invalid start byte); restore it"
        ),
        f"configs/twice/nvidia_h100.json: {DIFFERS}",
    ]
    assert files_below(pack.root / "configs") == ["twice/nvidia_h100.json"]


def test_a_file_that_may_not_be_read_is_told(pack, vllm, monkeypatch):
    read_bytes = Path.read_bytes

    def refuse(path):
        if path.name == "nvidia_h100.json":
            raise PermissionError(13, "Permission denied")
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    line = "KP820 the file cannot be read (Permission denied); restore it"
    assert lines_of(imported, pack, vllm()) == [f"TMP/vllm_configs/twice/nvidia_h100.json: {line}"]


def test_names_that_the_kernel_cannot_have_are_told_at_their_line(pack, vllm):
    pack.edit("manifests/demo.toml", 'numtokens = "num_tokens"', 'numtokens = "num_token"')
    problem = "kernel 'twice' has no rule for axis 'num_token'; did you mean 'num_tokens'?"
    assert lines_of(imported, pack, vllm()) == [f"manifests/demo.toml:9: KP828 {problem}"]


def test_a_kernel_that_is_broken_is_told_with_what_is_wrong_with_others(pack, vllm):
    pack.kernel("thrice")
    pack.edit("kernels/thrice/kernel.toml", 'match = "ceil"', 'match = "cell"')
    vllm("thrice/nvidia_h100.json")
    vllm("twice/nvidia_h100.json", "[]")
    lines = lines_of(imported, pack, vllm())
    assert lines[0].startswith("TMP/vllm_configs/twice/nvidia_h100.json: KP821 ")
    assert lines[1].startswith("kernels/thrice/kernel.toml:15: KP012 ")
    assert len(lines) == 2


def test_files_of_the_store_that_are_wrong_are_not_exported(pack, vllm):
    pack.configs("twice", TUNED.replace("num_tokens", "tokens"))
    pack.configs("twice", "[", "nvidia_h100")
    codes = [line.split(" ")[1] for line in lines_of(exported, pack, vllm())]
    assert codes == ["KP501", "KP506", "KP506"]


def test_configs_that_are_nested_too_deeply_are_told(pack, tmp_path, monkeypatch):
    """How deep a document may be differs between reading and writing, and between Pythons."""
    deep: list[object] = []
    for _ in range(5000):
        deep = [deep]
    pack.configs("twice", TUNED)
    file = evolve(ONE, platform="nvidia_h200", configs=({"loop_orders": deep},))
    monkeypatch.setattr(
        directories, "read_configs", lambda *_: SimpleNamespace(content=lambda: file)
    )
    problem = "a config is nested too deeply; correct it, or tune again"
    assert lines_of(exported, pack, tmp_path / "there") == [
        f"configs/twice/nvidia_h200.json: KP502 {problem}"
    ]


@pytest.mark.parametrize("command", ["import", "export"])
def test_the_store_of_the_pack_is_no_folder_of_vllms(pack, command, capsys):
    """An export into it would overwrite what it exports."""
    pack.configs("twice", TUNED)
    folder = pack.root / "configs"
    assert run(command, "vllm", folder, "--root", pack.root, "--replace") == 2
    message = f"{folder} is where pack 'demo' has its own config files"
    assert capsys.readouterr() == ("", f"kernelpkg: {message}\n")


def test_the_store_of_another_pack_is_told_for_what_it_is(pack, other, tmp_path):
    other.configs("twice")
    problem = "KP820 the file is kernelpkg's own; vLLM's are arrays of entries"
    assert lines_of(imported, pack, other.root / "configs") == [
        f"TMP/other/configs/twice/nvidia_h200.json: {problem}"
    ]


def test_where_nothing_can_be_written_nothing_is(pack, vllm, capsys):
    (pack.root / "configs").write_text("a file")
    assert run("import", "vllm", vllm(), "--root", pack.root) == 2
    message = f"{pack.root}/configs/twice cannot be written: Not a directory"
    assert capsys.readouterr() == ("", f"kernelpkg: {message}\n")


USAGE = {
    "no-arguments": ([], "missing argument 'vllm"),
    "no-directory": (["vllm"], "missing argument 'DIR"),
    "other-format": (["vlm", "x"], "invalid value for 'vllm"),
}


@pytest.mark.parametrize("command", ["import", "export"])
@pytest.mark.parametrize(("arguments", "line"), USAGE.values(), ids=USAGE)
def test_wrong_usage_is_one_line(command, arguments, line, capsys):
    assert run(command, *arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"kernelpkg: {line}")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("command", "line"),
    [
        ("import", "'import vllm' takes one DIR; leave out 'y'"),
        (
            "export",
            "got unexpected extra argument (y); see 'kernelpkg export --help'",
        ),
    ],
)
def test_a_second_directory_is_refused(command, line, capsys):
    assert run(command, "vllm", "x", "y") == 2
    assert capsys.readouterr() == ("", f"kernelpkg: {line}\n")


# --- what is planned, written and said

CONTENT = ConfigFile(
    kernel="x",
    platform="p",
    configs=({"num_warps": 4}, {"num_warps": 8}),
    cases=tuple(TunedCase(key={"n": n}, config=n) for n in (0, 1)),
)
ONE = evolve(CONTENT, cases=CONTENT.cases[:1])


def planned(tmp_path):
    """Plan three files: one that is new, one that differs, one that is the same."""
    (tmp_path / "old.json").write_text("old")
    (tmp_path / "same.json").write_text("same")
    plan = Transfer(replace=True)
    for name, file in (("same", ONE), ("old", CONTENT), ("new", CONTENT)):
        path = tmp_path / f"{name}.json"
        same = name == "same"
        plan.add(path, f"x/{name}.json", name.upper(), file, same=same, inside=tmp_path)
    plan.skipped.extend([("x/b", "because"), ("x/a", "of this")])
    return plan


def test_a_transfer_says_what_is_done_and_what_would_be(tmp_path):
    transfer = planned(tmp_path).made("a remark")
    assert transfer.lines(dry_run=True) == [
        f"would write {tmp_path}/new.json (2 cases, 2 configs)",
        f"would replace {tmp_path}/old.json (2 cases, 2 configs)",
        f"unchanged: {tmp_path}/same.json (1 case, 1 config)",
        "skipped x/a: of this",
        "skipped x/b: because",
        "a remark",
    ]
    assert transfer.lines(dry_run=False)[:2] == [
        f"wrote {tmp_path}/new.json (2 cases, 2 configs)",
        f"replaced {tmp_path}/old.json (2 cases, 2 configs)",
    ]
    assert transfer.to_json() == {
        "files": [
            {"path": f"{tmp_path}/new.json", "action": "write", "cases": 2, "configs": 2},
            {"path": f"{tmp_path}/old.json", "action": "replace", "cases": 2, "configs": 2},
            {"path": f"{tmp_path}/same.json", "action": "unchanged", "cases": 1, "configs": 1},
        ],
        "skipped": [
            {"path": "x/a", "reason": "of this"},
            {"path": "x/b", "reason": "because"},
        ],
        "remarks": ["a remark"],
    }

    transfer.carry_out()
    texts = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert texts == {"new.json": "NEW", "old.json": "OLD", "same.json": "same"}


def test_what_stands_in_the_place_of_a_file(tmp_path):
    """A link that leads nowhere is another file; a directory is replaced by nobody."""
    (tmp_path / "link.json").symlink_to("nowhere")
    (tmp_path / "x.json").mkdir()
    for name, replace, line in (
        ("link", False, DIFFERS),
        ("x", True, "KP827 is a directory; remove it"),
    ):
        plan = Transfer(replace=replace)
        plan.add(tmp_path / f"{name}.json", "x", "", CONTENT, same=False, inside=tmp_path)
        with pytest.raises(PackError) as caught:
            plan.made()
        assert str(caught.value) == f"x: {line}"


def steps(*paths):
    files = [FileStep(path=p, text="x", action="write", cases=0, configs=0) for p in paths]
    return Transfer(replace=False, files=files)


def test_a_file_that_cannot_be_written_leaves_nothing_behind(tmp_path):
    """Neither files nor directories of the others are left where one cannot be made."""
    (tmp_path / "file").write_text("kept")
    transfer = steps(tmp_path / "a" / "b" / "x.json", tmp_path / "file" / "x.json")
    with pytest.raises(UsageError) as caught:
        transfer.carry_out()
    assert str(caught.value) == f"{tmp_path}/file cannot be written: File exists"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_full_disk_is_one_line(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UsageError) as caught:
        steps(tmp_path / "a" / "x.json").carry_out()
    assert str(caught.value) == f"{tmp_path}/a/x.json cannot be written: No space left on device"
    assert list(tmp_path.iterdir()) == []
