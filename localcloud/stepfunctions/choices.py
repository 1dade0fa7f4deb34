"""Conditions of JSONPath Choice states (https://states-language.net/spec.html#choice-state)."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from typing import Any

from localcloud.stepfunctions.errors import ErrorName, EvaluationError
from localcloud.stepfunctions.payloads import Expression, Scope, TemplateSyntaxError, compile_expression

Condition = Callable[[Scope], bool]

_TIMESTAMP = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?(Z|[+-]\d{2}:\d{2})")
_ORDERINGS: dict[str, Callable[[Any, Any], bool]] = {
    "Equals": lambda left, right: bool(left == right),
    "LessThan": lambda left, right: bool(left < right),
    "GreaterThan": lambda left, right: bool(left > right),
    "LessThanEquals": lambda left, right: bool(left <= right),
    "GreaterThanEquals": lambda left, right: bool(left >= right),
}


def parse_timestamp(value: Any) -> datetime | None:
    """Return the moment that an ISO 8601 text of the States Language's form names, or None."""
    if not isinstance(value, str) or not _TIMESTAMP.fullmatch(value):
        return None
    try:
        return datetime.fromisoformat(value)
    except ValueError:
        return None


def _number(value: Any) -> Any:
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _text(value: Any) -> Any:
    return value if isinstance(value, str) else None


def _boolean(value: Any) -> Any:
    return value if isinstance(value, bool) else None


#: Operator → (what reads both sides, or None for another type; the comparison).
_COMPARISONS: dict[str, tuple[Callable[[Any], Any], Callable[[Any, Any], bool]]] = {
    **{f"String{name}": (_text, compare) for name, compare in _ORDERINGS.items()},
    **{f"Numeric{name}": (_number, compare) for name, compare in _ORDERINGS.items()},
    **{f"Timestamp{name}": (parse_timestamp, compare) for name, compare in _ORDERINGS.items()},
    "BooleanEquals": (_boolean, _ORDERINGS["Equals"]),
}
_TYPE_TESTS: dict[str, Callable[[Any], bool]] = {
    "IsNull": lambda value: value is None,
    "IsNumeric": lambda value: _number(value) is not None,
    "IsString": lambda value: isinstance(value, str),
    "IsBoolean": lambda value: isinstance(value, bool),
    "IsTimestamp": lambda value: parse_timestamp(value) is not None,
}
_COMBINATIONS = ("And", "Or", "Not")
#: Every comparison operator.
OPERATORS = frozenset({*_COMPARISONS, *(f"{name}Path" for name in _COMPARISONS), *_TYPE_TESTS, "IsPresent", "StringMatches"})


def compile_condition(rule: dict[str, Any]) -> Condition:
    """Compile a choice rule: a comparison, or And, Or, Not of rules.

    Raises:
        TemplateSyntaxError: It is none.
    """
    combinations = [name for name in _COMBINATIONS if name in rule]
    if combinations:
        return _compile_combination(combinations[0], rule[combinations[0]])
    operators = [name for name in rule if name in OPERATORS]
    if len(operators) != 1 or "Variable" not in rule:
        raise TemplateSyntaxError("A choice rule needs a 'Variable' and exactly one comparison operator, or one of 'And', 'Or', 'Not'")
    operator, operand = operators[0], rule[operators[0]]
    if not isinstance(rule["Variable"], str):
        raise TemplateSyntaxError("The value for the field 'Variable' must be a valid JSONPath")
    if operator == "IsPresent":
        return _compile_presence(rule["Variable"], operand)
    variable = _compile_variable(rule["Variable"])
    if operator in _TYPE_TESTS:
        test = _TYPE_TESTS[operator]
        if not isinstance(operand, bool):
            raise TemplateSyntaxError(f"The value for the field '{operator}' must be a boolean")
        return lambda scope: test(variable(scope)) == operand
    if operator == "StringMatches":
        return _compile_match(variable, operand)
    read, compare = _COMPARISONS[operator.removesuffix("Path")]
    if operator.endswith("Path"):
        other = _compile_variable(operand, operator)
        return lambda scope: _holds(read, compare, variable(scope), other(scope))
    if read(operand) is None:
        kind = re.match(r"[A-Z][a-z]+", operator)
        raise TemplateSyntaxError(f"The value for the field '{operator}' must be a {kind.group().lower() if kind else 'value'}")
    return lambda scope: _holds(read, compare, variable(scope), operand)


def _holds(read: Callable[[Any], Any], compare: Callable[[Any, Any], bool], left: Any, right: Any) -> bool:
    # Values of another type than the operator's do not match; they are no error.
    left, right = read(left), read(right)
    return left is not None and right is not None and compare(left, right)


def _compile_combination(kind: str, operand: Any) -> Condition:
    if kind == "Not":
        if not isinstance(operand, dict):
            raise TemplateSyntaxError("The value for the field 'Not' must be a choice rule")
        inner = compile_condition(operand)
        return lambda scope: not inner(scope)
    if not isinstance(operand, list) or not operand or not all(isinstance(item, dict) for item in operand):
        raise TemplateSyntaxError(f"The value for the field '{kind}' must be a non-empty array of choice rules")
    rules = [compile_condition(item) for item in operand]
    if kind == "And":
        return lambda scope: all(rule(scope) for rule in rules)
    return lambda scope: any(rule(scope) for rule in rules)


def _compile_variable(text: Any, field: str = "Variable") -> Expression:
    if not isinstance(text, str) or not text.startswith("$"):
        raise TemplateSyntaxError(f"The value for the field '{field}' must be a valid JSONPath")
    expression = compile_expression(text, field)

    def evaluate(scope: Scope) -> Any:
        try:
            return expression(scope)
        except EvaluationError as error:
            cause = f"Invalid path '{text}': The choice state's condition path references an invalid value."
            raise EvaluationError(ErrorName.RUNTIME, cause) from error

    return evaluate


def _compile_presence(text: str, operand: Any) -> Condition:
    if not isinstance(operand, bool):
        raise TemplateSyntaxError("The value for the field 'IsPresent' must be a boolean")
    expression = compile_expression(text, "Variable")

    def present(scope: Scope) -> bool:
        try:
            expression(scope)
        except EvaluationError:
            return not operand
        return operand

    return present


def _compile_match(variable: Expression, operand: Any) -> Condition:
    if not isinstance(operand, str):
        raise TemplateSyntaxError("The value for the field 'StringMatches' must be a string")
    # "*" stands for any characters; "\*" and "\\" for themselves.
    parts = re.findall(r"\\(.)|([^\\])", operand)
    source = "".join(re.escape(escaped) if escaped else ".*" if plain == "*" else re.escape(plain) for escaped, plain in parts)
    expression = re.compile(source, re.DOTALL)
    return lambda scope: isinstance(value := variable(scope), str) and expression.fullmatch(value) is not None
