"""Invoking functions: from a version and a payload to a result, through a warm worker."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
import uuid
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from localcloud.awslambda.code import CodeStore
from localcloud.awslambda.function_logs import InvocationLog, LogShipper, Report
from localcloud.awslambda.functions import FunctionVersion, Target
from localcloud.awslambda.workers import IDLE_SECONDS, INIT_SECONDS, Spawner, Worker, WorkerExit, WorkerPool, WorkerSettings
from localcloud.errors import ServiceError

if TYPE_CHECKING:
    from localcloud.cloud import Cloud

log = logging.getLogger(__name__)

#: Bytes of a synchronous invocation's payload, of its response, and of an asynchronous one's payload
#: (https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html).
MAX_REQUEST_BYTES = 6_291_456
MAX_RESPONSE_BYTES = 6_291_556
MAX_EVENT_BYTES = 1_048_576

_SIGNALS = {-9: "killed", -11: "segmentation fault", -6: "aborted", -15: "terminated", -7: "bus error", -4: "illegal instruction"}


@dataclass(frozen=True)
class InvocationResult:
    """What Invoke answers with.

    Attributes:
        status_code: 200 (also when the function failed), 202 for an accepted event, 204 for a dry run.
        function_error: None, or ``Unhandled`` when the function failed.
        payload: The function's result as JSON, or the error document.
        executed_version: ``$LATEST`` or a number.
        request_id: The invocation's id; the handler's ``aws_request_id``.
        log_tail: The last 4 KB of its log.
    """

    status_code: int
    function_error: str | None
    payload: bytes
    executed_version: str
    request_id: str
    log_tail: bytes = b""


class Invoker:
    """Runs invocations on the background loop."""

    def __init__(self, cloud: Cloud, code: CodeStore) -> None:
        self._cloud = cloud
        self._code = code
        self._shipper = LogShipper(cloud.logs)
        self._spawner = Spawner(cloud.processes, code.runtime_dir)
        self._pools: dict[str, WorkerPool] = {}
        self._in_flight: Counter[str] = Counter()

    def start(self) -> None:
        """Begin accepting invocations."""
        self._shipper.start()
        self._cloud.background.spawn(self._reap_for_ever())

    def stop(self) -> None:
        """End every worker."""
        self._cloud.background.call(self._close())
        self._shipper.stop()

    def prepare(self) -> None:
        """Get ready for a first invocation, in the background."""
        self._cloud.background.spawn(self._spawner.prepare())

    async def invoke(self, target: Target, payload: bytes, request_id: str | None = None, client_context: Any = None) -> InvocationResult:
        """Run one invocation to its end. When the caller is cancelled the function still runs to its end, as on AWS.

        Raises:
            ServiceError: TooManyRequestsException, when the function's reserved concurrency is used up.
        """
        name = target.version.name
        limit = target.reserved_concurrency
        if limit is not None and self._in_flight[name] >= limit:
            self._cloud.metrics.function_throttled(name, target.qualifier)
            # AWS gives the Reason ReservedFunctionConcurrentInvocationLimitExceeded with it.
            raise ServiceError("TooManyRequestsException", "Rate Exceeded.", 429)
        self._in_flight[name] += 1
        running = asyncio.get_running_loop().create_task(self._run(target, payload, request_id or str(uuid.uuid4()), client_context))
        running.add_done_callback(lambda _: self._in_flight.subtract([name]))
        return await asyncio.shield(running)

    async def forget(self, name: str) -> None:
        """End the workers of a function whose code or configuration changed; those at work end after it."""
        for key in [key for key in self._pools if key.partition(":")[0] == name]:
            self._pools.pop(key).close()

    async def _run(self, target: Target, payload: bytes, request_id: str, client_context: Any) -> InvocationResult:
        version = target.version
        pool = self._pools.get(version.key)
        if pool is None:
            pool = self._pools[version.key] = WorkerPool(lambda: self._new_worker(version))
        worker = await pool.acquire()
        reusable = False
        try:
            function_log = InvocationLog(self._shipper.write, version, worker.log_stream, request_id)
            failure, body, report = await self._run_in(
                worker, version, target.invoked_arn, payload, request_id, client_context, function_log
            )
            reusable = report.error_type is None and report.status != "timeout"
        finally:
            pool.release(worker, reusable)
        function_log.end(report)
        if failure is None and len(body) > MAX_RESPONSE_BYTES:
            message = f"Response payload size ({len(body)} bytes) exceeded maximum allowed payload size ({MAX_RESPONSE_BYTES} bytes)."
            failure = {"errorType": "Function.ResponseSizeTooLarge", "errorMessage": message}
        self._cloud.metrics.function_ran(version.name, target.qualifier, failure is not None, report.duration_ms)
        if failure is not None:
            return InvocationResult(200, "Unhandled", json.dumps(failure).encode(), version.version, request_id, function_log.tail())
        return InvocationResult(200, None, body, version.version, request_id, function_log.tail())

    async def _run_in(
        self,
        worker: Worker,
        version: FunctionVersion,
        arn: str,
        payload: bytes,
        request_id: str,
        client_context: Any,
        function_log: InvocationLog,
    ) -> tuple[dict[str, Any] | None, bytes, Report]:
        """Return (error document or None, result, report)."""
        began = time.monotonic()
        init_ms: float | None = None
        timeout = float(version.timeout)
        try:
            if not worker.started:
                async with asyncio.timeout(INIT_SECONDS + timeout):
                    await worker.start(self._spawner, function_log.lines)
                    initialised = await worker.initialised()
                worker.finish_output()
                init_ms = (time.monotonic() - began) * 1000
                if init_ms > INIT_SECONDS * 1000:
                    timeout = max(0.0, INIT_SECONDS + timeout - init_ms / 1000)
                if initialised["error"] is not None:
                    error = initialised["error"] | {"requestId": request_id}
                    function_log.error(error)
                    function_log.start()
                    return error, b"", Report(init_ms, 0, None, "error", error["errorType"])
                began = time.monotonic()
            function_log.start()
            request = {
                "request_id": request_id,
                "arn": arn,
                "deadline_ms": int((time.time() + timeout) * 1000),
                "client_context": client_context,
                "trace_id": f"Root=1-{int(time.time()):08x}-{uuid.uuid4().hex[:24]};Parent={uuid.uuid4().hex[:16]};Sampled=0",
            }
            async with asyncio.timeout(timeout):
                answer, body = await worker.invoke(request, payload, function_log.lines)
            worker.finish_output()
        except TimeoutError:
            worker.finish_output()
            text = f"Task timed out after {version.timeout:.2f} seconds"
            function_log.lines([f"{datetime.now(UTC).isoformat(timespec='milliseconds').replace('+00:00', 'Z')} {request_id} {text}"])
            report = Report((time.monotonic() - began) * 1000, 0, init_ms, "timeout")
            return {"errorType": "Sandbox.Timedout", "errorMessage": f"RequestId: {request_id} Error: {text}"}, b"", report
        except WorkerExit as exit_:
            worker.finish_output()
            text = f"RequestId: {request_id} Error: {_exit_text(exit_.code)}"
            function_log.lines([text + "\nRuntime.ExitError"])
            report = Report((time.monotonic() - began) * 1000, 0, init_ms, "error", "Runtime.ExitError")
            return {"errorType": "Runtime.ExitError", "errorMessage": text}, b"", report
        report = Report(answer["duration_ms"], answer["memory_mb"], init_ms, "success" if answer["error"] is None else "error")
        if answer["error"] is not None:
            function_log.error(answer["error"])
        return answer["error"], body, report

    def _new_worker(self, version: FunctionVersion) -> Worker:
        stream = f"{datetime.now(UTC):%Y/%m/%d}/[{version.version}]{uuid.uuid4().hex}"
        layers = [self._code.root(layer["_Code"]) for layer in version.configuration.get("Layers", [])]
        root = self._code.root(version.digest)
        path = [str(root), *_layer_paths(layers)]
        scratch = self._code.scratch(stream[-12:])
        environment = self._environment(version, root, stream, scratch)
        return Worker(WorkerSettings(environment, root, path, self._code.bundled([Path(entry) for entry in path]), scratch), stream)

    def _environment(self, version: FunctionVersion, root: Path, stream: str, scratch: Path) -> dict[str, str]:
        """Return a function's environment: AWS's variables (https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html), its own, and no others."""
        configuration = version.configuration
        client = self._cloud.client_environment(configuration["Role"], version.name)
        logging_config = configuration["LoggingConfig"]
        environment = {
            "PATH": client["PATH"],
            "LANG": "en_US.UTF-8",
            "TZ": ":UTC",
            "TMPDIR": str(scratch),
            "_HANDLER": configuration["Handler"],
            "LAMBDA_TASK_ROOT": str(root),
            "AWS_EXECUTION_ENV": f"AWS_Lambda_{configuration['Runtime']}",
            "AWS_LAMBDA_FUNCTION_NAME": version.name,
            "AWS_LAMBDA_FUNCTION_VERSION": version.version,
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(configuration["MemorySize"]),
            "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
            "AWS_LAMBDA_LOG_GROUP_NAME": version.log_group,
            "AWS_LAMBDA_LOG_STREAM_NAME": stream,
            "AWS_LAMBDA_LOG_FORMAT": logging_config["LogFormat"],
        } | {name: value for name, value in client.items() if name.startswith("AWS_")}
        if "ApplicationLogLevel" in logging_config:
            environment["AWS_LAMBDA_LOG_LEVEL"] = logging_config["ApplicationLogLevel"]
        environment |= configuration.get("Environment", {}).get("Variables", {})
        return environment

    async def _reap_for_ever(self) -> None:
        while True:
            await asyncio.sleep(IDLE_SECONDS / 4)
            for key, pool in list(self._pools.items()):
                pool.reap(IDLE_SECONDS)
                if pool.empty:
                    self._pools.pop(key, None)

    async def _close(self) -> None:
        for pool in self._pools.values():
            pool.close()
        self._spawner.close()


def _layer_paths(layers: list[Path]) -> list[str]:
    """Return a function's import path below /opt; of two layers with the same file AWS's merge keeps the later one's."""
    version = f"python3.{sys.version_info.minor}"
    candidates = [layer / "python" / suffix for suffix in (f"lib/{version}/site-packages", ".") for layer in reversed(layers)]
    return [str(path.resolve()) for path in candidates if path.is_dir()]


def _exit_text(code: int) -> str:
    if code == 0:
        return "Runtime exited without providing a reason"
    if code > 0:
        return f"Runtime exited with error: exit status {code}"
    return f"Runtime exited with error: signal: {_SIGNALS.get(code, str(-code))}"
