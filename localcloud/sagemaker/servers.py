"""Model servers: one supervised process per endpoint variant, started again when it crashes, and the connections to it."""

from __future__ import annotations

import contextlib
import http.client
import logging
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from http import HTTPStatus
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from packaging.requirements import InvalidRequirement, Requirement

from localcloud.iam.principals import RoleSession
from localcloud.object_store import ObjectUnavailable
from localcloud.output import read_lines
from localcloud.sagemaker.archives import BadArchive, unpack
from localcloud.sagemaker.containers import check_container
from localcloud.sagemaker.sandbox import Sandbox, Workshop
from localcloud.sagemaker.values import SESSION_NAME

if TYPE_CHECKING:
    from localcloud.cloud import Cloud

log = logging.getLogger(__name__)

_PROGRAM = Path(__file__).parent / "model_server.py"
_SOCKET_VARIABLE = "LOCALCLOUD_SERVER_SOCKET"
#: Seconds that SageMaker gives a container to answer /ping after its start.
STARTUP_SECONDS = 480.0
#: Seconds before a crashed server is started again: the first time, and at most.
_BACKOFF_SECONDS = (0.2, 30.0)
#: A server that lived this long starts with the shortest backoff again.
_STABLE_SECONDS = 60.0
_BACKLOG = 128
#: Seconds that a server whose connection broke may take to end; one that goes on is used on.
_END_SECONDS = 5.0


class DeploymentError(Exception):
    """Indicates that a model cannot be served; the message is the endpoint's FailureReason."""


class InvocationTimeout(Exception):
    """Indicates that the model did not answer in time."""


class ServerDown(Exception):
    """Indicates that the model server ended while it handled a request, or did not come up."""


@dataclass(frozen=True)
class Container:
    """What is served.

    Attributes:
        image: The image's URI; not run.
        role_arn: The role that the model runs as.
        environment: Environment variables.
        model_data: S3 URI of a tar.gz, or of a prefix that ends with "/"; None for a model without data.
    """

    image: str
    role_arn: str
    environment: dict[str, str] = field(default_factory=dict)
    model_data: str | None = None


@dataclass(frozen=True)
class Reply:
    """A model's answer."""

    status: int
    body: bytes
    content_type: str | None
    custom_attributes: str | None


