"""What a person decides about a model version in the registry, carried out.

Approved deploys exactly that version to production; Rejected, of the version in production, brings back the newest other Approved one.
SageMaker sends an event on any change of a model package, may send one twice, and events may overtake each other. So:

- the package is read again: what counts is its status now, not the event's;
- an event that says which fields changed, and that the approval status is not one of them, is ignored;
- the latest decision wins: the stack carries the time of the decision it serves (parameter `DecidedAt`), and an approval older than that is
  ignored. Of two decisions in the same second, which is as fine as events tell, the one on the higher version wins;
- asking for what is already there is no change to CloudFormation, so a repeated event deploys nothing.

The function waits for CloudFormation, so that a deployment that fails is an invocation that fails: Lambda tries the event twice more (a
retry goes on waiting for a deployment that outlived the function) and then moves it, with the error, to the dead-letter queue. A deployment
that failed is not made again by a retry, which would put the same bad version before customers three times: it is only reported again.

After a deployment, what deployments and pipeline executions left is taken away but for the last few (`retirement.py`).
"""

import functools
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import boto3
from aws_lambda_powertools.logging import Logger
from botocore.config import Config

from lambdas.deploy_inference_workflow.errors import (
    DeploymentError,
    InvalidEventError,
    ModelPackageNotReadyError,
    NoRollbackTargetError,
)
from lambdas.deploy_inference_workflow.registry import APPROVED, COMPLETED, DETAIL_TYPE, REJECTED, ModelPackage, ModelPackageArn, Registry
from lambdas.deploy_inference_workflow.retirement import OutOfTimeError, Retirement
from lambdas.deploy_inference_workflow.stacks import Change, Desired, Stack, StackState

# Left for answering when the function's own time is nearly over.
RESERVE_SECONDS = 20.0

logger = Logger(service="deploy-inference-workflow")


@dataclass(frozen=True)
class Settings:
    """What the platform template tells the function through its environment."""

    group: str
    stack_name: str
    template_url: str
    deployment_role_arn: str
    parameters: Mapping[str, str]
    kept_versions: int

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Settings":
        """Reads MODEL_PACKAGE_GROUP_NAME, STACK_NAME, TEMPLATE_URL, DEPLOYMENT_ROLE_ARN, STACK_PARAMETERS (a JSON object of texts), KEPT_VERSIONS."""
        return cls(
            environment["MODEL_PACKAGE_GROUP_NAME"],
            environment["STACK_NAME"],
            environment["TEMPLATE_URL"],
            environment["DEPLOYMENT_ROLE_ARN"],
            json.loads(environment["STACK_PARAMETERS"]),
            int(environment["KEPT_VERSIONS"]),
        )

    @property
    def release(self) -> str:
        """Digest of template, code and settings, all but the model: while it is the same, the functions are, and none is published anew."""
        return hashlib.sha256(json.dumps([self.template_url, dict(self.parameters)], sort_keys=True).encode()).hexdigest()[:16]

    def desired(self, package: ModelPackage, decided_at: str, token: str | None = None) -> Desired:
        """Returns the inference stack that serves `package`; `token` is the event's that asks for it."""
        parameters = {**self.parameters, "Release": self.release, "ModelPackageArn": package.arn.arn, "DecidedAt": decided_at}
        return Desired({"TemplateURL": self.template_url}, parameters, role_arn=self.deployment_role_arn, token=token)


