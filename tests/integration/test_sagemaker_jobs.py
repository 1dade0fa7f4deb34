"""Processing and training jobs: they really run, and end as they do on AWS."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from helpers_errors import error_of
from helpers_sagemaker import BUCKET, CLUSTER, Lab, channel, make_lab, read_tar_gz, s3_input, s3_output
from localcloud.object_store import ObjectStore
from localcloud.sagemaker import sandbox

PROCESSING, TRAINING = "/aws/sagemaker/ProcessingJobs", "/aws/sagemaker/TrainingJobs"
#: Prints that it runs, then waits for a signal.
SLEEP = "import time\nprint('running', flush=True)\ntime.sleep(600)\n"


@pytest.fixture(scope="module")
def lab(region: Any) -> Iterator[Lab]:
    with pytest.MonkeyPatch.context() as patch:
        yield make_lab(region, patch)


def jobs_folder(lab: Lab) -> Path:
    folder: Path = lab.service.jobs.workshop.folder
    return folder


# Processing.


def test_a_processing_job_reads_its_inputs_runs_and_uploads_its_outputs(lab: Lab) -> None:
    lab.put("data/a.txt", "A")
    lab.put("data/deep/b ä.txt", "B")
    code = (
        "import os, pathlib, sys\n"
        "source, target = map(pathlib.Path, sys.argv[1:])\n"
        "(target / 'sub').mkdir()\n"
        "found = sorted(p.relative_to(source).as_posix() for p in source.rglob('*') if p.is_file())\n"
        "(target / 'sub' / 'found.txt').write_text('|'.join(found))\n"
        "print('reads', *found)\n"
        "print(os.environ['MODE'], os.environ['WHERE'] == str(target))\n"
    )
    request = lab.processing_request(
        code,
        arguments=["/opt/ml/processing/input/data", "/opt/ml/processing/output"],
        Environment={"MODE": "test", "WHERE": "/opt/ml/processing/output"},
        Tags=[{"Key": "team", "Value": "a"}],
    )
    request["ProcessingInputs"].append(s3_input("data", f"s3://{BUCKET}/data"))
    name = request["ProcessingJobName"]
    arn = lab.sm.create_processing_job(**request)["ProcessingJobArn"]
    job = lab.processed(name)
    assert arn == f"arn:aws:sagemaker:us-east-1:123456789012:processing-job/{name}" == job["ProcessingJobArn"]
    assert job["ProcessingJobStatus"] == "Completed", job
    assert job["CreationTime"] <= job["ProcessingStartTime"] <= job["ProcessingEndTime"] <= job["LastModifiedTime"]
    for member in ("ProcessingInputs", "ProcessingOutputConfig", "Environment", "AppSpecification", "ProcessingResources"):
        assert job[member] == request[member]
    assert job["StoppingCondition"] == {"MaxRuntimeInSeconds": 86400}
    assert lab.objects(f"{name}/out/") == {"sub/found.txt": "a.txt|deep/b ä.txt".encode()}
    assert lab.lines(PROCESSING, name) == ["reads a.txt deep/b ä.txt", "test True"]
    streams = lab.logs.describe_log_streams(logGroupName=PROCESSING, logStreamNamePrefix=f"{name}/algo-1-")["logStreams"]
    assert len(streams) == 1
    assert lab.sm.list_tags(ResourceArn=arn)["Tags"] == [{"Key": "team", "Value": "a"}]
    assert sorted(path.name for path in jobs_folder(lab).iterdir()) == ["bin"]


def test_a_processing_job_finds_its_configuration_with_its_own_paths(lab: Lab) -> None:
    code = (
        "import json, pathlib, sys\n"
        "config = pathlib.Path(sys.argv[1])\n"
        "job = json.loads((config / 'processingjobconfig.json').read_text())\n"
        "assert json.loads((config / 'resourceconfig.json').read_text()) == {'current_host': 'algo-1', 'hosts': ['algo-1']}\n"
        "output = job['ProcessingOutputConfig']['Outputs'][0]['S3Output']['LocalPath']\n"
        "pathlib.Path(output, 'name.txt').write_text(job['ProcessingJobName'])\n"
    )
    job = lab.process(code, arguments=["/opt/ml/config"])
    assert job["ProcessingJobStatus"] == "Completed", job
    assert lab.objects(f"{job['ProcessingJobName']}/out/") == {"name.txt": job["ProcessingJobName"].encode()}


def test_a_failed_processing_job_says_why_and_uploads_nothing(lab: Lab) -> None:
    code = (
        "import pathlib, sys\n"
        "pathlib.Path(sys.argv[1], 'partial').touch()\n"
        "pathlib.Path(sys.argv[2]).write_text('3 images are broken')\n"
        "sys.exit(7)\n"
    )
    job = lab.process(code, arguments=["/opt/ml/processing/output", "/opt/ml/output/message"])
    assert job["ProcessingJobStatus"] == "Failed"
    assert job["FailureReason"] == "AlgorithmError: 3 images are broken, exit code: 7"
    assert job["ExitMessage"] == "3 images are broken"
    assert lab.objects(f"{job['ProcessingJobName']}/out/") == {}


def test_without_a_message_the_reason_is_the_exit_code(lab: Lab) -> None:
    assert lab.process("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")["FailureReason"] == "AlgorithmError: , exit code: 137"


def test_a_long_message_is_cut_and_the_exit_code_stays(lab: Lab) -> None:
    reason = lab.process(
        "import pathlib, sys\npathlib.Path(sys.argv[1]).write_text('ä' * 5000)\nsys.exit(1)", arguments=["/opt/ml/output/message"]
    )["FailureReason"]
    assert len(reason) == 1024
    assert reason.endswith("…, exit code: 1")


def test_a_message_of_a_job_that_succeeds_is_its_exit_message(lab: Lab) -> None:
    job = lab.process("import pathlib, sys\npathlib.Path(sys.argv[1]).write_text('850 images')", arguments=["/opt/ml/output/message"])
    assert (job["ProcessingJobStatus"], job["ExitMessage"], job.get("FailureReason")) == ("Completed", "850 images", None)


def test_a_manifest_names_the_files(lab: Lab) -> None:
    lab.put("many/1.txt", "1")
    lab.put("many/2.txt", "2")
    lab.put("many/deep/3.txt", "3")
    manifest = lab.put("manifest.json", json.dumps([{"prefix": f"s3://{BUCKET}/many/"}, "1.txt", "deep/3.txt"]))
    request = lab.processing_request(
        "import pathlib, sys\nprint(*sorted(p.name for p in pathlib.Path(sys.argv[1]).rglob('*.txt')))",
        arguments=["/opt/ml/processing/input/data"],
    )
    request["ProcessingInputs"].append(s3_input("data", manifest, S3DataType="ManifestFile"))
    lab.sm.create_processing_job(**request)
    assert lab.processed(request["ProcessingJobName"])["ProcessingJobStatus"] == "Completed"
    assert lab.lines(PROCESSING, request["ProcessingJobName"]) == ["1.txt 3.txt"]


def test_inputs_that_are_not_there_fail_the_job(lab: Lab) -> None:
    request = lab.processing_request("")
    request["ProcessingInputs"].append(s3_input("data", f"s3://{BUCKET}/nowhere/"))
    lab.sm.create_processing_job(**request)
    job = lab.processed(request["ProcessingJobName"])
    assert job["FailureReason"] == f"ClientError: Data download failed: No S3 objects found under S3 URL 's3://{BUCKET}/nowhere/'"
    assert "ProcessingStartTime" not in job


def test_an_output_bucket_that_is_not_there_fails_the_job(lab: Lab) -> None:
    outputs = {"Outputs": [s3_output("out", "s3://no-such-bucket/x")]}
    job = lab.process("import pathlib, sys\npathlib.Path(sys.argv[1], 'x').touch()", ProcessingOutputConfig=outputs)
    assert job["FailureReason"] == "ClientError: Data upload failed: The S3 bucket 'no-such-bucket' does not exist"


def test_results_reach_the_disk_all_at_once(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    cloud, upload, blocked = lab.region.cloud, ObjectStore.upload, []

    def checked(objects: ObjectStore, source: Path, uri: str) -> int:
        # A snapshot in the middle of the upload would put half of the results on the disk.
        snapshot = threading.Thread(target=cloud.snapshots.flush)
        snapshot.start()
        count: int = upload(objects, source, uri)
        snapshot.join(0.2)
        blocked.append(snapshot.is_alive())
        return count

    monkeypatch.setattr(ObjectStore, "upload", checked)
    assert lab.process("import pathlib, sys\npathlib.Path(sys.argv[1], 'x').touch()")["ProcessingJobStatus"] == "Completed"
    assert blocked == [True]


def test_a_full_disk_fails_the_job_and_not_the_region(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(lab.service.jobs.workshop, "sandbox", full)
        reason = lab.process("")["FailureReason"]
    assert reason.startswith("InternalServerError: ")
    assert "No space left on device" in reason
    with monkeypatch.context() as patch:
        patch.setattr(ObjectStore, "download", full)
        assert lab.process("")["FailureReason"] == "ClientError: Data download failed: [Errno 28] No space left on device"
    assert lab.process("")["ProcessingJobStatus"] == "Completed"


def test_a_shell_script_is_an_entrypoint_too(lab: Lab) -> None:
    request = lab.processing_request("")
    lab.put(
        f"{request['ProcessingJobName']}/code/run.sh",
        '#!/bin/bash\nset -e\ncd /opt/ml/processing/input/code/\npython3 -c "print(6 * 7)" > /opt/ml/processing/output/x\n',
    )
    request["ProcessingInputs"] = [s3_input("code", f"s3://{BUCKET}/{request['ProcessingJobName']}/code/")]
    request["AppSpecification"] |= {"ContainerEntrypoint": ["/bin/bash", "/opt/ml/processing/input/code/run.sh"]}
    lab.sm.create_processing_job(**request)
    assert lab.processed(request["ProcessingJobName"])["ProcessingJobStatus"] == "Completed"
    assert lab.objects(f"{request['ProcessingJobName']}/out/") == {"x": b"42\n"}


def test_a_program_that_is_not_there_is_named(lab: Lab) -> None:
    request = lab.processing_request("")
    request["AppSpecification"]["ContainerEntrypoint"] = ["no-such-program"]
    lab.sm.create_processing_job(**request)
    reason = lab.processed(request["ProcessingJobName"])["FailureReason"]
    assert reason == 'AlgorithmError: exec: "no-such-program": No such file or directory, exit code: 127'


@pytest.mark.parametrize("swallow", [False, True])
def test_code_that_names_the_real_folder_fails_the_job(lab: Lab, swallow: bool) -> None:
    write = "import os\nos.makedirs('/opt/ml/output/x')\n"
    code = f"try:\n    {write.splitlines()[0]}\n    {write.splitlines()[1]}\nexcept OSError:\n    pass\n" if swallow else write
    existed = Path("/opt/ml").exists()
    job = lab.process(code)
    assert job["ProcessingJobStatus"] == "Failed"
    assert job["FailureReason"].startswith("AlgorithmError: The code uses the path /opt/ml")
    assert "(script.py, line " in job["FailureReason"]
    assert Path("/opt/ml").exists() is existed


def test_a_program_that_changes_the_real_folder_fails_the_job(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = tmp_path / "real"
    monkeypatch.setattr(sandbox, "REAL_ROOT", real)
    job = lab.process(f"import subprocess\nsubprocess.run(['/bin/mkdir', '{real}'], check=True)\n")
    assert "changed this machine's /opt/ml" in job["FailureReason"]


def test_max_runtime_stops_a_job(lab: Lab) -> None:
    job = lab.process(SLEEP, StoppingCondition={"MaxRuntimeInSeconds": 1})
    assert job["ProcessingJobStatus"] == "Stopped"
    assert "MaxRuntimeInSeconds (1 s)" in job["ExitMessage"]
    assert lab.objects(f"{job['ProcessingJobName']}/out/") == {}


def test_stopping_a_job_ends_its_process_and_children(lab: Lab, poll: Callable[..., Any]) -> None:
    code = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    request = lab.processing_request(code)
    name = request["ProcessingJobName"]
    lab.sm.create_processing_job(**request)
    child = int(poll(lambda: _lines(lab, PROCESSING, name))[0])
    lab.sm.stop_processing_job(ProcessingJobName=name)
    assert lab.processed(name)["ProcessingJobStatus"] == "Stopped"
    poll(lambda: not _alive(child))
    assert error_of(lambda: lab.sm.stop_processing_job(ProcessingJobName=name)) == (
        "ValidationException",
        "The request was rejected because the processing job is in status Stopped.",
    )


def test_a_job_that_ignores_sigterm_is_killed_after_the_grace(lab: Lab, poll: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lab.service.jobs, "grace", 0.2)
    request = lab.processing_request("import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + SLEEP)
    name = request["ProcessingJobName"]
    lab.sm.create_processing_job(**request)
    poll(lambda: _lines(lab, PROCESSING, name))
    lab.sm.stop_processing_job(ProcessingJobName=name)
    assert lab.processed(name)["ProcessingJobStatus"] == "Stopped"


def test_a_child_that_leaves_the_group_does_not_hold_the_job_open(lab: Lab) -> None:
    code = (
        "import subprocess, sys\n"
        "print('before', flush=True)\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(8)'], start_new_session=True)\n"
    )
    job = lab.process(code)
    assert job["ProcessingJobStatus"] == "Completed"
    assert lab.lines(PROCESSING, job["ProcessingJobName"]) == ["before"]


def test_continuous_outputs_arrive_while_the_job_runs(lab: Lab, poll: Callable[..., Any]) -> None:
    code = "import pathlib, sys, time\nfolder = pathlib.Path(sys.argv[1])\n(folder / 'early').write_text('1')\ntime.sleep(600)\n"
    request = lab.processing_request(code)
    name = request["ProcessingJobName"]
    request["ProcessingOutputConfig"]["Outputs"][0]["S3Output"]["S3UploadMode"] = "Continuous"
    lab.sm.create_processing_job(**request)
    poll(lambda: lab.objects(f"{name}/out/") == {"early": b"1"})
    lab.sm.stop_processing_job(ProcessingJobName=name)
    assert lab.processed(name)["ProcessingJobStatus"] == "Stopped"


def test_names_are_given_once_and_unknown_ones_are_said_so(lab: Lab) -> None:
    request = lab.processing_request("")
    lab.sm.create_processing_job(**request)
    arn = lab.processed(request["ProcessingJobName"])["ProcessingJobArn"]
    assert error_of(lambda: lab.sm.create_processing_job(**request)) == (
        "ResourceInUse",
        f"Job name must be unique within an AWS account and region, and a job with this name already exists ({arn})",
    )
    assert error_of(lambda: lab.sm.describe_processing_job(ProcessingJobName="none")) == (
        "ValidationException",
        "Could not find requested job with name: none",
    )
    assert error_of(lambda: lab.sm.describe_training_job(TrainingJobName="none")) == (
        "ValidationException",
        "Requested resource not found.",
    )


def test_a_role_that_cannot_be_assumed_is_refused(lab: Lab) -> None:
    request = lab.processing_request("") | {"RoleArn": "arn:aws:iam::123456789012:role/nobody"}
    code, message = error_of(lambda: lab.sm.create_processing_job(**request))
    assert code == "ValidationException"
    assert message.startswith("Could not assume role arn:aws:iam::123456789012:role/nobody. Please ensure that the role exists")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"ProcessingResources": {"ClusterConfig": CLUSTER | {"InstanceCount": 2}}},
            "more than one instance is not supported by localcloud",
        ),
        ({"NetworkConfig": {"EnableNetworkIsolation": True}}, "NetworkConfig: EnableNetworkIsolation is not supported by localcloud"),
        ({"AppSpecification": {"ImageUri": "image"}}, "their own entrypoint is not known) is not supported by localcloud"),
        ({"ProcessingInputs": [s3_input("x", "s3://b/x", S3InputMode="Pipe")]}, "S3InputMode Pipe is not supported by localcloud"),
        ({"ProcessingInputs": [s3_input("x", "s3://b/x", S3CompressionType="Gzip")]}, "Gzip can only be used with S3InputMode Pipe"),
        ({"ProcessingInputs": [s3_input("x", "s3://b/x", path="/etc")]}, "must be an absolute path that begins with /opt/ml/processing/"),
        ({"ProcessingInputs": [s3_input("x", "s3://b/x", path="/opt/ml/processing/../../etc")]}, "must be an absolute path"),
        ({"ProcessingInputs": [s3_input("out", "s3://b/x")]}, "names must be unique"),
        (
            {"ProcessingInputs": [{"InputName": "x", "DatasetDefinition": {"LocalPath": "/opt/ml/processing/x"}}]},
            "DatasetDefinition is not supported",
        ),
    ],
)
def test_what_has_no_effect_here_is_refused(lab: Lab, change: dict[str, Any], message: str) -> None:
    request = lab.processing_request("") | change
    code, text = error_of(lambda: lab.sm.create_processing_job(**request))
    assert code == "ValidationException"
    assert message in text
    assert error_of(lambda: lab.sm.describe_processing_job(ProcessingJobName=request["ProcessingJobName"]))[0] == "ValidationException"


def test_events_tell_each_state_of_a_processing_job(lab: Lab) -> None:
    name = lab.process("", Tags=[{"Key": "k", "Value": "v"}])["ProcessingJobName"]
    details = lab.details("SageMaker Processing Job State Change", ProcessingJobName=name)
    assert [detail["ProcessingJobStatus"] for detail in details] == ["InProgress", "Completed"]
    assert details[1]["ProcessingJobArn"].endswith(f":processing-job/{name}")
    assert details[1]["Tags"] == {"k": "v"}
    assert isinstance(details[1]["CreationTime"], int)


def test_jobs_are_listed_by_page(lab: Lab) -> None:
    names = [lab.process("", name=f"list-{index}")["ProcessingJobName"] for index in range(3)]
    pages = lab.sm.get_paginator("list_processing_jobs").paginate(
        NameContains="list-", SortBy="CreationTime", SortOrder="Ascending", PaginationConfig={"PageSize": 2}
    )
    assert [[job["ProcessingJobName"] for job in page["ProcessingJobSummaries"]] for page in pages] == [names[:2], names[2:]]
    assert lab.sm.list_processing_jobs(NameContains="list-", StatusEquals="Failed")["ProcessingJobSummaries"] == []


# Training.


def test_a_training_job_reads_channels_and_leaves_a_model(lab: Lab) -> None:
    lab.put("train/a.txt", "A")
    code = (
        "import json, os, pathlib, sys\n"
        "ml = pathlib.Path(sys.argv[1])\n"
        "config = {name: json.loads((ml / 'input/config' / f'{name}.json').read_text()) for name in ('hyperparameters', 'inputdataconfig', 'resourceconfig')}\n"
        "assert config['inputdataconfig']['train'] == {'ContentType': 'text/plain', 'TrainingInputMode': 'File', 'S3DistributionType': 'FullyReplicated', 'RecordWrapperType': 'None'}\n"
        "assert config['resourceconfig']['current_host'] == 'algo-1'\n"
        "assert config['resourceconfig']['current_instance_type'] == 'ml.m5.large'\n"
        "assert config['hyperparameters'] == {'epochs': '2', 'folder': str(ml / 'checkpoints')}\n"
        "assert os.environ['TRAINING_JOB_NAME'] in os.environ['TRAINING_JOB_ARN']\n"
        "for epoch in range(2):\n"
        "    print(f'epoch={epoch} loss={1 / (epoch + 1)};')\n"
        "(ml / 'model' / 'code').mkdir()\n"
        "(ml / 'model' / 'code' / 'x.py').write_text('x')\n"
        "(ml / 'model' / 'weights').write_text((ml / 'input/data/train/a.txt').read_text())\n"
        "(ml / 'output/data' / 'metrics.json').write_text('{}')\n"
    )
    request = lab.training_request(
        code,
        metrics={"loss": "loss=([0-9.]+)", "never": "never=([0-9.]+)"},
        HyperParameters={"epochs": "2", "folder": "/opt/ml/checkpoints"},
    )
    request["InputDataConfig"].append(channel("train", f"s3://{BUCKET}/train/", ContentType="text/plain", InputMode="FastFile"))
    request["InputDataConfig"][1]["InputMode"] = "File"
    name = request["TrainingJobName"]
    lab.sm.create_training_job(**request)
    job = lab.trained(name)
    assert (job["TrainingJobStatus"], job["SecondaryStatus"]) == ("Completed", "Completed"), job
    assert [transition["Status"] for transition in job["SecondaryStatusTransitions"]] == [
        "Starting",
        "Downloading",
        "Training",
        "Uploading",
        "Completed",
    ]
    assert all(transition["StartTime"] <= transition["EndTime"] for transition in job["SecondaryStatusTransitions"])
    assert job["ModelArtifacts"] == {"S3ModelArtifacts": f"s3://{BUCKET}/out/{name}/output/model.tar.gz"}
    assert [(metric["MetricName"], metric["Value"]) for metric in job["FinalMetricDataList"]] == [("loss", 0.5)]
    assert job["TrainingTimeInSeconds"] >= 1
    outputs = lab.objects(f"out/{name}/output/")
    assert read_tar_gz(outputs["model.tar.gz"]) == {"code/x.py": b"x", "weights": b"A"}
    assert read_tar_gz(outputs["output.tar.gz"]) == {"metrics.json": b"{}"}
    assert lab.lines(TRAINING, name) == ["epoch=0 loss=1.0;", "epoch=1 loss=0.5;"]
    statuses = [detail["SecondaryStatus"] for detail in lab.details("SageMaker Training Job State Change", TrainingJobName=name)]
    assert statuses == ["Starting", "Downloading", "Training", "Uploading", "Completed"]


def test_a_failed_training_job_says_what_the_script_said(lab: Lab) -> None:
    code = (
        "import pathlib, sys\n"
        "ml = pathlib.Path(sys.argv[1])\n"
        "(ml / 'model' / 'partial').touch()\n"
        "(ml / 'output' / 'failure').write_text('the loss is not a number\\n')\n"
        "sys.exit(2)\n"
    )
    job = lab.train(code)
    assert (job["TrainingJobStatus"], job["SecondaryStatus"]) == ("Failed", "Failed")
    assert job["FailureReason"] == "AlgorithmError: the loss is not a number, exit code: 2"
    assert lab.objects(f"out/{job['TrainingJobName']}/") == {}


def test_checkpoints_are_restored_and_uploaded_while_the_job_runs(lab: Lab, poll: Callable[..., Any]) -> None:
    prefix = lab.name("checkpoints")
    lab.put(f"{prefix}/epoch-1", "one")
    code = (
        "import pathlib, sys, time\n"
        "folder = pathlib.Path(sys.argv[1], 'checkpoints')\n"
        "print(*sorted(p.name for p in folder.iterdir()), flush=True)\n"
        "(folder / 'epoch-2').write_text('two')\n"
        "time.sleep(600)\n"
    )
    request = lab.training_request(code, CheckpointConfig={"S3Uri": f"s3://{BUCKET}/{prefix}/"})
    lab.sm.create_training_job(**request)
    poll(lambda: lab.objects(f"{prefix}/") == {"epoch-1": b"one", "epoch-2": b"two"})
    lab.sm.stop_training_job(TrainingJobName=request["TrainingJobName"])
    lab.trained(request["TrainingJobName"])
    assert lab.lines(TRAINING, request["TrainingJobName"]) == ["epoch-1"]


def test_checkpoints_written_last_are_uploaded_even_when_the_job_fails(lab: Lab) -> None:
    prefix = lab.name("checkpoints")
    code = "import pathlib, sys\npathlib.Path(sys.argv[1], 'checkpoints', 'last').write_text('x')\nsys.exit(1)\n"
    job = lab.train(code, CheckpointConfig={"S3Uri": f"s3://{BUCKET}/{prefix}"})
    assert job["TrainingJobStatus"] == "Failed"
    assert lab.objects(f"{prefix}/") == {"last": b"x"}


def test_a_stopped_training_job_keeps_the_model_it_saved(lab: Lab, poll: Callable[..., Any]) -> None:
    code = (
        "import pathlib, signal, sys, time\n"
        "def save(*_):\n"
        "    pathlib.Path(sys.argv[1], 'model', 'weights').write_text('so far')\n"
        "    sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, save)\n"
        "print('ready', flush=True)\n"
        "time.sleep(600)\n"
    )
    request = lab.training_request(code)
    name = request["TrainingJobName"]
    lab.sm.create_training_job(**request)
    poll(lambda: _lines(lab, TRAINING, name))
    lab.sm.stop_training_job(TrainingJobName=name)
    job = lab.trained(name)
    assert (job["TrainingJobStatus"], job["SecondaryStatus"]) == ("Stopped", "Stopped")
    assert [transition["Status"] for transition in job["SecondaryStatusTransitions"]][-3:] == ["Stopping", "Uploading", "Stopped"]
    assert read_tar_gz(lab.objects(f"out/{name}/output/")["model.tar.gz"]) == {"weights": b"so far"}


def test_max_runtime_of_a_training_job_has_its_own_status(lab: Lab) -> None:
    job = lab.train(SLEEP, StoppingCondition={"MaxRuntimeInSeconds": 1})
    assert (job["TrainingJobStatus"], job["SecondaryStatus"]) == ("Stopped", "MaxRuntimeExceeded")


def test_a_model_can_be_left_uncompressed(lab: Lab) -> None:
    code = "import pathlib, sys\npathlib.Path(sys.argv[1], 'model', 'weights').write_text('w')\n"
    job = lab.train(code, OutputDataConfig={"S3OutputPath": f"s3://{BUCKET}/plain", "CompressionType": "NONE"})
    prefix = f"plain/{job['TrainingJobName']}/output/model/"
    assert job["ModelArtifacts"]["S3ModelArtifacts"] == f"s3://{BUCKET}/{prefix}"
    assert lab.objects(prefix) == {"weights": b"w"}


def test_the_sdks_driver_scripts_are_remapped_and_the_users_are_not(lab: Lab) -> None:
    request = lab.training_request("open('/opt/ml/model/x', 'w')\n")
    lab.put(f"{request['TrainingJobName']}/drivers/train.sh", "#!/bin/bash\npython3 /opt/ml/input/data/sm_drivers/driver.py\n")
    lab.put(f"{request['TrainingJobName']}/drivers/driver.py", "open('/opt/ml/model/ok', 'w').write('1')\n")
    request["InputDataConfig"].append(channel("sm_drivers", f"s3://{BUCKET}/{request['TrainingJobName']}/drivers/"))
    drivers = "/opt/ml/input/data/sm_drivers/train.sh"
    request["AlgorithmSpecification"] |= {
        "ContainerEntrypoint": ["/bin/bash"],
        "ContainerArguments": ["-c", f"chmod +x {drivers} && {drivers}"],
    }
    lab.sm.create_training_job(**request)
    job = lab.trained(request["TrainingJobName"])
    assert job["TrainingJobStatus"] == "Completed", job
    assert read_tar_gz(lab.objects(f"out/{request['TrainingJobName']}/output/")["model.tar.gz"]) == {"ok": b"1"}
    assert "uses the path /opt/ml/model/x itself" in lab.train("open('/opt/ml/model/x', 'w')\n")["FailureReason"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"AlgorithmSpecification": {"TrainingImage": "i", "TrainingInputMode": "File"}},
            "the SDK's ModelTrainer sends one) is not supported",
        ),
        (
            {"AlgorithmSpecification": {"TrainingImage": "i", "TrainingInputMode": "Pipe", "ContainerEntrypoint": ["true"]}},
            "InputMode Pipe is not supported",
        ),
        ({"ResourceConfig": CLUSTER | {"InstanceCount": 2}}, "more than one instance is not supported"),
        ({"EnableNetworkIsolation": True}, "EnableNetworkIsolation is not supported"),
        ({"DebugHookConfig": {"S3OutputPath": "s3://b/x"}}, "DebugHookConfig is not supported"),
        ({"TensorBoardOutputConfig": {"S3OutputPath": "s3://b/x"}}, "TensorBoardOutputConfig is not supported"),
        ({"EnableManagedSpotTraining": True}, "Invalid MaxWaitTimeInSeconds"),
        ({"CheckpointConfig": {"S3Uri": "s3://b/x", "LocalPath": "/tmp/x"}}, "outside of /opt/ml is not supported"),
        (
            {"InputDataConfig": [channel("x", f"s3://{BUCKET}/nowhere/")]},
            'No S3 objects found under S3 URL "s3://sagemaker-tests/nowhere/" given in input data source.',
        ),
        ({"InputDataConfig": [channel("x", f"s3://{BUCKET}/", CompressionType="Gzip")]}, "must be None unless its InputMode is Pipe"),
        ({"InputDataConfig": [channel("x", f"s3://{BUCKET}/")] * 2}, "Channel names must be unique"),
    ],
)
def test_training_that_has_no_effect_here_is_refused(lab: Lab, change: dict[str, Any], message: str) -> None:
    request = lab.training_request("") | change
    code, text = error_of(lambda: lab.sm.create_training_job(**request))
    assert code == "ValidationException"
    assert message in text


def test_an_unknown_resource_has_no_tags(lab: Lab) -> None:
    arn = lab.process("")["ProcessingJobArn"]
    lab.sm.add_tags(ResourceArn=arn, Tags=[{"Key": "a", "Value": "1"}, {"Key": "b", "Value": "2"}])
    lab.sm.add_tags(ResourceArn=arn, Tags=[{"Key": "a", "Value": "3"}])
    lab.sm.delete_tags(ResourceArn=arn, TagKeys=["b", "c"])
    assert lab.sm.list_tags(ResourceArn=arn)["Tags"] == [{"Key": "a", "Value": "3"}]
    assert error_of(lambda: lab.sm.list_tags(ResourceArn=arn + "x"))[0] == "ResourceNotFound"
    assert "reserved" in error_of(lambda: lab.sm.add_tags(ResourceArn=arn, Tags=[{"Key": "aws:x", "Value": "1"}]))[1]


def _lines(lab: Lab, group: str, job: str) -> list[str]:
    """Return what a job logged; empty as long as it has no stream."""
    try:
        return lab.lines(group, job)
    except ClientError:
        return []


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A killed child whose parent is gone stays a zombie until it is reaped.
    status = Path(f"/proc/{pid}/stat")
    return not (status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z")
