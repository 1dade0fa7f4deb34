"""Production on instances: a new version takes over step by step while photos are classified, and one that fails is taken back before most of them meet it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from helpers_product import ANSWER, GOOD, Product
from infrastructure.deploy import ServingMode, TrafficShifting

#: Loads, answers pings, and fails on every photo.
BROKEN = """
def model_fn(model_dir):
    return None

def transform_fn(model, body, content_type, accept):
    raise RuntimeError("the weights are all NaN")
"""
#: Answers as well as any other, a little more than a second late.
SLOW = GOOD.replace("    return json.dumps", "    import time; time.sleep(1.05)\n    return json.dumps")
ENDPOINT = "scones-production"
ERRORS, LATENCY = "scones-production-5xx", "scones-production-latency"


def answer(confidence: float) -> dict[str, Any]:
    """Return what a version says that is this sure."""
    return ANSWER | {"inferences": [confidence, 1 - confidence], "confidence": confidence}


def deploy(product: Product, shifting: TrafficShifting, wait: int) -> None:
    """Deploy the platform for production on four instances; what is new reaches production with the next decision."""
    product.deploy(
        serving_mode=ServingMode.INSTANCE, serving_instance_count=4, traffic_shifting=shifting, traffic_shift_wait_in_seconds=wait
    )


@pytest.fixture(scope="module")
def product(region: Any) -> Product:
    from conftest import poll

    product = Product(region, poll)
    # 60 seconds, which are one here.
    deploy(product, TrafficShifting.LINEAR, 60)
    product.listen()
    first = product.register(answer=answer(0.9))
    product.decide(first)
    product.settled("CREATE_COMPLETE", first)
    return product


class Load:
    """Photos that people hand in one after the other; *patient* ones wait for an answer before the next."""

    def __init__(self, product: Product, people: int = 2, *, patient: bool = False) -> None:
        self._product = product
        self._people = people
        self._patient = patient
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
            while not self._over.wait(0.05) and self._patient and states.describe_execution(executionArn=arn)["status"] == "RUNNING":
                pass

    @contextmanager
    def running(self) -> Iterator[None]:
        """Classify until the block ends."""
        threads = [threading.Thread(target=self._run) for _ in range(self._people)]
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


def serving(product: Product) -> tuple[str, str]:
    """Return how production's endpoint is, and with what it serves."""
    described = product.client("sagemaker").describe_endpoint(EndpointName=ENDPOINT)
    return described["EndpointStatus"], described["EndpointConfigName"]


def rolled_back_by(product: Product, alarm: str) -> None:
    """Hold that an alarm took the last deployment back, and that people were told of both."""
    (reason,) = [reason for reason in product.reasons()[:1] if reason.startswith("Endpoint:")]
    assert f"rolled back because the alarm {alarm} is in the ALARM state" in reason
    # It may be quiet again by now.
    history = product.client("cloudwatch").describe_alarm_history(AlarmName=alarm, HistoryItemType="StateUpdate")["AlarmHistoryItems"]
    assert any("to ALARM" in item["HistorySummary"] for item in history)
    product.told(f'"AlarmName": "{alarm}"', '"NewStateValue": "ALARM"')
    product.told("A deployment to production failed and is being rolled back")
    product.told("was rolled back (UPDATE_ROLLBACK_COMPLETE)")


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


def test_a_version_that_is_slow_trips_the_alarm_and_the_one_before_serves_on(product: Product, poll: Callable[..., Any]) -> None:
    # 300 seconds, the default: five here.
    deploy(product, TrafficShifting.CANARY, 300)
    before = serving(product)
    load = Load(product, 3, patient=True)
    with load.running():
        product.decide(product.register(SLOW, answer(0.7)))
        product.settled("UPDATE_ROLLBACK_COMPLETE")
    rolled_back_by(product, LATENCY)
    assert serving(product) == before
    confidences, errors = load.results(poll)
    # What is slow is right all the same.
    assert (set(confidences), errors) == ({0.8, 0.7}, [])
    assert product.classify(threshold=0.5)["confidence"] == 0.8


def test_a_version_that_fails_on_photos_trips_the_alarm_and_the_one_before_serves_all_the_time(
    product: Product, poll: Callable[..., Any]
) -> None:
    # A deployment that begins while an alarm rings is taken back at once.
    alarms = product.region.cloud.services["cloudwatch"].alarms
    with alarms.watch([LATENCY], 1 / 60):
        poll(lambda: alarms.evaluate(LATENCY, time.time()) or alarms.get(LATENCY)["StateValue"] == "OK")
    before = serving(product)
    broken = product.register(BROKEN)
    load = Load(product)
    with load.running():
        product.decide(broken)
        product.settled("UPDATE_ROLLBACK_COMPLETE")
    rolled_back_by(product, ERRORS)
    assert serving(product) == before
    confidences, errors = load.results(poll)
    # A quarter of the traffic met it, for as long as the alarm took; the workflow's own retries found the others.
    assert len(errors) <= (len(errors) + len(confidences)) / 4
    assert set(errors) <= {"EndpointUnavailableError"}
    assert set(confidences) == {0.8}
    assert product.classify(threshold=0.5)["confidence"] == 0.8
