"""The pipeline: Preprocess, Train, Evaluate, QualityGate, and then RegisterModel beside CreateModel, EndpointConfig, StagingEndpoint."""

from __future__ import annotations

from typing import Any

from sagemaker.mlops.workflow.pipeline import Pipeline

from pipelines.code_store import CodeBundle, CodeStore
from pipelines.jobs import BuildContext, evaluate_step, preprocess_step, train_step
from pipelines.parameters import make_parameters
from pipelines.platform import Platform
from pipelines.release import EVALUATION_REPORT, quality_gate_step, register_step, staging_steps
from pipelines.settings import Settings


def get_pipeline(
    settings: Settings, session: Any, *, platform: Platform, code: CodeStore, steps: CodeBundle, revision: str | None = None
) -> Pipeline:
    """Build the pipeline; pure: it reads nothing but its arguments and calls nothing.

    Args:
        settings: The project's settings.
        session: A PipelineSession (`pipelines.sdk.pipeline_session`), used for its region and to capture requests.
        platform: The account's resources.
        code: Collects the folders that the definition refers to; after `Pipeline.definition()`, `code.upload` stages them.
        steps: The job scripts.
        revision: Commit the definition was made from, for the registered model's metadata.
    """
    context = BuildContext(
        settings=settings,
        session=session,
        platform=platform,
        parameters=make_parameters(settings, platform.no_champion_uri),
        code=code,
        steps=steps,
    )
    preprocess = preprocess_step(context)
    train = train_step(context, preprocess)
    evaluate = evaluate_step(context, preprocess, train, EVALUATION_REPORT)
    register = register_step(context, preprocess, train, evaluate, revision)
    gate = quality_gate_step(context, evaluate, [register, *staging_steps(context, train)])
    return Pipeline(
        name=settings.pipeline.name,
        parameters=context.parameters.declared(),
        steps=[preprocess, train, evaluate, gate],
        sagemaker_session=session,
        pipeline_experiment_config=None,
    )
