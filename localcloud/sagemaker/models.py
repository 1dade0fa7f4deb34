"""Models: which container serves which model data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from localcloud.database import Document
from localcloud.errors import ServiceError, not_supported
from localcloud.sagemaker.listing import list_page
from localcloud.sagemaker.registry import RegistryOperations
from localcloud.sagemaker.tags import check_tags
from localcloud.sagemaker.values import given, now, refuse_others
from localcloud.service import Params

if TYPE_CHECKING:
    from localcloud.cloud import Cloud

_WHERE = "CreateModel"
_CONTAINER = ("ContainerHostname", "Image", "ImageConfig", "ModelDataUrl", "ModelDataSource", "Environment", "ModelPackageName", "Mode")


class ModelOperations(RegistryOperations):
    """CreateModel, DescribeModel, ListModels, DeleteModel."""

    def __init__(self, cloud: Cloud) -> None:
        super().__init__(cloud)
        self._models = cloud.db.table("sagemaker.models")

    def create_model(self, params: Params) -> Params:
        """Make a model of one container or one model package.

        Raises:
            ServiceError: There is one of that name, its data is not in S3, its role cannot be assumed, or it is not something that is served here.
        """
        refuse_others(params, ("ModelName", "PrimaryContainer", "Containers", "ExecutionRoleArn", "Tags", "VpcConfig"), _WHERE)
        check_tags(params.get("Tags"))
        container = _container(params)
        name = params["ModelName"]
        arn = self.arn("model", name)
        role = params.get("ExecutionRoleArn")
        if role is None:
            raise ServiceError("ValidationException", "ExecutionRoleArn is required to create a model")
        self.check_role(role, arn)
        served = self._served(container)
        self.check_model_data([served])
        with self._models.lock():
            if name in self._models:
                raise ServiceError("ValidationException", f'Cannot create already existing model "{arn}".')
            document = given(params, "ModelName", "PrimaryContainer", "Containers", "ExecutionRoleArn", "VpcConfig") | {
                "ModelArn": arn,
                "CreationTime": now(),
                "EnableNetworkIsolation": False,
                # As the package was: it may be deleted, and what is served from it goes on.
                "_container": served,
            }
            self._models.put(name, document)
            self.tags.create(arn, params.get("Tags"))
        self.emit("SageMaker Model State Change", _visible(document), arn)
        return {"ModelArn": arn}

    def describe_model(self, params: Params) -> Params:
        """Return a model."""
        return _visible(self.model(params["ModelName"]))

    def list_models(self, params: Params) -> Params:
        """Return a page of models."""
        found, token = list_page(self._models.values(), params, name="ModelName")
        return {"Models": [given(document, "ModelName", "ModelArn", "CreationTime") for document in found]} | token

    def delete_model(self, params: Params) -> None:
        """Delete a model; endpoints that serve it go on."""
        document = self.model(params["ModelName"])
        self._models.delete(document["ModelName"])
        self.emit("SageMaker Model State Change", _visible(document), document["ModelArn"])
        self.tags.delete(document["ModelArn"])

    def model(self, name: str) -> Document:
        """Return a model's document; "_container" is what is served, with a package's members resolved.

        Raises:
            ServiceError: There is no such model.
        """
        document = self._models.get(name)
        if document is None:
            raise ServiceError("ValidationException", f'Could not find model "{self.arn("model", name)}".')
        return document

    def _served(self, container: Params) -> Params:
        """Return the container with what its model package says."""
        package_name = container.get("ModelPackageName")
        if not package_name:
            return container
        package = self.model_package(package_name)
        containers = package["InferenceSpecification"]["Containers"]
        if len(containers) != 1:
            raise not_supported(f"{_WHERE}: a model package with {len(containers)} containers")
        [of_package] = containers
        environment = (of_package.get("Environment") or {}) | (container.get("Environment") or {})
        return given(of_package, "Image", "ModelDataUrl", "ModelDataSource") | {"Environment": environment}


def _container(params: Params) -> Params:
    """Return the model's one container, after the checks AWS makes of it."""
    primary, several = params.get("PrimaryContainer"), params.get("Containers")
    if bool(primary) == bool(several):
        raise ServiceError("ValidationException", "Exactly one of PrimaryContainer and Containers must be specified.")
    if several and len(several) > 1:
        raise not_supported(f"{_WHERE} with more than one container (an inference pipeline)")
    container: Params = primary or several[0]  # type: ignore[index]
    refuse_others(container, _CONTAINER, f"{_WHERE}: container")
    if container.get("Mode", "SingleModel") != "SingleModel":
        raise not_supported(f"{_WHERE}: container Mode {container['Mode']}")
    if not container.get("Image") and not container.get("ModelPackageName"):
        raise ServiceError("ValidationException", "Either Image or ModelPackageName must be specified for a container.")
    if container.get("ModelPackageName") and (container.get("Image") or container.get("ModelDataUrl") or container.get("ModelDataSource")):
        raise ServiceError("ValidationException", "Image and model data cannot be specified together with ModelPackageName.")
    if container.get("ModelDataUrl") and container.get("ModelDataSource"):
        raise ServiceError("ValidationException", "ModelDataUrl and ModelDataSource cannot be specified together.")
    source = (container.get("ModelDataSource") or {}).get("S3DataSource") or {}
    refuse_others(source, ("S3Uri", "S3DataType", "CompressionType"), f"{_WHERE}: ModelDataSource.S3DataSource")
    if source and (source["S3DataType"] == "S3Prefix") != (source["CompressionType"] == "None"):
        raise not_supported(
            f"{_WHERE}: ModelDataSource with S3DataType {source['S3DataType']} and CompressionType {source['CompressionType']}"
        )
    if source and source["S3DataType"] == "S3Prefix" and not source["S3Uri"].endswith("/"):
        raise ServiceError(
            "ValidationException", f"S3Uri {source['S3Uri']} of a ModelDataSource with S3DataType S3Prefix must end with '/'."
        )
    return container


def _visible(document: Document) -> Document:
    return {key: value for key, value in document.items() if not key.startswith("_")}
