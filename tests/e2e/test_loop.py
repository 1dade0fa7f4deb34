"""The whole loop as a user goes through it: every command is typed, every answer is read.

The tests share one state folder and run in the order of this file; each says in its name what it relies on having happened.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Clients
from helpers_permissions import UNUSED, Role, listed_as_unused, not_needed, refused, roles_of, unused, usage_of

from staging.sample import write_sample

ROOT = Path(__file__).resolve().parents[2]
#: Small and quick: the drawn sample at its full size is `make demo`'s.
QUICK = ("--set", "training.recipe.preset=quick", "--set", "training.epochs=2", "--set", "training.recipe.image_size=64")
GATE = ("--set", "quality_gate.minimum_accuracy=0.6")
#: What a shell may have set, each of which would lead boto3 elsewhere or break it: everything here works in spite of it.
NOWHERE = "http://127.0.0.1:9"
FOREIGN_SHELL = {
    "AWS_PROFILE": "missing",
    "AWS_DEFAULT_PROFILE": "missing",
    "AWS_ENDPOINT_URL": NOWHERE,
    "AWS_ENDPOINT_URL_S3": NOWHERE,
    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true",
    "AWS_MAX_ATTEMPTS": "0",
    "AWS_DEFAULT_REGION": "eu-central-1",
    "HTTP_PROXY": NOWHERE,
    "http_proxy": NOWHERE,
    "no_proxy": "intranet",
}


class Scones:
    """The command line on a state folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state_dir = folder / "[/b] Räder"
        self._clients: dict[str, Clients] = {}
        self.aws_config = folder / "aws-config"
        self.aws_config.write_text("[default]\nignore_configured_endpoint_urls = true\ns3 =\n  use_accelerate_endpoint = true\n")

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Type a command and do not wait for its end."""
        env = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "MLFLOW_"))}
        env |= {**FOREIGN_SHELL, "AWS_CONFIG_FILE": str(self.aws_config), "SCONES_STATE_DIR": str(self.state_dir), "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-c", "from scones.cli import main; main()", *arguments]
        return subprocess.Popen(command, cwd=self.folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        process = self.start(*arguments)
        try:
            output, errors = process.communicate(timeout=300)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        return subprocess.CompletedProcess(process.args, process.returncode, output, errors)

    def json(self, *arguments: str, code: int = 0) -> Any:
        result = self(*arguments, "--json")
        assert result.returncode == code, result.stdout + result.stderr
        assert "Traceback" not in result.stderr
        return json.loads(result.stdout)

    @property
    def running(self) -> dict[str, Any]:
        status: dict[str, Any] = json.loads((self.state_dir / "localcloud" / "running.json").read_text())
        return status

    def client(self, service: str) -> Any:
        url = self.running["endpoint_url"]
        return self._clients.setdefault(url, Clients(url)).client(service)

    def processes(self) -> list[str]:
        """Return the command lines of everything that works on the state folder."""
        listing = subprocess.run(["ps", "-A", "-o", "pid=,stat=,command="], capture_output=True, text=True, check=True).stdout
        return [line for line in listing.splitlines() if str(self.state_dir) in line and " Z" not in line[:20]]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sample(tmp_path_factory.mktemp("photos") / "vehicles", 200, 7)


@pytest.fixture(scope="module")
def scones(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scones]:
    command = Scones(tmp_path_factory.mktemp("clone"))
    yield command
    command("down")
    assert command.processes() == []


@pytest.fixture(scope="module")
def demo(scones: Scones, photos: Path) -> dict[str, Any]:
    result: dict[str, Any] = scones.json("demo", "--data", str(photos), *QUICK, *GATE)
    return result


def production(scones: Scones) -> tuple[str, str]:
    """Return which version is in production, and how its stack is."""
    (stack,) = scones.client("cloudformation").describe_stacks(StackName="scones-inference")["Stacks"]
    (version,) = (item["ParameterValue"] for item in stack["Parameters"] if item["ParameterKey"] == "ModelPackageArn")
    return version.rpartition("/")[2], stack["StackStatus"]


def shown(scones: Scones) -> dict[str, Any]:
    """Return what must not change when something fails: versions, both endpoints, the stack."""
    sagemaker = scones.client("sagemaker")
    endpoints = {
        name: sagemaker.describe_endpoint(EndpointName=name)["EndpointConfigName"] for name in ("scones-staging", "scones-production")
    }
    packages = sagemaker.list_model_packages(ModelPackageGroupName="scones-vehicle-classifier")["ModelPackageSummaryList"]
    versions = [(package["ModelPackageVersion"], package["ModelApprovalStatus"]) for package in packages]
    return {"endpoints": endpoints, "versions": versions, "deployment": production(scones)}


# --- What the demo did ---------------------------------------------------------------------------------------------------------------------


def test_the_demo_goes_from_images_to_an_accepted_and_a_reviewed_photo(demo: dict[str, Any]) -> None:
    assert demo["status"] == "Succeeded"
    assert [step["name"] for step in demo["steps"] if step["status"] == "Succeeded"] == [step["name"] for step in demo["steps"]]
    assert {step["name"] for step in demo["steps"]} == {
        "Preprocess", "Train", "Evaluate", "QualityGate", "RegisterModel", "CreateModel", "EndpointConfig", "StagingEndpoint"
    }  # fmt: skip
    accepted, reviewed = demo["photos"]
    assert (accepted["decision"], reviewed["decision"]) == ("accepted", "needs_review")
    assert accepted["confidence"] > reviewed["confidence"]
    assert 0 <= demo["metrics"]["confidence_interval"][0] <= demo["metrics"]["accuracy"] <= demo["metrics"]["confidence_interval"][1] <= 1
    assert demo["production"]["ModelPackageArn"] == demo["model_package_arn"]


def test_the_execution_result_has_the_contracts_fields(demo: dict[str, Any]) -> None:
    for photo in demo["photos"]:
        assert set(photo) >= {"image", "decision", "predicted_label", "confidence", "inferences", "s3_bucket", "s3_key"}
        assert photo["predicted_label"] in ("bicycle", "motorcycle")
        assert photo["confidence"] == pytest.approx(max(photo["inferences"]))
        assert sum(photo["inferences"]) == pytest.approx(1, abs=1e-4)


def test_the_photo_for_review_waits_in_the_queue(scones: Scones, demo: dict[str, Any]) -> None:
    messages = scones.client("sqs").receive_message(QueueUrl=demo["production"]["ReviewQueueUrl"], WaitTimeSeconds=1)["Messages"]
    assert demo["photos"][1]["s3_key"] in messages[0]["Body"]


def test_the_report_is_a_page_with_every_picture_beside_it(demo: dict[str, Any]) -> None:
    page = Path(demo["report"]).read_text()
    pictures = list(Path(demo["report"]).parent.glob("*.png"))
    assert len(pictures) >= 3
    for picture in pictures:
        assert f'src="{picture.name}"' in page
    assert "<svg" in page


def test_mlflow_has_one_parent_run_with_the_jobs_as_children(scones: Scones, demo: dict[str, Any]) -> None:
    database = sqlite3.connect(demo["mlflow"].removeprefix("sqlite:///"))
    parents = dict(database.execute("SELECT run_uuid, value FROM tags WHERE key = 'mlflow.parentRunId'").fetchall())
    names = dict(database.execute("SELECT run_uuid, value FROM tags WHERE key = 'mlflow.runName'").fetchall())
    execution = demo["execution_arn"].rpartition("/")[2]
    parent = next(run for run, name in names.items() if name == execution)
    assert sorted(names[child] for child, of in parents.items() if of == parent) == ["Evaluate", "Preprocess", "Train"]
    epochs = database.execute("SELECT COUNT(*) FROM metrics WHERE key = 'validation_accuracy'").fetchone()[0]
    assert epochs >= 2
    bad = database.execute("SELECT COUNT(*) FROM metrics WHERE is_nan = 1 OR value IN (-1, -999, 999)").fetchone()[0]
    assert bad == 0


def test_status_shows_the_steps_and_what_serves(scones: Scones, demo: dict[str, Any]) -> None:
    status = scones.json("status")
    assert status["execution"]["execution_arn"] == demo["execution_arn"]
    assert {endpoint["endpoint"]: endpoint["status"] for endpoint in status["endpoints"]} == {
        "scones-staging": "InService",
        "scones-production": "InService",
    }
    assert status["deployment"]["model_package_arn"] == demo["model_package_arn"]
    assert scones.json("status", demo["execution_arn"].rpartition("/")[2][:6])["execution"] == status["execution"]
    text = scones("status").stdout
    for word in ("Succeeded", demo["execution_arn"], "scones-production: InService"):
        assert word in text


def test_logs_are_found_by_step_function_and_endpoint(scones: Scones, demo: dict[str, Any]) -> None:
    assert any("accuracy" in line["message"] for line in scones.json("logs", "Evaluate")["lines"])
    assert any("START RequestId" in line["message"] for line in scones.json("logs", "image-classification")["lines"])
    assert scones.json("logs", "scones-production")["log_group"] == "/aws/sagemaker/Endpoints/scones-production"
    # Into a file or a pipe go the lines as they were written.
    lines = [line for line in scones("logs", "deploy-inference-workflow").stdout.splitlines() if line.startswith("{")]
    assert lines
    assert all(json.loads(line) for line in lines)
    result = scones("logs", "Trian")
    assert result.returncode == 2
    assert "Preprocess, Train, Evaluate" in result.stderr


def test_a_second_up_says_that_it_runs_already(scones: Scones, demo: dict[str, Any]) -> None:
    again = scones.json("up")
    assert again["already_running"]
    assert again["pid"] == scones.running["pid"]
    other = scones("up", "--port", "1" if scones.running["port"] != 1 else "2")
    assert other.returncode == 2
    assert len(other.stderr.splitlines()) == 2


# --- Photos, good and bad ------------------------------------------------------------------------------------------------------------------


def test_photos_with_any_name_are_classified(scones: Scones, demo: dict[str, Any], photos: Path) -> None:
    bucket = demo["photos"][0]["s3_bucket"]
    keys = [f"inbox/{name}" for name in ("a photo with spaces.png", "a+b.png", "Fahrräder/Straße 日本.png", "percent%2Bsign.png")]
    for key in keys:
        scones.client("s3").upload_file(str(next((photos / "bicycle").iterdir())), bucket, key)
    classified = scones.json("classify", *(f"s3://{bucket}/{key}" for key in keys))
    assert [photo["s3_key"] for photo in classified] == keys
    assert {photo["decision"] for photo in classified} <= {"accepted", "needs_review"}


def test_a_file_is_named_in_the_table_as_it_is(scones: Scones, demo: dict[str, Any], photos: Path) -> None:
    photo = scones.folder / "[red]bicycle[" / "].png"
    photo.parent.mkdir()
    shutil.copy(next((photos / "bicycle").iterdir()), photo)
    table = scones("classify", str(photo))
    assert table.returncode == 0, table.stderr
    assert "[red]bicycle[/].png" in table.stdout


def test_a_threshold_decides_between_accepted_and_review(scones: Scones, demo: dict[str, Any], photos: Path) -> None:
    photo = str(next((photos / "bicycle").iterdir()))
    low, high = (scones.json("classify", photo, "--threshold", threshold)[0] for threshold in ("0", "1"))
    assert low["decision"] == "accepted"
    assert high["decision"] == ("accepted" if high["confidence"] >= 1 else "needs_review")


def test_a_bad_photo_has_an_error_of_its_own(scones: Scones, demo: dict[str, Any], photos: Path) -> None:
    whole = next((photos / "bicycle").iterdir()).read_bytes()
    bad = {
        "empty.png": (b"", "EmptyImageError"),
        "notes.png": (b"this is no picture, whatever its name says", "UnsupportedImageError"),
        "truncated.png": (whole[: len(whole) // 2], "ModelRejectedImageError"),
        "huge.png": (b"\x89PNG\r\n\x1a\n" + b"\0" * 30_000_000, "ImageTooLargeError"),
    }
    bucket = demo["photos"][0]["s3_bucket"]
    for name, (content, _) in bad.items():
        (scones.folder / name).write_bytes(content)
        scones.client("s3").put_object(Bucket=bucket, Key=f"bad/{name}", Body=content)
    classified = scones.json("classify", *(f"s3://{bucket}/bad/{name}" for name in bad), code=1)
    assert [photo["error"] for photo in classified] == [error for _, error in bad.values()]
    assert not any("decision" in photo for photo in classified)
    assert all(len(photo["cause"]) > 20 for photo in classified)
    assert scones("classify", str(scones.folder / "truncated.png")).returncode == 1
    refused = scones("classify", *(str(scones.folder / name) for name in bad))
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "3 of 4 photos cannot be classified, so none was sent" in refused.stderr


def test_a_missing_photo_and_a_bucket_that_is_not_ours_have_errors_of_their_own(scones: Scones, demo: dict[str, Any]) -> None:
    bucket = demo["photos"][0]["s3_bucket"]
    missing, elsewhere = scones.json("classify", f"s3://{bucket}/nothing.png", "s3://no-such-bucket-at-all/x.png", code=1)
    assert missing["error"] == "ImageNotFoundError"
    assert "nothing.png" in missing["cause"]
    assert elsewhere["error"] in ("ImageNotFoundError", "ImageAccessDeniedError")


@pytest.mark.parametrize("threshold", [1.5, -0.1, "high", True, [0.5]])
def test_a_threshold_that_is_none_is_refused_never_accepted(
    scones: Scones, demo: dict[str, Any], threshold: object, poll: Callable[..., Any]
) -> None:
    states = scones.client("stepfunctions")
    photo = demo["photos"][0]
    request = {"s3_bucket": photo["s3_bucket"], "s3_key": photo["s3_key"], "threshold": threshold}
    arn = states.start_execution(stateMachineArn=demo["production"]["StateMachineArn"], input=json.dumps(request))["executionArn"]
    execution = poll(lambda: (found := states.describe_execution(executionArn=arn))["status"] != "RUNNING" and found)
    assert execution["status"] == "FAILED"
    assert execution["error"] == "InvalidInputError"
    assert "threshold" in execution["cause"]


# --- Second runs, gates and failures --------------------------------------------------------------------------------------------------------


def test_a_second_run_takes_from_the_cache_what_has_not_changed(scones: Scones, demo: dict[str, Any], photos: Path) -> None:
    # Version 1 was approved in between, so that there is a champion now: only Evaluate has something new to do.
    again = scones.json("run", "--data", str(photos), *QUICK, *GATE)
    cached = {step["name"]: step["cached"] for step in again["steps"]}
    assert (cached["Preprocess"], cached["Train"], cached["Evaluate"]) == (True, True, False)
    assert again["metrics"]["champion_accuracy"] == demo["metrics"]["accuracy"]
    third = scones.json("run", "--data", str(photos), *QUICK, *GATE)
    assert all(step["cached"] for step in third["steps"] if step["name"] in ("Preprocess", "Train", "Evaluate"))
    assert third["metrics"] == again["metrics"]
    assert [version["version"] for version in scones.json("models", "list")] == [3, 2, 1]


def test_a_dry_run_says_what_a_run_would_do_and_does_nothing(scones: Scones, demo: dict[str, Any], photos: Path) -> None:
    before = len(
        scones.client("sagemaker").list_pipeline_executions(PipelineName="scones-vehicle-classifier")["PipelineExecutionSummaries"]
    )
    plan = scones.json("run", "--data", str(photos), *QUICK, *GATE, "--dry-run")
    assert plan["pipeline"]["would_be"] == "unchanged"
    assert (plan["images"]["uploads"], plan["code_uploads"]) == (0, [])
    assert plan["parameters"]["InputDataUri"] == plan["images"]["uri"]
    assert set(plan["steps"]) >= {"Preprocess", "Train", "QualityGateMissed", "StagingEndpoint"}
    staged = scones.json("stage", str(photos), "--dry-run")
    assert (staged["uri"], staged["uploaded"], staged["would_upload"]) == (plan["images"]["uri"], 0, 0)
    whole = scones.json("demo", "--data", str(photos), *QUICK, *GATE, "--dry-run")
    assert (whole["starts_localcloud"], whole["makes_platform"]) == (False, False)
    assert whole["run"] == {name: value for name, value in plan.items() if name != "outcome"}
    after = scones.client("sagemaker").list_pipeline_executions(PipelineName="scones-vehicle-classifier")["PipelineExecutionSummaries"]
    assert len(after) == before


def test_a_missed_gate_fails_with_both_figures_and_touches_nothing(scones: Scones, demo: dict[str, Any], photos: Path) -> None:
    before = shown(scones)
    missed = scones.json("run", "--data", str(photos), *QUICK, "--set", "quality_gate.minimum_accuracy=0.99", code=1)
    assert missed["metrics"]["accuracy"] < 0.99, "with so good a model this test would need other photos"
    assert missed["status"] == "Failed"
    step = next(step for step in missed["steps"] if step["name"] == "QualityGateMissed")
    assert str(missed["metrics"]["accuracy"])[:5] in step["failure_reason"]
    assert "0.99" in step["failure_reason"]
    assert missed["model_package_arn"] is None
    assert shown(scones) == before


def test_a_step_that_fails_is_told_in_the_scripts_own_words_with_its_log(scones: Scones, demo: dict[str, Any], photos: Path) -> None:
    broken = scones.folder / "broken"
    shutil.copytree(photos, broken)
    for file in sorted((broken / "bicycle").iterdir())[:40]:
        file.write_bytes(file.read_bytes()[:100])
    before = shown(scones)
    failed = scones.json("run", "--data", str(broken), *QUICK, *GATE, code=1)
    step = next(step for step in failed["steps"] if step["status"] == "Failed")
    assert step["name"] == "Preprocess"
    assert "40 of 200" in step["failure_reason"]
    text = scones("status").stdout
    assert "40 of 200" in text
    assert "scones logs Preprocess" in text
    assert scones.json("status")["log_tail"]
    assert shown(scones) == before


@pytest.mark.parametrize("kind", ["empty", "one class", "too few"])
def test_images_that_nothing_can_be_trained_on_are_refused_before_anything_is_sent(
    scones: Scones, demo: dict[str, Any], photos: Path, kind: str
) -> None:
    folder = scones.folder / kind
    folder.mkdir()
    if kind == "one class":
        shutil.copytree(photos / "bicycle", folder / "bicycle")
    elif kind == "too few":
        for label in ("bicycle", "motorcycle"):
            (folder / label).mkdir()
            for file in sorted((photos / label).iterdir())[: 9 if label == "bicycle" else 20]:
                shutil.copy(file, folder / label)
    bucket = demo["photos"][0]["s3_bucket"]
    before = len(scones.client("s3").list_objects_v2(Bucket=bucket, Prefix="raw/")["Contents"])
    result = scones("run", "--data", str(folder), *QUICK)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    assert {"empty": "no image", "one class": "one class", "too few": "9"}[kind] in result.stderr.lower()
    assert len(scones.client("s3").list_objects_v2(Bucket=bucket, Prefix="raw/")["Contents"]) == before


# --- Approval and what it sets off ----------------------------------------------------------------------------------------------------------


def changes(scones: Scones) -> list[str]:
    pages = scones.client("cloudformation").get_paginator("describe_stack_events").paginate(StackName="scones-inference")
    return [event["EventId"] for page in pages for event in page["StackEvents"]]


def decisions(scones: Scones) -> int:
    """Return how often the deploying function has finished."""
    pages = scones.client("logs").get_paginator("filter_log_events").paginate(logGroupName="/aws/lambda/scones-deploy-inference-workflow")
    return sum("REPORT RequestId" in line["message"] for page in pages for line in page["events"])


def test_approving_deploys_and_approving_again_changes_nothing(scones: Scones, demo: dict[str, Any], poll: Callable[..., Any]) -> None:
    first = decisions(scones)
    approved = scones.json("models", "approve", "2", "--comment", "second of the loop")
    assert approved["status"] == "Approved"
    poll(lambda: production(scones) == ("2", "UPDATE_COMPLETE"), 60)
    second = poll(lambda: (count := decisions(scones)) > first and count, 30)
    before = changes(scones)
    again = scones("models", "approve", "2")
    assert (again.returncode, again.stderr) == (0, "")
    assert "It is in production already" in again.stdout
    poll(lambda: decisions(scones) > second, 30)
    assert changes(scones) == before


def test_an_event_of_another_group_or_account_is_ignored(scones: Scones, demo: dict[str, Any]) -> None:
    before = shown(scones)
    another_group = json.loads((ROOT / "tests" / "events" / "model_package_rejected.json").read_text())
    ours = scones.json("models", "list")[0]["model_package_arn"]
    detail = {"ModelPackageGroupName": "scones-vehicle-classifier", "ModelPackageArn": ours.replace("123456789012", "999999999999")}
    another_account = {
        **another_group,
        "account": "999999999999",
        "detail": {**another_group["detail"], **detail, "ModelApprovalStatus": "Approved"},
    }
    for event in (another_group, another_account):
        answer = scones.client("lambda").invoke(FunctionName="scones-deploy-inference-workflow", Payload=json.dumps(event))
        payload = json.loads(answer["Payload"].read())
        assert "FunctionError" not in answer, payload
        assert payload["outcome"] == "ignored"
    assert shown(scones) == before


def test_rejecting_the_version_in_production_brings_back_the_newest_other_approved_one(
    scones: Scones, demo: dict[str, Any], poll: Callable[..., Any]
) -> None:
    scones.json("models", "reject", "2")
    poll(lambda: production(scones) == ("1", "UPDATE_COMPLETE"), 60)
    deployment = scones.json("status")["deployment"]
    assert (deployment["model_package_arn"], deployment["status"]) == (demo["model_package_arn"], "UPDATE_COMPLETE")
    (classified,) = scones.json("classify", f"s3://{demo['photos'][0]['s3_bucket']}/{demo['photos'][0]['s3_key']}")
    assert classified["decision"] == "accepted"


# --- kill -9 --------------------------------------------------------------------------------------------------------------------------------


def kill(scones: Scones, poll: Callable[..., Any]) -> None:
    os.kill(scones.running["pid"], signal.SIGKILL)
    poll(lambda: scones.processes() == [], 20)


def test_killed_while_training_it_goes_on_from_the_cache(
    scones: Scones, demo: dict[str, Any], photos: Path, poll: Callable[..., Any]
) -> None:
    arguments = ("run", "--data", str(photos), *QUICK, *GATE, "--set", "training.seed=5")
    began = int(time.time() * 1000)
    started = scones.json(*arguments, "--set", "training.epochs=1000", "--no-wait")
    lines = {"logGroupName": "/aws/sagemaker/TrainingJobs", "startTime": began}
    poll(lambda: any("epoch=" in event["message"] for event in scones.client("logs").filter_log_events(**lines)["events"]), 120)
    assert "epoch=" in scones("logs", "Train").stdout
    kill(scones, poll)

    status = scones.json("status", started["execution_arn"])
    assert status["execution"]["status"] == "Failed"
    steps = {step["name"]: step for step in status["execution"]["steps"]}
    assert steps["Preprocess"]["status"] == "Succeeded"
    assert steps["Train"]["status"] == "Failed"
    assert steps["Train"]["failure_reason"]
    assert {endpoint["status"] for endpoint in status["endpoints"]} <= {"InService", "Updating"}
    again = scones.json(*arguments)
    assert again["status"] == "Succeeded"
    assert next(step["cached"] for step in again["steps"] if step["name"] == "Preprocess")
    photo = demo["photos"][0]
    assert scones.json("classify", f"s3://{photo['s3_bucket']}/{photo['s3_key']}")[0]["decision"] == "accepted"


def test_killed_while_deploying_the_old_version_serves_and_the_new_one_can_be_deployed(
    scones: Scones, demo: dict[str, Any], poll: Callable[..., Any]
) -> None:
    cloudformation = scones.client("cloudformation")
    # The deployment takes about as long as the command, so that one who waits for its end would come too late.
    approving = scones.start("models", "approve", "3")

    # Listing does not wait, as the first look at an operation does.
    def begun() -> bool:
        updating = cloudformation.list_stacks(StackStatusFilter=["UPDATE_IN_PROGRESS"])["StackSummaries"]
        return "scones-inference" in {stack["StackName"] for stack in updating}

    try:
        poll(begun, 30, 0.001)
        kill(scones, poll)
    finally:
        approving.kill()
        approving.communicate(timeout=60)

    began = time.monotonic()
    scones.json("up", "--detach")
    # Either the event is delivered again and the deployment is done over, or it was rolled back: never in between, and always serving.
    poll(lambda: production(scones)[1] in ("UPDATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE"), 60)
    photo = demo["photos"][0]
    assert scones.json("classify", f"s3://{photo['s3_bucket']}/{photo['s3_key']}")[0]["decision"] == "accepted", (
        f"after {time.monotonic() - began:.0f} s"
    )
    scones.json("models", "approve", "3")
    poll(lambda: production(scones) == ("3", "UPDATE_COMPLETE"), 60)
    assert scones.json("classify", f"s3://{photo['s3_bucket']}/{photo['s3_key']}")[0]["decision"] == "accepted"


# --- What all of that needed ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def roles(scones: Scones, demo: dict[str, Any]) -> list[Role]:
    return roles_of(scones.client, "scones-platform")


def test_no_role_was_refused_anything_that_it_needs(scones: Scones, roles: list[Role]) -> None:
    # One test above asked for a photo in somebody else's bucket.
    expected = ["SerializeImageDataRole may not s3:GetObject on arn:aws:s3:::no-such-bucket-at-all/x.png"]
    assert refused(usage_of(scones.running["endpoint_url"]), roles) == expected


def test_every_permission_was_used_or_is_listed_with_the_reason_why_it_is_there(scones: Scones, roles: list[Role]) -> None:
    never, (listed, sometimes) = unused(usage_of(scones.running["endpoint_url"]), roles), listed_as_unused(roles)
    assert never - listed == set(), f"allowed, not used, and no reason in {UNUSED.name}"
    assert listed - sometimes - never == set(), f"listed in {UNUSED.name}, but used"


def test_without_any_permission_that_was_used_something_would_have_been_refused(scones: Scones, roles: list[Role]) -> None:
    assert not_needed(usage_of(scones.running["endpoint_url"]), roles) == []
