"""CloudWatch as its users see it: metrics of their own and of the region's services, alarms and what they set off, dashboards."""

from __future__ import annotations

import functools
import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from helpers_errors import error_of
from helpers_functions import Lab
from localcloud.cloudwatch import alarms
from localcloud.server import Server
from localcloud.settings import CloudSettings

ALARM: dict[str, Any] = {
    "Namespace": "app", "MetricName": "errors", "Statistic": "Sum", "Period": 60, "EvaluationPeriods": 1, "Threshold": 5.0,
    "ComparisonOperator": "GreaterThanThreshold",
}  # fmt: skip


@pytest.fixture(scope="module")
def lab(region: Any) -> Lab:
    return Lab(region)


@pytest.fixture(scope="module")
def cw(lab: Lab) -> Any:
    return lab.client("cloudwatch")


def minute_ago() -> datetime:
    """Return the start of the minute before the last whole one: what is put there is evaluated by `evaluate`."""
    return datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(minutes=1)


def evaluate(lab: Lab) -> None:
    """Evaluate every alarm now, as at the end of a minute."""
    now = int(time.time())
    lab.cloud.services["cloudwatch"].alarms.tick(now - now % 60)


def described(cw: Any, name: str) -> dict[str, Any]:
    [alarm] = cw.describe_alarms(AlarmNames=[name])["MetricAlarms"]
    return dict(alarm)


def total(cw: Any, namespace: str, name: str, **dimensions: str) -> float:
    """Return the sum of a metric over the last ten minutes."""
    now = datetime.now(UTC)
    pairs = [{"Name": key, "Value": value} for key, value in dimensions.items()]
    points = cw.get_metric_statistics(
        Namespace=namespace, MetricName=name, Dimensions=pairs, StartTime=now - timedelta(minutes=10), EndTime=now + timedelta(minutes=1), Period=60,
        Statistics=["Sum"],
    )["Datapoints"]  # fmt: skip
    return float(sum(point["Sum"] for point in points))


def _ended(states: Any, execution: str) -> bool:
    return bool(states.describe_execution(executionArn=execution)["status"] != "RUNNING")


# Metrics.


def test_what_was_put_can_be_read_in_every_way(cw: Any) -> None:
    start = minute_ago()
    pairs = [{"Name": "Host", "Value": "a"}]
    values = [
        {"MetricName": "latency", "Dimensions": pairs, "Timestamp": start + timedelta(seconds=n), "Value": float(n), "Unit": "Milliseconds"}
        for n in range(10)
    ]
    cw.put_metric_data(Namespace="read", MetricData=values)
    cw.put_metric_data(
        Namespace="read",
        MetricData=[
            {
                "MetricName": "latency",
                "Dimensions": pairs,
                "Timestamp": start - timedelta(minutes=1),
                "Values": [1.0, 100.0],
                "Counts": [9.0, 1.0],
            },
            {"MetricName": "set", "Timestamp": start, "StatisticValues": {"SampleCount": 4, "Sum": 10, "Minimum": 1, "Maximum": 6}},
        ],
    )
    span = {"StartTime": start - timedelta(minutes=5, seconds=-7), "EndTime": start + timedelta(minutes=2)}
    statistics = cw.get_metric_statistics(
        Namespace="read", MetricName="latency", Dimensions=pairs, Period=60, Statistics=["Average", "Maximum", "SampleCount"],
        ExtendedStatistics=["p90"], **span,
    )  # fmt: skip
    assert statistics["Label"] == "latency"
    assert [(p["Timestamp"], p["Average"], p["Maximum"], p["SampleCount"], p["ExtendedStatistics"]) for p in statistics["Datapoints"]] == [
        (start - timedelta(minutes=1), 10.9, 100.0, 10.0, {"p90": 1.0}),
        (start, 4.5, 9.0, 10.0, {"p90": 8.0}),
    ]
    metric = {"Namespace": "read", "MetricName": "latency", "Dimensions": pairs}
    queries = [
        {"Id": "a", "MetricStat": {"Metric": metric, "Period": 60, "Stat": "Sum"}},
        {"Id": "b", "MetricStat": {"Metric": metric, "Period": 1, "Stat": "Maximum"}, "ReturnData": True, "Label": "fine"},
        {"Id": "c", "MetricStat": {"Metric": {"Namespace": "read", "MetricName": "set"}, "Period": 60, "Stat": "Average"}},
    ]
    sums, fine, sets = cw.get_metric_data(MetricDataQueries=queries, **span)["MetricDataResults"]
    assert (sums["Values"], sums["Timestamps"], sums["StatusCode"]) == ([45.0, 109.0], [start, start - timedelta(minutes=1)], "Complete")
    assert (fine["Label"], fine["Values"][:2], len(fine["Values"])) == ("fine", [9.0, 8.0], 11)
    assert sets["Values"] == [2.5]
    assert cw.list_metrics(Namespace="read", Dimensions=[{"Name": "Host"}])["Metrics"] == [
        {"Namespace": "read", "MetricName": "latency", "Dimensions": pairs}
    ]


