"""AWS::SageMaker."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, ClassVar

from botocore.exceptions import ClientError

from localcloud.cloudformation.errors import handler_failure
from localcloud.cloudformation.provider import Context, NameRule, Properties, Provider, TagStyle, changed, tag_changes, tag_list
from localcloud.cloudformation.schema import (
    BOOLEAN,
    INTEGER,
    JSON,
    NUMBER,
    STRING,
    STRINGS,
    TAG_LIST,
    ListOf,
    MapOf,
    Object,
    PropertyError,
    one_of,
)

Json = Any

#: SageMaker's own limit for a deployment is in the endpoint; this only ends a wait for one that says nothing any more.
_DEPLOYMENT_SECONDS = 8 * 3600.0

_CONTAINER = Object(
    {
        "ContainerHostname": STRING,
        "Environment": MapOf(STRING),
        "Image": STRING,
        "ModelDataSource": Object(
            {
                "S3DataSource": Object(
                    {"CompressionType": one_of("None", "Gzip"), "S3DataType": one_of("S3Prefix", "S3Object"), "S3Uri": STRING},
                    required=("CompressionType", "S3DataType", "S3Uri"),
                )
            },
            required=("S3DataSource",),
        ),
        "ModelDataUrl": STRING,
        "ModelPackageName": STRING,
        "Mode": one_of("SingleModel"),
    }
)
_VPC = Object({"SecurityGroupIds": STRINGS, "Subnets": STRINGS}, required=("SecurityGroupIds", "Subnets"))
_SIZE = Object({"Type": one_of("CAPACITY_PERCENT", "INSTANCE_COUNT"), "Value": INTEGER}, required=("Type", "Value"))


class _Described(Provider):
    """A resource whose physical id is its ARN, and that is found by its name.

    Attributes:
        kind: The resource's part of the ARN.
        word: How the API's operations and members call it.
    """

    kind: ClassVar[str]
    word: ClassVar[str]
    tags: ClassVar[TagStyle | None] = TagStyle.LIST

    def identify(self, context: Context, name: str, properties: Properties) -> str:
        """Return the ARN, which SageMaker writes in lower case."""
        return context.place.arn("sagemaker", f"{self.kind}/{name.lower()}")

    def exists(self, context: Context, name: str, properties: Properties) -> bool:
        """Return whether there is one of this name."""
        return self._describe(context, name) is not None

    def _describe(self, context: Context, name: str) -> dict[str, Json] | None:
        try:
            described: dict[str, Json] = self._operation(context, "describe")(**{f"{self.word}Name": name})
        except ClientError as error:
            message = error.response["Error"]["Message"]
            if error.response["Error"]["Code"] == "ResourceNotFound" or "Could not find" in message or "does not exist" in message:
                return None
            raise
        return described

    def _operation(self, context: Context, verb: str) -> Callable[..., Any]:
        snake = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in self.word)
        operation: Callable[..., Any] = getattr(context.clients("sagemaker"), f"{verb}{snake}")
        return operation

    def create(self, context: Context, name: str, properties: Properties) -> str:
        """Create it."""
        self._operation(context, "create")(**{**properties, f"{self.word}Name": name})
        return self.identify(context, name, properties)

    def update(self, context: Context, physical_id: str, old: Properties, new: Properties) -> None:
        """Change the tags."""
        client = context.clients("sagemaker")
        to_set, to_remove = tag_changes(old, new)
        arn = physical_id
        if to_set:
            client.add_tags(ResourceArn=arn, Tags=tag_list(to_set))
        if to_remove:
            client.delete_tags(ResourceArn=arn, TagKeys=to_remove)

    def attributes_of(self, context: Context, physical_id: str, properties: Properties) -> dict[str, Json]:
        """Return name and ARN."""
        return {f"{self.word}Name": self._name(physical_id, properties), f"{self.word}Arn": physical_id}

    def delete(self, context: Context, physical_id: str, properties: Properties) -> None:
        """Delete it."""
        self._operation(context, "delete")(**{f"{self.word}Name": self._name(physical_id, properties)})

    def _name(self, physical_id: str, properties: Properties) -> str:
        """Return the name: the template's, or the generated one, which is in lower case as the ARN is."""
        return str(properties.get(f"{self.word}Name") or physical_id.rpartition("/")[2])


