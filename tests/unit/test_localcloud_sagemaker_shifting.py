"""How a deployment's traffic goes over: the steps of each kind, what AWS refuses, and when it comes back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localcloud.errors import ServiceError
from localcloud.sagemaker.fleet import Fleet, LiveVariant
from localcloud.sagemaker.rollout import Interrupted, Rollout
from localcloud.sagemaker.shifting import Plan, plan

ALARMS = {"AutoRollbackConfiguration": {"Alarms": [{"AlarmName": "loud"}]}}


def variants(*counts: int) -> list[dict[str, Any]]:
    return [{"VariantName": f"v{number}", "InitialInstanceCount": count} for number, count in enumerate(counts)]


def blue_green(kind: str, wait: int = 300, termination: int = 60, limit: int | None = None, **sizes: tuple[str, int]) -> dict[str, Any]:
    routing = {"Type": kind, "WaitIntervalInSeconds": wait} | {name: size(*value) for name, value in sizes.items()}
    policy: dict[str, Any] = {"TrafficRoutingConfiguration": routing, "TerminationWaitInSeconds": termination}
    return {"BlueGreenUpdatePolicy": policy | ({"MaximumExecutionTimeoutInSeconds": limit} if limit else {})} | ALARMS


def rolling(wait: int = 60, **sizes: tuple[str, int]) -> dict[str, Any]:
    return {"RollingUpdatePolicy": {"WaitIntervalInSeconds": wait} | {name: size(*value) for name, value in sizes.items()}}


def size(kind: str, value: int) -> dict[str, Any]:
    return {"Type": kind, "Value": value}


def timetable(config: dict[str, Any] | None, *counts: int) -> list[tuple[list[int], int]]:
    """Return the instances with traffic and the wait of each step."""
    return [(list(step.active.values()), step.wait) for step in plan(config, variants(*counts)).steps]


@pytest.mark.parametrize(
    ("config", "counts", "expected"),
    [
        (None, (3,), [([3], 0)]),
        (blue_green("ALL_AT_ONCE"), (1,), [([1], 60)]),
        (blue_green("CANARY", CanarySize=("INSTANCE_COUNT", 1)), (2,), [([1], 300), ([2], 60)]),
        (blue_green("CANARY", CanarySize=("CAPACITY_PERCENT", 30)), (10, 3), [([3, 1], 300), ([10, 3], 60)]),
        (blue_green("LINEAR", LinearStepSize=("CAPACITY_PERCENT", 25)), (4,), [([1], 300), ([2], 300), ([3], 300), ([4], 60)]),
        (blue_green("LINEAR", LinearStepSize=("CAPACITY_PERCENT", 25)), (2,), [([1], 300), ([2], 60)]),
        (blue_green("LINEAR", LinearStepSize=("CAPACITY_PERCENT", 40)), (3,), [([1], 300), ([2], 300), ([3], 60)]),
        (blue_green("LINEAR", LinearStepSize=("INSTANCE_COUNT", 2)), (5,), [([2], 300), ([4], 300), ([5], 60)]),
        (rolling(MaximumBatchSize=("CAPACITY_PERCENT", 50)), (4,), [([2], 60), ([4], 60)]),
        (rolling(MaximumBatchSize=("INSTANCE_COUNT", 1)), (3,), [([1], 60), ([2], 60), ([3], 60)]),
    ],
)
def test_each_kind_has_its_steps(config: dict[str, Any] | None, counts: tuple[int, ...], expected: list[tuple[list[int], int]]) -> None:
    assert timetable(config, *counts) == expected


@pytest.mark.parametrize(
    ("config", "counts", "words"),
    [
        (blue_green("CANARY"), (4,), "CanarySize is required"),
        (blue_green("LINEAR"), (4,), "LinearStepSize is required"),
        (blue_green("ALL_AT_ONCE", CanarySize=("INSTANCE_COUNT", 1)), (4,), "CanarySize can only be specified when"),
        (blue_green("CANARY", CanarySize=("INSTANCE_COUNT", 2)), (3,), "CanarySize of 2 (INSTANCE_COUNT) must be less than or equal to 50%"),
        (blue_green("CANARY", CanarySize=("CAPACITY_PERCENT", 51)), (100,), "must be less than or equal to 50%"),
        (blue_green("CANARY", CanarySize=("CAPACITY_PERCENT", 10)), (1,), "of variant v0, which is 1"),
        (blue_green("LINEAR", LinearStepSize=("CAPACITY_PERCENT", 9)), (2,), "LinearStepSize of 9 (CAPACITY_PERCENT) must be between 10% and 50%"),
        (blue_green("LINEAR", LinearStepSize=("INSTANCE_COUNT", 1)), (11,), "between 10% and 50%"),
        (rolling(MaximumBatchSize=("INSTANCE_COUNT", 3)), (5,), "MaximumBatchSize of 3 (INSTANCE_COUNT) must be between 5% and 50%"),
        (rolling(MaximumBatchSize=("INSTANCE_COUNT", 1)), (4, 4), "several production variants"),
        (blue_green("ALL_AT_ONCE") | rolling(MaximumBatchSize=("INSTANCE_COUNT", 1)), (4,), "Only one of BlueGreenUpdatePolicy and RollingUpdatePolicy"),
        (
            blue_green("LINEAR", wait=600, termination=600, limit=2400, LinearStepSize=("CAPACITY_PERCENT", 25)),
            (4,),
            "MaximumExecutionTimeoutInSeconds (2400) must be larger than the total waiting time of the deployment, which is 2400 seconds",
        ),
    ],
)  # fmt: skip
def test_what_aws_refuses_is_refused(config: dict[str, Any], counts: tuple[int, ...], words: str) -> None:
    with pytest.raises(ServiceError) as caught:
        plan(config, variants(*counts))
    assert caught.value.code == "ValidationException"
    assert words in str(caught.value)


@pytest.mark.parametrize("config", [blue_green("ALL_AT_ONCE"), rolling(MaximumBatchSize=("INSTANCE_COUNT", 1)), ALARMS])
def test_serverless_has_no_guardrails(config: dict[str, Any]) -> None:
    serverless = [{"VariantName": "v0", "ServerlessConfig": {"MemorySizeInMB": 1024, "MaxConcurrency": 1}}]
    with pytest.raises(ServiceError, match="not supported for serverless"):
        plan(config, serverless)
    assert len(plan(None, serverless).steps) == 1


@given(
    count=st.integers(1, 40),
    kind=st.sampled_from(["CANARY", "LINEAR"]),
    unit=st.sampled_from(["INSTANCE_COUNT", "CAPACITY_PERCENT"]),
    value=st.integers(1, 60),
)
def test_whatever_is_not_refused_grows_to_all_traffic_in_steps_of_half_at_most(count: int, kind: str, unit: str, value: int) -> None:
    step = (unit, value)
    config = blue_green("CANARY", CanarySize=step) if kind == "CANARY" else blue_green("LINEAR", LinearStepSize=step)
    try:
        found = plan(config, variants(count))
    except ServiceError:
        return
    actives = [step.active["v0"] for step in found.steps]
    assert actives[-1] == count
    assert found.shares(found.steps[-1].active) == {"v0": 1.0}
    assert actives == sorted(set(actives))
    grown = [after - before for before, after in zip([0, *actives], actives, strict=False)]
    # The canary's second step is all the rest.
    assert all(step * 2 <= count for step in (grown[:1] if kind == "CANARY" else grown))


# Rollouts, in a time of their own.


class Stage:
    """Time that passes only when somebody waits, and what happened in it."""

    def __init__(
        self, config: dict[str, Any] | None, *counts: int, alarm_at: float | None = None, ends_at: float | None = None, scale: float = 1.0
    ) -> None:
        self.now = 0.0
        self.happened: list[Any] = []
        self._alarm_at, self._ends_at = alarm_at, ends_at
        self.plan: Plan = plan(config, variants(*counts))
        self.rollout = Rollout(
            self.plan,
            scale,
            divide=lambda shares: self.happened.append((round(self.now), list(shares.values()))),
            report=lambda status, active, message: self.happened.append((round(self.now), status, message.format(*active.values()))),
            turn=lambda reason: self.happened.append((round(self.now), "turn")),
            alarm=lambda: "loud" if self._alarm_at is not None and self.now >= self._alarm_at else None,
            pause=self.pause,
            elapsed=lambda: self.now,
        )  # fmt: skip

    def pause(self, seconds: float) -> bool:
        self.now += seconds
        return self._ends_at is not None and self.now >= self._ends_at

    def divided(self) -> list[tuple[int, list[float]]]:
        """Return when the traffic was divided how."""
        return [(item[0], item[1]) for item in self.happened if isinstance(item[1], list)]


LINEAR = blue_green("LINEAR", LinearStepSize=("CAPACITY_PERCENT", 25))
CANARY = blue_green("CANARY", CanarySize=("INSTANCE_COUNT", 1))


def test_a_canary_bakes_and_then_takes_the_rest() -> None:
    stage = Stage(CANARY, 3)
    assert stage.rollout.run() is None
    assert stage.happened == [
        (0, "ActivatingTraffic", "Activating traffic on canary capacity of 1 instance(s)."),
        (0, [1 / 3]),
        (0, "Baking", "Baking for 300 seconds (WaitIntervalInSeconds) with traffic enabled on canary capacity of 1 instance(s)."),
        (300, "ActivatingTraffic", "Activating traffic on full capacity of 3 instance(s)."),
        (300, [1.0]),
        (300, "Baking", "Baking for 60 seconds (TerminationWaitInSeconds) with traffic enabled on full capacity of 3 instance(s)."),
    ]
    assert round(stage.now) == 360


def test_linear_steps_follow_each_other_and_waits_are_scaled() -> None:
    stage = Stage(LINEAR, 4, scale=60.0)
    assert stage.rollout.run() is None
    assert stage.divided() == [(0, [0.25]), (5, [0.5]), (10, [0.75]), (15, [1.0])]
    assert round(stage.now) == 16


@pytest.mark.parametrize(
    ("alarm_at", "divided"),
    [
        (0, [(0, [0.25]), (0, [0.0])]),
        (450, [(0, [0.25]), (300, [0.5]), (450, [0.0])]),
        # In the last bake, too, and at its very end.
        (930, [(0, [0.25]), (300, [0.5]), (600, [0.75]), (900, [1.0]), (930, [0.0])]),
        (960, [(0, [0.25]), (300, [0.5]), (600, [0.75]), (900, [1.0]), (960, [0.0])]),
    ],
)
def test_an_alarm_in_any_bake_takes_all_traffic_back(alarm_at: int, divided: list[Any]) -> None:
    stage = Stage(LINEAR, 4, alarm_at=alarm_at)
    assert stage.rollout.run() == "The deployment was rolled back because the alarm loud is in the ALARM state."
    assert stage.divided() == divided
    number = round(divided[-2][1][0] * 4)
    assert stage.happened[-3:] == [
        (alarm_at, "turn"),
        (alarm_at, [0.0]),
        (alarm_at, "Deleting", f"Terminating {number} instance(s)."),
    ]


def test_an_alarm_is_seen_without_any_wait() -> None:
    assert Stage(blue_green("ALL_AT_ONCE", termination=0), 1, alarm_at=0).rollout.run() is not None


def test_a_rolling_deployment_comes_back_in_the_batches_it_is_told() -> None:
    config = rolling(MaximumBatchSize=("INSTANCE_COUNT", 2), RollbackMaximumBatchSize=("INSTANCE_COUNT", 1))
    stage = Stage(config, 4, alarm_at=90)
    assert stage.rollout.run() is not None
    assert stage.divided() == [(0, [0.5]), (60, [1.0]), (90, [0.75]), (90, [0.5]), (90, [0.25]), (90, [0.0])]


def test_a_deployment_that_takes_too_long_comes_back() -> None:
    stage = Stage(blue_green("CANARY", wait=300, termination=60, limit=600, CanarySize=("INSTANCE_COUNT", 1)), 2)
    # Its servers took their time to come up.
    stage.now = 310.0
    reason = stage.rollout.run()
    assert reason == "The deployment was rolled back because it took longer than MaximumExecutionTimeoutInSeconds (600)."
    assert stage.divided()[-1] == (600, [0.0])


def test_a_deployment_ends_with_localcloud() -> None:
    with pytest.raises(Interrupted):
        Stage(CANARY, 2, ends_at=100).rollout.run()


# What InvokeEndpoint is answered by.


class Server:
    def stop(self) -> None:
        """Nothing runs."""


def live(*names: str, weight: float = 1.0) -> list[LiveVariant]:
    server: Any = Server()
    return [LiveVariant(name, weight, server, serverless=False) for name in names]


def reached(fleet: Fleet, times: int, variant: str | None = None) -> Iterator[LiveVariant]:
    for _ in range(times):
        with fleet.routed("e", variant) as found:
            yield found


@pytest.mark.parametrize("variant", [None, "a"])
@pytest.mark.parametrize("weight", [1.0, 0.0])
def test_traffic_is_divided_by_share(variant: str | None, weight: float) -> None:
    fleet, blue, green = Fleet(), live("a", weight=weight), live("a", weight=weight)
    fleet.replace("e", blue)
    fleet.divide("e", blue, green, {"a": 0.25})
    # Of 2,000, 500 are expected; 6 standard deviations are 116.
    assert 384 < sum(found is green[0] for found in reached(fleet, 2000, variant)) < 616
    fleet.divide("e", blue, green, {"a": 0.0})
    assert all(found is blue[0] for found in reached(fleet, 50, variant))
    fleet.divide("e", blue, green, {"a": 1.0})
    assert all(found is green[0] for found in reached(fleet, 50, variant))
    fleet.replace("e", blue)
    assert all(found is blue[0] for found in reached(fleet, 50, variant))


def test_each_variant_is_divided_by_its_own_share() -> None:
    fleet, blue, green = Fleet(), live("a", "b"), live("a", "b")
    fleet.divide("e", blue, green, {"a": 1.0, "b": 0.0})
    assert all(found in (green[0], blue[1]) for found in reached(fleet, 100))
    assert all(found is blue[1] for found in reached(fleet, 20, "b"))