class ModelServer:
    """A model being served.

    Args:
        cloud: The region.
        workshop: Where its folder is made.
        container: What it serves.
        endpoint: The endpoint's name; its log group is /aws/sagemaker/Endpoints/<name>.
        variant: The variant's name.
        startup_seconds: How long the model may take to answer /ping.
    """

    def __init__(
        self, cloud: Cloud, workshop: Workshop, container: Container, endpoint: str, variant: str, startup_seconds: float = STARTUP_SECONDS
    ) -> None:
        self._cloud = cloud
        self._workshop = workshop
        self._container = container
        self._session = RoleSession(container.role_arn, SESSION_NAME)
        self._objects = cloud.objects.acting_as(container.role_arn, SESSION_NAME)
        self._variant = variant
        self._startup_seconds = startup_seconds
        self._group = f"/aws/sagemaker/Endpoints/{endpoint}"
        self._stream = f"{variant}/i-{uuid4().hex[:17]}"
        self._sandbox: Sandbox | None = None
        self._last_line = ""
        self._change = threading.Condition()
        self._process: subprocess.Popen[bytes] | None = None
        self._address: tuple[str, int] | None = None
        self._stopped = False
        self._idle: list[http.client.HTTPConnection] = []
        self._keeper: threading.Thread | None = None

    @property
    def pid(self) -> int | None:
        """The process's id; None while there is none."""
        process = self._process
        return None if process is None or process.returncode is not None else process.pid

    def start(self) -> None:
        """Bring the model here and serve it; return when it answers /ping.

        Raises:
            DeploymentError: It does not; nothing is left behind.
        """
        try:
            self._sandbox = self._prepare()
            self._launch(self._sandbox)
        except DeploymentError:
            self.stop()
            raise
        self._keeper = threading.Thread(target=self._keep, args=(self._sandbox,), name=f"{self._group} {self._variant}", daemon=True)
        self._keeper.start()

    def stop(self) -> None:
        """End the process, also while it starts, and remove its folder."""
        with self._change:
            self._stopped = True
            process = self._process
            self._change.notify_all()
        if process is not None:
            self._cloud.processes.release(process)
        if self._keeper is not None:
            self._keeper.join()
        for connection in self._idle:
            connection.close()
        if self._sandbox is not None:
            self._sandbox.remove()

    def invoke(self, body: bytes, headers: dict[str, str], timeout: float) -> Reply:
        """POST to /invocations.

        Raises:
            InvocationTimeout: No answer within *timeout* seconds; the server is started anew, as nobody knows what it does.
            ServerDown: It crashed, or did not come up in time.
        """
        deadline = time.monotonic() + timeout
        connection = self._connection(deadline)
        try:
            reply = self._exchange(connection, body, headers, deadline)
        except TimeoutError as error:
            connection.close()
            self._kill()
            raise InvocationTimeout from error
        except (OSError, http.client.HTTPException) as error:
            # Not tried again: the request may be what ended the server. The other connections lead to the same process.
            connection.close()
            self._drop_idle()
            self._await_end()
            raise ServerDown from error
        with self._change:
            self._idle.append(connection)
        return reply

    def _exchange(self, connection: http.client.HTTPConnection, body: bytes, headers: dict[str, str], deadline: float) -> Reply:
        # http.client sets TCP_NODELAY itself.
        connection.sock.settimeout(max(0.001, deadline - time.monotonic()))
        connection.request("POST", "/invocations", body, headers)
        response = connection.getresponse()
        return Reply(
            response.status, response.read(), response.getheader("Content-Type"), response.getheader("X-Amzn-SageMaker-Custom-Attributes")
        )

    def _connection(self, deadline: float) -> http.client.HTTPConnection:
        """Return an idle connection, or a new one as soon as the server is up."""
        while True:
            with self._change:
                if self._idle:
                    return self._idle.pop()
                self._change.wait_for(lambda: self._address is not None or self._stopped, max(0.0, deadline - time.monotonic()))
                address = self._address
            if address is None:
                raise ServerDown
            connection = http.client.HTTPConnection(*address, timeout=max(0.001, deadline - time.monotonic()))
            try:
                connection.connect()
            except ConnectionRefusedError:
                # The server has ended, and its keeper has not seen it yet: nothing was sent, so that the next one can have it.
                with self._change:
                    if self._address == address:
                        self._address = None
            except OSError as error:
                raise ServerDown from error
            else:
                return connection

    def _await_end(self) -> None:
        """See out a server whose connection broke: until its socket is closed as well, it would take the next request with it."""
        with self._change:
            process, address = self._process, self._address
        if process is None:
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_END_SECONDS)
            with self._change:
                if self._address == address and self._process is process:
                    self._address = None

    def _drop_idle(self) -> None:
        with self._change:
            dropped, self._idle = self._idle, []
        for connection in dropped:
            connection.close()

    def _prepare(self) -> Sandbox:
        """Make a folder with the model in it.

        Raises:
            DeploymentError: The model is not in S3, or not an archive, or there is no room for it.
        """
        refused = check_container(self._cloud, self._session, self._container.image)
        if refused is not None:
            raise DeploymentError(refused)
        try:
            sandbox = self._workshop.sandbox()
        except OSError as error:
            raise DeploymentError(f"InternalServerError: the model's folder cannot be made: {error}") from error
        try:
            self._download(sandbox.path("/opt/ml/model"))
        except DeploymentError:
            sandbox.remove()
            raise
        return sandbox

    def _download(self, folder: Path) -> None:
        folder.mkdir()
        uri = self._container.model_data
        if uri is None:
            return
        try:
            if uri.endswith("/"):
                self._objects.download(uri, folder)
            else:
                unpack(self._objects.read(uri), folder)
        except ObjectUnavailable as error:
            raise DeploymentError(
                f'Failed to download model data for container "container_1" from URL: "{uri}". Please ensure that there is an object located at the URL and that '
                "the role passed to CreateModel has permissions to download the object."
            ) from error
        except (BadArchive, OSError) as error:
            raise DeploymentError(
                f'Failed to extract model data archive for container "container_1" from URL "{uri}". Please ensure that the object located at the URL is a valid '
                f"tar.gz archive. ({error})"
            ) from error

    def _environment(self, sandbox: Sandbox) -> dict[str, str]:
        settings = {"SAGEMAKER_PROGRAM": "inference.py", "SAGEMAKER_SUBMIT_DIRECTORY": "/opt/ml/model/code"} | self._container.environment
        code = settings["SAGEMAKER_SUBMIT_DIRECTORY"]
        if code.startswith("s3://"):
            # The SDK's way for code that is not in the artifact.
            try:
                unpack(self._objects.read(code), sandbox.ml / "code")
            except (ObjectUnavailable, BadArchive, OSError) as error:
                raise DeploymentError(f"The code archive {code} cannot be used: {error}") from error
            settings["SAGEMAKER_SUBMIT_DIRECTORY"] = "/opt/ml/code"
        settings["SM_MODEL_DIR"] = "/opt/ml/model"
        environment = sandbox.environment(self._cloud.client_environment(self._container.role_arn, SESSION_NAME), settings)
        self._check_requirements(Path(environment["SAGEMAKER_SUBMIT_DIRECTORY"]) / "requirements.txt")
        return environment

    def _check_requirements(self, path: Path) -> None:
        """The container would install them; here they are in this Python, or the model is not served."""
        missing = missing_requirements(path.read_text()) if path.is_file() else []
        if missing:
            raise DeploymentError(
                f"The model's requirements.txt asks for {', '.join(missing)}, which this machine's Python ({sys.executable}) does not have. Install it there; "
                "localcloud installs nothing for a model."
            )

    def _launch(self, sandbox: Sandbox) -> None:
        """Start the process and wait until it answers /ping.

        Raises:
            DeploymentError: It ended, or did not answer in time.
        """
        environment = self._environment(sandbox)
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen(_BACKLOG)
            address = listener.getsockname()
            environment[_SOCKET_VARIABLE] = str(listener.fileno())
            try:
                process = self._cloud.processes.spawn(
                    # -P: the folder of the program is not for the user's imports.
                    [sys.executable, "-P", str(_PROGRAM)], env=environment, cwd=sandbox.work, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                    pass_fds=(listener.fileno(),),
                )  # fmt: skip
            except (OSError, RuntimeError) as error:
                raise DeploymentError(f"The model server cannot be started: {error}") from error
        with self._change:
            self._process = process
            stopped = self._stopped
        assert process.stdout is not None
        printer = threading.Thread(target=read_lines, args=(process.stdout.fileno(), self._print), name=f"{self._stream} log", daemon=True)
        printer.start()
        if stopped or not self._ping(address, process):
            self._cloud.processes.release(process)
            printer.join(timeout=5)
            last = f" Its last line is: {self._last_line}" if self._last_line else ""
            raise DeploymentError(
                f"The primary container for production variant {self._variant} did not pass the ping health check. "
                f"Please check CloudWatch logs for this endpoint.{last}"
            )
        with self._change:
            self._address = address
            self._change.notify_all()

    def _ping(self, address: tuple[str, int], process: subprocess.Popen[bytes]) -> bool:
        # The socket listens already: the request waits in it while the model loads, and fails when the process ends.
        connection = http.client.HTTPConnection(*address, timeout=self._startup_seconds)
        try:
            connection.request("GET", "/ping")
            return bool(connection.getresponse().status == HTTPStatus.OK)
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _print(self, lines: list[str]) -> None:
        self._last_line = next((line for line in reversed(lines) if line.strip()), self._last_line)
        self._cloud.logs.write(self._group, self._stream, *lines, session=self._session)

    def _kill(self) -> None:
        process = self._process
        if process is not None:
            self._cloud.processes.release(process)

    def _keep(self, sandbox: Sandbox) -> None:
        """Start the process again whenever it ends, until `stop`."""
        backoff = _BACKOFF_SECONDS[0]
        while True:
            process = self._process
            assert process is not None
            began = time.monotonic()
            process.wait()
            with self._change:
                self._address = None
                if self._stopped:
                    return
            self._cloud.processes.release(process)
            self._drop_idle()
            self._print([f"localcloud: the model server ended with exit code {process.returncode}; it is started again"])
            if time.monotonic() - began > _STABLE_SECONDS:
                backoff = _BACKOFF_SECONDS[0]
            while not self._stopped_within(backoff):
                backoff = min(2 * backoff, _BACKOFF_SECONDS[1])
                try:
                    self._launch(sandbox)
                    break
                except DeploymentError as error:
                    self._print([f"localcloud: {error}"])
            else:
                return

    def _stopped_within(self, seconds: float) -> bool:
        with self._change:
            return self._change.wait_for(lambda: self._stopped, seconds)


def missing_requirements(text: str) -> list[str]:
    """Return the lines of a requirements file that this Python does not satisfy; options and URLs are not looked at."""
    missing = []
    for line in text.splitlines():
        wanted = line.partition(" #")[0].strip()
        if not wanted or wanted.startswith(("#", "-")):
            continue
        try:
            requirement = Requirement(wanted)
        except InvalidRequirement:
            continue
        if requirement.marker is not None and not requirement.marker.evaluate():
            continue
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            missing.append(wanted)
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            missing.append(wanted)
    return missing
