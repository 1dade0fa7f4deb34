"""What starts pipelines by itself: pushes to repositories behind connections, and S3 objects that are polled."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from localcloud.codeconnections.repositories import Push, RepositoryError
from localcloud.codepipeline.actions import connection_source, s3_source
from localcloud.codepipeline.declaration import ActionDeclaration, Declaration, source_actions
from localcloud.codepipeline.filters import starts
from localcloud.codepipeline.store import PipelineStore
from localcloud.errors import LocalCloudError, ServiceError

if TYPE_CHECKING:
    from localcloud.codeconnections.service import CodeConnectionsService

log = logging.getLogger(__name__)

#: Seconds between two looks at polled objects (AWS: about a minute).
_POLL_SECONDS = 1.0


class Start(Protocol):
    """Starts an execution of a pipeline."""

    def __call__(
        self, name: str, trigger: dict[str, str], overrides: dict[str, list[dict[str, Any]]], *, git: dict[str, str] | None = None
    ) -> object:
        """Start one; *overrides* are the revisions that source actions take, *git* is what events tell of a push."""


def pushed_actions(pipeline: Declaration, push: Push, changed_files: Callable[[], list[str]]) -> list[ActionDeclaration]:
    """Return the source actions that a push concerns and by whose triggers it starts the pipeline."""
    triggers = {one["gitConfiguration"]["sourceActionName"]: one["gitConfiguration"] for one in pipeline.get("triggers", [])}
    found = []
    for action in source_actions(pipeline):
        configuration = action.get("configuration", {})
        if action["actionTypeId"]["provider"] != connection_source.PROVIDER or configuration["FullRepositoryId"] != push.repository:
            continue
        trigger = triggers.get(action["name"], {} if configuration.get("DetectChanges", "true") != "false" else None)
        if trigger is not None and starts(trigger, push.ref, configuration["BranchName"], changed_files):
            found.append(action)
    return found


class Triggers:
    """Watches sources and starts pipelines.

    Args:
        store: The pipelines.
        connections: Tells of pushes.
        clients: Gives boto3 clients by role.
        start: Starts an execution.
    """

    def __init__(
        self, store: PipelineStore, connections: CodeConnectionsService, clients: Callable[[str], Callable[[str], Any]], start: Start
    ) -> None:
        self._store = store
        self._connections = connections
        self._clients = clients
        self._start = start
        self._poller = threading.Thread(target=self._poll, name="pipeline-sources", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._connections.on_push(self.pushed)
        self._poller.start()

    def join(self) -> None:
        """Wait for the watching thread (after the store was closed)."""
        if self._poller.is_alive():
            self._poller.join(5)

    def pushed(self, push: Push) -> None:
        """Start the pipelines that a push concerns, each with the commit that was pushed."""
        if push.after is None:
            return
        for pipeline in self._store.pipelines.values():
            try:
                self._push(pipeline, push)
            except (ServiceError, RepositoryError) as error:
                # The others are to hear of it all the same.
                log.error("The push to %s did not start the pipeline %s: %s", push.repository, pipeline["name"], error)

    def _push(self, pipeline: dict[str, Any], push: Push) -> None:
        found = pushed_actions(pipeline["pipeline"], push, lambda: self._changed_files(push))
        connections = {action["name"]: action["configuration"]["ConnectionArn"] for action in found}
        reached = {name: arn for name, arn in connections.items() if self._connections.reaches(arn, push.repository)}
        if not reached:
            return
        # One execution, also when several source actions take from the repository.
        arn = next(iter(reached.values()))
        branch = push.ref.removeprefix("refs/heads/").removeprefix("refs/tags/")
        override = {"revision_type": "COMMIT_ID", "value": push.after, "branch": branch}
        # Pipelines with triggers tell in their events what was pushed.
        git = self._told(push, arn) if pipeline["pipeline"].get("triggers") else None
        trigger = {"triggerType": "WebhookV2", "triggerDetail": arn}
        self._start(pipeline["name"], trigger, {name: [override] for name in reached}, git=git)

    def _told(self, push: Push, arn: str) -> dict[str, str]:
        assert push.after is not None, "a ref that was deleted starts nothing"
        commit = self._connections.repositories.commit(push.repository, push.after)
        kind, name = ("tag-name", "refs/tags/") if push.ref.startswith("refs/tags/") else ("branch-name", "refs/heads/")
        return {
            "author-display-name": commit.author,
            "author-email": commit.email,
            "author-id": commit.author,
            "author-date": commit.author_date.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "commit-id": commit.identifier,
            "commit-message": commit.message,
            "connection-arn": arn,
            "full-repository-name": push.repository,
            "provider-type": self._connections.provider(arn),
            kind: push.ref.removeprefix(name),
        }

    def _changed_files(self, push: Push) -> list[str]:
        repositories = self._connections.repositories
        try:
            return repositories.changed_files(push)
        except RepositoryError:
            # After a forced push git may have thrown the old commit away: then everything counts as changed.
            return repositories.changed_files(Push(push.repository, push.ref, None, push.after))

    def _poll(self) -> None:
        while not self._store.closing.wait(_POLL_SECONDS):
            for pipeline in self._store.pipelines.values():
                try:
                    self._look(pipeline)
                except (LocalCloudError, ServiceError, OSError):
                    log.exception("The sources of the pipeline %s could not be looked at", pipeline["name"])

    def _look(self, pipeline: dict[str, Any]) -> None:
        for action, version in self.polled_versions(pipeline["pipeline"]).items():
            if version is None or version == pipeline["polled"].get(action):
                continue
            with self._store.pipelines.lock():
                current = self._store.pipelines.get(pipeline["name"])
                if current is None:
                    return
                self._store.pipelines.update(pipeline["name"], polled={**current["polled"], action: version})
            self._start(pipeline["name"], {"triggerType": "PollForSourceChanges", "triggerDetail": action}, {})

    def polled_versions(self, pipeline: Declaration) -> dict[str, str | None]:
        """Return the version that is there now of each source action's object that is polled."""
        return {
            action["name"]: s3_source.current_version(self._clients(action.get("roleArn") or pipeline["roleArn"]), action["configuration"])
            for action in source_actions(pipeline)
            if action["actionTypeId"]["provider"] == s3_source.PROVIDER
            and action["configuration"].get("PollForSourceChanges", "true") != "false"
        }
