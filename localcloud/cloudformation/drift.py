"""Drift detection: a stack's resources compared with what they really are."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from localcloud.cloudformation import readers
from localcloud.cloudformation.comparison import compare
from localcloud.cloudformation.errors import ResourceFailure, validation_error

if TYPE_CHECKING:
    from localcloud.cloudformation.state import Member, State
    from localcloud.database import Database, Document

Json = Any

_DETECTABLE = frozenset(
    (
        "CREATE_COMPLETE",
        "UPDATE_COMPLETE",
        "UPDATE_ROLLBACK_COMPLETE",
        "UPDATE_ROLLBACK_FAILED",
        "IMPORT_COMPLETE",
        "IMPORT_ROLLBACK_COMPLETE",
    )
)
#: Detections that are remembered; AWS keeps their results for 90 days.
_REMEMBERED = 100


class Drifts:
    """Detections, and what they found.

    Args:
        state: The stacks.
        database: Where results are kept.
        clients: boto3 clients onto the region by service name.
    """

    def __init__(self, state: State, database: Database, clients: readers.Clients) -> None:
        self._state = state
        self._clients = clients
        self._detections = database.table("cloudformation.drift_detections")
        self._found = database.table("cloudformation.drifts")

    def detect(self, stack: Document, logical_ids: list[str] | None) -> str:
        """Compare a stack's resources, or some of them; return the detection's id. It is over when this returns, as it is a few calls here.

        Raises:
            ServiceError: The stack is being changed, or was never made; or it has no such resource.
        """
        if stack["StackStatus"] not in _DETECTABLE:
            raise validation_error(
                f"Drift detection cannot be performed on stack [{stack['StackId']}] while it is in {stack['StackStatus']} state"
            )
        members = {member.logical_id: member for member in self._state.members(stack["StackId"]) if member.current is not None}
        unknown = sorted(set(logical_ids or ()) - set(members))
        if unknown:
            raise validation_error(f"Resource {unknown[0]} does not exist for stack {stack['StackName']}")
        failures = [self._compare(stack, member) for name, member in members.items() if not logical_ids or name in logical_ids]
        reasons = [reason for reason in failures if reason]
        results = self.of_stack(stack)
        drifted = sum(item["StackResourceDriftStatus"] in ("MODIFIED", "DELETED") for item in results)
        identifier = str(uuid.uuid4())
        for old in sorted(self._detections.values(), key=lambda item: item["Timestamp"])[: -_REMEMBERED + 1 or None]:
            if len(self._detections) >= _REMEMBERED:
                self._detections.delete(old["StackDriftDetectionId"])
        detection: Document = {
            "StackId": stack["StackId"],
            "StackDriftDetectionId": identifier,
            "StackDriftStatus": "DRIFTED" if drifted else "IN_SYNC",
            "DetectionStatus": "DETECTION_FAILED" if reasons else "DETECTION_COMPLETE",
            "DriftedStackResourceCount": drifted,
            "Timestamp": datetime.now(UTC),
        }
        if reasons:
            detection["DetectionStatusReason"] = f"Failed to detect drift on resources: {'; '.join(reasons)}"
        self._detections.put(identifier, detection)
        return identifier

    def detection(self, identifier: str) -> Document:
        """Return how a detection ended.

        Raises:
            ServiceError: There is none of this id.
        """
        found = self._detections.get(identifier)
        if found is None:
            raise validation_error(f"Drift detection with id {identifier} does not exist")
        return found

    def of_stack(self, stack: Document) -> list[Document]:
        """Return what is known of a stack's resources, by logical id."""
        names = {member.logical_id for member in self._state.members(stack["StackId"]) if member.current is not None}
        prefix = f"{stack['StackId']}|"
        items = [self._found.get(key) for key in sorted(self._found) if key.startswith(prefix)]
        return [item for item in items if item is not None and item["LogicalResourceId"] in names]

    def information(self, stack: Document, logical_id: str | None = None) -> Document:
        """Return the DriftInformation of a stack, or of one of its resources."""
        if logical_id is not None:
            found = self._found.get(f"{stack['StackId']}|{logical_id}")
            if found is None:
                return {"StackResourceDriftStatus": "NOT_CHECKED"}
            return {"StackResourceDriftStatus": found["StackResourceDriftStatus"], "LastCheckTimestamp": found["Timestamp"]}
        detections = [item for item in self._detections.values() if item["StackId"] == stack["StackId"]]
        if not detections:
            return {"StackDriftStatus": "NOT_CHECKED"}
        last = max(detections, key=lambda item: item["Timestamp"])
        return {"StackDriftStatus": last["StackDriftStatus"], "LastCheckTimestamp": last["Timestamp"]}

    def _compare(self, stack: Document, member: Member) -> str | None:
        """Compare one resource and keep the result; return why that could not be done."""
        instance = member.current
        assert instance is not None
        if member.type not in readers.READERS or instance.physical_id is None:
            return None
        result: Document = {
            "StackId": stack["StackId"],
            "LogicalResourceId": member.logical_id,
            "PhysicalResourceId": instance.physical_id,
            "ResourceType": member.type,
            "Timestamp": datetime.now(UTC),
        }
        try:
            comparison = compare(self._clients, self._state.members(stack["StackId"]), member)
        except (ClientError, ResourceFailure) as error:
            return f"{member.logical_id}: {error}"
        assert comparison is not None
        expected, real = comparison.expected, comparison.real
        if real is None:
            result |= {"StackResourceDriftStatus": "DELETED", "ExpectedProperties": json.dumps(expected), "PropertyDifferences": []}
        else:
            found = [
                {"PropertyPath": path, "ExpectedValue": _text(before), "ActualValue": _text(after), "DifferenceType": kind}
                for path, before, after, kind in differences(expected, real)
            ]
            result |= {
                "StackResourceDriftStatus": "MODIFIED" if found else "IN_SYNC",
                "ExpectedProperties": json.dumps(expected),
                "ActualProperties": json.dumps(real),
                "PropertyDifferences": found,
            }
        self._found.put(f"{stack['StackId']}|{member.logical_id}", result)
        return None


def differences(expected: Json, actual: Json, path: str = "") -> Iterator[tuple[str, Json, Json, str]]:
    """Return where two values differ: JSON pointer, expected and actual value (None when there is none), and REMOVE, ADD or NOT_EQUAL."""
    if isinstance(expected, Mapping) and isinstance(actual, Mapping):
        pairs = [(str(key), expected.get(key), actual.get(key)) for key in sorted({*expected, *actual})]
    elif isinstance(expected, list) and isinstance(actual, list):
        pairs = [
            (str(index), expected[index] if index < len(expected) else None, actual[index] if index < len(actual) else None)
            for index in range(max(len(expected), len(actual)))
        ]
    else:
        if expected != actual:
            yield path, expected, actual, "NOT_EQUAL"
        return
    for name, before, after in pairs:
        below = f"{path}/{name}"
        if before is None and after is not None:
            yield below, None, after, "ADD"
        elif after is None and before is not None:
            yield below, before, None, "REMOVE"
        else:
            yield from differences(before, after, below)


def _text(value: Json) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return "null" if value is None else value if isinstance(value, str) else json.dumps(value)
