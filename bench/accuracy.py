"""How good a model the steps make of real photos: preprocess, train and evaluate, as the jobs run them, with several seeds.

    python -m bench.accuracy --data DIR --seeds 0 1 2 [--output FILE] [--epochs 10 ...]

DIR holds `train/<class>/` and `test/<class>/`. Each seed splits off other validation images and trains anew; the test images stay the same.
Arguments after `--` go to train.py. Prints a table and JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean

from rich.console import Console
from rich.table import Table

from bench.measure import Figure, at_least, at_most

_STEPS = Path(__file__).resolve().parent.parent / "steps"


@dataclass(frozen=True, slots=True)
class Seed:
    """One seed's result. `training_*_seconds`: of the training job as a whole, imports and export included."""

    seed: int
    accuracy: float
    coverage_at_threshold: float
    accuracy_at_threshold: float
    expected_calibration_error: float
    latency_p50_ms: float
    training_seconds: float
    training_cpu_seconds: float
    test_images: int


def measure(data: Path, seed: int, training_arguments: Sequence[str] = ()) -> Seed:
    """Make a model with this seed and score it on the data's test images."""
    with tempfile.TemporaryDirectory(prefix="bench-accuracy-") as scratch:
        root = Path(scratch)
        splits = [part for split in ("train", "validation", "test") for part in (f"--{split}", str(root / split))]
        _run("preprocess.py", "--input", str(data), *splits, "--report", str(root / "report"), "--seed", str(seed))
        began, used = time.perf_counter(), _children_seconds()
        _run(
            "train.py",
            *("--train", str(root / "train"), "--validation", str(root / "validation"), "--seed", str(seed)),
            *("--model-dir", str(root / "model"), "--output-data-dir", str(root / "output")),
            *training_arguments,
        )
        seconds, cpu_seconds = time.perf_counter() - began, _children_seconds() - used
        with tarfile.open(root / "model.tar.gz", "w:gz") as archive:
            archive.add(root / "model", arcname=".")
        _run("evaluate.py", "--model", str(root), "--test", str(root / "test"), "--output", str(root / "evaluation"))
        figures = json.loads((root / "evaluation" / "evaluation.json").read_text(encoding="utf-8"))["scones"]
    return Seed(
        seed,
        figures["accuracy"],
        figures["coverage_at_threshold"],
        figures["accuracy_at_threshold"] or 0.0,
        figures["expected_calibration_error"],
        figures["latency_ms"]["p50"],
        seconds,
        cpu_seconds,
        figures["test_images"],
    )


def figures_of(results: Sequence[Seed]) -> list[Figure]:
    """The means over the seeds against their targets."""
    return [
        at_least("test accuracy", mean(item.accuracy for item in results), "", 0.97),
        at_least("coverage at confidence >= 0.93", mean(item.coverage_at_threshold for item in results), "", 0.90),
        at_least("accuracy at confidence >= 0.93", mean(item.accuracy_at_threshold for item in results), "", 0.985),
        at_most("training", mean(item.training_seconds for item in results), "s", 60),
    ]


def main() -> int:
    """Measure and report; the exit code is 0 also where a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train/<class>/ and test/<class>/")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--output", type=Path, help="write the JSON to this file instead of standard output")
    parser.add_argument("training", nargs="*", help="after --: arguments for train.py")
    given = parser.parse_args()
    results = [measure(given.data, seed, given.training) for seed in given.seeds]
    figures = figures_of(results)
    _show(results, figures)
    text = json.dumps(
        {"cpus": os.cpu_count(), "seeds": [asdict(item) for item in results], "figures": [asdict(item) for item in figures]}, indent=2
    )
    if given.output is not None:
        given.output.write_text(text + "\n", encoding="utf-8")
    else:
        sys.stdout.write(text + "\n")
    return 0


def _run(script: str, *arguments: str) -> None:
    result = subprocess.run(
        [sys.executable, str(_STEPS / script), *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if result.returncode:
        raise SystemExit(f"{script} failed:\n{result.stdout}")


def _children_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _show(results: Sequence[Seed], figures: Sequence[Figure]) -> None:
    console = Console(stderr=True, width=140)
    table = Table(title=f"{results[0].test_images} test images, {os.cpu_count()} CPUs")
    for heading in ("seed", "accuracy", "coverage >= 0.93", "accuracy >= 0.93", "calibration error", "ms/image", "training s", "CPU s"):
        table.add_column(heading, justify="right")
    for item in results:
        table.add_row(
            str(item.seed),
            f"{item.accuracy:.4f}",
            f"{item.coverage_at_threshold:.4f}",
            f"{item.accuracy_at_threshold:.4f}",
            f"{item.expected_calibration_error:.4f}",
            f"{item.latency_p50_ms:.1f}",
            f"{item.training_seconds:.1f}",
            f"{item.training_cpu_seconds:.1f}",
        )
    console.print(table)
    for figure in figures:
        console.print(f"{figure.name}: {figure.value:.4g} {figure.unit} (target {figure.target}): {'ok' if figure.reached else 'missed'}")


if __name__ == "__main__":
    sys.exit(main())
