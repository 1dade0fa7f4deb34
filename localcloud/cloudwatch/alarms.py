"""Alarms: evaluated when a minute (or, for short periods, ten seconds) ends, with their history, and what a change of state sets off.

Between two evaluations nothing runs. While a deployment watches its alarms they are evaluated whenever it looks, over periods that are shorter by the factor
by which its own waits are.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from localcloud.cloudwatch import messages
from localcloud.cloudwatch.evaluation import EXTRA_POINTS, AlarmState, Condition, Missing, Point, Verdict, evaluate
from localcloud.cloudwatch.queries import metric_stat, read_values
from localcloud.cloudwatch.store import MetricStore
from localcloud.errors import ServiceError
from localcloud.iam.keys import service_may_use
from localcloud.iam.trust import ServiceCall, allows
from localcloud.messaging import MessageRefused, key_of_mailbox, publish_to_topic, topic_policy

if TYPE_CHECKING:
    from localcloud.cloud import Cloud
    from localcloud.database import Document

log = logging.getLogger(__name__)

#: Seconds between two evaluations of alarms with a period of a minute or more, and of the others.
_LONG, _SHORT = 60, 10
#: Seconds after the end of a period until it is evaluated, so that what has just happened is in it.
_GRACE = 0.5
#: Items kept of each alarm's history; AWS keeps them for 30 days.
_HISTORY = 200
_TOPICS, _FUNCTIONS = "cloudwatch.amazonaws.com", "lambda.alarms.cloudwatch.amazonaws.com"
_ACTIONS = {AlarmState.OK: "OKActions", AlarmState.ALARM: "AlarmActions", AlarmState.INSUFFICIENT_DATA: "InsufficientDataActions"}


class ActionFailed(Exception):
    """Indicates that an alarm's action could not be taken."""


class Watch:
    """A deployment's look at its alarms."""

    def __init__(self, alarms: Alarms, names: list[str], factor: float) -> None:
        self._alarms = alarms
        self.names = names
        self.factor = factor
        self.tripped: str | None = None

    def alarm(self) -> str | None:
        """Evaluate the alarms; return the first that is, or since the watch began has been, in the ALARM state."""
        for name in self.names:
            if self.tripped is None and self.factor < 1:
                self._alarms.evaluate(name, time.time())
        return self.tripped