@pytest.mark.parametrize(
    ("namespace", "datum", "code"),
    [
        ("AWS/Lambda", {"MetricName": "m", "Value": 1.0}, "InvalidParameterValue"),
        ("n", {"MetricName": "m"}, "MissingParameter"),
        ("n", {"MetricName": "m", "Value": 1.0, "Values": [1.0]}, "InvalidParameterCombination"),
        ("n", {"MetricName": "m", "Values": [1.0], "Counts": [1.0, 2.0]}, "InvalidParameterValue"),
        ("n", {"MetricName": "m", "Value": 1.0, "Timestamp": datetime(2020, 1, 1, tzinfo=UTC)}, "InvalidParameterValue"),
        ("n", {"MetricName": "m", "Value": 1.0, "Unit": "Parsecs"}, "ValidationError"),
    ],
)
def test_data_that_aws_refuses_is_refused_whole(cw: Any, namespace: str, datum: dict[str, Any], code: str) -> None:
    good = {"MetricName": "refused", "Value": 1.0}
    assert error_of(lambda: cw.put_metric_data(Namespace=namespace, MetricData=[good, datum]))[0] == code
    assert cw.list_metrics(Namespace=namespace, MetricName="refused")["Metrics"] == []


def test_what_is_not_played_is_refused(cw: Any) -> None:
    now = datetime.now(UTC)
    for query in ({"Id": "e", "Expression": "SUM(METRICS())"}, {"Id": "s", "Expression": 'SELECT AVG(x) FROM "n"', "Period": 60}):
        request = {"MetricDataQueries": [query], "StartTime": now - timedelta(hours=1), "EndTime": now}
        message = error_of(functools.partial(cw.get_metric_data, **request))[1]
        assert message.endswith("is not supported by localcloud")
    for operation in ("describe_anomaly_detectors", "describe_insight_rules", "list_metric_streams"):
        assert error_of(getattr(cw, operation))[1].endswith("is not supported by localcloud")


def test_functions_report_themselves(lab: Lab, cw: Any) -> None:
    name = lab.function("def handler(event, context):\n    if event.get('fail'): raise ValueError('no')\n    return 1")
    lab.invoke(name)
    lab.invoke(name, {"fail": True})
    lab.client("lambda").put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=0)
    assert error_of(lambda: lab.invoke(name))[0] == "TooManyRequestsException"
    read = {metric: total(cw, "AWS/Lambda", metric, FunctionName=name) for metric in ("Invocations", "Errors")}
    assert read == {"Invocations": 2.0, "Errors": 1.0}
    # The client tries a throttled invocation more than once.
    assert total(cw, "AWS/Lambda", "Throttles", FunctionName=name) >= 1
    assert total(cw, "AWS/Lambda", "Duration", FunctionName=name) > 0
    assert total(cw, "AWS/Lambda", "Invocations") >= 2
    assert total(cw, "AWS/Lambda", "Invocations", FunctionName=name, Resource=name) == 2.0


