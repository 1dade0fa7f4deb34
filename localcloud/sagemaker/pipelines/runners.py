"""One attempt at one step: make what the step makes, wait for its end, return what later steps may refer to."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from localcloud.errors import ServiceError
from localcloud.sagemaker.pipelines import conditions, names
from localcloud.sagemaker.pipelines.definition import ExceptionType, ParameterType, Step, StepType
from localcloud.sagemaker.pipelines.expressions import ExpressionError, Scope, to_text
from localcloud.sagemaker.pipelines.host import Host
from localcloud.sagemaker.pipelines.retries import classify_code, classify_reason
from localcloud.sagemaker.pipelines.validation import OPERATIONS

Metadata = dict[str, Any]

#: The tag by which SageMaker (and its SDK's lineage classes) find the execution of what a step made.
EXECUTION_TAG = "sagemaker:pipeline-execution-arn"


@dataclass
class StepFailed(Exception):
    """Indicates that an attempt failed.

    Attributes:
        reason: The step's FailureReason; None for a Fail step without a message.
        exception: What a retry policy must name to try again; None when no retry helps.
    """

    reason: str | None
    exception: ExceptionType | None = None


class StepStopped(Exception):
    """Indicates that the step ended because the execution is being stopped."""


@dataclass(frozen=True)
class StepResult:
    """What a successful attempt leaves.

    Attributes:
        properties: What ``Steps.<name>.…`` refers to.
        outputs: S3 URIs that must still hold objects when the result is to be used again.
    """

    properties: dict[str, Any]
    outputs: tuple[str, ...] = ()


@dataclass
class Attempt:
    """What a runner is given.

    Attributes:
        step: The step.
        execution_arn: The execution.
        execution_id: Its id.
        arguments: The step's arguments without expressions, and with the name of what is to be made.
        scope: For what only the runner can evaluate.
        host: The rest of the region.
        stopping: Whether the execution is being stopped.
        publish: Records the step's metadata and that it is executing; call it as soon as there is something to show.
        mark_stopping: Records that the step is being stopped.
        callbacks: The tokens that wait for an answer.
    """

    step: Step
    execution_arn: str
    execution_id: str
    arguments: dict[str, Any]
    scope: Scope
    host: Host
    stopping: Callable[[], bool]
    publish: Callable[[Metadata], None]
    mark_stopping: Callable[[], None]
    callbacks: Callbacks


Runner = Callable[[Attempt], StepResult]


def run_condition(attempt: Attempt) -> StepResult:
    """Evaluate a Condition step: all of its conditions must hold."""
    outcome = all(conditions.evaluate(condition, attempt.scope) for condition in attempt.step.arguments["Conditions"])
    attempt.publish({"Condition": {"Outcome": str(outcome)}})
    return StepResult({"Outcome": outcome})


def run_fail(attempt: Attempt) -> StepResult:
    """End with a Fail step's message."""
    message = attempt.arguments.get("ErrorMessage", "")
    attempt.publish({"Fail": {"ErrorMessage": message}})
    raise StepFailed(message or None)


@dataclass(frozen=True)
class JobKind:
    """How a kind of job is watched and stopped.

    Attributes:
        metadata: The member of a step's Metadata.
        arn: The member of the create answer that is its ARN.
        status: The member of the describe answer that is its status.
        stop: The operation that stops it.
    """

    metadata: str
    arn: str
    status: str
    stop: str


JOBS: dict[StepType, JobKind] = {
    StepType.PROCESSING: JobKind("ProcessingJob", "ProcessingJobArn", "ProcessingJobStatus", "StopProcessingJob"),
    StepType.TRAINING: JobKind("TrainingJob", "TrainingJobArn", "TrainingJobStatus", "StopTrainingJob"),
}


