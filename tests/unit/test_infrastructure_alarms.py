"""What each alarm watches, and from which figure on it rings. The metrics' names, units and dimensions are AWS's, page by page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from infrastructure.cicd import CICD_TEMPLATE
from infrastructure.packaging import INFERENCE_TEMPLATE, PLATFORM_TEMPLATE
from infrastructure.templates import Template
from localcloud.cloudwatch.evaluation import EXTRA_POINTS, AlarmState, Condition, Missing, Point, evaluate


@dataclass(frozen=True)
class Watched:
    """A metric, and in its unit for each period: the most that is no reason to call anybody, and the least that is."""

    metric: str
    statistic: str
    dimensions: frozenset[str]
    quiet: float
    loud: float


MILLISECONDS = 1000  # ModelLatency is in microseconds
DAYS = 24 * 60 * 60  # ages of messages are in seconds
# https://docs.aws.amazon.com/sagemaker/latest/dg/monitoring-cloudwatch.html
ENDPOINT = frozenset({"EndpointName", "VariantName"})
# https://docs.aws.amazon.com/step-functions/latest/dg/procedure-cw-metrics.html
WORKFLOW = frozenset({"StateMachineArn"})
# https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-available-cloudwatch-metrics.html
QUEUE = frozenset({"QueueName"})
# https://docs.aws.amazon.com/lambda/latest/dg/monitoring-metrics-types.html
FUNCTION = frozenset({"FunctionName"})
WATCHED = {
    "EndpointErrorAlarm": Watched("AWS/SageMaker Invocation5XXErrors", "Sum", ENDPOINT, 0, 1),
    "EndpointLatencyAlarm": Watched("AWS/SageMaker ModelLatency", "p90", ENDPOINT, 1000 * MILLISECONDS, 1001 * MILLISECONDS),
    "FailedExecutionsAlarm": Watched("AWS/States ExecutionsFailed", "Sum", WORKFLOW, 4, 5),
    "TimedOutExecutionsAlarm": Watched("AWS/States ExecutionsTimedOut", "Sum", WORKFLOW, 0, 1),
    "ReviewAgeAlarm": Watched("AWS/SQS ApproximateAgeOfOldestMessage", "Maximum", QUEUE, 2 * DAYS - 1, 2 * DAYS),
    "ReviewDepthAlarm": Watched("AWS/SQS ApproximateNumberOfMessagesVisible", "Maximum", QUEUE, 999, 1000),
    "DeadLetterAlarm": Watched("AWS/SQS ApproximateNumberOfMessagesVisible", "Maximum", QUEUE, 0, 1),
    "DeployFunctionErrorAlarm": Watched("AWS/Lambda Errors", "Sum", FUNCTION, 0, 1),
}
ALARMS: dict[str, dict[str, Any]] = {
    name: item["Properties"]
    for template in (PLATFORM_TEMPLATE, INFERENCE_TEMPLATE, CICD_TEMPLATE)
    for name, item in Template.read(template).document["Resources"].items()
    if item["Type"] == "AWS::CloudWatch::Alarm"
}


def state(alarm: dict[str, Any], value: float) -> AlarmState | None:
    """Return an alarm's state when every period has this value."""
    condition = Condition(
        alarm["ComparisonOperator"],
        float(alarm["Threshold"]),
        alarm["EvaluationPeriods"],
        alarm.get("DatapointsToAlarm"),
        Missing(alarm["TreatMissingData"]),
    )
    periods = condition.periods + EXTRA_POINTS
    verdict = evaluate(condition, [Point(-alarm["Period"] * age, value, 1) for age in range(periods)])
    return verdict.state if verdict else None


@pytest.mark.parametrize("name", ALARMS)
def test_an_alarm_watches_what_it_is_for_and_rings_from_that_figure_on(name: str) -> None:
    alarm, watched = ALARMS[name], WATCHED[name]
    assert f"{alarm['Namespace']} {alarm['MetricName']}" == watched.metric
    assert alarm.get("Statistic", alarm.get("ExtendedStatistic")) == watched.statistic
    assert {dimension["Name"] for dimension in alarm["Dimensions"]} == watched.dimensions
    assert state(alarm, watched.quiet) is AlarmState.OK
    assert state(alarm, watched.loud) is AlarmState.ALARM
    # Who asks nothing of an endpoint, a queue or a function hears nothing of it.
    assert alarm["TreatMissingData"] == "notBreaching"
    assert alarm["AlarmActions"]


def test_every_alarm_that_is_listed_is_there() -> None:
    assert set(WATCHED) == set(ALARMS)
