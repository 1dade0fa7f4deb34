"""Policies when they are put: what AWS refuses then must not turn up when somebody is to be let in or not.

moto checks the policies of IAM itself; here is what it leaves out of those, and those of buckets, queues, topics and keys.
Source: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_grammar.html.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from localcloud.errors import ServiceError
from localcloud.iam.conditions import is_operator
from localcloud.iam.matching import matches
from localcloud.iam.needs import Params

_VERSIONS = ("2008-10-17", "2012-10-17")
_ELEMENTS = frozenset(
    ("Sid", "Effect", "Action", "NotAction", "Resource", "NotResource", "Principal", "NotPrincipal", "Condition"),
)
_PRINCIPALS = frozenset(("AWS", "Service", "Federated", "CanonicalUser"))
_ACTION = re.compile(r"\*|[A-Za-z0-9-]+:[A-Za-z0-9*?]+")
#: Sizes without white space, and how IAM says that one is exceeded (https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html).
_LARGEST = {
    "CreatePolicy": (6144, "Cannot exceed quota for PolicySize: 6144"),
    "CreatePolicyVersion": (6144, "Cannot exceed quota for PolicySize: 6144"),
    "CreateRole": (2048, "Cannot exceed quota for ACLSizePerRole: 2048"),
    "UpdateAssumeRolePolicy": (2048, "Cannot exceed quota for ACLSizePerRole: 2048"),
    "PutRolePolicy": (10240, "Maximum policy size of 10240 bytes exceeded for role {RoleName}"),
}
_TARGETS = {
    "sqs": frozenset(("CreateQueue", "SetQueueAttributes")),
    "kms": frozenset(("CreateKey", "PutKeyPolicy")),
}
_QUERY_POLICY = re.compile(r"(^|&)policy(=|&|$)")


def may_carry_policy(service: str, environ: Mapping[str, Any]) -> bool:
    """Tell whether a request may be one that `check_policy` has something to say to, without reading its body."""
    if service == "s3":
        return environ["REQUEST_METHOD"] == "PUT" and bool(_QUERY_POLICY.search(environ.get("QUERY_STRING", "")))
    if service in _TARGETS:
        action = str(environ.get("HTTP_X_AMZ_TARGET", "")).rpartition(".")[2]
        return not action or action in _TARGETS[service]
    return service in ("iam", "sns")


def check_policy(service: str, operation: str, params: Params) -> None:
    """Check the policy that a request to one of moto's services puts, if it does.

    Raises:
        ServiceError: AWS would not take it.
    """
    if service == "iam":
        _check_identity(operation, params)
        return
    attributes = params.get("Attributes") or {}
    if service == "sns":
        topic = params if operation == "SetTopicAttributes" and params.get("AttributeName") == "Policy" else {}
        text = attributes.get("Policy") if operation == "CreateTopic" else topic.get("AttributeValue")
        code, message = "InvalidParameter", "Invalid parameter: Policy Error: {}"
    elif service == "sqs":
        text = attributes.get("Policy")
        code, message = "InvalidAttributeValue", "Invalid value for the parameter Policy. {}"
    elif service == "kms":
        text = params.get("Policy")
        code, message = "MalformedPolicyDocumentException", "{}"
    else:
        text = params.get("Policy") if operation == "PutBucketPolicy" else None
        code, message = "MalformedPolicy", "{}"
    if not text:
        return
    text = text.decode(errors="replace") if isinstance(text, bytes) else str(text)
    problem = next(_problems(text, f"arn:aws:s3:::{params.get('Bucket')}" if service == "s3" else ""), None)
    if problem:
        raise ServiceError(code, message.format(problem))


def _check_identity(operation: str, params: Params) -> None:
    text = str(params.get("PolicyDocument") or params.get("AssumeRolePolicyDocument") or "")
    largest, message = _LARGEST.get(operation, (0, ""))
    if largest and len("".join(text.split())) > largest:
        raise ServiceError("LimitExceeded", message.format(**params), status=409)
    if operation in ("CreatePolicy", "CreatePolicyVersion", "PutRolePolicy"):
        try:
            document = json.loads(text)
        except ValueError:
            return  # moto says so
        if any(name in statement for statement in _statements(document) for name in ("Principal", "NotPrincipal")):
            raise ServiceError("MalformedPolicyDocument", "Policy document should not specify a principal.")


def _statements(document: Any) -> list[dict[str, Any]]:
    found = document.get("Statement") if isinstance(document, dict) else None
    return [one for one in (found if isinstance(found, list) else [found]) if isinstance(one, dict)]


def _problems(text: str, bucket: str) -> Iterator[str]:
    """Yield what is wrong with a resource's policy; of a bucket's, *bucket* is its ARN."""
    try:
        document = json.loads(text)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        yield "Policies must be valid JSON and the first byte must be '{'"
        return
    for name in document.keys() - {"Version", "Id", "Statement"}:
        yield f"Unknown field {name}"
    if document.get("Version", _VERSIONS[0]) not in _VERSIONS:
        yield "The policy must contain a valid version string"
    statements = _statements(document)
    if not statements or (isinstance(document["Statement"], list) and len(statements) != len(document["Statement"])):
        yield "Could not parse the policy: Statement is empty!"
    for statement in statements:
        yield from _statement_problems(statement, bucket)


def _statement_problems(statement: Mapping[str, Any], bucket: str) -> Iterator[str]:
    for name in statement.keys() - _ELEMENTS:
        yield f"Unknown field {name}"
    if statement.get("Effect") not in ("Allow", "Deny"):
        yield f"Invalid effect : {statement.get('Effect')}"
    for one, other in (("Action", "NotAction"), ("Principal", "NotPrincipal"), ("Resource", "NotResource")):
        if one in statement and other in statement:
            yield f"Statement has both {one} and {other}"
        if one not in statement and other not in statement and (one != "Resource" or bucket):
            yield f"Missing required field {one}"
    actions = _texts(statement.get("Action", statement.get("NotAction")))
    if not actions or not all(_ACTION.fullmatch(action) for action in actions):
        yield "Policy has invalid action"
    if not _is_principal(statement.get("Principal", statement.get("NotPrincipal"))):
        yield "Invalid principal in policy"
    resources = _texts(statement.get("Resource", statement.get("NotResource", [])))
    if resources is None or not all(_is_resource(resource, bucket) for resource in resources):
        yield "Policy has invalid resource"
    yield from _condition_problems(statement.get("Condition", {}))


def _condition_problems(condition: Any) -> Iterator[str]:
    if not isinstance(condition, dict):
        yield "Policy has invalid condition"
        return
    for operator, keys in condition.items():
        if not is_operator(operator):
            yield f"Invalid Condition type : {operator}"
        elif not isinstance(keys, dict) or not all(_is_value(value) for value in keys.values()):
            yield "Policy has invalid condition"


def _is_value(value: Any) -> bool:
    return all(isinstance(one, (str, bool, int, float)) for one in (value if isinstance(value, list) else [value]))


def _is_principal(value: Any) -> bool:
    if value == "*":
        return True
    if not isinstance(value, dict) or not value or value.keys() - _PRINCIPALS:
        return False
    lists = [(kind, _texts(names)) for kind, names in value.items()]
    # A star stands for everybody, never for a part of a name.
    return all(names and all("*" not in name or (name == "*" and kind == "AWS") for name in names) for kind, names in lists)


def _is_resource(text: str, bucket: str) -> bool:
    if not bucket:
        return bool(text)
    return text == "*" or matches(text.partition("/")[0], bucket)


def _texts(value: Any) -> list[str] | None:
    """Return a string or a list of strings as a list; None for anything else."""
    found = value if isinstance(value, list) else [value]
    return found if all(isinstance(one, str) for one in found) else None
