"""AWS::Lambda."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any, ClassVar

from botocore.exceptions import ClientError

from localcloud.cloudformation.errors import ResourceFailure
from localcloud.cloudformation.provider import Context, NameRule, Properties, Provider, TagStyle, changed, tag_changes, tag_dictionary
from localcloud.cloudformation.schema import INTEGER, NUMBER, STRING, STRINGS, ListOf, MapOf, Object, PropertyError, one_of

Json = Any

_CODE = Object({"S3Bucket": STRING, "S3Key": STRING, "S3ObjectVersion": STRING, "ZipFile": STRING})
#: Properties that UpdateFunctionConfiguration takes, with what leaving one out means there.
_CONFIGURATION: dict[str, Json] = {
    "DeadLetterConfig": {"TargetArn": ""},
    "Description": "",
    "Environment": {"Variables": {}},
    "EphemeralStorage": {"Size": 512},
    "Handler": None,
    "KmsKeyArn": "",
    "Layers": [],
    "LoggingConfig": {"LogFormat": "Text"},
    "MemorySize": 128,
    "Role": None,
    "Runtime": None,
    "Timeout": 3,
    "TracingConfig": {"Mode": "PassThrough"},
}


class Function(Provider):
    """AWS::Lambda::Function."""

    type: ClassVar[str] = "AWS::Lambda::Function"
    schema: ClassVar[Object] = Object(
        {
            "Architectures": ListOf(one_of("x86_64", "arm64")),
            "Code": _CODE,
            "DeadLetterConfig": Object({"TargetArn": STRING}),
            "Description": STRING,
            "Environment": Object({"Variables": MapOf(STRING)}),
            "EphemeralStorage": Object({"Size": INTEGER}, required=("Size",)),
            "FunctionName": STRING,
            "Handler": STRING,
            "KmsKeyArn": STRING,
            "Layers": STRINGS,
            "LoggingConfig": Object({"ApplicationLogLevel": STRING, "LogFormat": STRING, "LogGroup": STRING, "SystemLogLevel": STRING}),
            "MemorySize": INTEGER,
            "PackageType": one_of("Zip"),
            "ReservedConcurrentExecutions": INTEGER,
            "Role": STRING,
            "Runtime": STRING,
            "Tags": ListOf(Object({"Key": STRING, "Value": STRING}, required=("Key",))),
            "Timeout": INTEGER,
            "TracingConfig": Object({"Mode": one_of("Active", "PassThrough")}),
        },
        required=("Code", "Role"),
    )
    replaced_by: ClassVar[frozenset[str]] = frozenset(("FunctionName", "PackageType"))
    attributes: ClassVar[frozenset[str]] = frozenset(("Arn",))
    name: ClassVar[NameRule] = NameRule("FunctionName", 64)
    tags: ClassVar[TagStyle | None] = TagStyle.LIST

    def validate(self, properties: Properties) -> None:
        """Code comes from S3 or from the template."""
        code = properties["Code"]
        if isinstance(code, dict) and "ZipFile" not in code and not {"S3Bucket", "S3Key"} <= set(code):
            raise PropertyError("/Code", "Please provide a source for function code.")

    def exists(self, context: Context, name: str, properties: Properties) -> bool:
        """Return whether there is a function of this name."""
        return _exists(context.clients("lambda").get_function, FunctionName=name)

    def create(self, context: Context, name: str, properties: Properties) -> str:
        """Create the function."""
        request = {_api_name(key): properties[key] for key in (*_CONFIGURATION, "Architectures", "PackageType") if key in properties}
        tags = tag_dictionary(properties.get("Tags"))
        context.clients("lambda").create_function(FunctionName=name, Code=_code(properties), Tags=tags, **request)
        return name

    def settle(self, context: Context, physical_id: str, properties: Properties) -> None:
        """Wait until it can be invoked, and reserve concurrency."""
        _wait_until_ready(context, physical_id)
        if "ReservedConcurrentExecutions" in properties:
            self._reserve(context, physical_id, properties)

    def update(self, context: Context, physical_id: str, old: Properties, new: Properties) -> None:
        """Change code, configuration, concurrency and tags where they differ."""
        client = context.clients("lambda")
        if changed(old, new, "Code", "Architectures"):
            architectures = {"Architectures": new.get("Architectures", ["x86_64"])}
            client.update_function_code(FunctionName=physical_id, **_code(new), **architectures)
            _wait_until_ready(context, physical_id)
        request = {_api_name(key): new.get(key, default) for key, default in _CONFIGURATION.items() if old.get(key) != new.get(key)}
        request = {key: value for key, value in request.items() if value is not None}
        if request:
            client.update_function_configuration(FunctionName=physical_id, **request)
            _wait_until_ready(context, physical_id)
        if changed(old, new, "ReservedConcurrentExecutions"):
            self._reserve(context, physical_id, new)
        to_set, to_remove = tag_changes(old, new)
        arn = self.attributes_of(context, physical_id, new)["Arn"]
        if to_set:
            client.tag_resource(Resource=arn, Tags=to_set)
        if to_remove:
            client.untag_resource(Resource=arn, TagKeys=to_remove)

    @staticmethod
    def _reserve(context: Context, name: str, properties: Properties) -> None:
        client = context.clients("lambda")
        if "ReservedConcurrentExecutions" in properties:
            client.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=properties["ReservedConcurrentExecutions"])
        else:
            client.delete_function_concurrency(FunctionName=name)

    def attributes_of(self, context: Context, physical_id: str, properties: Properties) -> dict[str, Json]:
        """Return the ARN."""
        return {"Arn": context.place.arn("lambda", f"function:{physical_id}")}

    def delete(self, context: Context, physical_id: str, properties: Properties) -> None:
        """Delete the function with its versions and aliases."""
        context.clients("lambda").delete_function(FunctionName=physical_id)


def _api_name(name: str) -> str:
    return "KMSKeyArn" if name == "KmsKeyArn" else name


def _code(properties: Properties) -> dict[str, Json]:
    code: dict[str, Json] = properties["Code"]
    return {**code, "ZipFile": _inline_zip(code["ZipFile"])} if "ZipFile" in code else code


def _inline_zip(source: str) -> bytes:
    """Return the zip of inline code: `index.py` and, as on AWS, the module `cfnresponse`."""
    response = Path(__file__).with_name("cfnresponse.py").read_text(encoding="utf-8")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in (("index.py", source), ("cfnresponse.py", response)):
            # A fixed time: the same code gives the same zip.
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, text)
    return buffer.getvalue()


def _wait_until_ready(context: Context, name: str) -> None:
    def ready() -> bool:
        configuration = context.clients("lambda").get_function(FunctionName=name)["Configuration"]
        if "Failed" in (configuration.get("State"), configuration.get("LastUpdateStatus")):
            raise ResourceFailure(str(configuration.get("StateReason") or configuration.get("LastUpdateStatusReason")))
        return bool(configuration.get("State") != "Pending" and configuration.get("LastUpdateStatus") != "InProgress")

    context.wait_for(ready, seconds=300, what=f"function {name}")


def _exists(describe: Any, **arguments: str) -> bool:
    try:
        describe(**arguments)
    except ClientError as error:
        if error.response["Error"]["Code"] == "ResourceNotFoundException":
            return False
        raise
    return True


class Permission(Provider):
    """AWS::Lambda::Permission."""

    type: ClassVar[str] = "AWS::Lambda::Permission"
    schema: ClassVar[Object] = Object(
        {"Action": STRING, "EventSourceToken": STRING, "FunctionName": STRING, "Principal": STRING, "PrincipalOrgID": STRING, "SourceAccount": STRING,
         "SourceArn": STRING},
        required=("FunctionName", "Action", "Principal"),
    )  # fmt: skip
    replaced_by: ClassVar[frozenset[str]] = frozenset(schema.fields)

    def create(self, context: Context, name: str, properties: Properties) -> str:
        """Add the statement to the function's policy."""
        context.clients("lambda").add_permission(StatementId=name, **properties)
        return name

    def delete(self, context: Context, physical_id: str, properties: Properties) -> None:
        """Remove the statement."""
        context.clients("lambda").remove_permission(FunctionName=properties["FunctionName"], StatementId=physical_id)


