"""Settings: layers, origins, and the one line a wrong one gets."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import preprocess
from failures import StepError
from pipelines.errors import SettingsError
from pipelines.settings import CONFIG_DIR, LoadedSettings, load_settings
from recipe import Preset, Recipe

STAGES = ("dev", "staging", "production")


@pytest.fixture
def config_dir(tmp_path: Path) -> Path:
    """A copy of the project's configuration that a test may change."""
    folder = tmp_path / "config"
    folder.mkdir()
    for file in CONFIG_DIR.glob("*.yaml"):
        (folder / file.name).write_text(file.read_text(encoding="utf-8"), encoding="utf-8")
    return folder


def load(*overrides: str, stage: str = "dev", environ: dict[str, str] | None = None, config_dir: Path = CONFIG_DIR) -> LoadedSettings:
    return load_settings(stage, overrides, environ or {}, config_dir)


def error_of(*overrides: str, stage: str = "dev", environ: dict[str, str] | None = None, config_dir: Path = CONFIG_DIR) -> SettingsError:
    with pytest.raises(SettingsError) as caught:
        load(*overrides, stage=stage, environ=environ, config_dir=config_dir)
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_loads_and_every_setting_is_described_and_has_an_origin(stage: str) -> None:
    loaded = load(stage=stage)
    rows = list(loaded.rows())
    assert {row.key for row in rows} == set(loaded.origins)
    assert all(row.description.endswith(".") and str(row.origin) for row in rows)
    assert loaded.settings.stage == stage


def test_later_layers_win_and_say_so(config_dir: Path) -> None:
    (config_dir / "dev.yaml").write_text("aws: {region: eu-west-1}\ntraining: {epochs: 3, seed: 3, volume_size_gb: 31}\n", encoding="utf-8")
    environ = {"AWS_REGION": "us-west-2", "SCONES_TRAINING__EPOCHS": "4", "SCONES_TRAINING__SEED": "4"}
    loaded = load("training.epochs=5", environ=environ, config_dir=config_dir)
    training = loaded.settings.training
    assert (training.epochs, training.seed, training.volume_size_gb, loaded.settings.aws.region) == (5, 4, 31, "eu-west-1")
    origins = {key: str(loaded.origins[key]) for key in ("training.epochs", "training.seed", "training.volume_size_gb", "training.spot")}
    assert origins == {
        "training.epochs": "--set training.epochs",
        "training.seed": "environment variable SCONES_TRAINING__SEED",
        "training.volume_size_gb": "config/dev.yaml",
        "training.spot": "config/default.yaml",
    }


def test_variables_of_other_tools_fill_what_no_stage_decides() -> None:
    loaded = load(environ={"AWS_DEFAULT_REGION": "eu-north-1", "AWS_REGION": "eu-west-1", "MLFLOW_TRACKING_URI": "sqlite:///runs.db"})
    assert loaded.settings.aws.region == "eu-west-1"
    assert loaded.settings.mlflow.tracking_uri == "sqlite:///runs.db"
    assert str(loaded.origins["aws.region"]) == "environment variable AWS_REGION"


def test_texts_become_the_setting_s_kind() -> None:
    values = load(
        "training.recipe.learning_rate=1e-3",
        "training.recipe.full_fine_tuning=true",
        "quality_gate.minimum_accuracy=1",
        "project.tags=[{key: team, value: vision}]",
        "images.framework_version=2.6",
        "training.recipe.copies=null",
        "data.input_uri=",
        environ={"SCONES_STAGING_ENDPOINT__SERVERLESS_MEMORY_MB": "4096"},
    ).settings
    recipe = values.training.recipe
    assert (recipe.learning_rate, recipe.full_fine_tuning, recipe.copies, values.quality_gate.minimum_accuracy) == (1e-3, True, None, 1.0)
    assert (values.project.tags[0].key, values.images.framework_version, values.data.input_uri) == ("team", "2.6", None)
    assert values.staging_endpoint.serverless_memory_mb == 4096


