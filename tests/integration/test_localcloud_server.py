"""The process as a whole: one clear line when it cannot start, honest refusals, and a state that survives kill -9."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

ROOT = Path(__file__).resolve().parents[2]


class Process:
    """A localcloud process of its own, as `scones up --detach` starts it."""

    def __init__(self, state_dir: Path, poll: Callable[..., Any], *arguments: str) -> None:
        self._command = [sys.executable, "-m", "localcloud", "--state-dir", str(state_dir), "--quiet", *arguments]
        self._state_dir = state_dir
        self._poll = poll
        self.process = subprocess.Popen(self._command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
        self.endpoint_url: str = poll(self._ready)

    def _ready(self) -> str | None:
        assert self.process.poll() is None, self.process.stderr.read() if self.process.stderr else ""
        try:
            running = json.loads((self._state_dir / "running.json").read_text())
        except (OSError, ValueError):
            return None
        return str(running["endpoint_url"]) if running["pid"] == self.process.pid else None

    def client(self, service: str) -> Any:
        return boto3.client(service, endpoint_url=self.endpoint_url, region_name="us-east-1")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


@pytest.fixture
def start(state_dir: Path, poll: Callable[..., Any]) -> Iterator[Callable[..., Process]]:
    started: list[Process] = []

    def begin(*arguments: str) -> Process:
        started.append(Process(state_dir, poll, *arguments))
        return started[-1]

    yield begin
    for process in started:
        if process.process.poll() is None:
            process.kill()


def run_to_its_end(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "localcloud", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )


def test_state_survives_a_stop_and_a_kill(start: Callable[..., Process]) -> None:
    first = start()
    s3 = first.client("s3")
    s3.create_bucket(Bucket="kept")
    s3.put_object(Bucket="kept", Key="a", Body=b"one", Metadata={"name": "value"}, ContentType="image/png")
    first.client("sqs").create_queue(QueueName="queue")
    first.client("iam").create_role(RoleName="role", AssumeRolePolicyDocument="{}")
    assert first.stop() == 0

    second = start()
    s3 = second.client("s3")
    found = s3.get_object(Bucket="kept", Key="a")
    assert (found["Body"].read(), found["Metadata"], found["ContentType"]) == (b"one", {"name": "value"}, "image/png")
    assert second.client("sqs").list_queues()["QueueUrls"] == [f"{second.endpoint_url}/123456789012/queue"]
    assert second.client("iam").get_role(RoleName="role")["Role"]["RoleName"] == "role"
    s3.put_object(Bucket="kept", Key="a", Body=b"two")
    s3.put_object(Bucket="kept", Key="b", Body=b"three")
    # An overwritten object must be saved with its new content, and what was acknowledged a second ago must outlive the kill.
    time.sleep(1)
    second.kill()

    third = start()
    s3 = third.client("s3")
    assert s3.get_object(Bucket="kept", Key="a")["Body"].read() == b"two"
    assert s3.get_object(Bucket="kept", Key="b")["Body"].read() == b"three"
    assert third.stop() == 0


def test_a_kill_in_a_storm_of_writes_leaves_a_state_that_loads(start: Callable[..., Process]) -> None:
    first = start()
    s3 = first.client("s3")
    s3.create_bucket(Bucket="storm")
    for number in range(300):
        s3.put_object(Bucket="storm", Key=f"{number:03}", Body=str(number).encode())
    first.kill()

    s3 = start().client("s3")
    keys = [item["Key"] for item in s3.list_objects_v2(Bucket="storm").get("Contents", [])]
    assert keys == [f"{number:03}" for number in range(len(keys))], "what is kept must be a prefix of what was written"
    for key in keys:
        assert s3.get_object(Bucket="storm", Key=key)["Body"].read() == str(int(key)).encode()


def test_a_taken_port_is_one_clear_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = run_to_its_end("--port", str(port), "--state-dir", str(tmp_path))
    assert result.returncode == 1
    assert result.stderr.splitlines() == [f"localcloud: Port {port} on 127.0.0.1 cannot be used: it is taken. Choose another with --port."]


def test_a_state_folder_that_cannot_be_written_is_one_clear_line(tmp_path: Path) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("")
    result = run_to_its_end("--state-dir", str(blocker / "state"))
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1
    assert "cannot be written" in result.stderr
    assert "--state-dir" in result.stderr


def test_a_second_process_on_the_same_state_is_refused(start: Callable[..., Process], state_dir: Path) -> None:
    first = start()
    result = run_to_its_end("--state-dir", str(state_dir))
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1
    assert "already uses" in result.stderr
    assert first.client("s3").list_buckets()["Buckets"] == []


def test_it_listens_on_the_loopback_only(start: Callable[..., Process]) -> None:
    port = int(start().endpoint_url.rpartition(":")[2])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # no packet is sent: this only asks which address would be used
            own_address = probe.getsockname()[0]
        except OSError:
            own_address = "127.0.0.2"
    with pytest.raises(OSError, match=r"refused|timed out|unreachable"), socket.create_connection((own_address, port), timeout=2):
        pass


@pytest.mark.parametrize(
    ("service", "operation", "params"),
    [
        ("dynamodb", "list_tables", {}),
        ("iam", "simulate_principal_policy", {"PolicySourceArn": "arn:aws:iam::123456789012:role/x", "ActionNames": ["s3:GetObject"]}),
        ("sagemaker", "create_notebook_instance_lifecycle_config", {"NotebookInstanceLifecycleConfigName": "x"}),
        ("codepipeline", "list_webhooks", {}),
        ("codedeploy", "list_applications", {}),
    ],
)
def test_what_is_not_supported_is_refused_at_once(region: Any, service: str, operation: str, params: dict[str, Any]) -> None:
    began = time.monotonic()
    client = boto3.client(service, endpoint_url=region.endpoint_url, region_name="us-east-1")
    with pytest.raises(ClientError) as caught:
        getattr(client, operation)(**params)
    assert 400 <= caught.value.response["ResponseMetadata"]["HTTPStatusCode"] < 500
    assert "not supported by localcloud" in caught.value.response["Error"]["Message"]
    assert caught.value.response["ResponseMetadata"]["RetryAttempts"] == 0, f"retried for {time.monotonic() - began:.1f} s"


def test_a_disk_that_is_full_is_said_and_the_old_state_stays(start: Callable[..., Process], state_dir: Path, tmp_path: Path) -> None:
    first = start()
    first.client("s3").create_bucket(Bucket="kept")
    assert first.stop() == 0
    # A limit on file size makes every write fail, as a full disk does, on every POSIX system.
    result = subprocess.run(
        ["/bin/sh", "-c", f"ulimit -f 1; exec {sys.executable} -m localcloud --state-dir {tmp_path / 'new'}"],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1
    assert "cannot be used" in result.stderr
    assert start().client("s3").list_buckets()["Buckets"][0]["Name"] == "kept"


def test_the_port_that_was_picked_can_be_had_again_at_once(start: Callable[..., Process]) -> None:
    first = start()
    # The server ends this connection first, so that its side of it lingers in TIME_WAIT.
    with socket.create_connection(("127.0.0.1", int(first.endpoint_url.rpartition(":")[2]))) as connection:
        connection.sendall(b"GET /_localcloud/health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        while connection.recv(4096):
            pass
    assert first.stop() == 0
    assert start("--port", first.endpoint_url.rpartition(":")[2]).endpoint_url == first.endpoint_url


@pytest.mark.parametrize("damage", ["blobs", "localcloud.db"])
def test_a_damaged_state_is_one_clear_line_and_no_process_that_hangs(start: Callable[..., Process], state_dir: Path, damage: str) -> None:
    first = start()
    s3 = first.client("s3")
    s3.create_bucket(Bucket="kept")
    s3.put_object(Bucket="kept", Key="a", Body=b"one")
    for number in range(50):
        first.client("iam").create_role(RoleName=f"role-{number}", AssumeRolePolicyDocument="{}")
    assert first.stop() == 0
    if damage == "blobs":
        shutil.rmtree(state_dir / "blobs")
    else:
        content = bytearray((state_dir / damage).read_bytes())
        content[4 * 4096 :] = b"\xaa" * (len(content) - 4 * 4096)  # the head stays that of a database
        (state_dir / damage).write_bytes(content)
    result = run_to_its_end("--state-dir", str(state_dir))
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1, result.stderr
    assert str(state_dir) in result.stderr
