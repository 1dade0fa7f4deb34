"""The CloudWatch API."""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar

from localcloud.cloudwatch.alarms import Alarms, check_action
from localcloud.cloudwatch.evaluation import COMPARISONS, AlarmState, Missing
from localcloud.cloudwatch.queries import MetricStat, check_period, metric_of, metric_stat, read_queries, read_values
from localcloud.cloudwatch.queues import measure_queues
from localcloud.cloudwatch.records import ServiceMetrics
from localcloud.cloudwatch.samples import Samples, statistic
from localcloud.cloudwatch.store import KEPT_SECONDS, Metric, MetricStore
from localcloud.errors import ServiceError, not_supported
from localcloud.service import Params, Service

if TYPE_CHECKING:
    from localcloud.cloud import Cloud
    from localcloud.database import Document

_VALIDATION, _VALUE, _COMBINATION = "ValidationError", "InvalidParameterValue", "InvalidParameterCombination"
#: AWS's limits: samples with a value each, points of GetMetricStatistics, of GetMetricData, queries, and metrics of a page.
_MAX_VALUES, _MAX_STATISTICS, _MAX_DATA, _MAX_QUERIES, _METRICS_PAGE = 150, 1440, 100_800, 500, 500
#: Seconds that samples may be old, and may be in the future.
_OLDEST, _NEWEST = 14 * 86_400, 2 * 3600
#: Seconds that EvaluationPeriods times Period may be: a week, and a day for short periods.
_LONGEST, _LONGEST_SHORT = 604_800, 86_400
_ALARM_MEMBERS = (
    "AlarmName", "AlarmDescription", "ActionsEnabled", "OKActions", "AlarmActions", "InsufficientDataActions", "MetricName", "Namespace", "Statistic",
    "ExtendedStatistic", "Dimensions", "Period", "Unit", "EvaluationPeriods", "DatapointsToAlarm", "Threshold", "ComparisonOperator", "TreatMissingData",
    "EvaluateLowSampleCountPercentile", "Metrics", "Tags",
)  # fmt: skip


