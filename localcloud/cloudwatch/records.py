"""What the region's own services report about themselves, under the names, dimensions and units that AWS documents."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from localcloud.cloudwatch.store import Metric, MetricStore

_COUNT, _MILLISECONDS, _MICROSECONDS, _NONE = "Count", "Milliseconds", "Microseconds", "None"


class ServiceMetrics:
    """Adds the samples of the region's services; cheap enough for every request."""

    def __init__(self, store: MetricStore) -> None:
        self._store = store

    def function_ran(self, name: str, qualifier: str | None, failed: bool, milliseconds: float) -> None:
        """AWS/Lambda: an invocation ended."""
        for invocations, errors, throttles, duration in _function(name, qualifier):
            self._store.add(invocations, 1.0, _COUNT)
            self._store.add(errors, float(failed), _COUNT)
            self._store.add(throttles, 0.0, _COUNT)
            self._store.add(duration, milliseconds, _MILLISECONDS)

    def function_throttled(self, name: str, qualifier: str | None) -> None:
        """AWS/Lambda: an invocation was refused."""
        for _, _, throttles, _ in _function(name, qualifier):
            self._store.add(throttles, 1.0, _COUNT)

    def execution_started(self, machine_arn: str, aliases: Iterable[tuple[str, str]]) -> None:
        """AWS/States: an execution started; *aliases* are the dimensions Alias and Version that it has."""
        for dimensions in _execution(machine_arn, tuple(aliases)):
            self._store.add(_states("ExecutionsStarted", dimensions), 1.0, _COUNT)

    def execution_ended(self, machine_arn: str, aliases: Iterable[tuple[str, str]], status: str, milliseconds: float) -> None:
        """AWS/States: an execution ended in a status as DescribeExecution gives it."""
        for dimensions in _execution(machine_arn, tuple(aliases)):
            self._store.add(_states(_ENDED[status], dimensions), 1.0, _COUNT)
            self._store.add(_states("ExecutionTime", dimensions), milliseconds, _MILLISECONDS)

    def endpoint_invoked(self, endpoint: str, variant: str, status: int, model_us: float, overhead_us: float) -> None:
        """AWS/SageMaker: a model answered.

        Args:
            endpoint: The endpoint's name.
            variant: The variant's name.
            status: The container's HTTP status; 0 when it did not answer.
            model_us: Microseconds that the container took.
            overhead_us: Microseconds that the endpoint took beside that.
        """
        invocations, client_errors, server_errors, model_errors, model, overhead = _endpoint(endpoint, variant)
        self._store.add(invocations, 1.0, _NONE)
        self._store.add(client_errors, float(400 <= status < 500), _NONE)
        self._store.add(server_errors, float(status == 0 or status >= 500), _NONE)
        self._store.add(model_errors, float(not 200 <= status < 300), _NONE)
        self._store.add(model, model_us, _MICROSECONDS)
        self._store.add(overhead, overhead_us, _MICROSECONDS)

    def rule(self, metric: str, rule: str, bus: str) -> None:
        """AWS/Events: one more of *metric*, e.g. ``Invocations``, for a rule."""
        self._store.add(_rule(metric, rule, bus), 1.0, _COUNT)

    def queue(self, name: str, visible: int, in_flight: int, delayed: int, oldest_seconds: float) -> None:
        """AWS/SQS: how a queue is now."""
        for metric, value, unit in (
            ("ApproximateNumberOfMessagesVisible", visible, _COUNT),
            ("ApproximateNumberOfMessagesNotVisible", in_flight, _COUNT),
            ("ApproximateNumberOfMessagesDelayed", delayed, _COUNT),
            ("ApproximateAgeOfOldestMessage", oldest_seconds, "Seconds"),
        ):
            self._store.add(Metric("AWS/SQS", metric, (("QueueName", name),)), float(value), unit)


_ENDED = {
    "SUCCEEDED": "ExecutionsSucceeded",
    "FAILED": "ExecutionsFailed",
    "TIMED_OUT": "ExecutionsTimedOut",
    "ABORTED": "ExecutionsAborted",
}


@lru_cache(maxsize=512)
def _function(name: str, qualifier: str | None) -> tuple[tuple[Metric, ...], ...]:
    resource = f"{name}:{qualifier}" if qualifier else name
    return tuple(
        tuple(Metric("AWS/Lambda", metric, dimensions) for metric in ("Invocations", "Errors", "Throttles", "Duration"))
        # Of all functions, of all versions of one, and of one version or alias.
        for dimensions in ((), (("FunctionName", name),), (("FunctionName", name), ("Resource", resource)))
    )


@lru_cache(maxsize=512)
def _execution(machine_arn: str, aliases: tuple[tuple[str, str], ...]) -> tuple[tuple[tuple[str, str], ...], ...]:
    machine = ("StateMachineArn", machine_arn)
    return ((machine,), *(tuple(sorted((machine, alias))) for alias in aliases))


@lru_cache(maxsize=2048)
def _states(metric: str, dimensions: tuple[tuple[str, str], ...]) -> Metric:
    return Metric("AWS/States", metric, dimensions)


@lru_cache(maxsize=512)
def _endpoint(endpoint: str, variant: str) -> tuple[Metric, ...]:
    dimensions = (("EndpointName", endpoint), ("VariantName", variant))
    names = ("Invocations", "Invocation4XXErrors", "Invocation5XXErrors", "InvocationModelErrors", "ModelLatency", "OverheadLatency")
    return tuple(Metric("AWS/SageMaker", name, dimensions) for name in names)


@lru_cache(maxsize=512)
def _rule(metric: str, rule: str, bus: str) -> Metric:
    dimensions = (("RuleName", rule),) if bus == "default" else (("EventBusName", bus), ("RuleName", rule))
    return Metric("AWS/Events", metric, dimensions)
