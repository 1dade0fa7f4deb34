"""The CodePipeline API."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING, Any, ClassVar

from localcloud.codepipeline import views
from localcloud.codepipeline.declaration import Declaration, check_declaration, normalized, source_actions
from localcloud.codepipeline.engine import Engine
from localcloud.codepipeline.store import ACTIVE, PipelineStore, now
from localcloud.codepipeline.triggers import Triggers
from localcloud.errors import ServiceError, not_supported
from localcloud.iam.trust import can_assume
from localcloud.service import Params, Service

if TYPE_CHECKING:
    from localcloud.cloud import Cloud
    from localcloud.codeconnections.service import CodeConnectionsService
    from localcloud.database import Document

_PRINCIPAL = "codepipeline.amazonaws.com"
_NOT_FOUND = "PipelineNotFoundException"
#: Executions of one pipeline that may go on at once (https://docs.aws.amazon.com/codepipeline/latest/userguide/limits.html).
_MAX_EXECUTIONS = 50
_MAX_TAGS = 50
#: Which kinds of revisions each source takes.
_REVISION_TYPES = {"S3": ("S3_OBJECT_VERSION_ID", "S3_OBJECT_KEY"), "CodeStarSourceConnection": ("COMMIT_ID",)}


class CodePipelineService(Service):
    """AWS CodePipeline."""

    name: ClassVar[str] = "codepipeline"

    def __init__(self, cloud: Cloud) -> None:
        super().__init__(cloud)
        self._store = PipelineStore(cloud.db)
        self._engine = Engine(cloud, self._store)
        self._connections: CodeConnectionsService
        self._triggers: Triggers

    def start(self) -> None:
        """Go on with executions, and watch sources."""
        connections: Any = self.cloud.services["codeconnections"]
        self._connections = connections
        self._triggers = Triggers(self._store, connections, self._engine.clients, self._begin)
        self._engine.recover()
        self._triggers.start()

    def stop(self) -> None:
        """Leave executions as they are; they go on at the next start."""
        self._store.close()
        self._engine.join(5)
        self._triggers.join()

    # Pipelines

    def create_pipeline(self, params: Params) -> dict[str, Any]:
        """CreatePipeline; the new pipeline runs at once, as on AWS."""
        declaration = params["pipeline"]
        self._check(declaration)
        tags = _merged_tags([], params.get("tags", []))
        name = declaration["name"]
        self._connections.look()
        with self._store.pipelines.lock():
            if name in self._store.pipelines:
                raise ServiceError(
                    "PipelineNameInUseException", f"A pipeline with the name '{name}' already exists in account '{self._account}'"
                )
            declaration = normalized(declaration, 1)
            self._store.put_version(name, declaration)
            document: Document = {
                "name": name,
                "pipeline": declaration,
                "created": now(),
                "updated": now(),
                "transitions": {},
                "tags": tags,
                "polled": self._polled(declaration),
            }
            self._store.pipelines.put(name, document)
        self._begin(name, {"triggerType": "CreatePipeline", "triggerDetail": self._caller}, {})
        return {"pipeline": declaration, "tags": tags}

    def update_pipeline(self, params: Params) -> dict[str, Any]:
        """UpdatePipeline; executions that are under way keep the structure with which they started."""
        declaration = params["pipeline"]
        self._check(declaration)
        name = declaration["name"]
        with self._store.pipelines.lock():
            document = self._pipeline(name)
            declaration = normalized(declaration, document["pipeline"]["version"] + 1)
            self._store.put_version(name, declaration)
            stages = {stage["name"] for stage in declaration["stages"]}
            transitions = {stage: state for stage, state in document["transitions"].items() if stage in stages}
            polled = {action: document["polled"].get(action, version) for action, version in self._polled(declaration).items()}
            self._store.pipelines.update(name, pipeline=declaration, updated=now(), transitions=transitions, polled=polled)
        return {"pipeline": declaration}

    def get_pipeline(self, params: Params) -> dict[str, Any]:
        """GetPipeline."""
        name = params["name"]
        document = self._pipeline(name)
        declaration = document["pipeline"]
        if "version" in params:
            declaration = self._store.version(name, params["version"])
            if declaration is None:
                raise ServiceError(
                    "PipelineVersionNotFoundException", f"The pipeline '{name}' does not have a version '{params['version']}'"
                )
        metadata = {"pipelineArn": self._arn(name), "created": document["created"], "updated": document["updated"]}
        return {"pipeline": declaration, "metadata": metadata}

    def list_pipelines(self, params: Params) -> dict[str, Any]:
        """ListPipelines."""
        shown = [
            {
                "name": document["name"],
                "version": document["pipeline"]["version"],
                "pipelineType": document["pipeline"]["pipelineType"],
                "executionMode": document["pipeline"]["executionMode"],
                "created": document["created"],
                "updated": document["updated"],
            }
            for document in self._store.pipelines.values()
        ]
        return _page(shown, "pipelines", params)

    def delete_pipeline(self, params: Params) -> None:
        """DeletePipeline; deleting a missing one succeeds, as on AWS. What its executions had begun elsewhere goes on there."""
        self._store.delete_pipeline(params["name"])

    def get_pipeline_state(self, params: Params) -> dict[str, Any]:
        """GetPipelineState."""
        name = params["name"]
        document = self._pipeline(name)
        return views.pipeline_state(document, self._store.executions(name), self._store.actions(name))

    def _check(self, declaration: Declaration) -> None:
        check_declaration(declaration, self.cloud.settings.region)
        actions = [action for stage in declaration["stages"] for action in stage["actions"]]
        # The pipeline's role assumes the roles of actions; which it may is checked when they run.
        if not can_assume(self.cloud, declaration["roleArn"], _PRINCIPAL, self.cloud.arn("codepipeline", declaration["name"])):
            raise ServiceError(
                "InvalidStructureException", f"CodePipeline is not authorized to perform AssumeRole on role {declaration['roleArn']}"
            )
        for action in actions:
            if len(action["name"]) + len(action.get("namespace") or "") > 200:
                raise ServiceError("InvalidActionDeclarationException", f"The names of the action '{action['name']}' are too long")

    def _polled(self, declaration: Declaration) -> dict[str, str | None]:
        return self._triggers.polled_versions(declaration)

    # Executions

    def start_pipeline_execution(self, params: Params) -> dict[str, Any]:
        """StartPipelineExecution."""
        trigger = {"triggerType": "StartPipelineExecution", "triggerDetail": self._caller}
        overrides = self._overrides(self._pipeline(params["name"])["pipeline"], params.get("sourceRevisions", []))
        execution = self._begin(params["name"], trigger, overrides, params.get("variables", []), params.get("clientRequestToken"))
        return {"pipelineExecutionId": execution["id"]}

    def start_from_rule(self, arn: str, rule_arn: str, payload: Any) -> None:
        """Start a pipeline that is the target of an EventBridge rule.

        Args:
            arn: The pipeline's ARN.
            rule_arn: The rule's.
            payload: What the rule sends. An input transformer may bring ``sourceRevisions`` and ``variables``; anything else is only a reason to start.

        Raises:
            ServiceError: There is no such pipeline, or it cannot be started so.
        """
        name = arn.rpartition(":")[2]
        given = payload if isinstance(payload, dict) and "detail-type" not in payload else {}
        overrides = self._overrides(self._pipeline(name)["pipeline"], given.get("sourceRevisions", []))
        try:
            variables = [{"name": str(one["name"]), "value": str(one["value"])} for one in given.get("variables", [])]
        except (KeyError, TypeError) as error:
            raise ServiceError("ValidationException", f"The variables are not valid: {json.dumps(given['variables'])}") from error
        self._begin(name, {"triggerType": "CloudWatchEvent", "triggerDetail": rule_arn}, overrides, variables)

    def _begin(
        self,
        name: str,
        trigger: dict[str, str],
        overrides: dict[str, list[dict[str, Any]]],
        variables: list[dict[str, str]] | None = None,
        token: str | None = None,
        git: dict[str, str] | None = None,
    ) -> Document:
        document = self._pipeline(name)
        declaration = document["pipeline"]
        with self._store.lock():
            if token is not None:
                same = next((one for one in self._store.executions(name) if one["token"] == token), None)
                if same is not None:
                    return same
            if len(self._engine.active(name)) >= _MAX_EXECUTIONS:
                raise ServiceError(
                    "ConcurrentPipelineExecutionsLimitExceededException",
                    f"The pipeline '{name}' has {_MAX_EXECUTIONS} executions under way, which is the most it can have",
                )
            execution = self._store.new_execution(
                {
                    "id": str(uuid.uuid4()),
                    "pipeline": name,
                    "version": declaration["version"],
                    "mode": declaration["executionMode"],
                    "status": "InProgress",
                    "trigger": trigger,
                    "git": git,
                    "variables": _pipeline_variables(declaration, variables or []),
                    "overrides": overrides,
                    "token": token,
                    "attempt": 1,
                    "started": now(),
                    "updated": now(),
                    "stages": {},
                    "waits": None,
                    "occupies": None,
                    "artifacts": {},
                    "namespaces": {},
                    "revisions": {},
                }
            )
        self._engine.start(execution)
        return execution

    def stop_pipeline_execution(self, params: Params) -> dict[str, Any]:
        """StopPipelineExecution."""
        execution = self._execution(params["pipelineName"], params["pipelineExecutionId"])
        abandon = bool(params.get("abandon"))
        stopped: list[str] = []

        def stop(document: Document) -> None:
            if document["status"] not in ACTIVE:
                raise ServiceError(
                    "PipelineExecutionNotStoppableException",
                    f"Unable to stop pipeline execution '{document['id']}': it is in the status {document['status']}",
                )
            if document["status"] == "Stopping" and (document["stop"]["abandon"] or not abandon):
                raise ServiceError(
                    "DuplicatedStopRequestException", f"The pipeline execution '{document['id']}' is already being stopped in this way"
                )
            stopped.append(document["status"])
            document |= {"status": "Stopping", "stop": {"abandon": abandon, "reason": params.get("reason", "")}}

        changed = self._store.change_execution(execution["pipeline"], execution["id"], stop)
        if stopped == ["InProgress"]:
            self._engine.events.pipeline(changed, "STOPPING")
            if changed["occupies"]:
                self._engine.events.stage(changed, changed["occupies"], "STOPPING")
        return {"pipelineExecutionId": execution["id"]}

    def get_pipeline_execution(self, params: Params) -> dict[str, Any]:
        """GetPipelineExecution."""
        return {"pipelineExecution": views.execution(self._execution(params["pipelineName"], params["pipelineExecutionId"]))}

    def list_pipeline_executions(self, params: Params) -> dict[str, Any]:
        """ListPipelineExecutions."""
        self._pipeline(params["pipelineName"])
        executions = self._store.executions(params["pipelineName"])
        in_stage = params.get("filter", {}).get("succeededInStage", {}).get("stageName")
        if in_stage is not None:
            executions = [one for one in executions if one["stages"].get(in_stage, {}).get("status") == "Succeeded"]
        return _page([views.execution_summary(one) for one in executions], "pipelineExecutionSummaries", params)

    def list_action_executions(self, params: Params) -> dict[str, Any]:
        """ListActionExecutions."""
        name, wanted = params["pipelineName"], params.get("filter", {})
        self._pipeline(name)
        identifier = wanted.get("pipelineExecutionId") or wanted.get("latestInPipelineExecution", {}).get("pipelineExecutionId")
        if identifier is not None:
            self._execution(name, identifier)
        shown = [views.action_detail(action, self.cloud.settings.region) for action in self._store.actions(name, identifier)]
        return _page(shown, "actionExecutionDetails", params)

    def retry_stage_execution(self, params: Params) -> dict[str, Any]:
        """RetryStageExecution."""
        name, stage = params["pipelineName"], params["stageName"]
        execution = self._execution(name, params["pipelineExecutionId"])
        self._stage(self._store.version(name, execution["version"]) or {}, stage)
        if any(later["number"] > execution["number"] and stage in later["stages"] for later in self._store.executions(name)):
            raise ServiceError(
                "NotLatestPipelineExecutionException",
                f"The execution '{execution['id']}' is not the latest in the stage '{stage}'; a later one has been there",
            )

        def retry(document: Document) -> None:
            if document["status"] in ACTIVE or document["stages"].get(stage, {}).get("status") not in ("Failed", "Stopped"):
                raise ServiceError("StageNotRetryableException", f"The stage '{stage}' of the execution '{document['id']}' has not failed")
            own = document["stages"][stage]
            own |= {"retried": own.get("retried", 0) + 1, "retried_at": now()}
            if params["retryMode"] == "ALL_ACTIONS":
                # What ran before counts no more.
                own["from"] = max((one["number"] for one in self._store.actions(name, document["id"])), default=0) + 1
            document |= {"status": "InProgress", "attempt": document["attempt"] + 1, "retried": now()}
            document.pop("stop", None)

        self._engine.resume(self._store.change_execution(name, execution["id"], retry), stage)
        return {"pipelineExecutionId": execution["id"]}

    def put_approval_result(self, params: Params) -> dict[str, Any]:
        """PutApprovalResult."""
        name, stage, action = params["pipelineName"], params["stageName"], params["actionName"]
        found = self._stage(self._pipeline(name)["pipeline"], stage)
        if action not in [one["name"] for one in found["actions"]]:
            raise ServiceError("ActionNotFoundException", f"The stage '{stage}' of the pipeline '{name}' has no action '{action}'")
        asked = next((one for one in self._store.actions(name) if (one["stage"], one["action"]) == (stage, action)), None)
        if asked is None or asked.get("token") != params["token"]:
            raise ServiceError("InvalidApprovalTokenException", "The approval token is not valid")
        decided = now()

        def answer(document: Document) -> None:
            if document["status"] != "InProgress" or document["inbox"]:
                raise ServiceError("ApprovalAlreadyCompletedException", "The approval action has already been approved or rejected")
            document["inbox"].append(params["result"])
            document["updated_by"] = self._caller

        self._store.change_action(name, asked["number"], answer)
        return {"approvedAt": decided}

    def put_job_success_result(self, params: Params) -> None:
        """PutJobSuccessResult."""
        if params.get("currentRevision"):
            raise not_supported("currentRevision of PutJobSuccessResult")
        self._put_job_result(params["jobId"], {member: value for member, value in params.items() if member != "jobId"})

    def put_job_failure_result(self, params: Params) -> None:
        """PutJobFailureResult."""
        self._put_job_result(params["jobId"], {"failure": params["failureDetails"]})

    def _put_job_result(self, job_id: str, result: dict[str, Any]) -> None:
        action = self._store.find_action(job_id)
        if action is None or action["type"]["provider"] != "Lambda":
            raise ServiceError("JobNotFoundException", f"The job '{job_id}' does not exist")

        def put(document: Document) -> None:
            last = document["inbox"][-1] if document["inbox"] else {"continuationToken": ""}
            if document["status"] != "InProgress" or "continuationToken" not in last:
                raise ServiceError("InvalidJobStateException", f"The job '{job_id}' already has its result")
            document["inbox"].append(result)

        self._store.change_action(action["pipeline"], action["number"], put)

    # Transitions

    def disable_stage_transition(self, params: Params) -> None:
        """DisableStageTransition."""
        state = {"reason": params["reason"], "at": now(), "by": self._caller}
        self._set_transition(params, lambda transitions, stage: transitions.update({stage: state}))

    def enable_stage_transition(self, params: Params) -> None:
        """EnableStageTransition."""
        self._set_transition(params, lambda transitions, stage: transitions.pop(stage, None))

    def _set_transition(self, params: Params, change: Any) -> None:
        if params["transitionType"] == "Outbound":
            raise not_supported("transitionType Outbound (disable the inbound transition of the next stage)")
        with self._store.pipelines.lock():
            document = self._pipeline(params["pipelineName"])
            stage = self._stage(document["pipeline"], params["stageName"])["name"]
            if stage == document["pipeline"]["stages"][0]["name"]:
                raise ServiceError("ValidationException", f"The first stage '{stage}' has no inbound transition")
            change(document["transitions"], stage)
            self._store.pipelines.put(document["name"], document)

    # Tags

    def tag_resource(self, params: Params) -> dict[str, Any]:
        """TagResource."""
        with self._store.pipelines.lock():
            document = self._tagged(params["resourceArn"])
            self._store.pipelines.update(document["name"], tags=_merged_tags(document["tags"], params["tags"]))
        return {}

    def untag_resource(self, params: Params) -> dict[str, Any]:
        """UntagResource."""
        with self._store.pipelines.lock():
            document = self._tagged(params["resourceArn"])
            self._store.pipelines.update(document["name"], tags=[tag for tag in document["tags"] if tag["key"] not in params["tagKeys"]])
        return {}

    def list_tags_for_resource(self, params: Params) -> dict[str, Any]:
        """ListTagsForResource."""
        return _page(self._tagged(params["resourceArn"])["tags"], "tags", params)

    # Finding

    @property
    def _account(self) -> str:
        return self.cloud.settings.account_id

    @property
    def _caller(self) -> str:
        return f"arn:aws:iam::{self._account}:root"

    def _arn(self, name: str) -> str:
        return self.cloud.arn("codepipeline", name)

    def _pipeline(self, name: str) -> Document:
        document = self._store.pipelines.get(name)
        if document is None:
            raise ServiceError(_NOT_FOUND, f"Account '{self._account}' does not have a pipeline with name '{name}'")
        return document

    def _execution(self, name: str, identifier: str) -> Document:
        self._pipeline(name)
        execution = self._store.execution(name, identifier)
        if execution is None:
            raise ServiceError("PipelineExecutionNotFoundException", f"Pipeline '{name}' does not have an execution with id '{identifier}'")
        return execution

    def _tagged(self, arn: str) -> Document:
        name = arn.rpartition(":")[2]
        document = self._store.pipelines.get(name)
        if document is None or arn != self._arn(name):
            raise ServiceError("ResourceNotFoundException", f"Resource '{arn}' not found")
        return document

    @staticmethod
    def _stage(declaration: Declaration, stage: str) -> dict[str, Any]:
        for one in declaration.get("stages", []):
            if one["name"] == stage:
                found: dict[str, Any] = one
                return found
        raise ServiceError("StageNotFoundException", f"The pipeline '{declaration.get('name')}' does not have a stage '{stage}'")

    @staticmethod
    def _overrides(declaration: Declaration, revisions: Any) -> dict[str, list[dict[str, Any]]]:
        providers = {action["name"]: action["actionTypeId"]["provider"] for action in source_actions(declaration)}
        overrides: dict[str, list[dict[str, Any]]] = {}
        for revision in revisions:
            try:
                name, kind, value = revision["actionName"], revision["revisionType"], revision["revisionValue"]
            except (KeyError, TypeError) as error:
                raise ServiceError("ValidationException", f"A source revision is not valid: {json.dumps(revision)}") from error
            if name not in providers:
                raise ServiceError("ValidationException", f"The pipeline has no source action '{name}'")
            if kind not in _REVISION_TYPES[providers[name]]:
                allowed = ", ".join(_REVISION_TYPES[providers[name]])
                raise ServiceError(
                    "ValidationException", f"The source action '{name}' does not take the revision type {kind}; it takes {allowed}"
                )
            overrides.setdefault(name, []).append({"revision_type": kind, "value": value})
        return overrides


def _pipeline_variables(declaration: Declaration, given: list[dict[str, str]]) -> dict[str, str]:
    """Return the values of a V2 pipeline's variables for one execution."""
    declared = {variable["name"]: variable.get("defaultValue") for variable in declaration.get("variables", [])}
    values = {variable["name"]: variable["value"] for variable in given}
    unknown = sorted(set(values) - set(declared))
    if unknown:
        raise ServiceError(
            "ValidationException", f"The pipeline '{declaration['name']}' does not declare the variables: {', '.join(unknown)}"
        )
    return {name: value for name, default in declared.items() if (value := values.get(name, default)) is not None}


def _merged_tags(tags: list[dict[str, str]], new: list[dict[str, str]]) -> list[dict[str, str]]:
    if any(tag["key"].lower().startswith("aws:") for tag in new):
        raise ServiceError("InvalidTagsException", "Tag keys cannot begin with aws:")
    merged = list(({tag["key"]: tag for tag in tags} | {tag["key"]: tag for tag in new}).values())
    if len(merged) > _MAX_TAGS:
        raise ServiceError("TooManyTagsException", f"A pipeline can have at most {_MAX_TAGS} tags")
    return merged


def _page(items: list[Any], member: str, params: Params) -> dict[str, Any]:
    """Return one page of a listing (the token is the index of what follows)."""
    token = str(params.get("nextToken") or "0")
    if not token.isdigit():
        raise ServiceError("InvalidNextTokenException", "The next token is not valid")
    begin = int(token)
    end = begin + int(params.get("maxResults") or 100)
    return {member: items[begin:end]} | ({"nextToken": str(end)} if end < len(items) else {})
