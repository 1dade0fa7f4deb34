"""From a git push to production: every command is typed in a clone of this project, every commit is pushed with git.

The tests share a clone and a region and run in the order of this file; each says in its name what it relies on having happened.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from helpers_permissions import (
    UNUSED,
    Role,
    listed_as_unused,
    not_needed,
    not_needed_services,
    of_keys,
    refused,
    roles_of,
    unused,
    usage_of,
)

from staging.sample import write_sample

ROOT = Path(__file__).resolve().parents[2]
#: What a clone has and its owner's work folder may have besides.
NOT_CLONED = shutil.ignore_patterns(".git", ".venv", ".scones", ".*_cache", ".hypothesis", "__pycache__", "*.egg-info", "build")
REPOSITORY = "scones/mlops"
#: One quick file of the tests: the whole of them would run this one again.
TESTED = "tests/unit/test_graph.py"
PATIENCE = 240.0
GIT = {
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    **{
        f"GIT_{who}_{what}": value
        for who in ("AUTHOR", "COMMITTER")
        for what, value in (("NAME", "A person"), ("EMAIL", "person@example.com"))
    },
}


class Clone:
    """A clone of the project, its commands, and the region that they talk to."""

    def __init__(self, folder: Path, poll: Callable[..., Any]) -> None:
        self.folder = folder / "clone"
        self.state_dir = folder / "state"
        self.remote = ""
        self._poll = poll
        shutil.copytree(ROOT, self.folder, ignore=NOT_CLONED)
        self.git("init", "--quiet", "--initial-branch=main")

    def scones(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        env = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "MLFLOW_", "SCONES_"))}
        env |= {"SCONES_STATE_DIR": str(self.state_dir), "AWS_EC2_METADATA_DISABLED": "true"}
        command = [sys.executable, "-m", "scones", *arguments]
        return subprocess.run(command, cwd=self.folder, env=env, capture_output=True, text=True, timeout=300, check=False)

    def json(self, *arguments: str) -> Any:
        result = self.scones(*arguments, "--json")
        assert result.returncode == 0, result.stdout + result.stderr
        return json.loads(result.stdout)

    def configure(self, settings: dict[str, Any]) -> None:
        """Make these the stage's settings."""
        (self.folder / "config" / "dev.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")

    def git(self, *arguments: str) -> str:
        command = ["git", "-C", str(self.folder), *arguments]
        return subprocess.run(command, env={**os.environ, **GIT}, capture_output=True, text=True, check=True).stdout.strip()

    def push(self, message: str) -> str:
        """Commit everything and push it; return the commit."""
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", message)
        self.git("push", "--quiet", self.remote, "HEAD:main")
        return self.git("rev-parse", "HEAD")

    def append(self, name: str, text: str) -> None:
        path = self.folder / name
        path.write_text(path.read_text(encoding="utf-8") + text, encoding="utf-8")

    @property
    def endpoint_url(self) -> str:
        running = json.loads((self.state_dir / "localcloud" / "running.json").read_text(encoding="utf-8"))
        return str(running["endpoint_url"])

    def client(self, service: str) -> Any:
        return boto3.client(service, endpoint_url=self.endpoint_url, region_name="us-east-1")

    def deliveries(self) -> list[str]:
        """The commits of all deliveries so far, newest first."""
        summaries = self.client("codepipeline").list_pipeline_executions(pipelineName="scones-cicd")["pipelineExecutionSummaries"]
        return [item["sourceRevisions"][0]["revisionId"] if item.get("sourceRevisions") else "" for item in summaries]

    def delivered(self, commit: str) -> dict[str, Any]:
        """Wait for the end of a commit's delivery, and return its status."""
        self._poll(lambda: commit in self.deliveries(), PATIENCE, 0.2)
        pipeline = self.client("codepipeline")

        def ended() -> str | None:
            summaries = pipeline.list_pipeline_executions(pipelineName="scones-cicd")["pipelineExecutionSummaries"]
            summary = next(item for item in summaries if item.get("sourceRevisions", [{}])[0].get("revisionId") == commit)
            return None if summary["status"] == "InProgress" else str(summary["pipelineExecutionId"])

        status: dict[str, Any] = self.json("cicd", "status", self._poll(ended, PATIENCE, 0.2))
        return status

    def runs(self) -> list[dict[str, Any]]:
        """The executions of the SageMaker pipeline, newest first."""
        summaries: list[dict[str, Any]] = self.client("sagemaker").list_pipeline_executions(
            PipelineName="scones-vehicle-classifier", SortBy="CreationTime", SortOrder="Descending"
        )["PipelineExecutionSummaries"]
        return summaries

    def told(self) -> list[str]:
        """What people were told so far."""
        sqs = self.client("sqs")
        url = sqs.get_queue_url(QueueName="told")["QueueUrl"]
        found: list[str] = []
        while messages := sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, VisibilityTimeout=0).get("Messages", []):
            fresh = [json.loads(message["Body"])["Message"] for message in messages]
            if set(fresh) <= set(found):
                break
            found += fresh
        return found

    def production(self) -> dict[str, Any]:
        deployed: dict[str, Any] = self.json("status")["deployment"]
        return deployed


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sample(tmp_path_factory.mktemp("photos") / "vehicles", 200, 7)


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory, photos: Path, documented_key_policy: str) -> Iterator[Clone]:
    """A clone whose settings are those of a quick run and a key of one's own, with the platform, staged photos and the delivery stack in its region."""
    from conftest import poll

    clone = Clone(tmp_path_factory.mktemp("cicd"), poll)
    try:
        clone.json("up", "--detach")
        key = clone.client("kms").create_key(Policy=documented_key_policy)["KeyMetadata"]["Arn"]
        clone.configure({"platform": {"encryption_key_arn": key}})
        staged = clone.json("stage", str(photos))
        settings = {
            "platform": {"encryption_key_arn": key},
            "data": {"input_uri": staged["uri"]},
            "training": {"epochs": 2, "recipe": {"preset": "quick", "image_size": 64}},
            "quality_gate": {"minimum_accuracy": 0.6},
            "cicd": {"repository": REPOSITORY, "test_command": f"python -m pytest -q -n 0 -p no:cacheprovider {TESTED}"},
        }
        clone.configure(settings)
        deployed = clone.json("cicd", "deploy", "--yes")
        assert deployed["outcome"] == "created"
        clone.remote = str(next((clone.state_dir / "localcloud" / "git").rglob("*.git")))
        assert f"git push {clone.remote} HEAD:main" in deployed["next"][0]
        listen(clone)
        yield clone
    finally:
        clone.scones("down")


