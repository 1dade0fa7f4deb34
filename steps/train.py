"""Training job: fine-tunes an image classifier on the shards of `preprocess.py` and writes the artifact that `inference.py` serves.

Reads SM_CHANNEL_TRAIN and SM_CHANNEL_VALIDATION, hyperparameters as `--key value` (`recipe.py` has them all); writes the model to SM_MODEL_DIR,
`metrics.json` to SM_OUTPUT_DATA_DIR and, on failure, the reason to SM_OUTPUT_DIR/failure. Runs in one process, or in several under torchrun.
"""

from __future__ import annotations

import copy
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from artifact import package_versions, write_artifact
from calibration import cross_entropy, fit_temperature, softmax
from dataset import LabelledImages, check_trainable, read_images
from failures import StepError, configure_logging, run_step
from recipe import Recipe, TrainingPaths, failure_directory, parse_training_arguments
from tracking import Run, job_run

logger = logging.getLogger("train")

# Largest difference in probability between PyTorch and onnxruntime that is still rounding (measured: 2e-6).
PARITY_TOLERANCE = 1e-4
_PARITY_IMAGES = 32


def main(arguments: Sequence[str]) -> None:
    """Read the arguments and train."""
    recipe, paths = parse_training_arguments(arguments, os.environ)
    # torch is imported here: a wrong argument is reported at once.
    from processes import joined_processes

    with joined_processes() as processes:
        if not processes.leads:
            _train(recipe, paths, processes, Run(None))
            return
        with job_run("Train") as run:
            _train(recipe, paths, processes, run)


def _train(recipe: Recipe, paths: TrainingPaths, processes: Any, run: Run) -> None:
    import torch

    from backbone import WEIGHTS_SHA256, load_backbone
    from fit import EpochMetrics, fit
    from graph import write_graph

    began = time.perf_counter()
    train = read_images(paths.train, recipe.image_size)
    validation = read_images(paths.validation, recipe.image_size)
    check_trainable(train, validation)
    logger.info("%d training and %d validation images of %s", len(train), len(validation), ", ".join(train.labels))
    run.log_params(recipe.as_dict())
    run.log_dataset("train", train.dataset_digest, str(paths.train))
    torch.manual_seed(recipe.seed)
    backbone = load_backbone(recipe.blocks)
    classifier, source, validate = _prepare(recipe, train, validation, backbone, processes)
    logger.info("Prepared in %.1f s", time.perf_counter() - began)

    def report(metrics: EpochMetrics) -> None:
        logger.info("%s", metrics.line())
        run.log_metrics({key: value for key, value in asdict(metrics).items() if key != "epoch"}, step=metrics.epoch)

    average, history = fit(
        classifier,
        source,
        validate,
        recipe,
        processes,
        checkpoint_dir=paths.checkpoint_dir,
        data_digest=f"{train.dataset_digest}/{len(train)}/{len(validation)}",
        on_epoch=report,
    )
    if not processes.leads:
        return
    stem, blocks = _whole_network(recipe, backbone, average.cpu())
    graph = write_graph(stem, blocks, recipe.image_size, average.folded_head())
    logits = _exported_logits(graph, validation)
    _check_parity(stem, blocks, average, recipe, validation, logits)
    temperature = fit_temperature(logits, validation.targets)
    summary = {
        "validation_accuracy": float((logits.argmax(1) == validation.targets).mean()),
        "validation_loss": cross_entropy(logits, validation.targets, temperature),
        "temperature": temperature,
        "training_seconds": time.perf_counter() - began,
    }
    description = {
        "version": 1,
        "labels": list(train.labels),
        "image_size": recipe.image_size,
        "input_limit": recipe.image_size,
        "normalisation": {"mean": 127.0, "scale": 128.0, "where": "inside model.onnx"},
        "temperature": temperature,
        "views": ["original", "mirrored"],
        "provenance": {
            "dataset_digest": train.dataset_digest,
            "training_images": len(train),
            "validation_images": len(validation),
            "validation_accuracy": summary["validation_accuracy"],
            "recipe": recipe.as_dict(),
            "pretrained_weights_sha256": WEIGHTS_SHA256,
            "processes": processes.count,
            "packages": package_versions(),
        },
    }
    write_artifact(paths.model_dir, graph, description)
    paths.output_data_dir.mkdir(parents=True, exist_ok=True)
    metrics_file = paths.output_data_dir / "metrics.json"
    metrics_file.write_text(json.dumps({"epochs": [asdict(item) for item in history], **summary}, indent=2) + "\n", encoding="utf-8")
    logger.info("final; %s", " ".join(f"{key}={value:.6g};" for key, value in summary.items()))
    run.log_metrics({f"final_{key}": value for key, value in summary.items()})
    run.log_artifact(metrics_file)
    run.log_artifact(paths.model_dir / "model.json")


