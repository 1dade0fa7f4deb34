"""CodeBuild as its users see it: projects, builds that really run, their logs, artifacts and events."""

from __future__ import annotations

import http.client
import importlib.util
import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from helpers_codebuild import BUCKET, ENVIRONMENT, PATIENCE, Lab, buildspec, context, phases, unzipped, zip_of
from helpers_errors import error_of
from localcloud.codebuild.requests import EnvironmentVariable, S3Object
from localcloud.errors import ServiceError

ALL = [
    "SUBMITTED",
    "QUEUED",
    "PROVISIONING",
    "DOWNLOAD_SOURCE",
    "INSTALL",
    "PRE_BUILD",
    "BUILD",
    "POST_BUILD",
    "UPLOAD_ARTIFACTS",
    "FINALIZING",
    "COMPLETED",
]


@pytest.fixture(scope="module")
def lab(region: Any) -> Lab:
    return Lab(region)


# Builds.


def test_a_source_is_built_and_its_artifact_uploaded(lab: Lab) -> None:
    spec = (
        "version: 0.2\n"
        "phases:\n"
        "  install:\n    runtime-versions:\n      python: 3.11\n"
        "  pre_build:\n    commands:\n      - cd sub\n      - GREETING=hello\n"
        "  build:\n    commands:\n      - mkdir out\n      - echo $GREETING >out/greeting.txt\n      - python -c 'print(6 * 7)'\n"
        "artifacts:\n  files: '**/*'\n  base-directory: sub/out\n"
    )
    source = lab.source({"buildspec.yml": spec, "sub/x": "x"})
    name = lab.project(source=source, artifacts={"type": "S3", "location": BUCKET, "path": "out", "name": "a.zip", "packaging": "ZIP"})
    build = lab.build(name)
    assert build["buildStatus"] == "SUCCEEDED", lab.lines(build)
    assert build["buildComplete"]
    assert build["buildNumber"] == 1
    assert build["currentPhase"] == "COMPLETED"
    assert list(phases(build)) == ALL
    assert set(list(phases(build).values())[:-1]) == {"SUCCEEDED"}
    assert unzipped(lab.body("out/a.zip")) == {"greeting.txt": b"hello\n"}
    assert build["artifacts"]["location"] == f"arn:aws:s3:::{BUCKET}/out/a.zip"
    assert lab.printed(build) == ["42"]
    log = "\n".join(line.partition(" ")[2].split(" ", 2)[-1] for line in lab.lines(build))
    for line in (
        "Phases found in YAML: 3",
        "Entering phase BUILD",
        "Running command mkdir out",
        "Phase complete: BUILD State: SUCCEEDED",
        "Selecting 'python' runtime version '3.11' based on manual selections...",
    ):
        assert line in log
    assert lab.build(name)["buildNumber"] == 2


def test_a_failing_command_fails_the_build_and_post_build_and_artifacts_follow(lab: Lab) -> None:
    spec = buildspec(
        phases={
            "build": {"commands": ["echo one", "sh -c 'exit 3'", "echo never"], "finally": ["echo finally $CODEBUILD_BUILD_SUCCEEDING"]},
            "post_build": {"commands": ["echo post $CODEBUILD_BUILD_SUCCEEDING", "echo x >report.txt"]},
        },
        artifacts={"files": ["report.txt"]},
    )
    key = lab.name("report")
    build = lab.build(lab.project(spec, artifacts={"type": "S3", "location": BUCKET, "name": key}))
    assert build["buildStatus"] == "FAILED"
    assert phases(build) == dict.fromkeys(ALL, "SUCCEEDED") | {"BUILD": "FAILED", "COMPLETED": ""}
    assert context(build, "BUILD") == ("COMMAND_EXECUTION_ERROR", "Error while executing command: sh -c 'exit 3'. Reason: exit status 3")
    assert lab.printed(build) == ["one", "finally 0", "post 0"]
    assert lab.body(f"{key}/report.txt") == b"x\n"
    log = "\n".join(lab.lines(build))
    assert "Command did not exit successfully sh -c 'exit 3' exit status 3" in log
    assert "Phase complete: BUILD State: FAILED" in log
    assert (
        "Phase context status code: COMMAND_EXECUTION_ERROR Message: Error while executing command: sh -c 'exit 3'. Reason: exit status 3"
        in log
    )


