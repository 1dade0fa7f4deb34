"""Change sets as CloudFormation answers them, templates as data, and the estimate of cost."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.session import get_session
from hypothesis import given
from hypothesis import strategies as st

from helpers_aws import ACCOUNT, REGION, AwsError, fake_client
from infrastructure.changes import HOLDS_DATA, Action, ChangeSet, ChangeSets, Replacement, ResourceChange
from infrastructure.costs import _CENTS, _PRICED, Serving, Usage, estimate_endpoint, estimate_stacks, is_free
from infrastructure.deploy import PlatformParameters
from infrastructure.inference import inference_parameters
from infrastructure.packaging import INFERENCE_TEMPLATE, PLATFORM_TEMPLATE
from infrastructure.templates import MAX_BODY_BYTES, UNKNOWN, Template, references, template_body
from lambdas.deploy_inference_workflow import stacks
from lambdas.deploy_inference_workflow.errors import DeploymentError, DeploymentInProgressError
from lambdas.deploy_inference_workflow.stacks import Desired, Stack
from scones.changes import differences
from scones.costs import dollars

ARN = f"arn:aws:cloudformation:{REGION}:{ACCOUNT}:changeSet/scones-1/1"
STACK = {"StackId": "arn:stack", "StackName": "s", "CreationTime": "2021-02-24T16:00:00Z", "StackStatus": "UPDATE_COMPLETE"}
DESIRED = Desired({"TemplateBody": "{}"}, {"A": "1"})


class FakeStack:
    """A stack whose change set goes through `statuses`."""

    def __init__(self, *statuses: dict[str, Any]) -> None:
        self.statuses = list(statuses)
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.seconds = 10.0

    def change_sets(self) -> ChangeSets:
        client = fake_client(
            "cloudformation",
            DescribeStacks=lambda _: {"Stacks": [STACK]},
            CreateChangeSet=lambda params: self._note("create", params, {"Id": ARN, "StackId": "arn:stack"}),
            DescribeChangeSet=self._describe,
            DeleteChangeSet=lambda params: self._note("delete", params, {}),
        )
        return ChangeSets(client, Stack(client, "s", lambda: self.seconds))

    def _note(self, name: str, params: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
        self.asked.append((name, params))
        return answer

    def _describe(self, params: dict[str, Any]) -> dict[str, Any]:
        status = self.statuses[0] if len(self.statuses) == 1 or params.get("NextToken") else self.statuses.pop(0)
        return {"ChangeSetName": "scones-1", "ChangeSetId": ARN, **status}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infrastructure.changes.FIRST_POLL_SECONDS", 0.0)
    monkeypatch.setattr(stacks, "FIRST_POLL_SECONDS", 0.0)


def modification(**more: Any) -> dict[str, Any]:
    change = {"Action": "Modify", "LogicalResourceId": "Q", "ResourceType": "AWS::SQS::Queue", "Replacement": "True", **more}
    return {"Type": "Resource", "ResourceChange": change}


def test_a_change_set_is_waited_for_and_read_over_all_its_pages() -> None:
    target = {"Attribute": "Properties", "Name": "QueueName", "BeforeValue": "a", "AfterValue": "b"}
    details = [
        {"Target": target, "ChangeSource": "DirectModification"},
        {"Target": target, "ChangeSource": "ParameterReference", "CausingEntity": "Name"},
    ]
    fake = FakeStack(
        {"Status": "CREATE_PENDING"},
        {"Status": "CREATE_IN_PROGRESS"},
        {"Status": "CREATE_COMPLETE", "NextToken": "2", "Changes": [modification(Details=details, PolicyAction="ReplaceAndDelete")]},
        {"Status": "CREATE_COMPLETE", "Changes": [modification(Action="Remove", Replacement="False", PolicyAction="Retain")]},
    )
    change_set = fake.change_sets().prepare(DESIRED, frozenset({"B"}))
    assert change_set is not None
    first, second = change_set.changes
    assert (first.replacement, first.loses_data, second.loses_data) == (Replacement.TRUE, True, False)
    assert [(item.name, item.before, item.after, item.cause) for item in first.properties] == [("QueueName", "a", "b", "Name")]
    parameters = fake.asked[0][1]["Parameters"]
    assert parameters == [{"ParameterKey": "A", "ParameterValue": "1"}, {"ParameterKey": "B", "UsePreviousValue": True}]


@pytest.mark.parametrize(
    "reason",
    [
        "The submitted information didn't contain changes. Submit different information to create a change set.",
        "No updates are to be performed.",
    ],
)
def test_a_change_set_without_changes_is_none_and_is_deleted(reason: str) -> None:
    fake = FakeStack({"Status": "FAILED", "StatusReason": reason})
    assert fake.change_sets().prepare(DESIRED) is None
    assert [name for name, _ in fake.asked] == ["create", "delete"]


def test_a_change_set_that_fails_says_why_and_is_deleted() -> None:
    fake = FakeStack({"Status": "FAILED", "StatusReason": "Parameters: [A] must exist"})
    with pytest.raises(DeploymentError, match="cannot work out the changes of the stack s: Parameters"):
        fake.change_sets().prepare(DESIRED)
    assert [name for name, _ in fake.asked] == ["create", "delete"]


def test_a_change_set_that_takes_too_long_is_deleted() -> None:
    fake = FakeStack({"Status": "CREATE_IN_PROGRESS"})
    fake.seconds = -1.0
    with pytest.raises(DeploymentInProgressError):
        fake.change_sets().prepare(DESIRED)
    assert [name for name, _ in fake.asked] == ["create", "delete"]


FIRST = ChangeSet("s", ARN, creates_stack=True, changes=())


ANOTHER = ARN.replace("scones-1", "scones-2")


def planned_stack(*statuses: str, mine: str = "CREATE_COMPLETE", another: str | None = None) -> tuple[ChangeSets, list[str]]:
    """A stack that a first change set brought along and that goes through these statuses, the last one for good; what is asked of it.

    `mine` and `another` are what the list of change sets says of the one that is dropped, and of somebody else's.
    """
    asked: list[str] = []
    left = list(statuses)

    def describe(params: dict[str, Any]) -> dict[str, Any]:
        asked.append(f"describe {params['StackName']}")
        return {"Stacks": [{**STACK, "StackStatus": left[0] if len(left) == 1 else left.pop(0)}]}

    def note(name: str) -> dict[str, Any]:
        asked.append(name)
        return {}

    listed = [{"ChangeSetId": ARN, "Status": mine}, *([{"ChangeSetId": ANOTHER, "Status": another}] if another else [])]
    client = fake_client(
        "cloudformation",
        DescribeStacks=describe,
        DeleteChangeSet=lambda _: note("delete change set"),
        DeleteStack=lambda params: note(f"delete {params['StackName']}"),
        ListChangeSets=lambda _: {"Summaries": listed},
    )
    return ChangeSets(client, Stack(client, "s", lambda: 10.0)), asked


@pytest.mark.parametrize("mine", ["CREATE_COMPLETE", "DELETE_PENDING"])
@pytest.mark.parametrize("another", [None, "DELETE_IN_PROGRESS"])
def test_who_drops_a_stacks_first_plan_finds_no_stack_afterwards(mine: str, another: str | None) -> None:
    statuses = ("REVIEW_IN_PROGRESS", "DELETE_IN_PROGRESS", "DELETE_IN_PROGRESS", "DELETE_COMPLETE")
    change_sets, asked = planned_stack(*statuses, mine=mine, another=another)
    change_sets.discard(FIRST)
    # By its id from then on: of a stack that is gone CloudFormation answers nothing else.
    assert asked == ["delete change set", "describe s", "delete arn:stack", *["describe arn:stack"] * 3]


def test_a_stack_that_does_not_go_in_time_is_no_error_of_a_dropped_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infrastructure.changes._GONE_SECONDS", 0.0)
    change_sets, asked = planned_stack("REVIEW_IN_PROGRESS", "DELETE_IN_PROGRESS")
    change_sets.discard(FIRST)
    assert asked == ["delete change set", "describe s", "delete arn:stack", "describe arn:stack"]


@pytest.mark.parametrize(
    ("status", "another"),
    [("REVIEW_IN_PROGRESS", "CREATE_COMPLETE"), ("CREATE_COMPLETE", None), ("CREATE_IN_PROGRESS", None)],
)
def test_a_stack_that_somebody_else_plans_or_makes_stays(status: str, another: str | None) -> None:
    change_sets, asked = planned_stack(status, another=another)
    change_sets.discard(FIRST)
    assert asked == ["delete change set", "describe s"]


def test_what_cloudformation_can_answer_is_what_can_be_read() -> None:
    model = get_session().get_service_model("cloudformation")
    assert set(model.shape_for("ChangeAction").enum) == {action.value for action in Action}
    assert set(model.shape_for("Replacement").enum) == {replacement.value for replacement in Replacement}


@pytest.mark.parametrize(("action", "replacement", "policy", "lost"), [
    ("Remove", "False", "Delete", True),
    ("Remove", "False", "Retain", False),
    ("Modify", "Conditional", "ReplaceAndDelete", True),
    ("Modify", "True", "ReplaceAndRetain", False),
    ("Modify", "False", None, False),
])  # fmt: skip
def test_data_is_lost_where_something_that_holds_it_goes(action: str, replacement: str, policy: str | None, lost: bool) -> None:
    for kind in HOLDS_DATA:
        assert ResourceChange(Action(action), "R", kind, None, Replacement(replacement), policy).loses_data is lost
    assert not ResourceChange(Action(action), "R", "AWS::IAM::Role", None, Replacement(replacement), policy).loses_data


# --- templates ------------------------------------------------------------------------------------------------------------------------------


def test_short_forms_and_long_forms_are_the_same() -> None:
    short = "Resources: {R: {Type: T, Condition: C, Properties: {A: !GetAtt X.Y.Z, B: !Sub '${P}-${!q}-${X.Y}', C: !If [C, !Ref P, !Ref AWS::NoValue]}}}"
    template = Template.parse(short + "\nConditions: {C: !Not [!Equals [!Ref P, '']]}\nParameters: {P: {Type: String, Default: ''}}")
    properties = template.resources["R"].properties
    assert properties["A"] == {"Fn::GetAtt": ["X", "Y.Z"]}
    assert references(properties) == {"X", "P", "AWS::NoValue"}
    assert template.active({}) == {}
    (resource,) = template.active({"P": "v"}).values()
    assert template.properties(resource, {"P": "v"}) == {"A": UNKNOWN, "B": UNKNOWN, "C": "v"}
    assert Template.parse(template.body()).document == template.document


def test_the_part_that_holds_data_is_a_whole_template() -> None:
    template = Template.read(PLATFORM_TEMPLATE)
    part = template.what_holds_data()
    assert {"ArtifactBucket", "ArtifactBucketPolicy", "ModelPackageGroup"} <= set(part.resources)
    assert not {resource.type for resource in part.resources.values()} & {"AWS::IAM::Role", "AWS::Lambda::Function", "AWS::Events::Rule"}
    assert "ArtifactBucketName" in part.document["Outputs"]
    known = {*part.resources, *part.document["Parameters"]}
    assert {name for name in references([part.document["Resources"], part.document["Outputs"]]) if not name.startswith("AWS::")} <= known
    assert all(resource.holds_on for name, resource in part.resources.items() if name == "ArtifactBucket")
    assert not any(resource.holds_on for resource in template.what_holds_data(retained=False).resources.values())


def test_a_template_that_is_too_long_for_a_request_is_sent_without_its_comments(tmp_path: Any) -> None:
    path = tmp_path / "t.yaml"
    path.write_text("Resources:\n  R:\n    Type: AWS::SQS::Queue\n" + "# comment\n" * MAX_BODY_BYTES)
    assert template_body(path) == '{"Resources":{"R":{"Type":"AWS::SQS::Queue"}}}'
    assert len(template_body(PLATFORM_TEMPLATE).encode()) <= MAX_BODY_BYTES


def test_what_the_platform_hands_on_is_what_the_inference_template_takes() -> None:
    handed_on = inference_parameters({"ConfidenceThreshold": "0.8"})
    assert handed_on["ConfidenceThreshold"] == "0.8"
    assert handed_on["ModelRoleArn"] is None
    inference = Template.read(INFERENCE_TEMPLATE)
    assert set(handed_on) | {"ModelPackageArn", "DecidedAt", "Release"} == set(inference.document["Parameters"])


# --- differences ----------------------------------------------------------------------------------------------------------------------------

DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(DOCUMENTS)
def test_nothing_differs_from_itself(document: Any) -> None:
    assert list(differences(document, document)) == []


def test_differences_are_told_as_deep_as_they_are_also_inside_texts() -> None:
    before = {"Variables": {"P": '{"a": 1, "b": 2}', "X": "1"}, "L": [1, 2]}
    after = {"Variables": {"P": '{"a": 1, "b": 3}'}, "L": [1, 2, 3]}
    assert list(differences(before, after)) == [(".Variables.P.b", 2, 3), (".Variables.X", "1", None), (".L", [1, 2], [1, 2, 3])]


# --- cost -----------------------------------------------------------------------------------------------------------------------------------


def test_every_resource_type_of_the_templates_is_priced_or_known_to_be_free() -> None:
    for path in PLATFORM_TEMPLATE.parent.glob("*.yaml"):
        for resource in Template.read(path).resources.values():
            known = is_free(resource.type) or resource.type in _CENTS or resource.type in _PRICED or resource.type in UNPRICED
            assert known, f"{path.name}: {resource.logical_id} ({resource.type})"


#: Shown as "?" with their names: prices that are not in the table.
UNPRICED = {"AWS::SageMaker::MlflowTrackingServer", "AWS::SageMaker::MlflowApp"}


def test_an_instance_costs_by_the_hour_and_serverless_by_use() -> None:
    usage = Usage(photos=1_000_000, inference_seconds=0.1, photo_kilobytes=100)
    instance = estimate_endpoint("e", Serving("ml.m5.large", 2, 0), usage.photos, usage)
    serverless = estimate_endpoint("e", Serving(None, 0, 2), usage.photos, usage)
    assert instance.monthly == pytest.approx(0.115 * 2 * 730)
    assert instance.standing
    assert serverless.monthly == pytest.approx(1e5 * 2 * 0.00002 + 100 * 0.016)
    assert not serverless.standing
    assert estimate_endpoint("e", Serving("ml.p9.huge", 1, 0), 1, usage).monthly is None


def test_a_resource_without_a_price_is_named_not_left_out() -> None:
    template = Template({"Resources": {"Db": {"Type": "AWS::RDS::DBInstance"}}})
    estimate = estimate_stacks([(template, {})], Usage())
    assert [line.what for line in estimate.unknown] == ["Db"]


def test_the_serving_mode_of_the_settings_decides_what_production_costs() -> None:
    template = Template.read(INFERENCE_TEMPLATE)
    handed_on = inference_parameters(PlatformParameters().for_template())
    known = {name: value for name, value in handed_on.items() if value is not None}
    serverless = estimate_stacks([(template, known | {"ServingMode": "serverless"})], Usage())
    instance = estimate_stacks([(template, known | {"ServingMode": "instance"})], Usage())
    assert instance.standing > serverless.standing + 100


@pytest.mark.parametrize(("amount", "text"), [(0, "0"), (0.004, "< 0.01"), (1.239, "1.24"), (148.92, "149")])
def test_an_estimate_is_not_more_precise_than_it_is(amount: float, text: str) -> None:
    assert dollars(amount) == text


def test_a_refused_template_is_cloudformations_own_error() -> None:
    def refuse(_: dict[str, Any]) -> dict[str, Any]:
        raise AwsError("ValidationError", "Template format error")

    client = fake_client("cloudformation", DescribeStacks=lambda _: {"Stacks": [STACK]}, CreateChangeSet=refuse)
    with pytest.raises(client.exceptions.ClientError, match="Template format error"):
        ChangeSets(client, Stack(client, "s", lambda: 1.0)).prepare(DESIRED)
