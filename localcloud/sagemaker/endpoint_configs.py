"""Endpoint configurations: which models an endpoint serves, on what, with which share of the traffic."""

from __future__ import annotations

from typing import TYPE_CHECKING

from localcloud.database import Document
from localcloud.errors import ServiceError, not_supported
from localcloud.sagemaker.listing import list_page
from localcloud.sagemaker.models import ModelOperations
from localcloud.sagemaker.tags import check_tags
from localcloud.sagemaker.values import given, now, refuse_others
from localcloud.service import Params

if TYPE_CHECKING:
    from localcloud.cloud import Cloud

_WHERE = "CreateEndpointConfig"
#: Of these, the weight, the timeout of the health check, the model and the kind (instance or serverless) have an effect here; the others choose machines.
_VARIANT = (
    "VariantName", "ModelName", "InitialInstanceCount", "InstanceType", "InitialVariantWeight", "ServerlessConfig", "VolumeSizeInGB",
    "ModelDataDownloadTimeoutInSeconds", "ContainerStartupHealthCheckTimeoutInSeconds", "EnableSSMAccess", "ManagedInstanceScaling", "RoutingConfig",
    "InferenceAmiVersion",
)  # fmt: skip


class EndpointConfigOperations(ModelOperations):
    """CreateEndpointConfig, DescribeEndpointConfig, ListEndpointConfigs, DeleteEndpointConfig."""

    def __init__(self, cloud: Cloud) -> None:
        super().__init__(cloud)
        self._configs = cloud.db.table("sagemaker.endpoint_configs")

    def create_endpoint_config(self, params: Params) -> Params:
        """Make a configuration.

        Raises:
            ServiceError: There is one of that name, it names a model that does not exist, or something that is not served here.
        """
        refuse_others(
            params,
            ("EndpointConfigName", "ProductionVariants", "DataCaptureConfig", "Tags", "KmsKeyId", "ExecutionRoleArn", "VpcConfig"),
            _WHERE,
        )
        if (params.get("DataCaptureConfig") or {}).get("EnableCapture"):
            raise not_supported(f"{_WHERE}: DataCaptureConfig with EnableCapture")
        check_tags(params.get("Tags"))
        variants = params["ProductionVariants"]
        names = [variant["VariantName"] for variant in variants]
        if len(set(names)) < len(names):
            raise ServiceError("ValidationException", "Variant names must be unique within an endpoint configuration.")
        for variant in variants:
            self._check_variant(variant)
        name = params["EndpointConfigName"]
        arn = self.arn("endpoint-config", name)
        with self._configs.lock():
            if name in self._configs:
                raise ServiceError("ValidationException", f'Cannot create already existing endpoint configuration "{arn}".')
            document = given(params, "EndpointConfigName", "DataCaptureConfig", "KmsKeyId", "ExecutionRoleArn", "VpcConfig") | {
                "EndpointConfigArn": arn,
                "ProductionVariants": [{"InitialVariantWeight": 1.0} | variant for variant in variants],
                "CreationTime": now(),
                "EnableNetworkIsolation": False,
            }
            self._configs.put(name, document)
            self.tags.create(arn, params.get("Tags"))
        self.emit("SageMaker Endpoint Config State Change", document, arn)
        return {"EndpointConfigArn": arn}

    def describe_endpoint_config(self, params: Params) -> Params:
        """Return a configuration."""
        return self.endpoint_config(params["EndpointConfigName"])

    def list_endpoint_configs(self, params: Params) -> Params:
        """Return a page of configurations."""
        found, token = list_page(self._configs.values(), params, name="EndpointConfigName")
        return {
            "EndpointConfigs": [given(document, "EndpointConfigName", "EndpointConfigArn", "CreationTime") for document in found]
        } | token

    def delete_endpoint_config(self, params: Params) -> None:
        """Delete a configuration; endpoints that were made from it go on."""
        document = self.endpoint_config(params["EndpointConfigName"])
        self._configs.delete(document["EndpointConfigName"])
        self.emit("SageMaker Endpoint Config State Change", document, document["EndpointConfigArn"])
        self.tags.delete(document["EndpointConfigArn"])

    def endpoint_config(self, name: str) -> Document:
        """Return a configuration's document.

        Raises:
            ServiceError: There is no such configuration.
        """
        document = self._configs.get(name)
        if document is None:
            raise ServiceError("ValidationException", f'Could not find endpoint configuration "{self.arn("endpoint-config", name)}".')
        return document

    def key_of(self, arn: str) -> str | None:
        """Return the key with which a configuration has the disks of its instances encrypted."""
        found = next((document for document in self._configs.values() if document["EndpointConfigArn"] == arn), None)
        on_instances = found is not None and any(variant.get("InstanceType") for variant in found["ProductionVariants"])
        return found.get("KmsKeyId") if found is not None and on_instances else None

    def _check_variant(self, variant: Params) -> None:
        where = f"{_WHERE}: variant {variant['VariantName']}"
        refuse_others(variant, _VARIANT, where)
        if not variant.get("ModelName"):
            raise not_supported(f"{where} without a ModelName (inference components)")
        self.model(variant["ModelName"])
        if bool(variant.get("ServerlessConfig")) == bool(variant.get("InstanceType")):
            raise ServiceError(
                "ValidationException", f"Variant {variant['VariantName']} must have either an InstanceType or a ServerlessConfig."
            )
        if variant.get("InstanceType") and not variant.get("InitialInstanceCount"):
            raise ServiceError("ValidationException", f"InitialInstanceCount is required for variant {variant['VariantName']}.")
        if variant.get("ServerlessConfig") and variant.get("InitialInstanceCount"):
            raise ServiceError(
                "ValidationException", f"InitialInstanceCount cannot be specified for the serverless variant {variant['VariantName']}."
            )
