"""Running the pipeline: check, stage code, find the champion, create or update, start, follow."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pipelines.champion import resolve_champion
from pipelines.changes import DATA_PARAMETER, changed_inputs, newest_counting_run, newest_input_data
from pipelines.definition import PIPELINE_MODULE, RenderedDefinition, load_definition
from pipelines.errors import InputDataError
from pipelines.executions import ExecutionResult, StepProgress, describe_execution, follow_execution
from pipelines.lint import check_sources
from pipelines.platform import Platform, resolve_platform
from pipelines.revision import source_revision
from pipelines.settings import Settings

if TYPE_CHECKING:
    import boto3


@dataclass(frozen=True, slots=True)
class Preparing:
    """Something that happens before the execution starts."""

    phase: Literal["check", "data", "definition", "code", "champion", "pipeline", "changes"]
    detail: str


@dataclass(frozen=True, slots=True)
class Started:
    """The execution exists."""

    execution_arn: str
    parameters: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class NothingChanged:
    """No execution was started: what a model depends on is as it was for this one."""

    execution_arn: str
    status: str


RunEvent = Preparing | Started | NothingChanged | StepProgress
Upserted = Literal["created", "updated", "unchanged"]
_LONGEST_DISPLAY_NAME = 82


def run_pipeline(
    settings: Settings,
    boto_session: boto3.Session,
    *,
    input_data_uri: str | None = None,
    wait: bool = True,
    only_if_changed: bool = False,
    on_event: Callable[[RunEvent], None] = lambda event: None,
    cache_dir: Path | None = None,
    module_name: str = PIPELINE_MODULE,
) -> ExecutionResult:
    """Create or update the pipeline, start an execution and, unless told otherwise, follow it to its end.

    Args:
        settings: The project's settings.
        boto_session: Session whose clients reach the account; AWS_ENDPOINT_URL is honoured as by every boto3 client.
        input_data_uri: Staged images (overrides the settings' ``data.input_uri``; without either, those of the newest execution).
        wait: Follow the execution until it has ended; otherwise return once it has started.
        only_if_changed: Start nothing when all that a model depends on is as it was for the newest execution that has not failed; the result
            is then that execution, as it stands.
        on_event: Told about each phase, the start, and each step's change of status.
        cache_dir: Folder for rendered definitions; saves importing the SageMaker SDK when nothing changed.
        module_name: Module with the ``get_pipeline`` to run.

    Returns:
        The execution: at its end, with the evaluation's figures and the registered version.

    Raises:
        PipelinesError: Nothing was started, and the message says why.
    """
    on_event(Preparing("check", "Checking the pipeline's source"))
    check_sources()
    platform = resolve_platform(settings, boto_session)
    data_uri = _existing_data(input_data_uri or _named_data(settings, platform, boto_session, on_event), platform, boto_session)
    on_event(Preparing("definition", "Rendering the definition"))
    revision = source_revision()
    definition = load_definition(settings, platform, boto_session, revision=revision, cache_dir=cache_dir, module_name=module_name)
    s3 = boto_session.client("s3", region_name=platform.region)
    uploaded = definition.code.upload(s3)
    on_event(Preparing("code", f"Staged {uploaded} files of code" if uploaded else "The code is staged already"))
    champion = resolve_champion(platform, boto_session)
    on_event(
        Preparing("champion", "No model has been approved yet" if champion == platform.no_champion_uri else f"The champion is {champion}")
    )
    outcome = upsert_pipeline(settings, platform, boto_session, definition)
    on_event(Preparing("pipeline", f"Pipeline {settings.pipeline.name} {outcome}"))
    parameters = {DATA_PARAMETER: data_uri, "ChampionModelUri": champion}
    if only_if_changed and (earlier := _same_run(settings, platform, boto_session, definition, parameters, on_event)) is not None:
        return earlier
    arn = start_execution(settings, platform, boto_session, parameters, on_event, revision=revision)
    if wait:
        for step in follow_execution(boto_session, arn):
            on_event(step)
    return describe_execution(boto_session, arn)


@dataclass(frozen=True, slots=True)
class RunPlan:
    """What `run_pipeline` would do.

    Attributes:
        pipeline: What would happen to the pipeline itself.
        parameters: Every parameter of the execution with its value.
        uploads: Keys of the code files that the bucket lacks.
        steps: Names of the steps, in the definition's order.
        same_as: The execution for which nothing would be started, when that was asked for and nothing has changed since.
    """

    pipeline: Upserted
    parameters: Mapping[str, str]
    uploads: tuple[str, ...]
    steps: tuple[str, ...]
    same_as: NothingChanged | None = None


def plan_run(
    settings: Settings,
    boto_session: boto3.Session,
    *,
    input_data_uri: str | None = None,
    is_staged: bool = True,
    only_if_changed: bool = False,
    cache_dir: Path | None = None,
    module_name: str = PIPELINE_MODULE,
) -> RunPlan:
    """Find out what `run_pipeline` would do: check, render, lint and resolve as it does, and write nothing to the account.

    Args:
        is_staged: Whether `input_data_uri` must be there already.
        settings, boto_session, input_data_uri, only_if_changed, cache_dir, module_name: See `run_pipeline`.

    Raises:
        PipelinesError: The run would not start, and the message says why.
    """
    check_sources()
    platform = resolve_platform(settings, boto_session)
    named = input_data_uri or _named_data(settings, platform, boto_session)
    data_uri = named if named is not None and not is_staged else _existing_data(named, platform, boto_session)
    definition = load_definition(settings, platform, boto_session, revision=source_revision(), cache_dir=cache_dir, module_name=module_name)
    document = definition.document
    parameters = {parameter["Name"]: str(parameter.get("DefaultValue", "")) for parameter in document["Parameters"]}
    given = {DATA_PARAMETER: data_uri, "ChampionModelUri": resolve_champion(platform, boto_session, dry_run=True)}
    client = boto_session.client("sagemaker", region_name=platform.region)
    same = None
    if only_if_changed:
        compared = _compare(client, settings, definition, given)
        same = compared if isinstance(compared, NothingChanged) else None
    return RunPlan(
        _pending_upsert(client, settings.pipeline.name, _pipeline_request(settings, platform, definition)),
        parameters | given,
        tuple(sorted(definition.code.missing(boto_session.client("s3", region_name=platform.region)))),
        tuple(_step_names(document["Steps"])),
        same,
    )


def _step_names(steps: list[dict[str, Any]]) -> Iterator[str]:
    for step in steps:
        yield step["Name"]
        for branch in ("IfSteps", "ElseSteps"):
            yield from _step_names(step.get("Arguments", {}).get(branch, []))


def _pipeline_request(settings: Settings, platform: Platform, definition: RenderedDefinition) -> dict[str, Any]:
    return {
        "PipelineDefinition": definition.text,
        "PipelineDescription": settings.pipeline.description,
        "RoleArn": platform.pipeline_role_arn,
        "ParallelismConfiguration": {"MaxParallelExecutionSteps": settings.pipeline.max_parallel_steps},
    }


def _pending_upsert(client: Any, name: str, wanted: Mapping[str, Any]) -> Upserted:
    """What has to be done to a pipeline, so that it is as it is wanted."""
    from botocore.exceptions import ClientError

    try:
        current = client.describe_pipeline(PipelineName=name)
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") not in ("ResourceNotFound", "ValidationException"):
            raise
        return "created"
    return "unchanged" if all(current.get(key) == value for key, value in wanted.items()) else "updated"


def upsert_pipeline(settings: Settings, platform: Platform, boto_session: boto3.Session, definition: RenderedDefinition) -> Upserted:
    """Create the pipeline, or update it when its definition, role, description or parallelism differ."""
    client = boto_session.client("sagemaker", region_name=platform.region)
    wanted = _pipeline_request(settings, platform, definition)
    outcome = _pending_upsert(client, settings.pipeline.name, wanted)
    if outcome == "created":
        tags = [{"Key": tag.key, "Value": tag.value} for tag in settings.project.tags]
        client.create_pipeline(PipelineName=settings.pipeline.name, PipelineDisplayName=settings.pipeline.name, Tags=tags, **wanted)
    elif outcome == "updated":
        client.update_pipeline(PipelineName=settings.pipeline.name, **wanted)
    return outcome


def start_execution(
    settings: Settings,
    platform: Platform,
    boto_session: boto3.Session,
    parameters: Mapping[str, str],
    on_event: Callable[[RunEvent], None] = lambda event: None,
    *,
    revision: str | None = None,
) -> str:
    """Start an execution with the given values for parameters and return its ARN; a commit is told in its name and description."""
    client = boto_session.client("sagemaker", region_name=platform.region)
    told = {"PipelineExecutionDescription": "sources of no known commit"} if revision is None else execution_names(revision)
    response = client.start_pipeline_execution(
        PipelineName=settings.pipeline.name,
        PipelineParameters=[{"Name": name, "Value": value} for name, value in parameters.items()],
        **told,
    )
    arn = str(response["PipelineExecutionArn"])
    on_event(Started(arn, dict(parameters)))
    return arn


def execution_names(revision: str) -> dict[str, str]:
    """What an execution that is made from a commit is called (letters, digits and single hyphens, at most 82) and described as."""
    parts = re.findall("[a-zA-Z0-9]+", revision)
    return {
        "PipelineExecutionDisplayName": "-".join(["commit", *parts])[:_LONGEST_DISPLAY_NAME].rstrip("-"),
        "PipelineExecutionDescription": f"commit {revision}",
    }


def _same_run(
    settings: Settings,
    platform: Platform,
    boto_session: boto3.Session,
    definition: RenderedDefinition,
    parameters: Mapping[str, str],
    on_event: Callable[[RunEvent], None],
) -> ExecutionResult | None:
    """The newest execution that counts, when a new one would make the same model; else None, and what changed is told."""
    compared = _compare(boto_session.client("sagemaker", region_name=platform.region), settings, definition, parameters)
    on_event(compared)
    if isinstance(compared, Preparing):
        return None
    return replace(describe_execution(boto_session, compared.execution_arn), is_earlier=True)


def _compare(client: Any, settings: Settings, definition: RenderedDefinition, parameters: Mapping[str, str]) -> NothingChanged | Preparing:
    """What an execution would have that the newest that counts had not."""
    earlier = newest_counting_run(client, settings.pipeline.name)
    if earlier is None:
        return Preparing("changes", "No execution has made a model yet")
    changed = changed_inputs(earlier, definition.document, parameters)
    if changed:
        return Preparing("changes", f"Changed since execution {earlier.execution_arn.rpartition('/')[2]}: {', '.join(changed)}")
    return NothingChanged(earlier.execution_arn, earlier.status)


def _named_data(
    settings: Settings, platform: Platform, boto_session: boto3.Session, on_event: Callable[[RunEvent], None] = lambda event: None
) -> str | None:
    """The images that the settings name, or those of the newest execution; None when there is neither."""
    if settings.data.input_uri is not None:
        return settings.data.input_uri
    uri = newest_input_data(boto_session.client("sagemaker", region_name=platform.region), settings)
    if uri is not None:
        on_event(Preparing("data", f"No images are named: those of the newest execution, {uri}"))
    return uri


def _existing_data(uri: str | None, platform: Platform, boto_session: boto3.Session) -> str:
    """The URI of staged images, with a slash at its end, once it is known that there are some."""
    from botocore.exceptions import ClientError

    if uri is None:
        raise InputDataError(
            "there are no images to train on; give a folder of class folders (scones run --data FOLDER, or sample for drawn pictures), or name a staged prefix with "
            "--set data.input_uri=s3://..."
        )
    uri = uri if uri.endswith("/") else f"{uri}/"
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    try:
        boto_session.client("s3", region_name=platform.region).head_object(Bucket=bucket, Key=f"{prefix}manifest.json")
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code")
        reason = "there is no manifest.json" if code in ("404", "NoSuchKey", "NotFound") else f"S3 says {code}"
        raise InputDataError(f"no staged images at {uri}: {reason}; stage some first (scones stage FOLDER)") from None
    return uri
