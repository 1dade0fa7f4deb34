"""Properties whose value somebody relies on, and nothing else would miss: limits of AWS, times, shares, what is switched on."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from infrastructure.cicd import CICD_TEMPLATE
from infrastructure.packaging import INFERENCE_TEMPLATE, PLATFORM_TEMPLATE
from infrastructure.templates import Template

PLATFORM, INFERENCE, CICD = (Template.read(path) for path in (PLATFORM_TEMPLATE, INFERENCE_TEMPLATE, CICD_TEMPLATE))
INSTANCES = {"ServingMode": "instance", "InstanceCount": "2", "TrafficShiftWaitInSeconds": "300"}
PUSHED = {"Source": "connection"}
UPLOADED = {"Source": "s3"}
DAY = 24 * 60 * 60


def at(template: Template, resource: str, path: str, **parameters: str) -> Any:
    """Return what is at a path of a resource's properties, as far as parameters decide it."""
    found: Any = template.properties(template.resources[resource], parameters)
    for key in path.split("."):
        found = found[int(key)] if isinstance(found, list) else found[key]
    return found


BLUE_GREEN = "DeploymentConfig.BlueGreenUpdatePolicy"
ROUTING = f"{BLUE_GREEN}.TrafficRoutingConfiguration"


@pytest.mark.parametrize(
    ("mode", "most"),
    [
        # https://docs.aws.amazon.com/sagemaker/latest/dg/serverless-endpoints.html: "4 MB" in one request
        ("serverless", 4_000_000),
        # https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_runtime_InvokeEndpoint.html: Body, 6,291,456 bytes
        ("instance", 6_291_456),
    ],
)
@pytest.mark.parametrize("function", ["SerializeImageDataFunction", "ImageClassificationFunction"])
def test_no_photo_is_sent_that_the_endpoint_would_not_take(function: str, mode: str, most: int) -> None:
    assert at(INFERENCE, function, "Environment.Variables.MAX_IMAGE_BYTES", ServingMode=mode) == str(most)


def test_the_alarms_are_watched_as_long_after_the_shift_as_before_it() -> None:
    assert at(INFERENCE, "Endpoint", f"{BLUE_GREEN}.TerminationWaitInSeconds", **INSTANCES) == "300"


def test_a_canary_is_one_machine_and_linear_steps_are_quarters() -> None:
    assert at(INFERENCE, "Endpoint", ROUTING, TrafficShifting="canary", **INSTANCES) == {
        "Type": "CANARY",
        "CanarySize": {"Type": "INSTANCE_COUNT", "Value": 1},
        "WaitIntervalInSeconds": "300",
    }
    assert at(INFERENCE, "Endpoint", ROUTING, TrafficShifting="linear", **INSTANCES) == {
        "Type": "LINEAR",
        "LinearStepSize": {"Type": "CAPACITY_PERCENT", "Value": 25},
        "WaitIntervalInSeconds": "300",
    }
    # https://docs.aws.amazon.com/sagemaker/latest/dg/deployment-guardrails-blue-green-canary.html: at most half of the fleet
    assert at(INFERENCE, "Endpoint", f"{ROUTING}.Type", TrafficShifting="canary", **INSTANCES | {"InstanceCount": "1"}) == "ALL_AT_ONCE"


def test_the_smoke_test_goes_the_way_that_customers_go() -> None:
    assert INFERENCE.resources["SmokeTest"].properties["StateMachineArn"] == {"Ref": "StateMachineAlias"}
    assert INFERENCE.document["Outputs"]["StateMachineArn"]["Value"] == {"Ref": "StateMachineAlias"}


@pytest.mark.parametrize("name", [name for name, item in INFERENCE.resources.items() if item.type == "AWS::Lambda::Function"])
def test_every_function_of_production_is_traced(name: str) -> None:
    assert at(INFERENCE, name, "TracingConfig.Mode") == "Active"


def test_the_workflow_is_traced_and_logs_errors_without_photos() -> None:
    assert at(INFERENCE, "StateMachine", "TracingConfiguration.Enabled") is True
    assert at(INFERENCE, "StateMachine", "LoggingConfiguration.Level") == "ERROR"
    assert at(INFERENCE, "StateMachine", "LoggingConfiguration.IncludeExecutionData") is False


def test_a_decision_has_the_time_that_a_deployment_takes_and_is_not_lost() -> None:
    # Lambda's longest, https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
    assert at(PLATFORM, "DeployFunction", "Timeout") == 900
    (target,) = at(PLATFORM, "ApprovalRule", "Targets")
    assert target["RetryPolicy"] == {"MaximumRetryAttempts": 8, "MaximumEventAgeInSeconds": 3600}
    # SQS's longest, https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html
    assert at(PLATFORM, "EventDeadLetterQueue", "MessageRetentionPeriod") == 14 * DAY


