"""The lock as a value, its bytes, and what is said of one that is not as `lock` wrote it."""

from __future__ import annotations

import errno
import os

import pytest
from attrs import evolve

from kernelpkg import atomic
from kernelpkg.errors import PackError
from kernelpkg.packs.lock import (
    FILE,
    Lock,
    LockedConfigs,
    LockedKernel,
    LockedPack,
    dumps,
    has_lock,
    read_lock,
    write_lock,
)

DIGEST = "4dfd75ba6701bbfb754b7d9ffaf7601bb1cda1a86f08138e72af1992f70679d1"
A, B = f"sha256-{'a' * 64}", f"sha256-{'b' * 64}"

KERNEL = LockedKernel(
    version=1,
    schema="(Tensor input) -> Tensor",
    files={"kernel.toml": A, "kernel.py": B},
    sources={"kernel.py": A},
    configs={"nvidia_h200": LockedConfigs(file=A, cases=2, configs=1, source=B)},
    fingerprints={"dtype=bfloat16": B},
)
PACK = LockedPack(version="0.1.0", manifest=A, tools={"python": "3.11"}, kernels={"twice": KERNEL})
LOCK = Lock(packs={"demo": PACK})


def problems(root) -> list[str]:
    with pytest.raises(PackError) as caught:
        read_lock(root)
    return [str(problem) for problem in caught.value.problems]


def test_the_text_is_written_out_in_full():
    assert (
        dumps(LOCK)
        == f"""\
# What the packs beside this file were when `kernelpkg lock` was run. Lock again instead of editing.
edition = 1
digest = "sha256-{DIGEST}"

[packs.demo]
version = "0.1.0"
manifest = "{A}"

[packs.demo.tools]
python = "3.11"

[packs.demo.kernels.twice]
version = 1
schema = "(Tensor input) -> Tensor"

[packs.demo.kernels.twice.files]
"kernel.py" = "{B}"
"kernel.toml" = "{A}"

[packs.demo.kernels.twice.sources]
"kernel.py" = "{A}"

[packs.demo.kernels.twice.fingerprints]
"dtype=bfloat16" = "{B}"

[packs.demo.kernels.twice.configs.nvidia_h200]
file = "{A}"
cases = 2
configs = 1
source = "{B}"
"""
    )


def test_what_is_written_is_read_again(tmp_path):
    write_lock(tmp_path, LOCK)
    assert read_lock(tmp_path) == LOCK


def test_the_bytes_do_not_depend_on_the_order_of_names():
    turned = evolve(KERNEL, files=dict(reversed([*KERNEL.files.items()])))
    packs = {"other": PACK, "demo": evolve(PACK, kernels={"twice": turned})}
    assert dumps(Lock(packs=packs)) == dumps(Lock(packs={"demo": PACK, "other": PACK}))


def test_optional_parts_may_be_absent(tmp_path):
    bare = evolve(KERNEL, configs={}, fingerprints={})
    lock = Lock(packs={"demo": evolve(PACK, tools={}, kernels={"twice": bare})})
    write_lock(tmp_path, lock)
    assert read_lock(tmp_path) == lock


def test_no_lock_is_none(tmp_path):
    assert not has_lock(tmp_path)
    assert read_lock(tmp_path) is None


def test_a_kernel_knows_the_digests_of_its_files_by_path():
    assert KERNEL.digests("twice") == {
        "kernels/twice/kernel.toml": A,
        "kernels/twice/kernel.py": B,
        "configs/twice/nvidia_h200.json": A,
    }


REMEDY = "; restore it, or run 'kernelpkg lock'"
EDITED = f"kernelpkg.lock: KP301 was edited by hand, or damaged{REMEDY}"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        pytest.param("cases = 2", "cases = 3", EDITED, id="value"),
        pytest.param("cases = 2", "cases  = 2", EDITED, id="layout"),
        pytest.param("configs = 1\n", "configs = 1\n# mine\n", EDITED, id="comment"),
        pytest.param("edition = 1\n", "edition = 1\n\n", EDITED, id="head"),
        pytest.param(f'digest = "sha256-{DIGEST}"', f'digest = "{A}"', EDITED, id="digest"),
        pytest.param(
            "edition = 1",
            "edition = 2",
            "kernelpkg.lock:2: KP002 edition 2 is newer than this version of kernelpkg reads (1); "
            "upgrade kernelpkg",
            id="newer",
        ),
        pytest.param(
            "[packs.demo]",
            "[packs.demo",
            "kernelpkg.lock:5: KP003 does not parse as TOML: Expected ']' at the end of a table "
            f"declaration{REMEDY}",
            id="no-toml",
        ),
        pytest.param(
            "cases = 2",
            "case = 2\ncases = 2",
            "kernelpkg.lock:28: KP010 key 'case' is not known in "
            f"[packs.demo.kernels.twice.configs.nvidia_h200]; did you mean 'cases'?{REMEDY}",
            id="unknown",
        ),
        pytest.param(
            "cases = 2",
            'cases = "2"',
            "kernelpkg.lock:28: KP012 'cases' must be a whole number at least 0, not a text "
            f"('2'){REMEDY}",
            id="type",
        ),
        pytest.param(
            '"kernel.py" = "sha256-b',
            '"../kernel.py" = "sha256-b',
            f"kernelpkg.lock:17: KP013 '../kernel.py' must be a path below its kernel{REMEDY}",
            id="path",
        ),
    ],
)
def test_a_lock_that_was_changed_is_told(tmp_path, old, new, said):
    text = dumps(LOCK)
    assert old in text
    (tmp_path / FILE).write_text(text.replace(old, new))
    assert problems(tmp_path) == [said]


def test_a_truncated_lock_is_told_at_every_length(tmp_path):
    text = dumps(LOCK)
    for length in range(0, len(text), 7):
        (tmp_path / FILE).write_text(text[:length])
        assert all(line.startswith("kernelpkg.lock") for line in problems(tmp_path))


def test_a_lock_of_no_text_is_told(tmp_path):
    (tmp_path / FILE).write_bytes(b"edition = 1\n\xff")
    assert problems(tmp_path) == [f"kernelpkg.lock:2: KP003 is not UTF-8; TOML files are{REMEDY}"]


def test_a_directory_in_its_place_is_told(tmp_path):
    (tmp_path / FILE).mkdir()
    assert problems(tmp_path) == [f"kernelpkg.lock: KP001 cannot be read: Is a directory{REMEDY}"]


@pytest.mark.parametrize("file", ["a..b.py", "fakes/../host.py", "a b/c.py", "x/…py.py"])
def test_every_path_that_a_manifest_may_name_is_read_again(tmp_path, file):
    named = evolve(KERNEL, files={file: A}, sources={file: B})
    lock = Lock(packs={"demo": evolve(PACK, kernels={"twice": named})})
    write_lock(tmp_path, lock)
    assert read_lock(tmp_path) == lock


def test_a_full_disk_leaves_the_old_lock(tmp_path, monkeypatch):
    write_lock(tmp_path, LOCK)

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(atomic.os, "fsync", full)
    with pytest.raises(PackError) as caught:
        write_lock(tmp_path, Lock())
    assert str(caught.value) == (
        "kernelpkg.lock: KP302 cannot be written: No space left on device; what was there is as "
        "it was"
    )
    assert read_lock(tmp_path) == LOCK
    assert os.listdir(tmp_path) == [FILE]
