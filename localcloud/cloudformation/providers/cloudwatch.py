"""AWS::CloudWatch."""

from __future__ import annotations

from typing import Any, ClassVar

from botocore.exceptions import ClientError

from localcloud.cloudformation.provider import Context, NameRule, Properties, Provider, TagStyle, tag_changes, tag_list
from localcloud.cloudformation.schema import BOOLEAN, INTEGER, NUMBER, STRING, STRINGS, TAG_LIST, ListOf, Object

Json = Any

_DIMENSIONS = ListOf(Object({"Name": STRING, "Value": STRING}, required=("Name", "Value")))
_METRIC = Object({"Dimensions": _DIMENSIONS, "MetricName": STRING, "Namespace": STRING})
_METRIC_STAT = Object({"Metric": _METRIC, "Period": INTEGER, "Stat": STRING, "Unit": STRING}, required=("Metric", "Period", "Stat"))


class Alarm(Provider):
    """AWS::CloudWatch::Alarm."""

    type: ClassVar[str] = "AWS::CloudWatch::Alarm"
    schema: ClassVar[Object] = Object(
        {
            "ActionsEnabled": BOOLEAN,
            "AlarmActions": STRINGS,
            "AlarmDescription": STRING,
            "AlarmName": STRING,
            "ComparisonOperator": STRING,
            "DatapointsToAlarm": INTEGER,
            "Dimensions": _DIMENSIONS,
            "EvaluateLowSampleCountPercentile": STRING,
            "EvaluationPeriods": INTEGER,
            "ExtendedStatistic": STRING,
            "InsufficientDataActions": STRINGS,
            "MetricName": STRING,
            "Metrics": ListOf(
                Object(
                    {
                        "Expression": STRING,
                        "Id": STRING,
                        "Label": STRING,
                        "MetricStat": _METRIC_STAT,
                        "Period": INTEGER,
                        "ReturnData": BOOLEAN,
                    },
                    required=("Id",),
                )
            ),
            "Namespace": STRING,
            "OKActions": STRINGS,
            "Period": INTEGER,
            "Statistic": STRING,
            "Tags": TAG_LIST,
            "Threshold": NUMBER,
            "ThresholdMetricId": STRING,
            "TreatMissingData": STRING,
            "Unit": STRING,
        }
    )
    replaced_by: ClassVar[frozenset[str]] = frozenset(("AlarmName",))
    attributes: ClassVar[frozenset[str]] = frozenset(("Arn",))
    name: ClassVar[NameRule] = NameRule("AlarmName", 255)
    tags: ClassVar[TagStyle | None] = TagStyle.LIST

    def exists(self, context: Context, name: str, properties: Properties) -> bool:
        """Return whether there is an alarm of this name."""
        return bool(context.clients("cloudwatch").describe_alarms(AlarmNames=[name])["MetricAlarms"])

    def create(self, context: Context, name: str, properties: Properties) -> str:
        """Put the alarm."""
        request = {key: value for key, value in properties.items() if key not in ("AlarmName", "Tags")}
        tags = properties.get("Tags")
        context.clients("cloudwatch").put_metric_alarm(AlarmName=name, **request, **({"Tags": tags} if tags else {}))
        return name

    def update(self, context: Context, physical_id: str, old: Properties, new: Properties) -> None:
        """Put the alarm anew, which sets everything, and change its tags."""
        client = context.clients("cloudwatch")
        self.create(context, physical_id, {key: value for key, value in new.items() if key != "Tags"})
        arn = self.attributes_of(context, physical_id, new)["Arn"]
        to_set, to_remove = tag_changes(old, new)
        if to_set:
            client.tag_resource(ResourceARN=arn, Tags=tag_list(to_set))
        if to_remove:
            client.untag_resource(ResourceARN=arn, TagKeys=to_remove)

    def attributes_of(self, context: Context, physical_id: str, properties: Properties) -> dict[str, Json]:
        """Return the ARN."""
        return {"Arn": context.place.arn("cloudwatch", f"alarm:{physical_id}")}

    def delete(self, context: Context, physical_id: str, properties: Properties) -> None:
        """Delete the alarm."""
        context.clients("cloudwatch").delete_alarms(AlarmNames=[physical_id])


class Dashboard(Provider):
    """AWS::CloudWatch::Dashboard."""

    type: ClassVar[str] = "AWS::CloudWatch::Dashboard"
    schema: ClassVar[Object] = Object({"DashboardBody": STRING, "DashboardName": STRING}, required=("DashboardBody",))
    replaced_by: ClassVar[frozenset[str]] = frozenset(("DashboardName",))
    name: ClassVar[NameRule] = NameRule("DashboardName", 255)

    def exists(self, context: Context, name: str, properties: Properties) -> bool:
        """Return whether there is a dashboard of this name."""
        try:
            context.clients("cloudwatch").get_dashboard(DashboardName=name)
        except ClientError as error:
            if error.response["Error"]["Code"] in ("ResourceNotFound", "DashboardNotFoundError"):
                return False
            raise
        return True

    def create(self, context: Context, name: str, properties: Properties) -> str:
        """Put the dashboard."""
        context.clients("cloudwatch").put_dashboard(DashboardName=name, DashboardBody=properties["DashboardBody"])
        return name

    def update(self, context: Context, physical_id: str, old: Properties, new: Properties) -> None:
        """Put the new body."""
        self.create(context, physical_id, new)

    def delete(self, context: Context, physical_id: str, properties: Properties) -> None:
        """Delete the dashboard."""
        context.clients("cloudwatch").delete_dashboards(DashboardNames=[physical_id])
