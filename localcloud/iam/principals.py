"""Roles: who they are, and what their policies say."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from moto.core.utils import utcnow
from moto.iam.models import IAMBackend, Role, iam_backends
from moto.sts.models import STSBackend, sts_backends
from moto.sts.utils import SESSION_TOKEN_PREFIX

from localcloud.errors import ServiceError

#: Between the role's ARN and the session's name in the session token of those whom localcloud itself gives a role. No ARN has it.
_SEPARATOR = "|"
_ROLE_ARN = re.compile(r"arn:aws[\w-]*:iam::\d{12}:role/.+")


@dataclass(frozen=True)
class RoleSession:
    """A role, as somebody has assumed it.

    Attributes:
        role_arn: The role.
        name: The session's name.
        via: The services that make the request for it, with its credentials, e.g. ``cloudformation.amazonaws.com``.
    """

    role_arn: str
    name: str
    via: tuple[str, ...] = ()

    @property
    def account(self) -> str:
        """The account's number."""
        return self.role_arn.split(":")[4]

    @property
    def arn(self) -> str:
        """The session's ARN, which AWS's error messages name."""
        role = self.role_arn.rpartition("/")[2]
        return f"arn:aws:sts::{self.account}:assumed-role/{role}/{self.name}"

    @property
    def token(self) -> str:
        """The session token of its credentials."""
        return _SEPARATOR.join((self.role_arn, self.name, *self.via))


@dataclass(frozen=True)
class RolePolicies:
    """The policies of a role, as JSON texts.

    Attributes:
        identity: Inline and attached ones.
        boundary: The permissions boundary.
        trust: Who may assume it.
    """

    identity: tuple[str, ...]
    boundary: str | None
    trust: str


def session_of(token: str | None, access_key_id: str | None, account: str) -> RoleSession | None:
    """Return the role session that a request's credentials are of; None for everybody else, who is the account's administrator here.

    Args:
        token: The session token.
        access_key_id: The access key, by which STS knows whom it gave a role.
        account: The region's account.

    Raises:
        ServiceError: The credentials were a role's and are not good any more, or never were.
    """
    if token and _SEPARATOR in token:
        role_arn, name, *via = token.split(_SEPARATOR)
        if not _ROLE_ARN.fullmatch(role_arn):
            raise _not_valid()
        return RoleSession(role_arn, name, tuple(via))
    if access_key_id:
        backend: STSBackend = sts_backends[account]["aws"]
        assumed = backend.get_assumed_role_from_access_key(access_key_id)
        if assumed is not None:
            if assumed.expiration < utcnow():
                raise ServiceError("ExpiredToken", "The security token included in the request is expired", status=403)
            return RoleSession(assumed.role_arn, assumed.session_name)
    if token and token.startswith(SESSION_TOKEN_PREFIX):
        # A role's, of another region process or from before the state was lost: its bearer must not become the administrator.
        raise _not_valid()
    return None


def _not_valid() -> ServiceError:
    return ServiceError("InvalidClientTokenId", "The security token included in the request is invalid.", status=403)


def policies_of(role_arn: str, account: str) -> RolePolicies | None:
    """Return the policies of a role, or None when there is no such role."""
    backend: IAMBackend = iam_backends[account]["aws"]
    role = _find(backend, role_arn)
    if role is None:
        return None
    attached = (_managed(backend, arn) for arn in list(role.managed_policies))
    boundary = role.permissions_boundary_arn
    return RolePolicies(
        identity=(*(_text(document) for document in list(role.policies.values())), *attached),
        boundary=_managed(backend, boundary) if boundary else None,
        trust=_text(role.assume_role_policy_document or {}),
    )


def _managed(backend: IAMBackend, arn: str) -> str:
    policy = backend.managed_policies.get(arn)
    default = policy and next((version for version in policy.versions if version.version_id == policy.default_version_id), None)
    # A policy that is gone allows nothing.
    return default.document if default else '{"Statement": []}'


def _find(backend: IAMBackend, role_arn: str) -> Role | None:
    return next((role for role in list(backend.roles.values()) if role.arn == role_arn), None)


def _text(document: Any) -> str:
    return document if isinstance(document, str) else json.dumps(document)
