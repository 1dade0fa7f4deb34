"""``scones up`` and ``scones down``."""

from __future__ import annotations

import gc
import sys
from typing import Any

import click

from scones import local, project
from scones.errors import ExitCode, SconesError
from scones.options import Context, command_options


@click.command()
@click.option("--port", type=click.IntRange(1, 65535), help="TCP port on 127.0.0.1 (default: last time's, else a free one).")
@click.option("--detach", is_flag=True, help="Run in the background and return when it answers.")
@click.option(
    "--time-scale",
    type=click.FloatRange(1, 3600),
    metavar="N",
    help="How many times faster than on AWS the waits of endpoints' deployments pass; 1: as on AWS (default: LOCALCLOUD_TIME_SCALE, else 60).",
)
@click.option("--dry-run", is_flag=True, help="Say what would be started, and start nothing.")
@command_options(needs_target=False)
def up(context: Context, port: int | None, detach: bool, time_scale: float | None, dry_run: bool) -> None:
    """Start localcloud, the AWS region in one process.

    In the foreground it prints the logs of jobs and functions and ends with Ctrl-C. Nothing starts when one already runs on the same state.
    """
    running = local.find_running(context.state_dir)
    already = running is not None
    if running is not None and (port not in (None, running.port) or time_scale is not None):
        raise SconesError(
            f"localcloud already runs on this state, at {running.endpoint_url} (process {running.pid})",
            f"End it first: {project.down_command(context.state_dir)}",
            ExitCode.USAGE,
        )
    if running is None and port is not None and not local.is_free(port):
        raise SconesError(
            f"Port {port} on {local.HOST} cannot be used: it is taken", "Without --port a free one is picked.", ExitCode.USAGE
        )
    if running is None:
        local.check(context.state_dir)
    if dry_run:
        _show_start(context, running, port)
        return
    if running is None and not detach:
        _foreground(context, port, time_scale)
        return
    if running is None:
        try:
            running = local.start(context.state_dir, port, time_scale=time_scale)
        except SconesError as error:
            # To start it is what was asked: it failed, with or without --detach.
            code = ExitCode.FAILED if error.exit_code is ExitCode.UNREACHABLE else error.exit_code
            raise SconesError(error.message, error.hint, code) from error
    document = {
        "endpoint_url": running.endpoint_url,
        "pid": running.pid,
        "port": running.port,
        "state_dir": context.state_dir,
        "already_running": already,
    }
    words = "already runs" if already else "runs"
    context.output.result(
        document,
        lambda console: console.print(
            f"localcloud {words} at {running.endpoint_url} (process {running.pid}).\n"
            f"Use it from anything that speaks AWS: export AWS_ENDPOINT_URL={running.endpoint_url}\n"
            f"End it with: {project.down_command(context.state_dir)}",
            markup=False,
            soft_wrap=True,
        ),
    )


def _show_start(context: Context, running: local.Running | None, port: int | None) -> None:
    folder = local.cloud_dir(context.state_dir)
    chosen = port or local.last_port(folder) or None
    document: dict[str, Any] = {
        "outcome": "planned",
        "already_running": running is not None,
        "port": chosen if running is None else running.port,
        "state_dir": context.state_dir,
        "has_state": local.has_state(folder),
    }
    state = f"with the state in {folder}" if document["has_state"] else f"with an empty state, in {folder}"
    text = (
        f"localcloud would start on {f'port {chosen}' if chosen else 'a free port'} of {local.HOST}, {state}"
        if running is None
        else f"localcloud already runs at {running.endpoint_url} (process {running.pid}); nothing would be started"
    )
    context.output.result(document, lambda console: console.print(text, markup=False, soft_wrap=True))
    context.output.note("Nothing was started (--dry-run).")


def _foreground(context: Context, port: int | None, time_scale: float | None) -> None:
    import runpy

    # A server looks for garbage as often as Python does; a command waits longer (scones/cli.py).
    gc.set_threshold(700, 10, 10)
    folder = local.prepare(context.state_dir)
    sys.argv = ["localcloud", *local.arguments(folder, port or local.last_port(folder), time_scale)]
    runpy.run_module("localcloud", run_name="__main__")


@click.command()
@click.option("--dry-run", is_flag=True, help="Say what would end and what would stay, and end nothing.")
@command_options(needs_target=False)
def down(context: Context, dry_run: bool) -> None:
    """End localcloud and everything it started. Its state stays; `scones up` goes on from there."""
    running = local.find_running(context.state_dir)
    document = {"stopped": running is not None}
    if dry_run:
        document = {"stopped": False, "would_stop": running is not None}
    elif running is not None:
        local.stop(running)
    message = "localcloud does not run"
    if running is not None:
        ended = f"(process {running.pid}) would end, with every job, function and endpoint in it" if dry_run else "ended"
        message = f"localcloud at {running.endpoint_url} {ended}; its state stays in {context.state_dir}"
    context.output.result(document, lambda console: console.print(message, markup=False, soft_wrap=True))
    if dry_run:
        context.output.note("Nothing was ended (--dry-run).")