def test_workflows_rules_and_queues_report_themselves(lab: Lab, cw: Any) -> None:
    states, events = lab.client("stepfunctions"), lab.client("events")
    for ending in ("Succeed", "Fail"):
        machine = {"StartAt": "S", "States": {"S": {"Type": ending}}}
        arn = states.create_state_machine(name=lab.name("m"), definition=json.dumps(machine), roleArn=lab.role)["stateMachineArn"]
        execution = states.start_execution(stateMachineArn=arn)["executionArn"]
        lab.poll(functools.partial(_ended, states, execution))
        ended = "ExecutionsSucceeded" if ending == "Succeed" else "ExecutionsFailed"
        assert [total(cw, "AWS/States", metric, StateMachineArn=arn) for metric in ("ExecutionsStarted", ended)] == [1.0, 1.0]
    url, queue = lab.queue()
    dead_url, dead = lab.queue()
    rule = lab.name("rule")
    events.put_rule(Name=rule, EventPattern=json.dumps({"source": ["metrics"]}))
    gone = {"Id": "2", "Arn": queue + "-gone", "DeadLetterConfig": {"Arn": dead}, "RetryPolicy": {"MaximumRetryAttempts": 0}}
    events.put_targets(Rule=rule, Targets=[{"Id": "1", "Arn": queue}, gone])
    events.put_events(Entries=[{"Source": "metrics", "DetailType": "t", "Detail": "{}"}])
    lab.poll(lambda: total(cw, "AWS/Events", "Invocations", RuleName=rule) == 2.0)
    assert total(cw, "AWS/Events", "FailedInvocations", RuleName=rule) == 1.0
    assert total(cw, "AWS/Events", "InvocationsSentToDlq", RuleName=rule) == 1.0
    assert not lab.is_empty(url)
    evaluate(lab)
    assert total(cw, "AWS/SQS", "ApproximateNumberOfMessagesVisible", QueueName=url.rpartition("/")[2]) == 1.0
    assert total(cw, "AWS/SQS", "ApproximateAgeOfOldestMessage", QueueName=dead_url.rpartition("/")[2]) >= 0.0


# Alarms.