class Version(Provider):
    """AWS::Lambda::Version."""

    type: ClassVar[str] = "AWS::Lambda::Version"
    schema: ClassVar[Object] = Object({"CodeSha256": STRING, "Description": STRING, "FunctionName": STRING}, required=("FunctionName",))
    replaced_by: ClassVar[frozenset[str]] = frozenset(schema.fields)
    attributes: ClassVar[frozenset[str]] = frozenset(("Version", "FunctionArn"))

    def identify(self, context: Context, name: str, properties: Properties) -> str | None:
        """Lambda numbers versions."""
        return None

    def create(self, context: Context, name: str, properties: Properties) -> str:
        """Publish a version; one that is the same as the last is an error, as on AWS."""
        client = context.clients("lambda")
        known = {
            version["Version"]
            for page in client.get_paginator("list_versions_by_function").paginate(FunctionName=properties["FunctionName"])
            for version in page["Versions"]
        }
        published = client.publish_version(**properties)
        if published["Version"] in known:
            raise ResourceFailure(
                f"A version for this Lambda function exists ( {published['Version']} ). Modify the function to create a new version."
            )
        return str(published["FunctionArn"])

    def attributes_of(self, context: Context, physical_id: str, properties: Properties) -> dict[str, Json]:
        """Return the number and the ARN."""
        return {"Version": physical_id.rpartition(":")[2], "FunctionArn": physical_id}

    def delete(self, context: Context, physical_id: str, properties: Properties) -> None:
        """Delete the version."""
        function, _, number = physical_id.rpartition(":")
        context.clients("lambda").delete_function(FunctionName=function, Qualifier=number)


