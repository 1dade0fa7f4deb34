"""How the changes of a stack look."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from infrastructure.changes import ResourceChange

_LONGEST_VALUE = 80
_CONTEXT = 10


def document(change: ResourceChange) -> dict[str, Any]:
    """Return a change as --json prints it."""
    return {
        "action": change.action.value,
        "resource": change.logical_id,
        "type": change.type,
        "physical_id": change.physical_id,
        "replacement": change.replacement.value,
        "policy_action": change.policy_action,
        "loses_data": change.loses_data,
        "properties": [{"name": item.name, "before": item.before, "after": item.after, "cause": item.cause} for item in change.properties],
    }


def print_changes(console: Console, changes: Iterable[ResourceChange]) -> None:
    """Print changes: one line for each resource, and one for each property of it that differs."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column()
    table.add_column(overflow="fold")
    table.add_column(overflow="fold")
    table.add_column(overflow="fold")
    for change in changes:
        sign, words = _words(change)
        if change.loses_data:
            words += " [bold red]holds data, which is lost[/]"
        table.add_row(sign, change.logical_id, change.type, words)
        for item in change.properties:
            found = list(differences(item.before, item.after))
            if not found:
                table.add_row("", f"  {item.name}", "", escape(f"because of {item.cause}" if item.cause else "differs"))
            for path, before, after in found:
                table.add_row("", escape(f"  {item.name}{path}"), "", escape(arrow(before, after)))
    console.print(table)


def summary(changes: Iterable[ResourceChange]) -> str:
    """Return how many resources are added, changed, replaced and removed."""
    counts: dict[str, int] = {}
    for change in changes:
        word = _words(change)[1].split(",")[0]
        counts[word] = counts.get(word, 0) + 1
    return ", ".join(f"{count} to {word}" for word, count in counts.items())


def _words(change: ResourceChange) -> tuple[str, str]:
    from infrastructure.changes import Action, Replacement

    if change.action is Action.REMOVE:
        return "-", "leave alone, no longer in the stack" if change.policy_action == "Retain" else "remove"
    if change.action is Action.ADD:
        return "+", "add"
    if change.action is Action.IMPORT:
        return "+", f"take over, {change.physical_id}"
    if change.replacement is Replacement.FALSE:
        return "~", "change"
    kept = ", the old one is kept" if change.policy_action == "ReplaceAndRetain" else ""
    return "±", f"replace{kept}" if change.replacement is Replacement.TRUE else f"perhaps replace{kept}"


def differences(before: Any, after: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield what differs between two values, as deep inside as it can be told: path, before, after. `None` is what is not there."""
    before, after = _parsed(before), _parsed(after)
    if isinstance(before, dict) and isinstance(after, dict):
        for key in [*before, *(key for key in after if key not in before)]:
            yield from differences(before.get(key), after.get(key), f"{path}.{key}")
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for number, (left, right) in enumerate(zip(before, after, strict=True)):
            yield from differences(left, right, f"{path}[{number}]")
    elif before != after:
        yield path, before, after


def _parsed(value: Any) -> Any:
    """A text that holds JSON, as JSON: policies, environments, definitions."""
    if isinstance(value, str) and value.lstrip().startswith(("{", "[")):
        with contextlib.suppress(ValueError):
            return json.loads(value)
    return value


def arrow(before: Any, after: Any) -> str:
    """Return how a value changes in a few words: of two long texts, the part that differs."""
    left, right = _text(before), _text(after)
    if max(len(left), len(right)) > _LONGEST_VALUE:
        same = next((at for at, pair in enumerate(zip(left, right, strict=False)) if pair[0] != pair[1]), min(len(left), len(right)))
        if same > _CONTEXT:
            left, right = (f"…{text[same - _CONTEXT :]}" for text in (left, right))
    return f"{_cut(left)} → {_cut(right)}"


def _text(value: Any) -> str:
    if value is None:
        return "none"
    text = value if isinstance(value, str) else json.dumps(value)
    return text.replace("{{changeSet:KNOWN_AFTER_APPLY}}", "(known afterwards)")


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 1] + "…"
