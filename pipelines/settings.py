"""Typed settings of the pipeline: what they are, where each value comes from, and one clear line when one is wrong.

Later layers win: ``config/default.yaml``, well-known environment variables (``AWS_REGION``, ``MLFLOW_TRACKING_URI``), ``config/<stage>.yaml``,
``SCONES_<SECTION>__<KEY>`` environment variables, ``--set section.key=value``. Names that are null in all of them follow from ``project.name``.
"""

from __future__ import annotations

import difflib
import os
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from pydantic.fields import FieldInfo

from pipelines.errors import SettingsError

CONFIG_DIR = Path(__file__).resolve().parent.parent / "config"
DEFAULT_STAGE = "dev"
ENVIRONMENT_PREFIX = "SCONES_"

# Variables other tools already use, nearest meaning first; they fill a setting unless the stage's file or something more specific does.
_WELL_KNOWN_VARIABLES = (("aws.region", ("AWS_REGION", "AWS_DEFAULT_REGION")), ("mlflow.tracking_uri", ("MLFLOW_TRACKING_URI",)))

# Names that begin with the project's unless something else is set: two projects in one account share nothing.
_NAMES_OF_PROJECT = {
    "aws.platform_stack": "{}-platform",
    "pipeline.name": "{}-vehicle-classifier",
    "staging_endpoint.name": "{}-staging",
    "mlflow.experiment": "{}-vehicle-classifier",
}

InstanceType = Annotated[str, Field(pattern=r"^ml\.[a-z0-9-]+\.[a-z0-9]+$", examples=["ml.m5.xlarge"])]
S3Uri = Annotated[str, Field(pattern=r"^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]/", examples=["s3://bucket/prefix/"])]
RoleArn = Annotated[str, Field(pattern=r"^arn:aws[a-z-]*:iam::\d{12}:role/.+$", examples=["arn:aws:iam::123456789012:role/name"])]
ResourceName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}$", examples=["scones-staging"])]
Duration = Annotated[str, Field(pattern=r"^P((\d+[YMWD])+(T(\d+[HMS])+)?|T(\d+[HMS])+)$", examples=["P30D", "PT12H"])]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]


class _Section(BaseModel):
    """Base of all sections: immutable, no unknown keys, no silent conversions."""

    # Schemas are built when settings are first loaded, not when the module is imported: `scones --help` loads none.
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, defer_build=True)


class Tag(_Section):
    """One AWS resource tag."""

    key: str = Field(min_length=1, max_length=128, description="Tag key.")
    value: str = Field(max_length=256, description="Tag value.")


class ProjectSettings(_Section):
    """What this deployment is called."""

    name: str = Field(
        pattern=r"^[a-z][a-z0-9-]{1,19}$",
        description="Project name of 2 to 20 letters, digits and hyphens; prefix of the names of AWS resources.",
    )
    tags: list[Tag] = Field(max_length=40, description="Tags put on the pipeline, its jobs and everything they create.")


