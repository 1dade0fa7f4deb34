"""``scones mlflow``."""

from __future__ import annotations

import subprocess
import sys

import click

from scones.errors import SconesError
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
    context.output.note(f"MLflow at http://127.0.0.1:{port} (Ctrl-C ends it)")
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", store.tracking_uri, "--host", "127.0.0.1", "--port", str(port)]
    code = subprocess.run(command, check=False).returncode
    if code not in (0, -2, 130):
        raise SconesError(f"MLflow ended with {code}", f"If the port is taken, choose another: scones mlflow --port {port + 1}")
