"""CloudFormation's API."""

from __future__ import annotations

import base64
import binascii
import json
import logging
import queue
import re
import threading
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from botocore.exceptions import BotoCoreError, ClientError

from localcloud.cloudformation.blueprint import check_references
from localcloud.cloudformation.changes import Plan
from localcloud.cloudformation.comparison import Comparison, compare
from localcloud.cloudformation.drift import Drifts
from localcloud.cloudformation.engine import Engine
from localcloud.cloudformation.errors import ResourceFailure, unsupported, validation_error
from localcloud.cloudformation.imports import planned
from localcloud.cloudformation.parameters import ParameterSpec, ParameterValue, declared
from localcloud.cloudformation.provider import Place, tag_list
from localcloud.cloudformation.registry import build_registry
from localcloud.cloudformation.state import Member, State
from localcloud.cloudformation.target import Target, Templates, needed_capabilities
from localcloud.cloudformation.template import MAX_BODY_BYTES, MAX_URL_BYTES, Template, parse_template
from localcloud.database import Document
from localcloud.errors import ServiceError
from localcloud.iam.callers import caller
from localcloud.iam.principals import session_of
from localcloud.iam.trust import can_assume
from localcloud.object_store import ObjectAccessDenied, ObjectNotFound
from localcloud.service import Params, Service
from localcloud.settings import HOST

if TYPE_CHECKING:
    from localcloud.clients import Clients
    from localcloud.cloud import Cloud

log = logging.getLogger(__name__)

Json = Any

_PAGE = 100
#: AWS shows a deleted stack for this long.
_HISTORY = timedelta(days=90)
_FIRST_LOOK_SECONDS = 2.0
_SERVICE = "cloudformation.amazonaws.com"
#: Name of the sessions in which it acts as stacks' roles.
_SESSION_NAME = "AWSCloudFormation"
_NAME = re.compile(r"[a-zA-Z][-a-zA-Z0-9]*")
_UPDATABLE = frozenset(("CREATE_COMPLETE", "UPDATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE", "IMPORT_COMPLETE"))


