"""AWS::Events."""

from __future__ import annotations

import json
from typing import Any, ClassVar

from botocore.exceptions import ClientError

from localcloud.cloudformation.errors import handler_failure
from localcloud.cloudformation.provider import Context, NameRule, Properties, Provider, TagStyle, tag_changes, tag_list
from localcloud.cloudformation.schema import INTEGER, JSON, STRING, TAG_LIST, ListOf, MapOf, Object, one_of

Json = Any

_TARGET = Object(
    {
        "Arn": STRING,
        "DeadLetterConfig": Object({"Arn": STRING}),
        "Id": STRING,
        "Input": STRING,
        "InputPath": STRING,
        "InputTransformer": Object({"InputPathsMap": MapOf(STRING), "InputTemplate": STRING}, required=("InputTemplate",)),
        "RetryPolicy": Object({"MaximumEventAgeInSeconds": INTEGER, "MaximumRetryAttempts": INTEGER}),
        "RoleArn": STRING,
        "SageMakerPipelineParameters": Object(
            {"PipelineParameterList": ListOf(Object({"Name": STRING, "Value": STRING}, required=("Name", "Value")))}
        ),
        "SqsParameters": Object({"MessageGroupId": STRING}, required=("MessageGroupId",)),
    },
    required=("Arn", "Id"),
)


class Rule(Provider):
    """AWS::Events::Rule."""

    type: ClassVar[str] = "AWS::Events::Rule"
    schema: ClassVar[Object] = Object(
        {
            "Description": STRING,
            "EventBusName": STRING,
            "EventPattern": JSON,
            "Name": STRING,
            "RoleArn": STRING,
            "ScheduleExpression": STRING,
            "State": one_of("DISABLED", "ENABLED"),
            "Tags": TAG_LIST,
            "Targets": ListOf(_TARGET),
        }
    )
    replaced_by: ClassVar[frozenset[str]] = frozenset(("Name", "EventBusName"))
    attributes: ClassVar[frozenset[str]] = frozenset(("Arn",))
    name: ClassVar[NameRule] = NameRule("Name", 64)
    tags: ClassVar[TagStyle | None] = TagStyle.LIST

    def identify(self, context: Context, name: str, properties: Properties) -> str:
        """Return the name; a rule of another bus than the default one has the bus in front."""
        bus = _bus_name(properties)
        return name if bus == "default" else f"{bus}|{name}"

    def exists(self, context: Context, name: str, properties: Properties) -> bool:
        """Return whether there is a rule of this name."""
        try:
            context.clients("events").describe_rule(Name=name, EventBusName=_bus_name(properties))
        except ClientError as error:
            if error.response["Error"]["Code"] == "ResourceNotFoundException":
                return False
            raise
        return True

    def create(self, context: Context, name: str, properties: Properties) -> str:
        """Put the rule, without its targets."""
        self._put(context, name, properties)
        return self.identify(context, name, properties)

    def settle(self, context: Context, physical_id: str, properties: Properties) -> None:
        """Put the targets."""
        self._put_targets(context, physical_id, {}, properties)

    def update(self, context: Context, physical_id: str, old: Properties, new: Properties) -> None:
        """Put the rule anew, change its targets and tags."""
        client = context.clients("events")
        self._put(context, physical_id.rpartition("|")[2], {key: value for key, value in new.items() if key != "Tags"})
        self._put_targets(context, physical_id, old, new)
        to_set, to_remove = tag_changes(old, new)
        arn = self.attributes_of(context, physical_id, new)["Arn"]
        if to_set:
            client.tag_resource(ResourceARN=arn, Tags=tag_list(to_set))
        if to_remove:
            client.untag_resource(ResourceARN=arn, TagKeys=to_remove)

    def attributes_of(self, context: Context, physical_id: str, properties: Properties) -> dict[str, Json]:
        """Return the ARN."""
        return {"Arn": context.place.arn("events", f"rule/{physical_id.replace('|', '/')}")}

    def delete(self, context: Context, physical_id: str, properties: Properties) -> None:
        """Remove the targets, then the rule."""
        client, bus, name = context.clients("events"), _bus_name(properties), physical_id.rpartition("|")[2]
        found = client.list_targets_by_rule(Rule=name, EventBusName=bus)["Targets"]
        if found:
            client.remove_targets(Rule=name, EventBusName=bus, Ids=[target["Id"] for target in found])
        client.delete_rule(Name=name, EventBusName=bus)

    @staticmethod
    def _put(context: Context, name: str, properties: Properties) -> None:
        request: dict[str, Json] = {
            key: properties[key] for key in ("Description", "RoleArn", "ScheduleExpression", "State", "Tags") if key in properties
        }
        pattern = properties.get("EventPattern")
        if pattern is not None:
            request["EventPattern"] = pattern if isinstance(pattern, str) else json.dumps(pattern)
        context.clients("events").put_rule(Name=name, EventBusName=_bus_name(properties), **request)

    @staticmethod
    def _put_targets(context: Context, physical_id: str, old: Properties, new: Properties) -> None:
        client, bus, name = context.clients("events"), _bus_name(new), physical_id.rpartition("|")[2]
        before, after = ({target["Id"]: target for target in p.get("Targets") or ()} for p in (old, new))
        gone = sorted(set(before) - set(after))
        if gone:
            # One that is not there (an update that failed before it put it) is gone, too.
            client.remove_targets(Rule=name, EventBusName=bus, Ids=gone)
        different = [target for key, target in after.items() if before.get(key) != target]
        if different:
            failed = client.put_targets(Rule=name, EventBusName=bus, Targets=different)["FailedEntries"]
            if failed:
                raise handler_failure(f"Target {failed[0]['TargetId']}: {failed[0]['ErrorMessage']}", "InvalidRequest")


