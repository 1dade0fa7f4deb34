"""The Lambda runtime, as a script of its own: it runs where AWS's runtime interface client runs, and imports nothing but the standard library.

``worker.py zygote FD RUNTIME_DIR`` imports boto3 once and forks a worker for each request on the control socket FD; ``worker.py runtime FD`` is one worker.
A worker's socket carries frames (`send_frame`, `receive_frame`): the parent sends one configuration, then one request at a time; the worker answers with
the outcome of its initialisation, then with one answer per request.

What a handler sees (context, environment, log format) and what errors look like follow AWS's runtime interface client
(https://github.com/aws/aws-lambda-python-runtime-interface-client) and https://docs.aws.amazon.com/lambda/latest/dg/python-exceptions.html.
"""

from __future__ import annotations

import builtins
import importlib
import io
import json
import logging
import os
import resource
import select
import signal
import socket
import struct
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

_FRAME = struct.Struct("!II")
#: What AWS's runtime has besides the standard library (https://docs.aws.amazon.com/lambda/latest/dg/lambda-python.html).
RUNTIME_PACKAGES = ("boto3", "botocore", "s3transfer", "jmespath", "dateutil", "six", "urllib3")
#: Of those, the ones that a copy in a function's zip may replace without the others noticing.
_LEAVES = {"jmespath", "six"}
#: Imported before the first fork: what most functions import anyway, and what boto3 imports when it makes a client.
_PRELOADED = (
    "base64", "concurrent.futures", "dataclasses", "datetime", "decimal", "enum", "functools", "hashlib", "inspect", "random", "re", "typing", "uuid",
    "urllib.parse", "boto3", "boto3.s3.inject", "botocore.httpsession", "botocore.signers", "botocore.endpoint_provider", "botocore.regions",
)  # fmt: skip
_TASK_ROOT = "/var/task"


def send_frame(connection: socket.socket, header: dict[str, Any], body: bytes = b"") -> None:
    """Send a JSON header and a body of bytes."""
    encoded = json.dumps(header).encode()
    connection.sendall(_FRAME.pack(len(encoded), len(body)) + encoded + body)


def receive_frame(connection: socket.socket) -> tuple[dict[str, Any], bytes] | None:
    """Return the next header and body, or None when the other side is gone."""
    prefix = _receive(connection, _FRAME.size)
    if prefix is None:
        return None
    header_size, body_size = _FRAME.unpack(prefix)
    content = _receive(connection, header_size + body_size)
    return None if content is None else (json.loads(content[:header_size]), content[header_size:])


def _receive(connection: socket.socket, size: int) -> bytes | None:
    chunks = []
    while size:
        try:
            chunk = connection.recv(min(size, 1 << 20))
        except ConnectionResetError:
            return None
        if not chunk:
            return None
        chunks.append(chunk)
        size -= len(chunk)
    return b"".join(chunks)


class Fault(Exception):
    """Indicates an error that the runtime itself names, e.g. ``Runtime.ImportModuleError``."""

    def __init__(self, kind: str, message: str, trace: list[str] | None = None) -> None:
        super().__init__(message)
        self.kind = f"Runtime.{kind}"
        self.message = message
        self.trace = trace or []


class CognitoIdentity:
    """The caller's Amazon Cognito identity; always empty, as for callers without one."""

    cognito_identity_id: str | None = None
    cognito_identity_pool_id: str | None = None


class ClientContext:
    """What a mobile client says of itself: ``custom``, ``env`` and ``client``."""

    def __init__(self, content: dict[str, Any]) -> None:
        self.custom = content.get("custom")
        self.env = content.get("env")
        self.client = content.get("client")


