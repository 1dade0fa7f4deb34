"""Running jobs: each on a thread of its own, from its request to its end, with its code as a supervised child process.

A job's document is what Describe… returns (members that start with "_" are this module's own). It is written before each change is visible, so that a restart
after kill -9 finds which jobs were running: those failed, nothing of them was uploaded, and their folders are gone.
"""

from __future__ import annotations

import enum
import logging
import subprocess
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from localcloud.database import Document, Table
from localcloud.errors import ServiceError
from localcloud.iam.principals import RoleSession
from localcloud.object_store import ObjectUnavailable
from localcloud.output import read_lines
from localcloud.sagemaker.containers import check_container
from localcloud.sagemaker.sandbox import Sandbox, Workshop
from localcloud.sagemaker.values import SESSION_NAME, now

if TYPE_CHECKING:
    from localcloud.cloud import Cloud

log = logging.getLogger(__name__)

#: Seconds between SIGTERM and SIGKILL when a job is stopped; SageMaker gives a container 120.
STOP_GRACE_SECONDS = 120.0
#: Longest FailureReason and ExitMessage (one KB in the API reference).
MESSAGE_LENGTH = 1024

Emit = Callable[[str, dict[str, Any], str], None]


class JobKind(enum.StrEnum):
    """What SageMaker calls a job in its API: ``<kind>JobName``, ``<kind>StartTime`` …"""

    PROCESSING = "Processing"
    TRAINING = "Training"


class Status(enum.StrEnum):
    """A job's status."""

    IN_PROGRESS = "InProgress"
    COMPLETED = "Completed"
    FAILED = "Failed"
    STOPPING = "Stopping"
    STOPPED = "Stopped"


class Ending(enum.Enum):
    """Why a job's process ended."""

    EXITED = "exited"
    STOPPED = "stopped"
    MAX_RUNTIME = "max_runtime"


_UNFINISHED = (Status.IN_PROGRESS, Status.STOPPING)


class JobError(Exception):
    """Indicates that a job failed; the message is its FailureReason."""


class Jobs:
    """The jobs of the region.

    Attributes:
        workshop: Where their folders are (also used for model servers).
        grace: Seconds between SIGTERM and SIGKILL.
    """

    def __init__(self, cloud: Cloud, emit: Emit) -> None:
        self.cloud = cloud
        self.emit = emit
        self.grace = STOP_GRACE_SECONDS
        self.closing = False
        self.changed = threading.Condition()
        self._running: dict[tuple[JobKind, str], Job] = {}
        self.tables: dict[JobKind, Table] = {kind: cloud.db.table(f"sagemaker.{kind.lower()}_jobs") for kind in JobKind}

    def start(self) -> None:
        """Fail the jobs that were running when the process before this one ended, and remove their folders."""
        self.workshop = Workshop(self.cloud.settings.state_dir / "jobs")
        for kind, table in self.tables.items():
            for document in table.values():
                if document[f"{kind}JobStatus"] in _UNFINISHED:
                    _JOB_TYPES[kind](self, document).fail(
                        "InternalServerError: We encountered an internal error. Please try again. (localcloud ended while the job was running.)"
                    )

    def stop(self) -> None:
        """End every running job; each fails."""
        self.closing = True
        running = list(self._running.values())
        for job in running:
            job.interrupt()
        for job in running:
            job.thread.join()
        self.workshop.close()

    def launch(self, job: Job, recorded: Callable[[], None]) -> None:
        """Record a new job and start it.

        Args:
            job: The job.
            recorded: Called when it is recorded and before anybody hears of it.

        Raises:
            ServiceError: There is one of that name.
        """
        table = self.tables[job.kind]
        with table.lock():
            if job.name in table:
                raise ServiceError(
                    "ResourceInUse",
                    f"Job name must be unique within an AWS account and region, and a job with this name already exists ({job.arn})",
                )
            with self.changed:
                self._running[job.kind, job.name] = job
            table.put(job.name, job.document)
            recorded()
        job.announce()
        job.thread.start()

    def get(self, kind: JobKind, name: str) -> Document | None:
        """Return what Describe… returns for a job, or None."""
        document = self.tables[kind].get(name)
        return None if document is None else describe(document)

    def wait(self, kind: JobKind, name: str, timeout: float | None = None) -> Document | None:
        """Wait until a job has ended and return what Describe… returns for it; None when *timeout* seconds pass before that.

        Raises:
            KeyError: There is no such job.
        """
        if name not in self.tables[kind]:
            raise KeyError(name)
        with self.changed:
            ended = self.changed.wait_for(lambda: (kind, name) not in self._running, timeout)
        return self.get(kind, name) if ended else None

    def request_stop(self, kind: JobKind, name: str) -> None:
        """Begin to stop a job; one that has ended is left alone."""
        job = self._running.get((kind, name))
        if job is not None:
            job.request_stop()

    def finished(self, job: Job) -> None:
        """Called by a job's thread as its last act."""
        with self.changed:
            self._running.pop((job.kind, job.name), None)
            self.changed.notify_all()