def run_job(attempt: Attempt) -> StepResult:
    """Run a Processing or Training job to its end."""
    kind, operation = JOBS[attempt.step.type], OPERATIONS[attempt.step.type]
    created = _called(attempt, operation.create, _tagged(attempt))
    attempt.publish({kind.metadata: {"Arn": created[kind.arn]}})
    name = {operation.name_member: attempt.arguments[operation.name_member]}
    stop_sent = False

    def ended() -> dict[str, Any] | None:
        nonlocal stop_sent
        job = _called(attempt, operation.describe, dict(name))
        if job[kind.status] in ("Completed", "Failed", "Stopped"):
            return job
        if attempt.stopping() and not stop_sent:
            stop_sent = True
            attempt.mark_stopping()
            # Refused when the job has just ended by itself; the next look shows it.
            with contextlib.suppress(ServiceError):
                attempt.host.call(kind.stop, dict(name))
        return None

    job = attempt.host.wait_until(ended)
    if job[kind.status] == "Completed":
        return StepResult(job, tuple(_outputs(attempt.step.type, job)))
    if job[kind.status] == "Stopped":
        if stop_sent:
            raise StepStopped
        raise StepFailed(f"ClientError: The job {name[operation.name_member]} was stopped{_secondary(job)}")
    reason = job.get("FailureReason") or "The job failed without a reason"
    exception = classify_reason(reason)
    raise StepFailed(reason if exception is ExceptionType.JOB_INTERNAL_ERROR else f"ClientError: {reason}", exception)


def run_model(attempt: Attempt) -> StepResult:
    """Make a model."""
    created = _called(attempt, "CreateModel", _tagged(attempt))
    attempt.publish({"Model": {"Arn": created["ModelArn"]}})
    return StepResult(_called(attempt, "DescribeModel", {"ModelName": attempt.arguments["ModelName"]}))


def run_register_model(attempt: Attempt) -> StepResult:
    """Register a model package; a group that does not exist is made, as on AWS."""
    arguments = dict(attempt.arguments)
    arguments.setdefault("MetadataProperties", {}).setdefault("GeneratedBy", attempt.execution_arn)
    group = arguments.get("ModelPackageGroupName")
    if group is not None and not _exists(attempt, "DescribeModelPackageGroup", {"ModelPackageGroupName": group}):
        _called(attempt, "CreateModelPackageGroup", {"ModelPackageGroupName": group})
    created = _called(attempt, "CreateModelPackage", arguments)
    arn = created["ModelPackageArn"]
    attempt.publish({"RegisterModel": {"Arn": arn}})

    def ended() -> dict[str, Any] | None:
        package = _called(attempt, "DescribeModelPackage", {"ModelPackageName": arn})
        return package if package["ModelPackageStatus"] in ("Completed", "Failed") else None

    package = attempt.host.wait_until(ended)
    if package["ModelPackageStatus"] == "Failed":
        raise StepFailed(f"ClientError: Registration of {arn} failed")
    return StepResult(package)


def run_endpoint_config(attempt: Attempt) -> StepResult:
    """Make an endpoint configuration."""
    created = _called(attempt, "CreateEndpointConfig", _tagged(attempt))
    attempt.publish({"EndpointConfig": {"Arn": created["EndpointConfigArn"]}})
    return StepResult(_called(attempt, "DescribeEndpointConfig", {"EndpointConfigName": attempt.arguments["EndpointConfigName"]}))


def run_endpoint(attempt: Attempt) -> StepResult:
    """Make an endpoint, or give an existing one of that name its new configuration, and wait until it is in service."""
    name, config = attempt.arguments["EndpointName"], attempt.arguments["EndpointConfigName"]
    if _exists(attempt, "DescribeEndpoint", {"EndpointName": name}):
        answer = _called(attempt, "UpdateEndpoint", {"EndpointName": name, "EndpointConfigName": config})
    else:
        answer = _called(attempt, "CreateEndpoint", _tagged(attempt))
    attempt.publish({"Endpoint": {"Arn": answer["EndpointArn"]}})

    def ended() -> dict[str, Any] | None:
        # An endpoint in the making cannot be stopped; a stopped execution waits for it.
        endpoint = _called(attempt, "DescribeEndpoint", {"EndpointName": name})
        return endpoint if endpoint["EndpointStatus"] in ("InService", "Failed", "OutOfService", "UpdateRollbackFailed") else None

    endpoint = attempt.host.wait_until(ended)
    # An update that failed leaves the endpoint in service with the configuration that it had.
    if endpoint["EndpointStatus"] != "InService" or endpoint["EndpointConfigName"] != config:
        reason = (
            endpoint.get("FailureReason")
            or f"The endpoint {name} is {endpoint['EndpointStatus']} with configuration {endpoint['EndpointConfigName']}"
        )
        raise StepFailed(f"ClientError: {reason}")
    return StepResult(endpoint)


