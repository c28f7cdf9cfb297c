"""Saved results: every result of tuning one kernel on one platform, saved as it comes.

A SQLite database beside the config files: a result is committed as a whole or not at all, whenever
the process is killed, and others may read meanwhile. What it holds counts under the conditions it
was found under; the config file is written from it.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal

from attrs import asdict, frozen

from kernelpkg.configs.store import config_id
from kernelpkg.errors import PackError, pack_error, parameter
from kernelpkg.files import locked
from kernelpkg.manifest.helion_config import Config
from kernelpkg.manifest.spec import CaseKey

TuningOutcome = Literal["tuned", "kept", "wrong", "failed", "timeout"]
"""How a case ended: with another config than before, with the same, or without any."""

Conditions = Mapping[str, str]
"""What results hold for: the source, the tools, the GPU, the effort."""

DIRECTORY: Final = ".tuning"
"""The directory of saved results, beside the directories of kernels; hidden, so that nothing takes
it for configs."""

_EDITION: Final = 1
_APPLICATION: Final = 0x6B706B67
"""What SQLite files of ours say that they are: "kpkg"."""

_TABLES: Final = """
CREATE TABLE conditions (id INTEGER PRIMARY KEY, facts TEXT NOT NULL UNIQUE);
CREATE TABLE records (
  number INTEGER PRIMARY KEY AUTOINCREMENT, conditions INTEGER NOT NULL REFERENCES conditions,
  key TEXT NOT NULL, record TEXT NOT NULL, UNIQUE (conditions, key)
);
CREATE TABLE notes (
  conditions INTEGER NOT NULL REFERENCES conditions, kind TEXT NOT NULL, key TEXT NOT NULL,
  note TEXT NOT NULL, PRIMARY KEY (conditions, kind, key)
);
"""


@frozen(kw_only=True)
class TuningRecord:
    """What became of one case.

    `config` is what the case has now; None where it has none of this run, and `reason` says why.
    Times are in milliseconds, of the config, of the one before it, and of the default; `noise` is
    the share of a time that means nothing. `facts` are those of the run, as config files have them.
    """

    key: CaseKey
    outcome: TuningOutcome
    config: Config | None = None
    ms: float | None = None
    old_ms: float | None = None
    default_ms: float | None = None
    noise: float | None = None
    reason: str = ""
    seconds: float = 0.0
    device: str = ""
    facts: Mapping[str, str]


class SavedResults:
    """The results of one kernel on one platform; made by `open_results`."""

    def __init__(self, database: sqlite3.Connection, shown: str) -> None:
        self._database = database
        self._shown = shown

    def records(self, conditions: Conditions) -> tuple[TuningRecord, ...]:
        """Return the finished cases under the same conditions, by their keys."""
        return self._records(conditions)

    def latest(self, conditions: Conditions) -> tuple[TuningRecord, ...]:
        """Return those of `records` whose case was not tuned since under other conditions."""
        latest = "AND number = (SELECT max(number) FROM records AS o WHERE o.key = records.key)"
        return self._records(conditions, latest)

    def _records(self, conditions: Conditions, more: str = "") -> tuple[TuningRecord, ...]:
        rows = self._read(
            "SELECT record FROM records JOIN conditions ON conditions.id = records.conditions "
            f"WHERE facts = ? {more} ORDER BY key",
            _text(conditions),
        )
        try:
            found = tuple(TuningRecord(**json.loads(record)) for (record,) in rows)
        except (ValueError, TypeError):
            raise self.damaged() from None
        parts = [(r.key, r.config or {}, r.facts) for r in found]
        if not all(isinstance(part, dict) for record in parts for part in record):
            raise self.damaged()
        return found

    def damaged(self) -> PackError:
        """Return the error of a record that is not as one was saved."""
        return pack_error(self._shown, "KP403", f"is damaged (a record); {_ASIDE}")

    def outdated(self, conditions: Conditions) -> tuple[Conditions, ...]:
        """Return other conditions that there are finished cases under, the latest first."""
        rows = self._read(
            "SELECT facts FROM conditions WHERE facts != ? "
            "AND id IN (SELECT conditions FROM records) ORDER BY id DESC",
            _text(conditions),
        )
        return tuple(self._loaded(facts) for (facts,) in rows)

    def save(self, conditions: Conditions, records: Iterable[TuningRecord]) -> None:
        """Save finished cases, all at once; when this returns, nothing can undo it."""
        with self._writing() as database:
            place = _place(database, conditions)
            for record in records:
                row = (place, config_id(record.key), json.dumps(asdict(record)))
                database.execute(
                    "INSERT OR REPLACE INTO records (conditions, key, record) VALUES (?, ?, ?)", row
                )

    def note(self, conditions: Conditions, kind: str, notes: Iterable[tuple[CaseKey, Any]]) -> None:
        """Save what was found on the way to results, such as times of one case, all at once."""
        with self._writing() as database:
            place = _place(database, conditions)
            for key, note in notes:
                row = (place, kind, config_id(key), json.dumps(note))
                database.execute("INSERT OR REPLACE INTO notes VALUES (?, ?, ?, ?)", row)

    def notes(self, conditions: Conditions, kind: str) -> dict[str, Any]:
        """Return the notes of a kind, by the texts of their keys (`config_id`)."""
        rows = self._read(
            "SELECT key, note FROM notes JOIN conditions ON conditions.id = notes.conditions "
            "WHERE facts = ? AND kind = ? ORDER BY key",
            _text(conditions),
            kind,
        )
        return {key: self._loaded(note) for key, note in rows}

    def _loaded(self, text: str) -> Any:
        try:
            return json.loads(text)
        except ValueError:
            raise self.damaged() from None

    def forget(self, conditions: Conditions, keys: Iterable[CaseKey]) -> None:
        """Drop the results of cases, and the notes of them, so that they are tuned anew."""
        with self._writing() as database:
            place = _place(database, conditions)
            for key in keys:
                for table in ("records", "notes"):
                    database.execute(
                        f"DELETE FROM {table} WHERE conditions = ? AND key = ?",
                        (place, config_id(key)),
                    )

    def _read(self, query: str, *values: str) -> list[tuple[str, ...]]:
        with _told(self._shown):
            return self._database.execute(query, values).fetchall()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with _told(self._shown), self._database:
            # The write lock from the start: SQLite may refuse to upgrade a read lock, unwaited for.
            self._database.execute("BEGIN IMMEDIATE")
            yield self._database


@contextlib.contextmanager
def open_results(directory: Path, shown: str, kernel: str, platform: str) -> Iterator[SavedResults]:
    """Open the saved results of a kernel below a directory of configs, for this process alone.

    `shown` is the directory in messages. Raises PackError, in one line, where another process
    writes it, where it cannot be written, is damaged, or was made by a newer kernelpkg.
    """
    file = f"{DIRECTORY}/{kernel}/{platform}.sqlite3"
    path, name = directory / file, f"{shown}/{file}"
    with contextlib.ExitStack() as held:
        with _told(name):
            # SQLite's own locks last for one transaction, and a run has the file for hours.
            try:
                held.enter_context(locked(path.with_suffix(".lock")))
            except BlockingIOError as error:
                message = (
                    f"is being written by {error.strerror}; wait for it to end, or tune other "
                )
                raise pack_error(name, "KP401", f"{message}ops") from None
            # None: Python begins nothing by itself, so that what `_writing` ends is all there is.
            database = sqlite3.connect(path, isolation_level=None)
            held.callback(database.close)
            _prepare(database, name)
        yield SavedResults(database, name)


def _prepare(database: sqlite3.Connection, name: str) -> None:
    """Make the tables of a new database, and check those of an old one."""
    application, edition = (
        database.execute(f"PRAGMA {pragma}").fetchone()[0]
        for pragma in ("application_id", "user_version")
    )
    tables = database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if not tables:
        with database:
            database.execute("BEGIN IMMEDIATE")
            for statement in _TABLES.split(";"):
                database.execute(statement)
            database.execute(f"PRAGMA application_id = {_APPLICATION}")
            database.execute(f"PRAGMA user_version = {_EDITION}")
        return
    if application != _APPLICATION:
        raise pack_error(name, "KP403", f"does not hold results of tuning; {_ASIDE}")
    if edition != _EDITION:
        what = f"edition {edition} cannot be read; this version of kernelpkg reads edition"
        raise pack_error(name, "KP404", f"{what} {_EDITION}; upgrade it, or move the file away")
    found = database.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        raise sqlite3.DatabaseError(found)


_ASIDE: Final = "move it away: what was tuned is in the config file, and the rest is tuned again"


@contextlib.contextmanager
def _told(name: str) -> Iterator[None]:
    """Turn what SQLite and the file system raise into the one line of a problem."""
    try:
        yield
    except (OSError, sqlite3.OperationalError) as error:  # a full disk, a lock that stays
        message = (
            f"cannot be written ({getattr(error, 'strerror', error)}); free the disk, correct the "
            f"permissions, or choose another directory with {parameter('into')}"
        )
        raise pack_error(name, "KP402", message) from None
    except sqlite3.DatabaseError as error:
        raise pack_error(name, "KP403", f"is damaged ({error}); {_ASIDE}") from None


def _place(database: sqlite3.Connection, conditions: Conditions) -> int:
    facts = (_text(conditions),)
    database.execute("INSERT OR IGNORE INTO conditions (facts) VALUES (?)", facts)
    row = database.execute("SELECT id FROM conditions WHERE facts = ?", facts).fetchone()
    return int(row[0])


def _text(conditions: Conditions) -> str:
    return json.dumps(dict(conditions), sort_keys=True)
