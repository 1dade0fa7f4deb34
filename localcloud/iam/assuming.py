"""STS: who may assume a role, and who asks.

moto gives anybody the credentials of any role, whether it exists or not; here the role's trust policy decides, as on AWS.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from moto.sts.models import STSBackend

from localcloud.errors import ServiceError, not_supported
from localcloud.iam.callers import caller
from localcloud.iam.document import Access, Principal
from localcloud.iam.evaluation import Policies, decide
from localcloud.iam.needs import Params
from localcloud.iam.principals import policies_of

if TYPE_CHECKING:
    from localcloud.iam.principals import RoleSession

_EVERYTHING = '{"Statement": {"Effect": "Allow", "Action": "*", "Resource": "*"}}'
#: Nothing here can tell whether a token of somebody else's is good.
_FEDERATED = frozenset(("AssumeRoleWithSAML", "AssumeRoleWithWebIdentity", "AssumeRoot"))
_FOR_USERS = frozenset(("GetSessionToken", "GetFederationToken"))


def check_request(account: str, session: RoleSession | None, operation: str, params: Params) -> None:
    """Check a request to STS for what holds whoever asks, and the administrator's against the role's trust policy (a role's is the guard's).

    Raises:
        ServiceError: It is refused.
    """
    if operation in _FEDERATED:
        raise not_supported(f"sts:{operation}")
    if session is not None and operation in _FOR_USERS:
        # https://docs.aws.amazon.com/IAM/latest/UserGuide/id_credentials_sts-comparison.html
        raise ServiceError("AccessDenied", f"Cannot call {operation} with session credentials", status=403)
    if operation != "AssumeRole":
        return
    if params.get("Policy") or params.get("PolicyArns"):
        raise not_supported("A session policy")
    if session is None:
        _check_trust(account, params)


def _check_trust(account: str, params: Params) -> None:
    role, root = str(params.get("RoleArn")), f"arn:aws:iam::{account}:root"
    policies = policies_of(role, account)
    if policies is not None:
        keys = {"aws:principalarn": root, "aws:principalaccount": account, "sts:rolesessionname": str(params.get("RoleSessionName"))}
        if params.get("ExternalId"):
            keys["sts:externalid"] = str(params["ExternalId"])
        access = Access("sts:AssumeRole", role, {key: (value,) for key, value in keys.items()})
        asking = Principal("AWS", (root,), (root, account))
        if decide(asking, access, Policies((_EVERYTHING,), None, policies.trust, resource_decides=True)).allowed:
            return
    raise ServiceError("AccessDenied", f"User: {root} is not authorized to perform: sts:AssumeRole on resource: {role}", status=403)


def install() -> None:
    """Have moto's STS tell those to whom localcloud itself gave a role who they are; moto knows only whom it gave one."""
    original = STSBackend.get_caller_identity

    def get_caller_identity(self: STSBackend, access_key_id: str, region: str) -> tuple[str, str, str]:
        session = caller()
        if session is None or self.get_assumed_role_from_access_key(access_key_id) is not None:
            return original(self, access_key_id, region)
        return f"AROALOCALCLOUD:{session.name}", session.arn, session.account

    STSBackend.get_caller_identity = get_caller_identity  # type: ignore[method-assign]
