"""With a key of one's own, a role needs the key's permissions for what is encrypted with it; AWS's services need the key's policy."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError

from helpers_assumed import ACCOUNT, Roles, allow, refused
from localcloud.iam.keys import service_may_use
from localcloud.iam.trust import ServiceCall

REGION = "us-east-1"
ROOT = {"Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}, "Action": "kms:*", "Resource": "*"}


@pytest.fixture(scope="module")
def roles(region: Any) -> Roles:
    return Roles(region)


@pytest.fixture(scope="module")
def key(region: Any) -> str:
    return str(region.client("kms").create_key()["KeyMetadata"]["Arn"])


@pytest.fixture(scope="module")
def bucket(region: Any, key: str) -> str:
    region.client("s3").create_bucket(Bucket="encrypted")
    encrypt(region, "encrypted", key)
    region.client("s3").put_object(Bucket="encrypted", Key="a", Body=b"a")
    return "encrypted"


def encrypt(region: Any, bucket: str, key: str | None, *, bucket_key: bool = False) -> None:
    default = {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": key} if key else {"SSEAlgorithm": "AES256"}
    rule = {"ApplyServerSideEncryptionByDefault": default, "BucketKeyEnabled": bucket_key}
    region.client("s3").put_bucket_encryption(Bucket=bucket, ServerSideEncryptionConfiguration={"Rules": [rule]})


def through(service: str, *actions: str, on: str, **context: str) -> dict[str, Any]:
    found = {"kms:ViaService": f"{service}.{REGION}.amazonaws.com", "kms:CallerAccount": ACCOUNT}
    return allow(*actions, on=on, StringEquals=found | {f"kms:EncryptionContext:{name}": value for name, value in context.items()})


def test_reading_and_writing_objects_needs_the_key(region: Any, roles: Roles, bucket: str, key: str) -> None:
    s3 = roles.client(role := roles.make(allow("s3:*")), "s3")
    said = refused(s3.get_object, "AccessDenied", Bucket=bucket, Key="a")
    assert said.endswith(
        f"is not authorized to perform: kms:Decrypt on resource: {key} because no identity-based policy allows the kms:Decrypt action"
    )
    assert "kms:GenerateDataKey" in refused(s3.put_object, "AccessDenied", Bucket=bucket, Key="b", Body=b"")
    # Nothing that leaves the bytes alone does.
    s3.head_object(Bucket=bucket, Key="a")
    s3.list_objects_v2(Bucket=bucket)
    name = role.rpartition("/")[2]
    roles.allow(name, allow("s3:*"), through("s3", "kms:Decrypt", on=key))
    assert s3.get_object(Bucket=bucket, Key="a")["Body"].read() == b"a"
    assert "kms:GenerateDataKey" in refused(s3.copy_object, "AccessDenied", Bucket=bucket, Key="b", CopySource=f"{bucket}/a")
    roles.allow(name, allow("s3:*"), through("s3", "kms:GenerateDataKey", on=key))
    s3.put_object(Bucket=bucket, Key="b", Body=b"")
    assert "kms:Decrypt" in refused(s3.copy_object, "AccessDenied", Bucket=bucket, Key="c", CopySource=f"{bucket}/b")


def test_the_way_to_the_key_counts(roles: Roles, bucket: str, key: str) -> None:
    for condition in (
        {"kms:ViaService": f"sqs.{REGION}.amazonaws.com"},
        {"kms:CallerAccount": "999999999999"},
        {"kms:EncryptionContext:aws:s3:arn": f"arn:aws:s3:::{bucket}"},
    ):
        s3 = roles.client(roles.make(allow("s3:*"), allow("kms:*", on=key, StringEquals=condition)), "s3")
        refused(s3.get_object, "AccessDenied", Bucket=bucket, Key="a")
    mine = roles.make(allow("s3:*"), through("s3", "kms:Decrypt", on=key, **{"aws:s3:arn": f"arn:aws:s3:::{bucket}/a"}))
    roles.client(mine, "s3").get_object(Bucket=bucket, Key="a")
    # The key itself is asked without a service in between.
    refused(roles.client(mine, "kms").generate_data_key, "AccessDeniedException", KeyId=key, KeySpec="AES_256")


def test_a_bucket_key_is_the_buckets(region: Any, roles: Roles, key: str) -> None:
    region.client("s3").create_bucket(Bucket="bucket-key")
    encrypt(region, "bucket-key", key, bucket_key=True)
    of_bucket, of_object = (
        roles.client(roles.make(allow("s3:*"), through("s3", "kms:GenerateDataKey", "kms:Decrypt", on=key, **{"aws:s3:arn": arn})), "s3")
        for arn in ("arn:aws:s3:::bucket-key", "arn:aws:s3:::bucket-key/a")
    )
    refused(of_object.put_object, "AccessDenied", Bucket="bucket-key", Key="a", Body=b"")
    of_bucket.put_object(Bucket="bucket-key", Key="a", Body=b"")
    refused(of_object.get_object, "AccessDenied", Bucket="bucket-key", Key="a")
    of_bucket.get_object(Bucket="bucket-key", Key="a")
    of_object.put_object(Bucket="bucket-key", Key="a", Body=b"", ServerSideEncryption="aws:kms", SSEKMSKeyId=key, BucketKeyEnabled=False)


def test_an_object_keeps_the_key_that_it_was_written_with(region: Any, roles: Roles, key: str) -> None:
    s3 = region.client("s3")
    s3.create_bucket(Bucket="changing")
    s3.put_bucket_versioning(Bucket="changing", VersioningConfiguration={"Status": "Enabled"})
    s3.put_object(Bucket="changing", Key="a", Body=b"without")
    encrypt(region, "changing", key)
    with_key = s3.put_object(Bucket="changing", Key="a", Body=b"with")["VersionId"]
    encrypt(region, "changing", None)
    s3.put_object(Bucket="changing", Key="a", Body=b"without again")
    mine = roles.client(roles.make(allow("s3:*")), "s3")
    assert mine.get_object(Bucket="changing", Key="a")["Body"].read() == b"without again"
    refused(mine.get_object, "AccessDenied", Bucket="changing", Key="a", VersionId=with_key)
    refused(mine.copy_object, "AccessDenied", Bucket="changing", Key="b", CopySource=f"changing/a?versionId={with_key}")


def test_parts_of_an_upload_need_the_key_that_it_began_with(region: Any, roles: Roles, bucket: str, key: str) -> None:
    role = roles.make(allow("s3:*"))
    s3, name = roles.client(role, "s3"), role.rpartition("/")[2]
    refused(s3.create_multipart_upload, "AccessDenied", Bucket=bucket, Key="large")
    roles.allow(name, allow("s3:*"), through("s3", "kms:GenerateDataKey", on=key))
    upload = {"Bucket": bucket, "Key": "large", "UploadId": s3.create_multipart_upload(Bucket=bucket, Key="large")["UploadId"]}
    assert "kms:Decrypt" in refused(s3.upload_part, "AccessDenied", **upload, PartNumber=1, Body=b"x")
    roles.allow(name, allow("s3:*"), through("s3", "kms:Decrypt", on=key))
    part = {"PartNumber": 1, "ETag": s3.upload_part(**upload, PartNumber=1, Body=b"x")["ETag"]}
    roles.allow(name, allow("s3:*"))
    assert "kms:Decrypt" in refused(s3.complete_multipart_upload, "AccessDenied", **upload, MultipartUpload={"Parts": [part]})


def test_aws_own_keys_need_nothing(region: Any, roles: Roles, bucket: str) -> None:
    s3 = roles.client(roles.make(allow("s3:*", "sqs:*")), "s3")
    for more in (
        {"ServerSideEncryption": "AES256"},
        {"ServerSideEncryption": "aws:kms"},
        {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "alias/aws/s3"},
    ):
        s3.put_object(Bucket=bucket, Key="open", Body=b"x", **more)
        assert s3.get_object(Bucket=bucket, Key="open")["Body"].read() == b"x"


def test_the_keys_policy_counts_as_well(region: Any, roles: Roles) -> None:
    role = roles.make(allow("s3:*", "kms:*"))
    other = {**ROOT, "Principal": {"AWS": roles.make(allow("sts:GetCallerIdentity"))}}
    closed = region.client("kms").create_key(Policy=json.dumps({"Version": "2012-10-17", "Statement": [other]}))["KeyMetadata"]["Arn"]
    s3 = roles.client(role, "s3")
    request = {"Bucket": "policies", "Key": "a", "Body": b"", "ServerSideEncryption": "aws:kms", "SSEKMSKeyId": closed}
    region.client("s3").create_bucket(Bucket="policies")
    assert "because no resource-based policy allows the kms:GenerateDataKey action" in refused(s3.put_object, "AccessDenied", **request)
    named = {**ROOT, "Principal": {"AWS": role}, "Action": "kms:GenerateDataKey"}
    region.client("kms").put_key_policy(
        KeyId=closed, PolicyName="default", Policy=json.dumps({"Version": "2012-10-17", "Statement": [named]})
    )
    s3.put_object(**request)
    refused(s3.get_object, "AccessDenied", Bucket="policies", Key="a")


def test_queues_and_topics_need_the_key_with_errors_of_their_own(region: Any, roles: Roles, key: str) -> None:
    url = region.client("sqs").create_queue(QueueName="encrypted", Attributes={"KmsMasterKeyId": key})["QueueUrl"]
    topic = region.client("sns").create_topic(Name="encrypted", Attributes={"KmsMasterKeyId": key})["TopicArn"]
    role = roles.make(allow("sqs:*", "sns:*"))
    sqs, sns, name = roles.client(role, "sqs"), roles.client(role, "sns"), role.rpartition("/")[2]
    assert f"kms:GenerateDataKey on resource: {key}" in refused(
        sqs.send_message, "KMS.AccessDeniedException", QueueUrl=url, MessageBody="x"
    )
    assert "kms:GenerateDataKey" in refused(sns.publish, "KMSAccessDenied", TopicArn=topic, Message="x")
    entry = {"Id": "1", "MessageBody": "x"}
    refused(sqs.send_message_batch, "KMS.AccessDeniedException", QueueUrl=url, Entries=[entry])
    made = [through(service, "kms:GenerateDataKey", on=key) for service in ("sqs", "sns")]
    roles.allow(name, allow("sqs:*", "sns:*"), *made)
    assert "kms:Decrypt" in refused(sqs.send_message, "KMS.AccessDeniedException", QueueUrl=url, MessageBody="x")
    assert "kms:Decrypt" in refused(sns.publish, "KMSAccessDenied", TopicArn=topic, Message="x")
    refused(sqs.receive_message, "KMS.AccessDeniedException", QueueUrl=url)
    queue = f"arn:aws:sqs:{REGION}:{ACCOUNT}:encrypted"
    roles.allow(
        name,
        allow("sqs:*", "sns:*"),
        *made,
        through("sqs", "kms:Decrypt", on=key, **{"aws:sqs:arn": queue}),
        through("sns", "kms:Decrypt", on=key, **{"aws:sns:topicArn": topic}),
    )
    sns.publish(TopicArn=topic, Message="x")
    sqs.send_message(QueueUrl=url, MessageBody="x")
    (message,) = sqs.receive_message(QueueUrl=url)["Messages"]
    roles.allow(name, allow("sqs:*"))
    sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])


def test_a_state_machine_names_the_error_as_aws_does(region: Any, roles: Roles, key: str, poll: Callable[..., Any]) -> None:
    url = region.client("sqs").create_queue(QueueName="of-machine", Attributes={"KmsMasterKeyId": key})["QueueUrl"]
    task = {
        "Type": "Task",
        "Resource": "arn:aws:states:::sqs:sendMessage",
        "Parameters": {"QueueUrl": url, "MessageBody": "x"},
        "End": True,
    }
    states, definition = region.client("stepfunctions"), json.dumps({"StartAt": "A", "States": {"A": task}})
    role = roles.make(allow("sqs:SendMessage"), through("sqs", "kms:Decrypt", on=key))
    machine = states.create_state_machine(name="m", definition=definition, roleArn=role)["stateMachineArn"]
    arn = states.start_execution(stateMachineArn=machine)["executionArn"]
    ended = poll(lambda: (found := states.describe_execution(executionArn=arn))["status"] != "RUNNING" and found)
    assert (ended["status"], ended["error"]) == ("FAILED", "SQS.KmsAccessDeniedException")
    assert "kms:GenerateDataKey" in ended["cause"]


@pytest.mark.parametrize(("policy", "delivered"), [("none", False), ("another source", False), ("the service", True), ("AWS's key", False)])
def test_a_rule_reaches_an_encrypted_queue_by_the_keys_policy(region: Any, policy: str, delivered: bool, poll: Callable[..., Any]) -> None:
    name = "rule-" + policy.replace(" ", "-").replace("'", "")
    rule = f"arn:aws:events:{REGION}:{ACCOUNT}:rule/{name}"
    source = rule if policy == "the service" else rule + "-2"
    service = {
        "Effect": "Allow",
        "Principal": {"Service": "events.amazonaws.com"},
        "Action": ["kms:Decrypt", "kms:GenerateDataKey"],
        "Resource": "*",
        "Condition": {"ArnEquals": {"aws:SourceArn": source}},
    }
    statements = [ROOT] if policy == "none" else [ROOT, service]
    key = region.client("kms").create_key(Policy=json.dumps({"Version": "2012-10-17", "Statement": statements}))["KeyMetadata"]["Arn"]
    sqs, events = region.client("sqs"), region.client("events")
    arns = []
    for queue, encryption in ((name, "alias/aws/sqs" if policy == "AWS's key" else key), (f"{name}-dead", "")):
        arn = f"arn:aws:sqs:{REGION}:{ACCOUNT}:{queue}"
        open_to = {"Effect": "Allow", "Principal": {"Service": "events.amazonaws.com"}, "Action": "sqs:SendMessage", "Resource": arn}
        attributes = {"Policy": json.dumps({"Version": "2012-10-17", "Statement": [open_to]})}
        sqs.create_queue(QueueName=queue, Attributes=attributes | ({"KmsMasterKeyId": encryption} if encryption else {}))
        arns.append(arn)
    events.put_rule(Name=name, EventPattern=json.dumps({"source": [name]}))
    events.put_targets(Rule=name, Targets=[{"Id": "1", "Arn": arns[0], "DeadLetterConfig": {"Arn": arns[1]}}])
    events.put_events(Entries=[{"Source": name, "DetailType": "x", "Detail": "{}"}])

    def received() -> tuple[str, dict[str, Any]] | None:
        for queue in (name, f"{name}-dead"):
            messages = sqs.receive_message(QueueUrl=sqs.get_queue_url(QueueName=queue)["QueueUrl"], MessageAttributeNames=["All"])
            if "Messages" in messages:
                return queue, messages["Messages"][0].get("MessageAttributes", {})
        return None

    queue, attributes = poll(received)
    assert queue == (name if delivered else f"{name}-dead")
    if not delivered:
        assert attributes["ERROR_CODE"]["StringValue"] == "NO_PERMISSIONS"
        assert "its key's policy does not allow events.amazonaws.com" in attributes["ERROR_MESSAGE"]["StringValue"]


@pytest.mark.parametrize(
    ("condition", "told", "may"),
    [({}, False, True), ({"ArnEquals": {"aws:SourceArn": "rule"}}, False, False), ({"ArnEquals": {"aws:SourceArn": "rule"}}, True, True)],
)
def test_a_key_whose_policy_asks_for_the_rule_is_closed_to_a_service_that_does_not_say_it(
    region: Any, condition: dict[str, Any], told: bool, may: bool
) -> None:
    rule, topic = f"arn:aws:events:{REGION}:{ACCOUNT}:rule/r", f"arn:aws:sns:{REGION}:{ACCOUNT}:t"
    service = {"Effect": "Allow", "Principal": {"Service": "events.amazonaws.com"}, "Action": "kms:*", "Resource": "*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [ROOT, service | ({"Condition": condition} if condition else {})]})
    key = region.client("kms").create_key(Policy=policy.replace('"rule"', f'"{rule}"'))["KeyMetadata"]["Arn"]
    call = ServiceCall("events.amazonaws.com", "sns:Publish", topic, rule, ACCOUNT)
    assert service_may_use(ACCOUNT, REGION, call, key, told=told) is may


def test_an_alarm_says_that_it_may_not_use_the_topics_key(region: Any, key: str, poll: Callable[..., Any]) -> None:
    cloudwatch = region.client("cloudwatch")
    topic = region.client("sns").create_topic(Name="alarms", Attributes={"KmsMasterKeyId": key})["TopicArn"]
    open_to = {"Effect": "Allow", "Principal": {"Service": "cloudwatch.amazonaws.com"}, "Action": "sns:Publish", "Resource": topic}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [open_to]})
    region.client("sns").set_topic_attributes(TopicArn=topic, AttributeName="Policy", AttributeValue=policy)
    cloudwatch.put_metric_alarm(
        AlarmName="a", Namespace="n", MetricName="m", Statistic="Sum", Period=60, EvaluationPeriods=1, Threshold=1,
        ComparisonOperator="GreaterThanThreshold", AlarmActions=[topic],
    )  # fmt: skip
    cloudwatch.set_alarm_state(AlarmName="a", StateValue="ALARM", StateReason="test")
    (action,) = poll(lambda: cloudwatch.describe_alarm_history(AlarmName="a", HistoryItemType="Action")["AlarmHistoryItems"])
    assert action["HistorySummary"].endswith("CloudWatch Alarms does not have authorization to access the SNS topic encryption key.")


def test_a_log_group_takes_a_key_only_whose_policy_lets_the_logs_use_it(region: Any, key: str, documented_key_policy: str) -> None:
    logs, group = region.client("logs"), f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:/a"
    said = f"The specified KMS key does not exist or is not allowed to be used with LogGroup '{group}'"
    for operation in (logs.create_log_group, logs.associate_kms_key):
        with pytest.raises(ClientError, match="AccessDeniedException") as caught:
            operation(logGroupName="/a", kmsKeyId=key)
        assert caught.value.response["Error"]["Message"] == said
        if operation == logs.create_log_group:
            logs.create_log_group(logGroupName="/a")
    documented = region.client("kms").create_key(Policy=documented_key_policy)["KeyMetadata"]["Arn"]
    logs.associate_kms_key(logGroupName="/a", kmsKeyId=documented)
    elsewhere = documented_key_policy.replace(":log-group:*", ":log-group:/b*")
    other = region.client("kms").create_key(Policy=elsewhere)["KeyMetadata"]["Arn"]
    with pytest.raises(ClientError, match="is not allowed to be used"):
        logs.associate_kms_key(logGroupName="/a", kmsKeyId=other)
    logs.create_log_group(logGroupName="/b", kmsKeyId=other)


def test_the_administrator_needs_no_permission_of_the_key(region: Any, bucket: str) -> None:
    assert region.client("s3").get_object(Bucket=bucket, Key="a")["Body"].read() == b"a"
