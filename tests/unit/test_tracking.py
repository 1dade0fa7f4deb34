"""MLflow tracking of jobs: what is recorded, how jobs find their execution's run, and that it cannot hurt a job."""

from __future__ import annotations

import io
import json
import logging
import os
import socket
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import tracking
from tracking import EXECUTION_TAG, JOB_TAG, Operation, Recorder, RunStatus, execution_of, job_run

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

JOB = "pipelines-k3v9x0example-Train-A1b2C3d4E5"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite store, made once: setting up its tables takes seconds."""
    from mlflow.tracking import MlflowClient

    path = tmp_path_factory.mktemp("tracking") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def client(store: Path, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    from mlflow.tracking import MlflowClient

    uri = f"sqlite:///{store}"
    monkeypatch.setenv(tracking.URI_VARIABLE, uri)
    monkeypatch.delenv("TRAINING_JOB_NAME", raising=False)
    return MlflowClient(uri)


def runs(client: MlflowClient, experiment: str, query: str = "") -> list[Any]:
    found = client.get_experiment_by_name(experiment)
    return list(client.search_runs([found.experiment_id], query)) if found else []


def begin(client: MlflowClient, experiment: str, job: str | None, step: str = "Train") -> Recorder:
    recorder = Recorder(client, experiment)
    recorder.handle({"operation": Operation.BEGIN, "step": step, "job_name": job})
    return recorder


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (JOB, ("k3v9x0example", "Train")),
        ("pipelines-abc-Evaluate-Again-xyz", ("abc", "Evaluate-Again")),
        ("my-training-job", (None, None)),
        ("pipelines-abc", (None, None)),
        (None, (None, None)),
    ],
)
def test_the_execution_is_in_the_jobs_name(name: str | None, expected: tuple[str | None, str | None]) -> None:
    assert execution_of(name) == expected


def test_a_job_is_recorded_with_its_parameters_metrics_data_and_files(
    client: MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(tracking.EXPERIMENT_VARIABLE, "whole")
    (tmp_path / "picture.png").write_bytes(b"a picture")
    # A processing job's name stands in its configuration; a training job is told its own, as the jobs below are.
    config = tmp_path / "processingjobconfig.json"
    config.write_text(json.dumps({"ProcessingJobName": JOB}))
    with job_run("Train", job_config=config) as run:
        run.log_params({"epochs": 3, "name": "x"})
        run.log_metrics({"loss": 0.5, "broken": float("nan"), "endless": float("inf")}, step=1)
        run.log_metrics({"loss": 0.25}, step=2)
        run.log_dataset("train", "f" * 64, "s3://bucket/train")
        run.log_artifact(tmp_path / "picture.png")
        run.set_tags({"dataset": "small"})
    (child,) = runs(client, "whole", f"tags.`{JOB_TAG}` = '{JOB}'")
    assert child.info.run_name == "Train"
    assert child.info.status == "FINISHED"
    assert child.data.params == {"epochs": "3", "name": "x"}
    assert child.data.metrics == {"loss": 0.25}
    assert [(item.step, item.value) for item in client.get_metric_history(child.info.run_id, "loss")] == [(1, 0.5), (2, 0.25)]
    assert child.data.tags["dataset"] == "small"
    (data,) = child.inputs.dataset_inputs
    assert (data.dataset.name, data.dataset.digest) == ("train", "f" * 36)
    assert [item.path for item in client.list_artifacts(child.info.run_id)] == ["picture.png"]
    (parent,) = runs(client, "whole", f"tags.`{EXECUTION_TAG}` = 'k3v9x0example'")
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert parent.info.status == "FINISHED"


def test_jobs_of_one_execution_share_its_run_and_those_of_another_do_not(client: MlflowClient) -> None:
    for job in ("pipelines-one-Preprocess-a", "pipelines-one-Train-b", "pipelines-two-Train-c"):
        begin(client, "shared", job).end(RunStatus.FINISHED)
    parents = {run.data.tags[EXECUTION_TAG]: run.info.run_id for run in runs(client, "shared") if EXECUTION_TAG in run.data.tags}
    children = {run.data.tags[JOB_TAG]: run.data.tags["mlflow.parentRunId"] for run in runs(client, "shared") if JOB_TAG in run.data.tags}
    assert children == {
        "pipelines-one-Preprocess-a": parents["one"],
        "pipelines-one-Train-b": parents["one"],
        "pipelines-two-Train-c": parents["two"],
    }


def test_two_jobs_that_start_at_once_agree_on_one_run(client: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
    rival = begin(client, "race", "pipelines-same-Train-a")
    original, calls = type(client).search_runs, []

    def too_early(self: MlflowClient, *arguments: Any, **options: Any) -> Any:
        """The first search sees nothing, as if it had been made before the rival's run was."""
        calls.append(arguments)
        return [] if len(calls) == 1 else original(self, *arguments, **options)

    monkeypatch.setattr(type(client), "search_runs", too_early)
    begin(client, "race", "pipelines-same-Evaluate-b").end(RunStatus.FINISHED)
    monkeypatch.undo()
    assert len(calls) == 2
    rival.end(RunStatus.FINISHED)
    assert len(runs(client, "race", f"tags.`{EXECUTION_TAG}` = 'same'")) == 1
    assert len({run.data.tags["mlflow.parentRunId"] for run in runs(client, "race") if JOB_TAG in run.data.tags}) == 1


