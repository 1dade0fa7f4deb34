"""Deploys the platform: code and templates to the artifact bucket, `platform.yaml` to CloudFormation.

The inference stack is not deployed here but by the function of the platform, when a person approves a model version. What it deploys then
is what was uploaded here.
"""

import json
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from typing import Any

from botocore.config import Config

from infrastructure.adoption import Adoption
from infrastructure.packaging import PLATFORM_TEMPLATE, Asset, Assets, Function, build_assets, template_source, upload_assets
from infrastructure.templates import Template
from lambdas.deploy_inference_workflow.errors import DeploymentError
from lambdas.deploy_inference_workflow.registry import APPROVED, DETAIL_TYPE, ModelPackageArn
from lambdas.deploy_inference_workflow.stacks import Change, Desired, Stack, StackState

DEFAULT_TIMEOUT_SECONDS = 900.0
# The function's own timeout, and a little for the way.
FUNCTION_TIMEOUT_SECONDS = 910
CAPABILITIES = ("CAPABILITY_IAM",)


class TrafficShifting(StrEnum):
    """How a new version takes over from the one before; see the parameter's description in `inference.yaml`."""

    ALL_AT_ONCE = "all-at-once"
    CANARY = "canary"
    LINEAR = "linear"


class ServingMode(StrEnum):
    """How production is served; see the parameter's description in `inference.yaml`."""

    SERVERLESS = "serverless"
    INSTANCE = "instance"


@dataclass(frozen=True)
class PlatformParameters:
    """The parameters of `platform.yaml` that an operator chooses; each is described there."""

    project: str = "scones"
    stage: str = "dev"
    model_package_group_name: str = "scones-vehicle-classifier"
    pipeline_name: str = "scones-vehicle-classifier"
    notification_email: str = ""
    image_bucket_name: str = ""
    serving_mode: ServingMode = ServingMode.SERVERLESS
    serving_instance_type: str = "ml.c6i.large"
    serving_instance_count: int = 2
    traffic_shifting: TrafficShifting = TrafficShifting.CANARY
    traffic_shift_wait_in_seconds: int = 300
    kept_versions: int = 3
    serverless_memory_in_mb: int = 2048
    serverless_max_concurrency: int = 5
    confidence_threshold: float = 0.93
    log_retention_in_days: int = 30
    new_versions_may_be: str = "PendingManualApproval"
    permissions_boundary_arn: str = ""
    encryption_key_arn: str = ""
    access_log_bucket_name: str = ""
    mlflow_tracking_server_arn: str = ""
    mlflow_app_arn: str = ""
    monthly_budget: int = 0

    @property
    def stack_name(self) -> str:
        """The platform stack's name."""
        return f"{self.project}-platform"

    def for_template(self) -> dict[str, str]:
        """Returns the parameters by their names in the template: `serverless_memory_in_mb` is `ServerlessMemoryInMB`."""
        return {_template_name(field.name): str(getattr(self, field.name)) for field in fields(self)}


@dataclass(frozen=True)
class PlatformOutputs:
    """The outputs of the platform stack, and what this deployment did."""

    artifact_bucket_name: str
    pipeline_role_arn: str
    job_role_arn: str
    model_role_arn: str
    model_package_group_name: str
    deploy_function_name: str
    deployment_role_arn: str
    event_dead_letter_queue_url: str
    approval_rule_name: str
    notification_topic_arn: str
    change: Change
    uploaded_keys: tuple[str, ...]


def deploy_platform(
    session: Any,
    parameters: PlatformParameters | None = None,
    *,
    timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
    on_progress: Callable[[str], None] = lambda line: None,
) -> PlatformOutputs:
    """Brings the platform stack to what the sources and `parameters` say, and waits until it is there.

    In a fresh account this takes two steps: a stack of bucket and registry; what the rest refers to goes into the bucket; then the rest is added.
    What outlived a stack that was deleted by hand is taken into the new one before that.
    Deploying what is already there changes nothing.

    Args:
        session: a boto3 session; AWS_ENDPOINT_URL or its profile says which region it talks to.
        parameters: default to `PlatformParameters()`.
        timeout_seconds: for all steps together.
        on_progress: is told, in short lines, what is being done.

    Raises:
        DeploymentError: CloudFormation could not do it (the message has the failed resources' reasons), did not do it in time, or has the
            stack in a state that a person has to get it out of.
        PackagingError: what goes into the zips is not installed.
    """
    parameters = parameters or PlatformParameters()
    deadline = time.monotonic() + timeout_seconds
    stack = watched_stack(session, parameters.stack_name, deadline, on_progress)
    assets = build_assets()

    def only_data(state: StackState | None) -> Desired | None:
        return None if has_bucket(state) else desired_data(parameters)

    on_progress(f"stack {parameters.stack_name}")
    before = stack.settle()
    stack.check_updatable(before)
    adopted = Adoption(session, stack, parameters.project, parameters.stage, parameters.for_template()).adopt(before)
    change, state = stack.apply(only_data)
    created = adopted or change is Change.CREATED
    bucket = existing(state, parameters.stack_name).outputs["ArtifactBucketName"]
    s3 = session.client("s3")
    uploaded = upload_assets(s3, bucket, assets)
    on_progress(f"{len(uploaded)} of {len(list(assets))} files uploaded to s3://{bucket}/code/")
    change, state = stack.apply(lambda _: desired_platform(parameters, assets, s3, bucket))
    return platform_outputs(existing(state, parameters.stack_name), Change.CREATED if created else change, uploaded)