class Alarms:
    """The alarms of the region.

    Args:
        cloud: The region.
        store: The samples of the metrics.
        every_minute: Called at the end of each minute, before alarms are evaluated, for what is measured by looking.
    """

    def __init__(self, cloud: Cloud, store: MetricStore, every_minute: Callable[[], None]) -> None:
        self._cloud = cloud
        self._store = store
        self._every_minute = every_minute
        self._table = cloud.db.table("cloudwatch.alarms")
        self._history = cloud.db.table("cloudwatch.alarm-history")
        self._watches: list[Watch] = []
        self._changed = asyncio.Event()

    def start(self) -> None:
        """Begin to evaluate."""
        self._cloud.background.spawn(self._run())

    # What there is.

    def get(self, name: str) -> Document | None:
        """Return an alarm, or None."""
        return self._table.get(name)

    def values(self) -> list[Document]:
        """Return all alarms, by name."""
        return self._table.values()

    def history(self, name: str | None = None) -> list[Document]:
        """Return the items of an alarm's history, or of every alarm's, the oldest first."""
        names = list(self._history) if name is None else [name]
        items = [item for key in names for item in (self._history.get(key) or {"Items": []})["Items"]]
        return sorted(items, key=lambda item: item["Timestamp"])

    def put(self, alarm: Document) -> None:
        """Make an alarm, or give it another configuration: its state stays until it is evaluated next."""
        name = alarm["AlarmName"]
        with self._table.lock():
            before = self._table.get(name)
            kept = ("StateValue", "StateReason", "StateReasonData", "StateUpdatedTimestamp", "StateTransitionedTimestamp", "_Tags")
            if before is None:
                state: Document = {
                    "StateValue": AlarmState.INSUFFICIENT_DATA, "StateReason": "Unchecked: Initial alarm creation", "StateReasonData": None,
                    "StateUpdatedTimestamp": _now(), "StateTransitionedTimestamp": _now(),
                }  # fmt: skip
            else:
                state = {member: before[member] for member in kept}
            self._table.put(name, alarm | state)
        what = "created" if before is None else "updated"
        self._remember(
            name, "ConfigurationUpdate", f'Alarm "{name}" {what}', {"version": "1.0", "type": what.removesuffix("d").capitalize()}
        )
        self._cloud.background.loop.call_soon_threadsafe(self._changed.set)

    def update(self, name: str, **changes: Any) -> None:
        """Change members of an alarm that say nothing about what it waits for."""
        self._table.update(name, **changes)

    def delete(self, name: str) -> None:
        """Delete an alarm; its history stays."""
        if name in self._table:
            self._table.delete(name)
            self._remember(name, "ConfigurationUpdate", f'Alarm "{name}" deleted', {"version": "1.0", "type": "Delete"})

    def set_state(self, name: str, state: AlarmState, reason: str, data: str | None) -> None:
        """Put an alarm into a state, until it is evaluated next, and do what that sets off.

        Raises:
            KeyError: There is no such alarm.
        """
        with self._table.lock():
            before = self._table.get(name)
            if before is None:
                raise KeyError(name)
            present = _now()
            changes: Document = {"StateValue": state, "StateReason": reason, "StateReasonData": data, "StateUpdatedTimestamp": present}
            if before["StateValue"] != state:
                changes["StateTransitionedTimestamp"] = present
            after = self._table.update(name, **changes)
        if state is AlarmState.ALARM:
            for watch in list(self._watches):
                if name in watch.names:
                    watch.tripped = watch.tripped or name
        if before["StateValue"] != state:
            self._tell(before, after)

    # Evaluating.

    @contextlib.contextmanager
    def watch(self, names: Iterable[str], factor: float) -> Iterator[Watch]:
        """Watch alarms, with periods that last *factor* times what they say."""
        watch = Watch(self, list(names), factor)
        alarms = [self._table.get(name) for name in watch.names]
        watch.tripped = next((alarm["AlarmName"] for alarm in alarms if alarm and alarm["StateValue"] == AlarmState.ALARM), None)
        self._watches.append(watch)
        try:
            yield watch
        finally:
            self._watches.remove(watch)

    def evaluate(self, name: str, at: float) -> None:
        """Evaluate an alarm as of *at* (seconds since 1970)."""
        alarm = self._table.get(name)
        if alarm is None:
            return
        factor = min((watch.factor for watch in self._watches if name in watch.names), default=1.0)
        [query] = [query for query in messages.queries_of(alarm) if query.get("ReturnData", True)]
        wanted = metric_stat(query["MetricStat"])
        period = wanted.period if factor >= 1 else max(1, round(wanted.period * factor))
        # Standard alarms slide by the minute, whatever their period; short periods follow each other.
        step = min(period, _LONG)
        end = int(at) - int(at) % step
        count = alarm["EvaluationPeriods"] + EXTRA_POINTS
        start = end - count * period
        found = read_values(self._store, wanted, start, end, period)
        points = [Point(start + number * period, *found[number]) if number in found else None for number in range(count - 1, -1, -1)]
        condition = Condition(
            alarm["ComparisonOperator"], alarm["Threshold"], alarm["EvaluationPeriods"], alarm.get("DatapointsToAlarm"),
            Missing(alarm.get("TreatMissingData") or "missing"),
        )  # fmt: skip
        verdict = evaluate(condition, points)
        if verdict is not None and verdict.state != alarm["StateValue"]:
            with contextlib.suppress(KeyError):  # deleted meanwhile
                self.set_state(name, verdict.state, verdict.reason, _reason_data(alarm, query["MetricStat"], verdict))

    def tick(self, at: int) -> None:
        """Evaluate the alarms that are due at *at* (seconds since 1970)."""
        if at % _LONG == 0:
            self._every_minute()
        for alarm in self._table.values():
            short = _period(alarm) < _LONG
            watched = any(alarm["AlarmName"] in watch.names and watch.factor < 1 for watch in self._watches)
            if not watched and at % (_SHORT if short else _LONG) == 0:
                self.evaluate(alarm["AlarmName"], at)

    async def _run(self) -> None:
        while True:
            step = _SHORT if any(_period(alarm) < _LONG for alarm in self._table.values()) else _LONG
            present = time.time()
            due = (int(present) // step + 1) * step
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), due + _GRACE - present)
                continue
            try:
                await asyncio.to_thread(self.tick, due)
            except Exception:  # what one evaluation trips over must not end them all
                log.exception("alarms could not be evaluated")

    # What a change of state sets off.

    def _tell(self, before: Document, after: Document) -> None:
        name, old = after["AlarmName"], messages.state_of(before)
        data = {"version": "1.0", "oldState": _history_state(before), "newState": _history_state(after)}
        self._remember(name, "StateUpdate", f"Alarm updated from {before['StateValue']} to {after['StateValue']}", data)
        detail = messages.state_change(after, old)
        self._cloud.emit("aws.cloudwatch", "CloudWatch Alarm State Change", detail, [after["AlarmArn"]])
        actions = after[_ACTIONS[AlarmState(after["StateValue"])]]
        if actions and after["ActionsEnabled"]:
            self._cloud.background.spawn(asyncio.to_thread(self._act, after, old, actions))

    def _act(self, alarm: Document, before: messages.Json, actions: list[str]) -> None:
        for arn in actions:
            try:
                self._do(arn, alarm, before)
            except (ActionFailed, MessageRefused, ServiceError) as error:
                log.warning("The alarm %s could not do %s: %s", alarm["AlarmName"], arn, error)
                summary, state = f"Failed to execute action {arn}. Received error: {error}", {"actionState": "Failed", "error": str(error)}
            else:
                summary, state = f"Successfully executed action {arn}", {"actionState": "Succeeded"}
            moment = int(alarm["StateUpdatedTimestamp"].timestamp() * 1000)
            self._remember(
                alarm["AlarmName"], "Action", summary[:255], state | {"stateUpdateTimestamp": moment, "notificationResource": arn}
            )

    def _do(self, arn: str, alarm: Document, before: messages.Json) -> None:
        settings = self._cloud.settings
        if ":lambda:" in arn:
            functions: Any = self._cloud.services["lambda"]
            if not functions.may_invoke(arn, _FUNCTIONS, alarm["AlarmArn"]):
                raise ActionFailed(f"CloudWatch Alarms is not authorized to perform: lambda:InvokeFunction on the resource: {arn}")
            event = messages.function_event(alarm, before, settings.account_id, settings.region)
            functions.invoke_function(arn, json.dumps(event).encode(), "Event")
            return
        call = ServiceCall(_TOPICS, "sns:Publish", arn, alarm["AlarmArn"], settings.account_id, source_owner=settings.account_id)
        if not allows(topic_policy(self._cloud, arn), call):
            raise ActionFailed(f"CloudWatch Alarms is not authorized to perform: SNS:Publish on resource: {arn}")
        if not service_may_use(settings.account_id, settings.region, call, key_of_mailbox(self._cloud, arn)):
            raise ActionFailed("CloudWatch Alarms does not have authorization to access the SNS topic encryption key.")
        message = messages.topic_message(alarm, before, settings.account_id, settings.region)
        publish_to_topic(self._cloud, arn, json.dumps(message), messages.topic_subject(alarm, settings.region))

    def _remember(self, name: str, kind: str, summary: str, data: messages.Json) -> None:
        item = {
            "AlarmName": name, "AlarmType": "MetricAlarm", "Timestamp": _now(), "HistoryItemType": kind, "HistorySummary": summary,
            "HistoryData": json.dumps(data)[:4095],
        }  # fmt: skip
        with self._history.lock():
            items = (self._history.get(name) or {"Items": []})["Items"]
            self._history.put(name, {"Items": [*items, item][-_HISTORY:]})


