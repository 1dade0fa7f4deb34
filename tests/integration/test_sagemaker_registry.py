"""The model registry: groups, versions, approvals, and the events that deployments hang on."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest

from helpers_errors import error_of
from helpers_sagemaker import BUCKET, IMAGE, Lab, make_lab

EVENT = "SageMaker Model Package State Change"


@pytest.fixture(scope="module")
def lab(region: Any) -> Iterator[Lab]:
    with pytest.MonkeyPatch.context() as patch:
        yield make_lab(region, patch)


@pytest.fixture
def group(lab: Lab) -> str:
    name = lab.name("Group")
    lab.sm.create_model_package_group(ModelPackageGroupName=name, ModelPackageGroupDescription="photos")
    return name


def specification(lab: Lab, key: str = "models/model.tar.gz") -> dict[str, Any]:
    return {
        "Containers": [{"Image": IMAGE, "ModelDataUrl": lab.put(key, b"model"), "Environment": {"A": "1"}}],
        "SupportedContentTypes": ["image/png"],
        "SupportedResponseMIMETypes": ["application/json"],
    }


def register(lab: Lab, group: str, **members: Any) -> str:
    arn: str = lab.sm.create_model_package(ModelPackageGroupName=group, InferenceSpecification=specification(lab), **members)[
        "ModelPackageArn"
    ]
    return arn


def test_a_version_keeps_everything_that_was_registered(lab: Lab, group: str) -> None:
    statistics = {"ContentType": "application/json", "S3Uri": f"s3://{BUCKET}/evaluation.json"}
    members: dict[str, Any] = {
        "ModelPackageDescription": "first",
        "ModelMetrics": {"ModelQuality": {"Statistics": statistics}},
        "DriftCheckBaselines": {"ModelDataQuality": {"Statistics": statistics}},
        "CustomerMetadataProperties": {"git_commit": "abc"},
        "Domain": "COMPUTER_VISION",
        "Task": "IMAGE_CLASSIFICATION",
        "SamplePayloadUrl": f"s3://{BUCKET}/payload.tar.gz",
        "MetadataProperties": {"GeneratedBy": "arn:aws:sagemaker:us-east-1:123456789012:pipeline/p/execution/e"},
        "SkipModelValidation": "All",
    }
    arn = register(lab, group, **members)
    assert arn == f"arn:aws:sagemaker:us-east-1:123456789012:model-package/{group}/1"
    described = lab.sm.describe_model_package(ModelPackageName=arn)
    assert {key: described[key] for key in members} == members
    assert (described["ModelPackageGroupName"], described["ModelPackageVersion"], described["ModelPackageArn"]) == (group, 1, arn)
    assert (described["ModelPackageStatus"], described["ModelApprovalStatus"]) == ("Completed", "PendingManualApproval")
    assert described["InferenceSpecification"]["Containers"][0]["Environment"] == {"A": "1"}


def test_versions_are_never_given_twice(lab: Lab, group: str) -> None:
    first, second = register(lab, group), register(lab, group)
    lab.sm.delete_model_package(ModelPackageName=second)
    third = register(lab, group)
    assert [arn.rpartition("/")[2] for arn in (first, second, third)] == ["1", "2", "3"]
    assert error_of(lambda: lab.sm.describe_model_package(ModelPackageName=second)) == (
        "ValidationException",
        f"ModelPackage {second} does not exist.",
    )
    listed = lab.sm.list_model_packages(ModelPackageGroupName=group)["ModelPackageSummaryList"]
    assert [summary["ModelPackageArn"] for summary in listed] == [first, third]


def test_an_approval_is_recorded_and_announced(lab: Lab, group: str) -> None:
    arn = register(lab, group, CustomerMetadataProperties={"a": "1"})
    lab.sm.update_model_package(ModelPackageArn=arn, ModelApprovalStatus="Approved", ApprovalDescription="good enough")
    described = lab.sm.describe_model_package(ModelPackageName=arn)
    assert (described["ModelApprovalStatus"], described["ApprovalDescription"]) == ("Approved", "good enough")
    assert described["CustomerMetadataProperties"] == {"a": "1"}
    assert described["LastModifiedTime"] >= described["CreationTime"]
    created, approved = lab.details(EVENT, ModelPackageArn=arn)
    assert created["ModelApprovalStatus"] == "PendingManualApproval"
    assert "UpdatedModelPackageFields" not in created
    assert approved["ModelApprovalStatus"] == "Approved"
    assert approved["UpdatedModelPackageFields"] == ["ModelApprovalStatus", "ApprovalDescription"]
    assert (approved["ModelPackageGroupName"], approved["ModelPackageVersion"], approved["ModelPackageStatus"]) == (group, 1, "Completed")
    assert approved["InferenceSpecification"]["Containers"][0]["Image"] == IMAGE
    # Unlike other events of SageMaker's, this one has times in ISO 8601.
    assert datetime.strptime(approved["CreationTime"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC) <= datetime.now(UTC)
    assert [resources for kind, detail, resources in lab.events if kind == EVENT and detail["ModelPackageArn"] == arn] == [[arn], [arn]]


def test_metadata_is_merged(lab: Lab, group: str) -> None:
    arn = register(lab, group, CustomerMetadataProperties={"a": "1", "b": "2"})
    lab.sm.update_model_package(
        ModelPackageArn=arn, CustomerMetadataProperties={"b": "3", "c": "4"}, CustomerMetadataPropertiesToRemove=["a", "none"]
    )
    assert lab.sm.describe_model_package(ModelPackageName=arn)["CustomerMetadataProperties"] == {"b": "3", "c": "4"}
    assert lab.details(EVENT, ModelPackageArn=arn)[-1]["UpdatedModelPackageFields"] == ["CustomerMetadataProperties"]
    too_many = {f"key{index}": "x" for index in range(50)}
    assert "at most 50" in error_of(lambda: lab.sm.update_model_package(ModelPackageArn=arn, CustomerMetadataProperties=too_many))[1]
    assert lab.sm.describe_model_package(ModelPackageName=arn)["CustomerMetadataProperties"] == {"b": "3", "c": "4"}


def test_lists_filter_sort_and_page(lab: Lab, group: str) -> None:
    arns = [register(lab, group) for _ in range(12)]
    for arn in arns[::4]:
        lab.sm.update_model_package(ModelPackageArn=arn, ModelApprovalStatus="Approved")
    pages = lab.sm.get_paginator("list_model_packages").paginate(ModelPackageGroupName=group, SortBy="CreationTime", SortOrder="Descending")
    assert [summary["ModelPackageArn"] for page in pages for summary in page["ModelPackageSummaryList"]] == arns[::-1]
    newest = lab.sm.list_model_packages(
        ModelPackageGroupName=group, ModelApprovalStatus="Approved", SortBy="CreationTime", SortOrder="Descending", MaxResults=1
    )
    assert [summary["ModelPackageArn"] for summary in newest["ModelPackageSummaryList"]] == [arns[8]]
    assert newest["NextToken"]
    by_arn = f"arn:aws:sagemaker:us-east-1:123456789012:model-package-group/{group}"
    assert len(lab.sm.list_model_packages(ModelPackageGroupName=by_arn, MaxResults=100)["ModelPackageSummaryList"]) == 12
    # AWS lists versions only when it is asked for them.
    assert lab.sm.list_model_packages()["ModelPackageSummaryList"] == []
    assert lab.sm.list_model_packages(ModelPackageType="Versioned", NameContains=group)["ModelPackageSummaryList"]


def test_a_client_token_registers_once(lab: Lab, group: str) -> None:
    assert (
        register(lab, group, ClientToken="token-1")
        == register(lab, group, ClientToken="token-1")
        != register(lab, group, ClientToken="token-2")
    )


def test_model_data_must_be_in_s3(lab: Lab, group: str) -> None:
    missing = specification(lab)
    missing["Containers"][0]["ModelDataUrl"] = f"s3://{BUCKET}/none.tar.gz"
    assert error_of(lambda: lab.sm.create_model_package(ModelPackageGroupName=group, InferenceSpecification=missing)) == (
        "ValidationException",
        f"Could not find model data at s3://{BUCKET}/none.tar.gz.",
    )


def test_groups_are_made_described_listed_and_deleted_when_empty(lab: Lab, group: str) -> None:
    arn = f"arn:aws:sagemaker:us-east-1:123456789012:model-package-group/{group}"
    described = lab.sm.describe_model_package_group(ModelPackageGroupName=group)
    assert (described["ModelPackageGroupArn"], described["ModelPackageGroupStatus"], described["ModelPackageGroupDescription"]) == (
        arn,
        "Completed",
        "photos",
    )
    assert error_of(lambda: lab.sm.create_model_package_group(ModelPackageGroupName=group)) == (
        "ValidationException",
        f"Model Package Group already exists: {arn}",
    )
    assert group in [
        item["ModelPackageGroupName"] for item in lab.sm.list_model_package_groups(NameContains=group)["ModelPackageGroupSummaryList"]
    ]
    package = register(lab, group)
    assert error_of(lambda: lab.sm.delete_model_package_group(ModelPackageGroupName=group))[0] == "ConflictException"
    lab.sm.delete_model_package(ModelPackageName=package)
    lab.sm.delete_model_package_group(ModelPackageGroupName=group)
    for call in (lab.sm.describe_model_package_group, lab.sm.delete_model_package_group):
        assert error_of(partial(call, ModelPackageGroupName=group)) == ("ValidationException", f"ModelPackageGroup {arn} does not exist.")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ModelPackageGroupName": "nobody"}, "model-package-group/nobody does not exist."),
        ({"ModelPackageGroupName": None, "ModelPackageName": "single"}, "ModelPackageName is not supported by localcloud"),
        ({"Tags": [{"Key": "a", "Value": "b"}]}, "it uses the tags of its ModelPackageGroup"),
        ({"CertifyForMarketplace": True}, "CertifyForMarketplace is not supported by localcloud"),
        ({"InferenceSpecification": None}, "without InferenceSpecification is not supported"),
    ],
)
def test_what_is_not_kept_is_refused(lab: Lab, group: str, change: dict[str, Any], message: str) -> None:
    request = {"ModelPackageGroupName": group, "InferenceSpecification": specification(lab)} | change
    given = {key: value for key, value in request.items() if value is not None}
    code, text = error_of(lambda: lab.sm.create_model_package(**given))
    assert code == "ValidationException"
    assert message in text


@pytest.mark.parametrize("operation", ["search", "list_artifacts", "list_trial_components", "list_transform_jobs"])
def test_operations_that_are_not_there_are_refused_at_once(lab: Lab, operation: str) -> None:
    arguments = {"Resource": "ModelPackage"} if operation == "search" else {}
    code, message = error_of(lambda: getattr(lab.sm, operation)(**arguments))
    assert code == "ValidationException"
    assert message.endswith("is not supported by localcloud")
