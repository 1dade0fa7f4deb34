"""AWS::StepFunctions."""

from __future__ import annotations

import json
from typing import Any, ClassVar

from botocore.exceptions import ClientError

from localcloud.cloudformation.functions import text_of
from localcloud.cloudformation.provider import Context, NameRule, Properties, Provider, TagStyle, changed, tag_changes, tag_dictionary
from localcloud.cloudformation.schema import BOOLEAN, INTEGER, JSON, STRING, TAG_LIST, ListOf, MapOf, Object, PropertyError, one_of

Json = Any

_DEFINITIONS = ("Definition", "DefinitionS3Location", "DefinitionString")


class StateMachine(Provider):
    """AWS::StepFunctions::StateMachine."""

    type: ClassVar[str] = "AWS::StepFunctions::StateMachine"
    schema: ClassVar[Object] = Object(
        {
            "Definition": MapOf(JSON),
            "DefinitionS3Location": Object({"Bucket": STRING, "Key": STRING, "Version": STRING}, required=("Bucket", "Key")),
            "DefinitionString": STRING,
            "DefinitionSubstitutions": MapOf(JSON),
            "LoggingConfiguration": Object(
                {
                    "Destinations": ListOf(Object({"CloudWatchLogsLogGroup": Object({"LogGroupArn": STRING})})),
                    "IncludeExecutionData": BOOLEAN,
                    "Level": one_of("ALL", "ERROR", "FATAL", "OFF"),
                }
            ),
            "RoleArn": STRING,
            "StateMachineName": STRING,
            "StateMachineType": one_of("STANDARD", "EXPRESS"),
            "Tags": TAG_LIST,
            "TracingConfiguration": Object({"Enabled": BOOLEAN}),
        },
        required=("RoleArn",),
    )
    replaced_by: ClassVar[frozenset[str]] = frozenset(("StateMachineName", "StateMachineType"))
    attributes: ClassVar[frozenset[str]] = frozenset(("Arn", "Name", "StateMachineRevisionId"))
    name: ClassVar[NameRule] = NameRule("StateMachineName", 80)
    tags: ClassVar[TagStyle | None] = TagStyle.LIST

    def validate(self, properties: Properties) -> None:
        """A state machine has one definition."""
        given = [name for name in _DEFINITIONS if name in properties]
        if len(given) != 1:
            raise PropertyError("", f"Exactly one of {', '.join(_DEFINITIONS)} must be specified, found [{', '.join(given)}]")

    def identify(self, context: Context, name: str, properties: Properties) -> str:
        """Return the ARN."""
        return context.place.arn("states", f"stateMachine:{name}")

    def exists(self, context: Context, name: str, properties: Properties) -> bool:
        """Return whether there is a state machine of this name."""
        try:
            context.clients("stepfunctions").describe_state_machine(stateMachineArn=self.identify(context, name, properties))
        except ClientError as error:
            if error.response["Error"]["Code"] == "StateMachineDoesNotExist":
                return False
            raise
        return True

    def create(self, context: Context, name: str, properties: Properties) -> str:
        """Create the state machine."""
        request = _settings(properties) | {"roleArn": properties["RoleArn"], "definition": _definition(context, properties)}
        if "StateMachineType" in properties:
            request["type"] = properties["StateMachineType"]
        tags = _tags(tag_dictionary(properties.get("Tags")))
        created = context.clients("stepfunctions").create_state_machine(name=name, **request, **({"tags": tags} if tags else {}))
        return str(created["stateMachineArn"])

    def update(self, context: Context, physical_id: str, old: Properties, new: Properties) -> None:
        """Change definition, role, logging and tracing where they differ."""
        client = context.clients("stepfunctions")
        if changed(old, new, *_DEFINITIONS, "DefinitionSubstitutions", "RoleArn", "LoggingConfiguration", "TracingConfiguration"):
            request = {"loggingConfiguration": {"level": "OFF"}, "tracingConfiguration": {"enabled": False}} | _settings(new)
            definition = _definition(context, new)
            client.update_state_machine(stateMachineArn=physical_id, roleArn=new["RoleArn"], definition=definition, **request)
        to_set, to_remove = tag_changes(old, new)
        if to_set:
            client.tag_resource(resourceArn=physical_id, tags=_tags(to_set))
        if to_remove:
            client.untag_resource(resourceArn=physical_id, tagKeys=to_remove)

    def attributes_of(self, context: Context, physical_id: str, properties: Properties) -> dict[str, Json]:
        """Return ARN, name and revision."""
        described = context.clients("stepfunctions").describe_state_machine(stateMachineArn=physical_id)
        return {"Arn": physical_id, "Name": described["name"], "StateMachineRevisionId": described.get("revisionId", "INITIAL")}

    def delete(self, context: Context, physical_id: str, properties: Properties) -> None:
        """Delete the state machine and wait until it is gone."""
        client = context.clients("stepfunctions")
        client.delete_state_machine(stateMachineArn=physical_id)
        name = physical_id.rpartition(":")[2]
        context.wait_for(
            lambda: not self.exists(context, name, properties), seconds=60, what=f"{physical_id} to be deleted", cancellable=False
        )


