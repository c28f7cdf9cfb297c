"""The files of one kernel: each is read once and parsed once."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kernelpkg.files import (
    Files,
    digest_bytes,
    locked,
    place_beside,
    read_plain,
    replace_text,
    replace_texts,
)


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
    with pytest.raises(OSError, match="No space left") as caught:
        replace_texts({tmp_path / "a": "new", tmp_path / "made" / "b": "new"})
    assert caught.value.filename == str(tmp_path / "a")
    assert os.listdir(tmp_path) == ["a"]
    assert (tmp_path / "a").read_text() == "old"


def test_who_comes_second_is_told_who_came_first(tmp_path):
    with (
        locked(tmp_path / "a.lock"),
        pytest.raises(BlockingIOError) as caught,
        locked(tmp_path / "a.lock"),
    ):
        pass
    assert caught.value.strerror == f"process {os.getpid()} on {os.uname().nodename}"


def test_a_lock_can_be_taken_after_its_end_and_names_its_last_owner_alone(tmp_path):
    path = tmp_path / "a.lock"
    path.write_text("process 123456789 on a host of a very long name that is gone by now")
    for _ in range(2):
        with locked(path):
            assert path.read_text() == f"process {os.getpid()} on {os.uname().nodename}"


def test_an_error_inside_gives_the_lock_back(tmp_path):
    with pytest.raises(ValueError, match="inside"), locked(tmp_path / "a.lock"):
        raise ValueError("inside")
    with locked(tmp_path / "a.lock"):
        pass


def test_a_process_that_is_started_meanwhile_does_not_keep_it(tmp_path):
    with locked(tmp_path / "a.lock"):
        child = subprocess.Popen(
            [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, close_fds=False
        )
    with child, locked(tmp_path / "a.lock"):
        child.communicate(b"\n")


def test_a_directory_that_cannot_be_made_is_an_error_of_the_system(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError), locked(tmp_path / "file" / "b" / "a.lock"):
        pass


def test_nothing_is_left_of_a_lock(tmp_path):
    """Neither the file nor directories that were made for it, but what came into them."""
    with locked(tmp_path / "a" / "b" / "c.lock"):
        (tmp_path / "a" / "file").touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "file"]


def test_a_file_that_its_holder_removed_meanwhile_is_not_locked(tmp_path, monkeypatch):
    """Who waits at the old file while another process makes a new one would have no lock."""
    path, opened = tmp_path / "a.lock", os.open

    def open_and_replace(*args, **options):
        monkeypatch.setattr(os, "open", opened)
        descriptor = opened(*args, **options)
        path.unlink()
        path.touch()
        return descriptor

    monkeypatch.setattr(os, "open", open_and_replace)
    with locked(path), pytest.raises(BlockingIOError), locked(path):
        pass


def test_a_lock_dies_with_its_process(tmp_path):
    path = tmp_path / "a.lock"
    code = (
        "import os, pathlib, signal, sys\nfrom kernelpkg.files import locked\n"
        "with locked(pathlib.Path(sys.argv[1])):\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert path.exists()
    with locked(path):
        pass
    assert not path.exists()


def test_what_killed_writers_left_is_removed_by_the_next(tmp_path):
    """By its name and age: another writer may be at work, and other files are no business of it."""
    names = [
        ".a.0123456789abcdef.tmp",
        ".b.0123456789abcdef.tmp",
        ".a.tmp",
        "a.0123456789abcdef.tmp",
    ]
    for name in names:
        (tmp_path / name).write_text("half")
        os.utime(tmp_path / name, (0, 0))
    place_beside(tmp_path / "kernel").mkdir()
    old = place_beside(tmp_path / "kernel")
    old.mkdir()
    (old / "kernel.py").write_text("half")
    os.utime(old, (0, 0))
    replace_text(tmp_path / "a", "new")
    left = {name for name in os.listdir(tmp_path) if not name.startswith(".kernel.")}
    assert left == {"a", ".a.tmp", "a.0123456789abcdef.tmp"}
    assert len(list(tmp_path.glob(".kernel.*.tmp"))) == 1 and not old.exists()


def test_a_failure_names_the_file_and_not_the_one_beside_it(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(IsADirectoryError) as caught:
        replace_text(tmp_path / "a", "new")
    assert caught.value.filename == str(tmp_path / "a")