def platform_outputs(state: StackState, change: Change, uploaded_keys: Sequence[str]) -> PlatformOutputs:
    """Returns what the platform stack in `state` gives to others, and what was done to it."""
    named = {field.name: state.outputs[_template_name(field.name)] for field in fields(PlatformOutputs)[:-2]}
    return PlatformOutputs(**named, change=change, uploaded_keys=tuple(uploaded_keys))


def refresh_inference(session: Any, platform: PlatformOutputs, inference_stack_name: str = "scones-inference") -> str | None:
    """Brings code and settings of the platform to an inference stack that is there already, and leaves the model version as it is.

    Has the deploying function decide once more what was decided for the version in production, which is also how an approval is repeated.
    Returns the function's outcome ("updated", "unchanged", or "ignored" where the version is no longer Approved), or None when there is no
    inference stack that serves.

    Raises:
        DeploymentError: the function failed; the message is its error.
    """
    state = Stack(session.client("cloudformation"), inference_stack_name, lambda: 0.0).describe()
    if state is None or not state.serves:
        return None
    arn = ModelPackageArn.parse(state.parameters["ModelPackageArn"])
    return request_deployment(session, platform.deploy_function_name, arn, state.parameters["DecidedAt"]).outcome


@dataclass(frozen=True)
class DeploymentOutcome:
    """What the deploying function did: "created", "updated", "unchanged" or "ignored", and why."""

    outcome: str
    reason: str


def request_deployment(session: Any, function_name: str, arn: ModelPackageArn, decided_at: str) -> DeploymentOutcome:
    """Has the deploying function deploy a version as if it had been approved at `decided_at`, and waits until that is done.

    The same path, role and rules as after an approval: the version must be Approved, and the latest decision wins.

    Args:
        session: a boto3 session.
        function_name: the platform's deploying function.
        arn: the version.
        decided_at: in ISO 8601.

    Raises:
        DeploymentError: the function failed; the message is its error, with its name before it.
        botocore.exceptions.ReadTimeoutError: no answer came; the function may still be at work.
    """
    event = {
        # A new one each time: what failed for an event is not tried again for the same one.
        "id": str(uuid.uuid4()),
        "source": "scones.platform",
        "detail-type": DETAIL_TYPE,
        "account": arn.account,
        "region": arn.region,
        "time": decided_at,
        "detail": {"ModelPackageGroupName": arn.group, "ModelPackageArn": arn.arn, "ModelApprovalStatus": APPROVED},
    }
    client = session.client("lambda", config=Config(read_timeout=FUNCTION_TIMEOUT_SECONDS, retries={"total_max_attempts": 1}))
    response = client.invoke(FunctionName=function_name, Payload=json.dumps(event).encode())
    answer = json.loads(response["Payload"].read())
    if "FunctionError" in response:
        raise DeploymentError(f"{answer.get('errorType', 'Error')}: {answer.get('errorMessage', answer)}")
    return DeploymentOutcome(str(answer["outcome"]), str(answer.get("reason", "")))


def desired_platform(parameters: PlatformParameters, assets: Assets, s3: Any, bucket: str) -> Desired:
    """Returns what the platform stack shall be, with the code in `assets`. A template that is too long for a request is put into the bucket for that."""
    return _desired(parameters, template_source(PLATFORM_TEMPLATE, s3, bucket), asset_parameters(assets))


def desired_data(parameters: PlatformParameters) -> Desired:
    """Returns the part of the platform stack that holds data, which comes first: the rest refers to what is in its bucket."""
    template = platform_data()
    desired = _desired(parameters, {"TemplateBody": template.body()}, {})
    return replace(desired, parameters=template.declared(desired.parameters))


def platform_data() -> Template:
    """Returns the part of the platform's template that holds data."""
    return Template.read(PLATFORM_TEMPLATE).what_holds_data()


def _desired(parameters: PlatformParameters, template: Mapping[str, str], code: Mapping[str, str]) -> Desired:
    return Desired(
        template,
        {**parameters.for_template(), **code},
        capabilities=CAPABILITIES,
        tags={"project": parameters.project, "stage": parameters.stage},
    )


def asset_parameters(assets: Assets) -> dict[str, str]:
    """Returns the parameters of `platform.yaml` that name the files in `assets`."""
    named: dict[str, Asset] = {f"{_template_name(function)}CodeKey": assets.functions[function] for function in Function}
    named |= {"WorkflowDefinitionKey": assets.workflow_definition, "InferenceTemplateKey": assets.inference_template}
    return {name: asset.key for name, asset in named.items()}


def watched_stack(session: Any, name: str, deadline: float, on_progress: Callable[[str], None]) -> Stack:
    """Returns a stack whose changes of status are told to `on_progress`; `deadline` is in seconds of `time.monotonic()`."""
    last_status = ""

    def on_status(status: str) -> None:
        nonlocal last_status
        if status != last_status:
            last_status = status
            on_progress(f"stack {name}: {status}")

    return Stack(session.client("cloudformation"), name, lambda: deadline - time.monotonic(), on_status=on_status)


def has_bucket(state: StackState | None) -> bool:
    """Returns whether the stack is a platform already, to whose bucket the code can go. One that was only just imported is none."""
    return state is not None and not state.is_leftover and "ArtifactBucketName" in state.outputs


def existing(state: StackState | None, name: str) -> StackState:
    """Returns `state`.

    Raises:
        DeploymentError: there is no stack any more.
    """
    if state is None:
        raise DeploymentError(f"The stack {name} was deleted while it was being deployed. Deploy again.")
    return state


def _template_name(field_name: str) -> str:
    return "".join("MB" if part == "mb" else part.capitalize() for part in field_name.split("_"))
