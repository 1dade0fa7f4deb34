"""``scones cicd``: from a push to a training run, with CodePipeline and CodeBuild."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from scones.asking import agreed_or_discarded
from scones.commands.aws import STACK_SECONDS
from scones.errors import ExitCode, SconesError
from scones.groups import Group
from scones.options import Context, command_options, settings_options

if TYPE_CHECKING:
    from rich.console import Console

    from infrastructure.cicd import CicdParameters, DeliveryPlan
    from infrastructure.costs import Estimate
    from scones.delivery import Deliveries, Delivery, DeliveryAction

LOG_TAIL = 15


@click.group(cls=Group)
def cicd() -> None:
    """Deliver commits: test, package, platform, and a training run when something that a model depends on has changed.

    With --set cicd.source=connection (the default) a git push starts it; with s3, scones cicd push does. docs/cicd.md has the rest.
    """


@cicd.command()
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Show what would change and change nothing.")
@settings_options
@command_options()
def deploy(context: Context, yes: bool, dry_run: bool, stage: str | None, overrides: tuple[str, ...]) -> None:
    """Create or update the delivery stack: CodePipeline, CodeBuild and their roles, on top of the platform.

    Shows what CloudFormation would change and what it costs, then asks. The settings are those of the section cicd: scones config show.
    """
    from infrastructure.cicd import DeliveryStack
    from infrastructure.deploy import watched_stack
    from scones.connection import next_steps
    from scones.costs import estimate_delivery
    from scones.platform import check_delivery, delivery_parameters, ensure_platform, existing_platform, platform_parameters
    from scones.settings import load

    settings = load(context, stage, overrides).settings
    platform_parameters(settings)  # refuses what would not fit the project's platform
    check_delivery(settings)
    parameters = delivery_parameters(context, settings, (existing_platform if dry_run else ensure_platform)(context, settings))
    say = context.output.note
    session = context.target.session
    delivery = DeliveryStack(session, watched_stack(session, parameters.stack_name, time.monotonic() + STACK_SECONDS, say), parameters)
    say(f"{context.target.place()}, stage {settings.stage}: what would the stack {parameters.stack_name} change? ...")
    plan = delivery.plan()
    cost = estimate_delivery(parameters.for_template())
    result = _plan_document(context, parameters, plan, cost)
    if dry_run:
        delivery.discard(plan)
        context.output.result({**result, "outcome": "planned"}, lambda console: _print_plan(console, parameters, plan, cost))
        say("Nothing was changed (--dry-run).")
        return
    outcome = "unchanged"
    if not plan.changes_nothing:
        agreed_or_discarded(
            f"Change the stack {parameters.stack_name}?",
            lambda: _print_plan(context.output.notes(), parameters, plan, cost),
            lambda: delivery.discard(plan),
            yes=yes,
        )
        outcome = delivery.apply(plan).value
    steps = [context.hint(line) for line in next_steps(context.target, settings, parameters.stack_name)]

    def human(console: Console) -> None:
        console.print(f"The stack {parameters.stack_name} is {outcome}.")
        for line in steps:
            console.print(line, markup=False, soft_wrap=True)

    context.output.result({**result, "outcome": outcome, "next": steps}, human)


@cicd.command()
@click.argument("execution", required=False)
@settings_options
@command_options()
def status(context: Context, execution: str | None, stage: str | None, overrides: tuple[str, ...]) -> None:
    """Show a delivery (EXECUTION of CodePipeline, or the beginning of its id; default: the newest) stage by stage, and why it failed."""
    deliveries = _deliveries(context, stage, overrides)
    found = deliveries.find(execution) if execution else deliveries.newest()
    tail = [] if found is None else _log_tail(context, deliveries, found)
    training = None if found is None else deliveries.training_run(found)
    document = {
        "target": str(context.target),
        "pipeline": deliveries.pipeline_name,
        "delivery": None if found is None else found.document(),
        "nothing_pushed_yet": found is None or (execution is None and found.found_nothing_pushed),
        "log_tail": tail,
        "training": None if training is None else {"execution_arn": training.execution_arn, "status": training.status},
    }

    def human(console: Console) -> None:
        console.print(f"target     {context.target}")
        console.print(f"pipeline   {deliveries.pipeline_name}")
        if found is None:
            console.print("Nothing has been pushed yet.")
            console.print(context.hint(_how_to_push(deliveries)), markup=False, soft_wrap=True)
            return
        failed = found.failed_action
        if execution is None and found.found_nothing_pushed and failed is not None:
            console.print("A new pipeline runs once by itself, and this one found no commit:", soft_wrap=True)
            console.print(f"  {failed.reason}", markup=False, soft_wrap=True)
            console.print(_how_to_push(deliveries), soft_wrap=True)
            return
        _print_delivery(console, found)
        if training is not None:
            console.print(f"training   {training.execution_arn}: {training.status}", soft_wrap=True)
            console.print(context.hint(f"           scones status {training.execution_arn.rpartition('/')[2]}"), soft_wrap=True)
        if found.failed_action is not None:
            _print_failure(context, console, found, tail, deliveries)

    context.output.result(document, human)


@cicd.command()
@click.argument("action", required=False)
@click.option("--execution", help="Delivery that is meant, by the beginning of its id (default: the newest).")
@click.option("--last", type=click.IntRange(min=1), help="Show only this many lines.")
@settings_options
@command_options()
def logs(
    context: Context, action: str | None, execution: str | None, last: int | None, stage: str | None, overrides: tuple[str, ...]
) -> None:
    """Show the log of the build of ACTION (Test, Package, Platform, Pipeline; default: the one that failed, else the newest)."""
    from scones import log_streams

    deliveries = _deliveries(context, stage, overrides)
    found = deliveries.find(execution) if execution else deliveries.newest()
    built = [] if found is None else [item for item in found.actions if item.build_id is not None]
    if found is None or not built:
        raise SconesError("No build has run yet", _how_to_push(deliveries) if found is None else "Look: scones cicd status", ExitCode.USAGE)
    chosen = next((item for item in built if item.name == action), None) if action else found.failed_action or built[-1]
    if chosen is None or chosen.build_id is None:
        raise SconesError(
            f"No build of {f'an action {action!r}' if action else 'the action that failed'} in the delivery {found.execution_id}",
            f"Builds ran of: {', '.join(item.name for item in built)}",
            ExitCode.USAGE,
        )
    source = deliveries.log_source(chosen)
    lines = [] if source is None else log_streams.read(context.target, source, last)
    document = {
        "action": chosen.name,
        "build_id": chosen.build_id,
        "log_group": None if source is None else source.group,
        "lines": [{"timestamp": line.timestamp, "message": line.message} for line in lines],
    }

    def human(console: Console) -> None:
        if not lines:
            console.print(f"{chosen.name} has not logged yet ({chosen.status})")
        for line in lines:
            console.print(line.message.rstrip("\n"), markup=False, soft_wrap=True)

    context.output.result(document, human)


@cicd.command()
@click.option("--dry-run", is_flag=True, help="Say what would be uploaded and upload nothing.")
@settings_options
@command_options()
def push(context: Context, dry_run: bool, stage: str | None, overrides: tuple[str, ...]) -> None:
    """Upload the sources of the commit that is checked out, which starts a delivery. For cicd.source s3; else push with git."""
    from scones.source_archive import archive

    deliveries = _deliveries(context, stage, overrides)
    key = deliveries.outputs.get("SourceKey")
    if key is None:
        raise SconesError(
            f"The delivery {deliveries.pipeline_name} takes its commits from a repository, not from uploads",
            f"{_how_to_push(deliveries)} For uploads: scones cicd deploy --set cicd.source=s3",
            ExitCode.USAGE,
        )
    sources = archive()
    bucket = deliveries.outputs["BucketName"]
    document = {"commit": sources.commit, "summary": sources.summary, "bytes": len(sources.data), "uri": f"s3://{bucket}/{key}"}
    if sources.is_dirty:
        context.output.note("Warning: files that are not committed are left out. Commit first to deliver them.")
    if dry_run:
        context.output.result({**document, "outcome": "planned"}, lambda console: console.print(f"Would upload {sources}"))
        context.output.note("Nothing was uploaded (--dry-run).")
        return
    # CodePipeline shows this metadata as the revision's summary
    # (https://docs.aws.amazon.com/codepipeline/latest/userguide/action-reference-S3.html).
    summary = f"{sources.commit} {sources.summary}".encode("ascii", "replace").decode()[:1024]
    version = context.target.client("s3").put_object(
        Bucket=bucket, Key=key, Body=sources.data, Metadata={"codepipeline-artifact-revision-summary": summary}
    )["VersionId"]

    def human(console: Console) -> None:
        console.print(f"Uploaded {sources} to s3://{bucket}/{key}", markup=False, soft_wrap=True)
        console.print(context.hint("Its delivery begins by itself: scones cicd status"), markup=False, soft_wrap=True)

    context.output.result({**document, "outcome": "uploaded", "version": version}, human)


def _deliveries(context: Context, stage: str | None, overrides: tuple[str, ...]) -> Deliveries:
    from scones.delivery import Deliveries
    from scones.settings import load

    return Deliveries(context.target, load(context, stage, overrides).settings)


def _plan_document(context: Context, parameters: CicdParameters, plan: DeliveryPlan, cost: Estimate) -> dict[str, Any]:
    from scones import costs
    from scones.changes import document

    return {
        "target": context.target.place(),
        "stack": parameters.stack_name,
        "status": None if plan.state is None else plan.state.status,
        "changes": [document(change) for change in plan.changes],
        "costs": costs.document(cost),
    }


def _print_plan(console: Console, parameters: CicdParameters, plan: DeliveryPlan, cost: Estimate) -> None:
    from scones.changes import print_changes, summary
    from scones.costs import print_estimate

    name = parameters.stack_name
    if plan.leftover is not None:
        emptied = " with what is in its bucket" if plan.leftover.status == "DELETE_FAILED" else ""
        console.print(f"The stack {name} is in {plan.leftover.status}: nothing in it serves. It is deleted{emptied}, then made anew.")
    if plan.changes_nothing:
        console.print(f"No changes: the stack {name} is as the sources and the settings say.")
        return
    console.print(f"The stack {name} changes: {summary(plan.changes) or 'outputs or tags only'}")
    print_changes(console, plan.changes)
    print_estimate(console, cost)


def _how_to_push(deliveries: Deliveries) -> str:
    return (
        "Upload a commit: scones cicd push"
        if "SourceKey" in deliveries.outputs
        else "Push a commit: git push. Where to, and whether the connection waits for somebody: scones cicd deploy"
    )


def _log_tail(context: Context, deliveries: Deliveries, delivery: Delivery) -> list[str]:
    from scones import log_streams

    failed = delivery.failed_action
    source = None if failed is None else deliveries.log_source(failed)
    return [] if source is None else [line.message.rstrip("\n") for line in log_streams.read(context.target, source, LOG_TAIL)]


def _print_delivery(console: Console, delivery: Delivery) -> None:
    from rich.markup import escape
    from rich.table import Table

    style = {"Succeeded": "green", "Failed": "red", "Stopped": "yellow", "Superseded": "yellow", "InProgress": "cyan"}
    console.print(f"execution  {delivery.execution_id}\nstatus     [{style.get(delivery.status, '')}]{delivery.status}[/]")
    console.print(
        f"commit     {delivery.commit or delivery.revision or 'not known'}  {delivery.summary or ''}".rstrip(), markup=False, soft_wrap=True
    )
    console.print(f"started    {delivery.started:%Y-%m-%d %H:%M:%S} by {delivery.trigger or 'nobody knows'}", markup=False, soft_wrap=True)
    table = Table(box=None, pad_edge=False)
    for heading in ("stage", "action", "status"):
        table.add_column(heading)
    table.add_column("seconds", justify="right")
    for action in delivery.actions:
        seconds = "" if action.seconds is None else f"{action.seconds:.1f}"
        table.add_row(escape(action.stage), escape(action.name), f"[{style.get(action.status, '')}]{action.status}[/]", seconds)
    console.print(table)


def _print_failure(context: Context, console: Console, delivery: Delivery, tail: list[str], deliveries: Deliveries) -> None:
    failed = delivery.failed_action
    if failed is None:
        return
    console.print(f"[red]{failed.name} failed:[/] ", end="")
    console.print(failed.reason or "no reason given", markup=False, soft_wrap=True)
    if tail:
        console.print(f"the end of its log (all of it: {context.hint(f'scones cicd logs {failed.name}')}):", markup=False, soft_wrap=True)
        for line in tail:
            console.print(f"  {line}", markup=False, soft_wrap=True)
    console.print(context.hint(_what_next(failed, tail, deliveries)), markup=False, soft_wrap=True)


def _what_next(failed: DeliveryAction, tail: list[str], deliveries: Deliveries) -> str:
    """What a person does about an action that failed."""
    from scones.advice import advice

    if failed.stage == "Source":
        if "SourceKey" in deliveries.outputs:
            return _how_to_push(deliveries)
        return "Is the connection authorized, and is there the branch? scones cicd deploy says what it waits for."
    known = None if failed.stage == "Test" else advice("\n".join([failed.reason or "", *tail]))
    return known or "Mend it and push again."
