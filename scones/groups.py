"""A group of commands that says which commands there are when one is mistyped."""

from __future__ import annotations

import difflib

import click


class Group(click.Group):
    """A click group whose refusal of an unknown command names the nearest one, else all."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that was typed.

        Raises:
            click.UsageError: There is none of that name.
        """
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            names = self.list_commands(ctx)
            near = difflib.get_close_matches(args[0], names, n=1)
            if error.ctx is None or args[0].startswith("-"):
                raise
            advice = f"Did you mean '{near[0]}'?" if near else f"There are: {', '.join(names)}."
            raise click.UsageError(f"{error.message} {advice}", ctx) from error