@dataclass(frozen=True)
class PackageChange:
    """A model package state change: `decided_at` is the event's time, `updated_fields` is empty where the event does not tell."""

    event_id: str
    arn: ModelPackageArn
    account: str
    region: str
    approval: str
    decided_at: datetime
    updated_fields: tuple[str, ...]

    @classmethod
    def parse(cls, event: object) -> "PackageChange":
        """Reads an EventBridge event.

        Raises:
            InvalidEventError: a field that decides is missing or malformed.
        """
        if not isinstance(event, Mapping) or event.get("detail-type") != DETAIL_TYPE or not isinstance(event.get("detail"), Mapping):
            raise InvalidEventError(f"Expected an EventBridge event '{DETAIL_TYPE}' with a detail.")
        detail = event["detail"]
        try:
            decided_at = datetime.fromisoformat(event["time"]).astimezone(UTC)
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidEventError(f"The event's time must be in ISO 8601; got {event.get('time')!r}.") from error
        return cls(
            str(event.get("id", "")),
            ModelPackageArn.parse(detail.get("ModelPackageArn")),
            str(event.get("account", "")),
            str(event.get("region", "")),
            str(detail.get("ModelApprovalStatus", "")),
            decided_at,
            tuple(detail.get("UpdatedModelPackageFields") or ()),
        )

    @property
    def token(self) -> str:
        """The same for the same event, however often it comes; in CloudFormation's alphabet."""
        return f"event-{hashlib.sha256(self.event_id.encode()).hexdigest()[:32]}"

    def reason_to_ignore(self, group: str, account: str, region: str) -> str | None:
        """Says why the event is not for this function, or returns None."""
        if {self.account, self.arn.account} != {account}:
            return f"it is of account {self.arn.account}, not of {account}"
        if {self.region, self.arn.region} != {region}:
            return f"it is of region {self.arn.region}, not of {region}"
        if self.arn.group != group:
            return f"it is of model package group '{self.arn.group}', not of '{group}'"
        if self.approval not in (APPROVED, REJECTED):
            return f"it decides nothing: the approval status is '{self.approval}'"
        if self.updated_fields and "ModelApprovalStatus" not in self.updated_fields:
            return f"it decides nothing: only {', '.join(self.updated_fields)} changed"
        return None


@logger.inject_lambda_context(correlation_id_path="id", clear_state=True)
def lambda_handler(event: Any, context: Any) -> dict[str, str]:
    """Handles one `SageMaker Model Package State Change` event.

    Returns `{"outcome": "created" | "updated" | "unchanged" | "ignored", "model_package_arn": ..., "reason": ...}`.

    Raises:
        DeploymentError: one of `errors.py`; anything else is AWS refusing a request, as botocore's ClientError.
    """
    try:
        change = PackageChange.parse(event)
        logger.append_keys(model_package_arn=change.arn.arn, approval=change.approval)
        _, _, _, region, account, *_ = context.invoked_function_arn.split(":")
        settings = Settings.from_environment(os.environ)
        reason = change.reason_to_ignore(settings.group, account, region)
        if reason is not None:
            return _ignored(change, reason)

        def seconds_left() -> float:
            return float(context.get_remaining_time_in_millis() / 1000 - RESERVE_SECONDS)

        stack = Stack(cloudformation(), settings.stack_name, seconds_left)
        decision = _Decision(settings, Registry(sagemaker()), change)
        outcome, _ = stack.apply(decision)
    except DeploymentError as error:
        logger.error(str(error), extra={"error_name": type(error).__name__})
        raise
    if outcome is Change.NONE_WANTED:
        return _ignored(change, decision.reason)
    logger.info("Inference stack deployed", extra={"outcome": outcome, "serves": decision.target, "stack": settings.stack_name})
    if outcome in (Change.CREATED, Change.UPDATED):
        _retire(settings, seconds_left)
    return {"outcome": outcome, "model_package_arn": decision.target, "reason": decision.reason}


