"""Config files as checks see them: what lies beside them, what each says, copies, and gaps."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from kernelpkg.check import config_files
from kernelpkg.check.config_files import CheckedFile, copies, copy_findings, missing_files
from kernelpkg.configs import store
from kernelpkg.configs.directories import with_overlays
from kernelpkg.configs.store import ConfigFile, TunedCase
from kernelpkg.packs.read import read_kernel, read_pack

ROOT = Path(__file__).parents[2]
SPEC = read_kernel(ROOT, "silu_mul_fp8")
PACK = read_pack(ROOT, "kernelpkg")
OPS = ("a", "b")


def pack(demo, *overlays):
    return with_overlays(read_pack(demo.root, "demo"), overlays, {})


def told(demo, *overlays) -> list[str]:
    return [str(finding) for finding in config_files.survey(pack(demo, *overlays)).findings]


def test_a_pack_without_configs_has_none(demo):
    tree = config_files.survey(pack(demo))
    assert (tree.files, tree.findings) == ((), ())


def test_the_files_of_overlays_come_first(demo, tmp_path):
    """And are the ones that calls use."""
    demo.configs("twice")
    demo.configs("twice", platform="nvidia_b200")
    mine = tmp_path / "mine/twice"
    mine.mkdir(parents=True)
    (mine / "nvidia_h200.json").write_text("{}")
    tree = config_files.survey(pack(demo, tmp_path / "mine"))
    assert [(file.shown, file.overlay) for file in tree.files] == [
        (f"{tmp_path}/mine/twice/nvidia_h200.json", True),
        ("configs/twice/nvidia_b200.json", False),
        ("configs/twice/nvidia_h200.json", False),
    ]
    assert {key: file.overlay for key, file in tree.first().items()} == {
        ("twice", "nvidia_h200"): True,
        ("twice", "nvidia_b200"): False,
    }


def test_what_is_no_one_elses_business(demo):
    """Hidden files, a page for readers, and the configs of another pack of the same root."""
    demo.kernel("thrice")
    demo.edit("manifests/demo.toml", 'kernels = "*"', 'kernels = ["twice"]')
    demo.configs("thrice")
    (demo.root / "configs/README.md").write_text("hello")
    (demo.root / "configs/.hidden").mkdir()
    demo.configs("twice")
    (demo.root / "configs/twice/.nvidia_h200.json.0.tmp").write_text("{")
    assert told(demo) == []


UNREAD = "so nothing reads it; rename or remove it"
UNKNOWN = "'my_gpu' is not a GPU that kernelpkg knows, so no GPU may look for it"


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("other/nvidia_h200.json", f"other: KP201 is not for a kernel of pack 'demo', {UNREAD}"),
        ("twice/deeper/a100.json", f"twice/deeper: KP201 is not a <platform>.json, {UNREAD}"),
        (
            "twice/__.json",
            (
                "twice/__.json: KP202 '__' is not the name of a platform, so no GPU looks for it; "
                "remove it"
            ),
        ),
        (
            "twice/my_gpu.json",
            f"twice/my_gpu.json: KP202 unverified: {UNKNOWN}; name it in [platforms] of the pack",
        ),
    ],
    ids=["other", "deeper", "no-name", "unknown"],
)
def test_what_nothing_reads(demo, file, line):
    path = demo.root / "configs" / file
    path.parent.mkdir(parents=True)
    path.write_text("{}")
    assert told(demo) == [f"configs/{line}"]


def test_platforms_that_the_pack_names_are_known(demo):
    """Also of variants that it keeps apart."""
    with (demo.root / "manifests/demo.toml").open("a") as manifest:
        manifest.write('[platforms]\nvariants = "apart"\nnames = { my_gpu_80gb = "my_gpu" }\n')
    for name in ("my_gpu", "nvidia_h200_nvl", "cpu"):
        demo.configs("twice", platform=name)
    assert told(demo) == []


def test_configs_that_are_a_file(demo):
    (demo.root / "configs").write_text("")
    assert told(demo) == ["configs: KP201 is not a directory; remove it"]


def test_links_that_lead_nowhere(demo):
    """One to itself is one of them."""
    (demo.root / "configs").symlink_to("gone")
    (demo.root / "kernels/loop").symlink_to("loop")
    half = demo.root / "kernels/half"
    half.mkdir()
    (half / "kernel.toml").symlink_to("../x")
    gone = "which is not there; correct or remove it"
    assert told(demo) == [f"configs: KP203 is a link to 'gone', {gone}"]
    assert [str(finding) for finding in config_files.kernel_findings(pack(demo))] == [
        f"kernels/half/kernel.toml: KP203 is a link to '../x', {gone}",
        f"kernels/loop: KP203 is a link to 'loop', {gone}",
    ]


def test_directories_of_kernels_without_a_manifest(demo):
    """Those of Python's, empty ones and single files are none."""
    for name in ("__pycache__", "empty", "half"):
        (demo.root / "kernels" / name).mkdir()
    (demo.root / "kernels/half/kernel.py").write_text("")
    (demo.root / "kernels/__pycache__/x.pyc").write_text("")
    (demo.root / "kernels/notes.md").write_text("")
    assert [str(finding) for finding in config_files.kernel_findings(pack(demo))] == [
        "kernels/half: KP204 has no kernel.toml, so it is not a kernel; write one, or remove it"
    ]


