"""The record of a pack in a vLLM tree: its text, and records that are not believed."""

from __future__ import annotations

import json

import pytest

from kernelpkg.errors import PackError
from kernelpkg.vllm.vendor.vendorrecord import Record, read_record, record_path

SHOWN = "vllm/kernels/helion/demo.vendored.json"
OP = "vllm/kernels/helion/ops/x.py"
CONFIG = "vllm/kernels/helion/configs/x/nvidia_h200.json"
ONE, TWO, THREE = (f"sha256-{digit * 64}" for digit in "123")
RECORD = Record(
    pack="demo",
    version="0.1.0",
    kernelpkg="0.1.0",
    kernels={"x": {"version": 1, "kernel.toml": ONE}},
    files={OP: ONE, CONFIG: TWO},
)


def write(root, text):
    path = root / SHOWN
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text if isinstance(text, str) else json.dumps(text))


def test_a_record_reads_as_it_was_written(tmp_path):
    """Paths and kernels are sorted, so that one state of a pack has one text."""
    assert record_path("demo") == SHOWN
    write(tmp_path, RECORD.text())
    found = read_record(tmp_path, "demo")
    assert found == RECORD
    assert RECORD.text() == (
        '{\n  "edition": 1,\n  "pack": "demo",\n  "version": "0.1.0",\n  "kernelpkg": "0.1.0",\n'
        '  "kernels": {\n    "x": {\n      "version": 1,\n'
        f'      "kernel.toml": "{ONE}"\n    }}\n  }},\n'
        f'  "files": {{\n    "{CONFIG}": "{TWO}",\n    "{OP}": "{ONE}"\n  }}\n}}\n'
    )


def test_no_record_is_none(tmp_path):
    assert read_record(tmp_path, "demo") is None


def test_a_file_is_ours_with_either_digest():
    """A run that was killed left some files as before, and others as they shall be."""
    record = Record(
        pack="demo", version="1", kernelpkg="1", kernels={}, files={OP: ONE}, pending={OP: TWO}
    )
    assert [record.ours(OP, digest) for digest in (ONE, TWO, THREE)] == [True, True, False]
    assert not record.ours(CONFIG, ONE)
    assert json.loads(record.text())["pending"] == {OP: TWO}


def changed(**fields):
    return {**json.loads(RECORD.text()), **fields}


WRONG = {
    "no json": ("{", "the record is not JSON"),
    "no object": ("[]", "the record is not one of pack 'demo'"),
    "no edition": (changed(edition="1"), "the record is not one of pack 'demo'"),
    "another pack": (changed(pack="other"), "the record is not one of pack 'demo'"),
    "no digest": (changed(files={OP: "1"}), "the record is not one of pack 'demo'"),
    "no files": (changed(files=[OP]), "the record is not one of pack 'demo'"),
    "no kernels": (changed(kernels={"x": 1}), "the record is not one of pack 'demo'"),
    "a file elsewhere": (
        changed(files={"vllm/envs.py": ONE}), "the record is not one of pack 'demo'",
    ),
    "a file above": (
        changed(files={"vllm/kernels/helion/ops/../../x.py": ONE}),
        "the record is not one of pack 'demo'",
    ),
    "the package itself": (
        changed(pending={"vllm/kernels/helion/ops/__init__.py": ONE}),
        "the record is not one of pack 'demo'",
    ),
    "configs above": (
        changed(files={"vllm/kernels/helion/configs/../x.json": ONE}),
        "the record is not one of pack 'demo'",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("text", "what"), WRONG.values(), ids=WRONG)
def test_a_record_that_is_none_is_not_believed(tmp_path, text, what):
    """Files that it names would be removed, so that it must name none but ours."""
    write(tmp_path, text)
    with pytest.raises(PackError) as caught:
        read_record(tmp_path, "demo")
    assert str(caught.value) == f"{SHOWN}: KP805 {what}; remove it, and run with --replace"


def test_a_newer_record_is_left_alone(tmp_path):
    write(tmp_path, changed(edition=2))
    with pytest.raises(PackError) as caught:
        read_record(tmp_path, "demo")
    assert str(caught.value) == (
        f"{SHOWN}: KP805 the record is of edition 2, and this kernelpkg reads 1; upgrade kernelpkg"
    )


def test_a_record_that_cannot_be_read_is_told(tmp_path):
    (tmp_path / SHOWN).mkdir(parents=True)
    with pytest.raises(PackError) as caught:
        read_record(tmp_path, "demo")
    assert str(caught.value) == (
        f"{SHOWN}: KP805 the record cannot be read: Is a directory; remove it, and run with "
        "--replace"
    )
