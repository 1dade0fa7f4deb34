"""Executions on disk, in a SQLite file of their own: there are many of them, and only the running ones are needed in memory."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
import zlib
from pathlib import Path
from typing import Any

from localcloud.errors import LocalCloudError

#: As long as AWS keeps executions of Standard workflows.
RETENTION_SECONDS = 90 * 86_400

_SCHEMA = """
CREATE TABLE IF NOT EXISTS executions (
    arn TEXT PRIMARY KEY, machine_arn TEXT NOT NULL, name TEXT NOT NULL, status TEXT NOT NULL, started REAL NOT NULL, stopped REAL,
    body TEXT NOT NULL, history BLOB
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS by_machine ON executions (machine_arn, started DESC);
CREATE TABLE IF NOT EXISTS revisions (id TEXT PRIMARY KEY, body TEXT NOT NULL) WITHOUT ROWID;
"""
Record = dict[str, Any]


class ExecutionStore:
    """The executions of a region.

    A record has ``arn``, ``machine_arn``, ``name``, ``status``, ``started``, ``stopped`` (Unix times) and whatever else describes the execution.

    Raises:
        LocalCloudError: The file cannot be opened or written.
    """

    _COLUMNS = ("arn", "machine_arn", "name", "status", "started", "stopped")

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        try:
            self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=5)
            self._connection.execute("PRAGMA journal_mode=WAL")
            # As localcloud.db: a crash of the process loses nothing.
            self._connection.execute("PRAGMA synchronous=NORMAL")
            self._connection.executescript(_SCHEMA)
            self._connection.execute("DELETE FROM executions WHERE stopped < ?", (time.time() - RETENTION_SECONDS,))
        except sqlite3.Error as error:
            raise LocalCloudError(f"The state file {path} cannot be used: {error}. Choose another folder with --state-dir.") from error

    def insert(self, record: Record) -> bool:
        """Write a new execution; return False when there is one with its ARN."""
        body = {name: value for name, value in record.items() if name not in self._COLUMNS}
        row = (*(record[name] for name in self._COLUMNS), json.dumps(body))
        with self._lock:
            return self._execute("INSERT OR IGNORE INTO executions VALUES (?, ?, ?, ?, ?, ?, ?, NULL)", row).rowcount == 1

    def finish(self, record: Record, history: list[dict[str, Any]]) -> None:
        """Write how an execution ended."""
        body = {name: value for name, value in record.items() if name not in self._COLUMNS}
        packed = zlib.compress(json.dumps(history).encode(), 1)
        with self._lock:
            self._execute(
                "UPDATE executions SET status = ?, stopped = ?, body = ?, history = ? WHERE arn = ?",
                (record["status"], record["stopped"], json.dumps(body), packed, record["arn"]),
            )

    def get(self, arn: str) -> Record | None:
        """Return an execution's record, or None."""
        with self._lock:
            row = self._execute(f"SELECT {', '.join(self._COLUMNS)}, body FROM executions WHERE arn = ?", (arn,)).fetchone()
        return None if row is None else self._record(row)

    def history(self, arn: str) -> list[dict[str, Any]]:
        """Return the events of an execution that has ended."""
        with self._lock:
            row = self._execute("SELECT history FROM executions WHERE arn = ?", (arn,)).fetchone()
        if row is None or row[0] is None:
            return []
        events: list[dict[str, Any]] = json.loads(zlib.decompress(row[0]))
        return events

    def page(self, machine_arn: str, status: str | None, offset: int, limit: int) -> list[Record]:
        """Return executions of a state machine, the newest first."""
        where, values = ("AND status = ?", [status]) if status else ("", [])
        query = f"SELECT {', '.join(self._COLUMNS)}, body FROM executions WHERE machine_arn = ? {where} ORDER BY started DESC, arn LIMIT ? OFFSET ?"
        with self._lock:
            rows = self._execute(query, (machine_arn, *values, limit, offset)).fetchall()
        return [self._record(row) for row in rows]

    def running(self) -> list[Record]:
        """Return the executions that had not ended when they were written last."""
        with self._lock:
            rows = self._execute(f"SELECT {', '.join(self._COLUMNS)}, body FROM executions WHERE status = 'RUNNING'", ()).fetchall()
        return [self._record(row) for row in rows]

    def delete_machine(self, machine_arn: str) -> None:
        """Delete the executions of a state machine."""
        with self._lock:
            self._execute("DELETE FROM executions WHERE machine_arn = ? AND status != 'RUNNING'", (machine_arn,))

    def put_revision(self, identifier: str, body: dict[str, Any]) -> None:
        """Keep what a state machine was at one revision, for the executions that ran it."""
        with self._lock:
            self._execute("INSERT OR REPLACE INTO revisions VALUES (?, ?)", (identifier, json.dumps(body)))

    def revision(self, identifier: str) -> dict[str, Any] | None:
        """Return a revision."""
        with self._lock:
            row = self._execute("SELECT body FROM revisions WHERE id = ?", (identifier,)).fetchone()
        return None if row is None else json.loads(row[0])

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    def _execute(self, query: str, values: tuple[Any, ...]) -> sqlite3.Cursor:
        try:
            return self._connection.execute(query, values)
        except sqlite3.OperationalError as error:
            raise LocalCloudError(
                f"The executions' state file cannot be written: {error}. Make room on the disk that holds --state-dir."
            ) from error

    def _record(self, row: tuple[Any, ...]) -> Record:
        return {**dict(zip(self._COLUMNS, row, strict=False)), **json.loads(row[-1])}
