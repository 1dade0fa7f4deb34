"""kill -9 of localcloud while jobs run and endpoints serve: no orphans, nothing half done, endpoints back after the restart."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from helpers_roles import mighty_role
from helpers_sagemaker import BUCKET, CLUSTER, IMAGE, TRUST, s3_input, s3_output, tar_gz

ROOT = Path(__file__).resolve().parents[2]
SERVE = "import json, os, time\ndef model_fn(d): return open(d + '/name').read()\ndef transform_fn(m, b, c, a): return json.dumps([m, os.getpid()])\n"
#: Writes a pid, a partial output, and waits.
JOB = (
    "import os, pathlib, subprocess, sys, time\n"
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
    "pathlib.Path(sys.argv[1], 'partial').write_text('x')\n"
    "pathlib.Path(sys.argv[2]).write_text(f'{os.getpid()} {child.pid}')\n"
    "time.sleep(600)\n"
)


class Cloud:
    """A localcloud process of its own."""

    def __init__(self, state_dir: Path, poll: Callable[..., Any]) -> None:
        command = [sys.executable, "-m", "localcloud", "--state-dir", str(state_dir), "--quiet"]
        self.process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
        running = state_dir / "running.json"

        def url() -> str | None:
            try:
                status = json.loads(running.read_text())
            except (OSError, ValueError):
                return None
            return str(status["endpoint_url"]) if status["pid"] == self.process.pid else None

        self.url: str = poll(url)

    def client(self, service: str) -> Any:
        return boto3.client(service, endpoint_url=self.url, region_name="us-east-1")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def start(state_dir: Path, poll: Callable[..., Any]) -> Iterator[Callable[[], Cloud]]:
    clouds: list[Cloud] = []

    def begin() -> Cloud:
        clouds.append(Cloud(state_dir, poll))
        return clouds[-1]

    yield begin
    for cloud in clouds:
        cloud.kill()


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    # Nobody may be there to reap an orphan that was killed.
    return not (status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z")


def test_kill_9_leaves_no_orphans_fails_jobs_and_keeps_endpoints(
    start: Callable[[], Cloud], state_dir: Path, tmp_path: Path, poll: Callable[..., Any]
) -> None:
    cloud = start()
    s3, sagemaker = cloud.client("s3"), cloud.client("sagemaker")
    role = mighty_role(cloud.client("iam"), "r", TRUST)
    s3.create_bucket(Bucket=BUCKET)
    # "two" never gets ready, so that an update to it is under way when localcloud is killed; others take their time.
    scripts = {
        "one": SERVE,
        "slow": SERVE.replace(": return open", ": time.sleep(0.5); return open"),
        "slower": SERVE.replace(": return open", ": time.sleep(1); return open"),
        "two": "import time\ndef model_fn(d): time.sleep(600)\n",
    }
    for name, script in scripts.items():
        s3.put_object(Bucket=BUCKET, Key=f"{name}.tar.gz", Body=tar_gz({"name": name.encode(), "code/inference.py": script.encode()}))
        sagemaker.create_model(
            ModelName=name, ExecutionRoleArn=role, PrimaryContainer={"Image": IMAGE, "ModelDataUrl": f"s3://{BUCKET}/{name}.tar.gz"}
        )
        variant = {"VariantName": "v", "ModelName": name, "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
        sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
    for endpoint, config in (("serving", "one"), ("switching", "slow"), ("updating", "one"), ("creating", "two")):
        sagemaker.create_endpoint(EndpointName=endpoint, EndpointConfigName=config)
    for endpoint in ("serving", "switching", "updating"):
        poll(lambda endpoint=endpoint: sagemaker.describe_endpoint(EndpointName=endpoint)["EndpointStatus"] == "InService")
    sagemaker.update_endpoint(EndpointName="updating", EndpointConfigName="two")
    s3.put_object(Bucket=BUCKET, Key="code/job.py", Body=JOB)
    pid_file = tmp_path / "pids"
    sagemaker.create_processing_job(
        ProcessingJobName="job",
        RoleArn=role,
        ProcessingResources={"ClusterConfig": CLUSTER},
        AppSpecification={
            "ImageUri": IMAGE,
            "ContainerEntrypoint": ["python3", "/opt/ml/processing/input/code/job.py"],
            "ContainerArguments": ["/opt/ml/processing/output", str(pid_file)],
        },
        ProcessingInputs=[s3_input("code", f"s3://{BUCKET}/code/")],
        ProcessingOutputConfig={"Outputs": [s3_output("out", f"s3://{BUCKET}/out")]},
    )
    pids = [int(pid) for pid in poll(lambda: pid_file.exists() and pid_file.read_text()).split()]
    runtime = cloud.client("sagemaker-runtime")
    served = json.loads(runtime.invoke_endpoint(EndpointName="serving", Body=b"")["Body"].read())
    assert served[0] == "one"

    cloud.kill()
    for pid in [*pids, served[1]]:
        poll(lambda pid=pid: not alive(pid))

    cloud = start()
    s3, sagemaker, runtime = (cloud.client(name) for name in ("s3", "sagemaker", "sagemaker-runtime"))
    # While the server of before is still coming up.
    sagemaker.update_endpoint(EndpointName="switching", EndpointConfigName="slower")
    job = sagemaker.describe_processing_job(ProcessingJobName="job")
    assert job["ProcessingJobStatus"] == "Failed"
    assert job["FailureReason"].startswith("InternalServerError: We encountered an internal error. Please try again.")
    assert s3.list_objects_v2(Bucket=BUCKET, Prefix="out/")["KeyCount"] == 0
    # A request waits for the server that comes back.
    for endpoint in ("serving", "updating"):
        assert json.loads(runtime.invoke_endpoint(EndpointName=endpoint, Body=b"")["Body"].read())[0] == "one"
        assert sagemaker.describe_endpoint(EndpointName=endpoint)["EndpointStatus"] == "InService"
        assert sagemaker.describe_endpoint(EndpointName=endpoint)["EndpointConfigName"] == "one"
    switched = poll(lambda: (found := sagemaker.describe_endpoint(EndpointName="switching"))["EndpointStatus"] == "InService" and found)
    assert switched["EndpointConfigName"] == "slower", switched
    assert json.loads(runtime.invoke_endpoint(EndpointName="switching", Body=b"")["Body"].read())[0] == "slower"
    assert "was being updated" in sagemaker.describe_endpoint(EndpointName="updating")["FailureReason"]
    created = sagemaker.describe_endpoint(EndpointName="creating")
    assert created["EndpointStatus"] == "Failed"
    assert "was being created" in created["FailureReason"]
    with pytest.raises(ClientError, match="not found"):
        runtime.invoke_endpoint(EndpointName="creating", Body=b"")
    # Of what was there before only what serves now has a folder (and the programs).
    assert len(list((state_dir / "jobs").iterdir())) == 4


def test_kill_9_in_the_middle_of_shifting_leaves_the_old_version_serving(start: Callable[[], Cloud], poll: Callable[..., Any]) -> None:
    cloud = start()
    sagemaker, s3 = cloud.client("sagemaker"), cloud.client("s3")
    role = mighty_role(cloud.client("iam"), "r", TRUST)
    s3.create_bucket(Bucket=BUCKET)
    for name in ("blue", "green"):
        s3.put_object(Bucket=BUCKET, Key=f"{name}.tar.gz", Body=tar_gz({"name": name.encode(), "code/inference.py": SERVE.encode()}))
        container = {"Image": IMAGE, "ModelDataUrl": f"s3://{BUCKET}/{name}.tar.gz"}
        sagemaker.create_model(ModelName=name, ExecutionRoleArn=role, PrimaryContainer=container)
        variant = {"VariantName": "v", "ModelName": name, "InstanceType": "ml.m5.large", "InitialInstanceCount": 2}
        sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName="e", EndpointConfigName="blue")
    poll(lambda: sagemaker.describe_endpoint(EndpointName="e")["EndpointStatus"] == "InService")
    routing = {"Type": "LINEAR", "WaitIntervalInSeconds": 3600, "LinearStepSize": {"Type": "CAPACITY_PERCENT", "Value": 50}}
    policy = {"TrafficRoutingConfiguration": routing}
    sagemaker.update_endpoint(EndpointName="e", EndpointConfigName="green", DeploymentConfig={"BlueGreenUpdatePolicy": policy})
    runtime = cloud.client("sagemaker-runtime")

    def ask() -> Any:
        return json.loads(runtime.invoke_endpoint(EndpointName="e", Body=b"")["Body"].read())

    _, pid = poll(lambda: (answer := ask())[0] == "green" and answer)

    cloud.kill()
    poll(lambda: not alive(pid))
    cloud = start()
    sagemaker, runtime = cloud.client("sagemaker"), cloud.client("sagemaker-runtime")
    described = sagemaker.describe_endpoint(EndpointName="e")
    assert (described["EndpointStatus"], described["EndpointConfigName"]) == ("InService", "blue")
    assert "localcloud ended while the endpoint was being updated" in described["FailureReason"]
    assert "PendingDeploymentSummary" not in described
    assert {ask()[0] for _ in range(20)} == {"blue"}


def test_a_region_that_is_stopped_ends_its_jobs(state_dir: Path) -> None:
    from localcloud.sagemaker.jobs import JobKind
    from localcloud.server import Server
    from localcloud.settings import CloudSettings

    settings = CloudSettings(state_dir, console=False)
    with Server(settings) as server:
        service: Any = server.cloud.services["sagemaker"]
        iam, s3 = (boto3.client(name, endpoint_url=server.cloud.endpoint_url, region_name="us-east-1") for name in ("iam", "s3"))
        role = mighty_role(iam, "r", TRUST)
        s3.create_bucket(Bucket=BUCKET)
        service.create_processing_job(
            {
                "ProcessingJobName": "job",
                "RoleArn": role,
                "ProcessingResources": {"ClusterConfig": CLUSTER},
                "AppSpecification": {"ImageUri": IMAGE, "ContainerEntrypoint": ["sleep", "600"]},
            }
        )
    with Server(settings) as server:
        service = server.cloud.services["sagemaker"]
        job = service.jobs.get(JobKind.PROCESSING, "job")
        assert job["ProcessingJobStatus"] == "Failed"
        assert "localcloud ended while the job was running" in job["FailureReason"]
