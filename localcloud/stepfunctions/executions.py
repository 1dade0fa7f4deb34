"""Executions under way: starting, stopping, waiting for them, and what is kept of them."""

from __future__ import annotations

import asyncio
import json
import logging
import time
import uuid
from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from localcloud.errors import LocalCloudError
from localcloud.stepfunctions.definition import Machine
from localcloud.stepfunctions.errors import StateError
from localcloud.stepfunctions.history import History
from localcloud.stepfunctions.interpreter import Interpreter
from localcloud.stepfunctions.store import ExecutionStore, Record
from localcloud.stepfunctions.tasks import TaskRunner

if TYPE_CHECKING:
    from localcloud.cloud import Cloud

log = logging.getLogger(__name__)

#: Ended executions whose records stay in memory, for those who poll for the end.
_RECENT = 32
_LOG_LEVELS: dict[str, tuple[str, ...]] = {
    "ERROR": ("Failed", "TimedOut", "Aborted"),
    "FATAL": ("ExecutionFailed", "ExecutionTimedOut", "ExecutionAborted"),
}


@dataclass(frozen=True)
class MachineVersion:
    """What an execution runs.

    Attributes:
        machine: The compiled definition.
        arn: ARN of the state machine.
        name: Its name.
        role_arn: The role that it acts as.
        express: Whether it is an Express workflow.
        revision_id: The revision of the definition.
        logging: Its loggingConfiguration.
        version_arn: The version that was asked for, or None.
        alias_arn: The alias that was asked for, or None.
    """

    machine: Machine
    arn: str
    name: str
    role_arn: str
    express: bool
    revision_id: str
    logging: dict[str, Any] = field(default_factory=dict)
    version_arn: str | None = None
    alias_arn: str | None = None


class Run:
    """One execution under way."""

    def __init__(self, record: Record, version: MachineVersion) -> None:
        self.record = record
        self.version = version
        self.history = History()
        self.task: asyncio.Task[None] | None = None
        self.stopped: tuple[str | None, str | None] | None = None
        self.ended = asyncio.Event()


