"""The training recipe as typed settings, and how they are read from a job's arguments."""

from __future__ import annotations

import argparse
import dataclasses
import json
import typing
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, NoReturn

from failures import StepError


class Preset(StrEnum):
    """A named set of recipe values to start from; single values given beside it win."""

    STANDARD = "standard"
    QUICK = "quick"


class BackboneName(StrEnum):
    """Networks that the classifier can be built on."""

    EFFICIENTNET_LITE0 = "efficientnet-lite0"


def _setting(default: Any, help_text: str, low: float | None = None, high: float | None = None) -> Any:
    return field(default=default, metadata={"help": help_text, "low": low, "high": high})


@dataclass(frozen=True)
class Recipe:
    """Everything that decides which model comes out of the same data. The defaults are the measured recipe."""

    backbone: BackboneName = _setting(BackboneName.EFFICIENTNET_LITE0, "pretrained network")
    image_size: int = _setting(128, "side, in pixels, of the square that the network sees", 32, 512)
    frozen_blocks: int = _setting(8, "stem and this many blocks keep their pretrained weights", 1, 15)
    blocks: int = _setting(13, "the network is cut after this many of its 16 blocks", 2, 16)
    epochs: int = _setting(10, "passes over the training images", 1, 1000)
    batch_size: int = _setting(32, "images per step, over all processes", 1, 4096)
    learning_rate: float = _setting(1e-3, "peak learning rate of the blocks; the head's is twice that", 1e-7, 1)
    weight_decay: float = _setting(0.05, "AdamW's decoupled weight decay", 0, 1)
    warmup: float = _setting(0.1, "share of the steps in which the learning rate rises; then it falls as a cosine", 0, 0.9)
    label_smoothing: float = _setting(0.05, "share of the target spread over all classes", 0, 0.5)
    mixup: float = _setting(0.2, "parameter of the Beta distribution that mixes pairs of images; 0 = none", 0, 10)
    dropout: float = _setting(0.2, "share of pooled features left out in training", 0, 0.9)
    average_decay: float = _setting(0.99, "decay of the moving average of the weights, which is the model that is kept", 0, 0.99999)
    copies: int = _setting(8, "versions of each training image that are cached: original, mirror image, the rest augmented", 1, 64)
    cache_gigabytes: float = _setting(8.0, "most memory for cached features; fewer copies are made when they would not fit", 0.01, 10_000)
    full_fine_tuning: bool = _setting(False, "train every block on freshly augmented images instead of cached features (for GPUs)")
    seed: int = _setting(0, "seed of everything random", 0, 2**31 - 1)

    def __post_init__(self) -> None:
        """Raise StepError naming the first setting that is out of range."""
        for item in dataclasses.fields(self):
            value, low, high = getattr(self, item.name), item.metadata["low"], item.metadata["high"]
            if (low is not None and not value >= low) or (high is not None and not value <= high):
                raise StepError(f"--{_flag(item.name)} {value}: must be between {low} and {high}")
        if self.frozen_blocks >= self.blocks:
            raise StepError(f"--frozen-blocks {self.frozen_blocks}: must be less than --blocks ({self.blocks})")

    def as_dict(self) -> dict[str, str | int | float | bool]:
        """Plain values, for model.json, MLflow and the checkpoint's fingerprint."""
        return {name: str(value) if isinstance(value, StrEnum) else value for name, value in dataclasses.asdict(self).items()}


_PRESETS: dict[Preset, dict[str, Any]] = {
    Preset.STANDARD: {},
    # For a few hundred easy images and a person who waits.
    Preset.QUICK: {"image_size": 96, "copies": 3, "epochs": 4, "learning_rate": 2e-3},
}


@dataclass(frozen=True)
class TrainingPaths:
    """Where a training job reads and writes; the SageMaker training container gives them as SM_* variables."""

    train: Path
    validation: Path
    model_dir: Path
    output_data_dir: Path
    output_dir: Path | None
    checkpoint_dir: Path | None


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise StepError(message)


