"""The base of localcloud's own services: AWS's protocol on one side, a Python method per operation on the other.

Routing, parsing and serialising are moto's, driven by botocore's service models; so is the validation that AWS does before an operation runs.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from botocore.validate import ParamValidator
from moto.core.model import OperationModel
from moto.core.parse import PROTOCOL_PARSERS
from moto.core.request import Request, determine_request_protocol
from moto.core.routing import get_service_router
from moto.core.serialize import get_serializer_class
from moto.core.utils import camelcase_to_underscores, get_service_model
from werkzeug.exceptions import NotFound
from werkzeug.wrappers import Response

from localcloud.errors import ServiceError, not_supported
from localcloud.iam.callers import caller
from localcloud.validation import constraint_errors

if TYPE_CHECKING:
    from moto.core.parse import RequestDict

    from localcloud.cloud import Cloud

log = logging.getLogger(__name__)

Params = dict[str, Any]


class Service:
    """One AWS service. A subclass sets `name` and has one method per operation it supports: ``def create_pipeline(self, params: Params) -> Params | None``.

    *params* are the parsed, validated request members under their API names; the result has the response's members under theirs. `ServiceError` becomes
    the error response. An operation without a method is refused with "not supported by localcloud". Start background work in `start`, end it in `stop`.
    """

    #: The name of the service's botocore model, e.g. "sagemaker".
    name: ClassVar[str]
    #: The code of the error for an operation that localcloud does not have and for a request that fails validation.
    validation_code: ClassVar[str] = "ValidationException"

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud

    def start(self) -> None:
        """Called once after the state is loaded and before the first request."""

    def stop(self) -> None:
        """Called once at shutdown; ends background work."""

    def handle(self, request: Request) -> Response:
        """Answer one HTTP request."""
        operation: OperationModel | None = None
        try:
            try:
                operation, uri_params = get_service_router(self.name).match(request)
            except NotFound as error:
                target = request.headers.get("X-Amz-Target", "").split(".")[-1]
                raise not_supported(f"{self.name}:{target or request.method + ' ' + request.path}", self.validation_code) from error
            method = getattr(self, camelcase_to_underscores(operation.name), None)
            if method is None:
                raise not_supported(f"{self.name}:{operation.name}", self.validation_code)
            params = _parse(request, operation, uri_params)
            self._validate(operation, params)
            session = caller()
            if session is not None:
                self.cloud.iam.authorize(session, self.name, operation.name, self.named(params))
            result: Any = method(params)
        except ServiceError as error:
            result = error
        return self._respond(request, operation, result)

    def named(self, params: Params) -> Params:
        """Return a request with every resource that permissions are about, where the request itself leaves one to be looked up."""
        return params

    def tags_of(self, arn: str) -> Mapping[str, str]:
        """Return a resource's tags, for policies that ask for ``aws:ResourceTag``; none where the service does not tell."""
        return {}

    def key_of(self, arn: str) -> str | None:
        """Return the key of KMS that a resource's use comes to the use of, however the resource names it; None for none."""
        return None

    def _validate(self, operation: OperationModel, params: Params) -> None:
        if operation.input_shape is None:
            return
        report = ParamValidator().validate(params, operation.input_shape)
        if report.has_errors():
            raise ServiceError(self.validation_code, report.generate_report())
        errors = constraint_errors(params, operation.input_shape)
        if errors:
            count = f"{len(errors)} validation error{'s' if len(errors) > 1 else ''} detected: "
            raise ServiceError(self.validation_code, count + "; ".join(errors))

    def _respond(self, request: Request, operation: OperationModel | None, result: Any) -> Response:
        model = get_service_model(self.name)
        protocol = determine_request_protocol(model, request.content_type)
        serializer = get_serializer_class(self.name, protocol)(operation_model=operation or OperationModel({}, model))
        answer = serializer.serialize(result)
        status = answer["status_code"]
        if isinstance(result, ServiceError) and not _models_error(model, result.code):
            status = result.status
        return Response(answer["body"], status=status, headers=dict(answer["headers"]))


def _parse(request: Request, operation: OperationModel, uri_params: Mapping[str, Any]) -> Params:
    protocol = determine_request_protocol(operation.service_model, request.content_type)
    body = request.get_data()
    parts: RequestDict = {
        "method": request.method,
        "values": request.values,
        "headers": request.headers,
        "body": body,
        "url_path": request.path,
        "url_params": dict(uri_params),
    }
    try:
        if protocol == "json" and body:
            json.loads(body)  # the parser takes what is no JSON for an empty request
        params: Params = PROTOCOL_PARSERS[protocol](operation, map_type=dict).parse(parts)
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        # The parsers take for granted that the body has the model's types; what they trip over is the caller's mistake.
        raise ServiceError("SerializationException", f"The request is not what {operation.name} takes: {error}"[:1000]) from error
    return params


def _models_error(model: Any, code: str) -> bool:
    return any(shape.name == code or shape.metadata.get("error", {}).get("code") == code for shape in model.error_shapes)
