"""Definitions, and a region that runs no jobs: what executions are tested with."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from localcloud.database import Database
from localcloud.errors import ServiceError
from localcloud.object_store import ObjectNotFound
from localcloud.sagemaker.pipelines import names
from localcloud.sagemaker.pipelines.definition import parse_definition
from localcloud.sagemaker.pipelines.engine import ACTIVE_EXECUTION, Engine
from localcloud.sagemaker.pipelines.host import HostClosing, Invocation
from localcloud.sagemaker.pipelines.store import Document, PipelineStore, now
from localcloud.sagemaker.pipelines.validation import validate

T = TypeVar("T")

ROLE = "arn:aws:iam::123456789012:role/pipeline"
PIPELINE_ARN = "arn:aws:sagemaker:us-east-1:123456789012:pipeline/p"

Json = dict[str, Any]


def get(text: str) -> Json:
    """A Get."""
    return {"Get": text}


def join(*values: Any, on: str = "") -> Json:
    """A Std:Join."""
    return {"Std:Join": {"On": on, "Values": list(values)}}


def json_get(step: str, file: str, path: str) -> Json:
    """A Std:JsonGet of a property file."""
    return {"Std:JsonGet": {"PropertyFile": get(f"Steps.{step}.PropertyFiles.{file}"), "Path": path}}


def processing(name: str, inputs: Json | None = None, outputs: Iterable[str] = (), environment: Json | None = None, **members: Any) -> Json:
    """A Processing step; *inputs* are S3 URIs by name, *outputs* go to ``s3://b/<execution>/<step>/<output>``."""
    arguments: Json = {
        "AppSpecification": {"ImageUri": "image", "ContainerEntrypoint": ["python3", "x.py"]},
        "ProcessingResources": {"ClusterConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 30}},
        "RoleArn": ROLE,
        "ProcessingInputs": [
            {
                "InputName": key,
                "S3Input": {"S3Uri": uri, "LocalPath": f"/opt/ml/processing/{key}", "S3DataType": "S3Prefix", "S3InputMode": "File"},
            }
            for key, uri in (inputs or {}).items()
        ],
        "ProcessingOutputConfig": {
            "Outputs": [
                {
                    "OutputName": key,
                    "S3Output": {
                        "S3Uri": join("s3://b", get("Execution.PipelineExecutionId"), name, key, on="/"),
                        "LocalPath": f"/opt/ml/processing/{key}",
                        "S3UploadMode": "EndOfJob",
                    },
                }
                for key in outputs
            ]
        },
    }
    if environment is not None:
        arguments["Environment"] = environment
    return {"Name": name, "Type": "Processing", "Arguments": arguments, **members}


def training(name: str, inputs: Json | None = None, hyperparameters: Json | None = None, **members: Any) -> Json:
    """A Training step."""
    arguments: Json = {
        "AlgorithmSpecification": {"TrainingImage": "image", "TrainingInputMode": "File"},
        "RoleArn": ROLE,
        "OutputDataConfig": {"S3OutputPath": "s3://b/models"},
        "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 30},
        "StoppingCondition": {"MaxRuntimeInSeconds": 3600},
        "HyperParameters": hyperparameters or {},
        "InputDataConfig": [
            {"ChannelName": key, "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": uri}}}
            for key, uri in (inputs or {}).items()
        ],
    }
    if not arguments["InputDataConfig"]:
        del arguments["InputDataConfig"]
    return {"Name": name, "Type": "Training", "Arguments": arguments, **members}


def condition(name: str, *conditions: Json, if_steps: Iterable[Json] = (), else_steps: Iterable[Json] = (), **members: Any) -> Json:
    """A Condition step."""
    arguments = {"Conditions": list(conditions), "IfSteps": list(if_steps), "ElseSteps": list(else_steps)}
    return {"Name": name, "Type": "Condition", "Arguments": arguments, **members}