def test_a_directory_that_cannot_be_read(demo, monkeypatch):
    """The others are listed all the same."""
    demo.kernel("thrice")
    demo.configs("twice")
    demo.configs("thrice")
    real = os.listdir

    def listdir(path):
        if str(path).endswith("configs/thrice"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(config_files.os, "listdir", listdir)
    tree = config_files.survey(pack(demo))
    assert [file.kernel for file in tree.files] == ["twice"]
    assert [str(finding) for finding in tree.findings] == [
        "configs/thrice: KP501 directory cannot be read: Permission denied; correct its permissions"
    ]


TEXT = """\
{
  "edition": 1,
  "kernel": "silu_mul_fp8",
  "platform": "nvidia_h200",
  "tuned_with": {},
  "configs": [{"num_warps": 4}],
  "cases": [
    {"key": {}, "config": 0},
    {"key": {"intermediate_size": 4096, "num_tokens": 16}, "config": 0},
    {"key": {"num_tokens": 16, "in_dtype": "float16", "intermediate_size": 4096}, "config": 0}
  ]
}
"""


@pytest.fixture
def checked(tmp_path: Path) -> CheckedFile:
    path = tmp_path / "x.json"
    path.write_text(TEXT)
    name, platform = SPEC.name, "nvidia_h200"
    file = store.read(path, "x.json", name, platform, SPEC.key_axes, SPEC.defaults)
    return CheckedFile(
        spec=SPEC, shown="x.json", platform=platform, overlay=False, file=file, text=TEXT
    )


def test_cases_are_filled_in_the_order_of_the_rules(checked):
    """The case {} has no row."""
    assert checked.rows == {1: ("bfloat16", 4096, 16), 2: ("float16", 4096, 16)}
    assert checked.by_row["float16", 4096, 16] == 2


def test_cases_are_named_without_defaults(checked):
    assert [checked.case(place) for place in range(3)] == [
        "{}",
        "intermediate_size=4096, num_tokens=16",
        "in_dtype=float16, intermediate_size=4096, num_tokens=16",
    ]
    assert checked.shown_case(("bfloat16",)) == "in_dtype=bfloat16"


def test_findings_stand_on_the_line_of_their_value(checked):
    found = checked.finding("KP999", "is wrong", "cases", 1, "key", "num_tokens")
    assert str(found) == "x.json:9: KP999 is wrong"
    assert str(checked.finding("KP999", "lacks", severity="unverified")) == (
        "x.json: KP999 unverified: lacks"
    )


CONFIGS = tuple({"block_sizes": [1 << place, 1], "num_warps": 4} for place in range(12))


def file(
    platform: str, picks: list[int], times: list[float | None] | None = None, **facts: str
) -> CheckedFile:
    """Return a file whose cases have the given configs, and times."""
    cases = tuple(
        TunedCase(
            key={"in_dtype": "bfloat16", "intermediate_size": 4096, "num_tokens": place + 1},
            config=pick,
            ms=None if times is None else times[place],
        )
        for place, pick in enumerate(picks)
    )
    return CheckedFile(
        spec=SPEC,
        shown=f"configs/silu_mul_fp8/{platform}.json",
        platform=platform,
        overlay=False,
        file=ConfigFile(
            kernel=SPEC.name, platform=platform, tuned_with=facts, configs=CONFIGS, cases=cases
        ),
        text="",
    )


def is_copy(first: CheckedFile, second: CheckedFile) -> bool:
    assert len(list(copies([first, second]))) == len(list(copies([second, first])))
    return bool(list(copies([first, second])))


MANY = [place % 12 for place in range(24)]
FEW = [place % 3 for place in range(24)]
OTHER = [(pick + 1) % 12 for pick in MANY]
TIMES = [0.004 + 0.000032 * place for place in range(24)]


@pytest.mark.parametrize(
    ("first", "second", "copied"),
    [
        ((MANY, None), (MANY, None), True),
        ((MANY, None), (OTHER, None), False),
        ((MANY, None), ([*OTHER[:2], *MANY[2:]], None), True),
        ((MANY, None), ([*OTHER[:3], *MANY[3:]], None), False),
        ((MANY, None), (MANY[:15], None), False),
        ((MANY, None), (MANY[:16], None), True),
        ((FEW, None), (FEW, None), False),
        ((FEW, TIMES), (FEW, TIMES), True),
        ((FEW, TIMES), (FEW, [*TIMES[1:], 1.0]), False),
        ((MANY, TIMES), (MANY, [*TIMES[1:], 1.0]), False),
        ((MANY, TIMES), (OTHER, TIMES), True),
        ((MANY, TIMES), (MANY, None), True),
        ((MANY, TIMES), (MANY, [*TIMES[:3], *[None] * 21]), True),
        ((MANY, TIMES), (MANY, [*TIMES[1:4], *[None] * 21]), False),
        ((FEW[:7], TIMES), (FEW[:7], TIMES), False),
        (([], None), ([], None), False),
    ],
    ids=[
        *("same", "other", "nearly", "not-nearly", "part", "larger-part", "few-configs"),
        *("few-configs-same-times", "few-configs-other-times", "same-configs-other-times"),
        *("other-configs-same-times", "times-in-one", "few-times", "few-other-times"),
        *("few-cases", "none"),
    ],
)
def test_when_a_file_is_a_copy(first, second, copied):
    assert is_copy(file("nvidia_h100", *first), file("nvidia_h200", *second)) is copied


def test_two_tunings_from_a_few_configs_are_no_copies():
    """What happens on GPUs of one kind: nine picks of ten are equal, and the times are not."""
    chance = random.Random(0)
    picks = [[0 if chance.random() < 0.95 else 1 for _ in range(80)] for _ in range(2)]
    times = [[0.004 + 0.000032 * chance.randrange(12) for _ in range(80)] for _ in range(2)]
    first, second = (file(name, picks[n], times[n]) for n, name in enumerate(("a100", "h100")))
    assert not is_copy(first, second)


@pytest.mark.parametrize(
    ("first", "second", "where", "what"),
    [
        ("NVIDIA H200", "NVIDIA H200", "nvidia_h100", "a copy of that of nvidia_h200:"),
        ("NVIDIA H100", "NVIDIA H100", "nvidia_h200", "a copy of that of nvidia_h100:"),
        ("NVIDIA H100", "NVIDIA H200", "nvidia_h100", "nvidia_h200, or that one of this:"),
        ("???", "", "nvidia_h100", "nvidia_h200, or that one of this:"),
    ],
    ids=["first", "second", "either", "not-said"],
)
def test_the_copy_is_the_file_whose_gpu_is_the_others(first, second, where, what):
    """Where the facts of both fit, or say nothing, nobody can tell, and the message says so."""
    facts = [{"gpu": gpu} if gpu else {} for gpu in (first, second)]
    files = [
        file(name, MANY, None, **fact)
        for name, fact in zip(("nvidia_h100", "nvidia_h200"), facts, strict=True)
    ]
    (finding,) = copy_findings(PACK, files)
    assert finding.path == f"configs/silu_mul_fp8/{where}.json"
    assert what in finding.message


@pytest.fixture
def missing(demo):
    """Returns the findings of two ops, given which have files, as (path, what calls get)."""

    def run(there, wanted=(), manifest=None):
        if manifest is not None:
            demo.edit("kernels/twice/kernel.toml", *manifest)
        spec = read_kernel(Path(demo.root), "twice")
        pack = read_pack(demo.root, "demo")
        found = list(missing_files(pack, OPS, dict.fromkeys(OPS, spec), set(there), wanted))
        assert all((f.code, f.severity) == ("KP208", "unverified") for f in found)
        return {f.path.removeprefix("configs/"): f.message.split("; ")[1] for f in found}

    return run


def test_where_all_ops_are_tuned_nothing_is_missing(missing):
    assert missing([(op, name) for op in OPS for name in ("nvidia_h200", "nvidia_b200")]) == {}
    assert missing([]) == {}


def test_calls_borrow_from_what_fits(missing):
    """Newer GPUs first from their own family; none from one with more shared memory."""
    there = [("a", "nvidia_b200"), ("b", "nvidia_h100"), ("a", "nvidia_l4")]
    assert missing(there) == {
        "a/nvidia_h100.json": "calls on it borrow from nvidia_l4, nvidia_b200, then take Helion's "
        "own default",
        "b/nvidia_b200.json": "calls on it borrow from nvidia_h100, then take Helion's own default",
        "b/nvidia_l4.json": "calls on it take Helion's own default",
    }


def test_the_default_of_the_manifest_is_named(missing):
    manifest = ('requires = ">=1.4"', 'requires = ">=1.4"\ndefault = { num_warps = 4 }')
    assert missing([("a", "nvidia_h200")], manifest=manifest) == {
        "b/nvidia_h200.json": "calls on it take [helion] default"
    }


def test_a_miss_that_is_an_error_is_said(missing):
    manifest = ("[inputs]", '[miss]\naction = "error"\n[inputs]')
    assert missing([("a", "nvidia_h200")], manifest=manifest) == {
        "b/nvidia_h200.json": "calls on it raise, because [miss] action is 'error'"
    }


def test_platforms_that_are_asked_for_are_wanted_of_every_op(missing):
    """Others are left out. A platform that none has is one finding, but for what calls get."""
    text = "calls of 2 ops on it take Helion's own default"
    assert missing([("a", "nvidia_h200")], wanted=["nvidia_l4"]) == {"*/nvidia_l4.json": text}
    assert missing([("a", "nvidia_h100")], wanted=["nvidia_h200"]) == {
        "a/nvidia_h200.json": "calls on it borrow from nvidia_h100, then take Helion's own default",
        "b/nvidia_h200.json": "calls on it take Helion's own default",
    }


@pytest.mark.parametrize("name", ["cpu", "my_gpu", "nvidia_h200_nvl"])
def test_platforms_that_no_gpu_looks_up_are_wanted_of_none(missing, name):
    assert missing([("a", name)]) == {}
