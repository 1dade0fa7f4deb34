"""``python -m bench [NAME...]``: measure, print a table, write JSON.

Everything runs in a state folder of its own, so that the clone's is left alone.
"""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from bench.loop import Loop
from bench.measure import Figure
from bench.process import command_line, localcloud_process

LOOP = ("pipeline", "approval", "endpoint", "workflow")
NAMES = ("help", "localcloud", *LOOP)


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(NAMES))
@click.option("--data", default="sample", show_default=True, help="Source of the images that the loop runs on.")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Write the figures to this file as JSON.")
def main(names: tuple[str, ...], data: str, output: Path | None) -> None:
    """Measure NAMES (default: all)."""
    chosen = names or NAMES
    console = Console(stderr=True)
    figures: list[Figure] = []
    measurements: dict[str, Callable[[], list[Figure]]] = {"help": command_line, "localcloud": localcloud_process}
    for name, measure in measurements.items():
        if name in chosen:
            console.print(f"measuring {name} ...")
            figures += measure()
    if set(chosen) & set(LOOP):
        with tempfile.TemporaryDirectory() as folder, Loop(Path(folder), data) as loop:
            for name, part in loop.measurements().items():
                # Later parts need what earlier ones leave behind, so all before the last chosen one are run.
                console.print(f"measuring {name} ...")
                measured = part()
                figures += measured if name in chosen else []
    _print(figures)
    if output is not None:
        document = {
            "machine": {"cpus": os.cpu_count(), "python": platform.python_version(), "system": platform.platform()},
            "figures": [dataclasses.asdict(figure) for figure in figures],
        }
        output.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _print(figures: list[Figure]) -> None:
    table = Table(title=f"{os.cpu_count()} CPUs, Python {platform.python_version()}")
    for heading in ("figure", "measured", "target", ""):
        table.add_column(heading)
    for figure in figures:
        table.add_row(
            figure.name, f"{figure.value:.3g} {figure.unit}", f"{figure.target} {figure.unit}", "ok" if figure.reached else "missed"
        )
    Console(width=140).print(table)


if __name__ == "__main__":
    sys.exit(main())