def test_people_hear_of_the_budget_before_it_is_spent() -> None:
    notifications = at(PLATFORM, "Budget", "NotificationsWithSubscribers")
    told = {
        (
            item["Notification"]["NotificationType"],
            item["Notification"].get("ThresholdType", "PERCENTAGE"),
            item["Notification"]["Threshold"],
        )
        for item in notifications
    }
    assert told == {("ACTUAL", "PERCENTAGE", 80), ("FORECASTED", "PERCENTAGE", 100)}


def test_what_was_overwritten_is_kept_for_a_season() -> None:
    (rule,) = at(PLATFORM, "ArtifactBucket", "LifecycleConfiguration.Rules")
    assert (rule["Status"], rule["NoncurrentVersionExpiration"]["NoncurrentDays"]) == ("Enabled", 90)


@pytest.mark.parametrize("project", ["PlatformProject", "PipelineProject"])
def test_builds_use_the_settings_of_the_delivery_s_stage(project: str) -> None:
    variables = {item["Name"]: item["Value"] for item in at(CICD, project, "Environment.EnvironmentVariables", Stage="production")}
    assert variables["SCONES_STAGE"] == "production"


def test_a_push_of_documents_is_not_delivered_and_one_of_templates_is() -> None:
    (trigger,) = at(CICD, "Delivery", "Triggers", Branch="main", **PUSHED)
    (push,) = trigger["GitConfiguration"]["Push"]
    assert push["Branches"]["Includes"] == ["main"]
    assert set(push["FilePaths"]["Excludes"]) == {"docs/**", "**/*.md", "*.md", "LICENSE"}


def test_uploads_begin_by_their_event_and_artifacts_have_the_key() -> None:
    source = at(CICD, "Delivery", "Stages.0.Actions.0.Configuration", **UPLOADED)
    assert source["PollForSourceChanges"] == "false"
    key = "arn:aws:kms:us-east-1:123456789012:key/1"
    assert at(CICD, "Delivery", "ArtifactStore.EncryptionKey", EncryptionKeyArn=key, **UPLOADED) == {"Id": key, "Type": "KMS"}


# --- the dashboard ----------------------------------------------------------------------------------------------------------------------------

#: Metrics with their dimensions, in AWS's words:
#: https://docs.aws.amazon.com/sagemaker/latest/dg/monitoring-cloudwatch.html
#: https://docs.aws.amazon.com/step-functions/latest/dg/procedure-cw-metrics.html
#: https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-available-cloudwatch-metrics.html
#: https://docs.aws.amazon.com/lambda/latest/dg/monitoring-metrics-types.html
METRICS = {
    "AWS/SageMaker": ({"Invocations", "Invocation4XXErrors", "Invocation5XXErrors", "ModelLatency"}, ["EndpointName", "VariantName"]),
    "AWS/States": ({"ExecutionsSucceeded", "ExecutionsFailed", "ExecutionsTimedOut", "ExecutionTime"}, ["StateMachineArn"]),
    "AWS/SQS": ({"ApproximateNumberOfMessagesVisible", "ApproximateAgeOfOldestMessage"}, ["QueueName"]),
    "AWS/Lambda": ({"Throttles"}, ["FunctionName"]),
}
BODY = json.loads(re.sub(r"\$\{([\w:.]+)\}", r"<\1>", INFERENCE.resources["Dashboard"].properties["DashboardBody"]["Fn::Sub"]))


def metrics() -> Iterator[list[str]]:
    """Yield every line of the dashboard with its short forms written out ("." is the word above, "..." all but the last ones)."""
    for widget in BODY["widgets"]:
        above: list[str] = []
        for line in widget["properties"]["metrics"]:
            words = [word for word in line if isinstance(word, str)]
            if words[0] == "...":
                words = above[: len(above) - len(words) + 1] + words[1:]
            above = [above[number] if word == "." else word for number, word in enumerate(words)]
            yield above


def test_the_dashboard_shows_metrics_that_there_are() -> None:
    shown = list(metrics())
    for namespace, metric, *dimensions in shown:
        known, names = METRICS[namespace]
        assert metric in known
        assert dimensions[::2] == names
        assert all(value.startswith("<") for value in dimensions[1:2])
    assert {(namespace, metric) for namespace, metric, *_ in shown} == {
        (space, metric) for space, (known, _) in METRICS.items() for metric in known
    }


def test_the_dashboard_s_line_is_the_alarm_s() -> None:
    (value,) = (line["value"] for widget in BODY["widgets"] for line in widget["properties"].get("annotations", {}).get("horizontal", ()))
    assert value == at(INFERENCE, "EndpointLatencyAlarm", "Threshold")
