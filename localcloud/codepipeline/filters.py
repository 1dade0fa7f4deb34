"""Git triggers: which pushes start a pipeline.

https://docs.aws.amazon.com/codepipeline/latest/userguide/pipelines-filter.html, and for the patterns
https://docs.aws.amazon.com/codepipeline/latest/userguide/syntax-glob.html
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

_BRANCH, _TAG = "refs/heads/", "refs/tags/"

#: Includes and excludes, as the API has them.
Criteria = Mapping[str, Sequence[str]]


def matches(name: str, criteria: Criteria) -> bool:
    """Tell whether a branch, tag or path is wanted: by some include (or there are none), and by no exclude."""
    includes = criteria.get("includes") or []
    excluded = any(_compiled(pattern).fullmatch(name) for pattern in criteria.get("excludes") or [])
    return not excluded and (not includes or any(_compiled(pattern).fullmatch(name) for pattern in includes))


def starts(configuration: Mapping[str, Any], ref: str, default_branch: str, changed_files: Callable[[], Sequence[str]]) -> bool:
    """Tell whether a push starts a pipeline.

    Args:
        configuration: The trigger's gitConfiguration.
        ref: The full name of what was pushed, e.g. ``refs/heads/main``.
        default_branch: BranchName of the source action, which counts when there is no filter.
        changed_files: Gives the paths that the push changed; asked only when a filter needs them.
    """
    filters = configuration.get("push") or []
    if not filters:
        return not configuration.get("pullRequest") and ref == _BRANCH + default_branch
    return any(_passes(one, ref, changed_files) for one in filters)


def _passes(one: Mapping[str, Any], ref: str, changed_files: Callable[[], Sequence[str]]) -> bool:
    if ref.startswith(_TAG):
        return "tags" in one and matches(ref.removeprefix(_TAG), one["tags"])
    if "tags" in one or not ref.startswith(_BRANCH):
        return False
    if "branches" in one and not matches(ref.removeprefix(_BRANCH), one["branches"]):
        return False
    # One file that is wanted is enough: a push of documents and code is a push of code.
    return "filePaths" not in one or any(matches(path, one["filePaths"]) for path in changed_files())


@lru_cache(maxsize=512)
def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(_expression(pattern), re.DOTALL)
    except re.error:  # a range that goes backwards: the pattern is a name like any other
        return re.compile(re.escape(pattern), re.DOTALL)


def _expression(pattern: str) -> str:
    """Return a glob as a regular expression: ``*`` and ``?`` stay within a folder, ``**`` does not, ``{a,b}`` are alternatives."""
    parts: list[str] = []
    position, braces = 0, 0
    while position < len(pattern):
        character = pattern[position]
        position += 1
        if character == "*" and pattern[position : position + 1] == "*":
            position += 1
            parts.append(".*")
        elif character == "*":
            parts.append("[^/]*")
        elif character == "?":
            parts.append("[^/]")
        elif character == "{" and "}" in pattern[position:]:
            braces += 1
            parts.append("(?:")
        elif character == "}" and braces:
            braces -= 1
            parts.append(")")
        elif character == "," and braces:
            parts.append("|")
        elif character == "[" and "]" in pattern[position + 1 :]:
            end = pattern.index("]", position + 1)
            inside = pattern[position:end]
            negated = inside[:1] in ("!", "^")
            inside = inside.removeprefix("!").removeprefix("^") if negated else inside
            escaped = "".join("-" if letter == "-" and 0 < at < len(inside) - 1 else re.escape(letter) for at, letter in enumerate(inside))
            parts.append(f"[{'^/' if negated else ''}{escaped}]")
            position = end + 1
        elif character == "\\" and position < len(pattern):
            parts.append(re.escape(pattern[position]))
            position += 1
        else:
            parts.append(re.escape(character))
    return "".join(parts) + ")" * braces
