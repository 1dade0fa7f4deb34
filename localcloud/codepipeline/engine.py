"""Executions: one thread each, and one for each action that runs.

Every transition is one write to the state file, made before it is reported. What an execution is at is in its document, so that executions go on when
localcloud is started again, also after `kill -9`: an action that waits (an approval) waits on, one that had another service do something asks that service
how it went. Only an action that was being started just then fails, as nobody knows how far it came; source actions are begun again.

How executions of one pipeline pass each other: https://docs.aws.amazon.com/codepipeline/latest/userguide/concepts-how-it-works.html. One at a time is in a
stage. Of those that wait before it, in the mode SUPERSEDED only the newest is kept; in the mode QUEUED each gets its turn.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from localcloud.codepipeline.actions.action import SESSION_NAME, ActionFailed, Job, Override, Revision, Started, State, Succeeded
from localcloud.codepipeline.actions.registry import find_kind
from localcloud.codepipeline.artifacts import Artifact, artifact_key, encryption
from localcloud.codepipeline.declaration import ActionDeclaration, Declaration, artifact_store, ordered_actions
from localcloud.codepipeline.events import Events
from localcloud.codepipeline.store import ACTIVE, Closing, PipelineGone, PipelineStore, now
from localcloud.codepipeline.variables import EXECUTION_NAMESPACE, PIPELINE_NAMESPACE, UnknownVariable, resolve
from localcloud.database import Document
from localcloud.errors import LocalCloudError, ServiceError
from localcloud.iam.principals import RoleSession

if TYPE_CHECKING:
    from localcloud.cloud import Cloud

log = logging.getLogger(__name__)

#: Seconds between two looks at what an action waits for: at least, and when nothing in this region changes.
_SHORTEST_WAIT, _LONGEST_WAIT = 0.05, 2.0
_LONGEST_SUMMARY, _LONGEST_MESSAGE = 2048, 5000
INTERRUPTED = "localcloud ended while this action was being started. Retry the stage."


class Engine:
    """Runs executions.

    Args:
        cloud: The region.
        store: The documents.
    """

    def __init__(self, cloud: Cloud, store: PipelineStore) -> None:
        self.cloud = cloud
        self.store = store
        self.events = Events(cloud.emit, lambda name: cloud.arn("codepipeline", name), cloud.settings.region)
        self._runs: dict[tuple[str, str], threading.Thread] = {}
        self._lock = threading.Lock()

    def recover(self) -> None:
        """Go on with what an earlier process left running."""
        for execution in reversed(self.store.executions()):
            if execution["status"] in ACTIVE:
                self._launch(execution)

    def start(self, execution: Document) -> None:
        """Begin an execution whose document is stored."""
        self.events.pipeline(execution, "STARTED")
        self._launch(execution)

    def resume(self, execution: Document, stage: str) -> None:
        """Go on with an execution whose stage is to be tried again."""
        self.events.pipeline(execution, "RESUMED")
        self.events.stage(execution, stage, "RESUMED")
        self._launch(execution)

    def active(self, pipeline: str) -> list[Document]:
        """Return the executions of a pipeline that go on, the newest first."""
        with self._lock:
            identifiers = [identifier for name, identifier in self._runs if name == pipeline]
        found = [execution for execution in (self.store.execution(pipeline, identifier) for identifier in identifiers) if execution]
        return sorted((one for one in found if one["status"] in ACTIVE), key=lambda one: int(one["number"]), reverse=True)

    def join(self, seconds: float) -> None:
        """Wait for the threads (after the store was closed)."""
        deadline = time.monotonic() + seconds
        with self._lock:
            threads = list(self._runs.values())
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def clients(self, role: str) -> Callable[[str], Any]:
        """Return what gives boto3 clients as a role."""
        clients: Callable[[str], Any] = self.cloud.clients.acting_as(role, SESSION_NAME)
        return clients

    def _launch(self, execution: Document) -> None:
        key = (execution["pipeline"], execution["id"])

        def run() -> None:
            try:
                ExecutionRun(self, *key).run()
            except (Closing, PipelineGone):
                pass
            except Exception:  # the thread's outermost boundary: nobody may wait for ever for a fault of localcloud
                log.exception("The execution %s of the pipeline %s cannot go on", key[1], key[0])
                self._give_up(*key)
            finally:
                with self._lock:
                    if self._runs.get(key) is threading.current_thread():
                        del self._runs[key]
                self.cloud.db.announce()

        thread = threading.Thread(target=run, name=f"codepipeline-{execution['id']}", daemon=True)
        with self._lock:
            self._runs[key] = thread
        thread.start()

    def _give_up(self, pipeline: str, identifier: str) -> None:
        def fail(execution: Document) -> None:
            if execution["occupies"]:
                execution["stages"][execution["occupies"]]["status"] = "Failed"
            execution |= {"status": "Failed", "occupies": None, "waits": None}

        with contextlib.suppress(Closing, PipelineGone):
            self.events.pipeline(self.store.change_execution(pipeline, identifier, fail), "FAILED")


class ExecutionRun:
    """One execution, on its thread."""

    def __init__(self, engine: Engine, pipeline: str, identifier: str) -> None:
        self._engine = engine
        self._store = engine.store
        self._pipeline = pipeline
        self._id = identifier
        self._fault: BaseException | None = None

    def run(self) -> None:
        """Go through the stages that are not done.

        Raises:
            Closing: The region is shutting down.
            PipelineGone: The pipeline was deleted.
        """
        execution = self._document()
        declaration = self._store.version(self._pipeline, execution["version"])
        assert declaration is not None, "versions are kept as long as their pipeline"
        for stage in declaration["stages"]:
            execution = self._document()
            if execution["stages"].get(stage["name"], {}).get("status") == "Succeeded":
                continue
            if execution["occupies"] != stage["name"] and not self._enter(stage["name"]):
                return
            status = self._run_stage(declaration, stage)
            if status != "Succeeded":
                self._end(status)
                return
        self._end("Succeeded")

    def _document(self) -> Document:
        execution = self._store.execution(self._pipeline, self._id)
        if execution is None:
            raise PipelineGone(self._pipeline)
        return execution

    def _change(self, **members: Any) -> Document:
        return self._store.change_execution(self._pipeline, self._id, lambda execution: execution.update(members))

    # Stages

    def _enter(self, stage: str) -> bool:
        """Wait until the stage may be entered; return False when the execution ended instead."""
        arrived = self._change(waits=stage, occupies=None)
        if arrived["mode"] == "SUPERSEDED":
            self._supersede_older(arrived)
        while True:
            since = self._store.version_number
            with self._store.lock():
                execution = self._document()
                if execution["status"] == "InProgress" and self._is_free(execution, stage):

                    def occupy(document: Document) -> None:
                        document |= {"waits": None, "occupies": stage}
                        earlier = document["stages"].get(stage, {})
                        document["stages"][stage] = {"from": 0, **earlier, "status": "InProgress", "started": now()}

                    entered = self._store.change_execution(self._pipeline, self._id, occupy)
                    break
            if execution["status"] == "Superseded":
                return False
            if execution["status"] == "Stopping":
                self._end("Stopped")
                return False
            self._store.wait(since, _LONGEST_WAIT)
        self._engine.events.stage(entered, stage, "STARTED")
        return True

    def _supersede_older(self, execution: Document) -> None:
        for other in self._engine.active(self._pipeline):
            if other["number"] >= execution["number"] or other["waits"] != execution["waits"]:
                continue
            with self._store.lock():
                current = self._store.execution(self._pipeline, other["id"])
                if current is None or current["status"] != "InProgress" or current["waits"] != execution["waits"]:
                    continue
                ended = self._store.change_execution(
                    self._pipeline, other["id"], lambda document: document.update(status="Superseded", waits=None)
                )
            self._engine.events.pipeline(ended, "SUPERSEDED")

    def _is_free(self, execution: Document, stage: str) -> bool:
        pipeline = self._store.pipelines.get(self._pipeline)
        if pipeline is None:
            raise PipelineGone(self._pipeline)
        if stage in pipeline["transitions"]:
            return False
        others = [other for other in self._engine.active(self._pipeline) if other["id"] != self._id]
        if any(other["occupies"] == stage for other in others):
            return False
        # SUPERSEDED leaves one waiting execution, so that only QUEUED finds an older one here.
        return not any(other["waits"] == stage and other["number"] < execution["number"] for other in others)

    def _run_stage(self, declaration: Declaration, stage: dict[str, Any]) -> str:
        name, status = stage["name"], "Succeeded"
        for group in ordered_actions(stage):
            if self._document()["status"] == "Stopping":
                status = "Stopped"
                break
            outcomes = self._run_actions(declaration, name, group)
            if outcomes != {"Succeeded"}:
                status = "Failed" if "Failed" in outcomes else "Stopped"
                break

        def leave(document: Document) -> None:
            document["stages"][name]["status"] = status
            # The stage stays this execution's until it waits for the next, so that nobody passes it in between.
            document["occupies"] = name if status == "Succeeded" else None

        ended = self._store.change_execution(self._pipeline, self._id, leave)
        self._engine.events.stage(ended, name, status.upper())
        return status

    def _run_actions(self, declaration: Declaration, stage: str, group: list[ActionDeclaration]) -> set[str]:
        first = self._document()["stages"][stage]["from"]
        latest: dict[str, Document] = {}
        for action in reversed(self._store.actions(self._pipeline, self._id)):
            if action["stage"] == stage and action["number"] >= first:
                latest[action["action"]] = action
        outcomes: dict[str, str] = {}
        threads = []
        for one in group:
            found = latest.get(one["name"])
            if found is not None and found["status"] == "Succeeded":
                outcomes[one["name"]] = "Succeeded"
                continue
            going_on = found if found is not None and found["status"] == "InProgress" else None
            run = ActionRun(self._engine, declaration, self._document(), stage, one, going_on)

            def attend(run: ActionRun = run, name: str = one["name"]) -> None:
                try:
                    outcomes[name] = run.run()
                except (Closing, PipelineGone) as error:  # for the execution's thread
                    self._fault = error

            threads.append(threading.Thread(target=attend, name=f"action-{one['name']}", daemon=True))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self._fault is not None:
            raise self._fault
        return set(outcomes.values())

    def _end(self, status: str) -> None:
        ended = self._change(status=status, occupies=None, waits=None)
        self._engine.events.pipeline(ended, status.upper())


class ActionRun:
    """One action of one execution, on its thread."""

    def __init__(
        self,
        engine: Engine,
        declaration: Declaration,
        execution: Document,
        stage: str,
        action: ActionDeclaration,
        going_on: Document | None,
    ) -> None:
        self._engine = engine
        self._store = engine.store
        self._declaration = declaration
        self._execution = execution
        self._stage = stage
        self._action = action
        self._going_on = going_on
        found = find_kind(action["actionTypeId"])
        assert found is not None, "unknown kinds are refused when a pipeline is made"
        self._kind, self._player = found
        self._store_settings = artifact_store(declaration, engine.cloud.settings.region)

    def run(self) -> str:
        """Run the action to its end and return its status.

        Raises:
            Closing: The region is shutting down.
            PipelineGone: The pipeline was deleted.
        """
        document = self._going_on
        if document is None:
            document = self._new_document()
            self._engine.events.action(self._execution, document, "STARTED")
        number = document["number"]
        try:
            return self._succeed(number, self._attend(number))
        except ActionFailed as error:
            return self._fail(number, error.code, str(error))
        except UnknownVariable as error:
            return self._fail(number, "ConfigurationError", str(error))
        except ClientError as error:
            denied = error.response["Error"]["Code"] in ("AccessDenied", "AccessDeniedException")
            return self._fail(number, "PermissionError" if denied else "ConfigurationError", str(error))
        except (ServiceError, LocalCloudError, BotoCoreError) as error:
            return self._fail(number, "ConfigurationError", error.message if isinstance(error, ServiceError) else str(error))
        except _Abandoned:
            return str(self._finish(number, "Abandoned", {})["status"])
        except (Closing, PipelineGone):
            raise
        except Exception as error:  # the outermost boundary of an action: a fault of localcloud must end it, not hang the execution
            if self._store.closing.is_set():
                raise Closing from error
            log.exception("The action %s of the pipeline %s failed inside localcloud", self._action["name"], self._execution["pipeline"])
            return self._fail(number, "InternalError", f"{type(error).__name__}: {error}")

    def _new_document(self) -> Document:
        pipeline = self._execution["pipeline"]
        outputs = [
            {"name": one["name"], "bucket": self._store_settings["location"], "key": artifact_key(pipeline, one["name"])}
            for one in self._action.get("outputArtifacts", [])
        ]
        document: Document = {
            "id": str(uuid.uuid4()),
            "pipeline": pipeline,
            "execution": self._execution["id"],
            "version": self._execution["version"],
            "stage": self._stage,
            "action": self._action["name"],
            "type": self._action["actionTypeId"],
            "configuration": self._action.get("configuration", {}),
            "namespace": self._action.get("namespace"),
            "role": self._role(),
            "inputs": [
                {"name": one["name"], **self._execution["artifacts"][one["name"]]} for one in self._action.get("inputArtifacts", [])
            ],
            "outputs": outputs,
            "inbox": [],
            "status": "InProgress",
            "started": now(),
            "updated": now(),
        }
        return self._store.new_action(document)

    def _role(self) -> str:
        role: str = self._action.get("roleArn") or self._declaration["roleArn"]
        return role

    def _assume(self) -> None:
        """Let the pipeline's role assume the action's, where it has one (https://docs.aws.amazon.com/codepipeline/latest/userguide/pipelines-create-cross-account.html).

        Raises:
            ActionFailed: The pipeline's role may not, or the action's does not trust it.
        """
        role = self._action.get("roleArn")
        if not role:
            return
        session = RoleSession(self._declaration["roleArn"], SESSION_NAME)
        try:
            self._engine.cloud.iam.authorize(session, "sts", "AssumeRole", {"RoleArn": role, "RoleSessionName": SESSION_NAME})
        except ServiceError as error:
            raise ActionFailed("PermissionError", error.message) from error

    def _attend(self, number: int) -> Succeeded:
        """Start the action, unless it goes on, and wait for its end."""
        document = self._action_document(number)
        if "state" not in document and self._going_on is not None and self._kind.category != "Source":
            raise ActionFailed("InternalError", INTERRUPTED)
        if "resolved" not in document:
            resolved = {key: resolve(text, self._namespaces()) for key, text in document["configuration"].items()}
            document = self._change(number, lambda action: action.update(resolved=resolved))
        job = self._job(document)
        if "state" not in document:
            self._assume()
            begun = self._player.start(job)
            if isinstance(begun, Succeeded):
                return begun
            document = self._progress(number, begun)
        deadline = document["started"] + timedelta(minutes=self._action.get("timeoutInMinutes") or self._kind.timeout_minutes)
        while True:
            since = self._store.version_number
            document = self._action_document(number)
            state: State = document["state"]
            news = self._player.check(job, state, document["inbox"])
            if isinstance(news, Succeeded):
                return news
            if isinstance(news, Started):
                self._progress(number, news)
                continue
            if self._is_abandoned():
                self._stop(job, state)
                raise _Abandoned
            if now() >= deadline:
                self._stop(job, state)
                raise ActionFailed("ActionTimedOut", f"The action {self._action['name']} did not finish within its timeout")
            time.sleep(_SHORTEST_WAIT)
            self._store.wait(since, _LONGEST_WAIT)

    def _stop(self, job: Job, state: State) -> None:
        try:
            self._player.stop(job, state)
        except (ClientError, ServiceError) as error:
            # It is given up either way.
            log.warning("What the action %s had begun could not be ended: %s", self._action["name"], error)

    def _action_document(self, number: int) -> Document:
        return self._store.action(self._execution["pipeline"], number)

    def _change(self, number: int, change: Callable[[Document], object]) -> Document:
        return self._store.change_action(self._execution["pipeline"], number, change)

    def _progress(self, number: int, begun: Started) -> Document:
        members = ("external_id", "url", "summary", "token", "log_stream")
        known = {member: getattr(begun, member) for member in members if getattr(begun, member) is not None}
        return self._change(number, lambda action: action.update(state=begun.state, **known))

    def _is_abandoned(self) -> bool:
        execution = self._store.execution(self._execution["pipeline"], self._execution["id"])
        return execution is not None and execution["status"] == "Stopping" and bool(execution.get("stop", {}).get("abandon"))

    def _namespaces(self) -> dict[str, dict[str, str]]:
        execution = self._store.execution(self._execution["pipeline"], self._execution["id"]) or self._execution
        return {
            **execution["namespaces"],
            EXECUTION_NAMESPACE: {"PipelineExecutionId": execution["id"]},
            PIPELINE_NAMESPACE: execution["variables"],
        }

    def _job(self, document: Document) -> Job:
        execution = self._execution
        return Job(
            cloud=self._engine.cloud,
            clients=self._engine.clients(document["role"]),
            role=document["role"],
            pipeline=execution["pipeline"],
            execution_id=execution["id"],
            stage=self._stage,
            action=self._action["name"],
            action_execution_id=document["id"],
            configuration=document["resolved"],
            inputs={one["name"]: Artifact(one["bucket"], one["key"]) for one in document["inputs"]},
            outputs={one["name"]: Artifact(one["bucket"], one["key"]) for one in document["outputs"]},
            encryption=encryption(self._store_settings),
            source_revisions={one["artifact"]: one["id"] for one in execution["revisions"].values()},
            overrides=tuple(Override(**one) for one in execution["overrides"].get(self._action["name"], [])),
        )

    def _succeed(self, number: int, done: Succeeded) -> str:
        document = self._action_document(number)

        def put_out(execution: Document) -> None:
            # An artifact is there for the next actions only once its action has succeeded.
            execution["artifacts"] |= {one["name"]: {"bucket": one["bucket"], "key": one["key"]} for one in document["outputs"]}
            if document["namespace"] and done.variables:
                execution["namespaces"][document["namespace"]] = dict(done.variables)
            if done.revision is not None:
                execution["revisions"][document["action"]] = _revision(done.revision, document["outputs"][0]["name"])

        self._store.change_execution(self._execution["pipeline"], self._execution["id"], put_out)
        given = {"summary": done.summary, "external_id": done.external_id, "url": done.url, "log_stream": done.log_stream}
        changes = {member: value for member, value in given.items() if value is not None} | {"variables": dict(done.variables)}
        if "summary" in changes:
            changes["summary"] = str(changes["summary"])[:_LONGEST_SUMMARY]
        if done.revision is not None:
            changes["revision"] = _revision(done.revision, document["outputs"][0]["name"])
        return str(self._finish(number, "Succeeded", changes)["status"])

    def _fail(self, number: int, code: str, message: str) -> str:
        log.info("The action %s of the pipeline %s failed: %s", self._action["name"], self._execution["pipeline"], message)
        error = {"code": code, "message": message[:_LONGEST_MESSAGE] or code}
        # AWS repeats the message as the summary of what the other service did.
        return str(self._finish(number, "Failed", {"error": error, "summary": error["message"][:_LONGEST_SUMMARY]})["status"])

    def _finish(self, number: int, status: str, changes: dict[str, Any]) -> Document:
        document = self._change(number, lambda action: action.update(status=status, **changes))
        self._engine.events.action(self._execution, document, status.upper())
        return document


class _Abandoned(Exception):
    """Indicates that an action was given up, as its execution was stopped so."""


def _revision(revision: Revision, artifact: str) -> dict[str, Any]:
    return {
        "artifact": artifact,
        "id": revision.identifier,
        "summary": revision.summary[:_LONGEST_SUMMARY],
        "created": revision.created,
        "url": revision.url,
    }
