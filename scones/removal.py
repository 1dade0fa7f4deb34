"""What a removal takes and leaves, and how that looks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

    from infrastructure.costs import Estimate
    from infrastructure.deploy import PlatformParameters
    from infrastructure.removal import Inventory, Names
    from pipelines.settings import Settings


def names(settings: Settings, parameters: PlatformParameters) -> Names:
    """Return what the project's things are called."""
    from infrastructure.removal import Names

    return Names(
        settings.project.name,
        parameters.stack_name,
        settings.pipeline.name,
        parameters.model_package_group_name,
        settings.staging_endpoint.name,
    )


def document(inventory: Inventory, delete_data: bool) -> dict[str, Any]:
    """Return an inventory as --json prints it."""
    return {
        "stacks": [
            {
                "stack": stack.name,
                "status": stack.state.status,
                "goes": sorted(stack.resources) if delete_data else list(stack.goes),
                "stays": [] if delete_data else sorted(stack.kept),
            }
            for stack in inventory.stacks
        ],
        "staging_endpoint": inventory.staging_endpoint,
        "endpoint_configs": list(inventory.endpoint_configs),
        "models": list(inventory.models),
        "pipeline": inventory.pipeline,
        "buckets": [{"bucket": item.bucket, "versions": item.versions, "bytes": item.size} for item in inventory.contents],
        "model_versions": list(inventory.model_versions),
        "log_groups": list(inventory.log_groups),
        "monthly_cost_of_data": round(left_costs(inventory).total, 2),
    }


def orphans(session: Any, parameters: PlatformParameters, inventory: Inventory) -> tuple[str, ...]:
    """Return what a platform stack that was deleted by hand has left behind, which belongs to no stack."""
    from infrastructure.adoption import Adoption
    from lambdas.deploy_inference_workflow.errors import DeploymentError
    from lambdas.deploy_inference_workflow.stacks import Stack

    if any(stack.name == parameters.stack_name for stack in inventory.stacks):
        return ()
    stack = Stack(session.client("cloudformation"), parameters.stack_name, lambda: 0.0)
    try:
        found = Adoption(session, stack, parameters.project, parameters.stage, parameters.for_template()).found()
    except DeploymentError:
        # What has the name and is not the project's is nobody's to remove here.
        return ()
    return tuple(f"{item.type} {value}" for item in found for value in item.identifier.values())


def print_orphans(console: Console, found: tuple[str, ...], hint: Callable[[str], str]) -> None:
    """Print what belongs to no stack, so that no removal takes it; `hint` makes commands go on where this one is."""
    from rich.markup import escape

    if found:
        advice = hint("scones aws bootstrap takes this into a stack again, and scones aws destroy --delete-data after that takes it away.")
        console.print(
            f"[bold]Belongs to no stack, and is not touched:[/] {', '.join(found)}. The platform was deleted by hand; {escape(advice)}",
            soft_wrap=True,
        )


def left_costs(inventory: Inventory) -> Estimate:
    """Return what the data costs a month that an inventory holds."""
    from infrastructure.costs import Usage, estimate_stacks

    usage = Usage(photos=0, runs=0, commits=0, stored_gigabytes=sum(item.size for item in inventory.contents) / 1e9)
    return estimate_stacks([(stack.template.what_holds_data(), stack.state.parameters) for stack in inventory.stacks if stack.kept], usage)


def print_plan(console: Console, inventory: Inventory, delete_data: bool) -> None:
    """Print what goes and what stays."""
    console.print("[bold]Goes:[/]")
    for stack in inventory.stacks:
        goes = sorted(stack.resources) if delete_data or not stack.kept else list(stack.goes)
        if goes:
            whole = "the stack" if delete_data or not stack.kept else "of the stack"
            console.print(f"  {whole} {stack.name} ({stack.state.status}): {', '.join(goes)}", soft_wrap=True)
        for bucket in stack.buckets.items() if not delete_data else ():
            if bucket[0] not in stack.kept:
                console.print(f"  all objects of the bucket {bucket[1]}")
    if inventory.staging_endpoint is not None:
        console.print(f"  the endpoint {inventory.staging_endpoint}")
    if inventory.endpoint_configs or inventory.models:
        console.print(
            f"  what runs and earlier deployments left: endpoint configurations ({len(inventory.endpoint_configs)}), models ({len(inventory.models)})"
        )
    if delete_data:
        console.print("[bold red]Goes, and cannot be brought back:[/]")
        _print_data(console, inventory)
        console.print(f"  all of it costs about {_costs(inventory)} now", soft_wrap=True)
        if inventory.pipeline is not None:
            console.print(f"  the pipeline {inventory.pipeline} with its history")
        for group in inventory.log_groups:
            console.print(f"  the logs {group}")
    elif any(stack.kept for stack in inventory.stacks):
        console.print("[bold]Stays[/] (--delete-data takes it too):")
        _print_data(console, inventory)
        for stack in inventory.stacks:
            if stack.kept:
                console.print(f"  the stack {stack.name} as its owner: {', '.join(sorted(stack.kept))}", soft_wrap=True)
        if inventory.pipeline is not None:
            console.print(f"  the pipeline {inventory.pipeline} with its history (free)")
        console.print(f"  all of it goes on costing about {_costs(inventory)}", soft_wrap=True)
    console.print("Untouched: the logs of jobs in /aws/sagemaker/ProcessingJobs and TrainingJobs, which other projects may share.")


def print_left(console: Console, inventory: Inventory, project: str, hint: Callable[[str], str], *, but: bool = False) -> None:
    """Print what is there after a removal, and what it costs; `hint` makes commands go on where this one is, `but`: something else is left, which is said after this."""
    if inventory.is_empty:
        console.print(f"No stack of the project {project} is left." if but else f"Nothing of the project {project} is left.")
        return
    if not inventory.holds_only_data:
        stacks = ", ".join(f"{stack.name} ({stack.state.status})" for stack in inventory.stacks if not stack.holds_only_data)
        console.print(f"[bold red]Still there:[/] {stacks or 'what runs left on staging'}. Run the same again.")
    console.print(f"Left is data, for about {_costs(inventory)}:", soft_wrap=True)
    _print_data(console, inventory)
    if inventory.pipeline is not None:
        console.print(f"  the pipeline {inventory.pipeline} with its history (free)")
    console.print(
        hint("Bring the rest back: scones aws bootstrap. Delete the data too: scones aws destroy --delete-data"),
        markup=False,
        soft_wrap=True,
    )


def _costs(inventory: Inventory) -> str:
    from scones.costs import dollars

    costs = left_costs(inventory)
    return f"{dollars(costs.total)} USD a month" + "".join(f", and {line.what} ({line.assumption})" for line in costs.unknown)


def _print_data(console: Console, inventory: Inventory) -> None:
    for item in inventory.contents:
        console.print(f"  the bucket {item.bucket}: {item.versions} objects and old versions, {item.size / 1e6:.1f} MB")
    if inventory.model_versions:
        console.print(f"  {len(inventory.model_versions)} model versions in the registry {inventory.names.model_package_group}")
