"""What is deployed against what the sources say, and against what is really there."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from scones import changes as changes_view
from scones.errors import SconesError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rich.console import Console

    from infrastructure.changes import ResourceChange
    from infrastructure.cicd import CicdParameters
    from infrastructure.deploy import PlatformParameters
    from infrastructure.drift import Drift
    from lambdas.deploy_inference_workflow.stacks import Desired, StackState
    from scones.target import Target

    #: What a stack would become, and which parameters keep their values; from the stack as it is.
    Wanted = Callable[[StackState], tuple[Desired, frozenset[str]]]


@dataclass(frozen=True)
class StackDifference:
    """How one stack differs.

    Attributes:
        stack: Its name.
        status: CloudFormation's status; None when it is not deployed.
        changes: What the sources would change; None when that is not known.
        reason: Why it is not known; of a stack that is not deployed, that it was deleted.
        drift: What was changed by hand; None when the stack is not deployed.
    """

    stack: str
    status: str | None
    changes: tuple[ResourceChange, ...] | None = ()
    reason: str | None = None
    drift: Drift | None = None

    @property
    def differs(self) -> bool:
        """Whether the sources would change something, something was changed by hand, or the stack was deleted."""
        return bool(self.changes) or (self.drift is not None and bool(self.drift.resources)) or (self.status is None and bool(self.reason))

    def document(self) -> dict[str, Any]:
        """Return the difference as --json prints it."""
        drift = self.drift
        return {
            "stack": self.stack,
            "status": self.status,
            "changes": None if self.changes is None else [changes_view.document(change) for change in self.changes],
            "reason": self.reason,
            "drift": None if drift is None else {
                "status": drift.status.value,
                "checked": drift.checked,
                "reason": drift.reason,
                "resources": [
                    {
                        "resource": item.logical_id,
                        "type": item.type,
                        "physical_id": item.physical_id,
                        "status": item.status,
                        "differences": [vars(found) for found in item.differences],
                    }
                    for item in drift.resources
                ],
            },
        }  # fmt: skip


class Comparison:
    """Compares the project's stacks."""

    def __init__(
        self,
        target: Target,
        parameters: PlatformParameters,
        delivery: Callable[[], CicdParameters],
        seconds: float,
        say: Callable[[str], None],
    ) -> None:
        """Args: `delivery` returns what the settings say of the delivery stack; it is asked where there is one."""
        self._delivery = delivery
        self._session = target.session
        self._parameters = parameters
        self._deadline = time.monotonic() + seconds
        self._say = say

    def stacks(self) -> list[StackDifference]:
        """Return how each stack differs, in the order in which they build on each other."""
        from infrastructure.cicd import desired_cicd
        from infrastructure.deploy import asset_parameters, desired_data, desired_platform, has_bucket
        from infrastructure.inference import desired_inference
        from infrastructure.packaging import build_assets

        assets = build_assets()
        with_code = self._parameters.for_template() | asset_parameters(assets)
        handed_on = self._handed_on()
        project = self._parameters.project

        def platform(state: StackState) -> tuple[Desired, frozenset[str]]:
            if not has_bucket(state):
                return desired_data(self._parameters), frozenset()
            s3, bucket = self._session.client("s3"), state.outputs["ArtifactBucketName"]
            return desired_platform(self._parameters, assets, s3, bucket), frozenset()

        return [
            self._compare(self._parameters.stack_name, platform),
            self._compare(f"{project}-inference", lambda state: desired_inference(with_code, state, handed_on)),
            self._compare(f"{project}-cicd", lambda _: (desired_cicd(self._delivery()), frozenset())),
        ]

    def _handed_on(self) -> dict[str, str]:
        """What the platform that is deployed gives to production: the names of what CloudFormation made, as they are now."""
        from botocore.exceptions import ClientError

        name = f"{self._parameters.project}-deploy-inference-workflow"
        try:
            function = self._session.client("lambda").get_function_configuration(FunctionName=name)
        except ClientError:
            # What is wrong with the platform is said of its own stack.
            return {}
        variables = function.get("Environment", {}).get("Variables", {})
        # Emptied by hand: that, too, is said of the platform's stack.
        found: dict[str, str] = json.loads(variables.get("STACK_PARAMETERS", "{}"))
        return found

    def _compare(self, name: str, wanted: Wanted) -> StackDifference:
        from botocore.exceptions import ClientError

        from infrastructure.changes import ChangeSets
        from infrastructure.deploy import watched_stack
        from infrastructure.drift import detect_drift
        from infrastructure.reality import Reality
        from lambdas.deploy_inference_workflow.errors import DeploymentError
        from pipelines.errors import PlatformError

        stack = watched_stack(self._session, name, self._deadline, self._say)
        state = stack.settle()
        client = self._session.client("cloudformation")
        if state is None or state.status == "REVIEW_IN_PROGRESS":
            return StackDifference(name, None, reason=_deleted(client, name))
        drift = Reality(self._session, state).added_to(detect_drift(client, name, stack.seconds_left))
        if state.is_leftover:
            return StackDifference(name, state.status, None, "a creation or deletion failed; nothing in it serves", drift)
        try:
            stack.check_updatable(state)
            change_sets = ChangeSets(client, stack)
            change_set = change_sets.prepare(*wanted(state))
            if change_set is None:
                return StackDifference(name, state.status, (), None, drift)
            change_sets.discard(change_set)
            return StackDifference(name, state.status, change_set.changes, None, drift)
        except SconesError as error:
            return StackDifference(name, state.status, None, f"{error.message} {error.hint or ''}".rstrip(), drift)
        except (DeploymentError, PlatformError, ClientError) as error:
            return StackDifference(name, state.status, None, str(error), drift)


