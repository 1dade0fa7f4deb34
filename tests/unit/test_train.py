"""The training job: what it writes, that it repeats and resumes exactly, and how it fails."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fit
import training
from augment import Augmentation, augmented_copies
from classifier import Classifier, logistic_regression
from failures import StepError
from features import equal_batches
from graph import write_graph
from helpers_steps import DIGEST, LABELS, TINY, paths_in, read_json, write_split, write_splits
from processes import Processes
from shards import write_shards
from tracking import Run

STEPS = Path(training.__file__).parent
ALONE = Processes(0, 1, torch.device("cpu"))


def run_script(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("SM_", "MLFLOW_"))}
    return subprocess.run(
        [sys.executable, str(STEPS / "train.py"), *arguments],
        env=clean | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("labels", [LABELS[:2], LABELS])
def test_the_artifact_holds_the_model_its_description_and_its_code_and_no_pickle(tmp_path: Path, labels: tuple[str, ...]) -> None:
    write_splits(tmp_path, labels)
    paths = paths_in(tmp_path)
    training.train(TINY, paths, Run(None))
    files = {str(path.relative_to(paths.model_dir)) for path in paths.model_dir.rglob("*") if path.is_file()}
    code = {"code/inference.py", "code/imaging.py", "code/calibration.py", "code/requirements.txt"}
    assert files == {"model.onnx", "model.json"} | code
    description: Any = read_json(paths.model_dir / "model.json")
    assert description["labels"] == sorted(labels)
    assert description["provenance"]["dataset_digest"] == DIGEST
    assert description["provenance"]["recipe"]["seed"] == TINY.seed
    assert 0.05 <= description["temperature"] <= 20
    required = (paths.model_dir / "code" / "requirements.txt").read_text().split()
    assert [re.split("[<>=]", line)[0] for line in required] == ["numpy", "onnxruntime", "pillow"]
    metrics: Any = read_json(paths.output_data_dir / "metrics.json")
    assert [epoch["epoch"] for epoch in metrics["epochs"]] == [1, 2]
    assert metrics["validation_accuracy"] > 0.9


def test_the_same_data_and_seed_give_the_same_bytes_and_another_seed_does_not(tmp_path: Path) -> None:
    write_splits(tmp_path)
    made = {}
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        paths = paths_in(tmp_path, name=name)
        training.train(dataclasses.replace(TINY, seed=seed), paths, Run(None))
        made[name] = {path.name: path.read_bytes() for path in paths.model_dir.iterdir() if path.is_file()}
    assert made["a"] == made["b"]
    assert made["a"]["model.onnx"] != made["c"]["model.onnx"]


class Interrupted(BaseException):
    """Stands for the machine being taken away."""


@pytest.mark.parametrize("during_save", [False, True])
def test_an_interrupted_training_goes_on_and_ends_with_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, during_save: bool
) -> None:
    write_splits(tmp_path)
    recipe = dataclasses.replace(TINY, epochs=3)
    whole = paths_in(tmp_path, name="whole", checkpoints=True)
    training.train(recipe, whole, Run(None))

    broken = paths_in(tmp_path, name="broken", checkpoints=True)
    original_save: Callable[..., Any] = torch.save
    saves = []

    def save(state: Any, file: Any) -> None:
        saves.append(state)
        if len(saves) == 3 and during_save:
            file.write(b"half of a checkpoint")
            raise Interrupted
        original_save(state, file)
        if len(saves) == 2 and not during_save:
            file.flush()
            raise Interrupted

    monkeypatch.setattr(torch, "save", save)
    with pytest.raises(Interrupted):
        training.train(recipe, broken, Run(None))
    monkeypatch.setattr(torch, "save", original_save)
    with caplog.at_level(logging.INFO):
        training.train(recipe, broken, Run(None))
    assert f"Resuming after epoch {2 if during_save else 1} " in caplog.text
    assert (broken.model_dir / "model.onnx").read_bytes() == (whole.model_dir / "model.onnx").read_bytes()
    epochs: Any = read_json(broken.output_data_dir / "metrics.json")["epochs"]
    assert [epoch["epoch"] for epoch in epochs] == [1, 2, 3]


@pytest.mark.parametrize("damage", ["other recipe", "not a checkpoint"])
def test_a_checkpoint_that_does_not_fit_is_not_used(tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str) -> None:
    write_splits(tmp_path)
    paths = paths_in(tmp_path, checkpoints=True)
    assert paths.checkpoint_dir is not None
    if damage == "other recipe":
        training.train(dataclasses.replace(TINY, epochs=1, seed=5), paths, Run(None))
    else:
        paths.checkpoint_dir.mkdir(parents=True)
        (paths.checkpoint_dir / fit.CHECKPOINT_NAME).write_bytes(b"junk")
    training.train(TINY, paths, Run(None))
    assert "training starts from the beginning" in caplog.text
    fresh = paths_in(tmp_path, name="fresh")
    training.train(TINY, fresh, Run(None))
    assert (paths.model_dir / "model.onnx").read_bytes() == (fresh.model_dir / "model.onnx").read_bytes()


def test_metric_definitions_read_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_splits(tmp_path)
    paths = paths_in(tmp_path)
    with caplog.at_level(logging.INFO):
        training.train(TINY, paths, Run(None))
    metrics: Any = read_json(paths.output_data_dir / "metrics.json")
    found = {
        item["Name"]: [float(match) for match in re.findall(item["Regex"], "\n".join(f"INFO train: {line}" for line in caplog.messages))]
        for item in json.loads((STEPS / "metric_definitions.json").read_text())
    }
    epochs = metrics["epochs"]
    assert found["train:loss"] == pytest.approx([epoch["train_loss"] for epoch in epochs], rel=1e-5)
    # The last one is of the exported, calibrated model.
    assert found["validation:accuracy"] == pytest.approx(
        [*(epoch["validation_accuracy"] for epoch in epochs), metrics["validation_accuracy"]], rel=1e-5
    )
    assert found["final:temperature"] == pytest.approx([metrics["temperature"]], rel=1e-5)
    assert all(values for values in found.values())


def test_an_export_that_differs_from_the_trained_model_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_splits(tmp_path)
    original = write_graph

    def wrong(stem: Any, blocks: Any, size: int, head: Any) -> bytes:
        return original(stem, blocks, size, (head[0] * np.float32(1.5), head[1]))

    monkeypatch.setattr(training, "write_graph", wrong)
    with pytest.raises(StepError, match="the exported model is not the trained one"):
        training.train(TINY, paths_in(tmp_path), Run(None))


def test_a_class_without_training_images_is_refused(tmp_path: Path) -> None:
    write_split(tmp_path, "validation", LABELS)
    write_shards([], tmp_path / "train", labels=LABELS, split="train", dataset_digest=DIGEST)
    with pytest.raises(StepError, match="the training split has no image of: blue, green, red"):
        training.train(TINY, paths_in(tmp_path), Run(None))


def test_splits_of_different_data_sets_are_refused(tmp_path: Path) -> None:
    write_split(tmp_path, "train", LABELS)
    write_split(tmp_path, "validation", LABELS[:2])
    with pytest.raises(StepError, match="not splits of one data set"):
        training.train(TINY, paths_in(tmp_path), Run(None))


def test_a_cache_that_does_not_fit_keeps_fewer_copies_or_says_what_to_do(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_splits(tmp_path, per_label=200)
    training.train(dataclasses.replace(TINY, cache_gigabytes=0.01, epochs=1), paths_in(tmp_path), Run(None))
    assert "Only 2 of 3 copies of each image fit into --cache-gigabytes 0.01" in caplog.text
    write_splits(tmp_path / "larger", per_label=500)
    with pytest.raises(StepError, match="--full-fine-tuning true"):
        training.train(dataclasses.replace(TINY, cache_gigabytes=0.01), paths_in(tmp_path / "larger"), Run(None))


def test_full_fine_tuning_changes_the_stem_too(tmp_path: Path) -> None:
    write_splits(tmp_path)
    paths = paths_in(tmp_path)
    training.train(dataclasses.replace(TINY, full_fine_tuning=True, epochs=1), paths, Run(None))
    import onnx
    from onnx import numpy_helper

    from backbone import load_backbone

    constants = {item.name: item for item in onnx.load(str(paths.model_dir / "model.onnx")).graph.initializer}
    stem = numpy_helper.to_array(constants["stem.weight"])
    assert not np.array_equal(stem, load_backbone(4).stem.weight.detach().numpy())


@pytest.mark.parametrize("full", [False, True])
def test_two_processes_train_one_model(tmp_path: Path, full: bool) -> None:
    write_splits(tmp_path)
    paths = paths_in(tmp_path)
    arguments = ["--image-size", "32", "--frozen-blocks", "1", "--blocks", "2", "--epochs", "2", "--batch-size", "8", "--copies", "2"]
    result = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(STEPS / "train.py")),
            *("--train", str(paths.train), "--validation", str(paths.validation), "--model-dir", str(paths.model_dir)),
            *("--output-data-dir", str(paths.output_data_dir), "--full-fine-tuning", str(full), *arguments),
        ],
        env={key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")} | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout
    # Only the first process reports.
    assert result.stdout.count("epoch=2;") == 1
    provenance: Any = read_json(paths.model_dir / "model.json")["provenance"]
    assert provenance["processes"] == 2


@pytest.mark.parametrize(("total", "count"), [(10, 1), (10, 3), (2, 4)])
def test_processes_share_all_examples_in_equal_parts(total: int, count: int) -> None:
    shares = [fit.share_of(total, Processes(rank, count, torch.device("cpu"))) for rank in range(count)]
    assert len({len(share) for share in shares}) == 1
    assert {index for share in shares for index in share} == set(range(total))


def test_a_wrong_hyperparameter_fails_with_its_name_in_the_failure_file(tmp_path: Path) -> None:
    result = run_script("--epochs", "many", SM_OUTPUT_DIR=str(tmp_path))
    assert result.returncode == 1
    assert (tmp_path / "failure").read_text() == "--epochs 'many': must be a whole number"
    assert "Traceback" not in result.stdout


def test_missing_data_fails_with_a_message_that_says_where(tmp_path: Path) -> None:
    folders = {f"SM_{name}": str(tmp_path / name) for name in ("CHANNEL_TRAIN", "CHANNEL_VALIDATION", "MODEL_DIR", "OUTPUT_DATA_DIR")}
    result = run_script(**folders, SM_OUTPUT_DIR=str(tmp_path))
    assert result.returncode == 1
    assert "dataset.json does not exist" in (tmp_path / "failure").read_text()
    assert "Traceback" not in result.stdout


def test_augmented_copies_depend_on_their_seeds_alone() -> None:
    random = np.random.default_rng(0)
    images = [random.integers(0, 256, (20, 30, 3), dtype=np.uint8) for _ in range(6)]
    seeds = [(0, index, 2) for index in range(6)]
    together = augmented_copies(images, 48, seeds, Augmentation(), threads=4)
    assert together.shape == (6, 48, 48, 3)
    alone = augmented_copies(images[3:4], 48, seeds[3:4], Augmentation(), threads=1)
    np.testing.assert_array_equal(together[3], alone[0])
    assert not np.array_equal(together[0], augmented_copies(images[:1], 48, [(1, 0, 2)], Augmentation(), threads=1)[0])


def test_augmentation_of_nothing_is_a_resize() -> None:
    still = Augmentation(scale=(1.0, 1.0), aspect=0, rotation=0, shift=0, brightness=0, contrast=0, saturation=0)
    gradient = np.linspace(0, 255, 32).astype(np.uint8)
    image = np.repeat(np.repeat(gradient[:, None, None], 32, axis=1), 3, axis=2)  # equal to its mirror image
    copy = augmented_copies([image], 64, [(0,)], still, threads=1)[0].astype(int)
    expected = np.linspace(0, 255, 64)[:, None, None]
    assert np.abs(copy - expected).max() < 6


def test_equal_batches_keep_the_order() -> None:
    sizes = [3, 3, 4, 3, 3, 3]
    images = [np.full((size, size, 3), number, dtype=np.uint8) for number, size in enumerate(sizes)]
    batches = list(equal_batches(images, 2))
    assert [len(batch) for batch in batches] == [2, 1, 2, 1]
    assert [int(image[0, 0, 0]) for batch in batches for image in batch] == list(range(6))


def test_logistic_regression_agrees_with_scikit_learn() -> None:
    from sklearn.linear_model import LogisticRegression

    random = np.random.default_rng(0)
    targets = random.integers(0, 3, 120)
    features = random.normal(size=(120, 5)) + np.eye(3, 5)[targets]
    weight, bias = logistic_regression(torch.tensor(features, dtype=torch.float32), torch.from_numpy(targets), 3, c=0.1)
    reference = LogisticRegression(C=0.1, tol=1e-8, max_iter=1000).fit(features, targets)
    expected = reference.predict_proba(features)
    ours = torch.softmax(torch.tensor(features, dtype=torch.float32) @ weight.T + bias, 1).numpy()
    np.testing.assert_allclose(ours, expected, atol=2e-3)


def test_the_folded_head_equals_the_head() -> None:
    torch.manual_seed(0)
    classifier = Classifier(torch.nn.Identity(), 6, 3, 0.5).eval()
    classifier.mean.copy_(torch.randn(6))
    classifier.deviation.copy_(torch.rand(6) + 0.5)
    inputs = torch.randn(4, 6, 2, 2)
    weight, bias = classifier.folded_head()
    with torch.no_grad():
        expected = classifier(inputs)
    np.testing.assert_allclose(inputs.mean((2, 3)).numpy() @ weight.T + bias, expected, atol=1e-5)


def test_the_learning_rate_rises_then_falls_to_zero() -> None:
    rates = [fit.schedule(step, 100, 0.1) for step in range(100)]
    assert rates[:10] == sorted(rates[:10])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert max(rates) <= 1.0
    assert rates[-1] < 0.001
