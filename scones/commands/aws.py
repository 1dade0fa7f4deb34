"""``scones aws``: the stacks of the system, made, compared and removed."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from scones.asking import agreed_or_discarded
from scones.console import counted
from scones.errors import ExitCode, SconesError
from scones.folders import check_writable
from scones.groups import Group
from scones.options import Context, Folder, command_options, settings_options

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

    from infrastructure.bootstrap import Plan
    from infrastructure.cicd import CicdParameters
    from infrastructure.costs import Estimate, Usage
    from infrastructure.deploy import PlatformParameters
    from infrastructure.removal import Inventory
    from pipelines.settings import Settings

#: For everything that a command has CloudFormation do.
STACK_SECONDS = 3600.0


@click.group(cls=Group)
def aws() -> None:
    """Make, compare and remove the system's stacks: on localcloud to try it, with --aws in an account."""


def usage_options(function: Any) -> Any:
    """Add the options that say how much the system is used, for the estimate of cost."""
    for option, help_text, default in (
        ("--photos-per-month", "For the estimate: photos classified in a month.", 10_000),
        ("--runs-per-month", "For the estimate: runs of the pipeline in a month.", 4),
    ):
        function = click.option(option, type=click.IntRange(min=0), default=default, show_default=True, help=help_text)(function)
    return function


def usage_of(photos_per_month: int, runs_per_month: int) -> Usage:
    """Return the use that an estimate assumes."""
    from infrastructure.costs import Usage

    return Usage(photos=photos_per_month, runs=runs_per_month)


@aws.command()
@usage_options
@click.option(
    "--pushes-per-month", type=click.IntRange(min=0), default=40, show_default=True, help="For the estimate: commits delivered in a month."
)
@settings_options
@command_options(needs_target=False)
def costs(
    context: Context, photos_per_month: int, runs_per_month: int, pushes_per_month: int, stage: str | None, overrides: tuple[str, ...]
) -> None:
    """Estimate what the system costs a month with the settings of a stage, and what their delivery of commits (scones cicd) adds to that.

    Asks nobody: the prices are in a table here.
    """
    from pipelines.settings import load_settings
    from scones.costs import document, estimate, estimate_delivery, print_estimate, print_lines
    from scones.platform import chosen_delivery, platform_parameters
    from scones.settings import stage_name

    settings = load_settings(stage_name(stage), overrides).settings
    found = estimate(settings, platform_parameters(settings), usage_of(photos_per_month, runs_per_month))
    delivery = estimate_delivery(chosen_delivery(settings).for_template(), pushes_per_month)

    def human(console: Console) -> None:
        print_lines(console, found)
        console.print(f"\nWith CI/CD (scones cicd deploy, cicd.source {settings.cicd.source}), on top:")
        print_estimate(console, delivery)

    context.output.result({**document(found), "cicd": document(delivery)}, human)


@aws.command()
@click.argument("folder", type=Folder())
@click.option("--dry-run", is_flag=True, help="Build, show what would be written, and write nothing.")
@command_options(needs_target=False)
def package(context: Context, folder: Path, dry_run: bool) -> None:
    """Build what the stacks refer to (the functions' zips, workflow, inference template) into FOLDER, which is made or must be empty.

    The same sources make the same files, each named by its content: `scones aws bootstrap --package FOLDER` deploys them as they are.
    """
    from infrastructure.packaging import build_assets, write_assets

    with _writing(folder):
        check_writable(folder)
        if folder.exists() and any(folder.iterdir()):
            raise SconesError(f"The folder {folder} is not empty", "Name a new one, or remove what is in it.", ExitCode.USAGE)
    assets = build_assets()
    if not dry_run:
        with _writing(folder):
            write_assets(assets, folder)

    def human(console: Console) -> None:
        for asset in assets:
            console.print(f"{len(asset.data):>9,} bytes  {folder / asset.key}", markup=False, soft_wrap=True)

    files = [{"key": asset.key, "sha256": asset.sha256, "size": len(asset.data)} for asset in assets]
    context.output.result({"folder": folder, "outcome": "planned" if dry_run else "written", "files": files}, human)
    if dry_run:
        context.output.note("Nothing was written (--dry-run).")


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SconesError(f"The folder {folder} cannot be written: {error.strerror}", "Name another.", ExitCode.USAGE) from error


