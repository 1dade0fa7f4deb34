"""The loop: the engine's own time in a run, from approval to the first photo, the endpoint, the workflow."""

from __future__ import annotations

import contextlib
import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from PIL import Image

from bench.measure import Figure, at_least, at_most, percentile, repeated, seconds
from pipelines.executions import ExecutionResult, job_name
from scones import local, running
from scones.commands.demo import SAMPLE_OVERRIDES
from scones.console import Output
from scones.deployment import wait_for_production
from scones.examples import choose_examples
from scones.options import Context
from scones.registry import Registry
from scones.workflow import Workflow

CALLS = 300
EXECUTIONS = 200
CLIENTS = 8
SUSTAINED_SECONDS = 10.0


class Loop:
    """A region of its own, on which the parts are measured one after the other."""

    def __init__(self, state_dir: Path, data: str) -> None:
        self._context = Context(Output(), state_dir.resolve(), aws=False)
        self._data = data
        self._settings = running.load_settings(self._context, None, SAMPLE_OVERRIDES if data == "sample" else ())
        self._execution: ExecutionResult | None = None
        self._outputs: dict[str, str] = {}

    def __enter__(self) -> Loop:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        region = local.find_running(self._context.state_dir)
        if region is not None:
            local.stop(region)

    def measurements(self) -> dict[str, Callable[[], list[Figure]]]:
        """Return the parts in the order in which they must run."""
        return {"pipeline": self.pipeline, "approval": self.approval, "endpoint": self.endpoint, "workflow": self.workflow}

    def pipeline(self) -> list[Figure]:
        """Measure a run from nothing and one in which every job is cached: wall time less the jobs' own."""
        cold = self._run()
        cached = self._run()
        assert all(step.cached for step in cached.steps if step.name in ("Preprocess", "Train", "Evaluate"))
        self._execution = cached
        return [
            at_most("engine time of a run, cold", self._engine_seconds(cold), "s", 3),
            at_most("engine time of a run, all steps cached", self._engine_seconds(cached), "s", 1),
        ]

    def approval(self) -> list[Figure]:
        """Measure from a person's approval to the first accepted photo."""
        execution = self._ended()
        assert execution.model_package_arn is not None
        registry = Registry(self._context.target, self._settings)
        version = registry.find(execution.model_package_arn)
        accepted, _ = choose_examples(self._context.target, execution, self._settings.evaluation.confidence_threshold)

        def approve() -> None:
            registry.decide(version, "Approved", None)
            self._outputs = wait_for_production(self._context.target, self._settings, version.arn)
            (classified,) = self._workflow().classify([accepted.uri])
            assert classified.result is not None, classified
            assert classified.result["decision"] == "accepted"

        return [at_most("approval to first accepted photo", seconds(approve), "s", 5)]

    def endpoint(self) -> list[Figure]:
        """Measure InvokeEndpoint with one 32 x 32 PNG."""
        runtime = self._context.target.client("sagemaker-runtime")
        body = _png(32)

        def invoke() -> None:
            runtime.invoke_endpoint(EndpointName=self._outputs["EndpointName"], ContentType="image/png", Body=body)["Body"].read()

        times = [1000 * value for value in repeated(invoke, CALLS, warmup=20)]
        return [
            at_most("endpoint, one 32x32 PNG, p50", percentile(times, 50), "ms", 10),
            at_most("endpoint, one 32x32 PNG, p99", percentile(times, 99), "ms", 50),
        ]

    def workflow(self) -> list[Figure]:
        """Measure executions of the three-function workflow: one after the other, then from several clients."""
        execution = self._ended()
        accepted, _ = choose_examples(self._context.target, execution, self._settings.evaluation.confidence_threshold)
        bucket, _, key = accepted.uri.removeprefix("s3://").partition("/")
        request = json.dumps({"s3_bucket": bucket, "s3_key": key})
        states = self._context.target.client("stepfunctions")

        def execute(client: Any = states, pause: float = 0.001) -> None:
            arn = client.start_execution(stateMachineArn=self._outputs["StateMachineArn"], input=request)["executionArn"]
            while (status := client.describe_execution(executionArn=arn)["status"]) == "RUNNING":
                time.sleep(pause)
            assert status == "SUCCEEDED", status

        times = [1000 * value for value in repeated(execute, EXECUTIONS, warmup=20)]
        return [
            at_most("three-function workflow, warm, p50", percentile(times, 50), "ms", 40),
            at_most("three-function workflow, warm, p99", percentile(times, 99), "ms", 120),
            at_least(f"workflow executions, sustained with {CLIENTS} clients", self._sustained(execute), "1/s", 60),
        ]

    def _sustained(self, execute: Callable[[Any, float], None]) -> float:
        done = [0] * CLIENTS
        deadline = time.perf_counter() + SUSTAINED_SECONDS

        def client(number: int) -> None:
            states = self._context.target.client("stepfunctions")
            while time.perf_counter() < deadline:
                # Asking every millisecond would measure DescribeExecution.
                execute(states, 0.05)
                done[number] += 1

        threads = [threading.Thread(target=client, args=(number,)) for number in range(CLIENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sum(done) / SUSTAINED_SECONDS

    def _run(self) -> ExecutionResult:
        with contextlib.redirect_stderr(io.StringIO()):
            execution = running.run(self._context, self._settings, self._data)
        assert execution.status == "Succeeded", execution.failure_reason
        return execution

    def _ended(self) -> ExecutionResult:
        assert self._execution is not None
        return self._execution

    def _workflow(self) -> Workflow:
        bucket = (self._ended().evaluation_uri or "").removeprefix("s3://").partition("/")[0]
        return Workflow(self._context.target, self._outputs["StateMachineArn"], bucket)

    def _engine_seconds(self, execution: ExecutionResult) -> float:
        sagemaker = self._context.target.client("sagemaker")
        described = sagemaker.describe_pipeline_execution(PipelineExecutionArn=execution.execution_arn)
        wall = (described["LastModifiedTime"] - described["CreationTime"]).total_seconds()
        return float(wall - sum(_job_seconds(sagemaker, execution)))


def _job_seconds(sagemaker: Any, execution: ExecutionResult) -> Iterator[float]:
    """Yield how long each job's own code ran."""
    for step in execution.steps:
        kind = (step.resource_arn or "").rpartition(":")[2].partition("/")[0]
        if step.cached or step.resource_arn is None or kind not in ("processing-job", "training-job"):
            continue
        name = job_name(sagemaker, step.resource_arn)
        if kind == "processing-job":
            job = sagemaker.describe_processing_job(ProcessingJobName=name)
            yield (job["ProcessingEndTime"] - job["ProcessingStartTime"]).total_seconds()
        else:
            job = sagemaker.describe_training_job(TrainingJobName=name)
            yield (job["TrainingEndTime"] - job["TrainingStartTime"]).total_seconds()


def _png(side: int) -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((side, side), 60).convert("RGB").save(buffer, "PNG")
    return buffer.getvalue()
