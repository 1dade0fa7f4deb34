"""MLflow tracking of a job, which can never hurt the job.

    with job_run(step="Train") as run:
        run.log_params({"epochs": 10})
        run.log_metrics({"validation_accuracy": 0.97}, step=3)
        run.log_dataset("train", digest="<hex>", source="s3://...")
        run.log_artifact(Path("confusion_matrix.png"))

All calls return at once and never raise. They are handed to a process of its own, which imports MLflow (3 s of processor time), talks to the
server, and writes one warning when that fails; leaving the `with` block waits for it, `DRAIN_SECONDS` at most once MLflow is imported.
Nothing happens at all unless MLFLOW_TRACKING_URI is set. Values that are not finite are not written: a missing figure is missing, not NaN, 0 or -1.

The runs: one per pipeline execution (found by its tag, or made), the jobs as its children. The execution is read from the job's own name,
`pipelines-<execution id>-<step>-<suffix>`; a job with another name gets a run without a parent.
"""

from __future__ import annotations

import gc
import json
import logging
import math
import os
import queue
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

logger = logging.getLogger(__name__)

URI_VARIABLE = "MLFLOW_TRACKING_URI"
EXPERIMENT_VARIABLE = "MLFLOW_EXPERIMENT_NAME"
DEFAULT_EXPERIMENT = "scones-vehicle-classifier"
EXECUTION_TAG = "scones.pipeline_execution_id"
JOB_TAG = "scones.job_name"
# From the job's end: how long the tracking process goes on with what is still to be recorded, and when it is killed. The second is long,
# because on a busy machine importing MLflow alone may take long; a server that does not answer is noticed by the limits below.
DRAIN_SECONDS = 15.0
PATIENCE_SECONDS = 90.0
# One retry, 3 seconds for an answer, unless the user set something else; MLflow's own (7 retries, 120 s) would hold a job for minutes.
_HTTP_DEFAULTS = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "3"}
_MAX_DIGEST = 36  # MLflow's limit on a dataset's digest
_JOB_NAME = re.compile(r"pipelines-(?P<execution>[a-z0-9]+)-(?P<step>.+)-[A-Za-z0-9]+")

Value = str | int | float | bool


class RunStatus(StrEnum):
    """How a job's run ended, in MLflow's terms."""

    FINISHED = "FINISHED"
    FAILED = "FAILED"
    KILLED = "KILLED"


class Operation(StrEnum):
    """What a message to the tracking process asks for."""

    BEGIN = "begin"
    PARAMS = "params"
    METRICS = "metrics"
    TAGS = "tags"
    DATASET = "dataset"
    ARTIFACT = "artifact"
    END = "end"


class Run:
    """A job's run, as the job sees it. Made by `job_run`."""

    def __init__(self, channel: IO[str] | None) -> None:
        self._channel = channel

    def log_params(self, params: Mapping[str, Value]) -> None:
        """Record settings."""
        self._send(Operation.PARAMS, values={key: str(value) for key, value in params.items()})

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Record figures, of one epoch when `step` is given. Figures that are not finite are left out."""
        finite = {key: float(value) for key, value in metrics.items() if math.isfinite(value)}
        self._send(Operation.METRICS, values=finite, step=step or 0, milliseconds=int(time.time() * 1000))

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Record what the run can be found by."""
        self._send(Operation.TAGS, values=dict(tags))

    def log_dataset(self, name: str, digest: str, source: str) -> None:
        """Record which data the job read. `name`: its role ("train", "test"); `source`: an address or a description."""
        self._send(Operation.DATASET, name=name, digest=digest, source=source)

    def log_artifact(self, path: Path, folder: str | None = None) -> None:
        """Record a file, which must stay where it is until the `with` block ends."""
        self._send(Operation.ARTIFACT, path=str(path.resolve()), folder=folder)

    def _send(self, operation: Operation, **content: object) -> None:
        if self._channel is None:
            return
        try:
            self._channel.write(json.dumps({"operation": operation, **content}) + "\n")
            self._channel.flush()
        except OSError as error:
            self._channel = None
            logger.warning("MLflow tracking stopped: %s", error)


