"""``scones demo``: the whole loop, as a person would go through it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from scones.options import Context, command_options, not_empty, settings_options

if TYPE_CHECKING:
    from rich.console import Console

    from pipelines.settings import Settings

#: The sample is small and drawn: the quick recipe is enough for it, and a newcomer waits.
SAMPLE_OVERRIDES = ("training.recipe.preset=quick", "training.epochs=4")


@click.command()
@click.option(
    "--data",
    callback=not_empty,
    default="sample",
    show_default=True,
    metavar="SOURCE",
    help="Images to train on: sample, cifar100, or a folder of class folders.",
)
@click.option("--dry-run", is_flag=True, help="Check the settings and the images, say what would be done, and do nothing.")
@settings_options
@command_options()
def demo(context: Context, data: str, dry_run: bool, stage: str | None, overrides: tuple[str, ...]) -> None:
    """Run the whole loop: stage images, run the pipeline, approve the model as a person would, classify two photos.

    Leaves localcloud running; `scones down` ends it. A second run takes every step from the cache that may be taken.
    """
    from scones import running
    from scones.deployment import wait_for_production
    from scones.errors import SconesError
    from scones.examples import choose_examples
    from scones.executions import document
    from scones.project import command, down_command
    from scones.registry import Registry
    from scones.report import write_report
    from scones.tracking import local_store
    from scones.views import next_command
    from scones.workflow import Workflow

    say = context.output.note
    began = time.monotonic()
    settings = running.load_settings(context, stage, (*(SAMPLE_OVERRIDES if data == "sample" else ()), *overrides), dry_run=dry_run)
    if dry_run:
        _show_plan(context, settings, data)
        return
    say(f"1. Platform and images ({data}), then the pipeline, on {context.target}")
    execution = running.run(context, settings, data)
    report = write_report(context.target, execution, context.state_dir / "reports" / execution.execution_arn.rpartition("/")[2])
    if execution.status != "Succeeded" or execution.model_package_arn is None or execution.evaluation_uri is None:
        failed = execution.failed_step
        raise SconesError(
            f"The pipeline ended {execution.status}: {failed.name + ': ' + str(failed.failure_reason) if failed else execution.failure_reason}",
            f"Report: {report.page}. " + next_command(execution),
        )

    say("2. A person approves the model; the event deploys it to production")
    registry = Registry(context.target, settings)
    approved_at = time.monotonic()
    registry.decide(registry.find(execution.model_package_arn), "Approved", "Approved by the demo")
    outputs = wait_for_production(
        context.target, settings, execution.model_package_arn, lambda status: say(f"  stack {settings.project.name}-inference: {status}")
    )

    say("3. Two test photos through the production workflow")
    examples = choose_examples(context.target, execution, settings.evaluation.confidence_threshold)
    bucket = execution.evaluation_uri.removeprefix("s3://").partition("/")[0]
    workflow = Workflow(context.target, outputs["StateMachineArn"], bucket)
    photos = [(example, classification) for example in examples for classification in workflow.classify([example.uri], example.threshold)]
    deployed_in = time.monotonic() - approved_at

    result: dict[str, Any] = {
        **document(execution),
        "target": str(context.target),
        "photos": [{**classification.document(), "label": example.label, "source": example.source} for example, classification in photos],
        "production": outputs,
        "seconds": round(time.monotonic() - began, 1),
        "seconds_from_approval_to_classification": round(deployed_in, 1),
        "report": report.page,
        "mlflow": local_store(context.state_dir).tracking_uri,
    }

    def human(console: Console) -> None:
        from scones.views import print_execution

        console.rule("summary")
        print_execution(console, execution)
        console.print(f"\nproduction {outputs['EndpointName']}, {deployed_in:.1f} s from approval to the second photo")
        for example, classification in photos:
            found = classification.result or {"decision": classification.error, "predicted_label": classification.cause, "confidence": 0.0}
            note = f" (threshold raised to {example.threshold})" if example.threshold is not None else ""
            console.print(
                f"  {example.source}: {found['decision']} as {found['predicted_label']}, confidence {found['confidence']:.3f}{note}; it is a {example.label}",
                markup=False,
            )
        console.print(f"\nreport     {report.page}", soft_wrap=True, markup=False)
        console.print(f"pictures   {report.folder}", soft_wrap=True, markup=False)
        scones = command()
        console.print(context.hint(f"MLflow     {scones} mlflow"), markup=False, soft_wrap=True)
        console.print(
            context.hint(f"look       {scones} status, {scones} models list, {scones} classify PHOTO..."), soft_wrap=True, markup=False
        )
        if context.target.endpoint_url is not None:
            console.print(f"AWS API    export AWS_ENDPOINT_URL={context.target.endpoint_url}")
            console.print(f"localcloud goes on running; end it with {down_command(context.state_dir)}", markup=False, soft_wrap=True)
        console.print(f"{time.monotonic() - began:.0f} s in all")

    context.output.result(result, human)
    wrong = [classification for _, classification in photos if classification.result is None]
    if wrong:
        raise SconesError(f"A photo could not be classified: {wrong[0].error}: {wrong[0].cause}")


def _show_plan(context: Context, settings: Settings, data: str) -> None:
    """Say what the demo would do, from what is there now: also localcloud is started by the demo only."""
    from scones import local, running
    from scones.commands.run import plan_document, print_plan
    from scones.registry import stack_outputs
    from scones.staged import check_source

    starts_localcloud = not context.aws and local.find_running(context.state_dir) is None
    makes_platform = starts_localcloud or (not context.aws and stack_outputs(context.target, settings.aws.platform_stack) is None)
    planned = None if makes_platform else running.plan(context, settings, data)
    images = None if planned is not None or data.startswith("s3://") else check_source(context, data)
    place = "localcloud, which would be started" if starts_localcloud else str(context.target)
    document = {
        "outcome": "planned",
        "target": place,
        "starts_localcloud": starts_localcloud,
        "makes_platform": makes_platform,
        "images": None if images is None else {"source": data, "counts": images.counts},
        "run": None if planned is None else plan_document(settings, *planned),
    }

    def human(console: Console) -> None:
        console.print(f"On {place}, the demo would", soft_wrap=True)
        if makes_platform:
            console.print(
                f"1. make the platform (stack {settings.aws.platform_stack}), upload the images and run the pipeline {settings.pipeline.name}:"
            )
            counts = "" if images is None else ": " + ", ".join(f"{count} {label}" for label, count in images.counts.items())
            console.print(f"   {data}{counts}", markup=False, soft_wrap=True)
        else:
            console.print("1. run the pipeline:")
        if planned is not None:
            print_plan(console, settings, *planned)
        console.print("2. approve the version that it registers, as a person would, which deploys it to production")
        console.print("3. classify two of its test photos through the production workflow")

    context.output.result(document, human)
    context.output.note("Nothing was done (--dry-run).")
