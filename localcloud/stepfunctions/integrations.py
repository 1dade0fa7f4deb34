"""What a Task state's Resource names: a function, one of the optimized integrations, or an operation of an AWS SDK.

https://docs.aws.amazon.com/step-functions/latest/dg/integrate-services.html. What is not here is refused when the state machine is created.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, auto
from functools import lru_cache
from typing import Any

from moto.core.utils import get_service_model


class Kind(Enum):
    """How a Task is run."""

    FUNCTION = auto()
    LAMBDA_INVOKE = auto()
    SQS_SEND_MESSAGE = auto()
    SNS_PUBLISH = auto()
    EVENTS_PUT_EVENTS = auto()
    START_EXECUTION = auto()
    START_EXECUTION_SYNC = auto()
    START_EXECUTION_SYNC_2 = auto()
    SDK = auto()


@dataclass(frozen=True)
class Integration:
    """A Task's Resource.

    Attributes:
        kind: How it is run.
        resource_type: As in the execution history, e.g. ``lambda`` or ``aws-sdk:s3``.
        resource: As in the execution history, e.g. ``invoke``; the function's ARN for a function.
        service: botocore's name of the SDK's service.
        operation: API name of the SDK's operation.
        error_prefix: What the names of the service's errors begin with.
    """

    kind: Kind
    resource_type: str
    resource: str
    service: str = ""
    operation: str = ""
    error_prefix: str = ""


class UnsupportedResource(ValueError):
    """Indicates that a Resource is not one of AWS's, or one that is not played here."""


_FUNCTION_ARN = re.compile(r"arn:aws[\w-]*:lambda:[a-z0-9-]+:\d{12}:function:[a-zA-Z0-9-_]+(:[a-zA-Z0-9$_-]+)?")
_INTEGRATION_ARN = re.compile(r"arn:aws[\w-]*:states:::(?P<rest>.+)")
_OPTIMIZED: dict[str, Kind] = {
    "lambda:invoke": Kind.LAMBDA_INVOKE,
    "sqs:sendMessage": Kind.SQS_SEND_MESSAGE,
    "sns:publish": Kind.SNS_PUBLISH,
    "events:putEvents": Kind.EVENTS_PUT_EVENTS,
    "states:startExecution": Kind.START_EXECUTION,
    "states:startExecution.sync": Kind.START_EXECUTION_SYNC,
    "states:startExecution.sync:2": Kind.START_EXECUTION_SYNC_2,
}
_REQUIRED: dict[Kind, tuple[str, ...]] = {
    Kind.LAMBDA_INVOKE: ("FunctionName",),
    Kind.SQS_SEND_MESSAGE: ("QueueUrl", "MessageBody"),
    Kind.SNS_PUBLISH: ("Message",),
    Kind.EVENTS_PUT_EVENTS: ("Entries",),
    Kind.START_EXECUTION: ("StateMachineArn",),
    Kind.START_EXECUTION_SYNC: ("StateMachineArn",),
    Kind.START_EXECUTION_SYNC_2: ("StateMachineArn",),
}
_KNOWN: dict[Kind, frozenset[str]] = {
    Kind.LAMBDA_INVOKE: frozenset({"FunctionName", "Payload", "Qualifier", "InvocationType", "ClientContext", "LogType"}),
    Kind.SQS_SEND_MESSAGE: frozenset(
        {"QueueUrl", "MessageBody", "MessageAttributes", "DelaySeconds", "MessageGroupId", "MessageDeduplicationId"}
    ),
    Kind.SNS_PUBLISH: frozenset(
        {
            "TopicArn",
            "TargetArn",
            "PhoneNumber",
            "Message",
            "Subject",
            "MessageStructure",
            "MessageAttributes",
            "MessageGroupId",
            "MessageDeduplicationId",
        }
    ),
    Kind.EVENTS_PUT_EVENTS: frozenset({"Entries"}),
    **dict.fromkeys(
        (Kind.START_EXECUTION, Kind.START_EXECUTION_SYNC, Kind.START_EXECUTION_SYNC_2),
        frozenset({"StateMachineArn", "Input", "Name", "TraceHeader"}),
    ),
}
#: aws-sdk's service name → (botocore's, what the names of its errors begin with). The services that localcloud has.
_SDK_SERVICES: dict[str, tuple[str, str]] = {
    "cloudformation": ("cloudformation", "CloudFormation"),
    "cloudwatch": ("cloudwatch", "CloudWatch"),
    "cloudwatchlogs": ("logs", "CloudWatchLogs"),
    "ecr": ("ecr", "Ecr"),
    "eventbridge": ("events", "EventBridge"),
    "iam": ("iam", "Iam"),
    "kms": ("kms", "Kms"),
    "lambda": ("lambda", "Lambda"),
    "s3": ("s3", "S3"),
    "sagemaker": ("sagemaker", "SageMaker"),
    "sagemakerruntime": ("sagemaker-runtime", "SageMakerRuntime"),
    "secretsmanager": ("secretsmanager", "SecretsManager"),
    "sfn": ("stepfunctions", "Sfn"),
    "sns": ("sns", "Sns"),
    "sqs": ("sqs", "Sqs"),
    "ssm": ("ssm", "Ssm"),
    "sts": ("sts", "Sts"),
}


