"""Executions: one thread each that schedules, one thread for each step that runs.

Nothing polls: the scheduler sleeps on a queue, steps sleep until a document changes. Each transition of a step or an execution is one write to the state
file, made before it is reported.
"""

from __future__ import annotations

import json
import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from localcloud.errors import LocalCloudError, ServiceError
from localcloud.sagemaker.pipelines import names
from localcloud.sagemaker.pipelines.cache import cache_key, differences, digest_text
from localcloud.sagemaker.pipelines.definition import Definition, Step, StepType, parse_definition
from localcloud.sagemaker.pipelines.expressions import ExpressionError, format_time, resolve
from localcloud.sagemaker.pipelines.graph import Outcome, Schedule, dependencies
from localcloud.sagemaker.pipelines.host import Host, HostClosing
from localcloud.sagemaker.pipelines.reporting import Reporter
from localcloud.sagemaker.pipelines.retries import Retries
from localcloud.sagemaker.pipelines.runners import RUNNERS, Attempt, Callbacks, Metadata, StepFailed, StepResult, StepStopped, still_usable
from localcloud.sagemaker.pipelines.store import Document, PipelineStore, now
from localcloud.sagemaker.pipelines.validation import OPERATIONS

log = logging.getLogger(__name__)

T = TypeVar("T")

#: https://docs.aws.amazon.com/general/latest/gr/sagemaker.html: steps of one execution that run at once.
MAX_PARALLEL_STEPS = 50
FAILURE_REASON = "Step failure: One or multiple steps failed."
INTERRUPTED_REASON = "InternalServerError: localcloud ended while this step was running. Retry the execution to go on from here."
_LONGEST_FAILURE_REASON = 1024
_RECORD_AGAIN_SECONDS = 1.0

#: Statuses of executions and steps in which something goes on.
ACTIVE_EXECUTION = ("Executing", "Stopping")
ACTIVE_STEP = ("Starting", "Executing", "Stopping")


class Engine:
    """Runs executions.

    Args:
        store: The documents.
        host: The rest of the region.
    """

    def __init__(self, store: PipelineStore, host: Host) -> None:
        self.store = store
        self.host = host
        self.reporter = Reporter(host)
        self.callbacks = Callbacks()
        self._runs: dict[str, ExecutionRun] = {}
        self._lock = threading.Lock()

    def recover(self) -> None:
        """Mark what an earlier process left running as failed, the steps first."""
        for execution in self.store.executions.values():
            if execution["Status"] not in ACTIVE_EXECUTION:
                continue
            for step in self.store.steps_of(execution["PipelineName"], execution["Id"]):
                if step["Status"] in ACTIVE_STEP:
                    self.store.put_step(step | {"Status": "Failed", "FailureReason": INTERRUPTED_REASON, "EndTime": now()})
            failed = {"Status": "Failed", "FailureReason": FAILURE_REASON, "EndTime": now(), "LastModifiedTime": now()}
            self.store.executions.put(execution["Arn"], execution | failed)

    def start(self, execution: Document, previous: str | None = None) -> None:
        """Begin (or, after *previous* status, go on with) an execution whose document is stored with status Executing."""
        run = ExecutionRun(self, execution)
        with self._lock:
            self._runs[execution["Arn"]] = run
        self.reporter.execution(execution, previous)
        run.start()

    def stop(self, execution_arn: str) -> None:
        """Stop an execution: running jobs are stopped, nothing more is started."""
        with self._lock:
            run = self._runs.get(execution_arn)
        if run is not None:
            run.stop()

    def set_limit(self, execution_arn: str, limit: int) -> None:
        """Change how many steps of a running execution may run at once."""
        with self._lock:
            run = self._runs.get(execution_arn)
        if run is not None:
            run.set_limit(limit)

    def record(self, write: Callable[[], T]) -> T:
        """Write to the state file. While that fails (a full disk) try again: what a step made must not be lost, and nobody may wait for ever.

        Raises:
            HostClosing: The region is shutting down.
        """
        told = False
        while not self.host.closing:
            try:
                return write()
            except LocalCloudError as error:
                if not told:
                    log.error("%s", error)
                    told = True
                time.sleep(_RECORD_AGAIN_SECONDS)
        raise HostClosing

    def forget(self, execution_arn: str, run: ExecutionRun) -> None:
        """Drop a run that has ended; a retry may have put another in its place."""
        with self._lock:
            if self._runs.get(execution_arn) is run:
                del self._runs[execution_arn]

    def join(self, timeout: float) -> None:
        """Wait until every execution's thread has ended (after the host closed)."""
        deadline = time.monotonic() + timeout
        with self._lock:
            runs = list(self._runs.values())
        for run in runs:
            run.join(max(0.0, deadline - time.monotonic()))


