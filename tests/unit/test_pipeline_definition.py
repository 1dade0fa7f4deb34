"""The rendered definition: what AWS would execute, and that nothing in a cache key changes unless code, data or settings do."""

from __future__ import annotations

import json
import logging
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

import preprocess
from evaluate import parse_arguments
from pipelines import definition as definition_module
from pipelines.changes import EarlierRun, changed_inputs
from pipelines.code_store import STEPS_DIR, CodeBundle
from pipelines.definition import RenderedDefinition, load_definition, render_definition
from pipelines.definition_checks import definition_problems
from pipelines.errors import DefinitionError
from pipelines.platform import Platform
from pipelines.settings import Settings, load_settings
from recipe import parse_training_arguments

PLATFORM = Platform(
    region="us-east-1",
    bucket="scones-dev-123456789012-us-east-1",
    pipeline_role_arn="arn:aws:iam::123456789012:role/pipeline",
    job_role_arn="arn:aws:iam::123456789012:role/job",
    model_role_arn="arn:aws:iam::123456789012:role/model",
    model_package_group="scones-vehicle-classifier",
)
# https://docs.aws.amazon.com/sagemaker/latest/dg/pipelines-caching.html
CACHE_KEYS = {
    "Processing": ("AppSpecification", "Environment", "ProcessingInputs"),
    "Training": ("AlgorithmSpecification", "CheckpointConfig", "Environment", "HyperParameters", "InputDataConfig"),
}
FILES = {
    "entry.py": "",
    "preprocess.py": "",
    "train.py": "",
    "evaluate.py": "",
    "requirements.txt": "",
    "metric_definitions.json": json.dumps([{"Name": "train:loss", "Regex": "loss=([0-9.]+)"}]),
}


