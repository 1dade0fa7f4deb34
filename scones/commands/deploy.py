"""``scones deploy``: production, taken to another version."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from scones.groups import Group
from scones.options import Context, command_options, settings_options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from infrastructure.changes import ResourceChange
    from scones.production import Deployment, Production

#: Of why a deployment failed, on a terminal: two or three lines.
_LONGEST_REASON = 200


@click.group(cls=Group)
def deploy() -> None:
    """Take production back to an earlier version, bring new code and settings to it, or see what served when.

    New versions come to production by approval: scones models approve.
    """


def _production(context: Context, stage: str | None, overrides: tuple[str, ...]) -> Production:
    from scones.production import Production
    from scones.settings import load

    return Production(context.target, load(context, stage, overrides).settings)


@deploy.command()
@click.argument("version", required=False)
@click.option("--dry-run", is_flag=True, help="Say what would be deployed and deploy nothing.")
@settings_options
@command_options()
def rollback(context: Context, version: str | None, dry_run: bool, stage: str | None, overrides: tuple[str, ...]) -> None:
    """Deploy an earlier VERSION (default: the one in production before this one) by the function that deploys approvals.

    Only Approved versions are deployed. What serves goes on serving until the other does, and when the deployment fails.
    """
    from lambdas.deploy_inference_workflow.errors import DeploymentError
    from scones.advice import advice
    from scones.errors import SconesError
    from scones.production import later_than

    production = _production(context, stage, overrides)
    state = production.state(context.output.note)
    serving = state.parameters["ModelPackageArn"]
    present = serving.rpartition("/")[2]
    found = production.rollback_target(serving, version)
    document: dict[str, Any] = {
        "stack": production.stack_name,
        "from": {"version": int(present), "model_package_arn": serving},
        "to": found.document(),
        "function": production.function_name(),
    }
    words = f"version {found.number} in place of version {present} (stack {production.stack_name}, {state.status})"
    if dry_run:
        changes = production.plan(found.arn, later_than(state.parameters["DecidedAt"]))
        _show_plan(context, document, changes, f"The function {document['function']} would deploy {words}:")
        return
    context.output.note(f"Deploying {words} ...")
    began = time.monotonic()
    try:
        decision = production.redeploy(found.arn, later_than(state.parameters["DecidedAt"]), context.output.note)
    except DeploymentError as error:
        # A rollback that failed, too, leaves nobody knows what.
        serves = "" if "UPDATE_ROLLBACK_FAILED" in str(error) else f"Version {present} serves on. "
        hint = f"{serves}{advice(str(error)) or 'See: scones status'}"
        raise SconesError(f"Version {found.number} was not deployed: {error}", hint) from error
    if decision.outcome == "ignored":
        raise SconesError(f"Version {found.number} was not deployed: {decision.reason}", "See: scones deploy history")
    seconds = time.monotonic() - began

    def human(console: Console) -> None:
        console.print(f"Version {found.number} is in production ({decision.outcome}, {seconds:.0f} s).")
        console.print(
            f"Version {present} is still Approved, and new models are compared with the newest Approved one. "
            f"If it is not good: {context.hint(f'scones models reject {present}')}",
            markup=False,
            soft_wrap=True,
        )

    context.output.result({**document, "outcome": decision.outcome, "seconds": round(seconds, 1)}, human)


@deploy.command()
@click.option("--dry-run", is_flag=True, help="Show what would change and change nothing.")
@settings_options
@command_options()
def refresh(context: Context, dry_run: bool, stage: str | None, overrides: tuple[str, ...]) -> None:
    """Bring the platform's code and settings to production now; the model version stays. Else they come with the next decision."""
    from scones.errors import SconesError

    production = _production(context, stage, overrides)
    state = production.state(context.output.note)
    serving = state.parameters["ModelPackageArn"]
    if dry_run:
        changes = production.plan(serving, state.parameters["DecidedAt"])
        text = f"The stack {production.stack_name} would change:" if changes else "Production has the platform's code and settings already."
        _show_plan(context, {"stack": production.stack_name, "model_package_arn": serving}, changes, text)
        return
    decision = production.redeploy(serving, state.parameters["DecidedAt"], context.output.note)
    if decision.outcome == "ignored":
        raise SconesError(f"Production was not refreshed: {decision.reason}", "See: scones models list")
    context.output.result(
        {"stack": production.stack_name, "model_package_arn": serving, "outcome": decision.outcome},
        lambda console: console.print(
            "Production has the platform's code and settings already."
            if decision.outcome == "unchanged"
            else f"Production has the platform's code and settings now ({decision.outcome})."
        ),
    )


def _show_plan(context: Context, document: dict[str, Any], changes: tuple[ResourceChange, ...], text: str) -> None:
    from scones import changes as changes_view

    def human(console: Console) -> None:
        console.print(text, soft_wrap=True)
        changes_view.print_changes(console, changes)

    context.output.result({**document, "outcome": "planned", "changes": [changes_view.document(change) for change in changes]}, human)
    context.output.note("Nothing was deployed (--dry-run).")


@deploy.command()
@settings_options
@command_options()
def history(context: Context, stage: str | None, overrides: tuple[str, ...]) -> None:
    """List what was deployed to production and what could not be, newest first, as far back as the function's log is kept.

    Where an endpoint configuration is named, it is still there, and the endpoint can be switched to it at once (past CloudFormation; `scones aws
    diff` tells of it then, and the next deployment takes it back). `scones deploy rollback` goes the whole way: functions, workflow, smoke test.
    """
    deployments = _production(context, stage, overrides).history()

    def human(console: Console) -> None:
        if not deployments:
            console.print(context.hint("Nothing was deployed yet. Approve a version: scones models approve"), markup=False, soft_wrap=True)
            return
        print_history(console, deployments)

    context.output.result([item.document() for item in deployments], human)


def print_history(console: Console, deployments: Sequence[Deployment]) -> None:
    """Print what was deployed, and below, across the whole width, why some could not be: the first reason, which is the cause."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in ("when", "version", "outcome", "endpoint configuration"):
        table.add_column(heading, overflow="fold")
    rows = [(f"{item.at:%Y-%m-%d %H:%M:%S}", str(item.document()["version"] or ""), item) for item in deployments]
    for at, version, item in rows:
        table.add_row(at, version, item.outcome, escape(item.endpoint_config or ""))
    console.print(table)
    for at, version, item in rows:
        if item.failure:
            console.print(f"{at} version {version}: {_first_reason(item.failure)}", markup=False, soft_wrap=True)
    if any(item.failure for item in deployments):
        console.print("All reasons, whole: --json")


def _first_reason(failure: str) -> str:
    first = failure.partition("; ")[0]
    return first if len(first) <= _LONGEST_REASON else f"{first[:_LONGEST_REASON]} ..."
