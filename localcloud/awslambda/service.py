"""The Lambda API."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from localcloud.awslambda import moto_seam
from localcloud.awslambda.code import Code, CodeStore
from localcloud.awslambda.configuration import Configurator, public
from localcloud.awslambda.event_queue import EventQueue
from localcloud.awslambda.functions import LATEST, FunctionStore, Target, new_revision
from localcloud.awslambda.invocations import MAX_EVENT_BYTES, MAX_REQUEST_BYTES, InvocationResult, Invoker
from localcloud.errors import ServiceError, not_supported
from localcloud.iam.trust import ServiceCall, allows
from localcloud.service import Params, Service

if TYPE_CHECKING:
    from moto.core.model import OperationModel
    from moto.core.request import Request
    from werkzeug.wrappers import Response

    from localcloud.cloud import Cloud
    from localcloud.database import Document

log = logging.getLogger(__name__)

_INVALID = "InvalidParameterValueException"
_NOT_FOUND = "ResourceNotFoundException"
_DESTINATIONS = ("sqs", "sns", "lambda", "events")


class LambdaService(Service):
    """AWS Lambda. Other services invoke through `invoke_function`, or on the background loop through `invoke_on_loop`."""

    name = "lambda"

    def __init__(self, cloud: Cloud) -> None:
        super().__init__(cloud)
        self.functions = FunctionStore(cloud)
        self.code = CodeStore(cloud)
        self._layers = cloud.db.table("lambda.layers")
        self._configurator = Configurator(cloud)
        self._invoker = Invoker(cloud, self.code)
        self._events = EventQueue(cloud, self.functions, self._invoker)
        self._remove_seam: Callable[[], None] | None = None

    def start(self) -> None:
        """Prepare the runtime, take over moto's calls to Lambda, go on with accepted events."""
        self.code.keep_only(self.functions.digests() | {layer["code"] for layer in self._layers.values()})
        self.code.prepare_runtime()
        self._remove_seam = moto_seam.install(self)
        self._invoker.start()
        if len(self.functions):
            self._invoker.prepare()
        self._events.start()

    def stop(self) -> None:
        """End the workers."""
        if self._remove_seam is not None:
            self._remove_seam()
        self._invoker.stop()

    def archive(self, name: str) -> bytes | None:
        """Return a stored zip by its file name in GetFunction's Location, or None."""
        path = self.code.zip_path(name.removesuffix(".zip"))
        return path.read_bytes() if name.removesuffix(".zip").isalnum() and path.is_file() else None

    # Invoking

    def invoke_function(
        self,
        name_or_arn: str,
        payload: bytes,
        invocation_type: str = "RequestResponse",
        qualifier: str | None = None,
        client_context: Any = None,
    ) -> InvocationResult:
        """Invoke a function from any thread but the background loop's.

        Args:
            name_or_arn: Name, partial ARN or ARN, with or without a qualifier.
            payload: JSON; empty for none, which the function sees as ``{}``.
            invocation_type: ``RequestResponse`` waits for the result, ``Event`` only until it is accepted, ``DryRun`` checks.
            qualifier: Version or alias.
            client_context: Parsed ClientContext.

        Raises:
            ServiceError: No such function, throttled, payload too large or not JSON. A function that fails is not an exception: see `function_error`.
        """
        target = self.functions.resolve(name_or_arn, qualifier)
        payload = payload or b"{}"
        limit = MAX_EVENT_BYTES if invocation_type == "Event" else MAX_REQUEST_BYTES
        if len(payload) > limit:
            message = f"{len(payload)} byte payload is too large for the {invocation_type} invocation type (limit {limit} bytes)"
            raise ServiceError("RequestTooLargeException", message)
        try:
            json.loads(payload)
        except ValueError as error:
            raise ServiceError("InvalidRequestContentException", f"Could not parse request body into json: {error}") from error
        if invocation_type == "DryRun":
            return InvocationResult(204, None, b"", target.version.version, "")
        if invocation_type == "Event":
            return self._accept(target, payload, client_context)
        return self.cloud.background.call(self._invoker.invoke(target, payload, client_context=client_context))

    async def invoke_on_loop(self, name_or_arn: str, payload: bytes, qualifier: str | None = None) -> InvocationResult:
        """Invoke a function from a coroutine on the background loop and wait for its result; *payload* is known to be JSON.

        Raises:
            ServiceError: As `invoke_function`.
        """
        if len(payload) > MAX_REQUEST_BYTES:
            message = f"{len(payload)} byte payload is too large for the RequestResponse invocation type (limit {MAX_REQUEST_BYTES} bytes)"
            raise ServiceError("RequestTooLargeException", message)
        return await self._invoker.invoke(self.functions.resolve(name_or_arn, qualifier), payload)

    def may_invoke(self, arn: str, principal: str, source_arn: str) -> bool:
        """Tell whether a function's resource policy lets a service (e.g. ``events.amazonaws.com``) invoke it on behalf of a resource.

        Raises:
            ServiceError: No such function.
        """
        name, qualifier = self.functions.identify(arn)
        policy = self.functions.get(name, qualifier)["policies"].get(qualifier or "")
        call = ServiceCall(
            principal, "lambda:InvokeFunction", self.functions.arn(name, qualifier), source_arn, self.cloud.settings.account_id
        )
        return allows(None if policy is None else {"Statement": policy["statements"]}, call)

    def policy_text(self, arn: str) -> str | None:
        """Return a function's resource policy (JSON), or None when there is no such function or it has none."""
        try:
            return self.functions.policy_text(*self.functions.identify(arn))
        except ServiceError:
            return None

    def notify(self, arn: str, event: dict[str, Any], principal: str, source_arn: str) -> None:
        """Invoke a function asynchronously on behalf of another service, if its resource policy allows it; a refusal is logged."""
        try:
            if self.may_invoke(arn, principal, source_arn):
                self._accept(self.functions.resolve(arn), json.dumps(event).encode(), None)
                return
            log.warning(
                "%s may not invoke %s for %s: the function's resource policy has no such permission (lambda add-permission)",
                principal,
                arn,
                source_arn,
            )
        except ServiceError as error:
            log.warning("%s could not invoke %s: %s", principal, arn, error.message)

    def _accept(self, target: Target, payload: bytes, client_context: Any) -> InvocationResult:
        request_id = self._events.put(target, payload, client_context)
        return InvocationResult(202, None, b"", target.version.version, request_id)

    def invoke(self, params: Params) -> dict[str, Any]:
        """Invoke."""
        if params.get("DurableExecutionName") or params.get("TenantId"):
            raise not_supported("Invoking with DurableExecutionName or TenantId", _INVALID)
        context: Any = None
        if params.get("ClientContext"):
            try:
                context = json.loads(base64.b64decode(params["ClientContext"], validate=True))
            except ValueError as error:
                raise ServiceError(
                    "InvalidRequestContentException", "Client context must be a valid Base64-encoded JSON object."
                ) from error
        payload = params.get("Payload") or b""
        result = self.invoke_function(
            params["FunctionName"],
            payload if isinstance(payload, bytes) else str(payload).encode(),
            params.get("InvocationType", "RequestResponse"),
            params.get("Qualifier"),
            context,
        )
        answer: dict[str, Any] = {"StatusCode": result.status_code, "Payload": result.payload}
        if result.status_code == 200:
            answer["ExecutedVersion"] = result.executed_version
            if params.get("LogType") == "Tail":
                answer["LogResult"] = base64.b64encode(result.log_tail).decode()
        if result.function_error:
            answer["FunctionError"] = result.function_error
        return answer

    def _respond(self, request: Request, operation: OperationModel | None, result: Any) -> Response:
        response = super()._respond(request, operation, result)
        if operation is not None and operation.name in ("Invoke", "DeleteFunction") and isinstance(result, dict):
            # These two answer with their StatusCode member as the HTTP status, which moto's serialiser leaves out.
            response.status_code = result["StatusCode"]
        return response

    # Functions

    def create_function(self, params: Params) -> dict[str, Any]:
        """CreateFunction."""
        name, qualifier = self.functions.identify(params["FunctionName"])
        if qualifier:
            raise ServiceError(_INVALID, f"The function name '{params['FunctionName']}' has a qualifier.")
        self._check_new(name)
        code = self.code.store(params.get("Code", {}), "CreateFunction")
        document: Document = {
            "configuration": self._configurator.create(params, code, self.functions.arn(name)),
            "code": code.digest,
            "versions": {},
            "next_version": 1,
            "aliases": {},
            "policies": {},
            "event_invoke": {},
            "tags": params.get("Tags", {}),
        }
        with self.functions.lock:
            self._check_new(name)
            published = self._publish(document, None) if params.get("Publish") else None
            self.functions.put(name, document)
        self._invoker.prepare()
        return public(published or document["configuration"])

    def _check_new(self, name: str) -> None:
        if name in self.functions:
            raise ServiceError("ResourceConflictException", f"Function already exist: {name}")

    def get_function(self, params: Params) -> dict[str, Any]:
        """GetFunction."""
        target = self._target(params)
        document = self.functions.get(target.version.name)
        location = f"{self.cloud.endpoint_url}/_localcloud/lambda/code/{target.version.digest}.zip"
        answer: dict[str, Any] = {"Configuration": self._shown(target), "Code": {"RepositoryType": "S3", "Location": location}}
        if document["tags"]:
            answer["Tags"] = document["tags"]
        if document.get("concurrency") is not None:
            answer["Concurrency"] = {"ReservedConcurrentExecutions": document["concurrency"]}
        return answer

    def get_function_configuration(self, params: Params) -> dict[str, Any]:
        """GetFunctionConfiguration."""
        return self._shown(self._target(params))

    def list_functions(self, params: Params) -> dict[str, Any]:
        """ListFunctions."""
        listed = []
        for document in self.functions.documents():
            listed.append(public(document["configuration"]))
            if params.get("FunctionVersion") == "ALL":
                listed += [public(version["configuration"]) for version in document["versions"].values()]
        return _page(listed, "Functions", params)

    def delete_function(self, params: Params) -> dict[str, Any]:
        """DeleteFunction."""
        name, qualifier = self.functions.identify(params["FunctionName"], params.get("Qualifier"))
        with self.functions.lock:
            document = self.functions.get(name, qualifier)
            if qualifier is None:
                self.functions.delete(name)
            elif qualifier == LATEST:
                raise ServiceError(_INVALID, "$LATEST version cannot be deleted without deleting the function.")
            else:
                used = [alias for alias, entry in document["aliases"].items() if entry["FunctionVersion"] == qualifier]
                if used:
                    raise ServiceError("ResourceConflictException", f"Version {qualifier} is in use by the alias {used[0]}.")
                self.functions.version_document(document, qualifier)
                del document["versions"][qualifier]
                self.functions.put(name, document)
        self._forget_workers(name)
        return {"StatusCode": 204}

    def update_function_code(self, params: Params) -> dict[str, Any]:
        """UpdateFunctionCode."""
        name, _ = self.functions.identify(params["FunctionName"])
        self.functions.get(name)
        if params.get("PublishTo") or params.get("SourceKMSKeyArn"):
            raise not_supported("PublishTo or SourceKMSKeyArn of UpdateFunctionCode", _INVALID)
        code = self.code.store(params, "UpdateFunctionCode")
        with self.functions.lock:
            document = self.functions.get(name)
            _check_revision(params, document["configuration"])
            configuration = self._configurator.with_code(document["configuration"], code, params.get("Architectures"))
            if params.get("DryRun"):
                return public(configuration)
            document |= {"configuration": configuration, "code": code.digest}
            published = self._publish(document, None) if params.get("Publish") else None
            self.functions.put(name, document)
        self._forget_workers(name)
        return public(published or configuration)

    def update_function_configuration(self, params: Params) -> dict[str, Any]:
        """UpdateFunctionConfiguration."""
        name, _ = self.functions.identify(params["FunctionName"])
        with self.functions.lock:
            document = self.functions.get(name)
            _check_revision(params, document["configuration"])
            document["configuration"] = self._configurator.update(document["configuration"], params)
            self.functions.put(name, document)
        self._forget_workers(name)
        return public(document["configuration"])

    # Versions and aliases

    def publish_version(self, params: Params) -> dict[str, Any]:
        """PublishVersion."""
        name, _ = self.functions.identify(params["FunctionName"])
        if params.get("PublishTo"):
            raise not_supported("PublishTo", _INVALID)
        with self.functions.lock:
            document = self.functions.get(name)
            _check_revision(params, document["configuration"])
            expected = params.get("CodeSha256")
            if expected and expected != document["configuration"]["CodeSha256"]:
                actual = document["configuration"]["CodeSha256"]
                raise ServiceError(
                    _INVALID,
                    f"CodeSHA256 ({expected}) is different from current CodeSHA256 in $LATEST ({actual}). Please try again with the CodeSHA256 in $LATEST.",
                )
            published = self._publish(document, params.get("Description"))
            self.functions.put(name, document)
        return public(published)

    def _publish(self, document: Document, description: str | None) -> dict[str, Any]:
        configuration = document["configuration"]
        latest = str(document["next_version"] - 1)
        if latest in document["versions"]:
            newest = document["versions"][latest]["configuration"]
            volatile = {"Version", "FunctionArn", "RevisionId", "LastModified", "Description"}
            if {k: v for k, v in newest.items() if k not in volatile} == {k: v for k, v in configuration.items() if k not in volatile}:
                # AWS publishes nothing when neither code nor configuration changed since the last version.
                return dict(newest)
        number = str(document["next_version"])
        published: dict[str, Any] = configuration | {
            "Version": number,
            "FunctionArn": f"{configuration['FunctionArn']}:{number}",
            "RevisionId": new_revision(),
        }
        if description is not None:
            published["Description"] = description
        document["versions"][number] = {"configuration": published, "code": document["code"]}
        document["next_version"] += 1
        return published

    def list_versions_by_function(self, params: Params) -> dict[str, Any]:
        """ListVersionsByFunction."""
        name, _ = self.functions.identify(params["FunctionName"])
        document = self.functions.get(name)
        latest = document["configuration"]
        shown = [
            latest | {"FunctionArn": f"{latest['FunctionArn']}:{LATEST}"},
            *(version["configuration"] for version in document["versions"].values()),
        ]
        return _page([public(configuration) for configuration in shown], "Versions", params)

    def create_alias(self, params: Params) -> dict[str, Any]:
        """CreateAlias."""
        name, _ = self.functions.identify(params["FunctionName"])
        with self.functions.lock:
            document = self.functions.get(name)
            if params["Name"] in document["aliases"]:
                raise ServiceError("ResourceConflictException", f"Alias already exists: {self.functions.arn(name, params['Name'])}")
            document["aliases"][params["Name"]] = self._alias(document, params, {"Name": params["Name"], "Description": ""})
            self.functions.put(name, document)
        return self._shown_alias(name, document["aliases"][params["Name"]])

    def update_alias(self, params: Params) -> dict[str, Any]:
        """UpdateAlias."""
        name, _ = self.functions.identify(params["FunctionName"])
        with self.functions.lock:
            document = self.functions.get(name)
            current = self._alias_of(document, name, params["Name"])
            _check_revision(params, current)
            document["aliases"][params["Name"]] = self._alias(document, params, current)
            self.functions.put(name, document)
        return self._shown_alias(name, document["aliases"][params["Name"]])

    def _alias(self, document: Document, params: Params, current: dict[str, Any]) -> dict[str, Any]:
        alias = current | {key: params[key] for key in ("FunctionVersion", "Description", "RoutingConfig") if key in params}
        for version in (alias["FunctionVersion"], *alias.get("RoutingConfig", {}).get("AdditionalVersionWeights", {})):
            self.functions.version_document(document, version)
        return {**alias, "RevisionId": new_revision()}

    def get_alias(self, params: Params) -> dict[str, Any]:
        """GetAlias."""
        name, _ = self.functions.identify(params["FunctionName"])
        return self._shown_alias(name, self._alias_of(self.functions.get(name), name, params["Name"]))

    def list_aliases(self, params: Params) -> dict[str, Any]:
        """ListAliases."""
        name, _ = self.functions.identify(params["FunctionName"])
        aliases = self.functions.get(name)["aliases"].values()
        version = params.get("FunctionVersion")
        return _page(
            [self._shown_alias(name, alias) for alias in aliases if version in (None, alias["FunctionVersion"])], "Aliases", params
        )

    def delete_alias(self, params: Params) -> None:
        """DeleteAlias; deleting a missing one succeeds, as on AWS."""
        name, _ = self.functions.identify(params["FunctionName"])
        with self.functions.lock:
            document = self.functions.get(name)
            if document["aliases"].pop(params["Name"], None) is not None:
                self.functions.put(name, document)

    def _alias_of(self, document: Document, name: str, alias: str) -> dict[str, Any]:
        found: dict[str, Any] | None = document["aliases"].get(alias)
        if found is None:
            raise ServiceError(_NOT_FOUND, f"Cannot find alias arn: {self.functions.arn(name, alias)}")
        return found

    def _shown_alias(self, name: str, alias: dict[str, Any]) -> dict[str, Any]:
        return {"AliasArn": self.functions.arn(name, alias["Name"]), **alias}

    # Resource policy

    def add_permission(self, params: Params) -> dict[str, Any]:
        """AddPermission."""
        target = self._target(params)
        name, qualifier = target.version.name, target.qualifier
        statement = {
            "Sid": params["StatementId"],
            "Effect": "Allow",
            "Principal": self._principal(params["Principal"]),
            "Action": params["Action"],
            "Resource": self.functions.arn(name, qualifier),
        }
        condition: dict[str, dict[str, str]] = {}
        for member, operator, key in (
            ("SourceArn", "ArnLike", "AWS:SourceArn"),
            ("SourceAccount", "StringEquals", "AWS:SourceAccount"),
            ("PrincipalOrgID", "StringEquals", "aws:PrincipalOrgID"),
            ("EventSourceToken", "StringEquals", "lambda:EventSourceToken"),
            ("FunctionUrlAuthType", "StringEquals", "lambda:FunctionUrlAuthType"),
        ):
            if params.get(member):
                condition.setdefault(operator, {})[key] = params[member]
        if condition:
            statement["Condition"] = condition
        with self.functions.lock:
            document = self.functions.get(name)
            policy = document["policies"].setdefault(qualifier or "", {"statements": [], "revision": new_revision()})
            _check_policy_revision(params, policy)
            if any(existing["Sid"] == params["StatementId"] for existing in policy["statements"]):
                raise ServiceError(
                    "ResourceConflictException",
                    f"The statement id ({params['StatementId']}) provided already exists. Please provide a new statement id, or remove the existing statement.",
                )
            policy["statements"].append(statement)
            policy["revision"] = new_revision()
            self.functions.put(name, document)
        return {"Statement": json.dumps(statement)}

    def _principal(self, principal: str) -> Any:
        if principal == "*":
            return "*"
        if principal.endswith(".amazonaws.com"):
            return {"Service": principal}
        return {"AWS": f"arn:aws:iam::{principal}:root" if principal.isdigit() else principal}

    def remove_permission(self, params: Params) -> None:
        """RemovePermission."""
        name, qualifier = self.functions.identify(params["FunctionName"], params.get("Qualifier"))
        with self.functions.lock:
            document = self.functions.get(name, qualifier)
            policy = document["policies"].get(qualifier or "")
            if policy is None:
                raise ServiceError(_NOT_FOUND, "No policy is associated with the given resource.")
            _check_policy_revision(params, policy)
            kept = [statement for statement in policy["statements"] if statement["Sid"] != params["StatementId"]]
            if len(kept) == len(policy["statements"]):
                raise ServiceError(_NOT_FOUND, f"Statement {params['StatementId']} is not found in resource policy.")
            policy |= {"statements": kept, "revision": new_revision()}
            if not kept:
                del document["policies"][qualifier or ""]
            self.functions.put(name, document)

    def get_policy(self, params: Params) -> dict[str, Any]:
        """GetPolicy."""
        name, qualifier = self.functions.identify(params["FunctionName"], params.get("Qualifier"))
        policy = self.functions.get(name, qualifier)["policies"].get(qualifier or "")
        if policy is None:
            raise ServiceError(_NOT_FOUND, "The resource you requested does not exist.")
        document = {"Version": "2012-10-17", "Id": "default", "Statement": policy["statements"]}
        return {"Policy": json.dumps(document), "RevisionId": policy["revision"]}

    # Concurrency, asynchronous invocation, tags

    def put_function_concurrency(self, params: Params) -> dict[str, Any]:
        """PutFunctionConcurrency."""
        self._change(params, concurrency=params["ReservedConcurrentExecutions"])
        return {"ReservedConcurrentExecutions": params["ReservedConcurrentExecutions"]}

    def get_function_concurrency(self, params: Params) -> dict[str, Any]:
        """GetFunctionConcurrency."""
        name, _ = self.functions.identify(params["FunctionName"])
        reserved = self.functions.get(name).get("concurrency")
        return {} if reserved is None else {"ReservedConcurrentExecutions": reserved}

    def delete_function_concurrency(self, params: Params) -> None:
        """DeleteFunctionConcurrency."""
        self._change(params, concurrency=None)

    def put_function_event_invoke_config(self, params: Params) -> dict[str, Any]:
        """PutFunctionEventInvokeConfig: replaces the configuration."""
        return self._event_invoke(params, {})

    def update_function_event_invoke_config(self, params: Params) -> dict[str, Any]:
        """UpdateFunctionEventInvokeConfig: changes what is given."""
        target = self._target(params)
        return self._event_invoke(params, self._event_invoke_of(target))

    def get_function_event_invoke_config(self, params: Params) -> dict[str, Any]:
        """GetFunctionEventInvokeConfig."""
        target = self._target(params)
        return self._shown_event_invoke(target, self._event_invoke_of(target))

    def list_function_event_invoke_configs(self, params: Params) -> dict[str, Any]:
        """ListFunctionEventInvokeConfigs."""
        name, _ = self.functions.identify(params["FunctionName"])
        configured = self.functions.get(name)["event_invoke"]
        shown = [entry | {"FunctionArn": self.functions.arn(name, qualifier)} for qualifier, entry in configured.items()]
        return _page(shown, "FunctionEventInvokeConfigs", params)

    def delete_function_event_invoke_config(self, params: Params) -> None:
        """DeleteFunctionEventInvokeConfig."""
        target = self._target(params)
        self._event_invoke_of(target)
        with self.functions.lock:
            document = self.functions.get(target.version.name)
            document["event_invoke"].pop(target.qualifier or LATEST, None)
            self.functions.put(target.version.name, document)

    def _event_invoke(self, params: Params, current: dict[str, Any]) -> dict[str, Any]:
        target = self._target(params)
        for kind, destination in params.get("DestinationConfig", {}).items():
            arn = destination.get("Destination")
            if arn and arn.split(":")[2:3] not in [[service] for service in _DESTINATIONS]:
                raise not_supported(f"The {kind} destination {arn}", _INVALID)
        members = ("MaximumRetryAttempts", "MaximumEventAgeInSeconds", "DestinationConfig")
        entry = current | {member: params[member] for member in members if member in params} | {"LastModified": datetime.now(UTC)}
        entry.setdefault("DestinationConfig", {"OnSuccess": {}, "OnFailure": {}})
        with self.functions.lock:
            document = self.functions.get(target.version.name)
            document["event_invoke"][target.qualifier or LATEST] = entry
            self.functions.put(target.version.name, document)
        return self._shown_event_invoke(target, entry)

    def _event_invoke_of(self, target: Target) -> dict[str, Any]:
        found: dict[str, Any] | None = self.functions.get(target.version.name)["event_invoke"].get(target.qualifier or LATEST)
        if found is None:
            arn = self.functions.arn(target.version.name, target.qualifier or LATEST)
            raise ServiceError(_NOT_FOUND, f"The function {arn} doesn't have an EventInvokeConfig")
        return found

    def _shown_event_invoke(self, target: Target, entry: dict[str, Any]) -> dict[str, Any]:
        return {**entry, "FunctionArn": self.functions.arn(target.version.name, target.qualifier or LATEST)}

    def list_tags(self, params: Params) -> dict[str, Any]:
        """ListTags."""
        name, _ = self.functions.identify(params["Resource"])
        return {"Tags": self.functions.get(name)["tags"]}

    def tag_resource(self, params: Params) -> None:
        """TagResource."""
        with self.functions.lock:
            tagged = {"FunctionName": params["Resource"]}
            name, _ = self.functions.identify(params["Resource"])
            self._change(tagged, tags=self.functions.get(name)["tags"] | params["Tags"])

    def untag_resource(self, params: Params) -> None:
        """UntagResource."""
        with self.functions.lock:
            name, _ = self.functions.identify(params["Resource"])
            kept = {key: value for key, value in self.functions.get(name)["tags"].items() if key not in params["TagKeys"]}
            self._change({"FunctionName": params["Resource"]}, tags=kept)

    # Layers

    def publish_layer_version(self, params: Params) -> dict[str, Any]:
        """PublishLayerVersion."""
        code: Code = self.code.store(params.get("Content", {}), "PublishLayerVersion")
        arn = (
            self.cloud.arn("lambda", f"layer:{params['LayerName']}") if not params["LayerName"].startswith("arn:") else params["LayerName"]
        )
        with self._layers.lock():
            number = 1 + max((layer["Version"] for layer in self._layers.values() if layer["LayerArn"] == arn), default=0)
            members = ("Description", "LicenseInfo", "CompatibleRuntimes", "CompatibleArchitectures")
            layer: Document = {
                "LayerArn": arn,
                "LayerVersionArn": f"{arn}:{number}",
                "Version": number,
                "CreatedDate": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "+0000"),
                "CodeSize": code.size,
                "CodeSha256": code.sha256_base64,
                "code": code.digest,
            } | {member: params[member] for member in members if member in params}
            self._layers.put(layer["LayerVersionArn"], layer)
        return self._shown_layer(layer)

    def get_layer_version(self, params: Params) -> dict[str, Any]:
        """GetLayerVersion."""
        return self._shown_layer(self._layer(f"{self._layer_arn(params['LayerName'])}:{params['VersionNumber']}"))

    def get_layer_version_by_arn(self, params: Params) -> dict[str, Any]:
        """GetLayerVersionByArn."""
        return self._shown_layer(self._layer(params["Arn"]))

    def list_layer_versions(self, params: Params) -> dict[str, Any]:
        """ListLayerVersions."""
        arn = self._layer_arn(params["LayerName"])
        found = sorted((layer for layer in self._layers.values() if layer["LayerArn"] == arn), key=lambda layer: -int(layer["Version"]))
        return _page(found, "LayerVersions", params)

    def list_layers(self, params: Params) -> dict[str, Any]:
        """ListLayers."""
        newest: dict[str, Document] = {}
        for layer in self._layers.values():
            if layer["Version"] > newest.get(layer["LayerArn"], {"Version": 0})["Version"]:
                newest[layer["LayerArn"]] = layer
        shown = [
            {"LayerName": arn.rpartition(":")[2], "LayerArn": arn, "LatestMatchingVersion": layer} for arn, layer in sorted(newest.items())
        ]
        return _page(shown, "Layers", params)

    def delete_layer_version(self, params: Params) -> None:
        """DeleteLayerVersion; functions that have it keep it, as on AWS."""
        self._layers.delete(f"{self._layer_arn(params['LayerName'])}:{params['VersionNumber']}")

    def _layer_arn(self, name: str) -> str:
        return name if name.startswith("arn:") else self.cloud.arn("lambda", f"layer:{name}")

    def _layer(self, arn: str) -> Document:
        layer = self._layers.get(arn)
        if layer is None:
            raise ServiceError(_NOT_FOUND, "The resource you requested does not exist.")
        return layer

    def _shown_layer(self, layer: Document) -> dict[str, Any]:
        location = f"{self.cloud.endpoint_url}/_localcloud/lambda/code/{layer['code']}.zip"
        return layer | {"Content": {"Location": location, "CodeSha256": layer["CodeSha256"], "CodeSize": layer["CodeSize"]}}

    def get_account_settings(self, params: Params) -> dict[str, Any]:
        """GetAccountSettings."""
        documents = self.functions.documents()
        limits = {
            "TotalCodeSize": 80_530_636_800,
            "CodeSizeUnzipped": 262_144_000,
            "CodeSizeZipped": 52_428_800,
            "ConcurrentExecutions": 1000,
            "UnreservedConcurrentExecutions": 1000 - sum(document.get("concurrency") or 0 for document in documents),
        }
        usage = {"TotalCodeSize": sum(document["configuration"]["CodeSize"] for document in documents), "FunctionCount": len(documents)}
        return {"AccountLimit": limits, "AccountUsage": usage}

    # Shared

    def _target(self, params: Params) -> Target:
        return self.functions.resolve(params["FunctionName"], params.get("Qualifier"))

    def _shown(self, target: Target) -> dict[str, Any]:
        shown = public(target.version.configuration)
        return shown | {"FunctionArn": target.invoked_arn}

    def _change(self, params: Params, **changes: Any) -> None:
        name, _ = self.functions.identify(params["FunctionName"])
        with self.functions.lock:
            self.functions.put(name, self.functions.get(name) | changes)

    def _forget_workers(self, name: str) -> None:
        self.cloud.background.submit(self._invoker.forget(name))


def _check_revision(params: Params, current: dict[str, Any]) -> None:
    if params.get("RevisionId") not in (None, current["RevisionId"]):
        message = "The Revision Id provided does not match the latest Revision Id. Call the GetFunction/GetAlias API to retrieve the latest Revision Id"
        raise ServiceError("PreconditionFailedException", message)


def _check_policy_revision(params: Params, policy: dict[str, Any]) -> None:
    if params.get("RevisionId") not in (None, policy["revision"]):
        message = (
            "The Revision Id provided does not match the latest Revision Id. Call the GetPolicy API to retrieve the latest Revision Id"
        )
        raise ServiceError("PreconditionFailedException", message)


def _page(items: list[dict[str, Any]], member: str, params: Params) -> dict[str, Any]:
    """Return one page of a listing (MaxItems up to 50; the marker is the index of what follows)."""
    begin = int(params["Marker"]) if str(params.get("Marker", "")).isdigit() else 0
    end = begin + min(int(params.get("MaxItems") or 50), 50)
    return {member: items[begin:end]} | ({"NextMarker": str(end)} if end < len(items) else {})
