"""The three jobs: Preprocess and Evaluate (processing), Train (training)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sagemaker.core import image_uris
from sagemaker.core.helper.pipeline_variable import PipelineVariable
from sagemaker.core.processing import Processor
from sagemaker.core.shapes import (
    CheckpointConfig,
    MetricDefinition,
    OutputDataConfig,
    ProcessingInput,
    ProcessingOutput,
    ProcessingS3Input,
    ProcessingS3Output,
    StoppingCondition,
)
from sagemaker.core.shapes import Tag as SdkTag
from sagemaker.core.training.configs import Compute, InputData, SourceCode
from sagemaker.core.workflow.execution_variables import ExecutionVariables
from sagemaker.core.workflow.functions import Join
from sagemaker.core.workflow.properties import PropertyFile
from sagemaker.mlops.workflow.retry import (
    RetryPolicy,
    SageMakerJobExceptionTypeEnum,
    SageMakerJobStepRetryPolicy,
    StepExceptionTypeEnum,
    StepRetryPolicy,
)
from sagemaker.mlops.workflow.steps import CacheConfig, ProcessingStep, TrainingStep
from sagemaker.train.distributed import Torchrun

from pipelines.code_store import CodeBundle, CodeStore
from pipelines.parameters import Parameters
from pipelines.platform import Platform
from pipelines.sdk import telemetry_off
from pipelines.settings import Settings
from pipelines.trainer import ContentAddressedTrainer

# Paths inside processing containers; training containers get theirs from the SDK's drivers as SM_* variables.
_INPUT = "/opt/ml/processing/input"
_OUTPUT = "/opt/ml/processing/output"
_FAILURE_FILE = "/opt/ml/output/message"
_JOB_CONFIG = "/opt/ml/config/processingjobconfig.json"
_CHECKPOINTS = "/opt/ml/checkpoints"
_METRIC_DEFINITIONS = "metric_definitions.json"


@dataclass(frozen=True)
class BuildContext:
    """Everything the steps are built from; all of it is data."""

    settings: Settings
    session: Any
    platform: Platform
    parameters: Parameters
    code: CodeStore
    steps: CodeBundle

    @property
    def steps_uri(self) -> str:
        """S3 URI of the job scripts."""
        return self.code.add(self.steps)

    @property
    def tags(self) -> list[dict[str, str]]:
        """Tags of everything an execution creates."""
        own = {"project": self.settings.project.name, "stage": self.settings.stage}
        own |= {tag.key: tag.value for tag in self.settings.project.tags}
        return [{"Key": key, "Value": value} for key, value in own.items()]

    @property
    def cache(self) -> CacheConfig:
        """Step caching of the jobs."""
        return CacheConfig(enable_caching=self.settings.pipeline.cache.enabled, expire_after=self.settings.pipeline.cache.expire_after)

    @property
    def service_retries(self) -> list[RetryPolicy]:
        """Retries for faults of the service itself; every step type takes these."""
        return [StepRetryPolicy([StepExceptionTypeEnum.SERVICE_FAULT, StepExceptionTypeEnum.THROTTLING], **self._retry_pace())]

    @property
    def job_retries(self) -> list[RetryPolicy]:
        """Retries of jobs: also when there is no capacity, an account limit is reached, or the job ended with an internal error."""
        limit = SageMakerJobStepRetryPolicy(exception_types=[SageMakerJobExceptionTypeEnum.RESOURCE_LIMIT], **self._retry_pace())
        failure = SageMakerJobStepRetryPolicy(
            failure_reason_types=[SageMakerJobExceptionTypeEnum.INTERNAL_ERROR, SageMakerJobExceptionTypeEnum.CAPACITY_ERROR],
            **self._retry_pace(),
        )
        return [*self.service_retries, limit, failure]

    def _retry_pace(self) -> dict[str, Any]:
        retries = self.settings.pipeline.retries
        return {"max_attempts": retries.max_attempts, "interval_seconds": retries.interval_seconds, "backoff_rate": retries.backoff_rate}

    def output_uri(self, step: str, *names: str) -> Join:
        """Where a step of this execution writes. Outputs are not part of a step's cache key, so naming the execution here is safe."""
        prefix = f"s3://{self.platform.bucket}/runs/{self.settings.pipeline.name}"
        return Join(on="/", values=[prefix, ExecutionVariables.PIPELINE_EXECUTION_ID, step, *names])

    @property
    def environment(self) -> dict[str, str]:
        """Environment of the jobs; part of the cache key, so nothing that belongs to one execution may be here."""
        mlflow = self.settings.mlflow
        if mlflow.tracking_uri is None:
            return {}
        return {"MLFLOW_TRACKING_URI": mlflow.tracking_uri, "MLFLOW_EXPERIMENT_NAME": mlflow.experiment}

    def image(self, scope: str, given: str | None, instance_type: str) -> str:
        """The image given in the settings, or the PyTorch Deep Learning Container for the scope ("training" or "inference")."""
        if given is not None:
            return given
        images = self.settings.images
        uri: str = image_uris.retrieve(
            framework="pytorch",
            region=self.platform.region,
            version=images.framework_version,
            py_version=images.python_version,
            instance_type=instance_type,
            image_scope=scope,
        )
        return uri