class Job(ABC):
    """One job. Subclasses say what is downloaded, run and uploaded.

    Args:
        jobs: The region's jobs.
        document: What Describe… returns, as it is when the job is created (or as the table has it).
    """

    kind: ClassVar[JobKind]

    def __init__(self, jobs: Jobs, document: Document) -> None:
        self.jobs = jobs
        self.cloud = jobs.cloud
        self.document = document
        self.name: str = document[f"{self.kind}JobName"]
        self.arn: str = document[f"{self.kind}JobArn"]
        self.role_arn: str = document["RoleArn"]
        self.session = RoleSession(self.role_arn, SESSION_NAME)
        #: S3 as the job's role sees it.
        self.objects = self.cloud.objects.acting_as(self.role_arn, SESSION_NAME)
        self.thread = threading.Thread(target=self._run, name=self.name, daemon=True)
        self.stream = f"{self.name}/algo-1-{int(time.time())}"
        self.group = f"/aws/sagemaker/{self.kind}Jobs"
        self._stop_requested = False
        self._ended = False
        self._process: subprocess.Popen[bytes] | None = None
        self._change = threading.Condition()

    # What a kind of job is.

    @property
    @abstractmethod
    def image(self) -> str:
        """The container image's URI."""

    @abstractmethod
    def download(self, sandbox: Sandbox) -> None:
        """Bring inputs and configuration files into the sandbox.

        Raises:
            JobError: The inputs are not what the job needs.
        """

    @abstractmethod
    def command(self) -> Sequence[str]:
        """Return the container's entrypoint and arguments."""

    @abstractmethod
    def environment(self) -> dict[str, str]:
        """Return the container's environment variables."""

    @abstractmethod
    def conclude(self, sandbox: Sandbox, ending: Ending, exit_code: int) -> None:
        """Upload what the job wrote and record how it ended.

        Raises:
            JobError: It failed.
        """

    def started(self, sandbox: Sandbox) -> None:  # noqa: B027 - a hook; most jobs need nothing
        """Called just before the process is started."""

    def printed(self, lines: list[str]) -> None:  # noqa: B027 - a hook
        """Called with each batch of lines that the job printed."""

    def passed(self, secondary: str) -> None:  # noqa: B027 - a hook
        """Called when the job enters a phase (training's secondary statuses)."""

    # What all jobs do.

    @property
    def max_runtime(self) -> float:
        """Seconds that the process may run."""
        return float(self.document["StoppingCondition"]["MaxRuntimeInSeconds"])

    def update(self, **changes: Any) -> None:
        """Record changes of the document."""
        changes["LastModifiedTime"] = now()
        self.document = self.jobs.tables[self.kind].update(self.name, **changes)

    def announce(self) -> None:
        """Emit the event of a state change."""
        self.jobs.emit(f"SageMaker {self.kind} Job State Change", describe(self.document), self.arn)

    def end(self, status: Status, **changes: Any) -> None:
        """Record the job's end."""
        with self._change:
            # From here on a request to stop comes too late.
            self._ended = True
            self.update(**{f"{self.kind}JobStatus": status, f"{self.kind}EndTime": now()}, **changes)
        self.announce()

    def fail(self, reason: str) -> None:
        """Record that the job failed."""
        self.end(Status.FAILED, FailureReason=shorten(reason))

    def request_stop(self) -> None:
        """Begin to stop: SIGTERM, and SIGKILL after the grace."""
        with self._change:
            if self._stop_requested or self._ended:
                return
            self._stop_requested = True
            self.update(**{f"{self.kind}JobStatus": Status.STOPPING})
            self.passed("Stopping")
            self._change.notify_all()
        self.announce()

    def interrupt(self) -> None:
        """Kill the process now (localcloud is stopping)."""
        with self._change:
            self._stop_requested = True
            self._change.notify_all()
        if self._process is not None:
            self.cloud.processes.release(self._process)

    def publish(self, uploads: Callable[[], None]) -> None:
        """Write the job's results to S3: after a crash all of them are there, or none.

        Raises:
            JobError: They cannot be written.
        """
        try:
            with self.cloud.snapshots.held():
                uploads()
        except (ObjectUnavailable, OSError) as error:
            raise JobError(f"ClientError: Data upload failed: {error}") from error
        # The document is the promise that the results are there.
        self.cloud.snapshots.flush()

    def log(self, *lines: str) -> None:
        """Write to the job's log stream."""
        self.cloud.logs.write(self.group, self.stream, *lines, session=self.session)

    def _run(self) -> None:
        sandbox: Sandbox | None = None
        try:
            sandbox = self.jobs.workshop.sandbox()
            self._work(sandbox)
        except JobError as error:
            self.fail(str(error))
        except Exception as error:  # the thread's outermost boundary: a job always ends
            if not self.jobs.closing:
                log.exception("%s job %s failed inside localcloud", self.kind, self.name)
            self.fail(f"InternalServerError: We encountered an internal error. Please try again. ({error})")
        finally:
            if sandbox is not None:
                sandbox.remove()
            self.jobs.finished(self)

    def _work(self, sandbox: Sandbox) -> None:
        self.passed("Downloading")
        refused = check_container(self.cloud, self.session, self.image)
        if refused is not None:
            raise JobError(f"ClientError: {refused}")
        try:
            self.download(sandbox)
        except (ObjectUnavailable, OSError) as error:
            raise JobError(f"ClientError: Data download failed: {error}") from error
        if self._stop_requested:
            ending, exit_code = Ending.STOPPED, 0
        else:
            self.update(**{f"{self.kind}StartTime": now()})
            self.passed("Training")
            ending, exit_code = self._execute(sandbox)
        if self.jobs.closing:
            raise JobError(
                "InternalServerError: We encountered an internal error. Please try again. (localcloud ended while the job was running.)"
            )
        escape = sandbox.escape()
        if escape is not None:
            self.log(f"localcloud: {escape}")
            raise JobError(algorithm_error(escape, exit_code))
        self.conclude(sandbox, ending, exit_code)

    def _execute(self, sandbox: Sandbox) -> tuple[Ending, int]:
        """Run the process to its end; return why it ended and the exit code (128 + n for signal n)."""
        command = sandbox.command(self.command())
        environment = sandbox.environment(self.cloud.client_environment(self.role_arn, SESSION_NAME), self.environment())
        self.started(sandbox)
        try:
            process = self.cloud.processes.spawn(
                command, env=environment, cwd=sandbox.work, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            )
        except OSError as error:
            reason = f'exec: "{command[0]}": {error.strerror}'
            self.log(reason)
            raise JobError(algorithm_error(reason, 127)) from error
        self._process = process
        assert process.stdout is not None
        pump = threading.Thread(target=read_lines, args=(process.stdout.fileno(), self._print), name=f"{self.name}-log", daemon=True)
        waiter = threading.Thread(target=self._await_exit, args=(process,), name=f"{self.name}-wait", daemon=True)
        pump.start()
        waiter.start()
        with self._change:
            self._change.wait_for(lambda: self._ended or self._stop_requested, self.max_runtime)
            ending = Ending.EXITED if self._ended else Ending.STOPPED if self._stop_requested else Ending.MAX_RUNTIME
        if ending is Ending.MAX_RUNTIME:
            self.log(f"localcloud: the job ran longer than its MaxRuntimeInSeconds ({self.max_runtime:g} s) and is stopped")
            with self._change:
                self.update(**{f"{self.kind}JobStatus": Status.STOPPING})
                self.passed("Stopping")
        graceful = ending is not Ending.EXITED and not self.jobs.closing
        code = self.cloud.processes.release(process, grace=self.jobs.grace if graceful else 0)
        # What was printed is read before the job's end is recorded; a process that left the group may hold the pipe open, and is not waited for.
        pump.join(timeout=2)
        waiter.join()
        if not pump.is_alive():
            process.stdout.close()
        return ending, code if code >= 0 else 128 - code

    def _await_exit(self, process: subprocess.Popen[bytes]) -> None:
        process.wait()
        with self._change:
            self._ended = True
            self._change.notify_all()

    def _print(self, lines: list[str]) -> None:
        self.log(*lines)
        self.printed(lines)


_JOB_TYPES: dict[JobKind, type[Job]] = {}


def job_type(job: type[Job]) -> type[Job]:
    """Register a kind of job (class decorator), so that a restart can end the ones that were running."""
    _JOB_TYPES[job.kind] = job
    return job


def describe(document: Document) -> Document:
    """Return what Describe… shows of a document."""
    return {key: value for key, value in document.items() if not key.startswith("_")}


def algorithm_error(message: str, exit_code: int) -> str:
    """Return the FailureReason of a container that failed, in SageMaker's words; the exit code survives shortening."""
    tail = f", exit code: {exit_code}"
    return shorten(f"AlgorithmError: {message.strip()}", MESSAGE_LENGTH - len(tail)) + tail


def shorten(message: str, length: int = MESSAGE_LENGTH) -> str:
    """Cut a message to what the API returns."""
    return message if len(message) <= length else message[: length - 1] + "…"


def read_message(path: Path) -> str:
    """Return what a container wrote into its failure or message file; empty when it wrote none."""
    try:
        with path.open("rb") as file:
            return file.read(4 * MESSAGE_LENGTH).decode("utf-8", "replace").strip()
    except OSError:
        return ""
