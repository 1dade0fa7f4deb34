"""``scones models``: the model registry, as a person works with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from scones.groups import Group
from scones.options import Context, command_options, settings_options

if TYPE_CHECKING:
    from rich.console import Console

    from scones.production import Production
    from scones.registry import Decision, ModelVersion


#: What SageMaker takes as ApprovalDescription.
MAX_COMMENT = 1024


@click.group(cls=Group)
def models() -> None:
    """List, show, compare, approve or reject model versions.

    VERSION is a version number or a model package ARN.
    """


def _registry(context: Context, stage: str | None, overrides: tuple[str, ...]) -> Any:
    from scones.registry import Registry
    from scones.settings import load

    return Registry(context.target, load(context, stage, overrides).settings)


def _production(context: Context, stage: str | None, overrides: tuple[str, ...]) -> Production:
    from scones.production import Production
    from scones.settings import load

    return Production(context.target, load(context, stage, overrides).settings)


@models.command("list")
@settings_options
@command_options()
def list_versions(context: Context, stage: str | None, overrides: tuple[str, ...]) -> None:
    """List the versions, newest first."""
    versions = _registry(context, stage, overrides).versions()

    def human(console: Console) -> None:
        from rich.table import Table

        if not versions:
            make = context.hint("scones run --data FOLDER (or sample)")
            console.print(f"No model is registered yet ({context.target}). Make one: {make}", markup=False, soft_wrap=True)
            return
        table = Table(box=None, pad_edge=False)
        for heading in ("version", "status", "accuracy", "created", "serves"):
            table.add_column(heading, overflow="fold")
        for version in versions:
            accuracy = "" if version.accuracy is None else f"{version.accuracy:.4f}"
            serves = "production" if version.in_production else ""
            table.add_row(str(version.number), version.status, accuracy, f"{version.created:%Y-%m-%d %H:%M:%S}", serves)
        console.print(table)
        # An ARN is as wide as a terminal, and but for its number the same for all.
        console.print(f"ARN: {versions[0].arn.rpartition('/')[0]}/VERSION", soft_wrap=True)

    context.output.result([version.document() for version in versions], human)


@models.command()
@click.argument("version")
@settings_options
@command_options()
def show(context: Context, version: str, stage: str | None, overrides: tuple[str, ...]) -> None:
    """Show one version: metrics, provenance, artifact."""
    registry = _registry(context, stage, overrides)
    found = registry.find(version)
    document = found.document() | {"metrics": registry.metrics(found), "properties": found.properties, "model_data": found.model_data}

    def human(console: Console) -> None:
        _print_pairs(console, document)

    context.output.result(document, human)


@models.command()
@click.argument("first")
@click.argument("second")
@settings_options
@command_options()
def compare(context: Context, first: str, second: str, stage: str | None, overrides: tuple[str, ...]) -> None:
    """Compare the metrics of two versions."""
    registry = _registry(context, stage, overrides)
    pair = [registry.find(first), registry.find(second)]
    metrics = [registry.metrics(version) for version in pair]
    names = sorted(set(metrics[0]) | set(metrics[1]))
    rows = [{"metric": name, "first": metrics[0].get(name), "second": metrics[1].get(name)} for name in names]
    for row in rows:
        both = isinstance(row["first"], int | float) and isinstance(row["second"], int | float)
        row["difference"] = row["second"] - row["first"] if both else None

    def human(console: Console) -> None:
        from rich.table import Table

        table = Table(box=None, pad_edge=False)
        for heading in ("metric", f"version {pair[0].number}", f"version {pair[1].number}", "difference"):
            table.add_column(heading)
        for row in rows:
            table.add_row(row["metric"], *(_figure(row[key]) for key in ("first", "second")), _figure(row["difference"], sign=True))
        console.print(table)

    context.output.result({"first": pair[0].document(), "second": pair[1].document(), "metrics": rows}, human)


def _short_enough(_: click.Context, __: click.Parameter, comment: str | None) -> str | None:
    if comment is not None and len(comment) > MAX_COMMENT:
        raise click.BadParameter(f"it has {len(comment):,} characters; at most {MAX_COMMENT:,} are kept with a version")
    return comment


_comment_option = click.option("--comment", callback=_short_enough, help="Why; kept with the version.")


@models.command()
@click.argument("version", required=False)
@_comment_option
@click.option("--dry-run", is_flag=True, help="Say what would be deployed; decide nothing.")
@settings_options
@command_options()
def approve(
    context: Context, version: str | None, comment: str | None, dry_run: bool, stage: str | None, overrides: tuple[str, ...]
) -> None:
    """Approve VERSION (default: the newest that waits). The event deploys it to production."""
    production = _production(context, stage, overrides)
    registry = production.registry
    found: ModelVersion = registry.find(version) if version else registry.newest_pending()
    if dry_run:
        _show_plan(context, production, found, "Approved")
        return
    production.check_decisions_arrive()
    approved = registry.decide(found, "Approved", comment)
    sequel = (
        "It is in production already, and gets the platform's code and settings if those have changed; follow it with: scones status"
        if found.in_production
        else "Its deployment has begun; follow it with: scones status"
    )
    context.output.result(
        approved.document(),
        lambda console: console.print(context.hint(f"Version {approved.number} is Approved. {sequel}"), markup=False, soft_wrap=True),
    )


@models.command()
@click.argument("version")
@_comment_option
@click.option("--dry-run", is_flag=True, help="Say what would be deployed in its place; decide nothing.")
@settings_options
@command_options()
def reject(context: Context, version: str, comment: str | None, dry_run: bool, stage: str | None, overrides: tuple[str, ...]) -> None:
    """Reject VERSION. When it is in production, the newest other approved version takes its place."""
    production = _production(context, stage, overrides)
    registry = production.registry
    found: ModelVersion = registry.find(version)
    if dry_run:
        _show_plan(context, production, found, "Rejected")
        return
    if found.in_production:
        production.check_decisions_arrive()
    rejected = registry.decide(found, "Rejected", comment)
    context.output.result(
        rejected.document(),
        lambda console: console.print(
            context.hint(f"Version {rejected.number} is Rejected.{_sequel(found, registry)}"), markup=False, soft_wrap=True
        ),
    )


def _sequel(rejected: ModelVersion, registry: Any) -> str:
    """Say what a rejection sets off, as the deploying function decides it."""
    if not rejected.in_production:
        return ""
    if any(other.status == "Approved" and other.number != rejected.number for other in registry.versions()):
        return " It was in production: the newest other approved version takes its place; follow it with: scones status"
    return " It stays in production all the same, as no other version is approved. Approve one: scones models approve"


def _show_plan(context: Context, production: Production, version: ModelVersion, decision: Decision) -> None:
    from scones import changes as changes_view

    plan = production.consequence(version, decision)
    document = version.document() | {
        "outcome": "planned",
        "decision": decision,
        "would_serve": plan.serves,
        "consequence": plan.text,
        "changes": [changes_view.document(change) for change in plan.changes],
    }

    def human(console: Console) -> None:
        console.print(f"Version {version.number}, which is {version.status}, would be {decision}. {plan.text}", soft_wrap=True)
        changes_view.print_changes(console, plan.changes)

    context.output.result(document, human)
    context.output.note("Nothing was decided (--dry-run).")


def _figure(value: object, sign: bool = False) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:+.4f}" if sign else f"{value:.4f}"
    return str(value)


def _print_pairs(console: Console, document: dict[str, Any], indent: str = "") -> None:
    for key, value in document.items():
        if isinstance(value, dict):
            console.print(f"{indent}{key}:", markup=False)
            _print_pairs(console, value, indent + "  ")
        else:
            console.print(f"{indent}{key}: {_figure(value)}", markup=False)
