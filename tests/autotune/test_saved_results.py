"""Saved results of tuning: what is saved, what is refused, and that nothing is half there."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from attrs import evolve

from kernelpkg.autotune.saved_results import SavedResults, TuningRecord, open_results
from kernelpkg.errors import PackError

HERE = {"source": "sha256-1", "helion": "1.4.0"}
NEWER = {"source": "sha256-1", "helion": "1.5.1"}
FILE = ".tuning/twice/nvidia_h200.sqlite3"
SHOWN = f"configs/{FILE}"
RECORD = TuningRecord(
    key={"num_tokens": 4},
    outcome="tuned",
    config={"block_sizes": [16]},
    ms=0.004,
    default_ms=0.005,
    noise=0.01,
    seconds=3.5,
    device="0",
    facts={"date": "2026-11-22"},
)


def opened(directory: Path) -> ExitStack:
    return open_results(directory, "configs", "twice", "nvidia_h200")


@pytest.fixture
def saved(tmp_path):
    with opened(tmp_path) as found:
        yield found


def test_a_record_comes_back_as_it_was_saved(tmp_path):
    with opened(tmp_path) as saved:
        saved.save(HERE, [RECORD])
    with opened(tmp_path) as saved:
        assert saved.records(HERE) == (RECORD,)


def test_records_count_under_their_own_conditions_only(saved: SavedResults):
    saved.save(HERE, [RECORD])
    assert saved.records(NEWER) == ()
    assert saved.outdated(NEWER) == (HERE,)
    assert saved.outdated(HERE) == ()


def test_a_case_that_is_saved_again_has_its_later_record(saved: SavedResults):
    saved.save(HERE, [RECORD])
    saved.save(HERE, [evolve(RECORD, outcome="kept")])
    assert [record.outcome for record in saved.records(HERE)] == ["kept"]


def test_a_record_is_not_the_latest_once_its_case_was_tuned_under_other_conditions(saved):
    other = evolve(RECORD, key={"num_tokens": 8})
    saved.save(HERE, [RECORD, other])
    saved.save(NEWER, [RECORD])
    assert saved.latest(HERE) == (other,)
    assert saved.latest(NEWER) == (RECORD,)


def test_keys_that_differ_in_type_only_are_two_cases(saved: SavedResults):
    saved.save(HERE, [evolve(RECORD, key={"flag": True}), evolve(RECORD, key={"flag": 1})])
    assert len(saved.records(HERE)) == 2


def test_notes_come_back_by_kind_and_key(saved: SavedResults):
    saved.note(HERE, "timed", [({"num_tokens": 4}, {"a": 1.5}), ({"num_tokens": 8}, None)])
    assert saved.notes(HERE, "timed") == {'{"num_tokens":4}': {"a": 1.5}, '{"num_tokens":8}': None}
    assert saved.notes(HERE, "searched") == {} == saved.notes(NEWER, "timed")


def test_what_is_forgotten_is_tuned_anew(saved: SavedResults):
    other = evolve(RECORD, key={"num_tokens": 8})
    saved.save(HERE, [RECORD, other])
    saved.note(HERE, "timed", [(RECORD.key, 1)])
    saved.forget(HERE, [RECORD.key])
    assert saved.records(HERE) == (other,)
    assert saved.notes(HERE, "timed") == {}


def test_several_records_are_saved_together_or_not_at_all(saved: SavedResults):
    with pytest.raises(TypeError):
        saved.save(HERE, [RECORD, evolve(RECORD, key={"num_tokens": 8}, config={"a": object()})])
    assert saved.records(HERE) == ()


def refused(directory: Path) -> str:
    """The one line with which saved results are refused."""
    with pytest.raises(PackError) as caught, opened(directory):
        pass
    assert len(caught.value.problems) == 1
    return str(caught.value)


def test_a_second_process_is_refused_and_told_who_writes_them(tmp_path):
    code = (
        "import sys, pathlib\nfrom kernelpkg.autotune.saved_results import open_results\n"
        "with open_results(pathlib.Path(sys.argv[1]), 'configs', 'twice', 'nvidia_h200'):\n"
        "    print('held', flush=True)\n    sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, tmp_path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == "held\n"
        line = refused(tmp_path)
        with open_results(tmp_path, "configs", "other", "nvidia_h200"):
            pass  # another op at the same time is fine
        process.kill()
    assert line == (
        f"{SHOWN}: KP401 is being written by process {process.pid} on {os.uname().nodename}; "
        "wait for it to end, or tune other ops"
    )
    with opened(tmp_path):
        pass  # the lock died with the process


def test_a_store_of_a_newer_edition_is_refused(tmp_path):
    with opened(tmp_path):
        pass
    with closing(sqlite3.connect(tmp_path / FILE)) as database:
        database.execute("PRAGMA user_version = 2")
    assert refused(tmp_path) == (
        f"{SHOWN}: KP404 edition 2 cannot be read; this version of kernelpkg reads edition 1; "
        "upgrade it, or move the file away"
    )


ASIDE = "move it away: what was tuned is in the config file, and the rest is tuned again"


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path):
    (tmp_path / FILE).parent.mkdir(parents=True)
    (tmp_path / FILE).write_bytes(b"no database at all, and long enough to be read as one" * 40)
    assert refused(tmp_path) == f"{SHOWN}: KP403 is damaged (file is not a database); {ASIDE}"
    assert (tmp_path / FILE).read_bytes().startswith(b"no database")


def test_a_database_that_is_damaged_inside_is_refused(tmp_path):
    with opened(tmp_path) as saved:
        saved.save(HERE, [evolve(RECORD, key={"num_tokens": n}) for n in range(200)])
    data = bytearray((tmp_path / FILE).read_bytes())
    data[4096 : len(data) - 4096] = b"\xff" * (len(data) - 8192)
    (tmp_path / FILE).write_bytes(data)
    line = refused(tmp_path)
    assert line.startswith(f"{SHOWN}: KP403 is damaged (")
    assert line.endswith(f"); {ASIDE}")


def test_a_record_that_is_no_record_is_refused(tmp_path):
    with opened(tmp_path) as saved:
        saved.save(HERE, [RECORD])
        saved._database.execute("UPDATE records SET record = '{}'")
        with pytest.raises(PackError) as caught:
            saved.records(HERE)
    assert str(caught.value) == f"{SHOWN}: KP403 is damaged (a record); {ASIDE}"


def test_a_database_of_another_program_is_refused(tmp_path):
    (tmp_path / FILE).parent.mkdir(parents=True)
    with closing(sqlite3.connect(tmp_path / FILE)) as database:
        database.execute("CREATE TABLE records (a)")
    assert refused(tmp_path) == f"{SHOWN}: KP403 does not hold results of tuning; {ASIDE}"


def test_a_directory_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / ".tuning").write_text("in the way")
    line = refused(tmp_path)
    assert line.startswith(f"{SHOWN}: KP402 cannot be written (")
    assert "; free the disk, correct the permissions, or choose another directory" in line


def test_a_full_disk_is_one_line_and_keeps_what_was_saved(tmp_path):
    with opened(tmp_path) as saved:
        saved.save(HERE, [RECORD])
        saved._database.execute("PRAGMA max_page_count = 1")  # SQLite's own way to be full
        big = evolve(RECORD, key={"num_tokens": 8}, reason="x" * 100_000)
        with pytest.raises(PackError) as caught:
            saved.save(HERE, [big])
    assert str(caught.value) == (
        f"{SHOWN}: KP402 cannot be written (database or disk is full); free the disk, correct the "
        "permissions, or choose another directory with into="
    )
    with opened(tmp_path) as saved:
        assert saved.records(HERE) == (RECORD,)
