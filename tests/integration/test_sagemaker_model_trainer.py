"""What SageMaker SDK v3's ModelTrainer sends runs as it is: its driver scripts, code and data channels, without Docker."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pytest

from helpers_sagemaker import BUCKET, IMAGE, Lab, read_tar_gz

#: No usage figures are sent from tests.
QUIET = {"SchemaVersion": "1.0", "SageMaker": {"PythonSDK": {"Modules": {"TelemetryOptOut": True}}}}
TRAIN = """
import argparse, json, os, pathlib, sys
import beside
parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int)
parser.add_argument("--checkpoints")
arguments = parser.parse_args()
assert os.environ["SM_CHANNEL_TRAIN"].endswith("/input/data/train")
print(f"accuracy={beside.ACCURACY};")
pathlib.Path(arguments.checkpoints, "last").write_text(str(arguments.epochs))
pathlib.Path(os.environ["SM_MODEL_DIR"], "model").write_text(pathlib.Path(os.environ["SM_CHANNEL_TRAIN"], "a.txt").read_text())
pathlib.Path(os.environ["SM_OUTPUT_DATA_DIR"], "metrics.json").write_text(json.dumps(json.loads(os.environ["SM_HPS"])["epochs"]))
if arguments.epochs == 0:
    pathlib.Path(os.environ["SM_OUTPUT_DIR"], "failure").write_text("epochs must be at least 1")
    sys.exit(1)
"""


@pytest.fixture
def train(region: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], tuple[Lab, dict[str, Any]]]:
    # The SDK reads these when it is imported.
    monkeypatch.setenv("AWS_ENDPOINT_URL", region.endpoint_url)
    monkeypatch.setenv("SAGEMAKER_VALIDATE_ROLE", "false")
    from sagemaker.core.helper.session_helper import Session
    from sagemaker.core.training.configs import CheckpointConfig, Compute, InputData, MetricDefinition, OutputDataConfig, SourceCode
    from sagemaker.train.model_trainer import ModelTrainer

    lab = Lab(region)
    lab.put("train/a.txt", "A")
    (tmp_path / "train.py").write_text(TRAIN)
    (tmp_path / "beside.py").write_text("ACCURACY = 0.975\n")

    def run(epochs: int) -> tuple[Lab, dict[str, Any]]:
        trainer = ModelTrainer(
            training_image=IMAGE,
            role=lab.role,
            sagemaker_session=Session(boto3.Session(), default_bucket=BUCKET, sagemaker_config=QUIET),
            base_job_name=f"trainer-{epochs}",
            source_code=SourceCode(source_dir=str(tmp_path), entry_script="train.py"),
            compute=Compute(instance_type="ml.m5.large", instance_count=1),
            hyperparameters={"epochs": epochs, "checkpoints": "/opt/ml/checkpoints"},
            output_data_config=OutputDataConfig(s3_output_path=f"s3://{BUCKET}/out"),
            checkpoint_config=CheckpointConfig(s3_uri=f"s3://{BUCKET}/checkpoints", local_path="/opt/ml/checkpoints"),
        ).with_metric_definitions([MetricDefinition(name="accuracy", regex="accuracy=([0-9.]+)")])
        trainer.train(input_data_config=[InputData(channel_name="train", data_source=f"s3://{BUCKET}/train/")], wait=False, logs=False)
        [summary] = lab.sm.list_training_jobs(NameContains=f"trainer-{epochs}")["TrainingJobSummaries"]
        return lab, lab.trained(summary["TrainingJobName"])

    return run


def test_model_trainer_runs_without_docker(train: Callable[[int], tuple[Lab, dict[str, Any]]]) -> None:
    lab, job = train(2)
    assert job["TrainingJobStatus"] == "Completed", "\n".join(lab.lines("/aws/sagemaker/TrainingJobs", job["TrainingJobName"]))
    outputs = lab.objects(f"out/{job['TrainingJobName']}/output/")
    assert read_tar_gz(outputs["model.tar.gz"]) == {"model": b"A"}
    assert json.loads(read_tar_gz(outputs["output.tar.gz"])["metrics.json"]) == 2
    assert lab.objects("checkpoints/") == {"last": b"2"}
    assert [(metric["MetricName"], metric["Value"]) for metric in job["FinalMetricDataList"]] == [("accuracy", pytest.approx(0.975))]
    _, failed = train(0)
    assert failed["FailureReason"] == "AlgorithmError: epochs must be at least 1, exit code: 1"
