"""What AWS's services may: assume a role, and do something to a function, a queue or a topic for one of the account's resources."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from localcloud.iam.document import Access, Principal
from localcloud.iam.evaluation import resource_allows
from localcloud.iam.principals import policies_of

if TYPE_CHECKING:
    from localcloud.cloud import Cloud


@dataclass(frozen=True)
class ServiceCall:
    """What a service asks to do.

    Attributes:
        principal: The service, e.g. ``events.amazonaws.com``.
        action: E.g. ``lambda:InvokeFunction``.
        resource: ARN of what it is done to.
        source_arn: ARN of what it is done for, e.g. the rule; None when the service does not tell.
        source_account: The account of that.
        source_owner: The account on whose behalf SNS is asked, for the services that say so (CloudWatch).
    """

    principal: str
    action: str
    resource: str
    source_arn: str | None
    source_account: str | None
    source_owner: str | None = None


def allows(policy: dict[str, Any] | str | None, call: ServiceCall, more: Mapping[str, str] | None = None) -> bool:
    """Tell whether a resource's policy lets a service do something: some statement allows and none denies it.

    Args:
        policy: The policy, as a document or its text.
        call: What the service asks to do.
        more: Condition keys of the request besides those that follow from the call.
    """
    text = policy if isinstance(policy, str) else json.dumps(policy) if policy else None
    keys = {
        "aws:sourcearn": call.source_arn,
        "aws:sourceaccount": call.source_account,
        "aws:sourceowner": call.source_owner,
        "aws:principalservicename": call.principal,
        "aws:securetransport": "true",
        "aws:principalisawsservice": "true",
        **(more or {}),
    }
    access = Access(call.action, call.resource, {key: (value,) for key, value in keys.items() if value is not None})
    return resource_allows(Principal("Service", (call.principal,)), access, text)


def can_assume(cloud: Cloud, role_arn: str, service_principal: str, source_arn: str | None = None) -> bool:
    """Tell whether a role exists and its trust policy lets a service assume it.

    Args:
        cloud: The region.
        role_arn: The role.
        service_principal: E.g. ``lambda.amazonaws.com``.
        source_arn: For which of the account's resources; None where the service does not tell, so that a condition on it does not hold.
    """
    policies = policies_of(role_arn, cloud.settings.account_id)
    if policies is None:
        return False
    account = cloud.settings.account_id if source_arn is not None else None
    return allows(json.loads(policies.trust), ServiceCall(service_principal, "sts:AssumeRole", role_arn, source_arn, account))
