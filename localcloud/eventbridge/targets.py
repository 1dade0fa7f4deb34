"""Targets of rules: which kinds there are, what each is checked for when it is put, and how an event reaches it."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from localcloud.errors import ServiceError, not_supported
from localcloud.eventbridge.inputs import check_target_input
from localcloud.iam.keys import service_may_use
from localcloud.iam.principals import RoleSession
from localcloud.iam.trust import ServiceCall, allows, can_assume
from localcloud.jsonpath import PathNotFound, PathSyntaxError, compile_path
from localcloud.messaging import MessageRefused, key_of_mailbox, publish_to_topic, queue_policy, send_to_queue, topic_policy

if TYPE_CHECKING:
    from localcloud.cloud import Cloud

PRINCIPAL = "events.amazonaws.com"
_INVALID = "ValidationException"
#: AWS makes one up for each delivery.
_SESSION_NAME = "EventBridge"
#: Members of a target that belong to kinds of targets which are not played.
_REFUSED = (
    "KinesisParameters",
    "RunCommandParameters",
    "EcsParameters",
    "BatchParameters",
    "HttpParameters",
    "RedshiftDataParameters",
    "AppSyncParameters",
)


class DeliveryError(Exception):
    """Indicates that an event did not reach its target.

    Attributes:
        code: EventBridge's ERROR_CODE (https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-rule-dlq.html).
        retriable: Whether trying again may help; without permission or target it cannot.
    """

    def __init__(self, code: str, message: str, retriable: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.retriable = retriable


def _kind(arn: str) -> str:
    parts = arn.split(":", 5)
    if len(parts) < 6 or parts[0] != "arn":
        return ""
    service, resource = parts[2], parts[5]
    if service == "logs" and resource.startswith("log-group:"):
        return "logs"
    if service == "events" and resource.startswith("event-bus/"):
        return "event-bus"
    if service == "sagemaker" and resource.startswith("pipeline/"):
        return "pipeline"
    if service == "codepipeline":
        return "codepipeline"
    if service == "lambda" and resource.startswith("function:"):
        return "lambda"
    if service == "states" and resource.startswith("stateMachine:"):
        return "states"
    return service if service in ("sqs", "sns") else ""


def check_target(cloud: Cloud, target: dict[str, Any]) -> None:
    """Check a target when it is put.

    Raises:
        ServiceError: AWS would refuse it, or it is of a kind that is not played.
    """
    arn, identifier = target["Arn"], target["Id"]
    if len(arn.split(":")) < 6 or not arn.startswith("arn:"):
        raise ServiceError(_INVALID, f"Parameter {arn} is not valid. Reason: Provided Arn is not in correct format.")
    kind = _kind(arn)
    if not kind or any(target.get(member) for member in _REFUSED):
        raise not_supported(
            f"A rule's target {arn} (supported: Lambda, Step Functions, SQS, SNS, CloudWatch Logs, an event bus, a SageMaker pipeline, a CodePipeline pipeline)"
        )
    if arn.split(":")[3] != cloud.settings.region or arn.split(":")[4] != cloud.settings.account_id:
        raise not_supported(f"A target in another account or region ({arn})")
    if kind in ("states", "pipeline", "codepipeline") and not target.get("RoleArn"):
        raise ServiceError(_INVALID, f"RoleArn is required for target {arn}.")
    if kind == "sqs" and arn.endswith(".fifo") and not target.get("SqsParameters", {}).get("MessageGroupId"):
        raise ServiceError(_INVALID, f"Parameter(s) SqsParameters must be specified for target: {identifier}.")
    dead_letter_arn = target.get("DeadLetterConfig", {}).get("Arn", "")
    if dead_letter_arn and (_kind(dead_letter_arn) != "sqs" or dead_letter_arn.endswith(".fifo")):
        raise ServiceError(
            _INVALID, f"Parameter DeadLetterConfig.Arn is not valid. Reason: Invalid SQS dead letter queue ARN for target {identifier}."
        )
    check_target_input(target)


class Senders:
    """Sends events to targets; blocking, so called from threads."""

    def __init__(self, cloud: Cloud, publish: Callable[[str, dict[str, Any]], None]) -> None:
        self._cloud = cloud
        self._publish = publish

    def send(self, target: dict[str, Any], rule_arn: str, payload: str, event: dict[str, Any]) -> None:
        """Send *payload* (JSON), which was made from *event*, to a target.

        Raises:
            DeliveryError: It did not arrive.
        """
        sender = {
            "lambda": self._to_function,
            "states": self._to_state_machine,
            "sqs": self._to_queue,
            "sns": self._to_topic,
            "logs": self._to_logs,
            "event-bus": self._to_bus,
            "pipeline": self._to_pipeline,
            "codepipeline": self._to_codepipeline,
        }[_kind(target["Arn"])]
        sender(target, rule_arn, payload, event)

    def dead_letter(self, queue_arn: str, rule_arn: str, event: dict[str, Any], attributes: dict[str, dict[str, str]]) -> None:
        """Send an event to a dead-letter queue, as it came in.

        Raises:
            DeliveryError: The queue is gone or its policy does not let EventBridge send.
        """
        self._check_queue(queue_arn, rule_arn)
        try:
            send_to_queue(self._cloud, queue_arn, json.dumps(event), attributes)
        except MessageRefused as error:
            raise DeliveryError("ERROR_FROM_TARGET", str(error)) from error

    def _to_function(self, target: dict[str, Any], rule_arn: str, payload: str, event: dict[str, Any]) -> None:
        functions: Any = self._cloud.services["lambda"]
        try:
            if not functions.may_invoke(target["Arn"], PRINCIPAL, rule_arn):
                raise DeliveryError(
                    "NO_PERMISSIONS",
                    f"EventBridge has no permission to invoke {target['Arn']}: its resource policy does not allow {rule_arn}.",
                )
            functions.invoke_function(target["Arn"], payload.encode(), "Event")
        except ServiceError as error:
            gone = error.code == "ResourceNotFoundException"
            raise DeliveryError("NO_RESOURCE" if gone else "ERROR_FROM_TARGET", error.message, retriable=not gone) from error

    def _to_state_machine(self, target: dict[str, Any], rule_arn: str, payload: str, event: dict[str, Any]) -> None:
        self._check_role(target, rule_arn, "stepfunctions", "StartExecution", {"stateMachineArn": target["Arn"]})
        machines: Any = self._cloud.services["stepfunctions"]
        name = f"{event['id']}_{uuid.uuid4()}"[:80]
        try:
            machines.start_execution({"stateMachineArn": target["Arn"], "name": name, "input": payload})
        except ServiceError as error:
            gone = error.code == "StateMachineDoesNotExist"
            raise DeliveryError("NO_RESOURCE" if gone else "ERROR_FROM_TARGET", error.message, retriable=not gone) from error

    def _to_queue(self, target: dict[str, Any], rule_arn: str, payload: str, event: dict[str, Any]) -> None:
        if target.get("RoleArn"):
            self._check_role(target, rule_arn, "sqs", "SendMessage", {"QueueUrl": target["Arn"]})
        else:
            self._check_queue(target["Arn"], rule_arn)
        try:
            send_to_queue(self._cloud, target["Arn"], payload, group_id=target.get("SqsParameters", {}).get("MessageGroupId"))
        except MessageRefused as error:
            raise DeliveryError("ERROR_FROM_TARGET", str(error), retriable=True) from error

    def _to_topic(self, target: dict[str, Any], rule_arn: str, payload: str, event: dict[str, Any]) -> None:
        if target.get("RoleArn"):
            self._check_role(target, rule_arn, "sns", "Publish", {"TopicArn": target["Arn"]})
        try:
            policy = topic_policy(self._cloud, target["Arn"])
            if not target.get("RoleArn") and not allows(policy, self._call("sns:Publish", target["Arn"], rule_arn)):
                raise DeliveryError(
                    "NO_PERMISSIONS", f"EventBridge has no permission to publish to {target['Arn']}: its policy does not allow {rule_arn}."
                )
            if not target.get("RoleArn"):
                # SNS does not tell KMS of the rule (https://docs.aws.amazon.com/sns/latest/dg/sns-key-management.html).
                self._check_key(self._call("sns:Publish", target["Arn"], rule_arn), told=False)
            publish_to_topic(self._cloud, target["Arn"], payload)
        except MessageRefused as error:
            raise DeliveryError("NO_RESOURCE" if error.code == "NotFound" else "ERROR_FROM_TARGET", str(error)) from error

    def _to_logs(self, target: dict[str, Any], rule_arn: str, payload: str, event: dict[str, Any]) -> None:
        group = target["Arn"].split(":", 6)[6].removesuffix(":*")
        self._cloud.logs.write(group, event["id"], payload)

    def _to_bus(self, target: dict[str, Any], rule_arn: str, payload: str, event: dict[str, Any]) -> None:
        if target.get("RoleArn"):
            entry = {"EventBusName": target["Arn"], "Source": event["source"], "DetailType": event["detail-type"]}
            self._check_role(target, rule_arn, "events", "PutEvents", {"Entries": [entry]})
        try:
            self._publish(target["Arn"], event)
        except ServiceError as error:
            raise DeliveryError("NO_RESOURCE", error.message) from error

    def _to_pipeline(self, target: dict[str, Any], rule_arn: str, payload: str, event: dict[str, Any]) -> None:
        self._check_role(target, rule_arn, "sagemaker", "StartPipelineExecution", {"PipelineName": target["Arn"]})
        given = target.get("SageMakerPipelineParameters", {}).get("PipelineParameterList", [])
        parameters = [{"Name": parameter["Name"], "Value": _parameter_value(parameter["Value"], event)} for parameter in given]
        try:
            self._cloud.clients("sagemaker").start_pipeline_execution(
                PipelineName=target["Arn"], PipelineParameters=parameters, ClientRequestToken=f"{event['id']}-{uuid.uuid4()}"[:128]
            )
        except ClientError as error:
            gone = error.response["Error"]["Code"] == "ResourceNotFound"
            raise DeliveryError(
                "NO_RESOURCE" if gone else "ERROR_FROM_TARGET", error.response["Error"]["Message"], retriable=not gone
            ) from error

    def _to_codepipeline(self, target: dict[str, Any], rule_arn: str, payload: str, event: dict[str, Any]) -> None:
        self._check_role(target, rule_arn, "codepipeline", "StartPipelineExecution", {"name": target["Arn"]})
        pipelines: Any = self._cloud.services["codepipeline"]
        try:
            pipelines.start_from_rule(target["Arn"], rule_arn, json.loads(payload))
        except ServiceError as error:
            gone = error.code == "PipelineNotFoundException"
            raise DeliveryError("NO_RESOURCE" if gone else "ERROR_FROM_TARGET", error.message, retriable=not gone) from error

    def _check_queue(self, queue_arn: str, rule_arn: str) -> None:
        try:
            policy = queue_policy(self._cloud, queue_arn)
        except MessageRefused as error:
            raise DeliveryError("NO_RESOURCE", str(error)) from error
        call = self._call("sqs:SendMessage", queue_arn, rule_arn)
        if not allows(policy, call):
            raise DeliveryError(
                "NO_PERMISSIONS", f"EventBridge has no permission to send to {queue_arn}: the queue's policy does not allow {rule_arn}."
            )
        self._check_key(call)

    def _check_key(self, call: ServiceCall, *, told: bool = True) -> None:
        settings = self._cloud.settings
        if not service_may_use(settings.account_id, settings.region, call, key_of_mailbox(self._cloud, call.resource), told=told):
            raise DeliveryError(
                "NO_PERMISSIONS",
                f"EventBridge has no permission to send to {call.resource}: its key's policy does not allow {call.principal}.",
            )

    def _check_role(self, target: dict[str, Any], rule_arn: str, service: str, operation: str, params: dict[str, Any]) -> None:
        if not can_assume(self._cloud, target["RoleArn"], PRINCIPAL, rule_arn):
            raise DeliveryError(
                "NO_PERMISSIONS",
                f"EventBridge may not assume the target's role {target['RoleArn']}: it is gone, or does not trust {PRINCIPAL}.",
            )
        try:
            self._cloud.iam.authorize(RoleSession(target["RoleArn"], _SESSION_NAME), service, operation, params)
        except ServiceError as error:
            raise DeliveryError("NO_PERMISSIONS", error.message) from error

    def _call(self, action: str, resource: str, rule_arn: str) -> ServiceCall:
        return ServiceCall(PRINCIPAL, action, resource, rule_arn, self._cloud.settings.account_id)


def _parameter_value(value: str, event: dict[str, Any]) -> str:
    if not value.startswith("$."):
        return value
    try:
        found = compile_path(value).evaluate(event)
    except (PathNotFound, PathSyntaxError) as error:
        raise DeliveryError("ERROR_FROM_TARGET", f"The pipeline parameter's path {value} names nothing in the event") from error
    return found if isinstance(found, str) else json.dumps(found)
