"""`scones deploy` and `scones aws diff` with models in production. The tests share a region and run in the order of this file."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from conftest import Region, poll
from rich.console import Console

from helpers_commands import commands_environment, scones  # noqa: F401  # the first is a fixture
from helpers_product import STACK, Product
from lambdas.deploy_inference_workflow.stacks import Stack, StackState
from scones.errors import ExitCode, SconesError


@pytest.fixture(scope="module")
def product(region: Region) -> Product:
    product = Product(region, poll)
    product.deploy()
    return product


@pytest.fixture(scope="module")
def registered(product: Product) -> list[str]:
    """Three versions that wait."""
    return [product.register() for _ in range(3)]


@pytest.fixture(scope="module")
def versions(product: Product, registered: list[str]) -> list[str]:
    """The three; the first two were in production one after the other, the third waits."""
    product.decide(registered[0])
    product.settled("CREATE_COMPLETE", registered[0])
    product.decide(registered[1])
    product.settled("UPDATE_COMPLETE", registered[1])
    return registered


def serving(product: Product) -> str:
    return str(product.stack()["Outputs"]["ModelPackageArn"])


def refused(*arguments: str) -> SconesError:
    error = scones(*arguments).error
    assert isinstance(error, SconesError)
    return error


def test_without_a_production_there_is_nothing_to_roll_back(product: Product) -> None:
    error = refused("deploy", "rollback")
    assert error.exit_code == ExitCode.USAGE
    assert "Nothing is in production" in error.message
    assert scones("deploy", "history", "--json").document == []


def test_a_classification_without_a_production_says_whether_one_is_on_its_way(
    product: Product, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo = tmp_path / "photo.png"
    photo.write_bytes(b"\x89PNG")
    assert "Nothing is deployed to production yet" in refused("classify", str(photo)).message
    monkeypatch.setattr(Stack, "describe", lambda self: StackState("id", "CREATE_IN_PROGRESS", {}, {}))
    assert "is under way (CREATE_IN_PROGRESS)" in refused("classify", str(photo)).message


def test_a_dry_run_of_the_first_approval_shows_the_stack_and_makes_none(product: Product, registered: list[str]) -> None:
    first = scones("models", "approve", "1", "--dry-run", "--json").document
    assert "first in production" in first["consequence"]
    assert {change["action"] for change in first["changes"]} == {"Add"}
    assert product.stack() == {}


def test_fresh_stacks_differ_in_nothing(product: Product, versions: list[str]) -> None:
    platform, inference, cicd = scones("aws", "diff", "--json").document
    assert (platform["changes"], platform["status"]) == ([], "UPDATE_COMPLETE")
    assert (inference["stack"], inference["changes"]) == (STACK, [])
    assert (cicd["stack"], cicd["status"]) == ("scones-cicd", None)
    assert platform["drift"]["status"] in ("IN_SYNC", "UNKNOWN")


def test_a_changed_setting_is_a_difference_of_both_stacks(product: Product, versions: list[str]) -> None:
    changed = ("--set", "evaluation.confidence_threshold=0.5")
    answer = scones("aws", "diff", "--exit-code", *changed)
    assert isinstance(answer.error, SystemExit)
    assert answer.error.code == ExitCode.FAILED
    assert "CONFIDENCE_THRESHOLD: 0.93 → 0.5" in " ".join(
        answer.stdout.replace("Environment.Variables.CONFIDENCE_THRESHOLD", "CONFIDENCE_THRESHOLD:").split()
    )
    assert scones("aws", "diff", *changed).error is None
    assert [stack["StackStatus"] for stack in product.client("cloudformation").describe_stacks()["Stacks"]] == ["UPDATE_COMPLETE"] * 2


def test_the_list_of_versions_fits_a_narrow_terminal(versions: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scones.console.rich_console", lambda: Console(width=80))
    *table, arn = scones("models", "list").stdout.splitlines()
    assert len(table) == 4  # one line for each version
    assert max(map(len, table)) <= 80
    assert re.fullmatch(r"2 +Approved +[-\d]+ [:\d]+ +production *", table[2])
    assert arn == f"ARN: {versions[0].removesuffix('/1')}/VERSION"


def test_history_says_what_served_when(versions: list[str]) -> None:
    history = scones("deploy", "history", "--json").document
    assert [(item["version"], item["outcome"]) for item in history] == [(2, "updated"), (1, "created")]


def test_history_names_the_endpoint_configurations_that_production_can_be_switched_to(product: Product, versions: list[str]) -> None:
    second, first = (item["endpoint_config"] for item in scones("deploy", "history", "--json").document)
    sagemaker = product.client("sagemaker")
    assert sagemaker.describe_endpoint(EndpointName="scones-production")["EndpointConfigName"] == second
    assert first != second
    assert first in scones("deploy", "history").stdout
    for config, package in ((first, versions[0]), (second, versions[1])):
        (variant,) = sagemaker.describe_endpoint_config(EndpointConfigName=config)["ProductionVariants"]
        assert sagemaker.describe_model(ModelName=variant["ModelName"])["Containers"] == [{"ModelPackageName": package}]


def test_a_dry_run_of_a_rollback_shows_what_would_change_and_changes_nothing(product: Product, versions: list[str]) -> None:
    plan = scones("deploy", "rollback", "--dry-run", "--json").document
    assert (plan["from"]["version"], plan["to"]["version"], plan["outcome"]) == (2, 1, "planned")
    assert "Model" in {change["resource"] for change in plan["changes"]}
    assert serving(product) == versions[1]


@pytest.mark.parametrize(
    ("version", "words"), [("3", "Version 3 is PendingManualApproval"), ("2", "in production already"), ("9", "no version '9'")]
)
def test_only_another_approved_version_is_rolled_back_to(product: Product, versions: list[str], version: str, words: str) -> None:
    error = refused("deploy", "rollback", version)
    assert error.exit_code == ExitCode.USAGE
    assert words in error.message
    assert serving(product) == versions[1]


def test_rollback_deploys_the_version_that_served_before(product: Product, versions: list[str]) -> None:
    answer = scones("deploy", "rollback")
    assert answer.error is None
    assert "Version 1 is in production (updated" in answer.stdout
    assert "scones models reject --aws 2" in answer.stdout
    assert serving(product) == versions[0]
    # And back again: what served before is the second one now.
    assert scones("deploy", "rollback", "--json").document["to"]["version"] == 2
    assert serving(product) == versions[1]


def test_a_dry_run_of_a_classification_checks_photos_and_workflow_and_sends_nothing(
    product: Product, versions: list[str], tmp_path: Path
) -> None:
    s3, bucket = product.client("s3"), product.outputs.artifact_bucket_name
    machine = product.stack()["Outputs"]["StateMachineArn"]
    photo, there = tmp_path / "photo.png", f"s3://{bucket}/photos/photo.bin"
    photo.write_bytes(b"\x89PNG\r\n\x1a\nno matter what")
    s3.put_object(Bucket=bucket, Key="photos/photo.bin", Body=photo.read_bytes() + bytes(1000))
    archive = f"s3://{bucket}/code/sample/sample_payload.tar.gz"

    def executions() -> int:
        return len(product.client("stepfunctions").list_executions(stateMachineArn=machine.rpartition(":")[0])["executions"])

    before = executions()
    plan = scones("classify", str(photo), there, "--threshold", "0.5", "--dry-run", "--json").document
    assert (plan["outcome"], plan["state_machine_arn"], plan["threshold"]) == ("planned", machine, 0.5)
    file, staged = plan["photos"]
    assert file["uri"].startswith(f"s3://{bucket}/inbox/")
    assert (file["bytes"], file["uploads"]) == (22, True)
    assert (staged["uri"], staged["uploads"]) == (there, False)
    assert staged["bytes"] == 1022
    photo.write_bytes(photo.read_bytes() + bytes(4_000_000))
    too_large = refused("classify", str(photo), archive)
    assert too_large.message == f"{photo} has 4,000,022 bytes; the workflow takes photos of at most 4,000,000"
    for missing in (archive, str(tmp_path / "none.png"), f"s3://{bucket}/none.png", "s3://"):
        error = refused("classify", missing, "--dry-run")
        assert error.exit_code == ExitCode.USAGE
        assert missing in error.message
    assert executions() == before
    assert s3.list_objects_v2(Bucket=bucket, Prefix="inbox/")["KeyCount"] == 0


def test_a_decision_that_this_machines_clock_says_is_in_the_future_does_not_win(
    product: Product, versions: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Yesterday(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Yesterday:
            return cls(2020, 1, 1, tzinfo=tz or UTC)

    monkeypatch.setattr("scones.production.datetime", Yesterday)
    assert scones("deploy", "rollback", "1", "--json").document["outcome"] == "updated"
    assert serving(product) == versions[0]


def test_what_served_once_stays_in_history_when_its_version_serves_again(product: Product, versions: list[str]) -> None:
    history = scones("deploy", "history", "--json").document
    first = [item["endpoint_config"] for item in history if item["model_package_arn"] == versions[0]]
    there = {item["EndpointConfigName"] for item in product.client("sagemaker").list_endpoint_configs()["EndpointConfigs"]}
    assert len(set(first)) == len(first) >= 2
    assert set(first) - {None} <= there
    assert first[0] == product.client("sagemaker").describe_endpoint(EndpointName="scones-production")["EndpointConfigName"]


def test_a_dry_run_of_a_decision_says_what_its_event_would_do(product: Product, versions: list[str]) -> None:
    # The first version serves, the second is Approved, the third waits.
    waiting = scones("models", "approve", "--dry-run", "--json").document
    assert (waiting["version"], waiting["would_serve"]) == (3, versions[2])
    assert "Endpoint" in {change["resource"] for change in waiting["changes"]}
    again = scones("models", "approve", "1", "--dry-run", "--json").document
    assert (again["would_serve"], again["changes"]) == (versions[0], [])
    assert scones("models", "reject", "1", "--dry-run", "--json").document["would_serve"] == versions[1]
    elsewhere = scones("models", "reject", "2", "--dry-run", "--json").document
    assert (elsewhere["would_serve"], elsewhere["changes"]) == (versions[0], [])
    statuses = {item["version"]: item["status"] for item in scones("models", "list", "--json").document}
    assert statuses == {1: "Approved", 2: "Approved", 3: "PendingManualApproval"}
    assert serving(product) == versions[0]


def test_what_cannot_be_deployed_leaves_what_serves(product: Product, versions: list[str]) -> None:
    # The decision before was dated a second ahead, and the later one wins.
    decided = datetime.fromisoformat(product.stack()["Parameters"]["DecidedAt"])
    poll(lambda: datetime.now(UTC) > decided)
    bad = product.register(script="raise RuntimeError('this model cannot be loaded')")
    product.client("sagemaker").update_model_package(ModelPackageArn=bad, ModelApprovalStatus="Approved")
    product.settled("UPDATE_ROLLBACK_COMPLETE")
    poll(lambda: any(item["outcome"] == "failed" for item in scones("deploy", "history", "--json").document))
    error = refused("deploy", "rollback", "4")
    assert error.exit_code == ExitCode.FAILED
    assert "Version 4 was not deployed" in error.message
    assert "Version 1 serves on" in str(error.hint)
    assert serving(product) == versions[0]
    # Until Lambda has given the event up, its next try would come in between.
    poll(product.dead_letters)


def test_refresh_brings_the_platforms_settings_to_production(product: Product, versions: list[str]) -> None:
    assert scones("deploy", "refresh", "--json").document["outcome"] == "unchanged"
    scones("aws", "bootstrap", "--yes", "--set", "evaluation.confidence_threshold=0.5")
    planned = scones("deploy", "refresh", "--dry-run", "--json").document
    assert {change["resource"] for change in planned["changes"]} >= {"FilterLowConfidenceInferencesFunction"}
    assert product.stack()["Parameters"]["ConfidenceThreshold"] == "0.93"
    assert scones("deploy", "refresh", "--json").document["outcome"] == "updated"
    assert product.stack()["Parameters"]["ConfidenceThreshold"] == "0.5"
    assert serving(product) == versions[0]


def test_a_rejection_says_what_it_sets_off(product: Product, versions: list[str]) -> None:
    for other in ("2", "3", "4"):
        assert scones("models", "reject", other).stdout.strip() == f"Version {other} is Rejected."
    assert "It stays in production all the same, as no other version is approved." in scones("models", "reject", "1").stdout
    poll(lambda: "no other version is Approved" in str(scones("deploy", "history", "--json").document))
    assert serving(product) == versions[0]
    # In this order, as of two decisions in one second the one on the higher version counts.
    scones("models", "approve", "1")
    scones("models", "approve", "2")
    poll(lambda: serving(product) == versions[1])
    assert "the newest other approved version takes its place" in scones("models", "reject", "2").stdout
    poll(lambda: serving(product) == versions[0])


def test_a_decision_that_would_reach_nobody_is_refused_and_one_that_was_made_elsewhere_is_a_dead_letter(product: Product) -> None:
    events, functions = product.client("events"), product.client("lambda")
    function, rule = product.outputs.deploy_function_name, product.outputs.approval_rule_name
    arn, letters = product.register(), len(product.dead_letters())

    def said(*arguments: str) -> str:
        error = refused("models", "approve", arn, *arguments)
        assert "scones aws diff" in str(error.hint)
        return error.message

    events.disable_rule(Name=rule)
    assert f"the rule {rule} is disabled" in said()
    assert f"the rule {rule} is disabled" in said("--dry-run")
    events.enable_rule(Name=rule)
    (target,) = events.list_targets_by_rule(Rule=rule)["Targets"]
    events.remove_targets(Rule=rule, Ids=[target["Id"]])
    assert f"the rule {rule} does not name {function}" in said()
    events.put_targets(Rule=rule, Targets=[target])
    (statement,) = json.loads(functions.get_policy(FunctionName=function)["Policy"])["Statement"]
    functions.remove_permission(FunctionName=function, StatementId=statement["Sid"])
    assert "the rule may not invoke it" in said()
    # In Studio nobody is asked; the queue's policy lets the event in.
    product.decide(arn)
    poll(lambda: len(product.dead_letters()) > letters)
    assert product.dead_letters()[-1]["MessageAttributes"]["ERROR_CODE"]["StringValue"] == "NO_PERMISSIONS"
