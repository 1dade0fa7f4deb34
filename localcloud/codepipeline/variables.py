"""References to variables in action configurations: ``#{namespace.name}``.

https://docs.aws.amazon.com/codepipeline/latest/userguide/reference-variables.html
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

_REFERENCE = re.compile(r"#\{(?P<namespace>[A-Za-z0-9@\-_]+)\.(?P<name>[A-Za-z0-9@\-_]+)\}")

#: Namespaces that every execution has: CodePipeline's own, and the variables of a V2 pipeline.
EXECUTION_NAMESPACE = "codepipeline"
PIPELINE_NAMESPACE = "variables"

Namespaces = Mapping[str, Mapping[str, str]]


class UnknownVariable(Exception):
    """Indicates that a reference names a variable that no action has put out."""


def references(text: str) -> Iterator[tuple[str, str, str]]:
    """Yield (reference, namespace, name) of each reference in a text."""
    for match in _REFERENCE.finditer(text):
        yield match[0], match["namespace"], match["name"]


def resolve(text: str, namespaces: Namespaces) -> str:
    """Return a text with its references replaced; what they stand for is not looked at again.

    Raises:
        UnknownVariable: A reference has no value.
    """

    def value(match: re.Match[str]) -> str:
        try:
            return namespaces[match["namespace"]][match["name"]]
        except KeyError:
            why = (
                "it has no defaultValue and was not given at the start"
                if match["namespace"] == PIPELINE_NAMESPACE
                else "no action has put it out"
            )
            raise UnknownVariable(f"The variable {match[0]} has no value: {why}") from None

    return _REFERENCE.sub(value, text)
