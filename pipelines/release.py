"""What follows evaluation: the quality gate, registration, and the candidate on the staging endpoint."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from sagemaker.core.helper.pipeline_variable import PipelineVariable
from sagemaker.core.model_registry import create_model_package_from_containers
from sagemaker.core.workflow.conditions import ConditionGreaterThanOrEqualTo
from sagemaker.core.workflow.execution_variables import ExecutionVariables
from sagemaker.core.workflow.functions import Join, JsonGet
from sagemaker.core.workflow.properties import PropertyFile
from sagemaker.mlops.workflow.condition_step import ConditionStep
from sagemaker.mlops.workflow.endpoint_step import EndpointConfigStep, EndpointStep
from sagemaker.mlops.workflow.fail_step import FailStep
from sagemaker.mlops.workflow.model_step import ModelStep
from sagemaker.mlops.workflow.steps import ProcessingStep, Step, TrainingStep

from pipelines.jobs import BuildContext, output_file
from pipelines.sample_payload import sample_payload

EVALUATION_REPORT = PropertyFile(name="EvaluationReport", output_name="evaluation", path="evaluation.json")
CONTENT_TYPES = ["image/png", "image/jpeg", "image/webp", "application/x-image"]
RESPONSE_TYPES = ["application/json"]
VARIANT_NAME = "AllTraffic"


def quality_gate_step(context: BuildContext, evaluate: ProcessingStep, if_passed: list[Step]) -> ConditionStep:
    """Accuracy at least the minimum, and at least the champion's less the tolerance; else a failure that names the figures."""
    accuracy = _figure(evaluate, "accuracy")
    floor = _figure(evaluate, "accuracy_floor_from_champion")
    minimum = context.parameters.minimum_accuracy
    missed = FailStep(
        name="QualityGateMissed",
        display_name="Quality gate missed",
        description="Ends the execution as Failed with the figures that decided it; nothing is registered or deployed.",
        error_message=Join(
            on="",
            values=[
                "Quality gate missed: test accuracy ",
                accuracy,
                "; required: at least ",
                minimum,
                " (MinimumAccuracy) and at least ",
                floor,
                " (accuracy of the newest approved model on the same images, less the tolerance). Nothing was registered or deployed.",
            ],
        ),
    )
    return ConditionStep(
        name="QualityGate",
        display_name="Quality gate",
        description="Passes when the test accuracy reaches the minimum and is not worse than the newest approved model's by more than the tolerance.",
        conditions=[
            ConditionGreaterThanOrEqualTo(left=accuracy, right=minimum),
            ConditionGreaterThanOrEqualTo(left=accuracy, right=floor),
        ],
        if_steps=if_passed,
        else_steps=[missed],
    )


def register_step(
    context: BuildContext, preprocess: ProcessingStep, train: TrainingStep, evaluate: ProcessingStep, revision: str | None
) -> ModelStep:
    """Register a new version in the model package group, waiting for approval."""
    quality = _statistics(output_file(evaluate, "evaluation", "evaluation.json"))
    data_statistics = _statistics(output_file(preprocess, "report", "statistics.json"))
    data_constraints = _statistics(output_file(preprocess, "report", "constraints.json"))
    metadata: dict[str, str | PipelineVariable] = {
        "pipeline_execution_arn": ExecutionVariables.PIPELINE_EXECUTION_ARN,
        "input_data_uri": context.parameters.input_data_uri,
        "champion_model_uri": context.parameters.champion_model_uri,
        "code_digest": context.steps.digest,
        "dataset_digest": _figure(evaluate, "dataset_digest"),
        # CustomerMetadataProperties hold strings, a Join makes one of the number.
        "accuracy": Join(on="", values=[_figure(evaluate, "accuracy")]),
    }
    if revision is not None:
        metadata["git_commit"] = revision
    session = context.session
    session.context = None
    session.init_model_step_arguments(SimpleNamespace(sagemaker_session=session))
    step_args = create_model_package_from_containers(
        session,
        containers=[_container(context, train)],
        content_types=CONTENT_TYPES,
        response_types=RESPONSE_TYPES,
        inference_instances=list(context.settings.registry.inference_instance_types),
        transform_instances=list(context.settings.registry.inference_instance_types),
        model_package_group_name=context.platform.model_package_group,
        model_metrics={
            "ModelQuality": {"Statistics": quality},
            "ModelDataQuality": {"Statistics": data_statistics, "Constraints": data_constraints},
        },
        drift_check_baselines={
            "ModelQuality": {"Statistics": quality},
            "ModelDataQuality": {"Statistics": data_statistics, "Constraints": data_constraints},
        },
        approval_status=context.parameters.model_approval_status,
        customer_metadata_properties=metadata,
        domain="COMPUTER_VISION",
        task="IMAGE_CLASSIFICATION",
        sample_payload_url=context.code.add(sample_payload()) + "sample_payload.tar.gz",
    )
    session.context = None
    return ModelStep(
        name="RegisterModel",
        display_name="Register the model",
        description="Adds the model to the registry with its metrics and baselines; a person approves it from there.",
        step_args=step_args,
        retry_policies=context.service_retries,
    )