class CloudFormationService(Service):
    """Stacks and change sets."""

    name: ClassVar[str] = "cloudformation"
    validation_code: ClassVar[str] = "ValidationError"

    def __init__(self, cloud: Cloud) -> None:
        super().__init__(cloud)
        place = Place(cloud.settings.region, cloud.settings.account_id)
        self.state = State(cloud.db)
        own = lambda service: cloud.clients(service)  # noqa: E731  # cloud.clients needs the port, which is not known yet
        self._registry = build_registry(self, own)
        self.engine = Engine(
            self.state, self._registry, self._clients_of, place, flush=lambda: cloud.snapshots.flush(), publish=self._publish
        )
        self._own = own
        self._drifts = Drifts(self.state, cloud.db, own)
        self._templates = Templates(self._registry, place, self._read_object, self._is_own_host, self._ssm_value)
        self._events: queue.SimpleQueue[tuple[Document, Document] | None] = queue.SimpleQueue()
        self._publisher: threading.Thread | None = None

    def start(self) -> None:
        """Drop old history and take up unfinished operations."""
        for stack in self.state.stacks():
            if stack["StackStatus"] == "DELETE_COMPLETE" and stack["DeletionTime"] < datetime.now(UTC) - _HISTORY:
                self.state.forget_stack(stack["StackId"])
        self._publisher = threading.Thread(target=self._publish_all, name="stack events", daemon=True)
        self._publisher.start()
        self.engine.start()

    def stop(self) -> None:
        """End operations where they are; the next start takes them up."""
        self.engine.stop()
        self._events.put(None)
        if self._publisher is not None:
            self._publisher.join(5)

    def named(self, params: Params) -> Params:
        """A change set's ARN does not tell its stack."""
        identifier = params.get("ChangeSetName", "")
        found = self.state.change_sets.get(identifier) if identifier.startswith("arn:") and not params.get("StackName") else None
        return params if found is None else {**params, "StackName": found["StackId"]}

    def _clients_of(self, stack: Document) -> Callable[[str], Any]:
        """Return the clients with which a stack's resources are worked on: its role's, or else those of who asked for the operation."""
        clients: Clients = self.cloud.clients
        if stack.get("RoleARN"):
            return clients.acting_as(stack["RoleARN"], _SESSION_NAME)
        session = session_of(stack.get("Caller"), None, self.cloud.settings.account_id)
        if session is None:
            return clients
        return clients.with_session(replace(session, via=(*session.via, _SERVICE)))

    # --- stacks -------------------------------------------------------------------------------------------------------------------------------

    def create_stack(self, params: Params) -> Params:
        """Create a stack in the background."""
        self._check_role(params)
        name = _checked_name(params["StackName"])
        if params.get("OnFailure") is not None and params.get("DisableRollback") is not None:
            raise validation_error("Either DisableRollback or OnFailure can be specified, not both.")
        on_failure = params.get("OnFailure") or ("DO_NOTHING" if params.get("DisableRollback") else "ROLLBACK")
        with self.state.lock:
            existing = self.state.stack(name)
            if existing is not None:
                if params.get("ClientRequestToken") and existing.get("ClientRequestToken") == params["ClientRequestToken"]:
                    return {"StackId": existing["StackId"]}
                raise ServiceError("AlreadyExistsException", f"Stack [{name}] already exists")
        stack_id = self._new_id("stack", name)
        target = self._templates.target(params, {"StackId": stack_id, "StackName": name})
        stack = _new_stack(stack_id, name)
        stack |= target.fields | {
            "Caller": _caller(),
            "OnFailure": on_failure,
            "TimeoutInMinutes": params.get("TimeoutInMinutes"),
            "EnableTerminationProtection": bool(params.get("EnableTerminationProtection")),
            "RetainExceptOnCreate": bool(params.get("RetainExceptOnCreate")),
            "ClientRequestToken": params.get("ClientRequestToken"),
        }
        with self.state.lock:
            if self.state.stack(name) is not None:
                raise ServiceError("AlreadyExistsException", f"Stack [{name}] already exists")
            self.engine.begin_create(stack, target.blueprint)
        return {"StackId": stack_id}

    def update_stack(self, params: Params) -> Params:
        """Update a stack in the background."""
        return self._update(params)

    def _update(self, params: Params, largest: int = MAX_BODY_BYTES) -> Params:
        self._check_role(params)
        name = params["StackName"]
        stack = self.state.stack(name)
        if stack is None or stack["StackStatus"] in ("DELETE_COMPLETE", "REVIEW_IN_PROGRESS"):
            raise validation_error(f"Stack [{name}] does not exist")
        token = params.get("ClientRequestToken")
        if token and stack.get("ClientRequestToken") == token:
            return {"StackId": stack["StackId"]}
        _check_updatable(stack)
        target = self._templates.target(params, stack, largest)
        if not self._plan(stack, target) and target.fields["Tags"] == stack["Tags"]:
            raise validation_error("No updates are to be performed.")
        keep = bool(params.get("DisableRollback"))
        self._begin_update(stack, target, token, keep_failed=keep, retain_except_on_create=bool(params.get("RetainExceptOnCreate")))
        return {"StackId": stack["StackId"]}

    def _begin_update(
        self,
        stack: Document,
        target: Target,
        token: str | None,
        *,
        keep_failed: bool,
        retain_except_on_create: bool,
        change_set: str | None = None,
        revert_drift: bool = False,
    ) -> None:
        stack_id = stack["StackId"]
        self._refuse_type_change(stack_id, target)
        with self.state.lock:
            now = self.state.stack(stack_id)
            assert now is not None
            _check_updatable(now)
            self._make_change_sets_obsolete(stack_id, change_set)
            self.engine.begin_update(
                stack_id,
                target.fields,
                target.blueprint,
                Caller=_caller(),
                ClientRequestToken=token,
                KeepFailedUpdate=keep_failed,
                RetainExceptOnCreate=retain_except_on_create,
                RevertDrift=revert_drift,
                ChangeSetId=change_set or now.get("ChangeSetId"),
            )

    def _refuse_type_change(self, stack_id: str, target: Target) -> None:
        changed = [
            member.logical_id
            for member in self.state.members(stack_id)
            if member.logical_id in target.blueprint.resources
            and member.type != target.blueprint.resources[member.logical_id].resource.type
        ]
        if changed:
            raise validation_error(
                "Update of resource type is not permitted. The new template modifies resource type of the following resources: "
                + f"[{', '.join(changed)}]"
            )

    def _plan(self, stack: Document, target: Target, compared: Mapping[str, Comparison | None] | None = None) -> Plan:
        self._refuse_type_change(stack["StackId"], target)
        old = {name: ParameterValue.of(document) for name, document in stack.get("Parameters", {}).items()}
        return Plan(self.state, target.blueprint, self.state.members(stack["StackId"]), old, stack.get("Outputs") or [], compared)

    def _compared(self, stack_id: str) -> dict[str, Comparison | None]:
        """Compare a stack's resources with reality, for a change set that reverts drift."""
        members, clients = self.state.members(stack_id), self._own
        try:
            return {member.logical_id: compare(clients, members, member) for member in members if member.current is not None}
        except (ClientError, ResourceFailure) as error:
            raise validation_error(f"The actual state of the stack's resources cannot be read: {error}") from error

    def delete_stack(self, params: Params) -> None:
        """Delete a stack in the background; one that does not exist is deleted already."""
        self._check_role(params)
        with self.state.lock:
            stack = self.state.stack(params["StackName"])
            if stack is None or stack["StackStatus"] in ("DELETE_COMPLETE", "DELETE_IN_PROGRESS"):
                return
            stack_id, status = stack["StackId"], stack["StackStatus"]
            if stack.get("EnableTerminationProtection"):
                raise validation_error(f"Stack [{stack['StackName']}] cannot be deleted while TerminationProtection is enabled")
            if status.endswith("_IN_PROGRESS") and status not in ("CREATE_IN_PROGRESS", "REVIEW_IN_PROGRESS"):
                raise validation_error(f"Stack [{stack_id}] cannot be deleted while in status {status}")
            retained = list(params.get("RetainResources") or [])
            if (retained or params.get("DeletionMode") == "FORCE_DELETE_STACK") and status != "DELETE_FAILED":
                what = "RetainResources" if retained else "FORCE_DELETE_STACK"
                raise validation_error(
                    f"Invalid operation on stack [{stack_id}]. {what} can only be used on a stack in the DELETE_FAILED state"
                )
            unknown = [name for name in retained if self.state.member(stack_id, name) is None]
            if unknown:
                raise validation_error(f"The following resources to retain do not exist in the stack: [{', '.join(unknown)}]")
            self.state.update_stack(
                stack_id,
                RetainResources=retained,
                DeletionMode=params.get("DeletionMode"),
                RoleARN=params.get("RoleARN") or stack.get("RoleARN"),
                Caller=_caller(),
                ClientRequestToken=params.get("ClientRequestToken"),
            )
            operation = self.engine.operation(stack_id) if status == "CREATE_IN_PROGRESS" else None
            self.engine.recorder.stack(stack_id, "DELETE_IN_PROGRESS", "User Initiated")
            self._make_change_sets_obsolete(stack_id)
            if operation is not None:
                operation.delete_next = True
                operation.cancel.set()
            else:
                self.engine.run(stack_id)

    def cancel_update_stack(self, params: Params) -> None:
        """End an update and roll it back."""
        with self.state.lock:
            stack = self._stack(params["StackName"])
            operation = self.engine.operation(stack["StackId"])
            if stack["StackStatus"] != "UPDATE_IN_PROGRESS" or operation is None:
                raise validation_error("CancelUpdateStack cannot be called from current stack status")
            operation.user_cancelled = True
            operation.cancel.set()

    def continue_update_rollback(self, params: Params) -> Params:
        """Try a failed rollback of an update again."""
        self._check_role(params)
        with self.state.lock:
            stack = self._stack(params["StackName"])
            stack_id = stack["StackId"]
            if stack["StackStatus"] != "UPDATE_ROLLBACK_FAILED":
                raise validation_error(f"Stack:{stack_id} is in {stack['StackStatus']} state and can not continue update rollback.")
            if params.get("ForceRollback"):
                raise unsupported("ForceRollback")
            skip = list(params.get("ResourcesToSkip") or [])
            failed = {
                member.logical_id
                for member in self.state.members(stack_id)
                if member.before is not None and member.status == "UPDATE_FAILED"
            }
            wrong = [name for name in skip if name not in failed]
            if wrong:
                raise validation_error(
                    f"ResourcesToSkip can only contain resources that are in UPDATE_FAILED state: [{', '.join(wrong)}] are not"
                )
            self.state.update_stack(stack_id, RoleARN=params.get("RoleARN") or stack.get("RoleARN"), Caller=_caller())
            self.engine.recorder.stack(stack_id, "UPDATE_ROLLBACK_IN_PROGRESS", "User Initiated")
            self.engine.run(stack_id, skip=skip)
        return {}

    def rollback_stack(self, params: Params) -> Params:
        """Roll back a create or update that failed with rollback disabled."""
        self._check_role(params)
        with self.state.lock:
            stack = self._stack(params["StackName"])
            stack_id, status = stack["StackId"], stack["StackStatus"]
            following = {"CREATE_FAILED": "ROLLBACK_IN_PROGRESS", "UPDATE_FAILED": "UPDATE_ROLLBACK_IN_PROGRESS"}.get(status)
            if following is None:
                raise validation_error(f"Stack:{stack_id} is in {status} state and can not be rolled back.")
            if params.get("DeploymentConfig"):
                raise unsupported("DeploymentConfig")
            self.state.update_stack(
                stack_id,
                RetainExceptOnCreate=bool(params.get("RetainExceptOnCreate")),
                KeepFailedUpdate=False,
                RoleARN=params.get("RoleARN") or stack.get("RoleARN"),
                Caller=_caller(),
            )
            self.engine.recorder.stack(stack_id, following, "User Initiated")
            self.engine.run(stack_id)
        return {"StackId": stack_id}

    def update_termination_protection(self, params: Params) -> Params:
        """Protect a stack against deletion, or no longer."""
        with self.state.lock:
            stack = self._stack(params["StackName"])
            if stack.get("ParentId"):
                raise validation_error("TerminationProtection can only be set on root stacks")
            self.state.update_stack(stack["StackId"], EnableTerminationProtection=bool(params["EnableTerminationProtection"]))
        return {"StackId": stack["StackId"]}

    # --- looking at stacks --------------------------------------------------------------------------------------------------------------------

    def describe_stacks(self, params: Params) -> Params:
        """Describe one stack, or all that are not deleted."""
        name = params.get("StackName")
        if name:
            self._await_first(self._stack(name)["StackId"])
            return {"Stacks": [self._described(self._stack(name))]}
        stacks = [stack for stack in self.state.stacks() if stack["StackStatus"] != "DELETE_COMPLETE"]
        page, token = _page(stacks, params.get("NextToken"))
        return _without_none({"Stacks": [self._described(stack) for stack in page], "NextToken": token})

    def _await_first(self, stack_id: str) -> None:
        """Let the first look at an operation wait a little for its end: the waiters of the CLI and the SDKs look again only after 30 s."""
        operation = self.engine.operation(stack_id)
        if operation is not None and not operation.awaited:
            operation.awaited = True
            operation.ended.wait(_FIRST_LOOK_SECONDS)

    def list_stacks(self, params: Params) -> Params:
        """List stacks, deleted ones included."""
        wanted = params.get("StackStatusFilter") or []
        stacks = [stack for stack in self.state.stacks() if not wanted or stack["StackStatus"] in wanted]
        page, token = _page(stacks, params.get("NextToken"))
        summaries = [
            _without_none(
                {
                    "StackId": stack["StackId"],
                    "StackName": stack["StackName"],
                    "TemplateDescription": stack.get("Description"),
                    "CreationTime": stack["CreationTime"],
                    "LastUpdatedTime": stack.get("LastUpdatedTime"),
                    "DeletionTime": stack.get("DeletionTime"),
                    "StackStatus": stack["StackStatus"],
                    "StackStatusReason": stack.get("StackStatusReason"),
                    "ParentId": stack.get("ParentId"),
                    "RootId": stack.get("RootId"),
                    "DriftInformation": self._drifts.information(stack),
                }
            )
            for stack in page
        ]
        return _without_none({"StackSummaries": summaries, "NextToken": token})

    def describe_stack_events(self, params: Params) -> Params:
        """List a stack's events, newest first."""
        name = params.get("StackName")
        stack = self.state.stack(name) if name else None
        if stack is None:
            raise validation_error(f"Stack [{name}] does not exist")
        events = self.state.events(stack["StackId"])
        # A token counts from the oldest event, so that events which come between two pages move nothing.
        end = _position(params.get("NextToken"), len(events))
        begin = max(end - _PAGE, 0)
        return _without_none({"StackEvents": events[begin:end][::-1], "NextToken": _token(begin) if begin else None})

    def describe_stack_resource(self, params: Params) -> Params:
        """Describe one resource of a stack."""
        stack = self.state.stack(params["StackName"])
        if stack is None:
            raise validation_error(f"Stack '{params['StackName']}' does not exist")
        member = self.state.member(stack["StackId"], params["LogicalResourceId"])
        if member is None:
            raise validation_error(f"Resource {params['LogicalResourceId']} does not exist for stack {stack['StackName']}")
        detail = self._resource(stack, member) | {"LastUpdatedTimestamp": member.timestamp}
        del detail["Timestamp"]
        if member.current is not None and member.current.metadata is not None:
            detail["Metadata"] = json.dumps(member.current.metadata)
        return {"StackResourceDetail": detail}

    def describe_stack_resources(self, params: Params) -> Params:
        """Describe the resources of a stack, or of the stack that a physical id belongs to."""
        name, physical_id, logical_id = params.get("StackName"), params.get("PhysicalResourceId"), params.get("LogicalResourceId")
        if bool(name) == bool(physical_id):
            raise validation_error("Exactly one of StackName and PhysicalResourceId must be specified")
        stack = self._stack(name) if name else self._owner(str(physical_id))
        members = [member for member in self.state.members(stack["StackId"]) if not logical_id or member.logical_id == logical_id]
        if logical_id and not members:
            raise validation_error(f"Resource {logical_id} does not exist for stack {stack['StackName']}")
        return {"StackResources": [self._resource(stack, member) for member in members[:_PAGE]]}

    def list_stack_resources(self, params: Params) -> Params:
        """List the resources of a stack."""
        stack = self._stack(params["StackName"])
        page, token = _page(self.state.members(stack["StackId"]), params.get("NextToken"))
        summaries = []
        for member in page:
            summary = self._resource(stack, member) | {"LastUpdatedTimestamp": member.timestamp}
            summaries.append({key: value for key, value in summary.items() if key not in ("Timestamp", "StackId", "StackName")})
        return _without_none({"StackResourceSummaries": summaries, "NextToken": token})

    def _resource(self, stack: Document, member: Member) -> dict[str, Json]:
        return _without_none(
            {
                "StackName": stack["StackName"],
                "StackId": stack["StackId"],
                "LogicalResourceId": member.logical_id,
                "PhysicalResourceId": member.physical_id,
                "ResourceType": member.type,
                "Timestamp": member.timestamp,
                "ResourceStatus": member.status,
                "ResourceStatusReason": member.reason,
                "DriftInformation": self._drifts.information(stack, member.logical_id),
            }
        )

    def _owner(self, physical_id: str) -> Document:
        for stack in self.state.stacks():
            if any(member.physical_id == physical_id and member.current is not None for member in self.state.members(stack["StackId"])):
                return stack
        raise validation_error(f"Stack for {physical_id} does not exist")

    def _described(self, stack: Document) -> dict[str, Json]:
        template = parse_template(stack["TemplateBody"]) if stack.get("TemplateBody") else None
        specs = declared(template.parameters) if template else {}
        keys = ("StackId", "StackName", "ChangeSetId", "Description", "CreationTime", "DeletionTime", "LastUpdatedTime", "StackStatus",
                "StackStatusReason", "TimeoutInMinutes", "RoleARN", "ParentId", "RootId", "DeletionMode")  # fmt: skip
        return _without_none({key: stack.get(key) for key in keys}) | {
            "Parameters": _shown_parameters(stack.get("Parameters") or {}, specs),
            "RollbackConfiguration": {},
            "DisableRollback": stack.get("OnFailure") == "DO_NOTHING",
            "NotificationARNs": stack.get("NotificationARNs") or [],
            "Capabilities": stack.get("Capabilities") or [],
            "Outputs": stack.get("Outputs") or [],
            "Tags": tag_list(stack.get("Tags") or {}),
            "EnableTerminationProtection": bool(stack.get("EnableTerminationProtection")),
            "DriftInformation": self._drifts.information(stack),
        }

    # --- drift --------------------------------------------------------------------------------------------------------------------------------

    def detect_stack_drift(self, params: Params) -> Params:
        """Compare a stack with reality."""
        stack = self._stack(params["StackName"])
        return {"StackDriftDetectionId": self._drifts.detect(stack, params.get("LogicalResourceIds"))}

    def detect_stack_resource_drift(self, params: Params) -> Params:
        """Compare one resource with reality."""
        stack, name = self._stack(params["StackName"]), params["LogicalResourceId"]
        self._drifts.detect(stack, [name])
        found = next((item for item in self._drifts.of_stack(stack) if item["LogicalResourceId"] == name), None)
        if found is None:
            raise validation_error(f"Drift detection is not supported by localcloud for the type of resource {name}, or it cannot be read")
        return {"StackResourceDrift": found}

    def describe_stack_drift_detection_status(self, params: Params) -> Params:
        """Return how a detection ended."""
        return self._drifts.detection(params["StackDriftDetectionId"])

    def describe_stack_resource_drifts(self, params: Params) -> Params:
        """Return what the last detections found of a stack's resources."""
        wanted = params.get("StackResourceDriftStatusFilters")
        found = [
            item
            for item in self._drifts.of_stack(self._stack(params["StackName"]))
            if not wanted or item["StackResourceDriftStatus"] in wanted
        ]
        page, token = _page(found, params.get("NextToken"))
        return _without_none({"StackResourceDrifts": page, "NextToken": token})

    # --- templates ----------------------------------------------------------------------------------------------------------------------------

    def get_template(self, params: Params) -> Params:
        """Return the text of a stack's or a change set's template."""
        if params.get("ChangeSetName"):
            body = self._change_set(params)["Fields"]["TemplateBody"]
        else:
            if not params.get("StackName"):
                raise validation_error("Either StackName or ChangeSetName must be specified")
            body = self._stack(params["StackName"])["TemplateBody"]
        if params.get("TemplateStage") == "Processed" and parse_template(body).transforms:
            raise unsupported("TemplateStage Processed of a template with a transform")
        return {"TemplateBody": body, "StagesAvailable": ["Original", "Processed"]}

    def validate_template(self, params: Params) -> Params:
        """Check a template and say what it needs."""
        template = self._read(params)
        specs = declared(template.parameters)
        return self._needs(template) | {
            "Parameters": [
                _without_none({"ParameterKey": name, "DefaultValue": spec.default, "NoEcho": spec.no_echo, "Description": spec.description})
                for name, spec in specs.items()
            ]
        }

    def get_template_summary(self, params: Params) -> Params:
        """Say what a template, or a stack's, has and needs."""
        if params.get("StackSetName"):
            raise unsupported("StackSetName")
        name = params.get("StackName")
        template = parse_template(self._stack(name)["TemplateBody"]) if name else self._read(params)
        summary = self._needs(template) | {
            "Parameters": [_declaration(name, spec) for name, spec in declared(template.parameters).items()],
            "ResourceTypes": sorted({resource.type for resource in template.resources.values()}),
            "ResourceIdentifierSummaries": [],
        }
        metadata = None if template.metadata is None else json.dumps(template.metadata)
        return summary | _without_none({"Version": template.version, "Metadata": metadata})

    def _read(self, params: Params) -> Template:
        template = parse_template(self._templates.text(params))
        check_references(template)
        return template

    def _needs(self, template: Template) -> dict[str, Json]:
        capability, types = needed_capabilities(template, self._registry)
        reason = f"The following resource(s) require capabilities: [{', '.join(types)}]" if capability else None
        return _without_none(
            {
                "Description": template.description,
                "Capabilities": [capability] if capability else None,
                "CapabilitiesReason": reason,
                "DeclaredTransforms": list(template.transforms) or None,
            }
        )

    # --- exports ------------------------------------------------------------------------------------------------------------------------------

    def list_exports(self, params: Params) -> Params:
        """List every export."""
        exports = [{"ExportingStackId": stack["StackId"], "Name": name, "Value": value} for name, value, stack in self.state.exports()]
        page, token = _page(sorted(exports, key=lambda export: export["Name"]), params.get("NextToken"))
        return _without_none({"Exports": page, "NextToken": token})

    def list_imports(self, params: Params) -> Params:
        """List the stacks that import an export."""
        name = params["ExportName"]
        importing = sorted(stack["StackName"] for stack in self.state.stacks() if name in (stack.get("Imports") or []))
        if not importing:
            known = any(export == name for export, _, _ in self.state.exports())
            raise validation_error(f"Export '{name}' is not imported by any stack." if known else f"No export named {name} found.")
        page, token = _page(importing, params.get("NextToken"))
        return _without_none({"Imports": page, "NextToken": token})

    # --- change sets --------------------------------------------------------------------------------------------------------------------------

    def create_change_set(self, params: Params) -> Params:
        """Work out what a create, an update or an import would do."""
        self._check_role(params)
        kind = params.get("ChangeSetType") or "UPDATE"
        if kind != "IMPORT" and params.get("ResourcesToImport"):
            raise validation_error("ResourcesToImport can only be specified for a change set of type IMPORT.")
        reverts = params.get("DeploymentMode") == "REVERT_DRIFT"
        if reverts and kind != "UPDATE":
            raise unsupported(f"DeploymentMode REVERT_DRIFT for a change set of type {kind}")
        name = params["StackName"]
        with self.state.lock:
            stack = self.state.stack(name)
            if stack is not None and stack["StackStatus"] == "DELETE_COMPLETE":
                stack = None
            if kind == "UPDATE" and (stack is None or stack["StackStatus"] == "REVIEW_IN_PROGRESS"):
                raise validation_error(f"Stack [{name}] does not exist")
            if kind == "CREATE" and stack is not None and stack["StackStatus"] != "REVIEW_IN_PROGRESS":
                raise validation_error(
                    f"Stack [{name}] already exists and cannot be created again with the changeSet [{params['ChangeSetName']}]."
                )
            if kind == "IMPORT" and stack is not None and stack["StackStatus"] != "REVIEW_IN_PROGRESS":
                raise unsupported("ChangeSetType IMPORT for a stack that exists")
            if kind == "UPDATE":
                assert stack is not None
                _check_updatable(stack)
            if stack is not None and any(item["ChangeSetName"] == params["ChangeSetName"] for item in self._change_sets(stack["StackId"])):
                raise ServiceError(
                    "AlreadyExistsException",
                    f"ChangeSet {params['ChangeSetName']} cannot be created due to a mismatch with existing attribute",
                )
        stack_id = stack["StackId"] if stack is not None else self._new_id("stack", _checked_name(name))
        present = {"StackId": stack_id, "StackName": name} if stack is None or kind != "UPDATE" else stack
        target = self._templates.target(params, present)
        imports = planned(target.blueprint, params.get("ResourcesToImport") or [], self.state) if kind == "IMPORT" else None
        compared = self._compared(stack_id) if reverts else None
        with self.state.lock:
            if stack is None:
                if self.state.stack(name) is not None:
                    raise ServiceError("AlreadyExistsException", f"Stack [{name}] already exists")
                stack = _new_stack(stack_id, name)
                self.state.put_stack(stack)
                stack = self.engine.recorder.stack(stack_id, "REVIEW_IN_PROGRESS", "User Initiated")
            plan = self._plan(stack, target, compared)
            changes = plan.changes if imports is None else imports
            empty = not plan and target.fields["Tags"] == (stack.get("Tags") or {}) and kind == "UPDATE"
            change_set_id = self._new_id("changeSet", params["ChangeSetName"])
            reason = "The submitted information didn't contain changes. Submit different information to create a change set."
            document = {
                "ChangeSetId": change_set_id,
                "ChangeSetName": params["ChangeSetName"],
                "StackId": stack_id,
                "StackName": stack["StackName"],
                "Type": kind,
                "Description": params.get("Description"),
                "CreationTime": datetime.now(UTC),
                "Status": "FAILED" if empty else "CREATE_COMPLETE",
                "StatusReason": reason if empty else None,
                "ExecutionStatus": "UNAVAILABLE" if empty else "AVAILABLE",
                "OnStackFailure": params.get("OnStackFailure"),
                "DeploymentMode": params.get("DeploymentMode"),
                "StackDriftStatus": None
                if compared is None
                else "DRIFTED"
                if any(c and c.drifted for c in compared.values())
                else "IN_SYNC",
                "Fields": target.fields,
                "Changes": list(changes.values()),
            }
            self.state.change_sets.put(change_set_id, document)
        return {"Id": change_set_id, "StackId": stack_id}

    def describe_change_set(self, params: Params) -> Params:
        """Show a change set."""
        change_set = self._change_set(params)
        hidden = () if params.get("IncludePropertyValues") else ("BeforeContext", "AfterContext", "PreviousDeploymentContext")
        page, token = _page(change_set["Changes"], params.get("NextToken"))
        changes = [{"Type": "Resource", "ResourceChange": _shown_change(change, hidden)} for change in page]
        fields = change_set["Fields"]
        keys = (
            "ChangeSetId",
            "ChangeSetName",
            "StackId",
            "StackName",
            "Description",
            "CreationTime",
            "Status",
            "StatusReason",
            "OnStackFailure",
            "DeploymentMode",
            "StackDriftStatus",
        )
        return _without_none({key: change_set.get(key) for key in keys} | {"NextToken": token}) | {
            "ExecutionStatus": self._execution_status(change_set),
            "Parameters": _shown_parameters(fields["Parameters"], declared(parse_template(fields["TemplateBody"]).parameters)),
            "NotificationARNs": fields["NotificationARNs"],
            "RollbackConfiguration": {},
            "Capabilities": fields["Capabilities"],
            "Tags": tag_list(fields["Tags"]),
            "Changes": changes,
            "IncludeNestedStacks": False,
        }

    def list_change_sets(self, params: Params) -> Params:
        """List a stack's change sets."""
        stack = self.state.stack(params["StackName"])
        if stack is None:
            raise validation_error(f"Stack [{params['StackName']}] does not exist")
        page, token = _page(sorted(self._change_sets(stack["StackId"]), key=lambda item: item["CreationTime"]), params.get("NextToken"))
        keys = ("StackId", "StackName", "ChangeSetId", "ChangeSetName", "Status", "StatusReason", "CreationTime", "Description")
        summaries = [
            _without_none({key: item.get(key) for key in keys}) | {"ExecutionStatus": self._execution_status(item)} for item in page
        ]
        return _without_none({"Summaries": summaries, "NextToken": token})

    def execute_change_set(self, params: Params) -> Params:
        """Do what a change set shows."""
        change_set = self._change_set(params)
        status = change_set["ExecutionStatus"]
        if change_set["Status"] != "CREATE_COMPLETE" or status != "AVAILABLE":
            shown = change_set["Status"] if change_set["Status"] != "CREATE_COMPLETE" else self._execution_status(change_set)
            raise ServiceError(
                "InvalidChangeSetStatus", f"ChangeSet [{change_set['ChangeSetId']}] cannot be executed in its current status of [{shown}]"
            )
        stack_id, change_set_id = change_set["StackId"], change_set["ChangeSetId"]
        stack = self._stack(stack_id)
        fields = change_set["Fields"]
        target = Target(fields, self.engine.blueprint({**stack, **fields}))
        retain = bool(params.get("RetainExceptOnCreate"))
        disable = bool(params.get("DisableRollback"))
        on_failure = change_set.get("OnStackFailure")
        if change_set["Type"] == "UPDATE":
            keep = disable or on_failure == "DO_NOTHING"
            token = params.get("ClientRequestToken")
            self._begin_update(
                stack,
                target,
                token,
                keep_failed=keep,
                retain_except_on_create=retain,
                change_set=change_set_id,
                revert_drift=change_set.get("DeploymentMode") == "REVERT_DRIFT",
            )
            return {}
        with self.state.lock:
            if self._stack(stack_id)["StackStatus"] != "REVIEW_IN_PROGRESS":
                raise ServiceError(
                    "InvalidChangeSetStatus", f"ChangeSet [{change_set_id}] cannot be executed in its current status of [OBSOLETE]"
                )
            self._make_change_sets_obsolete(stack_id, change_set_id)
            more = {
                "Caller": _caller(),
                "OnFailure": on_failure or ("DO_NOTHING" if disable else "ROLLBACK"),
                "RetainExceptOnCreate": retain,
                "ClientRequestToken": params.get("ClientRequestToken"),
                "ChangeSetId": change_set_id,
            }
            document = {**self._stack(stack_id), **fields, **more}
            if change_set["Type"] == "IMPORT":
                identifiers = {change["LogicalResourceId"]: change["PhysicalResourceId"] for change in change_set["Changes"]}
                self.engine.begin_import({**document, "Importing": identifiers}, target.blueprint)
            else:
                self.engine.begin_create(document, target.blueprint)
        return {}

    def delete_change_set(self, params: Params) -> Params:
        """Forget a change set."""
        change_set = self._change_set(params)
        if self._execution_status(change_set) == "EXECUTE_IN_PROGRESS":
            raise ServiceError(
                "InvalidChangeSetStatus",
                f"ChangeSet [{change_set['ChangeSetId']}] cannot be deleted in its current status of [EXECUTE_IN_PROGRESS]",
            )
        self.state.change_sets.delete(change_set["ChangeSetId"])
        return {}

    def _change_sets(self, stack_id: str) -> list[Document]:
        return [item for item in self.state.change_sets.values() if item["StackId"] == stack_id]

    def _change_set(self, params: Params) -> Document:
        name = params["ChangeSetName"]
        if name.startswith("arn:"):
            found = self.state.change_sets.get(name)
        elif params.get("StackName"):
            stack = self.state.stack(params["StackName"])
            if stack is None:
                raise validation_error(f"Stack [{params['StackName']}] does not exist")
            found = next((item for item in self._change_sets(stack["StackId"]) if item["ChangeSetName"] == name), None)
        else:
            raise validation_error("StackName must be specified if ChangeSetName is not specified as an ARN.")
        if found is None:
            raise ServiceError("ChangeSetNotFound", f"ChangeSet [{name}] does not exist", 404)
        return found

    def _execution_status(self, change_set: Document) -> str:
        if change_set["ExecutionStatus"] != "EXECUTED":
            return str(change_set["ExecutionStatus"])
        stack = self.state.stack(change_set["StackId"])
        status = stack["StackStatus"] if stack is not None else "DELETE_COMPLETE"
        if status in ("CREATE_COMPLETE", "IMPORT_COMPLETE", "UPDATE_COMPLETE", "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS", "DELETE_COMPLETE"):
            return "EXECUTE_COMPLETE"
        return "EXECUTE_IN_PROGRESS" if status.endswith("_IN_PROGRESS") else "EXECUTE_FAILED"

    def _make_change_sets_obsolete(self, stack_id: str, executed: str | None = None) -> None:
        for item in self._change_sets(stack_id):
            if item["ChangeSetId"] == executed:
                self.state.change_sets.update(item["ChangeSetId"], ExecutionStatus="EXECUTED")
            elif item["ExecutionStatus"] == "AVAILABLE":
                self.state.change_sets.update(item["ChangeSetId"], ExecutionStatus="OBSOLETE")

    # --- help ---------------------------------------------------------------------------------------------------------------------------------

    def _check_role(self, params: Params) -> None:
        role = params.get("RoleARN")
        if role and not can_assume(self.cloud, role, _SERVICE):
            raise validation_error(f"Role {role} is invalid or cannot be assumed")

    def _stack(self, name_or_id: str) -> Document:
        stack = self.state.stack(name_or_id)
        if stack is None:
            raise validation_error(f"Stack with id {name_or_id} does not exist")
        return stack

    def _new_id(self, kind: str, name: str) -> str:
        return self.cloud.arn("cloudformation", f"{kind}/{name}/{uuid.uuid4()}")

    def adopt(self, child_id: str, parent_id: str) -> None:
        """Note that a stack is another's resource."""
        parent = self._stack(parent_id)
        self.state.update_stack(child_id, ParentId=parent_id, RootId=parent.get("RootId") or parent_id)

    def template_of(self, child_id: str) -> str:
        """Return a stack's template as text."""
        return str(self._stack(child_id)["TemplateBody"])

    def put_back(self, child_id: str, template: str, request: Params) -> None:
        """Begin to update a nested stack to a template that it had before."""
        self._update({"StackName": child_id, "TemplateBody": template, **request}, largest=MAX_URL_BYTES)

    def _read_object(self, bucket: str, key: str) -> bytes | None:
        session, objects = caller(), self.cloud.objects
        if session is not None:
            objects = objects.acting_as(session.role_arn, session.name)
        try:
            return objects.read(f"s3://{bucket}/{key}")
        except ObjectAccessDenied as error:
            raise validation_error(f"S3 error: Access Denied ({error})") from error
        except ObjectNotFound:
            return None

    def _is_own_host(self, host: str, port: int | None) -> bool:
        return host in (HOST, "localhost") and port == self.cloud.port

    def _ssm_value(self, name: str) -> str | None:
        client = self.cloud.clients("ssm")
        try:
            return str(client.get_parameter(Name=name)["Parameter"]["Value"])
        except client.exceptions.ParameterNotFound:
            return None

    def _publish(self, stack: Document, event: Document) -> None:
        self._events.put((stack, event))

    def _publish_all(self) -> None:
        """Tell EventBridge and the stacks' SNS topics of events, in their order; what they cannot take is logged and lost, as on AWS."""
        while (item := self._events.get()) is not None:
            stack, event = item
            try:
                self._emit(stack, event)
                for topic in stack.get("NotificationARNs") or []:
                    self._notify(topic, event)
            except Exception:  # the thread's boundary: one event that cannot be sent must not end all others
                log.exception("an event of stack %s could not be sent", stack["StackName"])

    def _emit(self, stack: Document, event: Document) -> None:
        of_stack = event["PhysicalResourceId"] == stack["StackId"]
        detail: dict[str, Json] = {
            "stack-id": stack["StackId"],
            "status-details": {"status": event["ResourceStatus"], "status-reason": event.get("ResourceStatusReason", "")},
            "client-request-token": stack.get("ClientRequestToken") or "",
        }
        if not of_stack:
            detail |= {"logical-resource-id": event["LogicalResourceId"], "physical-resource-id": event["PhysicalResourceId"]}
            detail["resource-type"] = event["ResourceType"]
        what = "Stack" if of_stack else "Resource"
        self.cloud.emit("aws.cloudformation", f"CloudFormation {what} Status Change", detail, [stack["StackId"]])

    def _notify(self, topic: str, event: Document) -> None:
        fields = {**event, "Namespace": self.cloud.settings.account_id, "PrincipalId": self.cloud.settings.account_id}
        fields["Timestamp"] = event["Timestamp"].isoformat(timespec="milliseconds").replace("+00:00", "Z")
        message = "".join(f"{key}='{value}'\n" for key, value in sorted(fields.items()))
        try:
            self.cloud.clients("sns").publish(TopicArn=topic, Subject="AWS CloudFormation Notification", Message=message)
        except (ClientError, BotoCoreError) as error:
            log.warning("stack event could not be sent to %s: %s", topic, error)


