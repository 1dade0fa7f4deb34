"""``scones``: the command line. Commands are imported only when called, so that ``scones --help`` is quick."""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import sys
from dataclasses import dataclass

import click

from scones.errors import ExitCode, SconesError
from scones.groups import Group
from scones.project import Invocation, as_typed

#: Command → (module:attribute, help line). The help lines stand here so that listing them imports nothing.
COMMANDS: dict[str, tuple[str, str]] = {
    "demo": ("scones.commands.demo:demo", "Run the whole loop: images, pipeline, approval, deployment, two classified photos."),
    "up": ("scones.commands.local:up", "Start localcloud, the AWS region in one process."),
    "down": ("scones.commands.local:down", "End localcloud; its state stays."),
    "stage": ("scones.commands.stage:stage", "Upload images: a folder of class folders, cifar100, or sample."),
    "run": ("scones.commands.run:run", "Run the SageMaker Pipeline."),
    "status": ("scones.commands.status:status", "Show an execution, step by step, and what serves."),
    "logs": ("scones.commands.logs:logs", "Show the logs of a step, a function or an endpoint."),
    "models": ("scones.commands.models:models", "List, show, compare, approve or reject model versions."),
    "deploy": (
        "scones.commands.deploy:deploy",
        "Take production back to an earlier version, or to the platform's newest code; what served when.",
    ),
    "classify": ("scones.commands.classify:classify", "Send photos through the production workflow."),
    "aws": ("scones.commands.aws:aws", "Make, compare and remove the stacks; estimate what they cost."),
    "cicd": ("scones.commands.cicd:cicd", "Deliver commits with CodePipeline; what became of a push, and why."),
    "config": ("scones.commands.config:config", "Show every setting and where its value came from."),
    "mlflow": ("scones.commands.mlflow:mlflow", "Open MLflow's web page on the local experiments."),
}


class _LazyGroup(Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(
    cls=_LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "SCONES", "max_content_width": 120},
    epilog="Every command talks to localcloud unless --aws is given, and takes --json; those that change something take --dry-run. Every option has an environment variable, SCONES_<COMMAND>_<OPTION>.\n\n"
    "Exit codes: 0 done; 1 what was asked failed; 2 a mistake in the command line, the settings or the input; 3 the target cannot be reached; 130 interrupted.",
)
def cli() -> None:
    """Scones Unlimited's MLOps system: from images to an approved model that classifies photos, on this machine or on AWS."""


@dataclass(frozen=True)
class _Failure:
    message: str
    hint: str | None
    exit_code: ExitCode


def main() -> None:
    """Entry point of the console script: a user's mistake becomes one clear line and an exit code, never a traceback."""
    # AWS's models and what reads them stay: looking for garbage in them after every few hundred objects is a sixth of a command's time.
    gc.set_threshold(50_000, 20, 20)
    arguments = sys.argv[1:]
    invocation = Invocation()
    try:
        cli.main(arguments, prog_name="scones", standalone_mode=False, obj=invocation)
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        _say("Interrupted.")
        sys.exit(ExitCode.INTERRUPTED)
    except click.exceptions.NoArgsIsHelpError as error:
        _say(error.format_message())
        sys.exit(ExitCode.USAGE)
    except click.ClickException as error:
        if isinstance(error, click.UsageError) and error.ctx is not None:
            _say(error.ctx.get_usage())
        _fail(_Failure(error.format_message(), None, ExitCode.USAGE), arguments, invocation)
    except SconesError as error:
        _fail(_Failure(error.message, error.hint, error.exit_code), arguments, invocation)
    except Exception as error:
        from scones.failures import explain

        failure = explain(error)
        if failure is None:
            raise
        _fail(_Failure(failure.message, failure.hint, failure.exit_code), arguments, invocation)


def _fail(failure: _Failure, arguments: list[str], invocation: Invocation) -> None:
    hint = failure.hint
    if hint and invocation.state_dir is not None:
        hint = as_typed(hint, invocation.state_dir, aws=invocation.aws)
    if "--json" in arguments:
        import json

        _say(json.dumps({"error": {"message": failure.message, "hint": hint}}), err=False)
    _say(f"Error: {failure.message}")
    if hint:
        _say(hint)
    sys.exit(failure.exit_code)


def _say(text: str, *, err: bool = True) -> None:
    """Write a last line; where nothing can be written (a full disk, a pipe that nobody reads) the exit code must do."""
    try:
        click.echo(text, err=err)
    except OSError:
        # What is left in the buffer would be a traceback when the interpreter flushes it at its end.
        stream = sys.stderr if err else sys.stdout
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