@pytest.mark.parametrize(
    ("override", "nearest"),
    [
        ("training.epoch=3", "training.epochs"),
        ("epochs=3", "training.epochs"),
        ("qualitygate.minimum_accuracy=1", "quality_gate.minimum_accuracy"),
    ],
)
def test_an_unknown_key_names_the_nearest(override: str, nearest: str) -> None:
    error = error_of(override)
    assert error.nearest == nearest
    assert override.partition("=")[0] in str(error)
    assert f"did you mean {nearest}?" in str(error)
    assert "--set" in str(error)


def test_an_unknown_variable_or_file_key_is_not_ignored(config_dir: Path) -> None:
    assert "SCONES_TRAINING__EPOCH" in str(error_of(environ={"SCONES_TRAINING__EPOCH": "3"}))
    (config_dir / "staging.yaml").write_text("training: {epoch: 3}\n", encoding="utf-8")
    assert "config/staging.yaml" in str(error_of(stage="staging", config_dir=config_dir))


@pytest.mark.parametrize(
    ("override", "allowed"),
    [
        ("training.epochs=ten", "a whole number from 1 to 1000"),
        ("training.epochs=0", "a whole number from 1 to 1000"),
        ("training.epochs=2.5", "a whole number from 1 to 1000"),
        ("training.epochs=true", "a whole number from 1 to 1000"),
        ("training.spot=maybe", "true or false"),
        ("training.recipe.learning_rate=fast", "a number from 1e-07 to 1 or null"),
        ("quality_gate.minimum_accuracy=95", "a number from 0.0 to 1.0"),
        ("staging_endpoint.kind=server", "serverless, instance"),
        (f"staging_endpoint.name={'a' * 37}", "text of 0 to 36 characters such as scones-staging"),
        ("staging_endpoint.serverless_memory_mb=100", "1024, 2048, 3072, 4096, 5120, 6144"),
        ("processing.instance_type=m5.large", "text such as ml.m5.xlarge"),
        ("pipeline.cache.expire_after=30 days", "text such as P30D"),
        ("data.input_uri=/data", "text such as s3://bucket/prefix/ or null"),
        ("project.tags=[{key: a}]", "a list of {key: ..., value: ...}"),
        ("registry.inference_instance_types=ml.m5.large", "a list, each item text such as ml.m5.xlarge"),
    ],
)
def test_a_value_that_is_not_allowed_says_what_is(override: str, allowed: str) -> None:
    error = error_of(override)
    key, _, text = override.partition("=")
    assert error.key == key
    assert error.allowed == allowed
    assert key in str(error)
    assert allowed in str(error)
    assert text.split("[")[0].lower() in str(error).lower()


def test_a_misspelt_choice_names_the_nearest() -> None:
    assert error_of("staging_endpoint.kind=serverles").nearest == "serverless"


def test_rules_between_settings_name_both() -> None:
    message = str(error_of("data.validation_fraction=0.9"))
    assert "data.validation_fraction = 0.9" in message
    assert "data.test_fraction" in message
    assert "frozen_blocks below blocks" in str(error_of("training.recipe.blocks=3", "training.recipe.frozen_blocks=5"))
    assert "max_wait_minutes" in str(error_of("training.spot=true", "training.max_wait_minutes=1"))


def test_sections_the_stage_and_malformed_overrides_are_refused() -> None:
    assert "training.epochs" in str(error_of("training=3"))
    assert "section.key=value" in str(error_of("training.epochs"))
    assert "--stage" in str(error_of("stage=production"))


def test_a_missing_stage_file_names_the_stages() -> None:
    error = error_of(stage="prod")
    assert "prod.yaml does not exist" in str(error)
    assert error.nearest == "production"
    assert all(stage in str(error) for stage in STAGES)


def test_files_that_are_missing_or_not_yaml_are_one_line(config_dir: Path) -> None:
    (config_dir / "dev.yaml").write_text("training: [unclosed", encoding="utf-8")
    assert "dev.yaml cannot be read" in str(error_of(config_dir=config_dir))
    (config_dir / "dev.yaml").write_text("training: 3\n", encoding="utf-8")
    assert "a mapping of settings" in str(error_of(config_dir=config_dir))
    (config_dir / "dev.yaml").write_bytes(b"\xff\xfe\x00")
    assert "dev.yaml cannot be read" in str(error_of(config_dir=config_dir))
    (config_dir / "default.yaml").unlink()
    assert "default.yaml does not exist" in str(error_of(config_dir=config_dir))


