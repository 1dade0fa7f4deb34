"""deploy_inference_workflow: decisions in the registry, duplicated, overtaken and failing, against a CloudFormation that behaves as AWS's."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from helpers_aws import ACCOUNT, REGION, AwsError, LambdaContext, fake_client
from lambdas.deploy_inference_workflow import handler, stacks
from lambdas.deploy_inference_workflow.errors import (
    DeploymentFailedError,
    DeploymentInProgressError,
    InvalidEventError,
    ModelPackageNotFoundError,
    ModelPackageNotReadyError,
    NoRollbackTargetError,
    StackNotUpdatableError,
)
from lambdas.deploy_inference_workflow.registry import ModelPackageArn, Registry

EVENT = json.loads((Path(__file__).parent.parent / "events" / "model_package_rejected.json").read_text())
GROUP = EVENT["detail"]["ModelPackageGroupName"]
STACK = "scones-inference"
CREATED_AT = "2021-02-24T16:00:00Z"


def arn(version: int, group: str = GROUP, account: str = ACCOUNT, region: str = REGION) -> str:
    return f"arn:aws:sagemaker:{region}:{account}:model-package/{group}/{version}"


def decision(version: int, status: str = "Approved", time: str = "2021-02-24T17:00:14Z", **changes: Any) -> dict[str, Any]:
    """AWS's sample event, about another version."""
    event: dict[str, Any] = json.loads(json.dumps(EVENT))
    event["time"] = time
    event["detail"] |= {"ModelPackageArn": arn(version), "ModelPackageVersion": version, "ModelApprovalStatus": status}
    event["detail"] |= changes.pop("detail", {})
    return event | changes


class FakeRegistry:
    """Model packages by version."""

    def __init__(self) -> None:
        self.packages: dict[int, dict[str, Any]] = {}
        self.client = fake_client("sagemaker", DescribeModelPackage=self._describe, ListModelPackages=self._list)

    def put(self, version: int, approval: str = "Approved", status: str = "Completed") -> None:
        self.packages[version] = {
            "ModelPackageArn": arn(version),
            "ModelPackageGroupName": GROUP,
            "ModelPackageVersion": version,
            "ModelPackageStatus": status,
            "ModelApprovalStatus": approval,
        }

    def _describe(self, params: dict[str, Any]) -> dict[str, Any]:
        for package in self.packages.values():
            if package["ModelPackageArn"] == params["ModelPackageName"]:
                return package
        raise AwsError("ValidationException", f"ModelPackage {params['ModelPackageName']} does not exist.")

    def _list(self, params: dict[str, Any]) -> dict[str, Any]:
        assert params["ModelPackageGroupName"] == GROUP
        found = [package for package in self.packages.values() if package["ModelApprovalStatus"] == params["ModelApprovalStatus"]]
        found.sort(key=lambda package: package["ModelPackageVersion"], reverse=True)
        # One a page: what is not on the first page counts too.
        start = int(params.get("NextToken", 0))
        page: dict[str, Any] = {"ModelPackageSummaryList": found[start : start + 1]}
        return page | ({"NextToken": str(start + 1)} if start + 1 < len(found) else {})


@dataclass
class FakeStack:
    stack_id: str
    status: str
    parameters: dict[str, str]
    previous: dict[str, str] | None = None
    polls_left: int = 0
    fails_with: str | None = None
    token: str = ""
    events: list[dict[str, Any]] = field(default_factory=list)


