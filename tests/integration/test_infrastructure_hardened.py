"""The platform with all that an account may ask for and localcloud can do: a key of one's own, and a permissions boundary."""

from __future__ import annotations

import json
from typing import Any

import pytest
from botocore.exceptions import ClientError
from helpers_permissions import not_needed, not_needed_services, of_keys, refused, roles_of, unused, usage_of

from helpers_product import ACCOUNT, REGION, STACK, Product
from infrastructure.deploy import ServingMode
from infrastructure.drift import DriftStatus, detect_drift

BOUNDARY = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}


@pytest.fixture(scope="module")
def product(region: Any) -> Product:
    from conftest import poll

    return Product(region, poll)


@pytest.fixture(scope="module")
def hardening(product: Product, documented_key_policy: str) -> dict[str, str]:
    """A key with the policy that docs/security.md gives it, and a boundary."""
    key = product.client("kms").create_key(Policy=documented_key_policy)["KeyMetadata"]["Arn"]
    boundary = product.client("iam").create_policy(PolicyName="boundary", PolicyDocument=json.dumps(BOUNDARY))["Policy"]["Arn"]
    return {"encryption_key_arn": key, "permissions_boundary_arn": boundary}


def test_what_localcloud_cannot_do_is_said_before_anything_is_made(product: Product) -> None:
    with pytest.raises(ClientError, match="not supported by localcloud"):
        product.deploy(access_log_bucket_name="logs")
    assert product.client("s3").list_buckets()["Buckets"] == []


def test_the_loop_runs_with_a_key_and_a_boundary(product: Product, hardening: dict[str, str]) -> None:
    product.deploy(serving_mode=ServingMode.INSTANCE, **hardening)
    arn = product.register()
    product.decide(arn)
    product.settled("CREATE_COMPLETE", arn)
    assert product.classify(threshold=0.5)["decision"] == "accepted"


def test_what_nobody_is_sure_of_waits_in_an_encrypted_queue(product: Product) -> None:
    assert product.classify(threshold=1)["decision"] == "needs_review"


def test_an_alarm_is_told_through_the_encrypted_topic(product: Product) -> None:
    product.listen()
    product.client("cloudwatch").set_alarm_state(AlarmName="scones-approval-events-dead-letters", StateValue="ALARM", StateReason="a test")
    product.told("scones-approval-events-dead-letters", "a test")


def test_a_role_that_is_not_given_the_key_fails(product: Product) -> None:
    iam = product.client("iam")
    found = {
        resource["LogicalResourceId"]: resource["PhysicalResourceId"]
        for resource in product.client("cloudformation").describe_stack_resources(StackName="scones-platform")["StackResources"]
    }
    attachment = {"RoleName": found["SerializeImageDataRole"], "PolicyArn": found["EncryptionKeyPolicy"]}
    iam.detach_role_policy(**attachment)
    try:
        with pytest.raises(AssertionError, match=r"ImageAccessDeniedError.*kms:Decrypt"):
            product.classify()
    finally:
        iam.attach_role_policy(**attachment)


def test_no_use_of_the_key_for_a_deployment_on_instances_could_be_left_out(product: Product) -> None:
    """tests/e2e/test_cicd.py has the roles of all the rest."""
    usage, roles = of_keys(usage_of(product.region.endpoint_url)), roles_of(product.client, "scones-platform")
    deployment = [role for role in roles if role.name == "DeploymentRole"]
    assert refused(usage, deployment) == []
    assert {one for one in unused(usage, deployment) if ": kms:" in one} == {"DeploymentRole: Key: kms:DescribeKey"}
    assert not_needed(usage, deployment) == []
    assert not any("kms:CreateGrant" in one for one in not_needed_services(usage, deployment))