def run_lambda(attempt: Attempt) -> StepResult:
    """Invoke a function; a stopped execution waits for its answer."""
    function = attempt.arguments["FunctionArn"]
    attempt.publish({"Lambda": {"Arn": function}})
    try:
        answer = attempt.host.invoke_function(function, attempt.arguments["Arguments"])
    except ServiceError as error:
        raise _refused("lambda:Invoke", error) from error
    if answer.error is not None:
        what = answer.payload if isinstance(answer.payload, dict) else {}
        raise StepFailed(
            f"ClientError: Lambda function {function} failed: {what.get('errorType', answer.error)}: {what.get('errorMessage', '')}".rstrip(
                ": "
            )
        )
    values = answer.payload if isinstance(answer.payload, dict) else {}
    outputs = _output_parameters(attempt.step, values)
    attempt.publish({"Lambda": {"Arn": function, "OutputParameters": _listed(outputs)}})
    return StepResult({"OutputParameters": outputs})


def run_callback(attempt: Attempt) -> StepResult:
    """Send a token to a queue and wait for SendPipelineExecutionStepSuccess or …Failure, also when the execution is being stopped."""
    url = attempt.arguments["SqsQueueUrl"]
    token = attempt.callbacks.open(attempt.execution_arn, attempt.step)
    body = {
        "token": token,
        "pipelineExecutionArn": attempt.execution_arn,
        "status": "Executing",
        "arguments": attempt.arguments["Arguments"],
    }
    metadata: Metadata = {"CallbackToken": token, "SqsQueueUrl": url}
    stop_sent = False

    def answered() -> CallbackAnswer | None:
        nonlocal stop_sent
        if attempt.stopping() and not stop_sent:
            stop_sent = True
            attempt.mark_stopping()
            attempt.host.send_message(url, json.dumps(body | {"status": "Stopping"}))
        return attempt.callbacks.answer(token)

    try:
        attempt.host.send_message(url, json.dumps(body))
        attempt.publish({"Callback": metadata})
        answer = attempt.host.wait_until(answered)
    except ServiceError as error:
        raise _refused("sqs:SendMessage", error) from error
    finally:
        attempt.callbacks.close(token)
    if answer.failure is not None:
        raise StepFailed(answer.failure or "ClientError: Callback step failed")
    attempt.publish({"Callback": metadata | {"OutputParameters": _listed(answer.outputs)}})
    return StepResult({"OutputParameters": answer.outputs})


RUNNERS: dict[StepType, Runner] = {
    StepType.CONDITION: run_condition,
    StepType.FAIL: run_fail,
    StepType.PROCESSING: run_job,
    StepType.TRAINING: run_job,
    StepType.MODEL: run_model,
    StepType.REGISTER_MODEL: run_register_model,
    StepType.ENDPOINT_CONFIG: run_endpoint_config,
    StepType.ENDPOINT: run_endpoint,
    StepType.LAMBDA: run_lambda,
    StepType.CALLBACK: run_callback,
}


def still_usable(step: Step, properties: Mapping[str, Any], outputs: list[str], host: Host) -> bool:
    """Return whether what an earlier run made is still there."""
    if not all(host.has_objects(uri) for uri in outputs):
        return False
    if step.type not in (StepType.ENDPOINT_CONFIG, StepType.ENDPOINT):
        return True
    operation = OPERATIONS[step.type]
    try:
        found = host.call(operation.describe, {operation.name_member: properties[operation.name_member]})
    except ServiceError:
        return False
    if step.type is StepType.ENDPOINT:
        return bool(found["EndpointStatus"] == "InService" and found["EndpointConfigName"] == properties["EndpointConfigName"])
    return True


@dataclass(frozen=True)
class CallbackAnswer:
    """What came back for a token."""

    outputs: dict[str, Any] = field(default_factory=dict)
    failure: str | None = None


