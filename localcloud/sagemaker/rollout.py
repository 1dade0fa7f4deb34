"""One update of an endpoint, once its new servers answer: traffic goes over step by step, and comes back when an alarm says so."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass

from localcloud.sagemaker.shifting import Plan

#: Seconds between two looks at the alarms.
_LOOK_SECONDS = 0.2


class VariantStatus(enum.StrEnum):
    """What a deployment is at, of one variant."""

    CREATING = "Creating"
    DELETING = "Deleting"
    ACTIVATING = "ActivatingTraffic"
    BAKING = "Baking"


class Interrupted(Exception):
    """Indicates that localcloud ends."""


@dataclass(frozen=True)
class Rollout:
    """Shifts the traffic of one deployment.

    Attributes:
        plan: The steps.
        time_scale: How many times faster than on AWS its waits pass.
        divide: Gives the new fleet these shares of the variants' traffic.
        report: Tells what the deployment is at: a status, the active instances by variant, and a StatusMessage with "{}" for their number.
        turn: Is told, with the reason, when the traffic is about to come back.
        alarm: Returns the alarm that tripped, or None.
        pause: Waits for some seconds; returns True when localcloud ends meanwhile.
        elapsed: Returns the seconds since the deployment began.
    """

    plan: Plan
    time_scale: float
    divide: Callable[[dict[str, float]], None]
    report: Callable[[VariantStatus, dict[str, int], str], None]
    turn: Callable[[str], None]
    alarm: Callable[[], str | None]
    pause: Callable[[float], bool]
    elapsed: Callable[[], float]

    def run(self) -> str | None:
        """Shift all traffic to the new fleet, or back to the old one; return why it was the latter.

        Raises:
            Interrupted: localcloud ends; the traffic is divided somehow.
        """
        for step in self.plan.steps:
            capacity = f"{step.kind} capacity of {{}} instance(s)."
            self.report(VariantStatus.ACTIVATING, step.active, f"Activating traffic on {capacity}")
            self.divide(self.plan.shares(step.active))
            if step.wait:
                waited = f"{step.wait} seconds ({step.setting})"
                self.report(VariantStatus.BAKING, step.active, f"Baking for {waited} with traffic enabled on {capacity}")
            reason = self._bake(step.wait / self.time_scale)
            if reason is not None:
                self.turn(reason)
                self._back(step.active)
                return reason
        return None

    def _back(self, active: dict[str, int]) -> None:
        """Take the traffic from these instances of the new fleet, as fast as the plan wants."""
        for left in self.plan.steps_back(active):
            self.divide(self.plan.shares(left))
            gone = {variant: number - left[variant] for variant, number in active.items()}
            self.report(VariantStatus.DELETING, gone, "Terminating {} instance(s).")
            active = left

    def _bake(self, seconds: float) -> str | None:
        """Watch the alarms for some seconds, and look once in any case; return why to roll back."""
        end = self.elapsed() + seconds
        while True:
            alarm = self.alarm()
            if alarm is not None:
                return f"The deployment was rolled back because the alarm {alarm} is in the ALARM state."
            if self.plan.limit is not None and self.elapsed() > self.plan.limit:
                return f"The deployment was rolled back because it took longer than MaximumExecutionTimeoutInSeconds ({self.plan.limit})."
            left = end - self.elapsed()
            if left <= 0:
                return None
            if self.pause(min(left, _LOOK_SECONDS)):
                raise Interrupted