class FakeCloudFormation:
    """One region's stacks. An operation takes `polls` calls of DescribeStacks; one whose parameters are in `failing` is rolled back."""

    def __init__(self) -> None:
        self.stacks: list[FakeStack] = []
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.polls = 2
        self.failing: dict[str, str] = {}
        self.meanwhile: Callable[[], None] | None = None
        self._lock = threading.Lock()

    def client(self) -> Any:
        operations = {
            "CreateStack": self._create,
            "UpdateStack": self._update,
            "DeleteStack": self._delete,
            "DescribeStacks": self._describe,
            "DescribeStackEvents": self._events,
        }

        def locked(name: str) -> Any:
            def run(params: dict[str, Any]) -> dict[str, Any]:
                with self._lock:
                    answer: dict[str, Any] = operations[name](params)
                    return answer

            return run

        return fake_client("cloudformation", **{name: locked(name) for name in operations})

    @property
    def served(self) -> str | None:
        """The model package that production serves."""
        stack = self._find(STACK)
        return stack.parameters["ModelPackageArn"] if stack and "COMPLETE" in stack.status and stack.status != "ROLLBACK_COMPLETE" else None

    @property
    def deployments(self) -> list[str]:
        """The versions that were asked for, in order."""
        return [parameters["ModelPackageArn"] for name, parameters in self.requests if name in ("create", "update")]

    def put(self, status: str, version: int = 1, decided_at: str = "2021-02-24T16:00:00+00:00", **settings: str) -> FakeStack:
        """Puts a stack that serves `version` there."""
        parameters = {**PARAMETERS, **settings, "Release": release(**settings), "ModelPackageArn": arn(version), "DecidedAt": decided_at}
        stack = FakeStack(f"arn:aws:cloudformation:{REGION}:{ACCOUNT}:stack/{STACK}/{len(self.stacks)}", status, parameters)
        self.stacks.append(stack)
        return stack

    def _find(self, name_or_id: str) -> FakeStack | None:
        found = [stack for stack in self.stacks if name_or_id == stack.stack_id]
        return (
            found[0] if found else next((s for s in reversed(self.stacks) if name_or_id == STACK and s.status != "DELETE_COMPLETE"), None)
        )

    def _get(self, name_or_id: str) -> FakeStack:
        stack = self._find(name_or_id)
        if stack is None:
            raise AwsError("ValidationError", f"Stack with id {name_or_id} does not exist")
        return stack

    def _describe(self, params: dict[str, Any]) -> dict[str, Any]:
        stack = self._get(params["StackName"])
        if stack.status.endswith("_IN_PROGRESS") and stack.status != "REVIEW_IN_PROGRESS":
            if stack.polls_left == 0:
                self._finish(stack)
            stack.polls_left -= 1
        return {
            "Stacks": [
                {
                    "StackId": stack.stack_id,
                    "StackName": STACK,
                    "StackStatus": stack.status,
                    "CreationTime": CREATED_AT,
                    "Parameters": [{"ParameterKey": key, "ParameterValue": value} for key, value in stack.parameters.items()],
                }
            ]
        }

    def _finish(self, stack: FakeStack) -> None:
        operation = stack.status.removesuffix("_IN_PROGRESS")
        if stack.fails_with is None:
            stack.status = f"{operation}_COMPLETE"
            return
        stack.events += [
            _event(stack, "Endpoint", "AWS::SageMaker::Endpoint", f"{operation}_FAILED", stack.fails_with),
            _event(stack, "StateMachine", "AWS::StepFunctions::StateMachine", f"{operation}_FAILED", f"Resource {operation} cancelled"),
        ]
        stack.status = "ROLLBACK_COMPLETE" if operation == "CREATE" else "UPDATE_ROLLBACK_COMPLETE"
        if stack.previous is not None:
            stack.parameters = stack.previous

    def _let_somebody_else_be_quicker(self) -> None:
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            meanwhile()

    def _create(self, params: dict[str, Any]) -> dict[str, Any]:
        self._let_somebody_else_be_quicker()
        if self._find(STACK) is not None:
            raise AwsError("AlreadyExistsException", f"Stack [{STACK}] already exists")
        stack = self.put("CREATE_IN_PROGRESS")
        self._begin(stack, "create", params)
        return {"StackId": stack.stack_id}

    def _update(self, params: dict[str, Any]) -> dict[str, Any]:
        self._let_somebody_else_be_quicker()
        stack = self._get(params["StackName"])
        if not stack.status.endswith("_COMPLETE") or stack.status == "ROLLBACK_COMPLETE":
            raise AwsError("ValidationError", f"Stack:{stack.stack_id} is in {stack.status} state and can not be updated.")
        if _parameters(params) == stack.parameters:
            raise AwsError("ValidationError", "No updates are to be performed.")
        stack.previous, stack.status = stack.parameters, "UPDATE_IN_PROGRESS"
        self._begin(stack, "update", params)
        return {"StackId": stack.stack_id}

    def _begin(self, stack: FakeStack, name: str, params: dict[str, Any]) -> None:
        assert params["TemplateURL"] == ENVIRONMENT["TEMPLATE_URL"]
        assert params["RoleARN"] == ENVIRONMENT["DEPLOYMENT_ROLE_ARN"]
        stack.parameters, stack.token = _parameters(params), params["ClientRequestToken"]
        stack.polls_left = self.polls
        stack.fails_with = self.failing.get(stack.parameters["ModelPackageArn"])
        stack.events.append(_event(stack, STACK, "AWS::CloudFormation::Stack", stack.status, "User Initiated", stack.stack_id))
        self.requests.append((name, stack.parameters))

    def _delete(self, params: dict[str, Any]) -> dict[str, Any]:
        stack = self._get(params["StackName"])
        self.requests.append(("delete", {"StackName": params["StackName"]}))
        stack.status, stack.polls_left, stack.fails_with = "DELETE_IN_PROGRESS", self.polls, None
        return {}

    def _events(self, params: dict[str, Any]) -> dict[str, Any]:
        return {"StackEvents": self._get(params["StackName"]).events[::-1]}