class CloudWatchService(Service):
    """Amazon CloudWatch.

    Attributes:
        alarms: The alarms; deployments watch theirs with ``alarms.watch``.
    """

    name: ClassVar[str] = "cloudwatch"
    validation_code: ClassVar[str] = _VALIDATION

    def __init__(self, cloud: Cloud) -> None:
        super().__init__(cloud)
        self._store: MetricStore = cloud.metric_store
        self._dashboards = cloud.db.table("cloudwatch.dashboards")
        self._metrics: ServiceMetrics = cloud.metrics
        self.alarms = Alarms(cloud, cloud.metric_store, lambda: measure_queues(cloud, cloud.metrics))

    def start(self) -> None:
        """Begin to evaluate alarms."""
        self.alarms.start()

    # Metrics.

    def put_metric_data(self, params: Params) -> None:
        """PutMetricData."""
        if params.get("EntityMetricData"):
            raise not_supported("PutMetricData: EntityMetricData", _VALIDATION)
        if params["Namespace"].startswith("AWS/"):
            raise ServiceError(_VALUE, "The value AWS/ for parameter Namespace is invalid.")
        data = params.get("MetricData") or []
        if not data:
            raise ServiceError("MissingParameter", "The parameter MetricData is required.")
        # All are looked at before the first is kept.
        added = [self._datum(params["Namespace"], datum, f"MetricData.member.{number}") for number, datum in enumerate(data, 1)]
        for metric, parts, unit, at in added:
            for samples in parts:
                self._store.add_set(metric, samples, unit, at)
        self._store.save()

    def _datum(self, namespace: str, datum: Params, where: str) -> tuple[Metric, list[Samples], str, float | None]:
        metric = metric_of(namespace, datum["MetricName"], datum.get("Dimensions"))
        moment = datum.get("Timestamp")
        at = None if moment is None else _seconds(moment)
        present = datetime.now(UTC).timestamp()
        if at is not None and not present - _OLDEST <= at <= present + _NEWEST:
            raise ServiceError(
                _VALUE,
                f"The parameter {where}.Timestamp must specify a time no more than two weeks in the past and no more than two hours in the future.",
            )
        sets, values = datum.get("StatisticValues"), datum.get("Values")
        given = [member for member in ("Value", "Values", "StatisticValues") if datum.get(member) is not None]
        if not given:
            raise ServiceError(
                "MissingParameter", f"At least one of the parameters must be specified. ({where}.Value, Values, StatisticValues)"
            )
        if len(given) > 1:
            raise ServiceError(
                _COMBINATION,
                f"The parameters {where}.{given[0]} and {where}.{given[1]} are mutually exclusive and you have specified both.",
            )
        if sets:
            if sets["SampleCount"] <= 0 or sets["Minimum"] > sets["Maximum"]:
                raise ServiceError(_VALUE, f"The value of the parameter {where}.StatisticValues is invalid.")
            same = sets["Minimum"] == sets["Maximum"]
            parts = [Samples(sets["SampleCount"], sets["Sum"], sets["Minimum"], sets["Maximum"], opaque=not same)]
        elif values is not None:
            counts = datum.get("Counts") or [1.0] * len(values)
            if len(values) != len(counts) or not 0 < len(values) <= _MAX_VALUES:
                raise ServiceError(
                    _VALUE, f"The parameters {where}.Values and {where}.Counts must be of the same size, of at most {_MAX_VALUES}."
                )
            parts = [Samples.of(value, count) for value, count in zip(values, counts, strict=True)]
        else:
            parts = [Samples.of(datum["Value"])]
        if not all(math.isfinite(number) for part in parts for number in (part.total, part.low, part.high, part.count)):
            raise ServiceError(_VALUE, f"The value of the parameter {where}.Value must be a finite number.")
        return metric, parts, datum.get("Unit") or "None", at

    def list_metrics(self, params: Params) -> Params:
        """ListMetrics."""
        if params.get("IncludeLinkedAccounts") or params.get("OwningAccount"):
            raise not_supported("ListMetrics: other accounts", _VALIDATION)
        wanted = params.get("Dimensions") or []
        recent = datetime.now(UTC).timestamp() - 3 * 3600 if params.get("RecentlyActive") else None
        found = [
            metric
            for metric in self._store.metrics()
            if params.get("Namespace") in (None, metric.namespace)
            and params.get("MetricName") in (None, metric.name)
            and all(
                any(name == pair["Name"] and pair.get("Value") in (None, value) for name, value in metric.dimensions) for pair in wanted
            )
            and (recent is None or self._store.samples(metric, recent, recent + KEPT_SECONDS) is not None)
        ]
        page, token = _page(found, params.get("NextToken"), _METRICS_PAGE)
        metrics = [
            {
                "Namespace": metric.namespace,
                "MetricName": metric.name,
                "Dimensions": [{"Name": n, "Value": v} for n, v in metric.dimensions],
            }
            for metric in page
        ]
        return {"Metrics": metrics} | token

    def get_metric_statistics(self, params: Params) -> Params:
        """GetMetricStatistics."""
        simple, extended = params.get("Statistics") or [], params.get("ExtendedStatistics") or []
        if not simple and not extended:
            raise ServiceError(_COMBINATION, "Must specify either Statistics or ExtendedStatistics")
        check_period(params["Period"])
        start, end = _span(params, params["Period"])
        if (end - start) / params["Period"] > _MAX_STATISTICS:
            raise ServiceError(
                _COMBINATION,
                f"You have requested up to {math.ceil((end - start) / params['Period'])} datapoints, which exceeds the limit of {_MAX_STATISTICS}. You may "
                "reduce the datapoints requested by increasing Period, or decreasing the time range.",
            )
        metric = metric_of(params["Namespace"], params["MetricName"], params.get("Dimensions"))
        functions = {name: statistic(name) for name in [*simple, *extended]}
        points = []
        for number, samples in sorted(self._store.periods(metric, start, end, params["Period"], params.get("Unit")).items()):
            point: Params = {"Timestamp": datetime.fromtimestamp(start + number * params["Period"], UTC)}
            point |= {name: functions[name](samples) for name in simple}
            percentiles = {name: functions[name](samples) for name in extended}
            if extended:
                point["ExtendedStatistics"] = {name: value for name, value in percentiles.items() if value is not None}
            points.append(point | {"Unit": params.get("Unit") or self._store.unit(metric) or "None"})
        return {"Label": params["MetricName"], "Datapoints": points}

    def get_metric_data(self, params: Params) -> Params:
        """GetMetricData."""
        if params.get("NextToken"):
            raise ServiceError("InvalidNextToken", "The provided token is not valid")
        if len(params["MetricDataQueries"]) > _MAX_QUERIES:
            raise ServiceError(_VALIDATION, f"The number of MetricDataQueries must be at most {_MAX_QUERIES}.")
        queries = read_queries(params["MetricDataQueries"])
        results = []
        left = min(params.get("MaxDatapoints") or _MAX_DATA, _MAX_DATA)
        for query in params["MetricDataQueries"]:
            wanted = queries[query["Id"]]
            if not query.get("ReturnData", True):
                continue
            start, end = _span(params, wanted.period)
            values = sorted(read_values(self._store, wanted, start, end).items())
            if params.get("ScanBy") != "TimestampAscending":
                values.reverse()
            complete = len(values) <= left
            values, left = values[:left], max(0, left - len(values))
            results.append(
                {
                    "Id": query["Id"],
                    "Label": query.get("Label") or _label(wanted, params["MetricDataQueries"]),
                    "Timestamps": [datetime.fromtimestamp(start + number * wanted.period, UTC) for number, _ in values],
                    "Values": [value for _, (value, _) in values],
                    "StatusCode": "Complete" if complete else "PartialData",
                }
            )
        return {"MetricDataResults": results, "Messages": []}

    # Alarms.

    def put_metric_alarm(self, params: Params) -> None:
        """PutMetricAlarm."""
        for member in params:
            if member not in _ALARM_MEMBERS and params[member] not in (None, False, "", [], {}):
                raise not_supported(f"PutMetricAlarm: {member}", _VALIDATION)
        name = params["AlarmName"]
        alarm = {member: params[member] for member in _ALARM_MEMBERS if params.get(member) is not None and member != "Tags"}
        alarm |= {
            "AlarmArn": self._alarm_arn(name),
            "ActionsEnabled": params.get("ActionsEnabled", True) is not False,
            "AlarmConfigurationUpdatedTimestamp": datetime.now(UTC),
            **{member: params.get(member) or [] for member in ("OKActions", "AlarmActions", "InsufficientDataActions")},
            # AWS takes tags only when the alarm is made; later ones are for TagResource.
            "_Tags": {tag["Key"]: tag["Value"] for tag in params.get("Tags") or []},
        }
        if "MetricName" in alarm:
            alarm.setdefault("Dimensions", [])
        self._check_alarm(alarm)
        for member in ("OKActions", "AlarmActions", "InsufficientDataActions"):
            for arn in alarm[member]:
                check_action(self.cloud, arn)
        self.alarms.put(alarm)

    def _check_alarm(self, alarm: Document) -> None:
        """Refuse an alarm that AWS would refuse, or that could not be evaluated here."""
        for member in ("EvaluationPeriods", "ComparisonOperator"):
            if alarm.get(member) is None:
                raise ServiceError("MissingParameter", f"The parameter {member} is required.")
        if alarm["ComparisonOperator"] not in COMPARISONS:
            raise not_supported(f"PutMetricAlarm: ComparisonOperator {alarm['ComparisonOperator']} (anomaly detection)", _VALIDATION)
        if alarm.get("Threshold") is None:
            raise ServiceError("MissingParameter", "The parameter Threshold is required.")
        missing = alarm.get("TreatMissingData")
        if missing is not None and missing not in list(Missing):
            supported = "breaching, notBreaching, ignore, missing"
            raise ServiceError(
                _VALIDATION, f"Option {missing} is not supported. Supported options for parameter TreatMissingData are {supported}."
            )
        low = alarm.get("EvaluateLowSampleCountPercentile")
        if low not in (None, "evaluate", "ignore"):
            raise ServiceError(
                _VALIDATION,
                f"Option {low} is not supported. Supported options for parameter EvaluateLowSampleCountPercentile are evaluate and ignore.",
            )
        if low == "ignore":
            raise not_supported("PutMetricAlarm: EvaluateLowSampleCountPercentile ignore", _VALIDATION)
        wanted = _alarm_stat(alarm)
        if (alarm.get("DatapointsToAlarm") or 1) > alarm["EvaluationPeriods"]:
            raise ServiceError(_VALIDATION, "Datapoints to alarm should be less than or equal to evaluation periods.")
        longest = _LONGEST if wanted.period >= 60 else _LONGEST_SHORT
        if wanted.period * alarm["EvaluationPeriods"] > longest:
            raise ServiceError(
                _VALIDATION,
                f"Metrics cannot be checked across more than {longest // 86_400} day{'s' if longest > 86_400 else ''} (EvaluationPeriods * Period must be <= {longest}).",
            )

    def describe_alarms(self, params: Params) -> Params:
        """DescribeAlarms. There are metric alarms only: an alarm of another type is never found."""
        for member in ("ChildrenOfAlarmName", "ParentsOfAlarmName"):
            if params.get(member):
                raise not_supported(f"DescribeAlarms: {member} (composite alarms)", _VALIDATION)
        if params.get("AlarmNames") and params.get("AlarmNamePrefix"):
            raise ServiceError(_COMBINATION, "AlarmNames and AlarmNamePrefix cannot be specified together.")
        kinds = params.get("AlarmTypes") or ["MetricAlarm"]
        found = [
            alarm
            for alarm in (self.alarms.values() if "MetricAlarm" in kinds else [])
            if (not params.get("AlarmNames") or alarm["AlarmName"] in params["AlarmNames"])
            and alarm["AlarmName"].startswith(params.get("AlarmNamePrefix") or "")
            and params.get("StateValue") in (None, alarm["StateValue"])
            and _acts(alarm, params.get("ActionPrefix"))
        ]
        page, token = _page(found, params.get("NextToken"), params.get("MaxRecords") or 50)
        return {"MetricAlarms": [_visible(alarm) for alarm in page], "CompositeAlarms": []} | token

    def describe_alarms_for_metric(self, params: Params) -> Params:
        """DescribeAlarmsForMetric."""
        metric = metric_of(params["Namespace"], params["MetricName"], params.get("Dimensions"))
        found = []
        for alarm in self.alarms.values():
            wanted = _alarm_stat(alarm)
            asked = {"Period": wanted.period, "Statistic": wanted.stat, "ExtendedStatistic": wanted.stat, "Unit": wanted.unit}
            if wanted.metric == metric and all(params.get(member) in (None, value) for member, value in asked.items()):
                found.append(_visible(alarm))
        return {"MetricAlarms": found}

    def describe_alarm_history(self, params: Params) -> Params:
        """DescribeAlarmHistory."""
        start, end = params.get("StartDate"), params.get("EndDate")
        kinds = params.get("AlarmTypes") or ["MetricAlarm"]
        items = [
            item
            for item in self.alarms.history(params.get("AlarmName"))
            if item["AlarmType"] in kinds
            and params.get("HistoryItemType") in (None, item["HistoryItemType"])
            and (start is None or item["Timestamp"].timestamp() >= _seconds(start))
            and (end is None or item["Timestamp"].timestamp() <= _seconds(end))
        ]
        if params.get("ScanBy") != "TimestampAscending":
            items.reverse()
        page, token = _page(items, params.get("NextToken"), params.get("MaxRecords") or 100)
        return {"AlarmHistoryItems": page} | token

    def delete_alarms(self, params: Params) -> None:
        """DeleteAlarms."""
        for name in params["AlarmNames"]:
            self.alarms.delete(name)

    def set_alarm_state(self, params: Params) -> None:
        """SetAlarmState: holds until the alarm is evaluated next."""
        data = params.get("StateReasonData")
        if data is not None:
            try:
                json.loads(data)
            except ValueError as error:
                raise ServiceError("InvalidFormat", "StateReasonData is not valid JSON") from error
        try:
            self.alarms.set_state(params["AlarmName"], AlarmState(params["StateValue"]), params["StateReason"], data)
        except KeyError as error:
            raise ServiceError("ResourceNotFound", f"Alarm {params['AlarmName']} not found") from error

    def enable_alarm_actions(self, params: Params) -> None:
        """EnableAlarmActions."""
        self._set_actions(params["AlarmNames"], True)

    def disable_alarm_actions(self, params: Params) -> None:
        """DisableAlarmActions."""
        self._set_actions(params["AlarmNames"], False)

    def _set_actions(self, names: list[str], enabled: bool) -> None:
        for name in names:
            if self.alarms.get(name) is not None:
                self.alarms.update(name, ActionsEnabled=enabled)

    # Tags.

    def list_tags_for_resource(self, params: Params) -> Params:
        """ListTagsForResource."""
        alarm = self._tagged(params["ResourceARN"])
        return {"Tags": [{"Key": key, "Value": value} for key, value in alarm["_Tags"].items()]}

    def tag_resource(self, params: Params) -> None:
        """TagResource."""
        alarm = self._tagged(params["ResourceARN"])
        self.alarms.update(alarm["AlarmName"], _Tags=alarm["_Tags"] | {tag["Key"]: tag["Value"] for tag in params["Tags"]})

    def untag_resource(self, params: Params) -> None:
        """UntagResource."""
        alarm = self._tagged(params["ResourceARN"])
        tags = {key: value for key, value in alarm["_Tags"].items() if key not in params["TagKeys"]}
        self.alarms.update(alarm["AlarmName"], _Tags=tags)

    def _tagged(self, arn: str) -> Document:
        alarm = self.alarms.get(arn.partition(":alarm:")[2])
        if alarm is None or alarm["AlarmArn"] != arn:
            raise ServiceError("ResourceNotFoundException", "Unknown")
        return alarm

    # Dashboards.

    def put_dashboard(self, params: Params) -> Params:
        """PutDashboard."""
        try:
            body = json.loads(params["DashboardBody"])
        except ValueError as error:
            message = "The field DashboardBody must be a valid JSON object"
            raise ServiceError("InvalidParameterInput", message) from error
        if not isinstance(body, dict):
            raise ServiceError("InvalidParameterInput", "The field DashboardBody must be a valid JSON object")
        name = params["DashboardName"]
        self._dashboards.put(name, {"Name": name, "Body": params["DashboardBody"], "LastModified": datetime.now(UTC)})
        return {"DashboardValidationMessages": []}

    def get_dashboard(self, params: Params) -> Params:
        """GetDashboard."""
        dashboard = self._dashboards.get(params["DashboardName"])
        if dashboard is None:
            raise ServiceError("ResourceNotFound", f"Dashboard {params['DashboardName']} does not exist")
        return {
            "DashboardArn": self._dashboard_arn(dashboard["Name"]),
            "DashboardBody": dashboard["Body"],
            "DashboardName": dashboard["Name"],
        }

    def list_dashboards(self, params: Params) -> Params:
        """ListDashboards."""
        found = [board for board in self._dashboards.values() if board["Name"].startswith(params.get("DashboardNamePrefix") or "")]
        page, token = _page(found, params.get("NextToken"), 1000)
        entries = [
            {
                "DashboardName": board["Name"],
                "DashboardArn": self._dashboard_arn(board["Name"]),
                "LastModified": board["LastModified"],
                "Size": len(board["Body"].encode()),
            }
            for board in page
        ]
        return {"DashboardEntries": entries} | token

    def delete_dashboards(self, params: Params) -> None:
        """DeleteDashboards: all or none."""
        names = params["DashboardNames"]
        unknown = [name for name in names if name not in self._dashboards]
        if unknown:
            raise ServiceError("ResourceNotFound", f"The specified dashboard does not exist. [{', '.join(unknown)}]")
        for name in names:
            self._dashboards.delete(name)

    def _alarm_arn(self, name: str) -> str:
        return self.cloud.arn("cloudwatch", f"alarm:{name}")

    def _dashboard_arn(self, name: str) -> str:
        return f"arn:aws:cloudwatch::{self.cloud.settings.account_id}:dashboard/{name}"


