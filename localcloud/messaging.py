"""SQS and SNS from inside the process, for the services that deliver to them: no HTTP request, the same queues and topics."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from moto.core.exceptions import ServiceException
from moto.sns.models import SNSBackend, sns_backends
from moto.sqs.models import SQSBackend, sqs_backends

from localcloud.errors import LocalCloudError

if TYPE_CHECKING:
    from localcloud.cloud import Cloud

Attributes = dict[str, dict[str, str]]


class MessageRefused(LocalCloudError):
    """Indicates that a queue or topic does not exist or does not take a message.

    Attributes:
        code: The service's error code.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def string_attributes(**values: str) -> Attributes:
    """Return message attributes of type String; empty values are left out, as queues refuse them."""
    return {name: {"DataType": "String", "StringValue": value} for name, value in values.items() if value}


def send_to_queue(cloud: Cloud, queue_arn: str, body: str, attributes: Attributes | None = None, group_id: str | None = None) -> str:
    """Send one message and return its id.

    Raises:
        MessageRefused: The queue does not exist or refuses the message.
    """
    backend: SQSBackend = sqs_backends[cloud.settings.account_id][cloud.settings.region]
    try:
        message = backend.send_message(queue_arn.rpartition(":")[2], body, attributes or {}, group_id=group_id)
    except ServiceException as error:
        raise MessageRefused(error.code, error.message) from error
    cloud.mark_dirty("sqs")
    return str(message.id)


def publish_to_topic(cloud: Cloud, topic_arn: str, message: str, subject: str | None = None, attributes: Attributes | None = None) -> str:
    """Publish one message, which reaches every subscription before this returns; return its id.

    Raises:
        MessageRefused: The topic does not exist or refuses the message.
    """
    backend: SNSBackend = sns_backends[cloud.settings.account_id][cloud.settings.region]
    # moto's own form of a topic's message attributes.
    typed = {name: {"Type": value["DataType"], "Value": value["StringValue"]} for name, value in (attributes or {}).items()}
    try:
        identifier = backend.publish(message, topic_arn, subject=subject, message_attributes=typed)
    except ServiceException as error:
        raise MessageRefused(error.code, error.message) from error
    cloud.mark_dirty("sns")
    cloud.mark_dirty("sqs")
    return str(identifier)


def key_of_mailbox(cloud: Cloud, arn: str) -> str | None:
    """Return the key of KMS with which a queue's or topic's messages are encrypted, however it is named there; None when there is none."""
    settings, (service, name) = cloud.settings, (arn.split(":")[2], arn.rpartition(":")[2])
    if service == "sqs":
        queues: SQSBackend = sqs_backends[settings.account_id][settings.region]
        found: Any = queues.queues.get(name)
    else:
        topics: SNSBackend = sns_backends[settings.account_id][settings.region]
        found = topics.topics.get(arn)
    return getattr(found, "kms_master_key_id", None) or None


def queue_policy(cloud: Cloud, queue_arn: str) -> dict[str, Any] | None:
    """Return a queue's resource policy, or None when it has none.

    Raises:
        MessageRefused: There is no such queue.
    """
    backend: SQSBackend = sqs_backends[cloud.settings.account_id][cloud.settings.region]
    queue = next((queue for queue in list(backend.queues.values()) if queue.queue_arn == queue_arn), None)
    if queue is None:
        raise MessageRefused("AWS.SimpleQueueService.NonExistentQueue", f"The specified queue does not exist: {queue_arn}")
    return json.loads(queue.policy) if queue.policy else None


def topic_policy(cloud: Cloud, topic_arn: str) -> dict[str, Any] | None:
    """Return a topic's resource policy.

    Raises:
        MessageRefused: There is no such topic.
    """
    backend: SNSBackend = sns_backends[cloud.settings.account_id][cloud.settings.region]
    topic = backend.topics.get(topic_arn)
    if topic is None:
        raise MessageRefused("NotFound", f"Topic does not exist: {topic_arn}")
    policy: dict[str, Any] = json.loads(topic.policy)
    return policy