@pytest.mark.parametrize(
    ("failing", "on_failure", "printed", "uploads"),
    [
        ("install", None, ["install"], False),
        ("pre_build", None, ["install", "pre_build"], False),
        ("pre_build", "CONTINUE", ["install", "pre_build", "build", "post_build"], True),
        ("build", None, ["install", "pre_build", "build", "post_build"], True),
        ("build", "ABORT", ["install", "pre_build", "build"], False),
        ("post_build", None, ["install", "pre_build", "build", "post_build"], True),
        ("post_build", "ABORT", ["install", "pre_build", "build", "post_build"], False),
    ],
)
def test_what_follows_a_failed_phase(lab: Lab, failing: str, on_failure: str | None, printed: list[str], uploads: bool) -> None:
    content = {
        name: {"commands": [f"echo {name}", "false" if name == failing else "true"]}
        | ({"on-failure": on_failure} if name == failing and on_failure else {})
        for name in ("install", "pre_build", "build", "post_build")
    }
    build = lab.run(phases=content)
    assert build["buildStatus"] == "FAILED"
    assert lab.printed(build) == printed
    assert ("UPLOAD_ARTIFACTS" in phases(build)) == uploads
    assert list(phases(build))[-2:] == ["FINALIZING", "COMPLETED"]


@pytest.mark.parametrize(
    ("source", "code", "message"),
    [
        ({"other.yml": "x"}, "YAML_FILE_ERROR", "YAML file does not exist"),
        ({"buildspec.yml": "version: 0.2\nphases: [\n"}, "YAML_FILE_ERROR", "at line 3"),
        ({"buildspec.yml": b"\xff"}, "YAML_FILE_ERROR", "the file is not UTF-8"),
        ({"buildspec.yml": buildspec("x", reports={"r": {"files": "x"}})}, "YAML_FILE_ERROR", "not supported by localcloud"),
        (
            {"buildspec.yml": buildspec(phases={"install": {"runtime-versions": {"nodejs": 20}}})},
            "YAML_FILE_ERROR",
            "Unknown runtime named 'nodejs'",
        ),
        (
            {"buildspec.yml": buildspec("x", env={"parameter-store": {"A": "missing"}})},
            "Decrypted Variables Error",
            "parameter does not exist: missing",
        ),
        (
            {"buildspec.yml": buildspec("x", env={"secrets-manager": {"A": "missing"}})},
            "Secrets Manager Error",
            "ResourceNotFoundException",
        ),
    ],
)
def test_a_build_that_cannot_begin_says_why(lab: Lab, source: dict[str, str | bytes], code: str, message: str) -> None:
    build = lab.build(lab.project(source=lab.source(source)))
    assert build["buildStatus"] == "FAILED"
    assert list(phases(build))[-3:] == ["DOWNLOAD_SOURCE", "FINALIZING", "COMPLETED"]
    found, text = context(build, "DOWNLOAD_SOURCE")
    assert found == code
    assert message in text


def test_a_source_that_is_missing_or_no_zip_says_so(lab: Lab) -> None:
    lab.s3.put_object(Bucket=BUCKET, Key="text.zip", Body=b"text")
    for location, message in {
        f"{BUCKET}/missing.zip": "NoSuchKey: The specified key does not exist.",
        "no-bucket/x.zip": "NoSuchBucket: The specified bucket does not exist.",
        f"{BUCKET}/text.zip": "zip: not a valid zip file",
    }.items():
        build = lab.build(lab.project(source={"type": "S3", "location": location}))
        code, text = context(build, "DOWNLOAD_SOURCE")
        assert code == "CLIENT_ERROR"
        assert text.startswith(message)


def test_a_buildspec_may_be_another_file_or_an_object_and_sources_may_be_several(lab: Lab) -> None:
    spec = buildspec("cat here.txt $CODEBUILD_SRC_DIR_more/there.txt", "pwd", "echo $CODEBUILD_SRC_DIR")
    first = lab.source({"ci/spec.json": spec, "here.txt": "here\n"}) | {"buildspec": "ci/spec.json"}
    second = lab.source({"there.txt": "there\n"}) | {"sourceIdentifier": "more"}
    name = lab.project(source=first, secondarySources=[second])
    here, there, work, source = lab.printed(lab.build(name))
    assert [here, there] == ["here", "there"]
    assert work == source
    lab.s3.put_object(Bucket=BUCKET, Key="specs/spec.yml", Body=buildspec("echo from-s3"))
    assert lab.printed(lab.build(name, buildspecOverride=f"arn:aws:s3:::{BUCKET}/specs/spec.yml")) == ["from-s3"]
    lab.s3.put_object(Bucket=BUCKET, Key="folder/x/y.txt", Body=b"y\n")
    overrides = {"sourceLocationOverride": f"{BUCKET}/folder/", "buildspecOverride": buildspec("cat x/y.txt")}
    assert lab.printed(lab.build(name, **overrides)) == ["y"]


