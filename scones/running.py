"""Running the pipeline with progress, for `scones run` and the demo."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from scones.errors import ExitCode, SconesError
from scones.following import Follower
from scones.settings import load
from scones.staged import stage_source
from scones.tracking import local_store

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipelines.executions import ExecutionResult
    from pipelines.run import RunPlan
    from pipelines.settings import Settings
    from scones.options import Context
    from staging import StagedDataset


def load_settings(context: Context, stage: str | None, overrides: Sequence[str], *, dry_run: bool = False) -> Settings:
    """Load the settings of a run; on localcloud experiments go to the local store, which is made, unless something else is set."""
    if not context.aws and not os.environ.get("MLFLOW_TRACKING_URI"):
        store = local_store(context.state_dir)
        if not dry_run:
            store.prepare()
        os.environ["MLFLOW_TRACKING_URI"] = store.tracking_uri
    return load(context, stage, overrides).settings


def run(context: Context, settings: Settings, source: str | None, *, wait: bool = True, only_if_changed: bool = False) -> ExecutionResult:
    """Stage *source* (unless it is an S3 URI of staged images, or None: those of the settings or of the newest execution), then run the pipeline.

    With *only_if_changed* the result may be an earlier execution, which has made the same model.

    Raises:
        SconesError: Interrupted while waiting; the message says how to follow or stop the execution, which goes on.
    """
    from pipelines.run import run_pipeline
    from scones.platform import ensure_platform

    if source is None or source.startswith("s3://"):
        uri = source
        ensure_platform(context, settings)
    else:
        uri = stage_source(context, settings, source).uri
    with Follower() as follower:
        try:
            return run_pipeline(
                settings,
                context.target.session,
                input_data_uri=uri,
                wait=wait,
                only_if_changed=only_if_changed,
                on_event=follower.on_event,
                cache_dir=context.state_dir / "definitions",
            )
        except KeyboardInterrupt:
            if follower.execution_arn is None:
                raise
            name = follower.execution_arn.rpartition("/")[2]
            raise SconesError("Interrupted; the execution goes on", f"Follow it: scones status {name}", ExitCode.INTERRUPTED) from None


def plan(
    context: Context, settings: Settings, source: str | None, *, only_if_changed: bool = False
) -> tuple[RunPlan, StagedDataset | None]:
    """Return what `run` would do, and what it would stage; changes nothing.

    Raises:
        PipelinesError, StagingError, SconesError: The run would not start; the message says why.
    """
    from pipelines.run import plan_run
    from scones.platform import existing_platform

    staged = None
    uri = source
    if source is None or source.startswith("s3://"):
        existing_platform(context, settings)
    else:
        staged = stage_source(context, settings, source, dry_run=True)
        uri = staged.uri
    planned = plan_run(
        settings,
        context.target.session,
        input_data_uri=uri,
        is_staged=staged is None,
        only_if_changed=only_if_changed,
        cache_dir=context.state_dir / "definitions",
    )
    return planned, staged
