"""Pipelines, executions and action executions as documents."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeVar

from localcloud.database import Database, Document
from localcloud.errors import LocalCloudError

T = TypeVar("T")

#: Statuses of executions that have a thread.
ACTIVE = ("InProgress", "Stopping")
_WRITE_AGAIN_SECONDS = 1.0


class Closing(Exception):
    """Indicates that the region is shutting down: leave everything as it is."""


class PipelineGone(Exception):
    """Indicates that the pipeline was deleted while its execution ran."""


class PipelineStore:
    """The documents.

    Attributes:
        pipelines: By name: ``pipeline`` (the declaration), ``created``, ``updated``, ``transitions`` (what is disabled, by stage), ``tags``, ``polled``
            (the version of each polled source action's object).
        closing: Set when the region shuts down.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self.pipelines = database.table("codepipeline.pipelines")
        self._versions = database.table("codepipeline.versions")
        self._executions = database.table("codepipeline.executions")
        self._actions = database.table("codepipeline.actions")
        self.closing = threading.Event()
        last = max((execution["number"] for execution in self._executions.values()), default=0)
        self._execution_numbers = itertools.count(last + 1)
        self._action_numbers = itertools.count(max((int(key.rpartition("/")[2]) for key in self._actions), default=0) + 1)

    # Pipelines

    def put_version(self, name: str, declaration: Document) -> None:
        """Keep one version of a declaration."""
        self._versions.put(f"{name}/{declaration['version']:06d}", declaration)

    def version(self, name: str, number: int) -> Document | None:
        """Return one version of a declaration."""
        return self._versions.get(f"{name}/{number:06d}")

    def delete_pipeline(self, name: str) -> None:
        """Forget a pipeline and all that belongs to it."""
        self.pipelines.delete(name)
        for table in (self._versions, self._executions, self._actions):
            for key in table:
                if key.startswith(f"{name}/"):
                    table.delete(key)

    # Executions

    def lock(self) -> threading.RLock:
        """Return the lock of executions, for read-check-write sequences."""
        return self._executions.lock()

    def new_execution(self, execution: Document) -> Document:
        """Write a new execution; it gets its ``number``: executions are in the order of those."""
        execution = {**execution, "number": next(self._execution_numbers)}
        self._executions.put(_key(execution), execution)
        return execution

    def execution(self, pipeline: str, identifier: str) -> Document | None:
        """Return an execution."""
        return self._executions.get(f"{pipeline}/{identifier}")

    def executions(self, pipeline: str | None = None) -> list[Document]:
        """Return executions (of one pipeline), the newest first."""
        keys = [key for key in self._executions if pipeline is None or key.startswith(f"{pipeline}/")]
        found = [execution for execution in map(self._executions.get, keys) if execution is not None]
        return sorted(found, key=lambda execution: int(execution["number"]), reverse=True)

    def change_execution(self, pipeline: str, identifier: str, change: Callable[[Document], object]) -> Document:
        """Change an execution with *change* in one go and return it.

        Raises:
            PipelineGone: It was deleted.
            Closing: The region is shutting down.
        """

        def write() -> Document:
            with self._executions.lock():
                execution = self._executions.get(f"{pipeline}/{identifier}")
                if execution is None:
                    raise PipelineGone(pipeline)
                change(execution)
                execution["updated"] = now()
                self._executions.put(_key(execution), execution)
                return execution

        return self._persist(write)

    # Actions

    def new_action(self, action: Document) -> Document:
        """Write a new action execution; it gets its ``number``."""
        action = {**action, "number": next(self._action_numbers)}
        self._persist(lambda: self._actions.put(_action_key(action), action))
        return action

    def actions(self, pipeline: str, execution: str | None = None) -> list[Document]:
        """Return action executions, the newest first."""
        keys = sorted((key for key in self._actions if key.startswith(f"{pipeline}/")), reverse=True)
        found = [action for action in map(self._actions.get, keys) if action is not None]
        return [action for action in found if execution in (None, action["execution"])]

    def action(self, pipeline: str, number: int) -> Document:
        """Return an action execution.

        Raises:
            PipelineGone: It was deleted.
        """
        action = self._actions.get(f"{pipeline}/{number:08d}")
        if action is None:
            raise PipelineGone(pipeline)
        return action

    def change_action(self, pipeline: str, number: int, change: Callable[[Document], object]) -> Document:
        """Change an action execution with *change* in one go and return it.

        Raises:
            PipelineGone: It was deleted.
            Closing: The region is shutting down.
        """

        def write() -> Document:
            with self._actions.lock():
                action = self.action(pipeline, number)
                change(action)
                action["updated"] = now()
                self._actions.put(_action_key(action), action)
                return action

        return self._persist(write)

    def find_action(self, identifier: str) -> Document | None:
        """Return the action execution with an id, of any pipeline."""
        return next((action for action in self._actions.values() if action["id"] == identifier), None)

    # Waiting

    @property
    def version_number(self) -> int:
        """A number that grows with every change of any document."""
        return self._database.version

    def wait(self, since: int, seconds: float) -> None:
        """Wait for a change after *since*, at most *seconds*.

        Raises:
            Closing: The region is shutting down.
        """
        if not self.closing.is_set():
            self._database.wait_for_change(since, seconds)
        if self.closing.is_set():
            raise Closing

    def close(self) -> None:
        """Let every wait end with `Closing`."""
        self.closing.set()
        self._database.announce()

    def _persist(self, write: Callable[[], T]) -> T:
        """Write; while that fails (a full disk) try again, as what an action did must not be lost."""
        while True:
            try:
                return write()
            except LocalCloudError:
                if self.closing.wait(_WRITE_AGAIN_SECONDS):
                    raise Closing from None


def now() -> datetime:
    """Return the time."""
    return datetime.now(UTC)


def _key(execution: Document) -> str:
    return f"{execution['pipeline']}/{execution['id']}"


def _action_key(action: Document) -> str:
    return f"{action['pipeline']}/{action['number']:08d}"
