"""`scones aws diff` after changes by hand: each kind is found, named, and told from the rest. The tests share a region, in the order of this file."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from typing import Any

import pytest
from conftest import Region, poll

from helpers_commands import commands_environment, scones  # noqa: F401  # the first is a fixture
from helpers_product import ACCOUNT, STACK, Product

ADMINISTRATOR = "arn:aws:iam::aws:policy/AdministratorAccess"


@pytest.fixture(scope="module")
def product(region: Region) -> Product:
    product = Product(region, poll)
    product.deploy()
    for status in ("CREATE_COMPLETE", "UPDATE_COMPLETE"):
        version = product.register()
        product.decide(version)
        product.settled(status, version)
    return product


@pytest.fixture(scope="module")
def known() -> set[str]:
    """The resources whose changes the tests so far have seen: what was changed by hand stays changed."""
    return set()


def drift(stack: str) -> dict[str, Any]:
    """Return what `scones aws diff` says of a stack's reality."""
    found = next(item for item in scones("aws", "diff", "--json").document if item["stack"] == stack)
    return dict(found["drift"])


def physical(product: Product, stack: str, logical_id: str) -> str:
    resources = product.client("cloudformation").describe_stack_resource(StackName=stack, LogicalResourceId=logical_id)
    return str(resources["StackResourceDetail"]["PhysicalResourceId"])


def test_what_nobody_touched_is_in_sync(product: Product) -> None:
    found_of = {item["stack"]: item["drift"] for item in scones("aws", "diff", "--json").document}
    for stack in ("scones-platform", STACK):
        found = found_of[stack]
        assert (found["status"], found["resources"], found["reason"]) == ("IN_SYNC", [], None)
        assert found["checked"] > 8
    assert scones("aws", "diff", "--exit-code").error is None


def another_configuration(product: Product) -> None:
    sagemaker = product.client("sagemaker")
    serving = sagemaker.describe_endpoint(EndpointName="scones-production")["EndpointConfigName"]
    (other,) = {item["EndpointConfigName"] for item in sagemaker.list_endpoint_configs()["EndpointConfigs"]} - {serving}
    sagemaker.update_endpoint(EndpointName="scones-production", EndpointConfigName=other)
    poll(lambda: sagemaker.describe_endpoint(EndpointName="scones-production")["EndpointConfigName"] == other)


def other_code(product: Product) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("lambdas/nothing.py", "")
    product.client("lambda").update_function_code(FunctionName="scones-image-classification", ZipFile=buffer.getvalue())


def other_settings(product: Product) -> None:
    product.client("lambda").update_function_configuration(FunctionName="scones-filter-low-confidence-inferences", Timeout=60)


def no_environment(product: Product) -> None:
    product.client("lambda").update_function_configuration(FunctionName=product.outputs.deploy_function_name, Environment={"Variables": {}})


def moved_alias(product: Product) -> None:
    states, alias = product.client("stepfunctions"), product.stack()["Outputs"]["StateMachineArn"]
    machine = alias.rpartition(":")[0]
    # The same definition under another revision is a version of its own.
    states.update_state_machine(
        stateMachineArn=machine, roleArn=product.client("iam").get_role(RoleName=other_role(product))["Role"]["Arn"]
    )
    version = states.publish_state_machine_version(stateMachineArn=machine)["stateMachineVersionArn"]
    states.update_state_machine_alias(stateMachineAliasArn=alias, routingConfiguration=[{"stateMachineVersionArn": version, "weight": 100}])


def other_role(product: Product) -> str:
    trust = {"Effect": "Allow", "Principal": {"Service": "states.amazonaws.com"}, "Action": "sts:AssumeRole"}
    product.client("iam").create_role(
        RoleName="by-hand", AssumeRolePolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [trust]})
    )
    return "by-hand"


def disabled_rule(product: Product) -> None:
    product.client("events").disable_rule(Name="scones-model-decision")


def other_target(product: Product) -> None:
    arn = product.client("lambda").get_function(FunctionName="scones-smoke-test")["Configuration"]["FunctionArn"]
    rule = physical(product, "scones-platform", "StepFailedRule")
    product.client("events").put_targets(Rule=rule, Targets=[{"Id": "by-hand", "Arn": arn}])


def deleted_alarm(product: Product) -> None:
    product.client("cloudwatch").delete_alarms(AlarmNames=["scones-production-5xx"])


def deaf_alarm(product: Product) -> None:
    cloudwatch = product.client("cloudwatch")
    (alarm,) = cloudwatch.describe_alarms(AlarmNames=["scones-production-latency"])["MetricAlarms"]
    kept = ("AlarmName", "Namespace", "MetricName", "Dimensions", "ExtendedStatistic", "Period", "EvaluationPeriods", "ComparisonOperator")
    cloudwatch.put_metric_alarm(**{name: alarm[name] for name in kept}, Threshold=1e12)


def widened_policy(product: Product) -> None:
    everything = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
    role = physical(product, "scones-platform", "SmokeTestRole")
    product.client("iam").put_role_policy(RoleName=role, PolicyName="smoke-test", PolicyDocument=json.dumps(everything))