class Callbacks:
    """The tokens of the Callback steps that wait for an answer."""

    def __init__(self) -> None:
        self._open: dict[str, tuple[str, Step]] = {}
        self._answers: dict[str, CallbackAnswer] = {}

    def open(self, execution_arn: str, step: Step) -> str:
        """Return a new token for a waiting step."""
        token = names.token()
        self._open[token] = (execution_arn, step)
        return token

    def close(self, token: str) -> None:
        """Forget a token."""
        self._open.pop(token, None)
        self._answers.pop(token, None)

    def answer(self, token: str) -> CallbackAnswer | None:
        """Return what came back for a token, None while nothing has."""
        return self._answers.get(token)

    def succeed(self, token: str, values: Mapping[str, str]) -> str:
        """Record a success; return the execution's ARN.

        Raises:
            ServiceError: No step waits for this token, or the outputs are not those that the step declares.
        """
        execution_arn, step = self._waiting(token)
        unknown = sorted(set(values) - set(step.output_parameters))
        if unknown:
            raise ServiceError("ValidationException", f"Output parameter '{unknown[0]}' is not declared by step '{step.name}'.")
        try:
            outputs = _output_parameters(step, values)
        except StepFailed as error:
            raise ServiceError("ValidationException", (error.reason or "").removeprefix("ClientError: ")) from error
        self._answers[token] = CallbackAnswer(outputs)
        return execution_arn

    def fail(self, token: str, reason: str) -> str:
        """Record a failure; return the execution's ARN.

        Raises:
            ServiceError: No step waits for this token.
        """
        execution_arn, _ = self._waiting(token)
        self._answers[token] = CallbackAnswer(failure=reason)
        return execution_arn

    def _waiting(self, token: str) -> tuple[str, Step]:
        found = self._open.get(token)
        if found is None or token in self._answers:
            raise ServiceError("ResourceNotFound", f"No callback step waits for the token {token}.")
        return found


def _called(attempt: Attempt, operation: str, params: dict[str, Any]) -> dict[str, Any]:
    try:
        return attempt.host.call(operation, params)
    except ServiceError as error:
        raise _refused(f"sagemaker:{operation}", error, attempt) from error


def _refused(action: str, error: ServiceError, attempt: Attempt | None = None) -> StepFailed:
    exception = classify_code(error.code)
    reason = f"ClientError: Failed to invoke {action}. Error Details: {error.message}"
    if exception is ExceptionType.RESOURCE_LIMIT and attempt is not None:
        reason += (
            f"\nRetry not appropriate on execution of step with PipelineExecutionArn {attempt.execution_arn.lower()} and StepId {attempt.step.name}."
            " No retry policy configured for the exception type SAGEMAKER_RESOURCE_LIMIT."
        )
    return StepFailed(reason, exception)


def _exists(attempt: Attempt, describe: str, params: dict[str, Any]) -> bool:
    try:
        attempt.host.call(describe, params)
    except ServiceError as error:
        if error.code in ("ValidationException", "ResourceNotFound"):
            return False
        raise _refused(f"sagemaker:{describe}", error, attempt) from error
    return True


def _tagged(attempt: Attempt) -> dict[str, Any]:
    return attempt.arguments | {"Tags": [*attempt.arguments.get("Tags", []), {"Key": EXECUTION_TAG, "Value": attempt.execution_arn}]}


def _outputs(type_: StepType, job: Mapping[str, Any]) -> list[str]:
    if type_ is StepType.TRAINING:
        artifact = job.get("ModelArtifacts", {}).get("S3ModelArtifacts")
        return [artifact] if artifact else []
    outputs = job.get("ProcessingOutputConfig", {}).get("Outputs", [])
    return [output["S3Output"]["S3Uri"] for output in outputs if "S3Output" in output]


def _secondary(job: Mapping[str, Any]) -> str:
    status = job.get("SecondaryStatus")
    return f" ({status})" if status and status != "Stopped" else ""


def _output_parameters(step: Step, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the declared output parameters with their types.

    Raises:
        StepFailed: One is missing or of another type.
    """
    found: dict[str, Any] = {}
    for name, kind in step.output_parameters.items():
        if name not in values:
            raise StepFailed(f"ClientError: The output parameter '{name}' of step '{step.name}' was not returned.")
        value = convert(values[name], kind)
        if value is None:
            raise StepFailed(f"ClientError: The output parameter '{name}' of step '{step.name}' is not of type {kind}: {values[name]!r}")
        found[name] = value
    return found


def convert(value: Any, kind: ParameterType) -> Any:
    """Return a value (or the text of one) as a parameter type, None when it is not of that type."""
    if kind.accepts(value):
        return float(value) if kind is ParameterType.FLOAT else value
    if kind is ParameterType.STRING:
        try:
            return to_text(value)
        except ExpressionError:
            return None
    if not isinstance(value, str):
        return None
    if kind is ParameterType.BOOLEAN:
        return {"true": True, "false": False}.get(value.lower())
    try:
        return int(value) if kind is ParameterType.INTEGER else float(value)
    except ValueError:
        return None


def _listed(outputs: Mapping[str, Any]) -> list[dict[str, str]]:
    return [{"Name": name, "Value": to_text(value)} for name, value in outputs.items()]
