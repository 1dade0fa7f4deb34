"""The pipeline's graph as an SVG, coloured by how each step ended."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from typing import Any

BOX_WIDTH, BOX_HEIGHT, GAP_X, GAP_Y, MARGIN = 196, 46, 44, 26, 12
_COLOURS = {"Succeeded": "#d7f0dd", "cached": "#d9e8fb", "Failed": "#fbdcdc", "Stopped": "#f6ecc9"}
_REFERENCE = re.compile(r"^Steps\.([^.\[]+)")


def draw(definition: Mapping[str, Any], statuses: Mapping[str, str]) -> str:
    """Return an SVG of a pipeline definition.

    Args:
        definition: The definition JSON, parsed.
        statuses: How each step ended ("Succeeded", "cached", "Failed", ...); a step that is not in it did not run and stays grey.
    """
    names: dict[str, str] = {}
    edges: set[tuple[str, str]] = set()
    _collect(definition["Steps"], None, names, edges)
    edges = _direct(edges)
    columns = _columns(names, edges)
    rows: dict[int, int] = {}
    place: dict[str, tuple[int, int]] = {}
    for name in names:
        column = columns[name]
        row = rows.get(column, 0)
        rows[column] = row + 1
        place[name] = (MARGIN + column * (BOX_WIDTH + GAP_X), MARGIN + row * (BOX_HEIGHT + GAP_Y))
    width = 2 * MARGIN + (max(rows) + 1) * (BOX_WIDTH + GAP_X) - GAP_X
    height = 2 * MARGIN + max(rows.values()) * (BOX_HEIGHT + GAP_Y) - GAP_Y
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="system-ui, sans-serif" font-size="13" role="img" aria-label="Pipeline graph">'
    ]
    for first, second in sorted(edges):
        (x1, y1), (x2, y2) = place[first], place[second]
        start, end = (x1 + BOX_WIDTH, y1 + BOX_HEIGHT / 2), (x2, y2 + BOX_HEIGHT / 2)
        middle = (start[0] + end[0]) / 2
        parts.append(
            f'<path d="M{start[0]},{start[1]} C{middle},{start[1]} {middle},{end[1]} {end[0]},{end[1]}" fill="none" stroke="#9aa3ad"/>'
        )
    for name, label in names.items():
        x, y = place[name]
        status = statuses.get(name, "not run")
        parts.append(
            f'<rect x="{x}" y="{y}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="7" fill="{_COLOURS.get(status, "#eeeeee")}" stroke="#7b8591"/>'
            f'<text x="{x + BOX_WIDTH / 2}" y="{y + 20}" text-anchor="middle">{html.escape(label)}</text>'
            f'<text x="{x + BOX_WIDTH / 2}" y="{y + 36}" text-anchor="middle" font-size="11" fill="#555">{html.escape(status)}</text>'
        )
    return "".join([*parts, "</svg>"])


def _collect(steps: list[Mapping[str, Any]], parent: str | None, names: dict[str, str], edges: set[tuple[str, str]]) -> None:
    """Gather every step, those inside a condition's branches too, and an edge from each step that another needs."""
    for step in steps:
        name = step["Name"]
        names[name] = step.get("DisplayName", name)
        inner = (
            {branch: step.get("Arguments", {}).get(branch, []) for branch in ("IfSteps", "ElseSteps")}
            if step["Type"] == "Condition"
            else {}
        )
        own = {key: value for key, value in step.get("Arguments", {}).items() if key not in inner}
        needed = {*_references(own), *step.get("DependsOn", [])}
        edges |= {(other, name) for other in needed}
        if parent is not None:
            edges.add((parent, name))
        for branch in inner.values():
            _collect(branch, name, names, edges)


def _references(value: Any) -> set[str]:
    if isinstance(value, Mapping):
        found = {
            match.group(1) for key, item in value.items() if key == "Get" and isinstance(item, str) and (match := _REFERENCE.match(item))
        }
        return found.union(*(_references(item) for item in value.values()))
    if isinstance(value, list):
        return set().union(*(_references(item) for item in value))
    return set()


def _direct(edges: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """Leave out each edge that a longer way says already: a picture of every need is a tangle."""
    after: dict[str, set[str]] = {}
    for first, second in edges:
        after.setdefault(first, set()).add(second)

    def reachable(start: str) -> set[str]:
        found: set[str] = set()
        waiting = list(after.get(start, ()))
        while waiting:
            step = waiting.pop()
            if step not in found:
                found.add(step)
                waiting += after.get(step, ())
        return found

    return {(first, second) for first, second in edges if not any(second in reachable(other) for other in after[first] - {second})}


def _columns(names: Mapping[str, str], edges: set[tuple[str, str]]) -> dict[str, int]:
    """Return each step's column: one right of the rightmost step it needs."""
    columns = dict.fromkeys(names, 0)
    for _ in names:
        for first, second in edges:
            if first in columns and second in columns:
                columns[second] = max(columns[second], columns[first] + 1)
    return columns
