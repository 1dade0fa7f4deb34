"""A CloudFormation stack, brought to a desired state: created, updated, or left alone, whatever state it is found in.

CloudFormation changes a stack by one request at a time and refuses others meanwhile, so two callers cannot mix their changes: the one that
comes second waits until the stack has settled, and decides anew from what it finds then.
"""

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from botocore.exceptions import ClientError

from lambdas.deploy_inference_workflow.errors import DeploymentFailedError, DeploymentInProgressError, StackNotUpdatableError

# The first wait is for a region that answers at once, the last for endpoints, which take minutes.
FIRST_POLL_SECONDS = 0.1
LAST_POLL_SECONDS = 15.0
POLL_GROWTH = 1.5

_SERVING = frozenset({"CREATE_COMPLETE", "UPDATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE", "IMPORT_COMPLETE", "IMPORT_ROLLBACK_COMPLETE"})
_SUCCEEDED = frozenset({"CREATE_COMPLETE", "UPDATE_COMPLETE", "IMPORT_COMPLETE"})
# Stacks whose creation failed: nothing in them ever served, and CloudFormation can only delete them.
_DEAD = frozenset({"ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "CREATE_FAILED", "DELETE_FAILED", "REVIEW_IN_PROGRESS"})
# Stacks whose last operation failed and was taken back.
_TAKEN_BACK = frozenset({"ROLLBACK_COMPLETE", "UPDATE_ROLLBACK_COMPLETE"})
_BEGINNINGS = ("CREATE_IN_PROGRESS", "IMPORT_IN_PROGRESS", "UPDATE_IN_PROGRESS")
_NO_CHANGE = "No updates are to be performed"
_BUSY = r"is in \w+_IN_PROGRESS state and can not be updated"
_CONSEQUENCE = re.compile(r"cancelled|following resource\(s\) failed", re.IGNORECASE)
_MAX_REASONS = 5


class Change(StrEnum):
    """What `apply` did."""

    CREATED = "created"
    UPDATED = "updated"
    UNCHANGED = "unchanged"
    NONE_WANTED = "none wanted"


@dataclass(frozen=True)
class StackState:
    """A stack as CloudFormation describes it; `protected` against deletion or not, `role_arn` is the role that CloudFormation took for it last."""

    stack_id: str
    status: str
    parameters: Mapping[str, str]
    outputs: Mapping[str, str]
    protected: bool = False
    role_arn: str | None = None

    @property
    def serves(self) -> bool:
        """Whether the stack's resources are as its parameters say."""
        return self.status in _SERVING

    @property
    def is_leftover(self) -> bool:
        """Whether this is what a failed creation, import or deletion left: nothing in it serves, and CloudFormation can only delete it.

        A stack that lived before an import failed has outputs.
        """
        return self.status in _DEAD or (self.status == "IMPORT_ROLLBACK_COMPLETE" and not self.outputs)

    @property
    def settled(self) -> bool:
        """Whether CloudFormation is done with it. A stack in REVIEW_IN_PROGRESS waits for a person, not for CloudFormation."""
        return not self.status.endswith("_IN_PROGRESS") or self.status == "REVIEW_IN_PROGRESS"


@dataclass(frozen=True)
class Desired:
    """What a stack shall be: its template (`TemplateURL` or `TemplateBody`) and all parameters that shall not have their defaults.

    `token` names what asks for it: what has failed for a token is not tried again for the same one.
    """

    template: Mapping[str, str]
    parameters: Mapping[str, str]
    role_arn: str | None = None
    capabilities: Sequence[str] = ()
    tags: Mapping[str, str] | None = None
    token: str | None = None

    def request(self) -> dict[str, Any]:
        """Returns the arguments that CreateStack and UpdateStack share."""
        request: dict[str, Any] = dict(self.template)
        request["Parameters"] = [{"ParameterKey": key, "ParameterValue": value} for key, value in self.parameters.items()]
        if self.role_arn:
            request["RoleARN"] = self.role_arn
        if self.capabilities:
            request["Capabilities"] = list(self.capabilities)
        if self.tags:
            request["Tags"] = [{"Key": key, "Value": value} for key, value in self.tags.items()]
        if self.token:
            request["ClientRequestToken"] = self.token
        return request


class Stack:
    """The stack called `name`. `client` is a boto3 CloudFormation client, `seconds_left` says how long its methods may still take."""

    def __init__(
        self, client: Any, name: str, seconds_left: Callable[[], float], *, on_status: Callable[[str], None] = lambda status: None
    ) -> None:
        self._client = client
        self.name = name
        self._seconds_left = seconds_left
        self._on_status = on_status

    def describe(self) -> StackState | None:
        """Reads the stack as it is now; None when there is none."""
        state = self._describe(self.name)
        return None if state is None or state.status == "DELETE_COMPLETE" else state

    def _describe(self, name_or_id: str) -> StackState | None:
        try:
            (stack,) = self._client.describe_stacks(StackName=name_or_id)["Stacks"]
        except ClientError as error:
            if _is_validation_error(error, "does not exist"):
                return None
            raise
        return StackState(
            stack["StackId"],
            stack["StackStatus"],
            {item["ParameterKey"]: item.get("ParameterValue", "") for item in stack.get("Parameters", [])},
            {item["OutputKey"]: item["OutputValue"] for item in stack.get("Outputs", [])},
            stack.get("EnableTerminationProtection", False),
            stack.get("RoleARN"),
        )

    def settle(self) -> StackState | None:
        """Waits until CloudFormation is done with the stack, and returns it; None when there is none.

        Raises:
            DeploymentInProgressError: it is not done within the time that is left.
        """
        pause = FIRST_POLL_SECONDS
        while True:
            state = self.describe()
            if state is None or state.settled:
                return state
            self._on_status(state.status)
            if self._seconds_left() <= pause:
                raise DeploymentInProgressError(f"The stack {self.name} is still in {state.status}. The next try goes on from there.")
            time.sleep(pause)
            pause = min(pause * POLL_GROWTH, LAST_POLL_SECONDS)

    def apply(self, decide: Callable[[StackState | None], Desired | None]) -> tuple[Change, StackState | None]:
        """Brings the stack to what `decide` says, and waits until it is there.

        `decide` sees the settled stack, or None, and may be asked again when somebody else changed the stack meanwhile; None from it means
        that nothing shall be done. Returns what was done, and the stack after it.

        Raises:
            DeploymentFailedError: CloudFormation rolled the change back, now or when it was last asked for with the same token; the message
                has the failed resources' reasons.
            DeploymentInProgressError: time is over before the stack has settled.
            StackNotUpdatableError: the stack is in a state that needs a person.
        """
        while True:
            state = self.settle()
            desired = decide(state)
            if desired is None:
                return Change.NONE_WANTED, state
            if state is not None and desired.token and state.status in _TAKEN_BACK and self._last_token(state) == desired.token:
                raise self._failure(state)
            if state is not None and state.is_leftover:
                self.delete(state, desired.role_arn)
                continue
            self.check_updatable(state)
            change = self._request(state, desired)
            if change is Change.UNCHANGED:
                return change, state
            if change is not None:
                return change, self.await_success()

    def check_updatable(self, state: StackState | None) -> None:
        """Does nothing when CloudFormation can bring the stack to another state.

        Raises:
            StackNotUpdatableError: the rollback of an update failed; a person has to mend the cause.
        """
        if state is not None and state.status == "UPDATE_ROLLBACK_FAILED":
            raise StackNotUpdatableError(
                f"The stack {self.name} is in UPDATE_ROLLBACK_FAILED ({self.failure_reasons(state)}). Mend the cause, run "
                f"'aws cloudformation continue-update-rollback --stack-name {self.name}', then try again."
            )

    def delete(self, state: StackState, role_arn: str | None = None) -> None:
        """Deletes the stack that `state` describes, and waits until it is gone.

        CloudFormation takes `role_arn` for it, or without one the role that it took last: that one may be gone by now.

        Raises:
            StackNotUpdatableError: something in it cannot be deleted; the message has the reasons.
            DeploymentInProgressError: time is over before it is gone.
        """
        # By its id: by name this could hit a stack that somebody else has just created in its place.
        self._client.delete_stack(StackName=state.stack_id, **({"RoleARN": role_arn} if role_arn else {}))
        self._wait_until_deleted(state.stack_id)

    def _request(self, state: StackState | None, desired: Desired) -> Change | None:
        """Asks for the change; None when somebody else was quicker."""
        try:
            if state is None:
                self._client.create_stack(StackName=self.name, **desired.request())
                return Change.CREATED
            self._client.update_stack(StackName=self.name, **desired.request())
        except self._client.exceptions.AlreadyExistsException:
            return None
        except ClientError as error:
            if _is_validation_error(error, _NO_CHANGE):
                return Change.UNCHANGED
            if _is_validation_error(error, _BUSY):
                return None
            raise
        return Change.UPDATED

    def seconds_left(self) -> float:
        """Returns how long this object's methods may still take."""
        return self._seconds_left()

    def await_success(self) -> StackState:
        """Waits until CloudFormation is done with what it was asked for, and returns the stack.

        Raises:
            DeploymentFailedError: it failed; the message has the failed resources' reasons.
            DeploymentInProgressError: time is over before the stack has settled.
        """
        state = self.settle()
        if state is None:
            raise DeploymentFailedError(f"The stack {self.name} was deleted while it was being deployed. Try again.")
        if state.status in _SUCCEEDED:
            return state
        raise self._failure(state)

    def _failure(self, state: StackState) -> DeploymentFailedError:
        return DeploymentFailedError(f"The stack {self.name} is in {state.status}: {self.failure_reasons(state)}")

    def _last_token(self, state: StackState) -> str | None:
        """Returns what asked for the stack's last operation."""
        (newest, *_) = self._client.describe_stack_events(StackName=state.stack_id)["StackEvents"] or [{}]
        token: str | None = newest.get("ClientRequestToken")
        return token

    def _wait_until_deleted(self, stack_id: str) -> None:
        pause = FIRST_POLL_SECONDS
        while (state := self._describe(stack_id)) is not None and state.status != "DELETE_COMPLETE":
            if state.status == "DELETE_FAILED":
                raise StackNotUpdatableError(
                    f"The stack {self.name}, or what a failed creation left of it, cannot be deleted ({self.failure_reasons(state)}). "
                    "Delete the stack, then try again."
                )
            if self._seconds_left() <= pause:
                raise DeploymentInProgressError(f"The stack {self.name} is still in {state.status}. The next try goes on from there.")
            time.sleep(pause)
            pause = min(pause * POLL_GROWTH, LAST_POLL_SECONDS)

    def failure_reasons(self, state: StackState) -> str:
        """Returns why the last operation on the stack failed, in the words of the resources that failed first."""
        reasons: list[str] = []
        pages = self._client.get_paginator("describe_stack_events").paginate(StackName=state.stack_id)
        for event in (event for page in pages for event in page["StackEvents"]):
            status, reason = event.get("ResourceStatus", ""), event.get("ResourceStatusReason", "")
            if event.get("PhysicalResourceId") == state.stack_id and status in _BEGINNINGS:
                break
            if status.endswith("_FAILED") and event.get("PhysicalResourceId") != state.stack_id and not _CONSEQUENCE.search(reason):
                reasons.append(f"{event['LogicalResourceId']} ({event['ResourceType']}): {reason or status}")
        # Events come newest first; what failed first is the cause.
        return "; ".join(list(dict.fromkeys(reversed(reasons)))[:_MAX_REASONS]) or "CloudFormation gives no reason; see the stack's events"


def _is_validation_error(error: ClientError, text: str) -> bool:
    details = error.response["Error"]
    return details["Code"] == "ValidationError" and re.search(text, details.get("Message", "")) is not None
