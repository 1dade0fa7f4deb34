"""Options that several commands share."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from scones import project, target
from scones.console import Output

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class Context:
    """What every command starts from: where it writes and where state lives; `target` is resolved on first use.

    `dry_run`: the command does nothing, so that it starts no localcloud either.
    """

    output: Output
    state_dir: Path
    aws: bool
    dry_run: bool = False

    def hint(self, text: str) -> str:
        """Return a hint whose commands go on where this one is."""
        return project.as_typed(text, self.state_dir, aws=self.aws)

    @functools.cached_property
    def target(self) -> target.Target:
        """Return the account to work in; starts localcloud when it is the target and none runs, but for a dry run."""
        return target.resolve(self.aws, self.state_dir, self.output, start=not self.dry_run)


def not_empty(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """Refuse the empty text, which an unset variable of the shell leaves: as a path it would be the current folder."""
    if value == "":
        raise click.UsageError(f"{_name(parameter)} is empty", context)
    return value


class Folder(click.Path):
    """A folder's path; the empty text is refused, see `not_empty`."""

    def __init__(self, *, exists: bool = False) -> None:
        super().__init__(exists=exists, file_okay=False, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path; raises click.UsageError."""
        if value == "":
            raise click.UsageError(f"{'The folder' if param is None else _name(param)} is empty", ctx)
        return super().convert(value, param, ctx)


def _name(parameter: click.Parameter) -> str:
    return parameter.opts[0] if isinstance(parameter, click.Option) else str(parameter.name).upper()


def command_options(*, needs_target: bool = True) -> Callable[[Function], Function]:
    """Add --json, --state-dir and (when the command talks to AWS's API) --aws; the command gets one `Context`."""

    def decorate(function: Function) -> Function:
        @functools.wraps(function)
        def wrapper(*args: Any, as_json: bool, state_dir: Path | None, aws: bool = False, **kwargs: Any) -> Any:
            context = Context(Output(as_json), (state_dir or project.state_dir()).resolve(), aws, kwargs.get("dry_run", False))
            invocation = click.get_current_context().find_object(project.Invocation)
            if invocation is not None:
                invocation.state_dir, invocation.aws = context.state_dir, aws
            return function(*args, context=context, **kwargs)

        decorated: Any = click.option(
            "--json", "as_json", is_flag=True, help="Print one JSON document on stdout, everything else on stderr."
        )(wrapper)
        decorated = click.option(
            "--state-dir",
            type=Folder(),
            help="Folder for all local state (default: .scones in the clone).",
        )(decorated)
        if needs_target:
            decorated = click.option("--aws", is_flag=True, help="Work on AWS, with its usual credential chain, instead of localcloud.")(
                decorated
            )
        result: Function = decorated
        return result

    return decorate


def settings_options(function: Function) -> Function:
    """Add --stage and --set, which choose the settings."""
    decorated: Any = click.option(
        "--set", "overrides", multiple=True, metavar="SECTION.KEY=VALUE", help="Override one setting; may be repeated."
    )(function)
    decorated = click.option("--stage", help="Stage whose settings file in config/ is used.")(decorated)
    result: Function = decorated
    return result
