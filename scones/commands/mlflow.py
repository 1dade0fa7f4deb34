"""``scones mlflow``."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys

import click

from scones import local
from scones.errors import ExitCode, SconesError
from scones.options import Context, command_options
from scones.tracking import local_store


@click.command()
@click.option("--port", type=click.IntRange(1, 65535), default=5000, show_default=True, help="TCP port on 127.0.0.1.")
@command_options(needs_target=False)
def mlflow(context: Context, port: int) -> None:
    """Open MLflow's web page on the local experiments; Ctrl-C ends it."""
    store = local_store(context.state_dir)
    if not store.database.exists():
        raise SconesError("Nothing was tracked yet", "Run the pipeline first: scones run")
    if not local.is_free(port):
        # MLflow itself would end with 0.
        raise SconesError(f"Port {port} cannot be used on {local.HOST}", f"Choose another: scones mlflow --port {port + 1}", ExitCode.USAGE)
    url = f"http://{local.HOST}:{port}"
    context.output.result(
        {"url": url, "tracking_uri": store.tracking_uri}, lambda console: console.print(f"MLflow at {url} (Ctrl-C ends it)", markup=False)
    )
    server = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", store.tracking_uri, "--host", local.HOST, "--port", str(port)]
    # One worker: each is another copy of MLflow to import, which takes seconds.
    code = _run([*server, "--workers", "1"])
    if code != 0:
        raise SconesError(f"MLflow ended with {code}", "What it wrote above says why.")


def _run(command: list[str]) -> int:
    """Run a server to its end. In a session of its own: Ctrl-C would reach each of its processes, and each would print a traceback."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    process = subprocess.Popen(command, stdout=sys.stderr, start_new_session=True)
    try:
        return process.wait()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait()