@dataclass(frozen=True)
class _Finished:
    name: str
    outcome: Outcome
    condition: bool | None = None


class ExecutionRun:
    """One running execution."""

    def __init__(self, engine: Engine, execution: Document) -> None:
        self._engine = engine
        self._store = engine.store
        self._arn: str = execution["Arn"]
        self._execution = execution
        self.definition: Definition = parse_definition(self._store.definition(execution["DefinitionDigest"]))
        self._graph = dependencies(self.definition)
        #: What step threads tell the scheduler; None wakes it.
        self._queue: queue.SimpleQueue[_Finished | None] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._limit = parallel_limit(execution)
        self._thread = threading.Thread(target=self._run, name=f"pipeline-{execution['Id']}", daemon=True)
        self._workers: list[threading.Thread] = []
        self._order = 0
        self._order_lock = threading.Lock()

    def start(self) -> None:
        """Begin scheduling."""
        self._thread.start()

    def stop(self) -> None:
        """Start nothing more and stop what runs."""
        self._stopping.set()
        self._queue.put(None)
        self._engine.host.announce()

    def set_limit(self, limit: int) -> None:
        """Change how many steps may run at once."""
        self._limit = limit
        self._queue.put(None)

    def join(self, timeout: float) -> None:
        """Wait for the threads."""
        for thread in (self._thread, *self._workers):
            if thread.is_alive() and thread is not threading.current_thread():
                thread.join(timeout)

    def next_order(self) -> int:
        """Return the number of a step that starts now: the order in which the API lists steps."""
        with self._order_lock:
            self._order += 1
            return self._order

    def _run(self) -> None:
        try:
            schedule = self._schedule()
            while not self._engine.host.closing:
                if self._stopping.is_set():
                    schedule.halt()
                schedule.limit = self._limit
                for name in schedule.take_ready():
                    self._start_step(self.definition.steps[name])
                if not schedule.running:
                    self._end(schedule)
                    return
                finished = self._queue.get()
                if finished is not None:
                    schedule.finish(finished.name, finished.outcome, finished.condition)
        except HostClosing:
            pass
        except Exception:  # the thread's outermost boundary; the next start marks the execution as failed
            log.exception("The execution %s cannot go on", self._arn)
        finally:
            self._engine.forget(self._arn, self)

    def _schedule(self) -> Schedule:
        """Return the schedule with what is done already: steps of a retried execution, steps that a selective execution takes from its source."""
        done: dict[str, Outcome] = {}
        outcomes: dict[str, bool] = {}
        for step in self._store.steps_of(self._execution["PipelineName"], self._execution["Id"]):
            self._order = max(self._order, step["Order"])
            if step["Status"] == "Succeeded":
                done[step["Name"]] = Outcome.SUCCEEDED
                if step["Type"] == StepType.CONDITION:
                    outcomes[step["Name"]] = step["Properties"]["Outcome"]
        selected = self._execution.get("SelectedSteps")
        if selected is not None:
            done |= {name: Outcome.SKIPPED for name in self.definition.steps if name not in selected and name not in done}
        return Schedule(self.definition, self._graph, done=done, outcomes=outcomes, limit=self._limit)

    def _start_step(self, step: Step) -> None:
        worker = threading.Thread(target=self._run_step, args=(step,), name=f"step-{step.name}", daemon=True)
        self._workers.append(worker)
        worker.start()

    def _run_step(self, step: Step) -> None:
        run = StepRun(self._engine, self._execution, self.definition, step, self.next_order(), self._stopping)
        try:
            outcome, condition = run.run()
        except HostClosing:
            self._queue.put(None)
        else:
            self._queue.put(_Finished(step.name, outcome, condition))

    def _end(self, schedule: Schedule) -> None:
        # Stop and end may come at once: the status is read and written in one go.
        with self._store.executions.lock():
            execution = self._store.executions.get(self._arn)
            assert execution is not None, "an execution that runs cannot be deleted"
            previous = execution["Status"]
            outcomes = set(schedule.done.values())
            changes: Document = {"EndTime": now(), "LastModifiedTime": now(), "Status": "Succeeded"}
            if Outcome.FAILED in outcomes:
                changes |= {"Status": "Failed", "FailureReason": FAILURE_REASON}
            elif previous == "Stopping":
                changes["Status"] = "Stopped"
            self._engine.forget(self._arn, self)
            ended = self._engine.record(lambda: self._store.executions.update(self._arn, **changes))
        self._engine.reporter.execution(ended, previous)