def test_another_project_s_names_begin_with_its_own() -> None:
    loaded = load_settings(overrides=["project.name=bikes", "mlflow.experiment=shared", "pipeline.name=null"], environ={})
    values = loaded.settings
    names = (values.aws.platform_stack, values.pipeline.name, values.staging_endpoint.name, values.mlflow.experiment)
    assert names == ("bikes-platform", "bikes-vehicle-classifier", "bikes-staging", "shared")
    assert str(loaded.origins["staging_endpoint.name"]) == "project.name"


def test_a_setting_left_out_of_default_yaml_is_named(config_dir: Path) -> None:
    text = (config_dir / "default.yaml").read_text(encoding="utf-8")
    (config_dir / "default.yaml").write_text(
        text.replace("  confidence_threshold: 0.93\n", "  # nothing\n").replace("evaluation:", ""), encoding="utf-8"
    )
    assert "evaluation" in str(error_of(config_dir=config_dir))


@settings(max_examples=50)
@given(st.text(max_size=40), st.text(max_size=40))
def test_whatever_is_given_is_a_value_or_one_line(key: str, value: str) -> None:
    for override in (f"{key}={value}", f"training.epochs={value}", f"project.tags={value}", f"aws.bucket={value}"):
        message = ""
        try:
            load(override)
        except SettingsError as error:
            message = str(error)
        assert len(message.splitlines()) <= 1


def accepted_by_the_train_job(name: str, value: float) -> bool:
    beside = {"blocks": {"frozen_blocks": 1}, "frozen_blocks": {"blocks": 16}}.get(name, {})
    try:
        Recipe(**{name: value, **beside})  # type: ignore[arg-type]
    except StepError:
        return False
    return True


def test_recipe_settings_are_the_train_job_s_hyperparameters_with_its_ranges() -> None:
    training = load().settings.training
    names = {item.name for item in dataclasses.fields(Recipe)}
    assert set(type(training.recipe).model_fields) - {"preset"} == names - {"epochs", "seed"}  # these two are pipeline parameters
    assert all(load(f"training.recipe.preset={preset}").settings.training.recipe.preset == preset for preset in Preset)
    properties = type(training.recipe).model_json_schema()["properties"]
    properties |= {name: type(training).model_json_schema()["properties"][name] for name in ("epochs", "seed")}
    limited = 0
    for name in names:
        for kind in properties[name].get("anyOf", [properties[name]]):
            step = 1 if kind.get("type") == "integer" else 1e-9
            for limit, outward in ((kind.get("minimum"), -step), (kind.get("maximum"), step)):
                if limit is not None:
                    limited += 1
                    assert accepted_by_the_train_job(name, limit), f"{name}={limit}"
                    assert not accepted_by_the_train_job(name, limit + outward), f"{name}={limit + outward}"
    assert limited == 2 * 15


def test_data_settings_are_the_preprocess_job_s_options_with_its_defaults() -> None:
    data = load().settings.data.model_dump(exclude={"input_uri"})
    folders = [part for name in ("input", "train", "validation", "test", "report") for part in (f"--{name}", name)]
    options = vars(preprocess._parser().parse_args(folders))
    assert data.keys() <= options.keys()
    assert {name: options[name] for name, value in data.items() if value is not None} == {
        name: value for name, value in data.items() if value is not None
    }


def test_importing_settings_loads_no_aws_library() -> None:
    program = "import sys, pipelines.settings; print([name for name in ('boto3', 'botocore', 'sagemaker', 'torch') if name in sys.modules])"
    completed = subprocess.run([sys.executable, "-c", program], cwd=CONFIG_DIR.parent, capture_output=True, text=True, check=True)
    assert completed.stdout.strip() == "[]"
