"""Processing jobs: CreateProcessingJob really runs the container's entrypoint, as a process on this machine's Python."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from localcloud.database import Document
from localcloud.errors import ServiceError, not_supported
from localcloud.sagemaker import inputs
from localcloud.sagemaker.base import SageMakerBase
from localcloud.sagemaker.jobs import Ending, Job, JobError, JobKind, Jobs, Status, algorithm_error, job_type, read_message, shorten
from localcloud.sagemaker.listing import list_page
from localcloud.sagemaker.sandbox import Sandbox
from localcloud.sagemaker.sync import FolderSync
from localcloud.sagemaker.tags import check_tags
from localcloud.sagemaker.values import given, now, refuse_others
from localcloud.service import Params

_ROOT = "/opt/ml/processing/"
#: The API reference's default, one day.
_MAX_RUNTIME_SECONDS = 86400


class ProcessingOperations(SageMakerBase):
    """CreateProcessingJob, DescribeProcessingJob, ListProcessingJobs, StopProcessingJob."""

    def create_processing_job(self, params: Params) -> Params:
        """Start a job and return its ARN; it runs on a thread of its own.

        Raises:
            ServiceError: ResourceInUse, or ValidationException for what AWS or localcloud refuses.
        """
        _check(params)
        name = params["ProcessingJobName"]
        arn = self.arn("processing-job", name)
        self.check_role(params["RoleArn"], arn)
        moment = now()
        document = given(
            params,
            "ProcessingInputs",
            "ProcessingOutputConfig",
            "ProcessingResources",
            "AppSpecification",
            "Environment",
            "NetworkConfig",
            "ExperimentConfig",
        ) | {
            "ProcessingJobName": name,
            "ProcessingJobArn": arn,
            "ProcessingJobStatus": Status.IN_PROGRESS,
            "RoleArn": params["RoleArn"],
            "StoppingCondition": params.get("StoppingCondition") or {"MaxRuntimeInSeconds": _MAX_RUNTIME_SECONDS},
            "CreationTime": moment,
            "LastModifiedTime": moment,
        }
        check_tags(params.get("Tags"))
        self.jobs.launch(ProcessingJob(self.jobs, document), lambda: self.tags.create(arn, params.get("Tags")))
        return {"ProcessingJobArn": arn}

    def describe_processing_job(self, params: Params) -> Params:
        """Return a job."""
        return self._processing_job(params["ProcessingJobName"])

    def list_processing_jobs(self, params: Params) -> Params:
        """Return a page of jobs."""
        members = (
            "ProcessingJobName",
            "ProcessingJobArn",
            "CreationTime",
            "ProcessingEndTime",
            "LastModifiedTime",
            "ProcessingJobStatus",
            "FailureReason",
            "ExitMessage",
        )
        found, token = list_page(
            self.jobs.tables[JobKind.PROCESSING].values(), params, name="ProcessingJobName", status="ProcessingJobStatus"
        )
        return {"ProcessingJobSummaries": [given(document, *members) for document in found]} | token

    def stop_processing_job(self, params: Params) -> None:
        """Begin to stop a job: SIGTERM, then SIGKILL after the grace."""
        name = params["ProcessingJobName"]
        status = self._processing_job(name)["ProcessingJobStatus"]
        if status not in (Status.IN_PROGRESS, Status.STOPPING):
            raise ServiceError("ValidationException", f"The request was rejected because the processing job is in status {status}.")
        self.jobs.request_stop(JobKind.PROCESSING, name)

    def _processing_job(self, name: str) -> Params:
        document = self.jobs.get(JobKind.PROCESSING, name)
        if document is None:
            raise ServiceError("ValidationException", f"Could not find requested job with name: {name}")
        return document


def _check(params: Params) -> None:
    """Refuse what would not have its effect here."""
    where = "CreateProcessingJob"
    application = params["AppSpecification"]
    if not application.get("ContainerEntrypoint"):
        raise not_supported(
            f"{where} without AppSpecification.ContainerEntrypoint (container images are not run: their own entrypoint is not known)"
        )
    cluster = params["ProcessingResources"]["ClusterConfig"]
    refuse_others(
        cluster, ("InstanceCount", "InstanceType", "VolumeSizeInGB", "VolumeKmsKeyId"), f"{where}: ProcessingResources.ClusterConfig"
    )
    if cluster.get("InstanceCount", 1) != 1:
        raise not_supported(f"{where} with more than one instance")
    network = params.get("NetworkConfig") or {}
    refuse_others(network, ("VpcConfig", "EnableInterContainerTrafficEncryption"), f"{where}: NetworkConfig")
    names = [item["InputName"] for item in params.get("ProcessingInputs") or []]
    outputs = (params.get("ProcessingOutputConfig") or {}).get("Outputs") or []
    names += [item["OutputName"] for item in outputs]
    if len(set(names)) < len(names):
        raise ServiceError("ValidationException", "Input and output names must be unique within a processing job.")
    for item in params.get("ProcessingInputs") or []:
        refuse_others(item, ("InputName", "AppManaged", "S3Input"), f"{where}: ProcessingInputs")
        source = item.get("S3Input")
        if source is None:
            raise ServiceError("ValidationException", f"ProcessingInput {item['InputName']} must have an S3Input or a DatasetDefinition.")
        inputs.check_source(source["S3DataType"], f"{where}: ProcessingInputs")
        if source.get("S3InputMode", "File") != "File":
            raise not_supported(f"{where}: S3InputMode Pipe")
        if source.get("S3CompressionType", "None") != "None":
            raise ServiceError("ValidationException", "S3CompressionType Gzip can only be used with S3InputMode Pipe.")
        _check_path(source.get("LocalPath"), f"ProcessingInput {item['InputName']}")
    for item in outputs:
        refuse_others(item, ("OutputName", "AppManaged", "S3Output"), f"{where}: ProcessingOutputConfig.Outputs")
        if item.get("S3Output") is None:
            raise ServiceError(
                "ValidationException", f"ProcessingOutput {item['OutputName']} must have an S3Output or a FeatureStoreOutput."
            )
        _check_path(item["S3Output"].get("LocalPath"), f"ProcessingOutput {item['OutputName']}")


def _check_path(path: str | None, what: str) -> None:
    if path is None or not (path.rstrip("/") + "/").startswith(_ROOT) or ".." in path.split("/"):
        raise ServiceError("ValidationException", f"{what}: LocalPath '{path}' must be an absolute path that begins with {_ROOT}")


@job_type
class ProcessingJob(Job):
    """One processing job."""

    kind = JobKind.PROCESSING

    def __init__(self, jobs: Jobs, document: Document) -> None:
        super().__init__(jobs, document)
        self._syncs: list[FolderSync] = []

    @property
    def image(self) -> str:
        """The container image's URI."""
        return str(self.document["AppSpecification"]["ImageUri"])

    def download(self, sandbox: Sandbox) -> None:
        """Bring inputs and the two configuration files into the sandbox."""
        for item in self.document.get("ProcessingInputs") or []:
            source = item["S3Input"]
            inputs.download(self.objects, source["S3DataType"], source["S3Uri"], sandbox.path(source["LocalPath"]))
        for output in self._outputs():
            sandbox.path(output["LocalPath"]).mkdir(parents=True, exist_ok=True)
        (sandbox.ml / "output").mkdir(exist_ok=True)
        configuration = sandbox.ml / "config"
        configuration.mkdir()
        members = (
            "ProcessingJobArn", "ProcessingJobName", "ProcessingInputs", "ProcessingOutputConfig", "ProcessingResources", "StoppingCondition", "AppSpecification",
            "Environment", "NetworkConfig", "RoleArn", "ExperimentConfig",
        )  # fmt: skip
        settings = {member: self.document.get(member) for member in members}
        (configuration / "processingjobconfig.json").write_text(json.dumps(sandbox.remap_values(settings)))
        (configuration / "resourceconfig.json").write_text(json.dumps({"current_host": "algo-1", "hosts": ["algo-1"]}))
        # The SDK's launcher (FrameworkProcessor's runproc.sh) names its folders itself; no guard can watch a shell.
        for word in self.command():
            if word.endswith(".sh") and word.startswith("/opt/ml/") and sandbox.path(word).is_file():
                sandbox.remap_scripts(sandbox.path(word))

    def command(self) -> Sequence[str]:
        """Return the container's entrypoint and arguments."""
        application = self.document["AppSpecification"]
        return [*application["ContainerEntrypoint"], *(application.get("ContainerArguments") or [])]

    def environment(self) -> dict[str, str]:
        """Return the container's environment variables."""
        return {"PROCESSING_JOB_NAME": self.name, "PROCESSING_JOB_ARN": self.arn} | (self.document.get("Environment") or {})

    def started(self, sandbox: Sandbox) -> None:
        """Begin uploading the outputs whose S3UploadMode is Continuous."""
        self._syncs = [
            FolderSync(self.objects, sandbox.path(output["LocalPath"]), output["S3Uri"])
            for output in self._outputs()
            if _continuous(output)
        ]
        for sync in self._syncs:
            sync.start()

    def conclude(self, sandbox: Sandbox, ending: Ending, exit_code: int) -> None:
        """Upload the outputs of a job that succeeded; record how it ended."""
        message = read_message(sandbox.path("/opt/ml/output/message"))
        exit_message: dict[str, Any] = {"ExitMessage": shorten(message)} if message else {}
        for sync in self._syncs:
            self.publish(sync.finish)
        if ending is not Ending.EXITED:
            if ending is Ending.MAX_RUNTIME:
                exit_message = exit_message or {
                    "ExitMessage": f"The job ran longer than its MaxRuntimeInSeconds ({self.max_runtime:g} s) and was stopped."
                }
            self.end(Status.STOPPED, **exit_message)
            return
        if exit_code != 0:
            if exit_message:
                self.update(**exit_message)
            raise JobError(algorithm_error(read_message(sandbox.path("/opt/ml/output/failure")) or message, exit_code))

        def uploads() -> None:
            for output in self._outputs():
                if not _continuous(output):
                    self.objects.upload(sandbox.path(output["LocalPath"]), output["S3Uri"])

        self.publish(uploads)
        self.end(Status.COMPLETED, **exit_message)

    def fail(self, reason: str) -> None:
        """Record that the job failed; of its Continuous outputs, what is in S3 by now stays."""
        for sync in self._syncs:
            sync.finish(upload=False)
        super().fail(reason)

    def _outputs(self) -> list[dict[str, Any]]:
        return [item["S3Output"] for item in (self.document.get("ProcessingOutputConfig") or {}).get("Outputs") or []]


def _continuous(output: dict[str, Any]) -> bool:
    return bool(output["S3UploadMode"] == "Continuous")