def parallel_limit(execution: Document) -> int:
    """Return how many steps of an execution may run at once."""
    configuration: Mapping[str, int] = execution.get("Parallelism") or {}
    return min(configuration.get("MaxParallelExecutionSteps", MAX_PARALLEL_STEPS), MAX_PARALLEL_STEPS)


class StepRun:
    """One step of one execution: cache, attempts, record."""

    def __init__(
        self, engine: Engine, execution: Document, definition: Definition, step: Step, order: int, stopping: threading.Event
    ) -> None:
        self._engine = engine
        self._host = engine.host.acting_as(execution["RoleArn"])
        self._store = engine.store
        self._execution = execution
        self._definition = definition
        self._step = step
        self._stopping = stopping
        earlier = self._store.step(execution["PipelineName"], execution["Id"], step.name)
        self._document: Document = {
            "Execution": execution["Arn"],
            "ExecutionId": execution["Id"],
            "Pipeline": execution["PipelineName"],
            "Name": step.name,
            "Type": step.type.value,
            "Order": order,
            "Status": "Starting",
            "StartTime": now(),
            "AttemptCount": earlier["AttemptCount"] if earlier else 0,
            "Metadata": {},
        }

    def run(self) -> tuple[Outcome, bool | None]:
        """Run the step to its end and record it; return how it ended, and a condition's outcome.

        Raises:
            HostClosing: The region is shutting down; the step's document stays as it is.
        """
        self._write(None)
        retries = Retries(self._step.retry_policies)
        failures = 0
        while True:
            self._document["AttemptCount"] += 1
            try:
                return self._succeed(self._attempt(failures))
            except StepStopped:
                return self._end("Stopped", None)
            except StepFailed as error:
                failure = error
            except ExpressionError as error:
                failure = StepFailed(f"ClientError: {error}")
            except (ServiceError, LocalCloudError) as error:
                failure = StepFailed(f"ClientError: {error.message if isinstance(error, ServiceError) else error}")
            except HostClosing:
                raise
            except Exception as error:  # the outermost boundary of a step: a fault of localcloud must end the step, not hang the execution
                log.exception("Step %s of %s failed inside localcloud", self._step.name, self._execution["Arn"])
                # Not retried, unlike a fault of AWS: the same would happen again.
                failure = StepFailed(f"InternalServerError: {type(error).__name__}: {error}")
            delay = retries.next_delay(failure.exception, time.monotonic())
            if delay is None:
                return self._end("Failed", failure.reason)
            failures += 1
            log.info(
                "Step %s: attempt %d failed (%s); next in %.1f s", self._step.name, self._document["AttemptCount"], failure.reason, delay
            )
            if self._wait(delay):
                return self._end("Stopped", None)

    def _attempt(self, failures: int) -> StepResult:
        step = self._step
        given: str | None = None
        name: str | None = None
        scope = _ExecutionScope(self._store, self._host, self._execution, self._definition)
        operation = OPERATIONS.get(step.type)
        raw = dict(step.arguments) if step.type is not StepType.CONDITION else {}
        if operation is not None and step.type is not StepType.REGISTER_MODEL:
            given = resolve(raw.pop(operation.name_member, None), scope)
            name = self._name(given, failures)
            scope.job_name = name
        arguments: dict[str, Any] = resolve(raw, scope)
        cached = self._from_cache(arguments | ({} if given is None or operation is None else {operation.name_member: given}))
        if cached is not None:
            return cached
        if step.type in (StepType.LAMBDA, StepType.CALLBACK):
            target = "FunctionArn" if step.type is StepType.LAMBDA else "SqsQueueUrl"
            arguments = {target: resolve(step.function_arn or step.sqs_queue_url, scope), "Arguments": arguments}
        elif name is not None and operation is not None:
            arguments[operation.name_member] = name
        attempt = Attempt(
            step=step,
            execution_arn=self._execution["Arn"],
            execution_id=self._execution["Id"],
            arguments=arguments,
            scope=scope,
            host=self._host,
            stopping=self._stopping.is_set,
            publish=self._publish,
            mark_stopping=self._mark_stopping,
            callbacks=self._engine.callbacks,
        )
        return RUNNERS[step.type](attempt)

    def _name(self, given: str | None, failures: int) -> str:
        if given is None:
            return names.generated_name(self._execution["Id"], self._step.name)
        # Only an endpoint keeps the name that the definition gives it: it is there to be found again, and updated.
        return given if self._step.type is StepType.ENDPOINT else names.prefixed_name(given, self._execution["Id"], failures)

    def _from_cache(self, arguments: dict[str, Any]) -> StepResult | None:
        """Return an earlier run's result for the same key, and record in the step's document what the cache said."""
        config = self._step.cache
        if config is None or not config.enabled:
            return None
        key = cache_key(self._step.type, arguments)
        if key is None:
            self._document["Cache"] = {"hit": False, "reason": f"Steps of type {self._step.type} are not cached."}
            return None
        self._document["CacheKey"] = key
        digest = digest_text(key)
        oldest = None if config.expire_after is None else _before(now(), config.expire_after.total_seconds())
        reason = "No successful run of this step so far."
        changed: list[str] = []
        runs = [
            run for run in self._store.runs_of(self._execution["PipelineName"], self._step.name) if _reusable(run, self._execution["Arn"])
        ]
        if runs:
            changed = list(differences(runs[0]["CacheKey"], key))
            reason = f"Changed since {runs[0]['Execution']}: {'; '.join(changed)}"
        for run in runs:
            if digest_text(run["CacheKey"]) != digest:
                continue
            if oldest is not None and run["EndTime"] < oldest:
                reason = f"The run of {run['Execution']} is older than ExpireAfter."
                break
            if not still_usable(self._step, run["Properties"], run["Outputs"], self._host):
                reason = f"What the run of {run['Execution']} made is gone."
                continue
            self._document |= {
                "CacheHit": run["Execution"],
                "Cache": {"hit": True, "source": run["Execution"]},
                "Metadata": run["Metadata"],
            }
            return StepResult(run["Properties"], tuple(run["Outputs"]))
        self._document["Cache"] = {"hit": False, "reason": reason, "changed": changed}
        log.info("Step %s: not taken from the cache. %s", self._step.name, reason)
        return None

    def _publish(self, metadata: Metadata) -> None:
        previous = self._document["Status"]
        self._document["Metadata"] = metadata
        if previous == "Starting":
            self._document["Status"] = "Executing"
            self._write(previous)
        else:
            self._engine.record(lambda: self._store.put_step(self._document))

    def _mark_stopping(self) -> None:
        previous, self._document["Status"] = self._document["Status"], "Stopping"
        self._write(previous)

    def _succeed(self, result: StepResult) -> tuple[Outcome, bool | None]:
        outputs = [uri for uri in result.outputs if self._host.has_objects(uri)]
        self._document |= {"Properties": result.properties, "Outputs": outputs}
        self._end("Succeeded", None)
        return Outcome.SUCCEEDED, result.properties["Outcome"] if self._step.type is StepType.CONDITION else None

    def _end(self, status: str, reason: str | None) -> tuple[Outcome, bool | None]:
        previous = self._document["Status"]
        self._document |= {"Status": status, "EndTime": now()}
        if reason is not None:
            self._document["FailureReason"] = (
                reason if len(reason) <= _LONGEST_FAILURE_REASON else reason[: _LONGEST_FAILURE_REASON - 3] + "..."
            )
        self._write(previous)
        return Outcome(status), None

    def _write(self, previous: str | None) -> None:
        self._engine.record(lambda: self._store.put_step(self._document))
        self._engine.reporter.step(self._execution["PipelineArn"], self._document, previous)

    def _wait(self, seconds: float) -> bool:
        """Wait between two attempts; return whether the execution is being stopped."""
        deadline = time.monotonic() + seconds
        timer = threading.Timer(seconds, self._host.announce)
        timer.daemon = True
        timer.start()
        try:
            return self._host.wait_until(lambda: True if self._stopping.is_set() else False if time.monotonic() >= deadline else None)
        finally:
            timer.cancel()


