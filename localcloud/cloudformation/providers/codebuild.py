"""AWS::CodeBuild."""

from __future__ import annotations

from typing import Any, ClassVar

from localcloud.cloudformation.provider import Context, NameRule, Properties, Provider, TagStyle
from localcloud.cloudformation.schema import BOOLEAN, INTEGER, STRING, STRINGS, TAG_LIST, ListOf, Object

Json = Any

_ARTIFACTS = Object(
    {
        "ArtifactIdentifier": STRING,
        "EncryptionDisabled": BOOLEAN,
        "Location": STRING,
        "Name": STRING,
        "NamespaceType": STRING,
        "OverrideArtifactName": BOOLEAN,
        "Packaging": STRING,
        "Path": STRING,
        "Type": STRING,
    },
    required=("Type",),
)
_SOURCE = Object(
    {
        "BuildSpec": STRING,
        "GitCloneDepth": INTEGER,
        "InsecureSsl": BOOLEAN,
        "Location": STRING,
        "SourceIdentifier": STRING,
        "Type": STRING,
    },
    required=("Type",),
)
_VARIABLE = Object({"Name": STRING, "Type": STRING, "Value": STRING}, required=("Name", "Value"))
_ENVIRONMENT = Object(
    {
        "ComputeType": STRING,
        "EnvironmentVariables": ListOf(_VARIABLE),
        "Image": STRING,
        "ImagePullCredentialsType": STRING,
        "PrivilegedMode": BOOLEAN,
        "RegistryCredential": Object({"Credential": STRING, "CredentialProvider": STRING}, required=("Credential", "CredentialProvider")),
        "Type": STRING,
    },
    required=("ComputeType", "Image", "Type"),
)
#: What an update sends for a property that the template no longer has: UpdateProject leaves alone what it is not given.
_CLEARED: dict[str, Json] = {
    "BadgeEnabled": False,
    "Cache": {"Type": "NO_CACHE"},
    "ConcurrentBuildLimit": -1,
    "Description": "",
    "LogsConfig": {"CloudWatchLogs": {"Status": "ENABLED"}},
    "QueuedTimeoutInMinutes": 480,
    "SecondaryArtifacts": [],
    "SecondarySourceVersions": [],
    "SecondarySources": [],
    "SourceVersion": "",
    "Tags": [],
    "TimeoutInMinutes": 60,
    "VpcConfig": {},
}


class Project(Provider):
    """AWS::CodeBuild::Project."""

    type: ClassVar[str] = "AWS::CodeBuild::Project"
    schema: ClassVar[Object] = Object(
        {
            "Artifacts": _ARTIFACTS,
            "BadgeEnabled": BOOLEAN,
            "Cache": Object({"CacheNamespace": STRING, "Location": STRING, "Modes": STRINGS, "Type": STRING}, required=("Type",)),
            "ConcurrentBuildLimit": INTEGER,
            "Description": STRING,
            "EncryptionKey": STRING,
            "Environment": _ENVIRONMENT,
            "LogsConfig": Object(
                {
                    "CloudWatchLogs": Object({"GroupName": STRING, "Status": STRING, "StreamName": STRING}, required=("Status",)),
                    "S3Logs": Object({"EncryptionDisabled": BOOLEAN, "Location": STRING, "Status": STRING}, required=("Status",)),
                }
            ),
            "Name": STRING,
            "QueuedTimeoutInMinutes": INTEGER,
            "SecondaryArtifacts": ListOf(_ARTIFACTS),
            "SecondarySourceVersions": ListOf(
                Object({"SourceIdentifier": STRING, "SourceVersion": STRING}, required=("SourceIdentifier",))
            ),
            "SecondarySources": ListOf(_SOURCE),
            "ServiceRole": STRING,
            "Source": _SOURCE,
            "SourceVersion": STRING,
            "Tags": TAG_LIST,
            "TimeoutInMinutes": INTEGER,
            "VpcConfig": Object({"SecurityGroupIds": STRINGS, "Subnets": STRINGS, "VpcId": STRING}),
        },
        required=("Artifacts", "Environment", "ServiceRole", "Source"),
    )
    replaced_by: ClassVar[frozenset[str]] = frozenset(("Name",))
    attributes: ClassVar[frozenset[str]] = frozenset(("Arn", "Id"))
    name: ClassVar[NameRule] = NameRule("Name", 150)
    tags: ClassVar[TagStyle | None] = TagStyle.LIST

    def exists(self, context: Context, name: str, properties: Properties) -> bool:
        """Return whether there is a project of this name."""
        return bool(context.clients("codebuild").batch_get_projects(names=[name])["projects"])

    def create(self, context: Context, name: str, properties: Properties) -> str:
        """Create the project."""
        context.clients("codebuild").create_project(**_request(properties | {"Name": name}))
        return name

    def update(self, context: Context, physical_id: str, old: Properties, new: Properties) -> None:
        """Set everything anew."""
        context.clients("codebuild").update_project(**_request(_CLEARED | {"EncryptionKey": _key(context)} | new | {"Name": physical_id}))

    def attributes_of(self, context: Context, physical_id: str, properties: Properties) -> dict[str, Json]:
        """Return ARN and id, which is the name."""
        return {"Arn": context.place.arn("codebuild", f"project/{physical_id}"), "Id": physical_id}

    def delete(self, context: Context, physical_id: str, properties: Properties) -> None:
        """Delete the project."""
        context.clients("codebuild").delete_project(name=physical_id)


def _key(context: Context) -> str:
    return context.place.arn("kms", "alias/aws/s3")


def _request(value: Json) -> Json:
    """Return properties as CodeBuild's API names them."""
    if isinstance(value, dict):
        return {"buildspec" if key == "BuildSpec" else key[:1].lower() + key[1:]: _request(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_request(item) for item in value]
    return value
