"""Custom::* and AWS::CloudFormation::CustomResource: a Lambda function makes the resource and answers by putting JSON at a presigned S3 URL."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from typing import Any, ClassVar

from botocore.exceptions import ClientError

from localcloud.cloudformation.errors import ResourceFailure
from localcloud.cloudformation.functions import text_of
from localcloud.cloudformation.provider import Context, Properties, Provider
from localcloud.cloudformation.schema import JSON, MapOf, PropertyError

Json = Any

#: How long CloudFormation waits for an answer (ServiceTimeout can shorten it).
_TIMEOUT_SECONDS = 3600
_MAX_ANSWER_BYTES = 4096
_MAX_ID_BYTES = 1024


class _AnsweredFailure(ResourceFailure):
    """Indicates that a function was asked and failed, or did not answer.

    Attributes:
        physical_id: The id in its answer, if there is one.
    """

    def __init__(self, reason: str, physical_id: str | None = None) -> None:
        super().__init__(reason)
        self.physical_id = physical_id


class CustomResource(Provider):
    """A resource that a function of the user's makes.

    On AWS the function is invoked asynchronously; here its invocation is waited for, so that a function which fails without answering fails the resource
    at once and with its own error, not after an hour.
    """

    schema: ClassVar[MapOf] = MapOf(JSON)
    replaced_by: ClassVar[frozenset[str]] = frozenset(("ServiceToken",))
    attributes: ClassVar[frozenset[str]] = frozenset(("*",))

    def __init__(self, type_name: str, own_clients: Callable[[str], Any]) -> None:
        self._own_clients = own_clients
        self.type = type_name  # type: ignore[misc]  # a class variable elsewhere: here every Custom:: name is a type of its own
        self._answers: dict[str, dict[str, Json]] = {}
        self._failures: dict[str, ResourceFailure] = {}

    def validate(self, properties: Properties) -> None:
        """The service token must be a function's ARN."""
        token = properties.get("ServiceToken")
        if token is None:
            raise PropertyError("", "required key [ServiceToken] not found")
        if isinstance(token, str) and ":lambda:" not in token:
            raise PropertyError(
                "/ServiceToken", "A custom resource whose ServiceToken is not a Lambda function is not supported by localcloud"
            )

    def create(self, context: Context, name: str, properties: Properties) -> str:
        """Ask the function to create, and return the id that it answers; one that fails may have made something, so that it has an id, too."""
        key = self._key(context)
        try:
            self._answers[key] = self._ask(context, "Create", properties, {})
        except _AnsweredFailure as failure:
            self._failures[key] = failure
            return failure.physical_id or name
        return str(self._answers[key]["PhysicalResourceId"])

    def settle(self, context: Context, physical_id: str, properties: Properties) -> None:
        """Fail if the function did; the rollback then asks it to delete, as on AWS."""
        failure = self._failures.pop(self._key(context), None)
        if failure is not None:
            raise failure

    def update(self, context: Context, physical_id: str, old: Properties, new: Properties) -> str | None:
        """Ask the function to update; another id in its answer means that it made a new resource."""
        answer = self._ask(context, "Update", new, {"PhysicalResourceId": physical_id, "OldResourceProperties": _texts(old)})
        self._answers[self._key(context)] = answer
        return str(answer["PhysicalResourceId"])

    def attributes_of(self, context: Context, physical_id: str, properties: Properties) -> dict[str, Json]:
        """Return the Data of the last answer."""
        return dict(self._answers.pop(self._key(context), {}).get("Data") or {})

    def delete(self, context: Context, physical_id: str, properties: Properties) -> None:
        """Ask the function to delete."""
        self._ask(context, "Delete", properties, {"PhysicalResourceId": physical_id}, cancellable=False)

    @staticmethod
    def _key(context: Context) -> str:
        return f"{context.stack_id}|{context.logical_id}"

    def _ask(
        self, context: Context, kind: str, properties: Properties, more: dict[str, Json], *, cancellable: bool = True
    ) -> dict[str, Json]:
        bucket, key = f"cloudformation-custom-resource-response-{context.place.region.replace('-', '')}", f"{uuid.uuid4()}"
        # The bucket for answers is AWS's.
        s3 = self._own_clients("s3")
        _ensure_bucket(s3, bucket, context.place.region)
        url = s3.generate_presigned_url("put_object", {"Bucket": bucket, "Key": key}, 2 * _TIMEOUT_SECONDS)
        request = {
            "RequestType": kind,
            "ServiceToken": properties["ServiceToken"],
            "ResponseURL": url,
            "StackId": context.stack_id,
            "RequestId": str(uuid.uuid4()),
            "LogicalResourceId": context.logical_id,
            "ResourceType": self.type,
            "ResourceProperties": _texts(properties),
        } | more
        invoked = context.clients("lambda").invoke(FunctionName=properties["ServiceToken"], Payload=json.dumps(request).encode())
        payload = invoked["Payload"].read()

        def answer() -> bytes | None:
            try:
                body: bytes = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
            except ClientError as error:
                if error.response["Error"]["Code"] not in ("NoSuchKey", "404"):
                    raise
                return None
            return body

        body = answer()
        if body is None and invoked.get("FunctionError"):
            error = json.loads(payload)
            raise ResourceFailure(
                f"The function failed before it answered: {error.get('errorType', 'Error')}: {error.get('errorMessage', '')}"
            )
        if body is None:
            seconds = min(float(properties.get("ServiceTimeout", _TIMEOUT_SECONDS)), _TIMEOUT_SECONDS)
            try:
                body = context.wait_for(answer, seconds=seconds, what="an answer of the custom resource", cancellable=cancellable)
            except ResourceFailure as error:
                raise _AnsweredFailure(
                    "CloudFormation did not receive a response from your Custom Resource. Please check your logs for requestId "
                    f"[{request['RequestId']}]. If you are using the Python cfn-response module, you may need to update your Lambda function code."
                ) from error
        s3.delete_object(Bucket=bucket, Key=key)
        return _checked(body, request)


