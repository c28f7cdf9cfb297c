"""What has drifted, in words that say whose change it is."""

from __future__ import annotations

import pytest
from attrs import evolve

from kernelpkg.errors import Problem
from kernelpkg.packs.lock import LockedConfigs, LockedKernel, LockedPack
from kernelpkg.packs.lockcheck import drift, needs_fingerprints, of_file

A, B, C = (f"sha256-{letter * 64}" for letter in "abc")
TOOLS = {"kernelpkg": "0.1", "python": "3.11", "torch": "2.13", "helion": "1.4", "triton": "3.6"}
CONFIGS = LockedConfigs(file=A, cases=2, configs=1)
KERNEL = LockedKernel(
    version=1,
    schema="(Tensor input) -> Tensor",
    files={"kernel.toml": A, "kernel.py": A, "host.py": A},
    sources={"kernel.py": A, "host.py": A},
    configs={"nvidia_h200": CONFIGS},
    fingerprints={"dtype=bfloat16": A},
)
PACK = LockedPack(version="0.1.0", manifest=A, tools=TOOLS, kernels={"twice": KERNEL})


def with_kernel(**changes):
    return evolve(PACK, kernels={"twice": evolve(KERNEL, **changes)})


def lines(found, locked=PACK, **given):
    return [str(entry) for entry in drift("demo", locked, found, **given)]


def test_what_is_as_it_was_has_not_drifted():
    assert lines(PACK) == []


FIT = "; lists in its configs may not fit"
TUNED = "; what was tuned with the one may be slow or refused with the other"


@pytest.mark.parametrize(
    ("found", "said"),
    [
        pytest.param(
            with_kernel(
                files={**KERNEL.files, "kernel.py": B}, sources={**KERNEL.sources, "kernel.py": B}
            ),
            ["kernels/twice/kernel.py: KP312 what the source does changed"],
            id="source",
        ),
        pytest.param(
            with_kernel(files={**KERNEL.files, "kernel.py": B}),
            [
                (
                    "kernels/twice/kernel.py: KP314 only comments, layout or docstrings of the "
                    "source changed"
                )
            ],
            id="comments",
        ),
        pytest.param(
            with_kernel(files={"kernel.toml": A, "kernel.py": A, "more.py": A}),
            [
                (
                    "kernels/twice/host.py: KP312 is named by the manifest no more since the "
                    "kernel was locked"
                ),
                "kernels/twice/more.py: KP312 came in since the kernel was locked",
            ],
            id="files",
        ),
        pytest.param(
            with_kernel(files={**KERNEL.files, "kernel.toml": B}),
            [
                (
                    "kernels/twice/kernel.toml: KP311 the kernel's manifest changed; its version "
                    "is 1 as before"
                )
            ],
            id="manifest",
        ),
        pytest.param(
            with_kernel(schema="(Tensor x) -> Tensor", version=2),
            [
                (
                    "kernels/twice/kernel.toml: KP313 the op's schema changed from "
                    "'(Tensor input) -> Tensor' to '(Tensor x) -> Tensor'; its version was 1 "
                    "and is 2"
                )
            ],
            id="schema",
        ),
        pytest.param(
            with_kernel(configs={"nvidia_h200": evolve(CONFIGS, file=B)}),
            [
                (
                    "configs/twice/nvidia_h200.json: KP315 the configs changed (2 cases, 1 configs "
                    "as before)"
                )
            ],
            id="configs",
        ),
        pytest.param(
            with_kernel(configs={"nvidia_h200": evolve(CONFIGS, file=B, cases=3, configs=2)}),
            [
                (
                    "configs/twice/nvidia_h200.json: KP315 the configs changed (2 cases, 1 configs "
                    "were locked, 3 cases, 2 configs are there)"
                )
            ],
            id="configs-counts",
        ),
        pytest.param(
            with_kernel(configs={"nvidia_b200": CONFIGS}),
            [
                (
                    "configs/twice/nvidia_b200.json: KP315 these configs came in after the pack "
                    "was locked (2 cases, 1 configs)"
                ),
                (
                    "configs/twice/nvidia_h200.json: KP315 these configs were locked (2 cases, "
                    "1 configs), and are not there any more"
                ),
            ],
            id="configs-platforms",
        ),
        pytest.param(
            evolve(PACK, manifest=B, version="0.2.0"),
            [
                (
                    "manifests/demo.toml: KP311 the manifest of the pack changed; its version was "
                    "0.1.0 and is 0.2.0"
                )
            ],
            id="pack-manifest",
        ),
        pytest.param(
            evolve(PACK, kernels={"second": KERNEL}),
            [
                (
                    "kernels/second/kernel.toml: KP310 kernel 'second' came in after the pack was "
                    "locked"
                ),
                (
                    "kernels/twice/kernel.toml: KP310 kernel 'twice' was locked, and is not there "
                    "any more"
                ),
            ],
            id="kernels",
        ),
        pytest.param(
            evolve(PACK, tools={**TOOLS, "helion": "1.5", "torch": "2.14", "triton": "3.7"}),
            [
                f"helion: KP316 version 1.4 was locked, and 1.5 is installed{TUNED}",
                f"torch: KP316 version 2.13 was locked, and 2.14 is installed{TUNED}",
                f"triton: KP316 version 3.6 was locked, and 3.7 is installed{TUNED}",
            ],
            id="tools",
        ),
        pytest.param(
            evolve(
                with_kernel(fingerprints={"dtype=bfloat16": B}), tools={**TOOLS, "helion": "1.5"}
            ),
            [
                f"helion: KP316 version 1.4 was locked, and 1.5 is installed{TUNED}",
                (
                    "kernels/twice: KP317 variant dtype=bfloat16 has another structure than was "
                    f"locked, by a change of helion{FIT}"
                ),
            ],
            id="structure",
        ),
        pytest.param(
            with_kernel(fingerprints={"dtype=bfloat16": B}),
            [
                (
                    "kernels/twice: KP317 variant dtype=bfloat16 has another structure than was "
                    f"locked, by a change of an installed package that was edited{FIT}"
                ),
            ],
            id="structure-of-nothing-known",
        ),
        pytest.param(
            with_kernel(fingerprints={"dtype=float16": A}),
            [
                (
                    "kernels/twice: KP317 variant dtype=bfloat16 is none any more since the kernel "
                    "was locked"
                ),
                "kernels/twice: KP317 variant dtype=float16 came in since the kernel was locked",
            ],
            id="variants",
        ),
    ],
)
def test_each_change_is_told_by_its_own_line(found, said):
    assert lines(found) == said


