"""Two test photos that show what the workflow is for: one that it accepts, one that it sends to a person."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from scones.errors import SconesError

if TYPE_CHECKING:
    from pipelines.executions import ExecutionResult
    from scones.target import Target


@dataclass(frozen=True)
class Example:
    """A test photo.

    Attributes:
        uri: Where it is staged in S3.
        label: What it shows, according to the data set.
        source: The name it had before it was staged.
        threshold: The threshold to send with it; None leaves the deployed one.
    """

    uri: str
    label: str
    source: str
    threshold: float | None = None


def choose_examples(target: Target, execution: ExecutionResult, threshold: float) -> tuple[Example, Example]:
    """Return the photo of the test split that the model is surest of, and the one it is least sure of.

    When it is sure of every photo, the second comes with a threshold just above its confidence, so that there is something to review.

    Raises:
        SconesError: The execution has no predictions on test images.
    """
    if execution.evaluation_uri is None:
        raise SconesError("The execution has no evaluation", "Run the pipeline again: scones run")
    predictions: list[dict[str, Any]] = _json(target, f"{execution.evaluation_uri.rstrip('/')}/predictions.json")
    data_uri = _parameter(target, execution.execution_arn, "InputDataUri")
    manifest = _json(target, f"{data_uri}manifest.json")
    paths = {image["sha256"]: image["path"] for image in manifest["images"]}
    ordered = sorted(predictions, key=lambda prediction: float(prediction["confidence"]))
    if not ordered:
        raise SconesError("The execution's test split is empty", "Stage more images, then run again: scones run --data SOURCE")

    def example(prediction: dict[str, Any], sent: float | None = None) -> Example:
        return Example(f"{data_uri}{paths[prediction['sha256']]}", prediction["label"], prediction["source"], sent)

    least = float(ordered[0]["confidence"])
    raised = None if least < threshold else min(1.0, least + 1e-6)
    return example(ordered[-1]), example(ordered[0], raised)


def _parameter(target: Target, execution_arn: str, name: str) -> str:
    pages = target.client("sagemaker").get_paginator("list_pipeline_parameters_for_execution").paginate(PipelineExecutionArn=execution_arn)
    values: dict[str, str] = {parameter["Name"]: parameter["Value"] for page in pages for parameter in page["PipelineParameters"]}
    return values[name]


def _json(target: Target, uri: str) -> Any:
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return json.loads(target.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read())
