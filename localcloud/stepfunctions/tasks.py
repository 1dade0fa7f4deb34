"""Running Tasks: calls of functions, queues, topics, buses, other state machines, and any operation of the services that localcloud has."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError
from moto.core.utils import get_service_model

from localcloud.errors import ServiceError
from localcloud.iam.principals import RoleSession
from localcloud.messaging import MessageRefused, publish_to_topic, send_to_queue
from localcloud.stepfunctions.errors import ErrorName, StateError
from localcloud.stepfunctions.history import to_json
from localcloud.stepfunctions.integrations import Integration, Kind, member_name

if TYPE_CHECKING:
    from localcloud.cloud import Cloud

#: AWS makes one up for each execution; one for all keeps the number of clients small.
_SESSION_NAME = "StepFunctions"
#: What Step Functions calls services in the names of their errors.
_ERROR_PREFIXES = {"lambda": "Lambda", "sqs": "SQS", "sns": "SNS", "stepfunctions": "StepFunctions"}


@dataclass(frozen=True)
class StartedExecution:
    """An execution that a Task started and waits for.

    Attributes:
        arn: Its ARN.
        start_date: When it was started.
        description: Waits for its end and returns what DescribeExecution gives.
    """

    arn: str
    start_date: datetime
    description: Callable[[], Awaitable[dict[str, Any]]]


class TaskRunner:
    """Runs Tasks on the background loop; what blocks runs in a thread."""

    def __init__(
        self, cloud: Cloud, start_execution: Callable[[dict[str, Any]], StartedExecution], session: RoleSession | None = None
    ) -> None:
        self._cloud = cloud
        self._start_execution = start_execution
        self._session = session
        self._kinds: dict[Kind, Callable[[Integration, Any], Awaitable[Any]]] = {
            Kind.FUNCTION: self._function,
            Kind.LAMBDA_INVOKE: self._lambda_invoke,
            Kind.SQS_SEND_MESSAGE: self._send_message,
            Kind.SNS_PUBLISH: self._publish,
            Kind.EVENTS_PUT_EVENTS: self._put_events,
            Kind.START_EXECUTION: self._start,
            Kind.START_EXECUTION_SYNC: self._start_and_wait,
            Kind.START_EXECUTION_SYNC_2: self._start_and_wait,
            Kind.SDK: self._sdk,
        }

    def acting_as(self, role_arn: str) -> TaskRunner:
        """Return a runner that does everything as a role."""
        return TaskRunner(self._cloud, self._start_execution, RoleSession(role_arn, _SESSION_NAME))

    def _authorize(self, service: str, operation: str, params: dict[str, Any]) -> None:
        """Let what does not go over the API pass.

        Raises:
            StateError: The role may not.
        """
        if self._session is None:
            return
        try:
            self._cloud.iam.authorize(self._session, service, operation, params)
        except ServiceError as error:
            raise _service_error(_ERROR_PREFIXES[service], error) from error

    async def run(self, integration: Integration, parameters: Any) -> Any:
        """Run one Task and return its result.

        Raises:
            StateError: It failed; under the name that AWS gives the failure.
        """
        return await self._kinds[integration.kind](integration, parameters)

    # Lambda

    async def _function(self, integration: Integration, parameters: Any) -> Any:
        return (await self._invoke(integration.resource, None, parameters))[1]

    async def _lambda_invoke(self, integration: Integration, parameters: Any) -> Any:
        name, qualifier = _text(parameters, "FunctionName"), parameters.get("Qualifier")
        kind = parameters.get("InvocationType", "RequestResponse")
        if kind != "RequestResponse":
            functions: Any = self._cloud.services["lambda"]
            payload = to_json(parameters.get("Payload", {})).encode()
            self._authorize("lambda", "Invoke", {"FunctionName": name, "Qualifier": qualifier})
            try:
                accepted = await asyncio.to_thread(functions.invoke_function, name, payload, kind, qualifier)
            except ServiceError as error:
                raise _service_error("Lambda", error) from error
            return {"Payload": "", **_metadata(accepted.request_id, accepted.status_code), "StatusCode": accepted.status_code}
        result, payload_value = await self._invoke(name, qualifier, parameters.get("Payload", {}))
        answer: dict[str, Any] = {"ExecutedVersion": result.executed_version, "Payload": payload_value}
        if parameters.get("LogType") == "Tail":
            answer["LogResult"] = base64.b64encode(result.log_tail).decode()
        return answer | _metadata(result.request_id, 200) | {"StatusCode": 200}

    async def _invoke(self, name: str, qualifier: str | None, payload: Any) -> tuple[Any, Any]:
        functions: Any = self._cloud.services["lambda"]
        self._authorize("lambda", "Invoke", {"FunctionName": name, "Qualifier": qualifier})
        try:
            result = await functions.invoke_on_loop(name, to_json(payload).encode(), qualifier)
        except ServiceError as error:
            raise _service_error("Lambda", error) from error
        text = result.payload.decode()
        if result.function_error is not None:
            document = json.loads(text)
            # A runtime that names no error gives Lambda.Unknown.
            raise StateError(document.get("errorType") or "Lambda.Unknown", text)
        try:
            return result, json.loads(text, parse_constant=_refuse_constant) if text else None
        except ValueError as error:
            raise StateError(ErrorName.RUNTIME, f"The function's result is not JSON: {error}") from error

    # SQS, SNS, EventBridge

    async def _send_message(self, integration: Integration, parameters: Any) -> Any:
        url, body = _text(parameters, "QueueUrl"), parameters["MessageBody"]
        text = body if isinstance(body, str) else to_json(body)
        extra = set(parameters) - {"QueueUrl", "MessageBody", "MessageAttributes", "MessageGroupId"}
        if extra:
            # What the short way does not know goes over the API.
            return await self._call("sqs", "SendMessage", "SQS", {**parameters, "MessageBody": text})
        self._authorize("sqs", "SendMessage", {"QueueUrl": url})
        queue_arn = self._cloud.arn("sqs", url.rstrip("/").rpartition("/")[2])
        try:
            identifier = send_to_queue(self._cloud, queue_arn, text, parameters.get("MessageAttributes"), parameters.get("MessageGroupId"))
        except MessageRefused as error:
            missing = error.code == "AWS.SimpleQueueService.NonExistentQueue"
            name = "SQS.QueueDoesNotExistException" if missing else f"SQS.{_exception_name(error.code)}"
            raise StateError(name, _cause(str(error), "Sqs", 400)) from error
        digest = hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
        return {"MD5OfMessageBody": digest, "MessageId": identifier, **_metadata(str(uuid.uuid4()), 200)}

    async def _publish(self, integration: Integration, parameters: Any) -> Any:
        message = parameters["Message"]
        text = message if isinstance(message, str) else to_json(message)
        if set(parameters) - {"TopicArn", "Message", "Subject"}:
            return await self._call("sns", "Publish", "SNS", {**parameters, "Message": text})
        self._authorize("sns", "Publish", {"TopicArn": _text(parameters, "TopicArn")})
        try:
            identifier = await asyncio.to_thread(
                publish_to_topic, self._cloud, _text(parameters, "TopicArn"), text, parameters.get("Subject")
            )
        except MessageRefused as error:
            raise StateError(f"SNS.{_exception_name(error.code)}", _cause(str(error), "Sns", 404)) from error
        return {"MessageId": identifier, **_metadata(str(uuid.uuid4()), 200)}

    async def _put_events(self, integration: Integration, parameters: Any) -> Any:
        entries = [
            {name: to_json(value) if name == "Detail" and not isinstance(value, str) else value for name, value in entry.items()}
            for entry in parameters["Entries"]
        ]
        result = await self._call("events", "PutEvents", "EventBridge", {"Entries": entries})
        failed = [entry for entry in result["Entries"] if "ErrorCode" in entry]
        if failed:
            raise StateError("EventBridge.FailedEntry", to_json(result))
        return result

    # Other state machines

    async def _start(self, integration: Integration, parameters: Any) -> Any:
        started = await self._begin(parameters)
        return {"ExecutionArn": started.arn, **_metadata(str(uuid.uuid4()), 200), "StartDate": int(started.start_date.timestamp() * 1000)}

    async def _start_and_wait(self, integration: Integration, parameters: Any) -> Any:
        description = await (await self._begin(parameters)).description()
        answer = {_upper_first(name): _plain_time(value) for name, value in description.items() if value is not None}
        if description["status"] != "SUCCEEDED":
            raise StateError(ErrorName.TASK_FAILED, to_json(answer))
        if integration.kind is Kind.START_EXECUTION_SYNC_2:
            # Version 2 gives the child's input and output as JSON, version 1 as text.
            answer |= {name: json.loads(answer[name]) for name in ("Input", "Output") if name in answer}
        return answer

    async def _begin(self, parameters: Any) -> StartedExecution:
        request = {"stateMachineArn": _text(parameters, "StateMachineArn"), "input": to_json(parameters.get("Input", {}))}
        if "Name" in parameters:
            request["name"] = parameters["Name"]
        self._authorize("stepfunctions", "StartExecution", request)
        try:
            return await asyncio.to_thread(self._start_execution, request)
        except ServiceError as error:
            raise _service_error("StepFunctions", error) from error

    # SDK

    async def _sdk(self, integration: Integration, parameters: Any) -> Any:
        return await self._call(integration.service, integration.operation, integration.error_prefix, parameters or {})

    async def _call(self, service: str, operation: str, prefix: str, parameters: dict[str, Any]) -> Any:
        model = get_service_model(service).operation_model(operation)
        arguments = _to_request(parameters, model.input_shape) if model.input_shape is not None else {}
        try:
            response = await asyncio.to_thread(self._request, service, operation, arguments)
        except ClientError as error:
            details, metadata = error.response["Error"], error.response["ResponseMetadata"]
            modelled = any(
                shape.name == details["Code"] or shape.metadata.get("error", {}).get("code") == details["Code"]
                for shape in model.error_shapes
            )
            name = _exception_name(details["Code"]) if modelled else f"{prefix}Exception"
            raise StateError(f"{prefix}.{name}", _cause(details["Message"], prefix, metadata["HTTPStatusCode"])) from error
        except BotoCoreError as error:
            raise StateError(f"{prefix}.SdkClientException", str(error)) from error
        answer = _from_response(response, model.output_shape) if model.output_shape is not None else {}
        return answer if service != "events" and service != "sqs" and service != "sns" else answer | _metadata(str(uuid.uuid4()), 200)

    def _request(self, service: str, operation: str, arguments: dict[str, Any]) -> dict[str, Any]:
        clients = self._cloud.clients
        if self._session is not None:
            clients = clients.acting_as(self._session.role_arn, self._session.name)
        client = clients(service)
        methods: dict[str, str] = {api_name: method for method, api_name in client.meta.method_to_api_mapping.items()}
        response: dict[str, Any] = getattr(client, methods[operation])(**arguments)
        for name, value in response.items():
            if hasattr(value, "read"):
                response[name] = value.read()
        return response


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _text(parameters: Any, name: str) -> str:
    value = parameters.get(name) if isinstance(parameters, dict) else None
    if not isinstance(value, str) or not value:
        raise StateError(ErrorName.RUNTIME, f"The parameter '{name}' must be a text, not {to_json(value)}")
    return value


def _metadata(request_id: str, status: int) -> dict[str, Any]:
    headers = {"x-amzn-RequestId": request_id, "Content-Type": "application/json"}
    return {
        "SdkHttpMetadata": {
            "AllHttpHeaders": {name: [value] for name, value in headers.items()},
            "HttpHeaders": headers,
            "HttpStatusCode": status,
        },
        "SdkResponseMetadata": {"RequestId": request_id},
    }


def _cause(message: str, service: str, status: int) -> str:
    return f"{message} (Service: {service}, Status Code: {status}, Request ID: {uuid.uuid4()}) (SDK Attempt Count: 1)"


def _service_error(prefix: str, error: ServiceError) -> StateError:
    return StateError(
        f"{prefix}.{_exception_name(error.code)}", _cause(error.message, prefix, 404 if "NotFound" in error.code else error.status)
    )


def _exception_name(code: str) -> str:
    """Return the name of the AWS SDK for Java's exception class for an error code, which is the name that Step Functions gives."""
    # SQS says KMS.AccessDeniedException, SNS KMSAccessDenied: KmsAccessDeniedException.
    name = re.sub(r"^KMS\.?", "Kms", code).rpartition(".")[2]
    if name.endswith("Exception"):
        return name
    return (name.removesuffix("Fault") if name.endswith("Fault") else name) + "Exception"


