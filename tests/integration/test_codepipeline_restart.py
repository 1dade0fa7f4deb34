"""Pipelines go on when localcloud is started again, also after `kill -9`."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Region

from helpers_codepipeline import Clone, Workshop, action, real_project, stage
from helpers_processes import Process
from localcloud.codepipeline.engine import INTERRUPTED
from localcloud.database import Database
from localcloud.server import Server
from localcloud.settings import CloudSettings

ROOT = Path(__file__).resolve().parents[2]
Poll = Callable[..., Any]


@pytest.fixture
def begin(state_dir: Path, poll: Poll) -> Iterator[Callable[[], tuple[Any, subprocess.Popen[bytes]]]]:
    """Start a localcloud process; return what reaches it, and the process."""
    processes: list[Process] = []

    def start() -> tuple[Any, subprocess.Popen[bytes]]:
        processes.append(Process(state_dir, poll))
        return processes[-1], processes[-1].process

    yield start
    for process in processes:
        process.kill()


def test_after_kill_9_an_approval_waits_on_and_an_interrupted_build_fails(
    begin: Callable[[], tuple[Any, subprocess.Popen[bytes]]], tmp_path: Path, poll: Poll
) -> None:
    region, process = begin()
    shop = Workshop(region)
    arn, remote = shop.connection("team/app")
    clone = Clone(tmp_path / "clone", remote)
    first = clone.commit("One", a__txt="1")
    clone.push()
    settings = {"ConnectionArn": arn, "FullRepositoryId": "team/app", "BranchName": "main"}
    source = stage("Source", action("Checkout", "Source/CodeStarSourceConnection", settings, outputs=["Source"], namespace="source"))
    ask = stage("Ask", action("Ask", "Approval/Manual", {"CustomData": "#{source.CommitId}"}))
    waiting, asked = shop.create(source, ask)
    project = real_project(shop, "touch begun", "sleep 600")
    building, built = shop.create(
        shop.source(), stage("Build", action("Build", "Build/CodeBuild", {"ProjectName": project}, inputs=["Source"]))
    )
    poll(lambda: "token" in shop.stage_state(waiting, "Ask")["actionStates"][0].get("latestExecution", {}), 60.0)
    poll(
        lambda: shop.actions(building, built).get("Build", {}).get("output", {}).get("executionResult", {}).get("externalExecutionId"), 60.0
    )
    process.kill()
    process.wait()
    second = clone.commit("Two", a__txt="2")
    clone.push()
    shop.region, _ = begin()
    poll(lambda: shop.status(building, built) == "Failed", 60.0)
    assert "Build terminated with state: " in shop.error(building, built, "Build")
    assert shop.status(waiting, asked) == "InProgress"
    token = shop.stage_state(waiting, "Ask")["actionStates"][0]["latestExecution"]["token"]
    shop.client("codepipeline").put_approval_result(
        pipelineName=waiting, stageName="Ask", actionName="Ask", result={"summary": "", "status": "Approved"}, token=token
    )
    poll(lambda: shop.status(waiting, asked) == "Succeeded", 60.0)
    assert shop.actions(waiting, asked)["Ask"]["input"]["resolvedConfiguration"]["CustomData"] == first
    # The push that nobody was there to see.
    poll(
        lambda: [one["sourceRevisions"][0]["revisionId"] for one in shop.executions(waiting) if one["sourceRevisions"]] == [second, first],
        60.0,
    )


def test_a_restart_keeps_the_queue_and_fails_what_was_just_being_started(state_dir: Path, poll: Poll) -> None:
    def token(shop: Workshop, name: str) -> Any:
        return shop.stage_state(name, "Ask")["actionStates"][0].get("latestExecution", {}).get("token")

    settings = CloudSettings(state_dir, console=False)
    ask = stage("Ask", action("Ask", "Approval/Manual"))
    with Server(settings) as server:
        shop = Workshop(Region(server))
        name, first = shop.create(shop.source(), ask, executionMode="QUEUED")
        poll(lambda: token(shop, name))
        others = []
        for count in (1, 2):
            others.append(shop.start(name))
            poll(lambda wanted=count: len(shop.stage_state(name, "Ask").get("inboundExecutions", [])) == wanted)
        starting, begun = shop.create(shop.source(), ask)
        poll(lambda: token(shop, starting))
    database = Database(state_dir / "localcloud.db")
    table = database.table("codepipeline.actions")
    for key in table:
        document = table.get(key)
        assert document is not None
        if document["pipeline"] == starting and document["action"] == "Ask":
            del document["state"]
            table.put(key, document)
    database.close()
    with Server(settings) as server:
        shop.region = Region(server)
        poll(lambda: shop.status(starting, begun) == "Failed")
        assert shop.error(starting, begun, "Ask") == INTERRUPTED
        for execution in (first, *others):
            assert shop.stage_state(name, "Ask")["latestExecution"]["pipelineExecutionId"] == execution
            asked = {"pipelineName": name, "stageName": "Ask", "actionName": "Ask", "token": poll(lambda: token(shop, name))}
            shop.client("codepipeline").put_approval_result(**asked, result={"summary": "", "status": "Approved"})
            poll(lambda one=execution: shop.status(name, one) == "Succeeded")
            if execution != others[-1]:
                poll(lambda: token(shop, name))