def _checked(body: bytes, request: dict[str, Json]) -> dict[str, Json]:
    if len(body) > _MAX_ANSWER_BYTES:
        raise _AnsweredFailure("Response object is too long.")
    try:
        answer: Json = json.loads(body)
    except ValueError as error:
        raise _AnsweredFailure("Invalid Json format in the response of the custom resource") from error
    if not isinstance(answer, dict):
        raise _AnsweredFailure("Invalid response object: it is not a JSON object")
    if answer.get("Status") == "FAILED":
        reason, physical_id = answer.get("Reason", ""), answer.get("PhysicalResourceId")
        message = f"Received response status [FAILED] from custom resource. Message returned: {reason}"
        raise _AnsweredFailure(message, str(physical_id) if physical_id else None)
    if answer.get("Status") != "SUCCESS":
        raise _AnsweredFailure(f"Invalid response object: Value of Status property is invalid ({answer.get('Status')})")
    identifier = answer.get("PhysicalResourceId")
    if not isinstance(identifier, str) or not identifier or len(identifier.encode()) > _MAX_ID_BYTES:
        raise _AnsweredFailure("Invalid PhysicalResourceId")
    for name in ("StackId", "RequestId", "LogicalResourceId"):
        if answer.get(name) != request[name]:
            raise _AnsweredFailure(f"Invalid response object: Value of {name} property does not match the request")
    return answer


def _texts(value: Json) -> Json:
    """Return a value as custom resources get it: every scalar as text."""
    if isinstance(value, dict):
        return {key: _texts(item) for key, item in value.items()}
    return [_texts(item) for item in value] if isinstance(value, list) else text_of(value)


def _ensure_bucket(s3: Any, bucket: str, region: str) -> None:
    # On AWS this bucket is CloudFormation's own.
    try:
        s3.head_bucket(Bucket=bucket)
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] != 404:
            raise
        s3.create_bucket(Bucket=bucket, **({} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}))
