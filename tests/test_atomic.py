"""Files that are replaced as a whole or not at all."""

from __future__ import annotations

import os

import pytest

from kernelpkg.atomic import replace_text, replace_texts


def test_a_text_takes_the_place_of_a_file_and_nothing_is_left_beside_it(tmp_path):
    path = tmp_path / "new" / "file"
    replace_text(path, "one\n")
    replace_text(path, "two\n")
    assert path.read_bytes() == b"two\n"
    assert os.listdir(path.parent) == ["file"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_disk_that_is_full_leaves_everything_as_it_was(tmp_path, monkeypatch, call):
    """Neither file is changed, no directory is left, and the error reaches the caller."""
    (tmp_path / "a").write_text("old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, call, full)
    with pytest.raises(OSError, match="No space left"):
        replace_texts({tmp_path / "a": "new", tmp_path / "made" / "b": "new"})
    assert os.listdir(tmp_path) == ["a"]
    assert (tmp_path / "a").read_text() == "old"