def test_trees_of_another_python_are_not_compared():
    found = evolve(
        with_kernel(files={**KERNEL.files, "kernel.py": B}), tools={**TOOLS, "python": "3.12"}
    )
    assert lines(found) == [
        (
            "kernels/twice/kernel.py: KP312 the source changed; whether what it does cannot be "
            "told, for it was locked with another Python"
        )
    ]


def test_another_python_or_kernelpkg_alone_is_no_drift():
    assert lines(evolve(PACK, tools={**TOOLS, "python": "3.12", "kernelpkg": "0.2"})) == []


def test_a_tool_that_is_not_installed_here_is_no_drift():
    assert lines(evolve(PACK, tools={"python": "3.11"})) == []


def test_fingerprints_that_one_side_lacks_are_not_compared():
    assert lines(with_kernel(fingerprints={})) == []
    assert lines(PACK, locked=with_kernel(fingerprints={})) == []


def test_nothing_is_said_of_kernels_that_are_broken():
    assert lines(evolve(PACK, kernels={}), broken=["twice"]) == []


def test_the_document_names_the_change():
    (found,) = drift("demo", PACK, evolve(PACK, tools={**TOOLS, "helion": "1.5"}))
    assert found.to_json() == {
        "path": "helion",
        "change": "helion",
        "code": "KP316",
        "message": f"version 1.4 was locked, and 1.5 is installed{TUNED}",
    }


@pytest.mark.parametrize(
    ("found", "names"),
    [
        pytest.param(PACK, (), id="nothing"),
        pytest.param(with_kernel(files={**KERNEL.files, "host.py": B}), ("twice",), id="file"),
        pytest.param(evolve(PACK, tools={**TOOLS, "triton": "3.7"}), ("twice",), id="tool"),
        pytest.param(evolve(PACK, tools={**TOOLS, "python": "3.12"}), (), id="python"),
        pytest.param(with_kernel(configs={}), (), id="configs"),
    ],
)
def test_fingerprints_stand_while_nothing_they_follow_from_changes(found, names):
    assert needs_fingerprints(PACK, found) == names


def test_fingerprints_are_needed_where_there_are_none():
    assert needs_fingerprints(None, PACK) == ("twice",)
    assert needs_fingerprints(with_kernel(fingerprints={}), PACK) == ("twice",)


@pytest.mark.parametrize(
    ("path", "change"),
    [
        pytest.param("kernels/twice/kernel.toml", "manifest", id="manifest"),
        pytest.param("kernels/twice/kernel.py", "source", id="source"),
        pytest.param("configs/twice/nvidia_h200.json", "configs", id="configs"),
    ],
)
def test_a_file_of_a_broken_kernel_says_whose_change_it_is(path, change):
    assert of_file(Problem(path=path, code="KP304", message="")).change == change