def attached_policy(product: Product) -> None:
    role = physical(product, "scones-platform", "WorkflowRole")
    product.client("iam").attach_role_policy(RoleName=role, PolicyArn=ADMINISTRATOR)


def added_policy(product: Product) -> None:
    something = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"}]}
    role = physical(product, "scones-platform", "DeployFunctionRole")
    product.client("iam").put_role_policy(RoleName=role, PolicyName="by-hand", PolicyDocument=json.dumps(something))


def open_trust(product: Product) -> None:
    statement = {"Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}, "Action": "sts:AssumeRole"}
    product.client("iam").update_assume_role_policy(
        RoleName=physical(product, "scones-platform", "JobRole"),
        PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [statement]}),
    )


def no_bucket_policy(product: Product) -> None:
    product.client("s3").delete_bucket_policy(Bucket=product.outputs.artifact_bucket_name)


def public_bucket(product: Product) -> None:
    product.client("s3").delete_public_access_block(Bucket=product.outputs.artifact_bucket_name)


#: A change, the one resource that differs by it, how, and where.
CHANGES: list[tuple[Callable[[Product], None], str, str, str, str | None]] = [
    (another_configuration, STACK, "Endpoint", "MODIFIED", "/EndpointConfigName"),
    (other_code, STACK, "ImageClassificationFunction", "MODIFIED", "/Code"),
    (other_settings, STACK, "FilterLowConfidenceInferencesFunction", "MODIFIED", "/Timeout"),
    (moved_alias, STACK, "StateMachineAlias", "MODIFIED", "/RoutingConfiguration/0/StateMachineVersionArn"),
    (deleted_alarm, STACK, "EndpointErrorAlarm", "DELETED", None),
    (deaf_alarm, STACK, "EndpointLatencyAlarm", "MODIFIED", "/Threshold"),
    (disabled_rule, "scones-platform", "ApprovalRule", "MODIFIED", "/State"),
    (no_environment, "scones-platform", "DeployFunction", "MODIFIED", "/Environment"),
    (other_target, "scones-platform", "StepFailedRule", "MODIFIED", "/Targets/1"),
    (widened_policy, "scones-platform", "SmokeTestRole", "MODIFIED", "/Policies/0/PolicyDocument/Statement"),
    (attached_policy, "scones-platform", "WorkflowRole", "MODIFIED", "/ManagedPolicyArns"),
    (added_policy, "scones-platform", "DeployFunctionRole", "MODIFIED", "/Policies"),
    (open_trust, "scones-platform", "JobRole", "MODIFIED", "/AssumeRolePolicyDocument/Statement"),
    (no_bucket_policy, "scones-platform", "ArtifactBucketPolicy", "DELETED", None),
    (public_bucket, "scones-platform", "ArtifactBucket", "MODIFIED", "/PublicAccessBlockConfiguration"),
]


def test_what_was_changed_by_hand_is_found(product: Product, known: set[str]) -> None:
    """All changed, then looked at once: each change is another resource's."""
    for change, *_ in CHANGES:
        change(product)
    documents = {item["stack"]: item["drift"] for item in scones("aws", "diff", "--json").document}
    found = {(stack, item["resource"]): item for stack in (STACK, "scones-platform") for item in documents[stack]["resources"]}
    assert {documents[stack]["status"] for stack in (STACK, "scones-platform")} == {"DRIFTED"}
    # With another role for its version, the state machine differs too.
    assert found.keys() - {(STACK, "StateMachine")} == {(stack, resource) for _, stack, resource, *_ in CHANGES}
    known.update(resource for _, resource in found)
    for _, stack, resource, status, path in CHANGES:
        item = found[stack, resource]
        assert item["status"] == status
        if path is not None:
            assert any(difference["path"].startswith(path) for difference in item["differences"]), item