class Alias(Provider):
    """AWS::Lambda::Alias."""

    type: ClassVar[str] = "AWS::Lambda::Alias"
    schema: ClassVar[Object] = Object(
        {
            "Description": STRING,
            "FunctionName": STRING,
            "FunctionVersion": STRING,
            "Name": STRING,
            "RoutingConfig": Object(
                {
                    "AdditionalVersionWeights": ListOf(
                        Object({"FunctionVersion": STRING, "FunctionWeight": NUMBER}, required=("FunctionVersion", "FunctionWeight"))
                    )
                }
            ),
        },
        required=("FunctionName", "FunctionVersion", "Name"),
    )
    replaced_by: ClassVar[frozenset[str]] = frozenset(("Name", "FunctionName"))
    attributes: ClassVar[frozenset[str]] = frozenset(("AliasArn",))
    # Two functions may both have an alias of one name.
    name: ClassVar[NameRule] = NameRule("Name", unique=False)

    def exists(self, context: Context, name: str, properties: Properties) -> bool:
        """Return whether the function has this alias."""
        return _exists(context.clients("lambda").get_alias, FunctionName=properties["FunctionName"], Name=name)

    def identify(self, context: Context, name: str, properties: Properties) -> str:
        """Return the ARN."""
        function = properties["FunctionName"]
        return f"{function if function.startswith('arn:') else context.place.arn('lambda', f'function:{function}')}:{name}"

    def create(self, context: Context, name: str, properties: Properties) -> str:
        """Create the alias."""
        return str(
            context.clients("lambda").create_alias(FunctionName=properties["FunctionName"], Name=name, **_alias(properties))["AliasArn"]
        )

    def update(self, context: Context, physical_id: str, old: Properties, new: Properties) -> None:
        """Point the alias elsewhere."""
        request = {"Description": "", "RoutingConfig": {"AdditionalVersionWeights": {}}} | _alias(new)
        context.clients("lambda").update_alias(FunctionName=new["FunctionName"], Name=new["Name"], **request)

    def attributes_of(self, context: Context, physical_id: str, properties: Properties) -> dict[str, Json]:
        """Return the ARN."""
        return {"AliasArn": physical_id}

    def delete(self, context: Context, physical_id: str, properties: Properties) -> None:
        """Delete the alias."""
        function, _, name = physical_id.rpartition(":")
        context.clients("lambda").delete_alias(FunctionName=function, Name=name)


