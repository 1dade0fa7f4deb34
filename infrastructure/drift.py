"""Drift: where a stack's resources are no longer what CloudFormation made of them, because somebody changed them by hand."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from botocore.exceptions import ClientError

FIRST_POLL_SECONDS = 0.1
LAST_POLL_SECONDS = 5.0
_CREDENTIALS = ("ExpiredToken", "ExpiredTokenException", "InvalidClientTokenId", "UnrecognizedClientException")

Json = Any


class DriftStatus(StrEnum):
    """What a detection found; `UNKNOWN` is never "no drift"."""

    DRIFTED = "DRIFTED"
    IN_SYNC = "IN_SYNC"
    UNKNOWN = "UNKNOWN"


@dataclass(frozen=True)
class Difference:
    """A property that is not as expected. `kind` is ADD, REMOVE or NOT_EQUAL."""

    path: str
    kind: str
    expected: str | None
    actual: str | None


@dataclass(frozen=True)
class ResourceDrift:
    """A resource that was changed (`MODIFIED`) or is gone (`DELETED`)."""

    logical_id: str
    type: str
    physical_id: str | None
    status: str
    differences: tuple[Difference, ...]


@dataclass(frozen=True)
class Drift:
    """What is known about a stack's drift.

    Attributes:
        status: What was found.
        resources: The resources that drifted.
        checked: How many resources CloudFormation could compare; it cannot compare all types.
        reason: Why nothing, or not everything, is known.
    """

    status: DriftStatus
    resources: tuple[ResourceDrift, ...] = ()
    checked: int = 0
    reason: str | None = None


def detect_drift(client: Any, stack_name: str, seconds_left: Callable[[], float]) -> Drift:
    """Has CloudFormation compare a stack with reality, and waits for it.

    Where it refuses or does not end in time the drift is unknown, and says why.

    Raises:
        botocore.exceptions.ClientError: the credentials do not work.
    """
    try:
        return _detect(client, stack_name, seconds_left)
    except ClientError as error:
        details = error.response["Error"]
        if details["Code"] in _CREDENTIALS:
            raise
        return Drift(DriftStatus.UNKNOWN, reason=f"{error.operation_name} was refused: {details['Code']}: {details.get('Message', '')}")


def _detect(client: Any, stack_name: str, seconds_left: Callable[[], float]) -> Drift:
    detection = client.detect_stack_drift(StackName=stack_name)["StackDriftDetectionId"]
    pause = FIRST_POLL_SECONDS
    while True:
        status = client.describe_stack_drift_detection_status(StackDriftDetectionId=detection)
        if status["DetectionStatus"] != "DETECTION_IN_PROGRESS":
            break
        if seconds_left() <= pause:
            return Drift(DriftStatus.UNKNOWN, reason="the detection did not end in time")
        time.sleep(pause)
        pause = min(pause * 1.5, LAST_POLL_SECONDS)
    drifts: list[Mapping[str, Json]] = []
    token: dict[str, str] = {}
    while True:
        page = client.describe_stack_resource_drifts(StackName=stack_name, **token)
        drifts += page["StackResourceDrifts"]
        if not page.get("NextToken"):
            break
        token = {"NextToken": page["NextToken"]}
    drifted = tuple(_resource(item) for item in drifts if item["StackResourceDriftStatus"] in ("MODIFIED", "DELETED"))
    checked = sum(item["StackResourceDriftStatus"] in ("MODIFIED", "DELETED", "IN_SYNC") for item in drifts)
    reason = status.get("DetectionStatusReason") if status["DetectionStatus"] == "DETECTION_FAILED" else None
    if drifted:
        return Drift(DriftStatus.DRIFTED, drifted, checked, reason)
    if status["DetectionStatus"] == "DETECTION_FAILED" or status.get("StackDriftStatus") != "IN_SYNC":
        return Drift(DriftStatus.UNKNOWN, (), checked, reason or f"CloudFormation says {status.get('StackDriftStatus', 'nothing')}")
    return Drift(DriftStatus.IN_SYNC, (), checked)


def _resource(item: Mapping[str, Json]) -> ResourceDrift:
    return ResourceDrift(
        item["LogicalResourceId"],
        item["ResourceType"],
        item.get("PhysicalResourceId"),
        item["StackResourceDriftStatus"],
        tuple(
            Difference(found["PropertyPath"], found["DifferenceType"], found.get("ExpectedValue"), found.get("ActualValue"))
            for found in item.get("PropertyDifferences", ())
        ),
    )
