"""What others are told of alarms: the event on the bus, the message to a topic, the event to a function."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from botocore.loaders import create_loader

from localcloud.database import Document

Json = dict[str, Any]


def timestamp(moment: datetime) -> str:
    """Return a time as CloudWatch writes it: ``2019-10-02T17:04:40.989+0000``."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "+0000")


@lru_cache(maxsize=4)
def region_title(region: str) -> str:
    """Return a region's name for people, e.g. ``US East (N. Virginia)``."""
    partitions = create_loader().load_data("endpoints")["partitions"]
    titles = {name: str(known["description"]) for partition in partitions for name, known in partition["regions"].items()}
    return titles.get(region, region)


def state_of(alarm: Document) -> Json:
    """Return an alarm's state as the event has it."""
    state = {"value": alarm["StateValue"], "reason": alarm["StateReason"], "timestamp": timestamp(alarm["StateUpdatedTimestamp"])}
    return state | ({"reasonData": alarm["StateReasonData"]} if alarm.get("StateReasonData") else {})


def configuration(alarm: Document) -> Json:
    """Return an alarm's configuration as the event has it."""
    found: Json = {"metrics": [_metric(query) for query in queries_of(alarm)]}
    if alarm.get("AlarmDescription"):
        found["description"] = alarm["AlarmDescription"]
    return found


def queries_of(alarm: Document) -> list[Json]:
    """Return an alarm's metrics as MetricDataQuery structures, also those of an alarm on one metric."""
    if alarm.get("Metrics"):
        queries: list[Json] = alarm["Metrics"]
        return queries
    metric = {"Namespace": alarm["Namespace"], "MetricName": alarm["MetricName"], "Dimensions": alarm["Dimensions"]}
    stat = {"Metric": metric, "Period": alarm["Period"], "Stat": alarm.get("Statistic") or alarm["ExtendedStatistic"]}
    if alarm.get("Unit"):
        stat["Unit"] = alarm["Unit"]
    # The id is made up of the alarm's own, so that each event of an alarm has the same.
    return [{"Id": str(uuid.uuid5(uuid.NAMESPACE_URL, alarm["AlarmArn"])), "MetricStat": stat, "ReturnData": True}]


def _metric(query: Json) -> Json:
    stat = query["MetricStat"]
    found: Json = {
        "metric": {
            "namespace": stat["Metric"]["Namespace"],
            "name": stat["Metric"]["MetricName"],
            "dimensions": {pair["Name"]: pair["Value"] for pair in stat["Metric"].get("Dimensions") or []},
        },
        "period": stat["Period"],
        "stat": stat["Stat"],
    }
    if stat.get("Unit"):
        found["unit"] = stat["Unit"]
    return {"id": query["Id"], "metricStat": found, "returnData": query.get("ReturnData", True)}


def state_change(alarm: Document, before: Json) -> Json:
    """Return the detail of the event "CloudWatch Alarm State Change"; *before* is the state before (`state_of`)."""
    return {"alarmName": alarm["AlarmName"], "configuration": configuration(alarm), "previousState": before, "state": state_of(alarm)}


def function_event(alarm: Document, before: Json, account: str, region: str) -> Json:
    """Return the event with which an alarm invokes a function."""
    return {
        "source": "aws.cloudwatch",
        "alarmArn": alarm["AlarmArn"],
        "accountId": account,
        "time": timestamp(alarm["StateUpdatedTimestamp"]),
        "region": region,
        "alarmData": {
            "alarmName": alarm["AlarmName"],
            "state": state_of(alarm),
            "previousState": before,
            "configuration": configuration(alarm),
        },
    }


def topic_message(alarm: Document, before: Json, account: str, region: str) -> Json:
    """Return the message with which an alarm publishes to a topic."""
    return {
        "AlarmName": alarm["AlarmName"],
        "AlarmDescription": alarm.get("AlarmDescription"),
        "AWSAccountId": account,
        "AlarmConfigurationUpdatedTimestamp": timestamp(alarm["AlarmConfigurationUpdatedTimestamp"]),
        "NewStateValue": alarm["StateValue"],
        "NewStateReason": alarm["StateReason"],
        "StateChangeTime": timestamp(alarm["StateUpdatedTimestamp"]),
        "Region": region_title(region),
        "AlarmArn": alarm["AlarmArn"],
        "OldStateValue": before["value"],
        "OKActions": alarm["OKActions"],
        "AlarmActions": alarm["AlarmActions"],
        "InsufficientDataActions": alarm["InsufficientDataActions"],
        "Trigger": _trigger(alarm),
    }


def topic_subject(alarm: Document, region: str) -> str:
    """Return the subject of the message to a topic (SNS takes 100 characters)."""
    return f'{alarm["StateValue"]}: "{alarm["AlarmName"]}" in {region_title(region)}'[:99]


def _trigger(alarm: Document) -> Json:
    common = {
        "Period": alarm.get("Period"),
        "EvaluationPeriods": alarm["EvaluationPeriods"],
        **({"DatapointsToAlarm": alarm["DatapointsToAlarm"]} if alarm.get("DatapointsToAlarm") else {}),
        "ComparisonOperator": alarm["ComparisonOperator"],
        "Threshold": alarm["Threshold"],
        "TreatMissingData": alarm.get("TreatMissingData") or "missing",
        "EvaluateLowSampleCountPercentile": alarm.get("EvaluateLowSampleCountPercentile") or "",
    }
    if alarm.get("Metrics"):
        return common | {"Metrics": alarm["Metrics"]}
    statistic = (
        {"StatisticType": "ExtendedStatistic", "ExtendedStatistic": alarm["ExtendedStatistic"]}
        if alarm.get("ExtendedStatistic")
        else {"StatisticType": "Statistic", "Statistic": alarm["Statistic"].upper()}
    )
    dimensions = [{"value": pair["Value"], "name": pair["Name"]} for pair in alarm["Dimensions"]]
    metric = {"MetricName": alarm["MetricName"], "Namespace": alarm["Namespace"], "Unit": alarm.get("Unit"), "Dimensions": dimensions}
    return metric | statistic | common