class Executions:
    """The executions of a region."""

    def __init__(self, cloud: Cloud, store: ExecutionStore, runner: TaskRunner) -> None:
        self._cloud = cloud
        self._store = store
        self._runner = runner
        self._runs: dict[str, Run] = {}
        self._recent: OrderedDict[str, Record] = OrderedDict()

    def start(self) -> None:
        """Close the executions that an earlier process left."""
        for record in self._store.running():
            cause = "localcloud ended while this execution ran; start a new execution."
            record |= {"status": "FAILED", "stopped": time.time(), "error": "States.Runtime", "cause": cause}
            history = History()
            started = history.add(
                "ExecutionStarted",
                0,
                ("executionStartedEventDetails", {"input": json.loads(record["input"]), "roleArn": record["role_arn"]}),
            )
            history.add("ExecutionFailed", started, ("executionFailedEventDetails", {"error": "States.Runtime", "cause": cause}))
            self._store.finish(record, history.rendered())

    async def close(self) -> None:
        """Cancel what runs, without a word on how it ended: the next `start` says that localcloud did."""
        tasks = [run.task for run in self._runs.values() if run.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def new_record(self, version: MachineVersion, name: str | None, text: str) -> Record:
        """Return the record of an execution that begins now."""
        name = name or str(uuid.uuid4())
        kind = f"express:{version.name}:{name}:{uuid.uuid4()}" if version.express else f"execution:{version.name}:{name}"
        return {
            "arn": self._cloud.arn("states", kind),
            "machine_arn": version.arn,
            "name": name,
            "status": "RUNNING",
            # AWS's times have milliseconds.
            "started": round(time.time(), 3),
            "stopped": None,
            "input": text,
            "role_arn": version.role_arn,
            "revision_id": version.revision_id,
            "version_arn": version.version_arn,
            "alias_arn": version.alias_arn,
        }

    def launch(self, record: Record, version: MachineVersion) -> None:
        """Let an execution run, from any thread."""
        self._cloud.background.loop.call_soon_threadsafe(self._launch, record, version)

    async def run_to_end(self, record: Record, version: MachineVersion) -> Record:
        """Run an execution and return its record at the end (StartSyncExecution)."""
        run = self._launch(record, version)
        await run.ended.wait()
        return run.record

    async def wait(self, arn: str) -> Record:
        """Return the record of an execution once it has ended."""
        run = self._runs.get(arn)
        if run is not None:
            await run.ended.wait()
        return await asyncio.to_thread(self._known, arn)

    def _known(self, arn: str) -> Record:
        record = self.get(arn)
        if record is None:
            raise LocalCloudError(f"The execution {arn} is gone")
        return record

    def get(self, arn: str) -> Record | None:
        """Return an execution's record as it is now."""
        run = self._runs.get(arn)
        if run is not None:
            return run.record
        return self._recent.get(arn) or self._store.get(arn)

    def events(self, arn: str) -> list[dict[str, Any]]:
        """Return an execution's events so far."""
        run = self._runs.get(arn)
        return run.history.rendered() if run is not None else self._store.history(arn)

    async def stop(self, arn: str, error: str | None, cause: str | None) -> None:
        """Abort an execution and wait until it has ended; one that has ended is left as it is."""
        run = self._runs.get(arn)
        if run is None or run.task is None:
            return
        if run.stopped is None:
            run.stopped = (error, cause)
            run.task.cancel()
        await run.ended.wait()

    def _launch(self, record: Record, version: MachineVersion) -> Run:
        run = Run(record, version)
        self._runs[record["arn"]] = run
        run.task = asyncio.get_running_loop().create_task(self._run(run))
        return run

    async def _run(self, run: Run) -> None:
        record, version, history = run.record, run.version, run.history
        self._cloud.metrics.execution_started(version.arn, _dimensions(version))
        self._announce(record, version)
        value = json.loads(record["input"])
        details = {"input": value, "inputDetails": {"truncated": False}, "roleArn": version.role_arn}
        details |= {"stateMachineVersionArn": version.version_arn} if version.version_arn else {}
        details |= {"stateMachineAliasArn": version.alias_arn} if version.alias_arn else {}
        started = history.add("ExecutionStarted", 0, ("executionStartedEventDetails", details))
        runner = self._runner.acting_as(version.role_arn)
        interpreter = Interpreter(version.machine, runner, history, _context(record, version, value), self._cloud.settings.region)
        changes: dict[str, Any] = {}
        try:
            async with asyncio.timeout(version.machine.timeout) as deadline:
                output = await interpreter.run(value, started)
            changes = {"status": "SUCCEEDED", "output": history.text(output)}
            details = {"output": output, "outputDetails": {"truncated": False}}
            history.add("ExecutionSucceeded", interpreter.path.previous, ("executionSucceededEventDetails", details))
        except TimeoutError:
            if not deadline.expired():
                raise
            changes = {"status": "TIMED_OUT", "error": "States.Timeout"}
            history.add("ExecutionTimedOut", interpreter.path.previous, ("executionTimedOutEventDetails", {"error": "States.Timeout"}))
        except StateError as error:
            changes = {"status": "FAILED", "error": error.error, "cause": error.cause}
            history.add(
                "ExecutionFailed",
                interpreter.path.previous,
                ("executionFailedEventDetails", _present(error=error.error, cause=error.cause)),
            )
        except asyncio.CancelledError:
            if run.stopped is None:
                # localcloud is stopping: what runs now is closed at the next start.
                raise
            error_name, cause = run.stopped
            changes = {"status": "ABORTED", "error": error_name, "cause": cause}
            history.add(
                "ExecutionAborted", interpreter.path.previous, ("executionAbortedEventDetails", _present(error=error_name, cause=cause))
            )
        except Exception as error:  # a fault of localcloud's own must end the execution, and be told
            log.exception("The execution %s failed inside localcloud", record["arn"])
            changes = {"status": "FAILED", "error": "States.Runtime", "cause": f"localcloud failed: {error!r}; its log has the traceback"}
            history.add(
                "ExecutionFailed",
                interpreter.path.previous,
                ("executionFailedEventDetails", _present(error="States.Runtime", cause=changes["cause"])),
            )
        ended = {**record, **changes, "stopped": round(time.time(), 3)}
        try:
            # On disk before anybody is told.
            await asyncio.to_thread(self._keep, run, ended)
        except LocalCloudError as error:
            log.error("How the execution %s ended could not be kept: %s", record["arn"], error)
        run.record = ended
        if not version.express:
            self._recent[ended["arn"]] = ended
            if len(self._recent) > _RECENT:
                self._recent.popitem(last=False)
        milliseconds = (ended["stopped"] - ended["started"]) * 1000
        self._cloud.metrics.execution_ended(version.arn, _dimensions(version), ended["status"], milliseconds)
        del self._runs[ended["arn"]]
        run.ended.set()
        self._announce(ended, version)

    def _keep(self, run: Run, ended: Record) -> None:
        events = run.history.rendered()
        if not run.version.express:
            self._store.finish(ended, events)
        self._write_log(run, events)

    def _write_log(self, run: Run, events: list[dict[str, Any]]) -> None:
        """Write the events that the loggingConfiguration asks for (https://docs.aws.amazon.com/step-functions/latest/dg/cw-logs.html)."""
        configuration = run.version.logging
        level = configuration.get("level", "OFF")
        destinations = [destination["cloudWatchLogsLogGroup"]["logGroupArn"] for destination in configuration.get("destinations", [])]
        if level == "OFF" or not destinations:
            return
        lines = []
        for event in events:
            kind = event["type"]
            if level in _LOG_LEVELS and not (kind.endswith(_LOG_LEVELS[level])):
                continue
            details: dict[str, Any] = next((value for value in event.values() if isinstance(value, dict)), {})
            if not configuration.get("includeExecutionData"):
                details = {
                    name: value
                    for name, value in details.items()
                    if name not in ("input", "output", "parameters", "inputDetails", "outputDetails")
                }
            entry = {"id": str(event["id"]), "type": kind, "details": details, "previous_event_id": str(event["previousEventId"])}
            lines.append(json.dumps({**entry, "event_timestamp": str(int(event["timestamp"] * 1000)), "execution_arn": run.record["arn"]}))
        stream = f"states/{run.version.name}/{datetime.now(UTC):%Y-%m-%d}/{run.record['name']}"
        for arn in destinations:
            self._cloud.logs.write(arn.split(":", 6)[6].removesuffix(":*"), stream, *lines)

    def _announce(self, record: Record, version: MachineVersion) -> None:
        """Send the event "Step Functions Execution Status Change" (https://docs.aws.amazon.com/step-functions/latest/dg/eventbridge-integration.html)."""
        if version.express or "events" not in self._cloud.services:
            return
        detail = {
            "executionArn": record["arn"],
            "stateMachineArn": version.arn,
            "name": record["name"],
            "status": record["status"],
            "startDate": int(record["started"] * 1000),
            "stopDate": None if record["stopped"] is None else int(record["stopped"] * 1000),
            "input": record["input"],
            "output": record.get("output"),
            "inputDetails": {"included": True},
            "outputDetails": None if record.get("output") is None else {"included": True},
            "stateMachineVersionArn": version.version_arn,
            "stateMachineAliasArn": version.alias_arn,
            "redriveCount": 0,
            "redriveDate": None,
            "redriveStatus": None,
            "redriveStatusReason": None,
            "error": record.get("error"),
            "cause": record.get("cause"),
        }
        self._cloud.emit("aws.states", "Step Functions Execution Status Change", detail, [record["arn"]])


def _context(record: Record, version: MachineVersion, value: Any) -> dict[str, Any]:
    started = datetime.fromtimestamp(record["started"], UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    execution = {
        "Id": record["arn"],
        "Input": value,
        "Name": record["name"],
        "RoleArn": version.role_arn,
        "StartTime": started,
        "RedriveCount": 0,
    }
    return {"Execution": execution, "StateMachine": {"Id": version.arn, "Name": version.name}}


def _dimensions(version: MachineVersion) -> list[tuple[str, str]]:
    """Return the dimensions that the metrics of an execution have beside the state machine's."""
    asked = (("Alias", version.alias_arn), ("Version", version.version_arn))
    return [(name, arn.rpartition(":")[2]) for name, arn in asked if arn]


def _present(**values: str | None) -> dict[str, str]:
    return {name: value for name, value in values.items() if value is not None}
