"""Decides every request of a role, and remembers what each role did.

Requests with credentials that are no role's come from the person at this machine, who is the account's administrator: only a Deny of a resource's policy
stops them. A role's requests are decided as on AWS, wherever the role got its credentials: a job, a function, a stack, a state machine, AssumeRole.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from localcloud.errors import ServiceError, not_supported
from localcloud.iam.document import Access, Principal
from localcloud.iam.evaluation import Decision, Policies, decide, resource_allows
from localcloud.iam.keys import KeyNeeds
from localcloud.iam.needs import Need, Params, Place
from localcloud.iam.operations import needs
from localcloud.iam.principals import RoleSession, policies_of
from localcloud.iam.resource_policies import ResourcePolicies

if TYPE_CHECKING:
    from localcloud.cloud import Cloud

log = logging.getLogger(__name__)

#: Error codes for "you may not", where they are not AccessDeniedException.
_CODES = {
    "s3": "AccessDenied",
    "iam": "AccessDenied",
    "sts": "AccessDenied",
    "cloudformation": "AccessDenied",
    "cloudwatch": "AccessDenied",
    "sqs": "AccessDenied",
    "sns": "AuthorizationError",
}
#: Error codes for "you may not use the key" of services that have one of their own for that.
_KEY_CODES = {"sqs": "KMS.AccessDeniedException", "sns": "KMSAccessDenied"}
#: Services whose "you may not" is an HTTP 403 although their botocore model does not say so.
_FORBIDDEN = frozenset((*_CODES, "lambda"))
#: Accesses that are remembered of each action of a role in a part of a resource, e.g. a bucket's first folder; more tell nothing new.
_REMEMBERED = 50
#: Kinds of resources that are told apart for each action of a role.
_PARTS = 20


class Guard:
    """IAM's decisions in one region."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._place = Place(cloud.settings.region, cloud.settings.account_id)
        self._resources = ResourcePolicies(cloud)
        self._keys = KeyNeeds(cloud)
        self._table = cloud.db.table("iam.usage")
        self._lock = threading.Lock()
        self._done: set[tuple[str, str, frozenset[tuple[str, tuple[str, ...]]]]] = set()
        self._full: set[str] = set()
        self._parts: dict[str, set[str]] = {}

    def authorize(self, session: RoleSession, service: str, operation: str, params: Params) -> None:
        """Let a role's request pass.

        Args:
            session: Who asks.
            service: botocore's name of the service.
            operation: The API's name of the operation.
            params: The request's members.

        Raises:
            ServiceError: The role may not; or localcloud does not know what the operation needs.
        """
        needed = needs(self._place, service, operation, params)
        if needed is None:
            raise not_supported(f"{service}:{operation} for a role ({session.arn})")
        for named in needed:
            need = replace(named, resource=self._resources.key_behind(named.resource)) if service == "kms" else named
            self.check(session, need, service)
            if need.action == "s3:GetObject" and not self._resources.has_object(need.resource):
                # Who may not list a bucket is not told what is not in it (https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetObject.html).
                self.check(session, Need("s3:ListBucket", need.resource.partition("/")[0]), service)

    def check(self, session: RoleSession, need: Need, service: str | None = None) -> None:
        """Let one action of a role pass, with the use of keys that it comes to.

        Raises:
            ServiceError: The role may not, in the words of *service* (default: the action's own).
        """
        decision = self.decide(session, need)
        if not decision.allowed:
            raise denied(session, need, decision, service or need.action.partition(":")[0])
        for behind in self._keys.behind(need):
            self.check(session, behind, service or need.action.partition(":")[0])

    def decide(self, session: RoleSession, need: Need) -> Decision:
        """Decide one action of a role, and remember it."""
        policies = policies_of(session.role_arn, self._place.account)
        if policies is None:
            return Decision(False, "because the role does not exist")
        keys = {**_via(session), **self._resource_tags(need.resource), **need.keys}
        access = Access(need.action, need.resource, {**self._everywhere(), **_who(session), **keys})
        resource, decides = self._resources.of(need.resource, need.action)
        principal = Principal("AWS", (session.role_arn, session.arn), (f"arn:aws:iam::{session.account}:root", session.account))
        decision = decide(principal, access, Policies(policies.identity, policies.boundary, resource, decides))
        self._remember(session, replace(need, keys=keys), decision)
        return decision

    def of_everybody(self, action: str, resource: str) -> Literal["allow", "deny"] | None:
        """Return what a resource's policy says of those who are no role: strangers without credentials, and the account's administrator."""
        text, _ = self._resources.of(resource, action)
        if text is None:
            return None
        root = f"arn:aws:iam::{self._place.account}:root"
        access = Access(action, resource, self._everywhere())
        if "explicit deny" in decide(Principal("AWS", (root, self._place.account)), access, Policies((), None, text)).reason:
            return "deny"
        return "allow" if resource_allows(Principal("AWS", ()), access, text) else None

    def usage(self) -> list[dict[str, Any]]:
        """Return what roles did: of each role and action the resources (the first ones of each part) with the condition keys, and whether it was allowed."""
        return sorted(self._table.values(), key=lambda entry: (entry["role"], entry["action"], entry["allowed"]))

    def _everywhere(self) -> dict[str, tuple[str, ...]]:
        now = datetime.now(UTC)
        return {
            "aws:securetransport": ("true",),  # nothing leaves this machine
            "aws:requestedregion": (self._place.region,),
            "aws:currenttime": (now.strftime("%Y-%m-%dT%H:%M:%SZ"),),
            "aws:epochtime": (str(int(time.time())),),
            "aws:principalaccount": (self._place.account,),
            "aws:resourceaccount": (self._place.account,),
            "aws:viaawsservice": ("false",),
            "aws:principalisawsservice": ("false",),
        }

    def _resource_tags(self, arn: str) -> dict[str, tuple[str, ...]]:
        parts = arn.split(":", 3)
        service = self._cloud.services.get(parts[2]) if len(parts) > 2 else None
        tags = service.tags_of(arn) if service is not None else {}
        return {f"aws:resourcetag/{key.lower()}": (value,) for key, value in tags.items()}

    def _entry(self, done: str, resource: str) -> str:
        """Return the key of what is remembered of an action on resources like this one: the first folders of a bucket, else the kind of resource."""
        head, _, path = resource.partition("/")
        folder, slash, _ = path.partition("/")
        part = ":".join(head.split(":")[:6]) + (f"/{folder}" if slash and head.startswith("arn:aws:s3:") else "")
        parts = self._parts.get(done)
        if parts is None:
            parts = self._parts[done] = {key.rpartition("|")[2] for key in self._table if key.startswith(f"{done}|")}
        if part not in parts:
            if len(parts) >= _PARTS:
                part = ""
            parts.add(part)
        return f"{done}|{part}"

    def _remember(self, session: RoleSession, need: Need, decision: Decision) -> None:
        key = self._entry(f"{session.role_arn}|{need.action}|{decision.allowed}", need.resource)
        # The same thing is done again and again: the table, which copies what it gives, is asked once.
        done = (key, need.resource, frozenset(need.keys.items()))
        if key in self._full or done in self._done:
            return
        entry = {"resource": need.resource, "keys": {name: list(values) for name, values in need.keys.items()}}
        with self._lock:
            self._done.add(done)
            found = self._table.get(key) or {"role": session.role_arn, "action": need.action, "allowed": decision.allowed, "accesses": []}
            if len(found["accesses"]) >= _REMEMBERED:
                self._full.add(key)
                return
            if entry in found["accesses"]:
                return
            if not decision.allowed:
                log.info("%s may not %s on %s %s", session.arn, need.action, need.resource, decision.reason)
            self._table.put(key, {**found, "accesses": [*found["accesses"], entry]})


def _who(session: RoleSession) -> dict[str, tuple[str, ...]]:
    return {
        "aws:principalarn": (session.role_arn,),
        "aws:principaltype": ("AssumedRole",),
        "aws:userid": (f"AROALOCALCLOUD:{session.name}",),
    }


def _via(session: RoleSession) -> dict[str, tuple[str, ...]]:
    if not session.via:
        return {}
    first, last = session.via[0], session.via[-1]
    return {"aws:viaawsservice": ("true",), "aws:calledvia": session.via, "aws:calledviafirst": (first,), "aws:calledvialast": (last,)}


def denied(session: RoleSession, need: Need, decision: Decision, service: str) -> ServiceError:
    """Return AWS's error for what a role may not do."""
    on = "" if need.resource == "*" else f" on resource: {need.resource}"
    message = f"User: {session.arn} is not authorized to perform: {need.action}{on} {decision.reason}"
    if service in _KEY_CODES and need.action.startswith("kms:"):
        return ServiceError(_KEY_CODES[service], message)
    return ServiceError(_CODES.get(service, "AccessDeniedException"), message, status=403 if service in _FORBIDDEN else 400)