def _alarm_stat(alarm: Document) -> MetricStat:
    """Return the statistic that an alarm is about.

    Raises:
        ServiceError: It has none, or more than one, or none that is played.
    """
    simple = ("MetricName", "Namespace", "Statistic", "ExtendedStatistic", "Period", "Dimensions", "Unit")
    if alarm.get("Metrics"):
        both = [member for member in simple if alarm.get(member)]
        if both:
            raise ServiceError(_COMBINATION, f"The parameters Metrics and {both[0]} are mutually exclusive and you have specified both.")
        queries = read_queries(alarm["Metrics"])
        returned = [query["Id"] for query in alarm["Metrics"] if query.get("ReturnData", True)]
        if len(returned) != 1:
            raise ServiceError(_VALIDATION, "Exactly one element of the metrics list should return data.")
        return queries[returned[0]]
    for member in ("MetricName", "Namespace", "Period"):
        if not alarm.get(member):
            raise ServiceError("MissingParameter", f"The parameter {member} is required.")
    if bool(alarm.get("Statistic")) == bool(alarm.get("ExtendedStatistic")):
        raise ServiceError(_COMBINATION, "Exactly one of Statistic and ExtendedStatistic must be specified.")
    metric = {"Namespace": alarm["Namespace"], "MetricName": alarm["MetricName"], "Dimensions": alarm.get("Dimensions")}
    stat = alarm.get("Statistic") or alarm["ExtendedStatistic"]
    return metric_stat({"Metric": metric, "Period": alarm["Period"], "Stat": stat, "Unit": alarm.get("Unit")})


