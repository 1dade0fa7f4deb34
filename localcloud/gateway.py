"""The region's front door: finds the service of an HTTP request and lets it answer.

Two laws are kept here for every service: nothing that localcloud has not is answered with success, and nothing is answered with a 5xx that boto3 would
retry for seconds.
"""

from __future__ import annotations

import json
import logging
import re
import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit
from xml.sax.saxutils import escape

from botocore.exceptions import DataNotFoundError
from moto.core.model import OperationModel
from moto.core.request import Request, determine_request_protocol
from moto.core.serialize import get_serializer_class
from moto.core.utils import get_service_model
from moto.moto_server.werkzeug_app import create_backend_app
from werkzeug.exceptions import ClientDisconnected
from werkzeug.wrappers import Response
from werkzeug.wsgi import LimitedStream

from localcloud.codeconnections.service import authorization
from localcloud.errors import LocalCloudError, ServiceError, not_supported
from localcloud.iam import requests
from localcloud.iam.assuming import check_request
from localcloud.iam.callers import caller, calling
from localcloud.iam.policy_checks import check_policy, may_carry_policy
from localcloud.iam.requests import sender

if TYPE_CHECKING:
    from localcloud.cloud import Cloud

log = logging.getLogger(__name__)

#: Services that moto plays well enough to be answered: signing name → botocore service name.
SUPPORTED_BY_MOTO: dict[str, str] = {
    "s3": "s3",
    "iam": "iam",
    "sts": "sts",
    "logs": "logs",
    "sqs": "sqs",
    "sns": "sns",
    "ssm": "ssm",
    "kms": "kms",
    "secretsmanager": "secretsmanager",
    "ecr": "ecr",
}
#: Signing names of localcloud's own services → botocore service name.
OWN_SIGNING_NAMES: dict[str, str] = {
    "sagemaker": "sagemaker",
    "lambda": "lambda",
    "events": "events",
    "states": "stepfunctions",
    "cloudformation": "cloudformation",
    "monitoring": "cloudwatch",
    "codebuild": "codebuild",
    "codeconnections": "codeconnections",
    "codestar-connections": "codestar-connections",
    "codepipeline": "codepipeline",
}
#: Services that are the same in every region.
GLOBAL_SERVICES = frozenset({"iam", "sts"})
_LOOPBACK = re.compile(r"127(\.\d{1,3}){3}")
_READ_ONLY_METHODS = ("GET", "HEAD", "OPTIONS")
_READ_ONLY_ACTIONS = ("Describe", "List", "Get", "Head", "Lookup", "Filter", "Test")

StartResponse = Callable[..., Any]
Environ = dict[str, Any]


