"""The policies of resources: buckets, queues, topics, functions, keys."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from moto.core.exceptions import ServiceException
from moto.iam.access_control import PermissionResult
from moto.kms.models import kms_backends
from moto.s3.models import FakeBucket, s3_backends

from localcloud.iam.callers import caller
from localcloud.iam.principals import policies_of
from localcloud.messaging import MessageRefused, queue_policy, topic_policy

if TYPE_CHECKING:
    from localcloud.cloud import Cloud
    from localcloud.iam.guard import Guard

_RESULTS = {"allow": PermissionResult.PERMITTED, "deny": PermissionResult.DENIED, None: PermissionResult.NEUTRAL}


class ResourcePolicies:
    """Finds the policies of resources, and which there are."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud

    def of(self, arn: str, action: str) -> tuple[str | None, bool]:
        """Return the policy (JSON) or None that a resource has for an action, and whether it must allow what anybody may do (keys, and assuming roles)."""
        parts = arn.split(":", 5)
        if len(parts) < 6 or "*" in arn:
            return None, False
        service, rest = parts[2], parts[5]
        if service == "s3":
            return self._of_bucket(rest.partition("/")[0]), False
        if service == "lambda" and rest.startswith("function:"):
            functions: Any = self._cloud.services["lambda"]
            return functions.policy_text(arn), False
        if service == "iam" and action.startswith("sts:"):
            policies = policies_of(arn, self._cloud.settings.account_id)
            return (policies.trust if policies is not None else None), True
        if service == "kms" and rest.startswith("key/"):
            return self._of_key(rest.removeprefix("key/")), True
        return self._of_mailbox(service, arn), False

    def key_behind(self, arn: str) -> str:
        """Return the ARN of the key that an alias stands for, as that is the resource; any other ARN as it is."""
        before, found, name = arn.partition("alias/")
        if not found:
            return arn
        settings = self._cloud.settings
        identifier = kms_backends[settings.account_id][settings.region].get_key_id_from_alias(f"alias/{name}")
        return f"{before.removesuffix('key/')}key/{identifier or 'alias/' + name}"

    def has_object(self, arn: str) -> bool:
        """Tell whether there is an object of this ARN; in a bucket that is not there, there may be (S3 itself says so)."""
        name, _, key = arn.split(":", 5)[5].partition("/")
        bucket = s3_backends[self._cloud.settings.account_id]["aws"].buckets.get(name)
        return bucket is None or key in bucket.keys

    def _of_bucket(self, name: str) -> str | None:
        bucket = s3_backends[self._cloud.settings.account_id]["aws"].buckets.get(name)
        policy = bucket.policy if bucket is not None else None
        return policy.decode() if isinstance(policy, bytes) else policy

    def _of_key(self, identifier: str) -> str | None:
        key = kms_backends[self._cloud.settings.account_id][self._cloud.settings.region].keys.get(identifier)
        return None if key is None else str(key.policy)

    def _of_mailbox(self, service: str, arn: str) -> str | None:
        try:
            policy = {"sqs": queue_policy, "sns": topic_policy}[service](self._cloud, arn)
        except (KeyError, MessageRefused, ServiceException):
            return None
        return json.dumps(policy) if policy else None


def install(guard: Guard) -> None:
    """Have moto's S3 ask *guard* about bucket policies: moto evaluates statements as if they had no conditions, so that "deny what is not TLS" denies all."""

    def get_permission(bucket: FakeBucket, action: str, resource: str) -> PermissionResult:
        # What a role may do was decided before moto is asked.
        if caller() is not None:
            return PermissionResult.PERMITTED
        return _RESULTS[guard.of_everybody(action, resource)]

    FakeBucket.get_permission = get_permission  # type: ignore[method-assign, assignment]