def staging_steps(context: BuildContext, train: TrainingStep) -> list[Step]:
    """Model, endpoint configuration and endpoint of the candidate, on staging."""
    endpoint = context.settings.staging_endpoint
    model = _create_model_step(context, train)
    variant: dict[str, Any] = {"VariantName": VARIANT_NAME, "ModelName": model.properties.ModelName}
    if endpoint.kind == "serverless":
        variant["ServerlessConfig"] = {
            "MemorySizeInMB": endpoint.serverless_memory_mb,
            "MaxConcurrency": endpoint.serverless_max_concurrency,
        }
    else:
        variant["InstanceType"] = endpoint.instance_type
        variant["InitialInstanceCount"] = endpoint.instance_count
        variant["InitialVariantWeight"] = 1.0
    config_args = context.session.create_endpoint_config(
        # An endpoint configuration cannot be changed: each execution makes one of its own name, and the endpoint moves over to it.
        name=Join(on="-", values=[endpoint.name, ExecutionVariables.PIPELINE_EXECUTION_ID]),
        production_variants=[variant],
        tags=context.tags,
    )
    config = EndpointConfigStep(
        name="EndpointConfig",
        display_name="Configure the staging endpoint",
        description="How the candidate is served on staging.",
        step_args=config_args,
        retry_policies=context.service_retries,
    )
    endpoint_args = context.session.create_endpoint(
        endpoint_name=endpoint.name, config_name=config.properties.EndpointConfigName, tags=context.tags
    )
    # SageMaker creates the endpoint or, when one of this name exists, updates it to the new configuration.
    deploy = EndpointStep(
        name="StagingEndpoint",
        display_name="Deploy to staging",
        description="Creates the staging endpoint or moves it to the candidate.",
        step_args=endpoint_args,
    )
    return [model, config, deploy]


def _create_model_step(context: BuildContext, train: TrainingStep) -> ModelStep:
    session = context.session
    session.context = None
    session.init_model_step_arguments(SimpleNamespace(sagemaker_session=session))
    session.create_model(name=None, role=context.platform.model_role_arn, container_defs=_container(context, train), tags=context.tags)
    step_args = session.context
    session.context = None
    return ModelStep(
        name="CreateModel",
        display_name="Create the candidate model",
        description="The trained artifact with the container that serves it.",
        step_args=step_args,
        retry_policies=context.service_retries,
    )


def _container(context: BuildContext, train: TrainingStep) -> dict[str, Any]:
    """The serving container; the artifact brings its own inference code, so nothing has to be repacked."""
    settings = context.settings
    return {
        "Image": context.image("inference", settings.images.inference, settings.staging_endpoint.instance_type),
        "ModelDataUrl": train.properties.ModelArtifacts.S3ModelArtifacts,
        "Environment": {
            "SAGEMAKER_PROGRAM": "inference.py",
            "SAGEMAKER_SUBMIT_DIRECTORY": "/opt/ml/model/code",
            "SAGEMAKER_CONTAINER_LOG_LEVEL": "20",
            "SAGEMAKER_REGION": context.platform.region,
        },
    }


def _figure(evaluate: ProcessingStep, name: str) -> JsonGet:
    return JsonGet(step_name=evaluate.name, property_file=EVALUATION_REPORT, json_path=f"scones.{name}")


def _statistics(uri: Join) -> dict[str, Any]:
    return {"ContentType": "application/json", "S3Uri": uri}