class Gateway:
    """The WSGI application."""

    def __init__(self, cloud: Cloud, stop: Callable[[], None]) -> None:
        self._cloud = cloud
        self._stop = stop
        self._apps: dict[str, Any] = {}
        self._making = threading.Lock()

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        # moto reads the body as Flask does; a server that leaves the end of the stream open would let it wait for ever.
        environ["wsgi.input_terminated"] = True
        if environ.get("CONTENT_LENGTH"):
            # A client that dies while it sends must not have what it got through taken for the whole: reading the rest raises ClientDisconnected.
            environ["wsgi.input"] = LimitedStream(environ["wsgi.input"], int(environ["CONTENT_LENGTH"]))
        if not _is_from_this_machine(environ):
            return Response("localcloud answers programs on this machine, not web pages\n", 403, content_type="text/plain")(
                environ, start_response
            )
        if environ["PATH_INFO"].startswith("/_localcloud/"):
            return self._control(environ)(environ, start_response)
        signing_name, region = _scope(environ)
        if region not in (None, self._cloud.settings.region) and signing_name not in GLOBAL_SERVICES:
            return _wrong_region(signing_name, str(region), self._cloud.settings.region, environ)(environ, start_response)
        try:
            name = OWN_SIGNING_NAMES.get(signing_name)
            if name == "sagemaker" and environ["PATH_INFO"].startswith("/endpoints/"):
                name = "sagemaker-runtime"
            with calling(sender(environ, self._cloud.settings.account_id)):
                if name is not None:
                    return self.own(name, environ)(environ, start_response)
                return self.moto(signing_name, environ, start_response)
        except ServiceError as error:
            refusal = error
        except ClientDisconnected:
            refusal = ServiceError("IncompleteBody", "You did not provide the number of bytes specified by the Content-Length HTTP header")
        except LocalCloudError as error:
            log.error("%s", error)
            refusal = ServiceError("InternalFailure", str(error))
        except NotImplementedError as error:
            refusal = not_supported(str(error) or signing_name)
        except Exception:
            log.exception("%s %s failed inside localcloud", environ["REQUEST_METHOD"], environ["PATH_INFO"])
            # 400 and not 500: boto3 would repeat a 500 for ~12 s, and the fault would be the same.
            refusal = ServiceError("InternalFailure", "localcloud failed to answer this request; its log has the traceback")
        response = _error_response(SUPPORTED_BY_MOTO.get(signing_name, signing_name), environ, refusal)
        return response(environ, start_response)

    def own(self, name: str, environ: Environ) -> Response:
        """Let one of localcloud's own services answer."""
        request = Request(environ)
        request.from_wsgi_server = True
        return self._cloud.services[name].handle(request)

    def moto(self, signing_name: str, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Let moto answer; a change is saved, a 5xx becomes "not supported".

        Raises:
            ServiceError: The service is not one that localcloud answers for.
        """
        service = SUPPORTED_BY_MOTO.get(signing_name)
        if service is None:
            raise not_supported(f"The service '{signing_name}'")
        self._authorize(service, environ)
        answer: list[Any] = []

        def keep(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> None:
            answer[:] = [status, headers]

        body = b"".join(self._app(service)(environ, keep))
        if int(answer[0].split()[0]) >= 500:
            log.warning("moto answered %s to %s %s: %s", answer[0], environ["REQUEST_METHOD"], environ["PATH_INFO"], body[:500])
            raise not_supported(f"This request to {service} ({_action(environ) or environ['REQUEST_METHOD'] + ' ' + environ['PATH_INFO']})")
        if not _is_read_only(environ):
            self._cloud.mark_dirty(service)
        start_response(answer[0], answer[1])
        return [body]

    def _app(self, service: Any) -> Any:
        """Return moto's WSGI application for a service. (Its own dispatcher lists its 190 folders for every request, to find the service's name.)"""
        with self._making:
            if service not in self._apps:
                self._apps[service] = create_backend_app(service)
            return self._apps[service]

    def _authorize(self, service: str, environ: Environ) -> None:
        """Let a role's request to one of moto's services pass (own services do it themselves, see `Service.handle`); check anybody's to STS, and policies."""
        session = caller()
        carries = may_carry_policy(service, environ)
        if session is None and service != "sts" and not carries:
            return
        read = requests.read(service, environ)
        if service == "sts" and read is not None:
            check_request(self._cloud.settings.account_id, session, *read)
        if session is not None:
            if read is None:
                raise not_supported(f"This request to {service} ({environ['REQUEST_METHOD']} {environ['PATH_INFO']}) for a role")
            self._cloud.iam.authorize(session, service, *read)
        if carries and read is not None:
            check_policy(service, *read)

    def _control(self, environ: Environ) -> Response:
        path = environ["PATH_INFO"].removeprefix("/_localcloud/")
        if path == "health":
            settings = self._cloud.settings
            status = {"status": "running", "region": settings.region, "account": settings.account_id, "state_dir": str(settings.state_dir)}
            return Response(json.dumps(status), content_type="application/json")
        if path == "iam/usage":
            return Response(json.dumps(self._cloud.iam.usage()), content_type="application/json")
        if path == "stop" and environ["REQUEST_METHOD"] == "POST":
            self._stop()
            return Response("{}", content_type="application/json")
        if path == "connections/authorize" and environ["REQUEST_METHOD"] == "POST":
            return self._connect(Request(environ).get_data())
        if path.startswith("lambda/code/"):
            functions: Any = self._cloud.services["lambda"]
            archive = functions.archive(path.removeprefix("lambda/code/"))
            if archive is not None:
                return Response(archive, content_type="application/zip")
        return Response("{}", status=404, content_type="application/json")

    def _connect(self, body: bytes) -> Response:
        connections: Any = self._cloud.services["codeconnections"]
        try:
            answer, status = authorization(connections, body), 200
        except ServiceError as error:
            answer, status = {"__type": error.code, "message": error.message}, error.status
        return Response(json.dumps(answer), status=status, content_type="application/json")


