"""The seams into moto that Lambda needs: who calls it, and roles, queues and topics from inside the process."""

from __future__ import annotations

import base64
import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from helpers_functions import Lab
from localcloud.iam.trust import can_assume
from localcloud.messaging import MessageRefused, publish_to_topic, queue_policy, send_to_queue, string_attributes, topic_policy


@pytest.fixture(scope="module")
def lab(region: Any) -> Lab:
    return Lab(region)


def writer(path: Path) -> str:
    return f"import json\ndef handler(event, context):\n    with open({str(path)!r}, 'a') as file: file.write(json.dumps(event) + '\\n')"


def written(lab: Lab, path: Path) -> Any:
    return json.loads(lab.poll(lambda: path.exists() and path.read_text()).splitlines()[0])


def test_an_s3_notification_runs_the_function_when_its_policy_allows(lab: Lab, tmp_path: Path) -> None:
    s3 = lab.client("s3")
    s3.create_bucket(Bucket="notifying")
    allowed, refused = lab.function(writer(tmp_path / "allowed")), lab.function(writer(tmp_path / "refused"))
    lab.allow(allowed, "s3.amazonaws.com", "arn:aws:s3:::notifying")
    lab.allow(refused, "s3.amazonaws.com", "arn:aws:s3:::another")
    arn = "arn:aws:lambda:us-east-1:123456789012:function:"
    configurations = [{"LambdaFunctionArn": arn + name, "Events": ["s3:ObjectCreated:*"]} for name in (refused, allowed)]
    s3.put_bucket_notification_configuration(Bucket="notifying", NotificationConfiguration={"LambdaFunctionConfigurations": configurations})
    s3.put_object(Bucket="notifying", Key="a photo.png", Body=b"x")
    record = written(lab, tmp_path / "allowed")["Records"][0]
    assert (record["eventSource"], record["eventName"]) == ("aws:s3", "ObjectCreated:Put")
    assert record["s3"]["object"]["key"] == "a+photo.png"
    assert not (tmp_path / "refused").exists()


def test_a_subscription_to_a_topic_runs_the_function(lab: Lab, tmp_path: Path) -> None:
    sns, name = lab.client("sns"), lab.function(writer(tmp_path / "event"))
    topic = sns.create_topic(Name="topic")["TopicArn"]
    lab.allow(name, "sns.amazonaws.com", topic)
    sns.subscribe(TopicArn=topic, Protocol="lambda", Endpoint=f"arn:aws:lambda:us-east-1:123456789012:function:{name}")
    sns.publish(TopicArn=topic, Subject="hello", Message="there", MessageAttributes={"k": {"DataType": "String", "StringValue": "v"}})
    record = written(lab, tmp_path / "event")["Records"][0]
    assert record["EventSource"] == "aws:sns"
    assert (record["Sns"]["TopicArn"], record["Sns"]["Subject"], record["Sns"]["Message"]) == (topic, "hello", "there")


def test_a_topics_other_subscriptions_stay_motos(lab: Lab) -> None:
    sns, (url, arn) = lab.client("sns"), lab.queue()
    topic = sns.create_topic(Name="to-queue")["TopicArn"]
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)
    sns.publish(TopicArn=topic, Message="there")
    assert json.loads(lab.receive(url)["Body"])["Message"] == "there"


def test_a_log_subscription_runs_the_function(lab: Lab, tmp_path: Path) -> None:
    logs, name = lab.client("logs"), lab.function(writer(tmp_path / "event"))
    lab.allow(name, "logs.amazonaws.com", "arn:aws:logs:us-east-1:123456789012:log-group:source:*")
    logs.create_log_group(logGroupName="source")
    logs.put_subscription_filter(
        logGroupName="source", filterName="all", filterPattern="", destinationArn=f"arn:aws:lambda:us-east-1:123456789012:function:{name}"
    )
    lab.cloud.logs.write("source", "stream", "a line")
    data = json.loads(gzip.decompress(base64.b64decode(written(lab, tmp_path / "event")["awslogs"]["data"])))
    assert (data["logGroup"], data["logEvents"][0]["message"]) == ("source", "a line")


def test_queues_and_topics_from_inside_the_process(lab: Lab) -> None:
    url, arn = lab.queue()
    identifier = send_to_queue(lab.cloud, arn, "body", string_attributes(A="1", EMPTY=""))
    message = lab.receive(url)
    assert (message["MessageId"], message["Body"]) == (identifier, "body")
    assert message["MessageAttributes"] == {"A": {"StringValue": "1", "DataType": "String"}}
    policy = queue_policy(lab.cloud, arn)
    assert policy is not None
    assert policy["Statement"][0]["Action"] == "sqs:SendMessage"
    assert queue_policy(lab.cloud, lab.queue(allowed=False)[1]) is None
    topic = lab.client("sns").create_topic(Name="inside")["TopicArn"]
    lab.client("sns").subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn, Attributes={"RawMessageDelivery": "true"})
    publish_to_topic(lab.cloud, topic, "published", attributes=string_attributes(B="2"))
    message = lab.receive(url)
    assert (message["Body"], message["MessageAttributes"]["B"]["StringValue"]) == ("published", "2")
    assert "Statement" in (topic_policy(lab.cloud, topic) or {})


def test_queues_and_topics_that_are_not_there(lab: Lab) -> None:
    with pytest.raises(MessageRefused, match="does not exist"):
        send_to_queue(lab.cloud, "arn:aws:sqs:us-east-1:123456789012:none", "x")
    with pytest.raises(MessageRefused, match="does not exist"):
        queue_policy(lab.cloud, "arn:aws:sqs:us-east-1:123456789012:none")
    with pytest.raises(MessageRefused):
        publish_to_topic(lab.cloud, "arn:aws:sns:us-east-1:123456789012:none", "x")
    with pytest.raises(MessageRefused):
        topic_policy(lab.cloud, "arn:aws:sns:us-east-1:123456789012:none")


def test_which_services_may_assume_a_role(lab: Lab) -> None:
    assert can_assume(lab.cloud, lab.role, "lambda.amazonaws.com")
    assert not can_assume(lab.cloud, lab.role, "sagemaker.amazonaws.com")
    assert not can_assume(lab.cloud, lab.role + "x", "lambda.amazonaws.com")