class Context:
    """The handler's second argument (https://docs.aws.amazon.com/lambda/latest/dg/python-context.html)."""

    def __init__(self, request: dict[str, Any]) -> None:
        self.aws_request_id: str = request["request_id"]
        self.invoked_function_arn: str = request["arn"]
        self.function_name = os.environ.get("AWS_LAMBDA_FUNCTION_NAME")
        self.function_version = os.environ.get("AWS_LAMBDA_FUNCTION_VERSION")
        self.memory_limit_in_mb = os.environ.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE")
        self.log_group_name = os.environ.get("AWS_LAMBDA_LOG_GROUP_NAME")
        self.log_stream_name = os.environ.get("AWS_LAMBDA_LOG_STREAM_NAME")
        self.identity = CognitoIdentity()
        self.tenant_id = None
        content = request.get("client_context")
        self.client_context = ClientContext(content) if isinstance(content, dict) else None
        self._deadline_ms: int = request["deadline_ms"]

    def get_remaining_time_in_millis(self) -> int:
        """Return the milliseconds left until the function's timeout, at least 0."""
        return max(0, self._deadline_ms - int(time.time() * 1000))

    def log(self, message: object) -> None:
        """Write to the function's log."""
        sys.stdout.write(str(message))


class _RequestFilter(logging.Filter):
    request_id = ""

    def filter(self, record: logging.LogRecord) -> bool:
        record.aws_request_id = self.request_id
        return True


class _LineHandler(logging.Handler):
    """Writes a record as one log event: its inner line ends become carriage returns, which the parent turns back."""

    def emit(self, record: logging.LogRecord) -> None:
        sys.stdout.write(self.format(record).rstrip("\n").replace("\n", "\r") + "\n")