def test_an_execution_is_running_while_one_of_its_jobs_is_and_failed_when_one_failed(client: MlflowClient) -> None:
    first = begin(client, "status", "pipelines-s-Preprocess-a")
    query = f"tags.`{EXECUTION_TAG}` = 's'"
    assert runs(client, "status", query)[0].info.status == "RUNNING"
    first.end(RunStatus.FINISHED)
    assert runs(client, "status", query)[0].info.status == "FINISHED"
    second = begin(client, "status", "pipelines-s-Train-b")
    assert runs(client, "status", query)[0].info.status == "RUNNING"
    second.handle({"operation": Operation.END, "status": RunStatus.FAILED})
    assert runs(client, "status", query)[0].info.status == "FAILED"


def test_a_job_outside_a_pipeline_has_a_run_of_its_own(client: MlflowClient) -> None:
    begin(client, "alone", "my-job", step="Preprocess").end(RunStatus.FINISHED)
    (run,) = runs(client, "alone")
    assert (run.info.run_name, run.data.tags[JOB_TAG]) == ("Preprocess", "my-job")
    assert "mlflow.parentRunId" not in run.data.tags


def test_a_job_that_raises_is_recorded_as_failed_and_one_that_is_killed_as_killed(
    client: MlflowClient, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(tracking.EXPERIMENT_VARIABLE, "ends")

    def track_and_raise() -> None:
        with job_run("Train", job_name="raises"):
            raise ValueError("the job's own error")

    with pytest.raises(ValueError, match="the job's own error"):
        track_and_raise()
    code = "import os, tracking\nwith tracking.job_run('Train', job_name='killed'):\n    os._exit(9)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(tracking.__file__).parent, check=False).returncode == 9
    deadline = time.monotonic() + 60
    while True:
        statuses = {run.data.tags[JOB_TAG]: run.info.status for run in runs(client, "ends")}
        if statuses.get("killed") == "KILLED" or time.monotonic() > deadline:
            break
        time.sleep(0.1)
    assert statuses == {"raises": "FAILED", "killed": "KILLED"}


def test_files_of_a_sqlite_store_are_kept_beside_it_not_in_the_working_directory(client: MlflowClient, store: Path) -> None:
    begin(client, "files", None).end(RunStatus.FINISHED)
    experiment = client.get_experiment_by_name("files")
    assert experiment is not None
    assert experiment.artifact_location.startswith((store.parent / "artifacts").as_uri())


def test_without_a_tracking_uri_nothing_is_started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(tracking.URI_VARIABLE, raising=False)
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a process was started"))
    with job_run("Train") as run:
        run.log_params({"a": 1})
        run.log_artifact(tmp_path / "missing")


def tracked_job(uri: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    """A job that tracks much, in a process, so that everything it prints is seen."""
    code = """
import logging, sys, tracking
from pathlib import Path
logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(levelname)s %(message)s")
with tracking.job_run("Train", job_name="job") as run:
    for step in range(2000):
        run.log_metrics({"loss": 0.5}, step=step)
    run.log_artifact(Path("nothing.png"))
print("the job is done")
"""
    folder = Path(tracking.__file__).parent
    environment = os.environ | {tracking.URI_VARIABLE: uri, "PYTHONPATH": str(folder)}
    return subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, stdout=-1, stderr=subprocess.STDOUT, text=True, check=False
    )


def test_a_server_that_is_down_costs_one_warning(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        # Bound and not listening: connections are refused.
        result = tracked_job(f"http://user:secret@127.0.0.1:{port}", tmp_path)
    assert result.returncode == 0
    assert result.stdout.endswith("the job is done\n")
    assert result.stdout.count("WARNING") == 1, result.stdout
    assert f"MLflow tracking at http://127.0.0.1:{port} failed, the job goes on without it" in result.stdout
    assert "secret" not in result.stdout.split("failed, the job goes on")[0]


def test_a_server_that_never_answers_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(tracking, "PATIENCE_SECONDS", 0.5)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setenv(tracking.URI_VARIABLE, f"http://127.0.0.1:{silent.getsockname()[1]}")
        with caplog.at_level(logging.WARNING), job_run("Train", job_name="job") as run:
            run.log_params({"a": 1})
    assert [record.message for record in caplog.records] == [
        f"MLflow tracking at {os.environ[tracking.URI_VARIABLE]} did not finish within 0 s; some records are missing"
    ]


def test_a_server_that_is_slow_is_given_up_some_time_after_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "DRAIN_SECONDS", 0.0)
    taken = []
    inbox = tracking.Inbox(io.StringIO('{"number": 1}\n{"number": 2}\n'))

    def take_slowly() -> None:
        for message in inbox.messages():
            taken.append(message["number"])

    deadline = time.monotonic() + 30
    while inbox._closed is None and time.monotonic() < deadline:
        time.sleep(0.01)
    with pytest.raises(TimeoutError, match="it is slow"):
        take_slowly()
    assert taken == []


def test_messages_come_in_order_while_there_is_time() -> None:
    inbox = tracking.Inbox(io.StringIO('{"number": 1}\n{"number": 2}\n'))
    assert [message["number"] for message in inbox.messages()] == [1, 2]


def test_the_store_itself_is_never_damaged_by_values_it_cannot_hold(client: MlflowClient, store: Path) -> None:
    recorder = begin(client, "values", "job")
    recorder.handle({"operation": Operation.METRICS, "values": {}, "step": 0, "milliseconds": 1})
    recorder.end(RunStatus.FINISHED)
    with sqlite3.connect(store) as database:
        assert database.execute("select count(*) from metrics where is_nan").fetchone() == (0,)