def _event(stack: FakeStack, logical_id: str, kind: str, status: str, reason: str, physical_id: str = "") -> dict[str, Any]:
    return {
        "StackId": stack.stack_id,
        "EventId": str(len(stack.events)),
        "StackName": STACK,
        "LogicalResourceId": logical_id,
        "PhysicalResourceId": physical_id,
        "ResourceType": kind,
        "Timestamp": CREATED_AT,
        "ResourceStatus": status,
        "ResourceStatusReason": reason,
        "ClientRequestToken": stack.token,
    }


def _parameters(params: dict[str, Any]) -> dict[str, str]:
    return {item["ParameterKey"]: item["ParameterValue"] for item in params["Parameters"]}


PARAMETERS = {"Project": "scones", "CodeBucketName": "bucket", "WorkflowDefinitionKey": "code/stepfunctions/classify/1.asl.json"}
ENVIRONMENT = {
    "MODEL_PACKAGE_GROUP_NAME": GROUP,
    "STACK_NAME": STACK,
    "TEMPLATE_URL": "https://bucket.s3.us-east-2.amazonaws.com/code/templates/inference/1.yaml",
    "DEPLOYMENT_ROLE_ARN": f"arn:aws:iam::{ACCOUNT}:role/deployment",
    "STACK_PARAMETERS": json.dumps(PARAMETERS),
    "KEPT_VERSIONS": "3",
}


def release(**settings: str) -> str:
    """The release of a stack with these settings."""
    return handler.Settings("", "", ENVIRONMENT["TEMPLATE_URL"], "", PARAMETERS | settings, 3).release


@dataclass
class World:
    registry: FakeRegistry
    cloudformation: FakeCloudFormation
    log: io.StringIO

    def send(self, event: object, **context: Any) -> dict[str, str]:
        """Has the function handle an event."""
        answer: dict[str, str] = json.loads(json.dumps(handler.lambda_handler(event, LambdaContext(**context))))
        return answer

    def lines(self) -> list[dict[str, Any]]:
        """What was logged."""
        return [json.loads(line) for line in self.log.getvalue().splitlines()]


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    registry, cloudformation, log = FakeRegistry(), FakeCloudFormation(), io.StringIO()
    client = cloudformation.client()
    monkeypatch.setattr(handler, "sagemaker", lambda: registry.client)
    monkeypatch.setattr(handler, "cloudformation", lambda: client)
    monkeypatch.setattr(stacks, "FIRST_POLL_SECONDS", 0.0)
    monkeypatch.setattr(handler.logger.registered_handler, "stream", log)
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    return World(registry, cloudformation, log)


# ------------------------------------------------------------------------------------------------------------------- approved


def test_the_first_approval_creates_the_stack_with_exactly_that_version(world: World) -> None:
    world.registry.put(1)
    world.registry.put(2)
    world.registry.put(3)
    answer = world.send(decision(2))
    assert answer == {"outcome": "created", "model_package_arn": arn(2), "reason": "approved"}
    assert world.cloudformation.requests == [
        ("create", {**PARAMETERS, "Release": release(), "ModelPackageArn": arn(2), "DecidedAt": "2021-02-24T17:00:14+00:00"}),
    ]
    assert world.cloudformation.served == arn(2)


def test_a_release_is_the_template_with_its_settings_and_not_the_model() -> None:
    same = handler.Settings("", "", ENVIRONMENT["TEMPLATE_URL"], "", dict(reversed(PARAMETERS.items())), 1).release
    other_template = handler.Settings("", "", "https://elsewhere", "", PARAMETERS, 3).release
    assert same == release()
    assert len({same, other_template, release(Project="other")}) == 3