class _JsonFormatter(logging.Formatter):
    """The runtime's own JSON log format (LoggingConfig's LogFormat=JSON)."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created)),
            "level": record.levelname,
            "message": record.getMessage(),
            "logger": record.name,
        }
        if record.exc_info and record.exc_info[0] is not None:
            kind, value, trace = record.exc_info
            entry |= {
                "stackTrace": [line.rstrip("\n") for line in traceback.format_tb(trace)],
                "errorType": kind.__name__,
                "errorMessage": str(value),
                "location": f"{record.pathname}:{record.funcName}:{record.lineno}",
            }
        entry["requestId"] = getattr(record, "aws_request_id", "")
        return json.dumps(entry, ensure_ascii=False)


def _set_up_logging() -> _RequestFilter:
    logging.Formatter.converter = time.gmtime
    handler = _LineHandler()
    if os.environ.get("AWS_LAMBDA_LOG_FORMAT") == "JSON":
        handler.setFormatter(_JsonFormatter())
    else:
        text = "[%(levelname)s]\t%(asctime)s.%(msecs)03dZ\t%(aws_request_id)s\t%(message)s"
        handler.setFormatter(logging.Formatter(text, "%Y-%m-%dT%H:%M:%S"))
    request_filter = _RequestFilter()
    handler.addFilter(request_filter)
    root = logging.getLogger()
    level = logging.getLevelNamesMapping().get(
        os.environ.get("AWS_LAMBDA_LOG_LEVEL", "").replace("TRACE", "DEBUG").replace("FATAL", "CRITICAL")
    )
    if level is not None:
        root.setLevel(level)
    root.addHandler(handler)
    return request_filter


def _load_handler(handler: str) -> Callable[[Any, Context], Any]:
    try:
        module_name, function_name = handler.rsplit(".", 1)
    except ValueError as error:
        raise Fault("MalformedHandlerName", f"Bad handler '{handler}': {error}") from error
    if module_name.split(".")[0] in sys.builtin_module_names:
        raise Fault("BuiltInModuleConflict", f"Cannot use built-in module {module_name} as a handler module")
    try:
        module = importlib.import_module(module_name.replace("/", "."))
    except ImportError as error:
        raise Fault("ImportModuleError", f"Unable to import module '{module_name}': {error}") from error
    except SyntaxError as error:
        where = f'  File "{_as_on_aws(str(error.filename))}" Line {error.lineno}\n    {error.text}'
        raise Fault("UserCodeSyntaxError", f"Syntax error in module '{module_name}': {error}", [where]) from error
    try:
        found: Callable[[Any, Context], Any] = getattr(module, function_name)
    except AttributeError as error:
        raise Fault("HandlerNotFound", f"Handler '{function_name}' missing on module '{module_name}'") from error
    return found


def _as_on_aws(path: str) -> str:
    return path.replace(os.environ.get("LAMBDA_TASK_ROOT", _TASK_ROOT), _TASK_ROOT)


def _error(error: BaseException, request_id: str) -> dict[str, Any]:
    """Return the error document of a function: what Invoke answers with."""
    if isinstance(error, Fault):
        message, kind, trace = error.message, error.kind, error.trace
    else:
        frames = traceback.extract_tb(error.__traceback__)
        own = [index for index, frame in enumerate(frames) if frame.filename == __file__ or frame.filename.startswith("<frozen importlib")]
        # The user's frames are those after the runtime's own; importlib's in between are not his either.
        shown = [frame for index, frame in enumerate(frames) if index not in own]
        entries = [traceback.FrameSummary(_as_on_aws(f.filename), f.lineno, f.name, lookup_line=False, line=f.line) for f in shown]
        message, kind, trace = str(error), type(error).__name__, traceback.format_list(entries)
    return {"errorMessage": message, "errorType": kind, "requestId": request_id, "stackTrace": trace}


def _encode(value: Any) -> Any:
    # Decimal is what boto3's DynamoDB resource returns; AWS's runtime writes it as a number.
    if type(value).__name__ == "Decimal":
        return int(value) if value.is_finite() and value == value.to_integral_value() else float(value)
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


def _run_handler(handler: Callable[[Any, Context], Any], request: dict[str, Any], payload: bytes) -> tuple[dict[str, Any] | None, bytes]:
    """Return (error document or None, result as JSON)."""
    try:
        context = Context(request)
        try:
            event = json.loads(payload)
        except ValueError as error:
            raise Fault("UnmarshalError", f"Unable to unmarshal input: {error}") from error
        result = handler(event, context)
        try:
            return None, json.dumps(result, default=_encode).encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise Fault("MarshalError", f"Unable to marshal response: {error}") from error
    except Exception as error:  # noqa: BLE001 - this is where a function's own failures become Lambda's answer
        return _error(error, request["request_id"]), b""


def _peak_memory_mb() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak // (1 << 20) if sys.platform == "darwin" else peak // 1024)


def _set_up_process(configuration: dict[str, Any]) -> None:
    os.environ.clear()
    os.environ.update(configuration["environment"])
    if hasattr(time, "tzset"):
        time.tzset()
    os.chdir(configuration["task_root"])
    sys.path[:] = [*configuration["path"], *configuration["standard_path"], *configuration["runtime_path"]]
    sys.path_importer_cache.clear()
    bundled = set(configuration["bundled"])
    dropped = bundled if bundled <= _LEAVES else set(RUNTIME_PACKAGES)
    if bundled:
        # The zip comes first on AWS's path, so that its copy and not the runtime's is what the function gets.
        for name in [name for name in sys.modules if name.partition(".")[0] in dropped]:
            del sys.modules[name]
    for number, name in ((1, "stdout"), (2, "stderr")):
        # Written through at once: what a function printed before it crashed is what its author needs.
        setattr(
            sys,
            name,
            io.TextIOWrapper(io.FileIO(number, "w", closefd=False), encoding="utf-8", errors="backslashreplace", write_through=True),
        )
    sys.argv = ["bootstrap"]
    # What the module `site` would have added; it is left out because it would add this machine's site-packages, too.
    for name in ("exit", "quit"):
        setattr(builtins, name, sys.exit)


def run_worker(connection: socket.socket, standard_path: list[str]) -> None:
    """Initialise the function and answer requests until the parent is gone."""
    received = receive_frame(connection)
    if received is None:
        return
    configuration = received[0]
    _set_up_process(configuration | {"standard_path": standard_path})
    request_filter = _set_up_logging()
    began = time.perf_counter()
    try:
        handler = _load_handler(os.environ["_HANDLER"])
    except Exception as error:  # noqa: BLE001 - whatever the module raises while it is imported is the function's init error
        send_frame(connection, {"error": _error(error, "")})
        raise SystemExit(1) from None
    send_frame(connection, {"error": None, "init_ms": (time.perf_counter() - began) * 1000})
    while True:
        received = receive_frame(connection)
        if received is None:
            return
        request, payload = received
        request_filter.request_id = request["request_id"]
        if request.get("trace_id"):
            os.environ["_X_AMZN_TRACE_ID"] = request["trace_id"]
        began = time.perf_counter()
        failure, result = _run_handler(handler, request, payload)
        duration = (time.perf_counter() - began) * 1000
        sys.stdout.flush()
        sys.stderr.flush()
        send_frame(connection, {"error": failure, "duration_ms": duration, "memory_mb": _peak_memory_mb()}, result)


def _exit_after(work: Callable[[], None]) -> None:
    """Run *work* in a forked child and never return: the zygote's own code must not go on in it."""
    code = 0
    try:
        work()
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        if isinstance(stop.code, str):
            sys.stderr.write(stop.code + "\n")
    except BaseException:  # noqa: BLE001 - a KeyboardInterrupt in a handler ends its process, as on AWS
        traceback.print_exc()
        code = 1
    os._exit(code & 0xFF)


