"""A region with a role and a bucket, and short ways to run jobs and endpoints in it."""

from __future__ import annotations

import io
import itertools
import json
import tarfile
from collections.abc import Mapping
from typing import Any

import pytest

from helpers_roles import mighty_role
from localcloud.sagemaker.jobs import JobKind

BUCKET = "sagemaker-tests"
IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/image:1"
TRUST = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": {"Service": "sagemaker.amazonaws.com"}, "Action": "sts:AssumeRole"}],
}
CLUSTER = {"InstanceCount": 1, "InstanceType": "ml.m5.large", "VolumeSizeInGB": 1}
#: Seconds within which anything here ends, even on a busy machine.
PATIENCE = 60.0


class Lab:
    """What a test of SageMaker needs of a region.

    Attributes:
        sm, s3, logs: boto3 clients.
        service: The SageMaker service inside the process.
        role: The ARN of a role that SageMaker can assume.
        events: Details of the ``aws.sagemaker`` events so far, as (detail type, detail, resources).
    """

    def __init__(self, region: Any) -> None:
        self.region = region
        self.service = region.cloud.services["sagemaker"]
        self.sm, self.s3, self.logs, self.runtime = (region.client(name) for name in ("sagemaker", "s3", "logs", "sagemaker-runtime"))
        self.role: str = mighty_role(region.client("iam"), "sagemaker", TRUST)
        self.s3.create_bucket(Bucket=BUCKET)
        self.events: list[tuple[str, dict[str, Any], list[str]]] = []
        self._numbers = itertools.count(1)

    def record(self, source: str, detail_type: str, detail: dict[str, Any], resources: list[str] | None = None) -> None:
        """Stand in for `Cloud.emit`."""
        if source == "aws.sagemaker":
            self.events.append((detail_type, json.loads(json.dumps(detail)), resources or []))

    def details(self, detail_type: str, **members: Any) -> list[dict[str, Any]]:
        """Return the details of the events of one type that have these members."""
        return [detail for kind, detail, _ in self.events if kind == detail_type and members.items() <= detail.items()]

    def name(self, what: str) -> str:
        """Return a name that is not taken."""
        return f"{what}-{next(self._numbers)}"

    def put(self, key: str, body: bytes | str) -> str:
        """Put an object; return its URI."""
        self.s3.put_object(Bucket=BUCKET, Key=key, Body=body)
        return f"s3://{BUCKET}/{key}"

    def objects(self, prefix: str) -> dict[str, bytes]:
        """Return the objects below a prefix, by the rest of their keys."""
        listed = self.s3.list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", [])
        return {item["Key"].removeprefix(prefix): self.s3.get_object(Bucket=BUCKET, Key=item["Key"])["Body"].read() for item in listed}

    def lines(self, group: str, job: str) -> list[str]:
        """Return what a job or endpoint logged; nothing while the group has yet to be made."""
        if not self.logs.describe_log_groups(logGroupNamePrefix=group)["logGroups"]:
            return []
        streams = self.logs.describe_log_streams(logGroupName=group, logStreamNamePrefix=job)["logStreams"]
        return [
            event["message"]
            for stream in streams
            for event in self.logs.get_log_events(logGroupName=group, logStreamName=stream["logStreamName"], startFromHead=True)["events"]
        ]

    # Processing.

    def processing_request(
        self, code: str, *, name: str | None = None, arguments: list[str] | None = None, **members: Any
    ) -> dict[str, Any]:
        """Return a CreateProcessingJob request that runs a Python script; its output goes to ``<name>/out/``."""
        name = name or self.name("job")
        script = self.put(f"{name}/code/script.py", code)
        return {
            "ProcessingJobName": name,
            "RoleArn": self.role,
            "ProcessingResources": {"ClusterConfig": CLUSTER},
            "AppSpecification": {
                "ImageUri": IMAGE,
                "ContainerEntrypoint": ["python3", "/opt/ml/processing/input/code/script.py"],
                "ContainerArguments": arguments or ["/opt/ml/processing/output"],
            },
            "ProcessingInputs": [s3_input("code", script)],
            "ProcessingOutputConfig": {"Outputs": [s3_output("out", f"s3://{BUCKET}/{name}/out")]},
        } | members

    def process(self, code: str, **members: Any) -> dict[str, Any]:
        """Run a processing job to its end; return what DescribeProcessingJob returns."""
        request = self.processing_request(code, **members)
        self.sm.create_processing_job(**request)
        return self.processed(request["ProcessingJobName"])

    def processed(self, name: str) -> dict[str, Any]:
        """Wait for a processing job's end."""
        assert self.service.jobs.wait(JobKind.PROCESSING, name, PATIENCE) is not None
        described: dict[str, Any] = self.sm.describe_processing_job(ProcessingJobName=name)
        return described

    # Training.

    def training_request(
        self, code: str, *, name: str | None = None, metrics: Mapping[str, str] | None = None, **members: Any
    ) -> dict[str, Any]:
        """Return a CreateTrainingJob request that runs a Python script from the channel `code`."""
        name = name or self.name("job")
        script = self.put(f"{name}/code/script.py", code)
        return {
            "TrainingJobName": name,
            "RoleArn": self.role,
            "AlgorithmSpecification": {
                "TrainingImage": IMAGE,
                "TrainingInputMode": "File",
                "ContainerEntrypoint": ["python3", "/opt/ml/input/data/code/script.py"],
                "ContainerArguments": ["/opt/ml"],
                "MetricDefinitions": [{"Name": key, "Regex": regex} for key, regex in (metrics or {}).items()],
            },
            "InputDataConfig": [channel("code", script)],
            "OutputDataConfig": {"S3OutputPath": f"s3://{BUCKET}/out"},
            "ResourceConfig": CLUSTER,
            "StoppingCondition": {"MaxRuntimeInSeconds": 600},
        } | members

    def train(self, code: str, **members: Any) -> dict[str, Any]:
        """Run a training job to its end; return what DescribeTrainingJob returns."""
        request = self.training_request(code, **members)
        self.sm.create_training_job(**request)
        return self.trained(request["TrainingJobName"])

    def trained(self, name: str) -> dict[str, Any]:
        """Wait for a training job's end."""
        assert self.service.jobs.wait(JobKind.TRAINING, name, PATIENCE) is not None
        described: dict[str, Any] = self.sm.describe_training_job(TrainingJobName=name)
        return described

    # Hosting.

    def model(self, script: str, *, environment: Mapping[str, str] | None = None, **files: bytes) -> str:
        """Make a model of an inference script and files; return its name."""
        name = self.name("model")
        data = self.put(f"{name}/model.tar.gz", tar_gz({"code/inference.py": script.encode()} | files))
        container = {"Image": IMAGE, "ModelDataUrl": data, "Environment": dict(environment or {})}
        self.sm.create_model(ModelName=name, ExecutionRoleArn=self.role, PrimaryContainer=container)
        return name

    def config(self, *models: str, **members: Any) -> str:
        """Make an endpoint configuration with a variant (``v0``, ``v1`` …) per model; return its name."""
        name = self.name("config")
        variants = [
            {"VariantName": f"v{index}", "ModelName": model, "InstanceType": "ml.m5.large", "InitialInstanceCount": 1} | members
            for index, model in enumerate(models)
        ]
        self.sm.create_endpoint_config(EndpointConfigName=name, ProductionVariants=variants)
        return name

    def endpoint(self, *models: str, **members: Any) -> str:
        """Make an endpoint and wait until it is in service; return its name."""
        name = self.name("endpoint")
        self.sm.create_endpoint(EndpointName=name, EndpointConfigName=self.config(*models, **members))
        assert self.settled(name)["EndpointStatus"] == "InService"
        return name

    def settled(self, name: str) -> dict[str, Any]:
        """Wait until an endpoint is neither created nor updated; return what DescribeEndpoint returns."""
        assert self.service.wait_for_endpoint(name, PATIENCE) is not None
        described: dict[str, Any] = self.sm.describe_endpoint(EndpointName=name)
        return described

    def ask(self, endpoint: str, body: bytes = b"body", **members: Any) -> Any:
        """Invoke an endpoint; return the answer's JSON."""
        return json.loads(self.runtime.invoke_endpoint(EndpointName=endpoint, Body=body, **members)["Body"].read())