def listen(clone: Clone) -> None:
    """Subscribe a queue to what people are told."""
    sqs, sns = clone.client("sqs"), clone.client("sns")
    url = sqs.create_queue(QueueName="told")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    topic = next(topic["TopicArn"] for topic in sns.list_topics()["Topics"] if topic["TopicArn"].endswith(":scones-notifications"))
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)


@pytest.fixture(scope="module")
def first(clone: Clone) -> str:
    """The first commit, delivered."""
    commit = clone.push("The project, with quick settings")
    status = clone.delivered(commit)
    assert status["delivery"]["status"] == "Succeeded", "\n".join(status["log_tail"])
    return commit


# --- Pushes ---------------------------------------------------------------------------------------------------------------------------------


def test_a_push_goes_stage_by_stage_to_a_training_run_that_knows_its_commit(clone: Clone, first: str) -> None:
    status = clone.delivered(first)
    actions = status["delivery"]["actions"]
    assert [action["stage"] for action in actions] == ["Source", "Test", "Package", "Platform", "Pipeline"]
    assert {action["status"] for action in actions} == {"Succeeded"}
    (run,) = clone.runs()
    assert status["training"]["execution_arn"] == run["PipelineExecutionArn"]
    assert run["PipelineExecutionDescription"] == f"commit {first}"
    text = clone.scones("cicd", "status").stdout
    for words in (first, "The project, with quick settings", run["PipelineExecutionArn"]):
        assert words in text
    assert any("100%" in line["message"] for line in clone.json("cicd", "logs", "Test")["lines"])


def test_pushes_that_change_no_model_train_none_and_those_of_documents_alone_are_not_even_delivered(
    clone: Clone, first: str, poll: Callable[..., Any]
) -> None:
    """Also while the first commit's run is still under way."""
    clone.append("docs/architecture.md", "\nMore words.\n")
    clone.append("README.md", "\nMore words.\n")
    documents = clone.push("Words")
    clone.append("lambdas/smoke_test/handler.py", "\n# A comment: another zip, and no other model.\n")
    code = clone.push("A comment in a function")
    status = clone.delivered(code)
    assert status["delivery"]["status"] == "Succeeded", "\n".join(status["log_tail"])
    assert [commit for commit in clone.deliveries() if commit] == [code, first]
    assert documents not in clone.deliveries()
    assert len(clone.runs()) == 1
    assert status["training"] is None
    log = "\n".join(line["message"] for line in clone.json("cicd", "logs", "Pipeline")["lines"])
    assert "Nothing that a model depends on has changed since execution" in log
    # The function's new zip came with the package, through a change set.
    (stack,) = clone.client("cloudformation").describe_stacks(StackName="scones-platform")["Stacks"]
    assert stack["StackStatus"] == "UPDATE_COMPLETE"
    assert "SmokeTestCodeKey" in "\n".join(line["message"] for line in clone.json("cicd", "logs", "Platform")["lines"])


