"""The estimate of monthly cost for the settings of a stage, and how it looks."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from infrastructure.costs import Estimate, Usage
    from infrastructure.deploy import PlatformParameters
    from pipelines.settings import Settings


def estimate(settings: Settings, parameters: PlatformParameters, usage: Usage) -> Estimate:
    """Return what platform, production, staging and the pipeline's runs cost a month."""
    from infrastructure.costs import Estimate, Job, Serving, estimate_beside, estimate_endpoint, estimate_runs, estimate_stacks
    from infrastructure.inference import inference_parameters
    from infrastructure.packaging import INFERENCE_TEMPLATE, PLATFORM_TEMPLATE
    from infrastructure.templates import Template

    chosen = parameters.for_template()
    template = Template.read(PLATFORM_TEMPLATE)
    handed_on = {name: value for name, value in inference_parameters(chosen).items() if value is not None}
    endpoint = settings.staging_endpoint
    staging = (
        Serving(endpoint.instance_type, endpoint.instance_count, 0.0)
        if endpoint.kind == "instance"
        else Serving(None, 0, endpoint.serverless_memory_mb / 1024)
    )
    training = settings.training
    return Estimate(
        (
            *estimate_stacks([(Template.read(INFERENCE_TEMPLATE), handed_on), (template, chosen)], usage).lines,
            *estimate_beside(
                encryption_key=bool(parameters.encryption_key_arn), tracking_server=bool(parameters.mlflow_tracking_server_arn), usage=usage
            ),
            estimate_endpoint("staging endpoint", staging, requests=0, usage=usage),
            estimate_runs(
                Job(settings.processing.instance_type), Job(training.instance_type, training.instance_count, training.spot), usage
            ),
        )
    )


def estimate_delivery(parameters: Mapping[str, str], commits: int | None = None) -> Estimate:
    """Return what the delivery's stack costs a month with these parameters and so many commits (None: those of a small team)."""
    from infrastructure.cicd import CICD_TEMPLATE
    from infrastructure.costs import Usage, estimate_stacks
    from infrastructure.templates import Template

    usage = Usage(photos=0, runs=0, stored_gigabytes=0.5)
    return estimate_stacks(
        [(Template.read(CICD_TEMPLATE), parameters)], usage if commits is None else dataclasses.replace(usage, commits=commits)
    )


def dollars(amount: float) -> str:
    """Return an amount no more precise than an estimate is."""
    if amount == 0:
        return "0"
    if amount < 0.01:
        return "< 0.01"
    return f"{amount:.2f}" if amount < 10 else f"{amount:.0f}"


def document(estimate: Estimate) -> dict[str, Any]:
    """Return an estimate as --json prints it."""
    from infrastructure.costs import PRICES_OF

    return {
        "prices_of": PRICES_OF,
        "monthly_when_idle": round(estimate.standing, 2),
        "monthly": round(estimate.total, 2),
        "lines": [
            {
                "what": line.what,
                "monthly": None if line.monthly is None else round(line.monthly, 2),
                "standing": line.standing,
                "assumption": line.assumption,
            }
            for line in estimate.lines
        ],
    }


def print_estimate(console: Console, estimate: Estimate) -> None:
    """Print an estimate, line by line with what is assumed, and whence the prices are."""
    from infrastructure.costs import PRICE_LISTS, PRICES_OF

    print_lines(console, estimate)
    console.print(
        f"Prices: {PRICES_OF} ({PRICE_LISTS}). An estimate, not an offer; what costs '?' comes on top.", style="dim", soft_wrap=True
    )


def print_lines(console: Console, estimate: Estimate) -> None:
    """Print the lines of an estimate."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("cost a month, about")
    table.add_column("USD", justify="right")
    table.add_column("assuming", overflow="fold")
    for line in sorted(estimate.lines, key=lambda line: -(line.monthly or 0.0)):
        table.add_row(escape(line.what), "?" if line.monthly is None else dollars(line.monthly), escape(line.assumption))
    table.add_row("[bold]in all[/]", f"[bold]{dollars(estimate.total)}[/]", f"of that {dollars(estimate.standing)} when nothing is used")
    console.print(table)