class Model(_Described):
    """AWS::SageMaker::Model."""

    type: ClassVar[str] = "AWS::SageMaker::Model"
    kind: ClassVar[str] = "model"
    word: ClassVar[str] = "Model"
    schema: ClassVar[Object] = Object(
        {
            "Containers": ListOf(_CONTAINER),
            "EnableNetworkIsolation": BOOLEAN,
            "ExecutionRoleArn": STRING,
            "ModelName": STRING,
            "PrimaryContainer": _CONTAINER,
            "Tags": TAG_LIST,
            "VpcConfig": _VPC,
        }
    )
    replaced_by: ClassVar[frozenset[str]] = frozenset(schema.fields) - {"Tags"}
    attributes: ClassVar[frozenset[str]] = frozenset(("ModelName", "ModelArn"))
    name: ClassVar[NameRule] = NameRule("ModelName", 63, lower=True)


class EndpointConfig(_Described):
    """AWS::SageMaker::EndpointConfig."""

    type: ClassVar[str] = "AWS::SageMaker::EndpointConfig"
    kind: ClassVar[str] = "endpoint-config"
    word: ClassVar[str] = "EndpointConfig"
    schema: ClassVar[Object] = Object(
        {
            "EndpointConfigName": STRING,
            "ExecutionRoleArn": STRING,
            "KmsKeyId": STRING,
            "ProductionVariants": ListOf(
                Object(
                    {
                        "ContainerStartupHealthCheckTimeoutInSeconds": INTEGER,
                        "EnableSSMAccess": BOOLEAN,
                        "InferenceAmiVersion": STRING,
                        "InitialInstanceCount": INTEGER,
                        "InitialVariantWeight": NUMBER,
                        "InstanceType": STRING,
                        "ModelDataDownloadTimeoutInSeconds": INTEGER,
                        "ModelName": STRING,
                        "RoutingConfig": Object({"RoutingStrategy": STRING}),
                        "ServerlessConfig": Object(
                            {"MaxConcurrency": INTEGER, "MemorySizeInMB": INTEGER, "ProvisionedConcurrency": INTEGER},
                            required=("MaxConcurrency", "MemorySizeInMB"),
                        ),
                        "VariantName": STRING,
                        "VolumeSizeInGB": INTEGER,
                    },
                    required=("VariantName",),
                )
            ),
            "Tags": TAG_LIST,
            "VpcConfig": _VPC,
        },
        required=("ProductionVariants",),
    )
    replaced_by: ClassVar[frozenset[str]] = frozenset(schema.fields) - {"Tags"}
    attributes: ClassVar[frozenset[str]] = frozenset(("EndpointConfigName", "EndpointConfigArn"))
    name: ClassVar[NameRule] = NameRule("EndpointConfigName", 63, lower=True)