def test_a_version_of_a_source_can_be_built(lab: Lab) -> None:
    bucket = lab.name("versioned")
    lab.s3.create_bucket(Bucket=bucket)
    lab.s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    spec = buildspec("cat x", "echo ${CODEBUILD_SOURCE_VERSION-none}")
    versions = [
        lab.s3.put_object(Bucket=bucket, Key="s.zip", Body=zip_of({"buildspec.yml": spec, "x": text}))["VersionId"]
        for text in ("one\n", "two\n")
    ]
    name = lab.project(source={"type": "S3", "location": f"{bucket}/s.zip"})
    assert lab.printed(lab.build(name)) == ["two", "none"]
    assert lab.printed(lab.build(name, sourceVersion=versions[0])) == ["one", versions[0]]


def test_variables(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN_OF_MY_SHELL", "x")
    region = lab.region
    region.client("ssm").put_parameter(Name="/ci/password", Value="tops3cret", Type="SecureString")
    secret = region.client("secretsmanager").create_secret(
        Name="ci", SecretString=json.dumps({"key": "hidd3n", "lines": "first-s3cret\nsecond-s3cret"})
    )["ARN"]
    spec = buildspec(
        "echo $FROM_SPEC $FROM_PROJECT $FROM_REQUEST",
        "echo $PASSWORD $SECRET $BY_ARN",
        'echo "$KEY"',
        'printf "$PASSWORD" | wc -c',
        "echo ${TOKEN_OF_MY_SHELL-unset} $CODEBUILD_BUILD_NUMBER $CODEBUILD_BUILD_ID $CODEBUILD_INITIATOR $AWS_REGION",
        '[ "$HOME" != ~root ] && touch ~/x && echo home',
        "export RESULT=42; OTHER='a b'",
        env={
            "variables": {"FROM_SPEC": "spec", "FROM_PROJECT": "spec"},
            "parameter-store": {"PASSWORD": "/ci/password", "FROM_REQUEST": "/missing"},
            "secrets-manager": {"SECRET": "ci:key", "BY_ARN": f"{secret}:key", "KEY": "ci:lines"},
            "exported-variables": ["RESULT", "OTHER", "MISSING"],
        },
    )
    given = [{"name": "FROM_PROJECT", "value": "project"}, {"name": "FROM_REQUEST", "value": "project"}]
    name = lab.project(spec, environment=ENVIRONMENT | {"environmentVariables": given})
    build = lab.build(name, environmentVariablesOverride=[{"name": "FROM_REQUEST", "value": "request"}])
    assert lab.printed(build) == ["spec project request", "*** *** ***", "***", "***", "9", f"unset 1 {build['id']} root us-east-1", "home"]
    assert "s3cret" not in "".join(lab.lines(build))
    assert build["exportedEnvironmentVariables"] == [{"name": "RESULT", "value": "42"}, {"name": "OTHER", "value": "a b"}]
    assert build["environment"]["environmentVariables"][-1] == {"name": "FROM_REQUEST", "value": "request", "type": "PLAINTEXT"}


def test_what_a_build_runs_talks_to_this_region(lab: Lab) -> None:
    code = "import boto3; print([b['Name'] for b in boto3.client('s3').list_buckets()['Buckets']])"
    build = lab.run(f'python -c "{code}"')
    assert BUCKET in lab.printed(build)[0]


def test_what_a_build_installs_is_its_own(lab: Lab) -> None:
    wheel = zip_of(
        {
            "of_a_build.py": "ANSWER = 42\n",
            "of_a_build-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: of-a-build\nVersion: 1.0\n",
            "of_a_build-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            "of_a_build-1.0.dist-info/RECORD": "",
        }
    )
    show = "python -c 'import boto3, of_a_build; print(of_a_build.ANSWER)'"
    spec = buildspec("pip install --quiet --no-index ./of_a_build-1.0-py3-none-any.whl", show)
    name = lab.project(source=lab.source({"buildspec.yml": spec, "of_a_build-1.0-py3-none-any.whl": wheel}))
    build = lab.build(name)
    assert build["buildStatus"] == "SUCCEEDED", lab.lines(build)
    assert lab.printed(build)[-1] == "42"
    assert importlib.util.find_spec("of_a_build") is None
    assert lab.build(name, buildspecOverride=buildspec(show))["buildStatus"] == "FAILED"


def test_artifacts_are_named_and_placed_as_the_project_says(lab: Lab) -> None:
    spec = buildspec(
        "mkdir -p out/sub && echo a >out/a.txt && echo b >out/sub/b.txt && V=7",
        artifacts={
            "files": ["**/*"],
            "base-directory": "out",
            "exclude-paths": ["a.*"],
            "name": "app-$V.zip",
            "secondary-artifacts": {"other": {"files": ["out/a.txt"], "discard-paths": True}},
        },
    )
    path = lab.name("path")
    build = lab.build(
        lab.project(
            spec,
            artifacts={
                "type": "S3",
                "location": BUCKET,
                "path": path,
                "namespaceType": "BUILD_ID",
                "packaging": "ZIP",
                "overrideArtifactName": True,
            },
            secondaryArtifacts=[{"type": "S3", "location": BUCKET, "path": path, "name": "files", "artifactIdentifier": "other"}],
        )
    )
    assert build["buildStatus"] == "SUCCEEDED", lab.lines(build)
    key = f"{path}/{build['id'].partition(':')[2]}/app-7.zip"
    assert build["artifacts"]["location"] == f"arn:aws:s3:::{BUCKET}/{key}"
    assert len(build["artifacts"]["sha256sum"]) == 64
    assert unzipped(lab.body(key)) == {"sub/b.txt": b"b\n"}
    assert lab.body(f"{path}/files/a.txt") == b"a\n"
    assert build["secondaryArtifacts"][0]["location"] == f"arn:aws:s3:::{BUCKET}/{path}/files"


@pytest.mark.parametrize(
    ("artifacts", "message"),
    [
        ({}, "the buildspec has no artifacts"),
        ({"artifacts": {"files": ["nothing"]}}, "no matching artifact paths found"),
        ({"artifacts": {"files": ["*"], "base-directory": "dist"}}, "no matching base directory path found for dist"),
    ],
)
def test_artifacts_that_are_missing_fail_the_build(lab: Lab, artifacts: dict[str, Any], message: str) -> None:
    build = lab.build(lab.project(buildspec("true", **artifacts), artifacts={"type": "S3", "location": BUCKET}))
    assert build["buildStatus"] == "FAILED"
    code, text = context(build, "UPLOAD_ARTIFACTS")
    assert code == "CLIENT_ERROR"
    assert message in text


def test_artifacts_for_a_bucket_that_is_missing_fail_the_build(lab: Lab) -> None:
    spec = buildspec("touch x", artifacts={"files": ["x"]})
    build = lab.build(lab.project(spec, artifacts={"type": "S3", "location": "no-such-bucket"}))
    assert context(build, "UPLOAD_ARTIFACTS")[1].startswith("Failed to upload artifacts: NoSuchBucket")


# The end from outside.


def started(lab: Lab, build_id: str, poll: Callable[..., Any]) -> tuple[dict[str, Any], int]:
    """Wait until a build has printed its process's number; return the build and the number."""

    def printed() -> Any:
        [build] = lab.cb.batch_get_builds(ids=[build_id])["builds"]
        try:
            return [(build, int(line)) for line in lab.printed(build)]
        except lab.logs.exceptions.ResourceNotFoundException:
            return None

    [(build, pid)] = poll(printed, PATIENCE)
    return build, pid


SLEEP = "echo $$; trap '' TERM; sleep 600; sleep 600"


def test_a_build_can_be_stopped(lab: Lab, poll: Callable[..., Any], alive: Callable[[int], bool]) -> None:
    build_id = lab.start(lab.project(buildspec(SLEEP)))
    build, pid = started(lab, build_id, poll)
    assert build["buildStatus"] == "IN_PROGRESS"
    assert not build["buildComplete"]
    assert build["currentPhase"] == "BUILD"
    stopped = lab.cb.stop_build(id=build_id)["build"]
    assert stopped["buildStatus"] == "STOPPED"
    assert phases(stopped)["BUILD"] == "STOPPED"
    assert list(phases(stopped))[-1] == "COMPLETED"
    poll(lambda: not alive(pid))
    assert lab.cb.stop_build(id=stopped["arn"])["build"]["buildStatus"] == "STOPPED"


def test_a_build_that_takes_too_long_is_ended(
    lab: Lab, poll: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, alive: Callable[[int], bool]
) -> None:
    monkeypatch.setattr(lab.service.builds, "minute", 0.4)
    build = lab.build(lab.project(buildspec(SLEEP), timeoutInMinutes=5))
    assert build["buildStatus"] == "TIMED_OUT"
    assert phases(build)["BUILD"] == "TIMED_OUT"
    assert context(build, "BUILD") == ("BUILD_TIMED_OUT", "Build has timed out.")
    [pid] = lab.printed(build)
    poll(lambda: not alive(int(pid)))


def test_nothing_of_a_build_is_left(lab: Lab, poll: Callable[..., Any], alive: Callable[[int], bool]) -> None:
    folder: Path = lab.service.builds.folders.folder
    before = set(folder.iterdir())
    build = lab.run("sleep 600 & echo $!", "mkdir locked && touch locked/x && chmod 500 locked")
    assert build["buildStatus"] == "SUCCEEDED"
    assert set(folder.iterdir()) == before
    poll(lambda: not alive(int(lab.printed(build)[0])))


def test_a_build_can_be_retried(lab: Lab) -> None:
    name = lab.project(buildspec("echo $A"))
    first = lab.build(name, environmentVariablesOverride=[{"name": "A", "value": "again"}])
    second = lab.built(lab.cb.retry_build(id=first["id"])["build"]["id"])
    assert lab.printed(first) == lab.printed(second) == ["again"]
    assert (first["buildNumber"], second["buildNumber"]) == (1, 2)


def test_a_token_starts_one_build(lab: Lab) -> None:
    name = lab.project(buildspec("true"))
    ids = {lab.start(name, idempotencyToken="token") for _ in range(2)}
    assert len(ids) == 1
    code, _ = error_of(lambda: lab.cb.start_build(projectName=name, idempotencyToken="token", sourceVersion="x"))
    assert code == "InvalidInputException"


def test_a_project_may_limit_its_builds(lab: Lab, poll: Callable[..., Any]) -> None:
    name = lab.project(buildspec(SLEEP), concurrentBuildLimit=1)
    build_id = lab.start(name)
    assert error_of(lambda: lab.cb.start_build(projectName=name))[0] == "AccountLimitExceededException"
    lab.cb.stop_build(id=build_id)
    lab.cb.update_project(name=name, concurrentBuildLimit=-1)
    for build_id in [lab.start(name), lab.start(name)]:
        lab.cb.stop_build(id=build_id)


# Lists, logs, events.


def test_builds_are_listed_and_deleted(lab: Lab, poll: Callable[..., Any]) -> None:
    name = lab.project(buildspec("true"))
    ids = [lab.build(name)["id"] for _ in range(3)]
    assert lab.cb.list_builds_for_project(projectName=name)["ids"] == ids[::-1]
    assert lab.cb.list_builds_for_project(projectName=name, sortOrder="ASCENDING")["ids"] == ids
    assert lab.cb.list_builds()["ids"][:3] == ids[::-1]
    running = lab.start(lab.project(buildspec(SLEEP)))
    deleted = lab.cb.batch_delete_builds(ids=[ids[0], running, "x:y"])
    assert deleted["buildsDeleted"] == [f"arn:aws:codebuild:us-east-1:123456789012:build/{ids[0]}"]
    assert [item["statusCode"] for item in deleted["buildsNotDeleted"]] == ["BUILD_IN_PROGRESS", "BUILD_NOT_FOUND"]
    found = lab.cb.batch_get_builds(ids=ids)
    assert [build["id"] for build in found["builds"]] == ids[1:]
    assert found["buildsNotFound"] == ids[:1]
    lab.cb.stop_build(id=running)


def test_logs_go_where_the_project_says_or_nowhere(lab: Lab) -> None:
    logs = {"cloudWatchLogs": {"status": "ENABLED", "groupName": "my-group", "streamName": "my-stream"}}
    build = lab.build(lab.project(buildspec("echo x"), logsConfig=logs))
    assert (build["logs"]["groupName"], build["logs"]["streamName"]) == ("my-group", f"my-stream/{build['id'].partition(':')[2]}")
    assert lab.printed(build) == ["x"]
    build = lab.build(lab.project(buildspec("echo x"), logsConfig={"cloudWatchLogs": {"status": "DISABLED"}}))
    assert "groupName" not in build["logs"]
    assert not lab.logs.describe_log_groups(logGroupNamePrefix=f"/aws/codebuild/{build['projectName']}")["logGroups"]


def test_events_have_awss_shape(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[tuple[str, str, dict[str, Any], list[str] | None]] = []
    monkeypatch.setattr(lab.region.cloud, "emit", lambda *event: events.append(json.loads(json.dumps(event))))
    build = lab.run("false")
    assert {(source, tuple(resources or ())) for source, _, _, resources in events} == {("aws.codebuild", (build["arn"],))}
    states = [detail for _, kind, detail, _ in events if kind == "CodeBuild Build State Change"]
    assert [state["build-status"] for state in states] == ["IN_PROGRESS", "FAILED"]
    last = states[-1]
    assert (last["project-name"], last["build-id"], last["current-phase"]) == (build["projectName"], build["arn"], "COMPLETED")
    more = last["additional-information"]
    assert more["build-complete"] is True
    assert more["logs"]["group-name"] == f"/aws/codebuild/{build['projectName']}"
    assert [phase["phase-type"] for phase in more["phases"]] == ALL
    [failed] = [phase for phase in more["phases"] if phase["phase-type"] == "BUILD"]
    assert failed["phase-status"] == "FAILED"
    assert failed["phase-context"] == ["COMMAND_EXECUTION_ERROR: Error while executing command: false. Reason: exit status 1"]
    ended = [detail for _, kind, detail, _ in events if kind == "CodeBuild Build Phase Change"]
    assert [detail["completed-phase"] for detail in ended] == ALL[1:-1]
    assert [detail["completed-phase-status"] for detail in ended].count("FAILED") == 1
    # e.g. Sep 1, 2017 4:12:29 PM
    datetime.strptime(ended[0]["completed-phase-start"], "%b %d, %Y %I:%M:%S %p")


def test_events_reach_rules(lab: Lab, poll: Callable[..., Any]) -> None:
    events, sqs = lab.region.client("events"), lab.region.client("sqs")
    url = sqs.create_queue(QueueName="builds")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    statement = {"Effect": "Allow", "Principal": {"Service": "events.amazonaws.com"}, "Action": "sqs:SendMessage", "Resource": arn}
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": json.dumps({"Version": "2012-10-17", "Statement": [statement]})})
    name = lab.project(buildspec("true"))
    pattern = {"source": ["aws.codebuild"], "detail": {"project-name": [name], "build-status": ["SUCCEEDED"]}}
    events.put_rule(Name="builds", EventPattern=json.dumps(pattern))
    events.put_targets(Rule="builds", Targets=[{"Id": "q", "Arn": arn}])
    build = lab.build(name)
    [message] = poll(lambda: sqs.receive_message(QueueUrl=url).get("Messages"), PATIENCE)
    assert json.loads(message["Body"])["resources"] == [build["arn"]]


# Projects.


def test_a_project_is_made_changed_and_deleted(lab: Lab) -> None:
    name = lab.project(buildspec("true"), description="first", tags=[{"key": "a", "value": "b"}])
    [project] = lab.cb.batch_get_projects(names=[name])["projects"]
    assert project["arn"] == f"arn:aws:codebuild:us-east-1:123456789012:project/{name}"
    assert (project["timeoutInMinutes"], project["queuedTimeoutInMinutes"], project["cache"]) == (60, 480, {"type": "NO_CACHE"})
    assert name in lab.cb.list_projects()["projects"]
    updated = lab.cb.update_project(name=name, description="", timeoutInMinutes=7)["project"]
    assert updated["timeoutInMinutes"] == 7
    assert "description" not in updated
    assert updated["tags"] == [{"key": "a", "value": "b"}]
    assert updated["created"] == project["created"]
    lab.cb.delete_project(name=name)
    assert lab.cb.batch_get_projects(names=[name])["projectsNotFound"] == [name]
    lab.cb.delete_project(name=name)
    assert error_of(lambda: lab.cb.start_build(projectName=name)) == (
        "ResourceNotFoundException",
        f"Project cannot be found: arn:aws:codebuild:us-east-1:123456789012:project/{name}",
    )


def test_a_name_is_taken_once(lab: Lab) -> None:
    name = lab.project(buildspec("true"))
    assert error_of(lambda: lab.project(buildspec("true"), name=name)) == (
        "ResourceAlreadyExistsException",
        f"Project already exists: arn:aws:codebuild:us-east-1:123456789012:project/{name}",
    )


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"source": {"type": "GITHUB", "location": "https://example.com/a/b"}}, "source: type GITHUB is not supported by localcloud"),
        ({"source": {"type": "S3", "location": "bucket"}}, "location must be a valid S3 source: bucket"),
        ({"source": {"type": "NO_SOURCE"}}, "buildspec must be set for source type NO_SOURCE"),
        ({"source": {"type": "NO_SOURCE", "buildspec": "file.yml"}}, "buildspec must be inline"),
        ({"source": {"type": "CODEPIPELINE"}}, "source and artifacts must both be of type CODEPIPELINE, or neither"),
        ({"artifacts": {"type": "S3"}}, "location must be set for artifacts of type S3"),
        ({"environment": ENVIRONMENT | {"type": "WINDOWS_CONTAINER"}}, "environment: type WINDOWS_CONTAINER is not supported by localcloud"),
        ({"environment": ENVIRONMENT | {"certificate": "x"}}, "environment: certificate is not supported by localcloud"),
        ({"environment": ENVIRONMENT | {"environmentVariables": [{"name": "A-B", "value": "x"}]}}, "Environment variable name 'A-B' must be"),
        ({"environment": ENVIRONMENT | {"type": "X"}}, "failed to satisfy constraint: Member must satisfy enum value set"),
        ({"badgeEnabled": True}, "CreateProject: badgeEnabled is not supported by localcloud"),
        ({"autoRetryLimit": 2}, "CreateProject: autoRetryLimit is not supported by localcloud"),
        ({"logsConfig": {"s3Logs": {"status": "ENABLED", "location": "b/x"}}}, "logsConfig: s3Logs is not supported by localcloud"),
        ({"secondarySources": [{"type": "S3", "location": "b/x.zip"}]}, "Source identifier '' must be set, unique"),
        ({"serviceRole": "arn:aws:iam::123456789012:role/none"}, "CodeBuild is not authorized to perform: sts:AssumeRole on arn:aws:iam"),
        ({"timeoutInMinutes": 3000}, "failed to satisfy constraint: Member must have value less than or equal to 2160"),
    ],
)  # fmt: skip
def test_what_a_project_cannot_be(lab: Lab, members: dict[str, Any], message: str) -> None:
    code, text = error_of(lambda: lab.project(buildspec("true"), **members))
    assert code == "InvalidInputException"
    assert message in text