def compare(kind: str, left: Any, right: Any) -> Json:
    """A condition on two values."""
    return {"Type": kind, "LeftValue": left, "RightValue": right}


def fail(name: str, message: Any = "", **members: Any) -> Json:
    """A Fail step."""
    return {"Name": name, "Type": "Fail", "Arguments": {"ErrorMessage": message}, **members}


def definition(*steps: Json, parameters: Iterable[Json] = ()) -> Json:
    """A whole definition."""
    return {"Version": "2020-12-01", "Metadata": {}, "Parameters": list(parameters), "Steps": list(steps)}


CACHED = {"CacheConfig": {"Enabled": True, "ExpireAfter": "P30D"}}


class FakeHost:
    """A region whose SageMaker operations are few lines each; jobs end when `behaviour` says so.

    Attributes:
        behaviour: By step name (as in the job's name): ``"Failed: reason"`` fails the job, ``"wait"`` leaves it running until `finish`, anything else ends it.
        refusals: Errors that the next calls of an operation raise, by operation.
    """

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.version = 0
        self.closing = False
        self.behaviour: dict[str, str] = {}
        self.refusals: dict[str, list[ServiceError]] = {}
        self.objects: dict[str, bytes] = {}
        self.calls: list[tuple[str, Json]] = []
        self.events: list[tuple[str, Json, list[str]]] = []
        self.lines: list[tuple[str, str, Json]] = []
        self.messages: list[tuple[str, Json]] = []
        self.functions: dict[str, Callable[[Any], Invocation]] = {}
        self.resources: dict[str, Json] = {}

    # What a step can ask for

    def call(self, operation: str, params: Json) -> Json:
        with self.changed:
            self.calls.append((operation, params))
            if self.refusals.get(operation):
                raise self.refusals[operation].pop(0)
            answer: Json = getattr(self, "_" + operation)(params)
            if not operation.startswith("Describe"):
                self.announce()
        return answer

    def acting_as(self, role_arn: str) -> FakeHost:
        return self

    def invoke_function(self, function: str, payload: Any) -> Invocation:
        return self.functions[function](payload)

    def send_message(self, queue_url: str, body: str) -> None:
        self.messages.append((queue_url, json.loads(body)))

    def read_object(self, uri: str) -> bytes:
        if uri not in self.objects:
            raise ObjectNotFound(f"No S3 object at {uri}")
        return self.objects[uri]

    def has_objects(self, uri: str) -> bool:
        return any(key == uri or key.startswith(uri.rstrip("/") + "/") for key in self.objects)

    def emit(self, detail_type: str, detail: Json, resources: list[str]) -> None:
        self.events.append((detail_type, json.loads(json.dumps(detail)), resources))

    def log(self, group: str, stream: str, line: str) -> None:
        self.lines.append((group, stream, json.loads(line)))

    def wait_until(self, condition: Callable[[], T | None]) -> T:
        while True:
            with self.changed:
                version = self.version
                if self.closing:
                    raise HostClosing
            value = condition()
            if value is not None:
                return value
            with self.changed:
                self.changed.wait_for(lambda version=version: self.version != version)  # type: ignore[misc]

    def announce(self) -> None:
        with self.changed:
            self.version += 1
            self.changed.notify_all()

    # What a test does

    def finish(self, step: str, status: str = "Completed", reason: str | None = None) -> None:
        """End the running job of a step."""
        with self.changed:
            job = next(
                job for name, job in self.resources.items() if f"-{step}-" in name and job.get("_status") in ("InProgress", "Stopping")
            )
            self._end(job, status, reason)
            self.announce()

    def close(self) -> None:
        """Shut the region down."""
        with self.changed:
            self.closing = True
            self.announce()

    def created(self, operation: str) -> list[Json]:
        """The parameters of every call of an operation."""
        return [params for name, params in self.calls if name == operation]

    # Operations

    def _job(self, kind: str, params: Json) -> Json:
        name = params[f"{kind}JobName"]
        assert name not in self.resources
        job = {
            **params,
            f"{kind}JobArn": f"arn:aws:sagemaker:us-east-1:123456789012:{kind.lower()}-job/{name}",
            "_kind": kind,
            "_status": "InProgress",
        }
        self.resources[name] = job
        behaviour = next((value for step, value in self.behaviour.items() if f"-{step}-" in name), "")
        if behaviour.startswith("Failed"):
            self._end(job, "Failed", behaviour.partition(": ")[2])
        elif behaviour != "wait":
            self._end(job, "Completed", None)
        return {f"{kind}JobArn": job[f"{kind}JobArn"]}

    def _end(self, job: Json, status: str, reason: str | None) -> None:
        job["_status"] = status
        if reason is not None:
            job["FailureReason"] = reason
        if status != "Completed":
            return
        if job["_kind"] == "Training":
            uri = f"{job['OutputDataConfig']['S3OutputPath']}/{job['TrainingJobName']}/output/model.tar.gz"
            job["ModelArtifacts"] = {"S3ModelArtifacts": uri}
            self.objects[uri] = b"model"
        for output in job.get("ProcessingOutputConfig", {}).get("Outputs", []):
            self.objects.setdefault(f"{output['S3Output']['S3Uri']}/data", b"data")

    def _describe(self, kind: str, params: Json) -> Json:
        job = self.resources[params[f"{kind}JobName"]]
        return {key: value for key, value in job.items() if not key.startswith("_")} | {f"{kind}JobStatus": job["_status"]}

    def _stop(self, kind: str, params: Json) -> Json:
        self._end(self.resources[params[f"{kind}JobName"]], "Stopped", None)
        return {}

    def _CreateProcessingJob(self, params: Json) -> Json:
        return self._job("Processing", params)

    def _DescribeProcessingJob(self, params: Json) -> Json:
        return self._describe("Processing", params)

    def _StopProcessingJob(self, params: Json) -> Json:
        return self._stop("Processing", params)

    def _CreateTrainingJob(self, params: Json) -> Json:
        return self._job("Training", params)

    def _DescribeTrainingJob(self, params: Json) -> Json:
        return self._describe("Training", params)

    def _StopTrainingJob(self, params: Json) -> Json:
        return self._stop("Training", params)

    def _CreateModel(self, params: Json) -> Json:
        self.resources[params["ModelName"]] = params
        return {"ModelArn": f"arn:model/{params['ModelName']}"}

    def _DescribeModel(self, params: Json) -> Json:
        return self.resources[params["ModelName"]]

    def _CreateEndpointConfig(self, params: Json) -> Json:
        self.resources[params["EndpointConfigName"]] = params
        return {"EndpointConfigArn": f"arn:endpoint-config/{params['EndpointConfigName']}"}

    def _DescribeEndpointConfig(self, params: Json) -> Json:
        if params["EndpointConfigName"] not in self.resources:
            raise ServiceError("ValidationException", "Could not find endpoint configuration")
        return self.resources[params["EndpointConfigName"]]

    def _CreateEndpoint(self, params: Json) -> Json:
        self.resources["endpoint/" + params["EndpointName"]] = params | {"EndpointStatus": "InService"}
        return {"EndpointArn": f"arn:endpoint/{params['EndpointName']}"}

    def _UpdateEndpoint(self, params: Json) -> Json:
        if self.behaviour.get("UpdateEndpoint") != "rolls back":
            self.resources["endpoint/" + params["EndpointName"]]["EndpointConfigName"] = params["EndpointConfigName"]
        return {"EndpointArn": f"arn:endpoint/{params['EndpointName']}"}

    def _DescribeEndpoint(self, params: Json) -> Json:
        found = self.resources.get("endpoint/" + params["EndpointName"])
        if found is None:
            raise ServiceError("ValidationException", "Could not find endpoint")
        return dict(found)

    def _DescribeModelPackageGroup(self, params: Json) -> Json:
        if "group/" + params["ModelPackageGroupName"] not in self.resources:
            raise ServiceError("ValidationException", "ModelPackageGroup does not exist.")
        return {}

    def _CreateModelPackageGroup(self, params: Json) -> Json:
        self.resources["group/" + params["ModelPackageGroupName"]] = params
        return {}

    def _CreateModelPackage(self, params: Json) -> Json:
        arn = f"arn:model-package/{params['ModelPackageGroupName']}/1"
        self.resources[arn] = params | {"ModelPackageArn": arn, "ModelPackageStatus": "Completed"}
        return {"ModelPackageArn": arn}

    def _DescribeModelPackage(self, params: Json) -> Json:
        return self.resources[params["ModelPackageName"]]