class Endpoint(_Described):
    """AWS::SageMaker::Endpoint: created and updated until it is InService; what goes wrong is its FailureReason."""

    type: ClassVar[str] = "AWS::SageMaker::Endpoint"
    kind: ClassVar[str] = "endpoint"
    word: ClassVar[str] = "Endpoint"
    schema: ClassVar[Object] = Object(
        {
            "DeploymentConfig": Object(
                {
                    "AutoRollbackConfiguration": Object(
                        {"Alarms": ListOf(Object({"AlarmName": STRING}, required=("AlarmName",)))}, required=("Alarms",)
                    ),
                    "BlueGreenUpdatePolicy": Object(
                        {
                            "MaximumExecutionTimeoutInSeconds": INTEGER,
                            "TerminationWaitInSeconds": INTEGER,
                            "TrafficRoutingConfiguration": Object(
                                {
                                    "CanarySize": _SIZE,
                                    "LinearStepSize": _SIZE,
                                    "Type": one_of("ALL_AT_ONCE", "CANARY", "LINEAR"),
                                    "WaitIntervalInSeconds": INTEGER,
                                },
                                required=("Type",),
                            ),
                        },
                        required=("TrafficRoutingConfiguration",),
                    ),
                    "RollingUpdatePolicy": Object(
                        {
                            "MaximumBatchSize": _SIZE,
                            "MaximumExecutionTimeoutInSeconds": INTEGER,
                            "RollbackMaximumBatchSize": _SIZE,
                            "WaitIntervalInSeconds": INTEGER,
                        },
                        required=("MaximumBatchSize", "WaitIntervalInSeconds"),
                    ),
                }
            ),
            "EndpointConfigName": STRING,
            "EndpointName": STRING,
            "ExcludeRetainedVariantProperties": ListOf(Object({"VariantPropertyType": STRING})),
            "RetainAllVariantProperties": BOOLEAN,
            "RetainDeploymentConfig": BOOLEAN,
            "Tags": TAG_LIST,
        },
        required=("EndpointConfigName",),
    )
    replaced_by: ClassVar[frozenset[str]] = frozenset(("EndpointName",))
    attributes: ClassVar[frozenset[str]] = frozenset(("EndpointName", "EndpointArn"))
    name: ClassVar[NameRule] = NameRule("EndpointName", 63, lower=True)

    def create(self, context: Context, name: str, properties: Properties) -> str:
        """Begin to create the endpoint."""
        request = {key: properties[key] for key in ("DeploymentConfig", "EndpointConfigName", "Tags") if key in properties}
        context.clients("sagemaker").create_endpoint(EndpointName=name, **request)
        return self.identify(context, name, properties)

    def settle(self, context: Context, physical_id: str, properties: Properties) -> None:
        """Wait until it is in service."""
        self._check_in_service(self._at_rest(context, self._name(physical_id, properties)), properties)

    def update(self, context: Context, physical_id: str, old: Properties, new: Properties) -> None:
        """Deploy another configuration and wait until it is in service; change the tags."""
        # An update that was cancelled may still be on its way.
        name = self._name(physical_id, new)
        present = self._at_rest(context, name)
        served = present["EndpointStatus"] == "InService" and present["EndpointConfigName"] == new["EndpointConfigName"]
        if not served or (changed(old, new, "DeploymentConfig") and "DeploymentConfig" in new):
            names = (
                "DeploymentConfig",
                "EndpointConfigName",
                "ExcludeRetainedVariantProperties",
                "RetainAllVariantProperties",
                "RetainDeploymentConfig",
            )
            request = {key: new[key] for key in names if key in new}
            context.clients("sagemaker").update_endpoint(EndpointName=name, **request)
            self._check_in_service(self._at_rest(context, name), new)
        super().update(context, physical_id, old, new)

    @staticmethod
    def _at_rest(context: Context, name: str) -> dict[str, Json]:
        client = context.clients("sagemaker")

        def at_rest() -> dict[str, Json] | None:
            described: dict[str, Json] = client.describe_endpoint(EndpointName=name)
            return described if described["EndpointStatus"] in ("InService", "Failed", "OutOfService", "UpdateRollbackFailed") else None

        found: dict[str, Json] = context.wait_for(at_rest, seconds=_DEPLOYMENT_SECONDS, what=f"endpoint {name}")
        return found

    @staticmethod
    def _check_in_service(described: dict[str, Json], properties: Properties) -> None:
        if described["EndpointStatus"] == "InService" and described["EndpointConfigName"] == properties["EndpointConfigName"]:
            return
        reason = described.get("FailureReason") or f"The endpoint is {described['EndpointStatus']} with {described['EndpointConfigName']}"
        raise handler_failure(reason, "NotStabilized")

    def delete(self, context: Context, physical_id: str, properties: Properties) -> None:
        """Delete the endpoint and wait until it is gone."""
        name = self._name(physical_id, properties)
        if self._describe(context, name) is None:
            return

        def settled() -> bool:
            described = self._describe(context, name)
            return described is None or described["EndpointStatus"] not in ("Creating", "Updating", "SystemUpdating", "RollingBack")

        context.wait_for(settled, seconds=_DEPLOYMENT_SECONDS, what=f"endpoint {name}", cancellable=False)
        super().delete(context, physical_id, properties)
        context.wait_for(
            lambda: self._describe(context, name) is None, seconds=300, what=f"endpoint {name} to be deleted", cancellable=False
        )


