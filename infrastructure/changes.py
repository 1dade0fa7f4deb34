"""Change sets: what CloudFormation would do to a stack, shown before it is done."""

import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from botocore.exceptions import ClientError

from infrastructure.templates import Template
from lambdas.deploy_inference_workflow.errors import DeploymentError, DeploymentInProgressError
from lambdas.deploy_inference_workflow.stacks import FIRST_POLL_SECONDS, LAST_POLL_SECONDS, POLL_GROWTH, Desired, Stack, StackState

#: What is lost with these is more than what a template can make again.
HOLDS_DATA = frozenset(
    {
        "AWS::DynamoDB::Table",
        "AWS::ECR::Repository",
        "AWS::KMS::Key",
        "AWS::Logs::LogGroup",
        "AWS::S3::Bucket",
        "AWS::SQS::Queue",
        "AWS::SageMaker::MlflowTrackingServer",
        "AWS::SageMaker::ModelPackageGroup",
    }
)
#: How long the deletion of a stack that never had anything is waited for.
_GONE_SECONDS = 30.0
_NOTHING = ("didn't contain changes", "No updates are to be performed")

Json = Any


class Action(StrEnum):
    """What happens to a resource."""

    ADD = "Add"
    MODIFY = "Modify"
    REMOVE = "Remove"
    IMPORT = "Import"
    DYNAMIC = "Dynamic"
    SYNC_WITH_ACTUAL = "SyncWithActual"


class Replacement(StrEnum):
    """Whether a changed resource is made anew; `CONDITIONAL` is known only when the change is made."""

    TRUE = "True"
    FALSE = "False"
    CONDITIONAL = "Conditional"


@dataclass(frozen=True)
class PropertyChange:
    """A property that changes: `before` and `after` are texts, JSON where the value is no text, and None where CloudFormation does not say them."""

    name: str
    before: str | None
    after: str | None
    cause: str | None


@dataclass(frozen=True)
class ResourceChange:
    """What would happen to one resource."""

    action: Action
    logical_id: str
    type: str
    physical_id: str | None = None
    replacement: Replacement = Replacement.FALSE
    policy_action: str | None = None
    properties: tuple[PropertyChange, ...] = ()

    @property
    def loses_data(self) -> bool:
        """Whether something that holds data would, or might, be deleted."""
        goes = self.action is Action.REMOVE or self.replacement is not Replacement.FALSE
        return goes and self.type in HOLDS_DATA and self.policy_action not in ("Retain", "ReplaceAndRetain")


@dataclass(frozen=True)
class ChangeSet:
    """A change set that waits. No `changes` means that only outputs or tags of the stack itself would change."""

    stack_name: str
    arn: str
    creates_stack: bool
    changes: tuple[ResourceChange, ...]


@dataclass(frozen=True)
class Import:
    """A resource that is there already and is to become a stack's; `identifier` is its type's primary identifier: property and value."""

    logical_id: str
    type: str
    identifier: Mapping[str, str]


def in_the_way(state: StackState | None) -> StackState | None:
    """Returns what a failed creation or deletion left, which goes before anything can be planned; a stack that only waits for its first plan stays."""
    return state if state is not None and state.is_leftover and state.status != "REVIEW_IN_PROGRESS" else None