def test_what_is_not_supported_is_refused_by_name(lab: Lab) -> None:
    name = lab.project(buildspec("true"))
    assert error_of(lambda: lab.cb.start_build_batch(projectName=name)) == (
        "InvalidInputException",
        "codebuild:StartBuildBatch is not supported by localcloud",
    )
    assert error_of(lambda: lab.cb.start_build(projectName=name, debugSessionEnabled=True)) == (
        "InvalidInputException",
        "StartBuild: debugSessionEnabled is not supported by localcloud",
    )
    assert error_of(lambda: lab.cb.stop_build(id="a:b"))[0] == "ResourceNotFoundException"


def test_clients_that_speak_json_are_answered_too(lab: Lab) -> None:
    """Newer botocore speaks CBOR to CodeBuild; AWS's command line and older SDKs speak JSON."""
    connection = http.client.HTTPConnection("127.0.0.1", lab.region.cloud.port, timeout=PATIENCE)
    headers = {
        "Authorization": "AWS4-HMAC-SHA256 Credential=ASIATEST/20260101/us-east-1/codebuild/aws4_request, SignedHeaders=host, Signature=x",
        "Content-Type": "application/x-amz-json-1.1",
    }

    def post(operation: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        connection.request("POST", "/", json.dumps(body), headers | {"X-Amz-Target": f"CodeBuild_20161006.{operation}"})
        response = connection.getresponse()
        return response.status, json.loads(response.read())

    build = lab.run("true")
    status, answer = post("BatchGetBuilds", {"ids": [build["id"]]})
    assert status == 200
    assert answer["builds"][0]["startTime"] == pytest.approx(build["startTime"].timestamp(), abs=0.01)
    status, answer = post("StartBuild", {"projectName": "none"})
    assert status == 400
    assert answer["__type"].endswith("ResourceNotFoundException")
    status, answer = post("ListFleets", {})
    assert (status, answer["Message"]) == (400, "codebuild:ListFleets is not supported by localcloud")
    connection.close()


# CodePipeline's way in.


def pipeline_project(lab: Lab, spec: str) -> str:
    return lab.project(source={"type": "CODEPIPELINE", "buildspec": spec}, artifacts={"type": "CODEPIPELINE"})


def handed_over(lab: Lab, files: dict[str, str | bytes]) -> S3Object:
    bucket, _, key = lab.source(files)["location"].partition("/")
    return S3Object(bucket, key)


def test_a_pipeline_hands_over_sources_and_takes_artifacts(lab: Lab) -> None:
    spec = buildspec(
        "cat here $CODEBUILD_SRC_DIR_Other/there >all.txt",
        "echo $A $CODEBUILD_RESOLVED_SOURCE_VERSION $CODEBUILD_INITIATOR",
        artifacts={"files": ["all.txt"]},
    )
    build_id = lab.service.start_pipeline_build(
        pipeline_project(lab, spec),
        source=handed_over(lab, {"here": "here\n"}),
        secondary_sources={"Other": handed_over(lab, {"there": "there\n"})},
        artifacts={"Output": S3Object(BUCKET, "pipeline/Output/abc")},
        variables=[EnvironmentVariable("A", "from-the-action")],
        initiator="codepipeline/p",
        source_version="0123abc",
    )
    build = lab.built(build_id)
    assert build["buildStatus"] == "SUCCEEDED", lab.lines(build)
    assert lab.service.find(build_id)["arn"] == build["arn"]
    assert build["initiator"] == "codepipeline/p"
    assert build["resolvedSourceVersion"] == "0123abc"
    assert lab.printed(build) == ["from-the-action 0123abc codepipeline/p"]
    assert unzipped(lab.body("pipeline/Output/abc")) == {"all.txt": b"here\nthere\n"}
    assert build["artifacts"]["location"] == f"arn:aws:s3:::{BUCKET}/pipeline/Output/abc"
    assert error_of(lambda: lab.cb.retry_build(id=build_id))[0] == "InvalidInputException"


def test_several_artifacts_of_a_pipeline_are_the_buildspecs_secondary_ones(lab: Lab) -> None:
    secondary = {name: {"files": [name]} for name in ("One", "Two")}
    name = pipeline_project(lab, buildspec("echo 1 >One; echo 2 >Two", artifacts={"secondary-artifacts": secondary}))
    common: dict[str, Any] = {"secondary_sources": {}, "variables": [], "initiator": "codepipeline/p", "source_version": ""}
    source = handed_over(lab, {"x": "x"})
    several = {part: S3Object(BUCKET, f"several/{part}") for part in ("One", "Two")}
    lab.built(lab.service.start_pipeline_build(name, source=source, artifacts=several, **common))
    assert [unzipped(lab.body(f"several/{part}")) for part in ("One", "Two")] == [{"One": b"1\n"}, {"Two": b"2\n"}]
    single = {"Two": S3Object(BUCKET, "single")}
    lab.built(lab.service.start_pipeline_build(name, source=source, artifacts=single, **common))
    assert unzipped(lab.body("single")) == {"Two": b"2\n"}
    assert lab.built(lab.service.start_pipeline_build(name, source=source, artifacts={}, **common))["buildStatus"] == "SUCCEEDED"


def test_a_pipelines_project_is_built_by_pipelines_only_and_others_are_not(lab: Lab) -> None:
    name = pipeline_project(lab, buildspec("true"))
    assert "built by its pipeline only" in error_of(lambda: lab.cb.start_build(projectName=name))[1]
    with pytest.raises(ServiceError, match="cannot be built by a pipeline"):
        lab.service.start_pipeline_build(
            lab.project(buildspec("true")), source=S3Object("b", "k"), secondary_sources={}, artifacts={}, variables=[], initiator="p", source_version=""
        )  # fmt: skip


# CloudFormation.


def test_a_stack_makes_changes_replaces_and_deletes_a_project(lab: Lab) -> None:
    cf = lab.region.client("cloudformation")

    def template(**properties: Any) -> str:
        own = {
            "Source": {"Type": "NO_SOURCE", "BuildSpec": buildspec("echo stack")},
            "Artifacts": {"Type": "NO_ARTIFACTS"},
            "Environment": {"Type": "LINUX_CONTAINER", "Image": "image", "ComputeType": "BUILD_GENERAL1_SMALL"},
            "ServiceRole": lab.role,
        }
        outputs = {"Name": {"Value": {"Ref": "Project"}}, "Arn": {"Value": {"Fn::GetAtt": ["Project", "Arn"]}}}
        return json.dumps(
            {"Resources": {"Project": {"Type": "AWS::CodeBuild::Project", "Properties": own | properties}}, "Outputs": outputs}
        )

    def outputs() -> dict[str, str]:
        [stack] = cf.describe_stacks(StackName="builds")["Stacks"]
        assert stack["StackStatus"] in ("CREATE_COMPLETE", "UPDATE_COMPLETE"), stack
        return {item["OutputKey"]: item["OutputValue"] for item in stack["Outputs"]}

    def project() -> dict[str, Any]:
        [found] = lab.cb.batch_get_projects(names=[outputs()["Name"]])["projects"]
        assert found["arn"] == outputs()["Arn"]
        return dict(found)

    tags = [{"Key": "a", "Value": "b"}]
    cf.create_stack(StackName="builds", TemplateBody=template(Description="first", TimeoutInMinutes="10", Tags=tags))
    cf.get_waiter("stack_create_complete").wait(StackName="builds")
    first = project()
    assert (first["description"], first["timeoutInMinutes"]) == ("first", 10)
    assert {"key": "a", "value": "b"} in first["tags"]
    assert lab.printed(lab.build(first["name"])) == ["stack"]
    variables = [{"Name": "A", "Value": "x", "Type": "PLAINTEXT"}]
    environment = {"Type": "LINUX_CONTAINER", "Image": "other", "ComputeType": "BUILD_GENERAL1_SMALL", "EnvironmentVariables": variables}
    cf.update_stack(StackName="builds", TemplateBody=template(Environment=environment))
    cf.get_waiter("stack_update_complete").wait(StackName="builds")
    changed = project()
    assert changed["name"] == first["name"]
    assert "description" not in changed
    assert changed["timeoutInMinutes"] == 60
    assert changed["environment"]["environmentVariables"] == [{"name": "A", "value": "x", "type": "PLAINTEXT"}]
    cf.update_stack(StackName="builds", TemplateBody=template(Name="named-project"))
    cf.get_waiter("stack_update_complete").wait(StackName="builds")
    assert project()["name"] == "named-project"
    assert lab.cb.batch_get_projects(names=[first["name"]])["projectsNotFound"] == [first["name"]]
    cf.delete_stack(StackName="builds")
    cf.get_waiter("stack_delete_complete").wait(StackName="builds")
    assert lab.cb.batch_get_projects(names=["named-project"])["projectsNotFound"] == ["named-project"]