def test_an_alarm_goes_off_tells_a_topic_a_function_and_the_bus_and_calms_down(lab: Lab, cw: Any, tmp_path: Path) -> None:
    sns, events = lab.client("sns"), lab.client("events")
    topic = sns.create_topic(Name="alarms")["TopicArn"]
    url, queue = lab.queue()
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=queue)
    bus_url, bus_queue = lab.queue()
    pattern = {"source": ["aws.cloudwatch"], "detail-type": ["CloudWatch Alarm State Change"], "detail": {"alarmName": ["loud"]}}
    events.put_rule(Name="alarms", EventPattern=json.dumps(pattern))
    events.put_targets(Rule="alarms", Targets=[{"Id": "1", "Arn": bus_queue}])
    seen = tmp_path / "event"
    function = lab.function(f"import json\ndef handler(event, context):\n    open({str(seen)!r}, 'w').write(json.dumps(event))")
    function_arn = f"arn:aws:lambda:us-east-1:123456789012:function:{function}"
    alarm_arn = "arn:aws:cloudwatch:us-east-1:123456789012:alarm:loud"
    lab.allow(function, "lambda.alarms.cloudwatch.amazonaws.com", alarm_arn)
    refused = lab.function("def handler(event, context): pass")
    cw.put_metric_alarm(
        AlarmName="loud", AlarmDescription="Too loud", AlarmActions=[topic, function_arn, function_arn.replace(function, refused)], OKActions=[topic], **ALARM
    )  # fmt: skip
    fresh = described(cw, "loud")
    assert (fresh["StateValue"], fresh["StateReason"]) == ("INSUFFICIENT_DATA", "Unchecked: Initial alarm creation")
    start = minute_ago()
    cw.put_metric_data(Namespace="app", MetricData=[{"MetricName": "errors", "Timestamp": start, "Value": 9.0}])
    evaluate(lab)
    loud = described(cw, "loud")
    reason = f"Threshold Crossed: 1 datapoint [9.0 ({start:%d/%m/%y %H:%M:%S})] was greater than the threshold (5.0)."
    assert (loud["StateValue"], loud["StateReason"], loud["AlarmArn"]) == ("ALARM", reason, alarm_arn)
    data = json.loads(loud["StateReasonData"])
    assert (data["version"], data["statistic"], data["period"], data["recentDatapoints"], data["threshold"]) == (
        "1.0",
        "Sum",
        60,
        [9.0],
        5.0,
    )
    notification = json.loads(lab.receive(url)["Body"])
    assert notification["Subject"] == 'ALARM: "loud" in US East (N. Virginia)'
    message = json.loads(notification["Message"])
    assert (message["AlarmName"], message["NewStateValue"], message["OldStateValue"]) == ("loud", "ALARM", "INSUFFICIENT_DATA")
    assert (message["NewStateReason"], message["Region"], message["Trigger"]["Statistic"]) == (reason, "US East (N. Virginia)", "SUM")
    event = json.loads(lab.receive(bus_url)["Body"])
    assert (event["source"], event["resources"], event["detail"]["state"]["value"]) == ("aws.cloudwatch", [alarm_arn], "ALARM")
    assert event["detail"]["previousState"]["value"] == "INSUFFICIENT_DATA"
    assert event["detail"]["configuration"]["description"] == "Too loud"
    [metric] = event["detail"]["configuration"]["metrics"]
    assert metric["metricStat"] == {"metric": {"namespace": "app", "name": "errors", "dimensions": {}}, "period": 60, "stat": "Sum"}
    lab.poll(lambda: seen.exists() and seen.read_text())
    invoked = json.loads(seen.read_text())
    assert (invoked["alarmArn"], invoked["alarmData"]["alarmName"], invoked["alarmData"]["state"]["reason"]) == (alarm_arn, "loud", reason)

    def history(kind: str) -> list[str]:
        items = cw.describe_alarm_history(AlarmName="loud", HistoryItemType=kind, ScanBy="TimestampAscending")["AlarmHistoryItems"]
        return [item["HistorySummary"] for item in items]

    lab.poll(lambda: len(history("Action")) == 3)
    assert [summary.partition(" action")[0] for summary in history("Action")] == [
        "Successfully executed",
        "Successfully executed",
        "Failed to execute",
    ]
    # Evaluated again with the same result: nothing is sent.
    evaluate(lab)
    assert lab.is_empty(url)
    cw.put_metric_data(Namespace="app", MetricData=[{"MetricName": "errors", "Timestamp": start, "Value": -5.0}])
    evaluate(lab)
    assert described(cw, "loud")["StateValue"] == "OK"
    assert json.loads(json.loads(lab.receive(url)["Body"])["Message"])["NewStateValue"] == "OK"
    assert history("StateUpdate") == ["Alarm updated from INSUFFICIENT_DATA to ALARM", "Alarm updated from ALARM to OK"]
    assert history("ConfigurationUpdate") == ['Alarm "loud" created']


def test_a_state_that_was_set_holds_until_the_next_evaluation(lab: Lab, cw: Any) -> None:
    cw.put_metric_alarm(AlarmName="set", **(ALARM | {"MetricName": "nothing", "TreatMissingData": "notBreaching"}))
    cw.set_alarm_state(AlarmName="set", StateValue="ALARM", StateReason="test", StateReasonData='{"a": 1}')
    assert (described(cw, "set")["StateReason"], described(cw, "set")["StateReasonData"]) == ("test", '{"a": 1}')
    evaluate(lab)
    alarm = described(cw, "set")
    assert (alarm["StateValue"], alarm["StateReason"]) == (
        "OK", "Threshold Crossed: no datapoints were received for 1 period and 1 missing datapoint was treated as [NonBreaching]."
    )  # fmt: skip
    assert error_of(lambda: cw.set_alarm_state(AlarmName="nobody", StateValue="OK", StateReason="x"))[0] == "ResourceNotFound"


