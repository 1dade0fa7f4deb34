"""The product's templates on a running region: deployed, updated, rolled back and deleted, and what people are told of it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from moto.sqs.models import sqs_backends

from helpers_product import ACCOUNT, ANSWER, GROUP, REGION, STACK, Product
from infrastructure.deploy import refresh_inference

FUNCTIONS = ("serialize-image-data", "image-classification", "filter-low-confidence-inferences")
#: Loads, answers pings, and fails on every photo.
BROKEN = """
def model_fn(model_dir):
    return None

def transform_fn(model, body, content_type, accept):
    raise RuntimeError("the weights are all NaN")
"""

PIPELINE = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:pipeline/{GROUP}"


@pytest.fixture(scope="module")
def product(region: Any) -> Product:
    from conftest import poll

    product = Product(region, poll)
    product.deploy()
    product.listen()
    return product


def test_people_are_told_which_step_failed_and_why(product: Product) -> None:
    detail: dict[str, Any] = {
        "failureReason": 'Quality gate missed: test accuracy 0.71; required: at least 0.9 (MinimumAccuracy), "as agreed".',
        "metadata": {},
        "stepName": "QualityGateMissed",
        "stepType": "Fail",
        "previousStepStatus": "Executing",
        "currentStepStatus": "Failed",
        "pipelineArn": PIPELINE,
        "pipelineExecutionArn": f"{PIPELINE}/execution/abc123",
    }
    other = detail | {"stepName": "Elsewhere", "pipelineArn": f"{PIPELINE}-of-others"}
    for one in (other, detail):
        product.region.cloud.emit("aws.sagemaker", "SageMaker Model Building Pipeline Execution Step Status Change", one)
    told = product.told("QualityGateMissed")
    assert detail["failureReason"] in told.replace('\\"', '"')
    assert "execution/abc123" in told


def test_people_are_told_of_a_version_that_waits_for_them(product: Product) -> None:
    arn = product.register()
    told = product.told("waits for your decision")
    assert f"Version {arn.rpartition('/')[2]} of the model {GROUP}" in told


# The rest is one story: each test goes on from where the one before it ended.


@pytest.fixture(scope="module")
def versions(product: Product) -> dict[str, str]:
    """A version that cannot classify, and two that can."""
    return {"broken": product.register(BROKEN), "first": product.register(), "second": product.register()}


def published(product: Product) -> dict[str, list[str]]:
    """Return the numbers of the functions' versions, and of the state machine's."""
    functions, states = product.client("lambda"), product.client("stepfunctions")
    numbers = {
        name: [version["Version"] for version in functions.list_versions_by_function(FunctionName=f"scones-{name}")["Versions"]][1:]
        for name in FUNCTIONS
    }
    machine = f"arn:aws:states:{REGION}:{ACCOUNT}:stateMachine:scones-classify"
    listed = states.list_state_machine_versions(stateMachineArn=machine)["stateMachineVersions"]
    return numbers | {"classify": [version["stateMachineVersionArn"].rpartition(":")[2] for version in listed]}


def serving(product: Product) -> dict[str, Any]:
    """Return what production consists of; all of it must be the same after a deployment that failed."""
    functions, states = product.client("lambda"), product.client("stepfunctions")
    endpoint = product.client("sagemaker").describe_endpoint(EndpointName="scones-production")
    alias = states.describe_state_machine_alias(stateMachineAliasArn=product.stack()["Outputs"]["StateMachineArn"])
    return {
        "endpoint": (endpoint["EndpointStatus"], endpoint["EndpointConfigName"]),
        "workflow": alias["routingConfiguration"],
        "functions": [functions.get_function_configuration(FunctionName=f"scones-{name}")["Environment"] for name in FUNCTIONS],
        "parameters": product.stack()["Parameters"],
    }


def test_a_first_version_that_fails_its_smoke_test_leaves_nothing(product: Product, versions: dict[str, str]) -> None:
    product.decide(versions["broken"])
    product.settled("ROLLBACK_COMPLETE")
    (reason,) = [reason for reason in product.reasons() if reason.startswith("SmokeTest")]
    assert "The endpoint failed on the version's sample payload, 3 times" in reason
    assert "the weights are all NaN" in reason
    assert "SmokeTest" in product.told("failed and is being rolled back", STACK)
    product.told("was rolled back (ROLLBACK_COMPLETE)", STACK)
    assert product.client("sagemaker").list_endpoints()["Endpoints"] == []
    assert [f["FunctionName"] for f in product.client("lambda").list_functions()["Functions"]] == ["scones-deploy-inference-workflow"]


def test_an_approved_version_is_tried_and_then_serves(product: Product, versions: dict[str, str]) -> None:
    product.decide(versions["first"])
    stack = product.settled("CREATE_COMPLETE", versions["first"])
    product.told("Production is deployed and passed its smoke test (CREATE_COMPLETE)")
    assert stack["Outputs"]["StateMachineArn"].endswith(":stateMachine:scones-classify:live")
    assert published(product) == {name: ["1"] for name in (*FUNCTIONS, "classify")}
    assert any('"outcome":"passed"' in line for line in product.log("/aws/lambda/scones-smoke-test"))
    # What the test sent was accepted at threshold 0: nobody is asked about it.
    url = stack["Outputs"]["ReviewQueueUrl"]
    assert "Messages" not in product.client("sqs").receive_message(QueueUrl=url)
    result = product.classify()
    assert (result["decision"], result["predicted_label"]) == ("needs_review", "bicycle")
    assert product.classify(threshold=0.5)["decision"] == "accepted"


def test_another_model_alone_publishes_no_new_functions(product: Product, versions: dict[str, str]) -> None:
    before = serving(product)
    product.decide(versions["second"])
    product.settled("UPDATE_COMPLETE", versions["second"])
    after = serving(product)
    assert after["endpoint"] != before["endpoint"]
    assert (after["workflow"], after["functions"]) == (before["workflow"], before["functions"])
    assert published(product) == {name: ["1"] for name in (*FUNCTIONS, "classify")}


def test_new_settings_are_new_versions_behind_the_same_alias(product: Product, versions: dict[str, str]) -> None:
    before = serving(product)
    product.deploy(confidence_threshold=0.8)
    assert refresh_inference(product, product.outputs) == "updated"
    after = serving(product)
    assert after["endpoint"] == before["endpoint"]
    assert after["workflow"][0]["stateMachineVersionArn"].endswith(":2")
    # An execution that is under way calls the functions it began with to its end.
    assert published(product) == {name: ["1", "2"] for name in FUNCTIONS} | {"classify": ["2"]}
    assert product.classify()["decision"] == "accepted"
    assert refresh_inference(product, product.outputs) == "unchanged"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (ANSWER | {"inferences": [0.9, 0.9]}, "Class probabilities must add up to 1"),
        (ANSWER | {"inferences": "none"}, "The endpoint's answer is not the agreed JSON"),
    ],
    ids=["no probabilities", "no list"],
)
def test_a_version_that_fails_its_smoke_test_is_taken_back_and_what_served_before_serves(
    product: Product, answer: dict[str, Any], reason: str, poll: Callable[..., Any]
) -> None:
    before, dead_letters = serving(product), product.dead_letters()
    product.decide(product.register(answer=answer))
    failed = product.settled("UPDATE_ROLLBACK_COMPLETE")
    assert reason in next(text for text in product.reasons() if text.startswith("SmokeTest"))
    product.told("was rolled back (UPDATE_ROLLBACK_COMPLETE)")
    assert serving(product) == before
    assert product.classify()["decision"] == "accepted"
    # Lambda tries the event twice more; the version does not get before customers again.
    (letter,) = poll(lambda: product.dead_letters()[len(dead_letters) :])
    assert reason in letter["MessageAttributes"]["ErrorMessage"]["StringValue"]
    assert product.stack()["LastUpdatedTime"] == failed["LastUpdatedTime"]


def test_settings_that_come_with_a_version_that_fails_are_taken_back_too(
    product: Product, versions: dict[str, str], poll: Callable[..., Any]
) -> None:
    before, numbers, dead_letters = serving(product), published(product), product.dead_letters()
    product.deploy(confidence_threshold=0.85)
    product.decide(versions["broken"], "Rejected")
    product.decide(versions["broken"])
    product.settled("UPDATE_ROLLBACK_COMPLETE")
    product.told("was rolled back (UPDATE_ROLLBACK_COMPLETE)")
    assert serving(product) == before
    assert published(product) == numbers
    assert product.classify()["decision"] == "accepted"
    # Until Lambda has given the event up, its next try would make the stack anew that the next test deletes.
    poll(lambda: product.dead_letters()[len(dead_letters) :])


def test_people_are_told_by_the_alarm_of_what_is_counted(product: Product) -> None:
    """Of photos that fail, of one that nobody looks at, and of the decisions above that could not be carried out."""
    for _ in range(5):
        with pytest.raises(AssertionError, match="ImageNotFoundError"):
            product.classify(s3_key="inbox/nothing.png")
    assert product.classify(threshold=1.0)["decision"] == "needs_review"
    two_days_ago = (time.time() - 48 * 60 * 60 - 1) * 1000
    for message in sqs_backends[ACCOUNT][REGION].queues["scones-review"]._messages:
        message.sent_timestamp = two_days_ago  # type: ignore[assignment]  # moto says None
    # The end of this minute, now.
    product.region.cloud.services["cloudwatch"].alarms.tick((int(time.time()) // 60 + 1) * 60)
    for alarm in ("classify-failures", "review-age", "approval-events-dead-letters", "deploy-inference-workflow-errors"):
        told = json.loads(product.told(f'"AlarmName": "scones-{alarm}"', '"NewStateValue": "ALARM"'))
        assert "1 datapoint" in told["NewStateReason"]
    states = {alarm["AlarmName"]: alarm["StateValue"] for alarm in product.client("cloudwatch").describe_alarms()["MetricAlarms"]}
    # Whether the two broken versions before were in two neighbouring minutes, which is what 5xx looks at, is chance.
    quiet = {"scones-production-latency", "scones-review-depth", "scones-classify-timeouts"}
    assert {name for name, state in states.items() if state != "ALARM"} - {"scones-production-5xx"} == quiet


def test_production_goes_on_with_a_platform_that_was_deleted_by_hand_and_came_back(product: Product, poll: Callable[..., Any]) -> None:
    cloudformation = product.client("cloudformation")
    platform = cloudformation.describe_stacks(StackName="scones-platform")["Stacks"][0]["StackId"]
    cloudformation.delete_stack(StackName=platform)
    poll(lambda: cloudformation.describe_stacks(StackName=platform)["Stacks"][0]["StackStatus"] == "DELETE_COMPLETE")
    assert product.deploy(confidence_threshold=0.8).change == "created"
    # The roles that the stack of production worked with are gone; it gets the new ones, the model's among them.
    assert refresh_inference(product, product.outputs) == "updated"
    assert serving(product)["endpoint"][0] == "InService"
    assert product.classify()["decision"] == "accepted"


def test_the_stack_can_be_deleted_and_leaves_nothing(product: Product) -> None:
    cloudformation = product.client("cloudformation")
    cloudformation.delete_stack(StackName=STACK)
    cloudformation.get_waiter("stack_delete_complete").wait(StackName=STACK, WaiterConfig={"Delay": 0.1, "MaxAttempts": 600})
    assert product.client("sagemaker").list_endpoints()["Endpoints"] == []
    assert product.client("stepfunctions").list_state_machines()["stateMachines"] == []
    assert product.client("cloudwatch").list_dashboards()["DashboardEntries"] == []
