"""What an operation is, to IAM: the actions that it needs, on which resources, with which condition keys.

Source of actions, resources and keys: https://docs.aws.amazon.com/service-authorization/latest/reference/. An operation that is not known here cannot be
allowed to a role: it is refused as not supported, never let through.
"""

from __future__ import annotations

from localcloud.iam.grammar import GRAMMARS, needs_by_grammar
from localcloud.iam.needs import Need, Params, Place
from localcloud.iam.s3_needs import s3_needs
from localcloud.iam.special_needs import SPECIAL

#: Allowed to everybody (https://docs.aws.amazon.com/STS/latest/APIReference/API_GetCallerIdentity.html).
_UNIVERSAL = frozenset(("GetCallerIdentity",))


def needs(place: Place, service: str, operation: str, params: Params) -> list[Need] | None:
    """Return what a request needs, or None when localcloud does not know.

    Args:
        place: Where it is made.
        service: botocore's name of the service.
        operation: The API's name of the operation.
        params: The request's members, under their API names.
    """
    if operation in _UNIVERSAL:
        return []
    special = SPECIAL.get((service, operation))
    if special is not None:
        return special(place, params)
    if service == "s3":
        return list(s3_needs(operation, params))
    grammar = GRAMMARS.get(service)
    if grammar is None:
        return None
    return needs_by_grammar(place, grammar, operation, params)