def _prepare(recipe: Recipe, train: LabelledImages, validation: LabelledImages, backbone: Any, processes: Any) -> tuple[Any, Any, Callable[..., Any]]:
    """The classifier with its head started, its training examples, and how it is validated."""
    import torch

    from backbone import Normalise, resize
    from classifier import Classifier, in_batches
    from features import Trunk, cached_features, equal_batches, features_of
    from fit import CachedSource, ImageSource, share_of

    own = share_of(len(train), processes)
    images, targets = [train.images[index] for index in own], torch.from_numpy(train.targets[own])
    device = processes.device
    source: CachedSource | ImageSource
    if recipe.full_fine_tuning:
        body = torch.nn.Sequential(Normalise(), copy.deepcopy(backbone))
        classifier = Classifier(body, backbone.channels, len(train.labels), recipe.dropout).to(device)
        source = ImageSource(images, own, targets, recipe)

        def resized(pictures: Sequence[Any]) -> torch.Tensor:
            return torch.cat([resize(torch.from_numpy(batch), recipe.image_size) for batch in equal_batches(pictures, 64)])

        starting = [resized(images)]
        views = [resized(validation.images)] if processes.leads else []
        views += [view.flip(3) for view in views]
    else:
        body = torch.nn.Sequential(*copy.deepcopy(list(backbone.blocks)[recipe.frozen_blocks :]))
        classifier = Classifier(body, backbone.channels, len(train.labels), recipe.dropout).to(device)
        trunk = Trunk(backbone, recipe, device)
        features = cached_features(trunk, images, own, recipe)
        source = CachedSource(features, targets)
        starting = list(features[:2])
        views = [features_of(trunk, validation.images, mirrored=mirrored) for mirrored in (False, True)] if processes.leads else []
    classifier.eval()
    pooled = torch.cat([in_batches(lambda part: classifier.pooled(_ready(part, device)).cpu(), view) for view in starting])
    gathered = processes.gathered(pooled.to(device)).cpu()
    classifier.start_head(gathered, processes.gathered(targets.repeat(len(starting)).to(device)).cpu())

    def validate(model: Classifier) -> tuple[float, float]:
        logits = sum(in_batches(lambda part: model(_ready(part, device)).cpu(), view) for view in views) / len(views)
        assert isinstance(logits, torch.Tensor)
        scores = logits.numpy()
        return cross_entropy(scores, validation.targets), float((scores.argmax(1) == validation.targets).mean())

    return classifier, source, validate


def _ready(inputs: Any, device: Any) -> Any:
    import torch

    return inputs.to(device).contiguous(memory_format=torch.channels_last)


def _whole_network(recipe: Recipe, backbone: Any, average: Any) -> tuple[Any, list[Any]]:
    """Stem and all blocks of the trained network."""
    if recipe.full_fine_tuning:
        trained = average.body[1]
        return trained.stem, list(trained.blocks)
    return backbone.stem, [*list(backbone.blocks)[: recipe.frozen_blocks], *average.body]


def _exported_logits(graph: bytes, data: LabelledImages) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Scores [N, classes] of the exported network as it is served: the mean over image and mirror image."""
    import onnxruntime
    import torch

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    return np.stack([session.run(None, {"images": np.stack([image, image[:, ::-1]])})[0].mean(axis=0) for image in data.images])


def _check_parity(stem: Any, blocks: Sequence[Any], average: Any, recipe: Recipe, data: LabelledImages, exported: Any) -> None:
    """Raise StepError when the exported graph does not compute what PyTorch computes."""
    import torch

    from backbone import Normalise, resize

    network = torch.nn.Sequential(Normalise(), stem, *blocks).eval()
    checked = list(range(0, len(data), max(1, len(data) // _PARITY_IMAGES)))[:_PARITY_IMAGES]
    scores = []
    with torch.no_grad():
        for index in checked:
            image = resize(torch.from_numpy(data.images[index])[None], recipe.image_size)
            pooled = network(torch.cat([image, image.flip(3)])).mean((2, 3))
            scores.append(average.head((pooled - average.mean) / average.deviation).mean(0))
    difference = float(np.abs(softmax(torch.stack(scores).numpy()) - softmax(exported[checked])).max())
    logger.info("onnx against torch; max_probability_difference=%.3g;", difference)
    if not difference <= PARITY_TOLERANCE:
        raise StepError(f"the exported model differs from the trained one: probabilities by up to {difference:.3g} (at most {PARITY_TOLERANCE})")


if __name__ == "__main__":
    configure_logging()
    output_dir: Path | None = failure_directory(sys.argv[1:], os.environ)
    sys.exit(run_step(lambda: main(sys.argv[1:]), output_dir / "failure" if output_dir else None))