def _reusable(run: Document, execution_arn: str) -> bool:
    """Return whether a step's document is of a run that computed something, in another execution, with a cache key.

    A result that itself came from elsewhere is found where it was computed.
    """
    computed = "CacheKey" in run and "CacheHit" not in run and "SelectiveSource" not in run
    return run["Status"] == "Succeeded" and computed and run["Execution"] != execution_arn


def _before(moment: datetime, seconds: float) -> datetime | None:
    try:
        return datetime.fromtimestamp(moment.timestamp() - seconds, tz=moment.tzinfo)
    except (OverflowError, ValueError, OSError):
        return None


class _ExecutionScope:
    """What the expressions of an execution's steps can see."""

    def __init__(self, store: PipelineStore, host: Host, execution: Document, definition: Definition) -> None:
        self._store = store
        self._host = host
        self._execution = execution
        self._definition = definition
        self.job_name: str | None = None

    def parameter(self, name: str) -> str | int | float | bool:
        """Return a parameter's value."""
        value: str | int | float | bool = self._execution["Parameters"][name]
        return value

    def execution_variable(self, name: str) -> str:
        """Return an execution variable."""
        execution = self._execution
        values: dict[str, Any] = {
            "StartDateTime": format_time(execution["CreationTime"]),
            "PipelineName": execution["PipelineName"],
            "PipelineArn": execution["PipelineArn"],
            "PipelineExecutionId": execution["Id"],
            "PipelineExecutionArn": execution["Arn"],
            "TrainingJobName": self.job_name,
            "ProcessingJobName": self.job_name,
        }
        return format_time(now()) if name == "CurrentDateTime" else str(values[name])

    def step_properties(self, step: str) -> Mapping[str, Any]:
        """Return a succeeded step's properties."""
        document = self._store.step(self._execution["PipelineName"], self._execution["Id"], step)
        if document is None or "Properties" not in document:
            raise ExpressionError(f"Step {step} has no properties: it has not succeeded")
        properties: dict[str, Any] = document["Properties"]
        return properties

    def property_file(self, step: str, name: str) -> Any:
        """Return a step's property file, parsed."""
        file = self._definition.steps[step].property_files[name]
        for output in self.step_properties(step).get("ProcessingOutputConfig", {}).get("Outputs", []):
            if output["OutputName"] == file.output_name and "S3Output" in output:
                return self.json_object(f"{output['S3Output']['S3Uri'].rstrip('/')}/{file.file_path}")
        raise ExpressionError(f"The output {file.output_name} of property file {name} is not in S3")

    def json_object(self, uri: str) -> Any:
        """Return an S3 object, parsed as JSON."""
        try:
            return json.loads(self._host.read_object(uri))
        except LocalCloudError as error:
            raise ExpressionError(f"Unable to get the JSON file {uri}: {error}") from error
        except ValueError as error:
            raise ExpressionError(f"The file {uri} is not valid JSON: {error}") from error
