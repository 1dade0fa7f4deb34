"""Dynamic references: ``{{resolve:ssm:...}}`` and ``{{resolve:secretsmanager:...}}`` in property values, looked up when a resource is made or changed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from botocore.exceptions import ClientError

from localcloud.cloudformation.errors import ResourceFailure, unsupported

Json = Any
_SERVICES = ("ssm", "secretsmanager")
_REFERENCE = re.compile(r"\{\{resolve:([a-z-]+):([^{}]*)\}\}")


def resolve_dynamic(value: Json, clients: Callable[[str], Any]) -> Json:
    """Return *value* with every dynamic reference replaced by what it names.

    Raises:
        ResourceFailure: There is no such parameter or secret.
    """
    if isinstance(value, dict):
        return {key: resolve_dynamic(item, clients) for key, item in value.items()}
    if isinstance(value, list):
        return [resolve_dynamic(item, clients) for item in value]
    if not isinstance(value, str):
        return value
    return _REFERENCE.sub(lambda match: _look_up(match.group(1), match.group(2), clients), value)


def check_dynamic(value: Json) -> None:
    """Refuse a value that holds a dynamic reference of a kind that is not looked up.

    Raises:
        ServiceError: It is named.
    """
    if isinstance(value, (dict, list)):
        for item in value.values() if isinstance(value, dict) else value:
            check_dynamic(item)
    for match in _REFERENCE.finditer(value) if isinstance(value, str) else ():
        if match.group(1) not in _SERVICES:
            raise unsupported(f"The dynamic reference {{{{resolve:{match.group(1)}:...}}}}")


def _look_up(service: str, rest: str, clients: Callable[[str], Any]) -> str:
    try:
        if service == "ssm":
            return str(clients("ssm").get_parameter(Name=rest)["Parameter"]["Value"])
        return _secret(rest, clients("secretsmanager"))
    except ClientError as error:
        raise ResourceFailure(
            f"Could not resolve {{{{resolve:{service}:{rest}}}}}: {error.response['Error'].get('Message', error)}"
        ) from error


def _secret(rest: str, client: Any) -> str:
    # A secret's ARN has six colons of its own.
    parts = rest.split(":")
    count = 7 if rest.startswith("arn:") else 1
    secret_id, (kind, key, stage, version) = ":".join(parts[:count]), ([*parts[count:], "", "", "", ""])[:4]
    if kind not in ("", "SecretString"):
        raise ResourceFailure(
            f"Could not parse the dynamic reference {{{{resolve:secretsmanager:{rest}}}}}: only SecretString can be referred to"
        )
    request = {"SecretId": secret_id} | ({"VersionStage": stage} if stage else {}) | ({"VersionId": version} if version else {})
    text = str(client.get_secret_value(**request).get("SecretString", ""))
    if not key:
        return text
    try:
        return str(json.loads(text)[key])
    except (ValueError, KeyError, TypeError) as error:
        raise ResourceFailure(f"Could not find a value associated with JSONKey in SecretString: {key} of {secret_id}") from error
