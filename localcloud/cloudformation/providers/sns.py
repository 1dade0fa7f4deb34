"""AWS::SNS."""

from __future__ import annotations

import json
from typing import Any, ClassVar

from botocore.exceptions import ClientError

from localcloud.cloudformation.provider import Context, NameRule, Properties, Provider, TagStyle, tag_changes, tag_list
from localcloud.cloudformation.providers.policies import policy_text
from localcloud.cloudformation.schema import BOOLEAN, JSON, STRING, STRINGS, TAG_LIST, ListOf, Object

Json = Any

_TOPIC_ATTRIBUTES = {"ContentBasedDeduplication": "false", "DisplayName": "", "KmsMasterKeyId": ""}
_SUBSCRIPTION_ATTRIBUTES = {
    "FilterPolicy": "{}",
    "FilterPolicyScope": "MessageAttributes",
    "RawMessageDelivery": "false",
    "RedrivePolicy": "",
}


def _text(value: Json) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return json.dumps(value) if isinstance(value, dict) else str(value)


class Topic(Provider):
    """AWS::SNS::Topic."""

    type: ClassVar[str] = "AWS::SNS::Topic"
    schema: ClassVar[Object] = Object(
        {
            "ContentBasedDeduplication": BOOLEAN,
            "DisplayName": STRING,
            "FifoTopic": BOOLEAN,
            "KmsMasterKeyId": STRING,
            "Subscription": ListOf(Object({"Endpoint": STRING, "Protocol": STRING}, required=("Endpoint", "Protocol"))),
            "Tags": TAG_LIST,
            "TopicName": STRING,
        }
    )
    replaced_by: ClassVar[frozenset[str]] = frozenset(("TopicName", "FifoTopic"))
    attributes: ClassVar[frozenset[str]] = frozenset(("TopicArn", "TopicName"))
    name: ClassVar[NameRule] = NameRule("TopicName", 256)
    tags: ClassVar[TagStyle | None] = TagStyle.LIST

    def name_suffix(self, properties: Properties) -> str:
        """FIFO topics have names of their own kind."""
        return ".fifo" if properties.get("FifoTopic") else ""

    def identify(self, context: Context, name: str, properties: Properties) -> str:
        """Return the ARN."""
        return context.place.arn("sns", name)

    def exists(self, context: Context, name: str, properties: Properties) -> bool:
        """Return whether there is a topic of this name."""
        try:
            context.clients("sns").get_topic_attributes(TopicArn=self.identify(context, name, properties))
        except ClientError as error:
            if error.response["Error"]["Code"] in ("NotFound", "NotFoundException"):
                return False
            raise
        return True

    def create(self, context: Context, name: str, properties: Properties) -> str:
        """Create the topic."""
        attributes = {key: _text(properties[key]) for key in ("FifoTopic", *_TOPIC_ATTRIBUTES) if key in properties}
        created = context.clients("sns").create_topic(Name=name, Attributes=attributes, Tags=properties.get("Tags") or [])
        return str(created["TopicArn"])

    def settle(self, context: Context, physical_id: str, properties: Properties) -> None:
        """Subscribe to it."""
        self._subscribe(context, physical_id, {}, properties)

    def update(self, context: Context, physical_id: str, old: Properties, new: Properties) -> None:
        """Set what differs."""
        client = context.clients("sns")
        for key, default in _TOPIC_ATTRIBUTES.items():
            if old.get(key) != new.get(key):
                client.set_topic_attributes(TopicArn=physical_id, AttributeName=key, AttributeValue=_text(new.get(key, default)))
        self._subscribe(context, physical_id, old, new)
        to_set, to_remove = tag_changes(old, new)
        if to_set:
            client.tag_resource(ResourceArn=physical_id, Tags=tag_list(to_set))
        if to_remove:
            client.untag_resource(ResourceArn=physical_id, TagKeys=to_remove)

    def _subscribe(self, context: Context, arn: str, old: Properties, new: Properties) -> None:
        client = context.clients("sns")
        before, after = ({(item["Protocol"], item["Endpoint"]) for item in p.get("Subscription") or ()} for p in (old, new))
        for protocol, endpoint in sorted(after - before):
            client.subscribe(TopicArn=arn, Protocol=protocol, Endpoint=endpoint)
        if before - after:
            for page in client.get_paginator("list_subscriptions_by_topic").paginate(TopicArn=arn):
                for item in page["Subscriptions"]:
                    if (item["Protocol"], item["Endpoint"]) in before - after:
                        client.unsubscribe(SubscriptionArn=item["SubscriptionArn"])

    def attributes_of(self, context: Context, physical_id: str, properties: Properties) -> dict[str, Json]:
        """Return ARN and name."""
        return {"TopicArn": physical_id, "TopicName": physical_id.rpartition(":")[2]}

    def delete(self, context: Context, physical_id: str, properties: Properties) -> None:
        """Delete the topic with its subscriptions."""
        self._subscribe(context, physical_id, properties, {})
        context.clients("sns").delete_topic(TopicArn=physical_id)


