"""What serves in production, what served before, and taking it to another version by the way that approvals go."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from scones import log_streams
from scones.deployment import WAIT_SECONDS, wait_for_production
from scones.errors import ExitCode, SconesError
from scones.registry import Decision, ModelVersion, Registry, stack_outputs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from infrastructure.changes import ResourceChange
    from infrastructure.deploy import DeploymentOutcome
    from lambdas.deploy_inference_workflow.registry import ModelPackageArn
    from lambdas.deploy_inference_workflow.retirement import EndpointConfig
    from lambdas.deploy_inference_workflow.stacks import Stack, StackState
    from pipelines.settings import Settings
    from scones.target import Target

#: For CloudFormation to work out what would change.
PLAN_SECONDS = 300.0
_DEPLOYED = "Inference stack deployed"


@dataclass(frozen=True)
class Deployment:
    """One line of production's history: `model_package_arn` serves since `at`, or could not be deployed (`failure`).

    `endpoint_config` is the configuration that it served with, and could again at once; None when that is not kept.
    """

    at: datetime
    model_package_arn: str
    outcome: str
    failure: str | None = None
    endpoint_config: str | None = None

    def document(self) -> dict[str, Any]:
        """Return the deployment as --json prints it."""
        version = self.model_package_arn.rpartition("/")[2]
        return {
            "at": self.at,
            "version": int(version) if version.isdigit() else None,
            "outcome": self.outcome,
            "failure": self.failure,
            "model_package_arn": self.model_package_arn,
            "endpoint_config": self.endpoint_config,
        }


@dataclass(frozen=True)
class Consequence:
    """What a decision would set off: `serves` is the version that production would serve then, None for none."""

    text: str
    serves: str | None
    changes: tuple[ResourceChange, ...]


class Production:
    """The inference stack and the function that deploys it."""

    def __init__(self, target: Target, settings: Settings) -> None:
        self._target = target
        self._settings = settings
        self.registry = Registry(target, settings)
        self.stack_name = f"{settings.project.name}-inference"

    def state(self, on_status: Callable[[str], None] = lambda line: None) -> StackState:
        """Return the inference stack, once a deployment that is under way has ended: before that it says nothing sure.

        Raises:
            SconesError: Nothing is in production, or the stack is in a state in which it says nothing about that.
            DeploymentInProgressError: The deployment does not end in time.
        """
        state = self.stack(on_status).settle()
        if state is None:
            raise SconesError(
                f"Nothing is in production: there is no stack {self.stack_name} ({self._target})",
                "Approve a version: scones models approve",
                ExitCode.USAGE,
            )
        if "ModelPackageArn" not in state.parameters or state.is_leftover:
            raise SconesError(
                f"Nothing is in production: the stack {self.stack_name} is in {state.status}",
                "Approve a version again: scones models approve VERSION",
            )
        return state

    def stack(self, on_status: Callable[[str], None] = lambda line: None) -> Stack:
        """Return the inference stack, to be looked at or waited for."""
        from infrastructure.deploy import watched_stack

        return watched_stack(self._target.session, self.stack_name, time.monotonic() + WAIT_SECONDS, on_status)

    def function_name(self) -> str:
        """Return the deploying function's name.

        Raises:
            SconesError: There is no platform, or one without functions.
        """
        return self._platform_outputs()["DeployFunctionName"]

    def _platform_outputs(self) -> dict[str, str]:
        stack = self._settings.aws.platform_stack
        outputs = stack_outputs(self._target, stack) or {}
        if "DeployFunctionName" not in outputs:
            raise SconesError(
                f"The stack {stack} has no deploying function ({self._target})", "Make it: scones aws bootstrap", ExitCode.USAGE
            )
        return outputs

    def check_decisions_arrive(self) -> None:
        """Look whether the event of a decision would reach the deploying function; what the caller may not look at is not known, and lets through.

        Raises:
            SconesError: There is no deploying function, or what leads to it was changed by hand.
        """
        outputs = self._platform_outputs()
        for look in (self._broken_rule, self._broken_permission):
            try:
                broken = look(outputs)
            except ClientError as error:
                if "AccessDenied" not in error.response["Error"]["Code"]:
                    raise
                continue
            if broken is not None:
                raise SconesError(
                    f"Nothing would carry the decision out: {broken}",
                    "Somebody changed the platform by hand. See what: scones aws diff; put it back: scones aws bootstrap --revert-drift",
                )

    def _broken_rule(self, outputs: Mapping[str, str]) -> str | None:
        rule, function = outputs.get("ApprovalRuleName", ""), outputs["DeployFunctionName"]
        events = self._target.client("events")
        try:
            if events.describe_rule(Name=rule)["State"] != "ENABLED":
                return f"the rule {rule} is disabled"
            targets = events.list_targets_by_rule(Rule=rule)["Targets"]
        except events.exceptions.ResourceNotFoundException:
            return f"the rule {rule} is gone"
        return None if any(target["Arn"].endswith(f":{function}") for target in targets) else f"the rule {rule} does not name {function}"

    def _broken_permission(self, outputs: Mapping[str, str]) -> str | None:
        function = outputs["DeployFunctionName"]
        client = self._target.client("lambda")
        try:
            policy = client.get_policy(FunctionName=function)["Policy"]
        except client.exceptions.ResourceNotFoundException:
            return f"the function {function} is gone, or the rule may not invoke it"
        return None if "events.amazonaws.com" in policy else f"the rule may not invoke the function {function}"

    def history(self) -> list[Deployment]:
        """Return what was deployed, newest first, as far back as the deploying function's log is kept."""
        found = []
        configs = self._configs()
        for line in log_streams.read(self._target, log_streams.of_function(self.function_name())):
            record = _record(line.message)
            at = datetime.fromtimestamp(line.timestamp / 1000, UTC)
            if record.get("message") == _DEPLOYED and record.get("outcome") in ("created", "updated"):
                served = str(record.get("serves", ""))
                # The newest that there was by then: a version that came back has one of each time.
                used = next((config.name for config in configs if config.package == served and config.created_at <= at), None)
                found.append(Deployment(at, served, str(record["outcome"]), None, used))
            elif "error_name" in record:
                found.append(Deployment(at, str(record.get("model_package_arn", "")), "failed", str(record.get("message", ""))))
        return found[::-1]

    def _configs(self) -> list[EndpointConfig]:
        """Return the project's endpoint configurations that are kept, newest first."""
        from lambdas.deploy_inference_workflow.retirement import Hosting

        return Hosting(self._target.client("sagemaker"), self._settings.project.name).configs()

    def rollback_target(self, serving: str, version: str | None) -> ModelVersion:
        """Return the version that production shall go back to: the one that was asked for, else the one that served before this one.

        Raises:
            SconesError: That version does not exist, is not Approved or serves already; or there is none to go back to.
        """
        if version is not None:
            found = self.registry.find(version)
            if found.arn == serving:
                raise SconesError(f"Version {found.number} is in production already", exit_code=ExitCode.USAGE)
            if found.status != "Approved":
                raise SconesError(
                    f"Version {found.number} is {found.status}; only Approved versions are deployed",
                    f"Approve it, which deploys it too: scones models approve {found.number}",
                    ExitCode.USAGE,
                )
            return found
        approved = {item.arn: item for item in self.registry.versions() if item.status == "Approved" and item.arn != serving}
        for deployment in self.history():
            if deployment.failure is None and deployment.model_package_arn in approved:
                return approved[deployment.model_package_arn]
        if not approved:
            raise SconesError(
                "There is no other Approved version to go back to",
                "See them: scones models list. Approving one deploys it: scones models approve VERSION",
                ExitCode.USAGE,
            )
        return max(approved.values(), key=lambda item: item.number)

    def plan(self, arn: str, decided_at: str) -> tuple[ResourceChange, ...]:
        """Return what the deploying function would change to deploy a version: it is asked for its settings, CloudFormation for the changes."""
        from infrastructure.changes import ChangeSets
        from lambdas.deploy_inference_workflow.handler import Settings
        from lambdas.deploy_inference_workflow.registry import ModelPackage, ModelPackageArn
        from lambdas.deploy_inference_workflow.stacks import Stack

        function = self._target.client("lambda").get_function_configuration(FunctionName=self.function_name())
        settings = Settings.from_environment(function["Environment"]["Variables"])
        deadline = time.monotonic() + PLAN_SECONDS
        client = self._target.client("cloudformation")
        stack = Stack(client, settings.stack_name, lambda: deadline - time.monotonic())
        stack.check_updatable(stack.settle())
        change_sets = ChangeSets(client, stack)
        change_set = change_sets.prepare(settings.desired(ModelPackage(ModelPackageArn.parse(arn), "", ""), decided_at))
        if change_set is None:
            return ()
        change_sets.discard(change_set)
        return change_set.changes

    def consequence(self, version: ModelVersion, decision: Decision) -> Consequence:
        """Return what the event of a decision would set off, now.

        Raises:
            SconesError: It would set off nothing.
        """
        from lambdas.deploy_inference_workflow.registry import ModelPackageArn
        from lambdas.deploy_inference_workflow.registry import Registry as PackageRegistry

        self.check_decisions_arrive()
        state = self.stack().settle()
        serving = None if state is None or not state.serves else state.parameters["ModelPackageArn"]
        if decision == "Approved":
            if serving == version.arn and state is not None:
                changes = self.plan(version.arn, state.parameters["DecidedAt"])
                return Consequence("Production serves it already; it would get the platform's code and settings.", version.arn, changes)
            text = (
                f"It would be deployed in place of version {serving.rpartition('/')[2]}:"
                if serving
                else "It would be the first in production:"
            )
            return Consequence(
                text, version.arn, self.plan(version.arn, later_than(state.parameters["DecidedAt"]) if serving and state else now())
            )
        if serving != version.arn:
            return Consequence("It is not in production; nothing would be deployed.", serving, ())
        rejected = ModelPackageArn.parse(version.arn)
        target = PackageRegistry(self._target.client("sagemaker")).newest_approved(rejected.group, other_than=rejected)
        if target is None:
            return Consequence(
                "No other version is Approved: it would go on serving, and the decision would end as a dead letter.", serving, ()
            )
        text = f"It is in production; version {target.arn.version}, the newest other Approved one, would take its place:"
        return Consequence(text, target.arn.arn, self.plan(target.arn.arn, now()))

    def redeploy(self, arn: str, decided_at: str, on_status: Callable[[str], None]) -> DeploymentOutcome:
        """Have the deploying function deploy a version, and wait for the end.

        Raises:
            DeploymentError: It failed; what served before serves.
            SconesError: It failed after the function's own time, or nobody knows how it ended.
        """
        from botocore.exceptions import ConnectionClosedError, ReadTimeoutError

        from infrastructure.deploy import DeploymentOutcome, request_deployment
        from lambdas.deploy_inference_workflow.errors import DeploymentError
        from lambdas.deploy_inference_workflow.registry import ModelPackageArn

        parsed: ModelPackageArn = ModelPackageArn.parse(arn)
        function = self.function_name()
        # Made here: one session makes clients in one thread at a time.
        cloudformation = self._target.client("cloudformation")
        try:
            with ThreadPoolExecutor(1, thread_name_prefix="deployment") as pool:
                running = pool.submit(request_deployment, self._target.session, function, parsed, decided_at)
                self._watch(cloudformation, running.done, on_status)
                return running.result()
        except (ReadTimeoutError, ConnectionClosedError):
            on_status("the function does not answer any more; the stack goes on")
        except DeploymentError as error:
            # The function's time was over before CloudFormation was done, which is usual for instances.
            if not str(error).startswith("DeploymentInProgressError"):
                raise
        wait_for_production(self._target, self._settings, arn, on_status)
        return DeploymentOutcome("updated", "")

    def _watch(self, cloudformation: Any, done: Callable[[], bool], on_status: Callable[[str], None]) -> None:
        seen, pause = "", 0.05
        while not done():
            status = cloudformation.describe_stacks(StackName=self.stack_name)["Stacks"][0]["StackStatus"]
            if status != seen and status.endswith("_IN_PROGRESS"):
                seen = status
                on_status(f"stack {self.stack_name}: {status}")
            time.sleep(pause)
            pause = min(pause * 1.2, 5.0)


def now() -> str:
    """Return the time as a decision carries it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def later_than(decided_at: str) -> str:
    """Return now, or a second after a decision when this machine's clock is behind it: the latest decision wins."""
    return max(datetime.now(UTC), datetime.fromisoformat(decided_at).astimezone(UTC) + timedelta(seconds=1)).isoformat(timespec="seconds")


def _record(line: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}
