"""Production on instances: a new version takes over step by step while photos are classified, and one that fails is taken back before most of them meet it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from helpers_product import ANSWER, Product
from infrastructure.deploy import ServingMode, TrafficShifting, refresh_inference

#: Loads, answers pings, and fails on every photo.
BROKEN = """
def model_fn(model_dir):
    return None

def transform_fn(model, body, content_type, accept):
    raise RuntimeError("the weights are all NaN")
"""
ENDPOINT = "scones-production"


def answer(confidence: float) -> dict[str, Any]:
    """Return what a version says that is this sure."""
    return ANSWER | {"inferences": [confidence, 1 - confidence], "confidence": confidence}


@pytest.fixture(scope="module")
def product(region: Any) -> Product:
    from conftest import poll

    product = Product(region, poll)
    # 60 seconds, which are one here.
    product.deploy(
        serving_mode=ServingMode.INSTANCE,
        serving_instance_count=4,
        traffic_shifting=TrafficShifting.LINEAR,
        traffic_shift_wait_in_seconds=60,
    )
    first = product.register(answer=answer(0.9))
    product.decide(first)
    product.settled("CREATE_COMPLETE", first)
    return product


class Load:
    """Photos that are classified one after the other, by two people at once."""

    def __init__(self, product: Product) -> None:
        self._product = product
        self._machine = product.stack()["Outputs"]["StateMachineArn"]
        self._started: list[str] = []
        self._over = threading.Event()
        product.classify()  # puts the photo where the others take it from

    def _run(self) -> None:
        request = json.dumps({"s3_bucket": self._product.outputs.artifact_bucket_name, "s3_key": "inbox/photo.png", "threshold": 0.5})
        states = self._product.region.client("stepfunctions")
        while not self._over.is_set():
            arn = states.start_execution(stateMachineArn=self._machine, input=request)["executionArn"]
            self._started.append(arn)
            self._over.wait(0.05)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Classify until the block ends."""
        threads = [threading.Thread(target=self._run) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._over.set()
            for thread in threads:
                thread.join()

    def results(self, poll: Callable[..., Any]) -> tuple[list[float], list[str]]:
        """Return the confidences of the photos that were classified, in their order, and the errors of the others."""
        states = self._product.client("stepfunctions")
        confidences, errors = [], []
        for arn in self._started:
            execution = poll(lambda arn=arn: (found := states.describe_execution(executionArn=arn))["status"] != "RUNNING" and found, 120)
            if execution["status"] == "SUCCEEDED":
                confidences.append(json.loads(execution["output"])["confidence"])
            else:
                errors.append(execution["error"])
        return confidences, errors


def test_a_good_version_takes_over_by_linear_steps_and_no_photo_fails(product: Product, poll: Callable[..., Any]) -> None:
    second = product.register(answer=answer(0.8))
    load = Load(product)
    with load.running():
        product.decide(second)
        seen: set[int] = set()

        def settled() -> bool:
            described = product.client("sagemaker").describe_endpoint(EndpointName=ENDPOINT)
            for variant in described.get("PendingDeploymentSummary", {}).get("ProductionVariants", []):
                seen.add(variant["CurrentInstanceCount"])
            return bool(product.stack()["StackStatus"] == "UPDATE_COMPLETE" and product.stack()["Parameters"]["ModelPackageArn"] == second)

        poll(settled, 90)
    confidences, errors = load.results(poll)
    assert errors == []
    # Steps of a quarter: while both served, both answered.
    assert seen & {1, 2, 3}
    assert {0.9, 0.8} == set(confidences)
    first_new, last_old = confidences.index(0.8), len(confidences) - 1 - confidences[::-1].index(0.9)
    assert first_new < last_old
    assert product.classify(threshold=0.5)["confidence"] == 0.8


def test_a_version_that_fails_on_photos_trips_the_alarm_and_the_one_before_serves_all_the_time(
    product: Product, poll: Callable[..., Any]
) -> None:
    # 300 seconds, the default: five here.
    product.deploy(
        serving_mode=ServingMode.INSTANCE,
        serving_instance_count=4,
        traffic_shifting=TrafficShifting.CANARY,
        traffic_shift_wait_in_seconds=300,
    )
    assert refresh_inference(product, product.outputs) == "updated"
    before = product.client("sagemaker").describe_endpoint(EndpointName=ENDPOINT)
    broken = product.register(BROKEN)
    load = Load(product)
    with load.running():
        product.decide(broken)
        product.settled("UPDATE_ROLLBACK_COMPLETE")
    (reason,) = [reason for reason in product.reasons()[:1] if reason.startswith("Endpoint:")]
    assert "rolled back because the alarm scones-production-5xx is in the ALARM state" in reason
    after = product.client("sagemaker").describe_endpoint(EndpointName=ENDPOINT)
    assert (after["EndpointStatus"], after["EndpointConfigName"]) == ("InService", before["EndpointConfigName"])
    alarms = product.client("cloudwatch").describe_alarm_history(AlarmName="scones-production-5xx", HistoryItemType="StateUpdate")
    # It may be quiet again by now.
    assert any("to ALARM" in item["HistorySummary"] for item in alarms["AlarmHistoryItems"])
    confidences, errors = load.results(poll)
    # A quarter of the traffic met it, for as long as the alarm took; the workflow's own retries found the others.
    assert len(errors) <= (len(errors) + len(confidences)) / 4
    assert set(errors) <= {"EndpointUnavailableError"}
    assert set(confidences) == {0.8}
    assert product.classify(threshold=0.5)["confidence"] == 0.8