def failure_directory(arguments: Sequence[str], environment: typing.Mapping[str, str]) -> Path | None:
    """SM_OUTPUT_DIR (or --output-dir), read before the rest: also a wrong argument must reach the failure file."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--output-dir", "--output_dir", default=environment.get("SM_OUTPUT_DIR"))
    value = parser.parse_known_args(list(arguments))[0].output_dir
    return Path(value) if value else None


def parse_training_arguments(arguments: Sequence[str], environment: typing.Mapping[str, str]) -> tuple[Recipe, TrainingPaths]:
    """Read `--key value` hyperparameters and paths.

    Keys may be spelled with `-` or `_`; values may be JSON-quoted, as SageMaker passes them (`"\\"10\\""`, `"true"`). Paths default to
    SM_CHANNEL_TRAIN, SM_CHANNEL_VALIDATION, SM_MODEL_DIR, SM_OUTPUT_DATA_DIR and SM_OUTPUT_DIR. Raises StepError for an unknown key, a value
    of the wrong type or out of range, or a path that neither the arguments nor the environment give.
    """
    parser = _Parser(description="Fine-tunes an image classifier and writes the artifact that serves it.", allow_abbrev=False)
    parser.add_argument("--preset", type=_reader("preset", Preset), default=Preset.STANDARD, help=f"one of {', '.join(Preset)}")
    types = typing.get_type_hints(Recipe)
    for item in dataclasses.fields(Recipe):
        parser.add_argument(*_spellings(item.name), dest=item.name, type=_reader(item.name, types[item.name]), help=item.metadata["help"])
    variables = {
        "train": "SM_CHANNEL_TRAIN",
        "validation": "SM_CHANNEL_VALIDATION",
        "model_dir": "SM_MODEL_DIR",
        "output_data_dir": "SM_OUTPUT_DATA_DIR",
        "output_dir": "SM_OUTPUT_DIR",
        "checkpoint_dir": None,
    }
    for name, variable in variables.items():
        parser.add_argument(
            *_spellings(name), dest=name, default=environment.get(variable) if variable else None, help=f"default: {variable or 'no checkpoints'}"
        )
    given = vars(parser.parse_args(list(arguments)))
    values = _PRESETS[given["preset"]] | {item.name: given[item.name] for item in dataclasses.fields(Recipe) if given[item.name] is not None}
    paths: dict[str, Path | None] = {}
    for name, variable in variables.items():
        text = _unquoted(given[name]) if given[name] else None
        if not text and name not in ("output_dir", "checkpoint_dir"):
            raise StepError(f"--{_flag(name)} is missing, and {variable} is not set")
        paths[name] = Path(text) if text else None
    return Recipe(**values), TrainingPaths(**typing.cast(Any, paths))


def _flag(name: str) -> str:
    return name.replace("_", "-")


def _spellings(name: str) -> list[str]:
    return list(dict.fromkeys((f"--{_flag(name)}", f"--{name}")))


def _unquoted(text: str) -> str:
    """A JSON-quoted string's content; any other text as it is."""
    if len(text) >= 2 and text[0] == text[-1] == '"':
        try:
            return str(json.loads(text))
        except ValueError:
            return text
    return text


def _reader(name: str, kind: Any) -> typing.Callable[[str], Any]:
    def read(text: str) -> Any:
        plain = _unquoted(text).strip()
        if kind is bool:
            if plain.lower() in ("true", "1", "yes"):
                return True
            if plain.lower() in ("false", "0", "no"):
                return False
            expected = "true or false"
        elif isinstance(kind, type) and issubclass(kind, StrEnum):
            if plain in {str(member) for member in kind}:
                return kind(plain)
            expected = f"one of {', '.join(kind)}"
        else:
            try:
                return kind(plain)
            except ValueError:
                expected = "a whole number" if kind is int else "a number"
        raise StepError(f"--{_flag(name)} {text!r}: must be {expected}")

    return read
