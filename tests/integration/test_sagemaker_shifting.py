"""Endpoints whose traffic goes over to a new version step by step, and comes back."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from helpers_sagemaker import Lab, make_lab

SERVE = "import json\ndef model_fn(d): return open(d + '/name').read()\ndef transform_fn(m, b, c, a): return json.dumps(m)\n"
#: Loads, answers pings, and fails on every request.
FUSSY = "def model_fn(d): return None\ndef transform_fn(m, b, c, a): raise RuntimeError('no')\n"
#: A bake that no test sits through: a minute here.
LONG = 3600


@pytest.fixture(scope="module")
def module_lab(region: Any) -> Iterator[Lab]:
    with pytest.MonkeyPatch.context() as patch:
        yield make_lab(region, patch)


@pytest.fixture
def lab(module_lab: Lab) -> Lab:
    module_lab.events.clear()
    return module_lab


@pytest.fixture
def alarm(lab: Lab) -> Iterator[str]:
    name = lab.name("alarm")
    cloudwatch = lab.region.client("cloudwatch")
    cloudwatch.put_metric_alarm(
        AlarmName=name, MetricName="m", Namespace="n", Statistic="Sum", Period=60, EvaluationPeriods=1, Threshold=1,
        ComparisonOperator="GreaterThanThreshold",
    )  # fmt: skip
    yield name
    cloudwatch.delete_alarms(AlarmNames=[name])


def canary(alarm: str, wait: int, termination: int = 0, instances: int = 1) -> dict[str, Any]:
    return {
        "BlueGreenUpdatePolicy": {
            "TrafficRoutingConfiguration": {
                "Type": "CANARY",
                "WaitIntervalInSeconds": wait,
                "CanarySize": {"Type": "INSTANCE_COUNT", "Value": instances},
            },
            "TerminationWaitInSeconds": termination,
        },
        "AutoRollbackConfiguration": {"Alarms": [{"AlarmName": alarm}]},
    }


def named(lab: Lab, name: str) -> str:
    """Make a model that answers with its name."""
    return lab.model(SERVE, name=name.encode())


def stages(lab: Lab, endpoint: str) -> list[tuple[str, str, int]]:
    """Return what the deployment's events told: the endpoint's status, the variant's, and how many instances it was about."""
    found = []
    for detail in lab.details("SageMaker Endpoint Deployment State Change", EndpointName=endpoint):
        (variant,) = detail["PendingDeploymentSummary"]["ProductionVariants"]
        found.append((detail["EndpointStatus"], variant["VariantStatus"][0]["Status"], variant["CurrentInstanceCount"]))
    return found


def baking(lab: Lab, endpoint: str, poll: Callable[..., Any]) -> dict[str, Any]:
    """Wait until a deployment bakes; return its summary."""

    def look() -> dict[str, Any] | None:
        summary: dict[str, Any] | None = lab.sm.describe_endpoint(EndpointName=endpoint).get("PendingDeploymentSummary")
        return summary if summary and summary["ProductionVariants"][0]["VariantStatus"][0]["Status"] == "Baking" else None

    return dict(poll(look, 60))


def test_a_canary_shares_the_traffic_while_it_bakes_and_an_alarm_ends_that(lab: Lab, alarm: str, poll: Callable[..., Any]) -> None:
    name = lab.endpoint(named(lab, "blue"), InitialInstanceCount=2)
    before = lab.sm.describe_endpoint(EndpointName=name)["EndpointConfigName"]
    config = lab.config(named(lab, "green"), InitialInstanceCount=2)
    lab.sm.update_endpoint(EndpointName=name, EndpointConfigName=config, DeploymentConfig=canary(alarm, LONG))
    summary = baking(lab, name, poll)
    (variant,) = summary["ProductionVariants"]
    assert (summary["EndpointConfigName"], variant["VariantName"]) == (config, "v0")
    assert (variant["CurrentInstanceCount"], variant["DesiredInstanceCount"], variant["InstanceType"]) == (1, 2, "ml.m5.large")
    message = f"Baking for {LONG} seconds (WaitIntervalInSeconds) with traffic enabled on canary capacity of 1 instance(s)."
    assert variant["VariantStatus"][0]["StatusMessage"] == message
    described = lab.sm.describe_endpoint(EndpointName=name)
    assert (described["EndpointStatus"], described["EndpointConfigName"]) == ("Updating", before)
    assert described["ProductionVariants"][0]["CurrentInstanceCount"] == 2
    # Both answer; which one, nobody can choose.
    assert {lab.ask(name) for _ in range(60)} == {"blue", "green"}
    assert {lab.ask(name, TargetVariant="v0") for _ in range(60)} == {"blue", "green"}
    with pytest.raises(ClientError, match="Cannot update in-progress endpoint"):
        lab.sm.update_endpoint(EndpointName=name, EndpointConfigName=config)
    lab.region.client("cloudwatch").set_alarm_state(AlarmName=alarm, StateValue="ALARM", StateReason="test")
    described = lab.settled(name)
    assert (described["EndpointStatus"], described["EndpointConfigName"]) == ("InService", before)
    assert described["FailureReason"] == f"The deployment was rolled back because the alarm {alarm} is in the ALARM state."
    assert "PendingDeploymentSummary" not in described
    assert {lab.ask(name) for _ in range(20)} == {"blue"}
    assert stages(lab, name) == [
        ("UPDATING", "Creating", 0),
        ("UPDATING", "ActivatingTraffic", 1),
        ("UPDATING", "Baking", 1),
        ("ROLLING_BACK", "Deleting", 1),
    ]
    states = [detail["EndpointStatus"] for detail in lab.details("SageMaker Endpoint State Change", EndpointName=name)]
    assert states == ["CREATING", "IN_SERVICE", "UPDATING", "ROLLING_BACK", "IN_SERVICE"]
    # What was taken back is gone for good: the next deployment divides the traffic between two again.
    lab.region.client("cloudwatch").set_alarm_state(AlarmName=alarm, StateValue="OK", StateReason="test")
    config = lab.config(named(lab, "third"), InitialInstanceCount=2)
    lab.sm.update_endpoint(EndpointName=name, EndpointConfigName=config, DeploymentConfig=canary(alarm, LONG))
    baking(lab, name, poll)
    assert {lab.ask(name) for _ in range(60)} == {"blue", "third"}
    lab.region.client("cloudwatch").set_alarm_state(AlarmName=alarm, StateValue="ALARM", StateReason="test")
    assert lab.settled(name)["EndpointConfigName"] == before