def _acts(alarm: Document, prefix: str | None) -> bool:
    actions = (arn for member in ("OKActions", "AlarmActions", "InsufficientDataActions") for arn in alarm[member])
    return prefix is None or any(arn.startswith(prefix) for arn in actions)


def _visible(alarm: Document) -> Params:
    return {member: value for member, value in alarm.items() if not member.startswith("_") and value is not None}


def _label(wanted: MetricStat, queries: Sequence[Params]) -> str:
    # As the console: what tells the graphs of a request apart.
    stats = {query["MetricStat"]["Stat"] for query in queries if query.get("MetricStat")}
    return wanted.metric.name if len(stats) == 1 else f"{wanted.metric.name} {wanted.stat}"


def _span(params: Params, period: int) -> tuple[int, int]:
    """Return StartTime, rounded down as AWS does, and EndTime in seconds since 1970."""
    start, end = _seconds(params["StartTime"]), _seconds(params["EndTime"])
    if start >= end:
        raise ServiceError(_VALIDATION, "The parameter StartTime must be less than the parameter EndTime.")
    return int(start) - int(start) % min(period, 60), math.ceil(end)


def _seconds(moment: datetime) -> float:
    # moto parses times to UTC without a zone.
    return (moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment).timestamp()


def _page(found: Sequence[Any], token: str | None, size: int) -> tuple[Sequence[Any], Params]:
    try:
        start = int(base64.urlsafe_b64decode(token)) if token else 0
    except (binascii.Error, ValueError) as error:
        raise ServiceError("InvalidNextToken", "The provided token is not valid") from error
    end = start + size
    rest = {"NextToken": base64.urlsafe_b64encode(str(end).encode()).decode()} if end < len(found) else {}
    return found[start:end], rest