def test_percentiles_periods_and_units_count(lab: Lab, cw: Any) -> None:
    start = minute_ago()
    for name, member in (("p90", {"ExtendedStatistic": "p90"}), ("max", {"Statistic": "Maximum"})):
        alarm = {key: value for key, value in ALARM.items() if key != "Statistic"} | {
            "MetricName": "ms",
            "Threshold": 1.5,
            "Unit": "Milliseconds",
        }
        cw.put_metric_alarm(AlarmName=name, **alarm, **member)
    data = [{"MetricName": "ms", "Timestamp": start, "Values": [1.0, 9.0], "Counts": [9.0, 1.0], "Unit": "Milliseconds"}]
    cw.put_metric_data(Namespace="app", MetricData=[*data, {"MetricName": "ms", "Timestamp": start, "Value": 100.0, "Unit": "Seconds"}])
    evaluate(lab)
    assert {name: described(cw, name)["StateValue"] for name in ("p90", "max")} == {"p90": "OK", "max": "ALARM"}
    assert json.loads(described(cw, "max")["StateReasonData"])["recentDatapoints"] == [9.0]


def test_alarms_are_described_changed_tagged_and_deleted(cw: Any) -> None:
    for name in ("x-1", "x-2"):
        cw.put_metric_alarm(AlarmName=name, Tags=[{"Key": "a", "Value": "b"}], **ALARM)
    first, token = (page := cw.describe_alarms(AlarmNamePrefix="x-", MaxRecords=1))["MetricAlarms"], page["NextToken"]
    second = cw.describe_alarms(AlarmNamePrefix="x-", MaxRecords=1, NextToken=token)["MetricAlarms"]
    assert [alarm["AlarmName"] for alarm in first + second] == ["x-1", "x-2"]
    assert first[0]["ActionsEnabled"] is True
    arn = first[0]["AlarmArn"]
    cw.tag_resource(ResourceARN=arn, Tags=[{"Key": "c", "Value": "d"}])
    cw.untag_resource(ResourceARN=arn, TagKeys=["a"])
    cw.put_metric_alarm(AlarmName="x-1", **(ALARM | {"Threshold": 7.0}))
    assert cw.list_tags_for_resource(ResourceARN=arn)["Tags"] == [{"Key": "c", "Value": "d"}]
    cw.disable_alarm_actions(AlarmNames=["x-1"])
    assert (described(cw, "x-1")["Threshold"], described(cw, "x-1")["ActionsEnabled"]) == (7.0, False)
    for_metric = cw.describe_alarms_for_metric(Namespace="app", MetricName="errors", Period=60, Statistic="Sum")["MetricAlarms"]
    assert {"x-1", "x-2"} <= {alarm["AlarmName"] for alarm in for_metric}
    cw.delete_alarms(AlarmNames=["x-1", "x-2"])
    assert cw.describe_alarms(AlarmNamePrefix="x-")["MetricAlarms"] == []
    assert cw.describe_alarm_history(AlarmName="x-1")["AlarmHistoryItems"][0]["HistorySummary"] == 'Alarm "x-1" deleted'


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"Statistic": None}, "Exactly one of Statistic and ExtendedStatistic"),
        ({"Threshold": None}, "Threshold is required"),
        ({"Period": 45}, "Period must be"),
        ({"DatapointsToAlarm": 2}, "Datapoints to alarm should be less than or equal"),
        ({"EvaluationPeriods": 20_000}, "EvaluationPeriods * Period must be <="),
        ({"TreatMissingData": "perhaps"}, "Option perhaps is not supported. Supported options"),
        ({"ComparisonOperator": "GreaterThanUpperThreshold"}, "not supported by localcloud"),
        ({"EvaluateLowSampleCountPercentile": "ignore"}, "not supported by localcloud"),
        ({"AlarmActions": ["arn:aws:automate:us-east-1:ec2:stop"]}, "not supported by localcloud"),
        ({"AlarmActions": ["topic"]}, "Invalid arn syntax"),
        ({"ThresholdMetricId": "m"}, "ThresholdMetricId is not supported by localcloud"),
        ({"Metrics": [{"Id": "e", "Expression": "1", "ReturnData": True}]}, "mutually exclusive"),
    ],
)
def test_alarms_that_cannot_be_evaluated_are_refused(cw: Any, change: dict[str, Any], message: str) -> None:
    request = {key: value for key, value in (ALARM | change).items() if value is not None}
    assert message in error_of(lambda: cw.put_metric_alarm(AlarmName="refused", **request))[1]
    assert cw.describe_alarms(AlarmNames=["refused"])["MetricAlarms"] == []


