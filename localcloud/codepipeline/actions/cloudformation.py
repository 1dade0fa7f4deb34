"""Deploy: CloudFormation.

https://docs.aws.amazon.com/codepipeline/latest/userguide/action-reference-CloudFormation.html
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from botocore.exceptions import ClientError

from localcloud.codepipeline.actions.action import Action, ActionFailed, Answer, Job, Kind, Started, State, Succeeded
from localcloud.codepipeline.artifacts import Artifact, ArtifactError, read_file, zip_files

_CHANGE_SET_MODES = ("CHANGE_SET_REPLACE", "CHANGE_SET_EXECUTE")
_TEMPLATE_MODES = ("CREATE_UPDATE", "REPLACE_ON_FAILURE", "CHANGE_SET_REPLACE")
_MODES = (*_CHANGE_SET_MODES, "CREATE_UPDATE", "DELETE_ONLY", "REPLACE_ON_FAILURE")
#: Statuses of a stack after which REPLACE_ON_FAILURE makes it anew.
_REPLACED = ("ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "CREATE_FAILED", "DELETE_FAILED", "UPDATE_ROLLBACK_FAILED")
_NO_UPDATES = "No updates are to be performed"
_NO_CHANGES = ("The submitted information didn't contain changes", "No updates are to be performed")
_TIMEOUT_MINUTES = 3 * 24 * 60


class CloudFormation(Action):
    """Creates, changes and deletes a stack, at once or through a change set."""

    kinds: ClassVar[tuple[Kind, ...]] = (
        Kind(
            "Deploy",
            "CloudFormation",
            required=frozenset(("ActionMode", "StackName")),
            optional=frozenset(
                (
                    "Capabilities",
                    "ChangeSetName",
                    "OutputFileName",
                    "ParameterOverrides",
                    "RoleArn",
                    "TemplateConfiguration",
                    "TemplatePath",
                )
            ),
            inputs=(0, 10),
            outputs=(0, 1),
            timeout_minutes=_TIMEOUT_MINUTES,
        ),
    )

    def validate(self, configuration: Mapping[str, str]) -> str | None:
        """Check the mode and what it needs."""
        mode = configuration["ActionMode"]
        if mode not in _MODES:
            return f"ActionMode '{mode}' is not valid; it is one of {', '.join(_MODES)}"
        needed = [("ChangeSetName", mode in _CHANGE_SET_MODES), ("TemplatePath", mode in _TEMPLATE_MODES)]
        needed.append(("RoleArn", mode != "CHANGE_SET_EXECUTE"))
        for name, wanted in needed:
            if wanted and not configuration.get(name):
                return f"{name} is required when ActionMode is {mode}"
        return None

    def start(self, job: Job) -> Started | Succeeded:
        """Begin the operation on the stack."""
        mode, stack, client = job.configuration["ActionMode"], job.configuration["StackName"], job.clients("cloudformation")
        status = _status(client, stack)
        if mode == "DELETE_ONLY":
            if status is None:
                return Succeeded(summary=f"Stack {stack} does not exist.")
            # By its ARN, as a stack that is gone has no name any more.
            arn = _stack(client, stack)["StackId"]
            client.delete_stack(StackName=arn, **_role(job))
            return Started({"stack": arn, "operation": "delete"}, arn)
        if mode == "CHANGE_SET_EXECUTE":
            return self._execute(job, client, stack)
        if mode == "CHANGE_SET_REPLACE":
            return self._replace_change_set(job, client, stack, status)
        if mode == "REPLACE_ON_FAILURE" and status in _REPLACED:
            arn = _stack(client, stack)["StackId"]
            client.delete_stack(StackName=arn, **_role(job))
            return Started({"stack": arn, "operation": "replace"}, arn)
        return self._create_or_update(job, client, stack, status)

    def check(self, job: Job, state: State, inbox: Sequence[Answer]) -> Started | Succeeded | None:
        """Ask how the operation is."""
        client, operation, stack = job.clients("cloudformation"), state["operation"], state["stack"]
        if operation == "change-set":
            return self._check_change_set(client, state)
        found = _stack(client, stack)
        status = found["StackStatus"]
        if operation == "replace" and status == "DELETE_COMPLETE":
            return self._create_or_update(job, client, job.configuration["StackName"], None)
        if status.endswith("_IN_PROGRESS"):
            return None
        if status == {"create": "CREATE_COMPLETE", "update": "UPDATE_COMPLETE", "delete": "DELETE_COMPLETE"}.get(operation):
            return self._done(job, found, operation)
        reason = _reason(client, found)
        raise ActionFailed("JobFailed", f"Stack {found['StackName']} is in {status}.{' ' + reason if reason else ''}")

    def _create_or_update(self, job: Job, client: Any, stack: str, status: str | None) -> Started | Succeeded:
        request = _request(job)
        if status is None:
            client.create_stack(StackName=stack, **request)
            return self._started(client, stack, "create")
        try:
            client.update_stack(StackName=stack, **request)
        except ClientError as error:
            if _NO_UPDATES in error.response["Error"]["Message"]:
                return self._done(job, _stack(client, stack), "update")
            raise
        return self._started(client, stack, "update")

    def _replace_change_set(self, job: Job, client: Any, stack: str, status: str | None) -> Started:
        name = job.configuration["ChangeSetName"]
        kind = "CREATE" if status in (None, "REVIEW_IN_PROGRESS") else "UPDATE"
        if status is not None:
            client.delete_change_set(StackName=stack, ChangeSetName=name)
        made = client.create_change_set(StackName=stack, ChangeSetName=name, ChangeSetType=kind, **_request(job))
        return Started({"stack": made["StackId"], "operation": "change-set", "change_set": made["Id"]}, made["Id"])

    def _check_change_set(self, client: Any, state: State) -> Succeeded | None:
        found = client.describe_change_set(StackName=state["stack"], ChangeSetName=state["change_set"])
        status, reason, name = found["Status"], found.get("StatusReason", ""), found["ChangeSetName"]
        if status == "CREATE_COMPLETE":
            return Succeeded(summary=f"Change set {name} was created.", external_id=state["change_set"])
        if status == "FAILED":
            # The action succeeds when nothing would change; executing that change set then does nothing.
            if reason.startswith(_NO_CHANGES):
                return Succeeded(summary=f"Change set {name} was not created: {reason}", external_id=state["change_set"])
            raise ActionFailed("JobFailed", f"Change set {name} could not be created: {reason}")
        return None

    def _execute(self, job: Job, client: Any, stack: str) -> Started | Succeeded:
        name = job.configuration["ChangeSetName"]
        try:
            found = client.describe_change_set(StackName=stack, ChangeSetName=name)
        except ClientError as error:
            message = f"Change set {name} of stack {stack} cannot be executed: {error.response['Error']['Message']}"
            raise ActionFailed("ConfigurationError", message) from error
        if found["Status"] == "FAILED" and found.get("StatusReason", "").startswith(_NO_CHANGES):
            return self._done(job, _stack(client, stack), "update")
        operation = "create" if _stack(client, stack)["StackStatus"] == "REVIEW_IN_PROGRESS" else "update"
        client.execute_change_set(StackName=stack, ChangeSetName=name)
        return self._started(client, stack, operation)

    @staticmethod
    def _started(client: Any, stack: str, operation: str) -> Started:
        arn = _stack(client, stack)["StackId"]
        return Started({"stack": arn, "operation": operation}, arn)

    @staticmethod
    def _done(job: Job, stack: dict[str, Any], operation: str) -> Succeeded:
        outputs = {output["OutputKey"]: str(output["OutputValue"]) for output in stack.get("Outputs", [])}
        name = job.configuration.get("OutputFileName")
        if name and job.outputs:
            job.write(next(iter(job.outputs.values())), zip_files({name: json.dumps(outputs, indent=2)}))
        summary = f"Stack {stack['StackName']} was {operation}d."
        return Succeeded({} if operation == "delete" else outputs, summary, stack["StackId"])


def _stack(client: Any, name: str) -> dict[str, Any]:
    stack: dict[str, Any] = client.describe_stacks(StackName=name)["Stacks"][0]
    return stack


def _status(client: Any, name: str) -> str | None:
    try:
        return str(_stack(client, name)["StackStatus"])
    except ClientError as error:
        if "does not exist" in error.response["Error"]["Message"]:
            return None
        raise


def _role(job: Job) -> dict[str, str]:
    return {"RoleARN": job.configuration["RoleArn"]} if job.configuration.get("RoleArn") else {}


def _request(job: Job) -> dict[str, Any]:
    """Return what CreateStack, UpdateStack and CreateChangeSet have in common."""
    configuration = job.configuration
    request: dict[str, Any] = {"TemplateBody": _file(job, configuration["TemplatePath"], "TemplatePath"), **_role(job)}
    capabilities = [name.strip() for name in configuration.get("Capabilities", "").split(",") if name.strip()]
    if capabilities:
        request["Capabilities"] = capabilities
    parameters: dict[str, str] = {}
    if configuration.get("TemplateConfiguration"):
        document = _json(_file(job, configuration["TemplateConfiguration"], "TemplateConfiguration"), "TemplateConfiguration")
        if unknown := set(document) - {"Parameters", "Tags", "StackPolicy"}:
            raise ActionFailed("ConfigurationError", f"TemplateConfiguration has unknown keys: {', '.join(sorted(unknown))}")
        if "StackPolicy" in document:
            raise ActionFailed("ConfigurationError", "StackPolicy of a TemplateConfiguration is not supported by localcloud")
        parameters |= {name: _text(job, value) for name, value in document.get("Parameters", {}).items()}
        if document.get("Tags"):
            request["Tags"] = [{"Key": key, "Value": str(value)} for key, value in document["Tags"].items()]
    if configuration.get("ParameterOverrides"):
        overrides = _json(configuration["ParameterOverrides"], "ParameterOverrides")
        parameters |= {name: _text(job, value) for name, value in overrides.items()}
    if parameters:
        request["Parameters"] = [{"ParameterKey": name, "ParameterValue": value} for name, value in parameters.items()]
    return request


def _file(job: Job, reference: str, member: str) -> str:
    """Return the file that ``Artifact::path`` names."""
    artifact, separator, path = reference.partition("::")
    if not separator or artifact not in job.inputs:
        inputs = ", ".join(job.inputs) or "none"
        raise ActionFailed(
            "ConfigurationError", f"{member} '{reference}' must be InputArtifact::file; the action's input artifacts: {inputs}"
        )
    try:
        return read_file(job.read(job.inputs[artifact]), path, artifact)
    except ArtifactError as error:
        raise ActionFailed("ConfigurationError", str(error)) from error


def _json(text: str, member: str) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except ValueError as error:
        raise ActionFailed("ConfigurationError", f"{member} is not valid JSON: {error}") from error
    if not isinstance(document, dict):
        raise ActionFailed("ConfigurationError", f"{member} is not a JSON object")
    return document


def _text(job: Job, value: Any) -> str:
    """Return a parameter's value: text, a list joined by commas, or ``Fn::GetArtifactAtt`` and ``Fn::GetParam``.

    https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/continuous-delivery-codepipeline-parameter-override-functions.html
    """
    if isinstance(value, dict) and set(value) == {"Fn::GetArtifactAtt"}:
        artifact, attribute = value["Fn::GetArtifactAtt"]
        found = _input(job, artifact)
        known: dict[str, str] = {
            "BucketName": found.bucket,
            "ObjectKey": found.key,
            "URL": f"https://s3.amazonaws.com/{found.bucket}/{found.key}",
        }
        if attribute not in known:
            raise ActionFailed("ConfigurationError", f"Fn::GetArtifactAtt has no attribute {attribute}; it has {', '.join(known)}")
        return known[attribute]
    if isinstance(value, dict) and set(value) == {"Fn::GetParam"}:
        artifact, path, key = value["Fn::GetParam"]
        _input(job, artifact)
        document = _json(_file(job, f"{artifact}::{path}", "Fn::GetParam"), path)
        if key not in document:
            raise ActionFailed("ConfigurationError", f"Fn::GetParam: {path} in artifact {artifact} has no key {key}")
        return str(document[key])
    if isinstance(value, list):
        return ",".join(str(item) for item in value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        raise ActionFailed("ConfigurationError", f"A parameter's value cannot be {json.dumps(value)}")
    return str(value)


def _input(job: Job, artifact: str) -> Artifact:
    if artifact not in job.inputs:
        raise ActionFailed("ConfigurationError", f"{artifact} is not an input artifact of the action {job.action}")
    return job.inputs[artifact]


def _reason(client: Any, stack: dict[str, Any]) -> str:
    """Return what CloudFormation says of a failure: the stack's own reason, or the first resource that failed."""
    try:
        events = client.describe_stack_events(StackName=stack["StackId"])["StackEvents"]
    except ClientError:
        events = []
    for event in reversed(events[: next((i for i, e in enumerate(events) if _begins(e)), len(events))]):
        if event["ResourceStatus"].endswith("_FAILED") and event.get("ResourceStatusReason"):
            return f"{event['LogicalResourceId']}: {event['ResourceStatusReason']}"
    return str(stack.get("StackStatusReason", ""))


def _begins(event: dict[str, Any]) -> bool:
    """Tell whether an event is the begin of an operation on the stack itself."""
    own = event["PhysicalResourceId"] == event["StackId"]
    return own and event["ResourceStatus"] in ("CREATE_IN_PROGRESS", "UPDATE_IN_PROGRESS", "DELETE_IN_PROGRESS")
