"""One process at a time holds the lock of a tuning run."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from kernelpkg.autotune.tuninglock import locked
from kernelpkg.errors import PackError


def test_who_comes_second_is_told_who_came_first(tmp_path):
    with (
        locked(tmp_path / "a.lock", "configs/a"),
        pytest.raises(PackError) as caught,
        locked(tmp_path / "a.lock", "configs/a"),
    ):
        pass
    assert str(caught.value) == (
        f"configs/a: KP401 is being written by process {os.getpid()} on {os.uname().nodename}; "
        "wait for its end, or tune other ops"
    )


def test_a_lock_can_be_taken_after_its_end_and_names_its_last_owner_alone(tmp_path):
    path = tmp_path / "a.lock"
    path.write_text("process 123456789 on a host of a very long name that is gone by now")
    for _ in range(2):
        with locked(path, "configs/a"):
            assert path.read_text() == f"process {os.getpid()} on {os.uname().nodename}"


def test_an_error_inside_gives_the_lock_back(tmp_path):
    with pytest.raises(ValueError, match="inside"), locked(tmp_path / "a.lock", "configs/a"):
        raise ValueError("inside")
    with locked(tmp_path / "a.lock", "configs/a"):
        pass


def test_a_process_that_is_started_meanwhile_does_not_keep_it(tmp_path):
    with locked(tmp_path / "a.lock", "configs/a"):
        child = subprocess.Popen(
            [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, close_fds=False
        )
    with child, locked(tmp_path / "a.lock", "configs/a"):
        child.communicate(b"\n")


def test_a_directory_that_cannot_be_made_is_an_error_of_the_system(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError), locked(tmp_path / "file" / "b" / "a.lock", "a"):
        pass