@contextmanager
def job_run(step: str, *, job_name: str | None = None, job_config: Path | None = None) -> Iterator[Run]:
    """Track the job that runs inside the `with` block.

    `step`: the run's name when the job's name does not say it. `job_name`: default TRAINING_JOB_NAME, which training jobs have; processing
    jobs give `job_config`, the path of their processingjobconfig.json.
    """
    uri = os.environ.get(URI_VARIABLE, "").strip()
    if not uri:
        yield Run(None)
        return
    name = job_name or os.environ.get("TRAINING_JOB_NAME") or _processing_job_name(job_config)
    # -P: the folder of the job's scripts must not shadow what MLflow imports.
    command = [sys.executable, "-P", str(Path(__file__).resolve())]
    try:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, text=True, encoding="utf-8", env=_HTTP_DEFAULTS | os.environ)
    except OSError as error:
        logger.warning("MLflow tracking could not be started: %s", error)
        yield Run(None)
        return
    run = Run(process.stdin)
    run._send(Operation.BEGIN, step=step, job_name=name)
    status = RunStatus.FAILED
    try:
        yield run
        status = RunStatus.FINISHED
    finally:
        _finish(process, run, status)


def execution_of(job_name: str | None) -> tuple[str | None, str | None]:
    """(pipeline execution id, step) of a job's name, or (None, None) when no pipeline started the job."""
    match = _JOB_NAME.fullmatch(job_name or "")
    return (match["execution"], match["step"]) if match else (None, None)