def _caller() -> str | None:
    session = caller()
    return None if session is None else session.token


def _new_stack(stack_id: str, name: str) -> Document:
    return {
        "StackId": stack_id,
        "StackName": name,
        "StackStatus": "REVIEW_IN_PROGRESS",
        "CreationTime": datetime.now(UTC),
        "Tags": {},
        "Parameters": {},
        "Outputs": [],
        "Imports": [],
    }


def _checked_name(name: str) -> str:
    if len(name) > 128 or not _NAME.fullmatch(name):
        constraint = (
            "Member must have length less than or equal to 128"
            if len(name) > 128
            else "Member must satisfy regular expression pattern: [a-zA-Z][-a-zA-Z0-9]*"
        )
        raise validation_error(f"1 validation error detected: Value '{name}' at 'stackName' failed to satisfy constraint: {constraint}")
    return name


def _check_updatable(stack: Document) -> None:
    if stack["StackStatus"] not in _UPDATABLE:
        raise validation_error(f"Stack:{stack['StackId']} is in {stack['StackStatus']} state and can not be updated.")


def _shown_parameters(values: dict[str, Document], specs: dict[str, ParameterSpec]) -> list[dict[str, str]]:
    shown = []
    for name, document in values.items():
        hidden = name in specs and specs[name].no_echo
        item = {"ParameterKey": name, "ParameterValue": "****" if hidden else document["Raw"]}
        if document["Resolved"] is not None:
            item["ResolvedValue"] = "****" if hidden else document["Resolved"]
        shown.append(item)
    return shown


