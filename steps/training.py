"""What the training job does: data, features, fitting, temperature, export. `train.py` is its command line."""

from __future__ import annotations

import copy
import json
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict

import numpy as np
import numpy.typing as npt
import onnxruntime
import torch
from torch import Tensor, nn

from artifact import package_versions, write_artifact
from backbone import MEAN, SCALE, WEIGHTS_SHA256, Backbone, Convolution, Normalise, load_backbone, resize
from calibration import cross_entropy, fit_temperature, softmax
from classifier import Classifier
from dataset import LabelledImages, check_trainable, read_images
from failures import StepError
from features import Trunk, cached_features, equal_batches, features_of
from fit import CachedSource, EpochMetrics, ImageSource, Source, fit, share_of
from graph import IMAGES, LOGITS, write_graph
from processes import Processes, joined_processes
from recipe import Recipe, TrainingPaths
from tracking import Run

logger = logging.getLogger("train")

Validation = Callable[[Classifier], tuple[float, float]]

# Largest difference in probability between PyTorch and onnxruntime that is still rounding (measured: 4e-7).
PARITY_TOLERANCE = 1e-4
_PARITY_IMAGES = 32
_BATCH = 128  # images at a time where nothing is learnt from them


def train(recipe: Recipe, paths: TrainingPaths, run: Run) -> None:
    """Train and write the artifact. Raises StepError when the data cannot be trained on or the exported model is not the trained one."""
    began = time.perf_counter()
    training, validation = read_images(paths.train, recipe.image_size), read_images(paths.validation, recipe.image_size)
    check_trainable(training, validation)
    logger.info("%d training and %d validation images of %s", len(training), len(validation), ", ".join(training.labels))
    run.log_params(recipe.as_dict())
    run.log_dataset("train", training.dataset_digest, str(paths.train))

    def report(metrics: EpochMetrics) -> None:
        logger.info("%s", metrics.line())
        run.log_metrics({key: value for key, value in asdict(metrics).items() if key != "epoch"}, step=metrics.epoch)

    backbone = load_backbone(recipe.blocks)
    with joined_processes() as processes:
        torch.manual_seed(recipe.seed)
        prepare = _prepare_images if recipe.full_fine_tuning else _prepare_features
        classifier, source, validate = prepare(recipe, training, validation, backbone, processes)
        logger.info("Prepared in %.1f s", time.perf_counter() - began)
        average, history = fit(
            classifier,
            source,
            validate,
            recipe,
            processes,
            checkpoint_dir=paths.checkpoint_dir,
            data_digest=f"{training.dataset_digest}/{len(training)}/{len(validation)}",
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
    # No times or names of jobs in it: equal data and recipe give an equal artifact.
    description = {
        "version": 1,
        "labels": list(training.labels),
        "image_size": recipe.image_size,
        "input_limit": recipe.image_size,
        "normalisation": {"mean": MEAN, "scale": SCALE, "where": "inside model.onnx"},
        "views": ["original", "mirrored"],
        "temperature": temperature,
        "provenance": {
            "dataset_digest": training.dataset_digest,
            "training_images": len(training),
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


def _prepare_features(
    recipe: Recipe, training: LabelledImages, validation: LabelledImages, backbone: Backbone, processes: Processes
) -> tuple[Classifier, Source, Validation]:
    """The classifier of the tail with its head started, the cached features of its examples, and how it is validated."""
    own = share_of(len(training), processes)
    targets = torch.from_numpy(training.targets[own])
    tail = nn.Sequential(*copy.deepcopy(list(backbone.blocks)[recipe.frozen_blocks :]))
    classifier = Classifier(tail, backbone.channels, len(training.labels), recipe.dropout).to(processes.device)
    trunk = Trunk(backbone, recipe, processes.device)
    features = cached_features(trunk, [training.images[index] for index in own], own, recipe)
    views = [features_of(trunk, validation.images, mirrored=mirrored) for mirrored in (False, True)] if processes.leads else []
    _start_head(classifier, torch.split(features[:2].flatten(0, 1), _BATCH), targets.repeat(len(features[:2])), processes)
    return classifier, CachedSource(features, targets), _validator(views, validation, processes)


def _prepare_images(
    recipe: Recipe, training: LabelledImages, validation: LabelledImages, backbone: Backbone, processes: Processes
) -> tuple[Classifier, Source, Validation]:
    """The same for training all blocks on images that are augmented anew each time."""
    own = share_of(len(training), processes)
    images, targets = [training.images[index] for index in own], torch.from_numpy(training.targets[own])
    body = nn.Sequential(Normalise(), copy.deepcopy(backbone))
    classifier = Classifier(body, backbone.channels, len(training.labels), recipe.dropout).to(processes.device)

    def resized(pictures: Sequence[npt.NDArray[np.uint8]]) -> Iterator[Tensor]:
        """As bytes, which take a quarter of the memory."""
        return (resize(torch.from_numpy(batch), recipe.image_size).round().byte() for batch in equal_batches(pictures, _BATCH))

    upright = torch.cat(list(resized(validation.images))) if processes.leads else None
    views = [upright, upright.flip(3)] if upright is not None else []
    _start_head(classifier, resized(images), targets, processes)
    return classifier, ImageSource(images, own, targets, recipe), _validator(views, validation, processes)


def _start_head(classifier: Classifier, batches: Iterable[Tensor], targets: Tensor, processes: Processes) -> None:
    """Start the head from the features of all processes."""
    classifier.eval()
    with torch.no_grad():
        pooled = torch.cat([classifier.pooled(_ready(batch, processes)) for batch in batches])
    classifier.start_head(processes.gathered(pooled).cpu(), processes.gathered(targets.to(processes.device)).cpu())


def _validator(views: Sequence[Tensor], validation: LabelledImages, processes: Processes) -> Validation:
    def validate(model: Classifier) -> tuple[float, float]:
        with torch.no_grad():
            scores = [torch.cat([model(_ready(batch, processes)).cpu() for batch in torch.split(view, _BATCH)]) for view in views]
        logits = torch.stack(scores).mean(0).numpy()
        return cross_entropy(logits, validation.targets), float((logits.argmax(1) == validation.targets).mean())

    return validate


def _ready(inputs: Tensor, processes: Processes) -> Tensor:
    return inputs.to(processes.device).contiguous(memory_format=torch.channels_last)


def _whole_network(recipe: Recipe, backbone: Backbone, average: Classifier) -> tuple[Convolution, list[nn.Module]]:
    """Stem and all blocks of the trained network."""
    if recipe.full_fine_tuning:
        assert isinstance(average.body, nn.Sequential)
        trained = average.body[1]
        assert isinstance(trained, Backbone)
        return trained.stem, list(trained.blocks)
    return backbone.stem, [*list(backbone.blocks)[: recipe.frozen_blocks], *average.body.children()]


def _exported_logits(graph: bytes, data: LabelledImages) -> npt.NDArray[np.float32]:
    """Scores [N, classes] of the exported network as it is served: the mean over image and mirror image."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    return np.stack([session.run([LOGITS], {IMAGES: np.stack([image, image[:, ::-1]])})[0].mean(axis=0) for image in data.images])


def _check_parity(
    stem: Convolution,
    blocks: Sequence[nn.Module],
    average: Classifier,
    recipe: Recipe,
    data: LabelledImages,
    exported: npt.NDArray[np.float32],
) -> None:
    """Raise StepError when the exported graph does not compute what PyTorch computes."""
    network = nn.Sequential(Normalise(), stem, *blocks).eval()
    checked = list(range(0, len(data), max(1, len(data) // _PARITY_IMAGES)))[:_PARITY_IMAGES]
    scores = []
    with torch.no_grad():
        for index in checked:
            image = resize(torch.tensor(data.images[index])[None], recipe.image_size)
            pooled = network(torch.cat([image, image.flip(3)])).mean((2, 3))
            scores.append(average.head((pooled - average.mean) / average.deviation).mean(0))
    difference = float(np.abs(softmax(torch.stack(scores).numpy()) - softmax(exported[checked])).max())
    logger.info("onnx against torch; max_probability_difference=%.3g;", difference)
    if not difference <= PARITY_TOLERANCE:
        raise StepError(f"the exported model is not the trained one: probabilities differ by up to {difference:.3g} (> {PARITY_TOLERANCE})")