def test_everything_that_holds_data_has_the_key(product: Product, hardening: dict[str, str]) -> None:
    key = hardening["encryption_key_arn"]
    (rule,) = product.client("s3").get_bucket_encryption(Bucket=product.outputs.artifact_bucket_name)["ServerSideEncryptionConfiguration"][
        "Rules"
    ]
    assert rule["ApplyServerSideEncryptionByDefault"] == {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": key}
    (config,) = product.client("sagemaker").list_endpoint_configs()["EndpointConfigs"]
    assert product.client("sagemaker").describe_endpoint_config(EndpointConfigName=config["EndpointConfigName"])["KmsKeyId"] == key
    sqs = product.client("sqs")
    queues = sqs.list_queues(QueueNamePrefix="scones")["QueueUrls"]
    assert len(queues) == 2
    for url in queues:
        attributes = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
        assert attributes["KmsMasterKeyId"] == key
        assert "aws:SecureTransport" in attributes["Policy"]
    topic = product.client("sns").get_topic_attributes(TopicArn=product.outputs.notification_topic_arn)["Attributes"]
    assert topic["KmsMasterKeyId"] == key
    groups = product.client("logs").describe_log_groups(logGroupNamePrefix="/aws/lambda/scones-")["logGroups"]
    assert len(groups) == 5
    assert {group.get("kmsKeyId") for group in groups} == {key}


def test_what_nobody_touched_is_in_sync_with_a_key_too(product: Product) -> None:
    for stack in ("scones-platform", STACK):
        found = detect_drift(product.client("cloudformation"), stack, lambda: 30.0)
        assert (found.status, found.resources, found.reason) == (DriftStatus.IN_SYNC, (), None)


def test_every_role_has_the_boundary(product: Product, hardening: dict[str, str]) -> None:
    iam = product.client("iam")
    roles = [iam.get_role(RoleName=role["RoleName"])["Role"] for role in iam.list_roles()["Roles"]]
    assert len(roles) == 10
    assert {role["PermissionsBoundary"]["PermissionsBoundaryArn"] for role in roles} == {hardening["permissions_boundary_arn"]}


def test_both_can_be_taken_away_again(product: Product) -> None:
    product.deploy()
    groups = product.client("logs").describe_log_groups(logGroupNamePrefix="/aws/lambda/scones-deploy")["logGroups"]
    assert [group.get("kmsKeyId") for group in groups] == [None]
    bucket = product.outputs.artifact_bucket_name
    (rule,) = product.client("s3").get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]["Rules"]
    assert rule["ApplyServerSideEncryptionByDefault"] == {"SSEAlgorithm": "AES256"}
    iam = product.client("iam")
    assert not any("PermissionsBoundary" in iam.get_role(RoleName=role["RoleName"])["Role"] for role in iam.list_roles()["Roles"])


def test_a_log_group_takes_keys_that_there_are(product: Product, hardening: dict[str, str]) -> None:
    logs = product.client("logs")
    group = "/aws/lambda/scones-deploy-inference-workflow"
    with pytest.raises(ClientError, match=r"InvalidParameterException.*KMS Key Id could not be found"):
        logs.associate_kms_key(logGroupName=group, kmsKeyId=f"arn:aws:kms:{REGION}:{ACCOUNT}:key/none")
    with pytest.raises(ClientError, match="ResourceNotFoundException"):
        logs.associate_kms_key(logGroupName="none", kmsKeyId=hardening["encryption_key_arn"])
    with pytest.raises(ClientError, match="not supported by localcloud"):
        logs.disassociate_kms_key(resourceIdentifier=f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:{group}")
    logs.associate_kms_key(logGroupName=group, kmsKeyId=hardening["encryption_key_arn"])
    (found,) = logs.describe_log_groups(logGroupNamePrefix=group)["logGroups"]
    assert found["kmsKeyId"] == hardening["encryption_key_arn"]


def test_what_localcloud_cannot_do_is_said_and_changes_nothing(product: Product, hardening: dict[str, str]) -> None:
    before = product.client("cloudformation").describe_stacks(StackName="scones-platform")["Stacks"]
    with pytest.raises(ClientError, match="not supported by localcloud"):
        product.deploy(monthly_budget=100, serving_mode=ServingMode.INSTANCE, **hardening)
    assert product.client("cloudformation").describe_stacks(StackName="scones-platform")["Stacks"] == before
