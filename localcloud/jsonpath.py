"""JSONPath as AWS understands it (Step Functions, EventBridge): Jayway's dialect, https://github.com/json-path/JsonPath.

A path is compiled once. A definite path (names and single indexes only) gives one value and fails when it is missing; an indefinite one gives the list of
what it finds.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

_MISSING = object()
_NAME = re.compile(r"[^.\[\]()'\"\s,?@*<>=!&|]+")
_INTEGER = re.compile(r"-?\d+")
_SLICE = re.compile(r"(-?\d*):(-?\d*)(?::(-?\d*))?")
_NUMBER = re.compile(r"-?\d+(\.\d+)?([eE][+-]?\d+)?")
_COMPARISON = re.compile(r"==|!=|<=|>=|=~|<|>|\bin\b|\bnin\b|\bcontains\b|\bsize\b|\bempty\b")


class PathSyntaxError(ValueError):
    """Indicates that a text is not a JSONPath."""


class PathNotFound(LookupError):
    """Indicates that a definite path names something that is not in the document."""


@dataclass(frozen=True)
class _Names:
    names: tuple[str, ...]


@dataclass(frozen=True)
class _Indexes:
    indexes: tuple[int, ...]


@dataclass(frozen=True)
class _Slice:
    bounds: slice


@dataclass(frozen=True)
class _Wildcard:
    pass


@dataclass(frozen=True)
class _Descent:
    pass


@dataclass(frozen=True)
class _Filter:
    test: Callable[[Any, Any], bool]


@dataclass(frozen=True)
class _Length:
    pass


_Step = _Names | _Indexes | _Slice | _Wildcard | _Descent | _Filter | _Length


@dataclass(frozen=True)
class Path:
    """A compiled path.

    Attributes:
        text: As it was written.
        steps: What it does, in order.
        definite: Whether it names one place.
    """

    text: str
    steps: tuple[_Step, ...]
    definite: bool

    def evaluate(self, document: Any) -> Any:
        """Return the value at a definite path, or the list of what an indefinite one finds.

        Raises:
            PathNotFound: The path is definite (or its beginning is) and names nothing.
        """
        if self.definite:
            value = document
            for step in self.steps:
                value = self._one(step, value)
            return value
        return self._many(document)

    def reference(self) -> list[str | int]:
        """Return the keys and indexes of a Reference Path (https://states-language.net/spec.html#ref-paths).

        Raises:
            PathSyntaxError: It may name more than one place.
        """
        keys: list[str | int] = []
        for step in self.steps:
            if isinstance(step, _Names) and len(step.names) == 1:
                keys.append(step.names[0])
            elif isinstance(step, _Indexes) and len(step.indexes) == 1 and step.indexes[0] >= 0:
                keys.append(step.indexes[0])
            else:
                raise PathSyntaxError(f"'{self.text}' is not a Reference Path")
        return keys

    def _one(self, step: _Step, value: Any) -> Any:
        if isinstance(step, _Names):
            if isinstance(value, dict) and step.names[0] in value:
                return value[step.names[0]]
        elif isinstance(step, _Indexes):
            if isinstance(value, list) and -len(value) <= step.indexes[0] < len(value):
                return value[step.indexes[0]]
        elif isinstance(step, _Length) and isinstance(value, (list, dict, str)):
            return len(value)
        raise PathNotFound(self.text)

    def _many(self, document: Any) -> Any:
        values: list[Any] = [document]
        certain = True
        for step in self.steps:
            if isinstance(step, _Length):
                return len(values)
            if certain and isinstance(step, (_Names, _Indexes)) and _is_single(step):
                values = [self._one(step, values[0])]
                continue
            certain = False
            values = [found for value in values for found in _apply(step, value, document)]
        return values


def _is_single(step: _Names | _Indexes) -> bool:
    return len(step.names if isinstance(step, _Names) else step.indexes) == 1


def _apply(step: _Step, value: Any, root: Any) -> Iterator[Any]:
    if isinstance(step, _Names):
        if isinstance(value, dict):
            found = {name: value[name] for name in step.names if name in value}
            # Jayway gives an object for several names after a definite path; one entry per object.
            yield from [found] if len(step.names) > 1 else found.values()
    elif isinstance(step, _Indexes):
        if isinstance(value, list):
            yield from (value[index] for index in step.indexes if -len(value) <= index < len(value))
    elif isinstance(step, _Slice):
        if isinstance(value, list):
            yield from value[step.bounds]
    elif isinstance(step, _Wildcard):
        yield from _children(value)
    elif isinstance(step, _Descent):
        yield from _descend(value)
    elif isinstance(step, _Filter):
        candidates = value if isinstance(value, list) else [value] if isinstance(value, dict) else []
        yield from (candidate for candidate in candidates if step.test(candidate, root))


def _children(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, list):
        yield from value


def _descend(value: Any) -> Iterator[Any]:
    yield value
    for child in _children(value):
        if isinstance(child, (dict, list)):
            yield from _descend(child)


@lru_cache(maxsize=4096)
def compile_path(text: str) -> Path:
    """Compile a path that begins with ``$``.

    Raises:
        PathSyntaxError: It is none.
    """
    scanner = _Scanner(text)
    if not scanner.take("$"):
        raise PathSyntaxError(f"'{text}' does not begin with '$'")
    steps = scanner.steps()
    if not scanner.at_end():
        raise PathSyntaxError(f"'{text}' is not a JSONPath: unexpected '{scanner.rest()}'")
    return _path(text, steps)


def _path(text: str, steps: list[_Step]) -> Path:
    definite = all(isinstance(step, _Length) or (isinstance(step, (_Names, _Indexes)) and _is_single(step)) for step in steps)
    return Path(text, tuple(steps), definite)


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0

    def at_end(self) -> bool:
        return self.position >= len(self.text)

    def rest(self) -> str:
        return self.text[self.position :]

    def take(self, token: str) -> bool:
        if self.text.startswith(token, self.position):
            self.position += len(token)
            return True
        return False

    def match(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        found = pattern.match(self.text, self.position)
        if found is not None:
            self.position = found.end()
        return found

    def skip_spaces(self) -> None:
        while not self.at_end() and self.text[self.position].isspace():
            self.position += 1

    def expect(self, token: str) -> None:
        self.skip_spaces()
        if not self.take(token):
            raise self.error(f"expected '{token}'")

    def error(self, reason: str) -> PathSyntaxError:
        return PathSyntaxError(f"'{self.text}' is not a JSONPath: {reason} at character {self.position + 1}")

    def steps(self) -> list[_Step]:
        found: list[_Step] = []
        while not self.at_end():
            if self.take(".."):
                found.append(_Descent())
                if self.take("*"):
                    found.append(_Wildcard())
                elif not self.text.startswith("[", self.position):
                    found.append(_Names((self._name(),)))
            elif self.take("."):
                if self.take("*"):
                    found.append(_Wildcard())
                    continue
                name = self._name()
                if self.take("()"):
                    if name != "length":
                        raise self.error(f"the function {name}() is not supported by localcloud")
                    found.append(_Length())
                else:
                    found.append(_Names((name,)))
            elif self.take("["):
                found.append(self._bracket())
            else:
                break
        return found

    def _name(self) -> str:
        found = self.match(_NAME)
        if found is None:
            raise self.error("a name is missing")
        return found.group()

    def _bracket(self) -> _Step:
        self.skip_spaces()
        step: _Step
        if self.take("*"):
            step = _Wildcard()
        elif self.take("?"):
            self.expect("(")
            step = _Filter(self._disjunction())
            self.expect(")")
        elif not self.at_end() and self.text[self.position] in "'\"":
            names = [self.quoted()]
            while self._comma():
                names.append(self.quoted())
            step = _Names(tuple(names))
        elif (bounds := self.match(_SLICE)) is not None:
            step = _Slice(slice(*(int(bound) if bound else None for bound in bounds.groups())))
        else:
            indexes = [self._integer()]
            while self._comma():
                indexes.append(self._integer())
            step = _Indexes(tuple(indexes))
        self.expect("]")
        return step

    def _comma(self) -> bool:
        self.skip_spaces()
        if self.take(","):
            self.skip_spaces()
            return True
        return False

    def _integer(self) -> int:
        found = self.match(_INTEGER)
        if found is None:
            raise self.error("an index is missing")
        return int(found.group())

    def quoted(self) -> str:
        """Take a quoted text; a backslash makes the next character an ordinary one."""
        quote = self.text[self.position : self.position + 1]
        if quote not in ("'", '"') or not quote:
            raise self.error("a quoted text is missing")
        self.position += 1
        characters: list[str] = []
        while not self.at_end():
            character = self.text[self.position]
            self.position += 1
            if character == quote:
                return "".join(characters)
            if character == "\\" and not self.at_end():
                character = self.text[self.position]
                self.position += 1
            characters.append(character)
        raise self.error("a quote is not closed")

    # Filter expressions

    def _disjunction(self) -> Callable[[Any, Any], bool]:
        terms = [self._conjunction()]
        while self._operator("||"):
            terms.append(self._conjunction())
        return terms[0] if len(terms) == 1 else lambda item, root: any(term(item, root) for term in terms)

    def _conjunction(self) -> Callable[[Any, Any], bool]:
        terms = [self._term()]
        while self._operator("&&"):
            terms.append(self._term())
        return terms[0] if len(terms) == 1 else lambda item, root: all(term(item, root) for term in terms)

    def _operator(self, token: str) -> bool:
        self.skip_spaces()
        return self.take(token)

    def _term(self) -> Callable[[Any, Any], bool]:
        self.skip_spaces()
        if self.text.startswith("!", self.position) and not self.text.startswith("!=", self.position):
            self.position += 1
            negated = self._term()
            return lambda item, root: not negated(item, root)
        if self.take("("):
            inner = self._disjunction()
            self.expect(")")
            return inner
        left = self._operand()
        self.skip_spaces()
        found = self.match(_COMPARISON)
        if found is None:
            return lambda item, root: left(item, root) is not _MISSING
        operator = found.group()
        self.skip_spaces()
        if operator == "=~":
            expression = self._regular_expression()
            return lambda item, root: isinstance(value := left(item, root), str) and expression.fullmatch(value) is not None
        right = self._operand()
        return lambda item, root: _compare(operator, left(item, root), right(item, root))

    def _operand(self) -> Callable[[Any, Any], Any]:
        self.skip_spaces()
        if self.take("@"):
            path = _path(self.text, self.steps())
            return lambda item, root: _value_or_missing(path, item)
        if self.take("$"):
            path = _path(self.text, self.steps())
            return lambda item, root: _value_or_missing(path, root)
        literal = self._literal()
        return lambda item, root: literal

    def _literal(self) -> Any:
        if not self.at_end() and self.text[self.position] in "'\"":
            return self.quoted()
        if self.take("["):
            items: list[Any] = []
            self.skip_spaces()
            if self.take("]"):
                return items
            items.append(self._literal())
            while self._comma():
                items.append(self._literal())
            self.expect("]")
            return items
        for word, value in (("true", True), ("false", False), ("null", None)):
            if self.take(word):
                return value
        found = self.match(_NUMBER)
        if found is None:
            raise self.error("a value is missing")
        return float(found.group()) if found.group(1) or found.group(2) else int(found.group())

    def _regular_expression(self) -> re.Pattern[str]:
        if not self.take("/"):
            raise self.error("a regular expression is missing")
        end = self.position
        while end < len(self.text) and self.text[end] != "/":
            end += 2 if self.text[end] == "\\" else 1
        if end >= len(self.text):
            raise self.error("a regular expression is not closed")
        source = self.text[self.position : end]
        self.position = end + 1
        flags = re.IGNORECASE if self.take("i") else 0
        try:
            return re.compile(source, flags)
        except re.error as error:
            raise self.error(f"'{source}' is not a regular expression ({error})") from error


def _value_or_missing(path: Path, document: Any) -> Any:
    try:
        return path.evaluate(document)
    except PathNotFound:
        return _MISSING


def _compare(operator: str, left: Any, right: Any) -> bool:
    if operator == "==":
        return same(left, right)
    if operator == "!=":
        return not same(left, right)
    if left is _MISSING or right is _MISSING:
        return False
    if operator in ("in", "nin"):
        return isinstance(right, list) and any(same(left, item) for item in right) == (operator == "in")
    if operator == "contains":
        return (
            right in left
            if isinstance(left, str) and isinstance(right, str)
            else isinstance(left, list) and any(same(right, item) for item in left)
        )
    if operator == "size":
        return isinstance(left, (str, list)) and len(left) == right
    if operator == "empty":
        return isinstance(left, (str, list)) and (not left) == right
    if not (isinstance(left, str) and isinstance(right, str)) and not (_is_number(left) and _is_number(right)):
        return False
    return bool({"<": left < right, "<=": left <= right, ">": left > right, ">=": left >= right}[operator])


def same(left: Any, right: Any) -> bool:
    """Tell whether two JSON values are equal; true is not 1."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    return bool(left == right)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
