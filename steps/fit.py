"""The training loop: the same for cached features and for whole images, for one process and for many."""

from __future__ import annotations

import copy
import hashlib
import json
import logging
import math
import os
import pickle
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from augment import Augmentation, augmented_copies
from classifier import Classifier
from processes import Processes
from recipe import Recipe

logger = logging.getLogger(__name__)

CHECKPOINT_NAME = "checkpoint.pt"
_HEAD_RATE = 2.0  # the head learns this much faster than the blocks


class Source(Protocol):
    """Training examples of one process."""

    targets: Tensor

    def batch(self, epoch: int, indices: npt.NDArray[np.int64], random: np.random.Generator) -> Tensor:
        """The inputs of the examples with these indices, float [B, C, H, W]."""
        ...


class CachedSource:
    """Cached features [copies, N, C, h, w]: each time an example is asked for, one of its copies by chance."""

    def __init__(self, features: Tensor, targets: Tensor) -> None:
        self._features = features
        self.targets = targets

    def batch(self, epoch: int, indices: npt.NDArray[np.int64], random: np.random.Generator) -> Tensor:
        """See Source."""
        copies = random.integers(0, len(self._features), len(indices))
        return self._features[torch.from_numpy(copies), torch.from_numpy(indices)]


class ImageSource:
    """Images, augmented anew each time."""

    def __init__(self, images: Sequence[npt.NDArray[np.uint8]], numbers: Sequence[int], targets: Tensor, recipe: Recipe) -> None:
        self._images, self._numbers, self._recipe = images, numbers, recipe
        self.targets = targets

    def batch(self, epoch: int, indices: npt.NDArray[np.int64], random: np.random.Generator) -> Tensor:
        """See Source."""
        seeds = [(self._recipe.seed, self._numbers[index], 1000 + epoch) for index in indices]
        chosen = [self._images[index] for index in indices]
        copies = augmented_copies(chosen, self._recipe.image_size, seeds, Augmentation(), torch.get_num_threads())
        return torch.from_numpy(copies).permute(0, 3, 1, 2).float()


@dataclass(frozen=True, slots=True)
class EpochMetrics:
    """Figures of one epoch (counted from 1); losses are mean cross-entropies in nats, of the averaged weights for validation."""

    epoch: int
    train_loss: float
    validation_loss: float
    validation_accuracy: float
    learning_rate: float
    seconds: float

    def line(self) -> str:
        """What SageMaker's metric definitions (`metric_definitions.json`) read from the log."""
        values = " ".join(f"{key}={value:.6g};" for key, value in asdict(self).items() if key != "epoch")
        return f"epoch={self.epoch}; {values}"


