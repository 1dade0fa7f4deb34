"""Condition blocks of policies.

Source: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_condition_operators.html.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from localcloud.errors import not_supported
from localcloud.iam.matching import matches, matches_arn, substitute

#: The values of a request's condition keys, by name in lower case.
Context = Mapping[str, tuple[str, ...]]
Test = Callable[[str, str], bool]


def _number(compare: Callable[[float, float], bool]) -> Test:
    def test(wanted: str, given: str) -> bool:
        try:
            return compare(float(given), float(wanted))
        except ValueError:
            return False

    return test


def _time(compare: Callable[[datetime, datetime], bool]) -> Test:
    def test(wanted: str, given: str) -> bool:
        try:
            return compare(_moment(given), _moment(wanted))
        except ValueError:
            return False

    return test


def _moment(text: str) -> datetime:
    if text.replace(".", "", 1).isdigit():
        return datetime.fromtimestamp(float(text), UTC)
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _in_network(wanted: str, given: str) -> bool:
    try:
        return ipaddress.ip_address(given) in ipaddress.ip_network(wanted, strict=False)
    except ValueError:
        return False


def _same_ignoring_case(wanted: str, given: str) -> bool:
    return wanted.lower() == given.lower()


#: By operator, without the negated ones: (value in the policy, value of the request) → does it hold.
_TESTS: dict[str, Test] = {
    "StringEquals": lambda wanted, given: wanted == given,
    "StringEqualsIgnoreCase": _same_ignoring_case,
    "StringLike": matches,
    "NumericEquals": _number(lambda given, wanted: given == wanted),
    "NumericLessThan": _number(lambda given, wanted: given < wanted),
    "NumericLessThanEquals": _number(lambda given, wanted: given <= wanted),
    "NumericGreaterThan": _number(lambda given, wanted: given > wanted),
    "NumericGreaterThanEquals": _number(lambda given, wanted: given >= wanted),
    "DateEquals": _time(lambda given, wanted: given == wanted),
    "DateLessThan": _time(lambda given, wanted: given < wanted),
    "DateLessThanEquals": _time(lambda given, wanted: given <= wanted),
    "DateGreaterThan": _time(lambda given, wanted: given > wanted),
    "DateGreaterThanEquals": _time(lambda given, wanted: given >= wanted),
    "Bool": _same_ignoring_case,
    "BinaryEquals": lambda wanted, given: wanted == given,
    "IpAddress": _in_network,
    "ArnEquals": matches_arn,
    "ArnLike": matches_arn,
}
_NEGATED = {
    "StringNotEquals": "StringEquals",
    "StringNotEqualsIgnoreCase": "StringEqualsIgnoreCase",
    "StringNotLike": "StringLike",
    "NumericNotEquals": "NumericEquals",
    "DateNotEquals": "DateEquals",
    "NotIpAddress": "IpAddress",
    "ArnNotEquals": "ArnEquals",
    "ArnNotLike": "ArnLike",
}


def holds(condition: Mapping[str, Mapping[str, object]], context: Context) -> bool:
    """Tell whether every operator of a condition block holds.

    Raises:
        ServiceError: The block has an operator that IAM does not have.
    """
    return all(_operator_holds(operator, key, values, context) for operator, keys in condition.items() for key, values in keys.items())


def _operator_holds(operator: str, key: str, wanted: object, context: Context) -> bool:
    patterns = [_text(value) for value in (wanted if isinstance(wanted, list) else [wanted])]
    given = context.get(key.lower(), ())
    if operator == "Null":
        return _text(not given) in [pattern.lower() for pattern in patterns]
    quantifier, _, rest = operator.rpartition(":")
    if_exists = rest.endswith("IfExists")
    name = rest.removesuffix("IfExists")
    negated = name in _NEGATED
    test = _TESTS.get(_NEGATED.get(name, name))
    if test is None or quantifier not in ("", "ForAllValues", "ForAnyValue"):
        raise not_supported(f"The condition operator {operator}")
    if not given:
        # "If the key is not present": negated operators and ForAllValues hold, all others do not.
        return quantifier != "ForAnyValue" and (if_exists or negated or quantifier == "ForAllValues")
    known = [pattern for text in patterns if (pattern := substitute(text, context)) is not None]
    found = [any(test(pattern, value) for pattern in known) != negated for value in given]
    return any(found) if quantifier == "ForAnyValue" else all(found)


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