class ChangeSets:
    """Makes and executes change sets of one stack. `client` is a boto3 CloudFormation client."""

    def __init__(self, client: Any, stack: Stack) -> None:
        self._client = client
        self._stack = stack

    def prepare(self, desired: Desired, previous: frozenset[str] = frozenset(), *, revert_drift: bool = False) -> ChangeSet | None:
        """Has CloudFormation work out what bringing the stack to `desired` would do; None when nothing would change.

        Args:
            desired: template, parameters, tags.
            previous: parameters that keep the stack's present values.
            revert_drift: compare with what the resources really are, too, and put back what was changed or deleted by hand
                (https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/drift-aware-change-sets.html); a new stack has nothing of that kind.

        Raises:
            DeploymentError: CloudFormation cannot make the change set (the message has its reason), or not within the stack's time.
            botocore.exceptions.ClientError: it refuses the template or the parameters.
        """
        state = self._stack.settle()
        creates = state is None or state.status == "REVIEW_IN_PROGRESS"
        request = desired.request()
        request["Parameters"] += [{"ParameterKey": name, "UsePreviousValue": True} for name in sorted(previous)]
        if revert_drift and not creates:
            request["DeploymentMode"] = "REVERT_DRIFT"
        return self._prepare(request | {"ChangeSetType": "CREATE" if creates else "UPDATE"}, creates)

    def prepare_import(self, desired: Desired, imports: Iterable[Import]) -> ChangeSet:
        """Has CloudFormation work out a new stack of `imports`, which are all that is in `desired`.

        Raises:
            DeploymentError: CloudFormation cannot make the change set (the message has its reason), or not within the stack's time.
            botocore.exceptions.ClientError: it refuses the template, the parameters or what is to be imported.
        """
        wanted = [
            {"LogicalResourceId": item.logical_id, "ResourceType": item.type, "ResourceIdentifier": dict(item.identifier)}
            for item in imports
        ]
        change_set = self._prepare(desired.request() | {"ChangeSetType": "IMPORT", "ResourcesToImport": wanted}, True)
        assert change_set is not None  # an import is a change
        return change_set

    def _prepare(self, request: Mapping[str, Json], creates: bool) -> ChangeSet | None:
        response = self._client.create_change_set(StackName=self._stack.name, ChangeSetName=f"scones-{uuid.uuid4().hex[:12]}", **request)
        try:
            pages = self._described(response["Id"])
        except BaseException:
            self.discard(ChangeSet(self._stack.name, response["Id"], creates, ()))
            raise
        change_set = ChangeSet(self._stack.name, response["Id"], creates, tuple(_changes(pages)))
        if pages[0]["Status"] == "FAILED":
            reason = pages[0].get("StatusReason", "CloudFormation gives no reason")
            self.discard(change_set)
            if any(text in reason for text in _NOTHING):
                return None
            raise DeploymentError(f"CloudFormation cannot work out the changes of the stack {self._stack.name}: {reason}")
        return change_set

    def execute(self, change_set: ChangeSet) -> None:
        """Does what a change set shows, and waits until it is done.

        Raises:
            DeploymentError: it failed and was rolled back, or is not done in time.
        """
        self._client.execute_change_set(ChangeSetName=change_set.arn)
        self._stack.await_success()

    def discard(self, change_set: ChangeSet) -> None:
        """Deletes a change set, and the empty stack that a first one brings along, unless others wait in it; waits a little for the stack's end."""
        self._client.delete_change_set(ChangeSetName=change_set.arn)
        if not change_set.creates_stack:
            return
        state = self._stack.describe()
        if state is not None and state.status == "REVIEW_IN_PROGRESS":
            pages = self._client.get_paginator("list_change_sets").paginate(StackName=state.stack_id)
            if all(
                item["ChangeSetId"] == change_set.arn or item["Status"].startswith("DELETE") for page in pages for item in page["Summaries"]
            ):
                self._client.delete_stack(StackName=state.stack_id)
                # Without a word, and with a clock of its own: what was planned is no worse for a stack that goes a little later.
                deadline = time.monotonic() + _GONE_SECONDS
                with suppress(DeploymentInProgressError):
                    Stack(self._client, state.stack_id, lambda: deadline - time.monotonic()).settle()

    def _described(self, arn: str) -> list[Mapping[str, Json]]:
        pause = FIRST_POLL_SECONDS
        while True:
            page = self._client.describe_change_set(ChangeSetName=arn, IncludePropertyValues=True)
            if page["Status"] in ("CREATE_COMPLETE", "FAILED"):
                break
            if self._stack.seconds_left() <= pause:
                raise DeploymentInProgressError(f"CloudFormation still works out the changes of the stack {self._stack.name}. Try again.")
            time.sleep(pause)
            pause = min(pause * POLL_GROWTH, LAST_POLL_SECONDS)
        pages = [page]
        while token := pages[-1].get("NextToken"):
            pages.append(self._client.describe_change_set(ChangeSetName=arn, IncludePropertyValues=True, NextToken=token))
        return pages


def additions(template: Template, parameters: Mapping[str, str], but: frozenset[str] = frozenset()) -> tuple[ResourceChange, ...]:
    """Returns the resources that a stack of this template would have, less those in `but`, as changes that add them."""
    active = template.active(parameters)
    return tuple(ResourceChange(Action.ADD, name, resource.type) for name, resource in active.items() if name not in but)


def is_refused(error: ClientError, *texts: str) -> bool:
    """Whether CloudFormation refused a request with one of these texts."""
    return any(text in error.response["Error"].get("Message", "") for text in texts)


def _changes(pages: list[Mapping[str, Json]]) -> Iterator[ResourceChange]:
    for item in (item for page in pages for item in page.get("Changes", ())):
        change = item.get("ResourceChange")
        if change is not None:
            yield ResourceChange(
                Action(change["Action"]),
                change["LogicalResourceId"],
                change["ResourceType"],
                change.get("PhysicalResourceId"),
                Replacement(change.get("Replacement", "False")),
                change.get("PolicyAction"),
                tuple(_properties(change.get("Details", ()))),
            )


def _properties(details: list[Mapping[str, Json]]) -> Iterator[PropertyChange]:
    """One entry for each property or attribute: several details about the same differ in their causes only."""
    found: dict[str, PropertyChange] = {}
    for detail in details:
        target = detail["Target"]
        name = target.get("Name") or target["Attribute"]
        cause = detail.get("CausingEntity")
        known = found.get(name)
        if known is None:
            found[name] = PropertyChange(name, target.get("BeforeValue"), target.get("AfterValue"), cause)
        elif known.cause is None and cause is not None:
            found[name] = PropertyChange(name, known.before, known.after, cause)
    yield from found.values()