class _Decision:
    """Decides what the stack shall be, from the registry and the stack as they are now. `reason` and `target` explain the last answer."""

    def __init__(self, settings: Settings, registry: Registry, change: PackageChange) -> None:
        self._settings = settings
        self._registry = registry
        self._change = change
        self.reason = ""
        self.target = ""

    def __call__(self, stack: StackState | None) -> Desired | None:
        package = self._registry.describe(self._change.arn)
        if package.approval != self._change.approval:
            self.reason = f"its approval status is {package.approval} by now"
            return None
        serving = stack if stack is not None and stack.serves else None
        if self._change.approval == REJECTED:
            return self._rollback(package, serving)
        return self._deployment(package, serving)

    def _deployment(self, package: ModelPackage, serving: StackState | None) -> Desired | None:
        if package.status != COMPLETED:
            raise ModelPackageNotReadyError(
                f"{package.arn} is Approved, but its status is {package.status}. "
                "Approve it again once it is Completed; if it failed, register it again."
            )
        decided_at = self._change.decided_at.isoformat()
        if serving is not None:
            served, served_since = ModelPackageArn.parse(serving.parameters["ModelPackageArn"]), serving.parameters["DecidedAt"]
            if served == package.arn:
                # The same version again: everything as it is, but for code and settings that have changed since.
                decided_at = served_since
            elif (datetime.fromisoformat(served_since), served.version) > (self._change.decided_at, package.arn.version):
                self.reason = f"a later decision put version {served.version} into production ({served_since})"
                return None
        self.reason = "approved"
        return self._serve(package, decided_at)

    def _rollback(self, rejected: ModelPackage, serving: StackState | None) -> Desired | None:
        if serving is None or serving.parameters["ModelPackageArn"] != rejected.arn.arn:
            self.reason = "it is not in production"
            return None
        target = self._registry.newest_approved(self._settings.group, other_than=rejected.arn)
        if target is None:
            raise NoRollbackTargetError(
                f"{rejected.arn} was rejected but stays in production: no other version is Approved. "
                f"Approve one, or delete the stack {self._settings.stack_name} to stop serving."
            )
        self.reason = f"version {rejected.arn.version} was rejected"
        return self._serve(target, self._change.decided_at.isoformat())

    def _serve(self, package: ModelPackage, decided_at: str) -> Desired:
        self.target = package.arn.arn
        logger.info("Deploying", extra={"serves": package.arn.arn, "reason": self.reason})
        return self._settings.desired(package, decided_at, self._change.token)


def _ignored(change: PackageChange, reason: str) -> dict[str, str]:
    logger.info("Event ignored", extra={"reason": reason})
    return {"outcome": "ignored", "model_package_arn": change.arn.arn, "reason": reason}


def _retire(settings: Settings, seconds_left: Callable[[], float]) -> None:
    """Takes away what is no longer kept. The deployment is done: nothing here may turn it into a failed invocation, which Lambda would repeat."""

    def check_time() -> None:
        if seconds_left() <= 0:
            raise OutOfTimeError

    retirement = Retirement(
        sagemaker(), functions(), cloudformation(), settings.parameters["Project"], settings.stack_name, settings.kept_versions, check_time
    )
    try:
        retired = retirement.run()
    except OutOfTimeError:
        logger.warning("No time is left to take retired versions away; the next deployment does it")
        return
    except Exception as error:  # noqa: BLE001  # whatever it is, production serves
        logger.warning(
            "Retired versions were not taken away; the next deployment tries again", extra={"why": f"{type(error).__name__}: {error}"}
        )
        return
    logger.info(
        "Retired versions taken away",
        extra={"configs": retired.configs, "models": retired.models, "functions": retired.functions, "failures": retired.failures},
    )


def _config() -> Config:
    return Config(retries={"mode": "standard", "total_max_attempts": 5}, connect_timeout=5, read_timeout=30)


@functools.cache
def cloudformation() -> Any:
    """Returns the CloudFormation client of this execution environment."""
    return boto3.client("cloudformation", config=_config())


@functools.cache
def sagemaker() -> Any:
    """Returns the SageMaker client of this execution environment."""
    return boto3.client("sagemaker", config=_config())


@functools.cache
def functions() -> Any:
    """Returns the Lambda client of this execution environment."""
    return boto3.client("lambda", config=_config())