def make_lab(region: Any, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """Make a lab whose region's events are recorded instead of delivered."""
    lab = Lab(region)
    monkeypatch.setattr(region.cloud, "emit", lab.record)
    return lab


def s3_input(name: str, uri: str, path: str | None = None, **members: str) -> dict[str, Any]:
    """Return a ProcessingInput at /opt/ml/processing/input/<name>."""
    source = {"S3Uri": uri, "LocalPath": path or f"/opt/ml/processing/input/{name}", "S3DataType": "S3Prefix", "S3InputMode": "File"}
    return {"InputName": name, "S3Input": source | members}


def s3_output(name: str, uri: str, path: str = "/opt/ml/processing/output", mode: str = "EndOfJob") -> dict[str, Any]:
    """Return a ProcessingOutput."""
    return {"OutputName": name, "S3Output": {"S3Uri": uri, "LocalPath": path, "S3UploadMode": mode}}


def channel(name: str, uri: str, **members: Any) -> dict[str, Any]:
    """Return a training channel of an S3 prefix."""
    return {"ChannelName": name, "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": uri}}} | members


def tar_gz(files: Mapping[str, bytes]) -> bytes:
    """Return files as a tar.gz."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def read_tar_gz(body: bytes) -> dict[str, bytes]:
    """Return the files of a tar.gz."""
    with tarfile.open(fileobj=io.BytesIO(body), mode="r:gz") as archive:
        contents = {member.name: archive.extractfile(member) for member in archive}
        return {name: content.read() for name, content in contents.items() if content is not None}
