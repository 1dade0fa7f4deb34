"""Waiting for what an approval sets off."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from scones.advice import advice
from scones.errors import SconesError
from scones.registry import stack_outputs

if TYPE_CHECKING:
    from collections.abc import Callable

    from pipelines.settings import Settings
    from scones.target import Target

#: On AWS an endpoint takes five to ten minutes; blue/green with baking time a little more.
WAIT_SECONDS = 1800.0
_FAILED = ("ROLLBACK_COMPLETE", "UPDATE_ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "UPDATE_ROLLBACK_FAILED", "DELETE_FAILED")


def wait_for_production(
    target: Target, settings: Settings, model_package_arn: str, on_status: Callable[[str], None] = lambda status: None
) -> dict[str, str]:
    """Return the inference stack's outputs once it serves a model version.

    Args:
        target: The account.
        settings: The project's settings.
        model_package_arn: The version that was approved.
        on_status: Told each new status of the stack.

    Raises:
        SconesError: The deployment failed (the message has the reason; what served before still serves), or did not end in time.
    """
    name = f"{settings.project.name}-inference"
    cloudformation = target.client("cloudformation")
    deadline = time.monotonic() + WAIT_SECONDS
    before = _newest_event(cloudformation, name)
    seen = ""
    pause = 0.05
    while time.monotonic() < deadline:
        try:
            stack = cloudformation.describe_stacks(StackName=name)["Stacks"][0]
            status = stack["StackStatus"]
        except cloudformation.exceptions.ClientError as error:
            if "does not exist" not in str(error):
                raise
            stack, status = {}, "not there yet"
        if status != seen:
            seen = status
            on_status(status)
        parameters = {parameter["ParameterKey"]: parameter.get("ParameterValue") for parameter in stack.get("Parameters", [])}
        ours = parameters.get("ModelPackageArn") == model_package_arn
        if ours and status in ("CREATE_COMPLETE", "UPDATE_COMPLETE"):
            outputs = stack_outputs(target, name)
            if outputs is not None and outputs.get("ModelPackageArn") == model_package_arn:
                return outputs
        # An update that rolled back has the old parameters again; a stack may be in the same status after a second failure as after the first.
        if status in _FAILED and _newest_event(cloudformation, name) != before:
            reason = _reason(cloudformation, name)
            raise SconesError(
                f"The deployment of {model_package_arn} failed ({status}): {reason}",
                advice(reason) or "What served before still serves: scones status",
            )
        time.sleep(pause)
        pause = min(pause * 1.2, 5.0)
    raise SconesError(
        f"{model_package_arn} is not in production after {WAIT_SECONDS:.0f} s (stack {name}: {seen})",
        "The deploying function's log: scones logs deploy-inference-workflow",
    )


def _newest_event(cloudformation: Any, name: str) -> str | None:
    try:
        events = cloudformation.describe_stack_events(StackName=name)["StackEvents"]
    except cloudformation.exceptions.ClientError as error:
        if "does not exist" not in str(error):
            raise
        return None
    return str(events[0]["EventId"]) if events else None


def _reason(cloudformation: Any, name: str) -> str:
    events = cloudformation.describe_stack_events(StackName=name)["StackEvents"]
    for event in events:
        if event["ResourceStatus"].endswith("_FAILED") and "cancelled" not in event.get("ResourceStatusReason", "cancelled"):
            return f"{event['LogicalResourceId']}: {event['ResourceStatusReason']}"
    return "no resource gave a reason"
