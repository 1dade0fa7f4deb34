"""Hyperparameters: how the training job reads them, and what it says when they are wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from failures import StepError
from recipe import Recipe, failure_directory, parse_training_arguments

ENVIRONMENT = {
    "SM_CHANNEL_TRAIN": "/in/train",
    "SM_CHANNEL_VALIDATION": "/in/validation",
    "SM_MODEL_DIR": "/model",
    "SM_OUTPUT_DATA_DIR": "/output/data",
    "SM_OUTPUT_DIR": "/output",
}


def test_defaults_and_paths_from_the_environment() -> None:
    recipe, paths = parse_training_arguments([], ENVIRONMENT)
    assert recipe == Recipe()
    assert (paths.train, paths.validation, paths.model_dir) == (Path("/in/train"), Path("/in/validation"), Path("/model"))
    assert (paths.output_data_dir, paths.output_dir, paths.checkpoint_dir) == (Path("/output/data"), Path("/output"), None)


def test_arguments_win_over_the_environment() -> None:
    _, paths = parse_training_arguments(["--train", "/other", "--checkpoint_dir", '"/checkpoints"'], ENVIRONMENT)
    assert paths.train == Path("/other")
    assert paths.checkpoint_dir == Path("/checkpoints")


@pytest.mark.parametrize("spelling", ["--image-size", "--image_size"])
@pytest.mark.parametrize("quoted", ["96", '"96"'])
def test_keys_with_dash_or_underscore_and_values_with_json_quotes(spelling: str, quoted: str) -> None:
    assert parse_training_arguments([spelling, quoted], ENVIRONMENT)[0].image_size == 96


def test_a_preset_is_a_start_that_single_values_change() -> None:
    quick, _ = parse_training_arguments(["--preset", "quick"], ENVIRONMENT)
    assert (quick.image_size, quick.epochs) == (96, 4)
    changed, _ = parse_training_arguments(["--epochs", "7", "--preset", '"quick"'], ENVIRONMENT)
    assert (changed.image_size, changed.epochs) == (96, 7)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--epochs", "ten"], "--epochs 'ten': must be a whole number"),
        (["--epochs", "0"], "--epochs 0: must be between 1 and 1000"),
        (["--learning-rate", "nan"], "--learning-rate nan: must be between 1e-07 and 1"),
        (["--full-fine-tuning", "maybe"], "--full-fine-tuning 'maybe': must be true or false"),
        (["--preset", "slow"], "--preset 'slow': must be one of standard, quick"),
        (["--backbone", "resnet"], "--backbone 'resnet': must be one of efficientnet-lite0"),
        (["--frozen-blocks", "13"], "--frozen-blocks 13: must be less than --blocks (13)"),
        (["--epoch", "3"], "unrecognized arguments: --epoch 3"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(arguments: list[str], expected: str) -> None:
    with pytest.raises(StepError) as raised:
        parse_training_arguments(arguments, ENVIRONMENT)
    assert str(raised.value) == expected


def test_a_path_that_nothing_gives_is_named() -> None:
    with pytest.raises(StepError, match="--validation is missing, and SM_CHANNEL_VALIDATION is not set"):
        parse_training_arguments([], {**ENVIRONMENT, "SM_CHANNEL_VALIDATION": ""})


def test_the_failure_directory_is_known_before_the_arguments_are_checked() -> None:
    assert failure_directory(["--nonsense", "--output-dir", "/there"], ENVIRONMENT) == Path("/there")
    assert failure_directory(["--epochs"], ENVIRONMENT) == Path("/output")
    assert failure_directory([], {}) is None


@given(st.integers(1, 1000), st.floats(1e-7, 1), st.booleans(), st.booleans())
def test_values_survive_the_way_sagemaker_passes_them(epochs: int, rate: float, full: bool, quote: bool) -> None:
    values = {"epochs": json.dumps(epochs), "learning_rate": json.dumps(rate), "full_fine_tuning": json.dumps(full)}
    arguments = [part for key, text in values.items() for part in (f"--{key}", json.dumps(text) if quote else text)]
    recipe, _ = parse_training_arguments(arguments, ENVIRONMENT)
    assert (recipe.epochs, recipe.learning_rate, recipe.full_fine_tuning) == (epochs, rate, full)