@lru_cache(maxsize=1024)
def parse_resource(resource: str) -> Integration:
    """Return what a Resource names.

    Raises:
        UnsupportedResource: It is no valid resource, or not one that localcloud plays.
    """
    if _FUNCTION_ARN.fullmatch(resource):
        return Integration(Kind.FUNCTION, "lambda", resource)
    found = _INTEGRATION_ARN.fullmatch(resource)
    if found is None:
        if re.match(r"arn:aws[\w-]*:states:[a-z0-9-]+:\d{12}:activity:", resource):
            raise UnsupportedResource("An activity is not supported by localcloud")
        raise UnsupportedResource("Value is not a valid resource ARN")
    rest = found.group("rest")
    if rest in _OPTIMIZED:
        resource_type, _, name = rest.partition(":")
        return Integration(_OPTIMIZED[rest], resource_type, name)
    if rest.startswith("aws-sdk:"):
        return _parse_sdk(resource, rest)
    raise UnsupportedResource(f"The resource '{resource}' is not supported by localcloud")


def _parse_sdk(resource: str, rest: str) -> Integration:
    parts = rest.split(":")
    if len(parts) != 3 or "." in parts[2]:
        raise UnsupportedResource(f"The resource '{resource}' is not supported by localcloud")
    _, service, action = parts
    if service not in _SDK_SERVICES:
        raise UnsupportedResource(f"The resource '{resource}' is not supported by localcloud: it has no service '{service}'")
    name, prefix = _SDK_SERVICES[service]
    operations = {operation[:1].lower() + operation[1:]: operation for operation in get_service_model(name).operation_names}
    if action not in operations:
        raise UnsupportedResource(
            f"The resource provided {resource} is not recognized. The value is not a valid resource ARN, or the resource is not available in this region."
        )
    return Integration(Kind.SDK, f"aws-sdk:{service}", action, name, operations[action], prefix)


def member_name(name: str, members: Any) -> str | None:
    """Return the API's name of a parameter: definitions write every one with a capital letter."""
    for candidate in (name, name[:1].lower() + name[1:]):
        if candidate in members:
            return candidate
    return None


def parameter_errors(integration: Integration, parameters: Any) -> list[tuple[str, str]]:
    """Return (message, field) for what is wrong with a Task's Parameters or Arguments as they stand in the definition."""
    if integration.kind is Kind.FUNCTION:
        return []
    given = {name.removesuffix(".$") for name in parameters} if isinstance(parameters, dict) else set()
    if integration.kind is Kind.SDK:
        shape = get_service_model(integration.service).operation_model(integration.operation).input_shape
        members = shape.members if shape is not None else {}
        unknown = [name for name in given if member_name(name, members) is None]
        required = [name[:1].upper() + name[1:] for name in (shape.required_members if shape is not None else [])]
    else:
        unknown = sorted(given - _KNOWN[integration.kind])
        required = list(_REQUIRED[integration.kind])
    errors = [(f'The field "{name}" is not supported by Step Functions', name) for name in sorted(unknown)]
    return errors + [(f'The field "{name}" is required but was missing', "") for name in required if name not in given]
