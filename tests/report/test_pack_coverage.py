"""The maps of a pack: which ops, platforms and models, what is told, and the document."""

# ruff: noqa: E501  # tables of cases have a line each

from __future__ import annotations

import gc
import json
import weakref

import pytest
from attrs import evolve

from kernelpkg.errors import UsageError
from kernelpkg.packs.read import read_pack
from kernelpkg.report import pack_coverage
from kernelpkg.report.pack_coverage import cover_pack

MODELS = "[models]\none = { num_tokens = 2 }\nother = { hidden_size = 64 }\n"


@pytest.fixture
def pack(demo):
    """The pack "demo" with models and the kernels "twice", tuned, and "thrice", not tuned."""
    demo.kernel("thrice")
    demo.configs("twice")
    path = demo.root / "manifests" / "demo.toml"
    path.write_text(path.read_text() + MODELS)
    return demo


def read(demo):
    return read_pack(demo.root, "demo")


def found(covered):
    return [(of.spec.name, of.platform, of.counts) for of in covered.maps]


def test_all_ops_on_all_platforms_that_have_configs(pack):
    """A platform is mapped for all ops, where any has a file; ops are in the order of the pack."""
    pack.configs("thrice", platform="nvidia_h100", text=TEXT.replace("HERE", "nvidia_h100"))
    covered = cover_pack(read(pack))
    assert covered.platforms == ("nvidia_h100", "nvidia_h200")
    assert found(covered) == [
        ("thrice", "nvidia_h100", (1, 1)),
        ("thrice", "nvidia_h200", (0, 0)),
        ("twice", "nvidia_h100", (0, 0)),
        ("twice", "nvidia_h200", (2, 1)),
    ]
    assert [of.borrows for of in covered.maps] == [
        (), ("nvidia_h100",), ("nvidia_h200",), (),
    ]  # fmt: skip


def test_what_was_read_of_an_op_is_not_kept(pack, monkeypatch):
    """Trees of Python files, compiled rules and configs take most of the memory of many ops."""
    made = []

    def noted(function):
        def called(*args, **options):
            result = function(*args, **options)
            made.append(weakref.ref(result))
            return result

        return called

    for name in ("Files", "read_selection"):
        monkeypatch.setattr(pack_coverage, name, noted(getattr(pack_coverage, name)))
    covered = cover_pack(read(pack))
    gc.collect()
    assert (len(covered.maps), len(made)) == (2, 4)
    assert [reference() for reference in made] == [None] * 4


TEXT = """\
{
  "edition": 1, "kernel": "NAME", "platform": "HERE", "tuned_with": {},
  "configs": [{"num_warps": 8}], "cases": [{"key": {"num_tokens": 1}, "config": 0}]
}
"""


def test_ops_and_platforms_that_are_given(pack):
    """Names are taken with the namespace or without, and GPUs by any of their names."""
    covered = cover_pack(read(pack), ops=["demo::twice", "twice"], given=["NVIDIA H200 NVL", "cpu"])
    assert found(covered) == [("twice", "nvidia_h200", (2, 1)), ("twice", "cpu", (0, 0))]
    assert covered.notes == ()


def test_without_configs_it_says_so(demo):
    covered = cover_pack(read(demo))
    assert (covered.platforms, covered.maps) == ((), ())
    assert covered.notes == (
        "pack 'demo' has no configs for any platform; name one with platform=",
    )


def test_a_platform_that_is_probably_misspelt(pack):
    with pytest.raises(UsageError, match="known here; did you mean 'nvidia_h20'"):
        cover_pack(read(pack), given=["nvidia_h20o"])


def test_configs_of_a_variant_are_those_of_nobody(pack):
    """Where variants go together, a file of one of them is found, and told."""
    pack.configs(
        "thrice", platform="nvidia_h100_pcie", text=TEXT.replace("HERE", "nvidia_h100_pcie")
    )
    covered = cover_pack(read(pack), ops=["thrice"])
    assert covered.notes == ("nvidia_h100: configs of its variant nvidia_h100_pcie are borrowed",)
    assert found(covered)[0] == ("thrice", "nvidia_h100", (0, 0))
    assert covered.maps[0].borrows[0] == "nvidia_h100_pcie"


WRONG = {
    "op": ({"ops": ["twise"]}, "pack 'demo' has no op 'twise'; did you mean 'twice'?"),
    "far-op": ({"ops": ["x"]}, "pack 'demo' has no op 'x'; it has thrice, twice"),
    "namespace": ({"ops": ["demi::twice"]}, "pack 'demo' has no op 'demi::twice'; did you mean 'demo::twice'?"),
    "platform": ({"given": ["--"]}, "platform '--' is not a name such as nvidia_h200 or cpu"),
    "model": ({"models": ["oter"]}, "pack 'demo' has no model 'oter' in [models]; did you mean 'other'?"),
    "far-model": ({"models": ["x"]}, "pack 'demo' has no model 'x' in [models]; it has one, other"),
}  # fmt: skip