class ModelPackageGroup(_Described):
    """AWS::SageMaker::ModelPackageGroup."""

    type: ClassVar[str] = "AWS::SageMaker::ModelPackageGroup"
    kind: ClassVar[str] = "model-package-group"
    word: ClassVar[str] = "ModelPackageGroup"
    schema: ClassVar[Object] = Object(
        {"ModelPackageGroupDescription": STRING, "ModelPackageGroupName": STRING, "Tags": TAG_LIST}, required=("ModelPackageGroupName",)
    )
    replaced_by: ClassVar[frozenset[str]] = frozenset(("ModelPackageGroupName", "ModelPackageGroupDescription"))
    attributes: ClassVar[frozenset[str]] = frozenset(("ModelPackageGroupArn", "ModelPackageGroupStatus"))
    name: ClassVar[NameRule] = NameRule("ModelPackageGroupName", 63, lower=True)
    imported_by: ClassVar[str | None] = "ModelPackageGroupArn"

    def attributes_of(self, context: Context, physical_id: str, properties: Properties) -> dict[str, Json]:
        """Return ARN and status."""
        described = self._describe(context, self._name(physical_id, properties)) or {}
        return {"ModelPackageGroupArn": physical_id, "ModelPackageGroupStatus": described.get("ModelPackageGroupStatus", "Completed")}


class Pipeline(_Described):
    """AWS::SageMaker::Pipeline."""

    type: ClassVar[str] = "AWS::SageMaker::Pipeline"
    kind: ClassVar[str] = "pipeline"
    word: ClassVar[str] = "Pipeline"
    schema: ClassVar[Object] = Object(
        {
            "ParallelismConfiguration": Object({"MaxParallelExecutionSteps": INTEGER}, required=("MaxParallelExecutionSteps",)),
            "PipelineDefinition": MapOf(JSON),
            "PipelineDescription": STRING,
            "PipelineDisplayName": STRING,
            "PipelineName": STRING,
            "RoleArn": STRING,
            "Tags": TAG_LIST,
        },
        required=("PipelineName", "PipelineDefinition", "RoleArn"),
    )
    replaced_by: ClassVar[frozenset[str]] = frozenset(("PipelineName",))
    name: ClassVar[NameRule] = NameRule("PipelineName", 256)

    def validate(self, properties: Properties) -> None:
        """The definition is text or an address in S3."""
        definition = properties["PipelineDefinition"]
        if isinstance(definition, dict) and not {"PipelineDefinitionBody", "PipelineDefinitionS3Location"} & set(definition):
            raise PropertyError("/PipelineDefinition", "required key [PipelineDefinitionBody] or [PipelineDefinitionS3Location] not found")

    def create(self, context: Context, name: str, properties: Properties) -> str:
        """Create the pipeline."""
        tags = {"Tags": properties["Tags"]} if properties.get("Tags") else {}
        context.clients("sagemaker").create_pipeline(PipelineName=name, **_pipeline(properties), **tags)
        return name

    def identify(self, context: Context, name: str, properties: Properties) -> str:
        """Return the name, which is a pipeline's physical id."""
        return name

    def update(self, context: Context, physical_id: str, old: Properties, new: Properties) -> None:
        """Change what differs."""
        if {key: value for key, value in old.items() if key != "Tags"} != {key: value for key, value in new.items() if key != "Tags"}:
            context.clients("sagemaker").update_pipeline(PipelineName=physical_id, **_pipeline(new))
        arn = context.place.arn("sagemaker", f"pipeline/{physical_id}")
        to_set, to_remove = tag_changes(old, new)
        if to_set:
            context.clients("sagemaker").add_tags(ResourceArn=arn, Tags=tag_list(to_set))
        if to_remove:
            context.clients("sagemaker").delete_tags(ResourceArn=arn, TagKeys=to_remove)

    def attributes_of(self, context: Context, physical_id: str, properties: Properties) -> dict[str, Json]:
        """A pipeline has none."""
        return {}


def _pipeline(properties: Properties) -> dict[str, Json]:
    names = ("ParallelismConfiguration", "PipelineDescription", "PipelineDisplayName", "RoleArn")
    request: dict[str, Json] = {key: properties[key] for key in names if key in properties}
    definition = properties["PipelineDefinition"]
    if "PipelineDefinitionBody" in definition:
        body = definition["PipelineDefinitionBody"]
        return request | {"PipelineDefinition": body if isinstance(body, str) else json.dumps(body)}
    where = definition["PipelineDefinitionS3Location"]
    location = {"Bucket": where["Bucket"], "ObjectKey": where["Key"]} | ({"VersionId": where["Version"]} if "Version" in where else {})
    return request | {"PipelineDefinitionS3Location": location}
