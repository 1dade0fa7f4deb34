"""The EventBridge API, and the way of an event from its source to the rules that match it."""

from __future__ import annotations

import asyncio
import json
import logging
import uuid
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from localcloud.errors import ServiceError, not_supported
from localcloud.eventbridge import s3_events
from localcloud.eventbridge.delivery import Deliveries
from localcloud.eventbridge.patterns import InvalidPattern, compile_pattern
from localcloud.eventbridge.schedules import InvalidSchedule, parse_schedule
from localcloud.eventbridge.targets import Senders, check_target
from localcloud.service import Params, Service

if TYPE_CHECKING:
    from localcloud.cloud import Cloud
    from localcloud.database import Document

log = logging.getLogger(__name__)

DEFAULT_BUS = "default"
#: Bytes of all entries of one PutEvents request (https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-putevents.html).
MAX_REQUEST_BYTES = 1 << 20
MAX_TARGETS = 5
_INVALID = "ValidationException"
_NOT_FOUND = "ResourceNotFoundException"
_ENVELOPE = ("id", "account", "source", "time", "region", "resources", "detail-type")


class EventBridgeService(Service):
    """Amazon EventBridge. AWS services' own events come in through `emit`."""

    name = "events"

    def __init__(self, cloud: Cloud) -> None:
        super().__init__(cloud)
        self._rules = cloud.db.table("events.rules")
        self._buses = cloud.db.table("events.buses")
        self._deliveries = Deliveries(cloud, Senders(cloud, self._forward))
        self._active: dict[str, list[Document]] | None = None
        self._timers: dict[str, asyncio.Task[None]] = {}
        self._remove_seam: Callable[[], None] | None = None

    def start(self) -> None:
        """Make the default bus, take over S3's events, go on with deliveries and schedules."""
        if DEFAULT_BUS not in self._buses:
            self._buses.put(DEFAULT_BUS, self._new_bus(DEFAULT_BUS, {}))
        self._remove_seam = s3_events.install(self)
        self._deliveries.start()
        for rule in self._rules.values():
            self._schedule(rule)

    def stop(self) -> None:
        """Give S3's events back to moto."""
        if self._remove_seam is not None:
            self._remove_seam()

    # Events

    def emit(self, source: str, detail_type: str, detail: dict[str, Any], resources: Iterable[str] = (), bus: str = DEFAULT_BUS) -> str:
        """Put an event on a bus as an AWS service does; return its id. Delivery happens in the background.

        Raises:
            ServiceError: There is no such bus.
        """
        return self._publish(bus, self._event(source, detail_type, detail, resources, datetime.now(UTC)))

    def put_events(self, params: Params) -> dict[str, Any]:
        """PutEvents."""
        if params.get("EndpointId"):
            raise not_supported("EndpointId")
        if sum(_entry_size(entry) for entry in params["Entries"]) > MAX_REQUEST_BYTES:
            raise ServiceError(_INVALID, "Total size of the entries in the request is over the limit.")
        results = [self._put_entry(entry) for entry in params["Entries"]]
        return {"Entries": results, "FailedEntryCount": sum("ErrorCode" in result for result in results)}

    def _put_entry(self, entry: dict[str, Any]) -> dict[str, Any]:
        for member in ("Source", "DetailType", "Detail"):
            if not entry.get(member):
                return _entry_error("InvalidArgument", f"Parameter {member} is not valid. Reason: {member} is a required argument.")
        if entry["Source"].startswith("aws."):
            return _entry_error("NotAuthorizedForSourceException", "Not authorized for the source.")
        try:
            detail = json.loads(entry["Detail"])
        except ValueError:
            detail = None
        if not isinstance(detail, dict):
            return _entry_error("MalformedDetail", "Detail is malformed.")
        event = self._event(
            entry["Source"], entry["DetailType"], detail, entry.get("Resources", []), entry.get("Time") or datetime.now(UTC)
        )
        try:
            return {"EventId": self._publish(entry.get("EventBusName") or DEFAULT_BUS, event)}
        except ServiceError as error:
            return _entry_error(error.code, error.message)

    def test_event_pattern(self, params: Params) -> dict[str, Any]:
        """TestEventPattern."""
        try:
            event = json.loads(params["Event"])
        except ValueError as error:
            raise ServiceError(_INVALID, f"Parameter Event is not valid. Reason: {error}") from error
        missing = [member for member in _ENVELOPE if not isinstance(event, dict) or member not in event]
        if missing:
            raise ServiceError(_INVALID, f"Parameter Event is not valid. Reason: Missing required field: {missing[0]}.")
        return {"Result": _pattern(params["EventPattern"]).matches(event)}

    def _event(self, source: str, detail_type: str, detail: dict[str, Any], resources: Iterable[str], time: datetime) -> dict[str, Any]:
        return {
            "version": "0",
            "id": str(uuid.uuid4()),
            "detail-type": detail_type,
            "source": source,
            "account": self.cloud.settings.account_id,
            "time": time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "region": self.cloud.settings.region,
            "resources": list(resources),
            "detail": detail,
        }

    def _forward(self, bus: str, event: dict[str, Any]) -> None:
        self._publish(bus, event)

    def _publish(self, bus: str, event: dict[str, Any]) -> str:
        rules = self._active_rules().get(self._bus_name(bus))
        if not rules:
            return str(event["id"])
        # As the event will arrive: a detail of Python values becomes JSON before it is matched.
        event = json.loads(json.dumps(event, default=str))
        for rule in rules:
            if compile_pattern(rule["EventPattern"]).matches(event):
                for target in rule["Targets"]:
                    self._deliveries.put(rule, target, event)
        return str(event["id"])

    def _active_rules(self) -> dict[str, list[Document]]:
        active = self._active
        if active is None:
            with self._rules.lock():
                active = {}
                for rule in self._rules.values():
                    if rule.get("EventPattern") and rule["State"] != "DISABLED":
                        active.setdefault(rule["EventBusName"], []).append(rule)
                self._active = active
        return active

    # Schedules

    def _schedule(self, rule: Document) -> None:
        self.cloud.background.submit(self._set_timer(rule))

    async def _set_timer(self, rule: Document) -> None:
        timer = self._timers.pop(rule["Arn"], None)
        if timer is not None:
            timer.cancel()
        if rule.get("ScheduleExpression") and rule["State"] != "DISABLED":
            self._timers[rule["Arn"]] = asyncio.get_running_loop().create_task(self._fire_for_ever(rule["Arn"], rule["ScheduleExpression"]))

    async def _fire_for_ever(self, rule_arn: str, expression: str) -> None:
        schedule = parse_schedule(expression)
        due = schedule.next_after(datetime.now(UTC))
        while due is not None:
            await asyncio.sleep(max(0.0, (due - datetime.now(UTC)).total_seconds()))
            rule = self._rules.get(self._key(DEFAULT_BUS, rule_arn.rpartition("/")[2]))
            if rule is None:
                return
            event = self._event("aws.events", "Scheduled Event", {}, [rule_arn], due)
            for target in rule["Targets"]:
                await asyncio.to_thread(self._deliveries.put, rule, target, event)
            due = schedule.next_after(max(due, datetime.now(UTC)))

    # Rules

    def put_rule(self, params: Params) -> dict[str, Any]:
        """PutRule."""
        bus = self._bus_name(params.get("EventBusName"))
        if not params.get("EventPattern") and not params.get("ScheduleExpression"):
            raise ServiceError(_INVALID, "Parameter(s) EventPattern or ScheduleExpression must be specified.")
        if params.get("EventPattern"):
            _pattern(params["EventPattern"])
        if params.get("ScheduleExpression"):
            if bus != DEFAULT_BUS:
                raise ServiceError(_INVALID, "ScheduleExpression is supported only on the default event bus.")
            try:
                parse_schedule(params["ScheduleExpression"])
            except InvalidSchedule as error:
                raise ServiceError(_INVALID, "Parameter ScheduleExpression is not valid.") from error
        with self._rules.lock():
            current = self._rules.get(self._key(bus, params["Name"])) or {}
            members = ("Name", "EventPattern", "ScheduleExpression", "Description", "RoleArn")
            path = params["Name"] if bus == DEFAULT_BUS else f"{bus}/{params['Name']}"
            rule: Document = {
                "Arn": self.cloud.arn("events", f"rule/{path}"),
                "EventBusName": bus,
                "State": params.get("State", "ENABLED"),
                "CreatedBy": self.cloud.settings.account_id,
                "Targets": current.get("Targets", []),
                # AWS ignores the tags of a rule that exists.
                "Tags": current.get("Tags", params.get("Tags", [])),
            } | {member: params[member] for member in members if params.get(member)}
            self._save(rule)
        return {"RuleArn": rule["Arn"]}

    def describe_rule(self, params: Params) -> dict[str, Any]:
        """DescribeRule."""
        return _shown(self._rule(params["Name"], params))

    def list_rules(self, params: Params) -> dict[str, Any]:
        """ListRules."""
        bus, prefix = self._bus_name(params.get("EventBusName")), params.get("NamePrefix", "")
        rules = [rule for rule in self._rules.values() if rule["EventBusName"] == bus and rule["Name"].startswith(prefix)]
        shown = [{member: value for member, value in _shown(rule).items() if member != "CreatedBy"} for rule in rules]
        return _page(shown, "Rules", params)

    def list_rule_names_by_target(self, params: Params) -> dict[str, Any]:
        """ListRuleNamesByTarget."""
        bus = self._bus_name(params.get("EventBusName"))
        rules = [rule for rule in self._rules.values() if rule["EventBusName"] == bus]
        names = [rule["Name"] for rule in rules if any(target["Arn"] == params["TargetArn"] for target in rule["Targets"])]
        return _page(names, "RuleNames", params)

    def enable_rule(self, params: Params) -> None:
        """EnableRule."""
        with self._rules.lock():
            self._save(self._rule(params["Name"], params) | {"State": "ENABLED"})

    def disable_rule(self, params: Params) -> None:
        """DisableRule."""
        with self._rules.lock():
            self._save(self._rule(params["Name"], params) | {"State": "DISABLED"})

    def delete_rule(self, params: Params) -> None:
        """DeleteRule; deleting a missing one succeeds, as on AWS."""
        bus = self._bus_name(params.get("EventBusName"))
        with self._rules.lock():
            rule = self._rules.get(self._key(bus, params["Name"]))
            if rule is None:
                return
            if rule["Targets"]:
                raise ServiceError(_INVALID, "Rule can't be deleted since it has targets.")
            self._rules.delete(self._key(bus, params["Name"]))
            self._active = None
        self._schedule(rule | {"State": "DISABLED"})

    def put_targets(self, params: Params) -> dict[str, Any]:
        """PutTargets: all of them or none."""
        for target in params["Targets"]:
            check_target(self.cloud, target)
        with self._rules.lock():
            rule = self._rule(params["Rule"], params)
            targets = {target["Id"]: target for target in rule["Targets"]} | {target["Id"]: target for target in params["Targets"]}
            if len(targets) > MAX_TARGETS:
                raise ServiceError("LimitExceededException", "The requested resource exceeds the maximum number allowed.")
            self._save(rule | {"Targets": list(targets.values())})
        return {"FailedEntryCount": 0, "FailedEntries": []}

    def remove_targets(self, params: Params) -> dict[str, Any]:
        """RemoveTargets."""
        with self._rules.lock():
            rule = self._rule(params["Rule"], params)
            known = {target["Id"] for target in rule["Targets"]}
            failed = [
                {
                    "TargetId": identifier,
                    "ErrorCode": _NOT_FOUND,
                    "ErrorMessage": f"Rule {rule['Name']} does not have a target with the Id {identifier}.",
                }
                for identifier in params["Ids"]
                if identifier not in known
            ]
            self._save(rule | {"Targets": [target for target in rule["Targets"] if target["Id"] not in params["Ids"]]})
        return {"FailedEntryCount": len(failed), "FailedEntries": failed}

    def list_targets_by_rule(self, params: Params) -> dict[str, Any]:
        """ListTargetsByRule."""
        return _page(self._rule(params["Rule"], params)["Targets"], "Targets", params)

    def _rule(self, name: str, params: Params) -> Document:
        bus = self._bus_name(params.get("EventBusName"))
        rule = self._rules.get(self._key(bus, name))
        if rule is None:
            raise ServiceError(_NOT_FOUND, f"Rule {name} does not exist on EventBus {bus}.")
        return rule

    def _save(self, rule: Document) -> None:
        self._rules.put(self._key(rule["EventBusName"], rule["Name"]), rule)
        self._active = None
        self._schedule(rule)

    @staticmethod
    def _key(bus: str, name: str) -> str:
        return f"{bus}|{name}"

    # Buses

    def create_event_bus(self, params: Params) -> dict[str, Any]:
        """CreateEventBus."""
        if params.get("EventSourceName"):
            raise not_supported("A partner event bus (EventSourceName)")
        if "/" in params["Name"]:
            raise ServiceError(_INVALID, "Event bus name must not contain '/'.")
        with self._buses.lock():
            if params["Name"] in self._buses:
                raise ServiceError("ResourceAlreadyExistsException", f"Event bus {params['Name']} already exists.")
            bus = self._new_bus(params["Name"], params)
            self._buses.put(params["Name"], bus)
        return {"EventBusArn": bus["Arn"]} | {
            member: bus[member] for member in ("Description", "KmsKeyIdentifier", "DeadLetterConfig") if member in bus
        }

    def _new_bus(self, name: str, params: Params) -> Document:
        now = datetime.now(UTC)
        bus: Document = {
            "Name": name,
            "Arn": self.cloud.arn("events", f"event-bus/{name}"),
            "CreationTime": now,
            "LastModifiedTime": now,
            "Statements": [],
        }
        return bus | {
            member: params[member] for member in ("Description", "KmsKeyIdentifier", "DeadLetterConfig", "Tags") if member in params
        }

    def describe_event_bus(self, params: Params) -> dict[str, Any]:
        """DescribeEventBus."""
        return self._shown_bus(self._buses.get(self._bus_name(params.get("Name"))) or {})

    def list_event_buses(self, params: Params) -> dict[str, Any]:
        """ListEventBuses."""
        prefix = params.get("NamePrefix", "")
        return _page([self._shown_bus(bus) for bus in self._buses.values() if bus["Name"].startswith(prefix)], "EventBuses", params)

    def delete_event_bus(self, params: Params) -> None:
        """DeleteEventBus; deleting a missing one succeeds, as on AWS."""
        if params["Name"] == DEFAULT_BUS:
            raise ServiceError(_INVALID, "Cannot delete event bus default.")
        with self._rules.lock():
            if any(rule["EventBusName"] == params["Name"] for rule in self._rules.values()):
                raise ServiceError(_INVALID, "Event bus can't be deleted since it has rules.")
            self._buses.delete(params["Name"])

    def put_permission(self, params: Params) -> None:
        """PutPermission: recorded; there is only one account."""
        name = self._bus_name(params.get("EventBusName"))
        with self._buses.lock():
            bus = self._buses.get(name) or {}
            if params.get("Policy"):
                statements = json.loads(params["Policy"])["Statement"]
            else:
                statement = {
                    "Sid": params["StatementId"],
                    "Effect": "Allow",
                    "Principal": "*" if params["Principal"] == "*" else {"AWS": f"arn:aws:iam::{params['Principal']}:root"},
                    "Action": params["Action"],
                    "Resource": bus["Arn"],
                }
                statements = [kept for kept in bus["Statements"] if kept["Sid"] != params["StatementId"]] + [statement]
            self._buses.update(name, Statements=statements)

    def remove_permission(self, params: Params) -> None:
        """RemovePermission."""
        name = self._bus_name(params.get("EventBusName"))
        with self._buses.lock():
            statements = (self._buses.get(name) or {})["Statements"]
            kept = [] if params.get("RemoveAllPermissions") else [kept for kept in statements if kept["Sid"] != params.get("StatementId")]
            if len(kept) == len(statements):
                raise ServiceError(_NOT_FOUND, "Statement with the provided id does not exist.")
            self._buses.update(name, Statements=kept)

    def _bus_name(self, name_or_arn: str | None) -> str:
        name = (name_or_arn or DEFAULT_BUS).rpartition("event-bus/")[2]
        if name not in self._buses:
            raise ServiceError(_NOT_FOUND, f"Event bus {name} does not exist.")
        return name

    @staticmethod
    def _shown_bus(bus: Document) -> dict[str, Any]:
        shown = {member: value for member, value in bus.items() if member not in ("Statements", "Tags")}
        return shown | ({"Policy": json.dumps({"Version": "2012-10-17", "Statement": bus["Statements"]})} if bus["Statements"] else {})

    # Tags

    def tag_resource(self, params: Params) -> None:
        """TagResource."""
        given = {tag["Key"]: tag for tag in params["Tags"]}
        self._change_tags(params["ResourceARN"], lambda tags: list(({tag["Key"]: tag for tag in tags} | given).values()))

    def untag_resource(self, params: Params) -> None:
        """UntagResource."""
        self._change_tags(params["ResourceARN"], lambda tags: [tag for tag in tags if tag["Key"] not in params["TagKeys"]])

    def list_tags_for_resource(self, params: Params) -> dict[str, Any]:
        """ListTagsForResource."""
        table, key = self._tagged(params["ResourceARN"])
        return {"Tags": (table.get(key) or {}).get("Tags", [])}

    def _change_tags(self, arn: str, change: Callable[[list[dict[str, str]]], list[dict[str, str]]]) -> None:
        table, key = self._tagged(arn)
        with table.lock():
            table.update(key, Tags=change((table.get(key) or {}).get("Tags", [])))
        self._active = None

    def _tagged(self, arn: str) -> tuple[Any, str]:
        kind, _, path = arn.split(":", 5)[-1].partition("/")
        if kind == "event-bus":
            return self._buses, self._bus_name(path)
        bus, _, name = path.rpartition("/")
        key = self._key(bus or DEFAULT_BUS, name)
        if kind != "rule" or key not in self._rules:
            raise ServiceError(_NOT_FOUND, f"Rule {name} does not exist on EventBus {bus or DEFAULT_BUS}.")
        return self._rules, key


def _pattern(text: str) -> Any:
    try:
        return compile_pattern(text)
    except InvalidPattern as error:
        raise ServiceError("InvalidEventPatternException", f"Event pattern is not valid. Reason: {error}") from error


def _shown(rule: Document) -> dict[str, Any]:
    return {member: value for member, value in rule.items() if member not in ("Targets", "Tags")}


def _entry_error(code: str, message: str) -> dict[str, str]:
    return {"ErrorCode": code, "ErrorMessage": message}


def _entry_size(entry: dict[str, Any]) -> int:
    """Return an entry's bytes as AWS counts them (https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-putevent-size.html)."""
    texts = [entry.get("Source", ""), entry.get("DetailType", ""), entry.get("Detail", ""), *entry.get("Resources", [])]
    return sum(len(text.encode()) for text in texts) + (14 if entry.get("Time") else 0)


def _page(items: list[Any], member: str, params: Params) -> dict[str, Any]:
    """Return one page of a listing (the token is the index of what follows)."""
    begin = int(params["NextToken"]) if str(params.get("NextToken", "")).isdigit() else 0
    end = begin + int(params.get("Limit") or 100)
    return {member: items[begin:end]} | ({"NextToken": str(end)} if end < len(items) else {})