def _deleted(client: Any, name: str) -> str | None:
    """Return when a stack that is not there was deleted; CloudFormation knows it for 90 days."""
    pages = client.get_paginator("list_stacks").paginate(StackStatusFilter=["DELETE_COMPLETE"])
    found = [item for page in pages for item in page["StackSummaries"] if item["StackName"] == name]
    for item in sorted(found, key=lambda item: str(item["DeletionTime"]), reverse=True):
        # A plan that is dropped leaves a deleted stack, too: one that never was more than looked at.
        events = client.get_paginator("describe_stack_events").paginate(StackName=item["StackId"])
        if any(event["ResourceStatus"] != "REVIEW_IN_PROGRESS" for page in events for event in page["StackEvents"] if not _is_end(event)):
            return f"deleted at {item['DeletionTime']:%Y-%m-%d %H:%M:%S} UTC"
    return None


def _is_end(event: Mapping[str, Any]) -> bool:
    return str(event["ResourceStatus"]).startswith("DELETE_")


def print_difference(console: Console, difference: StackDifference) -> None:
    """Print how one stack differs."""
    from rich.markup import escape

    if difference.status is None:
        console.print(f"[bold]{difference.stack}[/]: not deployed{f' ({difference.reason})' if difference.reason else ''}")
        return
    console.print(f"[bold]{difference.stack}[/] ({difference.status})")
    if difference.changes is None:
        console.print(f"  sources: not known what they would change: {escape(difference.reason or '')}", soft_wrap=True)
    elif not difference.changes:
        console.print("  sources: nothing would change")
    else:
        console.print(f"  sources: {changes_view.summary(difference.changes)}")
        changes_view.print_changes(console, difference.changes)
    if difference.drift is not None:
        _print_drift(console, difference.drift)


def _print_drift(console: Console, drift: Drift) -> None:
    from rich.markup import escape

    from infrastructure.drift import DriftStatus

    if drift.status is DriftStatus.UNKNOWN:
        console.print(f"  by hand: not known ({escape(drift.reason or '')})", soft_wrap=True)
        return
    if drift.status is DriftStatus.IN_SYNC:
        console.print(f"  by hand: nothing was changed ({drift.checked} resources compared; CloudFormation cannot compare every type)")
        return
    console.print(f"  by hand: [red]{len(drift.resources)} of {drift.checked} resources compared were changed or deleted[/]")
    for resource in drift.resources:
        console.print(f"    {escape(resource.logical_id)} ({resource.type}): {resource.status.lower()}")
        for found in resource.differences:
            for path, expected, actual in changes_view.differences(found.expected, found.actual, found.path):
                console.print(f"      {escape(path)}: {escape(changes_view.arrow(expected, actual))}")
    if drift.reason:
        console.print(f"    not everything could be compared: {escape(drift.reason)}", soft_wrap=True)