@pytest.mark.parametrize("kind", ["linear", "rolling"])
def test_a_good_version_takes_over_step_by_step(lab: Lab, alarm: str, kind: str) -> None:
    name = lab.endpoint(named(lab, "blue"), InitialInstanceCount=4)
    config = lab.config(named(lab, "green"), InitialInstanceCount=4)
    half = {"Type": "CAPACITY_PERCENT", "Value": 50}
    routing = {"Type": "LINEAR", "WaitIntervalInSeconds": 30, "LinearStepSize": half}
    policy: dict[str, Any] = {
        "linear": {"BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": routing, "TerminationWaitInSeconds": 30}},
        "rolling": {"RollingUpdatePolicy": {"MaximumBatchSize": half, "WaitIntervalInSeconds": 30}},
    }[kind]
    lab.sm.update_endpoint(
        EndpointName=name,
        EndpointConfigName=config,
        DeploymentConfig=policy | {"AutoRollbackConfiguration": {"Alarms": [{"AlarmName": alarm}]}},
    )
    described = lab.settled(name)
    assert (described["EndpointConfigName"], described.get("FailureReason")) == (config, None)
    assert {lab.ask(name) for _ in range(20)} == {"green"}
    assert [stage[1:] for stage in stages(lab, name)] == [
        ("Creating", 0),
        ("ActivatingTraffic", 2),
        ("Baking", 2),
        ("ActivatingTraffic", 4),
        ("Baking", 4),
    ]
    # The next may use the same again.
    lab.sm.update_endpoint(
        EndpointName=name, EndpointConfigName=lab.config(named(lab, "third"), InitialInstanceCount=4), RetainDeploymentConfig=True
    )
    assert lab.settled(name)["LastDeploymentConfig"] == described["LastDeploymentConfig"]
    assert len(stages(lab, name)) == 10


def test_errors_of_the_canary_trip_an_alarm_on_the_endpoints_own_metric(lab: Lab, poll: Callable[..., Any]) -> None:
    name = lab.endpoint(named(lab, "blue"), InitialInstanceCount=2)
    before = lab.sm.describe_endpoint(EndpointName=name)["EndpointConfigName"]
    alarm = lab.name("alarm")
    lab.region.client("cloudwatch").put_metric_alarm(
        AlarmName=alarm, Namespace="AWS/SageMaker", MetricName="Invocation5XXErrors", Statistic="Sum", Period=60, EvaluationPeriods=2,
        DatapointsToAlarm=2, Threshold=1, ComparisonOperator="GreaterThanOrEqualToThreshold", TreatMissingData="notBreaching",
        Dimensions=[{"Name": "EndpointName", "Value": name}, {"Name": "VariantName", "Value": "v0"}],
    )  # fmt: skip
    lab.sm.update_endpoint(
        EndpointName=name,
        EndpointConfigName=lab.config(lab.model(FUSSY), InitialInstanceCount=2),
        DeploymentConfig=canary(alarm, LONG),
    )
    baking(lab, name, poll)

    def settled() -> bool:
        with contextlib.suppress(ClientError):
            lab.ask(name)
        return bool(lab.sm.describe_endpoint(EndpointName=name)["EndpointStatus"] == "InService")

    poll(settled, 50)
    described = lab.sm.describe_endpoint(EndpointName=name)
    assert (described["EndpointConfigName"], alarm in described["FailureReason"]) == (before, True)
    assert {lab.ask(name) for _ in range(20)} == {"blue"}


def test_a_deployment_that_cannot_be_followed_is_refused_before_it_begins(lab: Lab, alarm: str) -> None:
    name = lab.endpoint(named(lab, "blue"), InitialInstanceCount=2)
    config = lab.config(named(lab, "green"), InitialInstanceCount=2)
    other = lab.config(named(lab, "green"), VariantName="other", InitialInstanceCount=2)
    for wanted, deployment, words in (
        (config, canary(alarm, 300, instances=2), "must be less than or equal to 50%"),
        (config, canary("no-such-alarm", 300), "do not exist: no-such-alarm"),
        (other, canary(alarm, 300), "must have the same variant names as the old one: v0; it has other"),
    ):
        with pytest.raises(ClientError, match=words):
            lab.sm.update_endpoint(EndpointName=name, EndpointConfigName=wanted, DeploymentConfig=deployment)
    assert lab.sm.describe_endpoint(EndpointName=name)["EndpointStatus"] == "InService"
    with pytest.raises(ClientError, match="must be less than or equal to 50%"):
        lab.sm.create_endpoint(
            EndpointName=lab.name("endpoint"), EndpointConfigName=config, DeploymentConfig=canary(alarm, 300, instances=2)
        )
    # Without a DeploymentConfig variants may come and go, all at once.
    lab.sm.update_endpoint(EndpointName=name, EndpointConfigName=other)
    assert [variant["VariantName"] for variant in lab.settled(name)["ProductionVariants"]] == ["other"]
    assert lab.ask(name) == "green"
