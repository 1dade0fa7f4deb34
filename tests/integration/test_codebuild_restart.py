"""kill -9 of localcloud while a build runs: no orphans, nothing half done, and the build's end is told after the restart."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from helpers_codebuild import BUCKET, ENVIRONMENT, TRUST, buildspec, context, phases
from helpers_processes import Process
from helpers_roles import mighty_role

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def start(state_dir: Path, poll: Callable[..., Any]) -> Iterator[Callable[[], tuple[subprocess.Popen[bytes], Callable[[str], Any]]]]:
    """Give a function that starts a localcloud of its own; it returns the process and a function that makes clients."""
    processes: list[Process] = []

    def begin() -> tuple[subprocess.Popen[bytes], Callable[[str], Any]]:
        processes.append(Process(state_dir, poll))
        return processes[-1].process, processes[-1].client

    yield begin
    for process in processes:
        process.kill()


def test_kill_9_ends_a_build_and_the_restart_says_so(
    start: Callable[[], Any], state_dir: Path, tmp_path: Path, poll: Callable[..., Any], alive: Callable[[int], bool]
) -> None:
    process, client = start()
    codebuild = client("codebuild")
    role = mighty_role(client("iam"), "r", TRUST)
    client("s3").create_bucket(Bucket=BUCKET)
    upload = {"type": "NO_SOURCE", "buildspec": buildspec("touch x", artifacts={"files": ["x"]})}
    codebuild.create_project(
        name="project", source=upload, artifacts={"type": "S3", "location": BUCKET}, environment=ENVIRONMENT, serviceRole=role
    )

    def ended(build_id: str) -> Any:
        [found] = codebuild.batch_get_builds(ids=[build_id])["builds"]
        return found["buildComplete"] and found

    first = codebuild.start_build(projectName="project")["build"]
    assert poll(lambda: ended(first["id"]), 60)["buildStatus"] == "SUCCEEDED"
    pids = tmp_path / "pids"
    spec = buildspec("touch y", f"sleep 600 & echo $$ $! >{pids}; sleep 600", artifacts={"files": ["y"]})
    codebuild.update_project(name="project", source={"type": "NO_SOURCE", "buildspec": spec})
    build_id = codebuild.start_build(projectName="project")["build"]["id"]
    written = poll(lambda: pids.exists() and pids.read_text().split(), 60)
    process.kill()
    process.wait()
    for pid in written:
        poll(lambda pid=pid: not alive(int(pid)))

    process, client = start()
    codebuild = client("codebuild")
    [build] = codebuild.batch_get_builds(ids=[build_id])["builds"]
    assert build["buildStatus"] == "FAULT"
    assert build["buildComplete"]
    assert phases(build)["BUILD"] == "FAULT"
    assert context(build, "BUILD") == ("INTERNAL_SERVICE_ERROR", "localcloud ended while the build was running")
    assert list(phases(build))[-1] == "COMPLETED"
    # What the first build uploaded was saved before it ended; of the second there is nothing.
    assert [item["Key"] for item in client("s3").list_objects_v2(Bucket=BUCKET)["Contents"]] == ["project/x"]
    assert [path.name for path in (state_dir / "builds").iterdir()] == ["bin"]
    assert codebuild.list_projects()["projects"] == ["project"]
    codebuild.update_project(name="project", source=upload)
    again = codebuild.start_build(projectName="project")["build"]
    assert again["buildNumber"] == 3
    assert poll(lambda: ended(again["id"]), 60)["buildStatus"] == "SUCCEEDED"


def test_an_orderly_end_of_localcloud_ends_builds_too(
    start: Callable[[], Any], tmp_path: Path, poll: Callable[..., Any], alive: Callable[[int], bool]
) -> None:
    process, client = start()
    role = mighty_role(client("iam"), "r", TRUST)
    pids = tmp_path / "pids"
    client("codebuild").create_project(
        name="project",
        source={"type": "NO_SOURCE", "buildspec": buildspec(f"echo $$ >{pids}; sleep 600")},
        artifacts={"type": "NO_ARTIFACTS"},
        environment=ENVIRONMENT,
        serviceRole=role,
    )
    build_id = client("codebuild").start_build(projectName="project")["build"]["id"]
    [pid] = poll(lambda: pids.exists() and pids.read_text().split(), 60)
    process.terminate()
    assert process.wait(60) == 0
    assert not alive(int(pid))
    _, client = start()
    [build] = client("codebuild").batch_get_builds(ids=[build_id])["builds"]
    assert build["buildStatus"] == "FAULT"
