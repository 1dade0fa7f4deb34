"""Expressions and payload templates of JSONPath states, compiled once per definition.

https://docs.aws.amazon.com/step-functions/latest/dg/amazon-states-language-paths.html
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from localcloud.jsonpath import PathNotFound, PathSyntaxError, compile_path
from localcloud.stepfunctions.errors import ErrorName, EvaluationError, StateError
from localcloud.stepfunctions.intrinsics import FUNCTIONS, IntrinsicError, to_text

_VARIABLE = re.compile(r"\$([A-Za-z_][A-Za-z0-9_]*)")
_FUNCTION = re.compile(r"States\.[A-Za-z0-9]+")
_NUMBER = re.compile(r"-?\d+(\.\d+)?([eE][+-]?\d+)?")


@dataclass(frozen=True, slots=True)
class Scope:
    """What an expression sees.

    Attributes:
        data: ``$``: the state's input, or its result where the field works on that.
        context: ``$$``, the context object.
        variables: Workflow variables by name.
        result: JSONata's ``$states.result``; for Catch ``error_output`` instead.
        error_output: JSONata's ``$states.errorOutput``.
    """

    data: Any
    context: Mapping[str, Any]
    variables: Mapping[str, Any]
    result: Any = None
    error_output: Any = None


Expression = Callable[[Scope], Any]


class TemplateSyntaxError(ValueError):
    """Indicates that a path, function call or template in a definition is malformed.

    Attributes:
        location: Where in the template, as a JSON pointer's tail.
    """

    def __init__(self, message: str, location: str = "") -> None:
        super().__init__(message)
        self.location = location


def compile_expression(text: str, field: str) -> Expression:
    """Compile a path (``$.a``, ``$$.b``, ``$variable.c``) or an intrinsic function call.

    Args:
        text: As it stands in the definition.
        field: Name of the field it is the value of, for messages.

    Raises:
        TemplateSyntaxError: It is neither.
    """
    if text.startswith("States."):
        parser = _CallParser(text, field)
        call = parser.call()
        if parser.position != len(text):
            raise TemplateSyntaxError(f"The value for the field '{field}' must be a valid JSONPath or a valid intrinsic function call")
        return call
    return _compile_path(text, field)


def _compile_path(text: str, field: str) -> Expression:
    variable = _VARIABLE.match(text)
    try:
        if variable is not None:
            return _variable_expression(text, variable, field)
        if text.startswith("$$"):
            path = compile_path(text[1:])
            return lambda scope: _evaluate(lambda: path.evaluate(scope.context), text, field, scope)
        path = compile_path(text)
    except PathSyntaxError as error:
        raise TemplateSyntaxError(
            f"The value for the field '{field}' must be a valid JSONPath or a valid intrinsic function call ({error})"
        ) from error
    if not path.steps:
        return lambda scope: scope.data
    return lambda scope: _evaluate(lambda: path.evaluate(scope.data), text, field, scope)


def _variable_expression(text: str, variable: re.Match[str], field: str) -> Expression:
    name, path = variable.group(1), compile_path("$" + text[variable.end() :])

    def evaluate(scope: Scope) -> Any:
        if name not in scope.variables:
            raise EvaluationError(ErrorName.RUNTIME, f"The variable '${name}' specified for the field '{field}' has not been assigned")
        return _evaluate(lambda: path.evaluate(scope.variables[name]), text, field, scope)

    return evaluate


def _evaluate(work: Callable[[], Any], text: str, field: str, scope: Scope) -> Any:
    try:
        return work()
    except PathNotFound as error:
        cause = f"The JSONPath '{text}' specified for the field '{field}' could not be found in the input '{to_text(scope.data)}'"
        raise EvaluationError(ErrorName.RUNTIME, cause) from error


class _CallParser:
    def __init__(self, text: str, field: str) -> None:
        self.text = text
        self.field = field
        self.position = 0

    def _error(self) -> TemplateSyntaxError:
        message = f"The value for the field '{self.field}' must be a valid JSONPath or a valid intrinsic function call, not '{self.text}'"
        return TemplateSyntaxError(message)

    def _skip_spaces(self) -> None:
        while self.position < len(self.text) and self.text[self.position].isspace():
            self.position += 1

    def _take(self, token: str) -> bool:
        self._skip_spaces()
        if self.text.startswith(token, self.position):
            self.position += len(token)
            return True
        return False

    def call(self) -> Expression:
        begin = self.position
        name_match = _FUNCTION.match(self.text, self.position)
        if name_match is None or name_match.group() not in FUNCTIONS:
            raise self._error()
        name = name_match.group()
        self.position = name_match.end()
        if not self._take("("):
            raise self._error()
        arguments: list[Expression] = []
        if not self._take(")"):
            arguments.append(self._argument(name, 0))
            while self._take(","):
                arguments.append(self._argument(name, len(arguments)))
            if not self._take(")"):
                raise self._error()
        function, fewest, most = FUNCTIONS[name]
        if len(arguments) < fewest or (most is not None and len(arguments) > most):
            raise self._error()
        source = self.text[begin : self.position]

        def evaluate(scope: Scope) -> Any:
            values = [argument(scope) for argument in arguments]
            try:
                return function(*values)
            except IntrinsicError as error:
                raise StateError(ErrorName.INTRINSIC_FAILURE, f"The function '{source}' had the following error: {error}") from error

        return evaluate

    def _argument(self, function: str, index: int) -> Expression:
        self._skip_spaces()
        rest = self.text[self.position : self.position + 1]
        if rest == "'":
            raw = self._quoted()
            # States.Format reads the braces' escapes itself.
            value: Any = raw if function == "States.Format" and index == 0 else _unescape(raw)
            return lambda _: value
        if rest == "$":
            return self._path()
        if self.text.startswith("States.", self.position):
            return self.call()
        for word, constant in (("null", None), ("true", True), ("false", False)):
            if self._take(word):
                return lambda _, constant=constant: constant  # type: ignore[misc]
        number = _NUMBER.match(self.text, self.position)
        if number is None:
            raise self._error()
        self.position = number.end()
        parsed: Any = float(number.group()) if number.group(1) or number.group(2) else int(number.group())
        return lambda _: parsed

    def _quoted(self) -> str:
        begin = self.position + 1
        index = begin
        while index < len(self.text) and self.text[index] != "'":
            index += 2 if self.text[index] == "\\" else 1
        if index >= len(self.text):
            raise self._error()
        self.position = index + 1
        return self.text[begin:index]

    def _path(self) -> Expression:
        begin, depth, quote = self.position, 0, ""
        while self.position < len(self.text):
            character = self.text[self.position]
            if quote:
                quote = "" if character == quote else quote
            elif character in "'\"" and depth:
                quote = character
            elif character in "[(":
                depth += 1
            elif character in "])" and depth:
                depth -= 1
            elif character in ",)" and not depth:
                break
            self.position += 1
        return _compile_path(self.text[begin : self.position].strip(), self.field)


def _unescape(raw: str) -> str:
    return re.sub(r"\\(.)", r"\1", raw)


def compile_template(template: Any, field: str) -> Expression:
    """Compile a payload template (Parameters, ResultSelector, ItemSelector, Assign): fields whose names end in ``.$`` are expressions.

    Raises:
        TemplateSyntaxError: One of them is malformed.
    """
    compiled = _compile_template(template, field)
    if compiled is None:
        return lambda _: template
    return compiled


def _compile_template(template: Any, field: str, location: str = "") -> Expression | None:
    """Return None for a template without expressions."""
    if isinstance(template, dict):
        fields: list[tuple[str, Expression | None, Any]] = []
        for name, value in template.items():
            if name.endswith(".$"):
                if not isinstance(value, str):
                    raise TemplateSyntaxError(
                        f"The value for the field '{name}' must be a STRING that contains a JSONPath but was not", f"{location}/{name}"
                    )
                try:
                    fields.append((name[:-2], compile_expression(value, name), None))
                except TemplateSyntaxError as error:
                    raise TemplateSyntaxError(str(error), f"{location}/{name}") from error
            else:
                fields.append((name, _compile_template(value, field, f"{location}/{name}"), value))
        if all(expression is None for _, expression, _ in fields):
            return None
        return lambda scope: {name: value if expression is None else expression(scope) for name, expression, value in fields}
    if isinstance(template, list):
        items = [(_compile_template(value, field, f"{location}[{index}]"), value) for index, value in enumerate(template)]
        if all(expression is None for expression, _ in items):
            return None
        return lambda scope: [value if expression is None else expression(scope) for expression, value in items]
    return None


def compile_reference(text: str, field: str) -> list[str | int]:
    """Return the keys of a ResultPath.

    Raises:
        TemplateSyntaxError: It is not a Reference Path.
    """
    try:
        if text.startswith("$$") or _VARIABLE.match(text):
            raise PathSyntaxError(f"'{text}' is not a Reference Path into the input")
        return compile_path(text).reference()
    except PathSyntaxError as error:
        raise TemplateSyntaxError(f"The value for the field '{field}' must be a valid Reference Path ({error})") from error


def place(document: Any, keys: list[str | int], value: Any) -> Any:
    """Return *document* with *value* at the place that *keys* name; *document* itself is not changed.

    Raises:
        StateError: ``States.ResultPathMatchFailure``, when there is no such place and none can be made.
    """
    if not keys:
        return value
    key, rest = keys[0], keys[1:]
    if isinstance(key, str) and (isinstance(document, dict) or document is None):
        known = document or {}
        return {**known, key: place(known.get(key), rest, value)}
    if isinstance(key, int) and isinstance(document, list) and key < len(document):
        return [*document[:key], place(document[key], rest, value), *document[key + 1 :]]
    cause = f"Unable to apply ResultPath: the input has no place for '{key}' ({to_text(document)[:200]})"
    raise StateError(ErrorName.RESULT_PATH_MATCH_FAILURE, cause)
