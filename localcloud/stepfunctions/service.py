"""The Step Functions API."""

from __future__ import annotations

import hashlib
import json
import random
import re
import uuid
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from localcloud.errors import ServiceError, not_supported
from localcloud.iam.needs import Need
from localcloud.iam.principals import RoleSession
from localcloud.iam.trust import can_assume
from localcloud.service import Params, Service
from localcloud.stepfunctions.definition import MAX_DEFINITION_BYTES, InvalidDefinition, Machine, compile_definition
from localcloud.stepfunctions.executions import Executions, MachineVersion
from localcloud.stepfunctions.history import MAX_DATA_BYTES
from localcloud.stepfunctions.store import ExecutionStore, Record
from localcloud.stepfunctions.tasks import StartedExecution, TaskRunner

if TYPE_CHECKING:
    from localcloud.cloud import Cloud
    from localcloud.database import Document

_PRINCIPAL = "states.amazonaws.com"
_SESSION_NAME = "StepFunctions"
#: https://docs.aws.amazon.com/step-functions/latest/dg/concepts-xray-tracing.html
_TRACING = ("xray:PutTraceSegments", "xray:PutTelemetryRecords", "xray:GetSamplingRules", "xray:GetSamplingTargets")
_LOG_DELIVERY = (
    "logs:CreateLogDelivery",
    "logs:GetLogDelivery",
    "logs:UpdateLogDelivery",
    "logs:DeleteLogDelivery",
    "logs:ListLogDeliveries",
    "logs:PutResourcePolicy",
    "logs:DescribeResourcePolicies",
    "logs:DescribeLogGroups",
)
#: Characters that names may not have (https://docs.aws.amazon.com/step-functions/latest/apireference/API_CreateStateMachine.html).
_BAD_NAME = re.compile(r"[\s<>{}\[\]?*\"#%\\^|~`$&,;:/\x00-\x1f\x7f-\x9f\ufffe\uffff]")
_MACHINE_ARN = re.compile(
    r"arn:aws[\w-]*:states:(?P<region>[^:]+):(?P<account>\d{12}):stateMachine:(?P<name>[^:]+)(:(?P<qualifier>[^:]+))?"
)


