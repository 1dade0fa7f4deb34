"""IAM's wildcards: ``*`` and ``?`` in actions, ARNs and the values of conditions."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping

#: Parts of an ARN before the resource: arn, partition, service, region, account.
_ARN_PARTS = 5
_VARIABLE = re.compile(r"\$\{([^}]*)\}")
#: What ``${*}`` and its like become, so that they are no wildcards any more.
_LITERALS = {"*": "\ue000", "?": "\ue001", "$": "$"}

_MEANINGS = {"*": ".*", "?": ".", "\ue000": "[*\ue000]", "\ue001": "[?\ue001]"}


@functools.lru_cache(maxsize=4096)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile("".join(_MEANINGS.get(character) or re.escape(character) for character in pattern), re.DOTALL)


def matches(pattern: str, value: str) -> bool:
    """Tell whether a value is what a pattern with ``*`` and ``?`` means, as a whole and with case."""
    return _compiled(pattern).fullmatch(value) is not None


# Each statement of a role is asked about each request (document.py), and there are only so many actions.
@functools.lru_cache(maxsize=16384)
def matches_action(pattern: str, action: str) -> bool:
    """Tell whether a pattern means an action (``s3:GetObject``); case does not count."""
    return matches(pattern.lower(), action.lower())


def matches_arn(pattern: str, arn: str) -> bool:
    """Tell whether a pattern means an ARN: each of its six parts is compared by itself, so that no wildcard but the last reaches over a colon.

    Source: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_condition_operators.html (ARN condition operators).
    """
    if pattern == "*":
        return True
    wanted, given = pattern.split(":", _ARN_PARTS), arn.split(":", _ARN_PARTS)
    return len(wanted) == len(given) and all(matches(one, other) for one, other in zip(wanted, given, strict=True))


def substitute(pattern: str, context: Mapping[str, tuple[str, ...]]) -> str | None:
    """Return a pattern with its policy variables (``${aws:PrincipalAccount}``) replaced; None when one has no value and no default.

    Source: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_variables.html.
    """
    missing = False

    def value(match: re.Match[str]) -> str:
        nonlocal missing
        name, comma, default = match.group(1).partition(",")
        if name in _LITERALS:
            return _LITERALS[name]
        values = context.get(name.strip().lower(), ())
        if len(values) == 1:
            return values[0].replace("*", _LITERALS["*"]).replace("?", _LITERALS["?"])
        if comma:
            return default.strip().strip("'")
        missing = True
        return ""

    result = _VARIABLE.sub(value, pattern)
    return None if missing else result