def _definition(context: Context, properties: Properties) -> str:
    if "DefinitionString" in properties:
        text = str(properties["DefinitionString"])
    elif "Definition" in properties:
        text = json.dumps(properties["Definition"])
    else:
        where = properties["DefinitionS3Location"]
        version = {"VersionId": where["Version"]} if "Version" in where else {}
        text = context.clients("s3").get_object(Bucket=where["Bucket"], Key=where["Key"], **version)["Body"].read().decode()
    for name, value in (properties.get("DefinitionSubstitutions") or {}).items():
        text = text.replace("${" + name + "}", text_of(value))
    return text


def _settings(properties: Properties) -> dict[str, Json]:
    settings: dict[str, Json] = {}
    if "LoggingConfiguration" in properties:
        logging = properties["LoggingConfiguration"]
        names = {"Level": "level", "IncludeExecutionData": "includeExecutionData"}
        settings["loggingConfiguration"] = {names[key]: logging[key] for key in names if key in logging}
        if "Destinations" in logging:
            settings["loggingConfiguration"]["destinations"] = [
                {"cloudWatchLogsLogGroup": {"logGroupArn": item["CloudWatchLogsLogGroup"]["LogGroupArn"]}}
                for item in logging["Destinations"]
            ]
    if "TracingConfiguration" in properties:
        settings["tracingConfiguration"] = {"enabled": properties["TracingConfiguration"].get("Enabled", False)}
    return settings


def _tags(tags: dict[str, str]) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in sorted(tags.items())]


class StateMachineVersion(Provider):
    """AWS::StepFunctions::StateMachineVersion."""

    type: ClassVar[str] = "AWS::StepFunctions::StateMachineVersion"
    schema: ClassVar[Object] = Object(
        {"Description": STRING, "StateMachineArn": STRING, "StateMachineRevisionId": STRING}, required=("StateMachineArn",)
    )
    replaced_by: ClassVar[frozenset[str]] = frozenset(schema.fields)
    attributes: ClassVar[frozenset[str]] = frozenset(("Arn",))

    def identify(self, context: Context, name: str, properties: Properties) -> str | None:
        """Step Functions numbers versions."""
        return None

    def create(self, context: Context, name: str, properties: Properties) -> str:
        """Publish a version."""
        names = {"StateMachineArn": "stateMachineArn", "StateMachineRevisionId": "revisionId", "Description": "description"}
        request = {names[key]: value for key, value in properties.items()}
        return str(context.clients("stepfunctions").publish_state_machine_version(**request)["stateMachineVersionArn"])

    def attributes_of(self, context: Context, physical_id: str, properties: Properties) -> dict[str, Json]:
        """Return the ARN."""
        return {"Arn": physical_id}

    def delete(self, context: Context, physical_id: str, properties: Properties) -> None:
        """Delete the version."""
        context.clients("stepfunctions").delete_state_machine_version(stateMachineVersionArn=physical_id)


class StateMachineAlias(Provider):
    """AWS::StepFunctions::StateMachineAlias (routing only: gradual deployments are not supported)."""

    type: ClassVar[str] = "AWS::StepFunctions::StateMachineAlias"
    schema: ClassVar[Object] = Object(
        {
            "Description": STRING,
            "Name": STRING,
            "RoutingConfiguration": ListOf(
                Object({"StateMachineVersionArn": STRING, "Weight": INTEGER}, required=("StateMachineVersionArn", "Weight"))
            ),
        },
        required=("RoutingConfiguration",),
    )
    replaced_by: ClassVar[frozenset[str]] = frozenset(("Name",))
    attributes: ClassVar[frozenset[str]] = frozenset(("Arn",))
    # Two state machines may both have an alias of one name.
    name: ClassVar[NameRule] = NameRule("Name", 80, unique=False)

    def identify(self, context: Context, name: str, properties: Properties) -> str:
        """Return the ARN."""
        machine = properties["RoutingConfiguration"][0]["StateMachineVersionArn"].rpartition(":")[0]
        return f"{machine}:{name}"

    def exists(self, context: Context, name: str, properties: Properties) -> bool:
        """Return whether the state machine has this alias."""
        try:
            context.clients("stepfunctions").describe_state_machine_alias(stateMachineAliasArn=self.identify(context, name, properties))
        except ClientError as error:
            if error.response["Error"]["Code"] in ("ResourceNotFound", "ResourceNotFoundException", "StateMachineDoesNotExist"):
                return False
            raise
        return True

    def create(self, context: Context, name: str, properties: Properties) -> str:
        """Create the alias."""
        return str(context.clients("stepfunctions").create_state_machine_alias(name=name, **_routing(properties))["stateMachineAliasArn"])

    def update(self, context: Context, physical_id: str, old: Properties, new: Properties) -> None:
        """Change description and routing."""
        context.clients("stepfunctions").update_state_machine_alias(stateMachineAliasArn=physical_id, **{"description": ""} | _routing(new))

    def attributes_of(self, context: Context, physical_id: str, properties: Properties) -> dict[str, Json]:
        """Return the ARN."""
        return {"Arn": physical_id}

    def delete(self, context: Context, physical_id: str, properties: Properties) -> None:
        """Delete the alias."""
        context.clients("stepfunctions").delete_state_machine_alias(stateMachineAliasArn=physical_id)


def _routing(properties: Properties) -> dict[str, Json]:
    routes = [
        {"stateMachineVersionArn": item["StateMachineVersionArn"], "weight": item["Weight"]} for item in properties["RoutingConfiguration"]
    ]
    return {"routingConfiguration": routes} | ({"description": properties["Description"]} if "Description" in properties else {})