def _bus_name(properties: Properties) -> str:
    return str(properties.get("EventBusName") or "default").rpartition("/")[2]


class EventBus(Provider):
    """AWS::Events::EventBus."""

    type: ClassVar[str] = "AWS::Events::EventBus"
    schema: ClassVar[Object] = Object({"Description": STRING, "Name": STRING, "Tags": TAG_LIST}, required=("Name",))
    # AWS changes a description in place; localcloud's bus has no update, so it is made anew.
    replaced_by: ClassVar[frozenset[str]] = frozenset(("Name", "Description"))
    attributes: ClassVar[frozenset[str]] = frozenset(("Arn", "Name"))
    name: ClassVar[NameRule] = NameRule("Name", 256)
    tags: ClassVar[TagStyle | None] = TagStyle.LIST

    def exists(self, context: Context, name: str, properties: Properties) -> bool:
        """Return whether there is a bus of this name."""
        try:
            context.clients("events").describe_event_bus(Name=name)
        except ClientError as error:
            if error.response["Error"]["Code"] == "ResourceNotFoundException":
                return False
            raise
        return True

    def create(self, context: Context, name: str, properties: Properties) -> str:
        """Create the bus."""
        request = {key: properties[key] for key in ("Description", "Tags") if key in properties}
        context.clients("events").create_event_bus(Name=name, **request)
        return name

    def update(self, context: Context, physical_id: str, old: Properties, new: Properties) -> None:
        """Change the tags."""
        client = context.clients("events")
        to_set, to_remove = tag_changes(old, new)
        arn = self.attributes_of(context, physical_id, new)["Arn"]
        if to_set:
            client.tag_resource(ResourceARN=arn, Tags=tag_list(to_set))
        if to_remove:
            client.untag_resource(ResourceARN=arn, TagKeys=to_remove)

    def attributes_of(self, context: Context, physical_id: str, properties: Properties) -> dict[str, Json]:
        """Return ARN and name."""
        return {"Arn": context.place.arn("events", f"event-bus/{physical_id}"), "Name": physical_id}

    def delete(self, context: Context, physical_id: str, properties: Properties) -> None:
        """Delete the bus."""
        context.clients("events").delete_event_bus(Name=physical_id)