def _is_from_this_machine(environ: Environ) -> bool:
    """Return False for what a browser sends for a page of somewhere else.

    No signature is checked here and a function's code is run as it is, so any page that the developer looks at could otherwise run code: cross-origin
    requests are told by their Origin, a name that was rebound to 127.0.0.1 by the Host.
    """
    origin = environ.get("HTTP_ORIGIN", "http://localhost")
    return _is_local(f"//{environ.get('HTTP_HOST') or 'localhost'}") and _is_local(origin)


def _is_local(address: str) -> bool:
    try:
        name = urlsplit(address).hostname
    except ValueError:  # neither a name nor an address
        return False
    return name is not None and ("." not in name or name.endswith(".localhost") or bool(_LOOPBACK.fullmatch(name)))


def _scope(environ: Environ) -> tuple[str, str | None]:
    """Return service and region of an AWS Signature Version 4 credential scope.

    An unsigned or presigned request is S3's, as everything else must be signed; an unsigned one names no region.
    """
    authorization = environ.get("HTTP_AUTHORIZATION", "")
    scope = authorization.partition("Credential=")[2].partition(",")[0].split("/")
    if len(scope) == 5:
        return str(scope[3]).lower(), scope[2]
    # AssumeRoleWithWebIdentity and its like are not signed; S3 has no operation on "/" that a form is sent to.
    form = environ["PATH_INFO"] == "/" and environ.get("CONTENT_TYPE", "").startswith("application/x-www-form-urlencoded")
    query = environ.get("QUERY_STRING", "")
    if form or "AssumeRoleWith" in query:
        return "sts", None
    presigned = parse_qs(query).get("X-Amz-Credential", [""])[0].split("/") if "X-Amz-Credential=" in query else []
    return "s3", presigned[2] if len(presigned) == 5 else None


def _wrong_region(signing_name: str, asked: str, region: str, environ: Environ) -> Response:
    """Refuse what was signed for another region than this one: there, it would not find what is here."""
    if signing_name == "s3":
        # As S3 answers; AWS's clients read the right region from it and ask again.
        code, what = (
            ("AuthorizationHeaderMalformed", "The authorization header is malformed")
            if environ.get("HTTP_AUTHORIZATION")
            else ("AuthorizationQueryParametersError", "Error parsing the X-Amz-Credential parameter")
        )
        message = f"{what}; the region {asked!r} is wrong; expecting {region!r}"
        body = f"<?xml version='1.0' encoding='UTF-8'?>\n<Error><Code>{code}</Code><Message>{escape(message)}</Message><Region>{region}</Region></Error>"
        return Response(body, 400, content_type="application/xml", headers={"x-amz-bucket-region": region})
    refusal = ServiceError(
        "ValidationException",
        f"The region {asked} is not supported by localcloud, which is {region} here. Set AWS_REGION={region} (or the profile's region), or start another for "
        f"{asked}: python -m localcloud --region {asked} --state-dir FOLDER",
    )
    service = OWN_SIGNING_NAMES.get(signing_name) or SUPPORTED_BY_MOTO.get(signing_name, signing_name)
    return _error_response(service, environ, refusal)


def _action(environ: Environ) -> str:
    return str(environ.get("HTTP_X_AMZ_TARGET", "")).rpartition(".")[2]


def _is_read_only(environ: Environ) -> bool:
    return environ["REQUEST_METHOD"] in _READ_ONLY_METHODS or _action(environ).startswith(_READ_ONLY_ACTIONS)


def _error_response(service: str, environ: Environ, error: ServiceError) -> Response:
    try:
        model = get_service_model(service)
    except DataNotFoundError:  # a service that even botocore does not know
        return Response(json.dumps({"__type": error.code, "message": error.message}), status=error.status, content_type="application/json")
    protocol = determine_request_protocol(model, environ.get("CONTENT_TYPE", ""))
    serializer = get_serializer_class(service, protocol)(operation_model=OperationModel({}, model))
    answer = serializer.serialize(error)
    return Response(answer["body"], status=error.status, headers=dict(answer["headers"]))
