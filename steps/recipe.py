"""The training recipe as typed settings, and how they are read from a job's arguments."""

from __future__ import annotations

import argparse
import dataclasses
import json
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn

from failures import StepError


class Preset(StrEnum):
    """A named set of recipe values to start from; single values given beside it win."""

    STANDARD = "standard"
    QUICK = "quick"


class BackboneName(StrEnum):
    """Networks that the classifier can be built on."""

    EFFICIENTNET_LITE0 = "efficientnet-lite0"


@dataclass(frozen=True, slots=True)
class Setting:
    """What a recipe's field means, and its range."""

    help: str
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Recipe:
    """Everything that decides which model comes out of the same data. The defaults are the measured recipe."""

    backbone: Annotated[BackboneName, Setting("pretrained network")] = BackboneName.EFFICIENTNET_LITE0
    image_size: Annotated[int, Setting("side, in pixels, of the square that the network sees", 32, 512)] = 128
    frozen_blocks: Annotated[int, Setting("stem and this many blocks keep their pretrained weights", 1, 15)] = 8
    blocks: Annotated[int, Setting("the network is cut after this many of its 16 blocks", 2, 16)] = 13
    epochs: Annotated[int, Setting("passes over the training images", 1, 1000)] = 10
    batch_size: Annotated[int, Setting("images per step, over all processes", 1, 4096)] = 32
    learning_rate: Annotated[float, Setting("peak learning rate of the blocks; the head's is twice that", 1e-7, 1)] = 1e-3
    weight_decay: Annotated[float, Setting("AdamW's decoupled weight decay", 0, 1)] = 0.05
    warmup: Annotated[float, Setting("share of the steps in which the learning rate rises; then it falls as a cosine", 0, 0.9)] = 0.1
    label_smoothing: Annotated[float, Setting("share of the target spread over all classes", 0, 0.5)] = 0.05
    mixup: Annotated[float, Setting("parameter of the Beta distribution that mixes pairs of images; 0 = none", 0, 10)] = 0.2
    dropout: Annotated[float, Setting("share of pooled features left out in training", 0, 0.9)] = 0.2
    average_decay: Annotated[float, Setting("decay of the moving average of the weights, which is the model that is kept", 0, 0.99999)] = (
        0.99
    )
    copies: Annotated[
        int, Setting("versions of each training image that are cached: original, mirror image, the rest augmented", 1, 64)
    ] = 8
    cache_gigabytes: Annotated[
        float, Setting("most memory for cached features; fewer copies are made when they would not fit", 0.01, 10_000)
    ] = 4.0
    full_fine_tuning: Annotated[bool, Setting("train every block on freshly augmented images instead of cached features (for GPUs)")] = (
        False
    )
    seed: Annotated[int, Setting("seed of everything random", 0, 2**31 - 1)] = 0

    def __post_init__(self) -> None:
        """Raise StepError naming the first setting that is out of range."""
        for name, (_, setting) in _settings().items():
            value = getattr(self, name)
            if (setting.low is not None and not value >= setting.low) or (setting.high is not None and not value <= setting.high):
                raise StepError(f"--{_flag(name)} {value}: must be between {setting.low} and {setting.high}")
        if self.frozen_blocks >= self.blocks:
            raise StepError(f"--frozen-blocks {self.frozen_blocks}: must be less than --blocks ({self.blocks})")

    def as_dict(self) -> dict[str, str | int | float | bool]:
        """Plain values, for model.json, MLflow and the checkpoint's fingerprint."""
        return {name: str(value) if isinstance(value, StrEnum) else value for name, value in dataclasses.asdict(self).items()}


def _settings() -> dict[str, tuple[type, Setting]]:
    """Type and meaning of each field of the recipe."""
    hints = typing.get_type_hints(Recipe, include_extras=True)
    return {name: (typing.get_args(hint)[0], typing.get_args(hint)[1]) for name, hint in hints.items()}


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
    for name, (kind, setting) in _settings().items():
        parser.add_argument(*_spellings(name), dest=name, type=_reader(name, kind), help=setting.help)
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
            *_spellings(name),
            dest=name,
            default=environment.get(variable) if variable else None,
            help=f"default: {variable or 'no checkpoints'}",
        )
    given = vars(parser.parse_args(list(arguments)))
    values = _PRESETS[given["preset"]] | {name: given[name] for name in _settings() if given[name] is not None}
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
