"""JSONata expressions of a definition (``{% ... %}``), compiled once.

https://docs.aws.amazon.com/step-functions/latest/dg/transforming-data.html; the functions $partition, $range, $hash, $random, $uuid and $parse are AWS's own.
"""

from __future__ import annotations

import hashlib
import json
import random
import uuid
from typing import Any

from jsonata.jexception import JException
from jsonata.jsonata import Jsonata

from localcloud.stepfunctions.errors import ErrorName, EvaluationError
from localcloud.stepfunctions.payloads import Expression, Scope, TemplateSyntaxError

_HASHES = {"MD5": "md5", "SHA-1": "sha1", "SHA-256": "sha256", "SHA-384": "sha384", "SHA-512": "sha512"}


def is_expression(value: Any) -> bool:
    """Tell whether a value is a JSONata expression."""
    return isinstance(value, str) and value.startswith("{%") and value.endswith("%}") and len(value) >= 4


def compile_jsonata(template: Any, field: str) -> Expression:
    """Compile a value in which any text may be an expression.

    Raises:
        TemplateSyntaxError: One of the expressions is malformed.
    """
    compiled = _compile(template, field)
    return compiled if compiled is not None else lambda _: template


def _compile(template: Any, field: str) -> Expression | None:
    if is_expression(template):
        return _compile_text(template, field)
    if isinstance(template, dict):
        fields = [(name, _compile(value, f"{field}/{name}"), value) for name, value in template.items()]
        if all(expression is None for _, expression, _ in fields):
            return None
        return lambda scope: {name: value if expression is None else expression(scope) for name, expression, value in fields}
    if isinstance(template, list):
        items = [(_compile(value, f"{field}[{index}]"), value) for index, value in enumerate(template)]
        if all(expression is None for expression, _ in items):
            return None
        return lambda scope: [value if expression is None else expression(scope) for expression, value in items]
    return None


def _compile_text(text: str, field: str) -> Expression:
    source = text[2:-2].strip()
    try:
        program = _program(source)
        # jsonata gives None both for null and for nothing; AWS takes the first and fails on the second.
        existence = _program(f"$exists(({source}))")
    except JException as error:
        raise TemplateSyntaxError(
            f"The JSONata expression '{source}' specified for the field '{field}' is not valid: {error}", f"/{field}"
        ) from error

    def evaluate(scope: Scope) -> Any:
        prefix = f"The JSONata expression '{source}' specified for the field '{field}'"
        try:
            value = _run(program, scope)
            if value is None and not _run(existence, scope):
                raise EvaluationError(ErrorName.QUERY_EVALUATION_ERROR, f"{prefix} returned nothing (undefined).", field)
        except JException as error:
            cause = f"{prefix} threw an error during evaluation. {error.error}: {error}"
            raise EvaluationError(ErrorName.QUERY_EVALUATION_ERROR, cause, field) from error
        except (ArithmeticError, ValueError, TypeError, RecursionError) as error:
            raise EvaluationError(ErrorName.QUERY_EVALUATION_ERROR, f"{prefix} threw an error during evaluation. {error}", field) from error
        if value is not None and not isinstance(value, (str, int, float, bool, dict, list)):
            raise EvaluationError(ErrorName.QUERY_EVALUATION_ERROR, f"{prefix} returned an unsupported result type (function).", field)
        return value

    return evaluate


def _program(source: str) -> Jsonata:
    program = Jsonata(source)
    program.register_lambda("partition", _partition)
    program.register_lambda("range", _range)
    program.register_lambda("hash", _hash)
    program.register_lambda("random", lambda seed=None: random.Random(seed).random() if seed is not None else random.random())
    program.register_lambda("uuid", lambda: str(uuid.uuid4()))
    program.register_lambda("parse", json.loads)
    return program


def _run(program: Jsonata, scope: Scope) -> Any:
    frame = program.create_frame()
    states = {"input": scope.data, "context": dict(scope.context), "result": scope.result, "errorOutput": scope.error_output}
    frame.bind("states", {name: value for name, value in states.items() if value is not None or name == "input"})
    for name, value in scope.variables.items():
        frame.bind(name, value)
    return _plain(program.evaluate(None, frame))


def _plain(value: Any) -> Any:
    """Return a result in plain JSON types: jsonata has list types of its own."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value


def _partition(array: Any, size: Any) -> list[Any]:
    items = array if isinstance(array, list) else [array]
    width = int(size)
    if width < 1:
        raise ValueError("the chunk size of $partition must be positive")
    return [items[begin : begin + width] for begin in range(0, len(items), width)]


def _range(first: Any, last: Any, step: Any) -> list[int]:
    if int(step) == 0:
        raise ValueError("the step of $range must not be zero")
    return list(range(int(first), int(last) + (1 if step > 0 else -1), int(step)))


def _hash(value: Any, algorithm: str = "SHA-256") -> str:
    if algorithm not in _HASHES:
        raise ValueError(f"$hash knows {', '.join(_HASHES)}")
    text = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
    return hashlib.new(_HASHES[algorithm], text.encode(), usedforsecurity=False).hexdigest()
