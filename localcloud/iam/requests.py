"""Requests to moto's services, as far as IAM needs to know them: who sends them, which operation they are, what they name."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs

from moto.core.parse import PROTOCOL_PARSERS
from moto.core.request import Request, determine_request_protocol
from moto.core.routing import get_service_router
from werkzeug.exceptions import NotFound

from localcloud.iam.principals import RoleSession, session_of

_CREDENTIAL = re.compile(r"Credential=([^/]+)/")
#: S3 operations whose body says what they are done to; of all others the address does, and the body may be large.
_WITH_BODY = frozenset(("DeleteObjects", "CreateBucket", "PutBucketPolicy"))


def sender(environ: Mapping[str, Any], account: str) -> RoleSession | None:
    """Return the role session whose credentials a request is signed with, in its headers or, presigned, in its address."""
    match = _CREDENTIAL.search(environ.get("HTTP_AUTHORIZATION", ""))
    if match:
        return session_of(environ.get("HTTP_X_AMZ_SECURITY_TOKEN"), match.group(1), account)
    # Presigned; with version 2 of AWS's signatures or version 4.
    query = {name.lower(): values[0] for name, values in parse_qs(environ.get("QUERY_STRING", "")).items()}
    key = query.get("awsaccesskeyid") or query.get("x-amz-credential", "").partition("/")[0]
    return session_of(query.get("x-amz-security-token"), key, account) if key else None


def read(service: str, environ: dict[str, Any]) -> tuple[str, dict[str, Any]] | None:
    """Return a request's operation and members, or None when it is no operation of the service; the body can be read again afterwards."""
    body = environ["wsgi.input"].read() if environ.get("wsgi.input") else b""
    environ["wsgi.input"] = io.BytesIO(body)
    request = Request({**environ, "wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body))})
    try:
        operation, names = get_service_router(service).match(request)
    except NotFound:
        return None
    protocol = determine_request_protocol(operation.service_model, request.content_type)
    whole = service != "s3" or operation.name in _WITH_BODY
    params = PROTOCOL_PARSERS[protocol](operation, map_type=dict).parse(
        {
            "method": request.method,
            "values": request.values,
            "headers": request.headers,
            "body": body if whole else b"",
            "url_path": request.path,
            "url_params": dict(names),
        }
    )
    return operation.name, {**params, **names}
