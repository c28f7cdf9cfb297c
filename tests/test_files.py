"""The files of one kernel: each is read once and parsed once."""

from __future__ import annotations

import ast
import os
from pathlib import Path

import pytest

from kernelpkg.files import Files, digest_bytes, read_plain, replace_text, replace_texts


def test_an_edit_is_not_seen_twice(tmp_path):
    """What was read stays what it was, as content, tree and digest; new files see the edit."""
    path = tmp_path / "kernel.py"
    path.write_text("x = 1")
    files = Files()
    assert files.read(path) == b"x = 1"
    path.write_text("x = 2")
    assert files.read(path) == b"x = 1"
    assert ast.unparse(files.tree(path, "kernel.py")) == "x = 1"
    assert files.tree(path, "kernel.py") is files.tree(path, "kernel.py")
    assert files.parsed(path) is files.tree(path, "kernel.py")
    assert files.digests(tmp_path) == {"kernel.py": digest_bytes(b"x = 1")}
    assert Files().read(path) == Files().parsed(path) == b"x = 2"


def test_a_directory_is_listed_once(tmp_path):
    """What came in later is not seen; a directory that is not there raises each time."""
    files = Files()
    with pytest.raises(FileNotFoundError):
        files.names(tmp_path / "x")
    for name in ("b", "a"):
        (tmp_path / "x" / name).mkdir(parents=True)
    assert files.names(tmp_path / "x") == ["a", "b"]
    (tmp_path / "x" / "c").mkdir()
    assert files.names(tmp_path / "x") == ["a", "b"]
    assert Files().names(tmp_path / "x") == ["a", "b", "c"]


@pytest.mark.parametrize("root", [Path("/packs/a"), Path("/"), Path("packs")], ids=str)
def test_digests_below_a_root_are_those_of_its_folders(monkeypatch, root):
    """A root may be the topmost directory, and folders whose names begin alike are others."""
    monkeypatch.setattr("kernelpkg.files.read_file", lambda path: str(path).encode())
    files = Files()
    for name in ("kernels/x/kernel.py", "kernels/xy/kernel.py", "configs/x/a.json", "own/x/a.json"):
        files.read(root / name)
    files.read(Path("/elsewhere/kernels/x/kernel.py"))
    found = files.digests(root, ("kernels/x", "configs/x"))
    assert found == {
        name: digest_bytes(str(root / name).encode())
        for name in ("kernels/x/kernel.py", "configs/x/a.json")
    }


def test_links_are_followed(tmp_path):
    """A file below a linked directory, and a linked file, are where they really are."""
    real = tmp_path / "real"
    real.mkdir()
    (real / "it.py").write_text("")
    (tmp_path / "link").symlink_to(real)
    (tmp_path / "other.py").symlink_to(real / "it.py")
    for path in (tmp_path / "link" / "it.py", tmp_path / "other.py", real / "it.py"):
        assert Files().resolve(path) == (real / "it.py").resolve()


def test_a_circle_of_links(tmp_path):
    """Links that go round in a circle raise, as they do for Path.resolve."""
    (tmp_path / "a.py").symlink_to(tmp_path / "b.py")
    (tmp_path / "b.py").symlink_to(tmp_path / "a.py")
    with pytest.raises((OSError, RuntimeError)):
        Files().resolve(tmp_path / "a.py")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"\xef\xbb\xbfa\r\nb\r\n", b"a\nb\n"),
        (b"a\rb\n\rc", b"a\rb\n\rc"),
        (b"a\xef\xbb\xbf", b"a\xef\xbb\xbf"),
        (b"\xff\xfea\x00", b"\xff\xfea\x00"),
    ],
    ids=["windows", "other-returns", "mark-elsewhere", "utf-16"],
)
def test_a_text_is_read_without_what_windows_adds(tmp_path, text, expected):
    """A mark and line ends; nothing else is changed."""
    (tmp_path / "x").write_bytes(text)
    assert read_plain(tmp_path / "x") == Files().read(tmp_path / "x") == expected
    assert Files().digest(tmp_path / "x") == digest_bytes(expected)


def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path):
    """A pipe has no end until somebody writes into it."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="Not a regular file"):
        Files().read(tmp_path / "pipe")


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
