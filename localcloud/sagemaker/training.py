"""Training jobs: CreateTrainingJob really runs the container's entrypoint (what SDK v3's ModelTrainer sends, or any command)."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

from localcloud.database import Document
from localcloud.errors import ServiceError, not_supported
from localcloud.object_store import ObjectNotFound
from localcloud.sagemaker import inputs
from localcloud.sagemaker.archives import pack
from localcloud.sagemaker.base import SageMakerBase
from localcloud.sagemaker.jobs import Ending, Job, JobError, JobKind, Jobs, Status, algorithm_error, job_type, read_message
from localcloud.sagemaker.listing import list_page
from localcloud.sagemaker.metrics import MetricReader, check_definitions
from localcloud.sagemaker.sandbox import Sandbox
from localcloud.sagemaker.sync import FolderSync
from localcloud.sagemaker.tags import check_tags
from localcloud.sagemaker.values import SESSION_NAME, given, now, refuse_others
from localcloud.service import Params

_WHERE = "CreateTrainingJob"
#: Members that have their effect here, or none that a job could notice (they choose machines, networks, encryption, retries of broken machines).
_SUPPORTED = (
    "TrainingJobName", "HyperParameters", "AlgorithmSpecification", "RoleArn", "InputDataConfig", "OutputDataConfig", "ResourceConfig", "VpcConfig",
    "StoppingCondition", "Tags", "EnableInterContainerTrafficEncryption", "EnableManagedSpotTraining", "CheckpointConfig", "ExperimentConfig",
    "ProfilerConfig", "Environment", "RetryStrategy",
)  # fmt: skip
#: The API reference's default, one day.
_MAX_RUNTIME_SECONDS = 86400
_CHECKPOINTS = "/opt/ml/checkpoints"
#: The channel in which ModelTrainer ships its own driver scripts; they have /opt/ml written into them.
_DRIVERS = "sm_drivers"
_MESSAGES = {
    "Starting": "Preparing the instances for training",
    "Downloading": "Downloading input data",
    "Training": "Training image download completed. Training in progress.",
    "Stopping": "Stopping the training job",
    "Uploading": "Uploading generated training model",
    "Completed": "Training job completed",
    "Failed": "Training job failed",
    "Stopped": "Training job stopped",
    "MaxRuntimeExceeded": "Training job runtime exceeded MaxRuntimeInSeconds provided",
}


class TrainingOperations(SageMakerBase):
    """CreateTrainingJob, DescribeTrainingJob, ListTrainingJobs, StopTrainingJob."""

    def create_training_job(self, params: Params) -> Params:
        """Start a job and return its ARN; it runs on a thread of its own.

        Raises:
            ServiceError: ResourceInUse, or ValidationException for what AWS or localcloud refuses.
        """
        _check(params)
        role = params["RoleArn"]
        arn = self.arn("training-job", params["TrainingJobName"])
        self.check_role(role, arn)
        objects = self.cloud.objects.acting_as(role, SESSION_NAME)
        for channel in params.get("InputDataConfig") or []:
            inputs.check_exists(objects, channel["DataSource"]["S3DataSource"]["S3Uri"], role, self.cloud.settings.region)
        name = params["TrainingJobName"]
        moment = now()
        document = given(params, *(member for member in _SUPPORTED if member != "Tags")) | {
            "TrainingJobArn": arn,
            "TrainingJobStatus": Status.IN_PROGRESS,
            "SecondaryStatus": "Starting",
            "SecondaryStatusTransitions": [{"Status": "Starting", "StartTime": moment, "StatusMessage": _MESSAGES["Starting"]}],
            "StoppingCondition": {"MaxRuntimeInSeconds": _MAX_RUNTIME_SECONDS} | (params.get("StoppingCondition") or {}),
            "EnableNetworkIsolation": False,
            "EnableInterContainerTrafficEncryption": bool(params.get("EnableInterContainerTrafficEncryption")),
            "EnableManagedSpotTraining": bool(params.get("EnableManagedSpotTraining")),
            "ModelArtifacts": {"S3ModelArtifacts": _model_uri(params["OutputDataConfig"], name)},
            "CreationTime": moment,
            "LastModifiedTime": moment,
        }
        check_tags(params.get("Tags"))
        self.jobs.launch(TrainingJob(self.jobs, document), lambda: self.tags.create(arn, params.get("Tags")))
        return {"TrainingJobArn": arn}

    def describe_training_job(self, params: Params) -> Params:
        """Return a job."""
        return self._training_job(params["TrainingJobName"])

    def list_training_jobs(self, params: Params) -> Params:
        """Return a page of jobs."""
        refuse_others(params, {*params} - {"WarmPoolStatusEquals", "TrainingPlanArnEquals"}, "ListTrainingJobs")
        members = (
            "TrainingJobName",
            "TrainingJobArn",
            "CreationTime",
            "TrainingEndTime",
            "LastModifiedTime",
            "TrainingJobStatus",
            "SecondaryStatus",
        )
        found, token = list_page(self.jobs.tables[JobKind.TRAINING].values(), params, name="TrainingJobName", status="TrainingJobStatus")
        return {"TrainingJobSummaries": [given(document, *members) for document in found]} | token

    def stop_training_job(self, params: Params) -> None:
        """Begin to stop a job: SIGTERM, then SIGKILL after the grace; what is in the model folder by then is uploaded."""
        name = params["TrainingJobName"]
        status = self._training_job(name)["TrainingJobStatus"]
        if status not in (Status.IN_PROGRESS, Status.STOPPING):
            raise ServiceError("ValidationException", f"The request was rejected because the training job is in status {status}.")
        self.jobs.request_stop(JobKind.TRAINING, name)

    def _training_job(self, name: str) -> Params:
        document = self.jobs.get(JobKind.TRAINING, name)
        if document is None:
            raise ServiceError("ValidationException", "Requested resource not found.")
        return document


def _model_uri(output: Params, name: str) -> str:
    folder = f"{output['S3OutputPath'].rstrip('/')}/{name}/output/model"
    return f"{folder}/" if output.get("CompressionType") == "NONE" else f"{folder}.tar.gz"


def _check(params: Params) -> None:
    """Refuse what would not have its effect here."""
    refuse_others(params, _SUPPORTED, _WHERE)
    algorithm = params.get("AlgorithmSpecification") or {}
    refuse_others(
        algorithm,
        (
            "TrainingImage",
            "TrainingInputMode",
            "MetricDefinitions",
            "EnableSageMakerMetricsTimeSeries",
            "ContainerEntrypoint",
            "ContainerArguments",
            "TrainingImageConfig",
        ),
        f"{_WHERE}: AlgorithmSpecification",
    )
    if not algorithm.get("ContainerEntrypoint"):
        raise not_supported(
            f"{_WHERE} without AlgorithmSpecification.ContainerEntrypoint (container images are not run: their own entrypoint is not known; the SDK's ModelTrainer sends one)"
        )
    check_definitions(algorithm.get("MetricDefinitions") or [])
    resources = params.get("ResourceConfig") or {}
    refuse_others(
        resources,
        ("InstanceType", "InstanceCount", "VolumeSizeInGB", "VolumeKmsKeyId", "KeepAlivePeriodInSeconds"),
        f"{_WHERE}: ResourceConfig",
    )
    if resources.get("InstanceCount", 1) != 1:
        raise not_supported(f"{_WHERE} with more than one instance")
    profiler = params.get("ProfilerConfig") or {}
    refuse_others(profiler, ("DisableProfiler", "S3OutputPath"), f"{_WHERE}: ProfilerConfig")
    channels = params.get("InputDataConfig") or []
    names = [channel["ChannelName"] for channel in channels]
    if len(set(names)) < len(names):
        raise ServiceError("ValidationException", "Channel names must be unique within a training job.")
    for channel in channels:
        _check_channel(channel, algorithm["TrainingInputMode"])
    spot, stopping = params.get("EnableManagedSpotTraining"), params.get("StoppingCondition") or {}
    if spot and stopping.get("MaxWaitTimeInSeconds", 0) < stopping.get("MaxRuntimeInSeconds", _MAX_RUNTIME_SECONDS):
        raise ServiceError(
            "ValidationException", "Invalid MaxWaitTimeInSeconds. It must be present and be greater than or equal to MaxRuntimeInSeconds"
        )
    if not spot and stopping.get("MaxWaitTimeInSeconds"):
        raise ServiceError("ValidationException", "MaxWaitTimeInSeconds cannot be specified when EnableManagedSpotTraining is false")
    local = (params.get("CheckpointConfig") or {}).get("LocalPath", _CHECKPOINTS)
    if not (local.rstrip("/") + "/").startswith("/opt/ml/") or ".." in local.split("/"):
        raise not_supported(f"{_WHERE}: a CheckpointConfig.LocalPath outside of /opt/ml")


def _check_channel(channel: Params, job_mode: str) -> None:
    where = f"{_WHERE}: channel {channel['ChannelName']}"
    refuse_others(
        channel, ("ChannelName", "DataSource", "ContentType", "CompressionType", "RecordWrapperType", "InputMode", "ShuffleConfig"), where
    )
    mode = channel.get("InputMode", job_mode)
    if mode not in ("File", "FastFile"):
        raise not_supported(f"{where}: InputMode {mode}")
    if channel.get("CompressionType", "None") != "None":
        raise ServiceError(
            "ValidationException", f"CompressionType of channel {channel['ChannelName']} must be None unless its InputMode is Pipe"
        )
    if channel.get("RecordWrapperType", "None") != "None":
        raise not_supported(f"{where}: RecordWrapperType {channel['RecordWrapperType']}")
    refuse_others(channel["DataSource"], ("S3DataSource",), where)
    source = channel["DataSource"].get("S3DataSource")
    if source is None:
        raise ServiceError("ValidationException", f"Channel {channel['ChannelName']} has no data source")
    # With one instance a shard is everything.
    refuse_others(source, ("S3DataType", "S3Uri", "S3DataDistributionType"), where)
    inputs.check_source(source["S3DataType"], where)


@job_type
class TrainingJob(Job):
    """One training job."""

    kind = JobKind.TRAINING

    def __init__(self, jobs: Jobs, document: Document) -> None:
        super().__init__(jobs, document)
        self._metrics = MetricReader(document["AlgorithmSpecification"].get("MetricDefinitions") or [])
        self._sync: FolderSync | None = None

    @property
    def image(self) -> str:
        """The container image's URI."""
        return str(self.document["AlgorithmSpecification"]["TrainingImage"])

    def download(self, sandbox: Sandbox) -> None:
        """Bring channels, checkpoints and configuration files into the sandbox."""
        channels = self.document.get("InputDataConfig") or []
        for channel in channels:
            source = channel["DataSource"]["S3DataSource"]
            folder = sandbox.path(f"/opt/ml/input/data/{channel['ChannelName']}")
            inputs.download(self.objects, source["S3DataType"], source["S3Uri"], folder)
            if channel["ChannelName"] == _DRIVERS:
                sandbox.remap_scripts(folder)
        for folder_name in ("model", "output/data", "input/config"):
            (sandbox.ml / folder_name).mkdir(parents=True, exist_ok=True)
        self._restore_checkpoints(sandbox)
        configuration = sandbox.ml / "input/config"
        for name, content in {
            "hyperparameters": sandbox.remap_values(self.document.get("HyperParameters") or {}),
            "inputdataconfig": {channel["ChannelName"]: self._channel_settings(channel) for channel in channels},
            "resourceconfig": self._resources(),
        }.items():
            (configuration / f"{name}.json").write_text(json.dumps(content))

    def _restore_checkpoints(self, sandbox: Sandbox) -> None:
        checkpoints = self.document.get("CheckpointConfig")
        if not checkpoints:
            return
        folder = sandbox.path(checkpoints.get("LocalPath", _CHECKPOINTS))
        folder.mkdir(parents=True, exist_ok=True)
        try:
            self.objects.download(checkpoints["S3Uri"].rstrip("/") + "/", folder)
        except ObjectNotFound:
            # The first run finds nothing.
            return

    def _channel_settings(self, channel: dict[str, Any]) -> dict[str, str]:
        mode = channel.get("InputMode", self.document["AlgorithmSpecification"]["TrainingInputMode"])
        distribution = channel["DataSource"]["S3DataSource"].get("S3DataDistributionType", "FullyReplicated")
        return given(channel, "ContentType") | {"TrainingInputMode": mode, "S3DistributionType": distribution, "RecordWrapperType": "None"}

    def _resources(self) -> dict[str, Any]:
        instance_type = (self.document.get("ResourceConfig") or {}).get("InstanceType", "")
        group = {"instance_group_name": "homogeneousCluster", "instance_type": instance_type, "hosts": ["algo-1"]}
        return {
            "current_host": "algo-1",
            "current_instance_type": instance_type,
            "current_group_name": "homogeneousCluster",
            "hosts": ["algo-1"],
            "instance_groups": [group],
            # An interface that this machine has, for libraries that bind to it.
            "network_interface_name": "lo0" if sys.platform == "darwin" else "lo",
        }

    def command(self) -> Sequence[str]:
        """Return the container's entrypoint and arguments."""
        algorithm = self.document["AlgorithmSpecification"]
        return [*algorithm["ContainerEntrypoint"], *(algorithm.get("ContainerArguments") or [])]

    def environment(self) -> dict[str, str]:
        """Return the container's environment variables."""
        return {"TRAINING_JOB_NAME": self.name, "TRAINING_JOB_ARN": self.arn} | (self.document.get("Environment") or {})

    def started(self, sandbox: Sandbox) -> None:
        """Begin uploading checkpoints."""
        checkpoints = self.document.get("CheckpointConfig")
        if checkpoints:
            self._sync = FolderSync(self.objects, sandbox.path(checkpoints.get("LocalPath", _CHECKPOINTS)), checkpoints["S3Uri"])
            self._sync.start()

    def printed(self, lines: list[str]) -> None:
        """Look for metrics."""
        self._metrics.read(lines)

    def conclude(self, sandbox: Sandbox, ending: Ending, exit_code: int) -> None:
        """Upload checkpoints and, unless the job failed, the model and other output; record how it ended."""
        if self._sync is not None:
            self.publish(self._sync.finish)
        if ending is Ending.EXITED and exit_code != 0:
            raise JobError(algorithm_error(read_message(sandbox.path("/opt/ml/output/failure")), exit_code))
        self.passed("Uploading")
        self.publish(lambda: self._upload(sandbox))
        if ending is Ending.EXITED:
            self.end(Status.COMPLETED)
        else:
            self.end(Status.STOPPED, SecondaryStatus="MaxRuntimeExceeded" if ending is Ending.MAX_RUNTIME else "Stopped")

    def _upload(self, sandbox: Sandbox) -> None:
        output = self.document["OutputDataConfig"]
        prefix = f"{output['S3OutputPath'].rstrip('/')}/{self.name}/output"
        if output.get("CompressionType") == "NONE":
            self.objects.upload(sandbox.ml / "model", f"{prefix}/model")
        else:
            self._upload_archive(sandbox, "model", f"{prefix}/model.tar.gz")
        self._upload_archive(sandbox, "output/data", f"{prefix}/output.tar.gz")

    def _upload_archive(self, sandbox: Sandbox, folder: str, uri: str) -> None:
        body = pack(sandbox.ml / folder)
        if body is not None:
            self.objects.write(uri, body)

    def passed(self, secondary: str) -> None:
        """Record a secondary status."""
        with self._change:
            if self.document["SecondaryStatus"] == secondary:
                return
            self.update(SecondaryStatus=secondary, SecondaryStatusTransitions=self._transitions(secondary))
        self.announce()

    def end(self, status: Status, **changes: Any) -> None:
        """Record the job's end, its metrics and its duration."""
        secondary = changes.setdefault("SecondaryStatus", str(status))
        changes["SecondaryStatusTransitions"] = self._transitions(secondary)
        changes["FinalMetricDataList"] = self._metrics.final()
        started = self.document.get("TrainingStartTime")
        if started is not None:
            changes["TrainingTimeInSeconds"] = changes["BillableTimeInSeconds"] = max(1, round((now() - started).total_seconds()))
        super().end(status, **changes)

    def fail(self, reason: str) -> None:
        """Record that the job failed; of its checkpoints, what is in S3 by now stays."""
        if self._sync is not None:
            self._sync.finish(upload=False)
        super().fail(reason)

    def _transitions(self, secondary: str) -> list[dict[str, Any]]:
        moment = now()
        *before, last = self.document["SecondaryStatusTransitions"]
        new = {"Status": secondary, "StartTime": moment, "StatusMessage": _MESSAGES[secondary]}
        if secondary in ("Completed", "Failed", "Stopped", "MaxRuntimeExceeded"):
            new["EndTime"] = moment
        return [*before, last | {"EndTime": moment}, new]
