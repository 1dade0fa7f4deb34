"""AWS's own managed policies (``arn:aws:iam::aws:policy/...``), for those who attach or read one.

moto carries the texts of all of them and loads all or none; all would be a large part of every snapshot. Here each is put into IAM when it is first asked
for. Held by tests/integration/test_cloudformation.py.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from typing import Any

from moto.iam.aws_managed_policies import aws_managed_policies_data
from moto.iam.models import AWSManagedPolicy, IAMBackend

#: The operations that name a policy, with the position of its ARN among their arguments.
_OPERATIONS = {
    "attach_group_policy": 0,
    "attach_role_policy": 0,
    "attach_user_policy": 0,
    "get_policy": 0,
    "get_policy_version": 0,
    "list_policy_versions": 0,
}


def install() -> None:
    """Let IAM know AWS's policies; doing it again does nothing."""
    for name, position in _OPERATIONS.items():
        method = getattr(IAMBackend, name)
        if not hasattr(method, "__wrapped__"):
            setattr(IAMBackend, name, _with_policy(method, position))


def _with_policy(method: Callable[..., Any], position: int) -> Callable[..., Any]:
    @functools.wraps(method)
    def wrapper(backend: IAMBackend, *arguments: Any, **named: Any) -> Any:
        arn = named.get("policy_arn") or (arguments[position] if len(arguments) > position else "")
        _load(backend, str(arn))
        return method(backend, *arguments, **named)

    return wrapper


def _load(backend: IAMBackend, arn: str) -> None:
    owner, _, path_and_name = arn.partition(":policy/")
    if not owner.endswith(":iam::aws") or arn in backend.managed_policies:
        return
    name = path_and_name.rpartition("/")[2]
    data = _policies().get(name)
    if data is None:
        return
    policy = AWSManagedPolicy.from_data(name, backend.account_id, backend.region_name, data)
    if policy.arn == arn:
        backend.managed_policies[arn] = policy
        backend.aws_managed_policies.append(policy)


@functools.cache
def _policies() -> dict[str, dict[str, Any]]:
    policies: dict[str, dict[str, Any]] = json.loads(aws_managed_policies_data)
    return policies