def test_a_failing_test_stops_the_delivery_there_and_is_explained(clone: Clone, first: str, poll: Callable[..., Any]) -> None:
    clone.append(TESTED, '\n\ndef test_of_this_commit() -> None:\n    assert not "what this commit broke"\n')
    commit = clone.push("A mistake")
    status = clone.delivered(commit)
    delivery = status["delivery"]
    assert delivery["status"] == "Failed"
    assert [(action["stage"], action["status"]) for action in delivery["actions"]] == [("Source", "Succeeded"), ("Test", "Failed")]
    assert any("what this commit broke" in line for line in status["log_tail"])
    text = clone.scones("cicd", "status").stdout
    for words in ("Test failed:", "exit status 1", "what this commit broke", "scones cicd logs Test", "Mend it and push again."):
        assert words in text
    poll(lambda: [line for line in clone.told() if f"scones cicd status {delivery['execution_id']}" in line], 60)
    clone.git("reset", "--quiet", "--hard", "HEAD~1")
    clone.git("push", "--quiet", "--force", clone.remote, "HEAD:main")


# --- The model ------------------------------------------------------------------------------------------------------------------------------


def test_the_run_registers_a_version_of_that_commit_that_waits_and_its_end_is_told(
    clone: Clone, first: str, poll: Callable[..., Any]
) -> None:
    run = clone.runs()[0]["PipelineExecutionArn"]
    poll(lambda: clone.runs()[0]["PipelineExecutionStatus"] not in ("Executing", "Stopping"), PATIENCE, 0.5)
    assert clone.runs()[0]["PipelineExecutionStatus"] == "Succeeded"
    (version,) = clone.json("models", "list")
    assert version["status"] == "PendingManualApproval"
    package = clone.client("sagemaker").describe_model_package(ModelPackageName=version["model_package_arn"])
    assert package["CustomerMetadataProperties"]["git_commit"] == first
    assert package["CustomerMetadataProperties"]["pipeline_execution_arn"] == run
    poll(lambda: [line for line in clone.told() if f"of commit {first} ended: Succeeded" in line], 60)


def accepted(clone: Clone, photos: Path) -> None:
    (classified,) = clone.json("classify", str(next((photos / "bicycle").iterdir())), "--threshold", "0.3")
    assert classified["decision"] == "accepted"


def test_an_approval_deploys_it_and_photos_are_accepted(clone: Clone, first: str, photos: Path, poll: Callable[..., Any]) -> None:
    clone.json("models", "approve", "1")
    poll(lambda: (found := clone.production()) is not None and found["status"] == "CREATE_COMPLETE", PATIENCE, 0.5)
    assert clone.production()["model_package_arn"].endswith("/1")
    accepted(clone, photos)


def test_a_large_photo_that_the_model_is_not_sure_of_waits_for_a_person(
    clone: Clone, first: str, photos: Path, poll: Callable[..., Any]
) -> None:
    # Too large for a state, so that the classifier reads it from S3 itself; what follows a PNG's end is no part of the picture.
    photo = next((photos / "bicycle").iterdir()).read_bytes() + bytes(300_000)
    (stack,) = clone.client("cloudformation").describe_stacks(StackName="scones-inference")["Stacks"]
    outputs = {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}
    bucket = next(item["ParameterValue"] for item in stack["Parameters"] if item["ParameterKey"] == "ImageBucketName")
    clone.client("s3").put_object(Bucket=bucket, Key="inbox/large.png", Body=photo)
    states, request = clone.client("stepfunctions"), {"s3_bucket": bucket, "s3_key": "inbox/large.png", "threshold": 1}
    arn = states.start_execution(stateMachineArn=outputs["StateMachineArn"], input=json.dumps(request))["executionArn"]
    execution = poll(lambda: (found := states.describe_execution(executionArn=arn))["status"] != "RUNNING" and found)
    assert execution["status"] == "SUCCEEDED", execution
    assert json.loads(execution["output"])["decision"] == "needs_review"
    (message,) = clone.client("sqs").receive_message(QueueUrl=outputs["ReviewQueueUrl"])["Messages"]
    assert "inbox/large.png" in message["Body"]