def test_what_an_auditor_changed_is_found(product: Product, known: set[str]) -> None:
    """What nobody sees at once, as all still works; all changed, then looked at, as one look costs more than the changes."""
    c, bucket = product.client, product.outputs.artifact_bucket_name
    c("lambda").remove_permission(
        FunctionName="scones-deploy-inference-workflow", StatementId=physical(product, "scones-platform", "DeployFunctionPermission")
    )
    c("sqs").delete_queue(QueueUrl=physical(product, "scones-platform", "EventDeadLetterQueue"))
    c("sns").delete_topic(TopicArn=physical(product, "scones-platform", "NotificationTopic"))
    c("logs").delete_log_group(logGroupName=physical(product, "scones-platform", "DeployFunctionLogGroup"))
    c("logs").put_retention_policy(logGroupName=physical(product, STACK, "SmokeTestLogGroup"), retentionInDays=1)
    c("s3").delete_bucket_encryption(Bucket=bucket)
    c("s3").delete_bucket_lifecycle(Bucket=bucket)
    c("s3").delete_bucket_ownership_controls(Bucket=bucket)
    c("cloudwatch").disable_alarm_actions(AlarmNames=["scones-approval-events-dead-letters"])
    c("cloudwatch").put_dashboard(DashboardName=physical(product, STACK, "Dashboard"), DashboardBody='{"widgets": []}')
    c("sqs").set_queue_attributes(QueueUrl=physical(product, STACK, "ReviewQueue"), Attributes={"MessageRetentionPeriod": "60"})
    machine = physical(product, STACK, "StateMachine")
    c("stepfunctions").update_state_machine(stateMachineArn=machine, loggingConfiguration={"level": "OFF"})
    found = {
        (item["resource"], item["status"]): {difference["path"].split("/")[1] for difference in item["differences"]}
        for stack in scones("aws", "diff", "--json").document
        for item in (stack["drift"] or {"resources": ()})["resources"]
        if item["resource"] not in known - {"StateMachine", "ArtifactBucket"}
    }
    assert found == {
        ("DeployFunctionPermission", "DELETED"): set(),
        ("EventDeadLetterQueue", "DELETED"): set(),
        ("EventDeadLetterQueuePolicy", "DELETED"): set(),
        ("NotificationTopic", "DELETED"): set(),
        ("NotificationTopicPolicy", "DELETED"): set(),
        ("DeployFunctionLogGroup", "DELETED"): set(),
        ("SmokeTestLogGroup", "MODIFIED"): {"RetentionInDays"},
        ("ArtifactBucket", "MODIFIED"): {
            "BucketEncryption",
            "LifecycleConfiguration",
            "OwnershipControls",
            "PublicAccessBlockConfiguration",
        },
        ("DeadLetterAlarm", "MODIFIED"): {"ActionsEnabled"},
        ("Dashboard", "MODIFIED"): {"DashboardBody"},
        ("ReviewQueue", "MODIFIED"): {"MessageRetentionPeriod"},
        ("StateMachine", "MODIFIED"): {"LoggingConfiguration", "RoleArn"},
    }


def test_people_read_it(product: Product) -> None:
    answer = scones("aws", "diff", "--exit-code")
    assert isinstance(answer.error, SystemExit)
    text = " ".join(answer.stdout.split())
    assert "EndpointErrorAlarm (AWS::CloudWatch::Alarm): deleted" in text
    assert "State: ENABLED → DISABLED" in text
    assert ADMINISTRATOR in text


def test_the_platform_is_put_back(product: Product) -> None:
    """What CloudFormation compares is as the template says again; what only `diff` sees is still told."""
    assert "Put it back (shown first): scones aws bootstrap --revert-drift" in scones("aws", "diff").stdout
    # Without the option there is nothing to do: CloudFormation compares templates.
    assert scones("aws", "bootstrap", "--yes", "--json").document["outcome"] == "unchanged"
    plan = " ".join(scones("aws", "bootstrap", "--revert-drift", "--dry-run").stdout.split())
    assert "+ EventDeadLetterQueue AWS::SQS::Queue add" in plan
    assert "State DISABLED → ENABLED" in plan
    assert scones("aws", "bootstrap", "--revert-drift", "--yes", "--json").document["outcome"] == "updated"
    # Nothing that is compared is left; of a role that the template gives no managed policies, none is taken.
    assert [(item["resource"], item["differences"][0]["actual"]) for item in drift("scones-platform")["resources"]] == [
        ("WorkflowRole", ADMINISTRATOR)
    ]
    assert scones("aws", "bootstrap", "--revert-drift", "--yes", "--json").document["outcome"] == "unchanged"


def test_production_is_put_back_with_a_change_set_of_cloudformation(product: Product) -> None:
    """As docs/aws.md says: the template and the parameters that the stack has."""
    client = product.client("cloudformation")
    kept = [{"ParameterKey": name, "UsePreviousValue": True} for name in product.stack()["Parameters"]]
    request = {"StackName": STACK, "ChangeSetName": "revert-drift"}
    client.create_change_set(**request, UsePreviousTemplate=True, DeploymentMode="REVERT_DRIFT", Parameters=kept)
    client.get_waiter("change_set_create_complete").wait(**request)
    client.execute_change_set(**request)
    poll(lambda: product.stack()["StackStatus"] == "UPDATE_COMPLETE")
    # CloudFormation compares neither a function's code nor SageMaker's types.
    assert {item["resource"] for item in drift(STACK)["resources"]} == {"ImageClassificationFunction", "Endpoint"}
    assert product.classify()["decision"] == "needs_review"


def test_a_stack_that_was_deleted_is_no_stack_that_never_was(product: Product) -> None:
    product.client("cloudformation").delete_stack(StackName=STACK)
    poll(lambda: not product.stack())
    _, inference, cicd = scones("aws", "diff", "--json").document
    assert (inference["stack"], inference["status"]) == (STACK, None)
    assert inference["reason"].startswith("deleted at ")
    assert cicd["reason"] is None
    assert f"{STACK}: not deployed (deleted at" in scones("aws", "diff").stdout
