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
        except (OSError, OverflowError, ValueError):
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


def is_operator(operator: str) -> bool:
    """Tell whether IAM has an operator, ``ForAnyValue:`` and its like included."""
    if operator == "Null":
        return True
    quantifier, _, rest = operator.rpartition(":")
    name = rest.removesuffix("IfExists")
    return quantifier in ("", "ForAllValues", "ForAnyValue") and _NEGATED.get(name, name) in _TESTS


def holds(condition: Mapping[str, Mapping[str, object]], context: Context, *, variables: bool = True) -> bool:
    """Tell whether every operator of a condition block holds.

    Args:
        condition: The block.
        context: The request's values.
        variables: Whether ``${...}`` in the block's values is a variable.

    Raises:
        ServiceError: The block has an operator that IAM does not have.
    """
    return all(
        _operator_holds(operator, key, values, context, variables) for operator, keys in condition.items() for key, values in keys.items()
    )


def _operator_holds(operator: str, key: str, wanted: object, context: Context, variables: bool) -> bool:
    patterns = [_text(value) for value in (wanted if isinstance(wanted, list) else [wanted])]
    given = context.get(key.lower(), ())
    if operator == "Null":
        return _text(not given) in [pattern.lower() for pattern in patterns]
    quantifier, _, rest = operator.rpartition(":")
    if_exists = rest.endswith("IfExists")
    name = rest.removesuffix("IfExists")
    negated = name in _NEGATED
    if not is_operator(operator):
        raise not_supported(f"The condition operator {operator}")
    test = _TESTS[_NEGATED.get(name, name)]
    if not given:
        # "If the key is not present": ...IfExists and ForAllValues hold, negated operators too unless ForAnyValue asks for a value; all others do not.
        return if_exists or quantifier == "ForAllValues" or (negated and not quantifier)
    replaced = (substitute(text, context) if variables else text for text in patterns)
    known = [pattern for pattern in replaced if pattern is not None]
    found = [any(test(pattern, value) for pattern in known) != negated for value in given]
    return any(found) if quantifier == "ForAnyValue" else all(found)


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