def _alias(properties: Properties) -> dict[str, Json]:
    request: dict[str, Json] = {key: properties[key] for key in ("Description", "FunctionVersion") if key in properties}
    if "RoutingConfig" in properties:
        weights = properties["RoutingConfig"].get("AdditionalVersionWeights") or []
        request["RoutingConfig"] = {"AdditionalVersionWeights": {item["FunctionVersion"]: item["FunctionWeight"] for item in weights}}
    return request


class EventInvokeConfig(Provider):
    """AWS::Lambda::EventInvokeConfig."""

    type: ClassVar[str] = "AWS::Lambda::EventInvokeConfig"
    schema: ClassVar[Object] = Object(
        {
            "DestinationConfig": Object(
                {
                    "OnFailure": Object({"Destination": STRING}, required=("Destination",)),
                    "OnSuccess": Object({"Destination": STRING}, required=("Destination",)),
                }
            ),
            "FunctionName": STRING,
            "MaximumEventAgeInSeconds": INTEGER,
            "MaximumRetryAttempts": INTEGER,
            "Qualifier": STRING,
        },
        required=("FunctionName", "Qualifier"),
    )
    replaced_by: ClassVar[frozenset[str]] = frozenset(("FunctionName", "Qualifier"))

    def create(self, context: Context, name: str, properties: Properties) -> str:
        """Put the configuration, unless there is one."""
        client = context.clients("lambda")
        if _exists(client.get_function_event_invoke_config, FunctionName=properties["FunctionName"], Qualifier=properties["Qualifier"]):
            raise ResourceFailure(f"EventInvokeConfig for {properties['FunctionName']}:{properties['Qualifier']} already exists")
        client.put_function_event_invoke_config(**properties)
        return name

    def update(self, context: Context, physical_id: str, old: Properties, new: Properties) -> None:
        """Put the new configuration."""
        context.clients("lambda").put_function_event_invoke_config(**new)

    def delete(self, context: Context, physical_id: str, properties: Properties) -> None:
        """Delete the configuration."""
        context.clients("lambda").delete_function_event_invoke_config(
            FunctionName=properties["FunctionName"], Qualifier=properties["Qualifier"]
        )


class LayerVersion(Provider):
    """AWS::Lambda::LayerVersion."""

    type: ClassVar[str] = "AWS::Lambda::LayerVersion"
    schema: ClassVar[Object] = Object(
        {
            "CompatibleArchitectures": STRINGS,
            "CompatibleRuntimes": STRINGS,
            "Content": Object({"S3Bucket": STRING, "S3Key": STRING, "S3ObjectVersion": STRING}, required=("S3Bucket", "S3Key")),
            "Description": STRING,
            "LayerName": STRING,
            "LicenseInfo": STRING,
        },
        required=("Content",),
    )
    replaced_by: ClassVar[frozenset[str]] = frozenset(schema.fields)
    attributes: ClassVar[frozenset[str]] = frozenset(("LayerVersionArn",))
    # A layer's name has many versions: replacing one under the same name is how it is used.
    name: ClassVar[NameRule] = NameRule("LayerName", 140, unique=False)

    def identify(self, context: Context, name: str, properties: Properties) -> str | None:
        """Lambda numbers versions."""
        return None

    def create(self, context: Context, name: str, properties: Properties) -> str:
        """Publish a version of the layer."""
        return str(context.clients("lambda").publish_layer_version(**{**properties, "LayerName": name})["LayerVersionArn"])

    def attributes_of(self, context: Context, physical_id: str, properties: Properties) -> dict[str, Json]:
        """Return the ARN."""
        return {"LayerVersionArn": physical_id}

    def delete(self, context: Context, physical_id: str, properties: Properties) -> None:
        """Delete this version."""
        layer, _, number = physical_id.rpartition(":")
        context.clients("lambda").delete_layer_version(LayerName=layer, VersionNumber=int(number))