@pytest.fixture
def steps_dir(tmp_path: Path) -> Path:
    """A folder of job scripts that a test may change."""
    folder = tmp_path / "steps"
    folder.mkdir()
    for name, content in FILES.items():
        (folder / name).write_text(content, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> RenderedDefinition:
    """The definition with the default settings."""
    folder = tmp_path_factory.mktemp("steps")
    for name, content in FILES.items():
        (folder / name).write_text(content, encoding="utf-8")
    return render(folder)


@pytest.fixture(scope="module")
def document(rendered: RenderedDefinition) -> dict[str, Any]:
    return rendered.document


def settings(*overrides: str) -> Settings:
    return load_settings("dev", overrides, {}).settings


def boto_session() -> boto3.Session:
    return boto3.Session(region_name=PLATFORM.region, aws_access_key_id="test", aws_secret_access_key="test")


def render(
    steps_dir: Path, *overrides: str, revision: str | None = "abc123", module_name: str = "pipelines.pipeline"
) -> RenderedDefinition:
    return render_definition(
        settings(*overrides), PLATFORM, boto_session(), revision=revision, steps_dir=steps_dir, module_name=module_name
    )


def all_steps(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}

    def collect(steps: list[dict[str, Any]]) -> None:
        for step in steps:
            found[step["Name"]] = step
            collect(step["Arguments"].get("IfSteps", []))
            collect(step["Arguments"].get("ElseSteps", []))

    collect(document["Steps"])
    return found


def references(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            if key == "Get":
                yield str(item)
            yield from references(item)
    elif isinstance(value, list):
        for item in value:
            yield from references(item)


def cache_relevant(document: dict[str, Any]) -> dict[str, Any]:
    jobs = (step for step in all_steps(document).values() if step["Type"] in CACHE_KEYS)
    return {f"{step['Name']}.{name}": step["Arguments"].get(name) for step in jobs for name in CACHE_KEYS[step["Type"]]}


def options(arguments: list[str]) -> dict[str, str]:
    return dict(zip(arguments[::2], arguments[1::2], strict=True))


def test_steps_and_parameters_are_the_documented_ones(document: dict[str, Any]) -> None:
    assert [step["Name"] for step in document["Steps"]] == ["Preprocess", "Train", "Evaluate", "QualityGate"]
    gate = document["Steps"][-1]["Arguments"]
    assert [step["Name"] for step in gate["IfSteps"]] == ["RegisterModel", "CreateModel", "EndpointConfig", "StagingEndpoint"]
    assert [step["Name"] for step in gate["ElseSteps"]] == ["QualityGateMissed"]
    parameters = {item["Name"]: (item["Type"], item.get("DefaultValue")) for item in document["Parameters"]}
    assert parameters == {
        "InputDataUri": ("String", None),
        "MinimumAccuracy": ("Float", settings().quality_gate.minimum_accuracy),
        "Epochs": ("Integer", settings().training.epochs),
        "Seed": ("Integer", settings().training.seed),
        "ProcessingInstanceType": ("String", "ml.m5.xlarge"),
        "TrainingInstanceType": ("String", "ml.m5.2xlarge"),
        "ModelApprovalStatus": ("String", "PendingManualApproval"),
        "ChampionModelUri": ("String", f"s3://{PLATFORM.bucket}/champion/none/"),
    }


def test_every_step_reads_well_in_studio(document: dict[str, Any]) -> None:
    for step in all_steps(document).values():
        assert step["DisplayName"] != step["Name"]
        assert step["Description"].endswith(".")


def test_the_definition_passes_every_check(rendered: RenderedDefinition) -> None:
    assert definition_problems(rendered.text) == []


def test_the_same_project_gives_the_same_bytes(rendered: RenderedDefinition, steps_dir: Path) -> None:
    again = render(steps_dir)
    assert again.text == rendered.text
    assert again.code.bundles == rendered.code.bundles


def test_what_is_in_a_cache_key_names_content_only(document: dict[str, Any]) -> None:
    relevant = cache_relevant(document)
    assert len([name for name, value in relevant.items() if value]) >= 8
    assert not [reference for reference in references(relevant) if reference.startswith("Execution.")]
    # a date, a time, or seconds since 1970, in any of the spellings of the SDK's unique names
    assert not re.findall(r"\d{4}-\d\d-\d\d|(?<![0-9a-f])(\d{10}|\d{13,17})(?![0-9a-f])", json.dumps(relevant))
    for name in ("Preprocess", "Train", "Evaluate"):
        assert all_steps(document)[name]["CacheConfig"] == {"Enabled": True, "ExpireAfter": "P30D"}


def test_outputs_lie_under_the_execution(document: dict[str, Any]) -> None:
    steps = all_steps(document)
    outputs = [
        output["S3Output"]["S3Uri"]
        for name in ("Preprocess", "Evaluate")
        for output in steps[name]["Arguments"]["ProcessingOutputConfig"]["Outputs"]
    ]
    for uri in [*outputs, steps["Train"]["Arguments"]["OutputDataConfig"]["S3OutputPath"]]:
        assert uri["Std:Join"]["Values"][1] == {"Get": "Execution.PipelineExecutionId"}


def code_uris(document: dict[str, Any]) -> dict[str, str]:
    steps = all_steps(document)
    uris = {
        name: next(item["S3Input"]["S3Uri"] for item in steps[name]["Arguments"]["ProcessingInputs"] if item["InputName"] == "code")
        for name in ("Preprocess", "Evaluate")
    }
    channels = steps["Train"]["Arguments"]["InputDataConfig"]
    return uris | {"Train": next(item["DataSource"]["S3DataSource"]["S3Uri"] for item in channels if item["ChannelName"] == "code")}


def test_changing_a_step_file_changes_the_code_prefix_and_only_then(document: dict[str, Any], steps_dir: Path) -> None:
    before = code_uris(document)
    assert len(set(before.values())) == 1
    (steps_dir / "__pycache__").mkdir()
    (steps_dir / "__pycache__" / "train.cpython-311.pyc").write_bytes(b"compiled")
    (steps_dir / ".train.py.swp").write_bytes(b"an editor's file")
    os.utime(steps_dir / "train.py", (0, 0))
    assert code_uris(render(steps_dir).document) == before
    (steps_dir / "train.py").write_text("# changed\n", encoding="utf-8")
    after = code_uris(render(steps_dir).document)
    assert len(set(after.values())) == 1
    assert set(after.values()).isdisjoint(before.values())


def test_a_file_s_name_is_part_of_its_bundle() -> None:
    digests = {
        CodeBundle(files).digest for files in ({"a": b"x", "b": b"y"}, {"a": b"y", "b": b"x"}, {"ab": b"xy"}, {"a": b"x"}, {"b": b"x"})
    }
    assert len(digests) == 5


def test_settings_that_do_not_reach_a_job_change_no_cache_key(document: dict[str, Any], steps_dir: Path) -> None:
    other = render(
        steps_dir, "quality_gate.minimum_accuracy=0.5", "training.epochs=3", "processing.instance_type=ml.c5.xlarge", revision="def456"
    ).document
    assert other != document
    assert cache_relevant(other) == cache_relevant(document)


def test_everything_referred_to_is_in_the_code_store(rendered: RenderedDefinition) -> None:
    prefixes = set(re.findall(rf"s3://{PLATFORM.bucket}/(code/[0-9a-f]{{64}}/)", rendered.text))
    assert prefixes == {f"code/{digest}/" for digest in rendered.code.bundles}
    names = {name for bundle in rendered.code.bundles.values() for name in bundle.files}
    assert {"entry.py", "sm_train.sh", "sample_payload.tar.gz"} <= names


def test_upload_stages_what_is_missing_and_nothing_twice(rendered: RenderedDefinition) -> None:
    from moto import mock_aws

    with mock_aws():
        s3 = boto3.client("s3", region_name="us-east-1")
        s3.create_bucket(Bucket=PLATFORM.bucket)
        files = sum(len(bundle.files) for bundle in rendered.code.bundles.values())
        assert rendered.code.upload(s3) == files
        assert rendered.code.upload(s3) == 0
        digest = CodeBundle({name: content.encode() for name, content in FILES.items()}).digest
        s3.delete_object(Bucket=PLATFORM.bucket, Key=f"code/{digest}/train.py")
        assert rendered.code.upload(s3) == 1


def test_jobs_run_scripts_of_the_staged_folder(document: dict[str, Any]) -> None:
    steps = all_steps(document)
    for name, script in (("Preprocess", "preprocess.py"), ("Evaluate", "evaluate.py")):
        arguments = steps[name]["Arguments"]
        code = next(item["S3Input"]["LocalPath"] for item in arguments["ProcessingInputs"] if item["InputName"] == "code")
        assert arguments["AppSpecification"]["ContainerEntrypoint"] == ["python3", f"{code}/entry.py", script]
        assert options(arguments["AppSpecification"]["ContainerArguments"])["--failure-file"] == "/opt/ml/output/message"
    files = {file.name for file in STEPS_DIR.iterdir()}
    assert set(FILES) <= files
    metrics = steps["Train"]["Arguments"]["AlgorithmSpecification"]["MetricDefinitions"]
    assert metrics == json.loads(FILES["metric_definitions.json"])


def test_the_preprocess_script_takes_its_arguments(document: dict[str, Any]) -> None:
    arguments = all_steps(document)["Preprocess"]["Arguments"]
    given = preprocess._parser().parse_args(arguments["AppSpecification"]["ContainerArguments"])
    inputs = {item["S3Input"]["LocalPath"] for item in arguments["ProcessingInputs"]}
    outputs = {item["S3Output"]["LocalPath"] for item in arguments["ProcessingOutputConfig"]["Outputs"]}
    assert str(given.input) in inputs
    assert {str(folder) for folder in (given.train, given.validation, given.test, given.report)} == outputs
    assert given.validation_fraction == settings().data.validation_fraction


def test_the_evaluate_script_takes_its_arguments(document: dict[str, Any]) -> None:
    arguments = all_steps(document)["Evaluate"]["Arguments"]
    champion = {"Get": "Parameters.ChampionModelUri"}
    texts = ["s3://bucket/model.tar.gz" if part == champion else part for part in arguments["AppSpecification"]["ContainerArguments"]]
    given = parse_arguments(texts)
    inputs = {item["InputName"]: item["S3Input"]["LocalPath"] for item in arguments["ProcessingInputs"]}
    outputs = [item["S3Output"]["LocalPath"] for item in arguments["ProcessingOutputConfig"]["Outputs"]]
    assert {name: str(getattr(given, name)) for name in ("model", "test", "champion")} == {
        name: path for name, path in inputs.items() if name != "code"
    }
    assert [str(given.output)] == outputs
    assert (given.threshold, given.champion_tolerance, given.champion_uri) == (0.93, 0.01, "s3://bucket/model.tar.gz")


def test_the_train_script_takes_its_hyperparameters(steps_dir: Path) -> None:
    overrides = ("training.recipe.image_size=96", "training.recipe.full_fine_tuning=true", "training.recipe.learning_rate=0.002")
    hyperparameters = all_steps(render(steps_dir, *overrides).document)["Train"]["Arguments"]["HyperParameters"]
    assert {name for name, value in hyperparameters.items() if isinstance(value, dict)} == {"epochs", "seed"}
    resolved = {name: "7" if isinstance(value, dict) else value for name, value in hyperparameters.items()}
    arguments = [part for name, value in resolved.items() for part in (f"--{name}", value)]
    channels = {"SM_CHANNEL_TRAIN": "t", "SM_CHANNEL_VALIDATION": "v", "SM_MODEL_DIR": "m", "SM_OUTPUT_DATA_DIR": "d", "SM_OUTPUT_DIR": "o"}
    recipe, paths = parse_training_arguments(arguments, channels)
    assert (recipe.epochs, recipe.seed, recipe.image_size, recipe.full_fine_tuning, recipe.learning_rate) == (7, 7, 96, True, 0.002)
    assert str(paths.checkpoint_dir) == "/opt/ml/checkpoints"


def test_checkpoints_belong_to_code_recipe_data_epochs_and_seed(document: dict[str, Any], steps_dir: Path) -> None:
    def prefix(document: dict[str, Any]) -> list[Any]:
        join = all_steps(document)["Train"]["Arguments"]["CheckpointConfig"]["S3Uri"]["Std:Join"]["Values"]
        assert list(references(join)) == ["Steps.Preprocess.ProcessingJobName", "Parameters.Epochs", "Parameters.Seed"]
        return list(join)

    assert prefix(render(steps_dir, "training.recipe.copies=2").document) != prefix(document)
    (steps_dir / "train.py").write_text("# changed\n", encoding="utf-8")
    assert prefix(render(steps_dir).document) != prefix(document)


def test_the_quality_gate_compares_with_minimum_and_champion_and_says_both(document: dict[str, Any]) -> None:
    def figure(name: str) -> dict[str, Any]:
        return {"Std:JsonGet": {"PropertyFile": {"Get": "Steps.Evaluate.PropertyFiles.EvaluationReport"}, "Path": f"scones.{name}"}}

    steps = all_steps(document)
    assert steps["Evaluate"]["PropertyFiles"] == [
        {"PropertyFileName": "EvaluationReport", "OutputName": "evaluation", "FilePath": "evaluation.json"}
    ]
    accuracy, floor, minimum = figure("accuracy"), figure("accuracy_floor_from_champion"), {"Get": "Parameters.MinimumAccuracy"}
    assert steps["QualityGate"]["Arguments"]["Conditions"] == [
        {"Type": "GreaterThanOrEqualTo", "LeftValue": accuracy, "RightValue": minimum},
        {"Type": "GreaterThanOrEqualTo", "LeftValue": accuracy, "RightValue": floor},
    ]
    values = steps["QualityGateMissed"]["Arguments"]["ErrorMessage"]["Std:Join"]["Values"]
    assert all(value in values for value in (accuracy, minimum, floor))


def test_the_registered_version_carries_what_a_reviewer_needs(document: dict[str, Any]) -> None:
    request = all_steps(document)["RegisterModel"]["Arguments"]
    assert request["ModelPackageGroupName"] == PLATFORM.model_package_group
    assert request["ModelApprovalStatus"] == {"Get": "Parameters.ModelApprovalStatus"}
    for part in ("ModelMetrics", "DriftCheckBaselines"):
        files = {
            (kind, role): source["S3Uri"]["Std:Join"]["Values"][-1]
            for kind, sources in request[part].items()
            for role, source in sources.items()
        }
        assert files == {
            ("ModelQuality", "Statistics"): "evaluation.json",
            ("ModelDataQuality", "Statistics"): "statistics.json",
            ("ModelDataQuality", "Constraints"): "constraints.json",
        }
    properties = request["CustomerMetadataProperties"]
    assert properties["git_commit"] == "abc123"
    assert properties["dataset_digest"]["Std:JsonGet"]["Path"] == "scones.dataset_digest"
    assert properties["input_data_uri"] == {"Get": "Parameters.InputDataUri"}
    assert properties["pipeline_execution_arn"] == {"Get": "Execution.PipelineExecutionArn"}
    inference = request["InferenceSpecification"]
    assert inference["SupportedContentTypes"] == ["image/png", "image/jpeg", "image/webp", "application/x-image"]
    assert inference["SupportedResponseMIMETypes"] == ["application/json"]
    assert (request["Domain"], request["Task"]) == ("COMPUTER_VISION", "IMAGE_CLASSIFICATION")
    assert request["SamplePayloadUrl"].endswith("/sample_payload.tar.gz")


def test_staging_serves_the_registered_container(document: dict[str, Any]) -> None:
    steps = all_steps(document)
    assert (
        steps["CreateModel"]["Arguments"]["PrimaryContainer"]
        == steps["RegisterModel"]["Arguments"]["InferenceSpecification"]["Containers"][0]
    )
    config = steps["EndpointConfig"]["Arguments"]
    assert config["EndpointConfigName"]["Std:Join"] == {"On": "-", "Values": ["scones-staging", {"Get": "Execution.PipelineExecutionId"}]}
    assert config["ProductionVariants"][0]["ModelName"] == {"Get": "Steps.CreateModel.ModelName"}
    assert config["ProductionVariants"][0]["ServerlessConfig"] == {"MemorySizeInMB": 3072, "MaxConcurrency": 5}
    endpoint = steps["StagingEndpoint"]["Arguments"]
    assert (endpoint["EndpointName"], endpoint["EndpointConfigName"]) == (
        "scones-staging",
        {"Get": "Steps.EndpointConfig.EndpointConfigName"},
    )
    assert "CacheConfig" not in steps["StagingEndpoint"]


def test_the_sample_payload_is_an_archive_with_an_image(rendered: RenderedDefinition) -> None:
    import io
    import tarfile

    from PIL import Image

    payload = next(
        bundle.files["sample_payload.tar.gz"] for bundle in rendered.code.bundles.values() if "sample_payload.tar.gz" in bundle.files
    )
    with tarfile.open(fileobj=io.BytesIO(payload), mode="r:gz") as archive:
        (member,) = archive.getmembers()
        content = archive.extractfile(member)
        assert content is not None
        image = Image.open(io.BytesIO(content.read()))
        image.load()
    assert (image.format, image.mode, image.size) == ("PNG", "RGB", (128, 128))
    assert len(image.getcolors(maxcolors=128 * 128) or []) > 1000


def test_retries_cover_faults_that_are_not_the_code_s(document: dict[str, Any]) -> None:
    steps = all_steps(document)
    for name in ("Preprocess", "Train", "Evaluate"):
        covered = {kind for policy in steps[name]["RetryPolicies"] for kind in policy["ExceptionType"]}
        assert covered == {
            "Step.SERVICE_FAULT",
            "Step.THROTTLING",
            "SageMaker.RESOURCE_LIMIT",
            "SageMaker.JOB_INTERNAL_ERROR",
            "SageMaker.CAPACITY_ERROR",
        }
        assert all("MaxAttempts" in policy for policy in steps[name]["RetryPolicies"])
    for name in ("RegisterModel", "CreateModel", "EndpointConfig"):  # SageMaker takes no job policies here
        assert {kind for policy in steps[name]["RetryPolicies"] for kind in policy["ExceptionType"]} == {
            "Step.SERVICE_FAULT",
            "Step.THROTTLING",
        }


def test_tracking_reaches_every_job_and_only_when_set(document: dict[str, Any], steps_dir: Path) -> None:
    jobs = ("Preprocess", "Train", "Evaluate")
    assert not any(all_steps(document)[name]["Arguments"].get("Environment") for name in jobs)
    tracked = all_steps(render(steps_dir, "mlflow.tracking_uri=https://mlflow.example.com").document)
    for name in jobs:
        assert tracked[name]["Arguments"]["Environment"]["MLFLOW_TRACKING_URI"] == "https://mlflow.example.com"


def test_an_instance_endpoint_spot_training_gpus_and_own_images(steps_dir: Path) -> None:
    rendered = render(
        steps_dir,
        "staging_endpoint.kind=instance",
        "training.spot=true",
        "training.instance_type=ml.g5.xlarge",
        "images.inference=123456789012.dkr.ecr.us-east-1.amazonaws.com/own:1",
        "project.tags=[{key: team, value: vision}]",
        "pipeline.cache.enabled=false",
    )
    assert definition_problems(rendered.text) == []
    steps = all_steps(rendered.document)
    assert steps["EndpointConfig"]["Arguments"]["ProductionVariants"][0]["InstanceType"] == "ml.m5.large"
    train = steps["Train"]["Arguments"]
    assert train["EnableManagedSpotTraining"] is True
    assert train["StoppingCondition"] == {"MaxRuntimeInSeconds": 7200, "MaxWaitTimeInSeconds": 14400}
    assert "-gpu-" in train["AlgorithmSpecification"]["TrainingImage"]
    assert steps["CreateModel"]["Arguments"]["PrimaryContainer"]["Image"].endswith("/own:1")
    assert {"Key": "team", "Value": "vision"} in train["Tags"]
    assert steps["Train"]["CacheConfig"]["Enabled"] is False
    drivers = next(bundle for bundle in rendered.code.bundles.values() if "sm_train.sh" in bundle.files)
    assert b"torchrun_driver.py" in drivers.files["sm_train.sh"]


def test_rendering_makes_no_connection_and_leaves_the_process_as_it_was(steps_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    attempts: list[object] = []

    def refuse(self: socket.socket, address: object) -> None:
        attempts.append(address)
        raise OSError("no network in this test")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    monkeypatch.delenv("AWS_REGION")
    environment, handlers, level = dict(os.environ), list(logging.getLogger().handlers), logging.getLogger().level
    render(steps_dir)
    assert attempts == []
    assert (dict(os.environ), logging.getLogger().handlers, logging.getLogger().level) == (environment, handlers, level)


def test_a_definition_is_read_back_until_something_it_is_made_from_changes(
    steps_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rendered: list[RenderedDefinition] = []

    def counted(*arguments: Any, **keywords: Any) -> RenderedDefinition:
        rendered.append(render_definition(*arguments, **keywords))
        return rendered[-1]

    monkeypatch.setattr(definition_module, "render_definition", counted)

    def load(*overrides: str, revision: str = "abc123") -> RenderedDefinition:
        return load_definition(
            settings(*overrides), PLATFORM, boto_session(), revision=revision, steps_dir=steps_dir, cache_dir=tmp_path / "cache"
        )

    first = load()
    assert (load().text, load().code.bundles, len(rendered)) == (first.text, first.code.bundles, 1)
    (steps_dir / "train.py").write_text("# changed\n", encoding="utf-8")
    assert load("training.epochs=3", revision="def456").text != first.text
    assert len(rendered) == 2
    (tmp_path / "cache" / "definition.json").write_text('{"key": 1', encoding="utf-8")
    assert load("training.epochs=3", revision="def456").text == rendered[1].text
    assert len(rendered) == 3


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(steps_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder would be", encoding="utf-8")
    loaded = load_definition(settings(), PLATFORM, boto_session(), steps_dir=steps_dir, cache_dir=tmp_path / "cache")
    assert loaded.document["Steps"]


def test_a_missing_module_function_or_folder_is_one_line(steps_dir: Path, tmp_path: Path) -> None:
    for module_name in ("pipelines.abalone.pipeline", "nowhere.pipeline", "pipelines.errors"):
        with pytest.raises(DefinitionError, match=r"the pipeline of this project is pipelines\.pipeline"):
            render(steps_dir, module_name=module_name)
    with pytest.raises(DefinitionError, match="does not exist or is empty"):
        render(tmp_path / "nowhere")


def test_a_definition_that_sagemaker_would_refuse_is_not_handed_out(steps_dir: Path) -> None:
    with pytest.raises(DefinitionError, match=r"step Preprocess: CreateProcessingJob: .*ml\.m5\.huge"):
        load_definition(settings("processing.instance_type=ml.m5.huge"), PLATFORM, boto_session(), steps_dir=steps_dir)


# What a model depends on


def test_only_what_a_model_depends_on_counts_as_a_change(steps_dir: Path, rendered: RenderedDefinition) -> None:
    data = {"InputDataUri": "s3://bucket/raw/1/", "ChampionModelUri": "s3://bucket/champion/none/"}
    earlier = EarlierRun("arn", "Succeeded", rendered.document, {**data, "Epochs": "10", "MinimumAccuracy": "0.90"})

    def changed(definition: RenderedDefinition, **parameters: str) -> list[str]:
        return changed_inputs(earlier, definition.document, data | parameters)

    assert changed(rendered) == []
    assert changed(render(steps_dir, revision="def456")) == []
    assert changed(rendered, ChampionModelUri="s3://bucket/runs/1/model.tar.gz") == []
    assert changed(rendered, InputDataUri="s3://bucket/raw/2/") == ["InputDataUri"]
    assert changed(render(steps_dir, "training.epochs=11")) == ["Epochs"]
    assert changed(render(steps_dir, "staging_endpoint.serverless_memory_mb=4096")) == ["EndpointConfig"]
    assert changed(render(steps_dir, "training.recipe.preset=quick")) == ["Train"]
    (steps_dir / "train.py").write_text("print()", encoding="utf-8")
    assert set(changed(render(steps_dir))) >= {"Preprocess", "Train", "Evaluate"}
