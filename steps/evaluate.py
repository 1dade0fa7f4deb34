"""Processing job: scores the trained artifact, and the champion's, on the test split, through the code that serves them.

Writes `evaluation.json` (SageMaker's model-quality report and, under "scones", what the quality gate and people read), `predictions.json` (each
test image with what the model said of it) and pictures.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from artifact import ARCHIVE_NAME, extract_artifact
from entry import failure_file
from failures import StepError, configure_logging, run_step
from quality import (
    Scored,
    accuracy,
    at_threshold,
    confusion,
    expected_calibration_error,
    f_score,
    mean_roc_auc,
    model_quality,
    precision_recall,
    wilson_interval,
)
from scoring import Answer, score
from shards import DatasetInfo, Sample, ShardError, read_dataset_info, read_shards
from tracking import Run, job_run

logger = logging.getLogger("evaluate")

REPORT_NAME = "evaluation.json"
PREDICTIONS_NAME = "predictions.json"
NO_CHAMPION_NAME = "none.json"


@dataclass(frozen=True)
class Arguments:
    """What the job was started with. `champion`: folder with a model.tar.gz, or with none.json when there is no champion."""

    model: Path
    test: Path
    champion: Path | None
    champion_uri: str
    output: Path
    threshold: float
    champion_tolerance: float
    job_config: Path | None


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise StepError(message)


def parse_arguments(arguments: Sequence[str]) -> Arguments:
    """Read the command line. Raises StepError for unknown or missing arguments and shares outside 0..1."""
    parser = _Parser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--model", type=Path, required=True, help="folder with the candidate's model.tar.gz")
    parser.add_argument("--test", type=Path, required=True, help="folder with the test shards")
    parser.add_argument("--champion", type=Path, help="folder with the champion's model.tar.gz, or with none.json")
    parser.add_argument("--champion-uri", default="", help="where the champion's artifact comes from, for the report")
    parser.add_argument("--output", type=Path, required=True, help="folder for evaluation.json and the pictures")
    parser.add_argument("--threshold", type=float, default=0.93, help="confidence from which an answer is accepted")
    parser.add_argument("--champion-tolerance", type=float, default=0.02, help="by how much the champion's accuracy may be missed")
    parser.add_argument("--failure-file", type=Path, help="where the reason of a failure is written")
    parser.add_argument("--job-config", type=Path, help="processingjobconfig.json, which has the job's name")
    values = vars(parser.parse_args(list(arguments)))
    del values["failure_file"]  # run_step has it
    given = Arguments(**values)
    for name, value in (("--threshold", given.threshold), ("--champion-tolerance", given.champion_tolerance)):
        if not 0 <= value <= 1:
            raise StepError(f"{name} {value}: must be between 0 and 1")
    return given


def main(arguments: Sequence[str]) -> None:
    """Evaluate, write the report and the pictures, track them."""
    given = parse_arguments(arguments)
    with job_run("Evaluate", job_config=given.job_config) as run:
        _evaluate(given, run)


def _evaluate(given: Arguments, run: Run) -> None:
    try:
        info = read_dataset_info(given.test)
        samples = list(read_shards(given.test))
    except ShardError as error:
        raise StepError(str(error)) from error
    if not samples:
        raise StepError(f"{given.test}: the test split has no image; nothing can be measured")
    scored, answers = score_artifact(given.model, samples, info)
    figures = summary(scored, answers, given.threshold)
    champion = _champion(given, samples, info)
    # Without a champion there is no floor.
    floor = round(max(0.0, champion["accuracy"] - given.champion_tolerance), 12) if champion else 0.0
    report = model_quality(scored) | {
        "version": 1,
        "scones": figures
        | {
            "dataset_digest": info.dataset_digest,
            "champion": champion,
            "champion_tolerance": given.champion_tolerance,
            "accuracy_floor_from_champion": floor,
        },
    }
    given.output.mkdir(parents=True, exist_ok=True)
    path = given.output / REPORT_NAME
    path.write_text(json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    predictions = given.output / PREDICTIONS_NAME
    predictions.write_text(
        json.dumps(_predictions(scored, samples), indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8"
    )
    from pictures import Example, draw_all

    files = draw_all(scored, [Example(sample.image, sample.source) for sample in samples], given.threshold, given.output)
    _log(figures, champion, floor)
    run.log_dataset("test", info.dataset_digest, str(given.test))
    run.log_params({"threshold": given.threshold, "champion_tolerance": given.champion_tolerance, "champion": given.champion_uri or "none"})
    run.log_metrics({f"test_{key}": value for key, value in figures.items() if isinstance(value, int | float)})
    for file in [path, predictions, *files]:
        run.log_artifact(file)


def score_artifact(folder: Path, samples: Sequence[Sample], info: DatasetInfo) -> tuple[Scored, list[Answer]]:
    """Score the model.tar.gz in `folder` on the samples. Raises StepError when it cannot be unpacked, loaded or fed.

    Probabilities are brought into the order of the data set's labels; a label that the model does not know has probability 0, a label that
    only the model knows comes after the others.
    """
    with tempfile.TemporaryDirectory(prefix="artifact-") as scratch:
        answers = score(extract_artifact(folder, Path(scratch)), str(folder / ARCHIVE_NAME), (sample.image for sample in samples))
    model_labels = answers[0].labels
    labels = (*info.labels, *(label for label in model_labels if label not in info.labels))
    probabilities = np.zeros((len(answers), len(labels)))
    probabilities[:, [labels.index(label) for label in model_labels]] = [answer.inferences for answer in answers]
    targets = np.array([labels.index(sample.label) for sample in samples], dtype=np.int64)
    return Scored(labels, probabilities, targets), answers


def summary(scored: Scored, answers: Sequence[Answer], threshold: float) -> dict[str, Any]:
    """The figures people and the quality gate read. Shares are 0..1; a figure that cannot be computed is null."""
    coverage, accepted_accuracy = at_threshold(scored, threshold)
    matrix = confusion(scored)
    precision, recall = precision_recall(matrix)
    f1 = f_score(precision, recall, 1.0)
    milliseconds = np.array([answer.milliseconds for answer in answers])
    return {
        "accuracy": accuracy(scored),
        "confidence_interval": list(wilson_interval(int(scored.correct.sum()), len(scored.targets))),
        "test_images": len(scored.targets),
        "labels": list(scored.labels),
        "per_class": {
            label: {
                "precision": float(precision[index]),
                "recall": float(recall[index]),
                "f1": float(f1[index]),
                "test_images": int(matrix[index].sum()),
            }
            for index, label in enumerate(scored.labels)
        },
        "confusion_matrix": matrix.tolist(),
        "roc_auc": mean_roc_auc(scored),
        "threshold": threshold,
        "coverage_at_threshold": coverage,
        "accuracy_at_threshold": accepted_accuracy,
        "expected_calibration_error": expected_calibration_error(scored),
        "latency_ms": {"p50": float(np.percentile(milliseconds, 50)), "p99": float(np.percentile(milliseconds, 99))},
    }


def _predictions(scored: Scored, samples: Sequence[Sample]) -> list[dict[str, Any]]:
    """Each test image with what the model said of it, in the order of the shards."""
    return [
        {
            "sha256": sample.sha256,
            "label": sample.label,
            "source": sample.source,
            "predicted_label": scored.labels[int(row.argmax())],
            "confidence": float(row.max()),
            "inferences": row.tolist(),
        }
        for sample, row in zip(samples, scored.probabilities, strict=True)
    ]


def _champion(given: Arguments, samples: Sequence[Sample], info: DatasetInfo) -> dict[str, Any] | None:
    if given.champion is None or (given.champion / NO_CHAMPION_NAME).is_file():
        return None
    if not (given.champion / ARCHIVE_NAME).is_file():
        raise StepError(f"{given.champion} holds neither {ARCHIVE_NAME} nor {NO_CHAMPION_NAME}: the champion's address is wrong")
    try:
        scored, answers = score_artifact(given.champion, samples, info)
    except StepError as error:
        raise StepError(f"the champion {given.champion_uri} cannot be compared: {error}") from error
    unknown = [label for label in info.labels if label not in answers[0].labels]
    if unknown:
        logger.warning("The champion does not know %s; its images of them count as mistakes", ", ".join(unknown))
    return {"model_data": given.champion_uri or str(given.champion)} | summary(scored, answers, given.threshold)


def _log(figures: dict[str, Any], champion: dict[str, Any] | None, floor: float) -> None:
    low, high = figures["confidence_interval"]
    accepted = figures["accuracy_at_threshold"]
    logger.info(
        "accuracy %.4f (95 %% interval %.4f to %.4f) on %d test images; at confidence %.2f: coverage %.4f, accuracy %s; %.1f ms per image (p50)",
        figures["accuracy"],
        low,
        high,
        figures["test_images"],
        figures["threshold"],
        figures["coverage_at_threshold"],
        "undefined" if accepted is None else f"{accepted:.4f}",
        figures["latency_ms"]["p50"],
    )
    if champion:
        logger.info("champion %s: accuracy %.4f, so at least %.4f is asked for", champion["model_data"], champion["accuracy"], floor)


if __name__ == "__main__":
    configure_logging()
    sys.exit(run_step(lambda: main(sys.argv[1:]), failure_file(sys.argv[1:])))