class Runner:
    """An engine over a fake region, and what the API does around it."""

    def __init__(self, path: Path) -> None:
        self.database = Database(path / "state.db")
        self.store = PipelineStore(self.database)
        self.host = FakeHost()
        self.engine = Engine(self.store, self.host)

    def start(self, document: Json, parameters: Json | None = None, **members: Any) -> str:
        """Start an execution and return its ARN."""
        text = json.dumps(document)
        parsed = parse_definition(text)
        validate(parsed)
        values = {name: parameter.default for name, parameter in parsed.parameters.items()} | (parameters or {})
        identifier = names.execution_id()
        execution: Document = {
            "Arn": f"{PIPELINE_ARN}/execution/{identifier}",
            "Id": identifier,
            "PipelineName": "p",
            "PipelineArn": PIPELINE_ARN,
            "DisplayName": "display",
            "Status": "Executing",
            "CreationTime": now(),
            "LastModifiedTime": now(),
            "Parameters": values,
            "DefinitionDigest": self.store.keep_definition(text),
            "RoleArn": ROLE,
            **members,
        }
        self.store.executions.put(execution["Arn"], execution)
        self.engine.start(execution)
        return str(execution["Arn"])

    def stop(self, arn: str) -> None:
        """Stop an execution."""
        self.store.executions.update(arn, Status="Stopping")
        self.engine.stop(arn)

    def retry(self, arn: str) -> None:
        """Retry an execution."""
        execution = self.execution(arn)
        execution.pop("FailureReason", None)
        execution["Status"] = "Executing"
        self.store.executions.put(arn, execution)
        self.engine.start(execution, "Failed")

    def execution(self, arn: str) -> Document:
        """Return an execution's document."""
        found = self.store.executions.get(arn)
        assert found is not None
        return found

    def steps(self, arn: str) -> dict[str, Document]:
        """Return the steps' documents in the order in which they started."""
        execution = self.execution(arn)
        return {step["Name"]: step for step in self.store.steps_of("p", execution["Id"])}

    def wait(self, arn: str, seconds: float = 20) -> Document:
        """Return an execution's document once it has ended."""
        version = self.database.version
        while self.execution(arn)["Status"] in ACTIVE_EXECUTION:
            newer = self.database.wait_for_change(version, seconds)
            assert newer != version, f"still {self.execution(arn)['Status']}: {self.statuses(arn)}"
            version = newer
        return self.execution(arn)

    def wait_for(self, condition: Callable[[], bool], seconds: float = 20) -> None:
        """Wait until *condition* holds; it is asked again whenever a document changes."""
        version = self.database.version
        while not condition():
            newer = self.database.wait_for_change(version, seconds)
            assert newer != version, "nothing changed in time"
            version = newer

    def run(self, document: Json, parameters: Json | None = None, **members: Any) -> str:
        """Start an execution, wait for its end, return its ARN."""
        arn = self.start(document, parameters, **members)
        self.wait(arn)
        return arn

    def statuses(self, arn: str) -> dict[str, str]:
        """Return the steps' statuses."""
        return {name: step["Status"] for name, step in self.steps(arn).items()}

    def close(self) -> None:
        """End everything."""
        self.host.close()
        self.engine.join(5)
        self.database.close()
