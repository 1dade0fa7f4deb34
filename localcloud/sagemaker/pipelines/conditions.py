"""The conditions of a Condition step."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from localcloud.sagemaker.pipelines.expressions import ExpressionError, Scope, resolve

_ORDER: dict[str, Callable[[Any, Any], bool]] = {
    "GreaterThan": operator.gt,
    "GreaterThanOrEqualTo": operator.ge,
    "LessThan": operator.lt,
    "LessThanOrEqualTo": operator.le,
}

#: The members of each kind of condition besides Type.
MEMBERS: dict[str, tuple[str, ...]] = {
    "Equals": ("LeftValue", "RightValue"),
    **dict.fromkeys(_ORDER, ("LeftValue", "RightValue")),
    "In": ("QueryValue", "Values"),
    "Not": ("Condition",),
    "Or": ("Conditions",),
}

Scalar = str | int | float | bool


def check(condition: Any) -> None:
    """Check the shape of one condition.

    Raises:
        ExpressionError: It is not one, in AWS's words where they are known.
    """
    if not isinstance(condition, dict):
        raise ExpressionError("Expecting start of Json Object.")
    kind = condition.get("Type")
    if kind not in MEMBERS:
        raise ExpressionError(f"Unknown condition type '{kind}'. Known are: {', '.join(MEMBERS)}.")
    unknown = sorted(set(condition) - {"Type", *MEMBERS[kind]})
    if unknown:
        raise ExpressionError(f"Cannot parse object, unknown property '{unknown[0]}'.")
    for member in MEMBERS[kind]:
        if member not in condition:
            raise ExpressionError(f"Condition '{kind}' is missing required property '{member}'.")
    if kind == "Not":
        check(condition["Condition"])
    elif kind == "Or":
        if not isinstance(condition["Conditions"], list):
            raise ExpressionError("Expecting start of Json Array.")
        for nested in condition["Conditions"]:
            check(nested)
    elif kind == "In" and not isinstance(condition["Values"], list):
        raise ExpressionError("Expecting start of Json Array.")


def operands(condition: Mapping[str, Any]) -> Iterator[Any]:
    """Yield the values that a (checked) condition compares, nested conditions' too."""
    for member in MEMBERS[condition["Type"]]:
        value = condition[member]
        if member == "Condition":
            yield from operands(value)
        elif member == "Conditions":
            for nested in value:
                yield from operands(nested)
        elif member == "Values":
            yield from value
        else:
            yield value


def evaluate(condition: Mapping[str, Any], scope: Scope) -> bool:
    """Return whether a (checked) condition holds.

    Raises:
        ExpressionError: A value is not there, is no scalar, or two values cannot be put in an order.
    """
    kind = condition["Type"]
    if kind == "Not":
        return not evaluate(condition["Condition"], scope)
    if kind == "Or":
        return any(evaluate(nested, scope) for nested in condition["Conditions"])
    if kind == "In":
        query = _scalar(condition["QueryValue"], scope)
        return any(_equal(query, _scalar(value, scope)) for value in condition["Values"])
    left, right = _scalar(condition["LeftValue"], scope), _scalar(condition["RightValue"], scope)
    if kind == "Equals":
        return _equal(left, right)
    pair = _comparable(left, right)
    if pair is None or isinstance(pair[0], bool):
        raise ExpressionError(f"{kind} cannot compare {left!r} and {right!r}: both must be numbers or both texts.")
    return _ORDER[kind](*pair)


def _scalar(value: Any, scope: Scope) -> Scalar:
    resolved = resolve(value, scope)
    if not isinstance(resolved, str | int | float | bool):
        raise ExpressionError(
            f"A condition compares texts, numbers and booleans; this value is {'null' if resolved is None else type(resolved).__name__}."
        )
    return resolved


def _equal(left: Scalar, right: Scalar) -> bool:
    pair = _comparable(left, right)
    return pair is not None and pair[0] == pair[1]


def _comparable(left: Scalar, right: Scalar) -> tuple[Any, Any] | None:
    """Return both values as one type, or None. Many of SageMaker's numbers are texts (hyperparameters): a text beside a number is read as a number."""
    for one, other, swapped in ((left, right, False), (right, left, True)):
        if isinstance(one, str) and not isinstance(other, str):
            converted = _convert(one, other)
            if converted is None:
                return None
            return (other, converted) if swapped else (converted, other)
    if isinstance(left, bool) != isinstance(right, bool):
        return None
    return left, right


def _convert(text: str, like: Scalar) -> Scalar | None:
    if isinstance(like, bool):
        return {"true": True, "false": False}.get(text.lower())
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        return None