def test_a_bad_version_that_somebody_approves_is_rolled_back_and_the_one_before_serves(
    clone: Clone, first: str, photos: Path, poll: Callable[..., Any]
) -> None:
    register_a_bad_version(clone)
    clone.json("models", "approve", "2")
    poll(lambda: clone.production()["status"] == "UPDATE_ROLLBACK_COMPLETE", PATIENCE, 0.5)
    assert clone.production()["model_package_arn"].endswith("/1")
    reasons = "\n".join(
        event.get("ResourceStatusReason", "")
        for event in clone.client("cloudformation").describe_stack_events(StackName="scones-inference")["StackEvents"]
        if event["LogicalResourceId"] == "SmokeTest"
    )
    assert "this model answers nothing" in reasons
    accepted(clone, photos)


def register_a_bad_version(clone: Clone) -> None:
    """Register what the pipeline never would: version 1's model with a script that answers pings and no photo."""
    sagemaker, s3 = clone.client("sagemaker"), clone.client("s3")
    (version,) = clone.json("models", "list")
    good = sagemaker.describe_model_package(ModelPackageName=version["model_package_arn"])
    (container,) = good["InferenceSpecification"]["Containers"]
    bucket, _, key = container["ModelDataUrl"].removeprefix("s3://").partition("/")
    model = io.BytesIO(s3.get_object(Bucket=bucket, Key=key)["Body"].read())
    bad = io.BytesIO()
    with tarfile.open(fileobj=model) as before, tarfile.open(fileobj=bad, mode="w:gz") as after:
        for member in before.getmembers():
            content = before.extractfile(member)
            if content is None:
                continue
            data = content.read()
            if member.name.endswith("code/inference.py"):
                data = b'def model_fn(model_dir):\n    return 1\ndef transform_fn(*arguments):\n    raise RuntimeError("this model answers nothing")\n'
            entry = tarfile.TarInfo(member.name)
            entry.size = len(data)
            after.addfile(entry, io.BytesIO(data))
    s3.put_object(Bucket=bucket, Key="runs/by-hand/model.tar.gz", Body=bad.getvalue())
    asked = ("Image", "Environment")
    sagemaker.create_model_package(
        ModelPackageGroupName=good["ModelPackageGroupName"],
        ModelApprovalStatus="PendingManualApproval",
        InferenceSpecification={
            "Containers": [{name: container[name] for name in asked} | {"ModelDataUrl": f"s3://{bucket}/runs/by-hand/model.tar.gz"}],
            **{name: good["InferenceSpecification"][name] for name in ("SupportedContentTypes", "SupportedResponseMIMETypes")},
        },
        **{name: good[name] for name in ("SamplePayloadUrl", "Domain", "Task")},
    )


# --- What all of that needed ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def roles(clone: Clone, first: str) -> list[Role]:
    return roles_of(clone.client, "scones-cicd")


def test_the_deliverys_roles_were_refused_nothing(clone: Clone, roles: list[Role]) -> None:
    assert refused(usage_of(clone.endpoint_url), roles) == []


def test_every_permission_of_the_delivery_was_used_or_is_listed_with_its_reason(clone: Clone, roles: list[Role]) -> None:
    never, (listed, sometimes) = unused(usage_of(clone.endpoint_url), roles), listed_as_unused(roles)
    assert never - listed == set(), f"allowed, not used, and no reason in {UNUSED.name}"
    assert listed - sometimes - never == set(), f"listed in {UNUSED.name}, but used"


def test_without_any_permission_that_the_delivery_used_something_would_have_been_refused(clone: Clone, roles: list[Role]) -> None:
    assert not_needed(usage_of(clone.endpoint_url), roles) == []


def test_without_any_use_of_the_key_that_a_role_is_allowed_something_would_have_been_refused(
    clone: Clone, roles: list[Role], poll: Callable[..., Any]
) -> None:
    # Lambda, which tries the bad version's event twice more, puts it into the encrypted queue at the end, with the function's role.
    sqs = clone.client("sqs")
    letters = sqs.get_queue_url(QueueName="scones-approval-events-dead-letters")["QueueUrl"]
    count = {"QueueUrl": letters, "AttributeNames": ["ApproximateNumberOfMessages"]}
    poll(lambda: sqs.get_queue_attributes(**count)["Attributes"]["ApproximateNumberOfMessages"] != "0")
    everybody = [*roles, *roles_of(clone.client, "scones-platform")]
    usage = of_keys(usage_of(clone.endpoint_url))
    assert refused(usage, everybody) == []
    never, (listed, _) = unused(usage, everybody), listed_as_unused(everybody)
    assert {one for one in never if ": kms:" in one} == {one for one in listed if ": kms:" in one}
    assert not_needed(usage, everybody) == []
    assert not_needed_services(usage, everybody) == ['"kms:CreateGrant" through sagemaker.us-east-1.amazonaws.com']