class StepFunctionsService(Service):
    """AWS Step Functions."""

    name = "stepfunctions"

    def __init__(self, cloud: Cloud) -> None:
        super().__init__(cloud)
        self._machines = cloud.db.table("states.machines")
        self._store = ExecutionStore(cloud.settings.state_dir / "executions.db")
        self._executions = Executions(cloud, self._store, TaskRunner(cloud, self._start_for_task))

    def start(self) -> None:
        """Close what an earlier process left running."""
        self._executions.start()

    def stop(self) -> None:
        """End what runs."""
        self.cloud.background.call(self._executions.close())
        self._store.close()

    # State machines

    def create_state_machine(self, params: Params) -> dict[str, Any]:
        """CreateStateMachine; creating the same again gives the one that is there."""
        name = params["name"]
        if _BAD_NAME.search(name):
            raise ServiceError("InvalidName", f"Invalid Name: '{name}'")
        self._check_definition(params["definition"])
        arn = self.cloud.arn("states", f"stateMachine:{name}")
        self._check_role(params["roleArn"], arn)
        with self._machines.lock():
            existing = self._machines.get(name)
            if existing is not None:
                same = all(
                    existing[member] == params.get(member, default)
                    for member, default in (("definition", ""), ("roleArn", ""), ("type", "STANDARD"))
                )
                if not same:
                    raise ServiceError("StateMachineAlreadyExists", f"State Machine Already Exists: '{arn}'")
                return {"stateMachineArn": arn, "creationDate": existing["creationDate"]}
            machine: Document = {
                "name": name,
                "arn": arn,
                "definition": params["definition"],
                "roleArn": params["roleArn"],
                "type": params.get("type", "STANDARD"),
                "creationDate": datetime.now(UTC),
                "updateDate": datetime.now(UTC),
                "loggingConfiguration": self._logging(params, params["roleArn"]),
                "tracingConfiguration": params.get("tracingConfiguration", {"enabled": False}),
                "encryptionConfiguration": params.get("encryptionConfiguration", {"type": "AWS_OWNED_KEY"}),
                "tags": params.get("tags", []),
                "versions": {},
                "next_version": 1,
                "aliases": {},
            }
            self._check_tracing(machine["tracingConfiguration"], params["roleArn"])
            machine["revisionId"] = self._keep_revision(machine)
            answer = {"stateMachineArn": arn, "creationDate": machine["creationDate"]}
            if params.get("publish"):
                answer["stateMachineVersionArn"] = self._publish(machine, params.get("versionDescription"))["stateMachineVersionArn"]
            elif params.get("versionDescription"):
                raise ServiceError("ValidationException", "Version description can only be set when publish is true")
            self._machines.put(name, machine)
        return answer

    def update_state_machine(self, params: Params) -> dict[str, Any]:
        """UpdateStateMachine."""
        members = ("definition", "roleArn", "loggingConfiguration", "tracingConfiguration", "encryptionConfiguration")
        changes = {member: params[member] for member in members if member in params}
        if not changes and not params.get("publish"):
            raise ServiceError(
                "MissingRequiredParameter",
                "Either the definition, the role ARN, the LoggingConfiguration, or the TracingConfiguration must be specified",
            )
        if "definition" in changes:
            self._check_definition(changes["definition"])
        if "roleArn" in changes:
            self._check_role(changes["roleArn"], params["stateMachineArn"])
        if "loggingConfiguration" in changes:
            role_arn = changes.get("roleArn") or self._machine(params["stateMachineArn"])["roleArn"]
            changes["loggingConfiguration"] = self._logging(params, role_arn)
        with self._machines.lock():
            machine = self._machine(params["stateMachineArn"])
            machine |= changes | {"updateDate": datetime.now(UTC)}
            machine["revisionId"] = self._keep_revision(machine)
            answer = {"updateDate": machine["updateDate"], "revisionId": machine["revisionId"]}
            if params.get("publish"):
                answer["stateMachineVersionArn"] = self._publish(machine, params.get("versionDescription"))["stateMachineVersionArn"]
            self._machines.put(machine["name"], machine)
        return answer

    def delete_state_machine(self, params: Params) -> None:
        """DeleteStateMachine; deleting a missing one succeeds, as on AWS. What runs is stopped, and its executions are forgotten."""
        name, _ = self._parse(params["stateMachineArn"])
        if self._machines.get(name) is None:
            return
        self._machines.delete(name)
        arn = self.cloud.arn("states", f"stateMachine:{name}")
        for record in self._store.page(arn, "RUNNING", 0, 1_000_000):
            self.cloud.background.call(self._executions.stop(record["arn"], None, None))
        self._store.delete_machine(arn)

    def describe_state_machine(self, params: Params) -> dict[str, Any]:
        """DescribeStateMachine."""
        machine, _, qualifier = self._find(params["stateMachineArn"])
        body, arn = machine, machine["arn"]
        if qualifier is not None:
            version = machine["versions"][qualifier if qualifier.isdigit() else self._route(machine, qualifier)]
            body, arn = {**machine, **(self._store.revision(version["revisionId"]) or {}), **version}, params["stateMachineArn"]
        answer = {
            "stateMachineArn": arn,
            "name": machine["name"],
            "status": "ACTIVE",
            **self._revision_members(body),
            "type": machine["type"],
            "creationDate": body["creationDate"],
            "encryptionConfiguration": machine["encryptionConfiguration"],
        }
        if body.get("description"):
            answer["description"] = body["description"]
        return answer

    def list_state_machines(self, params: Params) -> dict[str, Any]:
        """ListStateMachines."""
        members = (("stateMachineArn", "arn"), ("name", "name"), ("type", "type"), ("creationDate", "creationDate"))
        shown = [{member: machine[key] for member, key in members} for machine in self._machines.values()]
        return _page(shown, "stateMachines", params)

    def validate_state_machine_definition(self, params: Params) -> dict[str, Any]:
        """ValidateStateMachineDefinition."""
        try:
            compile_definition(params["definition"])
        except InvalidDefinition as error:
            found = [
                {"severity": "ERROR", "code": diagnostic.code, "message": diagnostic.message, "location": diagnostic.location}
                for diagnostic in error.diagnostics
            ]
            limit = params.get("maxResults") or 100
            return {"result": "FAIL", "diagnostics": found[:limit], "truncated": len(found) > limit}
        return {"result": "OK", "diagnostics": [], "truncated": False}

    def _check_definition(self, text: str) -> None:
        if len(text.encode()) > MAX_DEFINITION_BYTES:
            raise ServiceError(
                "InvalidDefinition",
                f"Invalid State Machine Definition: 'MAX_DEFINITION_SIZE_EXCEEDED: more than {MAX_DEFINITION_BYTES} bytes'",
            )
        try:
            _compiled(text)
        except InvalidDefinition as error:
            raise ServiceError("InvalidDefinition", f"Invalid State Machine Definition: '{error}'") from error

    def _check_role(self, role_arn: str, machine_arn: str) -> None:
        if not re.fullmatch(r"arn:aws[\w-]*:iam::\d{12}:role/.+", role_arn):
            raise ServiceError("InvalidArn", f"Invalid Role Arn: '{role_arn}'")
        if not can_assume(self.cloud, role_arn, _PRINCIPAL, machine_arn):
            message = f"Neither the global service principal {_PRINCIPAL}, nor the regional one is authorized to assume the provided role."
            raise ServiceError("AccessDeniedException", message)

    def _logging(self, params: Params, role_arn: str) -> dict[str, Any]:
        configuration: dict[str, Any] = params.get("loggingConfiguration", {"level": "OFF", "includeExecutionData": False})
        destinations = configuration.get("destinations", [])
        if configuration.get("level", "OFF") != "OFF" and not destinations:
            raise ServiceError("InvalidLoggingConfiguration", "Invalid Logging Configuration: Must specify exactly one Log Destination.")
        for destination in destinations:
            arn = destination.get("cloudWatchLogsLogGroup", {}).get("logGroupArn", "")
            if not re.fullmatch(r"arn:aws[\w-]*:logs:[^:]+:\d{12}:log-group:.+:\*", arn):
                raise ServiceError(
                    "InvalidLoggingConfiguration", "Invalid Logging Configuration: Log Destination: Log Group ARN must end with ':*'."
                )
        if destinations:
            self._check_log_delivery(role_arn)
        return {"level": "OFF", "includeExecutionData": False, **configuration}

    def _check_tracing(self, configuration: dict[str, Any], role_arn: str) -> None:
        """Ask for what traces are sent with; on AWS those of a role that may not are missing, and nothing says so."""
        if configuration.get("enabled"):
            session = RoleSession(role_arn, _SESSION_NAME)
            for action in _TRACING:
                self.cloud.iam.decide(session, Need(action, "*"))

    def _check_log_delivery(self, role_arn: str) -> None:
        """Refuse a role that cannot have logs delivered (https://docs.aws.amazon.com/step-functions/latest/dg/cw-logs.html#cloudwatch-iam-policy)."""
        session = RoleSession(role_arn, _SESSION_NAME)
        # Every one of them is asked for, so that what a role needs is known at once.
        decisions = [self.cloud.iam.decide(session, Need(action, "*")) for action in _LOG_DELIVERY]
        if not all(decision.allowed for decision in decisions):
            raise ServiceError("AccessDeniedException", "The state machine IAM Role is not authorized to access the Log Destination")

    def _keep_revision(self, machine: Document) -> str:
        members = {member: machine[member] for member in ("definition", "roleArn", "loggingConfiguration", "tracingConfiguration")}
        digest = hashlib.sha256(json.dumps([machine["arn"], members], sort_keys=True).encode()).hexdigest()
        # The same content is the same revision.
        revision_id = str(uuid.UUID(digest[:32]))
        self._store.put_revision(revision_id, {**members, "updateDate": machine["updateDate"].timestamp()})
        return revision_id

    @staticmethod
    def _revision_members(machine: Document) -> dict[str, Any]:
        return {
            member: machine[member] for member in ("definition", "roleArn", "loggingConfiguration", "tracingConfiguration", "revisionId")
        }

    def _parse(self, arn: str) -> tuple[str, str | None]:
        match = _MACHINE_ARN.fullmatch(arn)
        if match is None:
            raise ServiceError("InvalidArn", f"Invalid Arn: 'Invalid ARN prefix: {arn}'")
        return match["name"], match["qualifier"]

    def _machine(self, arn: str) -> Document:
        name, _ = self._parse(arn)
        machine = self._machines.get(name)
        if machine is None or machine["arn"] != arn.split(":stateMachine:")[0] + f":stateMachine:{name}":
            raise ServiceError("StateMachineDoesNotExist", f"State Machine Does Not Exist: '{arn}'")
        return machine

    def _find(self, arn: str) -> tuple[Document, str, str | None]:
        """Return a state machine's document, its name, and the version or alias that an ARN asks for."""
        name, qualifier = self._parse(arn)
        machine = self._machine(arn)
        if qualifier is not None and qualifier not in machine["versions"] and qualifier not in machine["aliases"]:
            raise ServiceError("StateMachineDoesNotExist", f"State Machine Does Not Exist: '{arn}'")
        return machine, name, qualifier

    @staticmethod
    def _route(machine: Document, alias: str) -> str:
        """Return the version that an alias gives this time."""
        routes = machine["aliases"][alias]["routingConfiguration"]
        chosen = random.choices(routes, [route["weight"] for route in routes])[0]
        return str(chosen["stateMachineVersionArn"]).rpartition(":")[2]

    def _version(self, arn: str) -> MachineVersion:
        """Return what an execution of an ARN (of a state machine, a version or an alias) runs."""
        machine, name, qualifier = self._find(arn)
        body, version_arn, alias_arn = machine, None, None
        if qualifier is not None:
            number = qualifier
            if qualifier in machine["aliases"]:
                number, alias_arn = self._route(machine, qualifier), arn
            version_arn = f"{machine['arn']}:{number}"
            revision_id = machine["versions"][number]["revisionId"]
            body = {**machine, **(self._store.revision(revision_id) or {}), "revisionId": revision_id}
        return MachineVersion(
            machine=_compiled(body["definition"]),
            arn=machine["arn"],
            name=name,
            role_arn=body["roleArn"],
            express=machine["type"] == "EXPRESS",
            revision_id=body["revisionId"],
            logging=body["loggingConfiguration"],
            version_arn=version_arn,
            alias_arn=alias_arn,
        )

    # Versions and aliases

    def publish_state_machine_version(self, params: Params) -> dict[str, Any]:
        """PublishStateMachineVersion."""
        with self._machines.lock():
            machine = self._machine(params["stateMachineArn"])
            if params.get("revisionId") not in (None, machine["revisionId"]):
                raise ServiceError(
                    "ConflictException",
                    f"Failed to publish the State Machine version for revision {params['revisionId']}. The current State Machine revision is {machine['revisionId']}.",
                )
            version = self._publish(machine, params.get("description"))
            self._machines.put(machine["name"], machine)
        return {"creationDate": version["creationDate"], "stateMachineVersionArn": version["stateMachineVersionArn"]}

    @staticmethod
    def _publish(machine: Document, description: str | None) -> dict[str, Any]:
        for version in machine["versions"].values():
            if version["revisionId"] == machine["revisionId"]:
                return dict(version)
        number = str(machine["next_version"])
        version = {
            "stateMachineVersionArn": f"{machine['arn']}:{number}",
            "revisionId": machine["revisionId"],
            "creationDate": datetime.now(UTC),
            "description": description,
        }
        machine["versions"][number] = version
        machine["next_version"] += 1
        return version

    def list_state_machine_versions(self, params: Params) -> dict[str, Any]:
        """ListStateMachineVersions, the newest first."""
        versions = self._machine(params["stateMachineArn"])["versions"].values()
        shown = [{member: version[member] for member in ("stateMachineVersionArn", "creationDate")} for version in reversed(versions)]
        return _page(shown, "stateMachineVersions", params)

    def delete_state_machine_version(self, params: Params) -> None:
        """DeleteStateMachineVersion."""
        name, number = self._parse(params["stateMachineVersionArn"])
        with self._machines.lock():
            machine = self._machines.get(name)
            if machine is None or number is None:
                return
            for alias, entry in machine["aliases"].items():
                if any(route["stateMachineVersionArn"] == params["stateMachineVersionArn"] for route in entry["routingConfiguration"]):
                    raise ServiceError(
                        "ConflictException",
                        f"Version to be deleted must not be referenced by an alias. Current list of aliases referencing this version: [{alias}]",
                    )
            machine["versions"].pop(number, None)
            self._machines.put(name, machine)

    def create_state_machine_alias(self, params: Params) -> dict[str, Any]:
        """CreateStateMachineAlias."""
        routes = params["routingConfiguration"]
        with self._machines.lock():
            machine = self._check_routes(routes)
            arn = f"{machine['arn']}:{params['name']}"
            if params["name"].isdigit() or _BAD_NAME.search(params["name"]):
                raise ServiceError("InvalidName", f"Invalid Name: '{params['name']}'")
            if params["name"] in machine["aliases"]:
                raise ServiceError(
                    "ConflictException",
                    f"Failed to create alias because an alias with the same name and a different routing configuration already exists: {arn}",
                )
            now = datetime.now(UTC)
            alias = {
                "stateMachineAliasArn": arn,
                "name": params["name"],
                "routingConfiguration": routes,
                "creationDate": now,
                "updateDate": now,
            }
            machine["aliases"][params["name"]] = alias | {"description": params.get("description")}
            self._machines.put(machine["name"], machine)
        return {"stateMachineAliasArn": arn, "creationDate": now}

    def update_state_machine_alias(self, params: Params) -> dict[str, Any]:
        """UpdateStateMachineAlias."""
        with self._machines.lock():
            machine, alias = self._alias(params["stateMachineAliasArn"])
            if "routingConfiguration" in params:
                self._check_routes(params["routingConfiguration"])
            alias |= {member: params[member] for member in ("routingConfiguration", "description") if member in params} | {
                "updateDate": datetime.now(UTC)
            }
            self._machines.put(machine["name"], machine)
        return {"updateDate": alias["updateDate"]}

    def describe_state_machine_alias(self, params: Params) -> dict[str, Any]:
        """DescribeStateMachineAlias."""
        _, alias = self._alias(params["stateMachineAliasArn"])
        return {member: value for member, value in alias.items() if value is not None}

    def list_state_machine_aliases(self, params: Params) -> dict[str, Any]:
        """ListStateMachineAliases."""
        machine, _, version = self._find(params["stateMachineArn"])
        shown = [
            {member: alias[member] for member in ("stateMachineAliasArn", "creationDate")}
            for alias in machine["aliases"].values()
            if version is None
            or any(route["stateMachineVersionArn"] == params["stateMachineArn"] for route in alias["routingConfiguration"])
        ]
        return _page(shown, "stateMachineAliases", params)

    def delete_state_machine_alias(self, params: Params) -> None:
        """DeleteStateMachineAlias."""
        with self._machines.lock():
            machine, alias = self._alias(params["stateMachineAliasArn"])
            del machine["aliases"][alias["name"]]
            self._machines.put(machine["name"], machine)

    def _alias(self, arn: str) -> tuple[Document, dict[str, Any]]:
        name, qualifier = self._parse(arn)
        machine = self._machines.get(name)
        if machine is None or qualifier not in machine["aliases"]:
            raise ServiceError("ResourceNotFound", f"Resource not found: '{arn}'")
        return machine, machine["aliases"][qualifier]

    def _check_routes(self, routes: list[dict[str, Any]]) -> Document:
        if sum(route["weight"] for route in routes) != 100:
            raise ServiceError("ValidationException", "Sum of routing configuration weights must equal 100.")
        found = [self._find(route["stateMachineVersionArn"]) for route in routes]
        if len({name for _, name, _ in found}) != 1 or any(
            number is None or number not in machine["versions"] for machine, _, number in found
        ):
            raise ServiceError("ValidationException", "Routing configuration must contain only versions of one state machine.")
        return found[0][0]

    # Executions

    def start_execution(self, params: Params) -> dict[str, Any]:
        """StartExecution."""
        record = self._begin(params)
        return {"executionArn": record["arn"], "startDate": _date(record["started"])}

    def _begin(self, params: Params) -> Record:
        version = self._version(params["stateMachineArn"])
        text = self._checked_input(params)
        name = params.get("name")
        if name is not None and _BAD_NAME.search(name):
            raise ServiceError("InvalidName", f"Invalid Name: '{name}'")
        record = self._executions.new_record(version, name, text)
        if not version.express and not self._store.insert(record):
            existing = self._executions.get(record["arn"])
            if existing is not None and existing["status"] == "RUNNING" and existing["input"] == text:
                # Asking again for what already runs is the same request.
                return existing
            raise ServiceError("ExecutionAlreadyExists", f"Execution Already Exists: '{record['arn']}'")
        self._executions.launch(record, version)
        return record

    def _start_for_task(self, request: dict[str, Any]) -> StartedExecution:
        record = self._begin(request)

        async def description() -> dict[str, Any]:
            return self._description(await self._executions.wait(record["arn"]))

        return StartedExecution(record["arn"], _date(record["started"]), description)

    def start_sync_execution(self, params: Params) -> dict[str, Any]:
        """StartSyncExecution."""
        version = self._version(params["stateMachineArn"])
        if not version.express:
            raise ServiceError("StateMachineTypeNotSupported", "This operation is not supported by this type of state machine")
        record = self._executions.new_record(version, params.get("name"), self._checked_input(params))
        ended = self.cloud.background.call(self._executions.run_to_end(record, version))
        milliseconds = int((ended["stopped"] - ended["started"]) * 1000)
        description = self._description(ended)
        for member in ("redriveCount", "redriveStatus", "redriveStatusReason", "stateMachineVersionArn", "stateMachineAliasArn"):
            description.pop(member, None)
        # AWS bills in steps of 100 ms and 64 MB.
        billing = {"billedMemoryUsedInMB": 64, "billedDurationInMilliseconds": -(-milliseconds // 100) * 100}
        return {**description, "billingDetails": billing}

    def describe_execution(self, params: Params) -> dict[str, Any]:
        """DescribeExecution."""
        return self._description(self._execution(params["executionArn"]))

    def describe_state_machine_for_execution(self, params: Params) -> dict[str, Any]:
        """DescribeStateMachineForExecution: the definition that the execution ran."""
        record = self._execution(params["executionArn"])
        revision = self._store.revision(record["revision_id"]) or {}
        return {
            **revision,
            "updateDate": _date(revision["updateDate"]),
            "stateMachineArn": record["machine_arn"],
            "name": record["machine_arn"].rpartition(":")[2],
            "revisionId": record["revision_id"],
        }

    def list_executions(self, params: Params) -> dict[str, Any]:
        """ListExecutions."""
        if params.get("mapRunArn") or params.get("redriveFilter"):
            raise not_supported("mapRunArn or redriveFilter of ListExecutions")
        if not params.get("stateMachineArn"):
            raise ServiceError("ValidationException", "Must provide a StateMachine ARN or MapRun ARN")
        machine = self._machine(params["stateMachineArn"])
        if machine["type"] == "EXPRESS":
            raise ServiceError("StateMachineTypeNotSupported", "This operation is not supported by this type of state machine")
        offset, limit = _token(params), int(params.get("maxResults") or 100)
        records = self._store.page(machine["arn"], params.get("statusFilter"), offset, limit + 1)
        shown = []
        for record in records[:limit]:
            entry = {
                "executionArn": record["arn"],
                "stateMachineArn": record["machine_arn"],
                "name": record["name"],
                "status": record["status"],
                "startDate": _date(record["started"]),
                "redriveCount": 0,
            }
            if record["stopped"] is not None:
                entry["stopDate"] = _date(record["stopped"])
            shown.append(entry)
        return {"executions": shown} | ({"nextToken": str(offset + limit)} if len(records) > limit else {})

    def stop_execution(self, params: Params) -> dict[str, Any]:
        """StopExecution."""
        record = self._execution(params["executionArn"])
        self.cloud.background.call(self._executions.stop(record["arn"], params.get("error"), params.get("cause")))
        return {"stopDate": _date(self._execution(record["arn"])["stopped"])}

    def get_execution_history(self, params: Params) -> dict[str, Any]:
        """GetExecutionHistory."""
        record = self._execution(params["executionArn"])
        events = self._executions.events(record["arn"])
        if params.get("reverseOrder"):
            events = events[::-1]
        page = _page(events, "events", params)
        page["events"] = [{**event, "timestamp": _date(event["timestamp"])} for event in page["events"]]
        if params.get("includeExecutionData") is False:
            page["events"] = [_without_data(event) for event in page["events"]]
        return page

    def _execution(self, arn: str) -> Record:
        if ":execution:" not in arn and ":express:" not in arn:
            raise ServiceError("InvalidArn", f"Invalid Arn: 'Invalid ARN prefix: {arn}'")
        record = self._executions.get(arn)
        if record is None:
            raise ServiceError("ExecutionDoesNotExist", f"Execution Does Not Exist: '{arn}'")
        return record

    @staticmethod
    def _description(record: Record) -> dict[str, Any]:
        description: dict[str, Any] = {
            "executionArn": record["arn"],
            "stateMachineArn": record["machine_arn"],
            "name": record["name"],
            "status": record["status"],
            "startDate": _date(record["started"]),
            "input": record["input"],
            "inputDetails": {"included": True},
            "redriveCount": 0,
        }
        if record["stopped"] is not None:
            description["stopDate"] = _date(record["stopped"])
        if record.get("output") is not None:
            description |= {"output": record["output"], "outputDetails": {"included": True}}
        members = (("error", "error"), ("cause", "cause"), ("stateMachineVersionArn", "version_arn"), ("stateMachineAliasArn", "alias_arn"))
        description |= {member: record[key] for member, key in members if record.get(key) is not None}
        if record["status"] in ("RUNNING", "SUCCEEDED"):
            reason = (
                "Execution is RUNNING and cannot be redriven"
                if record["status"] == "RUNNING"
                else "Execution is SUCCEEDED and cannot be redriven"
            )
        else:
            reason = "Redriving an execution is not supported by localcloud"
        return {**description, "redriveStatus": "NOT_REDRIVABLE", "redriveStatusReason": reason}

    @staticmethod
    def _checked_input(params: Params) -> str:
        text = str(params.get("input") or "{}")
        if len(text.encode()) > MAX_DATA_BYTES:
            message = f"1 validation error detected: Value at 'input' failed to satisfy constraint: Member must have length less than or equal to {MAX_DATA_BYTES}"
            raise ServiceError("ValidationException", message)
        try:
            json.loads(text)
        except ValueError as error:
            raise ServiceError("InvalidExecutionInput", f"Invalid State Machine Execution Input: '{error}'") from error
        return text

    # Tags

    def tag_resource(self, params: Params) -> None:
        """TagResource."""
        with self._machines.lock():
            machine = self._tagged(params["resourceArn"])
            tags = {tag["key"]: tag for tag in machine["tags"]} | {tag["key"]: tag for tag in params["tags"]}
            self._machines.update(machine["name"], tags=list(tags.values()))

    def untag_resource(self, params: Params) -> None:
        """UntagResource."""
        with self._machines.lock():
            machine = self._tagged(params["resourceArn"])
            self._machines.update(machine["name"], tags=[tag for tag in machine["tags"] if tag["key"] not in params["tagKeys"]])

    def list_tags_for_resource(self, params: Params) -> dict[str, Any]:
        """ListTagsForResource."""
        return {"tags": self._tagged(params["resourceArn"])["tags"]}

    def _tagged(self, arn: str) -> Document:
        try:
            return self._machine(arn)
        except ServiceError as error:
            raise ServiceError("ResourceNotFound", f"Resource not found: '{arn}'") from error


@lru_cache(maxsize=256)
def _compiled(definition: str) -> Machine:
    """Return the compiled definition; the same text is compiled once."""
    return compile_definition(definition)


def _date(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _without_data(event: dict[str, Any]) -> dict[str, Any]:
    hidden = ("input", "output", "parameters", "inputDetails", "outputDetails")
    return {
        member: {name: value for name, value in details.items() if name not in hidden} if isinstance(details, dict) else details
        for member, details in event.items()
    }


def _token(params: Params) -> int:
    token = str(params.get("nextToken") or "0")
    if not token.isdigit():
        raise ServiceError("InvalidToken", f"Invalid Token: '{token}'")
    return int(token)


def _page(items: list[Any], member: str, params: Params) -> dict[str, Any]:
    """Return one page of a listing (the token is the index of what follows)."""
    begin = _token(params)
    end = begin + int(params.get("maxResults") or 100)
    return {member: items[begin:end]} | ({"nextToken": str(end)} if end < len(items) else {})
