"""How a deployment's traffic goes over to the new fleet: the steps that a DeploymentConfig asks for, and what AWS refuses of it.

Sources: "Blue/green deployments", "Use canary traffic shifting", "Use linear traffic shifting", "Use rolling deployments" and "Exclusions" in the SageMaker developer
guide (https://docs.aws.amazon.com/sagemaker/latest/dg/deployment-guardrails.html) and the limits in the API's own model.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from localcloud.database import Document
from localcloud.errors import ServiceError
from localcloud.service import Params

#: Percent of a fleet that one step may be, by the member that sets it: at least, at most.
_LIMITS = {"CanarySize": (0, 50), "LinearStepSize": (10, 50), "MaximumBatchSize": (5, 50), "RollbackMaximumBatchSize": (5, 100)}


@dataclass(frozen=True)
class Step:
    """Traffic on a part of the new fleet, and the time for which alarms are watched then.

    Attributes:
        active: Instances of the new fleet with traffic, by variant.
        wait: Seconds, as the configuration says.
        setting: The member that says so.
        kind: What StatusMessage calls these instances.
    """

    active: dict[str, int]
    wait: int
    setting: str
    kind: str


@dataclass(frozen=True)
class Plan:
    """How one deployment goes.

    Attributes:
        counts: Instances of each variant of the new fleet.
        steps: What happens one after the other; the last has all traffic on the new fleet.
        rollback: Instances that give their traffic back at once in a rollback, by variant.
        alarms: Names of the alarms that roll it back.
        limit: Seconds after which it is rolled back; None for no limit.
    """

    counts: dict[str, int]
    steps: tuple[Step, ...]
    rollback: dict[str, int]
    alarms: tuple[str, ...]
    limit: int | None

    def shares(self, active: dict[str, int]) -> dict[str, float]:
        """Return the new fleet's share of each variant's traffic when these of its instances are active."""
        return {variant: active[variant] / count for variant, count in self.counts.items()}

    def steps_back(self, active: dict[str, int]) -> list[dict[str, int]]:
        """Return the instances with traffic after each step of a rollback."""
        found = []
        while any(active.values()):
            active = {variant: max(0, number - self.rollback[variant]) for variant, number in active.items()}
            found.append(active)
        return found


def plan(config: Params | None, variants: list[Document]) -> Plan:
    """Return how a deployment to *variants* goes.

    Args:
        config: The DeploymentConfig, or None: all at once, as SageMaker does by default.
        variants: Those of the new endpoint configuration.

    Raises:
        ServiceError: AWS would refuse the configuration.
    """
    config = config or {}
    counts = {variant["VariantName"]: variant.get("InitialInstanceCount") or 1 for variant in variants}
    alarms = tuple(alarm["AlarmName"] for alarm in (config.get("AutoRollbackConfiguration") or {}).get("Alarms") or [])
    blue_green, rolling = config.get("BlueGreenUpdatePolicy"), config.get("RollingUpdatePolicy")
    if blue_green and rolling:
        raise _invalid("Only one of BlueGreenUpdatePolicy and RollingUpdatePolicy can be specified.")
    if (blue_green or rolling or alarms) and any(variant.get("ServerlessConfig") for variant in variants):
        raise _invalid(
            "DeploymentConfig is not supported for serverless endpoints: deployment guardrails only apply to asynchronous and real-time inference endpoints."
        )
    if rolling:
        steps, back = _rolling(rolling, counts)
    else:
        steps, back = _blue_green(blue_green or {}, counts), counts
    limit = (blue_green or rolling or {}).get("MaximumExecutionTimeoutInSeconds")
    waits = sum(step.wait for step in steps)
    if limit is not None and limit <= waits:
        raise _invalid(
            f"MaximumExecutionTimeoutInSeconds ({limit}) must be larger than the total waiting time of the deployment, which is {waits} seconds "
            "(WaitIntervalInSeconds between the steps, and TerminationWaitInSeconds)."
        )
    return Plan(counts, steps, back, alarms, limit)


def _blue_green(policy: Params, counts: dict[str, int]) -> tuple[Step, ...]:
    routing = policy.get("TrafficRoutingConfiguration") or {}
    kind, wait = routing.get("Type", "ALL_AT_ONCE"), routing.get("WaitIntervalInSeconds") or 0
    partial: list[Step] = []
    for member, wanted in (("CanarySize", "CANARY"), ("LinearStepSize", "LINEAR")):
        if kind == wanted and not routing.get(member):
            raise _invalid(f"{member} is required when the traffic routing type is {wanted}.")
        if kind != wanted and routing.get(member):
            raise _invalid(f"{member} can only be specified when the traffic routing type is {wanted}.")
    if kind == "CANARY":
        partial.append(Step(_size(routing["CanarySize"], counts, "CanarySize"), wait, "WaitIntervalInSeconds", "canary"))
    elif kind == "LINEAR":
        size = _size(routing["LinearStepSize"], counts, "LinearStepSize")
        partial = [Step(active, wait, "WaitIntervalInSeconds", "linear step") for active in _cumulative(size, counts)[:-1]]
    # "an additional waiting time after the completion of an endpoint deployment": the last bake, with all traffic on the new fleet.
    return (*partial, Step(counts, policy.get("TerminationWaitInSeconds") or 0, "TerminationWaitInSeconds", "full"))


def _rolling(policy: Params, counts: dict[str, int]) -> tuple[tuple[Step, ...], dict[str, int]]:
    if len(counts) > 1:
        raise _invalid("RollingUpdatePolicy is not supported for endpoints with several production variants.")
    batch = _size(policy["MaximumBatchSize"], counts, "MaximumBatchSize")
    back = (
        _size(policy["RollbackMaximumBatchSize"], counts, "RollbackMaximumBatchSize") if policy.get("RollbackMaximumBatchSize") else counts
    )
    wait = policy["WaitIntervalInSeconds"]
    actives = _cumulative(batch, counts)
    return tuple(Step(active, wait, "WaitIntervalInSeconds", "full" if active == counts else "batch") for active in actives), back


def _cumulative(size: dict[str, int], counts: dict[str, int]) -> list[dict[str, int]]:
    steps = max(math.ceil(count / size[variant]) for variant, count in counts.items())
    return [{variant: min(count, number * size[variant]) for variant, count in counts.items()} for number in range(1, steps + 1)]


def _size(wanted: Params, counts: dict[str, int], member: str) -> dict[str, int]:
    """Return a CapacitySize as instances of each variant: whole ones, at least one, and within the limit."""
    least, most = _LIMITS[member]
    kind, value = wanted["Type"], wanted["Value"]
    size = {}
    for variant, count in counts.items():
        percent = kind == "CAPACITY_PERCENT"
        instances = max(1, min(math.ceil(value * count / 100), most * count // 100)) if percent else value
        stated = value if percent else 100 * instances / count
        if stated < least or max(stated, 100 * instances / count) > most:
            limits = f"between {least}% and {most}%" if least else f"less than or equal to {most}%"
            raise _invalid(
                f"{member} of {value} ({kind}) must be {limits} of the total instance count of variant {variant}, which is {count}."
            )
        size[variant] = instances
    return size


def _invalid(message: str) -> ServiceError:
    return ServiceError("ValidationException", message)
