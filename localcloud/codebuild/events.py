"""What EventBridge is told of a build.

Source: https://docs.aws.amazon.com/codebuild/latest/userguide/sample-build-notifications.html, build notifications input format.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

Json = Any
BUILD_STATE, BUILD_PHASE = "CodeBuild Build State Change", "CodeBuild Build Phase Change"


def state_detail(build: Mapping[str, Json]) -> dict[str, Json]:
    """Return the detail of a build's change of state."""
    return {
        "build-status": build["buildStatus"],
        "project-name": build["projectName"],
        "build-id": build["arn"],
        "additional-information": _additional(build),
        "current-phase": build["currentPhase"],
        "current-phase-context": _context_text(build["phases"][-1]),
        "version": "1",
    }


def phase_detail(build: Mapping[str, Json], phase: Mapping[str, Json]) -> dict[str, Json]:
    """Return the detail of the end of one of a build's phases."""
    return {
        "completed-phase": phase["phaseType"],
        "project-name": build["projectName"],
        "build-id": build["arn"],
        "completed-phase-context": _context_text(phase),
        "additional-information": _additional(build),
        "completed-phase-status": phase["phaseStatus"],
        "completed-phase-duration-seconds": phase["durationInSeconds"],
        "version": "1",
        "completed-phase-start": _time(phase["startTime"]),
        "completed-phase-end": _time(phase["endTime"]),
    }


def _additional(build: Mapping[str, Json]) -> dict[str, Json]:
    environment, artifacts, source = build["environment"], build["artifacts"], build["source"]
    names = {"location": "location", "md5sum": "md5sum", "sha256sum": "sha256sum"}
    logs = build["logs"]
    return {
        "artifact": {name: artifacts[member] for name, member in names.items() if member in artifacts},
        "environment": {
            "image": environment["image"],
            "privileged-mode": environment["privilegedMode"],
            "compute-type": environment["computeType"],
            "type": environment["type"],
            "environment-variables": environment["environmentVariables"],
        },
        "timeout-in-minutes": build["timeoutInMinutes"],
        "build-complete": build["buildComplete"],
        "initiator": build["initiator"],
        "build-start-time": _time(build["startTime"]),
        "source": {name: source[name] for name in ("location", "type") if name in source},
        "logs": {
            name: logs[member]
            for name, member in {"group-name": "groupName", "stream-name": "streamName", "deep-link": "deepLink"}.items()
            if member in logs
        },
        "phases": [_phase(phase) for phase in build["phases"]],
    }


def _phase(phase: Mapping[str, Json]) -> dict[str, Json]:
    event = {"start-time": _time(phase["startTime"]), "phase-type": phase["phaseType"]}
    if "endTime" in phase:
        event |= {
            "phase-context": _contexts(phase),
            "end-time": _time(phase["endTime"]),
            "duration-in-seconds": phase["durationInSeconds"],
            "phase-status": phase["phaseStatus"],
        }
    return event


def _contexts(phase: Mapping[str, Json]) -> list[str]:
    return [f"{context['statusCode']}: {context['message']}" for context in phase.get("contexts", ())]


def _context_text(phase: Mapping[str, Json]) -> str:
    return f"[{', '.join(_contexts(phase))}]"


def _time(moment: datetime) -> str:
    """Return a time as CodeBuild writes it, e.g. ``Sep 1, 2017 4:12:29 PM`` (without the process's own locale)."""
    months = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
    hour = moment.hour % 12 or 12
    half = "AM" if moment.hour < 12 else "PM"
    return f"{months[moment.month - 1]} {moment.day}, {moment.year} {hour}:{moment.minute:02}:{moment.second:02} {half}"