@aws.command()
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Show what would change and change nothing.")
@click.option(
    "--package",
    "folder",
    type=Folder(exists=True),
    help="Deploy the files that scones aws package wrote there (default: build them now).",
)
@click.option(
    "--role-arn",
    help="Role that CloudFormation takes to change the stack, from now on (default: your own rights, or the role it took last).",
)
@click.option("--revert-drift", is_flag=True, help="Put back, too, what was changed or deleted by hand (scones aws diff shows it).")
@usage_options
@settings_options
@command_options()
def bootstrap(
    context: Context,
    yes: bool,
    dry_run: bool,
    folder: Path | None,
    role_arn: str | None,
    revert_drift: bool,
    photos_per_month: int,
    runs_per_month: int,
    stage: str | None,
    overrides: tuple[str, ...],
) -> None:
    """Create or update the platform stack: buckets, roles, registry, the rule and the function that deploy what a person approves.

    Shows what CloudFormation would change and what it costs, then asks. In a fresh account there are two steps: a stack of bucket and
    registry; code and templates are uploaded; then the rest is added. Broken off in between, it goes on from there next time.
    """
    from infrastructure.bootstrap import Bootstrap
    from infrastructure.deploy import watched_stack
    from infrastructure.packaging import build_assets, read_assets
    from scones.costs import estimate
    from scones.platform import platform_parameters
    from scones.settings import load

    settings = load(context, stage, overrides).settings
    parameters = platform_parameters(settings)
    assets = build_assets() if folder is None else read_assets(folder)
    say = context.output.note
    session = context.target.session
    stack = watched_stack(session, parameters.stack_name, time.monotonic() + STACK_SECONDS, say)
    platform = Bootstrap(session, stack, parameters, assets, role_arn=role_arn, revert_drift=revert_drift)
    say(f"{context.target.place()}, stage {settings.stage}: what would the stack {parameters.stack_name} change? ...")
    plan = platform.plan()
    cost = estimate(settings, parameters, usage_of(photos_per_month, runs_per_month))
    result = _plan_document(context, parameters, plan, cost)
    if plan.changes_nothing:
        context.output.result(
            {**result, "outcome": "unchanged"},
            lambda console: console.print(f"No changes: the stack {parameters.stack_name} is as the sources and the settings say."),
        )
        return
    if dry_run:
        platform.discard(plan)
        context.output.result({**result, "outcome": "planned"}, lambda console: _print_plan(console, parameters, plan, cost))
        say("Nothing was changed (--dry-run).")
        return
    agreed_or_discarded(
        f"Change the stack {parameters.stack_name}?",
        lambda: _print_plan(context.output.notes(), parameters, plan, cost),
        lambda: platform.discard(plan),
        yes=yes,
    )
    outputs = platform.apply(plan, say)
    result |= {"outcome": outputs.change.value, "artifact_bucket": outputs.artifact_bucket_name, "uploaded": list(outputs.uploaded_keys)}

    def human(console: Console) -> None:
        console.print(
            f"The stack {parameters.stack_name} is {outputs.change.value}; images, code and models go to {outputs.artifact_bucket_name}."
        )
        for line in _next_steps(context, settings):
            console.print(context.hint(line), markup=False, soft_wrap=True)

    context.output.result(result, human)


@aws.command()
@click.option("--exit-code", is_flag=True, help="Exit with 1 when something differs, as git diff does (default: with 0).")
@settings_options
@command_options()
def diff(context: Context, exit_code: bool, stage: str | None, overrides: tuple[str, ...]) -> None:
    """Compare the stacks with the sources and the settings, and with reality: what was changed or deleted by hand (drift).

    Changes nothing. What cannot be found out is said to be not known; it counts as no difference for --exit-code.
    """
    from scones.comparison import Comparison, print_difference
    from scones.platform import check_delivery, delivery_parameters, existing_platform, platform_parameters
    from scones.settings import load

    settings = load(context, stage, overrides).settings
    parameters = platform_parameters(settings)
    context.output.note(f"{context.target.place()}, stage {settings.stage}: comparing ...")

    def delivery() -> CicdParameters:
        check_delivery(settings)
        return delivery_parameters(context, settings, existing_platform(context, settings))

    found = Comparison(context.target, parameters, delivery, STACK_SECONDS, context.output.note).stacks()

    def human(console: Console) -> None:
        for difference in found:
            print_difference(console, difference)
            if difference.stack == parameters.stack_name and difference.drift is not None and difference.drift.resources:
                option = " --aws" if context.aws else ""
                hint = context.hint(f"  Put it back (shown first): scones aws bootstrap --revert-drift{option}")
                console.print(hint, markup=False, soft_wrap=True)

    context.output.result([difference.document() for difference in found], human)
    if exit_code and any(difference.differs for difference in found):
        sys.exit(ExitCode.FAILED)


