"""What a request wants a stack to be: its template fetched, its parameters, tags and capabilities checked, everything unsupported refused."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from localcloud.cloudformation.blueprint import Blueprint, Registry
from localcloud.cloudformation.engine import pseudo_parameters
from localcloud.cloudformation.errors import unsupported, validation_error
from localcloud.cloudformation.parameters import ParameterValue, declared, resolve
from localcloud.cloudformation.provider import Place
from localcloud.cloudformation.template import MAX_BODY_BYTES, MAX_URL_BYTES, Template, parse_template
from localcloud.database import Document
from localcloud.errors import ServiceError

Json = Any
Params = Mapping[str, Json]

_VIRTUAL_HOST = re.compile(r"(?P<bucket>[a-z0-9][a-z0-9.-]*)\.s3(?:[.-](?:dualstack\.)?[a-z0-9-]+)?\.amazonaws\.com")
_PATH_HOST = re.compile(r"s3(?:[.-](?:dualstack\.)?[a-z0-9-]+)?\.amazonaws\.com")
#: Request members that AWS has and localcloud has not; empty values are let through.
_REFUSED = (
    "StackPolicyBody", "StackPolicyURL", "StackPolicyDuringUpdateBody", "StackPolicyDuringUpdateURL", "ResourceTypes", "DeploymentConfig",
    "DisableValidation", "IncludeNestedStacks", "ImportExistingResources",
)  # fmt: skip


@dataclass(frozen=True)
class Target:
    """What a stack is to become.

    Attributes:
        fields: The fields of the stack's document that an operation replaces.
        blueprint: The checked template.
    """

    fields: dict[str, Json]
    blueprint: Blueprint


class Templates:
    """Reads templates and what requests say about them.

    Args:
        registry: Finds providers.
        place: Region and account.
        read_object: Returns an S3 object by bucket and key, or None.
        is_own_host: Whether a host and port are this region's.
        ssm_value: Reads an SSM parameter, or None.
    """

    def __init__(
        self,
        registry: Registry,
        place: Place,
        read_object: Callable[[str, str], bytes | None],
        is_own_host: Callable[[str, int | None], bool],
        ssm_value: Callable[[str], str | None],
    ) -> None:
        self._registry = registry
        self._place = place
        self._read_object = read_object
        self._is_own_host = is_own_host
        self._ssm_value = ssm_value

    def text(self, params: Params, stack: Document | None = None, largest: int = MAX_BODY_BYTES) -> str:
        """Return the template that a request gives in one of three ways.

        Raises:
            ServiceError: None or several are given, it is too large, or it cannot be read.
        """
        body, url, previous = params.get("TemplateBody"), params.get("TemplateURL"), params.get("UsePreviousTemplate")
        if sum(map(bool, (body, url, previous))) > 1:
            raise validation_error("You can specify only one of the following: TemplateBody, TemplateURL, UsePreviousTemplate")
        if previous:
            if stack is None or not stack.get("TemplateBody"):
                raise validation_error("Either Template URL or Template Body must be specified.")
            return str(stack["TemplateBody"])
        if body:
            if len(str(body).encode()) > largest:
                raise validation_error(
                    f"1 validation error detected: Value '{str(body)[:40]}...' at 'templateBody' failed to satisfy constraint: "
                    f"Member must have length less than or equal to {largest}"
                )
            return str(body)
        if not url:
            raise validation_error("Either Template URL or Template Body must be specified.")
        return self._fetch(str(url))

    def _fetch(self, url: str) -> str:
        bucket, key = self._s3_address(url)
        content = self._read_object(bucket, key)
        if content is None:
            raise validation_error(
                f"S3 error: Access Denied or no such object: Template URL must reference a valid S3 object to which you have access. ({url})"
            )
        if len(content) > MAX_URL_BYTES:
            raise validation_error(f"Template may not exceed {MAX_URL_BYTES} bytes in size.")
        try:
            return content.decode()
        except UnicodeDecodeError as error:
            raise validation_error(f"Template format error: {url} is not UTF-8 text.") from error

    def _s3_address(self, url: str) -> tuple[str, str]:
        parts = urlsplit(url)
        host, path = parts.hostname or "", unquote(parts.path).lstrip("/")
        own = parts.scheme == "http" and self._is_own_host(host, parts.port)
        if own or (parts.scheme == "https" and _PATH_HOST.fullmatch(host)):
            bucket, _, key = path.partition("/")
        elif parts.scheme == "https" and (match := _VIRTUAL_HOST.fullmatch(host)):
            bucket, key = match["bucket"], path
        else:
            raise validation_error("TemplateURL must be a supported URL.")
        if not bucket or not key:
            raise validation_error("TemplateURL must reference a valid S3 object to which you have access.")
        return bucket, key

    def target(self, params: Params, stack: Document, largest: int = MAX_BODY_BYTES) -> Target:
        """Check a create, update or change set request and return what the stack is to become.

        Args:
            params: The request.
            stack: The stack: its id and name, and, when it exists, what it is now.
            largest: Bytes that a TemplateBody may have.

        Raises:
            ServiceError: With AWS's code and message; or the name of what is not supported.
        """
        refuse_unsupported(params)
        text = self.text(params, stack, largest)
        template = parse_template(text)
        check_capabilities(template, self._registry, list(params.get("Capabilities") or []), macros="ChangeSetName" not in params)
        specs = declared(template.parameters)
        exists = "Parameters" in stack
        previous = {name: ParameterValue.of(document) for name, document in stack["Parameters"].items()} if exists else None
        values = resolve(specs, params.get("Parameters") or [], previous, self._ssm_value)
        tags = self._tags(params, stack)
        notifications = params.get("NotificationARNs")
        fields = {
            "TemplateBody": text,
            "Description": template.description,
            "Parameters": {name: value.document() for name, value in values.items()},
            "Capabilities": list(params.get("Capabilities") or []),
            "Tags": tags,
            "RoleARN": params.get("RoleARN") or stack.get("RoleARN"),
            "NotificationARNs": list(notifications if notifications is not None else stack.get("NotificationARNs") or []),
        }
        blueprint = Blueprint(template, specs, values, pseudo_parameters(self._place, {**stack, **fields}), self._registry, tags)
        return Target(fields, blueprint)

    def _tags(self, params: Params, stack: Document) -> dict[str, str]:
        tags = params.get("Tags")
        if tags is None:
            return dict(stack.get("Tags") or {})
        for tag in tags:
            if tag["Key"].lower().startswith("aws:"):
                raise validation_error(f"aws: prefixed tag key names are not allowed for external use. ({tag['Key']})")
        keys = [tag["Key"] for tag in tags]
        if len(set(keys)) < len(keys):
            raise validation_error("Duplicate tag keys found. Please note that Tag keys are case insensitive.")
        return {tag["Key"]: tag["Value"] for tag in tags}


def refuse_unsupported(params: Params) -> None:
    """Refuse request members that localcloud does not support.

    Raises:
        ServiceError: One of them is there and says something.
    """
    for name in _REFUSED:
        if params.get(name):
            raise unsupported(name)
    if (params.get("RollbackConfiguration") or {}).get("RollbackTriggers"):
        raise unsupported("RollbackConfiguration with RollbackTriggers")


def needed_capabilities(template: Template, registry: Registry) -> tuple[str | None, list[str]]:
    """Return the IAM capability that a template needs (None: none), and the resource types that it needs it for."""
    found = [
        (resource, provider) for resource in template.resources.values() if (provider := registry(resource.type)) and provider.capability
    ]
    named = any(provider.name.property in resource.properties for resource, provider in found)
    return ("CAPABILITY_NAMED_IAM" if named else "CAPABILITY_IAM") if found else None, sorted({resource.type for resource, _ in found})


def check_capabilities(template: Template, registry: Registry, given: list[str], *, macros: bool) -> None:
    """Refuse a template that needs capabilities which the request does not give.

    Args:
        template: The template.
        registry: Finds providers, which say what needs a capability.
        given: The request's Capabilities.
        macros: Whether transforms need one, too (they do not in a change set, which shows what they make).

    Raises:
        ServiceError: InsufficientCapabilitiesException.
    """
    needed, _ = needed_capabilities(template, registry)
    missing = []
    if needed == "CAPABILITY_NAMED_IAM" and needed not in given:
        missing.append(needed)
    if needed == "CAPABILITY_IAM" and not {"CAPABILITY_IAM", "CAPABILITY_NAMED_IAM"} & set(given):
        missing.append(needed)
    if macros and template.transforms and "CAPABILITY_AUTO_EXPAND" not in given:
        missing.append("CAPABILITY_AUTO_EXPAND")
    if missing:
        raise ServiceError("InsufficientCapabilitiesException", f"Requires capabilities : [{', '.join(missing)}]")
