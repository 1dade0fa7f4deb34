"""Step caching: the part of a step's arguments that decides whether an earlier run's result may stand in for a new run.

The attributes are AWS's (https://docs.aws.amazon.com/sagemaker/latest/dg/pipelines-default-keys.html): outputs, names, roles, instances and limits are not among
them. EndpointConfig and Endpoint are cacheable by the SDK's word, with all of their arguments.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from localcloud.sagemaker.pipelines.definition import StepType
from localcloud.sagemaker.pipelines.expressions import NAME_MEMBERS, format_path

#: By step type, the arguments that count; an empty tuple: all of them. Types that are missing are never cached, as on AWS.
KEY_ATTRIBUTES: dict[StepType, tuple[str, ...]] = {
    StepType.PROCESSING: ("AppSpecification", "Environment", "ProcessingInputs"),
    StepType.TRAINING: (
        "AlgorithmSpecification",
        "CheckpointConfig",
        "DebugHookConfig",
        "DebugRuleConfigurations",
        "Environment",
        "HyperParameters",
        "InputDataConfig",
    ),
    StepType.ENDPOINT_CONFIG: (),
    StepType.ENDPOINT: (),
}


def cache_key(type_: StepType, arguments: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the part of a step's resolved arguments that its cache key is made of, or None when steps of this type are not cached."""
    attributes = KEY_ATTRIBUTES.get(type_)
    if attributes is None:
        return None
    return {name: value for name, value in arguments.items() if not attributes or name in attributes}


def digest_text(key: Any) -> str:
    """Return a key (or a part of one) as canonical JSON: equal keys give equal texts whatever the order of their members."""
    return json.dumps(key, sort_keys=True, separators=(",", ":"))


def differences(old: Any, new: Any, path: tuple[str | int, ...] = ()) -> Iterator[str]:
    """Yield where two keys differ, e.g. ``ProcessingInputs['raw'].S3Input.S3Uri: 's3://a' -> 's3://b'``.

    Lists of named things are compared by name, others by position; strings that are long are cut.
    """
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for name in sorted({*old, *new}):
            yield from _member_differences(name in old, old.get(name), name in new, new.get(name), (*path, name))
    elif isinstance(old, list) and isinstance(new, list):
        before, after = _by_name(old), _by_name(new)
        if list(before) != list(after) and set(before) == set(after):
            yield f"{format_path(path)}: order {list(before)} -> {list(after)}"
        for name in dict.fromkeys((*before, *after)):
            yield from _member_differences(name in before, before.get(name), name in after, after.get(name), (*path, name))
    elif digest_text(old) != digest_text(new):
        yield f"{format_path(path)}: {_short(old)} -> {_short(new)}"


def _member_differences(was: bool, old: Any, is_: bool, new: Any, path: tuple[str | int, ...]) -> Iterator[str]:
    if not was:
        yield f"{format_path(path)}: added ({_short(new)})"
    elif not is_:
        yield f"{format_path(path)}: removed ({_short(old)})"
    else:
        yield from differences(old, new, path)


def _by_name(items: list[Any]) -> dict[str | int, Any]:
    for member in NAME_MEMBERS:
        named: dict[str | int, Any] = {
            item[member]: item for item in items if isinstance(item, Mapping) and isinstance(item.get(member), str)
        }
        if named and len(named) == len(items):
            return named
    return dict(enumerate(items))


def _short(value: Any) -> str:
    text = json.dumps(value) if not isinstance(value, str) else f"'{value}'"
    return text if len(text) <= 120 else text[:117] + "..."