def test_a_later_approval_updates_it(world: World) -> None:
    world.cloudformation.put("CREATE_COMPLETE", version=1)
    world.registry.put(2)
    assert world.send(decision(2))["outcome"] == "updated"
    assert world.cloudformation.served == arn(2)


def test_a_person_may_go_back_to_an_older_version_by_approving_it(world: World) -> None:
    world.cloudformation.put("UPDATE_COMPLETE", version=5)
    world.registry.put(3)
    world.registry.put(5)
    assert world.send(decision(3))["outcome"] == "updated"
    assert world.cloudformation.served == arn(3)


def test_the_same_event_twice_is_one_deployment(world: World) -> None:
    world.registry.put(1)
    assert world.send(decision(1))["outcome"] == "created"
    assert world.send(decision(1))["outcome"] == "unchanged"
    assert world.send(decision(1, time="2021-02-24T17:00:15Z"))["outcome"] == "unchanged"
    assert world.cloudformation.deployments == [arn(1)]


def test_the_same_event_twice_at_once_is_one_deployment(world: World) -> None:
    world.registry.put(1)
    world.cloudformation.polls = 20
    with ThreadPoolExecutor(4) as pool:
        outcomes = sorted(answer["outcome"] for answer in pool.map(world.send, [decision(1)] * 4))
    assert outcomes == ["created", "unchanged", "unchanged", "unchanged"]
    assert world.cloudformation.deployments == [arn(1)]


def test_approving_again_brings_new_code_out(world: World) -> None:
    world.cloudformation.put("CREATE_COMPLETE", version=1, WorkflowDefinitionKey="code/stepfunctions/classify/0.asl.json")
    world.registry.put(1)
    assert world.send(decision(1))["outcome"] == "updated"
    assert world.cloudformation.requests[0][1]["DecidedAt"] == "2021-02-24T16:00:00+00:00"


@pytest.mark.parametrize("order", [(2, 3), (3, 2)])
def test_two_approvals_in_one_second_end_with_the_newest_version(world: World, order: tuple[int, int]) -> None:
    world.registry.put(2)
    world.registry.put(3)
    for version in order:
        world.send(decision(version))
    assert world.cloudformation.served == arn(3)


def test_two_approvals_handled_at_once_end_with_the_newest_version(world: World) -> None:
    world.registry.put(2)
    world.registry.put(3)
    world.cloudformation.polls = 20
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(world.send, [decision(3), decision(2)]))
    assert world.cloudformation.served == arn(3)


def test_an_approval_that_comes_late_does_not_undo_a_later_one(world: World) -> None:
    world.registry.put(2)
    world.registry.put(3)
    world.send(decision(2, time="2021-02-24T17:00:20Z"))
    answer = world.send(decision(3, time="2021-02-24T17:00:10Z"))
    assert answer["outcome"] == "ignored"
    assert "a later decision put version 2 into production" in answer["reason"]
    assert world.cloudformation.served == arn(2)


def test_an_approval_that_was_withdrawn_meanwhile_is_ignored(world: World) -> None:
    world.registry.put(1, approval="Rejected")
    answer = world.send(decision(1))
    assert (answer["outcome"], answer["reason"]) == ("ignored", "its approval status is Rejected by now")
    assert not world.cloudformation.requests


@pytest.mark.parametrize("status", ["Pending", "InProgress", "Failed", "Deleting"])
def test_a_package_that_is_not_complete_is_raised(world: World, status: str) -> None:
    world.registry.put(1, status=status)
    with pytest.raises(ModelPackageNotReadyError, match=status):
        world.send(decision(1))
    assert not world.cloudformation.requests


def test_a_deleted_package_is_raised(world: World) -> None:
    with pytest.raises(ModelPackageNotFoundError, match=r"version 1 of .* is not in the registry"):
        world.send(decision(1))
    assert not world.cloudformation.requests
    assert world.lines()[-1]["error_name"] == "ModelPackageNotFoundError"


