"""AWS::CodePipeline."""

from __future__ import annotations

from typing import Any, ClassVar

from botocore.exceptions import ClientError

from localcloud.cloudformation.provider import Context, NameRule, Properties, Provider, TagStyle, changed, tag_changes, tag_dictionary
from localcloud.cloudformation.schema import BOOLEAN, INTEGER, STRING, STRINGS, TAG_LIST, ListOf, MapOf, Object, PropertyError

Json = Any

_STORE = Object(
    {"EncryptionKey": Object({"Id": STRING, "Type": STRING}, required=("Id", "Type")), "Location": STRING, "Type": STRING},
    required=("Location", "Type"),
)
_ARTIFACTS = ListOf(Object({"Name": STRING}, required=("Name",)))
_CRITERIA = Object({"Excludes": STRINGS, "Includes": STRINGS})
_ACTION = Object(
    {
        "ActionTypeId": Object(
            {"Category": STRING, "Owner": STRING, "Provider": STRING, "Version": STRING},
            required=("Category", "Owner", "Provider", "Version"),
        ),
        "Configuration": MapOf(STRING),
        "InputArtifacts": _ARTIFACTS,
        "Name": STRING,
        "Namespace": STRING,
        "OutputArtifacts": _ARTIFACTS,
        "Region": STRING,
        "RoleArn": STRING,
        "RunOrder": INTEGER,
        "TimeoutInMinutes": INTEGER,
    },
    required=("ActionTypeId", "Name"),
)
#: Properties of the resource that are no part of the pipeline's declaration.
_BESIDE = ("DisableInboundStageTransitions", "RestartExecutionOnUpdate", "Tags")


class Pipeline(Provider):
    """AWS::CodePipeline::Pipeline."""

    type: ClassVar[str] = "AWS::CodePipeline::Pipeline"
    schema: ClassVar[Object] = Object(
        {
            "ArtifactStore": _STORE,
            "ArtifactStores": ListOf(Object({"ArtifactStore": _STORE, "Region": STRING}, required=("ArtifactStore", "Region"))),
            "DisableInboundStageTransitions": ListOf(Object({"Reason": STRING, "StageName": STRING}, required=("Reason", "StageName"))),
            "ExecutionMode": STRING,
            "Name": STRING,
            "PipelineType": STRING,
            "RestartExecutionOnUpdate": BOOLEAN,
            "RoleArn": STRING,
            "Stages": ListOf(Object({"Actions": ListOf(_ACTION), "Name": STRING}, required=("Actions", "Name"))),
            "Tags": TAG_LIST,
            "Triggers": ListOf(
                Object(
                    {
                        "GitConfiguration": Object(
                            {
                                "Push": ListOf(Object({"Branches": _CRITERIA, "FilePaths": _CRITERIA, "Tags": _CRITERIA})),
                                "SourceActionName": STRING,
                            },
                            required=("SourceActionName",),
                        ),
                        "ProviderType": STRING,
                    },
                    required=("ProviderType",),
                )
            ),
            "Variables": ListOf(Object({"DefaultValue": STRING, "Description": STRING, "Name": STRING}, required=("Name",))),
        },
        required=("RoleArn", "Stages"),
    )
    replaced_by: ClassVar[frozenset[str]] = frozenset(("Name",))
    attributes: ClassVar[frozenset[str]] = frozenset(("Arn", "Version"))
    name: ClassVar[NameRule] = NameRule("Name", 100)
    tags: ClassVar[TagStyle | None] = TagStyle.LIST

    def validate(self, properties: Properties) -> None:
        """A pipeline keeps its artifacts in one way."""
        given = [name for name in ("ArtifactStore", "ArtifactStores") if name in properties]
        if len(given) != 1:
            raise PropertyError("", "Exactly one of ArtifactStore, ArtifactStores must be specified")

    def exists(self, context: Context, name: str, properties: Properties) -> bool:
        """Return whether there is a pipeline of this name."""
        try:
            context.clients("codepipeline").get_pipeline(name=name)
        except ClientError as error:
            if error.response["Error"]["Code"] == "PipelineNotFoundException":
                return False
            raise
        return True

    def create(self, context: Context, name: str, properties: Properties) -> str:
        """Create the pipeline, which starts its first execution."""
        tags = _tags(tag_dictionary(properties.get("Tags")))
        context.clients("codepipeline").create_pipeline(pipeline=_declaration(name, properties), **({"tags": tags} if tags else {}))
        return name

    def settle(self, context: Context, physical_id: str, properties: Properties) -> None:
        """Disable transitions."""
        _set_transitions(context, physical_id, {}, properties)

    def update(self, context: Context, physical_id: str, old: Properties, new: Properties) -> None:
        """Change the declaration, transitions and tags where they differ."""
        client = context.clients("codepipeline")
        if changed(old, new, *(name for name in self.schema.fields if name not in _BESIDE)):
            client.update_pipeline(pipeline=_declaration(physical_id, new))
            if new.get("RestartExecutionOnUpdate"):
                client.start_pipeline_execution(name=physical_id)
        _set_transitions(context, physical_id, old, new)
        to_set, to_remove = tag_changes(old, new)
        arn = context.place.arn("codepipeline", physical_id)
        if to_set:
            client.tag_resource(resourceArn=arn, tags=_tags(to_set))
        if to_remove:
            client.untag_resource(resourceArn=arn, tagKeys=to_remove)

    def attributes_of(self, context: Context, physical_id: str, properties: Properties) -> dict[str, Json]:
        """Return the ARN and the version."""
        version = context.clients("codepipeline").get_pipeline(name=physical_id)["pipeline"]["version"]
        return {"Arn": context.place.arn("codepipeline", physical_id), "Version": str(version)}

    def delete(self, context: Context, physical_id: str, properties: Properties) -> None:
        """Delete the pipeline with its executions."""
        context.clients("codepipeline").delete_pipeline(name=physical_id)


def _declaration(name: str, properties: Properties) -> Json:
    declaration = _lower_first({key: value for key, value in properties.items() if key not in _BESIDE}) | {"name": name}
    if "artifactStores" in declaration:
        declaration["artifactStores"] = {one["region"]: one["artifactStore"] for one in declaration["artifactStores"]}
    return declaration


def _lower_first(value: Json) -> Json:
    """Return properties under the API's names; the keys of an action's configuration are the provider's own."""
    if isinstance(value, dict):
        return {key[0].lower() + key[1:]: item if key == "Configuration" else _lower_first(item) for key, item in value.items()}
    return [_lower_first(item) for item in value] if isinstance(value, list) else value


def _set_transitions(context: Context, name: str, old: Properties, new: Properties) -> None:
    client = context.clients("codepipeline")
    before, after = (
        {one["StageName"]: one["Reason"] for one in properties.get("DisableInboundStageTransitions") or []} for properties in (old, new)
    )
    stages = {stage["Name"] for stage in new["Stages"]}
    for stage, reason in after.items():
        if before.get(stage) != reason:
            client.disable_stage_transition(pipelineName=name, stageName=stage, transitionType="Inbound", reason=reason)
    for stage in sorted((set(before) - set(after)) & stages):
        client.enable_stage_transition(pipelineName=name, stageName=stage, transitionType="Inbound")


def _tags(tags: dict[str, str]) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in sorted(tags.items())]