def _declaration(name: str, spec: ParameterSpec) -> dict[str, Json]:
    return _without_none(
        {
            "ParameterKey": name,
            "DefaultValue": spec.default,
            "ParameterType": spec.type,
            "NoEcho": spec.no_echo,
            "Description": spec.description,
            "ParameterConstraints": {"AllowedValues": list(spec.allowed_values)} if spec.allowed_values else {},
        }
    )


def _shown_change(change: Document, hidden: tuple[str, ...]) -> Document:
    shown = {key: value for key, value in change.items() if key not in hidden}
    if hidden:
        details = []
        for detail in change["Details"]:
            target = {
                key: value
                for key, value in detail["Target"].items()
                if key not in ("BeforeValue", "AfterValue", "Path", "AttributeChangeType", "BeforeValueFrom", "AfterValueFrom", "Drift")
            }
            details.append({**detail, "Target": target})
        shown["Details"] = details
    return shown


def _without_none(document: dict[str, Json]) -> dict[str, Json]:
    return {key: value for key, value in document.items() if value is not None}


def _page(items: list[Any], token: str | None) -> tuple[list[Any], str | None]:
    begin = _position(token, 0)
    end = begin + _PAGE
    return items[begin:end], _token(end) if end < len(items) else None


def _token(position: int) -> str:
    return base64.urlsafe_b64encode(f"localcloud:{position}".encode()).decode()


def _position(token: str | None, default: int) -> int:
    if not token:
        return default
    try:
        prefix, _, position = base64.urlsafe_b64decode(token.encode()).decode().partition(":")
        if prefix == "localcloud":
            return int(position)
    except (binascii.Error, ValueError):
        pass
    raise validation_error(f"NextToken '{token}' is not valid")