class Subscription(Provider):
    """AWS::SNS::Subscription."""

    type: ClassVar[str] = "AWS::SNS::Subscription"
    schema: ClassVar[Object] = Object(
        {
            "Endpoint": STRING,
            "FilterPolicy": JSON,
            "FilterPolicyScope": STRING,
            "Protocol": STRING,
            "RawMessageDelivery": BOOLEAN,
            "RedrivePolicy": JSON,
            "TopicArn": STRING,
        },
        required=("TopicArn", "Protocol"),
    )
    replaced_by: ClassVar[frozenset[str]] = frozenset(("Endpoint", "Protocol", "TopicArn"))

    def identify(self, context: Context, name: str, properties: Properties) -> str | None:
        """Return the ARN of the subscription of this endpoint, if there is one."""
        for page in context.clients("sns").get_paginator("list_subscriptions_by_topic").paginate(TopicArn=properties["TopicArn"]):
            for item in page["Subscriptions"]:
                if item["Protocol"] == properties["Protocol"] and item["Endpoint"] == properties.get("Endpoint"):
                    return str(item["SubscriptionArn"])
        return None

    def create(self, context: Context, name: str, properties: Properties) -> str:
        """Subscribe the endpoint."""
        attributes = {key: _text(properties[key]) for key in _SUBSCRIPTION_ATTRIBUTES if key in properties}
        request = {key: properties[key] for key in ("TopicArn", "Protocol", "Endpoint") if key in properties}
        return str(context.clients("sns").subscribe(**request, Attributes=attributes, ReturnSubscriptionArn=True)["SubscriptionArn"])

    def update(self, context: Context, physical_id: str, old: Properties, new: Properties) -> None:
        """Set what differs."""
        for key, default in _SUBSCRIPTION_ATTRIBUTES.items():
            if old.get(key) != new.get(key):
                context.clients("sns").set_subscription_attributes(
                    SubscriptionArn=physical_id, AttributeName=key, AttributeValue=_text(new.get(key, default))
                )

    def delete(self, context: Context, physical_id: str, properties: Properties) -> None:
        """Unsubscribe."""
        context.clients("sns").unsubscribe(SubscriptionArn=physical_id)


class TopicPolicy(Provider):
    """AWS::SNS::TopicPolicy."""

    type: ClassVar[str] = "AWS::SNS::TopicPolicy"
    schema: ClassVar[Object] = Object({"PolicyDocument": JSON, "Topics": STRINGS}, required=("PolicyDocument", "Topics"))

    def create(self, context: Context, name: str, properties: Properties) -> str:
        """Nothing exists before it is set on a topic."""
        return name

    def settle(self, context: Context, physical_id: str, properties: Properties) -> None:
        """Set it on the topics."""
        for topic in properties["Topics"]:
            _set_policy(context, topic, policy_text(properties["PolicyDocument"]))

    def update(self, context: Context, physical_id: str, old: Properties, new: Properties) -> None:
        """Set it on the topics that it is now for, give the others the default one back."""
        self.settle(context, physical_id, new)
        self._remove(context, sorted(set(old["Topics"]) - set(new["Topics"])))

    def delete(self, context: Context, physical_id: str, properties: Properties) -> None:
        """Give the topics the default policy back."""
        self._remove(context, properties["Topics"])

    @staticmethod
    def _remove(context: Context, topics: list[str]) -> None:
        for topic in topics:
            try:
                _set_policy(context, topic, json.dumps(_default_policy(context, topic)))
            except ClientError as error:
                if error.response["Error"]["Code"] not in ("NotFound", "NotFoundException"):
                    raise


def _set_policy(context: Context, topic: str, policy: str) -> None:
    context.clients("sns").set_topic_attributes(TopicArn=topic, AttributeName="Policy", AttributeValue=policy)


def _default_policy(context: Context, topic: str) -> dict[str, Json]:
    actions = (
        "Publish",
        "RemovePermission",
        "SetTopicAttributes",
        "DeleteTopic",
        "ListSubscriptionsByTopic",
        "GetTopicAttributes",
        "AddPermission",
        "Subscribe",
    )
    return {
        "Version": "2008-10-17",
        "Id": "__default_policy_ID",
        "Statement": [
            {
                "Sid": "__default_statement_ID",
                "Effect": "Allow",
                "Principal": {"AWS": "*"},
                "Action": [f"SNS:{action}" for action in actions],
                "Resource": topic,
                "Condition": {"StringEquals": {"AWS:SourceOwner": context.place.account}},
            }
        ],
    }