def _processing_job_name(job_config: Path | None) -> str | None:
    if job_config is None or not job_config.is_file():
        return None
    try:
        name = json.loads(job_config.read_text(encoding="utf-8"))["ProcessingJobName"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        logger.warning("%s does not tell the job's name: %r", job_config, error)
        return None
    return str(name)


def _finish(process: subprocess.Popen[str], run: Run, status: RunStatus) -> None:
    run._send(Operation.END, status=status)
    try:
        if process.stdin is not None:
            process.stdin.close()
    except OSError as error:  # the process is gone; it has said why
        logger.debug("tracking channel: %s", error)
    try:
        process.wait(PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        logger.warning("MLflow tracking at %s did not finish within %.0f s; some records are missing", _shown_uri(), PATIENCE_SECONDS)
        process.kill()
        process.wait()


def _shown_uri() -> str:
    """The tracking URI without user, password and query."""
    parts = urlsplit(os.environ.get(URI_VARIABLE, ""))
    return (
        f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}" if parts.hostname else f"{parts.scheme}:{parts.path}"
    )


def _artifact_location() -> str | None:
    """A folder beside the database for a SQLite store, whose default would be the job's working directory; else the server decides."""
    parts = urlsplit(os.environ.get(URI_VARIABLE, ""))
    return (Path(parts.path[1:]).resolve().parent / "artifacts").as_uri() if parts.scheme == "sqlite" else None


# --- The tracking process -----------------------------------------------------------------------------------------------------------------


class Recorder:
    """Carries out messages with an MLflow client. Raises what the client raises."""

    def __init__(self, client: MlflowClient, experiment: str) -> None:
        self._client = client
        self._experiment = experiment
        self._parent: str | None = None
        self._run: str | None = None

    def handle(self, message: Mapping[str, Any]) -> None:
        """Carry out one message; the first must be BEGIN."""
        from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag

        operation = Operation(message["operation"])
        if operation is Operation.BEGIN:
            self._begin(message["step"], message["job_name"])
            return
        if self._run is None:
            return
        if operation is Operation.PARAMS:
            self._client.log_batch(self._run, params=[Param(key, value) for key, value in message["values"].items()])
        elif operation is Operation.METRICS:
            stamp, step = message["milliseconds"], message["step"]
            self._client.log_batch(self._run, metrics=[Metric(key, value, stamp, step) for key, value in message["values"].items()])
        elif operation is Operation.TAGS:
            self._client.log_batch(self._run, tags=[RunTag(key, value) for key, value in message["values"].items()])
        elif operation is Operation.DATASET:
            source = json.dumps({"uri": message["source"]})
            data = Dataset(name=message["name"], digest=message["digest"][:_MAX_DIGEST], source_type="scones", source=source)
            self._client.log_inputs(self._run, datasets=[DatasetInput(data, [InputTag("mlflow.data.context", message["name"])])])
        elif operation is Operation.ARTIFACT:
            self._client.log_artifact(self._run, message["path"], message["folder"])
        elif operation is Operation.END:
            self.end(RunStatus(message["status"]))

    def end(self, status: RunStatus) -> None:
        """Close the job's run and, until its next job begins, the execution's."""
        if self._run is not None:
            self._client.set_terminated(self._run, status)
            if self._parent is not None:
                self._client.set_terminated(self._parent, status)
            self._run = None

    def _begin(self, step: str, job_name: str | None) -> None:
        experiment = self._experiment_id()
        execution, step_of_name = execution_of(job_name)
        tags = {"mlflow.runName": step_of_name or step, "mlflow.source.name": "scones"}
        if job_name:
            tags[JOB_TAG] = job_name
        if execution:
            self._parent = self._execution_run(experiment, execution)
            tags["mlflow.parentRunId"] = self._parent
            self._client.update_run(self._parent, status="RUNNING")
        self._run = self._client.create_run(experiment, tags=tags).info.run_id

    def _experiment_id(self) -> str:
        from mlflow.exceptions import MlflowException

        found = self._client.get_experiment_by_name(self._experiment)
        if found is None:
            try:
                return str(self._client.create_experiment(self._experiment, artifact_location=_artifact_location()))
            except MlflowException:  # another job may have made it in between
                found = self._client.get_experiment_by_name(self._experiment)
                if found is None:
                    raise
        return str(found.experiment_id)

    def _execution_run(self, experiment: str, execution: str) -> str:
        """The execution's run. Jobs that start at the same moment may each make one: all then agree on the oldest, and the others go."""
        query, order = f"tags.`{EXECUTION_TAG}` = '{execution}'", ["attributes.start_time ASC", "attributes.run_id ASC"]
        found = self._client.search_runs([experiment], query, order_by=order)
        if not found:
            tags = {EXECUTION_TAG: execution, "mlflow.runName": execution, "mlflow.source.name": "scones"}
            made = self._client.create_run(experiment, tags=tags).info.run_id
            found = self._client.search_runs([experiment], query, order_by=order)
            if found[0].info.run_id != made:
                self._client.delete_run(made)
        return str(found[0].info.run_id)


class Inbox:
    """The job's messages. A thread empties the pipe as it fills, so that the job never waits to write."""

    def __init__(self, channel: IO[str]) -> None:
        self._messages: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._closed: float | None = None
        threading.Thread(target=self._read, args=(channel,), daemon=True).start()

    def messages(self) -> Iterator[dict[str, Any]]:
        """Each message as it comes, until the job has closed the pipe. Raises TimeoutError when that was `DRAIN_SECONDS` ago (or this call,
        if it came later) and there are still some."""
        began = time.monotonic()
        while (message := self._messages.get()) is not None:
            if self._closed is not None and time.monotonic() > max(self._closed, began) + DRAIN_SECONDS:
                raise TimeoutError(f"it is slow: after {DRAIN_SECONDS:.0f} s some records were still to be written")
            yield message

    def _read(self, channel: IO[str]) -> None:
        for line in channel:
            self._messages.put(json.loads(line))
        self._closed = time.monotonic()
        self._messages.put(None)


def _work() -> int:
    inbox = Inbox(sys.stdin)
    gc.disable()  # looking for garbage among what stays is a sixth of the import time
    # pandas is optional for MLflow, not used here, and a third of the import time.
    sys.modules["pandas"] = None  # type: ignore[assignment]
    try:
        from mlflow.tracking import MlflowClient

        for chatty in ("mlflow", "alembic", "urllib3"):
            logging.getLogger(chatty).setLevel(logging.ERROR)
        # Which store it is says the address: only here the rest of what that needs is imported.
        recorder = Recorder(MlflowClient(), os.environ.get(EXPERIMENT_VARIABLE) or DEFAULT_EXPERIMENT)
        gc.freeze()
        gc.enable()
        for message in inbox.messages():
            recorder.handle(message)
        recorder.end(RunStatus.KILLED)  # without effect after END; the job is gone without one when it was killed
    except Exception as error:  # noqa: BLE001 - whatever MLflow, its plugins or the network raise, it must not fail the job
        reason = str(error).split("\n")[0][:300]
        logger.warning("MLflow tracking at %s failed, the job goes on without it: %s: %s", _shown_uri(), type(error).__name__, reason)
    return 0


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, stream=sys.stdout, format="%(levelname)s tracking: %(message)s")
    sys.exit(_work())