def test_composite_alarms_are_refused(cw: Any) -> None:
    assert error_of(lambda: cw.put_composite_alarm(AlarmName="c", AlarmRule="ALARM(x)"))[1].endswith("not supported by localcloud")


def test_the_loop_evaluates_by_itself(lab: Lab, cw: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alarms, "_SHORT", 1)
    cw.put_metric_alarm(AlarmName="quick", **(ALARM | {"Period": 10, "EvaluationPeriods": 2, "DatapointsToAlarm": 1}))
    try:
        cw.put_metric_data(
            Namespace="app",
            MetricData=[
                {"MetricName": "errors", "Timestamp": datetime.now(UTC) - timedelta(seconds=10), "Value": 900.0, "StorageResolution": 1}
            ],
        )
        lab.poll(lambda: described(cw, "quick")["StateValue"] == "ALARM", 25)
    finally:
        cw.delete_alarms(AlarmNames=["quick"])


def test_dashboards_are_kept(cw: Any) -> None:
    body = json.dumps({"widgets": []})
    cw.put_dashboard(DashboardName="board", DashboardBody=body)
    found = cw.get_dashboard(DashboardName="board")
    assert (found["DashboardBody"], found["DashboardArn"]) == (body, "arn:aws:cloudwatch::123456789012:dashboard/board")
    [entry] = cw.list_dashboards(DashboardNamePrefix="b")["DashboardEntries"]
    assert (entry["DashboardName"], entry["Size"]) == ("board", len(body))
    assert error_of(lambda: cw.put_dashboard(DashboardName="bad", DashboardBody="{"))[0] == "InvalidParameterInput"
    cw.delete_dashboards(DashboardNames=["board"])
    assert error_of(lambda: cw.get_dashboard(DashboardName="board"))[0] == "ResourceNotFound"


def test_metrics_and_alarms_survive_a_restart(state_dir: Path) -> None:
    import boto3

    def client(server: Server) -> Any:
        return boto3.client(
            "cloudwatch", endpoint_url=server.cloud.endpoint_url, region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x"
        )

    with Server(CloudSettings(state_dir, console=False)) as server:
        cw = client(server)
        cw.put_metric_alarm(AlarmName="kept", **ALARM)
        cw.put_metric_data(Namespace="app", MetricData=[{"MetricName": "errors", "Value": 3.0}])
        cw.put_dashboard(DashboardName="kept", DashboardBody="{}")
        before = described(cw, "kept")
    with Server(CloudSettings(state_dir, console=False)) as server:
        cw = client(server)
        assert described(cw, "kept") == before
        assert total(cw, "app", "errors") == 3.0
        assert cw.list_dashboards()["DashboardEntries"][0]["DashboardName"] == "kept"