class AwsSettings(_Section):
    """The account's resources; what is null is read from the platform stack's outputs."""

    region: str = Field(pattern=r"^[a-z]{2,4}(-[a-z]+)+-\d$", description="AWS region everything runs in.", examples=["us-east-1"])
    platform_stack: str = Field(
        min_length=1, description="CloudFormation stack whose outputs name the bucket, the roles and the model package group."
    )
    bucket: str | None = Field(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$", description="Artifact bucket.")
    pipeline_role_arn: RoleArn | None = Field(description="Role that the pipeline itself runs as.")
    job_role_arn: RoleArn | None = Field(description="Role of processing and training jobs.")
    model_role_arn: RoleArn | None = Field(description="Role of the model container on endpoints.")


class ImageSettings(_Section):
    """Container images; what is null is AWS's PyTorch Deep Learning Container of the given version for the region and the instance type."""

    framework_version: str = Field(
        pattern=r"^\d+\.\d+(\.\d+)?$", description="PyTorch version of the Deep Learning Containers.", examples=["2.6.0"]
    )
    python_version: str = Field(pattern=r"^py3\d+$", description="Python version of the Deep Learning Containers.", examples=["py312"])
    processing: str | None = Field(min_length=1, description="Image URI of the processing jobs.")
    training: str | None = Field(min_length=1, description="Image URI of the training job.")
    inference: str | None = Field(min_length=1, description="Image URI that serves the model.")


class CacheSettings(_Section):
    """Reuse of earlier steps that had the same inputs."""

    enabled: bool = Field(description="Reuse the result of an earlier successful step with the same code, data and parameters.")
    expire_after: Duration = Field(description="How old a reused result may be, as an ISO 8601 duration.")


class RetrySettings(_Section):
    """Retries of steps after faults that are not the code's: throttling, no capacity, account limits, internal errors."""

    max_attempts: int = Field(ge=1, le=20, description="Attempts for each kind of fault.")
    interval_seconds: int = Field(ge=1, le=3600, description="Seconds before the first retry.")
    backoff_rate: float = Field(ge=1.0, le=10.0, description="Factor by which the interval grows with each retry.")


class PipelineSettings(_Section):
    """The SageMaker Pipeline as a resource."""

    name: ResourceName = Field(description="Name of the pipeline.")
    description: str = Field(min_length=1, max_length=3072, description="Description shown in Studio.")
    max_parallel_steps: int = Field(ge=1, le=50, description="How many steps of one execution may run at the same time.")
    cache: CacheSettings = Field(description="Step caching.")
    retries: RetrySettings = Field(description="Step retries.")


class JobSettings(_Section):
    """Compute of one kind of job."""

    instance_type: InstanceType = Field(description="Default of the execution's instance type parameter.")
    volume_size_gb: int = Field(ge=1, le=16384, description="Size of the attached volume, in GB.")
    max_runtime_minutes: int = Field(ge=1, le=28 * 24 * 60, description="After this many minutes the job is stopped.")


class ProcessingSettings(JobSettings):
    """Compute of the Preprocess and Evaluate jobs."""

    max_runtime_minutes: int = Field(ge=1, le=5 * 24 * 60, description="After this many minutes the job is stopped.")


class MlflowSettings(_Section):
    """Experiment tracking."""

    tracking_uri: str | None = Field(
        min_length=1,
        description="MLflow tracking server that jobs log to: its URL, or the ARN of SageMaker's tracking server or MLflow app; null switches tracking off. Part of the steps' cache key: keep it stable.",
    )
    experiment: str = Field(min_length=1, max_length=250, description="Name of the MLflow experiment.")

    @model_validator(mode="after")
    def _the_jobs_may_log_there(self) -> MlflowSettings:
        uri = self.tracking_uri or ""
        if uri.startswith("arn:") and not any(kind in uri for kind in (":mlflow-tracking-server/", ":mlflow-app/")):
            raise ValueError(
                "tracking_uri is a URL, or the ARN of a SageMaker tracking server (arn:…:mlflow-tracking-server/NAME) or MLflow app (arn:…:mlflow-app/ID)"
            )
        return self


class DataSettings(_Section):
    """The staged images and how they are split and cleaned."""

    input_uri: S3Uri | None = Field(description="Default of the execution's InputDataUri: a staged, content-addressed prefix.")
    validation_fraction: Fraction = Field(description="Share of the images, given test images aside, used for validation.")
    test_fraction: Fraction = Field(description="Share of the images used for test, when the data does not bring its own.")
    seed: int = Field(ge=0, le=2**31 - 1, description="Seed of the split and the order.")
    min_image_side: int = Field(ge=1, le=4096, description="Images with a shorter side than this, in pixels, are quarantined.")
    max_image_side: int = Field(ge=32, le=4096, description="Longer sides are shrunk to this many pixels.")
    max_bad_share: Fraction = Field(description="The run fails when more than this share of the images is quarantined.")
    min_images_per_class: int = Field(ge=1, description="The run fails when fewer usable images of a class remain.")
    near_duplicate_similarity: float | None = Field(
        ge=0, le=2, description="Likeness from which two images stay in one split; above 1: off; null: the measured one."
    )
    allow_conflicting_labels: bool = Field(description="Go on when the same image is in several classes.")

    @model_validator(mode="after")
    def _some_images_left_to_train_on(self) -> DataSettings:
        if self.validation_fraction + self.test_fraction >= 1.0:
            raise ValueError("validation_fraction + test_fraction below 1.0")
        return self


class RecipeSettings(_Section):
    """How the network is trained: a preset, and single values in place of the preset's. Each one given is a hyperparameter of the Train job."""

    preset: Literal["standard", "quick"] = Field(
        description="Set of values to start from: the measured recipe, or a fast one for few easy images."
    )
    backbone: Literal["efficientnet-lite0"] | None = Field(description="Pretrained network.")
    image_size: int | None = Field(ge=32, le=512, description="Side, in pixels, of the square that the network sees.")
    frozen_blocks: int | None = Field(ge=1, le=15, description="Stem and this many blocks keep their pretrained weights.")
    blocks: int | None = Field(ge=2, le=16, description="The network is cut after this many of its blocks.")
    batch_size: int | None = Field(ge=1, le=4096, description="Images per step, over all processes.")
    learning_rate: float | None = Field(ge=1e-7, le=1, description="Peak learning rate of the blocks; the head's is twice that.")
    weight_decay: float | None = Field(ge=0, le=1, description="AdamW's decoupled weight decay.")
    warmup: float | None = Field(
        ge=0, le=0.9, description="Share of the steps in which the learning rate rises; then it falls as a cosine."
    )
    label_smoothing: float | None = Field(ge=0, le=0.5, description="Share of the target spread over all classes.")
    mixup: float | None = Field(ge=0, le=10, description="Parameter of the Beta distribution that mixes pairs of images; 0 for none.")
    dropout: float | None = Field(ge=0, le=0.9, description="Share of pooled features left out in training.")
    average_decay: float | None = Field(
        ge=0, le=0.99999, description="Decay of the moving average of the weights, which is the model kept."
    )
    copies: int | None = Field(
        ge=1, le=64, description="Cached versions of each training image: original, mirror image, the rest augmented."
    )
    cache_gigabytes: float | None = Field(ge=0.01, le=10_000, description="Most memory for cached features.")
    full_fine_tuning: bool | None = Field(
        description="Train every block on freshly augmented images instead of cached features (for GPUs)."
    )

    @model_validator(mode="after")
    def _something_is_trained(self) -> RecipeSettings:
        if self.frozen_blocks is not None and self.blocks is not None and self.frozen_blocks >= self.blocks:
            raise ValueError("frozen_blocks below blocks")
        return self


class TrainingSettings(JobSettings):
    """Compute of the Train job and the recipe it follows."""

    instance_count: int = Field(ge=1, le=20, description="Instances; more than one, or GPUs, are driven by torchrun.")
    spot: bool = Field(description="Use managed spot capacity; an interrupted job resumes from its checkpoint.")
    max_wait_minutes: int = Field(ge=1, le=28 * 24 * 60, description="With spot: longest time for waiting and training together.")
    epochs: int = Field(ge=1, le=1000, description="Default of the execution's Epochs parameter.")
    seed: int = Field(ge=0, le=2**31 - 1, description="Default of the execution's Seed parameter.")
    recipe: RecipeSettings = Field(description="How the network is trained.")

    @model_validator(mode="after")
    def _wait_is_not_shorter_than_the_run(self) -> TrainingSettings:
        if self.spot and self.max_wait_minutes < self.max_runtime_minutes:
            raise ValueError(f"max_wait_minutes of at least max_runtime_minutes ({self.max_runtime_minutes})")
        return self


class EvaluationSettings(_Section):
    """What the Evaluate job reports."""

    confidence_threshold: Fraction = Field(description="Confidence from which an inference is accepted without review.")


class QualityGateSettings(_Section):
    """What a model must reach to be registered."""

    minimum_accuracy: Fraction = Field(description="Default of the execution's MinimumAccuracy parameter: test accuracy to reach.")
    champion_tolerance: Fraction = Field(
        description="How much lower than the champion's (the newest approved model's) the accuracy may be."
    )


class RegistrySettings(_Section):
    """Registration in the model registry."""

    model_package_group: ResourceName | None = Field(description="Model package group; null reads it from the platform stack.")
    approval_status: Literal["PendingManualApproval", "Approved", "Rejected"] = Field(
        description="Default of the execution's ModelApprovalStatus parameter: approval status of a new version."
    )
    inference_instance_types: list[InstanceType] = Field(min_length=1, description="Instance types on which a version may serve.")


class StagingEndpointSettings(_Section):
    """The endpoint on which the newest candidate serves before anyone approves it."""

    # An execution's id and a suffix of SageMaker's follow in the name of the endpoint's configuration, which may have 63 characters.
    name: ResourceName = Field(
        max_length=36,
        description="Endpoint name; created by the first run, updated by later ones. The platform's pipeline role may touch <project>-staging.",
    )
    kind: Literal["serverless", "instance"] = Field(description="Serverless (billed per request) or an instance of its own.")
    serverless_memory_mb: Literal[1024, 2048, 3072, 4096, 5120, 6144] = Field(description="Memory of a serverless endpoint, in MB.")
    serverless_max_concurrency: int = Field(ge=1, le=200, description="Concurrent requests a serverless endpoint takes.")
    instance_type: InstanceType = Field(description="Instance type of an endpoint with instances.")
    instance_count: int = Field(ge=1, le=100, description="Instances of an endpoint with instances.")


class PlatformSettings(_Section):
    """The platform stack: who is told, how long things are kept, and hardening that an account may ask for. `scones aws bootstrap` applies it."""

    notification_email: str | None = Field(
        pattern=r"^[^@ ]+@[^@ ]+$", description="Who is told by e-mail what a person must know; AWS asks that address to confirm."
    )
    image_bucket: str | None = Field(
        pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$", description="Bucket with the photos to classify; null: the artifact bucket."
    )
    log_retention_days: Literal[1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653] = (
        Field(description="How many days logs are kept.")
    )
    permissions_boundary_arn: str | None = Field(
        pattern=r"^arn:[^:]+:iam::(\d{12}|aws):policy/.+$",
        description="Managed policy that no role of the system can go beyond.",
        examples=["arn:aws:iam::123456789012:policy/boundary"],
    )
    encryption_key_arn: str | None = Field(
        pattern=r"^arn:[^:]+:kms:[^:]+:\d{12}:key/.+$",
        description="KMS key of one's own for buckets, queues, the topic, logs and the disks of endpoints; docs/security.md has its policy.",
        examples=["arn:aws:kms:us-east-1:123456789012:key/..."],
    )
    access_log_bucket: str | None = Field(
        pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$", description="Bucket that S3 writes the artifact bucket's access log to."
    )
    monthly_budget_usd: int = Field(ge=0, description="People are told when the account nears this many USD in a month; 0: no budget.")


class ProductionSettings(_Section):
    """How production serves. `scones aws bootstrap` hands it to the platform; it takes effect with the next decision or `scones deploy refresh`."""

    kind: Literal["serverless", "instance"] = Field(description="Serverless (billed per request) or instances of its own.")
    serverless_memory_mb: Literal[1024, 2048, 3072, 4096, 5120, 6144] = Field(description="Memory of a serverless endpoint, in MB.")
    serverless_max_concurrency: int = Field(ge=1, le=200, description="Concurrent requests a serverless endpoint takes.")
    instance_type: InstanceType = Field(description="Instance type of an endpoint with instances.")
    instance_count: int = Field(ge=1, le=100, description="Instances of an endpoint with instances; with 1 there is no canary.")
    traffic_shifting: Literal["all-at-once", "canary", "linear"] = Field(description="How a new version takes over on instances.")
    traffic_shift_wait_seconds: int = Field(ge=0, le=600, description="How long the alarms are watched after each step of that.")
    kept_versions: int = Field(
        ge=1, le=100, description="Versions before the one in production whose functions, models and endpoint configurations are kept."
    )


class CicdSettings(_Section):
    """From a push to a training run: CodePipeline and CodeBuild."""

    source: Literal["connection", "s3", "github-actions"] = Field(
        description="Where commits come from: a repository through CodeConnections, a zip that is uploaded to S3; or GitHub Actions delivers them."
    )
    repository: str | None = Field(
        pattern=r"^[^/ ]+(/[^/ ]+)+$", description="Repository, as owner/name; not needed for source s3.", examples=["owner/name"]
    )
    branch: str = Field(pattern=r"^[^ ]+$", description="Branch whose pushes are delivered; not used for source s3.", examples=["main"])
    provider: Literal["GitHub", "GitLab", "Bitbucket"] = Field(description="Host of the repository, when the stack makes the connection.")
    connection_arn: str | None = Field(
        pattern=r"^arn:aws[a-z-]*:codeconnections:.+$",
        description="Connection to the repository's host; null: the stack makes one.",
        examples=["arn:aws:codeconnections:us-east-1:123456789012:connection/..."],
    )
    github_oidc_provider_arn: str | None = Field(
        pattern=r"^arn:[^:]+:iam::\d{12}:oidc-provider/token\.actions\.githubusercontent\.com$",
        description="The account's identity provider of GitHub's tokens, for source github-actions; null: the stack makes it.",
        examples=["arn:aws:iam::123456789012:oidc-provider/token.actions.githubusercontent.com"],
    )
    test_command: str = Field(min_length=1, description="Shell command that a commit must pass.")
    build_image: str = Field(min_length=1, description="Image of the builds; it needs Python 3.12 and make.")
    test_compute_type: Literal["BUILD_GENERAL1_SMALL", "BUILD_GENERAL1_MEDIUM", "BUILD_GENERAL1_LARGE"] = Field(
        description="Machine of the tests; the other builds take the smallest."
    )


class Settings(_Section):
    """All settings."""

    stage: str = Field(pattern=r"^[a-z][a-z0-9-]{0,15}$", description="Deployment stage: which file in config/ was laid over default.yaml.")
    project: ProjectSettings = Field(description="Names and tags.")
    aws: AwsSettings = Field(description="Account resources.")
    images: ImageSettings = Field(description="Container images.")
    pipeline: PipelineSettings = Field(description="The pipeline itself.")
    data: DataSettings = Field(description="Input data.")
    processing: ProcessingSettings = Field(description="Processing jobs.")
    training: TrainingSettings = Field(description="Training job and recipe.")
    evaluation: EvaluationSettings = Field(description="Evaluation.")
    quality_gate: QualityGateSettings = Field(description="Quality gate.")
    registry: RegistrySettings = Field(description="Model registry.")
    staging_endpoint: StagingEndpointSettings = Field(description="Staging endpoint.")
    platform: PlatformSettings = Field(description="The platform stack.")
    production: ProductionSettings = Field(description="Production.")
    mlflow: MlflowSettings = Field(description="Experiment tracking.")
    cicd: CicdSettings = Field(description="Delivery of commits.")


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value came from; `str()` of it is for people."""

    kind: Literal["stage", "file", "environment", "override", "setting"]
    name: str

    def __str__(self) -> str:
        return f"environment variable {self.name}" if self.kind == "environment" else self.name


@dataclass(frozen=True, slots=True)
class SettingRow:
    """One setting as ``scones config show`` prints it."""

    key: str
    value: object
    origin: Origin
    description: str


@dataclass(frozen=True, slots=True)
class LoadedSettings:
    """Validated settings and, for each dotted key, where its value came from."""

    settings: Settings
    origins: Mapping[str, Origin]

    def rows(self) -> Iterator[SettingRow]:
        """Every setting in declaration order, with its value, origin and description."""
        for key, field in _leaves(Settings):
            value: Any = self.settings
            for part in key.split("."):
                value = getattr(value, part)
            yield SettingRow(key, value, self.origins[key], field.description or "")


def load_settings(
    stage: str = DEFAULT_STAGE,
    overrides: Iterable[str] = (),
    environ: Mapping[str, str] | None = None,
    config_dir: Path = CONFIG_DIR,
) -> LoadedSettings:
    """Merge and validate the layers of settings.

    Args:
        stage: Which ``<stage>.yaml`` of `config_dir` is laid over ``default.yaml``.
        overrides: ``section.key=value`` strings, as given to ``--set``; the last one wins. ``null`` unsets what may be unset; a list is YAML.
        environ: Environment variables (an empty mapping ignores the process's environment; None reads it).
        config_dir: Folder with the YAML files.

    Raises:
        SettingsError: A file is missing or is not YAML, a key does not exist, or a value is not allowed; one line.
    """
    environ = os.environ if environ is None else environ
    values: dict[str, object] = {}
    origins: dict[str, Origin] = {}

    def put(layer: Mapping[str, tuple[object, Origin]]) -> None:
        for key, (value, origin) in layer.items():
            values[key], origins[key] = value, origin

    put(_file_layer(config_dir, "default"))
    put(_well_known_layer(environ))
    put(_file_layer(config_dir, stage))
    put({"stage": (stage, Origin("stage", "the stage"))})
    put(_environment_layer(environ))
    put(_override_layer(overrides))
    put(_project_layer(values))
    return LoadedSettings(_validate(values, origins), origins)


def _leaves(section: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Dotted key and field of every setting that holds a value (not a section)."""
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _leaves(field.annotation, f"{prefix}{name}.")
        else:
            yield prefix + name, field


def _sections(section: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield prefix + name
            yield from _sections(field.annotation, f"{prefix}{name}.")


def _file_layer(config_dir: Path, name: str) -> dict[str, tuple[object, Origin]]:
    path = config_dir / f"{name}.yaml"
    origin = Origin("file", f"{config_dir.name}/{path.name}")
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        stages = sorted(file.stem for file in config_dir.glob("*.yaml") if file.stem != "default")
        nearest = _nearest(name, stages, cutoff=0.5)
        allowed = f"the stages are {', '.join(stages)}" if stages else f"there is no stage file in {config_dir}"
        raise SettingsError(
            f"configuration file {path} does not exist{_suggestion(nearest)}; {allowed}",
            key=str(path),
            value=name,
            allowed=allowed,
            nearest=nearest,
        ) from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        text = " ".join(str(error).split())
        raise SettingsError(f"configuration file {path} cannot be read: {text}", key=str(path), allowed="a readable YAML file") from None
    if document is None:
        return {}
    layer: dict[str, tuple[object, Origin]] = {}
    _flatten(document, "", origin, layer, frozenset(_sections(Settings)))
    return layer


def _flatten(document: object, key: str, origin: Origin, layer: dict[str, tuple[object, Origin]], sections: frozenset[str]) -> None:
    """Collect the settings of a YAML document under dotted keys."""
    if key and key not in sections:
        layer[_known(key, origin)] = (document, origin)
        return
    if not isinstance(document, dict):
        where = f"{key} (from {origin})" if key else f"{origin}"
        raise SettingsError(
            f"{where} = {document!r} is not allowed; allowed: a mapping of settings", key=key or str(origin), value=document
        )
    for name, value in document.items():
        _flatten(value, f"{key}.{name}" if key else str(name), origin, layer, sections)


def _well_known_layer(environ: Mapping[str, str]) -> dict[str, tuple[object, Origin]]:
    layer: dict[str, tuple[object, Origin]] = {}
    for key, variables in _WELL_KNOWN_VARIABLES:
        for variable in variables:
            if environ.get(variable):
                layer[key] = (environ[variable], Origin("environment", variable))
                break
    return layer


def _environment_layer(environ: Mapping[str, str]) -> dict[str, tuple[object, Origin]]:
    layer: dict[str, tuple[object, Origin]] = {}
    for variable in sorted(environ):
        if variable.startswith(ENVIRONMENT_PREFIX) and "__" in variable:
            origin = Origin("environment", variable)
            key = _known(variable.removeprefix(ENVIRONMENT_PREFIX).lower().replace("__", "."), origin)
            layer[key] = (_from_text(key, environ[variable], origin), origin)
    return layer


def _override_layer(overrides: Iterable[str]) -> dict[str, tuple[object, Origin]]:
    layer: dict[str, tuple[object, Origin]] = {}
    for override in overrides:
        key, separator, text = override.partition("=")
        key = key.strip()
        origin = Origin("override", f"--set {key}")
        if not separator:
            raise SettingsError(
                f"--set {override}: write section.key=value, as in --set training.epochs=10", key=override, allowed="section.key=value"
            )
        key = _known(key, origin)
        layer[key] = (_from_text(key, text.strip(), origin), origin)
    return layer


def _project_layer(values: Mapping[str, object]) -> dict[str, tuple[object, Origin]]:
    origin = Origin("setting", "project.name")
    return {
        key: (name.format(values.get("project.name")), origin) for key, name in _NAMES_OF_PROJECT.items() if values.get(key, "") is None
    }


def _known(key: str, origin: Origin) -> str:
    """The key itself when it names a setting that may be given; else SettingsError with the nearest name."""
    keys = [leaf for leaf, _ in _leaves(Settings) if leaf != "stage"]
    if key in keys:
        return key
    if key == "stage":
        raise SettingsError(f"stage (from {origin}) is not set like this; it is chosen with the configuration file, --stage NAME", key=key)
    prefix = f"{key}."
    inside = [leaf for leaf in keys if leaf.startswith(prefix)]
    if inside:
        allowed = ", ".join(inside)
        raise SettingsError(f"{key} (from {origin}) is a section, not a setting; it holds {allowed}", key=key, allowed=allowed)
    nearest = _nearest(key, keys)
    section = key.rpartition(".")[0]
    siblings = [leaf for leaf in keys if leaf.rpartition(".")[0] == section]
    allowed = (
        f"{section} has {', '.join(leaf.rpartition('.')[2] for leaf in siblings)}"
        if siblings
        else f"sections are {', '.join(_top_sections())}"
    )
    raise SettingsError(
        f"unknown setting {key} (from {origin}){_suggestion(nearest)}; {allowed}", key=key, allowed=allowed, nearest=nearest
    )


def _top_sections() -> list[str]:
    return [name for name in _sections(Settings) if "." not in name]


def _nearest(name: str, names: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The most similar of the names, by the whole dotted key or, for a key without its section, by the last part."""
    names = list(names)
    matches = difflib.get_close_matches(name, names, n=1, cutoff=cutoff)
    if not matches and "." not in name:
        last = {candidate.rpartition(".")[2]: candidate for candidate in reversed(names)}
        matches = [last[match] for match in difflib.get_close_matches(name, last, n=1, cutoff=0.6)]
    return matches[0] if matches else None


def _suggestion(nearest: str | None) -> str:
    return f" (did you mean {nearest}?)" if nearest else ""


def _from_text(key: str, text: str, origin: Origin) -> object:
    """Turn an environment variable's or an option's text into a value of the setting's kind; what does not fit is left for validation."""
    field = dict(_leaves(Settings))[key]
    kinds = _kinds(field.annotation)
    if (type(None) in kinds or key in _NAMES_OF_PROJECT) and text.lower() in ("null", "none", ""):
        return None
    if str in kinds:
        return text
    try:
        value: object = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    if float in kinds and isinstance(value, str):  # YAML 1.1 reads 1e-3 as a string
        try:
            return float(value)
        except ValueError:
            return text
    return value


def _kinds(annotation: object) -> set[type]:
    """The Python types an annotation stands for."""
    origin = typing.get_origin(annotation)
    if origin is Annotated:
        return _kinds(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        return set().union(*(_kinds(argument) for argument in typing.get_args(annotation)))
    if origin is Literal:
        return {type(argument) for argument in typing.get_args(annotation)}
    kind = origin or annotation
    return {kind} if isinstance(kind, type) else set()


def _validate(values: Mapping[str, object], origins: Mapping[str, Origin]) -> Settings:
    nested: dict[str, Any] = {}
    for key, value in values.items():
        *sections, name = key.split(".")
        target = nested
        for section in sections:
            target = target.setdefault(section, {})
        target[name] = value
    try:
        return Settings.model_validate(nested)
    except ValidationError as error:
        raise _settings_error(error, values, origins) from None


def _settings_error(error: ValidationError, values: Mapping[str, object], origins: Mapping[str, Origin]) -> SettingsError:
    """The first problem as one line: key, value, origin, what is allowed."""
    problem = error.errors(include_url=False)[0]
    location = [str(part) for part in problem["loc"]]
    leaves = dict(_leaves(Settings))
    key = next(
        (candidate for size in range(len(location), 0, -1) if (candidate := ".".join(location[:size])) in leaves), ".".join(location)
    )
    if problem["type"] == "missing" and key not in values:
        return SettingsError(f"setting {key} has no value; give it in config/default.yaml", key=key, allowed="a value")
    if key not in leaves:  # a rule between several settings of a section: its text says what is allowed
        allowed = str(problem.get("ctx", {}).get("error", problem["msg"]))
        given = ", ".join(
            f"{name} = {value!r}" for name, value in values.items() if name.startswith(f"{key}.") and name.rpartition(".")[2] in allowed
        )
        return SettingsError(f"{key}: {given} is not allowed; allowed: {allowed}", key=key, allowed=allowed)
    value = values[key]
    allowed = _allowed(leaves[key])
    options = [text for text in _options(leaves[key]) if isinstance(value, str)]
    nearest = _nearest(value, options) if isinstance(value, str) else None
    return SettingsError(
        f"{key} = {value!r} (from {origins[key]}) is not allowed; allowed: {allowed}{_suggestion(nearest)}",
        key=key,
        value=value,
        allowed=allowed,
        nearest=nearest,
    )


def _schema(field: FieldInfo) -> dict[str, Any]:
    annotated: Any = Annotated[field.annotation, field]
    return TypeAdapter(annotated).json_schema()


def _options(field: FieldInfo) -> list[str]:
    return [str(option) for option in _schema(field).get("enum", ())]


def _allowed(field: FieldInfo) -> str:
    """What a setting accepts, in words, from its JSON schema."""
    return _words(_schema(field))


def _words(schema: Mapping[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(_words(option) for option in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(str(option) for option in schema["enum"])
    if "const" in schema:
        return str(schema["const"])
    kind = schema.get("type")
    if kind == "null":
        return "null"
    if kind == "array":
        return f"a list, each item {_words(schema['items'])}" if "$ref" not in schema["items"] else "a list of {key: ..., value: ...}"
    if kind == "boolean":
        return "true or false"
    if kind in ("integer", "number"):
        noun = "a whole number" if kind == "integer" else "a number"
        low, high = schema.get("minimum"), schema.get("maximum")
        return noun + (f" from {low} to {high}" if high is not None else f" of at least {low}" if low is not None else "")
    examples = schema.get("examples")
    example = f" such as {examples[0]}" if examples else f" that matches {schema['pattern']}" if "pattern" in schema else ""
    length = f" of {schema.get('minLength', 0)} to {schema['maxLength']} characters" if "maxLength" in schema else ""
    return f"text{length}{example}"