class Zygote:
    """Forks workers on request and tells how they ended."""

    def __init__(self, control: socket.socket, runtime_dir: str) -> None:
        self._control = control
        self._standard_path = [path for path in sys.path if path]
        self._wake_reader, self._wake_writer = socket.socketpair()
        self._wake_reader.setblocking(False)
        self._wake_writer.setblocking(False)
        sys.path.append(runtime_dir)
        for name in _PRELOADED:
            importlib.import_module(name)

    def run(self) -> None:
        """Serve until the parent is gone."""
        import gc

        # Objects that live for ever are kept out of the collector's way, so that it does not touch (and copy) their pages in every worker.
        gc.collect()
        gc.freeze()
        signal.set_wakeup_fd(self._wake_writer.fileno())
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        self._tell({"ready": True})
        while True:
            readable, _, _ = select.select([self._control, self._wake_reader], [], [])
            if self._wake_reader in readable:
                self._drain()
                self._reap()
            if self._control in readable:
                try:
                    message, fds, _, _ = socket.recv_fds(self._control, 1, 2)
                except ConnectionResetError:
                    return
                if not message:
                    return
                self._fork(*fds)

    def _drain(self) -> None:
        try:
            while self._wake_reader.recv(4096):
                pass
        except BlockingIOError:
            return

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._tell({"exited": pid, "code": os.waitstatus_to_exitcode(status)})

    def _fork(self, connection_fd: int, output_fd: int) -> None:
        pid = os.fork()
        if pid == 0:
            _exit_after(lambda: self._become_worker(connection_fd, output_fd))
        os.close(connection_fd)
        os.close(output_fd)
        self._tell({"forked": pid})

    def _become_worker(self, connection_fd: int, output_fd: int) -> None:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        os.setsid()
        os.dup2(output_fd, 1)
        os.dup2(output_fd, 2)
        os.close(output_fd)
        for connection in (self._control, self._wake_reader, self._wake_writer):
            connection.close()
        run_worker(socket.socket(fileno=connection_fd), self._standard_path)

    def _tell(self, message: dict[str, Any]) -> None:
        self._control.sendall(json.dumps(message).encode() + b"\n")


def main(arguments: list[str]) -> None:
    """Entry point of the script."""
    connection = socket.socket(fileno=int(arguments[1]))
    if arguments[0] == "zygote":
        Zygote(connection, arguments[2]).run()
    else:
        run_worker(connection, [path for path in sys.path if path])


if __name__ == "__main__":
    main(sys.argv[1:])
