"""Deploying the platform: two steps in a fresh account, nothing the second time, and reasons when it fails."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from botocore.response import StreamingBody

from helpers_aws import ACCOUNT, REGION, AwsError, fake_client
from infrastructure.deploy import PlatformParameters, ServingMode, deploy_platform, refresh_inference
from infrastructure.packaging import PLATFORM_TEMPLATE, build_assets
from infrastructure.templates import Template, template_body
from lambdas.deploy_inference_workflow import stacks
from lambdas.deploy_inference_workflow.errors import DeploymentError, DeploymentFailedError, DeploymentInProgressError
from lambdas.deploy_inference_workflow.handler import PackageChange

BUCKET = "scones-dev-123456789012-us-east-2"
STACK_ID = f"arn:aws:cloudformation:{REGION}:{ACCOUNT}:stack/scones-platform/1"
PACKAGE = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:model-package/scones-vehicle-classifier/3"


class FakeRegion:
    """CloudFormation with the platform stack, and S3 with the bucket that it makes; stands in for a boto3 session."""

    def __init__(self) -> None:
        self.status: str | None = None
        self.parameters: dict[str, str] = {}
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.objects: dict[str, bytes] = {}
        self.fails_with: str | None = None
        self.hangs = False
        self.inference_status: str | None = None
        self.invoked: list[dict[str, Any]] = []
        self.function_answer: dict[str, Any] = {}
        self.function_error: str | None = None

    def client(self, service: str, **_: Any) -> Any:
        return {
            "cloudformation": lambda: fake_client(
                "cloudformation",
                DescribeStacks=self._describe,
                CreateStack=lambda params: self._change("CREATE", params),
                UpdateStack=lambda params: self._change("UPDATE", params),
                DescribeStackEvents=self._events,
            ),
            "s3": lambda: fake_client("s3", HeadObject=self._head, PutObject=self._put, GetBucketTagging=self._no_bucket),
            "sagemaker": lambda: fake_client("sagemaker", DescribeModelPackageGroup=self._no_group),
            "sts": lambda: fake_client("sts", GetCallerIdentity=lambda params: {"Account": ACCOUNT}),
            "lambda": lambda: fake_client("lambda", Invoke=self._invoke),
        }[service]()

    def _no_bucket(self, params: dict[str, Any]) -> dict[str, Any]:
        raise AwsError("NoSuchBucket", "The specified bucket does not exist")

    def _no_group(self, params: dict[str, Any]) -> dict[str, Any]:
        raise AwsError("ValidationException", "ModelPackageGroup arn:aws:sagemaker:... does not exist.")

    def _describe(self, params: dict[str, Any]) -> dict[str, Any]:
        status, parameters = self.status, self.parameters
        if params["StackName"] == "scones-inference":
            status, parameters = self.inference_status, {"ModelPackageArn": PACKAGE, "DecidedAt": "2021-02-24T17:00:14+00:00"}
        if status is None:
            raise AwsError("ValidationError", f"Stack with id {params['StackName']} does not exist")
        stack = {
            "StackId": STACK_ID,
            "StackName": params["StackName"],
            "StackStatus": status,
            "CreationTime": "2021-02-24T16:00:00Z",
            "Parameters": [{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()],
            "Outputs": [{"OutputKey": key, "OutputValue": value} for key, value in self._outputs().items()],
        }
        if self.status and self.status.endswith("_IN_PROGRESS") and not self.hangs:
            operation = self.status.removesuffix("_IN_PROGRESS")
            rolled_back = {"CREATE": "ROLLBACK_COMPLETE", "UPDATE": "UPDATE_ROLLBACK_COMPLETE"}
            self.status = rolled_back[operation] if self.fails_with else f"{operation}_COMPLETE"
        return {"Stacks": [stack]}

    def _outputs(self) -> dict[str, str]:
        names = [
            "PipelineRoleArn",
            "JobRoleArn",
            "ModelRoleArn",
            "ModelPackageGroupName",
            "DeploymentRoleArn",
            "EventDeadLetterQueueUrl",
            "NotificationTopicArn",
        ]
        outputs = {"ArtifactBucketName": BUCKET} | {name: name.lower() for name in names}
        if self.parameters.get("DeployInferenceWorkflowCodeKey"):
            outputs |= {"DeployFunctionName": "deploy", "ApprovalRuleName": "rule"}
        return outputs

    def _change(self, operation: str, params: dict[str, Any]) -> dict[str, Any]:
        parameters = {item["ParameterKey"]: item["ParameterValue"] for item in params["Parameters"]}
        if operation == "UPDATE" and parameters == self.parameters:
            raise AwsError("ValidationError", "No updates are to be performed.")
        assert all(key in self.objects for name, key in parameters.items() if name.endswith("Key")), (
            "code must be there before its function"
        )
        self.requests.append((operation, params))
        self.parameters, self.status = parameters, f"{operation}_IN_PROGRESS"
        return {"StackId": STACK_ID}

    def _events(self, params: dict[str, Any]) -> dict[str, Any]:
        event = {
            "StackId": STACK_ID,
            "EventId": "1",
            "StackName": "scones-platform",
            "LogicalResourceId": "ArtifactBucket",
            "PhysicalResourceId": "",
            "ResourceType": "AWS::S3::Bucket",
            "Timestamp": "2021-02-24T16:00:00Z",
            "ResourceStatus": "CREATE_FAILED",
            "ResourceStatusReason": self.fails_with,
        }
        return {"StackEvents": [event]}

    def _head(self, params: dict[str, Any]) -> dict[str, Any]:
        assert params["Bucket"] == BUCKET
        if params["Key"] not in self.objects:
            raise AwsError("404", "Not Found", 404)
        return {}

    def _put(self, params: dict[str, Any]) -> dict[str, Any]:
        assert params["Bucket"] == BUCKET
        self.objects[params["Key"]] = params["Body"]
        return {}

    def _invoke(self, params: dict[str, Any]) -> dict[str, Any]:
        self.invoked.append({"name": params["FunctionName"], "event": json.loads(params["Payload"])})
        payload = json.dumps(self.function_answer).encode()
        answer: dict[str, Any] = {"StatusCode": 200, "Payload": StreamingBody(io.BytesIO(payload), len(payload))}
        return answer | ({"FunctionError": self.function_error} if self.function_error else {})


@pytest.fixture
def region(monkeypatch: pytest.MonkeyPatch) -> FakeRegion:
    monkeypatch.setattr(stacks, "FIRST_POLL_SECONDS", 0.0)
    return FakeRegion()


def test_a_fresh_account_gets_the_bucket_then_the_code_then_the_functions(region: FakeRegion) -> None:
    lines: list[str] = []
    outputs = deploy_platform(region, on_progress=lines.append)
    assert [operation for operation, _ in region.requests] == ["CREATE", "UPDATE"]
    assert sorted(outputs.uploaded_keys) == sorted(asset.key for asset in build_assets())
    assert (outputs.change, outputs.artifact_bucket_name, outputs.deploy_function_name) == (stacks.Change.CREATED, BUCKET, "deploy")
    (_, first), (_, second) = region.requests
    assert first["Capabilities"] == second["Capabilities"] == ["CAPABILITY_IAM"]
    assert set(Template.parse(first["TemplateBody"]).resources) == {"ArtifactBucket", "ArtifactBucketPolicy", "ModelPackageGroup"}
    assert second["TemplateBody"] == template_body(PLATFORM_TEMPLATE)
    assert "stack scones-platform: CREATE_IN_PROGRESS" in lines


def test_deploying_again_changes_and_uploads_nothing(region: FakeRegion) -> None:
    deploy_platform(region)
    region.requests.clear()
    outputs = deploy_platform(region)
    assert (outputs.change, outputs.uploaded_keys, region.requests) == (stacks.Change.UNCHANGED, (), [])


def test_what_an_operator_changes_reaches_the_stack(region: FakeRegion) -> None:
    deploy_platform(region)
    region.requests.clear()
    changed = PlatformParameters(serving_mode=ServingMode.INSTANCE, confidence_threshold=0.8, serverless_memory_in_mb=4096)
    assert deploy_platform(region, changed).change is stacks.Change.UPDATED
    assert len(region.requests) == 1
    assert (region.parameters["ServingMode"], region.parameters["ConfidenceThreshold"]) == ("instance", "0.8")
    assert region.parameters["ServerlessMemoryInMB"] == "4096"


def test_a_failure_says_which_resource_and_why(region: FakeRegion) -> None:
    region.fails_with = f"{BUCKET} already exists"
    with pytest.raises(DeploymentFailedError, match=rf"ROLLBACK_COMPLETE: ArtifactBucket \(AWS::S3::Bucket\): {BUCKET} already exists"):
        deploy_platform(region)
    assert not region.objects


def test_it_does_not_wait_longer_than_it_was_told(region: FakeRegion) -> None:
    region.hangs = True
    with pytest.raises(DeploymentInProgressError, match="CREATE_IN_PROGRESS"):
        deploy_platform(region, timeout_seconds=0.0)


def test_the_deployment_of_somebody_else_is_waited_for(region: FakeRegion) -> None:
    deploy_platform(region)
    region.status = "UPDATE_IN_PROGRESS"
    assert deploy_platform(region).change is stacks.Change.UNCHANGED


def test_refreshing_without_an_inference_stack_does_nothing(region: FakeRegion) -> None:
    outputs = deploy_platform(region)
    assert refresh_inference(region, outputs) is None
    region.inference_status = "ROLLBACK_COMPLETE"
    assert refresh_inference(region, outputs) is None
    assert not region.invoked


def test_refreshing_repeats_the_decision_for_the_version_in_production(region: FakeRegion) -> None:
    outputs = deploy_platform(region)
    region.inference_status, region.function_answer = "CREATE_COMPLETE", {"outcome": "updated"}
    assert refresh_inference(region, outputs) == "updated"
    (invocation,) = region.invoked
    assert invocation["name"] == "deploy"
    assert invocation["event"]["detail"]["ModelPackageArn"] == PACKAGE
    change = PackageChange.parse(invocation["event"])
    assert change.decided_at.isoformat() == "2021-02-24T17:00:14+00:00"
    assert change.reason_to_ignore("scones-vehicle-classifier", ACCOUNT, REGION) is None


def test_a_refresh_that_fails_says_why(region: FakeRegion) -> None:
    outputs = deploy_platform(region)
    region.inference_status, region.function_error = "CREATE_COMPLETE", "Unhandled"
    region.function_answer = {"errorType": "DeploymentFailedError", "errorMessage": "the endpoint failed"}
    with pytest.raises(DeploymentError, match="DeploymentFailedError: the endpoint failed"):
        refresh_inference(region, outputs)
