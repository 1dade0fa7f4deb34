"""InvokeEndpoint: the data plane of SageMaker, kept short, as workflows wait for it."""

from __future__ import annotations

import time
from typing import Any, ClassVar
from urllib.parse import unquote

from moto.core.model import OperationModel
from moto.core.request import Request
from moto.core.utils import get_service_model
from werkzeug.wrappers import Response

from localcloud.errors import ServiceError, not_supported
from localcloud.iam.callers import caller
from localcloud.sagemaker.fleet import Fleet, LiveVariant, UnknownEndpoint, UnknownVariant
from localcloud.sagemaker.servers import InvocationTimeout, Reply, ServerDown
from localcloud.service import Params, Service

#: Seconds a model may take for an answer.
TIMEOUT_SECONDS = 60.0
#: Largest request, bytes: of a real-time endpoint (AWS's quota since 2025) and of a serverless one.
MAX_BYTES = 25 * 1024 * 1024
MAX_SERVERLESS_BYTES = 4 * 1024 * 1024
_ATTRIBUTES = "X-Amzn-SageMaker-Custom-Attributes"
#: Request headers → members of InvokeEndpoint.
_HEADERS = {
    "Content-Type": "ContentType",
    "Accept": "Accept",
    _ATTRIBUTES: "CustomAttributes",
    "X-Amzn-SageMaker-Target-Variant": "TargetVariant",
    "X-Amzn-SageMaker-Inference-Id": "InferenceId",
    "X-Amzn-SageMaker-Target-Model": "TargetModel",
    "X-Amzn-SageMaker-Target-Container-Hostname": "TargetContainerHostname",
    "X-Amzn-SageMaker-Enable-Explanations": "EnableExplanations",
    "X-Amzn-SageMaker-Inference-Component": "InferenceComponentName",
    "X-Amzn-SageMaker-Session-Id": "SessionId",
}
_TIMED_OUT = (
    "Your invocation timed out while waiting for a response from container primary. Review the latency metrics for each container in Amazon CloudWatch, "
    "resolve the issue, and try again."
)
_UNSUPPORTED = ("TargetModel", "TargetContainerHostname", "EnableExplanations", "InferenceComponentName", "SessionId")


class ModelError(ServiceError):
    """Indicates that the model answered with an error, or not at all; `OriginalStatusCode` is 0 when it did not."""

    def __init__(self, message: str, status: int, original: str, log_stream_arn: str) -> None:
        super().__init__("ModelError", message, 424)
        self.OriginalStatusCode = status
        self.OriginalMessage = original
        self.LogStreamArn = log_stream_arn


class RuntimeService(Service):
    """SageMaker's runtime."""

    name: ClassVar[str] = "sagemaker-runtime"
    validation_code: ClassVar[str] = "ValidationError"

    def handle(self, request: Request) -> Response:
        """Answer one HTTP request; InvokeEndpoint without the detour through botocore's model."""
        parts = request.path.split("/")
        if request.method != "POST" or len(parts) != 4 or parts[3] != "invocations":
            return super().handle(request)
        params: Params = {member: request.headers[header] for header, member in _HEADERS.items() if header in request.headers}
        params |= {"EndpointName": unquote(parts[2]), "Body": request.get_data()}
        try:
            session = caller()
            if session is not None:
                self.cloud.iam.authorize(session, self.name, "InvokeEndpoint", params)
            result = self.invoke_endpoint(params)
        except ServiceError as error:
            return self._respond(request, OperationModel({}, get_service_model(self.name)), error)
        headers = {"x-Amzn-Invoked-Production-Variant": result["InvokedProductionVariant"]}
        if "CustomAttributes" in result:
            headers[_ATTRIBUTES] = result["CustomAttributes"]
        return Response(result["Body"], content_type=result["ContentType"], headers=headers)

    def invoke_endpoint(self, params: Params) -> Params:
        """Ask a model.

        Args:
            params: EndpointName, Body (bytes), and what else InvokeEndpoint takes.

        Returns:
            Body (bytes), ContentType, InvokedProductionVariant and, when the model sets them, CustomAttributes.

        Raises:
            ServiceError: ValidationError: no such endpoint or variant.
            ModelError: The model answered with a 4xx or 5xx, or not within 60 seconds.
        """
        began = time.perf_counter()
        for member in _UNSUPPORTED:
            if params.get(member):
                raise not_supported(f"InvokeEndpoint: {member}", self.validation_code)
        name: str = params["EndpointName"]
        headers = {"Content-Type": params.get("ContentType") or "application/octet-stream"}
        if params.get("Accept"):
            headers["Accept"] = params["Accept"]
        if params.get("CustomAttributes"):
            headers[_ATTRIBUTES] = params["CustomAttributes"]
        try:
            with self._fleet().routed(name, params.get("TargetVariant")) as variant:
                return self._ask(name, variant, params.get("Body") or b"", headers, began)
        except UnknownEndpoint as error:
            raise ServiceError("ValidationError", f"Endpoint {name} of account {self.cloud.settings.account_id} not found.") from error
        except UnknownVariant as error:
            raise ServiceError("ValidationError", f"Variant {params['TargetVariant']} not found for endpoint {name}.") from error

    def _fleet(self) -> Fleet:
        hosting: Any = self.cloud.services["sagemaker"]
        fleet: Fleet = hosting.fleet
        return fleet

    def _ask(self, name: str, variant: LiveVariant, body: bytes, headers: dict[str, str], began: float) -> Params:
        limit = MAX_SERVERLESS_BYTES if variant.serverless else MAX_BYTES
        if len(body) > limit:
            raise ServiceError("413", f"HTTP content length exceeded {limit} bytes.", 413)
        asked = time.perf_counter()
        status = 0
        try:
            reply = variant.server.invoke(body, headers, TIMEOUT_SECONDS)
            status = reply.status
        except InvocationTimeout as error:
            raise self._model_error(name, 0, _TIMED_OUT) from error
        except ServerDown as error:
            raise self._model_error(name, 500, "Worker died.") from error
        finally:
            answered = time.perf_counter()
            self.cloud.metrics.endpoint_invoked(name, variant.name, status, (answered - asked) * 1e6, (asked - began) * 1e6)
        return self._result(name, variant.name, reply)

    def _result(self, name: str, variant: str, reply: Reply) -> Params:
        if reply.status >= 400:
            raise self._model_error(name, reply.status, reply.body.decode("utf-8", "replace"))
        result: Params = {
            "Body": reply.body,
            "ContentType": reply.content_type or "application/octet-stream",
            "InvokedProductionVariant": variant,
        }
        if reply.custom_attributes is not None:
            result["CustomAttributes"] = reply.custom_attributes
        return result

    def _model_error(self, name: str, status: int, original: str) -> ModelError:
        settings = self.cloud.settings
        group = f"/aws/sagemaker/Endpoints/{name}"
        console = f"https://{settings.region}.console.aws.amazon.com/cloudwatch/home?region={settings.region}#logEventViewer:group={group}"
        who = "client" if 400 <= status < 500 else "server"
        message = f'Received {who} error ({status}) from primary with message "{original}". See {console} in account {settings.account_id} for more information.'
        return ModelError(message, status, original, self.cloud.arn("logs", f"log-group:{group}"))
