"""The model registry: model package groups and their versions."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from localcloud.database import Document
from localcloud.errors import ServiceError, not_supported
from localcloud.object_store import ObjectNotFound, parse_s3_uri
from localcloud.sagemaker.base import SageMakerBase
from localcloud.sagemaker.listing import list_page
from localcloud.sagemaker.tags import check_tags
from localcloud.sagemaker.values import given, now, refuse_others
from localcloud.service import Params

if TYPE_CHECKING:
    from localcloud.cloud import Cloud

_CREATE = (
    "ModelPackageGroupName", "ModelPackageDescription", "ModelPackageRegistrationType", "InferenceSpecification", "ModelApprovalStatus",
    "MetadataProperties", "ModelMetrics", "Domain", "Task", "SamplePayloadUrl", "CustomerMetadataProperties", "DriftCheckBaselines",
    "AdditionalInferenceSpecifications", "SkipModelValidation", "SourceUri", "SecurityConfig", "ModelCard", "ModelLifeCycle",
)  # fmt: skip
_UPDATE = (
    "ModelApprovalStatus", "ModelPackageRegistrationType", "ApprovalDescription", "InferenceSpecification", "SourceUri", "ModelCard", "ModelLifeCycle",
)  # fmt: skip
#: Most key-value pairs in CustomerMetadataProperties (API reference).
_MAX_METADATA = 50


class RegistryOperations(SageMakerBase):
    """Create, Describe, List, Update and Delete of ModelPackageGroup and ModelPackage."""

    def __init__(self, cloud: Cloud) -> None:
        super().__init__(cloud)
        self._groups = cloud.db.table("sagemaker.model_package_groups")
        self._packages = cloud.db.table("sagemaker.model_packages")

    # Groups.

    def create_model_package_group(self, params: Params) -> Params:
        """Make a group.

        Raises:
            ServiceError: There is one of that name.
        """
        refuse_others(params, ("ModelPackageGroupName", "ModelPackageGroupDescription", "Tags"), "CreateModelPackageGroup")
        check_tags(params.get("Tags"))
        name = params["ModelPackageGroupName"]
        arn = self._group_arn(name)
        with self._groups.lock():
            if name in self._groups:
                raise ServiceError("ValidationException", f"Model Package Group already exists: {arn}")
            document = given(params, "ModelPackageGroupName", "ModelPackageGroupDescription") | {
                "ModelPackageGroupArn": arn,
                "CreationTime": now(),
                "CreatedBy": {},
                "ModelPackageGroupStatus": "Completed",
                "_last_version": 0,
            }
            self._groups.put(name, document)
            self.tags.create(arn, params.get("Tags"))
        return {"ModelPackageGroupArn": arn}

    def describe_model_package_group(self, params: Params) -> Params:
        """Return a group."""
        return _visible(self._group(params["ModelPackageGroupName"]))

    def list_model_package_groups(self, params: Params) -> Params:
        """Return a page of groups."""
        refuse_others(params, {*params} - {"CrossAccountFilterOption"}, "ListModelPackageGroups")
        found, token = list_page(self._groups.values(), params, name="ModelPackageGroupName", default_order="Ascending")
        members = (
            "ModelPackageGroupName",
            "ModelPackageGroupArn",
            "ModelPackageGroupDescription",
            "CreationTime",
            "ModelPackageGroupStatus",
        )
        return {"ModelPackageGroupSummaryList": [given(document, *members) for document in found]} | token

    def delete_model_package_group(self, params: Params) -> None:
        """Delete a group that has no versions.

        Raises:
            ServiceError: It has some, or does not exist.
        """
        with self._groups.lock():
            group = self._group(params["ModelPackageGroupName"])
            name, arn = group["ModelPackageGroupName"], group["ModelPackageGroupArn"]
            if any(package["ModelPackageGroupName"] == name for package in self._packages.values()):
                raise ServiceError("ConflictException", f"Model Package Group {arn} cannot be deleted: delete its model packages first.")
            self._groups.delete(name)
            self.tags.delete(arn)

    # Packages.

    def create_model_package(self, params: Params) -> Params:
        """Register the next version in a group.

        Raises:
            ServiceError: There is no such group, or no such model data in S3.
        """
        _check_create(params)
        specification = params["InferenceSpecification"]
        self.check_model_data(specification["Containers"])
        with self._groups.lock():
            group = self._group(params["ModelPackageGroupName"])
            token = params.get("ClientToken")
            for package in self._packages.values() if token else ():
                if package.get("_token") == token:
                    return {"ModelPackageArn": package["ModelPackageArn"]}
            name = group["ModelPackageGroupName"]
            # A version that was deleted is never given again.
            version = group["_last_version"] + 1
            arn = self.cloud.arn("sagemaker", f"model-package/{name}/{version}")
            moment = now()
            document = given(params, *_CREATE) | {
                "ModelPackageGroupName": name,
                "ModelPackageVersion": version,
                "ModelPackageArn": arn,
                "ModelPackageStatus": "Completed",
                "ModelPackageStatusDetails": {"ValidationStatuses": [], "ImageScanStatuses": []},
                "ModelApprovalStatus": params.get("ModelApprovalStatus", "PendingManualApproval"),
                "CertifyForMarketplace": False,
                "CreationTime": moment,
                "LastModifiedTime": moment,
                "CreatedBy": {},
                "_order": f"{name}/{version:08d}",
                "_token": token,
            }
            self._groups.update(name, _last_version=version)
            self._packages.put(arn, document)
        self._announce(document)
        return {"ModelPackageArn": arn}

    def describe_model_package(self, params: Params) -> Params:
        """Return a version, by its ARN."""
        return _visible(self.model_package(params["ModelPackageName"]))

    def list_model_packages(self, params: Params) -> Params:
        """Return a page of versions."""
        wanted_group = params.get("ModelPackageGroupName")
        group = self._group(wanted_group)["ModelPackageGroupName"] if wanted_group else None
        if group is None and params.get("ModelPackageType", "Unversioned") == "Unversioned":
            # AWS's default without a group; versions are all that there is here.
            return {"ModelPackageSummaryList": []}
        approval = params.get("ModelApprovalStatus")
        documents = [
            package
            for package in self._packages.values()
            if group in (None, package["ModelPackageGroupName"]) and approval in (None, package["ModelApprovalStatus"])
        ]
        found, token = list_page(documents, params, name="_order", default_order="Ascending")
        members = (
            "ModelPackageGroupName", "ModelPackageVersion", "ModelPackageArn", "ModelPackageDescription", "CreationTime", "ModelPackageStatus",
            "ModelApprovalStatus", "ModelLifeCycle", "ModelPackageRegistrationType",
        )  # fmt: skip
        return {"ModelPackageSummaryList": [given(document, *members) for document in found]} | token

    def update_model_package(self, params: Params) -> Params:
        """Change a version: its approval, its metadata (merged), its specification.

        Raises:
            ServiceError: There is no such version, or too much metadata.
        """
        arn = params["ModelPackageArn"]
        if params.get("InferenceSpecification"):
            self.check_model_data(params["InferenceSpecification"]["Containers"])
        with self._packages.lock():
            package = self.model_package(arn)
            changes: Document = given(params, *_UPDATE)
            updated = list(changes)
            if params.get("CustomerMetadataProperties") or params.get("CustomerMetadataPropertiesToRemove"):
                metadata = (package.get("CustomerMetadataProperties") or {}) | (params.get("CustomerMetadataProperties") or {})
                for key in params.get("CustomerMetadataPropertiesToRemove") or []:
                    metadata.pop(key, None)
                if len(metadata) > _MAX_METADATA:
                    raise ServiceError(
                        "ValidationException",
                        f"CustomerMetadataProperties can have at most {_MAX_METADATA} entries, this would be {len(metadata)}.",
                    )
                changes["CustomerMetadataProperties"] = metadata
                updated.append("CustomerMetadataProperties")
            additional = params.get("AdditionalInferenceSpecificationsToAdd")
            if additional:
                changes["AdditionalInferenceSpecifications"] = [*package.get("AdditionalInferenceSpecifications", []), *additional]
                updated.append("AdditionalInferenceSpecifications")
            document = self._packages.update(arn, **changes, LastModifiedTime=now(), LastModifiedBy={})
        self._announce(document, updated)
        return {"ModelPackageArn": arn}

    def delete_model_package(self, params: Params) -> None:
        """Delete a version; what was deployed from it goes on serving."""
        self._packages.delete(self.model_package(params["ModelPackageName"])["ModelPackageArn"])

    # For other operations.

    def model_package(self, arn: str) -> Document:
        """Return a version's document.

        Raises:
            ServiceError: There is no such version.
        """
        package = self._packages.get(arn)
        if package is None:
            shown = arn if arn.startswith("arn:") else self.cloud.arn("sagemaker", f"model-package/{arn}")
            raise ServiceError("ValidationException", f"ModelPackage {shown} does not exist.")
        return package

    def check_model_data(self, containers: Iterable[Params]) -> None:
        """Refuse containers whose model data is not in S3, as AWS does when a package or a model is made.

        Raises:
            ServiceError: With AWS's text.
        """
        for container in containers:
            for uri in filter(None, [container.get("ModelDataUrl"), _data_source_uri(container)]):
                if not self._has_objects(uri):
                    raise ServiceError("ValidationException", f"Could not find model data at {uri}.")

    def _has_objects(self, uri: str) -> bool:
        try:
            bucket, key = parse_s3_uri(uri)
            return any(found == key or key.endswith("/") or found.startswith(f"{key}/") for found in self.cloud.objects.keys(bucket, key))
        except ObjectNotFound:
            return False

    def _group_arn(self, name: str) -> str:
        return self.cloud.arn("sagemaker", f"model-package-group/{name}")

    def _group(self, name_or_arn: str) -> Document:
        name = name_or_arn.rpartition("/")[2] if name_or_arn.startswith("arn:") else name_or_arn
        group = self._groups.get(name)
        if group is None:
            raise ServiceError("ValidationException", f"ModelPackageGroup {self._group_arn(name)} does not exist.")
        return group

    def _announce(self, package: Document, updated: list[str] | None = None) -> None:
        """Emit the event of a new or changed version; unlike its siblings it has times in ISO 8601 and no tags."""
        detail = {key: value for key, value in _iso(_visible(package)).items() if key not in ("CreatedBy", "LastModifiedBy")}
        if updated is not None:
            detail["UpdatedModelPackageFields"] = updated
        self.cloud.emit("aws.sagemaker", "SageMaker Model Package State Change", detail, [package["ModelPackageArn"]])


def _check_create(params: Params) -> None:
    where = "CreateModelPackage"
    refuse_others(params, (*_CREATE, "ClientToken", "Tags"), where)
    if not params.get("ModelPackageGroupName"):
        raise ServiceError(
            "ValidationException",
            "One of ModelPackageGroupName or ModelPackageName must be given; localcloud keeps versions in groups only.",
        )
    if params.get("Tags"):
        raise ServiceError(
            "ValidationException", "Tags cannot be given for a model package in a group; it uses the tags of its ModelPackageGroup."
        )
    if not params.get("InferenceSpecification"):
        raise not_supported(f"{where} without InferenceSpecification")


def _data_source_uri(container: Params) -> str | None:
    source = (container.get("ModelDataSource") or {}).get("S3DataSource") or {}
    uri: str | None = source.get("S3Uri")
    return uri


def _visible(document: Document) -> Document:
    return {key: value for key, value in document.items() if not key.startswith("_")}


def _iso(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    if isinstance(value, dict):
        return {key: _iso(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_iso(item) for item in value]
    return value