def _upper_first(name: str) -> str:
    return name[:1].upper() + name[1:]


def _plain_time(value: Any) -> Any:
    return int(value.timestamp() * 1000) if isinstance(value, datetime) else value


def _to_request(value: Any, shape: Any) -> Any:
    """Return a definition's parameters as the API's: its own names of members, bytes where it wants bytes."""
    if shape.type_name == "structure" and isinstance(value, dict):
        return {
            (name_in_api := member_name(name, shape.members) or name): _to_member(item, shape, name_in_api) for name, item in value.items()
        }
    if shape.type_name == "list" and isinstance(value, list):
        return [_to_request(item, shape.member) for item in value]
    if shape.type_name == "map" and isinstance(value, dict):
        return {name: _to_request(item, shape.value) for name, item in value.items()}
    if shape.type_name == "blob":
        return value.encode() if isinstance(value, str) else to_json(value).encode()
    if shape.type_name == "string" and not isinstance(value, str) and value is not None:
        # A JSON value where the API wants JSON in a text, e.g. SendMessage's MessageBody.
        return to_json(value)
    return value


def _to_member(value: Any, shape: Any, name: str) -> Any:
    return _to_request(value, shape.members[name]) if name in shape.members else value


def _from_response(value: Any, shape: Any) -> Any:
    """Return a response as Step Functions gives it: members with capital letters, times as ISO 8601, bytes as text."""
    if shape.type_name == "structure" and isinstance(value, dict):
        return {_upper_first(name): _from_response(item, shape.members[name]) for name, item in value.items() if name in shape.members}
    if shape.type_name == "list" and isinstance(value, list):
        return [_from_response(item, shape.member) for item in value]
    if shape.type_name == "map" and isinstance(value, dict):
        return {name: _from_response(item, shape.value) for name, item in value.items()}
    if isinstance(value, datetime):
        return value.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
