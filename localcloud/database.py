"""What survives a restart: JSON documents and snapshots in one SQLite file (WAL), each write one transaction."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from localcloud.errors import LocalCloudError

Document = dict[str, Any]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS documents (kind TEXT NOT NULL, key TEXT NOT NULL, body TEXT NOT NULL, PRIMARY KEY (kind, key)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS snapshots (name TEXT PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID;
"""


def _encode(value: object) -> object:
    if isinstance(value, datetime):
        return {"__datetime__": value.astimezone(UTC).isoformat()}
    raise TypeError(f"{type(value).__name__} cannot be stored")


def _decode(value: dict[str, Any]) -> Any:
    if len(value) == 1 and "__datetime__" in value:
        return datetime.fromisoformat(value["__datetime__"])
    return value


class Database:
    """The state file of one localcloud process.

    Raises:
        LocalCloudError: The file cannot be opened or written (read-only folder, full disk, another format).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.RLock()
        try:
            self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=5)
            self._connection.execute("PRAGMA journal_mode=WAL")
            # A crash of the process loses nothing; only a crash of the machine may lose the last transactions, never tear one.
            self._connection.execute("PRAGMA synchronous=NORMAL")
            self._connection.executescript(_SCHEMA)
        except sqlite3.Error as error:
            raise LocalCloudError(f"The state file {path} cannot be used: {error}. Choose another folder with --state-dir.") from error
        self._tables: dict[str, Table] = {}
        self._changed = threading.Condition()
        self._version = 0

    @property
    def version(self) -> int:
        """A number that grows with every change of a document (and with `announce`)."""
        return self._version

    def announce(self) -> None:
        """Wake everyone in `wait_for_change`: a document changed, or something else that is waited for has happened."""
        with self._changed:
            self._version += 1
            self._changed.notify_all()

    def wait_for_change(self, since: int, timeout: float | None = None) -> int:
        """Return the version once it differs from *since*, or after *timeout* seconds. Read `version`, look, then wait with what was read: nothing is missed."""
        with self._changed:
            self._changed.wait_for(lambda: self._version != since, timeout)
            return self._version

    def table(self, kind: str) -> Table:
        """Return the table of documents called *kind* (the same object for the same name)."""
        with self._lock:
            if kind not in self._tables:
                rows = self._read("SELECT key, body FROM documents WHERE kind = ? ORDER BY key", kind)
                self._tables[kind] = Table(self, kind, dict(rows))
            return self._tables[kind]

    def read(self, kind: str) -> dict[str, str]:
        """Return the texts of one kind by key, for what is no table: read once and written in bulk."""
        with self._lock:
            return dict(self._read("SELECT key, body FROM documents WHERE kind = ?", kind))

    def write(self, kind: str, puts: Mapping[str, str], deletes: Iterable[str] = ()) -> None:
        """Write and delete documents of one kind in one transaction.

        Raises:
            LocalCloudError: The disk is full or the file cannot be written; nothing was changed.
        """
        with self._transaction() as connection:
            connection.executemany("INSERT OR REPLACE INTO documents VALUES (?, ?, ?)", [(kind, k, v) for k, v in puts.items()])
            connection.executemany("DELETE FROM documents WHERE kind = ? AND key = ?", [(kind, k) for k in deletes])

    def write_snapshots(self, snapshots: Mapping[str, bytes]) -> None:
        """Replace several snapshots in one transaction: after a crash either all are new or all are old.

        Raises:
            LocalCloudError: The disk is full or the file cannot be written; nothing was changed.
        """
        with self._transaction() as connection:
            connection.executemany("INSERT OR REPLACE INTO snapshots VALUES (?, ?)", list(snapshots.items()))

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                yield self._connection
                self._connection.execute("COMMIT")
            except sqlite3.Error as error:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise LocalCloudError(
                    f"The state cannot be saved to {self.path}: {error}. Free space on its disk, then try again."
                ) from error

    def read_snapshots(self) -> dict[str, bytes]:
        """Return every snapshot by name."""
        with self._lock:
            return dict(self._read("SELECT name, body FROM snapshots"))

    def _read(self, query: str, *values: str) -> list[Any]:
        try:
            return self._connection.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise LocalCloudError(
                f"The state file {self.path} cannot be read: {error}. Restore it, or move the folder away to start afresh."
            ) from error

    def close(self) -> None:
        """Close the file; further writes fail."""
        with self._lock:
            self._connection.close()


class Table:
    """Documents of one kind, by key; reads come from memory, writes reach the disk before they return.

    Documents are JSON objects (datetimes allowed). What `get` returns is a copy: change it and `put` it back, or use `update`.
    """

    def __init__(self, database: Database, kind: str, rows: dict[str, str]) -> None:
        self._database = database
        self._kind = kind
        self._rows = rows
        self._lock = threading.RLock()

    def __contains__(self, key: str) -> bool:
        return key in self._rows

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._rows))

    def get(self, key: str) -> Document | None:
        """Return a copy of the document, or None."""
        body = self._rows.get(key)
        return None if body is None else json.loads(body, object_hook=_decode)

    def values(self) -> list[Document]:
        """Return copies of all documents, in key order."""
        return [json.loads(self._rows[key], object_hook=_decode) for key in sorted(self._rows)]

    def put(self, key: str, document: Document) -> None:
        """Write one document."""
        body = json.dumps(document, default=_encode)
        with self._lock:
            self._database.write(self._kind, {key: body})
            self._rows[key] = body
        self._database.announce()

    def update(self, key: str, **changes: Any) -> Document:
        """Set top-level fields of one document atomically and return the new one.

        Raises:
            KeyError: There is no such document.
        """
        with self._lock:
            document = self.get(key)
            if document is None:
                raise KeyError(key)
            document.update(changes)
            self.put(key, document)
            return document

    def delete(self, key: str) -> None:
        """Delete one document; deleting a missing one does nothing."""
        with self._lock:
            self._database.write(self._kind, {}, [key])
            self._rows.pop(key, None)
        self._database.announce()

    def lock(self) -> threading.RLock:
        """Return the table's lock, for read-check-write sequences."""
        return self._lock