def preprocess_step(context: BuildContext) -> ProcessingStep:
    """Validate, clean and split the staged images."""
    data = context.settings.data
    options = {
        "--input": f"{_INPUT}/raw",
        "--train": f"{_OUTPUT}/train",
        "--validation": f"{_OUTPUT}/validation",
        "--test": f"{_OUTPUT}/test",
        "--report": f"{_OUTPUT}/report",
        **{
            f"--{name.replace('_', '-')}": _text(value) for name, value in data.model_dump(exclude={"input_uri"}, exclude_none=True).items()
        },
    }
    return _processing_step(
        context,
        name="Preprocess",
        display_name="Preprocess images",
        description="Validates every staged image, quarantines what is bad, removes duplicates across splits and writes train, validation and "
        "test shards with statistics for drift checks.",
        script="preprocess.py",
        options=options,
        inputs={"raw": context.parameters.input_data_uri},
        outputs=("train", "validation", "test", "report"),
    )


def train_step(context: BuildContext, preprocess: ProcessingStep) -> TrainingStep:
    """Fine-tune the network and export the artifact that serves."""
    training = context.settings.training
    parameters = context.parameters
    recipe = {name: _text(value) for name, value in training.recipe.model_dump(exclude_none=True).items()}
    image = context.image("training", context.settings.images.training, training.instance_type)
    hyperparameters: dict[str, str | PipelineVariable] = {
        **recipe,
        "epochs": parameters.epochs.to_string(),
        "seed": parameters.seed.to_string(),
    }
    # The part of the checkpoint's prefix that is known now; data, epochs and seed follow at run time. CheckpointConfig is part of the cache
    # key, so its prefix names what the training depends on (the Preprocess job stands for the data) and never the execution.
    recipe_digest = CodeBundle(
        {"recipe": json.dumps([recipe, image], sort_keys=True).encode(), "code": context.steps.digest.encode()}
    ).digest
    checkpoints = Join(
        on="/",
        values=[
            f"s3://{context.platform.bucket}/checkpoints/{recipe_digest[:16]}",
            preprocess.properties.ProcessingJobName,
            parameters.epochs,
            parameters.seed,
        ],
    )
    accelerated = training.instance_type.split(".")[1][0] in "gp"
    trainer = ContentAddressedTrainer(
        sagemaker_session=context.session,
        role=context.platform.job_role_arn,
        base_job_name="Train",
        training_image=image,
        # Already staged, by its content: the SDK then neither uploads it nor writes a path of this machine into the driver's configuration.
        source_code=SourceCode(source_dir=context.steps_uri, entry_script="train.py", requirements="requirements.txt"),
        distributed=Torchrun() if training.instance_count > 1 or accelerated else None,
        compute=Compute(
            instance_type=parameters.training_instance_type,
            instance_count=training.instance_count,
            volume_size_in_gb=training.volume_size_gb,
            enable_managed_spot_training=True if training.spot else None,
        ),
        stopping_condition=StoppingCondition(
            max_runtime_in_seconds=training.max_runtime_minutes * 60,
            **({"max_wait_time_in_seconds": training.max_wait_minutes * 60} if training.spot else {}),
        ),
        output_data_config=OutputDataConfig(s3_output_path=context.output_uri("Train")),
        checkpoint_config=CheckpointConfig(s3_uri=checkpoints, local_path=_CHECKPOINTS),
        environment=context.environment,
        hyperparameters={**hyperparameters, "checkpoint_dir": _CHECKPOINTS},
        tags=[SdkTag(key=tag["Key"], value=tag["Value"]) for tag in context.tags],
    ).use_code_store(context.code)
    definitions = json.loads(context.steps.files[_METRIC_DEFINITIONS])
    trainer.with_metric_definitions([MetricDefinition(name=item["Name"], regex=item["Regex"]) for item in definitions])
    channels = [InputData(channel_name=name, data_source=_output_of(preprocess, name)) for name in ("train", "validation")]
    with telemetry_off(context.session):
        step_args = trainer.train(input_data_config=channels)
    return TrainingStep(
        name="Train",
        display_name="Train the classifier",
        description="Fine-tunes the pretrained network on the train shards, calibrates its confidence on the validation shards and exports the "
        "artifact that serves.",
        step_args=step_args,
        cache_config=context.cache,
        retry_policies=context.job_retries,
    )


