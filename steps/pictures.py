"""The pictures of an evaluation, as PNG files. matplotlib is imported when the first is drawn."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from quality import Scored, calibration_bins, confusion, expected_calibration_error, roc_auc, roc_curve

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_INK, _RIGHT, _WRONG, _PALE = "#1f2933", "#2364aa", "#d1495b", "#c9d6df"
_SHEET_COLUMNS, _SHEET_IMAGES = 6, 24


@dataclass(frozen=True)
class Example:
    """One scored test image, for the sheet."""

    image: bytes
    source: str


def draw_all(scored: Scored, examples: Sequence[Example], threshold: float, directory: Path) -> list[Path]:
    """Draw confusion matrix, reliability diagram, ROC curves, coverage against accuracy, and the sheet of worst mistakes; return the files."""
    drawers: dict[str, Callable[[Figure], None]] = {
        "confusion_matrix": lambda figure: _draw_confusion(figure.subplots(), scored),
        "reliability_diagram": lambda figure: _draw_reliability(figure.subplots(), scored),
        "roc_curves": lambda figure: _draw_roc(figure.subplots(), scored),
        "coverage_accuracy": lambda figure: _draw_coverage(figure.subplots(), scored, threshold),
    }
    files = []
    for name, draw in drawers.items():
        figure = _figure(5.0, 4.2)
        draw(figure)
        files.append(_saved(figure, directory / f"{name}.png"))
    figure = _figure(9.0, 1.0 + 1.75 * -(-min(len(examples), _SHEET_IMAGES) // _SHEET_COLUMNS))
    _draw_sheet(figure, scored, examples)
    files.append(_saved(figure, directory / "worst_mistakes.png"))
    return files


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=100, layout="constrained")


def _saved(figure: Figure, path: Path) -> Path:
    figure.savefig(path, format="png", metadata={"Software": None})
    return path


def _draw_confusion(axes: Axes, scored: Scored) -> None:
    matrix = confusion(scored)
    shares = matrix / np.maximum(1, matrix.sum(axis=1, keepdims=True))
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(matrix.shape):
        colour = "white" if shares[row, column] > 0.5 else _INK
        axes.text(column, row, f"{matrix[row, column]}\n{shares[row, column]:.1%}", ha="center", va="center", color=colour, fontsize=9)
    ticks = range(len(scored.labels))
    axes.set_xticks(ticks, scored.labels, rotation=30 if len(scored.labels) > 3 else 0)
    axes.set_yticks(ticks, scored.labels)
    axes.set(xlabel="predicted", ylabel="true", title="Confusion matrix")


def _draw_reliability(axes: Axes, scored: Scored) -> None:
    bins = calibration_bins(scored)
    axes.plot([0, 1], [0, 1], linestyle="--", color=_PALE)
    axes.bar(
        [item.low for item in bins],
        [item.accuracy for item in bins],
        width=[item.high - item.low for item in bins],
        align="edge",
        color=_PALE,
        edgecolor=_INK,
    )
    axes.plot([item.mean_confidence for item in bins], [item.accuracy for item in bins], "o", color=_RIGHT)
    for item in bins:
        axes.annotate(
            f"n={item.count}", (item.mean_confidence, item.accuracy), textcoords="offset points", xytext=(0, 6), ha="center", fontsize=7
        )
    axes.set(xlim=(0, 1), ylim=(0, 1.1), xlabel="confidence", ylabel="accuracy")
    axes.set_title(f"Reliability (expected calibration error {expected_calibration_error(scored):.3f})")


def _draw_roc(axes: Axes, scored: Scored) -> None:
    axes.plot([0, 1], [0, 1], linestyle="--", color=_PALE)
    for index, label in enumerate(scored.labels):
        positive, scores = scored.targets == index, scored.probabilities[:, index]
        area = roc_auc(positive, scores)
        if area is not None:
            false, true, _ = roc_curve(positive, scores)
            axes.plot(false, true, label=f"{label} (AUC {area:.3f})")
    axes.legend(loc="lower right", fontsize=8)
    axes.set(xlabel="false positive rate", ylabel="true positive rate", title="ROC, each class against the rest")


def _draw_coverage(axes: Axes, scored: Scored, threshold: float) -> None:
    order = np.argsort(-scored.confidence, kind="stable")
    counts = np.arange(1, len(order) + 1)
    axes.plot(counts / len(order), np.cumsum(scored.correct[order]) / counts, color=_RIGHT)
    coverage = float((scored.confidence >= threshold).mean())
    axes.axvline(coverage, linestyle="--", color=_WRONG, label=f"threshold {threshold:g}: coverage {coverage:.1%}")
    axes.legend(loc="lower left", fontsize=8)
    axes.set(
        xlim=(0, 1.02), xlabel="coverage: share accepted, most confident first", ylabel="accuracy of those", title="Coverage and accuracy"
    )


def _draw_sheet(figure: Figure, scored: Scored, examples: Sequence[Example]) -> None:
    """Mistakes, the most confident first; where there are fewer than fit, the least confident right answers fill up."""
    rank = np.where(scored.correct, -scored.confidence, 1 + scored.confidence)
    chosen = np.argsort(-rank, kind="stable")[:_SHEET_IMAGES]
    mistakes = int((~scored.correct).sum())
    figure.suptitle(
        f"{mistakes} mistakes in {len(examples)} test images, most confident first; then the least confident right answers", fontsize=9
    )
    rows = -(-len(chosen) // _SHEET_COLUMNS)
    grid = np.atleast_2d(figure.subplots(rows, _SHEET_COLUMNS, squeeze=False))
    for axes in grid.flat:
        axes.axis("off")
    for axes, index in zip(grid.flat, chosen, strict=False):
        with Image.open(io.BytesIO(examples[index].image)) as image:
            axes.imshow(np.asarray(image.convert("RGB")))
        right = bool(scored.correct[index])
        true, predicted = scored.labels[scored.targets[index]], scored.labels[scored.predicted[index]]
        text = f"{predicted} {scored.confidence[index]:.2f}" + ("" if right else f"\ntrue: {true}")
        axes.set_title(f"{text}\n{examples[index].source[-26:]}", fontsize=6.5, color=_INK if right else _WRONG)