def share_of(total: int, processes: Processes) -> list[int]:
    """The examples of this process: every so-many-th, filled up from the start so that all processes take equally many steps."""
    each = -(-total // processes.count)
    return [(processes.rank + processes.count * position) % total for position in range(each)]


def fit(
    classifier: Classifier,
    source: Source,
    validate: Callable[[Classifier], tuple[float, float]],
    recipe: Recipe,
    processes: Processes,
    *,
    checkpoint_dir: Path | None,
    data_digest: str,
    on_epoch: Callable[[EpochMetrics], None],
) -> tuple[Classifier, list[EpochMetrics]]:
    """Train and return the averaged classifier with the metrics of all epochs.

    `validate` gives (loss, accuracy). After each epoch a checkpoint replaces the last one in `checkpoint_dir`; when it holds one of the same
    recipe, data and number of processes, training goes on from there, and ends with the same bits as if it had not been interrupted:
    everything random is seeded by (seed, epoch, process).
    """
    classifier.to(processes.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = copy.deepcopy(classifier).eval().requires_grad_(False)
    optimiser = torch.optim.AdamW(
        [
            {"params": list(classifier.body.parameters()), "factor": 1.0},
            {"params": list(classifier.head.parameters()), "factor": _HEAD_RATE},
        ],
        lr=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
    )
    fingerprint = _fingerprint(recipe, data_digest, processes)
    history = _resume(checkpoint_dir, fingerprint, classifier, average, optimiser)
    trained: nn.Module = classifier
    if processes.count > 1:
        trained = nn.parallel.DistributedDataParallel(classifier)
    batch_size = max(1, recipe.batch_size // processes.count)
    steps_per_epoch = -(-len(source.targets) // batch_size)
    for epoch in range(len(history) + 1, recipe.epochs + 1):
        began = time.perf_counter()
        random = np.random.default_rng((recipe.seed, epoch, processes.rank))
        torch.manual_seed(int(random.integers(2**62)))  # dropout
        trained.train()
        total_loss = torch.zeros((), device=processes.device)
        step = (epoch - 1) * steps_per_epoch
        for indices in _batches(len(source.targets), batch_size, random):
            rate = recipe.learning_rate * schedule(step, steps_per_epoch * recipe.epochs, recipe.warmup)
            for group in optimiser.param_groups:
                group["lr"] = rate * group["factor"]
            loss = _step(trained, optimiser, source, classifier.head.out_features, epoch, indices, recipe, random, processes.device)
            total_loss += loss * len(indices)
            _average(average, classifier, min(recipe.average_decay, (1 + step) / (10 + step)))
            step += 1
        if processes.leads:
            loss_value, accuracy = validate(average)
            seconds = time.perf_counter() - began
            metrics = EpochMetrics(epoch, float(total_loss) / len(source.targets), loss_value, accuracy, rate, seconds)
            history.append(metrics)
            if checkpoint_dir is not None:
                _save(checkpoint_dir, fingerprint, classifier, average, optimiser, history)
            on_epoch(metrics)
        processes.wait()
    return average, history


def schedule(step: int, steps: int, warmup: float) -> float:
    """Share of the peak learning rate: rising in a line over the first `warmup` share of the steps, then falling as half a cosine to 0."""
    progress = step / steps
    if progress < warmup:
        return (step + 1) / (warmup * steps + 1)
    return 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))


def _batches(total: int, size: int, random: np.random.Generator) -> Iterator[npt.NDArray[np.int64]]:
    order = random.permutation(total).astype(np.int64)
    for start in range(0, total, size):
        yield order[start : start + size]


def _step(
    trained: nn.Module,
    optimiser: torch.optim.Optimizer,
    source: Source,
    classes: int,
    epoch: int,
    indices: npt.NDArray[np.int64],
    recipe: Recipe,
    random: np.random.Generator,
    device: torch.device,
) -> Tensor:
    inputs = source.batch(epoch, indices, random).to(device)
    targets = functional.one_hot(source.targets[torch.from_numpy(indices)].to(device), classes).float()
    if recipe.mixup > 0:  # H. Zhang et al., "mixup: beyond empirical risk minimization", 2018
        share = float(random.beta(recipe.mixup, recipe.mixup))
        others = torch.from_numpy(random.permutation(len(indices))).to(device)
        inputs = torch.lerp(inputs[others], inputs, share)
        targets = torch.lerp(targets[others], targets, share)
    scores = trained(inputs.contiguous(memory_format=torch.channels_last))
    loss = functional.cross_entropy(scores, targets, label_smoothing=recipe.label_smoothing)
    optimiser.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimiser.step()
    return loss.detach()


def _average(average: Classifier, classifier: Classifier, decay: float) -> None:
    torch._foreach_lerp_(list(average.parameters()), [parameter.detach() for parameter in classifier.parameters()], 1 - decay)


def _fingerprint(recipe: Recipe, data_digest: str, processes: Processes) -> str:
    """What a checkpoint must agree in with the run that goes on from it."""
    content = json.dumps([recipe.as_dict(), data_digest, processes.count, processes.device.type, torch.__version__], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def _save(
    directory: Path,
    fingerprint: str,
    classifier: Classifier,
    average: Classifier,
    optimiser: torch.optim.Optimizer,
    history: list[EpochMetrics],
) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    temporary = directory / f".{CHECKPOINT_NAME}.new"
    state: dict[str, Any] = {
        "fingerprint": fingerprint,
        "classifier": classifier.state_dict(),
        "average": average.state_dict(),
        "optimiser": optimiser.state_dict(),
        "history": [asdict(metrics) for metrics in history],
    }
    with temporary.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(directory / CHECKPOINT_NAME)


def _resume(
    directory: Path | None, fingerprint: str, classifier: Classifier, average: Classifier, optimiser: torch.optim.Optimizer
) -> list[EpochMetrics]:
    """Load the checkpoint into the three and return its history; the empty list when there is none that fits."""
    path = directory / CHECKPOINT_NAME if directory is not None else None
    if path is None or not path.exists():
        return []
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        if state["fingerprint"] != fingerprint:
            logger.warning("%s is of another recipe, data set or environment; training starts from the beginning", path)
            return []
        history = [EpochMetrics(**metrics) for metrics in state["history"]]
        classifier.load_state_dict(state["classifier"])
        average.load_state_dict(state["average"])
        optimiser.load_state_dict(state["optimiser"])
    except (
        OSError,
        RuntimeError,
        EOFError,
        LookupError,
        AttributeError,
        TypeError,
        ValueError,
        struct.error,
        pickle.UnpicklingError,
    ) as error:
        logger.warning("%s cannot be read (%s); training starts from the beginning", path, error)
        return []
    logger.info("Resuming after epoch %d from %s", len(history), path)
    return history
