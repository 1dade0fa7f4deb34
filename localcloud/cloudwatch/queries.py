"""MetricDataQuery structures: what GetMetricData reads and what alarms are about."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from localcloud.cloudwatch.samples import statistic
from localcloud.cloudwatch.store import Metric, MetricStore
from localcloud.errors import ServiceError, not_supported

#: Periods below a minute that AWS knows.
_SHORT_PERIODS = (1, 5, 10, 20, 30)
_INVALID = "ValidationError"


@dataclass(frozen=True)
class MetricStat:
    """A statistic of a metric by period.

    Attributes:
        metric: The metric.
        period: Seconds.
        stat: The statistic's name.
        unit: Only samples of this unit; None for any.
    """

    metric: Metric
    period: int
    stat: str
    unit: str | None = None


def metric_of(namespace: str, name: str, dimensions: Iterable[Mapping[str, str]] | None) -> Metric:
    """Return the metric of a request's members."""
    return Metric(namespace, name, tuple(sorted((pair["Name"], pair["Value"]) for pair in dimensions or ())))


def metric_stat(structure: Mapping[str, Any]) -> MetricStat:
    """Read a MetricStat structure.

    Raises:
        ServiceError: The period or the statistic is none.
    """
    metric = structure["Metric"]
    for member in ("Namespace", "MetricName"):
        if not metric.get(member):
            raise ServiceError("MissingParameter", f"The parameter MetricStat.Metric.{member} is required.")
    check_period(structure["Period"])
    statistic(structure["Stat"])
    return MetricStat(
        metric_of(metric["Namespace"], metric["MetricName"], metric.get("Dimensions")),
        structure["Period"],
        structure["Stat"],
        structure.get("Unit"),
    )


def check_period(period: int) -> None:
    """Refuse what is no period.

    Raises:
        ServiceError: It is neither one of the short periods nor a multiple of a minute.
    """
    if period not in _SHORT_PERIODS and period % 60:
        raise ServiceError("InvalidParameterValue", "The parameter Period must be 1, 5, 10, 20, 30 or a multiple of 60.")


def read_queries(queries: Iterable[Mapping[str, Any]]) -> dict[str, MetricStat]:
    """Read the queries of one request.

    Returns:
        The metric and statistic of each, by id.

    Raises:
        ServiceError: One is not what AWS takes, or a metric math or Metrics Insights expression, which are not played.
    """
    found: dict[str, MetricStat] = {}
    for query in queries:
        identifier = query["Id"]
        if identifier in found:
            raise ServiceError(_INVALID, f"The values for parameter id in parameter MetricDataQueries are not unique: {identifier}.")
        if query.get("Expression"):
            raise not_supported(f"The expression {query['Expression']!r} (metric math, Metrics Insights, SEARCH)", _INVALID)
        if query.get("AccountId"):
            raise not_supported("MetricDataQuery: AccountId", _INVALID)
        if not query.get("MetricStat"):
            raise ServiceError(_INVALID, f"The query {identifier} must have either a MetricStat or an Expression.")
        found[identifier] = metric_stat(query["MetricStat"])
    return found


def read_values(
    store: MetricStore, wanted: MetricStat, start: float, end: float, period: float | None = None
) -> dict[int, tuple[float, float]]:
    """Return the value of each period of a statistic and the number of its samples, by the period's number from *start* on.

    Args:
        store: The samples.
        wanted: What to read.
        start: Seconds since 1970, where the first period starts.
        end: Seconds since 1970; samples from then on do not count.
        period: Seconds, in place of the statistic's own.
    """
    compute = statistic(wanted.stat)
    found = store.periods(wanted.metric, start, end, period or wanted.period, wanted.unit)
    values = ((number, compute(samples), samples.count) for number, samples in found.items())
    return {number: (value, count) for number, value, count in values if value is not None}