def test_a_registry_that_cannot_be_read_is_raised(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def throttled(params: dict[str, Any]) -> dict[str, Any]:
        raise AwsError("ThrottlingException", "Rate exceeded")

    client = fake_client("sagemaker", DescribeModelPackage=throttled)
    monkeypatch.setattr(handler, "sagemaker", lambda: client)
    with pytest.raises(client.exceptions.ClientError, match="Rate exceeded"):
        world.send(decision(1))


# ---------------------------------------------------------------------------------------------------------- not for this function


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (decision(1, account="999999999999", detail={"ModelPackageArn": arn(1, account="999999999999")}), "it is of account 999999999999"),
        (decision(1, account="999999999999"), "it is of account"),
        (decision(1, detail={"ModelPackageArn": arn(1, account="999999999999")}), "it is of account 999999999999"),
        (decision(1, detail={"ModelPackageArn": arn(1, group="other")}), "it is of model package group 'other'"),
        (decision(1, region="eu-west-1", detail={"ModelPackageArn": arn(1, region="eu-west-1")}), "it is of region eu-west-1"),
        (decision(1, "PendingManualApproval"), "the approval status is 'PendingManualApproval'"),
        (decision(1, detail={"UpdatedModelPackageFields": ["CustomerMetadataProperties"]}), "only CustomerMetadataProperties changed"),
    ],
)
def test_what_is_not_ours_is_ignored_with_a_log_line(world: World, event: dict[str, Any], reason: str) -> None:
    world.registry.put(1)
    answer = world.send(event)
    assert answer["outcome"] == "ignored"
    assert reason in answer["reason"]
    assert not world.cloudformation.requests
    (line,) = world.lines()
    assert (line["message"], line["correlation_id"]) == ("Event ignored", event["id"])
    assert reason in line["reason"]


def test_an_event_that_tells_the_approval_changed_is_handled(world: World) -> None:
    world.registry.put(1)
    assert world.send(decision(1, detail={"UpdatedModelPackageFields": ["ModelApprovalStatus"]}))["outcome"] == "created"


@pytest.mark.parametrize(
    "event",
    [
        None,
        {},
        {"detail-type": "SageMaker Model Package State Change"},
        decision(1, **{"detail-type": "SageMaker Training Job State Change"}),
        decision(1, detail={"ModelPackageArn": "arn:aws:sagemaker:us-east-2:123456789012:model-package/unversioned"}),
        decision(1, detail={"ModelPackageArn": None}),
        decision(1, time="yesterday"),
        decision(1) | {"time": None},
    ],
)
def test_what_is_no_such_event_is_raised(world: World, event: Any) -> None:
    with pytest.raises(InvalidEventError):
        world.send(event)


# ------------------------------------------------------------------------------------------------------------------- rejected


def test_rejecting_the_version_in_production_brings_the_newest_other_approved_one_back(world: World) -> None:
    world.cloudformation.put("UPDATE_COMPLETE", version=4)
    world.registry.put(1)
    world.registry.put(2)
    world.registry.put(3, approval="PendingManualApproval")
    world.registry.put(4, approval="Rejected")
    world.registry.put(5, status="Failed")
    answer = world.send(decision(4, "Rejected"))
    assert answer == {"outcome": "updated", "model_package_arn": arn(2), "reason": "version 4 was rejected"}
    assert world.cloudformation.served == arn(2)


def test_aws_sample_event(world: World) -> None:
    """The event as AWS documents it, unchanged: it rejects version 2."""
    world.cloudformation.put("UPDATE_COMPLETE", version=2)
    world.registry.put(1)
    world.registry.put(2, approval="Rejected")
    assert world.send(EVENT)["model_package_arn"] == arn(1)


def test_a_list_that_lags_behind_does_not_bring_the_rejected_version_back(world: World) -> None:
    world.registry.put(1)
    world.registry.put(2)
    target = Registry(world.registry.client).newest_approved(GROUP, other_than=ModelPackageArn.parse(arn(2)))
    assert target is not None
    assert target.arn.version == 1


def test_rejecting_twice_is_one_rollback(world: World) -> None:
    world.cloudformation.put("UPDATE_COMPLETE", version=2)
    world.registry.put(1)
    world.registry.put(2, approval="Rejected")
    world.send(decision(2, "Rejected"))
    assert world.send(decision(2, "Rejected"))["outcome"] == "ignored"
    assert world.cloudformation.deployments == [arn(1)]