@pytest.mark.parametrize(("asked", "line"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_is_wrong_usage(pack, asked, line):
    with pytest.raises(UsageError) as caught:
        cover_pack(read(pack), **asked)
    assert str(caught.value) == line


def test_models_that_are_given(pack):
    covered = cover_pack(read(pack), ops=["twice"], models=["one"])
    assert [model.name for model in covered.maps[0].models] == ["one"]


def test_an_op_with_broken_files_hides_no_other(pack):
    """Its problems are told, once for all platforms, and the others are mapped."""
    pack.edit("kernels/thrice/kernel.toml", 'match = "ceil"', 'match = "cel"')
    pack.configs("twice", platform="nvidia_h100", text="{")
    covered = cover_pack(read(pack), given=["nvidia_h200", "cpu"])
    assert found(covered) == [("twice", "nvidia_h200", (2, 1)), ("twice", "cpu", (0, 0))]
    assert covered.maps[0].borrows == ()
    assert [(problem.path, problem.code) for problem in covered.problems] == [
        ("configs/twice/nvidia_h100.json", "KP501"),
        ("kernels/thrice/kernel.toml", "KP012"),
    ]


def test_overlays_go_before_the_configs_of_the_pack(pack, tmp_path):
    """The file that won is named."""
    overlay = tmp_path / "mine" / "twice" / "nvidia_h200.json"
    overlay.parent.mkdir(parents=True)
    overlay.write_text(TEXT.replace("NAME", "twice").replace("HERE", "nvidia_h200"))
    over = evolve(read(pack), overlays=(str(tmp_path / "mine"),))
    (entry,) = cover_pack(over, ops=["twice"]).maps
    assert (entry.place.overlay, entry.place.shown) == (True, str(overlay))
    assert entry.counts == (1, 1)


def test_the_document(pack):
    """It is plain JSON, its configs are told once, and every answer finds its own."""
    document = cover_pack(read(pack), ops=["twice"]).to_json()
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert (document["pack"], document["platforms"], document["notes"]) == (
        "demo", ["nvidia_h200"], [],
    )  # fmt: skip
    (op,) = document["ops"]
    assert list(op) == [
        *("kernel", "op", "platform", "unverified", "file", "cases", "tuned_configs", "borrows"),
        *("axis", "outcomes", "farthest", "rows", "sizes", "models", "configs"),
    ]
    assert (op["op"], op["file"]) == ("demo::twice", "configs/twice/nvidia_h200.json")
    assert op["configs"] == [{"block_sizes": [16], "num_warps": 4}]
    assert op["outcomes"]["exact"] == 2
    (row,) = op["rows"]
    assert row["axes"] == {}
    assert [(call["value"], call["outcome"], call["config"]) for call in row["calls"]] == [
        (1, "exact", 0), (4, "exact", 0),
    ]  # fmt: skip
    assert row["line"][1] == {
        "first": 2,
        "last": 3,
        "outcome": "bucketed",
        "origin": "tuned",
        "tuned_on": "nvidia_h200",
        "key": {"num_tokens": 4},
        "config": 0,
        "moves": [{"axis": "num_tokens", "value": 2, "to": 4, "extrapolated": False, "ratio": 2.0}],
        "reason": "bucketed case num_tokens=4",
        "unless": [],
    }
    assert [(m["model"], m["given"], m["outcomes"]["bucketed"]) for m in op["models"]] == [
        ("one", {"num_tokens": 2}, 1), ("other", {}, 0),
    ]  # fmt: skip


def test_an_extrapolation_from_nothing_has_no_ratio_in_the_document(pack):
    """JSON has no infinity."""
    pack.edit("kernels/twice/kernel.toml", "num_tokens = [1, 4]", "num_tokens = [0, 4]")
    pack.edit("kernels/twice/kernel.toml", 'match = "ceil"', 'match = "nearest"')
    (op,) = cover_pack(read(pack), ops=["twice"]).to_json()["ops"]
    assert op["farthest"] == {
        "axis": "num_tokens", "value": 0, "to": 1, "extrapolated": True, "ratio": None,
    }  # fmt: skip


def test_an_op_is_left_out_where_its_own_file_is_broken(pack):
    pack.configs("twice", text="{")
    covered = cover_pack(read(pack), given=["nvidia_h200", "cpu"], ops=["twice"])
    assert found(covered) == [("twice", "cpu", (0, 0))]
    assert [problem.code for problem in covered.problems] == ["KP501"]
