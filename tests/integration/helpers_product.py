"""The platform on a region, and short ways to do to it what people and pipelines do."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from typing import Any

from helpers_sagemaker import IMAGE, tar_gz
from infrastructure.deploy import PlatformOutputs, PlatformParameters, deploy_platform
from pipelines.sample_payload import sample_payload

ACCOUNT, REGION = "123456789012", "us-east-1"
GROUP = "scones-vehicle-classifier"
STACK = "scones-inference"

#: A model that is as sure as it is told to be, and says no more than the contract asks for.
GOOD = """
import json

def model_fn(model_dir):
    return json.load(open(f"{model_dir}/answer.json"))

def transform_fn(model, body, content_type, accept):
    assert body[:4] == b"\\x89PNG", "not the photo that was sent"
    return json.dumps(model), "application/json"
"""
ANSWER = {"inferences": [0.9, 0.1], "labels": ["bicycle", "motorcycle"], "predicted_label": "bicycle", "confidence": 0.9}


class Product:
    """The platform stack on a region.

    Attributes:
        outputs: What `deploy_platform` returned.
    """

    def __init__(self, region: Any, poll: Callable[..., Any]) -> None:
        self.region = region
        self._poll = poll
        self.outputs: PlatformOutputs
        self.told_url = ""
        self._told: list[str] = []
        self._before: tuple[Any, ...] = ()

    def client(self, service: str, **_: Any) -> Any:
        """Return a boto3 client, as a session does."""
        return self.region.client(service)

    def wait(self, condition: Callable[[], Any]) -> Any:
        """Wait until something holds."""
        return self._poll(condition)

    def deploy(self, **parameters: Any) -> PlatformOutputs:
        """Deploy the platform with these parameters."""
        self.outputs = deploy_platform(self, PlatformParameters(**parameters))
        return self.outputs

    def listen(self) -> None:
        """Subscribe a queue to the notifications."""
        sqs = self.client("sqs")
        self.told_url = sqs.create_queue(QueueName="told")["QueueUrl"]
        arn = sqs.get_queue_attributes(QueueUrl=self.told_url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        self.client("sns").subscribe(TopicArn=self.outputs.notification_topic_arn, Protocol="sqs", Endpoint=arn)

    def told(self, *words: str) -> str:
        """Wait for the notification with these words, and return it."""

        def find() -> str | None:
            messages = self.client("sqs").receive_message(QueueUrl=self.told_url, MaxNumberOfMessages=10).get("Messages", [])
            for message in messages:
                self.client("sqs").delete_message(QueueUrl=self.told_url, ReceiptHandle=message["ReceiptHandle"])
                self._told.append(json.loads(message["Body"])["Message"])
            return next((text for text in self._told if all(word in text for word in words)), None)

        try:
            found = str(self._poll(find))
        except AssertionError as error:
            raise AssertionError(f"nobody was told of {words}, but of {self._told}") from error
        self._told.remove(found)
        return found

    def register(self, script: str = GOOD, answer: object = None) -> str:
        """Register a model version as the pipeline does, and return its ARN."""
        s3, bucket = self.client("s3"), self.outputs.artifact_bucket_name
        packages = self.client("sagemaker").list_model_packages(ModelPackageGroupName=GROUP)["ModelPackageSummaryList"]
        key = f"runs/test/{len(packages)}/model.tar.gz"
        files = {"code/inference.py": script.encode(), "answer.json": json.dumps(ANSWER if answer is None else answer).encode()}
        s3.put_object(Bucket=bucket, Key=key, Body=tar_gz(files))
        payload = sample_payload().files["sample_payload.tar.gz"]
        s3.put_object(Bucket=bucket, Key="code/sample/sample_payload.tar.gz", Body=payload)
        package = self.client("sagemaker").create_model_package(
            ModelPackageGroupName=GROUP,
            ModelApprovalStatus="PendingManualApproval",
            SamplePayloadUrl=f"s3://{bucket}/code/sample/sample_payload.tar.gz",
            Domain="COMPUTER_VISION",
            Task="IMAGE_CLASSIFICATION",
            InferenceSpecification={
                "Containers": [
                    {"Image": IMAGE, "ModelDataUrl": f"s3://{bucket}/{key}", "Environment": {"SAGEMAKER_PROGRAM": "inference.py"}}
                ],
                "SupportedContentTypes": ["image/png"],
                "SupportedResponseMIMETypes": ["application/json"],
            },
        )
        arn: str = package["ModelPackageArn"]
        return arn

    def decide(self, arn: str, status: str = "Approved") -> None:
        """Approve or reject a version."""
        self._before = self._operation(self.stack())
        self.client("sagemaker").update_model_package(ModelPackageArn=arn, ModelApprovalStatus=status)

    def stack(self) -> dict[str, Any]:
        """Return the inference stack, with its parameters and outputs as mappings; empty when there is none."""
        stacks = [stack for stack in self.client("cloudformation").describe_stacks()["Stacks"] if stack["StackName"] == STACK]
        if not stacks:
            return {}
        (stack,) = stacks
        parameters = {item["ParameterKey"]: item["ParameterValue"] for item in stack.get("Parameters", ())}
        outputs = {item["OutputKey"]: item["OutputValue"] for item in stack.get("Outputs", ())}
        return {**stack, "Parameters": parameters, "Outputs": outputs}

    @staticmethod
    def _operation(stack: dict[str, Any]) -> tuple[Any, ...]:
        return tuple(stack.get(name) for name in ("StackId", "LastUpdatedTime"))

    def settled(self, status: str, arn: str | None = None) -> dict[str, Any]:
        """Wait until what the last decision set off is over, with the stack in a status and a version in production; return the stack."""

        def settled() -> dict[str, Any] | None:
            stack = self.stack()
            if not stack or stack["StackStatus"].endswith("_IN_PROGRESS") or self._operation(stack) == self._before:
                return None
            return stack if stack["StackStatus"] == status and arn in (None, stack["Parameters"]["ModelPackageArn"]) else None

        try:
            return dict(self._poll(settled))
        except AssertionError as error:
            raise AssertionError(f"{self.stack().get('StackStatus')}: {self.reasons()}") from error

    def reasons(self) -> list[str]:
        """Return what CloudFormation said of resources that failed, newest first."""
        stack = self.stack()
        if not stack:
            return []
        events = self.client("cloudformation").describe_stack_events(StackName=stack["StackId"])["StackEvents"]
        return [
            f"{event['LogicalResourceId']}: {event.get('ResourceStatusReason', '')}"
            for event in events
            if event["ResourceStatus"].endswith("_FAILED")
        ]

    def classify(self, **more: Any) -> dict[str, Any]:
        """Classify a photo through the deployed workflow, and return the execution's result."""
        bucket = self.outputs.artifact_bucket_name
        with tarfile.open(fileobj=io.BytesIO(sample_payload().files["sample_payload.tar.gz"])) as archive:
            photo = archive.extractfile("sample.png")
            assert photo is not None
            self.client("s3").put_object(Bucket=bucket, Key="inbox/photo.png", Body=photo.read())
        states, machine = self.client("stepfunctions"), self.stack()["Outputs"]["StateMachineArn"]
        request = {"s3_bucket": bucket, "s3_key": "inbox/photo.png", **more}
        arn = states.start_execution(stateMachineArn=machine, input=json.dumps(request))["executionArn"]
        execution = self._poll(lambda: (found := states.describe_execution(executionArn=arn))["status"] != "RUNNING" and found)
        assert execution["status"] == "SUCCEEDED", execution
        result: dict[str, Any] = json.loads(execution["output"])
        return result

    def log(self, group: str) -> list[str]:
        """Return the lines of a log group."""
        return [event["message"] for event in self.client("logs").filter_log_events(logGroupName=group)["events"]]

    def dead_letters(self) -> list[dict[str, Any]]:
        """Return the messages in the dead-letter queue, oldest first, and leave them there."""
        request = {"MaxNumberOfMessages": 10, "VisibilityTimeout": 0, "MessageAttributeNames": ["All"], "AttributeNames": ["SentTimestamp"]}
        messages = self.client("sqs").receive_message(QueueUrl=self.outputs.event_dead_letter_queue_url, **request).get("Messages", [])
        return sorted(messages, key=lambda message: int(message["Attributes"]["SentTimestamp"]))