def test_an_approval_from_before_the_rejection_does_not_undo_the_rollback(world: World) -> None:
    world.cloudformation.put("UPDATE_COMPLETE", version=4)
    world.registry.put(1)
    world.registry.put(2)
    world.registry.put(4, approval="Rejected")
    world.send(decision(4, "Rejected", time="2021-02-24T17:00:20Z"))
    assert world.send(decision(1, time="2021-02-24T17:00:10Z"))["outcome"] == "ignored"
    assert world.cloudformation.served == arn(2)


def test_rejecting_what_is_not_in_production_changes_nothing(world: World) -> None:
    world.registry.put(2, approval="Rejected")
    assert world.send(decision(2, "Rejected"))["reason"] == "it is not in production"
    world.cloudformation.put("CREATE_COMPLETE", version=1)
    assert world.send(decision(2, "Rejected"))["reason"] == "it is not in production"
    assert not world.cloudformation.requests


def test_with_no_other_approved_version_it_says_so_and_goes_on_serving(world: World) -> None:
    world.cloudformation.put("CREATE_COMPLETE", version=1)
    world.registry.put(1, approval="Rejected")
    world.registry.put(2, approval="PendingManualApproval")
    with pytest.raises(NoRollbackTargetError, match="no other version is Approved"):
        world.send(decision(1, "Rejected"))
    assert not world.cloudformation.requests


def test_rejecting_a_version_while_it_is_being_deployed_rolls_back_afterwards(world: World) -> None:
    stack = world.cloudformation.put("UPDATE_IN_PROGRESS", version=2)
    stack.polls_left = 3
    world.registry.put(1)
    world.registry.put(2, approval="Rejected")
    assert world.send(decision(2, "Rejected"))["model_package_arn"] == arn(1)
    assert world.cloudformation.served == arn(1)


# ------------------------------------------------------------------------------------------------------------ states of the stack


@pytest.mark.parametrize("status", ["CREATE_IN_PROGRESS", "UPDATE_IN_PROGRESS", "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS"])
def test_a_deployment_in_progress_is_waited_for(world: World, status: str) -> None:
    stack = world.cloudformation.put(status, version=1)
    stack.polls_left = 5
    world.registry.put(2)
    assert world.send(decision(2))["outcome"] == "updated"


def test_a_creation_that_somebody_else_began_first_is_waited_for(world: World) -> None:
    world.registry.put(2)

    def create() -> None:
        world.cloudformation.put("CREATE_IN_PROGRESS", version=1).polls_left = 2

    world.cloudformation.meanwhile = create
    assert world.send(decision(2))["outcome"] == "updated"
    assert world.cloudformation.served == arn(2)


def test_an_update_that_somebody_else_began_first_is_waited_for_and_decides_anew(world: World) -> None:
    stack = world.cloudformation.put("CREATE_COMPLETE", version=1)
    world.registry.put(2)

    def update() -> None:
        stack.status, stack.polls_left = "UPDATE_IN_PROGRESS", 2
        stack.parameters = stack.parameters | {"ModelPackageArn": arn(9), "DecidedAt": "2021-02-24T18:00:00+00:00"}

    world.cloudformation.meanwhile = update
    assert world.send(decision(2))["outcome"] == "ignored"
    assert world.cloudformation.served == arn(9)


def test_a_deployment_that_outlives_the_function_is_raised_for_a_retry(world: World) -> None:
    stack = world.cloudformation.put("UPDATE_IN_PROGRESS", version=1)
    stack.polls_left = 1_000_000
    world.registry.put(2)
    with pytest.raises(DeploymentInProgressError, match="UPDATE_IN_PROGRESS"):
        world.send(decision(2), remaining_ms=handler.RESERVE_SECONDS * 1000)
    assert not world.cloudformation.requests


def test_the_retry_of_an_event_whose_deployment_went_on_finds_it_done(world: World) -> None:
    world.registry.put(1)
    world.cloudformation.polls = 1_000_000
    with pytest.raises(DeploymentInProgressError, match="CREATE_IN_PROGRESS"):
        world.send(decision(1), remaining_ms=handler.RESERVE_SECONDS * 1000)
    world.cloudformation.stacks[0].polls_left = 0
    assert world.send(decision(1))["outcome"] == "unchanged"
    assert world.cloudformation.deployments == [arn(1)]