def check_action(cloud: Cloud, arn: str) -> None:
    """Refuse an action that is not played here.

    Raises:
        ServiceError: It is neither a topic nor a function of this region.
    """
    parts = arn.split(":")
    topic = len(parts) == 6 and parts[2] == "sns"
    function = len(parts) in (7, 8) and parts[2] == "lambda" and parts[5] == "function"
    if parts[0] != "arn" or len(parts) < 6:
        raise ServiceError("ValidationError", f"Invalid arn syntax: {arn}")
    if not (topic or function) or parts[3] != cloud.settings.region or parts[4] != cloud.settings.account_id:
        message = f"The alarm action {arn} is not supported by localcloud (supported: SNS topics and Lambda functions of the region)"
        raise ServiceError("ValidationError", message)


def _period(alarm: Document) -> int:
    [query] = [query for query in messages.queries_of(alarm) if query.get("ReturnData", True)]
    return int(query["MetricStat"]["Period"])


def _now() -> datetime:
    present = datetime.now(UTC)
    return present.replace(microsecond=present.microsecond // 1000 * 1000)


def _history_state(alarm: Document) -> messages.Json:
    state = {"stateValue": alarm["StateValue"], "stateReason": alarm["StateReason"]}
    return state | ({"stateReasonData": json.loads(alarm["StateReasonData"])} if alarm.get("StateReasonData") else {})


def _reason_data(alarm: Document, stat: messages.Json, verdict: Verdict) -> str:
    data: messages.Json = {"version": "1.0", "queryDate": messages.timestamp(_now())}
    if verdict.points:
        data["startDate"] = _moment(verdict.points[-1].at)
    data["statistic" if alarm.get("Statistic") else "extendedStatistic" if alarm.get("ExtendedStatistic") else "stat"] = stat["Stat"]
    data |= {"period": stat["Period"]} | ({"unit": stat["Unit"]} if stat.get("Unit") else {})
    data["recentDatapoints"] = [point.value for point in reversed(verdict.points)]
    data["threshold"] = alarm["Threshold"]
    data["evaluatedDatapoints"] = [
        {"timestamp": _moment(point.at), "sampleCount": point.samples, "value": point.value} for point in verdict.points
    ]
    text = json.dumps(data)
    while len(text) > 4000:  # StateReasonData's longest
        data["evaluatedDatapoints"].pop()
        data["recentDatapoints"].pop(0)
        text = json.dumps(data)
    return text


def _moment(at: float) -> str:
    return messages.timestamp(datetime.fromtimestamp(at, UTC))
