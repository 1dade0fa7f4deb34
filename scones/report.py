"""One page about a run: its graph, figures and pictures, beside the files they come from."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scones import graph
from scones.views import status_words

if TYPE_CHECKING:
    from pipelines.executions import ExecutionResult
    from scones.target import Target

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<style>body{{font:15px system-ui,sans-serif;max-width:1180px;margin:2em auto;padding:0 1em;color:#222}}
table{{border-collapse:collapse}}td,th{{padding:.25em .9em;text-align:left;border-bottom:1px solid #ddd}}
img{{max-width:100%;border:1px solid #ddd;margin:.4em 0}}figure{{margin:1em 0}}svg{{max-width:100%;height:auto}}</style></head>
<body><h1>{title}</h1><p>{status}</p>{graph}
<h2>Steps</h2>{steps}<h2>Figures</h2>{figures}<h2>Pictures</h2>{pictures}</body></html>
"""


@dataclass(frozen=True)
class Report:
    """Where a report lies.

    Attributes:
        folder: Everything in it.
        page: The page to open.
    """

    folder: Path
    page: Path


def write_report(target: Target, execution: ExecutionResult, folder: Path) -> Report:
    """Download an execution's evaluation (figures and pictures) into *folder* and write a page about it there.

    The page only refers to files beside it. Raises what boto3 raises when S3 or SageMaker refuse.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = [] if execution.evaluation_uri is None else download(target, execution.evaluation_uri, folder)
    described = target.client("sagemaker").describe_pipeline_definition_for_execution(PipelineExecutionArn=execution.execution_arn)
    svg = graph.draw(json.loads(described["PipelineDefinition"]), {step.name: status_words(step) for step in execution.steps})
    (folder / "pipeline.svg").write_text(svg, encoding="utf-8")
    steps = _table(
        ("step", "status", "seconds"),
        ((s.display_name, status_words(s), "" if s.seconds is None else f"{s.seconds:.1f}") for s in execution.steps),
    )
    page = folder / "report.html"
    page.write_text(
        _PAGE.format(
            title=f"Run {html.escape(execution.execution_arn.rpartition('/')[2])}",
            status=html.escape(f"{execution.status} {execution.failure_reason or ''}"),
            graph=svg,
            steps=steps,
            figures=_figures(folder / "evaluation.json"),
            pictures="".join(_picture(path) for path in files if path.suffix == ".png"),
        ),
        encoding="utf-8",
    )
    return Report(folder, page)


def download(target: Target, uri: str, folder: Path) -> list[Path]:
    """Download every object below an S3 prefix into *folder* and return the files, sorted."""
    s3 = target.client("s3")
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    prefix = prefix.rstrip("/") + "/"
    files = []
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        for item in page.get("Contents", []):
            path = folder / item["Key"].removeprefix(prefix)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(s3.get_object(Bucket=bucket, Key=item["Key"])["Body"].read())
            files.append(path)
    return sorted(files)


def _figures(evaluation: Path) -> str:
    if not evaluation.exists():
        return "<p>The run ended before its model was evaluated.</p>"
    figures: dict[str, Any] = json.loads(evaluation.read_text(encoding="utf-8")).get("scones", {})
    return _table(("figure", "value"), ((name, _words(value)) for name, value in figures.items()))


def _words(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value)


def _table(headings: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = "".join(f"<th>{html.escape(heading)}</th>" for heading in headings)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def _picture(path: Path) -> str:
    caption = html.escape(path.stem.replace("_", " "))
    return f'<figure><img src="{html.escape(path.name)}" alt="{caption}"><figcaption>{caption}</figcaption></figure>'
