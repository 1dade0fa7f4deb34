"""AWS::SQS."""

from __future__ import annotations

import json
from typing import Any, ClassVar

from botocore.exceptions import ClientError

from localcloud.cloudformation.provider import Context, NameRule, Properties, Provider, TagStyle, tag_changes, tag_dictionary
from localcloud.cloudformation.providers.policies import policy_text
from localcloud.cloudformation.schema import BOOLEAN, INTEGER, JSON, STRING, STRINGS, TAG_LIST, Object, Type

Json = Any

_MISSING = ("AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist")
#: Attributes that an update can change, with the value that leaving the property out gives.
_DEFAULTS: dict[str, str] = {
    "ContentBasedDeduplication": "false",
    "DelaySeconds": "0",
    "KmsDataKeyReusePeriodSeconds": "300",
    "KmsMasterKeyId": "",
    "MaximumMessageSize": "262144",
    "MessageRetentionPeriod": "345600",
    "ReceiveMessageWaitTimeSeconds": "0",
    "RedriveAllowPolicy": "",
    "RedrivePolicy": "",
    "SqsManagedSseEnabled": "true",
    "VisibilityTimeout": "30",
}
_SCALARS: dict[str, Type] = {
    "ContentBasedDeduplication": BOOLEAN,
    "DelaySeconds": INTEGER,
    "KmsDataKeyReusePeriodSeconds": INTEGER,
    "KmsMasterKeyId": STRING,
    "MaximumMessageSize": INTEGER,
    "MessageRetentionPeriod": INTEGER,
    "ReceiveMessageWaitTimeSeconds": INTEGER,
    "SqsManagedSseEnabled": BOOLEAN,
    "VisibilityTimeout": INTEGER,
}


class Queue(Provider):
    """AWS::SQS::Queue."""

    type: ClassVar[str] = "AWS::SQS::Queue"
    schema: ClassVar[Object] = Object(
        {**_SCALARS, "FifoQueue": BOOLEAN, "QueueName": STRING, "RedriveAllowPolicy": JSON, "RedrivePolicy": JSON, "Tags": TAG_LIST}
    )
    replaced_by: ClassVar[frozenset[str]] = frozenset(("FifoQueue", "QueueName"))
    attributes: ClassVar[frozenset[str]] = frozenset(("Arn", "QueueName", "QueueUrl"))
    name: ClassVar[NameRule] = NameRule("QueueName", 80)
    tags: ClassVar[TagStyle | None] = TagStyle.LIST

    def name_suffix(self, properties: Properties) -> str:
        """FIFO queues have names of their own kind."""
        return ".fifo" if properties.get("FifoQueue") else ""

    def exists(self, context: Context, name: str, properties: Properties) -> bool:
        """Return whether there is a queue of this name."""
        return self.identify(context, name, properties) is not None

    def identify(self, context: Context, name: str, properties: Properties) -> str | None:
        """Return the queue's URL, if there is such a queue."""
        try:
            return str(context.clients("sqs").get_queue_url(QueueName=name)["QueueUrl"])
        except ClientError as error:
            if error.response["Error"]["Code"] in _MISSING:
                return None
            raise

    def create(self, context: Context, name: str, properties: Properties) -> str:
        """Create the queue."""
        attributes = {key: _text(properties[key]) for key in _DEFAULTS if key in properties}
        if properties.get("FifoQueue"):
            attributes["FifoQueue"] = "true"
        tags = tag_dictionary(properties.get("Tags"))
        created = context.clients("sqs").create_queue(QueueName=name, Attributes=attributes, **({"tags": tags} if tags else {}))
        return str(created["QueueUrl"])

    def update(self, context: Context, physical_id: str, old: Properties, new: Properties) -> None:
        """Set what differs."""
        client = context.clients("sqs")
        attributes = {key: _text(new.get(key, default)) for key, default in _DEFAULTS.items() if old.get(key) != new.get(key)}
        if not new.get("FifoQueue"):
            attributes.pop("ContentBasedDeduplication", None)
        if attributes:
            client.set_queue_attributes(QueueUrl=physical_id, Attributes=attributes)
        to_set, to_remove = tag_changes(old, new)
        if to_set:
            client.tag_queue(QueueUrl=physical_id, Tags=to_set)
        if to_remove:
            client.untag_queue(QueueUrl=physical_id, TagKeys=to_remove)

    def attributes_of(self, context: Context, physical_id: str, properties: Properties) -> dict[str, Json]:
        """Return ARN, name and URL."""
        name = physical_id.rpartition("/")[2]
        return {"Arn": context.place.arn("sqs", name), "QueueName": name, "QueueUrl": physical_id}

    def delete(self, context: Context, physical_id: str, properties: Properties) -> None:
        """Delete the queue."""
        context.clients("sqs").delete_queue(QueueUrl=physical_id)


def _text(value: Json) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return json.dumps(value) if isinstance(value, dict) else str(value)


class QueuePolicy(Provider):
    """AWS::SQS::QueuePolicy."""

    type: ClassVar[str] = "AWS::SQS::QueuePolicy"
    schema: ClassVar[Object] = Object({"PolicyDocument": JSON, "Queues": STRINGS}, required=("PolicyDocument", "Queues"))

    def create(self, context: Context, name: str, properties: Properties) -> str:
        """Nothing exists before it is set on a queue."""
        return name

    def settle(self, context: Context, physical_id: str, properties: Properties) -> None:
        """Set it on the queues."""
        for queue in properties["Queues"]:
            context.clients("sqs").set_queue_attributes(QueueUrl=queue, Attributes={"Policy": policy_text(properties["PolicyDocument"])})

    def update(self, context: Context, physical_id: str, old: Properties, new: Properties) -> None:
        """Set it on the queues that it is now for, take it from the others."""
        self.settle(context, physical_id, new)
        self._remove(context, sorted(set(old["Queues"]) - set(new["Queues"])))

    def delete(self, context: Context, physical_id: str, properties: Properties) -> None:
        """Take it from the queues."""
        self._remove(context, properties["Queues"])

    @staticmethod
    def _remove(context: Context, queues: list[str]) -> None:
        for queue in queues:
            try:
                context.clients("sqs").set_queue_attributes(QueueUrl=queue, Attributes={"Policy": ""})
            except ClientError as error:
                if error.response["Error"]["Code"] not in _MISSING:
                    raise