@aws.command()
@click.option("--delete-data", is_flag=True, help="Delete images, models, reports and the registry too.")
@click.option("--confirm", metavar="NAME", help="The project's name, for scripts; else it is asked for.")
@click.option("--dry-run", is_flag=True, help="Show what would go and what would stay, and remove nothing.")
@settings_options
@command_options()
def destroy(
    context: Context,
    delete_data: bool,
    confirm: str | None,
    dry_run: bool,
    stage: str | None,
    overrides: tuple[str, ...],
) -> None:
    """Remove the system: production, staging, CI/CD, the platform's functions, rules and roles.

    Data stays, with the stack that owns it, unless --delete-data is given. Shows first what goes and what stays, and asks for the project's
    name. Broken off, it goes on where it was when it is run again.
    """
    from infrastructure.removal import Removal
    from scones import removal as view
    from scones.asking import named
    from scones.platform import platform_parameters
    from scones.settings import load

    settings = load(context, stage, overrides).settings
    parameters = platform_parameters(settings)
    project = settings.project.name
    if confirm is not None:
        named("", project, confirm, "--confirm")
    say = context.output.note
    place = context.target.place()
    say(f"{place}: what is there of the project {project}? ...")
    removal = Removal(context.target.session, view.names(settings, parameters), STACK_SECONDS, say)
    found = removal.inventory()
    orphans = view.orphans(context.target.session, parameters, found)
    result = {
        "target": place,
        "project": project,
        "delete_data": delete_data,
        "before": view.document(found, delete_data),
        "orphans": orphans,
    }
    if found.running:
        raise SconesError(
            f"The pipeline runs: {', '.join(arn.rpartition('/')[2] for arn in found.running)}; nothing was removed",
            "Wait for it (scones status), or stop it: aws sagemaker stop-pipeline-execution --pipeline-execution-arn " + found.running[0],
        )

    def left(inventory: Inventory) -> Callable[[Console], None]:
        def human(console: Console) -> None:
            view.print_left(console, inventory, project, context.hint, but=bool(orphans))
            view.print_orphans(console, orphans, context.hint)

        return human

    def planned(console: Console) -> None:
        view.print_plan(console, found, delete_data)
        view.print_orphans(console, orphans, context.hint)

    if found.is_empty or (found.holds_only_data and not delete_data):
        context.output.result({**result, "outcome": "nothing to do"}, left(found))
        return
    removal.check(found, delete_data=delete_data)
    if dry_run:
        context.output.result({**result, "outcome": "planned"}, planned)
        say("Nothing was removed (--dry-run).")
        return
    planned(context.output.notes())
    if not named(f"To remove it, type the project's name ({project})", project, confirm, "--confirm"):
        raise SconesError("That is not the project's name; nothing was removed", exit_code=ExitCode.FAILED)
    removal.run(found, delete_data=delete_data)
    after = removal.inventory()
    result |= {"outcome": "removed", "left": view.document(after, delete_data)}
    context.output.result(result, left(after))


def _plan_document(context: Context, parameters: PlatformParameters, plan: Plan, cost: Estimate) -> dict[str, Any]:
    from scones import costs
    from scones.changes import document

    return {
        "target": context.target.place(),
        "stack": parameters.stack_name,
        "status": None if plan.state is None else plan.state.status,
        "steps": 3 if plan.adopts else 2 if plan.is_fresh else 1,
        "changes": [document(change) for change in plan.changes],
        "later_steps": [document(change) for change in plan.later],
        "uploads": list(plan.uploads),
        "costs": costs.document(cost),
    }


def _print_plan(console: Console, parameters: PlatformParameters, plan: Plan, cost: Estimate) -> None:
    from scones.changes import print_changes, summary
    from scones.costs import print_estimate

    name = parameters.stack_name
    if plan.leftover is not None:
        console.print(f"The stack {name} is in {plan.leftover.status}: nothing in it serves. It is deleted, then made anew.")
    if plan.adopts:
        console.print(f"What outlived the stack {name} is there: step 1 of 3 takes it into a new stack, as it is. Nothing in it is lost.")
        print_changes(console, plan.changes)
        console.print(f"Steps 2 and 3, with {counted(len(plan.uploads), 'file')} of code between them, add the rest: {summary(plan.later)}")
        print_changes(console, plan.later)
    elif plan.is_fresh:
        console.print(f"There is no platform yet. Step 1 of 2 creates the stack {name} with bucket and registry: {summary(plan.changes)}")
        print_changes(console, plan.changes)
        console.print(
            f"Then {counted(len(plan.uploads), 'file')} of code go to the bucket. Step 2 of 2 adds the rest: {summary(plan.later)}"
        )
        print_changes(console, plan.later)
    else:
        served = "" if plan.state is None else plan.state.parameters.get("Stage", "")
        if served not in ("", parameters.stage):
            console.print(
                f"[bold red]The stack {name} is of the stage {served}, not {parameters.stage}: it would get another, empty bucket.[/]"
            )
        console.print(f"Uploaded first: {counted(len(plan.uploads), 'file')} of code." if plan.uploads else "All code is uploaded already.")
        if plan.first is not None:
            console.print(f"The stack {name} changes: {summary(plan.changes) or 'outputs or tags only'}")
            print_changes(console, plan.changes)
    print_estimate(console, cost)


def _next_steps(context: Context, settings: Settings) -> list[str]:
    from scones.registry import stack_outputs

    lines = ["Next: train a model (scones run --data FOLDER), then approve it (scones models approve)."]
    if stack_outputs(context.target, f"{settings.project.name}-inference") is not None:
        lines = ["Production gets new code and settings with the next decision, or now: scones deploy refresh"]
    return lines
