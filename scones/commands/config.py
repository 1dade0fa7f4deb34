"""``scones config``."""

from __future__ import annotations

import os

import click

from pipelines.settings import load_settings
from scones.groups import Group
from scones.options import Context, command_options, settings_options
from scones.settings import stage_name

_LEAST_WIDTH = 10


@click.group(cls=Group)
def config() -> None:
    """Show every setting and where its value came from."""


@config.command()
@settings_options
@command_options(needs_target=False)
def show(context: Context, stage: str | None, overrides: tuple[str, ...]) -> None:
    """Print each setting, its value, where the value came from and what it means."""
    rows = list(load_settings(stage_name(stage), list(overrides), dict(os.environ)).rows())
    document = [{"key": row.key, "value": _plain(row.value), "origin": str(row.origin), "description": row.description} for row in rows]

    def human(console: object) -> None:
        from rich.console import Console
        from rich.markup import escape
        from rich.table import Table

        assert isinstance(console, Console)
        table = Table(box=None, pad_edge=False)
        table.add_column("setting", no_wrap=True)  # what is typed after --set
        # Where a value came from is nearly always the same file, which fits in a line when the value leaves it the room.
        others = max(len(str(row["key"])) for row in document) + len("config/default.yaml") + 4
        table.add_column("value", overflow="fold", max_width=max(console.width - others, _LEAST_WIDTH))
        table.add_column("from", overflow="fold")
        for row in document:
            table.add_row(str(row["key"]), escape(_short(row["value"])), str(row["origin"]))
        console.print(table)

    context.output.result(document, human)


def _plain(value: object) -> object:
    from pydantic import TypeAdapter

    return TypeAdapter(object).dump_python(value, mode="json")


def _short(value: object) -> str:
    import json

    return value if isinstance(value, str) else json.dumps(value)
