"""What a request needs: actions on resources, with condition keys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Params = Mapping[str, Any]


@dataclass(frozen=True)
class ObjectData:
    """What is done with the bytes of an S3 object, which may be encrypted with a key.

    Attributes:
        does: Reads them, writes them, or writes a part of them.
        version: Which version is read; None for the newest.
        encryption: The algorithm that the request asks for.
        key: The key that it names.
        bucket_key: Whether it asks for a bucket key.
        upload: The multipart upload that the part is of.
    """

    does: Literal["read", "write", "part"]
    version: str | None = None
    encryption: str | None = None
    key: str | None = None
    bucket_key: bool | None = None
    upload: str | None = None


@dataclass(frozen=True)
class Need:
    """One action that a request needs.

    Attributes:
        action: E.g. ``sagemaker:CreateEndpoint``.
        resource: ARN, or ``*``.
        keys: Condition keys of the request, besides those that every request has.
        data: What it does with an object's bytes; None when it leaves them alone.
    """

    action: str
    resource: str
    keys: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    data: ObjectData | None = None


class Place:
    """Makes ARNs of one region and account."""

    def __init__(self, region: str, account: str) -> None:
        self.region = region
        self.account = account

    def arn(self, service: str, rest: str, *, region: bool = True) -> str:
        """Return an ARN."""
        return f"arn:aws:{service}:{self.region if region else ''}:{self.account}:{rest}"


def pass_role(role_arn: str, service: str) -> Need:
    """Return what handing a role to a service needs."""
    return Need("iam:PassRole", role_arn, {"iam:passedtoservice": (service,)})


def tag_keys(params: Params) -> dict[str, tuple[str, ...]]:
    """Return the condition keys of a request's tags, or of the keys whose tags it takes away; none when it has none."""
    taken = params.get("TagKeys") or params.get("tagKeys")
    if taken:
        return {"aws:tagkeys": tuple(map(str, taken))}
    tags = params.get("Tags") or params.get("tags") or {}
    if isinstance(tags, list) and tags and isinstance(tags[0], str):
        return {"aws:tagkeys": tuple(tags)}
    if isinstance(tags, Mapping):
        pairs = {str(key): str(value) for key, value in tags.items()}
    else:
        pairs = {str(tag.get("Key", tag.get("key"))): str(tag.get("Value", tag.get("value", ""))) for tag in tags}
    if not pairs:
        return {}
    return {f"aws:requesttag/{key.lower()}": (value,) for key, value in pairs.items()} | {"aws:tagkeys": tuple(pairs)}
