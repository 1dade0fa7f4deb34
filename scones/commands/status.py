"""``scones status``."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import click

from scones import log_streams
from scones.advice import advice
from scones.options import Context, command_options, settings_options

if TYPE_CHECKING:
    from rich.console import Console

    from pipelines.executions import ExecutionResult
    from pipelines.settings import Settings

LOG_TAIL = 15


@dataclass(frozen=True)
class Serving:
    """What an endpoint serves."""

    endpoint: str
    status: str
    failure_reason: str | None


@click.command()
@click.argument("execution", required=False)
@settings_options
@command_options()
def status(context: Context, execution: str | None, stage: str | None, overrides: tuple[str, ...]) -> None:
    """Show EXECUTION (an ARN, an id or its beginning; default: the newest) step by step, why it failed with the end of the log, and what serves."""
    from scones.executions import Executions, document
    from scones.settings import load

    settings = load(context, stage, overrides).settings
    executions = Executions(context.target, settings)
    found = executions.find(execution) if execution else executions.newest()
    tail = _log_tail(context, found)
    endpoints = _endpoints(context, settings.project.name)
    deployment = _deployment(context, settings)
    result = {
        "target": str(context.target),
        "execution": None if found is None else document(found),
        "log_tail": tail,
        "endpoints": [asdict(endpoint) for endpoint in endpoints],
        "deployment": deployment,
    }

    def human(console: Console) -> None:
        from scones.views import print_execution

        console.print(f"target    {context.target}")
        if found is None:
            console.print(context.hint("The pipeline has not run yet. Run it: scones run --data sample"), markup=False, soft_wrap=True)
        else:
            print_execution(console, found)
        if tail and found is not None and found.failed_step is not None:
            log = context.hint(f"scones logs {found.failed_step.name}")
            console.print(f"the end of its log (all of it: {log}):", markup=False, soft_wrap=True)
            for line in tail:
                console.print(f"  {line}", markup=False)
        for endpoint in endpoints:
            console.print(
                f"endpoint  {endpoint.endpoint}: {endpoint.status}{f' ({endpoint.failure_reason})' if endpoint.failure_reason else ''}",
                markup=False,
            )
        if deployment is not None:
            console.print(
                f"deployed  {deployment['model_package_arn'] or 'nothing'} (stack {deployment['stack']}: {deployment['status']})",
                soft_wrap=True,
            )
            if deployment["reason"]:
                console.print(f"          {deployment['reason']}", markup=False)
                known = advice(deployment["reason"])
                if known is not None:
                    console.print(f"          {context.hint(known)}", markup=False, soft_wrap=True)

    context.output.result(result, human)


def _log_tail(context: Context, execution: ExecutionResult | None) -> list[str]:
    failed = None if execution is None else execution.failed_step
    source = None if failed is None or failed.resource_arn is None else log_streams.of_job(context.target, failed.resource_arn)
    return [] if source is None else [line.message.rstrip("\n") for line in log_streams.read(context.target, source, LOG_TAIL)]


def _endpoints(context: Context, project: str) -> list[Serving]:
    sagemaker = context.target.client("sagemaker")
    pages = sagemaker.get_paginator("list_endpoints").paginate(SortBy="Name", SortOrder="Ascending")
    found = [endpoint["EndpointName"] for page in pages for endpoint in page["Endpoints"]]
    names = [name for name in found if name in (f"{project}-staging", f"{project}-production")]
    described = [sagemaker.describe_endpoint(EndpointName=name) for name in names]
    return [Serving(item["EndpointName"], item["EndpointStatus"], item.get("FailureReason")) for item in described]


def _deployment(context: Context, settings: Settings) -> dict[str, Any] | None:
    cloudformation = context.target.client("cloudformation")
    name = f"{settings.project.name}-inference"
    try:
        stack = cloudformation.describe_stacks(StackName=name)["Stacks"][0]
    except cloudformation.exceptions.ClientError as error:
        if "does not exist" in str(error):
            return None
        raise
    outputs = {output["OutputKey"]: output["OutputValue"] for output in stack.get("Outputs", [])}
    return {
        "stack": name,
        "status": stack["StackStatus"],
        "reason": stack.get("StackStatusReason") or _why(context, name, stack["StackStatus"]),
        "model_package_arn": outputs.get("ModelPackageArn"),
        "state_machine_arn": outputs.get("StateMachineArn"),
    }


def _why(context: Context, name: str, status: str) -> str | None:
    """Return why a stack's last operation failed: once it is rolled back CloudFormation tells of it in its events only."""
    if "ROLLBACK" not in status and not status.endswith("_FAILED"):
        return None
    from lambdas.deploy_inference_workflow.stacks import Stack

    stack = Stack(context.target.client("cloudformation"), name, lambda: 0.0)
    state = stack.describe()
    return None if state is None else stack.failure_reasons(state)