def evaluate_step(context: BuildContext, preprocess: ProcessingStep, train: TrainingStep, report: PropertyFile) -> ProcessingStep:
    """Score the artifact, and the champion's, on the test shards."""
    settings = context.settings
    return _processing_step(
        context,
        name="Evaluate",
        display_name="Evaluate the candidate",
        description="Scores the trained artifact through the code that serves it, and the newest approved model on the same test images.",
        script="evaluate.py",
        options={
            "--model": f"{_INPUT}/model",
            "--test": f"{_INPUT}/test",
            "--champion": f"{_INPUT}/champion",
            "--champion-uri": context.parameters.champion_model_uri,
            "--output": f"{_OUTPUT}/evaluation",
            "--threshold": _text(settings.evaluation.confidence_threshold),
            "--champion-tolerance": _text(settings.quality_gate.champion_tolerance),
        },
        inputs={
            "model": train.properties.ModelArtifacts.S3ModelArtifacts,
            "test": _output_of(preprocess, "test"),
            "champion": context.parameters.champion_model_uri,
        },
        outputs=("evaluation",),
        property_files=[report],
    )


def output_file(step: ProcessingStep, output: str, name: str) -> Join:
    """S3 URI of one file of a processing step's output."""
    return Join(on="/", values=[_output_of(step, output), name])


def _output_of(step: ProcessingStep, output: str) -> PipelineVariable:
    uri: PipelineVariable = step.properties.ProcessingOutputConfig.Outputs[output].S3Output.S3Uri
    return uri


def _text(value: object) -> str:
    """A setting as an argument or a hyperparameter: JSON, but strings bare, which is how the SDK's driver reads hyperparameters back."""
    return value if isinstance(value, str) else json.dumps(value)


def _processing_step(
    context: BuildContext,
    *,
    name: str,
    display_name: str,
    description: str,
    script: str,
    options: Mapping[str, str | PipelineVariable],
    inputs: Mapping[str, str | PipelineVariable],
    outputs: Sequence[str],
    property_files: Sequence[PropertyFile] = (),
) -> ProcessingStep:
    """A processing job that runs one job script.

    A plain Processor and an input for the code: the SDK's FrameworkProcessor would upload the code while the definition is rendered, under a
    prefix that holds the time, and ProcessingInputs are part of the cache key.
    """
    processing = context.settings.processing
    processor = Processor(
        role=context.platform.job_role_arn,
        image_uri=context.image("training", context.settings.images.processing, processing.instance_type),
        instance_count=1,
        instance_type=context.parameters.processing_instance_type,
        entrypoint=["python3", f"{_INPUT}/code/entry.py", script],
        volume_size_in_gb=processing.volume_size_gb,
        max_runtime_in_seconds=processing.max_runtime_minutes * 60,
        sagemaker_session=context.session,
        env=context.environment,
        tags=context.tags,
    )
    arguments = [part for option in {**options, "--failure-file": _FAILURE_FILE, "--job-config": _JOB_CONFIG}.items() for part in option]
    step_args = processor.run(
        inputs=[_processing_input(key, uri) for key, uri in {"code": context.steps_uri, **inputs}.items()],
        outputs=[_processing_output(context, name, key) for key in outputs],
        arguments=arguments,
    )
    return ProcessingStep(
        name=name,
        display_name=display_name,
        description=description,
        step_args=step_args,
        property_files=list(property_files),
        cache_config=context.cache,
        retry_policies=context.job_retries,
    )


def _processing_input(name: str, uri: str | PipelineVariable) -> ProcessingInput:
    return ProcessingInput(
        input_name=name,
        s3_input=ProcessingS3Input(
            s3_uri=uri,
            local_path=f"{_INPUT}/{name}",
            s3_data_type="S3Prefix",
            s3_input_mode="File",
            s3_data_distribution_type="FullyReplicated",
        ),
    )


def _processing_output(context: BuildContext, step: str, name: str) -> ProcessingOutput:
    return ProcessingOutput(
        output_name=name,
        s3_output=ProcessingS3Output(s3_uri=context.output_uri(step, name), local_path=f"{_OUTPUT}/{name}", s3_upload_mode="EndOfJob"),
    )