def test_a_failing_update_leaves_what_served_before_and_says_why(world: World) -> None:
    world.cloudformation.put("CREATE_COMPLETE", version=1)
    world.registry.put(2)
    world.cloudformation.failing[arn(2)] = "The primary container did not pass the ping health check."
    with pytest.raises(DeploymentFailedError) as raised:
        world.send(decision(2))
    message = str(raised.value)
    assert "UPDATE_ROLLBACK_COMPLETE: Endpoint (AWS::SageMaker::Endpoint): The primary container did not pass" in message
    assert "cancelled" not in message
    assert world.cloudformation.served == arn(1)
    assert world.lines()[-1]["message"] == message


@pytest.mark.parametrize("status", ["CREATE_COMPLETE", None], ids=["update", "creation"])
def test_a_retry_of_what_failed_says_so_again_and_does_not_deploy_again(world: World, status: str | None) -> None:
    if status is not None:
        world.cloudformation.put(status, version=1)
    world.registry.put(2)
    world.cloudformation.failing[arn(2)] = "The smoke test failed."
    for _ in range(3):
        with pytest.raises(DeploymentFailedError, match=r"The smoke test failed\."):
            world.send(decision(2))
    assert world.cloudformation.deployments == [arn(2)]


def test_approving_again_what_failed_tries_it_again(world: World) -> None:
    world.cloudformation.put("CREATE_COMPLETE", version=1)
    world.registry.put(2)
    world.cloudformation.failing[arn(2)] = "No capacity."
    with pytest.raises(DeploymentFailedError):
        world.send(decision(2))
    del world.cloudformation.failing[arn(2)]
    assert world.send(decision(2, id="another"))["outcome"] == "updated"
    assert world.cloudformation.served == arn(2)


def test_only_the_last_operations_failures_are_reported(world: World) -> None:
    world.cloudformation.put("CREATE_COMPLETE", version=1)
    for version, reason in ((2, "first reason"), (3, "second reason")):
        world.registry.put(version)
        world.cloudformation.failing[arn(version)] = reason
        with pytest.raises(DeploymentFailedError, match=reason) as raised:
            world.send(decision(version, id=str(version)))
    assert "first reason" not in str(raised.value)


def test_after_a_failed_update_the_next_approval_deploys(world: World) -> None:
    world.cloudformation.put("UPDATE_ROLLBACK_COMPLETE", version=1)
    world.registry.put(3)
    assert world.send(decision(3))["outcome"] == "updated"


@pytest.mark.parametrize("status", ["ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "CREATE_FAILED", "DELETE_FAILED", "REVIEW_IN_PROGRESS"])
def test_what_a_failed_creation_left_is_deleted_first(world: World, status: str) -> None:
    left = world.cloudformation.put(status, version=7, decided_at="2021-02-24T18:00:00+00:00")
    world.registry.put(1)
    assert world.send(decision(1))["outcome"] == "created"
    assert [name for name, _ in world.cloudformation.requests] == ["delete", "create"]
    assert world.cloudformation.requests[0][1] == {"StackName": left.stack_id}
    assert world.cloudformation.served == arn(1)


def test_a_stack_that_is_being_deleted_is_created_anew(world: World) -> None:
    stack = world.cloudformation.put("DELETE_IN_PROGRESS")
    stack.polls_left = 2
    world.registry.put(1)
    assert world.send(decision(1))["outcome"] == "created"


def test_update_rollback_failed_needs_a_person(world: World) -> None:
    world.cloudformation.put("UPDATE_ROLLBACK_FAILED", version=1)
    world.registry.put(2)
    with pytest.raises(StackNotUpdatableError, match=f"aws cloudformation continue-update-rollback --stack-name {STACK}"):
        world.send(decision(2))
    assert not world.cloudformation.requests


def test_a_refusal_of_cloudformation_is_raised(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(params: dict[str, Any]) -> dict[str, Any]:
        raise AwsError("ValidationError", "Parameters: [Project] do not exist in the template")

    def missing(params: dict[str, Any]) -> dict[str, Any]:
        raise AwsError("ValidationError", f"Stack with id {STACK} does not exist")

    client = fake_client("cloudformation", CreateStack=refuse, DescribeStacks=missing)
    monkeypatch.setattr(handler, "cloudformation", lambda: client)
    world.registry.put(1)
    with pytest.raises(client.exceptions.ClientError, match="do not exist in the template"):
        world.send(decision(1))
