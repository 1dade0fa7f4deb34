"""CodePipeline's logic without a region: declarations, variables, filters, artifacts, repositories."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localcloud.codeconnections.repositories import Push, Repositories, RepositoryError
from localcloud.codepipeline.artifacts import ArtifactError, artifact_key, read_file, zip_files
from localcloud.codepipeline.declaration import check_declaration, ordered_actions
from localcloud.codepipeline.engine import ExecutionRun
from localcloud.codepipeline.filters import matches, starts
from localcloud.codepipeline.store import PipelineStore
from localcloud.codepipeline.triggers import Triggers, pushed_actions
from localcloud.codepipeline.variables import UnknownVariable, references, resolve
from localcloud.database import Database
from localcloud.errors import ServiceError

REGION = "us-east-1"


def action(name: str, kind: str, configuration: dict[str, str] | None = None, **members: Any) -> dict[str, Any]:
    category, provider = kind.split("/")
    return {
        "name": name,
        "actionTypeId": {"category": category, "owner": "AWS", "provider": provider, "version": "1"},
        "configuration": configuration or {},
        **members,
    }


def artifacts(*names: str) -> list[dict[str, str]]:
    return [{"name": name} for name in names]


def take(**members: Any) -> dict[str, Any]:
    return action("Take", "Source/S3", {"S3Bucket": "b", "S3ObjectKey": "k"}, **{"outputArtifacts": artifacts("Source"), **members})


def checkout(**configuration: str) -> dict[str, Any]:
    settings = {"ConnectionArn": "arn", "FullRepositoryId": "team/app", "BranchName": "main", **configuration}
    return action("Checkout", "Source/CodeStarSourceConnection", settings, outputArtifacts=artifacts("Source"))


def build(**members: Any) -> dict[str, Any]:
    return action("Build", "Build/CodeBuild", {"ProjectName": "p"}, **{"inputArtifacts": artifacts("Source"), **members})


def pipeline(*stages: list[dict[str, Any]], **members: Any) -> dict[str, Any]:
    named = [{"name": f"Stage{index}", "actions": actions} for index, actions in enumerate(stages)]
    return {"name": "p", "roleArn": "r", "artifactStore": {"type": "S3", "location": "b"}, "pipelineType": "V2", "stages": named, **members}


def push_trigger(*push: dict[str, Any]) -> dict[str, Any]:
    return {"providerType": "CodeStarSourceConnection", "gitConfiguration": {"sourceActionName": "Checkout", "push": list(push)}}


def test_a_good_declaration_is_taken() -> None:
    asked = action("Ask", "Approval/Manual", {"CustomData": "#{source.VersionId} #{codepipeline.PipelineExecutionId} #{variables.v}"})
    check_declaration(pipeline([take(namespace="source")], [build()], [asked], variables=[{"name": "v"}]), REGION)


@pytest.mark.parametrize(
    ("declaration", "code", "text"),
    [
        (pipeline([take()]), "InvalidStructureException", "only 1 stage"),
        (pipeline([build()], [build()]), "InvalidStructureException", "should start with a stage that only contains source actions"),
        (pipeline([take()], [take()]), "InvalidStructureException", "Only the first stage"),
        (pipeline([take()], [build(), build()]), "InvalidStructureException", "'Build' is used more than once"),
        (pipeline([take()], [build(inputArtifacts=artifacts("Other"))]), "InvalidStructureException", "Input Artifact Bundle Other"),
        (
            pipeline([take()], [build(outputArtifacts=artifacts("Source"))]),
            "InvalidStructureException",
            "must be unique within the pipeline",
        ),
        (pipeline([take()], [build(inputArtifacts=[])]), "InvalidActionDeclarationException", "has 0 input artifacts"),
        (pipeline([action("Take", "Source/S3", {"S3Bucket": "b"})], [build()]), "InvalidActionDeclarationException", "'S3ObjectKey'"),
        (
            pipeline([take()], [action("X", "Approval/Manual", {"Who": "me"})]),
            "InvalidActionDeclarationException",
            "unknown configuration 'Who'",
        ),
        (pipeline([take()], [action("X", "Deploy/CodeDeploy")]), "ValidationException", "not supported by localcloud"),
        (
            pipeline([take()], [build(commands=["make"])]),
            "ValidationException",
            "'commands' of the action 'Build' is not supported by localcloud",
        ),
        (pipeline([take()], [build(region="eu-west-1")]), "ValidationException", "not supported by localcloud"),
        (pipeline([take()], [build()], executionMode="PARALLEL"), "ValidationException", "PARALLEL is not supported by localcloud"),
        (pipeline([take()], [build()], executionMode="QUEUED", pipelineType="V1"), "InvalidStructureException", "V2"),
        (pipeline([take()], [build()], artifactStores={REGION: {}}), "InvalidStructureException", "and not both"),
        (
            pipeline([take()], [action("X", "Approval/Manual", {"CustomData": "#{build.Digest}"})]),
            "InvalidActionDeclarationException",
            "referencing a namespace that does not exist",
        ),
        (
            pipeline([take()], [action("X", "Approval/Manual", {"CustomData": "#{variables.v}"})]),
            "InvalidActionDeclarationException",
            "are not declared in the pipeline",
        ),
        (pipeline([take()], [build()], triggers=[push_trigger()]), "InvalidStructureException", "not a source action with a connection"),
        (
            pipeline([checkout()], [build()], triggers=[push_trigger({"filePaths": {"includes": ["a"]}})]),
            "InvalidStructureException",
            "must filter on branches too",
        ),
        (
            pipeline([checkout(OutputArtifactFormat="CODEBUILD_CLONE_REF")], [build()]),
            "InvalidActionDeclarationException",
            "not supported by",
        ),
        (
            pipeline([take()], [action("X", "Deploy/CloudFormation", {"ActionMode": "CREATE_UPDATE", "StackName": "s", "RoleArn": "r"})]),
            "InvalidActionDeclarationException",
            "TemplatePath is required",
        ),
    ],
)
def test_a_bad_declaration_is_refused(declaration: dict[str, Any], code: str, text: str) -> None:
    with pytest.raises(ServiceError, match=re.escape(text)) as refused:
        check_declaration(declaration, REGION)
    assert refused.value.code == code


def test_an_action_sees_what_earlier_ones_of_its_stage_put_out_and_no_others() -> None:
    second = action("Second", "Test/CodeBuild", {"ProjectName": "p"}, inputArtifacts=artifacts("Built"))
    first = build(outputArtifacts=artifacts("Built"))
    check_declaration(pipeline([take()], [first, {**second, "runOrder": 2}]), REGION)
    with pytest.raises(ServiceError, match="Input Artifact Bundle Built"):
        check_declaration(pipeline([take()], [first, second]), REGION)


def test_actions_run_in_groups_by_their_order() -> None:
    stage = {"actions": [{"name": "c", "runOrder": 7}, {"name": "a"}, {"name": "b", "runOrder": 1}]}
    assert [[one["name"] for one in group] for group in ordered_actions(stage)] == [["a", "b"], ["c"]]


def test_references_are_replaced_once() -> None:
    namespaces = {"a": {"x": "#{a.y}", "y": "1"}}
    assert resolve("<#{a.x} #{a.y}> #{not a reference}", namespaces) == "<#{a.y} 1> #{not a reference}"
    with pytest.raises(UnknownVariable, match=r"#\{a\.z\}"):
        resolve("#{a.z}", namespaces)


@given(st.text())
def test_what_has_no_reference_stays_as_it_is(text: str) -> None:
    if not list(references(text)):
        assert resolve(text, {}) == text


@given(st.dictionaries(st.from_regex(r"[A-Za-z0-9@_-]{1,8}", fullmatch=True), st.text(), min_size=1))
def test_every_variable_is_found(values: dict[str, str]) -> None:
    text = "|".join(f"#{{ns.{name}}}" for name in values)
    assert resolve(text, {"ns": values}) == "|".join(values.values())


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("main", "main", True),
        ("main", "main2", False),
        ("release/*", "release/1", True),
        ("release/*", "release/1/2", False),
        ("release/**", "release/1/2", True),
        ("**/*.md", "docs/a/b.md", True),
        ("*.md", "docs/b.md", False),
        ("docs/**", "docs/a.txt", True),
        ("v?", "v1", True),
        ("v?", "v/", False),
        ("{main,dev*}", "develop", True),
        ("{main,dev*}", "master", False),
        ("[a-c]1", "b1", True),
        ("[!a-c]1", "b1", False),
        ("a.b", "axb", False),
        ("a+b(c", "a+b(c", True),
        ("\\*", "*", True),
        ("\\*", "a", False),
        ("{open", "{open", True),
        ("[b-a]", "[b-a]", True),
    ],
)
def test_patterns(pattern: str, name: str, expected: bool) -> None:
    assert matches(name, {"includes": [pattern]}) is expected
    assert matches(name, {"excludes": [pattern]}) is not expected


@given(st.text(max_size=20), st.text(max_size=20))
def test_any_pattern_can_be_matched_with_any_name(pattern: str, name: str) -> None:
    assert matches(name, {"includes": [pattern]}) in (True, False)


@given(st.text(alphabet="abc/.-_", min_size=1))
def test_a_plain_name_matches_itself_only(name: str) -> None:
    assert matches(name, {"includes": [name]})
    assert not matches(name + "x", {"includes": [name]})


def test_excludes_win() -> None:
    assert not matches("docs/a.py", {"includes": ["**"], "excludes": ["docs/**"]})


def pushed(filters: list[dict[str, Any]], ref: str, *files: str) -> bool:
    return starts({"push": filters}, ref, "main", lambda: list(files))


def test_pushes_pass_or_do_not_pass_filters() -> None:
    code = [{"branches": {"includes": ["main"]}, "filePaths": {"excludes": ["docs/**"]}}]
    assert pushed(code, "refs/heads/main", "docs/a.md", "a.py")
    assert not pushed(code, "refs/heads/main", "docs/a.md")
    assert not pushed(code, "refs/heads/other", "a.py")
    assert not pushed(code, "refs/tags/main", "a.py")
    tags = [{"tags": {"includes": ["v*"]}}]
    assert pushed(tags, "refs/tags/v1")
    assert not pushed(tags, "refs/heads/v1")
    assert not pushed(tags, "refs/tags/x")
    assert pushed([*tags, *code], "refs/heads/main", "a.py")
    assert pushed([], "refs/heads/main")
    assert not pushed([], "refs/heads/other")
    assert not starts({"pullRequest": [{}]}, "refs/heads/main", "main", list)


def names(declaration: dict[str, Any], ref: str = "refs/heads/main", repository: str = "team/app") -> list[str]:
    push = Push(repository, ref, "a" * 40, "b" * 40)
    return [one["name"] for one in pushed_actions(declaration, push, lambda: ["a.py"])]


def test_only_a_watched_repository_and_branch_starts_a_pipeline() -> None:
    assert names(pipeline([checkout()], [build()])) == ["Checkout"]
    assert names(pipeline([checkout()], [build()]), "refs/heads/dev") == []
    assert names(pipeline([checkout()], [build()]), repository="team/other") == []
    assert names(pipeline([checkout(DetectChanges="false")], [build()])) == []
    trigger = push_trigger({"branches": {"includes": ["dev"]}})
    filtered = pipeline([checkout(DetectChanges="false")], [build()], triggers=[trigger])
    assert names(filtered) == []
    assert names(filtered, "refs/heads/dev") == ["Checkout"]
    assert names(pipeline([take()], [build()])) == []


@given(st.text(alphabet="abcXYZ019-_.@", min_size=1, max_size=100), st.text(alphabet="abcXYZ019-_", min_size=1, max_size=100))
def test_artifact_keys_are_laid_out_as_on_aws(name: str, artifact: str) -> None:
    first, second, random = artifact_key(name, artifact).split("/")
    assert (first, second) == (name[:20], artifact[:10])
    assert re.fullmatch(r"[A-Za-z0-9]{7}", random)


def test_files_are_read_out_of_artifacts() -> None:
    archive = zip_files({"a/b.yaml": "x: ü"})
    assert read_file(archive, "a/b.yaml", "Source") == "x: ü"
    with pytest.raises(ArtifactError, match=re.escape("File [c.yaml] does not exist in artifact [Source]")):
        read_file(archive, "c.yaml", "Source")
    with pytest.raises(ArtifactError, match="not a zip"):
        read_file(b"text", "c.yaml", "Source")


def test_a_stage_is_entered_in_the_order_of_the_queue(tmp_path: Path) -> None:
    database = Database(tmp_path / "state.db")
    store = PipelineStore(database)
    store.pipelines.put("p", {"transitions": {}})
    older, newer = (
        store.new_execution({"pipeline": "p", "id": name, "status": "InProgress", "waits": "Build", "occupies": None})
        for name in ("older", "newer")
    )
    engine: Any = SimpleNamespace(store=store, active=lambda pipeline: store.executions(pipeline))
    assert ExecutionRun(engine, "p", "older")._is_free(older, "Build")
    assert not ExecutionRun(engine, "p", "newer")._is_free(newer, "Build")
    store.change_execution("p", "older", lambda execution: execution.update(waits=None, occupies="Deploy"))
    assert ExecutionRun(engine, "p", "newer")._is_free(newer, "Build")
    database.close()


def test_a_push_starts_each_pipeline_once_and_one_that_cannot_be_started_holds_up_no_other(tmp_path: Path) -> None:
    database = Database(tmp_path / "state.db")
    store = PipelineStore(database)
    twice = pipeline([checkout(), {**checkout(), "name": "Again"}], [build()])
    for name, declaration in (("a", pipeline([checkout(ConnectionArn="gone")], [build()])), ("b", twice)):
        store.pipelines.put(name, {"name": name, "pipeline": declaration})
    started: list[tuple[str, list[str]]] = []

    def reaches(arn: str, repository: str) -> bool:
        if arn == "gone":
            raise ServiceError("ResourceNotFoundException", "Connection gone not found")
        return True

    def start(name: str, trigger: dict[str, str], overrides: dict[str, list[dict[str, Any]]], *, git: dict[str, str] | None = None) -> None:
        started.append((name, sorted(overrides)))

    connections: Any = SimpleNamespace(reaches=reaches)
    clients: Any = None
    Triggers(store, connections, clients, start).pushed(Push("team/app", "refs/heads/main", None, "a" * 40))
    assert started == [("b", ["Again", "Checkout"])]
    database.close()


def test_without_git_one_is_told_that_it_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RepositoryError, match=r"git is needed .* Install it"):
        Repositories(tmp_path / "git").create("team/app")


def test_a_commit_is_dated_in_utc(tmp_path: Path) -> None:
    repositories = Repositories(tmp_path)
    folder = repositories.create("team/app")
    environment = {**os.environ, "GIT_DIR": str(folder), "GIT_COMMITTER_NAME": "Ada", "GIT_COMMITTER_EMAIL": "ada@example.com"}
    environment |= {"GIT_AUTHOR_NAME": "Grace", "GIT_AUTHOR_EMAIL": "grace@example.com", "GIT_AUTHOR_DATE": "2026-01-02T01:30:00+02:00"}

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], env=environment, check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        return done.stdout.strip()

    tree = git("mktree")
    git("update-ref", "refs/heads/main", git("commit-tree", tree, "-m", "One"))
    commit = repositories.commit("team/app", "refs/heads/main")
    assert commit.author_date.isoformat() == "2026-01-01T23:30:00+00:00"
    assert (commit.message, commit.author, commit.email) == ("One", "Grace", "grace@example.com")
    for revision in ("refs/heads/other", "0" * 40, "--all", "main"):
        with pytest.raises(RepositoryError):
            repositories.commit("team/app", revision)


def test_pushes_are_read_from_where_one_left_off(tmp_path: Path) -> None:
    repositories = Repositories(tmp_path)
    file = repositories.create("team/app") / "localcloud-pushes"
    assert repositories.pushes("team/app", 0) == ([], 0)
    first = f"{'0' * 40} {'a' * 40} refs/heads/main\n"
    file.write_text(first + f"{'a' * 40} {'b' * 40} refs/hea")
    found, offset = repositories.pushes("team/app", 0)
    assert found == [Push("team/app", "refs/heads/main", None, "a" * 40)]
    assert offset == len(first), "a line that is still being written waits for its end"
    file.write_text(first + f"{'b' * 40} {'0' * 40} refs/heads/main\n")
    found, offset = repositories.pushes("team/app", offset)
    assert found == [Push("team/app", "refs/heads/main", "b" * 40, None)]
    assert repositories.pushes("team/app", offset) == ([], offset)
