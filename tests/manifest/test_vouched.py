"""Kernels that a lock vouches for: the tables for calls are read when they are first asked for."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from attrs import fields

from kernelpkg.errors import PackError
from kernelpkg.manifest import document
from kernelpkg.manifest.spec import KernelSpec, VouchedSpec
from kernelpkg.packs.read import read_kernel

GOOD = Path(__file__).parents[1] / "golden" / "good"
TEXT = (GOOD / "kernels/x/kernel.toml").read_text()
EDITION, KERNEL, OP, HELION, REST = (
    TEXT[TEXT.index(start) : TEXT.index(end) if end else None]
    for start, end in [
        ("edition", "[kernel]"),
        ("[kernel]", "[op]"),
        ("[op]", "[helion]"),
        ("[helion]", "[axes]"),
        ("[axes]", ""),
    ]
)


@pytest.fixture
def root(tmp_path):
    shutil.copytree(GOOD, tmp_path, dirs_exist_ok=True)
    return tmp_path


def read(root, text):
    """Return the kernel of a manifest as it is read where a lock vouches for it."""
    (root / "kernels/x/kernel.toml").write_bytes(text.encode())
    return read_kernel(root, "x", checked=True)


def values(spec):
    return {field.name: getattr(spec, field.name) for field in fields(KernelSpec)}


LATER = {
    "as-usual": TEXT,
    "windows": TEXT.replace("\n", "\r\n"),
    "comments": TEXT.replace("[axes]", "# [axes]\n[axes] # [helion]"),
    "array-on-lines": TEXT.replace("[64, 128]", "[\n64,\n128\n]"),
    "others-in-any-order": EDITION + HELION + OP + KERNEL + REST,
}


@pytest.mark.parametrize("text", LATER.values(), ids=LATER)
def test_tables_for_calls_are_read_when_they_are_first_asked_for(root, monkeypatch, text):
    spec = read(root, text)
    assert type(spec) is VouchedSpec
    with monkeypatch.context() as patched:
        patched.delattr(document.tomllib, "loads")
        assert (spec.name, spec.fake_impl, spec.requires) == ("x", "none", ">=1.4")
        with pytest.raises(AttributeError, match="loads"):
            _ = spec.axes
    axes = spec.axes
    assert values(spec) == values(read_kernel(root, "x"))
    assert spec.axes is axes
    assert spec.key_axes == ("has_residual", "dtype", "hidden_size", "num_tokens")
    assert str(spec.axis_types["num_tokens"]) == "a whole number, 0 or more"


SETTINGS = 'settings = { ignore_warnings = ["TensorOperationInWrapper"] }\n'
MISS = '[miss]\naction = "default"\n'
SUMMARY = '"The input times a factor, plus a residual where one is given."'

ONCE = {
    "helion-last": EDITION + KERNEL + OP + REST + HELION,
    "helion-indented": EDITION + KERNEL + OP + REST + "  " + HELION,
    "helion-quoted": EDITION + KERNEL + OP + REST + HELION.replace("helion", '"helion"', 1),
    "a-table-of-helion-last": TEXT.replace(SETTINGS, "") + "[helion.settings]\nall = true\n",
    "axes-first": EDITION + REST + KERNEL + OP + HELION,
    "dotted-key": 'miss.action = "default"\n' + TEXT.replace(MISS, ""),
    "a-line-within-a-text": EDITION + OP + HELION
    + KERNEL.replace(SUMMARY, '"""\n[axes]\n"""') + REST,
}  # fmt: skip


@pytest.mark.parametrize("text", ONCE.values(), ids=ONCE)
def test_a_manifest_that_has_them_elsewhere_is_read_at_once(root, text):
    spec = read(root, text)
    assert type(spec) is KernelSpec
    assert values(spec) == values(read_kernel(root, "x"))


def test_what_is_wrong_with_them_is_reported_as_ever(root):
    """No lock holds such a kernel, unless somebody forged it."""
    spec = read(root, TEXT.replace("factor = 2.0", "factr = 2.0").replace("[64, 128]", "[{}]"))
    assert spec.name == "x"
    with pytest.raises(PackError) as error:
        _ = spec.args
    wanted = "a number, true, false or a text"
    assert [(problem.line, problem.code, problem.message) for problem in error.value.problems] == [
        (46, "KP012", f"entry 1 of 'hidden_size' must be {wanted}, not a table"),
        (59, "KP131", "argument 'factr' is not in the schema; did you mean 'factor'?"),
    ]
